//! How fast somebody may send: the slow mode of a chat, and the operator's bound for one user.
//!
//! It is kept by user, and by chat and user, and not by connection or membership, so that nobody
//! escapes it by connecting again or by leaving and joining. What is over is forgotten in
//! housekeeping. While neither bound is set, nothing is kept here and nothing is looked up.

use std::collections::BTreeMap;

use crate::ids::{ChatId, UserId};

/// Users, and users in chats, that are kept at once; past it one is let go early.
const KEPT_MAX: usize = 65_536;

/// Who has to wait, by the clock that never jumps.
#[derive(Default)]
pub(super) struct SendLimiter {
    /// From when on a user may send to a chat in slow mode, in milliseconds.
    may_send_ms: BTreeMap<(UserId, ChatId), u64>,
    /// The second that a user last sent in, and how often.
    sent: BTreeMap<UserId, (u64, u32)>,
}

/// How it was for one user before one message more.
pub(crate) struct LimitedSender {
    key: (UserId, ChatId),
    may_send_ms: Option<u64>,
    sent: Option<(u64, u32)>,
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

    /// Messages that a user has sent in the second that is under way.
    pub(super) fn sent_in_second(&self, user: UserId, now_ms: u64) -> u32 {
        let sent = self.sent.get(&user).filter(|(second, _)| *second == now_ms / 1000);
        sent.map_or(0, |(_, sent)| *sent)
    }

    /// Counts a message: against the slow mode of the chat, when there is one, and against the
    /// user's bound, when there is one. How it was before.
    pub(super) fn note(
        &mut self,
        key: (UserId, ChatId),
        slow_mode_s: u32,
        is_counted: bool,
        now_ms: u64,
    ) -> LimitedSender {
        let mut before = LimitedSender { key, may_send_ms: None, sent: None };
        if slow_mode_s > 0 {
            let from_ms = now_ms + u64::from(slow_mode_s) * 1000;
            make_room(&mut self.may_send_ms, key);
            before.may_send_ms = self.may_send_ms.insert(key, from_ms);
        }
        if is_counted {
            let sent = self.sent_in_second(key.0, now_ms);
            make_room(&mut self.sent, key.0);
            before.sent = self.sent.insert(key.0, (now_ms / 1000, sent + 1));
        }
        before
    }

    /// A message is taken back.
    pub(super) fn take_back(&mut self, before: &LimitedSender) {
        put(&mut self.may_send_ms, before.key, before.may_send_ms);
        put(&mut self.sent, before.key.0, before.sent);
    }

    /// Forgets what is over.
    pub(super) fn trim(&mut self, now_ms: u64) {
        self.may_send_ms.retain(|_, from_ms| *from_ms > now_ms);
        self.sent.retain(|_, (second, _)| *second == now_ms / 1000);
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn make_room<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K) {
    if map.len() >= KEPT_MAX && !map.contains_key(&key) {
        map.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: u32, chat: u32) -> (UserId, ChatId) {
        (UserId::new(user).expect("not 0"), ChatId::new(chat).expect("not 0"))
    }

    #[test]
    fn a_message_counts_against_both_and_can_be_taken_back() {
        let mut send_limiter = SendLimiter::default();
        let (anna, hall) = key(1, 7);
        let first = send_limiter.note((anna, hall), 10, true, 5_500);
        assert_eq!(send_limiter.wait_ms(anna, hall, 6_000), 9_500);
        assert_eq!(send_limiter.wait_ms(anna, hall, 15_500), 0);
        assert_eq!(send_limiter.wait_ms(anna, key(1, 8).1, 6_000), 0);
        let second = send_limiter.note((anna, hall), 0, true, 5_900);
        assert_eq!(
            (send_limiter.sent_in_second(anna, 5_999), send_limiter.sent_in_second(anna, 6_000)),
            (2, 0)
        );
        send_limiter.take_back(&second);
        assert_eq!(send_limiter.sent_in_second(anna, 5_999), 1);
        send_limiter.take_back(&first);
        assert_eq!(
            (send_limiter.sent_in_second(anna, 5_999), send_limiter.wait_ms(anna, hall, 6_000)),
            (0, 0)
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_over_goes() {
        let mut send_limiter = SendLimiter::default();
        for user in 1..=KEPT_MAX as u32 + 10 {
            send_limiter.note(key(user, 1), 1, true, 500);
        }
        assert_eq!((send_limiter.may_send_ms.len(), send_limiter.sent.len()), (KEPT_MAX, KEPT_MAX));
        send_limiter.note(key(1, 1), 5, true, 1_000);
        send_limiter.trim(1_500);
        assert_eq!((send_limiter.may_send_ms.len(), send_limiter.sent.len()), (1, 1));
    }
}
