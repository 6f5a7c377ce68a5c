//! Rate limits and quotas per user, names, groups without members, succession of admins (protocol
//! sections 5 and 7).

use std::time::Duration;

use crate::support::api10::*;
use crate::support::client::Client;
use crate::support::wire::*;
use crate::support::{PASSWORD, Server, eventually};

fn send(client: &mut Client, chat: u32, text: &str) -> Frame {
    client.ask(SEND_CHAT_MSG, body().id(chat).text(text))
}

fn edit(client: &mut Client, chat: u32, message: u64, text: &str) -> Frame {
    client.ask(EDIT_MSG, body().id(chat).u64(message).text(text))
}

/// What a user sends and edits in a day is bounded, over connections, restarts and kills; what is
/// repeated by its nonce costs nothing, and deleting gives nothing back.
#[test]
fn the_text_of_a_day_is_bounded_across_restarts() {
    let mut server = Server::with(&["--user-bytes-per-day", "10000"]);
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let first = anna.send_with_nonce(hall, &"a".repeat(4000), 7);
    assert_eq!(anna.send_with_nonce(hall, &"a".repeat(4000), 7), first);
    anna.edit(hall, first.id, &"b".repeat(4000));
    let wait = send(&mut anna, hall, &"c".repeat(2001)).declined_with_number("rate-limited");
    assert!((1..=86_400).contains(&wait), "{wait}");
    anna.delete(hall, first.id);
    send(&mut server.login10("anna"), hall, &"c".repeat(2001)).declined("rate-limited");
    send(&mut boris, hall, &"c".repeat(2001)).accepted();
    send(&mut anna, hall, &"c".repeat(1000)).accepted();
    server.stop_by("TERM");
    server.restart();
    let mut anna = server.login10("anna");
    let next = anna.send(hall, &"d".repeat(900));
    edit(&mut anna, hall, next.id, &"e".repeat(101)).declined("rate-limited");
    server.kill();
    server.restart();
    let mut anna = server.login10("anna");
    send(&mut anna, hall, &"f".repeat(101)).declined("rate-limited");
}

/// An edit is a send to slow mode and to `--sends-per-second`.
#[test]
fn edits_count_as_sends() {
    let server = Server::with(&["--sends-per-second", "5"]);
    let [(mut anna, _)] = server.users10(["anna"]);
    let hall = anna.create_chat("hall");
    let sent = anna.send(hall, "x");
    let requests = (0..50).map(|n| {
        let request = body().id(hall).u64(sent.id).text(&format!("edit {n}"));
        (EDIT_MSG, Vec::from(request))
    });
    let count = anna.post_all(requests);
    let answers: Vec<_> = (0..count).map(|_| anna.answer()).collect();
    let accepted = answers.iter().filter(|answer| answer.purpose == ACCEPTED).count();
    assert!((4..20).contains(&accepted), "{accepted} of {count}");
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "3600"], None);
    anna.expect(CHAT_NOTIFY);
    std::thread::sleep(Duration::from_millis(1_100));
    anna.edit(hall, sent.id, "first");
    edit(&mut anna, hall, sent.id, "second").declined("rate-limited");
    send(&mut anna, hall, "third").declined("rate-limited");
}

/// A hundred groups a day, kept across a kill; leaving them gives nothing back, and leaves no names
/// behind.
#[test]
fn groups_of_a_day_are_bounded() {
    let mut server = Server::start();
    let [(mut anna, _)] = server.users10(["anna"]);
    for n in 0..100 {
        let chat = anna.create_chat(&format!("group-{n}"));
        anna.leave(chat);
        if n % 50 == 49 {
            // 200 changes at once, 20 a second.
            std::thread::sleep(Duration::from_secs(3));
        }
    }
    let wait = anna.ask(CREATE_CHAT, body().text("one-more")).declined_with_number("rate-limited");
    assert!(wait > 1, "{wait}");
    anna.ask(CREATE_CHAT, body().text("with").text("password")).declined("rate-limited");
    assert_eq!(server.admin_ok(&["chat", "list"], None).lines().count(), 1);
    server.kill();
    server.restart();
    server.login10("anna").ask(CREATE_CHAT, body().text("more")).declined("rate-limited");
}

