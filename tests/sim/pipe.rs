//! The network between a client and the server: two byte streams whose bytes arrive late, in other
//! pieces, or not at all. The bytes on their way are bounded, as by socket buffers.

use std::collections::VecDeque;

use crate::rng::Rng;

/// Capacity while everything comes to rest, in bytes.
const URGENT_BYTES: usize = 1 << 20;

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    /// How many of the bytes have arrived.
    arrived: usize,
    capacity: usize,
    /// The writer has ended its side.
    pub(crate) is_ended: bool,
    /// The end has arrived.
    end_arrived: bool,
}

impl Pipe {
    pub(crate) fn new(capacity: usize) -> Self {
        let bytes = VecDeque::new();
        Self { bytes, arrived: 0, capacity, is_ended: false, end_arrived: false }
    }

    /// Accepts as many bytes as fit. Returns their number.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity.saturating_sub(self.bytes.len()));
        self.bytes.extend(&bytes[..count]);
        count
    }

    /// Lets some bytes arrive. True when something did.
    pub(crate) fn step(&mut self, rng: &mut Rng, is_urgent: bool) -> bool {
        let under_way = self.bytes.len() - self.arrived;
        let before = (self.arrived, self.end_arrived);
        if is_urgent {
            self.capacity = self.capacity.max(URGENT_BYTES);
        }
        if is_urgent || rng.one_in(2) {
            self.arrived = self.bytes.len();
        } else if under_way > 0 {
            self.arrived += rng.index(under_way + 1);
        }
        if self.is_ended && self.arrived == self.bytes.len() {
            self.end_arrived |= is_urgent || rng.one_in(2);
        }
        before != (self.arrived, self.end_arrived)
    }

    /// Reads up to `most` of the bytes that have arrived.
    pub(crate) fn read(&mut self, most: usize) -> Vec<u8> {
        let count = self.arrived.min(most);
        self.arrived -= count;
        self.bytes.drain(..count).collect()
    }

    /// Whether everything was read and the stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.end_arrived && self.bytes.is_empty()
    }

    /// Whether the end has arrived, perhaps after unread bytes.
    pub(crate) fn end_has_arrived(&self) -> bool {
        self.end_arrived
    }

    /// Whether it accepts bytes.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A connection in the network.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) address: u8,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// The server has accepted it.
    pub(crate) is_accepted: bool,
    /// There is something new for the server to notice.
    pub(crate) is_news: bool,
    /// Broken; both ends notice when they next use it.
    pub(crate) is_broken: bool,
    /// The client has vanished: nothing arrives, and nothing is read.
    pub(crate) is_silent: bool,
    /// The server has closed it.
    pub(crate) is_forgotten: bool,
}

impl Link {
    pub(crate) fn new(client: usize, address: u8, capacity: usize) -> Self {
        Self {
            client,
            address,
            up: Pipe::new(capacity),
            down: Pipe::new(capacity),
            is_accepted: false,
            is_news: true,
            is_broken: false,
            is_silent: false,
            is_forgotten: false,
        }
    }

    /// Whether bytes are on their way that will be read.
    pub(crate) fn is_moving(&self) -> bool {
        let is_open = !self.is_broken && !self.is_silent;
        let moves_up = !self.is_forgotten && !self.up.is_empty();
        is_open && (moves_up || !self.down.is_empty())
    }

    /// Whether the client has ended its side and read all that came, but gets no end of the
    /// server's side.
    pub(crate) fn is_cut_off(&self) -> bool {
        let is_open = !self.is_broken && !self.is_silent && !self.down.is_ended;
        is_open && self.up.is_over() && self.down.is_empty()
    }

    pub(crate) fn step(&mut self, rng: &mut Rng, is_urgent: bool) {
        if self.is_broken || self.is_silent {
            return;
        }
        self.is_news |= self.up.step(rng, is_urgent);
        self.down.step(rng, is_urgent);
    }
}
