//! The state machine of a connection: allowed requests, the order of checks, and malformed bodies
//! (protocol sections 3 and 4).

use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, client::login_body};

/// Every purpose of API 0.1 that needs a session, with a body that parses.
fn authorized_requests() -> Vec<(u8, Vec<u8>)> {
    vec![
        (GET_USER_ID, body().text("anna").into()),
        (GET_CHAT_ID, body().text("hall").into()),
        (CHAT_REQ_PASS, body().id(1).into()),
        (JOIN_CHAT, body().id(1).text("password").into()),
        (SEND_CHAT_MSG, body().id(1).text("hi").into()),
        (REQUEST_CHAT_MSG, body().id(1).time(0).time(1).into()),
        (MARK_SEEN, body().id(1).time(0).into()),
        (LOGOFF, body().into()),
    ]
}

/// Bytes that are no purpose of API 0.1: none at all, of the other direction, of 1.0.
const UNKNOWN: [u8; 9] = [0x05, 0x1F, 0x2B, 0x30, 0x38, 0x4D, 0x77, 0x80, 0xFF];

fn hall() -> Server {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    server
}

// HELLO.

/// HELLO 0.1 is answered with 0.1.
#[test]
fn hello_gives_0_1() {
    let server = Server::start();
    let answer = server.connect().ask(HELLO, body().u8(0).u8(1)).accepted();
    assert_eq!(answer, [0, 1]);
}

/// Any version that the server does not speak is declined with those that it does, and the
/// connection stays new until a HELLO is accepted.
#[test]
fn hello_may_be_said_again_after_a_wrong_version() {
    let server = hall();
    let mut client = server.connect();
    for (major, minor) in [(0, 0), (0, 2), (0, 255), (2, 0), (2, 1), (255, 255)] {
        let words = client.ask(HELLO, body().u8(major).u8(minor)).declined("unsupported-version");
        assert!(words.contains("0.1"), "no versions in the words: {words}");
        client.ask(LOGIN, login_body("anna", PASSWORD)).declined("hello-required");
    }
    client.hello(0, 1);
    client.login("anna");
}

/// A HELLO that does not parse leaves the connection new.
#[test]
fn hello_malformed() {
    let server = Server::start();
    let mut client = server.connect();
    for bad in [&[][..], &[0], &[0, 1, 0], &[0, 1, 0, 0, 0, 0]] {
        client.ask(HELLO, bad).declined("malformed");
    }
    client.hello(0, 1);
}

/// A second HELLO is `already-greeted`, with a body that parses or not, with a session or without.
#[test]
fn hello_twice() {
    let server = hall();
    let mut client = server.greeted();
    let twice = |client: &mut Client| {
        for again in [&[0, 1][..], &[9, 9], &[], &[0, 1, 2]] {
            client.ask(HELLO, again).declined("already-greeted");
        }
    };
    twice(&mut client);
    client.login("anna");
    twice(&mut client);
}

// States.

/// A new connection may say HELLO, HEARTBEAT and DISCONNECT: anything else is `hello-required`,
/// even what no version knows and what does not parse.
#[test]
fn new_connections_must_say_hello() {
    let server = hall();
    let mut client = server.connect();
    client.ask(LOGIN, login_body("anna", PASSWORD)).declined("hello-required");
    client.ask(RESTORE_SESSION, body().id(1).text("hash")).declined("hello-required");
    for (purpose, good) in authorized_requests() {
        client.ask(purpose, good).declined("hello-required");
        client.ask(purpose, [0xff]).declined("hello-required");
    }
    for purpose in UNKNOWN {
        client.ask(purpose, body()).declined("hello-required");
    }
    client.hello(0, 1);
    client.login("anna");
}

/// A greeted connection may log in: anything else is `login-required`, even what no version knows
/// and what does not parse.
#[test]
fn greeted_connections_must_log_in() {
    let server = hall();
    let mut client = server.greeted();
    for (purpose, good) in authorized_requests() {
        client.ask(purpose, good).declined("login-required");
        client.ask(purpose, [0xff]).declined("login-required");
    }
    for purpose in UNKNOWN {
        client.ask(purpose, body()).declined("login-required");
    }
    client.login("anna");
}

/// With a session another login is `already-authorized`, whatever is in its body.
#[test]
fn authorized_connections_do_not_log_in_again() {
    let server = hall();
    let mut client = server.greeted();
    let session = client.login("anna");
    client.ask(LOGIN, login_body("anna", PASSWORD)).declined("already-authorized");
    client.ask(LOGIN, login_body("anna", "wrong password")).declined("already-authorized");
    client.ask(LOGIN, [0xff]).declined("already-authorized");
    client.try_restore(&session).declined("already-authorized");
    client.ask(RESTORE_SESSION, [0xff]).declined("already-authorized");
    client.chat_id("hall");
}

