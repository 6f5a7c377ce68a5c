//! Replies and reactions, and reading all extras of a message, files included, as the wire encodes
//! them.
//!
//! Bits of a message's status say which other tables have rows for it, so a message without extras
//! costs no further lookup.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Store, StoreResult, bytes, error, id, time};
use crate::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use crate::limits::{EMOJI_PER_MESSAGE_MAX, REACTION_USERS_SHOWN};
use crate::wire::codec::{STATUS_DELETED, STATUS_EDITED};
use crate::wire::extras::{self, FileInfo};

/// Status bits that are sent on the wire.
pub(super) const WIRE_STATUS: u8 = STATUS_EDITED | STATUS_DELETED;
/// Status bit of a message with a row of `replies`.
pub(super) const HAS_REPLY: u8 = 0x10;
/// Status bit of a message with rows of `files`.
pub(super) const HAS_FILES: u8 = 0x20;
/// Status bit of a message with rows of `emoji` and `reactions`.
pub(super) const HAS_REACTIONS: u8 = 0x40;
/// Status bits of a message that has extras.
pub(super) const HAS_EXTRAS: u8 = HAS_REPLY | HAS_FILES | HAS_REACTIONS;

/// The result of a reaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reacted {
    /// It was already as requested.
    Unchanged,
    /// The message has the maximum of different emoji.
    TooMany,
    /// The reaction was added or removed.
    Changed {
        /// Another user becomes visible, whom clients that have the message do not know about.
        shows_another: bool,
    },
}

/// One reaction, as GET_REACTIONS lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReactionRow {
    /// When it was given; unique.
    pub given: ServerTime,
    /// The user.
    pub user: UserId,
    /// The emoji.
    pub emoji: String,
}

/// A reaction copied from another database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OldReaction {
    /// The message.
    pub message: MessageId,
    /// The user.
    pub user: UserId,
    /// The emoji.
    pub emoji: String,
    /// When the emoji was first given to the message.
    pub since: ServerTime,
    /// When this user gave it.
    pub given: ServerTime,
}

/// Appends the extras of a message, as its status requires.
pub(super) fn read(
    db: &Connection,
    chat: i64,
    message: MessageId,
    status: u8,
    out: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    let key = (chat, message.created().micros());
    if status & HAS_REPLY != 0 {
        let sql = "SELECT reply_to FROM replies WHERE chat_id = ?1 AND message_id = ?2";
        let reply_to = db.prepare_cached(sql)?.query_row(key, |row| time(row, 0)).optional()?;
        if let Some(reply_to) = reply_to {
            extras::put_reply(out, MessageId::at(reply_to));
        }
    }
    if status & HAS_FILES != 0 {
        read_files(db, key, out)?;
    }
    if status & HAS_REACTIONS != 0 {
        read_reactions(db, key, out)?;
    }
    Ok(())
}

fn read_files(db: &Connection, key: (i64, i64), out: &mut Vec<u8>) -> rusqlite::Result<()> {
    let sql = "SELECT file_id, size, width, height, media_type, name FROM files
               WHERE chat_id = ?1 AND message_id = ?2 ORDER BY place";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(key)?;
    while let Some(row) = rows.next()? {
        extras::put_file(out, &file_info(row)?);
    }
    Ok(())
}

/// A file from a row with its columns in the order of FILE.
pub(super) fn file_info<'row>(row: &'row Row<'_>) -> rusqlite::Result<FileInfo<'row>> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(FileInfo {
        id: id(FileId::from_row, 0, row.get(0)?)?,
        size: bytes(row, 1)?,
        width: row.get(2)?,
        height: row.get(3)?,
        media_type: text(4)?,
        name: text(5)?,
    })
}

fn read_reactions(db: &Connection, key: (i64, i64), out: &mut Vec<u8>) -> rusqlite::Result<()> {
    let mut emoji = db.prepare_cached(
        "SELECT emoji_at, emoji, users FROM emoji
         WHERE chat_id = ?1 AND message_id = ?2 ORDER BY emoji_at",
    )?;
    let mut users = db.prepare_cached(
        "SELECT user_id FROM reactions INDEXED BY reactions_by_emoji
         WHERE chat_id = ?1 AND message_id = ?2 AND emoji_at = ?3 ORDER BY given LIMIT ?4",
    )?;
    let mut failed = Ok(());
    let before = out.len();
    let mut count = 0;
    extras::put_reactions(out, |out| {
        failed = (|| {
            let mut rows = emoji.query(key)?;
            while let Some(row) = rows.next()? {
                let emoji_at: i64 = row.get(0)?;
                let bounds = (key.0, key.1, emoji_at, REACTION_USERS_SHOWN as i64);
                let shown = users.query_map(bounds, |row| id(UserId::from_row, 0, row.get(0)?))?;
                let shown: Vec<UserId> = shown.collect::<rusqlite::Result<_>>()?;
                let users = row.get::<_, i64>(2)?.clamp(0, i64::from(u16::MAX)) as u16;
                extras::put_reaction(out, row.get_ref(1)?.as_str()?, users, &shown);
                count += 1;
            }
            Ok(())
        })();
    });
    if count == 0 {
        out.truncate(before);
    }
    failed
}

