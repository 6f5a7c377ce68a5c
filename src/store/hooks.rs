//! Hooks: tokens with which bots send to chats over HTTP, stored as digests.

use rusqlite::Row;

use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, ServerTime, UserId};

/// The bit of `users.flags` that makes a user a bot.
const BOT: u8 = 8;

/// A row of `hooks`, with the names of the bot and the chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// The bot.
    pub user: UserId,
    /// Its name.
    pub nickname: String,
    /// The chat that it sends to.
    pub chat: ChatId,
    /// The name of the chat; empty when it was removed.
    pub chat_name: String,
    /// When it was created.
    pub created: ServerTime,
}

fn hook(row: &Row<'_>) -> rusqlite::Result<Hook> {
    Ok(Hook {
        user: id(UserId::from_row, 0, row.get(0)?)?,
        nickname: row.get(1)?,
        chat: id(ChatId::from_row, 2, row.get(2)?)?,
        chat_name: row.get(3)?,
        created: time(row, 4)?,
    })
}

impl Store<'_> {
    /// Adds a hook for a user who has none, and makes the user a bot.
    ///
    /// # Errors
    /// As every write.
    pub fn add_hook(
        &mut self,
        digest: &[u8],
        user: UserId,
        chat: ChatId,
        created: ServerTime,
    ) -> StoreResult<()> {
        self.run("UPDATE users SET flags = flags | ?2 WHERE user_id = ?1", (user.row(), BOT))?;
        let sql = "INSERT INTO hooks (digest, user_id, chat_id, created) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, (digest, user.row(), chat.row(), created.micros())).map(drop)
    }

    /// The bot with this token, and its chat; `None` when the token is not valid or the bot is
    /// disabled.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn hook(&mut self, digest: &[u8]) -> StoreResult<Option<(UserId, ChatId)>> {
        let sql = "SELECT hooks.user_id, chat_id FROM hooks JOIN users USING (user_id)
                   WHERE digest = ?1 AND disabled = 0";
        self.get(sql, [digest], |row| {
            Ok((id(UserId::from_row, 0, row.get(0)?)?, id(ChatId::from_row, 1, row.get(1)?)?))
        })
    }

    /// All hooks, by name of the bot.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn hooks(&mut self) -> StoreResult<Vec<Hook>> {
        let sql = "SELECT user_id, nickname, hooks.chat_id, ifnull(chats.name, ''), hooks.created
                   FROM hooks JOIN users USING (user_id) LEFT JOIN chats USING (chat_id)
                   ORDER BY users.name_key";
        self.all(sql, [], hook)
    }

    /// Whether a user is a bot.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_bot(&mut self, user: UserId) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM users WHERE user_id = ?1 AND flags & ?2 != 0";
        Ok(self.get(sql, (user.row(), BOT), |_| Ok(()))?.is_some())
    }

    /// Removes the hook of a user. False when there is none.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_hook(&mut self, user: UserId) -> StoreResult<bool> {
        self.run("DELETE FROM hooks WHERE user_id = ?1", [user.row()]).map(|rows| rows > 0)
    }
}
