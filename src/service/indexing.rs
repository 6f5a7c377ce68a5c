//! Indexing for searches, behind the requests: new messages wait in a queue, and go into the index
//! in slices between the turns' work.
//!
//! The file knows up to which time everything is indexed. After a restart, or when the queue
//! overflowed, the chats are walked for what came later, a slice at a time as well.

use std::collections::VecDeque;

use crate::ids::{ChatId, MessageId, ServerTime};
use crate::service::{HandlerError, Service};
use crate::store::search::{Progress, Scan, Unindexed};
use crate::store::{Store, StoreResult};

/// Messages that may wait in memory; past it, they are looked for in the file.
const QUEUE_MAX: usize = 64 * 1024;
/// Messages indexed in one slice.
const MESSAGES_PER_SLICE: usize = 64;
/// Bytes of content after which a slice takes no more messages.
const BYTES_PER_SLICE: usize = 16 * 1024;
/// While requests come, background work stands back but for one slice in so many milliseconds: a
/// slice and its sync keep everybody waiting, and this way fewer than one in a hundred of those who
/// ask meet one.
const BUSY_SLICE_MS: u64 = 500;
/// Milliseconds without a try after a failed one: a damaged index must not fail other work.
const BLOCKED_MS: u64 = 10_000;
/// Slices of old words taken out before the server ends.
const LAST_SLICES: usize = 200;

/// What is still to be indexed, and what may be worked on.
pub(super) struct Indexing {
    /// All messages after `progress.done` and the scan, unless there is a gap.
    queue: VecDeque<(ChatId, MessageId)>,
    /// Messages came that are neither in the queue nor before the end of the scan.
    has_gap: bool,
    /// Old words may wait in the file.
    has_pending: bool,
    /// Messages have changed or gone since it was last asked.
    has_changed: bool,
    may_merge: bool,
    progress: Progress,
    /// The progress that the file has for sure, and the turn that goes beyond it.
    before: (Progress, u64),
    /// A search waits.
    is_wanted: bool,
    /// Requests came since the last look.
    is_busy: bool,
    /// They did before it.
    was_busy: bool,
    last_slice_ms: u64,
    blocked_until_ms: u64,
}

