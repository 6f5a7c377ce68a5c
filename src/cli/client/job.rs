//! What the controller asks of the server, and what it receives. Each job is one or a few requests;
//! knows no screen and no thread.

use std::time::Duration;

use purpose::client::{Chat, Client, Error, Event, Member, Message, Sent};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};

use super::report;

/// Messages asked for at once.
pub(super) const PAGE_MESSAGES: u16 = 50;

/// Chats and messages that a search gives at most.
const FOUND_MAX: u16 = 50;

/// Something to be done, in the order given.
pub(super) enum Job {
    /// Sends a message; its nonce makes that safe to repeat.
    Send {
        chat: ChatId,
        nonce: u64,
        content: String,
    },
    /// Brings all that is needed to show a chat, with its newest `messages`.
    Show {
        chat: ChatId,
        messages: u16,
    },
    /// Becomes a member by name, and shows the chat.
    Join {
        name: String,
        password: Option<Secret>,
    },
    /// Messages older than one.
    Page {
        chat: ChatId,
        before: Option<MessageId>,
        messages: u16,
    },
    Leave(ChatId),
    Find(String),
    Direct(String),
    Members(ChatId),
    Search {
        chat: Option<ChatId>,
        words: String,
    },
    Edit {
        chat: ChatId,
        message: MessageId,
        content: String,
    },
    Delete {
        chat: ChatId,
        message: MessageId,
    },
    Whois(String),
    Create(String),
    Title {
        chat: ChatId,
        title: String,
    },
    Rename {
        chat: ChatId,
        name: String,
    },
    Lock {
        chat: ChatId,
        password: Option<Secret>,
    },
    Admin {
        chat: ChatId,
        user: String,
        on: bool,
    },
    Ban {
        chat: ChatId,
        user: String,
        on: bool,
    },
    DeleteChat(ChatId),
    Password {
        old: Secret,
        new: Secret,
    },
    Sessions,
    End(SessionId),
    /// Everything of the chat up to this time was shown.
    Seen {
        chat: ChatId,
        time: ServerTime,
    },
    /// I am typing.
    Typing(ChatId),
    /// Ends the connection, and the session, too, if that is asked for.
    Quit {
        logoff: bool,
    },
}

/// What the front hears.
pub(super) enum News {
    /// The connection stands, and everything missed was reported.
    Connected,
    /// It is lost, and is tried again.
    Lost { why: String },
    /// All my chats.
    Chats(Vec<Chat>),
    /// Somebody's name.
    Name(UserId, String),
    /// Who is in a chat.
    Members(ChatId, Vec<Member>),
    /// A chat was joined or asked for: its members and its newest messages, ascending.
    Opened { chat: Box<Chat>, members: Vec<Member>, messages: Vec<Message>, is_whole: bool },
    /// Older messages, ascending; fewer than asked for when the beginning is among them.
    Page { chat: ChatId, messages: Vec<Message>, is_first: bool },
    /// A message that was missed, sent, edited or deleted.
    Message(ChatId, Message),
    /// Anything else that the server says.
    Event(Event),
    /// A message of mine is stored.
    Sent { chat: ChatId, nonce: u64, sent: Sent },
    /// A message of mine is refused for good.
    NotSent { nonce: u64, why: String },
    /// A message of mine has to wait.
    Slowed { why: String, pause: Duration },
    /// The chat asks for a password.
    PasswordNeeded { name: String },
    /// A job that is no message, marker or typing notice has been dealt with.
    Done,
    /// The outcome of a command, for a person.
    Lines(Vec<String>),
    /// A command failed.
    Failed(String),
    /// The session is over, and nothing more will come.
    Ended(Result<(), String>),
}

impl Job {
    /// Whether it may be done again when nobody knows whether it was done.
    pub(super) fn is_safe_to_repeat(&self) -> bool {
        !matches!(self, Self::Password { .. } | Self::Create(_))
    }
}

/// Does all but what the worker does by itself: sending, marking, quitting.
pub(super) fn perform(client: &mut Client, job: &Job) -> Result<Vec<News>, Error> {
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

fn show(client: &mut Client, chat: ChatId, messages: u16) -> Result<Vec<News>, Error> {
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
    let next = MessageId::at(message.created().next());
    let page = client.page(chat, Some(next), 1)?;
    let changed = page.into_iter().filter(|found| found.id == message);
    Ok(changed.map(|changed| News::Message(chat, changed)).collect())
}

fn search(client: &mut Client, chat: Option<ChatId>, words: &str) -> Result<Vec<News>, Error> {
    let found = client.search(chat, words, FOUND_MAX)?;
    let chats = client.my_chats()?;
    let mut lines = vec![format!("{} found", found.len())];
    for (chat, message) in &found {
        let name = chats.iter().find(|info| info.id == *chat).map(report::chat_name);
        let sender = match client.user(message.sender) {
            Ok(user) => user.nickname,
            Err(error) if error.is_broken() => return Err(error),
            Err(_) => report::nameless(message.sender),
        };
        lines.push(report::hit(&name.unwrap_or_default(), &sender, message));
    }
    Ok(vec![News::Lines(lines)])
}
