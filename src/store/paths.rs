//! The files next to the database: their paths, how they are created, and locks.
//!
//! A command may run as root in a folder that another user can write to. So no file is created or
//! opened through a symbolic link, and only a newly created file changes its owner.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::error::describe_path;

/// The path of a sibling file of another one.
pub(super) fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The absolute path of an existing file, without links. SQLite never takes an absolute path for a
/// URI or a special name such as `:memory:`.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// The same for a file to be created in an existing folder.
pub(super) fn real_new(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(folder.canonicalize()?.join(name))
}

/// Creates a file that only its owner can read. Fails if the name exists.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    // O_EXCL does not follow links.
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Changes the owner of a new file to that of another one, if this process may.
pub(super) fn give_to_owner_of(file: &File, other: &Path) {
    if let (Ok(made), Ok(owner)) = (file.metadata(), other.metadata())
        && made.uid() != owner.uid()
        && let Err(error) = fchown(file, Some(owner.uid()), Some(owner.gid()))
    {
        log::debug!("a file next to {} keeps its owner: {error}", other.display());
    }
}

/// Opens an existing file for locking; rejects links and files whose opening would block.
pub(super) fn open_existing(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags as i32).open(path);
    let file = file.map_err(|e| match e.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
            io::Error::other("is a symbolic link, which is not followed: remove it")
        }
        _ => e,
    })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file: remove it"));
    }
    Ok(file)
}

/// Locks the database until the process ends, by a sibling file with this suffix. `None` when
/// another process has the lock.
///
/// The data file itself is not used: closing any descriptor of it would drop SQLite's locks.
///
/// # Errors
/// One line, when there is no data file or the lock file cannot be created.
pub fn lock(data: &Path, suffix: &str) -> Result<Option<File>, String> {
    // By whatever link the database is reached, its lock is the same.
    let real = real(data).map_err(|e| describe_path(data, &e))?;
    let name = sibling_path(&real, suffix);
    let failed = |e: io::Error| describe_path(&name, &e);
    let file = match create_private(&name) {
        Ok(file) => {
            // A lock file created by root must not lock out the owner of the database.
            give_to_owner_of(&file, &real);
            file
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => open_existing(&name).map_err(failed)?,
        Err(e) => return Err(failed(e)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// Syncs a file.
pub(super) fn sync(path: &Path) -> Result<(), String> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| describe_path(path, &e))
}

/// Renames a file within its folder. Fails if the new name exists.
pub(super) fn rename_noclobber(file: &Path, name: &Path) -> Result<(), String> {
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::AlreadyExists => format!("{}: exists already", name.display()),
        _ => describe_path(name, &e),
    };
    match renameat_with(CWD, file, CWD, name, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // Some file systems cannot do that atomically.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if name.symlink_metadata().is_ok() {
                return Err(failed(ErrorKind::AlreadyExists.into()));
            }
            std::fs::rename(file, name).map_err(failed)?;
        }
        Err(error) => return Err(failed(error.into())),
    }
    sync(match name.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_is_special_to_sqlite() {
        for name in [":memory:", "file:x?mode=memory", "x"] {
            let path = real_new(Path::new(name)).expect("the folder is there");
            assert!(path.is_absolute() && path.ends_with(name), "{}", path.display());
        }
        assert!(real_new(Path::new("..")).is_err());
    }

    #[test]
    fn a_lock_follows_no_link_and_keeps_its_owner() {
        let folder = std::env::temp_dir().join(format!("vestnik-paths-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (data, other) = (folder.join("t.db"), folder.join("other"));
        std::fs::write(&data, "").expect("a file");
        std::fs::write(&other, "mine").expect("a file");
        std::os::unix::fs::symlink(&other, folder.join("t.db.lock")).expect("a link");
        let refused = lock(&data, ".lock").expect_err("a link");
        assert!(refused.contains("symbolic link"), "{refused}");
        std::fs::remove_file(folder.join("t.db.lock")).expect("removed");
        let held = lock(&data, ".lock").expect("a lock file");
        assert!(held.is_some() && lock(&data, ".lock").expect("a lock file").is_none());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
