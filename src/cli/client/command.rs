//! Parses input lines: a message, or a command that begins with a slash. Has no state.

use purpose::client::Notify;
use vestnik::auth::password::Secret;
use vestnik::ids::SessionId;

use super::job::{ChatJob, Job};

/// Every command with its arguments and its description, in the order of `/help`.
pub(super) const TABLE: &[(&str, &str, &str)] = &[
    ("help", "", "this list"),
    ("chats", "", "my chats, with what is unread"),
    ("open", "NAME", "open one of my chats (`/o`)"),
    ("join", "NAME [PASSWORD]", "become a member of a chat, and open it"),
    ("leave", "", "stop being a member of this chat"),
    ("find", "[PREFIX]", "chats whose names begin so"),
    ("dm", "USER", "open the chat of me and somebody else"),
    ("members", "", "who is in this chat"),
    ("more", "", "older messages of this chat"),
    ("search", "WORDS", "look for words in this chat: `word*` for beginnings, `\"…\"` for phrases"),
    ("search-all", "WORDS", "the same in all my chats"),
    ("edit", "[-N] TEXT", "change my last message, or the Nth from the end"),
    ("delete", "[-N] [USER]", "delete my last message, or that of somebody else"),
    ("reply", "[-N] [@USER] TEXT", "answer the last message of others, or the Nth from the end"),
    ("react", "[-N] [@USER] EMOJI [off]", "react to it: an emoji, or one of the words below"),
    ("reactions", "[-N] [@USER]", "who reacted to it, and how"),
    ("send", "FILE [TEXT]", "send a file; a name with spaces stands in quotes"),
    ("save", "[-N] [@USER]", "save the files of the last message that has some"),
    ("cancel", "", "give up the files that are on their way"),
    ("whois", "USER", "who somebody is"),
    ("users", "[PREFIX]", "people of this server whose names begin so"),
    ("add", "USER", "make somebody a member of this chat"),
    ("invite", "[qr] [USES [DAYS]]", "make an invite into this chat, for one use and a week"),
    ("invites", "", "the invites into this chat that can be used"),
    ("uninvite", "CODE", "end an invite; the part that /invites shows is enough"),
    ("accept", "CODE", "join a chat by an invite, or by its link"),
    ("create", "NAME", "make a chat, with me as its admin"),
    ("title", "[WORDS]", "give this chat a title"),
    ("rename", "NAME", "give this chat another name"),
    ("lock", "", "set the password of this chat"),
    ("unlock", "", "let people join this chat without a password"),
    ("closed", "on|off", "let nobody join this chat who is not added or invited"),
    ("notify", "all|mentions|none", "what of this chat is pushed to my phone"),
    ("admin", "USER on|off", "make a member an admin, or no longer"),
    ("ban", "USER on|off", "keep somebody out, or no longer"),
    ("delete-chat", "NAME", "delete this chat with all its messages; say its name"),
    ("password", "", "change my password; my other sessions end"),
    ("sessions", "", "where I am logged in"),
    ("end", "SESSION", "end one of these"),
    ("reset", "USER", "for operators: a code by which a user sets a new password"),
    ("disable", "USER on|off", "for operators: lock a user out of the server, or no longer"),
    ("logoff", "", "end this session, and leave"),
    ("quit", "", "leave (`/q`); the session is kept"),
];

/// Short names of emoji, in the order of `/help`.
pub(super) const EMOJI: &[(&str, &str)] = &[
    ("+1", "👍"),
    ("heart", "❤️"),
    ("laugh", "😂"),
    ("tada", "🎉"),
    ("wow", "😮"),
    ("sad", "😢"),
    ("thanks", "🙏"),
];

/// A reference to a message of the open chat: the Nth from the end, optionally of one sender.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) back: usize,
    pub(super) user: Option<String>,
}

/// A parsed input line.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Typed {
    /// Nothing.
    Nothing,
    /// A message.
    Text(String),
    /// A command.
    Command(Command),
}

/// A command: a job, a job for the open chat, or what depends on the state of the client.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Command {
    Job(Job),
    InChat(ChatJob),
    Help,
    Chats,
    Open(String),
    More,
    Edit { back: usize, content: String },
    Delete { back: usize, user: Option<String> },
    Reply { to: Target, content: String },
    React { to: Target, emoji: String, on: bool },
    Reactions(Target),
    SendFile { path: String, content: String },
    Save(Target),
    Lock,
    DeleteChat(String),
    Password,
}

impl From<Job> for Command {
    fn from(job: Job) -> Self {
        Self::Job(job)
    }
}

impl From<ChatJob> for Command {
    fn from(job: ChatJob) -> Self {
        Self::InChat(job)
    }
}

