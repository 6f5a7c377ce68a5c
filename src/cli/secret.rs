//! Where commands read passwords from: a terminal, twice, or one line of standard input.

use std::io::{BufRead, IsTerminal, Read};

use ring::rand::SystemRandom;
use vestnik::auth::password::{self, Kind, Password, Secret};
use vestnik::config::Options;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::output;

/// Longest line read as a password: longer than any password, so that one too long is refused as
/// such.
const LINE_BYTES_MAX: u64 = 4096;

/// The message when there is nobody to ask.
pub(super) const NO_TERMINAL: &str = "there is no terminal to ask for a password: pass \
                                      --password-stdin, and the password as one line of standard \
                                      input";

/// How a password is given and hashed.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Read the password from one line of standard input
    #[arg(long)]
    pub(super) password_stdin: bool,

    /// PBKDF2 rounds of the stored hash [default: 600000]
    #[arg(long, value_name = "N", env = "VESTNIK_PASSWORD_ITERATIONS", hide_env = true)]
    pub(super) password_iterations: Option<u32>,
}

impl Arguments {
    /// Gets a password and hashes it.
    pub(super) fn ask_and_hash(&self, kind: Kind, options: &Options) -> Result<String, Failure> {
        let password_iterations = self.password_iterations.or(options.password_iterations);
        let rounds = Options { password_iterations, ..Options::default() }.password_iterations()?;
        let given = if self.password_stdin { read_line()? } else { ask()? };
        hash(&prepare(&given, kind)?, rounds)
    }
}

/// Hashes a password as the server does.
pub(super) fn hash(password: &Password, rounds: u32) -> Result<String, Failure> {
    password::hash(password, rounds, &SystemRandom::new()).map_err(Failure::new)
}

/// Checks that a password can be one.
pub(super) fn prepare(given: &Secret, kind: Kind) -> Result<Password, Failure> {
    if given.expose().contains('\0') {
        return Err(Failure::new("a password cannot hold the character NUL"));
    }
    password::prepare(given.expose(), kind).map_err(Failure::new)
}

/// The first line of standard input, without its end.
fn read_line() -> Result<Secret, Failure> {
    let cannot = |e: std::io::Error| {
        Failure::Failed(format!("cannot read standard input: {}", output::reason(&e)))
    };
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX as usize));
    let mut input = std::io::stdin().lock().take(LINE_BYTES_MAX);
    input.read_until(b'\n', &mut line).map_err(cannot)?;
    if line.is_empty() {
        return Err(Failure::new("standard input holds no password: write it as one line"));
    }
    // A line of Windows ends in both.
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    }
    let text = str::from_utf8(&line).map_err(|_| Failure::new("the password is not UTF-8"))?;
    Ok(Secret::new(text.to_owned()))
}

/// Asks on the terminal twice, and does not show what is typed.
fn ask() -> Result<Secret, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(NO_TERMINAL.to_owned()));
    }
    let prompt = |words: &str| {
        super::prompt::read_secret(words).map_err(|e| {
            Failure::Failed(format!("cannot ask for a password: {}", output::reason(&e)))
        })
    };
    let first = prompt("Password: ")?;
    if prompt("Again: ")? != first {
        return Err(Failure::new("the two passwords differ: nothing was changed"));
    }
    Ok(first)
}
