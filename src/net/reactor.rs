//! The event loop: waits in poll, accepts connections, and runs the engine.
//!
//! Owns the listeners, the signals and the waiting; the engine reads and writes through `sockets`.
//! It does not know frames, states of connections, or sessions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};

use crate::auth::helper::PasswordHelper;
use crate::config::Config;
use crate::engine::{self, Engine, GENERATIONS, NEVER_MS, Now, Ready, Stopped};
use crate::http::{Site, Surface};
use crate::ids::ConnId;
use crate::limits::TURN_REQUESTS_PER_CONNECTION;
use crate::logging::Logging;
use crate::metrics::Rejection;
use crate::net::clock::Clock;
use crate::net::keeper::CertificateKeeper;
use crate::net::listener::{Accepted, Listener, Port, RETRY_MS, Spare};
use crate::net::push_client::PushRules;
use crate::net::push_sender::PushSender;
use crate::net::serve::ServeError;
use crate::net::service_manager::ServiceManager;
use crate::net::signals::Signals;
use crate::net::sockets::Sockets;
use crate::net::stats_socket::StatsSocket;
use crate::net::transport::Transport;
use crate::service::Service;

/// Events taken from one call of poll.
const EVENTS_PER_POLL: usize = 1024;
/// Connections accepted per turn.
const ACCEPTS_PER_TURN: usize = 256;

/// Generation of tokens that belong to no connection.
const SPECIAL: u32 = u32::MAX;
/// Generation of the tokens of the Unix socket for `vestnik stats`.
const STATS: u32 = GENERATIONS;
const WAKER: Token = token(ConnId { index: 0, generation: SPECIAL });
const SIGNALS: Token = token(ConnId { index: 1, generation: SPECIAL });
const FIRST_LISTENER: u32 = 2;

pub(super) const fn token(conn: ConnId) -> Token {
    Token((conn.generation as usize) << 32 | conn.index as usize)
}

