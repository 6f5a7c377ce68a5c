//! The use of daily limits per user, kept across restarts.

use super::{Store, StoreResult};
use crate::ids::UserId;

/// What a user has used on one day of UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// Days since the Unix epoch.
    pub day: i64,
    /// Bytes of text sent and edited.
    pub bytes: u64,
    /// Groups created.
    pub groups: u32,
}

impl Store<'_> {
    /// What a user has used on this day.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn used(&mut self, user: UserId, day: i64) -> StoreResult<Used> {
        let sql = "SELECT text_bytes, groups_made FROM ledger WHERE user_id = ?1 AND day = ?2";
        let used = self.get(sql, (user.row(), day), |row| {
            let bytes: i64 = row.get(0)?;
            Ok(Used { day, bytes: bytes.unsigned_abs(), groups: row.get(1)? })
        })?;
        Ok(used.unwrap_or(Used { day, bytes: 0, groups: 0 }))
    }

    /// Stores what a user has used; replaces that of another day.
    ///
    /// # Errors
    /// As every write.
    pub fn set_used(&mut self, user: UserId, used: Used) -> StoreResult<()> {
        let bytes = i64::try_from(used.bytes).unwrap_or(i64::MAX);
        let sql = "INSERT OR REPLACE INTO ledger (user_id, day, text_bytes, groups_made)
                   VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, (user.row(), used.day, bytes, used.groups)).map(drop)
    }

    /// Removes up to `limit` rows of other days; those of later days are of a clock that was wrong.
    ///
    /// # Errors
    /// As every write.
    pub fn forget_used(&mut self, today: i64, limit: usize) -> StoreResult<()> {
        let sql = "SELECT user_id FROM ledger WHERE day < ?1 OR day > ?1 LIMIT ?2";
        let users: Vec<i64> = self.all(sql, (today, limit as i64), |row| row.get(0))?;
        let sql = "DELETE FROM ledger WHERE user_id = ?1";
        users.into_iter().try_for_each(|user| self.run(sql, [user]).map(drop))
    }
}
