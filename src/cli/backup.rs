//! `vestnik backup`: a copy of the database.

use std::path::PathBuf;

use vestnik::store::Database;

use super::failure::Failure;
use super::{Context, Outcome, file};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The file of the copy, which must not exist yet
    file: PathBuf,
    /// Keep the copy although messages in it are damaged
    #[arg(long)]
    accept_damage: bool,
}

pub(super) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Outcome {
    let target = &arguments.file;
    if target.symlink_metadata().is_ok() {
        let words = format!("{}: exists already: name a file that does not", target.display());
        return Err(Failure::Failed(words));
    }
    file::check_folder(target)?;
    let database = Database::open_reader(&context.data).map_err(Failure::Failed)?;
    database.copy_to(target, arguments.accept_damage).map_err(Failure::Failed)?;
    writeln!(context.out, "copied {} to {}", context.data.display(), target.display())?;
    Ok(())
}
