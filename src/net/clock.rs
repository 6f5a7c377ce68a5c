//! The only place of the server that reads the clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks once per turn.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    wall_us: i64,
    now_ms: u64,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // this is that place
    pub(super) fn start() -> Self {
        let mut clock = Self { started: Instant::now(), wall_us: 0, now_ms: 0 };
        clock.read();
        clock
    }

    /// Reads the clocks; both stay until the next call.
    #[allow(clippy::disallowed_methods)] // this is that place
    pub(super) fn read(&mut self) {
        // A clock before the epoch counts as the epoch: server time only grows anyway.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.wall_us = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        self.now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// Microseconds since the epoch; may jump both ways.
    pub(super) const fn wall_us(&self) -> i64 {
        self.wall_us
    }

    /// Milliseconds since the start; never runs backwards.
    pub(super) const fn now_ms(&self) -> u64 {
        self.now_ms
    }
}
