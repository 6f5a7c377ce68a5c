//! Requests that mostly make sense, made from bytes: about users, chats and messages that are
//! there.

use vestnik::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};
use vestnik::wire::Version;
use vestnik::wire::codec::Put;
use vestnik::wire::extras::Extras;
use vestnik::wire::purpose::ToServer;
use vestnik::wire::request::Request;

use super::extended;
use super::input::Input;

/// The two passwords that users and chats have.
pub(crate) const PASSWORDS: [&str; 2] = ["correct horse", "battery staple"];
pub(crate) const USERS: [&str; 3] = ["anna", "boris", "vera"];
/// The user that is an operator, by number.
pub(crate) const OPERATOR: u32 = 1;
const CHATS: [&str; 4] = ["hall", "locked", "new", "newer"];
/// The host that pushes go to.
pub(crate) const PUSH_HOST: &str = "push.example";

/// A file that an answer named.
pub(crate) struct File {
    pub(crate) id: u64,
    pub(crate) chat: u32,
    pub(crate) owner: u32,
    pub(crate) size: u64,
    /// Bytes that the server has.
    pub(crate) stored: u64,
    /// The message that it was sent in.
    pub(crate) message: Option<u64>,
    /// When the message was deleted, in the order of requests.
    pub(crate) gone: Option<u64>,
}

impl File {
    pub(crate) const fn new(id: u64, chat: u32, owner: u32, size: u64) -> Self {
        Self { id, chat, owner, size, stored: 0, message: None, gone: None }
    }

    /// What stands in a file at an offset: each has bytes of its own.
    pub(crate) fn bytes(id: u64, offset: u64, count: usize) -> Vec<u8> {
        (0..count as u64).map(|at| (id.wrapping_mul(31) ^ (offset + at)) as u8).collect()
    }
}

/// What was learned from the server, and what it is asked about.
#[derive(Default)]
pub(crate) struct Known {
    /// Sessions and their secrets, of every LOGIN.
    pub(crate) sessions: Vec<(u32, String)>,
    /// Messages, by chat and id.
    pub(crate) messages: Vec<(u32, u64)>,
    pub(crate) files: Vec<File>,
    /// Codes of invites, and those by which a user (by number) sets a password.
    pub(crate) invites: Vec<String>,
    pub(crate) codes: Vec<(u32, String)>,
    /// The latest time that was seen.
    pub(crate) time: i64,
    /// Grows with each text, so that no two messages say the same.
    pub(crate) texts: u64,
}

/// What a request is about, as far as it matters to what must come of it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum About {
    /// Nothing that is followed.
    Other,
    Hello,
    Login {
        user: usize,
    },
    Restore {
        session: u32,
    },
    Logoff,
    /// Somebody becomes a member: the caller, or the user that is named.
    Join {
        chat: u32,
        user: Option<u32>,
    },
    UseInvite,
    Leave {
        chat: u32,
    },
    Create,
    Start {
        user: u32,
    },
    Delete {
        chat: u32,
    },
    Ban {
        chat: u32,
        user: u32,
    },
    Send {
        chat: u32,
        text: String,
        files: Vec<u64>,
    },
    Change,
    DeleteMsg {
        message: u64,
    },
    React,
    /// CHANGE_PASSWORD by the caller, or SET_PASSWORD.
    Password {
        new: usize,
    },
    SetPassword {
        new: usize,
    },
    ResetPassword {
        user: u32,
    },
    Disable {
        user: u32,
        disabled: bool,
    },
    /// Messages of one chat: the answer is for members, and ascends where it is a range.
    Messages {
        chat: u32,
        is_range: bool,
    },
    /// Messages, each with its chat.
    MessagesOfChats,
    /// A pack of members.
    Members {
        chat: u32,
    },
    Invite,
    BeginFile {
        chat: u32,
        size: u64,
    },
    PutFile {
        file: u64,
    },
    GetFile {
        file: u64,
        offset: u64,
    },
    /// The answer is kept as it is.
    Probe,
}

/// One frame, and what it is about.
pub(crate) fn any(
    input: &mut Input<'_>,
    known: &mut Known,
    version: Version,
    task: u8,
) -> (Vec<u8>, About) {
    let mut out = Vec::new();
    let kind = input.u8();
    let about = if kind < 160 {
        write(input, known, version, kind, task, &mut out)
    } else {
        extended::write(input, known, kind - 160, task, &mut out)
    };
    (out, about)
}

