//! WAL checkpointing by a thread next to the loop.
//!
//! A COMMIT only appends to the log. What is in it has to be copied into the file now and then (a
//! checkpoint), with two syncs, during which the loop would serve nobody. So a thread with a
//! connection of its own does that, woken by the COMMIT that has made the log long. While somebody
//! writes, the thread never quite catches up, and SQLite begins the log anew only when all of it is
//! in the file: what is left when the log has reached its bound, the loop copies itself.
//!
//! Owns the thread, its connection, and when who works. Knows the file and its log; must not know
//! what is in the file, what a turn is, nor a clock.
//!
//! Nothing that was answered depends on a checkpoint: what is committed is in the log, and synced,
//! until all of it is in the file, and that is synced as well. So a checkpoint that fails is only
//! tried again. One whose sync fails is not: pages that were copied before, and that nobody copies
//! again, may be gone from the system's cache without having reached the disk. Then the file is
//! lost to this process, and the next start copies all of the log once more.

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

/// New pages of the log (of 4 KiB each) for which the thread is woken.
const STEP_PAGES: c_int = 500;

/// Pages of the log at which the loop does what is left. Each cycle costs it two syncs, so more of
/// them cost less; the file of the log is as long as the log has ever been.
const LOG_PAGES: c_int = 2000;

/// What the loop and the thread know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The thread was woken, and is not done.
    is_working: AtomicBool,
    is_failing: AtomicBool,
    by_thread: AtomicU64,
    by_loop: AtomicU64,
    failed: AtomicU64,
    lost: OnceLock<String>,
}

/// Checkpoints since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoints {
    /// Of the thread.
    pub by_thread: u64,
    /// Of the loop.
    pub by_loop: u64,
    /// Tried, and to be tried again.
    pub failed: u64,
}

impl Shared {
    /// Whether the thread is at work: it holds the lock that every checkpoint needs.
    pub(super) fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Acquire)
    }

    /// That nobody knows what of the file is on the disk, if it came to that.
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

    /// Notes how a checkpoint went. A disk that is full for an hour is worth one line.
    fn note<T>(&self, count: &AtomicU64, outcome: rusqlite::Result<T>) {
        let Err(error) = outcome else {
            count.fetch_add(1, Ordering::Relaxed);
            if self.is_failing.swap(false, Ordering::Relaxed) {
                log::info!("the log is brought into the data file again");
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
            log::warn!("the log cannot be brought into the data file, and grows: {error}");
        }
    }
}

fn is_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Who is to do something after a COMMIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Worker {
    Nobody,
    Thread,
    Loop,
}

/// When who works, by how long the log is.
#[derive(Debug)]
struct Schedule {
    /// Pages of the log after the last COMMIT, and when somebody was last sent to work.
    pages: c_int,
    copied: c_int,
    /// From how many pages on the loop does what is left, and whether the thread was sent before,
    /// so that little is.
    bound: c_int,
    is_last_round: bool,
}

impl Schedule {
    const fn new() -> Self {
        Self { pages: 0, copied: 0, bound: LOG_PAGES, is_last_round: false }
    }

    /// The WAL has this many pages after a COMMIT.
    fn next(&mut self, pages: c_int, is_thread_free: bool) -> Worker {
        if pages < self.pages {
            // It was begun anew.
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
            // Somebody may read what is older, and then it is no use to try after each COMMIT.
            self.bound = pages.saturating_add(STEP_PAGES);
        }
        worker
    }
}

/// What happens after each COMMIT of the loop.
struct Hook {
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    schedule: Schedule,
}

impl Hook {
    fn committed(&mut self, wal: &mut Wal, pages: c_int) {
        if self.shared.lost.get().is_some() {
            return;
        }
        match self.schedule.next(pages, !self.shared.is_working()) {
            Worker::Nobody => {}
            Worker::Loop => self.work(wal),
            Worker::Thread => {
                self.shared.is_working.store(true, Ordering::Release);
                if self.wake.try_send(()).is_err() {
                    // It is gone.
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

/// The second connection, and what it does when it is woken. The simulation calls it by itself.
#[derive(Debug)]
pub struct Copier {
    db: Connection,
    shared: Arc<Shared>,
    wakes: Receiver<()>,
}

impl Copier {
    /// Opens the second connection to the file behind `db`, which wakes it from now on.
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
        // Until it has read the file it does not know that there is a log.
        own.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let (wake, wakes) = sync_channel(1);
        let mut hook = Hook { shared: Arc::clone(shared), wake, schedule: Schedule::new() };
        // In place of SQLite's own, which `wal_autocheckpoint` has set.
        db.wal_hook(Some(move |wal: &mut Wal, pages: c_int| {
            hook.committed(wal, pages);
            // An error would look as if the COMMIT had failed.
            Ok(())
        }))?;
        Ok(Self { db: own, shared: Arc::clone(shared), wakes })
    }

    /// Copies what there is, unless a sync has failed before.
    pub fn work(&self) {
        let _free = Free(&self.shared);
        let _ = self.wakes.try_recv();
        if !self.is_lost() {
            let copied = self.db.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE);
            self.shared.note(&self.shared.by_thread, copied);
        }
    }

    /// Whether a sync has failed, so that nothing is copied any more.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.get().is_some()
    }

    /// Does it whenever it is woken, until the file is closed.
    fn stay(&self) {
        while self.wakes.recv().is_ok() {
            self.work();
        }
    }
}

/// The thread is free again, whatever became of its work.
struct Free<'a>(&'a Shared);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.is_working.store(false, Ordering::Release);
    }
}

/// Nobody is woken any more.
pub(super) fn let_sleep(db: &mut Connection) -> rusqlite::Result<()> {
    db.wal_hook(None::<fn(&mut Wal, c_int) -> rusqlite::Result<()>>)
}

/// The thread. It ends once nobody can wake it.
#[derive(Debug)]
pub(super) struct Thread(JoinHandle<()>);

impl Thread {
    pub(super) fn start(copier: Copier) -> std::io::Result<Self> {
        let thread = Builder::new().name("vestnik-wal".to_owned());
        thread.spawn(move || copier.stay()).map(Self)
    }

    /// Waits for its end.
    pub(super) fn join(self) {
        if self.0.join().is_err() {
            log::error!("the thread for checkpoints had panicked");
        }
    }
}
