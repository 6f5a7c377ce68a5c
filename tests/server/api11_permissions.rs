//! Who may do what on API 1.1 (protocol section 5a): each purpose, asked for by everybody.

use crate::support::api10::*;
use crate::support::api11::*;
use crate::support::client::Client;
use crate::support::people11::*;
use crate::support::wire::*;
use crate::support::{PASSWORD, Server};

/// Who asks, in the order of the columns. The operator is not a member.
const CALLERS: [&str; 5] = ["unauthenticated", "outsider", "member", "operator", "admin"];

/// What a row has to find, made anew for each of its cells by the admin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Nothing,
    /// An upload that is not in a message.
    Upload,
    /// A file in a message.
    File,
    /// An invite to the chat.
    Invite,
}

/// What the body of a request names.
struct Target {
    chat: u32,
    message: u64,
    /// A user who has nothing to do with the chat.
    other: u32,
    file: u64,
    code: String,
}

/// One purpose with a body, and what each caller gets: `ok`, or the code of the DECLINED.
struct Row {
    purpose: u8,
    what: &'static str,
    fresh: Fresh,
    body: fn(&Target) -> Body,
    expected: [&'static str; 5],
}

const fn row(
    purpose: u8,
    what: &'static str,
    fresh: Fresh,
    body: fn(&Target) -> Body,
    expected: [&'static str; 5],
) -> Row {
    Row { purpose, what, fresh, body, expected }
}

const NO_SESSION: &str = "login-required";
/// For members of the chat.
const MEMBERS: [&str; 5] = [NO_SESSION, "not-member", "ok", "not-member", "ok"];
/// For admins of the chat.
const ADMINS: [&str; 5] = [NO_SESSION, "not-member", "forbidden", "not-member", "ok"];
/// For operators.
const OPERATORS: [&str; 5] = [NO_SESSION, "forbidden", "forbidden", "ok", "forbidden"];
/// For everybody with a session.
const ALL: [&str; 5] = [NO_SESSION, "ok", "ok", "ok", "ok"];

#[rustfmt::skip]
const ROWS: [Row; 25] = [
    row(SET_PASSWORD, "without a good code", Fresh::Nothing,
        |_| body().text("nobody").text("0000-0000").text(PASSWORD),
        ["bad-code", "already-authorized", "already-authorized", "already-authorized",
         "already-authorized"]),
    row(RESET_PASSWORD, "", Fresh::Nothing, |to| body().id(to.other), OPERATORS),
    row(FIND_USERS, "", Fresh::Nothing, |_| body().text("").u16(5), ALL),
    row(SET_USER_DISABLED, "as it is", Fresh::Nothing, |to| body().id(to.other).u8(0), OPERATORS),
    row(ADD_MEMBER, "", Fresh::Nothing, |to| body().id(to.chat).id(to.other), ADMINS),
    row(SET_CHAT_CLOSED, "as it is for most", Fresh::Nothing, |to| body().id(to.chat).u8(1), ADMINS),
    row(REACT, "", Fresh::Nothing, |to| body().id(to.chat).u64(to.message).u8(1).text("👍"), MEMBERS),
    row(GET_REACTIONS, "", Fresh::Nothing, |to| body().id(to.chat).u64(to.message), MEMBERS),
    row(SET_CHAT_NOTIFY, "", Fresh::Nothing, |to| body().id(to.chat).u8(1), MEMBERS),
    row(SUBSCRIBE_PUSH, "none", Fresh::Nothing, |_| body().text(""), ALL),
    row(CREATE_INVITE, "that registers", Fresh::Nothing,
        |_| body().u8(1).u16(1).u16(1).id(0), OPERATORS),
    row(CREATE_INVITE, "to the chat", Fresh::Nothing,
        |to| body().u8(0).u16(1).u16(1).id(to.chat), ADMINS),
    row(CREATE_INVITE, "that registers, to the chat", Fresh::Nothing,
        |to| body().u8(1).u16(1).u16(1).id(to.chat),
        [NO_SESSION, "not-member", "forbidden", "not-member", "forbidden"]),
    row(GET_INVITES, "of the chat", Fresh::Nothing, |to| body().id(to.chat), ADMINS),
    row(GET_INVITES, "of all", Fresh::Nothing, |_| body().id(0), OPERATORS),
    row(END_INVITE, "to the chat", Fresh::Invite, |to| body().text(&to.code[..7]),
        [NO_SESSION, "forbidden", "forbidden", "ok", "ok"]),
    row(USE_INVITE, "to the chat", Fresh::Invite, |to| body().text(to.code.as_str()), ALL),
    row(BEGIN_FILE, "", Fresh::Nothing, |to| begin_body(to.chat, 10, "a"), MEMBERS),
    row(PUT_FILE, "of the admin", Fresh::Upload, |to| body().u64(to.file).u64(0).bytes(b"x"),
        [NO_SESSION, "no-such-file", "no-such-file", "no-such-file", "ok"]),
    row(GET_FILE, "that the admin uploads", Fresh::Upload, |to| body().u64(to.file).u64(0).id(10),
        [NO_SESSION, "no-such-file", "no-such-file", "no-such-file", "ok"]),
    row(GET_FILE, "in a message", Fresh::File, |to| body().u64(to.file).u64(0).id(10),
        [NO_SESSION, "no-such-file", "ok", "no-such-file", "ok"]),
    row(END_FILE, "that the admin uploads", Fresh::Upload, |to| body().u64(to.file),
        [NO_SESSION, "no-such-file", "no-such-file", "no-such-file", "ok"]),
    row(SEND_CHAT_MSG, "that answers another", Fresh::Nothing,
        |to| send_body(to.chat, "x", to.message, to.message, &[]), MEMBERS),
    row(SEND_CHAT_MSG, "with the admin's file", Fresh::Upload,
        |to| send_body(to.chat, "x", to.file, 0, &[to.file]),
        [NO_SESSION, "not-member", "no-such-file", "not-member", "no-such-file"]),
    row(REQUEST_CHAT_PAGE, "of newer messages", Fresh::Nothing,
        |to| body().id(to.chat).u64(0).u16(5).u8(1), MEMBERS),
];

/// `ok`, or the code of a DECLINED.
fn outcome(answer: &Frame) -> String {
    match answer.purpose {
        ACCEPTED => "ok".to_owned(),
        DECLINED => {
            let text = String::from_utf8_lossy(&answer.body);
            text.split(':').next().unwrap_or_default().to_owned()
        }
        other => panic!("no answer: {other:#x}"),
    }
}

fn make(admin: &mut Client, chat: u32, other: u32, fresh: Fresh) -> Target {
    let message = admin.send_with(chat, "here", 0, &[]).id;
    let mut target = Target { chat, message, other, file: 1, code: "0000-0000".to_owned() };
    match fresh {
        Fresh::Nothing => {}
        Fresh::Upload => target.file = admin.begin_file(chat, 10, "a"),
        Fresh::File => {
            target.file = admin.upload(chat, "a", b"0123456789");
            admin.send_with(chat, "", 0, &[target.file]);
        }
        Fresh::Invite => target.code = admin.create_invite(false, 1, chat),
    }
    target
}

/// Every purpose of 1.1 by everybody, on a chat that is open and on one that is closed, which does
/// not exist for those who are not members.
#[test]
fn everybody_gets_what_the_table_says() {
    let server = Server::with(&["--registration", "invite"]);
    for name in ["outsider", "member", "operator", "admin", "other"] {
        server.add_user(name);
    }
    server.make_operator("operator");
    let mut callers = CALLERS[1..].iter().map(|name| server.login11(name)).collect::<Vec<_>>();
    let other = callers[0].user_id("other");
    let mut wrong = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        for closed in [false, true] {
            let mut unauthenticated = server.greeted11();
            let (admin, member) = (3, 1);
            let chat = callers[admin].create_chat(&format!("chat-{number}-{closed}"));
            callers[member].join(chat);
            callers[admin].close_chat(chat, closed).accepted();
            for (column, expected) in row.expected.into_iter().enumerate() {
                let target = make(&mut callers[admin], chat, other, row.fresh);
                let caller = match column {
                    0 => &mut unauthenticated,
                    column => &mut callers[column - 1],
                };
                let got = outcome(&caller.ask_whole(row.purpose, (row.body)(&target)));
                let is_hidden = closed && expected == "not-member";
                let expected = if is_hidden { "no-such-chat" } else { expected };
                if got != expected {
                    let (purpose, what) = (row.purpose, row.what);
                    let who = CALLERS[column];
                    wrong.push(format!(
                        "{purpose:#x} {what} by {who}, closed {closed}: {got}, not {expected}"
                    ));
                }
                // Uploads under way are bounded.
                if row.fresh == Fresh::Upload {
                    callers[admin].ask(END_FILE, body().u64(target.file));
                }
                callers.iter_mut().for_each(|client| drop(client.drain()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
