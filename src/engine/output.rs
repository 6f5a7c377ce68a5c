//! Writing: one write per connection and turn, and ending this side of a connection.

use std::io;

use crate::engine::connection::{Connection, Input, State};
use crate::engine::io::Io;
use crate::engine::protocol::Protocol;
use crate::engine::shared_write::SharedWrite;
use crate::engine::{Engine, Stopping, enqueue};
use crate::ids::ConnId;
use crate::outbox::Dirty;
use crate::wire::frame::{self, Parsed};

impl Engine<'_> {
    pub(super) fn flush(&mut self, io: &mut impl Io) {
        let now_us = self.now.us;
        let peers = self.service.outbox.dirty_count();
        if peers == 0 && self.schedule.has_skipped_requests {
            // The next turn comes at once, with requests: held writes wait for it.
            return;
        }
        debug_assert!(!self.service.has_written(), "something leaves before its COMMIT");
        let broadcast_bytes = self.service.outbox.broadcast().len();
        let may_hold = self.schedule.stopping == Stopping::No
            && self.write_coalescer.may_hold(peers, broadcast_bytes, now_us);
        while let Some(Dirty { index, is_notified_only }) = self.service.outbox.take_dirty() {
            let pending_bytes = self.service.outbox.pending_bytes(index);
            let is_held = may_hold
                && is_notified_only
                && self.write_coalescer.hold(index, pending_bytes, now_us);
            if !is_held {
                self.flush_taken(io, index, peers);
            }
        }
        if may_hold {
            io.end_flush();
        } else {
            self.flush_held(io);
        }
    }

    /// Writes to each connection whose write was delayed.
    pub fn flush_held(&mut self, io: &mut impl Io) {
        let held = self.write_coalescer.release();
        for &index in &held {
            self.flush_taken(io, index, held.len());
        }
        self.write_coalescer.keep(held);
        io.end_flush();
    }

    /// Writes the queue of one of `peers` connections.
    fn flush_taken(&mut self, io: &mut impl Io, index: u32, peers: usize) {
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        let conn = connection.id;
        if connection.state() > State::Flushing {
            // This side has ended: a write would fail, and the reset destroys bytes that the peer
            // has not read yet.
            return self.service.outbox.empty(index);
        }
        let pending_bytes = self.service.outbox.pending_bytes(index);
        let outbox = &mut self.service.outbox;
        let (is_framed, framing) = match &mut connection.protocol {
            Protocol::Purpose => (true, None),
            Protocol::WebSocket(websocket) if connection.raw_bytes == 0 => {
                (true, Some(&mut websocket.sender))
            }
            _ => (false, None),
        };
        let mut head_bytes = 0;
        let shared = if is_framed && connection.is_writable && outbox.is_worth_parts(index) {
            let mut queue = SharedWrite::new(outbox, index, framing);
            let shared = io.write_shared(conn, &mut queue, peers);
            head_bytes = queue.head_bytes();
            shared
        } else {
            None
        };
        match shared {
            Some(Ok(count)) => {
                let left = self.service.outbox.pending_bytes(index);
                debug_assert_eq!(count + left, pending_bytes, "each byte is sent, or waits");
                debug_assert_eq!(self.service.outbox.slice_bytes(index), 0, "the rest is flat");
                connection.progress_ms = self.now.ms();
                // The stream is full; it reports when it accepts more.
                connection.is_writable = self.service.outbox.pending_bytes(index) == 0;
                self.service.metrics.sent_bytes += (count + head_bytes) as u64;
                if connection.is_writable && connection.protocol.wants_write() {
                    self.flush_one(io, conn);
                } else {
                    self.after_write(io, conn);
                }
            }
            Some(Err(e)) if !is_transient(&e) => self.write_failed(conn, &e),
            _ => {
                self.service.outbox.flatten(index);
                self.flush_one(io, conn);
            }
        }
    }

    /// Usually one write; TLS accepts only a few records at a time, so it may take several.
    fn flush_one(&mut self, io: &mut impl Io, conn: ConnId) {
        let index = conn.index;
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        while connection.is_writable {
            debug_assert_eq!(self.service.outbox.slice_bytes(index), 0, "slices stand in between");
            let waiting = self.service.outbox.sendable(index);
            let (head, body) = next_chunk(&mut connection.protocol, connection.raw_bytes, waiting);
            let offered_bytes = head.len() + body.len();
            let written = if !head.is_empty() || !body.is_empty() {
                io.write(conn, head, body)
            } else if io.wants_write(conn) {
                let flushed = io.flush(conn);
                flushed.map(|()| super::Transfer { bytes: 0, cost: 0, is_exhausted: false })
            } else {
                break;
            };
            match written {
                Ok(transfer) => {
                    connection.progress_ms = self.now.ms();
                    connection.is_writable = !transfer.is_exhausted;
                    debug_assert!(transfer.bytes <= offered_bytes, "more is sent than offered");
                    debug_assert!(
                        transfer.bytes > 0 || transfer.is_exhausted || offered_bytes == 0,
                        "a stream that accepts nothing is exhausted"
                    );
                    let sent = take_sent(connection, transfer.bytes);
                    debug_assert!(sent <= transfer.bytes, "heads are not of the queue");
                    self.service.outbox.advance(index, sent);
                    self.service.metrics.sent_bytes += transfer.bytes as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.write_failed(conn, &e),
            }
        }
        self.after_write(io, conn);
    }

    fn write_failed(&mut self, conn: ConnId, error: &io::Error) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        log::debug!("{conn} from {} is lost: {error}", connection.address);
        self.mark_closed(conn);
    }

    /// Continues a connection after a write.
    fn after_write(&mut self, io: &mut impl Io, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        let is_flushed = self.service.outbox.pending_bytes(conn.index) == 0
            && !connection.protocol.wants_write()
            && !io.wants_write(conn);
        match connection.state() {
            State::Open if is_flushed => self.after_flush(conn),
            State::Flushing if is_flushed => self.end_own_side(io, conn),
            State::Open | State::Flushing => self.arm(conn),
            State::Draining | State::Closed => {}
        }
        self.count_authorized(conn);
    }

    /// The queue is empty: reads again from a connection that had to wait for that.
    fn after_flush(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert_eq!(self.service.outbox.pending_bytes(conn.index), 0, "{conn} has to wait");
        debug_assert_eq!(connection.state(), State::Open, "{conn} reads no more");
        if connection.is_enqueued {
            return;
        }
        let body_bytes_max = self.options.body_bytes_max;
        let has_whole = match connection.protocol {
            Protocol::Undecided => false,
            Protocol::Http(_) => !connection.inbox.is_empty(),
            // A peer that has ended its side is closed where the rest of its frames is handled.
            Protocol::Purpose | Protocol::WebSocket(_) if connection.input == Input::Ended => true,
            Protocol::Purpose | Protocol::WebSocket(_) => {
                !matches!(frame::parse(&connection.inbox, body_bytes_max), Parsed::Incomplete)
            }
        };
        let has_input = connection.is_readable() || has_whole;
        if has_input && !connection.protocol.is_held() && !self.service.is_held(conn) {
            enqueue(&mut self.queues.ready, connection);
        }
    }

    /// Everything is sent: ends this side, and waits a limited time for the peer to end its own.
    fn end_own_side(&mut self, io: &mut impl Io, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert_eq!(connection.state(), State::Flushing, "{conn} ends its side once");
        debug_assert_eq!(self.service.outbox.pending_bytes(conn.index), 0, "{conn} is not flushed");
        let is_peer_closed = match &mut connection.protocol {
            // After sending Close, wait for the peer's Close before the stream below it ends.
            Protocol::WebSocket(websocket) if !websocket.is_peer_closed => {
                if connection.input == Input::Ended {
                    return self.mark_closed(conn);
                }
                connection.input = Input::Ending;
                self.enter(conn, State::Draining);
                return self.arm(conn);
            }
            Protocol::WebSocket(websocket) => {
                websocket.has_ended = true;
                true
            }
            _ => false,
        };
        match io.end(conn) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.arm(conn),
            Err(_) => return self.mark_closed(conn),
            Ok(()) => {}
        }
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if connection.input == Input::Ended && !is_peer_closed {
            return self.mark_closed(conn);
        }
        // The end of the peer's side may already have come, without another event.
        connection.input = Input::Ending;
        self.enter(conn, State::Draining);
        self.arm(conn);
    }
}

