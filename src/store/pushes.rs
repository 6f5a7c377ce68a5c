//! Pushes in the database: the server's key, the pending pushes, and what the push decision reads.

use zeroize::Zeroizing;

use super::subscriptions::Subscription;
use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};
use crate::wire::codec::STATUS_DELETED;

/// Bytes of text read in one slice; above it, the slice ends.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of texts with an `@` in one slice: those are searched for mentions, which takes longer.
const MARKED_BYTES_MAX: usize = 32 * 1024;

/// A row of `push_pending`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingPush {
    /// The session with the subscription.
    pub session: SessionId,
    /// The chat.
    pub chat: ChatId,
    /// The newest message.
    pub message: MessageId,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// Not to be sent before this time.
    pub due: ServerTime,
}

/// A message, as the push decision needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushMessage {
    /// Its id.
    pub id: MessageId,
    /// Its author.
    pub sender: UserId,
    /// Its text.
    pub text: String,
    /// It was deleted.
    pub is_deleted: bool,
    /// Its author is an admin of the chat.
    pub by_admin: bool,
    /// The author of the message that it answers.
    pub answers: Option<UserId>,
}

/// A slice of the messages of a chat.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PushMessages {
    /// The messages, newest first.
    pub found: Vec<PushMessage>,
    /// The time up to which the older ones go on; `None`: the slice was the last.
    pub rest: Option<ServerTime>,
    /// Bytes of the texts with an `@`.
    pub marked_bytes: usize,
}

/// A member with a subscription, as the push decision needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushMember {
    /// The user.
    pub user: UserId,
    /// The present nickname.
    pub nickname: String,
    /// The push level.
    pub notify: u8,
    /// The read marker.
    pub seen: ServerTime,
    /// The session that has the subscription.
    pub session: SessionId,
    /// The endpoint of the subscription.
    pub endpoint: String,
}

/// A slice of the members of a chat.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PushMembers {
    /// Members with subscriptions, one entry for each subscription.
    pub found: Vec<PushMember>,
    /// The last member scanned; `None`: the slice was the last.
    pub next: Option<UserId>,
    /// How many members and subscriptions were scanned.
    pub scanned: u32,
}

/// Everything needed to send a push.
pub struct PushContext {
    /// The subscription.
    pub subscription: Subscription,
    /// The recipient.
    pub member: PushMember,
    /// The message.
    pub message: PushMessage,
    /// The present nickname of its author.
    pub sender_name: String,
    /// The title of the chat, or else its name; `None` for a direct chat.
    pub chat_title: Option<String>,
    /// The row status of the message, for its extras.
    pub row_status: u8,
}

/// The columns of a [`PushMessage`], from the row `g` of messages: id, sender, status, content,
/// whether an admin wrote it, author of the answered message.
const MESSAGE: &str = "g.message_id, g.sender_id, g.status, g.content,
    EXISTS (SELECT 1 FROM members a
            WHERE a.chat_id = g.chat_id AND a.user_id = g.sender_id AND a.admin = 1),
    CASE WHEN g.status & 16 = 0 THEN NULL ELSE
        (SELECT o.sender_id FROM replies r
         JOIN messages o ON o.chat_id = r.chat_id AND o.message_id = r.reply_to
         WHERE r.chat_id = g.chat_id AND r.message_id = g.message_id) END";

fn message(row: &rusqlite::Row<'_>) -> rusqlite::Result<PushMessage> {
    let status: u8 = row.get(2)?;
    let answers: Option<i64> = row.get(5)?;
    Ok(PushMessage {
        id: MessageId::at(time(row, 0)?),
        sender: id(UserId::from_row, 1, row.get(1)?)?,
        text: row.get(3)?,
        is_deleted: status & STATUS_DELETED != 0,
        by_admin: row.get(4)?,
        answers: answers.and_then(UserId::from_row),
    })
}

