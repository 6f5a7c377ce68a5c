//! What leaves: a bounded queue of bytes per connection, staged until the turn's COMMIT, and the
//! broadcast buffer that the fan-out of a turn shares.
//!
//! The bound is the server's backpressure: a slow consumer above it gets no more notifications,
//! which go to its backlog, and its requests are not read.
//!
//! Bytes can be sent only once they are released, and only [`Service::end_turn`] calls
//! [`Outbox::release`]. Invariant 6 is kept here: a queue that has run empty gives its buffer back.
//!
//! ```text
//!   0          sent            released            end
//!   | gone     | may be sent   | staged this turn  |
//! ```
//!
//! What many are notified alike is encoded once, in the block, and staged as a reference. It is
//! copied into a queue only when that queue is about to be sent: so fan-out to a thousand
//! connections passes through one buffer that stays in the cache, not through a thousand. A queue
//! may wait so over some turns, and the block stays for as long as any does.
//!
//! Where much of the block goes to many, it is not even copied then: see [`parts`].
//!
//! Frames are counted as they are staged, and join the metrics when they are released: what was
//! staged and then discarded is not counted.
//!
//! Knows neither sockets nor who a connection is.
//!
//! [`Service::end_turn`]: crate::service::Service::end_turn

pub mod parts;

use std::ops::Range;

use crate::limits::HEADER_BYTES;
use crate::metrics::Metrics;
use crate::wire::answer;
use crate::wire::decline::{CODES, Decline};
use crate::wire::frame;
use crate::wire::purpose::ToClient;

/// Sent bytes at the front of a queue are moved out once they are this many, and half of it.
const COMPACT_BYTES: usize = 64 * 1024;

/// A spare buffer larger than this is given back to the allocator, but for one.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// The one large spare buffer is given back above this.
const SCRATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Longest beginning of a frame that stands before a piece of the block.
pub const BLOCK_HEAD_BYTES: usize = HEADER_BYTES + 4;

/// No reference.
const NONE: u32 = u32::MAX;

/// A queue of bytes for one connection. Each connection has one, however idle, so it is kept small:
/// what waits for a connection is far below 4 GiB (`outbound-limit`).
struct Queue {
    bytes: Vec<u8>,
    sent: u32,
    released: u32,
    /// Bytes of the block that are staged as references.
    referred_bytes: u32,
    first_reference: u32,
    last_reference: u32,
    is_dirty: bool,
    /// It got more than pieces of the block since it was last taken.
    has_own: bool,
    /// Nothing more is staged: the connection has its final lines,
    is_closed: bool,
    /// and they are released.
    was_closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            released: 0,
            referred_bytes: 0,
            first_reference: NONE,
            last_reference: NONE,
            is_dirty: false,
            has_own: false,
            is_closed: false,
            was_closed: false,
        }
    }
}

impl Queue {
    /// How many of the bytes were sent.
    const fn sent(&self) -> usize {
        self.sent as usize
    }

    /// How many of them may be sent, or were.
    const fn released(&self) -> usize {
        self.released as usize
    }

    fn release(&mut self) {
        self.released = self.bytes.len() as u32;
        self.was_closed = self.is_closed;
    }

    /// Bytes of the block that are staged as references.
    const fn referred_bytes(&self) -> usize {
        self.referred_bytes as usize
    }

    /// Bytes that wait, staged ones included.
    const fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.sent() + self.referred_bytes()
    }

    fn check_invariants(&self) {
        debug_assert!(self.sent <= self.released && self.released() <= self.bytes.len());
    }
}

/// Frames that are staged and not released, by purpose, and the reasons in those of DECLINED.
struct StagedFrames {
    by_purpose: [u32; 256],
    by_reason: [u32; CODES.len()],
}

impl Default for StagedFrames {
    fn default() -> Self {
        Self { by_purpose: [0; 256], by_reason: [0; CODES.len()] }
    }
}

impl StagedFrames {
    fn note(&mut self, purpose: ToClient, frames: u32) {
        self.by_purpose[usize::from(purpose.byte())] += frames;
    }

