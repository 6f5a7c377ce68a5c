//! Opening the file: is it ours, is it whole, is it of this version; pragmas; migrations; the lock
//! that keeps a second server away.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreResult;
use super::checkpoint::{self, Copier};

/// "vest": marks a SQLite file as vestnik's.
const APPLICATION_ID: i32 = 0x7665_7374;

/// The version of the tables in `schema.sql`.
pub const SCHEMA_VERSION: i32 = 2;

/// The oldest SQLite whose WAL is trusted: before it, a reset of the WAL could corrupt the file.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// The smallest SQLite file with anything in it: one page. SQLite itself takes a file of one byte
/// for an empty one.
const SQLITE_BYTES_MIN: u64 = 512;

/// What an empty file gets.
const SCHEMA: &str = include_str!("../../schema.sql");

/// What brings a file of version N + 1 (N is the index) to the next version. A new table goes into
/// `schema.sql` for new files and into a new entry here for old ones; a test compares the two.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize - 1] = [include_str!("migrations/2.sql")];

/// Compiled statements kept by text; more than there are texts.
const STATEMENT_CACHE: usize = 256;

/// Bytes of pages that SQLite may keep in memory, as its pragma counts (negative: KiB).
const CACHE_KIB: i32 = -16_384;

/// Pages of the log at which a COMMIT brings them into the file. Half of SQLite's own number: nobody
/// is served meanwhile, which takes some 3 us a page and two syncs, and with half as many pages the
/// longest turns are half as long, while sends per second stay the same.
const CHECKPOINT_PAGES: i32 = 500;

/// How long the server waits for a command that holds the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// An open data file. The server's holds the lock as long as it lives.
#[derive(Debug)]
pub struct Database {
    // Fields drop in this order: SQLite closes the file before the lock goes.
    db: Connection,
    _lock: Option<File>,
    checkpoints: Arc<checkpoint::Shared>,
    thread: Option<checkpoint::Thread>,
}

/// Who opens the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The server: alone, and never waiting for another process for longer than a moment.
    Server,
    /// A command beside it: waits for its turn to write.
    Command,
    /// A command that looks for damage itself, and so takes a file with some.
    Check,
}

impl Database {
    /// Opens the file for the server, and makes it when it is missing.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do: another server has it, it is not
    /// vestnik's, newer than this program, damaged, or cannot be read or made.
    pub fn open_server(path: &Path) -> Result<Self, String> {
        // What is not ours gets no lock file beside it either.
        if path.exists() {
            recognise(path, Role::Server)?;
        }
        create(path)?;
        let lock = lock(path, ".lock")?
            .ok_or_else(|| format!("{}: another vestnik serves this file", path.display()))?;
        let db = open(path, Role::Server)?;
        Ok(Self::of(db, Some(lock)))
    }

    /// Opens the file for a command, which may run beside a server. With `make`, a missing file
    /// is made.
    ///
    /// # Errors
    /// As [`Database::open_server`], and when the file is missing.
    pub fn open_command(path: &Path, make: bool) -> Result<Self, String> {
        if make {
            create(path)?;
        }
        Ok(Self::of(open(path, Role::Command)?, None))
    }

    /// Opens the file to look for damage: a file that others would refuse for it is taken.
    ///
    /// # Errors
    /// As [`Database::open_command`].
    pub fn open_check(path: &Path) -> Result<Self, String> {
        Ok(Self::of(open(path, Role::Check)?, None))
    }