const fn conn_of(token: Token) -> ConnId {
    ConnId { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

/// The event loop.
pub(super) struct Reactor<'a, 'db> {
    config: &'a Config,
    engine: Engine<'db>,
    sockets: Sockets,
    poll: Poll,
    signals: Signals,
    acceptor: Acceptor,
    stats_socket: StatsSocket,
    service_manager: ServiceManager,
    certificate: CertificateKeeper,
    /// When the graceful shutdown gives up on the peers that have not taken their closing frames.
    stopping_until_ms: Option<u64>,
}

/// The listeners, and what it takes to accept from them.
struct Acceptor {
    listeners: Vec<Listener>,
    spare: Spare,
    /// After the file descriptors ran out: when to accept again.
    again_ms: u64,
}

impl<'a, 'db> Reactor<'a, 'db> {
    pub(super) fn new(
        config: &'a Config,
        logging: Logging,
        service: Service<'db>,
        mut listeners: Vec<Listener>,
        mut stats_socket: StatsSocket,
        mut certificate: CertificateKeeper,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let wake = {
            let waker = Arc::clone(&waker);
            move || wake(&waker)
        };
        let push_sender = service.push_key().map(|key| {
            PushSender::new(key, PushRules::new(config), Arc::new(move || self::wake(&waker)))
        });
        certificate.start(config, wake.clone())?;
        let mut signals = Signals::catch()?;
        poll.registry().register(&mut signals.pipe, SIGNALS, Interest::READABLE)?;
        for (place, listener) in listeners.iter_mut().enumerate() {
            let index = FIRST_LISTENER + place as u32;
            let token = token(ConnId { index, generation: SPECIAL });
            poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
        }
        stats_socket
            .register(poll.registry(), |index| token(ConnId { index, generation: STATS }))?;
        Ok(Self {
            config,
            engine: Engine::new(service, engine_options(config)),
            sockets: Sockets::new(PasswordHelper::start(wake)?, push_sender, logging, &config.data),
            poll,
            signals,
            acceptor: Acceptor { listeners, spare: Spare::new(), again_ms: NEVER_MS },
            stats_socket,
            service_manager: ServiceManager::from_environment(),
            certificate,
            stopping_until_ms: None,
        })
    }

    /// Runs turns until the graceful shutdown is complete: all peers have their closing frames, or
    /// the time for that is over.
    pub(super) fn run(&mut self) -> Result<(), ServeError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        self.service_manager.ready();
        loop {
            self.turn(&mut events)?;
            if let Some(until_ms) = self.stopping_until_ms
                && (self.engine.connections() == 0 || self.clock().now_ms() >= until_ms)
            {
                return Ok(());
            }
        }
    }

    /// The service, after the last turn.
    pub(super) fn into_service(self) -> Service<'db> {
        self.engine.service
    }

    fn clock(&self) -> &Clock {
        &self.sockets.clock
    }

    /// One turn: wait, accept, run the engine, and serve `vestnik stats`.
    fn turn(&mut self, events: &mut Events) -> Result<(), ServeError> {
        let idle_from_us = self.clock().now_us() + self.clock().passed_us();
        self.wait(events)?;
        self.sockets.clock.read();
        self.service_manager.turn(self.sockets.clock.now_ms());
        self.certificate.turn(self.sockets.clock.now_ms(), self.sockets.clock.wall_us());
        let (wall_us, us) = (self.clock().wall_us(), self.clock().now_us());
        let now = Now { wall_us, us, idle_us: us.saturating_sub(idle_from_us) };
        let begun = self.engine.begin_turn(&mut self.sockets, now);
        self.check(begun)?;
        self.note_events(events);
        self.accept();
        self.handle_signals();
        self.sockets.certificate_ends_s = self.certificate.ends_s();
        let turned = self.engine.turn(&mut self.sockets);
        self.check(turned)?;
        self.serve_stats();
        Ok(())
    }

    fn check(&self, outcome: Result<(), Stopped>) -> Result<(), ServeError> {
        let data = self.config.data.display();
        outcome.map_err(|stopped| match stopped {
            Stopped::StorageLost(error) => ServeError::StorageLost(format!(
                "writing {data} failed, what is on the disk is uncertain; start again: {error}"
            )),
            Stopped::Helper(error) => {
                ServeError::Failed(format!("the password helper thread failed: {error}"))
            }
            Stopped::Observer => ServeError::Failed("the engine was stopped".to_owned()),
        })
    }

    // ---- waiting -------------------------------------------------------------------------------

    fn wait(&mut self, events: &mut Events) -> Result<(), ServeError> {
        let may_accept = self.acceptor.again_ms == NEVER_MS;
        let is_busy = self.engine.is_busy()
            || may_accept && self.acceptor.listeners.iter().any(|listener| listener.is_ready);
        let until_ms = [
            self.engine.next_ms(),
            self.acceptor.again_ms,
            self.stopping_until_ms.unwrap_or(NEVER_MS),
            self.stats_socket.next_ms(),
            self.service_manager.next_ms(),
            self.certificate.next_ms(),
        ];
        let next_ms = until_ms.into_iter().min().unwrap_or(NEVER_MS);
        // One more, since the clock truncates to milliseconds.
        let wait_ms = next_ms.saturating_sub(self.clock().now_ms()).saturating_add(1);
        self.poll(events, Duration::ZERO)?;
        self.engine.set_back_to_back(!events.is_empty());
        if !events.is_empty() || is_busy {
            return Ok(());
        }
        let spin_us = self.engine.spin_us();
        if spin_us > 0 && self.spin(events, spin_us)? {
            return Ok(());
        }
        self.poll(events, Duration::from_millis(wait_ms.min(60_000)))
    }

    /// Busy-polls for the next request; without one, delayed writes are sent now.
    fn spin(&mut self, events: &mut Events, spin_us: u64) -> Result<bool, ServeError> {
        self.sockets.clock.read();
        let until_us = self.clock().now_us() + spin_us;
        while events.is_empty() && self.clock().now_us() < until_us {
            self.poll(events, Duration::ZERO)?;
            self.sockets.clock.read();
        }
        self.engine.set_back_to_back(!events.is_empty());
        if events.is_empty() {
            self.engine.flush_held(&mut self.sockets);
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
            match (event.token(), conn.generation) {
                (WAKER, _) => {}
                (SIGNALS, _) => self.signals.drain(),
                (_, SPECIAL) => {
                    let place = conn.index.wrapping_sub(FIRST_LISTENER) as usize;
                    if let Some(listener) = self.acceptor.listeners.get_mut(place) {
                        listener.is_ready = true;
                    }
                }
                (_, STATS) => self.stats_socket.note_event(conn.index),
                _ => {
                    let ready = Ready {
                        readable: event.is_readable(),
                        writable: event.is_writable(),
                        ended: event.is_read_closed() || event.is_error(),
                    };
                    self.engine.on_ready(&self.sockets, conn, ready);
                }
            }
        }
    }

    // ---- new connections -----------------------------------------------------------------------

    fn accept(&mut self) {
        // File descriptors may be free again.
        if self.acceptor.again_ms != NEVER_MS && self.clock().now_ms() >= self.acceptor.again_ms {
            self.acceptor.again_ms = NEVER_MS;
        }
        if self.acceptor.again_ms != NEVER_MS {
            return;
        }
        let mut left = ACCEPTS_PER_TURN;
        for place in 0..self.acceptor.listeners.len() {
            while left > 0 {
                left -= 1;
                let Some(listener) = self.acceptor.listeners.get_mut(place) else { break };
                if !listener.is_ready {
                    break;
                }
                let port = listener.port;
                match self.acceptor.spare.accept(&listener.socket) {
                    Accepted::Stream(stream, address) => {
                        let address = address.ip().to_canonical();
                        // A rejected connection is closed without a byte, and counted.
                        let surface = surface(port, &stream);
                        let _ = self.engine.connect(address, surface, |conn| {
                            let transport = transport(stream, port, &self.certificate)?;
                            self.sockets.open(conn, transport, self.poll.registry())
                        });
                    }
                    Accepted::NoneWaiting => listener.is_ready = false,
                    Accepted::Lost => {}
                    Accepted::NoDescriptors => {
                        self.engine.service.metrics.count_rejection(Rejection::Descriptors);
                        self.acceptor.again_ms = self.clock().now_ms() + RETRY_MS;
                        return;
                    }
                }
            }
        }
    }

    // ---- signals and metrics -------------------------------------------------------------------

    fn handle_signals(&mut self) {
        if self.signals.take_reload() {
            self.certificate.reload();
        }
        if self.signals.is_stop() && self.stopping_until_ms.is_none() {
            log::info!("stopping");
            self.service_manager.stopping();
            self.stopping_until_ms = Some(self.clock().now_ms() + self.config.shutdown_timeout_ms);
            self.acceptor.listeners.clear();
            self.stats_socket.close();
            self.engine.stop();
        }
    }

    fn serve_stats(&mut self) {
        let Self { stats_socket, engine, sockets, .. } = self;
        let now_ms = sockets.clock.now_ms();
        stats_socket.serve(self.poll.registry(), now_ms, || engine.render_metrics(sockets));
    }
}

