//! The ACME worker thread, and its events for the event loop.
//!
//! Owns when attempts are made, and their log lines. An attempt blocks for seconds, which is why it
//! runs in a thread.

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
use super::attempt::{Callbacks, attempt};
use super::failure::Failure;
use super::schedule::{self, State, readable};
use super::storage::{Storage, covered_by};
use crate::certificate::x509::Validity;
use crate::config::Acme;

/// Longest sleep: the clocks are read again after it, because the wall clock may jump.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Time limit for the event loop to apply an event.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The present time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall clock: time since the Unix epoch. It may jump.
    pub wall: Duration,
    /// Monotonic clock: time since an arbitrary start.
    pub forward: Duration,
}

/// A request of the thread to the event loop.
#[derive(Debug)]
pub enum Event {
    /// Answer with the certificate of a challenge; `None` ends that.
    Challenge(Option<Challenge>),
    /// Load the new certificate and key.
    Renewed,
}

/// The event loop's handle of the thread.
///
/// The thread ends when this is dropped. The next start continues an attempt in progress.
#[derive(Debug)]
pub struct Worker {
    again: Sender<()>,
    events: Receiver<(Event, SyncSender<()>)>,
}

impl Worker {
    /// Starts the thread. It calls `wake` after it has queued an event.
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
            jitter: random_jitter(),
        };
        Builder::new().name("vestnik-acme".to_owned()).spawn(move || work.run())?;
        Ok(Self { again, events })
    }

    /// Applies the queued events by calling `means` with each.
    pub fn apply(&self, mut means: impl FnMut(Event)) {
        // Dropping `_done` signals the thread that the event was applied.
        while let Ok((event, _done)) = self.events.try_recv() {
            means(event);
        }
    }

    /// Makes the next attempt at once, without the pause after a failure.
    pub fn try_again(&self) {
        // A thread that has ended has logged the reason.
        let _ = self.again.send(());
    }
}

/// The state of the thread.
struct Work {
    acme: Acme,
    storage: Storage,
    clock: fn() -> Now,
    commands: Receiver<()>,
    events: Sender<(Event, SyncSender<()>)>,
    wake: Box<dyn Fn() + Send>,
    /// Jitter while there is no certificate: 0 to 999.
    jitter: u16,
}

/// The attempts of this process.
#[derive(Default)]
struct History {
    /// Consecutive failures.
    failures: u32,
    /// Time of the last failure, on the monotonic clock.
    failed_at: Duration,
    /// Retry-After of the last failure.
    retry_after: Option<Duration>,
    /// Time of the last success, on the monotonic clock.
    succeeded_at: Option<Duration>,
}

impl History {
    /// Resets the failures, so that the next attempt does not wait.
    fn reset_failures(&mut self) {
        *self = Self { succeeded_at: self.succeeded_at, ..Self::default() };
    }
}

/// The server shuts down.
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
                    history.reset_failures();
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

    /// Sleeps until the next attempt is due.
    fn wait(&self, history: &mut History) -> Result<(), Stopped> {
        loop {
            let wait = self.time_left(history);
            if wait.is_zero() {
                return Ok(());
            }
            match self.commands.recv_timeout(wait.min(WAIT_MAX)) {
                Ok(()) => history.reset_failures(),
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
            jitter: known.map_or(self.jitter, |(_, jitter)| jitter),
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
        let mut callbacks = Callbacks { answer: &mut answer, pause: &mut pause, now };
        attempt(&self.acme, &self.storage, &mut callbacks)
    }

    /// Sends an event to the event loop, and waits until it was applied.
    fn ask(&self, event: Event) -> Result<(), Failure> {
        let (done, wait) = sync_channel(1);
        self.events.send((event, done)).map_err(|_| stopping())?;
        (self.wake)();
        match wait.recv_timeout(APPLY_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::transient("the server is too busy to answer the authority"))
            }
            _ => Ok(()),
        }
    }

    fn renewed(&self, validity: Validity) {
        if let Err(failure) = self.ask(Event::Renewed) {
            log::error!("{failure}");
        }
        let jitter = covered_by(self.storage.pair(), &self.acme.domains);
        let renewal = schedule::renewal(validity, jitter.map_or(0, |(_, jitter)| jitter));
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
    Failure::transient("the server stops")
}

fn date(time: Duration) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let date = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| "an unknown date".to_owned(), |date| date.to_string())
}

fn random_jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without random bytes the jitter is 0, which only means that servers may renew together.
    let _ = SystemRandom::new().fill(&mut bytes);
    u16::from_le_bytes(bytes) % 1000
}
