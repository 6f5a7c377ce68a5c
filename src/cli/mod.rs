//! The command line: words into commands, one file each, and their ends into exit codes.
//!
//! Owns what is printed and when a command has failed. A command that changes the data file does
//! so in one transaction, beside a running server or without one; what a server has to tell others
//! about is noted in the same transaction.

mod backup;
mod cert;
mod chat;
mod check;
mod client;
mod failure;
mod file;
mod invite;
mod load;
mod lockdown;
mod output;
mod prompt;
mod purge;
mod secret;
mod serve;
mod session;
mod stats;
mod transfer;
mod user;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use vestnik::config::{DATA, Options};

use failure::Failure;

/// What a command gives.
type Outcome = Result<(), Failure>;

const EXAMPLES: &str = "\
Examples:
  vestnik user add anna                     add a user, asked for the password
  vestnik chat add kitchen --admin anna     add a chat with its first member
  vestnik serve                             serve both on 127.0.0.1:7420
  vestnik client --user anna --chat kitchen chat, in another terminal
  vestnik backup /var/backups/chat.db       copy the data file while the server runs

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

/// What every command takes, before or after its name.
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
    /// Add people, and say who may come in
    #[command(subcommand)]
    User(user::Command),
    /// Add chats, and say who is in them
    #[command(subcommand)]
    Chat(chat::Command),
    /// See who is logged in from where, and end it
    #[command(subcommand)]
    Session(session::Command),
    /// Let people register with a code
    #[command(subcommand)]
    Invite(invite::Command),
    /// Let nobody register or join a chat, for as long as need be
    Lockdown(lockdown::Arguments),
    /// Copy the data file, while the server runs or not
    Backup(backup::Arguments),
    /// Write a chat as lines of JSON
    Export(transfer::ExportArguments),
    /// Add a chat from what `export` wrote, with the same ids and times
    Import(transfer::ImportArguments),
    /// Look for damage in the data file
    Check,
    /// Ask a running server for its figures
    Stats(stats::Arguments),
    /// Chat, in this terminal
    Client(Box<client::Arguments>),
    /// Make a certificate for a server that no authority vouches for
    #[command(subcommand)]
    Cert(cert::Command),
    /// Prepare and run load tests
    #[command(subcommand)]
    Load(load::Command),
}

/// What commands need to know beside their own arguments.
struct Context<'a> {
    /// The data file.
    data: PathBuf,
    /// The layers below the command's own arguments.
    options: Options,
    /// Standard output.
    out: &'a mut dyn Write,
}

/// Runs the command that the arguments of the process name.
pub(crate) fn main() -> ExitCode {
    let outcome = match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => {
            let words = std::env::args_os().skip(1);
            let words = words.map(|word| word.to_string_lossy().into_owned());
            failure::explain_usage(&error, &command_named(words))
        }
    };
    failure::end(outcome)
}

/// The command that these words name, as it is typed, without arguments.
fn command_named(words: impl Iterator<Item = String>) -> String {
    let root = Arguments::command();
    let mut command = &root;
    let mut name = command.get_name().to_owned();
    for word in words {
        if let Some(found) = command.find_subcommand(&word) {
            command = found;
            name = format!("{name} {word}");
        }
    }
    name
}

fn run(arguments: Arguments) -> Outcome {
    let lower = match &arguments.everywhere.config {
        Some(path) => Options::read(path)?,
        None => Options::default(),
    };
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
        Command::Lockdown(arguments) => lockdown::run(&arguments, context),
        Command::Backup(arguments) => backup::run(&arguments, context),
        Command::Export(arguments) => transfer::export(&arguments, context),
        Command::Import(arguments) => transfer::import(&arguments, context),
        Command::Check => check::run(context),
        Command::Stats(arguments) => stats::run(arguments, context),
        Command::Client(arguments) => client::run(&arguments, context),
        Command::Cert(command) => cert::run(command, context),
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
    fn the_command_is_found_among_its_arguments() {
        let named = |words: &str| command_named(words.split(' ').map(str::to_owned));
        assert_eq!(named("--data x user --what add list"), "vestnik user add");
        assert_eq!(named("--lissen"), "vestnik");
    }
}
