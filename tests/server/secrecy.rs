//! Secrecy: no log line, answer or metric contains a secret at any log level, and files are
//! readable by their owner only, whatever the umask.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::api10::{CHANGE_PASSWORD, CREATE_CHAT, REGISTER_USER, SET_CHAT_PASSWORD};
use crate::support::client::{login_body, read_id};
use crate::support::server::in_memory_of;
use crate::support::wire::{Frame, JOIN_CHAT, LOGIN, RESTORE_SESSION, body};
use crate::support::{Client, Server, Session, eventually};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read").path());
    let (folders, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}

/// Runs a command of the operator with a umask that takes nothing away.
#[track_caller]
fn careless(server: &Server, arguments: &[&str]) {
    let status = Command::new("sh")
        .args(["-c", "umask 000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_vestnik"), "--data"])
        .arg(server.data())
        .args(arguments)
        .current_dir(server.dir().path())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("sh runs");
    assert!(status.success(), "{arguments:?}");
}

/// The data file, its log and shared memory, the lock, the socket for metrics, backups and exports:
/// nobody else can read them, though the umask would let everybody write.
#[test]
fn whatever_is_made_is_its_owners_alone() {
    let server = Server::after("umask 000", &[]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "between us");
    careless(&server, &["backup", "copy.db"]);
    careless(&server, &["export", "hall", "--output", "hall.jsonl"]);
    careless(&server, &["cert", "self-signed", "localhost"]);
    let made = files(server.dir().path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    for path in &made {
        let mode = fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let public = matches!(&*name(path), "cert.pem") || path.ends_with("stderr.txt");
        assert!(public || mode == 0o600, "{}: {mode:o}", path.display());
    }
    let names: Vec<_> = made.iter().map(|path| name(path)).collect();
    let data = name(&server.data());
    for end in ["", "-wal", "-shm", ".lock"] {
        assert!(names.contains(&format!("{data}{end}")), "{names:?}");
    }
    for expected in ["copy.db", "hall.jsonl", "key.pem"] {
        assert!(names.iter().any(|name| name == expected), "{names:?}");
    }
    let sockets = made.iter().filter(|path| {
        use std::os::unix::fs::FileTypeExt;
        fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
    });
    assert_eq!(sockets.count(), 1, "{names:?}");
}

/// A data file that others can read is served, and a line says so.
#[test]
fn a_data_file_that_others_can_read_is_reported() {
    let mut server = Server::start();
    assert!(!server.stderr().contains("others"), "{}", server.stderr());
    server.stop_by("TERM");
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(server.data(), open).expect("a file of one's own");
    server.restart();
    server.greeted();
    eventually(|| server.stderr().contains("can be read by others"));
}

/// What the test said or was notified that is secret, with what it is.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// A secret that nothing else contains.
    fn make(&mut self, what: &'static str) -> String {
        let secret = format!("sEcrEt{}-{}", self.0.len(), "zwieback");
        self.0.push((what, secret.clone()));
        secret
    }

    fn keep(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() >= 16, "{what} is no secret: {secret}");
        self.0.push((what, secret.to_owned()));
    }
}

/// Registers, logs in rightly and wrongly, changes passwords, makes chats with passwords and joins
/// them, restores sessions, and says some of it in frames that are broken. What the server said
/// to it, but for what is for this client alone.
fn live(server: &Server, secrets: &mut Secrets) -> String {
    let mut said = String::new();
    let mut hear = |bytes: &[u8]| said.push_str(&String::from_utf8_lossy(bytes));
    let invite = server.admin_ok(&["invite", "add"], None).trim().to_owned();
    secrets.keep("an invite code", &invite);
    let first = secrets.make("a password");
    let mut client = server.greeted10();
    let register = |invite: &str| body().text("anna").text(&first).text(invite);
    let wrong_code = secrets.make("a wrong invite code");
    hear(&client.ask(REGISTER_USER, register(&wrong_code)).body);
    hear(&client.ask(REGISTER_USER, register(&invite)).body);
    let wrong = secrets.make("a wrong password");
    hear(&client.ask(LOGIN, login_body("anna", &wrong)).body);
    // A body with bytes too many, and one without its end.
    hear(&client.ask(LOGIN, [login_body("anna", &first).into(), vec![7; 3]].concat()).body);
    hear(&client.ask(LOGIN, format!("anna\0{first}")).body);
    let (session, _) = client.login10_with("anna", &first);
    secrets.keep("a session's secret", &session.hash);

    let mut other = server.greeted10();
    let guess = Session { id: session.id, hash: secrets.make("a wrong session's secret") };
    hear(&other.try_restore(&guess).body);
    hear(&other.try_restore(&session).body);
    client.expect_deauth();
    let second = secrets.make("a new password");
    let change = |old: &str, new: &str| body().text(old).text(new);
    hear(&other.ask(CHANGE_PASSWORD, change(&wrong, &second)).body);
    hear(&other.ask(CHANGE_PASSWORD, change(&first, &second)).body);

    let chat_password = secrets.make("a chat's password");
    let made = other.ask(CREATE_CHAT, body().text("vault").text(&chat_password)).accepted();
    let chat = read_id(&made);
    server.add_user("boris");
    let mut boris = server.login10("boris");
    let wrong = secrets.make("a chat's wrong password");
    hear(&boris.ask(JOIN_CHAT, body().id(chat).text(&wrong)).body);
    hear(&boris.ask(JOIN_CHAT, body().id(chat).text(&chat_password)).body);
    let next = secrets.make("a chat's new password");
    hear(&other.ask(SET_CHAT_PASSWORD, body().id(chat).text(&next)).body);
    for client in [&mut client, &mut other, &mut boris] {
        client.drain().iter().for_each(|frame| hear(&frame.body));
    }
    broken(server, secrets, &session);
    said
}

