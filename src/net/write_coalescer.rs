//! When many are told, waiting a moment for more to tell them.
//!
//! A write costs about the same for one message as for ten. So while requests follow each other
//! without a pause, those who asked are answered at once, and those who are only told something
//! are held back for a turn or two: their messages of several turns leave in one write each. The
//! wait is bounded by what the writes themselves would have taken, so that at worst the last of
//! many is told twice as late as it would have been; and where requests come singly, nobody waits.

/// Connections from which on it is worth it.
const CONNECTIONS_MIN: usize = 32;
/// A connection for which more bytes than this wait is not held back: the bytes cost more than
/// the write.
const PENDING_BYTES_MAX: usize = 32 * 1024;
/// Nobody is held back while the block, which stays for them, is larger than this.
const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// About what one write takes.
const WRITE_US: u64 = 6;
/// Longest time for which anybody is held back.
const HOLD_US_MAX: u64 = 2_000;
/// Longest time spent on looking for the next request.
const LOOK_US_MAX: u64 = 100;

/// The connections that are held back.
#[derive(Debug, Default)]
pub(super) struct WriteCoalescer {
    held: Vec<u32>,
    since_us: u64,
    /// The turn's events were there when the last turn ended.
    pub(super) is_back_to_back: bool,
}

impl WriteCoalescer {
    /// Whether this turn may hold back any of so many connections, with so much to be told.
    pub(super) fn may_hold(&self, connections: usize, block_bytes: usize, now_us: u64) -> bool {
        self.is_back_to_back
            && block_bytes <= BLOCK_BYTES_MAX
            && connections >= CONNECTIONS_MIN
            && (self.held.is_empty() || now_us < self.since_us + self.hold_us())
    }

    /// Holds a connection back, unless too much waits for it.
    pub(super) fn hold(&mut self, index: u32, pending_bytes: usize, now_us: u64) -> bool {
        if pending_bytes > PENDING_BYTES_MAX {
            return false;
        }
        if self.held.is_empty() {
            self.since_us = now_us;
        }
        self.held.push(index);
        true
    }

    /// Whether anybody is held back.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The connections that were held back, each once; give the list back by [`WriteCoalescer::keep`].
    pub(super) fn release(&mut self) -> Vec<u32> {
        let mut held = std::mem::take(&mut self.held);
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Keeps the room of a list that was released.
    pub(super) fn keep(&mut self, mut list: Vec<u32>) {
        list.clear();
        if self.held.is_empty() {
            self.held = list;
        }
    }

    /// How long to look for the next request while somebody is held back.
    pub(super) fn look_us(&self) -> u64 {
        (self.held.len() as u64 / 2).min(LOOK_US_MAX)
    }

    fn hold_us(&self) -> u64 {
        (self.held.len() as u64 * WRITE_US).min(HOLD_US_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_held_for_no_longer_than_their_writes_would_take() {
        let mut write_coalescer =
            WriteCoalescer { is_back_to_back: true, ..WriteCoalescer::default() };
        assert!(!write_coalescer.may_hold(CONNECTIONS_MIN - 1, 0, 0));
        assert!(!write_coalescer.may_hold(100, BLOCK_BYTES_MAX + 1, 0));
        assert!(write_coalescer.may_hold(100, 0, 0));
        for index in 0..100 {
            assert!(write_coalescer.hold(index, 500, 1000));
        }
        assert!(!write_coalescer.hold(100, PENDING_BYTES_MAX + 1, 1000));
        assert!(write_coalescer.may_hold(100, 0, 1000 + 100 * WRITE_US - 1));
        assert!(!write_coalescer.may_hold(100, 0, 1000 + 100 * WRITE_US));
        assert!(write_coalescer.hold(7, 500, 1500));
        assert_eq!(write_coalescer.release(), (0..100).collect::<Vec<_>>());
        assert!(!write_coalescer.is_holding());
    }

    #[test]
    fn nobody_is_held_where_requests_come_singly() {
        let write_coalescer = WriteCoalescer::default();
        assert!(!write_coalescer.may_hold(1000, 0, 0));
    }
}
