//! Servers that send too much, or nothing of use: every call ends.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn a_body_that_is_longer_than_the_server_reads_is_not_sent() {
    let (address, from) = serve_all(
        Version::V1_0,
        |_, task, request, out| {
            match *request {
                Request::Hello { major, minor } => say::accepted(out, task, |body| {
                    body.put_bytes(&[major, minor]);
                    body.put_u32(1000);
                    body.put_u32(500);
                    body.put_str("small");
                }),
                Request::GetMyChats => say::accepted(out, task, |_| {}),
                _ if greet(task, request, out) => {}
                _ => say::accepted(out, task, |body| body.put_u32(9)),
            }
            true
        },
        true,
    );
    let mut client = client(address, Version::V1_0);
    let error = client.send(chat(7), &"x".repeat(20_000)).expect_err("too large");
    assert_eq!(error.to_string(), "too-large: a body has at most 1000 bytes");
    assert_eq!(client.chat_id("hall").expect("connected"), chat(9));
    assert!(heard(&from).iter().all(|words| !words.starts_with("SEND")));
}

/// Answers nothing, but shows signs of life, as long as they are answered.
fn stay_alive(_: u32, _: u8, request: &Request<'_>, out: &mut Vec<u8>) -> bool {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    std::thread::sleep(Duration::from_millis(20));
    if matches!(request, Request::GetMembers { .. }) || COUNT.load(Ordering::Relaxed) > 0 {
        // Of the last request of the test, whose task is known.
        say::part(out, 5, |_| {});
    }
    say::bare(out, ToClient::Heartbeat);
    COUNT.fetch_add(1, Ordering::Relaxed) < 500
}

#[test]
fn signs_of_life_and_empty_parts_are_no_answer() {
    let (address, _from) = serve(Version::V1_0, stay_alive);
    let answer_timeout = Duration::from_millis(200);
    let options = Options { version: Version::V1_0, answer_timeout, ..Options::default() };
    let mut client = Client::connect(address, options).expect("it listens");
    client.login("anna", "correct horse").expect("anybody may");
    let error = client.members(chat(7)).expect_err("no answer");
    assert!(matches!(error, Error::TimedOut), "{error}");
    let error = client.chat_id("hall").expect_err("no answer");
    assert!(matches!(error, Error::TimedOut), "{error}");
}

#[test]
fn an_answer_that_is_no_pack_does_not_come_in_parts() {
    let (address, _from) = serve(Version::V1_0, |_, task, _, out| {
        for _ in 0..3 {
            say::part(out, task, |body| body.put_u32(9));
        }
        say::accepted(out, task, |_| {});
        true
    });
    let mut client = client(address, Version::V1_0);
    let error = client.heartbeat().expect_err("too long");
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    assert!(client.heartbeat().expect_err("closed").is_broken());
}

#[test]
fn a_pack_that_is_too_long_is_read_to_its_end_only_if_it_has_one() {
    let (address, _from) = serve(Version::V1_0, |_, task, request, out| {
        let parts = if matches!(request, Request::GetMembers { .. }) { 2 } else { 5 };
        for _ in 0..parts {
            say::part(out, task, |body| body.put_bytes(&[0; 600]));
        }
        say::accepted(out, task, |_| {});
        true
    });
    let options = Options { version: Version::V1_0, answer_bytes_max: 1000, ..Options::default() };
    let mut client = Client::connect(address, options).expect("it listens");
    client.login("anna", "correct horse").expect("anybody may");
    let error = client.members(chat(7)).expect_err("too long");
    assert!(matches!(error, Error::TooLong), "{error}");
    let error = client.my_chats().expect_err("without an end");
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    assert!(client.heartbeat().expect_err("closed").is_broken());
}

#[test]
fn next_event_takes_what_is_here_without_waiting() {
    let (address, _from) = serve(Version::V1_0, |_, _, request, out| {
        if matches!(request, Request::Typing { .. }) {
            notify(out, 7, 10);
        }
        true
    });
    let mut client = client(address, Version::V1_0);
    let request = Request::Typing { chat: chat(7) };
    client.link.send(|out| request.write(out, 200)).expect("connected");
    let until = link::now() + WAIT;
    let event = loop {
        match client.next_event(Duration::ZERO).expect("connected") {
            None if link::now() < until => std::thread::sleep(Duration::from_millis(1)),
            other => break other,
        }
    };
    assert!(matches!(event, Some(Event::Message { .. })), "{event:?}");
}

/// A server that writes `head`, and then a byte now and then.
fn trickle(head: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let trickle = move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.write_all(head);
        for _ in 0..500 {
            if stream.write_all(b"x").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::Builder::new().spawn(trickle).expect("a thread");
    address
}

#[test]
fn a_handshake_that_comes_byte_by_byte_is_not_waited_for() {
    let address = trickle(b"");
    let websocket = Some(format!("ws://{address}/ws").parse().expect("an address"));
    // A record of a handshake, of 16 KiB.
    let secure = trickle(b"\x16\x03\x03\x40\x00");
    let tls = Some(Tls::pinned(&"ab".repeat(32), "127.0.0.1").expect("a fingerprint"));
    let options = Options { connect_timeout: Duration::from_millis(200), ..Options::default() };
    for (address, options) in
        [(address, Options { websocket, ..options.clone() }), (secure, Options { tls, ..options })]
    {
        let outcome = Client::connect(address, options).map(drop);
        assert!(matches!(outcome, Err(Error::TimedOut)), "{outcome:?}");
    }
}
