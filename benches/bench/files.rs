//! Data files for benches: where they are, and how they are filled.

use std::fs;
use std::path::{Path, PathBuf};

use vestnik::ids::{ChatId, MessageId, ServerTime, UserId};
use vestnik::store::{Database, Store};

/// Messages of one chat in a filled file.
pub(crate) const CHAT_MESSAGES: i64 = 10_000;

/// Rows of one commit while a file is filled.
const ROWS_PER_COMMIT: i64 = 10_000;

/// Text of every message, in bytes.
pub(crate) const CONTENT_BYTES: usize = 100;

/// Time of the first message of a filled file, in microseconds.
pub(crate) const FIRST: i64 = 1_700_000_000_000_000;

/// Whether this is `cargo bench`; else every body runs once, under `cargo test`.
pub(crate) fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Whether a group is among those that the command line asks for: what it needs may take long.
pub(crate) fn is_asked_for(group: &str) -> bool {
    let mut filters =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none()
        || filters.any(|filter| filter.contains(group) || group.contains(&filter))
}

/// A folder that goes when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("bench-{}-{name}", std::process::id());
        let place = std::env::var_os("VESTNIK_BENCH_FOLDER").map(PathBuf::from);
        let path = place.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()).join(name);
        fs::create_dir_all(&path).expect("a folder to write to");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the way of nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn chat(number: u32) -> ChatId {
    ChatId::new(number + 1).expect("not 0")
}

pub(crate) fn user(number: u32) -> UserId {
    UserId::new(number + 1).expect("not 0")
}

pub(crate) fn time(micros: i64) -> ServerTime {
    ServerTime::new(micros).expect("not negative")
}

/// The time of a chat's message in a filled file: chats were used in turn.
pub(crate) fn message_time(chat: i64, message: i64, chats: i64) -> ServerTime {
    time(FIRST + message * chats + chat)
}

/// How many messages a file for reading has.
pub(crate) fn stored_rows() -> i64 {
    match std::env::var("VESTNIK_BENCH_ROWS") {
        Ok(rows) => rows.parse().expect("a number of messages"),
        Err(_) if is_measuring() => 1_000_000,
        Err(_) => CHAT_MESSAGES,
    }
}

/// A file with a number of messages, those of each chat together, and how many chats they are in.
pub(crate) fn filled(path: &Path) -> i64 {
    let chats = (stored_rows() / CHAT_MESSAGES).max(1);
    fill(path, chats, CHAT_MESSAGES);
    chats
}

/// Makes a file with a number of messages in each of a number of chats.
pub(crate) fn fill(path: &Path, chats: i64, messages: i64) {
    let database = Database::open_server(path).expect("a new file");
    let mut store = Store::new(&database).expect("its tables");
    let content = "x".repeat(CONTENT_BYTES);
    let mut rows = 0;
    for number in 0..chats {
        for message in 0..messages {
            let id = MessageId::at(message_time(number, message, chats));
            store.add_message(chat(number as u32), id, user(1), &content).expect("room for it");
            rows += 1;
            if rows % ROWS_PER_COMMIT == 0 {
                store.commit().expect("room for it");
            }
        }
    }
    store.commit().expect("room for it");
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new() -> Self {
        Self(1)
    }

    pub(crate) fn below(&mut self, bound: i64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as i64
    }
}
