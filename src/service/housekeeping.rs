//! Housekeeping in small slices between requests: acting on changes by the command line, ending old
//! sessions, and emptying the WAL after deletions; also schedules the slices of erasing, indexing
//! and verifying.

use std::collections::VecDeque;

use crate::ids::ServerTime;
use crate::limits::EMPTY_GROUP_DAYS;
use crate::service::erasing::Erasing;
use crate::service::page_cache::PageCache;
use crate::service::session::TOUCH_US;
use crate::service::verifying::Verifying;
use crate::service::{DAY_US, HandlerResult, Service, TurnEnd};
use crate::store::changes::Change;
use crate::store::{Store, StoreResult};
use crate::wire::answer::MemberEvent;

/// Changes by the command line taken in one slice.
const CHANGES_PER_SLICE: u32 = 256;
/// Sessions ended in one slice.
const SESSIONS_PER_SLICE: u32 = 100;
/// Connections visited in one slice to store the last use of their sessions,
const TOUCHABLE_PER_SLICE: usize = 4_096;
/// and sessions updated.
const TOUCHED_PER_SLICE: usize = 200;
/// Expired invites removed in one slice.
const INVITES_PER_SLICE: u32 = 100;
/// Groups without members removed in one slice.
const EMPTY_GROUPS_PER_SLICE: u32 = 100;
/// Milliseconds after the last deletion at which an idle server empties the WAL,
const TRUNCATE_QUIET_MS: u64 = 2_000;
/// and after the first deletion at which a busy one does,
const TRUNCATE_LATE_MS: u64 = 60_000;
/// and minimum time between two tries.
const TRUNCATE_REST_MS: u64 = 10_000;
/// COMMITs between two looks at the free space.
const COMMITS_PER_LOOK: u64 = 16;
/// Milliseconds between two tries to write to a failing database.
const PROBE_MS: u64 = 1_000;
/// Milliseconds between two searches for old sessions, expired messages and unused buffers.
const SLOW_ROUND_MS: u64 = 10_000;

/// The state of housekeeping.
pub(super) struct Housekeeping {
    data_version: i64,
    has_changes: bool,
    /// The newest change before the start. Nobody was connected then, so nobody is notified.
    before_start: i64,
    /// Changes that were taken from the database and not acted on yet.
    pub(super) taken: VecDeque<Change>,
    /// Id of the newest change that was taken.
    taken_upto: i64,
    /// Changes that were taken could not be deleted from the database, because it cannot be
    /// written; they are skipped there.
    has_kept: bool,
    /// How many changes were acted on.
    pub(super) acted_on: u64,
    pub(super) erasing: Erasing,
    last_round_ms: u64,
    /// When a write to a failing database was last tried, in milliseconds.
    probed_ms: u64,
    /// Index of the connection up to which the use of sessions was stored.
    touched_upto: usize,
    wal_truncation: WalTruncation,
    pub(super) verifying: Verifying,
    page_cache: PageCache,
    /// When the doubt about the clock was last stored, in milliseconds; `None`: store it now.
    pub(super) doubt_noted_ms: Option<u64>,
}

/// Emptying the WAL after deletions. Deleted content is overwritten in the database, but the WAL
/// keeps it until it is reused. So the WAL is emptied some time after the last deletion when the
/// server is idle, and eventually even when it is busy.
#[derive(Default)]
struct WalTruncation {
    /// Since when deleted content may be in the WAL,
    since_ms: Option<u64>,
    /// and the time of the last deletion, both in milliseconds.
    last_ms: u64,
    /// No further try before this time.
    rests_until_ms: u64,
    is_due: bool,
}

impl Housekeeping {
    /// Changes before the start are in the database, and in no cache yet.
    pub(super) fn start(store: &mut Store<'_>) -> StoreResult<Self> {
        let data_version = store.data_version()?;
        let before_start = store.newest_change()?;
        Ok(Self {
            data_version,
            before_start,
            has_changes: true,
            taken: VecDeque::new(),
            taken_upto: 0,
            has_kept: false,
            acted_on: 0,
            erasing: Erasing::default(),
            last_round_ms: 0,
            probed_ms: 0,
            touched_upto: 0,
            wal_truncation: WalTruncation::default(),
            verifying: Verifying::default(),
            page_cache: PageCache::default(),
            doubt_noted_ms: Some(0),
        })
    }

