//! Checks of what must hold between the queues of all connections. Release builds skip them.

use super::queue::NONE;
use super::{BROADCAST_HEAD_BYTES, Outbox};
use crate::wire::frame::{self, Parsed};

/// Queues up to which all of them are checked: a check visits each.
const CHECKED_QUEUES_MAX: usize = 32;

impl Outbox {
    /// Checks that the sums agree with the queues, and that nothing staged is forgotten.
    pub(super) fn check_sums(&self) {
        if !cfg!(debug_assertions) || self.queues.len() > CHECKED_QUEUES_MAX {
            return;
        }
        let (mut pending_bytes, mut sliced_queues) = (0, 0);
        for (index, queue) in self.queues.iter().enumerate() {
            queue.check_invariants();
            let is_staged = queue.released() < queue.bytes.len();
            debug_assert!(!is_staged || queue.is_dirty, "{index} is staged and never released");
            debug_assert_eq!(self.count_slice_bytes(queue.first_slice), queue.slice_bytes());
            pending_bytes += queue.pending_bytes();
            sliced_queues += usize::from(queue.first_slice != NONE);
        }
        debug_assert_eq!(self.buffered_bytes, pending_bytes, "the sum of all queues");
        debug_assert_eq!(self.sliced_queues, sliced_queues, "the queues with slices");
        let is_listed = |&index: &u32| self.queues.get(index as usize).is_some_and(|q| q.is_dirty);
        let listed = self.dirty.get(self.taken..).unwrap_or_default();
        debug_assert!(listed.iter().all(is_listed), "a listed queue is marked");
        let marked = self.queues.iter().filter(|queue| queue.is_dirty).count();
        debug_assert_eq!(listed.len(), marked, "a marked queue is listed once");
    }

    /// Bytes of the slices from one on, heads included.
    fn count_slice_bytes(&self, first: u32) -> usize {
        let (mut next, mut bytes) = (first, 0);
        while let Some(slice) = self.slices.get(next as usize) {
            debug_assert!(
                slice.range.end <= self.broadcast.len(),
                "a slice outlives its broadcast"
            );
            debug_assert!(slice.next > next, "the slices of a queue do not form a circle");
            bytes += BROADCAST_HEAD_BYTES + slice.range.len();
            next = slice.next;
        }
        debug_assert_eq!(next, NONE, "the last slice is marked");
        bytes
    }
}

/// How many frames there are; `None`: the last is incomplete.
pub(super) fn frame_count(mut frames: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !frames.is_empty() {
        let Parsed::Frame(frame) = frame::parse(frames, u32::MAX as usize) else { return None };
        frames = frames.get(frame.bytes()..)?;
        count += 1;
    }
    Some(count)
}
