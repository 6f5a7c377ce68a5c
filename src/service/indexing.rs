//! Indexing for searches, behind the requests: new messages wait in a queue per user, and come into
//! the index in slices between the turns' work.
//!
//! Users take turns, so that one user's flood makes nobody else wait. A search waits for the chats
//! that it looks into alone. While requests come, slices have a share of the loop's time; steps of
//! merging come between slices of indexing, so that the index never has to be assembled at once.
//!
//! The database knows up to which time everything is indexed. After a crash, or when a turn was
//! undone, the chats are scanned for what came later; where a queue overflowed, only its chats are.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::service::{HandlerError, Service};
use crate::store::search::{Progress, Scan, Unindexed};
use crate::store::{Store, StoreResult};

/// Messages that may wait in memory; past it, those of the user who has most are scanned for.
const QUEUE_MAX: usize = 64 * 1024;
/// Messages indexed in one slice.
const MESSAGES_PER_SLICE: usize = 64;
/// Bytes of content after which a slice takes no more messages.
const BYTES_PER_SLICE: usize = 12 * 1024;
/// Bytes of content after which it is the next user's turn.
const BYTES_PER_USER: usize = 2 * 1024;
/// While requests come and nothing is left over, background work stands back but for one slice in
/// that many milliseconds: a slice and its sync keep everybody waiting, and this way fewer than one
/// in a hundred requests meet one.
const BUSY_SLICE_MS: u64 = 500;
/// Where something is left over, it has that many microseconds of each millisecond,
const SHARE_US_PER_MS: i64 = 200;
/// or that many when a search waits for it,
const WANTED_SHARE_US_PER_MS: i64 = 500;
/// and may save up that many.
const SHARE_US_MAX: i64 = 20_000;
/// What a slice takes, about: its commit, and each byte of content, in nanoseconds.
const SLICE_US: i64 = 1_500;
const BYTE_NS: i64 = 700;
/// Steps of merging that are owed for that many bytes of content indexed: in a large index a page
/// is written anew some seven times.
const BYTES_PER_MERGE: usize = 4 * 1024;
/// Steps that may be owed; more are not counted.
const MERGES_OWED_MAX: usize = 4_096;
/// Milliseconds without a try after a failed one: a damaged index must not fail other work.
const BLOCKED_MS: u64 = 10_000;
/// Slices of old words taken out before the server ends.
const LAST_SLICES: usize = 200;

/// A message that waits.
type Waiting = (ChatId, MessageId);

/// New messages that wait to be indexed.
#[derive(Default)]
struct Queue {
    /// As they came; not sorted in yet. A send only appends here.
    fresh: VecDeque<(UserId, ChatId, MessageId)>,
    by_user: HashMap<UserId, VecDeque<Waiting>>,
    /// Users with messages in `by_user`, the next first.
    turns: VecDeque<UserId>,
    /// The same messages by chat.
    by_chat: BTreeSet<Waiting>,
    /// Chats with messages that did not fit, and the first of these.
    gaps: BTreeMap<ChatId, MessageId>,
}

impl Queue {
    fn len(&self) -> usize {
        self.fresh.len() + self.by_chat.len()
    }

    fn push(&mut self, user: UserId, chat: ChatId, id: MessageId) {
        if self.len() >= QUEUE_MAX {
            self.sort();
            self.drop_largest();
        }
        self.fresh.push_back((user, chat, id));
    }

    /// Sorts the fresh messages in.
    fn sort(&mut self) {
        for (user, chat, id) in self.fresh.drain(..) {
            let own = self.by_user.entry(user).or_default();
            if own.is_empty() {
                self.turns.push_back(user);
            }
            own.push_back((chat, id));
            self.by_chat.insert((chat, id));
        }
        if self.fresh.capacity() > 4 * MESSAGES_PER_SLICE {
            self.fresh.shrink_to(MESSAGES_PER_SLICE);
        }
    }

    /// Leaves the messages of the user who has most to a scan of their chats.
    fn drop_largest(&mut self) {
        let largest = self.by_user.iter().max_by_key(|(_, own)| own.len());
        let Some(user) = largest.map(|(user, _)| *user) else { return };
        for (chat, id) in self.by_user.remove(&user).unwrap_or_default() {
            self.by_chat.remove(&(chat, id));
            let first = self.gaps.entry(chat).or_insert(id);
            *first = id.min(*first);
        }
        self.turns.retain(|other| *other != user);
    }

