//! The schedule of ACME attempts: renewal, exponential backoff, jitter; pure functions of time.

use std::time::Duration;

use crate::certificate::x509::Validity;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Pause after the first failure; tripled for each further one. This gives four attempts in the
/// first hour, below Let's Encrypt's limit of five failed checks per hour.
const BACKOFF_MIN: Duration = Duration::from_secs(2 * 60);
/// Longest pause after a failure, without the jitter.
const BACKOFF_MAX: Duration = Duration::from_secs(8 * 60 * 60);

/// Bounds of the pause after a success: see [`rest`].
const REST_MIN: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(60 * 60);

/// The state that decides about the next attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Validity of the stored certificate, if there is one for all names.
    pub validity: Option<Validity>,
    /// Time since the last successful attempt of this process.
    pub since_success: Option<Duration>,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// Time since the last failed attempt.
    pub since_failure: Duration,
    /// Retry-After of the authority, counted from the last failed attempt.
    pub retry_after: Option<Duration>,
    /// A random number of 0 to 999 for each certificate, so that servers that were installed
    /// together do not renew together.
    pub jitter: u16,
}

/// Time until the next attempt; `now` is the time since the Unix epoch.
pub fn wait(state: &State, now: Duration) -> Duration {
    let due = state
        .validity
        .map_or(Duration::ZERO, |validity| renewal(validity, state.jitter).saturating_sub(now));
    let due = due.max(rest(state));
    if state.failures == 0 {
        return due;
    }
    // An authority can delay the attempt by a day at most.
    let asked = state.retry_after.unwrap_or_default().min(DAY);
    let pause = backoff(state.failures, state.jitter).max(asked);
    due.max(pause.saturating_sub(state.since_failure))
}

/// Pause after a success: a third of the certificate's life, within bounds, so that an authority
/// with certificates of a very short life is not asked in a loop.
fn rest(state: &State) -> Duration {
    let Some(since) = state.since_success else { return Duration::ZERO };
    let life = |validity: Validity| validity.not_after.saturating_sub(validity.not_before);
    let life = state.validity.map_or(Duration::ZERO, life);
    (life / 3).clamp(REST_MIN, REST_MAX).saturating_sub(since)
}

/// The time of renewal: after two thirds of the certificate's life, less a jitter of up to a
/// thirtieth of it.
pub fn renewal(validity: Validity, jitter: u16) -> Duration {
    let life = validity.not_after.saturating_sub(validity.not_before);
    validity.not_before + life * 2 / 3 - part(life / 30, jitter)
}

/// Remaining life below which a certificate is overdue for renewal.
pub fn overdue(validity: Validity) -> Duration {
    let life = validity.not_after.saturating_sub(validity.not_before);
    (life / 4).min(DAY * 14)
}

/// Pause after a number of consecutive failures: exponential, with a jitter of up to a tenth.
fn backoff(failures: u32, jitter: u16) -> Duration {
    let steps = failures.saturating_sub(1).min(10);
    let pause = (BACKOFF_MIN * 3_u32.pow(steps)).min(BACKOFF_MAX);
    pause + part(pause / 10, jitter)
}

/// `jitter` thousandths of a duration.
fn part(whole: Duration, jitter: u16) -> Duration {
    whole * u32::from(jitter.min(999)) / 1000
}

