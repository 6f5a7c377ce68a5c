//! Detects that open files were moved, replaced or deleted.
//!
//! A database that was moved while it is open accepts writes that nobody will find again, and a
//! second server could open the file that has its name now. So housekeeping and every COMMIT
//! compare the inodes at the paths with those that were opened. It takes about 1 us per file, a
//! twentieth of a small turn for all; once per millisecond would be cheaper, but accept messages
//! into a deleted file.
//!
//! The index of the WAL in shared memory (`-shm`) is watched, too: with two of them, the server and
//! a command would write the same pages of the WAL. SQLite removes it only when the last
//! connection closes.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::paths::sibling_path;
use super::{StoreError, StoreResult};

/// Bytes of the record in the lock file: enough for its files, each two numbers of 64 bits, and the
/// word behind them.
const RECORD_BYTES: usize = 160;

/// The last word of the record when another program than the server checkpoints the WAL.
const EXTERNAL: &str = "external";

/// Files in the record: the database, its WAL, and the index of that in shared memory.
const RECORDED_MAX: usize = 3;

/// The identity of a file: device and inode.
pub type FileId = (u64, u64);

/// Looks up the file at a path.
pub type LookUp = fn(&Path) -> Option<FileId>;

/// Looks up the file at a path on the real disk.
pub(super) fn on_disk(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|file| id_of(&file))
}

fn id_of(file: &Metadata) -> FileId {
    (file.dev(), file.ino())
}

/// The files that must stay at their paths.
#[derive(Debug, Default)]
pub(super) struct Identity {
    look_up: Option<LookUp>,
    watched: Vec<(PathBuf, FileId)>,
}

impl Identity {
    pub(super) const fn new(look_up: LookUp) -> Self {
        Self { look_up: Some(look_up), watched: Vec::new() }
    }

    /// Watches a path from now on, if there is a file.
    pub(super) fn watch(&mut self, path: &Path) {
        if let Some(id) = self.look_up.and_then(|look_up| look_up(path)) {
            self.watched.push((path.to_owned(), id));
        }
    }

    /// Watches the path of an open file.
    pub(super) fn watch_open(&mut self, path: &Path, file: &File) {
        if let Ok(file) = file.metadata() {
            self.watched.push((path.to_owned(), id_of(&file)));
        }
    }

    /// Stores the identities of the watched files in the lock file, for commands that run
    /// alongside, and whether another program checkpoints the WAL. If the disk has no space for
    /// that, commands only lose this check.
    pub(super) fn record(&self, lock: &File, is_external: bool) {
        let ids = self.watched.iter().take(RECORDED_MAX);
        let ids: Vec<_> = ids.map(|(_, id)| *id).collect();
        write_record(lock, &ids, if is_external { EXTERNAL } else { "" });
    }

    /// Checks that all files are still at their paths.
    ///
    /// # Errors
    /// [`super::Fault::Lost`] when one is not.
    pub(super) fn still_same(&self) -> StoreResult<()> {
        let Some(look_up) = self.look_up else { return Ok(()) };
        for (path, id) in &self.watched {
            if look_up(path) != Some(*id) {
                return Err(StoreError::lost(&format!(
                    "{} was moved, replaced or deleted while it was in use: nothing more is \
                     written; put the database back together with its -wal file, then start again",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Empties the record in the lock file: while a server starts or ends, files come and go.
pub(super) fn clear_record(lock: &File) {
    write_record(lock, &[], "");
}

fn write_record(lock: &File, ids: &[FileId], last: &str) {
    let ids: String = ids.iter().map(|(dev, ino)| format!("{dev} {ino} ")).collect();
    let record = format!("{:<width$}\n", ids + last, width = RECORD_BYTES - 1);
    if let Err(error) = lock.write_all_at(record.as_bytes(), 0) {
        log::debug!("the lock file has no record: {error}");
    }
}

fn record_text(lock: &File) -> String {
    let mut bytes = [0; RECORD_BYTES];
    let count = lock.read_at(&mut bytes, 0).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned()
}

fn read_record(lock: &File) -> Vec<FileId> {
    let record = record_text(lock);
    let numbers = record.split_whitespace().map_while(|number| number.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    numbers.as_chunks().0.iter().map(|[dev, ino]| (*dev, *ino)).collect()
}

/// Whether the server which holds this lock leaves checkpoints to another program.
pub(super) fn is_external(lock: &File) -> bool {
    record_text(lock).split_whitespace().next_back() == Some(EXTERNAL)
}

/// Compares a database and the files next to it with the identities that the server which holds
/// this lock has stored.
///
/// # Errors
/// One line, when it has other files open.
pub(super) fn compare_with_server(lock: &File, data: &Path) -> Result<(), String> {
    /// A server that starts or ends meanwhile has another record at the next look.
    const LOOKS: u32 = 3;
    let paths = [data.to_owned(), sibling_path(data, "-wal"), sibling_path(data, "-shm")];
    let mut other = None;
    for _ in 0..LOOKS {
        let noted = read_record(lock);
        other = paths.iter().zip(noted).find(|(path, id)| on_disk(path) != Some(*id));
        if other.is_none() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    other.map_or(Ok(()), |(path, _)| {
        Err(format!(
            "{} is not the file that the running server has open: it was moved, replaced or \
             deleted under it; stop the server first",
            path.display()
        ))
    })
}
