//! Copies of the database, for backups: a snapshot of its pages first, which is then processed
//! without holding back the server.

use std::io::ErrorKind;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::error::{self, describe_path};
use super::migrations::{INCREMENTAL, make_incremental};
use super::open;
use super::paths::{self, sibling_path};

/// What to include in a copy of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copying {
    /// Accept a copy with damaged messages and files.
    pub accepts_damage: bool,
    /// Leave out the bytes of files.
    pub without_files: bool,
}

/// The key of `meta` with the highest file id whose bytes a copy has left out.
pub(super) const FILES_LEFT_OUT: &str = "files_left_out";

/// A copy is compacted when at least one page in this many is free.
const FREE_PAGES_DIVISOR: i64 = 8;

/// The endings of files next to a database that belong to it.
const OWN_ENDINGS: [&str; 9] = [
    "-wal",
    "-shm",
    "-journal",
    ".lock",
    ".import",
    ".reserve",
    ".sock",
    ".partial",
    ".partial.new",
];

/// The endings of files that SQLite puts next to a database while it writes.
const SQLITE_ENDINGS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Rejects a name for a copy of the database that a file of the database itself has, or will have.
pub(super) fn check_name(database: &Path, target: &Path) -> Result<(), String> {
    if OWN_ENDINGS.iter().all(|ending| sibling_path(database, ending) != target) {
        return Ok(());
    }
    Err(format!(
        "{}: this name belongs to the files of {}: name another file",
        target.display(),
        database.display()
    ))
}

/// Removes what an interrupted copy, or creation, of this name left next to it. The caller has
/// created the file at `partial`, so no other process writes any of these.
pub(super) fn remove_leftovers(partial: &Path) -> Result<(), String> {
    let compacted = sibling_path(partial, ".new");
    let journals = [partial, &compacted]
        .into_iter()
        .flat_map(|file| SQLITE_ENDINGS.iter().map(|ending| sibling_path(file, ending)));
    for path in journals.chain([compacted.clone()]) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(describe_path(&path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies all pages into an empty file, as one snapshot.
pub(super) fn pages(db: &Connection, copy: &Path) -> Result<(), String> {
    let flags = open::OPEN | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let target = Connection::open_with_flags(copy, flags);
    let mut target = target.map_err(|e| error::explain(db, e).to_string())?;
    let outcome = Backup::new(db, &mut target).and_then(|backup| backup.step(-1));
    // SQLite keeps the errno of a backup with the connection that it writes to.
    match outcome.map_err(|e| error::explain(&target, e).to_string())? {
        StepResult::Done => Ok(()),
        _ => Err("another process holds the database: try again".to_owned()),
    }
}

/// Removes what a copy should not contain, and compacts it if many pages are free, or if the
/// database is of a version that could not return free pages to the disk.
pub(super) fn arrange(copy: &Path, copying: Copying) -> Result<(), String> {
    let flags = open::OPEN | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let db = Connection::open_with_flags(copy, flags).map_err(|e| error::message_of(&e))?;
    let failed = |e: rusqlite::Error| error::explain(&db, e).to_string();
    // A copy that is interrupted before its rename is discarded, so it needs neither durability nor
    // a WAL.
    db.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF").map_err(failed)?;
    if copying.without_files {
        leave_files_out(&db).map_err(failed)?;
    }
    let number = |name: &str| {
        db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map_err(failed)
    };
    let is_scattered = number("freelist_count")? > number("page_count")? / FREE_PAGES_DIVISOR;
    if number("auto_vacuum")? == INCREMENTAL && !is_scattered {
        return Ok(());
    }
    let arranged = sibling_path(copy, ".new");
    let text = arranged.to_str().ok_or("the name of the copy is not UTF-8")?;
    paths::create_private(&arranged).map_err(|e| describe_path(&arranged, &e))?;
    let done = make_incremental(&db)
        // VACUUM INTO accepts an empty file, which has the right mode already.
        .and_then(|()| db.execute("VACUUM INTO ?1", [text]))
        .map_err(failed)
        .and_then(|_| std::fs::rename(&arranged, copy).map_err(|e| describe_path(&arranged, &e)));
    // The caller removes what is left after an error, once this connection is closed.
    done
}

/// Removes the bytes of files from a copy, and unfinished uploads. Messages keep the names and
/// sizes of their files, which no longer count as used.
fn leave_files_out(db: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'file_chunks')";
    let has_files: bool = db.query_row(sql, [], |row| row.get(0))?;
    if !has_files {
        return Ok(());
    }
    db.execute_batch(&format!(
        "BEGIN;
         DELETE FROM file_chunks;
         DELETE FROM files_erased;
         DELETE FROM files WHERE message_id IS NULL;
         UPDATE files SET stored = 0;
         DELETE FROM file_usage;
         INSERT OR REPLACE INTO meta
            SELECT '{FILES_LEFT_OUT}', coalesce(max(file_id), 0) FROM files;
         COMMIT"
    ))
}
