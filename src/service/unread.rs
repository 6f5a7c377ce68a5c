//! The ends of chats: what GET_MY_CHATS tells about messages, without reading them each time.
//!
//! Of each chat is remembered when the newest message came, which messages came last and by whom,
//! and the floors under which a marker means "a thousand unread, or more". A send adds to it, a
//! deletion takes away. What is not known is counted in the file, and asked for: ends are walked in
//! slices between requests, those of all chats after the start.

use std::collections::{HashMap, VecDeque};

use crate::ids::{ChatId, ServerTime, UserId};
use crate::service::{Refusal, Service};
use crate::store::StoreResult;
use crate::store::unread::{Floors, Tail, UNREAD_MAX};

/// Chats that are remembered.
const CHATS_MAX: usize = 16_384;
/// Messages of one chat that are remembered, if there is room,
const NEWEST_MAX: usize = 1_100;
/// and if there is none.
const NEWEST_MIN: usize = 32;
/// Messages of all chats that there is room for: 16 bytes each.
const NEWEST_IN_ALL: usize = 1 << 19;
/// Deletions after which a floor may no longer hold.
const DELETIONS_MAX: u32 = 256;
/// Messages after which floors are looked for again.
const SENT_MAX: u32 = 2_048;
/// Chats walked in one slice, each by up to some thousand messages.
const CHATS_PER_SLICE: usize = 2;

/// What is known of the newest messages of a chat.
struct End {
    last: ServerTime,
    floors: Floors,
    /// All messages created after `from`, but those deleted, from the oldest.
    newest: VecDeque<(ServerTime, UserId)>,
    from: ServerTime,
    /// How many of them are kept.
    room: usize,
    deletions_left: u32,
    sent: u32,
    is_queued: bool,
}

impl End {
    fn count(&self, user: UserId, seen: ServerTime) -> u32 {
        let first = self.newest.partition_point(|(at, _)| *at <= seen);
        let unread = self.newest.range(first..).filter(|(_, sender)| *sender != user).count();
        UNREAD_MAX.min(unread as u32)
    }
}

/// The ends of the chats that are remembered.
pub(super) struct Ends {
    chats: HashMap<ChatId, End>,
    /// Messages of one chat that are remembered.
    room_of_one: usize,
    room_left: usize,
    /// Chats whose ends are to be walked.
    queue: VecDeque<ChatId>,
    /// The chats up to this one were walked since the start; `None` when all were.
    first_walk: Option<Option<ChatId>>,
}

impl Ends {
    pub(super) fn new(chat_count: usize) -> Self {
        Self {
            chats: HashMap::new(),
            room_of_one: (NEWEST_IN_ALL / chat_count.max(1)).clamp(NEWEST_MIN, NEWEST_MAX),
            room_left: NEWEST_IN_ALL,
            queue: VecDeque::new(),
            first_walk: Some(None),
        }
    }

    /// A message was sent.
    pub(super) fn note_sent(&mut self, chat: ChatId, user: UserId, created: ServerTime) {
        let Some(end) = self.chats.get_mut(&chat) else { return };
        end.last = created;
        end.newest.push_back((created, user));
        if end.newest.len() > end.room
            && let Some((oldest, _)) = end.newest.pop_front()
        {
            end.from = oldest;
        }
        end.sent += 1;
        if end.sent >= SENT_MAX {
            end.sent = 0;
            self.ask_for(chat);
        }
    }

    /// A message was deleted.
    pub(super) fn note_deleted(&mut self, chat: ChatId, created: ServerTime) {
        let Some(end) = self.chats.get_mut(&chat) else { return };
        if let Ok(place) = end.newest.binary_search_by_key(&created, |(at, _)| *at) {
            end.newest.remove(place);
        }
        end.deletions_left = end.deletions_left.saturating_sub(1);
        if end.deletions_left == 0 {
            end.floors = Floors::default();
            self.ask_for(chat);
        }
    }

