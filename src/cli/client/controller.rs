//! What the client does about what is typed and what comes, the same for both user interfaces:
//! events in, effects out. Knows neither terminal nor thread.

use std::collections::VecDeque;

use purpose::client::{Event, Message};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};
use vestnik::limits::BODY_BYTES_MAX;
use vestnik::wire::answer::MemberEvent;

use super::command::{self, Command, Typed};
use super::job::{Job, News, PAGE_MESSAGES};
use super::model::{Model, Taken};
use super::report;
use super::text::harmless;

/// Longest message that is handed on: the server has a bound of its own, and says so, but more
/// than a frame would end the connection.
const CONTENT_BYTES_MAX: usize = BODY_BYTES_MAX - 64;

/// What is to be done about an event.
pub(super) enum Effect {
    /// Ask the server.
    Ask(Job),
    /// A message of the open chat is to be shown.
    Message(Message),
    /// Something is to be said, in lines that are harmless.
    Note(Vec<String>),
    /// Something failed.
    Failure(String),
    /// Ask for something that is not shown.
    Question(Question),
    /// The worker has ended.
    End(Result<(), String>),
}

/// What is asked for without showing what is typed.
pub(super) enum Question {
    /// The password of a chat, to join it.
    ToJoin { name: String },
    /// A new password for a chat.
    OfChat { chat: ChatId, first: Option<Secret> },
    /// My password as it is.
    Mine,
    /// My new password.
    MyNext { old: Secret, first: Option<Secret> },
}

impl Question {
    /// What to say before the answer.
    pub(super) fn prompt(&self) -> String {
        match self {
            Self::ToJoin { name } => format!("Password of {}: ", harmless(name)),
            Self::OfChat { first: None, .. } => "New password of this chat: ".to_owned(),
            Self::Mine => "Your password: ".to_owned(),
            Self::MyNext { first: None, .. } => "New password: ".to_owned(),
            Self::OfChat { .. } | Self::MyNext { .. } => "Again: ".to_owned(),
        }
    }
}

/// A message of mine that the server has not answered.
pub(super) struct Unsent {
    pub(super) chat: ChatId,
    pub(super) nonce: u64,
    pub(super) content: String,
}

/// Whether the connection stands.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Link {
    Connected,
    /// Lost, and why.
    Lost(String),
}

/// The state of the client.
pub(super) struct Controller {
    pub(super) model: Model,
    pub(super) link: Link,
    pub(super) unsent: VecDeque<Unsent>,
    /// Commands that the worker has not answered.
    pub(super) asked: usize,
    /// Whether older messages are on their way.
    pub(super) is_paging: bool,
    next_nonce: u64,
    /// Messages that a chat is opened with.
    history: u16,
    was_lost: bool,
}

impl Controller {
    /// The nonces begin somewhere: they must differ from those of other runs.
    pub(super) fn new(model: Model, first_nonce: u64, history: u16) -> Self {
        Self {
            model,
            link: Link::Connected,
            unsent: VecDeque::new(),
            asked: 0,
            is_paging: false,
            next_nonce: first_nonce,
            history,
            was_lost: false,
        }
    }

    /// Whether everything typed is done.
    pub(super) fn is_settled(&self) -> bool {
        self.unsent.is_empty() && self.asked == 0
    }

    /// Opens a chat of mine: with what is kept of it at once, with the rest when it comes.
    pub(super) fn show(&mut self, chat: ChatId) -> Effect {
        let messages = if self.model.open.is_none() { self.history } else { PAGE_MESSAGES };
        self.model.switch(chat);
        self.ask(Job::Show { chat, messages })
    }

    fn ask(&mut self, job: Job) -> Effect {
        self.asked += 1;
        Effect::Ask(job)
    }

    /// A line was typed.
    pub(super) fn typed(&mut self, line: &str) -> Vec<Effect> {
        match command::parse(line) {
            Ok(Typed::Nothing) => Vec::new(),
            Ok(Typed::Text(text)) => vec![self.say(text)],
            Ok(Typed::Command(command)) => match self.command(command) {
                Ok(effect) => vec![effect],
                Err(words) => vec![Effect::Failure(words)],
            },
            Err(words) => vec![Effect::Failure(harmless(&words))],
        }
    }

