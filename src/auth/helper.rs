//! The password helper: a thread that hashes passwords, since each takes a tenth of a second and
//! the event loop must not wait.
//!
//! Owns the thread, the bounded channel of jobs to it, and the channel of results. It does not know
//! users, connections or rate limits: a job is an id, a stored password and a given one.
//!
//! [`run`] does a whole job as a plain function; tests and simulations call it directly.
//!
//! The thread does one job at a time, in the order of submission. Before you submit several jobs
//! that share a token bucket, read "Work in flight" in `throttle`.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use ring::rand::SystemRandom;

use super::password::{self, Password};
use super::random::{NoRandomness, RandomSource};
use crate::limits::PASSWORD_QUEUE_MAX;

/// The id of a job, chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(pub u64);

/// A piece of password work.
#[derive(Debug)]
pub struct Job {
    /// Returned with the result.
    pub id: JobId,
    /// The work to do.
    pub work: Work,
}

/// The kinds of work. They contain stored passwords: do not log them.
pub enum Work {
    /// Compare a password with the stored one.
    Verify {
        /// The stored password; `None` for an unknown or disabled user: same work, result `false`.
        stored: Option<String>,
        /// The given password.
        password: Password,
        /// The configured rounds: every wrong password costs at least these.
        rounds: u32,
        /// Whether to hash a right password again if it is stored with fewer rounds.
        upgrade: bool,
    },
    /// Hash a new password.
    Hash {
        /// The new password.
        password: Password,
        /// PBKDF2 rounds.
        rounds: u32,
    },
}

/// The result of a job.
#[derive(Clone, Debug)]
pub struct JobDone {
    /// The id of the job.
    pub id: JobId,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The outcome of a job. It contains stored passwords: do not log it.
#[derive(Clone)]
pub enum Outcome {
    /// Outcome of [`Work::Verify`].
    Verified {
        /// Whether the password was right.
        ok: bool,
        /// The new stored password, if the right one was upgraded.
        upgraded: Option<String>,
    },
    /// Outcome of [`Work::Hash`]: the stored password.
    Hashed(String),
    /// Any work may fail.
    Failed(JobError),
}

/// The reason why password work failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobError {
    /// No randomness for a salt.
    NoRandomness(NoRandomness),
    /// The work panicked, which is a bug. The helper continues with the next job.
    Panicked,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRandomness(why) => why.fmt(f),
            Self::Panicked => f.write_str("the password helper panicked"),
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify { stored, rounds, upgrade, .. } => f
                .debug_struct("Verify")
                .field("stored", &stored.is_some())
                .field("rounds", rounds)
                .field("upgrade", upgrade)
                .finish_non_exhaustive(),
            Self::Hash { rounds, .. } => {
                f.debug_struct("Hash").field("rounds", rounds).finish_non_exhaustive()
            }
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { ok, upgraded } => f
                .debug_struct("Verified")
                .field("ok", ok)
                .field("upgraded", &upgraded.is_some())
                .finish(),
            Self::Hashed(_) => f.write_str("Hashed(…)"),
            Self::Failed(why) => f.debug_tuple("Failed").field(why).finish(),
        }
    }
}

/// Does a job; takes a tenth of a second at the default number of rounds.
pub fn run(job: Job, random: &dyn RandomSource) -> JobDone {
    let outcome = match job.work {
        Work::Verify { stored, password, rounds, upgrade } => {
            verify(stored.as_deref(), &password, rounds, upgrade, random)
        }
        Work::Hash { password, rounds } => match password::hash(&password, rounds, random) {
            Ok(stored) => Outcome::Hashed(stored),
            Err(why) => Outcome::Failed(JobError::NoRandomness(why)),
        },
    };
    JobDone { id: job.id, outcome }
}

/// Verifies a password. A wrong one costs at least the configured rounds, so the time does not
/// reveal users who are unknown, disabled, or have fewer rounds. Users with *more* rounds are
/// revealed by slower answers. That happens after an operator lowered the rounds, and hiding it
/// would make every wrong answer as slow as the slowest.
fn verify(
    stored: Option<&str>,
    password: &Password,
    rounds: u32,
    upgrade: bool,
    random: &dyn RandomSource,
) -> Outcome {
    // Do the same steps for every user, known or not: even the microseconds of parsing could be
    // measured.
    let nobody = password::nobody(rounds);
    let known = stored.unwrap_or(&nobody);
    let is_right = password::verify(known, password);
    let ok = is_right && stored.is_some();
    if !ok {
        let done = password::rounds(known).unwrap_or(0);
        if done < rounds {
            password::verify_nothing(password, rounds - done);
        }
        return Outcome::Verified { ok, upgraded: None };
    }
    let wanted = upgrade && password::needs_upgrade(known, rounds);
    // Without randomness, keep the old hash; the next login tries again.
    let upgraded = wanted.then(|| password::hash(password, rounds, random).ok()).flatten();
    Outcome::Verified { ok, upgraded }
}

