//! The line of those who wait for the password helper.
//!
//! A guess is let through only when its buckets would hold even if it and all guesses under way
//! for the same key failed. So guesses sent at once get no further than guesses sent one after the
//! other, right passwords cost nothing however many are sent at once, and people who have nothing
//! to do with each other do not wait for each other's turn of the loop. Nor does anybody fill the
//! line alone: right passwords, and new ones, cost the helper as much as wrong ones.

use std::collections::VecDeque;

use crate::auth::helper::{Job, JobId};
use crate::auth::throttle::{Key, Origin, SecondsToWait, Throttle};
use crate::ids::{ChatId, UserId};
use crate::limits::{
    PASSWORD_QUEUE_MAX, PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX, PASSWORD_QUEUE_ROUNDS_MAX,
    PASSWORD_QUEUE_USER_ROUNDS_MAX, PASSWORDS_UNDER_WAY_MAX,
};

/// What a piece of password work is a guess at.
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
    /// A new password is hashed.
    Nothing,
}

impl Guess {
    /// The buckets that a failure is taken from.
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

/// Whose share of the line a job is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    User(UserId),
    /// Somebody without a session.
    Stranger(Origin),
}

impl Owner {
    /// PBKDF2 rounds that may wait.
    fn share(self) -> u64 {
        match self {
            Self::User(_) => PASSWORD_QUEUE_USER_ROUNDS_MAX,
            Self::Stranger(_) => PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX,
        }
    }
}

struct Place {
    job: Job,
    owner: Owner,
    guess: Guess,
    rounds: u32,
}

/// Who is next.
pub(super) enum Next {
    /// This job can be handed over.
    Ready(Job),
    /// This one has failed too often by now.
    Refused(JobId, SecondsToWait),
    /// Nobody waits for this one any more.
    Unwanted(JobId),
    /// Nobody, for now.
    Nobody,
}

/// The line, and who is with the helper.
#[derive(Default)]
pub(super) struct PasswordQueue {
    waiting: VecDeque<Place>,
    under_way: Vec<(JobId, Guess)>,
    /// PBKDF2 rounds of all that wait: the time that they will take.
    rounds: u64,
}

impl PasswordQueue {
    /// Whether one more of this owner may wait.
    pub(super) fn has_room(&self, owner: Owner) -> bool {
        let own = self.waiting.iter().filter(|place| place.owner == owner);
        let own_rounds: u64 = own.map(|place| u64::from(place.rounds)).sum();
        self.waiting.len() < PASSWORD_QUEUE_MAX
            && self.rounds < PASSWORD_QUEUE_ROUNDS_MAX
            && own_rounds < owner.share()
    }

    pub(super) fn push(&mut self, job: Job, owner: Owner, guess: Guess, rounds: u32) {
        self.rounds += u64::from(rounds);
        self.waiting.push_back(Place { job, owner, guess, rounds });
    }

    /// A job has come back: what it was a guess at.
    pub(super) fn done(&mut self, job: JobId) -> Option<Guess> {
        let place = self.under_way.iter().position(|(other, _)| *other == job)?;
        Some(self.under_way.swap_remove(place).1)
    }

    /// Forgets those who wait.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.rounds = 0;
    }

    /// Takes the next out of the line. `is_wanted`: whether anybody still waits for a job.
    pub(super) fn next(
        &mut self,
        throttle: &Throttle,
        now_ms: u64,
        is_wanted: impl Fn(JobId) -> bool,
    ) -> Next {
        let Some(place) = self.waiting.front() else { return Next::Nobody };
        let wanted = is_wanted(place.job.id);
        if wanted && self.under_way.len() >= PASSWORDS_UNDER_WAY_MAX {
            return Next::Nobody;
        }
        let refusal = place.guess.keys().find_map(|key| throttle.check(key, now_ms).err());
        let is_free = place.guess.keys().all(|key| {
            let same = |other: &Guess| other.keys().any(|other| other == key);
            let beside = self.under_way.iter().filter(|(_, other)| same(other)).count();
            throttle.check_beside(key, beside as u32, now_ms).is_ok()
        });
        if wanted && refusal.is_none() && !is_free {
            // How those under way come out decides.
            return Next::Nobody;
        }
        let Some(place) = self.waiting.pop_front() else { return Next::Nobody };
        self.rounds -= u64::from(place.rounds);
        match refusal {
            _ if !wanted => Next::Unwanted(place.job.id),
            Some(seconds) => Next::Refused(place.job.id, seconds),
            None => {
                self.under_way.push((place.job.id, place.guess));
                Next::Ready(place.job)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::auth::helper::Work;
    use crate::auth::password::{self, Kind};
    use crate::limits::PASSWORD_ITERATIONS;

    fn push(line: &mut PasswordQueue, owner: Owner, number: u64) {
        let password = password::prepare("correct horse", Kind::User).expect("long enough");
        let work = Work::Hash { password, rounds: PASSWORD_ITERATIONS };
        line.push(Job { id: JobId(number), work }, owner, Guess::Nothing, PASSWORD_ITERATIONS);
    }

    /// A user, or an address, uses up a share of their own, and it comes again as the helper goes on.
    #[test]
    fn nobody_fills_the_line_alone() {
        let user = |id| Owner::User(UserId::new(id).expect("not 0"));
        let address = |last| Owner::Stranger(Origin::of(Ipv4Addr::new(192, 0, 2, last).into()));
        let throttle = Throttle::new(&[7; 32]);
        let mut line = PasswordQueue::default();
        let mut number = 0;
        for (owner, share) in [(user(1), 8), (address(1), 64)] {
            for _ in 0..share {
                assert!(line.has_room(owner));
                push(&mut line, owner, number);
                number += 1;
            }
            assert!(!line.has_room(owner));
            assert!(line.has_room(user(2)) && line.has_room(address(2)));
        }
        assert!(matches!(line.next(&throttle, 0, |_| true), Next::Ready(Job { id: JobId(0), .. })));
        assert!(line.has_room(user(1)) && !line.has_room(address(1)));
        // All together, however many they are.
        for id in 10.. {
            if !line.has_room(user(id)) {
                break;
            }
            push(&mut line, user(id), number);
            number += 1;
        }
        assert_eq!(line.rounds, PASSWORD_QUEUE_ROUNDS_MAX);
    }
}
