//! Nonces (idempotency keys), edits, deletions, pagination, updates, and streamed answers in PARTs
//! (protocol section 5).

use std::collections::BTreeMap;
use std::slice::from_ref;

use crate::support::api10::*;
use crate::support::api11::Extras;
use crate::support::client::range_body;
use crate::support::wire::*;
use crate::support::{Client, Server};

const EDITED: u8 = 0x01;
const DELETED: u8 = 0x02;
const CONTENT_BYTES_MAX: usize = 16 * 1024;

/// anna made `hall` and is its admin, boris and clara are members of it.
struct Hall {
    server: Server,
    anna: Client,
    boris: Client,
    clara: Client,
    chat: u32,
}

fn hall() -> Hall {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _), (mut clara, _)] =
        server.users10(["anna", "boris", "clara"]);
    let chat = anna.create_chat("hall");
    boris.join(chat);
    clara.join(chat);
    for client in [&mut anna, &mut boris, &mut clara] {
        client.drain();
    }
    Hall { server, anna, boris, clara, chat }
}

#[track_caller]
fn send_many(client: &mut Client, chat: u32, contents: impl Iterator<Item = String>) -> Vec<Sent> {
    let requests = contents.map(|content| {
        let request = body().id(chat).text(&content);
        (SEND_CHAT_MSG, request.into())
    });
    let count = client.post_all(requests);
    (0..count).map(|_| Sent::read(&client.answer().accepted())).collect()
}

fn found(results: &[(u32, Message)]) -> Vec<&str> {
    let mut contents: Vec<&str> =
        results.iter().map(|(_, message)| message.content.as_str()).collect();
    contents.sort_unstable();
    contents
}

// Nonces.

/// The same nonce again gives the first message, stores nothing and shows nobody.
#[test]
fn a_nonce_makes_a_send_safe_to_repeat() {
    let mut hall = hall();
    for nonce in [0, 1, u64::MAX, 1 << 63] {
        let content = format!("nonce {nonce}");
        let first = hall.anna.send_with_nonce(hall.chat, &content, nonce);
        assert_eq!(contents(&hall.boris.notified(hall.chat, 1)), [content]);
        for again in ["another content", "", &"x".repeat(CONTENT_BYTES_MAX + 1)] {
            let repeated = hall.anna.send_with_nonce(hall.chat, again, nonce);
            assert_eq!(repeated, first);
        }
        hall.boris.expect_quiet();
    }
    assert_eq!(hall.anna.history(hall.chat).len(), 4);
}

/// A nonce is good across connections, sessions and restarts of the server.
#[test]
fn nonces_survive_a_kill() {
    let mut hall = hall();
    let first = hall.anna.send_with_nonce(hall.chat, "hi", 7);
    let other = hall.server.login10("anna").send_with_nonce(hall.chat, "hi", 7);
    assert_eq!(other, first);
    hall.server.kill();
    hall.server.restart();
    let mut anna = hall.server.login10("anna");
    assert_eq!(anna.send_with_nonce(hall.chat, "hi", 7), first);
    assert_eq!(anna.history(hall.chat).len(), 1);
}

/// A nonce belongs to a user and a chat.
#[test]
fn nonces_belong_to_a_user_and_a_chat() {
    let mut hall = hall();
    let other = hall.anna.create_chat("other");
    let sent = [
        hall.anna.send_with_nonce(hall.chat, "one", 7),
        hall.boris.send_with_nonce(hall.chat, "two", 7),
        hall.anna.send_with_nonce(other, "three", 7),
        hall.anna.send_with_nonce(hall.chat, "four", 8),
        hall.anna.send(hall.chat, "five"),
    ];
    assert!(sent.is_sorted_by(|a, b| a.id < b.id), "{sent:?}");
}

/// Two sends with one nonce in one write make one message.
#[test]
fn a_nonce_twice_in_one_write() {
    let mut hall = hall();
    let request = || {
        let request = body().id(hall.chat).text("hi").u64(7);
        (SEND_CHAT_MSG, request.into())
    };
    hall.anna.post_all([request(), request()]);
    let first = Sent::read(&hall.anna.answer().accepted());
    assert_eq!(Sent::read(&hall.anna.answer().accepted()), first);
    hall.boris.notified(hall.chat, 1);
    hall.boris.expect_quiet();
}

