//! The service: permissions, changes to the database, and notifications, for each request.
//!
//! Driven by plain calls, one turn after another; answers go to the [`Outbox`]. The reactor, tests,
//! benches and the simulation all drive it in the same way:
//!
//! ```text
//!   begin_turn(now) -> take_up_changes -> frame / oversized / job_done ... -> end_turn
//!   -> connected / closed / pump / housekeeping -> send what the outbox released
//! ```
//!
//! It has no sockets, clocks or randomness of its own: all are passed in.

mod account;
mod backlog;
mod chat;
mod chat_info;
mod clock;
mod clock_doubt;
mod commands;
mod config;
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
mod page_cache;
mod password_queue;
mod passwords;
mod peer;
mod presence;
pub mod push;
mod push_queue;
pub mod push_text;
mod pushing;
#[cfg(test)]
mod races;
mod reaction;
mod roster;
mod search;
mod send_limiter;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod turn;
mod undo;
mod unread;
mod verifying;
pub mod write_lock;

use crate::auth::random::RandomSource;
use crate::auth::throttle::{Origin, Throttle};
use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::store::members::Member;
use crate::store::{Fault, Store, StoreError, StoreResult};
use crate::wire::Version;
use crate::wire::decline::Decline;
use crate::wire::purpose::ToClient;

pub use account::{REMOVED_ENDINGS, is_removed};
use clock::ServerClock;
pub use clock::start_jump_us;
pub use config::{DAY_US, ServiceConfig};
pub use hook::HookError;
use passwords::Passwords;
use presence::Presence;
use turn::Turn;

/// What to do with a connection after one of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Read on: the next frame may be handled.
    Continue,
    /// Hold: the next frame waits until the connection is no longer held.
    Hold,
    /// Put back: this frame was not handled, and comes again when the connection is no longer held.
    PutBack,
    /// Close: handle no more frames, send what is queued, then close.
    Close,
}

/// The outcome of a turn. Either way, its staged frames may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnEnd {
    /// Everything that the turn wrote is on disk.
    Committed,
    /// The turn could not be stored and was undone; its requests are declined `storage-failed`.
    Declined,
}

/// The origin of a request, read from its connection before the handler runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    conn: ConnId,
    task: u8,
    user: UserId,
    session: crate::ids::SessionId,
    /// The protocol version of the connection.
    version: Version,
}

/// The reason why a handler failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HandlerError {
    /// Another process is writing and nothing was changed: the request is handled again later.
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

/// The result of a handler. On success it has staged its answer, or queued the work for it.
pub(crate) type HandlerResult = Result<(), HandlerError>;

/// Rate limits of users, each with its own state.
struct RateLimits {
    /// Failed logins and other guesses, and logins that succeed.
    throttle: Throttle,
    /// Slow mode.
    sends: send_limiter::SendLimiter,
    hooks: hook::HookLimiter,
    /// Quotas per day, sends and other changes per second.
    ledger: ledger::Ledger,
    reactions: reaction::ReactionLimiter,
}

/// Work for connections that takes many turns: streamed answers and backlogs.
#[derive(Default)]
struct Streams {
    /// Connections with a streamed answer or a backlog, in the order in which they get their
    /// budget.
    pumping: Vec<ConnId>,
    /// Connections whose input may be handled again.
    resumed: Vec<ConnId>,
    /// The scan budget used in this turn: rows read without being sent, in equivalent bytes of a
    /// streamed answer.
    scanned_bytes: usize,
    /// Scratch buffer for a piece of a backlog.
    scratch: Vec<u8>,
    /// Scratch buffer for a chat_info.
    notice: Vec<u8>,
}

/// The health of the database and the disk, and cached facts about the database.
struct Storage {
    /// The last write failed, and the next ones are expected to.
    is_failing: bool,
    full_disk: full_disk::FullDisk,
    write_lock: write_lock::WriteLock,
    /// Nobody can know what is on disk: the process has to end.
    lost: Option<StoreError>,
    /// COMMITs that wrote, since the start.
    commits: u64,
    /// SQLite's count of changed rows at the last COMMIT or undo.
    rows_changed: u64,
    /// Nobody was registered when this was last read.
    may_be_empty: bool,
    /// Nobody may register or join a chat, until a command ends the lockdown.
    lockdown: bool,
}

/// Background work: slices between turns.
struct Background {
    housekeeping: housekeeping::Housekeeping,
    indexing: indexing::Indexing,
    counting: unread::Counting,
    pushing: pushing::Pushing,
}

/// The whole state of the server, except its sockets.
pub struct Service<'db> {
    store: Store<'db>,
    /// The frames to send.
    pub outbox: Outbox,
    /// The counters and histograms.
    pub metrics: Metrics,
    config: ServiceConfig,
    random: &'db dyn RandomSource,
    clock: ServerClock,
    presence: Presence,
    limits: RateLimits,
    passwords: Passwords,
    turn: Turn,
    streams: Streams,
    storage: Storage,
    background: Background,
}

