//! Rate limiting of logins and other guesses: token buckets for failures (protocol section 7).
//!
//! Owns the buckets of all kinds. Times are arguments, so it reads no clock; it does not know
//! passwords.
//!
//! A bucket is full until a token is taken; tokens come back one by one. Full buckets are not
//! stored. Each kind has a bounded table of its own, from which the least recently used bucket is
//! evicted, so a flood of one kind does not affect the others. Keys are stored as a keyed hash of
//! sixteen bytes, whatever the length of a login.
//!
//! **Work in flight.** A password check ends long after [`Throttle::check`] allowed it. If a
//! hundred guesses at one login were allowed before the first one failed, a bucket of five tokens
//! would have paid for a hundred. So the service queues guesses, and starts one only when
//! [`Throttle::check_alongside`] says that a token would be left even if all guesses in progress
//! failed. Right passwords then cost nothing, however many at once, and parallel wrong ones get no
//! further than serial ones. A bucket can go below empty: then the debt is paid off first, so the
//! average rate holds.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;

use ring::hmac;

use crate::ids::{ChatId, SessionId, UserId};
use crate::limits::{
    ADDRESS_FAILURE_BUCKET, ADDRESS_FAILURE_REFILL_MS, BUCKETS_MAX, FAILURE_BUCKET,
    FAILURE_REFILL_MS, LOGIN_BUCKET, LOGIN_REFILL_MS, REGISTER_BUCKET, REGISTER_REFILL_MS,
};

/// Whole seconds until a token is available, at least 1.
pub type SecondsToWait = u64;

/// The origin of a peer: an IPv4 address, or the /64 of an IPv6 address, in which one host can use
/// any number of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin([u8; 9]);

impl Origin {
    /// The origin of an address.
    pub fn of(address: IpAddr) -> Self {
        let mut origin = [0; 9];
        match address.to_canonical() {
            IpAddr::V4(address) => {
                origin[0] = 4;
                origin[1..5].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                origin[0] = 6;
                origin[1..9].copy_from_slice(&address.octets()[..8]);
            }
        }
        Self(origin)
    }
}

impl Origin {
    /// The network that contains the origin.
    pub fn network(self) -> Network {
        let mut network = [0; 7];
        let bytes = if self.0[0] == 4 { 4 } else { 7 };
        network[..bytes].copy_from_slice(&self.0[..bytes]);
        Network(network)
    }
}

/// A network that one peer may control: a /24 of IPv4 addresses or a /48 of IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Network([u8; 7]);

