//! The loop: one poll, one table of connections, one turn after the other.
//!
//! What a turn read stays in one buffer until the turn is committed: if it cannot be, the same
//! frames are fed again, and those that would write are declined.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::auth::helper::{JobDone, PasswordHelper};
use crate::config::Config;
use crate::ids::ConnId;
use crate::limits::{
    DESCRIPTORS_RESERVED, HEADER_BYTES, TURN_HANDSHAKES, TURN_READ_BYTES,
    TURN_READ_BYTES_PER_CONNECTION, TURN_REQUESTS_PER_CONNECTION,
};
use crate::net::clock::Clock;
use crate::net::connection::{Connection, Due, PeerState, Phase};
use crate::net::listener::{Accepted, Listener, Port, RETRY_MS, Spare, network};
use crate::net::serve::ServeError;
use crate::net::timers::{NEVER_MS, Timers};
use crate::net::tls::Identity;
use crate::net::transport::{Transport, looks_like_tls};
use crate::service::{Flow, Service, TurnEnd};
use crate::wire::frame::{self, Parsed};
use crate::wire::purpose::ToClient;

/// Events taken from one poll.
const EVENTS_PER_POLL: usize = 1024;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Milliseconds between two slices of housekeeping.
const HOUSEKEEPING_MS: u64 = 250;
/// Bytes of a socket's input that are thrown away in one turn.
const DISCARD_BYTES: usize = 64 * 1024;

/// The generation of tokens that are no connection's.
const SPECIAL: u32 = u32::MAX;
const WAKER: Token = token(ConnId { index: 0, generation: SPECIAL });
const SIGNALS: Token = token(ConnId { index: 1, generation: SPECIAL });
const FIRST_LISTENER: u32 = 2;

const fn token(conn: ConnId) -> Token {
    Token((conn.generation as usize) << 32 | conn.index as usize)
}

const fn conn_of(token: Token) -> ConnId {
    ConnId { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

/// What a turn was fed, to be fed again if it has to be undone.
enum Input {
    /// A frame, by its place in the turn's buffer.
    Frame { conn: ConnId, start: usize, end: usize },
    /// A frame too long to be read.
    Oversized { conn: ConnId, task: u8 },
    /// Password work that is done.
    Done(JobDone),
}

/// Signals that came, and the pipe that wakes the loop for them.
struct Signals {
    pipe: mio::net::UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stop, reload) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        for (signal, flag) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
        }
        // A file that may not grow fails its write; the signal must not end the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { pipe: mio::net::UnixStream::from_std(ours), stop, reload })
    }

    fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(io::Read::read(&mut self.pipe, &mut bytes), Ok(count) if count > 0) {}
    }
}

/// The loop and all its sockets.
pub(super) struct Reactor<'a, 'db> {
    config: &'a Config,
    service: &'a mut Service<'db>,
    poll: Poll,
    signals: Signals,
    helper: PasswordHelper,
    listeners: Vec<Listener>,
    identity: Option<Identity>,
    spare: Spare,
    accept_again_ms: u64,
    connections: Slab<Connection>,
    connections_max: usize,
    next_generation: u32,
    unauthorized: HashMap<IpAddr, usize>,
    timers: Timers,
    clock: Clock,
    housekeeping_ms: u64,
    /// Connections to read from.
    ready: Vec<ConnId>,
    /// Room for the list that is worked on.
    reading: Vec<ConnId>,
    /// Connections to be forgotten before the next turn.
    gone: Vec<ConnId>,
    /// What the turn has read; the frames in it stay until the turn has ended.
    arena: Vec<u8>,
    arena_used: usize,
    inputs: Vec<Input>,
    is_pump_waiting: bool,
    /// When the peers' time to take their last bytes is over.
    stopping_until_ms: Option<u64>,
}

