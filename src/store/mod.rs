//! The store: SQLite in WAL mode with `synchronous=FULL`, and the only module with SQL.
//!
//! All reads and writes of a turn share one transaction, begun by the first of them and ended by
//! [`Store::commit`]: one fsync per turn that wrote (group commit). It does not know permissions,
//! sockets or clocks.

pub mod changes;
pub mod chats;
pub mod check;
pub mod checkpoint;
pub mod checksum;
mod copy;
mod error;
pub mod extras;
pub mod files;
pub mod hooks;
mod identity;
mod integrity;
pub mod invites;
pub mod ledger;
pub mod members;
pub mod messages;
mod migrations;
pub mod open;
mod paths;
pub mod purges;
pub mod pushes;
mod reserve;
pub mod reset_codes;
pub mod search;
pub mod sessions;
pub mod subscriptions;
pub mod sweep;
pub mod transfer;
pub mod unread;
pub mod users;
pub mod vacancies;
pub mod verify;

pub use copy::Copying;
pub use error::{Cause, Fault, RUN_CHECK, StoreError, describe_io};
pub use identity::{FileId, LookUp};
pub use integrity::header_damage;
pub use open::Database;

use rusqlite::{Connection, OptionalExtension, Params, Row, Statement};

use crate::ids::ServerTime;

/// The result of a call of the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// Microseconds of server time reserved by one write; after a crash, server time continues at most
/// this far ahead.
const TIME_LEASE_US: i64 = 1_000_000;

/// Free pages that a database keeps for later use: 4 MiB.
const FREE_PAGES_KEPT: u32 = 1_024;

/// The state of the turn's transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transaction {
    None,
    Read,
    Write,
}

/// The database, with the prepared statements of the hot path.
pub struct Store<'db> {
    db: &'db Connection,
    checkpoints: &'db checkpoint::Shared,
    identity: &'db identity::Identity,
    damage: &'db checksum::Damage,
    reserve: &'db reserve::Reserve,
    transaction: Transaction,
    begin_read: Statement<'db>,
    begin_write: Statement<'db>,
    commit: Statement<'db>,
    rollback: Statement<'db>,
    data_version: Statement<'db>,
    set_server_time: Statement<'db>,
    insert_message: Statement<'db>,
    forget_search: Statement<'db>,
    /// A transaction has failed, so the caches of the search index may be wrong.
    is_search_unsure: bool,
    /// Words removed from the index are only marked as deleted.
    is_light: bool,
    /// Messages removed from the index since the start.
    left_index: u64,
    /// Highest server time ever reserved in the database.
    time_reserved: ServerTime,
    /// The new value of `time_reserved` when the present transaction commits.
    time_reserving: ServerTime,
}

impl<'db> Store<'db> {
    /// A disk on which less is free stays full once it was.
    pub const FREE_BYTES_MIN: u64 = reserve::FREE_BYTES_MIN;

    /// Prepares the statements on an open database.
    ///
    /// # Errors
    /// When SQLite cannot prepare them: the database lacks the expected tables.
    pub fn new(database: &'db Database) -> StoreResult<Self> {
        let db = database.connection();
        let mut store = Self {
            db,
            checkpoints: database.checkpoints(),
            identity: database.identity(),
            damage: database.damage(),
            reserve: database.reserve(),
            transaction: Transaction::None,
            begin_read: db.prepare("BEGIN")?,
            begin_write: db.prepare("BEGIN IMMEDIATE")?,
            commit: db.prepare("COMMIT")?,
            rollback: db.prepare("ROLLBACK")?,
            data_version: db.prepare("PRAGMA data_version")?,
            set_server_time: db.prepare("UPDATE meta SET value = ?1 WHERE key = 'server_time'")?,
            insert_message: db.prepare(messages::INSERT)?,
            forget_search: db.prepare(search::FORGET)?,
            is_search_unsure: false,
            is_light: false,
            left_index: 0,
            time_reserved: ServerTime::ZERO,
            time_reserving: ServerTime::ZERO,
        };
        store.time_reserved = store.server_time()?;
        store.time_reserving = store.time_reserved;
        Ok(store)
    }

