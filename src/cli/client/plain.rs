//! Line mode: for pipes, scripts and simple terminals.
//!
//! Messages go to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use purpose::client::Message;
use rustix::event::{PollFd, PollFlags, poll};
use vestnik::ids::ChatId;

use super::super::failure::Failure;
use super::super::{Outcome, file, link};
use super::controller::{Controller, Effect};
use super::enter::{self, note};
use super::handle::Handle;
use super::input::{Line, Lines};
use super::job::{Job, Progress};
use super::model::Model;
use super::report;
use super::text::{Clock, harmless};
use super::waker::WakeReceiver;
use super::worker;

/// Unfinished messages and commands above which the next line is not read.
const UNSETTLED_MAX: usize = 64;
/// Interval of progress lines.
const REPORT_PAUSE: Duration = Duration::from_secs(5);

/// The state of line mode.
pub(super) struct Plain<'a> {
    controller: Controller,
    worker: Handle,
    lines: Lines,
    clock: Clock,
    out: &'a mut dyn Write,
    /// Whether standard error is a terminal.
    is_watched: bool,
    /// Standard output was closed.
    nobody_reads: bool,
    /// The file and the time of the last progress line.
    reported: Option<(u64, Instant)>,
    failures: usize,
    end: Option<Result<(), String>>,
    logoff_at_end: bool,
}

impl<'a> Plain<'a> {
    pub(super) fn new(
        controller: Controller,
        worker: Handle,
        lines: Lines,
        out: &'a mut dyn Write,
    ) -> Self {
        Self {
            controller,
            worker,
            lines,
            clock: Clock::local(),
            out,
            is_watched: io::stdin().is_terminal(),
            nobody_reads: false,
            reported: None,
            failures: 0,
            end: None,
            logoff_at_end: false,
        }
    }

    /// Runs until the input ends and everything is answered. `signals` is readable when the process
    /// has to end. Returns whether the session was ended.
    pub(super) fn run(
        mut self,
        chat: Option<ChatId>,
        keeps_session: bool,
        signals: &WakeReceiver,
    ) -> Result<bool, Failure> {
        if let Some(chat) = chat {
            let effect = self.controller.show(chat);
            self.act(effect)?;
        }
        self.logoff_at_end = !keeps_session;
        while self.end.is_none() {
            self.take_lines()?;
            let flushed = self.out.flush();
            self.check_written(flushed)?;
            if self.nobody_reads && self.is_watched {
                return self.leave();
            }
            if self.lines.has_ended() && self.controller.is_settled() {
                return self.leave();
            }
            self.wait(signals)?;
            if signals.hush() {
                return self.stop();
            }
            for news in self.worker.news() {
                for effect in self.controller.heard(news) {
                    self.act(effect)?;
                }
            }
        }
        self.finish()
    }

    /// Whether the next line may be read (backpressure). In a script it also waits for transfers.
    fn keeps_up(&self) -> bool {
        let is_at_work = match self.is_watched {
            true => self.controller.asked > 0,
            false => self.controller.is_at_work(),
        };
        !is_at_work && self.controller.unsent.len() < UNSETTLED_MAX
    }

