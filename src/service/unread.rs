//! What GET_MY_CHATS says about messages, without reading them each time.
//!
//! The file counts the messages of each chat, and what each member knows of them
//! ([`crate::store::unread`]). A send only notes its message here; what is noted is counted in the
//! file behind the requests, and added to what the file says until then.
//!
//! Invariant: of a chat that was *scanned*, the file has counted all messages but those noted
//! here. After a graceful end that is so of all chats; after a crash, or when a turn was
//! undone, they are scanned one after the other, for messages that nobody has counted.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ChatId, ServerTime, UserId};
use crate::service::{HandlerError, Service};
use crate::store::chats::MyChat;
use crate::store::unread::{Sent, UNREAD_MAX};
use crate::store::{Store, StoreResult};

/// Milliseconds after which what is noted here is counted in the file,
const NOTED_MS: u64 = 5_000;
/// or as soon as this many chats are noted.
const NOTED_CHATS_MAX: usize = 1_024;
/// Rows of chats and members that one slice changes, about.
const ROWS_PER_SLICE: usize = 256;
/// Chats scanned in one slice,
const CHATS_PER_SLICE: usize = 64;
/// and messages scanned in one slice, about.
const MESSAGES_PER_SLICE: u32 = 4_096;
/// Members whose unread messages wait to be counted; more are counted when they ask.
const ASKED_FOR_MAX: usize = 4_096;
/// Messages that are scanned in the time in which one is found that may be anywhere.
const MESSAGES_PER_LOOKUP: u32 = 64;
/// Messages that may be scanned each time rather than be counted once.
const ROWS_SCANNED_PREFERRED: u32 = 4;

/// How far the look at all chats has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scanned {
    /// All chats were scanned, and those to come need not be.
    Everywhere,
    /// Those up to this one were.
    UpTo(Option<ChatId>),
}

/// What the file does not have yet.
pub(super) struct Counting {
    sent: BTreeMap<ChatId, Sent>,
    looked: Scanned,
    /// Members whose unread messages are to be counted.
    asked_for: VecDeque<(ChatId, UserId)>,
    last_ms: u64,
}

impl Counting {
    /// Goes on where the file stands.
    pub(super) fn start(store: &mut Store<'_>) -> StoreResult<Self> {
        let is_whole = store.counted_upto()? >= store.server_time()?;
        let looked = if is_whole { Scanned::Everywhere } else { Scanned::UpTo(None) };
        Ok(Self { sent: BTreeMap::new(), looked, asked_for: VecDeque::new(), last_ms: 0 })
    }

    /// A turn was undone: whatever was noted or counted in it may not be so.
    pub(super) fn start_again(&mut self) {
        self.sent.clear();
        self.looked = Scanned::UpTo(None);
    }

    fn was_scanned(&self, chat: ChatId) -> bool {
        match self.looked {
            Scanned::Everywhere => true,
            Scanned::UpTo(last) => last.is_some_and(|last| chat <= last),
        }
    }

    /// A message was sent.
    pub(super) fn note_sent(&mut self, chat: ChatId, user: UserId, created: ServerTime) {
        if self.was_scanned(chat) {
            self.sent.entry(chat).or_default().add(user, created);
        }
    }

    /// The oldest messages are gone, up to this one.
    pub(super) fn note_expired(&mut self, chat: ChatId, last: ServerTime) {
        if let Some(sent) = self.sent.get_mut(&chat)
            && sent.last <= last
        {
            sent.last = ServerTime::ZERO;
        }
    }

    /// A chat is gone.
    pub(super) fn forget(&mut self, chat: ChatId) {
        self.sent.remove(&chat);
    }

    fn ask_for(&mut self, chat: ChatId, user: UserId) {
        if self.asked_for.len() < ASKED_FOR_MAX {
            self.asked_for.push_back((chat, user));
        }
    }

    /// What is known of a chat without looking at its messages.
    fn known(&self, mine: &MyChat, user: UserId) -> Known {
        if !self.was_scanned(mine.chat) {
            return Known::Nothing;
        }
        let sent = self.sent.get(&mine.chat);
        let newest = sent.map_or(ServerTime::ZERO, |sent| sent.last);
        let last = newest.max(mine.counted.last);
        if last <= mine.seen {
            return Known::All(Unread { last, count: 0 });
        }
        let Some(unread) = mine.counted.unread else { return Known::Last(last) };
        let news = sent.map_or(0, |sent| {
            i64::from(sent.count) - i64::from(sent.by.get(&user).copied().unwrap_or_default())
        });
        let count = (unread + news).clamp(0, i64::from(UNREAD_MAX)) as u32;
        Known::All(Unread { last, count })
    }
}

/// What is known of a chat's messages.
enum Known {
    All(Unread),
    /// Only when the newest came.
    Last(ServerTime),
    Nothing,
}

/// What a member's chat_info says of a chat's messages.
pub(super) struct Unread {
    /// When the newest came.
    pub(super) last: ServerTime,
    /// How many of others came after the marker.
    pub(super) count: u32,
}

