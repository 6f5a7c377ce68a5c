//! `vestnik client` with API 1.1: file transfers over broken connections, hostile file names,
//! replies, reactions, invites, and messages about older servers.

// Tests stand outside of the server: they start threads.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::client_cli::{Person, client, hall};
use crate::support::server::run;
use crate::support::{PASSWORD, Server};
use purpose::client::{Client, NewFile, NewMessage, Options};

/// What is done to the bytes between a client and the server.
#[derive(Clone, Copy, Default)]
struct Between {
    /// A connection ends after this many bytes of the client.
    cut_after: Option<usize>,
    /// A connection ends after this many bytes of the server.
    cut_back_after: Option<usize>,
    /// HELLO asks for this minor version instead.
    minor: Option<u8>,
    /// The server says the second of these, of the same length, instead of the first.
    replace: Option<(&'static str, &'static str)>,
}

/// Leads to the server, counting the bytes of the client.
struct Proxy {
    address: SocketAddr,
    sent: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    fn to(server: &Server, between: Between) -> Self {
        let server = server.address();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (sent, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (sent_here, connected) = (Arc::clone(&sent), Arc::clone(&connections));
        // Ends with the process of the test.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connected.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(server) else { return };
                let from = client.try_clone().expect("a socket");
                let to = server.try_clone().expect("a socket");
                let sent = Arc::clone(&sent_here);
                thread::spawn(move || from_client(from, to, between, &sent));
                thread::spawn(move || from_server(server, client, between));
            }
        });
        Self { address, sent, connections }
    }

    fn name(&self) -> String {
        self.address.to_string()
    }
}

fn from_client(mut from: TcpStream, mut to: TcpStream, between: Between, sent: &AtomicUsize) {
    let mut bytes = [0; 4096];
    let mut left = between.cut_after.unwrap_or(usize::MAX);
    let mut is_first = true;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let chunk = &mut bytes[..count.min(left)];
        // HELLO is the first frame: six bytes of header, the major and the minor version.
        if let (true, Some(minor), Some(byte)) = (is_first, between.minor, chunk.get_mut(7)) {
            *byte = minor;
        }
        is_first = false;
        sent.fetch_add(chunk.len(), Ordering::SeqCst);
        left -= chunk.len();
        if to.write_all(chunk).is_err() || left == 0 {
            break;
        }
    }
    end(&from, &to);
}

fn from_server(mut from: TcpStream, mut to: TcpStream, between: Between) {
    let mut bytes = [0; 4096];
    let mut left = between.cut_back_after.unwrap_or(usize::MAX);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let chunk = &mut bytes[..count.min(left)];
        if let Some((said, instead)) = between.replace {
            assert_eq!(said.len(), instead.len());
            while let Some(at) = chunk.windows(said.len()).position(|w| w == said.as_bytes()) {
                chunk[at..at + said.len()].copy_from_slice(instead.as_bytes());
            }
        }
        left -= chunk.len();
        if to.write_all(chunk).is_err() || left == 0 {
            break;
        }
    }
    end(&from, &to);
}

fn end(one: &TcpStream, other: &TcpStream) {
    for end in [one, other] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// A folder of the test, made.
fn folder(server: &Server, name: &str) -> PathBuf {
    let path = server.dir().join(name);
    fs::create_dir(&path).expect("a new folder");
    path
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|place| (place % 251) as u8).collect()
}

/// Options of a client that opens the hall and saves to a folder.
fn saving_to(folder: &Path) -> [&str; 6] {
    let folder = folder.to_str().expect("UTF-8");
    ["--chat", "hall", "--save-to", folder, "--history", "9"]
}

/// Boris sends a file by this name, past the rules of the terminal client.
fn boris_sends(server: &Server, name: &str, content: &[u8]) {
    let mut boris = Client::connect(server.address(), Options::default()).expect("it listens");
    boris.login("boris", PASSWORD).expect("a good password");
    let hall = boris.chat_id("hall").expect("it is there");
    let size = content.len() as u64;
    let media_type = "application/octet-stream";
    let new = NewFile { name, media_type, size, width: 0, height: 0 };
    let file = boris.upload(hall, &new, &mut Cursor::new(content), |_| {}).expect("uploaded");
    let files = [file];
    boris.send_with(hall, NewMessage { files: &files, ..NewMessage::default() }).expect("sent");
    boris.logoff().expect("logged in");
}

