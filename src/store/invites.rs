//! Invites: codes to register or to join a chat, stored as digests.

use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, ServerTime, UserId};
use rusqlite::Row;

/// Invites in one list, oldest first, at most.
pub const LISTED_INVITES_MAX: u32 = 10_000;

/// A row of `invites`, without the digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invite {
    /// The prefix of the code that lists show.
    pub hint: String,
    /// Number of uses left.
    pub uses_left: u32,
    /// When it expires.
    pub expires: ServerTime,
    /// When it was created.
    pub created: ServerTime,
    /// It allows registration.
    pub registers: bool,
    /// The user registered with it becomes an operator, even if registration is closed. It is void
    /// as soon as there is a user.
    pub operator: bool,
    /// The chat that its user joins.
    pub chat: Option<ChatId>,
    /// The user who made it; `None`: the command line.
    pub creator: Option<UserId>,
}

impl Invite {
    /// Whether it can be used now, as far as its row shows.
    pub fn is_good(&self, now: ServerTime) -> bool {
        self.uses_left > 0 && self.expires > now
    }
}

const COLUMNS: &str = "hint, uses_left, expires, created, registers, operator, chat_id, creator";

/// The condition of invites that users have not made void: those that create operators count as
/// not there as soon as there is a user, as [`Store::has_users`] counts them.
const NOT_VOID: &str = "(operator = 0 OR NOT EXISTS (SELECT 1 FROM users WHERE flags & 8 = 0))";

/// The digest and the rest of a row.
pub type Found = (Vec<u8>, Invite);

fn invite(row: &Row<'_>) -> rusqlite::Result<Invite> {
    let chat: Option<i64> = row.get(6)?;
    Ok(Invite {
        hint: row.get(0)?,
        uses_left: row.get(1)?,
        expires: time(row, 2)?,
        created: time(row, 3)?,
        registers: row.get(4)?,
        operator: row.get(5)?,
        chat: chat.map(|chat| id(ChatId::from_row, 6, chat)).transpose()?,
        creator: UserId::from_row(row.get(7)?),
    })
}

impl Store<'_> {
    /// Whether there is an invite that creates an operator.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_first_invites(&mut self) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM invites WHERE operator = 1 LIMIT 1";
        Ok(self.get(sql, [], |_| Ok(()))?.is_some())
    }

    /// Removes all invites that create operators.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_first_invites(&mut self) -> StoreResult<()> {
        self.run("DELETE FROM invites WHERE operator = 1", []).map(drop)
    }

    /// Adds an invite by the digest of its code.
    ///
    /// # Errors
    /// As every write.
    pub fn add_invite(&mut self, digest: &[u8], new: &Invite) -> StoreResult<()> {
        self.run(
            "INSERT INTO invites (digest, hint, uses_left, expires, created, registers, operator,
                                  chat_id, creator)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            (
                digest,
                &new.hint,
                new.uses_left,
                new.expires.micros(),
                new.created.micros(),
                new.registers,
                new.operator,
                new.chat.map(ChatId::row),
                new.creator.map_or(0, UserId::row),
            ),
        )
        .map(drop)
    }

    /// All invites but void ones, newest last.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn invites(&mut self) -> StoreResult<Vec<Invite>> {
        let sql = format!("SELECT {COLUMNS} FROM invites WHERE {NOT_VOID} ORDER BY created, hint");
        self.all(&sql, [], invite)
    }

    /// Invites that can be used now, of one chat or of all, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn good_invites(
        &mut self,
        chat: Option<ChatId>,
        now: ServerTime,
    ) -> StoreResult<Vec<Invite>> {
        let bounds = (chat.map(ChatId::row), now.micros(), LISTED_INVITES_MAX);
        let which = if chat.is_some() { "chat_id = ?1" } else { "?1 IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS} FROM invites
             WHERE {which} AND uses_left > 0 AND expires > ?2 AND {NOT_VOID}
             ORDER BY created, hint LIMIT ?3"
        );
        self.all(&sql, bounds, invite)
    }

    /// The invite with this digest, unless it is void.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn invite(&mut self, digest: &[u8]) -> StoreResult<Option<Invite>> {
        let sql = format!("SELECT {COLUMNS} FROM invites WHERE digest = ?1 AND {NOT_VOID}");
        self.get(&sql, [digest], invite)
    }

    /// The invites whose code has this prefix, with their digests. New invites have unique
    /// prefixes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn invites_with_hint(&mut self, hint: &str) -> StoreResult<Vec<Found>> {
        let sql = format!("SELECT {COLUMNS}, digest FROM invites WHERE hint = ?1 LIMIT 100");
        self.all(&sql, [hint], |row| Ok((row.get(8)?, invite(row)?)))
    }

    /// The number of a user's invites and of all invites, used ones included; both are counted to a
    /// little over [`LISTED_INVITES_MAX`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn invite_counts(&mut self, creator: UserId) -> StoreResult<(u32, u32)> {
        let sql = "SELECT count(*) FILTER (WHERE creator = ?1), count(*)
                   FROM (SELECT creator FROM invites LIMIT ?2)";
        let bounds = (creator.row(), LISTED_INVITES_MAX + 1);
        Ok(self.get(sql, bounds, |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or_default())
    }

    /// Uses an invite once. False when it cannot be used.
    ///
    /// # Errors
    /// As every write.
    pub fn use_invite(&mut self, digest: &[u8], now: ServerTime) -> StoreResult<bool> {
        let sql = "UPDATE invites SET uses_left = uses_left - 1
                   WHERE digest = ?1 AND uses_left > 0 AND expires > ?2";
        self.run(sql, (digest, now.micros())).map(|rows| rows > 0)
    }

    /// Deletes up to `limit` invites that have expired.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_expired_invites(&mut self, now: ServerTime, limit: u32) -> StoreResult<()> {
        let sql = "SELECT digest FROM invites WHERE expires <= ?1 LIMIT ?2";
        for digest in self.all(sql, (now.micros(), limit), |row| row.get::<_, Vec<u8>>(0))? {
            self.remove_invite(&digest)?;
        }
        Ok(())
    }

    /// Removes an invite. False when there is none.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_invite(&mut self, digest: &[u8]) -> StoreResult<bool> {
        self.run("DELETE FROM invites WHERE digest = ?1", [digest]).map(|rows| rows > 0)
    }

    /// Deletes the invites to a chat.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_invites_of(&mut self, chat: ChatId) -> StoreResult<()> {
        self.run("DELETE FROM invites WHERE chat_id = ?1", [chat.row()]).map(drop)
    }

    /// Removes the invites whose code has this prefix. Returns their number.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_invites_with_hint(&mut self, hint: &str) -> StoreResult<usize> {
        self.run("DELETE FROM invites WHERE hint = ?1", [hint])
    }
}
