//! What the server says unasked, and the bounded queue in which it waits for the caller.

use std::collections::VecDeque;

use super::answer::{self, Chat, Message};
use super::error::Error;
use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::wire::Version;
use crate::wire::answer::MemberEvent;
use crate::wire::codec::Reader;
use crate::wire::purpose::ToClient;

/// A reaction that was given or taken back. It changes a message whose `updated` is older.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReactionChange {
    /// Where.
    pub chat: ChatId,
    /// To what.
    pub message: MessageId,
    /// The message's `updated` from now on.
    pub updated: ServerTime,
    /// Who.
    pub user: UserId,
    /// Whether it was given.
    pub on: bool,
    /// What.
    pub emoji: String,
}

/// Something that happened without being asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A message was sent, edited or deleted.
    Message {
        /// Where.
        chat: ChatId,
        /// What it is now.
        message: Message,
    },
    /// Somebody reacted to a message, or took it back: [`Message::apply`] changes the message by
    /// it. A caller that does not have the message passes it over.
    Reaction(ReactionChange),
    /// The session ended, or another connection took it over: log in or restore again.
    Deauth,
    /// Something was missed: the queue was full, the connection was made anew, or the cursor set.
    /// [`Client::catch_up`](super::Client::catch_up) brings the messages; the state of chats is
    /// for [`Client::my_chats`](super::Client::my_chats).
    Missed,
    /// A chat is mine now, or its name, title, password or admins changed.
    Chat(Chat),
    /// A chat is no longer mine.
    ChatGone(ChatId),
    /// Something about another member.
    Member {
        /// Where.
        chat: ChatId,
        /// Who.
        user: UserId,
        /// What.
        event: MemberEvent,
        /// Their name.
        nickname: String,
    },
    /// A member's marker moved.
    Seen {
        /// Where.
        chat: ChatId,
        /// Whose.
        user: UserId,
        /// To where.
        time: ServerTime,
    },
    /// Somebody is typing.
    Typing {
        /// Where.
        chat: ChatId,
        /// Who.
        user: UserId,
    },
    /// Somebody came or went.
    Presence {
        /// Who.
        user: UserId,
        /// Whether they are here now.
        online: bool,
    },
}

impl Event {
    /// Bytes it holds, about.
    fn bytes(&self) -> usize {
        let text = match self {
            Self::Message { message, .. } => message.text_bytes(),
            Self::Reaction(change) => change.emoji.len(),
            Self::Chat(chat) => chat.name.len() + chat.title.len(),
            Self::Member { nickname, .. } => nickname.len(),
            _ => 0,
        };
        size_of::<Self>() + text
    }

    /// Whether it may be lost without a word.
    fn is_ephemeral(&self) -> bool {
        matches!(
            self,
            Self::Member { .. } | Self::Seen { .. } | Self::Typing { .. } | Self::Presence { .. }
        )
    }
}

/// Events that wait, at most `bytes_max` of them by size. When there is no room the newest is left
/// out; unless it was an ephemeral event, [`Event::Missed`] then stands after the last that is
/// there.
pub(super) struct Events {
    queue: VecDeque<(Event, bool)>,
    bytes: usize,
    bytes_max: usize,
    missed: bool,
    /// Whether messages that come now follow on all that came before.
    live: bool,
}

