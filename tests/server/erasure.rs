//! Erasing: the content of a deleted message soon leaves the database, the WAL and the search index
//! (protocol section 5, DELETE_MSG).

#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the server: they read the clock and start threads"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::Server;
use crate::support::client::Client;
use crate::support::wire::*;

/// What stands anywhere in the data file or its WAL and begins with `secret`, up to where a word
/// ends.
fn secrets(server: &Server) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for suffix in ["", "-wal"] {
        let mut name = server.data().into_os_string();
        name.push(suffix);
        let bytes = std::fs::read(name).unwrap_or_default();
        for at in memchr::memmem::find_iter(&bytes, b"secret") {
            let word = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
            found.insert(word.map(|&byte| char::from(byte)).collect());
        }
    }
    found
}

/// Which of these words are part of what stands there: the index shortens them to what is new.
fn found(server: &Server, words: &[String]) -> Vec<String> {
    let there = secrets(server);
    words.iter().filter(|word| there.iter().any(|text| text.contains(*word))).cloned().collect()
}

/// Texts of many sizes, which SQLite moves between pages as they come: deleted, edited, purged, or
/// removed with their chat, none of their words is left, and the others are all there.
#[test]
fn what_is_deleted_is_gone_from_the_files() {
    let mut server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (hall, attic) = (anna.create_chat("hall"), anna.create_chat("attic"));
    boris.join(hall);
    let mut words = Vec::new();
    let mut ids = Vec::new();
    for n in 0..200_usize {
        let word = format!("secret{n:04}word");
        let fill = "lorem ".repeat([0, 3, 40, 900][n % 4]);
        let client = if n % 5 == 0 { &mut boris } else { &mut anna };
        ids.push(client.send(hall, &format!("{fill}{word} {fill}")).id);
        words.push(word);
    }
    anna.send(attic, "secretattic in the attic");
    assert_eq!(anna.search(0, 10, "secretattic").len(), 1, "all is indexed");
    assert_eq!(found(&server, &words).len(), 200);
    let mut gone = vec!["secretattic".to_owned()];
    for (n, word) in words.iter().enumerate() {
        match n % 5 {
            0 | 4 => {}
            1 => drop(anna.edit(hall, ids[n], "nothing to see")),
            _ => drop(anna.delete(hall, ids[n])),
        }
        if n % 5 != 4 {
            gone.push(word.clone());
        }
    }
    server.admin_ok(&["user", "purge", "boris", "--yes"], None);
    server.admin_ok(&["chat", "remove", "attic", "--yes"], None);
    crate::support::in_time(|| found(&server, &gone).is_empty());
    assert_eq!(found(&server, &words).len(), 40);
    // A crash brings nothing of it back.
    server.kill();
    server.restart();
    assert_eq!(found(&server, &gone), [""; 0]);
    server.admin_ok(&["check"], None);
}

/// Messages and nonces of a large chat.
const MANY: i64 = 100_000;

/// Fills a chat from outside, as nobody could in the time of a test.
fn fill(server: &Server, chat: u32) {
    let other = Connection::open(server.data()).expect("the data file");
    other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    let rows = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
    );
    other
        .execute_batch(&format!(
            "BEGIN IMMEDIATE;
             {rows} INSERT INTO messages (chat_id, message_id, sender_id, content)
             SELECT {chat}, 1600000000000000 + i, 1, 'words that are to go, ' || i FROM n;
             {rows} INSERT INTO nonces SELECT {chat}, 1, i, 1600000000000000 + i FROM n;
             COMMIT"
        ))
        .expect("rows");
}

fn rows_of(server: &Server, chat: u32) -> i64 {
    let other = Connection::open(server.data()).expect("the data file");
    let sql = "SELECT (SELECT count(*) FROM messages WHERE chat_id = ?1)
                    + (SELECT count(*) FROM nonces WHERE chat_id = ?1)";
    other.query_row(sql, [chat], |row| row.get(0)).expect("a count")
}

/// Sends without a pause until it is over.
fn send_on(mut client: Client, chat: u32, is_over: &AtomicBool) {
    let request = || (SEND_CHAT_MSG, Vec::from(body().id(chat).text("and on")));
    client.post_all((0..16).map(|_| request()));
    while !is_over.load(Ordering::Relaxed) {
        client.answer().accepted();
        client.post(SEND_CHAT_MSG, request().1);
    }
}

/// A large chat is gone within a minute though somebody sends without a pause, and then the
/// database gives its space back.
#[test]
fn a_large_chat_is_gone_within_a_minute_on_a_busy_server() {
    let server = Server::start();
    let [(mut anna, _), (boris, _)] = server.users10(["anna", "boris"]);
    let (large, hall) = (anna.create_chat("large"), anna.create_chat("hall"));
    fill(&server, large);
    let mut boris = boris;
    boris.join(hall);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| send_on(boris, hall, &is_over));
        // Before the share of the time has grown.
        let deleted = Instant::now();
        anna.ask(0x3B, body().id(large)).accepted();
        let mut left = rows_of(&server, large);
        while left > 0 && deleted.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(200));
            left = rows_of(&server, large);
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(left, 0, "rows after a minute");
    });
    let pages = |name: &str| -> i64 {
        let other = Connection::open(server.data()).expect("the data file");
        other.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).expect("a number")
    };
    crate::support::in_time(|| pages("freelist_count") <= 1_024);
    server.admin_ok(&["check"], None);
}
