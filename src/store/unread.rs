//! The newest messages of a chat: when the last came, and how many of others somebody has not seen.

use std::collections::HashMap;

use super::{Store, StoreResult, time};
use crate::ids::{ChatId, ServerTime, UserId};

/// Unread messages are counted up to this (protocol section 5).
pub const UNREAD_MAX: u32 = 1000;

/// Messages that are looked at to count the unread ones: so many of one's own or deleted ones at
/// the end of a chat hide what is before them.
const LOOKED_AT_MAX: i64 = 10_000;

/// Messages that are looked at to find floors.
const FLOOR_ROWS_MAX: i64 = 4_096;

/// Who has not seen what came at a floor or later has [`UNREAD_MAX`] unread messages and some to
/// spare. More messages leave that true.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floors {
    /// The floor of everybody but the busiest sender; zero when there is none.
    pub of_others: ServerTime,
    /// Who sent most of it.
    pub busiest: Option<UserId>,
    /// That one's own floor; zero when there is none.
    pub of_busiest: ServerTime,
}

impl Floors {
    /// The floor of one user.
    pub fn of(&self, user: UserId) -> ServerTime {
        if self.busiest == Some(user) { self.of_busiest } else { self.of_others }
    }
}

/// A walk from the newest message to older ones, until both floors are found.
#[derive(Default)]
struct Walk {
    counts: HashMap<i64, u32>,
    total: u32,
    /// The highest count, and the second highest.
    most: (i64, u32),
    second: u32,
    floors: Floors,
}

impl Walk {
    /// One more message; false when no more is needed.
    fn step(&mut self, at: ServerTime, sender: i64, wanted: u32) -> bool {
        let count = self.counts.entry(sender).or_default();
        *count += 1;
        let count = *count;
        self.total += 1;
        if let Some(busiest) = self.floors.busiest {
            let own = self.counts.get(&busiest.row()).copied().unwrap_or_default();
            if self.total - own >= wanted {
                self.floors.of_busiest = at;
                return false;
            }
            return true;
        }
        if sender == self.most.0 {
            self.most.1 = count;
        } else if count > self.most.1 {
            self.second = self.most.1;
            self.most = (sender, count);
        } else {
            self.second = self.second.max(count);
        }
        if self.total - self.second >= wanted {
            self.floors.of_others = at;
            self.floors.busiest = UserId::from_row(self.most.0);
            if self.total - self.most.1 >= wanted {
                self.floors.of_busiest = at;
                return false;
            }
        }
        true
    }
}

