//! Purges: deleting all messages of a user in slices, by the server or, when none runs, by the
//! command.

use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, MessageId, ServerTime, UserId};

/// Messages scanned in one slice.
const ROWS_PER_SLICE: usize = 4_000;
/// Chats scanned in one slice.
const CHATS_PER_SLICE: usize = 100;

/// A purge, and its progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purge {
    number: i64,
    /// The user whose messages are deleted.
    pub user: UserId,
    /// Messages created up to this time are deleted.
    upto: ServerTime,
    /// Chats before this row id are done.
    chat: i64,
    /// Messages of the chat up to this time are done.
    at: ServerTime,
}

/// A message to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its chat.
    pub chat: ChatId,
    /// Its id.
    pub message: MessageId,
    /// Its present status.
    pub status: u8,
}

impl Store<'_> {
    /// Requests that the messages of a user created up to a time be deleted.
    ///
    /// # Errors
    /// As every write.
    pub fn add_purge(&mut self, user: UserId, upto: ServerTime) -> StoreResult<()> {
        let sql = "INSERT INTO purges (user_id, upto) VALUES (?1, ?2)";
        self.run(sql, (user.row(), upto.micros())).map(drop)
    }

    /// The oldest purge.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn next_purge(&mut self) -> StoreResult<Option<Purge>> {
        let sql = "SELECT purge_id, user_id, upto, chat_id, at FROM purges
                   ORDER BY purge_id LIMIT 1";
        self.get(sql, [], |row| {
            Ok(Purge {
                number: row.get(0)?,
                user: id(UserId::from_row, 1, row.get(1)?)?,
                upto: time(row, 2)?,
                chat: row.get(3)?,
                at: time(row, 4)?,
            })
        })
    }

    /// The next messages of a purge, at most `limit`, which the caller must delete in the same
    /// transaction. Stores the progress; removes the purge at its end.
    ///
    /// # Errors
    /// As every write.
    pub fn purge_slice(&mut self, mut purge: Purge, limit: u32) -> StoreResult<Vec<Found>> {
        let mut found = Vec::new();
        let mut rows_left = ROWS_PER_SLICE;
        for _ in 0..CHATS_PER_SLICE {
            let sql = "SELECT chat_id FROM chats WHERE chat_id >= ?1 ORDER BY chat_id LIMIT 1";
            let next = self.get(sql, [purge.chat], |row| id(ChatId::from_row, 0, row.get(0)?))?;
            let Some(chat) = next else {
                self.run("DELETE FROM purges WHERE purge_id = ?1", [purge.number])?;
                return Ok(found);
            };
            if chat.row() != purge.chat {
                (purge.chat, purge.at) = (chat.row(), ServerTime::ZERO);
            }
            if !self.purge_chat(&mut purge, chat, &mut rows_left, limit as usize, &mut found)? {
                break;
            }
            (purge.chat, purge.at) = (purge.chat + 1, ServerTime::ZERO);
        }
        let sql = "UPDATE purges SET chat_id = ?2, at = ?3 WHERE purge_id = ?1";
        self.run(sql, (purge.number, purge.chat, purge.at.micros()))?;
        Ok(found)
    }

    /// Continues in one chat. False when the slice ends before the chat does.
    fn purge_chat(
        &mut self,
        purge: &mut Purge,
        chat: ChatId,
        rows_left: &mut usize,
        limit: usize,
        found: &mut Vec<Found>,
    ) -> StoreResult<bool> {
        let sql = "SELECT message_id, sender_id, status FROM messages
                   WHERE chat_id = ?1 AND message_id > ?2 AND message_id <= ?3
                   ORDER BY message_id";
        let mut is_whole = true;
        self.each(sql, (chat.row(), purge.at.micros(), purge.upto.micros()), |row| {
            is_whole = *rows_left > 0 && found.len() < limit;
            if is_whole {
                *rows_left -= 1;
                purge.at = time(row, 0)?;
                let (sender, status): (i64, u8) = (row.get(1)?, row.get(2)?);
                if sender == purge.user.row() && status & 2 == 0 {
                    let status = status & super::extras::WIRE_STATUS;
                    found.push(Found { chat, message: MessageId::at(purge.at), status });
                }
            }
            Ok(is_whole)
        })?;
        Ok(is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;
    use crate::store::messages::tests::at;

    #[test]
    fn all_messages_of_a_user_are_found_once() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let user = |id| UserId::new(id).expect("not 0");
        for name in 0..250 {
            let name = format!("chat{name}");
            store.add_chat(&name, &name, None, at(1)).expect("stored");
        }
        let mut expected = Vec::new();
        for n in 1..=9000 {
            // Most in one chat, the others in many; a sixth by the purged user.
            let chat = ChatId::new(if n % 3 == 0 { 1 + n as u32 % 250 } else { 7 });
            let chat = chat.expect("not 0");
            let sender = if n % 6 == 1 || n % 3 == 0 && n % 7 == 1 { 5 } else { 6 };
            let id = MessageId::at(at(n));
            store.add_message(chat, id, user(sender), "x").expect("stored");
            if sender == 5 && n <= 8000 {
                expected.push((chat, id));
            }
        }
        let (chat, gone) = expected.remove(0);
        store.delete_message(chat, gone, at(9001)).expect("stored");
        store.add_purge(user(5), at(8000)).expect("stored");
        store.add_purge(user(8), at(8000)).expect("stored");
        let mut found = Vec::new();
        let mut slices = 0;
        while let Some(purge) = store.next_purge().expect("read") {
            let list = store.purge_slice(purge, 50).expect("found");
            assert!(list.len() <= 50);
            found.extend(list.iter().map(|found| (found.chat, found.message)));
            slices += 1;
        }
        assert!(slices > 30, "{slices}");
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
