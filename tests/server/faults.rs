//! Faults around the server: kills in the middle of a stream; a locked, foreign, newer or damaged
//! database; a port in use; wrong options.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

use crate::support::client::{login_body, range_body};
use crate::support::server::{run, serve_command, vestnik};
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, Session, TempDir};
use rusqlite::Connection;

// kill -9 in the middle of a stream.

const SENDERS: usize = 4;

/// What one connection knows when the server died.
#[derive(Default)]
struct Witness {
    /// The answers, in order: the n-th belongs to the n-th message that was sent.
    accepted: Vec<Sent>,
    /// What it was notified of others.
    notified: Vec<Message>,
}

fn content(round: usize, sender: usize, number: usize) -> String {
    format!("{round}/{sender}/{number}")
}

/// Sends without waiting for answers until the server is gone.
fn send_until_broken(client: &Client, chat: u32, round: usize, sender: usize) {
    let mut stream = client.stream();
    for batch in 0..2000 {
        let mut bytes = Vec::new();
        for number in batch * 10..batch * 10 + 10 {
            let request = body().id(chat).text(&content(round, sender, number));
            bytes.extend(Frame::new(SEND_CHAT_MSG, (number % 256) as u8, request).encode());
        }
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn witness(client: &mut Client, chat: u32) -> Witness {
    let mut seen = Witness::default();
    for frame in client.frames_until_broken() {
        if frame.is_answer() {
            let expected = (seen.accepted.len() % 256) as u8;
            assert_eq!(frame.task, expected, "an answer out of order");
            seen.accepted.push(Sent::read(&frame.accepted()));
            continue;
        }
        assert_eq!(frame.purpose, MSG_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        assert_eq!(reader.id(), chat);
        seen.notified.extend(reader.messages());
    }
    seen
}

/// All senders write at once until the server is killed after `delay`.
fn stream_until_killed(
    server: &mut Server,
    sessions: &[Session],
    chat: u32,
    round: usize,
    delay: Duration,
) -> Vec<Witness> {
    let mut clients: Vec<Client> = sessions
        .iter()
        .map(|session| {
            let mut client = server.greeted();
            client.restore(session);
            client
        })
        .collect();
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for (sender, client) in clients.iter_mut().enumerate() {
            let stream = client.stream().try_clone().expect("a second handle");
            let writer = Client::over(stream);
            scope.spawn(move || send_until_broken(&writer, chat, round, sender));
            readers.push(scope.spawn(move || witness(client, chat)));
        }
        thread::sleep(delay);
        server.kill();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    })
}

/// Nothing accepted or notified of is lost or changed, nothing is there twice, and what is there of
/// each connection is the beginning of what it sent, in order.
#[track_caller]
fn compare(history: &[Message], round: usize, witnesses: &[Witness]) {
    assert!(history.is_sorted_by(|a, b| a.created < b.created && a.id < b.id));
    let by_content: HashMap<&str, &Message> =
        history.iter().map(|message| (message.content.as_str(), message)).collect();
    assert_eq!(by_content.len(), history.len(), "a message is there twice");
    for (sender, witness) in witnesses.iter().enumerate() {
        for (number, sent) in witness.accepted.iter().enumerate() {
            let content = content(round, sender, number);
            let kept = by_content.get(content.as_str());
            let kept = kept.map(|message| (message.id, message.created));
            assert_eq!(kept, Some((sent.id, sent.created)), "lost: {content}");
        }
        for message in &witness.notified {
            let kept = by_content.get(message.content.as_str());
            assert_eq!(kept, Some(&message), "notified of, but lost");
        }
        let prefix = format!("{round}/{sender}/");
        let kept = history.iter().filter_map(|message| message.content.strip_prefix(&prefix));
        for (number, kept) in kept.enumerate() {
            assert_eq!(kept, number.to_string(), "a hole or another order");
        }
    }
}

/// Killed at any moment while several connections send without waiting, the server has everything
/// that it accepted, once, with its id and time, and in the same order.
#[test]
fn killed_in_the_middle_of_a_stream() {
    let mut server = Server::start();
    let users: Vec<String> = (0..SENDERS).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    for name in &names {
        server.add_user(name);
    }
    server.add_chat("hall", &names);
    let sessions: Vec<Session> = names.iter().map(|name| server.greeted().login(name)).collect();
    let hall = server.login(names[0]).chat_id("hall");
    let mut accepted = 0;
    let mut older: Vec<Message> = Vec::new();
    for (round, delay) in [3, 10, 25, 40, 60, 90].into_iter().enumerate() {
        let delay = Duration::from_millis(delay);
        let witnesses = stream_until_killed(&mut server, &sessions, hall, round, delay);
        accepted += witnesses.iter().map(|w| w.accepted.len()).sum::<usize>();
        server.restart();
        let history = server.login(names[0]).history(hall);
        assert_eq!(history[..older.len()], older, "an older round changed");
        compare(&history, round, &witnesses);
        older = history;
    }
    assert!(accepted > 100, "only {accepted} messages were accepted");
    server.admin_ok(&["check"], None);
}

// A file that another process holds.

/// While another process writes to the file, a send is declined `storage-failed`, nobody is
/// notified of it and reads go on; when the file is free the server works again, without a restart.
#[test]
fn a_held_file_declines_writes_until_it_is_free() {
    let server = Server::start();
    for name in ["anna", "boris"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    anna.send(hall, "before");
    boris.notified(hall, 1);

    let other = Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("held")).declined("storage-failed");
    boris.ask(SEND_CHAT_MSG, body().id(hall).text("held")).declined("storage-failed");
    assert_eq!(contents(&anna.history(hall)), ["before"]);
    anna.expect_quiet();
    boris.expect_quiet();
    other.execute_batch("ROLLBACK").expect("the end of the lock");

    anna.send(hall, "after");
    assert_eq!(contents(&boris.notified(hall, 1)), ["after"]);
    assert_eq!(contents(&boris.history(hall)), ["before", "after"]);
}

/// A turn that fails is undone for all of its writes: a join as well as a send, and what the server
/// remembers agrees with the file again.
#[test]
fn a_held_file_leaves_no_half_changes() {
    let server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    let other = Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    boris.post(JOIN_CHAT, body().id(hall));
    boris.post(SEND_CHAT_MSG, body().id(hall).text("not a member"));
    boris.answer().declined("storage-failed");
    let answer = boris.answer();
    assert_eq!(answer.purpose, DECLINED, "{answer:?}");
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    boris.ask(SEND_CHAT_MSG, body().id(hall).text("not a member")).declined("not-member");
    anna.send(hall, "nobody else hears");
    boris.expect_quiet();
    boris.join(hall);
    anna.send(hall, "welcome");
    assert_eq!(contents(&boris.notified(hall, 1)), ["welcome"]);
}

/// Who has ended its side behind a long answer gets all of it, though a write before failed.
#[test]
fn a_held_file_cuts_off_no_answer() {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    for number in 0..100 {
        anna.send(hall, &format!("{number} {}", "x".repeat(4000)));
    }
    let other = Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let mut bytes = Frame::new(SEND_CHAT_MSG, 1, body().id(hall).text("held")).encode();
    bytes.extend(Frame::new(REQUEST_CHAT_MSG, 2, range_body(hall, 0, None)).encode());
    anna.write(&bytes);
    anna.end_writing();
    let first = anna.next_frame().expect("an answer");
    assert_eq!((first.purpose, first.task), (DECLINED, 1));
    let second = anna.next_frame().expect("an answer to the last request");
    assert_eq!((second.purpose, second.task), (ACCEPTED, 2));
    assert_eq!(Reader::new(&second.body).messages().len(), 100);
    anna.expect_end();
}

/// A login while the file is held is declined, can be repeated as often as one likes, and spends no
/// failure.
#[test]
fn a_held_file_declines_logins() {
    let server = Server::start();
    server.add_user("anna");
    let mut client = server.greeted();
    let other = Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    for _ in 0..7 {
        client.ask(LOGIN, login_body("anna", PASSWORD)).declined("storage-failed");
    }
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    client.login("anna");
}

/// A server that is stopped while the file is held ends gracefully all the same: nothing that
/// was accepted needs the write that it cannot do.
#[test]
fn a_held_file_does_not_spoil_the_end() {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "before");
    let other = Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    assert!(server.stop_by("TERM").0.success(), "{}", server.stderr());
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    server.restart();
    let mut anna = server.login("anna");
    anna.send(hall, "after");
    assert_eq!(contents(&anna.history(hall)), ["before", "after"]);
}

