//! Executes commands on the controller's state: each becomes a job for the worker, or an error.

use purpose::client::{File, Message};
use vestnik::ids::{MessageId, UserId};

use super::command::{self, Command, Target};
use super::controller::{Controller, Effect, Question};
use super::job::{Job, PAGE_MESSAGES};
use super::report;
use super::text::harmless;

fn no_such_message() -> String {
    "there is no such message among those that are loaded".to_owned()
}

impl Controller {
    /// Executes a command.
    pub(super) fn command(&mut self, command: Command) -> Result<Effect, String> {
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
            Command::Reply { to, content } => {
                let (chat, to) = (self.here()?, self.target(&to)?);
                return Ok(self.say(chat, content, Some(to)));
            }
            Command::SendFile { path, content } => {
                let chat = self.here()?;
                let nonce = self.not_sent_yet(chat, &content, None, Some(path.clone()));
                return Ok(self.transfer(Job::Upload { chat, nonce, path, content }));
            }
            Command::Save(to) => {
                let files = self.files(&to)?;
                return Ok(self.transfer(Job::Save(files)));
            }
            Command::Password => return Ok(Effect::Question(Question::Mine)),
            Command::More => return self.older().ok_or_else(|| self.why_no_more()),
            Command::Job(job) => job,
            Command::InChat(job) => Job::InChat(self.here()?, job),
            Command::Edit { back, content } => {
                let (chat, message) = (self.here()?, self.nth_last(self.model.me, back)?);
                Job::Edit { chat, message, content }
            }
            Command::Delete { back, user } => {
                let chat = self.here()?;
                let sender = match user {
                    Some(name) => self.sender(&name)?,
                    None => self.model.me,
                };
                Job::Delete { chat, message: self.nth_last(sender, back)? }
            }
            Command::React { to, emoji, on } => {
                Job::React { chat: self.here()?, message: self.target(&to)?, on, emoji }
            }
            Command::Reactions(to) => {
                Job::Reactions { chat: self.here()?, message: self.target(&to)? }
            }
            Command::DeleteChat(name) => {
                let chat = self.here()?;
                if self.model.find(&name) != Some(chat) {
                    let words = "to delete this chat with all its messages, say its name";
                    return Err(words.to_owned());
                }
                Job::DeleteChat(chat)
            }
        };
        Ok(self.ask(job))
    }

    fn nth_last(&self, sender: UserId, back: usize) -> Result<MessageId, String> {
        if sender == self.model.me
            && self.unsent.iter().any(|unsent| Some(unsent.chat) == self.model.open)
        {
            return Err("your last message is not sent yet".to_owned());
        }
        let found = self.model.nth_last(back, self.as_of, |message| message.sender == sender);
        found.map(|message| message.id).ok_or_else(no_such_message)
    }

    fn sender(&self, name: &str) -> Result<UserId, String> {
        let words = || format!("no message of {} is loaded here", harmless(name));
        self.model.member(name).ok_or_else(words)
    }

    /// The message that a command refers to: by default the last one of other users.
    pub(super) fn target(&self, target: &Target) -> Result<MessageId, String> {
        let sender = target.user.as_deref().map(|name| self.sender(name)).transpose()?;
        let me = self.model.me;
        let fits = |message: &Message| match sender {
            Some(sender) => message.sender == sender,
            None => message.sender != me,
        };
        let found = self.model.nth_last(target.back, self.as_of, fits);
        found.map(|message| message.id).ok_or_else(no_such_message)
    }

    /// The files of the last message that has some.
    fn files(&self, target: &Target) -> Result<Vec<File>, String> {
        let sender = target.user.as_deref().map(|name| self.sender(name)).transpose()?;
        let fits = |message: &Message| {
            !message.files.is_empty() && sender.is_none_or(|sender| message.sender == sender)
        };
        let found = self.model.nth_last(target.back, self.as_of, fits);
        let words = || "no message with a file is loaded here".to_owned();
        found.map(|message| message.files.clone()).ok_or_else(words)
    }

    /// Requests older messages of the open chat, unless its beginning is loaded.
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
}
