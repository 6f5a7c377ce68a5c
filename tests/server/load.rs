//! The load generator against the real server: it counts every delivery and finds no fault.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::support::server::{run, vestnik};
use crate::support::{Server, TempDir};

/// A server with 20 load users, members of two chats.
fn prepared() -> Server {
    let server = Server::start();
    let chats = ["--chat", "load", "--chat", "load-1"];
    server.admin_ok(&[&["load", "prepare", "--users", "20"][..], &chats].concat(), None);
    server
}

/// The load generator: a program of another crate, so that it may have to be built.
fn load_generator() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let server = Path::new(env!("CARGO_BIN_EXE_vestnik"));
        let folder = server.parent().expect("the folder of the profile");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--quiet", "--package", "vestnik-load"]);
        build.args(["--target-dir"]).arg(folder.parent().expect("the target directory"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the load generator is built");
        server.with_file_name("vestnik-load")
    });
    &BUILT
}

/// Runs a scenario for a second.
fn load(server: &Server, line: &str) -> Output {
    load_at(server, server.address(), line)
}

fn load_at(server: &Server, address: SocketAddr, line: &str) -> Output {
    let mut command = Command::new(load_generator());
    command.arg("run").args(line.split(' '));
    command.args(["--addr", &address.to_string(), "--seconds", "1", "--warmup", "0"]);
    command.args(["--server-pid", &server.process_id().to_string(), "--json"]);
    run(command, None)
}

/// Runs a scenario, and gives what it printed; it must have found no fault.
#[track_caller]
fn sound(server: &Server, line: &str) -> String {
    sound_output(line, load(server, line))
}

#[track_caller]
fn sound_output(line: &str, output: Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {words}");
    let metrics = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(metrics.contains("\"faults\":0}"), "{line}: {metrics}");
    assert!(!metrics.contains("\"count\":0,"), "{line}: {metrics}");
    metrics
}

#[test]
fn messages_reach_all_members_of_both_versions() {
    let server = prepared();
    let metrics = sound(&server, "fanout --members 20 --publishers 3 --window 4 --api both");
    assert!(!metrics.contains("\"checked\":0,"), "{metrics}");
    sound(&server, "rate --members 10 --rate 500 --publishers 2");
    sound(&server, "durable --connections 20 --chats 2 --nonces");
}

#[test]
fn what_is_stored_is_read_the_same_by_pages_and_by_ranges() {
    let server = prepared();
    sound(&server, "durable --connections 4");
    sound(&server, "history --connections 2 --api 1.0");
    sound(&server, "history --connections 2 --api 0.1");
}

#[test]
fn logins_echoes_and_everything_at_once_are_answered() {
    let server = prepared();
    let metrics = sound(&server, "login --connections 6");
    assert_eq!(metrics.lines().count(), 2, "logins and restores: {metrics}");
    sound(&server, "echo --connections 3 --payload 0");
    sound(&server, "idle --connections 20 --source-addresses 2");
    sound(&server, "mixed --connections 18 --window 2");
}

#[test]
fn messages_reach_all_members_through_tls() {
    let folder = TempDir::new();
    let mut command = vestnik(folder.path());
    command.args(["cert", "self-signed", "127.0.0.1"]);
    assert!(run(command, None).status.success());
    let path = |name| folder.join(name).to_str().expect("UTF-8").to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let options = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"];
    let server = Server::with(&[&options[..], &["--tls-cert", &cert, "--tls-key", &key]].concat());
    server.admin_ok(&["load", "prepare", "--users", "10"], None);
    let line = format!("fanout --members 10 --publishers 2 --window 8 --payload 5000 --tls {cert}");
    sound_output(&line, load_at(&server, server.addresses()[1], &line));
}

#[test]
fn users_that_were_not_prepared_end_the_run_with_one_line() {
    let server = Server::start();
    let output = load(&server, "fanout --members 2 --publishers 1");
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("vestnik load prepare"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
}

#[test]
fn everything_goes_through_websockets_as_well() {
    let server = prepared();
    sound(&server, "fanout --members 20 --publishers 3 --window 4 --api both --ws");
    sound(&server, "rate --members 10 --rate 300 --publishers 2 --ws");
    sound(&server, "history --connections 2 --api 1.0 --ws");
    sound(&server, "echo --connections 10 --ws");
    sound(&server, "login --connections 4 --ws");
}