/// Identifies a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Wrong passwords for a login from one origin. The login as its key, or as sent if it is not a
    /// valid name.
    Login(&'a str, Origin),
    /// Wrong secrets for a session from one origin.
    Session(SessionId, Origin),
    /// Wrong passwords of a user for a chat.
    Join(UserId, ChatId),
    /// Wrong old passwords in CHANGE_PASSWORD, by user.
    ChangePassword(UserId),
    /// All failures from an origin.
    Origin(Origin),
    /// Registrations from an origin.
    Register(Origin),
    /// Wrong reset codes for a login from one origin.
    Reset(&'a str, Origin),
    /// Wrong invite codes of a user.
    UseInvite(UserId),
    /// Wrong invite codes in registrations from an origin.
    RegisterInvite(Origin),
    /// Right passwords for a login from one origin: they take as much of the helper's time as wrong
    /// ones.
    LoggedIn(&'a str, Origin),
}

const KINDS: usize = 10;

impl Key<'_> {
    /// The index of the kind's table.
    fn kind(self) -> usize {
        match self {
            Self::Login(..) => 0,
            Self::Session(..) => 1,
            Self::Join(..) => 2,
            Self::ChangePassword(_) => 3,
            Self::Origin(_) => 4,
            Self::Register(_) => 5,
            Self::Reset(..) => 6,
            Self::UseInvite(_) => 7,
            Self::RegisterInvite(_) => 8,
            Self::LoggedIn(..) => 9,
        }
    }

    fn rate(self) -> Rate {
        match self {
            Self::Login(..)
            | Self::Session(..)
            | Self::Join(..)
            | Self::ChangePassword(_)
            | Self::Reset(..)
            | Self::UseInvite(_)
            | Self::RegisterInvite(_) => {
                Rate { bucket: FAILURE_BUCKET, refill_ms: FAILURE_REFILL_MS }
            }
            Self::Origin(_) => {
                Rate { bucket: ADDRESS_FAILURE_BUCKET, refill_ms: ADDRESS_FAILURE_REFILL_MS }
            }
            Self::Register(_) => Rate { bucket: REGISTER_BUCKET, refill_ms: REGISTER_REFILL_MS },
            Self::LoggedIn(..) => Rate { bucket: LOGIN_BUCKET, refill_ms: LOGIN_REFILL_MS },
        }
    }

    /// Passes the key to `update`, such that different keys of a kind never give the same bytes.
    fn feed(self, mut update: impl FnMut(&[u8])) {
        match self {
            Self::Login(login, origin)
            | Self::Reset(login, origin)
            | Self::LoggedIn(login, origin) => {
                update(&origin.0);
                update(login.as_bytes());
            }
            Self::Session(session, origin) => {
                update(&origin.0);
                update(&session.get().to_le_bytes());
            }
            Self::Join(user, chat) => {
                update(&user.get().to_le_bytes());
                update(&chat.get().to_le_bytes());
            }
            Self::ChangePassword(user) | Self::UseInvite(user) => {
                update(&user.get().to_le_bytes());
            }
            Self::Origin(origin) | Self::Register(origin) | Self::RegisterInvite(origin) => {
                update(&origin.0);
            }
        }
    }
}

/// The size of a bucket, and the milliseconds until one token comes back.
#[derive(Clone, Copy)]
struct Rate {
    bucket: u32,
    refill_ms: u64,
}

impl Rate {
    /// Milliseconds in which an empty bucket fills up.
    fn full_ms(self) -> u64 {
        u64::from(self.bucket) * self.refill_ms
    }
}

/// All buckets.
pub struct Throttle {
    hasher: hmac::Key,
    tables: [Table; KINDS],
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("buckets", &self.len()).finish_non_exhaustive()
    }
}

impl Throttle {
    /// All buckets full. The seed must be secret; otherwise an attacker could aim for another key's
    /// bucket.
    pub fn new(seed: &[u8; 32]) -> Self {
        let hasher = hmac::Key::new(hmac::HMAC_SHA256, seed);
        Self { hasher, tables: Default::default() }
    }

    /// Whether a token is available; takes none. `now_ms` must not go backwards.
    pub fn check(&self, key: Key<'_>, now_ms: u64) -> Result<(), SecondsToWait> {
        self.check_alongside(key, 0, now_ms)
    }

    /// Whether a token would be available even after `others` are taken first.
    pub fn check_alongside(
        &self,
        key: Key<'_>,
        others: u32,
        now_ms: u64,
    ) -> Result<(), SecondsToWait> {
        let rate = key.rate();
        let full_at_ms = self.tables[key.kind()].full_at_ms(&self.hash(key));
        let owed_ms = u64::from(others) * rate.refill_ms;
        let missing_ms = full_at_ms.saturating_sub(now_ms).saturating_add(owed_ms);
        let spendable_ms = rate.full_ms() - rate.refill_ms;
        match missing_ms.checked_sub(spendable_ms) {
            None | Some(0) => Ok(()),
            Some(wait_ms) => Err(wait_ms.div_ceil(1000)),
        }
    }

    /// Takes a token, even from an empty bucket.
    pub fn spend(&mut self, key: Key<'_>, now_ms: u64) {
        self.spend_part(key, 1, 1, now_ms);
    }

    /// Takes `part`/`whole` of a token, at most one.
    pub fn spend_part(&mut self, key: Key<'_>, part: u32, whole: u32, now_ms: u64) {
        let hash = self.hash(key);
        let refill_ms = key.rate().refill_ms;
        let spent_ms = refill_ms * u64::from(part.min(whole)) / u64::from(whole.max(1));
        if spent_ms > 0 {
            self.tables[key.kind()].spend(hash, spent_ms, now_ms);
        }
    }

    /// Buckets stored, over all kinds: at most ten times [`BUCKETS_MAX`].
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.buckets.len()).sum()
    }

    /// Whether no bucket is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn hash(&self, key: Key<'_>) -> Hash {
        let mut context = hmac::Context::with_key(&self.hasher);
        key.feed(|bytes| context.update(bytes));
        let tag = context.sign();
        let mut hash = [0; 16];
        hash.copy_from_slice(&tag.as_ref()[..16]);
        hash
    }
}

