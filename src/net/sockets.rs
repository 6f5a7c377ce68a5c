//! The sockets of all connections, by index: the [`Io`] that the engine uses.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use mio::{Interest, Registry};

use crate::auth::helper::{Job, JobDone, PasswordHelper};
use crate::engine::{Io, SharedWrite, Transfer};
use crate::ids::ConnId;
use crate::limits::{DESCRIPTORS_RESERVED, TLS_WRITE_BYTES_MAX};
use crate::logging::Logging;
use crate::metrics::Page;
use crate::net::clock::Clock;
use crate::net::push_sender::PushSender;
use crate::net::reactor::token;
use crate::net::transport::Transport;
use crate::net::zero_copy::{self, ZeroCopyBuffer};
use crate::outbox::parts::Part;
use crate::push;

/// How many connections are possible: the configured number, or fewer if the open-file limit, which
/// is raised as far as allowed, does not suffice.
pub(super) fn connections_max(wanted: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("cannot raise the open-file limit: {error}");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let allowed = allowed.saturating_sub(DESCRIPTORS_RESERVED).max(1);
    if allowed < wanted {
        log::info!("the open-file limit allows {allowed} connections");
    }
    wanted.min(allowed)
}

/// The sockets, the worker threads and the clock.
pub(super) struct Sockets {
    transports: Vec<Option<Transport>>,
    helper: PasswordHelper,
    /// `None`: there are no pushes.
    push_sender: Option<PushSender>,
    logging: Logging,
    zero_copy: ZeroCopyBuffer,
    /// Scratch buffer to join head and body in one TLS record.
    record: Vec<u8>,
    /// Path of the WAL, for metrics.
    wal: PathBuf,
    /// When the certificate expires, in seconds since the Unix epoch, for metrics.
    pub(super) certificate_ends_s: Option<u64>,
    pub(super) clock: Clock,
}

impl Sockets {
    pub(super) fn new(
        helper: PasswordHelper,
        push_sender: Option<PushSender>,
        logging: Logging,
        data: &Path,
    ) -> Self {
        let mut wal = data.as_os_str().to_owned();
        wal.push("-wal");
        Self {
            wal: wal.into(),
            transports: Vec::new(),
            record: Vec::new(),
            helper,
            push_sender,
            logging,
            zero_copy: ZeroCopyBuffer::default(),
            certificate_ends_s: None,
            clock: Clock::start(),
        }
    }

