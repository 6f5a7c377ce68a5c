//! The database, its WAL or its lock is moved, replaced or deleted while the server runs.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::support::server::{signal, vestnik};
use crate::support::wire::*;
use crate::support::{Server, eventually};

/// What somebody does to the files of a running server.
type Harm = fn(&Server);

const HARMS: [(&str, Harm); 8] = [
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
    ("without shared memory", |server| {
        fs::remove_file(server.dir().join("t.db-shm")).expect("deleted");
    }),
    ("with other shared memory", |server| {
        fs::remove_file(server.dir().join("t.db-shm")).expect("deleted");
        server.admin_ok(&["check"], None);
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
    for name in ["t.db", "t.db-wal", "t.db-shm"] {
        let server = Server::start();
        server.add_user("anna");
        let copy = server.dir().join("copy.db");
        server.admin_ok(&["backup", copy.to_str().expect("UTF-8")], None);
        // A server that cannot notice it now.
        signal(server.process_id(), "STOP");
        if name == "t.db" {
            fs::rename(&copy, server.data()).expect("replaced");
        } else {
            fs::remove_file(server.dir().join(name)).expect("deleted");
        }
        let output = server.admin(&["user", "disable", "anna"], None);
        signal(server.process_id(), "CONT");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{name}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let words = format!("{name} is not the file that the running server has open");
        assert!(stderr.contains(&words) && stderr.contains("stop the server first"), "{stderr}");
        eventually(|| server.stderr().contains("moved, replaced or deleted"));
    }
}

/// Commands run while servers start and end, and never take that for replaced files.
#[test]
fn a_command_works_while_a_server_starts_or_ends() {
    let mut server = Server::start();
    server.add_user("anna");
    for round in 0..12 {
        let mut command = vestnik(server.dir().path());
        command.arg("--data").arg(server.data()).args(["user", "enable", "anna"]);
        let commands = thread::spawn(move || {
            for _ in 0..4 {
                let output = command.output().expect("a command");
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(0), "{round}: {stderr}");
            }
        });
        thread::sleep(Duration::from_millis(5 * round));
        signal(server.process_id(), "TERM");
        server.wait_for_end();
        server.restart();
        commands.join().expect("the commands");
    }
}
