//! Durability and server time (protocol section 3): accepted changes survive `kill -9`, and time
//! never runs backwards.
//!
//! faults.rs has the same with many connections that write while the server is killed.

use crate::support::wire::*;
use crate::support::{Server, Session};
use rusqlite::Connection;

fn hall() -> Server {
    let server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna"]);
    server
}

/// A number of the file's table `meta`, and a way to change it while no server runs.
fn stored_time(server: &Server) -> i64 {
    let file = Connection::open(server.data()).expect("the data file");
    file.query_row("SELECT value FROM meta WHERE key = 'server_time'", [], |row| row.get(0))
        .expect("the highest time ever given")
}

fn store_time(server: &Server, time: i64) {
    let file = Connection::open(server.data()).expect("the data file");
    let sql = "UPDATE meta SET value = ?1 WHERE key = 'server_time'";
    let changed = file.execute(sql, [time]).expect("a changed row");
    assert_eq!(changed, 1);
}

/// Every message is on disk when its ACCEPTED comes: killed at once, it is there again, as it was.
#[test]
fn an_accepted_message_survives_a_kill() {
    let mut server = hall();
    let mut anna = server.greeted();
    let session = anna.login("anna");
    let hall = anna.chat_id("hall");
    let mut known = Vec::new();
    for round in 0..5 {
        anna.send(hall, &format!("first of {round}"));
        let last = anna.send(hall, &format!("last of {round}"));
        server.kill();
        server.restart();
        anna = server.greeted();
        anna.restore(&session);
        let history = anna.history(hall);
        assert_eq!(history.len(), known.len() + 2);
        assert_eq!(history[..known.len()], known, "older messages changed");
        let kept = history.last().expect("the last message");
        assert_eq!((kept.id, kept.created), (last.id, last.created));
        known = history;
    }
}

/// A notification too is sent only when its message is on disk.
#[test]
fn a_notified_message_survives_a_kill() {
    let mut server = hall();
    let (mut anna, mut desk) = (server.login("anna"), server.login("anna"));
    let hall = anna.chat_id("hall");
    for _ in 0..5 {
        anna.post(SEND_CHAT_MSG, body().id(hall).text("hi"));
        let heard = desk.notified(hall, 1);
        server.kill();
        server.restart();
        anna = server.login("anna");
        desk = server.login("anna");
        assert_eq!(anna.history(hall).last(), heard.last());
    }
}

/// Sessions outlive the server, and those that ended stay ended.
#[test]
fn sessions_survive_a_kill() {
    let mut server = hall();
    let (mut first, mut second) = (server.greeted(), server.greeted());
    let (kept, ended) = (first.login("anna"), second.login("anna"));
    second.ask(LOGOFF, body()).accepted_empty();
    server.kill();
    server.restart();
    server.greeted().restore(&kept);
    server.greeted().try_restore(&ended).declined("bad-session");
    let fresh = server.greeted().login("anna");
    assert!(fresh.id != kept.id && fresh.id != ended.id, "an id again");
}

/// A session that was suspended when the server died is active when it comes back.
#[test]
fn a_suspended_session_survives_a_kill() {
    let mut server = hall();
    let (mut anna, mut desk) = (server.login("anna"), server.greeted());
    let session: Session = desk.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "unwanted");
    let (task, _) = desk.notify(hall);
    desk.write_frame(DECLINED, task, body().text("forbidden: no"));
    desk.ask(GET_CHAT_ID, body().text("hall")).declined("session-suspended");
    server.kill();
    server.restart();
    let mut desk = server.greeted();
    desk.restore(&session);
    desk.send(hall, "back");
}

/// A member stays one.
#[test]
fn a_join_survives_a_kill() {
    let mut server = hall();
    let mut boris = server.login("boris");
    let hall = boris.chat_id("hall");
    boris.join(hall);
    server.kill();
    server.restart();
    let mut boris = server.login("boris");
    boris.ask(JOIN_CHAT, body().id(hall)).declined("already-member");
    boris.send(hall, "hi");
}

