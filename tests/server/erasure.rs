//! protocol.md section 5, DELETE_MSG: the content is gone from the files, the write-ahead log and
//! the search index included, soon after.

use std::collections::BTreeSet;

use crate::support::Server;

/// What stands anywhere in the data file or its WAL and begins with `secret`, up to where a word
/// ends.
fn secrets(server: &Server) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for suffix in ["", "-wal"] {
        let mut name = server.data().into_os_string();
        name.push(suffix);
        let bytes = std::fs::read(name).unwrap_or_default();
        for at in memchr::memmem::find_iter(&bytes, b"secret") {
            let word = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
            found.insert(word.map(|&byte| char::from(byte)).collect());
        }
    }
    found
}

/// Which of these words are part of what stands there: the index shortens them to what is new.
fn found(server: &Server, words: &[String]) -> Vec<String> {
    let there = secrets(server);
    words.iter().filter(|word| there.iter().any(|text| text.contains(*word))).cloned().collect()
}

/// Texts of many sizes, which SQLite moves between pages as they come: deleted, edited, purged, or
/// removed with their chat, none of their words is left, and the others are all there.
#[test]
fn what_is_deleted_is_gone_from_the_files() {
    let mut server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (hall, attic) = (anna.create_chat("hall"), anna.create_chat("attic"));
    boris.join(hall);
    let mut words = Vec::new();
    let mut ids = Vec::new();
    for n in 0..200_usize {
        let word = format!("secret{n:04}word");
        let fill = "lorem ".repeat([0, 3, 40, 900][n % 4]);
        let client = if n % 5 == 0 { &mut boris } else { &mut anna };
        ids.push(client.send(hall, &format!("{fill}{word} {fill}")).id);
        words.push(word);
    }
    anna.send(attic, "secretattic in the attic");
    assert_eq!(anna.search(0, 10, "secretattic").len(), 1, "all is indexed");
    assert_eq!(found(&server, &words).len(), 200);
    let mut gone = vec!["secretattic".to_owned()];
    for (n, word) in words.iter().enumerate() {
        match n % 5 {
            0 | 4 => {}
            1 => drop(anna.edit(hall, ids[n], "nothing to see")),
            _ => drop(anna.delete(hall, ids[n])),
        }
        if n % 5 != 4 {
            gone.push(word.clone());
        }
    }
    server.admin_ok(&["user", "purge", "boris", "--yes"], None);
    server.admin_ok(&["chat", "remove", "attic", "--yes"], None);
    crate::support::in_time(|| found(&server, &gone).is_empty());
    assert_eq!(found(&server, &words).len(), 40);
    // A crash brings nothing of it back.
    server.kill();
    server.restart();
    assert_eq!(found(&server, &gone), [""; 0]);
    server.admin_ok(&["check"], None);
}
