//! `vestnik export` and `vestnik import`: a chat moves to another database unchanged.

use std::path::PathBuf;
use std::process::Stdio;

use crate::support::folder::{Folder, has, one_line};
use crate::support::server::{run, vestnik};
use crate::support::wire::*;
use crate::support::{Client, Server, eventually};

/// A chat with messages of every kind, by anna and boris, of whom clara is banned.
fn server_with_chat() -> (Server, u32) {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id), (_, clara_id)] =
        server.users10(["anna", "Борис", "clara"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let odd = [
        "plain",
        "здравствуйте 你好 🙂",
        "quote \" back \\ slash",
        "\u{1b}[31m\r\n\t\u{7f}\u{2028}",
    ];
    for (n, text) in odd.iter().enumerate() {
        if n % 2 == 0 {
            anna.send(hall, text)
        } else {
            boris.send(hall, text)
        };
    }
    let edited = anna.send(hall, "quicksilver, at first").id;
    anna.edit(hall, edited, "mercury, now");
    let deleted = boris.send(hall, "gone").id;
    boris.delete(hall, deleted);
    anna.send(hall, &"x".repeat(16 * 1024));
    anna.set_admin(hall, boris_id, true).accepted_empty();
    anna.set_ban(hall, clara_id, true).accepted_empty();
    (server, hall)
}

fn lines(server: &Server, name: &str) -> (PathBuf, Vec<String>) {
    let path = server.dir().join(&format!("{name}.jsonl"));
    let text = server.admin_ok(&["export", name], None);
    std::fs::write(&path, &text).expect("room");
    (path, text.lines().map(str::to_owned).collect())
}

/// The messages that a member of a chat sees, senders apart.
fn seen(messages: Vec<Message>) -> Vec<(u64, i64, i64, u8, String)> {
    let fields = |m: Message| (m.id, m.created, m.updated, m.status, m.content);
    messages.into_iter().map(fields).collect()
}

/// Everything is as it was in another file, also while a server runs on it, whose members are
/// notified.
#[test]
fn a_chat_moves_to_another_server() {
    let (old, hall) = server_with_chat();
    let mut anna = old.greeted10();
    anna.login10("anna");
    let before = anna.range(hall, 0, None);
    let (path, exported) = lines(&old, "hall");
    assert_eq!(exported.len(), 1 + 2 + 1 + before.len() + 1);
    let path = path.to_str().expect("UTF-8");

    let new = Server::start();
    let [(_, _), (mut anna, anna_id), (mut dora, _)] = new.users10(["zed", "Anna", "dora"]);
    let words = failed(&new, &["import", path]);
    assert!(words.contains("Борис") && words.contains("--add-users"), "{words}");
    assert_eq!(dora.find_chats("", 10), [], "nothing is left of it");

    let said = new.admin_ok(&["import", path, "--add-users"], None);
    assert!(said.starts_with("added chat hall with id "), "{said}");
    let got = anna.chat_notify();
    assert_eq!((got.name.as_str(), got.flags & 2), ("hall", 2));
    let after = anna.range(got.id, 0, None);
    let by_anna = after.iter().filter(|message| message.sender == anna_id).count();
    assert_eq!(by_anna, before.iter().filter(|message| message.sender != 2).count());
    assert_eq!(seen(after), seen(before));
    assert_eq!(anna.search(got.id, 10, "mercury").len(), 1);
    assert_eq!(anna.search(got.id, 10, "quicksilver"), []);
    assert_eq!(anna.search(got.id, 10, "здравствуйте").len(), 1);
    let boris = anna.user_id("борис");
    assert!(anna.members(got.id).iter().any(|member| member.user == boris));
    let denied = new.greeted10().ask(LOGIN, login_body("Борис", "secret"));
    assert_eq!(denied.purpose, DECLINED, "who was added cannot log in");
    let latest = anna.range(got.id, 0, None).last().map_or(0, |message| message.created);
    assert!(anna.send(got.id, "and on").created > latest);
    new.admin_ok(&["check"], None);
    // What comes out is what went in, but for the message since and who is not known here.
    let (_, again) = lines(&new, "hall");
    let of = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| line.starts_with("{\"message\"")).cloned().collect()
    };
    let (first, second) = (of(&exported), of(&again));
    let as_here = |line: &String| line.replace("\"anna\"", "\"Anna\"");
    assert_eq!(first.iter().map(as_here).collect::<Vec<_>>(), second[..first.len()]);
}

use crate::support::client::login_body;

