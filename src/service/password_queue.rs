//! The password queue: which password check runs next on the helper thread.
//!
//! A guess starts only if its token buckets would still have a token after it and all guesses in
//! progress for the same key had failed. So parallel guesses get no further than serial ones, and
//! right passwords cost no tokens however many are sent at once.
//!
//! The queue is fair, since right and new passwords take as much of the helper thread's time as
//! wrong ones. Users with a session, together with *known* addresses (which had a session before),
//! alternate with everybody else. Within each class, the network that has used least of the helper
//! lately goes first; within it, the owner who has; then first come, first served. So an honest
//! login waits for one job in progress and one of the other class, however many flood the queue.
//! When the queue is full, the owner with the most jobs in it loses one.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::auth::helper::{Job, JobId};
use crate::auth::throttle::{Key, Network, Origin, SecondsToWait, Throttle};
use crate::ids::{ChatId, UserId};
use crate::limits::{
    KNOWN_ORIGINS_MAX, PASSWORD_COSTS_MAX, PASSWORD_QUEUE_MAX, PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX,
    PASSWORD_QUEUE_ROUNDS_MAX, PASSWORD_QUEUE_USER_ROUNDS_MAX, PASSWORD_ROUNDS_UNDER_WAY_MAX,
    PASSWORDS_UNDER_WAY_MAX,
};

/// Milliseconds after which half of an owner's use is forgotten.
const HALF_LIFE_MS: u64 = 30_000;

/// The guess that a piece of password work amounts to.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Guess {
    Login {
        login: String,
        origin: Origin,
    },
    Join {
        user: UserId,
        chat: ChatId,
    },
    OldPassword {
        user: UserId,
    },
    /// Not a guess: a new password is hashed.
    Nothing,
}

impl Guess {
    /// The token buckets that a failure takes a token from.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let keys = match self {
            Self::Login { login, origin } => {
                [Some(Key::Login(login, *origin)), Some(Key::Origin(*origin))]
            }
            Self::Join { user, chat } => [Some(Key::Join(*user, *chat)), None],
            Self::OldPassword { user } => [Some(Key::ChangePassword(*user)), None],
            Self::Nothing => [None, None],
        };
        keys.into_iter().flatten()
    }
}

/// The owner of a job: whose budget of the queue it uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Owner {
    User(UserId),
    /// Unauthenticated peers of one origin.
    Peer(Origin),
}

impl Owner {
    /// PBKDF2 rounds that may wait per owner.
    fn rounds_max(self) -> u64 {
        match self {
            Self::User(_) => PASSWORD_QUEUE_USER_ROUNDS_MAX,
            Self::Peer(_) => PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX,
        }
    }