/// A declined send does not use its nonce up; membership is checked before the nonce is.
#[test]
fn nonces_and_declines() {
    let mut hall = hall();
    let send = |client: &mut Client, content: &str| {
        client.ask(SEND_CHAT_MSG, body().id(hall.chat).text(content).u64(7))
    };
    send(&mut hall.anna, "").declined("empty-message");
    send(&mut hall.anna, &"x".repeat(CONTENT_BYTES_MAX + 1)).declined("too-long");
    hall.anna.send_with_nonce(hall.chat, "hi", 7);
    hall.boris.send_with_nonce(hall.chat, "hi", 7);
    hall.boris.leave(hall.chat);
    send(&mut hall.boris, "hi").declined("not-member");
}

/// The nonce of a message that was deleted since still gives its id and time.
#[test]
fn a_nonce_of_a_deleted_message() {
    let mut hall = hall();
    let first = hall.anna.send_with_nonce(hall.chat, "hi", 7);
    hall.anna.delete(hall.chat, first.id);
    assert_eq!(hall.anna.send_with_nonce(hall.chat, "hi", 7), first);
}

// EDIT_MSG and DELETE_MSG.

/// An edit is notified to the members on both versions, and moves the message to the time of the
/// edit.
#[test]
fn edit_msg() {
    let mut hall = hall();
    let mut old = hall.server.login("boris");
    let one = hall.anna.send(hall.chat, "one");
    let two = hall.anna.send(hall.chat, "two");
    let me = hall.anna.user_id("anna");
    hall.boris.drain();
    old.drain();
    let updated = hall.anna.edit(hall.chat, one.id, "один");
    assert!(updated > two.created);
    let expected = Message {
        id: one.id,
        sender: me,
        created: one.created,
        updated,
        status: EDITED,
        content: "один".to_owned(),
        extras: Extras::default(),
    };
    assert_eq!(hall.boris.notified(hall.chat, 1), from_ref(&expected));
    assert_eq!(old.notified(hall.chat, 1), from_ref(&expected));
    hall.anna.expect_quiet();
    assert_eq!(contents(&old.range(hall.chat, 0, None)), ["two", "один"]);
    assert_eq!(old.range(hall.chat, updated, None), from_ref(&expected));
    assert_eq!(old.range(hall.chat, one.created, Some(one.created)), []);
    let page = hall.anna.page(hall.chat, 0, 10);
    assert_eq!(contents(&page), ["один", "two"], "a page is by id");
    let again = hall.anna.edit(hall.chat, one.id, "uno");
    assert!(again > updated);
    assert_eq!(hall.anna.range(hall.chat, updated, Some(updated)), []);
}

/// A deletion is notified likewise; the entry stays, empty, for ranges and pages.
#[test]
fn delete_msg() {
    let mut hall = hall();
    let mut old = hall.server.login("boris");
    let one = hall.anna.send(hall.chat, "one");
    let two = hall.anna.send(hall.chat, "two");
    hall.anna.edit(hall.chat, two.id, "zwei");
    old.drain();
    for (sent, status) in [(one, DELETED), (two, EDITED | DELETED)] {
        let updated = hall.anna.delete(hall.chat, sent.id);
        let got = &old.notified(hall.chat, 1)[0];
        assert_eq!((got.id, got.created), (sent.id, sent.created));
        assert_eq!((got.updated, got.status), (updated, status));
        assert_eq!(got.content, "");
        assert_eq!(hall.anna.range(hall.chat, updated, None), from_ref(got));
    }
    assert_eq!(contents(&hall.anna.range(hall.chat, 0, None)), ["", ""]);
    assert_eq!(contents(&hall.anna.page(hall.chat, 0, 10)), ["", ""]);
}

