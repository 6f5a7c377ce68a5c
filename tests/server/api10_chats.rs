//! Creating, finding, changing and leaving chats; direct chats, admins, bans (protocol section 5).

use crate::support::api10::*;
use crate::support::wire::*;
use crate::support::{Client, Server};

const HOUR_OF_1970: i64 = 3_600_000_000;

fn names(infos: &[ChatInfo]) -> Vec<&str> {
    infos.iter().map(|info| info.name.as_str()).collect()
}

fn nicknames(members: &[Member]) -> Vec<&str> {
    members.iter().map(|member| member.nickname.as_str()).collect()
}

#[track_caller]
fn rename(client: &mut Client, chat: u32, name: &str) -> Frame {
    client.ask(RENAME_CHAT, body().id(chat).text(name))
}

#[track_caller]
fn set_title(client: &mut Client, chat: u32, title: &str) -> Frame {
    client.ask(SET_CHAT_TITLE, body().id(chat).text(title))
}

#[track_caller]
fn set_password(client: &mut Client, chat: u32, password: &str) -> Frame {
    client.ask(SET_CHAT_PASSWORD, body().id(chat).text(password))
}

/// anna made `hall` and is its admin, boris is a member of it.
fn hall() -> (Server, Client, Client, u32) {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    anna.drain();
    boris.drain();
    (server, anna, boris, hall)
}

// CREATE_CHAT and GET_CHAT.

/// Who makes a chat is its first member and admin; their other connections are notified, on 1.0.
#[test]
fn create_chat() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (mut phone, mut old) = (server.login10("anna"), server.login("anna"));
    let chat = anna.create_chat("Hall");
    let expected = ChatInfo {
        id: chat,
        kind: 0,
        flags: I_AM_MEMBER | I_AM_ADMIN,
        members: 1,
        last_message: 0,
        seen: 0,
        unread: 0,
        name: "Hall".to_owned(),
        title: String::new(),
        notify: 0,
    };
    assert_eq!(anna.chat(chat), expected);
    assert_eq!(phone.chat_notify(), expected);
    assert_eq!(anna.my_chats(), [expected]);
    assert_eq!(boris.chat_id("HALL"), chat);
    anna.expect_quiet();
    boris.expect_quiet();
    old.expect_quiet();
    old.send(chat, "a member on 0.1 too");
}

/// A chat with a password says so, and asks for it.
#[test]
fn create_chat_with_a_password() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let request = body().text("locked").text("open sesame");
    let chat = crate::support::client::read_id(&anna.ask(CREATE_CHAT, request).accepted());
    assert_eq!(anna.chat(chat).flags, HAS_PASSWORD | I_AM_MEMBER | I_AM_ADMIN);
    assert_eq!(boris.chat(chat).flags, HAS_PASSWORD);
    boris.ask(JOIN_CHAT, body().id(chat)).declined("password-required");
    boris.ask(JOIN_CHAT, body().id(chat).text("wrong")).declined("bad-password");
    boris.ask(JOIN_CHAT, body().id(chat).text("open sesame")).accepted_empty();
}

/// Names of chats are like those of users, in a space of their own; passwords have 1 to 256 bytes.
#[test]
fn create_chat_declined() {
    let server = Server::start();
    let [(mut anna, _)] = server.users10(["anna"]);
    anna.create_chat("Зал");
    anna.create_chat("anna");
    for taken in ["Зал", "зал", "ANNA"] {
        anna.ask(CREATE_CHAT, body().text(taken)).declined("name-taken");
    }
    for bad in ["", "two words", "a/b", "😀", "\u{301}a", &"x".repeat(33)] {
        anna.ask(CREATE_CHAT, body().text(bad)).declined("bad-name");
    }
    for bad in ["", &"p".repeat(257)] {
        anna.ask(CREATE_CHAT, body().text("locked").text(bad)).declined("bad-password");
    }
    let longest = "p".repeat(256);
    for (name, password) in [("one", "p"), ("two", &longest)] {
        anna.ask(CREATE_CHAT, body().text(name).text(password)).accepted();
    }
}