/// Formats a duration for people, in one unit.
pub fn readable(time: Duration) -> String {
    match time {
        time if time < MINUTE => format!("{} seconds", time.as_secs().max(1)),
        time if time < MINUTE * 120 => format!("{} minutes", time.as_secs() / 60),
        time if time < DAY * 2 => format!("{} hours", time.as_secs() / 3600),
        time => format!("{} days", time.as_secs() / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_795_305_600);

    fn validity(days: u32) -> Option<Validity> {
        Some(Validity { not_before: START, not_after: START + DAY * days })
    }

    #[test]
    fn the_next_attempt_is_a_function_of_the_state() {
        let hours = |hours: u32| Duration::from_secs(3600) * hours;
        let state = State::default();
        for (what, state, now, expected) in [
            ("nothing is there", state, START, Duration::ZERO),
            ("a fresh one", State { validity: validity(90), ..state }, START, DAY * 60),
            (
                "later, with jitter",
                State { validity: validity(90), jitter: 500, ..state },
                START + DAY,
                DAY * 59 - DAY * 3 / 2,
            ),
            ("due", State { validity: validity(90), ..state }, START + DAY * 60, Duration::ZERO),
            ("over", State { validity: validity(90), ..state }, START + DAY * 99, Duration::ZERO),
            ("one of six days", State { validity: validity(6), ..state }, START, DAY * 4),
            ("a first failure", State { failures: 1, ..state }, START, MINUTE * 2),
            ("a second", State { failures: 2, ..state }, START, MINUTE * 6),
            (
                "a while after it",
                State { failures: 2, since_failure: MINUTE * 5, ..state },
                START,
                MINUTE,
            ),
            ("the hundredth", State { failures: 100, ..state }, START, BACKOFF_MAX),
            (
                "failures of a renewal",
                State { validity: validity(90), failures: 3, ..state },
                START + DAY * 70,
                MINUTE * 18,
            ),
            (
                "a failure, and the certificate was replaced by hand",
                State { validity: validity(90), failures: 1, ..state },
                START,
                DAY * 60,
            ),
            (
                "a new one that is due again at once",
                State { validity: validity(90), since_success: Some(MINUTE), ..state },
                START + DAY * 80,
                MINUTE * 59,
            ),
            (
                "a new one that is over already",
                State { validity: validity(0), since_success: Some(MINUTE / 10), ..state },
                START + DAY,
                Duration::from_secs(4),
            ),
            (
                "a rate limit",
                State { failures: 1, retry_after: Some(hours(10)), ..state },
                START,
                hours(10),
            ),
            (
                "a rate limit of a century",
                State { failures: 1, retry_after: Some(Duration::MAX), ..state },
                START,
                DAY,
            ),
            (
                "a clock before its time",
                State { validity: validity(90), ..state },
                START - DAY,
                DAY * 61,
            ),
        ] {
            assert_eq!(wait(&state, now), expected, "{what}");
        }
    }

    /// An authority is down for a day from the time at which the certificate is due.
    #[test]
    fn an_authority_that_is_down_for_a_day_is_asked_a_few_times() {
        for jitter in [0, 500, 999] {
            let mut state = State { validity: validity(90), jitter, ..State::default() };
            let mut now = START;
            now += wait(&state, now);
            let down_until = now + DAY;
            let mut attempts = Vec::new();
            loop {
                attempts.push(now);
                if now >= down_until {
                    break;
                }
                state.failures += 1;
                state.since_failure = Duration::ZERO;
                now += wait(&state, now);
            }
            assert!((6..=9).contains(&attempts.len()), "{}", attempts.len());
            let first_hour = attempts.iter().filter(|at| **at < attempts[0] + MINUTE * 60).count();
            assert!(first_hour < 5, "{first_hour}");
            // The first attempt after that comes within the longest pause; weeks are left by then.
            assert!(now < down_until + BACKOFF_MAX * 11 / 10);
            assert!(now + DAY * 25 < state.validity.unwrap().not_after);
        }
    }

    #[test]
    fn a_broken_certificate_is_due_at_once() {
        let backwards = Validity { not_before: START, not_after: START - DAY };
        assert_eq!(
            wait(&State { validity: Some(backwards), ..State::default() }, START),
            Duration::ZERO
        );
        assert_eq!(overdue(validity(90).unwrap()), DAY * 14);
        assert_eq!(overdue(validity(6).unwrap()), DAY * 3 / 2);
    }

    #[test]
    fn lengths_of_time_are_for_people() {
        for (time, text) in [
            (Duration::ZERO, "1 seconds"),
            (MINUTE * 6, "6 minutes"),
            (Duration::from_secs(8 * 3600), "8 hours"),
            (DAY * 60, "60 days"),
        ] {
            assert_eq!(readable(time), text);
        }
    }
}
