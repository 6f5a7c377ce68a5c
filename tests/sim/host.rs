//! The server process: the real [`Service`] on the simulated disk, driven as the loop drives it.
//!
//! The order of a turn and when a connection is read from are those of `net::reactor`; only sockets,
//! poll and the helper thread are others.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use vestnik::auth::helper::{self, Job, JobDone};
use vestnik::ids::ConnId;
use vestnik::outbox::parts::Part;
use vestnik::service::{Flow, Service, TurnEnd};
use vestnik::wire::frame::{self, Parsed};
use vestnik::wire::purpose::ToClient;

use crate::file::{Look, Reader};
use crate::model::{Fed, Input, Phase, Turn};
use crate::rng::Secrets;
use crate::vfs;
use crate::wire::{Check, DISCONNECT, Frame, frames, take_frame};
use crate::world::World;

const HOUSEKEEPING_MS: u64 = 250;
/// The longest frames of 1.0 and 0.1.
const FRAME_BYTES_MAX: usize = 256 * 1024;
const LEGACY_FRAME_BYTES_MAX: usize = 1024 * 1024 + 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Flushing,
    Draining,
    Gone,
}

/// A connection as the loop sees it.
struct Conn {
    id: ConnId,
    link: u64,
    state: State,
    inbox: Vec<u8>,
    is_readable: bool,
    is_ended: bool,
    is_listed: bool,
    /// How many of the bytes that wait for it were looked at, and how many of those are pieces of
    /// the block, and not put in their places.
    looked: usize,
    referred: usize,
}

/// How a turn ended for the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Alive,
    Dead,
}

pub(crate) struct Host<'db> {
    pub(crate) service: Service<'db>,
    /// The simulation's own view of the file; closed before the server's.
    pub(crate) look: Look,
    /// Who reads it for a while.
    pub(crate) reader: Option<Reader>,
    random: &'db Secrets,
    conns: BTreeMap<u32, Conn>,
    next_generation: u32,
    ready: Vec<ConnId>,
    gone: Vec<ConnId>,
    jobs: VecDeque<(Job, ConnId, u64)>,
    housekeeping_ms: u64,
    fed: Vec<Fed>,
    /// How many changes of the command line were taken up so far, and whether one was in this turn.
    acted_on: u64,
    has_taken_up: bool,
    /// The turn's requests are handled, and committed or declined.
    has_ended_turn: bool,
    undone: u64,
    /// Of this turn: bytes left while it was under way; reads that had failed before it.
    was_flushed_early: bool,
    /// Connections whose queues were looked at and are to be sent, and those of them that asked for
    /// something.
    touched: Vec<u32>,
    asked: Vec<u32>,
    failed_reads: u64,
}

impl<'db> Host<'db> {
    pub(crate) fn new(service: Service<'db>, random: &'db Secrets) -> Self {
        Self {
            service,
            look: Look::default(),
            reader: None,
            random,
            conns: BTreeMap::new(),
            next_generation: 0,
            ready: Vec::new(),
            gone: Vec::new(),
            jobs: VecDeque::new(),
            housekeeping_ms: 0,
            fed: Vec::new(),
            has_taken_up: false,
            has_ended_turn: false,
            undone: 0,
            acted_on: 0,
            was_flushed_early: false,
            touched: Vec::new(),
            asked: Vec::new(),
            failed_reads: 0,
        }
    }

