//! Access of commands to the database: one transaction each, to read or to change.

#![allow(clippy::disallowed_methods)] // A command reads the clock once, where the server's is not at hand.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use vestnik::ids::ServerTime;
use vestnik::limits::CLOCK_DOUBT_MS;
use vestnik::names::{BadName, Name, name_key};
use vestnik::service::{DAY_US, is_removed};
use vestnik::store::chats::Chat;
use vestnik::store::users::User;
use vestnik::store::{Database, Fault, Store, StoreError, StoreResult};

use super::failure::Failure;
use super::{Outcome, output};

/// The error of a command's transaction.
pub(super) enum Stop {
    /// The database failed.
    Store(StoreError),
    /// Something else failed.
    Failure(Failure),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Runs a transaction that reads the database, which must exist; it may be read-only.
pub(super) fn look<T>(
    data: &Path,
    work: impl FnOnce(&mut Store<'_>) -> Result<T, Stop>,
) -> Result<T, Failure> {
    let database = Database::open_to_look(data)?;
    with_store(data, &database, work)
}

/// Runs a transaction that changes the database, which must exist.
///
/// On a full disk it may use the reserved space, since an operator's change may free some or lock a
/// user out.
pub(super) fn change<T>(
    data: &Path,
    work: impl FnOnce(&mut Store<'_>) -> Result<T, Stop>,
) -> Result<T, Failure> {
    Database::give_up_reserve_when_full(data);
    let database = Database::open_command(data, false)?;
    write(data, &database, work)
}

/// Checks that the folder of a new file exists.
pub(super) fn check_folder(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => Err(Failure::Failed(format!(
            "{}: the folder {} does not exist; make it first",
            path.display(),
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// Like [`change`], and creates the database if it is missing.
pub(super) fn make_or_change<T>(
    data: &Path,
    work: impl FnOnce(&mut Store<'_>) -> Result<T, Stop>,
) -> Result<T, Failure> {
    check_folder(data)?;
    let database = Database::open_command(data, true)?;
    write(data, &database, work)
}

/// Changes an open database in one transaction.
pub(super) fn write<T>(
    data: &Path,
    database: &Database,
    work: impl FnOnce(&mut Store<'_>) -> Result<T, Stop>,
) -> Result<T, Failure> {
    with_store(data, database, |store| {
        // Lock before the first read, so that it is still true at the write.
        store.begin_write()?;
        work(store)
    })
}

fn with_store<T>(
    data: &Path,
    database: &Database,
    work: impl FnOnce(&mut Store<'_>) -> Result<T, Stop>,
) -> Result<T, Failure> {
    let about_file = |error: StoreError| match error.fault {
        Fault::Lost => Failure::StorageLost(error.to_string()),
        Fault::Unavailable => Failure::Failed(format!("{}: {error}", data.display())),
    };
    let mut store = Store::new(database).map_err(about_file)?;
    let done = work(&mut store).and_then(|done| {
        store.commit()?;
        Ok(done)
    });
    done.map_err(|stop| {
        store.roll_back();
        match stop {
            Stop::Store(error) => about_file(error),
            Stop::Failure(failure) => failure,
        }
    })
}

/// Prints a secret that the database will hold only a digest of, within the transaction that stores
/// it: if nobody can get it, it is not stored.
pub(super) fn reveal(
    out: &mut dyn Write,
    print: impl FnOnce(&mut dyn Write) -> Outcome,
) -> Result<(), Stop> {
    let printed = print(out).and_then(|()| Ok(out.flush()?));
    printed.map_err(|failure| match failure {
        Failure::Failed(words) => Failure::Failed(format!("{words}; nothing was stored")).into(),
        Failure::NobodyReads => {
            let words = "nobody reads standard output: nothing was stored";
            Failure::Failed(words.to_owned()).into()
        }
        failure => failure.into(),
    })
}

/// The time from which a deadline of something kept runs: the wall clock, or server time if the
/// clock is behind it. A clock that is wrong must not end what has just begun.
pub(super) fn at_least_server_time(store: &mut Store<'_>) -> StoreResult<ServerTime> {
    Ok(now().max(store.server_time()?))
}

/// The wall clock as a running server uses it: a jump that it does not follow is taken off. It
/// may have died within one, so the reading nearer to server time is used.
pub(super) fn trusted_now(store: &mut Store<'_>) -> StoreResult<ServerTime> {
    let (now, last) = (now(), store.server_time()?.micros());
    let believed = now.micros().saturating_sub(store.clock_jump()?);
    let is_nearer = (believed - last).unsigned_abs() < (now.micros() - last).unsigned_abs();
    Ok(ServerTime::new(believed).filter(|_| is_nearer).unwrap_or(now))
}

/// Whether a time is more than a day ahead of server time, if any was given.
pub(super) fn is_far_ahead(time: ServerTime, last: ServerTime) -> bool {
    last > ServerTime::ZERO && time.micros() - last.micros() > DAY_US
}

/// Stores that times up to `time` were given. If that moves server time by more than a day, the
/// clock is doubted: the next start compares the clock with server time, and would find them equal.
pub(super) fn move_server_time(store: &mut Store<'_>, time: ServerTime) -> StoreResult<()> {
    if is_far_ahead(time, store.server_time()?) {
        store.set_clock_doubt(CLOCK_DOUBT_MS)?;
    }
    store.write_server_time(time)
}

/// The wall clock, for times of creation and joining. Not for messages, which get server time.
pub(super) fn now() -> ServerTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).ok().and_then(ServerTime::new).unwrap_or_default()
}

/// Parses a new login.
pub(super) fn parse_login(given: &str) -> Result<Name, Failure> {
    Name::parse(given).map_err(|bad| not_valid(given, bad))
}

/// Parses an existing name, which may follow older rules.
pub(super) fn parse_stored(given: &str) -> Result<Name, Failure> {
    Name::parse_stored(given).map_err(|bad| not_valid(given, bad))
}

/// Parses a new name of a group.
pub(super) fn parse_group(given: &str) -> Result<Name, Failure> {
    Name::parse_group(given).map_err(|bad| not_valid(given, bad))
}

fn not_valid(given: &str, bad: BadName) -> Failure {
    Failure::Failed(format!("{given:?} is not a valid name: {bad}"))
}

/// The user with this name.
pub(super) fn user(store: &mut Store<'_>, name: &str) -> Result<User, Stop> {
    let found = match name_key(name) {
        Some(key) => store.user_by_key(&key)?,
        None => None,
    };
    let none = || format!("there is no user {}: see 'vestnik user list'", quoted(name));
    found.ok_or_else(|| Failure::Failed(none()).into())
}

/// The user with this name, if the account was not removed.
pub(super) fn kept_user(store: &mut Store<'_>, name: &str) -> Result<User, Stop> {
    let user = user(store, name)?;
    if is_removed(&user) {
        let words = format!("the account {} was removed: add a user instead", user.nickname);
        return Err(Failure::Failed(words).into());
    }
    Ok(user)
}

/// The group with this name.
pub(super) fn chat(store: &mut Store<'_>, name: &str) -> Result<Chat, Stop> {
    let found = match name_key(name) {
        Some(key) => store.chat_by_key(&key)?,
        None => None,
    };
    let none = || format!("there is no chat {}: see 'vestnik chat list'", quoted(name));
    found.ok_or_else(|| Failure::Failed(none()).into())
}

/// Typed text, quoted for a message.
pub(super) fn quoted(given: &str) -> String {
    let harmless: String = given.chars().map(output::harmless_char).collect();
    format!("\"{harmless}\"")
}