/// Who is not a member sees the chat, and nothing of what is set in it.
#[test]
fn get_chat_of_others() {
    let (server, mut anna, _boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    anna.send(hall, "a secret");
    set_title(&mut anna, hall, "About things").accepted_empty();
    let info = clara.chat(hall);
    assert_eq!((info.flags, info.members), (0, 2));
    assert_eq!((info.last_message, info.seen, info.unread), (0, 0, 0));
    assert_eq!((info.name.as_str(), info.title.as_str()), ("hall", "About things"));
}

/// chat_info counts what others wrote after my marker, not what I wrote or what is deleted.
#[test]
fn unread_and_last_message() {
    let (_server, mut anna, mut boris, hall) = hall();
    let numbers = |client: &mut Client| {
        let info = client.chat(hall);
        (info.last_message, info.seen, info.unread)
    };
    let one = anna.send(hall, "one");
    let two = anna.send(hall, "two");
    let three = boris.send(hall, "three");
    assert_eq!(numbers(&mut boris), (three.created, 0, 2));
    assert_eq!(numbers(&mut anna), (three.created, 0, 1));
    boris.ask(MARK_SEEN, body().id(hall).time(one.created)).accepted_empty();
    assert_eq!(numbers(&mut boris), (three.created, one.created, 1));
    anna.delete(hall, two.id);
    assert_eq!(numbers(&mut boris), (three.created, one.created, 0));
    anna.edit(hall, one.id, "edited");
    assert_eq!(numbers(&mut boris).2, 0, "an edit is not a new message");
    let four = anna.send(hall, "four");
    assert_eq!(numbers(&mut boris), (four.created, one.created, 1));
    assert_eq!(boris.my_chats(), [boris.chat(hall)]);
}

/// Unread messages are counted up to 1000.
#[test]
fn unread_is_counted_up_to_1000() {
    let (_server, mut anna, mut boris, hall) = hall();
    let mut expected = 0;
    for more in [999, 1, 5] {
        anna.post_all((0..more).map(|_| (SEND_CHAT_MSG, body().id(hall).text("hi").into())));
        for _ in 0..more {
            anna.answer().accepted();
        }
        expected = (expected + more).min(1000);
        assert_eq!(boris.chat(hall).unread, expected);
    }
}

/// The marker only moves forward, and at most to now.
#[test]
fn the_marker_moves_forward_up_to_now() {
    let (_server, mut anna, mut boris, hall) = hall();
    let sent = anna.send(hall, "hi");
    let mut mark = |time: i64| {
        boris.ask(MARK_SEEN, body().id(hall).time(time)).accepted_empty();
        boris.chat(hall).seen
    };
    assert_eq!(mark(sent.created), sent.created);
    assert_eq!(mark(sent.created - 1), sent.created);
    assert_eq!(mark(0), sent.created);
    let now = mark(i64::MAX);
    assert!(now > sent.created && now < sent.created + HOUR_OF_1970);
    assert!(anna.send(hall, "later").created > now);
}

// FIND_CHATS and GET_MY_CHATS.

/// FIND_CHATS finds group chats by the beginning of their names, in any case, sorted by name.
#[test]
fn find_chats() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, his)] = server.users10(["anna", "boris"]);
    for name in ["Зал-2", "зал-1", "ЗАЛ-3", "за", "hall", "Hall-2"] {
        boris.create_chat(name);
    }
    anna.start_chat(his);
    assert_eq!(names(&anna.find_chats("зал", 10)), ["зал-1", "Зал-2", "ЗАЛ-3"]);
    assert_eq!(names(&anna.find_chats("ЗАЛ", 2)), ["зал-1", "Зал-2"]);
    assert_eq!(names(&anna.find_chats("HALL", 10)), ["hall", "Hall-2"]);
    assert_eq!(names(&anna.find_chats("all", 10)), [""; 0]);
    assert_eq!(names(&anna.find_chats("зал%", 10)), [""; 0]);
    assert_eq!(anna.find_chats("", 100).len(), 6);
    let found = &anna.find_chats("hall-2", 1)[0];
    assert_eq!((found.flags, found.members), (0, 1));
}

