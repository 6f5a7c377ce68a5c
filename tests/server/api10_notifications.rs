//! Notifications of markers, typing, presence and commands; API 0.1 gets none of them (protocol
//! section 5).

use crate::support::api10::*;
use crate::support::wire::*;
use crate::support::{Client, Server};

/// anna and boris in `hall`, clara in no chat.
struct Hall {
    server: Server,
    anna: Client,
    boris: Client,
    clara: Client,
    chat: u32,
    ids: [u32; 3],
}

fn hall() -> Hall {
    let server = Server::start();
    let [(mut anna, annas), (mut boris, his), (clara, hers)] =
        server.users10(["anna", "boris", "clara"]);
    let chat = anna.create_chat("hall");
    boris.join(chat);
    anna.drain();
    boris.drain();
    let ids = [annas, his, hers];
    Hall { server, anna, boris, clara, chat, ids }
}

// SEEN_NOTIFY.

/// A marker that moved is notified to the members and to the own other connections, on 1.0.
#[test]
fn a_moved_marker_is_notified() {
    let mut hall = hall();
    let (mut phone, mut old) = (hall.server.login10("boris"), hall.server.login("anna"));
    let sent = hall.anna.send(hall.chat, "hi");
    for client in [&mut hall.boris, &mut phone, &mut old] {
        client.drain();
    }
    let mut mark = |time: i64| {
        hall.boris.ask(MARK_SEEN, body().id(hall.chat).time(time)).accepted_empty();
    };
    mark(sent.created);
    hall.anna.expect_seen(hall.chat, hall.ids[1], sent.created);
    phone.expect_seen(hall.chat, hall.ids[1], sent.created);
    mark(sent.created);
    mark(1);
    hall.anna.expect_quiet();
    phone.expect_quiet();
    old.expect_quiet();
    hall.clara.expect_quiet();
    hall.boris.expect_quiet();
}

/// A marker in the future is notified as what it became: now.
#[test]
fn a_marker_in_the_future_is_notified_as_now() {
    let mut hall = hall();
    hall.boris.ask(MARK_SEEN, body().id(hall.chat).time(i64::MAX)).accepted_empty();
    let seen = hall.boris.chat(hall.chat).seen;
    assert!(seen < i64::MAX);
    hall.anna.expect_seen(hall.chat, hall.ids[1], seen);
}

/// A marker that is moved on 0.1 is notified on 1.0.
#[test]
fn a_marker_moved_on_0_1_is_notified() {
    let mut hall = hall();
    let mut old = hall.server.login("boris");
    let sent = hall.anna.send(hall.chat, "hi");
    old.ask(MARK_SEEN, body().id(hall.chat).time(sent.created)).accepted_empty();
    hall.anna.expect_seen(hall.chat, hall.ids[1], sent.created);
}

// TYPING.

/// Typing is notified to the other members and not to any connection of the typist.
#[test]
fn typing_is_notified_to_the_others() {
    let mut hall = hall();
    let (mut phone, mut old) = (hall.server.login10("anna"), hall.server.login("boris"));
    hall.anna.ask(TYPING, body().id(hall.chat)).accepted_empty();
    hall.boris.expect_typing(hall.chat, hall.ids[0]);
    for client in [&mut hall.anna, &mut phone, &mut old, &mut hall.clara] {
        client.expect_quiet();
    }
}

// PRESENCE_NOTIFY.

