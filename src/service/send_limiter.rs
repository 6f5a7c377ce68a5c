//! Slow mode: how long somebody waits between two messages to one chat.
//!
//! It is kept by chat and user, and not by connection or membership, so that nobody escapes it by
//! connecting again or by leaving and joining. What is over is forgotten in housekeeping. While no
//! chat has a slow mode, nothing is kept here and nothing is looked up. The limits on users are
//! kept by [`super::ledger`].

use std::collections::BTreeMap;

use crate::ids::{ChatId, UserId};

/// Users in chats that are kept at once; past it one is let go early.
const KEPT_MAX: usize = 65_536;

/// Who has to wait, by the clock that never jumps.
#[derive(Default)]
pub(super) struct SendLimiter {
    /// From when on a user may send to a chat in slow mode, in milliseconds.
    may_send_ms: BTreeMap<(UserId, ChatId), u64>,
}

/// How it was for one user in a chat before one message more.
pub(crate) struct LimitedSender {
    key: (UserId, ChatId),
    may_send_ms: Option<u64>,
}

impl SendLimiter {
    /// Milliseconds until a user may send to a chat in slow mode.
    pub(super) fn wait_ms(&self, user: UserId, chat: ChatId, now_ms: u64) -> u64 {
        self.may_send_ms.get(&(user, chat)).map_or(0, |from_ms| from_ms.saturating_sub(now_ms))
    }

    /// The slow mode of a chat is another: nobody waits longer for it from now on than it says.
    pub(super) fn set_slow_mode(&mut self, chat: ChatId, slow_mode_s: u32, now_ms: u64) {
        let latest_ms = now_ms + u64::from(slow_mode_s) * 1000;
        for ((_, of), from_ms) in &mut self.may_send_ms {
            if *of == chat {
                *from_ms = latest_ms.min(*from_ms);
            }
        }
    }

    /// Counts a send or an edit in a chat with a slow mode. How it was before.
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

    /// A message is taken back.
    pub(super) fn take_back(&mut self, before: &LimitedSender) {
        match before.may_send_ms {
            Some(from_ms) => self.may_send_ms.insert(before.key, from_ms),
            None => self.may_send_ms.remove(&before.key),
        };
    }

    /// Forgets what is over.
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
