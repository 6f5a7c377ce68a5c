//! Reading within the budgets of a turn, and passing complete frames to the service.

use std::io;

use crate::engine::connection::{Input, State};
use crate::engine::io::{Event, Io};
use crate::engine::protocol::Protocol;
use crate::engine::{Engine, Stopped, enqueue};
use crate::ids::ConnId;
use crate::limits::{HEADER_BYTES, TURN_HANDSHAKES, TURN_READ_BYTES};
use crate::service::Flow;
use crate::wire::frame::{self, Parsed};
use crate::wire::purpose::ToServer;

/// Whether the first bytes are a TLS ClientHello. As the header of a frame they would announce a
/// length far beyond the limit.
pub fn looks_like_tls(first: &[u8]) -> bool {
    matches!(first, [0x16, 0x03, 0x00..=0x04, ..])
}

/// What is left of the turn's read budget, in bytes.
struct Budget {
    bytes: usize,
    handshakes: usize,
}

impl Engine<'_> {
    pub(super) fn handle_results(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        while let Some(done) = self.service.pop_deferred_job() {
            self.service.job_done(&done);
            self.observe(io, Event::JobDone)?;
        }
        while let Some(done) = io.next_done() {
            self.service.job_done(&done);
            self.observe(io, Event::JobDone)?;
        }
        Ok(())
    }

    pub(super) fn enqueue_resumed(&mut self) {
        while let Some(conn) = self.service.pop_resumed() {
            self.resume_hook(conn);
            self.enqueue(conn);
            // A deadline may have been suspended while it was held.
            self.arm(conn);
        }
    }

    /// Reads from the ready connections, within the turn's budget. Connections that found it spent
    /// come first in the next turn.
    pub(super) fn read(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        let mut reading =
            std::mem::replace(&mut self.queues.ready, std::mem::take(&mut self.queues.reading));
        debug_assert!(self.queues.ready.is_empty(), "the spare list has connections");
        let mut budget = Budget { bytes: TURN_READ_BYTES, handshakes: TURN_HANDSHAKES };
        let mut first_passed_over = None;
        let mut outcome = Ok(());
        for conn in reading.drain(..) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn {
                continue;
            }
            debug_assert!(connection.is_enqueued, "{conn} is listed twice");
            connection.is_enqueued = false;
            let state = connection.state();
            let is_handshaking = io.is_handshaking(conn);
            debug_assert!(self.buffer.bytes().is_empty(), "bytes of another connection are left");
            if budget.bytes == 0 || is_handshaking && budget.handshakes == 0 {
                first_passed_over.get_or_insert(self.queues.ready.len());
                enqueue(&mut self.queues.ready, connection);
                continue;
            }
            budget.handshakes -= usize::from(is_handshaking);
            if state != State::Open {
                self.discard(io, conn);
                self.count_inbound(io, conn);
            } else if !connection.protocol.is_held() && !self.service.is_held(conn) {
                outcome = self.read_one(io, conn, &mut budget);
                self.count_inbound(io, conn);
                if outcome.is_err() {
                    break;
                }
            }
        }
        reading.clear();
        debug_assert!(self.queues.reading.is_empty(), "the spare list is in use");
        debug_assert!(first_passed_over.is_none_or(|first| first < self.queues.ready.len()));
        if let Some(first) = first_passed_over {
            self.queues.ready.rotate_left(first);
        }
        self.queues.reading = reading;
        outcome
    }

    /// Reads from one connection, within its budget, and handles complete frames.
    ///
    /// The budget includes bytes left over from earlier turns. Otherwise a peer that sends many
    /// small requests would be read faster than it is served, until its leftovers filled every
    /// turn.
    fn read_one(
        &mut self,
        io: &mut impl Io,
        conn: ConnId,
        budget: &mut Budget,
    ) -> Result<(), Stopped> {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return Ok(()) };
        debug_assert_eq!((connection.id, connection.state()), (conn, State::Open));
        self.buffer.begin(&connection.inbox);
        let kept_bytes = connection.inbox.len();
        debug_assert_eq!(self.buffer.bytes().len(), kept_bytes, "what was kept comes first");
        let mut cost = 0;
        let cost_max = 2 * self.buffer.free().len();
        while connection.is_readable() && cost < cost_max {
            let free = self.buffer.free();
            if free.is_empty() {
                break;
            }
            match io.read(conn, free) {
                Ok(transfer) if transfer.bytes == 0 => connection.input = Input::Ended,
                Ok(transfer) => {
                    self.buffer.fill(transfer.bytes);
                    cost += transfer.cost;
                    self.service.metrics.received_bytes += transfer.bytes as u64;
                    debug_assert!(
                        self.now.ms() >= connection.heard_ms,
                        "{conn} sent in the future"
                    );
                    connection.heard_ms = self.now.ms();
                    connection.is_probed = false;
                    // A stream that is ending is read until its end is found.
                    if transfer.is_exhausted && connection.input == Input::Readable {
                        connection.input = Input::Drained;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    connection.input = Input::Drained;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.buffer.abandon();
                    self.read_failed(conn, &e);
                    return Ok(());
                }
            }
        }
        budget.bytes = budget.bytes.saturating_sub(cost);
        if let Protocol::WebSocket(websocket) = &mut connection.protocol {
            let mut has_ended = false;
            self.buffer.unwrap(kept_bytes, |bytes| {
                let (payload_bytes, is_last) = websocket.unwrap(bytes);
                has_ended = is_last;
                payload_bytes
            });
            if has_ended {
                connection.input = Input::Ended;
            }
            // Pings and pongs are signs of life, too.
            if cost > 0 {
                self.service.heard(conn);
            }
        }
        if io.wants_write(conn) || connection.protocol.wants_write() {
            self.service.outbox.touch(conn.index);
        }
        self.handle_input(io, conn)
    }

    /// Passes the bytes read to the protocol of the connection.
    fn handle_input(&mut self, io: &mut impl Io, conn: ConnId) -> Result<(), Stopped> {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return Ok(()) };
        if matches!(connection.protocol, Protocol::Undecided) {
            match Protocol::decide(self.buffer.bytes()) {
                Some(true) => self.begin_http(conn),
                Some(false) => connection.protocol = Protocol::Purpose,
                // Too few bytes to decide: an incomplete frame of Purpose.
                None if connection.input == Input::Ended => connection.protocol = Protocol::Purpose,
                None => {}
            }
        }
        let Some(connection) = self.connections.get_mut(conn.at()) else { return Ok(()) };
        debug_assert!(
            connection.state() == State::Open || connection.protocol.is_http(),
            "only HTTP rejects {conn} before its bytes are handled"
        );
        match connection.protocol {
            Protocol::Purpose | Protocol::WebSocket(_) => return self.handle_frames(io, conn),
            Protocol::Undecided => {
                debug_assert!(self.buffer.bytes().len() < HEADER_BYTES, "{conn} is decided by now");
                self.buffer.end(0, &mut connection.inbox);
                if connection.is_readable() {
                    enqueue(&mut self.queues.ready, connection);
                }
            }
            // HTTP requests are handled after the turn's COMMIT.
            Protocol::Http(_) => {
                self.buffer.note_secret();
                if connection.state() == State::Open {
                    self.buffer.end(0, &mut connection.inbox);
                    self.queues.http.push(conn);
                } else {
                    // It was rejected: an inbox would be kept, and counted, until it is closed.
                    self.buffer.abandon();
                }
            }
        }
        Ok(())
    }

    fn read_failed(&mut self, conn: ConnId, error: &io::Error) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        let address = connection.address;
        if error.kind() == io::ErrorKind::InvalidData {
            // The TLS alert is still sent, then this side ends.
            let message = format_args!("{conn} from {address} is closed: {error}");
            self.log_rate_limit.say(self.now.ms(), message);
            self.enter(conn, State::Flushing);
        } else {
            log::debug!("{conn} from {address} is lost: {error}");
            self.mark_closed(conn);
        }
    }

    /// Handles the complete frames in the read buffer, and keeps the rest.
    fn handle_frames(&mut self, io: &mut impl Io, conn: ConnId) -> Result<(), Stopped> {
        let body_bytes_max = self.options.body_bytes_max;
        let (mut at, mut requests, mut flow) = (0, 0, Flow::Continue);
        let mut has_whole_frame = false;
        while flow == Flow::Continue {
            debug_assert!(at <= self.buffer.bytes().len(), "more was handled than has arrived");
            let rest = self.buffer.bytes().get(at..).unwrap_or_default();
            match frame::parse(rest, body_bytes_max) {
                Parsed::Incomplete => break,
                _ if requests == self.options.requests_per_turn_max => {
                    has_whole_frame = true;
                    break;
                }
                Parsed::TooLarge { task } => {
                    self.log_oversized(conn, at);
                    flow = self.service.oversized(conn, task);
                    debug_assert_eq!(flow, Flow::Close, "the next frame cannot be found");
                    self.observe(io, Event::Oversized { conn, task })?;
                }
                Parsed::Frame(frame) => {
                    requests += 1;
                    flow = self.service.frame(conn, &frame);
                    let bytes = frame.bytes();
                    let is_secret =
                        ToServer::from_byte(frame.purpose).is_some_and(ToServer::has_secret);
                    let whole = rest.get(..bytes).unwrap_or_default();
                    debug_assert_eq!(whole.len(), bytes, "a parsed frame is complete");
                    let event = Event::Frame { conn, bytes: whole, flow };
                    if io.observe(event, &mut self.service).is_break() {
                        return Err(Stopped::Observer);
                    }
                    if is_secret {
                        self.buffer.note_secret();
                    }
                    at += if flow == Flow::PutBack { 0 } else { bytes };
                }
            }
        }
        debug_assert!(requests <= self.options.requests_per_turn_max);
        debug_assert!(
            !matches!(flow, Flow::Hold | Flow::PutBack) || self.service.is_held(conn),
            "{conn} waits for nothing"
        );
        let Some(connection) = self.connections.get_mut(conn.at()) else { return Ok(()) };
        debug_assert_eq!(connection.state(), State::Open, "{conn} is closed by its requests");
        self.buffer.end(at, &mut connection.inbox);
        match flow {
            Flow::Close => self.enter(conn, State::Flushing),
            // Reading continues when the connection is resumed.
            Flow::Hold | Flow::PutBack => {}
            Flow::Continue if has_whole_frame || connection.is_readable() => {
                enqueue(&mut self.queues.ready, connection);
            }
            // All complete frames are handled: send the answers, then end.
            Flow::Continue if connection.input == Input::Ended => {
                self.enter(conn, State::Flushing);
            }
            Flow::Continue => {}
        }
        if requests > 0 {
            self.count_authorized(conn);
        }
        Ok(())
    }

    fn log_oversized(&mut self, conn: ConnId, at: usize) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        let is_tls = self.buffer.bytes().get(at..).is_some_and(looks_like_tls);
        let what = match is_tls {
            true => "speaks TLS to a plain port",
            false => "sends a frame that is too large",
        };
        let message = format_args!("{conn} from {} {what}", connection.address);
        self.log_rate_limit.say(self.now.ms(), message);
    }

    /// Discards input of a connection that is closing. Unread input would cause a reset, which
    /// destroys the bytes still being sent.
    fn discard(&mut self, io: &mut impl Io, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if !connection.is_readable() || connection.state() == State::Closed {
            return;
        }
        debug_assert!(connection.state() > State::Open, "{conn} still handles requests");
        debug_assert!(connection.inbox.is_empty(), "{conn} handles no more bytes");
        self.buffer.begin(&[]);
        match io.read(conn, self.buffer.free()) {
            Ok(transfer) if transfer.bytes == 0 => {
                connection.input = Input::Ended;
                if connection.state() == State::Draining {
                    self.mark_closed(conn);
                }
            }
            Ok(transfer) => {
                self.buffer.fill(transfer.bytes);
                self.buffer.note_secret();
                enqueue(&mut self.queues.ready, connection);
                let is_draining = connection.state() == State::Draining;
                if let Protocol::WebSocket(websocket) = &mut connection.protocol
                    && !websocket.has_ended
                    && !websocket.is_peer_closed
                {
                    // A WebSocket ends with the peer's Close frame, which may come before this
                    // side's is sent; then the stream below it ends.
                    self.buffer.unwrap(0, |bytes| websocket.unwrap(bytes).0);
                    if websocket.is_peer_closed && is_draining {
                        websocket.has_ended = true;
                        if io.end(conn).is_err() {
                            self.mark_closed(conn);
                        }
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.input = Input::Drained,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                enqueue(&mut self.queues.ready, connection);
            }
            Err(_) => self.mark_closed(conn),
        }
        self.buffer.abandon();
    }
}