#[allow(clippy::too_many_lines)] // one arm per purpose
fn write(
    input: &mut Input<'_>,
    known: &mut Known,
    version: Version,
    kind: u8,
    task: u8,
    out: &mut Vec<u8>,
) -> About {
    let chat_number = input.pick(&[1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]);
    let chat = ChatId::new(chat_number).expect("not 0");
    let user_number = 1 + input.below(5) as u32;
    let user = UserId::new(user_number).expect("not 0");
    let mut about = About::Other;
    let text;
    let request = match kind % 48 {
        0 => {
            about = About::Hello;
            Request::Hello { major: 1, minor: 0 }
        }
        1 => {
            about = About::Hello;
            Request::Hello { major: input.below(3) as u8, minor: input.below(3) as u8 }
        }
        2 | 3 => {
            let user = input.below(USERS.len());
            about = About::Login { user };
            Request::Login { login: USERS[user], password: PASSWORDS[input.below(2)] }
        }
        4 if input.u8() & 3 == 0 => {
            about = About::Logoff;
            Request::Logoff
        }
        5 | 6 => {
            let Some((session, hash)) =
                known.sessions.get(input.below(known.sessions.len().max(1)))
            else {
                return write_raw(input, task, out);
            };
            about = About::Restore { session: *session };
            text = hash.clone();
            Request::RestoreSession {
                session: SessionId::new(*session).expect("given"),
                hash: &text,
            }
        }
        7 => Request::GetUserId { nickname: input.pick(&["Anna", "nobody", "борис"]) },
        8 => Request::GetChatId { name: input.pick(&CHATS) },
        9 => Request::ChatReqPass { chat },
        10 | 11 => {
            about = About::Join { chat: chat_number, user: None };
            let password = input.pick(&[None, None, Some(PASSWORDS[0]), Some(""), Some("wrong")]);
            Request::JoinChat { chat, password }
        }
        12..=19 => {
            known.texts += 1;
            let length = input.pick(&[0, 1, 1, 1, 10, 100, 1000, 5000, 16384, 16385]);
            text = match length {
                0 => String::new(),
                1 => format!("text {}", known.texts),
                more => long(&format!("text {}.", known.texts), more),
            };
            about = About::Send { chat: chat_number, text: text.clone(), files: Vec::new() };
            let nonce = match version.has_extras() {
                _ if kind % 48 > 17 => Some(u64::from(input.u8() % 4)),
                // It has to be there.
                true => Some(known.texts + 1000),
                false => None,
            };
            Request::SendChatMsg { chat, content: &text, nonce, extras: Extras::NONE }
        }
        20 | 21 => {
            about = About::Messages { chat: chat_number, is_range: true };
            let from = time(input, known);
            let to = if input.u8() & 1 == 0 { None } else { Some(time(input, known)) };
            Request::RequestChatMsg { chat, from, to }
        }
        22 => Request::MarkSeen { chat, time: time(input, known) },
        23 => Request::RegisterUser {
            login: input.pick(&["grigory", "anna", "а б"]),
            password: PASSWORDS[0],
            invite: match input.below(3) {
                0 => None,
                1 => Some("none"),
                _ => known.invites.last().map(String::as_str),
            },
        },
        24 => {
            let new = input.below(2);
            about = About::Password { new };
            Request::ChangePassword { old: PASSWORDS[input.below(2)], new: PASSWORDS[new] }
        }
        25 => Request::GetUser { user },
        4 | 26 => Request::GetSessions,
        27 => Request::EndSession {
            session: SessionId::new(1 + input.below(6) as u32).expect("not 0"),
        },
        28 => {
            about = About::Create;
            let password = input.pick(&[None, None, Some(PASSWORDS[0]), Some("")]);
            Request::CreateChat { name: input.pick(&CHATS), password }
        }
        29 => {
            about = About::Leave { chat: chat_number };
            Request::LeaveChat { chat }
        }
        30 => {
            about = About::Start { user: user_number };
            Request::StartChat { user }
        }
        31 if input.u8() & 3 == 0 => {
            about = About::Delete { chat: chat_number };
            Request::DeleteChat { chat }
        }
        31 | 32 => Request::RenameChat { chat, name: input.pick(&CHATS) },
        33 => Request::SetChatTitle { chat, title: input.pick(&["", "Title", "Другой"]) },
        34 => {
            let password = input.pick(&[None, Some(PASSWORDS[0]), Some("")]);
            Request::SetChatPassword { chat, password }
        }
        35 => Request::SetChatAdmin { chat, user, admin: input.u8() & 1 == 1 },
        36 => {
            let banned = input.u8() & 1 == 1;
            if banned {
                about = About::Ban { chat: chat_number, user: user_number };
            }
            Request::SetChatBan { chat, user, banned }
        }
        37 => Request::GetChat { chat },
        38 => Request::GetMyChats,
        39 => {
            about = About::Members { chat: chat_number };
            Request::GetMembers { chat }
        }
        40 => Request::FindChats {
            prefix: input.pick(&["", "h", "NEW"]),
            limit: u16::from(input.u8()) * 257,
        },
        41 | 42 => {
            let (chat, message) = message(input, known, chat);
            known.texts += 1;
            text = format!("edit {}", known.texts);
            about = About::Change;
            let content = if input.u8().is_multiple_of(8) { "" } else { &text };
            Request::EditMsg { chat, message, content }
        }
        43 => {
            let (chat, message) = message(input, known, chat);
            about = About::DeleteMsg { message: message.get() };
            Request::DeleteMsg { chat, message }
        }
        44 => {
            let (_, before) = message(input, known, chat);
            let how = input.u8();
            let before = if how & 1 == 0 { None } else { Some(before) };
            about = About::Messages { chat: chat_number, is_range: false };
            let newer = version.has_extras() && how & 2 != 0;
            Request::RequestChatPage { chat, before, limit: u16::from(input.u8()) * 257, newer }
        }
        45 => {
            about = About::MessagesOfChats;
            Request::RequestUpdates { from: time(input, known) }
        }
        46 => Request::Typing { chat },
        _ => {
            let length = usize::from(input.u8()) * 8;
            out.clear();
            Request::Heartbeat { echo: &[7; 2048][..length] }.write(out, task);
            return About::Other;
        }
    };
    request.write(out, task);
    about
}

