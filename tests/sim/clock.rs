//! Two simulated clocks: a monotonic one, and a wall clock that jumps both ways.

use crate::rng::Rng;

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;

pub(crate) struct Clock {
    rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) wall_us: i64,
    /// The wall clock jumps once per this many steps; 0: never.
    jumps: u64,
    /// Jumps are days instead of hours.
    is_wild: bool,
    /// Steps are microseconds instead of tenths of a second.
    is_slow: bool,
}

impl Clock {
    pub(crate) fn new(mut rng: Rng) -> Self {
        let wall_us = 1_700_000_000 * SECOND_US + rng.below(1_000_000) as i64;
        let jumps = rng.weighted(&[(1, 0), (2, 100), (1, 10)]);
        let (is_wild, is_slow) = (rng.one_in(8), rng.one_in(4));
        Self { rng, now_ms: 0, wall_us, jumps, is_wild, is_slow }
    }

    /// Advances time; faster when nobody does anything, so that timeouts are reached.
    pub(crate) fn step(&mut self, is_quiet: bool) {
        let us = match self.is_slow && !is_quiet {
            true => self.rng.below(30),
            false => self.rng.below(300_000),
        };
        self.now_ms += us / 1000;
        self.wall_us += us as i64;
        if self.rng.one_in(self.jumps) {
            let most = self.rng.weighted(&[(2, 10 * SECOND_US), (2, HOUR_US), (1, 3 * HOUR_US)]);
            let by = self.rng.between(1, most as u64) as i64;
            self.wall_us += if self.rng.one_in(2) { by } else { -by };
            if self.is_wild && self.rng.one_in(4) {
                let days = self.rng.between(1, 400) as i64;
                self.wall_us += if self.rng.one_in(3) { -days * DAY_US } else { days * DAY_US };
            }
            if self.is_wild && self.rng.one_in(16) {
                self.wall_us = -5;
            }
        }
    }

    /// Advances time while the machine is off.
    pub(crate) fn pause(&mut self) {
        self.now_ms = 0;
        self.wall_us += self.rng.below(20 * SECOND_US as u64) as i64;
        if self.rng.one_in(4) {
            self.wall_us -= self.rng.below(HOUR_US as u64) as i64;
        }
    }
}
