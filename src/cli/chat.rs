//! `vestnik chat`: group chats.

use clap::Subcommand;
use vestnik::auth::password::Kind;
use vestnik::ids::{ChatId, ServerTime, UserId};
use vestnik::store::changes::Change;
use vestnik::store::members::Member;
use vestnik::store::sweep::Sweep;
use vestnik::store::users::User;
use vestnik::store::{Database, Store, StoreResult};
use vestnik::wire::answer::USER_BOT;

use super::failure::Failure;
use super::output::{self, Cell, Consent, Format};
use super::{Context, Outcome, file, number, purge, secret};

mod members;
mod settings;

pub(super) use members::leave;

/// Messages of a removed chat that are deleted in one transaction.
const SWEEP_SLICE: u32 = 2000;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a chat, with a password or without
    Add {
        /// Letters and digits of any script, `_`, `-`, `.`; up to 32 of them
        name: String,
        /// Its first member, who may rename it, ban and the like
        #[arg(long, value_name = "USER")]
        admin: Option<String>,
        /// Ask for a password on the terminal
        #[arg(long, conflicts_with = "password_stdin")]
        ask_password: bool,
        #[command(flatten)]
        password: secret::Arguments,
    },
    /// Make a user a member of a chat; its password is not asked for
    Join {
        /// The chat
        name: String,
        /// Who
        user: String,
        /// As one who may rename it, ban and the like; one who is a member already becomes that
        #[arg(long)]
        admin: bool,
    },
    /// List the group chats
    List {
        #[command(flatten)]
        format: Format,
    },
    /// List the members of a chat, and the users banned from it
    Members {
        /// The chat
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// End the membership of a user, who may join again
    Kick {
        /// The chat
        name: String,
        /// The user
        user: String,
    },
    /// End the membership of a user, who cannot join again
    Ban {
        /// The chat
        name: String,
        /// The user
        user: String,
    },
    /// Lift a ban
    Unban {
        /// The chat
        name: String,
        /// The user
        user: String,
    },
    /// Give a chat another name
    Rename {
        /// The chat
        name: String,
        /// The new name
        new: String,
    },
    /// Set the title of a chat
    Title {
        /// The chat
        name: String,
        /// The title, up to 128 characters; an empty one removes it
        text: String,
    },
    /// Close a chat: it does not exist for those who are not members
    Close {
        /// The chat
        name: String,
    },
    /// Open a closed chat again
    Open {
        /// The chat
        name: String,
    },
    /// Set the password that joining asks for, or remove it
    Passwd {
        /// The chat
        name: String,
        /// Remove the password: anybody may join
        #[arg(long, conflicts_with = "password_stdin")]
        none: bool,
        #[command(flatten)]
        password: secret::Arguments,
    },
    /// Remove a chat and all its messages
    Remove {
        /// The chat
        name: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Set slow mode and how long messages are kept
    Set(SetArguments),
}

/// A chat, and its policy.
#[derive(clap::Args)]
pub(super) struct SetArguments {
    /// The chat
    name: String,
    #[command(flatten)]
    policy: Policy,
}

/// What only the operator sets: at least one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Policy {
    /// Seconds that a member waits between two messages; 0: none
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number(0..=86_400_u32))]
    slow_mode: Option<u32>,
    /// Days after which messages are deleted; 0: never
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number(0..=36_500_u32))]
    keep_days: Option<u32>,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Add { name, admin, ask_password, password } => {
            let wants_password = ask_password || password.password_stdin;
            add(&name, admin.as_deref(), wants_password.then_some(&password), context)
        }
        Command::Join { name, user, admin } => join(&name, &user, admin, context),
        Command::List { format } => list(format, context),
        Command::Members { name, format } => members::list(&name, format, context),
        Command::Kick { name, user } => members::kick(&name, &user, context),
        Command::Ban { name, user } => members::set_banned(&name, &user, true, context),
        Command::Unban { name, user } => members::set_banned(&name, &user, false, context),
        Command::Rename { name, new } => settings::rename(&name, &new, context),
        Command::Title { name, text } => settings::title(&name, &text, context),
        Command::Close { name } => settings::set_closed(&name, true, context),
        Command::Open { name } => settings::set_closed(&name, false, context),
        Command::Passwd { name, none, password } => {
            settings::passwd(&name, (!none).then_some(&password), context)
        }
        Command::Remove { name, consent } => remove(&name, consent, context),
        Command::Set(arguments) => set(&arguments, context),
    }
}

fn add(
    given: &str,
    admin: Option<&str>,
    password: Option<&secret::Arguments>,
    context: &mut Context<'_>,
) -> Outcome {
    let name = file::parse_group(given)?;
    let password = match password {
        Some(password) => Some(password.ask_and_hash(Kind::Chat, &context.options)?),
        None => None,
    };
    let chat = file::make_or_change(&context.data, |store| {
        let now = file::now();
        let added = store.add_chat(name.text(), name.key(), password.as_deref(), now)?;
        let taken =
            || Failure::Failed(format!("there is a chat {given:?} already: choose another name"));
        let chat = added.ok_or_else(taken)?;
        if let Some(admin) = admin {
            let admin = file::user(store, admin)?;
            can_be_admin(&admin)?;
            add_member(store, chat, admin.user, true, now)?;
        }
        Ok(chat)
    })?;
    writeln!(context.out, "added chat {} with id {chat}", name.text())?;
    Ok(())
}