    fn say(&mut self, content: String) -> Effect {
        let Some(chat) = self.model.open else {
            return Effect::Failure("no chat is open: /join NAME or /open NAME".to_owned());
        };
        if content.len() > CONTENT_BYTES_MAX {
            return Effect::Failure("not sent: that is too long for one message".to_owned());
        }
        let nonce = self.next_nonce;
        self.next_nonce = self.next_nonce.wrapping_add(1);
        self.unsent.push_back(Unsent { chat, nonce, content: content.clone() });
        Effect::Ask(Job::Send { chat, nonce, content })
    }

    fn command(&mut self, command: Command) -> Result<Effect, String> {
        let job = match command {
            Command::Help => return Ok(Effect::Note(command::help())),
            Command::Chats => {
                let listed = self.model.listed();
                let chats = listed.iter().map(|view| (&view.info, view.unread));
                return Ok(Effect::Note(report::chats(chats)));
            }
            Command::Open(name) => {
                let chat = self.model.find(&name);
                let words = || format!("you are in no chat {}: /join it", harmless(&name));
                return Ok(self.show(chat.ok_or_else(words)?));
            }
            Command::Lock => {
                let chat = self.here()?;
                return Ok(Effect::Question(Question::OfChat { chat, first: None }));
            }
            Command::Password => return Ok(Effect::Question(Question::Mine)),
            Command::More => return self.older().ok_or_else(|| self.why_no_more()),
            Command::Join { name, password } => Job::Join { name, password },
            Command::Find(prefix) => Job::Find(prefix),
            Command::Direct(user) => Job::Direct(user.trim_start_matches('@').to_owned()),
            Command::Whois(user) => Job::Whois(user),
            Command::Create(name) => Job::Create(name),
            Command::Sessions => Job::Sessions,
            Command::End(id) => {
                Job::End(SessionId::new(id).ok_or_else(|| "there is no session 0".to_owned())?)
            }
            Command::Search { words, everywhere: true } => Job::Search { chat: None, words },
            Command::Logoff => Job::Quit { logoff: true },
            Command::Quit => Job::Quit { logoff: false },
            here => self.command_here(here)?,
        };
        Ok(self.ask(job))
    }

    /// A command about the open chat.
    fn command_here(&self, command: Command) -> Result<Job, String> {
        let chat = self.here()?;
        Ok(match command {
            Command::Leave => Job::Leave(chat),
            Command::Members => Job::Members(chat),
            Command::Search { words, .. } => Job::Search { chat: Some(chat), words },
            Command::Edit { back, content } => {
                let message = self.nth_last(self.model.me, back)?;
                Job::Edit { chat, message, content }
            }
            Command::Delete { back, user } => {
                let sender = match user {
                    Some(name) => self.model.member(&name).ok_or_else(|| {
                        format!("no message of {} is loaded here", harmless(&name))
                    })?,
                    None => self.model.me,
                };
                Job::Delete { chat, message: self.nth_last(sender, back)? }
            }
            Command::Title(title) => Job::Title { chat, title },
            Command::Rename(name) => Job::Rename { chat, name },
            Command::Unlock => Job::Lock { chat, password: None },
            Command::Admin { user, on } => Job::Admin { chat, user, on },
            Command::Ban { user, on } => Job::Ban { chat, user, on },
            Command::DeleteChat(name) => {
                if self.model.find(&name) != Some(chat) {
                    return Err(
                        "to delete this chat with all its messages, say its name".to_owned()
                    );
                }
                Job::DeleteChat(chat)
            }
            _ => return Err("that is not for a chat".to_owned()),
        })
    }

    fn here(&self) -> Result<ChatId, String> {
        self.model.open.ok_or_else(|| "no chat is open: /join NAME or /open NAME".to_owned())
    }

    fn nth_last(&self, sender: UserId, back: usize) -> Result<MessageId, String> {
        if sender == self.model.me
            && self.unsent.iter().any(|unsent| Some(unsent.chat) == self.model.open)
        {
            return Err("your last message is not sent yet".to_owned());
        }
        let found = self.model.nth_last(sender, back).map(|message| message.id);
        found.ok_or_else(|| "there is no such message among those that are loaded".to_owned())
    }

