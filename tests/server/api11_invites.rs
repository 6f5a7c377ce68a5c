//! API 1.1, invites: created, listed, ended and used by requests and by commands (protocol section
//! 5a).

use std::thread;

use crate::support::api10::*;
use crate::support::people11::*;
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server};

const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// A code in the form of one that nobody made.
const NO_CODE: &str = "0000-0000-0000-0000-0000";

/// An operator with a connection, and a member of nothing.
fn operator(server: &Server, name: &str) -> Client {
    server.add_user(name);
    server.make_operator(name);
    server.login11(name)
}

/// Who may make which invites, with everything in the order of section 3.
#[test]
fn who_makes_invites() {
    let server = Server::with(&["--registration", "invite"]);
    let [(mut admin, _), (mut member, _)] = server.users11(["admin", "member"]);
    let [(mut outsider, _)] = server.users11(["outsider"]);
    let mut operator = operator(&server, "operator");
    let hall = admin.create_chat("hall");
    member.join(hall);
    let other = member.user_id("admin");
    let direct = member.start_chat(other);
    for client in [&mut admin, &mut member, &mut outsider, &mut operator] {
        client.try_invite(true, 1, 1, 999).declined("no-such-chat");
        client.try_invite(false, 1, 1, 999).declined("no-such-chat");
    }
    for registers in [true, false] {
        outsider.try_invite(registers, 1, 1, hall).declined("not-member");
        operator.try_invite(registers, 1, 1, hall).declined("not-member");
        member.try_invite(registers, 1, 1, hall).declined("forbidden");
        member.try_invite(registers, 1, 1, direct).declined("forbidden");
        outsider.try_invite(registers, 1, 1, direct).declined("no-such-chat");
    }
    for client in [&mut admin, &mut member, &mut outsider] {
        client.try_invite(true, 1, 1, 0).declined("forbidden");
    }
    admin.try_invite(true, 1, 1, hall).declined("forbidden");
    admin.try_invite(false, 1, 1, hall).accepted();
    operator.try_invite(true, 1, 1, 0).accepted();
    // An operator needs to be the chat's admin like anybody.
    operator.join(hall);
    operator.try_invite(true, 1, 1, hall).declined("forbidden");
    let id = admin.user_id("operator");
    admin.set_admin(hall, id, true).accepted_empty();
    operator.try_invite(true, 1, 1, hall).accepted();
}

/// `--invites-by admins` lets admins make invites to their chat that register.
#[test]
fn admins_may_make_invites_that_register() {
    let server = Server::with(&["--registration", "invite", "--invites-by", "admins"]);
    let [(mut admin, _), (mut member, _)] = server.users11(["admin", "member"]);
    let hall = admin.create_chat("hall");
    member.join(hall);
    admin.try_invite(true, 1, 1, 0).declined("forbidden");
    member.try_invite(true, 1, 1, hall).declined("forbidden");
    let code = admin.create_invite(true, 1, hall);
    assert_eq!(admin.invites(hall).len(), 1);
    let mut guest = server.greeted11();
    guest.register_with("clara", &code).accepted();
    assert_eq!(admin.members(hall).len(), 3);
}

/// What a new member and the others hear of an invite that is used.
#[test]
fn an_invite_makes_a_member() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let mut phone = server.login11("boris");
    let hall = anna.create_chat("hall");
    // The password of the chat is not asked for.
    anna.ask(SET_CHAT_PASSWORD, body().id(hall).text("secret")).accepted_empty();
    let code = anna.create_invite(false, 2, hall);
    let answer = boris.use_invite(&code.to_uppercase().replace('-', " ")).accepted();
    assert_eq!(answer, hall.to_le_bytes());
    boris.expect_quiet();
    assert_eq!(phone.chat_notify().id, hall);
    let joined = anna.member_event();
    assert_eq!((joined.chat, joined.user, joined.event), (hall, boris_id, JOINED));
    anna.send(hall, "welcome");
    assert_eq!(contents(&boris.notified(hall, 1)), ["welcome"]);
    // A member uses nothing up.
    boris.use_invite(&code).accepted();
    assert_eq!(anna.invites(hall)[0].uses_left, 1);
    anna.expect_quiet();
    server.add_user("clara");
    server.login11("clara").use_invite(&code).accepted();
    assert!(anna.invites(hall).is_empty(), "it is used up");
    // Used up it is bad even for its members.
    boris.use_invite(&code).declined("bad-invite");
}

