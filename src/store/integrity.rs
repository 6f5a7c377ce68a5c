//! SQLite's own checks of a database, and the check of a copy.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Store;
use super::error::message_of;
use super::identity::Identity;
use super::open::{Database, OPEN, immutable};
use super::paths::{self, sibling_path};

/// The result of SQLite's own check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Integrity {
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
    /// Tables that were not checked, because the WAL grew too far.
    pub left_out: Vec<String>,
}

/// Bytes by which the WAL may grow while one table is checked.
const WAL_GROWTH_MAX: u64 = 32 << 20;

/// Steps of SQLite between two checks of the WAL's size.
const OPERATIONS_PER_LOOK: i32 = 1_000;

/// Bytes of the header of a database that are the versions of its format, for writing and reading.
const FORMATS: Range<usize> = 18..20;

/// The highest version of the format: that of a database with a WAL.
const FORMAT_MAX: u8 = 2;

/// What is wrong with the header of a database, if its versions of the format are not valid: SQLite
/// then only reads it, and its own check finds nothing.
///
/// No connection of this process may have it open: closing the file would drop SQLite's locks.
pub fn header_damage(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }
    let mut header = [0; FORMATS.end];
    let file = File::open(path).ok()?;
    file.read_exact_at(&mut header, 0).ok()?;
    let formats = header.get(FORMATS)?;
    let is_valid = formats.iter().all(|format| (1..=FORMAT_MAX).contains(format));
    (!is_valid).then(|| {
        "its header has no valid version of the format, so nothing can be written".to_owned()
    })
}

impl Database {
    /// SQLite's own check of every page and index. Alongside a server, each table is checked
    /// separately, and one during whose check the WAL grows too far is left out.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn integrity(&mut self, pause: &mut dyn FnMut()) -> Result<Integrity, String> {
        let mut found = Integrity::default();
        if !self.is_served() {
            self.look_at(None, &mut found.wrong).map_err(|e| message_of(&e))?;
            return Ok(found);
        }
        let wal = sibling_path(self.path(), "-wal");
        let bytes = move || wal.metadata().map_or(0, |wal| wal.len());
        for table in self.tables().map_err(|e| message_of(&e))? {
            let before = bytes();
            let bytes = bytes.clone();
            let grows = move || bytes() > before + WAL_GROWTH_MAX;
            let set = self.connection_mut().progress_handler(OPERATIONS_PER_LOOK, Some(grows));
            let looked = set.and_then(|()| self.look_at(Some(&table), &mut found.wrong));
            let unset = self.connection_mut().progress_handler(0, None::<fn() -> bool>);
            match looked.and(unset) {
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    found.left_out.push(table);
                }
                other => other.map_err(|e| message_of(&e))?,
            }
            pause();
        }
        Ok(found)
    }

    /// Whether a server has the database open, as its lock shows.
    fn is_served(&self) -> bool {
        paths::open_existing(&sibling_path(self.path(), ".lock"))
            .is_ok_and(|lock| lock.try_lock_shared().is_err())
    }

    fn tables(&self) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
                   AND sql NOT LIKE '%fts5vocab%'";
        let mut statement = self.connection().prepare(sql)?;
        statement.query_map([], |row| row.get(0))?.collect()
    }

    fn look_at(&self, table: Option<&str>, wrong: &mut Vec<String>) -> rusqlite::Result<()> {
        let sql = match table {
            Some(table) => format!("PRAGMA integrity_check(\"{table}\")"),
            None => "PRAGMA integrity_check".to_owned(),
        };
        let mut statement = self.connection().prepare(&sql)?;
        let mut rows = statement.query([])?;
        loop {
            // An error ends the check; what it found before is still reported.
            let text: String = match rows.next() {
                Ok(Some(row)) => row.get(0)?,
                Ok(None) => return Ok(()),
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    return Err(e);
                }
                Err(e) => {
                    wrong.push(message_of(&e));
                    return Ok(());
                }
            };
            // SQLite reports errors of pages as one text with many lines.
            let headings = |line: &str| line == "ok" || line.starts_with("***");
            wrong.extend(text.lines().filter(|line| !headings(line)).map(str::to_owned));
        }
    }
}

/// Whether every page of a copy is sound, and every message and file as it was written.
pub(super) fn verify(copy: &Path) -> Result<(), String> {
    let flags = OPEN | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let unreadable = |e: rusqlite::Error| format!("the copy cannot be read: {}", message_of(&e));
    let db = Connection::open_with_flags(immutable(copy), flags).map_err(unreadable)?;
    // Tables and indexes that no message and no file is in.
    if let Some(damage) = quick_check(&db).map_err(unreadable)? {
        return Err(format!(
            "the database is damaged ({damage}), which `vestnik check` lists: nothing was copied; \
             --accept-damage copies it all the same"
        ));
    }
    let database = Database::of(db, copy.to_owned(), Identity::default());
    if !database.is_current().map_err(unreadable)? {
        return Ok(());
    }
    let (mut messages, mut chunks) = (0_u64, 0_u64);
    let verified = Store::new(&database).and_then(|mut store| {
        store.verify_all_messages(|_, _| messages += 1)?;
        store.verify_all_chunks(|_, _| chunks += 1)
    });
    match verified {
        Ok(()) if messages + chunks == 0 => Ok(()),
        Ok(()) => {
            let parts = match chunks {
                0 => String::new(),
                count => format!(" and {count} parts of files"),
            };
            Err(format!(
                "{messages} messages{parts} are damaged, which `vestnik check` lists: nothing was \
                 copied; --accept-damage copies the database all the same"
            ))
        }
        Err(error) => Err(format!("the copy cannot be read: {error}")),
    }
}

/// The first damage that SQLite finds in any page, in one line.
fn quick_check(db: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = match db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)) {
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => message_of(&e),
        other => other?,
    };
    // The line before damage of a page names the database.
    let first = found.lines().find(|line| !line.starts_with("***")).unwrap_or(&found);
    Ok((first != "ok").then(|| first.to_owned()))
}

/// Checks every page of a small database, and the root page of every table of a large one, so that
/// the server starts quickly; `vestnik check` checks everything.
pub(super) fn look_for_damage(db: &Connection) -> rusqlite::Result<()> {
    const PAGES_CHECKED_MAX: i64 = 4096;
    let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages <= PAGES_CHECKED_MAX {
        return match quick_check(db)? {
            None => Ok(()),
            Some(found) => {
                let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                Err(rusqlite::Error::SqliteFailure(damage, Some(found)))
            }
        };
    }
    // Virtual tables have no pages of their own, and those of the search index cannot be scanned.
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '% VIRTUAL %'";
    let mut tables = db.prepare(sql)?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for table in names {
        // An index that covers the columns would be read in place of the table.
        db.prepare(&format!("SELECT * FROM \"{table}\" NOT INDEXED LIMIT 1"))?.exists([])?;
    }
    Ok(())
}