    /// Asks for older messages of the open chat, if there are some to ask for.
    pub(super) fn older(&mut self) -> Option<Effect> {
        let view = self.model.open_view()?;
        if self.is_paging || view.is_whole || view.is_full() {
            return None;
        }
        let (chat, before) = (view.info.id, view.messages.keys().next().copied());
        self.is_paging = true;
        Some(self.ask(Job::Page { chat, before, messages: PAGE_MESSAGES }))
    }

    fn why_no_more(&self) -> String {
        match self.model.open_view() {
            None => "no chat is open".to_owned(),
            Some(view) if view.is_whole => "that is all that was said here".to_owned(),
            Some(view) if view.is_full() => "that is all that is kept here: /search".to_owned(),
            Some(_) => "they are on their way".to_owned(),
        }
    }

    /// A question was answered.
    pub(super) fn answered(&mut self, question: Question, answer: Secret) -> Effect {
        match question {
            Question::ToJoin { name } => self.ask(Job::Join { name, password: Some(answer) }),
            Question::Mine => Effect::Question(Question::MyNext { old: answer, first: None }),
            Question::MyNext { old, first: None } => {
                Effect::Question(Question::MyNext { old, first: Some(answer) })
            }
            Question::MyNext { old, first: Some(first) } if first == answer => {
                self.ask(Job::Password { old, new: answer })
            }
            Question::OfChat { chat, first: None } => {
                Effect::Question(Question::OfChat { chat, first: Some(answer) })
            }
            Question::OfChat { chat, first: Some(first) } if first == answer => {
                self.ask(Job::Lock { chat, password: Some(answer) })
            }
            Question::MyNext { .. } | Question::OfChat { .. } => {
                Effect::Failure("the two differ: nothing was changed".to_owned())
            }
        }
    }

    /// Something came from the worker.
    pub(super) fn heard(&mut self, news: News) -> Vec<Effect> {
        match news {
            News::Connected => self.connected(),
            News::Lost { why } => self.lost(why),
            News::Chats(chats) => {
                self.model.take_chats(chats);
                Vec::new()
            }
            News::Name(user, name) => {
                self.model.learn_name(user, name);
                Vec::new()
            }
            News::Members(chat, members) => {
                self.model.take_members(chat, members);
                Vec::new()
            }
            News::Opened { chat, members, messages, is_whole } => {
                let id = chat.id;
                let new = self.model.open(*chat, messages, is_whole);
                self.model.take_members(id, members);
                self.shown(id, new)
            }
            News::Page { chat, messages, is_first } => {
                self.is_paging = false;
                let new = self.model.take_page(chat, messages, is_first);
                if self.model.open == Some(chat) {
                    new.into_iter().map(Effect::Message).collect()
                } else {
                    Vec::new()
                }
            }
            News::Message(chat, message) => self.message(chat, message),
            News::Event(event) => self.event(event),
            News::Sent { chat, nonce, sent } => self.sent(chat, nonce, sent.id),
            News::NotSent { nonce, why } => {
                let content = self.take_unsent(nonce).map(|unsent| unsent.content);
                let content = harmless(&content.unwrap_or_default());
                vec![Effect::Failure(format!("not sent: {why}: {content}"))]
            }
            News::Slowed { why, pause } => {
                vec![Effect::Note(vec![format!("{why}: sent in {} s", pause.as_secs())])]
            }
            News::PasswordNeeded { name } => {
                vec![Effect::Question(Question::ToJoin { name })]
            }
            News::Lines(lines) => vec![Effect::Note(lines)],
            News::Failed(words) => {
                self.is_paging = false;
                vec![Effect::Failure(words)]
            }
            News::Done => {
                self.asked = self.asked.saturating_sub(1);
                Vec::new()
            }
            News::Ended(end) => vec![Effect::End(end)],
        }
    }

    fn connected(&mut self) -> Vec<Effect> {
        self.link = Link::Connected;
        if std::mem::take(&mut self.was_lost) {
            vec![Effect::Note(vec!["back again".to_owned()])]
        } else {
            Vec::new()
        }
    }

    fn lost(&mut self, why: String) -> Vec<Effect> {
        let is_first = !std::mem::replace(&mut self.was_lost, true);
        let note = vec![format!("{why}: connecting again")];
        self.link = Link::Lost(why);
        if is_first { vec![Effect::Note(note)] } else { Vec::new() }
    }