// A start that must fail.

/// Exit 1, nothing on stdout, and one line on stderr.
#[track_caller]
fn expect_failure(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "stderr: {stderr}");
    assert_eq!(output.stdout, b"", "something on stdout");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "not one line: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// Wrong usage: exit 2, nothing on stdout, words on stderr that name what is wrong.
#[track_caller]
fn expect_wrong_usage(output: &Output, about: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "stderr: {stderr}");
    assert_eq!(output.stdout, b"", "something on stdout");
    assert!(stderr.contains(about), "no {about}: {stderr}");
}

fn serve(dir: &TempDir, data: &Path, options: &[&str]) -> Output {
    run(serve_command(dir.path(), data, options), None)
}

/// Refused with one line, and the file is as it was.
#[track_caller]
fn expect_refused_untouched(dir: &TempDir, data: &Path) -> String {
    let before = fs::read(data).expect("the file");
    let words = expect_failure(&serve(dir, data, &[]));
    let after = fs::read(data).expect("the file, still there");
    assert!(before == after, "the file changed");
    words
}

/// The data file of a server that ended gracefully, with a message in it.
fn used_file() -> (TempDir, std::path::PathBuf) {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    for _ in 0..50 {
        anna.send(hall, &"x".repeat(1000));
    }
    server.stop_by("TERM");
    let dir = TempDir::new();
    let copy = dir.join("copy.db");
    let file = Connection::open(server.data()).expect("the data file");
    // All in one file, without a WAL next to it.
    file.execute("VACUUM INTO ?1", [copy.to_str()]).expect("a copy");
    (dir, copy)
}

