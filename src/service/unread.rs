//! Counts of unread messages, so that GET_MY_CHATS need not read the messages.
//!
//! The database stores the number of messages per chat, and how many of them each member has
//! counted ([`crate::store::unread`]). A send only notes its message in memory; a slice of
//! housekeeping writes the counts later, and until then they are added to those of the database.
//!
//! Invariant: for a chat that was *scanned*, the database has counted all messages except those
//! noted here. After a graceful shutdown this holds for all chats. After a crash or an undone turn,
//! the chats are scanned one by one for messages that were not counted.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ChatId, ServerTime, UserId};
use crate::service::{HandlerError, Service};
use crate::store::chats::MyChat;
use crate::store::unread::{Sent, UNREAD_MAX};
use crate::store::{Store, StoreResult};

/// Milliseconds after which noted messages are written to the counts,
const NOTED_MS: u64 = 5_000;
/// or as soon as this many chats have some.
const NOTED_CHATS_MAX: usize = 1_024;
/// Rows changed by one slice, approximately.
const ROWS_PER_SLICE: usize = 256;
/// Chats scanned in one slice, at most,
const CHATS_PER_SLICE: usize = 64;
/// and messages, approximately.
const MESSAGES_PER_SLICE: u32 = 4_096;
/// Members whose unread messages wait to be counted; above it, they are counted on request.
const ASKED_FOR_MAX: usize = 4_096;
/// Cost of one lookup, in messages scanned in the same time.
const MESSAGES_PER_LOOKUP: u32 = 64;
/// Rows that are rather scanned each time than counted once and stored.
const ROWS_SCANNED_PREFERRED: u32 = 4;

/// Progress of the scan of all chats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scanned {
    /// All chats were scanned; new ones need no scan.
    Everywhere,
    /// Chats up to this one were scanned.
    UpTo(Option<ChatId>),
}

/// The counts that the database does not have yet.
pub(super) struct Counting {
    sent: BTreeMap<ChatId, Sent>,
    scanned_upto: Scanned,
    /// Members whose unread messages are to be counted in the background.
    asked_for: VecDeque<(ChatId, UserId)>,
    last_ms: u64,
}

impl Counting {
    /// Resumes from the state of the database.
    pub(super) fn start(store: &mut Store<'_>) -> StoreResult<Self> {
        let is_whole = store.counted_upto()? >= store.server_time()?;
        let scanned_upto = if is_whole { Scanned::Everywhere } else { Scanned::UpTo(None) };
        Ok(Self { sent: BTreeMap::new(), scanned_upto, asked_for: VecDeque::new(), last_ms: 0 })
    }

    /// A turn was undone: counts made in it may be wrong, so all chats are scanned again.
    pub(super) fn start_again(&mut self) {
        self.sent.clear();
        self.scanned_upto = Scanned::UpTo(None);
    }

    fn was_scanned(&self, chat: ChatId) -> bool {
        match self.scanned_upto {
            Scanned::Everywhere => true,
            Scanned::UpTo(last) => last.is_some_and(|last| chat <= last),
        }
    }

    /// Notes a new message.
    pub(super) fn note_sent(&mut self, chat: ChatId, user: UserId, created: ServerTime) {
        if self.was_scanned(chat) {
            self.sent.entry(chat).or_default().add(user, created);
        }
    }

    /// Notes that messages up to `last` were deleted by age.
    pub(super) fn note_expired(&mut self, chat: ChatId, last: ServerTime) {
        if let Some(sent) = self.sent.get_mut(&chat)
            && sent.last <= last
        {
            sent.last = ServerTime::ZERO;
        }
    }

    /// Forgets a chat that was removed.
    pub(super) fn forget(&mut self, chat: ChatId) {
        self.sent.remove(&chat);
    }

    fn ask_for(&mut self, chat: ChatId, user: UserId) {
        if self.asked_for.len() < ASKED_FOR_MAX {
            self.asked_for.push_back((chat, user));
        }
    }

    /// What is known about a chat without reading its messages.
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

/// What is known about a chat's messages.
enum Known {
    All(Unread),
    /// Only the time of the newest one.
    Last(ServerTime),
    Nothing,
}

/// The part of a chat_info about messages.
pub(super) struct Unread {
    /// Time of the newest message.
    pub(super) last: ServerTime,
    /// Messages of other users after the read marker.
    pub(super) count: u32,
}

impl Service<'_> {
    /// The part of a chat_info about messages. May read up to many rows: callers that need several
    /// check [`Service::is_scan_budget_spent`] in between.
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

    /// After a read marker moved to `seen`: stores that nothing is unread, or has it counted.
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

    /// Writes the noted messages of a chat to the database. Returns the number of rows changed.
    fn count_chat(&mut self, chat: ChatId) -> StoreResult<usize> {
        let Some(sent) = self.background.counting.sent.remove(&chat) else { return Ok(0) };
        self.store.count_sent(chat, &sent)?;
        Ok(1 + sent.by.len())
    }

    /// One slice of counting. True when there is more to do.
    pub(super) fn count_slice(&mut self) -> Result<bool, HandlerError> {
        let is_full = self.background.counting.sent.len() > NOTED_CHATS_MAX;
        if is_full
            || self.clock.now_ms().saturating_sub(self.background.counting.last_ms) >= NOTED_MS
        {
            self.count_noted()?;
        }
        let more_to_scan = self.scan_chats()?;
        Ok(self.count_asked_for()? || more_to_scan)
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

    /// Continues the scan of all chats. True until it has reached the end.
    fn scan_chats(&mut self) -> StoreResult<bool> {
        let Scanned::UpTo(after) = self.background.counting.scanned_upto else { return Ok(false) };
        let chats = self.store.chat_ids(after, CHATS_PER_SLICE)?;
        let mut messages_left = MESSAGES_PER_SLICE;
        for &chat in &chats {
            let sent = self.store.uncounted(chat, messages_left)?;
            if sent.count > 0 {
                self.store.count_sent(chat, &sent)?;
            }
            messages_left -= sent.count;
            if messages_left == 0 {
                // This chat may have more uncounted messages.
                return Ok(true);
            }
            self.background.counting.scanned_upto = Scanned::UpTo(Some(chat));
        }
        if chats.is_empty() {
            self.background.counting.scanned_upto = Scanned::Everywhere;
        }
        Ok(!chats.is_empty())
    }

    /// Counts unread messages for members. True when more wait.
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

    /// For a graceful shutdown: writes all counts, so that the next start need not scan.
    pub(super) fn finish_counting(&mut self) -> StoreResult<()> {
        while let Some(&chat) = self.background.counting.sent.keys().next() {
            self.count_chat(chat)?;
        }
        if self.background.counting.scanned_upto == Scanned::Everywhere {
            self.store.set_counted_upto(self.clock.last())?;
        }
        Ok(())
    }
}
