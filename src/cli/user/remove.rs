//! `vestnik user remove`: the account goes, the messages stay unless they are purged, too.
//!
//! Messages keep the id of their sender, so the row of the user stays: disabled, without a password
//! that anybody knows, and under a name that says so. The old name is free at once.

use vestnik::auth::password::nobody;
use vestnik::ids::UserId;
use vestnik::limits::PASSWORD_ITERATIONS;
use vestnik::names::Name;
use vestnik::service::REMOVED_ENDINGS;
use vestnik::store::Store;
use vestnik::store::changes::Change;

use crate::cli::failure::Failure;
use crate::cli::file::{self, Stop};
use crate::cli::output::Consent;
use crate::cli::{Context, Outcome, chat, purge};

pub(super) fn run(
    name: &str,
    purges: bool,
    consent: Consent,
    context: &mut Context<'_>,
) -> Outcome {
    let user = file::look(&context.data, |store| file::user(store, name))?;
    let messages = if purges { " and all messages of it" } else { "" };
    consent.ask(&format!("removes the account {}{messages}", user.nickname))?;
    file::change(&context.data, |store| {
        let user = file::user(store, name)?.user;
        if purges {
            purge::request(store, user)?;
        }
        remove(store, user)
    })?;
    writeln!(context.out, "removed user {}", user.nickname)?;
    if purges { purge::perform(&user.nickname, context) } else { Ok(()) }
}

fn remove(store: &mut Store<'_>, user: UserId) -> Result<(), Stop> {
    store.end_sessions(user, None)?;
    store.note_change(Change::SessionsEnded(user))?;
    for member in store.memberships(user)? {
        let direct = store.chat(member.chat)?.is_some_and(|chat| chat.direct.is_some());
        // The other of a direct chat keeps it, with what was said.
        if !direct {
            chat::leave(store, &member)?;
        }
    }
    store.remove_bans_of(user)?;
    retire(store, user)?;
    store.note_change(Change::UserRenamed(user))?;
    Ok(())
}

/// Adds what would be left of a removed account.
pub(in crate::cli) fn add_removed(store: &mut Store<'_>) -> Result<UserId, Stop> {
    let user = store.add_unnamed_user(file::now())?;
    retire(store, user)?;
    Ok(user)
}

fn retire(store: &mut Store<'_>, user: UserId) -> Result<(), Stop> {
    let name = free_name(store, user)?;
    Ok(store.retire_user(user, name.text(), name.key(), &nobody(PASSWORD_ITERATIONS))?)
}

/// A name that nobody has, for an account that is gone: `deleted-17`.
fn free_name(store: &mut Store<'_>, user: UserId) -> Result<Name, Stop> {
    for ending in REMOVED_ENDINGS {
        let name = format!("deleted-{user}{ending}");
        if let Ok(name) = Name::parse(&name)
            && !store.is_login_of_another(name.text(), name.key(), Some(user))?
        {
            return Ok(name);
        }
    }
    Err(Failure::Failed(format!("rename the users named deleted-{user}… first")).into())
}
