//! Write coalescing: delays fan-out writes briefly so that several turns share one syscall.
//!
//! A write costs about the same for one message as for ten. So while requests follow each other
//! without a pause, connections that are waiting for an answer are written to at once, but those
//! that are only notified wait a turn or two: one write then carries their messages of several
//! turns. The delay is bounded by the time that the writes themselves take, so the last of many is
//! notified at most twice as late. Where requests come one at a time, nothing is delayed.

/// Bytes queued for a connection above which it is not held back: copying them costs more than the
/// write.
const PENDING_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the broadcast buffer above which nothing is held back, since the buffer is kept until
/// then.
const BROADCAST_BYTES_MAX: usize = 256 * 1024;
/// Estimated microseconds per write.
const WRITE_US: u64 = 6;
/// Longest delay of a write, in microseconds.
const HOLD_US_MAX: u64 = 2_000;
/// Longest busy-polling for the next request, in microseconds.
const SPIN_US_MAX: u64 = 100;

/// The connections whose writes are delayed.
#[derive(Debug)]
pub(super) struct WriteCoalescer {
    /// Minimum fan-out at which coalescing pays off.
    connections_min: usize,
    held: Vec<u32>,
    since_us: u64,
    /// This turn's events had arrived before the last turn ended.
    pub(super) is_back_to_back: bool,
}

impl WriteCoalescer {
    pub(super) fn new(connections_min: usize) -> Self {
        Self { connections_min, held: Vec::new(), since_us: 0, is_back_to_back: false }
    }

    /// Whether this turn may delay writes, given its fan-out and the bytes in the broadcast buffer.
    pub(super) fn may_hold(&self, connections: usize, broadcast_bytes: usize, now_us: u64) -> bool {
        self.is_back_to_back
            && broadcast_bytes <= BROADCAST_BYTES_MAX
            && connections >= self.connections_min
            && (self.held.is_empty() || now_us < self.since_us + self.hold_us())
    }

    /// Delays the write to a connection. False when too much is queued for it.
    pub(super) fn hold(&mut self, index: u32, pending_bytes: usize, now_us: u64) -> bool {
        if pending_bytes > PENDING_BYTES_MAX {
            return false;
        }
        if self.held.is_empty() {
            self.since_us = now_us;
        }
        debug_assert!(now_us >= self.since_us, "time goes back");
        debug_assert!(self.is_back_to_back, "only busy turns delay writes");
        self.held.push(index);
        true
    }

    /// Takes the connections whose writes were delayed, each once. Return the list by
    /// [`WriteCoalescer::keep`] to reuse its capacity.
    pub(super) fn release(&mut self) -> Vec<u32> {
        let mut held = std::mem::take(&mut self.held);
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Reuses the capacity of a released list.
    pub(super) fn keep(&mut self, mut list: Vec<u32>) {
        debug_assert!(self.held.is_empty(), "a write was delayed while delayed ones were made");
        list.clear();
        if self.held.is_empty() {
            self.held = list;
        }
    }

    /// Whether a write is delayed.
    pub(super) const fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Microseconds to busy-poll for the next request while writes are delayed.
    pub(super) fn spin_us(&self) -> u64 {
        (self.held.len() as u64 / 2).min(SPIN_US_MAX)
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
        assert!(!write_coalescer.may_hold(100, BROADCAST_BYTES_MAX + 1, 0));
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
