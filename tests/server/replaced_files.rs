//! The database, its WAL or its lock is moved, replaced or deleted while the server runs.

use std::fs;

use crate::support::wire::*;
use crate::support::{Server, eventually};

/// What somebody does to the files of a running server.
type Harm = fn(&Server);

const HARMS: [(&str, Harm); 6] = [
    ("moved", |server| fs::rename(server.data(), server.dir().join("moved.db")).expect("moved")),
    ("deleted", |server| fs::remove_file(server.data()).expect("deleted")),
    ("replaced", |server| {
        let copy = server.dir().join("copy.db");
        server.admin_ok(&["backup", copy.to_str().expect("UTF-8")], None);
        fs::rename(copy, server.data()).expect("replaced");
    }),
    ("without a WAL", |server| {
        fs::remove_file(server.dir().join("t.db-wal")).expect("deleted");
    }),
    ("with another WAL", |server| {
        fs::write(server.dir().join("other"), "").expect("a file");
        fs::rename(server.dir().join("other"), server.dir().join("t.db-wal")).expect("replaced");
    }),
    ("without a lock", |server| {
        fs::remove_file(server.dir().join("t.db.lock")).expect("deleted");
    }),
];

/// The server notices each within a second, ends with exit code 3 and one line, and accepts nothing
/// more.
#[test]
fn a_server_whose_files_are_gone_ends() {
    for (what, harm) in HARMS {
        let mut server = Server::start();
        server.add_user("anna");
        server.add_chat("hall", &["anna"]);
        let mut anna = server.login("anna");
        let hall = anna.chat_id("hall");
        anna.send(hall, "before");
        harm(&server);
        let request = body().id(hall).text("after");
        let frame = Frame::new(SEND_CHAT_MSG, 7, request).encode();
        // It may be gone before that.
        let _ = std::io::Write::write_all(&mut anna.stream(), &frame);
        let answers = anna.frames_until_broken();
        assert!(!answers.iter().any(|frame| frame.purpose == ACCEPTED), "{what}: {answers:?}");
        let (status, _) = server.wait_for_end();
        assert_eq!(status.code(), Some(3), "{what}: {}", server.stderr());
        assert!(server.stderr().contains("moved, replaced or deleted"), "{}", server.stderr());
    }
}

/// A command does not change a database that a running server does not have open.
#[test]
fn a_command_leaves_a_replaced_database_alone() {
    let server = Server::start();
    server.add_user("anna");
    let copy = server.dir().join("copy.db");
    server.admin_ok(&["backup", copy.to_str().expect("UTF-8")], None);
    // A server that cannot notice it now.
    crate::support::server::signal(server.process_id(), "STOP");
    fs::rename(&copy, server.data()).expect("replaced");
    let output = server.admin(&["user", "disable", "anna"], None);
    crate::support::server::signal(server.process_id(), "CONT");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("stop the server first"), "{stderr}");
    eventually(|| server.stderr().contains("moved, replaced or deleted"));
}
