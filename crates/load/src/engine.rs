//! The event loop: connects, runs the phases, and reads the clock once per turn.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::conn::{Conn, Dialect, Drained, Role, Stage};
use super::count::{Book, Counters, Faults, Phase, Shared};
use super::payload::Payload;
use super::procfs::{self, Memory};
use super::scenario::{self, Plan, Unit};
use super::stream::{Security, Stream};
use super::{LoadRunArgs, Scenario, dial, mqtt, nats, resp, setup};

/// File descriptors other than connections: standard streams, poll, /proc, a spare.
const DESCRIPTORS_RESERVED: usize = 64;

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Connections per source address that are set up at the same time: below a server's limit on
/// unauthenticated connections, which includes those that stay unauthenticated.
const SETUPS_PER_ADDRESS: usize = 24;

/// Nanoseconds that the setup may go without a connection becoming ready.
const SETUP_STALL_NS: u64 = 60 * SECOND_NS;

/// Seconds to wait, after the last request, for what is still on its way.
const DRAIN_SECONDS: u64 = 15;

/// Pause before a rejected connection retries, and how often it may.
const RETRY_NS: u64 = SECOND_NS / 10;
const RETRIES_PER_CONNECTION: usize = 20;

/// Unanswered sends that a connection may have in an open loop.
const BACKLOG_MAX: usize = 65_536;

/// The results of a measurement.
pub(super) struct Outcome {
    pub(super) plan: Plan,
    /// Measured seconds.
    pub(super) seconds: f64,
    /// Events in that time.
    pub(super) counters: Counters,
    /// CPU seconds of the server in that time.
    pub(super) server_cpu: Option<f64>,
    /// CPU seconds of this process in that time.
    pub(super) client_cpu: f64,
    /// Memory of the server before the first connection.
    pub(super) memory_before: Option<Memory>,
    /// The same at the end of the measured time.
    pub(super) memory: Option<Memory>,
    /// Seconds from the first connection until the last one was ready.
    pub(super) setup_seconds: f64,
    pub(super) answers: Histogram<u64>,
    pub(super) deliveries: Histogram<u64>,
    /// Deliveries of the whole run that were compared with the books.
    pub(super) checked: u64,
    pub(super) faults: Faults,
}

/// Runs one measurement.
pub(super) fn run(args: &LoadRunArgs, plan: Plan) -> Result<Outcome, String> {
    run_with_drain(args, plan, DRAIN_SECONDS)
}

/// Runs one measurement, and then waits some seconds for missing deliveries.
pub(super) fn run_with_drain(
    args: &LoadRunArgs,
    plan: Plan,
    drain_seconds: u64,
) -> Result<Outcome, String> {
    let mut engine = Engine::new(args, plan)?;
    let memory_before = engine.memory();
    let setup_seconds = engine.set_up()?;
    engine.begin_load();
    engine.turn_for(Phase::Warmup, args.warmup.into())?;
    let before = engine.snapshot();
    engine.turn_for(Phase::Measure, args.seconds.into())?;
    let after = engine.snapshot();
    let memory = engine.memory();
    engine.drain(drain_seconds)?;
    engine.verify();
    let Engine { plan, shared, .. } = engine;
    Ok(Outcome {
        plan,
        seconds: (after.at_ns - before.at_ns) as f64 / SECOND_NS as f64,
        counters: difference(&after.counters, &before.counters),
        server_cpu: after.server_cpu.zip(before.server_cpu).map(|(after, before)| after - before),
        client_cpu: after.client_cpu - before.client_cpu,
        memory_before,
        memory,
        setup_seconds,
        answers: shared.answers,
        deliveries: shared.deliveries,
        checked: shared.arrived,
        faults: shared.faults,
    })
}

/// Counters and CPU times at one point in time.
#[derive(Clone, Copy)]
struct Snapshot {
    at_ns: u64,
    counters: Counters,
    server_cpu: Option<f64>,
    client_cpu: f64,
}

fn difference(after: &Counters, before: &Counters) -> Counters {
    Counters {
        deliveries: after.deliveries - before.deliveries,
        sends: after.sends - before.sends,
        echoes: after.echoes - before.echoes,
        stored: after.stored - before.stored,
        logins: after.logins - before.logins,
        restores: after.restores - before.restores,
        others: after.others - before.others,
        bytes_in: after.bytes_in - before.bytes_in,
    }
}

