//! Failures of commands: one line on standard error, and an exit code.

use std::io;
use std::process::ExitCode;

use vestnik::config::ConfigError;
use vestnik::logging;
use vestnik::store::open::OpenError;

use super::{Outcome, output};

/// Longest message, in characters: it may repeat a text of a server, of any length.
const CHARS_MAX: usize = 2000;

/// The failure of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Exit code 1: the message says what failed, on what, and what to do.
    Failed(String),
    /// Exit code 2: the message says what is wrong with the arguments.
    Usage(String),
    /// Exit code 3: the state of the database on the disk is unknown.
    StorageLost(String),
    /// The reader of standard output has gone, which is not an error: exit code 0.
    NobodyReads,
}

impl Failure {
    /// A failure with this message.
    pub(super) fn new(words: impl ToString) -> Self {
        Self::Failed(words.to_string())
    }
}

/// For writes to standard output; other I/O errors are described where they occur.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => {
                let reason = output::reason(&error);
                Self::Failed(format!("cannot write to standard output: {reason}"))
            }
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Failed(message) => Self::Failed(message),
            OpenError::Replaced(message) => Self::StorageLost(message),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// The message of an I/O error, without the system's error number.
fn in_plain_words(words: &str) -> String {
    let words = words.replace("No such file or directory", "it does not exist");
    let mut parts = words.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    plain
}

/// The message as one line of limited length, without characters that act on a terminal. It may
/// repeat arguments and texts of a server with any characters.
fn in_one_line(words: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { output::harmless_char(c) };
    let mut line: String = words.chars().take(CHARS_MAX).map(shown).collect();
    if words.chars().nth(CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// Prints the failure of a command, and returns the exit code.
pub(super) fn end(outcome: Outcome) -> ExitCode {
    let (words, code) = match outcome {
        Ok(()) | Err(Failure::NobodyReads) => return ExitCode::SUCCESS,
        Err(Failure::Failed(words)) => (words, 1),
        Err(Failure::Usage(words)) => (words, 2),
        Err(Failure::StorageLost(words)) => (words, 3),
    };
    let words = in_plain_words(&in_one_line(&words));
    // If standard error is closed as well, only the exit code is left.
    logging::last_line(&format!("vestnik: {words}\n"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_that_nothing_acts_on() {
        assert_eq!(in_one_line("a\nb\x1b[2J\u{202e}c é"), "a b [2J\u{fffd}c é");
        let long = in_one_line(&"é".repeat(1 << 20));
        assert_eq!(long.chars().count(), CHARS_MAX + 1);
        assert!(long.ends_with("é…"));
        assert_eq!(in_one_line(&"x".repeat(CHARS_MAX)), "x".repeat(CHARS_MAX));
    }

    #[test]
    fn messages_hold_no_numbers_of_the_system() {
        let words = "x: Permission denied (os error 13): run it as its owner (vestnik)";
        let plain = "x: Permission denied: run it as its owner (vestnik)";
        assert_eq!(in_plain_words(words), plain);
        assert_eq!(in_plain_words("x (os error 2)"), "x");
        assert_eq!(in_plain_words("x (y)"), "x (y)");
    }
}