/// Ids and times go on growing over kills and stops gracefully.
#[test]
fn time_goes_on_over_restarts() {
    let mut server = hall();
    let mut last = Sent { id: 0, created: 0 };
    for round in 0..6 {
        let mut anna = server.login("anna");
        let hall = anna.chat_id("hall");
        for _ in 0..3 {
            let sent = anna.send(hall, "hi");
            assert!(sent.id > last.id && sent.created > last.created);
            last = sent;
        }
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop_by("TERM");
        }
        server.restart();
    }
}

/// When the wall clock is behind the highest time ever given, time goes on from there: it never
/// runs backwards, though no row carries that time any more.
#[test]
fn time_goes_on_though_the_clock_was_set_back() {
    const HOUR_US: i64 = 3_600_000_000;
    let mut server = hall();
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let before = anna.send(hall, "before");
    server.kill();
    let ahead = before.created + HOUR_US;
    store_time(&server, ahead);
    server.restart();
    let mut last = ahead;
    for _ in 0..3 {
        let mut anna = server.login("anna");
        for _ in 0..20 {
            let sent = anna.send(hall, "after");
            assert!(sent.created > last, "{} after {last}", sent.created);
            last = sent.created;
        }
        assert!(last < ahead + HOUR_US, "time ran away");
        assert_eq!(anna.range(hall, 0, None).last().map(|m| m.created), Some(last));
        server.kill();
        assert!(stored_time(&server) >= last, "a given time may come again");
        server.restart();
    }
}

/// What was written into a chat that is gone still counts: its times are not given again.
#[test]
fn times_of_removed_messages_are_not_given_again() {
    const HOUR_US: i64 = 3_600_000_000;
    let mut server = hall();
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let before = anna.send(hall, "before");
    server.kill();
    store_time(&server, before.created + HOUR_US);
    server.restart();
    let ahead = server.login("anna").send(hall, "ahead");
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    server.kill();
    server.restart();
    server.add_chat("next", &["anna"]);
    let mut anna = server.login("anna");
    let next = anna.chat_id("next");
    let sent = anna.send(next, "later");
    assert!(sent.created > ahead.created && sent.id > ahead.id);
}

/// A stop gracefully says DISCONNECT to everybody and exits with 0, and loses nothing.
#[test]
fn a_stop_gracefully() {
    for name in ["TERM", "INT"] {
        let mut server = hall();
        let mut clients = [server.connect(), server.greeted(), server.login("anna")];
        let hall = clients[2].chat_id("hall");
        let sent = clients[2].send(hall, "last");
        let (status, lines) = server.stop_by(name);
        assert_eq!(status.code(), Some(0), "SIG{name}");
        assert_eq!(lines, [""; 0], "more than `listening` on stdout");
        for client in &mut clients {
            client.expect_disconnect();
        }
        server.restart();
        let kept = server.login("anna").history(hall);
        assert_eq!(kept.last().map(|message| message.id), Some(sent.id));
    }
}

/// A stop in the middle of a stream answers what it took and keeps exactly what it answered.
#[test]
fn a_stop_in_the_middle_of_a_stream() {
    let mut server = hall();
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.post_all((0..2000).map(|number: u32| {
        let content = number.to_string();
        (SEND_CHAT_MSG, body().id(hall).text(&content).into())
    }));
    let first = Sent::read(&anna.answer().accepted());
    let (status, _) = server.stop_by("TERM");
    assert_eq!(status.code(), Some(0));
    let mut accepted = vec![first];
    let mut frames = anna.frames_until_broken();
    assert_eq!(frames.pop(), Some(Frame::new(DISCONNECT, 0, [])));
    for frame in frames {
        match frame.purpose {
            ACCEPTED => accepted.push(Sent::read(&frame.body)),
            _ => drop(frame.declined("shutting-down")),
        }
    }
    server.restart();
    let kept = server.login("anna").history(hall);
    let kept: Vec<u64> = kept.iter().map(|message| message.id).collect();
    let got: Vec<u64> = accepted.iter().map(|sent| sent.id).collect();
    assert_eq!(kept, got);
}
