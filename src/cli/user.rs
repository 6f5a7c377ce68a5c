//! `vestnik user`: people.

use clap::Subcommand;
use vestnik::auth::password::Kind;
use vestnik::store::changes::Change;

use super::failure::Failure;
use super::{Context, Outcome, file, output, purge, secret};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a user, who can log in at once
    Add {
        /// Letters and digits of any script, `_`, `-`, `.`; up to 32 of them
        name: String,
        #[command(flatten)]
        password: secret::Arguments,
    },
    /// Give a user another password, and end the sessions made with the old one
    Passwd {
        /// Who
        name: String,
        #[command(flatten)]
        password: secret::Arguments,
    },
    /// Keep a user out: no login, and the sessions end
    Disable {
        /// Who
        name: String,
    },
    /// Let a disabled user in again
    Enable {
        /// Who
        name: String,
    },
    /// Delete all messages that a user has sent, in all chats; the user stays
    Purge {
        /// Who
        name: String,
    },
    /// List everybody
    List,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Add { name, password } => add(&name, &password, context),
        Command::Passwd { name, password } => passwd(&name, &password, context),
        Command::Disable { name } => set_disabled(&name, true, context),
        Command::Enable { name } => set_disabled(&name, false, context),
        Command::Purge { name } => purge::run(&name, context),
        Command::List => list(context),
    }
}

fn add(given: &str, password: &secret::Arguments, context: &mut Context<'_>) -> Outcome {
    let name = file::parse_name(given)?;
    let hash = password.ask_and_hash(Kind::User, &context.options)?;
    let user = file::make_or_change(&context.data, |store| {
        let added = store.add_user(name.text(), name.key(), &hash, file::now())?;
        added.ok_or_else(|| Failure::Failed(format!("there is a user {given:?} already")).into())
    })?;
    writeln!(context.out, "added user {} with id {user}", name.text())?;
    Ok(())
}

fn passwd(name: &str, password: &secret::Arguments, context: &mut Context<'_>) -> Outcome {
    // A name mistyped is told before somebody types a password twice.
    file::look(&context.data, |store| file::user(store, name).map(drop))?;
    let hash = password.ask_and_hash(Kind::User, &context.options)?;
    let user = file::change(&context.data, |store| {
        let user = file::user(store, name)?;
        store.set_password(user.user, &hash)?;
        store.end_sessions(user.user, None)?;
        store.note_change(Change::SessionsEnded(user.user))?;
        Ok(user)
    })?;
    writeln!(context.out, "user {} has a new password and no sessions", user.nickname)?;
    Ok(())
}

fn set_disabled(name: &str, disabled: bool, context: &mut Context<'_>) -> Outcome {
    let user = file::change(&context.data, |store| {
        let user = file::user(store, name)?;
        store.set_disabled(user.user, disabled)?;
        if disabled {
            store.end_sessions(user.user, None)?;
            store.note_change(Change::SessionsEnded(user.user))?;
        }
        Ok(user)
    })?;
    let state = if disabled { "disabled" } else { "enabled" };
    writeln!(context.out, "user {} is {state}", user.nickname)?;
    Ok(())
}

fn list(context: &mut Context<'_>) -> Outcome {
    let users = file::look(&context.data, |store| Ok(store.users()?))?;
    let rows: Vec<_> = users
        .into_iter()
        .map(|user| {
            let state = if user.disabled { "disabled" } else { "enabled" };
            [user.user.to_string(), user.nickname, state.to_owned(), output::time(user.created)]
        })
        .collect();
    Ok(output::table(context.out, ["ID", "NAME", "STATE", "CREATED"], &rows)?)
}