    /// Handles lines while the server keeps up. A command waits for all earlier lines.
    fn take_lines(&mut self) -> Outcome {
        while self.end.is_none() && self.keeps_up() {
            let is_free = self.controller.is_settled()
                || (self.is_watched && self.controller.waits_for_files_alone());
            if self.lines.next_begins() == Some(b'/') && !is_free {
                return Ok(());
            }
            let effects = match self.lines.next() {
                Some(Line::Text(text)) => self.controller.typed(&text),
                Some(Line::TooLong) => {
                    vec![Effect::Failure("not sent: that line is too long".to_owned())]
                }
                Some(Line::NotText) => {
                    vec![Effect::Failure("not sent: that line is not UTF-8".to_owned())]
                }
                None => return Ok(()),
            };
            for effect in effects {
                self.act(effect)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, signals: &WakeReceiver) -> Outcome {
        let stdin = io::stdin();
        let takes_input =
            !self.lines.has_ended() && self.keeps_up() && self.lines.next_begins().is_none();
        let mut waiting = vec![
            PollFd::new(&self.worker.receiver, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if takes_input {
            waiting.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let cannot = |error| Failure::Failed(format!("cannot wait for input: {error}"));
        match poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(cannot(io::Error::from(error))),
        }
        let is_ready = waiting.get(2).is_some_and(|stdin| !stdin.revents().is_empty());
        if is_ready { self.lines.read().map_err(cannot) } else { Ok(()) }
    }

    fn act(&mut self, effect: Effect) -> Outcome {
        match effect {
            Effect::Ask(Job::Quit { logoff }) => {
                self.logoff_at_end |= logoff;
                self.end = Some(Ok(()));
                self.say_good_bye();
            }
            Effect::Ask(job) => self.worker.ask(job),
            Effect::Message(message) => self.print(&message)?,
            Effect::Changed(line) => note(&line),
            Effect::Progress(progress) => self.report(&progress),
            Effect::Qr(rows) => print_qr(&rows),
            Effect::Note(lines) => lines.iter().for_each(|line| note(line)),
            Effect::Failure(words) => {
                self.failures += 1;
                note(&words);
            }
            Effect::Question(question) => {
                let answer = match enter::ask(&question.prompt()) {
                    Ok(answer) => answer,
                    Err(_) => {
                        return self.act(Effect::Failure(
                            "that asks for a password, and there is no terminal to ask on"
                                .to_owned(),
                        ));
                    }
                };
                let effect = self.controller.answered(question, answer);
                return self.act(effect);
            }
            Effect::End(end) => self.end = self.end.take().or(Some(end)),
        }
        Ok(())
    }

    fn print(&mut self, message: &Message) -> Outcome {
        let when = self.clock.full(message.created, file::now());
        let line = line(&self.controller.model, message);
        let written = writeln!(self.out, "[{when}] {line}");
        self.check_written(written)
    }

    /// Prints the progress of a file at intervals.
    fn report(&mut self, progress: &Progress) {
        let now = worker::now();
        let is_too_soon =
            |&(key, at): &(u64, Instant)| key == progress.key && now < at + REPORT_PAUSE;
        if self.reported.as_ref().is_some_and(is_too_soon) {
            return;
        }
        self.reported = Some((progress.key, now));
        let does = if progress.is_upload { "sending" } else { "saving" };
        let (name, size) = (&progress.name, report::size(progress.size));
        note(&format!("{does} {name}: {} % of {size}", progress.percent()));
    }

    /// A closed standard output does not prevent sending.
    fn check_written(&mut self, written: io::Result<()>) -> Outcome {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.nobody_reads = true;
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Ends at a signal. A script has to know that the rest of its input was not sent.
    fn stop(mut self) -> Result<bool, Failure> {
        if self.is_watched || (self.lines.has_ended() && self.lines.next_begins().is_none()) {
            return self.leave();
        }
        self.say_good_bye();
        self.end = Some(Err("stopped by a signal: not all input was sent".to_owned()));
        self.finish()
    }

    fn leave(mut self) -> Result<bool, Failure> {
        self.say_good_bye();
        self.end = Some(Ok(()));
        self.finish()
    }

    /// Closes the connection after earlier lines were sent, which may fail.
    fn say_good_bye(&mut self) {
        for words in self.controller.heard_last(self.worker.end(self.logoff_at_end)) {
            self.failures += 1;
            note(&words);
        }
    }

    /// Prints the unsent messages and the end.
    fn finish(mut self) -> Result<bool, Failure> {
        let flushed = self.out.flush();
        self.check_written(flushed)?;
        for unsent in &self.controller.unsent {
            note(&format!("not sent: {}", unsent.line()));
        }
        match self.end {
            Some(Err(words)) => return Err(Failure::Failed(words)),
            _ if !self.controller.unsent.is_empty() => {
                return Err(Failure::new("not everything was sent"));
            }
            _ if self.failures > 0 && !self.is_watched => {
                let count = self.failures;
                let lines = if count == 1 { "line" } else { "lines" };
                return Err(Failure::Failed(format!("{count} {lines} failed")));
            }
            _ => {}
        }
        Ok(self.logoff_at_end)
    }
}

/// Formats a message in one line: quote, text, files, reactions.
fn line(model: &Model, message: &Message) -> String {
    let name = harmless(&model.name(message.sender));
    let mut parts = Vec::new();
    let answered = message.reply.filter(|_| !message.deleted);
    parts.extend(answered.map(|reply| format!("(to {})", model.answered(reply))));
    if message.deleted {
        parts.push("(deleted)".to_owned());
    } else if !message.content.is_empty() {
        parts.push(harmless(&message.content));
    }
    parts.extend(message.files.iter().map(report::file));
    if message.edited && !message.deleted {
        parts.push("(edited)".to_owned());
    }
    if !message.reactions.is_empty() {
        parts.push(format!("{{{}}}", report::reactions(&message.reactions, model.me)));
    }
    format!("{name}: {}", parts.join(" "))
}

/// Prints a QR code; on a terminal in black on white, for cameras.
fn print_qr(rows: &[String]) {
    let mut out = io::stderr();
    let is_terminal = out.is_terminal();
    for row in rows {
        let row = if is_terminal { link::paper(row) } else { row.clone() };
        // An error is ignored: without standard error there is no place to report it.
        let _ = writeln!(out, "{row}");
    }
}
