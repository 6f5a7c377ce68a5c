//! Paths are never read as URIs, and no file is written through a symbolic link.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::support::server::{run, serve_command, vestnik};
use crate::support::{Server, TempDir};

/// Runs `vestnik ARGS` in a folder; what it printed.
#[track_caller]
fn ok(folder: &TempDir, args: &[&str], input: Option<&str>) -> String {
    let mut command = vestnik(folder.path());
    command.args(args);
    let output = run(command, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What SQLite would take for memory, a URI or a temporary file is the name of a file: what was
/// added is there afterwards.
#[test]
fn names_that_sqlite_takes_for_something_else() {
    for name in [":memory:", "file:m?mode=memory", "file:t.db?immutable=1", "a%20b?c#d.db"] {
        let folder = TempDir::new();
        let add = ["user", "add", "anna", "--password-stdin", "--password-iterations", "1000"];
        ok(&folder, &[&["--data", name][..], &add].concat(), Some("correct horse\n"));
        assert!(ok(&folder, &["--data", name, "user", "list"], None).contains("anna"), "{name}");
        assert_eq!(names_in(folder.path()), [name]);
        for copy in ["file:copy.db", ":memory: 2"] {
            ok(&folder, &["--data", name, "backup", copy], None);
            let mode = folder.join(copy).metadata().expect("the copy").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{copy}");
            assert!(ok(&folder, &["--data", copy, "user", "list"], None).contains("anna"));
            ok(&folder, &["--data", copy, "check"], None);
        }
    }
    let folder = TempDir::new();
    let mut command = vestnik(folder.path());
    command.args(["--data", "", "user", "list"]);
    assert!(!run(command, None).status.success());
}

/// `check` refuses an empty file, and leaves it empty and alone.
#[test]
fn check_makes_nothing_of_an_empty_file() {
    let folder = TempDir::new();
    let data = folder.join("t.db");
    fs::write(&data, "").expect("a file");
    let mut command = vestnik(folder.path());
    command.args(["--data", "t.db", "check"]);
    let output = run(command, None);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("empty") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(data.metadata().expect("the file").len(), 0);
    assert_eq!(names_in(folder.path()), ["t.db"]);
}

/// `check` and `backup` change neither the database nor its WAL, whether the server ended cleanly
/// or was killed.
#[test]
fn check_and_backup_write_nothing() {
    for is_killed in [false, true] {
        let mut server = Server::start();
        server.add_user("anna");
        server.add_chat("hall", &["anna"]);
        let mut anna = server.login("anna");
        let hall = anna.chat_id("hall");
        anna.send(hall, "kept");
        if is_killed {
            server.kill();
        } else {
            server.stop_by("TERM");
        }
        let wal = server.dir().join("t.db-wal");
        let state = || (fs::read(server.data()).expect("a file"), fs::read(&wal).ok());
        let (before, names) = (state(), names_in(server.dir().path()));
        assert_eq!(before.1.is_some(), is_killed);
        server.admin_ok(&["check"], None);
        let copy = server.dir().join(if is_killed { "killed.db" } else { "ended.db" });
        server.admin_ok(&["backup", copy.to_str().expect("UTF-8")], None);
        assert!(state() == before, "killed: {is_killed}");
        fs::remove_file(copy).expect("the copy");
        assert_eq!(names_in(server.dir().path()), names);
    }
}

/// A link in the place of a lock is not followed: what it leads to keeps its content and owner.
#[test]
fn a_lock_is_no_link() {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let export = server.dir().join("hall.jsonl");
    server.admin_ok(&["export", "hall", "-o", export.to_str().expect("UTF-8")], None);
    let folder = TempDir::new();
    let (target, data) = (folder.join("target"), folder.join("t.db"));
    fs::write(&target, "mine").expect("a file");
    let add = ["--data", "t.db", "user", "add", "anna", "--password-stdin"];
    ok(&folder, &add, Some("correct horse\n"));
    // As root the owner could change; otherwise the content could.
    let _ = std::os::unix::fs::chown(&data, Some(12345), Some(12345));
    let owner = target.metadata().expect("the target").uid();
    for (suffix, is_serve) in [(".lock", true), (".import", false)] {
        symlink(&target, folder.join(&format!("t.db{suffix}"))).expect("a link");
        let command = if is_serve {
            serve_command(folder.path(), &data, &[])
        } else {
            let mut command = vestnik(folder.path());
            command.args(["--data", "t.db", "import"]).arg(&export);
            command
        };
        let output = run(command, None);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("symbolic link"), "{stderr}");
        assert_eq!(target.metadata().expect("the target").uid(), owner);
        assert_eq!(fs::read(&target).expect("the target"), b"mine");
        fs::remove_file(folder.join(&format!("t.db{suffix}"))).expect("the link");
    }
}
