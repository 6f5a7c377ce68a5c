//! Counts of unread messages, stored in the rows of chats and members.
//!
//! A chat counts all messages it ever had; a member counts those that are not unread for them:
//! messages up to the read marker, and their own. The difference is the number of unread ones. So a
//! message of another user changes no member, and an own one changes a single number. Both are
//! updated in the background, by [`Sent`]; its owner knows the rest. A deletion
//! invalidates the counts of members who had not read so far.

use std::collections::BTreeMap;

use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, ServerTime, UserId};

/// Unread messages are counted up to this (protocol section 5).
pub const UNREAD_MAX: u32 = 1000;

/// Messages scanned to count the unread ones. If this many own or deleted messages are at the end
/// of a chat, those before them are not counted.
pub const ROWS_SCANNED_MAX: u32 = 10_000;

/// The counts of a chat's messages for one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Time of the newest counted message; zero when there is none.
    pub last: ServerTime,
    /// Messages up to there that the member has not read; `None`: not counted.
    pub unread: Option<i64>,
}

/// Messages of one chat that the database has not counted yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Their number.
    pub count: u32,
    /// Time of the newest one; zero when it was removed.
    pub last: ServerTime,
    /// Their number per sender.
    pub by: BTreeMap<UserId, u32>,
}

impl Sent {
    /// Adds a message.
    pub fn add(&mut self, sender: UserId, created: ServerTime) {
        self.count += 1;
        self.last = created;
        *self.by.entry(sender).or_default() += 1;
    }
}

