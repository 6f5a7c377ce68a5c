//! The end of a turn's input.

use zeroize::Zeroize as _;

use crate::ids::ConnId;
use crate::net::connection::Phase;
use crate::net::serve::ServeError;

use super::{Reactor, list};

/// Milliseconds between two slices of housekeeping.
const HOUSEKEEPING_MS: u64 = 250;
/// The same while there is more to do and nobody waits for it: a slice takes well under a
/// millisecond, so what is done behind the requests takes a tenth of the time at most.
const MORE_HOUSEKEEPING_MS: u64 = 10;
/// For how many milliseconds a slice that is due waits for a turn without requests, which would
/// have to wait for it.
const PUT_OFF_MS: u64 = 250;

/// Whether a slice is done now that is due at `due_ms`.
const fn is_time(now_ms: u64, due_ms: u64, has_requests: bool) -> bool {
    let put_off_ms = if has_requests { PUT_OFF_MS } else { 0 };
    now_ms >= due_ms.saturating_add(put_off_ms)
}

impl Reactor<'_, '_> {
    pub(super) fn take_up_changes(&mut self) {
        let is_due = self.clock.now_ms() >= self.housekeeping_ms;
        if is_due || !self.ready.is_empty() || self.helper.is_busy() {
            self.service.take_up_changes();
        }
    }

    pub(super) fn keep_house(&mut self) {
        let now_ms = self.clock.now_ms();
        let is_time = is_time(now_ms, self.housekeeping_ms, !self.ready.is_empty());
        if is_time || self.service.wants_housekeeping() {
            let has_more = self.service.housekeeping();
            self.housekeeping_ms =
                now_ms + if has_more { MORE_HOUSEKEEPING_MS } else { HOUSEKEEPING_MS };
        }
    }

    /// Microseconds that the COMMIT took: 0 when there was nothing to write.
    pub(super) fn commit(&mut self) -> Result<u64, ServeError> {
        let begun_us = self.service.has_written().then(|| self.clock.passed_us());
        let clock = &self.clock;
        self.service.end_turn_timed(|| clock.passed_us());
        let commit_us = begun_us.map_or(0, |begun_us| self.clock.passed_us() - begun_us);
        self.arena_used = 0;
        self.turn_read_bytes = 0;
        self.wipe();
        self.check_storage()?;
        Ok(commit_us)
    }

    /// Passwords do not stay in the turn's buffer until something else is read there.
    fn wipe(&mut self) {
        let read = std::mem::take(&mut self.arena_read);
        if std::mem::take(&mut self.has_secret)
            && let Some(read) = self.arena.get_mut(..read)
        {
            read.zeroize();
        }
    }

    /// Handles no more frames of a connection; what is queued is sent, then it is closed.
    pub(super) fn hang_up(&mut self, conn: ConnId) {
        let now_ms = self.clock.now_ms();
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.id == conn
            && connection.phase == Phase::Open
        {
            connection.enter(Phase::Flushing, now_ms);
            self.service.close_queue(conn);
            list(&mut self.ready, connection);
        }
    }

    pub(super) fn check_storage(&self) -> Result<(), ServeError> {
        match self.service.lost() {
            None => Ok(()),
            Some(error) => Err(ServeError::StorageLost(format!(
                "writing {} failed, what is on the disk is uncertain; start again: {error}",
                self.config.data.display()
            ))),
        }
    }

    pub(super) fn submit_jobs(&mut self) -> Result<(), ServeError> {
        while let Some(job) = self.service.pop_job() {
            let submitted = self.helper.submit(job);
            submitted.map_err(|e| ServeError::Failed(format!("the password helper: {e}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_waits_for_a_turn_without_requests_but_not_for_ever() {
        assert!(!is_time(999, 1_000, false));
        assert!(is_time(1_000, 1_000, false));
        assert!(!is_time(1_000 + PUT_OFF_MS - 1, 1_000, true));
        assert!(is_time(1_000 + PUT_OFF_MS, 1_000, true));
    }
}
