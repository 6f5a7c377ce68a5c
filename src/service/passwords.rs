//! Password work of connections: asked for by a handler, done by the helper thread, handed back.
//!
//! A connection has at most one job, and is held until it is done. [`PasswordQueue`] decides whose
//! turn it is; this file says who waits for which job, and what a job counts as when its connection
//! is gone.

use std::collections::HashMap;

use crate::auth::helper::{Job, JobDone, JobId, Outcome, Work};
use crate::auth::password;
use crate::ids::ConnId;
use crate::service::password_queue::{Guess, Next, Owner, PasswordQueue};
use crate::service::peer::{Checked, Intent, Waiting};
use crate::service::turn::IfUndone;
use crate::service::{HandlerResult, Service};
use crate::wire::decline::Decline;

/// Seconds after which the password helper has surely caught up with some of its queue.
const HELPER_BUSY_S: u64 = 5;

/// The password work of all connections.
#[derive(Default)]
pub(super) struct Passwords {
    /// Which job comes next.
    pub(super) queue: PasswordQueue,
    /// Who waits for the jobs that are with the helper, or will be after the turn.
    pub(super) jobs: HashMap<JobId, ConnId>,
    next_job: u64,
}

impl Service<'_> {
    /// Whether a password of the connection is being checked.
    pub fn is_waiting(&self, conn: ConnId) -> bool {
        self.presence.peers.get(conn).is_some_and(|peer| peer.waiting.is_some())
    }

    /// A password job for the helper; to be asked for after the turn has ended. Anyone who has
    /// failed too often by now is declined instead.
    pub fn pop_job(&mut self) -> Option<(Job, ConnId)> {
        loop {
            // A job without anybody who waits for it was undone, or its connection is gone.
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
                Next::Nobody => return None,
                Next::Refused(job, seconds) => self.refuse_job(job, seconds),
                Next::Unwanted(job) => _ = self.passwords.jobs.remove(&job),
            }
        }
    }

    pub(super) fn refuse_job(&mut self, job: JobId, seconds: u64) {
        let Some(conn) = self.passwords.jobs.remove(&job) else { return };
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        let Some(waiting) = peer.waiting.take() else { return };
        let reason = Decline::RateLimited(seconds);
        self.outbox.decline(conn.index, waiting.task, reason);
        self.streams.resumed.push(conn);
    }

    /// Forgets the password work that nobody waits for since this turn, which is not undone any
    /// more.
    pub(super) fn forget_cut_off(&mut self) {
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

    /// Gives password work to the helper; the connection is held until it is done.
    pub(super) fn ask_helper(
        &mut self,
        conn: ConnId,
        task: u8,
        work: Work,
        intent: Intent,
    ) -> HandlerResult {
        let Some(owner) = self.owner(conn) else { return Ok(()) };
        if !self.passwords.queue.has_room(owner) {
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

    /// Has a password compared with a stored one; the intent takes both along. `upgrade`: see
    /// [`Work::Verify`].
    pub(super) fn ask_to_compare(
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
        self.ask_helper(conn, task, work, intent(checked))
    }

    /// Whose share of the helper's time a connection uses.
    pub(super) fn owner(&self, conn: ConnId) -> Option<Owner> {
        let user = self.presence.peers.get(conn)?.user();
        user.map(Owner::User).or_else(|| self.origin(conn).map(Owner::Peer))
    }

    /// What a request's password work is a guess at.
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

    /// About how many rounds a piece of work takes.
    pub(super) fn rounds(&self, work: &Work) -> u32 {
        match work {
            Work::Verify { stored: Some(stored), .. } => password::rounds(stored),
            Work::Verify { stored: None, .. } | Work::Hash { .. } => None,
        }
        .unwrap_or(self.config.password_rounds)
    }

    /// The helper has done a job.
    pub fn job_done(&mut self, done: &JobDone) {
        if self.turn.failed.is_none() && self.put_aside(done) {
            return;
        }
        let guess = self.passwords.queue.done(done.id);
        let Some(conn) = self.passwords.jobs.remove(&done.id) else {
            return self.count_unheard(guess, &done.outcome);
        };
        let Some(peer) = self.presence.peers.get_mut(conn) else {
            return self.count_unheard(guess, &done.outcome);
        };
        self.turn.save(peer);
        let waiting = peer.waiting.take_if(|waiting| waiting.job == done.id);
        // Were the turn undone, the request would wait for a job that does not come again.
        let saved = self.turn.forget_saved_job(peer, done.id);
        let Some(waiting) = waiting else {
            // It was cut off in this turn.
            if let Some(task) = saved {
                self.turn.note_request(conn, task, IfUndone::Decline);
            }
            return self.count_unheard(guess, &done.outcome);
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

    /// A peer that closes before the answer has failed all the same: else it could keep the
    /// helper busy for ever, and pay for nothing.
    pub(super) fn count_unheard(&mut self, guess: Option<Guess>, outcome: &Outcome) {
        if let (Some(guess), Outcome::Verified { ok: false, .. }) = (guess, outcome) {
            for key in guess.keys() {
                self.limits.throttle.spend(key, self.clock.now_ms());
            }
        }
    }
}