impl Store<'_> {
    /// Time of the newest message of a chat; zero when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_message(&mut self, chat: ChatId) -> StoreResult<ServerTime> {
        let sql = "SELECT max(message_id) FROM messages WHERE chat_id = ?1";
        let newest = self.get(sql, [chat.row()], |row| row.get::<_, Option<i64>>(0))?;
        Ok(newest.flatten().and_then(ServerTime::new).unwrap_or_default())
    }

    /// Messages of other users, not deleted, created after `seen`, counted up to [`UNREAD_MAX`]
    /// from the newest; and how many messages were scanned.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unread(
        &mut self,
        chat: ChatId,
        user: UserId,
        seen: ServerTime,
    ) -> StoreResult<(u32, u32)> {
        let sql = "SELECT sender_id, status FROM messages WHERE chat_id = ?1 AND message_id > ?2
                   ORDER BY message_id DESC LIMIT ?3";
        let (mut unread, mut scanned) = (0, 0);
        self.each(sql, (chat.row(), seen.micros(), ROWS_SCANNED_MAX), |row| {
            scanned += 1;
            if row.get::<_, i64>(0)? != user.row() && row.get::<_, u8>(1)? & 2 == 0 {
                unread += 1;
            }
            Ok(unread < UNREAD_MAX)
        })?;
        Ok((unread, scanned))
    }

    /// The oldest uncounted messages of a chat, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn uncounted(&mut self, chat: ChatId, limit: u32) -> StoreResult<Sent> {
        let sql = "SELECT message_id, sender_id FROM messages WHERE chat_id = ?1
                   AND message_id > (SELECT last_message FROM chats WHERE chat_id = ?1)
                   ORDER BY message_id LIMIT ?2";
        let mut found = Sent::default();
        self.each(sql, (chat.row(), limit), |row| {
            found.add(id(UserId::from_row, 1, row.get(1)?)?, time(row, 0)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Counts the messages of a chat that follow the counted ones.
    ///
    /// # Errors
    /// As every write.
    pub fn count_sent(&mut self, chat: ChatId, sent: &Sent) -> StoreResult<()> {
        let sql = "UPDATE chats SET message_count = message_count + ?2,
                   last_message = CASE ?3 WHEN 0 THEN last_message ELSE ?3 END WHERE chat_id = ?1";
        self.run(sql, (chat.row(), sent.count, sent.last.micros()))?;
        for (user, count) in &sent.by {
            let sql = "UPDATE members SET known_count = known_count + ?3
                       WHERE chat_id = ?1 AND user_id = ?2 AND known_count IS NOT NULL";
            self.run(sql, (chat.row(), user.row(), count))?;
        }
        Ok(())
    }

    /// Stores how many messages a member has not read; all messages of the chat must be counted.
    ///
    /// # Errors
    /// As every write.
    pub fn set_unread(&mut self, chat: ChatId, user: UserId, unread: u32) -> StoreResult<()> {
        let sql = "UPDATE members SET (known_count, deletions) =
                       (SELECT message_count - ?3, deletions FROM chats WHERE chat_id = ?1)
                   WHERE chat_id = ?1 AND user_id = ?2";
        self.run(sql, (chat.row(), user.row(), unread)).map(drop)
    }

    /// A message was deleted, or removed together with all before it.
    pub(super) fn note_deletion(&mut self, chat: ChatId, message: ServerTime) -> StoreResult<()> {
        let sql = "UPDATE chats SET deletions = deletions + 1, last_deleted = max(last_deleted, ?2)
                   WHERE chat_id = ?1";
        self.run(sql, (chat.row(), message.micros())).map(drop)
    }

    /// The server time up to which all messages of all chats were counted at a graceful shutdown.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn counted_upto(&mut self) -> StoreResult<ServerTime> {
        Ok(self.meta("counted_upto")?.and_then(ServerTime::new).unwrap_or_default())
    }

    /// Stores that all messages of all chats up to a time are counted.
    ///
    /// # Errors
    /// As every write.
    pub fn set_counted_upto(&mut self, upto: ServerTime) -> StoreResult<()> {
        self.set_meta("counted_upto", upto.micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MessageId;
    use crate::store::Database;
    use crate::store::members::Member;
    use crate::store::messages::tests::at;

    fn user(id: u32) -> UserId {
        UserId::new(id).expect("not 0")
    }

    /// A chat with three members and messages at times 1, 2, … by these senders.
    fn with_senders(senders: &[u32], test: impl FnOnce(&mut Store<'_>, ChatId)) {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let chat = store.add_chat("hall", "hall", None, at(1)).expect("stored").expect("free");
        for id in 1..=3 {
            let name = format!("user{id}");
            let user = store.add_user(&name, &name, "", at(1)).expect("stored").expect("free");
            let (joined, seen) = (at(1), at(0));
            store.add_member(Member { chat, user, admin: false, joined, seen }).expect("stored");
        }
        for (sender, created) in senders.iter().zip(1..) {
            let id = MessageId::at(at(created));
            store.add_message(chat, id, user(*sender), "x").expect("stored");
        }
        test(&mut store, chat);
    }

    fn counted(store: &mut Store<'_>, chat: ChatId, id: u32) -> (i64, Option<i64>) {
        let mine = store.my_chat(user(id), chat).expect("read").expect("a member");
        (mine.counted.last.micros(), mine.counted.unread)
    }

    fn count_all(store: &mut Store<'_>, chat: ChatId) {
        let sent = store.uncounted(chat, 100).expect("read");
        store.count_sent(chat, &sent).expect("stored");
    }

    #[test]
    fn unread_are_those_of_others_after_the_marker() {
        with_senders(&[1, 1, 2, 1, 3, 2], |store, chat| {
            assert_eq!(store.last_message(chat), Ok(at(6)));
            assert_eq!(store.unread(chat, user(1), at(0)), Ok((3, 6)));
            assert_eq!(store.unread(chat, user(2), at(2)), Ok((2, 4)));
            assert_eq!(store.unread(chat, user(2), at(6)), Ok((0, 0)));
            store.delete_message(chat, MessageId::at(at(5)), at(7)).expect("stored");
            assert_eq!(store.unread(chat, user(1), at(0)), Ok((2, 6)));
        });
        let many: Vec<u32> = (0..3000).map(|n| 1 + n % 2).collect();
        with_senders(&many, |store, chat| {
            assert_eq!(store.unread(chat, user(1), at(5)), Ok((1000, 1999)));
        });
    }

    #[test]
    fn numbers_follow_what_is_sent() {
        with_senders(&[1, 1, 2, 1, 3, 2], |store, chat| {
            let first = store.uncounted(chat, 4).expect("read");
            assert_eq!((first.count, first.last, first.by[&user(1)]), (4, at(4), 3));
            store.count_sent(chat, &first).expect("stored");
            assert_eq!(counted(store, chat, 1), (4, None), "nobody has counted what is unread");
            count_all(store, chat);
            store.set_unread(chat, user(1), 3).expect("stored");
            store.set_unread(chat, user(2), 4).expect("stored");
            let mut more = Sent::default();
            more.add(user(1), at(7));
            more.add(user(3), at(8));
            store.count_sent(chat, &more).expect("stored");
            assert_eq!(counted(store, chat, 1), (8, Some(4)));
            assert_eq!(counted(store, chat, 2), (8, Some(6)));
            assert_eq!(counted(store, chat, 3), (8, None));
            store.set_seen(chat, user(2), at(3)).expect("stored");
            assert_eq!(counted(store, chat, 2), (8, None), "the marker has moved");
        });
    }

    #[test]
    fn a_deletion_touches_who_had_not_read_so_far() {
        with_senders(&[3; 6], |store, chat| {
            count_all(store, chat);
            store.set_seen(chat, user(1), at(4)).expect("stored");
            for id in [1, 2] {
                let mine = store.my_chat(user(id), chat).expect("read").expect("a member");
                let (unread, _) = store.unread(chat, user(id), mine.seen).expect("read");
                store.set_unread(chat, user(id), unread).expect("stored");
            }
            store.delete_message(chat, MessageId::at(at(4)), at(9)).expect("stored");
            assert_eq!(counted(store, chat, 1), (6, Some(2)));
            assert_eq!(counted(store, chat, 2), (6, None));
            store.set_unread(chat, user(2), 5).expect("stored");
            assert_eq!(counted(store, chat, 2), (6, Some(5)));
            store.delete_message(chat, MessageId::at(at(5)), at(10)).expect("stored");
            assert_eq!(counted(store, chat, 1), (6, None));
        });
    }

    #[test]
    fn the_newest_may_go_for_its_age() {
        const DAY_US: i64 = 86_400_000_000;
        with_senders(&[3; 6], |store, chat| {
            count_all(store, chat);
            store.set_chat_policy(chat, 0, 1).expect("stored");
            let now = at(DAY_US + 4);
            assert_eq!(store.expire_messages(now, 10), Ok(Some((chat, at(3)))));
            assert_eq!(counted(store, chat, 1), (6, None));
            let now = at(DAY_US + 100);
            assert_eq!(store.expire_messages(now, 10), Ok(Some((chat, at(6)))));
            assert_eq!(counted(store, chat, 1), (0, None));
            store.add_message(chat, MessageId::at(at(50)), user(3), "x").expect("stored");
            count_all(store, chat);
            assert_eq!(counted(store, chat, 1), (50, None));
            store.set_unread(chat, user(1), 1).expect("stored");
            assert_eq!(counted(store, chat, 1), (50, Some(1)));
        });
    }
}
