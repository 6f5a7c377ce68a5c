//! The queue of pushes: which one is sent next, and when a failed one is retried.
//!
//! Each chat has at most one push per subscription: that of the newest message. Hosts take turns,
//! each with a few pushes in progress, so that a slow host delays no other. A host that does not
//! answer is paused, with exponential backoff.
//!
//! A plain data structure: it uses no database, clock or thread.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use crate::ids::{ChatId, MessageId, SessionId};
use crate::limits::{PUSHES_PENDING_MAX, PUSHES_PER_HOST_MAX};
use crate::service::DAY_US;

const SECOND_US: i64 = 1_000_000;
/// Delay of the second attempt, in microseconds; doubled for each further one.
const RETRY_US: i64 = 30 * SECOND_US;
/// Longest delay of an attempt, in microseconds.
const RETRY_US_MAX: i64 = 6 * 3600 * SECOND_US;
/// First pause of a host that did not answer, in microseconds; doubled for each further failure.
const REST_US: i64 = 5 * SECOND_US;
/// Longest pause of a host, in microseconds.
const REST_US_MAX: i64 = 300 * SECOND_US;
/// Microseconds by which a newer push waits for one in progress with the same key.
const BEHIND_US: i64 = SECOND_US;
/// Hosts scanned per job, at most.
const HOSTS_SCANNED_MAX: usize = 256;

/// The key of a push: at most one push waits for each session and chat.
pub(super) type PushKey = (SessionId, ChatId);

/// Delay of the next attempt after this number of failed ones: exponential backoff, with jitter.
pub(super) fn retry_delay_us(attempts: u32, key: PushKey, retry_after_s: Option<u64>) -> i64 {
    let doublings = attempts.saturating_sub(1).min(20);
    let delay_us = (RETRY_US << doublings).min(RETRY_US_MAX);
    let spread = (u64::from(key.0.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as i64;
    let asked_s = retry_after_s.unwrap_or_default().min(DAY_US.unsigned_abs() / 1_000_000);
    let asked_us = i64::try_from(asked_s).unwrap_or_default() * SECOND_US;
    (delay_us + delay_us / 4 * spread / 256).max(asked_us)
}

/// A push that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) message: MessageId,
    pub(super) attempts: u32,
    /// When it is due, in microseconds of server time.
    pub(super) due_us: i64,
    pub(super) host: String,
}

/// A push that is being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnderWay {
    pub(super) key: PushKey,
    pub(super) message: MessageId,
    pub(super) attempts: u32,
    pub(super) endpoint: String,
    host: String,
}

/// A host of a push service.
#[derive(Debug, Default)]
struct Host {
    /// Pushes that wait, by due time.
    due: BTreeSet<(i64, PushKey)>,
    /// Pushes in progress.
    under_way: usize,
    /// Consecutive failures to answer.
    failures: u32,
    /// End of the pause after a failure, in microseconds of server time; 0 without one.
    rests_until_us: i64,
}

/// The queue of pushes, bounded by [`PUSHES_PENDING_MAX`].
#[derive(Debug, Default)]
pub(super) struct PushQueue {
    waiting: HashMap<PushKey, Waiting>,
    hosts: BTreeMap<String, Host>,
    /// Pushes in progress, by the id of their job.
    under_way: HashMap<u64, UnderWay>,
    keys_under_way: HashSet<PushKey>,
    next_id: u64,
    /// The host that was scanned last; the next one in order comes first.
    last_host: String,
}

impl PushQueue {
    /// Number of waiting pushes.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Number of pushes in progress.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Adds a push. If one with the same key waits, the newer message is kept, with the earlier due
    /// time. False when the queue is full.
    pub(super) fn add(&mut self, key: PushKey, new: Waiting) -> bool {
        if let Some(old) = self.waiting.get_mut(&key) {
            if old.host == new.host {
                old.message = old.message.max(new.message);
                return true;
            }
            self.remove(key);
        }
        if self.waiting.len() >= PUSHES_PENDING_MAX {
            return false;
        }
        self.hosts.entry(new.host.clone()).or_default().due.insert((new.due_us, key));
        self.waiting.insert(key, new);
        true
    }

    /// Removes a waiting push.
    pub(super) fn remove(&mut self, key: PushKey) -> Option<Waiting> {
        let old = self.waiting.remove(&key)?;
        if let Entry::Occupied(mut host) = self.hosts.entry(old.host.clone()) {
            host.get_mut().due.remove(&(old.due_us, key));
            if host.get().is_idle(old.due_us) {
                host.remove();
            }
        }
        Some(old)
    }