/// Invites that cannot be used to join.
#[test]
fn invites_that_are_bad() {
    let server = Server::with(&["--registration", "invite"]);
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let mut operator = operator(&server, "operator");
    let hall = anna.create_chat("hall");
    let attic = anna.create_chat("attic");
    let to_attic = anna.create_invite(false, 1, attic);
    let registers = operator.create_invite(true, 1, 0);
    let banned = anna.create_invite(false, 1, hall);
    let ended = anna.create_invite(false, 1, hall);
    anna.end_invite(&ended[..7]).accepted_empty();
    anna.ask(DELETE_CHAT, body().id(attic)).accepted_empty();
    anna.set_ban(hall, boris_id, true).accepted_empty();
    boris.use_invite(&banned).declined("forbidden");
    anna.set_ban(hall, boris_id, false).accepted_empty();
    for code in [&*to_attic, &registers, &ended, "", NO_CODE] {
        boris.use_invite(code).declined("bad-invite");
    }
    // Five failures of a user, from whatever connection; what was declined `forbidden` is none.
    server.login11("boris").use_invite(&banned).declined_with_number("rate-limited");
    anna.use_invite(&banned).accepted();
}

/// GET_INVITES: those still good, the oldest first, to admins and to operators.
#[test]
fn invites_are_listed() {
    let server = Server::with(&["--registration", "invite"]);
    let [(mut anna, anna_id), (mut boris, _)] = server.users11(["anna", "boris"]);
    let mut operator = operator(&server, "operator");
    let hall = anna.create_chat("hall");
    let other = boris.create_chat("other");
    let first = anna.create_invite(false, 3, hall);
    let second = anna.create_invite(false, 1, hall);
    boris.create_invite(false, 1, other);
    let third = operator.create_invite(true, 1, 0);
    let by_command = server.invite(&["--chat", "hall", "--days", "2", "--uses", "65535"]);
    // An older version accepted more uses than this field can hold.
    let db = rusqlite::Connection::open(server.data()).expect("the database");
    db.execute_batch("UPDATE invites SET uses_left = 70000 WHERE uses_left = 65535").expect("room");
    let found = anna.invites(hall);
    let hints: Vec<&str> = found.iter().map(|invite| invite.hint.as_str()).collect();
    assert_eq!(hints, [&first[..7], &second[..7]], "those that register are for operators");
    assert_eq!((found[0].uses_left, found[0].creator, found[0].chat), (3, anna_id, hall));
    assert_eq!(found[0].expires - found[0].created, 7 * DAY_US);
    assert!(!found[0].registers);
    boris.ask(GET_INVITES, body().id(hall)).declined("not-member");
    boris.ask(GET_INVITES, body().id(0)).declined("forbidden");
    boris.ask(GET_INVITES, body().id(999)).declined("no-such-chat");
    anna.ask(GET_INVITES, body().id(0)).declined("forbidden");
    operator.ask(GET_INVITES, body().id(hall)).declined("not-member");
    let all = operator.later_invites();
    assert_eq!(all.len(), 5);
    assert!(all.windows(2).all(|pair| pair[0].created <= pair[1].created));
    let own = all.iter().find(|invite| third.starts_with(&invite.hint)).expect("the third");
    assert!(own.registers && own.chat == 0);
    let command = all.iter().find(|invite| by_command.starts_with(&invite.hint)).expect("one");
    assert_eq!((command.creator, command.uses_left, command.registers), (0, u16::MAX, true));
    assert_eq!(command.expires - command.created, 2 * DAY_US);
    // As a member an operator sees those of the chat, admin or not.
    operator.join(hall);
    assert_eq!(operator.invites(hall).len(), 3);
    boris.join(hall);
    boris.ask(GET_INVITES, body().id(hall)).declined("forbidden");
}

