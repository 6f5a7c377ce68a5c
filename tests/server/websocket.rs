//! Purpose through a WebSocket, checked against RFC 6455 (protocol section 9).

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::web::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket, masked};
use crate::support::web::{Http, upgrade};
use crate::support::wire::*;
use crate::support::{Server, eventually};

const FIN: u8 = 0x80;

fn hello() -> Frame {
    Frame::new(HELLO, 1, [0, 1])
}

fn heartbeat(task: u8, bytes: &[u8]) -> Frame {
    Frame::new(HEARTBEAT, task, bytes)
}

/// A server, and a greeted WebSocket.
fn greeted() -> (Server, WebSocket) {
    let server = Server::start();
    let mut socket = WebSocket::open(&server);
    socket.send_frames(&[hello()]);
    assert_eq!(socket.frame(), Frame::new(ACCEPTED, 1, [0, 1]));
    (server, socket)
}

#[test]
fn two_people_talk() {
    let server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna", "boris"]);
    let mut anna = WebSocket::open(&server);
    anna.send_frames(&[hello(), Frame::new(LOGIN, 2, *b"anna\0correct horse\0")]);
    assert_eq!(anna.frame(), Frame::new(ACCEPTED, 1, [0, 1]));
    assert_eq!(anna.frame().purpose, ACCEPTED);
    let mut boris = server.login("boris");
    let hall = boris.chat_id("hall");
    let mut body = hall.to_le_bytes().to_vec();
    body.extend_from_slice(b"hi\0");
    anna.send_frames(&[Frame::new(SEND_CHAT_MSG, 3, body)]);
    assert_eq!(anna.frame().purpose, ACCEPTED);
    assert_eq!(boris.notify(hall).1[0].content, "hi");
    boris.send(hall, "hello");
    let got = anna.frame();
    assert_eq!(got.purpose, MSG_NOTIFY);
    assert!(got.body.ends_with(b"hello\0"));
}

