//! Server time: the wall clock made strictly increasing (protocol section 3).
//!
//! Both clocks are inputs: the wall clock, and a monotonic clock that the wall clock is checked
//! against.
//!
//! A wall clock that jumps may be wrong for some seconds only: an empty battery, a hypervisor, a
//! time server. So a jump is followed only after it has lasted for minutes, and nothing is deleted
//! by age until the clock has been steady for a day.

use crate::ids::ServerTime;
use crate::limits::CLOCK_DOUBT_MS;
use crate::service::DAY_US;

/// Microseconds by which the wall clock may differ from the monotonic clock before it is a jump.
const JUMP_US: i64 = 60 * 1_000_000;

/// Milliseconds after which a jump that lasts is followed.
const HOLD_MS: u64 = 5 * 60 * 1000;

/// A change in how far the wall clock is trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClockEvent {
    /// The wall clock is this many microseconds ahead; negative: behind.
    Jumped(i64),
    /// It has come back from a jump.
    Returned,
    /// It has stayed where it jumped to, and is followed from now on.
    Followed,
    /// It has been steady for a day since the last jump.
    Steady,
}

/// A jump that is not followed yet.
#[derive(Clone, Copy, Debug)]
struct Jump {
    offset_us: i64,
    since_ms: u64,
}

/// The source of server times. It knows the highest time ever given, by earlier runs as well.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerClock {
    /// The wall clock, as far as it is trusted.
    wall: ServerTime,
    last: ServerTime,
    /// The trusted wall clock minus the monotonic clock; `None`: not read yet.
    offset_us: Option<i64>,
    jump: Option<Jump>,
    read_ms: u64,
    /// Milliseconds for which nothing may be deleted by age.
    doubt_ms: u64,
    /// The wall clock when an earlier run last trusted it, or an operator; zero: unknown.
    trusted: ServerTime,
}

impl ServerClock {
    /// Continues after `last`, the highest time that earlier runs gave or reserved. `doubt_ms`: how
    /// long an earlier run would still have waited before it deleted anything by age.
    pub(super) const fn resume(last: ServerTime, doubt_ms: u64) -> Self {
        let wall = ServerTime::ZERO;
        let trusted = ServerTime::ZERO;
        Self { wall, last, offset_us: None, jump: None, read_ms: 0, doubt_ms, trusted }
    }

    /// The same, with a reading of the wall clock that was right.
    pub(super) const fn trusted_at(mut self, wall: ServerTime) -> Self {
        self.trusted = wall;
        self
    }

    /// The monotonic clock in milliseconds, as it was last set.
    pub(super) const fn now_ms(&self) -> u64 {
        self.read_ms
    }

    /// Sets the wall clock, which may jump both ways, and the monotonic clock.
    pub(super) fn set_wall(&mut self, wall_us: i64, now_ms: u64) -> Option<ClockEvent> {
        let now_us = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        let offset_us = wall_us.saturating_sub(now_us);
        let passed_ms = now_ms.saturating_sub(std::mem::replace(&mut self.read_ms, now_ms));
        let (believed_us, event) = self.check(offset_us, now_ms, passed_ms);
        self.offset_us = Some(believed_us);
        self.wall = ServerTime::new(believed_us.saturating_add(now_us)).unwrap_or_default();
        event
    }

    /// The offset to use for a reading of the wall clock.
    fn check(&mut self, offset_us: i64, now_ms: u64, passed_ms: u64) -> (i64, Option<ClockEvent>) {
        let Some(steady_us) = self.offset_us else { return self.first(offset_us) };
        let ahead_us = offset_us.saturating_sub(steady_us);
        if ahead_us.unsigned_abs() <= JUMP_US.unsigned_abs() {
            if self.jump.take().is_some() {
                self.doubt_ms = CLOCK_DOUBT_MS;
                return (offset_us, Some(ClockEvent::Returned));
            }
            let was_in_doubt = self.doubt_ms > 0;
            self.doubt_ms = self.doubt_ms.saturating_sub(passed_ms);
            let is_over = was_in_doubt && self.doubt_ms == 0;
            return (offset_us, is_over.then_some(ClockEvent::Steady));
        }
        if let Some(jump) = self.jump
            && offset_us.saturating_sub(jump.offset_us).unsigned_abs() <= JUMP_US.unsigned_abs()
        {
            if now_ms.saturating_sub(jump.since_ms) < HOLD_MS {
                return (steady_us, None);
            }
            self.jump = None;
            return (offset_us, Some(ClockEvent::Followed));
        }
        self.jump = Some(Jump { offset_us, since_ms: now_ms });
        self.doubt_ms = CLOCK_DOUBT_MS;
        (steady_us, Some(ClockEvent::Jumped(ahead_us)))
    }