type Hash = [u8; 16];

/// The buckets of one kind, except full ones.
///
/// Invariant: `order` contains every key of `buckets` once, and nothing else.
#[derive(Default)]
struct Table {
    buckets: HashMap<Hash, Bucket>,
    /// Least recently used first, except for those marked `used_since`.
    order: VecDeque<Hash>,
}

struct Bucket {
    /// When it will be full, in milliseconds. This number is the whole state of the bucket.
    full_at_ms: u64,
    /// Whether a token was taken since it was appended to `order`.
    used_since: bool,
}

impl Table {
    fn full_at_ms(&self, hash: &Hash) -> u64 {
        self.buckets.get(hash).map_or(0, |bucket| bucket.full_at_ms)
    }

    fn spend(&mut self, hash: Hash, refill_ms: u64, now_ms: u64) {
        if let Some(bucket) = self.buckets.get_mut(&hash) {
            bucket.full_at_ms = bucket.full_at_ms.max(now_ms).saturating_add(refill_ms);
            bucket.used_since = true;
        } else {
            self.evict(now_ms);
            let full_at_ms = now_ms.saturating_add(refill_ms);
            self.buckets.insert(hash, Bucket { full_at_ms, used_since: false });
            self.order.push_back(hash);
        }
        debug_assert_eq!(self.order.len(), self.buckets.len());
        debug_assert!(self.buckets.len() <= BUCKETS_MAX);
    }

