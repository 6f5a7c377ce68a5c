//! Moderation by the operator: `vestnik user purge` and `chat set --keep-days`.

use std::time::Duration;

use crate::support::Server;
use crate::support::api10::CHAT_NOTIFY;
use crate::support::wire::*;

const DELETED: u8 = 0x02;
const EDITED: u8 = 0x01;

/// The messages of `hall` that are not deleted.
fn alive(messages: &[Message]) -> Vec<&str> {
    let alive = messages.iter().filter(|message| message.status & DELETED == 0);
    alive.map(|message| message.content.as_str()).collect()
}

/// All that a user has sent is deleted, in every chat, also where they are no member any more; the
/// members are notified each of it as of any deletion, on both versions of the protocol.
#[test]
fn a_purge_while_the_server_runs() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (hall, attic) = (anna.create_chat("hall"), anna.create_chat("attic"));
    boris.join(hall);
    boris.join(attic);
    let mut sent = Vec::new();
    for n in 0..120 {
        sent.push(anna.send(hall, &format!("spam {n}")));
        boris.send(hall, &format!("talk {n}"));
    }
    let first = sent[0].id;
    anna.edit(hall, first, "spam 0 still");
    anna.delete(hall, sent[1].id);
    anna.send(attic, "spam in the attic");
    anna.leave(attic);
    boris.drain();
    let mut old = server.login("boris");
    let before = boris.range(hall, 0, None);
    let latest = before.iter().map(|message| message.updated).max().expect("messages");

    let said = server.admin_ok(&["user", "purge", "Anna", "--yes"], None);
    assert!(said.contains("anna"), "{said}");
    for client in [&mut boris, &mut old] {
        let mut got = Vec::new();
        while got.len() < 120 {
            let frame = client.expect(MSG_NOTIFY);
            let mut reader = Reader::new(&frame.body);
            let chat = reader.id();
            got.extend(reader.messages().into_iter().map(|message| (chat, message)));
        }
        assert_eq!(got.len(), 120, "119 of the hall, and one of the attic");
        assert!(got.is_sorted_by(|(_, a), (_, b)| a.updated < b.updated));
        for (_, message) in &got {
            assert_eq!((message.sender, message.content.as_str()), (anna_id, ""));
            let expected = if message.id == first { EDITED | DELETED } else { DELETED };
            assert_eq!(message.status, expected);
            assert!(message.updated > latest);
        }
        assert_eq!(got.iter().filter(|(chat, _)| *chat == attic).count(), 1);
    }
    let after = boris.range(hall, 0, None);
    assert_eq!(after.len(), before.len(), "they stay as entries");
    let texts = alive(&after);
    assert!(texts.len() == 120 && texts.iter().all(|text| text.starts_with("talk")), "{texts:?}");
    assert_eq!(boris.search(0, 10, "spam"), []);
    assert_eq!(boris.chat(hall).unread, 0);
    anna.send(hall, "what is sent later stays");
    boris.notified(hall, 1);
    server.admin_ok(&["check"], None);
    let nobody = server.admin(&["user", "purge", "clara", "--yes"], None);
    assert_eq!(nobody.status.code(), Some(1));
}

/// Without a server the command does it itself, and a server that starts later gives later times.
#[test]
fn a_purge_without_a_server() {
    let mut server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    for n in 0..60 {
        anna.send(hall, &format!("quicksilver {n}"));
        boris.send(hall, &format!("talk {n}"));
    }
    assert_eq!(boris.search(hall, 200, "quicksilver").len(), 60);
    server.stop_by("TERM");
    let said = server.admin_ok(&["user", "purge", "anna", "--yes"], None);
    assert_eq!(said, "deleted 60 messages of anna\n");
    let said = server.admin_ok(&["user", "purge", "anna", "--yes"], None);
    assert_eq!(said, "deleted 0 messages of anna\n");
    server.admin_ok(&["check"], None);
    let bytes = std::fs::read(server.data()).expect("the file");
    assert!(!bytes.windows(11).any(|part| part == b"quicksilver"));
    server.restart();
    let mut boris = server.greeted10();
    boris.login10("boris");
    let messages = boris.range(hall, 0, None);
    assert_eq!(alive(&messages).len(), 60);
    let latest = messages.iter().map(|message| message.updated).max().expect("messages");
    assert!(boris.send(hall, "later").created > latest);
}

