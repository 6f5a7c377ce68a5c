//! What the server answers, in lines for a person.

use purpose::client::{Chat, Member, Message, SessionInfo, User};
use vestnik::ids::{ServerTime, UserId};

use super::text::{Clock, harmless};

/// A chat as people call it: its name, or `@` and who the other is.
pub(super) fn chat_name(chat: &Chat) -> String {
    if chat.direct { format!("@{}", harmless(&chat.title)) } else { harmless(&chat.name) }
}

/// Somebody whose name nobody knows any more.
pub(super) fn nameless(user: UserId) -> String {
    format!("user {user}")
}

/// One's own chats.
pub(super) fn chats<'a>(chats: impl Iterator<Item = (&'a Chat, u32)>) -> Vec<String> {
    let line = |(chat, unread): (&Chat, u32)| {
        let unread = match unread {
            0 => String::new(),
            1000.. => ", 1000 unread or more".to_owned(),
            unread => format!(", {unread} unread"),
        };
        format!("{}{}{unread}", chat_name(chat), title(chat))
    };
    let lines: Vec<String> = chats.map(line).collect();
    or_none(lines, "you are in no chat: /find lists some, /join NAME joins one")
}

/// Chats that were looked for.
pub(super) fn found(chats: &[Chat]) -> Vec<String> {
    let line = |chat: &Chat| {
        let mine = if chat.member { ", yours" } else { "" };
        let password = if chat.has_password { ", asks for a password" } else { "" };
        let people = if chat.members == 1 { "member" } else { "members" };
        format!("{}{}, {} {people}{password}{mine}", chat_name(chat), title(chat), chat.members)
    };
    or_none(chats.iter().map(line).collect(), "there is no such chat")
}

fn title(chat: &Chat) -> String {
    if chat.direct || chat.title.is_empty() {
        String::new()
    } else {
        format!(" ({})", harmless(&chat.title))
    }
}

/// Who is in a chat.
pub(super) fn members(members: &[Member]) -> Vec<String> {
    let line = |member: &Member| {
        let mut line = harmless(&member.nickname);
        for (is_so, word) in
            [(member.admin, ", admin"), (member.online, ", online"), (member.banned, ", banned")]
        {
            line.push_str(if is_so { word } else { "" });
        }
        line
    };
    members.iter().map(line).collect()
}

/// Somebody.
pub(super) fn user(user: &User) -> String {
    let online = if user.online { "online" } else { "away" };
    let since = Clock::local().day(user.created);
    format!("{} is user {}, {online}, here since {since}", harmless(&user.nickname), user.id)
}

/// One's own sessions.
pub(super) fn sessions(sessions: &[SessionInfo]) -> Vec<String> {
    let clock = Clock::local();
    let line = |session: &SessionInfo| {
        let time = |time: ServerTime| format!("{} {}", clock.day(time), clock.short(time));
        let which = match (session.this, session.attached) {
            (true, _) => ", this one",
            (false, true) => ", connected",
            (false, false) => "",
        };
        format!(
            "session {}: from {}, since {}, used {}{which}",
            session.id,
            harmless(&session.address),
            time(session.created),
            time(session.used),
        )
    };
    sessions.iter().map(line).collect()
}

/// A message that was found.
pub(super) fn hit(chat: &str, sender: &str, message: &Message) -> String {
    let clock = Clock::local();
    let (day, time) = (clock.day(message.created), clock.short(message.created));
    let (sender, content) = (harmless(sender), harmless(&message.content));
    format!("[{day} {time}] {chat} {sender}: {content}")
}

fn or_none(lines: Vec<String>, words: &str) -> Vec<String> {
    if lines.is_empty() { vec![words.to_owned()] } else { lines }
}