/// GET_MY_CHATS has my chats, group and direct, and no others.
#[test]
fn get_my_chats() {
    let server = Server::start();
    let [(mut anna, me), (mut boris, his)] = server.users10(["anna", "boris"]);
    assert_eq!(anna.my_chats(), []);
    let (mine, _other) = (anna.create_chat("mine"), boris.create_chat("other"));
    let direct = boris.start_chat(me);
    let mut ids: Vec<u32> = anna.my_chats().iter().map(|info| info.id).collect();
    ids.sort_unstable();
    let mut expected = [mine, direct];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let chats = anna.my_chats();
    let info = chats.iter().find(|info| info.id == direct);
    let info = info.expect("the direct chat");
    assert_eq!((info.kind, info.members), (1, 2));
    assert_eq!((info.name.as_str(), info.title.as_str()), ("", "boris"));
    assert_eq!(boris.chat(direct).title, "anna");
    assert_ne!(me, his);
}

// RENAME_CHAT, SET_CHAT_TITLE, SET_CHAT_PASSWORD, DELETE_CHAT.

/// A new name is notified to the members, found from then on, and the old one is free.
#[test]
fn rename_chat() {
    let (_server, mut anna, mut boris, hall) = hall();
    rename(&mut anna, hall, "Зал").accepted_empty();
    let got = boris.chat_notify();
    assert_eq!((got.id, got.name.as_str()), (hall, "Зал"));
    assert_eq!(got, boris.chat(hall));
    assert_eq!(boris.chat_id("зал"), hall);
    boris.ask(GET_CHAT_ID, body().text("hall")).declined("no-such-chat");
    boris.create_chat("hall");
    anna.expect_quiet();
}

/// The case of a name may be changed; the very same name is accepted and nobody is notified.
#[test]
fn rename_to_the_same_name() {
    let (_server, mut anna, mut boris, hall) = hall();
    rename(&mut anna, hall, "Hall").accepted_empty();
    assert_eq!(boris.chat_notify().name, "Hall");
    rename(&mut anna, hall, "Hall").accepted_empty();
    boris.expect_quiet();
}

/// A name that another chat has or that may not be is declined.
#[test]
fn rename_declined() {
    let (_server, mut anna, mut boris, hall) = hall();
    boris.create_chat("other");
    rename(&mut anna, hall, "OTHER").declined("name-taken");
    for bad in ["", "two words", &"x".repeat(33)] {
        rename(&mut anna, hall, bad).declined("bad-name");
    }
    assert_eq!(anna.chat(hall).name, "hall");
    boris.expect_quiet();
}

/// A title has up to 128 characters of any kind, or none.
#[test]
fn set_chat_title() {
    let (_server, mut anna, mut boris, hall) = hall();
    let longest = "Ж".repeat(128);
    for title in ["About: things & 😀", &longest, ""] {
        set_title(&mut anna, hall, title).accepted_empty();
        assert_eq!(boris.chat_notify().title, title);
        assert_eq!(anna.chat(hall).title, title);
    }
    set_title(&mut anna, hall, "").accepted_empty();
    set_title(&mut anna, hall, &"Ж".repeat(129)).declined("too-long");
    boris.expect_quiet();
}

