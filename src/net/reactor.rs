//! The loop: one poll, one table of connections, one turn after the other.
//!
//! What a turn read stays in one buffer until the turn has ended.

mod arrivals;
mod deadlines;
mod ending;
mod input;
mod output;
mod scrape;
mod signals;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::auth::helper::PasswordHelper;
use crate::config::Config;
use crate::ids::ConnId;
use crate::limits::{HEADER_BYTES, TURN_READ_BYTES};
use crate::net::clock::Clock;
use crate::net::connection::Connection;
use crate::net::listener::{Listener, Spare};
use crate::net::log_rate_limit::LogRateLimit;
use crate::net::metrics_server::{MetricsServer, Sources};
use crate::net::serve::ServeError;
use crate::net::timers::{NEVER_MS, Timers};
use crate::net::tls::Identity;
use crate::net::write_coalescer::WriteCoalescer;
use crate::net::zero_copy::ZeroCopyBuffer;
use crate::service::Service;

use arrivals::connections_max;
use signals::Signals;

/// Events taken from one poll.
const EVENTS_PER_POLL: usize = 1024;

/// The generation of tokens that are no connection's.
const SPECIAL: u32 = u32::MAX;
/// The generation of tokens of those who ask for figures.
const SCRAPE: u32 = u32::MAX - 1;
/// Generations of connections are under this.
const GENERATIONS: u32 = SCRAPE;
const WAKER: Token = token(ConnId { index: 0, generation: SPECIAL });
const SIGNALS: Token = token(ConnId { index: 1, generation: SPECIAL });
const FIRST_LISTENER: u32 = 2;

const fn token(conn: ConnId) -> Token {
    Token((conn.generation as usize) << 32 | conn.index as usize)
}

