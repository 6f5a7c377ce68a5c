//! The ends of chats: what GET_MY_CHATS tells about messages, without reading them each time.
//!
//! Of a chat that somebody asked about, or that was looked at in passing, two things are
//! remembered: when the newest message came, which a send moves on, and the floors under which a
//! marker means "a thousand unread, or more". Only who has read nearly everything needs counting.
//! Floors are found in slices between requests, and again when a chat has gone on.

use std::collections::{HashMap, VecDeque};

use crate::ids::{ChatId, ServerTime, UserId};
use crate::service::{Refusal, Service};
use crate::store::StoreResult;
use crate::store::unread::{Floors, UNREAD_MAX};

/// Chats that are remembered.
const CHATS_MAX: usize = 16_384;
/// Deletions after which a floor may no longer hold.
const DELETIONS_MAX: u32 = 256;
/// Messages after which floors are looked for again.
const SENT_MAX: u32 = 512;
/// Chats looked at in one slice, each by up to some thousand messages.
const CHATS_PER_SLICE: usize = 2;

/// What is known of the newest messages of a chat.
#[derive(Clone, Copy)]
struct End {
    last: ServerTime,
    floors: Floors,
    deletions_left: u32,
    sent: u32,
    is_queued: bool,
}

/// The ends of the chats that are remembered.
pub(super) struct Ends {
    chats: HashMap<ChatId, End>,
    /// Chats whose floors are to be found.
    queue: VecDeque<ChatId>,
    /// The chats up to this one were looked at since the start; `None` when all were.
    first_look: Option<Option<ChatId>>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { chats: HashMap::new(), queue: VecDeque::new(), first_look: Some(None) }
    }
}

impl Ends {
    /// A message was sent.
    pub(super) fn note_sent(&mut self, chat: ChatId, created: ServerTime) {
        if let Some(end) = self.chats.get_mut(&chat) {
            end.last = created;
            end.sent += 1;
            if end.sent >= SENT_MAX {
                end.sent = 0;
                self.ask_for(chat);
            }
        }
    }

    /// A message was deleted.
    pub(super) fn note_deleted(&mut self, chat: ChatId) {
        if let Some(end) = self.chats.get_mut(&chat) {
            end.deletions_left = end.deletions_left.saturating_sub(1);
            if end.deletions_left == 0 {
                end.floors = Floors::default();
                self.ask_for(chat);
            }
        }
    }

    /// A turn was undone: whatever was noted in it may not be so.
    pub(super) fn forget_all(&mut self) {
        self.chats.clear();
        self.queue.clear();
    }

    fn ask_for(&mut self, chat: ChatId) {
        if let Some(end) = self.chats.get_mut(&chat)
            && !end.is_queued
        {
            end.is_queued = true;
            self.queue.push_back(chat);
        }
    }

    fn remember(&mut self, chat: ChatId, last: ServerTime) {
        if self.chats.len() >= CHATS_MAX
            && let Some(&other) = self.chats.keys().next()
        {
            self.chats.remove(&other);
        }
        let (floors, deletions_left) = (Floors::default(), DELETIONS_MAX);
        self.chats.insert(chat, End { last, floors, deletions_left, sent: 0, is_queued: false });
    }

    fn set_floors(&mut self, chat: ChatId, floors: Floors) {
        if let Some(end) = self.chats.get_mut(&chat) {
            end.floors = floors;
            end.deletions_left = DELETIONS_MAX;
            end.is_queued = false;
        }
    }
}

/// What a member is told of a chat's messages.
pub(super) struct Unread {
    /// When the newest came.
    pub(super) last: ServerTime,
    /// How many of others came after the marker.
    pub(super) count: u32,
    /// Messages that were looked at to know.
    pub(super) looked_at: u32,
}

