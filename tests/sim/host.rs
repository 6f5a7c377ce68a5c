//! The server process: the real engine and service with a simulated disk, network and clocks.
//!
//! It implements [`Io`]: byte streams and the password helper. At each step of a turn it compares
//! what the service has staged with the model.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;

use vestnik::auth::helper::{self, Job, JobDone};
use vestnik::engine::{Engine, Event, Io, Now, Options, Ready, SharedWrite, Stopped, Transfer};
use vestnik::http::{Site, Surface};
use vestnik::ids::ConnId;
use vestnik::outbox::parts::Part;
use vestnik::push;
use vestnik::service::{Flow, Service, TurnEnd};

use crate::file::{self, Look, Reader};
use crate::model::{Fed, Input, Phase, Turn};
use crate::pipe::Link;
use crate::push_sender::PushSender;
use crate::rng::Secrets;
use crate::vfs;
use crate::wire::{Check, DISCONNECT, Frame, frames, take_frame};
use crate::world::World;

/// The longest frames of 1.0 and 0.1, in bytes.
const FRAME_BYTES_MAX: usize = 256 * 1024;
const LEGACY_FRAME_BYTES_MAX: usize = 1024 * 1024 + 1024;

/// Frames, by recipient.
type Sent = BTreeMap<ConnId, Vec<Frame>>;

/// A connection, and its link in the simulated network.
struct Conn {
    id: ConnId,
    link: u64,
    /// The service has forgotten it.
    is_parted: bool,
    /// Its queue is closed, and the model knows.
    is_closing: bool,
    /// It was read from in this turn.
    is_read: bool,
    /// Its client has sent DISCONNECT.
    has_parted: bool,
    /// The network has not been reported writable since it was full.
    is_blocked: bool,
    /// The end of the client's side was reported.
    is_end_known: bool,
    /// How many of its queued bytes were compared.
    looked: usize,
}

/// The outcome of a turn for the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Alive,
    Dead,
}

/// The progress of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Requests are being handled.
    Requests,
    /// Requests are committed or declined.
    OwnAccount,
}

pub(crate) struct Host<'db> {
    pub(crate) engine: Engine<'db>,
    /// The simulation's own connection to the database; closed before the server's.
    pub(crate) look: Look,
    /// A long read transaction.
    pub(crate) reader: Option<Reader>,
    net: Net<'db>,
}

/// The simulation's state alongside the engine.
struct Net<'db> {
    random: &'db Secrets,
    conns: BTreeMap<u32, Conn>,
    jobs: VecDeque<(Job, ConnId, u64)>,
    /// The password work whose result is being handled.
    result: Option<(ConnId, u64)>,
    pushes: PushSender,
    step: Step,
    /// When the last turn was, in microseconds.
    turned_us: u64,
    /// Inputs of the service, and its frames that were not compared yet.
    fed: Vec<Fed>,
    carried: Sent,
    /// What was staged before the present COMMIT, in which the process may crash.
    staged: BTreeMap<ConnId, VecDeque<Frame>>,
    /// Changes of the command line that the service has acted on.
    acted_on: u64,
    undone: u64,
    /// Failed reads before this turn, and before its last phase.
    failed_reads: u64,
    failed_reads_before: u64,
    is_stopping: bool,
    /// Connections that were closing before this step.
    had_last_bytes: Vec<ConnId>,
    wrong: Option<String>,
}

/// [`Net`] and the world, for one turn.
struct Turning<'t, 'db> {
    net: &'t mut Net<'db>,
    w: &'t mut World,
}

