//! Opening the database: the server's lock, checks of format and version, and pragmas.

use std::ffi::c_int;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::StoreResult;
use super::checkpoint::{self, Checkpointer};
use super::checksum::Damage;
use super::copy::{self, Copying};
use super::error::{self, Cause, describe_path};
use super::identity::{self, Identity};
use super::integrity::{self, look_for_damage, verify};
use super::migrations::{APPLICATION_ID, SCHEMA_VERSION, migrate, refresh_skeletons};
use super::paths::{self, sibling_path};
use super::reserve::{self, Reserve};

pub use super::paths::lock;

/// The oldest SQLite version that is accepted: before it, a WAL reset bug could corrupt the
/// database.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// The smallest non-empty SQLite file: one page. SQLite itself takes a file of one byte for an
/// empty one.
const SQLITE_BYTES_MIN: u64 = 512;

/// Capacity of the cache of prepared statements; larger than the number of statements.
const STATEMENT_CACHE: usize = 256;

/// SQLite's page cache in KiB: while users make many requests,
pub const PAGE_CACHE_KIB_MAX: u32 = 16_384;
/// and otherwise.
pub const PAGE_CACHE_KIB_MIN: u32 = 256;

/// Pages of the WAL at which a COMMIT checkpoints, if there is no checkpointer thread. Half of
/// SQLite's default: the loop serves nobody meanwhile (about 3 us per page and two syncs), so the
/// longest turns are half as long at the same throughput.
const CHECKPOINT_PAGES: i32 = 500;

/// How long the server waits inside SQLite for another process that is writing. Requests wait
/// longer, but outside of SQLite.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_millis(2);

/// An open database. The server's holds the lock as long as it exists.
#[derive(Debug)]
pub struct Database {
    // Fields are dropped in this order: SQLite must close the database before the lock is released.
    db: Connection,
    lock: Option<File>,
    /// The path, without links.
    path: PathBuf,
    identity: Identity,
    reserve: Reserve,
    damage: Damage,
    checkpoints: Arc<checkpoint::Shared>,
    thread: Option<checkpoint::Thread>,
}

/// The reason why a command cannot open a database: one line with what is wrong and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// It is missing, damaged, not vestnik's, or cannot be read or created.
    Failed(String),
    /// A running server has other files open than those at the paths.
    Replaced(String),
}

impl From<String> for OpenError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Replaced(message) => f.write_str(message),
        }
    }
}

/// The role of a process that opens the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The server: exclusive, and never waits more than a moment for another process.
    Server,
    /// The server, where another program checkpoints the WAL: it leaves that to it even at the
    /// start and at the end.
    ReplicatedServer,
    /// A command that may write while the server runs: waits for the write lock.
    Command,
    /// A command that only reads, even from a read-only file system. It changes nothing, and
    /// accepts a damaged database.
    Reader,
}

impl Database {
    /// Opens the database for the server, and creates it if it is missing. If it exists and the
    /// disk is full, nothing is written.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do: another server has it, it is not
    /// vestnik's, newer than this program, damaged, or cannot be read or made.
    pub fn open_server(path: &Path) -> Result<Self, String> {
        Self::open_as(path, Role::Server)
    }

    /// Opens the database for a server that never checkpoints the WAL, since another program does
    /// (Litestream copies the WAL, and must see all of it).
    ///
    /// # Errors
    /// As [`Database::open_server`].
    pub fn open_replicated_server(path: &Path) -> Result<Self, String> {
        Self::open_as(path, Role::ReplicatedServer)
    }

    fn open_as(path: &Path, role: Role) -> Result<Self, String> {
        let is_there = path.exists();
        if is_there {
            // SQLite needs some free space even to read.
            reserve_of(path)?.give_up_when_full();
            // A file that is not ours gets no lock file next to it.
            check_header(path, role)?;
        } else if path.is_symlink() {
            paths::real(path).map_err(|e| cannot_open(path, &e))?;
        }
        create_missing(path)?;
        let lock = lock_for_server(path)?;
        let mut database = open(path, role)?;
        let real = database.path.clone();
        database.identity.record(&lock, role == Role::ReplicatedServer);
        database.identity.watch_open(&sibling_path(&real, ".lock"), &lock);
        database.lock = Some(lock);
        database.reserve = Reserve::of(&real);
        database.reserve.hold();
        Ok(database)
    }

