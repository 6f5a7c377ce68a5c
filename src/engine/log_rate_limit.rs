//! How many log lines unauthenticated peers may cause: anybody with a socket can be worth a line as
//! often as they like, and the disk that the log lies on is as a rule that of the data file.
//!
//! Owns a count. Must not know who is meant, nor read a clock.

use std::fmt;

use crate::limits::{UNAUTHENTICATED_LOG_LINES_MAX, UNAUTHENTICATED_LOG_LINES_MS};

/// What is left of the present share, and what was withheld since the last line.
#[derive(Default, Debug)]
pub(super) struct LogRateLimit {
    until_ms: u64,
    left: u32,
    withheld: u64,
}

impl LogRateLimit {
    /// Writes a line about somebody unknown, unless there were too many of late.
    pub(super) fn say(&mut self, now_ms: u64, words: fmt::Arguments<'_>) {
        match self.take(now_ms) {
            None => return,
            Some(0) => {}
            Some(withheld) => log::info!("{withheld} lines about others like this were left out"),
        }
        log::info!("{words}");
    }

    /// Whether there may be one more line, and how many before it were withheld.
    fn take(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms >= self.until_ms {
            self.until_ms = now_ms.saturating_add(UNAUTHENTICATED_LOG_LINES_MS);
            self.left = UNAUTHENTICATED_LOG_LINES_MAX;
        }
        if self.left == 0 {
            self.withheld = self.withheld.saturating_add(1);
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_and_comes_again() {
        let mut log_rate_limit = LogRateLimit::default();
        for now_ms in [5, 5 + UNAUTHENTICATED_LOG_LINES_MS, 5 + 9 * UNAUTHENTICATED_LOG_LINES_MS] {
            let first = log_rate_limit.take(now_ms);
            assert_eq!(first, Some(if now_ms == 5 { 0 } else { 7 }));
            for _ in 1..UNAUTHENTICATED_LOG_LINES_MAX {
                assert_eq!(log_rate_limit.take(now_ms + 1), Some(0));
            }
            for _ in 0..7 {
                assert_eq!(log_rate_limit.take(now_ms + UNAUTHENTICATED_LOG_LINES_MS - 1), None);
            }
        }
    }
}
