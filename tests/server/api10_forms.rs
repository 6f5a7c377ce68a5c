//! HELLO of 1.0, malformed bodies, and permissions: every purpose with a chat by outsiders, members
//! and admins (protocol section 5).

use crate::support::api10::*;
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, client::login_body};

/// Ids that every form below needs.
#[derive(Clone, Copy)]
struct Ids {
    chat: u32,
    user: u32,
    message: u64,
}

/// A request that parses, and the lengths at which it may end early because the rest is optional.
struct Form {
    purpose: u8,
    good: Vec<u8>,
    optional_from: Vec<usize>,
}

fn form(purpose: u8, good: Body, optional_from: &[usize]) -> Form {
    Form { purpose, good: good.into(), optional_from: optional_from.to_vec() }
}

/// Every purpose of 1.0 that names a chat and needs no more than membership.
fn member_forms(ids: Ids) -> Vec<Form> {
    let chat = || body().id(ids.chat);
    vec![
        form(SEND_CHAT_MSG, chat().text("hi").u64(1), &[7]),
        form(REQUEST_CHAT_MSG, chat().time(0).time(1), &[12]),
        form(MARK_SEEN, chat().time(0), &[]),
        form(GET_MEMBERS, chat(), &[]),
        form(REQUEST_CHAT_PAGE, chat().u64(0).u16(10), &[]),
        form(SEARCH_MSG, chat().u16(10).text("word"), &[]),
        form(TYPING, chat(), &[]),
        form(EDIT_MSG, chat().u64(ids.message).text("new"), &[]),
        form(DELETE_MSG, chat().u64(ids.message), &[]),
        form(LEAVE_CHAT, chat(), &[]),
    ]
}

/// Every purpose of 1.0 that only an admin of the chat may ask for.
fn admin_forms(ids: Ids) -> Vec<Form> {
    let chat = || body().id(ids.chat);
    vec![
        form(RENAME_CHAT, chat().text("other-name"), &[]),
        form(SET_CHAT_TITLE, chat().text("a title"), &[]),
        form(SET_CHAT_PASSWORD, chat().text("open sesame"), &[4]),
        form(SET_CHAT_ADMIN, chat().id(ids.user).u8(1), &[]),
        form(SET_CHAT_BAN, chat().id(ids.user).u8(0), &[]),
        form(DELETE_CHAT, chat(), &[]),
    ]
}

/// The purposes of 1.0 that name no chat, or need no membership.
fn other_forms(ids: Ids) -> Vec<Form> {
    vec![
        form(CHANGE_PASSWORD, body().text(PASSWORD).text("new password"), &[]),
        form(GET_USER, body().id(ids.user), &[]),
        form(GET_SESSIONS, body(), &[]),
        form(END_SESSION, body().id(99), &[]),
        form(CREATE_CHAT, body().text("made").text("password"), &[5]),
        form(START_CHAT, body().id(ids.user), &[]),
        form(GET_CHAT, body().id(ids.chat), &[]),
        form(GET_MY_CHATS, body(), &[]),
        form(FIND_CHATS, body().text("h").u16(10), &[]),
        form(REQUEST_UPDATES, body().time(0), &[]),
    ]
}

/// anna is admin of `hall` and wrote a message, boris is a member, clara is not.
struct Hall {
    server: Server,
    anna: Client,
    boris: Client,
    clara: Client,
    ids: Ids,
}

fn hall() -> Hall {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _), (mut clara, user)] =
        server.users10(["anna", "boris", "clara"]);
    let chat = anna.create_chat("hall");
    boris.join(chat);
    let message = anna.send(chat, "hi").id;
    anna.drain();
    boris.drain();
    clara.drain();
    let ids = Ids { chat, user, message };
    Hall { server, anna, boris, clara, ids }
}

// HELLO.

/// HELLO 1.0 gives the version, the limits in force and the name of the server.
#[test]
fn hello_1_0() {
    let server = Server::start();
    let answer = server.connect().ask(HELLO, body().u8(1).u8(0)).accepted();
    let mut reader = Reader::new(&answer);
    assert_eq!((reader.u8(), reader.u8()), (1, 0));
    assert_eq!(reader.u32(), 64 * 1024, "max_body");
    assert_eq!(reader.u32(), 16 * 1024, "max_content");
    assert!(reader.text().to_lowercase().contains("vestnik"));
    reader.finish();
}

/// HELLO 1.x gives the highest 1.y that the server has.
#[test]
fn hello_1_x_gives_what_there_is() {
    let server = Server::start();
    for minor in [1, 2, 7, 255] {
        let answer = server.connect().ask(HELLO, body().u8(1).u8(minor)).accepted();
        assert_eq!(answer[..2], [1, 1]);
    }
}

