//! API 1.1, chats: adding members, closed chats, push settings, and the commands for the same
//! (protocol section 5a).

use crate::support::api10::*;
use crate::support::people11::*;
use crate::support::wire::*;
use crate::support::{Client, Server};

/// An admin adds a user, who hears of it, without any password.
#[test]
fn a_member_is_added() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let [(mut clara, clara_id)] = server.users11(["clara"]);
    let mut old = server.login("boris");
    let hall = anna.create_chat("hall");
    anna.ask(SET_CHAT_PASSWORD, body().id(hall).text("secret")).accepted_empty();
    let direct = anna.start_chat(clara_id);
    clara.drain();
    // The order of section 3: the chat, membership, rights, then who is named.
    anna.add_member(999, 999).declined("no-such-chat");
    boris.add_member(hall, 999).declined("not-member");
    boris.add_member(direct, 999).declined("no-such-chat");
    anna.add_member(direct, 999).declined("forbidden");
    anna.add_member(hall, 999).declined("no-such-user");
    anna.add_member(hall, anna_id).declined("already-member");
    anna.add_member(hall, boris_id).accepted_empty();
    anna.expect_quiet();
    let info = boris.chat_notify();
    assert_eq!((info.id, info.flags, info.members), (hall, HAS_PASSWORD | I_AM_MEMBER, 2));
    old.expect_quiet();
    anna.send(hall, "hi");
    for client in [&mut boris, &mut old] {
        assert_eq!(contents(&client.notified(hall, 1)), ["hi"]);
    }
    boris.add_member(hall, clara_id).declined("forbidden");
    boris.add_member(hall, 999).declined("forbidden");
    anna.set_ban(hall, clara_id, true).accepted_empty();
    anna.add_member(hall, clara_id).declined("forbidden");
    anna.set_ban(hall, clara_id, false).accepted_empty();
    boris.drain();
    anna.add_member(hall, clara_id).accepted_empty();
    let joined = boris.member_event();
    assert_eq!((joined.user, joined.event), (clara_id, JOINED));
    assert_eq!(clara.chat_notify().id, hall);
    // Offline as well.
    server.add_user("dora");
    let dora = anna.user_id("dora");
    anna.add_member(hall, dora).accepted_empty();
    assert_eq!(server.login10("dora").my_chats().len(), 1);
}

/// Every purpose of 0.1, 1.0 and 1.1 that names a chat.
fn about_a_chat(chat: u32, user: u32) -> Vec<(u8, Body)> {
    vec![
        (CHAT_REQ_PASS, body().id(chat)),
        (JOIN_CHAT, body().id(chat)),
        (SEND_CHAT_MSG, body().id(chat).text("x").u64(1)),
        (REQUEST_CHAT_MSG, body().id(chat).time(0)),
        (MARK_SEEN, body().id(chat).time(1)),
        (LEAVE_CHAT, body().id(chat)),
        (DELETE_CHAT, body().id(chat)),
        (RENAME_CHAT, body().id(chat).text("y")),
        (SET_CHAT_TITLE, body().id(chat).text("y")),
        (SET_CHAT_PASSWORD, body().id(chat)),
        (SET_CHAT_ADMIN, body().id(chat).id(user).u8(1)),
        (SET_CHAT_BAN, body().id(chat).id(user).u8(1)),
        (GET_CHAT, body().id(chat)),
        (GET_MEMBERS, body().id(chat)),
        (EDIT_MSG, body().id(chat).u64(1).text("y")),
        (DELETE_MSG, body().id(chat).u64(1)),
        (REQUEST_CHAT_PAGE, body().id(chat).u64(0).u16(5)),
        (SEARCH_MSG, body().id(chat).u16(5).text("x")),
        (TYPING, body().id(chat)),
        (ADD_MEMBER, body().id(chat).id(user)),
        (SET_CHAT_CLOSED, body().id(chat).u8(0)),
        (SET_CHAT_NOTIFY, body().id(chat).u8(1)),
        (CREATE_INVITE, body().u8(0).u16(1).u16(1).id(chat)),
        (GET_INVITES, body().id(chat)),
    ]
}

