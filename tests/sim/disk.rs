//! A simulated disk that can lose unsynced data, and that fails on request.
//!
//! A file consists of the bytes that the system shows (`shown`), those that would survive a power
//! cut (`durable`), and the changes in between, in order. A sync makes them durable. At a power
//! cut, each sector of each change is kept or lost independently, so writes are lost, torn and
//! reordered. The same holds for names in the directory. It knows only the result codes of SQLite.

use std::collections::BTreeMap;

use rusqlite::ffi;

use crate::rng::Rng;

/// Bytes that a disk writes atomically.
const SECTOR_BYTES: usize = 512;

/// A result code of SQLite for a failed call.
pub(crate) type Code = i32;

/// Rates of faults, each once per this many calls; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) read: u64,
    pub(crate) short_read: u64,
    pub(crate) write: u64,
    pub(crate) full: u64,
    pub(crate) sync: u64,
    pub(crate) truncate: u64,
    pub(crate) delete: u64,
    pub(crate) open: u64,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// The locks on a file, as SQLite defines them.
#[derive(Default)]
pub(crate) struct Locks {
    pub(crate) shared: u32,
    pub(crate) reserved: bool,
    pub(crate) exclusive: bool,
}

/// The shared memory of the connections to a file, and its eight locks.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) regions: Vec<Box<[u64]>>,
    pub(crate) readers: [u32; 8],
    pub(crate) writer: [bool; 8],
    pub(crate) users: u32,
}

#[derive(Default)]
pub(crate) struct File {
    /// SQLite takes a short read of anything but the WAL as the end of the file.
    is_log: bool,
    shown: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Failed syncs. Every handle that was open then gets the error at its next sync.
    pub(crate) failed_syncs: u64,
    pub(crate) locks: Locks,
    pub(crate) shared: Shared,
}

/// The kind of a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// The process ends; the system keeps all writes.
    Kill,
    /// Unsynced writes may be lost.
    PowerCut,
}

/// When the process crashes by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doom {
    /// After this many more changes.
    Changes(u64),
    /// At the next sync: everything is written, but the process does not learn it.
    Sync,
}

pub(crate) struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    rng: Rng,
    pub(crate) faults: Faults,
    /// The disk is full.
    pub(crate) is_full: bool,
    /// Writes have no effect any more: the process is about to end.
    dead: bool,
    doom: Option<Doom>,
    /// A file that was moved away.
    moved: Option<(String, usize)>,
    /// Faults that occurred, in reads and in other calls.
    pub(crate) failed_reads: u64,
    pub(crate) failed_writes: u64,
    /// The last errno.
    pub(crate) errno: i32,
    pub(crate) syncs: u64,
    pub(crate) writes: u64,
}

const EIO: i32 = 5;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;

