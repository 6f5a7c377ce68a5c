//! Users: names, password hashes, and whether they are disabled.

use super::{Store, StoreResult, id, time};
use crate::ids::{ServerTime, UserId};
use crate::names::Skeletons;
use crate::wire::answer::USER_BOT;
use rusqlite::Row;

/// A row of `users`. Holds a password hash, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub user: UserId,
    /// As given, in NFC.
    pub nickname: String,
    /// The stored form of the password.
    pub password: String,
    /// Cannot log in.
    pub disabled: bool,
    /// When it was created.
    pub created: ServerTime,
    /// The stored bits of protocol section 5a: operator and bot.
    pub flags: u8,
}

impl User {
    /// Whether the user can log in: bots and disabled users cannot.
    pub const fn can_log_in(&self) -> bool {
        !self.disabled && self.flags & USER_BOT == 0
    }
}

const COLUMNS: &str = "user_id, nickname, password, disabled, created, flags";

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        user: id(UserId::from_row, 0, row.get(0)?)?,
        nickname: row.get(1)?,
        password: row.get(2)?,
        disabled: row.get(3)?,
        created: time(row, 4)?,
        flags: row.get(5)?,
    })
}

impl Store<'_> {
    /// The user with this name key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn user_by_key(&mut self, key: &str) -> StoreResult<Option<User>> {
        self.get(&format!("SELECT {COLUMNS} FROM users WHERE name_key = ?1"), [key], user)
    }

    /// The user with this id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn user(&mut self, user_id: UserId) -> StoreResult<Option<User>> {
        self.get(&format!("SELECT {COLUMNS} FROM users WHERE user_id = ?1"), [user_id.row()], user)
    }

    /// Whether there is a user other than bots: those cannot log in, and the command line adds
    /// them before anyone has registered.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_users(&mut self) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM users WHERE flags & 8 = 0 LIMIT 1";
        Ok(self.get(sql, [], |_| Ok(()))?.is_some())
    }

    /// All users, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn users(&mut self) -> StoreResult<Vec<User>> {
        self.all(&format!("SELECT {COLUMNS} FROM users ORDER BY name_key"), [], user)
    }

    /// The highest id that a user ever had.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn highest_user_id(&mut self) -> StoreResult<Option<UserId>> {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'users'";
        Ok(self.get(sql, [], |row| row.get(0))?.and_then(UserId::from_row))
    }

    /// Up to `limit` users whose name key has the prefix `prefix` and is above `after`, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn users_by_prefix(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u16,
    ) -> StoreResult<Vec<User>> {
        // Everything with the prefix sorts before the prefix followed by the highest character.
        let sql = format!(
            "SELECT {COLUMNS} FROM users WHERE name_key >= ?1 AND name_key > ?2 AND name_key < ?3
             ORDER BY name_key LIMIT ?4"
        );
        let end = format!("{prefix}\u{10FFFF}");
        self.all(&sql, (prefix, after.unwrap_or_default(), end, limit), user)
    }

    /// Sets or clears bits of a user's flags.
    ///
    /// # Errors
    /// As every write.
    pub fn set_user_flag(&mut self, user_id: UserId, flag: u8, is_on: bool) -> StoreResult<()> {
        let sql = if is_on {
            "UPDATE users SET flags = flags | ?2 WHERE user_id = ?1"
        } else {
            "UPDATE users SET flags = flags & ~?2 WHERE user_id = ?1"
        };
        self.run(sql, (user_id.row(), flag)).map(drop)
    }

    /// Adds a user; `None` when the name, or one that looks like it, is taken.
    ///
    /// # Errors
    /// As every write.
    pub fn add_user(
        &mut self,
        nickname: &str,
        key: &str,
        password: &str,
        created: ServerTime,
    ) -> StoreResult<Option<UserId>> {
        if self.is_login_taken(nickname, key, None)? {
            return Ok(None);
        }
        let row = self.insert(
            "INSERT INTO users (nickname, name_key, password, created) VALUES (?1, ?2, ?3, ?4)",
            (nickname, key, password, created.micros()),
        )?;
        self.set_skeletons(row, nickname)?;
        Ok(UserId::from_row(row))
    }

    /// Adds a row without a name, which [`Self::retire_user`] names before the COMMIT: a removed
    /// account is named after its id.
    ///
    /// # Errors
    /// As every write.
    pub fn add_unnamed_user(&mut self, created: ServerTime) -> StoreResult<UserId> {
        let sql =
            "INSERT INTO users (nickname, name_key, password, created) VALUES ('', '', '', ?1)";
        let row = self.insert(sql, [created.micros()])?;
        Ok(id(UserId::from_row, 0, row)?)
    }

    /// Whether a login belongs to a user other than `except`, or looks like it, or like the name of
    /// a removed account, which no user may choose (protocol section 7).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_login_taken(
        &mut self,
        nickname: &str,
        key: &str,
        except: Option<UserId>,
    ) -> StoreResult<bool> {
        let looks = Skeletons::of(nickname);
        Ok(looks.are_of_removed() || self.is_login_of_another(nickname, key, except)?)
    }

    /// Whether a login belongs to a user other than `except`, or looks like it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_login_of_another(
        &mut self,
        nickname: &str,
        key: &str,
        except: Option<UserId>,
    ) -> StoreResult<bool> {
        let looks = Skeletons::of(nickname);
        let except = except.map_or(0, UserId::row);
        let sql = "SELECT 1 FROM users WHERE name_key = ?1 AND user_id <> ?4
                   UNION ALL SELECT 1 FROM skeletons WHERE stored = ?2 AND user_id <> ?4
                   UNION ALL SELECT 1 FROM skeletons WHERE lower = ?3 AND user_id <> ?4
                   LIMIT 1";
        let given = (key, &looks.stored, &looks.lower, except);
        Ok(self.get(sql, given, |_| Ok(()))?.is_some())
    }

    /// Stores the skeletons of a login.
    fn set_skeletons(&mut self, user: i64, nickname: &str) -> StoreResult<()> {
        let looks = Skeletons::of(nickname);
        let sql = "INSERT OR REPLACE INTO skeletons (user_id, stored, lower) VALUES (?1, ?2, ?3)";
        self.run(sql, (user, &looks.stored, &looks.lower)).map(drop)
    }

    /// Replaces the stored form of the password.
    ///
    /// # Errors
    /// As every write.
    pub fn set_password(&mut self, user_id: UserId, password: &str) -> StoreResult<()> {
        let sql = "UPDATE users SET password = ?2 WHERE user_id = ?1";
        self.run(sql, (user_id.row(), password)).map(drop)
    }

    /// Enables or disables a user.
    ///
    /// # Errors
    /// As every write.
    pub fn set_disabled(&mut self, user_id: UserId, disabled: bool) -> StoreResult<()> {
        let sql = "UPDATE users SET disabled = ?2 WHERE user_id = ?1";
        self.run(sql, (user_id.row(), disabled)).map(drop)
    }

    /// Renames a user; the caller has checked that the name is free.
    ///
    /// # Errors
    /// As every write.
    pub fn rename_user(&mut self, user_id: UserId, nickname: &str, key: &str) -> StoreResult<()> {
        let sql = "UPDATE users SET nickname = ?2, name_key = ?3 WHERE user_id = ?1";
        self.run(sql, (user_id.row(), nickname, key))?;
        self.set_skeletons(user_id.row(), nickname)
    }

    /// Reduces an account to the row that its messages refer to: disabled, renamed, and with a
    /// password that nobody knows.
    ///
    /// # Errors
    /// As every write.
    pub fn retire_user(
        &mut self,
        user_id: UserId,
        nickname: &str,
        key: &str,
        password: &str,
    ) -> StoreResult<()> {
        self.rename_user(user_id, nickname, key)?;
        self.change_password(user_id, password)?;
        self.run("UPDATE users SET flags = 0 WHERE user_id = ?1", [user_id.row()])?;
        self.run("DELETE FROM hooks WHERE user_id = ?1", [user_id.row()])?;
        self.set_disabled(user_id, true)
    }
}