/// The words of `unsupported-version` name all versions.
#[test]
fn both_versions_are_named() {
    let server = Server::start();
    let words = server.connect().ask(HELLO, body().u8(2).u8(0)).declined("unsupported-version");
    assert!(["0.1", "1.0", "1.1"].iter().all(|version| words.contains(version)), "{words}");
}

/// LOGIN and RESTORE_SESSION on 1.0 say the user's id; a session is the same on both versions.
#[test]
fn sessions_are_the_same_on_both_versions() {
    let server = Server::start();
    server.add_user("anna");
    let (session, user) = server.greeted10().login10("anna");
    let mut old = server.greeted();
    old.restore(&session);
    assert_eq!(old.user_id("anna"), user);
    assert_eq!(server.greeted10().restore10(&session), user);
    let session = server.greeted().login("anna");
    assert_eq!(server.greeted10().restore10(&session), user);
}

/// The version is one of the connection: 0.1 next to 1.0 does not know what is new.
#[test]
fn the_version_is_one_of_the_connection() {
    let mut hall = hall();
    let mut old = hall.server.login("anna");
    for form in member_forms(hall.ids).iter().chain(&other_forms(hall.ids)) {
        if form.purpose > MARK_SEEN {
            old.ask(form.purpose, form.good.clone()).declined("unknown-purpose");
        }
    }
    old.ask(SEND_CHAT_MSG, body().id(hall.ids.chat).text("hi").u64(1)).declined("malformed");
    hall.anna.chat(hall.ids.chat);
}

/// Bytes that 1.0 does not know are declined: those between its groups and behind them.
#[test]
fn unknown_purposes() {
    let mut hall = hall();
    for purpose in [0x05, 0x1F, 0x2B, 0x2F, 0x35, 0x37, 0x45, 0x47, 0x4E, 0x7F, 0xFF] {
        hall.anna.ask(purpose, body()).declined("unknown-purpose");
    }
}

/// Without a session everything of 1.0 but REGISTER_USER is `login-required`.
#[test]
fn greeted_connections_must_log_in() {
    let mut hall = hall();
    hall.anna.ask(LOGOFF, body()).accepted_empty();
    let ids = hall.ids;
    let forms = [member_forms(ids), admin_forms(ids), other_forms(ids)];
    for form in forms.iter().flatten() {
        hall.anna.ask(form.purpose, form.good.clone()).declined("login-required");
    }
    hall.anna.register("dora", PASSWORD).declined("registration-closed");
}

// Bodies that do not parse.

/// Every body of 1.0, cut at every byte and with bytes left over, is malformed, for an admin, and
/// changes nothing.
#[test]
fn short_and_long_bodies() {
    let mut hall = hall();
    let before = hall.anna.chat(hall.ids.chat);
    let ids = hall.ids;
    let forms = [member_forms(ids), admin_forms(ids), other_forms(ids)];
    for form in forms.iter().flatten() {
        for length in 0..form.good.len() {
            if !form.optional_from.contains(&length) {
                hall.anna.ask(form.purpose, &form.good[..length]).declined("malformed");
            }
        }
        for extra in [&[0][..], &[1], &[0xff; 9], &[0; 300]] {
            let mut longer = form.good.clone();
            longer.extend_from_slice(extra);
            hall.anna.ask(form.purpose, longer).declined("malformed");
        }
    }
    assert_eq!(hall.anna.chat(hall.ids.chat), before);
    hall.boris.expect_quiet();
}

/// REGISTER_USER cut at every byte and with bytes left over.
#[test]
fn register_malformed() {
    let server = Server::with(&["--registration", "open"]);
    let mut client = server.greeted10();
    let good: Vec<u8> = login_body("dora", PASSWORD).text("invite").into();
    let without_invite = good.len() - "invite\0".len();
    for length in (0..good.len()).filter(|length| *length != without_invite) {
        client.ask(REGISTER_USER, &good[..length]).declined("malformed");
    }
    let longer = [&good[..], &[0]].concat();
    client.ask(REGISTER_USER, longer).declined("malformed");
}

/// Texts that are not UTF-8 are malformed wherever they stand, and so is a NUL inside of one.
#[test]
fn bad_texts() {
    let mut hall = hall();
    let chat = || body().id(hall.ids.chat);
    for bad in [&b"\xff"[..], b"a\xc0\x80", b"\xed\xa0\x80", b"a\0b"] {
        let requests = [
            (CHANGE_PASSWORD, body().bytes(bad).u8(0).text("password")),
            (CHANGE_PASSWORD, body().text("password").bytes(bad).u8(0)),
            (CREATE_CHAT, body().text("name").bytes(bad).u8(0)),
            (RENAME_CHAT, chat().bytes(bad).u8(0)),
            (SET_CHAT_TITLE, chat().bytes(bad).u8(0)),
            (SET_CHAT_PASSWORD, chat().bytes(bad).u8(0)),
            (FIND_CHATS, body().bytes(bad).u8(0).u16(1)),
            (EDIT_MSG, chat().u64(1).bytes(bad).u8(0)),
            (SEARCH_MSG, chat().u16(1).bytes(bad).u8(0)),
        ];
        for (purpose, request) in requests {
            hall.anna.ask(purpose, request).declined("malformed");
        }
    }
}

