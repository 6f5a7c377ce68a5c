//! Performs jobs with the client library. Must not know the screen or threads.

use std::collections::BTreeMap;
use std::path::PathBuf;

use purpose::client::{
    Chat, Client, Error, Event, Member, Message, NewInvite, Notify, ReactionChange,
};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, UserId};

use super::job::{ChatJob, Job, News, PAGE_MESSAGES};
use super::report;
use super::text::{Clock, harmless};
use crate::cli::link;

/// Chats, users or messages in the result of a search, at most.
const FOUND_MAX: u16 = 50;
/// Users whose names are looked up for one list, at most.
const NAMES_MAX: usize = 100;
/// Quiet zone of a QR code, in modules: smaller than on paper, so that the code fits into 24 rows.
const QUIET_MODULES: i32 = 2;

/// The outcome of a job.
type Outcome = Result<Vec<News>, Error>;

/// The environment of jobs.
pub(super) struct Surroundings {
    /// Where files are saved.
    pub(super) folder: PathBuf,
    /// The address of the browser client, for links.
    pub(super) public_url: String,
}

/// Performs a job, except those that the worker does by itself.
pub(super) fn perform(client: &mut Client, job: &Job, surroundings: &Surroundings) -> Outcome {
    match job {
        Job::Show { chat, messages } => show(client, *chat, *messages),
        Job::Join { name, password } => join(client, name, password.as_ref()),
        Job::Page { chat, before, messages: limit } => {
            let messages = client.page(*chat, *before, *limit)?;
            let is_first = messages.len() < usize::from(*limit);
            Ok(vec![News::Page { chat: *chat, messages, is_first }])
        }
        Job::Direct(user) => {
            let user = client.user_id(user)?;
            let chat = client.start_chat(user)?;
            show(client, chat, PAGE_MESSAGES)
        }
        Job::Create(name) => {
            let chat = client.create_chat(name, None)?;
            show(client, chat, PAGE_MESSAGES)
        }
        Job::Accept(code) => {
            let chat = client.use_invite(code)?;
            show(client, chat, PAGE_MESSAGES)
        }
        Job::DeleteChat(chat) => gone(*chat, client.delete_chat(*chat), "no-such-chat"),
        Job::SearchAll(words) => search(client, None, words),
        Job::InChat(chat, job) => in_chat(client, *chat, job, surroundings),
        Job::Find(prefix) => Ok(lines(report::found(&client.find_chats(prefix, FOUND_MAX)?))),
        Job::Edit { chat, message, content } => {
            client.edit(*chat, *message, content)?;
            again(client, *chat, *message)
        }
        Job::Delete { chat, message } => match client.delete(*chat, *message) {
            Err(error) if error.code() != Some("no-such-message") => Err(error),
            Ok(_) | Err(_) => again(client, *chat, *message),
        },
        Job::React { chat, message, on, emoji } => react(client, *chat, *message, *on, emoji),
        Job::Reactions { chat, message } => reactions(client, *chat, *message),
        Job::EndInvite(hint) => {
            client.end_invite(hint)?;
            line("the invite has ended")
        }
        Job::Users(prefix) => Ok(lines(report::users(&client.find_users(prefix, FOUND_MAX)?))),
        Job::Whois(user) => {
            let user = client.user_id(user)?;
            line(report::user(&client.user(user)?))
        }
        Job::Reset(user) => reset(client, user),
        Job::Disable { user, on } => {
            let id = client.user_id(user)?;
            client.set_user_disabled(id, *on)?;
            let can = if *on { "is locked out" } else { "can log in again" };
            line(format!("{} {can}", harmless(user)))
        }
        Job::Sessions => Ok(lines(report::sessions(&client.sessions()?))),
        Job::End(session) => {
            client.end_session(*session)?;
            line(format!("session {session} has ended"))
        }
        Job::Password { old, new } => {
            client.change_password(old.expose(), new.expose())?;
            line("your password is changed; your other sessions have ended")
        }
        // Done by the worker.
        Job::Send { .. } | Job::Upload { .. } | Job::Save(_) | Job::Cancel => Ok(Vec::new()),
        Job::Seen { .. } | Job::Typing(_) | Job::Quit { .. } => Ok(Vec::new()),
    }
}

/// Reports that a chat is gone; the code says that it was before.
fn gone(chat: ChatId, left: Result<(), Error>, code: &str) -> Outcome {
    match left {
        Err(error) if error.code() != Some(code) => Err(error),
        Ok(()) | Err(_) => Ok(vec![News::Event(Event::ChatGone(chat))]),
    }
}

