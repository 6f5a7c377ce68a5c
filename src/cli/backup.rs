//! `vestnik backup`: a copy of the database.

use std::path::PathBuf;

use vestnik::store::{Copying, Database};

use super::failure::Failure;
use super::{Context, Outcome, file};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The file of the copy, which must not exist yet
    file: PathBuf,
    /// Leave out the bytes of files: the copy shows their names, and declines to give them
    #[arg(long)]
    without_files: bool,
    /// Keep the copy although it is damaged
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
    let copying =
        Copying { accepts_damage: arguments.accept_damage, without_files: arguments.without_files };
    database.copy_to(target, copying).map_err(Failure::Failed)?;
    writeln!(context.out, "copied {} to {}", context.data.display(), target.display())?;
    Ok(())
}