struct Engine<'a> {
    args: &'a LoadRunArgs,
    plan: Plan,
    poll: Poll,
    events: Events,
    conns: Vec<Conn>,
    shared: Shared,
    buffer: Vec<u8>,
    began: Instant,
    server: Option<String>,
    security: Option<Security>,
    /// Connections with more to read than fit in the last turn.
    again: Vec<usize>,
    /// Connections that are being set up.
    setups: Vec<usize>,
    retries_left: usize,
    /// Connections that send at a fixed rate, and the number of sends so far.
    timed: Vec<usize>,
    paced: u64,
    /// When sending at a fixed rate began.
    pace_from_ns: u64,
    reported_at_ns: u64,
    reported: Counters,
}

/// The only clock of the load generator.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

impl<'a> Engine<'a> {
    fn new(args: &'a LoadRunArgs, plan: Plan) -> Result<Self, String> {
        let connections = plan.roles.len();
        let files = connections as u64 + DESCRIPTORS_RESERVED as u64;
        if let Some(max) = procfs::open_files_max().filter(|max| *max < files) {
            return Err(format!(
                "{connections} connections need {files} open files, and {max} are allowed: raise `ulimit -n`"
            ));
        }
        let text = |error: io::Error| error.to_string();
        Ok(Self {
            shared: shared(args, &plan)?,
            args,
            poll: Poll::new().map_err(text)?,
            events: Events::with_capacity(1024),
            conns: Vec::with_capacity(connections),
            buffer: Vec::new(),
            began: now(),
            server: args.server_pid.map(|pid| pid.to_string()),
            security: args.tls.as_deref().map(Security::trusting).transpose()?,
            again: Vec::new(),
            setups: Vec::new(),
            retries_left: RETRIES_PER_CONNECTION * connections,
            timed: Vec::new(),
            paced: 0,
            pace_from_ns: 0,
            reported_at_ns: 0,
            reported: Counters::default(),
            plan,
        })
    }

    fn memory(&self) -> Option<Memory> {
        self.server.as_deref().and_then(procfs::memory)
    }

    fn snapshot(&mut self) -> Snapshot {
        Snapshot {
            at_ns: self.shared.now_ns,
            counters: self.shared.total,
            server_cpu: self.server.as_deref().and_then(procfs::cpu_seconds),
            client_cpu: procfs::cpu_seconds("self").unwrap_or(0.0),
        }
    }

    /// Makes all connections, and waits until they are ready. Returns the seconds that took. The
    /// first one goes alone: it learns what the others need.
    fn set_up(&mut self) -> Result<f64, String> {
        let in_setup_max = SETUPS_PER_ADDRESS * usize::from(self.args.source_addresses);
        let mut progress_ns = self.clock();
        let began_ns = progress_ns;
        loop {
            let opened = self.conns.len();
            let in_setup_max = if opened <= 1 { 1 } else { in_setup_max };
            while self.setups.len() < in_setup_max && self.conns.len() < self.plan.roles.len() {
                self.open(self.conns.len())?;
                if opened == 0 {
                    break;
                }
            }
            if self.setups.is_empty() && self.conns.len() == self.plan.roles.len() {
                return Ok((self.clock() - began_ns) as f64 / SECOND_NS as f64);
            }
            let waiting = self.setups.len();
            self.turn(Duration::from_millis(20))?;
            self.tend_setups()?;
            if self.setups.len() < waiting || self.conns.len() > opened {
                progress_ns = self.shared.now_ns;
            }
            if self.shared.now_ns > progress_ns + SETUP_STALL_NS {
                return Err("the connections do not become ready: no progress for a minute".into());
            }
        }
    }

    /// Removes ready connections from the list of setups, and retries rejected ones.
    fn tend_setups(&mut self) -> Result<(), String> {
        let now_ns = self.shared.now_ns;
        let mut place = 0;
        while let Some(&index) = self.setups.get(place) {
            match self.conns[index].stage {
                Stage::Ready => {
                    self.setups.swap_remove(place);
                    continue;
                }
                Stage::Retry(at_ns) if at_ns <= now_ns => {
                    let conn = &mut self.conns[index];
                    conn.stage = Stage::Setup;
                    setup::login(conn, &self.shared);
                    conn.flush(&mut self.shared);
                }
                Stage::Closed => self.reopen(index)?,
                Stage::Setup | Stage::Retry(_) => {}
            }
            place += 1;
        }
        Ok(())
    }

