//! The world of one seed from beginning to end: the server's lives, one after another, and
//! everything around it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use vestnik::auth::password::{self, Kind};
use vestnik::config::{Registration, UserList};
use vestnik::ids::{ConnId, ServerTime};
use vestnik::service::{Service, ServiceConfig};
use vestnik::store::open::Role;
use vestnik::store::{Database, Store};
use vestnik::wire::answer::USER_OPERATOR;
use vestnik::wire::purpose::ToServer;

use crate::choose::{first_password, login_name};
use crate::client::{Client, State};
use crate::clock::Clock;
use crate::command::{self, Command};
use crate::disk::{Death, Disk, Doom, Faults};
use crate::file::{self, Look, Reader};
use crate::host::{Fate, Host};
use crate::model::{self, Fed, Model, Turn};
use crate::pipe::Link;
use crate::plan::Plan;
use crate::rng::{Rng, Secrets};
use crate::vfs::{self, Alongside};
use crate::wire::{Check, Frame};

/// Lines of the trace that are kept.
const TRACE_LINES: usize = 20_000;
/// Turns within which everything must be answered when clients send nothing more.
const QUIET_TURNS: u64 = 5000;
/// Turns after an undone or crashed one in which the process may soon end again.
const UNEASY_TURNS: u64 = 4;

/// Statistics of a seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) turns: u64,
    pub(crate) lives: u64,
    pub(crate) power_cuts: u64,
    pub(crate) undone: u64,
    pub(crate) lost: u64,
    pub(crate) either: u64,
    /// Graceful shutdowns.
    pub(crate) stops: u64,
    /// Replicas that were compared at rest.
    pub(crate) copies: u64,
    pub(crate) failed_calls: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) most_pending: usize,
    pub(crate) seen: BTreeMap<String, u64>,
}

/// Events that must occur somewhere in any few hundred seeds, besides every purpose: a simulation
/// that does not reach them proves nothing.
const BREADTH: [&str; 47] = [
    "already-authorized",
    "already-greeted",
    "already-member",
    "bad-credentials",
    "bad-name",
    "bad-password",
    "bad-query",
    "bad-session",
    "by hand",
    "changed a chat",
    "created",
    "deauth",
    "deleted a chat",
    "deleted",
    "edited",
    "empty-message",
    "forbidden",
    "hello-required",
    "inherited",
    "joined by password",
    "joined",
    "last-admin",
    "left",
    "logged in",
    "login-required",
    "long answers cut off",
    "malformed",
    "marked",
    "name-taken",
    "no-such-chat",
    "no-such-message",
    "no-such-user",
    "not-member",
    "parts",
    "password changed",
    "password-required",
    "registered",
    "registration-closed",
    "repeated",
    "restored",
    "sent",
    "session-suspended",
    "set a ban",
    "started",
    "storage-failed",
    "suspended",
    "taken over",
];

