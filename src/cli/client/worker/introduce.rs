//! What the controller needs besides a message to show it: names, what is answered, who is there.

use purpose::client::{Event, Message};
use vestnik::ids::{ChatId, MessageId, UserId};
use vestnik::wire::answer::MemberEvent;

use super::{NAMES_MAX, News, QUOTED_MAX, Stop, Worker, perform};

impl Worker {
    /// Reports who sent messages that come, and what they answer.
    pub(super) fn introduce(&mut self, chat: ChatId, messages: &[Message]) -> Result<(), Stop> {
        if self.quoted.len() >= QUOTED_MAX {
            self.quoted.clear();
        }
        let is_open = self.open == Some(chat);
        if is_open {
            self.quoted.extend(messages.iter().map(|message| message.id));
        }
        for message in messages {
            self.introduce_user(message.sender)?;
            if let Some(reply) = message.reply.filter(|_| is_open) {
                self.quote(chat, reply)?;
            }
        }
        Ok(())
    }

    /// Looks up a message that is answered, unless the controller has it.
    pub(super) fn quote(&mut self, chat: ChatId, message: MessageId) -> Result<(), Stop> {
        if !self.quoted.insert(message) {
            return Ok(());
        }
        match perform::look_up(&mut self.client, chat, message) {
            Ok(Some(found)) => {
                self.introduce_user(found.sender)?;
                self.news.report(News::Quoted(chat, found));
                Ok(())
            }
            Err(error) if error.is_broken() => {
                self.quoted.remove(&message);
                Err(error.into())
            }
            // It is gone, or cannot be read: it is shown as an earlier message.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    pub(super) fn introduce_user(&mut self, user: UserId) -> Result<(), Stop> {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        if self.known.insert(user) {
            match self.client.user(user) {
                Ok(found) => self.news.report(News::Name(user, found.nickname)),
                Err(error) if error.is_broken() => {
                    self.known.remove(&user);
                    return Err(error.into());
                }
                // Who cannot be looked up stays a number.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Who has joined the open chat by this event: a command may have added somebody who is away.
    pub(super) fn joined_here(&self, event: &Event) -> Option<UserId> {
        match event {
            Event::Member { chat, user, event: MemberEvent::Joined, .. } => {
                (self.open == Some(*chat)).then_some(*user)
            }
            _ => None,
        }
    }

    pub(super) fn look_up_presence(&mut self, user: UserId) -> Result<(), Stop> {
        match self.client.user(user) {
            Ok(found) => self.report(News::Event(Event::Presence { user, online: found.online })),
            Err(error) if error.is_broken() => Err(error.into()),
            // A user who cannot be looked up counts as away.
            Err(_) => Ok(()),
        }
    }
}
