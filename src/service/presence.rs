//! Connections: opened, closed, with or without a session, and with a budget of outbound bytes.

use std::net::{IpAddr, Ipv4Addr};

use crate::ids::{ChatId, ConnId, UserId};
use crate::limits;
use crate::service::Service;
use crate::service::peer::Peer;
use crate::service::roster::Roster;
use crate::store::StoreResult;

/// Bytes that are below the part of each of a user's connections, however many there are.
const USER_PART_BYTES: usize = limits::USER_OUTBOUND_BYTES_MAX / limits::SESSIONS_PER_USER_MAX;

/// Everybody who is connected.
#[derive(Default)]
pub(super) struct Presence {
    pub(super) peers: Peers,
    /// Number of connections.
    pub(super) connected: usize,
    /// Which users are online in which chats.
    pub(super) roster: Roster,
}

/// All connections, by index.
#[derive(Default)]
pub(super) struct Peers(Vec<Option<Peer>>);

impl Peers {
    /// All connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter().flatten()
    }

    /// All connections, mutable.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.0.iter_mut().flatten()
    }

    /// Length of the table, free entries included.
    pub(super) const fn places(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, conn: ConnId) -> Option<&Peer> {
        self.at(conn.index).filter(|peer| peer.conn == conn)
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Peer> {
        self.at_mut(conn.index).filter(|peer| peer.conn == conn)
    }

    pub(super) fn at(&self, index: u32) -> Option<&Peer> {
        self.0.get(index as usize)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Peer> {
        self.0.get_mut(index as usize)?.as_mut()
    }
}

impl Service<'_> {
    /// Adds a new connection.
    pub fn connected(&mut self, conn: ConnId, address: IpAddr) {
        if conn.at() >= self.presence.peers.places() {
            self.presence.peers.0.resize_with(conn.at() + 1, || None);
        }
        if let Some(place) = self.presence.peers.0.get_mut(conn.at()) {
            self.presence.connected += usize::from(place.is_none());
            *place = Some(Peer::new(conn, address, self.clock.now_ms()));
        }
    }

    /// Notes that bytes came from a connection, even if they are no frame.
    pub fn heard(&mut self, conn: ConnId) {
        if let Some(peer) = self.presence.peers.get_mut(conn) {
            peer.hear(self.clock.now_ms());
        }
    }

    /// Removes a connection. Its session lives on.
    pub fn closed(&mut self, conn: ConnId) {
        let Some(peer) = self.presence.peers.get(conn) else { return };
        if let Some(attached) = peer.state.attached {
            self.notify_so_far();
            if self.presence.roster.detach(conn.index, attached.user) {
                self.notify_presence(attached.user, false);
            }
        }
        if let Some(place) = self.presence.peers.0.get_mut(conn.at()) {
            *place = None;
            self.presence.connected -= 1;
        }
        self.outbox.remove(conn.index);
    }

    /// The remote address of a connection; 0.0.0.0 if it does not exist.
    pub fn peer_address(&self, conn: ConnId) -> IpAddr {
        self.presence.peers.get(conn).map_or(Ipv4Addr::UNSPECIFIED.into(), Peer::address)
    }

    /// Whether the connection's next frames must wait (backpressure): for password work, for the
    /// write lock, for a streamed answer, or because the peer does not read fast enough.
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.presence.peers.get(conn).is_some_and(|peer| {
            peer.waiting.is_some()
                || peer.state.waits_for_lock
                || peer.stream.is_some()
                || peer.backlog.is_some()
                || self.outbox.pending_bytes(conn.index) > self.outbound_limit(conn.index)
        })
    }

    /// Bytes that may wait for a connection before it counts as a slow consumer.
    pub(crate) fn outbound_limit(&self, index: u32) -> usize {
        // The common cases: far below any limit, or below every user's part while there is room.
        let pending = self.outbox.pending_bytes(index);
        if pending <= limits::OUTBOUND_BYTES_MIN
            || pending <= USER_PART_BYTES
                && self.outbox.buffered_bytes() <= self.outbound_share() / 2
        {
            return self.config.outbound_bytes_max;
        }
        self.outbound_budget(index)
    }

    /// The limit by fair budgets: a user's connections share one; all connections share another
    /// when much is queued for all of them.
    pub(super) fn outbound_budget(&self, index: u32) -> usize {
        let user = self.presence.peers.at(index).and_then(Peer::user);
        let own =
            user.and_then(|user| self.presence.roster.user(user)).map_or(1, |on| on.conns().len());
        let mut share = self.config.outbound_bytes_max;
        share = share.min(limits::USER_OUTBOUND_BYTES_MAX / own.max(1));
        // The first half of its part is first come, first served; the second is shared equally.
        let half = self.outbound_share() / 2;
        if self.outbox.buffered_bytes() > half {
            share = share.min(half / self.presence.connected.max(1));
        }
        share.max(limits::OUTBOUND_BYTES_MIN.min(self.config.outbound_bytes_max))
    }

    /// The part of the memory limit that is for inbound buffers alone.
    const fn inbound_share(&self) -> usize {
        self.config.memory_bytes_max / 4
    }

    /// The part of the memory limit for outbound buffers.
    pub(super) const fn outbound_share(&self) -> usize {
        self.config.memory_bytes_max - self.inbound_share()
    }

    /// Bytes that all peers together may hold in inbound buffers: what outbound ones do not use,
    /// and a quarter of the memory limit in any case.
    pub fn inbound_limit(&self) -> usize {
        let left = self.config.memory_bytes_max.saturating_sub(self.outbox.buffered_bytes());
        left.max(self.inbound_share())
    }

    /// The user of a connection; `None` without a session.
    pub fn user_of(&self, conn: ConnId) -> Option<UserId> {
        self.presence.peers.get(conn).and_then(Peer::user)
    }

    /// The indices of a user's connections.
    pub fn connections_of(&self, user: UserId) -> &[u32] {
        self.presence.roster.user(user).map_or(&[], |online| online.conns())
    }

    /// Whether a session is attached.
    pub fn is_authorized(&self, conn: ConnId) -> bool {
        self.presence.peers.get(conn).is_some_and(|peer| peer.state.attached.is_some())
    }

    /// Since when a connection has had no session, in milliseconds of the monotonic clock; `None`
    /// while it has one.
    pub fn unauthorized_since_ms(&self, conn: ConnId) -> Option<u64> {
        let peer = self.presence.peers.get(conn)?;
        peer.state.attached.is_none().then_some(peer.state.since_ms)
    }

    /// Adds a connection to the roster, if needed. True when its user was offline.
    pub(super) fn list(&mut self, index: u32, user: UserId, suspended: bool) -> StoreResult<bool> {
        if self.presence.roster.user(user).is_some_and(|online| online.conns().contains(&index)) {
            return Ok(false);
        }
        let store = &mut self.store;
        let is_first =
            self.presence.roster.attach(index, user, || store.memberships_with_policy(user))?;
        if suspended {
            self.presence.roster.deactivate(index, user);
        }
        Ok(is_first)
    }

    /// The chats of an online user, by descending id.
    pub(super) fn chats_of(&self, user: UserId) -> Vec<ChatId> {
        let chats = self.presence.roster.user(user).map_or(&[][..], |online| &online.chats);
        chats.iter().rev().map(|membership| membership.chat).collect()
    }
}
