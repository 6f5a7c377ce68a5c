//! Pauses before retries: exponential backoff with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pause before the second attempt to reconnect; there is none before the first.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before an attempt to reconnect.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Pause after a temporary decline that names no time, as a [`Duration`].
const REFUSED_PAUSE: Duration = Duration::from_secs(3);

/// The pause after a temporary decline; `None` for a permanent one.
pub(super) fn pause_after(code: &str, number: Option<i64>) -> Option<Duration> {
    match code {
        "rate-limited" => {
            let seconds = number.and_then(|seconds| u64::try_from(seconds).ok());
            Some(seconds.map_or(REFUSED_PAUSE, |seconds| Duration::from_secs(seconds.min(3600))))
        }
        "storage-failed" | "shutting-down" => Some(REFUSED_PAUSE),
        _ => None,
    }
}

/// Doubles a pause up to the bound, with jitter.
pub(super) fn longer(pause: Duration) -> Duration {
    let doubled = (2 * pause).clamp(PAUSE_MIN, PAUSE_MAX);
    let dice = RandomState::new().hash_one(()) % 512;
    doubled.mul_f64(0.75 + dice as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_not_all_alike() {
        let mut pause = Duration::ZERO;
        let mut seen = HashSet::new();
        for _ in 0..20 {
            pause = longer(pause);
            assert!(pause >= PAUSE_MIN.mul_f64(0.75) && pause <= PAUSE_MAX.mul_f64(1.25));
            seen.insert(pause);
        }
        assert!(pause >= PAUSE_MAX.mul_f64(0.75));
        assert!(seen.len() > 10);
    }

    #[test]
    fn refusals_that_pass_say_when() {
        assert_eq!(pause_after("rate-limited", Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(pause_after("rate-limited", Some(-1)), Some(REFUSED_PAUSE));
        assert_eq!(pause_after("storage-failed", None), Some(REFUSED_PAUSE));
        assert_eq!(pause_after("not-member", Some(7)), None);
    }
}