    /// Removes up to two full buckets, so that the table shrinks with its use, and evicts one more
    /// if it is full. A bucket used since is moved to the back instead. Each use causes at most one
    /// such move, so the amortized cost is constant.
    fn evict(&mut self, now_ms: u64) {
        let mut full_to_forget = 2;
        while let Some(&oldest) = self.order.front() {
            let no_room = self.buckets.len() >= BUCKETS_MAX;
            let Some(bucket) = self.buckets.get_mut(&oldest) else {
                // Impossible by the invariant; drop the entry anyway.
                self.order.pop_front();
                continue;
            };
            let full = bucket.full_at_ms <= now_ms;
            if full && full_to_forget > 0 {
                full_to_forget -= 1;
            } else if !no_room {
                return;
            } else if bucket.used_since {
                bucket.used_since = false;
                self.order.rotate_left(1);
                continue;
            }
            self.order.pop_front();
            self.buckets.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle() -> Throttle {
        Throttle::new(&[7; 32])
    }

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    fn anna(from: &str) -> Key<'static> {
        Key::Login("anna", origin(from))
    }

    fn user(id: u32) -> UserId {
        UserId::new(id).unwrap()
    }

    #[test]
    fn five_failures_then_one_every_ten_seconds() {
        let mut throttle = throttle();
        let key = anna("192.0.2.1");
        for _ in 0..5 {
            assert_eq!(throttle.check(key, 1_000), Ok(()));
            throttle.spend(key, 1_000);
        }
        assert_eq!(throttle.check(key, 1_000), Err(10));
        assert_eq!(throttle.check(key, 1_001), Err(10));
        assert_eq!(throttle.check(key, 10_999), Err(1));
        assert_eq!(throttle.check(key, 11_000), Ok(()));
        throttle.spend(key, 11_000);
        assert_eq!(throttle.check(key, 11_000), Err(10));
        // Full again, and not fuller than its size.
        for _ in 0..5 {
            assert_eq!(throttle.check(key, 10_000_000), Ok(()));
            throttle.spend(key, 10_000_000);
        }
        assert!(throttle.check(key, 10_000_000).is_err());
    }

    #[test]
    fn checking_spends_nothing() {
        let mut throttle = throttle();
        for _ in 0..1000 {
            assert_eq!(throttle.check(anna("192.0.2.1"), 5), Ok(()));
        }
        assert!(throttle.is_empty());
        throttle.spend(anna("192.0.2.1"), 5);
        assert_eq!(throttle.len(), 1);
    }

    #[test]
    fn an_address_has_a_hundred_and_registrations_thirty() {
        let mut throttle = throttle();
        for (key, bucket, wait) in [
            (Key::Origin(origin("192.0.2.1")), 100, 1),
            (Key::Register(origin("192.0.2.1")), 30, 60),
        ] {
            for _ in 0..bucket {
                assert_eq!(throttle.check(key, 0), Ok(()));
                throttle.spend(key, 0);
            }
            assert_eq!(throttle.check(key, 0), Err(wait));
        }
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let mut throttle = throttle();
        let (chat, session) = (ChatId::new(1).unwrap(), SessionId::new(1).unwrap());
        let keys = [
            anna("192.0.2.1"),
            anna("192.0.2.2"),
            Key::Login("boris", origin("192.0.2.1")),
            Key::Session(session, origin("192.0.2.1")),
            Key::Join(user(1), chat),
            Key::Join(user(2), chat),
            Key::ChangePassword(user(1)),
        ];
        for (index, &key) in keys.iter().enumerate() {
            for _ in 0..5 {
                throttle.spend(key, 0);
            }
            assert!(throttle.check(key, 0).is_err());
            for &other in &keys[index + 1..] {
                assert_eq!(throttle.check(other, 0), Ok(()), "{other:?}");
            }
        }
    }

    #[test]
    fn an_ipv6_network_is_one_origin() {
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }

    #[test]
    fn networks_are_wider_than_origins() {
        let network = |text: &str| origin(text).network();
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:3::9"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_eq!(network("192.0.2.1"), network("192.0.2.200"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    }

    #[test]
    fn right_passwords_are_paid_by_their_work() {
        let mut throttle = throttle();
        let key = Key::LoggedIn("anna", origin("192.0.2.1"));
        for _ in 0..LOGIN_BUCKET {
            assert_eq!(throttle.check(key, 0), Ok(()));
            throttle.spend_part(key, 600_000, 600_000, 0);
        }
        assert!(throttle.check(key, 0).is_err());
        let cheap = Key::LoggedIn("boris", origin("192.0.2.1"));
        for _ in 0..1000 {
            throttle.spend_part(cheap, 1, 600_000, 0);
        }
        assert_eq!(throttle.check(cheap, 0), Ok(()));
    }

    #[test]
    fn what_is_spent_past_empty_is_owed() {
        let mut throttle = throttle();
        for _ in 0..8 {
            throttle.spend(anna("192.0.2.1"), 0);
        }
        assert_eq!(throttle.check(anna("192.0.2.1"), 0), Err(40));
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let mut throttle = throttle();
        let spent_long_ago = Key::ChangePassword(user(1));
        let in_use = Key::ChangePassword(user(2));
        for _ in 0..5 {
            throttle.spend(spent_long_ago, 0);
            throttle.spend(in_use, 0);
        }
        for id in 3..=2 * BUCKETS_MAX as u32 {
            throttle.spend(Key::ChangePassword(user(id)), 1);
            throttle.spend(in_use, 1);
        }
        assert_eq!(throttle.len(), BUCKETS_MAX);
        assert_eq!(throttle.check(spent_long_ago, 1), Ok(()));
        assert!(throttle.check(in_use, 1).is_err());
        // The flood did not affect another kind.
        throttle.spend(anna("192.0.2.1"), 1);
        assert_eq!(throttle.len(), BUCKETS_MAX + 1);
    }

    #[test]
    fn full_buckets_are_forgotten_as_others_come() {
        let mut throttle = throttle();
        for id in 1..=1000 {
            throttle.spend(Key::ChangePassword(user(id)), 0);
        }
        for id in 1001..=2000 {
            throttle.spend(Key::ChangePassword(user(id)), 1_000_000 + u64::from(id) * 20_000);
        }
        assert!(throttle.len() < 5, "{}", throttle.len());
    }

    #[test]
    fn a_huge_login_costs_sixteen_bytes() {
        let mut throttle = throttle();
        let login = "x".repeat(60_000);
        throttle.spend(Key::Login(&login, origin("192.0.2.1")), 0);
        assert_eq!(size_of::<Hash>(), 16);
        assert_eq!(throttle.len(), 1);
        assert_eq!(throttle.check(Key::Login(&login, origin("192.0.2.2")), 0), Ok(()));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let mut throttle = throttle();
        for _ in 0..6 {
            throttle.spend(anna("192.0.2.1"), u64::MAX);
        }
        assert_eq!(throttle.check(anna("192.0.2.1"), u64::MAX), Ok(()));
    }
}