    /// Opens the database for a command, which may run alongside the server. `make`: creates it if
    /// it is missing.
    ///
    /// # Errors
    /// As [`Database::open_server`], and when it is missing. An empty one is refused, too: it was
    /// truncated, and a command must not make a new server of it.
    pub fn open_command(path: &Path, make: bool) -> Result<Self, OpenError> {
        if make {
            create_missing(path)?;
        }
        let real = paths::real(path).map_err(|e| cannot_open(path, &e))?;
        if let Ok(lock) = paths::open_existing(&sibling_path(&real, ".lock"))
            && lock.try_lock_shared().is_err()
        {
            identity::compare_with_server(&lock, &real).map_err(OpenError::Replaced)?;
        }
        Ok(open(path, Role::Command)?)
    }

    /// Opens the database for a command that only reads, even if it is damaged or on a read-only
    /// file system.
    ///
    /// # Errors
    /// As [`Database::open_command`].
    pub fn open_reader(path: &Path) -> Result<Self, String> {
        open(path, Role::Reader)
    }

    /// Opens the database for a command that only reads rows: as [`Database::open_command`] or, if
    /// this process cannot write or the disk is full, as [`Database::open_reader`].
    ///
    /// # Errors
    /// As those, and when it can only be read and an older version made it.
    pub fn open_to_look(path: &Path) -> Result<Self, OpenError> {
        let can_write = |path: &Path| access(path, Access::WRITE_OK).is_ok();
        let real = paths::real(path).map_err(|e| cannot_open(path, &e))?;
        let is_full = Reserve::of(&real).is_disk_full();
        if !is_full && can_write(&real) && real.parent().is_none_or(can_write) {
            return Self::open_command(path, false);
        }
        let database = Self::open_reader(path)?;
        if !database.is_current().map_err(|e| explain(path, Some(&database.db), &e))? {
            return Err(format!(
                "{}: made by an older vestnik: this one brings it to its version where it can \
                 write it",
                path.display()
            )
            .into());
        }
        Ok(database)
    }

