//! Databases of every released version, in `tests/corpus/`: each is migrated, served, and complete.

use std::fs;
use std::path::PathBuf;

use crate::support::server::{run, vestnik};
use crate::support::wire::contents;
use crate::support::{Server, TempDir, eventually};
use rusqlite::Connection;

/// The version of the tables now.
const VERSION: i64 = 3;

fn corpus() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = fs::read_dir(folder).expect("the corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "db"));
    files.sort();
    files
}

fn version(data: &PathBuf) -> i64 {
    let db = Connection::open(data).expect("a database");
    db.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version")
}

#[test]
fn files_of_every_version_serve_what_they_hold() {
    let files = corpus();
    assert!(!files.is_empty());
    for file in files {
        let server = Server::on_copy_of(&file);
        let mut anna = server.login10("anna");
        let hall = anna.chat_id("hall");
        let history = anna.history(hall);
        let expected = ["message 0", "edited", "", "message 3", "message 4", "привет"];
        let mut by_id = history.clone();
        by_id.sort_by_key(|message| message.id);
        assert_eq!(contents(&by_id), expected, "{}", file.display());
        assert_eq!(
            by_id.iter().map(|message| message.status).collect::<Vec<_>>(),
            [0, 1, 2, 0, 0, 0]
        );
        let sent = anna.send(hall, "one more");
        assert_eq!(anna.search(hall, 5, "more")[0].1.id, sent.id);
        assert_eq!(anna.my_chats().len(), 3);
        server.admin_ok(&["check"], None);
        assert_eq!(version(&server.data()), VERSION);
    }
}

/// A file of version 2, whose chunks have no checksums.
#[test]
fn files_of_version_2_have_their_bytes() {
    let server = Server::on_copy_of(&corpus()[1]);
    let mut boris = server.login11("boris");
    assert_eq!(boris.download(1), b"a file of old\r\n");
    let sums = || -> i64 {
        let db = Connection::open(server.data()).expect("a database");
        let sql = "SELECT count(checksum) FROM file_chunks";
        db.query_row(sql, [], |row| row.get(0)).expect("a count")
    };
    eventually(|| sums() == 2);
    server.admin_ok(&["check"], None);
}

/// A migration that cannot be ended, here since a table has the name of a new one, changes nothing.
#[test]
fn a_migration_is_whole_or_not_at_all() {
    let dir = TempDir::new();
    let data = dir.join("t.db");
    fs::copy(&corpus()[0], &data).expect("a copy");
    let db = Connection::open(&data).expect("a database");
    db.execute_batch("CREATE TABLE file_usage (x)").expect("a table");
    drop(db);
    let mut command = vestnik(dir.path());
    command.args(["user", "list", "--data"]).arg(&data);
    assert_eq!(run(command, None).status.code(), Some(1));
    assert_eq!(version(&data), 1);
    let db = Connection::open(&data).expect("a database");
    assert!(db.prepare("SELECT flags FROM users").is_err());
    db.execute_batch("DROP TABLE file_usage").expect("dropped");
    drop(db);
    let mut command = vestnik(dir.path());
    command.args(["user", "list", "--data"]).arg(&data);
    assert_eq!(run(command, None).status.code(), Some(0));
    assert_eq!(version(&data), VERSION);
}