/// Ids of 0 are malformed, but where 0 has a meaning.
#[test]
fn ids_of_zero() {
    let mut hall = hall();
    let chat = || body().id(hall.ids.chat);
    let none = || body().id(0);
    let requests = [
        (GET_USER, none()),
        (END_SESSION, none()),
        (LEAVE_CHAT, none()),
        (START_CHAT, none()),
        (DELETE_CHAT, none()),
        (RENAME_CHAT, none().text("name")),
        (SET_CHAT_TITLE, none().text("title")),
        (SET_CHAT_PASSWORD, none()),
        (SET_CHAT_ADMIN, none().id(1).u8(1)),
        (SET_CHAT_ADMIN, chat().id(0).u8(1)),
        (SET_CHAT_BAN, none().id(1).u8(1)),
        (SET_CHAT_BAN, chat().id(0).u8(1)),
        (GET_CHAT, none()),
        (GET_MEMBERS, none()),
        (EDIT_MSG, none().u64(1).text("new")),
        (EDIT_MSG, chat().u64(0).text("new")),
        (DELETE_MSG, none().u64(1)),
        (DELETE_MSG, chat().u64(0)),
        (REQUEST_CHAT_PAGE, none().u64(0).u16(1)),
        (TYPING, none()),
    ];
    for (purpose, request) in requests {
        hall.anna.ask(purpose, request).declined("malformed");
    }
    hall.anna.page(hall.ids.chat, 0, 1);
    hall.anna.search(0, 1, "hi");
}

/// A bool is 0 or 1, and a time is never negative.
#[test]
fn bools_and_times() {
    let mut hall = hall();
    let chat = || body().id(hall.ids.chat).id(hall.ids.user);
    for bad in [2, 0x80, 0xff] {
        for purpose in [SET_CHAT_ADMIN, SET_CHAT_BAN] {
            hall.anna.ask(purpose, chat().u8(bad)).declined("malformed");
        }
    }
    for bad in [-1, i64::MIN] {
        hall.anna.ask(REQUEST_UPDATES, body().time(bad)).declined("malformed");
    }
}

// Who may.

/// A chat that is not there is `no-such-chat` for every purpose with a chat.
#[test]
fn no_such_chat() {
    let mut hall = hall();
    let ids = Ids { chat: 99_999, ..hall.ids };
    let info = form(GET_CHAT, body().id(ids.chat), &[]);
    let forms = [member_forms(ids), admin_forms(ids), vec![info]];
    for form in forms.iter().flatten() {
        hall.anna.ask(form.purpose, form.good.clone()).declined("no-such-chat");
    }
}

/// Who is not a member gets `not-member` for every purpose with a chat, those of admins too.
#[test]
fn outsiders_are_not_members() {
    let mut hall = hall();
    let before = hall.anna.chat(hall.ids.chat);
    let forms = [member_forms(hall.ids), admin_forms(hall.ids)];
    for form in forms.iter().flatten() {
        hall.clara.ask(form.purpose, form.good.clone()).declined("not-member");
    }
    assert_eq!(hall.anna.chat(hall.ids.chat), before);
    hall.anna.expect_quiet();
    hall.boris.expect_quiet();
}

/// What only admins may is `forbidden` for a member, and changes nothing.
#[test]
fn members_are_not_admins() {
    let mut hall = hall();
    let before = hall.anna.chat(hall.ids.chat);
    for form in admin_forms(hall.ids) {
        hall.boris.ask(form.purpose, form.good).declined("forbidden");
    }
    hall.boris.ask(RENAME_CHAT, body().id(hall.ids.chat).text("")).declined("forbidden");
    assert_eq!(hall.anna.chat(hall.ids.chat), before);
    hall.anna.expect_quiet();
}

/// What members may, a member may; the author's purposes are declined for what others wrote.
#[test]
fn members_may() {
    let mut hall = hall();
    for form in member_forms(hall.ids) {
        let answer = hall.boris.ask_whole(form.purpose, form.good);
        match form.purpose {
            EDIT_MSG | DELETE_MSG => drop(answer.declined("forbidden")),
            _ => drop(answer.accepted()),
        }
    }
}

/// What admins may, an admin may.
#[test]
fn admins_may() {
    let mut hall = hall();
    hall.clara.join(hall.ids.chat);
    for form in admin_forms(hall.ids) {
        hall.anna.ask(form.purpose, form.good).accepted_empty();
    }
    hall.anna.ask(GET_CHAT, body().id(hall.ids.chat)).declined("no-such-chat");
}
