//! API 1.1, accounts: operators, reset codes, finding and disabling users (protocol section 5a).

use crate::support::api10::*;
use crate::support::people11::*;
use crate::support::wire::*;
use crate::support::{PASSWORD, Server, eventually};

const NEW: &str = "another password";

/// What every purpose of accounts, invites and chats says to those who may not use it.
#[test]
fn who_may_not_ask() {
    let server = Server::start();
    server.add_user("anna");
    // Without HELLO, without a session, and on older versions.
    for (purpose, request) in requests() {
        server.connect().ask(purpose, request.clone()).declined("hello-required");
        if purpose != SET_PASSWORD {
            server.greeted11().ask(purpose, request.clone()).declined("login-required");
        }
        server.login("anna").ask(purpose, request.clone()).declined("unknown-purpose");
        server.login10("anna").ask(purpose, request).declined("unknown-purpose");
    }
    for version in [0, 1] {
        let mut old = server.connect();
        old.hello(version, 1 - version);
        let request = body().text("anna").text("x").text(NEW);
        old.ask(SET_PASSWORD, request).declined("login-required");
    }
    server.login11("anna").set_password("anna", "x", NEW).declined("already-authorized");
}

/// A body that is short, long or senseless is malformed, and is so before anything else is wrong.
#[test]
fn malformed_bodies() {
    let server = Server::start();
    server.add_user("anna");
    let mut anna = server.login11("anna");
    let mut greeted = server.greeted11();
    for (purpose, request) in requests() {
        let whole: Vec<u8> = request.into();
        let client = if purpose == SET_PASSWORD { &mut greeted } else { &mut anna };
        client.ask(purpose, &whole[..whole.len() - 1]).declined("malformed");
        client.ask(purpose, []).declined("malformed");
        client.ask(purpose, [&whole[..], &[0]].concat()).declined("malformed");
    }
    for (purpose, request) in [
        (RESET_PASSWORD, body().id(0)),
        (SET_USER_DISABLED, body().id(1).u8(2)),
        (ADD_MEMBER, body().id(0).id(1)),
        (ADD_MEMBER, body().id(1).id(0)),
        (SET_CHAT_CLOSED, body().id(0).u8(1)),
        (SET_CHAT_CLOSED, body().id(1).u8(2)),
        (SET_CHAT_NOTIFY, body().id(1).u8(3)),
        (SET_CHAT_NOTIFY, body().id(0).u8(0)),
        (SUBSCRIBE_PUSH, body().text("https://a/")),
        (SUBSCRIBE_PUSH, body().text("").bytes(&[4; 81])),
        (CREATE_INVITE, body().u8(1).u16(0).u16(1).id(0)),
        (CREATE_INVITE, body().u8(1).u16(1).u16(0).id(0)),
        (CREATE_INVITE, body().u8(0).u16(1).u16(1).id(0)),
        (CREATE_INVITE, body().u8(2).u16(1).u16(1).id(0)),
        (FIND_USERS, body().bytes(b"\xff\0").u16(1)),
        (USE_INVITE, body().bytes(b"\xff\0")),
    ] {
        anna.ask(purpose, request).declined("malformed");
    }
}

/// LOGIN, RESTORE_SESSION and GET_USER show who is an operator on 1.1, and nothing of it on 1.0.
#[test]
fn flags_of_a_user() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    assert_eq!(boris.person(anna_id).flags, ONLINE);
    server.make_operator("anna");
    assert_eq!(boris.person(anna_id).flags, OPERATOR | ONLINE);
    assert_eq!(boris.person(anna_id).nickname, "anna");
    let mut again = server.greeted11();
    let answer = again.ask(LOGIN, body().text("anna").text(PASSWORD)).accepted();
    let mut reader = Reader::new(&answer);
    let (session, hash) = (reader.id(), reader.text());
    assert_eq!((reader.id(), reader.u8()), (anna_id, OPERATOR | ONLINE));
    let mut third = server.greeted11();
    let answer = third.ask(RESTORE_SESSION, body().id(session).text(&hash)).accepted();
    assert_eq!(answer[4], OPERATOR | ONLINE);
    server.admin_ok(&["user", "disable", "boris"], None);
    assert_eq!(anna.person(boris_id).flags, DISABLED);
    let mut old = server.login10("anna");
    assert_eq!(old.user(anna_id).flags, ONLINE);
    assert_eq!(old.user(boris_id).flags, 0);
    server.admin_ok(&["user", "set", "anna", "--operator", "off"], None);
    assert_eq!(anna.person(anna_id).flags, ONLINE);
}

