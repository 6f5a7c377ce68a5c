//! Checks of what must hold between two turns, for all connections. Release builds skip them.

use crate::engine::Engine;
use crate::engine::connection::{Connection, State};

/// Connections up to which all of them are checked: a check visits each.
const CHECKED_CONNECTIONS_MAX: usize = 32;

impl Engine<'_> {
    /// Checks that the sums, the lists and the deadlines agree with the connections.
    pub(super) fn check_connections(&self) {
        if !cfg!(debug_assertions) || self.connections.len() > CHECKED_CONNECTIONS_MAX {
            return;
        }
        let (mut inbound_bytes, mut enqueued, mut counted) = (0, 0, 0);
        for (index, connection) in &self.connections {
            debug_assert_eq!(connection.id.at(), index, "an id names its place in the table");
            self.check_connection(connection);
            inbound_bytes += connection.inbound_bytes;
            enqueued += usize::from(connection.is_enqueued);
            counted += usize::from(connection.counted.is_some());
        }
        debug_assert_eq!(self.inbound_bytes, inbound_bytes, "the sum of unhandled bytes");
        debug_assert_eq!(self.admission.unauthenticated.total(), counted, "the unauthenticated");
        let ready = self.queues.ready.iter();
        let is_marked = |found: &Connection| found.is_enqueued;
        let listed = ready.filter(|conn| {
            let found = self.connections.get(conn.at()).filter(|found| found.id == **conn);
            debug_assert!(found.is_none_or(is_marked), "{conn} is listed and not marked");
            found.is_some()
        });
        debug_assert_eq!(listed.count(), enqueued, "a marked connection is listed once");
    }

    fn check_connection(&self, connection: &Connection) {
        let (conn, state) = (connection.id, connection.state());
        let is_ended = self.queues.ended.contains(&conn);
        debug_assert!(state != State::Closed || is_ended, "{conn} is closed and stays");
        debug_assert!(
            state == State::Open || connection.own_inbound_bytes() == 0,
            "{conn} keeps bytes that nobody handles"
        );
        debug_assert!(
            state != State::Flushing || self.service.outbox.is_closed(conn.index),
            "{conn} may get frames after its last"
        );
        debug_assert!(
            state > State::Flushing
                || connection.counted.is_none()
                || !self.service.is_authorized(conn),
            "{conn} has a session and counts as unauthenticated"
        );
        let armed_max_ms = self.now.ms().saturating_add(self.options.idle_timeout_ms);
        debug_assert!(connection.timer_ms <= armed_max_ms, "{conn} has no deadline");
        debug_assert!(self.deadlines.next_ms() <= connection.timer_ms, "{conn} is never woken");
        debug_assert!(
            connection.heard_ms <= self.now.ms() && connection.progress_ms <= self.now.ms()
        );
        let pending_bytes = self.service.outbox.pending_bytes(conn.index);
        debug_assert!(connection.raw_bytes <= pending_bytes || state > State::Flushing);
        debug_assert!(
            state > State::Flushing
                || !connection.is_writable
                || pending_bytes == 0
                || self.service.outbox.has_dirty()
                || self.write_coalescer.is_holding()
                || self.schedule.has_skipped_requests,
            "{conn} has bytes that nobody writes"
        );
    }
}