impl<'a, 'db> Reactor<'a, 'db> {
    pub(super) fn new(
        config: &'a Config,
        service: &'a mut Service<'db>,
        mut listeners: Vec<Listener>,
        identity: Option<Identity>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let wake = move || {
            if let Err(error) = waker.wake() {
                log::error!("cannot wake the loop: {error}");
            }
        };
        let mut signals = Signals::catch()?;
        poll.registry().register(&mut signals.pipe, SIGNALS, Interest::READABLE)?;
        for (place, listener) in listeners.iter_mut().enumerate() {
            let index = FIRST_LISTENER + place as u32;
            let token = token(ConnId { index, generation: SPECIAL });
            poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
        }
        Ok(Self {
            config,
            service,
            poll,
            signals,
            helper: PasswordHelper::start(wake)?,
            listeners,
            identity,
            spare: Spare::new(),
            accept_again_ms: NEVER_MS,
            connections: Slab::new(),
            connections_max: connections_max(config.max_connections),
            next_generation: 0,
            unauthorized: HashMap::new(),
            timers: Timers::default(),
            clock: Clock::start(),
            housekeeping_ms: 0,
            ready: Vec::new(),
            reading: Vec::new(),
            gone: Vec::new(),
            arena: vec![0; TURN_READ_BYTES + 2 * (config.body_limit_bytes + HEADER_BYTES)],
            arena_used: 0,
            inputs: Vec::new(),
            is_pump_waiting: false,
            stopping_until_ms: None,
        })
    }