/// A code by an operator sets a new password once, and ends all sessions of the user.
#[test]
fn a_password_is_reset_by_a_code() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    server.make_operator("anna");
    let (code, expires) = anna.reset_password(boris_id);
    let created = anna.person(boris_id).created;
    let day = 24 * 3600 * 1_000_000;
    assert!((created + day..created + day + 3600 * 1_000_000).contains(&expires), "{expires}");
    // Until it is used, the old password and the sessions stay.
    boris.expect_quiet();
    server.login11("boris");
    let mut guest = server.greeted11();
    let answer = guest.set_password("Boris", &code.to_uppercase(), NEW).accepted();
    assert_eq!(answer, boris_id.to_le_bytes());
    boris.expect_deauth();
    // Nothing is attached by it, and the code is used up.
    guest.ask(GET_SESSIONS, body()).declined("login-required");
    guest.set_password("boris", &code, NEW).declined("bad-code");
    guest.ask(LOGIN, body().text("boris").text(PASSWORD)).declined("bad-credentials");
    guest.login10_with("boris", NEW);
    // Operators reset their own as well.
    let (own, _) = anna.reset_password(anna_id);
    server.greeted11().set_password("anna", &own, NEW).accepted();
    anna.expect_deauth();
}

/// What makes a code a bad one, and what leaves it good.
#[test]
fn codes_that_are_bad() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    server.make_operator("anna");
    let (first, _) = anna.reset_password(boris_id);
    let (code, _) = anna.reset_password(boris_id);
    let (other, _) = anna.reset_password(anna_id);
    let mut guest = server.greeted11();
    guest.set_password("boris", &first, NEW).declined("bad-code");
    guest.set_password("boris", &other, NEW).declined("bad-code");
    guest.set_password("nobody", &code, NEW).declined("bad-code");
    guest.set_password("boris", "", NEW).declined("bad-code");
    // A declined one leaves the code good; the code is checked before the password.
    guest.set_password("boris", "x", "short").declined("bad-code");
    guest.set_password("boris", &code, "short").declined("bad-password");
    guest.set_password("boris", &code, &"x".repeat(257)).declined("bad-password");
    // What is declined costs nothing but a failure.
    guest.set_password("boris", &code, NEW).accepted();
    boris.expect_deauth();
    // An invite is none.
    let invite = server.invite(&[]);
    guest.set_password("anna", &invite, NEW).declined("bad-code");
    guest.set_password("anna", &other, NEW).accepted();
}

/// Any change of the password ends a code; that of a disabled user rests.
#[test]
fn codes_that_end() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    server.make_operator("anna");
    let mut guest = server.greeted11();
    let (code, _) = anna.reset_password(boris_id);
    boris.ask(CHANGE_PASSWORD, body().text(PASSWORD).text(NEW)).accepted_empty();
    guest.set_password("boris", &code, NEW).declined("bad-code");
    let (code, _) = anna.reset_password(boris_id);
    let passwd = ["user", "passwd", "boris", "--password-stdin", "--password-iterations", "9"];
    server.admin_ok(&passwd, Some(&format!("{PASSWORD}\n")));
    guest.set_password("boris", &code, NEW).declined("bad-code");
    let (code, _) = anna.reset_password(boris_id);
    // A login that hashes the same password anew is no change.
    server.login11("boris");
    server.admin_ok(&["user", "disable", "boris"], None);
    guest.set_password("boris", &code, NEW).declined("bad-code");
    server.admin_ok(&["user", "enable", "boris"], None);
    server.admin_ok(&["user", "rename", "boris", "bob"], None);
    guest.set_password("bob", &code, NEW).accepted();
}

