//! Arbitrary input: every request is answered once and in order, the server does not crash, and its
//! database stays valid.

use crate::support::wire::*;
use crate::support::{Client, Dice, PASSWORD, Server, client::login_body};

const REQUESTS_PER_CONNECTION: usize = 400;

/// A request that parses, about users and chats of which some exist.
fn plausible(dice: &mut Dice) -> (u8, Body) {
    let id = body().id(1 + dice.below(4) as u32);
    let name = ["anna", "boris", "hall", "locked", "nobody"][dice.below(5)];
    let time = [0, 1, 1 << 50, i64::MAX][dice.below(4)];
    // Of 1.0 by number: on 0.1 they are unknown.
    match dice.below(18) {
        0 => (HEARTBEAT, body().text(name)),
        1 => (HELLO, body().u8(0).u8(1)),
        2 => (LOGIN, login_body(name, PASSWORD)),
        3 => (GET_USER_ID, body().text(name)),
        4 => (GET_CHAT_ID, body().text(name)),
        5 => (CHAT_REQ_PASS, id),
        6 => (JOIN_CHAT, id),
        7 => (JOIN_CHAT, id.text(PASSWORD)),
        8 | 9 => (SEND_CHAT_MSG, id.text(name)),
        10 => (SEND_CHAT_MSG, id.text(name).u64(dice.below(9) as u64)),
        11 => (REQUEST_CHAT_MSG, id.time(time)),
        12 => (REQUEST_CHAT_MSG, id.time(0).time(time)),
        13 => (MARK_SEEN, id.time(time)),
        14 => ([0x32, 0x39, 0x3A, 0x3B, 0x41, 0x43, 0x4D][dice.below(7)], id),
        15 => ([0x33, 0x42][dice.below(2)], body()),
        16 => ([0x3F, 0x40][dice.below(2)], id.id(1 + dice.below(3) as u32).u8(1)),
        _ => (0x4A, id.u64(0).u16(dice.below(100) as u16)),
    }
}

/// One of those, or one that was changed, cut or made longer, or with another purpose.
fn arbitrary_request(dice: &mut Dice) -> (u8, Vec<u8>) {
    let (mut purpose, body) = plausible(dice);
    let mut bytes = Vec::from(body);
    match dice.below(8) {
        0 => bytes.truncate(dice.below(bytes.len() + 1)),
        1 => {
            let count = dice.below(20);
            bytes.extend(dice.bytes(count));
        }
        2 if !bytes.is_empty() => {
            let at = dice.below(bytes.len());
            bytes[at] = dice.below(256) as u8;
        }
        3 => purpose = dice.below(256) as u8,
        _ => {}
    }
    // These are not answered, or end the connection.
    if matches!(purpose, ACCEPTED | DECLINED | DISCONNECT | PART) {
        purpose = HEARTBEAT;
    }
    (purpose, bytes)
}

/// Sends arbitrary requests in one stream and checks that each is answered, in order. How many were
/// accepted.
#[track_caller]
fn converse(client: &mut Client, dice: &mut Dice) -> usize {
    let requests: Vec<(u8, Vec<u8>)> =
        (0..REQUESTS_PER_CONNECTION).map(|_| arbitrary_request(dice)).collect();
    let count = client.post_all(requests);
    let mut accepted = 0;
    for _ in 0..count {
        let answer = client.whole_answer();
        if answer.purpose == ACCEPTED {
            accepted += 1;
        } else {
            let code = answer.body.split(|byte| *byte == b':').next();
            let code = String::from_utf8(code.unwrap_or_default().to_vec()).expect("UTF-8");
            answer.declined(&code);
        }
    }
    accepted
}

/// Arbitrary requests on connections of both versions in every state.
#[test]
fn arbitrary_requests_are_answered_in_order() {
    let options = ["--registration", "open", "--max-unauthorized-per-address", "0"];
    let mut server = Server::with(&options);
    for name in ["anna", "boris"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris"]);
    server.add_locked_chat("locked", PASSWORD);
    let mut accepted = 0;
    for seed in 1..=8 {
        let mut dice = Dice::new(seed * 0x9e37_79b9);
        let mut clients = vec![server.connect(), server.greeted(), server.connect()];
        for name in ["anna", "boris"] {
            let mut client = server.connect();
            let minor = u8::from(name == "anna");
            client.ask(HELLO, [1 - minor, minor]).accepted();
            // Earlier rounds may have spent the failures, or changed the password.
            client.ask(LOGIN, login_body(name, PASSWORD));
            clients.push(client);
        }
        for client in &mut clients {
            accepted += converse(client, &mut dice);
        }
    }
    assert!(accepted > 2000, "hardly anything parsed: {accepted} accepted");
    server.admin_ok(&["check"], None);
    let (status, _) = server.stop_by("TERM");
    assert_eq!(status.code(), Some(0));
    assert!(!server.stderr().contains("panicked"));
}

/// Noise: bytes that are no frames at all. Whatever the server makes of it, it ends the connection
/// or answers, and serves the next.
#[test]
fn noise_harms_nobody_else() {
    let server = Server::with(&["--max-unauthorized-per-address", "0"]);
    server.add_user("anna");
    let mut anna = server.login("anna");
    let mut dice = Dice::new(0x5eed);
    for _ in 0..200 {
        let mut client = server.connect();
        let count = 1 + dice.below(300);
        let noise = dice.bytes(count);
        client.write(&noise);
        client.end_writing();
        client.frames_until_broken();
    }
    anna.user_id("anna");
    assert!(!server.stderr().contains("panicked"));
}