/// A password is asked of those who join from then on; members stay, and are notified of the flag.
#[test]
fn set_chat_password() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    for bad in ["", &"p".repeat(257)] {
        set_password(&mut anna, hall, bad).declined("bad-password");
    }
    set_password(&mut anna, hall, "open sesame").accepted_empty();
    assert_eq!(boris.chat_notify().flags, HAS_PASSWORD | I_AM_MEMBER);
    boris.send(hall, "still a member");
    anna.drain();
    clara.ask(JOIN_CHAT, body().id(hall)).declined("password-required");
    set_password(&mut anna, hall, "another").accepted_empty();
    clara.ask(JOIN_CHAT, body().id(hall).text("open sesame")).declined("bad-password");
    boris.drain();
    anna.ask(SET_CHAT_PASSWORD, body().id(hall)).accepted_empty();
    assert_eq!(boris.chat_notify().flags, I_AM_MEMBER);
    anna.ask(SET_CHAT_PASSWORD, body().id(hall)).accepted_empty();
    boris.expect_quiet();
    clara.join(hall);
}

/// The password that a chat has already may be given once more, and nobody is notified.
#[test]
fn set_the_same_chat_password() {
    let (server, mut anna, mut boris, hall) = hall();
    set_password(&mut anna, hall, "open sesame").accepted_empty();
    boris.chat_notify();
    set_password(&mut anna, hall, "open sesame").accepted_empty();
    boris.expect_quiet();
    set_password(&mut anna, hall, "Open sesame").accepted_empty();
    boris.chat_notify();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    clara.ask(JOIN_CHAT, body().id(hall).text("open sesame")).declined("bad-password");
    clara.ask(JOIN_CHAT, body().id(hall).text("Open sesame")).accepted_empty();
}

/// Nobody joins by the old password once the new one is accepted, although they asked before.
#[test]
fn join_while_the_password_changes() {
    let server = Server::with(&["--password-iterations", "200000"]);
    let [(mut anna, _)] = server.users10(["anna"]);
    let joiners = ["boris", "clara", "dora", "erik", "fjodor", "greta"];
    let mut joiners = server.users10(joiners).map(|(client, _)| client);
    let hall = anna.create_chat("hall");
    set_password(&mut anna, hall, "open sesame").accepted_empty();
    anna.post(SET_CHAT_PASSWORD, body().id(hall).text("another"));
    for client in &mut joiners {
        client.post(JOIN_CHAT, body().id(hall).text("open sesame"));
        // So that they come at all stages of the work. Nothing depends on it.
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    let answers = joiners.iter_mut().map(Client::answer);
    let (joined, others): (Vec<_>, Vec<_>) = answers.partition(|frame| frame.purpose == ACCEPTED);
    others.into_iter().for_each(|frame| drop(frame.declined("bad-password")));
    let mut got = anna.frames_until(joined.len() + 1);
    got.pop().expect("the answer, after all who joined").accepted_empty();
    assert!(got.iter().all(|frame| frame.purpose == MEMBER_NOTIFY), "{got:?}");
}

/// A deleted chat is gone with its messages for everybody, and its name is free.
#[test]
fn delete_chat() {
    let (server, mut anna, mut boris, hall) = hall();
    let (mut phone, mut old) = (server.login10("anna"), server.login("boris"));
    anna.send(hall, "soon gone");
    boris.drain();
    phone.drain();
    old.drain();
    anna.ask(DELETE_CHAT, body().id(hall)).accepted_empty();
    boris.expect_chat_gone(hall);
    phone.expect_chat_gone(hall);
    anna.expect_quiet();
    old.expect_quiet();
    for client in [&mut anna, &mut boris, &mut old] {
        client.ask(SEND_CHAT_MSG, body().id(hall).text("hi")).declined("no-such-chat");
        client.ask(GET_CHAT_ID, body().text("hall")).declined("no-such-chat");
    }
    assert_eq!(anna.my_chats(), []);
    assert_eq!(anna.updates(0), []);
    let next = boris.create_chat("hall");
    assert_ne!(next, hall, "the id was given again");
    assert_eq!(boris.history(next), []);
}

// JOIN_CHAT and LEAVE_CHAT.

/// A join is notified to the other members, and to the other connections of who joined.
#[test]
fn a_join_is_notified() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("Clara");
    let (mut clara, mut phone) = (server.login10("clara"), server.login10("clara"));
    let id = clara.user_id("clara");
    clara.join(hall);
    for member in [&mut anna, &mut boris] {
        member.expect_member_event(hall, id, JOINED, "Clara");
        member.expect_quiet();
    }
    let got = phone.chat_notify();
    assert_eq!((got.id, got.flags, got.members), (hall, I_AM_MEMBER, 3));
    phone.expect_quiet();
    clara.expect_quiet();
}

