//! Saved sessions, so that the password is asked for once.
//!
//! Each is a file in the user's state folder, readable by its owner only.
//!
//! A session has one connection at a time, so a client locks the file of its session.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use purpose::client::Session;
use serde::{Deserialize, Serialize};
use vestnik::ids::{SessionId, UserId};
use vestnik::names::name_key;
use zeroize::{Zeroize, Zeroizing};

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The folder of saved sessions.
pub(super) struct Folder(PathBuf);

/// The slot of one user's session on one server, locked by this process.
pub(super) struct Slot {
    file: PathBuf,
    _lock: File,
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct SavedSession {
    server: String,
    user: String,
    user_id: u32,
    session: u32,
    hash: String,
}

impl Drop for SavedSession {
    fn drop(&mut self) {
        self.hash.zeroize();
    }
}

impl Folder {
    /// `$XDG_STATE_HOME/vestnik`, or `~/.local/state/vestnik`; `None` if neither variable is set.
    pub(super) fn find() -> Option<Self> {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME");
        let state = state.or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        state.map(|state| Self(state.join("vestnik")))
    }

    #[cfg(test)]
    fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The pinned fingerprint of a server, if any.
    pub(super) fn pin(&self, server: &str) -> Option<String> {
        let mut text = String::new();
        let file = File::open(self.pin_file(server)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|pin| !pin.is_empty())
    }

    /// Pins the fingerprint of a server, so that later connections use TLS with it.
    pub(super) fn remember_pin(&self, server: &str, fingerprint: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let new = self.0.join(format!("{}.new-pin", encode(server)));
        write(new, &self.pin_file(server), &format!("{fingerprint}\n"))
    }

    fn pin_file(&self, server: &str) -> PathBuf {
        self.0.join(format!("{}.pin", encode(server)))
    }

    /// Locks the slot of a session; `None` if another process has it.
    pub(super) fn slot(&self, server: &str, user: &str) -> io::Result<Option<Slot>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let name = format!("{}@{}", encode(&user_key(user)), encode(server));
        let file = self.0.join(format!("{name}.session"));
        let lock = self.0.join(format!("{name}.lock"));
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Slot { file, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The user of the newest session on this server.
    pub(super) fn last_user(&self, server: &str) -> Option<String> {
        let end = format!("@{}.session", encode(server));
        let files = fs::read_dir(&self.0).ok()?.flatten();
        let mine = files.filter(|file| file.file_name().to_string_lossy().ends_with(&end));
        let made = |file: &fs::DirEntry| {
            file.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let last = mine.max_by_key(made)?;
        read(&last.path()).map(|kept| kept.user.clone())
    }
}

impl Slot {
    /// Loads the saved session, if any. A damaged file counts as none.
    pub(super) fn read(&self) -> Option<Session> {
        let kept = read(&self.file)?;
        Some(Session {
            id: SessionId::new(kept.session)?,
            hash: kept.hash.clone(),
            user: UserId::new(kept.user_id),
        })
    }

    /// Saves a session atomically.
    pub(super) fn write(&self, server: &str, user: &str, session: &Session) -> io::Result<()> {
        let kept = SavedSession {
            server: server.to_owned(),
            user: user.to_owned(),
            user_id: session.user.map_or(0, UserId::get),
            session: session.id.get(),
            hash: session.hash.clone(),
        };
        let text = Zeroizing::new(toml::to_string(&kept).map_err(io::Error::other)?);
        write(self.file.with_extension("new"), &self.file, &text)
    }

    /// Deletes the saved session.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Writes a file that only its owner can read, first under another name.
fn write(new: PathBuf, path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn read(path: &Path) -> Option<SavedSession> {
    let mut text = Zeroizing::new(String::new());
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    toml::from_str(&text).ok()
}

/// A name in the server's form for comparison; an invalid one is unchanged, and will be declined.
fn user_key(user: &str) -> String {
    name_key(user).unwrap_or_else(|| user.to_owned())
}

/// Encodes a text as a part of a file name, without path separators.
fn encode(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || ['_', '-', '.', ':'].contains(&c) {
            name.push(c);
        } else {
            name.push_str(&format!("%{:X}", u32::from(c)));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("vestnik-kept-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder::at(path.join("vestnik"))
    }

    fn session(id: u32) -> Session {
        Session { id: SessionId::new(id).unwrap(), hash: "ab".repeat(32), user: UserId::new(7) }
    }

    #[test]
    fn a_session_is_kept_for_its_owner_alone_and_forgotten() {
        let folder = folder("kept");
        let slot = folder.slot("chat.lan:7421", "Анна").unwrap().unwrap();
        assert!(slot.read().is_none());
        slot.write("chat.lan:7421", "Анна", &session(5)).unwrap();
        slot.write("chat.lan:7421", "Анна", &session(6)).unwrap();
        assert_eq!(slot.read(), Some(session(6)));
        assert_eq!(folder.last_user("chat.lan:7421").as_deref(), Some("Анна"));
        assert_eq!(folder.last_user("chat.lan:7420"), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&slot.file), mode(&folder.0)), (0o600, 0o700));
        slot.forget().unwrap();
        slot.forget().unwrap();
        assert!(slot.read().is_none());
        fs::remove_dir_all(folder.0.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_pinned_certificate_is_remembered_for_its_server_alone() {
        let folder = folder("pins");
        assert_eq!(folder.pin("chat.lan:7421"), None);
        folder.remember_pin("chat.lan:7421", "3F:A2").unwrap();
        folder.remember_pin("chat.lan:7421", "3F:A3").unwrap();
        assert_eq!(folder.pin("chat.lan:7421").as_deref(), Some("3F:A3"));
        assert_eq!(folder.pin("chat.lan:7420"), None);
        fs::remove_dir_all(folder.0.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_place_is_held_by_one_whatever_the_case_of_the_name() {
        let folder = folder("held");
        let slot = folder.slot("::1:7420", "Anna").unwrap().unwrap();
        assert!(folder.slot("::1:7420", "anna").unwrap().is_none());
        assert!(folder.slot("::1:7420", "boris").unwrap().is_some());
        drop(slot);
        assert!(folder.slot("::1:7420", "anna").unwrap().is_some());
        fs::remove_dir_all(folder.0.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_none_and_a_name_leads_nowhere_else() {
        let folder = folder("damaged");
        let slot = folder.slot("h:1", "../../x").unwrap().unwrap();
        assert_eq!(slot.file.parent(), Some(folder.0.as_path()));
        for text in ["", "server = 1", "\u{0}"] {
            fs::write(&slot.file, text).unwrap();
            assert!(slot.read().is_none());
        }
        fs::remove_dir_all(folder.0.parent().unwrap()).unwrap();
    }
}
