//! Reading, within the shares of a turn, and handing frames to the service.

use std::io;

use zeroize::Zeroize as _;

use crate::ids::ConnId;
use crate::limits::{
    HEADER_BYTES, TURN_HANDSHAKES, TURN_READ_BYTES, TURN_READ_BYTES_PER_CONNECTION,
    TURN_REQUESTS_PER_CONNECTION,
};
use crate::net::connection::Phase;
use crate::net::listener::network;
use crate::net::transport::{Transport, looks_like_tls};
use crate::service::Flow;
use crate::wire::frame::{self, Parsed};
use crate::wire::purpose::ToServer;

use super::arrivals::uncount;
use super::output::log_lost;
use super::{Reactor, list};

/// Bytes of a socket's input that are thrown away in one turn.
const DISCARD_BYTES: usize = 64 * 1024;

fn what_is_oversized(bytes: &[u8]) -> &'static str {
    if looks_like_tls(bytes) {
        "speaks TLS to a plain port"
    } else {
        "sends a frame that is too large"
    }
}

/// Whether there is a frame with a password among these, or the beginning of one.
fn begins_secret(mut frames: &[u8]) -> bool {
    while let Some((header, rest)) = frames.split_first_chunk::<HEADER_BYTES>() {
        let [a, b, c, d, purpose, _] = *header;
        if ToServer::from_byte(purpose).is_some_and(ToServer::has_secret) {
            return true;
        }
        frames = rest.get(u32::from_le_bytes([a, b, c, d]) as usize..).unwrap_or_default();
    }
    false
}

impl Reactor<'_, '_> {
    pub(super) fn take_done(&mut self) {
        while let Some(done) = self.helper.try_recv() {
            self.service.job_done(&done);
        }
    }

    pub(super) fn list_resumed(&mut self) {
        while let Some(conn) = self.service.pop_resumed() {
            if let Some(connection) = self.connections.get_mut(conn.at())
                && connection.id == conn
            {
                list(&mut self.ready, connection);
                // Its deadlines go on.
                self.arm(conn);
            }
        }
    }