    /// Removes and returns the next push that is due, in round robin over the hosts. Hosts that are
    /// paused or busy are skipped. The caller sends the push or drops it.
    pub(super) fn next(&mut self, now_us: i64) -> Option<(PushKey, Waiting)> {
        for _ in 0..=HOSTS_SCANNED_MAX.min(self.hosts.len()) {
            let after = (Bound::Excluded(self.last_host.as_str()), Bound::Unbounded);
            let next = self.hosts.range_mut::<str, _>(after).next();
            let Some((name, host)) = next else {
                // Begin the next round.
                self.last_host.clear();
                continue;
            };
            self.last_host.clone_from(name);
            if host.under_way >= PUSHES_PER_HOST_MAX || host.rests_until_us > now_us {
                continue;
            }
            let Some(&(due_us, key)) = host.due.first() else {
                if host.is_idle(now_us) {
                    let name = self.last_host.clone();
                    self.hosts.remove(&name);
                }
                continue;
            };
            if due_us > now_us {
                continue;
            }
            if self.keys_under_way.contains(&key) {
                host.due.remove(&(due_us, key));
                host.due.insert((now_us + BEHIND_US, key));
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.due_us = now_us + BEHIND_US;
                }
                continue;
            }
            host.due.remove(&(due_us, key));
            return self.waiting.remove(&key).map(|waiting| (key, waiting));
        }
        None
    }

    /// Notes that a push is being sent. Returns the id of its job.
    pub(super) fn begin(&mut self, key: PushKey, push: Waiting, endpoint: String) -> u64 {
        self.next_id += 1;
        let Waiting { message, attempts, host, .. } = push;
        self.hosts.entry(host.clone()).or_default().under_way += 1;
        self.keys_under_way.insert(key);
        self.under_way.insert(self.next_id, UnderWay { key, message, attempts, endpoint, host });
        self.next_id
    }

    /// Notes that a job is done. A host that has not answered is paused. Returns the push, so that
    /// the caller can retry it.
    pub(super) fn end(&mut self, id: u64, has_answered: bool, now_us: i64) -> Option<UnderWay> {
        let ended = self.under_way.remove(&id)?;
        self.keys_under_way.remove(&ended.key);
        if let Some(host) = self.hosts.get_mut(&ended.host) {
            host.under_way = host.under_way.saturating_sub(1);
            if has_answered {
                host.failures = 0;
                host.rests_until_us = 0;
            } else if host.rests_until_us <= now_us {
                // Pushes that were in progress together fail together, and count once.
                let rest_us = (REST_US << host.failures.min(10)).min(REST_US_MAX);
                host.failures += 1;
                host.rests_until_us = now_us + rest_us;
            }
        }
        Some(ended)
    }

    /// Queues a failed push again, unless a newer one with its key waits already.
    pub(super) fn retry(&mut self, failed: UnderWay, attempts: u32, due_us: i64) {
        let UnderWay { key, message, host, .. } = failed;
        let newer = self.remove(key).map(|newer| newer.message);
        let message = newer.map_or(message, |newer| newer.max(message));
        self.add(key, Waiting { message, attempts, due_us, host });
    }

    /// Drops waiting pushes; those in progress stay.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        for host in self.hosts.values_mut() {
            host.due.clear();
        }
    }
}

