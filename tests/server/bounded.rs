//! Slow consumers, drip feeders and resets: they cost other clients nothing, and the server bounded
//! memory.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{login_body, range_body};
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, eventually};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use socket2::SockRef;

/// Messages sent in one write.
const BATCH: usize = 10;
/// Long enough that a few thousand of them are far more than what memory may grow by.
const CONTENT_BYTES: usize = 16_000;
const MIB: u64 = 1024 * 1024;

fn hall(options: &[&str], users: &[&str]) -> Server {
    let server = Server::with(options);
    for user in users {
        server.add_user(user);
    }
    server.add_chat("hall", users);
    server
}

/// Sends numbered messages; `readers` take each batch before the next.
#[track_caller]
fn send_numbered(
    sender: &mut Client,
    chat: u32,
    numbers: std::ops::Range<usize>,
    readers: &mut [Client],
) {
    let filler = "x".repeat(CONTENT_BYTES);
    for start in numbers.step_by(BATCH) {
        let requests = (start..start + BATCH).map(|number| {
            (SEND_CHAT_MSG, body().id(chat).text(&format!("{number} {filler}")).into())
        });
        sender.post_all(requests);
        for _ in 0..BATCH {
            sender.answer().accepted();
        }
        for reader in readers.iter_mut() {
            reader.notified(chat, BATCH);
        }
    }
}

/// Ends a connection by a reset: what is on its way either way is lost.
fn reset(client: Client) {
    SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).expect("a socket option");
}

/// Somebody who reads nothing costs the buffer that one may have, however much is sent meanwhile;
/// those who read get it at once, and the stalled one gets it all in the end, in order, once.
#[test]
fn a_stalled_reader_costs_little_memory() {
    const MISSED: usize = 3000;
    let server = hall(&[], &["anna", "boris", "clara", "dina"]);
    let mut anna = server.login("anna");
    let mut readers = [server.login("clara"), server.login("dina")];
    let hall = anna.chat_id("hall");
    // SQLite's pages come first: they are allowed to take their 16 MiB.
    send_numbered(&mut anna, hall, 0..1500, &mut readers);
    let mut boris = server.login("boris");
    send_numbered(&mut anna, hall, 0..100, &mut readers);
    let before = server.resident_bytes();
    send_numbered(&mut anna, hall, 100..MISSED, &mut readers);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes more");
    let got = server.metrics();
    assert_eq!(got["slow_readers"], 1.0);
    assert!(got["outbound_bytes"] <= (MIB + CONTENT_BYTES as u64 * BATCH as u64 + 65536) as f64);
    let heard = boris.notified(hall, MISSED);
    for (index, message) in heard.iter().enumerate() {
        let number = message.content.split(' ').next();
        assert_eq!(number, Some(index.to_string().as_str()), "a hole or another order");
    }
    anna.send(hall, "live again");
    assert_eq!(contents(&boris.notified(hall, 1)), ["live again"]);
    boris.expect_quiet();
    let got = server.metrics();
    assert_eq!((got["slow_readers"], got["outbound_bytes"]), (0.0, 0.0));
}

