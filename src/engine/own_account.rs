//! What the server does on its own account, between the requests and the writes of a turn.

use crate::engine::connection::{Due, Facts, State};
use crate::engine::deadlines::NEVER_MS;
use crate::engine::io::{Event, Io};
use crate::engine::{Engine, Stopped, Stopping};
use crate::ids::ConnId;
use crate::push::{Done, Outcome};
use crate::wire::purpose::ToClient;

/// Milliseconds between two slices of housekeeping.
const HOUSEKEEPING_MS: u64 = 250;
/// The same while there is more to do and nobody waits for it: a slice takes well under a
/// millisecond, so what is done behind the requests takes a tenth of the time at most.
const MORE_HOUSEKEEPING_MS: u64 = 10;
/// For how many milliseconds a slice that is due waits for a turn without requests, which would
/// have to wait for it.
const PUT_OFF_MS: u64 = 250;

/// Whether a slice is done now that is due at `due_ms`.
const fn is_time(now_ms: u64, due_ms: u64, has_requests: bool) -> bool {
    let put_off_ms = if has_requests { PUT_OFF_MS } else { 0 };
    now_ms >= due_ms.saturating_add(put_off_ms)
}

impl Engine<'_> {
    pub(super) fn take_up_changes(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        let is_due = self.now.ms() >= self.housekeeping_ms;
        if is_due || !self.ready.is_empty() || io.is_helper_busy() {
            self.service.take_up_changes();
            self.observe(io, Event::ChangesTaken)?;
            self.check_storage()?;
        }
        Ok(())
    }

    pub(super) fn keep_house(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        let now_ms = self.now.ms();
        while let Some(done) = io.next_pushed() {
            self.service.push_done(done);
        }
        let has_requests = !self.ready.is_empty();
        let is_time = is_time(now_ms, self.housekeeping_ms, has_requests)
            || self.service.has_sent_pushes() && !has_requests;
        if is_time || self.service.wants_housekeeping() {
            let has_more = self.service.housekeeping_timed(|| io.elapsed_us());
            self.hand_over_pushes(io);
            self.housekeeping_ms =
                now_ms + if has_more { MORE_HOUSEKEEPING_MS } else { HOUSEKEEPING_MS };
            self.observe(io, Event::Housekept)?;
            self.check_storage()?;
        }
        Ok(())
    }

    /// Gives pushes to threads; one for which there is none counts as failed.
    fn hand_over_pushes(&mut self, io: &mut impl Io) {
        while let Some(push) = self.service.pop_push() {
            if let Err(push) = io.submit_push(push) {
                let outcome = Outcome::Failed("no thread sends pushes".to_owned());
                self.service.push_done(Done { id: push.id, outcome });
            }
        }
    }

    /// A turn of its own, in which nothing is written: whatever becomes of the requests, it stands.
    pub(super) fn act_on_own_account(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        self.dismiss();
        self.check_deadlines();
        while let Some((job, conn)) = self.service.pop_job() {
            io.submit(job, conn).map_err(Stopped::Helper)?;
        }
        self.service.pump();
        self.observe(io, Event::Pumped)?;
        self.check_storage()
    }

    /// Has the service forget the connections that ended, and drops those that are closed.
    pub(super) fn part(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        if self.parting.is_empty() {
            return Ok(());
        }
        for conn in std::mem::take(&mut self.parting) {
            let Some(connection) = self.connections.get(conn.at()) else { continue };
            if connection.id != conn {
                continue;
            }
            let (state, address) = (connection.state(), connection.address);
            self.service.closed(conn);
            self.service.outbox.remove(conn.index);
            self.observe(io, Event::Parted(conn))?;
            if state == State::Closed {
                self.uncount(conn);
                io.close(conn);
                self.connections.remove(conn.at());
                log::debug!("{conn} from {address} is closed");
            }
        }
        self.service.end_turn();
        self.observe(io, Event::PartedAll)?;
        self.check_storage()
    }

    /// Sends every connection its last bytes, once the server is to stop.
    fn dismiss(&mut self) {
        if self.stopping != Stopping::Asked {
            return;
        }
        self.stopping = Stopping::Dismissed;
        self.service.disconnect_all();
        let open = |(_, connection): (usize, &super::Connection)| {
            (connection.state() == State::Open).then_some(connection.id)
        };
        let conns: Vec<ConnId> = self.connections.iter().filter_map(open).collect();
        for conn in conns {
            self.enter(conn, State::Flushing);
        }
    }

    // ---- deadlines -----------------------------------------------------------------------------

    fn facts(&self, conn: ConnId, is_writable: bool) -> Facts {
        let since = self.service.unauthorized_since_ms(conn);
        Facts {
            unauthorized_since_ms: since.filter(|_| !self.service.is_waiting(conn)),
            is_held: self.service.is_held(conn),
            // What is staged in this turn has not been offered to the stream yet.
            is_full: !is_writable,
        }
    }

    /// Makes sure that the next deadline of a connection is among the timers.
    pub(super) fn arm(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        if connection.id != conn {
            return;
        }
        let facts = self.facts(conn, connection.is_writable);
        let (at_ms, _) = connection.deadline(&self.options, &facts);
        // Waiting for a password has no deadline; look again when it should be over.
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
    }

    fn check_deadlines(&mut self) {
        let now_ms = self.now.ms();
        while let Some((at_ms, conn)) = self.deadlines.pop_due(now_ms) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn || connection.timer_ms != at_ms {
                continue;
            }
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
        let address = connection.address;
        match due {
            Due::Probe => {
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
                self.lose(conn);
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
        assert!(!is_time(1_000 + PUT_OFF_MS - 1, 1_000, true));
        assert!(is_time(1_000 + PUT_OFF_MS, 1_000, true));
    }
}
