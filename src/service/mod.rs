//! What the server does with requests: who may do what, what is stored, who is notified.
//!
//! Driven by plain calls, one turn after the other, and answered through the [`Outbox`]; the
//! reactor, tests, benches and the simulator all drive it alike:
//!
//! ```text
//!   begin_turn(now) -> take_up_changes -> frame / oversized / job_done ... -> end_turn
//!   -> connected / closed / pump / housekeeping -> send what the outbox released
//! ```
//!
//! Knows no socket, no clock and no randomness but those handed in.

mod account;
mod chat;
mod clock;
mod clock_doubt;
mod commands;
mod dispatch;
mod erasing;
mod file;
mod full_disk;
mod gauges;
mod history;
pub mod hook;
mod housekeeping;
mod indexing;
mod invariants;
mod invite;
mod ledger;
mod membership;
mod message;
mod notify;
mod operators;
mod password_queue;
mod peer;
pub mod push;
#[cfg(test)]
mod races;
mod reaction;
mod roster;
mod search;
mod send_limiter;
mod session;
#[cfg(test)]
mod tests;
mod turn;
mod unread;
mod verifying;
pub mod write_lock;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::auth::helper::{Job, JobDone, JobId, Outcome, Work};
use crate::auth::password;
use crate::auth::random::RandomSource;
use crate::auth::throttle::{Origin, Throttle};
use crate::config::{InvitesBy, Registration, UserList};
use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::store::members::Member;
use crate::store::{Fault, Store, StoreError, StoreResult};
use crate::wire::Version;
use crate::wire::codec::Put;
use crate::wire::decline::Decline;
use crate::wire::purpose::ToClient;

use clock::ServerClock;
pub use hook::HookError;
use password_queue::{Guess, Next, Owner, PasswordQueue};
use peer::{Checked, Intent, Peer, Waiting};
use roster::Roster;
use turn::{Asked, IfUndone, Turn};

/// What the operator sets.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Longest body of a frame to the server, in bytes; HELLO returns it.
    pub body_bytes_max: usize,
    /// Longest content of a message, in bytes.
    pub content_bytes_max: usize,
    /// Bytes that may wait for a peer before notifications are left out.
    pub outbound_bytes_max: usize,
    /// Bytes that may wait for all peers, about.
    pub memory_bytes_max: usize,
    /// Microseconds after which an unused session ends.
    pub session_lifetime_us: i64,
    /// PBKDF2 rounds for new passwords.
    pub password_rounds: u32,
    /// Who may register.
    pub registration: Registration,
    /// Who may make invites that register.
    pub invites_by: InvitesBy,
    /// Who may look for users by name.
    pub user_list: UserList,
    /// Whether clients may subscribe to pushes.
    pub push: bool,
    /// Hosts that pushes may go to; one with a dot before it stands for all hosts below it.
    pub push_hosts: Vec<String>,
    /// Messages that one user may send or edit in a second; 0: any number.
    pub sends_per_second: u32,
    /// Bytes of text that one user may send and edit in a day of UTC; 0: any number.
    pub user_bytes_per_day: u64,
    /// Largest file, in bytes; 0: none.
    pub file_bytes_max: u64,
    /// Most bytes of one user's files,
    pub user_files_bytes_max: u64,
    /// and of all files.
    pub files_bytes_max: u64,
    /// Bytes that files leave free on the disk.
    pub disk_reserve_bytes: u64,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: limits::BODY_BYTES_MAX,
            content_bytes_max: limits::CONTENT_BYTES_MAX,
            outbound_bytes_max: limits::OUTBOUND_BYTES_MAX,
            memory_bytes_max: limits::MEMORY_BYTES_MAX,
            session_lifetime_us: i64::from(limits::SESSION_DAYS) * DAY_US,
            password_rounds: limits::PASSWORD_ITERATIONS,
            registration: Registration::Closed,
            invites_by: InvitesBy::Operators,
            user_list: UserList::All,
            push: false,
            push_hosts: Vec::new(),
            sends_per_second: 0,
            user_bytes_per_day: limits::USER_TEXT_BYTES_PER_DAY,
            file_bytes_max: limits::FILE_BYTES_MAX,
            user_files_bytes_max: limits::USER_FILES_BYTES_MAX,
            files_bytes_max: limits::FILES_BYTES_MAX,
            disk_reserve_bytes: limits::DISK_RESERVE_BYTES,
        }
    }
}