    /// The oldest messages are gone, up to this one.
    pub(super) fn note_expired(&mut self, chat: ChatId, last: ServerTime) {
        let Some(end) = self.chats.get_mut(&chat) else { return };
        if end.last <= last {
            self.forget(chat);
            return;
        }
        let gone = end.newest.partition_point(|(at, _)| *at <= last);
        end.newest.drain(..gone);
        if end.floors.of_others <= last || end.floors.of_busiest <= last {
            end.floors = Floors::default();
        }
    }

    /// A turn was undone: whatever was noted in it may not be so.
    pub(super) fn forget_all(&mut self) {
        self.chats.clear();
        self.queue.clear();
        self.room_left = NEWEST_IN_ALL;
    }

    fn forget(&mut self, chat: ChatId) {
        if let Some(end) = self.chats.remove(&chat) {
            self.room_left += end.room;
        }
    }

    fn ask_for(&mut self, chat: ChatId) {
        if let Some(end) = self.chats.get_mut(&chat)
            && !end.is_queued
        {
            end.is_queued = true;
            self.queue.push_back(chat);
        }
    }

    /// Remembers of a chat when its newest message came, and what comes from now on.
    fn remember(&mut self, chat: ChatId, last: ServerTime) -> &mut End {
        if self.chats.len() >= CHATS_MAX
            && !self.chats.contains_key(&chat)
            && let Some(&other) = self.chats.keys().next()
        {
            self.forget(other);
        }
        let room_left = &mut self.room_left;
        let room_of_one = self.room_of_one;
        self.chats.entry(chat).or_insert_with(|| {
            // Past the bound there is still room for a few.
            let room = room_of_one.min(*room_left).max(NEWEST_MIN.min(*room_left));
            *room_left -= room;
            End {
                last,
                floors: Floors::default(),
                newest: VecDeque::new(),
                from: last,
                room,
                deletions_left: DELETIONS_MAX,
                sent: 0,
                is_queued: false,
            }
        })
    }

    fn take_in(&mut self, chat: ChatId, tail: Tail) {
        if let Some(end) = self.chats.get_mut(&chat) {
            end.floors = tail.floors;
            end.newest = tail.newest.into_iter().rev().collect();
            end.from = tail.from;
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
    /// Messages that were looked at in the file to know.
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
            Some(end) => end,
            None => {
                let last = self.store.last_message(chat)?;
                self.ends.remember(chat, last)
            }
        };
        let last = end.last;
        if last <= seen {
            return Ok(Unread { last, count: 0, looked_at: 0 });
        }
        if seen >= end.from {
            return Ok(Unread { last, count: end.count(user, seen), looked_at: 0 });
        }
        if seen < end.floors.of(user) {
            return Ok(Unread { last, count: UNREAD_MAX, looked_at: 0 });
        }
        let (count, looked_at) = self.store.unread(chat, user, seen)?;
        self.ends.ask_for(chat);
        Ok(Unread { last, count, looked_at })
    }

