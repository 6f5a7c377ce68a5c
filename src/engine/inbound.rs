//! Inbound buffers: how many bytes peers have sent that are not handled yet, and who has to go when
//! they are too many.
//!
//! Counted is what a connection holds between two turns: the beginning of a frame or of a request,
//! frames that wait, a hook's message that waits for the write lock, incomplete TLS records. A
//! connection's count is updated after it was read from, in one addition.
//!
//! Two bounds hold: one for each user, and one for everybody. Above them, the holder of the most
//! bytes loses connections, the one with the most bytes first. A holder is a user; without a
//! session, it is the network of the address, and its bytes count several times: an unauthenticated
//! peer has no use for large frames, and nothing to lose.

use std::collections::{BinaryHeap, HashMap};

use crate::auth::throttle::{Network, Origin};
use crate::engine::Engine;
use crate::engine::connection::{Connection, State};
use crate::engine::io::Io;
use crate::engine::protocol::Protocol;
use crate::ids::{ConnId, UserId};
use crate::limits::{SESSIONS_PER_USER_MAX, USER_INBOUND_BYTES_MAX};
use crate::metrics::Rejection;
use crate::wire::purpose::ToClient;

/// How many times the bytes of unauthenticated peers count.
const UNAUTHENTICATED_WEIGHT: usize = 8;

/// While no connection of a user holds more, all of them together stay below the user's bound.
const UNCHECKED_BYTES_MAX: usize = USER_INBOUND_BYTES_MAX / SESSIONS_PER_USER_MAX;

/// Who is responsible for a connection's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Holder {
    Network(Network),
    User(UserId),
}

impl Holder {
    /// The bytes as they are compared among holders.
    const fn weigh(self, bytes: usize) -> usize {
        match self {
            Self::Network(_) => bytes.saturating_mul(UNAUTHENTICATED_WEIGHT),
            Self::User(_) => bytes,
        }
    }
}

/// What one holder's connections hold.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// With the bytes of each; sorted before it is used, the largest last.
    connections: Vec<(usize, ConnId)>,
}

impl Held {
    /// Whether the sum is that of the connections.
    fn is_counted(&self) -> bool {
        self.bytes == self.connections.iter().map(|(bytes, _)| bytes).sum::<usize>()
    }
}

/// The connections that have to go until `excess` bytes are free: always the largest of the holder
/// who holds the most.
fn largest_first(holders: HashMap<Holder, Held>, mut excess: usize) -> Vec<ConnId> {
    let mut heap: BinaryHeap<(usize, Holder)> = BinaryHeap::with_capacity(holders.len());
    let mut holders = holders;
    for (holder, held) in &mut holders {
        debug_assert!(held.is_counted(), "{holder:?} holds what its connections do");
        held.connections.sort_unstable();
        heap.push((holder.weigh(held.bytes), *holder));
    }
    let mut chosen = Vec::new();
    while excess > 0
        && let Some((_, holder)) = heap.pop()
    {
        let Some(held) = holders.get_mut(&holder) else { continue };
        let Some((bytes, conn)) = held.connections.pop() else { continue };
        debug_assert!(bytes <= held.bytes, "{conn} holds more than {holder:?}");
        chosen.push(conn);
        excess = excess.saturating_sub(bytes);
        held.bytes -= bytes;
        heap.push((holder.weigh(held.bytes), holder));
    }
    chosen
}