/// Who leaves is notified of nothing more; the others and the own other connections are notified of
/// it.
#[test]
fn leave_chat() {
    let (server, mut anna, mut boris, hall) = hall();
    let (mut phone, mut old) = (server.login10("boris"), server.login("boris"));
    let id = boris.user_id("boris");
    boris.leave(hall);
    anna.expect_member_event(hall, id, LEFT, "boris");
    phone.expect_chat_gone(hall);
    anna.send(hall, "alone");
    for client in [&mut boris, &mut phone, &mut old] {
        client.expect_quiet();
        client.ask(REQUEST_CHAT_MSG, body().id(hall).time(0)).declined("not-member");
    }
    boris.ask(LEAVE_CHAT, body().id(hall)).declined("not-member");
    assert_eq!(anna.chat(hall).members, 1);
    boris.join(hall);
    assert_eq!(contents(&boris.history(hall)), ["alone"]);
}

/// When the last admin leaves, the member of longest standing becomes admin, and all are notified.
#[test]
fn the_last_admin_hands_over() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    clara.join(hall);
    boris.drain();
    let (annas, his) = (anna.user_id("anna"), anna.user_id("boris"));
    anna.leave(hall);
    let got: Vec<Frame> = boris.drain();
    let info = got.iter().find(|frame| frame.purpose == CHAT_NOTIFY);
    let info = read_chat_notify(info.expect("a CHAT_NOTIFY for the new admin"));
    assert_eq!(info.flags, I_AM_MEMBER | I_AM_ADMIN);
    let mut events = member_events(&mut clara);
    events.sort_unstable();
    assert_eq!(events, [(annas, LEFT), (his, MADE_ADMIN)]);
    assert_eq!(boris.chat(hall).flags, I_AM_MEMBER | I_AM_ADMIN);
    assert_eq!(clara.chat(hall).flags, I_AM_MEMBER);
    rename(&mut boris, hall, "mine").accepted_empty();
}

/// Every MEMBER_NOTIFY that waits: whom it is about, and what.
fn member_events(client: &mut Client) -> Vec<(u32, u8)> {
    let frames = client.drain();
    let events = frames.iter().filter(|frame| frame.purpose == MEMBER_NOTIFY);
    events
        .map(|frame| {
            let mut reader = Reader::new(&frame.body);
            reader.id();
            (reader.id(), reader.u8())
        })
        .collect()
}

/// With another admin left nobody is made one.
#[test]
fn an_admin_leaves_others() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    clara.join(hall);
    let hers = clara.user_id("clara");
    anna.set_admin(hall, hers, true).accepted_empty();
    anna.leave(hall);
    assert_eq!(boris.chat(hall).flags, I_AM_MEMBER);
    assert_eq!(clara.chat(hall).flags, I_AM_MEMBER | I_AM_ADMIN);
}

// START_CHAT.

/// START_CHAT makes the one direct chat of the two; the other is notified, and both are in it.
#[test]
fn start_chat() {
    let server = Server::start();
    let [(mut anna, me), (mut boris, his)] = server.users10(["anna", "boris"]);
    let mut phone = server.login10("anna");
    let chat = anna.start_chat(his);
    let got = boris.chat_notify();
    assert_eq!((got.id, got.kind, got.members), (chat, 1, 2));
    assert_eq!((got.name.as_str(), got.title.as_str()), ("", "anna"));
    assert_eq!(got.flags & I_AM_MEMBER, I_AM_MEMBER);
    assert_eq!(phone.chat_notify().title, "boris");
    for _ in 0..2 {
        assert_eq!(boris.start_chat(me), chat);
        assert_eq!(anna.start_chat(his), chat);
    }
    anna.expect_quiet();
    boris.expect_quiet();
    anna.send(chat, "hi");
    assert_eq!(contents(&boris.notified(chat, 1)), ["hi"]);
}

