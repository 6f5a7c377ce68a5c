//! SEND_CHAT_MSG, REQUEST_CHAT_MSG, MARK_SEEN, MSG_NOTIFY and their order (protocol sections 3
//! and 4).

use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

use crate::support::api11::Extras;
use crate::support::client::range_body;
use crate::support::wire::*;
use crate::support::{Client, Server, eventually};

const CONTENT_BYTES_MAX: usize = 16 * 1024;
const PACK_BYTES_MAX: usize = 1024 * 1024;
/// A message in a pack, its content aside: ids, times, status, NUL.
const MESSAGE_BYTES: usize = 8 + 4 + 8 + 8 + 1 + 1;

/// A server with these users in the chat `hall`.
fn hall(users: &[&str]) -> Server {
    hall_with(&[], users)
}

fn hall_with(options: &[&str], users: &[&str]) -> Server {
    let server = Server::with(options);
    for user in users {
        server.add_user(user);
    }
    server.add_chat("hall", users);
    server
}

fn alone() -> (Server, Client, u32) {
    let server = hall(&["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    (server, anna, hall)
}

/// Sends many messages in one write.
#[track_caller]
fn post_messages(client: &mut Client, chat: u32, messages: impl Iterator<Item = String>) -> usize {
    client.post_all(messages.map(|content| {
        let request = body().id(chat).text(&content);
        (SEND_CHAT_MSG, request.into())
    }))
}

#[track_caller]
fn expect_sent(client: &mut Client, count: usize) -> Vec<Sent> {
    (0..count).map(|_| Sent::read(&client.answer().accepted())).collect()
}

#[track_caller]
fn send_all(client: &mut Client, chat: u32, messages: &[&str]) -> Vec<Sent> {
    let posted = post_messages(client, chat, messages.iter().map(ToString::to_string));
    expect_sent(client, posted)
}

// SEND_CHAT_MSG.

/// What was sent is read back as it was, with the id and time of the answer and its sender.
#[test]
fn a_message_is_read_back() {
    let (_server, mut anna, hall) = alone();
    let me = anna.user_id("anna");
    for content in ["hi", "Привет, мир", "\n\t \u{1}\u{7f}", "👩‍👩‍👧", "'; --", " "]
    {
        let sent = anna.send(hall, content);
        let expected = Message {
            id: sent.id,
            sender: me,
            created: sent.created,
            updated: sent.created,
            status: 0,
            content: content.to_owned(),
            extras: Extras::default(),
        };
        let kept = anna.range(hall, sent.created, Some(sent.created));
        assert_eq!(kept, [expected]);
    }
}

/// A message has up to 16 KiB of UTF-8; the limit is one of bytes.
#[test]
fn the_longest_message() {
    let (_server, mut anna, hall) = alone();
    let longest = "x".repeat(CONTENT_BYTES_MAX);
    let wide = "Ж".repeat(CONTENT_BYTES_MAX / 2);
    anna.send(hall, &longest);
    anna.send(hall, &wide);
    for too_long in ["x".repeat(CONTENT_BYTES_MAX + 1), format!("{wide}x"), "x".repeat(60_000)] {
        anna.ask(SEND_CHAT_MSG, body().id(hall).text(&too_long)).declined("too-long");
    }
    assert_eq!(contents(&anna.history(hall)), [longest, wide]);
}

/// On 0.1 there is no nonce: eight bytes more are bytes left over.
#[test]
fn no_nonce_on_0_1() {
    let (_server, mut anna, hall) = alone();
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("hi").u64(7)).declined("malformed");
    assert_eq!(anna.history(hall), []);
}

/// Ids and times grow with every message of the server, whatever its chat and its sender, and no
/// two events share a time.
#[test]
fn ids_and_times_grow_over_the_whole_server() {
    let server = hall(&["anna", "boris"]);
    server.add_chat("other", &["boris", "anna"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let chats = [anna.chat_id("hall"), anna.chat_id("other")];
    let mut last = Sent { id: 0, created: 0 };
    for round in 0..40 {
        let client = if round % 3 == 0 { &mut anna } else { &mut boris };
        let sent = client.send(chats[round % 2], "hi");
        assert!(sent.id > last.id, "{sent:?} after {last:?}");
        assert!(sent.created > last.created, "{sent:?} after {last:?}");
        last = sent;
    }
    let posted = post_messages(&mut anna, chats[0], (0..500).map(|n| n.to_string()));
    for sent in expect_sent(&mut anna, posted) {
        assert!(sent.id > last.id && sent.created > last.created);
        last = sent;
    }
}

/// Server time is the wall clock in microseconds, as near as one can see from outside.
#[test]
#[allow(clippy::disallowed_methods, reason = "the test compares the clocks")]
fn server_time_is_the_wall_clock() {
    let (_server, mut anna, hall) = alone();
    let now = || {
        let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        i64::try_from(since.as_micros()).expect("a time that fits")
    };
    let before = now();
    let sent = anna.send(hall, "hi");
    let after = now();
    // The server may have read its clock at the start of the turn.
    assert!(
        (before - 2_000_000..=after + 2_000_000).contains(&sent.created),
        "{} is not between {before} and {after}",
        sent.created
    );
}

// REQUEST_CHAT_MSG.

/// A range has every message with from <= updated <= to, ascending; without `to`, up to now.
#[test]
fn ranges_include_both_ends() {
    let (_server, mut anna, hall) = alone();
    let times: Vec<i64> =
        send_all(&mut anna, hall, &["a", "b", "c", "d"]).iter().map(|sent| sent.created).collect();
    let [a, b, c, d] = times[..] else { panic!("four messages") };
    let cases: [(i64, Option<i64>, &[&str]); 12] = [
        (0, None, &["a", "b", "c", "d"]),
        (a, None, &["a", "b", "c", "d"]),
        (a + 1, None, &["b", "c", "d"]),
        (d, None, &["d"]),
        (d + 1, None, &[]),
        (0, Some(a - 1), &[]),
        (0, Some(a), &["a"]),
        (b, Some(c), &["b", "c"]),
        (b, Some(b), &["b"]),
        (b + 1, Some(d - 1), &["c"]),
        (0, Some(i64::MAX), &["a", "b", "c", "d"]),
        (i64::MAX, None, &[]),
    ];
    for (from, to, expected) in cases {
        let got = anna.range(hall, from, to);
        assert_eq!(contents(&got), expected, "from {from} to {to:?}");
    }
}

/// from > to is an empty pack.
#[test]
fn a_range_backwards_is_empty() {
    let (_server, mut anna, hall) = alone();
    let sent = anna.send(hall, "hi");
    for (from, to) in [(1, 0), (sent.created, 0), (i64::MAX, sent.created)] {
        assert_eq!(anna.range(hall, from, Some(to)), []);
    }
}

/// A chat nobody wrote in is an empty pack.
#[test]
fn a_range_of_an_empty_chat() {
    let (_server, mut anna, hall) = alone();
    assert_eq!(anna.range(hall, 0, None), []);
}

/// Ranges hold the messages of their chat alone.
#[test]
fn ranges_keep_chats_apart() {
    let server = hall(&["anna"]);
    server.add_chat("other", &["anna"]);
    let mut anna = server.login("anna");
    let (hall, other) = (anna.chat_id("hall"), anna.chat_id("other"));
    for round in 0..10 {
        anna.send(hall, &format!("hall {round}"));
        anna.send(other, &format!("other {round}"));
    }
    for (chat, name) in [(hall, "hall"), (other, "other")] {
        let expected: Vec<String> = (0..10).map(|round| format!("{name} {round}")).collect();
        assert_eq!(contents(&anna.range(chat, 0, None)), expected);
    }
}

/// A range that is asked for behind a send in the same write has that message.
#[test]
fn a_range_sees_the_send_before_it() {
    let (_server, mut anna, hall) = alone();
    for round in 1..=20 {
        anna.post(SEND_CHAT_MSG, body().id(hall).text("hi"));
        anna.post(REQUEST_CHAT_MSG, range_body(hall, 0, None));
        let sent = Sent::read(&anna.answer().accepted());
        let pack = Reader::new(&anna.answer().accepted()).messages();
        assert_eq!(pack.len(), round);
        assert_eq!(pack.last().map(|message| message.id), Some(sent.id));
    }
}

/// A cursor is exact: having seen everything up to T, T + 1 gives the rest, no more and no less.
#[test]
fn a_time_is_an_exact_cursor() {
    let (_server, mut anna, hall) = alone();
    let mut cursor = 0;
    let mut seen = Vec::new();
    for round in 0..20 {
        let posted = post_messages(&mut anna, hall, (0..round).map(|n| format!("{round}.{n}")));
        expect_sent(&mut anna, posted);
        let news = anna.range(hall, cursor, None);
        assert_eq!(news.len(), round);
        cursor = news.last().map_or(cursor, |message| message.updated + 1);
        seen.extend(news);
    }
    assert_eq!(seen, anna.history(hall));
}

/// On 0.1 a pack of exactly 1 MiB comes in one ACCEPTED.
#[test]
fn a_pack_of_one_mib_fits() {
    let (_server, mut anna, hall) = alone();
    let content = "x".repeat(PACK_BYTES_MAX / 64 - MESSAGE_BYTES);
    let posted = post_messages(&mut anna, hall, (0..64).map(|_| content.clone()));
    expect_sent(&mut anna, posted);
    let pack = anna.ask(REQUEST_CHAT_MSG, range_body(hall, 0, None)).accepted();
    assert_eq!(pack.len(), PACK_BYTES_MAX);
    assert_eq!(Reader::new(&pack).messages().len(), 64);
}

/// On 0.1 a pack over 1 MiB is `too-large`, with the time up to which it fits as the one number in
/// the words, and following it reads everything.
#[test]
fn too_large_shows_how_far_it_fits() {
    let (_server, mut anna, hall) = alone();
    let content = "x".repeat(PACK_BYTES_MAX / 64 - MESSAGE_BYTES);
    let posted = post_messages(&mut anna, hall, (0..64).map(|_| content.clone()));
    let mut sent = expect_sent(&mut anna, posted);
    sent.push(anna.send(hall, "one too many"));
    let to =
        anna.ask(REQUEST_CHAT_MSG, range_body(hall, 0, None)).declined_with_number("too-large");
    // The 64th fits and the 65th does not, so the time is the one or any before the other.
    assert!((sent[63].created..sent[64].created).contains(&to), "{to}");
    assert_eq!(anna.range(hall, 0, Some(to)).len(), 64);
    assert_eq!(anna.range(hall, to + 1, None).len(), 1);
    anna.ask(REQUEST_CHAT_MSG, range_body(hall, 0, Some(i64::MAX)))
        .declined_with_number("too-large");
}

/// A long history is read piece by piece by following `too-large`: all of it, once, in order.
#[test]
fn a_long_history_by_following_too_large() {
    let (_server, mut anna, hall) = alone();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let posted =
            post_messages(&mut anna, hall, (0..100).map(|n| n.to_string().repeat(1 + n * 80)));
        let sent = expect_sent(&mut anna, posted);
        ids.extend(sent.iter().map(|sent| sent.id));
    }
    let history = anna.history(hall);
    let read: Vec<u64> = history.iter().map(|message| message.id).collect();
    assert_eq!(read, ids);
}

/// Several long answers asked for at once come one after the other, whole.
#[test]
fn long_answers_in_a_row() {
    let (_server, mut anna, hall) = alone();
    let content = "x".repeat(16_000);
    let posted = post_messages(&mut anna, hall, (0..60).map(|_| content.clone()));
    expect_sent(&mut anna, posted);
    for _ in 0..5 {
        anna.post(REQUEST_CHAT_MSG, range_body(hall, 0, None));
        anna.post(HEARTBEAT, body().text("between"));
    }
    for _ in 0..5 {
        let pack = Reader::new(&anna.answer().accepted()).messages();
        assert_eq!(pack.len(), 60);
        assert_eq!(anna.answer().accepted(), b"between\0");
    }
}

// MARK_SEEN.

/// MARK_SEEN takes any time: now, later than now, and older than the last one.
#[test]
fn mark_seen_takes_any_time() {
    let (_server, mut anna, hall) = alone();
    let sent = anna.send(hall, "hi");
    for time in [0, sent.created, sent.created - 1, i64::MAX, 1, i64::MAX] {
        anna.ask(MARK_SEEN, body().id(hall).time(time)).accepted_empty();
    }
}

// MSG_NOTIFY.

/// A message reaches every connection of every member but the one that sent it, and nobody else.
#[test]
fn a_message_reaches_the_other_members() {
    let server = hall(&["anna", "boris"]);
    server.add_user("clara");
    let mut sender = server.login("anna");
    let mut members = [server.login("anna"), server.login("boris"), server.login("boris")];
    let mut others = [server.connect(), server.greeted(), server.login("clara")];
    let hall = sender.chat_id("hall");
    let me = sender.user_id("anna");
    let sent = sender.send(hall, "hi");
    for member in &mut members {
        let message = &member.notified(hall, 1)[0];
        assert_eq!(
            (message.id, message.created, message.updated),
            (sent.id, sent.created, sent.created)
        );
        assert_eq!((message.sender, message.status), (me, 0));
        assert_eq!(message.content, "hi");
    }
    sender.expect_quiet();
    for other in &mut others {
        other.expect_quiet();
    }
}

/// What is declined reaches nobody.
#[test]
fn a_declined_send_reaches_nobody() {
    let server = hall(&["anna", "boris"]);
    server.add_user("clara");
    let (mut boris, mut clara) = (server.login("boris"), server.login("clara"));
    let hall = clara.chat_id("hall");
    clara.ask(SEND_CHAT_MSG, body().id(hall).text("let me in")).declined("not-member");
    clara.ask(SEND_CHAT_MSG, body().id(hall).text("")).declined("not-member");
    boris.expect_quiet();
    assert_eq!(boris.history(hall), []);
}

/// Messages of a chat go to its members alone, also when somebody writes in two chats at once.
#[test]
fn nobody_gets_a_byte_of_another_chat() {
    let server = hall(&["anna", "boris"]);
    server.add_user("clara");
    server.add_chat("other", &["anna", "clara"]);
    let mut anna = server.login("anna");
    let (mut boris, mut clara) = (server.login("boris"), server.login("clara"));
    let (hall, other) = (anna.chat_id("hall"), anna.chat_id("other"));
    anna.post_all((0..100).map(|n| {
        let chat = if n % 2 == 0 { hall } else { other };
        (SEND_CHAT_MSG, body().id(chat).text("hi").into())
    }));
    expect_sent(&mut anna, 100);
    boris.notified(hall, 50);
    clara.notified(other, 50);
    boris.expect_quiet();
    clara.expect_quiet();
}

/// The server numbers its notifications 1 to 255 in turn, then 1 again.
#[test]
fn notifications_are_numbered_in_turn() {
    let server = hall(&["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    let mut expected = 1;
    for _ in 0..600 {
        anna.send(hall, "hi");
        let (task, _) = boris.notify(hall);
        assert_eq!(task, expected);
        expected = if task == 255 { 1 } else { task + 1 };
    }
}

/// A client need not answer notifications, and may: an ACCEPTED is only a sign of life.
#[test]
fn notifications_may_be_answered() {
    let server = hall(&["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    for round in 0..20 {
        anna.send(hall, "hi");
        let (task, _) = boris.notify(hall);
        if round % 2 == 0 {
            boris.write_frame(ACCEPTED, task, []);
        }
        boris.expect_quiet();
    }
    boris.send(hall, "still here");
}

/// The client's task numbers and the server's are separate.
#[test]
fn task_numbers_of_both_directions_are_separate() {
    let server = hall(&["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    anna.send(hall, "one");
    let (task, _) = boris.notify(hall);
    boris.write_frame(SEND_CHAT_MSG, task, body().id(hall).text("two"));
    let answer = boris.next_frame().expect("an answer");
    assert_eq!(answer.task, task);
    Sent::read(&answer.accepted());
    assert_eq!(contents(&anna.notified(hall, 1)), ["two"]);
}

// Order.

/// One chat, several members who all send at once: every one of them learns of every message in the
/// order of time, and no answer overtakes notifications of earlier messages.
#[test]
fn everybody_sees_one_order() {
    const SENDERS: usize = 4;
    const EACH: usize = 400;
    let users = ["anna", "boris", "clara", "dora"];
    let server = hall(&users);
    let mut listener = server.login("anna");
    let hall = listener.chat_id("hall");
    let start = Barrier::new(SENDERS);
    let clients: Vec<Client> = users.iter().map(|user| server.login(user)).collect();
    thread::scope(|scope| {
        for client in clients {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                send_and_watch_the_order(client, hall, EACH, SENDERS);
            });
        }
    });
    let heard = listener.notified(hall, SENDERS * EACH);
    assert!(heard.is_sorted_by_key(|message| message.created));
    assert_eq!(heard, listener.history(hall));
}

/// Sends `each` messages in one write, then reads until all messages of all senders are known.
#[track_caller]
fn send_and_watch_the_order(mut client: Client, chat: u32, each: usize, senders: usize) {
    post_messages(&mut client, chat, (0..each).map(|n| n.to_string()));
    let (mut heard, mut own) = (Vec::new(), Vec::new());
    while heard.len() < (senders - 1) * each || own.len() < each {
        let frame = client.next_frame().expect("an answer or a notification");
        if frame.is_answer() {
            own.push(Sent::read(&frame.accepted()));
            continue;
        }
        assert_eq!(frame.purpose, MSG_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        assert_eq!(reader.id(), chat);
        for message in reader.messages() {
            let answered = own.last().map_or(0, |sent| sent.created);
            assert!(message.created > answered, "an answer overtook {message:?}");
            heard.push(message);
        }
    }
    assert!(own.is_sorted_by_key(|sent| sent.created));
    assert!(heard.is_sorted_by_key(|message| message.created));
    let mut ids: HashSet<u64> = heard.iter().map(|message| message.id).collect();
    ids.extend(own.iter().map(|sent| sent.id));
    assert_eq!(ids.len(), senders * each, "a message came twice");
}

/// Somebody who comes back asks from their cursor on and has everything, once, though the others
/// never stopped writing: answer and live notifications together leave no gap.
#[test]
fn coming_back_leaves_no_gap() {
    let server = hall(&["anna", "boris"]);
    let mut boris = server.greeted();
    let session = boris.login("boris");
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let done = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..600 {
                anna.send(hall, &number.to_string());
            }
        });
        let (mut known, mut cursor) = (HashSet::new(), 0);
        while !writer.is_finished() {
            let mut boris = server.greeted();
            boris.restore(&session);
            let missed = boris.range(hall, cursor, None);
            cursor = missed.last().map_or(cursor, |message| message.updated + 1);
            known.extend(missed.iter().map(|message| message.id));
            for frame in boris.drain() {
                if frame.purpose == MSG_NOTIFY {
                    let mut reader = Reader::new(&frame.body);
                    reader.id();
                    for message in reader.messages() {
                        cursor = cursor.max(message.updated + 1);
                        known.insert(message.id);
                    }
                }
            }
        }
        boris = server.greeted();
        boris.restore(&session);
        known.extend(boris.range(hall, cursor, None).iter().map(|m| m.id));
        known
    });
    let all: HashSet<u64> = boris.history(hall).iter().map(|m| m.id).collect();
    assert_eq!(all.len(), 600);
    assert_eq!(done, all);
}

// Slow readers.

/// Somebody who does not read gets everything in the end, once and in order, and what they asked
/// meanwhile is answered after that; the others are not held up.
#[test]
fn a_slow_reader_misses_nothing() {
    const COUNT: usize = 1500;
    let server = hall_with(&["--outbound-limit", "65536"], &["anna", "boris", "clara"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let mut clara = server.login("clara");
    let hall = anna.chat_id("hall");
    let filler = "x".repeat(16_000);
    for chunk in 0..COUNT / 10 {
        let numbers = (0..10).map(|n| format!("{} {filler}", chunk * 10 + n));
        post_messages(&mut anna, hall, numbers);
        expect_sent(&mut anna, 10);
        clara.notified(hall, 10);
    }
    boris.write_frame(HEARTBEAT, 9, body().text("late"));
    let heard = boris.notified(hall, COUNT);
    for (index, message) in heard.iter().enumerate() {
        let number = message.content.split(' ').next();
        assert_eq!(number, Some(index.to_string().as_str()));
    }
    let answer = boris.next_frame().expect("the answer");
    assert_eq!(answer, Frame::new(ACCEPTED, 9, b"late\0"));
    anna.send(hall, "live again");
    assert_eq!(contents(&boris.notified(hall, 1)), ["live again"]);
}

/// Messages written while a slow reader catches up come behind what it missed.
#[test]
fn a_slow_reader_catches_up_while_others_write() {
    const BEFORE: usize = 1000;
    const MEANWHILE: usize = 300;
    let server = hall_with(&["--outbound-limit", "65536"], &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    let filler = "x".repeat(16_000);
    for _ in 0..BEFORE / 10 {
        post_messages(&mut anna, hall, (0..10).map(|_| filler.clone()));
        expect_sent(&mut anna, 10);
    }
    let heard = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MEANWHILE {
                anna.send(hall, "meanwhile");
            }
        });
        boris.notified(hall, BEFORE + MEANWHILE)
    });
    boris.expect_quiet();
    assert!(heard.is_sorted_by_key(|message| message.created));
    let ids: HashSet<u64> = heard.iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), BEFORE + MEANWHILE, "a message came twice");
}

/// A slow reader whose chat is removed meanwhile gets no more of its messages than were on their
/// way, and lives on.
#[test]
fn a_slow_reader_of_a_chat_that_is_removed() {
    let server = hall_with(&["--outbound-limit", "65536"], &["anna", "boris"]);
    server.add_chat("other", &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let (hall, other) = (anna.chat_id("hall"), anna.chat_id("other"));
    let filler = "x".repeat(16_000);
    for _ in 0..100 {
        post_messages(&mut anna, hall, (0..10).map(|_| filler.clone()));
        expect_sent(&mut anna, 10);
    }
    anna.send(other, "kept");
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    eventually(|| anna.ask(GET_CHAT_ID, body().text("hall")).purpose == DECLINED);
    let mut from_other = Vec::new();
    while from_other.is_empty() {
        let frame = boris.expect(MSG_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        if reader.id() == other {
            from_other = reader.messages();
        }
    }
    assert_eq!(contents(&from_other), ["kept"]);
    boris.expect_quiet();
}
