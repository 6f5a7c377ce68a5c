//! The data file: SQLite in WAL mode with `synchronous=FULL`, and the only place with SQL.
//!
//! Reads and writes of one turn of the loop share one transaction, begun by the first of them and
//! ended by [`Store::commit`]: one fsync per turn that wrote. Who asks, and whether it may, is not
//! known here; nor are sockets and the clock.

pub mod changes;
pub mod chats;
pub mod check;
pub mod checkpoint;
pub mod checksum;
mod error;
pub mod extras;
pub mod files;
pub mod hooks;
mod identity;
pub mod invites;
pub mod ledger;
pub mod members;
pub mod messages;
pub mod open;
mod paths;
pub mod purges;
pub mod pushes;
mod reserve;
pub mod reset_codes;
pub mod search;
pub mod sessions;
pub mod subscriptions;
pub mod transfer;
pub mod unread;
pub mod users;
pub mod vacancies;
pub mod verify;

pub use error::{Cause, Fault, StoreError, describe_io};
pub use identity::{FileId, LookUp};
pub use open::{Copying, Database};

use rusqlite::{Connection, OptionalExtension, Params, Row, Statement};

use crate::ids::ServerTime;

/// What a call on the store gives.
pub type StoreResult<T> = Result<T, StoreError>;

/// Microseconds of server time that one write of the high-water mark covers; a restart after a
/// crash goes on at most this far ahead.
const TIME_LEASE_US: i64 = 1_000_000;

/// Free pages that a database keeps: 4 MiB, for what comes next.
const FREE_PAGES_KEPT: u32 = 1_024;

/// What of the turn's transaction has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transaction {
    None,
    Read,
    Write,
}

/// The file, with the statements of the hot path held ready.
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
    /// A transaction has failed, and the index may remember what it should not.
    is_search_unsure: bool,
    /// Words that leave the index are only marked as gone.
    is_light: bool,
    /// Messages that have left the index.
    left_index: u64,
    /// Highest server time ever promised to the file.
    time_reserved: ServerTime,
    /// What `time_reserved` becomes when the transaction under way commits.
    time_reserving: ServerTime,
}

impl<'db> Store<'db> {
    /// Prepares the statements on an open file.
    ///
    /// # Errors
    /// When SQLite cannot prepare them: the file does not have the tables it should.
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