/// START_CHAT with oneself or with nobody is `no-such-user`.
#[test]
fn start_chat_with_nobody() {
    let server = Server::start();
    let [(mut anna, me)] = server.users10(["anna"]);
    for id in [me, 99_999] {
        anna.ask(START_CHAT, body().id(id)).declined("no-such-user");
    }
    assert_eq!(anna.my_chats(), []);
}

/// Nobody begins a direct chat with a user who is disabled. One that is there stays as it is.
#[test]
fn start_chat_with_a_disabled_user() {
    let server = Server::start();
    let [(mut anna, _), (_boris, his), (_clara, hers)] = server.users10(["anna", "boris", "clara"]);
    let chat = anna.start_chat(his);
    for name in ["boris", "clara"] {
        server.admin_ok(&["user", "disable", name], None);
    }
    anna.ask(START_CHAT, body().id(hers)).declined("no-such-user");
    assert_eq!(anna.start_chat(his), chat);
    anna.send(chat, "for later");
    assert_eq!(anna.my_chats().len(), 1);
    server.admin_ok(&["user", "enable", "clara"], None);
    assert_ne!(anna.start_chat(hers), chat);
    // Who is gone for good is disabled, too.
    server.admin_ok(&["user", "remove", "boris", "--yes"], None);
    assert_eq!(anna.start_chat(his), chat);
    let mut dora = server.users10(["dora"]);
    dora[0].0.ask(START_CHAT, body().id(his)).declined("no-such-user");
}

/// A direct chat does not exist for anybody else, whatever they ask, on 0.1 as well.
#[test]
fn a_direct_chat_is_hidden() {
    let server = Server::start();
    let [(mut anna, _), (_boris, his), (mut clara, hers)] =
        server.users10(["anna", "boris", "clara"]);
    let chat = anna.start_chat(his);
    let message = anna.send(chat, "a secret").id;
    let id = || body().id(chat);
    let mut old = server.login("clara");
    for client in [&mut clara, &mut old] {
        let requests = [
            (CHAT_REQ_PASS, id()),
            (JOIN_CHAT, id()),
            (JOIN_CHAT, id().text("password")),
            (SEND_CHAT_MSG, id().text("hi")),
            (REQUEST_CHAT_MSG, id().time(0)),
            (MARK_SEEN, id().time(0)),
        ];
        for (purpose, request) in requests {
            client.ask(purpose, request).declined("no-such-chat");
        }
    }
    let requests = [
        (GET_CHAT, id()),
        (LEAVE_CHAT, id()),
        (DELETE_CHAT, id()),
        (RENAME_CHAT, id().text("mine")),
        (SET_CHAT_TITLE, id().text("mine")),
        (SET_CHAT_PASSWORD, id()),
        (SET_CHAT_ADMIN, id().id(hers).u8(1)),
        (SET_CHAT_BAN, id().id(his).u8(1)),
        (GET_MEMBERS, id()),
        (EDIT_MSG, id().u64(message).text("new")),
        (DELETE_MSG, id().u64(message)),
        (REQUEST_CHAT_PAGE, id().u64(0).u16(10)),
        (SEARCH_MSG, id().u16(10).text("secret")),
        (TYPING, id()),
    ];
    for (purpose, request) in requests {
        clara.ask(purpose, request).declined("no-such-chat");
    }
    assert_eq!(clara.search(0, 10, "secret"), []);
    clara.expect_quiet();
}