    /// The messages of a chat are on the screen, so they are seen.
    fn shown(&mut self, chat: ChatId, messages: Vec<Message>) -> Vec<Effect> {
        let newest = messages.iter().map(|message| message.created).max();
        let mut effects: Vec<Effect> = messages.into_iter().map(Effect::Message).collect();
        effects.extend(newest.map(|time| self.seen(chat, time)));
        effects
    }

    fn seen(&self, chat: ChatId, time: ServerTime) -> Effect {
        Effect::Ask(Job::Seen { chat, time })
    }

    fn message(&mut self, chat: ChatId, message: Message) -> Vec<Effect> {
        let is_mine = message.sender == self.model.me;
        let unread = self.model.chats.get(&chat).map_or(0, |view| view.unread);
        let taken = self.model.take(chat, message.clone());
        if self.model.open == Some(chat) {
            return match taken {
                Taken::New if is_mine => vec![Effect::Message(message)],
                Taken::New => self.shown(chat, vec![message]),
                Taken::Changed => vec![Effect::Message(message)],
                Taken::Known | Taken::Counted => Vec::new(),
            };
        }
        match self.model.chats.get(&chat) {
            Some(view) if unread == 0 && view.unread > 0 => {
                let name = report::chat_name(&view.info);
                vec![Effect::Note(vec![format!("new in {name}: /open {name}")])]
            }
            _ => Vec::new(),
        }
    }

    fn sent(&mut self, chat: ChatId, nonce: u64, id: MessageId) -> Vec<Effect> {
        if let Some(unsent) = self.take_unsent(nonce) {
            let message = Message {
                id,
                sender: self.model.me,
                created: id.created(),
                updated: id.created(),
                edited: false,
                deleted: false,
                content: unsent.content,
                reply: None,
                files: Vec::new(),
                reactions: Vec::new(),
            };
            self.model.take(chat, message);
        }
        Vec::new()
    }

    fn take_unsent(&mut self, nonce: u64) -> Option<Unsent> {
        let at = self.unsent.iter().position(|unsent| unsent.nonce == nonce)?;
        self.unsent.remove(at)
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Chat(chat) => {
                let is_new = !self.model.chats.contains_key(&chat.id);
                let name = report::chat_name(&chat);
                self.model.take_chat(chat);
                if is_new {
                    return vec![Effect::Note(vec![format!(
                        "you are in {name} now: /open {name}"
                    )])];
                }
            }
            Event::ChatGone(chat) => return self.gone(chat),
            Event::Member { chat, user, event, nickname } => {
                return self.member(chat, user, event, nickname);
            }
            Event::Presence { user, online } => self.model.take_presence(user, online),
            Event::Seen { chat, user, time } if user == self.model.me => {
                if let Some(view) = self.model.chats.get_mut(&chat) {
                    view.see(time);
                }
            }
            Event::Seen { .. } | Event::Typing { .. } => {}
            Event::Message { .. } | Event::Reaction(_) | Event::Deauth | Event::Missed => {}
        }
        Vec::new()
    }

    fn gone(&mut self, chat: ChatId) -> Vec<Effect> {
        let Some(view) = self.model.drop_chat(chat) else { return Vec::new() };
        let name = report::chat_name(&view.info);
        vec![Effect::Note(vec![format!("you are no longer in {name}")])]
    }

    fn member(
        &mut self,
        chat: ChatId,
        user: UserId,
        event: MemberEvent,
        nickname: String,
    ) -> Vec<Effect> {
        let name = harmless(&nickname);
        self.model.learn_name(user, nickname.clone());
        if let Some(view) = self.model.chats.get_mut(&chat) {
            view.change_member(user, event, nickname);
        }
        if self.model.open != Some(chat) {
            return Vec::new();
        }
        let did = match event {
            MemberEvent::Joined => "has joined",
            MemberEvent::Left => "has left",
            MemberEvent::Admin => "is an admin now",
            MemberEvent::NoLongerAdmin => "is no longer an admin",
            MemberEvent::Banned => "was put out",
        };
        vec![Effect::Note(vec![format!("{name} {did}")])]
    }
}