impl<'db> Service<'db> {
    /// Resumes from the database.
    ///
    /// # Errors
    /// When the database cannot be read, or there is no randomness.
    pub fn new(
        mut store: Store<'db>,
        config: ServiceConfig,
        random: &'db dyn RandomSource,
    ) -> Result<Self, String> {
        let mut seed = [0; 32];
        random.fill(&mut seed).map_err(|e| e.to_string())?;
        let last = store.server_time().map_err(|e| e.to_string())?;
        let doubt_ms = store.clock_doubt().map_err(|e| e.to_string())?;
        let trusted = store.clock_trusted().map_err(|e| e.to_string())?;
        let clock = ServerClock::resume(last, doubt_ms).trusted_at(trusted);
        if doubt_ms > 0 {
            clock_doubt::warn_of_start();
        }
        let lockdown = store.lockdown().map_err(|e| e.to_string())?;
        let housekeeping =
            housekeeping::Housekeeping::start(&mut store).map_err(|e| e.to_string())?;
        let indexing = indexing::Indexing::start(&mut store).map_err(|e| e.to_string())?;
        let counting = unread::Counting::start(&mut store).map_err(|e| e.to_string())?;
        let pushing = pushing::Pushing::start(&mut store, config.push)?;
        let background = Background { housekeeping, indexing, counting, pushing };
        let mut passwords = Passwords::default();
        for address in
            store.session_addresses(limits::KNOWN_ORIGINS_MAX).map_err(|e| e.to_string())?
        {
            passwords.queue.note_known(Origin::of(address));
        }
        store.commit().map_err(|e| e.to_string())?;
        let storage = Storage {
            is_failing: false,
            full_disk: full_disk::FullDisk {
                is_full: store.is_reserve_given_up(),
                ..Default::default()
            },
            write_lock: write_lock::WriteLock::default(),
            lost: None,
            commits: 0,
            rows_changed: store.rows_changed(),
            may_be_empty: true,
            lockdown,
        };
        if storage.full_disk.is_full {
            full_disk::log_full();
        }
        let limits = RateLimits {
            throttle: Throttle::new(&seed),
            sends: send_limiter::SendLimiter::default(),
            hooks: hook::HookLimiter::default(),
            ledger: ledger::Ledger::default(),
            reactions: reaction::ReactionLimiter::default(),
        };
        Ok(Self {
            store,
            outbox: Outbox::default(),
            metrics: Metrics::default(),
            config,
            random,
            clock,
            presence: Presence::default(),
            limits,
            passwords,
            turn: Turn::default(),
            streams: Streams::default(),
            storage,
            background,
        })
    }

    /// Whether nobody is registered: a browser then shows how to create the first user.
    pub fn has_no_users(&mut self) -> bool {
        if self.storage.may_be_empty {
            self.storage.may_be_empty = !self.store.has_users().unwrap_or(true);
        }
        self.storage.may_be_empty
    }

    /// The wall clock as far as it is trusted.
    pub fn wall_time(&self) -> ServerTime {
        self.clock.wall()
    }

    /// The highest server time given so far.
    pub fn last_time(&self) -> ServerTime {
        self.clock.last()
    }

    /// Begins a turn. `wall_us`: microseconds since the epoch; `now_ms`: a monotonic clock.
    pub fn begin_turn(&mut self, wall_us: i64, now_ms: u64) {
        if let Some(event) = self.clock.set_wall(wall_us, now_ms) {
            self.note_clock(event);
        }
        self.streams.scanned_bytes = 0;
        self.outbox.begin_turn();
        self.turn.begin();
        self.poll_write_lock();
    }

    /// The next connection whose input may be handled again.
    pub fn pop_resumed(&mut self) -> Option<ConnId> {
        self.streams.resumed.pop()
    }

    /// The error after which nobody can know what is on disk. Then nothing may be sent any more.
    pub fn lost(&self) -> Option<&StoreError> {
        self.storage.lost.as_ref()
    }

    /// Whether the turn has written, so that its COMMIT takes time.
    pub fn has_written(&self) -> bool {
        self.store.has_written()
    }

    /// Ends a turn: one COMMIT for everything that it wrote, then the staged frames are released.
    ///
    /// Invariant 1 is kept here, since nothing else releases: released frames were either staged in
    /// a turn whose COMMIT is on disk, or decline the requests of a turn that was undone. So is
    /// invariant 2: after a failed COMMIT, the database, the caches and the queues are as before
    /// the turn.
    pub fn end_turn(&mut self) -> TurnEnd {
        self.end_turn_timed(|| 0)
    }

    /// [`Service::end_turn`], with a clock in microseconds that measures the COMMIT.
    pub fn end_turn_timed(&mut self, now_us: impl Fn() -> u64) -> TurnEnd {
        let begun_us = self.store.has_written().then(&now_us);
        let end = match self.commit() {
            Ok(()) => {
                if let Some(begun_us) = begun_us {
                    self.metrics.commit_us.observe(now_us().saturating_sub(begun_us));
                }
                self.notify_batch();
                self.forget_abandoned_jobs();
                TurnEnd::Committed
            }
            Err(error) => {
                self.undo(&error);
                self.decline_requests();
                TurnEnd::Declined
            }
        };
        if self.storage.lost.is_none() {
            self.outbox.release(&mut self.metrics);
            self.outbox.begin_turn();
        }
        self.turn.begin();
        end
    }

