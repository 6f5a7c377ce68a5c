//! Another process holds the write lock for a moment: requests that write wait in order, others are
//! served.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::client::{login_body, range_body};
use crate::support::wire::*;
use crate::support::{PASSWORD, Server};

/// Longer than anything takes that does not wait for the lock, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(400);

fn hold(server: &Server) -> Connection {
    let other = Connection::open(server.data()).expect("the data file");
    other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    other
}

/// Sends of several users and a login wait while the lock is held, reads and heartbeats do not, and
/// all is stored in the order in which it came once the lock is free.
#[test]
fn writes_wait_and_reads_go_on() {
    let server = Server::start();
    for name in ["anna", "boris", "clara", "dora"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris", "clara"]);
    // Two connections each.
    let names = ["anna", "boris", "boris", "anna"];
    let mut users: Vec<_> = names.iter().map(|name| server.login(name)).collect();
    let mut clara = server.login("clara");
    let mut dora = server.greeted();
    let hall = clara.chat_id("hall");
    for round in 0..3 {
        let other = hold(&server);
        let mut expected = Vec::new();
        for (number, user) in users.iter_mut().enumerate() {
            let text = format!("{round}/{number}");
            user.post(SEND_CHAT_MSG, body().id(hall).text(&text));
            expected.push(text);
            // So that the server reads them in this order.
            std::thread::sleep(Duration::from_millis(20));
        }
        dora.post(LOGIN, login_body("dora", PASSWORD));
        let begun = Instant::now();
        clara.ask(HEARTBEAT, b"alive".to_vec()).accepted();
        clara.ask_whole(REQUEST_CHAT_MSG, range_body(hall, 0, None)).accepted();
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
        other.execute_batch("COMMIT").expect("the end of the lock");
        for user in &mut users {
            user.answer().accepted();
        }
        dora.answer().accepted();
        dora.ask(LOGOFF, body()).accepted();
        let got = clara.notified(hall, 4);
        assert_eq!(contents(&got), expected, "round {round}");
        for user in &mut users {
            user.drain();
        }
    }
    assert!(!server.stderr().contains("cannot write"), "{}", server.stderr());
}

/// After two seconds what waits is declined, and what comes later at once, until the lock is free.
#[test]
fn nobody_waits_for_ever() {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let other = hold(&server);
    let begun = Instant::now();
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("held")).declined("storage-failed");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
    let begun = Instant::now();
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("held")).declined("storage-failed");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    anna.send(hall, "free");
    assert_eq!(contents(&anna.history(hall)), ["free"]);
}