    /// A connection was closed before it was ready: retries after a pause, a limited number of
    /// times.
    fn reopen(&mut self, index: usize) -> Result<(), String> {
        let conn = &self.conns[index];
        if self.retries_left == 0 || conn.is_refused {
            return Err(format!("connection {index} cannot be made: {}", conn.why));
        }
        self.retries_left -= 1;
        let pause_until = self.shared.now_ns + RETRY_NS;
        while self.clock() < pause_until {
            self.turn(Duration::from_millis(10))?;
        }
        self.open(index)
    }

    /// Starts a connection at the next index, or at that of a closed one.
    fn open(&mut self, index: usize) -> Result<(), String> {
        let address = self.args.addr[index % self.args.addr.len()];
        let socket = dial::connect(address, self.source(index))
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let mut stream = match &self.security {
            Some(security) => security.begin(socket, address)?,
            None => Stream::plain(socket),
        };
        if self.args.ws {
            let protocol = match scenario::dialect(self.args, index) {
                Dialect::Mqtt => "mqtt",
                Dialect::Nats => "nats",
                Dialect::Purpose(_) | Dialect::Resp => "purpose",
            };
            stream = stream.with_websocket(address, protocol);
        }
        self.poll
            .registry()
            .register(stream.socket(), Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| error.to_string())?;
        let dialect = scenario::dialect(self.args, index);
        let mut conn = Conn::new(stream, index, dialect, self.plan.roles[index]);
        conn.user = index % self.args.users.map_or(usize::MAX, |users| users as usize);
        conn.slot = self.plan.has_chats.then_some(index % usize::from(self.args.chats));
        match dialect {
            Dialect::Purpose(version) => setup::begin(&mut conn, version, &self.shared),
            Dialect::Resp => resp::begin(&mut conn, &mut self.shared),
            Dialect::Mqtt => mqtt::begin(&mut conn, &mut self.shared),
            Dialect::Nats => nats::begin(&mut conn, &mut self.shared),
        }
        if index < self.conns.len() {
            self.conns[index] = conn;
        } else {
            self.conns.push(conn);
            self.setups.push(index);
        }
        Ok(())
    }

    fn source(&self, index: usize) -> Option<IpAddr> {
        let sources = usize::from(self.args.source_addresses);
        (sources > 1).then(|| Ipv4Addr::new(127, 0, 0, (index % sources) as u8 + 1).into())
    }

    /// Lets every connection begin the work of its role.
    fn begin_load(&mut self) {
        self.shared.phase = Phase::Warmup;
        self.pace_from_ns = self.clock();
        self.reported_at_ns = self.pace_from_ns;
        for conn in &mut self.conns {
            if conn.role == Role::Timed {
                self.timed.push(conn.index);
            }
            conn.fill(&mut self.shared);
            conn.flush(&mut self.shared);
        }
    }

    /// Runs the loop for some seconds.
    fn turn_for(&mut self, phase: Phase, seconds: u64) -> Result<(), String> {
        self.shared.phase = phase;
        let end_ns = self.clock() + seconds * SECOND_NS;
        if phase == Phase::Measure {
            self.shared.measured_from_ns = self.shared.now_ns;
            self.shared.measured_to_ns = end_ns;
        }
        while self.shared.now_ns < end_ns {
            let wait_ns = (end_ns - self.shared.now_ns).min(SECOND_NS / 10);
            self.turn(Duration::from_nanos(wait_ns))?;
            self.send_due();
            self.report_progress();
        }
        Ok(())
    }

