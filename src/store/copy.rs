//! Copies of the database for backups: its pages first, as they are at one moment, and then what a
//! copy is to be, without anybody waiting for it.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::error::{self, describe_io};
use super::open::{self, INCREMENTAL};
use super::paths::{self, sibling_path};

/// What a copy of the database is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copying {
    /// Messages and files in it may be damaged.
    pub accepts_damage: bool,
    /// The bytes of files are left out.
    pub without_files: bool,
}

/// The key of `meta` that names the last file whose bytes a copy has left out.
const FILES_LEFT_OUT: &str = "files_left_out";

/// A copy is compacted when one page in that many is free.
const FREE_PAGES_DIVISOR: i64 = 8;

/// Copies all pages into an empty file.
pub(super) fn pages(db: &Connection, copy: &Path) -> Result<(), String> {
    let failed = |e: rusqlite::Error| error::explain(db, e).to_string();
    let flags = open::OPEN | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let mut target = Connection::open_with_flags(copy, flags).map_err(failed)?;
    let outcome = Backup::new(db, &mut target).and_then(|backup| backup.step(-1));
    match outcome.map_err(failed)? {
        StepResult::Done => Ok(()),
        _ => Err("another process holds the database: try again".to_owned()),
    }
}

/// Leaves out of a copy what it is not to have, and compacts it where that is worth it, or where the database is of a version that could not give its free pages back.
pub(super) fn arrange(copy: &Path, copying: Copying) -> Result<(), String> {
    let flags = open::OPEN | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let db = Connection::open_with_flags(copy, flags).map_err(|e| e.to_string())?;
    let failed = |e: rusqlite::Error| error::explain(&db, e).to_string();
    // Nothing of it has to survive a crash before the copy has its name, and no WAL belongs to it.
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
    paths::create_private(&arranged).map_err(|e| format!("{text}: {}", describe_io(&e)))?;
    let done = open::make_incremental(&db)
        // An empty file is as good as none to VACUUM INTO, and has its mode already.
        .and_then(|()| db.execute("VACUUM INTO ?1", [text]))
        .map_err(failed)
        .and_then(|_| {
            std::fs::rename(&arranged, copy).map_err(|e| format!("{text}: {}", describe_io(&e)))
        });
    done.inspect_err(|_| {
        let _ = std::fs::remove_file(&arranged);
    })
}

/// Takes the bytes of files out of a copy, and the uploads under way. The messages keep the names
/// and sizes of theirs.
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
         DELETE FROM file_usage;
         INSERT INTO file_usage
            SELECT user_id, sum(size), 0 FROM files GROUP BY user_id
            UNION ALL SELECT 0, sum(size), 0 FROM files HAVING count(*) > 0;
         INSERT OR REPLACE INTO meta
            SELECT '{FILES_LEFT_OUT}', coalesce(max(file_id), 0) FROM files;
         COMMIT"
    ))
}
