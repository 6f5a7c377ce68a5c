//! WAL checkpointing: by a checkpointer thread alongside the event loop.
//!
//! A COMMIT only appends to the WAL. Now and then its pages have to be copied to the database (a
//! checkpoint), with two syncs, during which the loop could serve nobody. So a thread with a
//! connection of its own does that, woken by the COMMIT that made the WAL long. While the loop
//! writes, the thread never quite catches up, and SQLite restarts the WAL only after all of it is
//! checkpointed: when it reaches its bound, the loop checkpoints the rest itself.
//!
//! Owns the thread, its connection, and the schedule. It does not know tables, turns or clocks.
//!
//! No answer depends on a checkpoint: committed data is in the WAL, synced, until all of it is in
//! the database and that is synced, too. So a failed checkpoint is simply retried, unless a sync
//! has failed: then pages that were copied earlier, and would not be copied again, may have been
//! dropped from the system's cache without reaching the disk. The database is lost to this process
//! then, and the next start checkpoints the whole WAL again.

use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, ffi};

use super::{StoreError, StoreResult};

/// New pages of the WAL (4 KiB each) after which the thread is woken.
const STEP_PAGES: c_int = 500;

/// Pages of the WAL at which the loop checkpoints the rest. Each cycle costs the loop two syncs, so
/// a larger bound costs less; the WAL file never shrinks below its longest use.
const LOG_PAGES: c_int = 2000;

/// State shared by the loop and the thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Another program checkpoints the WAL; this one never does.
    is_external: bool,
    /// The thread was woken, and has not finished.
    is_working: AtomicBool,
    /// No checkpoint is run: on a full disk it would fill the space that small requests need.
    is_paused: AtomicBool,
    is_failing: AtomicBool,
    by_thread: AtomicU64,
    by_loop: AtomicU64,
    failed: AtomicU64,
    lost: OnceLock<String>,
}

/// Checkpoints since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoints {
    /// By the thread.
    pub by_thread: u64,
    /// By the loop.
    pub by_loop: u64,
    /// Failed, to be retried.
    pub failed: u64,
}

impl Shared {
    /// For a database whose WAL another program checkpoints.
    pub(super) fn external() -> Self {
        Self { is_external: true, ..Self::default() }
    }

    /// Whether another program checkpoints the WAL.
    pub(super) const fn is_external(&self) -> bool {
        self.is_external
    }

    /// Whether the thread is running a checkpoint, and so holds the lock that every checkpoint
    /// needs.
    pub(super) fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Acquire)
    }

    /// Pauses or resumes checkpoints. One in progress is completed.
    pub(super) fn pause(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Release);
    }

    /// Whether checkpoints are paused.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// An error if nobody can know what is on the disk.
    pub(super) fn still_known(&self) -> StoreResult<()> {
        self.lost.get().map_or(Ok(()), |words| Err(StoreError::lost(words)))
    }

    pub(super) fn counts(&self) -> Checkpoints {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Checkpoints {
            by_thread: of(&self.by_thread),
            by_loop: of(&self.by_loop),
            failed: of(&self.failed),
        }
    }

    /// Counts the result of a checkpoint. Repeated failures are logged once.
    fn note<T>(&self, count: &AtomicU64, outcome: rusqlite::Result<T>) {
        let Err(error) = outcome else {
            count.fetch_add(1, Ordering::Relaxed);
            if self.is_failing.swap(false, Ordering::Relaxed) {
                log::info!("WAL checkpoints succeed again");
            }
            return;
        };
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
            // Another process is at it.
            return;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        if is_sync(&error) {
            self.lost.get_or_init(|| format!("the sync of a checkpoint failed: {error}"));
        } else if !self.is_failing.swap(true, Ordering::Relaxed) {
            log::warn!("the WAL cannot be checkpointed, and grows: {error}");
        }
    }
}

fn is_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Who runs a checkpoint after a COMMIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Worker {
    Nobody,
    Thread,
    Loop,
}

/// The schedule of checkpoints, by the length of the WAL.
#[derive(Debug)]
struct Schedule {
    /// Pages of the WAL after the last COMMIT, and at the last checkpoint.
    pages: c_int,
    copied: c_int,
    /// Pages at which the loop checkpoints the rest, and whether the thread has just run, so that
    /// little is left.
    bound: c_int,
    is_last_round: bool,
}

impl Schedule {
    const fn new() -> Self {
        Self { pages: 0, copied: 0, bound: LOG_PAGES, is_last_round: false }
    }

