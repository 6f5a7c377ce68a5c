//! Invites: codes that let somebody register, kept as digests.

use super::{Store, StoreResult, time};
use crate::ids::ServerTime;
use rusqlite::Row;

/// A row of `invites`, without its digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invite {
    /// The first characters of the code.
    pub hint: String,
    /// How many more may register with it.
    pub uses_left: u32,
    /// Until when.
    pub expires: ServerTime,
    /// When it was made.
    pub created: ServerTime,
}

fn invite(row: &Row<'_>) -> rusqlite::Result<Invite> {
    Ok(Invite {
        hint: row.get(0)?,
        uses_left: row.get(1)?,
        expires: time(row, 2)?,
        created: time(row, 3)?,
    })
}

impl Store<'_> {
    /// Adds an invite.
    ///
    /// # Errors
    /// As every write.
    pub fn add_invite(&mut self, digest: &[u8], new: &Invite) -> StoreResult<()> {
        self.run(
            "INSERT INTO invites (digest, hint, uses_left, expires, created)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            (digest, &new.hint, new.uses_left, new.expires.micros(), new.created.micros()),
        )
        .map(drop)
    }

    /// All invites, the newest last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn invites(&mut self) -> StoreResult<Vec<Invite>> {
        let sql = "SELECT hint, uses_left, expires, created FROM invites ORDER BY created";
        self.all(sql, [], invite)
    }

    /// Whether an invite can be used now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_invite_good(&mut self, digest: &[u8], now: ServerTime) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM invites WHERE digest = ?1 AND uses_left > 0 AND expires > ?2";
        Ok(self.get(sql, (digest, now.micros()), |_| Ok(()))?.is_some())
    }

    /// Uses an invite once; false when it cannot be used.
    ///
    /// # Errors
    /// As every write.
    pub fn use_invite(&mut self, digest: &[u8], now: ServerTime) -> StoreResult<bool> {
        let sql = "UPDATE invites SET uses_left = uses_left - 1
                   WHERE digest = ?1 AND uses_left > 0 AND expires > ?2";
        self.run(sql, (digest, now.micros())).map(|rows| rows > 0)
    }

    /// Takes away up to `limit` invites that nobody can use any more for their age.
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

    /// Takes an invite away; false when there is none.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_invite(&mut self, digest: &[u8]) -> StoreResult<bool> {
        self.run("DELETE FROM invites WHERE digest = ?1", [digest]).map(|rows| rows > 0)
    }

    /// Takes away the invites whose code begins so; says how many.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_invites_with_hint(&mut self, hint: &str) -> StoreResult<usize> {
        self.run("DELETE FROM invites WHERE hint = ?1", [hint])
    }
}