    /// The first reading: only the times of earlier runs can be compared with it. It is used at
    /// once, since the machine may have been off for long.
    fn first(&mut self, offset_us: i64) -> (i64, Option<ClockEvent>) {
        let ahead_us = start_jump_us(offset_us, self.last, self.trusted);
        if ahead_us == 0 {
            return (offset_us, None);
        }
        self.doubt_ms = CLOCK_DOUBT_MS;
        (offset_us, Some(ClockEvent::Jumped(ahead_us)))
    }

    /// Microseconds by which the wall clock is ahead of the one believed, in a jump that is not
    /// followed; 0: there is none.
    pub(super) fn held_us(&self) -> i64 {
        let held = self.jump.zip(self.offset_us);
        held.map_or(0, |(jump, steady_us)| jump.offset_us.saturating_sub(steady_us))
    }

    /// The operator confirms that the wall clock is right.
    pub(super) fn confirm(&mut self) {
        self.doubt_ms = 0;
        if let Some(jump) = self.jump.take() {
            self.offset_us = Some(jump.offset_us);
        }
    }

    /// Milliseconds of a steady clock until anything may be deleted by age; 0: now.
    pub(super) const fn doubt_ms(&self) -> u64 {
        self.doubt_ms
    }

    /// The wall clock, as far as it is trusted. Server time may be far ahead of it. The expiry of
    /// invites and of reset codes is compared with it, since the command line sets them by the wall
    /// clock.
    pub(super) const fn wall(&self) -> ServerTime {
        self.wall
    }

    /// The same, or `None` while nothing may be deleted by age.
    pub(super) fn age_clock(&self) -> Option<ServerTime> {
        (self.doubt_ms == 0).then_some(self.wall)
    }

    /// A time for a new event: later than every time given before.
    pub(super) fn next(&mut self) -> ServerTime {
        self.last = self.wall.max(self.last.next());
        self.last
    }

    /// The present: every event so far is at it or before it, every later one after it.
    pub(super) fn now(&mut self) -> ServerTime {
        self.last = self.wall.max(self.last);
        self.last
    }

    /// The present day of UTC by the wall clock, counted since the epoch, and the microseconds left
    /// of it. Server time that ran ahead stands still until the wall clock gets there: by it the
    /// day would last for as long.
    pub(super) fn day(&self) -> (i64, u64) {
        let now_us = self.wall.micros();
        (now_us / DAY_US, (DAY_US - now_us % DAY_US).unsigned_abs())
    }

    /// The highest time given so far.
    pub(super) const fn last(&self) -> ServerTime {
        self.last
    }
}

