//! The reserve: a file next to the database that is deleted when the disk is full, so that requests
//! that free space or block a user can still be written.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::paths;

/// Size of the reserve: enough for a few transactions in the WAL, and for SQLite's shared memory.
const RESERVE_BYTES: u64 = 1024 * 1024;

/// Smallest disk that gets a reserve.
const DISK_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// The reserve is created only if this much space is free.
pub(super) const FREE_BYTES_MIN: u64 = 4 * RESERVE_BYTES;

/// With less free space the disk counts as full: the next transactions may fail.
const FULL_BYTES: u64 = RESERVE_BYTES / 4;

/// The reserve of one database.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// `None`: no reserve, as for a database in memory or on a simulated disk.
    file: Option<PathBuf>,
    is_held: Cell<bool>,
    is_given_up: Cell<bool>,
}

/// The size of a disk, and the space free to an unprivileged user, in bytes.
fn space(path: &Path) -> Option<(u64, u64)> {
    let disk = statvfs(path.parent()?).ok()?;
    Some((disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize)))
}

/// Bytes by which a checkpoint makes the database file larger.
pub(super) fn growth_bytes(db: &Connection) -> u64 {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let needed = db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or_default();
    let file = db.path().and_then(|path| std::fs::metadata(path).ok());
    file.map_or(0, |file| u64::try_from(needed).unwrap_or_default().saturating_sub(file.len()))
}

/// Whether a checkpoint would leave less than half the reserve. Without one the WAL is never
/// reused, so every small request takes more space: one that fits is better run than paused.
pub(super) fn is_checkpoint_too_large(db: &Connection) -> bool {
    let Some(wal) = LogOnDisk::of(db) else { return false };
    wal.is_short_of(RESERVE_BYTES / 2)
}

/// Whether a checkpoint should be run soon: there is barely space for it, or for a longer WAL.
pub(super) fn is_checkpoint_urgent(db: &Connection) -> bool {
    let Some(wal) = LogOnDisk::of(db) else { return false };
    wal.is_short_of(2 * RESERVE_BYTES)
        || wal.bytes >= RESERVE_BYTES && wal.free_bytes < 2 * RESERVE_BYTES
}

/// The WAL of a database, and the disk that they are on.
struct LogOnDisk<'a> {
    db: &'a Connection,
    bytes: u64,
    free_bytes: u64,
}

impl<'a> LogOnDisk<'a> {
    /// `None` for a database that is on no disk.
    fn of(db: &'a Connection) -> Option<Self> {
        let data = Path::new(db.path()?);
        let (_, free_bytes) = space(data)?;
        let wal = std::fs::metadata(paths::sibling_path(data, "-wal"));
        Some(Self { db, bytes: wal.map_or(0, |wal| wal.len()), free_bytes })
    }

    /// Whether a checkpoint makes the database larger, and leaves less free space than this.
    fn is_short_of(&self, bytes: u64) -> bool {
        let is_short = |growth: u64| self.free_bytes < growth.saturating_add(bytes);
        // It grows by no more than the WAL has.
        is_short(self.bytes) && {
            let growth = growth_bytes(self.db);
            growth > 0 && is_short(growth)
        }
    }
}

impl Reserve {
    /// The reserve of the database at a real path.
    pub(super) fn of(data: &Path) -> Self {
        Self { file: Some(paths::sibling_path(data, ".reserve")), ..Self::default() }
    }

    /// Creates the reserve if there is enough space. False while the disk is still full.
    pub(super) fn hold(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let held = file.symlink_metadata().is_ok_and(|file| file.is_file());
        // A command may have given it up, to write on a full disk.
        let was_held = self.is_held.replace(held);
        let (total, free) = space(file).unwrap_or((0, 0));
        if held || total < DISK_BYTES_MIN {
            self.is_given_up.set(false);
            return true;
        }
        if free < FREE_BYTES_MIN {
            // The free space may be that of the reserve, given up before a restart.
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

    /// Deletes the reserve. True if there was one.
    pub(super) fn give_up(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let is_ours = file.symlink_metadata().is_ok_and(|file| file.is_file());
        let given = is_ours && std::fs::remove_file(file).is_ok();
        if given {
            self.is_given_up.set(true);
        }
        given
    }

    /// Whether the disk is full: the next transactions may fail.
    pub(super) fn is_disk_full(&self) -> bool {
        self.free_bytes() < FULL_BYTES
    }

    /// Whether less than half the reserve's space is free.
    pub(super) fn is_half_used(&self) -> bool {
        self.free_bytes() < RESERVE_BYTES / 2
    }

    /// The space free on its disk.
    fn free_bytes(&self) -> u64 {
        self.file.as_deref().and_then(space).map_or(u64::MAX, |(_, free)| free)
    }

    /// Deletes the reserve if the disk is full. True if there was one.
    pub(super) fn give_up_when_full(&self) -> bool {
        self.is_disk_full() && self.give_up()
    }

    /// Whether the reserve was given up and is not back yet.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }
}

/// The database that a reserve belongs to.
fn data_of(reserve: &Path) -> Option<PathBuf> {
    Some(reserve.with_file_name(reserve.file_name()?.to_str()?.strip_suffix(".reserve")?))
}

/// Allocates the space; a sparse file would not reserve anything.
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