    /// The group that shares the helper's time before its owners do.
    fn group(self) -> Group {
        match self {
            Self::User(user) => Group::User(user),
            Self::Peer(origin) => Group::Network(origin.network()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Group {
    User(UserId),
    Network(Network),
}

struct QueuedJob {
    job: Job,
    owner: Owner,
    guess: Guess,
    rounds: u32,
    is_known: bool,
}

/// The next step of the queue.
pub(super) enum Next {
    /// Hand this job to the helper.
    Ready(Job),
    /// Decline this one: too many failures by now, or evicted from the full queue.
    Declined(JobId, SecondsToWait),
    /// Drop this one: no connection waits for it any more.
    Abandoned(JobId),
    /// Nothing to do for now.
    Idle,
}

/// PBKDF2 rounds used lately; halves every [`HALF_LIFE_MS`].
#[derive(Clone, Copy, Default)]
struct Cost {
    rounds: u64,
    at_ms: u64,
}

impl Cost {
    fn now(self, now_ms: u64) -> u64 {
        let half_lives = now_ms.saturating_sub(self.at_ms) / HALF_LIFE_MS;
        self.rounds.checked_shr(u32::try_from(half_lives).unwrap_or(u32::MAX)).unwrap_or(0)
    }
}

/// Rounds used lately by a bounded number of owners or groups.
struct Costs<K>(HashMap<K, Cost>);

impl<K> Default for Costs<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + std::hash::Hash> Costs<K> {
    fn of(&self, key: K, now_ms: u64) -> u64 {
        self.0.get(&key).map_or(0, |cost| cost.now(now_ms))
    }

    fn add(&mut self, key: K, rounds: u32, now_ms: u64) {
        if self.0.len() >= PASSWORD_COSTS_MAX && !self.0.contains_key(&key) {
            // Forget the lower half: those have the least to be remembered for.
            let mut costs: Vec<u64> = self.0.values().map(|cost| cost.now(now_ms)).collect();
            let middle = costs.len() / 2;
            let (_, &mut median, _) = costs.select_nth_unstable(middle);
            self.0.retain(|_, cost| cost.now(now_ms) > median);
        }
        let cost = self.0.entry(key).or_default();
        let half_lives = now_ms.saturating_sub(cost.at_ms) / HALF_LIFE_MS;
        *cost = Cost {
            rounds: cost.now(now_ms).saturating_add(u64::from(rounds)),
            at_ms: cost.at_ms.saturating_add(half_lives.saturating_mul(HALF_LIFE_MS)),
        };
    }
}

/// The password queue, and the jobs that the helper has.
#[derive(Default)]
pub(super) struct PasswordQueue {
    /// In order of arrival.
    waiting: VecDeque<QueuedJob>,
    under_way: Vec<(JobId, Guess, u32)>,
    /// Jobs evicted from the full queue, to be declined.
    evicted: Vec<JobId>,
    /// PBKDF2 rounds of all waiting jobs: a measure of the time that they will take.
    rounds: u64,
    owners: Costs<Owner>,
    groups: Costs<Group>,
    /// The last job handed over was of a known owner.
    was_known: bool,
    known: HashSet<Origin>,
}

impl PasswordQueue {
    /// Notes that a connection from here has, or had, a session.
    pub(super) fn note_known(&mut self, origin: Origin) {
        if self.known.len() < KNOWN_ORIGINS_MAX {
            self.known.insert(origin);
        }
    }

    /// Whether the owner may queue one more job. In a full queue, another owner's job may be
    /// evicted.
    pub(super) fn admits(&mut self, owner: Owner) -> bool {
        let own_rounds = self.waiting_rounds(owner);
        if own_rounds >= owner.rounds_max() {
            return false;
        }
        let is_full = |queue: &Self| {
            queue.waiting.len() >= PASSWORD_QUEUE_MAX || queue.rounds >= PASSWORD_QUEUE_ROUNDS_MAX
        };
        while is_full(self) {
            if !self.evict(owner, own_rounds) {
                return false;
            }
        }
        true
    }

    fn waiting_rounds(&self, owner: Owner) -> u64 {
        let own = self.waiting.iter().filter(|entry| entry.owner == owner);
        own.map(|entry| u64::from(entry.rounds)).sum()
    }

    fn is_known(&self, owner: Owner) -> bool {
        match owner {
            Owner::User(_) => true,
            Owner::Peer(origin) => self.known.contains(&origin),
        }
    }

    /// Evicts the newest job of the owner with the most rounds, if the newcomer has fewer. A known
    /// newcomer may evict any job of unknown owners.
    fn evict(&mut self, newcomer: Owner, own_rounds: u64) -> bool {
        let mut sums: HashMap<(bool, Owner), u64> = HashMap::new();
        for entry in &self.waiting {
            *sums.entry((entry.is_known, entry.owner)).or_default() += u64::from(entry.rounds);
        }
        let is_known = self.is_known(newcomer);
        let may_go = |&(&(of_known, _), &rounds): &(&(bool, Owner), &u64)| {
            is_known && !of_known || is_known == of_known && rounds > own_rounds.saturating_add(1)
        };
        let worst =
            sums.iter().filter(may_go).max_by_key(|&(&(of_known, _), &sum)| (!of_known, sum));
        let Some((&(_, worst), _)) = worst else { return false };
        let Some(at) = self.waiting.iter().rposition(|entry| entry.owner == worst) else {
            return false;
        };
        if let Some(entry) = self.waiting.remove(at) {
            self.rounds -= u64::from(entry.rounds);
            self.evicted.push(entry.job.id);
        }
        true
    }

    pub(super) fn push(&mut self, job: Job, owner: Owner, guess: Guess, rounds: u32) {
        self.rounds += u64::from(rounds);
        let is_known = self.is_known(owner);
        self.waiting.push_back(QueuedJob { job, owner, guess, rounds, is_known });
    }

    /// Notes that the helper has done a job. Returns its guess.
    pub(super) fn done(&mut self, job: JobId) -> Option<Guess> {
        let at = self.under_way.iter().position(|(other, ..)| *other == job)?;
        Some(self.under_way.swap_remove(at).1)
    }

    /// Drops all waiting jobs.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.evicted.clear();
        self.rounds = 0;
    }

    /// The next step. `is_wanted`: whether a connection still waits for a job.
    pub(super) fn next(
        &mut self,
        throttle: &Throttle,
        now_ms: u64,
        is_wanted: impl Fn(JobId) -> bool,
    ) -> Next {
        if let Some(job) = self.evicted.pop() {
            return Next::Declined(job, EVICTED_WAIT_S);
        }
        if let Some(at) = self.waiting.iter().position(|entry| !is_wanted(entry.job.id)) {
            return self.take(at).map_or(Next::Idle, |entry| Next::Abandoned(entry.job.id));
        }
        let mut passed_over = Vec::new();
        while let Some(at) = self.first(now_ms, &passed_over) {
            let Some(entry) = self.waiting.get(at) else { break };
            let error = entry.guess.keys().find_map(|key| throttle.check(key, now_ms).err());
            if let Some(seconds) = error {
                let entry = self.take(at);
                return entry.map_or(Next::Idle, |entry| Next::Declined(entry.job.id, seconds));
            }
            if !self.fits_helper(entry.rounds) {
                return Next::Idle;
            }
            if self.is_free(entry, throttle, now_ms) {
                return self.hand_over(at, now_ms);
            }
            // Its decision depends on jobs in progress; others need not wait for that.
            passed_over.push(at);
        }
        Next::Idle
    }

    /// The index of the next job apart from those passed over.
    fn first(&self, now_ms: u64, passed_over: &[usize]) -> Option<usize> {
        let candidates = self.waiting.iter().enumerate();
        let candidates = candidates.filter(|(at, _)| !passed_over.contains(at));
        let order = |entry: &QueuedJob| {
            let group = self.groups.of(entry.owner.group(), now_ms);
            (entry.is_known == self.was_known, group, self.owners.of(entry.owner, now_ms))
        };
        candidates.min_by_key(|(at, entry)| (order(entry), *at)).map(|(at, _)| at)
    }

    fn take(&mut self, at: usize) -> Option<QueuedJob> {
        let entry = self.waiting.remove(at)?;
        self.rounds -= u64::from(entry.rounds);
        Some(entry)
    }

    /// Whether the helper has capacity for this job. It gets few at a time, so that the order of
    /// the rest is decided late.
    fn fits_helper(&self, rounds: u32) -> bool {
        let under_way: u64 = self.under_way.iter().map(|(_, _, rounds)| u64::from(*rounds)).sum();
        self.under_way.is_empty()
            || self.under_way.len() < PASSWORDS_UNDER_WAY_MAX
                && under_way + u64::from(rounds) <= PASSWORD_ROUNDS_UNDER_WAY_MAX
    }

    /// Whether every bucket of a guess still has a token if all guesses in progress for it fail.
    fn is_free(&self, entry: &QueuedJob, throttle: &Throttle, now_ms: u64) -> bool {
        entry.guess.keys().all(|key| {
            let same = |other: &Guess| other.keys().any(|other| other == key);
            let others = self.under_way.iter().filter(|(_, other, _)| same(other)).count();
            throttle.check_alongside(key, others as u32, now_ms).is_ok()
        })
    }

    fn hand_over(&mut self, at: usize, now_ms: u64) -> Next {
        let Some(entry) = self.take(at) else { return Next::Idle };
        self.owners.add(entry.owner, entry.rounds, now_ms);
        self.groups.add(entry.owner.group(), entry.rounds, now_ms);
        self.was_known = entry.is_known;
        self.under_way.push((entry.job.id, entry.guess, entry.rounds));
        Next::Ready(entry.job)
    }
}

/// Seconds after which the owner of an evicted job may try again.
const EVICTED_WAIT_S: SecondsToWait = 5;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::auth::helper::Work;
    use crate::auth::password::{self, Kind};
    use crate::limits::PASSWORD_ITERATIONS;

    fn push(queue: &mut PasswordQueue, owner: Owner, number: u64) {
        let password = password::prepare("correct horse", Kind::User).expect("long enough");
        let work = Work::Hash { password, rounds: PASSWORD_ITERATIONS };
        queue.push(Job { id: JobId(number), work }, owner, Guess::Nothing, PASSWORD_ITERATIONS);
    }

    fn user(id: u32) -> Owner {
        Owner::User(UserId::new(id).expect("not 0"))
    }

    fn peer(address: impl Into<IpAddr>) -> Owner {
        Owner::Peer(Origin::of(address.into()))
    }

    fn address(last: u8) -> Owner {
        peer(Ipv4Addr::new(192, 0, last, 1))
    }

    fn throttle() -> Throttle {
        Throttle::new(&[7; 32])
    }

    /// Takes the next job, and finishes it at once.
    fn next(queue: &mut PasswordQueue, now_ms: u64) -> u64 {
        match queue.next(&throttle(), now_ms, |_| true) {
            Next::Ready(job) => {
                queue.done(job.id);
                job.id.0
            }
            Next::Declined(job, _) => panic!("{job:?} declined"),
            Next::Abandoned(_) | Next::Idle => panic!("no job is ready"),
        }
    }

    /// A user, or an address, uses up only a budget of its own.
    #[test]
    fn nobody_fills_the_queue_alone() {
        let mut queue = PasswordQueue::default();
        let mut number = 0;
        for (owner, budget) in [(user(1), 8), (address(1), 64)] {
            for _ in 0..budget {
                assert!(queue.admits(owner));
                push(&mut queue, owner, number);
                number += 1;
            }
            assert!(!queue.admits(owner));
            assert!(queue.admits(user(2)) && queue.admits(address(2)));
        }
    }

    #[test]
    fn who_has_used_the_least_is_next() {
        let mut queue = PasswordQueue::default();
        for number in 0..10 {
            push(&mut queue, address(1), number);
        }
        assert_eq!(next(&mut queue, 0), 0);
        push(&mut queue, address(2), 100);
        push(&mut queue, address(2), 101);
        assert_eq!(next(&mut queue, 0), 100);
        let mut rest: Vec<_> = (0..4).map(|_| next(&mut queue, 0)).collect();
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 3, 101], "round robin from then on");
    }