    /// The highest server time reserved in the database; no time up to it is ever given again.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn server_time(&mut self) -> StoreResult<ServerTime> {
        let micros: Option<i64> =
            self.get("SELECT value FROM meta WHERE key = 'server_time'", [], |row| row.get(0))?;
        Ok(micros.and_then(ServerTime::new).unwrap_or_default())
    }

    /// Makes sure that this turn's COMMIT stores that `time` was given. Reserves ahead, so most
    /// turns write nothing for it.
    ///
    /// # Errors
    /// As every write.
    pub fn reserve_time(&mut self, time: ServerTime) -> StoreResult<()> {
        if time > self.time_reserving {
            let ahead = time.micros().saturating_add(TIME_LEASE_US);
            let ahead = ServerTime::new(ahead).unwrap_or(ServerTime::MAX);
            self.settle_server_time(ahead)?;
        }
        Ok(())
    }

    /// Stores `time` as the highest one given, for a graceful shutdown; unless another process has
    /// stored times beyond those that this one reserved.
    ///
    /// # Errors
    /// As every write.
    pub fn settle_server_time(&mut self, time: ServerTime) -> StoreResult<()> {
        self.begin_write()?;
        let stored = self.server_time()?;
        if stored > self.time_reserving && stored > time {
            // It stays the other's, so that a later call keeps it as well.
            self.time_reserving = time;
            return Ok(());
        }
        self.write_server_time(time)
    }

    /// Stores exactly `time` as the highest one given.
    ///
    /// # Errors
    /// As every write.
    pub fn write_server_time(&mut self, time: ServerTime) -> StoreResult<()> {
        self.begin_write()?;
        self.set_server_time.execute([time.micros()]).map_err(|e| error::explain(self.db, e))?;
        self.time_reserving = time;
        Ok(())
    }

    /// Begins the turn's write transaction, unless it has begun. A read transaction is ended first,
    /// since it cannot be upgraded after another process has written.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when another process holds the file.
    pub fn begin_write(&mut self) -> StoreResult<()> {
        match self.transaction {
            Transaction::Write => return self.still_open(),
            Transaction::Read => self.end_read()?,
            Transaction::None => {}
        }
        if self.is_search_unsure {
            self.forget_search()?;
        }
        self.begin_write.raw_execute().map_err(|e| error::explain(self.db, e))?;
        self.transaction = Transaction::Write;
        Ok(())
    }

    /// A small write without effect, to find out whether the database can be written.
    ///
    /// # Errors
    /// When it cannot.
    pub fn try_write(&mut self) -> StoreResult<()> {
        self.begin_write()?;
        self.run("UPDATE meta SET value = value WHERE key = 'server_time'", []).map(drop)
    }

    /// Makes the search index drop its in-memory state. If a read fails while FTS5 looks up its
    /// totals, it ends the transaction, then takes the totals as zero, and would store them with
    /// its next change. From then on it would refuse to remove words, as from a damaged index. It
    /// drops the state at the end of a transaction in which it took part, even without changes.
    fn forget_search(&mut self) -> StoreResult<()> {
        let took_part =
            self.begin_write.raw_execute().and_then(|_| self.forget_search.raw_execute());
        if !self.db.is_autocommit() {
            self.rollback.raw_execute().map_err(|e| error::explain(self.db, e))?;
        }
        took_part.map_err(|e| error::explain(self.db, e))?;
        self.is_search_unsure = false;
        Ok(())
    }

    /// The state must also be dropped before the index is read: reading its terms makes it write
    /// its in-memory state.
    fn begin_search(&mut self) -> StoreResult<()> {
        if self.is_search_unsure && self.transaction != Transaction::Write {
            if self.transaction == Transaction::Read {
                self.end_read()?;
            }
            self.forget_search()?;
        }
        self.begin_read()
    }

    fn begin_read(&mut self) -> StoreResult<()> {
        if self.transaction != Transaction::None {
            return self.still_open();
        }
        self.begin_read.raw_execute().map_err(|e| error::explain(self.db, e))?;
        self.transaction = Transaction::Read;
        Ok(())
    }

    fn end_read(&mut self) -> StoreResult<()> {
        self.transaction = Transaction::None;
        self.commit.raw_execute().map_err(|e| error::explain(self.db, e))?;
        Ok(())
    }

    /// Ends a read transaction; a write transaction is not ended here.
    pub(super) fn end_look(&mut self) -> StoreResult<()> {
        if self.transaction == Transaction::Read { self.end_read() } else { Ok(()) }
    }

    /// SQLite ends a whole transaction by itself on a full disk and similar errors. Later
    /// statements would each commit on their own, so none may follow until the turn is undone.
    fn still_open(&self) -> StoreResult<()> {
        if self.db.is_autocommit() {
            return Err(StoreError::unavailable("the turn's transaction has ended early"));
        }
        Ok(())
    }

    /// Whether this turn has written.
    pub fn has_written(&self) -> bool {
        self.transaction == Transaction::Write
    }

    /// Rows changed since the start, including those of undone transactions.
    pub fn rows_changed(&self) -> u64 {
        self.db.total_changes()
    }

    /// Ends the turn's transaction. If it wrote, everything is on disk afterwards. True when it
    /// wrote.
    ///
    /// # Errors
    /// [`Fault::Unavailable`]: nothing of the turn is in the file. [`Fault::Lost`]: nobody knows.
    pub fn commit(&mut self) -> StoreResult<bool> {
        let wrote = match self.transaction {
            Transaction::None => return Ok(false),
            Transaction::Read => false,
            Transaction::Write => true,
        };
        let ready = self.still_open().and_then(|()| self.checkpoints.still_known());
        let ready = ready.and_then(|()| if wrote { self.still_same() } else { Ok(()) });
        if let Err(error) = ready {
            self.roll_back();
            return Err(error);
        }
        let committed = self.commit.raw_execute();
        if let Err(error) = committed {
            let error = error::explain(self.db, error);
            self.roll_back();
            return Err(error);
        }
        self.transaction = Transaction::None;
        self.time_reserved = self.time_reserving;
        Ok(wrote)
    }

    /// Rolls back whatever is left of the turn's transaction.
    pub fn roll_back(&mut self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.rollback.raw_execute()
        {
            log::error!("cannot roll back: {error}");
        }
        self.transaction = Transaction::None;
        self.time_reserving = self.time_reserved;
        self.is_search_unsure = true;
        self.is_light = false;
    }

    /// Checks that the database and its WAL are still the files at their paths.
    ///
    /// # Errors
    /// [`Fault::Lost`] when they are not: nothing may be written any more.
    pub fn still_same(&self) -> StoreResult<()> {
        self.identity.still_same()
    }

    /// Number of damaged messages read since the start, and the chat and id of the last.
    pub fn damage_met(&self) -> (u64, i64, i64) {
        self.damage.met()
    }

    /// Number of damaged chunks of files read since the start, and the file of the last.
    pub fn damaged_files_met(&self) -> (u64, i64) {
        self.damage.files_met()
    }

    /// Deletes the reserve file. True if there was one: from now on, only requests that free space
    /// or block a user should write.
    ///
    /// Checkpoints are paused first, since they would fill the space at once. While one is in
    /// progress the reserve stays, for the next call.
    pub fn give_up_reserve(&self) -> bool {
        self.checkpoints.pause(true);
        !self.checkpoints.is_working() && self.reserve.give_up()
    }

    /// The same, but only if the disk is full.
    pub fn give_up_reserve_when_full(&self) -> bool {
        self.reserve.is_disk_full() && self.give_up_reserve()
    }

    /// Creates the reserve file again if there is space. False while the disk is still full; then
    /// checkpoints are paused as long as they would leave too little of the reserve.
    pub fn hold_reserve(&self) -> bool {
        let has_space = self.reserve.hold();
        self.checkpoints.pause(!has_space && reserve::is_checkpoint_too_large(self.db));
        has_space
    }

    /// Whether a checkpoint should be run now, while there is space for it: when it makes the
    /// database larger, and the disk is nearly full.
    pub fn is_checkpoint_urgent(&self) -> bool {
        !self.checkpoints.is_external() && reserve::is_checkpoint_urgent(self.db)
    }

    /// On a full disk: whether background work should leave the space to requests, because what it
    /// writes to the WAL cannot be checkpointed, and half the reserve is used.
    pub fn is_reserve_short(&self) -> bool {
        self.checkpoints.is_paused() && self.reserve.is_half_used()
    }

    /// Whether checkpoints are paused, because they would fill the disk.
    pub fn are_checkpoints_paused(&self) -> bool {
        self.checkpoints.is_paused()
    }

    /// Whether the reserve was given up and the disk is still full.
    pub fn is_reserve_given_up(&self) -> bool {
        self.reserve.is_given_up()
    }

    /// Whether no other process is writing. Do not call it within a transaction.
    pub fn is_lock_free(&mut self) -> bool {
        let begun = self.begin_write.raw_execute();
        begun.and_then(|_| self.rollback.raw_execute()).is_ok()
    }

    /// Sets whether the server waits briefly for another process that holds the lock, or fails at
    /// once: after one wait failed, others would only delay every turn.
    pub fn set_busy_timeout(&self, waits: bool) {
        let wait = if waits { open::BUSY_TIMEOUT } else { std::time::Duration::ZERO };
        if let Err(error) = self.db.busy_timeout(wait) {
            log::warn!("cannot set how long to wait for the data file: {error}");
        }
    }

    /// Sets how many KiB SQLite's page cache may take. What it holds beyond them is freed.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn set_page_cache(&self, kib: u32) -> StoreResult<()> {
        Ok(open::set_page_cache(self.db, kib)?)
    }

    /// Whether nobody may register or join a chat.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn lockdown(&mut self) -> StoreResult<bool> {
        Ok(self.meta("lockdown")?.is_some_and(|value| value != 0))
    }

    /// Turns the lockdown on or off: nobody may register or join a chat.
    ///
    /// # Errors
    /// As every write.
    pub fn set_lockdown(&mut self, is_on: bool) -> StoreResult<()> {
        self.set_meta("lockdown", i64::from(is_on))
    }

    /// Milliseconds for which the clock is doubted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn clock_doubt(&mut self) -> StoreResult<u64> {
        Ok(self.meta("clock_doubt_ms")?.map_or(0, i64::unsigned_abs))
    }

    /// Stores for how many milliseconds the clock is doubted; 0: it is trusted.
    ///
    /// # Errors
    /// As every write.
    pub fn set_clock_doubt(&mut self, doubt_ms: u64) -> StoreResult<()> {
        self.set_meta("clock_doubt_ms", i64::try_from(doubt_ms).unwrap_or(i64::MAX))
    }

    /// Microseconds by which the machine's clock is ahead of the time that the running server
    /// believes; 0: it believes the clock.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn clock_jump(&mut self) -> StoreResult<i64> {
        Ok(self.meta("clock_jump_us")?.unwrap_or(0))
    }

    /// Stores by how many microseconds the machine's clock is ahead; negative: behind.
    ///
    /// # Errors
    /// As every write.
    pub fn set_clock_jump(&mut self, ahead_us: i64) -> StoreResult<()> {
        self.set_meta("clock_jump_us", ahead_us)
    }

    /// The wall clock when it was last confirmed or trusted at a graceful shutdown. Server time may
    /// be far ahead of it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn clock_trusted(&mut self) -> StoreResult<ServerTime> {
        Ok(self.meta("clock_trusted_us")?.and_then(ServerTime::new).unwrap_or_default())
    }

    /// Stores that the wall clock is right at this reading.
    ///
    /// # Errors
    /// As every write.
    pub fn set_clock_trusted(&mut self, wall: ServerTime) -> StoreResult<()> {
        self.set_meta("clock_trusted_us", wall.micros())
    }

    /// A setting of the whole database.
    fn meta(&mut self, key: &str) -> StoreResult<Option<i64>> {
        self.get("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
    }

    fn set_meta(&mut self, key: &str, value: i64) -> StoreResult<()> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2)
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.run(sql, (key, value)).map(drop)
    }

    /// A number that changes when another process has committed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn data_version(&mut self) -> StoreResult<i64> {
        let db = self.db;
        self.data_version.query_row([], |row| row.get(0)).map_err(|e| error::explain(db, e))
    }

    /// Checkpoints the WAL and truncates it, so that it contains no deleted or replaced content.
    /// False when another process reads or writes; it does not wait. Where another program
    /// checkpoints the WAL, that is left to it. Do not call it within a transaction.
    ///
    /// # Errors
    /// When a write or sync fails.
    pub fn truncate_wal(&mut self) -> StoreResult<bool> {
        self.checkpoints.still_known()?;
        if self.checkpoints.is_external() {
            return Ok(true);
        }
        if self.checkpoints.is_paused() {
            return Ok(false);
        }
        self.set_busy_timeout(false);
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy = self.db.query_row(sql, [], |row| row.get::<_, bool>(0));
        self.set_busy_timeout(true);
        match is_busy {
            Ok(is_busy) => Ok(!is_busy),
            Err(e) => match error::explain(self.db, e) {
                held if held.fault == Fault::Unavailable => Ok(false),
                lost => Err(lost),
            },
        }
    }

    /// Returns up to `pages` free pages to the disk, after moving pages from the end into free
    /// ones. A database of an older version keeps its pages. True when there are more than should
    /// be kept.
    ///
    /// # Errors
    /// As every write.
    pub fn shrink(&mut self, pages: u32) -> StoreResult<bool> {
        let mode = self.get("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0))?;
        let is_incremental = mode == Some(migrations::INCREMENTAL);
        let free = self.get("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0))?;
        let free = free.unwrap_or_default();
        let Some(surplus) = free.checked_sub(FREE_PAGES_KEPT).filter(|_| is_incremental) else {
            return Ok(false);
        };
        if surplus == 0 {
            return Ok(false);
        }
        self.begin_write()?;
        let pages = pages.min(surplus);
        // Each step of the statement frees one page.
        self.each(&format!("PRAGMA incremental_vacuum({pages})"), [], |_| Ok(true))?;
        Ok(surplus > pages)
    }

    /// Whether the checkpointer is running, so that the WAL cannot be truncated.
    pub fn is_checkpointing(&self) -> bool {
        self.checkpoints.is_working()
    }

    /// Checkpoints since the start.
    pub fn checkpoints(&self) -> checkpoint::Checkpoints {
        self.checkpoints.counts()
    }

    /// One row, if any.
    fn get<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> StoreResult<Option<T>> {
        self.begin_read()?;
        let mut statement = self.db.prepare_cached(sql)?;
        let row = statement.query_row(params, map).optional();
        row.map_err(|e| error::explain(self.db, e))
    }

    /// Passes every row to `each` until it returns false.
    fn each(
        &mut self,
        sql: &str,
        params: impl Params,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
    ) -> StoreResult<()> {
        self.begin_read()?;
        let mut statement = self.db.prepare_cached(sql)?;
        let walk = |statement: &mut Statement<'_>| -> rusqlite::Result<()> {
            let mut rows = statement.query(params)?;
            while let Some(row) = rows.next()? {
                if !each(row)? {
                    break;
                }
            }
            Ok(())
        };
        walk(&mut statement).map_err(|e| error::explain(self.db, e))
    }

    /// All rows, as a list.
    fn all<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        mut map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> StoreResult<Vec<T>> {
        let mut rows = Vec::new();
        self.each(sql, params, |row| {
            rows.push(map(row)?);
            Ok(true)
        })?;
        Ok(rows)
    }

    /// Changes rows. Returns their number.
    fn run(&mut self, sql: &str, params: impl Params) -> StoreResult<usize> {
        self.begin_write()?;
        let mut statement = self.db.prepare_cached(sql)?;
        statement.execute(params).map_err(|e| error::explain(self.db, e))
    }

    /// Inserts a row of a table with an AUTOINCREMENT key. Returns the key.
    fn insert(&mut self, sql: &str, params: impl Params) -> StoreResult<i64> {
        self.run(sql, params)?;
        Ok(self.db.last_insert_rowid())
    }
}

/// An id from a row; a number that is not a valid id is damage.
fn id<T>(make: impl FnOnce(i64) -> Option<T>, column: usize, raw: i64) -> rusqlite::Result<T> {
    make(raw).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, raw))
}

/// A time from a row.
fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<ServerTime> {
    let micros = row.get(column)?;
    ServerTime::new(micros).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, micros))
}

/// A number of bytes from a row.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(column)?;
    u64::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, count))
}
