//! What the server does on its own account, in small slices between requests: acting on what the
//! command line changed, ending old sessions, and emptying the WAL of what was deleted; with the
//! slices of erasing, indexing and verifying.

use std::collections::VecDeque;

use crate::ids::ServerTime;
use crate::limits::EMPTY_GROUP_DAYS;
use crate::service::erasing::Erasing;
use crate::service::session::TOUCH_US;
use crate::service::verifying::Verifying;
use crate::service::{DAY_US, HandlerResult, Service, TurnEnd};
use crate::store::changes::Change;
use crate::store::{Store, StoreError, StoreResult};
use crate::wire::answer::MemberEvent;

/// Changes taken up in one slice.
const CHANGES_PER_SLICE: u32 = 256;
/// Sessions ended in one slice.
const SESSIONS_PER_SLICE: u32 = 100;
/// Connections read in one slice for whether the use of their session is to be noted,
const TOUCHABLE_PER_SLICE: usize = 4_096;
/// and sessions whose use is noted.
const TOUCHED_PER_SLICE: usize = 200;
/// Expired invites taken away in one slice.
const INVITES_PER_SLICE: u32 = 100;
/// Groups without members taken away in one slice.
const EMPTY_GROUPS_PER_SLICE: u32 = 100;
/// The WAL is emptied that many milliseconds after the last deletion, when nobody asks for
/// anything,
const SCRUB_QUIET_MS: u64 = 2_000;
/// or so long after the first, anyone who asks,
const SCRUB_LATE_MS: u64 = 60_000;
/// and not again, nor tried again, for so long.
const SCRUB_REST_MS: u64 = 10_000;
/// Milliseconds between two tries to write to a database that could not be written.
const PROBE_MS: u64 = 1_000;
/// Milliseconds between two looks for old sessions and messages, and stale buffers.
const SLOW_ROUND_MS: u64 = 10_000;

/// What is to be done, and when it was last looked for.
pub(super) struct Housekeeping {
    data_version: i64,
    has_changes: bool,
    /// The newest change of before the start. Nobody was connected then, so nobody is notified.
    before_start: i64,
    /// Changes whose notes are gone from the file, and that are not acted on yet.
    taken: VecDeque<Change>,
    /// How many were acted on.
    pub(super) acted_on: u64,
    pub(super) erasing: Erasing,
    last_round_ms: u64,
    /// When a database that cannot be written was last tried.
    probed_ms: u64,
    /// The place among the connections up to which the use of sessions was noted.
    touched_upto: usize,
    scrubbing: Scrubbing,
    pub(super) verifying: Verifying,
    /// When it was last stored how long the clock is doubted; `None`: it is to be stored.
    pub(super) doubt_noted_ms: Option<u64>,
}

/// What was deleted, edited or indexed under words that are no more is overwritten in the file, but
/// what the WAL had of it stays there until others write over it. So the WAL is emptied, a while
/// after the last of them when nobody asks for anything, and in the end even if somebody does.
#[derive(Default)]
struct Scrubbing {
    /// Since when something that is gone may be in the WAL,
    since_ms: Option<u64>,
    /// and when last something went.
    last_ms: u64,
    /// Not before this time again.
    rests_until_ms: u64,
    is_due: bool,
}

impl Housekeeping {
    /// What was changed before the start is in the file and in no cache yet.
    pub(super) fn start(store: &mut Store<'_>) -> StoreResult<Self> {
        let data_version = store.data_version()?;
        let before_start = store.newest_change()?;
        Ok(Self {
            data_version,
            before_start,
            has_changes: true,
            taken: VecDeque::new(),
            acted_on: 0,
            erasing: Erasing::default(),
            last_round_ms: 0,
            probed_ms: 0,
            touched_upto: 0,
            scrubbing: Scrubbing::default(),
            verifying: Verifying::default(),
            doubt_noted_ms: Some(0),
        })
    }

    /// A turn was undone: what it took up stands in the file again.
    pub(super) fn start_again(&mut self) {
        self.has_changes = true;
        self.erasing.start_again();
        self.doubt_noted_ms = None;
    }
}

