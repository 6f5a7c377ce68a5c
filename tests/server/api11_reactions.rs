//! REACT, GET_REACTIONS and REACTION_NOTIFY (protocol section 5a).

use crate::support::api10::*;
use crate::support::api11::*;
use crate::support::wire::*;
use crate::support::{Client, Server};

struct Hall {
    server: Server,
    anna: Client,
    boris: Client,
    /// On 1.0.
    clara: Client,
    boris_id: u32,
    chat: u32,
    message: Sent,
}

fn hall() -> Hall {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    server.add_user("clara");
    let mut clara = server.login10("clara");
    let chat = anna.create_chat("hall");
    boris.join(chat);
    clara.join(chat);
    let message = anna.send(chat, "hi");
    for client in [&mut anna, &mut boris, &mut clara] {
        client.drain();
    }
    Hall { server, anna, boris, clara, boris_id, chat, message }
}

fn react_body(chat: u32, message: u64, on: u8, emoji: &str) -> Body {
    body().id(chat).u64(message).u8(on).text(emoji)
}

/// A reaction moves `updated`, is notified to 1.1 alone, and stands in every answer of 1.1.
#[test]
fn a_reaction() {
    let Hall { server, mut anna, mut boris, mut clara, boris_id, chat, message } = hall();
    let updated = boris.react(chat, message.id, true, "👍");
    assert!(updated > message.created);
    let change = anna.reaction_notify();
    let expected = ReactionChange {
        chat,
        message: message.id,
        updated,
        user: boris_id,
        on: true,
        emoji: "👍".to_owned(),
    };
    assert_eq!(change, expected);
    boris.expect_quiet();
    clara.expect_quiet();
    let shown = ReactionEntry { emoji: "👍".to_owned(), count: 1, shown: vec![boris_id] };
    let kept = anna.range(chat, 0, None);
    assert_eq!((kept[0].updated, kept[0].status), (updated, 0));
    assert_eq!(kept[0].extras.reactions, [shown]);
    assert_eq!(anna.page(chat, 0, 1), kept);
    assert_eq!(anna.updates(updated), [(chat, kept[0].clone())]);
    assert_eq!(clara.updates(updated)[0].1.updated, updated);
    assert_eq!(anna.reactions(chat, message.id), [(boris_id, "👍".to_owned())]);
    // What is so already changes nothing and shows nobody.
    assert_eq!(boris.react(chat, message.id, true, "👍"), updated);
    assert_eq!(boris.react(chat, message.id, false, "👎"), updated);
    anna.expect_quiet();
    let off = boris.react(chat, message.id, false, "👍");
    let expected = ReactionChange { updated: off, on: false, ..expected };
    assert_eq!(anna.reaction_notify(), expected);
    assert_eq!(anna.page(chat, 0, 1)[0].extras.reactions, []);
    assert_eq!(anna.reactions(chat, message.id), []);
    server.admin_ok(&["check"], None);
}

/// Each decline, in the order of the checks.
#[test]
fn reactions_declined() {
    let Hall { server, mut anna, mut boris, mut clara, chat, message, .. } = hall();
    let mut dora = server.users11(["dora"]).map(|(client, _)| client);
    let dora = &mut dora[0];
    dora.ask(REACT, react_body(chat, message.id, 1, "a")).declined("not-member");
    dora.ask(GET_REACTIONS, body().id(chat).u64(message.id)).declined("not-member");
    anna.ask(REACT, react_body(99, message.id, 1, "a")).declined("no-such-chat");
    anna.ask(REACT, react_body(chat, 1, 1, "")).declined("no-such-message");
    anna.ask(GET_REACTIONS, body().id(chat).u64(1)).declined("no-such-message");
    for bad in ["", "a b", "a\n", &"x".repeat(33)] {
        anna.ask(REACT, react_body(chat, message.id, 1, bad)).declined("bad-name");
    }
    anna.ask(REACT, react_body(chat, message.id, 2, "a")).declined("malformed");
    anna.ask(REACT, react_body(chat, 0, 1, "a")).declined("malformed");
    anna.ask(REACT, react_body(chat, message.id, 1, "a").u8(0)).declined("malformed");
    clara.ask(REACT, react_body(chat, message.id, 1, "a")).declined("unknown-purpose");
    clara.ask(GET_REACTIONS, body().id(chat).u64(message.id)).declined("unknown-purpose");
    for n in 0..20 {
        boris.react(chat, message.id, true, &format!("e{n}"));
    }
    anna.ask(REACT, react_body(chat, message.id, 1, "one more")).declined("bad-name");
    anna.ask(REACT, react_body(chat, message.id, 1, "one-more")).declined("too-many");
    anna.react(chat, message.id, true, "e7");
    for n in 0..10 {
        boris.react(chat, message.id, false, &format!("e{n}"));
    }
    let wait = boris.ask(REACT, react_body(chat, message.id, 1, "e1"));
    assert!((1..=10).contains(&wait.declined_with_number("rate-limited")));
    // What changes nothing is not counted.
    boris.react(chat, message.id, false, "e1");
    anna.delete(chat, message.id);
    anna.ask(REACT, react_body(chat, message.id, 1, "e7")).declined("no-such-message");
    assert_eq!(anna.page(chat, 0, 1)[0].extras, Extras::default());
    server.admin_ok(&["check"], None);
}