    /// Decides after a COMMIT that leaves the WAL with this many pages.
    fn next(&mut self, pages: c_int, is_thread_free: bool) -> Worker {
        if pages < self.pages {
            // The WAL was restarted.
            *self = Self::new();
        }
        self.pages = pages;
        if !is_thread_free {
            return Worker::Nobody;
        }
        let worker = if pages >= self.bound {
            if self.is_last_round { Worker::Loop } else { Worker::Thread }
        } else if pages - self.copied >= STEP_PAGES {
            Worker::Thread
        } else {
            return Worker::Nobody;
        };
        self.copied = pages;
        self.is_last_round = worker == Worker::Thread && pages >= self.bound;
        if worker == Worker::Loop {
            // A reader may hold back the checkpoint; then retrying after each COMMIT is useless.
            self.bound = pages.saturating_add(STEP_PAGES);
        }
        worker
    }
}

/// The hook that SQLite calls after each COMMIT of the loop.
struct Hook {
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    schedule: Schedule,
}

impl Hook {
    fn committed(&mut self, wal: &mut Wal, pages: c_int) {
        if self.shared.lost.get().is_some() || self.shared.is_paused() {
            return;
        }
        match self.schedule.next(pages, !self.shared.is_working()) {
            Worker::Nobody => {}
            Worker::Loop => self.work(wal),
            Worker::Thread => {
                self.shared.is_working.store(true, Ordering::Release);
                if self.wake.try_send(()).is_err() {
                    // The thread has ended.
                    self.shared.is_working.store(false, Ordering::Release);
                    self.work(wal);
                }
            }
        }
    }

    fn work(&self, wal: &mut Wal) {
        self.shared.note(&self.shared.by_loop, wal.checkpoint());
    }
}

/// The checkpointer: the second connection, and its work. The simulation calls it directly.
#[derive(Debug)]
pub struct Checkpointer {
    db: Connection,
    shared: Arc<Shared>,
    wakes: Receiver<()>,
}

impl Checkpointer {
    /// Opens the second connection to the database of `db`, whose COMMITs wake it from now on.
    pub(super) fn open(
        db: &mut Connection,
        shared: &Arc<Shared>,
        path: &Path,
        vfs: Option<&str>,
    ) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let own = match vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
            None => Connection::open_with_flags(path, flags),
        }?;
        own.busy_timeout(Duration::ZERO)?;
        own.pragma_update(None, "synchronous", "FULL")?;
        // Only after a read does the connection know that there is a WAL.
        own.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let (wake, wakes) = sync_channel(1);
        let mut hook = Hook { shared: Arc::clone(shared), wake, schedule: Schedule::new() };
        // Replaces SQLite's own hook, set by `wal_autocheckpoint`.
        db.wal_hook(Some(move |wal: &mut Wal, pages: c_int| {
            hook.committed(wal, pages);
            // An error would look like a failed COMMIT.
            Ok(())
        }))?;
        Ok(Self { db: own, shared: Arc::clone(shared), wakes })
    }

    /// Runs a checkpoint, unless a sync has failed before.
    pub fn work(&self) {
        let _free = Free(&self.shared);
        let _ = self.wakes.try_recv();
        if !self.is_lost() && !self.shared.is_paused() {
            let copied = self.db.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE);
            self.shared.note(&self.shared.by_thread, copied);
        }
    }

    /// Whether a sync has failed: no further checkpoint is run.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.get().is_some()
    }

    /// Runs a checkpoint whenever it is woken, until the database is closed.
    fn stay(&self) {
        while self.wakes.recv().is_ok() {
            self.work();
        }
    }
}

/// Marks the thread as idle on drop, whatever the result.
struct Free<'a>(&'a Shared);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.is_working.store(false, Ordering::Release);
    }
}

/// Removes the hook: the thread is not woken any more.
pub(super) fn remove_hook(db: &mut Connection) -> rusqlite::Result<()> {
    db.wal_hook(None::<fn(&mut Wal, c_int) -> rusqlite::Result<()>>)
}

/// The checkpointer thread. It ends when nobody can wake it any more.
#[derive(Debug)]
pub(super) struct Thread(JoinHandle<()>);

impl Thread {
    pub(super) fn start(checkpointer: Checkpointer) -> std::io::Result<Self> {
        let thread = Builder::new().name("vestnik-wal".to_owned());
        thread.spawn(move || checkpointer.stay()).map(Self)
    }

    /// Waits for its end.
    pub(super) fn join(self) {
        if self.0.join().is_err() {
            log::error!("the checkpointer thread has panicked");
        }
    }
}
