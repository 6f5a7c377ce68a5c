//! Sessions: rows of logins that can be restored.

use super::{Store, StoreResult, id, time};
use crate::ids::{ServerTime, SessionId, UserId};
use rusqlite::Row;
use std::net::IpAddr;

/// A row of `sessions`. Holds the digest of a secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub session: SessionId,
    /// Its user.
    pub user: UserId,
    /// SHA-256 of the secret.
    pub digest: Vec<u8>,
    /// When LOGIN created it.
    pub created: ServerTime,
    /// When it was last used; accurate to about an hour.
    pub used: ServerTime,
    /// The address that last used it.
    pub address: String,
}

const COLUMNS: &str = "session_id, user_id, digest, created, used, address";

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        session: id(SessionId::from_row, 0, row.get(0)?)?,
        user: id(UserId::from_row, 1, row.get(1)?)?,
        digest: row.get(2)?,
        created: time(row, 3)?,
        used: time(row, 4)?,
        address: row.get(5)?,
    })
}

impl Store<'_> {
    /// Adds a session.
    ///
    /// # Errors
    /// As every write.
    pub fn add_session(
        &mut self,
        user: UserId,
        digest: &[u8],
        now: ServerTime,
        address: &str,
    ) -> StoreResult<SessionId> {
        let row = self.insert(
            "INSERT INTO sessions (user_id, digest, created, used, address)
             VALUES (?1, ?2, ?3, ?3, ?4)",
            (user.row(), digest, now.micros(), address),
        )?;
        Ok(id(SessionId::from_row, 0, row)?)
    }

    /// Addresses that last used sessions, latest first, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn session_addresses(&mut self, limit: usize) -> StoreResult<Vec<IpAddr>> {
        let sql = "SELECT DISTINCT address FROM (SELECT address FROM sessions
                   ORDER BY used DESC LIMIT ?1)";
        let texts: Vec<String> = self.all(sql, [limit as i64], |row| row.get(0))?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// The session with this id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn session(&mut self, session_id: SessionId) -> StoreResult<Option<Session>> {
        let sql = format!("SELECT {COLUMNS} FROM sessions WHERE session_id = ?1");
        self.get(&sql, [session_id.row()], session)
    }

    /// The sessions of a user, or of all users, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sessions(&mut self, user: Option<UserId>) -> StoreResult<Vec<Session>> {
        match user {
            Some(user) => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM sessions WHERE user_id = ?1 ORDER BY session_id"
                );
                self.all(&sql, [user.row()], session)
            }
            None => self.all(
                &format!("SELECT {COLUMNS} FROM sessions ORDER BY session_id"),
                [],
                session,
            ),
        }
    }

    /// Stores that a session was used.
    ///
    /// # Errors
    /// As every write.
    pub fn touch_session(
        &mut self,
        session_id: SessionId,
        now: ServerTime,
        address: &str,
    ) -> StoreResult<()> {
        let sql = "UPDATE sessions SET used = ?2, address = ?3 WHERE session_id = ?1";
        self.run(sql, (session_id.row(), now.micros(), address)).map(drop)
    }

    /// Ends a session. False when there is none.
    ///
    /// # Errors
    /// As every write.
    pub fn end_session(&mut self, session_id: SessionId) -> StoreResult<bool> {
        let sql = "DELETE FROM sessions WHERE session_id = ?1";
        self.run(sql, [session_id.row()]).map(|rows| rows > 0)
    }

    /// Ends the sessions of a user, except one to keep.
    ///
    /// # Errors
    /// As every write.
    pub fn end_sessions(&mut self, user: UserId, keep: Option<SessionId>) -> StoreResult<()> {
        let sql = "DELETE FROM sessions WHERE user_id = ?1 AND session_id <> ?2";
        self.run(sql, (user.row(), keep.map_or(0, SessionId::row))).map(drop)
    }

    /// Up to `limit` sessions not used since `before`, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sessions_unused_since(
        &mut self,
        before: ServerTime,
        limit: u32,
    ) -> StoreResult<Vec<SessionId>> {
        self.all(
            "SELECT session_id FROM sessions WHERE used < ?1 ORDER BY used LIMIT ?2",
            (before.micros(), limit),
            |row| id(SessionId::from_row, 0, row.get(0)?),
        )
    }
}