    #[test]
    fn a_network_of_many_addresses_is_one() {
        let mut queue = PasswordQueue::default();
        let in_48 = |n: u16| peer(Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1));
        for n in 0..50 {
            push(&mut queue, in_48(n), n.into());
        }
        assert_eq!(next(&mut queue, 0), 0);
        push(&mut queue, peer(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1)), 100);
        push(&mut queue, in_48(0), 101);
        assert_eq!(next(&mut queue, 0), 100);
        assert_eq!(next(&mut queue, 0), 1, "another address of the network comes first");
    }

    #[test]
    fn known_addresses_take_turns_with_all_others() {
        let mut queue = PasswordQueue::default();
        for n in 0..100 {
            push(&mut queue, address(n), n.into());
        }
        let Owner::Peer(known) = address(200) else { unreachable!("a peer") };
        queue.note_known(known);
        push(&mut queue, address(200), 500);
        push(&mut queue, address(200), 501);
        let order: Vec<_> = (0..4).map(|_| next(&mut queue, 0)).collect();
        assert_eq!(order.iter().filter(|&&number| number >= 500).count(), 2, "{order:?}");
    }

    #[test]
    fn what_was_used_is_forgotten() {
        let mut queue = PasswordQueue::default();
        push(&mut queue, address(1), 0);
        next(&mut queue, 0);
        push(&mut queue, address(1), 1);
        push(&mut queue, address(2), 2);
        assert_eq!(next(&mut queue, 100 * HALF_LIFE_MS), 1, "first come, first served again");
    }

    #[test]
    fn the_helper_has_one_expensive_job_at_a_time() {
        let mut queue = PasswordQueue::default();
        push(&mut queue, address(1), 0);
        push(&mut queue, address(2), 1);
        let (throttle, wanted) = (throttle(), |_| true);
        assert!(matches!(queue.next(&throttle, 0, wanted), Next::Ready(Job { id: JobId(0), .. })));
        assert!(matches!(queue.next(&throttle, 0, wanted), Next::Idle));
        queue.done(JobId(0));
        assert!(matches!(queue.next(&throttle, 0, wanted), Next::Ready(Job { id: JobId(1), .. })));
    }

    #[test]
    fn a_full_queue_makes_room_for_who_has_less_in_it() {
        let mut queue = PasswordQueue::default();
        let mut number = 0;
        while queue.rounds < PASSWORD_QUEUE_ROUNDS_MAX {
            push(&mut queue, address((number % 4) as u8), number);
            number += 1;
        }
        assert!(queue.admits(address(100)));
        push(&mut queue, address(100), 1000);
        match queue.next(&throttle(), 0, |_| true) {
            Next::Declined(JobId(gone), _) => assert!(gone >= number - 4, "{gone}, the newest"),
            _ => panic!("nothing was declined"),
        }
        assert_eq!(next(&mut queue, 0) / 4, 0);
        assert!(queue.waiting.iter().any(|entry| entry.job.id == JobId(1000)));
    }
}
