//! What leaves: a queue of bytes per connection, staged until the turn's COMMIT.
//!
//! Invariant 1 is kept here: bytes can be sent only once they are released, and they are released
//! only by [`Outbox::release`], which the turn calls after its COMMIT. Invariant 6 as well: a queue
//! that has run empty gives its buffer back.
//!
//! ```text
//!   0          sent            released            end
//!   | gone     | may be sent   | staged this turn  |
//! ```
//!
//! Knows neither sockets nor who a connection is.

/// Sent bytes at the front of a queue are moved out once they are this many, and half of it.
const COMPACT_BYTES: usize = 64 * 1024;

/// A spare buffer larger than this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// A queue of bytes for one connection.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
    released: usize,
    is_dirty: bool,
}

impl Queue {
    fn check_invariants(&self) {
        debug_assert!(self.sent <= self.released && self.released <= self.bytes.len());
    }
}

/// All queues, by the place of the connection in the table of connections.
#[derive(Default)]
pub struct Outbox {
    queues: Vec<Queue>,
    /// Queues with bytes staged or released in this turn, each once.
    dirty: Vec<u32>,
    /// Empty buffers to take again; the last used, and so the warmest, is on top.
    spares: Vec<Vec<u8>>,
    /// Fewest spares since the last trim: those were not needed.
    spares_idle: usize,
    buffered_bytes: usize,
}

impl Outbox {
    /// Stages frames for a connection: `write` appends them.
    pub fn stage(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let at = index as usize;
        if at >= self.queues.len() {
            self.queues.resize_with(at + 1, Queue::default);
        }
        let Some(queue) = self.queues.get_mut(at) else { return };
        if queue.bytes.capacity() == 0 {
            queue.bytes = self.spares.pop().unwrap_or_default();
            self.spares_idle = self.spares_idle.min(self.spares.len());
        }
        let before = queue.bytes.len();
        write(&mut queue.bytes);
        self.buffered_bytes += queue.bytes.len() - before;
        if !queue.is_dirty {
            queue.is_dirty = true;
            self.dirty.push(index);
        }
        queue.check_invariants();
    }

    /// Asks for a look at a connection in this turn's flush though nothing new is staged for it.
    pub fn touch(&mut self, index: u32) {
        self.stage(index, |_| {});
        if let Some(queue) = self.queues.get_mut(index as usize)
            && queue.bytes.is_empty()
        {
            Self::reclaim(&mut self.spares, queue);
        }
    }

    /// Lets go what is staged: the turn's COMMIT is on disk, or the turn wrote nothing.
    pub fn release(&mut self) {
        for &index in &self.dirty {
            if let Some(queue) = self.queues.get_mut(index as usize) {
                queue.released = queue.bytes.len();
            }
        }
    }

    /// Forgets what is staged: the turn is undone.
    pub fn discard(&mut self) {
        for &index in &self.dirty {
            if let Some(queue) = self.queues.get_mut(index as usize) {
                self.buffered_bytes -= queue.bytes.len() - queue.released;
                queue.bytes.truncate(queue.released);
            }
        }
    }

    /// Whether a turn of the loop is needed for what is staged.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes one connection that has got bytes since it was last asked about.
    pub fn pop_dirty(&mut self) -> Option<u32> {
        let index = self.dirty.pop()?;
        if let Some(queue) = self.queues.get_mut(index as usize) {
            queue.is_dirty = false;
        }
        Some(index)
    }

    /// Bytes that may be sent now.
    pub fn sendable(&self, index: u32) -> &[u8] {
        let range = |queue: &'_ Queue| queue.sent..queue.released;
        self.queues
            .get(index as usize)
            .and_then(|queue| queue.bytes.get(range(queue)))
            .unwrap_or_default()
    }

    /// Bytes that wait for a connection, staged ones included.
    pub fn pending_bytes(&self, index: u32) -> usize {
        self.queues.get(index as usize).map_or(0, |queue| queue.bytes.len() - queue.sent)
    }

    /// Bytes that wait for all connections.
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Notes that the socket took `count` of the sendable bytes.
    pub fn advance(&mut self, index: u32, count: usize) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        let count = count.min(queue.released - queue.sent);
        queue.sent += count;
        self.buffered_bytes -= count;
        if queue.sent == queue.bytes.len() {
            Self::reclaim(&mut self.spares, queue);
        } else if queue.sent >= COMPACT_BYTES && queue.sent >= queue.bytes.len() / 2 {
            queue.bytes.drain(..queue.sent);
            queue.released -= queue.sent;
            queue.sent = 0;
        }
        queue.check_invariants();
    }

    /// Forgets a connection and all that waits for it.
    pub fn remove(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        self.buffered_bytes -= queue.bytes.len() - queue.sent;
        Self::reclaim(&mut self.spares, queue);
    }

    fn reclaim(spares: &mut Vec<Vec<u8>>, queue: &mut Queue) {
        let mut bytes = std::mem::take(&mut queue.bytes);
        queue.sent = 0;
        queue.released = 0;
        if bytes.capacity() > 0 && bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            spares.push(bytes);
        }
    }

    /// Gives spare buffers back to the allocator that nobody needed since the last call.
    pub fn trim(&mut self) {
        let needed = self.spares.len() - self.spares_idle.min(self.spares.len());
        self.spares.truncate(needed);
        self.spares.shrink_to(needed * 2);
        self.spares_idle = self.spares.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(outbox: &mut Outbox, index: u32, bytes: &[u8]) {
        outbox.stage(index, |out| out.extend_from_slice(bytes));
    }

    #[test]
    fn staged_bytes_cannot_be_sent_before_their_release() {
        let mut outbox = Outbox::default();
        staged(&mut outbox, 3, b"abc");
        assert_eq!(outbox.sendable(3), b"");
        assert_eq!(outbox.pending_bytes(3), 3);
        outbox.release();
        assert_eq!(outbox.sendable(3), b"abc");
        assert_eq!(outbox.pop_dirty(), Some(3));
        assert_eq!(outbox.pop_dirty(), None);
        outbox.advance(3, 2);
        assert_eq!(outbox.sendable(3), b"c");
        assert_eq!(outbox.buffered_bytes(), 1);
    }

    #[test]
    fn an_undone_turn_leaves_what_was_released_before() {
        let mut outbox = Outbox::default();
        staged(&mut outbox, 0, b"old");
        outbox.release();
        staged(&mut outbox, 0, b"new");
        outbox.discard();
        outbox.release();
        assert_eq!(outbox.sendable(0), b"old");
        assert_eq!(outbox.buffered_bytes(), 3);
    }

    #[test]
    fn an_empty_queue_holds_no_buffer_and_idle_spares_go() {
        let mut outbox = Outbox::default();
        for index in 0..10 {
            staged(&mut outbox, index, b"x");
        }
        outbox.release();
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
    fn a_long_queue_forgets_what_was_sent() {
        let mut outbox = Outbox::default();
        let piece = vec![7; COMPACT_BYTES];
        for _ in 0..100 {
            staged(&mut outbox, 0, &piece);
            staged(&mut outbox, 0, &piece[..1]);
            outbox.release();
            outbox.advance(0, COMPACT_BYTES);
        }
        assert_eq!(outbox.pending_bytes(0), 100);
        assert!(outbox.queues[0].bytes.capacity() <= 4 * COMPACT_BYTES);
    }
}