    /// Whether the database has the schema of this version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_current(&self) -> rusqlite::Result<bool> {
        let version: i32 = self.db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok(version == SCHEMA_VERSION)
    }

    /// Deletes the reserve of a database when the disk is full, for a command whose change must
    /// succeed.
    pub fn give_up_reserve_when_full(path: &Path) {
        if let Ok(reserve) = reserve_of(path) {
            reserve.give_up_when_full();
        }
    }

    /// Makes each COMMIT of a command checkpoint the WAL when it is long, unless a server runs that
    /// leaves this to another program. For a command that writes much: the WAL would grow by
    /// everything it writes, so that the disk would have to hold it twice.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn checkpoint_often(&mut self) -> Result<(), String> {
        let lock_path = sibling_path(&self.path, ".lock");
        let hook = move |wal: &mut Wal, pages: c_int| {
            if pages >= CHECKPOINT_PAGES && !is_left_to_another(&lock_path) {
                // What cannot be checkpointed now stays in the WAL, where it is safe.
                let _ = wal.checkpoint();
            }
            Ok(())
        };
        let set = self.db.wal_hook(Some(hook));
        set.map_err(|e| explain(&self.path, Some(&self.db), &e))
    }

    /// The compiled-in version of SQLite.
    pub fn sqlite_version() -> &'static str {
        rusqlite::version()
    }

    /// Opens a database in memory, for tests and benches.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, String> {
        let mut db = Connection::open_in_memory().map_err(|e| error::message_of(&e))?;
        migrate(&mut db).map_err(|e| error::message_of(&e))?;
        settings(&db, Role::Server).map_err(|e| error::message_of(&e))?;
        Ok(Self::of(db, PathBuf::new(), Identity::default()))
    }

    /// Opens a database on a given VFS, as the server or a command would, for simulated disks. With
    /// `look_up`, moving or deleting it is noticed.
    ///
    /// # Errors
    /// As [`Database::open_server`].
    pub fn open_with_vfs(
        path: &Path,
        vfs: &str,
        role: Role,
        look_up: Option<identity::LookUp>,
    ) -> Result<Self, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let db = Connection::open_with_flags_and_vfs(path, flags, vfs);
        let db = db.and_then(|mut db| {
            migrate(&mut db)?;
            settings(&db, role)?;
            if role == Role::Server {
                checkpoint_at_start(&db)?;
            }
            Ok(db)
        });
        let db = db.map_err(|e| error::message_of(&e))?;
        let mut identity = look_up.map_or_else(Identity::default, Identity::new);
        identity.watch(path);
        identity.watch(&sibling_path(path, "-wal"));
        Ok(Self::of(db, path.to_owned(), identity))
    }

    pub(super) fn of(db: Connection, path: PathBuf, identity: Identity) -> Self {
        Self {
            db,
            lock: None,
            path,
            identity,
            reserve: Reserve::default(),
            damage: Damage::default(),
            checkpoints: Arc::default(),
            thread: None,
        }
    }

    /// Starts the checkpointer thread, which takes most checkpoints over from COMMIT; unless
    /// another program checkpoints the WAL.
    ///
    /// # Errors
    /// When there is no room for one more thread, or SQLite cannot open the file again.
    pub fn start_copying(&mut self) -> Result<(), String> {
        if self.checkpoints.is_external() {
            return Ok(());
        }
        let checkpointer = self.checkpointer(None)?;
        let thread = checkpoint::Thread::start(checkpointer);
        self.thread = Some(thread.map_err(|e| format!("cannot start a thread: {e}"))?);
        Ok(())
    }

    /// The checkpointer without its thread, for simulated disks.
    ///
    /// # Errors
    /// When SQLite cannot open the file again.
    pub fn checkpointer(&mut self, vfs: Option<&str>) -> Result<Checkpointer, String> {
        let checkpointer = Checkpointer::open(&mut self.db, &self.checkpoints, &self.path, vfs);
        checkpointer.map_err(|e| format!("{}: {e}", self.path.display()))
    }

    /// Ends the checkpointer thread, if there is one, after its present checkpoint.
    ///
    /// # Errors
    /// [`super::Fault::Lost`], and then the file has to be abandoned.
    pub fn stop_copying(&mut self) -> StoreResult<()> {
        if let Some(thread) = self.thread.take() {
            checkpoint::remove_hook(&mut self.db)?;
            thread.join();
        }
        self.checkpoints.still_known()
    }

    /// Leaves the database as a crash would, and keeps the lock until the process ends: the next
    /// start has to decide about what a failed sync left in the WAL. Closing would delete the WAL,
    /// and a power cut could restore it after others had seen that it was gone.
    pub fn abandon(self) {
        std::mem::forget(self);
    }

    /// The connection; only the store executes SQL on it.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.db
    }

    pub(super) const fn connection_mut(&mut self) -> &mut Connection {
        &mut self.db
    }

    /// The state of checkpoints.
    pub(super) fn checkpoints(&self) -> &checkpoint::Shared {
        &self.checkpoints
    }

    /// The path, without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) const fn damage(&self) -> &Damage {
        &self.damage
    }

    pub(super) const fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Writes a consistent copy of the database to `target`, which must not exist. The copy is
    /// named `.partial` until it is complete and synced; an interrupted one keeps that name.
    ///
    /// All pages are read at once and processed afterwards, because the WAL cannot be truncated
    /// while they are read.
    ///
    /// # Errors
    /// The error of SQLite; or damage, unless that is accepted.
    pub fn copy_to(&self, target: &Path, copying: Copying) -> Result<(), String> {
        let target = &paths::real_new(target).map_err(|e| describe_path(target, &e))?;
        copy::check_name(&self.path, target)?;
        let partial = &sibling_path(target, ".partial");
        let text = partial.to_str().ok_or("the name of the copy is not UTF-8")?;
        paths::create_private(partial).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => format!(
                "{text}: exists already: another backup is writing it, or was interrupted: then \
                 remove it"
            ),
            _ => describe_path(partial, &e),
        })?;
        let copied = copy::remove_leftovers(partial).and_then(|()| {
            let copied = copy::pages(&self.db, partial);
            let copied = copied.and_then(|()| copy::arrange(partial, copying));
            copied.map_err(|e| format!("cannot copy {} to {text}: {e}", self.path.display()))
        });
        let named = copied
            .and_then(|()| if copying.accepts_damage { Ok(()) } else { verify(partial) })
            .and_then(|()| paths::sync(partial))
            .and_then(|()| paths::rename_noclobber(partial, target));
        named.inspect_err(|_| {
            let _ = copy::remove_leftovers(partial);
            let _ = std::fs::remove_file(partial);
        })
    }
}

