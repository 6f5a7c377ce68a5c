//! WAL checkpointing from outside: the checkpointer works while the server runs, the WAL stays
//! short, and failures lose nothing that was acknowledged.

#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the server: they start threads"
)]

use std::fs;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::wire::*;
use crate::support::{Client, Server, in_time};

/// Of the log, per page of 4 KiB.
const FRAME_BYTES: f64 = 4096.0 + 24.0;

fn hall() -> (Server, Client, u32) {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    (server, anna, hall)
}

/// Some five pages of the log, and a word by which to know it again.
fn long(number: usize) -> String {
    format!("{number} {}", "y".repeat(16_000))
}

fn by(server: &Server, who: &str) -> f64 {
    server.metrics()[&format!("checkpoints_total{{by=\"{who}\"}}")]
}

/// Under steady sends the log stays far shorter than what was sent, anyone who copies it; nothing
/// is lost when the server is killed in the middle of that.
#[test]
fn the_log_stays_short_under_steady_sends() {
    const SENDS: usize = 4000;
    let (mut server, mut anna, hall) = hall();
    for first in (0..SENDS).step_by(20) {
        let numbers = first..first + 20;
        let requests = numbers.map(|n| (SEND_CHAT_MSG, body().id(hall).text(&long(n)).into()));
        let count = anna.post_all(requests);
        for _ in 0..count {
            anna.answer().accepted();
        }
    }
    let metrics = server.metrics();
    let sent_bytes = SENDS as f64 * 16_000.0;
    assert!(metrics["wal_bytes"] > 0.0 && metrics["wal_bytes"] < sent_bytes / 2.0);
    assert!(metrics["checkpoints_total{by=\"thread\"}"] >= 3.0);
    assert_eq!(metrics["checkpoints_failed_total"], 0.0);
    server.kill();
    server.restart();
    let history = server.login("anna").history(hall);
    assert_eq!(history.len(), SENDS);
    for (number, message) in history.iter().enumerate() {
        assert_eq!(message.content, long(number));
    }
    server.admin_ok(&["check"], None);
}

/// Of a log that is long, but not too long, the thread copies what there is, and the loop nothing.
/// The end leaves no log behind.
#[test]
fn the_thread_does_it_alone_when_it_can() {
    let (mut server, mut anna, hall) = hall();
    while server.metrics()["wal_bytes"] < 600.0 * FRAME_BYTES {
        for number in 0..10 {
            anna.send(hall, &long(number));
        }
    }
    in_time(|| by(&server, "thread") >= 1.0);
    assert_eq!(by(&server, "loop"), 0.0);
    drop(anna);
    let (ended, _) = server.stop_by("TERM");
    assert!(ended.success());
    assert!(!server.data().with_file_name("t.db-wal").exists(), "a log is left");
    server.admin_ok(&["check"], None);
}

/// Where another program checkpoints the WAL, the server never does: not under load, not after a
/// deletion, not at the end, not at the start. Nothing is lost by that.
#[test]
fn another_program_may_do_it_alone() {
    const SENDS: usize = 800;
    let mut server = Server::with(&["--checkpoints", "external"]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    for number in 0..SENDS {
        anna.send(hall, &long(number));
    }
    let wal = server.data().with_file_name("t.db-wal");
    let wal_bytes = || fs::metadata(&wal).expect("the WAL").len();
    let written = wal_bytes();
    assert!(written as f64 > SENDS as f64 * 16_000.0, "all of it is in the WAL: {written}");
    assert_eq!((by(&server, "thread"), by(&server, "loop")), (0.0, 0.0));
    drop(anna);
    let (ended, _) = server.stop_by("TERM");
    assert!(ended.success());
    assert!(wal_bytes() >= written, "the end has emptied the WAL");
    server.restart();
    assert!(wal_bytes() >= written, "the start has emptied the WAL");
    server.kill();
    server.restart();
    assert_eq!(server.login("anna").history(hall).len(), SENDS);
    server.admin_ok(&["check"], None);
}

/// Has the calls of the thread fail from now on; `None` without strace.
fn have_thread_fail(server: &Server, calls: &str) -> Option<Child> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("strace is not installed: nothing is tested");
        return None;
    }
    let tasks = format!("/proc/{}/task", server.process_id());
    let mut tasks = fs::read_dir(tasks).expect("its threads").filter_map(Result::ok);
    let is_ours = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "vestnik-wal\n")
    };
    let task = tasks.find(is_ours).expect("the thread");
    let mut strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error=EIO"), "-p"])
        .arg(task.file_name())
        .spawn()
        .expect("strace");
    in_time(|| {
        assert!(strace.try_wait().expect("strace").is_none(), "strace cannot trace here");
        let status = fs::read_to_string(task.path().join("status"));
        status.is_ok_and(|text| !text.contains("TracerPid:\t0"))
    });
    Some(strace)
}