/// Microseconds in a day.
pub const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// What becomes of a connection after a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The next frame may come.
    Continue,
    /// The next frame waits until the connection is no longer held.
    Hold,
    /// This frame was not handled: it comes again once the connection is no longer held.
    PutBack,
    /// No more frames: send what is queued and close.
    Close,
}

/// How a turn ended. Either way, what it staged may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnEnd {
    /// All that it wrote is on disk.
    Committed,
    /// It could not be stored and is undone; its requests are declined `storage-failed`.
    Declined,
}

/// Who asks: taken from the connection once, before the handler runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    conn: ConnId,
    task: u8,
    user: UserId,
    session: crate::ids::SessionId,
    /// What its connection speaks.
    version: Version,
}

/// Why a handler did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HandlerError {
    /// Another process is writing, and nothing was changed: the request comes again.
    Busy,
    Decline(Decline),
    Store(StoreError),
}

impl From<Decline> for HandlerError {
    fn from(reason: Decline) -> Self {
        Self::Decline(reason)
    }
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a handler gives: it has staged its answer, or has not.
pub(crate) type HandlerResult = Result<(), HandlerError>;

/// All connections, by their place.
#[derive(Default)]
struct Peers(Vec<Option<Peer>>);

impl Peers {
    fn get(&self, conn: ConnId) -> Option<&Peer> {
        self.at(conn.index).filter(|peer| peer.conn == conn)
    }

    fn get_mut(&mut self, conn: ConnId) -> Option<&mut Peer> {
        self.at_mut(conn.index).filter(|peer| peer.conn == conn)
    }

    fn at(&self, index: u32) -> Option<&Peer> {
        self.0.get(index as usize)?.as_ref()
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Peer> {
        self.0.get_mut(index as usize)?.as_mut()
    }
}

/// The whole state of the server but its sockets.
pub struct Service<'db> {
    store: Store<'db>,
    /// What leaves.
    pub outbox: Outbox,
    /// What has happened.
    pub metrics: Metrics,
    config: ServiceConfig,
    random: &'db dyn RandomSource,
    clock: ServerClock,
    /// A clock that only runs forward, for waiting times.
    now_ms: u64,
    throttle: Throttle,
    peers: Peers,
    /// How many connections there are.
    connected: usize,
    roster: Roster,
    send_limiter: send_limiter::SendLimiter,
    hook_limiter: hook::HookLimiter,
    ledger: ledger::Ledger,
    reaction_limiter: reaction::ReactionLimiter,
    turn: Turn,
    /// Connections with a long answer or something left out, in the order of their shares.
    pumping: Vec<ConnId>,
    /// Connections whose frames may be read on.
    resumed: Vec<ConnId>,
    /// Password jobs that are with the helper, or will be after the turn.
    jobs: HashMap<JobId, ConnId>,
    password_queue: PasswordQueue,
    next_job: u64,
    is_storage_failing: bool,
    full_disk: full_disk::FullDisk,
    write_lock: write_lock::WriteLock,
    /// The file is lost: the process has to end.
    lost: Option<StoreError>,
    housekeeping: housekeeping::Housekeeping,
    indexing: indexing::Indexing,
    counting: unread::Counting,
    /// What this turn has read in the file without sending it, as bytes of a long answer that
    /// take as long.
    looked_bytes: usize,
    lockdown: bool,
    /// Nobody was registered when that was last read.
    may_be_empty: bool,
    /// Room for a long answer's next pieces.
    scratch: Vec<u8>,
    /// Room for a chat_info on its way to several.
    notice: Vec<u8>,
    /// Rows that the file has counted up to the last COMMIT or undo.
    rows_changed: u64,
}

impl<'db> Service<'db> {
    /// Goes on where the file stands.
    ///
    /// # Errors
    /// When the file cannot be read or there is no randomness.
    pub fn new(
        mut store: Store<'db>,
        config: ServiceConfig,
        random: &'db dyn RandomSource,
    ) -> Result<Self, String> {
        let mut seed = [0; 32];
        random.fill(&mut seed).map_err(|e| e.to_string())?;
        let last = store.server_time().map_err(|e| e.to_string())?;
        let doubt_ms = store.clock_doubt().map_err(|e| e.to_string())?;
        let clock = ServerClock::resume(last, doubt_ms);
        let lockdown = store.lockdown().map_err(|e| e.to_string())?;
        let housekeeping =
            housekeeping::Housekeeping::start(&mut store).map_err(|e| e.to_string())?;
        let indexing = indexing::Indexing::start(&mut store).map_err(|e| e.to_string())?;
        let counting = unread::Counting::start(&mut store).map_err(|e| e.to_string())?;
        let mut password_queue = PasswordQueue::default();
        for address in
            store.session_addresses(limits::KNOWN_ORIGINS_MAX).map_err(|e| e.to_string())?
        {
            password_queue.note_known(Origin::of(address));
        }
        store.commit().map_err(|e| e.to_string())?;
        let full_disk =
            full_disk::FullDisk { is_full: store.is_reserve_given_up(), ..Default::default() };
        let rows_changed = store.rows_changed();
        Ok(Self {
            store,
            outbox: Outbox::default(),
            metrics: Metrics::default(),
            config,
            random,
            clock,
            now_ms: 0,
            throttle: Throttle::new(&seed),
            peers: Peers::default(),
            connected: 0,
            roster: Roster::default(),
            send_limiter: send_limiter::SendLimiter::default(),
            hook_limiter: hook::HookLimiter::default(),
            ledger: ledger::Ledger::default(),
            reaction_limiter: reaction::ReactionLimiter::default(),
            turn: Turn::default(),
            pumping: Vec::new(),
            resumed: Vec::new(),
            jobs: HashMap::new(),
            password_queue,
            next_job: 0,
            is_storage_failing: false,
            full_disk,
            write_lock: write_lock::WriteLock::default(),
            lost: None,
            housekeeping,
            indexing,
            counting,
            looked_bytes: 0,
            lockdown,
            may_be_empty: true,
            scratch: Vec::new(),
            notice: Vec::new(),
            rows_changed,
        })
    }

