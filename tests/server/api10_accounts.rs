//! REGISTER_USER with invites, CHANGE_PASSWORD, GET_USER, GET_SESSIONS, END_SESSION (protocol
//! section 5).

use crate::support::api10::*;
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server};

fn open() -> Server {
    Server::with(&["--registration", "open"])
}

#[track_caller]
fn register_with_invite(client: &mut Client, name: &str, invite: &str) -> Frame {
    let request = body().text(name).text(PASSWORD).text(invite);
    client.ask(REGISTER_USER, request)
}

#[track_caller]
fn change_password(client: &mut Client, old: &str, new: &str) -> Frame {
    client.ask(CHANGE_PASSWORD, body().text(old).text(new))
}

// REGISTER_USER.

/// By default nobody registers, with or without an invite, though all else be wrong too.
#[test]
fn registration_is_closed_by_default() {
    let server = Server::start();
    let mut client = server.greeted10();
    for name in ["dora", ""] {
        client.register(name, PASSWORD).declined("registration-closed");
        register_with_invite(&mut client, name, "code").declined("registration-closed");
    }
}

/// Open registration makes a user who can log in at once; the connection is not logged in by it.
#[test]
fn open_registration() {
    let server = open();
    let mut client = server.greeted10();
    let answer = client.register("Dora", PASSWORD).accepted();
    let id = crate::support::client::read_id(&answer);
    client.ask(GET_MY_CHATS, body()).declined("login-required");
    let (_, user) = client.login10("dora");
    assert_eq!(user, id);
    assert_eq!(client.user(id).nickname, "Dora");
    client.register("other", PASSWORD).declined("already-authorized");
}

/// A registered user is there after a kill.
#[test]
fn registration_survives_a_kill() {
    let mut server = open();
    server.greeted10().register("dora", PASSWORD).accepted();
    server.kill();
    server.restart();
    server.login10("dora");
}

/// A name that somebody has, in any case and normal form, is `name-taken`.
#[test]
fn names_are_taken_in_any_case() {
    let server = open();
    server.add_user("Йожик");
    let mut client = server.greeted10();
    for name in ["Йожик", "йожик", "И\u{306}ожик"] {
        client.register(name, PASSWORD).declined("name-taken");
    }
    client.register("dora", PASSWORD).accepted();
    client.register("DORA", PASSWORD).declined("name-taken");
}

/// Names are of letters, digits, marks after a letter, and three signs; 1 to 32 scalars in NFC.
#[test]
fn names_that_may_and_may_not_be() {
    let server = open();
    let mut client = server.greeted10();
    let (longest, too_long) = ("ж".repeat(32), "ж".repeat(33));
    for bad in [
        "",
        &too_long,
        "two words",
        " dora",
        "a/b",
        "a@b",
        "tab\t",
        "line\n",
        "zero\u{200b}width",
        "right\u{202e}left",
        "smile😀",
        "\u{301}mark",
        "_\u{301}",
        "quo'te",
        "per%cent",
        "...",
    ] {
        client.register(bad, PASSWORD).declined("bad-name");
    }
    for good in ["d", &longest, "Zoe\u{308}", "_under-score.1", "7", "राम", "数学", "٣"] {
        client.register(good, PASSWORD).accepted();
    }
    // Decomposed it is 64 scalars, in NFC it is 32.
    client.register(&"й".repeat(32).replace('й', "и\u{306}"), PASSWORD).accepted();
}

/// A password has 8 characters at least and 256 bytes at most.
#[test]
fn passwords_have_8_characters_to_256_bytes() {
    let server = open();
    let mut client = server.greeted10();
    for bad in ["", "1234567", "пароль7", &"p".repeat(257), &"п".repeat(129)] {
        client.register("dora", bad).declined("bad-password");
    }
    let longest = "p".repeat(256);
    for (name, good) in [("one", "12345678"), ("two", "пароль77"), ("three", &longest)] {
        client.register(name, good).accepted();
        server.greeted10().login10_with(name, good);
    }
}

