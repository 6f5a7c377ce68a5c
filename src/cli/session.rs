//! `vestnik session`: who is logged in from where.

use clap::Subcommand;
use vestnik::ids::SessionId;
use vestnik::store::changes::Change;

use super::failure::Failure;
use super::{Context, Outcome, file, output};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the sessions of everybody, or of one user
    List {
        /// Whose
        user: Option<String>,
    },
    /// End a session: whoever is connected with it has to log in again
    End {
        /// Its id, from the list
        id: u32,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::List { user } => list(user.as_deref(), context),
        Command::End { id } => end(id, context),
    }
}

fn list(name: Option<&str>, context: &mut Context<'_>) -> Outcome {
    let rows = file::look(&context.data, |store| {
        let only = match name {
            Some(name) => Some(file::user(store, name)?.user),
            None => None,
        };
        let mut rows = Vec::new();
        for session in store.sessions(only)? {
            let user = store.user(session.user)?;
            rows.push([
                session.session.to_string(),
                user.map_or_else(|| session.user.to_string(), |user| user.nickname),
                output::time(session.created),
                output::time(session.used),
                session.address,
            ]);
        }
        Ok(rows)
    })?;
    Ok(output::table(context.out, ["ID", "USER", "CREATED", "USED", "ADDRESS"], &rows)?)
}

fn end(id: u32, context: &mut Context<'_>) -> Outcome {
    let none = || Failure::Failed(format!("there is no session {id}"));
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