impl Service<'_> {
    /// Acts on what the command line has changed, before the turn's requests: a client that has
    /// seen a command succeed sees what it did. Each change is a turn of its own.
    pub fn take_up_changes(&mut self) {
        if let Err(error) = self.try_take_up_changes() {
            self.turn.failed = Some(error.clone());
            self.end_turn();
            // Nothing is answered from what is not so any more.
            self.turn.failed = Some(error);
        }
    }

    fn try_take_up_changes(&mut self) -> StoreResult<()> {
        let version = self.store.data_version()?;
        if version != self.background.housekeeping.data_version {
            self.background.housekeeping.data_version = version;
            self.background.housekeeping.has_changes = true;
            self.background.housekeeping.erasing.purge_soon();
            // A command may have taken messages away, or their words out of the index.
            self.background.indexing.note_change();
        }
        if self.background.housekeeping.has_changes && !self.waits_for_lock() {
            match self.take_changes() {
                Ok(has_more) => self.background.housekeeping.has_changes = has_more,
                // They are still there when the other process is done.
                Err(error) if self.may_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.act_on_changes()
    }

    /// One slice of the work that nobody waits for, as a turn of its own: if it cannot be stored,
    /// no request is declined for it. To be called a few times a second. True when there is more to
    /// do soon.
    pub fn housekeeping(&mut self) -> bool {
        self.housekeeping_timed(|| 0)
    }

    /// [`Service::housekeeping`], with a clock in microseconds by which slices are measured.
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
        // The work of a slice that failed stands in the database, and comes again.
        let (more, outcome) = match more {
            Ok(more) => (more, Ok(())),
            Err(crate::service::HandlerError::Store(error)) => (false, Err(error)),
            Err(_) => (false, Ok(())),
        };
        self.note_failure(outcome);
        let worked_us = now_us();
        if self.end_turn() == TurnEnd::Committed
            && let Err(error) = self.scrub()
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
        self.probe_storage()?;
        let mut more = self.background_slice()?;
        if !self.storage.full_disk.is_full {
            more |= self.push_slice()?;
        }
        self.look_at_wal();
        Ok(self.background.housekeeping.has_changes || more)
    }

    /// While the database cannot be written, tries it once a second, so that it is noticed when it
    /// can be though nobody writes.
    fn probe_storage(&mut self) -> StoreResult<()> {
        let is_due =
            self.clock.now_ms().saturating_sub(self.background.housekeeping.probed_ms) >= PROBE_MS;
        if !self.storage.is_failing || !is_due {
            return Ok(());
        }
        self.background.housekeeping.probed_ms = self.clock.now_ms();
        self.store.try_write()
    }

    /// One slice of the work that takes long. True when there is more to do soon.
    fn background_slice(&mut self) -> Result<bool, crate::service::HandlerError> {
        let should_yield = self.background.indexing.should_yield(self.clock.now_ms());
        let is_due = self.background.housekeeping.erasing.is_due(self.clock.now_ms());
        if self.storage.full_disk.is_full {
            // Each slice of what frees space is checkpointed before the next.
            self.background.housekeeping.scrubbing.is_due = true;
        } else if self.background.indexing.is_wanted() && !is_due {
            return self.index_slice();
        }
        if should_yield {
            // What was deleted has to be gone within a minute, anyone who asks for what.
            return if is_due { self.erase_slice() } else { Ok(false) };
        }
        let mut more = self.erase_slice()? | self.shrink_slice()?;
        self.verify_slice()?;
        if !self.storage.full_disk.is_full {
            more |= self.index_slice()? | self.count_slice()?;
        }
        Ok(more)
    }

    /// Looks whether the WAL is to be emptied after this turn.
    fn look_at_wal(&mut self) {
        let (now_ms, is_quiet) = (self.clock.now_ms(), !self.background.indexing.was_busy());
        let scrubbing = &mut self.background.housekeeping.scrubbing;
        if self.background.indexing.take_changed() {
            scrubbing.since_ms.get_or_insert(now_ms);
            scrubbing.last_ms = now_ms;
        }
        let Some(since_ms) = scrubbing.since_ms else { return };
        let is_over = !self.background.indexing.has_pending()
            && is_quiet
            && now_ms.saturating_sub(scrubbing.last_ms) >= SCRUB_QUIET_MS;
        let is_late = now_ms.saturating_sub(since_ms) >= SCRUB_LATE_MS;
        let may_work = now_ms >= scrubbing.rests_until_ms;
        scrubbing.is_due = self.storage.full_disk.is_full || (is_over || is_late) && may_work;
    }

    /// Empties the WAL when that is due. To be called while no transaction is open.
    pub(super) fn scrub(&mut self) -> StoreResult<()> {
        let scrubbing = &mut self.background.housekeeping.scrubbing;
        // While a checkpoint is under way it would be in vain; the next turn looks again.
        if !scrubbing.is_due || self.store.is_copying() {
            return Ok(());
        }
        scrubbing.is_due = false;
        if self.storage.is_failing && !self.storage.full_disk.is_full {
            return Ok(());
        }
        scrubbing.rests_until_ms = self.clock.now_ms() + SCRUB_REST_MS;
        if self.store.empty_wal()? {
            // Words that leave the index later are noted anew as they do.
            self.background.housekeeping.scrubbing.since_ms = None;
        }
        Ok(())
    }

    /// Removes the notes of changes from the database, in a turn of their own: they are for those
    /// who are connected, and a turn that fails later must not bring them back, for by then it is
    /// not known any more who was in a chat that is gone. True when there are more.
    fn take_changes(&mut self) -> StoreResult<bool> {
        let changes = self.store.changes(CHANGES_PER_SLICE)?;
        let Some(&(last, _)) = changes.last() else { return Ok(false) };
        self.store.forget_changes(last)?;
        if self.end_turn() == TurnEnd::Declined {
            return Err(StoreError::unavailable("changes of the command line are not taken up"));
        }
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

    /// Acts on them one by one. One for which the database cannot be read now comes again.
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
                // One made since the change, by the new password, is in the file and stays.
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

    /// Takes away what is too old, unless nobody can say what is.
    fn remove_by_age(&mut self) -> HandlerResult {
        let Some(now) = self.clock.age_clock() else { return Ok(()) };
        self.end_old_sessions(now)?;
        self.remove_empty_groups(now)?;
        self.store.remove_expired_invites(now, INVITES_PER_SLICE)?;
        Ok(self.store.remove_expired_reset_codes(now)?)
    }

    /// Takes away groups that have had no members for as long as they are kept.
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

    /// Notes, once in a while for each, that the sessions that connections carry are in use: one
    /// that was carried for weeks is not to end as unused when its connection breaks, or the server
    /// starts anew.
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
