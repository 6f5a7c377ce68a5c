//! The stream of frames, cut anywhere, and how each side ends it (protocol sections 1 to 3).

use std::time::Duration;

use crate::support::wire::*;
use crate::support::{Client, Dice, PASSWORD, Server, client::login_body};

const BODY_BYTES_MAX: u32 = 64 * 1024;

/// A header alone: a frame of which no body is sent.
fn header(length: u32, purpose: u8, task: u8) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend([purpose, task]);
    bytes
}

/// A conversation of every kind of frame, with the purposes of its answers.
fn conversation(chat: u32) -> (Vec<u8>, Vec<(u8, u8)>) {
    let requests = [
        (HEARTBEAT, body().text("before hello"), ACCEPTED),
        (HELLO, body().u8(0).u8(1), ACCEPTED),
        (LOGIN, login_body("anna", PASSWORD), ACCEPTED),
        (GET_CHAT_ID, body().text("hall"), ACCEPTED),
        (GET_CHAT_ID, body().text("nowhere"), DECLINED),
        (SEND_CHAT_MSG, body().id(chat).text("привет"), ACCEPTED),
        (SEND_CHAT_MSG, body().id(chat).bytes(b"no nul"), DECLINED),
        (REQUEST_CHAT_MSG, body().id(chat).time(0), ACCEPTED),
        (0x77, body().bytes(&[0; 1000]), DECLINED),
        (HEARTBEAT, body().bytes(&[7; 1024]), ACCEPTED),
        (LOGOFF, body(), ACCEPTED),
        (LOGOFF, body(), DECLINED),
    ];
    let mut bytes = Vec::new();
    let mut answers = Vec::new();
    for (index, (purpose, body, answer)) in requests.into_iter().enumerate() {
        let task = 200 + index as u8;
        bytes.extend(Frame::new(purpose, task, body).encode());
        answers.push((answer, task));
    }
    (bytes, answers)
}

/// The answers, in order; notifications of what others say may come between them.
#[track_caller]
fn expect_answers(client: &mut Client, answers: &[(u8, u8)]) {
    for (purpose, task) in answers {
        let mut frame = client.next_frame().expect("an answer");
        while frame.purpose == MSG_NOTIFY {
            frame = client.next_frame().expect("an answer");
        }
        assert_eq!((frame.purpose, frame.task), (*purpose, *task), "{frame:?}");
    }
}

fn hall() -> (Server, u32) {
    hall_with(&[])
}

fn hall_with(options: &[&str]) -> (Server, u32) {
    let server = Server::with(options);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let chat = server.login("anna").chat_id("hall");
    (server, chat)
}

/// A stream that arrives byte by byte means what it means at once.
#[test]
fn frames_arrive_byte_by_byte() {
    let (server, chat) = hall();
    let mut client = server.connect();
    let (bytes, answers) = conversation(chat);
    for byte in bytes {
        client.write(&[byte]);
    }
    expect_answers(&mut client, &answers);
}

/// A stream that arrives in one piece is answered frame by frame, in order.
#[test]
fn a_conversation_in_one_write() {
    let (server, chat) = hall();
    let mut client = server.connect();
    let (bytes, answers) = conversation(chat);
    client.write(&bytes);
    expect_answers(&mut client, &answers);
}

/// Wherever the stream is cut, the frames are the same.
#[test]
fn frames_arrive_in_random_pieces() {
    let (server, chat) = hall();
    let (bytes, answers) = conversation(chat);
    let mut dice = Dice::new(0x5eed);
    for _ in 0..20 {
        let mut client = server.connect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(1 + dice.below(rest.len().min(40)));
            client.write(piece);
            rest = left;
        }
        expect_answers(&mut client, &answers);
    }
}

/// Two connections whose half frames interleave do not disturb each other.
#[test]
fn half_frames_of_two_connections_stay_apart() {
    let (server, chat) = hall();
    let (bytes, answers) = conversation(chat);
    let (mut left, mut right) = (server.connect(), server.connect());
    for piece in bytes.chunks(5) {
        left.write(piece);
        right.write(piece);
    }
    expect_answers(&mut left, &answers);
    expect_answers(&mut right, &answers);
}

