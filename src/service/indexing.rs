//! Indexing for searches, in the background: new messages wait in one queue per user and enter the
//! index in slices between turns.
//!
//! Users take turns, so a flood of one user's messages delays nobody else. A search waits only for
//! the chats that it searches. While requests come, slices get a budget of the loop's spare time,
//! and of all time while a search waits. Merge steps come between slices of indexing, so the index
//! never has to be merged all at once.
//!
//! The database records the time up to which everything is indexed. After a crash or an undone
//! turn, all chats are scanned for later messages; after a queue overflowed, only its chats are.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::service::{HandlerError, Service};
use crate::store::search::{Progress, Scan, Unindexed};
use crate::store::{Store, StoreResult};

/// Messages that may wait in memory. Above it, the queue of the user with the most messages is
/// dropped, and their chats are scanned later.
const QUEUE_MAX: usize = 64 * 1024;
/// Messages indexed in one slice, at most.
const MESSAGES_PER_SLICE: usize = 64;
/// Bytes of content after which a slice ends.
const BYTES_PER_SLICE: usize = 12 * 1024;
/// Bytes of content after which the next user's messages come.
const BYTES_PER_USER: usize = 2 * 1024;
/// Milliseconds between background slices while requests come and no work is left over. A slice and
/// its sync delay every request, so this keeps the delayed requests below one in a hundred.
const BUSY_SLICE_MS: u64 = 500;
/// Budget when work is left over: these per cent of the loop's idle time beyond three quarters of
/// all time, so a loop that is busy for a quarter of the time indexes only a slice now and then,
const SPARE_PER_CENT: i64 = 80;
/// when a search waits for it, in microseconds per millisecond,
const WANTED_BUDGET_US_PER_MS: i64 = 500;
/// and the most that may be saved up, in microseconds.
const BUDGET_US_MAX: i64 = 20_000;
/// Estimated cost of a slice: its commit in microseconds, and each byte of content in nanoseconds.
const SLICE_US: i64 = 1_500;
const BYTE_NS: i64 = 700;
/// Bytes of indexed content per merge step. In a large index, merging rewrites a page about seven
/// times (its write amplification).
const BYTES_PER_MERGE: usize = 4 * 1024;
/// Merge steps that may be owed; more are not counted.
const MERGES_OWED_MAX: usize = 4_096;
/// Milliseconds to wait after a failure: a damaged index must not fail other work.
const BLOCKED_MS: u64 = 10_000;
/// Slices that remove old words during a graceful shutdown, at most.
const LAST_SLICES: usize = 200;

/// A message to be indexed.
type Waiting = (ChatId, MessageId);

/// New messages to be indexed.
#[derive(Default)]
struct Queue {
    /// In order of arrival, not sorted in yet. A send only appends here.
    fresh: VecDeque<(UserId, ChatId, MessageId)>,
    by_user: HashMap<UserId, VecDeque<Waiting>>,
    /// Users with messages in `by_user`, the next first.
    turns: VecDeque<UserId>,
    /// The same messages by chat.
    by_chat: BTreeSet<Waiting>,
    /// Chats with messages that were dropped from the queue, and the first of these.
    gaps: BTreeMap<ChatId, MessageId>,
}

impl Queue {
    fn len(&self) -> usize {
        self.fresh.len() + self.by_chat.len()
    }

    fn push(&mut self, user: UserId, chat: ChatId, id: MessageId) {
        // The scan of the gap finds it. So a flood costs nothing here once it has overflowed.
        if self.gaps.contains_key(&chat) {
            return;
        }
        if self.len() >= QUEUE_MAX {
            self.sort();
            self.drop_largest();
        }
        self.fresh.push_back((user, chat, id));
    }

    /// Sorts in the fresh messages.
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

    /// Drops the messages of the user with the most; a scan of their chats finds them later.
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

    /// The next message of the user whose turn it is. The turn passes on after `bytes` of this
    /// user's content.
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

    /// Whether messages of a chat up to this time are queued.
    fn has(&self, chat: ChatId, upto: ServerTime) -> bool {
        let is_up_to = |id: &MessageId| id.created() <= upto;
        let first = MessageId::at(ServerTime::ZERO.next());
        let waiting = self.by_chat.range((chat, first)..).next();
        waiting.is_some_and(|(of, id)| *of == chat && is_up_to(id))
            || self.gaps.get(&chat).is_some_and(is_up_to)
    }

