//! Space that is kept for a full disk: a file next to the database that is given up when the disk
//! is full, so that what frees space or keeps somebody out can still be written.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::paths;

/// How much is kept: a few transactions in the WAL, and SQLite's shared memory.
const RESERVE_BYTES: u64 = 1024 * 1024;

/// The smallest disk on which anything is kept.
const DISK_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// The reserve is only taken from a disk that has this much left.
const FREE_BYTES_MIN: u64 = 4 * RESERVE_BYTES;

/// The disk counts as full when less is left: the next transactions may fail.
const FULL_BYTES: u64 = RESERVE_BYTES / 4;

/// The reserve of one database.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// `None`: nothing is kept (in memory, or on a simulated disk).
    file: Option<PathBuf>,
    is_held: Cell<bool>,
    is_given_up: Cell<bool>,
}

/// What a disk holds and what an unprivileged user may still write, in bytes.
fn space(path: &Path) -> Option<(u64, u64)> {
    let disk = statvfs(path.parent()?).ok()?;
    Some((disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize)))
}

impl Reserve {
    /// The reserve of the database at a real path.
    pub(super) fn of(data: &Path) -> Self {
        Self { file: Some(paths::sibling_path(data, ".reserve")), ..Self::default() }
    }

    /// Takes the space, where there is enough. True unless the disk is full still.
    pub(super) fn hold(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let held = file.symlink_metadata().is_ok_and(|file| file.is_file());
        // A command that had to write on a full disk may have given it up.
        let was_held = self.is_held.replace(held);
        let (total, free) = space(file).unwrap_or((0, 0));
        if held || total < DISK_BYTES_MIN {
            self.is_given_up.set(false);
            return true;
        }
        if free < FREE_BYTES_MIN {
            // What is left may be the space that was given up before a restart.
            let is_given_up =
                self.is_given_up.get() || was_held || free < RESERVE_BYTES + FULL_BYTES;
            self.is_given_up.set(is_given_up);
            return !self.is_given_up.get();
        }
        let taken = paths::create_private(file).and_then(|taken| {
            if let Some(data) = data_of(file) {
                paths::give_to_owner_of(&taken, &data);
            }
            fill(&taken)
        });
        if let Err(error) = taken {
            log::debug!("no space is kept for a full disk: {error}");
            let _ = std::fs::remove_file(file);
            return !self.is_given_up.get();
        }
        self.is_held.set(true);
        self.is_given_up.set(false);
        true
    }

    /// Gives the space back to the disk. True when there was any.
    pub(super) fn give_up(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let is_ours = file.symlink_metadata().is_ok_and(|file| file.is_file());
        let given = is_ours && std::fs::remove_file(file).is_ok();
        if given {
            self.is_given_up.set(true);
        }
        given
    }

    /// Gives the space up when the disk has none left. True when there was any.
    pub(super) fn give_up_when_full(&self) -> bool {
        let free = self.file.as_deref().and_then(space).map_or(u64::MAX, |(_, free)| free);
        free < FULL_BYTES && self.give_up()
    }

    /// Whether the space was given up and is not back yet.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }
}

/// The database to which a reserve belongs.
fn data_of(reserve: &Path) -> Option<PathBuf> {
    Some(reserve.with_file_name(reserve.file_name()?.to_str()?.strip_suffix(".reserve")?))
}

/// Makes the space real: a file with a hole would take nothing.
fn fill(file: &File) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let chunk = [0xA5; 64 * 1024];
            for at in (0..RESERVE_BYTES).step_by(chunk.len()) {
                std::os::unix::fs::FileExt::write_all_at(file, &chunk, at)?;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}