    /// One turn; the numbers are those of the loop's own.
    pub(crate) fn turn(&mut self, w: &mut World) -> Check<Fate> {
        self.was_flushed_early = false;
        self.has_taken_up = false;
        self.has_ended_turn = false;
        self.failed_reads = vfs::disk(|disk| disk.failed_reads);
        w.model.now_ms = w.clock.now_ms;
        self.service.begin_turn(w.clock.wall_us, w.clock.now_ms);
        self.note_events(w);
        self.accept(w); // 2
        self.take_up_changes(w); // 3
        self.take_done(w); // 4
        self.read(w)?; // 5
        self.copy(w);
        if self.commit(w)? == Fate::Dead {
            return Ok(Fate::Dead); // 6
        }
        self.copy(w);
        self.forget_gone(w)?; // 7
        self.deadlines(w);
        self.submit_jobs(w)?;
        let failed_before = vfs::disk(|disk| disk.failed_reads);
        self.service.pump();
        if self.is_dead() {
            return Ok(Fate::Dead);
        }
        w.model.unreadable = vfs::disk(|disk| disk.failed_reads) > failed_before;
        for (conn, told) in self.look()? {
            w.trace(|| format!("{conn} <~ {}", words(&told)));
            w.model.told(conn, &told, Phase::Pump)?;
        }
        for conn in self.conns.values() {
            w.model.caught_up(conn.id, self.service.is_behind(conn.id))?;
            self.check_bound(w, conn)?;
        }
        self.copy(w);
        if self.keep_house(w)? == Fate::Dead {
            return Ok(Fate::Dead); // 8
        }
        while let Some(conn) = self.service.pop_resumed() {
            self.list(conn);
        }
        self.flush(w); // 9
        w.is_pump_waiting = self.service.may_pump();
        self.copy(w);
        if w.command.is_none() && w.rng.one_in(w.plan.invariants_one_in) {
            self.service.check_invariants()?;
        }
        Ok(if self.is_dead() { Fate::Dead } else { Fate::Alive })
    }

    /// The process ends in good order: what waits is declined, everybody is sent a last word, and
    /// the file is told the exact time. False when the disk would not have it.
    pub(crate) fn stop(&mut self, w: &mut World) -> Check<bool> {
        self.service.begin_turn(w.clock.wall_us, w.clock.now_ms);
        self.service.dismiss_all();
        self.service.end_turn();
        let mut told = self.look()?;
        for (id, conn) in w.model.conns.iter().filter(|(_, conn)| !conn.is_closing) {
            let frames = told.remove(id).unwrap_or_default();
            let waiting = conn.waiting.as_ref().map(|waiting| waiting.task);
            let asked = [waiting, conn.stream.as_ref().map(|stream| stream.task)];
            let declined: Vec<u8> = asked.into_iter().flatten().collect();
            let (last, rest) =
                frames.split_last().ok_or_else(|| format!("{id} got no last word"))?;
            let is_right = |(frame, task): (&Frame, &u8)| {
                frame.task == *task && frame.body.starts_with(b"shutting-down:")
            };
            let are_right =
                rest.len() == declined.len() && rest.iter().zip(&declined).all(is_right);
            if !are_right || last.purpose != DISCONNECT {
                return Err(format!("the last words to {id}: {}", words(&frames)));
            }
        }
        self.flush(w);
        Ok(self.service.finish().is_ok() && !self.is_dead())
    }

    /// The thread for checkpoints may work at any moment.
    fn copy(&self, w: &mut World) {
        if w.rng.one_in(w.plan.copies_one_in) {
            w.trace(|| "a checkpoint".to_owned());
            vfs::alongside(|beside| beside.copier.work());
        }
    }

    /// Whether a checkpoint beside the server has failed, so that it will find its file lost.
    pub(crate) fn is_losing(&self) -> bool {
        vfs::alongside(|beside| beside.copier.is_lost()) == Some(true)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.service.lost().is_some() || vfs::disk(|disk| disk.is_dead())
    }

    /// Whether there is nothing to do until something comes.
    pub(crate) fn is_idle(&self, w: &World) -> bool {
        self.ready.is_empty() && self.gone.is_empty() && self.jobs.is_empty() && !w.is_pump_waiting
    }

    pub(crate) fn link_of(&self, conn: ConnId) -> Option<u64> {
        self.conns.get(&conn.index).filter(|at| at.id == conn).map(|at| at.link)
    }

