//! Where a message lies: the same rows in the tree of `schema.sql`, which is in the order of chats,
//! and in a table that is in the order of ids, with an index by chat. Both by bare SQLite.
//!
//! Ids are unique over all chats, so the other table can have them for its rowids, and its index
//! needs nothing but the chat: it is as good as such a table can be.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::bare;
use crate::bare_sqlite::{CHATS, Statements, Writer, compare, slices};
use crate::files::{CONTENT_BYTES, Folder, Seed, stored_rows, time};
use crate::store::{RANGE, read_by_bare};

/// Rows of one commit.
const ROWS: i64 = 64;
/// Chats of the file that is read, written to in turn.
const READ_CHATS: i64 = 64;

/// What it is called.
const OTHER: &str = "by id, with an index";
/// The table that is compared with that of `schema.sql`.
const BY_ID: &str = "DROP TABLE messages;
    CREATE TABLE messages (
        chat_id    INTEGER NOT NULL,
        message_id INTEGER PRIMARY KEY,
        sender_id  INTEGER NOT NULL,
        updated    INTEGER,
        status     INTEGER NOT NULL DEFAULT 0,
        content    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX messages_chat ON messages (chat_id);
    CREATE INDEX messages_updated ON messages (chat_id, updated) WHERE updated IS NOT NULL;";

/// Prints a table of ratios.
pub(crate) fn run() {
    let folder = Folder::new("layout");
    println!("| work | rows/s by chat | other | rows/s | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    for chats in [1, READ_CHATS, CHATS] {
        let files = Pair::new(&folder, &format!("new-{chats}"), 0, chats);
        files.insert(chats, 0, "a new file");
    }
    let many = stored_rows();
    let files = Pair::new(&folder, "filled", many, CHATS);
    for (round, chats) in [1, READ_CHATS, CHATS].into_iter().enumerate() {
        // Later than all that was stored before.
        let now = many + round as i64 * 1_000_000;
        files.insert(chats, now, &format!("a file of {many}"));
    }
    let many = many.max(READ_CHATS * (RANGE + 1));
    let files = Pair::new(&folder, "read", many, READ_CHATS);
    files.read(many / READ_CHATS);
    let [by_chat, by_id] = files.paths.map(|path| bytes(&path) as f64 / many as f64);
    println!(
        "| bytes of the file a message | {by_chat:.0} | {OTHER} | {by_id:.0} | {:.2} |",
        by_id / by_chat
    );
}

/// Two files with the same messages.
struct Pair {
    paths: [PathBuf; 2],
    by_chat: Connection,
    by_id: Connection,
}

impl Pair {
    fn new(folder: &Folder, name: &str, messages: i64, chats: i64) -> Self {
        let paths = ["chat", "id"].map(|order| folder.file(&format!("{name}-{order}.db")));
        let (by_chat, by_id) = (bare::open(&paths[0]), bare::open(&paths[1]));
        by_id.execute_batch(BY_ID).expect("valid SQL");
        fill(&by_chat, messages, chats);
        fill(&by_id, messages, chats);
        Self { paths, by_chat, by_id }
    }

    fn insert(&self, chats: i64, now: i64, file: &str) {
        let (mut ours, mut theirs) = (Writer::new(chats, now), Writer::new(chats, now));
        let mut by_chat = Statements::new(&self.by_chat);
        let mut by_id = Statements::new(&self.by_id);
        compare(
            [&format!("insert, {ROWS} a commit, into {chats} chats of {file}"), OTHER],
            slices(ROWS),
            ROWS,
            || ours.bare(&mut by_chat, ROWS),
            || theirs.bare(&mut by_id, ROWS),
        );
    }

    /// Reads pages from somewhere in chats of that many messages.
    fn read(&self, messages: i64) {
        let pick = |seed: &mut Seed| {
            let (chat, first) = (seed.below(READ_CHATS), seed.below(messages - RANGE));
            let at = |message| time(message * READ_CHATS + chat);
            (chat, at(first), at(first + RANGE - 1))
        };
        let mut by_chat = self.by_chat.prepare(bare::RANGE).expect("a statement");
        let mut by_id = self.by_id.prepare(bare::RANGE).expect("a statement");
        let (mut ours, mut theirs) = (Seed::new(), Seed::new());
        let (mut our_out, mut their_out) = (Vec::new(), Vec::new());
        compare(
            [&format!("read {RANGE} of one of {READ_CHATS} chats of {messages}"), OTHER],
            slices(ROWS),
            RANGE,
            || read_by_bare(&mut by_chat, pick(&mut ours), &mut our_out),
            || read_by_bare(&mut by_id, pick(&mut theirs), &mut their_out),
        );
    }
}

/// Stores a number of messages, one into each chat in turn, and brings them into the file.
fn fill(db: &Connection, messages: i64, chats: i64) {
    let content = "x".repeat(CONTENT_BYTES);
    let mut insert = db.prepare(bare::INSERT).expect("a statement");
    for first in (0..messages).step_by(ROWS as usize) {
        db.execute_batch("BEGIN").expect("nobody else is there");
        for at in first..messages.min(first + ROWS) {
            insert.execute((at % chats + 1, at, 2_i64, &content)).expect("room for it");
        }
        db.execute_batch("COMMIT").expect("room for it");
    }
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody reads");
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("the file").len()
}
