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

use clock::ServerClock;
pub use config::{DAY_US, ServiceConfig};
pub use hook::HookError;
use passwords::Passwords;
use presence::Presence;
use turn::Turn;

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

/// What users may do how often, each kind with its own state.
struct RateLimits {
    /// Failed logins and guesses, and logins that succeed.
    throttle: Throttle,
    /// Slow mode, and sends per second.
    sends: send_limiter::SendLimiter,
    hooks: hook::HookLimiter,
    /// Bytes and changes of a day.
    ledger: ledger::Ledger,
    reactions: reaction::ReactionLimiter,
}

/// What goes on over many turns for connections: long answers, backlogs.
#[derive(Default)]
struct Streams {
    /// Connections with a long answer or a backlog, in the order in which they get their budget.
    pumping: Vec<ConnId>,
    /// Connections whose frames may be read on.
    resumed: Vec<ConnId>,
    /// What this turn has scanned without sending it, as bytes of a long answer that take as long.
    looked_bytes: usize,
    /// Buffer for the next pieces of a long answer.
    scratch: Vec<u8>,
    /// Buffer for a chat_info on its way to several connections.
    notice: Vec<u8>,
}

/// What is wrong with the database or the disk, if anything, and what is known of its rows.
struct Storage {
    /// The last write failed, and so will the next ones.
    is_failing: bool,
    full_disk: full_disk::FullDisk,
    write_lock: write_lock::WriteLock,
    /// The database is lost to this process, which has to end.
    lost: Option<StoreError>,
    /// Rows that the database has counted up to the last COMMIT or undo.
    rows_changed: u64,
    /// Nobody was registered when that was last read.
    may_be_empty: bool,
    /// Nobody registers and nobody joins a chat, until a command says otherwise.
    lockdown: bool,
}

/// What the server does by itself, in slices between turns.
struct Background {
    housekeeping: housekeeping::Housekeeping,
    indexing: indexing::Indexing,
    counting: unread::Counting,
    pushing: pushing::Pushing,
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
    presence: Presence,
    limits: RateLimits,
    passwords: Passwords,
    turn: Turn,
    streams: Streams,
    storage: Storage,
    background: Background,
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
            rows_changed: store.rows_changed(),
            may_be_empty: true,
            lockdown,
        };
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

    /// Whether nobody is registered: a browser is then shown how the first user is made.
    pub fn has_no_users(&mut self) -> bool {
        if self.storage.may_be_empty {
            self.storage.may_be_empty = !self.store.has_users().unwrap_or(true);
        }
        self.storage.may_be_empty
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
        self.streams.looked_bytes = 0;
        self.outbox.begin_turn();
        self.turn.begin();
        self.look_for_lock();
    }

    /// A connection whose frames may be read on.
    pub fn pop_resumed(&mut self) -> Option<ConnId> {
        self.streams.resumed.pop()
    }

    /// What made the file unusable, if anything did. Nothing may be sent any more.
    pub fn lost(&self) -> Option<&StoreError> {
        self.storage.lost.as_ref()
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
        if self.storage.lost.is_none() {
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
        let before = std::mem::replace(&mut self.storage.rows_changed, self.store.rows_changed());
        self.metrics.commit_rows.observe(self.storage.rows_changed.saturating_sub(before));
        if std::mem::take(&mut self.storage.is_failing) {
            log::info!("the data file can be written again");
            self.store.set_busy_timeout(true);
        }
    }

    /// Notes the error of a call that belongs to no request.
    fn note_failure<T>(&mut self, result: StoreResult<T>) {
        if let Err(error) = result {
            self.turn.failed.get_or_insert(error);
        }
    }

    /// Who asks, when a session is attached to the connection.
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

    /// The reason to give for a error; one of the store is noted on the way.
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
        if !std::mem::replace(&mut self.storage.is_failing, true) {
            log::error!("cannot write to the database, changes are declined: {error}");
            self.store.set_busy_timeout(false);
        }
    }

    /// The membership of the caller, from the file.
    fn require_member(&mut self, caller: Caller, chat: ChatId) -> Result<Member, HandlerError> {
        if self.presence.roster.membership(caller.user, chat).is_some()
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

    /// Tidies up, and stores the exact time: the last thing before a graceful end.
    ///
    /// # Errors
    /// As every write.
    pub fn finish(&mut self) -> StoreResult<()> {
        self.finish_indexing()?;
        self.finish_counting()?;
        self.finish_ledger()?;
        self.finish_pushing()?;
        self.store.set_clock_doubt(self.clock.doubt_ms())?;
        let now = self.clock.now();
        self.store.write_server_time(now)?;
        self.store.commit().map(drop)
    }
}
