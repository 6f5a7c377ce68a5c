//! Members of chats, their roles and read markers; and bans.

use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, ServerTime, UserId};
use rusqlite::Row;

/// A row of `members`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The chat.
    pub chat: ChatId,
    /// The user.
    pub user: UserId,
    /// Is an admin.
    pub admin: bool,
    /// When the user joined.
    pub joined: ServerTime,
    /// The read marker.
    pub seen: ServerTime,
}

const COLUMNS: &str = "chat_id, user_id, admin, joined, seen";

fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        chat: id(ChatId::from_row, 0, row.get(0)?)?,
        user: id(UserId::from_row, 1, row.get(1)?)?,
        admin: row.get(2)?,
        joined: time(row, 3)?,
        seen: time(row, 4)?,
    })
}

impl Store<'_> {
    /// One membership.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn member(&mut self, chat: ChatId, user: UserId) -> StoreResult<Option<Member>> {
        let sql = format!("SELECT {COLUMNS} FROM members WHERE chat_id = ?1 AND user_id = ?2");
        self.get(&sql, (chat.row(), user.row()), member)
    }

    /// The memberships of a user, by chat.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn memberships(&mut self, user: UserId) -> StoreResult<Vec<Member>> {
        let sql = format!("SELECT {COLUMNS} FROM members WHERE user_id = ?1 ORDER BY chat_id");
        self.all(&sql, [user.row()], member)
    }

    /// The memberships of a user, by chat, with the slow mode of each chat in seconds.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn memberships_with_policy(&mut self, user: UserId) -> StoreResult<Vec<(Member, u32)>> {
        self.all(
            "SELECT m.chat_id, m.user_id, m.admin, m.joined, m.seen, c.slow_mode_s
             FROM members m JOIN chats c USING (chat_id)
             WHERE m.user_id = ?1 ORDER BY m.chat_id",
            [user.row()],
            |row| Ok((member(row)?, row.get(5)?)),
        )
    }

    /// Members of a chat with an id above `after`, by id, up to `limit`, with their nicknames.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn members(
        &mut self,
        chat: ChatId,
        after: Option<UserId>,
        limit: u32,
    ) -> StoreResult<Vec<(Member, String)>> {
        self.all(
            "SELECT m.chat_id, m.user_id, m.admin, m.joined, m.seen, u.nickname
             FROM members m JOIN users u USING (user_id)
             WHERE m.chat_id = ?1 AND m.user_id > ?2 ORDER BY m.user_id LIMIT ?3",
            (chat.row(), after.map_or(0, UserId::row), limit),
            |row| Ok((member(row)?, row.get(5)?)),
        )
    }

    /// Makes a user a member; the caller has checked that they are none. In a group without an
    /// admin, the user becomes its admin, unless it is a bot or disabled. Returns whether that
    /// happened.
    ///
    /// # Errors
    /// As every write.
    pub fn add_member(&mut self, new: Member) -> StoreResult<bool> {
        let can_act = self.user(new.user)?.is_some_and(|user| user.can_log_in());
        let fills_vacancy = can_act && self.take_vacancy(new.chat)?;
        if !can_act {
            self.note_not_empty(new.chat)?;
        }
        let is_admin = fills_vacancy || new.admin;
        self.run(
            "INSERT INTO members (chat_id, user_id, admin, joined, seen) VALUES (?1, ?2, ?3, ?4, ?5)",
            (
                new.chat.row(),
                new.user.row(),
                is_admin,
                new.joined.micros(),
                new.seen.micros(),
            ),
        )?;
        let sql = "UPDATE chats SET member_count = member_count + 1 WHERE chat_id = ?1";
        self.run(sql, [new.chat.row()])?;
        Ok(is_admin)
    }

    /// Ends a membership. False when there is none. Call [`Store::settle_departure`] next.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_member(&mut self, chat: ChatId, user: UserId) -> StoreResult<bool> {
        let sql = "DELETE FROM members WHERE chat_id = ?1 AND user_id = ?2";
        if self.run(sql, (chat.row(), user.row()))? == 0 {
            return Ok(false);
        }
        let sql = "UPDATE chats SET member_count = member_count - 1 WHERE chat_id = ?1";
        self.run(sql, [chat.row()])?;
        self.remove_uploads(chat, user)?;
        Ok(true)
    }

    /// Makes a member an admin, or not.
    ///
    /// # Errors
    /// As every write.
    pub fn set_admin(&mut self, chat: ChatId, user: UserId, admin: bool) -> StoreResult<()> {
        if admin {
            self.take_vacancy(chat)?;
        }
        let sql = "UPDATE members SET admin = ?3 WHERE chat_id = ?1 AND user_id = ?2";
        self.run(sql, (chat.row(), user.row(), admin)).map(drop)
    }

    /// Moves a member's read marker; the unread messages have to be counted again.
    ///
    /// # Errors
    /// As every write.
    pub fn set_seen(&mut self, chat: ChatId, user: UserId, seen: ServerTime) -> StoreResult<()> {
        let sql = "UPDATE members SET seen = ?3, known_count = NULL
                   WHERE chat_id = ?1 AND user_id = ?2";
        self.run(sql, (chat.row(), user.row(), seen.micros())).map(drop)
    }

    /// Number of chats that a user is in.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn membership_count(&mut self, user: UserId) -> StoreResult<u32> {
        let sql = "SELECT count(*) FROM members WHERE user_id = ?1";
        Ok(self.get(sql, [user.row()], |row| row.get(0))?.unwrap_or(0))
    }

    /// Whether a user is an admin of any chat.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_admin_anywhere(&mut self, user: UserId) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM members WHERE user_id = ?1 AND admin = 1 LIMIT 1";
        Ok(self.get(sql, [user.row()], |_| Ok(()))?.is_some())
    }

    /// The push level of a member: 0 all messages, 1 mentions and answers, 2 none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn notify_level(&mut self, chat: ChatId, user: UserId) -> StoreResult<u8> {
        let sql = "SELECT notify FROM members WHERE chat_id = ?1 AND user_id = ?2";
        Ok(self.get(sql, (chat.row(), user.row()), |row| row.get(0))?.unwrap_or(0))
    }

    /// Sets the push level of a member.
    ///
    /// # Errors
    /// As every write.
    pub fn set_notify_level(&mut self, chat: ChatId, user: UserId, notify: u8) -> StoreResult<()> {
        let sql = "UPDATE members SET notify = ?3 WHERE chat_id = ?1 AND user_id = ?2";
        self.run(sql, (chat.row(), user.row(), notify)).map(drop)
    }

    /// Number of admins of a chat who are neither disabled nor bots.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn admin_count(&mut self, chat: ChatId) -> StoreResult<u32> {
        let sql = "SELECT count(*) FROM members m JOIN users u USING (user_id)
                   WHERE m.chat_id = ?1 AND m.admin = 1 AND u.disabled = 0 AND u.flags & 8 = 0";
        Ok(self.get(sql, [chat.row()], |row| row.get(0))?.unwrap_or(0))
    }

    /// The member of longest standing who is neither disabled nor a bot.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn longest_standing(&mut self, chat: ChatId) -> StoreResult<Option<UserId>> {
        let sql = "SELECT m.user_id FROM members m JOIN users u USING (user_id)
                   WHERE m.chat_id = ?1 AND u.disabled = 0 AND u.flags & 8 = 0
                   ORDER BY m.joined, m.user_id LIMIT 1";
        self.get(sql, [chat.row()], |row| id(UserId::from_row, 0, row.get(0)?))
    }

    /// Whether a user is banned from a chat.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_banned(&mut self, chat: ChatId, user: UserId) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM bans WHERE chat_id = ?1 AND user_id = ?2";
        Ok(self.get(sql, (chat.row(), user.row()), |_| Ok(()))?.is_some())
    }

    /// Bans a user from a chat, or lifts the ban.
    ///
    /// # Errors
    /// As every write.
    pub fn set_banned(&mut self, chat: ChatId, user: UserId, banned: bool) -> StoreResult<()> {
        let sql = if banned {
            "INSERT OR IGNORE INTO bans (chat_id, user_id) VALUES (?1, ?2)"
        } else {
            "DELETE FROM bans WHERE chat_id = ?1 AND user_id = ?2"
        };
        self.run(sql, (chat.row(), user.row())).map(drop)
    }

    /// Lifts all bans of a user.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_bans_of(&mut self, user: UserId) -> StoreResult<()> {
        self.run("DELETE FROM bans WHERE user_id = ?1", [user.row()]).map(drop)
    }

    /// Users banned from a chat with an id above `after`, by id, up to `limit`, with nicknames.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn banned(
        &mut self,
        chat: ChatId,
        after: Option<UserId>,
        limit: u32,
    ) -> StoreResult<Vec<(UserId, String)>> {
        self.all(
            "SELECT b.user_id, u.nickname FROM bans b JOIN users u USING (user_id)
             WHERE b.chat_id = ?1 AND b.user_id > ?2 ORDER BY b.user_id LIMIT ?3",
            (chat.row(), after.map_or(0, UserId::row), limit),
            |row| Ok((id(UserId::from_row, 0, row.get(0)?)?, row.get(1)?)),
        )
    }
}
