//! Detects that open files were moved, replaced or deleted.
//!
//! A database that was moved while it is open accepts writes that nobody will find again, and a
//! second server could open the file that has its name now. So housekeeping and every COMMIT
//! compare the inodes at the paths with those that were opened. It takes 3 to 4 us, a twentieth of
//! a small turn; once per millisecond would be cheaper, but accept messages into a deleted file.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{StoreError, StoreResult};

/// Bytes of the record in the lock file.
const RECORD_BYTES: usize = 128;

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
    /// alongside. If the disk has no space for that, commands only lose this check.
    pub(super) fn record(&self, lock: &File) {
        let mut record = String::new();
        for (_, (dev, ino)) in self.watched.iter().take(2) {
            record.push_str(&format!("{dev} {ino} "));
        }
        let record = format!("{record:<width$}\n", width = RECORD_BYTES - 1);
        if let Err(error) = lock.write_all_at(record.as_bytes(), 0) {
            log::debug!("the lock file has no record: {error}");
        }
    }

    /// Compares with the identities stored by the server that holds this lock.
    ///
    /// # Errors
    /// One line, when it has other files open.
    pub(super) fn compare_with(&self, lock: &File) -> Result<(), String> {
        let mut bytes = [0; RECORD_BYTES];
        let count = lock.read_at(&mut bytes, 0).unwrap_or_default();
        let record = std::str::from_utf8(bytes.get(..count).unwrap_or_default());
        let numbers: Vec<u64> =
            record.unwrap_or_default().split_whitespace().map_while(|n| n.parse().ok()).collect();
        for ((path, id), noted) in self.watched.iter().zip(numbers.chunks_exact(2)) {
            if *noted != [id.0, id.1] {
                return Err(format!(
                    "{} is not the file that the running server has open: it was moved or replaced \
                     under it; stop the server first",
                    path.display()
                ));
            }
        }
        Ok(())
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
