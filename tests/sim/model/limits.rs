//! The model of the limits on users: bytes of text per day, groups per day, and the bucket of
//! changes.

use super::{Caller, Model, Turn};

/// Tokens in the bucket of changes, and nanoseconds until one comes back.
const CHANGES: u64 = 200;
const CHANGE_NS: u64 = 1_000_000_000 / 20;
/// Groups per user and day.
const GROUPS: u32 = 100;
const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// What a user has used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    day: i64,
    bytes: u64,
    groups: u32,
    /// The server crashed on that day, so it may count more than was used.
    is_unsure: bool,
    /// When the bucket of changes is full again, in nanoseconds of the monotonic clock.
    full_ns: u64,
}

impl Used {
    /// The server has ended, perhaps by a crash: the bucket is full.
    pub(super) fn restart(&mut self) {
        self.full_ns = 0;
        self.is_unsure = true;
    }

    fn of_day(&mut self, day: i64) -> &mut Self {
        if self.day != day {
            // The server may still have the use of an earlier day to which the clock returns.
            let is_unsure = day < self.day;
            *self = Self { day, full_ns: self.full_ns, is_unsure, ..Self::default() };
        }
        self
    }
}

impl Model {
    /// Whether the next answer declines a text for the daily limit, and may do so.
    pub(super) fn is_text_spent(&mut self, turn: &Turn<'_>, me: Caller, bytes: usize) -> bool {
        let limit = self.rules.user_bytes_per_day;
        let next = turn.staged.get(&me.conn).and_then(|staged| staged.front());
        let was_limited = next.is_some_and(|next| next.body.starts_with(b"rate-limited:"));
        let used = self.used.entry(me.user).or_default();
        let is_over = used.bytes + bytes as u64 > limit || used.is_unsure;
        limit > 0 && was_limited && is_over
    }

    /// Counts a text that was accepted. An error if it exceeds the limit.
    pub(super) fn note_text(&mut self, me: Caller, at: i64, bytes: usize) -> Result<(), String> {
        let limit = self.rules.user_bytes_per_day;
        let used = self.used.entry(me.user).or_default().of_day(at / DAY_US);
        used.bytes += bytes as u64;
        if limit > 0 && used.bytes > limit {
            return Err(format!("user {} has sent {} of {limit} bytes", me.user, used.bytes));
        }
        Ok(())
    }

    /// Whether the next answer declines a group for the daily limit, and may do so.
    pub(super) fn are_groups_spent(&self, turn: &Turn<'_>, me: Caller) -> bool {
        let next = turn.staged.get(&me.conn).and_then(|staged| staged.front());
        let was_limited = next.is_some_and(|next| next.body.starts_with(b"rate-limited:"));
        was_limited && self.used.get(&me.user).is_some_and(|used| used.groups >= GROUPS)
    }

    /// Counts a group.
    pub(super) fn note_group(&mut self, me: Caller, at: i64) {
        self.used.entry(me.user).or_default().of_day(at / DAY_US).groups += 1;
    }

    /// The reason why an otherwise valid change is declined; counts it if there is none.
    pub(super) fn cannot_change(&mut self, me: Caller) -> Option<&'static str> {
        if self.take_change(me) {
            return None;
        }
        self.note("changes limited");
        Some("rate-limited")
    }

    /// Takes a token from the bucket of changes. False when it is empty.
    pub(super) fn take_change(&mut self, me: Caller) -> bool {
        let now_ns = self.now_ms * 1_000_000;
        let used = self.used.entry(me.user).or_default();
        if used.full_ns.saturating_sub(now_ns) > (CHANGES - 1) * CHANGE_NS {
            return false;
        }
        used.full_ns = used.full_ns.max(now_ns) + CHANGE_NS;
        true
    }
}