impl Events {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, bytes_max, missed: false, live: true }
    }

    /// The oldest, and whether it followed on all before it. That something was missed comes before
    /// what came after it, so that the catch-up comes in its place.
    pub(super) fn pop(&mut self) -> Option<(Event, bool)> {
        let is_next_live = self.queue.front().is_some_and(|&(_, live)| live);
        if self.missed && !is_next_live {
            self.missed = false;
            return Some((Event::Missed, false));
        }
        let (event, live) = self.queue.pop_front()?;
        self.bytes -= event.bytes();
        Some((event, live))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.missed
    }

    /// Keeps an event, or notes that one was missed.
    pub(super) fn push(&mut self, event: Event) {
        let bytes = event.bytes();
        if self.bytes + bytes <= self.bytes_max {
            self.bytes += bytes;
            self.queue.push_back((event, self.live));
        } else if !event.is_ephemeral() {
            self.miss();
        }
    }

    /// The cursor was set: nothing that waits follows on it.
    pub(super) fn detach(&mut self) {
        self.queue.iter_mut().for_each(|(_, live)| *live = false);
        self.miss();
    }

    /// From now on something is missing.
    pub(super) fn miss(&mut self) {
        self.missed = true;
        self.live = false;
    }

    /// A catch-up begins: what was missed until now is in it.
    pub(super) fn forgive(&mut self) {
        self.missed = false;
    }

    /// A catch-up is complete: what comes now follows on it, unless something was missed again.
    pub(super) fn caught_up(&mut self) {
        self.live = !self.missed;
    }

    /// Another connection or session begins. Messages and reactions that wait come again with the
    /// catch-up: one of them, handed out before it, would move the cursor past the others. A DEAUTH
    /// was about the session before.
    pub(super) fn start_over(&mut self) {
        self.queue.retain(|(event, _)| {
            !matches!(event, Event::Message { .. } | Event::Reaction(_) | Event::Deauth)
        });
        self.bytes = self.queue.iter().map(|(event, _)| event.bytes()).sum();
        self.miss();
    }

    /// Takes a notification; one of a purpose that is not known is passed over.
    pub(super) fn take(
        &mut self,
        purpose: ToClient,
        version: Version,
        body: &[u8],
    ) -> Result<(), Error> {
        let mut body = Reader::new(body);
        match purpose {
            ToClient::MsgNotify => {
                let chat = body.chat_id()?;
                while !body.is_empty() {
                    let message = answer::message(&mut body, version)?;
                    self.push(Event::Message { chat, message });
                }
            }
            ToClient::Deauth => self.push(Event::Deauth),
            ToClient::ChatNotify => self.push(Event::Chat(answer::chat(&mut body, version)?)),
            ToClient::ChatGone => self.push(Event::ChatGone(body.chat_id()?)),
            ToClient::MemberNotify => {
                let (chat, user) = (body.chat_id()?, body.user_id()?);
                if let Some(event) = member_event(body.u8()?) {
                    let nickname = body.str()?.to_owned();
                    self.push(Event::Member { chat, user, event, nickname });
                }
            }
            ToClient::SeenNotify => {
                let (chat, user) = (body.chat_id()?, body.user_id()?);
                self.push(Event::Seen { chat, user, time: body.time()? });
            }
            ToClient::TypingNotify => {
                self.push(Event::Typing { chat: body.chat_id()?, user: body.user_id()? });
            }
            ToClient::PresenceNotify => {
                self.push(Event::Presence { user: body.user_id()?, online: body.bool()? });
            }
            ToClient::ReactionNotify => self.push(Event::Reaction(ReactionChange {
                chat: body.chat_id()?,
                message: body.message_id()?,
                updated: body.time()?,
                user: body.user_id()?,
                on: body.bool()?,
                emoji: body.str()?.to_owned(),
            })),
            ToClient::Accepted
            | ToClient::Declined
            | ToClient::Heartbeat
            | ToClient::Disconnect
            | ToClient::Part => {}
        }
        Ok(())
    }
}

fn member_event(byte: u8) -> Option<MemberEvent> {
    [
        MemberEvent::Joined,
        MemberEvent::Left,
        MemberEvent::Admin,
        MemberEvent::NoLongerAdmin,
        MemberEvent::Banned,
    ]
    .into_iter()
    .find(|event| *event as u8 == byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::{Message, Put, put_message};
    use crate::wire::extras::Extras;

    fn notify(time: i64) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u32(7);
        let time = ServerTime::new(time).expect("positive");
        let message = Message {
            id: crate::ids::MessageId::at(time),
            sender: UserId::new(1).expect("not 0"),
            created: time,
            updated: time,
            status: 0,
            content: "hi",
            extras: Extras::NONE,
        };
        put_message(&mut body, Version::V1_0, &message);
        body
    }

    #[test]
    fn a_full_queue_keeps_the_oldest_and_says_that_it_missed_some() {
        let one = size_of::<Event>() + 2;
        let mut events = Events::new(2 * one);
        for time in 1..=4 {
            events.take(ToClient::MsgNotify, Version::V1_0, &notify(time)).expect("well formed");
        }
        let mut times = Vec::new();
        while let Some((event, live)) = events.pop() {
            match event {
                Event::Message { message, .. } => times.push((message.updated.micros(), live)),
                other => assert_eq!(other, Event::Missed),
            }
        }
        assert_eq!(times, [(1, true), (2, true)]);
        assert!(!events.live);
        assert_eq!(events.bytes, 0);
    }

    #[test]
    fn what_was_missed_comes_before_what_came_after_it() {
        let mut events = Events::new(1000);
        let chat = ChatId::new(1).expect("not 0");
        events.push(Event::ChatGone(chat));
        events.start_over();
        events.push(Event::Deauth);
        let seen: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        let expected =
            [(Event::ChatGone(chat), true), (Event::Missed, false), (Event::Deauth, false)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_moves_the_cursor_does_not_outlive_its_connection() {
        let mut events = Events::new(1000);
        let (chat, user) = (ChatId::new(1).expect("not 0"), UserId::new(2).expect("not 0"));
        let updated = ServerTime::new(106).expect("positive");
        events.take(ToClient::MsgNotify, Version::V1_0, &notify(105)).expect("well formed");
        events.push(Event::Reaction(ReactionChange {
            chat,
            message: MessageId::at(updated),
            updated,
            user,
            on: true,
            emoji: "+".to_owned(),
        }));
        events.push(Event::Deauth);
        events.push(Event::Typing { chat, user });
        events.start_over();
        let seen: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        assert_eq!(seen, [(Event::Typing { chat, user }, true), (Event::Missed, false)]);
        assert_eq!(events.bytes, 0);
    }

    #[test]
    fn an_ephemeral_event_is_dropped_silently() {
        let mut events = Events::new(0);
        events
            .take(ToClient::PresenceNotify, Version::V1_0, &[1, 0, 0, 0, 1])
            .expect("well formed");
        assert_eq!(events.pop(), None);
        assert!(events.live);
    }
}
