//! The engine: one turn of the event loop and the states of all connections, without sockets or
//! clocks.
//!
//! The server, the simulation and the fuzzers run this same code; each brings its own [`Io`].
//!
//! ```text
//!   begin_turn -> connect, on_ready, stop -> turn:
//!     take up changes -> password results -> read, parse, handle -> COMMIT, release -> HTTP
//!     -> deadlines, long answers -> housekeeping -> one write for each connection
//! ```
//!
//! Owns the table of connections, the read buffer, the deadlines, and when to write to whom. Does
//! not know sockets, TLS, files, or what purposes mean: those are behind [`Io`] and [`Service`].
//!
//! # Where a protocol plugs in
//!
//! Every connection has a `Protocol`. `input` reads bytes into the shared `read_buffer`. A
//! WebSocket unmasks them in place, so the frame parser always sees plain Purpose bytes; unhandled
//! bytes stay in the connection's inbox. `output` asks the protocol for the bytes to write before
//! those of the outbox. HTTP (`web`) handles its requests in turns of its own, after the COMMIT,
//! and stages raw bytes in the outbox.

mod admission;
mod connection;
mod deadlines;
mod inbound;
mod input;
mod invariants;
mod io;
mod log_rate_limit;
mod maintenance;
mod output;
mod protocol;
mod read_buffer;
mod scrape;
mod shared_write;
mod web;
mod write_coalescer;

use std::io as std_io;
use std::net::IpAddr;
use std::ops::ControlFlow;

use slab::Slab;

use crate::auth::throttle::Origin;
use crate::http::{Site, Surface};
use crate::ids::ConnId;
use crate::limits::{HEADER_BYTES, TURN_READ_BYTES_PER_CONNECTION};
use crate::metrics::{Page, Rejection};
use crate::service::Service;
use crate::service::write_lock::LOCK_POLL_MS;
use crate::store::StoreError;

use admission::Admission;
use connection::{Connection, Counted, Input};
use deadlines::Deadlines;
use log_rate_limit::LogRateLimit;
use protocol::Protocol;
use read_buffer::ReadBuffer;
use write_coalescer::WriteCoalescer;

pub use connection::State;
pub use deadlines::NEVER_MS;
pub use input::looks_like_tls;
pub use io::{Event, Io, Transfer};
pub use shared_write::SharedWrite;

/// The part of the configuration that the engine uses.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest body of a frame to the server, in bytes.
    pub body_bytes_max: usize,
    /// Milliseconds that a connection may go without a session.
    pub auth_timeout_ms: u64,
    /// Milliseconds without a byte from the peer after which it is probed by a HEARTBEAT.
    pub idle_timeout_ms: u64,
    /// Milliseconds within which the peer has to answer the probe.
    pub heartbeat_timeout_ms: u64,
    /// Milliseconds within which a peer has to accept some of the bytes queued for it.
    pub stall_timeout_ms: u64,
    /// Milliseconds within which a peer has to end its side after the server has.
    pub drain_timeout_ms: u64,
    /// Connections at the same time.
    pub connections_max: usize,
    /// Connections without a session per address; 0: no limit.
    pub unauthorized_per_address_max: usize,
    /// Whether HTTP is served.
    pub web: bool,
    /// What HTTP requests are checked against.
    pub site: Site,
    /// Requests handled for one connection in one turn.
    pub requests_per_turn_max: usize,
    /// Connections to notify above which writes may be coalesced.
    pub coalesced_connections_min: usize,
}

/// The time of a turn, for all its decisions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Microseconds since the epoch; may jump both ways.
    pub wall_us: i64,
    /// Microseconds of the monotonic clock.
    pub us: u64,
    /// Microseconds for which the loop was idle before the turn.
    pub idle_us: u64,
}

impl Now {
    /// Milliseconds of the monotonic clock.
    pub const fn ms(self) -> u64 {
        self.us / 1000
    }
}

/// An event of a stream, for [`Engine::on_ready`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// There may be bytes to read.
    pub readable: bool,
    /// The stream may accept bytes.
    pub writable: bool,
    /// The peer has ended its side, or the stream is broken.
    pub ended: bool,
}

/// The reason why the engine cannot continue.
#[derive(Debug)]
pub enum Stopped {
    /// Nobody can know what is on the disk.
    StorageLost(StoreError),
    /// The password helper thread is gone.
    Helper(std_io::Error),
    /// [`Io::observe`] stopped it.
    Observer,
}

/// Progress of the graceful shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    No,
    Requested,
    Disconnecting,
}