    /// Whether nobody is registered: a browser is then shown how the first user is made.
    pub fn has_no_users(&mut self) -> bool {
        if self.may_be_empty {
            self.may_be_empty = !self.store.has_users().unwrap_or(true);
        }
        self.may_be_empty
    }

    /// The highest server time given so far.
    pub fn last_time(&self) -> ServerTime {
        self.clock.last()
    }

    /// Begins a turn: the wall clock in microseconds since the epoch, and a clock in milliseconds
    /// that never runs backwards.
    pub fn begin_turn(&mut self, wall_us: i64, now_ms: u64) {
        if let Some(event) = self.clock.set_wall(wall_us, now_ms) {
            self.note_clock(event);
        }
        self.now_ms = now_ms;
        self.looked_bytes = 0;
        self.outbox.begin_turn();
        self.turn.begin();
        self.look_for_lock();
    }

    /// A connection has been made.
    pub fn connected(&mut self, conn: ConnId, address: IpAddr) {
        if conn.at() >= self.peers.0.len() {
            self.peers.0.resize_with(conn.at() + 1, || None);
        }
        if let Some(place) = self.peers.0.get_mut(conn.at()) {
            self.connected += usize::from(place.is_none());
            *place = Some(Peer::new(conn, address, self.now_ms));
        }
    }

    /// A connection is gone; its session lives on.
    pub fn closed(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(conn) else { return };
        if let Some(attached) = peer.state.attached {
            self.notify_so_far();
            if self.roster.detach(conn.index, attached.user) {
                self.notify_presence(attached.user, false);
            }
        }
        if let Some(place) = self.peers.0.get_mut(conn.at()) {
            *place = None;
            self.connected -= 1;
        }
        self.outbox.remove(conn.index);
    }

    /// Where a connection comes from; 0.0.0.0 for one that is not there.
    pub fn peer_address(&self, conn: ConnId) -> IpAddr {
        self.peers.get(conn).map_or(Ipv4Addr::UNSPECIFIED.into(), Peer::address)
    }

