//! Changes made by commands while a server may be running: rows written in the same transaction as
//! the change, and deleted by the server when it notifies its clients.

use super::{Store, StoreResult};
use crate::ids::{ChatId, SessionId, UserId};

/// A change made by a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A session has ended.
    SessionEnded(SessionId),
    /// All sessions of a user have ended.
    SessionsEnded(UserId),
    /// A user has become a member.
    MemberJoined(ChatId, UserId),
    /// The membership of a user has ended.
    MemberLeft(ChatId, UserId),
    /// A user was banned, and is no longer a member.
    MemberBanned(ChatId, UserId),
    /// A member has become an admin.
    MadeAdmin(ChatId, UserId),
    /// A user has another nickname.
    UserRenamed(UserId),
    /// A chat was closed, or opened again.
    ChatClosed(ChatId),
    /// A chat's name, title, password or policy has changed.
    ChatChanged(ChatId),
    /// A chat is gone.
    ChatRemoved(ChatId),
    /// A setting of the whole server has changed (the lockdown).
    PolicyChanged,
}

impl Change {
    const fn row(self) -> (&'static str, i64, i64) {
        match self {
            Self::SessionEnded(session) => ("session-ended", session.row(), 0),
            Self::SessionsEnded(user) => ("sessions-ended", user.row(), 0),
            Self::MemberJoined(chat, user) => ("member-joined", chat.row(), user.row()),
            Self::MemberLeft(chat, user) => ("member-left", chat.row(), user.row()),
            Self::MemberBanned(chat, user) => ("member-banned", chat.row(), user.row()),
            Self::MadeAdmin(chat, user) => ("made-admin", chat.row(), user.row()),
            Self::UserRenamed(user) => ("user-renamed", user.row(), 0),
            Self::ChatClosed(chat) => ("chat-closed", chat.row(), 0),
            Self::ChatChanged(chat) => ("chat-changed", chat.row(), 0),
            Self::ChatRemoved(chat) => ("chat-removed", chat.row(), 0),
            Self::PolicyChanged => ("policy-changed", 0, 0),
        }
    }

    /// `None` for a kind that this version does not know, written by a newer command.
    fn from_row(kind: &str, a: i64, b: i64) -> Option<Self> {
        Some(match kind {
            "session-ended" => Self::SessionEnded(SessionId::from_row(a)?),
            "sessions-ended" => Self::SessionsEnded(UserId::from_row(a)?),
            "member-joined" => Self::MemberJoined(ChatId::from_row(a)?, UserId::from_row(b)?),
            "member-left" => Self::MemberLeft(ChatId::from_row(a)?, UserId::from_row(b)?),
            "member-banned" => Self::MemberBanned(ChatId::from_row(a)?, UserId::from_row(b)?),
            "made-admin" => Self::MadeAdmin(ChatId::from_row(a)?, UserId::from_row(b)?),
            "user-renamed" => Self::UserRenamed(UserId::from_row(a)?),
            "chat-closed" => Self::ChatClosed(ChatId::from_row(a)?),
            "chat-changed" => Self::ChatChanged(ChatId::from_row(a)?),
            "chat-removed" => Self::ChatRemoved(ChatId::from_row(a)?),
            "policy-changed" => Self::PolicyChanged,
            _ => return None,
        })
    }
}

impl Store<'_> {
    /// Records a change for a running server, in the transaction that makes it.
    ///
    /// # Errors
    /// As every write.
    pub fn note_change(&mut self, change: Change) -> StoreResult<()> {
        self.run("INSERT INTO changes (kind, a, b) VALUES (?1, ?2, ?3)", change.row()).map(drop)
    }

    /// The oldest changes after the one with id `after`, up to `limit`; [`Store::forget_changes`]
    /// deletes them. Ids are never reused.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn changes(&mut self, after: i64, limit: u32) -> StoreResult<Vec<(i64, Option<Change>)>> {
        let sql = "SELECT change_id, kind, a, b FROM changes WHERE change_id > ?1
                   ORDER BY change_id LIMIT ?2";
        self.all(sql, (after, limit), |row| {
            let kind: String = row.get(1)?;
            Ok((row.get(0)?, Change::from_row(&kind, row.get(2)?, row.get(3)?)))
        })
    }

    /// The id of the newest change; 0 when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn newest_change(&mut self) -> StoreResult<i64> {
        let newest =
            self.all("SELECT ifnull(max(change_id), 0) FROM changes", [], |row| row.get(0))?;
        Ok(newest.first().copied().unwrap_or_default())
    }

    /// Deletes the changes up to this one.
    ///
    /// # Errors
    /// As every write.
    pub fn forget_changes(&mut self, up_to: i64) -> StoreResult<()> {
        self.run("DELETE FROM changes WHERE change_id <= ?1", [up_to]).map(drop)
    }
}