/// On 0.1 there is no registration, even where it is open.
#[test]
fn no_registration_on_0_1() {
    let server = open();
    server.greeted().register("dora", PASSWORD).declined("login-required");
}

/// Thirty registrations of an address, then `rate-limited` with the seconds to wait.
#[test]
fn registrations_of_an_address_are_limited() {
    let server = open();
    let mut client = server.greeted10();
    for number in 0..30 {
        client.register(&format!("user{number}"), PASSWORD).accepted();
    }
    let wait = client.register("onemore", PASSWORD).declined_with_number("rate-limited");
    assert!((1..=60).contains(&wait), "wait {wait} s");
}

/// With `--registration invite` a code is needed, and one code is good for as many as it says.
#[test]
fn registration_by_invite() {
    let server = Server::with(&["--registration", "invite"]);
    let code = server.admin_ok(&["invite", "add", "--uses", "2"], None);
    let code = code.trim_end();
    let mut client = server.greeted10();
    client.register("dora", PASSWORD).declined("bad-invite");
    for wrong in ["", "wrong", &format!("{code}x"), &code[1..]] {
        register_with_invite(&mut client, "dora", wrong).declined("bad-invite");
    }
    register_with_invite(&mut client, "one", code).accepted();
    register_with_invite(&mut client, "one", code).declined("name-taken");
    register_with_invite(&mut client, "bad name", code).declined("bad-name");
    register_with_invite(&mut client, "two", code).accepted();
    register_with_invite(&mut client, "three", code).declined("bad-invite");
    client.login10("two");
}

/// A removed code is good for nobody.
#[test]
fn a_removed_invite() {
    let server = Server::with(&["--registration", "invite"]);
    let code = server.admin_ok(&["invite", "add"], None);
    let code = code.trim_end();
    server.admin_ok(&["invite", "remove", code], None);
    register_with_invite(&mut server.greeted10(), "dora", code).declined("bad-invite");
}

// CHANGE_PASSWORD.

/// A new password ends the other sessions and not this one; only it opens the account from then on.
#[test]
fn change_password_ends_the_other_sessions() {
    let server = Server::start();
    server.add_user("anna");
    let (mut desk, mut phone) = (server.login10("anna"), server.greeted10());
    let (session, _) = phone.login10("anna");
    change_password(&mut desk, PASSWORD, "battery staple").accepted_empty();
    phone.expect(DEAUTH);
    phone.try_restore(&session).declined("bad-session");
    phone.ask(LOGIN, body().text("anna").text(PASSWORD)).declined("bad-credentials");
    phone.login10_with("anna", "battery staple");
    desk.my_chats();
    desk.expect_quiet();
}

/// The old password must be right, the new one of 8 to 256 bytes; nothing changes otherwise.
#[test]
fn change_password_declined() {
    let server = Server::start();
    server.add_user("anna");
    let (mut desk, mut phone) = (server.login10("anna"), server.login10("anna"));
    for wrong in ["", "wrong password", &"p".repeat(300)] {
        change_password(&mut desk, wrong, "battery staple").declined("bad-credentials");
    }
    for bad in ["", "1234567", &"p".repeat(257)] {
        change_password(&mut desk, PASSWORD, bad).declined("bad-password");
    }
    phone.expect_quiet();
    server.login10("anna");
}

/// Wrong old passwords are limited per user, over all connections.
#[test]
fn change_password_is_limited_by_failures() {
    let server = Server::start();
    server.add_user("anna");
    let mut anna = server.login10("anna");
    for _ in 0..5 {
        change_password(&mut anna, "wrong password", "battery staple").declined("bad-credentials");
    }
    let mut other = server.login10("anna");
    let wait = change_password(&mut other, PASSWORD, "battery staple")
        .declined_with_number("rate-limited");
    assert!((1..=10).contains(&wait), "wait {wait} s");
}

