//! The outbox: a bounded queue of outbound bytes per connection, staged until the turn's COMMIT,
//! and the broadcast buffer that the fan-out of a turn shares.
//!
//! The bound is the server's backpressure: above it, a slow consumer's notifications go to its
//! backlog, and its requests are not read.
//!
//! Only released bytes can be sent, and only [`Service::end_turn`] calls [`Outbox::release`].
//! Invariant 6 is kept here: an empty queue gives its buffer back.
//!
//! ```text
//!   0          sent            released            end
//!   | gone     | may be sent   | staged this turn  |
//! ```
//!
//! A notification to many is encoded once, in the broadcast buffer, and each queue stages a slice
//! of it. A slice is copied into its queue only right before the queue is sent. So a fan-out to a
//! thousand connections goes through one buffer that stays in the CPU cache, not through a
//! thousand. A queue may wait for several turns; the broadcast buffer is kept as long as any queue
//! has slices.
//!
//! Large slices for many connections are not even copied then: see [`parts`].
//!
//! Frames are counted when they are staged, and added to the metrics when they are released: frames
//! of an undone turn do not count.
//!
//! It knows neither sockets nor sessions.
//!
//! [`Service::end_turn`]: crate::service::Service::end_turn

mod invariants;
pub mod parts;
mod queue;
mod staged;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::limits::HEADER_BYTES;
use crate::metrics::Metrics;
use crate::wire::answer;
use crate::wire::decline::Decline;
use crate::wire::frame;
use crate::wire::purpose::ToClient;

use queue::{Closing, NONE, Queue};
use staged::StagedFrames;

/// Sent bytes at the front of a queue are removed when they reach this size and half of the queue.
const COMPACT_BYTES: usize = 64 * 1024;

/// A larger spare buffer is freed, apart from one.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Above this size, even the one large spare buffer is freed.
const SCRATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of a frame that precede a slice of the broadcast buffer: the header and the chat.
pub const BROADCAST_HEAD_BYTES: usize = HEADER_BYTES + 4;

/// A connection with new bytes to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dirty {
    /// Its index.
    pub index: u32,
    /// All of them are slices of broadcasts: it waits for no answer.
    pub is_notified_only: bool,
}

/// A slice of the broadcast buffer in one queue.
struct BroadcastSlice {
    /// Position in the queue's own bytes.
    at: usize,
    head: [u8; BROADCAST_HEAD_BYTES],
    range: Range<usize>,
    /// The queue's next slice.
    next: u32,
}

/// The queues of all connections, by connection index.
#[derive(Default)]
pub struct Outbox {
    queues: Vec<Queue>,
    /// Queues with bytes staged or released in this turn, each once, by their first bytes. So the
    /// connection that sent a request is written to before those that are notified.
    dirty: Vec<u32>,
    /// How many of `dirty` were taken.
    taken: usize,
    /// The broadcast buffer. Its capacity is reused.
    broadcast: Vec<u8>,
    /// Bytes of it that are older than this turn.
    broadcast_kept: usize,
    /// The slices of all queues.
    slices: Vec<BroadcastSlice>,
    /// How many of them are released.
    slices_released: usize,
    /// Number of queues with slices.
    sliced_queues: usize,
    staged: StagedFrames,
    /// The one large spare buffer, in which queues are flattened.
    scratch: Vec<u8>,
    /// Scratch buffer for the bytes between two slices in [`Outbox::send_parts`].
    gap: Vec<u8>,
    /// Empty buffers for reuse; the top one was used last and is most likely in the CPU cache.
    spares: Vec<Vec<u8>>,
    /// Fewest spares since the last trim: these were not needed.
    spares_idle: usize,
    buffered_bytes: usize,
}

