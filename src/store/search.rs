//! The search index: which messages contain which words. Filled and cleared in slices, after the
//! messages themselves.
//!
//! Invariant: the entries of a message in `search` depend only on the content that it had when its
//! row was added to `search_rows`, so the same words can be removed again. Until they are, the old
//! content stays in `search_pending`.

use super::messages::PASSED_OVER_MAX;
use super::{Store, StoreResult, checksum, id, time};
use crate::ids::{ChatId, MessageId, ServerTime};
use crate::tokenizer;
use crate::wire::codec::STATUS_DELETED;
use rusqlite::Row;

/// Words removed from the index in one slice: each takes about 25 us.
pub const WORDS_PER_SLICE: usize = 96;

/// A no-op that makes the index take part in a transaction.
pub(super) const FORGET: &str = "INSERT INTO search (search, rank) VALUES ('merge', 0)";

/// Pages written by one merge step.
const MERGE_PAGES: i64 = 32;

/// The key of `meta` that is set while the index has words that are only marked as deleted.
const UNASSEMBLED: &str = "search_unassembled";

/// First character of the word that stands for a chat; no word of a message begins with it.
const CHAT_MARK: char = '\u{E000}';

/// The progress of indexing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// All messages created up to here are indexed.
    pub done: ServerTime,
    /// A scan of the chats in progress.
    pub scan: Option<Scan>,
}

/// A scan of the chats for messages that are not indexed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Searches for messages created up to this time.
    pub upto: ServerTime,
    /// Chats before this row id are done.
    pub chat: i64,
    /// Messages of the chat up to this time are done.
    pub at: ServerTime,
}

/// A message to be indexed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unindexed {
    /// Its chat.
    pub chat: ChatId,
    /// Its id.
    pub message: MessageId,
    /// Its present content.
    pub content: String,
}

/// The word that stands for a chat in the index.
pub fn chat_word(chat: ChatId) -> String {
    format!("{CHAT_MARK}{chat}")
}

/// All words that a message is indexed by, sorted.
fn index_words(chat: i64, content: &str) -> Vec<String> {
    let folded = tokenizer::fold(content);
    let mut list = vec![format!("{CHAT_MARK}{chat}")];
    list.extend(tokenizer::distinct(&folded).into_iter().map(str::to_owned));
    list
}