/// Reactions keep their place among messages, and their answer comes after what was before it.
#[test]
fn reactions_and_messages_come_in_the_order_of_time() {
    let Hall { server: _server, mut anna, mut boris, chat, message, .. } = hall();
    for round in 0..10_u64 {
        anna.post(SEND_CHAT_MSG, body().id(chat).text("x").u64(round));
        anna.post(REACT, react_body(chat, message.id, (round % 2) as u8 ^ 1, "+"));
        boris.post(SEND_CHAT_MSG, body().id(chat).text("y").u64(round));
        boris.post(REACT, react_body(chat, message.id, (round % 2) as u8 ^ 1, "-"));
    }
    for client in [&mut anna, &mut boris] {
        for _ in 0..20 {
            client.answer().accepted();
        }
        let mut last = 0;
        let frames = client.drain();
        assert_eq!(frames.iter().filter(|frame| frame.purpose == REACTION_NOTIFY).count(), 10);
        for frame in frames {
            let mut reader = Reader::of(true, &frame.body);
            reader.id();
            let times = if frame.purpose == REACTION_NOTIFY {
                reader.u64();
                vec![reader.time()]
            } else {
                reader.messages().iter().map(|message| message.updated).collect()
            };
            for time in times {
                assert!(time > last, "out of order");
                last = time;
            }
        }
    }
}

/// More than twenty gave it: who is shown is known to all again by a MSG_NOTIFY.
#[test]
fn the_twenty_first_is_shown_when_one_of_the_first_takes_it_back() {
    let Hall { server, mut anna, mut clara, chat, message, .. } = hall();
    let mut many = Vec::new();
    for n in 0..22 {
        let name = format!("user{n}");
        server.add_user(&name);
        let mut client = server.login11(&name);
        client.join(chat);
        client.react(chat, message.id, true, "+");
        many.push(client);
    }
    anna.drain();
    clara.drain();
    let shown = anna.page(chat, 0, 1)[0].extras.reactions[0].clone();
    assert_eq!((shown.count, shown.shown.len()), (22, 20));
    many[20].react(chat, message.id, false, "+");
    assert!(!anna.reaction_notify().on, "it was not among those shown");
    let updated = many[0].react(chat, message.id, false, "+");
    let got = anna.notified(chat, 1);
    assert_eq!(got[0].updated, updated);
    assert_eq!(got, anna.page(chat, 0, 1));
    assert_eq!(got[0].extras.reactions[0].shown.len(), 20);
    many[1].react(chat, message.id, false, "+");
    assert!(!anna.reaction_notify().on, "all who gave it are shown");
    assert_eq!(anna.reactions(chat, message.id).len(), 19);
    clara.expect_quiet();
}

/// A slow consumer gets the message in place of what it missed, in the order of time.
#[test]
fn a_slow_consumer_gets_the_message() {
    let server = Server::with(&["--outbound-limit", "65536"]);
    let [(mut anna, _), (mut slow, _)] = server.users11(["anna", "slow"]);
    server.add_user("old");
    let chat = anna.create_chat("hall");
    slow.join(chat);
    let mut old = server.login10("old");
    old.join(chat);
    let first = anna.send(chat, "first");
    slow.drain();
    old.drain();
    slow.take_little(64 * 1024);
    old.take_little(64 * 1024);
    let long = "x".repeat(16_000);
    for _ in 0..300 {
        anna.send(chat, &long);
    }
    let updated = anna.react(chat, first.id, true, "+");
    let last = anna.send(chat, "last");
    for (client, is_11) in [(&mut slow, true), (&mut old, false)] {
        let mut messages = Vec::new();
        while messages.last().is_none_or(|message: &Message| message.id != last.id) {
            messages.extend(client.notify(chat).1);
        }
        let reacted = messages.iter().find(|message| message.id == first.id);
        if is_11 {
            let reacted = reacted.expect("what it missed");
            assert_eq!(reacted.updated, updated);
            assert_eq!(reacted.extras.reactions[0].emoji, "+");
        }
        assert!(messages.windows(2).all(|pair| pair[0].updated < pair[1].updated));
    }
}

/// While a range goes out, a message that is reacted to leaves it and comes as MSG_NOTIFY, on every
/// version.
#[test]
fn a_reaction_during_a_range() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    let chat = anna.create_chat("hall");
    let long = "x".repeat(16_000);
    let ids: Vec<Sent> = (0..600).map(|_| anna.send(chat, &long)).collect();
    for name in ["boris", "clara"] {
        server.add_user(name);
    }
    let mut clients = [server.login11("boris"), server.login10("clara")];
    for client in &mut clients {
        client.ignore(MEMBER_NOTIFY);
        client.join(chat);
        client.take_little(64 * 1024);
        client.post(REQUEST_CHAT_MSG, body().id(chat).time(0));
    }
    // The answers have begun, and go on as their clients read.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let last = ids[599];
    let updated = anna.react(chat, last.id, true, "+");
    for client in &mut clients {
        let pack = client.whole_answer().accepted();
        let range = client.reader(&pack).messages();
        assert!(range.len() >= 599);
        if range.iter().all(|message| message.id != last.id) {
            let got = client.notified(chat, 1);
            assert_eq!((got[0].id, got[0].updated), (last.id, updated));
        }
    }
}