impl Disk {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            rng,
            faults: Faults::default(),
            is_full: false,
            dead: false,
            doom: None,
            moved: None,
            failed_reads: 0,
            failed_writes: 0,
            errno: 0,
            syncs: 0,
            writes: 0,
        }
    }

    pub(crate) fn file(&mut self, inode: usize) -> &mut File {
        &mut self.files[inode]
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Crashes: nothing is written from now on.
    pub(crate) fn die(&mut self) {
        self.dead = true;
    }

    /// Schedules a crash.
    pub(crate) fn doom(&mut self, doom: Doom) {
        self.doom = Some(doom);
    }

    /// Whether a fault may occur soon.
    pub(crate) fn is_risky(&self) -> bool {
        let f = self.faults;
        self.doom.is_some()
            || self.moved.is_some()
            || self.is_full
            || f.write + f.full + f.sync + f.truncate + f.delete + f.open > 0
    }

    /// Turns off faults until [`Disk::misbehave`].
    pub(crate) fn behave(&mut self) -> (Faults, Option<Doom>) {
        (std::mem::take(&mut self.faults), self.doom.take())
    }

    pub(crate) fn misbehave(&mut self, (faults, doom): (Faults, Option<Doom>)) {
        self.faults = faults;
        self.doom = doom;
    }

    /// Restarts the machine; all files are closed by now.
    pub(crate) fn revive(&mut self, death: Death) {
        self.dead = false;
        self.doom = None;
        self.is_full = false;
        for file in &mut self.files {
            file.locks = Locks::default();
            file.shared = Shared::default();
        }
        if death == Death::PowerCut {
            self.lose_names();
            let kept = self.rng.weighted(&[(2, 0), (1, 10), (3, 50), (1, 90), (1, 100)]);
            for file in &mut self.files {
                file.lose(&mut self.rng, kept);
            }
        }
    }

    fn lose_names(&mut self) {
        let all: Vec<String> =
            self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in all {
            if self.rng.one_in(2) {
                match self.durable_names.get(&name) {
                    Some(&inode) => self.names.insert(name, inode),
                    None => self.names.remove(&name),
                };
            }
        }
        self.durable_names = self.names.clone();
    }

    pub(crate) fn random_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.rng.next() as u8;
        }
    }

    /// Moves a file away, to an unknown name.
    pub(crate) fn move_away(&mut self, name: &str) {
        if let Some(inode) = self.names.remove(name) {
            self.durable_names.remove(name);
            self.moved = Some((name.to_owned(), inode));
        }
    }

    /// Moves the file back.
    pub(crate) fn put_back(&mut self) {
        if let Some((name, inode)) = self.moved.take() {
            self.durable_names.insert(name.clone(), inode);
            self.names.insert(name, inode);
        }
    }

    /// The inode of a name.
    pub(crate) fn inode(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// All bytes of a file, to be changed behind everyone's back.
    pub(crate) fn bytes_mut(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        let inode = self.inode(name)?;
        Some(&mut self.files[inode].shown)
    }

    // ---- calls of SQLite -----------------------------------------------------------------------

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn open(&mut self, name: &str, create: bool) -> Result<usize, Code> {
        if let Some(&inode) = self.names.get(name) {
            return self.fault(self.faults.open, ffi::SQLITE_CANTOPEN, EIO).map(|()| inode);
        }
        if !create {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        self.change()?;
        self.fault(self.faults.open, ffi::SQLITE_CANTOPEN, EIO)?;
        self.files.push(File { is_log: name.ends_with("-wal"), ..File::default() });
        self.names.insert(name.to_owned(), self.files.len() - 1);
        Ok(self.files.len() - 1)
    }

    pub(crate) fn delete(&mut self, name: &str, sync_directory: bool) -> Result<(), Code> {
        self.change()?;
        self.fault(self.faults.delete, ffi::SQLITE_IOERR_DELETE, EIO)?;
        if self.names.remove(name).is_none() {
            return Err(ffi::SQLITE_IOERR_DELETE_NOENT);
        }
        if sync_directory {
            self.durable_names = self.names.clone();
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, inode: usize, at: usize, into: &mut [u8]) -> Result<(), Code> {
        if self.dead || self.rng.one_in(self.faults.read) {
            self.failed_reads += 1;
            self.errno = EIO;
            return Err(ffi::SQLITE_IOERR_READ);
        }
        let mut whole = into.len();
        if self.files[inode].is_log && self.rng.one_in(self.faults.short_read) {
            self.failed_reads += 1;
            whole = self.rng.index(into.len());
        }
        let shown = &self.files[inode].shown;
        let there = shown.len().saturating_sub(at).min(whole);
        into[..there].copy_from_slice(&shown[at.min(shown.len())..][..there]);
        into[there..].fill(0);
        if there < into.len() { Err(ffi::SQLITE_IOERR_SHORT_READ) } else { Ok(()) }
    }

    pub(crate) fn write(&mut self, inode: usize, at: usize, bytes: &[u8]) -> Result<(), Code> {
        self.writes += 1;
        let was_dead = self.dead;
        let outcome = self.change().and_then(|()| {
            self.fault(self.faults.write, ffi::SQLITE_IOERR_WRITE, EIO)?;
            let full = if self.is_full { 1 } else { self.faults.full };
            let is_at_limit = self.rng.one_in(4);
            match is_at_limit {
                true => self.fault(full, ffi::SQLITE_IOERR_WRITE, EFBIG),
                false => self.fault(full, ffi::SQLITE_FULL, ENOSPC),
            }
        });
        // A failed write may be partly done.
        let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
        let done = match outcome {
            Ok(()) => bytes.len(),
            Err(_) if was_dead => 0,
            Err(_) => (self.rng.below(sectors) as usize * SECTOR_BYTES).min(bytes.len()),
        };
        // When the WAL is reused, the rest may already be there, from an older version of the same
        // page. Then the write would be complete, and the next start would find a commit that was
        // reported as failed; no server could prevent that. So undo it.
        let there = self.files[inode].shown.get(at + done..at + bytes.len());
        let done = if outcome.is_err() && there == bytes.get(done..) { 0 } else { done };
        if done > 0 {
            let change = Change::Write { at, bytes: bytes[..done].to_vec() };
            self.files[inode].apply(change);
        }
        outcome
    }

    pub(crate) fn truncate(&mut self, inode: usize, len: usize) -> Result<(), Code> {
        self.change()?;
        self.fault(self.faults.truncate, ffi::SQLITE_IOERR_TRUNCATE, EIO)?;
        self.files[inode].apply(Change::Truncate(len));
        Ok(())
    }

    /// Syncs for a handle that knows of this many failed syncs.
    pub(crate) fn sync(&mut self, inode: usize, known: &mut u64) -> Result<(), Code> {
        self.syncs += 1;
        self.dead |= self.doom == Some(Doom::Sync);
        self.change()?;
        if self.rng.one_in(self.faults.sync) {
            self.files[inode].forget(&mut self.rng);
        }
        let failed = self.files[inode].failed_syncs;
        if std::mem::replace(known, failed) < failed {
            return self.fault(1, ffi::SQLITE_IOERR_FSYNC, EIO);
        }
        self.files[inode].sync();
        // The first sync of a new file also syncs the directory, as SQLite's own VFS does.
        let is_new = !self.durable_names.values().any(|&durable| durable == inode);
        if is_new {
            self.durable_names = self.names.clone();
        }
        Ok(())
    }

    /// Whether a sync of a file that is there has ever failed.
    pub(crate) fn has_failed_syncs(&self) -> bool {
        self.names.values().any(|&inode| self.files[inode].failed_syncs > 0)
    }

    pub(crate) fn size(&self, inode: usize) -> usize {
        self.files[inode].shown.len()
    }

    /// Counts a change; the last one before a crash fails.
    fn change(&mut self) -> Result<(), Code> {
        if let Some(Doom::Changes(left)) = &mut self.doom {
            *left = left.saturating_sub(1);
            self.dead |= *left == 0;
        }
        if self.dead {
            self.errno = EIO;
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
        Ok(())
    }

    fn fault(&mut self, one_in: u64, code: Code, errno: i32) -> Result<(), Code> {
        if self.rng.one_in(one_in) {
            self.failed_writes += 1;
            self.errno = errno;
            return Err(code);
        }
        Ok(())
    }
}

impl File {
    fn apply(&mut self, change: Change) {
        change_bytes(&mut self.shown, &change, |_| true);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change_bytes(&mut self.durable, &change, |_| true);
        }
    }

    /// After a failed sync: the system still shows the unwritten changes but marks some as written,
    /// and the next sync succeeds. Not for the WAL: the next start could read what is not on disk,
    /// which no server can detect.
    fn forget(&mut self, rng: &mut Rng) {
        self.failed_syncs += 1;
        let forgets = !self.is_log && rng.one_in(2);
        let is_write = |change: &Change| matches!(change, Change::Write { .. });
        self.changes.retain(|change| !(forgets && is_write(change) && rng.one_in(2)));
    }

    fn lose(&mut self, rng: &mut Rng, kept_percent: u64) {
        for change in self.changes.drain(..) {
            change_bytes(&mut self.durable, &change, |_| rng.below(100) < kept_percent);
        }
        self.shown.clone_from(&self.durable);
    }
}

/// Applies a change to the bytes of a file, sector by sector where `is_kept` allows it.
fn change_bytes(file: &mut Vec<u8>, change: &Change, mut is_kept: impl FnMut(usize) -> bool) {
    match change {
        Change::Truncate(len) => {
            if *len < file.len() && is_kept(*len) {
                file.truncate(*len);
            }
        }
        Change::Write { at, bytes } => {
            let mut start = 0;
            while start < bytes.len() {
                let sector_end = (at + start) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                let end = bytes.len().min(sector_end - at);
                if is_kept(at + start) {
                    if file.len() < at + end {
                        file.resize(at + end, 0);
                    }
                    file[at + start..at + end].copy_from_slice(&bytes[start..end]);
                }
                start = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut disk = Disk::new(Rng::new(seed));
            let file = disk.open("a", true).expect("made");
            disk.write(file, 0, &[1; 1024]).expect("written");
            disk.sync(file, &mut 0).expect("synced");
            disk.write(file, 256, &[2; 512]).expect("written");
            disk.die();
            assert!(disk.write(file, 0, &[3; 512]).is_err(), "nothing is written after the end");
            disk.revive(Death::PowerCut);
            let mut bytes = [0; 1024];
            disk.read(file, 0, &mut bytes).expect("read");
            assert!(bytes[..256].iter().chain(&bytes[768..]).all(|&byte| byte == 1));
            outcomes.insert((bytes[256], bytes[512]));
        }
        assert_eq!(outcomes.len(), 4, "each sector is kept or lost on its own: {outcomes:?}");
    }

    #[test]
    fn a_kill_loses_nothing_and_a_new_name_needs_its_sync() {
        let mut vanished = 0;
        for seed in 0..100 {
            let mut disk = Disk::new(Rng::new(seed));
            let file = disk.open("a", true).expect("made");
            disk.write(file, 0, &[7; 10]).expect("written");
            disk.die();
            disk.revive(Death::Kill);
            assert_eq!(disk.size(file), 10);
            disk.die();
            disk.revive(Death::PowerCut);
            vanished += u32::from(!disk.exists("a"));
        }
        assert!(vanished > 20 && vanished < 80, "{vanished}");
    }
}