/// The engine; see the module documentation.
pub struct Engine<'db> {
    /// What requests mean.
    pub service: Service<'db>,
    options: Options,
    now: Now,
    connections: Slab<Connection>,
    admission: Admission,
    queues: Queues,
    buffer: ReadBuffer,
    /// Bytes that all connections hold unhandled.
    inbound_bytes: usize,
    deadlines: Deadlines,
    write_coalescer: WriteCoalescer,
    log_rate_limit: LogRateLimit,
    schedule: Schedule,
}

/// Connections that wait for a step of a turn.
#[derive(Debug, Default)]
struct Queues {
    /// To be read from, and a spare list that swaps with it.
    ready: Vec<ConnId>,
    reading: Vec<ConnId>,
    /// HTTP connections that sent something: their requests are handled after the COMMIT.
    http: Vec<ConnId>,
    /// They hold many unhandled bytes: the sum of their users is checked.
    users_to_check: Vec<ConnId>,
    /// Ended: the service forgets them, and closed ones are dropped.
    ended: Vec<ConnId>,
}

/// Work of the next turns that no connection asks for.
#[derive(Debug)]
struct Schedule {
    /// When the next slice of housekeeping is due.
    housekeeping_ms: u64,
    /// Streamed answers or backlogs can go on.
    is_pump_waiting: bool,
    /// HTTP requests or housekeeping wait for the next turn, which is theirs alone.
    is_work_postponed: bool,
    /// The last turn was such a one: events of before it are not handled yet.
    has_skipped_requests: bool,
    stopping: Stopping,
}

/// Connections that may be evicted per turn: their file descriptors are free only after it.
const EVICTED_PER_TURN_MAX: usize = 32;

/// Limit of the connections' generations; the reactor uses tokens above it for other sockets.
pub const GENERATIONS: u32 = u32::MAX - 1;

impl<'db> Engine<'db> {
    /// An engine without connections.
    pub fn new(service: Service<'db>, options: Options) -> Self {
        let frame_bytes_max = options.body_bytes_max + HEADER_BYTES;
        debug_assert!(options.requests_per_turn_max > 0, "each turn handles requests");
        debug_assert!(options.body_bytes_max <= u32::MAX as usize, "a length has 32 bits");
        Self {
            service,
            now: Now::default(),
            connections: Slab::new(),
            admission: Admission::default(),
            queues: Queues::default(),
            // Large enough for the longest frame, so an incomplete one can be completed.
            buffer: ReadBuffer::new(TURN_READ_BYTES_PER_CONNECTION.max(frame_bytes_max)),
            inbound_bytes: 0,
            deadlines: Deadlines::default(),
            write_coalescer: WriteCoalescer::new(options.coalesced_connections_min),
            log_rate_limit: LogRateLimit::default(),
            schedule: Schedule {
                housekeeping_ms: 0,
                is_pump_waiting: false,
                is_work_postponed: false,
                has_skipped_requests: false,
                stopping: Stopping::No,
            },
            options,
        }
    }

    /// Begins a turn, and forgets connections that ended in the last one. Then report new
    /// connections and events, and call [`Engine::turn`].
    ///
    /// # Errors
    /// When nothing may be sent any more: see [`Stopped`].
    pub fn begin_turn(&mut self, io: &mut impl Io, now: Now) -> Result<(), Stopped> {
        debug_assert!(now.us >= self.now.us, "the monotonic clock goes back");
        debug_assert!(self.service.lost().is_none(), "nothing follows a lost database");
        self.now = now;
        self.service.begin_turn(now.wall_us, now.ms());
        self.service.note_idle(now.idle_us);
        self.admission.begin_turn();
        self.forget_ended(io)
    }

