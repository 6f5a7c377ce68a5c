//! Erasing deleted data: messages and nonces of removed chats, messages of purged users, expired
//! messages, the bytes of files, and the words of all of them in the search index.
//!
//! It runs in slices between requests. On an idle server they follow each other; on a busy one they
//! get a budget of the loop's time that grows with the age of the oldest deletion, so that
//! everything is gone within a minute there as well. The size of a slice adapts to how long the
//! last ones took. When the server is idle, free pages are returned to the disk.

use crate::service::{HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::purges::Found;
use crate::store::sweep::Sweep;
use crate::wire::codec::{Message, STATUS_DELETED};
use crate::wire::extras::Extras;

/// Milliseconds within which deleted data should be gone: at this age, erasing has its largest
/// budget.
const ERASE_WITHIN_MS: u64 = 60_000;
/// The budget at age 0, in thousandths of the loop's time,
const SHARE_MIN: u64 = 100;
/// and at that age.
const SHARE_MAX: u64 = 800;
/// Longest work of one slice, in microseconds.
const SLICE_US_MAX: u64 = 6_000;
/// Rows per slice: at the start,
const ROWS: u32 = 500;
/// at least, and at most.
const ROWS_MIN: u32 = 64;
const ROWS_MAX: u32 = 4_096;
/// Deleting a row with indexed words costs as much as this many rows without.
const WORDY_DIVISOR: u32 = 8;
/// Free pages returned in one slice on a full disk.
const FULL_DISK_PAGES: u32 = 32;
/// Deleting a chunk of a file costs as much as this many rows,
const CHUNK_DIVISOR: u32 = 32;
/// and the COMMIT writes its bytes: at most 1 MiB per slice.
const CHUNKS_MAX: u32 = 16;
/// Messages removed from the index since the oldest deletion above which words are only marked as
/// deleted, and the index is merged completely at the end. That is faster than overwriting each
/// word.
const LIGHT_FROM: u64 = 1_000;

/// The kinds of work; they take turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Remove what removed chats have left.
    Sweep,
    /// Delete all messages of purged users.
    Purge,
    /// Remove messages that their chat does not keep any longer.
    Expire,
    /// Erase the bytes of files.
    Files,
    /// Merge the whole index, which removes the words that are only marked.
    Assemble,
}

const KINDS: [Kind; 5] = [Kind::Sweep, Kind::Purge, Kind::Expire, Kind::Files, Kind::Assemble];

/// What is left to erase, and the budget for it.
pub(super) struct Erasing {
    sweep: Option<Sweep>,
    may_expire: bool,
    may_purge: bool,
    may_erase_files: bool,
    may_assemble: bool,
    /// The complete merge has begun, and no word was marked since.
    is_assembling: bool,
    may_shrink: bool,
    last: Kind,
    /// Since when something waits to be erased, in milliseconds.
    since_ms: Option<u64>,
    /// How many messages had left the index by then.
    left_before: u64,
    /// On a busy server, the next slice comes at this time, in milliseconds.
    not_before_ms: u64,
    rows: u32,
    /// The present turn has run a slice.
    has_slice: bool,
}

impl Default for Erasing {
    fn default() -> Self {
        Self {
            sweep: Some(Sweep::default()),
            may_expire: true,
            may_purge: true,
            may_erase_files: true,
            may_assemble: true,
            is_assembling: false,
            may_shrink: true,
            last: Kind::Assemble,
            since_ms: None,
            left_before: 0,
            not_before_ms: 0,
            rows: ROWS,
            has_slice: false,
        }
    }
}

impl Erasing {
    /// A turn was undone: what it erased is back, so everything is checked again.
    pub(super) fn start_again(&mut self) {
        *self = Self {
            since_ms: self.since_ms,
            left_before: self.left_before,
            not_before_ms: self.not_before_ms,
            rows: self.rows,
            ..Self::default()
        };
    }

    /// Notes that a chat was removed, possibly one that the sweep has passed.
    pub(super) fn sweep_soon(&mut self) {
        self.sweep = Some(Sweep::default());
    }

    /// Notes that messages may have expired.
    pub(super) const fn expire_soon(&mut self) {
        self.may_expire = true;
    }

    /// Notes that a purge was requested.
    pub(super) const fn purge_soon(&mut self) {
        self.may_purge = true;
    }

    /// Notes that a file was removed.
    pub(super) const fn erase_files_soon(&mut self) {
        self.may_erase_files = true;
    }

