//! `vestnik invite`: codes to register with, or to join a chat by.

use clap::Subcommand;
use ring::rand::SystemRandom;
use vestnik::auth::token::InviteCode;
use vestnik::ids::ServerTime;
use vestnik::store::Store;
use vestnik::store::invites::Invite;

use super::failure::Failure;
use super::file::Stop;
use super::output::{self, Cell, Format};
use super::{Context, Outcome, file, link, number};

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// Attempts to create a code whose first characters are unique.
const HINT_TRIES: usize = 16;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a code, and print it alone
    Add(AddArguments),
    /// List the codes by their first characters: the database does not hold the rest
    List {
        #[command(flatten)]
        format: Format,
    },
    /// End an invite
    Remove {
        /// The whole code, or the part that the list shows
        code: String,
    },
}

#[derive(clap::Args)]
pub(super) struct AddArguments {
    /// How often it can be used: up to 65535
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1..=65_535_u32))]
    uses: u32,

    /// Days until it expires
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = number(1..=36_500_u32))]
    days: u32,

    /// Who uses it becomes a member of this chat
    #[arg(long, value_name = "NAME")]
    chat: Option<String>,

    /// It is for users who are registered already
    #[arg(long, requires = "chat")]
    no_register: bool,

    #[command(flatten)]
    link: link::Arguments,

    /// Print a QR code, too
    #[arg(long)]
    qr: bool,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Add(arguments) => add(&arguments, context),
        Command::List { format } => list(format, context),
        Command::Remove { code } => remove(&code, context),
    }
}

fn add(arguments: &AddArguments, context: &mut Context<'_>) -> Outcome {
    // Fail before an invite is created if its link cannot be built.
    let fragment = |code: &str| format!("invite={code}");
    arguments.link.text(String::new(), fragment, &context.options)?;
    let (link, out) = (&arguments.link, &mut *context.out);
    file::make_or_change(&context.data, |store| {
        let chat = match &arguments.chat {
            Some(name) => Some(file::chat(store, name)?.chat),
            None => None,
        };
        let code = fresh_code(store)?;
        let created = file::trusted_now(store)?;
        let expires = created.micros().saturating_add(i64::from(arguments.days) * DAY_US);
        let invite = Invite {
            hint: code.hint(),
            uses_left: arguments.uses,
            expires: ServerTime::new(expires).unwrap_or(ServerTime::MAX),
            created,
            registers: !arguments.no_register,
            operator: false,
            chat,
            creator: None,
        };
        store.add_invite(&code.digest().0, &invite)?;
        let text = link.text(code.expose(), fragment, &context.options)?;
        file::reveal(out, |out| {
            writeln!(out, "{text}")?;
            if arguments.qr { link::write_qr(out, &text) } else { Ok(()) }
        })
    })
}

/// Generates a code whose first characters are unique among the invites.
fn fresh_code(store: &mut Store<'_>) -> Result<InviteCode, Stop> {
    for _ in 0..HINT_TRIES {
        let code = InviteCode::generate(&SystemRandom::new()).map_err(Failure::new)?;
        if store.invites_with_hint(&code.hint())?.is_empty() {
            return Ok(code);
        }
    }
    Err(Failure::new("there are too many invites: remove some first").into())
}

fn list(format: Format, context: &mut Context<'_>) -> Outcome {
    let rows = file::look(&context.data, |store| {
        let now = file::trusted_now(store)?;
        let mut rows = Vec::new();
        for invite in store.invites()? {
            let state = match &invite {
                _ if invite.expires <= now => "expired",
                _ if invite.uses_left == 0 => "used-up",
                _ => "good",
            };
            let chat = match invite.chat {
                Some(chat) => store.chat(chat)?.map(|chat| chat.name),
                None => None,
            };
            let creator = match invite.creator {
                Some(user) => store.user(user)?.map(|user| user.nickname),
                None => None,
            };
            rows.push([
                Cell::from(invite.hint),
                Cell::from(invite.uses_left),
                Cell::from(state),
                Cell::from(invite.expires),
                Cell::from(invite.created),
                Cell::from(invite.registers),
                chat.map_or(Cell::Nothing, Cell::from),
                creator.map_or(Cell::Nothing, Cell::from),
            ]);
        }
        Ok(rows)
    })?;
    let heading = ["CODE", "USES", "STATE", "EXPIRES", "CREATED", "REGISTERS", "CHAT", "BY"];
    Ok(output::list(context.out, format, heading, &rows)?)
}

fn remove(typed: &str, context: &mut Context<'_>) -> Outcome {
    let removed = file::change(&context.data, |store| {
        let Some(code) = InviteCode::parse(typed) else {
            return Ok(store.remove_invites_with_hint(&typed.to_ascii_lowercase())?);
        };
        Ok(usize::from(store.remove_invite(&code.digest().0)?))
    })?;
    match removed {
        0 => Err(Failure::new("this invite is not known: see 'vestnik invite list'")),
        1 => Ok(writeln!(context.out, "the invite has ended")?),
        several => Ok(writeln!(context.out, "{several} invites that begin so have ended")?),
    }
}
