//! Deadlines of connections: a heap with one live entry each.
//!
//! A connection that is heard from does not touch the heap: its entry fires at the old deadline,
//! finds the new one, and goes back in. So a busy connection costs a heap operation per time-out,
//! not per frame, and an idle one costs nothing per turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ids::ConnId;

/// Never.
pub(super) const NEVER_MS: u64 = u64::MAX;

/// All deadlines, in milliseconds of the loop's clock.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, ConnId)>>,
}

impl Timers {
    /// Adds a deadline. The connection remembers it: an entry that it does not remember is stale.
    pub(super) fn push(&mut self, at_ms: u64, conn: ConnId) {
        self.heap.push(Reverse((at_ms, conn)));
    }

    /// The next deadline that has passed.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<(u64, ConnId)> {
        let &Reverse((at_ms, _)) = self.heap.peek()?;
        if at_ms > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the next deadline passes.
    pub(super) fn next_ms(&self) -> u64 {
        self.heap.peek().map_or(NEVER_MS, |&Reverse((at_ms, _))| at_ms)
    }
}
