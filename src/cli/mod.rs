//! The command line: one file per command, and exit codes.
//!
//! Owns the output and the exit codes. A command changes the database in one transaction, whether a
//! server runs or not, and records in the same transaction what the server has to notify.

mod backup;
mod cert;
mod chat;
mod check;
mod client;
mod clock;
mod config;
mod environment;
mod failure;
mod file;
mod hook;
mod invite;
mod link;
mod load;
mod lockdown;
mod manual;
mod output;
mod prompt;
mod purge;
mod push;
mod secret;
mod serve;
mod session;
mod stats;
mod transfer;
mod usage;
mod user;
mod version;

use std::fmt;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use vestnik::config::{DATA, Options};

use failure::Failure;

/// The result of a command.
type Outcome = Result<(), Failure>;

const EXAMPLES: &str = "\
Examples:
  vestnik user add anna                     add a user; asks for the password
  vestnik chat add kitchen --admin anna     add a chat with its first member
  vestnik serve                             run the server on 127.0.0.1:7420
  vestnik client --user anna --chat kitchen chat, in another terminal
  vestnik backup /var/backups/chat.db       copy the database while the server runs

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the server lost its storage.";

/// A chat server to host yourself: one binary, one SQLite file, one thread
#[derive(Parser)]
#[command(name = "vestnik", version, after_help = EXAMPLES, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    everywhere: Everywhere,

    #[command(subcommand)]
    command: Command,
}

/// Options of every command, before or after its name.
#[derive(clap::Args)]
struct Everywhere {
    /// The data file [default: vestnik.db]
    #[arg(long, global = true, value_name = "FILE", env = "VESTNIK_DATA", hide_env = true)]
    data: Option<PathBuf>,

    /// A TOML file with options of `serve`, named as they are on the command line
    #[arg(long, global = true, value_name = "FILE", env = "VESTNIK_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<serve::Arguments>),
    /// Manage users
    #[command(subcommand)]
    User(user::Command),
    /// Manage group chats and their members
    #[command(subcommand)]
    Chat(chat::Command),
    /// List and end sessions
    #[command(subcommand)]
    Session(session::Command),
    /// Manage invites: codes to register with
    #[command(subcommand)]
    Invite(invite::Command),
    /// Manage hooks: bots that write to a chat over HTTP
    #[command(subcommand)]
    Hook(hook::Command),
    /// Send a push to a user, to see whether it arrives
    #[command(subcommand)]
    Push(push::Command),
    /// Stop registrations and joins, or allow them again
    Lockdown(lockdown::Arguments),
    /// Show whether the clock is trusted, or confirm it after a jump
    #[command(subcommand)]
    Clock(clock::Command),
    /// Copy the database, while the server runs or not
    Backup(backup::Arguments),
    /// Write a chat as lines of JSON
    Export(transfer::ExportArguments),
    /// Add a chat from what `export` wrote, with the same ids and times
    Import(transfer::ImportArguments),
    /// Look for damage in the database
    Check(check::Arguments),
    /// Show the metrics of a running server
    Stats(stats::Arguments),
    /// Chat in this terminal
    Client(Box<client::Arguments>),
    /// Make a certificate for a LAN, self-signed or by an authority of your own
    #[command(subcommand)]
    Cert(cert::Command),
    /// Check the options of the server
    #[command(subcommand)]
    Config(config::Command),
    /// Show the version, the commit and what is built in
    Version(version::Arguments),
    /// Print a script that completes commands in a shell
    Completions(manual::CompletionsArguments),
    /// Write manual pages
    Man(manual::ManArguments),
    /// Prepare and run load tests
    #[command(subcommand)]
    Load(load::Command),
}

/// The environment of a command.
struct Context<'a> {
    /// The data file.
    data: PathBuf,
    /// The layers of options below the command's own arguments.
    options: Options,
    /// Standard output.
    out: &'a mut dyn Write,
}

/// Runs the command in the arguments of the process.
pub(crate) fn main() -> ExitCode {
    let parsed = tree().try_get_matches().and_then(|found| Arguments::from_arg_matches(&found));
    let outcome = match parsed {
        Ok(arguments) => match usage::contradiction(std::env::args_os()) {
            Some(words) => Err(Failure::Usage(words)),
            None => run(arguments),
        },
        Err(error) => {
            let words = std::env::args_os().skip(1);
            let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
            usage::explain(&error, &words)
        }
    };
    failure::end(outcome)
}

/// The tree of all commands. A number below zero is the value of the option before it, and not an
/// option of its own, so that the answer is about the number.
fn tree() -> clap::Command {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|argument| match argument.get_action().takes_values() {
            true => argument.allow_negative_numbers(true),
            false => argument,
        });
        command.mut_subcommands(with_negative_numbers)
    }
    with_negative_numbers(Arguments::command())
}

/// Parses a whole number within bounds.
fn number<T>(
    bounds: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + fmt::Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| {
            format!("it must be a whole number from {} to {}", bounds.start(), bounds.end())
        })
    }
}

fn run(arguments: Arguments) -> Outcome {
    let (lower, problems) = match &arguments.everywhere.config {
        Some(path) => Options::read_all(path),
        None => Default::default(),
    };
    let is_check = matches!(arguments.command, Command::Config(_));
    if let Some(first) = problems.first()
        && !is_check
    {
        return Err(first.clone().into());
    }
    let options = Options { data: arguments.everywhere.data, ..Options::default() }.or(lower);
    let data = options.data.clone().unwrap_or_else(|| DATA.into());
    let mut out = std::io::stdout().lock();
    let context = &mut Context { data, options, out: &mut out };
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments, context),
        Command::User(command) => user::run(command, context),
        Command::Chat(command) => chat::run(command, context),
        Command::Session(command) => session::run(command, context),
        Command::Invite(command) => invite::run(command, context),
        Command::Hook(command) => hook::run(command, context),
        Command::Push(command) => push::run(command, context),
        Command::Lockdown(arguments) => lockdown::run(&arguments, context),
        Command::Clock(command) => clock::run(command, context),
        Command::Backup(arguments) => backup::run(&arguments, context),
        Command::Export(arguments) => transfer::export(&arguments, context),
        Command::Import(arguments) => transfer::import(&arguments, context),
        Command::Check(arguments) => check::run(arguments, context),
        Command::Stats(arguments) => stats::run(arguments, context),
        Command::Client(arguments) => client::run(&arguments, context),
        Command::Cert(command) => cert::run(command, context),
        Command::Config(command) => config::run(&command, &problems, context),
        Command::Version(arguments) => version::run(arguments, context),
        Command::Completions(arguments) => manual::completions(&arguments, context),
        Command::Man(arguments) => manual::man(&arguments, context),
        Command::Load(command) => load::run(command, context),
    }?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, short forms and defaults do not contradict each other.
    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn numbers_have_bounds() {
        let parse = number(0..=10_u32);
        assert_eq!(parse("10"), Ok(10));
        for text in ["11", "-1", "", "x", "1.5", "99999999999"] {
            assert_eq!(parse(text), Err("it must be a whole number from 0 to 10".to_owned()));
        }
    }
}