    /// Whether the connection's frames have to wait: a password is being checked, a long answer is
    /// under way, or the peer does not take what it is sent.
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.peers.get(conn).is_some_and(|peer| {
            peer.waiting.is_some()
                || peer.state.waits_for_lock
                || peer.stream.is_some()
                || peer.backlog.is_some()
                || self.outbox.pending_bytes(conn.index) > self.outbound_limit(conn.index)
        })
    }

    /// Bytes that may wait for a connection before it counts as a slow consumer.
    pub(crate) fn outbound_limit(&self, index: u32) -> usize {
        // Most are far below any limit.
        if self.outbox.pending_bytes(index) <= limits::OUTBOUND_BYTES_MIN {
            return self.config.outbound_bytes_max;
        }
        self.outbound_share(index)
    }

    /// The same, as its user and all connections leave it: the connections of one user share a
    /// budget, and where much waits for all of them, they all do.
    fn outbound_share(&self, index: u32) -> usize {
        let user = self.peers.at(index).and_then(Peer::user);
        let own = user.and_then(|user| self.roster.user(user)).map_or(1, |on| on.conns().len());
        let mut share = self.config.outbound_bytes_max;
        share = share.min(limits::USER_OUTBOUND_BYTES_MAX / own.max(1));
        // One half is shared freely, the other one evenly.
        let half = self.config.memory_bytes_max / 2;
        if self.outbox.buffered_bytes() > half {
            share = share.min(half / self.connected.max(1));
        }
        share.max(limits::OUTBOUND_BYTES_MIN.min(self.config.outbound_bytes_max))
    }

    /// Whether a session is attached.
    pub fn is_authorized(&self, conn: ConnId) -> bool {
        self.peers.get(conn).is_some_and(|peer| peer.state.attached.is_some())
    }

    /// Since when the connection has had no session, by the forward clock in milliseconds; `None`
    /// while it has one.
    pub fn unauthorized_since_ms(&self, conn: ConnId) -> Option<u64> {
        let peer = self.peers.get(conn)?;
        peer.state.attached.is_none().then_some(peer.state.detached_ms)
    }

    /// Whether a password of the connection is being checked.
    pub fn is_waiting(&self, conn: ConnId) -> bool {
        self.peers.get(conn).is_some_and(|peer| peer.waiting.is_some())
    }

    /// A connection whose frames may be read on.
    pub fn pop_resumed(&mut self) -> Option<ConnId> {
        self.resumed.pop()
    }

    /// A password job for the helper; to be asked for after the turn has ended. Anyone who has
    /// failed too often by now is declined instead.
    pub fn pop_job(&mut self) -> Option<(Job, ConnId)> {
        loop {
            // A job without anybody who waits for it was undone, or its connection is gone.
            let (jobs, peers) = (&self.jobs, &self.peers);
            let is_wanted = |job: JobId| {
                let peer = jobs.get(&job).and_then(|conn| peers.get(*conn));
                let waiting = peer.and_then(|peer| peer.waiting.as_ref());
                waiting.is_some_and(|waiting| waiting.job == job)
            };
            match self.password_queue.next(&self.throttle, self.now_ms, is_wanted) {
                Next::Ready(job) => {
                    let conn = self.jobs.get(&job.id).copied();
                    if let Some(conn) = conn {
                        return Some((job, conn));
                    }
                }
                Next::Nobody => return None,
                Next::Refused(job, seconds) => self.refuse_job(job, seconds),
                Next::Unwanted(job) => _ = self.jobs.remove(&job),
            }
        }
    }

    fn refuse_job(&mut self, job: JobId, seconds: u64) {
        let Some(conn) = self.jobs.remove(&job) else { return };
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Some(waiting) = peer.waiting.take() else { return };
        let reason = Decline::RateLimited(seconds);
        self.outbox.decline(conn.index, waiting.task, reason);
        self.resumed.push(conn);
    }

    /// What made the file unusable, if anything did. Nothing may be sent any more.
    pub fn lost(&self) -> Option<&StoreError> {
        self.lost.as_ref()
    }

    /// Whether the turn has written, so that its COMMIT will take its time.
    pub fn has_written(&self) -> bool {
        self.store.has_written()
    }

