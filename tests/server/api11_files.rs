//! Files: BEGIN_FILE, PUT_FILE, GET_FILE, END_FILE, and messages with files (protocol section 5a).

use crate::support::api10::*;
use crate::support::api11::*;
use crate::support::wire::*;
use crate::support::{Client, Dice, Server, in_time};

struct Hall {
    server: Server,
    anna: Client,
    boris: Client,
    chat: u32,
}

fn hall_with(options: &[&str]) -> Hall {
    let server = Server::with(options);
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    let chat = anna.create_chat("hall");
    boris.join(chat);
    anna.drain();
    boris.drain();
    Hall { server, anna, boris, chat }
}

fn hall() -> Hall {
    hall_with(&[])
}

fn content(bytes: usize) -> Vec<u8> {
    Dice::new(bytes as u64 + 1).bytes(bytes)
}

/// Whether the database, or the WAL, holds these bytes.
fn holds(server: &Server, bytes: &[u8]) -> bool {
    let wal = server.data().with_extension("db-wal");
    [server.data(), wal].iter().any(|path| {
        let whole = std::fs::read(path).unwrap_or_default();
        whole.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// A file goes up in pieces, is sent, and comes down for every member, whole and in part.
#[test]
fn a_file() {
    let Hall { server, mut anna, mut boris, chat } = hall();
    server.add_user("clara");
    let mut clara = server.login10("clara");
    clara.join(chat);
    anna.drain();
    boris.drain();
    let content = content(200_001);
    let request = body().id(chat).u64(200_001).u16(640).u16(480).text("image/png").text("a b.png");
    let file = Reader::new(&anna.ask(BEGIN_FILE, request).accepted()).u64();
    let mut stored = 0;
    for piece in content.chunks(65_000) {
        let answer = anna.put_file(file, stored, piece).accepted();
        stored += piece.len() as u64;
        let mut reader = Reader::new(&answer);
        assert_eq!(reader.u64(), stored);
        reader.finish();
    }
    assert_eq!(anna.download(file), content, "the uploader reads it before it is sent");
    boris.get_file(file, 0, 1).declined("no-such-file");
    anna.send_with(chat, "look", 0, &[file]);
    let live = boris.notified(chat, 1);
    let entry = FileEntry {
        id: file,
        size: 200_001,
        width: 640,
        height: 480,
        media_type: "image/png".to_owned(),
        name: "a b.png".to_owned(),
    };
    assert_eq!(live[0].extras.files, [entry]);
    assert_eq!(live[0].content, "look");
    assert_eq!(boris.page(chat, 0, 1), live);
    assert_eq!(boris.search(chat, 5, "look")[0].1, live[0]);
    assert_eq!(contents(&clara.notified(chat, 1)), ["look\n[a b.png, 200001 bytes]"]);
    assert_eq!(contents(&clara.page(chat, 0, 1)), ["look\n[a b.png, 200001 bytes]"]);
    assert_eq!(clara.search(chat, 5, "bytes"), [], "SEARCH_MSG looks at the text alone");
    assert_eq!(boris.download(file), content);
    for (offset, length) in [(0, 0), (1, 1), (65_535, 2), (100_000, 65_536), (199_999, 100)] {
        let part = boris.get_file(file, offset, length).accepted();
        let end = content.len().min(offset as usize + length as usize);
        assert_eq!(part, content[offset as usize..end]);
    }
    assert_eq!(boris.get_file(file, 0, u32::MAX).accepted().len(), 65_536);
    for offset in [200_001, u64::MAX] {
        assert!(boris.get_file(file, offset, 5).accepted().is_empty());
    }
    boris.ask(END_FILE, body().u64(file)).accepted_empty();
    assert_eq!(boris.download(file), content, "END_FILE of a file in a message does nothing");
    server.admin_ok(&["check"], None);
}

/// What is wrong with BEGIN_FILE.
#[test]
fn begin_file_declined() {
    let Hall { server, mut anna, mut boris, chat } =
        hall_with(&["--file-limit", "1000", "--user-files-limit", "2500", "--files-limit", "4000"]);
    let mut dora = server.users11(["dora"]).map(|(client, _)| client);
    dora[0].ask(BEGIN_FILE, begin_body(chat, 10, "a")).declined("not-member");
    anna.ask(BEGIN_FILE, begin_body(99, 10, "a")).declined("no-such-chat");
    anna.ask(BEGIN_FILE, begin_body(chat, 0, "a")).declined("malformed");
    anna.ask(BEGIN_FILE, begin_body(chat, 10, "a").u8(0)).declined("malformed");
    anna.ask(BEGIN_FILE, begin_body(chat, 1001, "")).declined("too-large");
    for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(256)] {
        anna.ask(BEGIN_FILE, begin_body(chat, 10, bad)).declined("bad-name");
    }
    for bad in ["", "text", "text/", "Text/plain", "text/plain; x=y"] {
        let request = body().id(chat).u64(10).u16(0).u16(0).text(bad).text("a");
        anna.ask(BEGIN_FILE, request).declined("bad-name");
    }
    let first = anna.begin_file(chat, 1000, "a");
    anna.begin_file(chat, 1000, "b");
    anna.ask(BEGIN_FILE, begin_body(chat, 1000, "")).declined("quota-exceeded");
    anna.begin_file(chat, 500, "c");
    boris.begin_file(chat, 1000, "d");
    boris.ask(BEGIN_FILE, begin_body(chat, 501, "e")).declined("quota-exceeded");
    anna.ask(END_FILE, body().u64(first)).accepted_empty();
    boris.begin_file(chat, 501, "e");
    let mut old = server.login10("anna");
    old.ask(BEGIN_FILE, begin_body(chat, 10, "a")).declined("unknown-purpose");
}

/// No files at all, and a disk that is nearly full.
#[test]
fn no_room_for_files() {
    let mut hall = hall_with(&["--file-limit", "0"]);
    let request = begin_body(hall.chat, 1, "a");
    hall.anna.ask(BEGIN_FILE, request).declined("too-large");
    let mut hall = hall_with(&["--disk-reserve", "1000000000000000"]);
    let request = begin_body(hall.chat, 1, "a");
    hall.anna.ask(BEGIN_FILE, request).declined("quota-exceeded");
}

/// Sixteen uploads of a user at once; another user's do not count.
#[test]
fn uploads_under_way_are_bounded() {
    let Hall { server: _server, mut anna, mut boris, chat } = hall();
    let files: Vec<u64> = (0..16).map(|n| anna.begin_file(chat, 10, &n.to_string())).collect();
    anna.ask(BEGIN_FILE, begin_body(chat, 10, "a")).declined("quota-exceeded");
    boris.begin_file(chat, 10, "b");
    anna.put_file(files[3], 0, b"0123456789").accepted();
    anna.ask(BEGIN_FILE, begin_body(chat, 10, "a")).declined("quota-exceeded");
    anna.send_with(chat, "", 0, &[files[3]]);
    anna.begin_file(chat, 10, "a");
}

/// What is wrong with PUT_FILE, GET_FILE and END_FILE.
#[test]
fn files_declined() {
    let Hall { server, mut anna, mut boris, chat } = hall();
    let file = anna.begin_file(chat, 100, "a");
    anna.ask(PUT_FILE, body().u64(file).u64(0)).declined("malformed");
    anna.ask(PUT_FILE, body().u64(0).u64(0).u8(1)).declined("malformed");
    anna.ask(GET_FILE, body().u64(file).u64(0)).declined("malformed");
    anna.ask(END_FILE, body().u64(file).u8(0)).declined("malformed");
    for other in [file + 1, u64::MAX] {
        anna.put_file(other, 0, b"x").declined("no-such-file");
        anna.get_file(other, 0, 1).declined("no-such-file");
        anna.ask(END_FILE, body().u64(other)).declined("no-such-file");
    }
    boris.put_file(file, 0, b"x").declined("no-such-file");
    boris.get_file(file, 0, 1).declined("no-such-file");
    boris.ask(END_FILE, body().u64(file)).declined("no-such-file");
    assert_eq!(anna.put_file(file, 5, b"x").declined_with_number("bad-offset"), 0);
    anna.put_file(file, 0, &[7; 60]).accepted();
    assert_eq!(anna.put_file(file, 0, &[7; 60]).declined_with_number("bad-offset"), 60);
    anna.put_file(file, 60, &[7; 41]).declined("too-large");
    assert_eq!(anna.get_file(file, 0, 1000).accepted().len(), 60, "nothing of it was stored");
    anna.ask(SEND_CHAT_MSG, send_body(chat, "x", 1, 0, &[file])).declined("no-such-file");
    anna.put_file(file, 60, &[7; 40]).accepted();
    let mut dora = server.users11(["dora"]).map(|(client, _)| client);
    anna.send_with(chat, "x", 0, &[file]);
    dora[0].get_file(file, 0, 1).declined("no-such-file");
    boris.put_file(file, 100, b"x").declined("no-such-file");
    anna.put_file(file, 100, b"x").declined("too-large");
}

/// Which files a message may attach: mine, of this chat, whole, each once and in no other message.
#[test]
fn attaching() {
    let Hall { server, mut anna, mut boris, chat } = hall();
    let other = anna.create_chat("other");
    let files: Vec<u64> = (0..11).map(|n| anna.upload(chat, &format!("f{n}"), b"x")).collect();
    let elsewhere = anna.upload(other, "f", b"x");
    let his = boris.upload(chat, "f", b"x");
    let declined = |anna: &mut Client, files: &[u64], code: &str| {
        anna.ask(SEND_CHAT_MSG, send_body(chat, "", 1, 0, files)).declined(code);
    };
    for bad in [elsewhere, his, 999] {
        declined(&mut anna, &[files[0], bad], "no-such-file");
    }
    declined(&mut anna, &[files[0], files[0]], "no-such-file");
    declined(&mut anna, &files, "malformed");
    let order: Vec<u64> = files[1..].iter().rev().copied().collect();
    let sent = anna.send_with(chat, "", 0, &order);
    let got = boris.notified(chat, 1);
    let ids: Vec<u64> = got[0].extras.files.iter().map(|file| file.id).collect();
    assert_eq!(ids, order, "in the order in which they were attached");
    declined(&mut anna, &[files[1]], "no-such-file");
    let updated = boris.react(chat, sent.id, true, "+");
    let kept = boris.page(chat, 0, 1);
    assert_eq!((kept[0].extras.files.len(), kept[0].updated), (10, updated));
    server.admin_ok(&["check"], None);
}

/// Texts of messages with files are edited from every version, and deleting takes the files along.
#[test]
fn editing_and_deleting_messages_with_files() {
    let Hall { server, mut anna, mut boris, chat } = hall();
    let marked = b"these bytes are to leave the disk as well".repeat(20);
    let one = anna.upload(chat, "one.txt", &marked);
    let two = anna.upload(chat, "two.txt", b"x");
    let sent = anna.send_with(chat, "text", 0, &[one, two]);
    let mut old = server.login10("anna");
    let lines = format!("[one.txt, {} bytes]\n[two.txt, 1 bytes]", marked.len());
    assert_eq!(contents(&old.page(chat, 0, 1)), [format!("text\n{lines}")]);
    let text = |boris: &mut Client| boris.page(chat, 0, 1)[0].content.clone();
    for (content, expected) in [
        (format!("new\n{lines}"), "new"),
        ("other".to_owned(), "other"),
        (lines.clone(), ""),
        (format!("two\nlines\n{lines}"), "two\nlines"),
        (format!("{}\n{lines}", "x".repeat(16 * 1024)), &"x".repeat(16 * 1024)),
    ] {
        old.edit(chat, sent.id, &content);
        assert_eq!(text(&mut boris), expected);
        assert_eq!(boris.page(chat, 0, 1)[0].extras.files.len(), 2);
    }
    anna.edit(chat, sent.id, "");
    assert_eq!(text(&mut boris), "");
    assert_eq!(contents(&old.page(chat, 0, 1)), [lines.as_str()]);
    anna.edit(chat, sent.id, &lines);
    assert_eq!(text(&mut boris), lines, "on 1.1 it is a text like any other");
    let long = "x".repeat(16 * 1024 + 1);
    anna.ask(EDIT_MSG, body().id(chat).u64(sent.id).text(&long)).declined("too-long");
    assert!(holds(&server, &marked));
    anna.delete(chat, sent.id);
    boris.get_file(one, 0, 1).declined("no-such-file");
    assert_eq!(boris.page(chat, 0, 1)[0].extras, Extras::default());
    assert_eq!(contents(&old.page(chat, 0, 1)), [""]);
    in_time(|| !holds(&server, &marked[..41]));
    server.admin_ok(&["check"], None);
}

/// What PUT_FILE acknowledged is there after a crash, and the upload goes on from it.
#[test]
fn uploads_survive_crashes() {
    let Hall { mut server, mut anna, boris: _, chat } = hall();
    let content = content(300_000);
    let file = anna.begin_file(chat, 300_000, "a");
    let mut stored = 0;
    while stored < content.len() {
        let end = content.len().min(stored + 50_000);
        anna.put_file(file, stored as u64, &content[stored..end]).accepted();
        // One more is on its way when the server is killed.
        let next = &content[end..content.len().min(end + 10_000)];
        if !next.is_empty() {
            anna.post(PUT_FILE, body().u64(file).u64(end as u64).bytes(next));
        }
        server.kill();
        server.restart();
        anna = server.login11("anna");
        let found = anna.put_file(file, u64::MAX, b"x").declined_with_number("bad-offset");
        stored = found as usize;
        assert!(stored == end || stored == end + next.len(), "{stored} of {end}");
    }
    anna.send_with(chat, "", 0, &[file]);
    let mut boris = server.login11("boris");
    assert_eq!(boris.download(file), content);
    server.admin_ok(&["check"], None);
}

/// Uploads of a member who leaves or is banned are gone, and so are those to a chat that is
/// deleted.
#[test]
fn uploads_of_those_who_leave_are_gone() {
    let Hall { server, mut anna, mut boris, chat } = hall();
    let left = boris.upload(chat, "a", b"x");
    let sent = boris.upload(chat, "b", b"x");
    boris.send_with(chat, "", 0, &[sent]);
    boris.leave(chat);
    boris.get_file(sent, 0, 1).declined("no-such-file");
    boris.join(chat);
    boris.get_file(left, 0, 1).declined("no-such-file");
    assert_eq!(boris.download(sent), b"x");
    let banned = boris.upload(chat, "c", b"x");
    let user = boris.user_id("boris");
    anna.set_ban(chat, user, true).accepted_empty();
    anna.set_ban(chat, user, false).accepted_empty();
    boris.join(chat);
    boris.get_file(banned, 0, 1).declined("no-such-file");
    let mine = anna.upload(chat, "d", b"x");
    anna.ask(DELETE_CHAT, body().id(chat)).accepted_empty();
    anna.get_file(mine, 0, 1).declined("no-such-file");
    boris.get_file(sent, 0, 1).declined("no-such-file");
    server.admin_ok(&["check"], None);
}

/// Many uploads at once do not keep others from being served, and all come whole.
#[test]
fn many_uploads_at_once() {
    let Hall { server, mut anna, mut boris, chat } = hall();
    let content = content(600_000);
    let mut uploads = Vec::new();
    for _ in 0..8 {
        let mut client = server.login11("anna");
        let file = client.begin_file(chat, 600_000, "a");
        let mut offset = 0;
        for piece in content.chunks(60_000) {
            client.post(PUT_FILE, body().u64(file).u64(offset).bytes(piece));
            offset += piece.len() as u64;
        }
        uploads.push((client, file));
    }
    for n in 0..20 {
        boris.send(chat, &n.to_string());
    }
    for (client, file) in &mut uploads {
        for _ in 0..10 {
            client.answer().accepted();
        }
        client.hear_everything();
        client.drain();
        assert_eq!(client.download(*file), content);
    }
    let files: Vec<u64> = uploads.iter().map(|(_, file)| *file).collect();
    anna.drain();
    anna.send_with(chat, "all", 0, &files);
    server.admin_ok(&["check"], None);
}

/// A copy without the bytes of files has everything else: messages show their files, which are
/// declined, and new ones can be sent.
#[test]
fn a_backup_can_leave_files_out() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let file = anna.upload(hall, "large.bin", &vec![7; 3 << 20]);
    let message = anna.send_with(hall, "look", 0, &[file]).id;
    anna.upload(hall, "under-way", b"of no message yet");
    let copy = server.dir().join("copy.db");
    let name = copy.to_str().expect("UTF-8");
    server.admin_ok(&["backup", name, "--without-files"], None);
    assert!(copy.metadata().expect("the copy").len() < 1 << 20);
    let other = Server::on_copy_of(&copy);
    other.admin_ok(&["check"], None);
    let mut anna = other.login11("anna");
    let page = anna.page(hall, 0, 1);
    assert_eq!((page[0].content.as_str(), page[0].extras.files[0].size), ("look", 3 << 20));
    anna.get_file(file, 0, 10).declined("no-such-file");
    assert_eq!(anna.get_file(file, 3 << 20, 10).accepted(), b"");
    let new = anna.upload(hall, "new", b"new");
    anna.send_with(hall, "", 0, &[new]);
    assert_eq!(anna.download(new), b"new");
    // Quotas count what is there.
    let used = || {
        let sql = "SELECT sum(bytes) FROM file_usage WHERE user_id = 0";
        let db = rusqlite::Connection::open(other.data()).expect("the database");
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a sum")
    };
    assert_eq!(used(), 3);
    anna.delete(hall, message);
    assert_eq!(used(), 3);
    other.admin_ok(&["check"], None);
}