impl Indexing {
    /// Goes on where the file stands.
    pub(super) fn start(store: &mut Store<'_>) -> StoreResult<Self> {
        let progress = store.search_progress()?;
        Ok(Self {
            queue: VecDeque::new(),
            has_gap: progress.done < store.server_time()?,
            has_pending: true,
            has_changed: false,
            may_merge: false,
            progress,
            before: (progress, 0),
            is_wanted: false,
            is_busy: false,
            was_busy: false,
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
        self.queue.clear();
        self.has_gap = true;
        self.has_pending = true;
    }

    /// A message is new.
    pub(super) fn note_message(&mut self, chat: ChatId, id: MessageId) {
        if self.has_gap {
            return;
        }
        if self.queue.len() == QUEUE_MAX {
            self.queue = VecDeque::new();
            self.has_gap = true;
            return;
        }
        self.queue.push_back((chat, id));
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

    /// Whether messages up to this time may not be in the index yet, and soon will be. A search
    /// that asks waits for them.
    pub(super) fn is_behind(&mut self, upto: ServerTime, now_ms: u64) -> bool {
        let is_behind = self.has_pending
            || self.has_gap
            || self.progress.scan.is_some()
            || self.queue.front().is_some_and(|(_, id)| id.created() <= upto);
        self.is_wanted = is_behind && now_ms >= self.blocked_until_ms;
        self.is_wanted
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
        self.was_busy && now_ms.saturating_sub(self.last_slice_ms) < BUSY_SLICE_MS
    }
}

impl Service<'_> {
    /// Whether the next turn should call [`Service::housekeeping`] whatever the time: a search
    /// waits for the index.
    pub const fn wants_housekeeping(&self) -> bool {
        self.indexing.is_wanted()
    }

    /// One slice of indexing. True when there is more to do.
    pub(super) fn index_slice(&mut self) -> Result<bool, HandlerError> {
        let indexing = &mut self.indexing;
        indexing.is_wanted = false;
        if self.now_ms < indexing.blocked_until_ms {
            return Ok(false);
        }
        indexing.last_slice_ms = self.now_ms;
        indexing.before = (indexing.progress, self.turn.number);
        if indexing.has_pending {
            indexing.has_pending = self.store.settle_pending()?;
            indexing.may_merge |= indexing.has_pending;
            indexing.has_changed |= indexing.has_pending;
            if indexing.has_pending {
                return Ok(true);
            }
        }
        let old = indexing.progress;
        let mut batch = Vec::new();
        if let Some(scan) = old.scan {
            batch = self.scanned(old.done, scan)?;
        } else if indexing.has_gap {
            self.begin_scan();
        } else if !indexing.queue.is_empty() {
            batch = self.queued()?;
        } else if indexing.may_merge {
            indexing.may_merge = self.store.merge_search()?;
            return Ok(indexing.may_merge);
        } else {
            return Ok(false);
        }
        self.store.index(&mut batch)?;
        self.store.set_search_progress(old, self.indexing.progress)?;
        self.indexing.may_merge |= !batch.is_empty();
        Ok(true)
    }

    /// From here on the queue takes what comes; what came before is walked for.
    fn begin_scan(&mut self) {
        let upto = self.clock.last();
        let indexing = &mut self.indexing;
        indexing.has_gap = false;
        indexing.queue.clear();
        indexing.progress.scan = Some(Scan { upto, chat: 0, at: ServerTime::ZERO });
    }

    fn scanned(&mut self, done: ServerTime, scan: Scan) -> StoreResult<Vec<Unindexed>> {
        let (batch, next) =
            self.store.next_to_index(done, scan, MESSAGES_PER_SLICE, BYTES_PER_SLICE)?;
        let progress = &mut self.indexing.progress;
        progress.scan = next;
        if next.is_none() {
            progress.done = scan.upto;
        }
        Ok(batch)
    }

    fn queued(&mut self) -> StoreResult<Vec<Unindexed>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MESSAGES_PER_SLICE && bytes < BYTES_PER_SLICE {
            let Some((chat, id)) = self.indexing.queue.pop_front() else { break };
            // Deleted meanwhile, or gone with its chat, it needs no index.
            if let Some(new) = self.store.content_to_index(chat, id)? {
                bytes += new.content.len();
                batch.push(new);
            }
            self.indexing.progress.done = id.created();
        }
        if self.indexing.queue.is_empty() {
            self.indexing.queue.shrink_to(MESSAGES_PER_SLICE);
        }
        Ok(batch)
    }

    /// Before the end in good order: deleted words leave the file, and the next start need not
    /// look for messages when all are indexed.
    pub(super) fn finish_indexing(&mut self) -> StoreResult<()> {
        for _ in 0..LAST_SLICES {
            if !self.store.settle_pending()? {
                break;
            }
        }
        let indexing = &mut self.indexing;
        let mut progress = indexing.progress;
        if !indexing.has_gap && progress.scan.is_none() && indexing.queue.is_empty() {
            progress.done = self.clock.last();
        }
        self.store.set_search_progress(indexing.progress, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

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

    #[test]
    fn a_queue_that_overflows_is_given_up() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let mut indexing = Indexing::start(&mut store).expect("read");
        let chat = ChatId::new(1).expect("not 0");
        let message = |id| MessageId::at(ServerTime::new(id).expect("positive"));
        indexing.has_pending = false;
        for id in 1..=QUEUE_MAX as i64 {
            indexing.note_message(chat, message(id));
        }
        assert!(!indexing.is_behind(ServerTime::ZERO, 0));
        assert!(indexing.is_behind(message(1).created(), 0));
        indexing.note_message(chat, message(QUEUE_MAX as i64 + 1));
        assert!(indexing.has_gap && indexing.queue.capacity() == 0);
        assert!(indexing.is_behind(ServerTime::ZERO, 0));
    }
}