    /// Turns until a signal ends it and the peers have their last bytes, or their time is over.
    pub(super) fn run(&mut self) -> Result<(), ServeError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            self.turn(&mut events)?;
            if let Some(until_ms) = self.stopping_until_ms
                && (self.connections.is_empty() || self.clock.now_ms() >= until_ms)
            {
                return Ok(());
            }
        }
    }

    /// One turn.
    ///
    /// 1. Wait for events, a deadline, or not at all when work is left.
    /// 2. Forget connections that ended in the last turn.
    /// 3. Take new connections.
    /// 4. Housekeeping, and what the command line has changed: the requests of this turn see it.
    /// 5. Take what the password helper has done.
    /// 6. Read, parse and handle, within the turn's budgets.
    /// 7. COMMIT; when it fails, undo and handle the same input again.
    /// 8. Give password jobs to the helper.
    /// 9. Deadlines, every turn.
    /// 10. Long answers and catch-ups, for peers with room.
    /// 11. One write for each connection that got something.
    fn turn(&mut self, events: &mut Events) -> Result<(), ServeError> {
        self.wait(events)?;
        self.clock.read();
        self.service.begin_turn(self.clock.wall_us(), self.clock.now_ms());
        self.forget_gone();
        self.note_events(events);
        self.handle_signals();
        self.accept();
        self.keep_house();
        self.take_done();
        self.read();
        self.commit()?;
        self.submit_jobs();
        self.check_deadlines();
        self.is_pump_waiting = self.service.pump();
        self.service.end_pump();
        self.check_storage()?;
        self.list_resumed();
        self.flush();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), ServeError> {
        let is_busy = !self.ready.is_empty()
            || !self.gone.is_empty()
            || self.is_pump_waiting
            || self.service.outbox.has_dirty()
            || self.accept_again_ms == NEVER_MS && self.listeners.iter().any(|l| l.is_ready);
        let until_ms = [
            self.timers.next_ms(),
            self.housekeeping_ms,
            self.accept_again_ms,
            self.stopping_until_ms.unwrap_or(NEVER_MS),
        ];
        let next_ms = until_ms.into_iter().min().unwrap_or(NEVER_MS);
        // One more, since the clock cuts off what is under a millisecond.
        let wait_ms = next_ms.saturating_sub(self.clock.now_ms()).saturating_add(1);
        let timeout = Duration::from_millis(if is_busy { 0 } else { wait_ms.min(60_000) });
        match self.poll.poll(events, Some(timeout)) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                Err(ServeError::Failed(format!("the event loop failed: {e}")))
            }
            _ => Ok(()),
        }
    }

    fn note_events(&mut self, events: &Events) {
        for event in events {
            let conn = conn_of(event.token());
            if conn.generation == SPECIAL {
                match event.token() {
                    WAKER => {}
                    SIGNALS => self.signals.drain(),
                    _ => {
                        let place = conn.index.wrapping_sub(FIRST_LISTENER) as usize;
                        if let Some(listener) = self.listeners.get_mut(place) {
                            listener.is_ready = true;
                        }
                    }
                }
                continue;
            }
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn {
                continue;
            }
            connection.is_writable |= event.is_writable();
            connection.is_ending |= event.is_read_closed() || event.is_error();
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                connection.is_readable = true;
                list(&mut self.ready, connection);
            }
            if event.is_writable()
                && (self.service.outbox.pending_bytes(conn.index) > 0
                    || connection.transport.wants_write())
            {
                self.service.outbox.touch(conn.index);
            }
        }
    }

    fn handle_signals(&mut self) {
        if self.signals.reload.swap(false, Ordering::Relaxed)
            && let Some(identity) = &mut self.identity
        {
            match identity.reload() {
                Ok(()) => log::info!("certificate and key are loaded again"),
                Err(error) => log::error!("certificate and key stay as they were: {error}"),
            }
        }
        if self.signals.stop.load(Ordering::Relaxed) && self.stopping_until_ms.is_none() {
            log::info!("stopping");
            let now_ms = self.clock.now_ms();
            self.stopping_until_ms = Some(now_ms + self.config.shutdown_timeout_ms);
            self.listeners.clear();
            self.service.dismiss_all();
            for (_, connection) in &mut self.connections {
                if connection.phase == Phase::Open {
                    connection.enter(Phase::Flushing, now_ms);
                }
                self.service.outbox.touch(connection.id.index);
            }
        }
    }

    // ---- 2, 3: connections go and come -------------------------------------------------------

    fn forget_gone(&mut self) {
        for conn in std::mem::take(&mut self.gone) {
            if self.connections.get(conn.at()).is_none_or(|connection| connection.id != conn) {
                continue;
            }
            let connection = self.connections.remove(conn.at());
            self.service.closed(conn);
            if connection.is_counted {
                uncount(&mut self.unauthorized, network(connection.address));
            }
            log::debug!("{conn} from {} is closed", connection.address);
        }
        // A descriptor may be free again.
        if self.accept_again_ms != NEVER_MS && self.clock.now_ms() >= self.accept_again_ms {
            self.accept_again_ms = NEVER_MS;
        }
    }

    fn accept(&mut self) {
        if self.accept_again_ms != NEVER_MS {
            return;
        }
        let mut left = ACCEPTS_PER_TURN;
        for place in 0..self.listeners.len() {
            while left > 0 {
                left -= 1;
                let Some(listener) = self.listeners.get_mut(place) else { break };
                if !listener.is_ready {
                    break;
                }
                let port = listener.port;
                match self.spare.accept(&listener.socket) {
                    Accepted::Stream(stream, address) => {
                        self.welcome(stream, address.ip().to_canonical(), port);
                    }
                    Accepted::Nobody => listener.is_ready = false,
                    Accepted::Lost => {}
                    Accepted::NoRoom => {
                        self.accept_again_ms = self.clock.now_ms() + RETRY_MS;
                        return;
                    }
                }
            }
        }
    }

    /// Takes a connection in, or closes it without a byte when there are too many.
    fn welcome(&mut self, stream: mio::net::TcpStream, address: IpAddr, port: Port) {
        let most = self.config.max_unauthorized_per_address;
        let strangers = self.unauthorized.get(&network(address)).copied().unwrap_or(0);
        if self.connections.len() >= self.connections_max || (most > 0 && strangers >= most) {
            log::debug!("a connection from {address} is one too many");
            return;
        }
        // Every write is a whole turn's answers; there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let transport = match (port, &self.identity) {
            (Port::Tls, Some(identity)) => identity.accept(stream),
            _ => Ok(Transport::Plain(stream)),
        };
        let transport = match transport {
            Ok(transport) => transport,
            Err(error) => return log::warn!("a connection from {address} is refused: {error}"),
        };
        let now_ms = self.clock.now_ms();
        let entry = self.connections.vacant_entry();
        let conn = ConnId { index: entry.key() as u32, generation: self.next_generation };
        self.next_generation = (self.next_generation + 1) % SPECIAL;
        let connection = entry.insert(Connection::new(conn, transport, address, now_ms));
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            self.poll.registry().register(&mut connection.transport, token(conn), interest);
        if let Err(error) = registered {
            self.connections.remove(conn.at());
            return log::warn!("a connection from {address} cannot be polled: {error}");
        }
        connection.is_counted = true;
        *self.unauthorized.entry(network(address)).or_default() += 1;
        // Its first bytes often come with it.
        connection.is_readable = true;
        list(&mut self.ready, connection);
        self.service.connected(conn, address);
        self.arm(conn);
        log::debug!("{conn} from {address} is open");
    }

    // ---- 5, 6: input ---------------------------------------------------------------------------

    fn take_done(&mut self) {
        while let Some(done) = self.helper.try_recv() {
            self.service.job_done(&done);
            self.inputs.push(Input::Done(done));
        }
    }

    fn list_resumed(&mut self) {
        while let Some(conn) = self.service.pop_resumed() {
            if let Some(connection) = self.connections.get_mut(conn.at())
                && connection.id == conn
            {
                list(&mut self.ready, connection);
            }
        }
    }

    fn read(&mut self) {
        let mut reading = std::mem::replace(&mut self.ready, std::mem::take(&mut self.reading));
        let mut handshakes = 0;
        for conn in reading.drain(..) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn {
                continue;
            }
            connection.is_listed = false;
            if connection.transport.is_handshaking() {
                handshakes += 1;
                if handshakes > TURN_HANDSHAKES {
                    list(&mut self.ready, connection);
                    continue;
                }
            }
            if connection.phase != Phase::Open {
                self.discard(conn);
            } else if !self.service.is_held(conn) {
                self.read_one(conn);
            }
        }
        self.reading = reading;
    }

    /// Reads what a connection has, within its share, and handles what is whole.
    fn read_one(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let start = self.arena_used;
        let left = self.arena.len() - start;
        if left < connection.inbox.len() + self.config.body_limit_bytes + HEADER_BYTES {
            list(&mut self.ready, connection);
            return;
        }
        connection.put_back_bytes = 0;
        let inbox = std::mem::take(&mut connection.inbox);
        let mut end = start + inbox.len();
        if let Some(place) = self.arena.get_mut(start..end) {
            place.copy_from_slice(&inbox);
        }
        drop(inbox);
        let most = self.arena.len().min(end + TURN_READ_BYTES_PER_CONNECTION);
        while connection.is_readable && !connection.is_ended && end < most {
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
                    connection.heard_ms = self.clock.now_ms();
                    connection.is_asked = false;
                    connection.is_readable = !is_drained;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    // The alert that says so leaves, then this side ends.
                    log::info!("{conn} from {} is closed: {e}", connection.address);
                    return self.hang_up(conn);
                }
                Err(e) => {
                    log_lost(connection, &e);
                    self.lose(conn);
                    return;
                }
            }
        }
        if connection.transport.wants_write() {
            self.service.outbox.touch(conn.index);
        }
        self.feed(conn, start, end);
    }

    /// Handles the whole frames between two places of the turn's buffer, and keeps the rest.
    fn feed(&mut self, conn: ConnId, mut start: usize, end: usize) {
        let body_bytes_max = self.config.body_limit_bytes;
        let mut requests = 0;
        let mut is_oversized = false;
        let mut flow = Flow::Continue;
        while flow == Flow::Continue && requests < TURN_REQUESTS_PER_CONNECTION {
            let bytes = self.arena.get(start..end).unwrap_or_default();
            match frame::parse(bytes, body_bytes_max) {
                Parsed::Incomplete => break,
                Parsed::TooLarge { task } => {
                    if let Some(connection) = self.connections.get(conn.at()) {
                        log_oversized(connection, bytes);
                    }
                    self.inputs.push(Input::Oversized { conn, task });
                    is_oversized = true;
                    flow = self.service.oversized(conn, task);
                }
                Parsed::Frame(frame) => {
                    requests += 1;
                    let frame_end = start + frame.bytes();
                    self.inputs.push(Input::Frame { conn, start, end: frame_end });
                    flow = self.service.frame(conn, &frame);
                    start = frame_end;
                }
            }
        }
        self.arena_used = start;
        let now_ms = self.clock.now_ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if flow == Flow::Close {
            // After its DISCONNECT the peer says nothing more, so nothing is waited for.
            connection.is_ended |= !is_oversized;
            return self.hang_up(conn);
        }
        let rest = self.arena.get(start..end).unwrap_or_default();
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
                self.service.outbox.touch(conn.index);
            }
        }
        if requests > 0 {
            self.count_authorized(conn);
        }
    }

    /// Throws away what a connection on its way out still says, so that no reset destroys what it
    /// is being sent.
    fn discard(&mut self, conn: ConnId) {
        let start = self.arena_used;
        let end = self.arena.len().min(start + DISCARD_BYTES);
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let Some(room) = self.arena.get_mut(start..end) else { return };
        if connection.is_ended {
            return;
        }
        match connection.transport.read(room) {
            Ok(0) => {
                connection.is_ended = true;
                if connection.phase == Phase::Draining {
                    self.lose(conn);
                }
            }
            Ok(_) => list(&mut self.ready, connection),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => list(&mut self.ready, connection),
            Err(_) => self.lose(conn),
        }
    }

    /// A connection is over; it is forgotten before the next turn, not while others may look at it.
    fn lose(&mut self, conn: ConnId) {
        let now_ms = self.clock.now_ms();
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.phase != Phase::Gone
        {
            connection.enter(Phase::Gone, now_ms);
            self.gone.push(conn);
        }
    }

    /// Keeps the count of unauthorized connections per address.
    fn count_authorized(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let is_stranger = !self.service.is_authorized(conn);
        if is_stranger == connection.is_counted {
            return;
        }
        connection.is_counted = is_stranger;
        if is_stranger {
            *self.unauthorized.entry(network(connection.address)).or_default() += 1;
            self.arm(conn);
        } else {
            uncount(&mut self.unauthorized, network(connection.address));
        }
    }

    // ---- 4, 7, 8: around the turn's input -----------------------------------------------------------------

    fn keep_house(&mut self) {
        let now_ms = self.clock.now_ms();
        if now_ms >= self.housekeeping_ms {
            let has_more = self.service.housekeeping();
            self.housekeeping_ms = now_ms + if has_more { 1 } else { HOUSEKEEPING_MS };
        } else if !self.ready.is_empty() || self.helper.is_busy() {
            self.service.look_for_changes();
        }
    }

    fn commit(&mut self) -> Result<(), ServeError> {
        if self.service.end_turn() == TurnEnd::Undone {
            self.check_storage()?;
            self.feed_again();
            self.service.end_turn();
        }
        self.arena_used = 0;
        self.inputs.clear();
        self.check_storage()
    }

    /// Handles the input of a turn that was undone once more.
    fn feed_again(&mut self) {
        for input in std::mem::take(&mut self.inputs) {
            let (conn, flow) = match input {
                Input::Done(done) => {
                    self.service.job_done(&done);
                    continue;
                }
                Input::Oversized { conn, task } => (conn, self.service.oversized(conn, task)),
                Input::Frame { conn, start, end } => (conn, self.frame_again(conn, start, end)),
            };
            if flow == Flow::Close {
                self.hang_up(conn);
            }
        }
    }

    fn frame_again(&mut self, conn: ConnId, start: usize, end: usize) -> Flow {
        if self.service.is_held(conn) {
            // It takes another way this time, and has to wait for something.
            self.put_back(conn, start, end);
            return Flow::Hold;
        }
        let bytes = self.arena.get(start..end).unwrap_or_default();
        match frame::parse(bytes, self.config.body_limit_bytes) {
            Parsed::Frame(frame) => self.service.frame(conn, &frame),
            Parsed::Incomplete | Parsed::TooLarge { .. } => Flow::Continue,
        }
    }

    /// Handles no more frames of a connection; what is queued is sent, then it is closed.
    fn hang_up(&mut self, conn: ConnId) {
        let now_ms = self.clock.now_ms();
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.id == conn
            && connection.phase == Phase::Open
        {
            connection.enter(Phase::Flushing, now_ms);
            self.service.outbox.touch(conn.index);
            list(&mut self.ready, connection);
        }
    }

    /// Puts a frame back before what the connection has not had handled. Frames put back one
    /// after the other stay in order: each goes behind those put back before it.
    fn put_back(&mut self, conn: ConnId, start: usize, end: usize) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let bytes = self.arena.get(start..end).unwrap_or_default();
        let at = connection.put_back_bytes.min(connection.inbox.len());
        connection.inbox.splice(at..at, bytes.iter().copied());
        connection.put_back_bytes = at + bytes.len();
        list(&mut self.ready, connection);
    }

    fn check_storage(&self) -> Result<(), ServeError> {
        match self.service.lost() {
            None => Ok(()),
            Some(error) => Err(ServeError::StorageLost(format!(
                "writing {} failed, what is on the disk is uncertain; start again: {error}",
                self.config.data.display()
            ))),
        }
    }

    fn submit_jobs(&mut self) {
        while let Some(job) = self.service.pop_job() {
            if self.helper.submit(job).is_err() {
                log::error!("the password helper takes no more");
            }
        }
    }

    // ---- 9: deadlines ------------------------------------------------------------------------------

    fn peer_state(&self, connection: &Connection) -> PeerState {
        let conn = connection.id;
        let since = self.service.unauthorized_since_ms(conn);
        PeerState {
            unauthorized_since_ms: since.filter(|_| !self.service.is_waiting(conn)),
            is_held: self.service.is_held(conn),
            has_pending: self.service.outbox.pending_bytes(conn.index) > 0
                || connection.transport.wants_write(),
        }
    }

    /// Makes sure that the next deadline of a connection is among the timers.
    fn arm(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn.at()) else { return };
        let state = self.peer_state(connection);
        let (at_ms, _) = connection.deadline(self.config, &state);
        // Waiting for a password has no deadline; look again when it should be over.
        let at_ms = at_ms.min(self.clock.now_ms().saturating_add(self.config.idle_timeout_ms));
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if at_ms < connection.timer_ms {
            connection.timer_ms = at_ms;
            self.timers.push(at_ms, conn);
        }
    }

    fn check_deadlines(&mut self) {
        let now_ms = self.clock.now_ms();
        while let Some((at_ms, conn)) = self.timers.pop_due(now_ms) {
            let Some(connection) = self.connections.get_mut(conn.at()) else { continue };
            if connection.id != conn || connection.timer_ms != at_ms {
                continue;
            }
            connection.timer_ms = NEVER_MS;
            let Some(connection) = self.connections.get(conn.at()) else { continue };
            let state = self.peer_state(connection);
            let (due_ms, due) = connection.deadline(self.config, &state);
            if due_ms <= now_ms {
                self.act(conn, due);
            }
            self.arm(conn);
        }
    }

    fn act(&mut self, conn: ConnId, due: Due) {
        let now_ms = self.clock.now_ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        match due {
            Due::Ask => {
                connection.is_asked = true;
                connection.heard_ms = now_ms;
                self.service.stage_bare(conn, ToClient::Heartbeat);
            }
            Due::Close(why) => {
                log::debug!("{conn} from {} is closed: {why}", connection.address);
                connection.enter(Phase::Flushing, now_ms);
                list(&mut self.ready, connection);
                self.service.stage_bare(conn, ToClient::Disconnect);
            }
            Due::Forget(why) => {
                log::debug!("{conn} from {} is dropped: {why}", connection.address);
                self.lose(conn);
            }
        }
    }

    // ---- 11: output ----------------------------------------------------------------------------------

    fn flush(&mut self) {
        while let Some(index) = self.service.outbox.pop_dirty() {
            self.flush_one(index);
        }
    }

    /// One write, unless the transport cuts it: TLS takes a few records at a time.
    fn flush_one(&mut self, index: u32) {
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
                    if is_short && matches!(connection.transport, Transport::Plain(_)) {
                        // The socket is full, and says so when it no longer is.
                        connection.is_writable = false;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => connection.is_writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    log_lost(connection, &e);
                    return self.lose(conn);
                }
            }
        }
        let is_flushed =
            self.service.outbox.pending_bytes(index) == 0 && !connection.transport.wants_write();
        match connection.phase {
            Phase::Open if !is_flushed => self.arm(conn),
            Phase::Open => self.after_flush(conn),
            Phase::Flushing if is_flushed => self.end_own_side(conn),
            Phase::Flushing => self.arm(conn),
            Phase::Draining | Phase::Gone => {}
        }
        self.count_authorized(conn);
    }

    /// The queue ran empty: a connection that had to wait for that is read from again.
    fn after_flush(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let has_input = !connection.inbox.is_empty() || connection.is_readable;
        if has_input && !connection.is_listed && !self.service.is_held(conn) {
            list(&mut self.ready, connection);
        }
    }

    /// Everything is sent: ends this side, and waits a moment for the peer to end its own.
    fn end_own_side(&mut self, conn: ConnId) {
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
        connection.enter(Phase::Draining, now_ms);
        connection.is_readable = true;
        list(&mut self.ready, connection);
        self.arm(conn);
    }
}

/// Puts a connection among those to read from, once.
fn list(ready: &mut Vec<ConnId>, connection: &mut Connection) {
    if !connection.is_listed {
        connection.is_listed = true;
        ready.push(connection.id);
    }
}

fn uncount(unauthorized: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = unauthorized.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            unauthorized.remove(&address);
        }
    }
}

fn log_lost(connection: &Connection, error: &io::Error) {
    log::debug!("{} from {} is lost: {error}", connection.id, connection.address);
}

fn log_oversized(connection: &Connection, bytes: &[u8]) {
    let (conn, address) = (connection.id, connection.address);
    if looks_like_tls(bytes) {
        log::info!("{conn} from {address} speaks TLS to a plain port");
    } else {
        log::info!("{conn} from {address} sends a frame that is too large");
    }
}

/// As many connections as the operator wants and the open-file limit allows; the limit is raised as
/// far as it may be.
fn connections_max(wanted: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the open-file limit stays: {error}");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let allowed = allowed.saturating_sub(DESCRIPTORS_RESERVED).max(1);
    if allowed < wanted {
        log::info!("the open-file limit allows {allowed} connections");
    }
    wanted.min(allowed)
}