impl Report {
    /// Fails when an expected event has not occurred.
    pub(crate) fn is_broad(&self) {
        let is_simulated = |purpose: &&ToServer| purpose.byte() >= 0x20;
        let purposes = ToServer::ALL.iter().filter(is_simulated);
        let purposes = purposes.map(|purpose| purpose.name());
        let missing = |what: &&str| !self.seen.contains_key(*what);
        let missing: Vec<&str> = purposes.chain(BREADTH).filter(missing).collect();
        assert!(missing.is_empty(), "never seen: {missing:?}");
        let deaths =
            [self.power_cuts, self.stops, self.undone, self.lost, self.either, self.copies];
        assert!(!deaths.contains(&0), "something never happened: {deaths:?}");
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.turns += other.turns;
        self.lives += other.lives;
        self.power_cuts += other.power_cuts;
        self.undone += other.undone;
        self.lost += other.lost;
        self.either += other.either;
        self.stops += other.stops;
        self.copies += other.copies;
        self.failed_calls += other.failed_calls;
        self.simulated_ms += other.simulated_ms;
        self.most_pending = self.most_pending.max(other.most_pending);
        for (what, times) in other.seen {
            *self.seen.entry(what).or_default() += times;
        }
    }
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) model: Model,
    /// The model after the turn in which the process crashed: that turn is stored completely or not
    /// at all.
    maybe: Option<Model>,
    clients: Vec<Client>,
    next_link: u64,
    /// Password waits that began in this turn.
    pub(crate) began: Vec<(ConnId, u64)>,
    /// The command that the server has not taken up yet.
    pub(crate) command: Option<Command>,
    pub(crate) undone: u64,
    undone_before: u64,
    /// How many of [`UNEASY_TURNS`] are left.
    uneasy_turns: u64,
    pub(crate) most_pending: usize,
    report: Report,
    last_time: i64,
    /// The process is shutting down gracefully.
    stops: bool,
    /// Clients send nothing more.
    pub(crate) is_quiet: bool,
    /// The database is moved away.
    is_moved: bool,
    lines: Option<VecDeque<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng.fork());
        vfs::install(Disk::new(rng.fork()));
        let clients = (0..plan.clients).map(|number| Client::new(number, rng.fork())).collect();
        Self {
            clock: Clock::new(rng.fork()),
            links: BTreeMap::new(),
            model: Model::new(plan.rules.clone()),
            maybe: None,
            clients,
            next_link: 0,
            began: Vec::new(),
            command: None,
            undone: 0,
            undone_before: 0,
            uneasy_turns: 0,
            most_pending: 0,
            report: Report::default(),
            last_time: 0,
            stops: false,
            is_quiet: false,
            is_moved: false,
            lines: is_traced.then(VecDeque::new),
            rng,
            plan,
        }
    }

    /// Runs the seed.
    pub(crate) fn run(&mut self) -> Check<Report> {
        self.set_up()?;
        while !self.life()? {
            self.die();
        }
        self.die();
        self.compare(None).map_err(|wrong| format!("at the end {wrong}"))?;
        self.flip_bits()?;
        let disk_failed = vfs::disk(|disk| disk.failed_reads + disk.failed_writes);
        self.report.failed_calls = disk_failed;
        self.report.undone = self.undone;
        self.report.most_pending = self.most_pending;
        self.report.seen = std::mem::take(&mut self.model.seen);
        Ok(self.report.clone())
    }

    /// The last lines of the trace.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().flatten()
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() == TRACE_LINES {
                lines.pop_front();
            }
            lines.push_back(format!("{:>5} {}", self.report.turns, line()));
        }
    }

    fn config(&self) -> ServiceConfig {
        let rules = &self.plan.rules;
        ServiceConfig {
            body_bytes_max: rules.body_bytes_max,
            content_bytes_max: rules.content_bytes_max,
            outbound_bytes_max: rules.outbound_bytes_max,
            session_lifetime_us: rules.session_lifetime_us,
            password_rounds: 1,
            registration: match rules.registration_open {
                true => Registration::Open,
                false => Registration::Closed,
            },
            user_list: match rules.user_list_of_operators {
                true => UserList::Operators,
                false => UserList::All,
            },
            push: rules.push,
            push_hosts: model::PUSH_HOSTS.map(str::to_owned).to_vec(),
            sends_per_second: 0,
            user_bytes_per_day: rules.user_bytes_per_day,
            ..ServiceConfig::default()
        }
    }

    /// Creates the database, perhaps after several tries, and its users.
    fn set_up(&mut self) -> Check {
        while self.rng.one_in(6) {
            let changes = self.rng.between(1, 30);
            vfs::disk(|disk| disk.doom(Doom::Changes(changes)));
            drop(Database::open_with_vfs(Path::new(file::PATH), vfs::NAME, Role::Server, None));
            vfs::disk(|disk| {
                disk.die();
                disk.revive(Death::PowerCut);
            });
        }
        let database =
            Database::open_with_vfs(Path::new(file::PATH), vfs::NAME, Role::Server, None)?;
        let mut store = Store::new(&database).map_err(|e| e.to_string())?;
        let random = Secrets::new(self.rng.fork());
        for number in 0..self.plan.users {
            let (name, given) = (login_name(number), first_password(number));
            let prepared = password::prepare(&given, Kind::User).map_err(|e| e.to_string())?;
            let stored = password::hash(&prepared, 1, &random).map_err(|e| e.to_string())?;
            let created = ServerTime::new(number as i64 + 1).ok_or("a time")?;
            let key = name.to_lowercase();
            let user = store.add_user(&name, &key, &stored, created).map_err(|e| e.to_string())?;
            let user = user.ok_or("two users of one name")?;
            self.model.add_user(user.get(), &name, &given, created.micros());
            if number < 2 {
                store.set_user_flag(user, USER_OPERATOR, true).map_err(|e| e.to_string())?;
                self.model.make_operator(user.get());
            }
        }
        store
            .reserve_time(ServerTime::new(self.model.high).ok_or("a time")?)
            .map_err(|e| e.to_string())?;
        store.commit().map_err(|e| e.to_string())?;
        Ok(())
    }

    // ---- lives of the server -------------------------------------------------------------------

    /// One life of the process. True when the seed is over.
    #[allow(clippy::too_many_lines, reason = "its steps share the faults and their excuses")]
    fn life(&mut self) -> Check<bool> {
        self.report.lives += 1;
        let is_full = self.rng.one_in(self.plan.full_start_one_in);
        if !is_full && self.rng.one_in(6) && self.plan.dies_one_in > 0 {
            let changes = self.rng.between(1, 12);
            vfs::disk(|disk| disk.doom(Doom::Changes(changes)));
        }
        // After three failed starts, the disk has no faults.
        let is_well = is_full || self.report.lives % 4 == 3;
        let faults = if is_well { Faults::default() } else { self.plan.faults };
        vfs::disk(|disk| {
            disk.faults = faults;
            disk.is_full = is_full;
        });
        let failed = vfs::disk(|disk| disk.failed_reads + disk.failed_writes);
        let excuse = |wrong: String| {
            let failed_now = vfs::disk(|disk| disk.failed_reads + disk.failed_writes);
            let is_excused = failed_now > failed && !is_full || vfs::disk(|disk| disk.is_dead());
            if is_excused { Ok(false) } else { Err(format!("the server does not start: {wrong}")) }
        };
        let path = Path::new(file::PATH);
        let opened = Database::open_with_vfs(path, vfs::NAME, Role::Server, Some(vfs::look_up));
        let mut database = match opened {
            Ok(database) => database,
            Err(wrong) => return excuse(wrong),
        };
        let checkpointer = match self.plan.copies_one_in {
            0 => None,
            _ => match database.checkpointer(Some(vfs::NAME)) {
                Ok(checkpointer) => Some(checkpointer),
                Err(wrong) => return excuse(wrong),
            },
        };
        let store = match Store::new(&database) {
            Ok(store) => store,
            Err(wrong) => return excuse(wrong.to_string()),
        };
        let random = Secrets::new(self.rng.fork());
        let service = match Service::new(store, self.config(), &random) {
            Ok(service) => service,
            Err(wrong) => return excuse(wrong),
        };
        if vfs::disk(|disk| disk.is_dead()) {
            return Ok(false);
        }
        vfs::disk(|disk| {
            disk.is_full = false;
            disk.faults = self.plan.faults;
        });
        // A key that could not be stored leaves the server without pushes until its next start.
        let failed_now = vfs::disk(|disk| disk.failed_reads + disk.failed_writes);
        let is_push_on = service.push_key().is_some();
        let is_sure = failed_now == failed && !is_full;
        if is_sure && is_push_on != self.plan.rules.push {
            return Err("pushes are not as configured".into());
        }
        self.after_start(service.last_time().micros(), is_push_on)?;
        let one_in = self.plan.copies_within_one_in;
        let rng = self.rng.fork();
        vfs::set_alongside(checkpointer.map(|checkpointer| Alongside {
            checkpointer,
            rng,
            one_in,
        }));
        let mut host = Host::new(service, &random, self);
        while self.report.turns < self.plan.turns {
            let rests = !host.is_losing() && self.rng.one_in(self.plan.rests_one_in);
            if rests && self.quieten(&mut host)? == Fate::Dead {
                return Ok(self.was_lost());
            }
            if self.rng.one_in(self.plan.moves_one_in) && !host.is_losing() {
                if self.lose_the_file(&mut host)? == Fate::Dead {
                    return Ok(false);
                }
                continue;
            }
            if self.live_a_turn(&mut host)? == Fate::Dead {
                if self.stops && host.stop(self)? {
                    self.report.stops += 1;
                    return Ok(false);
                }
                self.report.lost += u64::from(host.engine.service.lost().is_some());
                // No graceful end: the process found its database lost, or is killed.
                vfs::disk(Disk::die);
                return Ok(false);
            }
        }
        if host.is_losing() {
            vfs::disk(Disk::die);
            return Ok(false);
        }
        if self.quieten(&mut host)? == Fate::Dead {
            return Ok(self.was_lost());
        }
        if self.rng.one_in(2) {
            return Ok(true);
        }
        // A disk that fails now loses nothing that was answered.
        let failed = vfs::disk(|disk| disk.failed_reads + disk.failed_writes);
        let finished = host.engine.service.finish();
        let is_excused =
            vfs::disk(|disk| disk.is_dead() || disk.failed_reads + disk.failed_writes > failed);
        finished.map(|()| true).or_else(|e| if is_excused { Ok(true) } else { Err(e.to_string()) })
    }

    /// The database contains what was answered, and possibly the turn that was not.
    fn after_start(&mut self, time: i64, is_push_on: bool) -> Check {
        self.model.restarted();
        let mut maybe = self.maybe.take();
        let has_gone = !self.model.gone.is_empty();
        for model in [Some(&mut self.model), maybe.as_mut()].into_iter().flatten() {
            model.is_push_on = is_push_on;
            if has_gone {
                let faults = vfs::disk(Disk::behave);
                let there = file::endpoints();
                vfs::disk(|disk| disk.misbehave(faults));
                model.settle_gone(Some(&there?));
            }
        }
        self.report.either += u64::from(maybe.is_some());
        if maybe.is_some() {
            self.uneasy_turns = UNEASY_TURNS;
        }
        self.compare(None).or_else(|wrong| {
            let Some(mut maybe) = maybe else { return Err(format!("after a start {wrong}")) };
            maybe.restarted();
            std::mem::swap(&mut self.model, &mut maybe);
            self.compare(None)
                .map_err(|other| format!("after a start neither {wrong}, nor {other}"))
        })?;
        // Only the times of events are durable.
        self.last_time = self.model.high;
        if time < self.model.high {
            return Err(format!("the clock starts at {time} after {}", self.model.high));
        }
        self.trace(|| format!("the server has started at {time}"));
        Ok(())
    }

    /// Compares the database with the model, with disk faults turned off. Without an open
    /// connection, it also checks every page.
    fn compare(&self, look: Option<&Look>) -> Check {
        let faults = vfs::disk(|disk| disk.behave());
        let compared = match look {
            Some(look) => look.compare(&self.model),
            None => file::compare(&self.model),
        };
        vfs::disk(|disk| disk.misbehave(faults));
        compared
    }

    /// Ends the process, and perhaps the machine.
    fn die(&mut self) {
        let death = match self.rng.below(100) < self.plan.cut_percent {
            true => Death::PowerCut,
            false => Death::Kill,
        };
        self.trace(|| format!("the server is gone: {death:?}"));
        self.report.power_cuts += u64::from(death == Death::PowerCut);
        vfs::disk(|disk| {
            disk.die();
            disk.revive(death);
            disk.faults = Faults::default();
        });
        for link in self.links.values_mut() {
            link.is_broken = true;
        }
        self.report.simulated_ms += self.clock.now_ms;
        self.clock.pause();
        self.command = None;
        self.began.clear();
        self.stops = false;
    }

    fn live_a_turn(&mut self, host: &mut Host<'_>) -> Check<Fate> {
        self.report.turns += 1;
        self.clock.step(self.is_quiet);
        self.live_clients()?;
        let undone = self.undone - std::mem::replace(&mut self.undone_before, self.undone);
        self.uneasy_turns =
            if undone > 0 { UNEASY_TURNS } else { self.uneasy_turns.saturating_sub(1) };
        let dies_now = self.rng.one_in(self.plan.dies_one_in)
            || self.uneasy_turns > 0 && self.rng.one_in(self.plan.dies_uneasy_one_in);
        if !self.is_quiet && dies_now {
            self.stops = self.rng.one_in(4);
            if self.stops || self.rng.one_in(3) {
                return Ok(Fate::Dead);
            }
            let doom = match self.rng.weighted(&[(2, 4), (2, 20), (1, 200), (2, 0)]) {
                0 => Doom::Sync,
                most => Doom::Changes(self.rng.between(1, most)),
            };
            vfs::disk(|disk| disk.doom(doom));
        }
        // No other process finds a database that was moved away.
        let is_there = !self.is_moved;
        let is_busy = is_there && !self.is_quiet;
        let is_taken_up = self.command.is_none() && !self.model.changes_wait;
        if is_busy && is_taken_up && self.rng.one_in(self.plan.by_hand_one_in) {
            self.do_by_hand()?;
        }
        if host.reader.is_some() && self.rng.one_in(20) {
            host.reader = None;
        } else if is_busy && self.rng.one_in(self.plan.reads_one_in) {
            let faults = vfs::disk(Disk::behave);
            let reader = Reader::begin();
            vfs::disk(|disk| disk.misbehave(faults));
            host.reader = Some(reader?);
        }
        let is_full = !self.is_quiet && self.rng.one_in(self.plan.full_one_in);
        vfs::disk(|disk| disk.is_full = is_full);
        let fate = host.turn(self)?;
        vfs::disk(|disk| disk.is_full = false);
        if fate == Fate::Alive && is_there && self.rng.one_in(self.plan.compare_one_in) {
            self.compare(Some(&host.look))?;
        }
        Ok(fate)
    }

    /// Moves the database away: the server must end within a second, and store nothing more.
    fn lose_the_file(&mut self, host: &mut Host<'_>) -> Check<Fate> {
        const TURNS_MAX: u32 = 300;
        self.trace(|| "the data file is moved away".to_owned());
        vfs::disk(|disk| disk.move_away(file::PATH));
        self.is_moved = true;
        let begun_ms = self.clock.now_ms;
        let mut fate = Fate::Alive;
        for _ in 0..TURNS_MAX {
            fate = self.live_a_turn(host)?;
            if fate == Fate::Dead {
                break;
            }
            if self.clock.now_ms - begun_ms > 1500 {
                return Err("the server goes on without its file".into());
            }
        }
        // If the clock hardly moves and nobody writes, the server may survive.
        vfs::disk(Disk::put_back);
        self.is_moved = false;
        if fate == Fate::Dead {
            self.report.lost += u64::from(host.engine.service.lost().is_some());
            self.stops = false;
            vfs::disk(Disk::die);
        }
        Ok(fate)
    }

    /// Flips bits of messages while the database is closed: each message then reads as it was, or
    /// as damaged and is found by a check; none reads as another text.
    fn flip_bits(&mut self) -> Check {
        const FLIPS: u64 = 4;
        let path = Path::new(file::PATH);
        // Checkpoints the WAL.
        drop(Database::open_with_vfs(path, vfs::NAME, Role::Server, None)?);
        let texts: Vec<std::rc::Rc<str>> = self.model.contents();
        for _ in 0..FLIPS {
            let Some(text) = self.rng.pick(&texts).cloned() else { return Ok(()) };
            let bit = self.rng.below(text.len() as u64 * 8) as usize;
            let places: Vec<usize> = vfs::disk(|disk| {
                let bytes = disk.bytes_mut(file::PATH).map_or(&[][..], |bytes| &*bytes);
                memchr::memmem::find_iter(bytes, text.as_bytes()).collect()
            });
            let Some(place) = self.rng.pick(&places).copied() else { continue };
            let flip = || {
                vfs::disk(|disk| {
                    if let Some(bytes) = disk.bytes_mut(file::PATH) {
                        bytes[place + bit / 8] ^= 1 << (bit % 8);
                    }
                });
            };
            flip();
            let compared = file::compare_damaged(&self.model);
            flip();
            compared
                .map_err(|wrong| format!("bit {bit} of {text:?} at {place} flipped: {wrong}"))?;
        }
        Ok(())
    }

    /// Runs a command while the server runs, with disk faults turned off.
    fn do_by_hand(&mut self) -> Check {
        let chosen = command::choose(&mut self.rng, &self.model, self.clock.wall_us);
        let Some(mut command) = chosen else { return Ok(()) };
        self.trace(|| format!("by hand: {command:?}"));
        let faults = vfs::disk(Disk::behave);
        let done = command::run(&mut command, self.rng.fork());
        vfs::disk(|disk| disk.misbehave(faults));
        done.map_err(|wrong| format!("{command:?}: {wrong}"))?;
        self.model.command(&command);
        // Re-enabling a user notifies nobody, except of a new admin.
        let is_silent = matches!(
            command,
            Command::Disable { disabled: false, .. }
                | Command::Operator { .. }
                | Command::Reset { .. }
                | Command::AddInvite { .. }
                | Command::RemoveInvite { .. }
        );
        let leaves_note = !is_silent || !self.model.made_admins.is_empty();
        self.command = Some(command).filter(|_| leaves_note);
        Ok(())
    }

    /// The process ends because it found its database lost. False: the run goes on.
    fn was_lost(&mut self) -> bool {
        self.report.lost += 1;
        vfs::disk(Disk::die);
        false
    }

    /// Lets everything come to rest: all requests are answered, and all notifications delivered.
    fn quieten(&mut self, host: &mut Host<'_>) -> Check<Fate> {
        self.is_quiet = true;
        let faults = vfs::disk(|disk| disk.behave());
        let (mut still, mut turns) = (0, 0);
        while still <= 8 {
            turns += 1;
            if turns > QUIET_TURNS {
                return Err(self.why_no_rest(host));
            }
            if self.live_a_turn(host)? == Fate::Dead {
                // A sync that failed for the server before is reported to the checkpointer now.
                if host.is_losing() && vfs::disk(|disk| disk.has_failed_syncs()) {
                    self.is_quiet = false;
                    return Ok(Fate::Dead);
                }
                return Err("the server died in peace".into());
            }
            let is_moving = self.links.values().any(Link::is_moving);
            // One that reads slowly has perhaps not noticed that its connection is gone.
            let is_calm = |client: &Client| client.is_calm() && !self.is_cut_off(client);
            let is_calm = self.clients.iter().all(is_calm);
            let is_at_rest = !is_moving && is_calm && self.command.is_none() && host.is_idle();
            still = if is_at_rest { still + 1 } else { 0 };
        }
        for (conn, state) in &self.model.conns {
            if let Some(owes) = state.owes().filter(|_| !self.is_deaf(host, *conn)) {
                return Err(format!("all is quiet, and {conn} was not notified of {owes}"));
            }
        }
        let clients = std::mem::take(&mut self.clients);
        let rested = clients.iter().try_for_each(|client| self.rested(client));
        self.clients = clients;
        rested?;
        host.engine.service.check_invariants()?;
        self.compare(None)?;
        self.is_quiet = false;
        vfs::disk(|disk| disk.misbehave(faults));
        Ok(Fate::Alive)
    }

    fn why_no_rest(&self, host: &Host<'_>) -> String {
        let moving = self.links.values().find(|link| link.is_moving()).map(|link| link.client);
        let restless = self.clients.iter().find(|client| !client.is_calm());
        let restless = restless.map(Client::describe);
        let (command, is_idle) = (&self.command, host.is_idle());
        format!("no rest: bytes of client {moving:?}; {restless:?}; {command:?}; idle {is_idle}")
    }

    /// Checks that a client at rest is in the expected state and has missed nothing.
    fn rested(&mut self, client: &Client) -> Check {
        let number = client.number;
        if !client.is_calm() {
            let waits = client.waits_for();
            return Err(format!("client {number} finds no rest; it waits for {waits:?}"));
        }
        if let Some(waits) = client.waits_for().filter(|_| client.link.is_some()) {
            return Err(format!("all is quiet, and client {number} waits for {waits}"));
        }
        if client.link.is_some() && client.state == State::Authorized && client.modern {
            let compared = client.replica.compare(&self.model);
            compared.map_err(|wrong| format!("client {number}: {wrong}"))?;
            self.report.copies += 1;
        }
        Ok(())
    }

    /// Whether the connection that a client believes to have is gone.
    fn is_cut_off(&self, client: &Client) -> bool {
        let link = client.link.map(|id| self.links.get(&id));
        link.is_some_and(|link| link.is_none_or(|link| link.is_broken))
    }

    /// Whether the client of a connection does not read any more.
    fn is_deaf(&self, host: &Host<'_>, conn: ConnId) -> bool {
        let link = host.link_of(conn).and_then(|id| self.links.get(&id));
        link.is_none_or(|link| link.is_silent || link.is_broken)
    }

    // ---- calls of the host ---------------------------------------------------------------------

    /// Whether the process may crash in this turn.
    pub(crate) fn may_die(&self) -> bool {
        vfs::disk(|disk| disk.is_risky())
    }

    /// The process crashed at the end of the turn: nobody was notified, and all of it or nothing is
    /// stored.
    pub(crate) fn died_in_turn(
        &mut self,
        fed: &[Fed],
        mut staged: BTreeMap<ConnId, VecDeque<Frame>>,
    ) {
        let mut maybe = self.model.clone();
        let mut turn = Turn::new(&mut staged, false);
        if fed.iter().all(|one| maybe.apply(&mut turn, one).is_ok()) {
            self.maybe = Some(maybe);
        }
    }

    /// Checks the server's clock.
    pub(crate) fn sent_until(&mut self, time: i64) -> Check {
        if time < self.last_time {
            return Err(format!("server time went from {} to {time}", self.last_time));
        }
        self.last_time = time;
        Ok(())
    }

    pub(crate) fn forget_link(&mut self, id: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.is_forgotten = true;
            link.is_broken |= !link.down.is_ended;
        }
    }

    // ---- clients -------------------------------------------------------------------------------

    fn live_clients(&mut self) -> Check {
        for link in self.links.values_mut() {
            link.step(&mut self.rng, self.is_quiet);
        }
        let mut clients = std::mem::take(&mut self.clients);
        let lived = clients.iter_mut().try_for_each(|client| self.live_client(client));
        self.clients = clients;
        self.links.retain(|id, link| {
            let is_held = self.clients.iter().any(|client| client.link == Some(*id));
            let is_held_there = !link.is_broken || link.is_accepted && link.is_silent;
            is_held || !link.is_forgotten && is_held_there
        });
        lived
    }

    fn live_client(&mut self, client: &mut Client) -> Check {
        let Some(id) = client.link else {
            let wants_in = !self.is_quiet || client.session.is_some();
            if wants_in && self.rng.one_in(4) {
                self.connect(client);
            }
            return Ok(());
        };
        let Some(link) = self.links.get_mut(&id) else {
            client.disconnected();
            return Ok(());
        };
        if !self.is_quiet && self.rng.one_in(self.plan.cut_one_in) {
            // The server notices at once, or only by a timeout.
            link.is_broken = self.rng.one_in(2);
            link.is_silent = !link.is_broken;
            client.disconnected();
            return Ok(());
        }
        if self.rng.one_in(self.plan.stall_one_in) {
            client.stalls = self.rng.between(1, 60);
        }
        if self.is_quiet {
            crate::choose::rest(client);
        } else if self.rng.one_in(2) {
            client.act(&self.plan, &self.model);
        }
        client.exchange(link, self.is_quiet)?;
        if link.down.is_over() && !link.is_broken {
            client.unanswered()?;
        }
        if link.is_broken && (link.down.is_empty() || self.rng.one_in(2)) || link.down.is_over() {
            link.is_broken |= !link.down.is_over();
            link.up.is_ended = true;
            client.disconnected();
        }
        Ok(())
    }

    fn connect(&mut self, client: &mut Client) {
        self.next_link += 1;
        let address = 1 + (client.number % 3) as u8;
        let link = Link::new(client.number, address, self.plan.capacity);
        self.links.insert(self.next_link, link);
        client.connected(self.next_link);
    }
}
