//! Every row of protocol section 5: each purpose is accepted, declined with each code of its row,
//! and malformed.
//!
//! The rows are read from docs/protocol.md, so a new row needs a test.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::api10::*;
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server};

/// What stands for an ACCEPTED among the codes.
const GOOD: &str = "accepted";

/// The names and bytes of the rows, each with all that it can be answered.
fn rows() -> BTreeSet<(u8, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let section = page.split("\n## 5.").nth(1).expect("section 5");
    let table = section.split("\nTo the server").nth(1).expect("its table");
    let table = table.split("\nTo the client").next().expect("its end");
    let mut rows = BTreeSet::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| 0x")) {
        let cells: Vec<&str> = row.split(" |").map(str::trim).collect();
        let byte = u8::from_str_radix(cells[0], 16).expect("a byte");
        let codes = cells[4].split(", ").map(|code| code.split(" (").next().expect("a code"));
        for code in codes.chain([GOOD, "malformed"]).filter(|code| !code.is_empty()) {
            rows.insert((byte, code.to_owned()));
        }
    }
    rows
}

/// Which answers were seen.
#[derive(Default)]
struct Seen(BTreeSet<(u8, String)>);

impl Seen {
    #[track_caller]
    fn accepted(&mut self, client: &mut Client, purpose: u8, request: Body) -> Vec<u8> {
        self.0.insert((purpose, GOOD.to_owned()));
        let mut answer = client.ask_whole(purpose, request.clone());
        // On a slow disk, the index may be late.
        while purpose == SEARCH_MSG && answer.body.starts_with(b"not-ready") {
            answer = client.ask_whole(purpose, request.clone());
        }
        answer.accepted()
    }

    #[track_caller]
    fn declined(&mut self, client: &mut Client, purpose: u8, request: Body, code: &str) {
        client.ask_whole(purpose, request).declined(code);
        self.0.insert((purpose, code.to_owned()));
    }

    /// Asks again and again until it is too often.
    #[track_caller]
    fn limited(&mut self, client: &mut Client, purpose: u8, request: impl Fn(usize) -> Body) {
        for n in 0..64 {
            let answer = client.ask_whole(purpose, request(n));
            if answer.purpose == DECLINED && answer.body.starts_with(b"rate-limited") {
                answer.declined_with_number("rate-limited");
                self.0.insert((purpose, "rate-limited".to_owned()));
                return;
            }
        }
        panic!("64 times is not too often for {purpose:#x}");
    }
}

/// Purposes about users and sessions.
fn accounts(seen: &mut Seen) {
    let person = |name: &str, password: &str| body().text(name).text(password);
    let server = Server::start();
    let closed = &mut server.greeted10();
    seen.declined(closed, REGISTER_USER, person("dora", PASSWORD), "registration-closed");
    let server = Server::with(&["--registration", "invite"]);
    let by_invite = person("dora", PASSWORD).text("a code");
    seen.declined(&mut server.greeted10(), REGISTER_USER, by_invite, "bad-invite");

    let server = Server::with(&["--registration", "open"]);
    let [(mut anna, anna_id)] = server.users10(["anna"]);
    let new = &mut server.greeted10();
    seen.declined(new, REGISTER_USER, body(), "malformed");
    seen.declined(new, REGISTER_USER, person("ANNA", PASSWORD), "name-taken");
    seen.declined(new, REGISTER_USER, person("a b", PASSWORD), "bad-name");
    seen.declined(new, REGISTER_USER, person("dora", "short"), "bad-password");
    seen.accepted(new, REGISTER_USER, person("dora", PASSWORD));
    seen.limited(new, REGISTER_USER, |n| person(&format!("dora{n}"), PASSWORD));

    let anna = &mut anna;
    seen.declined(anna, CHANGE_PASSWORD, body(), "malformed");
    seen.declined(anna, CHANGE_PASSWORD, person("wrong word", PASSWORD), "bad-credentials");
    seen.declined(anna, CHANGE_PASSWORD, person(PASSWORD, "short"), "bad-password");
    seen.accepted(anna, CHANGE_PASSWORD, person(PASSWORD, "another one"));
    seen.limited(anna, CHANGE_PASSWORD, |_| person("wrong word", PASSWORD));
    seen.accepted(anna, GET_USER, body().id(anna_id));
    seen.declined(anna, GET_USER, body().id(99_999), "no-such-user");
    seen.declined(anna, GET_USER, body().id(0), "malformed");
    seen.accepted(anna, GET_SESSIONS, body());
    seen.declined(anna, GET_SESSIONS, body().u8(0), "malformed");
    let (other, _) = server.greeted10().login10_with("anna", "another one");
    seen.accepted(anna, END_SESSION, body().id(other.id));
    seen.declined(anna, END_SESSION, body().id(other.id), "bad-session");
    seen.declined(anna, END_SESSION, body(), "malformed");
}