impl Drop for Database {
    /// Closes the checkpointer's connection first. The other one then is the last, so closing it
    /// checkpoints and deletes the WAL, unless nobody can know what is on the disk.
    fn drop(&mut self) {
        if let Err(error) = self.stop_copying() {
            log::error!("{error}");
            let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = self.db.set_db_config(no_checkpoint, true) {
                log::error!("{error}");
            }
        }
        if let Some(lock) = &self.lock {
            identity::clear_record(lock);
        }
    }
}

/// The reserve of the database at a path.
fn reserve_of(path: &Path) -> Result<Reserve, String> {
    let real = paths::real(path).map_err(|e| describe_path(path, &e))?;
    Ok(Reserve::of(&real))
}

/// Takes the server's lock. A command holds it only briefly, to check whether a server has it.
fn lock_for_server(path: &Path) -> Result<File, String> {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        if let Some(lock) = lock(path, ".lock")? {
            identity::clear_record(&lock);
            return Ok(lock);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("{}: another vestnik serves this database", path.display()))
}

/// Whether a server with this lock runs and leaves checkpoints to another program.
fn is_left_to_another(lock_path: &Path) -> bool {
    paths::open_existing(lock_path)
        .is_ok_and(|lock| lock.try_lock_shared().is_err() && identity::is_external(&lock))
}

/// The flags of every connection. The path has no links left in it, and gets none.
pub(super) const OPEN: OpenFlags =
    OpenFlags::SQLITE_OPEN_NO_MUTEX.union(OpenFlags::SQLITE_OPEN_NOFOLLOW);

/// Creates the database, unless it exists. It gets its name once it is complete, so that an
/// interrupted start leaves no empty file, which is refused.
fn create_missing(path: &Path) -> Result<(), String> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let real = paths::real_new(path).map_err(|e| describe_path(path, &e))?;
    // Several processes may create it at once: each makes its own, and the first one counts.
    let new = sibling_path(&real, &format!(".new-{}", std::process::id()));
    let remove_new = || {
        let _ = std::fs::remove_file(&new);
    };
    // A process with the same id, which in a container is no chance, may have been killed here.
    remove_new();
    let made = fill(path, &new).and_then(|()| paths::rename_noclobber(&new, &real));
    match made {
        Ok(()) => remove_unfinished(&real),
        Err(_) => remove_new(),
    }
    if real.exists() { Ok(()) } else { made }
}

/// Removes the databases `NAME.new-PID` of processes that were killed while they created this one.
/// It has its name now, so a process that is still at it, where this one cannot see it, goes on
/// with this one.
fn remove_unfinished(real: &Path) {
    let beginning = sibling_path(real, ".new-");
    let (Some(folder), Some(beginning)) = (real.parent(), beginning.file_name()) else { return };
    let Some(beginning) = beginning.to_str() else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(beginning));
        let Some(rest) = rest else { continue };
        let (pid, ending) = rest.split_once('-').unwrap_or((rest, ""));
        let is_known = matches!(ending, "" | "journal" | "wal" | "shm");
        let pid = pid.parse().ok().filter(|_| is_known).and_then(Pid::from_raw);
        // Not being allowed to signal it means that it is there.
        if pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes an empty database, which will have the name `path`.
fn fill(path: &Path, new: &Path) -> Result<(), String> {
    // SQLite gives the WAL and the shared memory the same mode.
    paths::create_private(new).map_err(|e| describe_path(path, &e))?;
    copy::remove_leftovers(new)?;
    let flags = OPEN | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let mut db = Connection::open_with_flags(new, flags).map_err(|e| explain(path, None, &e))?;
    migrate(&mut db).map_err(|e| explain(path, Some(&db), &e))
}