    /// Ends a turn: one COMMIT for all that it wrote, then all that it staged may leave.
    ///
    /// Invariant 1 is kept here: nothing else releases, and what is released was either staged in
    /// a turn whose COMMIT is on disk, or says that nothing of the turn was kept. Invariant 2 as
    /// well: when the COMMIT fails, the database, the caches and the queues are as if the turn had
    /// not been.
    pub fn end_turn(&mut self) -> TurnEnd {
        self.end_turn_timed(|| 0)
    }

    /// [`Service::end_turn`], with a clock in microseconds by which the COMMIT is measured.
    pub fn end_turn_timed(&mut self, now_us: impl Fn() -> u64) -> TurnEnd {
        let begun_us = self.store.has_written().then(&now_us);
        let end = match self.commit() {
            Ok(()) => {
                if let Some(begun_us) = begun_us {
                    self.metrics.commit_us.observe(now_us().saturating_sub(begun_us));
                }
                self.notify_batch();
                self.forget_cut_off();
                TurnEnd::Committed
            }
            Err(error) => {
                self.undo(&error);
                self.decline_requests();
                TurnEnd::Declined
            }
        };
        if self.lost.is_none() {
            self.outbox.release(&mut self.metrics);
            self.outbox.begin_turn();
        }
        self.turn.begin();
        end
    }

    /// COMMIT, unless something has failed already.
    fn commit(&mut self) -> StoreResult<()> {
        if let Some(error) = self.turn.failed.take() {
            return Err(error);
        }
        if !self.store.has_written() {
            // The end of a transaction that has only read: nothing of the turn can be lost by it.
            if let Err(error) = self.store.commit() {
                self.store.roll_back();
                self.reason(error.into());
            }
            return Ok(());
        }
        self.store.reserve_time(self.clock.last())?;
        if self.store.commit()? {
            self.note_commit();
        }
        Ok(())
    }

    fn note_commit(&mut self) {
        let before = std::mem::replace(&mut self.rows_changed, self.store.rows_changed());
        self.metrics.commit_rows.observe(self.rows_changed.saturating_sub(before));
        if std::mem::take(&mut self.is_storage_failing) {
            log::info!("the data file can be written again");
            self.store.set_busy_timeout(true);
        }
    }

    /// Forgets the password work that nobody waits for since this turn, which is not undone any
    /// more.
    fn forget_cut_off(&mut self) {
        for saved in self.turn.saved.drain(..) {
            if let Some(waiting) = saved.waiting {
                let is_over = self
                    .peers
                    .get(saved.conn)
                    .and_then(|peer| peer.waiting.as_ref())
                    .is_none_or(|now| now.job != waiting.job);
                if is_over {
                    self.jobs.remove(&waiting.job);
                }
            }
        }
    }

    /// Notes the error of a call that belongs to no request.
    fn note_failure<T>(&mut self, result: StoreResult<T>) {
        if let Err(error) = result {
            self.turn.failed.get_or_insert(error);
        }
    }

    fn undo(&mut self, error: &StoreError) {
        self.store.roll_back();
        self.metrics.undone += 1;
        self.rows_changed = self.store.rows_changed();
        if error.fault == Fault::Lost {
            log::error!("the data file is lost to this process: {error}");
            self.lost.get_or_insert_with(|| error.clone());
            return;
        }
        // What the server does by itself only comes later.
        if !(self.turn.requests.is_empty() && self.may_wait(error)) {
            self.note_storage_failing(error);
        }
        if error.is_full() {
            self.note_full_disk();
        }
        self.outbox.discard();
        self.turn.batch.end();
        for user in std::mem::take(&mut self.turn.users) {
            for index in self.roster.forget(user) {
                if let Some(peer) = self.peers.at_mut(index) {
                    self.turn.save(peer);
                }
            }
        }
        let mut saved = std::mem::take(&mut self.turn.saved);
        for old in &mut saved {
            if let Some(peer) = self.peers.get_mut(old.conn) {
                peer.state = old.state;
                peer.waiting = old.waiting.take();
                if !old.was_streaming {
                    peer.stream = None;
                }
            }
        }
        for old in &saved {
            if let Some(attached) = old.state.attached
                && self.peers.get(old.conn).is_some()
                && let Err(error) = self.list(old.conn.index, attached.user, attached.suspended)
            {
                log::error!("the data file cannot even be read: {error}");
                self.lost.get_or_insert(error);
            }
        }
        self.take_back();
        self.jobs.retain(|job, conn| {
            let waiting = self.peers.get(*conn).and_then(|peer| peer.waiting.as_ref());
            waiting.is_some_and(|waiting| waiting.job == *job)
        });
        self.housekeeping.start_again();
        self.indexing.start_again(self.turn.number, self.now_ms);
        self.counting.start_again();
        self.turn.saved = saved;
        self.turn.saved.clear();
    }

