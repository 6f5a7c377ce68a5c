//! `vestnik completions` and `vestnik man`: shell completions and manual pages.

use std::path::PathBuf;

use clap_complete::Shell;

use super::failure::Failure;
use super::{Context, Outcome, output, tree};

/// A shell that `completions` writes for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Target {
    Bash,
    Zsh,
    Fish,
}

#[derive(clap::Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    shell: Target,
}

#[derive(clap::Args)]
pub(super) struct ManArguments {
    /// The folder that the pages are written to; it must exist
    dir: PathBuf,
}

pub(super) fn completions(arguments: &CompletionsArguments, context: &mut Context<'_>) -> Outcome {
    let shell = match arguments.shell {
        Target::Bash => Shell::Bash,
        Target::Zsh => Shell::Zsh,
        Target::Fish => Shell::Fish,
    };
    // Generate into memory: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut tree(), "vestnik", &mut script);
    Ok(context.out.write_all(&script)?)
}

pub(super) fn man(arguments: &ManArguments, context: &mut Context<'_>) -> Outcome {
    let dir = &arguments.dir;
    let cannot = |e: std::io::Error| {
        let reason = output::reason(&e);
        Failure::Failed(format!("cannot write manual pages to {}: {reason}", dir.display()))
    };
    if !dir.is_dir() {
        let words = format!("{0}: the folder {0} does not exist; make it first", dir.display());
        return Err(Failure::Failed(words));
    }
    clap_mangen::generate_to(tree(), dir).map_err(cannot)?;
    writeln!(context.out, "wrote the manual pages to {}", dir.display())?;
    Ok(())
}