/// A closed chat does not exist for others, whatever they ask and on whatever version.
#[test]
fn a_closed_chat_does_not_exist_for_others() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let [(mut clara, clara_id)] = server.users11(["clara"]);
    server.make_operator("boris");
    let hall = anna.create_chat("hall");
    clara.join(hall);
    anna.send(hall, "x");
    assert_eq!(boris.find_chats("hal", 5).len(), 1);
    anna.close_chat(hall, true).accepted_empty();
    let mut old = server.login10("boris");
    let mut oldest = server.login("boris");
    for (purpose, request) in about_a_chat(hall, clara_id) {
        let answer = boris.ask_whole(purpose, request.clone());
        answer.declined("no-such-chat");
        if purpose < ADD_MEMBER && purpose != SEND_CHAT_MSG {
            old.ask_whole(purpose, request.clone()).declined("no-such-chat");
        }
        if purpose <= MARK_SEEN && purpose != SEND_CHAT_MSG {
            oldest.ask_whole(purpose, request).declined("no-such-chat");
        }
    }
    oldest.ask(SEND_CHAT_MSG, body().id(hall).text("x")).declined("no-such-chat");
    for client in [&mut boris, &mut old, &mut oldest] {
        client.ask(GET_CHAT_ID, body().text("Hall")).declined("no-such-chat");
    }
    assert!(boris.find_chats("", 5).is_empty());
    assert!(old.find_chats("hall", 5).is_empty());
    // Its name is taken all the same.
    boris.ask(CREATE_CHAT, body().text("HALL")).declined("name-taken");
    // For members all is as it was.
    assert_eq!(clara.chat_id("hall"), hall);
    assert_eq!(clara.find_chats("hall", 5)[0].flags, I_AM_MEMBER | CLOSED);
    clara.send(hall, "still here");
    // A member who leaves knows it no more; one who is added does.
    anna.add_member(hall, boris_id).accepted_empty();
    assert_eq!(boris.chat(hall).flags, I_AM_MEMBER | CLOSED);
    assert_eq!(old.chat(hall).flags, I_AM_MEMBER, "1.0 knows no such flag");
    boris.leave(hall);
    boris.ask(GET_CHAT, body().id(hall)).declined("no-such-chat");
    // An invite opens it.
    let code = anna.create_invite(false, 1, hall);
    boris.use_invite(&code).accepted();
    anna.close_chat(hall, false).accepted_empty();
    boris.leave(hall);
    boris.join(hall);
}

/// Closed chats that are left out of FIND_CHATS do not count.
#[test]
fn finding_goes_on_behind_closed_chats() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    for number in 0..70 {
        let chat = anna.create_chat(&format!("a{number:02}"));
        anna.close_chat(chat, true).accepted_empty();
    }
    anna.create_chat("a99");
    let found = boris.find_chats("a", 1);
    assert_eq!(found.iter().map(|chat| chat.name.as_str()).collect::<Vec<_>>(), ["a99"]);
    assert_eq!(anna.find_chats("a", 100).len(), 71);
}

/// SET_CHAT_CLOSED: admins alone; members on 1.1 hear of it, and nobody of what is so already.
#[test]
fn who_closes_a_chat_and_who_hears() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let mut old = server.login10("boris");
    let mut phone = server.login11("anna");
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let direct = anna.start_chat(boris_id);
    for client in [&mut anna, &mut boris, &mut old, &mut phone] {
        client.drain();
    }
    boris.close_chat(hall, true).declined("forbidden");
    anna.close_chat(direct, true).declined("forbidden");
    anna.close_chat(999, true).declined("no-such-chat");
    anna.close_chat(hall, false).accepted_empty();
    boris.expect_quiet();
    anna.close_chat(hall, true).accepted_empty();
    assert_eq!(boris.chat_notify().flags, I_AM_MEMBER | CLOSED);
    assert_eq!(phone.chat_notify().flags, I_AM_MEMBER | I_AM_ADMIN | CLOSED);
    old.expect_quiet();
    anna.expect_quiet();
    anna.close_chat(hall, true).accepted_empty();
    boris.expect_quiet();
    // The command line does the same, within a second.
    server.admin_ok(&["chat", "open", "hall"], None);
    let frame = boris.expect_within_a_second(CHAT_NOTIFY);
    assert_eq!(boris.reader(&frame.body).chat_info().flags, I_AM_MEMBER);
    server.admin_ok(&["chat", "close", "hall"], None);
    let frame = boris.expect_within_a_second(CHAT_NOTIFY);
    assert_eq!(boris.reader(&frame.body).chat_info().flags, I_AM_MEMBER | CLOSED);
    old.expect_quiet();
    let again = server.admin(&["chat", "close", "hall"], None);
    assert_eq!(again.status.code(), Some(1));
    server.add_user("clara");
    server.login11("clara").ask(JOIN_CHAT, body().id(hall)).declined("no-such-chat");
}

