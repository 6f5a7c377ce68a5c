//! `vestnik-load`: puts load on a server, measures it, and checks that every message arrived.
//!
//! One thread with one event loop, cheap enough to saturate the server: it reads large chunks into
//! one buffer, parses in place, and writes once per connection and turn. Besides the protocol it
//! reads only /proc of the server's process.
//!
//! ```text
//!   scenario  which connections do what         setup    how they become ready
//!   engine    the loop, phases, the clock       count    counters, books, faults
//!   conn      bytes in and out, the window      report   metrics for people and programs
//!   native, history, setup   the Purpose protocol    resp, mqtt, nats   other protocols
//! ```

mod conn;
mod count;
mod dial;
mod engine;
mod history;
mod mqtt;
mod native;
mod nats;
mod payload;
mod procfs;
mod report;
mod resp;
mod scenario;
mod setup;
mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  vestnik load prepare --users 200          users and a chat, in the data file of the server
  vestnik-load run fanout --members 200     deliveries per second in a chat of 200
  vestnik-load run rate --rate 20000        latency of 20,000 deliveries a second
  vestnik-load run echo --ws                requests per second through WebSockets

Exit codes: 0 everything arrived, 1 failed or something did not arrive, 2 wrong usage.";

/// Puts load on a vestnik server, measures it, and checks that every message arrives
#[derive(Parser)]
#[command(name = "vestnik-load", version, after_help = EXAMPLES, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put load on a server, measure it, and check that everything arrives
    Run(Box<LoadRunArgs>),
}

/// The reason why a run failed.
#[derive(Debug)]
enum Failure {
    /// Exit code 1: the run could not begin, or something did not arrive as expected.
    Failed(String),
    /// Exit code 2: contradicting arguments.
    Usage(String),
}

fn main() -> ExitCode {
    let Command::Run(arguments) = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        Err(error) if error.use_stderr() => {
            let _ = writeln!(std::io::stderr().lock(), "error: {}", one_line(&error));
            return ExitCode::from(2);
        }
        // Help or the version.
        Err(error) => error.exit(),
    };
    let mut out = std::io::stdout().lock();
    let (message, code) = match run(&arguments, &mut out) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (message, 1),
        Err(Failure::Usage(message)) => (message, 2),
    };
    // If this fails as well, nobody can read it.
    let _ = writeln!(std::io::stderr().lock(), "error: {message}");
    ExitCode::from(code)
}

/// Wrong arguments in one line: the first paragraph of what clap found.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; see --help".to_owned();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let words = text.split("\n\n").next().unwrap_or_default().split_whitespace();
    format!("{}; see --help", words.collect::<Vec<_>>().join(" "))
}

/// What to put on the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Scenario {
    /// A few publish to a chat of many; counts deliveries
    Fanout,
    /// Like fanout, at a fixed rate; latency counts from the intended time of sending
    Rate,
    /// Many send to one chat or several; counts acknowledged sends
    Durable,
    /// HEARTBEAT round trips
    Echo,
    /// Connections that log in and do nothing; memory per connection
    Idle,
    /// Reads of stored messages, in pages of 1,000
    History,
    /// LOGIN and RESTORE_SESSION in a loop
    Login,
    /// A mix of everything, by clients of both versions
    Mixed,
}

/// The version that clients speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Api {
    /// All 0.1
    #[value(name = "0.1")]
    V0_1,
    /// All 1.0
    #[value(name = "1.0")]
    V1_0,
    /// Half of the clients each
    Both,
}

/// The protocol of the server under load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Speak {
    /// vestnik's
    Purpose,
    /// Redis's: fanout, rate, durable (XADD), echo (PING), idle
    Redis,
    /// MQTT: fanout, rate, durable (QoS 1), echo (PINGREQ), idle
    Mqtt,
    /// NATS: fanout, rate, echo (PING), idle
    Nats,
}

/// Options of `vestnik-load run`.
#[derive(Clone, Debug, clap::Args)]
struct LoadRunArgs {
    /// What to put on the server
    #[arg(value_enum)]
    scenario: Scenario,
    /// Address of the server; several are used in turn
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7420")]
    addr: Vec<SocketAddr>,
    /// Use TLS, and trust the certificates in this file; they must name the addresses
    #[arg(long, value_name = "PEM")]
    tls: Option<PathBuf>,
    /// Connect through a WebSocket at the path /ws
    #[arg(long)]
    ws: bool,
    /// Version that clients speak; mixed always uses both
    #[arg(long, value_enum, default_value = "1.0")]
    api: Api,
    /// Chat to send to; on API 1.0 it is created if missing
    #[arg(long, value_name = "NAME", default_value = "load")]
    chat: String,
    /// Number of chats: NAME, NAME-1, NAME-2, …; connections spread over them in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    chats: u16,
    /// fanout, rate: connections that receive messages
    #[arg(long, value_name = "N", default_value_t = 200)]
    members: usize,
    /// fanout, rate: how many of them publish
    #[arg(long, value_name = "N", default_value_t = 4)]
    publishers: usize,
    /// Other scenarios: connections [default: 64; echo 50, idle 1000, history 4, login 32,
    /// mixed 100]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Requests that a connection keeps in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: u16,
    /// Bytes of a message's text, at least 24; for echo 0 is allowed too
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: usize,
    /// rate: deliveries per second, to all members together
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rate: u32,
    /// Seconds of measured load
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Seconds of load before the measurement
    #[arg(long, value_name = "S", default_value_t = 2)]
    warmup: u32,
    /// Connect from 127.0.0.1, 127.0.0.2, … in turn, for more connections than ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    source_addresses: u8,
    /// Process id of the server, to measure its CPU time and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Sends carry a nonce (API 1.0)
    #[arg(long)]
    nonces: bool,
    /// Users to log in as: PREFIX0 to PREFIX(N-1), in turn [default: one for each connection]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    users: Option<u32>,
    /// Prefix of user names
    #[arg(long, value_name = "PREFIX", default_value = "load")]
    user_prefix: String,
    /// Password of all users
    #[arg(long, default_value = "load-password")]
    password: String,
    /// Print one JSON object per measurement instead of a table
    #[arg(long)]
    json: bool,
    /// Protocol of the server, for comparisons
    #[arg(long, value_enum, default_value = "purpose", hide = true)]
    speak: Speak,
}

/// Runs a scenario. Prints results to `out`, and progress to standard error.
///
/// # Errors
/// The run could not begin, or something was missing, out of order, damaged or declined, or a
/// connection was lost.
fn run(args: &LoadRunArgs, out: &mut impl Write) -> Result<(), Failure> {
    let mut faults = Vec::new();
    for plan in scenario::plans(args).map_err(Failure::Usage)? {
        let outcome = engine::run(args, plan).map_err(Failure::Failed)?;
        let text = if args.json { report::json(&outcome) } else { report::table(&outcome) };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                return Err(Failure::Failed(format!("cannot write to standard output: {error}")));
            }
            _ => {}
        }
        if outcome.faults.count > 0 {
            let first = outcome.faults.reported.join("; ");
            faults.push(format!("{} faults, first: {first}", outcome.faults.count));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Failed(faults.join("; "))) }
}