/// The queue is full: the request is declined `rate-limited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many passwords wait to be checked")
    }
}

impl std::error::Error for QueueFull {}

/// The event loop's end of the helper thread. Dropping it ends the thread: the present job is
/// finished and its result dropped; waiting jobs are not started.
#[derive(Debug)]
pub struct PasswordHelper {
    /// `None` only during drop.
    jobs: Option<SyncSender<Job>>,
    done: Receiver<JobDone>,
    /// Jobs submitted whose results were not fetched; bounds both channels.
    under_way: Cell<usize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PasswordHelper {
    /// Starts the thread. It calls `wake` after each job, when the result can be fetched.
    pub fn start(wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (jobs, jobs_in) = sync_channel(PASSWORD_QUEUE_MAX);
        let (done_out, done) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = Builder::new()
            .name("vestnik-password".to_owned())
            .spawn(move || work(&jobs_in, &done_out, &stopped, wake))?;
        let under_way = Cell::new(0);
        Ok(Self { jobs: Some(jobs), done, under_way, stop, thread: Some(thread) })
    }

    /// Submits a job; fails when [`PASSWORD_QUEUE_MAX`] jobs are in progress.
    pub fn submit(&self, job: Job) -> Result<(), QueueFull> {
        if self.under_way.get() >= PASSWORD_QUEUE_MAX {
            return Err(QueueFull);
        }
        let jobs = self.jobs.as_ref().ok_or(QueueFull)?;
        jobs.try_send(job).map_err(|refused| {
            if matches!(refused, TrySendError::Disconnected(_)) {
                log::error!("the password helper thread has ended; nobody can log in");
            }
            QueueFull
        })?;
        self.under_way.set(self.under_way.get() + 1);
        Ok(())
    }

    /// Whether jobs are in progress or results can be fetched.
    pub fn is_busy(&self) -> bool {
        self.under_way.get() > 0
    }

    /// The next result. One wake-up may stand for several: call until `None`.
    pub fn try_recv(&self) -> Option<JobDone> {
        let done = self.done.try_recv().ok()?;
        self.under_way.set(self.under_way.get() - 1);
        Some(done)
    }
}

impl Drop for PasswordHelper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the password helper had panicked");
        }
    }
}

fn work(jobs: &Receiver<Job>, done: &Sender<JobDone>, stopped: &AtomicBool, wake: impl Fn()) {
    let random = SystemRandom::new();
    for job in jobs {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let id = job.id;
        let outcome = guarded(id, || run(job, &random));
        if done.send(outcome).is_err() {
            return;
        }
        wake();
    }
}