fn open(path: &Path, role: Role) -> Result<Database, String> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(format!("SQLite {} is too old to be trusted", rusqlite::version()));
    }
    check_header(path, role)?;
    let real = paths::real(path).map_err(|e| cannot_open(path, &e))?;
    let mut identity = Identity::new(identity::on_disk);
    identity.watch(&real);
    let db = match role {
        Role::Reader => connect_to_read(path, &real)?,
        Role::Server | Role::ReplicatedServer | Role::Command => {
            let db = connect_to_write(path, &real, role)?;
            // SQLite only reads a database of a later format than its own.
            if db.is_readonly("main").unwrap_or_default() {
                // The header may be read only while no connection is open.
                drop(db);
                if let Some(damage) = integrity::header_damage(&real) {
                    return Err(format!(
                        "{}: the database is damaged ({damage}): keep a copy of it with its -wal \
                         file, and restore a backup",
                        path.display()
                    ));
                }
                connect_to_write(path, &real, role)?
            } else {
                db
            }
        }
    };
    identity.still_same().map_err(|e| e.to_string())?;
    let wal = sibling_path(&real, "-wal");
    identity.watch(&wal);
    // SQLite has opened it with the first read, and keeps it until the last connection closes.
    if role != Role::Reader {
        identity.watch(&sibling_path(&real, "-shm"));
    }
    let mut database = Database::of(db, real, identity);
    match role {
        Role::Reader | Role::Command => {}
        // On a full disk the checkpoint would take the space that small requests need.
        Role::Server if !reserve::is_checkpoint_too_large(&database.db) => {
            checkpoint_at_start(&database.db).map_err(|e| explain(path, Some(&database.db), &e))?;
        }
        // After a crash the WAL may contain a turn that is only in the system's cache.
        Role::Server => paths::sync(&wal)?,
        Role::ReplicatedServer => {
            paths::sync(&wal)?;
            database.checkpoints = Arc::new(checkpoint::Shared::external());
        }
    }
    Ok(database)
}

/// A connection to a database that is brought to the schema of this version.
fn connect_to_write(path: &Path, real: &Path, role: Role) -> Result<Connection, String> {
    let flags = OPEN | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let opened = Connection::open_with_flags(real, flags);
    let mut db = opened.map_err(|e| explain(path, None, &e))?;
    let set = db
        .busy_timeout(Duration::from_secs(5))
        .and_then(|()| migrate(&mut db))
        .and_then(|()| settings(&db, role));
    set.map_err(|e| explain(path, Some(&db), &e))?;
    Ok(db)
}

