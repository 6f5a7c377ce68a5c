//! The only place of the server that reads clocks.
//!
//! All decisions of a turn use the time read at its beginning. Later readings are for metrics only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::acme::Now;

/// A monotonic clock that counts while the machine is suspended. Otherwise, waking up would look as
/// if the wall clock had jumped.
#[cfg(any(target_os = "linux", target_os = "android"))]
const FORWARD: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const FORWARD: ClockId = ClockId::Monotonic;

fn forward_us() -> u64 {
    let now = clock_gettime(FORWARD);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000) + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}

/// Both clocks, for worker threads that sleep for hours.
pub(super) fn both() -> Now {
    let wall = u64::try_from(Clock::start().wall_us()).unwrap_or_default();
    Now { wall: Duration::from_micros(wall), forward: Duration::from_micros(forward_us()) }
}

/// Reads both clocks once per turn.
#[derive(Debug)]
pub(super) struct Clock {
    started_us: u64,
    wall_us: i64,
    now_us: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let mut clock = Self { started_us: forward_us(), wall_us: 0, now_us: 0 };
        clock.read();
        clock
    }

    /// Reads the clocks; both stay until the next call.
    #[allow(clippy::disallowed_methods)] // the only place that may
    pub(super) fn read(&mut self) {
        // A wall clock before the epoch counts as the epoch; server time grows anyway.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.wall_us = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        self.now_us = self.elapsed_us();
    }

    fn elapsed_us(&self) -> u64 {
        forward_us().saturating_sub(self.started_us)
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

    /// Microseconds since the last [`Clock::read`]. Reads the clock again; for metrics only.
    pub(super) fn passed_us(&self) -> u64 {
        self.elapsed_us().saturating_sub(self.now_us)
    }
}