/// A message is edited by its author alone, and deleted by its author or an admin.
#[test]
fn who_may_edit_and_delete() {
    let mut hall = hall();
    let sent = hall.boris.send(hall.chat, "by boris");
    let edit = || body().id(hall.chat).u64(sent.id).text("new");
    let delete = || body().id(hall.chat).u64(sent.id);
    hall.anna.ask(EDIT_MSG, edit()).declined("forbidden");
    hall.clara.ask(EDIT_MSG, edit()).declined("forbidden");
    hall.clara.ask(DELETE_MSG, delete()).declined("forbidden");
    hall.boris.edit(hall.chat, sent.id, "by boris again");
    hall.anna.delete(hall.chat, sent.id);
    let other = hall.boris.send(hall.chat, "by boris");
    hall.boris.delete(hall.chat, other.id);
}

/// Who left is no member, though they wrote the message.
#[test]
fn authors_who_left_may_not() {
    let mut hall = hall();
    let sent = hall.boris.send(hall.chat, "by boris");
    hall.boris.leave(hall.chat);
    let request = || body().id(hall.chat).u64(sent.id);
    hall.boris.ask(EDIT_MSG, request().text("new")).declined("not-member");
    hall.boris.ask(DELETE_MSG, request()).declined("not-member");
}

/// No such message: an id that none has, one of another chat, and one that is deleted.
#[test]
fn no_such_message() {
    let mut hall = hall();
    let other = hall.anna.create_chat("other");
    let elsewhere = hall.anna.send(other, "elsewhere");
    let deleted = hall.anna.send(hall.chat, "deleted");
    hall.anna.delete(hall.chat, deleted.id);
    for id in [1, elsewhere.id, deleted.id, u64::MAX, 1 << 63] {
        let request = || body().id(hall.chat).u64(id);
        hall.anna.ask(EDIT_MSG, request().text("new")).declined("no-such-message");
        hall.anna.ask(EDIT_MSG, request().text("")).declined("no-such-message");
        hall.anna.ask(DELETE_MSG, request()).declined("no-such-message");
    }
}

/// The new content is bound like that of a new message; who may not edit is notified that first.
#[test]
fn edited_contents_are_bound() {
    let mut hall = hall();
    let sent = hall.anna.send(hall.chat, "hi");
    let edit = |content: &str| body().id(hall.chat).u64(sent.id).text(content);
    let too_long = "x".repeat(CONTENT_BYTES_MAX + 1);
    hall.anna.ask(EDIT_MSG, edit("")).declined("empty-message");
    hall.anna.ask(EDIT_MSG, edit(&too_long)).declined("too-long");
    hall.boris.ask(EDIT_MSG, edit("")).declined("forbidden");
    hall.boris.drain();
    hall.anna.edit(hall.chat, sent.id, &"x".repeat(CONTENT_BYTES_MAX));
    hall.boris.notified(hall.chat, 1);
}

/// Edits and deletions are there after a kill.
#[test]
fn edits_and_deletions_survive_a_kill() {
    let mut hall = hall();
    let (one, two) = (hall.anna.send(hall.chat, "one"), hall.anna.send(hall.chat, "two"));
    hall.anna.delete(hall.chat, one.id);
    let edited = hall.anna.edit(hall.chat, two.id, "zwei");
    let before = hall.anna.history(hall.chat);
    hall.server.kill();
    hall.server.restart();
    let mut anna = hall.server.login10("anna");
    assert_eq!(anna.history(hall.chat), before);
    assert!(anna.send(hall.chat, "three").created > edited);
}

// REQUEST_CHAT_PAGE.

/// A page is the newest `limit` messages older than `before`, ascending; 0 is from the newest on.
#[test]
fn request_chat_page() {
    let mut hall = hall();
    let sent = send_many(&mut hall.anna, hall.chat, (0..10).map(|n| n.to_string()));
    let mut page = |before: u64, limit: u16| {
        let page = hall.boris.page(hall.chat, before, limit);
        contents(&page).join(" ")
    };
    assert_eq!(page(0, 3), "7 8 9");
    assert_eq!(page(sent[7].id, 3), "4 5 6");
    assert_eq!(page(sent[2].id, 3), "0 1");
    assert_eq!(page(sent[0].id, 3), "");
    assert_eq!(page(u64::MAX, 2), "8 9");
    assert_eq!(page(sent[5].id + 1, 1), "5");
    assert_eq!(page(0, 100), "0 1 2 3 4 5 6 7 8 9");
    assert_eq!(page(0, 0), "");
}

