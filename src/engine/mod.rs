//! The engine: one turn, and every state of a connection, without sockets and clocks.
//!
//! The server, the simulation and the fuzzers run this very code; each brings its [`Io`].
//!
//! ```text
//!   begin_turn -> connect, on_ready, stop -> turn:
//!     take up changes -> password results -> read, parse, handle -> COMMIT, release -> HTTP
//!     -> deadlines, long answers -> housekeeping -> one write for each connection
//! ```
//!
//! Owns the table of connections, the read buffer, deadlines, and who is written to when. Must not
//! know sockets, TLS, files, or what a purpose means; those are behind [`Io`] and [`Service`].
//!
//! # Where a protocol plugs in
//!
//! A connection has a `Protocol`. `input` reads bytes into the one `read_buffer`; a WebSocket
//! unmasks them there, so that the parser of frames sees the bytes of Purpose either way, and what
//! is not handled stays in the connection's inbox. `output` asks the protocol what to write in
//! front of the bytes of the outbox. HTTP (`web`) handles its requests by itself, in turns of
//! their own behind the turn's COMMIT, and stages raw bytes in the outbox.

mod admission;
mod connection;
mod deadlines;
mod input;
mod io;
mod log_rate_limit;
mod output;
mod own_account;
mod protocol;
mod read_buffer;
mod scrape;
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
use crate::metrics::{Page, Refused};
use crate::service::Service;
use crate::service::write_lock::LOCK_POLL_MS;
use crate::store::StoreError;

use admission::Unauthenticated;
use connection::{Connection, Counted, Input};
use deadlines::Deadlines;
use log_rate_limit::LogRateLimit;
use protocol::Protocol;
use read_buffer::ReadBuffer;
use scrape::Scrapes;
use write_coalescer::WriteCoalescer;

pub use connection::State;
pub use deadlines::NEVER_MS;
pub use input::looks_like_tls;
pub use io::{Event, Io, Transfer};

/// What the operator sets of the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest body of a frame to the server, in bytes.
    pub body_bytes_max: usize,
    /// Milliseconds that a connection may be without a session.
    pub auth_timeout_ms: u64,
    /// Milliseconds without a byte from the peer after which it is asked for a sign of life.
    pub idle_timeout_ms: u64,
    /// Milliseconds within which the sign of life has to come.
    pub heartbeat_timeout_ms: u64,
    /// Milliseconds within which a peer has to accept some of what waits for it.
    pub stall_timeout_ms: u64,
    /// Milliseconds within which a peer has to end its side after the server has.
    pub drain_timeout_ms: u64,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections without a session of one address at once; 0: any number.
    pub unauthorized_per_address_max: usize,
    /// Whether HTTP is served.
    pub web: bool,
    /// What its requests depend on.
    pub site: Site,
    /// Requests handled for one connection in one turn.
    pub requests_per_turn_max: usize,
    /// Connections above which writes of notifications alone may be held back.
    pub coalesced_connections_min: usize,
}

/// The time of a turn. All that it decides it decides by this.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Microseconds since the epoch; may jump both ways.
    pub wall_us: i64,
    /// Microseconds of a clock that only runs forward.
    pub us: u64,
}

impl Now {
    /// Milliseconds of the clock that only runs forward.
    pub const fn ms(self) -> u64 {
        self.us / 1000
    }
}

/// What a stream reports: see [`Engine::on_ready`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// There may be bytes to read.
    pub readable: bool,
    /// Bytes may be accepted.
    pub writable: bool,
    /// The peer has ended its side, or the stream is broken.
    pub ended: bool,
}

/// Why the engine can go on no longer.
#[derive(Debug)]
pub enum Stopped {
    /// Nobody knows what of the database is on the disk.
    StorageLost(StoreError),
    /// The password helper is gone.
    Helper(std_io::Error),
    /// [`Io::observe`] said so.
    Observer,
}

/// How far the server is on its way to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    No,
    Asked,
    Dismissed,
}

