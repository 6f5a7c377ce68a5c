//! Verification of messages and files against their checksums: by `check`, by a backup before it is
//! renamed, and slowly by the server, which also adds checksums to rows of older versions.

use super::{Store, StoreResult, checksum};

/// Bytes of content after which a slice ends.
const BYTES_PER_SLICE: usize = 256 * 1024;

/// The position of a walk over all messages: the last one verified, by its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    chat: i64,
    message: i64,
}

/// The result of one slice of the walk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Where to continue; `None` at the end.
    pub next: Option<Cursor>,
    /// Damaged messages, by chat and id.
    pub damaged: Vec<(i64, i64)>,
    /// Messages without a checksum, with the computed one.
    missing: Vec<(i64, i64, u32)>,
}

/// The position of a walk over the chunks of all files: the last one verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChunkCursor {
    file: i64,
    start: i64,
}

impl ChunkCursor {
    /// Before the first one.
    pub const FIRST: Self = Self { file: 0, start: -1 };
}

/// The result of one slice of that walk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifiedChunks {
    /// Where to continue; `None` at the end.
    pub next: Option<ChunkCursor>,
    /// Damaged chunks, by file and offset.
    pub damaged: Vec<(i64, i64)>,
    /// Chunks without a checksum, with the computed one.
    missing: Vec<(i64, i64, u32)>,
}

