//! Chats: groups, found by name, and direct chats of two users.

use super::unread::Counted;
use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, ServerTime, UserId};
use rusqlite::Row;

/// A row of `chats`. Holds a password hash, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Chat {
    /// Its id.
    pub chat: ChatId,
    /// The two users of a direct chat, lower id first; `None` for a group.
    pub direct: Option<(UserId, UserId)>,
    /// Its name; empty for a direct chat.
    pub name: String,
    /// Its title.
    pub title: String,
    /// The stored form of its password, if it has one.
    pub password: Option<String>,
    /// Number of members.
    pub member_count: u32,
    /// When it was created.
    pub created: ServerTime,
    /// Seconds between two messages of one member; 0: no slow mode.
    pub slow_mode_s: u32,
    /// Days for which messages are kept; 0: forever.
    pub keep_days: u32,
    /// It is hidden from users who are not members.
    pub closed: bool,
}

/// A chat as one of its members sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MyChat {
    /// Its id.
    pub chat: ChatId,
    /// It is a direct chat.
    pub is_direct: bool,
    /// Its name; empty for a direct chat.
    pub name: String,
    /// Its title; for a direct chat, the other user's nickname.
    pub title: String,
    /// It has a password.
    pub has_password: bool,
    /// Number of members.
    pub member_count: u32,
    /// The member is an admin.
    pub is_admin: bool,
    /// The member's read marker.
    pub seen: ServerTime,
    /// The member's push level, as in chat_info.
    pub notify: u8,
    /// It is hidden from users who are not members.
    pub is_closed: bool,
    /// The counts of its messages.
    pub counted: Counted,
}

/// A statement for a member's chats; the argument is the condition.
macro_rules! my_chats {
    ($which:literal) => {
        concat!(
            "SELECT m.chat_id, c.kind, c.name, coalesce(u.nickname, c.title),
                    c.password IS NOT NULL, c.member_count, m.admin, m.seen, m.notify, c.closed, c.last_message,
                    CASE WHEN m.deletions = c.deletions OR m.seen >= c.last_deleted
                    THEN c.message_count - m.known_count END
             FROM members m CROSS JOIN chats c USING (chat_id)
             LEFT JOIN users u ON c.kind = 1
                AND u.user_id = CASE c.user_low WHEN ?1 THEN c.user_high ELSE c.user_low END
             WHERE m.user_id = ?1 AND ",
            $which
        )
    };
}

fn my_chat(row: &Row<'_>) -> rusqlite::Result<MyChat> {
    Ok(MyChat {
        chat: id(ChatId::from_row, 0, row.get(0)?)?,
        is_direct: row.get(1)?,
        name: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
        title: row.get(3)?,
        has_password: row.get(4)?,
        member_count: row.get(5)?,
        is_admin: row.get(6)?,
        seen: time(row, 7)?,
        notify: row.get(8)?,
        is_closed: row.get(9)?,
        counted: Counted { last: time(row, 10)?, unread: row.get(11)? },
    })
}

const COLUMNS: &str = "chat_id, kind, user_low, user_high, name, title, password, member_count,
                       created, slow_mode_s, keep_days, closed";

fn chat(row: &Row<'_>) -> rusqlite::Result<Chat> {
    let direct = match row.get(1)? {
        0_i64 => None,
        _ => Some((id(UserId::from_row, 2, row.get(2)?)?, id(UserId::from_row, 3, row.get(3)?)?)),
    };
    Ok(Chat {
        chat: id(ChatId::from_row, 0, row.get(0)?)?,
        direct,
        name: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        title: row.get(5)?,
        password: row.get(6)?,
        member_count: row.get(7)?,
        created: time(row, 8)?,
        slow_mode_s: row.get(9)?,
        keep_days: row.get(10)?,
        closed: row.get(11)?,
    })
}