/// The engine; see the head of this file.
pub struct Engine<'db> {
    /// What requests mean.
    pub service: Service<'db>,
    options: Options,
    now: Now,
    connections: Slab<Connection>,
    next_generation: u32,
    unauthenticated: Unauthenticated,
    scrapes: Scrapes,
    /// Connections that made room for others in this turn, and are dropped at its end.
    evicted: usize,
    /// Connections of HTTP that have sent something in this turn.
    http: Vec<ConnId>,
    /// Connections to read from, and the buffer of the list that is worked on.
    ready: Vec<ConnId>,
    reading: Vec<ConnId>,
    /// Connections that the service is to forget, and those among them that are to be dropped.
    parting: Vec<ConnId>,
    buffer: ReadBuffer,
    deadlines: Deadlines,
    write_coalescer: WriteCoalescer,
    log_rate_limit: LogRateLimit,
    housekeeping_ms: u64,
    is_pump_waiting: bool,
    stopping: Stopping,
}

/// Connections that make room for others in one turn: their descriptors are free only after it.
const EVICTED_PER_TURN_MAX: usize = 32;

/// Generations of connections are under this; tokens above it are the owner's.
pub const GENERATIONS: u32 = u32::MAX - 1;

impl<'db> Engine<'db> {
    /// An engine without connections.
    pub fn new(service: Service<'db>, options: Options) -> Self {
        let frame_bytes_max = options.body_bytes_max + HEADER_BYTES;
        Self {
            service,
            now: Now::default(),
            connections: Slab::new(),
            next_generation: 0,
            unauthenticated: Unauthenticated::default(),
            scrapes: Scrapes::default(),
            evicted: 0,
            http: Vec::new(),
            ready: Vec::new(),
            reading: Vec::new(),
            parting: Vec::new(),
            // The longest frame fits, so that an unfinished one can be finished.
            buffer: ReadBuffer::new(TURN_READ_BYTES_PER_CONNECTION.max(frame_bytes_max)),
            deadlines: Deadlines::default(),
            write_coalescer: WriteCoalescer::new(options.coalesced_connections_min),
            log_rate_limit: LogRateLimit::default(),
            housekeeping_ms: 0,
            is_pump_waiting: false,
            stopping: Stopping::No,
            options,
        }
    }

    /// Begins a turn, and forgets the connections that ended in the last one. Then connections may
    /// come and streams report, and [`Engine::turn`] does the rest.
    ///
    /// # Errors
    /// When nothing more may be sent.
    pub fn begin_turn(&mut self, io: &mut impl Io, now: Now) -> Result<(), Stopped> {
        self.now = now;
        self.service.begin_turn(now.wall_us, now.ms());
        self.evicted = 0;
        self.scrapes.begin_turn();
        self.part(io)
    }

    /// One turn.
    ///
    /// 1. What the command line has changed: the requests of this turn see it.
    /// 2. The password helper's results.
    /// 3. Read, parse and handle, within the turn's budgets.
    /// 4. COMMIT and release; when it fails, the requests are declined.
    /// 5. Requests of HTTP, and what the server does on its own account: its own end, deadlines,
    ///    long answers and catch-ups. Nothing of that is written, so that nothing can be undone.
    /// 6. Housekeeping.
    /// 7. One write for each connection that got something; many that are only notified may be held
    ///    back for the next turn while requests keep coming.
    ///
    /// # Errors
    /// When nothing more may be sent.
    pub fn turn(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        self.take_up_changes(io)?;
        self.handle_results(io)?;
        self.read(io)?;
        let commit_us = self.end_turn(io)?;
        self.serve_http(io)?;
        self.act_on_own_account(io)?;
        self.keep_house(io)?;
        self.enqueue_resumed();
        self.flush(io);
        self.is_pump_waiting = self.service.may_pump();
        self.service.metrics.turn(io.elapsed_us(), commit_us);
        Ok(())
    }