/// Changes other than messages have a bucket of 200 per user over all connections, as the last of
/// all reasons. What changes nothing does not count.
#[test]
fn other_changes_have_a_bucket() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let titles = |client: &mut Client, count: usize, of: fn(usize) -> String| {
        let requests =
            (0..count).map(|n| (SET_CHAT_TITLE, Vec::from(body().id(hall).text(&of(n)))));
        let count = client.post_all(requests);
        (0..count).filter(|_| client.answer().purpose == ACCEPTED).count()
    };
    assert_eq!(titles(&mut anna, 1000, |_| "same".to_owned()), 1000);
    let accepted = titles(&mut anna, 600, |n| format!("title {n}"));
    assert!((190..400).contains(&accepted), "{accepted}");
    let mut other = server.login10("anna");
    let requests = (0..200).map(|_| (TYPING, Vec::from(body().id(hall))));
    let count = other.post_all(requests);
    let typed = (0..count).filter(|_| other.answer().purpose == ACCEPTED).count();
    assert!(typed < 100, "{typed}");
    // All other reasons come first, and messages are not such changes.
    let empty = titles(&mut other, 300, |n| format!("title {n}"));
    assert!(empty < 100, "{empty}");
    other.ask(SET_CHAT_TITLE, body().id(hall).text(&"t".repeat(129))).declined("too-long");
    other.ask(SET_CHAT_TITLE, body().id(99).text("x")).declined("no-such-chat");
    other.send(hall, "still here");
    boris.ask(TYPING, body().id(hall)).accepted_empty();
    std::thread::sleep(Duration::from_millis(300));
    other.ask(SET_CHAT_TITLE, body().id(hall).text("later")).accepted_empty();
}

/// A group without members and without a message is gone; one with messages is hidden, and who
/// joins it becomes its admin.
#[test]
fn groups_that_everybody_has_left() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id), (mut clara, _)] =
        server.users10(["anna", "boris", "clara"]);
    let empty = anna.create_chat("empty");
    anna.leave(empty);
    anna.ask(GET_CHAT, body().id(empty)).declined("no-such-chat");
    assert_ne!(boris.create_chat("empty"), empty, "its name is free again");

    let hall = anna.create_chat("hall");
    anna.send(hall, "kept");
    anna.leave(hall);
    boris.ask(CREATE_CHAT, body().text("hall")).declined("name-taken");
    let names = |client: &mut Client| -> Vec<String> {
        client.find_chats("", 100).into_iter().map(|chat| chat.name).collect()
    };
    assert_eq!(names(&mut boris), ["empty"]);
    assert_eq!(boris.chat_id("hall"), hall);
    boris.join(hall);
    assert_eq!(boris.chat(hall).flags & I_AM_ADMIN, I_AM_ADMIN);
    assert_eq!(contents(&boris.range(hall, 0, None)), ["kept"]);
    assert_eq!(names(&mut boris), ["empty", "hall"]);
    clara.join(hall);
    assert_eq!(clara.chat(hall).flags & I_AM_ADMIN, 0);
    boris.expect_member_event(hall, clara.user_id("clara"), JOINED, "clara");

    // Made by the command line it stays without members, and its first is no admin.
    server.admin_ok(&["chat", "add", "attic"], None);
    assert_eq!(names(&mut boris), ["attic", "empty", "hall"]);
    let attic = boris.chat_id("attic");
    boris.join(attic);
    assert_eq!(boris.chat(attic).flags & I_AM_ADMIN, 0);
    boris.leave(attic);
    boris.ask(GET_CHAT, body().id(attic)).declined("no-such-chat");
    assert!(boris.user_id("boris") == boris_id);
}

/// Empty groups go after thirty days, with their messages. One whose only member is a bot or a
/// disabled user is not empty.
#[test]
fn empty_groups_go_after_thirty_days() {
    let mut server = Server::start();
    let [(mut anna, _), _] = server.users10(["anna", "boris"]);
    for name in ["old", "new", "monitored", "frozen"] {
        let chat = anna.create_chat(name);
        anna.send(chat, "quicksilver");
        anna.leave(chat);
    }
    assert_eq!(anna.find_chats("", 9), []);
    server.admin_ok(&["user", "disable", "boris"], None);
    server.admin_ok(&["hook", "add", "monitored", "monitor"], None);
    server.admin_ok(&["chat", "join", "frozen", "boris"], None);
    let shown = anna.find_chats("", 9);
    assert_eq!(shown.iter().map(|chat| &*chat.name).collect::<Vec<_>>(), ["frozen", "monitored"]);
    server.stop_by("TERM");
    let file = rusqlite::Connection::open(server.data()).expect("the database");
    let day_us = 86_400_000_000_i64;
    let sql = "UPDATE vacancies SET emptied = emptied - ?1
               WHERE chat_id = (SELECT chat_id FROM chats WHERE name = ?2)";
    for (name, days) in [("old", 31), ("new", 29), ("monitored", 31), ("frozen", 31)] {
        assert_eq!(file.execute(sql, (days * day_us, name)), Ok(1));
    }
    drop(file);
    server.restart();
    let list = || server.admin_ok(&["chat", "list"], None);
    crate::support::in_time(|| !list().contains("old"));
    assert!(["new", "monitored", "frozen"].iter().all(|name| list().contains(name)));
    server.admin_ok(&["user", "enable", "boris"], None);
    server.admin_ok(&["check"], None);
    let mut boris = server.login10("boris");
    let frozen = boris.chat_id("frozen");
    assert_ne!(boris.chat(frozen).flags & I_AM_ADMIN, 0, "enabled, he fills the vacancy");
}