    /// The version of SQLite that is compiled in.
    pub fn sqlite_version() -> &'static str {
        rusqlite::version()
    }

    /// A file in memory, for tests and benches.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, String> {
        let mut db = Connection::open_in_memory().map_err(|e| e.to_string())?;
        migrate(&mut db).map_err(|e| e.to_string())?;
        settings(&db, Role::Server).map_err(|e| e.to_string())?;
        Ok(Self::of(db, None))
    }

    /// A file on a VFS of the caller's own, opened as the server or a command would: for simulated
    /// disks.
    ///
    /// # Errors
    /// As [`Database::open_server`].
    pub fn open_with_vfs(path: &Path, vfs: &str, role: Role) -> Result<Self, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let db = Connection::open_with_flags_and_vfs(path, flags, vfs);
        let db = db.and_then(|mut db| {
            migrate(&mut db)?;
            settings(&db, role)?;
            Ok(db)
        });
        Ok(Self::of(db.map_err(|e| e.to_string())?, None))
    }

    fn of(db: Connection, lock: Option<File>) -> Self {
        Self { db, _lock: lock, checkpoints: Arc::default(), thread: None }
    }

    /// From now on a thread does most of the checkpoints, which a COMMIT does otherwise.
    ///
    /// # Errors
    /// When there is no room for one more thread, or SQLite cannot open the file again.
    pub fn start_copying(&mut self, path: &Path) -> Result<(), String> {
        let copier = self.copier(path, None)?;
        let thread = checkpoint::Thread::start(copier);
        self.thread = Some(thread.map_err(|e| format!("cannot start a thread: {e}"))?);
        Ok(())
    }

    /// What the thread would do, for a caller that does it itself: for simulated disks.
    ///
    /// # Errors
    /// When SQLite cannot open the file again.
    pub fn copier(&mut self, path: &Path, vfs: Option<&str>) -> Result<Copier, String> {
        let copier = Copier::open(&mut self.db, &self.checkpoints, path, vfs);
        copier.map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Ends the thread, if there is one, and waits for what it has begun.
    ///
    /// # Errors
    /// [`super::Fault::Lost`], and then the file has to be abandoned.
    pub fn stop_copying(&mut self) -> StoreResult<()> {
        if let Some(thread) = self.thread.take() {
            checkpoint::let_sleep(&mut self.db)?;
            thread.join();
        }
        self.checkpoints.still_known()
    }

    /// Leaves the file as it is, as a crash would, and keeps the lock until the process ends: what a
    /// failed sync has left in the WAL is for the next start to judge. Closing would take it away,
    /// and a power cut could bring it back after others had seen that it is not there.
    pub fn abandon(self) {
        std::mem::forget(self);
    }

    /// The connection; only the store speaks SQL to it.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.db
    }

    /// What is known of the checkpoints.
    pub(super) fn checkpoints(&self) -> &checkpoint::Shared {
        &self.checkpoints
    }

    /// Writes a consistent copy of the file to `target`, which must not exist. Until it is whole and
    /// on the disk it has another name, with `.partial` behind it, which one that was cut off keeps.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn copy_to(&self, target: &Path) -> Result<(), String> {
        let partial = &sibling_path(target, ".partial");
        let text = partial.to_str().ok_or("the name of the copy is not UTF-8")?;
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial);
        open.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => format!(
                "{text}: exists already: another backup writes it now, or one was cut off: then remove it"
            ),
            _ => format!("{text}: {e}"),
        })?;
        // An empty file is as good as none to VACUUM INTO, and has its mode already.
        let copied = self.db.execute("VACUUM INTO ?1", [text]).map_err(|e| e.to_string());
        let named =
            copied.and_then(|_| sync(partial)).and_then(|()| rename_noclobber(partial, target));
        named.inspect_err(|_| {
            let _ = std::fs::remove_file(partial);
        })
    }

    /// SQLite's own look at every page and index: a list of what is wrong.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub fn integrity(&self) -> Result<Vec<String>, String> {
        let explain = |e: rusqlite::Error| e.to_string();
        let mut statement = self.db.prepare("PRAGMA integrity_check").map_err(explain)?;
        let texts = statement.query_map([], |row| row.get(0)).map_err(explain)?;
        // It ends with an error that it meets; what it found until then is worth more.
        let found: Vec<String> = texts.map(|text| text.unwrap_or_else(explain)).collect();
        // What is wrong with pages comes as one text of many lines.
        let lines = found.iter().flat_map(|text| text.lines());
        let headings = |line: &str| line == "ok" || line.starts_with("***");
        Ok(lines.filter(|line| !headings(line)).map(str::to_owned).collect())
    }
}

