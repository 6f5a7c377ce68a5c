//! The network between a client and the server: two streams of bytes that arrive late, in other
//! pieces than they were sent in, or not at all. What is under way is bounded, as in a socket.

use std::collections::VecDeque;

use crate::rng::Rng;

/// Bytes under way when all is to come to rest.
const URGENT_BYTES: usize = 1 << 20;

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    /// How many of them have arrived.
    arrived: usize,
    capacity: usize,
    /// The writer has ended its side.
    pub(crate) is_ended: bool,
    /// The end has arrived, too.
    end_arrived: bool,
}

impl Pipe {
    pub(crate) fn new(capacity: usize) -> Self {
        let bytes = VecDeque::new();
        Self { bytes, arrived: 0, capacity, is_ended: false, end_arrived: false }
    }

    /// Takes what there is room for; how many bytes that was.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity.saturating_sub(self.bytes.len()));
        self.bytes.extend(&bytes[..count]);
        count
    }

    /// Some of what is under way arrives. True when something did.
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

    /// Up to `most` of the bytes that have arrived.
    pub(crate) fn read(&mut self, most: usize) -> Vec<u8> {
        let count = self.arrived.min(most);
        self.arrived -= count;
        self.bytes.drain(..count).collect()
    }

    /// Whether everything was read and no more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.end_arrived && self.bytes.is_empty()
    }

    /// Whether the end of the stream has arrived, perhaps behind bytes that are not read.
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

/// A connection as the network has it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) address: u8,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// The server has taken it.
    pub(crate) is_accepted: bool,
    /// Something new is there for the server to notice.
    pub(crate) is_news: bool,
    /// Broken, and both ends find out when they next touch it.
    pub(crate) is_broken: bool,
    /// The client is gone without a word: nothing comes, and nothing is taken.
    pub(crate) is_silent: bool,
    /// The server has closed it, and reads nothing more.
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

    /// Whether bytes are under way that somebody will take.
    pub(crate) fn is_moving(&self) -> bool {
        let is_open = !self.is_broken && !self.is_silent;
        let moves_up = !self.is_forgotten && !self.up.is_empty();
        is_open && (moves_up || !self.down.is_empty())
    }

    pub(crate) fn step(&mut self, rng: &mut Rng, is_urgent: bool) {
        if self.is_broken || self.is_silent {
            return;
        }
        self.is_news |= self.up.step(rng, is_urgent);
        self.down.step(rng, is_urgent);
    }
}