/// Hundreds of requests in one write are all answered, in order, though task bytes repeat.
#[test]
fn hundreds_of_frames_in_one_write() {
    let (server, chat) = hall();
    let mut anna = server.login("anna");
    let count = anna.post_all((0..900).map(|index| match index % 3 {
        0 => (HEARTBEAT, body().text(&index.to_string()).into()),
        1 => (SEND_CHAT_MSG, body().id(chat).text(&index.to_string()).into()),
        _ => (GET_CHAT_ID, body().text("nowhere").into()),
    }));
    for index in 0..count {
        let answer = anna.answer();
        match index % 3 {
            0 => assert_eq!(answer.accepted(), format!("{index}\0").into_bytes()),
            1 => drop(Sent::read(&answer.accepted())),
            _ => drop(answer.declined("no-such-chat")),
        }
    }
    let sent = anna.history(chat);
    let expected: Vec<String> = (1..900).step_by(3).map(|index| index.to_string()).collect();
    assert_eq!(contents(&sent), expected);
}

/// The same task byte may be used again while it waits: each request is answered.
#[test]
fn one_task_byte_for_many_requests() {
    let (server, _) = hall();
    let mut anna = server.login("anna");
    for number in 0..10 {
        anna.write_frame(HEARTBEAT, 9, [number]);
    }
    for number in 0..10 {
        assert_eq!(anna.next_frame(), Some(Frame::new(ACCEPTED, 9, [number])));
    }
}

/// HEARTBEAT is answered with its own bytes in every state, up to 1024 of them.
#[test]
fn heartbeat_echoes_in_every_state() {
    let (server, _) = hall();
    let echo = |client: &mut Client| {
        for length in [0, 1, 6, 1023, 1024] {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            assert_eq!(client.ask(HEARTBEAT, bytes.clone()).accepted(), bytes);
        }
        client.ask(HEARTBEAT, vec![1; 1025]).declined("malformed");
        client.expect_quiet();
    };
    let mut client = server.connect();
    echo(&mut client);
    client.hello(0, 1);
    echo(&mut client);
    client.login("anna");
    echo(&mut client);
}

/// Answers from a client are never answered, in any state; what follows them is.
#[test]
fn answers_from_a_client_are_never_answered() {
    let (server, _) = hall();
    let answers = |client: &mut Client| {
        for task in [0, 1, 77, 255] {
            client.write_frame(ACCEPTED, task, []);
            client.write_frame(ACCEPTED, task, [1, 2, 3]);
            client.write_frame(DECLINED, task, body().text("malformed: no"));
            client.write_frame(DECLINED, task, []);
            client.write_frame(PART, task, [0xff]);
        }
        client.expect_quiet();
    };
    let mut client = server.connect();
    answers(&mut client);
    client.hello(0, 1);
    answers(&mut client);
    client.login("anna");
    answers(&mut client);
    assert_eq!(client.chat_id("hall"), client.chat_id("HALL"));
}

/// A body of exactly 64 KiB is taken: only what is in it may be wrong.
#[test]
fn the_largest_body_is_taken() {
    let (server, _) = hall();
    let mut anna = server.login("anna");
    let largest = vec![b'x'; BODY_BYTES_MAX as usize];
    anna.ask(0x77, largest.clone()).declined("unknown-purpose");
    anna.ask(SEND_CHAT_MSG, largest.clone()).declined("malformed");
    anna.ask(HEARTBEAT, largest).declined("malformed");
    anna.expect_quiet();
}

/// One byte more is declined `too-large` with its task before any of the body came, then the
/// server says DISCONNECT and closes. Earlier requests are answered first.
#[test]
fn an_oversized_frame_ends_the_connection() {
    let (server, _) = hall();
    for length in [BODY_BYTES_MAX + 1, 1 << 24, u32::MAX] {
        let mut anna = server.login("anna");
        let mut bytes = Frame::new(HEARTBEAT, 50, [1]).encode();
        bytes.extend(header(length, SEND_CHAT_MSG, 51));
        anna.write(&bytes);
        assert_eq!(anna.next_frame(), Some(Frame::new(ACCEPTED, 50, [1])));
        let answer = anna.next_frame().expect("an answer");
        assert_eq!(answer.task, 51);
        answer.declined("too-large");
        anna.expect_disconnect();
    }
}