/// Microseconds by which a clock at a start is ahead of all that earlier runs knew: the highest
/// server time, and a reading that was right. 0: it is within a day of one of them, or they knew
/// nothing.
pub fn start_jump_us(wall_us: i64, last: ServerTime, trusted: ServerTime) -> i64 {
    let known = [last, trusted].into_iter().filter(|known| *known > ServerTime::ZERO);
    let ahead = known.map(|known| wall_us.saturating_sub(known.micros()));
    let nearest_us = ahead.min_by_key(|ahead_us| ahead_us.unsigned_abs()).unwrap_or(0);
    if nearest_us.saturating_abs() > DAY_US { nearest_us } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH_US: i64 = 31 * DAY_US;
    const BEGIN_US: i64 = 1_700_000_000_000_000;

    fn at(micros: i64) -> ServerTime {
        ServerTime::new(micros).expect("positive")
    }

    #[test]
    fn times_grow_whatever_the_wall_clock_does() {
        let mut clock = ServerClock::resume(at(1000), 0);
        let mut last = 1000;
        for wall in [500, 2000, 2000, 10, -5, 2001, 90_000, 3, MONTH_US, 7] {
            clock.set_wall(wall, 0);
            let given = clock.next().micros();
            assert!(given > last, "{given} after {last}");
            assert_eq!(clock.now().micros(), given);
            last = given;
        }
        assert!(last < 100_000, "the month is not believed");
    }

    #[test]
    fn an_event_is_after_every_present_sent_before() {
        let mut clock = ServerClock::resume(ServerTime::ZERO, 0);
        clock.set_wall(100, 0);
        let now = clock.now();
        assert!(clock.next() > now);
    }

    #[test]
    fn a_jump_that_does_not_last_leaves_nothing_behind() {
        let mut clock = ServerClock::resume(at(BEGIN_US), 0);
        assert_eq!(clock.set_wall(BEGIN_US, 0), None);
        assert!(clock.age_clock().is_some());
        let jumped = clock.set_wall(BEGIN_US + MONTH_US + 1_000_000, 1000);
        assert_eq!(jumped, Some(ClockEvent::Jumped(MONTH_US)));
        assert_eq!(clock.next(), at(BEGIN_US + 1_000_000));
        assert_eq!(clock.age_clock(), None);
        assert_eq!(clock.set_wall(BEGIN_US + MONTH_US + 15_000_000, 15_000), None);
        let back = clock.set_wall(BEGIN_US + 16_000_000, 16_000);
        assert_eq!(back, Some(ClockEvent::Returned));
        assert_eq!(clock.next(), at(BEGIN_US + 16_000_000));
        let mut now_ms = 16_000;
        while now_ms < 16_000 + CLOCK_DOUBT_MS {
            assert_eq!(clock.age_clock(), None, "{now_ms}");
            now_ms += 3_600_000;
            let event = clock.set_wall(BEGIN_US + now_ms as i64 * 1000, now_ms);
            assert_eq!(event.is_some(), now_ms >= 16_000 + CLOCK_DOUBT_MS);
        }
        assert_eq!(clock.age_clock(), Some(at(BEGIN_US + now_ms as i64 * 1000)));
    }

    #[test]
    fn a_jump_that_lasts_is_followed_and_doubted_for_a_day() {
        for by_us in [MONTH_US, -MONTH_US] {
            let mut clock = ServerClock::resume(at(BEGIN_US), 0);
            clock.set_wall(BEGIN_US, 0);
            let mut events = Vec::new();
            for second in 1..=400 {
                let wall = BEGIN_US + by_us + second * 1_000_000;
                events.extend(clock.set_wall(wall, second as u64 * 1000));
            }
            assert_eq!(events, [ClockEvent::Jumped(by_us), ClockEvent::Followed]);
            assert_eq!(clock.wall(), at(BEGIN_US + by_us + 400_000_000));
            assert_eq!(clock.age_clock(), None);
            clock.confirm();
            assert!(clock.age_clock().is_some());
        }
    }

    #[test]
    fn a_start_far_from_the_stored_time_is_doubted() {
        for (off_us, is_doubted) in [(DAY_US - 1, false), (2 * DAY_US, true), (-2 * DAY_US, true)] {
            let mut clock = ServerClock::resume(at(BEGIN_US), 0);
            let event = clock.set_wall(BEGIN_US + off_us, 0);
            assert_eq!((event.is_some(), clock.age_clock().is_none()), (is_doubted, is_doubted));
            assert_eq!(clock.wall(), at(BEGIN_US + off_us));
        }
        let mut clock = ServerClock::resume(ServerTime::ZERO, 0);
        assert_eq!(clock.set_wall(BEGIN_US, 0), None, "a new database");
        let mut clock = ServerClock::resume(at(BEGIN_US), CLOCK_DOUBT_MS);
        clock.set_wall(BEGIN_US, 0);
        assert_eq!(clock.age_clock(), None, "an earlier run was in doubt");
    }

    #[test]
    fn a_clock_that_was_trusted_is_trusted_at_the_next_start() {
        let ahead = at(BEGIN_US + MONTH_US);
        let mut clock = ServerClock::resume(ahead, 0).trusted_at(at(BEGIN_US));
        assert_eq!(clock.set_wall(BEGIN_US + 3_600_000_000, 0), None);
        let mut clock = ServerClock::resume(ahead, 0).trusted_at(at(BEGIN_US));
        let far = clock.set_wall(BEGIN_US + 2 * DAY_US, 0);
        assert_eq!(far, Some(ClockEvent::Jumped(2 * DAY_US)));
    }

    #[test]
    fn the_day_goes_on_when_server_time_is_ahead() {
        let mut clock = ServerClock::resume(at(BEGIN_US + MONTH_US), 0);
        clock.set_wall(BEGIN_US, 0);
        let today = clock.day().0;
        for day in 1..=3 {
            clock.set_wall(BEGIN_US + day * DAY_US, day as u64 * 86_400_000);
            assert_eq!(clock.day().0, today + day);
        }
    }

    #[test]
    fn a_jump_is_held_until_it_is_followed() {
        let mut clock = ServerClock::resume(at(BEGIN_US), 0);
        clock.set_wall(BEGIN_US, 0);
        assert_eq!(clock.held_us(), 0);
        clock.set_wall(BEGIN_US - MONTH_US, 1000);
        assert_eq!(clock.held_us(), -MONTH_US - 1_000_000);
        clock.confirm();
        assert_eq!(clock.held_us(), 0);
    }

    #[test]
    fn a_clock_that_drifts_is_steady() {
        let mut clock = ServerClock::resume(at(BEGIN_US), 0);
        clock.set_wall(BEGIN_US, 0);
        // An hour in a week, which is more than a time server corrects by slewing.
        for minute in 1..=7 * 24 * 60 {
            let wall = BEGIN_US + minute * 60_000_000 + minute * 357_000;
            assert_eq!(clock.set_wall(wall, minute as u64 * 60_000), None);
        }
        assert!(clock.age_clock().is_some());
    }
}