/// Adds a user to a chat, with no message read.
pub(super) fn add_member(
    store: &mut Store<'_>,
    chat: ChatId,
    user: UserId,
    admin: bool,
    joined: ServerTime,
) -> StoreResult<()> {
    store.add_member(Member { chat, user, admin, joined, seen: ServerTime::ZERO })?;
    store.note_change(Change::MemberJoined(chat, user))
}

/// Fails for a bot, which cannot log in to rename a chat, ban and the like.
fn can_be_admin(user: &User) -> Result<(), Failure> {
    if user.flags & USER_BOT == 0 {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} is a bot, which cannot be an admin", user.nickname)))
}

fn join(name: &str, user: &str, admin: bool, context: &mut Context<'_>) -> Outcome {
    let (chat, user, is_known) = file::change(&context.data, |store| {
        let chat = file::chat(store, name)?;
        let user = file::kept_user(store, user)?;
        if admin {
            can_be_admin(&user)?;
        }
        if let Some(member) = store.member(chat.chat, user.user)? {
            if admin && !member.admin {
                // Otherwise a chat without an admin could never get one.
                store.set_admin(chat.chat, user.user, true)?;
                store.note_change(Change::ChatChanged(chat.chat))?;
                return Ok((chat, user, true));
            }
            let role = if member.admin { "an admin" } else { "a member" };
            let words = format!("{} is {role} of {} already", user.nickname, chat.name);
            return Err(Failure::Failed(words).into());
        }
        if store.is_banned(chat.chat, user.user)? {
            let words = format!(
                "{} is banned from {}: an admin of the chat has to lift that",
                user.nickname, chat.name
            );
            return Err(Failure::Failed(words).into());
        }
        add_member(store, chat.chat, user.user, admin, file::now())?;
        Ok((chat, user, false))
    })?;
    let role = match (admin, is_known) {
        (true, true) => "an admin of",
        (true, false) => "a member and an admin of",
        (false, _) => "a member of",
    };
    writeln!(context.out, "{} is {role} {}", user.nickname, chat.name)?;
    Ok(())
}

fn list(format: Format, context: &mut Context<'_>) -> Outcome {
    let chats = file::look(&context.data, |store| Ok(store.chats()?))?;
    let rows: Vec<_> = chats
        .into_iter()
        .filter(|chat| chat.direct.is_none())
        .map(|chat| {
            [
                Cell::from(chat.chat.get()),
                Cell::from(chat.name),
                Cell::from(chat.member_count),
                Cell::from(chat.password.is_some()),
                Cell::from(chat.slow_mode_s),
                Cell::from(chat.keep_days),
                Cell::from(chat.created),
                Cell::from(chat.closed),
                Cell::from(chat.title),
            ]
        })
        .collect();
    let heading = [
        "ID",
        "NAME",
        "MEMBERS",
        "PASSWORD",
        "SLOW-MODE",
        "KEEP-DAYS",
        "CREATED",
        "CLOSED",
        "TITLE",
    ];
    Ok(output::list(context.out, format, heading, &rows)?)
}

fn remove(name: &str, consent: Consent, context: &mut Context<'_>) -> Outcome {
    let chat = file::look(&context.data, |store| file::chat(store, name))?;
    consent.ask(&format!("deletes the chat {} and all its messages", chat.name))?;
    let chat = file::change(&context.data, |store| {
        let chat = file::chat(store, name)?;
        store.remove_chat(chat.chat)?;
        store.note_change(Change::ChatRemoved(chat.chat))?;
        Ok(chat)
    })?;
    sweep(context)?;
    writeln!(context.out, "removed chat {} with its messages", chat.name)?;
    Ok(())
}

/// Deletes the messages of removed chats in slices, unless a server runs (it holds the lock) and
/// does that itself in the background.
pub(super) fn sweep(context: &Context<'_>) -> Outcome {
    let Ok(database) = Database::open_server(&context.data) else {
        return Ok(());
    };
    let mut sweep = Sweep::default();
    while file::write(&context.data, &database, |store| {
        Ok(store.sweep_messages(&mut sweep, SWEEP_SLICE)?)
    })? {}
    purge::settle(context, &database)
}

fn set(arguments: &SetArguments, context: &mut Context<'_>) -> Outcome {
    let (chat, slow_mode_s, keep_days) = file::change(&context.data, |store| {
        let chat = file::chat(store, &arguments.name)?;
        let slow_mode_s = arguments.policy.slow_mode.unwrap_or(chat.slow_mode_s);
        let keep_days = arguments.policy.keep_days.unwrap_or(chat.keep_days);
        store.set_chat_policy(chat.chat, slow_mode_s, keep_days)?;
        store.note_change(Change::ChatChanged(chat.chat))?;
        Ok((chat, slow_mode_s, keep_days))
    })?;
    let name = chat.name;
    writeln!(context.out, "chat {name}: slow mode {slow_mode_s} s, keep days {keep_days}")?;
    Ok(())
}
