//! Formats answers of the server as lines of text.

use purpose::client::{Chat, File, Invite, Member, Message, Notify, Reaction, SessionInfo, User};
use vestnik::ids::UserId;

use super::text::{Clock, cut, harmless, width};

/// Columns of a quoted message.
const QUOTE_COLUMNS: usize = 60;
/// Columns of a text of which the beginning is enough: a search result, a declined message.
pub(super) const EXCERPT_COLUMNS: usize = 300;
/// Columns and characters of a reason that a server gave.
const REASON_COLUMNS_MAX: usize = 300;
const REASON_CHARS_MAX: usize = 1000;

/// The display name of a chat: its name, or `@` and the other user.
pub(super) fn chat_name(chat: &Chat) -> String {
    if chat.direct { format!("@{}", harmless(&chat.title)) } else { harmless(&chat.name) }
}

/// The display name of a user whose name is unknown.
pub(super) fn nameless(user: UserId) -> String {
    format!("user {user}")
}

/// The list of the user's chats.
pub(super) fn chats<'a>(chats: impl Iterator<Item = (&'a Chat, u32)>) -> Vec<String> {
    let line = |(chat, unread): (&Chat, u32)| {
        let unread = match unread {
            0 => String::new(),
            1000.. => ", 1000 unread or more".to_owned(),
            unread => format!(", {unread} unread"),
        };
        let closed = if chat.closed { ", closed" } else { "" };
        let pushes = match chat.notify {
            Notify::All => "",
            Notify::Mentions => ", mentions are pushed",
            Notify::Nothing => ", nothing is pushed",
        };
        format!("{}{}{unread}{closed}{pushes}", chat_name(chat), title(chat))
    };
    let lines: Vec<String> = chats.map(line).collect();
    or_none(lines, "you are in no chat: /find lists some, /join NAME joins one")
}

/// Chats that were found.
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

/// The members of a chat.
pub(super) fn members(members: &[Member]) -> Vec<String> {
    let line = |member: &Member| {
        let traits =
            [(member.admin, ", admin"), (member.online, ", online"), (member.banned, ", banned")];
        harmless(&member.nickname) + &those_of(&traits)
    };
    members.iter().map(line).collect()
}

/// The line about a disabled user of a direct chat.
pub(super) fn disabled(user: &User) -> String {
    format!("{} is disabled and reads nothing", harmless(&user.nickname))
}

/// Somebody.
pub(super) fn user(user: &User) -> String {
    let since = Clock::local().day(user.created);
    let name = harmless(&user.nickname);
    format!("{name} is user {}{}, here since {since}", user.id, traits(user))
}

/// Users who were found.
pub(super) fn users(users: &[User]) -> Vec<String> {
    let line = |user: &User| format!("{}{}", harmless(&user.nickname), traits(user));
    or_none(users.iter().map(line).collect(), "nobody is listed whose name begins so")
}

fn traits(user: &User) -> String {
    those_of(&[
        (user.online, ", online"),
        (!user.online, ", away"),
        (user.operator, ", operator"),
        (user.bot, ", a bot"),
        (user.disabled, ", disabled"),
    ])
}

/// The words of what is so.
fn those_of(traits: &[(bool, &str)]) -> String {
    traits.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word).collect()
}

/// The invites into a chat.
pub(super) fn invites(invites: &[Invite], name: impl Fn(UserId) -> String) -> Vec<String> {
    let clock = Clock::local();
    let line = |invite: &Invite| {
        let uses = if invite.uses_left == 1 { "use" } else { "uses" };
        let by = match invite.creator {
            Some(user) => harmless(&name(user)),
            None => "the command line".to_owned(),
        };
        let registers = if invite.registers { ", registers" } else { "" };
        let (hint, left) = (harmless(&invite.hint), invite.uses_left);
        let until = clock.minute(invite.expires);
        format!("{hint}…, {left} {uses} left, until {until}, by {by}{registers}")
    };
    or_none(invites.iter().map(line).collect(), "no invite into this chat can be used")
}

/// A size in a readable unit.
pub(super) fn size(bytes: u64) -> String {
    let in_units = |unit: f64| format!("{:.1}", bytes as f64 / unit);
    match bytes {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", in_units(1e3)),
        1_000_000..1_000_000_000 => format!("{} MB", in_units(1e6)),
        _ => format!("{} GB", in_units(1e9)),
    }
}

/// A file of a message.
pub(super) fn file(file: &File) -> String {
    let pixels = match (file.width, file.height) {
        (0, _) | (_, 0) => String::new(),
        (width, height) => format!(", {width}×{height}"),
    };
    format!("[{}{pixels}, {}]", harmless(&file.name), size(file.size))
}

