//! Push subscriptions: at most one endpoint per session.

use super::{Store, StoreResult, id};
use crate::ids::{ServerTime, SessionId, UserId};

/// A row of `push_subscriptions`. Holds keys of a browser, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The session; the subscription ends with it.
    pub session: SessionId,
    /// The address at the push service.
    pub endpoint: String,
    /// The browser's public key, an uncompressed point of P-256.
    pub p256dh: Vec<u8>,
    /// The secret that authenticates pushes to the browser.
    pub auth: Vec<u8>,
}

impl Store<'_> {
    /// Sets the endpoint of a session, replacing an earlier one.
    ///
    /// # Errors
    /// As every write.
    pub fn set_subscription(&mut self, new: &Subscription, created: ServerTime) -> StoreResult<()> {
        let sql = "INSERT OR REPLACE INTO push_subscriptions
                   (session_id, endpoint, p256dh, auth, created) VALUES (?1, ?2, ?3, ?4, ?5)";
        let Subscription { session, endpoint, p256dh, auth } = new;
        self.run(sql, (session.row(), endpoint, p256dh, auth, created.micros())).map(drop)
    }

    /// The subscription of a session.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn subscription(&mut self, session: SessionId) -> StoreResult<Option<Subscription>> {
        let sql = "SELECT endpoint, p256dh, auth FROM push_subscriptions WHERE session_id = ?1";
        self.get(sql, [session.row()], |row| {
            let (endpoint, p256dh, auth) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Subscription { session, endpoint, p256dh, auth })
        })
    }

    /// The subscriptions of all sessions of a user, by session.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn subscriptions_of(&mut self, user: UserId) -> StoreResult<Vec<Subscription>> {
        let sql = "SELECT p.session_id, p.endpoint, p.p256dh, p.auth
                   FROM sessions s JOIN push_subscriptions p USING (session_id)
                   WHERE s.user_id = ?1 ORDER BY p.session_id";
        self.all(sql, [user.row()], |row| {
            Ok(Subscription {
                session: id(SessionId::from_row, 0, row.get(0)?)?,
                endpoint: row.get(1)?,
                p256dh: row.get(2)?,
                auth: row.get(3)?,
            })
        })
    }

    /// Ends the subscription of a session. False when it has none.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_subscription(&mut self, session: SessionId) -> StoreResult<bool> {
        let sql = "DELETE FROM push_subscriptions WHERE session_id = ?1";
        self.run(sql, [session.row()]).map(|rows| rows > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    #[test]
    fn a_session_has_one_subscription_that_ends_with_it() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let now = ServerTime::new(1).expect("positive");
        let user = store.add_user("anna", "anna", "x", now).expect("stored").expect("free");
        let session = store.add_session(user, &[7; 32], now, "::1").expect("stored");
        let new = |endpoint: &str| Subscription {
            session,
            endpoint: endpoint.to_owned(),
            p256dh: vec![4; 65],
            auth: vec![5; 16],
        };
        store.set_subscription(&new("https://a/1"), now).expect("stored");
        store.set_subscription(&new("https://a/2"), now).expect("stored");
        assert!(store.subscription(session) == Ok(Some(new("https://a/2"))));
        assert_eq!(store.subscriptions_of(user).expect("read").len(), 1);
        assert_eq!(store.remove_subscription(session), Ok(true));
        assert_eq!(store.remove_subscription(session), Ok(false));
        store.set_subscription(&new("https://a/3"), now).expect("stored");
        store.end_session(session).expect("stored");
        assert!(store.subscriptions_of(user).expect("read").is_empty());
    }
}