/// Performs a job about a chat.
fn in_chat(
    client: &mut Client,
    chat: ChatId,
    job: &ChatJob,
    surroundings: &Surroundings,
) -> Outcome {
    let done = match job {
        ChatJob::Leave => return gone(chat, client.leave(chat), "not-member"),
        ChatJob::Members => {
            let members = client.members(chat)?;
            return Ok(vec![News::Lines(report::members(&members)), News::Members(chat, members)]);
        }
        ChatJob::Search(words) => return search(client, Some(chat), words),
        ChatJob::Invite { with_qr, uses, days } => {
            let new = NewInvite { registers: false, chat: Some(chat), uses: *uses, days: *days };
            return invite(client, new, *with_qr, surroundings);
        }
        ChatJob::Invites => return invites(client, chat),
        ChatJob::Add(user) => {
            let id = client.user_id(user)?;
            client.add_member(chat, id)?;
            format!("{} is a member now", harmless(user))
        }
        ChatJob::Admin { user, on } => {
            let id = client.user_id(user)?;
            client.set_admin(chat, id, *on)?;
            format!("{} is {} admin", harmless(user), if *on { "an" } else { "no longer an" })
        }
        ChatJob::Ban { user, on } => {
            let id = client.user_id(user)?;
            client.set_ban(chat, id, *on)?;
            format!("{} is banned{}", harmless(user), if *on { "" } else { " no longer" })
        }
        ChatJob::Title(title) => {
            client.set_title(chat, title)?;
            "the title is changed".to_owned()
        }
        ChatJob::Rename(name) => {
            client.rename_chat(chat, name)?;
            format!("the chat is called {} now", harmless(name))
        }
        ChatJob::Lock(password) => {
            client.set_chat_password(chat, password.as_ref().map(Secret::expose))?;
            let which = if password.is_some() { "the" } else { "no" };
            format!("who joins is asked for {which} password from now on")
        }
        ChatJob::Closed(on) => {
            client.set_chat_closed(chat, *on)?;
            let is = if *on { "closed: who joins is added or invited" } else { "open again" };
            format!("this chat is {is}")
        }
        ChatJob::Notify(notify) => {
            client.set_chat_notify(chat, *notify)?;
            let what = match notify {
                Notify::All => "every message of this chat is pushed",
                Notify::Mentions => "what mentions or answers you in this chat is pushed",
                Notify::Nothing => "nothing of this chat is pushed",
            };
            what.to_owned()
        }
    };
    // The chat has changed, so it is loaded again.
    let members = client.members(chat)?;
    let info = client.chat(chat)?;
    let changed = [News::Event(Event::Chat(info)), News::Members(chat, members)];
    Ok(changed.into_iter().chain(lines(vec![done])).collect())
}

fn lines(lines: Vec<String>) -> Vec<News> {
    vec![News::Lines(lines)]
}

fn line(line: impl Into<String>) -> Outcome {
    Ok(lines(vec![line.into()]))
}

fn show(client: &mut Client, chat: ChatId, messages: u16) -> Outcome {
    let info = client.chat(chat)?;
    let members = client.members(chat)?;
    let limit = usize::from(messages);
    let messages = if limit == 0 { Vec::new() } else { client.page(chat, None, messages)? };
    let is_whole = messages.len() < limit;
    let disabled = disabled_partner(client, &info, &members)?;
    let mut news = vec![News::Opened { chat: Box::new(info), members, messages, is_whole }];
    news.extend(disabled.map(|line| News::Lines(vec![line])));
    Ok(news)
}

/// A line that says that the other user of a direct chat is disabled.
fn disabled_partner(
    client: &mut Client,
    chat: &Chat,
    members: &[Member],
) -> Result<Option<String>, Error> {
    // The title of a direct chat is the other user's name.
    let is_partner = |member: &&Member| chat.direct && member.nickname == chat.title;
    let Some(partner) = members.iter().find(is_partner) else { return Ok(None) };
    if partner.online {
        return Ok(None);
    }
    match client.user(partner.user) {
        Ok(user) => Ok(user.disabled.then(|| report::disabled(&user))),
        Err(error) if error.is_broken() => Err(error),
        Err(_) => Ok(None),
    }
}

fn join(client: &mut Client, name: &str, password: Option<&Secret>) -> Outcome {
    let chat = client.chat_id(name)?;
    match client.join(chat, password.map(Secret::expose)) {
        Ok(()) => {}
        Err(error) if error.code() == Some("already-member") => {}
        Err(error) if error.code() == Some("password-required") => {
            return Ok(vec![News::PasswordNeeded { name: name.to_owned() }]);
        }
        Err(error) => return Err(error),
    }
    show(client, chat, PAGE_MESSAGES)
}

/// Reloads a message after a change that was answered with a time only.
fn again(client: &mut Client, chat: ChatId, message: MessageId) -> Outcome {
    let changed = look_up(client, chat, message)?;
    Ok(changed.map(|changed| News::Message(chat, changed)).into_iter().collect())
}

