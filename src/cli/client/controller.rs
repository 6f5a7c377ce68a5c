//! The controller: turns input and news into effects, for both user interfaces.
//!
//! Must not know the terminal or threads.

use std::collections::VecDeque;

use purpose::client::{Event, File, Message, ReactionChange, Sent};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, UserId};
use vestnik::limits::BODY_BYTES_MAX;
use vestnik::wire::answer::MemberEvent;

use super::command::{self, Typed};
use super::job::{ChatJob, Job, News, PAGE_MESSAGES, Progress};
use super::model::{Model, Taken};
use super::report;
use super::text::harmless;

/// Longest message that is passed to the worker, in bytes. The server has a lower bound and
/// declines longer ones, but a frame that is too large would end the connection.
const CONTENT_BYTES_MAX: usize = BODY_BYTES_MAX - 64;

/// An effect of an event.
pub(super) enum Effect {
    /// Pass a job to the worker.
    Ask(Job),
    /// Show a message of the open chat.
    Message(Message),
    /// Something that is shown has changed; the text is for line mode.
    Changed(String),
    /// Progress of a file.
    Progress(Progress),
    /// Show a QR code, by rows.
    Qr(Vec<String>),
    /// Show lines of text, without control characters.
    Note(Vec<String>),
    /// Show an error.
    Failure(String),
    /// Ask for input that is not echoed.
    Question(Question),
    /// The worker has ended.
    End(Result<(), String>),
}

/// A question whose answer is not echoed.
pub(super) enum Question {
    /// The password of a chat, to join it.
    ToJoin { name: String },
    /// A new password for a chat.
    OfChat { chat: ChatId, first: Option<Secret> },
    /// The user's present password.
    Mine,
    /// The user's new password.
    MyNext { old: Secret, first: Option<Secret> },
}

impl Question {
    /// The prompt.
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

/// An own message that the server has not answered.
pub(super) struct Unsent {
    pub(super) chat: ChatId,
    pub(super) nonce: u64,
    pub(super) content: String,
    pub(super) reply: Option<MessageId>,
    /// The file that is sent with it, as typed.
    pub(super) file: Option<String>,
}

impl Unsent {
    /// The typed text in one line, without control characters.
    pub(super) fn line(&self) -> String {
        let file = self.file.as_deref().map(|file| format!("[{}]", harmless(file)));
        let content = Some(harmless(&self.content)).filter(|content| !content.is_empty());
        file.into_iter().chain(content).collect::<Vec<_>>().join(" ")
    }
}

/// The state of the connection.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Link {
    Connected,
    /// Lost, with the reason.
    Lost(String),
}

/// The state of the controller.
pub(super) struct Controller {
    pub(super) model: Model,
    pub(super) link: Link,
    pub(super) unsent: VecDeque<Unsent>,
    /// Progress of transfers.
    pub(super) transfers: Vec<Progress>,
    /// Commands for files that the worker has not finished.
    transferring: usize,
    /// Commands that the worker has not answered.
    pub(super) asked: usize,
    /// Whether older messages were requested.
    pub(super) is_paging: bool,
    /// The newest message when the present input line was begun; `None` in line mode. Newer
    /// messages are not the target of `/reply` and `/react`.
    pub(super) as_of: Option<MessageId>,
    next_nonce: u64,
    /// Messages to load when a chat is opened.
    history: u16,
    was_lost: bool,
}

impl Controller {
    /// The first nonce is random, so that nonces differ from those of other runs.
    pub(super) fn new(model: Model, first_nonce: u64, history: u16) -> Self {
        Self {
            model,
            link: Link::Connected,
            unsent: VecDeque::new(),
            transfers: Vec::new(),
            transferring: 0,
            asked: 0,
            is_paging: false,
            as_of: None,
            next_nonce: first_nonce,
            history,
            was_lost: false,
        }
    }

    /// Whether all typed messages and commands are done.
    pub(super) fn is_settled(&self) -> bool {
        self.unsent.is_empty() && self.asked == 0 && self.transferring == 0
    }

    /// Whether only transfers are left: they continue while other lines are typed.
    pub(super) fn waits_for_files_alone(&self) -> bool {
        self.asked == 0 && self.unsent.iter().all(|unsent| unsent.file.is_some())
    }