#[test]
fn frames_may_be_cut_anywhere() {
    let (_server, mut socket) = greeted();
    let stream: Vec<u8> = (2..12).flat_map(|task| heartbeat(task, &[task; 20]).encode()).collect();
    // Messages that do not align with frames, some of them empty, one in fragments with a Ping in
    // it.
    for cut in [1, 3, 7, 13] {
        for piece in stream.chunks(cut) {
            socket.send(FIN | BINARY, piece);
            socket.send(FIN | BINARY, b"");
        }
        for task in 2..12 {
            assert_eq!(socket.frame(), Frame::new(ACCEPTED, task, [task; 20]));
        }
    }
    socket.send(BINARY, &stream[..5]);
    socket.send(FIN | PING, b"between");
    socket.send(CONTINUATION, &stream[5..100]);
    socket.send(FIN | CONTINUATION, &stream[100..]);
    assert_eq!(socket.web_frame(), Some((PONG, b"between".to_vec())));
    for task in 2..12 {
        assert_eq!(socket.frame(), Frame::new(ACCEPTED, task, [task; 20]));
    }
    // And the frames of the WebSocket themselves, byte by byte.
    for byte in masked(FIN | BINARY, &heartbeat(3, b"slow").encode()) {
        socket.http.send([byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(socket.frame(), Frame::new(ACCEPTED, 3, *b"slow"));
}

#[test]
fn what_stands_behind_the_handshake_is_the_websockets() {
    let server = Server::start();
    let mut http = Http::connect(server.address());
    let mut bytes = upgrade("").into_bytes();
    bytes.extend_from_slice(&masked(FIN | BINARY, &hello().encode()));
    http.send(&bytes);
    assert_eq!(http.answer(false).status, 101);
    assert_eq!(WebSocket::behind(http).frame(), Frame::new(ACCEPTED, 1, [0, 1]));
}

#[test]
fn pings_are_answered_with_what_they_hold() {
    let (_server, mut socket) = greeted();
    let longest: Vec<u8> = (0..125).collect();
    for payload in [&b""[..], b"Hello", &[0, 0xff, 0xfe], &longest] {
        socket.send(FIN | PING, payload);
        assert_eq!(socket.web_frame(), Some((PONG, payload.to_vec())));
    }
    for n in 0..10u8 {
        socket.send(FIN | PING, [n]);
    }
    for n in 0..10u8 {
        assert_eq!(socket.web_frame(), Some((PONG, vec![n])));
    }
    socket.send(FIN | PONG, b"unasked");
    socket.send_frames(&[heartbeat(9, b"on")]);
    assert_eq!(socket.frame(), Frame::new(ACCEPTED, 9, *b"on"));
}

#[test]
fn broken_rules_close_with_1002() {
    let server = Server::start();
    let mut head_only = vec![0x82, 0x80 | 127];
    head_only.extend_from_slice(&(1u64 << 63).to_be_bytes());
    let mut long_form = vec![0x82, 0x80 | 126, 0, 125];
    long_form.extend_from_slice(&[0; 4]);
    let mut longer_form = vec![0x82, 0x80 | 127];
    longer_form.extend_from_slice(&65_535u64.to_be_bytes());
    longer_form.extend_from_slice(&[0; 4]);
    for (what, bytes) in [
        ("an unmasked frame", vec![0x82, 0]),
        ("a reserved bit", masked(0xc2, b"")),
        ("a reserved bit", masked(0xa2, b"")),
        ("a reserved bit", masked(0x92, b"")),
        ("a reserved opcode", masked(FIN | 3, b"")),
        ("a reserved opcode", masked(FIN | 11, b"")),
        ("a control frame in fragments", masked(PING, b"")),
        ("a long control frame", masked(FIN | PING, &[0; 126])),
        ("a continuation of nothing", masked(FIN | CONTINUATION, b"x")),
        ("a message within one", [masked(BINARY, b""), masked(FIN | BINARY, b"")].concat()),
        ("a length with its top bit", head_only),
        ("a length in no shortest form", long_form),
        ("a length in no shortest form", longer_form),
        ("a Close of one byte", masked(FIN | CLOSE, b"\x03")),
        ("a code that must not be sent", masked(FIN | CLOSE, &1005u16.to_be_bytes())),
        ("a code that must not be sent", masked(FIN | CLOSE, &999u16.to_be_bytes())),
        ("a code that must not be sent", masked(FIN | CLOSE, &5000u16.to_be_bytes())),
    ] {
        let mut socket = WebSocket::open(&server);
        socket.send_frames(&[hello()]);
        socket.http.send(&bytes);
        assert_eq!(socket.frame(), Frame::new(ACCEPTED, 1, [0, 1]), "{what}");
        let closed = socket.web_frame();
        assert_eq!(closed, Some((CLOSE, 1002u16.to_be_bytes().to_vec())), "{what}");
    }
    // Nobody else notices.
    server.greeted();
}

#[test]
fn text_closes_with_1003_and_a_bad_reason_with_1007() {
    let server = Server::start();
    let mut socket = WebSocket::open(&server);
    socket.send(FIN | TEXT, "text");
    socket.expect_close(Some(1003));
    let mut socket = WebSocket::open(&server);
    socket.send(TEXT, "text");
    socket.expect_close(Some(1003));
    let mut socket = WebSocket::open(&server);
    socket.send(FIN | CLOSE, b"\x03\xe8\xff");
    socket.expect_close(Some(1007));
}

#[test]
fn a_close_is_answered_after_what_came_before_it() {
    for (payload, code) in [
        (&b""[..], None),
        (b"\x03\xe8", Some(1000)),
        (b"\x03\xe9going", Some(1001)),
        (b"\x0f\xa0own", Some(4000)),
    ] {
        let (_server, mut socket) = greeted();
        let mut bytes = masked(FIN | BINARY, &heartbeat(2, b"last").encode());
        bytes.extend_from_slice(&masked(FIN | CLOSE, payload));
        // Nothing behind it is read.
        bytes.extend_from_slice(&masked(FIN | BINARY, &heartbeat(3, b"late").encode()));
        bytes.extend_from_slice(&masked(FIN | PING, b"late"));
        socket.http.send(&bytes);
        assert_eq!(socket.frame(), Frame::new(ACCEPTED, 2, *b"last"));
        socket.expect_close(code);
    }
}

#[test]
fn disconnect_of_the_client_is_followed_by_1000() {
    let (_server, mut socket) = greeted();
    socket.send_frames(&[heartbeat(2, b"x"), Frame::new(DISCONNECT, 0, [])]);
    assert_eq!(socket.frame(), Frame::new(ACCEPTED, 2, *b"x"));
    socket.expect_close(Some(1000));
}

#[test]
fn the_server_says_disconnect_and_closes_with_1000() {
    let server = Server::with(&["--auth-timeout", "0.3", "--drain-timeout", "1"]);
    let mut socket = WebSocket::open(&server);
    assert_eq!(socket.frame(), Frame::new(DISCONNECT, 0, []));
    assert_eq!(socket.web_frame(), Some((CLOSE, 1000u16.to_be_bytes().to_vec())));
    // It waits for the answer no longer than that.
    let begun = Instant::now();
    assert_eq!(socket.web_frame(), None);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let mut server = server;
    let mut socket = WebSocket::open(&server);
    let (status, _) = server.stop_by("TERM");
    assert!(status.success());
    assert_eq!(socket.frame(), Frame::new(DISCONNECT, 0, []));
    assert_eq!(socket.web_frame(), Some((CLOSE, 1000u16.to_be_bytes().to_vec())));
}

#[test]
fn a_length_that_is_claimed_reserves_nothing() {
    let server = Server::start();
    let before = server.resident_bytes();
    let mut sockets: Vec<_> = (0..50).map(|_| WebSocket::open(&server)).collect();
    for socket in &mut sockets {
        let mut head = vec![0x82, 0x80 | 127];
        head.extend_from_slice(&(u64::MAX >> 1).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        // With a mask of zeros the bytes are the payload.
        head.extend_from_slice(&hello().encode());
        socket.http.send(&head);
    }
    for socket in &mut sockets {
        assert_eq!(socket.frame(), Frame::new(ACCEPTED, 1, [0, 1]));
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
}

#[test]
fn many_frames_are_one_message() {
    let (_server, mut socket) = greeted();
    let frames: Vec<_> = (0..100).map(|task| heartbeat(task, b"0123456789")).collect();
    socket.send_frames(&frames);
    let (opcode, payload) = socket.web_frame().expect("a message");
    assert_eq!(opcode, BINARY);
    assert!(payload.len() > 16, "one flush is one message");
}

#[test]
fn an_oversized_frame_ends_it() {
    let (_server, mut socket) = greeted();
    socket.send(FIN | BINARY, [0xff, 0xff, 0xff, 0x7f, HEARTBEAT, 5]);
    let frame = socket.frame();
    assert_eq!((frame.purpose, frame.task), (DECLINED, 5));
    assert!(frame.body.starts_with(b"too-large: "));
    assert_eq!(socket.frame(), Frame::new(DISCONNECT, 0, []));
    socket.expect_close(Some(1000));
}

#[test]
fn a_stream_that_just_ends_is_forgotten() {
    let (server, mut socket) = greeted();
    let (first, rest) = (masked(FIN | BINARY, b"half"), [0x82, 0xfe]);
    socket.http.stream.write_all(&[first, rest.to_vec()].concat()).expect("written");
    crate::support::web::end(&socket.http.stream);
    while socket.web_frame().is_some() {}
    drop(socket);
    eventually(|| server.metrics()["connections_closing"] == 0.0);
}

#[test]
fn sessions_show_the_address_that_a_trusted_proxy_names() {
    let proxied = Server::with(&["--trusted-proxy", "127.0.0.0/8"]);
    let direct = Server::start();
    for (server, expected) in [(&proxied, "203.0.113.7"), (&direct, "127.0.0.1")] {
        server.add_user("anna");
        let lines = "X-Forwarded-For: 198.51.100.1, 203.0.113.7:50000, 127.0.0.9\r\n";
        let mut socket = WebSocket::open_at(server.address(), lines);
        socket.send_frames(&[
            Frame::new(HELLO, 1, [1, 0]),
            Frame::new(LOGIN, 2, *b"anna\0correct horse\0"),
            Frame::new(0x33, 3, []),
        ]);
        assert_eq!(socket.frame().purpose, ACCEPTED);
        assert_eq!(socket.frame().purpose, ACCEPTED);
        let sessions = socket.frame();
        let text = String::from_utf8_lossy(&sessions.body).into_owned();
        assert!(text.contains(expected), "{text:?}");
    }
    // A thread of its own writes the log.
    eventually(|| direct.stderr().contains("X-Forwarded-For"));
    assert!(!proxied.stderr().contains("X-Forwarded-For"), "{}", proxied.stderr());
}