    /// Adds the socket of a connection.
    pub(super) fn open(
        &mut self,
        conn: ConnId,
        mut transport: Transport,
        registry: &Registry,
    ) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut transport, token(conn), interest)?;
        if conn.at() >= self.transports.len() {
            self.transports.resize_with(conn.at() + 1, || None);
        }
        if let Some(place) = self.transports.get_mut(conn.at()) {
            debug_assert!(place.is_none(), "{conn} takes the place of another");
            *place = Some(transport);
        }
        Ok(())
    }

    fn get(&self, conn: ConnId) -> Option<&Transport> {
        self.transports.get(conn.at())?.as_ref()
    }

    fn get_mut(&mut self, conn: ConnId) -> io::Result<&mut Transport> {
        let transport = self.transports.get_mut(conn.at()).and_then(Option::as_mut);
        transport.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Io for Sockets {
    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Transfer> {
        let transport = self.get_mut(conn)?;
        let records_before = transport.record_bytes();
        let bytes = transport.read(buffer)?;
        // A TLS record with almost no content costs as much as a full one.
        let record_bytes = transport.record_bytes() - records_before;
        let cost = bytes.max(usize::try_from(record_bytes).unwrap_or(usize::MAX));
        // A plain socket that returned less than asked for has no more for now.
        let is_exhausted = bytes < buffer.len() && matches!(transport, Transport::Plain(_));
        Ok(Transfer { bytes, cost, is_exhausted })
    }

    fn write(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Transfer> {
        let transport = self.transports.get_mut(conn.at()).and_then(Option::as_mut);
        let transport = transport.ok_or(io::ErrorKind::NotConnected)?;
        let count = if head.is_empty() {
            transport.write(body)?
        } else if matches!(transport, Transport::Plain(_)) {
            transport.write_both(head, body)?
        } else {
            // Both in one record; encryption copies the bytes anyway.
            self.record.clear();
            self.record.extend_from_slice(head);
            let fits = body.len().min(TLS_WRITE_BYTES_MAX - head.len());
            self.record.extend_from_slice(body.get(..fits).unwrap_or_default());
            transport.write(&self.record)?
        };
        let is_short = count < head.len() + body.len();
        let is_exhausted = is_short && matches!(transport, Transport::Plain(_));
        Ok(Transfer { bytes: count, cost: count, is_exhausted })
    }

    fn wants_write(&self, conn: ConnId) -> bool {
        self.get(conn).is_some_and(Transport::wants_write)
    }

    fn flush(&mut self, conn: ConnId) -> io::Result<()> {
        self.get_mut(conn)?.flush()
    }

    fn end(&mut self, conn: ConnId) -> io::Result<()> {
        self.get_mut(conn)?.shutdown_write()
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(place) = self.transports.get_mut(conn.at()) {
            *place = None;
        }
    }

    fn inbound_bytes(&self, conn: ConnId) -> usize {
        self.get(conn).map_or(0, Transport::inbound_bytes)
    }

    fn is_handshaking(&self, conn: ConnId) -> bool {
        self.get(conn).is_some_and(Transport::is_handshaking)
    }

    fn write_shared(
        &mut self,
        conn: ConnId,
        queue: &mut SharedWrite<'_>,
        peers: usize,
    ) -> Option<io::Result<usize>> {
        let is_there = self.zero_copy.is_set()
            || peers >= zero_copy::PEERS_MIN && self.zero_copy.put(queue.broadcast());
        let Some(Transport::Plain(socket)) = self.transports.get(conn.at())?.as_ref() else {
            return None;
        };
        if !is_there {
            return None;
        }
        let zero_copy = &mut self.zero_copy;
        let mut socket_writer = socket;
        ZeroCopyBuffer::set_whole(socket, true);
        let sent = queue.send(|part| match part {
            Part::Own(bytes) => socket_writer.write(bytes),
            Part::Slice(piece) => zero_copy.send(socket, piece),
        });
        ZeroCopyBuffer::set_whole(socket, false);
        Some(sent)
    }

    fn end_flush(&mut self) {
        self.zero_copy.clear();
    }

    fn next_done(&mut self) -> Option<JobDone> {
        self.helper.try_recv()
    }

    fn is_helper_busy(&self) -> bool {
        self.helper.is_busy()
    }

    fn submit(&mut self, job: Job, _: ConnId) -> io::Result<()> {
        self.helper.submit(job).map_err(io::Error::other)
    }

    fn next_pushed(&mut self) -> Option<push::Done> {
        self.push_sender.as_mut()?.try_recv()
    }

    fn submit_push(&mut self, push: push::Job) -> bool {
        self.push_sender.as_mut().is_some_and(|sender| sender.submit(push))
    }

    fn describe(&self, page: &mut Page) {
        let wal_bytes = std::fs::metadata(&self.wal).map_or(0, |file| file.len());
        page.gauge("wal_bytes", "Size of the database's WAL.", wal_bytes);
        let help = "Log lines dropped since nobody read those before them.";
        page.counter("log_lines_dropped_total", help, self.logging.lines_dropped());
        if let Some(ends_s) = self.certificate_ends_s {
            let help = "When the TLS certificate expires, since the Unix epoch.";
            page.gauge("certificate_expiry_timestamp_seconds", help, ends_s);
        }
    }

    fn elapsed_us(&self) -> u64 {
        self.clock.passed_us()
    }
}