    const fn may(&self, kind: Kind) -> bool {
        match kind {
            Kind::Sweep => self.sweep.is_some(),
            Kind::Purge => self.may_purge,
            Kind::Expire => self.may_expire,
            Kind::Files => self.may_erase_files,
            // Last of all, since words removed later would need another merge.
            Kind::Assemble => {
                self.may_assemble && self.sweep.is_none() && !self.may_purge && !self.may_expire
            }
        }
    }

    fn next(&self) -> Option<Kind> {
        let last = KINDS.iter().position(|kind| *kind == self.last).unwrap_or(0);
        let order = KINDS.iter().cycle().skip(last + 1).take(KINDS.len());
        order.copied().find(|kind| self.may(*kind))
    }

    /// Whether anything is, or may be, left to erase.
    pub(super) fn is_waiting(&self) -> bool {
        self.next().is_some()
    }

    /// Whether a slice is due even on a busy server.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.not_before_ms && self.is_waiting()
    }

    /// The present budget, in thousandths of the loop's time.
    fn share(&self, now_ms: u64) -> u64 {
        let age_ms = now_ms.saturating_sub(self.since_ms.unwrap_or(now_ms));
        let age_ms = age_ms.min(ERASE_WITHIN_MS);
        SHARE_MIN + (SHARE_MAX - SHARE_MIN) * age_ms / ERASE_WITHIN_MS
    }

    /// Adapts to the times of the turn: its work without COMMIT, and all of it.
    pub(super) fn note_slice(&mut self, now_ms: u64, work_us: u64, all_us: u64) {
        if !std::mem::take(&mut self.has_slice) {
            return;
        }
        if work_us > SLICE_US_MAX {
            self.rows = (self.rows / 2).max(ROWS_MIN);
        } else if work_us < SLICE_US_MAX / 3 {
            self.rows = (self.rows * 2).min(ROWS_MAX);
        }
        let period_us = all_us * 1000 / self.share(now_ms);
        self.not_before_ms = now_ms + period_us.div_ceil(1000).max(1);
    }
}