/// Parses a line; `Err` shows the command's usage. Two slashes begin a message with one.
pub(super) fn parse(line: &str) -> Result<Typed, String> {
    if line.trim().is_empty() {
        return Ok(Typed::Nothing);
    }
    let Some(rest) = line.strip_prefix('/') else { return Ok(Typed::Text(line.to_owned())) };
    if rest.starts_with('/') {
        return Ok(Typed::Text(rest.to_owned()));
    }
    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let name = match name {
        "o" => "open",
        "q" => "quit",
        "?" => "help",
        other => other,
    };
    let Some((name, takes, _)) = TABLE.iter().find(|(known, ..)| *known == name) else {
        return Err(format!("there is no /{name}: see /help"));
    };
    let command = command(name, rest.trim()).or_else(|| newer(name, rest.trim()));
    command.map(Typed::Command).ok_or_else(|| {
        let space = if takes.is_empty() { "" } else { " " };
        format!("usage: /{name}{space}{takes}")
    })
}

fn command(name: &str, rest: &str) -> Option<Command> {
    let word = || one_word(rest);
    let nothing = |command| rest.is_empty().then_some(command);
    Some(match name {
        "help" => Command::Help,
        "chats" => nothing(Command::Chats)?,
        "open" => Command::Open(word()?),
        "join" => join(rest)?.into(),
        "leave" => nothing(ChatJob::Leave.into())?,
        "find" => Job::Find(rest.to_owned()).into(),
        "dm" => Job::Direct(word()?.trim_start_matches('@').to_owned()).into(),
        "members" => nothing(ChatJob::Members.into())?,
        "more" => nothing(Command::More)?,
        "search" => ChatJob::Search(some(rest)?).into(),
        "search-all" => Job::SearchAll(some(rest)?).into(),
        "edit" => {
            let (back, content) = back(rest)?;
            Command::Edit { back, content: some(content)? }
        }
        "delete" => {
            let (back, user) = back(rest)?;
            let user = if user.is_empty() { None } else { Some(one_word(user)?) };
            Command::Delete { back, user }
        }
        "whois" => Job::Whois(word()?).into(),
        "create" => Job::Create(word()?).into(),
        "title" => ChatJob::Title(rest.to_owned()).into(),
        "rename" => ChatJob::Rename(word()?).into(),
        "lock" => nothing(Command::Lock)?,
        "unlock" => nothing(ChatJob::Lock(None).into())?,
        "admin" => switch(rest).map(|(user, on)| ChatJob::Admin { user, on })?.into(),
        "ban" => switch(rest).map(|(user, on)| ChatJob::Ban { user, on })?.into(),
        "delete-chat" => Command::DeleteChat(word()?),
        "password" => nothing(Command::Password)?,
        "sessions" => nothing(Job::Sessions.into())?,
        "end" => Job::End(SessionId::new(rest.parse().ok()?)?).into(),
        "logoff" => nothing(Job::Quit { logoff: true }.into())?,
        "quit" => nothing(Job::Quit { logoff: false }.into())?,
        _ => return None,
    })
}

/// Commands that need API 1.1.
fn newer(name: &str, rest: &str) -> Option<Command> {
    let word = || one_word(rest);
    let nothing = |command| rest.is_empty().then_some(command);
    Some(match name {
        "reply" => {
            let (to, content) = target(rest)?;
            Command::Reply { to, content: some(content)? }
        }
        "react" => {
            let (to, rest) = target(rest)?;
            let (emoji, on) = match rest.split_once(char::is_whitespace) {
                Some((emoji, off)) if off.trim() == "off" => (emoji, false),
                Some(_) => return None,
                None => (rest, true),
            };
            let known = EMOJI.iter().find(|(word, _)| *word == emoji);
            let emoji = one_word(known.map_or(emoji, |(_, emoji)| emoji))?;
            Command::React { to, emoji, on }
        }
        "reactions" => Command::Reactions(target(rest).filter(|(_, rest)| rest.is_empty())?.0),
        "send" => {
            let (path, content) = path(rest)?;
            Command::SendFile { path: path.to_owned(), content: content.to_owned() }
        }
        "save" => Command::Save(target(rest).filter(|(_, rest)| rest.is_empty())?.0),
        "cancel" => nothing(Job::Cancel.into())?,
        "users" => Job::Users(rest.to_owned()).into(),
        "add" => ChatJob::Add(word()?).into(),
        "invite" => invite(rest)?.into(),
        "invites" => nothing(ChatJob::Invites.into())?,
        "uninvite" => Job::EndInvite(word()?).into(),
        "accept" => Job::Accept(invite_code(&word()?).to_owned()).into(),
        "closed" => ChatJob::Closed(on_or_off(rest)?).into(),
        "notify" => ChatJob::Notify(match rest {
            "all" => Notify::All,
            "mentions" => Notify::Mentions,
            "none" => Notify::Nothing,
            _ => return None,
        })
        .into(),
        "reset" => Job::Reset(word()?).into(),
        "disable" => switch(rest).map(|(user, on)| Job::Disable { user, on })?.into(),
        _ => return None,
    })
}

