//! The disk as SQLite sees it: a VFS whose files are those of this thread's [`Disk`].
//!
//! The only unsafe code of the simulation: SQLite's VFS interface is in C. Locks and the shared
//! memory of the WAL are implemented, so several connections of one thread work.
#![allow(unsafe_code, reason = "SQLite calls a VFS through C pointers")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Once;

use rusqlite::ffi;
use vestnik::store::FileId;
use vestnik::store::checkpoint::Checkpointer;

use crate::disk::{Code, Disk, Locks};
use crate::rng::Rng;

/// The name of the VFS.
pub(crate) const NAME: &str = "vestnik-sim";
const C_NAME: &CStr = c"vestnik-sim";

thread_local! {
    static DISK: RefCell<Disk> = RefCell::new(Disk::new(Rng::new(0)));
    static OTHER: Cell<Option<Alongside>> = const { Cell::new(None) };
}

/// The checkpointer thread, with a connection of its own: now and then it runs a whole checkpoint
/// before a write or sync of another connection.
pub(crate) struct Alongside {
    pub(crate) checkpointer: Checkpointer,
    pub(crate) rng: Rng,
    /// Once per this many writes and syncs.
    pub(crate) one_in: u64,
}

/// Sets or removes the checkpointer.
pub(crate) fn set_alongside(side: Option<Alongside>) {
    OTHER.set(side);
}

/// Calls `with` on the checkpointer, if it exists and is not running.
pub(crate) fn alongside<T>(with: impl FnOnce(&mut Alongside) -> T) -> Option<T> {
    let mut side = OTHER.take()?;
    let answer = with(&mut side);
    OTHER.set(Some(side));
    Some(answer)
}

fn look_aside() {
    alongside(|side| {
        if side.rng.one_in(side.one_in) {
            side.checkpointer.work();
        }
    });
}

/// Installs another disk, whose predecessor has no open files, and resets SQLite's random numbers.
pub(crate) fn install(disk: Disk) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    DISK.set(disk);
    // SAFETY: no memory is handed over; the call resets a generator behind SQLite's own mutex.
    unsafe { ffi::sqlite3_randomness(0, ptr::null_mut()) };
}

/// Accesses the disk, between calls of SQLite.
pub(crate) fn disk<T>(with: impl FnOnce(&mut Disk) -> T) -> T {
    DISK.with_borrow_mut(with)
}

/// The identity of the file at a path, as the server looks it up.
pub(crate) fn look_up(path: &Path) -> Option<FileId> {
    let inode = disk(|disk| disk.inode(path.to_str()?));
    inode.map(|inode| (0, inode as u64))
}

fn register() {
    let vfs = ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<Handle>() as c_int,
        mxPathname: 512,
        pNext: ptr::null_mut(),
        zName: C_NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    };
    // SAFETY: called before any other function of SQLite, as required. No two threads share a
    // connection, and memory statistics are not used.
    let configured = unsafe {
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_MULTITHREAD)
            | ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0 as c_int)
    };
    assert_eq!(configured, ffi::SQLITE_OK, "SQLite is in use already");
    // SAFETY: SQLite keeps the pointer while the process runs, so the box is leaked. As the default
    // VFS, it also provides SQLite's random numbers.
    let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1) };
    assert_eq!(code, ffi::SQLITE_OK, "the VFS cannot be registered");
}

/// An open file, in memory that SQLite allocates and frees.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    inode: usize,
    /// Failed syncs that this handle knows of.
    failed_syncs: u64,
    /// The lock that this handle holds on the file.
    lock: c_int,
    /// The locks that it holds on the shared memory, one bit each.
    readers: u8,
    writer: u8,
    has_shared: bool,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

fn code(outcome: Result<(), Code>) -> c_int {
    outcome.err().unwrap_or(ffi::SQLITE_OK)
}

/// The handle of a file.
///
/// # Safety
/// [`open`] has made the file, and [`close`] was not called for it.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: the base is the first field, and SQLite uses a file in one call at a time.
    unsafe { &mut *file.cast::<Handle>() }
}

/// The text of a name; temporary files have none.
///
/// # Safety
/// Null, or a string that ends in NUL.
unsafe fn text<'a>(name: *const c_char) -> &'a str {
    if name.is_null() {
        return "temporary";
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(name) }.to_str().expect("names are ASCII here")
}

