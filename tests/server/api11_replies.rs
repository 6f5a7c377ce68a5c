//! Replies, and pagination in both directions (protocol section 5a).

use crate::support::Server;
use crate::support::api10::*;
use crate::support::api11::*;
use crate::support::wire::*;

/// A reply is shown to 1.1 live and from storage, and to older versions as its text alone. It stays
/// when what it answers is deleted, and goes when it is deleted itself.
#[test]
fn a_reply() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    server.add_user("clara");
    let mut clara = server.login10("clara");
    let hall = anna.create_chat("hall");
    boris.join(hall);
    clara.join(hall);
    let first = anna.send(hall, "first");
    anna.drain();
    boris.drain();
    clara.drain();
    let reply = boris.send_with(hall, "answer", first.id, &[]);
    let live = anna.notified(hall, 1);
    assert_eq!(live[0].extras.reply, Some(first.id));
    assert_eq!(live[0].content, "answer");
    assert_eq!(contents(&clara.notified(hall, 1)), ["answer"]);
    assert_eq!(anna.page(hall, 0, 1), live);
    assert_eq!(anna.updates(reply.created)[0].1, live[0]);
    assert_eq!(anna.search(hall, 5, "answer")[0].1, live[0]);
    boris.edit(hall, reply.id, "edited");
    assert_eq!(anna.notified(hall, 1)[0].extras.reply, Some(first.id));
    anna.delete(hall, first.id);
    assert_eq!(anna.page(hall, 0, 1)[0].extras.reply, Some(first.id));
    boris.delete(hall, reply.id);
    assert_eq!(anna.notified(hall, 1)[0].extras, Extras::default());
    assert_eq!(anna.page(hall, 0, 1)[0].extras, Extras::default());
    server.admin_ok(&["check"], None);
}

/// A reply to what is not there, deleted, or of another chat; a repeated nonce stands for the
/// first.
#[test]
fn replies_declined() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    let other = anna.create_chat("other");
    let there = anna.send(other, "there").id;
    let gone = anna.send(hall, "gone").id;
    anna.delete(hall, gone);
    for reply in [there, gone, 1, u64::MAX] {
        anna.ask(SEND_CHAT_MSG, send_body(hall, "x", 77, reply, &[])).declined("no-such-message");
    }
    // What is wrong with the text comes after what is named.
    anna.ask(SEND_CHAT_MSG, send_body(hall, "", 77, gone, &[])).declined("no-such-message");
    let good = anna.send(hall, "good").id;
    anna.ask(SEND_CHAT_MSG, send_body(hall, "", 77, good, &[])).declined("empty-message");
    let sent = anna.ask(SEND_CHAT_MSG, send_body(hall, "x", 77, good, &[])).accepted();
    let again = anna.ask(SEND_CHAT_MSG, send_body(hall, "x", 77, gone, &[])).accepted();
    assert_eq!(sent, again);
    boris.ask(SEND_CHAT_MSG, send_body(hall, "x", 77, good, &[])).declined("not-member");
    boris.ask(SEND_CHAT_MSG, send_body(99, "x", 77, good, &[])).declined("no-such-chat");
}

/// REQUEST_CHAT_PAGE goes on to newer messages as well.
#[test]
fn pages_of_newer_messages() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let ids: Vec<u64> = (0..10).map(|n| anna.send(hall, &n.to_string()).id).collect();
    let mut newer = |after: u64, limit: u16| -> Vec<u64> {
        let request = body().id(hall).u64(after).u16(limit).u8(1);
        let answer = anna.ask_whole(REQUEST_CHAT_PAGE, request).accepted();
        let pack = anna.reader(&answer).messages();
        pack.iter().map(|message| message.id).collect()
    };
    assert_eq!(newer(0, 3), ids[..3]);
    assert_eq!(newer(ids[2], 3), ids[3..6]);
    assert_eq!(newer(ids[2], 100), ids[3..]);
    assert_eq!(newer(ids[8], 1), ids[9..]);
    for (after, limit) in [(ids[9], 5), (u64::MAX, 5), (0, 0)] {
        assert!(newer(after, limit).is_empty());
    }
    let older = body().id(hall).u64(ids[5]).u16(2).u8(0);
    let answer = anna.ask_whole(REQUEST_CHAT_PAGE, older).accepted();
    assert_eq!(contents(&anna.reader(&answer).messages()), ["3", "4"]);
    anna.ask(REQUEST_CHAT_PAGE, body().id(hall).u64(0).u16(1).u8(2)).declined("malformed");
    let mut old = server.login10("anna");
    old.ask(REQUEST_CHAT_PAGE, body().id(hall).u64(0).u16(1).u8(1)).declined("malformed");
}