/// A file comes as it was sent, twice under two names; what cannot be sent or saved says why.
#[test]
fn a_file_is_sent_shown_and_saved_and_none_is_written_over() {
    let server = hall();
    let (here, there) = (folder(&server, "here"), folder(&server, "there"));
    let content = content(200_000);
    let path = here.join("two words.bin");
    fs::write(&path, &content).expect("a file");
    let mut anna = Person::come(&server, "anna", "hall");
    let address = server.address().to_string();
    let mut boris = Person::come_by(&server, &address, "boris", &saving_to(&there));
    anna.say(&format!("/send \"{}\" look at it", path.display()));
    anna.say("and this comes after it");
    assert_eq!(boris.next(), "anna: look at it [two words.bin, 200.0 kB]");
    assert_eq!(boris.next(), "anna: and this comes after it");
    anna.note("sent [two words.bin, 200.0 kB]");
    boris.say("/save");
    boris.note("two words.bin, 200.0 kB");
    boris.say("/save @anna");
    boris.note("two words (2).bin, 200.0 kB");
    assert_eq!(names(&there), ["two words (2).bin", "two words.bin"]);
    for name in names(&there) {
        assert!(fs::read(there.join(name)).expect("a file") == content);
    }
    for (line, words) in [
        ("/send nowhere.txt", "not sent: cannot read nowhere.txt: it does not exist"),
        ("/send here", "here is not a file that can be sent"),
        ("/send /dev/zero", "/dev/zero is not a file that can be sent"),
        ("/save -2", "no message with a file is loaded here"),
        ("/save @nobody", "no message of nobody is loaded here"),
    ] {
        boris.say(line);
        boris.note(words);
    }
    assert_eq!(anna.leave().2, Some(0));
    assert_eq!(boris.leave().2, Some(1), "lines failed");
    assert!(server.admin_ok(&["check"], None).contains("2 messages"));
}

#[test]
fn what_the_server_does_not_take_is_named_before_anything_is_sent() {
    let server = Server::with(&["--file-limit", "1500"]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let here = folder(&server, "here");
    fs::write(here.join("large"), content(2500)).expect("a file");
    fs::write(here.join("empty"), "").expect("a file");
    fs::write(here.join("fits"), content(1500)).expect("a file");
    let mut anna = Person::come(&server, "anna", "hall");
    anna.say("/send here/large");
    anna.note("here/large has 2.5 kB, and this server takes at most 1.5 kB");
    anna.say("/send here/empty");
    anna.note("here/empty is empty");
    anna.say("/send here/fits");
    anna.note("sent [fits, 1.5 kB]");
}

#[test]
fn a_cut_in_the_middle_of_an_upload_or_a_download_costs_what_was_under_way_alone() {
    let server = hall();
    let (here, there) = (folder(&server, "here"), folder(&server, "there"));
    let content = content(1_000_000);
    fs::write(here.join("a.bin"), &content).expect("a file");
    let cut = Between { cut_after: Some(400_000), ..Between::default() };
    let proxy = Proxy::to(&server, cut);
    let mut anna = Person::come_by(&server, &proxy.name(), "anna", &["--chat", "hall"]);
    anna.say("/send here/a.bin");
    anna.note("connecting again");
    anna.note("sent [a.bin, 1.0 MB]");
    let sent = proxy.sent.load(Ordering::SeqCst);
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 3, "two were cut");
    assert!(sent < 1_000_000 + 2 * 70_000, "{sent} bytes: what was stored was sent again");
    assert_eq!(anna.leave().2, Some(0));

    let cut = Between { cut_back_after: Some(400_000), ..Between::default() };
    let proxy = Proxy::to(&server, cut);
    let mut boris = Person::come_by(&server, &proxy.name(), "boris", &saving_to(&there));
    assert_eq!(boris.next(), "anna: [a.bin, 1.0 MB]");
    boris.say("/save");
    boris.note("connecting again");
    boris.note("a.bin, 1.0 MB");
    assert_eq!(names(&there), ["a.bin"]);
    assert!(fs::read(there.join("a.bin")).expect("a file") == content);
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 3, "two were cut");
    assert!(server.admin_ok(&["check"], None).contains("1 message"));
}

