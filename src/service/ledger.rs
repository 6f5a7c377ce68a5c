//! Per-user rate limits and quotas: how much each user has used (protocol section 7).
//!
//! Owns one entry per user: the day's bytes of text and groups, and the token buckets of sends and
//! of other changes. It does not know connections, so reconnecting does not reset a limit.
//!
//! The day's use survives restarts. To save a row per send, the database holds what is *reserved*:
//! more than was used, and it is updated only when the reservation is used up. A crash costs a user
//! at most the rest of one reservation; a graceful shutdown costs nothing.

use std::collections::HashMap;
use std::collections::hash_map;

use crate::ids::UserId;
use crate::limits::{
    CHANGES_BUCKET, CHANGES_PER_SECOND, GROUPS_PER_DAY_MAX, LEDGER_ENTRIES_MAX,
    TEXT_RESERVED_BYTES_MAX,
};
use crate::service::{Caller, HandlerResult, Service};
use crate::store::ledger::Used;
use crate::store::{Store, StoreResult};
use crate::wire::decline::Decline;

/// Reservations that make up a day's bytes of text: about as many rows are written per user and
/// day.
const RESERVATIONS: u64 = 256;
/// Nanoseconds in a second and in a millisecond.
const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;
/// Entries written or dropped in one slice of housekeeping.
const ENTRIES_PER_SLICE: usize = 256;
/// Milliseconds without use after which an entry leaves memory.
const IDLE_MS: u64 = 60_000;

/// What one user has used of the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LedgerEntry {
    /// Today's use.
    used: Used,
    /// The use that the database holds: at least as much.
    reserved: Used,
    /// When the bucket of sends is full again, in nanoseconds of the monotonic clock.
    sends_full_ns: u64,
    /// When the bucket of other changes is full again.
    changes_full_ns: u64,
    /// The last use, in milliseconds.
    touched_ms: u64,
    /// The number of the turn that has saved the entry for an undo.
    saved_in: u64,
}

/// The entries of all users who were active lately.
#[derive(Default)]
pub(super) struct Ledger {
    entries: HashMap<UserId, LedgerEntry>,
}

impl Ledger {
    /// A user's entry for `today`, read from the database if it is not in memory.
    fn entry(
        &mut self,
        store: &mut Store<'_>,
        user: UserId,
        today: i64,
        now_ms: u64,
    ) -> StoreResult<&mut LedgerEntry> {
        if self.entries.len() >= LEDGER_ENTRIES_MAX && !self.entries.contains_key(&user) {
            // Safe to drop: the database holds its reservation, and the next lookup reads it.
            let any = self.entries.keys().next().copied();
            any.map(|any| self.entries.remove(&any));
        }
        let entry = match self.entries.entry(user) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(place) => {
                let used = store.used(user, today)?;
                place.insert(LedgerEntry { used, reserved: used, ..LedgerEntry::default() })
            }
        };
        if entry.used.day != today {
            let fresh = Used { day: today, bytes: 0, groups: 0 };
            (entry.used, entry.reserved) = (fresh, fresh);
        }
        entry.touched_ms = now_ms;
        Ok(entry)
    }

    /// Restores an entry when its turn is undone.
    pub(super) fn take_back(&mut self, user: UserId, before: LedgerEntry) {
        self.entries.insert(user, before);
    }
}

/// A token bucket, stored as the time at which it is full again.
#[derive(Clone, Copy)]
struct Bucket {
    size: u64,
    per_second: u64,
}

impl Bucket {
    /// Nanoseconds until one token is added.
    const fn token_ns(self) -> u64 {
        SECOND_NS / self.per_second
    }

    /// Nanoseconds until a token is available.
    fn wait_ns(self, full_ns: u64, now_ns: u64) -> u64 {
        let missing_ns = full_ns.saturating_sub(now_ns);
        missing_ns.saturating_sub((self.size - 1) * self.token_ns())
    }

    /// When the bucket is full again after one more token is taken.
    fn take(self, full_ns: u64, now_ns: u64) -> u64 {
        full_ns.max(now_ns).saturating_add(self.token_ns())
    }
}

