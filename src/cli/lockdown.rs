//! `vestnik lockdown`: stops registrations and joins at once.

use clap::ValueEnum;
use vestnik::store::changes::Change;

use super::{Context, Outcome, file};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// `on` or `off`
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Nobody can register or join a chat
    On,
    /// Registrations and joins follow the options of the server and the chats
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
        "no lockdown: registrations and joins follow the options of the server and the chats"
    };
    writeln!(context.out, "{words}")?;
    Ok(())
}