/// Wrong codes for one login from one address are paced; right ones of others are not.
#[test]
fn guesses_at_a_code_are_limited() {
    let server = Server::start();
    let [(mut anna, _), (_boris, boris_id)] = server.users11(["anna", "boris"]);
    server.add_user("clara");
    server.make_operator("anna");
    let (code, _) = anna.reset_password(boris_id);
    let clara = anna.user_id("clara");
    let (claras, _) = anna.reset_password(clara);
    let mut guest = server.greeted11();
    for _ in 0..5 {
        guest.set_password("boris", "0000-0000-0000-0000-0000", NEW).declined("bad-code");
    }
    let wait = guest.set_password("boris", &code, NEW).declined_with_number("rate-limited");
    assert!((1..=10).contains(&wait), "{wait}");
    guest.set_password("BORIS", &code, NEW).declined("rate-limited");
    guest.set_password("clara", &claras, NEW).accepted();
    // A login has a bucket of its own.
    guest.login10("boris");
}

/// `user reset` makes the same code, and ends one made before.
#[test]
fn a_code_of_the_command_line() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    server.make_operator("anna");
    let (earlier, _) = anna.reset_password(boris_id);
    let printed = server.admin_ok(&["user", "reset", "boris"], None);
    let code = printed.trim_end();
    assert_eq!(printed, format!("{code}\n"), "the code alone");
    let mut guest = server.greeted11();
    guest.set_password("boris", &earlier, NEW).declined("bad-code");
    guest.set_password("boris", code, NEW).accepted();
    boris.expect_deauth();
    let url = ["--link", "--public-url", "https://chat.example.org"];
    let link = server.admin_ok(&[&["user", "reset", "boris"], &url[..]].concat(), None);
    assert!(link.starts_with("https://chat.example.org/#reset=boris:"), "{link}");
    let code = link.trim_end().rsplit(':').next().expect("a code").to_owned();
    guest.set_password("boris", &code, PASSWORD).accepted();
}

/// Members and admins of chats are no operators, and a command decides at once who is.
#[test]
fn only_operators_manage_users() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    anna.create_chat("hall");
    for id in [boris_id, anna_id, 999] {
        anna.ask(RESET_PASSWORD, body().id(id)).declined("forbidden");
        anna.disable(id, true).declined("forbidden");
    }
    server.make_operator("anna");
    anna.ask(RESET_PASSWORD, body().id(999)).declined("no-such-user");
    anna.disable(999, true).declined("no-such-user");
    anna.disable(anna_id, true).declined("forbidden");
    anna.disable(anna_id, false).declined("forbidden");
    anna.disable(boris_id, true).accepted_empty();
    boris.expect_deauth();
    boris.ask(LOGIN, body().text("boris").text(PASSWORD)).declined("bad-credentials");
    // What is so already stays so.
    anna.disable(boris_id, true).accepted_empty();
    anna.disable(boris_id, false).accepted_empty();
    boris.login10("boris");
    anna.disable(boris_id, false).accepted_empty();
    boris.expect_quiet();
    server.admin_ok(&["user", "set", "anna", "--operator", "off"], None);
    anna.disable(boris_id, true).declined("forbidden");
}

/// What is left of a removed account is no user to operators and admins.
#[test]
fn a_removed_account_stays_removed() {
    let server = Server::start();
    let [(mut anna, _), (boris, boris_id)] = server.users11(["anna", "boris"]);
    drop(boris);
    server.make_operator("anna");
    let chat = anna.create_chat("hall");
    server.admin_ok(&["user", "remove", "boris", "--yes"], None);
    anna.disable(boris_id, false).declined("no-such-user");
    anna.disable(boris_id, true).declined("no-such-user");
    anna.ask(RESET_PASSWORD, body().id(boris_id)).declined("no-such-user");
    anna.ask(ADD_MEMBER, body().id(chat).id(boris_id)).declined("no-such-user");
    anna.ask(START_CHAT, body().id(boris_id)).declined("no-such-user");
    // A disabled user is still there.
    server.add_user("clara");
    server.admin_ok(&["user", "disable", "clara"], None);
    let clara = boris_id + 1;
    anna.ask(RESET_PASSWORD, body().id(clara)).accepted();
    anna.disable(clara, false).accepted_empty();
}