fn failed(server: &Server, args: &[&str]) -> String {
    let output = server.admin(args, None);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files move with their bytes, whatever these are, next to messages with and without text; those
/// of a deleted message are gone.
#[test]
fn files_move_with_their_messages() {
    let old = Server::start();
    let [(mut anna, _)] = old.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let large: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
    let contents = [&large[..], b"\0", b"two\r\n"];
    let mut attach = |text: &str, contents: &[&[u8]]| {
        let files: Vec<u64> = contents.iter().map(|one| anna.upload(hall, "a.txt", one)).collect();
        anna.send_with(hall, text, 0, &files).id
    };
    attach("with text", &contents);
    attach("", &contents[1..]);
    let gone = attach("gone", &contents[..1]);
    attach("last", &contents[2..]);
    anna.send(hall, "plain");
    anna.delete(hall, gone);
    let before = anna.page(hall, 0, 10);
    let (path, exported) = lines(&old, "hall");
    let count = |key: &str| exported.iter().filter(|line| line.starts_with(key)).count();
    assert_eq!((count("{\"file\""), count("{\"sha256\"")), (6, 6));
    assert!(count("{\"bytes\"") >= 9, "in parts");

    let new = Server::start();
    let [(mut anna, _)] = new.users11(["anna"]);
    new.admin_ok(&["import", path.to_str().expect("UTF-8")], None);
    let chat = anna.chat_notify().id;
    let after = anna.page(chat, 0, 10);
    let shown = |messages: &[Message]| {
        let files = |m: &Message| {
            m.extras.files.iter().map(|file| (file.size, file.name.clone())).collect::<Vec<_>>()
        };
        messages.iter().map(|m| (m.id, m.content.clone(), files(m))).collect::<Vec<_>>()
    };
    assert_eq!(shown(&after), shown(&before));
    let file = |message: usize, place: usize| after[message].extras.files[place].id;
    assert_eq!(anna.download(file(0, 0)), large);
    assert_eq!(anna.download(file(0, 2)), b"two\r\n");
    assert_eq!(anna.download(file(1, 0)), b"\0");
    assert!(after[2].extras.files.is_empty());
    new.admin_ok(&["check"], None);
    let (_, again) = lines(&new, "hall");
    assert_eq!(again[2..], exported[2..], "but for the chat and its member");
}

/// What does not fit its length or its digest is refused, and leaves nothing. A file that was cut
/// off belongs to a message that was deleted meanwhile, or is left out.
#[test]
fn files_that_are_not_whole_are_refused() {
    let old = Server::start();
    let [(mut anna, _)] = old.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let file = anna.upload(hall, "a.txt", b"hello");
    let message = anna.send_with(hall, "", 0, &[file]).id;
    anna.send(hall, "more");
    let (path, good) = lines(&old, "hall");
    let at = |key: &str| good.iter().position(|line| line.starts_with(key)).expect(key);
    let (head, bytes, sha) = (at("{\"file\""), at("{\"bytes\""), at("{\"sha256\""));
    let new = Server::start();
    new.add_user("anna");
    let import = |lines: &[String]| {
        std::fs::write(&path, lines.join("\n") + "\n").expect("room");
        new.admin(&["import", path.to_str().expect("UTF-8")], None)
    };
    let with = |place: usize, line: &str| {
        let mut lines = good.clone();
        lines[place] = line.to_owned();
        lines
    };
    let without = |place: usize| {
        let mut lines = good.clone();
        lines.remove(place);
        lines
    };
    for (lines, words) in [
        (with(bytes, "{\"bytes\":\"aGVsbG8h\"}"), "more bytes than the 5"),
        (with(bytes, "{\"bytes\":\"aGVsbA==\"}"), "of which 4 came"),
        (with(bytes, "{\"bytes\":\"aGVsbGg=\"}"), "not the digest"),
        (with(bytes, "{\"bytes\":\"aGVsb\"}"), "base64"),
        (with(head, &good[head].replace("text/plain", "Text")), "media type"),
        (with(head, &good[head].replace("a.txt", "a/txt")), "cannot be one"),
        (with(head, &good[head].replace("\"size\":5", "\"size\":0")), "size of 0"),
        (without(head), "bytes of no file"),
        (without(sha), "cut off"),
        ([without(sha), vec![good[head].clone()]].concat(), "cut off"),
    ] {
        let output = import(&lines);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(stderr.contains(words) && stderr.contains("line "), "{words}: {stderr}");
    }
    let deleted = format!(
        "{{\"message\":{{\"id\":{message},\"sender\":\"anna\",\"updated\":{},\
                           \"deleted\":true,\"content\":\"\"}}}}",
        message + 1
    );
    let mut lines = without(sha);
    lines[sha] = deleted;
    let output = import(&lines);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut anna = new.login11("anna");
    let chat = anna.my_chats()[0].id;
    let page = anna.page(chat, 0, 10);
    assert!(page[0].extras.files.is_empty() && page[1].content == "more");
    new.admin_ok(&["check"], None);
    let db = rusqlite::Connection::open(new.data()).expect("the database");
    let sql = "SELECT (SELECT count(*) FROM files) + (SELECT sum(bytes + uploads) FROM file_usage)";
    let left: i64 = db.query_row(sql, [], |row| row.get(0)).expect("a number");
    assert_eq!(left, 0, "the file of the deleted message");
}

/// Without their bytes, and from format 1, files are lines behind the text.
#[test]
fn files_can_be_left_out() {
    let old = Server::start();
    let [(mut anna, _)] = old.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let file = anna.upload(hall, "a.txt", b"hello");
    anna.send_with(hall, "look", 0, &[file]);
    let text = old.admin_ok(&["export", "hall", "--without-files"], None);
    assert!(text.contains("look\\n[a.txt, 5 bytes]") && !text.contains("{\"file\""), "{text}");
    let new = Server::start();
    new.add_user("anna");
    let path = new.dir().join("hall.jsonl");
    std::fs::write(&path, text.replace("\"format\":2", "\"format\":1")).expect("room");
    new.admin_ok(&["import", path.to_str().expect("UTF-8")], None);
    let mut anna = new.login10("anna");
    let chat = anna.my_chats()[0].id;
    assert_eq!(anna.page(chat, 0, 1)[0].content, "look\n[a.txt, 5 bytes]");
}

/// A message has one id in the whole file, and a name is that of one chat.
#[test]
fn nothing_comes_in_twice() {
    let (server, hall) = server_with_chat();
    let (path, _) = lines(&server, "hall");
    let path = path.to_str().expect("UTF-8");
    assert!(failed(&server, &["import", path]).contains("--as"));
    let words = failed(&server, &["import", path, "--as", "copy"]);
    assert!(words.contains("has the message"), "{words}");
    // At once after the removal, whose messages leave the file in slices.
    let mut anna = server.greeted10();
    anna.login10("anna");
    let before = anna.range(hall, 0, None);
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    server.admin_ok(&["import", path, "--as", "copy"], None);
    let copy = anna.chat_id("copy");
    assert_ne!(copy, hall);
    assert_eq!(anna.my_chats().len(), 1);
    assert_eq!(seen(anna.range(copy, 0, None)), seen(before));
    assert_eq!(anna.search(copy, 10, "mercury").len(), 1);
    assert_eq!(anna.search(0, 10, "quicksilver"), []);
    server.admin_ok(&["check"], None);
}

/// Long texts, whose words leave the index in several steps, come back under the same ids.
#[test]
fn a_removed_chat_comes_back_with_its_words() {
    let server = Server::start();
    let [(mut anna, _)] = server.users10(["anna"]);
    let hall = anna.create_chat("hall");
    let many: Vec<String> = (0..600).map(|n| format!("word{n}")).collect();
    for _ in 0..20 {
        anna.send(hall, &many.join(" "));
    }
    assert_eq!(anna.search(hall, 50, "word599").len(), 20);
    let (path, _) = lines(&server, "hall");
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    server.admin_ok(&["import", path.to_str().expect("UTF-8")], None);
    let hall = anna.chat_id("hall");
    assert_eq!(anna.search(hall, 50, "word599").len(), 20);
    assert_eq!(anna.chat(hall).unread, 0, "they are all anna's own");
    server.admin_ok(&["check"], None);
}

/// The chat of two is named by both, in whatever order, and is theirs again.
#[test]
fn a_direct_chat_moves() {
    let old = Server::start();
    let [(mut anna, _), (_, boris_id)] = old.users10(["anna", "boris"]);
    let direct = anna.start_chat(boris_id);
    anna.send(direct, "only for you");
    let before = anna.range(direct, 0, None);
    let path = old.dir().join("direct.jsonl");
    let file = path.to_str().expect("UTF-8");
    let export = ["export", "--direct", "boris", "anna", "--output", file];
    let said = old.admin_ok(&export, None);
    assert!(said.starts_with("wrote 1 messages of the direct chat of boris and anna"), "{said}");
    assert!(failed(&old, &["import", file]).contains("have a direct chat already"));
    assert!(failed(&old, &["export", "--direct", "anna", "nobody"]).contains("nobody"));

    let new = Server::start();
    let [(mut boris, boris_id)] = new.users10(["boris"]);
    assert!(failed(&new, &["import", file]).contains("no user \"anna\""));
    assert!(failed(&new, &["import", file, "--as", "x"]).contains("has no name"));
    new.admin_ok(&["import", file, "--add-users"], None);
    let got = boris.chat_notify();
    assert_eq!((got.kind, got.title.as_str(), got.unread), (1, "anna", 1));
    assert_eq!(seen(boris.range(got.id, 0, None)), seen(before));
    let anna_id = boris.user_id("anna");
    assert_eq!(boris.start_chat(anna_id), got.id);
    assert_ne!(anna_id, boris_id);
    new.admin_ok(&["check"], None);
    let text = std::fs::read_to_string(&path).expect("exported");
    for (from, to) in [
        ("[\"boris\",\"anna\"]", "[\"boris\",\"Boris\"]"),
        ("{\"member\":{\"name\":\"anna\"", "{\"member\":{\"name\":\"clara\""),
        ("\"name\":\"\"", "\"name\":\"x\""),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(&path, text.replace(from, to)).expect("room");
        assert!(failed(&new, &["import", file]).contains("direct chat"), "{to}");
    }
}

/// With the hash of its password, when that is asked for, a chat opens to who knows it.
#[test]
fn a_password_moves_when_asked() {
    let old = Server::start();
    old.add_locked_chat("vault", "open sesame");
    let exported = old.admin_ok(&["export", "vault", "--with-password"], None);
    let new = Server::start();
    let [(mut anna, _)] = new.users10(["anna"]);
    let path = new.dir().join("vault.jsonl");
    let file = path.to_str().expect("UTF-8");
    std::fs::write(&path, exported.replace("pbkdf2", "xbkdf2")).expect("room");
    assert!(failed(&new, &["import", file]).contains("none can match"));
    std::fs::write(&path, &exported).expect("room");
    new.admin_ok(&["import", file], None);
    let vault = anna.chat_id("vault");
    anna.ask(JOIN_CHAT, body().id(vault).text("open barley")).declined("bad-password");
    anna.ask(JOIN_CHAT, body().id(vault).text("open sesame")).accepted_empty();
    new.admin_ok(&["import", file, "--as", "open", "--no-password"], None);
    let open = anna.chat_id("open");
    anna.join(open);
}

/// A file that is wrong anywhere changes nothing, and the line is named.
#[test]
fn a_wrong_line_is_named() {
    let (server, _) = server_with_chat();
    let (path, good) = lines(&server, "hall");
    let last = good.len() - 1;
    let change = |at: usize, from: &str, to: &str| {
        let mut lines = good.clone();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replacen(from, to, 1);
        lines
    };
    let without = |at: usize| {
        let mut lines = good.clone();
        lines.remove(at);
        lines
    };
    let swapped = {
        let mut lines = good.clone();
        lines.swap(4, 5);
        lines
    };
    let cases = [
        (change(0, "\"format\":2", "\"format\":3"), "line 1 "),
        (without(0), "line 1 "),
        (without(last), "end is missing"),
        (without(5), "says 7 messages, and 6 came"),
        (change(4, "\"id\":1", "\"id\":9"), "yet to come"),
        (change(4, "\"id\":", "\"id\":-"), "line 5 "),
        (change(4, "\"content\":\"plain\"", "\"content\":\"\""), "line 5 "),
        (change(4, "plain", "pl\\u0000in"), "NUL"),
        (change(4, "\"content\":\"plain\"", "\"content\":7"), "line 5 "),
        (change(4, "\"sender\"", "\"sender\":\"x\",\"sender\""), "line 5 "),
        (change(4, "\"message\"", "\"massage\""), "line 5 "),
        (
            change(
                4,
                "\"content\":\"plain\"",
                &format!("\"content\":\"{}\"", "y".repeat(1_048_577)),
            ),
            "1048576",
        ),
        (change(4, "plain", &"z".repeat(7_000_000)), "too long"),
        (change(4, "\"sender\":\"anna\"", "\"sender\":\"a b\""), "is no name"),
        (swapped, "line 6 does not come after"),
    ];
    for (lines, expected) in cases {
        std::fs::write(&path, lines.join("\n") + "\n").expect("room");
        let file = path.to_str().expect("UTF-8");
        let words = failed(&server, &["import", file, "--as", "other"]);
        assert!(words.contains(expected), "{expected}: {words}");
    }
    std::fs::write(&path, b"\xff\n").expect("room");
    let words = failed(&server, &["import", path.to_str().expect("UTF-8")]);
    assert!(words.contains("line 1 is not UTF-8"), "{words}");
    server.admin_ok(&["check"], None);
    let said = server.admin_ok(&["chat", "list"], None);
    assert_eq!(said.lines().count(), 2, "{said}");
}

/// The password of a chat is not exported, so an import has to set one.
#[test]
fn a_password_is_asked_for_anew() {
    let server = Server::start();
    server.add_locked_chat("vault", "open sesame");
    let (path, exported) = lines(&server, "vault");
    assert!(exported[0].contains("\"password\":true") && !exported[0].contains("pbkdf2"));
    let path = path.to_str().expect("UTF-8");
    let words = failed(&server, &["import", path, "--as", "other"]);
    assert!(words.contains("--no-password"), "{words}");
    server.admin_ok(&["import", path, "--as", "other", "--no-password"], None);
    let stdin = ["import", path, "--as", "third", "--password-stdin"];
    server.admin_ok(&stdin, Some("open sesame\n"));
    let said = server.admin_ok(&["chat", "list"], None);
    let has_password = |name: &str| {
        let line = said.lines().find(|line| line.contains(name)).expect("listed");
        line.contains("yes")
    };
    assert!(has_password("vault") && has_password("third") && !has_password("other"), "{said}");
}

/// A file that only its owner can read, and never one that is there already.
#[test]
fn a_file_is_written_once() {
    use std::os::unix::fs::PermissionsExt;
    let (server, _) = server_with_chat();
    let path = server.dir().join("out.jsonl");
    let file = path.to_str().expect("UTF-8");
    let said = server.admin_ok(&["export", "hall", "--output", file], None);
    assert!(said.starts_with("wrote 7 messages of hall to "), "{said}");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(failed(&server, &["export", "hall", "-o", file]).contains("exists"));
    assert!(failed(&server, &["export", "nowhere"]).contains("nowhere"));
}

/// An import that was killed leaves a chat that nobody finds, and the next import takes it away.
#[test]
fn an_import_that_was_killed_is_taken_away() {
    let (server, _) = server_with_chat();
    let (path, _) = lines(&server, "hall");
    let path = path.to_str().expect("UTF-8");
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    let other = rusqlite::Connection::open(server.data()).expect("the file");
    other.busy_timeout(std::time::Duration::from_secs(5)).expect("set");
    other.execute("INSERT INTO chats (kind, created) VALUES (0, 1)", []).expect("written");
    assert!(server.admin_ok(&["check"], None).contains("1 imports go on"));
    server.admin_ok(&["import", path], None);
    let sql = "SELECT count(*) FROM chats WHERE name IS NULL";
    let unnamed = || other.query_row(sql, [], |row| row.get::<_, i64>(0));
    assert_eq!(unnamed(), Ok(0));
    server.admin_ok(&["check"], None);
    // Killed at its very end: the same file can come in all the same.
    other
        .execute_batch(
            "BEGIN IMMEDIATE; DELETE FROM members; DELETE FROM bans;
             UPDATE chats SET name = NULL, name_key = NULL, member_count = 0; COMMIT",
        )
        .expect("written");
    server.admin_ok(&["import", path], None);
    assert_eq!(unnamed(), Ok(0));
    server.admin_ok(&["check"], None);
}

/// An import that fails at its end takes away what it has stored, though a server has the file; and
/// two at once do not take each other away.
#[test]
fn an_import_that_fails_leaves_nothing() {
    let (server, _) = server_with_chat();
    let (path, mut text) = lines(&server, "hall");
    server.admin_ok(&["chat", "remove", "hall", "--yes"], None);
    // Enough of them that there is time to take its name.
    let message = text.iter().position(|line| line.contains("plain")).expect("a message");
    let line =
        |id| format!("{{\"message\":{{\"id\":{id},\"sender\":\"anna\",\"content\":\"many\"}}}}");
    let end = text.pop().expect("an end");
    let count = end.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    let count: usize = count.expect("a number").parse().expect("a number");
    text.push(format!("{{\"end\":{{\"messages\":{}}}}}", count + 3000));
    let many: Vec<String> = (1..=3000).map(line).collect();
    text.splice(message..message, many);
    std::fs::write(&path, text.join("\n") + "\n").expect("room");
    let path = path.to_str().expect("UTF-8");
    let mut import = vestnik(server.dir().path());
    import.args(["import", path, "--data"]).arg(server.data()).stderr(Stdio::piped());
    let import = import.spawn().expect("vestnik runs");
    eventually(|| server.admin_ok(&["check"], None).contains("1 imports go on"));
    let second = failed(&server, &["import", path, "--as", "other"]);
    server.admin_ok(&["chat", "add", "hall"], None);
    let words = import.wait_with_output().expect("its end").stderr;
    let words = String::from_utf8_lossy(&words);
    assert!(second.contains("another import goes on"), "{second}");
    assert!(words.contains("there is a chat"), "{words}");
    server.admin_ok(&["check"], None);
    server.admin_ok(&["import", path, "--as", "other"], None);
}

/// An export comes in through a pipe and by standard input, with a byte order mark, and with
/// messages that only a server with another limit accepts.
#[test]
fn an_export_comes_through_a_pipe() {
    let server = Server::with(&["--content-limit", "40000", "--body-limit", "80000"]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "short");
    anna.send(hall, &"x".repeat(39_000));
    let text = format!("\u{FEFF}{}", server.admin_ok(&["export", "hall"], None));
    for (number, name) in ["-", "/dev/stdin", "/proc/self/fd/0"].into_iter().enumerate() {
        let other = Server::start();
        other.add_user("anna");
        let printed = other.admin_ok(&["import", name], Some(&text));
        assert!(printed.contains("2 messages"), "{printed}");
        let mut anna = other.login("anna");
        let hall = anna.chat_id("hall");
        let lengths: Vec<_> =
            anna.history(hall).iter().map(|message| message.content.len()).collect();
        assert_eq!(lengths, [5, 39_000], "{number}");
    }
}

/// An export whose reader stalls keeps nothing from being checkpointed: the WAL stays small next to
/// a flood.
#[test]
fn an_export_that_stalls_does_not_hold_the_wal() {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let long = "x".repeat(16_000);
    let flood = |anna: &mut Client| {
        for _ in 0..10 {
            let request = || (SEND_CHAT_MSG, Vec::from(body().id(hall).text(&long)));
            let count = anna.post_all((0..100).map(|_| request()));
            for _ in 0..count {
                anna.answer().accepted();
            }
        }
    };
    flood(&mut anna);
    let mut command = crate::support::server::vestnik(server.dir().path());
    command.args(["export", "hall", "--data"]).arg(server.data()).stdout(Stdio::piped());
    let mut export = command.spawn().expect("the binary starts");
    // Its pipe is full by then.
    std::thread::sleep(std::time::Duration::from_millis(500));
    flood(&mut anna);
    flood(&mut anna);
    let wal = server.dir().join("t.db-wal").metadata().expect("the WAL").len();
    let _ = export.kill();
    let _ = export.wait();
    assert!(wal < 24 * 1024 * 1024, "{wal} bytes of WAL after 32 MB of sends");
}

/// Replies and reactions move, next to files.
#[test]
fn replies_and_reactions_move() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users11(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let first = anna.send(hall, "first");
    let file = anna.upload(hall, "a.txt", b"0123456789");
    anna.send_with(hall, "", first.id, &[file]);
    anna.react(hall, first.id, true, "+");
    boris.react(hall, first.id, true, "-");
    boris.react(hall, first.id, true, "+");
    let (path, lines) = lines(&server, "hall");
    assert_eq!(lines.iter().filter(|line| line.starts_with("{\"reaction\"")).count(), 3);
    let before = anna.page(hall, 0, 5);

    let other = Server::start();
    let [(mut boris, _), (mut anna, _)] = other.users11(["boris", "anna"]);
    other.admin_ok(&["import", path.to_str().expect("UTF-8")], None);
    let hall = anna.chat_id("hall");
    let after = anna.page(hall, 0, 5);
    assert_eq!(contents(&after), ["first", ""]);
    assert_eq!(anna.download(after[1].extras.files[0].id), b"0123456789");
    assert_eq!(after[1].extras.reply, Some(first.id));
    let shown = |messages: &[Message]| -> Vec<(String, u16)> {
        let reactions = messages[0].extras.reactions.iter();
        reactions.map(|reaction| (reaction.emoji.clone(), reaction.count)).collect()
    };
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(after[0].updated, before[0].updated);
    boris.react(hall, first.id, false, "-");
    other.admin_ok(&["check"], None);
}

/// A closed chat stays closed, members keep their level of pushes, and senders who are bots stay
/// bots. Files of before, without these fields, still come in.
#[test]
fn what_hides_a_chat_and_marks_its_people_moves() {
    let old = Server::start();
    let [(mut anna, _), (mut bot, _)] = old.users10(["anna", "bot"]);
    let hall = anna.create_chat("hall");
    bot.join(hall);
    bot.send(hall, "built");
    old.admin_ok(&["chat", "close", "hall"], None);
    let db = rusqlite::Connection::open(old.data()).expect("the database");
    db.execute_batch(
        "UPDATE members SET notify = 2 WHERE user_id = 1;
         UPDATE users SET flags = 8 WHERE user_id = 2;",
    )
    .expect("room");
    let (path, good) = lines(&old, "hall");
    let file = path.to_str().expect("UTF-8");

    let new = Server::start();
    let [(_, _), (mut dora, _)] = new.users10(["anna", "dora"]);
    new.admin_ok(&["import", file, "--add-users"], None);
    assert_eq!(dora.find_chats("", 10), [], "who is no member does not see it");
    let is_closed = |server: &Server, name: &str| {
        let json = server.admin_ok(&["chat", "list", "--json"], None);
        let chats: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let chats = chats.as_array().expect("an array");
        chats.iter().find(|chat| chat["name"] == name).expect("the chat")["closed"] == true
    };
    assert!(is_closed(&new, "hall"));
    let (_, again) = lines(&new, "hall");
    assert_eq!((&again[0], &again[1]), (&good[0], &good[1]), "the chat, and anna with her level");
    assert_eq!(again.last(), good.last());
    let users = new.admin_ok(&["user", "list", "--json"], None);
    let users: serde_json::Value = serde_json::from_str(&users).expect("JSON");
    let is_bot = |name: &str| {
        let mut users = users.as_array().expect("an array").iter();
        users.find(|user| user["name"] == name).expect("the user")["bot"] == true
    };
    assert!(is_bot("bot") && !is_bot("anna"));

    for (from, to) in [("\"notify\":2", "\"notify\":3"), ("\"closed\":true", "\"closed\":1")] {
        let text = good.join("\n") + "\n";
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(&path, text.replace(from, to)).expect("room");
        failed(&new, &["import", file, "--as", "other"]);
    }
    let mut text = good.join("\n") + "\n";
    for field in [",\"closed\":true", ",\"notify\":2", "\"bot\":true,"] {
        assert!(text.contains(field), "{field}: {text}");
        text = text.replace(field, "");
    }
    std::fs::write(&path, text).expect("room");
    let third = Server::start();
    third.add_user("anna");
    third.admin_ok(&["import", file, "--add-users"], None);
    assert!(!is_closed(&third, "hall"));
}

/// Who is a bot here is no admin of what comes in, whatever they were; another member is, as when
/// the bot had left. Without one who can be, the next who joins is.
#[test]
fn an_import_makes_no_bot_an_admin() {
    let old = Server::start();
    let [(mut mon, _), (mut anna, _), (mut boris, _)] = old.users10(["mon", "anna", "boris"]);
    let hall = mon.create_chat("hall");
    anna.join(hall);
    boris.join(hall);
    anna.send(hall, "one");
    let written = old.admin_ok(&["export", "hall"], None);
    let admins = |server: &Server, chat: &str| -> Vec<String> {
        let json = server.admin_ok(&["chat", "members", chat, "--json"], None);
        let members: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let members = members.as_array().expect("an array").iter();
        let admins = members.filter(|member| member["role"] == "admin");
        admins.map(|member| member["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(admins(&old, "hall"), ["mon"]);
    for has_other in [true, false] {
        let new = Server::start();
        let [(mut dora, _)] = new.users10(["dora"]);
        if has_other {
            new.add_user("boris");
            new.add_user("anna");
        }
        new.admin_ok(&["chat", "add", "ops"], None);
        new.admin_ok(&["hook", "add", "ops", "mon"], None);
        new.admin_ok(&["import", "-", "--add-users"], Some(&written));
        if has_other {
            assert_eq!(admins(&new, "hall"), ["anna"], "who came before boris");
        } else {
            assert!(admins(&new, "hall").is_empty());
            let hall = dora.chat_id("hall");
            dora.join(hall);
            assert_eq!(admins(&new, "hall"), ["dora"]);
        }
        new.admin_ok(&["check"], None);
    }
}

/// The WAL does not grow by everything that an import writes, unless the server leaves it to
/// another program.
#[test]
fn an_import_does_not_let_the_wal_grow() {
    const MIB: u64 = 1024 * 1024;
    let old = Server::start();
    let [(mut anna, _)] = old.users10(["anna"]);
    let hall = anna.create_chat("hall");
    anna.send(hall, &"x".repeat(15_000));
    let (path, lines) = lines(&old, "hall");
    let message = lines.iter().position(|line| line.contains("xxx")).expect("the message");
    let value: serde_json::Value = serde_json::from_str(&lines[message]).expect("JSON");
    let id = value["message"]["id"].as_i64().expect("a time");
    let mut text = lines[..message].join("\n") + "\n";
    // 24 MiB of text.
    for n in (0..1_600).rev() {
        text += &lines[message].replace(&id.to_string(), &(id - n).to_string());
        text.push('\n');
    }
    text += "{\"end\":{\"messages\":1600}}\n";
    std::fs::write(&path, text).expect("room");
    for options in [&[][..], &["--checkpoints", "external"]] {
        let new = Server::with(options);
        new.add_user("anna");
        new.admin_ok(&["import", path.to_str().expect("UTF-8")], None);
        let wal = format!("{}-wal", new.data().display());
        let bytes = std::fs::metadata(wal).expect("the WAL").len();
        // A batch of 500 messages is 7.5 MiB.
        let is_as_expected = if options.is_empty() { bytes < 16 * MIB } else { bytes > 24 * MIB };
        assert!(is_as_expected, "{options:?}: a WAL of {bytes} bytes");
    }
}

/// A file that cannot be written is named, and is not left; `-` is no file.
#[test]
fn a_failed_export_names_its_file() {
    let folder = Folder::new();
    folder.done(&["load", "prepare", "--users", "1", "--messages", "5000"]);
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_vestnik")]);
    command.args(["export", "load", "--output", "out.jsonl"]).current_dir(&folder.0);
    let line = one_line(&run(command, None), 1);
    has(&line, &["cannot write out.jsonl: ", "too large"]);
    assert!(!folder.path("out.jsonl").exists());
    assert!(folder.done(&["export", "load", "-o", "-"]).lines().count() > 5000);
    assert!(!folder.path("-").exists());
}

/// What a removed account wrote never goes to the user or the account that has its name here.
#[test]
fn removed_accounts_stay_removed() {
    let old = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = old.users10(["anna", "boris"]);
    let direct = anna.start_chat(boris_id);
    boris.send(direct, "only for you");
    let hall = anna.create_chat("hall");
    boris.join(hall);
    boris.send(hall, "by boris");
    old.admin_ok(&["user", "remove", "boris", "--yes"], None);
    let group = old.admin_ok(&["export", "hall"], None);
    let pair = old.admin_ok(&["export", "--direct", "anna", "deleted-2"], None);

    let new = Server::start();
    let [(mut anna, _), (mut victor, victor_id)] = new.users10(["anna", "victor"]);
    // A login of older rules.
    let db = rusqlite::Connection::open(new.data()).expect("the database");
    let sql = "UPDATE users SET nickname = 'deleted-2', name_key = 'deleted-2' WHERE user_id = 2";
    db.execute(sql, []).expect("renamed");
    drop(db);
    new.admin_ok(&["import", "-"], Some(&group));
    let said = new.admin_ok(&["import", "-", "--add-users"], Some(&pair));
    assert!(said.contains("of anna and deleted-4 with id"), "{said}");
    assert!(victor.my_chats().is_empty());
    let chats: Vec<_> = anna.my_chats().iter().map(|chat| chat.id).collect();
    for (chat, text) in chats.into_iter().zip(["by boris", "only for you"]) {
        let got = anna.range(chat, 0, None);
        assert_eq!(got.iter().map(|m| m.content.as_str()).collect::<Vec<_>>(), [text]);
        assert_ne!(got[0].sender, victor_id);
    }
    for name in ["deleted-3", "deleted-4"] {
        assert!(failed(&new, &["user", "enable", name]).contains("was removed"), "{name}");
        assert!(failed(&new, &["user", "passwd", name]).contains("was removed"), "{name}");
    }
    new.admin_ok(&["check"], None);
}

/// Who comes while an export is written is not in it, nor anything that they do.
#[test]
fn an_export_knows_nobody_who_came_later() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let first = anna.send(hall, "first").id;
    anna.react(hall, first, true, "+");
    let long = "x".repeat(16_000);
    for _ in 0..60 {
        anna.send(hall, &long);
    }
    let mut command = vestnik(server.dir().path());
    command.args(["export", "hall", "--data"]).arg(server.data()).stdout(Stdio::piped());
    let mut export = command.spawn().expect("the binary starts");
    // Its pipe is full by then.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let [(mut clara, _)] = server.users11(["clara"]);
    clara.join(hall);
    clara.react(hall, first, true, "-");
    let text = clara.send(hall, "by clara").id;
    anna.react(hall, text, true, "+");
    let mut written = String::new();
    let mut out = export.stdout.take().expect("a pipe");
    std::io::Read::read_to_string(&mut out, &mut written).expect("all of it");
    assert!(export.wait().expect("its end").success());
    assert!(!written.contains("\"user\":\"\"") && !written.contains("clara"), "people");
    assert_eq!(written.matches("{\"reaction\"").count(), 1);
    let new = Server::start();
    new.add_user("anna");
    new.admin_ok(&["import", "-"], Some(&written));
    new.admin_ok(&["check"], None);
}

/// Who has lost their row of users to damage has not come later: their messages and reactions are
/// those of a removed account, and everything behind them is there.
#[test]
fn an_export_does_not_end_at_a_sender_whose_row_is_lost() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, boris_id)] = server.users11(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    boris.join(hall);
    let first = anna.send(hall, "one").id;
    let file = boris.upload(hall, "a.txt", b"of boris");
    boris.send_with(hall, "two", 0, &[file]);
    boris.send(hall, "three");
    boris.react(hall, first, true, "+");
    anna.send(hall, "four");
    let db = rusqlite::Connection::open(server.data()).expect("the database");
    db.pragma_update(None, "foreign_keys", false).expect("set");
    db.execute("DELETE FROM users WHERE user_id = ?1", [boris_id]).expect("deleted");
    drop(db);
    let written = server.admin_ok(&["export", "hall"], None);
    let senders = [("one", "anna"), ("two", "deleted-2"), ("three", "deleted-2"), ("four", "anna")];
    let messages: Vec<_> =
        written.lines().filter(|line| line.starts_with("{\"message\"")).collect();
    assert_eq!(messages.len(), senders.len(), "{written}");
    for (line, (text, sender)) in messages.into_iter().zip(senders) {
        has(line, &[&format!("\"sender\":\"{sender}\""), text]);
    }
    assert!(written.ends_with("{\"end\":{\"messages\":4}}\n"), "{written}");
    let new = Server::start();
    let [(mut anna, _)] = new.users11(["anna"]);
    new.admin_ok(&["import", "-"], Some(&written));
    let hall = anna.chat_id("hall");
    let got = anna.page(hall, 0, 10);
    assert_eq!(contents(&got), ["one", "two", "three", "four"]);
    assert_eq!(got[0].extras.reactions.len(), 1);
    assert_eq!(got[1].extras.files.len(), 1);
    new.admin_ok(&["check"], None);
}

/// From a copy without the bytes of files, messages come with a line for each.
#[test]
fn a_copy_without_files_can_be_exported() {
    let old = Server::start();
    let [(mut anna, _)] = old.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let file = anna.upload(hall, "a.txt", b"hello");
    anna.send_with(hall, "look", 0, &[file]);
    let copy = old.dir().join("copy.db");
    old.admin_ok(&["backup", copy.to_str().expect("UTF-8"), "--without-files"], None);
    let old = Server::on_copy_of(&copy);
    let mut anna = old.login11("anna");
    let file = anna.upload(hall, "new", b"new");
    anna.send_with(hall, "", 0, &[file]);
    let text = old.admin_ok(&["export", "hall"], None);
    let new = Server::start();
    new.add_user("anna");
    // A server on a copy goes on after the time that the first one had reserved: it may be ahead.
    crate::support::in_time(|| new.admin(&["import", "-"], Some(&text)).status.success());
    let mut anna = new.login11("anna");
    let chat = anna.my_chats()[0].id;
    let page = anna.page(chat, 0, 5);
    assert_eq!(contents(&page), ["look\n[a.txt, 5 bytes]", ""]);
    assert_eq!(anna.download(page[1].extras.files[0].id), b"new");
    // Bytes that are missing for another reason are damage.
    let db = rusqlite::Connection::open(old.data()).expect("the database");
    db.execute("DELETE FROM file_chunks", []).expect("deleted");
    drop(db);
    assert!(failed(&old, &["export", "hall"]).contains("\"new\" is damaged"));
}

/// A deleted message has neither a reply nor reactions, which `check` would complain of.
#[test]
fn a_deleted_message_comes_without_extras() {
    let server = Server::start();
    let [(mut anna, _)] = server.users11(["anna"]);
    let hall = anna.create_chat("hall");
    let first = anna.send(hall, "first");
    let second = anna.send_with(hall, "second", first.id, &[]);
    anna.react(hall, second.id, true, "+");
    let (path, lines) = lines(&server, "hall");
    let file = path.to_str().expect("UTF-8");
    let other = Server::start();
    other.add_user("anna");
    let at = lines.iter().position(|line| line.contains("second")).expect("the message");
    let reply = format!(",\"reply\":{}", first.id);
    assert!(lines[at].contains(&reply), "{}", lines[at]);
    let mut wrong = lines.clone();
    wrong[at] = wrong[at].replace("\"content\":\"second\"", "\"deleted\":true,\"content\":\"\"");
    std::fs::write(&path, wrong.join("\n") + "\n").expect("room");
    assert!(failed(&other, &["import", file]).contains("is deleted, and answers"));
    wrong[at] = wrong[at].replace(&reply, "");
    std::fs::write(&path, wrong.join("\n") + "\n").expect("room");
    assert!(failed(&other, &["import", file]).contains("a message that is deleted"));
    other.admin_ok(&["check"], None);
}