    /// Commits, unless the turn has failed already.
    fn commit(&mut self) -> StoreResult<()> {
        if let Some(error) = self.turn.failed.take() {
            return Err(error);
        }
        if !self.store.has_written() {
            // Ends a read-only transaction: if this fails, nothing is lost.
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
        self.storage.commits += 1;
        self.checkpoint_when_urgent();
        let before = std::mem::replace(&mut self.storage.rows_changed, self.store.rows_changed());
        self.metrics.commit_rows.observe(self.storage.rows_changed.saturating_sub(before));
        if std::mem::take(&mut self.storage.is_failing) {
            log::info!("the data file can be written again");
            self.store.set_busy_timeout(true);
        }
    }

    /// Fails the turn for the error of a call that belongs to no request.
    fn note_failure<T>(&mut self, result: StoreResult<T>) {
        if let Err(error) = result {
            self.turn.failed.get_or_insert(error);
        }
    }

    /// The origin of a request, if the connection has a session.
    fn caller(&self, conn: ConnId, task: u8) -> Option<Caller> {
        let peer = self.presence.peers.get(conn)?;
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

    /// The reason to send for an error. Logs and records an error of the store.
    fn reason(&mut self, error: HandlerError) -> Decline {
        match error {
            HandlerError::Decline(reason) => reason,
            HandlerError::Busy => Decline::StorageFailed,
            HandlerError::Store(error) => {
                if error.fault == Fault::Lost {
                    log::error!("the data file is lost to this process: {error}");
                    self.storage.lost.get_or_insert(error);
                } else {
                    log::warn!("the data file cannot be used for a request: {error}");
                }
                Decline::StorageFailed
            }
        }
    }

    /// Begins to write. Call it before the first change of a turn, and before the reads that the
    /// change depends on: the read transaction ends here, and before the write transaction begins,
    /// a command may write.
    fn may_write(&mut self) -> HandlerResult {
        self.check_space()?;
        self.may_write_now()
    }

    /// The same, on a full disk as well.
    fn may_write_now(&mut self) -> HandlerResult {
        if self.waits_for_lock() {
            // First come, first served: behind requests that wait already.
            return Err(HandlerError::Busy);
        }
        match self.store.begin_write() {
            Ok(()) => Ok(()),
            Err(error) if !self.store.has_written() && self.may_wait(&error) => {
                Err(HandlerError::Busy)
            }
            // Nothing is written yet, so the other requests of the turn need not fail.
            Err(error) if error.fault == Fault::Unavailable && !self.store.has_written() => {
                self.metrics.undone += 1;
                self.note_storage_failing(&error);
                Err(Decline::StorageFailed.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn note_storage_failing(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.storage.is_failing, true) {
            log::error!("cannot write to the database, changes are declined: {error}");
            self.store.set_busy_timeout(false);
        }
    }

    /// The caller's membership, from the database.
    fn require_member(&mut self, caller: Caller, chat: ChatId) -> Result<Member, HandlerError> {
        if self.presence.roster.membership(caller.user, chat).is_some()
            && let Some(member) = self.store.member(chat, caller.user)?
        {
            return Ok(member);
        }
        Err(self.no_member(chat)?)
    }

    /// The reason why a user who is not a member cannot use a chat.
    fn no_member(&mut self, chat: ChatId) -> StoreResult<HandlerError> {
        let found = self.store.chat(chat)?;
        let is_known = found.is_some_and(|chat| chat.direct.is_none() && !chat.closed);
        Ok(if is_known { Decline::NotMember(chat) } else { Decline::NoSuchChat }.into())
    }

    /// The caller's membership, if they are an admin of the chat.
    fn require_admin(&mut self, caller: Caller, chat: ChatId) -> Result<Member, HandlerError> {
        let member = self.require_member(caller, chat)?;
        if !member.admin {
            return Err(Decline::Forbidden("only an admin of the chat may do this").into());
        }
        Ok(member)
    }

    /// Declines a request whose handler failed. An error of the store fails the turn.
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

    /// Begins the graceful shutdown: declines waiting requests, and stages DISCONNECT as the last
    /// frame of every connection.
    pub fn disconnect_all(&mut self) {
        for peer in self.presence.peers.iter_mut() {
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
        self.streams.pumping.clear();
        self.passwords.jobs.clear();
        self.passwords.queue.clear();
    }

    /// Completes the graceful shutdown: ends background work and stores the exact server time.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn finish(&mut self) -> StoreResult<()> {
        self.finish_indexing()?;
        self.finish_counting()?;
        self.finish_ledger()?;
        self.finish_pushing()?;
        self.finish_clock()?;
        let now = self.clock.now();
        self.store.settle_server_time(now)?;
        self.store.commit().map(drop)
    }
}
