//! Write coalescing: delays fan-out writes briefly so that several turns share one syscall.
//!
//! A write costs about the same for one message as for ten. So while requests follow each other
//! without a pause, connections that asked for something are answered at once, and those that are
//! only notified are held back for a turn or two: their messages of several turns leave in one
//! write each. The wait is bounded by what the writes themselves would have taken, so that at worst
//! the last of many is notified twice as late as it would have been; and where requests come
//! singly, nobody waits.

/// A connection for which more bytes than this wait is not held back: the bytes cost more than
/// the write.
const PENDING_BYTES_MAX: usize = 32 * 1024;
/// Nobody is held back while the broadcast buffer, which stays for them, is larger than this.
const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// About what one write takes.
const WRITE_US: u64 = 6;
/// Longest time for which anybody is held back.
const HOLD_US_MAX: u64 = 2_000;
/// Longest time spent on looking for the next request.
const LOOK_US_MAX: u64 = 100;

/// The connections that are held back.
#[derive(Debug)]
pub(super) struct WriteCoalescer {
    /// Minimum fan-out at which coalescing pays off.
    connections_min: usize,
    held: Vec<u32>,
    since_us: u64,
    /// The turn's events were there when the last turn ended.
    pub(super) is_back_to_back: bool,
}

impl WriteCoalescer {
    pub(super) fn new(connections_min: usize) -> Self {
        Self { connections_min, held: Vec::new(), since_us: 0, is_back_to_back: false }
    }

    /// Whether this turn may hold back any of `connections`, with this much in the broadcast
    /// buffer.
    pub(super) fn may_hold(&self, connections: usize, block_bytes: usize, now_us: u64) -> bool {
        self.is_back_to_back
            && block_bytes <= BLOCK_BYTES_MAX
            && connections >= self.connections_min
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

    /// The connections that were held back, each once; give the list back by
    /// [`WriteCoalescer::keep`].
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

    const CONNECTIONS_MIN: usize = 32;

    #[test]
    fn many_are_held_for_no_longer_than_their_writes_would_take() {
        let mut write_coalescer =
            WriteCoalescer { is_back_to_back: true, ..WriteCoalescer::new(CONNECTIONS_MIN) };
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
    }

    #[test]
    fn nobody_is_held_where_requests_come_singly() {
        let write_coalescer = WriteCoalescer::new(CONNECTIONS_MIN);
        assert!(!write_coalescer.may_hold(1000, 0, 0));
    }
}
