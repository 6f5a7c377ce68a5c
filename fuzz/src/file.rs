//! The data file under the service target: one for many runs, brought back to where it began.
//!
//! To open a file and prepare its statements costs more than most inputs do with it, so the
//! connection stays, and a second one puts every table back between two runs. A run that ended
//! badly takes the file with it, and each is given up after a while, lest anything build up.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vestnik::auth::password;
use vestnik::auth::random::{NoRandomness, RandomSource};
use vestnik::ids::{ChatId, ServerTime, UserId};
use vestnik::names::Name;
use vestnik::store::members::Member;
use vestnik::store::open::Role;
use vestnik::store::{Database, Store};
use vestnik::wire::answer::USER_OPERATOR;

use super::requests::{OPERATOR, PASSWORDS, USERS};

/// Runs after which a file is made anew.
const RUNS_PER_FILE: u32 = 500;
/// The wall clock at the beginning, in microseconds.
pub(crate) const WALL_US: i64 = 1_700_000_000_000_000;

/// Counts upwards, mixed: the same in every run.
#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl RandomSource for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        for chunk in bytes.chunks_mut(8) {
            let mut number = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            number = (number ^ number >> 31).wrapping_mul(0x7FB5_D329_728E_A185);
            chunk.copy_from_slice(&(number ^ number >> 29).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// An open data file with three users and two chats.
pub(crate) struct Prepared {
    // Fields drop in this order: both close the file before it is removed.
    pub(crate) database: Database,
    restoring: Restoring,
    _file: DataFile,
    runs: u32,
}

thread_local! {
    static KEPT: RefCell<Option<Prepared>> = const { RefCell::new(None) };
}

impl Prepared {
    /// The one of the last run, or a new one.
    pub(crate) fn take() -> Self {
        KEPT.take().unwrap_or_else(Self::new)
    }

    /// Keeps it for the next run, put back to its beginning.
    pub(crate) fn keep(mut self) {
        self.runs += 1;
        if self.runs < RUNS_PER_FILE {
            self.restoring.restore();
            KEPT.set(Some(self));
        }
    }

    fn new() -> Self {
        let file = DataFile::new();
        let database =
            Database::open_with_vfs(&file.0, "unix", Role::Server, None).expect("a new file");
        let mut store = Store::new(&database).expect("tables");
        populate(&mut store);
        drop(store);
        let restoring = Restoring::begin(&file.0);
        Self { database, restoring, _file: file, runs: 0 }
    }
}

/// A connection of its own, with a copy of every table in memory.
struct Restoring {
    db: Connection,
    statements: Vec<String>,
}

impl Restoring {
    fn begin(file: &std::path::Path) -> Self {
        let db = Connection::open(file).expect("the file once more");
        let copied = || -> rusqlite::Result<Vec<String>> {
            db.execute_batch("PRAGMA synchronous = OFF; ATTACH ':memory:' AS beginning")?;
            // The tables of the search index are copied like any: it looks at them anew when
            // another connection has written.
            let sql = "SELECT name FROM sqlite_schema
                       WHERE type = 'table' AND sql NOT LIKE '% VIRTUAL %'";
            let tables: Vec<String> =
                db.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut statements = Vec::new();
            for table in tables {
                let name = if table.starts_with("sqlite_") { "numbers" } else { &table };
                db.execute_batch(&format!(
                    "CREATE TABLE beginning.{name} AS SELECT * FROM main.{table}"
                ))?;
                statements.push(format!("DELETE FROM main.{table}"));
                statements.push(format!("INSERT INTO main.{table} SELECT * FROM beginning.{name}"));
            }
            Ok(statements)
        };
        let statements = copied().expect("copies of the tables");
        db.set_prepared_statement_cache_capacity(statements.len() + 2);
        Self { db, statements }
    }

    fn restore(&self) {
        let run = |sql: &str| self.db.prepare_cached(sql)?.execute([]);
        let restored = || -> rusqlite::Result<()> {
            run("BEGIN IMMEDIATE")?;
            for sql in &self.statements {
                run(sql)?;
            }
            run("COMMIT").map(drop)
        };
        restored().expect("the tables as they were");
    }
}

/// A file in memory where there is such a place, gone at the end.
struct DataFile(PathBuf);

impl DataFile {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = Self(folder.join(format!("vestnik-fuzz-{}-{number}.db", std::process::id())));
        file.remove();
        file
    }

    fn remove(&self) {
        for end in ["", "-wal", "-shm", ".lock"] {
            let mut name = self.0.as_os_str().to_owned();
            name.push(end);
            let _ = std::fs::remove_file(name);
        }
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// No file may grow: what a full disk is to SQLite.
pub(crate) struct FullDisk(Rlimit);

impl FullDisk {
    pub(crate) fn begin() -> Self {
        static IGNORED: OnceLock<()> = OnceLock::new();
        IGNORED.get_or_init(|| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).expect("a handler");
            // Reporting a panic writes to files.
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let most = getrlimit(Resource::Fsize).maximum;
                let none = Rlimit { current: most, maximum: most };
                let _ = setrlimit(Resource::Fsize, none);
                report(panic);
            }));
        });
        let before = getrlimit(Resource::Fsize);
        let none = Rlimit { current: Some(0), maximum: before.maximum };
        setrlimit(Resource::Fsize, none).expect("a lower limit");
        Self(before)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let before = Rlimit { ..self.0 };
        setrlimit(Resource::Fsize, before).expect("the limit that was");
    }
}

fn hashed() -> &'static [String; 2] {
    static HASHED: OnceLock<[String; 2]> = OnceLock::new();
    HASHED.get_or_init(|| {
        PASSWORDS.map(|text| {
            let password = password::prepare(text, password::Kind::User).expect("long enough");
            password::hash(&password, 1, &Counting::default()).expect("hashed")
        })
    })
}

/// Three users, one of them an operator; two chats, one of them with a password.
fn populate(store: &mut Store<'_>) {
    let now = ServerTime::new(WALL_US - 1_000_000_000).expect("positive");
    for name in USERS {
        let name = Name::parse(name).expect("a name");
        store.add_user(name.text(), name.key(), &hashed()[0], now).expect("stored");
    }
    let operator = UserId::new(OPERATOR).expect("not 0");
    store.set_user_flag(operator, USER_OPERATOR, true).expect("stored");
    let passwords = [None, Some(hashed()[0].as_str())];
    for (name, password) in ["hall", "locked"].into_iter().zip(passwords) {
        store.add_chat(name, name, password, now).expect("stored");
    }
    for (chat, user, admin) in [(1, 1, true), (1, 2, false), (1, 3, false), (2, 1, true)] {
        let (chat, user) = (ChatId::new(chat), UserId::new(user));
        let (Some(chat), Some(user)) = (chat, user) else { continue };
        let seen = ServerTime::ZERO;
        store.add_member(Member { chat, user, admin, joined: now, seen }).expect("stored");
    }
    store.write_server_time(now).expect("stored");
    store.commit().expect("stored");
}