/// When the only admin is disabled, the longest-standing member becomes admin; where all are
/// disabled, anyone who is enabled or joins first.
#[test]
fn a_disabled_admin_has_an_heir() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id), (mut clara, _), (mut dora, _)] =
        server.users10(["anna", "boris", "clara", "dora"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    clara.join(hall);
    clara.drain();
    boris.drain();
    server.admin_ok(&["user", "disable", "anna"], None);
    clara.expect_member_event(hall, boris_id, MADE_ADMIN, "boris");
    assert_eq!(boris.chat_notify().flags & I_AM_ADMIN, I_AM_ADMIN);
    // Who is disabled keeps the mark, and does not count.
    let members = boris.members(hall);
    assert!(members.iter().any(|m| m.nickname == "anna" && m.flags & MEMBER_ADMIN != 0));
    boris.set_admin(hall, boris_id, false).declined("last-admin");
    server.admin_ok(&["user", "disable", "clara"], None);
    server.admin_ok(&["user", "disable", "boris"], None);
    dora.join(hall);
    assert_eq!(dora.chat(hall).flags & I_AM_ADMIN, I_AM_ADMIN, "anyone who joins");

    let attic = dora.create_chat("attic");
    dora.send(attic, "x");
    server.admin_ok(&["user", "enable", "clara"], None);
    let mut clara = server.login10("clara");
    clara.join(attic);
    server.admin_ok(&["user", "disable", "clara"], None);
    eventually(|| {
        dora.members(attic).iter().all(|m| m.flags & ONLINE == 0 || m.nickname == "dora")
    });
    dora.leave(attic);
    server.admin_ok(&["user", "enable", "clara"], None);
    let mut clara = server.login10("clara");
    assert_eq!(clara.chat(attic).flags & I_AM_ADMIN, I_AM_ADMIN, "the first to be enabled");
    server.admin_ok(&["check"], None);
}

/// Names that only look right are refused, and logins that look like others are taken.
#[test]
fn names_that_look_like_others() {
    let server = Server::with(&["--registration", "open"]);
    server.add_user("anna");
    server.admin_ok(&["user", "disable", "anna"], None);
    let mut guest = server.greeted10();
    for name in ["ａｎｎａ", "𝐚𝐧𝐧𝐚", "аnna", "anna-Анна", "e\u{301}\u{302}\u{303}\u{304}", "._."]
    {
        guest.register(name, PASSWORD).declined("bad-name");
    }
    for name in ["ANNA", "АNNА"].iter().take(1) {
        guest.register(name, PASSWORD).declined("name-taken");
    }
    guest.register("boris1", PASSWORD).accepted();
    // Bad name, then taken, then the password.
    guest.register("borisl", "short").declined("name-taken");
    guest.register("borisI", PASSWORD).declined("name-taken");
    guest.register("оса", PASSWORD).accepted();
    guest.register("oca", PASSWORD).declined("name-taken");
    guest.register("clara", "сіль-сі").declined("bad-password");
    guest.register("clara", "сіль-сіл").accepted();
    let output = server.admin(&["user", "add", "bоris", "--password-stdin"], Some("12345678\n"));
    assert_eq!(output.status.code(), Some(1));
    let mut boris = server.greeted10();
    boris.login10_with("boris1", PASSWORD);
    for name in ["ａ", "hаll", "q\u{323}\u{307}\u{308}", "-"] {
        boris.ask(CREATE_CHAT, body().text(name)).declined("bad-name");
    }
    let hall = boris.create_chat("команда-dev");
    boris.ask(RENAME_CHAT, body().id(hall).text("hаll")).declined("bad-name");
    boris.create_chat("dеv".replace('е', "e").as_str());
}

/// Names of before these rules stay, log in, and are no damage.
#[test]
fn old_names_stay() {
    let mut server = Server::start();
    server.add_user("anna");
    server.stop_by("TERM");
    let file = rusqlite::Connection::open(server.data()).expect("the database");
    file.execute_batch(
        "UPDATE users SET nickname = 'ａｎｎａ', name_key = 'ａｎｎａ';
         UPDATE meta SET value = 0 WHERE key = 'skeletons_version'",
    )
    .expect("changed");
    drop(file);
    server.restart();
    server.login10("ａｎｎａ");
    server.admin_ok(&["check"], None);
    let taken = server.admin(&["user", "add", "anna", "--password-stdin"], Some("12345678\n"));
    assert_eq!(taken.status.code(), Some(1), "it looks like the old one");
}