impl Service<'_> {
    /// What a member's chat_info says of a chat's messages. Who asks for many looks at
    /// [`Service::is_scan_budget_spent`].
    pub(super) fn unread(&mut self, mine: &MyChat, user: UserId) -> StoreResult<Unread> {
        let last = match self.background.counting.known(mine, user) {
            Known::All(unread) => return Ok(unread),
            Known::Last(last) => last,
            Known::Nothing => {
                self.note_scanned(MESSAGES_PER_LOOKUP);
                self.store.last_message(mine.chat)?
            }
        };
        if last <= mine.seen {
            return Ok(Unread { last, count: 0 });
        }
        let (count, scanned) = self.store.unread(mine.chat, user, mine.seen)?;
        self.note_scanned(MESSAGES_PER_LOOKUP + scanned);
        if scanned > ROWS_SCANNED_PREFERRED {
            self.background.counting.ask_for(mine.chat, user);
        }
        Ok(Unread { last, count })
    }

    /// A member's marker has moved to `seen`: notes that nothing is unread, or has it counted.
    pub(super) fn note_seen(
        &mut self,
        chat: ChatId,
        user: UserId,
        seen: ServerTime,
    ) -> StoreResult<()> {
        self.count_chat(chat)?;
        let Some(mine) = self.store.my_chat(user, chat)? else { return Ok(()) };
        if self.background.counting.was_scanned(chat) && mine.counted.last <= seen {
            return self.store.set_unread(chat, user, 0);
        }
        self.background.counting.ask_for(chat, user);
        Ok(())
    }

    /// Counts in the file what is noted of a chat. How many rows that has changed.
    fn count_chat(&mut self, chat: ChatId) -> StoreResult<usize> {
        let Some(sent) = self.background.counting.sent.remove(&chat) else { return Ok(0) };
        self.store.count_sent(chat, &sent)?;
        Ok(1 + sent.by.len())
    }

    /// A slice of counting. True when there is more to do.
    pub(super) fn count_slice(&mut self) -> Result<bool, HandlerError> {
        let is_full = self.background.counting.sent.len() > NOTED_CHATS_MAX;
        if is_full
            || self.clock.now_ms().saturating_sub(self.background.counting.last_ms) >= NOTED_MS
        {
            self.count_noted()?;
        }
        let looks_on = self.look_at_chats()?;
        Ok(self.count_asked_for()? || looks_on)
    }

    fn count_noted(&mut self) -> StoreResult<()> {
        let mut rows = 0;
        while rows < ROWS_PER_SLICE {
            let Some(&chat) = self.background.counting.sent.keys().next() else {
                self.background.counting.last_ms = self.clock.now_ms();
                break;
            };
            rows += self.count_chat(chat)?;
        }
        Ok(())
    }

    /// Goes on with the look at all chats. True when it has not come to its end.
    fn look_at_chats(&mut self) -> StoreResult<bool> {
        let Scanned::UpTo(after) = self.background.counting.looked else { return Ok(false) };
        let chats = self.store.chat_ids(after, CHATS_PER_SLICE)?;
        let mut messages_left = MESSAGES_PER_SLICE;
        for &chat in &chats {
            let sent = self.store.uncounted(chat, messages_left)?;
            if sent.count > 0 {
                self.store.count_sent(chat, &sent)?;
            }
            messages_left -= sent.count;
            if messages_left == 0 {
                // This chat may have more.
                return Ok(true);
            }
            self.background.counting.looked = Scanned::UpTo(Some(chat));
        }
        if chats.is_empty() {
            self.background.counting.looked = Scanned::Everywhere;
        }
        Ok(!chats.is_empty())
    }

    /// Counts for members what they have not read. True when more wait.
    fn count_asked_for(&mut self) -> StoreResult<bool> {
        let mut messages = 0;
        while messages < MESSAGES_PER_SLICE {
            let Some((chat, user)) = self.background.counting.asked_for.pop_front() else {
                return Ok(false);
            };
            messages += MESSAGES_PER_LOOKUP;
            if !self.background.counting.was_scanned(chat) {
                continue;
            }
            self.count_chat(chat)?;
            let Some(mine) = self.store.my_chat(user, chat)? else { continue };
            if mine.counted.unread.is_some() {
                continue;
            }
            let (unread, scanned) = self.store.unread(chat, user, mine.seen)?;
            messages += scanned;
            self.store.set_unread(chat, user, unread)?;
        }
        Ok(!self.background.counting.asked_for.is_empty())
    }

    /// Before a graceful end: the next start need not scan the chats.
    pub(super) fn finish_counting(&mut self) -> StoreResult<()> {
        while let Some(&chat) = self.background.counting.sent.keys().next() {
            self.count_chat(chat)?;
        }
        if self.background.counting.looked == Scanned::Everywhere {
            self.store.set_counted_upto(self.clock.last())?;
        }
        Ok(())
    }
}
