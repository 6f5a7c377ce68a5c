//! Versions 0.1, 1.0 and 1.1 side by side: answers to HELLO and LOGIN, and structures by version
//! (protocol section 5a).

use crate::support::wire::*;
use crate::support::{PASSWORD, Server};

/// HELLO 1.1 says what files, pushes and registrations there are.
#[test]
fn hello_1_1() {
    for (registration, byte) in [("closed", 0), ("invite", 1), ("open", 2)] {
        let server = Server::with(&["--registration", registration]);
        let answer = server.connect().ask(HELLO, body().u8(1).u8(1)).accepted();
        let mut reader = Reader::new(&answer);
        assert_eq!((reader.u8(), reader.u8()), (1, 1));
        assert_eq!(reader.u32(), 64 * 1024, "max_body");
        assert_eq!(reader.u32(), 16 * 1024, "max_content");
        assert!(reader.text().starts_with("vestnik "));
        reader.u64();
        reader.text();
        assert_eq!(reader.u8(), byte, "registration");
        reader.finish();
    }
}

/// LOGIN and RESTORE_SESSION on 1.1 say the user's flags behind the id.
#[test]
fn sessions_say_flags() {
    let server = Server::start();
    server.add_user("anna");
    let mut anna = server.greeted11();
    let answer = anna.ask(LOGIN, body().text("anna").text(PASSWORD)).accepted();
    let mut reader = Reader::new(&answer);
    let (session, hash, user) = (reader.id(), reader.text(), reader.id());
    assert_eq!(reader.u8() & 0x05, 0, "neither operator nor disabled");
    reader.finish();
    let mut again = server.greeted11();
    let answer = again.ask(RESTORE_SESSION, body().id(session).text(&hash)).accepted();
    let mut reader = Reader::new(&answer);
    assert_eq!(reader.id(), user);
    assert_eq!(reader.u8() & 0x05, 0, "neither operator nor disabled");
    reader.finish();
}

/// One chat with members on every version: each gets each message in its own structure, in order,
/// whether it comes live, in a range, in a page, in updates or from a search.
#[test]
fn each_version_gets_its_own_structures() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    server.add_user("clara");
    server.add_user("dora");
    let mut clara = server.login10("clara");
    let mut dora = server.login("dora");
    let hall = anna.create_chat("hall");
    for client in [&mut boris, &mut clara, &mut dora] {
        client.join(hall);
    }
    let info = boris.chat(hall);
    assert_eq!((info.flags, info.notify), (0x02, 0));
    assert_eq!(clara.chat(hall), info);
    assert_eq!(boris.my_chats(), std::slice::from_ref(&info));
    assert_eq!(boris.find_chats("ha", 5), [info]);
    for client in [&mut anna, &mut boris, &mut clara, &mut dora] {
        client.drain();
    }
    let one = anna.send(hall, "first words");
    let two = dora.send(hall, "second");
    anna.edit(hall, one.id, "other words");
    anna.delete(hall, one.id);
    let expected = ["first words", "second", "other words", ""];
    assert_eq!(contents(&boris.notified(hall, 4)), expected);
    assert_eq!(contents(&clara.notified(hall, 4)), expected);
    assert_eq!(contents(&dora.notified(hall, 3)), ["first words", "other words", ""]);
    assert_eq!(contents(&anna.notified(hall, 1)), ["second"]);
    let kept = boris.range(hall, 0, None);
    assert_eq!(contents(&kept), ["second", ""]);
    for client in [&mut anna, &mut clara, &mut dora] {
        assert_eq!(client.range(hall, 0, None), kept);
    }
    for client in [&mut anna, &mut boris, &mut clara] {
        assert_eq!(client.updates(0).len(), 2);
        assert_eq!(contents(&client.page(hall, 0, 5)), ["", "second"]);
        assert_eq!(client.search(hall, 5, "second")[0].1.id, two.id);
    }
}

/// Several messages of several senders in one turn: who sends gets those before its own in the
/// structure of its version, and the rest afterwards.
#[test]
fn a_turn_of_many_senders_keeps_the_order_on_every_version() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    server.add_user("clara");
    let mut clara = server.login10("clara");
    let hall = anna.create_chat("hall");
    boris.join(hall);
    clara.join(hall);
    for client in [&mut anna, &mut boris, &mut clara] {
        client.drain();
    }
    for round in 0..30_u64 {
        for client in [&mut anna, &mut boris, &mut clara] {
            for part in 0..3 {
                let text = format!("{round} {part}");
                client.post(SEND_CHAT_MSG, body().id(hall).text(&text).u64(round * 8 + part));
            }
        }
    }
    for _ in 0..90 {
        for client in [&mut anna, &mut boris, &mut clara] {
            client.answer().accepted();
        }
    }
    let whole = clara.range(hall, 0, None);
    assert_eq!(whole.len(), 270);
    for client in [&mut anna, &mut boris, &mut clara] {
        assert_eq!(client.range(hall, 0, None), whole);
        let own: Vec<_> = client.notified(hall, 180);
        assert!(own.windows(2).all(|pair| pair[0].updated < pair[1].updated));
        assert!(own.iter().all(|message| whole.contains(message)));
        client.expect_quiet();
    }
}

/// On 1.1 the nonce is always there, and extras are read; on 1.0 bytes behind it are malformed.
#[test]
fn sends_by_version() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    let hall = anna.create_chat("hall");
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("hi")).declined("malformed");
    let first = anna.ask(SEND_CHAT_MSG, body().id(hall).text("hi").u64(0)).accepted();
    let again = anna.ask(SEND_CHAT_MSG, body().id(hall).text("hi").u64(0)).accepted();
    assert_eq!(first, again, "0 is a nonce like any other");
    for bad in [vec![9, 0, 0], vec![1, 8, 0], vec![1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0], vec![2]] {
        let request = body().id(hall).text("hi").u64(1).bytes(&bad);
        anna.ask(SEND_CHAT_MSG, request).declined("malformed");
    }
    let mut old = server.login10("anna");
    old.ask(SEND_CHAT_MSG, body().id(hall).text("hi").u64(1).u8(1)).declined("malformed");
}