    /// Reads from the connections that have something, as far as the turn's shares go. Whoever gets
    /// no share in this turn is the first in the next.
    pub(super) fn read(&mut self) {
        let mut reading = std::mem::replace(&mut self.ready, std::mem::take(&mut self.reading));
        let mut handshakes = 0;
        let mut first_passed_over = None;
        for conn in reading.drain(..) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn {
                continue;
            }
            connection.is_listed = false;
            if connection.transport.is_handshaking() {
                handshakes += 1;
                if handshakes > TURN_HANDSHAKES {
                    first_passed_over.get_or_insert(self.ready.len());
                    list(&mut self.ready, connection);
                    continue;
                }
            }
            let listed = self.ready.len();
            if connection.phase != Phase::Open {
                self.discard(conn);
            } else if !self.service.is_held(conn) && !self.read_one(conn) {
                first_passed_over.get_or_insert(listed);
            }
        }
        if let Some(first) = first_passed_over {
            self.ready.rotate_left(first);
        }
        self.reading = reading;
    }

    /// Reads what a connection has, within its share, and handles what is whole. False when there
    /// is no room left in this turn.
    ///
    /// The share counts what is left over from earlier turns: who sends many small requests would
    /// otherwise be read faster than it is served, until its leftovers fill every turn's room.
    pub(super) fn read_one(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return true };
        let start = self.arena_used;
        let left = self.arena.len() - start;
        if left < connection.inbox.len() + self.config.body_limit_bytes + HEADER_BYTES
            || self.turn_read_bytes >= TURN_READ_BYTES
        {
            list(&mut self.ready, connection);
            return false;
        }
        let mut inbox = std::mem::take(&mut connection.inbox);
        let mut end = start + inbox.len();
        if let Some(place) = self.arena.get_mut(start..end) {
            place.copy_from_slice(&inbox);
        }
        // Room for the longest frame at least, so that an unfinished one can be finished.
        let share = TURN_READ_BYTES_PER_CONNECTION.max(self.config.body_limit_bytes + HEADER_BYTES);
        let most = self.arena.len().min(start + share);
        let (first, records_first) = (end, connection.transport.record_bytes());
        while connection.is_readable
            && !connection.is_ended
            && end < most
            && connection.transport.record_bytes() - records_first < 2 * share as u64
        {
            let Some(room) = self.arena.get_mut(end..most) else { break };
            match connection.transport.read(room) {
                Ok(0) => connection.is_ended = true,
                Ok(count) => {
                    // A socket that gave less than there was room for has no more for now, and
                    // says so when it has; unless its end is near, which must be read.
                    let is_drained = count < most - end
                        && !connection.is_ending
                        && matches!(connection.transport, Transport::Plain(_));
                    end += count;
                    self.service.metrics.received_bytes += count as u64;
                    connection.heard_ms = self.clock.now_ms();
                    connection.is_asked = false;
                    connection.is_readable = !is_drained;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    // The alert that says so leaves, then this side ends.
                    let address = self.service.peer_address(conn);
                    let words = format_args!("{conn} from {address} is closed: {e}");
                    self.log_rate_limit.say(self.clock.now_ms(), words);
                    self.hang_up(conn);
                    return self.forget_read(start, end, inbox);
                }
                Err(e) => {
                    log_lost(self.service, conn, &e);
                    self.lose(conn);
                    return self.forget_read(start, end, inbox);
                }
            }
        }
        // Records of TLS may hold next to nothing, and cost as much.
        let records = connection.transport.record_bytes() - records_first;
        self.turn_read_bytes += (end - first).max(records as usize);
        if connection.transport.wants_write() {
            self.service.outbox.touch(conn.index);
        }
        self.arena_read = self.arena_read.max(end);
        self.feed(conn, start, end);
        if self.has_secret {
            inbox.zeroize();
        }
        true
    }

    /// What was read of a connection that is lost is handled no more; but it may be secret.
    fn forget_read(&mut self, start: usize, end: usize, mut inbox: Vec<u8>) -> bool {
        self.arena_read = self.arena_read.max(end);
        self.has_secret |= begins_secret(self.arena.get(start..end).unwrap_or_default());
        inbox.zeroize();
        true
    }

    /// Handles the whole frames between two places of the turn's buffer, and keeps the rest.
    pub(super) fn feed(&mut self, conn: ConnId, mut start: usize, end: usize) {
        let body_bytes_max = self.config.body_limit_bytes;
        let mut requests = 0;
        let mut oversized = None;
        let mut flow = Flow::Continue;
        while flow == Flow::Continue && requests < TURN_REQUESTS_PER_CONNECTION {
            let bytes = self.arena.get(start..end).unwrap_or_default();
            match frame::parse(bytes, body_bytes_max) {
                Parsed::Incomplete => break,
                Parsed::TooLarge { task } => {
                    oversized = Some(task);
                    break;
                }
                Parsed::Frame(frame) => {
                    requests += 1;
                    self.has_secret |=
                        ToServer::from_byte(frame.purpose).is_some_and(ToServer::has_secret);
                    flow = self.service.frame(conn, &frame);
                    start += frame.bytes();
                }
            }
        }
        if let Some(task) = oversized {
            let what = what_is_oversized(self.arena.get(start..end).unwrap_or_default());
            let address = self.service.peer_address(conn);
            self.log_rate_limit
                .say(self.clock.now_ms(), format_args!("{conn} from {address} {what}"));
            flow = self.service.oversized(conn, task);
        }
        self.arena_used = start;
        let rest = self.arena.get(start..end).unwrap_or_default();
        self.has_secret |= begins_secret(rest);
        let now_ms = self.clock.now_ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if flow == Flow::Close {
            connection.is_farewell = oversized.is_none();
            return self.hang_up(conn);
        }
        connection.inbox = rest.to_vec();
        let has_whole_frame = !matches!(frame::parse(rest, body_bytes_max), Parsed::Incomplete);
        if flow == Flow::Continue {
            if has_whole_frame
                || connection.is_readable
                || connection.transport.has_buffered_input()
            {
                list(&mut self.ready, connection);
            }
            if connection.is_ended && !has_whole_frame {
                // What came in whole is handled; the answers leave, then the connection ends.
                connection.enter(Phase::Flushing, now_ms);
                self.service.close_queue(conn);
            }
        }
        if requests > 0 {
            self.count_authorized(conn);
        }
    }

    /// Throws away what a connection on its way out still says, so that no reset destroys what it
    /// is being sent.
    pub(super) fn discard(&mut self, conn: ConnId) {
        let start = self.arena_used;
        let end = self.arena.len().min(start + DISCARD_BYTES);
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let Some(room) = self.arena.get_mut(start..end) else { return };
        if connection.is_ended {
            return;
        }
        if room.is_empty() {
            // A read into nothing would pass for the end of the stream.
            return list(&mut self.ready, connection);
        }
        match connection.transport.read(room) {
            Ok(0) => {
                connection.is_ended = true;
                if connection.phase == Phase::Draining {
                    self.lose(conn);
                }
            }
            Ok(count) => {
                room.get_mut(..count).unwrap_or_default().zeroize();
                list(&mut self.ready, connection);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => list(&mut self.ready, connection),
            Err(_) => self.lose(conn),
        }
    }

    /// A connection is over; it is forgotten before the next turn, not while others may look at it.
    pub(super) fn lose(&mut self, conn: ConnId) {
        let now_ms = self.clock.now_ms();
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.phase != Phase::Gone
        {
            connection.enter(Phase::Gone, now_ms);
            self.gone.push(conn);
        }
    }

    /// Keeps the count of unauthorized connections per address.
    pub(super) fn count_authorized(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let is_stranger = !self.service.is_authorized(conn);
        if is_stranger == connection.is_counted {
            return;
        }
        connection.is_counted = is_stranger;
        let network = network(self.service.peer_address(conn));
        if is_stranger {
            *self.unauthorized.entry(network).or_default() += 1;
            self.arm(conn);
        } else {
            uncount(&mut self.unauthorized, network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::Request;

    #[test]
    fn the_beginning_of_a_password_is_seen_behind_other_frames() {
        let mut frames = Vec::new();
        Request::Hello { major: 1, minor: 0 }.write(&mut frames, 1);
        Request::Heartbeat { echo: b"hi" }.write(&mut frames, 2);
        assert!(!begins_secret(&frames));
        let begins = frames.len();
        Request::Login { login: "anna", password: "correct horse" }.write(&mut frames, 3);
        for end in begins..=frames.len() {
            assert_eq!(begins_secret(&frames[..end]), end >= begins + HEADER_BYTES);
        }
    }
}