impl Store<'_> {
    /// The server's key pair, as PKCS#8; `None` before the first start with pushes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn push_key(&mut self) -> StoreResult<Option<Zeroizing<Vec<u8>>>> {
        self.get("SELECT pkcs8 FROM push_key", [], |row| row.get(0).map(Zeroizing::new))
    }

    /// Stores the server's key pair, unless there is one.
    ///
    /// # Errors
    /// As every write.
    pub fn add_push_key(&mut self, pkcs8: &[u8], created: ServerTime) -> StoreResult<()> {
        let sql = "INSERT OR IGNORE INTO push_key (id, pkcs8, created) VALUES (1, ?1, ?2)";
        self.run(sql, (pkcs8, created.micros())).map(drop)
    }

    /// The time up to which messages were scanned for pushes; `None`: never.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn push_decided(&mut self) -> StoreResult<Option<ServerTime>> {
        Ok(self.meta("push_decided")?.and_then(ServerTime::new))
    }

    /// Stores the time up to which messages were scanned for pushes.
    ///
    /// # Errors
    /// As every write.
    pub fn set_push_decided(&mut self, upto: ServerTime) -> StoreResult<()> {
        self.set_meta("push_decided", upto.micros())
    }

    /// Number of subscriptions.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_subscriptions(&mut self) -> StoreResult<u64> {
        let sql = "SELECT count(*) FROM push_subscriptions";
        let count: Option<i64> = self.get(sql, [], |row| row.get(0))?;
        Ok(count.unwrap_or_default().unsigned_abs())
    }

    /// The newest messages of a chat above `after` and up to `upto`: `limit` of them, or fewer long
    /// ones.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn push_messages(
        &mut self,
        chat: ChatId,
        after: ServerTime,
        upto: ServerTime,
        limit: u32,
    ) -> StoreResult<PushMessages> {
        let sql = format!(
            "SELECT {MESSAGE} FROM messages g
             WHERE g.chat_id = ?1 AND g.message_id > ?2 AND g.message_id <= ?3
             ORDER BY g.message_id DESC LIMIT ?4"
        );
        let (mut read, mut text_bytes) = (PushMessages::default(), 0);
        self.each(&sql, (chat.row(), after.micros(), upto.micros(), limit), |row| {
            let message = message(row)?;
            text_bytes += message.text.len();
            if message.text.contains('@') {
                read.marked_bytes += message.text.len();
            }
            let oldest = message.id.created();
            read.found.push(message);
            let is_full = read.found.len() as u64 >= u64::from(limit)
                || text_bytes >= TEXT_BYTES_MAX
                || read.marked_bytes >= MARKED_BYTES_MAX;
            read.rest = is_full.then(|| oldest.previous());
            Ok(!is_full)
        })?;
        Ok(read)
    }

    /// The first message of a chat after a time.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn first_message_after(
        &mut self,
        chat: ChatId,
        after: ServerTime,
    ) -> StoreResult<Option<ServerTime>> {
        let sql = "SELECT min(message_id) FROM messages WHERE chat_id = ?1 AND message_id > ?2";
        let first: Option<Option<i64>> =
            self.get(sql, (chat.row(), after.micros()), |row| row.get(0))?;
        Ok(first.flatten().and_then(ServerTime::new))
    }

    /// Scans members of a chat above `after`, by id, for their subscriptions. Ends behind the
    /// member with whom the members and subscriptions scanned reach `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn push_members(
        &mut self,
        chat: ChatId,
        after: Option<UserId>,
        limit: u32,
    ) -> StoreResult<PushMembers> {
        let sql = "SELECT m.user_id, u.nickname, m.notify, m.seen FROM members m
                   JOIN users u USING (user_id)
                   WHERE m.chat_id = ?1 AND m.user_id > ?2 ORDER BY m.user_id LIMIT ?3";
        let read = self.all(sql, (chat.row(), after.map_or(0, UserId::row), limit), |row| {
            let user = id(UserId::from_row, 0, row.get(0)?)?;
            Ok((user, row.get::<_, String>(1)?, row.get(2)?, time(row, 3)?))
        })?;
        let is_cut = read.len() as u64 >= u64::from(limit);
        let mut members = PushMembers::default();
        for (user, nickname, notify, seen) in read {
            if members.scanned >= limit {
                return Ok(members);
            }
            let sql = "SELECT p.session_id, p.endpoint FROM sessions s
                       JOIN push_subscriptions p USING (session_id) WHERE s.user_id = ?1";
            let before = members.found.len();
            self.each(sql, [user.row()], |row| {
                members.found.push(PushMember {
                    user,
                    nickname: nickname.clone(),
                    notify,
                    seen,
                    session: id(SessionId::from_row, 0, row.get(0)?)?,
                    endpoint: row.get(1)?,
                });
                Ok(true)
            })?;
            members.scanned += 1 + (members.found.len() - before) as u32;
            members.next = Some(user);
        }
        members.next = members.next.filter(|_| is_cut);
        Ok(members)
    }

    /// Adds a pending push. If there is one with the same chat and subscription, the newer message
    /// is kept.
    ///
    /// # Errors
    /// As every write.
    pub fn add_push(&mut self, new: &PendingPush) -> StoreResult<()> {
        let sql = "INSERT INTO push_pending (session_id, chat_id, message_id, attempts, due)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (session_id, chat_id) DO UPDATE SET message_id = excluded.message_id
                   WHERE excluded.message_id > message_id";
        let PendingPush { session, chat, message, attempts, due } = new;
        let created = message.created().micros();
        self.run(sql, (session.row(), chat.row(), created, attempts, due.micros())).map(drop)
    }

    /// Stores a failed attempt.
    ///
    /// # Errors
    /// As every write.
    pub fn delay_push(
        &mut self,
        session: SessionId,
        chat: ChatId,
        attempts: u32,
        due: ServerTime,
    ) -> StoreResult<()> {
        let sql = "UPDATE push_pending SET attempts = ?3, due = ?4
                   WHERE session_id = ?1 AND chat_id = ?2";
        self.run(sql, (session.row(), chat.row(), attempts, due.micros())).map(drop)
    }

    /// Removes the pending push of a chat and a subscription, if it is for this message or an older
    /// one.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_push(
        &mut self,
        session: SessionId,
        chat: ChatId,
        upto: MessageId,
    ) -> StoreResult<()> {
        let sql = "DELETE FROM push_pending
                   WHERE session_id = ?1 AND chat_id = ?2 AND message_id <= ?3";
        self.run(sql, (session.row(), chat.row(), upto.created().micros())).map(drop)
    }

    /// Up to `limit` pending pushes, in the order in which they are due, with their endpoints.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn pending_pushes(&mut self, limit: usize) -> StoreResult<Vec<(PendingPush, String)>> {
        let sql = "SELECT w.session_id, w.chat_id, w.message_id, w.attempts, w.due, p.endpoint
                   FROM push_pending w JOIN push_subscriptions p USING (session_id)
                   ORDER BY w.due LIMIT ?1";
        self.all(sql, [limit as i64], |row| {
            let pending = PendingPush {
                session: id(SessionId::from_row, 0, row.get(0)?)?,
                chat: id(ChatId::from_row, 1, row.get(1)?)?,
                message: MessageId::at(time(row, 2)?),
                attempts: row.get(3)?,
                due: time(row, 4)?,
            };
            Ok((pending, row.get(5)?))
        })
    }

    /// The data to push a message to a subscription; `None`: the subscription, membership or
    /// message is gone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn push_context(
        &mut self,
        session: SessionId,
        chat: ChatId,
        of: MessageId,
    ) -> StoreResult<Option<PushContext>> {
        let sql = format!(
            "SELECT {MESSAGE}, m.user_id, u.nickname, m.notify, m.seen,
                    p.endpoint, p.p256dh, p.auth, w.nickname,
                    CASE WHEN c.kind = 1 THEN NULL WHEN c.title = '' THEN c.name ELSE c.title END
             FROM push_subscriptions p
             JOIN sessions s USING (session_id)
             JOIN users u ON u.user_id = s.user_id
             JOIN members m ON m.chat_id = ?2 AND m.user_id = s.user_id
             JOIN chats c ON c.chat_id = m.chat_id
             JOIN messages g ON g.chat_id = m.chat_id AND g.message_id = ?3
             JOIN users w ON w.user_id = g.sender_id
             WHERE p.session_id = ?1"
        );
        self.get(&sql, (session.row(), chat.row(), of.created().micros()), |row| {
            let endpoint: String = row.get(10)?;
            let member = PushMember {
                user: id(UserId::from_row, 6, row.get(6)?)?,
                nickname: row.get(7)?,
                notify: row.get(8)?,
                seen: time(row, 9)?,
                session,
                endpoint: endpoint.clone(),
            };
            let (p256dh, auth) = (row.get(11)?, row.get(12)?);
            Ok(PushContext {
                subscription: Subscription { session, endpoint, p256dh, auth },
                member,
                message: message(row)?,
                sender_name: row.get(13)?,
                chat_title: row.get(14)?,
                row_status: row.get(2)?,
            })
        })
    }

    /// Number of a user's chats with unread messages. Scans at most `limit` chats, and the newest
    /// 100 messages behind the marker in each.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_new_chats(&mut self, user: UserId, limit: u32) -> StoreResult<u32> {
        let sql = "SELECT count(*) FROM (SELECT chat_id, seen FROM members
                                         WHERE user_id = ?1 LIMIT ?2) m
                   WHERE EXISTS (SELECT 1 FROM (SELECT sender_id, status FROM messages g
                          WHERE g.chat_id = m.chat_id AND g.message_id > m.seen
                          ORDER BY g.message_id DESC LIMIT 100)
                       WHERE sender_id <> ?1 AND status & 2 = 0)";
        let count = self.get(sql, (user.row(), limit), |row| row.get(0))?;
        Ok(count.unwrap_or_default())
    }

    /// Ends a subscription, unless its endpoint has changed. False when there is none.
    ///
    /// # Errors
    /// As every write.
    pub fn end_subscription(&mut self, session: SessionId, endpoint: &str) -> StoreResult<bool> {
        let sql = "DELETE FROM push_subscriptions WHERE session_id = ?1 AND endpoint = ?2";
        self.run(sql, (session.row(), endpoint)).map(|rows| rows > 0)
    }
}