/// END_INVITE: admins those of their chats that do not register, operators any.
#[test]
fn invites_are_ended() {
    let server = Server::with(&["--registration", "invite"]);
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    let mut operator = operator(&server, "operator");
    boris.end_invite("0000-00").declined("forbidden");
    let hall = anna.create_chat("hall");
    boris.create_chat("other");
    let code = anna.create_invite(false, 3, hall);
    let registers = operator.create_invite(true, 1, 0);
    let both = server.invite(&["--chat", "hall"]);
    boris.end_invite(&code[..7]).declined("forbidden");
    anna.end_invite(&registers[..7]).declined("forbidden");
    anna.end_invite(&both[..7]).declined("forbidden");
    anna.end_invite("0000-00").declined("bad-invite");
    anna.end_invite("").declined("bad-invite");
    anna.end_invite(&code).declined("bad-invite");
    anna.end_invite(&code[..7].to_uppercase()).accepted_empty();
    anna.end_invite(&code[..7]).declined("bad-invite");
    boris.use_invite(&code).declined("bad-invite");
    operator.end_invite(&registers[..7]).accepted_empty();
    operator.end_invite(&both[..7]).accepted_empty();
    assert!(operator.later_invites().is_empty());
    // A former admin's stay good until they are ended.
    let code = anna.create_invite(false, 3, hall);
    boris.join(hall);
    let id = anna.user_id("boris");
    anna.set_admin(hall, id, true).accepted_empty();
    anna.leave(hall);
    server.add_user("clara");
    server.login11("clara").use_invite(&code).accepted();
    anna.end_invite(&code[..7]).declined("forbidden");
    boris.end_invite(&code[..7]).accepted_empty();
}

/// Registering by an invite, on 1.0 as well: once a use, and into its chat.
#[test]
fn registering_by_an_invite() {
    let server = Server::with(&["--registration", "invite"]);
    let mut operator = operator(&server, "operator");
    let hall = operator.create_chat("hall");
    let code = operator.create_invite(true, 2, hall);
    operator.drain();
    let mut old = server.greeted10();
    let clara = old.register_with("clara", &code).accepted();
    let joined = operator.member_event();
    assert_eq!((joined.chat, joined.event, &*joined.nickname), (hall, JOINED, "clara"));
    assert_eq!(joined.user.to_le_bytes()[..], clara[..]);
    let mut clara = server.login10("clara");
    assert_eq!(clara.my_chats().len(), 1);
    clara.send(hall, "thanks");
    let mut new = server.greeted11();
    // Declined ones leave it good.
    new.register_with("clara", &code).declined("name-taken");
    new.register_with("a b", &code).declined("bad-name");
    new.ask(REGISTER_USER, body().text("dora").text("short").text(&code)).declined("bad-password");
    new.register("dora", PASSWORD).declined("bad-invite");
    new.register_with("dora", &code).accepted();
    new.register_with("eve", &code).declined("bad-invite");
    // One that does not register is none here.
    let joins = operator.create_invite(false, 2, hall);
    new.register_with("eve", &joins).declined("bad-invite");
    // A chat that is gone makes it bad.
    let code = operator.create_invite(true, 2, hall);
    operator.ask(DELETE_CHAT, body().id(hall)).accepted_empty();
    new.register_with("eve", &code).declined("bad-invite");
}

/// Wrong invites of those who register are paced by their address.
#[test]
fn guesses_at_an_invite_are_limited() {
    let server = Server::with(&["--registration", "invite"]);
    let mut guest = server.greeted11();
    for _ in 0..5 {
        guest.register_with("anna", NO_CODE).declined("bad-invite");
    }
    guest.register_with("anna", NO_CODE).declined_with_number("rate-limited");
    let good = server.invite(&[]);
    server.greeted10().register_with("anna", &good).declined("rate-limited");
}

/// Where registration is open, an invite that is given is checked and used on 1.1; on 1.0 one that
/// is none is ignored.
#[test]
fn invites_where_registration_is_open() {
    let server = Server::with(&["--registration", "open"]);
    let [(mut anna, _)] = server.users11(["anna"]);
    server.make_operator("anna");
    let hall = anna.create_chat("hall");
    let code = anna.create_invite(true, 2, hall);
    let (mut old, mut new) = (server.greeted10(), server.greeted11());
    new.register_with("b1", NO_CODE).declined("bad-invite");
    old.register_with("b2", NO_CODE).accepted();
    new.register("b3", PASSWORD).accepted();
    new.register_with("b4", &code).accepted();
    old.register_with("b5", &code).accepted();
    assert_eq!(anna.members(hall).len(), 3);
    new.register_with("b6", &code).declined("bad-invite");
    old.register_with("b7", &code).accepted();
    assert_eq!(anna.members(hall).len(), 3);
}

/// Where registration is closed no invite registers, and nobody makes one that does.
#[test]
fn invites_where_registration_is_closed() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    server.make_operator("anna");
    let hall = anna.create_chat("hall");
    anna.try_invite(true, 1, 1, 0).declined("forbidden");
    anna.try_invite(true, 1, 1, hall).declined("forbidden");
    let both = server.invite(&["--chat", "hall"]);
    server.greeted11().register_with("clara", &both).declined("registration-closed");
    // Its other half works.
    boris.use_invite(&both).accepted();
    // During a lockdown nobody comes in at all.
    let code = anna.create_invite(false, 1, hall);
    server.admin_ok(&["lockdown", "on"], None);
    server.add_user("dora");
    let mut dora = server.login11("dora");
    dora.use_invite(&code).declined("forbidden");
    let dora_id = anna.user_id("dora");
    anna.add_member(hall, dora_id).declined("forbidden");
    server.admin_ok(&["lockdown", "off"], None);
    dora.use_invite(&code).accepted();
}

