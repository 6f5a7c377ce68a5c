//! The thread that asks for certificates, and what it has the loop do.
//!
//! Owns when it tries, and the log lines about it. Attempts block for seconds; the loop goes on.

use std::io;
use std::path::Path;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread::Builder;
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::Challenge;
use super::attempt::{Around, attempt};
use super::failure::Failure;
use super::schedule::{self, State, readable};
use super::storage::{Storage, covered_by};
use crate::certificate::x509::Validity;
use crate::config::Acme;

/// The clocks are read again this often while nothing is to be done: the wall clock may jump.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// How long the loop may take to do what an event asks for.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the Unix epoch; may jump.
    pub wall: Duration,
    /// Since some moment; only runs forward.
    pub forward: Duration,
}

/// What the loop is to do.
#[derive(Debug)]
pub enum Event {
    /// Answer with the certificate of a challenge from now on; `None`: no longer.
    Challenge(Option<Challenge>),
    /// Load the pair again.
    Renewed,
}

/// The loop's end of the thread, which ends when this is dropped; an attempt under way is gone on
/// with after the next start.
#[derive(Debug)]
pub struct Worker {
    again: Sender<()>,
    events: Receiver<(Event, SyncSender<()>)>,
}

impl Worker {
    /// Starts the thread. It calls `wake` for each event, once that can be fetched.
    pub fn start(
        acme: &Acme,
        data: &Path,
        clock: fn() -> Now,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (again, commands) = channel();
        let (events_out, events) = channel();
        let work = Work {
            storage: Storage::new(data, acme),
            acme: acme.clone(),
            clock,
            commands,
            events: events_out,
            wake: Box::new(wake),
            drawn: draw(),
        };
        Builder::new().name("vestnik-acme".to_owned()).spawn(move || work.run())?;
        Ok(Self { again, events })
    }

    /// Does what the thread asks for, with the means of the loop.
    pub fn apply(&self, mut means: impl FnMut(Event)) {
        // What is dropped with each event says that it was done.
        while let Ok((event, _done)) = self.events.try_recv() {
            means(event);
        }
    }

    /// Ends the wait after a failure.
    pub fn try_again(&self) {
        // A thread that is gone has said why.
        let _ = self.again.send(());
    }
}

/// The thread's own.
struct Work {
    acme: Acme,
    storage: Storage,
    clock: fn() -> Now,
    commands: Receiver<()>,
    events: Sender<(Event, SyncSender<()>)>,
    wake: Box<dyn Fn() + Send>,
    /// A number of 0 to 999, of this run.
    drawn: u16,
}

/// The attempts of this run.
#[derive(Default)]
struct History {
    /// Those that failed since the last that succeeded.
    failures: u32,
    /// When the last of them failed, by the clock that only runs forward,
    failed_at: Duration,
    /// and when the authority wants to be asked again.
    retry_after: Option<Duration>,
    /// When an attempt last succeeded.
    succeeded_at: Option<Duration>,
}

impl History {
    /// Forgets the failures: the next attempt need not wait for them.
    fn forgive(&mut self) {
        *self = Self { succeeded_at: self.succeeded_at, ..Self::default() };
    }
}

/// The server stops.
struct Stopped;

impl Work {
    fn run(self) {
        let mut history = History::default();
        loop {
            if self.wait(&mut history).is_err() {
                return;
            }
            let host = self.acme.directory.strip_prefix("https://").unwrap_or_default();
            let host = host.split('/').next().unwrap_or_default();
            log::info!("asking {host} for a certificate for {}", self.acme.domains.join(", "));
            let outcome = self.attempt();
            if matches!(self.commands.try_recv(), Err(TryRecvError::Disconnected)) {
                return;
            }
            match outcome {
                Ok(validity) => {
                    history.forgive();
                    history.succeeded_at = Some((self.clock)().forward);
                    self.renewed(validity);
                }
                Err(failure) => {
                    history.failures = history.failures.saturating_add(1);
                    history.failed_at = (self.clock)().forward;
                    history.retry_after = failure.retry_after;
                    self.report(&failure, &history);
                }
            }
        }
    }

    /// Waits until the next attempt is due.
    fn wait(&self, history: &mut History) -> Result<(), Stopped> {
        loop {
            let wait = self.time_left(history);
            if wait.is_zero() {
                return Ok(());
            }
            match self.commands.recv_timeout(wait.min(WAIT_MAX)) {
                Ok(()) => history.forgive(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn time_left(&self, history: &History) -> Duration {
        let now = (self.clock)();
        let known = covered_by(self.storage.pair(), &self.acme.domains);
        let state = State {
            validity: known.map(|(validity, _)| validity),
            since_success: history.succeeded_at.map(|at| now.forward.saturating_sub(at)),
            failures: history.failures,
            since_failure: now.forward.saturating_sub(history.failed_at),
            retry_after: history.retry_after,
            jitter: known.map_or(self.drawn, |(_, drawn)| drawn),
        };
        schedule::wait(&state, now.wall)
    }

    fn attempt(&self) -> Result<Validity, Failure> {
        let mut answer = |challenge| self.ask(Event::Challenge(challenge));
        let mut pause = |time: Duration| match self.commands.recv_timeout(time) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(stopping()),
        };
        let now = (self.clock)().wall;
        let mut around = Around { answer: &mut answer, pause: &mut pause, now };
        attempt(&self.acme, &self.storage, &mut around)
    }

    /// Has the loop do something, and waits until it has.
    fn ask(&self, event: Event) -> Result<(), Failure> {
        let (done, wait) = sync_channel(1);
        self.events.send((event, done)).map_err(|_| stopping())?;
        (self.wake)();
        match wait.recv_timeout(APPLY_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::passing("the server is too busy to answer the authority"))
            }
            _ => Ok(()),
        }
    }

    fn renewed(&self, validity: Validity) {
        if let Err(failure) = self.ask(Event::Renewed) {
            log::error!("{failure}");
        }
        let drawn = covered_by(self.storage.pair(), &self.acme.domains);
        let renewal = schedule::renewal(validity, drawn.map_or(0, |(_, drawn)| drawn));
        log::info!(
            "the certificate for {} is good until {} and will be renewed at {}",
            self.acme.domains.join(", "),
            date(validity.not_after),
            date(renewal)
        );
    }

    fn report(&self, failure: &Failure, history: &History) {
        let names = self.acme.domains.join(", ");
        let wait = readable(self.time_left(history));
        let now = (self.clock)().wall;
        match covered_by(self.storage.pair(), &self.acme.domains) {
            Some((validity, _)) if validity.not_after > now => log::warn!(
                "the certificate for {names} is not renewed: {failure}; it is good until {}, the \
                 next attempt is in {wait}, or at SIGHUP",
                date(validity.not_after)
            ),
            _ => log::error!(
                "no certificate for {names}: {failure}; the next attempt is in {wait}, or at SIGHUP"
            ),
        }
    }
}

fn stopping() -> Failure {
    Failure::passing("the server stops")
}

fn date(time: Duration) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let date = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| "an unknown date".to_owned(), |date| date.to_string())
}

fn draw() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness servers ask together, which they survive.
    let _ = SystemRandom::new().fill(&mut bytes);
    u16::from_le_bytes(bytes) % 1000
}
