//! When a certificate is asked for: pure functions of the time.

use std::time::Duration;

use crate::certificate::x509::Validity;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait after the first failure, threefold after each further one: four attempts in the first
/// hour, fewer than the failed checks of an hour that Let's Encrypt allows (five).
const BACKOFF_MIN: Duration = Duration::from_secs(2 * 60);
const BACKOFF_MAX: Duration = Duration::from_secs(8 * 60 * 60);

/// The least time between two certificates.
const REST_MIN: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(60 * 60);

/// What is known of the certificate and of the attempts to get one.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Of the certificate that is there and covers all names.
    pub validity: Option<Validity>,
    /// The time since the last attempt that succeeded, in this run.
    pub since_success: Option<Duration>,
    /// Failed attempts since the last that succeeded.
    pub failures: u32,
    /// The time since the last of them.
    pub since_failure: Duration,
    /// When the authority wants to be asked again, counted from that failure.
    pub retry_after: Option<Duration>,
    /// A number of 0 to 999, drawn for each certificate, so that servers that were installed
    /// together do not ask together.
    pub jitter: u16,
}

/// The time to wait until the next attempt; `now` is the time since the Unix epoch.
pub fn wait(state: &State, now: Duration) -> Duration {
    let due = state
        .validity
        .map_or(Duration::ZERO, |validity| renewal(validity, state.jitter).saturating_sub(now));
    let due = due.max(rest(state));
    if state.failures == 0 {
        return due;
    }
    // An authority cannot put it off for longer than a day.
    let asked = state.retry_after.unwrap_or_default().min(DAY);
    let pause = backoff(state.failures, state.jitter).max(asked);
    due.max(pause.saturating_sub(state.since_failure))
}

/// An authority whose certificates end at once is not asked without a pause.
fn rest(state: &State) -> Duration {
    let Some(since) = state.since_success else { return Duration::ZERO };
    let life = |validity: Validity| validity.not_after.saturating_sub(validity.not_before);
    let life = state.validity.map_or(Duration::ZERO, life);
    (life / 3).clamp(REST_MIN, REST_MAX).saturating_sub(since)
}

/// When a certificate is renewed: after two thirds of its life, up to a thirtieth of it earlier.
pub fn renewal(validity: Validity, jitter: u16) -> Duration {
    let life = validity.not_after.saturating_sub(validity.not_before);
    validity.not_before + life * 2 / 3 - part(life / 30, jitter)
}

/// The time left below which a certificate should have been renewed long ago.
pub fn overdue(validity: Validity) -> Duration {
    let life = validity.not_after.saturating_sub(validity.not_before);
    (life / 4).min(DAY * 14)
}

/// The wait after a number of failures, up to a tenth longer.
fn backoff(failures: u32, jitter: u16) -> Duration {
    let steps = failures.saturating_sub(1).min(10);
    let pause = (BACKOFF_MIN * 3_u32.pow(steps)).min(BACKOFF_MAX);
    pause + part(pause / 10, jitter)
}

/// Thousandths of a length of time.
fn part(whole: Duration, jitter: u16) -> Duration {
    whole * u32::from(jitter.min(999)) / 1000
}

/// A length of time for people.
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

    /// An authority that is down for a day, from the moment at which the certificate is due.
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
            // Once it is back, it is asked within the longest wait; weeks are left by then.
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