/// SET_CHAT_NOTIFY holds for the membership, in a direct chat too, and only own connections hear.
#[test]
fn what_a_member_wants_pushes_of() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let mut phone = server.login11("anna");
    let mut old = server.login10("anna");
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let direct = anna.start_chat(boris_id);
    for client in [&mut anna, &mut boris, &mut phone, &mut old] {
        client.drain();
    }
    anna.set_notify(999, 1).declined("no-such-chat");
    for (chat, notify) in [(hall, 2), (direct, 1), (hall, 1)] {
        anna.set_notify(chat, notify).accepted_empty();
        let info = phone.chat_notify();
        assert_eq!((info.id, info.notify), (chat, notify));
        assert_eq!(anna.chat(chat).notify, notify);
        assert_eq!(boris.chat(chat).notify, 0);
        anna.set_notify(chat, notify).accepted_empty();
        for client in [&mut anna, &mut boris, &mut phone, &mut old] {
            client.expect_quiet();
        }
    }
    let levels: Vec<u8> = anna.my_chats().iter().map(|chat| chat.notify).collect();
    assert_eq!(levels, [1, 1]);
    // It goes with the membership.
    boris.set_notify(hall, 2).accepted_empty();
    boris.leave(hall);
    boris.set_notify(hall, 2).declined("not-member");
    boris.join(hall);
    assert_eq!(boris.chat(hall).notify, 0);
}

fn subscribe(client: &mut Client, endpoint: &str) -> Frame {
    client.ask(SUBSCRIBE_PUSH, body().text(endpoint).bytes(&[4; 65]).bytes(&[7; 16]))
}

fn endpoints(server: &Server) -> Vec<String> {
    let db = rusqlite::Connection::open(server.data()).expect("the database");
    let mut rows = db
        .prepare("SELECT endpoint FROM push_subscriptions ORDER BY session_id")
        .expect("the table");
    let rows = rows.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

/// Where pushes are off, every subscription is declined, after the form and before the address.
#[test]
fn pushes_are_off_by_default() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    anna.ask(SUBSCRIBE_PUSH, body().text("https://a/")).declined("malformed");
    subscribe(&mut anna, "https://fcm.googleapis.com/x").declined("push-off");
    subscribe(&mut anna, "nonsense").declined("push-off");
    anna.ask(SUBSCRIBE_PUSH, body().text("")).accepted_empty();
}

/// A session has one subscription, which ends with it.
#[test]
fn a_session_subscribes_to_pushes() {
    let options = ["--push", "on", "--push-hosts", "push.example,.services.example"];
    let server = Server::with(&options);
    let [(mut anna, _)] = server.users11(["anna"]);
    for endpoint in [
        "https://fcm.googleapis.com/x",
        "http://push.example/x",
        "https://push.example:444/x",
        "https://services.example/x",
        "https://127.0.0.1/x",
        "https://push.example@evil.org/x",
    ] {
        subscribe(&mut anna, endpoint).declined("bad-endpoint");
    }
    let request = body().text("https://push.example/1").bytes(&[5; 65]).bytes(&[7; 16]);
    anna.ask(SUBSCRIBE_PUSH, request).declined("bad-endpoint");
    subscribe(&mut anna, "https://push.example/1").accepted_empty();
    subscribe(&mut anna, "https://a.services.example:443/2?x").accepted_empty();
    let mut phone = server.login11("anna");
    subscribe(&mut phone, "https://push.example/3").accepted_empty();
    assert_eq!(
        endpoints(&server),
        ["https://a.services.example:443/2?x", "https://push.example/3"]
    );
    anna.ask(SUBSCRIBE_PUSH, body().text("")).accepted_empty();
    anna.ask(SUBSCRIBE_PUSH, body().text("")).accepted_empty();
    assert_eq!(endpoints(&server), ["https://push.example/3"]);
    phone.ask(LOGOFF, body()).accepted_empty();
    assert!(endpoints(&server).is_empty());
}