/// Any purpose with any body. What it concerns is unknown, so it is not followed.
pub(crate) fn write_raw(input: &mut Input<'_>, task: u8, out: &mut Vec<u8>) -> About {
    const FOLLOWED: [ToServer; 26] = [
        ToServer::Accepted,
        ToServer::Declined,
        ToServer::Part,
        ToServer::Disconnect,
        ToServer::Hello,
        ToServer::Login,
        ToServer::Logoff,
        ToServer::RestoreSession,
        ToServer::JoinChat,
        ToServer::SendChatMsg,
        ToServer::ChangePassword,
        ToServer::CreateChat,
        ToServer::LeaveChat,
        ToServer::StartChat,
        ToServer::DeleteChat,
        ToServer::SetChatBan,
        ToServer::AddMember,
        ToServer::UseInvite,
        ToServer::EditMsg,
        ToServer::React,
        ToServer::SetPassword,
        ToServer::SetUserDisabled,
        ToServer::BeginFile,
        ToServer::PutFile,
        ToServer::EndFile,
        ToServer::RegisterUser,
    ];
    let mut purpose = input.u8();
    let count = usize::from(input.u8());
    let mut body = input.bytes(count).to_vec();
    if FOLLOWED.iter().any(|followed| followed.byte() == purpose)
        || purpose == ToServer::DeleteMsg.byte()
    {
        // As that of a purpose that is there, but never whole.
        body.insert(0, 0);
        body.truncate(3);
        body.resize(3, 0);
        purpose |= 0x20;
        if purpose == ToServer::Hello.byte() || purpose == ToServer::Logoff.byte() {
            purpose = 0x7F;
        }
    }
    out.put_u32(body.len() as u32);
    out.put_bytes(&[purpose, task]);
    out.put_bytes(&body);
    About::Other
}

/// A text filled up to a length in bytes; far quicker than the filling of `format!`.
fn long(text: &str, bytes: usize) -> String {
    text.to_owned() + &"x".repeat(bytes.saturating_sub(text.len()))
}

fn time(input: &mut Input<'_>, known: &Known) -> ServerTime {
    let micros = match input.below(6) {
        0 => 0,
        1 => known.time,
        2 => known.time + 1,
        3 => i64::MAX,
        4 => known.messages.get(input.below(known.messages.len().max(1))).map_or(1, |m| m.1 as i64),
        _ => (input.u64() >> 1) as i64,
    };
    ServerTime::new(micros).unwrap_or_default()
}

/// A message that is there, or might be.
pub(super) fn message(input: &mut Input<'_>, known: &Known, chat: ChatId) -> (ChatId, MessageId) {
    let count = known.messages.len().max(1);
    match known.messages.get(usize::from(input.u8()) % count) {
        Some(&(chat, id)) => {
            (ChatId::new(chat).expect("given"), MessageId::new(id).expect("given"))
        }
        None => (chat, MessageId::new(1).expect("not 0")),
    }
}