/// Purposes about chats and who is in them.
fn chats(seen: &mut Seen) {
    let server = Server::start();
    let [(mut anna, anna_id), (mut boris, boris_id), (mut clara, clara_id)] =
        server.users10(["anna", "boris", "clara"]);
    let (anna, boris, clara) = (&mut anna, &mut boris, &mut clara);
    seen.accepted(anna, CREATE_CHAT, body().text("hall"));
    let hall = anna.chat_id("hall");
    let chat = || body().id(hall);
    seen.declined(anna, CREATE_CHAT, body().text("Hall"), "name-taken");
    seen.declined(anna, CREATE_CHAT, body().text("a b"), "bad-name");
    seen.declined(anna, CREATE_CHAT, body().text("attic").text(""), "bad-password");
    seen.declined(anna, CREATE_CHAT, body(), "malformed");
    anna.create_chat("attic");
    boris.join(hall);
    let direct = {
        let answer = seen.accepted(anna, START_CHAT, body().id(boris_id));
        Reader::new(&answer).id()
    };
    seen.declined(anna, START_CHAT, body().id(anna_id), "no-such-user");
    seen.declined(anna, START_CHAT, body(), "malformed");

    // (purpose, what follows the chat, codes for an admin by what follows)
    let long = "x".repeat(129);
    seen.declined(anna, RENAME_CHAT, chat().text("attic"), "name-taken");
    seen.declined(anna, RENAME_CHAT, chat().text("a b"), "bad-name");
    seen.accepted(anna, RENAME_CHAT, chat().text("salon"));
    seen.declined(anna, SET_CHAT_TITLE, chat().text(&long), "too-long");
    seen.accepted(anna, SET_CHAT_TITLE, chat().text("a title"));
    seen.declined(anna, SET_CHAT_PASSWORD, chat().text(""), "bad-password");
    seen.accepted(anna, SET_CHAT_PASSWORD, chat());
    seen.declined(anna, SET_CHAT_ADMIN, chat().id(clara_id).u8(1), "not-member");
    seen.declined(anna, SET_CHAT_ADMIN, chat().id(anna_id).u8(0), "last-admin");
    seen.declined(anna, SET_CHAT_BAN, chat().id(99_999).u8(1), "no-such-user");
    seen.accepted(anna, SET_CHAT_BAN, chat().id(clara_id).u8(1));
    seen.accepted(anna, SET_CHAT_BAN, chat().id(clara_id).u8(0));
    let admins = || {
        [
            (RENAME_CHAT, body().text("other")),
            (SET_CHAT_TITLE, body().text("other")),
            (SET_CHAT_PASSWORD, body().text("other")),
            (SET_CHAT_ADMIN, body().id(boris_id).u8(1)),
            (SET_CHAT_BAN, body().id(anna_id).u8(1)),
            (DELETE_CHAT, body()),
        ]
    };
    for (purpose, rest) in admins() {
        let rest: Vec<u8> = rest.into();
        seen.declined(boris, purpose, chat().bytes(&rest), "forbidden");
        seen.declined(anna, purpose, body().id(direct).bytes(&rest), "forbidden");
        seen.declined(clara, purpose, chat().bytes(&rest), "not-member");
        seen.declined(anna, purpose, chat().bytes(&rest).bytes(b"\x01\x02"), "malformed");
    }
    seen.accepted(anna, SET_CHAT_ADMIN, chat().id(boris_id).u8(1));

    seen.accepted(clara, GET_CHAT, chat());
    seen.declined(clara, GET_CHAT, body().id(direct), "no-such-chat");
    seen.declined(clara, GET_CHAT, body(), "malformed");
    seen.accepted(anna, GET_MY_CHATS, body());
    seen.declined(anna, GET_MY_CHATS, body().u8(1), "malformed");
    seen.accepted(anna, GET_MEMBERS, chat());
    seen.declined(clara, GET_MEMBERS, chat(), "not-member");
    seen.declined(anna, GET_MEMBERS, body(), "malformed");
    seen.accepted(anna, FIND_CHATS, body().text("s").u16(5));
    seen.declined(anna, FIND_CHATS, body().text("s"), "malformed");
    seen.declined(clara, LEAVE_CHAT, chat(), "not-member");
    seen.declined(boris, LEAVE_CHAT, body().id(direct), "forbidden");
    seen.declined(boris, LEAVE_CHAT, body(), "malformed");
    seen.accepted(boris, LEAVE_CHAT, chat());
    seen.accepted(anna, DELETE_CHAT, chat());
}

