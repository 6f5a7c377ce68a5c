//! SQLite with nothing around it: the same file, the same rows, the same statements, so that what
//! the store adds can be notified.

use std::path::Path;

use rusqlite::Connection;
use vestnik::store::Database;

/// A connection to a file with the server's tables, as the server sets it up.
pub(crate) fn open(path: &Path) -> Connection {
    if !path.exists() {
        drop(Database::open_server(path).expect("a file"));
    }
    let db = Connection::open(path).expect("the file");
    db.pragma_update(None, "journal_mode", "WAL").expect("a pragma");
    db.pragma_update(None, "synchronous", "FULL").expect("a pragma");
    db.pragma_update(None, "foreign_keys", true).expect("a pragma");
    db.pragma_update(None, "secure_delete", true).expect("a pragma");
    db.pragma_update(None, "cache_size", -16_384).expect("a pragma");
    db.pragma_update(None, "wal_autocheckpoint", 500).expect("a pragma");
    db
}

/// Stores a message.
pub(crate) const INSERT: &str =
    "INSERT INTO messages (chat_id, message_id, sender_id, content) VALUES (?1, ?2, ?3, ?4)";

/// Messages of a chat, from one to another.
pub(crate) const RANGE: &str =
    "SELECT message_id, sender_id, updated, status, content FROM messages
     WHERE chat_id = ?1 AND message_id BETWEEN ?2 AND ?3 AND updated IS NULL ORDER BY message_id";
