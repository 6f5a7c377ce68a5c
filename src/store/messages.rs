//! Messages: one clustered tree by chat and id, and an index of those changed later.

use super::checksum::{self, read_message};
use super::extras::{self, HAS_EXTRAS, WIRE_STATUS};
use super::{Store, StoreResult, error, id, time};
use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::wire::codec::{Message, STATUS_DELETED, STATUS_EDITED};
use crate::wire::extras::Extras;
use rusqlite::{Connection, Row};

pub(super) const INSERT: &str =
    "INSERT INTO messages (chat_id, message_id, sender_id, content, checksum)
     VALUES (?1, ?2, ?3, ?4, ?5)";

/// Messages in a range of creation times. Those changed later are included and must be skipped: if
/// SQLite skipped them, a call could take unboundedly long.
const UPDATED: &str =
    "SELECT message_id, sender_id, updated, status, content, checksum FROM messages
     WHERE chat_id = ?1 AND message_id BETWEEN ?2 AND ?3
     ORDER BY message_id";

/// The same, merged with those changed in the range. Each half is ordered by itself; without this,
/// SQLite would sort the whole range for each piece.
const UPDATED_WITH_CHANGES: &str =
    "SELECT message_id, sender_id, updated, status, content, checksum, message_id AS at
     FROM messages
     WHERE chat_id = ?1 AND message_id BETWEEN ?2 AND ?3
     UNION ALL
     SELECT message_id, sender_id, updated, status, content, checksum, updated AS at
     FROM messages INDEXED BY messages_updated
     WHERE chat_id = ?1 AND updated BETWEEN ?2 AND ?3 AND updated IS NOT NULL
     ORDER BY at";

/// Messages skipped by one walk before it stops: a few hundred microseconds of work.
pub(super) const PASSED_OVER_MAX: u32 = 4_096;

/// Bytes of content whose skipping costs as much as one more message.
const PASSED_OVER_BYTES: usize = 256;

/// Passes a message, as read from its row, to `use_it` with its extras. Most have none, and then no
/// other table is read.
#[inline]
fn with_extras<T>(
    db: &Connection,
    chat: ChatId,
    message: Message<'_>,
    buffer: &mut Vec<u8>,
    use_it: impl FnOnce(&Message<'_>) -> T,
) -> rusqlite::Result<T> {
    if message.status & HAS_EXTRAS == 0 {
        return Ok(use_it(&message));
    }
    buffer.clear();
    extras::read(db, chat.row(), message.id, message.status, buffer)?;
    let status = message.status & WIRE_STATUS;
    Ok(use_it(&Message { status, extras: Extras::trusted(buffer), ..message }))
}

/// The author and status of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageState {
    /// The author.
    pub sender: UserId,
    /// Bits of protocol section 1.
    pub status: u8,
    /// The status bits of the row: these, and those that refer to other tables.
    pub row_status: u8,
    /// When it was last changed.
    pub updated: ServerTime,
}

impl MessageState {
    /// Whether files are part of it.
    pub const fn has_files(&self) -> bool {
        self.row_status & extras::HAS_FILES != 0
    }
}

/// How far a walk over a range has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Where to continue: the message at which `each` returned false, which counts as not passed
    /// on, or the point where too many were skipped. `None`: the walk is complete.
    pub stopped_at: Option<ServerTime>,
    /// Messages skipped because they were changed later; long ones count several times.
    pub passed_over: u32,
}