/// What changes a chat is `forbidden` in a direct one, and so is leaving it and joining a third.
#[test]
fn a_direct_chat_is_not_changed() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, his)] = server.users10(["anna", "boris"]);
    let chat = anna.start_chat(his);
    boris.drain();
    let id = || body().id(chat);
    let requests = [
        (LEAVE_CHAT, id()),
        (DELETE_CHAT, id()),
        (RENAME_CHAT, id().text("mine")),
        (SET_CHAT_TITLE, id().text("mine")),
        (SET_CHAT_PASSWORD, id().text("password")),
        (SET_CHAT_PASSWORD, id()),
        (SET_CHAT_ADMIN, id().id(his).u8(1)),
        (SET_CHAT_BAN, id().id(his).u8(1)),
    ];
    for client in [&mut anna, &mut boris] {
        for (purpose, request) in &requests {
            client.ask(*purpose, request.clone()).declined("forbidden");
        }
        client.ask(JOIN_CHAT, id()).declined("already-member");
    }
}

// SET_CHAT_ADMIN.

/// An admin makes admins and takes it from them; who it is about gets CHAT_NOTIFY, the other
/// members MEMBER_NOTIFY.
#[test]
fn set_chat_admin() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    clara.join(hall);
    boris.drain();
    let his = anna.user_id("boris");
    for (on, flags, event) in
        [(true, I_AM_MEMBER | I_AM_ADMIN, MADE_ADMIN), (false, I_AM_MEMBER, NO_LONGER_ADMIN)]
    {
        anna.set_admin(hall, his, on).accepted_empty();
        assert_eq!(boris.chat_notify().flags, flags);
        boris.expect_quiet();
        assert_eq!(member_events(&mut clara), [(his, event)]);
        let allowed = rename(&mut boris, hall, "his").purpose == ACCEPTED;
        assert_eq!(allowed, on);
        anna.drain();
        clara.drain();
        anna.set_admin(hall, his, on).accepted_empty();
        boris.expect_quiet();
        clara.expect_quiet();
    }
}

/// Only members can be admins, and the last one stays one.
#[test]
fn set_chat_admin_declined() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let (me, his) = (anna.user_id("anna"), anna.user_id("boris"));
    let hers = anna.user_id("clara");
    anna.set_admin(hall, hers, true).declined("not-member");
    anna.set_admin(hall, 99_999, true).declined("not-member");
    anna.set_admin(hall, me, false).declined("last-admin");
    anna.set_admin(hall, his, true).accepted_empty();
    anna.set_admin(hall, me, false).accepted_empty();
    anna.set_admin(hall, me, true).declined("forbidden");
    boris.set_admin(hall, his, false).declined("last-admin");
    // A disabled admin does not count, so demoting one leaves the chat its last admin.
    boris.set_admin(hall, me, true).accepted_empty();
    server.admin_ok(&["user", "disable", "anna"], None);
    boris.set_admin(hall, his, false).declined("last-admin");
    boris.set_admin(hall, me, false).accepted_empty();
}

// SET_CHAT_BAN and GET_MEMBERS.

/// A banned member is out at once and cannot come back until the ban is taken away.
#[test]
fn set_chat_ban() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    clara.join(hall);
    let mut phone = server.login10("boris");
    boris.drain();
    let his = anna.user_id("boris");
    anna.set_ban(hall, his, true).accepted_empty();
    boris.expect_chat_gone(hall);
    phone.expect_chat_gone(hall);
    clara.expect_member_event(hall, his, BANNED, "boris");
    anna.send(hall, "without boris");
    boris.expect_quiet();
    boris.ask(SEND_CHAT_MSG, body().id(hall).text("hi")).declined("not-member");
    boris.ask(JOIN_CHAT, body().id(hall)).declined("forbidden");
    clara.drain();
    anna.set_ban(hall, his, true).accepted_empty();
    clara.expect_quiet();
    anna.set_ban(hall, his, false).accepted_empty();
    boris.join(hall);
    assert_eq!(boris.chat(hall).flags, I_AM_MEMBER);
}