#[test]
fn a_quota_that_is_used_up_is_named_and_deleting_gives_it_back() {
    let server = Server::with(&["--user-files-limit", "1500000"]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let here = folder(&server, "here");
    fs::write(here.join("a.bin"), content(1_000_000)).expect("a file");
    let mut anna = Person::come(&server, "anna", "hall");
    anna.say("/send here/a.bin");
    anna.note("sent [a.bin, 1.0 MB]");
    anna.say("/send here/a.bin");
    let words = anna.note("not sent: ");
    assert!(words.contains("files"), "{words}");
    anna.say("/delete");
    anna.say("/send here/a.bin");
    anna.note("sent [a.bin, 1.0 MB]");
}

#[test]
fn a_hostile_name_is_shown_harmless_and_saved_within_the_folder() {
    let server = hall();
    let there = folder(&server, "there");
    let long = format!("{}.txt", "л".repeat(125));
    let sent = [".bashrc", "-rf", "gpj.\u{202e}exe", "~root", &long, "abcdefghij"];
    for name in sent {
        boris_sends(&server, name, b"content");
    }
    // A server that is hostile itself gives names that none may have.
    let evil = Between { replace: Some(("abcdefghij", "../../\u{1b}[2J")), ..Between::default() };
    let proxy = Proxy::to(&server, evil);
    let mut anna = Person::come_by(&server, &proxy.name(), "anna", &saving_to(&there));
    let shown: Vec<String> = sent.iter().map(|_| anna.next()).collect();
    assert_eq!(shown[2], "boris: [gpj.\u{fffd}exe, 7 bytes]");
    assert_eq!(shown[5], "boris: [../../\u{fffd}[2J, 7 bytes]");
    for number in 1..=6 {
        anna.say(&format!("/save -{number}"));
        let note = anna.note("saved ");
        assert!(!note.contains(|c: char| c.is_control() || c == '\u{202e}'), "{note:?}");
    }
    let mut expected: Vec<String> =
        ["bashrc", "rf", "gpj._exe", "root", "_.._[2J"].map(str::to_owned).to_vec();
    expected[4] = "_..__[2J".to_owned();
    expected.push(format!("{}.txt", "л".repeat(98)));
    expected.sort();
    assert_eq!(names(&there), expected);
}

#[test]
fn replies_and_reactions_are_shown_live_and_later() {
    let server = hall();
    let mut anna = Person::come(&server, "anna", "hall");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("first");
    assert_eq!(anna.next(), "boris: first");
    boris.say("second");
    assert_eq!(anna.next(), "boris: second");
    anna.say("/reply -2 to the first");
    assert_eq!(boris.next(), "anna: (to boris: first) to the first");
    anna.say("/react +1");
    boris.note("anna reacts 👍 to boris: second");
    boris.say("/react @boris 🦊");
    anna.note("boris reacts 🦊 to boris: second");
    boris.say("/react @boris +1");
    anna.note("boris reacts 👍 to boris: second");
    anna.say("/reactions");
    anna.note("👍 anna, boris");
    anna.note("🦊 boris");
    anna.say("/react +1 off");
    anna.note("anna takes back 👍 to boris: second");
    boris.note("anna takes back 👍 to boris: second");
    anna.say("/react \u{1b}[2J");
    anna.note("1 to 32 bytes");
    anna.say("/react -9 +1");
    anna.note("there is no such message");
    anna.say("/reactions -2");
    anna.note("nobody has reacted");

    // Who comes later sees all of it, and what is answered is looked up.
    server.add_user("clara");
    server.admin_ok(&["chat", "join", "hall", "clara"], None);
    for number in 0..30 {
        anna.say(&format!("line {number}"));
    }
    anna.say("/reply @boris late");
    while boris.next() != "anna: (to boris: second) late" {}
    let address = server.address().to_string();
    let come = |messages| {
        let arguments = ["--chat", "hall", "--history", messages];
        Person::come_by(&server, &address, "clara", &arguments)
    };
    assert_eq!(come("1").next(), "anna: (to boris: second) late");
    let clara = come("40");
    let shown: Vec<String> = (0..34).map(|_| clara.next()).collect();
    assert_eq!(
        shown[..3],
        [
            "boris: first".to_owned(),
            "boris: second {👍 1  🦊 1}".to_owned(),
            "anna: (to boris: first) to the first".to_owned(),
        ]
    );
}

#[test]
fn a_reaction_that_was_missed_is_shown_after_the_cut() {
    let mut server = hall();
    let anna = Person::come(&server, "anna", "hall");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("look");
    assert_eq!(anna.next(), "boris: look");
    server.kill();
    anna.note("connecting again");
    boris.note("connecting again");
    boris.say("/react @boris +1");
    server.restart();
    boris.note("boris reacts 👍 to boris: look");
    // By a notification or by the catch-up, as it happens.
    anna.note("👍");
}

#[test]
fn people_come_in_by_invites_or_are_added() {
    let server = hall();
    for name in ["clara", "dora"] {
        server.add_user(name);
    }
    let address = server.address().to_string();
    let come = |user| Person::come_by(&server, &address, user, &[]);
    let mut anna = Person::come(&server, "anna", "hall");
    anna.say("/closed on");
    anna.note("this chat is closed");
    let mut clara = come("clara");
    clara.say("/join hall");
    clara.note("no chat");
    anna.say("/invite 2 3");
    let code = anna.note("for 2 uses, within 3 days: ");
    let code = code.rsplit(' ').next().expect("a code").to_owned();
    let link = anna.note("/#invite=");
    assert_eq!(link, format!("-- http://{address}/#invite={code}"));
    anna.note("on this machine alone");
    clara.say(&format!("/accept https://chat.example.org/#invite={code}"));
    anna.note("clara has joined");
    clara.say("here I am");
    assert_eq!(anna.next(), "clara: here I am");
    anna.say("/invites");
    let listed = anna.note("…, 1 use left, until ");
    assert!(listed.ends_with("by anna"), "{listed}");
    let hint = listed.trim_start_matches("-- ").split('…').next().expect("a hint").to_owned();
    anna.say(&format!("/uninvite {hint}"));
    anna.note("the invite has ended");
    let mut dora = come("dora");
    dora.say(&format!("/accept {code}"));
    dora.note("invite");
    anna.say("/add dora");
    anna.note("dora is a member now");
    dora.note("you are in hall now: /open hall");
    anna.say("/add dora");
    anna.note("already");
    clara.say("/invite");
    clara.note("admin");
    clara.say("/users D");
    clara.note("dora, online");
    clara.say("/notify mentions");
    clara.note("what mentions or answers you in this chat is pushed");
    clara.say("/chats");
    clara.note("hall, closed, mentions are pushed");
    clara.say("/reset dora");
    clara.note("operator");
    anna.say("/invite qr");
    let row = anna.note("█▀▀▀▀▀█");
    assert!(row.starts_with("  █▀▀▀▀▀█"), "{row}");
}

#[test]
fn operators_reset_passwords_and_lock_users_out() {
    let server = hall();
    server.admin_ok(&["user", "set", "anna", "--operator", "on"], None);
    let mut anna = Person::come(&server, "anna", "hall");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("here");
    assert_eq!(anna.next(), "boris: here");
    anna.say("/reset boris");
    let code = anna.note("a code for boris, good until ");
    let code = code.rsplit(' ').next().expect("a code");
    let mut other = Client::connect(server.address(), Options::default()).expect("it listens");
    other.set_password("boris", code, "battery staple").expect("a good code");
    boris.note("the session was ended");
    anna.say("/disable boris on");
    anna.note("boris is locked out");
    anna.say("/whois boris");
    anna.note("boris is user 2, away, disabled");
    anna.say("/disable boris off");
    anna.note("boris can log in again");
    anna.say("/whois anna");
    anna.note("anna is user 1, online, operator");
}

/// A server of API 1.0 knows none of it: each command says so, and the rest works.
#[test]
fn an_old_server_is_named_as_the_reason() {
    let server = hall();
    let here = folder(&server, "here");
    fs::write(here.join("a.txt"), "content").expect("a file");
    boris_sends(&server, "b.txt", b"content");
    let old = Between { minor: Some(0), ..Between::default() };
    let proxy = Proxy::to(&server, old);
    let arguments = ["--chat", "hall", "--history", "5"];
    let mut anna = Person::come_by(&server, &proxy.name(), "anna", &arguments);
    assert_eq!(anna.next(), "boris: [b.txt, 7 bytes]", "as text");
    for (line, words) in [
        (
            "/send here/a.txt",
            "not sent: this server does not know files: it speaks API 1.0: [here/",
        ),
        ("/reply yes", "not sent: this server does not know replies: it speaks API 1.0: yes"),
        ("/react +1", "this server does not know reactions: it speaks API 1.0"),
        ("/reactions", "does not know reactions"),
        ("/save", "no message with a file is loaded here"),
        ("/users", "does not know a list of its users"),
        ("/add boris", "does not know a way to add members"),
        ("/invite", "does not know invites into chats"),
        ("/invites", "does not know invites into chats"),
        ("/uninvite abcd", "does not know invites into chats"),
        ("/accept abcd", "does not know invites into chats"),
        ("/closed on", "does not know closed chats"),
        ("/notify all", "does not know pushes"),
        ("/reset boris", "does not know operators"),
        ("/disable boris on", "does not know operators"),
    ] {
        anna.say(line);
        anna.note(words);
    }
    anna.say("all the same");
    anna.say("/whois boris");
    anna.note("boris is user 2");
    assert!(server.admin_ok(&["export", "hall"], None).contains("all the same"));
}

#[test]
fn help_lists_what_is_new() {
    let server = hall();
    let address = server.address().to_string();
    let arguments = ["--user", "anna", "--password-stdin"];
    let output = run(client(&server, &address, &arguments), Some(&format!("{PASSWORD}\n/help\n")));
    let notes = String::from_utf8(output.stderr).expect("UTF-8");
    for words in
        ["/reply [-N] [@USER] TEXT", "/send FILE [TEXT]", "/invite [qr]", "/accept CODE", "+1 👍"]
    {
        assert!(notes.contains(words), "{words} is not in {notes}");
    }
}