/// Purposes about messages.
fn messages(seen: &mut Seen) {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _), (mut clara, _)] =
        server.users10(["anna", "boris", "clara"]);
    let (anna, boris, clara) = (&mut anna, &mut boris, &mut clara);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let id = anna.send(hall, "some words").id;
    let chat = || body().id(hall);
    let text = |words: &str| chat().u64(id).text(words);
    seen.accepted(anna, EDIT_MSG, text("other words"));
    seen.declined(clara, EDIT_MSG, text("other words"), "not-member");
    seen.declined(boris, EDIT_MSG, text("other words"), "forbidden");
    seen.declined(anna, EDIT_MSG, chat().u64(id + 1).text("words"), "no-such-message");
    seen.declined(anna, EDIT_MSG, text(""), "empty-message");
    seen.declined(anna, EDIT_MSG, text(&"x".repeat(16 * 1024 + 1)), "too-long");
    seen.declined(anna, EDIT_MSG, chat().u64(id), "malformed");
    seen.accepted(boris, REQUEST_CHAT_PAGE, chat().u64(0).u16(5));
    seen.declined(clara, REQUEST_CHAT_PAGE, chat().u64(0).u16(5), "not-member");
    seen.declined(boris, REQUEST_CHAT_PAGE, chat().u64(0), "malformed");
    seen.accepted(boris, SEARCH_MSG, chat().u16(5).text("other"));
    seen.declined(clara, SEARCH_MSG, chat().u16(5).text("other"), "not-member");
    seen.declined(boris, SEARCH_MSG, chat().u16(5).text("-- *"), "bad-query");
    seen.declined(boris, SEARCH_MSG, chat().u16(5), "malformed");
    seen.accepted(clara, REQUEST_UPDATES, body().time(0));
    seen.declined(clara, REQUEST_UPDATES, body().time(-1), "malformed");
    seen.accepted(boris, TYPING, chat());
    seen.declined(clara, TYPING, chat(), "not-member");
    seen.declined(boris, TYPING, body(), "malformed");
    seen.declined(clara, DELETE_MSG, chat().u64(id), "not-member");
    seen.declined(boris, DELETE_MSG, chat().u64(id), "forbidden");
    seen.declined(anna, DELETE_MSG, chat(), "malformed");
    seen.accepted(anna, DELETE_MSG, chat().u64(id));
    seen.declined(anna, DELETE_MSG, chat().u64(id), "no-such-message");
}

#[test]
fn every_row_is_accepted_declined_with_each_of_its_codes_and_malformed() {
    let mut seen = Seen::default();
    accounts(&mut seen);
    chats(&mut seen);
    messages(&mut seen);
    // That takes a flood: `search::a_flood_makes_nobody_else_wait`.
    seen.0.insert((SEARCH_MSG, "not-ready".to_owned()));
    let rows = rows();
    assert_eq!(rows.iter().filter(|(_, code)| code == GOOD).count(), 24, "the page was read");
    let missing: Vec<_> = rows.difference(&seen.0).collect();
    assert!(missing.is_empty(), "never answered so: {missing:x?}");
    // Membership is asked for where the page says so in words, for all of them at once.
    let in_words = |(_, code): &&(u8, String)| code != "not-member";
    let unsaid: Vec<_> = seen.0.difference(&rows).filter(in_words).collect();
    assert!(unsaid.is_empty(), "not in their rows: {unsaid:x?}");
}
