//! Flipped bits in the database: damaged messages are isolated, found, and not backed up.

use std::fs;

use crate::support::wire::*;
use crate::support::{Server, eventually};

const REPLACEMENT: &str = "\u{FFFD}";

/// A server with ten messages in a group, of which three are damaged on the disk while it is down:
/// one is another text now, one is no UTF-8, and one has lost its first letter's case.
fn damaged() -> (Server, u32, Vec<u64>) {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login10("anna");
    let hall = anna.chat_id("hall");
    let ids = (0..10).map(|n| anna.send(hall, &format!("unmistakable{n} words")).id).collect();
    // Indexed by now.
    anna.search(hall, 10, "words");
    server.stop_by("TERM");
    let mut bytes = fs::read(server.data()).expect("the data file");
    for (number, place, bit) in [(2, 5, 0x01), (5, 3, 0x80), (7, 0, 0x20)] {
        let text = format!("unmistakable{number} words");
        let at = bytes.windows(text.len()).position(|part| part == text.as_bytes());
        bytes[at.expect("the text of a message") + place] ^= bit;
    }
    fs::write(server.data(), bytes).expect("the data file");
    server.restart();
    (server, hall, ids)
}

/// Every way to read gives the damaged messages with U+FFFD, and all others as they are; they can
/// be edited and deleted.
#[test]
fn damaged_messages_are_isolated() {
    let (server, hall, ids) = damaged();
    let mut anna = server.login10("anna");
    let expected: Vec<String> = (0..10)
        .map(|n| match n {
            2 | 5 | 7 => REPLACEMENT.to_owned(),
            n => format!("unmistakable{n} words"),
        })
        .collect();
    assert_eq!(contents(&anna.history(hall)), expected);
    assert_eq!(contents(&anna.page(hall, 0, 20)), expected);
    let updates: Vec<String> =
        anna.updates(0).into_iter().map(|(_, message)| message.content).collect();
    assert_eq!(updates, expected);
    // Nobody knows whether a damaged one has the word.
    let found = anna.search(hall, 20, "words");
    assert_eq!(found.len(), 7, "{found:?}");
    anna.edit(hall, ids[2], "mended");
    anna.delete(hall, ids[5]);
    let history = anna.history(hall);
    assert!(history.iter().any(|message| message.content == "mended"));
    eventually(|| server.stderr().contains("is damaged"));
    assert!(server.metrics()["damaged_messages_total"] >= 3.0);
}

/// A file of which a bit has flipped is not given as another one: its part is declined, and the
/// rest of it, other files and the message are as they were. `check` and backups notice.
#[test]
fn a_damaged_part_of_a_file_is_declined() {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login11("anna");
    let hall = anna.chat_id("hall");
    let content: Vec<u8> = (0..150_000_u32).flat_map(|n| n.to_be_bytes()).collect();
    let file = anna.upload(hall, "numbers", &content);
    let other = anna.upload(hall, "other", b"other");
    let sent = anna.send_with(hall, "numbers", 0, &[file, other]);
    server.stop_by("TERM");
    let mut bytes = fs::read(server.data()).expect("the data file");
    let number = 100_000_u32;
    let part: Vec<u8> = (number..number + 4).flat_map(u32::to_be_bytes).collect();
    let at = bytes.windows(part.len()).position(|window| window == part);
    bytes[at.expect("a number of the file")] ^= 1;
    fs::write(server.data(), bytes).expect("the data file");
    server.restart();
    let mut anna = server.login11("anna");
    anna.get_file(file, 400_000, 16).declined("storage-failed");
    assert_eq!(anna.get_file(file, 0, 16).accepted(), content[..16]);
    assert_eq!(anna.get_file(file, 599_984, 16).accepted(), content[599_984..]);
    assert_eq!(anna.download(other), b"other");
    assert_eq!(anna.page(hall, 0, 10)[0].id, sent.id);
    eventually(|| server.stderr().contains(&format!("file {file}, from byte")));
    assert!(server.metrics()["damaged_files_total"] >= 1.0);
    let output = server.admin(&["check"], None);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert_eq!(stdout.matches(&format!("checksum: file {file}, ")).count(), 1, "{stdout}");
    let copy = server.dir().join("copy.db");
    let output = server.admin(&["backup", copy.to_str().expect("UTF-8")], None);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("0 messages and 1 parts of files are damaged"), "{stderr}");
    assert!(!copy.exists());
}

/// `check` lists them, and a backup does not get its name unless that is accepted.
#[test]
fn damaged_messages_are_found() {
    let (server, _, ids) = damaged();
    let output = server.admin(&["check"], None);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    for damaged in [ids[2], ids[5], ids[7]] {
        let line = format!("message {damaged}");
        assert!(
            stdout.lines().any(|text| text.contains("checksum") && text.ends_with(&line)),
            "{stdout}"
        );
    }
    assert_eq!(stdout.lines().filter(|line| line.contains("checksum")).count(), 3, "{stdout}");
    let copy = server.dir().join("copy.db");
    let name = copy.to_str().expect("UTF-8");
    let output = server.admin(&["backup", name], None);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("3 messages are damaged") && stderr.lines().count() == 1, "{stderr}");
    assert!(!copy.exists() && !server.dir().join("copy.db.partial").exists());
    server.admin_ok(&["backup", name, "--accept-damage"], None);
    assert!(copy.exists());
}
