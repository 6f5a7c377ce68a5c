//! `vestnik lockdown`: nobody new, in a hurry.

use clap::ValueEnum;
use vestnik::store::changes::Change;

use super::{Context, Outcome, file};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Whether it is to be
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Nobody may register or join a chat
    On,
    /// As the server and its chats are set
    Off,
}

pub(super) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Outcome {
    let is_on = arguments.state == State::On;
    file::change(&context.data, |store| {
        store.set_lockdown(is_on)?;
        store.note_change(Change::PolicyChanged)?;
        Ok(())
    })?;
    let words = if is_on {
        "lockdown: nobody can register or join a chat until 'vestnik lockdown off'"
    } else {
        "no lockdown: people can register and join as the server and its chats are set"
    };
    writeln!(context.out, "{words}")?;
    Ok(())
}