impl Outbox {
    /// Begins a turn. The broadcast buffer is cleared, unless a queue still has slices of it.
    pub fn begin_turn(&mut self) {
        if self.sliced_queues == 0 {
            self.broadcast.clear();
            self.slices.clear();
            self.slices_released = 0;
        }
        debug_assert_eq!(self.slices.len(), self.slices_released);
        self.broadcast_kept = self.broadcast.len();
        self.check_sums();
    }

    /// The broadcast buffer.
    pub fn broadcast(&self) -> &[u8] {
        &self.broadcast
    }

    /// The broadcast buffer, to append to.
    pub const fn broadcast_mut(&mut self) -> &mut Vec<u8> {
        &mut self.broadcast
    }

    /// Stages a frame: its head, and a slice of the broadcast buffer as the rest.
    pub fn stage_broadcast(
        &mut self,
        index: u32,
        purpose: ToClient,
        head: [u8; BROADCAST_HEAD_BYTES],
        range: Range<usize>,
    ) {
        debug_assert!(range.end <= self.broadcast.len(), "{range:?} is not in the buffer");
        debug_assert!(range.start <= range.end && self.slices.len() < NONE as usize);
        let number = self.slices.len() as u32;
        if self.is_closed(index) {
            return;
        }
        let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) else { return };
        let bytes = BROADCAST_HEAD_BYTES + range.len();
        self.staged.note(purpose, 1);
        queue.slice_bytes += bytes as u32;
        self.buffered_bytes += bytes;
        let last = std::mem::replace(&mut queue.last_slice, number);
        if queue.first_slice == NONE {
            queue.first_slice = number;
            self.sliced_queues += 1;
        }
        queue.check_invariants();
        let at = queue.bytes.len();
        if let Some(last) = self.slices.get_mut(last as usize) {
            debug_assert!(last.next == NONE, "the last slice has no next one");
            debug_assert!(last.at <= at, "slices are in the order of the queue's bytes");
            last.next = number;
        }
        self.slices.push(BroadcastSlice { at, head, range, next: NONE });
    }

    /// The queue of a connection, marked dirty.
    fn queue<'a>(
        queues: &'a mut Vec<Queue>,
        dirty: &mut Vec<u32>,
        index: u32,
    ) -> Option<&'a mut Queue> {
        let at = index as usize;
        if at >= queues.len() {
            queues.resize_with(at + 1, Queue::default);
        }
        let queue = queues.get_mut(at)?;
        if !queue.is_dirty {
            queue.is_dirty = true;
            dirty.push(index);
        }
        Some(queue)
    }

    /// Stages a frame; `write` appends its body.
    pub fn stage_frame(
        &mut self,
        index: u32,
        purpose: ToClient,
        task: u8,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.stage(index, |out| frame::write(out, purpose.byte(), task, write)) {
            self.staged.note(purpose, 1);
        }
    }

    /// Stages a frame without a request: HEARTBEAT, DISCONNECT or DEAUTH (task 0, no body).
    pub fn stage_bare(&mut self, index: u32, purpose: ToClient) {
        debug_assert!(
            matches!(purpose, ToClient::Heartbeat | ToClient::Disconnect | ToClient::Deauth),
            "{purpose:?} has a body or answers a request"
        );
        self.stage_frame(index, purpose, 0, |_| {});
    }

    /// Stages DECLINED with a reason.
    pub fn decline(&mut self, index: u32, task: u8, reason: Decline) {
        if self.stage(index, |out| answer::declined(out, task, reason)) {
            self.staged.note(ToClient::Declined, 1);
            self.staged.note_reason(reason);
        }
    }

    /// Stages a number of PART frames, followed by the ACCEPTED if the answer is complete.
    pub fn stage_answer(&mut self, index: u32, frames: &[u8], parts: u32, is_whole: bool) {
        debug_assert_eq!(
            invariants::frame_count(frames),
            Some(parts as usize + usize::from(is_whole)),
            "the frames are whole, and as many as are counted"
        );
        if self.stage(index, |out| out.extend_from_slice(frames)) {
            self.staged.note(ToClient::Part, parts);
            self.staged.note(ToClient::Accepted, u32::from(is_whole));
        }
    }

    /// Stages raw bytes, which are not counted as a frame; `write` appends them. False when the
    /// queue is closed.
    pub fn stage(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_closed(index) {
            return false;
        }
        let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) else {
            return false;
        };
        if queue.bytes.capacity() == 0 {
            queue.bytes = self.spares.pop().unwrap_or_default();
            self.spares_idle = self.spares_idle.min(self.spares.len());
            debug_assert!(queue.bytes.is_empty(), "a spare buffer has bytes of another connection");
        }
        queue.has_own = true;
        let before = queue.bytes.len();
        write(&mut queue.bytes);
        debug_assert!(queue.bytes.len() >= before, "frames are only appended");
        self.buffered_bytes += queue.bytes.len() - before;
        if queue.bytes.is_empty() {
            self.reclaim(index);
        }
        true
    }

    /// Stages a MSG_NOTIFY derived from the broadcast buffer; `write` appends the whole frame.
    pub fn stage_from_broadcast(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        let broadcast = std::mem::take(&mut self.broadcast);
        debug_assert!(self.broadcast_kept <= broadcast.len(), "older bytes are in the buffer");
        if self.stage(index, |out| write(out, &broadcast)) {
            self.staged.note(ToClient::MsgNotify, 1);
        }
        self.broadcast = broadcast;
    }

    /// Marks a connection dirty, so that this turn's flush visits it.
    pub fn touch(&mut self, index: u32) {
        if let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) {
            queue.has_own = true;
        }
    }

    /// Closes a queue: the staged bytes are its last ones. Nothing more is staged until the
    /// connection is removed or the turn is undone.
    pub fn close(&mut self, index: u32) {
        if let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) {
            queue.has_own = true;
            queue.close();
        }
    }

    /// Whether a queue is closed.
    pub fn is_closed(&self, index: u32) -> bool {
        self.queues.get(index as usize).is_some_and(|queue| queue.closing != Closing::Open)
    }

    /// Releases everything staged: it may be sent now.
    pub fn release(&mut self, metrics: &mut Metrics) {
        for &index in &self.dirty {
            if let Some(queue) = self.queues.get_mut(index as usize) {
                queue.release();
                queue.check_invariants();
            }
        }
        debug_assert!(self.slices_released <= self.slices.len(), "a released slice is gone");
        self.slices_released = self.slices.len();
        self.staged.release(metrics);
    }

    /// Discards everything staged: the turn is undone.
    pub fn discard(&mut self) {
        debug_assert!(self.slices_released <= self.slices.len());
        debug_assert!(self.broadcast_kept <= self.broadcast.len());
        for place in 0..self.dirty.len() {
            let Some(&index) = self.dirty.get(place) else { break };
            let Some(queue) = self.queues.get_mut(index as usize) else { continue };
            self.buffered_bytes -= queue.bytes.len() - queue.released();
            queue.bytes.truncate(queue.released());
            // If the closing frames were not released, the queue is open again.
            queue.discard_closing();
            self.discard_slices(index);
        }
        self.slices.truncate(self.slices_released);
        self.broadcast.truncate(self.broadcast_kept);
        self.staged.discard();
        self.check_sums();
    }

    /// Removes a queue's unreleased slices.
    fn discard_slices(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        let (mut last, mut next, mut kept_bytes) = (NONE, queue.first_slice, 0);
        while (next as usize) < self.slices_released
            && let Some(slice) = self.slices.get(next as usize)
        {
            kept_bytes += BROADCAST_HEAD_BYTES + slice.range.len();
            last = next;
            next = slice.next;
        }
        debug_assert!(kept_bytes <= queue.slice_bytes());
        self.buffered_bytes -= queue.slice_bytes() - kept_bytes;
        if last == NONE {
            self.forget_slices(index);
        } else if let Some(slice) = self.slices.get_mut(last as usize) {
            slice.next = NONE;
            queue.last_slice = last;
            queue.slice_bytes = kept_bytes as u32;
            debug_assert!((last as usize) < self.slices_released, "only released slices are kept");
            queue.check_invariants();
        }
    }

    /// Removes all of a queue's slices.
    fn forget_slices(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        if queue.first_slice != NONE {
            debug_assert!(self.sliced_queues > 0);
            queue.first_slice = NONE;
            queue.last_slice = NONE;
            queue.slice_bytes = 0;
            self.sliced_queues -= 1;
        }
        queue.check_invariants();
    }

    /// Whether a dirty connection waits to be taken.
    pub fn has_dirty(&self) -> bool {
        self.taken < self.dirty.len()
    }

    /// Number of dirty connections not yet taken.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len() - self.taken
    }

    /// Takes a dirty connection and flattens its queue. Everything staged must be released.
    pub fn pop_dirty(&mut self) -> Option<Dirty> {
        let dirty = self.take_dirty()?;
        self.flatten(dirty.index);
        Some(dirty)
    }

    /// The same without flattening: call [`Outbox::flatten`] or [`Outbox::send_parts`] before
    /// sending.
    pub fn take_dirty(&mut self) -> Option<Dirty> {
        let Some(&index) = self.dirty.get(self.taken) else {
            self.dirty.clear();
            self.taken = 0;
            return None;
        };
        self.taken += 1;
        let mut is_notified_only = false;
        if let Some(queue) = self.queues.get_mut(index as usize) {
            debug_assert!(queue.is_dirty, "{index} is listed twice");
            debug_assert_eq!(
                queue.released(),
                queue.bytes.len(),
                "{index} is sent before a COMMIT"
            );
            queue.is_dirty = false;
            is_notified_only = !std::mem::take(&mut queue.has_own);
        }
        Some(Dirty { index, is_notified_only })
    }

    /// Flattens a queue: copies its slices in between its own bytes.
    pub fn flatten(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        if queue.first_slice == NONE {
            return;
        }
        debug_assert_eq!(queue.released(), queue.bytes.len(), "what is flattened is released");
        debug_assert!((queue.last_slice as usize) < self.slices_released, "so are its slices");
        let pending_bytes = queue.pending_bytes();
        let first = self.slices.get(queue.first_slice as usize).map_or(0, |first| first.at);
        debug_assert!(queue.sent() <= first && first <= queue.bytes.len());
        let mut own = std::mem::take(&mut queue.bytes);
        let mut whole = std::mem::take(&mut self.scratch);
        if whole.capacity() == 0 {
            whole = self.spares.pop().unwrap_or_default();
            self.spares_idle = self.spares_idle.min(self.spares.len());
        }
        debug_assert!(whole.is_empty(), "a spare buffer has bytes of another connection");
        // Start of the part that has to be moved: the bytes before it stay.
        let base;
        if first - queue.sent() > SPARE_BYTES_MAX {
            // Do not move a long queue: only the part after its first slice.
            whole.extend_from_slice(own.get(first..).unwrap_or_default());
            own.truncate(first);
            std::mem::swap(&mut own, &mut whole);
            base = first;
        } else {
            whole.extend_from_slice(own.get(queue.sent()..first).unwrap_or_default());
            queue.sent = 0;
            base = 0;
        }
        let mut from = first - base;
        let mut next = queue.first_slice;
        while let Some(slice) = self.slices.get(next as usize) {
            let at = slice.at - base;
            debug_assert!(own.get(from..at).is_some(), "a slice is out of its place");
            whole.extend_from_slice(own.get(from..at).unwrap_or_default());
            whole.extend_from_slice(&slice.head);
            match self.broadcast.get(slice.range.clone()) {
                Some(bytes) => whole.extend_from_slice(bytes),
                None => self.staged.note_defect("a slice outlives its broadcast"),
            }
            from = at;
            next = slice.next;
        }
        whole.extend_from_slice(own.get(from..).unwrap_or_default());
        queue.bytes = whole;
        queue.release();
        queue.check_invariants();
        self.forget_slices(index);
        self.keep_spare(own);
        debug_assert_eq!(self.pending_bytes(index), pending_bytes, "flattening loses nothing");
    }

    /// Released bytes that are not sent yet.
    pub fn sendable(&self, index: u32) -> &[u8] {
        let range = |queue: &'_ Queue| queue.sent()..queue.released();
        self.queues
            .get(index as usize)
            .and_then(|queue| queue.bytes.get(range(queue)))
            .unwrap_or_default()
    }

    /// Bytes of a connection not sent yet, staged ones included.
    pub fn pending_bytes(&self, index: u32) -> usize {
        self.queues.get(index as usize).map_or(0, Queue::pending_bytes)
    }

    /// How many of them are slices that were not flattened.
    pub fn slice_bytes(&self, index: u32) -> usize {
        self.queues.get(index as usize).map_or(0, Queue::slice_bytes)
    }

    /// Bytes not sent yet, of all connections.
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Notes that the stream accepted `count` of the sendable bytes.
    pub fn advance(&mut self, index: u32, count: usize) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        if count > queue.released() - queue.sent() {
            self.staged.note_defect("more was sent than is released");
        }
        let count = count.min(queue.released() - queue.sent());
        queue.sent += count as u32;
        self.buffered_bytes -= count;
        queue.check_invariants();
        if queue.first_slice != NONE {
            // Slices store positions in the queue, so its bytes must not move.
            let first = self.slices.get(queue.first_slice as usize);
            debug_assert!(first.is_some_and(|first| queue.sent() <= first.at), "a slice is passed");
        } else if queue.sent() == queue.bytes.len() {
            self.reclaim(index);
        } else if queue.sent() >= COMPACT_BYTES && queue.sent() >= queue.bytes.len() / 2 {
            queue.bytes.drain(..queue.sent());
            queue.released -= queue.sent;
            queue.sent = 0;
            queue.check_invariants();
        }
    }

    /// Removes a connection's queue.
    pub fn remove(&mut self, index: u32) {
        self.empty(index);
        if let Some(queue) = self.queues.get_mut(index as usize) {
            queue.closing = Closing::Open;
        }
        debug_assert_eq!(self.pending_bytes(index), 0);
        debug_assert!(!self.is_closed(index), "the next connection finds an open queue");
    }

    /// Drops all bytes of a queue. A closed queue stays closed.
    pub fn empty(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        debug_assert!(queue.pending_bytes() <= self.buffered_bytes);
        self.buffered_bytes -= queue.pending_bytes();
        self.forget_slices(index);
        self.reclaim(index);
    }

    /// Takes the buffer of an empty queue for reuse.
    fn reclaim(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        debug_assert!(
            queue.first_slice == NONE || queue.bytes.is_empty(),
            "slices store positions in these bytes"
        );
        queue.sent = 0;
        queue.released = 0;
        let bytes = std::mem::take(&mut queue.bytes);
        self.keep_spare(bytes);
    }

    fn keep_spare(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        match bytes.capacity() {
            0 => {}
            capacity if capacity <= SPARE_BYTES_MAX => self.spares.push(bytes),
            capacity if capacity <= SCRATCH_BYTES_MAX && capacity > self.scratch.capacity() => {
                self.scratch = bytes;
            }
            _ => {}
        }
    }

    /// Frees the spare buffers that were not needed since the last call.
    pub fn trim(&mut self) {
        debug_assert!(
            self.spares_idle <= self.spares.len(),
            "more spares were idle than there are"
        );
        let needed = self.spares.len() - self.spares_idle.min(self.spares.len());
        self.spares.truncate(needed);
        self.spares.shrink_to(needed * 2);
        self.spares_idle = self.spares.len();
        self.broadcast.shrink_to(SCRATCH_BYTES_MAX);
    }
}