impl Store<'_> {
    /// When the newest message of a chat was created; zero when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_message(&mut self, chat: ChatId) -> StoreResult<ServerTime> {
        let sql = "SELECT max(message_id) FROM messages WHERE chat_id = ?1";
        let newest = self.get(sql, [chat.row()], |row| row.get::<_, Option<i64>>(0))?;
        Ok(newest.flatten().and_then(ServerTime::new).unwrap_or_default())
    }

    /// Messages of others, not deleted, created after `seen`, counted up to [`UNREAD_MAX`] among
    /// the newest; and how many messages were looked at.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn unread(
        &mut self,
        chat: ChatId,
        user: UserId,
        seen: ServerTime,
    ) -> StoreResult<(u32, u32)> {
        let sql = "SELECT sender_id, status FROM messages WHERE chat_id = ?1 AND message_id > ?2
                   ORDER BY message_id DESC LIMIT ?3";
        let (mut unread, mut looked_at) = (0, 0);
        self.each(sql, (chat.row(), seen.micros(), LOOKED_AT_MAX), |row| {
            looked_at += 1;
            if row.get::<_, i64>(0)? != user.row() && row.get::<_, u8>(1)? & 2 == 0 {
                unread += 1;
            }
            Ok(unread < UNREAD_MAX)
        })?;
        Ok((unread, looked_at))
    }

    /// The floors of a chat, true even after `spare` deletions.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn unread_floors(&mut self, chat: ChatId, spare: u32) -> StoreResult<Floors> {
        let sql = "SELECT message_id, sender_id, status FROM messages WHERE chat_id = ?1
                   ORDER BY message_id DESC LIMIT ?2";
        let mut walk = Walk::default();
        self.each(sql, (chat.row(), FLOOR_ROWS_MAX), |row| {
            let is_deleted = row.get::<_, u8>(2)? & 2 != 0;
            Ok(is_deleted || walk.step(time(row, 0)?, row.get(1)?, UNREAD_MAX + spare))
        })?;
        Ok(walk.floors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MessageId;
    use crate::store::Database;

    fn at(micros: i64) -> ServerTime {
        ServerTime::new(micros).expect("positive")
    }

    fn user(id: u32) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn chat() -> ChatId {
        ChatId::new(7).expect("not 0")
    }

    /// Messages at 1, 2, … by these.
    fn with_senders(senders: impl Iterator<Item = u32>, test: impl FnOnce(&mut Store<'_>, i64)) {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let mut count = 0;
        for sender in senders {
            count += 1;
            let id = MessageId::at(at(count));
            store.add_message(chat(), id, user(sender), "x").expect("stored");
        }
        test(&mut store, count);
    }

    #[test]
    fn unread_are_those_of_others_after_the_marker() {
        with_senders([1, 1, 2, 1, 3, 2].into_iter(), |store, _| {
            assert_eq!(store.last_message(chat()), Ok(at(6)));
            assert_eq!(store.unread(chat(), user(1), at(0)), Ok((3, 6)));
            assert_eq!(store.unread(chat(), user(2), at(2)), Ok((2, 4)));
            assert_eq!(store.unread(chat(), user(2), at(6)), Ok((0, 0)));
            store.delete_message(chat(), MessageId::at(at(5)), at(7)).expect("stored");
            assert_eq!(store.unread(chat(), user(1), at(0)), Ok((2, 6)));
        });
        with_senders((0..3000).map(|n| 1 + n % 2), |store, _| {
            assert_eq!(store.unread(chat(), user(1), at(5)), Ok((1000, 1999)));
        });
    }

    /// For each user and marker: below the floor there are enough unread messages, to the spare.
    fn check_floors(store: &mut Store<'_>, count: i64, senders: u32, spare: u32) -> Floors {
        let floors = store.unread_floors(chat(), spare).expect("read");
        for sender in 1..=senders + 1 {
            let floor = floors.of(user(sender));
            let sql = "SELECT count(*) FROM messages WHERE message_id >= ?1 AND sender_id <> ?2";
            let unread: i64 = store
                .get(sql, (floor.micros(), user(sender).row()), |row| row.get(0))
                .expect("read")
                .expect("a row");
            let is_there = floor > ServerTime::ZERO;
            assert!(!is_there || unread >= i64::from(UNREAD_MAX + spare), "{sender}: {floors:?}");
            assert!(floor <= at(count));
        }
        floors
    }

    #[test]
    fn below_the_floor_there_is_more_than_is_counted() {
        // Everybody alike.
        with_senders((0..4000).map(|n| 1 + n % 5), |store, count| {
            let floors = check_floors(store, count, 5, 50);
            assert!(floors.of_others > at(2500) && floors.of_busiest > at(2500), "{floors:?}");
        });
        // One sends nearly all.
        with_senders((0..4000).map(|n| if n % 3 == 0 { 2 } else { 1 }), |store, count| {
            let floors = check_floors(store, count, 2, 50);
            assert_eq!(floors.busiest, Some(user(1)));
            assert!(floors.of_others > at(2000));
            assert!((at(1)..at(1000)).contains(&floors.of_busiest), "{floors:?}");
        });
        // One alone: the others have plenty, and that one nothing.
        with_senders((0..2000).map(|_| 3), |store, count| {
            let floors = check_floors(store, count, 3, 50);
            assert_eq!(floors.of(user(3)), ServerTime::ZERO);
            assert_eq!(floors.of(user(1)), at(951));
        });
        // Too few.
        with_senders((0..1000).map(|n| 1 + n % 5), |store, count| {
            assert_eq!(check_floors(store, count, 5, 50), Floors::default());
        });
        // Who was behind comes to the front.
        with_senders((0..3000).map(|n| if n < 1500 { 1 } else { 2 }), |store, count| {
            check_floors(store, count, 2, 0);
        });
    }
}