/// FIND_USERS gives users by name, disabled ones to operators only.
#[test]
fn users_are_found_by_name() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, _)] = server.users11(["anna", "Boris"]);
    for name in ["annabel", "Анна", "clara"] {
        server.add_user(name);
    }
    server.admin_ok(&["user", "disable", "annabel"], None);
    let names = |found: Vec<Person>| -> Vec<String> {
        found.into_iter().map(|person| person.nickname).collect()
    };
    assert_eq!(names(boris.find_users("", 200)), ["anna", "Boris", "clara", "Анна"]);
    assert_eq!(names(boris.find_users("ANN", 200)), ["anna"]);
    assert_eq!(names(boris.find_users("анн", 200)), ["Анна"]);
    assert_eq!(names(boris.find_users("", 2)), ["anna", "Boris"]);
    assert_eq!(names(boris.find_users("", 0)), [""; 0]);
    assert_eq!(names(boris.find_users("nobody", 5)), [""; 0]);
    assert_eq!(names(boris.find_users(&"x".repeat(200), 5)), [""; 0]);
    server.make_operator("anna");
    let found = anna.find_users("an", 200);
    assert_eq!(names(found.clone()), ["anna", "annabel"]);
    assert_eq!(found[0].flags, OPERATOR | ONLINE);
    assert_eq!(found[1].flags, DISABLED);
    assert_eq!(found[0], anna.person(anna_id));
}

/// A limit above 200 gives 200, and more than one piece of them.
#[test]
fn at_most_two_hundred_users_are_found() {
    let server = Server::start();
    server.admin_ok(&["load", "prepare", "--users", "230"], None);
    server.add_user("anna");
    let mut anna = server.login11("anna");
    let found = anna.find_users("load", u16::MAX);
    assert_eq!(found.len(), 200);
    assert!(found.windows(2).all(|pair| pair[0].nickname < pair[1].nickname));
    assert_eq!(anna.find_users("load", 150).len(), 150);
}

/// With `--user-list operators` nobody else finds anybody.
#[test]
fn the_list_of_users_can_be_for_operators() {
    let server = Server::with(&["--user-list", "operators"]);
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    server.make_operator("anna");
    assert!(boris.find_users("", 200).is_empty());
    assert_eq!(anna.find_users("", 200).len(), 2);
    // Who is known by name is still found.
    boris.user_id("anna");
}

/// Another name, and what clients hear of it: the title of direct chats.
#[test]
fn a_user_is_renamed_by_the_command_line() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let direct = anna.start_chat(boris_id);
    boris.drain();
    server.admin_ok(&["user", "rename", "boris", "Robert"], None);
    let frame = anna.expect_within_a_second(CHAT_NOTIFY);
    let info = anna.reader(&frame.body).chat_info();
    assert_eq!((info.id, info.title.as_str()), (direct, "Robert"));
    boris.expect_quiet();
    assert_eq!(anna.person(boris_id).nickname, "Robert");
    anna.ask(GET_USER_ID, body().text("boris")).declined("no-such-user");
    server.login11("robert");
    let taken = server.admin(&["user", "rename", "robert", "ANNA"], None);
    assert_eq!(taken.status.code(), Some(1));
}

/// An account that is removed leaves its messages, its direct chats, and a free name.
#[test]
fn an_account_is_removed() {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let hall = boris.create_chat("hall");
    anna.join(hall);
    boris.send(hall, "still here");
    let direct = boris.start_chat(anna_id);
    anna.drain();
    boris.drain();
    server.admin_ok(&["user", "remove", "boris", "--yes"], None);
    eventually(|| anna.members(hall).len() == 1);
    boris.expect_deauth();
    let events: Vec<u8> = anna.drain().iter().map(|frame| frame.purpose).collect();
    assert!(events.contains(&MEMBER_NOTIFY) && events.contains(&CHAT_NOTIFY), "{events:?}");
    assert!(anna.members(hall)[0].flags & MEMBER_ADMIN != 0, "anna is the heir");
    assert_eq!(contents(&anna.range(hall, 0, None)), ["still here"]);
    let gone = anna.person(boris_id);
    assert_eq!((gone.flags, gone.nickname), (DISABLED, format!("deleted-{boris_id}")));
    assert_eq!(anna.chat(direct).title, format!("deleted-{boris_id}"));
    // The name is free, and the new account is another.
    server.add_user("boris");
    assert_ne!(anna.user_id("boris"), boris_id);
    assert!(server.login11("boris").my_chats().is_empty());
    server.admin_ok(&["check"], None);
}