/// Page after page a whole chat is read backwards.
#[test]
fn pages_read_a_chat_backwards() {
    let mut hall = hall();
    send_many(&mut hall.anna, hall.chat, (0..250).map(|n| n.to_string()));
    let (mut all, mut before) = (Vec::new(), 0);
    loop {
        let mut page = hall.boris.page(hall.chat, before, 60);
        let Some(first) = page.first() else { break };
        before = first.id;
        page.append(&mut all);
        all = page;
    }
    assert_eq!(all, hall.boris.history(hall.chat));
}

/// A page of the longest messages is long, and comes whole.
#[test]
fn a_page_of_long_messages() {
    let mut hall = hall();
    let content = "x".repeat(CONTENT_BYTES_MAX);
    send_many(&mut hall.anna, hall.chat, (0..200).map(|_| content.clone()));
    assert_eq!(hall.boris.page(hall.chat, 0, u16::MAX).len(), 200);
}

// REQUEST_UPDATES.

/// Everything of my chats that was updated from then on: chat after chat, ascending within each.
#[test]
fn request_updates() {
    let mut hall = hall();
    let mine = hall.boris.create_chat("mine");
    let other = hall.anna.create_chat("other");
    let one = hall.anna.send(hall.chat, "one");
    let two = hall.boris.send(mine, "two");
    hall.anna.send(other, "of others");
    let three = hall.anna.send(hall.chat, "three");
    let edited = hall.anna.edit(hall.chat, one.id, "edited");
    let grouped = |updates: &[(u32, Message)]| {
        let mut chats: Vec<u32> = updates.iter().map(|(chat, _)| *chat).collect();
        chats.dedup();
        let distinct: BTreeMap<u32, ()> = chats.iter().map(|chat| (*chat, ())).collect();
        assert_eq!(distinct.len(), chats.len(), "not chat after chat");
        assert!(updates.is_sorted_by(|(a, m), (b, n)| a != b || m.updated < n.updated));
    };
    let all = hall.boris.updates(0);
    grouped(&all);
    assert_eq!(found(&all), ["edited", "three", "two"]);
    let late = hall.boris.updates(two.created + 1);
    assert_eq!(found(&late), ["edited", "three"]);
    assert_eq!(found(&hall.boris.updates(three.created)), ["edited", "three"]);
    assert_eq!(found(&hall.boris.updates(edited)), ["edited"]);
    assert_eq!(hall.boris.updates(edited + 1), []);
    assert_eq!(hall.boris.updates(i64::MAX), []);
}

/// A cursor over all chats: what I know up to T and the updates from T + 1 are everything, edits
/// and deletions included.
#[test]
fn what_i_know_and_the_updates_are_everything() {
    let mut hall = hall();
    let chats = [hall.chat, hall.boris.create_chat("mine")];
    hall.anna.join(chats[1]);
    let mut known: BTreeMap<u64, Message> = BTreeMap::new();
    let (mut cursor, mut ids): (i64, Vec<(u32, u64)>) = (0, Vec::new());
    let mut dice: u64 = 0x5eed;
    for _ in 0..30 {
        for _ in 0..8 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = (dice >> 33) as usize;
            match (pick % 4, ids.is_empty()) {
                (0, false) => {
                    let (chat, id) = ids[pick % ids.len()];
                    hall.anna.edit(chat, id, &format!("edited {pick}"));
                }
                (1, false) => {
                    let (chat, id) = ids.swap_remove(pick % ids.len());
                    hall.anna.delete(chat, id);
                }
                _ => {
                    let chat = chats[pick / 4 % 2];
                    let sent = hall.anna.send(chat, &format!("sent {pick}"));
                    ids.push((chat, sent.id));
                }
            }
        }
        for (_, message) in hall.boris.updates(cursor) {
            cursor = cursor.max(message.updated + 1);
            known.insert(message.id, message);
        }
        let mut everything: BTreeMap<u64, Message> = BTreeMap::new();
        for chat in chats {
            let history = hall.boris.history(chat);
            everything.extend(history.into_iter().map(|m| (m.id, m)));
        }
        assert_eq!(known, everything);
    }
}

