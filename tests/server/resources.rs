//! Exhausted resources: a full disk, and no free file descriptors.

use std::fs;

use crate::support::wire::*;
use crate::support::{Client, Server, eventually};

/// A full disk declines writes `storage-failed`, nobody is notified of them, reads go on; when
/// there is space again the server works, without a restart, and its file is sound.
#[test]
fn a_full_disk_declines_writes_until_there_is_space() {
    let Some(server) = Server::on_small_disk(4096, &[]) else {
        return;
    };
    for name in ["anna", "boris"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    let ballast = server.disk().join("ballast");
    fs::write(&ballast, vec![0; 2 * 1024 * 1024]).expect("room for the ballast");

    let kept = fill_the_disk(&mut anna, hall);
    assert!(kept > 0, "full from the start");
    boris.notified(hall, kept);
    boris.expect_quiet();
    assert_eq!(boris.history(hall).len(), kept);
    boris.ask(SEND_CHAT_MSG, body().id(hall).text(&"y".repeat(16_000))).declined("storage-failed");
    anna.expect_quiet();

    fs::remove_file(&ballast).expect("the ballast gone");
    anna.send(hall, "space again");
    assert_eq!(contents(&boris.notified(hall, 1)), ["space again"]);
    let history = boris.history(hall);
    assert_eq!(history.len(), kept + 1);
    assert!(history.is_sorted_by(|a, b| a.created < b.created));
    server.admin_ok(&["check"], None);
}

/// A server that is stopped while the disk is full ends gracefully: nothing that was accepted
/// needs the write that it cannot do. (The disk ends with the server.)
#[test]
fn a_full_disk_does_not_spoil_the_end() {
    let Some(mut server) = Server::on_small_disk(2048, &[]) else {
        return;
    };
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let ballast = server.disk().join("ballast");
    fs::write(&ballast, vec![0; 512 * 1024]).expect("room for the ballast");
    fill_the_disk(&mut anna, hall);
    fs::write(server.disk().join("more"), vec![0; 1024 * 1024]).expect_err("not full");
    assert!(server.stop_by("TERM").0.success(), "{}", server.stderr());
    // Unless the small write by which it finds out whether the disk is still full got through.
    let log = server.stderr();
    let is_explained = log.contains("was not tidied up") || log.contains("can be written again");
    assert!(is_explained, "{log}");
}

/// Sends until the disk is full; how many messages were accepted before.
#[track_caller]
fn fill_the_disk(client: &mut Client, chat: u32) -> usize {
    let long = "x".repeat(16_000);
    let mut kept = 0;
    loop {
        let answer = client.ask(SEND_CHAT_MSG, body().id(chat).text(&long));
        if answer.purpose == DECLINED {
            answer.declined("storage-failed");
            return kept;
        }
        kept += 1;
        assert!(kept < 1000, "the disk never gets full");
    }
}

/// A pipelined stream into a full disk is answered request by request, and what was accepted is
/// there after a kill: the disk is the server's own, so it is read before.
#[test]
fn a_stream_into_a_full_disk() {
    let Some(server) = Server::on_small_disk(4096, &[]) else {
        return;
    };
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let ballast = server.disk().join("ballast");
    fs::write(&ballast, vec![0; 2 * 1024 * 1024]).expect("room for the ballast");
    let content = "x".repeat(4000);
    let mut accepted = Vec::new();
    let mut declined = 0;
    for _ in 0..20 {
        let requests = (0..50).map(|_| (SEND_CHAT_MSG, body().id(hall).text(&content).into()));
        let count = anna.post_all(requests);
        for _ in 0..count {
            let answer = anna.answer();
            if answer.purpose == ACCEPTED {
                accepted.push(Sent::read(&answer.body).id);
            } else {
                answer.declined("storage-failed");
                declined += 1;
            }
        }
    }
    assert!(!accepted.is_empty() && declined > 0);
    let kept: Vec<u64> = anna.history(hall).iter().map(|m| m.id).collect();
    assert_eq!(kept, accepted);
}

/// When the open files are used up the next connection is closed without a byte, those that are
/// there go on, and a place that gets free is used again.
#[test]
fn open_files_are_used_up() {
    let options = ["--max-unauthorized-per-address", "0"];
    let server = Server::after("ulimit -n 100", &options);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    for _ in 0..3 {
        let mut taken: Vec<Client> = (0..120).map(|_| server.connect()).collect();
        let mut served = 0;
        for client in &mut taken {
            client.write_frame(HEARTBEAT, 1, []);
            served += client.frames_until(1).len();
        }
        assert!((10..100).contains(&served), "{served} served");
        anna.send(hall, "still here");
        drop(taken);
        eventually(|| {
            let mut client = server.connect();
            client.write_frame(HELLO, 1, [0, 1]);
            !client.frames_until(1).is_empty()
        });
    }
    server.login("anna").send(hall, "room again");
}

/// A limit of the file's size is a full disk, though the system calls it by another name: writes
/// are declined, reads go on, and when the limit is lifted the server works without a restart.
#[test]
fn a_file_size_limit_is_a_full_disk() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let pid = Pid::from_raw(server.process_id() as i32);
    let limit = |current| {
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).expect("a limit")
    };
    limit(Some(400_000));
    let kept = fill_the_disk(&mut anna, hall);
    assert!(kept > 0, "full from the start");
    assert_eq!(anna.history(hall).len(), kept);
    anna.ask(SEND_CHAT_MSG, body().id(hall).text(&"y".repeat(16_000))).declined("storage-failed");
    limit(None);
    anna.send(hall, "room again");
    assert_eq!(anna.history(hall).len(), kept + 1);
    server.admin_ok(&["check"], None);
}

/// When a sync fails nobody knows what is on the disk: nothing is answered any more, the server
/// ends with exit code 3 and one line, and the next start recovers what was accepted.
#[test]
fn a_failed_sync_ends_the_server() {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        println!("strace is not installed: nothing is tested");
        return;
    }
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let first = anna.send(hall, "on the disk").id;
    let pid = server.process_id().to_string();
    let mut strace = std::process::Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"])
        .args(["-e", "inject=fdatasync,fsync:error=EIO", "-p", &pid])
        .spawn()
        .expect("strace");
    let status = format!("/proc/{pid}/status");
    let is_traced =
        || fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0"));
    while !is_traced() {
        assert!(strace.try_wait().expect("strace").is_none(), "strace cannot trace here");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anna.post(SEND_CHAT_MSG, body().id(hall).text("nobody knows"));
    assert!(anna.frames_until(1).is_empty(), "something was answered");
    let (ended, _) = server.wait_for_end();
    assert_eq!(ended.code(), Some(3));
    assert!(server.stderr().lines().any(|line| line.starts_with("vestnik: ")), "one clear line");
    strace.wait().expect("the end of strace");
    server.restart();
    let kept = server.login("anna").history(hall);
    assert_eq!(kept.first().map(|message| message.id), Some(first));
    assert!(kept.len() <= 2);
}