impl Store<'_> {
    /// The chat with this id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn chat(&mut self, chat_id: ChatId) -> StoreResult<Option<Chat>> {
        self.get(&format!("SELECT {COLUMNS} FROM chats WHERE chat_id = ?1"), [chat_id.row()], chat)
    }

    /// The group with this name key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn chat_by_key(&mut self, key: &str) -> StoreResult<Option<Chat>> {
        self.get(&format!("SELECT {COLUMNS} FROM chats WHERE name_key = ?1"), [key], chat)
    }

    /// The direct chat of two users.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn direct_chat(&mut self, one: UserId, other: UserId) -> StoreResult<Option<Chat>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM chats WHERE kind = 1 AND user_low = ?1 AND user_high = ?2"
        );
        self.get(&sql, (one.min(other).row(), one.max(other).row()), chat)
    }

    /// Up to `limit` groups whose name key has the prefix `prefix` and is above `after`, by name:
    /// those with members, or created without any.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn chats_by_prefix(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u16,
    ) -> StoreResult<Vec<Chat>> {
        // Everything with the prefix sorts before the prefix followed by the highest character.
        let sql = format!(
            "SELECT {COLUMNS} FROM chats WHERE name_key >= ?1 AND name_key > ?2 AND name_key < ?3
             AND NOT EXISTS (SELECT 1 FROM vacancies v
                             WHERE v.chat_id = chats.chat_id AND v.emptied IS NOT NULL)
             ORDER BY name_key LIMIT ?4"
        );
        let end = format!("{prefix}\u{10FFFF}");
        self.all(&sql, (prefix, after.unwrap_or_default(), end, limit), chat)
    }

    /// A chat of which a user is a member.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn my_chat(&mut self, user: UserId, chat: ChatId) -> StoreResult<Option<MyChat>> {
        self.get(my_chats!("m.chat_id = ?2"), (user.row(), chat.row()), my_chat)
    }

    /// Chats of which a user is a member, with an id above `after`, by id, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn my_chats(
        &mut self,
        user: UserId,
        after: Option<ChatId>,
        limit: usize,
    ) -> StoreResult<Vec<MyChat>> {
        let sql = my_chats!("m.chat_id > ?2 ORDER BY m.chat_id LIMIT ?3");
        let bounds = (user.row(), after.map_or(0, ChatId::row), limit as i64);
        self.all(sql, bounds, my_chat)
    }

    /// The ids of all chats above `after`, by id, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn chat_ids(&mut self, after: Option<ChatId>, limit: usize) -> StoreResult<Vec<ChatId>> {
        let sql = "SELECT chat_id FROM chats WHERE chat_id > ?1 ORDER BY chat_id LIMIT ?2";
        let bounds = (after.map_or(0, ChatId::row), limit as i64);
        self.all(sql, bounds, |row| id(ChatId::from_row, 0, row.get(0)?))
    }

    /// All groups by name, then all direct chats.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn chats(&mut self) -> StoreResult<Vec<Chat>> {
        self.all(&format!("SELECT {COLUMNS} FROM chats ORDER BY kind, name_key"), [], chat)
    }

    /// Adds a group without members; `None` when the name is taken.
    ///
    /// # Errors
    /// As every write.
    pub fn add_chat(
        &mut self,
        name: &str,
        key: &str,
        password: Option<&str>,
        created: ServerTime,
    ) -> StoreResult<Option<ChatId>> {
        if self.chat_by_key(key)?.is_some() {
            return Ok(None);
        }
        let row = self.insert(
            "INSERT INTO chats (kind, name, name_key, password, created) VALUES (0, ?1, ?2, ?3, ?4)",
            (name, key, password, created.micros()),
        )?;
        Ok(ChatId::from_row(row))
    }

    /// Adds the direct chat of two users, without members yet.
    ///
    /// # Errors
    /// As every write.
    pub fn add_direct_chat(
        &mut self,
        one: UserId,
        other: UserId,
        created: ServerTime,
    ) -> StoreResult<ChatId> {
        let row = self.insert(
            "INSERT INTO chats (kind, user_low, user_high, created) VALUES (1, ?1, ?2, ?3)",
            (one.min(other).row(), one.max(other).row(), created.micros()),
        )?;
        Ok(id(ChatId::from_row, 0, row)?)
    }

    /// Renames a group; the caller has checked that the name is free.
    ///
    /// # Errors
    /// As every write.
    pub fn rename_chat(&mut self, chat_id: ChatId, name: &str, key: &str) -> StoreResult<()> {
        let sql = "UPDATE chats SET name = ?2, name_key = ?3 WHERE chat_id = ?1";
        self.run(sql, (chat_id.row(), name, key)).map(drop)
    }

    /// Sets the title.
    ///
    /// # Errors
    /// As every write.
    pub fn set_chat_title(&mut self, chat_id: ChatId, title: &str) -> StoreResult<()> {
        self.run("UPDATE chats SET title = ?2 WHERE chat_id = ?1", (chat_id.row(), title)).map(drop)
    }

    /// Sets or removes the stored password.
    ///
    /// # Errors
    /// As every write.
    pub fn set_chat_password(
        &mut self,
        chat_id: ChatId,
        password: Option<&str>,
    ) -> StoreResult<()> {
        let sql = "UPDATE chats SET password = ?2 WHERE chat_id = ?1";
        self.run(sql, (chat_id.row(), password)).map(drop)
    }

    /// Closes a group, or opens it again.
    ///
    /// # Errors
    /// As every write.
    pub fn set_chat_closed(&mut self, chat_id: ChatId, closed: bool) -> StoreResult<()> {
        let sql = "UPDATE chats SET closed = ?2 WHERE chat_id = ?1";
        self.run(sql, (chat_id.row(), closed)).map(drop)
    }

    /// Sets what only operators set: slow mode, and how long messages are kept.
    ///
    /// # Errors
    /// As every write.
    pub fn set_chat_policy(
        &mut self,
        chat_id: ChatId,
        slow_mode_s: u32,
        keep_days: u32,
    ) -> StoreResult<()> {
        let sql = "UPDATE chats SET slow_mode_s = ?2, keep_days = ?3 WHERE chat_id = ?1";
        self.run(sql, (chat_id.row(), slow_mode_s, keep_days)).map(drop)
    }

    /// Removes a chat with its members and bans. Its messages and nonces stay without a chat;
    /// [`Store::sweep_messages`] removes them in slices.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_chat(&mut self, chat_id: ChatId) -> StoreResult<()> {
        self.remove_uploads_to(chat_id)?;
        for sql in [
            "DELETE FROM members WHERE chat_id = ?1",
            "DELETE FROM bans WHERE chat_id = ?1",
            "DELETE FROM invites WHERE chat_id = ?1",
            "DELETE FROM vacancies WHERE chat_id = ?1",
            "DELETE FROM chats WHERE chat_id = ?1",
        ] {
            self.run(sql, [chat_id.row()])?;
        }
        Ok(())
    }
}
