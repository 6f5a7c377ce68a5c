//! Removal of many messages, a slice at a time: those of removed chats, and expired ones.

use super::checksum;
use super::search::WORDS_PER_SLICE;
use super::{Store, StoreResult, id, time};
use crate::ids::{ChatId, MessageId, ServerTime};

/// Words removed from the index per slice where they are only marked,
const WORDS_PER_LIGHT_SLICE: usize = 8_192;
/// and bytes of content removed per slice in any case.
const CONTENT_BYTES_PER_SLICE: i64 = 512 * 1024;

/// Chats passed by one slice of a sweep: about a millisecond of work.
const ORPHANS_LOOKED_FOR: u32 = 256;

/// The progress of a sweep: over messages, then over nonces, chat by chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    is_at_nonces: bool,
    from: i64,
}

/// A message that is about to be removed.
struct Oldest {
    message: MessageId,
    status: u8,
    /// Its content if it is indexed; the inner `None` when that is damaged.
    indexed: Option<Option<String>>,
}

/// The next removed chat that has left rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Orphan {
    /// This one.
    Here(i64),
    /// From this one on, if there is any.
    NotBefore(i64),
    /// There is none.
    Nowhere,
}

impl Store<'_> {
    /// Removes up to `limit` messages or nonces of removed chats; fewer when they are indexed,
    /// which takes longer, or when many chats are passed on the way. False when none is left after
    /// the sweep's position.
    ///
    /// # Errors
    /// As every write.
    pub fn sweep_messages(&mut self, sweep: &mut Sweep, limit: u32) -> StoreResult<bool> {
        let table = if sweep.is_at_nonces { "nonces" } else { "messages" };
        let orphan = match self.orphan_chat(table, sweep.from, ORPHANS_LOOKED_FOR)? {
            Orphan::Here(chat) => chat,
            Orphan::NotBefore(from) => {
                sweep.from = from;
                return Ok(true);
            }
            Orphan::Nowhere => {
                let was_at_nonces = sweep.is_at_nonces;
                *sweep = Sweep { is_at_nonces: true, from: 0 };
                return Ok(!was_at_nonces);
            }
        };
        sweep.from = orphan;
        if sweep.is_at_nonces {
            let sql = "DELETE FROM nonces WHERE (chat_id, user_id, nonce) IN
                       (SELECT chat_id, user_id, nonce FROM nonces WHERE chat_id = ?1 LIMIT ?2)";
            self.run(sql, (orphan, limit))?;
        } else {
            self.remove_messages(orphan, ServerTime::MAX, limit)?;
        }
        Ok(true)
    }

    /// Removes up to `limit` expired messages of one chat; fewer when they are indexed. Their
    /// nonces stay, since a repeated send must not restore them. Returns the chat and the last
    /// message removed; `None` when no chat has any.
    ///
    /// # Errors
    /// As every write.
    pub fn expire_messages(
        &mut self,
        now: ServerTime,
        limit: u32,
    ) -> StoreResult<Option<(ChatId, ServerTime)>> {
        let sql = "SELECT c.chat_id, ?1 - c.keep_days * 86400000000
                   FROM chats c INDEXED BY chats_kept WHERE c.keep_days > 0 AND EXISTS
                     (SELECT 1 FROM messages m WHERE m.chat_id = c.chat_id
                      AND m.message_id < ?1 - c.keep_days * 86400000000)
                   LIMIT 1";
        let found = self.get(sql, [now.micros()], |row| {
            Ok((id(ChatId::from_row, 0, row.get(0)?)?, time(row, 1)?))
        })?;
        let Some((chat, first_kept)) = found else { return Ok(None) };
        let last = self.remove_messages(chat.row(), first_kept.previous(), limit)?;
        if let Some(last) = last {
            self.note_deletion(chat, last)?;
            let sql = "UPDATE chats SET last_message = 0 WHERE chat_id = ?1 AND last_message <= ?2";
            self.run(sql, (chat.row(), last.micros()))?;
        }
        Ok(last.map(|last| (chat, last)))
    }

    /// Removes the oldest messages of a chat and their words in the index: those created up to
    /// `last`, up to `limit`; fewer when they have many words. Returns the last one removed.
    fn remove_messages(
        &mut self,
        chat: i64,
        last: ServerTime,
        limit: u32,
    ) -> StoreResult<Option<ServerTime>> {
        let oldest = self.oldest_messages(chat, last, limit)?;
        let mut words_left = if self.is_light() { WORDS_PER_LIGHT_SLICE } else { WORDS_PER_SLICE };
        let mut removed = None;
        for Oldest { message, status, indexed } in oldest {
            self.remove_extras(chat, message, status)?;
            removed = Some(message.created());
            if let Some(content) = indexed {
                let words = self.take_from_index(chat, message, content.as_deref())?;
                words_left = words_left.saturating_sub(words);
            }
            if words_left == 0 {
                break;
            }
        }
        if let Some(removed) = removed {
            let sql = "DELETE FROM messages WHERE chat_id = ?1 AND message_id <= ?2";
            self.run(sql, (chat, removed.micros()))?;
        }
        Ok(removed)
    }

    /// The oldest messages of a chat, with the content of those that are indexed.
    fn oldest_messages(
        &mut self,
        chat: i64,
        last: ServerTime,
        limit: u32,
    ) -> StoreResult<Vec<Oldest>> {
        let sql = "SELECT m.message_id, m.sender_id, m.status, m.content, m.checksum,
                          r.message_id IS NOT NULL, octet_length(m.content)
                   FROM messages m LEFT JOIN search_rows r ON r.message_id = m.message_id
                   WHERE m.chat_id = ?1 AND m.message_id <= ?2 ORDER BY m.message_id LIMIT ?3";
        let (mut oldest, mut bytes) = (Vec::new(), 0);
        self.each(sql, (chat, last.micros(), limit), |row| {
            let created = time(row, 0)?;
            let status = row.get_ref(2)?.as_i64().unwrap_or_default() as u8;
            let indexed = if row.get(5)? {
                let content = checksum::read_content(row, [1, 2, 3, 4], chat, created.micros())?;
                Some(content.map(str::to_owned))
            } else {
                None
            };
            // Content that is not indexed is not read, only overwritten.
            bytes += row.get_ref(6)?.as_i64().unwrap_or_default();
            oldest.push(Oldest { message: MessageId::at(created), status, indexed });
            Ok(bytes < CONTENT_BYTES_PER_SLICE)
        })?;
        Ok(oldest)
    }

    /// Finds the first removed chat from `from` on that has rows in a table, visiting a limited
    /// number of chats. Jumps from chat to chat, since a full scan would read every message.
    pub(super) fn orphan_chat(
        &mut self,
        table: &str,
        from: i64,
        chats_max: u32,
    ) -> StoreResult<Orphan> {
        let sql = format!(
            "SELECT chat_id, EXISTS (SELECT 1 FROM chats WHERE chats.chat_id = {table}.chat_id)
             FROM {table} WHERE chat_id >= ?1 ORDER BY chat_id LIMIT 1"
        );
        let mut from = from;
        for _ in 0..chats_max {
            match self.get(&sql, [from], |row| Ok((row.get(0)?, row.get(1)?)))? {
                None => return Ok(Orphan::Nowhere),
                Some((chat, false)) => return Ok(Orphan::Here(chat)),
                Some((chat, true)) => from = chat + 1,
            }
        }
        Ok(Orphan::NotBefore(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;
    use crate::store::Database;
    use crate::store::messages::tests::{at, range, with_store};

    #[test]
    fn messages_older_than_a_chat_keeps_them_go() {
        const DAY_US: i64 = 86_400_000_000;
        with_store(|store, _, user| {
            let mut chats = Vec::new();
            for (name, keep_days) in [("for ever", 0), ("two", 2), ("ten", 10)] {
                let chat = store.add_chat(name, name, None, at(1)).expect("stored").expect("free");
                store.set_chat_policy(chat, 0, keep_days).expect("stored");
                for day in 1..=5 {
                    let id = MessageId::at(at(day * DAY_US + chat.row()));
                    store.add_message(chat, id, user, "x").expect("stored");
                    store.add_nonce(chat, user, day as u64, id).expect("stored");
                }
                chats.push(chat);
            }
            let now = at(5 * DAY_US + 2);
            assert_eq!(store.expire_messages(now, 2), Ok(Some((chats[1], at(2 * DAY_US + 2)))));
            // To the microsecond: messages of exactly that age stay.
            assert_eq!(store.expire_messages(now, 2), Ok(None));
            let counts = chats.iter().map(|&chat| range(store, chat, 0, i64::MAX).len());
            assert_eq!(counts.collect::<Vec<_>>(), [5, 3, 5]);
            assert!(store.message_by_nonce(chats[1], user, 1).expect("read").is_some());
        });
    }

    #[test]
    fn a_sweep_passes_a_few_chats_at_a_time() {
        with_store(|store, _, user| {
            let many = ORPHANS_LOOKED_FOR + 7;
            for n in 1..=many {
                let name = n.to_string();
                let chat =
                    store.add_chat(&name, &name, None, at(1)).expect("stored").expect("free");
                let message = MessageId::at(at(n.into()));
                store.add_message(chat, message, user, "stays").expect("stored");
            }
            let gone = ChatId::new(many + 1).expect("not 0");
            store.add_message(gone, MessageId::at(at(many.into())), user, "goes").expect("stored");
            let mut sweep = Sweep::default();
            assert_eq!(store.sweep_messages(&mut sweep, 100), Ok(true));
            assert_eq!(range(store, gone, 0, i64::MAX).len(), 1, "not reached yet");
            assert_eq!(store.sweep_messages(&mut sweep, 100), Ok(true));
            assert_eq!(range(store, gone, 0, i64::MAX).len(), 0);
            while store.sweep_messages(&mut sweep, 100).expect("swept") {}
            assert_eq!(range(store, ChatId::new(1).expect("not 0"), 0, i64::MAX).len(), 1);
        });
    }

    /// Where words are only marked, searches do not find them at once, and after the complete merge
    /// the index does not contain them.
    #[test]
    fn words_that_leave_lightly_are_gone_once_the_index_is_assembled() {
        use crate::store::search::Unindexed;
        let database = Database::in_memory().expect("memory");
        let store = &mut Store::new(&database).expect("tables");
        let (gone, user) = (ChatId::new(7).expect("not 0"), UserId::new(9).expect("not 0"));
        let chat = store.add_chat("a", "a", None, at(1)).expect("stored").expect("free");
        for n in 1..=300 {
            let (chat, word) = if n % 3 == 0 { (chat, "stays") } else { (gone, "leaves") };
            let content = format!("{word} {word}{n}");
            let message = MessageId::at(at(n));
            store.add_message(chat, message, user, &content).expect("stored");
            store.index(&mut [Unindexed { chat, message, content }]).expect("indexed");
            if n % 50 == 0 {
                store.commit().expect("committed");
            }
        }
        let terms = |store: &mut Store<'_>| {
            store.count("SELECT count(*) FROM search_terms WHERE term LIKE 'leaves%'")
        };
        assert_eq!(terms(store), Ok(400));
        let mut sweep = Sweep::default();
        loop {
            store.begin_light().expect("begun");
            let more = store.sweep_messages(&mut sweep, 70).expect("swept");
            store.end_light().expect("ended");
            store.commit().expect("committed");
            if !more {
                break;
            }
        }
        assert_eq!(store.left_index(), 200);
        let found = |store: &mut Store<'_>, word: &str| {
            let bounds = (MessageId::at(at(1_000)), ServerTime::ZERO);
            let words = [vec![word.to_owned()]];
            store.search(&words, bounds.0, bounds.1, 500).expect("found").len()
        };
        assert_eq!((found(store, "leaves"), found(store, "stays")), (0, 100));
        let blocks = "SELECT count(*) FROM search_data WHERE instr(block, 'leaves') > 0";
        assert!(store.count(blocks).expect("read") > 0, "they are only marked");
        assert_eq!(store.is_index_unassembled(), Ok(true));
        store.begin_assembling().expect("begun");
        while store.merge_search().expect("merged") {}
        store.note_assembled().expect("noted");
        store.commit().expect("committed");
        assert_eq!(store.count(blocks), Ok(0));
        assert_eq!((found(store, "leaves"), found(store, "stays")), (0, 100));
        // Words of a single deletion are overwritten again.
        store.delete_message(chat, MessageId::at(at(3)), at(1_001)).expect("deleted");
        while store.settle_pending(None).expect("settled") {}
        store.commit().expect("committed");
        let term = "SELECT count(*) FROM search_terms WHERE term = 'stays3'";
        assert_eq!((store.count(term), found(store, "stays3")), (Ok(0), 0));
        let setting = "SELECT v FROM search_config WHERE k = 'secure-delete'";
        assert_eq!(store.count(setting), Ok(1));
    }

    #[test]
    fn messages_of_a_chat_that_is_gone_are_swept() {
        with_store(|store, gone, user| {
            let chat = store.add_chat("a", "a", None, at(1)).expect("stored").expect("free");
            for n in 1..=5 {
                store.add_message(chat, MessageId::at(at(n)), user, "stays").expect("stored");
                store.add_message(gone, MessageId::at(at(n + 10)), user, "x").expect("stored");
            }
            store.add_nonce(gone, user, u64::MAX, MessageId::at(at(11))).expect("stored");
            let mut sweep = Sweep::default();
            let mut slices = 0;
            while store.sweep_messages(&mut sweep, 2).expect("swept") {
                slices += 1;
            }
            assert_eq!(slices, 5, "three of messages, their end, one of nonces");
            assert!(store.message_by_nonce(gone, user, u64::MAX).expect("read").is_none());
            assert_eq!(store.last_message(gone), Ok(ServerTime::ZERO));
            assert_eq!(range(store, chat, 0, 100).len(), 5);
        });
    }
}