// SAFETY of all functions below: SQLite calls them as its documentation of sqlite3_vfs and
// sqlite3_io_methods says: pointers are valid for the call, buffers as long as it says, and a file
// is in use by one call at a time.

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let base = ffi::sqlite3_file { pMethods: ptr::null() };
    let mut new = Handle {
        base,
        inode: 0,
        failed_syncs: 0,
        lock: 0,
        readers: 0,
        writer: 0,
        has_shared: false,
    };
    let opened =
        disk(|disk| disk.open(unsafe { text(name) }, flags & ffi::SQLITE_OPEN_CREATE != 0));
    if let Ok(inode) = opened {
        new.inode = inode;
        new.failed_syncs = disk(|disk| disk.file(inode).failed_syncs);
        new.base.pMethods = &raw const METHODS;
    }
    unsafe {
        file.cast::<Handle>().write(new);
        if !flags_out.is_null() {
            flags_out.write(flags);
        }
    }
    code(opened.map(|_| ()))
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe {
        shm_unmap(file, 0);
        unlock(file, ffi::SQLITE_LOCK_NONE);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    code(disk(|disk| disk.delete(unsafe { text(name) }, sync_directory != 0)))
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    let there = disk(|disk| disk.exists(unsafe { text(name) }));
    unsafe { out.write(c_int::from(there)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    let bytes = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count as usize) };
    disk(|disk| disk.random_bytes(bytes));
    count
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // There is only one thread, so sleeping would change nothing.
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    unsafe { out.write(2_461_000.5) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(
    _: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    unsafe { out.write(212_630_443_200_000) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    disk(|disk| disk.errno)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let inode = unsafe { handle(file) }.inode;
    let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), count as usize) };
    code(disk(|disk| disk.read(inode, at as usize, into)))
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    look_aside();
    let inode = unsafe { handle(file) }.inode;
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count as usize) };
    code(disk(|disk| disk.write(inode, at as usize, bytes)))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: ffi::sqlite3_int64) -> c_int {
    let inode = unsafe { handle(file) }.inode;
    code(disk(|disk| disk.truncate(inode, len as usize)))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    look_aside();
    let handle = unsafe { handle(file) };
    code(disk(|disk| disk.sync(handle.inode, &mut handle.failed_syncs)))
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    let inode = unsafe { handle(file) }.inode;
    unsafe { out.write(disk(|disk| disk.size(inode)) as ffi::sqlite3_int64) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    let handle = unsafe { handle(file) };
    if handle.lock >= wanted {
        return ffi::SQLITE_OK;
    }
    let taken = disk(|disk| take_lock(&mut disk.file(handle.inode).locks, handle.lock, wanted));
    if !taken {
        return ffi::SQLITE_BUSY;
    }
    handle.lock = wanted;
    ffi::SQLITE_OK
}

fn take_lock(locks: &mut Locks, held: c_int, wanted: c_int) -> bool {
    let is_free = match wanted {
        ffi::SQLITE_LOCK_SHARED => !locks.exclusive,
        ffi::SQLITE_LOCK_RESERVED => !locks.reserved,
        _ => locks.shared <= 1 && (held >= ffi::SQLITE_LOCK_RESERVED || !locks.reserved),
    };
    if is_free {
        match wanted {
            ffi::SQLITE_LOCK_SHARED => locks.shared += 1,
            ffi::SQLITE_LOCK_RESERVED => locks.reserved = true,
            _ => locks.exclusive = true,
        }
    }
    is_free
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    let handle = unsafe { handle(file) };
    if handle.lock <= wanted {
        return ffi::SQLITE_OK;
    }
    disk(|disk| {
        let locks = &mut disk.file(handle.inode).locks;
        if handle.lock > ffi::SQLITE_LOCK_SHARED {
            locks.reserved = false;
            locks.exclusive = false;
        }
        if wanted == ffi::SQLITE_LOCK_NONE {
            locks.shared = locks.shared.saturating_sub(1);
        }
    });
    handle.lock = wanted;
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    let inode = unsafe { handle(file) }.inode;
    let is_reserved = disk(|disk| disk.file(inode).locks.reserved);
    unsafe { out.write(c_int::from(is_reserved)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // SQLite assumes the same of every disk on Unix.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    region_bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let handle = unsafe { handle(file) };
    let place = disk(|disk| {
        let shared = &mut disk.file(handle.inode).shared;
        if !handle.has_shared {
            handle.has_shared = true;
            shared.users += 1;
        }
        while extend != 0 && shared.regions.len() <= region as usize {
            shared.regions.push(vec![0; region_bytes as usize / 8].into_boxed_slice());
        }
        shared.regions.get_mut(region as usize).map(|region| region.as_mut_ptr().cast())
    });
    unsafe { out.write(place.unwrap_or(ptr::null_mut())) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let handle = unsafe { handle(file) };
    let places = first as usize..(first + count) as usize;
    let is_shared = flags & ffi::SQLITE_SHM_SHARED != 0;
    disk(|disk| {
        let shared = &mut disk.file(handle.inode).shared;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for place in places {
                let bit = 1 << place;
                if handle.readers & bit != 0 {
                    shared.readers[place] -= 1;
                }
                if handle.writer & bit != 0 {
                    shared.writer[place] = false;
                }
                handle.readers &= !bit;
                handle.writer &= !bit;
            }
            return ffi::SQLITE_OK;
        }
        let is_taken = places.clone().any(|place| {
            let mine = u32::from(handle.readers >> place & 1);
            let is_written = shared.writer[place] && handle.writer >> place & 1 == 0;
            is_written || !is_shared && shared.readers[place] > mine
        });
        if is_taken {
            return ffi::SQLITE_BUSY;
        }
        for place in places {
            let bit = 1 << place;
            if !is_shared {
                shared.writer[place] = true;
                handle.writer |= bit;
            } else if handle.readers & bit == 0 {
                shared.readers[place] += 1;
                handle.readers |= bit;
            }
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    let handle = unsafe { handle(file) };
    if handle.has_shared {
        handle.has_shared = false;
        disk(|disk| {
            let shared = &mut disk.file(handle.inode).shared;
            shared.users = shared.users.saturating_sub(1);
            if shared.users == 0 {
                *shared = crate::disk::Shared::default();
            }
        });
    }
    ffi::SQLITE_OK
}