impl Drop for Database {
    /// The thread's connection is closed before the other one, which as the last brings all of the
    /// log into the file, and takes it away. But not when it is not known what is on the disk.
    fn drop(&mut self) {
        if let Err(error) = self.stop_copying() {
            log::error!("{error}");
            let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = self.db.set_db_config(no_checkpoint, true) {
                log::error!("{error}");
            }
        }
    }
}

fn sync(path: &Path) -> Result<(), String> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| format!("{}: {e}", path.display()))
}

/// Gives a file another name in the same folder, unless that is taken.
fn rename_noclobber(file: &Path, name: &Path) -> Result<(), String> {
    if name.symlink_metadata().is_ok() {
        return Err(format!("{}: exists already", name.display()));
    }
    std::fs::rename(file, name).map_err(|e| format!("{}: {e}", name.display()))?;
    sync(match name.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    })
}

/// The name of a file that stands beside another one.
fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Takes a lock on the data file that ends with the process: a file of its own beside it, with this
/// at the end of its name. `None` when another process has it.
///
/// Closing any descriptor of the data file itself would drop SQLite's own locks on it.
///
/// # Errors
/// One line, when there is no data file or no such file can be made.
pub fn lock(data: &Path, suffix: &str) -> Result<Option<File>, String> {
    // By whatever link the file is reached, its lock is one.
    let real = data.canonicalize().map_err(|e| format!("{}: {e}", data.display()))?;
    let name = sibling_path(&real, suffix);
    let options =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = options.map_err(|e| format!("{}: {e}", name.display()))?;
    // One that root has made once must not keep out the user whose file it is.
    if let (Ok(made), Ok(owner)) = (file.metadata(), real.metadata())
        && made.uid() != owner.uid()
        && let Err(error) = fchown(&file, Some(owner.uid()), Some(owner.gid()))
    {
        log::debug!("{} stays with its owner: {error}", name.display());
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(format!("{}: {e}", name.display())),
    }
}

/// Makes an empty file that only its owner can read, unless there is one; SQLite gives its WAL and
/// shared memory the mode of the file.
fn create(path: &Path) -> Result<(), String> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn open(path: &Path, role: Role) -> Result<Connection, String> {
    let fail = |e| explain(path, &e);
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(format!("SQLite {} is too old to be trusted", rusqlite::version()));
    }
    recognise(path, role)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(fail)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    migrate(&mut db).map_err(fail)?;
    settings(&db, role).map_err(fail)?;
    Ok(db)
}

/// Refuses what is not an empty file or one of vestnik's. Looks through a connection that can only
/// read, so that a file that is refused stays as it was.
fn recognise(path: &Path, role: Role) -> Result<(), String> {
    let name = path.display();
    let metadata = path.metadata().map_err(|e| match e.kind() {
        ErrorKind::NotFound => format!("{name}: no such data file (name it with --data)"),
        _ => format!("{name}: {e}"),
    })?;
    if !metadata.is_file() {
        return Err(format!("{name}: this is no file"));
    }
    // Under each name there would be a lock and a WAL of their own.
    if metadata.nlink() > 1 {
        return Err(format!(
            "{name}: the file has another name (a hard link), and who opens it by that one ruins \
             it: remove one of the names"
        ));
    }
    let bytes = metadata.len();
    if (1..SQLITE_BYTES_MIN).contains(&bytes) {
        return Err(format!("{name}: this is not a vestnik data file"));
    }
    let damaged = |e| explain(path, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(damaged)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(damaged)?;
    let read = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(damaged);
    let application = read("PRAGMA application_id")?;
    let version = read("PRAGMA user_version")?;
    let tables = read("SELECT count(*) FROM sqlite_schema")?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(());
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(format!("{name}: this is not a vestnik data file"));
    }
    if version > i64::from(SCHEMA_VERSION) {
        return Err(format!("{name}: made by a newer vestnik (version {version}); use that one"));
    }
    if role == Role::Check { Ok(()) } else { look_for_damage(&db).map_err(damaged) }
}