    /// Ends the requests' turn. Microseconds that the COMMIT took: 0 when there was nothing to
    /// write.
    fn end_turn(&mut self, io: &mut impl Io) -> Result<u64, Stopped> {
        self.observe(io, Event::Committing)?;
        let begun_us = self.service.has_written().then(|| io.elapsed_us());
        let end = self.service.end_turn_timed(|| io.elapsed_us());
        let commit_us = begun_us.map_or(0, |begun_us| io.elapsed_us() - begun_us);
        self.observe(io, Event::Ended(end))?;
        self.check_storage()?;
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

    // ---- connections come, and streams report ------------------------------------------------

    /// Adds a connection, unless there are too many; `open` makes its stream ready.
    ///
    /// # Errors
    /// Why it is turned away: it is to be closed without a byte.
    pub fn connect(
        &mut self,
        address: IpAddr,
        surface: Surface,
        open: impl FnOnce(ConnId) -> std_io::Result<()>,
    ) -> Result<ConnId, Refused> {
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
                self.service.metrics.refuse(*why);
                log::debug!("a connection from {address} is refused: {why:?}");
            }
        }
        admitted
    }

    fn admit(
        &mut self,
        address: IpAddr,
        open: impl FnOnce(ConnId) -> std_io::Result<()>,
    ) -> Result<ConnId, Refused> {
        // A proxy stands for many, who count once it names them.
        let is_proxy = self.options.site.is_proxy(address);
        let counted = Counted { origin: Origin::of(address), is_web: false };
        let most = self.options.unauthorized_per_address_max;
        if most > 0 && self.unauthenticated.of(counted) >= most && !is_proxy {
            return Err(Refused::Address);
        }
        if self.connections.len() - self.evicted >= self.options.connections_max && !self.evict() {
            return Err(Refused::Full);
        }
        let conn = self.insert(address, Surface::Public, open)?;
        if let Some(connection) = self.connections.get_mut(conn.at()) {
            if !is_proxy {
                connection.counted = Some(counted);
                self.unauthenticated.add(conn, counted);
            }
            // Its first bytes often come with it.
            enqueue(&mut self.ready, connection);
        }
        self.service.connected(conn, address);
        self.arm(conn);
        Ok(conn)
    }

    /// Puts a connection into the table, once its stream is ready.
    fn insert(
        &mut self,
        address: IpAddr,
        surface: Surface,
        open: impl FnOnce(ConnId) -> std_io::Result<()>,
    ) -> Result<ConnId, Refused> {
        let entry = self.connections.vacant_entry();
        let conn = ConnId { index: entry.key() as u32, generation: self.next_generation };
        self.next_generation = (self.next_generation + 1) % GENERATIONS;
        open(conn).map_err(|error| {
            log::warn!("a connection from {address} cannot be set up: {error}");
            Refused::Failed
        })?;
        entry.insert(Connection::new(conn, address, surface, self.now.ms()));
        Ok(conn)
    }

    /// Makes room for a newcomer: the oldest unauthenticated connection of the network that has
    /// most of them goes, before one that waits for its password to be checked.
    fn evict(&mut self) -> bool {
        if self.evicted >= EVICTED_PER_TURN_MAX {
            return false;
        }
        let (connections, service) = (&self.connections, &self.service);
        let is_in = |conn| is_counted(connections, conn);
        let is_waiting = |conn| service.is_waiting(conn);
        let Some(conn) = self.unauthenticated.oldest_of_largest(is_in, is_waiting) else {
            return false;
        };
        log::debug!("{conn} makes room for another connection");
        self.service.metrics.refuse(Refused::Full);
        self.evicted += 1;
        self.uncount(conn);
        self.lose(conn);
        true
    }

    /// A stream reports that it may be worth another try.
    pub fn on_ready(&mut self, io: &impl Io, conn: ConnId, ready: Ready) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if connection.id != conn {
            return;
        }
        if ready.writable {
            connection.is_writable = true;
            if self.service.outbox.pending_bytes(conn.index) > 0 || io.wants_write(conn) {
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
            enqueue(&mut self.ready, connection);
        }
    }

    /// The server is to stop: in the next turn every connection gets its last bytes.
    pub fn stop(&mut self) {
        if self.stopping == Stopping::No {
            self.stopping = Stopping::Asked;
        }
    }

    // ---- what its owner asks -------------------------------------------------------------------

    /// Whether another turn has something to do though nothing is reported.
    pub fn is_busy(&self) -> bool {
        !self.ready.is_empty()
            || !self.parting.is_empty()
            || self.is_pump_waiting
            || self.stopping == Stopping::Asked
            || self.service.outbox.has_dirty()
    }

    /// When the next turn is due though nothing is reported, by the clock that only runs forward.
    pub fn next_ms(&self) -> u64 {
        let lock_ms = match self.service.waits_for_lock() {
            true => self.now.ms() + LOCK_POLL_MS,
            false => u64::MAX,
        };
        self.deadlines.next_ms().min(self.housekeeping_ms).min(lock_ms)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many microseconds to look for the next request before going to sleep, because writes are
    /// held back for it; 0: none are.
    pub fn look_us(&self) -> u64 {
        self.write_coalescer.look_us()
    }

    /// Whether the reports of this turn were there when the last one ended.
    pub fn set_back_to_back(&mut self, is_back_to_back: bool) {
        self.write_coalescer.is_back_to_back = is_back_to_back;
    }

    /// Adds to a page of metrics what is so at the moment.
    pub fn describe(&self, page: &mut Page) {
        self.service.describe(page);
        let is_closing = |connection: &&Connection| connection.state() != State::Open;
        let all = || self.connections.iter().map(|(_, connection)| connection);
        page.gauge(
            "connections_closing",
            "Connections on their way out.",
            all().filter(is_closing).count(),
        );
        let inbound: usize = all().map(|connection| connection.inbox.len()).sum();
        page.gauge("inbound_bytes", "Bytes of frames that are incomplete, or wait.", inbound);
    }

    /// A page of metrics.
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

    // ---- what the steps share ------------------------------------------------------------------

    /// Moves a connection to a later state.
    fn enter(&mut self, conn: ConnId, next: State) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let before = connection.state();
        if !connection.enter(next, self.now.ms()) {
            let what = format_args!("{conn} goes from {before:?} to {next:?}");
            self.service.metrics.internal_error(what);
        }
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
                self.parting.push(conn);
                self.enqueue(conn);
            }
            State::Closed => self.parting.push(conn),
        }
    }

    /// Drops a connection at the end of the turn's requests, not while others may look at it.
    fn lose(&mut self, conn: ConnId) {
        if self.state(conn).is_some_and(|state| state != State::Closed) {
            self.enter(conn, State::Closed);
        }
    }

    fn enqueue(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.id == conn
        {
            enqueue(&mut self.ready, connection);
        }
    }

    /// Keeps the count of unauthenticated connections by address.
    fn count_authorized(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let is_unauthorized = !self.service.is_authorized(conn);
        // What is on its way out counts until it is gone.
        if is_unauthorized == connection.counted.is_some() || connection.state() > State::Flushing {
            return;
        }
        if !is_unauthorized {
            self.uncount(conn);
        } else if !self.options.site.is_proxy(connection.address) {
            let origin = Origin::of(connection.address);
            let counted = Counted { origin, is_web: connection.protocol.is_web() };
            connection.counted = Some(counted);
            self.unauthenticated.add(conn, counted);
            self.arm(conn);
        }
    }

    /// A connection counts as unauthenticated no longer.
    fn uncount(&mut self, conn: ConnId) {
        let found = self.connections.get_mut(conn.at()).filter(|found| found.id == conn);
        let Some(counted) = found.and_then(|connection| connection.counted.take()) else { return };
        let connections = &self.connections;
        self.unauthenticated.remove(counted, |conn| is_counted(connections, conn));
    }
}

fn is_counted(connections: &Slab<Connection>, conn: ConnId) -> bool {
    let found = connections.get(conn.at()).filter(|found| found.id == conn);
    found.is_some_and(|found| found.counted.is_some())
}

/// Puts a connection into the list of those to read from, once.
fn enqueue(ready: &mut Vec<ConnId>, connection: &mut Connection) {
    if !connection.is_enqueued {
        connection.is_enqueued = true;
        ready.push(connection.id);
    }
}
