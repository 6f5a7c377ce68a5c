//! Waiting for another process that is writing to the database: a command, Litestream, a shell.
//!
//! The loop never waits inside SQLite. A request that has to write is put back, and its connection
//! is held; it comes again, in the order in which requests were put back, once the lock is free. So
//! readers go on. After two seconds the requests are declined, and so are those that
//! come later, until a write succeeds.

use std::collections::VecDeque;

use crate::auth::helper::{JobDone, Outcome};
use crate::ids::ConnId;
use crate::service::{HandlerError, Service};
use crate::store::{Cause, StoreError};

/// How long requests wait for the lock.
const WAIT_MS: u64 = 2_000;

/// Milliseconds between two looks whether the lock is free.
pub const LOOK_MS: u64 = 2;

/// Who waits for the lock.
#[derive(Default)]
pub(super) struct WriteLock {
    /// Since when, and why.
    since: Option<(u64, StoreError)>,
    waiting: VecDeque<ConnId>,
    /// Password work that is done, and whose outcome has to be written.
    done: VecDeque<JobDone>,
}

impl Service<'_> {
    /// Whether requests wait for another process, so that the next turn should come soon.
    pub const fn waits_for_lock(&self) -> bool {
        self.storage.write_lock.since.is_some()
    }

    /// Another process holds the lock: whether to wait for it.
    pub(super) fn may_wait(&mut self, error: &StoreError) -> bool {
        if error.cause != Cause::Busy || self.storage.is_failing {
            return false;
        }
        self.storage.write_lock.since.get_or_insert_with(|| (self.clock.now_ms(), error.clone()));
        true
    }

    /// Puts a request back that has to wait.
    pub(super) fn put_back(&mut self, conn: ConnId) {
        if let Some(peer) = self.presence.peers.get_mut(conn) {
            peer.state.waits_for_lock = true;
            self.storage.write_lock.waiting.push_back(conn);
        }
    }

    /// Puts password work aside whose outcome cannot be written yet. False when it can.
    pub(super) fn put_aside(&mut self, done: &JobDone) -> bool {
        let is_wrong = matches!(done.outcome, Outcome::Verified { ok: false, .. });
        if !is_wrong
            && self.passwords.jobs.contains_key(&done.id)
            && let Err(HandlerError::Busy) = self.may_write_now()
        {
            self.storage.write_lock.done.push_back(done.clone());
            return true;
        }
        false
    }

    /// Looks whether the lock is free, at the beginning of a turn. What has waited comes again, in
    /// its order; when it has waited for too long, to be declined.
    pub(super) fn look_for_lock(&mut self) {
        let Some((since_ms, error)) = &self.storage.write_lock.since else { return };
        let is_late = self.clock.now_ms().saturating_sub(*since_ms) >= WAIT_MS;
        if !self.store.is_lock_free() {
            if !is_late {
                return;
            }
            let error = error.clone();
            self.note_storage_failing(&error);
        }
        self.storage.write_lock.since = None;
        // The list is taken from its end.
        let first = self.streams.resumed.len();
        for conn in std::mem::take(&mut self.storage.write_lock.waiting) {
            if let Some(peer) = self.presence.peers.get_mut(conn) {
                peer.state.waits_for_lock = false;
                self.streams.resumed.push(conn);
            }
        }
        self.streams.resumed[first..].reverse();
    }

    /// Password work that was put aside and can go on.
    pub fn next_set_aside(&mut self) -> Option<JobDone> {
        if self.waits_for_lock() { None } else { self.storage.write_lock.done.pop_front() }
    }
}
