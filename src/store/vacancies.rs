//! Groups without an admin, and groups without members (protocol section 5).
//!
//! A *vacancy* means that the next user who joins the group, or is enabled in it, becomes its
//! admin. If it has a time, the group has had no members since then, and is removed after 30 days.
//! A group that the command line created without an admin has no vacancy until it loses a member.

use super::{Store, StoreResult, id};
use crate::ids::{ChatId, ServerTime, UserId};

/// What happened to a group that lost a member or an admin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Succession {
    /// Nothing that has to be notified.
    Unchanged,
    /// This member has become an admin.
    Heir(UserId),
    /// The group was removed: it had no members left, and never had a message.
    Gone,
}

impl Store<'_> {
    /// Settles a group after a user left it, was removed from it or was disabled. `was_admin`: the
    /// user was an admin of it.
    ///
    /// # Errors
    /// As every write.
    pub fn settle_departure(
        &mut self,
        chat_id: ChatId,
        was_admin: bool,
        now: ServerTime,
    ) -> StoreResult<Succession> {
        let Some(chat) = self.chat(chat_id)?.filter(|chat| chat.direct.is_none()) else {
            return Ok(Succession::Unchanged);
        };
        if chat.member_count == 0 {
            if !self.has_had_messages(chat_id)? {
                self.remove_chat(chat_id)?;
                return Ok(Succession::Gone);
            }
            self.set_vacancy(chat_id, Some(now))?;
            return Ok(Succession::Unchanged);
        }
        if !was_admin || self.admin_count(chat_id)? > 0 {
            return Ok(Succession::Unchanged);
        }
        let Some(heir) = self.longest_standing(chat_id)? else {
            self.set_vacancy(chat_id, None)?;
            return Ok(Succession::Unchanged);
        };
        self.set_admin(chat_id, heir, true)?;
        Ok(Succession::Heir(heir))
    }

    /// Appoints admins in the groups whose last enabled admin was this user. Call it after the user
    /// was disabled.
    ///
    /// # Errors
    /// As every write.
    pub fn settle_disabled(
        &mut self,
        user: UserId,
        now: ServerTime,
    ) -> StoreResult<Vec<(ChatId, UserId)>> {
        let mut heirs = Vec::new();
        for member in self.memberships(user)?.into_iter().filter(|member| member.admin) {
            if let Succession::Heir(heir) = self.settle_departure(member.chat, true, now)? {
                heirs.push((member.chat, heir));
            }
        }
        Ok(heirs)
    }

    /// Makes an enabled user, unless it is a bot, the admin of their groups that have a vacancy.
    /// Returns the groups in which they were not admin before.
    ///
    /// # Errors
    /// As every write.
    pub fn settle_enabled(&mut self, user: UserId) -> StoreResult<Vec<ChatId>> {
        let mut made = Vec::new();
        if self.is_bot(user)? {
            return Ok(made);
        }
        for member in self.memberships(user)? {
            if self.take_vacancy(member.chat)? && !member.admin {
                self.set_admin(member.chat, user, true)?;
                made.push(member.chat);
            }
        }
        Ok(made)
    }

    /// Whether a group ever had a message, even one that was deleted or expired.
    fn has_had_messages(&mut self, chat: ChatId) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM chats WHERE chat_id = ?1 AND (message_count > 0 OR deletions > 0)
                   UNION ALL SELECT 1 FROM messages WHERE chat_id = ?1 LIMIT 1";
        Ok(self.get(sql, [chat.row()], |_| Ok(()))?.is_some())
    }

    fn set_vacancy(&mut self, chat: ChatId, emptied: Option<ServerTime>) -> StoreResult<()> {
        let sql = "INSERT OR REPLACE INTO vacancies (chat_id, emptied) VALUES (?1, ?2)";
        self.run(sql, (chat.row(), emptied.map(ServerTime::micros))).map(drop)
    }

    /// Ends the vacancy of a group, which has an admin now. False when there was none.
    pub(super) fn take_vacancy(&mut self, chat: ChatId) -> StoreResult<bool> {
        if self
            .get("SELECT 1 FROM vacancies WHERE chat_id = ?1", [chat.row()], |_| Ok(()))?
            .is_none()
        {
            return Ok(false);
        }
        self.run("DELETE FROM vacancies WHERE chat_id = ?1", [chat.row()])?;
        Ok(true)
    }

    /// Notes that a group has members again, none of whom can be its admin: it is neither hidden
    /// nor removed.
    pub(super) fn note_not_empty(&mut self, chat: ChatId) -> StoreResult<()> {
        self.run("UPDATE vacancies SET emptied = NULL WHERE chat_id = ?1", [chat.row()]).map(drop)
    }

    /// Groups without members since before this time, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn empty_groups(&mut self, before: ServerTime, limit: u32) -> StoreResult<Vec<ChatId>> {
        let sql = "SELECT chat_id FROM vacancies WHERE emptied < ?1 ORDER BY emptied LIMIT ?2";
        self.all(sql, (before.micros(), limit), |row| id(ChatId::from_row, 0, row.get(0)?))
    }
}