const CHANGES: Bucket = Bucket { size: CHANGES_BUCKET, per_second: CHANGES_PER_SECOND };

/// Declines with the wait in whole seconds, at least one.
fn limited(wait_ns: u64) -> Decline {
    Decline::RateLimited(wait_ns.div_ceil(SECOND_NS).max(1))
}

impl Service<'_> {
    /// Nanoseconds until a user may send or edit a text of this many bytes; 0: now. Counts nothing.
    pub(super) fn send_wait_ns(&mut self, user: UserId, bytes: usize) -> StoreResult<u64> {
        let (bytes_max, sends) = (self.config.user_bytes_per_day, self.config.sends_per_second);
        if bytes_max == 0 && sends == 0 {
            return Ok(0);
        }
        let (now_ns, day_left_ns) = (self.clock.now_ms() * MS_NS, self.day_left_ns());
        let entry = self.ledger_entry(user)?;
        let is_spent = bytes_max > 0 && entry.used.bytes.saturating_add(bytes as u64) > bytes_max;
        let day_ns = if is_spent { day_left_ns } else { 0 };
        let bucket_ns = sends_bucket(sends).map_or(0, |b| b.wait_ns(entry.sends_full_ns, now_ns));
        Ok(day_ns.max(bucket_ns))
    }

    /// Counts a send or an edit. Call it after `may_write`.
    pub(super) fn note_send(&mut self, user: UserId, bytes: usize) -> StoreResult<()> {
        let (bytes_max, sends) = (self.config.user_bytes_per_day, self.config.sends_per_second);
        if bytes_max == 0 && sends == 0 {
            return Ok(());
        }
        let now_ns = self.clock.now_ms() * MS_NS;
        let entry = self.ledger_entry_mut(user)?;
        if let Some(bucket) = sends_bucket(sends) {
            entry.sends_full_ns = bucket.take(entry.sends_full_ns, now_ns);
        }
        if bytes_max == 0 {
            return Ok(());
        }
        entry.used.bytes = entry.used.bytes.saturating_add(bytes as u64);
        if entry.used.bytes > entry.reserved.bytes {
            let more = TEXT_RESERVED_BYTES_MAX.min(bytes_max / RESERVATIONS);
            entry.reserved = Used { bytes: entry.used.bytes.saturating_add(more), ..entry.used };
            let reserved = entry.reserved;
            self.store.set_used(user, reserved)?;
        }
        Ok(())
    }

    /// Declines when the user has created as many groups today as allowed.
    pub(super) fn check_groups(&mut self, user: UserId) -> HandlerResult {
        let day_left_ns = self.day_left_ns();
        if self.ledger_entry(user)?.used.groups >= GROUPS_PER_DAY_MAX {
            return Err(limited(day_left_ns).into());
        }
        Ok(())
    }

    /// Counts a created group. Call it after `may_write`.
    pub(super) fn note_group(&mut self, user: UserId) -> StoreResult<()> {
        let entry = self.ledger_entry_mut(user)?;
        entry.used.groups += 1;
        entry.reserved = Used { bytes: entry.reserved.bytes.max(entry.used.bytes), ..entry.used };
        let reserved = entry.reserved;
        self.store.set_used(user, reserved)
    }

    /// Begins a write that is not a message: takes a token from the caller's bucket of changes.
    /// Call it after every other check, since `rate-limited` is the last of the reasons.
    pub(super) fn may_change(&mut self, caller: Caller) -> HandlerResult {
        self.may_write()?;
        self.spend_change(caller.user)
    }

    /// Takes a token from a user's bucket of changes.
    pub(super) fn spend_change(&mut self, user: UserId) -> HandlerResult {
        let now_ns = self.clock.now_ms() * MS_NS;
        let wait_ns = CHANGES.wait_ns(self.ledger_entry(user)?.changes_full_ns, now_ns);
        if wait_ns > 0 {
            return Err(limited(wait_ns).into());
        }
        let entry = self.ledger_entry_mut(user)?;
        entry.changes_full_ns = CHANGES.take(entry.changes_full_ns, now_ns);
        Ok(())
    }

    /// Declines when there is a wait.
    pub(super) fn check_wait_ns(wait_ns: u64) -> HandlerResult {
        if wait_ns > 0 { Err(limited(wait_ns).into()) } else { Ok(()) }
    }

    /// The present day of UTC by the trusted wall clock.
    fn today(&self) -> i64 {
        self.clock.day().0
    }

    fn day_left_ns(&self) -> u64 {
        self.clock.day().1 * 1_000
    }

    /// A user's entry for today.
    fn ledger_entry(&mut self, user: UserId) -> StoreResult<&mut LedgerEntry> {
        let (today, now_ms) = (self.today(), self.clock.now_ms());
        self.limits.ledger.entry(&mut self.store, user, today, now_ms)
    }

    /// The same, mutable: saves the entry first, for an undo of the turn.
    fn ledger_entry_mut(&mut self, user: UserId) -> StoreResult<&mut LedgerEntry> {
        let (today, now_ms) = (self.today(), self.clock.now_ms());
        let entry = self.limits.ledger.entry(&mut self.store, user, today, now_ms)?;
        if entry.saved_in != self.turn.number {
            self.turn.ledger.push((user, *entry));
            entry.saved_in = self.turn.number;
        }
        Ok(entry)
    }

    /// A slice of housekeeping: writes the real use of idle users, and drops their entries.
    pub(super) fn trim_ledger(&mut self) -> StoreResult<()> {
        let (today, now_ms) = (self.today(), self.clock.now_ms());
        let is_idle = |entry: &LedgerEntry| now_ms.saturating_sub(entry.touched_ms) >= IDLE_MS;
        let idle = self.limits.ledger.entries.iter().filter(|(_, entry)| is_idle(entry));
        let idle: Vec<_> = idle.map(|(user, _)| *user).take(ENTRIES_PER_SLICE).collect();
        for user in idle {
            self.settle_entry(user, today)?;
            // By now both buckets are full again, and the database has the rest.
            self.turn.ledger.retain(|(saved, _)| *saved != user);
            self.limits.ledger.entries.remove(&user);
        }
        self.store.forget_used(today, ENTRIES_PER_SLICE)
    }

    /// For a graceful shutdown: gives back what was reserved and not used.
    pub(super) fn finish_ledger(&mut self) -> StoreResult<()> {
        let today = self.today();
        let users: Vec<_> = self.limits.ledger.entries.keys().copied().collect();
        users.into_iter().try_for_each(|user| self.settle_entry(user, today))
    }

    fn settle_entry(&mut self, user: UserId, today: i64) -> StoreResult<()> {
        match self.limits.ledger.entries.get_mut(&user) {
            Some(entry) if entry.used.day == today && entry.used != entry.reserved => {
                let used = entry.used;
                self.store.set_used(user, used)?;
                if let Some(entry) = self.limits.ledger.entries.get_mut(&user) {
                    entry.reserved = used;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn sends_bucket(per_second: u32) -> Option<Bucket> {
    let per_second = u64::from(per_second);
    (per_second > 0).then_some(Bucket { size: per_second, per_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_size_and_comes_back_one_by_one() {
        let bucket = Bucket { size: 3, per_second: 2 };
        let mut full_ns = 0;
        let start_ns = 10 * SECOND_NS;
        for _ in 0..3 {
            assert_eq!(bucket.wait_ns(full_ns, start_ns), 0);
            full_ns = bucket.take(full_ns, start_ns);
        }
        assert_eq!(bucket.wait_ns(full_ns, start_ns), SECOND_NS / 2);
        assert_eq!(bucket.wait_ns(full_ns, start_ns + SECOND_NS / 2), 0);
        full_ns = bucket.take(full_ns, start_ns + SECOND_NS / 2);
        assert_eq!(bucket.wait_ns(full_ns, start_ns + SECOND_NS / 2), SECOND_NS / 2);
        assert_eq!(bucket.wait_ns(full_ns, 60 * SECOND_NS), 0);
    }
}