/// Secrets in what is no frame, or no frame of their purpose.
fn broken(server: &Server, secrets: &mut Secrets, session: &Session) {
    let stray = secrets.make("a secret in a broken frame");
    let mut client = server.connect();
    client.write_frame(RESTORE_SESSION, 1, body().id(session.id).text(&stray));
    client.write_frame(0x77, 2, stray.as_bytes());
    client.write(&[0xFF; 6]);
    client.write(stray.as_bytes());
    while client.next_frame().is_some() {}
}

/// What the file keeps of passwords and sessions: nothing of that is notified either.
fn keep_stored(server: &Server, secrets: &mut Secrets) {
    let db = rusqlite::Connection::open(server.data()).expect("the data file");
    for (what, sql) in [
        ("a stored password", "SELECT password FROM users"),
        ("a chat's stored password", "SELECT password FROM chats WHERE password IS NOT NULL"),
        ("a session's digest", "SELECT lower(hex(digest)) FROM sessions"),
    ] {
        let mut rows = db.prepare(sql).expect("a table");
        let texts = rows.query_map([], |row| row.get::<_, String>(0)).expect("rows");
        let texts: Vec<String> = texts.map(|text| text.expect("text")).collect();
        assert!(!texts.is_empty(), "{what}");
        for text in texts {
            // Salt and hash each, or the digest.
            for part in text.split('$').filter(|part| part.len() >= 32) {
                secrets.keep(what, part);
            }
        }
    }
}

fn page(server: &Server) -> String {
    let address = server.addresses().last().expect("a listener");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("written");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    page
}

/// With the log at its most talkative, none of the secrets that went in or out, and nothing of what
/// is stored of them, stands in the log, in answers, or in the metrics.
#[test]
fn no_secret_ever_leaves() {
    let options = ["--registration", "invite", "--metrics-listen", "127.0.0.1:0"];
    let options = [&options[..], &["--listen", "127.0.0.1:0"]].concat();
    let mut server = Server::after("export RUST_LOG=trace", &options);
    let mut secrets = Secrets(Vec::new());
    let said = live(&server, &mut secrets);
    keep_stored(&server, &mut secrets);
    let metrics = server.admin_ok(&["stats"], None);
    let page = page(&server);
    server.stop_by("TERM");
    let log = server.stderr();
    assert!(log.contains("DEBUG") && log.lines().count() > 10, "the log is to be talkative: {log}");
    assert!(said.contains("bad-credentials") && said.contains("bad-session"), "{said}");
    for (what, secret) in &secrets.0 {
        for (place, text) in
            [("log", &log), ("answers", &said), ("stats", &metrics), ("metrics", &page)]
        {
            let text = text.to_lowercase();
            assert!(!text.contains(&secret.to_lowercase()), "{what} stands in the {place}");
        }
    }
    assert!(secrets.0.len() > 15, "{}", secrets.0.len());
}

