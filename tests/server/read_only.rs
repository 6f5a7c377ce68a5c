//! Commands on a read-only file system.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::Server;
use crate::support::server::run;

/// Runs `vestnik ARGS` where the server's folder can only be read. `None` where the test may not
/// make such a place.
fn read_only(server: &Server, folder: &Path, args: &[&str]) -> Option<Output> {
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && \
                  ! touch \"$0.probe\" 2>/dev/null && exec \"$@\"";
    let unshare = ["--user", "--map-root-user", "--mount", "sh", "-c"];
    let place = |command: &mut Command| {
        command.args(unshare).arg(script).arg(folder.join("x")).arg(folder);
    };
    let mut tried = Command::new("unshare");
    place(&mut tried);
    tried.arg("true");
    if !run(tried, None).status.success() {
        eprintln!("no folder can be made to be read only here: nothing is tested");
        return None;
    }
    let mut command = Command::new("unshare");
    place(&mut command);
    command.arg(env!("CARGO_BIN_EXE_vestnik")).args(args).arg("--data").arg(server.data());
    Some(run(command, None))
}

/// What only reads works: while the server runs, and after it has ended.
#[test]
fn what_only_reads_works() {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "kept");
    let folder = server.dir().path().to_owned();
    let elsewhere = crate::support::TempDir::new();
    for round in ["running", "ended", "killed"] {
        match round {
            "ended" => _ = server.stop_by("TERM"),
            "killed" => {
                server.restart();
                server.login("anna").send(hall, "kept");
                server.kill();
            }
            _ => {}
        }
        let copy = elsewhere.join(&format!("{round}.db"));
        let copy = copy.to_str().expect("UTF-8");
        let all: [&[&str]; 4] =
            [&["export", "hall"], &["check"], &["backup", copy], &["user", "list"]];
        for args in all {
            let Some(output) = read_only(&server, &folder, args) else { return };
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{round}, {args:?}: {stderr}");
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(args[0] != "export" || stdout.contains("\"kept\""), "{round}: {stdout}");
        }
        if round == "running" {
            let output = read_only(&server, &folder, &["stats"]).expect("as before");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let output = read_only(&server, &folder, &["user", "disable", "anna"]).expect("as before");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("written"), "{stderr}");
    }
}
