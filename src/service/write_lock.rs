//! Waiting for the write lock while another process (a command, Litestream, a shell) writes.
//!
//! The loop never blocks inside SQLite. A request that has to write is put back and its connection
//! is held; once the lock is free, requests are handled again in the order in which they were put
//! back; messages of hooks after the requests of the same turn, as always. Meanwhile, reads go on.
//! After two seconds the waiting requests are declined, and so are all later writes until one
//! succeeds.

use std::collections::VecDeque;

use crate::auth::helper::{JobDone, Outcome};
use crate::ids::ConnId;
use crate::service::{HandlerError, Service};
use crate::store::{Cause, StoreError};

/// Milliseconds that requests wait for the lock.
const WAIT_MS: u64 = 2_000;

/// Milliseconds between two checks whether the lock is free.
pub const LOCK_POLL_MS: u64 = 2;

/// The requests that wait for the lock.
#[derive(Default)]
pub(super) struct WriteLock {
    /// Since when, and the error of the first one.
    since: Option<(u64, StoreError)>,
    waiting: VecDeque<ConnId>,
    /// Results of password work that have to be written.
    done: VecDeque<JobDone>,
}

impl Service<'_> {
    /// Whether requests wait for the lock, so that the next turn should come soon.
    pub const fn waits_for_lock(&self) -> bool {
        self.storage.write_lock.since.is_some()
    }

    /// Whether to wait because of this error: another process holds the lock.
    pub(super) fn may_wait(&mut self, error: &StoreError) -> bool {
        if error.cause != Cause::Busy || self.storage.is_failing {
            return false;
        }
        self.storage.write_lock.since.get_or_insert_with(|| (self.clock.now_ms(), error.clone()));
        true
    }

    /// Puts back a request that has to wait for the lock.
    pub(super) fn put_back(&mut self, conn: ConnId) {
        // A connection of HTTP has no peer; the engine holds it.
        if let Some(peer) = self.presence.peers.get_mut(conn) {
            peer.state.waits_for_lock = true;
        }
        self.storage.write_lock.waiting.push_back(conn);
    }

    /// Defers the result of a job if it cannot be written yet. False when it can.
    pub(super) fn defer_job(&mut self, done: &JobDone) -> bool {
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

    /// At the beginning of a turn: checks whether the lock is free, and resumes waiting requests in
    /// their order; after too long a wait they are resumed to be declined.
    pub(super) fn poll_write_lock(&mut self) {
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
        // `resumed` is popped from its end.
        let first = self.streams.resumed.len();
        for conn in std::mem::take(&mut self.storage.write_lock.waiting) {
            if let Some(peer) = self.presence.peers.get_mut(conn) {
                peer.state.waits_for_lock = false;
            }
            self.streams.resumed.push(conn);
        }
        self.streams.resumed[first..].reverse();
    }

    /// The next deferred result, once the lock is free.
    pub fn pop_deferred_job(&mut self) -> Option<JobDone> {
        if self.waits_for_lock() { None } else { self.storage.write_lock.done.pop_front() }
    }
}