/// What a turn shows many members may leave from pages that all of them share: anyone who reads it,
/// and however late, gets every byte, in order, and their answers in their places.
#[test]
fn many_are_notified_much_at_once() {
    const ROUNDS: usize = 20;
    const EACH: usize = 16;
    const SENDERS: usize = 8;
    let names: Vec<String> = (0..SENDERS + 8).map(|number| format!("user{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = hall(&[], &names);
    let mut members: Vec<Client> = names.iter().map(|name| server.login(name)).collect();
    let mut late = server.login(names[0]);
    let hall = members[0].chat_id("hall");
    let (senders, readers) = members.split_at_mut(SENDERS);
    for round in 0..ROUNDS {
        for (place, sender) in senders.iter_mut().enumerate() {
            let text = |number| format!("{round} {place} {number} {}", "y".repeat(2000));
            let requests =
                (0..EACH).map(|number| (SEND_CHAT_MSG, body().id(hall).text(&text(number)).into()));
            sender.post_all(requests);
        }
        for sender in senders.iter_mut() {
            for _ in 0..EACH {
                sender.answer().accepted();
            }
        }
    }
    let count = ROUNDS * SENDERS * EACH;
    let expected = late.notified(hall, count);
    assert!(expected.is_sorted_by_key(|message| message.id));
    for reader in readers {
        assert_eq!(reader.notified(hall, count), expected);
    }
    for (place, sender) in senders.iter_mut().enumerate() {
        let is_own = |content: &str| content.split(' ').nth(1) == Some(place.to_string().as_str());
        let of_others = expected.iter().filter(|message| !is_own(&message.content)).count();
        assert_eq!(of_others, count - ROUNDS * EACH);
        assert_eq!(sender.notified(hall, of_others).len(), of_others);
        sender.expect_quiet();
    }
    let filler = "y".repeat(2000);
    assert!(expected.iter().all(|message| message.content.ends_with(&filler)));
}

/// Long answers that nobody reads cost what may wait for their peers, not their length.
#[test]
fn long_answers_that_nobody_reads() {
    const ASKERS: usize = 20;
    let server = hall(&[], &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    send_numbered(&mut anna, hall, 0..2000, &mut []);
    let before = server.resident_bytes();
    let mut askers: Vec<Client> = (0..ASKERS)
        .map(|_| {
            let mut asker = server.connect();
            asker.hello(1, 0);
            asker.ask(LOGIN, login_body("anna", PASSWORD)).accepted();
            for _ in 0..100 {
                asker.post(REQUEST_CHAT_MSG, range_body(hall, 0, None));
            }
            asker
        })
        .collect();
    eventually(|| server.metrics()["long_answers"] == ASKERS as f64);
    anna.send(hall, "meanwhile");
    let grown = server.resident_bytes().saturating_sub(before);
    // A quarter of the outbound limit is filled, and a piece more; 32 MB were asked for each time.
    assert!(grown < ASKERS as u64 * MIB, "{grown} bytes more");
    let whole = askers[0].whole_answer().accepted();
    assert_eq!(Reader::new(&whole).messages().len(), 2000);
    drop(askers);
    eventually(|| {
        let got = server.metrics();
        (got["long_answers"], got["outbound_bytes"]) == (0.0, 0.0)
    });
}

/// Connections that feed a frame drop by drop cost less than 1 KiB each, and those who talk are
/// served meanwhile.
#[test]
fn drip_feeders_cost_little_memory() {
    const COUNT: usize = 900;
    let files = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: files, maximum: files };
    setrlimit(Resource::Nofile, limit).expect("room for the connections");
    let server = hall(&["--max-unauthorized-per-address", "0"], &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    // What the first connections bring with them is not what is measured.
    drop((0..COUNT).map(|_| server.greeted()).collect::<Vec<_>>());
    let before = server.resident_bytes();
    let mut feeders: Vec<Client> = (0..COUNT).map(|_| server.connect()).collect();
    let frame = Frame::new(HEARTBEAT, 7, *b"drop by drop").encode();
    let (last, first) = frame.split_last().expect("bytes");
    for drop in first {
        for feeder in &mut feeders {
            feeder.write(&[*drop]);
        }
        anna.send(hall, "meanwhile");
    }
    eventually(|| server.metrics()["inbound_bytes"] == (COUNT * first.len()) as f64);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 1024 * COUNT as u64, "{} bytes each", grown / COUNT as u64);
    for feeder in &mut feeders {
        feeder.write(&[*last]);
        assert_eq!(feeder.next_frame(), Some(Frame::new(ACCEPTED, 7, *b"drop by drop")));
    }
    assert_eq!(server.metrics()["inbound_bytes"], 0.0);
}

/// A connection that is reset is gone, in whatever phase it was, with all that it had.
#[test]
fn connections_are_reset_in_every_phase() {
    let server = hall(&["--outbound-limit", "65536"], &["anna", "boris"]);
    server.admin_ok(
        &["user", "add", "slow", "--password-stdin", "--password-iterations", "100000"],
        Some(&format!("{PASSWORD}\n")),
    );
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    send_numbered(&mut anna, hall, 0..500, &mut []);

    reset(server.connect());
    let mut half = server.connect();
    half.write(&[9, 0, 0]);
    reset(half);
    let mut half = server.login("boris");
    half.write(&[9, 0, 0, 0, SEND_CHAT_MSG, 1, 1]);
    reset(half);
    reset(server.greeted());
    let mut checked = server.greeted();
    checked.post(LOGIN, login_body("slow", PASSWORD));
    reset(checked);
    let mut unread = server.login("boris");
    unread.post_all((0..200).map(|_| (SEND_CHAT_MSG, body().id(hall).text("unread").into())));
    reset(unread);
    let mut answered = server.connect();
    answered.hello(1, 0);
    answered.ask(LOGIN, login_body("boris", PASSWORD)).accepted();
    answered.post(REQUEST_CHAT_MSG, range_body(hall, 0, None));
    assert_eq!(answered.answer().purpose, PART);
    reset(answered);
    let behind = server.login("boris");
    send_numbered(&mut anna, hall, 0..500, &mut []);
    eventually(|| server.metrics()["slow_readers"] == 1.0);
    reset(behind);
    // On its way out, with an answer unread, and when everything was read.
    let mut closing = server.login("boris");
    closing.post(REQUEST_CHAT_MSG, range_body(hall, 0, None));
    closing.write(&[0xff; 6]);
    reset(closing);
    let mut closing = server.greeted();
    closing.write(&[0xff; 6]);
    assert_eq!(closing.next_frame().map(|frame| frame.purpose), Some(DECLINED));
    assert_eq!(closing.next_frame().map(|frame| frame.purpose), Some(DISCONNECT));
    reset(closing);
    // Its own side ended first: then it is a broken pipe.
    let mut ended = server.login("boris");
    for _ in 0..50 {
        ended.post(REQUEST_CHAT_MSG, range_body(hall, 0, None));
    }
    ended.end_writing();
    reset(ended);

    anna.send(hall, "still here");
    eventually(|| {
        let got = server.metrics();
        let gone = ["connections{state=\"new\"}", "connections{state=\"greeted\"}"];
        let empty = [
            "connections_closing",
            "slow_readers",
            "long_answers",
            "outbound_bytes",
            "inbound_bytes",
            "password_queue",
        ];
        gone.iter().chain(&empty).all(|name| got[*name] == 0.0)
            && got["connections{state=\"authorized\"}"] == 1.0
    });
    for level in ["WARN", "ERROR", "panicked"] {
        assert!(!server.stderr().contains(level), "{}", server.stderr());
    }
}

/// Hundreds of connections that are made and reset at once cost nothing that stays.
#[test]
fn a_storm_of_resets_leaves_nothing() {
    let server = hall(&["--max-unauthorized-per-address", "0"], &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let storm = |rounds: usize| {
        for _ in 0..rounds {
            let clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
            clients.into_iter().for_each(reset);
        }
    };
    storm(20);
    let before = server.resident_bytes();
    storm(200);
    anna.send(hall, "still here");
    eventually(|| server.metrics()["connections{state=\"new\"}"] == 0.0);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < MIB, "{grown} bytes more");
    assert!(server.metrics()["connections_accepted_total"] > 10_000.0);
}

/// Without memory the server ends at once, with words; what it had accepted is there at the next
/// start.
#[test]
fn no_memory_is_not_passed_over() {
    let mut server = hall(&["--max-unauthorized-per-address", "0"], &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let sent = anna.send(hall, "on the disk").id;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id()));
    let status = status.expect("Linux reports on processes");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a figure");
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().expect("KiB");
    let limit = Some(kib * 1024 + 4 * MIB);
    let process = Pid::from_raw(server.process_id() as i32);
    prlimit(process, Resource::As, Rlimit { current: limit, maximum: limit }).expect("a limit");
    // Frames that are never whole: 60 KiB of memory each, five times the limit in all. The server
    // may end in the middle of this, or long after the last of them.
    let mut feeders = Vec::new();
    for _ in 0..400 {
        let Ok(mut stream) = TcpStream::connect(server.address()) else { break };
        let _ = stream.write_all(&[0, 0xf0, 0, 0, SEND_CHAT_MSG, 1]);
        let _ = stream.write_all(&[0; 60 * 1024 - 1]);
        feeders.push(stream);
    }
    let (status, _) = server.wait_for_end();
    assert!(!status.success(), "{status:?}");
    let words = server.stderr();
    assert!(words.contains("memory"), "{words}");
    server.restart();
    let kept = server.login("anna").history(hall);
    assert_eq!(kept.iter().map(|message| message.id).collect::<Vec<_>>(), [sent]);
}
