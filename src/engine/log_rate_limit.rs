//! A rate limit on log lines that unauthenticated peers cause. Anyone could otherwise fill the
//! disk, which usually is that of the database, too.
//!
//! Owns a counter; reads no clock.

use std::fmt;

use crate::limits::{UNAUTHENTICATED_LOG_LINES_MAX, UNAUTHENTICATED_LOG_LINES_MS};

/// The lines left in the present window, and the number suppressed since the last line.
#[derive(Default, Debug)]
pub(super) struct LogRateLimit {
    until_ms: u64,
    left: u32,
    withheld: u64,
}

impl LogRateLimit {
    /// Logs a line about an unauthenticated peer, unless the limit is reached.
    pub(super) fn say(&mut self, now_ms: u64, message: fmt::Arguments<'_>) {
        match self.take(now_ms) {
            None => return,
            Some(0) => {}
            Some(withheld) => {
                log::info!("{withheld} similar lines about other peers were suppressed")
            }
        }
        log::info!("{message}");
    }

    /// Takes one line from the window. Returns how many were suppressed before it; `None`:
    /// suppress.
    fn take(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms >= self.until_ms {
            self.until_ms = now_ms.saturating_add(UNAUTHENTICATED_LOG_LINES_MS);
            self.left = UNAUTHENTICATED_LOG_LINES_MAX;
        }
        debug_assert!(self.until_ms <= now_ms.saturating_add(UNAUTHENTICATED_LOG_LINES_MS));
        debug_assert!(self.left <= UNAUTHENTICATED_LOG_LINES_MAX, "a window has few lines");
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