/// Loads one message.
pub(super) fn look_up(
    client: &mut Client,
    chat: ChatId,
    message: MessageId,
) -> Result<Option<Message>, Error> {
    let next = MessageId::at(message.created().next());
    Ok(client.page(chat, Some(next), 1)?.into_iter().find(|found| found.id == message))
}

fn search(client: &mut Client, chat: Option<ChatId>, words: &str) -> Outcome {
    let found = client.search(chat, words, FOUND_MAX)?;
    let chats = client.my_chats()?;
    let name = names(client, &mut found.iter().map(|(_, message)| message.sender))?;
    let mut lines = vec![format!("{} found", found.len())];
    for (chat, message) in &found {
        let chat_name = chats.iter().find(|info| info.id == *chat).map(report::chat_name);
        lines.push(report::hit(&chat_name.unwrap_or_default(), &name(message.sender), message));
    }
    Ok(self::lines(lines))
}

/// The name of a user, or the id if it is unknown.
fn name(client: &mut Client, user: UserId) -> Result<String, Error> {
    match client.user(user) {
        Ok(user) => Ok(user.nickname),
        Err(error) if error.is_broken() => Err(error),
        Err(_) => Ok(report::nameless(user)),
    }
}

/// The names of the first users of a list, and ids for the rest.
fn names(
    client: &mut Client,
    users: &mut dyn Iterator<Item = UserId>,
) -> Result<impl Fn(UserId) -> String + use<>, Error> {
    let mut names = BTreeMap::new();
    for user in users {
        if names.len() < NAMES_MAX && !names.contains_key(&user) {
            names.insert(user, name(client, user)?);
        }
    }
    Ok(move |user| names.get(&user).cloned().unwrap_or_else(|| report::nameless(user)))
}

/// Adds or removes a reaction, and reports it: the server does not notify the own connection.
fn react(client: &mut Client, chat: ChatId, message: MessageId, on: bool, emoji: &str) -> Outcome {
    let updated = client.react(chat, message, on, emoji)?;
    let me = client.session().and_then(|session| session.user);
    let emoji = emoji.to_owned();
    let change = me.map(|user| ReactionChange { chat, message, updated, user, on, emoji });
    Ok(change.map(|change| News::Event(Event::Reaction(change))).into_iter().collect())
}

/// The users of each reaction, one line per emoji.
fn reactions(client: &mut Client, chat: ChatId, message: MessageId) -> Outcome {
    let given = client.reactions(chat, message)?;
    let name = names(client, &mut given.iter().map(|(user, _)| *user))?;
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for (user, emoji) in given {
        let name = name(user);
        match lines.iter_mut().find(|(known, _)| *known == emoji) {
            Some((_, users)) => users.push(harmless(&name)),
            None => lines.push((emoji, vec![harmless(&name)])),
        }
    }
    let line = |(emoji, users): (String, Vec<String>)| {
        format!("{} {}", harmless(&emoji), users.join(", "))
    };
    let mut lines: Vec<String> = lines.into_iter().map(line).collect();
    if lines.is_empty() {
        lines.push("nobody has reacted to it".to_owned());
    }
    Ok(self::lines(lines))
}

fn invite(
    client: &mut Client,
    new: NewInvite,
    with_qr: bool,
    surroundings: &Surroundings,
) -> Outcome {
    let (uses, days) = (new.uses, new.days);
    let url = &surroundings.public_url;
    let code = harmless(&client.create_invite(new)?);
    let link = format!("{url}/#invite={code}");
    let uses = if uses == 1 { "one use".to_owned() } else { format!("{uses} uses") };
    let days = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
    let mut lines = vec![format!("for {uses}, within {days}: {code}"), link.clone()];
    if super::server::is_loopback_url(url) {
        lines.push("the link works on this machine alone: set --public-url".to_owned());
    }
    // The QR code comes last, so that all of it is visible in a small window.
    let mut news = vec![News::Lines(lines)];
    if with_qr {
        news.extend(link::qr_rows(&link, QUIET_MODULES).ok().map(News::Qr));
    }
    Ok(news)
}

fn invites(client: &mut Client, chat: ChatId) -> Outcome {
    let found = client.invites(Some(chat))?;
    let name = names(client, &mut found.iter().filter_map(|invite| invite.creator))?;
    Ok(lines(report::invites(&found, name)))
}

fn reset(client: &mut Client, user: &str) -> Outcome {
    let id = client.user_id(user)?;
    let reset = client.reset_password(id)?;
    let until = Clock::local().minute(reset.expires);
    let (user, code) = (harmless(user), harmless(&reset.code));
    line(format!("a code for {user}, good until {until}: {code}"))
}