/// Why a file cannot be opened, and what to do.
fn explain(path: &Path, error: &rusqlite::Error) -> String {
    let name = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => format!("{name}: this is not a vestnik data file"),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => format!(
            "{name}: {error}: this user may not read and write it, the files beside it, and its \
             folder; run the command as the user whose they are"
        ),
        Some(ErrorCode::DatabaseBusy) => {
            format!("{name}: another process has it for too long; try again: {error}")
        }
        _ => format!("{name}: cannot be read, restore it from a backup if it is damaged: {error}"),
    }
}

/// Looks at every page of a small file, and at the root of every tree of a large one, where more
/// would keep the server from starting at once; `vestnik check` looks at all of it.
fn look_for_damage(db: &Connection) -> rusqlite::Result<()> {
    const PAGES_CHECKED_MAX: i64 = 4096;
    let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages <= PAGES_CHECKED_MAX {
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(damage, Some(found)));
        }
        return Ok(());
    }
    // A virtual table has no tree of its own, and those of search cannot be read from end to end.
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '% VIRTUAL %'";
    let mut tables = db.prepare(sql)?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for table in names {
        db.prepare(&format!("SELECT 1 FROM \"{table}\" LIMIT 1"))?.exists([])?;
    }
    Ok(())
}

/// Brings the file to this version, whole or not at all.
fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have done it in the meantime.
    let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => transaction.execute_batch(SCHEMA)?,
        _ => {
            for step in MIGRATIONS.iter().skip(version as usize - 1) {
                transaction.execute_batch(step)?;
            }
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn settings(db: &Connection, role: Role) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // What is deleted is overwritten: deleted messages are to be gone from the file.
    db.pragma_update(None, "secure_delete", true)?;
    db.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // A statement keeps its plan whatever is bound to it: else one with a bound LIMIT would be
    // prepared again each time that it is used.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    match role {
        Role::Server => {
            db.pragma_update(None, "cache_size", CACHE_KIB)?;
            db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            // The loop must not sleep inside SQLite; a command holds the file for a moment only.
            db.busy_timeout(BUSY_TIMEOUT)?;
            // After a crash the WAL may hold a turn that only the system's cache knows of. Others
            // are about to be answered from it, so it is brought to the disk first.
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        }
        Role::Command | Role::Check => db.busy_timeout(Duration::from_secs(10)),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    fn schema(db: &Connection) -> Vec<(String, Option<String>)> {
        let mut rows =
            db.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").expect("a schema");
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .expect("rows")
    }

    #[test]
    fn statements_with_a_bound_limit_are_not_prepared_again() {
        let database = Database::in_memory().expect("memory");
        let sql = "SELECT chat_id FROM chats WHERE chat_id > ?1 ORDER BY chat_id LIMIT ?2";
        let mut select = database.connection().prepare(sql).expect("a statement");
        for limit in 1..5 {
            assert!(!select.exists((7, limit)).expect("an answer"));
        }
        assert_eq!(select.get_status(StatementStatus::RePrepare), 0);
    }

    /// Every table and index with its SQL, without comments and spaces: a migration writes the same
    /// columns in other lines.
    fn shape(db: &Connection) -> Vec<(String, String)> {
        let bare = |sql: &str| -> String {
            let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
            lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
        };
        let rows = schema(db).into_iter();
        rows.map(|(name, sql)| (name, bare(&sql.unwrap_or_default()))).collect()
    }

    #[test]
    fn migrations_lead_to_the_schema() {
        let fresh = Connection::open_in_memory().expect("memory");
        fresh.execute_batch(SCHEMA).expect("valid SQL");
        let mut old = Connection::open_in_memory().expect("memory");
        old.execute_batch(include_str!("migrations/1.sql")).expect("valid SQL");
        old.pragma_update(None, "user_version", 1).expect("a version");
        migrate(&mut old).expect("valid SQL");
        assert_eq!(shape(&fresh), shape(&old));
    }
}