    /// The highest server time that the file has promised never to give again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn server_time(&mut self) -> StoreResult<ServerTime> {
        let micros: Option<i64> =
            self.get("SELECT value FROM meta WHERE key = 'server_time'", [], |row| row.get(0))?;
        Ok(micros.and_then(ServerTime::new).unwrap_or_default())
    }

    /// Makes sure that the file will know, once this turn is committed, that `time` was given.
    /// Reserves ahead, so that most turns write nothing for it.
    ///
    /// # Errors
    /// As every write.
    pub fn reserve_time(&mut self, time: ServerTime) -> StoreResult<()> {
        if time > self.time_reserving {
            let ahead = time.micros().saturating_add(TIME_LEASE_US);
            self.write_server_time(ServerTime::new(ahead).unwrap_or(ServerTime::MAX))?;
        }
        Ok(())
    }

    /// Writes exactly `time` as the highest ever given: for a graceful end.
    ///
    /// # Errors
    /// As every write.
    pub fn write_server_time(&mut self, time: ServerTime) -> StoreResult<()> {
        self.begin_write()?;
        self.set_server_time.execute([time.micros()]).map_err(|e| error::explain(self.db, e))?;
        self.time_reserving = time;
        Ok(())
    }

    /// Begins the turn's transaction for writing, unless it has. A transaction that only read is
    /// ended first: it cannot be upgraded once somebody else has written.
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

    /// A small write that changes nothing, to find out whether the database can be written.
    ///
    /// # Errors
    /// When it cannot.
    pub fn try_write(&mut self) -> StoreResult<()> {
        self.begin_write()?;
        self.run("UPDATE meta SET value = value WHERE key = 'server_time'", []).map(drop)
    }

    /// Makes the index forget what it keeps in memory. A read that fails while it looks for its
    /// totals ends the transaction below it; it sees that, and only then takes the totals to be
    /// nothing, to write that into the file with its next change. From then on it would refuse to
    /// let words go, as those of a damaged file. It forgets at the end of a transaction in which it
    /// took part, even if it did nothing there.
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

    /// Before the index is read, too, it has to forget: reading its words makes it
    /// write what it keeps in memory.
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

    /// Ends a transaction that has only read; nothing else is to be ended.
    pub(super) fn end_look(&mut self) -> StoreResult<()> {
        if self.transaction == Transaction::Read { self.end_read() } else { Ok(()) }
    }

    /// SQLite ends a whole transaction by itself when a statement meets a full disk or the like.
    /// What would follow would commit on its own, so nothing may follow until the turn is undone.
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

    /// Rows changed since the start, those of undone transactions included.
    pub fn rows_changed(&self) -> u64 {
        self.db.total_changes()
    }

    /// Ends the turn's transaction; when it wrote, everything is on stable storage afterwards.
    /// True when it wrote.
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

    /// Undoes the turn's transaction, whatever is left of it.
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

    /// That the database and its WAL are still the files at their paths.
    ///
    /// # Errors
    /// [`Fault::Lost`] when they are not: nothing may be written any more.
    pub fn still_same(&self) -> StoreResult<()> {
        self.identity.still_same()
    }

    /// How many damaged messages were met since the start, the chat and the id of the last.
    pub fn damage_met(&self) -> (u64, i64, i64) {
        self.damage.met()
    }

    /// How many damaged chunks of files were met since the start, and the file of the last.
    pub fn damaged_files_met(&self) -> (u64, i64) {
        self.damage.files_met()
    }

    /// Frees the space that is kept for a full disk. True when there was any: from now on only what
    /// frees space or keeps somebody out should write.
    pub fn give_up_reserve(&self) -> bool {
        self.reserve.give_up()
    }

    /// The same, but only when the disk has no space left.
    pub fn give_up_reserve_when_full(&self) -> bool {
        self.reserve.give_up_when_full()
    }

    /// Takes that space again, where there is enough. True unless the disk is still full.
    pub fn hold_reserve(&self) -> bool {
        self.reserve.hold()
    }

    /// Whether that space was given up and the disk is still full.
    pub fn is_reserve_given_up(&self) -> bool {
        self.reserve.is_given_up()
    }

    /// Whether no other process is writing. Not within a transaction.
    pub fn is_lock_free(&mut self) -> bool {
        let begun = self.begin_write.raw_execute();
        begun.and_then(|_| self.rollback.raw_execute()).is_ok()
    }

    /// Whether the server waits a moment for another process that holds the file, or fails at once:
    /// once a wait was in vain, it would only stall every turn.
    pub fn set_busy_timeout(&self, waits: bool) {
        let wait = if waits { open::BUSY_TIMEOUT } else { std::time::Duration::ZERO };
        if let Err(error) = self.db.busy_timeout(wait) {
            log::warn!("cannot set how long to wait for the data file: {error}");
        }
    }

    /// Whether nobody may register or join a chat.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lockdown(&mut self) -> StoreResult<bool> {
        Ok(self.meta("lockdown")?.is_some_and(|value| value != 0))
    }

    /// Lets nobody register or join a chat, or everybody again.
    ///
    /// # Errors
    /// As every write.
    pub fn set_lockdown(&mut self, is_on: bool) -> StoreResult<()> {
        self.set_meta("lockdown", i64::from(is_on))
    }

    /// How long the clock is not to be believed, in milliseconds.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn clock_doubt(&mut self) -> StoreResult<u64> {
        Ok(self.meta("clock_doubt_ms")?.map_or(0, i64::unsigned_abs))
    }

    /// Notes how long the clock is not to be believed; 0: it is.
    ///
    /// # Errors
    /// As every write.
    pub fn set_clock_doubt(&mut self, doubt_ms: u64) -> StoreResult<()> {
        self.set_meta("clock_doubt_ms", i64::try_from(doubt_ms).unwrap_or(i64::MAX))
    }

    /// A number that belongs to the file as a whole.
    fn meta(&mut self, key: &str) -> StoreResult<Option<i64>> {
        self.get("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
    }

    fn set_meta(&mut self, key: &str, value: i64) -> StoreResult<()> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2)
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.run(sql, (key, value)).map(drop)
    }

    /// A number that changes when another process has committed to the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn data_version(&mut self) -> StoreResult<i64> {
        let db = self.db;
        self.data_version.query_row([], |row| row.get(0)).map_err(|e| error::explain(db, e))
    }

    /// Copies the WAL into the file and empties it; nothing of what was deleted or replaced is left
    /// in it. False when another process reads or writes, for which nobody waits. Not within a
    /// transaction.
    ///
    /// # Errors
    /// When a write or sync fails.
    pub fn empty_wal(&mut self) -> StoreResult<bool> {
        self.checkpoints.still_known()?;
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

    /// Gives up to `pages` free pages of the database back to the disk; those at its end move into
    /// free ones before. A database of an older version keeps its pages. True when there are more
    /// than are kept for what comes next.
    ///
    /// # Errors
    /// As every write.
    pub fn shrink(&mut self, pages: u32) -> StoreResult<bool> {
        let mode = self.get("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0))?;
        let is_incremental = mode == Some(open::INCREMENTAL);
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

    /// Whether the thread for checkpoints is at work, and so the WAL cannot be emptied.
    pub fn is_copying(&self) -> bool {
        self.checkpoints.is_working()
    }

    /// Checkpoints since the start.
    pub fn checkpoints(&self) -> checkpoint::Checkpoints {
        self.checkpoints.counts()
    }

    /// One row, or none.
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

    /// Every row, through `each`, until it says stop by returning false.
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

    /// Every row, as a list.
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

    /// Changes rows, and says how many.
    fn run(&mut self, sql: &str, params: impl Params) -> StoreResult<usize> {
        self.begin_write()?;
        let mut statement = self.db.prepare_cached(sql)?;
        statement.execute(params).map_err(|e| error::explain(self.db, e))
    }

    /// Inserts a row of a table with an AUTOINCREMENT key, and gives the key.
    fn insert(&mut self, sql: &str, params: impl Params) -> StoreResult<i64> {
        self.run(sql, params)?;
        Ok(self.db.last_insert_rowid())
    }
}

/// An id out of a row; a number that no id can be is damage.
fn id<T>(make: impl FnOnce(i64) -> Option<T>, column: usize, raw: i64) -> rusqlite::Result<T> {
    make(raw).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, raw))
}

/// A time out of a row.
fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<ServerTime> {
    let micros = row.get(column)?;
    ServerTime::new(micros).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, micros))
}

/// A number of bytes out of a row.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(column)?;
    u64::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, count))
}