    /// The next message of the user whose turn it is; the turn passes when `bytes` of the user's
    /// were taken.
    fn pop(&mut self, bytes: usize) -> Option<Waiting> {
        if bytes >= BYTES_PER_USER {
            self.turns.rotate_left(1.min(self.turns.len()));
        }
        let user = *self.turns.front()?;
        let own = self.by_user.get_mut(&user)?;
        let next = own.pop_front();
        if own.is_empty() {
            self.by_user.remove(&user);
            self.turns.pop_front();
        }
        if let Some(next) = next {
            self.by_chat.remove(&next);
        }
        next
    }

    /// Whether a chat has messages up to this time that wait.
    fn has(&self, chat: ChatId, upto: ServerTime) -> bool {
        let is_up_to = |id: &MessageId| id.created() <= upto;
        let first = MessageId::at(ServerTime::ZERO.next());
        let waiting = self.by_chat.range((chat, first)..).next();
        waiting.is_some_and(|(of, id)| *of == chat && is_up_to(id))
            || self.gaps.get(&chat).is_some_and(is_up_to)
    }

    /// The oldest message that waits.
    fn oldest(&self) -> Option<MessageId> {
        let by_user = self.by_user.values().filter_map(|own| own.front().map(|(_, id)| *id));
        let fresh = self.fresh.front().map(|(_, _, id)| *id);
        by_user.chain(fresh).chain(self.gaps.values().copied()).min()
    }

    fn has_messages(&self) -> bool {
        !self.fresh.is_empty() || !self.by_chat.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.has_messages() && self.gaps.is_empty()
    }
}

/// The kinds of work, which take turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Old words leave the index.
    Clear,
    /// Queued messages come into it,
    Queued,
    /// messages that a scan of one chat or of all finds,
    Scanned,
    /// and its pieces are assembled.
    Merge,
}

/// What is still to be indexed, and what may be worked on.
pub(super) struct Indexing {
    queue: Queue,
    /// Messages may be missing anywhere: all chats are to be scanned.
    has_gap: bool,
    /// Old words may wait in the database.
    has_pending: bool,
    /// Messages have changed or gone since it was last asked.
    has_changed: bool,
    /// Bytes of content for which no step of merging was done.
    merge_owed_bytes: usize,
    may_merge: bool,
    /// What was done last.
    last: Work,
    progress: Progress,
    /// The progress that the database has for sure, and the turn that goes beyond it.
    before: (Progress, u64),
    /// A search waits,
    is_wanted: bool,
    /// for old words of this chat's messages to leave the index.
    wanted_chat: Option<ChatId>,
    /// Requests came since the last look.
    is_busy: bool,
    /// They did before it.
    was_busy: bool,
    /// More is to be done than the last slice did.
    is_left_over: bool,
    /// Microseconds that slices may take; below 0 they wait.
    share_us: i64,
    share_at_ms: u64,
    last_slice_ms: u64,
    blocked_until_ms: u64,
}

impl Indexing {
    /// Goes on where the database stands.
    pub(super) fn start(store: &mut Store<'_>) -> StoreResult<Self> {
        let progress = store.search_progress()?;
        Ok(Self {
            queue: Queue::default(),
            has_gap: progress.done < store.server_time()?,
            has_pending: true,
            has_changed: false,
            merge_owed_bytes: 0,
            may_merge: false,
            last: Work::Merge,
            progress,
            before: (progress, 0),
            is_wanted: false,
            wanted_chat: None,
            is_busy: false,
            was_busy: false,
            is_left_over: false,
            share_us: SHARE_US_MAX,
            share_at_ms: 0,
            last_slice_ms: 0,
            blocked_until_ms: 0,
        })
    }

    /// The turn with this number was undone, and with it what it indexed and what was to be.
    pub(super) fn start_again(&mut self, turn: u64, now_ms: u64) {
        if self.before.1 == turn {
            self.progress = self.before.0;
            self.blocked_until_ms = now_ms + BLOCKED_MS;
        }
        self.queue = Queue::default();
        self.has_gap = true;
        self.has_pending = true;
    }

    /// A message is new.
    pub(super) fn note_message(&mut self, user: UserId, chat: ChatId, id: MessageId) {
        if !self.has_gap {
            self.queue.push(user, chat, id);
        }
    }

    /// Messages have changed or gone.
    pub(super) const fn note_change(&mut self) {
        self.has_pending = true;
        self.has_changed = true;
    }

