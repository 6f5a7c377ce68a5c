//! Undoing a turn that cannot be committed: everything is restored as before it (invariant 2).

use crate::ids::ConnId;
use crate::service::Service;
use crate::service::turn::{HandledRequest, IfUndone};
use crate::store::{Fault, StoreError};
use crate::wire::codec::Put;
use crate::wire::decline::Decline;
use crate::wire::purpose::ToClient;

impl Service<'_> {
    pub(super) fn undo(&mut self, error: &StoreError) {
        self.store.roll_back();
        self.metrics.undone += 1;
        self.storage.rows_changed = self.store.rows_changed();
        if error.fault == Fault::Lost {
            log::error!("the data file is lost to this process: {error}");
            self.storage.lost.get_or_insert_with(|| error.clone());
            return;
        }
        // Background work without requests simply waits for the lock.
        if !(self.turn.requests.is_empty() && self.may_wait(error)) {
            self.note_storage_failing(error);
        }
        if error.is_full() {
            self.note_full_disk();
        }
        self.outbox.discard();
        self.turn.batch.end();
        for user in std::mem::take(&mut self.turn.users) {
            for index in self.presence.roster.forget(user) {
                if let Some(peer) = self.presence.peers.at_mut(index) {
                    self.turn.save(peer);
                }
            }
        }
        let mut saved = std::mem::take(&mut self.turn.saved);
        for old in &mut saved {
            if let Some(peer) = self.presence.peers.get_mut(old.conn) {
                peer.state = old.state;
                peer.waiting = old.waiting.take();
                if !old.was_streaming {
                    peer.stream = None;
                }
            }
        }
        for old in &saved {
            if let Some(attached) = old.state.attached
                && self.presence.peers.get(old.conn).is_some()
                && let Err(error) = self.list(old.conn.index, attached.user, attached.suspended)
            {
                log::error!("cannot read the database while undoing a turn: {error}");
                self.storage.lost.get_or_insert(error);
            }
        }
        self.take_back();
        self.passwords.jobs.retain(|job, conn| {
            let waiting = self.presence.peers.get(*conn).and_then(|peer| peer.waiting.as_ref());
            waiting.is_some_and(|waiting| waiting.job == *job)
        });
        self.background.housekeeping.start_again();
        self.background.indexing.start_again(self.turn.number, self.clock.now_ms());
        self.background.counting.start_again();
        self.background.pushing.start_again();
        self.turn.saved = saved;
        self.turn.saved.clear();
    }

    /// Answers the requests of an undone turn, in order.
    pub(super) fn decline_requests(&mut self) {
        let mut requests = std::mem::take(&mut self.turn.requests);
        for &HandledRequest { conn, task, answer } in &requests {
            let index = conn.index;
            if !matches!(answer, IfUndone::Suspend | IfUndone::Close) {
                self.decline_waiting(conn);
            }
            match answer {
                IfUndone::Decline => self.outbox.decline(index, task, Decline::StorageFailed),
                IfUndone::Echo(echo) => {
                    let echo = echo.of(&self.turn.echoes);
                    self.outbox.stage_frame(index, ToClient::Accepted, task, |body| {
                        body.put_bytes(echo);
                    });
                }
                IfUndone::Suspend => self.suspend_if_notified(conn, task),
                IfUndone::TooLarge => self.stage_oversized(conn, task),
                IfUndone::Close => self.outbox.close(index),
            }
            self.streams.resumed.push(conn);
        }
        requests.clear();
        self.turn.requests = requests;
    }

    /// Declines the request that a connection waits for again. In the undone turn it was abandoned,
    /// since its session had ended, so later requests were handled, whose answers come after it.
    fn decline_waiting(&mut self, conn: ConnId) {
        let peer = self.presence.peers.get_mut(conn);
        let Some(waiting) = peer.and_then(|peer| peer.waiting.take()) else { return };
        self.passwords.jobs.remove(&waiting.job);
        self.outbox.decline(conn.index, waiting.task, Decline::StorageFailed);
    }

    /// Restores backlogs and rate limits as they were before the turn.
    pub(super) fn take_back(&mut self) {
        for (conn, backlog) in std::mem::take(&mut self.turn.dropped) {
            if let Some(peer) = self.presence.peers.get_mut(conn) {
                peer.backlog = Some(backlog);
                self.streams.pumping.push(conn);
            }
        }
        for user in std::mem::take(&mut self.turn.reacted) {
            self.limits.reactions.take_back(user);
        }
        for bot in std::mem::take(&mut self.turn.hooked) {
            self.limits.hooks.take_back(bot);
        }
        for old in std::mem::take(&mut self.turn.limited_sends).iter().rev() {
            self.limits.sends.take_back(old);
        }
        for (user, before) in std::mem::take(&mut self.turn.ledger) {
            self.limits.ledger.take_back(user, before);
        }
    }
}
