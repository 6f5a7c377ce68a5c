//! Password work of connections: queued by a handler, done by the helper thread, handed back.
//!
//! A connection has at most one job, and is held until the job is done. [`PasswordQueue`] picks the
//! next job; this file knows which connection waits for which job, and counts the result even if
//! the connection is gone.

use std::collections::HashMap;

use crate::auth::helper::{Job, JobDone, JobId, Outcome, Work};
use crate::auth::password;
use crate::ids::ConnId;
use crate::service::password_queue::{Guess, Next, Owner, PasswordQueue};
use crate::service::peer::{Checked, Intent, Waiting};
use crate::service::turn::IfUndone;
use crate::service::{HandlerResult, Service};
use crate::wire::decline::Decline;

/// Seconds to wait when the password queue is full.
const HELPER_BUSY_S: u64 = 5;

/// The password work of all connections.
#[derive(Default)]
pub(super) struct Passwords {
    /// Which job comes next.
    pub(super) queue: PasswordQueue,
    /// The connections that wait, by job, in the queue or with the helper.
    pub(super) jobs: HashMap<JobId, ConnId>,
    next_job: u64,
}

impl Service<'_> {
    /// Whether the connection waits for password work.
    pub fn is_waiting(&self, conn: ConnId) -> bool {
        self.presence.peers.get(conn).is_some_and(|peer| peer.waiting.is_some())
    }

    /// Takes the next job for the helper. Call it after the turn has ended. Declines jobs whose
    /// buckets have run out meanwhile.
    pub fn pop_job(&mut self) -> Option<(Job, ConnId)> {
        loop {
            // A job is abandoned if its turn was undone or its connection is gone.
            let (jobs, peers) = (&self.passwords.jobs, &self.presence.peers);
            let is_wanted = |job: JobId| {
                let peer = jobs.get(&job).and_then(|conn| peers.get(*conn));
                let waiting = peer.and_then(|peer| peer.waiting.as_ref());
                waiting.is_some_and(|waiting| waiting.job == job)
            };
            match self.passwords.queue.next(&self.limits.throttle, self.clock.now_ms(), is_wanted) {
                Next::Ready(job) => {
                    let conn = self.passwords.jobs.get(&job.id).copied();
                    if let Some(conn) = conn {
                        return Some((job, conn));
                    }
                }
                Next::Idle => return None,
                Next::Declined(job, seconds) => self.decline_job(job, seconds),
                Next::Abandoned(job) => _ = self.passwords.jobs.remove(&job),
            }
        }
    }

    pub(super) fn decline_job(&mut self, job: JobId, seconds: u64) {
        let Some(conn) = self.passwords.jobs.remove(&job) else { return };
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        let Some(waiting) = peer.waiting.take() else { return };
        let reason = Decline::RateLimited(seconds);
        self.outbox.decline(conn.index, waiting.task, reason);
        self.streams.resumed.push(conn);
    }

    /// Forgets jobs whose connections stopped waiting in this turn, which is committed now.
    pub(super) fn forget_abandoned_jobs(&mut self) {
        for saved in self.turn.saved.drain(..) {
            if let Some(waiting) = saved.waiting {
                let is_over = self
                    .presence
                    .peers
                    .get(saved.conn)
                    .and_then(|peer| peer.waiting.as_ref())
                    .is_none_or(|now| now.job != waiting.job);
                if is_over {
                    self.passwords.jobs.remove(&waiting.job);
                }
            }
        }
    }

    /// Queues password work. The connection is held until it is done.
    pub(super) fn queue_password_work(
        &mut self,
        conn: ConnId,
        task: u8,
        work: Work,
        intent: Intent,
    ) -> HandlerResult {
        let Some(owner) = self.owner(conn) else { return Ok(()) };
        if !self.passwords.queue.admits(owner) {
            return Err(Decline::RateLimited(HELPER_BUSY_S).into());
        }
        let guess = self.guess(conn, &intent);
        let Some(peer) = self.presence.peers.get_mut(conn) else { return Ok(()) };
        self.turn.save(peer);
        self.passwords.next_job += 1;
        let job = JobId(self.passwords.next_job);
        peer.waiting = Some(Box::new(Waiting { job, task, intent }));
        self.passwords.jobs.insert(job, conn);
        let rounds = self.rounds(&work);
        self.passwords.queue.push(Job { id: job, work }, owner, guess, rounds);
        Ok(())
    }

    /// Queues a comparison with a stored password; the intent keeps both. `upgrade`: see
    /// [`Work::Verify`].
    pub(super) fn queue_comparison(
        &mut self,
        conn: ConnId,
        task: u8,
        checked: Checked,
        upgrade: bool,
        intent: impl FnOnce(Checked) -> Intent,
    ) -> HandlerResult {
        let work = Work::Verify {
            stored: checked.stored.clone(),
            password: checked.password.clone(),
            rounds: self.config.password_rounds,
            upgrade,
        };
        self.queue_password_work(conn, task, work, intent(checked))
    }

    /// The owner whose budget of the queue a connection uses.
    pub(super) fn owner(&self, conn: ConnId) -> Option<Owner> {
        let user = self.presence.peers.get(conn)?.user();
        user.map(Owner::User).or_else(|| self.origin(conn).map(Owner::Peer))
    }

    /// The guess that a request's password work amounts to.
    pub(super) fn guess(&self, conn: ConnId, intent: &Intent) -> Guess {
        let user = self.presence.peers.get(conn).and_then(|peer| peer.user());
        match (intent, user, self.origin(conn)) {
            (Intent::Login { login, .. }, _, Some(origin)) => {
                Guess::Login { login: login.clone(), origin }
            }
            (Intent::JoinChat { chat, .. }, Some(user), _) => Guess::Join { user, chat: *chat },
            (Intent::CheckOldPassword { .. }, Some(user), _) => Guess::OldPassword { user },
            _ => Guess::Nothing,
        }
    }

    /// An estimate of the PBKDF2 rounds of a piece of work.
    pub(super) fn rounds(&self, work: &Work) -> u32 {
        match work {
            Work::Verify { stored: Some(stored), .. } => password::rounds(stored),
            Work::Verify { stored: None, .. } | Work::Hash { .. } => None,
        }
        .unwrap_or(self.config.password_rounds)
    }

    /// Continues the request whose job the helper has done.
    pub fn job_done(&mut self, done: &JobDone) {
        if self.turn.failed.is_none() && self.defer_job(done) {
            return;
        }
        let guess = self.passwords.queue.done(done.id);
        let Some(conn) = self.passwords.jobs.remove(&done.id) else {
            return self.count_abandoned_guess(guess, &done.outcome);
        };
        let Some(peer) = self.presence.peers.get_mut(conn) else {
            return self.count_abandoned_guess(guess, &done.outcome);
        };
        self.turn.save(peer);
        let waiting = peer.waiting.take_if(|waiting| waiting.job == done.id);
        // If this turn is undone, the request must be declined, since its job does not come back.
        let saved = self.turn.forget_saved_job(peer, done.id);
        let Some(waiting) = waiting else {
            // The request was abandoned in this turn.
            if let Some(task) = saved {
                self.turn.note_request(conn, task, IfUndone::Decline);
            }
            return self.count_abandoned_guess(guess, &done.outcome);
        };
        let task = waiting.task;
        self.turn.note_request(conn, task, IfUndone::Decline);
        if self.turn.failed.is_some() {
            return;
        }
        let reply = self.dispatch_done(conn, task, waiting.intent, &done.outcome);
        self.settle(conn, task, reply);
        self.streams.resumed.push(conn);
    }

    /// Counts a failed guess whose connection is gone. Otherwise a peer could close early and keep
    /// the helper busy for free.
    pub(super) fn count_abandoned_guess(&mut self, guess: Option<Guess>, outcome: &Outcome) {
        if let (Some(guess), Outcome::Verified { ok: false, .. }) = (guess, outcome) {
            for key in guess.keys() {
                self.limits.throttle.spend(key, self.clock.now_ms());
            }
        }
    }
}