    /// Whether messages have changed or gone since the last time that it was asked.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.has_changed, false)
    }

    /// Whether old words may wait to leave the index.
    pub(super) const fn has_pending(&self) -> bool {
        self.has_pending
    }

    /// Messages that wait in memory.
    pub(super) fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// Whether chats are scanned for messages that are not indexed.
    pub(super) fn is_scanning(&self) -> bool {
        self.has_gap || self.progress.scan.is_some() || !self.queue.gaps.is_empty()
    }

    /// Seconds, about, until what waits is indexed.
    pub(super) fn wait_s(&self) -> u64 {
        /// Messages that are indexed in a second while requests come.
        const MESSAGES_PER_SECOND: usize = 100;
        (self.queue.len() / MESSAGES_PER_SECOND).clamp(1, 600) as u64
    }

    /// Whether messages of these chats, up to this time, may not be in the index yet.
    fn is_behind_in(&mut self, chats: &[ChatId], upto: ServerTime) -> bool {
        if self.has_gap {
            return true;
        }
        if let Some(scan) = self.progress.scan
            && chats.iter().any(|chat| chat.row() >= scan.chat)
        {
            return true;
        }
        self.queue.sort();
        chats.iter().any(|&chat| self.queue.has(chat, upto))
    }

    pub(super) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Somebody asks for something.
    pub(super) const fn note_request(&mut self) {
        self.is_busy = true;
    }

    /// Whether requests came before the last look.
    pub(super) const fn was_busy(&self) -> bool {
        self.was_busy
    }

    /// Whether requests come, so that background work had better wait. To be asked once a slice.
    pub(super) fn stands_back(&mut self, now_ms: u64) -> bool {
        self.was_busy = std::mem::take(&mut self.is_busy);
        let passed_ms = now_ms.saturating_sub(std::mem::replace(&mut self.share_at_ms, now_ms));
        let rate = if self.is_wanted { WANTED_SHARE_US_PER_MS } else { SHARE_US_PER_MS };
        let gained_us = rate.saturating_mul(i64::try_from(passed_ms).unwrap_or(i64::MAX));
        self.share_us = self.share_us.saturating_add(gained_us).min(SHARE_US_MAX);
        if !self.was_busy {
            return false;
        }
        let is_due = now_ms.saturating_sub(self.last_slice_ms) >= BUSY_SLICE_MS;
        !is_due && !((self.is_left_over || self.is_wanted) && self.share_us > 0)
    }

    /// The kind of work that comes next.
    fn next_work(&self) -> Option<Work> {
        const ORDER: [Work; 4] = [Work::Clear, Work::Queued, Work::Scanned, Work::Merge];
        let last = ORDER.iter().position(|work| *work == self.last).unwrap_or(0);
        let order = (1..=ORDER.len()).filter_map(|step| ORDER.get((last + step) % ORDER.len()));
        let is_idle = !self.has_pending && self.queue.is_empty() && !self.is_scanning();
        order.copied().find(|work| match work {
            Work::Clear => self.has_pending,
            Work::Queued => self.queue.has_messages(),
            Work::Scanned => self.is_scanning(),
            Work::Merge => self.merge_owed_bytes >= BYTES_PER_MERGE || is_idle && self.may_merge,
        })
    }

    /// Everything up to which time is indexed, as far as the queue shows.
    fn settled_upto(&self, last: ServerTime) -> ServerTime {
        match self.queue.oldest() {
            Some(oldest) => ServerTime::new(oldest.created().micros() - 1).unwrap_or_default(),
            None => last,
        }
    }
}