// GET_USER.

/// GET_USER shows the nickname as given, since when, and whether the user is online.
#[test]
fn get_user() {
    let server = Server::start();
    let [(mut anna, me), (boris, his)] = server.users10(["Anna", "Борис"]);
    let (mine, other) = (anna.user(me), anna.user(his));
    assert_eq!((mine.id, mine.nickname.as_str()), (me, "Anna"));
    assert_eq!((other.id, other.nickname.as_str()), (his, "Борис"));
    assert_eq!((mine.flags, other.flags), (ONLINE, ONLINE));
    assert!(mine.created > 0 && mine.created < other.created);
    drop(boris);
    crate::support::eventually(|| anna.user(his).flags == 0);
    for unknown in [99_999, u32::MAX] {
        anna.ask(GET_USER, body().id(unknown)).declined("no-such-user");
    }
}

// GET_SESSIONS and END_SESSION.

/// GET_SESSIONS lists my sessions and nobody else's, with which is this one and which are attached.
#[test]
fn get_sessions() {
    let server = Server::start();
    let [(mut anna, _), (_boris, _)] = server.users10(["anna", "boris"]);
    let mut phone = server.greeted10();
    let (attached, _) = phone.login10("anna");
    let mut gone = server.greeted10();
    let (away, _) = gone.login10("anna");
    gone.write_frame(DISCONNECT, 0, []);
    gone.expect_end();
    let sessions = anna.sessions();
    assert_eq!(sessions.len(), 3);
    for session in &sessions {
        assert!(session.address.contains("127.0.0.1"), "{session:?}");
        assert!(session.created > 0 && session.used >= session.created);
    }
    let flags = |id: u32| {
        let session = sessions.iter().find(|session| session.id == id);
        session.map(|session| session.flags)
    };
    assert_eq!(flags(attached.id), Some(ATTACHED));
    assert_eq!(flags(away.id), Some(0));
    let mine = sessions.iter().filter(|s| s.flags == ATTACHED | THIS_SESSION);
    assert_eq!(mine.count(), 1);
}

/// END_SESSION of another of my sessions gives it DEAUTH, attached or not.
#[test]
fn end_session() {
    let server = Server::start();
    server.add_user("anna");
    let (mut desk, mut phone) = (server.login10("anna"), server.greeted10());
    let (attached, _) = phone.login10("anna");
    let mut gone = server.greeted10();
    let (away, _) = gone.login10("anna");
    drop(gone);
    desk.ask(END_SESSION, body().id(attached.id)).accepted_empty();
    assert_eq!(phone.expect(DEAUTH), Frame::new(DEAUTH, 0, []));
    phone.try_restore(&attached).declined("bad-session");
    desk.ask(END_SESSION, body().id(away.id)).accepted_empty();
    phone.try_restore(&away).declined("bad-session");
    assert_eq!(desk.sessions().len(), 1);
    desk.ask(END_SESSION, body().id(away.id)).declined("bad-session");
}

/// A session of somebody else, or none, is `bad-session`.
#[test]
fn end_session_of_others() {
    let server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    let mut boris = server.greeted10();
    let (his, _) = boris.login10("boris");
    let mut anna = server.login10("anna");
    for id in [his.id, 99_999, u32::MAX] {
        anna.ask(END_SESSION, body().id(id)).declined("bad-session");
    }
    boris.my_chats();
    boris.expect_quiet();
}

/// END_SESSION of this very session leaves the connection greeted.
#[test]
fn end_this_session() {
    let server = Server::start();
    server.add_user("anna");
    let mut anna = server.greeted10();
    let (session, _) = anna.login10("anna");
    anna.ask(END_SESSION, body().id(session.id)).accepted_empty();
    anna.ask(GET_MY_CHATS, body()).declined("login-required");
    anna.try_restore(&session).declined("bad-session");
    anna.login10("anna");
}