impl Store<'_> {
    /// Stores a new message; its id is the time of its creation. The hot path: binds without
    /// copying, and neither prepares nor looks up anything.
    ///
    /// # Errors
    /// As every write.
    pub fn add_message(
        &mut self,
        chat: ChatId,
        new: MessageId,
        sender: UserId,
        content: &str,
    ) -> StoreResult<()> {
        self.begin_write()?;
        let (chat, message, sender) = (chat.row(), new.created().micros(), sender.row());
        let checksum = checksum::of(chat, message, sender, 0, content.as_bytes());
        let row = (chat, message, sender, content, checksum);
        self.insert_message.execute(row).map_err(|e| error::explain(self.db, e))?;
        Ok(())
    }

    /// Passes the messages of a chat with `from <= updated <= to`, ascending by `updated`, to
    /// `each` until it returns false. A walk over many that were changed later stops by itself, but
    /// always makes progress.
    ///
    /// Messages never changed are in the order of their ids; the others come from the index, which
    /// is merged in.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn messages_updated(
        &mut self,
        chat: ChatId,
        from: ServerTime,
        to: ServerTime,
        mut each: impl FnMut(&Message<'_>) -> bool,
    ) -> StoreResult<Walk> {
        let has_changes = self.has_changed_messages(chat, from, to)?;
        let damage = self.damage;
        let mut walk = Walk { stopped_at: None, passed_over: 0 };
        let (db, mut extras) = (self.db, Vec::new());
        let visit = |row: &Row<'_>| {
            let updated: Option<i64> = row.get(2)?;
            if updated.is_some() && !(has_changes && row.get_ref(0)? != row.get_ref(6)?) {
                if walk.passed_over >= PASSED_OVER_MAX {
                    walk.stopped_at = Some(time(row, 0)?);
                    return Ok(false);
                }
                let content_bytes = row.get_ref(4)?.as_bytes().map_or(0, <[u8]>::len);
                walk.passed_over += 1 + (content_bytes / PASSED_OVER_BYTES) as u32;
                return Ok(true);
            }
            let message = read_message(row, chat, damage)?;
            if with_extras(db, chat, message, &mut extras, &mut each)? {
                return Ok(true);
            }
            walk.stopped_at = Some(message.updated);
            Ok(false)
        };
        let sql = if has_changes { UPDATED_WITH_CHANGES } else { UPDATED };
        self.each(sql, (chat.row(), from.micros(), to.micros()), visit)?;
        Ok(walk)
    }

    fn has_changed_messages(
        &mut self,
        chat: ChatId,
        from: ServerTime,
        to: ServerTime,
    ) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM messages INDEXED BY messages_updated
                   WHERE chat_id = ?1 AND updated BETWEEN ?2 AND ?3 AND updated IS NOT NULL";
        let range = (chat.row(), from.micros(), to.micros());
        Ok(self.get(sql, range, |_| Ok(()))?.is_some())
    }

    /// Passes the messages of a chat created from `from` to `to`, ascending, to `each` until it
    /// returns false. Then returns that message, which counts as not passed on.
    /// [`Store::page_start`] finds the start of a page.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn messages_by_id(
        &mut self,
        chat: ChatId,
        from: MessageId,
        to: MessageId,
        mut each: impl FnMut(&Message<'_>) -> bool,
    ) -> StoreResult<Option<MessageId>> {
        let (damage, mut stopped) = (self.damage, None);
        let (db, mut extras) = (self.db, Vec::new());
        let sql = "SELECT message_id, sender_id, updated, status, content, checksum FROM messages
                   WHERE chat_id = ?1 AND message_id BETWEEN ?2 AND ?3 ORDER BY message_id";
        let range = (chat.row(), from.created().micros(), to.created().micros());
        self.each(sql, range, |row| {
            let message = read_message(row, chat, damage)?;
            if with_extras(db, chat, message, &mut extras, &mut each)? {
                return Ok(true);
            }
            stopped = Some(message.id);
            Ok(false)
        })?;
        Ok(stopped)
    }

    /// The oldest of the newest `limit` messages of a chat up to `last`, that one included.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page_start(
        &mut self,
        chat: ChatId,
        last: MessageId,
        limit: u16,
    ) -> StoreResult<Option<MessageId>> {
        let Some(before) = limit.checked_sub(1) else { return Ok(None) };
        // Walks over ids only; SQLite need not read the rows.
        let sql = "SELECT message_id FROM messages WHERE chat_id = ?1 AND message_id <= ?2
                   ORDER BY message_id DESC LIMIT 1 OFFSET ?3";
        let last = last.created().micros();
        let start = self.get(sql, (chat.row(), last, before), |row| time(row, 0))?;
        let start = match start {
            Some(start) => Some(start),
            None => {
                let sql = "SELECT message_id FROM messages WHERE chat_id = ?1 AND message_id <= ?2
                           ORDER BY message_id LIMIT 1";
                self.get(sql, (chat.row(), last), |row| time(row, 0))?
            }
        };
        Ok(start.map(MessageId::at))
    }

    /// The newest of the oldest `limit` messages of a chat that are newer than `after`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page_end(
        &mut self,
        chat: ChatId,
        after: MessageId,
        limit: u16,
    ) -> StoreResult<Option<MessageId>> {
        let Some(before) = limit.checked_sub(1) else { return Ok(None) };
        let sql = "SELECT message_id FROM messages WHERE chat_id = ?1 AND message_id > ?2
                   ORDER BY message_id LIMIT 1 OFFSET ?3";
        let after = after.created().micros();
        if let Some(end) = self.get(sql, (chat.row(), after, before), |row| time(row, 0))? {
            return Ok(Some(MessageId::at(end)));
        }
        let sql = "SELECT message_id FROM messages WHERE chat_id = ?1 AND message_id > ?2
                   ORDER BY message_id DESC LIMIT 1";
        let end = self.get(sql, (chat.row(), after), |row| time(row, 0))?;
        Ok(end.map(MessageId::at))
    }

    /// The newest `limit` messages of a chat older than `below`, newest first, without deleted
    /// ones; fewer when many are deleted. Also how many were skipped, and the upper bound of the
    /// next call; `None` at the end.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn messages_before(
        &mut self,
        chat: ChatId,
        below: MessageId,
        limit: usize,
    ) -> StoreResult<(Vec<MessageId>, usize, Option<MessageId>)> {
        let sql = "SELECT message_id, status FROM messages
                   WHERE chat_id = ?1 AND message_id < ?2 ORDER BY message_id DESC";
        let (mut found, mut passed_over, mut next) = (Vec::new(), 0, None);
        self.each(sql, (chat.row(), below.created().micros()), |row| {
            let message = MessageId::at(time(row, 0)?);
            if row.get::<_, u8>(1)? & STATUS_DELETED == 0 {
                found.push(message);
            } else {
                passed_over += 1;
            }
            let is_enough = found.len() >= limit || passed_over >= PASSED_OVER_MAX as usize;
            next = is_enough.then_some(message);
            Ok(!is_enough)
        })?;
        Ok((found, passed_over, next))
    }

    /// Passes a message to `use_it`, unless it does not exist or is deleted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn with_message<T>(
        &mut self,
        chat: ChatId,
        id: MessageId,
        use_it: impl FnOnce(&Message<'_>) -> T,
    ) -> StoreResult<Option<T>> {
        let sql = "SELECT message_id, sender_id, updated, status, content, checksum FROM messages
                   WHERE chat_id = ?1 AND message_id = ?2 AND status & 2 = 0";
        let (db, damage) = (self.db, self.damage);
        self.get(sql, (chat.row(), id.created().micros()), |row| {
            with_extras(db, chat, read_message(row, chat, damage)?, &mut Vec::new(), use_it)
        })
    }

    /// The author and status of a message.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn message_state(
        &mut self,
        chat: ChatId,
        message: MessageId,
    ) -> StoreResult<Option<MessageState>> {
        let sql = "SELECT sender_id, status, updated FROM messages
                   WHERE chat_id = ?1 AND message_id = ?2";
        self.get(sql, (chat.row(), message.created().micros()), |row| {
            let row_status: u8 = row.get(1)?;
            let updated: Option<i64> = row.get(2)?;
            Ok(MessageState {
                sender: id(UserId::from_row, 0, row.get(0)?)?,
                status: row_status & WIRE_STATUS,
                row_status,
                updated: updated.and_then(ServerTime::new).unwrap_or(message.created()),
            })
        })
    }

    /// Replaces the content of a message; its old words will be removed from the index.
    ///
    /// # Errors
    /// As every write.
    pub fn edit_message(
        &mut self,
        chat: ChatId,
        message: MessageId,
        updated: ServerTime,
        content: &str,
    ) -> StoreResult<()> {
        self.replace_content(chat, message, updated, STATUS_EDITED, content)
    }

    /// Empties a message. The row stays, since ranges and pages contain it; its words will be
    /// removed from the index.
    ///
    /// # Errors
    /// As every write.
    pub fn delete_message(
        &mut self,
        chat: ChatId,
        message: MessageId,
        updated: ServerTime,
    ) -> StoreResult<()> {
        if let Some(state) = self.message_state(chat, message)?
            && state.row_status & HAS_EXTRAS != 0
        {
            self.remove_extras(chat.row(), message, state.row_status)?;
            self.set_status_bit(chat, message, HAS_EXTRAS, false)?;
        }
        self.replace_content(chat, message, updated, STATUS_DELETED, "")?;
        self.note_deletion(chat, message.created())
    }

    fn replace_content(
        &mut self,
        chat: ChatId,
        message: MessageId,
        updated: ServerTime,
        status: u8,
        content: &str,
    ) -> StoreResult<()> {
        let key = (chat.row(), message.created().micros());
        self.begin_write()?;
        let sql = "SELECT sender_id, status, content, checksum FROM messages
                   WHERE chat_id = ?1 AND message_id = ?2";
        let found = self.get(sql, key, |row| {
            let old = checksum::read_content(row, [0, 1, 2, 3], key.0, key.1)?;
            let status = row.get_ref(1)?.as_i64().unwrap_or_default();
            Ok((row.get::<_, i64>(0)?, status as u8, old.map(str::to_owned)))
        })?;
        let Some((sender, old_status, old)) = found else { return Ok(()) };
        self.retire_from_index(chat, message, old.as_deref())?;
        let checksum = checksum::of(key.0, key.1, sender, old_status | status, content.as_bytes());
        let sql = "UPDATE messages SET updated = ?3, status = status | ?4, content = ?5,
                   checksum = ?6 WHERE chat_id = ?1 AND message_id = ?2";
        let changed = (key.0, key.1, updated.micros(), status, content, checksum);
        self.run(sql, changed).map(drop)
    }

    /// The message that this user sent to this chat with this nonce (the idempotency key).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn message_by_nonce(
        &mut self,
        chat: ChatId,
        user: UserId,
        nonce: u64,
    ) -> StoreResult<Option<MessageId>> {
        let sql = "SELECT message_id FROM nonces
                   WHERE chat_id = ?1 AND user_id = ?2 AND nonce = ?3";
        let found = self.get(sql, (chat.row(), user.row(), nonce as i64), |row| time(row, 0))?;
        Ok(found.map(MessageId::at))
    }

    /// Stores the nonce of a message.
    ///
    /// # Errors
    /// As every write.
    pub fn add_nonce(
        &mut self,
        chat: ChatId,
        user: UserId,
        nonce: u64,
        message: MessageId,
    ) -> StoreResult<()> {
        let sql =
            "INSERT INTO nonces (chat_id, user_id, nonce, message_id) VALUES (?1, ?2, ?3, ?4)";
        let row = (chat.row(), user.row(), nonce as i64, message.created().micros());
        self.run(sql, row).map(drop)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::Database;

    pub(crate) fn at(micros: i64) -> ServerTime {
        ServerTime::new(micros).expect("positive")
    }

    pub(crate) fn with_store(test: impl FnOnce(&mut Store<'_>, ChatId, UserId)) {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        test(&mut store, ChatId::new(7).expect("not 0"), UserId::new(9).expect("not 0"));
    }

    pub(crate) fn range(
        store: &mut Store<'_>,
        chat: ChatId,
        from: i64,
        to: i64,
    ) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        let walk = store.messages_updated(chat, at(from), at(to), |m| {
            found.push((m.updated.micros(), m.content.to_owned()));
            true
        });
        assert_eq!(walk.map(|walk| walk.stopped_at), Ok(None));
        found
    }

    #[test]
    fn a_range_is_ascending_by_updated_with_changes_merged_in() {
        with_store(|store, chat, user| {
            for n in 1..=5 {
                let content = format!("m{n}");
                store.add_message(chat, MessageId::at(at(n * 10)), user, &content).expect("stored");
            }
            store.edit_message(chat, MessageId::at(at(20)), at(35), "edited").expect("stored");
            store.delete_message(chat, MessageId::at(at(10)), at(60)).expect("stored");
            let texts = |list: Vec<(i64, String)>| {
                list.into_iter().map(|(t, c)| format!("{t}{c}")).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(texts(range(store, chat, 0, 100)), "30m3 35edited 40m4 50m5 60");
            assert_eq!(texts(range(store, chat, 31, 59)), "35edited 40m4 50m5");
            assert_eq!(texts(range(store, chat, 36, 50)), "40m4 50m5");
            assert_eq!(texts(range(store, chat, 50, 40)), "");
        });
    }

    #[test]
    fn a_range_is_read_in_order_and_never_sorted() {
        let database = Database::in_memory().expect("memory");
        for sql in [UPDATED, UPDATED_WITH_CHANGES] {
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let mut plan = database.connection().prepare(&plan).expect("a plan");
            let steps = plan.query_map((1, 2, 3), |row| row.get::<_, String>(3));
            let steps = steps.and_then(Iterator::collect::<Result<Vec<_>, _>>).expect("steps");
            assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
        }
    }

    #[test]
    fn what_was_changed_is_passed_over_a_part_at_a_time() {
        with_store(|store, chat, user| {
            let many = i64::from(PASSED_OVER_MAX) * 2;
            for n in 1..=many + 2 {
                store.add_message(chat, MessageId::at(at(n)), user, "x").expect("stored");
            }
            for n in 2..=many + 1 {
                let updated = at(many * 2 + n);
                if n % 2 == 0 {
                    store.edit_message(chat, MessageId::at(at(n)), updated, "y").expect("stored");
                } else {
                    store.delete_message(chat, MessageId::at(at(n)), updated).expect("stored");
                }
            }
            // Once without changes in the range, once with one, at its end.
            for (to, more) in [(many * 2, None), (many * 2 + 2, Some(many * 2 + 2))] {
                let (mut from, mut found, mut walks, mut passed_over) = (at(1), Vec::new(), 0, 0);
                loop {
                    let walk = store.messages_updated(chat, from, at(to), |message| {
                        found.push(message.updated.micros());
                        true
                    });
                    let walk = walk.expect("read");
                    walks += 1;
                    passed_over += i64::from(walk.passed_over);
                    let Some(stopped_at) = walk.stopped_at else { break };
                    assert!(stopped_at > from);
                    from = stopped_at;
                }
                assert_eq!((walks, passed_over), (2, many));
                assert_eq!(
                    found,
                    [Some(1), Some(many + 2), more].into_iter().flatten().collect::<Vec<_>>()
                );
            }
            let (mut below, mut found, mut walks) = (MessageId::at(ServerTime::MAX), Vec::new(), 0);
            loop {
                let (some, _, next) =
                    store.messages_before(chat, below, many as usize).expect("read");
                found.extend(some.iter().map(|message| message.get()));
                walks += 1;
                let Some(next) = next else { break };
                below = next;
            }
            assert_eq!((walks, found.len()), (2, many as usize / 2 + 2));
            assert!(
                found.is_sorted_by(|a, b| a > b) && found.iter().all(|n| n % 2 == 0 || *n == 1)
            );
        });
    }

    #[test]
    fn a_page_is_the_newest_before() {
        with_store(|store, chat, user| {
            for n in 1..=5 {
                store.add_message(chat, MessageId::at(at(n * 10)), user, "x").expect("stored");
            }
            let last = MessageId::at(at(39));
            assert_eq!(store.page_start(chat, last, 2), Ok(Some(MessageId::at(at(20)))));
            assert_eq!(store.page_start(chat, last, 3), Ok(Some(MessageId::at(at(10)))));
            assert_eq!(store.page_start(chat, last, 100), Ok(Some(MessageId::at(at(10)))));
            assert_eq!(store.page_start(chat, last, 0), Ok(None));
            assert_eq!(store.page_start(chat, MessageId::at(at(9)), 2), Ok(None));
            assert_eq!(store.last_message(chat), Ok(at(50)));
        });
    }

    #[test]
    fn a_rolled_back_turn_leaves_nothing() {
        with_store(|store, chat, user| {
            store.add_message(chat, MessageId::at(at(10)), user, "x").expect("stored");
            assert!(store.has_written());
            store.roll_back();
            assert_eq!(store.last_message(chat), Ok(ServerTime::ZERO));
            assert_eq!(store.commit(), Ok(false));
        });
    }
}
