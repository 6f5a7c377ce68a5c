//! Errors of the database: what they mean for the turn, and the message for the operator. A full
//! disk, a failing disk and a damaged database require different actions.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::{Connection, ErrorCode, ffi};

/// The severity of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The turn fails and nothing of it is stored: the disk is full, another process holds the
    /// lock, a page cannot be read. The next turn may succeed.
    Unavailable,
    /// A write or sync failed, so nobody can know what is on the disk. Retrying can lie: after a
    /// failed fsync, the next one may succeed although the data is gone. The process ends; the next
    /// start recovers from what is really there.
    Lost,
}

/// The cause of an error, as far as operators act differently on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The disk or a quota is full.
    Full,
    /// The file size limit of the process is reached.
    FileLimit,
    /// The disk or its driver reported an error.
    Disk,
    /// The database is damaged.
    Damaged,
    /// Another process is writing.
    Busy,
    /// This process may not write, or not even read.
    Denied,
    /// Anything else.
    Other,
}

/// An error of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// Its severity.
    pub fault: Fault,
    /// Its cause.
    pub cause: Cause,
    message: String,
}

impl StoreError {
    pub(crate) fn unavailable(message: &str) -> Self {
        Self { fault: Fault::Unavailable, cause: Cause::Other, message: message.to_owned() }
    }

    pub(super) fn lost(message: &str) -> Self {
        Self { fault: Fault::Lost, cause: Cause::Other, message: message.to_owned() }
    }

    /// Whether the disk has no space left.
    pub fn is_full(&self) -> bool {
        self.cause == Cause::Full
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

/// For errors that are not caused by the disk, as when preparing a statement.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let cause = cause(&error, 0);
        Self { fault: fault(&error, 0), cause, message: describe(&error, cause, 0) }
    }
}

/// Classifies an error by its code and by the last errno of SQLite.
pub(super) fn explain(db: &Connection, error: rusqlite::Error) -> StoreError {
    let os_error = system_errno(db);
    let cause = cause(&error, os_error);
    let message = describe(&error, cause, os_error);
    StoreError { fault: fault(&error, os_error), cause, message }
}

/// The advice to run a command, in the message about a damaged database.
pub const RUN_CHECK: &str = "run `vestnik check`, ";

/// The message: what happened and what to do, in one line without the path of the database.
pub(super) fn describe(error: &rusqlite::Error, cause: Cause, os_error: i32) -> String {
    let sqlite = message_of(error);
    match cause {
        Cause::Full => {
            "the disk is full: free some space on it; nothing is lost, and no backup has \
                        to be restored"
                .to_owned()
        }
        Cause::FileLimit => "a file has reached the size that this process may give it \
                             (RLIMIT_FSIZE, `ulimit -f`): raise that limit; nothing is lost"
            .to_owned(),
        Cause::Disk => {
            let os_error = match os_error {
                0 => String::new(),
                code => format!(": {}", describe_io(&io::Error::from_raw_os_error(code))),
            };
            format!(
                "the disk reports an error ({sqlite}{os_error}): look at the system's log, and \
                 check the disk before you restore anything to it"
            )
        }
        Cause::Damaged => format!(
            "the database is damaged ({sqlite}): keep a copy of it with its -wal file, \
             {RUN_CHECK}and restore a backup"
        ),
        Cause::Busy => format!("another process is writing to it, try again ({sqlite})"),
        Cause::Denied if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
            "it cannot be opened: run this as the user that owns it, its folder and the files \
             next to it; a change needs a file system that can be written"
                .to_owned()
        }
        Cause::Denied => format!(
            "it cannot be written from here ({sqlite}): run this as the user that owns it, its \
             folder and the files next to it, on a file system that can be written"
        ),
        Cause::Other => sqlite,
    }
}

/// The message of SQLite in one line, without the SQL that it is about, which may be very long.
pub(super) fn message_of(error: &rusqlite::Error) -> String {
    let message = match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        _ => error.to_string(),
    };
    message.replace(char::is_control, " ")
}

/// The message for an error of the system, as the end of a line and without the error number.
pub fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "it does not exist".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::AlreadyExists => "it exists already".to_owned(),
        ErrorKind::NotADirectory => "a part of its path is not a folder".to_owned(),
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "its file system is read-only".to_owned(),
        ErrorKind::InvalidFilename => "its name is too long or not valid".to_owned(),
        ErrorKind::FileTooLarge => {
            "it is too large for the limit of this process (`ulimit -f`)".to_owned()
        }
        // std and socket2 check the length of a socket's path themselves.
        ErrorKind::InvalidInput if error.to_string().contains("SUN_LEN") => {
            "its path is too long for a socket".to_owned()
        }
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error ").next().unwrap_or_default();
            let mut chars = text.chars();
            let first = chars.next().into_iter().flat_map(char::to_lowercase);
            first.chain(chars).collect()
        }
    }
}

/// The message for an error of the system about a file, and what to do.
pub(super) fn describe_path(path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => "; run this as the user that owns it and its folder",
        _ => "",
    };
    format!("{}: {}{advice}", path.display(), describe_io(error))
}