impl Store<'_> {
    /// Appends the extras of a message with this row status.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn put_extras(
        &mut self,
        chat: ChatId,
        message: MessageId,
        status: u8,
        out: &mut Vec<u8>,
    ) -> StoreResult<()> {
        if status & HAS_EXTRAS == 0 {
            return Ok(());
        }
        self.begin_read()?;
        read(self.db, chat.row(), message, status, out).map_err(|e| error::explain(self.db, e))
    }

    /// Stores which message a new one answers.
    ///
    /// # Errors
    /// As every write.
    pub fn add_reply(
        &mut self,
        chat: ChatId,
        message: MessageId,
        reply_to: MessageId,
    ) -> StoreResult<()> {
        let sql = "INSERT INTO replies (chat_id, message_id, reply_to) VALUES (?1, ?2, ?3)";
        let row = (chat.row(), message.created().micros(), reply_to.created().micros());
        self.run(sql, row)?;
        self.set_status_bit(chat, message, HAS_REPLY, true)
    }

    pub(super) fn set_status_bit(
        &mut self,
        chat: ChatId,
        message: MessageId,
        bit: u8,
        is_set: bool,
    ) -> StoreResult<()> {
        let sql = "UPDATE messages SET status = (status & ~?3) | ?4
                   WHERE chat_id = ?1 AND message_id = ?2";
        let value = if is_set { bit } else { 0 };
        self.run(sql, (chat.row(), message.created().micros(), bit, value)).map(drop)
    }

    /// When an emoji was first given to a message, and by how many users.
    fn emoji(&mut self, key: (i64, i64), emoji: &str) -> StoreResult<Option<(i64, u32)>> {
        let sql = "SELECT emoji_at, users FROM emoji
                   WHERE chat_id = ?1 AND message_id = ?2 AND emoji = ?3";
        self.get(sql, (key.0, key.1, emoji), |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// When a user gave an emoji to a message.
    fn given(&mut self, key: (i64, i64), user: UserId, emoji_at: i64) -> StoreResult<Option<i64>> {
        let sql = "SELECT given FROM reactions
                   WHERE chat_id = ?1 AND message_id = ?2 AND user_id = ?3 AND emoji_at = ?4";
        self.get(sql, (key.0, key.1, user.row(), emoji_at), |row| row.get(0))
    }

    /// What a user's reaction would change. Changes nothing.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn reaction(
        &mut self,
        chat: ChatId,
        message: MessageId,
        user: UserId,
        is_on: bool,
        emoji: &str,
    ) -> StoreResult<Reacted> {
        let key = (chat.row(), message.created().micros());
        let Some((emoji_at, users)) = self.emoji(key, emoji)? else {
            let sql = "SELECT count(*) FROM emoji WHERE chat_id = ?1 AND message_id = ?2";
            let count: u32 = self.get(sql, key, |row| row.get(0))?.unwrap_or(0);
            return Ok(match is_on {
                false => Reacted::Unchanged,
                true if count as usize >= EMOJI_PER_MESSAGE_MAX => Reacted::TooMany,
                true => Reacted::Changed { shows_another: false },
            });
        };
        let given = self.given(key, user, emoji_at)?;
        let Some(given) = given.filter(|_| !is_on) else {
            let is_so = given.is_some() == is_on;
            return Ok(if is_so {
                Reacted::Unchanged
            } else {
                Reacted::Changed { shows_another: false }
            });
        };
        if users as usize <= REACTION_USERS_SHOWN {
            return Ok(Reacted::Changed { shows_another: false });
        }
        let sql = "SELECT count(*) FROM (SELECT 1 FROM reactions INDEXED BY reactions_by_emoji
                   WHERE chat_id = ?1 AND message_id = ?2 AND emoji_at = ?3 AND given < ?4
                   LIMIT ?5)";
        let bounds = (key.0, key.1, emoji_at, given, REACTION_USERS_SHOWN as i64);
        let before: u32 = self.get(sql, bounds, |row| row.get(0))?.unwrap_or(0);
        Ok(Reacted::Changed { shows_another: (before as usize) < REACTION_USERS_SHOWN })
    }

    /// Adds or removes a reaction; [`Store::reaction`] has returned that it is a change.
    ///
    /// # Errors
    /// As every write.
    pub fn react(
        &mut self,
        chat: ChatId,
        message: MessageId,
        user: UserId,
        is_on: bool,
        emoji: &str,
        updated: ServerTime,
    ) -> StoreResult<()> {
        let key = (chat.row(), message.created().micros());
        let now = updated.micros();
        let found = self.emoji(key, emoji)?;
        let (emoji_at, users) = found.unwrap_or((now, 0));
        let users = if is_on { users + 1 } else { users.saturating_sub(1) };
        if users == 0 {
            let sql = "DELETE FROM emoji
                       WHERE chat_id = ?1 AND message_id = ?2 AND emoji_at = ?3";
            self.run(sql, (key.0, key.1, emoji_at))?;
        } else {
            let sql = "INSERT INTO emoji (chat_id, message_id, emoji_at, emoji, users)
                       VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT DO UPDATE SET users = excluded.users";
            self.run(sql, (key.0, key.1, emoji_at, emoji, users))?;
        }
        if is_on {
            let sql = "INSERT INTO reactions (chat_id, message_id, given, emoji_at, user_id)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            self.run(sql, (key.0, key.1, now, emoji_at, user.row()))?;
        } else {
            let sql = "DELETE FROM reactions WHERE chat_id = ?1 AND message_id = ?2
                       AND user_id = ?3 AND emoji_at = ?4";
            self.run(sql, (key.0, key.1, user.row(), emoji_at))?;
        }
        let sql = "SELECT 1 FROM emoji WHERE chat_id = ?1 AND message_id = ?2";
        let has_some = self.get(sql, key, |_| Ok(()))?.is_some();
        let sql = "UPDATE messages SET updated = ?3, status = (status & ~?4) | ?5
                   WHERE chat_id = ?1 AND message_id = ?2";
        let bit = if has_some { HAS_REACTIONS } else { 0 };
        self.run(sql, (key.0, key.1, now, HAS_REACTIONS, bit)).map(drop)
    }

    /// Reactions of a message given from `from` to `to`, in that order, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn reactions(
        &mut self,
        chat: ChatId,
        message: MessageId,
        from: ServerTime,
        to: ServerTime,
        limit: u32,
    ) -> StoreResult<Vec<ReactionRow>> {
        let sql = "SELECT r.given, r.user_id, e.emoji FROM reactions r
                   JOIN emoji e USING (chat_id, message_id, emoji_at)
                   WHERE r.chat_id = ?1 AND r.message_id = ?2 AND r.given BETWEEN ?3 AND ?4
                   ORDER BY r.given LIMIT ?5";
        let key = (chat.row(), message.created().micros());
        self.all(sql, (key.0, key.1, from.micros(), to.micros(), limit), |row| {
            Ok(ReactionRow {
                given: time(row, 0)?,
                user: id(UserId::from_row, 1, row.get(1)?)?,
                emoji: row.get(2)?,
            })
        })
    }

    /// Passes all reactions of a chat, by message and time, from this position on, to `each` until
    /// it returns false.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all_reactions(
        &mut self,
        chat: ChatId,
        (message, given): (MessageId, ServerTime),
        mut each: impl FnMut(OldReaction) -> bool,
    ) -> StoreResult<()> {
        let sql = "SELECT r.message_id, r.user_id, e.emoji, e.emoji_at, r.given FROM reactions r
                   JOIN emoji e USING (chat_id, message_id, emoji_at)
                   WHERE r.chat_id = ?1 AND (r.message_id, r.given) >= (?2, ?3)
                   ORDER BY r.message_id, r.given";
        let from = (chat.row(), message.created().micros(), given.micros());
        self.each(sql, from, |row| {
            Ok(each(OldReaction {
                message: MessageId::at(time(row, 0)?),
                user: id(UserId::from_row, 1, row.get(1)?)?,
                emoji: row.get(2)?,
                since: time(row, 3)?,
                given: time(row, 4)?,
            }))
        })
    }

    /// Stores a reaction copied from another database; an existing one stays.
    ///
    /// # Errors
    /// As every write.
    pub fn add_old_reaction(&mut self, chat: ChatId, old: &OldReaction) -> StoreResult<()> {
        let key = (chat.row(), old.message.created().micros());
        let sql = "INSERT OR IGNORE INTO reactions (chat_id, message_id, given, emoji_at, user_id)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = (key.0, key.1, old.given.micros(), old.since.micros(), old.user.row());
        if self.run(sql, row)? == 0 {
            return Ok(());
        }
        let sql = "INSERT INTO emoji (chat_id, message_id, emoji_at, emoji, users)
                   VALUES (?1, ?2, ?3, ?4, 1) ON CONFLICT DO UPDATE SET users = users + 1";
        self.run(sql, (key.0, key.1, old.since.micros(), &old.emoji))?;
        self.set_status_bit(chat, old.message, HAS_REACTIONS, true)
    }

    /// Removes the extras of a message that is being deleted; this is its row status.
    ///
    /// # Errors
    /// As every write.
    pub(super) fn remove_extras(
        &mut self,
        chat: i64,
        message: MessageId,
        status: u8,
    ) -> StoreResult<()> {
        let key = (chat, message.created().micros());
        if status & HAS_REPLY != 0 {
            self.run("DELETE FROM replies WHERE chat_id = ?1 AND message_id = ?2", key)?;
        }
        if status & HAS_FILES != 0 {
            self.remove_files_of(key)?;
        }
        if status & HAS_REACTIONS != 0 {
            self.run("DELETE FROM reactions WHERE chat_id = ?1 AND message_id = ?2", key)?;
            self.run("DELETE FROM emoji WHERE chat_id = ?1 AND message_id = ?2", key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;
    use crate::store::messages::tests::at;
    use crate::wire::extras::Extras;

    fn user(id: u32) -> UserId {
        UserId::new(id).expect("not 0")
    }

    /// Reacts if that is a change. Returns the result.
    fn react(store: &mut Store<'_>, by: u32, is_on: bool, emoji: &str, now: i64) -> Reacted {
        let (chat, message) = (ChatId::new(7).expect("not 0"), MessageId::at(at(10)));
        let reacted = store.reaction(chat, message, user(by), is_on, emoji).expect("read");
        if matches!(reacted, Reacted::Changed { .. }) {
            store.react(chat, message, user(by), is_on, emoji, at(now)).expect("stored");
        }
        reacted
    }

    fn shown(store: &mut Store<'_>) -> Vec<(String, u16, usize)> {
        let (chat, message) = (ChatId::new(7).expect("not 0"), MessageId::at(at(10)));
        let row = store.message_state(chat, message).expect("read").expect("there");
        let mut out = Vec::new();
        store.put_extras(chat, message, row.row_status, &mut out).expect("read");
        let reactions = Extras::read(&out).expect("extras").reactions();
        reactions.map(|r| (r.emoji.to_owned(), r.count, r.shown().count())).collect()
    }

    const CHANGED: Reacted = Reacted::Changed { shows_another: false };

    #[test]
    fn reactions_are_counted_and_shown_in_order() {
        let database = Database::in_memory().expect("memory");
        let store = &mut Store::new(&database).expect("its tables");
        let chat = ChatId::new(7).expect("not 0");
        store.add_message(chat, MessageId::at(at(10)), user(1), "hi").expect("stored");
        assert_eq!(react(store, 1, false, "a", 11), Reacted::Unchanged);
        assert_eq!(react(store, 1, true, "a", 12), CHANGED);
        assert_eq!(react(store, 1, true, "a", 13), Reacted::Unchanged);
        assert_eq!(react(store, 2, true, "b", 14), CHANGED);
        assert_eq!(react(store, 2, true, "a", 15), CHANGED);
        assert_eq!(shown(store), [("a".to_owned(), 2, 2), ("b".to_owned(), 1, 1)]);
        // An emoji that was removed and given again comes last.
        assert_eq!(react(store, 1, false, "a", 16), CHANGED);
        assert_eq!(react(store, 2, false, "a", 17), CHANGED);
        assert_eq!(react(store, 2, true, "a", 18), CHANGED);
        assert_eq!(shown(store), [("b".to_owned(), 1, 1), ("a".to_owned(), 1, 1)]);
        for n in 2..20 {
            assert_eq!(react(store, 3, true, &format!("e{n}"), 20 + n), CHANGED);
        }
        assert_eq!(react(store, 3, true, "one more", 50), Reacted::TooMany);
        assert_eq!(react(store, 3, true, "a", 51), CHANGED);
    }

    #[test]
    fn who_is_shown_changes_when_one_of_them_takes_it_back() {
        let database = Database::in_memory().expect("memory");
        let store = &mut Store::new(&database).expect("its tables");
        let chat = ChatId::new(7).expect("not 0");
        store.add_message(chat, MessageId::at(at(10)), user(1), "hi").expect("stored");
        for n in 1..=22 {
            assert_eq!(react(store, n, true, "a", 20 + i64::from(n)), CHANGED);
        }
        assert_eq!(shown(store), [("a".to_owned(), 22, 20)]);
        assert_eq!(react(store, 21, false, "a", 60), CHANGED);
        assert_eq!(react(store, 20, false, "a", 61), Reacted::Changed { shows_another: true });
        assert_eq!(react(store, 1, false, "a", 62), CHANGED);
        assert_eq!(shown(store), [("a".to_owned(), 19, 19)]);
        let row = store.message_state(chat, MessageId::at(at(10))).expect("read").expect("there");
        assert_eq!(row.updated, at(62));
        store.delete_message(chat, MessageId::at(at(10)), at(70)).expect("stored");
        assert_eq!(shown(store), []);
    }
}