    fn conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&conn.index).filter(|at| at.id == conn)
    }

    fn list(&mut self, conn: ConnId) {
        if let Some(at) = self.conn(conn)
            && !at.is_listed
        {
            at.is_listed = true;
            self.ready.push(conn);
        }
    }

    // ---- 2, 3: connections go and come ---------------------------------------------------------

    fn forget_gone(&mut self, w: &mut World) -> Check {
        if self.gone.is_empty() {
            return Ok(());
        }
        for conn in std::mem::take(&mut self.gone) {
            if self.conn(conn).is_none() {
                continue;
            }
            if let Some(gone) = self.conns.remove(&conn.index) {
                w.forget_link(gone.link);
            }
            self.service.closed(conn);
            w.model.closed(conn);
            w.trace(|| format!("{conn} is closed"));
        }
        self.service.end_turn();
        self.notified(w)
    }

    /// Who went offline is notified outside of the turn's requests.
    fn notified(&mut self, w: &mut World) -> Check {
        for (conn, frames) in self.look()? {
            w.trace(|| format!("{conn} <~ {}", words(&frames)));
            w.model.told(conn, &frames, Phase::Turn)?;
        }
        self.settle(w, false)
    }

    fn note_events(&mut self, w: &mut World) {
        let mut news = Vec::new();
        for conn in self.conns.values_mut() {
            let Some(link) = w.links.get_mut(&conn.link) else { continue };
            if std::mem::take(&mut link.is_news) || link.is_broken {
                conn.is_readable = true;
                news.push(conn.id);
            }
            if self.service.outbox.pending_bytes(conn.id.index) > 0 {
                self.service.outbox.touch(conn.id.index);
            }
        }
        for conn in news {
            self.list(conn);
        }
    }

    fn accept(&mut self, w: &mut World) {
        let new = w.links.iter().filter(|(_, link)| !link.is_accepted);
        let new: Vec<u64> = new.map(|(id, _)| *id).collect();
        for id in new {
            if w.rng.one_in(3) {
                continue;
            }
            let Some(link) = w.links.get_mut(&id) else { continue };
            link.is_accepted = true;
            let index = (0..).find(|index| !self.conns.contains_key(index)).unwrap_or(0);
            let conn = ConnId { index, generation: self.next_generation };
            self.next_generation += 1;
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, link.address));
            let entry = Conn {
                id: conn,
                link: id,
                state: State::Open,
                inbox: Vec::new(),
                is_readable: true,
                is_ended: false,
                is_listed: false,
                looked: 0,
                referred: 0,
            };
            self.conns.insert(index, entry);
            self.list(conn);
            self.service.connected(conn, address);
            w.model.connected(conn, address.to_string());
            let client = w.links[&id].client;
            w.trace(|| format!("{conn} is open for client {client}"));
        }
    }

    // ---- 4, 5, 6: housekeeping and input --------------------------------------------------------------------------

    /// The helper works on one job after the other.
    fn take_done(&mut self, w: &mut World) {
        while !self.jobs.is_empty() && !w.rng.one_in(3) {
            let Some((job, conn, wait)) = self.jobs.pop_front() else { return };
            let done = helper::run(job, self.random);
            self.feed_done(w, conn, wait, &done);
        }
    }

    fn feed_done(&mut self, w: &mut World, conn: ConnId, wait: u64, done: &JobDone) {
        w.trace(|| format!("{conn} password work is done"));
        let before = self.service.last_time().micros();
        self.service.job_done(done);
        self.fed(Input::Done { conn, wait }, before, conn);
    }

    /// Notes what the server was fed, and its clock around it.
    fn fed(&mut self, input: Input, before: i64, conn: ConnId) {
        let after = self.service.last_time().micros();
        let suspended = self.service.is_suspended(conn);
        self.fed.push(Fed { input, before, after, suspended });
    }

    fn take_up_changes(&mut self, w: &mut World) {
        if w.clock.now_ms < self.housekeeping_ms && self.ready.is_empty() && self.jobs.is_empty() {
            return;
        }
        let before = self.service.last_time().micros();
        self.service.take_up_changes();
        self.note_undone(w);
        self.note_changes(w, before);
    }

    /// Work of the server's own may be undone, too.
    fn note_undone(&mut self, w: &mut World) {
        let undone = self.service.metrics.undone;
        if std::mem::replace(&mut self.undone, undone) != undone {
            w.model.undone(0);
        }
    }

    /// What a command changed is notified at once, and not taken back with the turn.
    fn note_changes(&mut self, w: &mut World, before: i64) {
        let acted_on = self.service.changes_acted_on();
        if std::mem::replace(&mut self.acted_on, acted_on) != acted_on
            && let Some(command) = w.command.take()
        {
            let after = self.service.last_time().micros();
            let input = Input::Command(command);
            self.fed.push(Fed { input, before, after, suspended: false });
            self.has_taken_up = true;
        }
    }

    /// A slice of housekeeping is a turn of its own.
    fn keep_house(&mut self, w: &mut World) -> Check<Fate> {
        if w.clock.now_ms < self.housekeeping_ms && !self.service.wants_housekeeping() {
            return Ok(Fate::Alive);
        }
        let before = self.service.last_time().micros();
        let has_more = self.service.housekeeping();
        self.housekeeping_ms = w.clock.now_ms + if has_more { 1 } else { HOUSEKEEPING_MS };
        if self.is_dead() {
            return Ok(Fate::Dead);
        }
        self.note_undone(w);
        w.model.kept_house(self.service.last_time().micros());
        self.note_changes(w, before);
        let fed = std::mem::take(&mut self.fed);
        self.judge(w, &fed, TurnEnd::Committed)?;
        Ok(Fate::Alive)
    }

    fn read(&mut self, w: &mut World) -> Check {
        let mut reading = std::mem::take(&mut self.ready);
        if w.rng.one_in(4) {
            reading.reverse();
        }
        for conn in reading {
            let Some(at) = self.conn(conn) else { continue };
            at.is_listed = false;
            if at.state != State::Open {
                self.discard(w, conn);
            } else if !self.service.is_held(conn) {
                self.read_one(w, conn);
            }
            if w.rng.one_in(w.plan.early_flush_one_in) {
                self.flush_early(w)?;
            }
        }
        Ok(())
    }

    fn read_one(&mut self, w: &mut World, conn: ConnId) {
        let most = w.rng.weighted(&[(4, 65_536), (1, 64), (1, 7)]);
        let Some(at) = self.conn(conn) else { return };
        let mut bytes = std::mem::take(&mut at.inbox);
        if at.is_readable && !at.is_ended {
            let Some(link) = w.links.get_mut(&at.link).filter(|link| !link.is_broken) else {
                return self.lose(conn);
            };
            let read = link.up.read(most);
            at.is_ended |= link.up.is_over();
            // As with a socket, the end stays readable.
            at.is_readable = read.len() == most || at.is_ended;
            bytes.extend(read);
        }
        self.feed(w, conn, &bytes);
    }

    fn feed(&mut self, w: &mut World, conn: ConnId, bytes: &[u8]) {
        let body_bytes_max = w.model.rules.body_bytes_max;
        let requests_max = w.plan.requests_per_turn;
        let (mut rest, mut requests, mut flow) = (bytes, 0, Flow::Continue);
        let mut is_oversized = false;
        while flow == Flow::Continue && requests < requests_max {
            match frame::parse(rest, body_bytes_max) {
                Parsed::Incomplete => break,
                Parsed::TooLarge { task } => {
                    is_oversized = true;
                    flow = self.feed_oversized(conn, task);
                }
                Parsed::Frame(frame) => {
                    requests += 1;
                    let (whole, left) = rest.split_at(frame.bytes());
                    flow = self.feed_frame(w, conn, whole);
                    rest = left;
                }
            }
        }
        let Some(at) = self.conn(conn) else { return };
        if flow == Flow::Close {
            at.is_ended |= !is_oversized;
            return self.hang_up(w, conn);
        }
        at.inbox = rest.to_vec();
        let has_whole_frame = !matches!(frame::parse(rest, body_bytes_max), Parsed::Incomplete);
        if flow == Flow::Continue {
            let is_over = at.is_ended && !has_whole_frame;
            let has_more = has_whole_frame || at.is_readable;
            if is_over {
                at.state = State::Flushing;
                self.close_queue(w, conn);
            }
            if has_more {
                self.list(conn);
            }
        }
    }

    fn feed_frame(&mut self, w: &mut World, conn: ConnId, bytes: &[u8]) -> Flow {
        let before = self.service.last_time().micros();
        let Parsed::Frame(parsed) = frame::parse(bytes, usize::MAX) else { return Flow::Continue };
        let flow = self.service.frame(conn, &parsed);
        if let Some((frame, _)) = take_frame(bytes) {
            w.trace(|| format!("{conn} -> {} ({flow:?})", frame.words()));
        }
        self.fed(Input::Frame { conn, bytes: bytes.to_vec() }, before, conn);
        flow
    }

    fn feed_oversized(&mut self, conn: ConnId, task: u8) -> Flow {
        let before = self.service.last_time().micros();
        let flow = self.service.oversized(conn, task);
        self.fed(Input::Oversized { conn, task }, before, conn);
        flow
    }

    /// Throws away what a connection on its way out still says.
    fn discard(&mut self, w: &mut World, conn: ConnId) {
        let Some(at) = self.conn(conn) else { return };
        let Some(link) = w.links.get_mut(&at.link).filter(|link| !link.is_broken) else {
            return self.lose(conn);
        };
        link.up.read(usize::MAX);
        at.is_ended |= link.up.is_over();
        if at.is_ended && at.state == State::Draining {
            self.lose(conn);
        }
    }

    fn lose(&mut self, conn: ConnId) {
        if let Some(at) = self.conn(conn)
            && at.state != State::Gone
        {
            at.state = State::Gone;
            self.gone.push(conn);
        }
    }

    /// Nothing more is staged for a connection.
    fn close_queue(&mut self, w: &mut World, conn: ConnId) {
        self.service.close_queue(conn);
        if self.has_ended_turn {
            w.model.closing(conn);
        } else {
            let now = self.service.last_time().micros();
            self.fed(Input::Closing { conn }, now, conn);
        }
    }

    /// No more frames: what is queued is sent, then the connection ends.
    fn hang_up(&mut self, w: &mut World, conn: ConnId) {
        if let Some(at) = self.conn(conn)
            && at.state == State::Open
        {
            at.state = State::Flushing;
            at.inbox.clear();
            self.close_queue(w, conn);
            self.list(conn);
        }
    }

    // ---- 7: commit -----------------------------------------------------------------------------

    fn commit(&mut self, w: &mut World) -> Check<Fate> {
        let mut fed = std::mem::take(&mut self.fed);
        w.model.latest_now = w.model.latest_now.max(self.service.last_time().micros());
        let staged = if w.may_die() { self.peek()? } else { BTreeMap::new() };
        let end = self.service.end_turn();
        self.has_ended_turn = true;
        if self.is_dead() {
            w.died_in_turn(&fed, staged);
            return Ok(Fate::Dead);
        }
        if end == TurnEnd::Declined {
            w.trace(|| "the turn is declined".to_owned());
            w.model.undone(fed.len());
            self.undone = self.service.metrics.undone;
            w.undone += 1;
            for one in &mut fed {
                if let Input::Frame { conn, .. } = one.input {
                    one.suspended = self.service.is_suspended(conn);
                }
            }
        }
        self.judge(w, &fed, end)?;
        Ok(Fate::Alive)
    }

    /// The turn has ended: compares all that was sent with the model.
    fn judge(&mut self, w: &mut World, fed: &[Fed], end: TurnEnd) -> Check {
        let told = self.look()?;
        let mut staged = answers(&told);
        let mut turn = Turn::new(&mut staged, end == TurnEnd::Declined);
        turn.unreadable = vfs::disk(|disk| disk.failed_reads) > self.failed_reads;
        for (conn, frames) in &told {
            w.trace(|| format!("{conn} <- {}", words(frames)));
            let notices = frames.iter().filter(|frame| frame.is_notification()).count();
            turn.notices.insert(*conn, notices as u32);
        }
        for one in fed {
            w.model.apply(&mut turn, one)?;
        }
        w.began.extend(turn.began);
        if let Some((conn, left)) = staged.iter().find(|(_, left)| !left.is_empty()) {
            return Err(format!("{conn} was told {} by nobody's wish", left[0].words()));
        }
        for (conn, frames) in &told {
            w.model.told(*conn, frames, Phase::Turn)?;
        }
        self.settle(w, end == TurnEnd::Committed)?;
        w.told_until(self.service.last_time().micros())
    }

    /// What is not sent by now was left out.
    fn settle(&mut self, w: &mut World, is_committed: bool) -> Check {
        let is_readable = vfs::disk(|disk| disk.failed_reads) == self.failed_reads;
        let is_sure = is_committed && !self.was_flushed_early && is_readable;
        for conn in self.conns.values() {
            let pending = self.service.outbox.pending_bytes(conn.id.index);
            let pending = if is_sure { Some(pending) } else { None };
            w.model.settle(conn.id, self.service.is_behind(conn.id), pending)?;
            self.check_bound(w, conn)?;
        }
        Ok(())
    }

    /// What was staged and not looked at, before the turn has ended; all answers are among it.
    fn peek(&mut self) -> Check<BTreeMap<ConnId, VecDeque<Frame>>> {
        let mut all = BTreeMap::new();
        for conn in self.conns.values() {
            let index = conn.id.index;
            let outbox = &self.service.outbox;
            let own_looked = conn.looked - conn.referred;
            let new = outbox.pending_bytes(index) - outbox.referred_bytes(index) - own_looked;
            if new > 0 {
                let mut copy = Vec::new();
                self.service.outbox.stage(index, |bytes| {
                    copy.extend_from_slice(&bytes[bytes.len() - new..]);
                });
                all.insert(conn.id, frames(&copy)?);
            }
        }
        Ok(answers(&all))
    }

    /// What was released since the last look.
    fn look(&mut self) -> Check<BTreeMap<ConnId, Vec<Frame>>> {
        self.take_dirty();
        let mut all = BTreeMap::new();
        for conn in self.conns.values_mut() {
            let (index, outbox) = (conn.id.index, &self.service.outbox);
            let (pending, referred) = (outbox.pending_bytes(index), outbox.referred_bytes(index));
            if referred == 0 && outbox.sendable(index).len() != pending {
                return Err(format!("{} has bytes that are not released", conn.id));
            }
            if pending > conn.looked {
                let whole = outbox.copy_of(index);
                if whole.len() != pending {
                    return Err(format!(
                        "{pending} bytes wait for {}, not {}",
                        conn.id,
                        whole.len()
                    ));
                }
                all.insert(conn.id, frames(&whole[conn.looked..])?);
            }
            (conn.looked, conn.referred) = (pending, referred);
        }
        Ok(all)
    }

    /// Notes who is to be sent something. What many are told alike is put into a queue only when it
    /// is sent.
    fn take_dirty(&mut self) {
        while let Some(dirty) = self.service.outbox.take_dirty() {
            if !self.touched.contains(&dirty.index) {
                self.touched.push(dirty.index);
            }
            if !dirty.is_told_only {
                self.asked.push(dirty.index);
            }
        }
    }

    fn check_bound(&self, w: &mut World, conn: &Conn) -> Check {
        let pending = self.service.outbox.pending_bytes(conn.id.index);
        w.most_pending = w.most_pending.max(pending);
        // One frame may stand above the bound; the answers of 0.1 come in one.
        let is_modern = w.model.conns.get(&conn.id).is_none_or(|conn| conn.is_modern());
        let frame_bytes_max = if is_modern { FRAME_BYTES_MAX } else { LEGACY_FRAME_BYTES_MAX };
        let limit = w.model.rules.outbound_bytes_max + frame_bytes_max;
        if pending > limit {
            return Err(format!("{pending} bytes wait for {}, more than {limit}", conn.id));
        }
        Ok(())
    }

    // ---- 8, 9, 11 ------------------------------------------------------------------------------

    fn submit_jobs(&mut self, w: &mut World) -> Check {
        let mut jobs = Vec::new();
        while let Some(job) = self.service.pop_job() {
            jobs.push(job);
        }
        for job in jobs {
            let conn = self.service.conn_of_job(job.id);
            // Who stands in the line longer comes with a later turn; what a connection asked for
            // before that was cut off.
            let Some(place) = w.began.iter().rposition(|(other, _)| Some(*other) == conn) else {
                return Err(format!("a password job for {conn:?}, who asked for none"));
            };
            let (conn, wait) = w.began.remove(place);
            w.began.retain(|(other, _)| *other != conn);
            self.jobs.push_back((job, conn, wait));
        }
        Ok(())
    }

    /// Signs of life are asked for, and those who are silent are given up.
    fn deadlines(&mut self, w: &mut World) {
        let conns: Vec<(ConnId, u64, State)> =
            self.conns.values().map(|conn| (conn.id, conn.link, conn.state)).collect();
        for (conn, link, state) in conns {
            let is_silent = w.links.get(&link).is_none_or(|link| link.is_silent);
            if is_silent && w.rng.one_in(40) || state == State::Draining && w.rng.one_in(20) {
                self.lose(conn);
            } else if state == State::Open && !w.is_quiet && w.rng.one_in(300) {
                self.service.stage_bare(conn, ToClient::Heartbeat);
            } else if state == State::Open
                && !w.is_quiet
                && !self.service.is_held(conn)
                && w.rng.one_in(w.plan.timeout_one_in)
            {
                self.service.stage_bare(conn, ToClient::Disconnect);
                self.hang_up(w, conn);
            }
        }
    }

    fn flush(&mut self, w: &mut World) {
        self.take_dirty();
        let asked = std::mem::take(&mut self.asked);
        for index in std::mem::take(&mut self.touched) {
            let Some(conn) = self.conns.get(&index).map(|conn| conn.id) else { continue };
            // Who is only told something may be held back for some turns.
            if !asked.contains(&index) && !w.is_quiet && w.rng.one_in(w.plan.holds_one_in) {
                self.touched.push(index);
                continue;
            }
            if !(w.plan.sends_parts && self.flush_parts(w, conn)) {
                self.service.outbox.put_together(index);
                self.flush_one(w, conn);
            }
        }
    }

    /// Sends to a connection what many are told from where it is. False when there is nothing of that
    /// kind, or the connection is on its way out.
    fn flush_parts(&mut self, w: &mut World, conn: ConnId) -> bool {
        let outbox = &mut self.service.outbox;
        let Some(at) = self.conns.get_mut(&conn.index).filter(|at| at.state == State::Open) else {
            return false;
        };
        let link = w.links.get_mut(&at.link).filter(|link| !link.is_broken);
        let Some(link) = link.filter(|_| outbox.referred_bytes(conn.index) > 0) else {
            return false;
        };
        let block = outbox.block().to_vec();
        let sent = outbox.send_parts(conn.index, |part| {
            Ok(link.down.write(match part {
                Part::Own(bytes) => bytes,
                Part::Block(piece) => &block[piece],
            }))
        });
        at.looked -= sent.unwrap_or_default();
        at.referred = 0;
        self.flush_one(w, conn);
        true
    }

    fn flush_one(&mut self, w: &mut World, conn: ConnId) {
        let Some(at) = self.conns.get_mut(&conn.index) else { return };
        at.referred = 0;
        let Some(link) = w.links.get_mut(&at.link).filter(|link| !link.is_broken) else {
            return self.lose(conn);
        };
        if at.state == State::Gone {
            return;
        }
        let count = link.down.write(self.service.outbox.sendable(conn.index));
        self.service.outbox.advance(conn.index, count);
        at.looked -= count;
        if self.service.outbox.pending_bytes(conn.index) > 0 {
            return;
        }
        match at.state {
            State::Open => {
                let has_input = !at.inbox.is_empty() || at.is_readable;
                if has_input && !self.service.is_held(conn) {
                    self.list(conn);
                }
            }
            State::Flushing if at.is_ended => {
                link.down.is_ended = true;
                self.lose(conn);
            }
            State::Flushing => {
                link.down.is_ended = true;
                at.state = State::Draining;
                self.list(conn);
            }
            State::Draining | State::Gone => {}
        }
    }

    /// A socket may take bytes at any time; what the turn has staged must not be among them.
    fn flush_early(&mut self, w: &mut World) -> Check {
        if self.has_taken_up {
            return Ok(());
        }
        self.was_flushed_early = true;
        for conn in self.conns.values_mut() {
            if self.service.outbox.referred_bytes(conn.id.index) > 0 {
                continue;
            }
            let sendable = self.service.outbox.sendable(conn.id.index);
            if sendable.len() > conn.looked {
                return Err(format!("{} could be told before the commit", conn.id));
            }
            let link = w.links.get_mut(&conn.link).filter(|link| !link.is_broken);
            let count = link.map_or(0, |link| link.down.write(sendable));
            self.service.outbox.advance(conn.id.index, count);
            conn.looked -= count;
        }
        Ok(())
    }
}

impl Drop for Host<'_> {
    /// Nobody may have the file open when the server closes it.
    fn drop(&mut self) {
        vfs::set_beside(None);
    }
}

fn answers(told: &BTreeMap<ConnId, Vec<Frame>>) -> BTreeMap<ConnId, VecDeque<Frame>> {
    let mut answers = BTreeMap::new();
    for (conn, frames) in told {
        let frames = frames.iter().filter(|frame| !frame.is_notification());
        answers.insert(*conn, frames.cloned().collect());
    }
    answers
}

fn words(frames: &[Frame]) -> String {
    let words: Vec<String> = frames.iter().map(Frame::words).collect();
    words.join(", ")
}
