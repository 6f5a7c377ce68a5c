//! The only place of the server that reads the clocks.
//!
//! All that a turn decides it decides by the one time that was read at its beginning; what is read
//! later is for figures alone.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks once per turn.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    wall_us: i64,
    now_us: u64,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // this is that place
    pub(super) fn start() -> Self {
        let mut clock = Self { started: Instant::now(), wall_us: 0, now_us: 0 };
        clock.read();
        clock
    }

    /// Reads the clocks; both stay until the next call.
    #[allow(clippy::disallowed_methods)] // this is that place
    pub(super) fn read(&mut self) {
        // A clock before the epoch counts as the epoch: server time only grows anyway.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.wall_us = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        self.now_us = self.elapsed_us();
    }

    #[allow(clippy::disallowed_methods)] // this is that place
    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the epoch; may jump both ways.
    pub(super) const fn wall_us(&self) -> i64 {
        self.wall_us
    }

    /// Milliseconds since the start; never runs backwards.
    pub(super) const fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// Microseconds since the start; never runs backwards.
    pub(super) const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Microseconds that have passed since the last [`Clock::read`]: reads the clock again, for
    /// figures.
    pub(super) fn passed_us(&self) -> u64 {
        self.elapsed_us().saturating_sub(self.now_us)
    }
}