impl<'db> Host<'db> {
    pub(crate) fn new(service: Service<'db>, random: &'db Secrets, w: &World) -> Self {
        let plan = &w.plan;
        let options = Options {
            body_bytes_max: plan.rules.body_bytes_max,
            auth_timeout_ms: plan.timeout_ms,
            idle_timeout_ms: 2 * plan.timeout_ms,
            heartbeat_timeout_ms: plan.timeout_ms,
            stall_timeout_ms: 4 * plan.timeout_ms,
            drain_timeout_ms: 2_000,
            connections_max: 1000,
            unauthorized_per_address_max: 0,
            web: true,
            site: Site::default(),
            coalesced_connections_min: 1,
            requests_per_turn_max: plan.requests_per_turn,
        };
        Self {
            engine: Engine::new(service, options),
            look: Look::default(),
            reader: None,
            net: Net {
                random,
                conns: BTreeMap::new(),
                jobs: VecDeque::new(),
                result: None,
                pushes: PushSender::default(),
                step: Step::Requests,
                turned_us: w.clock.now_ms * 1000,
                fed: Vec::new(),
                carried: BTreeMap::new(),
                staged: BTreeMap::new(),
                acted_on: 0,
                undone: 0,
                failed_reads: 0,
                failed_reads_before: 0,
                is_stopping: false,
                had_last_bytes: Vec::new(),
                wrong: None,
            },
        }
    }

    /// Runs one turn of the engine.
    pub(crate) fn turn(&mut self, w: &mut World) -> Check<Fate> {
        let net = &mut self.net;
        net.step = Step::Requests;
        net.failed_reads = failed_reads();
        w.model.now_ms = w.clock.now_ms;
        w.model.highest_wall = w.model.highest_wall.max(w.clock.wall_us);
        w.model.lowest_wall = w.model.lowest_wall.min(w.clock.wall_us);
        let us = w.clock.now_ms * 1000;
        let is_back_to_back = !w.is_quiet && w.rng.one_in(w.plan.holds_one_in);
        self.engine.set_back_to_back(is_back_to_back);
        // A turn takes no time, so the loop is idle unless it is set to be busy.
        let idle_us = if is_back_to_back { 0 } else { us - net.turned_us };
        net.turned_us = us;
        let now = Now { wall_us: w.clock.wall_us, us, idle_us };
        let mut io = Turning { net, w };
        let outcome = self.engine.begin_turn(&mut io, now).and_then(|()| {
            report_events(&mut self.engine, &mut io);
            accept(&mut self.engine, &mut io);
            self.engine.turn(&mut io)
        });
        if let Some(wrong) = self.net.wrong.take() {
            return Err(wrong);
        }
        match outcome {
            Ok(()) => {}
            Err(Stopped::Observer | Stopped::StorageLost(_)) => return Ok(Fate::Dead),
            Err(other) => return Err(format!("{other:?}")),
        }
        let internal_errors = self.engine.service.metrics.internal_errors;
        if internal_errors > 0 {
            return Err(format!("{internal_errors} internal errors"));
        }
        if w.command.is_none() && w.rng.one_in(w.plan.invariants_one_in) {
            self.engine.service.check_invariants()?;
        }
        Ok(if self.is_dead() { Fate::Dead } else { Fate::Alive })
    }

    /// Graceful shutdown: waiting requests are declined, every connection gets its closing frames,
    /// and the exact time is stored. False when the disk fails.
    pub(crate) fn stop(&mut self, w: &mut World) -> Check<bool> {
        self.engine.stop();
        self.net.is_stopping = true;
        if self.turn(w)? == Fate::Dead {
            return Ok(false);
        }
        Ok(self.engine.service.finish().is_ok() && !self.is_dead())
    }

    /// Whether a checkpoint has failed, so that the server will consider its database lost.
    pub(crate) fn is_losing(&self) -> bool {
        vfs::alongside(|side| side.checkpointer.is_lost()) == Some(true)
    }

    pub(crate) fn is_dead(&self) -> bool {
        is_dead(&self.engine.service)
    }

    /// Whether there is nothing to do without a new event.
    pub(crate) fn is_idle(&self) -> bool {
        !self.engine.is_busy() && self.net.jobs.is_empty()
    }