/// The reactions of a message; the user's own are in brackets.
pub(super) fn reactions(reactions: &[Reaction], me: UserId) -> String {
    let one = |reaction: &Reaction| {
        let shown = format!("{} {}", harmless(&reaction.emoji), reaction.count);
        if reaction.shown.contains(&me) { format!("[{shown}]") } else { shown }
    };
    reactions.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// A short form of a message: the beginning of its text, or its first file.
pub(super) fn quote(message: &Message) -> String {
    let words = match (message.deleted, message.files.first()) {
        (true, _) => "(deleted)".to_owned(),
        (false, Some(first)) if message.content.is_empty() => file(first),
        (false, _) => harmless(&message.content),
    };
    shortened(&words, QUOTE_COLUMNS)
}

/// Truncates a text to `columns`, with an ellipsis.
pub(super) fn shortened(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    format!("{}…", cut(text, columns.saturating_sub(1)).trim_end())
}

/// A reason that a server gave, as one short line: its text may hold anything.
pub(super) fn reason(words: &str) -> String {
    // Sanitising is limited to what may be shown.
    let beginning: String = words.chars().take(REASON_CHARS_MAX).collect();
    shortened(&harmless(&beginning), REASON_COLUMNS_MAX)
}

/// The user's sessions.
pub(super) fn sessions(sessions: &[SessionInfo]) -> Vec<String> {
    let clock = Clock::local();
    let line = |session: &SessionInfo| {
        let which = match (session.this, session.attached) {
            (true, _) => ", this one",
            (false, true) => ", connected",
            (false, false) => "",
        };
        format!(
            "session {}: from {}, since {}, used {}{which}",
            session.id,
            harmless(&session.address),
            clock.minute(session.created),
            clock.minute(session.used),
        )
    };
    sessions.iter().map(line).collect()
}

/// A search result.
pub(super) fn hit(chat: &str, sender: &str, message: &Message) -> String {
    let time = Clock::local().minute(message.created);
    let files = message.files.iter().map(file);
    let content = shortened(&harmless(&message.content), EXCERPT_COLUMNS);
    let content = Some(content).filter(|content| !content.is_empty());
    let parts: Vec<String> = content.into_iter().chain(files).collect();
    format!("[{time}] {chat} {}: {}", harmless(sender), parts.join(" "))
}

fn or_none(lines: Vec<String>, words: &str) -> Vec<String> {
    if lines.is_empty() { vec![words.to_owned()] } else { lines }
}

#[cfg(test)]
mod tests {
    use vestnik::ids::{FileId, MessageId, ServerTime};

    use super::*;

    #[test]
    fn reasons_are_short_and_harmless() {
        assert_eq!(reason("no\u{202e}\u{1b}[2J"), "no\u{fffd}\u{fffd}[2J");
        let long = reason(&"日".repeat(1 << 20));
        assert!(width(&long) <= REASON_COLUMNS_MAX && long.ends_with('…'), "{long}");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, shown) in [
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (26_214_400, "26.2 MB"),
            (8_000_000_000, "8.0 GB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn nothing_of_a_file_or_a_reaction_acts_on_the_terminal() {
        let name = "a\u{1b}[2J\n\u{202e}gpj.exe".to_owned();
        let id = FileId::new(1).unwrap();
        let media_type = "image/jpeg".to_owned();
        let evil = File { id, size: 1200, width: 8, height: 6, media_type, name };
        assert_eq!(file(&evil), "[a\u{fffd}[2J⏎\u{fffd}gpj.exe, 8×6, 1.2 kB]");
        let sender = UserId::new(2).unwrap();
        let found = Message {
            id: MessageId::at(ServerTime::ZERO.next()),
            sender,
            created: ServerTime::ZERO,
            updated: ServerTime::ZERO,
            edited: false,
            deleted: false,
            content: "look".to_owned(),
            reply: None,
            files: vec![evil.clone()],
            reactions: Vec::new(),
        };
        let shown = hit("hall", "a\u{7}", &found);
        assert!(shown.ends_with(&format!("hall a\u{fffd}: look {}", file(&evil))), "{shown}");
        assert_eq!(quote(&Message { content: String::new(), ..found }), file(&evil));
        let (me, other) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
        let given = [
            Reaction { emoji: "👍".to_owned(), count: 2, shown: vec![other, me] },
            Reaction { emoji: "\u{9b}2J".to_owned(), count: 1, shown: vec![other] },
        ];
        assert_eq!(reactions(&given, me), "[👍 2]  \u{fffd}2J 1");
        assert_eq!(shortened("one two three", 8), "one two…");
    }
}