/// Runs a job; if it panics, the job fails and the thread lives on. Otherwise nobody could log in
/// any more.
fn guarded(id: JobId, work: impl FnOnce() -> JobDone) -> JobDone {
    // State that the work has touched is not used again.
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        log::error!("password work panicked, which is a bug; its request is declined");
        JobDone { id, outcome: Outcome::Failed(JobError::Panicked) }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::super::password::{Kind, hash, prepare, rounds as rounds_of};
    use super::super::random::fixed::{Counting, Empty};
    use super::*;

    fn password(text: &str) -> Password {
        prepare(text, Kind::Chat).unwrap()
    }

    fn check(stored: Option<&str>, given: &str, rounds: u32) -> (bool, Option<String>) {
        let work = Work::Verify {
            stored: stored.map(str::to_owned),
            password: password(given),
            rounds,
            upgrade: true,
        };
        match run(Job { id: JobId(7), work }, &Counting::default()).outcome {
            Outcome::Verified { ok, upgraded } => (ok, upgraded),
            other => panic!("{other:?}"),
        }
    }

    fn stored(text: &str, rounds: u32) -> String {
        hash(&password(text), rounds, &Counting::default()).unwrap()
    }

    #[test]
    fn only_the_right_password_is_right() {
        let stored = stored("anna's", 10);
        assert_eq!(check(Some(&stored), "anna's", 10), (true, None));
        assert_eq!(check(Some(&stored), "boris's", 10), (false, None));
        assert_eq!(check(None, "anna's", 10), (false, None));
        assert_eq!(check(Some("damaged"), "anna's", 10), (false, None));
    }

    #[test]
    fn a_right_password_is_upgraded_when_the_rounds_grew() {
        let old = stored("anna's", 10);
        let (ok, upgraded) = check(Some(&old), "anna's", 20);
        assert!(ok);
        let upgraded = upgraded.unwrap();
        assert_eq!(rounds_of(&upgraded), Some(20));
        assert_eq!(check(Some(&upgraded), "anna's", 20), (true, None));
        assert_eq!(check(Some(&old), "boris's", 20), (false, None));
        assert_eq!(check(Some(&old), "anna's", 5), (true, None));
    }

    #[test]
    fn an_upgrade_that_finds_no_randomness_waits() {
        let work = Work::Verify {
            stored: Some(stored("anna's", 10)),
            password: password("anna's"),
            rounds: 20,
            upgrade: true,
        };
        let outcome = run(Job { id: JobId(1), work }, &Empty).outcome;
        assert!(matches!(outcome, Outcome::Verified { ok: true, upgraded: None }));
    }

    #[test]
    fn hashing_without_randomness_fails() {
        let work = Work::Hash { password: password("anna's"), rounds: 1 };
        let outcome = run(Job { id: JobId(1), work }, &Empty).outcome;
        assert!(matches!(outcome, Outcome::Failed(JobError::NoRandomness(NoRandomness))));
    }

    #[test]
    fn outcomes_do_not_show_what_is_stored() {
        let hashed = Outcome::Hashed(stored("anna's", 1));
        let verified = Outcome::Verified { ok: true, upgraded: Some(stored("anna's", 1)) };
        let hash = Work::Hash { password: password("anna's"), rounds: 1 };
        let verify = Work::Verify {
            stored: Some(stored("anna's", 1)),
            password: password("anna's"),
            rounds: 1,
            upgrade: true,
        };
        let jobs = [hash, verify].map(|work| Job { id: JobId(1), work });
        let shown = format!("{hashed:?} {verified:?} {jobs:?}");
        assert!(!shown.contains("pbkdf2") && !shown.contains("anna"), "{shown}");
    }

    #[test]
    fn work_that_panics_fails_alone() {
        let done = guarded(JobId(7), || panic!("a defect"));
        assert_eq!(done.id, JobId(7));
        assert!(matches!(done.outcome, Outcome::Failed(JobError::Panicked)));
    }

    fn started() -> (PasswordHelper, std::sync::mpsc::Receiver<()>) {
        let (woken, wakes) = sync_channel(2 * PASSWORD_QUEUE_MAX);
        let helper = PasswordHelper::start(move || woken.try_send(()).unwrap()).unwrap();
        (helper, wakes)
    }

    fn hashing(id: u64, rounds: u32) -> Job {
        Job { id: JobId(id), work: Work::Hash { password: password("anna's"), rounds } }
    }

    #[test]
    fn outcomes_come_back_in_order_after_a_wake_up() {
        let (helper, wakes) = started();
        for id in 0..10 {
            helper.submit(hashing(id, 1)).unwrap();
        }
        for id in 0..10 {
            wakes.recv_timeout(Duration::from_secs(10)).unwrap();
            let done = helper.try_recv().unwrap();
            assert_eq!(done.id, JobId(id));
            assert!(matches!(done.outcome, Outcome::Hashed(_)));
        }
        assert!(helper.try_recv().is_none());
    }

    #[test]
    fn jobs_and_outcomes_are_bounded_together() {
        let (helper, wakes) = started();
        for id in 0..PASSWORD_QUEUE_MAX as u64 {
            helper.submit(hashing(id, 1)).unwrap();
        }
        for _ in 0..PASSWORD_QUEUE_MAX {
            wakes.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        // All are done, and no result was fetched.
        assert_eq!(helper.submit(hashing(0, 1)), Err(QueueFull));
        assert!(helper.try_recv().is_some());
        assert_eq!(helper.submit(hashing(0, 1)), Ok(()));
    }

    #[test]
    fn dropping_it_does_not_begin_what_waits() {
        let (helper, wakes) = started();
        for id in 0..PASSWORD_QUEUE_MAX as u64 {
            helper.submit(hashing(id, 20_000)).unwrap();
        }
        drop(helper);
        // The thread has ended and dropped its end of the wake channel.
        let woken = wakes.iter().count();
        assert!(woken < PASSWORD_QUEUE_MAX / 2, "{woken}");
    }
}