    /// The oldest queued message.
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

/// The kinds of work; they take turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Remove old words from the index.
    Clear,
    /// Index queued messages.
    Queued,
    /// Index messages that a scan of one chat or of all chats finds.
    Scanned,
    /// Merge parts of the index.
    Merge,
}

/// The state of background indexing.
pub(super) struct Indexing {
    queue: Queue,
    /// Messages may be missing in any chat: all chats are to be scanned.
    has_gap: bool,
    /// Old words may wait in the database to be removed.
    has_pending: bool,
    /// Messages were changed or removed since [`Indexing::take_changed`].
    has_changed: bool,
    /// Bytes of indexed content not yet paid for by merge steps.
    merge_owed_bytes: usize,
    may_merge: bool,
    /// The kind of work done last.
    last: Work,
    progress: Progress,
    /// The last progress that is certainly committed, and the turn that goes beyond it.
    before: (Progress, u64),
    /// A search waits for the index,
    is_wanted: bool,
    /// in particular for old words of this chat's messages to be removed.
    wanted_chat: Option<ChatId>,
    /// Requests came since the last slice was considered.
    is_busy: bool,
    /// The same, of the time before that.
    was_busy: bool,
    /// The last slice left work over.
    has_work_left: bool,
    /// Budget of slices in microseconds; at or below 0 they wait.
    budget_us: i64,
    budget_at_ms: u64,
    /// Time for which the loop was idle since then, in microseconds.
    idle_us: u64,
    last_slice_ms: u64,
    blocked_until_ms: u64,
}

impl Indexing {
    /// Resumes from the progress stored in the database.
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
            has_work_left: false,
            budget_us: BUDGET_US_MAX,
            budget_at_ms: 0,
            idle_us: 0,
            last_slice_ms: 0,
            blocked_until_ms: 0,
        })
    }

    /// The turn with this number was undone: its indexing is lost, and the queue may be wrong.
    pub(super) fn start_again(&mut self, turn: u64, now_ms: u64) {
        if self.before.1 == turn {
            self.progress = self.before.0;
            self.blocked_until_ms = now_ms + BLOCKED_MS;
        }
        self.queue = Queue::default();
        self.has_gap = true;
        self.has_pending = true;
    }

    /// Queues a new message.
    pub(super) fn note_message(&mut self, user: UserId, chat: ChatId, id: MessageId) {
        if !self.has_gap {
            self.queue.push(user, chat, id);
        }
    }

    /// Notes that messages were changed or removed.
    pub(super) const fn note_change(&mut self) {
        self.has_pending = true;
        self.has_changed = true;
    }

    /// Whether messages were changed or removed since the last call.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.has_changed, false)
    }

    /// Whether old words may wait to be removed from the index.
    pub(super) const fn has_pending(&self) -> bool {
        self.has_pending
    }

    /// Messages queued in memory.
    pub(super) fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// Whether chats are being scanned for messages that are not indexed.
    pub(super) fn is_scanning(&self) -> bool {
        self.has_gap || self.progress.scan.is_some() || !self.queue.gaps.is_empty()
    }

    /// Estimated seconds until the queue is indexed.
    pub(super) fn wait_s(&self) -> u64 {
        /// Messages indexed per second while requests come.
        const MESSAGES_PER_SECOND: usize = 100;
        (self.queue.len() / MESSAGES_PER_SECOND).clamp(1, 600) as u64
    }

    /// Whether messages of these chats up to this time may be missing in the index.
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

    /// Notes that a request came.
    pub(super) const fn note_request(&mut self) {
        self.is_busy = true;
    }

    /// Notes that the loop was idle for so long before this turn.
    pub(super) const fn note_idle(&mut self, idle_us: u64) {
        self.idle_us = self.idle_us.saturating_add(idle_us);
    }

    /// Whether requests came before the last call of [`Indexing::should_yield`].
    pub(super) const fn was_busy(&self) -> bool {
        self.was_busy
    }

    /// Whether background work should yield to requests. Call it once per slice: it refills the
    /// budget.
    pub(super) fn should_yield(&mut self, now_ms: u64) -> bool {
        self.was_busy = std::mem::take(&mut self.is_busy);
        let passed_ms = now_ms.saturating_sub(std::mem::replace(&mut self.budget_at_ms, now_ms));
        let passed_ms = i64::try_from(passed_ms).unwrap_or(i64::MAX);
        let idle_us = i64::try_from(std::mem::take(&mut self.idle_us)).unwrap_or(i64::MAX);
        let gained_us = if self.is_wanted {
            passed_ms.saturating_mul(WANTED_BUDGET_US_PER_MS)
        } else {
            let spare_us = idle_us.saturating_sub(passed_ms.saturating_mul(750)).max(0);
            spare_us.saturating_mul(SPARE_PER_CENT) / 100
        };
        self.budget_us = self.budget_us.saturating_add(gained_us).min(BUDGET_US_MAX);
        if !self.was_busy {
            return false;
        }
        let is_due = now_ms.saturating_sub(self.last_slice_ms) >= BUSY_SLICE_MS;
        !is_due && !((self.has_work_left || self.is_wanted) && self.budget_us > 0)
    }

    /// The kind of work for the next slice.
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

    /// The time up to which everything is indexed, as the queue shows.
    fn settled_upto(&self, last: ServerTime) -> ServerTime {
        match self.queue.oldest() {
            Some(oldest) => ServerTime::new(oldest.created().micros() - 1).unwrap_or_default(),
            None => last,
        }
    }
}