    pub(crate) fn link_of(&self, conn: ConnId) -> Option<u64> {
        self.net.conns.get(&conn.index).filter(|at| at.id == conn).map(|at| at.link)
    }
}

impl Drop for Host<'_> {
    /// No connection may be open when the server closes the database.
    fn drop(&mut self) {
        vfs::set_alongside(None);
    }
}

fn is_dead(service: &Service<'_>) -> bool {
    service.lost().is_some() || vfs::disk(|disk| disk.is_dead())
}

/// Whether the service knows a connection: not while it speaks HTTP.
fn is_known(service: &Service<'_>, conn: ConnId) -> bool {
    service.unauthorized_since_ms(conn).is_some() || service.is_authorized(conn)
}

fn failed_reads() -> u64 {
    vfs::disk(|disk| disk.failed_reads)
}

/// Reports the network's events, each once, as an edge-triggered poll does.
fn report_events(engine: &mut Engine<'_>, io: &mut Turning<'_, '_>) {
    let mut events = Vec::new();
    for conn in io.net.conns.values_mut() {
        conn.is_read = false;
        let Some(link) = io.w.links.get_mut(&conn.link) else { continue };
        let is_over = link.is_broken || link.up.end_has_arrived();
        let ready = Ready {
            readable: std::mem::take(&mut link.is_news),
            writable: conn.is_blocked && (link.is_broken || link.down.has_room()),
            ended: is_over && !std::mem::replace(&mut conn.is_end_known, is_over),
        };
        conn.is_blocked &= !ready.writable;
        if ready.readable || ready.writable || ready.ended {
            events.push((conn.id, ready));
        }
    }
    if io.w.rng.one_in(4) {
        events.reverse();
    }
    for (conn, ready) in events {
        engine.on_ready(io, conn, ready);
    }
}

/// Accepts new links, now or later.
fn accept(engine: &mut Engine<'_>, io: &mut Turning<'_, '_>) {
    let new = io.w.links.iter().filter(|(_, link)| !link.is_accepted);
    let new: Vec<u64> = new.map(|(id, _)| *id).collect();
    for id in new {
        if io.w.rng.one_in(3) {
            continue;
        }
        let Some(link) = io.w.links.get_mut(&id) else { continue };
        link.is_accepted = true;
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, link.address));
        let client = link.client;
        let conns = &mut io.net.conns;
        let connected = engine.connect(address, Surface::Public, |conn| {
            let entry = Conn {
                id: conn,
                link: id,
                is_parted: false,
                is_closing: false,
                is_read: false,
                has_parted: false,
                is_blocked: true,
                is_end_known: false,
                looked: 0,
            };
            conns.insert(conn.index, entry);
            Ok(())
        });
        if let Ok(conn) = connected {
            io.w.model.connected(conn, address.to_string());
            io.w.trace(|| format!("{conn} is open for client {client}"));
        }
    }
}