impl Service<'_> {
    /// Whether this turn should call [`Service::housekeeping`] whatever the time: a search waits
    /// for the index, or a slice of erasing is due.
    pub fn wants_housekeeping(&self) -> bool {
        self.background.indexing.is_wanted()
            || self.background.housekeeping.erasing.is_due(self.clock.now_ms())
    }

    /// Whether the index lacks messages of these chats up to this time, or words that they have no
    /// more. A search that asks waits for them.
    pub(super) fn is_index_behind(
        &mut self,
        chats: &[ChatId],
        upto: ServerTime,
    ) -> StoreResult<bool> {
        let mut is_behind = self.background.indexing.is_behind_in(chats, upto);
        if self.background.indexing.has_pending
            && let Some(chat) = self.store.first_pending(chats)?
        {
            self.background.indexing.wanted_chat = Some(chat);
            is_behind = true;
        }
        self.background.indexing.is_wanted |=
            is_behind && self.clock.now_ms() >= self.background.indexing.blocked_until_ms;
        Ok(is_behind)
    }

    /// One slice of indexing. True when there is more to do.
    pub(super) fn index_slice(&mut self) -> Result<bool, HandlerError> {
        let indexing = &mut self.background.indexing;
        indexing.is_wanted = false;
        indexing.is_left_over = false;
        if self.clock.now_ms() < indexing.blocked_until_ms {
            return Ok(false);
        }
        indexing.queue.sort();
        let Some(work) = indexing.next_work() else { return Ok(false) };
        indexing.last = work;
        indexing.last_slice_ms = self.clock.now_ms();
        indexing.before = (indexing.progress, self.turn.number);
        let bytes = self.work_slice(work)?;
        let indexing = &mut self.background.indexing;
        indexing.share_us -= SLICE_US + bytes as i64 * BYTE_NS / 1000;
        indexing.is_left_over = indexing.next_work().is_some();
        Ok(indexing.is_left_over)
    }

    /// Does one slice of work: bytes of content that it has read, or what takes as long.
    fn work_slice(&mut self, work: Work) -> Result<usize, HandlerError> {
        /// Bytes whose indexing takes as long as a slice of other work.
        const OTHER_WORK_BYTES: usize = 4 * 1024;
        let old = self.background.indexing.progress;
        let mut batch = match work {
            Work::Clear => {
                let has_pending =
                    self.store.settle_pending(self.background.indexing.wanted_chat.take())?;
                self.background.indexing.has_pending = has_pending;
                self.background.indexing.has_changed |= has_pending;
                self.background.indexing.merge_owed_bytes += OTHER_WORK_BYTES / 4;
                return Ok(OTHER_WORK_BYTES);
            }
            Work::Merge => {
                let indexing = &mut self.background.indexing;
                indexing.merge_owed_bytes =
                    indexing.merge_owed_bytes.saturating_sub(BYTES_PER_MERGE);
                indexing.may_merge = self.store.merge_search()?;
                if !self.background.indexing.may_merge {
                    self.background.indexing.merge_owed_bytes = 0;
                }
                return Ok(OTHER_WORK_BYTES);
            }
            Work::Queued => self.queued()?,
            Work::Scanned => self.scanned()?,
        };
        let bytes: usize = batch.iter().map(|new| new.content.len()).sum();
        self.store.index(&mut batch)?;
        let last = self.clock.last();
        let indexing = &mut self.background.indexing;
        if !indexing.has_gap && indexing.progress.scan.is_none() {
            indexing.progress.done = indexing.progress.done.max(indexing.settled_upto(last));
        }
        indexing.merge_owed_bytes = (indexing.merge_owed_bytes + bytes.max(batch.len() * 16))
            .min(MERGES_OWED_MAX * BYTES_PER_MERGE);
        indexing.may_merge |= !batch.is_empty();
        self.store.set_search_progress(old, self.background.indexing.progress)?;
        Ok(bytes)
    }

    /// The next messages of a scan: of all chats, or of one with a gap.
    fn scanned(&mut self) -> StoreResult<Vec<Unindexed>> {
        let done = self.background.indexing.progress.done;
        if let Some(scan) = self.background.indexing.progress.scan {
            let (batch, next) =
                self.store.next_to_index(done, scan, MESSAGES_PER_SLICE, BYTES_PER_SLICE)?;
            let progress = &mut self.background.indexing.progress;
            progress.scan = next;
            if next.is_none() {
                progress.done = scan.upto;
            }
            return Ok(batch);
        }
        if self.background.indexing.has_gap {
            // From here on the queue takes what comes; what came before is scanned for.
            let upto = self.clock.last();
            let indexing = &mut self.background.indexing;
            indexing.has_gap = false;
            indexing.queue = Queue::default();
            indexing.progress.scan = Some(Scan { upto, chat: 0, at: ServerTime::ZERO });
            return Ok(Vec::new());
        }
        let Some((chat, first)) = self.background.indexing.queue.gaps.pop_first() else {
            return Ok(Vec::new());
        };
        let at = ServerTime::new(first.created().micros() - 1).unwrap_or_default();
        let scan = Scan { upto: self.clock.last(), chat: chat.row(), at };
        let (batch, next) =
            self.store.next_to_index(at, scan, MESSAGES_PER_SLICE, BYTES_PER_SLICE)?;
        if let Some(next) = next.filter(|next| next.chat == chat.row()) {
            self.background.indexing.queue.gaps.insert(chat, MessageId::at(next.at.next()));
        }
        Ok(batch)
    }

    fn queued(&mut self) -> StoreResult<Vec<Unindexed>> {
        let mut batch = Vec::new();
        let (mut bytes, mut of_user) = (0, usize::MAX);
        while batch.len() < MESSAGES_PER_SLICE && bytes < BYTES_PER_SLICE {
            let Some((chat, id)) = self.background.indexing.queue.pop(of_user) else { break };
            of_user = if of_user >= BYTES_PER_USER { 0 } else { of_user };
            // Deleted meanwhile, or gone with its chat, it needs no index.
            if let Some(new) = self.store.content_to_index(chat, id)? {
                bytes += new.content.len();
                of_user += new.content.len();
                batch.push(new);
            }
        }
        Ok(batch)
    }

    /// Before a graceful end: deleted words leave the database, and the next start need not look
    /// for messages when all are indexed.
    pub(super) fn finish_indexing(&mut self) -> StoreResult<()> {
        for _ in 0..LAST_SLICES {
            if !self.store.settle_pending(None)? {
                break;
            }
        }
        let indexing = &self.background.indexing;
        let mut progress = indexing.progress;
        if !indexing.has_gap && progress.scan.is_none() {
            progress.done = progress.done.max(indexing.settled_upto(self.clock.last()));
        }
        self.store.set_search_progress(indexing.progress, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    fn chat(id: u32) -> ChatId {
        ChatId::new(id).expect("not 0")
    }

    fn user(id: u32) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn message(id: i64) -> MessageId {
        MessageId::at(ServerTime::new(id).expect("positive"))
    }

    #[test]
    fn work_stands_back_while_requests_come_but_never_starves() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let mut indexing = Indexing::start(&mut store).expect("read");
        assert!(!indexing.stands_back(10_000));
        indexing.last_slice_ms = 10_000;
        indexing.note_request();
        assert!(indexing.stands_back(10_250));
        assert!(!indexing.stands_back(10_260), "nobody has asked meanwhile");
        indexing.note_request();
        assert!(!indexing.stands_back(10_500), "it has waited for long enough");
    }

    /// What is left over has a share of the time, and a waiting search a larger one.
    #[test]
    fn what_is_left_over_has_a_share_of_the_time() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let mut indexing = Indexing::start(&mut store).expect("read");
        let mut slices = |is_wanted: bool| {
            let mut slices = 0;
            for now_ms in 10_000..11_000 {
                indexing.note_request();
                indexing.is_left_over = true;
                indexing.is_wanted = is_wanted;
                if !indexing.stands_back(now_ms) {
                    indexing.last_slice_ms = now_ms;
                    indexing.share_us -= 10_000;
                    slices += 1;
                }
            }
            indexing.share_at_ms = 10_000;
            slices
        };
        let (shared, wanted) = (slices(false), slices(true));
        assert!((18..=25).contains(&shared), "{shared} slices of 10 ms in a second");
        assert!((45..=55).contains(&wanted), "{wanted}");
    }

    #[test]
    fn users_take_turns() {
        let mut queue = Queue::default();
        for id in 1..=1000 {
            queue.push(user(1), chat(1), message(id));
        }
        queue.push(user(2), chat(2), message(1001));
        queue.push(user(3), chat(1), message(1002));
        queue.sort();
        let first: Vec<_> = (0..3).filter_map(|_| queue.pop(BYTES_PER_USER)).collect();
        assert!(first.contains(&(chat(2), message(1001))), "{first:?}");
        assert!(first.contains(&(chat(1), message(1002))), "{first:?}");
        assert_eq!(queue.len(), 999);
    }

    #[test]
    fn a_chat_without_waiting_messages_is_not_behind() {
        let mut queue = Queue::default();
        queue.push(user(1), chat(1), message(5));
        queue.push(user(1), chat(3), message(7));
        queue.sort();
        let upto = |id: i64| message(id).created();
        assert!(queue.has(chat(1), upto(5)) && !queue.has(chat(1), upto(4)));
        assert!(!queue.has(chat(2), upto(100)));
        assert!(queue.has(chat(3), upto(100)));
    }

    #[test]
    fn an_overflow_costs_the_one_who_has_most() {
        let mut queue = Queue::default();
        queue.push(user(2), chat(2), message(1));
        for id in 2..=QUEUE_MAX as i64 + 1 {
            queue.push(user(1), chat(1), message(id));
        }
        queue.sort();
        assert_eq!(queue.gaps.get(&chat(1)), Some(&message(2)));
        assert_eq!(queue.gaps.len(), 1);
        assert!(
            queue.has(chat(2), message(1).created()) && queue.has(chat(1), message(2).created())
        );
        assert_eq!(queue.oldest(), Some(message(1)));
        assert!(queue.len() < 10);
    }
}