    /// Whether a command is in progress, including those for files.
    pub(super) fn is_at_work(&self) -> bool {
        self.asked > 0 || self.transferring > 0
    }

    pub(super) fn transfer(&mut self, job: Job) -> Effect {
        self.transferring += 1;
        Effect::Ask(job)
    }

    /// Opens a chat: shows its cached messages at once, and the rest when they are loaded.
    pub(super) fn show(&mut self, chat: ChatId) -> Effect {
        let messages = if self.model.open.is_none() { self.history } else { PAGE_MESSAGES };
        self.model.switch(chat);
        self.ask(Job::Show { chat, messages })
    }

    pub(super) fn ask(&mut self, job: Job) -> Effect {
        self.asked += 1;
        Effect::Ask(job)
    }

    /// Handles a typed line.
    pub(super) fn typed(&mut self, line: &str) -> Vec<Effect> {
        match command::parse(line) {
            Ok(Typed::Nothing) => Vec::new(),
            Ok(Typed::Text(text)) => vec![match self.here() {
                Ok(chat) => self.say(chat, text, None),
                Err(words) => Effect::Failure(words),
            }],
            Ok(Typed::Command(command)) => match self.command(command) {
                Ok(effect) => vec![effect],
                Err(words) => vec![Effect::Failure(words)],
            },
            Err(words) => vec![Effect::Failure(harmless(&words))],
        }
    }

    /// Sends a text, optionally as a reply.
    pub(super) fn say(
        &mut self,
        chat: ChatId,
        content: String,
        reply: Option<MessageId>,
    ) -> Effect {
        if content.len() > CONTENT_BYTES_MAX {
            return Effect::Failure("not sent: that is too long for one message".to_owned());
        }
        let nonce = self.not_sent_yet(chat, &content, reply, None);
        Effect::Ask(Job::Send { chat, nonce, content, reply, files: Vec::new() })
    }

    /// Records an outgoing message; returns its nonce.
    pub(super) fn not_sent_yet(
        &mut self,
        chat: ChatId,
        content: &str,
        reply: Option<MessageId>,
        file: Option<String>,
    ) -> u64 {
        let nonce = self.next_nonce;
        self.next_nonce = self.next_nonce.wrapping_add(1);
        self.unsent.push_back(Unsent { chat, nonce, content: content.to_owned(), reply, file });
        nonce
    }

    /// The open chat, or an error line if there is none.
    pub(super) fn here(&self) -> Result<ChatId, String> {
        self.model.open.ok_or_else(|| "no chat is open: /join NAME or /open NAME".to_owned())
    }

