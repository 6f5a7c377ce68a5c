//! Work without a request: housekeeping, deadlines, closed connections, and graceful shutdown.

use crate::engine::connection::{Due, Facts, State};
use crate::engine::deadlines::NEVER_MS;
use crate::engine::io::{Event, Io};
use crate::engine::{Engine, Stopped, Stopping};
use crate::ids::ConnId;
use crate::push::{Done, Outcome};
use crate::wire::purpose::ToClient;

/// Milliseconds between two slices of housekeeping.
const HOUSEKEEPING_MS: u64 = 250;
/// The same while there is more to do: a slice takes well under a millisecond, so background work
/// takes a tenth of the time at most.
const MORE_HOUSEKEEPING_MS: u64 = 10;
/// Milliseconds for which a due slice may be postponed to a turn without requests, so that it
/// delays none.
const POSTPONE_MS: u64 = 250;

/// Whether to run a slice now that is due at `due_ms`.
const fn is_time(now_ms: u64, due_ms: u64, has_requests: bool) -> bool {
    let postpone_ms = if has_requests { POSTPONE_MS } else { 0 };
    now_ms >= due_ms.saturating_add(postpone_ms)
}

impl Engine<'_> {
    /// Takes up changes by the command line. Returns whether that wrote to the database.
    pub(super) fn take_up_changes(&mut self, io: &mut impl Io) -> Result<bool, Stopped> {
        debug_assert!(!self.service.has_written(), "the last turn is not over");
        let mut has_written = false;
        let is_due = self.now.ms() >= self.schedule.housekeeping_ms;
        if is_due || !self.queues.ready.is_empty() || io.is_helper_busy() {
            has_written = self.service.take_up_changes();
            self.observe(io, Event::ChangesTaken)?;
            self.check_storage()?;
        }
        Ok(has_written)
    }

    /// Runs a slice of housekeeping if it is time. True: it waits for the next turn, since this one
    /// `has_written` already.
    pub(super) fn run_housekeeping(
        &mut self,
        io: &mut impl Io,
        has_written: bool,
    ) -> Result<bool, Stopped> {
        let now_ms = self.now.ms();
        while let Some(done) = io.next_pushed() {
            self.service.push_done(done);
        }
        // In a turn that reads none, they do not postpone it again.
        let has_requests = !self.queues.ready.is_empty() && !self.schedule.has_skipped_requests;
        let is_time = is_time(now_ms, self.schedule.housekeeping_ms, has_requests)
            || self.service.has_sent_pushes() && !has_requests;
        let is_due = is_time || self.service.wants_housekeeping();
        if is_due && !has_written {
            debug_assert!(!self.service.has_written(), "housekeeping has a COMMIT of its own");
            let has_more = self.service.housekeeping_timed(|| io.elapsed_us());
            self.hand_over_pushes(io);
            self.schedule.housekeeping_ms =
                now_ms + if has_more { MORE_HOUSEKEEPING_MS } else { HOUSEKEEPING_MS };
            debug_assert!(!self.service.has_written(), "a slice ends with its COMMIT");
            self.observe(io, Event::Housekept)?;
            self.check_storage()?;
        }
        Ok(is_due && has_written)
    }

    /// Passes pushes to the threads that send them. Without such threads a push fails.
    fn hand_over_pushes(&mut self, io: &mut impl Io) {
        while let Some(push) = self.service.pop_push() {
            let id = push.id;
            if !io.submit_push(push) {
                let why = "no thread sends pushes".to_owned();
                let outcome = Outcome::Failed { why, is_unreachable: false };
                self.service.push_done(Done { id, outcome });
            }
        }
    }

    /// A turn of its own that does not write to the database, so it cannot fail with the requests.
    pub(super) fn run_maintenance(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        debug_assert!(!self.service.has_written(), "requests have a COMMIT of their own");
        self.begin_shutdown();
        self.shed_inbound();
        self.check_deadlines();
        while let Some((job, conn)) = self.service.pop_job() {
            debug_assert!(self.service.is_waiting(conn), "{conn} does not wait for a password");
            io.submit(job, conn).map_err(Stopped::Helper)?;
        }
        self.service.pump();
        self.observe(io, Event::Pumped)?;
        self.check_storage()
    }

    /// Makes the service forget the connections that have ended, and drops the closed ones.
    pub(super) fn forget_ended(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        if self.queues.ended.is_empty() {
            return Ok(());
        }
        for conn in std::mem::take(&mut self.queues.ended) {
            let Some(connection) = self.connections.get(conn.at()) else { continue };
            if connection.id != conn {
                continue;
            }
            let (state, address) = (connection.state(), connection.address);
            debug_assert!(state >= State::Draining, "{conn} has not ended");
            self.service.closed(conn);
            self.service.outbox.remove(conn.index);
            debug_assert!(!self.service.is_authorized(conn), "{conn} keeps its session");
            self.observe(io, Event::ConnectionForgotten(conn))?;
            if state == State::Closed {
                self.uncount(conn);
                io.close(conn);
                let removed = self.connections.remove(conn.at());
                debug_assert_eq!(removed.inbound_bytes, 0, "{conn} stays in the sum");
                debug_assert!(removed.counted.is_none(), "{conn} stays in the counts");
                log::debug!("{conn} from {address} is closed");
            }
        }
        self.service.end_turn();
        self.observe(io, Event::ConnectionsForgotten)?;
        self.check_storage()
    }

    /// Graceful shutdown: queues the closing frames of every connection, once.
    fn begin_shutdown(&mut self) {
        if self.schedule.stopping != Stopping::Requested {
            return;
        }
        self.schedule.stopping = Stopping::Disconnecting;
        self.service.disconnect_all();
        let open = |(_, connection): (usize, &super::Connection)| {
            (connection.state() == State::Open).then_some(connection.id)
        };
        let conns: Vec<ConnId> = self.connections.iter().filter_map(open).collect();
        for conn in conns {
            self.give_up_hook(conn);
            self.enter(conn, State::Flushing);
        }
        debug_assert!(
            self.connections.iter().all(|(_, connection)| connection.state() > State::Open),
            "a connection outlives the shutdown"
        );
    }

    // ---- deadlines -----------------------------------------------------------------------------

    fn facts(&self, conn: ConnId, is_writable: bool) -> Facts {
        let since = self.service.unauthorized_since_ms(conn);
        Facts {
            unauthorized_since_ms: since.filter(|_| !self.service.is_waiting(conn)),
            is_held: self.service.is_held(conn),
            // Frames staged in this turn were not written yet, so the stream may still accept them.
            is_full: !is_writable,
        }
    }

    /// Pushes the next deadline of a connection, unless it is among the deadlines already.
    pub(super) fn arm(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        if connection.id != conn {
            return;
        }
        let facts = self.facts(conn, connection.is_writable);
        let (at_ms, _) = connection.deadline(&self.options, &facts);
        // A password check has no deadline: look again when it should be done.
        let at_ms = at_ms.min(self.now.ms().saturating_add(self.options.idle_timeout_ms));
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if at_ms < connection.timer_ms {
            connection.timer_ms = at_ms;
            self.deadlines.push(at_ms, conn);
            let connections = &self.connections;
            self.deadlines.trim(connections.len(), |at_ms, conn| {
                let connection = connections.get(conn.at()).filter(|found| found.id == conn);
                connection.is_some_and(|found| found.timer_ms == at_ms)
            });
        }
        let armed = self.connections.get(conn.at()).map(|connection| connection.timer_ms);
        debug_assert!(armed.is_some_and(|armed_ms| armed_ms <= at_ms), "{conn} is armed later");
        debug_assert!(armed.is_some_and(|armed_ms| self.deadlines.next_ms() <= armed_ms));
    }

    fn check_deadlines(&mut self) {
        let now_ms = self.now.ms();
        while let Some((at_ms, conn)) = self.deadlines.pop_due(now_ms) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn || connection.timer_ms != at_ms {
                continue;
            }
            debug_assert!(at_ms <= now_ms, "{conn} is due later");
            connection.timer_ms = NEVER_MS;
            let is_writable = connection.is_writable;
            let facts = self.facts(conn, is_writable);
            let Some(connection) = self.connections.get(conn.at()) else { continue };
            let (due_ms, due) = connection.deadline(&self.options, &facts);
            if due_ms <= now_ms {
                self.act(conn, due);
            }
            self.arm(conn);
        }
    }

    fn act(&mut self, conn: ConnId, due: Due) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert_eq!(connection.id, conn, "another connection has its place");
        let address = connection.address;
        match due {
            Due::Probe => {
                debug_assert!(!connection.is_probed, "{conn} is probed twice");
                debug_assert_eq!(connection.state(), State::Open, "{conn} answers no HEARTBEAT");
                connection.is_probed = true;
                connection.heard_ms = self.now.ms();
                self.service.stage_bare(conn, ToClient::Heartbeat);
            }
            Due::Disconnect(why) => {
                log::debug!("{conn} from {address} is closed: {why}");
                self.service.stage_bare(conn, ToClient::Disconnect);
                self.enter(conn, State::Flushing);
            }
            Due::Http(phase) => self.expire_http(conn, phase),
            Due::Drop(why) => {
                log::debug!("{conn} from {address} is dropped: {why}");
                self.mark_closed(conn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_waits_for_a_turn_without_requests_but_not_for_ever() {
        assert!(!is_time(999, 1_000, false));
        assert!(is_time(1_000, 1_000, false));
        assert!(!is_time(1_000 + POSTPONE_MS - 1, 1_000, true));
        assert!(is_time(1_000 + POSTPONE_MS, 1_000, true));
    }
}