/// By default subscriptions go to the push services of the browsers.
#[test]
fn push_services_of_browsers() {
    let server = Server::with(&["--push", "on"]);
    let [(mut anna, _)] = server.users11(["anna"]);
    for endpoint in [
        "https://fcm.googleapis.com/fcm/send/x",
        "https://updates.push.services.mozilla.com/wpush/v2/x",
        "https://wns2-par02p.notify.windows.com/w/?token=x",
        "https://web.push.apple.com/x",
    ] {
        subscribe(&mut anna, endpoint).accepted_empty();
    }
    subscribe(&mut anna, "https://example.org/x").declined("bad-endpoint");
}

/// What admins do by the protocol an operator does by the command line, and clients hear it as if
/// the protocol had done it, within a second.
#[test]
#[allow(clippy::too_many_lines, reason = "one command after the other")]
fn the_twins_of_the_command_line() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    anna.drain();
    let changed = |client: &mut Client| {
        let frame = client.expect_within_a_second(CHAT_NOTIFY);
        client.reader(&frame.body).chat_info()
    };
    server.admin_ok(&["chat", "rename", "hall", "Foyer"], None);
    assert_eq!(
        (changed(&mut anna).name, changed(&mut boris).name),
        ("Foyer".into(), "Foyer".into())
    );
    server.admin_ok(&["chat", "title", "foyer", "Come in"], None);
    assert_eq!(
        (changed(&mut anna).title, changed(&mut boris).flags),
        ("Come in".into(), I_AM_MEMBER)
    );
    let passwd = ["chat", "passwd", "foyer", "--password-stdin"];
    server.admin_ok(&passwd, Some("secret\n"));
    assert!(changed(&mut boris).flags & HAS_PASSWORD != 0);
    changed(&mut anna);
    server.add_user("clara");
    let mut clara = server.login11("clara");
    clara.ask(JOIN_CHAT, body().id(hall).text("wrong")).declined("bad-password");
    clara.ask(JOIN_CHAT, body().id(hall).text("secret")).accepted_empty();
    for client in [&mut anna, &mut boris] {
        client.drain();
    }
    server.admin_ok(&["chat", "passwd", "foyer", "--none"], None);
    assert_eq!(changed(&mut boris).flags, I_AM_MEMBER);
    for client in [&mut anna, &mut clara] {
        changed(client);
    }
    // The last admin goes, and the longest-standing member is the heir.
    server.admin_ok(&["chat", "kick", "foyer", "anna"], None);
    let gone = anna.expect_within_a_second(CHAT_GONE);
    assert_eq!(gone.body, hall.to_le_bytes());
    let left = clara.member_event();
    assert_eq!((left.user, left.event), (anna_id, LEFT));
    let heir = clara.member_event();
    assert_eq!((heir.user, heir.event), (boris_id, MADE_ADMIN));
    changed(&mut clara);
    boris.drain();
    assert_eq!(boris.chat(hall).flags, I_AM_MEMBER | I_AM_ADMIN);
    anna.join(hall);
    clara.drain();
    boris.drain();
    server.admin_ok(&["chat", "ban", "foyer", "anna"], None);
    assert_eq!(anna.expect_within_a_second(CHAT_GONE).body, hall.to_le_bytes());
    let banned = clara.member_event();
    assert_eq!((banned.user, banned.event), (anna_id, BANNED));
    anna.ask(JOIN_CHAT, body().id(hall)).declined("forbidden");
    let list = server.admin_ok(&["chat", "members", "foyer", "--json"], None);
    let list: serde_json::Value = serde_json::from_str(&list).expect("one JSON value");
    let roles: Vec<_> = list.as_array().expect("an array").iter().collect();
    assert_eq!(roles.len(), 3);
    assert_eq!((&roles[0]["name"], &roles[0]["role"]), (&"boris".into(), &"admin".into()));
    assert_eq!((&roles[2]["name"], &roles[2]["role"]), (&"anna".into(), &"banned".into()));
    server.admin_ok(&["chat", "unban", "foyer", "anna"], None);
    anna.join(hall);
    server.admin_ok(&["check"], None);
    for wrong in [
        &["chat", "kick", "foyer", "nobody"][..],
        &["chat", "unban", "foyer", "anna"],
        &["chat", "rename", "foyer", "a b"],
        &["chat", "title", "foyer", &"x".repeat(129)],
        &["chat", "members", "nowhere"],
    ] {
        assert_eq!(server.admin(wrong, None).status.code(), Some(1), "{wrong:?}");
    }
}
