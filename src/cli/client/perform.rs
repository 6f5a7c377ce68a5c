//! How each job is done by the client library. Knows no screen and no thread.

use std::path::PathBuf;

use purpose::client::{Client, Error, Event, Message};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, ServerTime, UserId};

use super::job::{Job, News, PAGE_MESSAGES};
use super::{newer, report};

/// Chats, people and messages that a search gives at most.
pub(super) const FOUND_MAX: u16 = 50;

/// What the client has around it.
pub(super) struct Surroundings {
    /// Where files are saved.
    pub(super) folder: PathBuf,
    /// The address of the browser client, with which links begin.
    pub(super) public_url: String,
}

/// Does all but what the worker does by itself: sending, marking, quitting.
pub(super) fn perform(
    client: &mut Client,
    job: &Job,
    surroundings: &Surroundings,
) -> Result<Vec<News>, Error> {
    let line = |line: String| Ok(vec![News::Lines(vec![line])]);
    match job {
        Job::Show { chat, messages } => show(client, *chat, *messages),
        Job::Join { name, password } => join(client, name, password.as_ref()),
        Job::Page { chat, before, messages } => page(client, *chat, *before, *messages),
        Job::Direct(user) => {
            let user = client.user_id(user)?;
            let chat = client.start_chat(user)?;
            show(client, chat, PAGE_MESSAGES)
        }
        Job::Create(name) => {
            let chat = client.create_chat(name, None)?;
            show(client, chat, PAGE_MESSAGES)
        }
        Job::Leave(chat) => {
            client.leave(*chat).or_else(|error| unless(error, "not-member"))?;
            Ok(vec![News::Event(Event::ChatGone(*chat))])
        }
        Job::DeleteChat(chat) => {
            client.delete_chat(*chat).or_else(|error| unless(error, "no-such-chat"))?;
            Ok(vec![News::Event(Event::ChatGone(*chat))])
        }
        Job::Find(prefix) => {
            Ok(vec![News::Lines(report::found(&client.find_chats(prefix, FOUND_MAX)?))])
        }
        Job::Members(chat) => {
            let members = client.members(*chat)?;
            Ok(vec![News::Lines(report::members(&members)), News::Members(*chat, members)])
        }
        Job::Search { chat, words } => search(client, *chat, words),
        Job::Edit { chat, message, content } => {
            client.edit(*chat, *message, content)?;
            again(client, *chat, *message)
        }
        Job::Delete { chat, message } => {
            client.delete(*chat, *message).or_else(|error| match error.code() {
                Some("no-such-message") => Ok(ServerTime::ZERO),
                _ => Err(error),
            })?;
            again(client, *chat, *message)
        }
        Job::Whois(user) => {
            let user = client.user_id(user)?;
            line(report::user(&client.user(user)?))
        }
        Job::Sessions => Ok(vec![News::Lines(report::sessions(&client.sessions()?))]),
        Job::End(session) => {
            client.end_session(*session)?;
            line(format!("session {session} has ended"))
        }
        Job::Password { old, new } => {
            client.change_password(old.expose(), new.expose())?;
            line("your password is changed; your other sessions have ended".to_owned())
        }
        _ if job.newer_feature().is_some() => newer::perform(client, job, surroundings),
        _ => manage(client, job),
    }
}

/// What the admins of a chat do.
fn manage(client: &mut Client, job: &Job) -> Result<Vec<News>, Error> {
    let (chat, words) = match job {
        Job::Title { chat, title } => {
            client.set_title(*chat, title)?;
            (*chat, "the title is changed".to_owned())
        }
        Job::Rename { chat, name } => {
            client.rename_chat(*chat, name)?;
            (*chat, format!("the chat is called {name} now"))
        }
        Job::Lock { chat, password } => {
            client.set_chat_password(*chat, password.as_ref().map(Secret::expose))?;
            let words = match password {
                Some(_) => "who joins is asked for the password from now on",
                None => "who joins is asked for no password from now on",
            };
            (*chat, words.to_owned())
        }
        Job::Admin { chat, user, on } => {
            let id = client.user_id(user)?;
            client.set_admin(*chat, id, *on)?;
            (*chat, format!("{user} is {} admin", if *on { "an" } else { "no longer an" }))
        }
        Job::Ban { chat, user, on } => {
            let id = client.user_id(user)?;
            client.set_ban(*chat, id, *on)?;
            (*chat, format!("{user} is {}", if *on { "banned" } else { "banned no longer" }))
        }
        // The rest is the worker's own.
        _ => return Ok(Vec::new()),
    };
    changed(client, chat, words)
}

/// A chat after it was changed, and what was done.
pub(super) fn changed(
    client: &mut Client,
    chat: ChatId,
    words: String,
) -> Result<Vec<News>, Error> {
    let members = client.members(chat)?;
    Ok(vec![
        News::Event(Event::Chat(client.chat(chat)?)),
        News::Members(chat, members),
        News::Lines(vec![words]),
    ])
}

fn unless(error: Error, code: &str) -> Result<(), Error> {
    if error.code() == Some(code) { Ok(()) } else { Err(error) }
}

pub(super) fn show(client: &mut Client, chat: ChatId, messages: u16) -> Result<Vec<News>, Error> {
    let info = client.chat(chat)?;
    let members = client.members(chat)?;
    let limit = usize::from(messages);
    let messages = if limit == 0 { Vec::new() } else { client.page(chat, None, messages)? };
    let is_whole = messages.len() < limit;
    Ok(vec![News::Opened { chat: Box::new(info), members, messages, is_whole }])
}

fn join(client: &mut Client, name: &str, password: Option<&Secret>) -> Result<Vec<News>, Error> {
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

fn page(
    client: &mut Client,
    chat: ChatId,
    before: Option<MessageId>,
    limit: u16,
) -> Result<Vec<News>, Error> {
    let messages = client.page(chat, before, limit)?;
    let is_first = messages.len() < usize::from(limit);
    Ok(vec![News::Page { chat, messages, is_first }])
}

/// What became of a message of which the change was answered with a time alone.
fn again(client: &mut Client, chat: ChatId, message: MessageId) -> Result<Vec<News>, Error> {
    let changed = look_up(client, chat, message)?;
    Ok(changed.map(|changed| News::Message(chat, changed)).into_iter().collect())
}

/// One message, as it is now.
pub(super) fn look_up(
    client: &mut Client,
    chat: ChatId,
    message: MessageId,
) -> Result<Option<Message>, Error> {
    let next = MessageId::at(message.created().next());
    Ok(client.page(chat, Some(next), 1)?.into_iter().find(|found| found.id == message))
}

fn search(client: &mut Client, chat: Option<ChatId>, words: &str) -> Result<Vec<News>, Error> {
    let found = client.search(chat, words, FOUND_MAX)?;
    let chats = client.my_chats()?;
    let mut lines = vec![format!("{} found", found.len())];
    for (chat, message) in &found {
        let chat_name = chats.iter().find(|info| info.id == *chat).map(report::chat_name);
        let sender = name(client, message.sender)?;
        lines.push(report::hit(&chat_name.unwrap_or_default(), &sender, message));
    }
    Ok(vec![News::Lines(lines)])
}

/// Somebody's name, or a number where nobody knows it.
pub(super) fn name(client: &mut Client, user: UserId) -> Result<String, Error> {
    match client.user(user) {
        Ok(user) => Ok(user.nickname),
        Err(error) if error.is_broken() => Err(error),
        Err(_) => Ok(report::nameless(user)),
    }
}
