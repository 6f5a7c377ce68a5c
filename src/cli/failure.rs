//! How a command can fail: one line on standard error, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use vestnik::config::ConfigError;

use super::Outcome;

/// Why a command did not do what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Exit code 1: the words say what is wrong, and what to do.
    Failed(String),
    /// Exit code 2: the words say what is wrong with the arguments.
    Usage(String),
    /// Exit code 3: a server does not know any more what is on its disk.
    StorageLost(String),
    /// Whoever read standard output has gone, which is not for us to judge: exit code 0.
    NobodyReads,
}

impl Failure {
    /// A failure with these words.
    pub(super) fn new(words: impl ToString) -> Self {
        Self::Failed(words.to_string())
    }
}

/// Writing to standard output is the only input or output that commands do by themselves.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Turns what clap says into help on standard output, or into one line. `command` is the one that
/// it is about, as it is typed.
pub(super) fn explain_usage(error: &clap::Error, command: &str) -> Outcome {
    match error.kind() {
        // In colours, where the terminal has them.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.print()?),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Err(Failure::Usage(format!("say what to do: see '{command} --help'")))
        }
        _ => {
            let line = one_line(&error.render().to_string());
            Err(Failure::Usage(format!("{line}; see '{command} --help'")))
        }
    }
}

/// The first paragraph as one line, with the tip if there is one.
fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.lines().find_map(|line| line.trim().strip_prefix("tip: ")) {
        Some(tip) => format!("{line} ({tip})"),
        None => line,
    }
}

/// Tells how it ended.
pub(super) fn end(outcome: Outcome) -> ExitCode {
    let (words, code) = match outcome {
        Ok(()) | Err(Failure::NobodyReads) => return ExitCode::SUCCESS,
        Err(Failure::Failed(words)) => (words, 1),
        Err(Failure::Usage(words)) => (words, 2),
        Err(Failure::StorageLost(words)) => (words, 3),
    };
    // What somebody typed may hold anything; it stays on the one line.
    let words = words.replace(char::is_control, " ");
    // When standard error is closed, too, the code is all that is left to tell.
    let _ = writeln!(io::stderr(), "vestnik: {words}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_in_one_line() {
        let said = "error: unexpected argument '--lissen' found\n\n  \
                    tip: a similar argument exists: '--listen'\n\n\
                    Usage: vestnik serve --listen <ADDR:PORT>\n\nFor more information, try";
        assert_eq!(
            one_line(said),
            "unexpected argument '--lissen' found (a similar argument exists: '--listen')"
        );
        let said = "error: the following required arguments were not provided:\n  <NAME>\n\n\
                    Usage: vestnik user add <NAME>\n";
        let line = "the following required arguments were not provided: <NAME>";
        assert_eq!(one_line(said), line);
    }
}