impl Io for Turning<'_, '_> {
    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Transfer> {
        let most = self.w.rng.weighted(&[(4, 65_536), (1, 64), (1, 7)]).min(buffer.len());
        let Some(at) = self.net.conns.get_mut(&conn.index) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let link = self.w.links.get_mut(&at.link).filter(|link| !link.is_broken);
        let Some(link) = link else { return Err(io::ErrorKind::ConnectionReset.into()) };
        if at.is_read {
            // The rest, and perhaps the end, arrive later.
            link.is_news = true;
            at.is_end_known = false;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if link.up.is_over() {
            return Ok(Transfer { bytes: 0, cost: 0, is_exhausted: true });
        }
        at.is_read = true;
        let bytes = link.up.read(most);
        if bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(Transfer { bytes: bytes.len(), cost: bytes.len(), is_exhausted: bytes.len() < most })
    }

    fn write(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Transfer> {
        let link = self.link(conn)?;
        let of_head = link.down.write(head);
        let of_body = if of_head == head.len() { link.down.write(body) } else { 0 };
        let is_full = !link.down.has_room();
        if let Some(at) = self.net.conns.get_mut(&conn.index) {
            at.looked -= of_body;
            at.is_blocked |= is_full;
        }
        let bytes = of_head + of_body;
        Ok(Transfer { bytes, cost: bytes, is_exhausted: bytes < head.len() + body.len() })
    }

    fn end(&mut self, conn: ConnId) -> io::Result<()> {
        self.link(conn)?.down.is_ended = true;
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(gone) = self.net.conns.remove(&conn.index) {
            let link = self.w.links.get(&gone.link);
            // With bytes still queued, it has read too slowly.
            let is_served = !gone.has_parted && gone.looked == 0;
            if let Some(link) = link.filter(|link| link.is_cut_off() && is_served) {
                let client = link.client;
                self.fail(format!("{conn} of client {client} ended its side, and is cut off"));
            }
            self.w.forget_link(gone.link);
        }
        self.w.trace(|| format!("{conn} is closed"));
    }

    fn next_pushed(&mut self) -> Option<push::Done> {
        let (endpoint, done) = self.net.pushes.next_done(&mut self.w.rng)?;
        if matches!(done.outcome, push::Outcome::Gone { .. }) {
            let sessions = self.w.model.sessions_of_endpoint(&endpoint);
            let gone = sessions.into_iter().map(|session| (session, endpoint.clone()));
            self.w.model.gone.extend(gone);
        }
        Some(done)
    }

    fn submit_push(&mut self, job: push::Job) -> bool {
        self.net.pushes.taken.push(job);
        true
    }

    fn write_shared(
        &mut self,
        conn: ConnId,
        queue: &mut SharedWrite<'_>,
        _peers: usize,
    ) -> Option<io::Result<usize>> {
        if !self.w.plan.sends_parts || queue.slice_bytes() == 0 {
            return None;
        }
        let broadcast = queue.broadcast().to_vec();
        let at = self.net.conns.get_mut(&conn.index)?;
        let link = self.w.links.get_mut(&at.link).filter(|link| !link.is_broken)?;
        let sent = queue.send(|part| {
            Ok(link.down.write(match part {
                Part::Own(bytes) => bytes,
                Part::Slice(piece) => &broadcast[piece],
            }))
        });
        at.looked -= sent.as_ref().copied().unwrap_or_default();
        at.is_blocked |= !link.down.has_room();
        Some(sent)
    }

    /// The helper does one job at a time.
    fn next_done(&mut self) -> Option<JobDone> {
        if self.net.jobs.is_empty() || self.w.rng.one_in(3) {
            return None;
        }
        let (job, conn, wait) = self.net.jobs.pop_front()?;
        self.net.result = Some((conn, wait));
        Some(helper::run(job, self.net.random))
    }

    fn is_helper_busy(&self) -> bool {
        !self.net.jobs.is_empty()
    }

    fn submit(&mut self, job: Job, conn: ConnId) -> io::Result<()> {
        // Jobs that waited in the queue arrive in later turns; an earlier job of the same
        // connection was aborted.
        let Some(place) = self.w.began.iter().rposition(|(other, _)| *other == conn) else {
            self.fail(format!("a password job for {conn}, which asked for none"));
            return Ok(());
        };
        let (conn, wait) = self.w.began.remove(place);
        self.w.began.retain(|(other, _)| *other != conn);
        self.net.jobs.push_back((job, conn, wait));
        Ok(())
    }

    fn observe(&mut self, event: Event<'_>, service: &mut Service<'_>) -> ControlFlow<()> {
        let observed = self.step(&event, service);
        let fate = observed.unwrap_or_else(|wrong| {
            self.fail(wrong);
            Fate::Dead
        });
        if fate == Fate::Alive { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Turning<'_, '_> {
    fn link(&mut self, conn: ConnId) -> io::Result<&mut Link> {
        let at = self.net.conns.get(&conn.index).ok_or(io::ErrorKind::NotConnected)?;
        let link = self.w.links.get_mut(&at.link).filter(|link| !link.is_broken);
        link.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn fail(&mut self, wrong: String) {
        self.net.wrong.get_or_insert(wrong);
    }

    /// Perhaps runs a checkpoint.
    fn copy(&mut self) {
        if self.w.rng.one_in(self.w.plan.copies_one_in) {
            self.w.trace(|| "a checkpoint".to_owned());
            vfs::alongside(|side| side.checkpointer.work());
        }
    }

    fn step(&mut self, event: &Event<'_>, service: &mut Service<'_>) -> Check<Fate> {
        self.note_closing(service);
        match event {
            Event::ChangesTaken => {
                if is_dead(service) {
                    return Ok(Fate::Dead);
                }
                self.note_undone(service);
                self.note_changes(service);
                self.carry(service)?;
            }
            Event::Frame { conn, bytes, flow } => {
                self.note_frame(service, *conn, bytes, *flow);
                if self.w.rng.one_in(self.w.plan.early_look_one_in) {
                    self.check_nothing_leaks(service)?;
                }
            }
            Event::Oversized { conn, task } => {
                self.fed(service, Input::Oversized { conn: *conn, task: *task }, *conn);
            }
            Event::JobDone => {
                if let Some((conn, wait)) = self.net.result.take() {
                    self.w.trace(|| format!("{conn} password work is done"));
                    self.fed(service, Input::Done { conn, wait }, conn);
                }
            }
            Event::Committing => {
                self.copy();
                self.check_nothing_leaks(service)?;
                self.net.staged = match self.w.may_die() {
                    true => answers(&self.merged(self.fresh(service)?)),
                    false => BTreeMap::new(),
                };
            }
            Event::Ended(end) => return self.ended(service, *end),
            Event::Served => {
                // Bytes staged since then are HTTP, not frames.
                for conn in self.net.conns.values_mut().filter(|conn| !conn.is_parted) {
                    let pending = service.outbox.pending_bytes(conn.id.index);
                    conn.looked = pending;
                }
            }
            Event::ConnectionForgotten(conn) => {
                self.w.model.closed(*conn);
                if let Some(at) = self.net.conns.get_mut(&conn.index) {
                    at.is_parted = true;
                    at.looked = 0;
                }
            }
            Event::ConnectionsForgotten => {
                if is_dead(service) {
                    return Ok(Fate::Dead);
                }
                let sent = self.look(service)?;
                self.received(&sent, Phase::Turn)?;
                self.settle(service, false)?;
            }
            Event::Pumped => return self.pumped(service),
            Event::Housekept => return self.housekept(service),
        }
        Ok(Fate::Alive)
    }

    // ---- inputs of the service -----------------------------------------------------------------

    fn note_frame(&mut self, service: &Service<'_>, conn: ConnId, bytes: &[u8], flow: Flow) {
        if let Some((frame, _)) = take_frame(bytes) {
            if let Some(at) = self.net.conns.get_mut(&conn.index) {
                at.has_parted |= frame.purpose == DISCONNECT;
            }
            self.w.trace(|| format!("{conn} -> {} ({flow:?})", frame.words()));
        }
        self.fed(service, Input::Frame { conn, bytes: bytes.to_vec() }, conn);
    }

    /// Records an input of the service, and its clock afterwards.
    fn fed(&mut self, service: &Service<'_>, input: Input, conn: ConnId) {
        let after = service.last_time().micros();
        let suspended = service.is_suspended(conn);
        let wall = service.wall_time().micros();
        self.net.fed.push(Fed { input, after, wall, suspended });
    }

    /// Records closed queues.
    fn note_closing(&mut self, service: &Service<'_>) {
        let closing = self.net.conns.values().filter(|conn| conn.is_closing);
        self.net.had_last_bytes = closing.map(|conn| conn.id).collect();
        let is_new = |conn: &&mut Conn| !conn.is_closing && !conn.is_parted;
        let mut closing = Vec::new();
        for conn in self.net.conns.values_mut().filter(is_new) {
            if service.outbox.is_closed(conn.id.index) {
                conn.is_closing = true;
                closing.push(conn.id);
            }
        }
        for conn in closing {
            match self.net.step {
                Step::Requests => self.fed(service, Input::Closing { conn }, conn),
                Step::OwnAccount => self.w.model.closing(conn),
            }
        }
    }

    /// Background work may be undone, too.
    fn note_undone(&mut self, service: &Service<'_>) {
        let undone = service.metrics.undone;
        if std::mem::replace(&mut self.net.undone, undone) != undone {
            self.w.model.undone(0);
        }
    }

    /// Changes by commands are notified at once, and not undone with the turn.
    fn note_changes(&mut self, service: &Service<'_>) {
        self.w.model.changes_wait = service.has_changes_waiting();
        let acted_on = service.changes_acted_on();
        if std::mem::replace(&mut self.net.acted_on, acted_on) != acted_on
            && let Some(command) = self.w.command.take()
        {
            let after = service.last_time().micros();
            let input = Input::Command(command);
            let wall = service.wall_time().micros();
            self.net.fed.push(Fed { input, after, wall, suspended: false });
        }
    }

    // ---- its output ----------------------------------------------------------------------------

    /// Frames staged since the last look, released or not.
    fn fresh(&self, service: &Service<'_>) -> Check<Sent> {
        let mut all = BTreeMap::new();
        for conn in self.net.conns.values().filter(|conn| !conn.is_parted) {
            let (index, outbox) = (conn.id.index, &service.outbox);
            let pending = outbox.pending_bytes(index);
            // A connection unknown to the service gets HTTP.
            if pending > conn.looked && is_known(service, conn.id) {
                let whole = outbox.copy_of(index);
                if whole.len() != pending {
                    let found = whole.len();
                    return Err(format!("{pending} bytes wait for {}, not {found}", conn.id));
                }
                all.insert(conn.id, frames(&whole[conn.looked..])?);
            }
        }
        Ok(all)
    }

    /// Frames released since the last look.
    fn look(&mut self, service: &Service<'_>) -> Check<Sent> {
        let fresh = self.fresh(service)?;
        for conn in self.net.conns.values_mut().filter(|conn| !conn.is_parted) {
            let (index, outbox) = (conn.id.index, &service.outbox);
            conn.looked = outbox.pending_bytes(index);
            let is_flat = outbox.slice_bytes(index) == 0;
            if is_flat && outbox.sendable(index).len() != conn.looked {
                return Err(format!("{} has bytes that are not released", conn.id));
            }
        }
        Ok(fresh)
    }

    /// Keeps frames sent before the turn's requests, to be compared with those that the requests
    /// cause.
    fn carry(&mut self, service: &Service<'_>) -> Check {
        let sent = self.look(service)?;
        self.net.carried = self.merged(sent);
        Ok(())
    }

    fn merged(&self, sent: Sent) -> Sent {
        let mut all = self.net.carried.clone();
        for (conn, frames) in sent {
            all.entry(conn).or_default().extend(frames);
        }
        all
    }

    /// Checks that what the turn has staged cannot be sent yet.
    fn check_nothing_leaks(&self, service: &Service<'_>) -> Check {
        for conn in self.net.conns.values().filter(|conn| !conn.is_parted) {
            let (index, outbox) = (conn.id.index, &service.outbox);
            if outbox.slice_bytes(index) == 0 && outbox.sendable(index).len() > conn.looked {
                return Err(format!("{} could be sent something before the COMMIT", conn.id));
            }
        }
        Ok(())
    }

    fn received(&mut self, sent: &Sent, phase: Phase) -> Check {
        for (conn, frames) in sent {
            self.w.trace(|| format!("{conn} <~ {}", words(frames)));
            self.w.model.got(*conn, frames, phase)?;
        }
        Ok(())
    }

    // ---- the steps of a turn -------------------------------------------------------------------

    fn ended(&mut self, service: &mut Service<'_>, end: TurnEnd) -> Check<Fate> {
        let mut fed = std::mem::take(&mut self.net.fed);
        self.net.step = Step::OwnAccount;
        if is_dead(service) {
            self.w.died_in_turn(&fed, std::mem::take(&mut self.net.staged));
            return Ok(Fate::Dead);
        }
        if end == TurnEnd::Declined {
            self.w.trace(|| "the turn is declined".to_owned());
            self.w.model.undone(fed.len());
            self.w.undone += 1;
            self.net.undone = service.metrics.undone;
            for one in &mut fed {
                if let Input::Frame { conn, .. } = one.input {
                    one.suspended = service.is_suspended(conn);
                }
            }
        }
        for one in &fed {
            if let Input::Closing { conn } = one.input
                && !service.outbox.is_closed(conn.index)
            {
                return Err(format!("{conn} was closing, and is not after its turn"));
            }
        }
        self.compare(service, &fed, end)?;
        self.copy();
        self.net.failed_reads_before = failed_reads();
        Ok(Fate::Alive)
    }

    /// After the turn: compares everything sent with the model.
    fn compare(&mut self, service: &Service<'_>, fed: &[Fed], end: TurnEnd) -> Check {
        let sent = self.look(service)?;
        let sent = self.merged(sent);
        self.net.carried.clear();
        let mut staged = answers(&sent);
        let mut turn = Turn::new(&mut staged, end == TurnEnd::Declined);
        turn.unreadable = failed_reads() > self.net.failed_reads;
        for (conn, frames) in &sent {
            self.w.trace(|| format!("{conn} <- {}", words(frames)));
            let notices = frames.iter().filter(|frame| frame.is_notification()).count();
            turn.notices.insert(*conn, notices as u32);
        }
        for one in fed {
            self.w.model.apply(&mut turn, one)?;
        }
        self.w.began.extend(turn.began);
        if let Some((conn, left)) = staged.iter().find(|(_, left)| !left.is_empty()) {
            return Err(format!("{conn} was sent {}, which nothing asked for", left[0].words()));
        }
        for (conn, frames) in &sent {
            self.w.model.got(*conn, frames, Phase::Turn)?;
        }
        self.settle(service, end == TurnEnd::Committed)?;
        self.w.sent_until(service.last_time().micros())
    }

    /// Notifications not sent by now must be in the backlog.
    fn settle(&mut self, service: &Service<'_>, is_committed: bool) -> Check {
        let is_sure = is_committed && failed_reads() == self.net.failed_reads;
        for conn in self.net.conns.values().filter(|conn| !conn.is_parted) {
            let pending = service.outbox.pending_bytes(conn.id.index);
            let pending = if is_sure { Some(pending) } else { None };
            self.w.model.settle(conn.id, service.is_behind(conn.id), pending)?;
            check_bound(self.w, service, conn)?;
        }
        Ok(())
    }

    /// Compares what was sent without a request.
    fn pumped(&mut self, service: &Service<'_>) -> Check<Fate> {
        if is_dead(service) {
            return Ok(Fate::Dead);
        }
        let sent = self.look(service)?;
        if std::mem::take(&mut self.net.is_stopping) {
            self.check_final_lines(service, sent)?;
            return Ok(Fate::Alive);
        }
        self.w.model.unreadable = failed_reads() > self.net.failed_reads_before;
        self.received(&sent, Phase::Pump)?;
        for conn in self.net.conns.values().filter(|conn| !conn.is_parted) {
            self.w.model.caught_up(conn.id, service.is_behind(conn.id))?;
            check_bound(self.w, service, conn)?;
        }
        self.copy();
        Ok(Fate::Alive)
    }

    /// In a graceful shutdown, waiting requests are declined and every connection gets DISCONNECT.
    fn check_final_lines(&self, service: &Service<'_>, mut sent: Sent) -> Check {
        for (id, conn) in &self.w.model.conns {
            let frames = sent.remove(id).unwrap_or_default();
            let waiting = conn.waiting.as_ref().map(|waiting| waiting.task);
            let asked = [waiting, conn.stream.as_ref().map(|stream| stream.task)];
            let declined: Vec<u8> = asked.into_iter().flatten().collect();
            let Some((last, rest)) = frames.split_last() else {
                // It has its closing frames already, or is unknown to the service, since it speaks
                // HTTP.
                let had_them = self.net.had_last_bytes.contains(id);
                if declined.is_empty() && (had_them || !is_known(service, *id)) {
                    continue;
                }
                return Err(format!("{id} got no last word"));
            };
            let is_right = |(frame, task): (&Frame, &u8)| {
                frame.task == *task && frame.body.starts_with(b"shutting-down:")
            };
            let are_right =
                rest.len() == declined.len() && rest.iter().zip(&declined).all(is_right);
            if !are_right || last.purpose != DISCONNECT {
                return Err(format!("the final lines to {id}: {}", words(&frames)));
            }
        }
        Ok(())
    }

    /// A slice of housekeeping is a turn of its own.
    fn housekept(&mut self, service: &Service<'_>) -> Check<Fate> {
        if is_dead(service) {
            return Ok(Fate::Dead);
        }
        let undone = self.net.undone;
        self.note_undone(service);
        self.w.model.kept_house(service.last_time().micros());
        self.note_changes(service);
        self.settle_pushes(service, self.net.undone == undone)?;
        let fed = std::mem::take(&mut self.net.fed);
        self.compare(service, &fed, TurnEnd::Committed)?;
        Ok(Fate::Alive)
    }
}

impl Turning<'_, '_> {
    /// Checks the pushes that this slice of housekeeping has handed over, and what it has stored
    /// about earlier ones.
    fn settle_pushes(&mut self, service: &Service<'_>, is_stored: bool) -> Check {
        let is_settled = !service.has_sent_pushes() && !self.w.model.gone.is_empty();
        if is_settled && is_stored {
            self.w.model.settle_gone(None);
        } else if is_settled {
            let faults = vfs::disk(|disk| disk.behave());
            let there = file::endpoints();
            vfs::disk(|disk| disk.misbehave(faults));
            self.w.model.settle_gone(Some(&there?));
        }
        for job in std::mem::take(&mut self.net.pushes.taken) {
            self.w.trace(|| format!("a push to {}: {}", job.endpoint, job.text));
            self.w.model.pushed(&job, service.last_time().micros())?;
            self.net.pushes.send(job, &mut self.w.rng);
        }
        Ok(())
    }
}

fn check_bound(w: &mut World, service: &Service<'_>, conn: &Conn) -> Check {
    let pending = service.outbox.pending_bytes(conn.id.index);
    w.most_pending = w.most_pending.max(pending);
    // One frame may exceed the bound; on 0.1, an answer is one frame.
    let is_modern = w.model.conns.get(&conn.id).is_none_or(|conn| conn.is_modern());
    let frame_bytes_max = if is_modern { FRAME_BYTES_MAX } else { LEGACY_FRAME_BYTES_MAX };
    let limit = w.model.rules.outbound_bytes_max + frame_bytes_max;
    if pending > limit {
        return Err(format!("{pending} bytes wait for {}, more than {limit}", conn.id));
    }
    Ok(())
}

fn answers(sent: &Sent) -> BTreeMap<ConnId, VecDeque<Frame>> {
    let mut answers = BTreeMap::new();
    for (conn, frames) in sent {
        let frames = frames.iter().filter(|frame| !frame.is_notification());
        answers.insert(*conn, frames.cloned().collect());
    }
    answers
}

fn words(frames: &[Frame]) -> String {
    let words: Vec<String> = frames.iter().map(Frame::words).collect();
    words.join(", ")
}
