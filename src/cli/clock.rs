//! `vestnik clock`: whether the server trusts the machine's clock.

use clap::Subcommand;
use vestnik::ids::ServerTime;
use vestnik::store::changes::Change;

use super::{Context, Outcome, file, output};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the clock, the newest time in the database, and whether data expires
    Show,
    /// Confirm that the clock is right, so that messages, sessions and invites expire again
    Confirm,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Show => show(context),
        Command::Confirm => confirm(context),
    }
}

fn show(context: &mut Context<'_>) -> Outcome {
    let (newest, doubt_ms) =
        file::look(&context.data, |store| Ok((store.server_time()?, store.clock_doubt()?)))?;
    writeln!(context.out, "clock of this machine: {}", output::time(file::now()))?;
    let newest = match newest {
        ServerTime::ZERO => "none yet".to_owned(),
        newest => output::time(newest),
    };
    writeln!(context.out, "newest server time:    {newest}")?;
    let hours = doubt_ms.div_ceil(3_600_000);
    let state = match hours {
        0 => "the clock is trusted: expired data is deleted".to_owned(),
        hours => format!(
            "the clock has jumped: nothing is deleted by age for {hours} more hours of a steady \
             clock, or until 'vestnik clock confirm'"
        ),
    };
    Ok(writeln!(context.out, "{state}")?)
}

fn confirm(context: &mut Context<'_>) -> Outcome {
    file::change(&context.data, |store| {
        store.set_clock_doubt(0)?;
        Ok(store.note_change(Change::PolicyChanged)?)
    })?;
    Ok(writeln!(context.out, "the clock is confirmed: expired data is deleted")?)
}