    /// Handles the answer to a question.
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
                self.ask(Job::InChat(chat, ChatJob::Lock(Some(answer))))
            }
            Question::MyNext { .. } | Question::OfChat { .. } => {
                Effect::Failure("the two differ: nothing was changed".to_owned())
            }
        }
    }

    /// Handles news from the worker.
    pub(super) fn heard(&mut self, news: News) -> Vec<Effect> {
        match news {
            News::Chats(chats) => self.model.take_chats(chats),
            News::Name(user, name) => self.model.learn_name(user, name),
            News::Members(chat, members) => self.model.take_members(chat, members),
            News::Quoted(chat, message) => self.model.quote(chat, message),
            News::Done => self.asked = self.asked.saturating_sub(1),
            News::TransferEnded(key) => {
                self.transfers.retain(|transfer| transfer.key != key);
                self.transferring = self.transferring.saturating_sub(1);
            }
            News::Connected => return self.connected(),
            News::Lost { why } => return self.lost(why),
            News::Opened { chat, members, messages, is_whole } => {
                let id = chat.id;
                let new = self.model.open(*chat, messages, is_whole);
                self.model.take_members(id, members);
                return self.shown(id, new);
            }
            News::Page { chat, messages, is_first } => {
                self.is_paging = false;
                let new = self.model.take_page(chat, messages, is_first);
                if self.model.open == Some(chat) {
                    return new.into_iter().map(Effect::Message).collect();
                }
            }
            News::Message(chat, message) => return self.message(chat, message),
            News::Event(event) => return self.event(event),
            News::Sent { chat, nonce, sent, files } => return self.sent(chat, nonce, sent, files),
            News::NotSent { nonce, why } => {
                let line = self.take_unsent(nonce).map(|unsent| unsent.line()).unwrap_or_default();
                // The reason has to stay on the screen, however long the message is.
                let line = report::shortened(&line, report::EXCERPT_COLUMNS);
                return vec![Effect::Failure(format!("not sent: {why}: {line}"))];
            }
            News::Progress(progress) => {
                self.progress(progress.clone());
                return vec![Effect::Progress(progress)];
            }
            News::Qr(rows) => return vec![Effect::Qr(rows)],
            News::Slowed { why, pause } => {
                return vec![Effect::Note(vec![format!("{why}: sent in {} s", pause.as_secs())])];
            }
            News::PasswordNeeded { name } => {
                return vec![Effect::Question(Question::ToJoin { name })];
            }
            News::Lines(lines) => return vec![Effect::Note(lines)],
            News::Failed(words) => {
                self.is_paging = false;
                return vec![Effect::Failure(words)];
            }
            News::Ended(end) => return vec![Effect::End(end)],
        }
        Vec::new()
    }

    /// Handles the last news. Returns what failed: nothing else is shown any more.
    pub(super) fn heard_last(&mut self, news: Vec<News>) -> Vec<String> {
        let effects = news.into_iter().flat_map(|news| self.heard(news));
        let failed = effects.filter_map(|effect| match effect {
            Effect::Failure(words) => Some(words),
            _ => None,
        });
        failed.collect()
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

    /// Moves the read marker, since the messages of a chat are on the screen.
    fn shown(&mut self, chat: ChatId, messages: Vec<Message>) -> Vec<Effect> {
        let newest = messages.iter().map(|message| message.created).max();
        let mut effects: Vec<Effect> = messages.into_iter().map(Effect::Message).collect();
        effects.extend(newest.map(|time| Effect::Ask(Job::Seen { chat, time })));
        effects
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
                Taken::Reacted => vec![Effect::Changed(self.reactions_line(&message))],
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

    fn sent(&mut self, chat: ChatId, nonce: u64, sent: Sent, files: Vec<File>) -> Vec<Effect> {
        let Some(unsent) = self.take_unsent(nonce) else { return Vec::new() };
        let shown: Vec<String> = files.iter().map(report::file).collect();
        let message = Message {
            id: sent.id,
            sender: self.model.me,
            created: sent.created,
            updated: sent.created,
            edited: false,
            deleted: false,
            content: unsent.content,
            reply: unsent.reply,
            files,
            reactions: Vec::new(),
        };
        self.model.take(chat, message);
        if shown.is_empty() {
            Vec::new()
        } else {
            vec![Effect::Changed(format!("sent {}", shown.join(" ")))]
        }
    }

    fn progress(&mut self, progress: Progress) {
        match self.transfers.iter_mut().find(|transfer| transfer.key == progress.key) {
            Some(known) => *known = progress,
            None => self.transfers.push(progress),
        }
    }

    /// Handles a reaction that was added or removed.
    fn reacted(&mut self, change: &ReactionChange) -> Vec<Effect> {
        let who = harmless(&self.model.name(change.user));
        let is_open = self.model.open == Some(change.chat);
        let Some(message) = self.model.react(change) else { return Vec::new() };
        let (sender, quote) = (message.sender, report::quote(message));
        let author = harmless(&self.model.name(sender));
        let emoji = harmless(&change.emoji);
        let what = if change.on { "reacts" } else { "takes back" };
        if !is_open {
            return Vec::new();
        }
        vec![Effect::Changed(format!("{who} {what} {emoji} to {author}: {quote}"))]
    }

    /// The reactions of a message, for when it is not known which one is new.
    fn reactions_line(&self, message: &Message) -> String {
        let author = harmless(&self.model.name(message.sender));
        let reactions = report::reactions(&message.reactions, self.model.me);
        let reactions = if reactions.is_empty() { "no reactions".to_owned() } else { reactions };
        format!("{reactions} to {author}: {}", report::quote(message))
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
            Event::Reaction(change) => return self.reacted(&change),
            Event::Message { .. } | Event::Deauth | Event::Missed => {}
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