/// Of many who use an invite at once exactly as many succeed as it has uses.
#[test]
fn the_last_use_is_used_once() {
    let server = Server::with(&["--registration", "open"]);
    server.admin_ok(&["load", "prepare", "--users", "12"], None);
    server.add_user("anna");
    let mut anna = server.login11("anna");
    let hall = anna.create_chat("hall");
    let code = anna.create_invite(false, 5, hall);
    let racers: Vec<_> = (0..12)
        .map(|number| {
            let mut racer = server.greeted11();
            racer.login10_with(&format!("load{number}"), "load-password");
            let code = code.clone();
            thread::spawn(move || racer.use_invite(&code).purpose == ACCEPTED)
        })
        .collect();
    let won = racers.into_iter().map(|racer| racer.join().expect("no panic"));
    assert_eq!(won.filter(|won| *won).count(), 5);
    assert_eq!(anna.members(hall).len(), 6);
}

/// The first invite of a server: registers an operator, whatever `--registration` says.
#[test]
fn the_first_invite_makes_an_operator() {
    use vestnik::auth::token::InviteCode;
    use vestnik::ids::ServerTime;
    use vestnik::store::invites::Invite;
    use vestnik::store::{Database, Store};
    let server = Server::start();
    let code = {
        let database = Database::open_command(&server.data(), false).expect("the database");
        let mut store = Store::new(&database).expect("its tables");
        let code = InviteCode::generate(&ring::rand::SystemRandom::new()).expect("randomness");
        let invite = Invite {
            hint: code.hint(),
            uses_left: 1,
            expires: ServerTime::MAX,
            created: ServerTime::new(1).expect("positive"),
            registers: true,
            operator: true,
            chat: None,
            creator: None,
        };
        store.add_invite(&code.digest().0, &invite).expect("stored");
        store.commit().expect("stored");
        code.expose()
    };
    let mut first = server.greeted11();
    first.register("anna", PASSWORD).declined("registration-closed");
    first.register_with("anna", NO_CODE).declined("registration-closed");
    first.register_with("anna", &code).accepted();
    first.register_with("boris", &code).declined("registration-closed");
    let mut anna = server.login11("anna");
    let id = anna.user_id("anna");
    assert_eq!(anna.person(id).flags, OPERATOR | ONLINE);
}

/// Invites of the command line, with links and QR codes, and what a list shows.
#[test]
fn invites_of_the_command_line() {
    let server = Server::with(&["--registration", "invite"]);
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    let url = ["--link", "--public-url", "https://chat.example.org"];
    let link = server.invite(&[&["--chat", "hall", "--no-register"], &url[..]].concat());
    let code = link.strip_prefix("https://chat.example.org/#invite=").expect("a link").to_owned();
    server.greeted11().register_with("clara", &code).declined("bad-invite");
    boris.use_invite(&code).accepted();
    let own = anna.create_invite(false, 4, hall);
    let list = server.admin_ok(&["invite", "list", "--json"], None);
    let list: serde_json::Value = serde_json::from_str(&list).expect("one JSON value");
    let entries = list.as_array().expect("an array");
    let of = |code: &str| {
        entries.iter().find(|entry| entry["code"] == code[..7]).expect("an entry of the list")
    };
    let entry = of(&own);
    assert_eq!(
        (&entry["uses"], &entry["chat"], &entry["by"]),
        (&4.into(), &"hall".into(), &"anna".into())
    );
    assert_eq!((&entry["registers"], &entry["state"]), (&false.into(), &"good".into()));
    assert_eq!(of(&code)["by"], serde_json::Value::Null);
    server.admin_ok(&["invite", "remove", &own], None);
    assert!(anna.invites(hall).is_empty());
    let qr = server.admin_ok(&[&["invite", "add", "--qr"], &url[..]].concat(), None);
    assert!(qr.lines().count() > 10 && qr.contains('█'), "{qr}");
    let refused = server.admin(&["invite", "add", "--link"], None);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = server.admin(&["invite", "add", "--no-register"], None);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = server.admin(&["invite", "add", "--chat", "nowhere"], None);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}