    /// Sends no more requests, and waits for what is on its way.
    fn drain(&mut self, seconds: u64) -> Result<(), String> {
        self.shared.phase = Phase::Drain;
        let end_ns = self.clock() + seconds * SECOND_NS;
        while self.shared.now_ns < end_ns {
            let waits = self.conns.iter().any(|conn| !conn.waiting.is_empty());
            if !waits && self.shared.is_complete() {
                break;
            }
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Compares what every connection got with the books.
    fn verify(&mut self) {
        for conn in &self.conns {
            let (index, waiting) = (conn.index, conn.waiting.len());
            if waiting > 0 {
                self.shared
                    .faults
                    .note(|| format!("connection {index}: {waiting} requests were not answered"));
            }
            self.shared.check(index, &conn.tally);
        }
    }

    /// The time since the run began, in nanoseconds; also the time of this turn.
    fn clock(&mut self) -> u64 {
        self.shared.now_ns = self.began.elapsed().as_nanos() as u64;
        self.shared.now_ns
    }

    /// Waits for events up to `wait`, and handles them.
    fn turn(&mut self, wait: Duration) -> Result<(), String> {
        let wait = if self.again.is_empty() { self.wait(wait) } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error.to_string());
            }
            _ => {}
        }
        self.clock();
        let mut again = std::mem::take(&mut self.again);
        for event in &self.events {
            let Some(conn) = self.conns.get_mut(event.token().0) else { continue };
            if event.is_writable() {
                conn.flush(&mut self.shared);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                let ending = event.is_read_closed() || event.is_error();
                if take(conn, &mut self.buffer, &mut self.shared, ending) == Drained::No {
                    again.push(conn.index);
                }
            }
        }
        again.retain(|&index| {
            take(&mut self.conns[index], &mut self.buffer, &mut self.shared, true) == Drained::No
        });
        self.again = again;
        match self.shared.failed.take() {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// How long to sleep. Poll has a resolution of milliseconds, so anything due sooner is
    /// busy-polled.
    fn wait(&self, most: Duration) -> Duration {
        match self.due_ns() {
            Some(due_ns) => {
                let left = due_ns.saturating_sub(self.shared.now_ns) / 1_000_000;
                most.min(Duration::from_millis(left))
            }
            None => most,
        }
    }

    /// When the next send at a fixed rate is due.
    fn due_ns(&self) -> Option<u64> {
        let pace = self.plan.pace.filter(|_| self.shared.sends())?;
        Some(self.pace_from_ns + (self.paced as f64 / pace * SECOND_NS as f64) as u64)
    }

    /// Sends everything due, each stamped with the time when it was due, even if it is late.
    fn send_due(&mut self) {
        while let Some(due_ns) = self.due_ns().filter(|due_ns| *due_ns <= self.shared.now_ns) {
            let index = self.timed[self.paced as usize % self.timed.len()];
            let conn = &mut self.conns[index];
            if conn.waiting.len() >= BACKLOG_MAX {
                break;
            }
            conn.send(&self.shared, due_ns);
            self.paced += 1;
        }
        for &index in &self.timed {
            self.conns[index].flush(&mut self.shared);
        }
    }

    /// Reports the progress once a second.
    fn report_progress(&mut self) {
        let now_ns = self.shared.now_ns;
        if now_ns < self.reported_at_ns + SECOND_NS {
            return;
        }
        let seconds = (now_ns - self.reported_at_ns) as f64 / SECOND_NS as f64;
        let counters = difference(&self.shared.total, &self.reported);
        let (unit, name) = (self.plan.unit, self.plan.name);
        let per_second = unit.count(&counters) as f64 / seconds;
        let phase = if self.shared.phase == Phase::Measure { "" } else { " (warming up)" };
        let line = match unit {
            Unit::Connections => format!("{name}: {} connections{phase}\n", self.conns.len()),
            _ => format!("{name}: {per_second:.0} {}/s{phase}\n", unit.name()),
        };
        // Errors of writing the progress are ignored.
        let _ = io::stderr().write_all(line.as_bytes());
        self.reported_at_ns = now_ns;
        self.reported = self.shared.total;
    }
}

/// Reads from a connection, sends more requests, and writes.
fn take(conn: &mut Conn, buffer: &mut Vec<u8>, shared: &mut Shared, ending: bool) -> Drained {
    if conn.stage == Stage::Closed {
        return Drained::Yes;
    }
    let drained = conn.read(buffer, shared, ending);
    conn.fill(shared);
    conn.flush(shared);
    drained
}

fn shared(args: &LoadRunArgs, plan: &Plan) -> Result<Shared, String> {
    let mut shared = Shared::new(Payload::new(args.payload), args.window.into())?;
    shared.paced = plan.pace.is_some();
    shared.nonces = args.nonces;
    shared.echoes_text = args.payload > 0;
    shared.history.is_still = plan.is_still;
    shared.user_prefix.clone_from(&args.user_prefix);
    shared.password.clone_from(&args.password);
    shared.sessions = vec![None; plan.roles.len()];
    if plan.has_chats {
        for number in 0..args.chats {
            let name = match number {
                0 => args.chat.clone(),
                _ => format!("{}-{number}", args.chat),
            };
            shared.books.push(Book::new(name));
        }
    }
    match scenario::dialect(args, 0) {
        Dialect::Purpose(_) => {}
        Dialect::Resp => resp::build_templates(args.scenario == Scenario::Durable, &mut shared),
        Dialect::Mqtt => mqtt::build_templates(&mut shared),
        Dialect::Nats => nats::build_templates(&mut shared),
    }
    if !matches!(scenario::dialect(args, 0), Dialect::Purpose(_)) {
        shared.own = 0;
    }
    Ok(shared)
}