impl Service<'_> {
    /// Notes for how many microseconds the loop was idle before this turn: background work
    /// gets its share of them.
    pub const fn note_idle(&mut self, idle_us: u64) {
        self.background.indexing.note_idle(idle_us);
    }

    /// Whether this turn should call [`Service::housekeeping`] at once: a search waits for the
    /// index, the WAL is to be emptied, or a slice of erasing is due.
    pub fn wants_housekeeping(&self) -> bool {
        self.background.indexing.is_wanted()
            || self.background.housekeeping.wants_checkpoint()
            || self.background.housekeeping.erasing.is_due(self.clock.now_ms())
    }

    /// Whether the index lacks messages of these chats up to this time, or still has words that
    /// they no longer contain. A search waits for that.
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

    /// Does one slice of indexing. True when there is more to do.
    pub(super) fn index_slice(&mut self) -> Result<bool, HandlerError> {
        let indexing = &mut self.background.indexing;
        indexing.is_wanted = false;
        indexing.has_work_left = false;
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
        indexing.budget_us -= SLICE_US + bytes as i64 * BYTE_NS / 1000;
        indexing.has_work_left = indexing.next_work().is_some();
        Ok(indexing.has_work_left)
    }

    /// Does one slice of work. Returns the bytes of content read, or an equivalent cost in bytes.
    fn work_slice(&mut self, work: Work) -> Result<usize, HandlerError> {
        /// Bytes whose indexing takes as long as one slice of the other kinds of work.
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

    /// The next messages of a scan, of all chats or of one with a gap.
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
            // From here on new messages are queued; the scan finds everything older.
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
            // A message deleted meanwhile, on its own or with its chat, is not indexed.
            if let Some(new) = self.store.content_to_index(chat, id)? {
                bytes += new.content.len();
                of_user += new.content.len();
                batch.push(new);
            }
        }
        Ok(batch)
    }

    /// For a graceful shutdown: removes old words, and stores the progress so that the next start
    /// need not scan when everything is indexed.
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
        assert!(!indexing.should_yield(10_000));
        indexing.last_slice_ms = 10_000;
        indexing.note_request();
        assert!(indexing.should_yield(10_250));
        assert!(!indexing.should_yield(10_260), "no request came meanwhile");
        indexing.note_request();
        assert!(!indexing.should_yield(10_500), "it has waited for long enough");
    }

    /// Work that is left over gets a share of the time that the loop has to spare, and half of all
    /// time while a search waits.
    #[test]
    fn what_is_left_over_has_a_share_of_the_spare_time() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let mut indexing = Indexing::start(&mut store).expect("read");
        let mut slices = |idle_us: u64, is_wanted: bool| {
            let mut slices = 0;
            indexing.budget_us = 0;
            for now_ms in 10_001..11_000 {
                indexing.note_request();
                indexing.note_idle(idle_us);
                indexing.has_work_left = true;
                indexing.is_wanted = is_wanted;
                if !indexing.should_yield(now_ms) {
                    indexing.last_slice_ms = now_ms;
                    indexing.budget_us -= 10_000;
                    slices += 1;
                }
            }
            (indexing.budget_at_ms, indexing.last_slice_ms) = (10_000, 10_000);
            slices
        };
        slices(0, false);
        assert_eq!(slices(700, false), 1, "slices of 10 ms in a second of a busy loop");
        let shared = slices(990, false);
        assert!((17..=25).contains(&shared), "{shared} slices in a second of an idle loop");
        let wanted = slices(0, true);
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
        let before = queue.len();
        queue.push(user(3), chat(1), message(QUEUE_MAX as i64 + 2));
        assert_eq!(queue.len(), before, "the scan of the gap finds it");
    }
}