    /// Whether the WAL is to be emptied now.
    pub(super) const fn wants_checkpoint(&self) -> bool {
        self.wal_truncation.is_due
    }

    /// A turn was undone: the changes that it took are in the database again.
    pub(super) fn start_again(&mut self) {
        self.has_changes = true;
        self.erasing.start_again();
        self.doubt_noted_ms = None;
    }
}

impl Service<'_> {
    /// Acts on changes by the command line, before the turn's requests: a client that has seen a
    /// command succeed also sees its effect. Each change is a turn of its own. True when that wrote
    /// to the database.
    pub fn take_up_changes(&mut self) -> bool {
        let commits_before = self.storage.commits;
        if let Err(error) = self.try_take_up_changes() {
            self.turn.failed = Some(error.clone());
            self.end_turn();
            // No request may be answered from outdated caches.
            self.turn.failed = Some(error);
        }
        self.storage.commits > commits_before
    }

    fn try_take_up_changes(&mut self) -> StoreResult<()> {
        let version = self.store.data_version()?;
        if version != self.background.housekeeping.data_version {
            self.background.housekeeping.data_version = version;
            self.background.housekeeping.has_changes = true;
            self.background.housekeeping.erasing.purge_soon();
            // A command may have deleted messages, or removed words from the index.
            self.background.indexing.note_change();
        }
        let may_forget = self.background.housekeeping.has_kept && !self.storage.is_failing;
        if (self.background.housekeeping.has_changes || may_forget) && !self.waits_for_lock() {
            match self.take_changes() {
                Ok(has_more) => self.background.housekeeping.has_changes = has_more,
                // The other process is writing; the changes stay until it is done.
                Err(error) if self.may_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.act_on_changes()
    }

    /// Runs one slice of background work, as a turn of its own: if it cannot be stored, no request
    /// is declined for it. Call it a few times per second. True when there is more to do soon.
    pub fn housekeeping(&mut self) -> bool {
        self.housekeeping_timed(|| 0)
    }

    /// [`Service::housekeeping`], with a clock in microseconds that measures slices.
    pub fn housekeeping_timed(&mut self, now_us: impl Fn() -> u64) -> bool {
        let begun_us = now_us();
        self.take_up_changes();
        if self.turn.failed.is_some() {
            self.end_turn();
            return false;
        }
        if self.waits_for_lock() {
            self.end_turn();
            return false;
        }
        let more = self.slice();
        // The work of a failed slice is still in the database, and is repeated.
        let (more, outcome) = match more {
            Ok(more) => (more, Ok(())),
            Err(crate::service::HandlerError::Store(error)) => (false, Err(error)),
            Err(_) => (false, Ok(())),
        };
        self.note_failure(outcome);
        let worked_us = now_us();
        if self.end_turn() == TurnEnd::Committed
            && let Err(error) = self.truncate_wal_when_due()
        {
            self.reason(error.into());
        }
        let (work_us, all_us) =
            (worked_us.saturating_sub(begun_us), now_us().saturating_sub(begun_us));
        self.background.housekeeping.erasing.note_slice(self.clock.now_ms(), work_us, all_us);
        more
    }

    fn slice(&mut self) -> Result<bool, crate::service::HandlerError> {
        self.store.still_same()?;
        self.poll_free_space();
        self.note_doubt()?;
        if self.clock.now_ms().saturating_sub(self.background.housekeeping.last_round_ms)
            >= SLOW_ROUND_MS
        {
            self.background.housekeeping.last_round_ms = self.clock.now_ms();
            if !self.storage.full_disk.is_full {
                self.touch_sessions()?;
            }
            self.remove_by_age()?;
            self.limits.sends.trim(self.clock.now_ms());
            self.limits.hooks.trim(self.clock.now_ms());
            self.limits.reactions.trim(self.clock.now_ms());
            if !self.storage.full_disk.is_full {
                self.trim_ledger()?;
            }
            self.remove_stale_uploads()?;
            self.background.housekeeping.erasing.expire_soon();
            self.background.housekeeping.erasing.erase_files_soon();
            self.outbox.trim();
            self.report_damage();
        }
        self.size_page_cache()?;
        self.probe_storage()?;
        let mut more = self.background_slice()?;
        if !self.storage.full_disk.is_full {
            more |= self.push_slice()?;
        }
        self.schedule_wal_truncation();
        Ok(self.background.housekeeping.has_changes || more)
    }

    fn size_page_cache(&mut self) -> StoreResult<()> {
        let now_ms = self.clock.now_ms();
        let cache = &mut self.background.housekeeping.page_cache;
        cache.next_kib(&self.metrics, now_ms).map_or(Ok(()), |kib| self.store.set_page_cache(kib))
    }

    /// While writes fail, tries one per second, so that recovery is noticed even if nobody writes.
    fn probe_storage(&mut self) -> StoreResult<()> {
        let is_due =
            self.clock.now_ms().saturating_sub(self.background.housekeeping.probed_ms) >= PROBE_MS;
        if !self.storage.is_failing || !is_due {
            return Ok(());
        }
        self.background.housekeeping.probed_ms = self.clock.now_ms();
        self.store.try_write()
    }

    /// One slice of long-running work. True when there is more to do soon.
    fn background_slice(&mut self) -> Result<bool, crate::service::HandlerError> {
        let should_yield = self.background.indexing.should_yield(self.clock.now_ms());
        let is_due = self.background.housekeeping.erasing.is_due(self.clock.now_ms());
        if self.storage.full_disk.is_full {
            // On a full disk, checkpoint every slice before the next.
            self.background.housekeeping.wal_truncation.is_due = true;
            if self.store.is_reserve_short() {
                return Ok(false);
            }
        } else if self.background.indexing.is_wanted() && !is_due {
            return self.index_slice();
        }
        // On a full disk most requests wait for what this makes free.
        if should_yield && !self.storage.full_disk.is_full {
            // Deleted data must be gone within a minute, even on a busy server.
            return if is_due { self.erase_slice() } else { Ok(false) };
        }
        let mut more = self.erase_slice()? | self.shrink_slice()?;
        self.verify_slice()?;
        if !self.storage.full_disk.is_full {
            more |= self.index_slice()? | self.count_slice()?;
        }
        Ok(more)
    }

    /// Decides whether to empty the WAL after this turn.
    fn schedule_wal_truncation(&mut self) {
        let (now_ms, is_quiet) = (self.clock.now_ms(), !self.background.indexing.was_busy());
        let wal_truncation = &mut self.background.housekeeping.wal_truncation;
        if self.background.indexing.take_changed() {
            wal_truncation.since_ms.get_or_insert(now_ms);
            wal_truncation.last_ms = now_ms;
        }
        let may_work = now_ms >= wal_truncation.rests_until_ms;
        let is_urgent = self.store.is_checkpoint_urgent();
        wal_truncation.is_due = self.storage.full_disk.is_full || is_urgent;
        let Some(since_ms) = wal_truncation.since_ms else { return };
        let is_over = !self.background.indexing.has_pending()
            && is_quiet
            && now_ms.saturating_sub(wal_truncation.last_ms) >= TRUNCATE_QUIET_MS;
        let is_late = now_ms.saturating_sub(since_ms) >= TRUNCATE_LATE_MS;
        wal_truncation.is_due |= (is_over || is_late) && may_work;
    }

    /// After a COMMIT: on a disk that is nearly full, has the WAL checkpointed while there is space
    /// for it.
    pub(super) fn checkpoint_when_urgent(&mut self) {
        if self.storage.commits.is_multiple_of(COMMITS_PER_LOOK)
            && self.store.is_checkpoint_urgent()
        {
            self.background.housekeeping.wal_truncation.is_due = true;
        }
    }

    /// Empties the WAL if that is due. Call it while no transaction is open.
    pub(super) fn truncate_wal_when_due(&mut self) -> StoreResult<()> {
        let wal_truncation = &mut self.background.housekeeping.wal_truncation;
        // A checkpoint in progress holds the lock; the next turn tries again.
        if !wal_truncation.is_due || self.store.is_checkpointing() {
            return Ok(());
        }
        wal_truncation.is_due = false;
        if self.storage.is_failing && !self.storage.full_disk.is_full {
            return Ok(());
        }
        wal_truncation.rests_until_ms = self.clock.now_ms() + TRUNCATE_REST_MS;
        if self.store.truncate_wal()? {
            // Words removed from the index later set this again.
            self.background.housekeeping.wal_truncation.since_ms = None;
        }
        Ok(())
    }

    /// Moves changes from the database to memory, in a turn of their own. A turn that fails later
    /// must not restore them: by then it is unknown who was in a removed chat. True when there are
    /// more.
    fn take_changes(&mut self) -> StoreResult<bool> {
        let after = self.background.housekeeping.taken_upto;
        let changes = self.store.changes(after, CHANGES_PER_SLICE)?;
        let last = changes.last().map_or(after, |(id, _)| *id);
        debug_assert!(last >= after, "changes come in order");
        if last == after && !self.background.housekeeping.has_kept {
            return Ok(false);
        }
        self.background.housekeeping.has_kept = !self.forget_changes(last)?;
        self.background.housekeeping.taken_upto = last;
        let is_full = changes.len() == CHANGES_PER_SLICE as usize;
        for (id, change) in changes {
            if id <= self.background.housekeeping.before_start {
                self.background.housekeeping.acted_on += u64::from(change.is_some());
            } else {
                self.background.housekeeping.taken.extend(change);
            }
        }
        Ok(is_full)
    }

    /// Deletes changes from the database. False when it cannot be written: on a full disk, what a
    /// command has ended must end all the same.
    fn forget_changes(&mut self, last: i64) -> StoreResult<bool> {
        match self.store.forget_changes(last) {
            Ok(()) => {}
            Err(error) if self.may_wait(&error) => return Err(error),
            Err(error) => self.turn.failed = Some(error),
        }
        let is_forgotten = self.end_turn() == TurnEnd::Committed;
        self.storage.lost.clone().map_or(Ok(is_forgotten), Err)
    }

    /// Acts on the changes one by one. If the database cannot be read, the change is retried later.
    fn act_on_changes(&mut self) -> StoreResult<()> {
        while let Some(&change) = self.background.housekeeping.taken.front() {
            match self.take_up(change) {
                Err(crate::service::HandlerError::Store(error)) => return Err(error),
                _ => self.turn.failed.clone().map_or(Ok(()), Err)?,
            }
            self.background.housekeeping.taken.pop_front();
            self.background.housekeeping.acted_on += 1;
            self.end_turn();
        }
        Ok(())
    }

    fn take_up(&mut self, change: Change) -> HandlerResult {
        match change {
            Change::SessionEnded(session) => {
                let carrier = self
                    .presence
                    .roster
                    .online_users()
                    .find_map(|(user, _)| self.conn_of_session(user, session));
                if let Some(conn) = carrier {
                    self.deauth(conn);
                }
            }
            Change::SessionsEnded(user) => {
                // A session made since the change, by the new password, is in the database and
                // stays.
                let is_disabled = self.store.user(user)?.is_none_or(|user| user.disabled);
                let alive =
                    if is_disabled { Vec::new() } else { self.store.sessions(Some(user))? };
                let conns = self.presence.roster.user(user).map(|online| online.conns().to_vec());
                for index in conns.unwrap_or_default() {
                    let Some(peer) = self.presence.peers.at(index) else { continue };
                    let Some(attached) = peer.state.attached else { continue };
                    if !alive.iter().any(|row| row.session == attached.session) {
                        self.deauth(peer.conn);
                    }
                }
            }
            Change::MemberJoined(chat, user) => {
                if let Some(member) = self.store.member(chat, user)? {
                    self.enter(user, chat)?;
                    self.notify_event(chat, user, MemberEvent::Joined, None)?;
                    if member.admin {
                        self.notify_event(chat, user, MemberEvent::Admin, None)?;
                        self.notify_chat(chat, None);
                    } else {
                        self.notify_user_chat(user, chat, None);
                    }
                }
            }
            Change::MemberLeft(chat, user) => self.member_left(chat, user)?,
            Change::MemberBanned(chat, user) => self.member_banned(chat, user)?,
            Change::MadeAdmin(chat, user) => self.made_admin(chat, user)?,
            Change::UserRenamed(user) => self.user_renamed(user)?,
            Change::ChatClosed(chat) => self.notify_chat_with_extras(chat, None),
            Change::ChatChanged(chat) => {
                self.background.housekeeping.erasing.expire_soon();
                let slow_mode_s = self.store.chat(chat)?.map_or(0, |chat| chat.slow_mode_s);
                self.presence.roster.set_slow_mode(chat, slow_mode_s);
                self.limits.sends.set_slow_mode(chat, slow_mode_s, self.clock.now_ms());
                self.notify_chat(chat, None);
            }
            Change::ChatRemoved(chat) => {
                self.background.housekeeping.erasing.sweep_soon();
                self.chat_is_gone(chat, None);
            }
            Change::PolicyChanged => {
                self.storage.lockdown = self.store.lockdown()?;
                self.poll_clock_confirmation()?;
            }
        }
        Ok(())
    }

    /// Removes what is too old, unless the clock is doubted.
    fn remove_by_age(&mut self) -> HandlerResult {
        let Some(now) = self.clock.age_clock() else { return Ok(()) };
        self.end_old_sessions(now)?;
        self.remove_empty_groups(now)?;
        self.store.remove_expired_invites(now, INVITES_PER_SLICE)?;
        Ok(self.store.remove_expired_reset_codes(now)?)
    }

    /// Removes groups that have had no members for the time that they are kept.
    fn remove_empty_groups(&mut self, now: ServerTime) -> HandlerResult {
        let oldest = now.micros() - EMPTY_GROUP_DAYS * DAY_US;
        let Some(oldest) = ServerTime::new(oldest) else { return Ok(()) };
        for chat in self.store.empty_groups(oldest, EMPTY_GROUPS_PER_SLICE)? {
            self.store.remove_chat(chat)?;
            self.background.housekeeping.erasing.sweep_soon();
            self.chat_is_gone(chat, None);
        }
        Ok(())
    }

    /// Stores the last use of sessions that connections use, now and then for each. Otherwise a
    /// session used for weeks would end as unused after its connection breaks or the server
    /// restarts.
    fn touch_sessions(&mut self) -> HandlerResult {
        let now = self.clock.now();
        let count = self.presence.peers.places();
        let mut place = std::mem::take(&mut self.background.housekeeping.touched_upto);
        let (end, mut touched) = (count.min(place + TOUCHABLE_PER_SLICE), 0);
        while place < end && touched < TOUCHED_PER_SLICE {
            if let Some(peer) = self.presence.peers.at_mut(place as u32)
                && let Some(attached) = peer.state.attached
                && now.micros() - peer.state.touched.micros() > TOUCH_US
            {
                let address = peer.address().to_string();
                self.store.touch_session(attached.session, now, &address)?;
                self.turn.save(peer);
                peer.state.touched = now;
                touched += 1;
            }
            place += 1;
        }
        self.background.housekeeping.touched_upto = if place < count { place } else { 0 };
        Ok(())
    }

    /// Ends sessions that were not used for their lifetime; one that a connection carries is in
    /// use, even if the clock has leapt before that was noted.
    fn end_old_sessions(&mut self, now: ServerTime) -> HandlerResult {
        let oldest = now.micros().saturating_sub(self.config.session_lifetime_us);
        let Some(oldest) = ServerTime::new(oldest) else { return Ok(()) };
        for session in self.store.sessions_unused_since(oldest, SESSIONS_PER_SLICE)? {
            let row = self.store.session(session)?;
            let carrier = row.and_then(|row| self.conn_of_session(row.user, session));
            match carrier.and_then(|conn| self.presence.peers.get(conn)) {
                Some(peer) => {
                    let address = peer.address().to_string();
                    let now = self.clock.now();
                    self.store.touch_session(session, now, &address)?;
                }
                None => {
                    self.store.end_session(session)?;
                }
            }
        }
        Ok(())
    }
}
