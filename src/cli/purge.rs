//! `vestnik user purge`: all messages of a user go.

use vestnik::ids::ServerTime;
use vestnik::store::{Database, Store};

use super::file::{self, Stop};
use super::{Context, Outcome};

/// Asks for it in the file. A server that runs does it between other work, and tells the members;
/// its lock tells. Without one it is done here.
pub(super) fn run(name: &str, context: &mut Context<'_>) -> Outcome {
    let user = file::change(&context.data, |store| {
        let user = file::user(store, name)?;
        let now = file::now().max(store.server_time()?);
        store.add_purge(user.user, now)?;
        Ok(user)
    })?;
    let name = user.nickname;
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

/// Deletes the next messages of what was asked for; how many, or `None` when all is done.
fn purge_slice(store: &mut Store<'_>) -> Result<Option<usize>, Stop> {
    let Some(purge) = store.next_purge()? else { return Ok(None) };
    let mut last = store.server_time()?;
    let found = store.purge_slice(purge)?;
    for message in &found {
        // No server runs that could give this time to anything else.
        last = file::now().max(last.next());
        store.delete_message(message.chat, message.message, last)?;
    }
    if last > ServerTime::ZERO {
        store.write_server_time(last)?;
    }
    Ok(Some(found.len()))
}

/// Takes the words of what is deleted out of the search index.
pub(super) fn settle(context: &Context<'_>, database: &Database) -> Outcome {
    while file::write(&context.data, database, |store| Ok(store.settle_pending()?))? {}
    Ok(())
}