    /// Walks ends that were asked for; and, after the start, those of all chats. True when there
    /// is more to do.
    pub(super) fn ends_slice(&mut self) -> Result<bool, Refusal> {
        let mut chats = Vec::new();
        while chats.len() < CHATS_PER_SLICE
            && let Some(chat) = self.ends.queue.pop_front()
        {
            chats.push(chat);
        }
        if let (true, Some(after)) = (chats.is_empty(), self.ends.first_walk) {
            chats = self.store.chat_ids(after, CHATS_PER_SLICE)?;
            let is_over = chats.is_empty() || self.ends.chats.len() + chats.len() > CHATS_MAX;
            self.ends.first_walk = if is_over { None } else { Some(chats.last().copied()) };
        }
        for &chat in &chats {
            let last = self.store.last_message(chat)?;
            let room = self.ends.remember(chat, last).room;
            let tail = self.store.tail(chat, DELETIONS_MAX, room)?;
            self.ends.take_in(chat, tail);
        }
        Ok(!self.ends.queue.is_empty() || self.ends.first_walk.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(id: u32) -> ChatId {
        ChatId::new(id).expect("not 0")
    }

    fn user(id: u32) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn at(micros: i64) -> ServerTime {
        ServerTime::new(micros).expect("positive")
    }

    fn tail(from: i64, newest: &[(i64, u32)], floor: i64) -> Tail {
        let floors = Floors { of_others: at(floor), ..Floors::default() };
        let newest = newest.iter().map(|&(time, sender)| (at(time), user(sender))).collect();
        Tail { floors, newest, from: at(from) }
    }

    #[test]
    fn the_newest_are_counted_from_memory() {
        let mut ends = Ends::new(1);
        ends.remember(chat(1), at(30)).room = 4;
        ends.take_in(chat(1), tail(9, &[(30, 1), (20, 2), (10, 1)], 0));
        let count = |ends: &Ends, who: u32, seen: i64| {
            let end = ends.chats.get(&chat(1)).expect("remembered");
            (at(seen) >= end.from).then(|| end.count(user(who), at(seen)))
        };
        assert_eq!(count(&ends, 1, 9), Some(1));
        assert_eq!(count(&ends, 2, 9), Some(2));
        assert_eq!(count(&ends, 3, 10), Some(2));
        assert_eq!(count(&ends, 3, 8), None, "older ones are not known");
        ends.note_deleted(chat(1), at(20));
        ends.note_deleted(chat(1), at(5));
        assert_eq!(count(&ends, 3, 9), Some(2));
        for time in [40, 50, 60] {
            ends.note_sent(chat(1), user(2), at(time));
        }
        assert_eq!(count(&ends, 1, 9), None, "10 had to make room");
        assert_eq!(count(&ends, 1, 10), Some(3));
        ends.note_expired(chat(1), at(45));
        assert_eq!(count(&ends, 1, 10), Some(2));
        ends.note_expired(chat(1), at(60));
        assert!(!ends.chats.contains_key(&chat(1)), "nothing is left of it");
        assert_eq!(ends.room_left, NEWEST_IN_ALL - NEWEST_MAX + 4);
    }

    #[test]
    fn floors_go_with_many_deletions_and_ends_are_asked_for_after_many_sends() {
        let mut ends = Ends::new(1);
        ends.remember(chat(1), at(5));
        ends.take_in(chat(1), tail(0, &[], 3));
        for n in 1..SENT_MAX {
            ends.note_sent(chat(1), user(1), at(i64::from(n) + 10));
        }
        assert!(ends.queue.is_empty());
        ends.note_sent(chat(1), user(1), at(9000));
        assert_eq!(ends.queue, [chat(1)]);
        let floor = |ends: &Ends| ends.chats.get(&chat(1)).map(|end| end.floors.of_others.micros());
        for _ in 0..DELETIONS_MAX - 1 {
            ends.note_deleted(chat(1), at(1));
        }
        assert_eq!(floor(&ends), Some(3));
        ends.note_deleted(chat(1), at(1));
        assert_eq!(floor(&ends), Some(0));
        assert_eq!(ends.queue, [chat(1)], "queued once");
        ends.note_sent(chat(9), user(1), at(1));
        assert!(!ends.chats.contains_key(&chat(9)), "nobody asked about it");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ends = Ends::new(10);
        for id in 1..=CHATS_MAX as u32 + 10 {
            ends.remember(chat(id), at(1));
        }
        assert_eq!(ends.chats.len(), CHATS_MAX);
        let room: usize = ends.chats.values().map(|end| end.room).sum();
        assert_eq!(room + ends.room_left, NEWEST_IN_ALL);
        assert_eq!(Ends::new(CHATS_MAX).room_of_one, NEWEST_MIN);
    }
}
