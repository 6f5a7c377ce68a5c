//! `vestnik invite`: codes to register with.

use clap::Subcommand;
use ring::rand::SystemRandom;
use vestnik::auth::token::InviteCode;
use vestnik::ids::ServerTime;
use vestnik::store::invites::Invite;

use super::failure::Failure;
use super::output::{self, Cell, Format};
use super::{Context, Outcome, file, number};

/// Characters of a code that lists show: enough to distinguish a few, too few to help a guess.
const HINT_CHARS: usize = 4;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a code, and print it alone
    Add {
        /// How often it can be used
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1..=1_000_000_u32))]
        uses: u32,
        /// Days until it expires
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = number(1..=36_500_u32))]
        days: u32,
    },
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

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Add { uses, days } => add(uses, days, context),
        Command::List { format } => list(format, context),
        Command::Remove { code } => remove(&code, context),
    }
}

fn add(uses: u32, days: u32, context: &mut Context<'_>) -> Outcome {
    let code = InviteCode::generate(&SystemRandom::new()).map_err(Failure::new)?;
    let created = file::now();
    let expires = created.micros().saturating_add(i64::from(days) * DAY_US);
    let invite = Invite {
        hint: code.expose().chars().take(HINT_CHARS).collect(),
        uses_left: uses,
        expires: ServerTime::new(expires).unwrap_or(ServerTime::MAX),
        created,
    };
    file::make_or_change(&context.data, |store| Ok(store.add_invite(&code.digest().0, &invite)?))?;
    writeln!(context.out, "{}", code.expose())?;
    Ok(())
}

fn list(format: Format, context: &mut Context<'_>) -> Outcome {
    let invites = file::look(&context.data, |store| Ok(store.invites()?))?;
    let now = file::now();
    let rows: Vec<_> = invites
        .into_iter()
        .map(|invite| {
            let state = match invite {
                _ if invite.expires <= now => "expired",
                _ if invite.uses_left == 0 => "used-up",
                _ => "good",
            };
            [
                Cell::from(invite.hint),
                Cell::from(invite.uses_left),
                Cell::from(state),
                Cell::from(invite.expires),
                Cell::from(invite.created),
            ]
        })
        .collect();
    let heading = ["CODE", "USES", "STATE", "EXPIRES", "CREATED"];
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
        0 => Err(Failure::new("there is no such invite: see 'vestnik invite list'")),
        1 => Ok(writeln!(context.out, "the invite is void")?),
        several => Ok(writeln!(context.out, "{several} invites that begin so are void")?),
    }
}
