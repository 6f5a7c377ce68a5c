//! Users and chats by name, and JOIN_CHAT with and without a password (protocol section 4).

use crate::support::wire::*;
use crate::support::{Client, Server, eventually};

fn anna() -> Server {
    let server = Server::start();
    server.add_user("anna");
    server
}

#[track_caller]
fn asks_for_password(client: &mut Client, chat: u32) -> bool {
    let answer = client.ask(CHAT_REQ_PASS, body().id(chat)).accepted();
    let mut reader = Reader::new(&answer);
    let asks = reader.bool();
    reader.finish();
    asks
}

// Names.

/// A user is found by name in any case and any normal form, in Latin and in Cyrillic.
#[test]
fn users_are_found_in_any_case() {
    let server = anna();
    server.add_user("Йожик");
    server.add_user("Zoë_1.0-x");
    let mut anna = server.login("anna");
    let hedgehog = anna.user_id("Йожик");
    // The second and the third are decomposed: the breve is a scalar of its own.
    for name in ["йожик", "И\u{306}ожик", "и\u{306}ОЖИК", "ЙОЖИК"] {
        assert_eq!(anna.user_id(name), hedgehog, "{name}");
    }
    let zoe = anna.user_id("Zoë_1.0-x");
    for name in ["ZOË_1.0-X", "zoe\u{308}_1.0-x", "ZOE\u{308}_1.0-X"] {
        assert_eq!(anna.user_id(name), zoe, "{name}");
    }
    assert_ne!(hedgehog, zoe);
    assert_ne!(anna.user_id("ANNA"), zoe);
}

/// A chat is found by name likewise.
#[test]
fn chats_are_found_in_any_case() {
    let server = anna();
    server.add_chat("Общий-Зал", &[]);
    server.add_chat("Hall", &[]);
    let mut anna = server.login("anna");
    let general = anna.chat_id("Общий-Зал");
    for name in ["общий-зал", "ОБЩИЙ-ЗАЛ", "общии\u{306}-зал"] {
        assert_eq!(anna.chat_id(name), general, "{name}");
    }
    assert_eq!(anna.chat_id("hALL"), anna.chat_id("Hall"));
    assert_ne!(anna.chat_id("hall"), general);
}

/// Names that nobody has, or that nobody could have, are `no-such-user` and `no-such-chat`.
#[test]
fn unknown_names() {
    let server = anna();
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let long = "x".repeat(5000);
    for name in ["nobody", "", " anna", "anna ", "hall ", "a b", "%", &long] {
        anna.ask(GET_USER_ID, body().text(name)).declined("no-such-user");
        anna.ask(GET_CHAT_ID, body().text(name)).declined("no-such-chat");
    }
}

