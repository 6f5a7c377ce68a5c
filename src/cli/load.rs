//! `vestnik load`: what load tests need, and the load itself.

mod prepare;
mod run;

use clap::Subcommand;

use super::{Context, Outcome};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Fill a data file: users load0, load1, … with the password `load-password`, in chats
    Prepare(prepare::Arguments),
    /// Put load on a server, measure it, and check that everything arrives
    Run(Box<run::LoadRunArgs>),
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Prepare(arguments) => prepare::run(&arguments, context),
        Command::Run(arguments) => run::run(&arguments, context),
    }
}
