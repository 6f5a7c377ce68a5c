//! Reset codes: one-time codes for a new password, at most one per user.

use super::{Store, StoreResult};
use crate::ids::{ServerTime, UserId};

impl Store<'_> {
    /// Sets the code of a user by its digest, replacing an earlier one.
    ///
    /// # Errors
    /// As every write.
    pub fn set_reset_code(
        &mut self,
        user: UserId,
        digest: &[u8],
        expires: ServerTime,
        created: ServerTime,
    ) -> StoreResult<()> {
        let sql = "INSERT OR REPLACE INTO reset_codes (user_id, digest, expires, created)
                   VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, (user.row(), digest, expires.micros(), created.micros())).map(drop)
    }

    /// The digest of a user's code, if it has not expired.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn reset_code(&mut self, user: UserId, now: ServerTime) -> StoreResult<Option<Vec<u8>>> {
        let sql = "SELECT digest FROM reset_codes WHERE user_id = ?1 AND expires > ?2";
        self.get(sql, (user.row(), now.micros()), |row| row.get(0))
    }

    /// Sets a new password, which ends the user's reset code.
    ///
    /// # Errors
    /// As every write.
    pub fn change_password(&mut self, user: UserId, stored: &str) -> StoreResult<()> {
        self.set_password(user, stored)?;
        self.run("DELETE FROM reset_codes WHERE user_id = ?1", [user.row()]).map(drop)
    }

    /// Deletes the codes that have expired.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_expired_reset_codes(&mut self, now: ServerTime) -> StoreResult<()> {
        let sql = "SELECT 1 FROM reset_codes WHERE expires <= ?1 LIMIT 1";
        if self.get(sql, [now.micros()], |_| Ok(()))?.is_some() {
            self.run("DELETE FROM reset_codes WHERE expires <= ?1", [now.micros()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;
    use crate::store::messages::tests::at;

    #[test]
    fn a_code_ends_with_its_time_the_next_code_and_the_next_password() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let user = store.add_user("anna", "anna", "x", at(1)).expect("stored").expect("free");
        store.set_reset_code(user, &[1; 32], at(10), at(1)).expect("stored");
        assert_eq!(store.reset_code(user, at(9)), Ok(Some(vec![1; 32])));
        assert_eq!(store.reset_code(user, at(10)), Ok(None));
        store.set_reset_code(user, &[2; 32], at(20), at(2)).expect("stored");
        assert_eq!(store.reset_code(user, at(9)), Ok(Some(vec![2; 32])));
        store.set_password(user, "the same, hashed anew").expect("stored");
        assert_eq!(store.reset_code(user, at(9)), Ok(Some(vec![2; 32])));
        store.change_password(user, "y").expect("stored");
        assert_eq!(store.reset_code(user, at(9)), Ok(None));
        store.set_reset_code(user, &[3; 32], at(20), at(2)).expect("stored");
        store.remove_expired_reset_codes(at(19)).expect("stored");
        assert_eq!(store.reset_code(user, at(9)), Ok(Some(vec![3; 32])));
        store.remove_expired_reset_codes(at(20)).expect("stored");
        assert_eq!(store.reset_code(user, at(9)), Ok(None));
    }
}