/// A purge goes on where it stood when the server was killed.
#[test]
fn a_purge_survives_a_kill() {
    let mut server = Server::start();
    let [(mut anna, _)] = server.users10(["anna"]);
    let hall = anna.create_chat("hall");
    let count = anna.post_all(
        (0..3000).map(|n| (SEND_CHAT_MSG, body().id(hall).text(&format!("message {n}")).into())),
    );
    for _ in 0..count {
        anna.answer().accepted();
    }
    server.admin_ok(&["user", "purge", "anna", "--yes"], None);
    std::thread::sleep(Duration::from_millis(20));
    server.kill();
    server.restart();
    let mut anna = server.greeted10();
    anna.login10("anna");
    let mut looks = 0;
    while !alive(&anna.range(hall, 0, None)).is_empty() {
        looks += 1;
        assert!(looks < 400, "the purge does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.admin_ok(&["check"], None);
}

/// Slow mode holds for the user in the chat, and the bound of sends for the user, whatever
/// connection they come by, and whether or not they left in between.
#[test]
fn nobody_escapes_being_slow_by_coming_anew() {
    let server = Server::with(&["--sends-per-second", "2"]);
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (hall, attic) = (anna.create_chat("hall"), anna.create_chat("attic"));
    boris.join(hall);
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "3600"], None);
    boris.send(hall, "once");
    let again = |client: &mut crate::support::client::Client| {
        client.ask(SEND_CHAT_MSG, body().id(hall).text("twice")).declined("rate-limited");
    };
    again(&mut boris);
    boris.leave(hall);
    boris.join(hall);
    again(&mut boris);
    let mut other = server.login10("boris");
    again(&mut other);
    drop((boris, other));
    again(&mut server.login10("boris"));
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "0"], None);
    let mut boris = server.login10("boris");
    crate::support::eventually(|| {
        boris.ask(SEND_CHAT_MSG, body().id(hall).text("free")).purpose == ACCEPTED
    });

    // Over many connections one after the other, faster than two a second.
    let mut declined = 0;
    crate::support::in_time(|| {
        let mut anna = server.login10("anna");
        let answer = anna.ask(SEND_CHAT_MSG, body().id(attic).text("x"));
        declined += u32::from(answer.purpose == DECLINED);
        declined > 3
    });
}

/// Invites that are void for their age leave the file.
#[test]
fn expired_invites_go() {
    let server = Server::start();
    server.admin_ok(&["invite", "add", "--days", "1"], None);
    let file = rusqlite::Connection::open(server.data()).expect("the file");
    file.busy_timeout(Duration::from_secs(5)).expect("set");
    file.execute(
        "INSERT INTO invites (digest, hint, uses_left, expires, created)
         VALUES (zeroblob(32), 'old', 1, 20, 10)",
        [],
    )
    .expect("stored");
    let hints = || {
        let list = server.admin_ok(&["invite", "list"], None);
        (list.lines().count(), list.contains("expired"))
    };
    assert_eq!(hints(), (4, true));
    crate::support::in_time(|| hints() == (3, false));
}

/// A slow mode that is made shorter, or ended, holds for those who wait already.
#[test]
fn a_slow_mode_that_is_made_shorter() {
    let server = Server::start();
    let [(mut anna, _)] = server.users10(["anna"]);
    let hall = anna.create_chat("hall");
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "3600"], None);
    anna.expect(CHAT_NOTIFY);
    anna.send(hall, "once");
    let again = |client: &mut crate::support::Client| {
        client.ask(SEND_CHAT_MSG, body().id(hall).text("again"))
    };
    assert!(again(&mut anna).declined_with_number("rate-limited") > 3000);
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "2"], None);
    anna.expect(CHAT_NOTIFY);
    let wait = again(&mut anna).declined_with_number("rate-limited");
    assert!(wait <= 2, "{wait}");
    std::thread::sleep(Duration::from_secs(2));
    again(&mut anna).accepted();
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "0"], None);
    anna.expect(CHAT_NOTIFY);
    again(&mut anna).accepted();
}