impl Store<'_> {
    // ---- filling ----------------------------------------------------------------------------

    /// The progress of indexing, as stored.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn search_progress(&mut self) -> StoreResult<Progress> {
        let mut number = |key| self.meta(key).map(Option::unwrap_or_default);
        let at = |micros| ServerTime::new(micros).unwrap_or_default();
        let done = at(number("search_done")?);
        let upto = at(number("search_scan_upto")?);
        let chat = number("search_scan_chat")?;
        let scan = Scan { upto, chat, at: at(number("search_scan_at")?) };
        Ok(Progress { done, scan: (upto > ServerTime::ZERO).then_some(scan) })
    }

    /// Stores the progress of indexing, in the same transaction as the work.
    ///
    /// # Errors
    /// As every write.
    pub fn set_search_progress(&mut self, old: Progress, new: Progress) -> StoreResult<()> {
        let numbers = |progress: Progress| {
            let scan = progress
                .scan
                .map_or((0, 0, 0), |scan| (scan.upto.micros(), scan.chat, scan.at.micros()));
            [progress.done.micros(), scan.0, scan.1, scan.2]
        };
        let keys = ["search_done", "search_scan_upto", "search_scan_chat", "search_scan_at"];
        for ((key, old), new) in keys.into_iter().zip(numbers(old)).zip(numbers(new)) {
            if old != new {
                self.set_meta(key, new)?;
            }
        }
        Ok(())
    }

    /// The content of a message, unless it is gone, deleted or damaged.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn content_to_index(
        &mut self,
        chat: ChatId,
        message: MessageId,
    ) -> StoreResult<Option<Unindexed>> {
        let sql = "SELECT sender_id, status, content, checksum FROM messages
                   WHERE chat_id = ?1 AND message_id = ?2 AND status & 2 = 0";
        let key = (chat.row(), message.created().micros());
        let found = self.get(sql, key, |row| {
            let content = checksum::read_content(row, [0, 1, 2, 3], key.0, key.1)?;
            Ok(content.map(|content| Unindexed { chat, message, content: content.to_owned() }))
        })?;
        Ok(found.flatten())
    }

    /// The next messages of a scan: at most `limit` and, after the first, `bytes_max` of content;
    /// fewer when many are deleted. Also the scan's new position, `None` at its end. Passes the end
    /// of at most one chat.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn next_to_index(
        &mut self,
        done: ServerTime,
        scan: Scan,
        limit: usize,
        bytes_max: usize,
    ) -> StoreResult<(Vec<Unindexed>, Option<Scan>)> {
        let sql = "SELECT chat_id FROM chats WHERE chat_id >= ?1 ORDER BY chat_id LIMIT 1";
        let next = self.get(sql, [scan.chat], |row| id(ChatId::from_row, 0, row.get(0)?))?;
        let Some(chat) = next else { return Ok((Vec::new(), None)) };
        let from = if chat.row() == scan.chat { scan.at.max(done) } else { done };
        let sql = "SELECT message_id, sender_id, status, content, checksum FROM messages
                   WHERE chat_id = ?1 AND message_id > ?2 AND message_id <= ?3
                   ORDER BY message_id";
        let mut found = Vec::new();
        let (mut bytes, mut passed_over) = (0, 0);
        let mut is_whole = true;
        let mut last = from;
        self.each(sql, (chat.row(), from.micros(), scan.upto.micros()), |row| {
            is_whole = found.len() < limit && bytes < bytes_max && passed_over < PASSED_OVER_MAX;
            if is_whole {
                last = time(row, 0)?;
                let is_deleted =
                    row.get_ref(2)?.as_i64().unwrap_or_default() & i64::from(STATUS_DELETED) != 0;
                let columns = [1, 2, 3, 4];
                let content = checksum::read_content(row, columns, chat.row(), last.micros())?;
                if let Some(content) = content.filter(|_| !is_deleted) {
                    bytes += content.len();
                    let (message, content) = (MessageId::at(last), content.to_owned());
                    found.push(Unindexed { chat, message, content });
                } else {
                    passed_over += 1;
                }
            }
            Ok(is_whole)
        })?;
        let stands = if is_whole {
            Scan { chat: chat.row() + 1, at: ServerTime::ZERO, ..scan }
        } else {
            Scan { chat: chat.row(), at: last, ..scan }
        };
        Ok((found, Some(stands)))
    }

    /// Indexes messages, except those that are indexed already.
    ///
    /// # Errors
    /// As every write.
    pub fn index(&mut self, batch: &mut [Unindexed]) -> StoreResult<()> {
        // The index stores them as one segment if they are sorted.
        batch.sort_by_key(|new| new.message);
        for new in batch {
            // A message in `search_pending` is indexed after its old words are removed.
            let sql = "INSERT INTO search_rows (message_id, chat_id) SELECT ?1, ?2
                       WHERE NOT EXISTS (SELECT 1 FROM search_pending WHERE message_id = ?1)
                       ON CONFLICT DO NOTHING";
            let row = new.message.created().micros();
            if self.run(sql, (row, new.chat.row()))? == 1 {
                let words = index_words(new.chat.row(), &new.content).join(" ");
                self.run("INSERT INTO search (rowid, words) VALUES (?1, ?2)", (row, words))?;
            }
        }
        Ok(())
    }

    /// One merge step. False when there is nothing to merge.
    ///
    /// # Errors
    /// As every write.
    pub fn merge_search(&mut self) -> StoreResult<bool> {
        self.begin_write()?;
        let before = self.db.total_changes();
        self.run("INSERT INTO search (search, rank) VALUES ('merge', ?1)", [MERGE_PAGES])?;
        // The command itself counts as one change.
        Ok(self.db.total_changes() - before >= 2)
    }

    // ---- clearing ---------------------------------------------------------------------------

    /// Called before the content of a message changes: saves the indexed content, whose words will
    /// be removed. The indexed content of a damaged message is unknown; its words stay.
    pub(super) fn retire_from_index(
        &mut self,
        chat: ChatId,
        message: MessageId,
        content: Option<&str>,
    ) -> StoreResult<()> {
        if self.forget_row(message)?
            && let Some(content) = content
        {
            self.left_index += 1;
            if self.is_light() {
                return self.take_words(message, &index_words(chat.row(), content));
            }
            let sql = "INSERT INTO search_pending (message_id, chat_id, content)
                       VALUES (?1, ?2, ?3)";
            self.run(sql, (message.created().micros(), chat.row(), content))?;
        }
        Ok(())
    }

    /// Called before a message is removed: removes its words from the index, or schedules that if
    /// there are very many. Returns how many were removed.
    pub(super) fn take_from_index(
        &mut self,
        chat: i64,
        message: MessageId,
        content: Option<&str>,
    ) -> StoreResult<usize> {
        if !self.forget_row(message)? {
            return Ok(0);
        }
        let Some(content) = content else { return Ok(0) };
        self.left_index += 1;
        let words = index_words(chat, content);
        if words.len() > WORDS_PER_SLICE && !self.is_light() {
            let sql = "INSERT INTO search_pending (message_id, chat_id, content)
                       VALUES (?1, ?2, ?3)";
            self.run(sql, (message.created().micros(), chat, content))?;
            return Ok(0);
        }
        self.take_words(message, &words)?;
        Ok(words.len())
    }

    fn forget_row(&mut self, message: MessageId) -> StoreResult<bool> {
        let sql = "DELETE FROM search_rows WHERE message_id = ?1";
        Ok(self.run(sql, [message.created().micros()])? == 1)
    }

    fn take_words(&mut self, message: MessageId, words: &[String]) -> StoreResult<()> {
        let sql = "INSERT INTO search (search, rowid, words) VALUES ('delete', ?1, ?2)";
        self.run(sql, (message.created().micros(), words.join(" "))).map(drop)
    }

    // ---- erasing much -----------------------------------------------------------------------
    // Overwriting one word of one message takes about a hundred microseconds, so a large chat would
    // take hours. Where many messages are removed, their words are only marked as deleted. They
    // leave the pages when the whole index is merged, which takes a fraction of that time.

    /// From here to [`Store::end_light`], words are only marked as deleted. The database records
    /// that the index has to be merged completely afterwards.
    ///
    /// # Errors
    /// As every write.
    pub fn begin_light(&mut self) -> StoreResult<()> {
        self.run("INSERT INTO search (search, rank) VALUES ('secure-delete', 0)", [])?;
        self.is_light = true;
        Ok(())
    }

    /// Overwrites removed words again.
    ///
    /// # Errors
    /// As every write.
    pub fn end_light(&mut self) -> StoreResult<()> {
        self.is_light = false;
        self.run("INSERT INTO search (search, rank) VALUES ('secure-delete', 1)", [])?;
        self.set_meta(UNASSEMBLED, 1)
    }

    pub(super) const fn is_light(&self) -> bool {
        self.is_light
    }

    /// Messages removed from the index since the start, including those of undone transactions.
    pub const fn left_index(&self) -> u64 {
        self.left_index
    }

    /// Whether the index has words that are only marked as deleted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_index_unassembled(&mut self) -> StoreResult<bool> {
        Ok(self.meta(UNASSEMBLED)?.is_some_and(|value| value != 0))
    }

    /// Begins to merge the whole index; [`Store::merge_search`] continues until it has nothing to
    /// do.
    ///
    /// # Errors
    /// As every write.
    pub fn begin_assembling(&mut self) -> StoreResult<()> {
        self.run("INSERT INTO search (search, rank) VALUES ('merge', ?1)", [-MERGE_PAGES]).map(drop)
    }

    /// Records that the whole index was merged since words were last marked.
    ///
    /// # Errors
    /// As every write.
    pub fn note_assembled(&mut self) -> StoreResult<()> {
        self.set_meta(UNASSEMBLED, 0)
    }

    /// Whether old words of messages in these chats wait to be removed from the index.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn first_pending(&mut self, chats: &[ChatId]) -> StoreResult<Option<ChatId>> {
        let sql = "SELECT 1 FROM search_pending WHERE chat_id = ?1 LIMIT 1";
        for &chat in chats {
            if self.get(sql, [chat.row()], |_| Ok(()))?.is_some() {
                return Ok(Some(chat));
            }
        }
        Ok(None)
    }

    /// One slice of `search_pending`, that of `first` before others: removes old words, and after
    /// the last one indexes the present content. False when nothing is pending.
    ///
    /// # Errors
    /// As every write.
    pub fn settle_pending(&mut self, first: Option<ChatId>) -> StoreResult<bool> {
        let pending = |row: &Row<'_>| {
            let chat = id(ChatId::from_row, 1, row.get(1)?)?;
            let content = row.get_ref(3)?.as_bytes().unwrap_or_default();
            let content = String::from_utf8_lossy(content).into_owned();
            Ok((MessageId::at(time(row, 0)?), chat, row.get::<_, u32>(2)?, content))
        };
        let mut found = None;
        if let Some(chat) = first {
            let sql = "SELECT message_id, chat_id, words_out, content FROM search_pending
                       WHERE chat_id = ?1 LIMIT 1";
            found = self.get(sql, [chat.row()], pending)?;
        }
        if found.is_none() {
            let sql = "SELECT message_id, chat_id, words_out, content FROM search_pending LIMIT 1";
            found = self.get(sql, [], pending)?;
        }
        let Some((message, chat, out, content)) = found else { return Ok(false) };
        let row = message.created().micros();
        let words = index_words(chat.row(), &content);
        let rest = words.get(out as usize..).unwrap_or_default();
        let now = rest.get(..WORDS_PER_SLICE).unwrap_or(rest);
        if out > 0 {
            // The index counts one message less whenever words are removed; this one was subtracted
            // before.
            self.run("INSERT INTO search (rowid, words) VALUES (?1, '')", [row])?;
        }
        self.take_words(message, now)?;
        if now.len() < rest.len() {
            let sql = "UPDATE search_pending SET words_out = ?2 WHERE message_id = ?1";
            self.run(sql, (row, i64::from(out) + now.len() as i64))?;
            return Ok(true);
        }
        self.run("DELETE FROM search_pending WHERE message_id = ?1", [row])?;
        if let Some(present) = self.content_to_index(chat, message)? {
            self.index(&mut [present])?;
        }
        Ok(true)
    }

    // ---- searching --------------------------------------------------------------------------

    /// Indexed messages older than `below` and newer than `above` that contain at least one word of
    /// each list: the newest `limit`, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn search(
        &mut self,
        all_of: &[Vec<String>],
        below: MessageId,
        above: ServerTime,
        limit: usize,
    ) -> StoreResult<Vec<MessageId>> {
        self.begin_search()?;
        let sql = "SELECT rowid FROM search
                   WHERE search MATCH ?1 AND rowid < ?2 AND rowid > ?3
                   ORDER BY rowid DESC LIMIT ?4";
        let bounds = (expression(all_of), below.created().micros(), above.micros(), limit as i64);
        self.all(sql, bounds, |row| Ok(MessageId::at(time(row, 0)?)))
    }

    /// The chat of an indexed message.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn chat_of_indexed(&mut self, message: MessageId) -> StoreResult<Option<ChatId>> {
        let sql = "SELECT chat_id FROM search_rows WHERE message_id = ?1";
        let row = message.created().micros();
        self.get(sql, [row], |row| id(ChatId::from_row, 0, row.get(0)?))
    }

    /// The newest `limit` indexed messages older than `below`, with their chats, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn indexed_before(
        &mut self,
        below: MessageId,
        limit: usize,
    ) -> StoreResult<Vec<(MessageId, ChatId)>> {
        let sql = "SELECT message_id, chat_id FROM search_rows WHERE message_id < ?1
                   ORDER BY message_id DESC LIMIT ?2";
        self.all(sql, (below.created().micros(), limit as i64), |row| {
            Ok((MessageId::at(time(row, 0)?), id(ChatId::from_row, 1, row.get(1)?)?))
        })
    }

    /// The time after which the newest `count` indexed messages older than `below` were created.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn indexed_window(&mut self, below: MessageId, count: usize) -> StoreResult<ServerTime> {
        let sql = "SELECT message_id FROM search_rows WHERE message_id < ?1
                   ORDER BY message_id DESC LIMIT 1 OFFSET ?2";
        let found = self.get(sql, (below.created().micros(), count as i64), |row| time(row, 0))?;
        Ok(found.unwrap_or_default())
    }

    /// Indexed words with this prefix, sorted, up to `limit`. Jumps from word to word, however many
    /// messages contain them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn indexed_words(&mut self, prefix: &str, limit: usize) -> StoreResult<Vec<String>> {
        self.begin_search()?;
        let mut found = Vec::new();
        let mut from = prefix.to_owned();
        while found.len() < limit {
            let sql = "SELECT term FROM search_terms WHERE term >= ?1 LIMIT 1";
            let next: Option<String> = self.get(sql, [&from], |row| row.get(0))?;
            let Some(next) = next.filter(|next| next.starts_with(prefix)) else { break };
            // No word contains this character, so it skips to the next word.
            from = format!("{next}\u{1}");
            found.push(next);
        }
        Ok(found)
    }
}

