//! What went wrong with the file, and what that means for the turn.

use std::fmt;

use rusqlite::{Connection, ErrorCode, ffi};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The turn fails and nothing of it is in the file: the disk is full, another process holds
    /// the file, a page cannot be read. The next turn may succeed.
    Unavailable,
    /// A write or sync failed: nobody knows what is on the disk, and asking again can lie (an
    /// fsync that failed once may report success the next time though the data is gone).
    /// The process ends; the next start recovers from what is really there.
    Lost,
}

/// A failed call on the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// How bad it is.
    pub fault: Fault,
    words: String,
}

impl StoreError {
    pub(crate) fn unavailable(words: &str) -> Self {
        Self { fault: Fault::Unavailable, words: words.to_owned() }
    }

    pub(super) fn lost(words: &str) -> Self {
        Self { fault: Fault::Lost, words: words.to_owned() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for StoreError {}

/// For errors that cannot come from the disk (preparing a statement, say).
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let words = error.to_string();
        Self { fault: judge(&error, 0), words }
    }
}

/// Judges an error by its code and by what the operating system last told SQLite.
pub(super) fn explain(db: &Connection, error: rusqlite::Error) -> StoreError {
    let os_error = system_errno(db);
    let fault = judge(&error, os_error);
    let mut words = error.to_string();
    if let rusqlite::Error::SqliteFailure(code, _) = &error
        && code.code == ErrorCode::SystemIoFailure
    {
        let os_error = std::io::Error::from_raw_os_error(os_error);
        words = format!("{words} (code {}: {os_error})", code.extended_code);
    }
    StoreError { fault, words }
}

/// Errno of a disk without room: ENOSPC, a file-size limit (EFBIG) or a quota (EDQUOT). SQLite
/// calls only the first SQLITE_FULL, but each of them fails before anything could be committed.
fn is_no_room(os_error: i32) -> bool {
    const ENOSPC: i32 = 28;
    const EFBIG: i32 = 27;
    const EDQUOT: i32 = 122;
    matches!(os_error, ENOSPC | EFBIG | EDQUOT)
}

fn judge(error: &rusqlite::Error, os_error: i32) -> Fault {
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        return Fault::Unavailable;
    };
    match code.code {
        ErrorCode::OutOfMemory => Fault::Lost,
        ErrorCode::SystemIoFailure => match code.extended_code {
            ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => Fault::Unavailable,
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP
                if is_no_room(os_error) =>
            {
                Fault::Unavailable
            }
            _ => Fault::Lost,
        },
        _ => Fault::Unavailable,
    }
}

/// What the operating system said last when SQLite could not read, write or open.
#[allow(unsafe_code)]
fn system_errno(db: &Connection) -> i32 {
    // SAFETY: the handle is that of an open connection, which `db` keeps alive over the call; the
    // call only reads a number from it. The library has no other unsafe code; rusqlite does not
    // offer this one, and without it a file-size limit cannot be told from a failing disk.
    unsafe { ffi::sqlite3_system_errno(db.handle()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_failed_sync_is_final_and_a_full_disk_is_not() {
        assert_eq!(judge(&failure(ffi::SQLITE_IOERR_FSYNC), 5), Fault::Lost);
        assert_eq!(judge(&failure(ffi::SQLITE_IOERR_WRITE), 5), Fault::Lost);
        assert_eq!(judge(&failure(ffi::SQLITE_NOMEM), 0), Fault::Lost);
        assert_eq!(judge(&failure(ffi::SQLITE_FULL), 28), Fault::Unavailable);
        assert_eq!(judge(&failure(ffi::SQLITE_IOERR_WRITE), 27), Fault::Unavailable);
        assert_eq!(judge(&failure(ffi::SQLITE_BUSY), 0), Fault::Unavailable);
        assert_eq!(judge(&failure(ffi::SQLITE_IOERR_READ), 5), Fault::Unavailable);
    }
}