impl Service<'_> {
    /// Runs one slice. True when more is, or may be, left.
    pub(super) fn erase_slice(&mut self) -> Result<bool, HandlerError> {
        let (now_ms, left) = (self.clock.now_ms(), self.store.left_index());
        let erasing = &mut self.background.housekeeping.erasing;
        let Some(kind) = erasing.next() else {
            erasing.since_ms = None;
            return Ok(false);
        };
        if erasing.since_ms.is_none() {
            (erasing.since_ms, erasing.left_before) = (Some(now_ms), left);
        }
        erasing.last = kind;
        erasing.has_slice = true;
        let has_words = matches!(kind, Kind::Sweep | Kind::Purge | Kind::Expire);
        let is_light = has_words && left - erasing.left_before >= LIGHT_FROM;
        if is_light {
            self.store.begin_light()?;
        }
        match kind {
            Kind::Sweep => self.sweep()?,
            Kind::Purge => self.purge()?,
            Kind::Expire => self.expire()?,
            Kind::Files => self.erase_files()?,
            Kind::Assemble => self.assemble()?,
        }
        if is_light {
            self.store.end_light()?;
            let erasing = &mut self.background.housekeeping.erasing;
            (erasing.may_assemble, erasing.is_assembling) = (true, false);
        }
        Ok(self.background.housekeeping.erasing.is_waiting())
    }

    /// Removes some of what removed chats have left.
    fn sweep(&mut self) -> HandlerResult {
        let erasing = &mut self.background.housekeeping.erasing;
        let Some(sweep) = &mut erasing.sweep else { return Ok(()) };
        if !self.store.sweep_messages(sweep, erasing.rows)? {
            erasing.sweep = None;
        }
        self.note_erased();
        Ok(())
    }

    /// Deletes messages of purged users, as if their authors did.
    fn purge(&mut self) -> HandlerResult {
        let Some(purge) = self.store.next_purge()? else {
            self.background.housekeeping.erasing.may_purge = false;
            return Ok(());
        };
        let limit = self.background.housekeeping.erasing.rows / WORDY_DIVISOR;
        for Found { chat, message: id, status } in self.store.purge_slice(purge, limit)? {
            let updated = self.clock.next();
            self.store.delete_message(chat, id, updated)?;
            let (sender, created) = (purge.user, id.created());
            let status = status | STATUS_DELETED;
            let message =
                Message { id, sender, created, updated, status, content: "", extras: Extras::NONE };
            self.notify_message_of_nobody(chat, &message);
        }
        self.note_erased();
        Ok(())
    }

    /// Removes expired messages of one chat. Nobody is notified: clients may keep them.
    fn expire(&mut self) -> HandlerResult {
        let limit = self.background.housekeeping.erasing.rows;
        let expired = match self.clock.age_clock() {
            Some(now) => self.store.expire_messages(now, limit)?,
            None => None,
        };
        match expired {
            Some((chat, last)) => {
                self.note_erased();
                self.background.counting.note_expired(chat, last);
            }
            None => self.background.housekeeping.erasing.may_expire = false,
        }
        Ok(())
    }

    /// Erases chunks of removed files.
    fn erase_files(&mut self) -> HandlerResult {
        let limit = (self.background.housekeeping.erasing.rows / CHUNK_DIVISOR).min(CHUNKS_MAX);
        if self.store.erase_slice(limit)? {
            self.note_erased();
        } else {
            self.background.housekeeping.erasing.may_erase_files = false;
        }
        Ok(())
    }

    /// One step of merging the whole index, if it has marked words.
    fn assemble(&mut self) -> HandlerResult {
        let is_begun = self.background.housekeeping.erasing.is_assembling;
        if self.storage.full_disk.is_full || !is_begun && !self.store.is_index_unassembled()? {
            self.background.housekeeping.erasing.may_assemble = false;
            return Ok(());
        }
        if !is_begun {
            self.store.begin_assembling()?;
            self.background.housekeeping.erasing.is_assembling = true;
        } else if !self.store.merge_search()? {
            self.store.note_assembled()?;
            let erasing = &mut self.background.housekeeping.erasing;
            (erasing.may_assemble, erasing.is_assembling) = (false, false);
        }
        self.note_erased();
        Ok(())
    }

    /// Has the WAL and the index cleaned up, too.
    fn note_erased(&mut self) {
        self.background.indexing.note_change();
        self.background.housekeeping.erasing.may_shrink = true;
    }

    /// Returns some free pages to the disk when nothing is left to erase. True when there are more.
    pub(super) fn shrink_slice(&mut self) -> StoreResult<bool> {
        let erasing = &mut self.background.housekeeping.erasing;
        let is_full = self.storage.full_disk.is_full;
        if !erasing.may_shrink
            || erasing.is_waiting()
            || is_full && self.store.are_checkpoints_paused()
        {
            return Ok(false);
        }
        erasing.has_slice = true;
        let pages = erasing.rows / WORDY_DIVISOR;
        // The pages that are moved are in the WAL before they are free.
        let pages = if is_full { pages.min(FULL_DISK_PAGES) } else { pages };
        erasing.may_shrink = self.store.shrink(pages)?;
        Ok(erasing.may_shrink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The larger the budget, the sooner the next slice; in the last quarter it is most of the
    /// time.
    #[test]
    fn the_share_grows_until_the_deadline() {
        let mut erasing = Erasing { since_ms: Some(1_000), ..Erasing::default() };
        let mut rests = Vec::new();
        for age_ms in [0, 15_000, 45_000, 60_000, 600_000] {
            let now_ms = 1_000 + age_ms;
            erasing.has_slice = true;
            erasing.note_slice(now_ms, 5_000, 8_000);
            rests.push(erasing.not_before_ms - now_ms);
        }
        assert_eq!(rests, [80, 30, 13, 10, 10]);
        assert!(erasing.is_waiting() && !erasing.is_due(601_005) && erasing.is_due(601_010));
    }

    #[test]
    fn slices_are_as_large_as_their_time_allows() {
        let mut erasing = Erasing::default();
        let mut after = |work_us| {
            erasing.has_slice = true;
            erasing.note_slice(1_000, work_us, work_us);
            erasing.rows
        };
        assert_eq!((after(1_000), after(4_000), after(1_000)), (1_000, 1_000, 2_000));
        assert_eq!((after(9_000), after(9_000)), (1_000, 500));
        for _ in 0..10 {
            after(100_000);
        }
        assert_eq!(after(7_000), ROWS_MIN);
        for _ in 0..10 {
            after(0);
        }
        assert_eq!(after(0), ROWS_MAX);
        erasing.note_slice(2_000, 100_000, 100_000);
        assert_eq!(erasing.rows, ROWS_MAX, "a turn without a slice says nothing");
    }

    #[test]
    fn kinds_take_turns_and_the_index_comes_last() {
        let mut erasing = Erasing::default();
        let mut order = Vec::new();
        for _ in 0..6 {
            let kind = erasing.next();
            erasing.last = kind.unwrap_or(erasing.last);
            order.push(kind);
        }
        use Kind::{Expire, Files, Purge, Sweep};
        assert_eq!(order, [Sweep, Purge, Expire, Files, Sweep, Purge].map(Some));
        erasing.sweep = None;
        (erasing.may_purge, erasing.may_expire) = (false, false);
        erasing.last = Kind::Files;
        assert_eq!(erasing.next(), Some(Kind::Assemble));
    }
}
