//! Sending: one write for each connection and turn, and the way out of a connection.

use std::io::{self, Write as _};

use crate::ids::ConnId;
use crate::net::connection::Phase;
use crate::net::transport::Transport;
use crate::net::zero_copy::{self, ZeroCopyBuffer};
use crate::outbox::Dirty;
use crate::outbox::parts::Part;
use crate::service::Service;
use crate::wire::frame::{self, Parsed};

use super::{Reactor, list};

pub(super) fn log_lost(service: &Service<'_>, conn: ConnId, error: &io::Error) {
    log::debug!("{conn} from {} is lost: {error}", service.peer_address(conn));
}

/// Whether what could not be sent from pages can be written.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::Unsupported)
}

impl Reactor<'_, '_> {
    pub(super) fn flush(&mut self) {
        let now_us = self.clock.now_us();
        let told = self.service.outbox.dirty_count();
        let may_hold = self.stopping_until_ms.is_none()
            && self.write_coalescer.may_hold(told, self.service.outbox.block().len(), now_us);
        while let Some(Dirty { index, is_told_only }) = self.service.outbox.take_dirty() {
            let pending_bytes = self.service.outbox.pending_bytes(index);
            let is_held =
                may_hold && is_told_only && self.write_coalescer.hold(index, pending_bytes, now_us);
            if !is_held {
                self.flush_taken(index, told);
            }
        }
        if may_hold {
            self.pages.clear();
        } else {
            self.flush_held();
        }
    }

    /// One write for each connection that was held back.
    pub(super) fn flush_held(&mut self) {
        let held = self.write_coalescer.release();
        for &index in &held {
            self.flush_taken(index, held.len());
        }
        self.write_coalescer.keep(held);
        self.pages.clear();
    }

    /// Sends to one of so many connections what it was told and asked for.
    fn flush_taken(&mut self, index: u32, peers: usize) {
        let connection = self.connections.get(index as usize);
        if connection.is_some_and(|connection| connection.phase == Phase::Draining) {
            // Nothing follows the end of this side: a write would fail,
            // and the connection go with a reset that destroys what the peer has not read yet.
            return self.service.outbox.remove(index);
        }
        let is_shared = self.service.outbox.is_worth_parts(index)
            && self.is_worth_pages(peers)
            && self.flush_parts(index);
        if !is_shared {
            self.service.outbox.put_together(index);
            self.flush_one(index);
        }
    }

    /// Whether the block stands in pages, or is worth to be put there.
    fn is_worth_pages(&mut self, peers: usize) -> bool {
        self.pages.is_set()
            || peers >= zero_copy::PEERS_MIN && self.pages.put(self.service.outbox.block())
    }

    /// Sends to a connection from the pages that all share. False when it has to be put together
    /// and written to as any other.
    fn flush_parts(&mut self, index: u32) -> bool {
        let Some(connection) = self.connections.get_mut(index as usize) else { return false };
        let Transport::Plain(socket) = &connection.transport else { return false };
        if connection.phase == Phase::Gone || !connection.is_writable {
            return false;
        }
        let conn = connection.id;
        let pages = &mut self.pages;
        ZeroCopyBuffer::set_whole(socket, true);
        let sent = self.service.outbox.send_parts(index, |part| match part {
            Part::Own(bytes) => (&*socket).write(bytes),
            Part::Block(piece) => pages.send(socket, piece),
        });
        ZeroCopyBuffer::set_whole(socket, false);
        match sent {
            Ok(count) => {
                connection.taken_ms = self.clock.now_ms();
                // The socket is full, and says so when it no longer is.
                connection.is_writable = self.service.outbox.pending_bytes(index) == 0;
                self.service.metrics.sent_bytes += count as u64;
                self.after_write(conn);
            }
            Err(e) if is_passing(&e) => self.flush_one(index),
            Err(e) => {
                log_lost(self.service, conn, &e);
                self.lose(conn);
            }
        }
        true
    }

    /// One write, unless the transport cuts it: TLS takes a few records at a time.
    pub(super) fn flush_one(&mut self, index: u32) {
        let now_ms = self.clock.now_ms();
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        let conn = connection.id;
        if matches!(connection.phase, Phase::Gone) {
            return;
        }
        while connection.is_writable {
            let bytes = self.service.outbox.sendable(index);
            let written = if bytes.is_empty() {
                if !connection.transport.wants_write() {
                    break;
                }
                connection.transport.flush().map(|()| 0)
            } else {
                connection.transport.write(bytes)
            };
            match written {
                Ok(count) => {
                    let is_short = count < bytes.len();
                    connection.taken_ms = now_ms;
                    self.service.outbox.advance(index, count);
                    self.service.metrics.sent_bytes += count as u64;
                    if is_short && matches!(connection.transport, Transport::Plain(_)) {
                        // The socket is full, and says so when it no longer is.
                        connection.is_writable = false;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    log_lost(self.service, conn, &e);
                    return self.lose(conn);
                }
            }
        }
        self.after_write(conn);
    }

    /// What becomes of a connection that was written to.
    fn after_write(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        let is_flushed = self.service.outbox.pending_bytes(conn.index) == 0
            && !connection.transport.wants_write();
        match connection.phase {
            Phase::Open if !is_flushed => self.arm(conn),
            Phase::Open => self.after_flush(conn),
            // Input that was fed again may have something under way that it had not before.
            Phase::Flushing if is_flushed && !self.service.is_held(conn) => self.end_own_side(conn),
            Phase::Flushing => self.arm(conn),
            Phase::Draining | Phase::Gone => {}
        }
        self.count_authorized(conn);
    }

    /// The queue ran empty: a connection that had to wait for that is read from again.
    pub(super) fn after_flush(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let body_bytes_max = self.config.body_limit_bytes;
        let has_input = connection.is_readable
            || !matches!(frame::parse(&connection.inbox, body_bytes_max), Parsed::Incomplete);
        if has_input && !connection.is_listed && !self.service.is_held(conn) {
            list(&mut self.ready, connection);
        }
    }

    /// Everything is sent: ends this side, and waits a moment for the peer to end its own.
    pub(super) fn end_own_side(&mut self, conn: ConnId) {
        let now_ms = self.clock.now_ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        match connection.transport.shutdown_write() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.arm(conn),
            Err(_) => return self.lose(conn),
            Ok(()) => {}
        }
        if connection.is_ended {
            return self.lose(conn);
        }
        if connection.is_farewell {
            self.parting.push(conn);
        }
        connection.enter(Phase::Draining, now_ms);
        connection.is_readable = true;
        list(&mut self.ready, connection);
        self.arm(conn);
    }
}