/// Wakes the loop from another thread.
fn wake(waker: &Waker) {
    if let Err(error) = waker.wake() {
        log::error!("cannot wake the loop: {error}");
    }
}

fn transport(
    stream: mio::net::TcpStream,
    port: Port,
    certificate: &CertificateKeeper,
) -> io::Result<Transport> {
    // Every write contains all answers of a turn, so Nagle's algorithm would only delay it.
    let _ = stream.set_nodelay(true);
    match port {
        Port::Tls => certificate.accept(stream),
        Port::Plain | Port::Metrics => Ok(Transport::Plain(stream)),
    }
}

/// What a connection gets. On loopback a page of another site must not get to the metrics by a name
/// of its own.
fn surface(port: Port, stream: &mio::net::TcpStream) -> Surface {
    let is_loopback = || stream.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback());
    match port {
        Port::Plain | Port::Tls => Surface::Public,
        Port::Metrics if is_loopback() => Surface::LocalMetrics,
        Port::Metrics => Surface::Metrics,
    }
}

fn engine_options(config: &Config) -> engine::Options {
    engine::Options {
        body_bytes_max: config.body_limit_bytes,
        auth_timeout_ms: config.auth_timeout_ms,
        idle_timeout_ms: config.idle_timeout_ms,
        heartbeat_timeout_ms: config.heartbeat_timeout_ms,
        stall_timeout_ms: config.stall_timeout_ms,
        drain_timeout_ms: config.drain_timeout_ms,
        connections_max: super::sockets::connections_max(config.max_connections),
        unauthorized_per_address_max: config.max_unauthorized_per_address,
        web: config.web,
        site: Site::new(config),
        requests_per_turn_max: TURN_REQUESTS_PER_CONNECTION,
        coalesced_connections_min: COALESCED_CONNECTIONS_MIN,
    }
}

/// Minimum fan-out at which write coalescing pays off.
const COALESCED_CONNECTIONS_MIN: usize = 32;