/// Parses `-N` and `@USER` at the beginning; returns them and the rest.
fn target(rest: &str) -> Option<(Target, &str)> {
    let (back, rest) = back(rest)?;
    let (first, then) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match first.strip_prefix('@') {
        Some(user) if !user.is_empty() => {
            Some((Target { back, user: Some(user.to_owned()) }, then.trim_start()))
        }
        _ => Some((Target { back, user: None }, rest)),
    }
}

/// Parses the path of a file, quoted if it contains spaces; returns it and the rest.
fn path(rest: &str) -> Option<(&str, &str)> {
    let (path, then) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
    };
    (!path.is_empty()).then(|| (path, then.trim_start()))
}

fn invite(rest: &str) -> Option<ChatJob> {
    let mut words = rest.split_whitespace().peekable();
    let with_qr = words.next_if_eq(&"qr").is_some();
    let mut number = |default| match words.next() {
        Some(word) => word.parse().ok().filter(|&number: &u16| number > 0),
        None => Some(default),
    };
    let (uses, days) = (number(1)?, number(7)?);
    words.next().is_none().then_some(ChatJob::Invite { with_qr, uses, days })
}

/// The message that a half-typed command refers to, if any.
pub(super) fn aim(line: &str) -> Option<Target> {
    let (name, rest) = line.strip_prefix('/')?.split_once(char::is_whitespace)?;
    let is_about_one = matches!(name, "reply" | "react" | "reactions");
    is_about_one.then(|| target(rest.trim_start()))?.map(|(target, _)| target)
}

/// The code in an invite link; a plain code is returned unchanged.
pub(super) fn invite_code(typed: &str) -> &str {
    typed.split_once("#invite=").map_or(typed, |(_, code)| code)
}

fn some(rest: &str) -> Option<String> {
    (!rest.is_empty()).then(|| rest.to_owned())
}

fn one_word(rest: &str) -> Option<String> {
    some(rest).filter(|word| !word.contains(char::is_whitespace))
}

fn join(rest: &str) -> Option<Job> {
    let (name, password) = match rest.split_once(char::is_whitespace) {
        Some((name, password)) => (name, Some(Secret::new(password.trim_start().to_owned()))),
        None => (rest, None),
    };
    (!name.is_empty()).then(|| Job::Join { name: name.to_owned(), password })
}

