//! Arbitrary input: whatever is sent, every request is answered once and in order, the server does
//! not fall over, and its file stays sound.

mod support;

use support::wire::*;
use support::{Client, Dice, PASSWORD, Server, client::login_body};

const REQUESTS_PER_CONNECTION: usize = 400;

/// A body that is often almost right: ids, times and texts of those that exist, cut or changed.
fn arbitrary_body(dice: &mut Dice) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for _ in 0..dice.below(4) {
        let piece = match dice.below(9) {
            0 => body().id(dice.below(4) as u32),
            1 => body().id(u32::MAX),
            2 => body().time(dice.below(3) as i64 - 1),
            3 => body().time(i64::MAX),
            4 => body().text(["anna", "boris", "hall", "locked", ""][dice.below(5)]),
            5 => body().text(PASSWORD),
            6 => body().u8(dice.below(3) as u8),
            7 => {
                let count = dice.below(40);
                body().bytes(&dice.bytes(count))
            }
            _ => body().u64(dice.below(5) as u64),
        };
        bytes.extend(Vec::from(piece));
    }
    bytes
}

/// A purpose that is mostly one that exists, and neither ends the connection nor changes whether it
/// is answered.
fn arbitrary_purpose(dice: &mut Dice) -> u8 {
    loop {
        let purpose = match dice.below(10) {
            0 => dice.below(256) as u8,
            _ => [HEARTBEAT, 0x20][dice.below(2)] + dice.below(0x30) as u8,
        };
        if !matches!(purpose, ACCEPTED | DECLINED | DISCONNECT | PART) {
            return purpose;
        }
    }
}

/// Sends arbitrary requests in one stream and checks that each is answered, in order. How many were
/// accepted.
#[track_caller]
fn converse(client: &mut Client, dice: &mut Dice) -> usize {
    let requests: Vec<(u8, Vec<u8>)> = (0..REQUESTS_PER_CONNECTION)
        .map(|_| (arbitrary_purpose(dice), arbitrary_body(dice)))
        .collect();
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
    for seed in 1..=20 {
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
    assert!(accepted > 500, "hardly anything parsed: {accepted} accepted");
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