    /// Answers the requests of a turn that was undone, in their order.
    fn decline_requests(&mut self) {
        let mut requests = std::mem::take(&mut self.turn.requests);
        for &Asked { conn, task, answer } in &requests {
            let index = conn.index;
            match answer {
                IfUndone::Decline => self.outbox.decline(index, task, Decline::StorageFailed),
                IfUndone::Echo(echo) => {
                    let echo = echo.of(&self.turn.echoes);
                    self.outbox.stage_frame(index, ToClient::Accepted, task, |body| {
                        body.put_bytes(echo);
                    });
                }
                IfUndone::Suspend => self.suspend_if_notified(conn, task),
                IfUndone::TooLarge => self.stage_oversized(conn, task),
                IfUndone::Close => self.outbox.close(index),
            }
            self.resumed.push(conn);
        }
        requests.clear();
        self.turn.requests = requests;
    }

    /// What an undone turn dropped or counted is as it was.
    fn take_back(&mut self) {
        for (conn, behind) in std::mem::take(&mut self.turn.dropped) {
            if let Some(peer) = self.peers.get_mut(conn) {
                peer.backlog = Some(behind);
                self.pumping.push(conn);
            }
        }
        for user in std::mem::take(&mut self.turn.reacted) {
            self.reaction_limiter.take_back(user);
        }
        for old in std::mem::take(&mut self.turn.paced).iter().rev() {
            self.send_limiter.take_back(old);
        }
        for (user, before) in std::mem::take(&mut self.turn.ledger) {
            self.ledger.take_back(user, before);
        }
    }

    /// Puts a connection into the roster, unless it is there. True when its user was offline.
    fn list(&mut self, index: u32, user: UserId, suspended: bool) -> StoreResult<bool> {
        if self.roster.user(user).is_some_and(|online| online.conns().contains(&index)) {
            return Ok(false);
        }
        let store = &mut self.store;
        let is_first = self.roster.attach(index, user, || store.memberships_with_policy(user))?;
        if suspended {
            self.roster.deactivate(index, user);
        }
        Ok(is_first)
    }

    /// Who asks, when a session is attached to the connection.
    fn caller(&self, conn: ConnId, task: u8) -> Option<Caller> {
        let peer = self.peers.get(conn)?;
        let attached = peer.state.attached?;
        Some(Caller {
            conn,
            task,
            user: attached.user,
            session: attached.session,
            version: peer.version(),
        })
    }

    /// Stages ACCEPTED with the body that `write` appends.
    fn accept(&mut self, caller: Caller, write: impl FnOnce(&mut Vec<u8>)) {
        self.accept_to(caller.conn, caller.task, write);
    }

    fn accept_to(&mut self, conn: ConnId, task: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.outbox.stage_frame(conn.index, ToClient::Accepted, task, write);
    }

    /// The reason to give for a error; one of the store is noted on the way.
    fn reason(&mut self, error: HandlerError) -> Decline {
        match error {
            HandlerError::Decline(reason) => reason,
            HandlerError::Busy => Decline::StorageFailed,
            HandlerError::Store(error) => {
                if error.fault == Fault::Lost {
                    log::error!("the data file is lost to this process: {error}");
                    self.lost.get_or_insert(error);
                } else {
                    log::warn!("the data file cannot be used for a request: {error}");
                }
                Decline::StorageFailed
            }
        }
    }

    /// Before the first change of a turn, and before the read that decides what is changed. Else a
    /// command could change it between the two: the transaction that has only read ends before the
    /// one that writes begins.
    fn may_write(&mut self) -> HandlerResult {
        self.check_space()?;
        self.may_write_now()
    }