impl Store<'_> {
    /// Verifies the next chunks of files after `from`, a few hundred kilobytes. Skips files that
    /// wait to be erased.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn verify_chunks(&mut self, from: ChunkCursor) -> StoreResult<VerifiedChunks> {
        const CHUNKS: u32 = 64;
        let sql = "SELECT file_id, start, bytes, checksum FROM file_chunks
                   WHERE (file_id, start) > (?1, ?2) ORDER BY file_id, start LIMIT ?3";
        let mut found = VerifiedChunks::default();
        let (mut rows, mut bytes) = (0, 0);
        self.each(sql, (from.file, from.start, CHUNKS), |row| {
            let (file, start): (i64, i64) = (row.get(0)?, row.get(1)?);
            rows += 1;
            bytes += row.get_ref(2)?.as_blob().map_or(0, <[u8]>::len);
            match checksum::read_chunk(row, [2, 3], file, start)? {
                None => found.damaged.push((file, start)),
                Some(chunk) if row.get_ref(3)?.as_i64().is_err() => {
                    found.missing.push((file, start, checksum::of_chunk(file, start, chunk)));
                }
                Some(_) => {}
            }
            found.next = Some(ChunkCursor { file, start });
            Ok(bytes < BYTES_PER_SLICE)
        })?;
        if rows < CHUNKS && bytes < BYTES_PER_SLICE {
            found.next = None;
        }
        let sql = "SELECT 1 FROM files_erased WHERE file_id = ?1";
        let mut damaged = Vec::new();
        for (file, start) in std::mem::take(&mut found.damaged) {
            if self.get(sql, [file], |_| Ok(()))?.is_none() {
                damaged.push((file, start));
            }
        }
        Ok(VerifiedChunks { damaged, ..found })
    }

    /// Stores the missing checksums of a slice, except for chunks that have changed since.
    ///
    /// # Errors
    /// As every write.
    pub fn add_chunk_checksums(&mut self, found: &VerifiedChunks) -> StoreResult<()> {
        for row in &found.missing {
            let sql = "UPDATE file_chunks SET checksum = ?3
                       WHERE file_id = ?1 AND start = ?2 AND checksum IS NULL";
            self.run(sql, *row)?;
        }
        Ok(())
    }

    /// Verifies the chunks of all files, each slice in a transaction of its own. Do not call it
    /// within one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn verify_all_chunks(&mut self, mut damaged: impl FnMut(i64, i64)) -> StoreResult<()> {
        let mut cursor = Some(ChunkCursor::FIRST);
        while let Some(from) = cursor {
            let found = self.verify_chunks(from)?;
            self.end_look()?;
            found.damaged.iter().for_each(|&(file, start)| damaged(file, start));
            cursor = found.next;
        }
        Ok(())
    }

    /// Verifies the next messages of all chats after `from`, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn verify_messages(&mut self, from: Cursor, limit: u32) -> StoreResult<Verified> {
        let sql = "SELECT chat_id, message_id, sender_id, status, content, checksum FROM messages
                   WHERE (chat_id, message_id) > (?1, ?2)
                   ORDER BY chat_id, message_id LIMIT ?3";
        let mut found = Verified::default();
        let (mut rows, mut bytes) = (0, 0);
        self.each(sql, (from.chat, from.message, limit), |row| {
            let (chat, message): (i64, i64) = (row.get(0)?, row.get(1)?);
            rows += 1;
            match checksum::read_content(row, [2, 3, 4, 5], chat, message)? {
                None => found.damaged.push((chat, message)),
                Some(content) => {
                    bytes += content.len();
                    if row.get_ref(5)?.as_i64().is_err() {
                        let (sender, status): (i64, u8) = (row.get(2)?, row.get(3)?);
                        let sum = checksum::of(chat, message, sender, status, content.as_bytes());
                        found.missing.push((chat, message, sum));
                    }
                }
            }
            found.next = Some(Cursor { chat, message });
            Ok(bytes < BYTES_PER_SLICE)
        })?;
        if rows < limit && bytes < BYTES_PER_SLICE {
            found.next = None;
        }
        Ok(found)
    }

    /// Stores the missing checksums of a slice, except for rows that have changed since.
    ///
    /// # Errors
    /// As every write.
    pub fn add_checksums(&mut self, found: &Verified) -> StoreResult<()> {
        for row in &found.missing {
            let sql = "UPDATE messages SET checksum = ?3
                       WHERE chat_id = ?1 AND message_id = ?2 AND checksum IS NULL";
            self.run(sql, *row)?;
        }
        Ok(())
    }

    /// Verifies all messages, each slice in a transaction of its own, so that checkpoints are not
    /// held back for long. Do not call it within one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn verify_all_messages(&mut self, mut damaged: impl FnMut(i64, i64)) -> StoreResult<()> {
        const ROWS_PER_SLICE: u32 = 4096;
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let found = self.verify_messages(from, ROWS_PER_SLICE)?;
            self.end_look()?;
            found.damaged.iter().for_each(|&(chat, message)| damaged(chat, message));
            cursor = found.next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChatId, MessageId, ServerTime, UserId};
    use crate::store::Database;
    use crate::store::messages::tests::at;

    #[test]
    fn damage_is_found_isolated_and_can_be_deleted() {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        let user = UserId::new(9).expect("not 0");
        let chat = store.add_chat("a", "a", None, at(1)).expect("stored").expect("free");
        for n in 1..=9 {
            store.add_message(chat, MessageId::at(at(n * 10)), user, "words").expect("stored");
            let content = "words".to_owned();
            let new = crate::store::search::Unindexed {
                chat,
                message: MessageId::at(at(n * 10)),
                content,
            };
            store.index(&mut [new]).expect("indexed");
        }
        store.edit_message(chat, MessageId::at(at(80)), at(95), "edited").expect("stored");
        store.delete_message(chat, MessageId::at(at(90)), at(96)).expect("stored");
        store.commit().expect("committed");
        let harm = "
            UPDATE messages SET content = 'wordz' WHERE message_id = 20;
            UPDATE messages SET content = CAST(x'ff6f' AS TEXT) WHERE message_id = 30;
            UPDATE messages SET sender_id = 4294967296 WHERE message_id = 40;
            UPDATE messages SET status = 300 WHERE message_id = 50;
            UPDATE messages SET checksum = NULL WHERE message_id = 60;
            UPDATE messages SET status = 2 WHERE message_id = 70;";
        database.connection().execute_batch(harm).expect("harmed");
        let mut damaged = Vec::new();
        store.verify_all_messages(|_, message| damaged.push(message)).expect("read");
        assert_eq!(damaged, [20, 30, 40, 50, 70]);
        let mut seen = Vec::new();
        store
            .all_messages(chat, |m| {
                seen.push((m.id.get(), m.content.to_owned(), m.status));
                true
            })
            .expect("read");
        let expected = [
            (10, "words", 0),
            (20, "\u{FFFD}", 0),
            (30, "\u{FFFD}", 0),
            (40, "\u{FFFD}", 0),
            (50, "\u{FFFD}", 0),
            (60, "words", 0),
            (70, "\u{FFFD}", 0),
            (80, "edited", 1),
            (90, "", 2),
        ];
        let seen: Vec<_> = seen.iter().map(|(id, text, status)| (*id, &**text, *status)).collect();
        assert_eq!(seen, expected);
        assert_eq!(store.damage_met().0, 5);
        let slice = store.verify_messages(Cursor::default(), 100).expect("read");
        store.add_checksums(&slice).expect("stored");
        store.commit().expect("committed");
        let missing = "SELECT count(*) FROM messages WHERE checksum IS NULL";
        assert_eq!(store.count(missing), Ok(0));
        for n in [2, 3] {
            store.delete_message(chat, MessageId::at(at(n * 10)), at(100 + n)).expect("deleted");
        }
        store.remove_chat(chat).expect("removed");
        let mut sweep = crate::store::sweep::Sweep::default();
        while store.sweep_messages(&mut sweep, 2).expect("swept") {}
        while store.settle_pending(None).expect("settled") {}
        store.commit().expect("committed");
        assert_eq!(store.last_message(ChatId::new(1).expect("not 0")), Ok(ServerTime::ZERO));
    }
}
