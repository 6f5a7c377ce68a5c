//! Imports of chats from another database: messages keep their ids and times.
//!
//! An import fills a chat without a name, which nobody can find, in many transactions alongside a
//! running server, and names it at the end. Until then, [`Store::unnamed_chats`] lists it.

use super::sweep::Orphan;
use super::{Store, StoreResult, checksum, id, time};
use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::wire::codec::Message;

impl Store<'_> {
    /// Adds a group without a name. Its password is one that nobody knows.
    ///
    /// # Errors
    /// As every write.
    pub fn add_unnamed_chat(&mut self, password: &str, created: ServerTime) -> StoreResult<ChatId> {
        let sql = "INSERT INTO chats (kind, password, created) VALUES (0, ?1, ?2)";
        let row = self.insert(sql, (password, created.micros()))?;
        Ok(id(ChatId::from_row, 0, row)?)
    }

    /// Turns a group without a name into the direct chat of two users, who have none.
    ///
    /// # Errors
    /// As every write.
    pub fn make_direct(&mut self, chat: ChatId, one: UserId, other: UserId) -> StoreResult<()> {
        let sql = "UPDATE chats SET kind = 1, password = NULL, user_low = ?2, user_high = ?3
                   WHERE chat_id = ?1";
        self.run(sql, (chat.row(), one.min(other).row(), one.max(other).row())).map(drop)
    }

    /// Groups without a name: of imports in progress, or killed ones.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unnamed_chats(&mut self) -> StoreResult<Vec<ChatId>> {
        let sql = "SELECT chat_id FROM chats WHERE kind = 0 AND name_key IS NULL";
        self.all(sql, [], |row| id(ChatId::from_row, 0, row.get(0)?))
    }

    /// Whether there are messages of removed chats, or words of theirs in the index.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_unswept(&mut self) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM search_pending
                   WHERE chat_id NOT IN (SELECT chat_id FROM chats) LIMIT 1";
        let has_words = self.get(sql, [], |_| Ok(()))?.is_some();
        Ok(has_words || self.orphan_chat("messages", 0, u32::MAX)? != Orphan::Nowhere)
    }

    /// Stores a message copied from another database.
    ///
    /// # Errors
    /// As every write.
    pub fn add_old_message(&mut self, chat: ChatId, old: &Message<'_>) -> StoreResult<()> {
        let updated = (old.updated != old.created).then(|| old.updated.micros());
        let row = (chat.row(), old.created.micros(), old.sender.row());
        let checksum = checksum::of(row.0, row.1, row.2, old.status, old.content.as_bytes());
        self.run(
            "INSERT INTO messages
                 (chat_id, message_id, sender_id, updated, status, content, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (row.0, row.1, row.2, updated, old.status, old.content, checksum),
        )?;
        // They arrive in order, so each is the newest.
        let sql = "UPDATE chats SET message_count = message_count + 1, last_message = ?2
                   WHERE chat_id = ?1";
        self.run(sql, (chat.row(), old.created.micros())).map(drop)
    }

    /// A message of any chat with one of these ascending ids. Walks over all messages between the
    /// first and the last id, and over the index, which may still contain messages of removed
    /// chats.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn any_of(&mut self, ids: &[MessageId]) -> StoreResult<Option<(ChatId, MessageId)>> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(None) };
        let (first, last) = (first.created().micros(), last.created().micros());
        let sql = "SELECT message_id FROM messages WHERE chat_id = ?1
                   AND message_id BETWEEN ?2 AND ?3";
        let mut found = None;
        let mut after = None;
        while let Some(&chat) = self.chat_ids(after, 1)?.first() {
            self.each(sql, (chat.row(), first, last), |row| {
                let message = MessageId::at(time(row, 0)?);
                if ids.binary_search(&message).is_ok() {
                    found = Some((chat, message));
                }
                Ok(found.is_none())
            })?;
            if found.is_some() {
                break;
            }
            after = Some(chat);
        }
        let sql = "SELECT message_id, chat_id FROM search_rows WHERE message_id BETWEEN ?1 AND ?2";
        if found.is_some() {
            return Ok(found);
        }
        self.each(sql, (first, last), |row| {
            let message = MessageId::at(time(row, 0)?);
            if ids.binary_search(&message).is_ok() {
                found = Some((id(ChatId::from_row, 1, row.get(1)?)?, message));
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    /// Passes all messages of a chat, in order, to `each` until it returns false.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all_messages(
        &mut self,
        chat: ChatId,
        each: impl FnMut(&Message<'_>) -> bool,
    ) -> StoreResult<()> {
        let last = MessageId::at(ServerTime::MAX);
        self.messages_by_id(chat, MessageId::at(ServerTime::ZERO), last, each).map(drop)
    }

    /// Begins a read transaction: it sees nothing that others write until the next commit.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn begin_look(&mut self) -> StoreResult<()> {
        self.begin_read()?;
        // SQLite takes the snapshot with the first statement that reads.
        self.server_time().map(drop)
    }

    /// The id of the user with this nickname key, if there is one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn user_id_by_key(&mut self, key: &str) -> StoreResult<Option<UserId>> {
        let sql = "SELECT user_id FROM users WHERE name_key = ?1";
        self.get(sql, [key], |row| id(UserId::from_row, 0, row.get(0)?))
    }
}