    /// The same, whatever space is left.
    fn may_write_now(&mut self) -> HandlerResult {
        if self.waits_for_lock() {
            // Behind those who wait already.
            return Err(HandlerError::Busy);
        }
        match self.store.begin_write() {
            Ok(()) => Ok(()),
            Err(error) if !self.store.has_written() && self.may_wait(&error) => {
                Err(HandlerError::Busy)
            }
            // Nothing is written yet, so the other requests of the turn can be answered.
            Err(error) if error.fault == Fault::Unavailable && !self.store.has_written() => {
                self.metrics.undone += 1;
                self.note_storage_failing(&error);
                Err(Decline::StorageFailed.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn note_storage_failing(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.is_storage_failing, true) {
            log::error!("cannot write to the database, changes are declined: {error}");
            self.store.set_busy_timeout(false);
        }
    }

    /// The membership of the caller, from the file.
    fn require_member(&mut self, caller: Caller, chat: ChatId) -> Result<Member, HandlerError> {
        if self.roster.membership(caller.user, chat).is_some()
            && let Some(member) = self.store.member(chat, caller.user)?
        {
            return Ok(member);
        }
        Err(self.no_member(chat)?)
    }

    /// Why somebody who is not a member of a chat cannot use it.
    fn no_member(&mut self, chat: ChatId) -> StoreResult<HandlerError> {
        let found = self.store.chat(chat)?;
        let is_known = found.is_some_and(|chat| chat.direct.is_none() && !chat.closed);
        Ok(if is_known { Decline::NotMember(chat) } else { Decline::NoSuchChat }.into())
    }

    /// The membership of the caller, who has to be an admin of the chat.
    fn require_admin(&mut self, caller: Caller, chat: ChatId) -> Result<Member, HandlerError> {
        let member = self.require_member(caller, chat)?;
        if !member.admin {
            return Err(Decline::Forbidden("only an admin of the chat may do this").into());
        }
        Ok(member)
    }

    /// The chats of an online user, by id, the last first.
    fn chats_of(&self, user: UserId) -> Vec<ChatId> {
        let chats = self.roster.user(user).map_or(&[][..], |online| &online.chats);
        chats.iter().rev().map(|membership| membership.chat).collect()
    }

    /// Gives password work to the helper; the connection is held until it is done.
    fn ask_helper(&mut self, conn: ConnId, task: u8, work: Work, intent: Intent) -> HandlerResult {
        let Some(owner) = self.owner(conn) else { return Ok(()) };
        if !self.password_queue.has_room(owner) {
            return Err(Decline::RateLimited(HELPER_BUSY_S).into());
        }
        let guess = self.guess(conn, &intent);
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        self.turn.save(peer);
        self.next_job += 1;
        let job = JobId(self.next_job);
        peer.waiting = Some(Box::new(Waiting { job, task, intent }));
        self.jobs.insert(job, conn);
        let rounds = self.rounds(&work);
        self.password_queue.push(Job { id: job, work }, owner, guess, rounds);
        Ok(())
    }

    /// Has a password compared with a stored one; the intent takes both along. `upgrade`: see
    /// [`Work::Verify`].
    fn ask_to_compare(
        &mut self,
        conn: ConnId,
        task: u8,
        checked: Checked,
        upgrade: bool,
        intent: impl FnOnce(Checked) -> Intent,
    ) -> HandlerResult {
        let work = Work::Verify {
            stored: checked.stored.clone(),
            password: checked.password.clone(),
            rounds: self.config.password_rounds,
            upgrade,
        };
        self.ask_helper(conn, task, work, intent(checked))
    }

    /// Whose share of the helper's time a connection uses.
    fn owner(&self, conn: ConnId) -> Option<Owner> {
        let user = self.peers.get(conn)?.user();
        user.map(Owner::User).or_else(|| self.origin(conn).map(Owner::Peer))
    }

    /// What a request's password work is a guess at.
    fn guess(&self, conn: ConnId, intent: &Intent) -> Guess {
        let user = self.peers.get(conn).and_then(|peer| peer.user());
        match (intent, user, self.origin(conn)) {
            (Intent::Login { login, .. }, _, Some(origin)) => {
                Guess::Login { login: login.clone(), origin }
            }
            (Intent::JoinChat { chat, .. }, Some(user), _) => Guess::Join { user, chat: *chat },
            (Intent::CheckOldPassword { .. }, Some(user), _) => Guess::OldPassword { user },
            _ => Guess::Nothing,
        }
    }

    /// About how many rounds a piece of work takes.
    fn rounds(&self, work: &Work) -> u32 {
        match work {
            Work::Verify { stored: Some(stored), .. } => password::rounds(stored),
            Work::Verify { stored: None, .. } | Work::Hash { .. } => None,
        }
        .unwrap_or(self.config.password_rounds)
    }

    /// The helper has done a job.
    pub fn job_done(&mut self, done: &JobDone) {
        if self.turn.failed.is_none() && self.put_aside(done) {
            return;
        }
        let guess = self.password_queue.done(done.id);
        let Some(conn) = self.jobs.remove(&done.id) else {
            return self.count_unheard(guess, &done.outcome);
        };
        let Some(peer) = self.peers.get_mut(conn) else {
            return self.count_unheard(guess, &done.outcome);
        };
        self.turn.save(peer);
        let waiting = peer.waiting.take_if(|waiting| waiting.job == done.id);
        // Were the turn undone, the request would wait for a job that does not come again.
        let saved = self.turn.forget_saved_job(peer, done.id);
        let Some(waiting) = waiting else {
            // It was cut off in this turn.
            if let Some(task) = saved {
                self.turn.note_request(conn, task, IfUndone::Decline);
            }
            return self.count_unheard(guess, &done.outcome);
        };
        let task = waiting.task;
        self.turn.note_request(conn, task, IfUndone::Decline);
        if self.turn.failed.is_some() {
            return;
        }
        let reply = self.dispatch_done(conn, task, waiting.intent, &done.outcome);
        self.settle(conn, task, reply);
        self.resumed.push(conn);
    }

    /// A peer that closes before the answer has failed all the same: else it could keep the
    /// helper busy for ever, and pay for nothing.
    fn count_unheard(&mut self, guess: Option<Guess>, outcome: &Outcome) {
        if let (Some(guess), Outcome::Verified { ok: false, .. }) = (guess, outcome) {
            for key in guess.keys() {
                self.throttle.spend(key, self.now_ms);
            }
        }
    }

    /// Declines what a handler refused; a failed write fails the turn.
    #[inline(always)]
    fn settle(&mut self, conn: ConnId, task: u8, reply: HandlerResult) {
        if let Err(error) = reply {
            self.refuse(conn, task, error);
        }
    }

    fn refuse(&mut self, conn: ConnId, task: u8, error: HandlerError) {
        match error {
            HandlerError::Store(error) => _ = self.turn.failed.get_or_insert(error),
            HandlerError::Decline(reason) => self.outbox.decline(conn.index, task, reason),
            HandlerError::Busy => self.outbox.decline(conn.index, task, Decline::StorageFailed),
        }
    }

    /// Before the server stops: what waits is declined, and every connection gets DISCONNECT,
    /// behind which nothing is staged.
    pub fn dismiss_all(&mut self) {
        for place in 0..self.peers.0.len() {
            let Some(peer) = self.peers.0.get_mut(place).and_then(Option::as_mut) else { continue };
            let waiting = peer.waiting.take().map(|waiting| waiting.task);
            let stream = peer.stream.take().map(|stream| stream.task);
            peer.backlog = None;
            let conn = peer.conn;
            for task in [waiting, stream].into_iter().flatten() {
                self.outbox.decline(conn.index, task, Decline::ShuttingDown);
            }
            self.outbox.stage_bare(conn.index, ToClient::Disconnect);
            self.outbox.close(conn.index);
        }
        self.pumping.clear();
        self.jobs.clear();
        self.password_queue.clear();
    }

    /// Tidies up, and stores the exact time: the last thing before a graceful end.
    ///
    /// # Errors
    /// As every write.
    pub fn finish(&mut self) -> StoreResult<()> {
        self.finish_indexing()?;
        self.finish_counting()?;
        self.finish_ledger()?;
        self.store.set_clock_doubt(self.clock.doubt_ms())?;
        let now = self.clock.now();
        self.store.write_server_time(now)?;
        self.store.commit().map(drop)
    }
}

/// Seconds after which the password helper has surely caught up with some of its queue.
const HELPER_BUSY_S: u64 = 5;