/// The size of a frame is read before the state of the connection and before its purpose.
#[test]
fn an_oversized_frame_is_too_large_in_every_state() {
    let (server, _) = hall();
    for purpose in [HELLO, HEARTBEAT, DISCONNECT, 0x77] {
        let mut client = server.connect();
        client.write(&header(BODY_BYTES_MAX + 1, purpose, 3));
        let answer = client.next_frame().expect("an answer");
        assert_eq!(answer.task, 3);
        answer.declined("too-large");
        client.expect_disconnect();
    }
}

/// What comes after an oversized frame is read by nobody, and destroys nothing that was sent.
#[test]
fn frames_after_an_oversized_one_are_ignored() {
    let (server, chat) = hall();
    let mut anna = server.login("anna");
    let mut bytes = header(BODY_BYTES_MAX + 1, SEND_CHAT_MSG, 1);
    let late = Frame::new(SEND_CHAT_MSG, 2, body().id(chat).text("late")).encode();
    while bytes.len() < 3 * BODY_BYTES_MAX as usize {
        bytes.extend_from_slice(&late);
    }
    anna.write(&bytes);
    let answer = anna.next_frame().expect("an answer");
    assert_eq!(answer.task, 1);
    answer.declined("too-large");
    anna.expect_disconnect();
    assert_eq!(server.login("anna").history(chat), []);
}

/// Nor does what others say meanwhile: a connection on its way out is notified nothing more.
#[test]
fn who_is_on_its_way_out_is_notified_nothing() {
    let (server, chat) = hall();
    let (mut anna, mut other) = (server.login("anna"), server.login("anna"));
    anna.write(&header(BODY_BYTES_MAX + 1, SEND_CHAT_MSG, 1));
    for _ in 0..20 {
        other.send(chat, "news");
        // While nobody has read it, a connection that is closed is reset.
        anna.write(&[0; 100]);
        std::thread::sleep(Duration::from_millis(5));
    }
    // Before the header arrived, it was notified like everybody else.
    let mut answer = anna.next_frame().expect("an answer");
    while answer.purpose == MSG_NOTIFY {
        answer = anna.next_frame().expect("an answer");
    }
    assert_eq!(answer.task, 1);
    answer.declined("too-large");
    anna.expect_disconnect();
}

/// DISCONNECT: what was asked before is answered, then the stream ends without another word.
#[test]
fn disconnect_flushes_and_closes() {
    let (server, chat) = hall();
    let mut anna = server.login("anna");
    let mut bytes = Vec::new();
    for task in 1..=100 {
        bytes.extend(Frame::new(SEND_CHAT_MSG, task, body().id(chat).text("last")).encode());
    }
    bytes.extend(Frame::new(DISCONNECT, 101, []).encode());
    bytes.extend(Frame::new(SEND_CHAT_MSG, 102, body().id(chat).text("late")).encode());
    anna.write(&bytes);
    for task in 1..=100 {
        let answer = anna.next_frame().expect("an answer");
        assert_eq!(answer.task, task);
        answer.accepted();
    }
    anna.expect_end();
    let kept = server.login("anna").history(chat);
    assert_eq!(contents(&kept), ["last"; 100]);
}

/// DISCONNECT is taken in every state.
#[test]
fn disconnect_in_every_state() {
    let (server, _) = hall();
    let ends = |mut client: Client| {
        client.write_frame(DISCONNECT, 1, []);
        client.expect_end();
    };
    ends(server.connect());
    ends(server.greeted());
    ends(server.login("anna"));
}

/// A client that ends its stream gets the answers to everything that came in whole.
#[test]
fn half_closed_connections_get_their_answers() {
    let (server, chat) = hall();
    let mut anna = server.login("anna");
    let count = anna.post_all(
        (0..200).map(|index| (SEND_CHAT_MSG, body().id(chat).text(&index.to_string()).into())),
    );
    anna.write(&header(7, SEND_CHAT_MSG, 1));
    anna.write(&[1, 2]);
    anna.end_writing();
    for _ in 0..count {
        Sent::read(&anna.answer().accepted());
    }
    anna.expect_end();
    assert_eq!(server.login("anna").history(chat).len(), count);
}

/// A password that is still being checked does not keep a half-closed client from its answers.
#[test]
fn half_closed_while_the_password_is_checked() {
    let (server, chat) = hall();
    let mut client = server.greeted();
    client.post(LOGIN, login_body("anna", PASSWORD));
    client.post(SEND_CHAT_MSG, body().id(chat).text("hi"));
    client.end_writing();
    client.answer().accepted();
    Sent::read(&client.answer().accepted());
    client.expect_end();
}