/// A connection that writes nothing. Without a WAL, SQLite creates and deletes one; where it
/// cannot, nobody else can write either, and the database is read as it is.
fn connect_to_read(path: &Path, real: &Path) -> Result<Connection, String> {
    let wal_bytes = sibling_path(real, "-wal").metadata().map_or(0, |wal| wal.len());
    let flags = match wal_bytes {
        0 => OpenFlags::SQLITE_OPEN_READ_WRITE,
        // If it is the last connection, closing it would checkpoint the WAL.
        _ => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let usable = |db: Connection| {
        db.busy_timeout(Duration::from_secs(10))?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        // A connection opened for writing may have become read-only.
        Ok(db)
    };
    let opened = Connection::open_with_flags(real, OPEN | flags).and_then(usable);
    match opened {
        Ok(db) => return Ok(db),
        Err(error) => match error::cause(&error, 0) {
            Cause::Denied => {}
            // SQLite's shared memory does not fit on a full disk. Without a WAL none is needed.
            Cause::Full if wal_bytes == 0 => {}
            _ => return Err(explain(path, None, &error)),
        },
    }
    if wal_bytes > 0 && access(real, Access::READ_OK).is_ok() {
        return Err(format!(
            "{}: it cannot be written from here, and changes wait in {}: run this as the user that \
             owns it, or copy both files to a folder that can be written, and use the copy",
            path.display(),
            sibling_path(path, "-wal").display()
        ));
    }
    let flags = OPEN | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let opened = Connection::open_with_flags(immutable(real), flags).and_then(usable);
    opened.map_err(|e| explain(path, None, &e))
}

/// The URI of a database that nobody changes; the only URI ever passed to SQLite.
pub(super) fn immutable(real: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file:".to_owned();
    for byte in real.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

fn cannot_open(path: &Path, error: &std::io::Error) -> String {
    let name = path.display();
    match error.kind() {
        ErrorKind::NotFound if path.is_symlink() => {
            format!("{name}: this is a link to a file that does not exist: correct or remove it")
        }
        ErrorKind::NotFound => format!(
            "{name}: no such data file: name another by --data, or make it by 'vestnik user add'"
        ),
        _ => describe_path(path, error),
    }
}

/// Rejects files that are not vestnik's, and empty ones. It uses a read-only connection, so a
/// rejected file stays unchanged.
fn check_header(path: &Path, role: Role) -> Result<(), String> {
    let name = path.display();
    let metadata = path.metadata().map_err(|e| cannot_open(path, &e))?;
    if !metadata.is_file() {
        return Err(format!("{name}: this is not a regular file"));
    }
    // Each name would have its own lock and WAL.
    if metadata.nlink() > 1 {
        return Err(format!(
            "{name}: the file has another name (a hard link), under which another process could \
             corrupt it: remove one of the names"
        ));
    }
    if metadata.len() == 0 {
        return Err(format!(
            "{name}: the file is empty, and not a vestnik data file: restore a backup, or remove \
             it to begin with an empty server"
        ));
    }
    if metadata.len() < SQLITE_BYTES_MIN {
        return Err(format!("{name}: this is not a vestnik data file"));
    }
    let real = paths::real(path).map_err(|e| cannot_open(path, &e))?;
    let db = connect_to_read(path, &real)?;
    let damaged = |e: rusqlite::Error| explain(path, Some(&db), &e);
    let read = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(damaged);
    let application = read("PRAGMA application_id")?;
    let version = read("PRAGMA user_version")?;
    let tables = read("SELECT count(*) FROM sqlite_schema")?;
    if application == 0 && version == 0 && tables == 0 && role != Role::Reader {
        return Ok(());
    }
    // The version comes in one transaction with the tables.
    let has_version = version > 0 || (version == 0 && tables == 0);
    if application != i64::from(APPLICATION_ID) || !has_version {
        return Err(format!("{name}: this is not a vestnik data file"));
    }
    if version > i64::from(SCHEMA_VERSION) {
        return Err(format!("{name}: made by a newer vestnik (version {version}); use that one"));
    }
    if role == Role::Reader { Ok(()) } else { look_for_damage(&db).map_err(damaged) }
}

/// The error message when a database cannot be opened, and what to do.
fn explain(path: &Path, db: Option<&Connection>, error: &rusqlite::Error) -> String {
    let name = path.display();
    let os_error = db.map_or(0, error::system_errno);
    match error::cause(error, os_error) {
        _ if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            format!("{name}: this is not a vestnik data file")
        }
        cause => format!("{name}: {}", error::describe(error, cause, os_error)),
    }
}

fn settings(db: &Connection, role: Role) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // Overwrites deleted data: deleted messages must disappear from the database.
    db.pragma_update(None, "secure_delete", true)?;
    db.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Plans do not depend on bound values. Otherwise a statement with a bound LIMIT would be
    // prepared again for each call.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    match role {
        // Most changes of commands are small. A checkpoint could fill a disk that is nearly full;
        // the server runs one, or closing the database does.
        Role::Command => {
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            db.busy_timeout(Duration::from_secs(10))
        }
        Role::Server | Role::ReplicatedServer => {
            let is_external = role == Role::ReplicatedServer;
            set_page_cache(db, PAGE_CACHE_KIB_MIN)?;
            let pages = if is_external { 0 } else { CHECKPOINT_PAGES };
            db.pragma_update(None, "wal_autocheckpoint", pages)?;
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_external)?;
            // The loop must not block inside SQLite; commands hold the lock only briefly.
            db.busy_timeout(BUSY_TIMEOUT)?;
            // On a full disk, keep the old ones until the next start.
            let refreshed = db.unchecked_transaction().and_then(|transaction| {
                refresh_skeletons(&transaction)?;
                transaction.commit()
            });
            if let Err(error) = refreshed {
                log::debug!("what logins look like is not computed anew: {error}");
            }
            Ok(())
        }
        Role::Reader => db.busy_timeout(Duration::from_secs(10)),
    }
}

/// Sets how many KiB SQLite's page cache may take; what it holds beyond them is freed.
pub(super) fn set_page_cache(db: &Connection, kib: u32) -> rusqlite::Result<()> {
    // Negative means KiB, positive pages.
    db.pragma_update(None, "cache_size", -i64::from(kib))
}

/// Checkpoints the WAL before the first answer. After a crash it may contain a turn that is only in
/// the system's cache; a checkpoint syncs it first.
fn checkpoint_at_start(db: &Connection) -> rusqlite::Result<()> {
    let copied = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    // The WAL is synced before its pages are copied, so a disk without space for the copy need not
    // prevent the start.
    copied.or_else(|e| match error::cause(&e, error::system_errno(db)) {
        Cause::Full | Cause::FileLimit => Ok(()),
        _ => Err(e),
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

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
}
