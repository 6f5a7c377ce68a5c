//! `vestnik user purge`: deletes all messages of a user.

use vestnik::ids::{ServerTime, UserId};
use vestnik::store::{Database, Store, StoreResult};

use super::file::{self, Stop};
use super::output::Consent;
use super::{Context, Outcome};

/// Messages deleted in one transaction.
const MESSAGES_PER_SLICE: u32 = 50;

pub(super) fn run(name: &str, consent: Consent, context: &mut Context<'_>) -> Outcome {
    let user = file::look(&context.data, |store| file::user(store, name))?;
    consent.ask(&format!("deletes all messages of {}", user.nickname))?;
    file::change(&context.data, |store| {
        let user = file::user(store, name)?;
        Ok(request(store, user.user)?)
    })?;
    perform(&user.nickname, context)
}

/// Notes in the database that the messages of a user are to be deleted.
pub(super) fn request(store: &mut Store<'_>, user: UserId) -> StoreResult<()> {
    let now = file::at_least_server_time(store)?;
    store.add_purge(user, now)
}

/// Deletes what is noted. A running server does that itself between other work, and notifies the
/// members; that its lock is held shows that one runs.
pub(super) fn perform(name: &str, context: &mut Context<'_>) -> Outcome {
    let Ok(database) = Database::open_server(&context.data) else {
        // Most likely it is a server that has the lock.
        writeln!(context.out, "the server deletes the messages of {name}, now or when it starts")?;
        return Ok(());
    };
    let mut deleted = 0;
    while let Some(count) = file::write(&context.data, &database, purge_slice)? {
        deleted += count;
    }
    settle(context, &database)?;
    writeln!(context.out, "deleted {deleted} messages of {name}")?;
    Ok(())
}

/// Deletes the next messages of a purge: how many, or `None` when all is done.
fn purge_slice(store: &mut Store<'_>) -> Result<Option<usize>, Stop> {
    let Some(purge) = store.next_purge()? else { return Ok(None) };
    let mut last = store.server_time()?;
    // A clock far ahead is not believed, so that server time does not follow a wrong one.
    let now = Some(file::now()).filter(|now| !file::is_far_ahead(*now, last)).unwrap_or(last);
    let found = store.purge_slice(purge, MESSAGES_PER_SLICE)?;
    for message in &found {
        // No server is running that could give this time to another event.
        last = now.max(last.next());
        store.delete_message(message.chat, message.message, last)?;
    }
    if last > ServerTime::ZERO {
        file::move_server_time(store, last)?;
    }
    Ok(Some(found.len()))
}

/// Removes the words of deleted messages from the search index.
pub(super) fn settle(context: &Context<'_>, database: &Database) -> Outcome {
    while file::write(&context.data, database, |store| Ok(store.settle_pending(None)?))? {}
    Ok(())
}