/// The last answer to a client that has ended its side fills the queue beyond its limit: once it is
/// sent, the connection ends.
#[test]
fn half_closed_behind_a_full_queue() {
    const LIMIT: usize = 65_536;
    let server = Server::with(&["--outbound-limit", "65536"]);
    server.add_user("anna");
    let (unknown, echo) = (0x7f, [7; 1024]);
    let header_bytes = header(0, HEARTBEAT, 0).len();
    let declined_bytes = {
        let mut anna = server.login("anna");
        header_bytes + anna.ask(unknown, []).body.len()
    };
    let heartbeats = LIMIT / (header_bytes + echo.len()) - 3;
    let left = LIMIT - heartbeats * (header_bytes + echo.len());
    let mut again = server.greeted();
    // The password is still being checked when the rest has come: all of it is read at once.
    let login = [(LOGIN, login_body("anna", PASSWORD).into())];
    let echoes = (0..heartbeats).map(|_| (HEARTBEAT, echo.to_vec()));
    let rest = (0..left / declined_bytes + 1).map(|_| (unknown, Vec::new()));
    again.post_all(login.into_iter().chain(echoes).chain(rest));
    again.end_writing();
    again.answer().accepted();
    for _ in 0..heartbeats {
        assert_eq!(again.answer().accepted(), echo);
    }
    for _ in 0..left / declined_bytes + 1 {
        again.answer().declined("unknown-purpose");
    }
    again.expect_end();
}

/// DISCONNECT behind a login whose password is still being checked: the login is answered first.
#[test]
fn disconnect_waits_for_the_password() {
    let (server, _) = hall();
    let mut client = server.greeted();
    client.post(LOGIN, login_body("anna", PASSWORD));
    client.write_frame(DISCONNECT, 0, []);
    client.answer().accepted();
    client.expect_end();
}

/// Connections that vanish in the middle of anything leave the server whole for the others.
#[test]
fn connections_vanish_in_the_middle() {
    // Their number is not what is tested.
    let (server, chat) = hall_with(&["--max-unauthorized-per-address", "0"]);
    let (bytes, _) = conversation(chat);
    for cut in (0..bytes.len()).step_by(17) {
        let mut client = server.connect();
        client.write(&bytes[..cut]);
    }
    let mut anna = server.login("anna");
    let sent = anna.send(chat, "still here");
    let kept = anna.history(chat);
    assert_eq!(kept.last().map(|message| message.id), Some(sent.id));
}

/// Answers are byte for byte what section 1 says: a length, a purpose, the task, the body.
#[test]
fn an_answer_to_the_byte() {
    let server = Server::start();
    let mut client = server.connect();
    client.write(&[3, 0, 0, 0, HEARTBEAT, 0xfe, b'a', 0, 0xff]);
    let frame = client.next_frame().expect("an answer");
    assert_eq!(frame.encode(), [3, 0, 0, 0, ACCEPTED, 0xfe, b'a', 0, 0xff]);
}

/// Section 8, byte by byte, on a fresh server whose fifth chat has anna in it.
#[test]
fn the_exchange_of_section_8() {
    let server = Server::start();
    server.add_user("anna");
    for name in ["one", "two", "three", "four"] {
        server.add_chat(name, &[]);
    }
    server.add_chat("five", &["anna"]);
    let mut client = server.connect();
    client.write(b"\x02\0\0\0\x20\x01\0\x01");
    let hello = client.next_frame().expect("an answer");
    assert_eq!(hello.encode(), b"\x02\0\0\0\0\x01\0\x01");
    client.write(b"\x13\0\0\0\x21\x02anna\0correct horse\0");
    let login = client.next_frame().expect("an answer").encode();
    assert_eq!(login[..10], *b"\x45\0\0\0\0\x02\x01\0\0\0");
    assert_eq!(login.len(), 6 + 0x45);
    assert!(login[10..74].iter().all(u8::is_ascii_hexdigit));
    assert_eq!(login[74], 0);
    client.write(b"\x07\0\0\0\x28\x03\x05\0\0\0hi\0");
    let sent = client.next_frame().expect("an answer").encode();
    assert_eq!(sent[..6], *b"\x10\0\0\0\0\x03");
    let sent = Sent::read(&sent[6..]);
    let kept = client.range(5, sent.created, Some(sent.created));
    assert_eq!(contents(&kept), ["hi"]);
}