/// A password that was checked is not in the server's memory any more, however it was said; what
/// is no secret still is, which shows that the test can see.
#[test]
fn passwords_are_wiped_from_memory() {
    let server = Server::with(&["--registration", "invite"]);
    let mut secrets = Secrets(Vec::new());
    live(&server, &mut secrets);
    let mut client = server.greeted10();
    client.post(0x02, "a heartbeat to be seen");
    client.answer();
    // What was said in no frame that holds a secret is nobody's secret, and what the server gave
    // itself lies where it was sent from until something else is sent.
    let is_sent = |secret: &&(&str, String)| {
        secret.1.starts_with("sEcrEt") && secret.0 != "a secret in a broken frame"
    };
    let said: Vec<_> = secrets.0.iter().filter(is_sent).collect();
    let words: Vec<&str> = said.iter().map(|secret| &*secret.1).collect();
    assert!(words.len() >= 8, "{words:?}");
    let words = [&["a heartbeat to be seen"], &words[..]].concat();
    let Some(found) = in_memory_of(server.process_id(), &words) else {
        return eprintln!("the memory of another process cannot be read: nothing is tested");
    };
    assert!(found[0] > 0, "nothing can be seen here");
    for ((what, _), count) in said.iter().zip(&found[1..]) {
        assert_eq!(*count, 0, "{what} is still in memory");
    }
}

/// Nor is one that came in two pieces, or of which the end never came.
#[test]
fn passwords_in_pieces_are_wiped_from_memory() {
    let server = Server::start();
    let (finished, left) = ("sEcrEt in two pieces", "sEcrEt that never ends");
    for (secret, is_left) in [(finished, false), (left, true)] {
        let mut client = server.greeted10();
        let mut frames = Frame::new(0x02, 9, "before the secret").encode();
        frames.extend(Frame::new(LOGIN, 10, login_body("anna", secret)).encode());
        let last = frames.pop().expect("a NUL");
        client.write(&frames);
        assert_eq!(client.next_frame().map(|frame| frame.task), Some(9));
        if !is_left {
            client.write(&[last]);
            client.next_frame().expect("an answer").declined("bad-credentials");
        }
        drop(client);
    }
    let words = ["before the secret", finished, left];
    let seen = || in_memory_of(server.process_id(), &words);
    if seen().is_none() {
        return eprintln!("the memory of another process cannot be read: nothing is tested");
    }
    // The beginning of a frame is kept for as long as its connection.
    eventually(|| seen().is_some_and(|seen| seen[1..] == [0, 0]));
}

/// Names come from unauthenticated peers; a line of the log stays one line all the same.
#[test]
fn nobody_writes_lines_into_the_log() {
    let server = Server::after("export RUST_LOG=trace", &["--registration", "open"]);
    let forged = "x\n[2026-01-01T00:00:00Z ERROR vestnik] forged\u{1b}[31m";
    let mut client: Client = server.greeted10();
    client.ask(LOGIN, login_body(forged, "correct horse"));
    client.ask(REGISTER_USER, body().text(forged).text("correct horse"));
    client.ask(RESTORE_SESSION, body().id(1).text(forged));
    let mut raw = server.connect();
    raw.write(forged.as_bytes());
    raw.write(&[0xFF; 100]);
    while raw.next_frame().is_some() {}
    drop(client);
    eventually(|| server.stderr().contains("too large"));
    let log = server.stderr();
    assert!(!log.contains("forged") && !log.contains('\u{1b}'), "{log}");
}

/// Unauthenticated peers cause a few lines in a while, however many come; how many were left out is
/// notified later.
#[allow(clippy::disallowed_methods, reason = "a test stands outside of the server")]
#[test]
fn unauthenticated_peers_do_not_fill_the_log() {
    let begun = std::time::Instant::now();
    let server = Server::with(&["--max-unauthorized-per-address", "0"]);
    for _ in 0..300 {
        let mut newcomer = server.connect();
        newcomer.write(&[0xFF; 8]);
        while newcomer.next_frame().is_some() {}
    }
    let lines = server.stderr().matches("too large").count();
    let shares = 2 + begun.elapsed().as_secs() as usize / 10;
    assert!((20..=20 * shares).contains(&lines), "{lines} lines in {shares} shares");
}

/// What was deleted, or said otherwise since, is neither in the file nor in its search index once
/// the server has ended; what was left is.
#[test]
fn deleted_words_are_gone_from_the_file() {
    let mut server = Server::start();
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login10("anna");
    let hall = anna.chat_id("hall");
    let words = ["quetzalcoatl", "huitzilopochtli", "tezcatlipoca"];
    let sent = words.map(|word| anna.send(hall, word));
    for word in words {
        assert_eq!(anna.search(hall, 10, word).len(), 1, "{word} is indexed");
    }
    anna.delete(hall, sent[0].id);
    anna.edit(hall, sent[1].id, "said otherwise");
    for (word, count) in words.iter().zip([0, 0, 1]) {
        assert_eq!(anna.search(hall, 10, word).len(), count, "{word}");
    }
    server.stop_by("TERM");
    let file = fs::read(server.data()).expect("the data file");
    let text = String::from_utf8_lossy(&file).to_lowercase();
    let kept = words.map(|word| text.contains(word));
    assert_eq!(kept, [false, false, true], "of {words:?}");
}