/// The first connection of somebody and the last are notified to those who share a chat, once each.
#[test]
fn presence_is_notified_to_those_who_share_a_chat() {
    let mut hall = hall();
    hall.server.add_user("dora");
    hall.server.admin_ok(&["chat", "join", "hall", "dora"], None);
    crate::support::eventually(|| hall.anna.chat(hall.chat).members == 3);
    let dora = hall.anna.user_id("dora");
    crate::support::eventually(|| hall.anna.drain().is_empty());
    hall.boris.drain();
    hall.anna.hear_everything();
    hall.clara.hear_everything();
    let mut old = hall.server.login("boris");

    let mut desk = hall.server.greeted10();
    let (session, _) = desk.login10("dora");
    hall.anna.expect_presence(dora, true);
    let mut phone = hall.server.greeted();
    phone.login("dora");
    hall.anna.expect_quiet();
    desk.write_frame(DISCONNECT, 0, []);
    desk.expect_end();
    crate::support::eventually(|| hall.anna.sessions().len() == 1 && hall.anna.drain().is_empty());
    phone.ask(LOGOFF, body()).accepted_empty();
    hall.anna.expect_presence(dora, false);
    let mut desk = hall.server.greeted10();
    desk.restore10(&session);
    hall.anna.expect_presence(dora, true);
    drop(desk);
    hall.anna.expect_presence(dora, false);
    hall.anna.expect_quiet();
    hall.clara.expect_quiet();
    old.expect_quiet();
}

/// A session that is taken over by another connection was online all the time.
#[test]
fn a_takeover_is_no_change_of_presence() {
    let mut hall = hall();
    let mut phone = hall.server.greeted10();
    hall.boris.write_frame(DISCONNECT, 0, []);
    hall.boris.expect_end();
    crate::support::eventually(|| hall.anna.user(hall.ids[1]).flags == 0);
    hall.anna.hear_everything();
    let (session, _) = phone.login10("boris");
    hall.anna.expect_presence(hall.ids[1], true);
    let mut other = hall.server.greeted10();
    other.restore10(&session);
    phone.expect(DEAUTH);
    assert_eq!(hall.anna.user(hall.ids[1]).flags, ONLINE);
    hall.anna.expect_quiet();
}

/// One's own connections are not notified of one's presence.
#[test]
fn presence_is_not_sent_to_oneself() {
    let mut hall = hall();
    hall.anna.hear_everything();
    let phone = hall.server.login10("anna");
    drop(phone);
    hall.anna.expect_quiet();
}

// 0.1 hears nothing of it.

/// A connection on 0.1 hears of messages and of nothing else.
#[test]
fn connections_on_0_1_hear_of_messages_alone() {
    let mut hall = hall();
    let mut old = hall.server.login("boris");
    hall.clara.join(hall.chat);
    hall.clara.ask(TYPING, body().id(hall.chat)).accepted_empty();
    hall.anna.set_admin(hall.chat, hall.ids[2], true).accepted_empty();
    hall.anna.ask(RENAME_CHAT, body().id(hall.chat).text("other")).accepted_empty();
    let sent = hall.anna.send(hall.chat, "hi");
    hall.clara.ask(MARK_SEEN, body().id(hall.chat).time(sent.created)).accepted_empty();
    hall.clara.leave(hall.chat);
    hall.boris.start_chat(hall.ids[0]);
    let (task, pack) = old.notify(hall.chat);
    assert_eq!(task, 1);
    assert_eq!(contents(&pack), ["hi"]);
    hall.boris.leave(hall.chat);
    old.expect_quiet();
}

/// A suspended session hears nothing of 1.0 either, and a DECLINED to any of its notifications
/// suspends.
#[test]
fn any_declined_notification_suspends() {
    let mut hall = hall();
    hall.anna.ask(TYPING, body().id(hall.chat)).accepted_empty();
    let got = hall.boris.expect(TYPING_NOTIFY);
    hall.boris.write_frame(DECLINED, got.task, body().text("forbidden: no"));
    hall.boris.ask(GET_MY_CHATS, body()).declined("session-suspended");
    hall.anna.ask(TYPING, body().id(hall.chat)).accepted_empty();
    hall.anna.send(hall.chat, "hi");
    hall.anna.ask(RENAME_CHAT, body().id(hall.chat).text("other")).accepted_empty();
    hall.boris.expect_quiet();
}

// The command line.

/// `chat join` is notified as a join is, within a second.
#[test]
fn chat_join_is_notified() {
    let mut hall = hall();
    hall.server.admin_ok(&["chat", "join", "hall", "clara"], None);
    let got = read_chat_notify(&hall.clara.expect_within_a_second(CHAT_NOTIFY));
    assert_eq!((got.id, got.flags), (hall.chat, I_AM_MEMBER));
    hall.anna.expect_member_event(hall.chat, hall.ids[2], JOINED, "clara");
}

