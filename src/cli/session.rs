//! `vestnik session`: sessions and where they are used from.

use clap::Subcommand;
use vestnik::ids::SessionId;
use vestnik::store::changes::Change;

use super::failure::Failure;
use super::output::{self, Cell, Format};
use super::{Context, Outcome, file};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List all sessions, or those of one user
    List {
        /// The user
        user: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// End a session: its connection gets DEAUTH and has to log in again
    End {
        /// Its id, from the list
        id: u32,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::List { user, format } => list(user.as_deref(), format, context),
        Command::End { id } => end(id, context),
    }
}

fn list(name: Option<&str>, format: Format, context: &mut Context<'_>) -> Outcome {
    let rows = file::look(&context.data, |store| {
        let only = match name {
            Some(name) => Some(file::user(store, name)?.user),
            None => None,
        };
        let mut rows = Vec::new();
        for session in store.sessions(only)? {
            let user = store.user(session.user)?;
            rows.push([
                Cell::from(session.session.get()),
                Cell::from(user.map_or_else(|| session.user.to_string(), |user| user.nickname)),
                Cell::from(session.created),
                Cell::from(session.used),
                Cell::from(session.address),
            ]);
        }
        Ok(rows)
    })?;
    let heading = ["ID", "USER", "CREATED", "USED", "ADDRESS"];
    Ok(output::list(context.out, format, heading, &rows)?)
}

fn end(id: u32, context: &mut Context<'_>) -> Outcome {
    let none = || Failure::Failed(format!("there is no session {id}: see 'vestnik session list'"));
    let session = SessionId::new(id).ok_or_else(none)?;
    file::change(&context.data, |store| {
        if !store.end_session(session)? {
            return Err(none().into());
        }
        store.note_change(Change::SessionEnded(session))?;
        Ok(())
    })?;
    writeln!(context.out, "session {id} has ended")?;
    Ok(())
}