/// On 0.1 exactly the purposes of section 4 exist.
#[test]
fn unknown_purposes_are_declined() {
    let server = hall();
    let mut anna = server.login("anna");
    for purpose in 0x05..=0xFF {
        if (HELLO..=MARK_SEEN).contains(&purpose) {
            continue;
        }
        anna.ask(purpose, body()).declined("unknown-purpose");
        anna.ask(purpose, [0xff; 40]).declined("unknown-purpose");
    }
    anna.expect_quiet();
}

/// `malformed` comes before what the purpose itself checks; then comes no-such-chat, then
/// not-member, then the rest.
#[test]
fn complaints_come_in_the_order_of_section_3() {
    let server = hall();
    server.add_chat("other", &[]);
    let mut anna = server.login("anna");
    let (hall, other) = (anna.chat_id("hall"), anna.chat_id("other"));
    let long = "x".repeat(16 * 1024 + 1);
    anna.ask(SEND_CHAT_MSG, body().id(9999).bytes(b"no nul")).declined("malformed");
    anna.ask(SEND_CHAT_MSG, body().id(9999).text(&long)).declined("no-such-chat");
    anna.ask(SEND_CHAT_MSG, body().id(9999).text("")).declined("no-such-chat");
    anna.ask(SEND_CHAT_MSG, body().id(other).text(&long)).declined("not-member");
    anna.ask(SEND_CHAT_MSG, body().id(other).text("")).declined("not-member");
    anna.ask(SEND_CHAT_MSG, body().id(hall).text(&long)).declined("too-long");
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("")).declined("empty-message");
}

// Bodies that do not parse.

/// A good body, and the lengths at which it may end early because the rest is optional.
struct Form {
    purpose: u8,
    good: Vec<u8>,
    optional_from: &'static [usize],
}

fn form(purpose: u8, good: Body, optional_from: &'static [usize]) -> Form {
    Form { purpose, good: good.into(), optional_from }
}

/// Cut anywhere, or with bytes left over, the body is malformed.
#[track_caller]
fn expect_malformed_when_cut_or_longer(client: &mut Client, form: &Form) {
    for length in 0..form.good.len() {
        if !form.optional_from.contains(&length) {
            client.ask(form.purpose, &form.good[..length]).declined("malformed");
        }
    }
    for extra in [&[0][..], &[1], &[0xff; 3], &[0; 8], &[0; 300]] {
        let mut longer = form.good.clone();
        longer.extend_from_slice(extra);
        client.ask(form.purpose, longer).declined("malformed");
    }
}

/// Every body of a request with a session, cut at every byte and with bytes left over.
#[test]
fn short_and_long_bodies_with_a_session() {
    let server = hall();
    let mut anna = server.login("anna");
    let chat = anna.chat_id("hall");
    let forms = [
        form(GET_USER_ID, body().text("anna"), &[]),
        form(GET_CHAT_ID, body().text("hall"), &[]),
        form(CHAT_REQ_PASS, body().id(chat), &[]),
        form(JOIN_CHAT, body().id(chat).text("password"), &[4]),
        form(SEND_CHAT_MSG, body().id(chat).text("hi"), &[]),
        form(REQUEST_CHAT_MSG, body().id(chat).time(1).time(2), &[12]),
        form(MARK_SEEN, body().id(chat).time(1), &[]),
        form(LOGOFF, body(), &[]),
    ];
    for form in &forms {
        expect_malformed_when_cut_or_longer(&mut anna, form);
    }
    assert_eq!(anna.history(chat), [], "a malformed send was kept");
}

/// The bodies of LOGIN and RESTORE_SESSION, cut at every byte and with bytes left over.
#[test]
fn short_and_long_bodies_without_a_session() {
    let server = hall();
    let session = server.login("anna");
    drop(session);
    let mut client = server.greeted();
    let forms = [
        form(LOGIN, login_body("anna", PASSWORD), &[]),
        form(RESTORE_SESSION, body().id(1).text(&"0123456789abcdef".repeat(4)), &[]),
    ];
    for form in &forms {
        expect_malformed_when_cut_or_longer(&mut client, form);
    }
    client.login("anna");
}

/// Texts that are not UTF-8.
const BAD_UTF8: [&[u8]; 9] = [
    b"\x80",
    b"a\xff",
    b"\xc3",
    b"\xc0\x80",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf0\x9f\x98",
    b"ok\xd0",
];