/// The thread cannot write: that is notified once, sends go on, and it is tried again until it
/// works.
#[test]
fn a_failed_copy_is_tried_again() {
    let (server, mut anna, hall) = hall();
    let Some(mut strace) = have_thread_fail(&server, "pwrite64") else { return };
    let mut sent = 0;
    in_time(|| {
        for _ in 0..20 {
            anna.send(hall, &long(sent));
            sent += 1;
        }
        server.metrics()["checkpoints_failed_total"] >= 2.0
    });
    let grows = |line: &str| line.contains("the WAL cannot be checkpointed");
    assert_eq!(server.stderr().lines().filter(|line| grows(line)).count(), 1);
    strace.kill().expect("the end of strace");
    strace.wait().expect("the end of strace");
    in_time(|| {
        for _ in 0..20 {
            anna.send(hall, &long(sent));
            sent += 1;
        }
        server.stderr().contains("WAL checkpoints succeed again")
    });
    assert_eq!(anna.history(hall).len(), sent);
    server.admin_ok(&["check"], None);
}

/// The sync of a checkpoint fails: nobody knows what of the file is on the disk, and the server
/// ends with exit code 3. The next start has all that was accepted.
#[test]
fn a_failed_sync_of_the_thread_ends_the_server() {
    let (mut server, mut anna, hall) = hall();
    let Some(mut strace) = have_thread_fail(&server, "fdatasync,fsync") else { return };
    let mut accepted = 0;
    for number in 0.. {
        anna.post(SEND_CHAT_MSG, body().id(hall).text(&long(number)));
        let mut frames = anna.frames_until(1);
        let Some(frame) = frames.pop() else { break };
        frame.accepted();
        accepted += 1;
        assert!(number < 5000, "it goes on though a sync has failed");
    }
    let (ended, _) = server.wait_for_end();
    assert_eq!(ended.code(), Some(3));
    strace.wait().expect("the end of strace");
    server.restart();
    let history = server.login("anna").history(hall);
    assert!((accepted..=accepted + 1).contains(&history.len()));
    server.admin_ok(&["check"], None);
}

/// `check` and `backup` read in short slices, or at once: while somebody sends long messages
/// without a pause the WAL stays small.
#[test]
fn a_check_and_a_backup_let_the_wal_be_emptied() {
    let server = Server::start();
    let [(mut anna, _), (boris, _)] = server.users10(["anna", "boris"]);
    let (large, hall) = (anna.create_chat("large"), anna.create_chat("hall"));
    let mut boris = boris;
    boris.join(hall);
    let other = rusqlite::Connection::open(server.data()).expect("the data file");
    other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    let rows = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
         INSERT INTO messages (chat_id, message_id, sender_id, content)
         SELECT {large}, 1600000000000000 + i, 1, 'one of many words ' || i FROM n"
    );
    other.execute_batch(&rows).expect("rows");
    drop(other);
    let is_over = AtomicBool::new(false);
    let copy = server.dir().join("copy.db");
    let copy = copy.to_str().expect("UTF-8");
    let long = "x".repeat(16_000);
    let (mut failed, mut said) = (false, Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let request = || Vec::from(body().id(hall).text(&long));
            boris.post_all((0..16).map(|_| (SEND_CHAT_MSG, request())));
            while !is_over.load(Ordering::Relaxed) {
                boris.answer();
                boris.post(SEND_CHAT_MSG, request());
                thread::sleep(Duration::from_millis(1));
            }
        });
        for arguments in [&["backup", copy][..], &["check"]] {
            let output = server.admin(arguments, None);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            failed = failed || !output.status.success() && !stderr.contains("was not verified");
            said.push(stderr);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(!failed, "{said:?}");
    let mut wal = server.data().into_os_string();
    wal.push("-wal");
    let bytes = std::fs::metadata(wal).expect("a WAL").len();
    assert!(bytes < 48 << 20, "{bytes} bytes");
}