/// `chat join --admin` is notified as a join and then as what makes a member an admin.
#[test]
fn chat_join_as_an_admin_is_notified() {
    let mut hall = hall();
    let clara = hall.ids[2];
    hall.server.admin_ok(&["chat", "join", "hall", "clara", "--admin"], None);
    let got = read_chat_notify(&hall.clara.expect_within_a_second(CHAT_NOTIFY));
    assert_eq!((got.id, got.flags), (hall.chat, I_AM_MEMBER | I_AM_ADMIN));
    hall.clara.expect_quiet();
    for client in [&mut hall.anna, &mut hall.boris] {
        client.expect_member_event(hall.chat, clara, JOINED, "clara");
        client.expect_member_event(hall.chat, clara, MADE_ADMIN, "clara");
        assert_eq!(client.chat_notify().id, hall.chat);
        client.expect_quiet();
    }
}

/// `chat remove` is notified as a deletion is, within a second.
#[test]
fn chat_remove_is_notified() {
    let mut hall = hall();
    hall.server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    hall.anna.expect_within_a_second(CHAT_GONE);
    hall.boris.expect_chat_gone(hall.chat);
    hall.clara.expect_quiet();
}

/// `chat add --admin` makes its admin a member who is notified, within a second.
#[test]
fn chat_add_is_notified_to_its_admin() {
    let mut hall = hall();
    hall.server.add_chat("made", &["clara"]);
    let got = read_chat_notify(&hall.clara.expect_within_a_second(CHAT_NOTIFY));
    assert_eq!(got.name, "made");
    assert_eq!(got.flags, I_AM_MEMBER | I_AM_ADMIN);
}

/// `user disable` ends the presence of a user as it ends the sessions.
#[test]
fn user_disable_ends_the_presence() {
    let mut hall = hall();
    hall.anna.hear_everything();
    hall.server.admin_ok(&["user", "disable", "boris"], None);
    hall.boris.expect_within_a_second(DEAUTH);
    hall.anna.expect_presence(hall.ids[1], false);
}

/// A slow reader is notified of chats, collapsed to how they are now, though ephemeral events be
/// dropped.
#[test]
fn a_slow_reader_is_notified_how_chats_are_now() {
    let server = Server::with(&["--outbound-limit", "65536"]);
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (chat, gone) = (anna.create_chat("hall"), anna.create_chat("gone"));
    boris.join(chat);
    boris.join(gone);
    anna.drain();
    let filler = "x".repeat(16_000);
    for _ in 0..100 {
        anna.post_all((0..10).map(|_| (SEND_CHAT_MSG, body().id(chat).text(&filler).into())));
        for _ in 0..10 {
            anna.answer().accepted();
        }
    }
    for number in 0..50 {
        let name = format!("name-{number}");
        anna.ask(RENAME_CHAT, body().id(chat).text(&name)).accepted_empty();
    }
    anna.send(gone, "never delivered");
    anna.ask(DELETE_CHAT, body().id(gone)).accepted_empty();
    let (mut messages, mut renames, mut last, mut left) = (0, 0, String::new(), 0);
    while messages < 1000 || last != "name-49" || left == 0 {
        let frame = boris.next_frame().expect("a notification");
        let mut reader = Reader::new(&frame.body);
        match frame.purpose {
            MSG_NOTIFY => {
                assert_eq!(reader.id(), chat, "a message of a chat that is gone");
                messages += reader.messages().len();
            }
            CHAT_NOTIFY => {
                let info = reader.chat_info();
                assert_eq!(info.id, chat);
                last = info.name;
                renames += 1;
            }
            CHAT_GONE => {
                assert_eq!(reader.id(), gone);
                left += 1;
            }
            _ => {}
        }
    }
    assert_eq!((messages, left), (1000, 1));
    assert!(renames < 50, "not collapsed: {renames}");
    boris.drain();
    anna.send(chat, "live again");
    assert_eq!(contents(&boris.notified(chat, 1)), ["live again"]);
}
