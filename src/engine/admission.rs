//! Admission of connections: their ids, and which unauthenticated one is evicted when the table is
//! full.
//!
//! Owns the counts of these per address and network. The oldest connection of the largest network
//! is evicted, so no network can lock out the others, however many addresses it has.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::auth::throttle::Network;
use crate::engine::connection::Counted;
use crate::engine::scrape::Scrapes;
use crate::ids::ConnId;

/// Entries of ended connections that a network's list may hold, beyond twice those in use.
const STALE_MAX: usize = 16;

/// The unauthenticated connections of one network.
#[derive(Debug, Default)]
struct NetworkPeers {
    count: usize,
    /// Oldest first. Entries that have ended, or have a session by now, are skipped.
    order: VecDeque<ConnId>,
}

/// Who may connect, and under which id.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// The generation of the next connection's id.
    pub(super) next_generation: u32,
    pub(super) unauthenticated: Unauthenticated,
    pub(super) scrapes: Scrapes,
    /// Connections evicted in this turn; they are dropped at its end.
    pub(super) evicted: usize,
}

impl Admission {
    pub(super) fn begin_turn(&mut self) {
        self.evicted = 0;
        self.scrapes.begin_turn();
    }
}

/// All unauthenticated connections.
#[derive(Debug, Default)]
pub(super) struct Unauthenticated {
    origins: HashMap<Counted, usize>,
    networks: HashMap<Network, NetworkPeers>,
    /// Networks, ordered by number of connections.
    sizes: BTreeSet<(usize, Network)>,
}

impl Unauthenticated {
    /// Number of connections of an origin, by kind (Purpose or HTTP).
    pub(super) fn of(&self, counted: Counted) -> usize {
        self.origins.get(&counted).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, conn: ConnId, counted: Counted) {
        *self.origins.entry(counted).or_default() += 1;
        let network = counted.origin.network();
        let network_peers = self.networks.entry(network).or_default();
        let was_sorted = self.sizes.remove(&(network_peers.count, network));
        debug_assert_eq!(was_sorted, network_peers.count > 0, "{network:?} is sorted by its count");
        network_peers.count += 1;
        network_peers.order.push_back(conn);
        debug_assert!(network_peers.count <= network_peers.order.len(), "all are in the order");
        self.sizes.insert((network_peers.count, network));
        debug_assert_eq!(self.sizes.len(), self.networks.len());
    }

    /// Uncounts a connection that has a session now, or is gone. `is_in`: whether a connection is
    /// still unauthenticated.
    pub(super) fn remove(&mut self, counted: Counted, is_in: impl Fn(ConnId) -> bool) {
        debug_assert!(self.of(counted) > 0, "{counted:?} is not counted");
        debug_assert!(self.networks.contains_key(&counted.origin.network()));
        if let Some(count) = self.origins.get_mut(&counted) {
            *count -= 1;
            if *count == 0 {
                self.origins.remove(&counted);
            }
        }
        let network = counted.origin.network();
        let Some(network_peers) = self.networks.get_mut(&network) else { return };
        let was_sorted = self.sizes.remove(&(network_peers.count, network));
        debug_assert!(was_sorted && network_peers.count > 0, "{network:?} is sorted by its count");
        network_peers.count = network_peers.count.saturating_sub(1);
        if network_peers.count == 0 {
            self.networks.remove(&network);
            debug_assert_eq!(self.sizes.len(), self.networks.len(), "each network has one size");
            return;
        }
        debug_assert!(network_peers.count <= network_peers.order.len());
        self.sizes.insert((network_peers.count, network));
        if network_peers.order.len() > 2 * network_peers.count + STALE_MAX {
            network_peers.order.retain(|conn| is_in(*conn));
        }
    }

    /// Number of all connections.
    pub(super) fn total(&self) -> usize {
        self.networks.values().map(|network_peers| network_peers.count).sum()
    }

    /// The oldest connection of the largest network that is not `excused`; an excused one only if
    /// there is no other.
    pub(super) fn oldest_of_largest(
        &mut self,
        is_in: impl Fn(ConnId) -> bool,
        is_excused: impl Fn(ConnId) -> bool,
    ) -> Option<ConnId> {
        let (_, network) = self.sizes.last()?;
        let network_peers = self.networks.get_mut(network)?;
        while network_peers.order.front().is_some_and(|conn| !is_in(*conn)) {
            network_peers.order.pop_front();
        }
        let found = network_peers.order.iter().position(|conn| is_in(*conn) && !is_excused(*conn));
        let first = network_peers.order.front().map(|_| 0);
        debug_assert!(first.is_some(), "a network that is counted has a connection");
        network_peers.order.get(found.or(first)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::throttle::Origin;

    fn origin(text: &str) -> Counted {
        Counted { origin: Origin::of(text.parse().unwrap()), is_web: false }
    }

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn the_oldest_of_the_largest_network_makes_room() {
        let mut unauthenticated = Unauthenticated::default();
        unauthenticated.add(conn(0), origin("198.51.100.7"));
        for index in 1..=3 {
            // Another address each time, of one /48.
            unauthenticated.add(conn(index), origin(&format!("2001:db8:1:{index}::1")));
        }
        let (all, nobody) = (|_| true, |_| false);
        assert_eq!(unauthenticated.oldest_of_largest(all, nobody), Some(conn(1)));
        let is_busy = |conn: ConnId| conn.index == 1;
        assert_eq!(unauthenticated.oldest_of_largest(all, is_busy), Some(conn(2)));
        assert_eq!(unauthenticated.oldest_of_largest(all, all), Some(conn(1)));
        let without_first = |conn: ConnId| conn.index != 1;
        unauthenticated.remove(origin("2001:db8:1:1::1"), without_first);
        assert_eq!(unauthenticated.oldest_of_largest(without_first, nobody), Some(conn(2)));
        assert_eq!(unauthenticated.of(origin("2001:db8:1:1::1")), 0);
        assert_eq!(unauthenticated.of(origin("198.51.100.7")), 1);
    }

    #[test]
    fn what_has_ended_is_not_kept() {
        let mut unauthenticated = Unauthenticated::default();
        let origin = origin("192.0.2.1");
        unauthenticated.add(conn(0), origin);
        for index in 1..10_000 {
            unauthenticated.add(conn(index), origin);
            unauthenticated.remove(origin, |conn| conn.index == 0);
        }
        let network_peers = unauthenticated.networks.values().next().unwrap();
        assert!(network_peers.order.len() <= 2 + STALE_MAX + 1, "{}", network_peers.order.len());
        unauthenticated.remove(origin, |_| false);
        assert!(unauthenticated.networks.is_empty() && unauthenticated.sizes.is_empty());
        assert_eq!(unauthenticated.oldest_of_largest(|_| true, |_| false), None);
    }
}
