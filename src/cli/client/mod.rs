//! `vestnik client`: the terminal client, in line mode or full screen.
//!
//! Owns everything between the user and the client library. One thread has the connection
//! (`worker`), the other the user: `controller` handles input and news, `plain` and `screen` are
//! its two user interfaces. Must not know the inside of the server.

mod command;
mod commands;
mod controller;
mod enter;
mod handle;
mod input;
mod job;
mod media;
mod model;
mod pause;
mod perform;
mod plain;
mod report;
mod save;
mod saved_session;
mod screen;
mod server;
mod text;
mod transfer;
mod transfers;
mod waker;
mod worker;

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::failure::Failure;
use super::{Context, Outcome};
use controller::Controller;
use input::Lines;
use job::PAGE_MESSAGES;
use model::Model;
use perform::Surroundings;
use plain::Plain;
use waker::WakeReceiver;

const EXAMPLES: &str = "\
Examples:
  vestnik client --user anna --chat kitchen
      talk to the server on this machine; asks for what passwords it needs
  vestnik client chat.lan --tls-fingerprint 3F:A2:…
      a server elsewhere, with the certificate that `vestnik cert self-signed` made
  vestnik client chat.example.org --tls --user boris --register --invite CODE
      become a user of a server that lets people register
  printf '%s\\n' \"$PASSWORD\" 'the backup is done' | vestnik client --user bot --password-stdin --chat ops
      say something from a script: exit code 0 when everything was stored
  printf '%s\\n' \"$PASSWORD\" '/send report.pdf for this week' | vestnik client --user bot --password-stdin --chat ops
      send a file from a script; the next line waits until it is stored

/help in the client lists its commands.";

/// Options of `vestnik client`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: server::ServerArguments,

    #[command(flatten)]
    enter: enter::EnterArguments,

    /// The chat to open, joining it if need be
    #[arg(long, value_name = "NAME")]
    chat: Option<String>,

    /// Messages to begin with, by lines
    #[arg(long, value_name = "N", default_value_t = 20)]
    history: u16,

    /// The folder where /save stores files [default: the current one]
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    save_to: PathBuf,

    /// By lines, although this is a terminal
    #[arg(long)]
    plain: bool,
}

pub(super) fn run(arguments: &Arguments, context: &mut Context<'_>) -> Outcome {
    let server = arguments.server.server(saved_session::Folder::find().as_ref())?;
    if arguments.enter.forget {
        return enter::forget(&arguments.enter, &server);
    }
    let mut lines = Lines::default();
    let mut entered = enter::enter(&arguments.enter, &server, &mut lines)?;
    let chat = match &arguments.chat {
        Some(name) => Some(enter::chat(&mut entered.client, name)?),
        None => None,
    };
    let model = Model::new(entered.me, entered.name.clone());
    let by_lines = arguments.plain || !is_terminal();
    // A full screen shows more messages than line mode should print.
    let history = if by_lines { arguments.history } else { arguments.history.max(PAGE_MESSAGES) };
    let controller = Controller::new(model, RandomState::new().hash_one(()), history);
    let cannot = |error: io::Error| Failure::Failed(format!("cannot start: {error}"));
    let signals = signals().map_err(cannot)?;
    let surroundings = Surroundings {
        folder: arguments.save_to.clone(),
        public_url: arguments.server.public_url(&server),
    };
    let worker = worker::start(entered.client, surroundings).map_err(cannot)?;
    let keeps_session = entered.slot.is_some();
    let logged_off = if by_lines {
        let plain = Plain::new(controller, worker, lines, context.out);
        plain.run(chat, keeps_session, &signals)?
    } else {
        let title = format!("{}@{}", entered.name, server.name);
        screen::run(controller, title, &worker, chat, keeps_session, (&signals, context.out))?
    };
    if let Some(slot) = entered.slot.filter(|_| logged_off) {
        let cannot = |error| Failure::Failed(format!("cannot forget the session: {error}"));
        slot.forget().map_err(cannot)?;
    }
    Ok(())
}

/// Wakes the main thread when the process gets a signal to end.
fn signals() -> io::Result<WakeReceiver> {
    let (waker, receiver) = waker::pair()?;
    let waker = waker.into_inner();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        pipe::register(signal, waker.try_clone()?)?;
    }
    Ok(receiver)
}

/// Whether standard input and output are terminals that can position the cursor.
fn is_terminal() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
}
