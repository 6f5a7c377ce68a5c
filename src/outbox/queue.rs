//! The queue of one connection, and whether it has its closing frames.

use super::BROADCAST_HEAD_BYTES;

/// Index of no slice.
pub(super) const NONE: u32 = u32::MAX;

/// Whether a queue has its closing frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closing {
    /// It has none: more may be staged.
    Open,
    /// They are staged in this turn, which may be undone.
    Staged,
    /// They are released. Nothing more is staged until the connection is gone.
    Released,
}

/// The queue of one connection. Every connection has one, so keep it small: `u32` suffices, since
/// the queue is bounded far below 4 GiB (`outbound-limit`).
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: u32,
    pub(super) released: u32,
    /// Bytes staged as slices, heads included.
    pub(super) slice_bytes: u32,
    pub(super) first_slice: u32,
    pub(super) last_slice: u32,
    pub(super) is_dirty: bool,
    /// It got more than slices since it was last taken: an answer, for example.
    pub(super) has_own: bool,
    pub(super) closing: Closing,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            released: 0,
            slice_bytes: 0,
            first_slice: NONE,
            last_slice: NONE,
            is_dirty: false,
            has_own: false,
            closing: Closing::Open,
        }
    }
}

impl Queue {
    /// Number of bytes sent.
    pub(super) const fn sent(&self) -> usize {
        self.sent as usize
    }

    /// Number of bytes released, sent ones included.
    pub(super) const fn released(&self) -> usize {
        self.released as usize
    }

    pub(super) fn release(&mut self) {
        debug_assert!(self.bytes.len() <= u32::MAX as usize, "a queue is bounded");
        self.released = self.bytes.len() as u32;
        if self.closing == Closing::Staged {
            self.closing = Closing::Released;
        }
    }

    /// Bytes staged as slices, heads included.
    pub(super) const fn slice_bytes(&self) -> usize {
        self.slice_bytes as usize
    }

    /// Bytes not sent yet, staged ones included.
    pub(super) const fn pending_bytes(&self) -> usize {
        debug_assert!(self.sent() <= self.bytes.len(), "sent bytes are among the queue's");
        self.bytes.len() - self.sent() + self.slice_bytes()
    }

    pub(super) fn check_invariants(&self) {
        debug_assert!(self.sent <= self.released && self.released() <= self.bytes.len());
        debug_assert_eq!(self.first_slice == NONE, self.last_slice == NONE);
        debug_assert!(self.first_slice != NONE || self.slice_bytes == 0, "bytes of no slice");
        debug_assert!(self.first_slice == NONE || self.slice_bytes() >= BROADCAST_HEAD_BYTES);
        debug_assert!(self.first_slice <= self.last_slice, "slices are in the order of staging");
    }

    /// Closing frames are staged: nothing more is staged after them.
    pub(super) const fn close(&mut self) {
        if matches!(self.closing, Closing::Open) {
            self.closing = Closing::Staged;
        }
    }

    /// The turn is undone, and a closing that it staged with it.
    pub(super) const fn discard_closing(&mut self) {
        if matches!(self.closing, Closing::Staged) {
            self.closing = Closing::Open;
        }
    }
}