/// Somebody who never was a member can be banned beforehand; oneself and nobody cannot.
#[test]
fn bans_beforehand_and_declined() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    let (me, hers) = (anna.user_id("anna"), clara.user_id("clara"));
    anna.set_ban(hall, hers, true).accepted_empty();
    clara.ask(JOIN_CHAT, body().id(hall)).declined("forbidden");
    clara.ask(GET_MEMBERS, body().id(hall)).declined("not-member");
    anna.set_ban(hall, me, true).declined("forbidden");
    anna.set_ban(hall, 99_999, true).declined("no-such-user");
    boris.set_ban(hall, me, true).declined("forbidden");
}

/// A ban that was there before a password was asked for counts first: no guessing of passwords.
#[test]
fn a_ban_counts_before_the_password() {
    let (_server, mut anna, mut boris, hall) = hall();
    let his = anna.user_id("boris");
    set_password(&mut anna, hall, "open sesame").accepted_empty();
    anna.set_ban(hall, his, true).accepted_empty();
    for request in [body().id(hall), body().id(hall).text("wrong")] {
        boris.ask(JOIN_CHAT, request).declined("forbidden");
    }
    boris.ask(JOIN_CHAT, body().id(hall).text("open sesame")).declined("forbidden");
}

/// GET_MEMBERS shows who is admin, who is online, and how far each has seen; to admins it also
/// lists who is banned, after the members and not counted among them.
#[test]
fn get_members() {
    let (server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    server.add_user("dora");
    let mut clara = server.login10("clara");
    clara.join(hall);
    let (his, hers) = (anna.user_id("boris"), anna.user_id("dora"));
    anna.set_ban(hall, hers, true).accepted_empty();
    let sent = anna.send(hall, "hi");
    boris.ask(MARK_SEEN, body().id(hall).time(sent.created)).accepted_empty();
    drop(clara);
    crate::support::eventually(|| {
        boris.members(hall).iter().filter(|m| m.flags & ONLINE != 0).count() == 2
    });

    let seen_by_member = boris.members(hall);
    let mut sorted = nicknames(&seen_by_member);
    sorted.sort_unstable();
    assert_eq!(sorted, ["anna", "boris", "clara"]);
    let find = |nickname: &str| {
        let mut members = seen_by_member.iter();
        let member = members.find(|member| member.nickname == nickname);
        member.expect("a member").clone()
    };
    assert_eq!(find("anna").flags, MEMBER_ADMIN | ONLINE);
    assert_eq!((find("boris").flags, find("boris").user), (ONLINE, his));
    assert_eq!(find("boris").seen, sent.created);
    assert_eq!((find("clara").flags, find("clara").seen), (0, 0));

    let seen_by_admin = anna.members(hall);
    assert_eq!(seen_by_admin.len(), 4);
    let banned = seen_by_admin.last().expect("the banned");
    assert_eq!((banned.user, banned.nickname.as_str()), (hers, "dora"));
    assert_eq!(banned.flags, MEMBER_BANNED);
    assert_eq!(anna.chat(hall).members, 3);
}

/// All of it is there after a kill.
#[test]
fn changes_survive_a_kill() {
    let (mut server, mut anna, mut boris, hall) = hall();
    server.add_user("clara");
    let hers = anna.user_id("clara");
    let his = anna.user_id("boris");
    rename(&mut anna, hall, "Зал").accepted_empty();
    set_title(&mut anna, hall, "About things").accepted_empty();
    anna.set_ban(hall, hers, true).accepted_empty();
    anna.set_admin(hall, his, true).accepted_empty();
    let sent = boris.send(hall, "hi");
    anna.ask(MARK_SEEN, body().id(hall).time(sent.created)).accepted_empty();
    let (infos, direct) = (anna.chat(hall), anna.start_chat(his));
    server.kill();
    server.restart();
    let (mut anna, mut boris) = (server.login10("anna"), server.login10("boris"));
    assert_eq!(anna.chat(hall), infos);
    assert_eq!(anna.start_chat(his), direct);
    assert_eq!(boris.chat(hall).flags, I_AM_MEMBER | I_AM_ADMIN);
    server.login10("clara").ask(JOIN_CHAT, body().id(hall)).declined("forbidden");
}