    /// One turn.
    ///
    /// 1. Apply changes of the command line, with a COMMIT of their own: later requests see them.
    /// 2. Handle results of the password helper.
    /// 3. Read, parse and handle requests, within the turn's budgets.
    /// 4. COMMIT and release (group commit); when that fails, decline the requests.
    /// 5. Handle HTTP requests, with a COMMIT of their own.
    /// 6. Work without a request: graceful shutdown, deadlines, streamed answers and backlogs. None
    ///    of it writes, so nothing has to be undone.
    /// 7. Housekeeping, with a COMMIT of its own.
    /// 8. Write once to each connection that got something. While requests keep coming, writes to
    ///    many that are only notified may be coalesced with those of the next turn.
    ///
    /// Of 1, 4, 5 and 7 only one writes, so a turn has one fsync. Requests wait for the next turn
    /// when changes have written. HTTP and housekeeping wait when requests have, and then the next
    /// turn reads no requests.
    ///
    /// # Errors
    /// When nothing may be sent any more: see [`Stopped`].
    pub fn turn(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        let mut has_written = self.take_up_changes(io)?;
        let had_skipped = self.schedule.has_skipped_requests;
        // However many changes come, every other turn is for requests.
        self.schedule.has_skipped_requests =
            std::mem::take(&mut self.schedule.is_work_postponed) || has_written && !had_skipped;
        if !self.schedule.has_skipped_requests {
            self.handle_results(io)?;
            self.read(io)?;
        }
        has_written |= self.service.has_written();
        let commit_us = self.end_turn(io)?;
        if !has_written || self.schedule.stopping != Stopping::No {
            has_written |= self.serve_http(io)?;
        }
        self.run_maintenance(io)?;
        let is_housekeeping_postponed = self.run_housekeeping(io, has_written)?;
        self.schedule.is_work_postponed = is_housekeeping_postponed || !self.queues.http.is_empty();
        self.enqueue_resumed();
        debug_assert!(!self.service.has_written(), "something leaves before its COMMIT");
        self.flush(io);
        self.schedule.is_pump_waiting = self.service.may_pump();
        self.check_connections();
        self.service.metrics.turn(io.elapsed_us(), commit_us);
        Ok(())
    }

    /// Ends the requests' turn. Returns the microseconds that the COMMIT took; 0: nothing was
    /// written.
    fn end_turn(&mut self, io: &mut impl Io) -> Result<u64, Stopped> {
        self.observe(io, Event::Committing)?;
        let begun_us = self.service.has_written().then(|| io.elapsed_us());
        let end = self.service.end_turn_timed(|| io.elapsed_us());
        let commit_us = begun_us.map_or(0, |begun_us| io.elapsed_us() - begun_us);
        self.observe(io, Event::Ended(end))?;
        self.check_storage()?;
        debug_assert!(!self.service.has_written(), "the turn is not over");
        Ok(commit_us)
    }

    fn check_storage(&self) -> Result<(), Stopped> {
        match self.service.lost() {
            None => Ok(()),
            Some(error) => Err(Stopped::StorageLost(error.clone())),
        }
    }