/// Parses `-N` at the beginning, counted from 1; returns it and the rest.
fn back(rest: &str) -> Option<(usize, &str)> {
    let (first, then) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let Some(digits) = first.strip_prefix('-').filter(|digits| is_number(digits)) else {
        return Some((1, rest));
    };
    // A number that is too large refers to no message, but it is never taken as text.
    let back = digits.parse().ok().filter(|&back| back > 0)?;
    Some((back, then.trim_start()))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn switch(rest: &str) -> Option<(String, bool)> {
    let (user, on) = rest.split_once(char::is_whitespace)?;
    Some((user.to_owned(), on_or_off(on.trim())?))
}

fn on_or_off(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// The lines of `/help`.
pub(super) fn help() -> Vec<String> {
    let written = |(name, takes, _): &(&str, &str, &str)| format!("/{name} {takes}");
    let columns = TABLE.iter().map(|row| written(row).chars().count()).max().unwrap_or_default();
    let mut lines: Vec<String> =
        TABLE.iter().map(|row| format!("{:columns$}  {}", written(row), row.2)).collect();
    let words: Vec<String> = EMOJI.iter().map(|(word, emoji)| format!("{word} {emoji}")).collect();
    lines.push(format!("Words for emoji: {}.", words.join(", ")));
    lines.push("A message that begins with a slash is written with two.".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Command {
        match parse(line) {
            Ok(Typed::Command(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_is_no_command_is_a_message() {
        assert_eq!(parse(" \t "), Ok(Typed::Nothing));
        assert_eq!(parse("a /quit"), Ok(Typed::Text("a /quit".to_owned())));
        assert_eq!(parse("//etc/hosts"), Ok(Typed::Text("/etc/hosts".to_owned())));
        assert_eq!(parse("/lissen"), Err("there is no /lissen: see /help".to_owned()));
    }

    #[test]
    fn commands_take_what_their_row_says() {
        assert_eq!(typed("/o kitchen "), Command::Open("kitchen".to_owned()));
        let password = Some(Secret::new("two words".to_owned()));
        assert_eq!(
            typed("/join hall two words"),
            Job::Join { name: "hall".to_owned(), password }.into()
        );
        assert_eq!(typed("/edit -2 a b"), Command::Edit { back: 2, content: "a b".to_owned() });
        assert_eq!(typed("/edit - b"), Command::Edit { back: 1, content: "- b".to_owned() });
        assert_eq!(typed("/delete"), Command::Delete { back: 1, user: None });
        let user = Some("boris".to_owned());
        assert_eq!(typed("/delete -3 boris"), Command::Delete { back: 3, user });
        assert_eq!(
            typed("/ban boris off"),
            ChatJob::Ban { user: "boris".to_owned(), on: false }.into()
        );
        let session = SessionId::new(7).unwrap();
        assert_eq!(typed("/end 7"), Job::End(session).into());
        assert_eq!(parse("/ban boris"), Err("usage: /ban USER on|off".to_owned()));
        assert_eq!(parse("/leave hall"), Err("usage: /leave".to_owned()));
        for bad in [
            "/join",
            "/open a b",
            "/edit",
            "/edit -2",
            "/edit -0 x",
            "/edit -99999999999999999999 x",
            "/delete -99999999999999999999",
            "/end x",
            "/end 0",
            "/dm",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_are_named_by_place_and_sender() {
        let to = |back, user: Option<&str>| Target { back, user: user.map(str::to_owned) };
        let content = "me too".to_owned();
        assert_eq!(typed("/reply me too"), Command::Reply { to: to(1, None), content });
        let content = "a @b".to_owned();
        assert_eq!(
            typed("/reply -3 @boris a @b"),
            Command::Reply { to: to(3, Some("boris")), content }
        );
        let emoji = "👍".to_owned();
        assert_eq!(
            typed("/react @boris +1 off"),
            Command::React { to: to(1, Some("boris")), emoji, on: false }
        );
        let emoji = "🦊".to_owned();
        assert_eq!(typed("/react -2 🦊"), Command::React { to: to(2, None), emoji, on: true });
        assert_eq!(typed("/reactions"), Command::Reactions(to(1, None)));
        assert_eq!(typed("/save -2"), Command::Save(to(2, None)));
        for bad in ["/reply", "/reply @boris", "/reply -0 x", "/react", "/react -1", "/react a b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("/save all of it").is_err());
        assert_eq!(aim("/reply -2 @boris half a"), Some(to(2, Some("boris"))));
        assert_eq!(aim("/react "), Some(to(1, None)));
        for none in ["/reply", "/replyx ", "reply x", "/open hall", ""] {
            assert_eq!(aim(none), None, "{none}");
        }
    }

    #[test]
    fn files_and_invites_are_named_as_people_write_them() {
        let file = |path: &str, content: &str| Command::SendFile {
            path: path.to_owned(),
            content: content.to_owned(),
        };
        assert_eq!(typed("/send a.txt"), file("a.txt", ""));
        assert_eq!(typed("/send a.txt  look at it"), file("a.txt", "look at it"));
        assert_eq!(typed("/send \"a b.txt\" look"), file("a b.txt", "look"));
        let invite = |with_qr, uses, days| ChatJob::Invite { with_qr, uses, days }.into();
        assert_eq!(typed("/invite"), invite(false, 1, 7));
        assert_eq!(typed("/invite qr 5"), invite(true, 5, 7));
        assert_eq!(typed("/invite 5 30"), invite(false, 5, 30));
        let code = "abcd-efgh".to_owned();
        assert_eq!(typed("/accept abcd-efgh"), Job::Accept(code.clone()).into());
        assert_eq!(typed("/accept https://chat.lan/#invite=abcd-efgh"), Job::Accept(code).into());
        for bad in ["/send", "/send \"a b", "/send \"\"", "/invite 0", "/invite 1 2 3", "/accept"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_a_command_and_is_documented() {
        let page = include_str!("../../../docs/client.md");
        for (name, takes, _) in TABLE {
            let arguments = takes
                .replace("on|off", "on")
                .replace("all|mentions|none", "mentions")
                .replace("[-N] ", "")
                .replace("SESSION", "1")
                .replace("[USES [DAYS]]", "5 2");
            let line = format!("/{name} {}", arguments.replace(['[', ']'], ""));
            assert!(parse(&line).is_ok(), "{line}");
            assert!(page.contains(&format!("`/{name}")), "/{name} is not in docs/client.md");
        }
        assert_eq!(help().len(), TABLE.len() + 2);
    }
}