impl Service<'_> {
    /// What a member who has read up to `seen` is told of a chat's messages.
    pub(super) fn unread(
        &mut self,
        chat: ChatId,
        user: UserId,
        seen: ServerTime,
    ) -> StoreResult<Unread> {
        let end = match self.ends.chats.get(&chat) {
            Some(end) => *end,
            None => {
                let last = self.store.last_message(chat)?;
                self.ends.remember(chat, last);
                return self.count_unread(chat, user, seen, last);
            }
        };
        let last = end.last;
        if last <= seen {
            return Ok(Unread { last, count: 0, looked_at: 0 });
        }
        if seen < end.floors.of(user) {
            return Ok(Unread { last, count: UNREAD_MAX, looked_at: 0 });
        }
        self.count_unread(chat, user, seen, last)
    }

    fn count_unread(
        &mut self,
        chat: ChatId,
        user: UserId,
        seen: ServerTime,
        last: ServerTime,
    ) -> StoreResult<Unread> {
        let (count, looked_at) = if last <= seen {
            (0, 1)
        } else {
            let (count, looked_at) = self.store.unread(chat, user, seen)?;
            if count == UNREAD_MAX {
                self.ends.ask_for(chat);
            }
            (count, looked_at)
        };
        Ok(Unread { last, count, looked_at })
    }

    /// Finds floors that were asked for; and, after the start, those of all chats. True when there
    /// is more to do.
    pub(super) fn floors_slice(&mut self) -> Result<bool, Refusal> {
        let mut chats = Vec::new();
        while chats.len() < CHATS_PER_SLICE
            && let Some(chat) = self.ends.queue.pop_front()
        {
            chats.push(chat);
        }
        if let (true, Some(after)) = (chats.is_empty(), self.ends.first_look) {
            chats = self.store.chat_ids(after, CHATS_PER_SLICE)?;
            let is_end = chats.is_empty() || self.ends.chats.len() + chats.len() > CHATS_MAX;
            self.ends.first_look = if is_end { None } else { Some(chats.last().copied()) };
        }
        for &chat in &chats {
            if !self.ends.chats.contains_key(&chat) {
                let last = self.store.last_message(chat)?;
                self.ends.remember(chat, last);
            }
            let floors = self.store.unread_floors(chat, DELETIONS_MAX)?;
            self.ends.set_floors(chat, floors);
        }
        Ok(!self.ends.queue.is_empty() || self.ends.first_look.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(id: u32) -> ChatId {
        ChatId::new(id).expect("not 0")
    }

    fn at(micros: i64) -> ServerTime {
        ServerTime::new(micros).expect("positive")
    }

    #[test]
    fn floors_go_with_many_deletions_and_are_asked_for_after_many_sends() {
        let mut ends = Ends::default();
        ends.remember(chat(1), at(5));
        ends.set_floors(chat(1), Floors { of_others: at(3), ..Floors::default() });
        for n in 1..SENT_MAX {
            ends.note_sent(chat(1), at(i64::from(n) + 10));
        }
        assert!(ends.queue.is_empty());
        ends.note_sent(chat(1), at(2000));
        assert_eq!(ends.queue, [chat(1)]);
        assert_eq!(ends.chats.get(&chat(1)).map(|end| end.last), Some(at(2000)));
        for _ in 0..DELETIONS_MAX - 1 {
            ends.note_deleted(chat(1));
        }
        assert_eq!(ends.chats.get(&chat(1)).map(|end| end.floors.of_others), Some(at(3)));
        ends.note_deleted(chat(1));
        assert_eq!(ends.chats.get(&chat(1)).map(|end| end.floors), Some(Floors::default()));
        assert_eq!(ends.queue, [chat(1)], "queued once");
        ends.note_sent(chat(9), at(1));
        assert!(!ends.chats.contains_key(&chat(9)), "nobody asked about it");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ends = Ends::default();
        for id in 1..=CHATS_MAX as u32 + 10 {
            ends.remember(chat(id), at(1));
        }
        assert_eq!(ends.chats.len(), CHATS_MAX);
    }
}