/// The words as an FTS5 query, quoted.
fn expression(all_of: &[Vec<String>]) -> String {
    let quoted = |word: &String| format!("\"{}\"", word.replace('"', "\"\""));
    let one_of = |words: &Vec<String>| {
        format!("({})", words.iter().map(quoted).collect::<Vec<_>>().join(" OR "))
    };
    all_of.iter().map(one_of).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;
    use crate::store::Database;
    use crate::store::messages::tests::at;
    use crate::store::sweep::Sweep;

    fn message(micros: i64) -> MessageId {
        MessageId::at(at(micros))
    }

    fn chat(id: u32) -> ChatId {
        ChatId::new(id).expect("not 0")
    }

    fn user() -> UserId {
        UserId::new(9).expect("not 0")
    }

    /// Messages with these contents at times 10, 20, … in chat 7, indexed.
    fn with_indexed(contents: &[&str], test: impl FnOnce(&mut Store<'_>, &Database)) {
        let database = Database::in_memory().expect("memory");
        let mut store = Store::new(&database).expect("tables");
        for (n, content) in (1..).zip(contents) {
            add(&mut store, 7, n * 10, content);
        }
        test(&mut store, &database);
    }

    fn add(store: &mut Store<'_>, in_chat: u32, id: i64, content: &str) {
        store.add_message(chat(in_chat), message(id), user(), content).expect("stored");
        let content = content.to_owned();
        store
            .index(&mut [Unindexed { chat: chat(in_chat), message: message(id), content }])
            .expect("indexed");
    }

    fn settle(store: &mut Store<'_>) -> usize {
        (0..).take_while(|_| store.settle_pending(None).expect("settled")).count()
    }

    fn find(store: &mut Store<'_>, words: &[&str]) -> Vec<i64> {
        let all_of: Vec<_> = words.iter().map(|word| vec![(*word).to_owned()]).collect();
        let end = MessageId::at(ServerTime::MAX);
        let found = store.search(&all_of, end, ServerTime::ZERO, 100).expect("found");
        found.into_iter().map(|found| found.created().micros()).collect()
    }

    /// All bytes in the index's tables.
    fn holds(database: &Database, text: &str) -> bool {
        let db = database.connection();
        ["SELECT block FROM search_data", "SELECT term FROM search_idx"].into_iter().any(|sql| {
            let mut rows = db.prepare(sql).expect("a table");
            let blocks: Vec<Vec<u8>> =
                rows.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("blobs");
            blocks.iter().any(|block| block.windows(text.len()).any(|part| part == text.as_bytes()))
        })
    }

    #[test]
    fn messages_are_found_by_their_words() {
        with_indexed(&["The Cat", "a dog", "cat & dog ЁЖ", "👍"], |store, _| {
            assert_eq!(find(store, &["cat"]), [30, 10]);
            assert_eq!(find(store, &["dog", "cat"]), [30]);
            assert_eq!(find(store, &["ёж"]), [30]);
            assert_eq!(find(store, &["bird"]), [0_i64; 0]);
            assert_eq!(find(store, &[&chat_word(chat(7))]), [40, 30, 20, 10]);
            assert_eq!(find(store, &[&chat_word(chat(8)), "cat"]), [0_i64; 0]);
            let one_of = vec![vec!["the".to_owned(), "a".to_owned()]];
            let found = store.search(&one_of, message(20), at(5), 10);
            assert_eq!(found, Ok(vec![message(10)]));
            assert_eq!(store.chat_of_indexed(message(20)), Ok(Some(chat(7))));
            assert_eq!(store.indexed_before(message(30), 1), Ok(vec![(message(20), chat(7))]));
            assert_eq!(store.indexed_window(message(40), 1), Ok(at(20)));
            assert_eq!(store.indexed_window(message(40), 3), Ok(at(0)));
        });
    }

    #[test]
    fn what_fts5_would_read_as_its_own_is_only_words() {
        with_indexed(&["near or not", "x"], |store, _| {
            for hostile in ["NOT", "\" OR x", "x*", "words:x", "NEAR(x y)", "{ x", "^x \\"] {
                for group in tokenizer::Query::parse(hostile).expect("words").groups() {
                    let list: Vec<&str> = group.words.iter().map(String::as_str).collect();
                    find(store, &list);
                }
            }
            assert_eq!(find(store, &["or", "near"]), [10]);
            assert_eq!(find(store, &["near", "x"]), [0_i64; 0]);
        });
    }

    #[test]
    fn indexing_again_changes_nothing() {
        with_indexed(&["cat"], |store, _| {
            let content = "dog".to_owned();
            let again = Unindexed { chat: chat(7), message: message(10), content };
            store.index(&mut [again]).expect("indexed");
            assert_eq!(find(store, &["cat"]), [10]);
            assert_eq!(find(store, &["dog"]), [0_i64; 0]);
        });
    }

    #[test]
    fn words_of_edited_and_deleted_messages_leave_the_file() {
        with_indexed(&["keep keepsake xylophone", "xylophone zebra", "zeppelin"], |store, db| {
            store.edit_message(chat(7), message(10), at(50), "keep calm").expect("stored");
            store.edit_message(chat(7), message(10), at(55), "keep quiet").expect("stored");
            store.delete_message(chat(7), message(20), at(60)).expect("stored");
            assert_eq!(find(store, &["keep"]), [10], "it leaves in its time");
            assert_eq!(settle(store), 2);
            assert_eq!(find(store, &["keep"]), [10]);
            assert_eq!(find(store, &["quiet"]), [10]);
            for gone in ["calm", "keepsake", "xylophone", "zebra"] {
                assert_eq!(find(store, &[gone]), [0_i64; 0]);
            }
            store.commit().expect("committed");
            assert!(holds(db, "zeppelin") && holds(db, "quiet"));
            for gone in ["keepsake", "xylophone", "zebra", "calm"] {
                assert!(!holds(db, gone), "{gone}");
            }
        });
    }

    #[test]
    fn very_many_words_leave_in_slices() {
        let text: String = (0..WORDS_PER_SLICE * 5 / 2).map(|n| format!("w{n} ")).collect();
        with_indexed(&[&text, "w7 stays"], |store, _| {
            store.delete_message(chat(7), message(10), at(50)).expect("stored");
            assert_eq!(settle(store), 3);
            store.commit().expect("committed");
            assert_eq!(find(store, &["w7"]), [20]);
            assert_eq!(find(store, &["w100"]), [0_i64; 0]);
            // The index counts its messages right: it would call itself damaged below zero.
            store.delete_message(chat(7), message(20), at(60)).expect("stored");
            assert_eq!(settle(store), 1);
            store.commit().expect("committed");
            let sql = "INSERT INTO search (search) VALUES ('integrity-check')";
            store.run(sql, []).expect("a sound index");
        });
    }

    #[test]
    fn a_scan_finds_what_is_not_indexed() {
        with_indexed(&[], |store, _| {
            for name in ["a", "b", "c"] {
                store.add_chat(name, name, None, at(1)).expect("stored");
            }
            for (in_chat, id) in [(1, 10), (3, 20), (1, 30), (1, 40), (3, 50), (1, 60)] {
                store.add_message(chat(in_chat), message(id), user(), "abc").expect("stored");
            }
            store.delete_message(chat(1), message(30), at(70)).expect("stored");
            let mut scan = Some(Scan { upto: at(55), chat: 0, at: ServerTime::ZERO });
            let mut found = Vec::new();
            let mut last = Progress::default();
            while let Some(here) = scan {
                let progress = Progress { done: at(10), scan };
                store.set_search_progress(last, progress).expect("stored");
                last = progress;
                assert_eq!(store.search_progress(), Ok(progress));
                let (messages, next) = store.next_to_index(at(10), here, 1, 1000).expect("read");
                found.extend(messages.iter().map(|m| (m.chat.get(), m.message.get())));
                scan = next;
            }
            assert_eq!(found, [(1, 40), (3, 20), (3, 50)]);
        });
    }

    #[test]
    fn prefixes_go_from_word_to_word() {
        let texts = ["car cart care carry", "car card", "cat", "ca", "Жук жуки"];
        with_indexed(&texts, |store, _| {
            let words = |store: &mut Store<'_>, prefix: &str, limit| {
                store.indexed_words(prefix, limit).expect("read").join(" ")
            };
            assert_eq!(words(store, "car", 10), "car card care carry cart");
            assert_eq!(words(store, "car", 2), "car card");
            assert_eq!(words(store, "жу", 10), "жук жуки");
            assert_eq!(words(store, "x", 10), "");
        });
    }

    #[test]
    fn messages_of_a_chat_that_is_gone_leave_the_index() {
        let long: String = (0..WORDS_PER_SLICE).map(|n| format!("w{n} ")).collect();
        with_indexed(&["apple pie", &long, "apple"], |store, db| {
            let other = store.add_chat("a", "a", None, at(1)).expect("stored").expect("free");
            add(store, other.get(), 90, "apple stays");
            let mut sweep = Sweep::default();
            while store.sweep_messages(&mut sweep, 2).expect("swept") {}
            settle(store);
            store.commit().expect("committed");
            assert_eq!(find(store, &["apple"]), [90]);
            assert_eq!(store.indexed_before(message(100), 10).map(|rows| rows.len()), Ok(1));
            assert!(!holds(db, "pie") && !holds(db, "w77") && holds(db, "stays"));
        });
    }

    #[test]
    fn merging_comes_to_an_end() {
        with_indexed(&[], |store, _| {
            for n in 1..40 {
                add(store, 7, n * 10, &format!("common word{n}"));
                store.commit().expect("committed");
            }
            let steps = (0..100).take_while(|_| store.merge_search().expect("merged")).count();
            assert!((1..100).contains(&steps), "{steps}");
            store.commit().expect("committed");
            assert_eq!(find(store, &["common"]).len(), 39);
            assert_eq!(find(store, &["word17"]), [170]);
        });
    }
}