impl Host {
    fn is_idle(&self, now_us: i64) -> bool {
        self.due.is_empty() && self.under_way == 0 && self.rests_until_us <= now_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerTime;

    fn key(session: u32, chat: u32) -> PushKey {
        (SessionId::new(session).unwrap(), ChatId::new(chat).unwrap())
    }

    fn message(micros: i64) -> MessageId {
        MessageId::at(ServerTime::new(micros).unwrap())
    }

    fn push(micros: i64, due_us: i64, host: &str) -> Waiting {
        Waiting { message: message(micros), attempts: 0, due_us, host: host.to_owned() }
    }

    fn hand_out(queue: &mut PushQueue, now_us: i64) -> Option<(u64, PushKey)> {
        let (key, push) = queue.next(now_us)?;
        Some((queue.begin(key, push, "endpoint".to_owned()), key))
    }

    #[test]
    fn the_newest_message_of_a_chat_waits_alone() {
        let mut queue = PushQueue::default();
        for micros in [5, 9, 7] {
            assert!(queue.add(key(1, 1), push(micros, 100 + micros, "a")));
        }
        assert_eq!(queue.next(104), None, "not yet due");
        let (_, next) = queue.next(105).unwrap();
        assert_eq!(next.message, message(9));
        assert_eq!(queue.next(1_000), None);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn hosts_take_turns_and_have_few_under_way() {
        let mut queue = PushQueue::default();
        for session in 1..=20 {
            queue.add(key(session, 1), push(1, 0, "slow"));
        }
        queue.add(key(30, 1), push(1, 10, "b"));
        queue.add(key(31, 1), push(1, 10, "c"));
        let mut handed = Vec::new();
        while let Some((_, key)) = hand_out(&mut queue, 10) {
            handed.push(key.0.get());
        }
        let slow = handed.iter().filter(|session| **session <= 20).count();
        assert_eq!((slow, handed.len()), (PUSHES_PER_HOST_MAX, PUSHES_PER_HOST_MAX + 2));
        assert!(handed[..3].contains(&30) && handed[..3].contains(&31), "{handed:?}");
    }

    #[test]
    fn a_host_that_does_not_answer_rests_ever_longer_and_once_for_all() {
        let mut queue = PushQueue::default();
        let mut now_us = 0;
        let mut rests = Vec::new();
        for round in 0..10 {
            for session in 1..=3 {
                queue.add(key(session, 1), push(1, now_us, "dead"));
            }
            let ids: Vec<_> =
                std::iter::from_fn(|| hand_out(&mut queue, now_us)).map(|(id, _)| id).collect();
            assert_eq!(ids.len(), 3, "round {round}");
            for id in ids {
                queue.end(id, false, now_us).unwrap();
            }
            queue.add(key(4, 1), push(1, now_us, "dead"));
            let begun_us = now_us;
            while queue.next(now_us).is_none() {
                now_us += SECOND_US;
            }
            rests.push((now_us - begun_us) / SECOND_US);
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]);
    }

    #[test]
    fn a_host_that_answers_again_rests_no_more() {
        let mut queue = PushQueue::default();
        queue.add(key(1, 1), push(1, 0, "a"));
        queue.add(key(2, 1), push(1, 0, "a"));
        let (first, _) = hand_out(&mut queue, 0).unwrap();
        let (second, _) = hand_out(&mut queue, 0).unwrap();
        queue.end(first, false, 0).unwrap();
        queue.end(second, true, 0).unwrap();
        queue.add(key(3, 1), push(1, 0, "a"));
        assert!(queue.next(0).is_some());
    }

    #[test]
    fn a_newer_push_waits_for_the_one_under_way() {
        let mut queue = PushQueue::default();
        queue.add(key(1, 1), push(1, 0, "a"));
        let (id, _) = hand_out(&mut queue, 0).unwrap();
        queue.add(key(1, 1), push(2, 0, "a"));
        assert_eq!(queue.next(0), None);
        queue.end(id, true, 0).unwrap();
        assert_eq!(queue.next(0), None);
        assert_eq!(queue.next(BEHIND_US).unwrap().1.message, message(2));
    }

    #[test]
    fn a_failed_push_waits_again_with_the_newest_message() {
        let mut queue = PushQueue::default();
        queue.add(key(1, 1), push(5, 0, "a"));
        let (id, _) = hand_out(&mut queue, 0).unwrap();
        queue.add(key(1, 1), push(8, 0, "a"));
        let failed = queue.end(id, true, 0).unwrap();
        queue.retry(failed, 1, 700);
        assert_eq!(queue.next(699), None);
        let (_, again) = queue.next(700).unwrap();
        assert_eq!(again, Waiting { attempts: 1, ..push(8, 700, "a") });
    }

    #[test]
    fn attempts_come_ever_later_and_as_the_service_asks() {
        let mut last_us = 0;
        for attempts in 1..=11 {
            let delay_us = retry_delay_us(attempts, key(7, 1), None);
            assert!(delay_us > last_us, "{attempts}");
            last_us = delay_us;
        }
        assert!(last_us <= RETRY_US_MAX / 4 * 5);
        assert!(retry_delay_us(u32::MAX, key(7, 1), None) <= RETRY_US_MAX / 4 * 5);
        assert_eq!(retry_delay_us(1, key(7, 1), Some(3_600)), 3_600 * SECOND_US);
        assert_eq!(retry_delay_us(1, key(7, 1), Some(u64::MAX)), DAY_US);
        let delays: HashSet<_> =
            (1..100).map(|session| retry_delay_us(1, key(session, 1), None)).collect();
        assert!(delays.len() > 50, "not all at the same moment");
    }

    #[test]
    fn the_queue_is_bounded_and_hosts_are_forgotten() {
        let mut queue = PushQueue::default();
        for session in 1..=PUSHES_PENDING_MAX as u32 {
            assert!(queue.add(key(session, 1), push(1, 0, &format!("host{}", session % 7))));
        }
        assert!(!queue.add(key(1, 2), push(1, 0, "a")));
        assert!(queue.add(key(1, 1), push(2, 0, "host1")), "one that waits already");
        for session in 1..=PUSHES_PENDING_MAX as u32 {
            queue.remove(key(session, 1)).unwrap();
        }
        assert_eq!((queue.len(), queue.hosts.len()), (0, 0));
    }
}
