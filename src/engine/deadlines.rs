//! Deadlines of connections: a heap with one live entry each.
//!
//! Activity on a connection does not touch the heap: its entry fires at the old deadline, finds the
//! new one, and is pushed again. So a busy connection costs one heap operation per timeout, not per
//! frame, and an idle one costs nothing per turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ids::ConnId;

/// Stale entries tolerated: fewer are not worth a scan.
const STALE_MAX: usize = 1024;

/// Never.
pub const NEVER_MS: u64 = u64::MAX;

/// All deadlines, in milliseconds of the loop's clock.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, ConnId)>>,
}

impl Deadlines {
    /// Adds a deadline. The connection stores it too; an entry that differs from the stored one is
    /// stale.
    pub(super) fn push(&mut self, at_ms: u64, conn: ConnId) {
        debug_assert_ne!(at_ms, NEVER_MS, "{conn} waits for a deadline that never comes");
        self.heap.push(Reverse((at_ms, conn)));
    }

    /// Removes stale entries when there may be more of them than of live ones, of which there are
    /// at most `live`. Short-lived connections leave one stale entry each.
    pub(super) fn trim(&mut self, live: usize, is_live: impl Fn(u64, ConnId) -> bool) {
        if self.heap.len() > 2 * live + STALE_MAX {
            self.heap.retain(|&Reverse((at_ms, conn))| is_live(at_ms, conn));
            self.heap.shrink_to(2 * live + STALE_MAX);
            // An entry may be pushed again at the time of a stale one.
            debug_assert!(self.heap.len() <= 2 * live, "a live entry for each connection");
        }
    }

    /// Takes the next deadline that has passed.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<(u64, ConnId)> {
        let &Reverse((at_ms, _)) = self.heap.peek()?;
        if at_ms > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the next deadline passes, in milliseconds.
    pub(super) fn next_ms(&self) -> u64 {
        self.heap.peek().map_or(NEVER_MS, |&Reverse((at_ms, _))| at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let mut deadlines = Deadlines::default();
        for number in 0..100_000 {
            deadlines.push(number, conn(number as u32));
            deadlines.trim(10, |at_ms, conn| at_ms % 10_000 == 0 && conn.index == at_ms as u32);
            assert!(deadlines.heap.len() <= 20 + STALE_MAX + 1);
        }
        assert!(deadlines.heap.capacity() < 4 * STALE_MAX);
        for number in 0..10 {
            let mut live = std::iter::from_fn(|| deadlines.pop_due(100_000));
            let found = live.find(|(at_ms, _)| at_ms % 10_000 == 0);
            assert_eq!(found, Some((number * 10_000, conn(number as u32 * 10_000))));
        }
    }
}
