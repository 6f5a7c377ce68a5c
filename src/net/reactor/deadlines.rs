//! Deadlines of connections: signs of life, time-outs.

use crate::ids::ConnId;
use crate::net::connection::{Connection, Due, PeerState, Phase};
use crate::net::timers::NEVER_MS;
use crate::wire::purpose::ToClient;

use super::{Reactor, list};

impl Reactor<'_, '_> {
    pub(super) fn peer_state(&self, connection: &Connection) -> PeerState {
        let conn = connection.id;
        let since = self.service.unauthorized_since_ms(conn);
        PeerState {
            unauthorized_since_ms: since.filter(|_| !self.service.is_waiting(conn)),
            is_held: self.service.is_held(conn),
            // What is staged in this turn has not been offered to the socket yet.
            is_full: !connection.is_writable
                && (self.service.outbox.pending_bytes(conn.index) > 0
                    || connection.transport.wants_write()),
        }
    }

    /// Makes sure that the next deadline of a connection is among the timers.
    pub(super) fn arm(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        let state = self.peer_state(connection);
        let (at_ms, _) = connection.deadline(self.config, &state);
        // Waiting for a password has no deadline; look again when it should be over.
        let at_ms = at_ms.min(self.clock.now_ms().saturating_add(self.config.idle_timeout_ms));
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if at_ms < connection.timer_ms {
            connection.timer_ms = at_ms;
            self.timers.push(at_ms, conn);
            let connections = &self.connections;
            self.timers.trim(connections.len(), |at_ms, conn| {
                let connection = connections.get(conn.at()).filter(|found| found.id == conn);
                connection.is_some_and(|found| found.timer_ms == at_ms)
            });
        }
    }

    pub(super) fn check_deadlines(&mut self) {
        let now_ms = self.clock.now_ms();
        while let Some((at_ms, conn)) = self.timers.pop_due(now_ms) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn || connection.timer_ms != at_ms {
                continue;
            }
            connection.timer_ms = NEVER_MS;
            let Some(connection) = self.connections.get(conn.at()) else { continue };
            let state = self.peer_state(connection);
            let (due_ms, due) = connection.deadline(self.config, &state);
            if due_ms <= now_ms {
                self.act(conn, due);
            }
            self.arm(conn);
        }
    }

    pub(super) fn act(&mut self, conn: ConnId, due: Due) {
        let now_ms = self.clock.now_ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        match due {
            Due::Ask => {
                connection.is_asked = true;
                connection.heard_ms = now_ms;
                self.service.stage_bare(conn, ToClient::Heartbeat);
            }
            Due::Close(why) => {
                log::debug!("{conn} from {} is closed: {why}", self.service.peer_address(conn));
                connection.enter(Phase::Flushing, now_ms);
                list(&mut self.ready, connection);
                self.service.stage_bare(conn, ToClient::Disconnect);
                self.service.close_queue(conn);
            }
            Due::Forget(why) => {
                log::debug!("{conn} from {} is dropped: {why}", self.service.peer_address(conn));
                self.lose(conn);
            }
        }
    }
}
