//! Slow mode: the rate limit on one user's messages to one chat.
//!
//! It is kept per chat and user, not per connection or membership: reconnecting, or leaving and
//! joining again, does not reset it. Housekeeping removes entries that are over. While no chat has
//! a slow mode, nothing is stored or looked up here. The limits per user are in [`super::ledger`].

use std::collections::BTreeMap;

use crate::ids::{ChatId, UserId};

/// Pairs of user and chat kept at once; above it, one is forgotten early.
const KEPT_MAX: usize = 65_536;

/// The waits in progress.
#[derive(Default)]
pub(super) struct SendLimiter {
    /// When a user may send to a chat again, in milliseconds of the monotonic clock.
    may_send_ms: BTreeMap<(UserId, ChatId), u64>,
}

/// The state of one user in one chat before a send, for an undo.
pub(crate) struct LimitedSender {
    key: (UserId, ChatId),
    may_send_ms: Option<u64>,
}

impl SendLimiter {
    /// Milliseconds until a user may send to a chat in slow mode.
    pub(super) fn wait_ms(&self, user: UserId, chat: ChatId, now_ms: u64) -> u64 {
        self.may_send_ms.get(&(user, chat)).map_or(0, |from_ms| from_ms.saturating_sub(now_ms))
    }

    /// Shortens the waits in a chat to its new slow mode.
    pub(super) fn set_slow_mode(&mut self, chat: ChatId, slow_mode_s: u32, now_ms: u64) {
        let latest_ms = now_ms + u64::from(slow_mode_s) * 1000;
        for ((_, of), from_ms) in &mut self.may_send_ms {
            if *of == chat {
                *from_ms = latest_ms.min(*from_ms);
            }
        }
    }

    /// Counts a send or an edit in a chat with a slow mode. Returns the state before it.
    pub(super) fn note(
        &mut self,
        key: (UserId, ChatId),
        slow_mode_s: u32,
        now_ms: u64,
    ) -> LimitedSender {
        let from_ms = now_ms + u64::from(slow_mode_s) * 1000;
        if self.may_send_ms.len() >= KEPT_MAX && !self.may_send_ms.contains_key(&key) {
            self.may_send_ms.pop_first();
        }
        LimitedSender { key, may_send_ms: self.may_send_ms.insert(key, from_ms) }
    }

    /// Uncounts a message whose turn was undone.
    pub(super) fn take_back(&mut self, before: &LimitedSender) {
        match before.may_send_ms {
            Some(from_ms) => self.may_send_ms.insert(before.key, from_ms),
            None => self.may_send_ms.remove(&before.key),
        };
    }

    /// Forgets waits that are over.
    pub(super) fn trim(&mut self, now_ms: u64) {
        self.may_send_ms.retain(|_, from_ms| *from_ms > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: u32, chat: u32) -> (UserId, ChatId) {
        (UserId::new(user).expect("not 0"), ChatId::new(chat).expect("not 0"))
    }

    #[test]
    fn a_message_counts_and_can_be_taken_back() {
        let mut send_limiter = SendLimiter::default();
        let (anna, hall) = key(1, 7);
        let first = send_limiter.note((anna, hall), 10, 5_500);
        assert_eq!(send_limiter.wait_ms(anna, hall, 6_000), 9_500);
        assert_eq!(send_limiter.wait_ms(anna, hall, 15_500), 0);
        assert_eq!(send_limiter.wait_ms(anna, key(1, 8).1, 6_000), 0);
        let second = send_limiter.note((anna, hall), 10, 16_000);
        send_limiter.take_back(&second);
        assert_eq!(send_limiter.wait_ms(anna, hall, 6_000), 9_500);
        send_limiter.take_back(&first);
        assert_eq!(send_limiter.wait_ms(anna, hall, 6_000), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_over_goes() {
        let mut send_limiter = SendLimiter::default();
        for user in 1..=KEPT_MAX as u32 + 10 {
            send_limiter.note(key(user, 1), 1, 500);
        }
        assert_eq!(send_limiter.may_send_ms.len(), KEPT_MAX);
        send_limiter.note(key(1, 1), 5, 1_000);
        send_limiter.trim(1_500);
        assert_eq!(send_limiter.may_send_ms.len(), 1);
    }
}