/// A second server on the same file is refused, by any of its paths, and the first goes on.
#[test]
fn a_second_server_on_the_file() {
    let mut server = Server::start();
    server.add_user("anna");
    let words = expect_failure(&serve(server.dir(), &server.data(), &[]));
    assert!(words.contains("t.db"), "which file: {words}");
    let link = server.dir().join("link.db");
    std::os::unix::fs::symlink(server.data(), &link).expect("a link");
    expect_failure(&serve(server.dir(), &link, &[]));
    let other = server.dir().join("other.db");
    fs::hard_link(server.data(), &other).expect("another name");
    expect_failure(&serve(server.dir(), &other, &[]));
    fs::remove_file(&other).expect("one name again");
    server.login("anna");
    server.kill();
    server.restart();
    server.login("anna");
}

/// A port in use is named.
#[test]
fn a_port_in_use() {
    let dir = TempDir::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = serve(&dir, &dir.join("t.db"), &["--listen", &address]);
    let words = expect_failure(&output);
    assert!(words.contains(&address), "which address: {words}");
}

/// A folder that is not there, that is a file, or that nobody can write to.
#[test]
fn an_unwritable_folder() {
    let dir = TempDir::new();
    let file = dir.join("file");
    fs::write(&file, "not a folder").expect("a file");
    for data in [
        dir.join("missing").join("t.db"),
        file.join("t.db"),
        dir.path().to_path_buf(),
        "/proc/t.db".into(),
    ] {
        expect_failure(&serve(&dir, &data, &[]));
    }
    assert_eq!(fs::read(&file).expect("the file"), b"not a folder");
}