// Long answers.

/// On 1.0 a range of any length comes in PARTs, each of which holds whole entries, and the answer
/// to a later request comes after its end.
#[test]
fn long_ranges_come_in_parts() {
    let mut hall = hall();
    let content = "x".repeat(16_000);
    let sent = send_many(&mut hall.anna, hall.chat, (0..300).map(|_| content.clone()));
    hall.boris.drain();
    hall.boris.post(REQUEST_CHAT_MSG, range_body(hall.chat, 0, None));
    hall.boris.post(HEARTBEAT, body().text("after"));
    let (mut ids, mut parts) = (Vec::new(), 0);
    loop {
        let frame = hall.boris.answer();
        let pack = Reader::new(&frame.body).messages();
        ids.extend(pack.iter().map(|message| message.id));
        if frame.purpose == ACCEPTED {
            break;
        }
        assert_eq!(frame.purpose, PART);
        assert!(!frame.body.is_empty(), "an empty PART");
        parts += 1;
    }
    assert!(parts > 1, "4.8 MB in one frame");
    let expected: Vec<u64> = sent.iter().map(|sent| sent.id).collect();
    assert_eq!(ids, expected);
    assert_eq!(hall.boris.answer().accepted(), b"after\0");
}

/// What a long answer covers is fixed when it is asked for: what is sent or edited meanwhile comes
/// as a notification, and together nothing is missing.
#[test]
fn what_a_long_answer_covers() {
    let mut hall = hall();
    hall.boris.take_little(64 * 1024);
    let content = "x".repeat(16_000);
    let sent = send_many(&mut hall.anna, hall.chat, (0..700).map(|_| content.clone()));
    hall.boris.drain();
    hall.boris.post(REQUEST_CHAT_MSG, range_body(hall.chat, 0, None));
    // Nothing of it is read yet: most of the answer waits for room.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let last = sent.last().expect("messages").id;
    let edited = hall.anna.edit(hall.chat, last, "edited");
    let late = hall.anna.send(hall.chat, "late");
    let answer = hall.boris.whole_answer().accepted();
    let pack = Reader::new(&answer).messages();
    assert!(pack.iter().all(|message| message.updated < edited));
    assert!(pack.len() >= 699, "{} entries", pack.len());
    assert!(pack.iter().all(|message| message.id != late.id));
    let got = hall.boris.notified(hall.chat, 2);
    assert_eq!(contents(&got), ["edited", "late"]);
    let mut ids: Vec<u64> = pack.iter().chain(&got).map(|m| m.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 701);
}

/// An answer breaks off with `not-member` when the membership ends in the middle of it.
#[test]
fn a_long_answer_breaks_off() {
    let mut hall = hall();
    hall.boris.take_little(64 * 1024);
    let content = "x".repeat(16_000);
    for _ in 0..10 {
        send_many(&mut hall.anna, hall.chat, (0..100).map(|_| content.clone()));
        hall.boris.drain();
    }
    let his = hall.anna.user_id("boris");
    hall.boris.post(REQUEST_CHAT_MSG, range_body(hall.chat, 0, None));
    std::thread::sleep(std::time::Duration::from_millis(100));
    hall.anna.set_ban(hall.chat, his, true).accepted_empty();
    hall.boris.whole_answer().declined("not-member");
    hall.boris.drain();
    hall.boris.my_chats();
}

/// The updates of everything are as long as they must be.
#[test]
fn long_updates() {
    let mut hall = hall();
    let mine = hall.boris.create_chat("mine");
    let content = "x".repeat(16_000);
    for chat in [hall.chat, mine] {
        send_many(&mut hall.boris, chat, (0..150).map(|_| content.clone()));
    }
    assert_eq!(hall.boris.updates(0).len(), 300);
}
