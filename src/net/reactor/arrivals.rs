//! Connections come and go.

use std::collections::HashMap;
use std::net::IpAddr;

use mio::Interest;

use crate::ids::ConnId;
use crate::limits::DESCRIPTORS_RESERVED;
use crate::metrics::Refused;
use crate::net::connection::Connection;
use crate::net::listener::{Accepted, Port, RETRY_MS, network};
use crate::net::timers::NEVER_MS;
use crate::net::transport::Transport;

use super::{GENERATIONS, Reactor, list, token};

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 256;

/// As many connections as the operator wants and the open-file limit allows; the limit is raised as
/// far as it may be.
pub(super) fn connections_max(wanted: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the open-file limit stays: {error}");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let allowed = allowed.saturating_sub(DESCRIPTORS_RESERVED).max(1);
    if allowed < wanted {
        log::info!("the open-file limit allows {allowed} connections");
    }
    wanted.min(allowed)
}

pub(super) fn uncount(unauthorized: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = unauthorized.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            unauthorized.remove(&address);
        }
    }
}

impl Reactor<'_, '_> {
    pub(super) fn forget_gone(&mut self) {
        for conn in std::mem::take(&mut self.parting) {
            self.part(conn);
        }
        for conn in std::mem::take(&mut self.gone) {
            self.part(conn);
            if self.connections.get(conn.at()).is_some_and(|connection| connection.id == conn) {
                self.connections.remove(conn.at());
            }
        }
        // A descriptor may be free again.
        if self.accept_again_ms != NEVER_MS && self.clock.now_ms() >= self.accept_again_ms {
            self.accept_again_ms = NEVER_MS;
        }
    }

    /// Tells the service that a connection is gone, once.
    fn part(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if connection.id != conn || std::mem::replace(&mut connection.is_parted, true) {
            return;
        }
        let address = self.service.peer_address(conn);
        if std::mem::take(&mut connection.is_counted) {
            uncount(&mut self.unauthorized, network(address));
        }
        self.service.closed(conn);
        log::debug!("{conn} from {address} is closed");
    }

    pub(super) fn accept(&mut self) {
        if self.accept_again_ms != NEVER_MS {
            return;
        }
        let mut left = ACCEPTS_PER_TURN;
        for place in 0..self.listeners.len() {
            while left > 0 {
                left -= 1;
                let Some(listener) = self.listeners.get_mut(place) else { break };
                if !listener.is_ready {
                    break;
                }
                let port = listener.port;
                match self.spare.accept(&listener.socket) {
                    Accepted::Stream(stream, address) => {
                        self.welcome(stream, address.ip().to_canonical(), port);
                    }
                    Accepted::Nobody => listener.is_ready = false,
                    Accepted::Lost => {}
                    Accepted::NoRoom => {
                        self.service.metrics.refuse(Refused::Descriptors);
                        self.accept_again_ms = self.clock.now_ms() + RETRY_MS;
                        return;
                    }
                }
            }
        }
    }

    /// Takes a connection in, or closes it without a byte when there are too many.
    pub(super) fn welcome(&mut self, stream: mio::net::TcpStream, address: IpAddr, port: Port) {
        let most = self.config.max_unauthorized_per_address;
        let strangers = self.unauthorized.get(&network(address)).copied().unwrap_or(0);
        let is_full = self.connections.len() >= self.connections_max;
        if is_full || (most > 0 && strangers >= most) {
            self.service.metrics.refuse(if is_full { Refused::Full } else { Refused::Address });
            log::debug!("a connection from {address} is one too many");
            return;
        }
        // Every write is a whole turn's answers; there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let transport = match (port, &self.identity) {
            (Port::Tls, Some(identity)) => identity.accept(stream),
            _ => Ok(Transport::Plain(stream)),
        };
        let transport = match transport {
            Ok(transport) => transport,
            Err(error) => {
                self.service.metrics.refuse(Refused::Failed);
                return log::warn!("a connection from {address} is refused: {error}");
            }
        };
        let now_ms = self.clock.now_ms();
        let entry = self.connections.vacant_entry();
        let conn = ConnId { index: entry.key() as u32, generation: self.next_generation };
        self.next_generation = (self.next_generation + 1) % GENERATIONS;
        let connection = entry.insert(Connection::new(conn, transport, now_ms));
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            self.poll.registry().register(&mut connection.transport, token(conn), interest);
        if let Err(error) = registered {
            self.connections.remove(conn.at());
            self.service.metrics.refuse(Refused::Failed);
            return log::warn!("a connection from {address} cannot be polled: {error}");
        }
        self.service.metrics.accepted += 1;
        connection.is_counted = true;
        *self.unauthorized.entry(network(address)).or_default() += 1;
        // Its first bytes often come with it.
        connection.is_readable = true;
        list(&mut self.ready, connection);
        self.service.connected(conn, address);
        self.arm(conn);
        log::debug!("{conn} from {address} is open");
    }
}