    fn note_reason(&mut self, reason: Decline) {
        if let Some(count) = self.by_reason.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// Moves all counts into the metrics.
    fn release(&mut self, metrics: &mut Metrics) {
        for purpose in ToClient::ALL {
            let byte = purpose.byte();
            metrics.frames_sent(byte, std::mem::take(&mut self.by_purpose[usize::from(byte)]));
        }
        for (index, count) in self.by_reason.iter_mut().enumerate() {
            metrics.declined(index, std::mem::take(count));
        }
    }
}

/// A connection that has got bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dirty {
    /// Its place.
    pub index: u32,
    /// They are pieces of the block: it was notified something, and asked for nothing.
    pub is_notified_only: bool,
}

/// A piece of the block, to be put into a queue.
struct Reference {
    /// Where in the queue's own bytes.
    at: usize,
    head: [u8; BLOCK_HEAD_BYTES],
    piece: Range<usize>,
    /// The queue's next reference.
    next: u32,
}

/// All queues, by the place of the connection in the table of connections.
#[derive(Default)]
pub struct Outbox {
    queues: Vec<Queue>,
    /// Queues with bytes staged or released in this turn, each once, in the order of their first
    /// bytes. Who asked comes before who is notified, and so can ask again while the others are
    /// notified.
    dirty: Vec<u32>,
    /// How many of them were taken.
    taken: usize,
    /// What is notified many alike; its room is kept from turn to turn.
    block: Vec<u8>,
    /// How much of it is older than this turn.
    block_kept: usize,
    /// The references of all queues to it.
    references: Vec<Reference>,
    /// How many of them are released.
    references_released: usize,
    /// How many queues have references.
    referring: usize,
    staged: StagedFrames,
    /// The one large empty buffer: each queue with references is assembled in it.
    scratch: Vec<u8>,
    /// Room for what stands between two pieces that are sent from where they are.
    between: Vec<u8>,
    /// Empty buffers to take again; the last used, and so the warmest, is on top.
    spares: Vec<Vec<u8>>,
    /// Fewest spares since the last trim: those were not needed.
    spares_idle: usize,
    buffered_bytes: usize,
}

impl Outbox {
    /// Begins a turn: the block is gone, unless somebody still has to be sent of it.
    pub fn begin_turn(&mut self) {
        if self.referring == 0 {
            self.block.clear();
            self.references.clear();
            self.references_released = 0;
        }
        debug_assert_eq!(self.references.len(), self.references_released);
        self.block_kept = self.block.len();
    }

    /// The block.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// The block, to be appended to.
    pub const fn block_mut(&mut self) -> &mut Vec<u8> {
        &mut self.block
    }

