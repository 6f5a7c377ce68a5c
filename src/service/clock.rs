//! Server time: the wall clock made strictly increasing (protocol section 3). The wall clock itself
//! is an input.

use crate::ids::ServerTime;
use crate::service::DAY_US;

/// Gives server times. Knows the highest ever given, also by earlier runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerClock {
    wall: ServerTime,
    last: ServerTime,
}

impl ServerClock {
    /// Goes on after `last`, the highest time that earlier runs gave or promised to skip.
    pub(super) const fn resume(last: ServerTime) -> Self {
        Self { wall: ServerTime::ZERO, last }
    }

    /// Sets the wall clock, which may jump both ways.
    pub(super) fn set_wall(&mut self, wall_us: i64) {
        self.wall = ServerTime::new(wall_us).unwrap_or_default();
    }

    /// A time for a new event: later than every time given before.
    pub(super) fn next(&mut self) -> ServerTime {
        self.last = self.wall.max(self.last.next());
        self.last
    }

    /// The present. Every event so far is at it or before, every later one is after it.
    pub(super) fn now(&mut self) -> ServerTime {
        self.last = self.wall.max(self.last);
        self.last
    }

    /// The day of UTC that the present is in, since the epoch, and what is left of it in
    /// microseconds. Looking at it gives no time.
    pub(super) fn day(&self) -> (i64, u64) {
        let now_us = self.wall.max(self.last).micros();
        (now_us / DAY_US, (DAY_US - now_us % DAY_US).unsigned_abs())
    }

    /// The highest time given so far.
    pub(super) const fn last(&self) -> ServerTime {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_grow_whatever_the_wall_clock_does() {
        let mut clock = ServerClock::resume(ServerTime::new(1000).expect("positive"));
        let mut last = 1000;
        for wall in [500, 2000, 2000, 10, -5, 2001, 90_000, 3] {
            clock.set_wall(wall);
            let given = clock.next().micros();
            assert!(given > last, "{given} after {last}");
            assert_eq!(clock.now().micros(), given.max(wall));
            last = given;
        }
    }

    #[test]
    fn an_event_is_after_every_present_told_before() {
        let mut clock = ServerClock::resume(ServerTime::ZERO);
        clock.set_wall(100);
        let now = clock.now();
        assert!(clock.next() > now);
    }
}
