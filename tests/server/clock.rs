//! A wall clock that jumped while the server was down: nothing expires until it was steady for a
//! day, or the operator confirms it.

use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::support::api10::REGISTER_USER;
use crate::support::wire::*;
use crate::support::{PASSWORD, Server};

const DAY_US: i64 = 86_400_000_000;

/// A server that was down for four months, as it seems: a message of before in a group that keeps
/// its messages for 90 days, and a session that lasts for 30 days.
fn long_down() -> (Server, u32, crate::support::Session) {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    server.admin_ok(&["chat", "set", "hall", "--keep-days", "90"], None);
    let mut anna = server.greeted();
    let session = anna.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "of before");
    server.stop_by("TERM");
    let file = Connection::open(server.data()).expect("the data file");
    let ago = 120 * DAY_US;
    // Without checksums, which the server adds.
    file.execute_batch(&format!(
        "UPDATE messages SET message_id = message_id - {ago}, checksum = NULL;
         UPDATE search_rows SET message_id = message_id - {ago};
         UPDATE sessions SET used = used - {ago}, created = created - {ago};
         UPDATE chats SET last_message = 0;
         UPDATE meta SET value = value - {ago} WHERE key = 'server_time';"
    ))
    .expect("older rows");
    drop(file);
    server.restart();
    (server, hall, session)
}

/// What seems too old stays and can be used, also over a restart, and one line says why; once the
/// operator has confirmed the clock it goes.
#[test]
fn nothing_goes_by_age_before_the_clock_is_confirmed() {
    let (mut server, hall, session) = long_down();
    for round in 0..2 {
        let mut anna = server.greeted();
        anna.restore(&session);
        // Two rounds of housekeeping.
        thread::sleep(Duration::from_secs(2));
        assert_eq!(contents(&anna.history(hall)), ["of before"], "round {round}");
        assert!(server.admin_ok(&["clock", "show"], None).contains("jumped"));
        server.stop_by("TERM");
        server.restart();
    }
    let lines = server.stderr();
    assert_eq!(lines.matches("nothing is deleted by age").count(), 1, "{lines}");
    server.admin_ok(&["clock", "confirm"], None);
    let mut anna = server.login("anna");
    let begun = std::time::Instant::now();
    while !anna.history(hall).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(server.admin_ok(&["clock", "show"], None).contains("is trusted"));
}

/// Server time that ran far ahead once does not make an invite dead at birth.
#[test]
fn an_invite_lives_by_the_clock_that_made_it() {
    let mut server = Server::with(&["--registration", "invite", "--accept-future-time"]);
    server.add_user("anna");
    server.stop_by("TERM");
    let file = Connection::open(server.data()).expect("the data file");
    let ahead = 400 * DAY_US;
    let sql = "UPDATE meta SET value = value + ?1 WHERE key = 'server_time'";
    file.execute(sql, [ahead]).expect("a row");
    drop(file);
    server.restart();
    let code = server.admin_ok(&["invite", "add", "--days", "7"], None);
    let mut boris = server.greeted10();
    let request = body().text("boris").text(PASSWORD).text(code.trim());
    boris.ask(REGISTER_USER, request).accepted();
}

/// A new database has no server time, and not the year 1970.
#[test]
fn a_new_database_has_no_newest_time() {
    let folder = crate::support::folder::Folder::filled();
    let shown = folder.done(&["clock", "show"]);
    assert!(shown.contains("newest server time:    none yet"), "{shown}");
}
