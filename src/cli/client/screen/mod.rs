//! Full-screen mode of the terminal client.
//!
//! Keys and news change `state`, `draw` turns it into a `frame`; only this file and `terminal`
//! touch the terminal.

mod complete;
mod draw;
mod editor;
mod frame;
mod keys;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use signal_hook::consts::{SIGCONT, SIGWINCH};
use signal_hook::low_level::pipe;
use vestnik::ids::ChatId;

use super::super::failure::Failure;
use super::controller::Controller;
use super::enter::note;
use super::handle::Handle;
use super::job::Job;
use super::text::{Clock, harmless};
use super::waker::{self, WakeReceiver};
use super::worker;
use frame::{Frame, paint};
use keys::{Key, Keys};
use state::Screen;
use terminal::Terminal;

/// Runs until the user quits or the session ends; returns whether the session was ended.
pub(super) fn run(
    controller: Controller,
    title: String,
    worker: &Handle,
    chat: Option<ChatId>,
    keeps_session: bool,
    (signals, out): (&WakeReceiver, &mut dyn Write),
) -> Result<bool, Failure> {
    let cannot = |error: io::Error| Failure::Failed(format!("cannot use this terminal: {error}"));
    let (waker, resized) = waker::pair().map_err(cannot)?;
    pipe::register(SIGWINCH, waker.into_inner()).map_err(cannot)?;
    let (waker, continued) = waker::pair().map_err(cannot)?;
    pipe::register(SIGCONT, waker.into_inner()).map_err(cannot)?;
    let screen = Screen::new(controller, title, Terminal::size());
    let terminal = Terminal::take(out).map_err(cannot)?;
    let mut shell = Shell {
        screen,
        worker,
        terminal,
        keys: Keys::default(),
        shown: None,
        clock: Clock::local(),
        has_colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let effects = chat.map(|chat| shell.screen.controller.show(chat)).into_iter().collect();
    let jobs = shell.screen.act(effects);
    shell.screen.switch_draft();
    shell.ask(jobs);
    let outcome = shell.talk(&Signals { end: signals, resized, continued }).map_err(cannot);
    shell.screen.logoff |= !keeps_session;
    let mut failed = Vec::new();
    if !matches!(shell.screen.end, Some(Err(_))) {
        // Earlier messages are sent first, which may fail.
        failed = shell.screen.controller.heard_last(worker.end(shell.screen.logoff));
    }
    let Shell { screen, terminal, .. } = shell;
    // The terminal is restored before anything more is printed.
    drop(terminal);
    outcome?;
    failed.iter().for_each(|words| note(words));
    finish(&screen, failed.is_empty())
}

/// Receivers of signals: to end, of a new size, and to continue after a stop.
struct Signals<'a> {
    end: &'a WakeReceiver,
    resized: WakeReceiver,
    continued: WakeReceiver,
}

struct Shell<'a> {
    screen: Screen,
    worker: &'a Handle,
    terminal: Terminal<'a>,
    keys: Keys,
    shown: Option<Frame>,
    clock: Clock,
    has_colours: bool,
}

impl Shell<'_> {
    fn ask(&self, jobs: Vec<Job>) {
        jobs.into_iter().for_each(|job| self.worker.ask(job));
    }

    fn talk(&mut self, signals: &Signals<'_>) -> io::Result<()> {
        while self.screen.end.is_none() {
            let now = worker::now();
            let due = self.screen.expire(now);
            let due = self.keys.wait(now).or(due);
            self.show()?;
            let has_input = self.wait(signals, due)?;
            if signals.end.hush() {
                return Ok(());
            }
            let was_stopped = signals.continued.hush();
            if was_stopped {
                self.terminal.enter()?;
                self.shown = None;
            }
            if signals.resized.hush() || was_stopped {
                let jobs = self.screen.resize(Terminal::size());
                self.ask(jobs);
            }
            let now = worker::now();
            if has_input {
                self.read(now)?;
            } else if let Some(key) = self.keys.give_up_waiting(now) {
                let jobs = self.screen.pressed(key, now);
                self.ask(jobs);
            }
            for news in self.worker.news() {
                let jobs = self.screen.heard(news, now);
                self.ask(jobs);
            }
        }
        Ok(())
    }

    fn show(&mut self) -> io::Result<()> {
        let next = self.screen.draw(&self.clock);
        if self.shown.as_ref() != Some(&next) {
            self.terminal.write(&paint(self.shown.as_ref(), &next, self.has_colours))?;
            self.shown = Some(next);
        }
        Ok(())
    }

    /// Waits for an event; returns whether there is input.
    fn wait(&self, signals: &Signals<'_>, due: Option<Duration>) -> io::Result<bool> {
        let stdin = io::stdin();
        let mut waiting = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(&self.worker.receiver, PollFlags::IN),
            PollFd::new(signals.end, PollFlags::IN),
            PollFd::new(&signals.resized, PollFlags::IN),
            PollFd::new(&signals.continued, PollFlags::IN),
        ];
        let timeout = due.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut waiting, timeout.as_ref()) {
            Ok(_) => Ok(!waiting[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self, now: Instant) -> io::Result<()> {
        let mut bytes = [0; 4096];
        let count = retry_on_intr(|| rustix::io::read(io::stdin(), &mut bytes))?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.keys.push(bytes.get(..count).unwrap_or_default(), now);
        while let Some(key) = self.keys.next() {
            match key {
                Key::Ctrl('l') => self.shown = None,
                Key::Ctrl('z') => {
                    self.terminal.suspend()?;
                    let jobs = self.screen.resize(Terminal::size());
                    self.ask(jobs);
                    self.shown = None;
                }
                _ => {}
            }
            let jobs = self.screen.pressed(key, now);
            self.ask(jobs);
        }
        Ok(())
    }
}

/// Prints the unsent messages and the end on the terminal.
fn finish(screen: &Screen, is_all_done: bool) -> Result<bool, Failure> {
    for unsent in &screen.controller.unsent {
        note(&format!("not sent: {}", unsent.line()));
    }
    match &screen.end {
        Some(Err(words)) => {
            let drafts = screen.drafts.values().map(String::as_str);
            for text in drafts.chain([screen.editor.text()]).filter(|text| !text.is_empty()) {
                note(&format!("not sent: {}", harmless(text)));
            }
            Err(Failure::Failed(words.clone()))
        }
        _ if !screen.controller.unsent.is_empty() || !is_all_done => {
            Err(Failure::new("not everything was sent"))
        }
        _ => Ok(screen.logoff),
    }
}
