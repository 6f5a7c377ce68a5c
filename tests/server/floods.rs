//! Clients that flood the server with requests are served fairly, and so are the others.

#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the server: they read the clock and start threads"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Server;
use crate::support::wire::*;

/// More small requests at once than any buffer of the server holds: each is answered.
#[test]
fn small_requests_without_end_are_all_answered() {
    const REQUESTS: usize = 400_000;
    let server = Server::start();
    let mut client = server.greeted();
    let one = Frame::new(HEARTBEAT, 7, []).encode();
    let mut writer = client.stream().try_clone().expect("a second handle");
    let asking = thread::spawn(move || writer.write_all(&one.repeat(REQUESTS)));
    for _ in 0..REQUESTS {
        let answer = client.next_frame().expect("an answer");
        assert_eq!((answer.purpose, answer.task), (ACCEPTED, 7));
    }
    asking.join().expect("the thread").expect("everything is taken");
    assert!(server.resident_bytes() < 64 * 1024 * 1024);
}

/// Sends requests without a pause and throws the answers away, until it is over.
fn flood(mut stream: TcpStream, is_over: &AtomicBool) {
    let requests = Frame::new(HEARTBEAT, 7, [7; 1000]).encode().repeat(64);
    let mut reader = stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut bytes = vec![0; 256 * 1024];
            while reader.read(&mut bytes).is_ok_and(|count| count > 0) {}
        });
        while !is_over.load(Ordering::Relaxed) && stream.write_all(&requests).is_ok() {}
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}

/// Forty connections use up the bytes that one turn reads, over and over; anyone else who connects
/// gets its turn.
#[test]
fn those_who_flood_do_not_starve_the_others() {
    let server = Server::with(&["--max-unauthorized-per-address", "0"]);
    let mut client = server.greeted();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..40 {
            let stream = TcpStream::connect(server.address()).expect("a connection");
            let is_over = &is_over;
            scope.spawn(move || flood(stream, is_over));
        }
        thread::sleep(Duration::from_millis(500));
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            client.write_frame(HEARTBEAT, 1, []);
            let answer = client.next_frame();
            slowest = slowest.max(asked.elapsed());
            if answer.is_none() {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?}");
    });
}

/// Ten connections of one user ask again and again for all the chats that there are; anyone else
/// who asks for little is answered in between.
#[test]
fn those_who_ask_for_much_do_not_stall_the_others() {
    const CHATS: usize = 300;
    let server = Server::start();
    server.add_user("anna");
    // One user makes a hundred a day.
    for maker in ["boris", "clara", "dora"] {
        server.add_user(maker);
        let mut maker_client = server.login10(maker);
        let creations = (0..CHATS / 3).map(|n| (0x38, body().text(&format!("{maker}-{n}")).into()));
        maker_client.post_all(creations);
        for _ in 0..CHATS / 3 {
            maker_client.answer().accepted();
        }
    }
    let find: Vec<u8> = body().text("").u16(1000).into();
    let requests = Frame::new(0x44, 1, find).encode().repeat(200);
    let mut client = server.greeted();
    let mut streams = Vec::new();
    for _ in 0..10 {
        let asking = server.login10("anna");
        streams.push(asking.stream().try_clone().expect("a second handle"));
        let (mut writer, bytes) = (asking.stream().try_clone().expect("another"), requests.clone());
        thread::spawn(move || writer.write_all(&bytes));
        let mut reader = asking.stream().try_clone().expect("another");
        thread::spawn(move || {
            let mut bytes = vec![0; 256 * 1024];
            while reader.read(&mut bytes).is_ok_and(|count| count > 0) {}
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        client.write_frame(HEARTBEAT, 1, []);
        client.next_frame().expect("an answer");
        slowest = slowest.max(asked.elapsed());
    }
    for stream in streams {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    assert!(slowest < Duration::from_millis(750), "an answer took {slowest:?}");
}