impl Engine<'_> {
    /// Updates the count of a connection's inbound bytes.
    pub(super) fn count_inbound(&mut self, io: &impl Io, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if connection.id != conn || connection.state() == State::Closed {
            return;
        }
        let bytes = connection.own_inbound_bytes() + io.inbound_bytes(conn);
        let before = std::mem::replace(&mut connection.inbound_bytes, bytes);
        debug_assert!(before <= self.inbound_bytes, "{conn} is not in the sum");
        self.inbound_bytes = self.inbound_bytes - before + bytes;
        if bytes > UNCHECKED_BYTES_MAX && bytes > before {
            self.queues.users_to_check.push(conn);
        }
    }

    /// Closes connections while peers hold more inbound bytes than the memory limit allows.
    pub(super) fn shed_inbound(&mut self) {
        for conn in std::mem::take(&mut self.queues.users_to_check) {
            self.shed_user(conn);
        }
        let limit = self.service.inbound_limit();
        if self.inbound_bytes <= limit {
            return;
        }
        let held = || self.connections.iter().map(|(_, connection)| connection.inbound_bytes);
        debug_assert_eq!(self.inbound_bytes, held().sum::<usize>());
        // An eighth more than necessary, so that the next search is not due at once.
        let excess = self.inbound_bytes - (limit - limit / 8);
        let mut holders: HashMap<Holder, Held> = HashMap::new();
        for (_, connection) in &self.connections {
            if connection.inbound_bytes > 0 && connection.state() == State::Open {
                let held = holders.entry(self.holder(connection)).or_default();
                held.bytes += connection.inbound_bytes;
                held.connections.push((connection.inbound_bytes, connection.id));
            }
        }
        for conn in largest_first(holders, excess) {
            self.shed(conn);
        }
        debug_assert!(
            self.inbound_bytes <= limit
                || self
                    .connections
                    .iter()
                    .all(|(_, found)| { found.inbound_bytes == 0 || found.state() != State::Open }),
            "the sum is within its limit, or nobody is left to close"
        );
    }

    /// Closes the largest connections of a connection's user while the user holds too much.
    fn shed_user(&mut self, conn: ConnId) {
        let Some(user) = self.service.user_of(conn) else { return };
        // However large frames may be, one is allowed.
        let limit = USER_INBOUND_BYTES_MAX.max(2 * self.options.body_bytes_max);
        let mut held = Held::default();
        for &index in self.service.connections_of(user) {
            let found = self.connections.get(index as usize);
            let Some(connection) = found.filter(|found| found.state() == State::Open) else {
                continue;
            };
            debug_assert_eq!(
                self.service.user_of(connection.id),
                Some(user),
                "a connection of {user}"
            );
            held.bytes += connection.inbound_bytes;
            held.connections.push((connection.inbound_bytes, connection.id));
        }
        debug_assert!(held.bytes <= self.inbound_bytes, "a user holds a part of the sum");
        if held.bytes > limit {
            let excess = held.bytes - limit;
            let holders = HashMap::from([(Holder::User(user), held)]);
            for conn in largest_first(holders, excess) {
                self.shed(conn);
            }
        }
    }

    fn holder(&self, connection: &Connection) -> Holder {
        match self.service.user_of(connection.id) {
            Some(user) => Holder::User(user),
            None => Holder::Network(Origin::of(connection.address).network()),
        }
    }

    /// Closes a connection for the bytes that it holds.
    fn shed(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        debug_assert_eq!((connection.id, connection.state()), (conn, State::Open), "closed once");
        let message = format_args!(
            "{conn} from {} is closed: {} bytes of it wait, and all peers hold too many",
            connection.address, connection.inbound_bytes
        );
        self.log_rate_limit.say(self.now.ms(), message);
        self.service.metrics.count_rejection(Rejection::Memory);
        if matches!(connection.protocol, Protocol::Http(_)) {
            return self.reject_for_memory(conn);
        }
        self.service.stage_bare(conn, ToClient::Disconnect);
        self.enter(conn, State::Flushing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    fn user(id: u32) -> Holder {
        Holder::User(UserId::new(id).unwrap())
    }

    fn network(text: &str) -> Holder {
        Holder::Network(Origin::of(text.parse().unwrap()).network())
    }

    fn held(connections: &[(usize, u32)]) -> Held {
        Held {
            bytes: connections.iter().map(|(bytes, _)| bytes).sum(),
            connections: connections.iter().map(|&(bytes, index)| (bytes, conn(index))).collect(),
        }
    }

    fn holders() -> HashMap<Holder, Held> {
        HashMap::from([
            (user(1), held(&[(700, 1), (900, 2), (800, 3)])),
            (user(2), held(&[(1_000, 4)])),
            (network("192.0.2.1"), held(&[(200, 5), (10, 6)])),
        ])
    }

    #[test]
    fn the_largest_connection_of_the_largest_holder_goes_first() {
        assert_eq!(largest_first(holders(), 0), []);
        assert_eq!(largest_first(holders(), 1), [conn(2)]);
        assert_eq!(largest_first(holders(), 900), [conn(2)]);
        // 2,400 became 1,500, and those without a session count eight times.
        assert_eq!(largest_first(holders(), 901), [conn(2), conn(5)]);
        assert_eq!(largest_first(holders(), 1_101), [conn(2), conn(5), conn(3)]);
        // One large connection is more than what is left of the first.
        assert_eq!(largest_first(holders(), 1_901), [conn(2), conn(5), conn(3), conn(4)]);
    }

    #[test]
    fn there_is_an_end_when_nobody_holds_anything() {
        assert_eq!(largest_first(holders(), usize::MAX).len(), 6);
        assert_eq!(largest_first(HashMap::new(), 1), []);
    }
}