    fn observe(&mut self, io: &mut impl Io, event: Event<'_>) -> Result<(), Stopped> {
        match io.observe(event, &mut self.service) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stopped::Observer),
        }
    }

    // ---- new connections and events ----------------------------------------------------------

    /// Adds a connection, unless there are too many. `open` prepares its stream.
    ///
    /// # Errors
    /// Why it is rejected: close it without sending anything.
    pub fn connect(
        &mut self,
        address: IpAddr,
        surface: Surface,
        open: impl FnOnce(ConnId) -> std_io::Result<()>,
    ) -> Result<ConnId, Rejection> {
        let admitted = match surface {
            Surface::Public => self.admit(address, open),
            Surface::Metrics | Surface::LocalMetrics => self.admit_scrape(address, surface, open),
        };
        match &admitted {
            Ok(conn) => {
                self.service.metrics.accepted += u64::from(surface == Surface::Public);
                log::debug!("{conn} from {address} is open");
            }
            Err(why) => {
                self.service.metrics.count_rejection(*why);
                log::debug!("a connection from {address} is refused: {why:?}");
            }
        }
        admitted
    }

    fn admit(
        &mut self,
        address: IpAddr,
        open: impl FnOnce(ConnId) -> std_io::Result<()>,
    ) -> Result<ConnId, Rejection> {
        // A proxy's connections count for the clients that it names.
        let is_proxy = self.options.site.is_proxy(address);
        let counted = Counted { origin: Origin::of(address), is_web: false };
        let most = self.options.unauthorized_per_address_max;
        if most > 0 && self.admission.unauthenticated.of(counted) >= most && !is_proxy {
            return Err(Rejection::Address);
        }
        debug_assert!(self.admission.evicted <= self.connections.len());
        if self.connections.len() - self.admission.evicted >= self.options.connections_max
            && !self.evict()
        {
            return Err(Rejection::Full);
        }
        let conn = self.insert(address, Surface::Public, open)?;
        if let Some(connection) = self.connections.get_mut(conn.at()) {
            if !is_proxy {
                connection.counted = Some(counted);
                self.admission.unauthenticated.add(conn, counted);
            }
            // Its first bytes often come with it.
            enqueue(&mut self.queues.ready, connection);
        }
        self.service.connected(conn, address);
        self.arm(conn);
        debug_assert!(is_proxy || is_counted(&self.connections, conn), "{conn} counts");
        debug_assert_eq!(self.service.outbox.pending_bytes(conn.index), 0, "bytes of an older one");
        Ok(conn)
    }

    /// Puts a connection into the table, once its stream is ready.
    fn insert(
        &mut self,
        address: IpAddr,
        surface: Surface,
        open: impl FnOnce(ConnId) -> std_io::Result<()>,
    ) -> Result<ConnId, Rejection> {
        debug_assert!(self.admission.next_generation < GENERATIONS);
        let entry = self.connections.vacant_entry();
        debug_assert!(entry.key() < u32::MAX as usize, "connections are bounded");
        let conn = ConnId { index: entry.key() as u32, generation: self.admission.next_generation };
        self.admission.next_generation = (self.admission.next_generation + 1) % GENERATIONS;
        open(conn).map_err(|error| {
            log::warn!("cannot set up a connection from {address}: {error}");
            Rejection::Failed
        })?;
        entry.insert(Connection::new(conn, address, surface, self.now.ms()));
        Ok(conn)
    }

    /// Evicts the oldest unauthenticated connection of the largest network, for a new one. One that
    /// waits for a password check is evicted only if there is no other.
    fn evict(&mut self) -> bool {
        if self.admission.evicted >= EVICTED_PER_TURN_MAX {
            return false;
        }
        let (connections, service) = (&self.connections, &self.service);
        let is_in = |conn| is_counted(connections, conn);
        let is_waiting = |conn| service.is_waiting(conn);
        let Some(conn) = self.admission.unauthenticated.oldest_of_largest(is_in, is_waiting) else {
            return false;
        };
        debug_assert!(is_counted(&self.connections, conn), "only what is counted is evicted");
        log::debug!("{conn} is evicted for a new connection");
        self.service.metrics.count_rejection(Rejection::Full);
        self.admission.evicted += 1;
        self.uncount(conn);
        self.mark_closed(conn);
        debug_assert!(self.admission.evicted <= EVICTED_PER_TURN_MAX);
        debug_assert!(!is_counted(&self.connections, conn), "{conn} is evicted once");
        true
    }

    /// Notes an event of a stream.
    pub fn on_ready(&mut self, io: &impl Io, conn: ConnId, ready: Ready) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if connection.id != conn {
            return;
        }
        if ready.writable {
            connection.is_writable = true;
            let is_waiting = self.service.outbox.pending_bytes(conn.index) > 0
                || connection.protocol.wants_write()
                || io.wants_write(conn);
            if is_waiting {
                self.service.outbox.touch(conn.index);
            }
        }
        connection.input = match connection.input {
            Input::Ended => return,
            _ if ready.ended => Input::Ending,
            Input::Drained if ready.readable => Input::Readable,
            input => input,
        };
        if ready.readable || ready.ended {
            enqueue(&mut self.queues.ready, connection);
        }
    }

    /// Begins a graceful shutdown: in the next turn every connection gets its closing frames.
    pub fn stop(&mut self) {
        if self.schedule.stopping == Stopping::No {
            self.schedule.stopping = Stopping::Requested;
        }
    }

    // ---- queries of the event loop -------------------------------------------------------------

    /// Whether the next turn has work to do without any event.
    pub fn is_busy(&self) -> bool {
        !self.queues.ready.is_empty()
            || !self.queues.ended.is_empty()
            || self.schedule.is_pump_waiting
            || self.schedule.is_work_postponed
            || self.schedule.has_skipped_requests
            || self.schedule.stopping == Stopping::Requested
            || self.service.outbox.has_dirty()
    }

    /// When the next turn is due without any event, in milliseconds of the monotonic clock.
    pub fn next_ms(&self) -> u64 {
        let lock_ms = match self.service.waits_for_lock() {
            true => self.now.ms() + LOCK_POLL_MS,
            false => u64::MAX,
        };
        self.deadlines.next_ms().min(self.schedule.housekeeping_ms).min(lock_ms)
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Microseconds to busy-poll for the next request before sleeping, because coalesced writes
    /// wait; 0: none do.
    pub fn spin_us(&self) -> u64 {
        self.write_coalescer.spin_us()
    }

    /// Notes whether this turn's events had arrived before the last turn ended.
    pub fn set_back_to_back(&mut self, is_back_to_back: bool) {
        self.write_coalescer.is_back_to_back = is_back_to_back;
    }

    /// Adds gauges of the present state to a page of metrics.
    pub fn describe(&self, page: &mut Page) {
        self.service.describe(page);
        let is_closing = |connection: &&Connection| connection.state() != State::Open;
        let all = || self.connections.iter().map(|(_, connection)| connection);
        page.gauge(
            "connections_closing",
            "Connections on their way out.",
            all().filter(is_closing).count(),
        );
        let help = "Bytes of requests that are incomplete, or wait.";
        page.gauge("inbound_bytes", help, self.inbound_bytes);
        let help = "Bytes of requests above which their largest holders are closed.";
        page.gauge("inbound_limit_bytes", help, self.service.inbound_limit());
    }

    /// The metrics, in the text format of the metrics endpoint.
    pub fn render_metrics(&self, io: &impl Io) -> String {
        let mut page = Page::default();
        self.describe(&mut page);
        io.describe(&mut page);
        page.into_text()
    }

    /// The state of a connection.
    pub fn state(&self, conn: ConnId) -> Option<State> {
        let connection = self.connections.get(conn.at()).filter(|found| found.id == conn)?;
        Some(connection.state())
    }

    // ---- helpers of the steps ------------------------------------------------------------------

    /// Moves a connection to a later state.
    fn enter(&mut self, conn: ConnId, next: State) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert_eq!(connection.id, conn, "another connection has its place");
        let before = connection.state();
        if !connection.enter(next, self.now.ms()) {
            let what = format_args!("{conn} goes from {before:?} to {next:?}");
            self.service.metrics.internal_error(what);
        }
        debug_assert!(connection.inbound_bytes <= self.inbound_bytes, "{conn} is not in the sum");
        self.inbound_bytes -= std::mem::take(&mut connection.inbound_bytes);
        match next {
            State::Open => {}
            State::Flushing => {
                if let Protocol::WebSocket(websocket) = &mut connection.protocol {
                    websocket.close();
                }
                self.service.close_queue(conn);
                self.enqueue(conn);
            }
            State::Draining => {
                self.queues.ended.push(conn);
                self.enqueue(conn);
            }
            State::Closed => self.queues.ended.push(conn),
        }
        debug_assert_eq!(self.state(conn), Some(before.max(next)), "a state is never left behind");
        debug_assert!(next != State::Flushing || self.service.outbox.is_closed(conn.index));
    }

    /// Marks a connection closed. It is dropped after the turn's requests, since others may still
    /// refer to it.
    fn mark_closed(&mut self, conn: ConnId) {
        if self.state(conn).is_some_and(|state| state != State::Closed) {
            self.enter(conn, State::Closed);
        }
        debug_assert!(self.state(conn).is_none_or(|state| state == State::Closed));
    }

    fn enqueue(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.id == conn
        {
            enqueue(&mut self.queues.ready, connection);
        }
    }

    /// Updates the count of unauthenticated connections after a login or logoff.
    fn count_authorized(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let is_unauthorized = !self.service.is_authorized(conn);
        // A closing connection counts until it is dropped.
        if is_unauthorized == connection.counted.is_some() || connection.state() > State::Flushing {
            return;
        }
        if !is_unauthorized {
            self.uncount(conn);
        } else if !self.options.site.is_proxy(connection.address) {
            let origin = Origin::of(connection.address);
            let counted = Counted { origin, is_web: connection.protocol.is_web() };
            connection.counted = Some(counted);
            self.admission.unauthenticated.add(conn, counted);
            self.arm(conn);
        }
    }

    /// Stops counting a connection as unauthenticated.
    fn uncount(&mut self, conn: ConnId) {
        let found = self.connections.get_mut(conn.at()).filter(|found| found.id == conn);
        let Some(counted) = found.and_then(|connection| connection.counted.take()) else { return };
        let connections = &self.connections;
        self.admission.unauthenticated.remove(counted, |conn| is_counted(connections, conn));
        debug_assert!(!is_counted(connections, conn), "{conn} counts no longer");
    }
}

fn is_counted(connections: &Slab<Connection>, conn: ConnId) -> bool {
    let found = connections.get(conn.at()).filter(|found| found.id == conn);
    found.is_some_and(|found| found.counted.is_some())
}

/// Enqueues a connection as ready to be read from, once.
fn enqueue(ready: &mut Vec<ConnId>, connection: &mut Connection) {
    if !connection.is_enqueued {
        connection.is_enqueued = true;
        ready.push(connection.id);
    }
}
