//! `vestnik clock`: whether the server trusts the machine's clock.

use clap::Subcommand;
use vestnik::ids::ServerTime;
use vestnik::service::start_jump_us;
use vestnik::store::changes::Change;

use super::{Context, Outcome, file, output};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the clock, the newest time in the database, and whether data expires
    Show,
    /// Confirm that the clock is right, so that messages and sessions expire again at once
    Confirm,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Show => show(context),
        Command::Confirm => confirm(context),
    }
}

fn show(context: &mut Context<'_>) -> Outcome {
    let (newest, trusted, doubt_ms) = file::look(&context.data, |store| {
        Ok((store.server_time()?, store.clock_trusted()?, store.clock_doubt()?))
    })?;
    writeln!(context.out, "clock of this machine: {}", output::time(file::now()))?;
    let is_far = start_jump_us(file::now().micros(), newest, trusted) != 0;
    let newest = match newest {
        ServerTime::ZERO => "none yet".to_owned(),
        newest => output::time(newest),
    };
    writeln!(context.out, "newest server time:    {newest}")?;
    let hours = doubt_ms.div_ceil(3_600_000);
    let state = match hours {
        0 if is_far => "the clock is more than a day from the newest server time: a server that \
                        starts deletes nothing by age for a day, unless 'vestnik clock confirm' ran"
            .to_owned(),
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
        // A running server follows the clock to where it is, and the next start trusts it.
        store.set_clock_jump(0)?;
        store.set_clock_trusted(file::now())?;
        Ok(store.note_change(Change::PolicyChanged)?)
    })?;
    Ok(writeln!(context.out, "the clock is confirmed: expired data is deleted")?)
}