/// The next bytes to write: the protocol's head, then a slice of the waiting bytes.
fn next_chunk<'a>(
    protocol: &'a mut Protocol,
    raw_bytes: usize,
    waiting: &'a [u8],
) -> (&'a [u8], &'a [u8]) {
    match protocol {
        Protocol::WebSocket(websocket) if raw_bytes == 0 => {
            let chunk = websocket.sender.chunk(waiting.len());
            debug_assert!(chunk.body_bytes <= waiting.len(), "a message has bytes that wait");
            (chunk.head, waiting.get(..chunk.body_bytes).unwrap_or_default())
        }
        Protocol::WebSocket(_) => {
            debug_assert!(raw_bytes <= waiting.len(), "the answer to the upgrade is whole");
            (&[], waiting.get(..raw_bytes).unwrap_or(waiting))
        }
        _ => {
            debug_assert_eq!(raw_bytes, 0, "without messages, none begins later");
            (&[], waiting)
        }
    }
}

/// How many of the written bytes came from the outbox.
fn take_sent(connection: &mut Connection, count: usize) -> usize {
    match &mut connection.protocol {
        Protocol::WebSocket(websocket) if connection.raw_bytes == 0 => websocket.sender.sent(count),
        Protocol::WebSocket(_) => {
            debug_assert!(count <= connection.raw_bytes, "a message begins after these");
            connection.raw_bytes -= count.min(connection.raw_bytes);
            count
        }
        _ => count,
    }
}

/// Whether to retry a failed shared write as an ordinary one.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::Unsupported)
}