/// Letters that only look alike do not find a name, and name no other user.
#[test]
fn look_alikes_find_nobody() {
    let server = anna();
    // The first letter is Cyrillic.
    let output =
        server.admin(&["user", "add", "аnna", "--password-stdin"], Some("correct horse\n"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    server.login("anna").ask(GET_USER_ID, body().text("аnna")).declined("no-such-user");
}

/// Users and chats are two name spaces.
#[test]
fn users_and_chats_are_two_name_spaces() {
    let server = anna();
    server.add_user("hall");
    server.add_chat("anna", &[]);
    let mut anna = server.login("anna");
    anna.user_id("anna");
    anna.chat_id("anna");
    anna.user_id("hall");
    anna.ask(GET_CHAT_ID, body().text("hall")).declined("no-such-chat");
}

/// A name has 1 to 32 scalars; the longest is found, however many bytes it has.
#[test]
fn the_longest_names() {
    let server = anna();
    let longest = "Ж".repeat(32);
    server.add_user(&longest);
    server.add_chat(&longest, &[]);
    let mut anna = server.login("anna");
    anna.user_id(&"ж".repeat(32));
    anna.chat_id(&"ж".repeat(32));
    let too_long = "ж".repeat(33);
    anna.ask(GET_USER_ID, body().text(&too_long)).declined("no-such-user");
    let output = server.admin(&["chat", "add", &too_long], None);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

// CHAT_REQ_PASS and JOIN_CHAT.

/// CHAT_REQ_PASS shows members and others alike.
#[test]
fn chat_req_pass() {
    let server = anna();
    server.add_chat("open", &[]);
    server.add_chat("mine", &["anna"]);
    server.add_locked_chat("locked", "open sesame");
    let mut anna = server.login("anna");
    for (name, asks) in [("open", false), ("mine", false), ("locked", true)] {
        let chat = anna.chat_id(name);
        assert_eq!(asks_for_password(&mut anna, chat), asks, "{name}");
    }
}

/// JOIN_CHAT without a password, where a password that is given is ignored.
#[test]
fn join_without_a_password() {
    let server = anna();
    for name in ["one", "two", "three"] {
        server.add_chat(name, &[]);
    }
    let mut anna = server.login("anna");
    let one = anna.chat_id("one");
    anna.join(one);
    anna.send(one, "hi");
    for (name, password) in [("two", "whatever"), ("three", "")] {
        let chat = anna.chat_id(name);
        anna.ask(JOIN_CHAT, body().id(chat).text(password)).accepted_empty();
        anna.send(chat, "hi");
    }
}

/// JOIN_CHAT of a chat with a password: none is `password-required`, a wrong or an empty one is
/// `bad-password`, and only the right one makes a member.
#[test]
fn join_with_a_password() {
    let server = anna();
    server.add_locked_chat("locked", "open sesame");
    let mut anna = server.login("anna");
    let chat = anna.chat_id("locked");
    anna.ask(JOIN_CHAT, body().id(chat)).declined("password-required");
    let long = "x".repeat(1000);
    for wrong in ["", "Open sesame", "open sesame ", &long] {
        anna.ask(JOIN_CHAT, body().id(chat).text(wrong)).declined("bad-password");
    }
    anna.ask(SEND_CHAT_MSG, body().id(chat).text("hi")).declined("not-member");
    anna.ask(JOIN_CHAT, body().id(chat).text("open sesame")).accepted_empty();
    anna.send(chat, "hi");
}

/// Requests sent behind a JOIN_CHAT are handled as if they had waited for its answer.
#[test]
fn requests_wait_for_the_join_before_them() {
    let server = anna();
    server.add_locked_chat("locked", "open sesame");
    let mut anna = server.login("anna");
    let chat = anna.chat_id("locked");
    let send = || (SEND_CHAT_MSG, body().id(chat).text("hi").into());
    let join = |password: &str| (JOIN_CHAT, body().id(chat).text(password).into());
    anna.post_all([join("wrong"), send(), join("open sesame"), send()]);
    anna.answer().declined("bad-password");
    anna.answer().declined("not-member");
    anna.answer().accepted_empty();
    Sent::read(&anna.answer().accepted());
}

/// A member who joins again is `already-member`, with any password or none.
#[test]
fn join_twice() {
    let server = anna();
    server.add_chat("open", &["anna"]);
    server.add_locked_chat("locked", "open sesame");
    server.admin_ok(&["chat", "join", "locked", "anna"], None);
    let mut anna = server.login("anna");
    for name in ["open", "locked"] {
        let chat = anna.chat_id(name);
        anna.ask(JOIN_CHAT, body().id(chat)).declined("already-member");
        anna.ask(JOIN_CHAT, body().id(chat).text("open sesame")).declined("already-member");
        anna.ask(JOIN_CHAT, body().id(chat).text("wrong")).declined("already-member");
    }
}

/// After five wrong passwords the sixth try is `rate-limited` though it is right, on whatever
/// connection; other chats and other users are untouched.
#[test]
fn joins_are_limited_by_failures() {
    let server = anna();
    server.add_user("boris");
    server.add_locked_chat("locked", "open sesame");
    server.add_locked_chat("other", "open sesame");
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let (locked, other) = (anna.chat_id("locked"), anna.chat_id("other"));
    for _ in 0..5 {
        anna.ask(JOIN_CHAT, body().id(locked).text("wrong")).declined("bad-password");
    }
    let right = |chat: u32| body().id(chat).text("open sesame");
    let wait = anna.ask(JOIN_CHAT, right(locked)).declined_with_number("rate-limited");
    assert!((1..=10).contains(&wait), "wait {wait} s");
    server.login("anna").ask(JOIN_CHAT, right(locked)).declined_with_number("rate-limited");
    anna.ask(JOIN_CHAT, right(other)).accepted_empty();
    boris.ask(JOIN_CHAT, right(locked)).accepted_empty();
}

/// Asking without a password is not a failure of one.
#[test]
fn password_required_spends_no_failures() {
    let server = anna();
    server.add_locked_chat("locked", "open sesame");
    let mut anna = server.login("anna");
    let chat = anna.chat_id("locked");
    for _ in 0..10 {
        anna.ask(JOIN_CHAT, body().id(chat)).declined("password-required");
    }
    anna.ask(JOIN_CHAT, body().id(chat).text("open sesame")).accepted_empty();
}

/// A newcomer reads what was said before, and is notified from then on, on every connection.
#[test]
fn a_newcomer_reads_all_and_is_notified() {
    let server = anna();
    server.add_user("boris");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "before");
    let (mut desk, mut phone) = (server.login("boris"), server.login("boris"));
    anna.send(hall, "still before");
    desk.expect_quiet();
    desk.join(hall);
    assert_eq!(contents(&desk.history(hall)), ["before", "still before"]);
    anna.send(hall, "after");
    assert_eq!(contents(&desk.notified(hall, 1)), ["after"]);
    assert_eq!(contents(&phone.notified(hall, 1)), ["after"]);
}

/// On 0.1 nobody is notified of a join: the notifications of 1.0 do not exist.
#[test]
fn nobody_on_0_1_is_notified_of_a_join() {
    let server = anna();
    server.add_user("boris");
    server.add_chat("hall", &["anna"]);
    let (mut anna, mut desk, mut phone) =
        (server.login("anna"), server.login("boris"), server.login("boris"));
    let hall = anna.chat_id("hall");
    desk.join(hall);
    desk.ask(MARK_SEEN, body().id(hall).time(1)).accepted_empty();
    anna.expect_quiet();
    phone.expect_quiet();
}

// The command line.

/// `chat join` makes a member of a user who is connected, within a second.
#[test]
fn chat_join_acts_within_a_second() {
    let server = anna();
    server.add_user("boris");
    server.add_chat("hall", &["anna"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    server.admin_ok(&["chat", "join", "hall", "boris"], None);
    eventually(|| {
        anna.send(hall, "hi");
        !boris.drain().is_empty()
    });
    boris.send(hall, "here");
}

/// `chat remove` takes the chat away from members who are connected, within a second.
#[test]
fn chat_remove_acts_within_a_second() {
    let server = anna();
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "hi");
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    eventually(|| {
        let answer = anna.ask(SEND_CHAT_MSG, body().id(hall).text("hi"));
        answer.purpose == DECLINED && answer.body.starts_with(b"no-such-chat")
    });
    anna.ask(GET_CHAT_ID, body().text("hall")).declined("no-such-chat");
    server.add_chat("hall", &["anna"]);
    eventually(|| anna.ask(GET_CHAT_ID, body().text("hall")).purpose == ACCEPTED);
    let next = anna.chat_id("hall");
    eventually(|| anna.ask(MARK_SEEN, body().id(next).time(0)).purpose == ACCEPTED);
    assert_ne!(next, hall, "the id of a removed chat was given again");
    assert_eq!(anna.history(next), [], "messages of the removed chat");
}