/// A str that is not UTF-8 is malformed wherever it stands.
#[test]
fn bad_utf8_is_malformed() {
    let server = hall();
    let mut client = server.greeted();
    for bad in BAD_UTF8 {
        let requests = [
            (LOGIN, body().bytes(bad).u8(0).text(PASSWORD)),
            (LOGIN, body().text("anna").bytes(bad).u8(0)),
            (RESTORE_SESSION, body().id(1).bytes(bad).u8(0)),
        ];
        for (purpose, request) in requests {
            client.ask(purpose, request).declined("malformed");
        }
    }
    client.login("anna");
    let chat = client.chat_id("hall");
    for bad in BAD_UTF8 {
        let requests = [
            (GET_USER_ID, body().bytes(bad).u8(0)),
            (GET_CHAT_ID, body().bytes(bad).u8(0)),
            (JOIN_CHAT, body().id(chat).bytes(bad).u8(0)),
            (SEND_CHAT_MSG, body().id(chat).bytes(bad).u8(0)),
        ];
        for (purpose, request) in requests {
            client.ask(purpose, request).declined("malformed");
        }
    }
}

/// A NUL inside a str ends it there, and what follows is left over.
#[test]
fn a_nul_inside_a_str_is_malformed() {
    let server = hall();
    let mut client = server.greeted();
    client.ask(LOGIN, body().text("an\0na").text(PASSWORD)).declined("malformed");
    client.ask(LOGIN, body().text("anna").text("correct\0 horse")).declined("malformed");
    client.login("anna");
    let chat = client.chat_id("hall");
    client.ask(GET_USER_ID, body().text("an\0na")).declined("malformed");
    client.ask(GET_CHAT_ID, body().text("\0hall")).declined("malformed");
    client.ask(JOIN_CHAT, body().id(chat).text("a\0b")).declined("malformed");
    client.ask(SEND_CHAT_MSG, body().id(chat).text("h\0i")).declined("malformed");
    client.ask(SEND_CHAT_MSG, body().id(chat).text("hi\0")).declined("malformed");
}

/// Ids of 0 are malformed.
#[test]
fn ids_of_zero_are_malformed() {
    let server = hall();
    let mut client = server.greeted();
    client.ask(RESTORE_SESSION, body().id(0).text(&"0".repeat(64))).declined("malformed");
    client.login("anna");
    let requests = [
        (CHAT_REQ_PASS, body().id(0)),
        (JOIN_CHAT, body().id(0)),
        (JOIN_CHAT, body().id(0).text("password")),
        (SEND_CHAT_MSG, body().id(0).text("hi")),
        (REQUEST_CHAT_MSG, body().id(0).time(0)),
        (REQUEST_CHAT_MSG, body().id(0).time(0).time(1)),
        (MARK_SEEN, body().id(0).time(0)),
    ];
    for (purpose, request) in requests {
        client.ask(purpose, request).declined("malformed");
    }
}

/// Negative times are malformed.
#[test]
fn negative_times_are_malformed() {
    let server = hall();
    let mut anna = server.login("anna");
    let chat = anna.chat_id("hall");
    for bad in [-1, i64::MIN] {
        let requests = [
            (REQUEST_CHAT_MSG, body().id(chat).time(bad)),
            (REQUEST_CHAT_MSG, body().id(chat).time(bad).time(1)),
            (REQUEST_CHAT_MSG, body().id(chat).time(0).time(bad)),
            (MARK_SEEN, body().id(chat).time(bad)),
        ];
        for (purpose, request) in requests {
            anna.ask(purpose, request).declined("malformed");
        }
    }
}

/// An id that no chat has, up to the greatest, is `no-such-chat` for every purpose that takes one.
#[test]
fn no_such_chat() {
    let server = hall();
    let mut anna = server.login("anna");
    for id in [9999, u32::MAX] {
        let requests = [
            (CHAT_REQ_PASS, body().id(id)),
            (JOIN_CHAT, body().id(id)),
            (JOIN_CHAT, body().id(id).text("password")),
            (SEND_CHAT_MSG, body().id(id).text("hi")),
            (REQUEST_CHAT_MSG, body().id(id).time(0)),
            (REQUEST_CHAT_MSG, body().id(id).time(5).time(1)),
            (MARK_SEEN, body().id(id).time(0)),
        ];
        for (purpose, request) in requests {
            anna.ask(purpose, request).declined("no-such-chat");
        }
    }
}

/// A chat that exists but is not mine is `not-member` for every purpose that needs membership.
#[test]
fn not_member() {
    let server = hall();
    server.add_chat("other", &[]);
    let mut anna = server.login("anna");
    let other = anna.chat_id("other");
    let requests = [
        (SEND_CHAT_MSG, body().id(other).text("hi")),
        (REQUEST_CHAT_MSG, body().id(other).time(0)),
        (REQUEST_CHAT_MSG, body().id(other).time(5).time(1)),
        (MARK_SEEN, body().id(other).time(0)),
    ];
    for (purpose, request) in requests {
        anna.ask(purpose, request).declined("not-member");
    }
}