/// The cause of an error.
pub(super) fn cause(error: &rusqlite::Error, os_error: i32) -> Cause {
    let rusqlite::Error::SqliteFailure(code, _) = error else { return Cause::Other };
    match code.code {
        ErrorCode::DiskFull => Cause::Full,
        ErrorCode::SystemIoFailure if os_error == EFBIG => Cause::FileLimit,
        ErrorCode::SystemIoFailure if is_no_space(os_error) => Cause::Full,
        // SQLite does not keep the errno of this one.
        ErrorCode::SystemIoFailure if code.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
            Cause::Full
        }
        ErrorCode::SystemIoFailure => Cause::Disk,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Cause::Damaged,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Cause::Busy,
        // On a full disk, a file that cannot be created is reported as one that cannot be opened.
        ErrorCode::CannotOpen if is_no_space(os_error) => Cause::Full,
        ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Cause::Denied,
        _ => Cause::Other,
    }
}

const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;
const EDQUOT: i32 = 122;

/// Whether errno says that there is no space: ENOSPC, EFBIG (file size limit) or EDQUOT (quota).
/// SQLite reports SQLITE_FULL only for the first, but with each the write fails before anything is
/// committed.
fn is_no_space(os_error: i32) -> bool {
    matches!(os_error, ENOSPC | EFBIG | EDQUOT)
}

fn fault(error: &rusqlite::Error, os_error: i32) -> Fault {
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        return Fault::Unavailable;
    };
    match code.code {
        ErrorCode::OutOfMemory => Fault::Lost,
        ErrorCode::SystemIoFailure => match code.extended_code {
            ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_SHMSIZE => {
                Fault::Unavailable
            }
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMMAP if is_no_space(os_error) => {
                Fault::Unavailable
            }
            _ => Fault::Lost,
        },
        _ => Fault::Unavailable,
    }
}

/// The last errno of SQLite when it could not read, write or open.
#[allow(unsafe_code)]
pub(super) fn system_errno(db: &Connection) -> i32 {
    // SAFETY: the handle belongs to an open connection that `db` keeps alive during the call, which
    // only reads a number. rusqlite does not offer this function; without it, a file size limit
    // cannot be distinguished from a failing disk.
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
        assert_eq!(fault(&failure(ffi::SQLITE_IOERR_FSYNC), 5), Fault::Lost);
        assert_eq!(fault(&failure(ffi::SQLITE_IOERR_WRITE), 5), Fault::Lost);
        assert_eq!(fault(&failure(ffi::SQLITE_NOMEM), 0), Fault::Lost);
        assert_eq!(fault(&failure(ffi::SQLITE_FULL), 28), Fault::Unavailable);
        assert_eq!(fault(&failure(ffi::SQLITE_IOERR_WRITE), 27), Fault::Unavailable);
        assert_eq!(fault(&failure(ffi::SQLITE_BUSY), 0), Fault::Unavailable);
        assert_eq!(fault(&failure(ffi::SQLITE_IOERR_READ), 5), Fault::Unavailable);
    }

    #[test]
    fn a_full_disk_a_failing_one_and_damage_have_different_messages() {
        let message = |code, os_error| {
            let error = failure(code);
            describe(&error, cause(&error, os_error), os_error)
        };
        for full in [
            (ffi::SQLITE_FULL, 28),
            (ffi::SQLITE_IOERR_WRITE, 122),
            (ffi::SQLITE_IOERR_SHMSIZE, 28),
        ] {
            let message = message(full.0, full.1);
            assert!(message.contains("disk is full") && !message.contains("damaged"), "{message}");
        }
        assert!(message(ffi::SQLITE_IOERR_WRITE, 27).contains("ulimit"));
        let failing = message(ffi::SQLITE_IOERR_READ, 5);
        assert!(
            failing.contains("reports an error") && failing.contains("input/output"),
            "{failing}"
        );
        assert!(!failing.contains("os error"), "{failing}");
        assert!(message(ffi::SQLITE_CORRUPT, 0).contains("restore a backup"));
    }

    #[test]
    fn a_database_that_cannot_be_opened_has_no_words_of_sqlite() {
        let uri = Some("unable to open database file: file:/x.db?immutable=1".to_owned());
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), uri);
        let message = describe(&error, cause(&error, 13), 13);
        assert!(message.starts_with("it cannot be opened: run this as"), "{message}");
        assert!(!message.contains("unable") && !message.contains("immutable"), "{message}");
        assert!(describe(&failure(ffi::SQLITE_READONLY), Cause::Denied, 0).contains("be written"));
    }

    #[test]
    fn errors_of_the_system_are_in_plain_words() {
        let of = |code| describe_path(Path::new("x"), &io::Error::from_raw_os_error(code));
        let owner = "x: permission denied; run this as the user that owns it and its folder";
        assert_eq!(of(13), owner);
        assert_eq!(of(2), "x: it does not exist");
        assert_eq!(of(20), "x: a part of its path is not a folder");
        assert_eq!(of(28), "x: the disk is full");
        assert_eq!(of(5), "x: input/output error");
    }
}