    /// Stages a frame for a connection: its beginning, and as the rest a piece of the block.
    pub fn stage_block(
        &mut self,
        index: u32,
        purpose: ToClient,
        head: [u8; BLOCK_HEAD_BYTES],
        piece: Range<usize>,
    ) {
        let number = self.references.len() as u32;
        if self.is_closed(index) {
            return;
        }
        let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) else { return };
        let bytes = BLOCK_HEAD_BYTES + piece.len();
        self.staged.note(purpose, 1);
        queue.referred_bytes += bytes as u32;
        self.buffered_bytes += bytes;
        let last = std::mem::replace(&mut queue.last_reference, number);
        if queue.first_reference == NONE {
            queue.first_reference = number;
            self.referring += 1;
        }
        let at = queue.bytes.len();
        if let Some(last) = self.references.get_mut(last as usize) {
            last.next = number;
        }
        self.references.push(Reference { at, head, piece, next: NONE });
    }

    /// The queue of a connection, which is dirty from now on.
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

    /// Stages a frame for a connection; `write` appends its body.
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

    /// Stages a frame of the server's own: HEARTBEAT, DISCONNECT, DEAUTH (task 0, no body).
    pub fn stage_bare(&mut self, index: u32, purpose: ToClient) {
        self.stage_frame(index, purpose, 0, |_| {});
    }

    /// Stages a DECLINED.
    pub fn decline(&mut self, index: u32, task: u8, reason: Decline) {
        if self.stage(index, |out| answer::declined(out, task, reason)) {
            self.staged.note(ToClient::Declined, 1);
            self.staged.note_reason(reason);
        }
    }

    /// Stages that many frames of PART, and the ACCEPTED behind them if there is one.
    pub fn stage_answer(&mut self, index: u32, frames: &[u8], parts: u32, is_whole: bool) {
        if self.stage(index, |out| out.extend_from_slice(frames)) {
            self.staged.note(ToClient::Part, parts);
            self.staged.note(ToClient::Accepted, u32::from(is_whole));
        }
    }

    /// Stages bytes for a connection that are no frames, or are not counted: `write` appends them.
    /// False when nothing is staged for it any more.
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
        }
        queue.has_own = true;
        let before = queue.bytes.len();
        write(&mut queue.bytes);
        self.buffered_bytes += queue.bytes.len() - before;
        if queue.bytes.is_empty() {
            self.reclaim(index);
        }
        true
    }

    /// Stages a MSG_NOTIFY that is made of what is in the block: `write` appends all of it.
    pub fn stage_from_block(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        let block = std::mem::take(&mut self.block);
        if self.stage(index, |out| write(out, &block)) {
            self.staged.note(ToClient::MsgNotify, 1);
        }
        self.block = block;
    }

    /// Asks for a look at a connection in this turn's flush though nothing new is staged for it.
    pub fn touch(&mut self, index: u32) {
        if let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) {
            queue.has_own = true;
        }
    }

    /// What is staged for a connection are its final lines: from now on nothing is staged behind
    /// them, until it is forgotten or the turn is undone.
    pub fn close(&mut self, index: u32) {
        if let Some(queue) = Self::queue(&mut self.queues, &mut self.dirty, index) {
            queue.has_own = true;
            queue.is_closed = true;
        }
    }

    /// Whether a connection has its final lines.
    pub fn is_closed(&self, index: u32) -> bool {
        self.queues.get(index as usize).is_some_and(|queue| queue.is_closed)
    }

    /// Releases what is staged: from now on it may be sent.
    pub fn release(&mut self, metrics: &mut Metrics) {
        for &index in &self.dirty {
            if let Some(queue) = self.queues.get_mut(index as usize) {
                queue.release();
            }
        }
        self.references_released = self.references.len();
        self.staged.release(metrics);
    }

    /// Forgets what is staged: the turn is undone.
    pub fn discard(&mut self) {
        for place in 0..self.dirty.len() {
            let Some(&index) = self.dirty.get(place) else { break };
            let Some(queue) = self.queues.get_mut(index as usize) else { continue };
            self.buffered_bytes -= queue.bytes.len() - queue.released();
            queue.bytes.truncate(queue.released());
            // A closing that is not released is done again.
            queue.is_closed = queue.was_closed;
            self.discard_references(index);
        }
        self.references.truncate(self.references_released);
        self.block.truncate(self.block_kept);
        self.staged = StagedFrames::default();
    }

    /// Takes from a queue its references that are not released.
    fn discard_references(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        let (mut last, mut next, mut kept_bytes) = (NONE, queue.first_reference, 0);
        while (next as usize) < self.references_released
            && let Some(reference) = self.references.get(next as usize)
        {
            kept_bytes += BLOCK_HEAD_BYTES + reference.piece.len();
            last = next;
            next = reference.next;
        }
        self.buffered_bytes -= queue.referred_bytes() - kept_bytes;
        if last == NONE {
            self.forget_references(index);
        } else if let Some(reference) = self.references.get_mut(last as usize) {
            reference.next = NONE;
            queue.last_reference = last;
            queue.referred_bytes = kept_bytes as u32;
        }
    }

    /// A queue has no references any more.
    fn forget_references(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        if queue.first_reference != NONE {
            queue.first_reference = NONE;
            queue.last_reference = NONE;
            queue.referred_bytes = 0;
            self.referring -= 1;
        }
    }

    /// Whether a turn of the loop is needed for what is staged.
    pub fn has_dirty(&self) -> bool {
        self.taken < self.dirty.len()
    }

    /// How many connections have got bytes and were not taken.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len() - self.taken
    }

    /// Takes one connection that has got bytes since it was last asked about, and puts its queue
    /// together. All that is staged must be released.
    pub fn pop_dirty(&mut self) -> Option<Dirty> {
        let dirty = self.take_dirty()?;
        self.flatten(dirty.index);
        Some(dirty)
    }

    /// The same, for who calls [`Outbox::flatten`] or [`Outbox::send_parts`] when it is to be sent.
    pub fn take_dirty(&mut self) -> Option<Dirty> {
        let Some(&index) = self.dirty.get(self.taken) else {
            self.dirty.clear();
            self.taken = 0;
            return None;
        };
        self.taken += 1;
        let mut is_notified_only = false;
        if let Some(queue) = self.queues.get_mut(index as usize) {
            queue.is_dirty = false;
            is_notified_only = !std::mem::take(&mut queue.has_own);
        }
        Some(Dirty { index, is_notified_only })
    }

    /// Puts the pieces that a queue refers to in their places between its own bytes.
    pub fn flatten(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        if queue.first_reference == NONE {
            return;
        }
        let first = self.references.get(queue.first_reference as usize).map_or(0, |first| first.at);
        let mut own = std::mem::take(&mut queue.bytes);
        let mut whole = std::mem::take(&mut self.scratch);
        if whole.capacity() == 0 {
            whole = self.spares.pop().unwrap_or_default();
            self.spares_idle = self.spares_idle.min(self.spares.len());
        }
        // Where the part of the queue that is moved begins: that before it needs no change.
        let base;
        if first - queue.sent() > SPARE_BYTES_MAX {
            // A long queue stays where it is; what was staged behind it makes room.
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
        let mut next = queue.first_reference;
        while let Some(reference) = self.references.get(next as usize) {
            let at = reference.at - base;
            whole.extend_from_slice(own.get(from..at).unwrap_or_default());
            whole.extend_from_slice(&reference.head);
            let piece = self.block.get(reference.piece.clone());
            whole.extend_from_slice(piece.unwrap_or_default());
            from = at;
            next = reference.next;
        }
        whole.extend_from_slice(own.get(from..).unwrap_or_default());
        queue.bytes = whole;
        queue.release();
        queue.check_invariants();
        self.forget_references(index);
        self.keep_spare(own);
    }

    /// Bytes that may be sent now.
    pub fn sendable(&self, index: u32) -> &[u8] {
        let range = |queue: &'_ Queue| queue.sent()..queue.released();
        self.queues
            .get(index as usize)
            .and_then(|queue| queue.bytes.get(range(queue)))
            .unwrap_or_default()
    }

    /// Bytes that wait for a connection, staged ones included.
    pub fn pending_bytes(&self, index: u32) -> usize {
        self.queues.get(index as usize).map_or(0, Queue::pending_bytes)
    }

    /// Those of them that are pieces of the block and not put in their places yet.
    pub fn referred_bytes(&self, index: u32) -> usize {
        self.queues.get(index as usize).map_or(0, Queue::referred_bytes)
    }

    /// Bytes that wait for all connections.
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Notes that the socket took `count` of the sendable bytes.
    pub fn advance(&mut self, index: u32, count: usize) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        let count = count.min(queue.released() - queue.sent());
        queue.sent += count as u32;
        self.buffered_bytes -= count;
        queue.check_invariants();
        if queue.first_reference != NONE {
            // References name places in the queue, which must not move under them.
        } else if queue.sent() == queue.bytes.len() {
            self.reclaim(index);
        } else if queue.sent() >= COMPACT_BYTES && queue.sent() >= queue.bytes.len() / 2 {
            queue.bytes.drain(..queue.sent());
            queue.released -= queue.sent;
            queue.sent = 0;
        }
    }

    /// Forgets a connection and all that waits for it.
    pub fn remove(&mut self, index: u32) {
        self.empty(index);
        if let Some(queue) = self.queues.get_mut(index as usize) {
            queue.is_closed = false;
            queue.was_closed = false;
        }
    }

    /// Forgets all that waits for a connection, or was sent; a closed queue stays closed.
    pub fn empty(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        self.buffered_bytes -= queue.pending_bytes();
        self.forget_references(index);
        self.reclaim(index);
    }

    /// Takes the buffer from a queue that is done with it.
    fn reclaim(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
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

    /// Gives spare buffers back to the allocator that nobody needed since the last call.
    pub fn trim(&mut self) {
        let needed = self.spares.len() - self.spares_idle.min(self.spares.len());
        self.spares.truncate(needed);
        self.spares.shrink_to(needed * 2);
        self.spares_idle = self.spares.len();
        self.block.shrink_to(SCRATCH_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Page;
    use crate::wire::decline::Decline;

    fn staged(outbox: &mut Outbox, index: u32, bytes: &[u8]) {
        outbox.stage(index, |out| out.extend_from_slice(bytes));
    }

    #[test]
    fn the_queue_of_an_idle_connection_is_small() {
        assert!(size_of::<Queue>() <= 48);
    }

    #[test]
    fn staged_bytes_cannot_be_sent_before_their_release() {
        let mut outbox = Outbox::default();
        staged(&mut outbox, 3, b"abc");
        assert_eq!(outbox.sendable(3), b"");
        assert_eq!(outbox.pending_bytes(3), 3);
        outbox.release(&mut Metrics::default());
        assert_eq!(outbox.sendable(3), b"abc");
        assert_eq!(outbox.pop_dirty(), Some(Dirty { index: 3, is_notified_only: false }));
        assert_eq!(outbox.pop_dirty(), None);
        outbox.advance(3, 2);
        assert_eq!(outbox.sendable(3), b"c");
        assert_eq!(outbox.buffered_bytes(), 1);
    }

    #[test]
    fn nothing_follows_the_final_lines() {
        let mut outbox = Outbox::default();
        let got = |outbox: &mut Outbox| {
            staged(outbox, 3, b"sent");
            outbox.block_mut().extend_from_slice(b"alike");
            outbox.stage_block(3, ToClient::MsgNotify, [0; BLOCK_HEAD_BYTES], 0..5);
        };
        staged(&mut outbox, 3, b"bye");
        outbox.close(3);
        got(&mut outbox);
        assert_eq!(outbox.pending_bytes(3), 3);
        // An undone turn has said nothing yet.
        outbox.discard();
        staged(&mut outbox, 3, b"bye");
        outbox.close(3);
        got(&mut outbox);
        outbox.release(&mut Metrics::default());
        assert_eq!(outbox.sendable(3), b"bye");
        // Nor do they come again once they are released, whatever becomes of later turns.
        outbox.begin_turn();
        outbox.touch(3);
        outbox.discard();
        got(&mut outbox);
        assert_eq!(outbox.pending_bytes(3), 3);
        outbox.remove(3);
        staged(&mut outbox, 3, b"another");
        assert_eq!(outbox.pending_bytes(3), 7);
    }

    #[test]
    fn frames_are_counted_when_they_are_released() {
        let (mut outbox, mut metrics) = (Outbox::default(), Metrics::default());
        let got = |metrics: &Metrics| {
            let mut page = Page::default();
            let purposes = [(0, "ACCEPTED"), (1, "DECLINED"), (0x20, "MSG_NOTIFY")];
            metrics.render(&mut page, [].into_iter(), purposes.into_iter(), CODES);
            page.into_text()
        };
        let count = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        for is_undone in [true, false, false] {
            outbox.begin_turn();
            let head = [4, 0, 0, 0, 0x20, 9, 0, 0, 0, 0];
            outbox.stage_block(0, ToClient::MsgNotify, head, 0..0);
            for task in 0..3 {
                outbox.stage_frame(0, ToClient::Accepted, task, |body| body.push(7));
            }
            outbox.decline(1, 1, Decline::BadName);
            if is_undone {
                outbox.discard();
            }
            outbox.release(&mut metrics);
            outbox.stage_frame(0, ToClient::Accepted, 7, |_| {});
            outbox.release(&mut metrics);
            while outbox.pop_dirty().is_some() {}
        }
        let text = got(&metrics);
        let sent = "vestnik_frames_sent_total";
        assert_eq!(count(&text, &format!("{sent}{{purpose=\"ACCEPTED\"}}")), Some(9));
        assert_eq!(count(&text, &format!("{sent}{{purpose=\"MSG_NOTIFY\"}}")), Some(2));
        assert_eq!(count(&text, &format!("{sent}{{purpose=\"DECLINED\"}}")), Some(2));
        assert_eq!(count(&text, &format!("{sent}{{purpose=\"unknown\"}}")), Some(0));
        assert_eq!(count(&text, "vestnik_declines_total{code=\"bad-name\"}"), Some(2));
    }

    #[test]
    fn an_undone_turn_leaves_what_was_released_before() {
        let mut outbox = Outbox::default();
        staged(&mut outbox, 0, b"old");
        outbox.release(&mut Metrics::default());
        staged(&mut outbox, 0, b"new");
        outbox.discard();
        outbox.release(&mut Metrics::default());
        assert_eq!(outbox.sendable(0), b"old");
        assert_eq!(outbox.buffered_bytes(), 3);
    }

    #[test]
    fn an_empty_queue_holds_no_buffer_and_idle_spares_go() {
        let mut outbox = Outbox::default();
        for index in 0..10 {
            staged(&mut outbox, index, b"x");
        }
        outbox.release(&mut Metrics::default());
        for index in 0..10 {
            outbox.advance(index, 1);
        }
        assert!(outbox.queues.iter().all(|queue| queue.bytes.capacity() == 0));
        assert_eq!(outbox.spares.len(), 10);
        outbox.trim();
        outbox.trim();
        assert_eq!(outbox.spares.len(), 0);
    }

    #[test]
    fn pieces_of_the_block_stand_where_they_were_staged() {
        let mut outbox = Outbox::default();
        staged(&mut outbox, 0, b"unsent");
        outbox.release(&mut Metrics::default());
        outbox.advance(0, 2);
        outbox.block_mut().extend_from_slice(b"abcdef");
        let head = *b"0123456789";
        staged(&mut outbox, 0, b"<");
        outbox.stage_block(0, ToClient::MsgNotify, head, 0..2);
        outbox.stage_block(0, ToClient::MsgNotify, head, 2..3);
        staged(&mut outbox, 0, b">");
        outbox.stage_block(1, ToClient::MsgNotify, head, 0..6);
        assert_eq!(outbox.pending_bytes(0), 4 + 1 + 12 + 11 + 1);
        assert_eq!(outbox.buffered_bytes(), 29 + 16);
        outbox.release(&mut Metrics::default());
        while outbox.pop_dirty().is_some() {}
        assert_eq!(outbox.sendable(0), b"sent<0123456789ab0123456789c>");
        assert_eq!(outbox.sendable(1), b"0123456789abcdef");
        assert_eq!((outbox.pending_bytes(0), outbox.buffered_bytes()), (29, 45));
        outbox.begin_turn();
        outbox.advance(0, 29);
        outbox.advance(1, 16);
        assert_eq!(outbox.buffered_bytes(), 0);
    }

    #[test]
    fn buffers_are_used_again_and_again() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.begin_turn();
            outbox.block_mut().extend_from_slice(&[5; 100]);
            for index in 0..10 {
                outbox.stage_block(index, ToClient::MsgNotify, [0; BLOCK_HEAD_BYTES], 0..100);
                staged(&mut outbox, index, b"own");
            }
            outbox.release(&mut Metrics::default());
            while let Some(Dirty { index, .. }) = outbox.pop_dirty() {
                outbox.advance(index, outbox.pending_bytes(index));
            }
        }
        assert!(outbox.spares.len() <= 11, "{} spares", outbox.spares.len());
    }

    #[test]
    fn a_long_queue_takes_pieces_without_moving() {
        let mut outbox = Outbox::default();
        let long = vec![1; 3 * SPARE_BYTES_MAX];
        let mut expected = long.clone();
        staged(&mut outbox, 0, &long);
        outbox.release(&mut Metrics::default());
        outbox.advance(0, 5);
        for round in 0..3 {
            outbox.begin_turn();
            outbox.block_mut().extend_from_slice(&[8, 9]);
            staged(&mut outbox, 0, &[7]);
            outbox.stage_block(0, ToClient::MsgNotify, [round; BLOCK_HEAD_BYTES], 0..2);
            staged(&mut outbox, 0, &[6]);
            outbox.release(&mut Metrics::default());
            while outbox.pop_dirty().is_some() {}
            expected.push(7);
            expected.extend_from_slice(&[round; BLOCK_HEAD_BYTES]);
            expected.extend_from_slice(&[8, 9, 6]);
            assert_eq!(outbox.sendable(0), &expected[5..]);
            assert_eq!(outbox.buffered_bytes(), expected.len() - 5);
        }
    }

    #[test]
    fn what_is_sent_meanwhile_moves_no_reference() {
        let mut outbox = Outbox::default();
        staged(&mut outbox, 0, b"old");
        outbox.release(&mut Metrics::default());
        outbox.begin_turn();
        outbox.block_mut().extend_from_slice(b"xy");
        outbox.stage_block(0, ToClient::MsgNotify, [7; BLOCK_HEAD_BYTES], 0..2);
        outbox.advance(0, 3);
        staged(&mut outbox, 0, b"new");
        outbox.release(&mut Metrics::default());
        while outbox.pop_dirty().is_some() {}
        assert_eq!(outbox.sendable(0), b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07xynew");
    }

    #[test]
    fn who_is_held_back_is_sent_the_blocks_of_several_turns() {
        let mut outbox = Outbox::default();
        let head = *b"0123456789";
        for (turn, is_undone) in [(b"ab", false), (b"cd", true), (b"ef", false)] {
            outbox.begin_turn();
            let from = outbox.block().len();
            outbox.block_mut().extend_from_slice(turn);
            outbox.stage_block(0, ToClient::MsgNotify, head, from..from + 2);
            outbox.stage_block(1, ToClient::MsgNotify, head, from..from + 1);
            staged(&mut outbox, 1, turn);
            if is_undone {
                outbox.discard();
            }
            outbox.release(&mut Metrics::default());
            while outbox.take_dirty().is_some() {}
        }
        assert_eq!((outbox.pending_bytes(0), outbox.pending_bytes(1)), (24, 26));
        assert_eq!(outbox.buffered_bytes(), 50);
        outbox.flatten(0);
        assert_eq!(outbox.sendable(0), b"0123456789ab0123456789ef");
        outbox.begin_turn();
        assert_eq!(outbox.block(), b"abef");
        outbox.flatten(1);
        assert_eq!(outbox.sendable(1), b"0123456789aab0123456789eef");
        outbox.begin_turn();
        assert_eq!(outbox.block(), b"");
        outbox.remove(0);
        outbox.remove(1);
        assert_eq!(outbox.buffered_bytes(), 0);
    }

    #[test]
    fn who_goes_while_held_back_lets_go_of_the_block() {
        let mut outbox = Outbox::default();
        outbox.block_mut().extend_from_slice(b"xyz");
        outbox.stage_block(3, ToClient::MsgNotify, [0; BLOCK_HEAD_BYTES], 0..3);
        outbox.release(&mut Metrics::default());
        while outbox.take_dirty().is_some() {}
        outbox.remove(3);
        outbox.begin_turn();
        assert_eq!((outbox.block(), outbox.buffered_bytes()), (&b""[..], 0));
    }

    #[test]
    fn an_undone_turn_forgets_its_references() {
        let mut outbox = Outbox::default();
        outbox.block_mut().push(7);
        outbox.stage_block(5, ToClient::MsgNotify, [0; BLOCK_HEAD_BYTES], 0..1);
        outbox.discard();
        outbox.release(&mut Metrics::default());
        while outbox.pop_dirty().is_some() {}
        assert_eq!(outbox.sendable(5), b"");
        assert_eq!((outbox.pending_bytes(5), outbox.buffered_bytes()), (0, 0));
    }

    #[test]
    fn a_long_queue_forgets_what_was_sent() {
        let mut outbox = Outbox::default();
        let piece = vec![7; COMPACT_BYTES];
        for _ in 0..100 {
            staged(&mut outbox, 0, &piece);
            staged(&mut outbox, 0, &piece[..1]);
            outbox.release(&mut Metrics::default());
            outbox.advance(0, COMPACT_BYTES);
        }
        assert_eq!(outbox.pending_bytes(0), 100);
        assert!(outbox.queues[0].bytes.capacity() <= 4 * COMPACT_BYTES);
    }
}
