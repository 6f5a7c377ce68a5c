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
    let (mut server, hall, session) = long_stopped();
    server.restart();
    (server, hall, session)
}

/// The same before the start; boris sent a message, too.
fn long_stopped() -> (Server, u32, crate::support::Session) {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna", "boris"]);
    server.admin_ok(&["chat", "set", "hall", "--keep-days", "90"], None);
    let mut anna = server.greeted();
    let session = anna.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "of before");
    server.login("boris").send(hall, "of boris");
    server.stop_by("TERM");
    let file = Connection::open(server.data()).expect("the data file");
    let ago = 120 * DAY_US;
    // Without checksums, which the server adds.
    file.execute_batch(&format!(
        "UPDATE messages SET message_id = message_id - {ago}, checksum = NULL;
         UPDATE search_rows SET message_id = message_id - {ago};
         UPDATE sessions SET used = used - {ago}, created = created - {ago};
         UPDATE chats SET last_message = 0;
         UPDATE meta SET value = value - {ago} WHERE key IN ('server_time', 'clock_trusted_us');"
    ))
    .expect("older rows");
    drop(file);
    (server, hall, session)
}

/// What seems too old stays and can be used, also over a restart, and one line of each start says
/// why; once the
/// operator has confirmed the clock it goes.
#[test]
fn nothing_goes_by_age_before_the_clock_is_confirmed() {
    let (mut server, hall, session) = long_down();
    for round in 0..2 {
        let mut anna = server.greeted();
        anna.restore(&session);
        // Two rounds of housekeeping.
        thread::sleep(Duration::from_secs(2));
        assert_eq!(contents(&anna.history(hall)), ["of before", "of boris"], "round {round}");
        assert!(server.admin_ok(&["clock", "show"], None).contains("jumped"));
        server.stop_by("TERM");
        server.restart();
    }
    let lines = server.stderr();
    assert_eq!(lines.matches("nothing is deleted by age").count(), 3, "{lines}");
    server.admin_ok(&["clock", "confirm"], None);
    let mut anna = server.login("anna");
    let begun = std::time::Instant::now();
    while !anna.history(hall).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(server.admin_ok(&["clock", "show"], None).contains("is trusted"));
}

/// A command that gives times while the server is stopped leaves the clock in doubt, and server
/// time where it was.
#[test]
fn a_purge_does_not_make_the_clock_trusted() {
    let (mut server, hall, session) = long_stopped();
    let purged = server.admin_ok(&["user", "purge", "boris", "--yes"], None);
    assert!(purged.contains("deleted 1 message"), "{purged}");
    server.restart();
    let mut anna = server.greeted();
    anna.restore(&session);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(contents(&anna.history(hall))[0], "of before");
    assert!(server.admin_ok(&["clock", "show"], None).contains("jumped"));
}

/// A clock that was confirmed before the start is trusted by it. Before that, `clock show` does not
/// promise what the start will not keep.
#[test]
fn a_clock_that_was_confirmed_is_trusted_at_the_start() {
    let (mut server, hall, _) = long_stopped();
    let shown = server.admin_ok(&["clock", "show"], None);
    assert!(shown.contains("deletes nothing by age for a day"), "{shown}");
    server.admin_ok(&["clock", "confirm"], None);
    assert!(server.admin_ok(&["clock", "show"], None).contains("is trusted"));
    server.restart();
    let begun = std::time::Instant::now();
    let mut anna = server.login("anna");
    while !anna.history(hall).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays");
        thread::sleep(Duration::from_millis(100));
    }
}

/// While a running server does not follow a jump, commands make and check codes by the time that it
/// believes.
#[test]
fn codes_live_by_the_clock_of_the_server() {
    let folder = crate::support::folder::Folder::filled();
    let jump = 400 * DAY_US;
    folder.damage(&format!(
        "UPDATE meta SET value = (SELECT MAX(created) FROM users) - {jump} WHERE key = 'server_time';
         INSERT INTO meta (key, value) VALUES ('clock_jump_us', {jump})"
    ));
    folder.done(&["invite", "add", "--days", "7"]);
    folder.done(&["user", "reset", "anna"]);
    assert!(folder.done(&["invite", "list"]).contains("good"));
    let db = Connection::open(folder.data()).expect("the data file");
    let of = |sql: &str| -> i64 { db.query_row(sql, [], |row| row.get(0)).expect("a row") };
    let now = of("SELECT value FROM meta WHERE key = 'server_time'");
    for (sql, days) in [("SELECT expires FROM invites", 7), ("SELECT expires FROM reset_codes", 1)]
    {
        let left = of(sql) - now - days * DAY_US;
        assert!((0..DAY_US / 24).contains(&left), "{sql}: {left}");
    }
    db.execute("UPDATE meta SET value = 0 WHERE key = 'clock_jump_us'", []).expect("a row");
    assert!(folder.done(&["invite", "list"]).contains("expired"));
}

/// A command that moves server time by more than a day stores the doubt that the next start would
/// not see.
#[test]
fn a_command_that_moves_server_time_stores_the_doubt() {
    let folder = crate::support::folder::Folder::filled();
    folder.damage(&format!(
        "UPDATE meta SET value = (SELECT MAX(created) FROM users) - {} WHERE key = 'server_time'",
        31 * DAY_US
    ));
    folder.done(&["load", "prepare", "--users", "1", "--messages", "1"]);
    assert!(folder.done(&["clock", "show"]).contains("jumped"));
}

/// A group that its last member leaves by a command while the clock is behind is kept like any
/// other: by server time it was emptied now.
#[test]
fn a_group_emptied_while_the_clock_is_behind_is_kept() {
    for command in ["kick", "ban", "remove"] {
        let folder = crate::support::folder::Folder::filled();
        let hall = "(SELECT chat_id FROM chats WHERE name = 'hall')";
        folder.damage(&format!(
            "UPDATE chats SET deletions = 1 WHERE name = 'hall';
             UPDATE meta SET value = (SELECT MAX(created) FROM users) + {} WHERE key = 'server_time'",
            365 * DAY_US
        ));
        match command {
            "remove" => folder.done(&["user", "remove", "anna", "--yes"]),
            command => folder.done(&["chat", command, "hall", "anna"]),
        };
        let db = Connection::open(folder.data()).expect("the data file");
        let sql = format!(
            "SELECT emptied >= (SELECT value FROM meta WHERE key = 'server_time')
             FROM vacancies WHERE chat_id = {hall}"
        );
        let is_of_now: bool = db.query_row(&sql, [], |row| row.get(0)).expect("a vacancy");
        assert!(is_of_now, "{command}");
    }
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