/// Options that do not exist, do not parse or contradict each other are wrong usage.
#[test]
fn bad_options() {
    let dir = TempDir::new();
    let data = dir.join("t.db");
    for (options, about) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--listen", "nonsense"], "nonsense"),
        (&["--listen", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (&["--auth-timeout", "soon"], "--auth-timeout"),
        (&["--max-connections", "-1"], "-1"),
        (&["--registration", "perhaps"], "perhaps"),
        (&["--listen", "0.0.0.0:0"], "allow-plaintext"),
        (&["--tls-listen", "127.0.0.1:0"], "tls"),
    ] {
        expect_wrong_usage(&serve(&dir, &data, options), about);
    }
    assert!(!data.exists(), "a file was made");
    let mut command = vestnik(dir.path());
    command.arg("no-such-command");
    expect_wrong_usage(&run(command, None), "no-such-command");
}

/// A file that is no database at all is refused and left alone.
#[test]
fn a_file_that_is_no_database() {
    let dir = TempDir::new();
    let data = dir.join("notes.txt");
    for content in ["shopping: milk, bread\n".repeat(500), "x".to_owned()] {
        fs::write(&data, content).expect("a file");
        let words = expect_refused_untouched(&dir, &data);
        assert!(words.contains("notes.txt"), "which file: {words}");
    }
}

/// Another program's database is refused and left alone, whether it keeps a WAL or not.
#[test]
fn a_foreign_database() {
    for mode in ["DELETE", "WAL"] {
        let dir = TempDir::new();
        let data = dir.join("foreign.db");
        let file = Connection::open(&data).expect("a database");
        file.execute_batch(&format!(
            "PRAGMA journal_mode = {mode}; PRAGMA user_version = 1;
             CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('somebody');"
        ))
        .expect("a table");
        drop(file);
        let words = expect_refused_untouched(&dir, &data);
        assert!(words.contains("foreign.db"), "which file: {words}");
    }
}

/// The file of a newer vestnik is refused, with a message that says so, and left alone.
#[test]
fn a_newer_file() {
    let (dir, data) = used_file();
    let file = Connection::open(&data).expect("the copy");
    let version: i64 =
        file.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version");
    file.pragma_update(None, "user_version", version + 1).expect("a newer version");
    drop(file);
    let words = expect_refused_untouched(&dir, &data);
    assert!(words.contains("newer"), "why: {words}");
}

/// Does some damage to the bytes of a file.
type Spoil<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A damaged file is refused and left alone: cut short, or with other bytes in place of pages.
#[test]
fn a_damaged_file() {
    let (dir, data) = used_file();
    serve_briefly(&dir, &data);
    let good = fs::read(&data).expect("the copy");
    let half = good.len() / 2;
    let damage: [(&str, Spoil); 4] = [
        ("cut short", &|bytes| bytes.truncate(half)),
        ("its first page", &|bytes| bytes[100..4000].fill(0xA5)),
        ("all pages but the first", &|bytes| {
            bytes[4096..].fill(0xA5);
        }),
        ("its header", &|bytes| bytes[..16].fill(b'?')),
    ];
    for (what, spoil) in damage {
        let mut bytes = good.clone();
        spoil(&mut bytes);
        let data = dir.join("damaged.db");
        fs::write(&data, bytes).expect("a damaged file");
        eprintln!("damaged: {what}");
        expect_refused_untouched(&dir, &data);
    }
}

/// Proves that the file is good before it is damaged.
fn serve_briefly(dir: &TempDir, data: &Path) {
    let mut command = vestnik(dir.path());
    command.arg("check").arg("--data").arg(data);
    let output = run(command, None);
    assert!(output.status.success(), "{output:?}");
}

/// An empty database is one that was truncated: the server does not begin anew in it.
#[test]
fn an_empty_database_is_refused() {
    let mut server = Server::start();
    server.kill();
    let data = server.data();
    for name in ["t.db", "t.db-wal", "t.db-shm"] {
        let _ = fs::remove_file(server.dir().join(name));
    }
    fs::write(&data, "").expect("an empty file");
    let words = expect_failure(&serve(server.dir(), &data, &[]));
    assert!(words.contains("is empty") && words.contains("restore a backup"), "{words}");
    assert_eq!(data.metadata().expect("the file").len(), 0);
    fs::remove_file(&data).expect("the file");
    server.restart();
    server.add_user("anna");
    server.login("anna");
}

/// A stored time more than a day ahead keeps the server from starting, unless an option accepts
/// that; less than a day is taken as it is.
#[test]
fn a_stored_time_in_the_future() {
    const HOUR_US: i64 = 3_600_000_000;
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let now = anna.send(hall, "now").created;
    server.kill();
    let set = |hours: i64| {
        let file = Connection::open(server.data()).expect("the data file");
        let sql = "UPDATE meta SET value = ?1 WHERE key = 'server_time'";
        file.execute(sql, [now + hours * HOUR_US]).expect("a row");
    };
    set(25);
    let words = expect_failure(&serve(server.dir(), &server.data(), &[]));
    assert!(words.contains("--accept-future-time"), "{words}");
    set(23);
    server.restart();
    let sent = server.login("anna").send(hall, "in 23 hours");
    assert!(sent.created > now + 23 * HOUR_US);
}

/// `--accept-future-time` goes on from the stored time.
#[test]
fn accept_future_time() {
    const HOUR_US: i64 = 3_600_000_000;
    let mut server = Server::with(&["--accept-future-time"]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let now = anna.send(hall, "now").created;
    server.kill();
    let file = Connection::open(server.data()).expect("the data file");
    let sql = "UPDATE meta SET value = ?1 WHERE key = 'server_time'";
    file.execute(sql, [now + 48 * HOUR_US]).expect("a row");
    drop(file);
    server.restart();
    let mut anna = server.login("anna");
    let (one, two) = (anna.send(hall, "one"), anna.send(hall, "two"));
    assert!(two.created > one.created && one.created > now + 48 * HOUR_US);
}

/// The admin commands refuse the same files with one line.
#[test]
fn commands_refuse_foreign_files() {
    let dir = TempDir::new();
    let data = dir.join("notes.txt");
    fs::write(&data, "not a database, but longer than the header of one".repeat(20))
        .expect("a file");
    for args in [&["user", "list"][..], &["chat", "list"], &["session", "list"], &["check"]] {
        let mut command = vestnik(dir.path());
        command.args(args).arg("--data").arg(&data);
        expect_failure(&run(command, None));
    }
}

// Floods of connections.

/// Hundreds of connections that come and go at once, some in the middle of a frame, leave the
/// server able to serve.
#[test]
fn connections_that_come_and_go() {
    let server = Server::with(&["--max-unauthorized-per-address", "0"]);
    server.add_user("anna");
    let mut session_ids = HashSet::new();
    for round in 0..10 {
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            match index % 4 {
                0 => client.write(&[2, 0, 0, 0, HELLO]),
                1 => client.write_frame(HELLO, 1, [0, 1]),
                2 => client.end_writing(),
                _ => {}
            }
        }
        drop(clients);
        let mut client = server.greeted();
        let fresh = session_ids.insert(client.login("anna").id);
        assert!(fresh, "round {round}: a session id again");
    }
}