const fn conn_of(token: Token) -> ConnId {
    ConnId { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

/// The loop and all its sockets.
pub(super) struct Reactor<'a, 'db> {
    config: &'a Config,
    service: &'a mut Service<'db>,
    poll: Poll,
    signals: Signals,
    helper: PasswordHelper,
    listeners: Vec<Listener>,
    metrics_server: MetricsServer,
    identity: Option<Identity>,
    spare: Spare,
    accept_again_ms: u64,
    connections: Slab<Connection>,
    connections_max: usize,
    next_generation: u32,
    unauthorized: HashMap<IpAddr, usize>,
    log_rate_limit: LogRateLimit,
    timers: Timers,
    clock: Clock,
    housekeeping_ms: u64,
    /// Connections to read from.
    ready: Vec<ConnId>,
    /// Room for the list that is worked on.
    reading: Vec<ConnId>,
    /// Connections to be forgotten before the next turn,
    gone: Vec<ConnId>,
    /// and those that the service is to forget, while their sockets stay for a while.
    parting: Vec<ConnId>,
    /// What the turn has read; the frames in it stay until the turn has ended.
    arena: Vec<u8>,
    arena_used: usize,
    /// What was read in this turn, of frames that are not whole as well.
    turn_read_bytes: usize,
    /// Up to where something was read, of which a part may be secret.
    arena_read: usize,
    has_secret: bool,
    is_pump_waiting: bool,
    write_coalescer: WriteCoalescer,
    pages: ZeroCopyBuffer,
    /// When the peers' time to take their last bytes is over.
    stopping_until_ms: Option<u64>,
}

impl<'a, 'db> Reactor<'a, 'db> {
    pub(super) fn new(
        config: &'a Config,
        service: &'a mut Service<'db>,
        mut listeners: Vec<Listener>,
        sources: Sources,
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
        let asker = |index| token(ConnId { index, generation: SCRAPE });
        let metrics_server = MetricsServer::new(sources, poll.registry(), asker)?;
        Ok(Self {
            config,
            service,
            poll,
            signals,
            helper: PasswordHelper::start(wake)?,
            listeners,
            metrics_server,
            identity,
            spare: Spare::new(),
            accept_again_ms: NEVER_MS,
            connections: Slab::new(),
            connections_max: connections_max(config.max_connections),
            next_generation: 0,
            unauthorized: HashMap::new(),
            log_rate_limit: LogRateLimit::default(),
            timers: Timers::default(),
            clock: Clock::start(),
            housekeeping_ms: 0,
            ready: Vec::new(),
            reading: Vec::new(),
            gone: Vec::new(),
            parting: Vec::new(),
            arena: vec![0; TURN_READ_BYTES + 2 * (config.body_limit_bytes + HEADER_BYTES)],
            arena_used: 0,
            turn_read_bytes: 0,
            arena_read: 0,
            has_secret: false,
            is_pump_waiting: false,
            write_coalescer: WriteCoalescer::default(),
            pages: ZeroCopyBuffer::default(),
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
    /// 2. Accept new connections.
    /// 3. What the command line has changed: the requests of this turn see it.
    /// 4. The password helper's results.
    /// 5. Read, parse and handle, within the turn's budgets.
    /// 6. COMMIT and release; when it fails, the requests are declined.
    /// 7. What the server does on its own account, of which nothing is written, so that nothing can
    ///    be taken back: connections that ended, signals, deadlines, long answers and catch-ups.
    /// 8. Housekeeping.
    /// 9. One write for each connection that got something; many who are only notified may be held
    ///    back for the next turn while requests keep coming.
    /// 10. Metrics, for those that scrape them.
    fn turn(&mut self, events: &mut Events) -> Result<(), ServeError> {
        self.wait(events)?;
        self.clock.read();
        self.service.begin_turn(self.clock.wall_us(), self.clock.now_ms());
        self.note_events(events);
        self.accept();
        self.take_up_changes();
        self.take_done();
        self.read();
        let commit_us = self.commit()?;
        self.forget_gone();
        self.handle_signals();
        self.check_deadlines();
        self.submit_jobs()?;
        self.service.pump();
        self.check_storage()?;
        self.keep_house();
        self.check_storage()?;
        self.list_resumed();
        self.flush();
        self.is_pump_waiting = self.service.may_pump();
        self.service.metrics.turn(self.clock.passed_us(), commit_us);
        self.serve_askers();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), ServeError> {
        let is_busy = !self.ready.is_empty()
            || !self.gone.is_empty()
            || !self.parting.is_empty()
            || self.is_pump_waiting
            || self.service.outbox.has_dirty()
            || self.accept_again_ms == NEVER_MS && self.listeners.iter().any(|l| l.is_ready);
        let until_ms = [
            self.timers.next_ms(),
            self.housekeeping_ms,
            self.accept_again_ms,
            self.stopping_until_ms.unwrap_or(NEVER_MS),
            self.metrics_server.next_ms(),
        ];
        let next_ms = until_ms.into_iter().min().unwrap_or(NEVER_MS);
        // One more, since the clock cuts off what is under a millisecond.
        let wait_ms = next_ms.saturating_sub(self.clock.now_ms()).saturating_add(1);
        self.poll(events, Duration::ZERO)?;
        self.write_coalescer.is_back_to_back = !events.is_empty();
        if !events.is_empty() || is_busy {
            return Ok(());
        }
        if self.write_coalescer.is_holding() && self.look(events)? {
            return Ok(());
        }
        self.poll(events, Duration::from_millis(wait_ms.min(60_000)))
    }

    /// Looks for the next request for a moment; without one, nobody is held back any longer.
    fn look(&mut self, events: &mut Events) -> Result<bool, ServeError> {
        self.clock.read();
        let until_us = self.clock.now_us() + self.write_coalescer.look_us();
        while events.is_empty() && self.clock.now_us() < until_us {
            self.poll(events, Duration::ZERO)?;
            self.clock.read();
        }
        self.write_coalescer.is_back_to_back = !events.is_empty();
        if events.is_empty() {
            self.flush_held();
        }
        Ok(!events.is_empty())
    }

    fn poll(&mut self, events: &mut Events, timeout: Duration) -> Result<(), ServeError> {
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
            if conn.generation == SCRAPE {
                self.metrics_server.note_event(conn.index);
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
}

/// Puts a connection among those to read from, once.
fn list(ready: &mut Vec<ConnId>, connection: &mut Connection) {
    if !connection.is_listed {
        connection.is_listed = true;
        ready.push(connection.id);
    }
}
