//! `vestnik user`: people.

use clap::Subcommand;
use ring::rand::SystemRandom;
use vestnik::auth::password::Kind;
use vestnik::auth::token::ResetCode;
use vestnik::config::OnOff;
use vestnik::ids::ServerTime;
use vestnik::store::Store;
use vestnik::store::changes::Change;
use vestnik::store::users::User;
use vestnik::wire::answer::{USER_BOT, USER_OPERATOR};

use super::failure::Failure;
use super::file::Stop;
use super::output::{self, Cell, Consent, Format};
use super::{Context, Outcome, file, link, purge, secret};

pub(super) mod remove;

/// How long a code for a new password can be used, in microseconds.
const RESET_CODE_US: i64 = 24 * 60 * 60 * 1_000_000;

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
        /// The user
        name: String,
        #[command(flatten)]
        password: secret::Arguments,
    },
    /// Lock a user out: the sessions end, and no login is accepted
    Disable {
        /// The user
        name: String,
    },
    /// Let a disabled user in again
    Enable {
        /// The user
        name: String,
    },
    /// Make a user an operator of the server, or no longer
    Set {
        /// The user
        name: String,
        /// Operators manage users and invites from a client
        #[arg(long, value_name = "on|off")]
        operator: OnOff,
    },
    /// Print a one-time code for a new password, valid for 24 hours
    Reset {
        /// The user
        name: String,
        #[command(flatten)]
        link: link::Arguments,
    },
    /// Give a user another name
    Rename {
        /// The user
        name: String,
        /// The new name
        new: String,
    },
    /// Remove an account: its sessions, memberships and name; the messages stay
    Remove {
        /// The user
        name: String,
        /// Delete all messages of the user, too
        #[arg(long)]
        purge: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Delete all messages that a user has sent, in all chats; the user stays
    Purge {
        /// The user
        name: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// List all users
    List {
        #[command(flatten)]
        format: Format,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Add { name, password } => add(&name, &password, context),
        Command::Passwd { name, password } => passwd(&name, &password, context),
        Command::Disable { name } => set_disabled(&name, true, context),
        Command::Enable { name } => set_disabled(&name, false, context),
        Command::Set { name, operator } => set(&name, operator == OnOff::On, context),
        Command::Reset { name, link } => reset(&name, &link, context),
        Command::Rename { name, new } => rename(&name, &new, context),
        Command::Remove { name, purge, consent } => remove::run(&name, purge, consent, context),
        Command::Purge { name, consent } => purge::run(&name, consent, context),
        Command::List { format } => list(format, context),
    }
}

fn add(given: &str, password: &secret::Arguments, context: &mut Context<'_>) -> Outcome {
    let name = file::parse_login(given)?;
    let hash = password.ask_and_hash(Kind::User, &context.options)?;
    let user = file::make_or_change(&context.data, |store| {
        let added = store.add_user(name.text(), name.key(), &hash, file::now())?;
        added.ok_or_else(|| taken(given).into())
    })?;
    writeln!(context.out, "added user {} with id {user}", name.text())?;
    Ok(())
}

fn passwd(name: &str, password: &secret::Arguments, context: &mut Context<'_>) -> Outcome {
    // A mistyped name fails before anybody types a password twice.
    file::look(&context.data, |store| who_can_log_in(store, name).map(drop))?;
    let hash = password.ask_and_hash(Kind::User, &context.options)?;
    let user = file::change(&context.data, |store| {
        let user = who_can_log_in(store, name)?;
        store.change_password(user.user, &hash)?;
        store.end_sessions(user.user, None)?;
        store.note_change(Change::SessionsEnded(user.user))?;
        Ok(user)
    })?;
    writeln!(context.out, "user {} has a new password and no sessions", user.nickname)?;
    Ok(())
}

/// A user with this name who may have a password.
fn who_can_log_in(store: &mut Store<'_>, name: &str) -> Result<User, Stop> {
    let user = file::kept_user(store, name)?;
    if user.flags & USER_BOT != 0 {
        let words = format!("{} is a bot, which has a token in place of a password", user.nickname);
        return Err(Failure::Failed(format!("{words}: see 'vestnik hook --help'")).into());
    }
    Ok(user)
}

fn set_disabled(name: &str, disabled: bool, context: &mut Context<'_>) -> Outcome {
    let user = file::change(&context.data, |store| {
        let user = file::kept_user(store, name)?;
        store.set_disabled(user.user, disabled)?;
        let mut made = Vec::new();
        if disabled {
            store.end_sessions(user.user, None)?;
            store.note_change(Change::SessionsEnded(user.user))?;
            let now = file::at_least_server_time(store)?;
            made = store.settle_disabled(user.user, now)?;
        } else {
            made.extend(store.settle_enabled(user.user)?.into_iter().map(|chat| (chat, user.user)));
        }
        for (chat, admin) in made {
            store.note_change(Change::MadeAdmin(chat, admin))?;
        }
        Ok(user)
    })?;
    let state = if disabled { "disabled" } else { "enabled" };
    writeln!(context.out, "user {} is {state}", user.nickname)?;
    Ok(())
}

fn set(name: &str, is_operator: bool, context: &mut Context<'_>) -> Outcome {
    let user = file::change(&context.data, |store| {
        let user = file::kept_user(store, name)?;
        if user.flags & USER_BOT != 0 {
            let words = format!("{} is a bot, which is never an operator", user.nickname);
            return Err(Failure::Failed(words).into());
        }
        store.set_user_flag(user.user, USER_OPERATOR, is_operator)?;
        Ok(user)
    })?;
    let state = if is_operator { "an operator" } else { "no operator" };
    writeln!(context.out, "user {} is {state}", user.nickname)?;
    Ok(())
}

fn reset(name: &str, link: &link::Arguments, context: &mut Context<'_>) -> Outcome {
    let code = ResetCode::generate(&SystemRandom::new()).map_err(Failure::new)?;
    let user = file::look(&context.data, |store| file::user(store, name))?;
    let fragment = |code: &str| format!("reset={}:{code}", percent_encoded(&user.nickname));
    let text = link.text(code.expose(), fragment, &context.options)?;
    let out = &mut *context.out;
    file::change(&context.data, |store| {
        let user = file::user(store, name)?;
        if user.disabled || user.flags & USER_BOT != 0 {
            let words = format!("user {} cannot log in, so it gets no code", user.nickname);
            return Err(Failure::Failed(words).into());
        }
        let now = file::trusted_now(store)?;
        let expires = now.micros().saturating_add(RESET_CODE_US);
        let expires = ServerTime::new(expires).unwrap_or(ServerTime::MAX);
        store.set_reset_code(user.user, &code.digest().0, expires, now)?;
        file::reveal(out, |out| Ok(writeln!(out, "{text}")?))
    })
}

/// A name as it stands in a link: letters that are not ASCII as their bytes.
fn percent_encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'-' | b'_' | b'.' => text.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

pub(super) fn taken(name: &str) -> Failure {
    Failure::Failed(format!(
        "there is a user {name:?}, or one whose name looks like it, already: choose another name"
    ))
}

fn rename(name: &str, given: &str, context: &mut Context<'_>) -> Outcome {
    let new = file::parse_login(given)?;
    let user = file::change(&context.data, |store| {
        let user = file::kept_user(store, name)?;
        if store.is_login_taken(new.text(), new.key(), Some(user.user))? {
            return Err(taken(given).into());
        }
        store.rename_user(user.user, new.text(), new.key())?;
        store.note_change(Change::UserRenamed(user.user))?;
        Ok(user)
    })?;
    writeln!(context.out, "user {} is now {}", user.nickname, new.text())?;
    Ok(())
}

fn list(format: Format, context: &mut Context<'_>) -> Outcome {
    let users = file::look(&context.data, |store| Ok(store.users()?))?;
    let rows: Vec<_> = users
        .into_iter()
        .map(|user| {
            let state = if user.disabled { "disabled" } else { "enabled" };
            [
                Cell::from(user.user.get()),
                Cell::from(user.nickname),
                Cell::from(state),
                Cell::from(user.created),
                Cell::from(user.flags & USER_OPERATOR != 0),
                Cell::from(user.flags & USER_BOT != 0),
            ]
        })
        .collect();
    let heading = ["ID", "NAME", "STATE", "CREATED", "OPERATOR", "BOT"];
    Ok(output::list(context.out, format, heading, &rows)?)
}
