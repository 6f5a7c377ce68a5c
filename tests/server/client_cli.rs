//! `vestnik client` in line mode against the real server: two users talk, the server is killed
//! between two lines, every line arrives once; errors are one line.

// Tests stand outside of the server: they start threads.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::support::server::{run, vestnik};
use crate::support::{PASSWORD, Server};
use rustix::process::{Pid, Signal, kill_process};

/// How long a line may take to arrive, coming back included.
const WAIT: Duration = Duration::from_secs(30);

/// `vestnik client` in the server's folder, with a place of its own for sessions.
pub(crate) fn client(server: &Server, address: &str, arguments: &[&str]) -> Command {
    let mut command = vestnik(server.dir().path());
    command.env("XDG_STATE_HOME", server.dir().join("state")).env("TZ", "UTC");
    command.args(["client", address]).args(arguments);
    if !arguments.contains(&"--history") {
        command.args(["--history", "0"]);
    }
    command
}

/// Somebody who types, and reads what comes.
pub(crate) struct Person {
    child: Child,
    keys: Option<ChildStdin>,
    lines: Receiver<String>,
    notes: Receiver<String>,
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

impl Person {
    /// Comes into a chat by the password, and is in it when this returns.
    pub(crate) fn come(server: &Server, user: &str, chat: &str) -> Self {
        Self::come_by(server, &server.address().to_string(), user, &["--chat", chat])
    }

    /// The same by another address that leads to the server, with more options.
    pub(crate) fn come_by(server: &Server, address: &str, user: &str, arguments: &[&str]) -> Self {
        let arguments = [&["--user", user, "--password-stdin"], arguments].concat();
        let mut command = client(server, address, &arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let keys = child.stdin.take();
        let lines = lines_of(child.stdout.take().expect("a pipe"));
        let notes = lines_of(child.stderr.take().expect("a pipe"));
        let mut person = Self { child, keys, lines, notes };
        person.say(PASSWORD);
        // What others say from now on is shown: the answer comes after the chat is open.
        person.say(&format!("/whois {user}"));
        person.note(&format!("{user} is user"));
        person
    }

    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        let keys = self.keys.as_mut().expect("input that has not ended");
        writeln!(keys, "{line}").expect("somebody reads");
    }

    /// The next message, without its time.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        said(&self.lines.recv_timeout(WAIT).expect("a line"))
    }

    /// Reads on to this note; the whole of it.
    #[track_caller]
    pub(crate) fn note(&self, words: &str) -> String {
        loop {
            let note = self.notes.recv_timeout(WAIT).expect(words);
            if note.contains(words) {
                return note;
            }
        }
    }

    /// Ends the input; what was left to read, and the exit code.
    pub(crate) fn leave(mut self) -> (Vec<String>, Vec<String>, Option<i32>) {
        drop(self.keys.take());
        let rest = self.lines.iter().map(|line| said(&line)).collect();
        let notes = self.notes.iter().collect();
        (rest, notes, self.child.wait().expect("its end").code())
    }

    /// Sends a signal while the input is open; the exit code.
    #[track_caller]
    fn stopped_by(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn said(line: &str) -> String {
    line.split_once("] ").map(|(_, said)| said.to_owned()).expect("a line with a time")
}

/// A server on a port that it gets again after a restart, with anna and boris in a hall.
pub(crate) fn hall() -> Server {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address: SocketAddr = free.local_addr().expect("bound");
    drop(free);
    let server = Server::with(&["--listen", &address.to_string()]);
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna", "boris"]);
    server
}

/// Runs the client on this input to its end.
fn run_client(server: &Server, arguments: &[&str], input: &str) -> Output {
    run(client(server, &server.address().to_string(), arguments), Some(input))
}

/// What the only line on standard error says, and the exit code.
#[track_caller]
fn failure(output: &Output) -> (String, Option<i32>) {
    let words = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(words.lines().count(), 1, "{words}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (words, output.status.code())
}

#[test]
fn two_people_talk_and_a_killed_server_costs_no_line_and_doubles_none() {
    let mut server = hall();
    let mut anna = Person::come(&server, "anna", "hall");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("hello");
    assert_eq!(anna.next(), "boris: hello");
    anna.say("hello, boris");
    assert_eq!(boris.next(), "anna: hello, boris");

    server.kill();
    for line in ["one", "two", "three"] {
        anna.say(line);
        boris.say(line);
    }
    anna.note("connecting again");
    server.restart();
    anna.note("back again");
    boris.note("back again");
    for line in ["one", "two", "three"] {
        assert_eq!(anna.next(), format!("boris: {line}"));
        assert_eq!(boris.next(), format!("anna: {line}"));
    }
    anna.say("last");
    assert_eq!(boris.next(), "anna: last");
    for person in [anna, boris] {
        let (rest, notes, code) = person.leave();
        assert_eq!((rest, code), (Vec::new(), Some(0)), "{notes:?}");
    }
    assert!(server.admin_ok(&["check"], None).contains("9 messages"));
}

#[test]
fn what_is_piped_in_is_stored_once_although_the_server_is_killed_in_between() {
    let mut server = hall();
    let reader = Person::come(&server, "boris", "hall");
    let mut writer = Person::come(&server, "anna", "hall");
    writer.say("begin");
    assert_eq!(reader.next(), "anna: begin");
    for number in 0..300 {
        writer.say(&number.to_string());
        if number % 100 == 50 {
            server.kill();
            server.restart();
        }
    }
    let (_, notes, code) = writer.leave();
    assert_eq!(code, Some(0), "{notes:?}");
    let numbers: Vec<String> = (0..300).map(|_| reader.next()).collect();
    let expected: Vec<String> = (0..300).map(|number| format!("anna: {number}")).collect();
    // Anna's lines are in order; what was caught up with comes in the order of its chat, too.
    assert_eq!(numbers, expected);
    assert_eq!(reader.leave().0, Vec::<String>::new());
}

#[test]
fn the_password_is_asked_for_once_and_the_session_is_kept_for_its_owner_alone() {
    let server = hall();
    let arguments = ["--user", "anna", "--chat", "hall"];
    let words = failure(&run_client(&server, &arguments, "hi\n"));
    assert!(words.0.contains("--password-stdin") && words.1 == Some(2), "{words:?}");

    let with_password = [&arguments[..], &["--password-stdin"]].concat();
    let first = run_client(&server, &with_password, &format!("{PASSWORD}\nfirst\n"));
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert_eq!(run_client(&server, &arguments, "second\n").status.code(), Some(0));
    // Who came last need not say who they are; a password that is not needed is no message.
    let third = run_client(&server, &["--chat", "hall"], "third\n");
    assert_eq!(third.status.code(), Some(0), "{third:?}");
    let fourth = run_client(&server, &with_password, &format!("{PASSWORD}\nfourth\n"));
    assert_eq!(fourth.status.code(), Some(0), "{fourth:?}");
    assert_eq!(server.admin_ok(&["session", "list"], None).lines().count(), 2);
    for file in files(&server.dir().join("state/vestnik")) {
        let mode = file.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
        let text = std::fs::read_to_string(file).expect("UTF-8");
        assert!(!text.contains(PASSWORD));
    }

    assert_eq!(run_client(&server, &["--forget"], "").status.code(), Some(0));
    assert_eq!(server.admin_ok(&["session", "list"], None).lines().count(), 1);
    assert_eq!(failure(&run_client(&server, &arguments, "hi\n")).1, Some(2));
    assert!(server.admin_ok(&["check"], None).contains("4 messages"));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_second_client_of_the_same_user_leaves_the_first_its_session() {
    let server = hall();
    let mut anna = Person::come(&server, "anna", "hall");
    anna.say("first");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("hello");
    assert_eq!(anna.next(), "boris: hello");
    let arguments = ["--user", "Anna", "--chat", "hall", "--password-stdin"];
    let second = run_client(&server, &arguments, &format!("{PASSWORD}\nsecond\n"));
    let notes = String::from_utf8(second.stderr).expect("UTF-8");
    assert!(notes.contains("this one is not kept"), "{notes}");
    assert_eq!(second.status.code(), Some(0));
    // The first goes on, and is notified what its user said elsewhere.
    assert_eq!(anna.next(), "anna: second");
    boris.say("still here?");
    assert_eq!(anna.next(), "boris: still here?");
    assert_eq!(anna.leave().2, Some(0));
    let sessions = server.admin_ok(&["session", "list"], None);
    assert_eq!(sessions.lines().filter(|line| line.contains("anna")).count(), 1, "{sessions}");
}

#[test]
fn what_has_to_wait_is_sent_later_and_in_its_order() {
    let server = hall();
    server.admin_ok(&["chat", "set", "hall", "--slow-mode", "1"], None);
    let input = format!("{PASSWORD}\none\ntwo\nthree\n");
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin"];
    let output = run_client(&server, &arguments, &input);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("sent in 1 s"), "{output:?}");
    let page = run_client(&server, &["--user", "anna", "--chat", "hall", "--history", "9"], "");
    let page = String::from_utf8(page.stdout).expect("UTF-8");
    let said: Vec<String> = page.lines().map(said).collect();
    assert_eq!(said, ["anna: one", "anna: two", "anna: three"]);
}

#[test]
fn who_keeps_nothing_leaves_no_session() {
    let server = hall();
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin", "--no-keep"];
    let output = run_client(&server, &arguments, &format!("{PASSWORD}\nhi\n"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(server.admin_ok(&["session", "list"], None).lines().count(), 1);
    let logoff = ["--user", "anna", "--password-stdin"];
    let output = run_client(&server, &logoff, &format!("{PASSWORD}\n/logoff\n"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(server.admin_ok(&["session", "list"], None).lines().count(), 1);
    assert_eq!(failure(&run_client(&server, &["--forget"], "")).1, Some(1));
}

/// That nobody reads what is shown does not keep from being sent what is typed, nor a session.
#[test]
fn what_is_typed_is_sent_though_nobody_reads() {
    let server = hall();
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("something to show");
    boris.leave();
    let arguments = ["--user", "anna", "--chat", "hall", "--history", "10", "--password-stdin"];
    let address = server.address().to_string();
    let mut command = client(&server, &address, &arguments);
    command.arg("--no-keep").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    drop(child.stdout.take());
    let mut keys = child.stdin.take().expect("a pipe");
    write!(keys, "{PASSWORD}\nIMPORTANT\n").expect("somebody reads");
    drop(keys);
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    let text = server.admin_ok(&["export", "hall"], None);
    assert!(text.contains("IMPORTANT"), "{text}");
    // That of boris.
    assert_eq!(server.admin_ok(&["session", "list"], None).lines().count(), 2);
}

#[test]
fn a_failed_login_is_one_line() {
    let server = hall();
    server.add_locked_chat("cellar", "tea");
    let arguments = |chat| ["--user", "anna", "--password-stdin", "--chat", chat];
    for (chat, input, words) in [
        ("hall", "wrong horse\n", "cannot come in: wrong name or password"),
        ("nowhere", PASSWORD, "cannot open nowhere: no chat"),
        ("cellar", PASSWORD, "/join cellar PASSWORD"),
        ("hall", "", "give it as the first line"),
    ] {
        let (said, code) = failure(&run_client(&server, &arguments(chat), input));
        assert!(said.contains(words) && code == Some(1), "{said}");
    }
    let closed = ["--user", "nobody", "--register", "--password-stdin"];
    let (said, code) = failure(&run_client(&server, &closed, PASSWORD));
    assert!(said.contains("cannot come in: ") && code == Some(1), "{said}");
    for (address, words, code) in [
        ("127.0.0.1:1", "does `vestnik serve` run there?", 1),
        ("192.0.2.1", "--allow-plaintext", 2),
        ("chat.lan:x", "is not an address", 2),
    ] {
        let output = run(client(&server, address, &["--user", "anna"]), Some(""));
        let (said, was) = failure(&output);
        assert!(said.contains(words) && was == Some(code), "{said}");
    }
}

#[test]
fn commands_do_what_their_help_says() {
    let server = hall();
    server.add_locked_chat("cellar", "tea");
    let input = [
        PASSWORD,
        "one",
        "two",
        "/edit TWO",
        "/edit -2 ONE",
        "//not a command",
        "/delete",
        "/search ONE",
        "/title The hall",
        "/chats",
        "/find c",
        "/members",
        "/whois boris",
        "/join cellar tea",
        "in the cellar",
        "/leave",
        "/create attic",
        "/rename loft",
        "up here",
        "/dm boris",
        "hi, boris",
        "/open hall",
        "/admin boris on",
        "/admin boris off",
        "/ban boris on",
        "/members",
        "/ban boris off",
        "/open loft",
        "/delete-chat loft",
        "/sessions",
        "/help",
    ];
    let input = input.join("\n");
    let output =
        run_client(&server, &["--user", "anna", "--password-stdin", "--chat", "hall"], &input);
    let notes = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{notes}");
    for line in [
        "1 found",
        "the title is changed",
        "hall (The hall)",
        "cellar, 0 members, asks for a password",
        "anna, admin, online",
        "boris is user 2, away",
        "you are no longer in cellar",
        "the chat is called loft now",
        "boris is an admin",
        "boris is no longer an admin",
        "boris is banned",
        "boris, banned",
        "boris is banned no longer",
        "you are no longer in loft",
        "this one",
        "/search-all WORDS",
    ] {
        assert!(notes.lines().any(|note| note.contains(line)), "{line:?} is not in {notes}");
    }
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let said: Vec<String> = lines.lines().map(said).collect();
    for line in ["anna: TWO (edited)", "anna: ONE (edited)", "anna: (deleted)"] {
        assert!(said.contains(&line.to_owned()), "{line:?} is not in {said:?}");
    }
    assert!(server.admin_ok(&["chat", "list"], None).contains("hall"));
    assert!(!server.admin_ok(&["chat", "list"], None).contains("loft"));
}

#[test]
fn a_direct_chat_with_a_disabled_user_says_so() {
    let server = hall();
    server.add_user("clara");
    let mut anna = Person::come(&server, "anna", "hall");
    anna.say("/dm boris");
    anna.say("/whois boris");
    anna.note("boris is user");
    server.admin_ok(&["user", "disable", "boris"], None);
    server.admin_ok(&["user", "disable", "clara"], None);
    anna.say("/open hall");
    anna.say("/dm boris");
    anna.note("boris is disabled and reads nothing");
    // Without a direct chat from before there is nobody to talk to.
    anna.say("/dm clara");
    anna.note("no user has that name");
    let (_, notes, _) = anna.leave();
    assert!(!notes.iter().any(|note| note.contains("clara is disabled")), "{notes:?}");
}

#[test]
fn what_others_send_does_not_act_on_the_terminal() {
    let server = hall();
    let anna = Person::come(&server, "anna", "hall");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}");
    let shown = anna.next();
    assert!(shown.contains("]0;owned") && !shown.contains(|c: char| c.is_control()), "{shown:?}");
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
}

#[test]
fn a_line_that_fails_is_reported_and_so_is_the_end() {
    let server = hall();
    let input = format!("{PASSWORD}\n{}\n/open nowhere\nstill here\n", "x".repeat(20_000));
    let output =
        run_client(&server, &["--user", "anna", "--password-stdin", "--chat", "hall"], &input);
    let notes = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(notes.contains("not sent: at most 16384 bytes"), "{notes}");
    assert!(notes.ends_with("vestnik: 2 lines failed\n"), "{notes}");
    assert_eq!(output.status.code(), Some(1));
    assert!(server.admin_ok(&["check"], None).contains("1 message"));
}

#[test]
fn a_session_that_is_ended_elsewhere_ends_the_client() {
    let server = hall();
    let mut anna = Person::come(&server, "anna", "hall");
    anna.say("here");
    let mut boris = Person::come(&server, "boris", "hall");
    boris.say("hello");
    assert_eq!(anna.next(), "boris: hello");
    server.admin_ok(&["user", "disable", "anna"], None);
    anna.note("the session was ended");
    assert_eq!(anna.leave().2, Some(1));
}

#[test]
fn people_register_where_they_may() {
    let server = Server::with(&["--registration", "invite"]);
    let code = server.admin_ok(&["invite", "add"], None);
    let arguments = ["--user", "clara", "--register", "--invite", code.trim(), "--password-stdin"];
    let output = run_client(&server, &arguments, &format!("{PASSWORD}\n/create club\nhi\n"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (words, code) = failure(&run_client(&server, &arguments, &format!("{PASSWORD}\n")));
    assert!(words.contains("cannot come in: ") && code == Some(1), "{words}");
}

#[test]
fn tls_is_trusted_by_fingerprint_or_by_file_and_not_otherwise() {
    let folder = crate::support::TempDir::new();
    let mut command = vestnik(folder.path());
    command.args(["cert", "self-signed", "127.0.0.1"]);
    let made = run(command, None);
    let pin = String::from_utf8(made.stdout).expect("UTF-8").trim().to_owned();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let (cert, key) = (cert.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let listen = ["--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
    let server = Server::with(&listen);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let user = ["--user", "anna", "--password-stdin", "--no-keep", "--chat", "hall"];
    let input = format!("{PASSWORD}\nin secret\n");
    for trust in [["--tls-fingerprint", pin.as_str()], ["--tls-ca", cert]] {
        let output = run_client(&server, &[&user[..], &trust].concat(), &input);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    // The environment pins it as well; and what was pinned once is remembered, so that nobody
    // speaks in the clear to that server later.
    let kept = ["--user", "anna", "--password-stdin", "--chat", "hall"];
    let state = folder.join("state");
    let with_state = |arguments: &[&str]| {
        let mut command = client(&server, &server.address().to_string(), arguments);
        command.env("XDG_STATE_HOME", &state);
        command
    };
    let mut by_environment = with_state(&kept);
    by_environment.env("VESTNIK_TLS_FINGERPRINT", &pin);
    for command in [by_environment, with_state(&kept)] {
        let output = run(command, Some(&input));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let other = format!("AB{}", &pin[2..]);
    let other = if other == pin { format!("CD{}", &pin[2..]) } else { other };
    for (trust, words) in [
        (&["--tls-fingerprint", other.as_str()][..], pin.as_str()),
        (&["--tls"], "--tls-fingerprint"),
        (&[], "is this its port for plain TCP?"),
    ] {
        let (said, code) = failure(&run_client(&server, &[&user[..], trust].concat(), &input));
        assert!(said.contains(words) && code == Some(1), "{said}");
    }
    let by_name = format!("localhost:{}", server.address().port());
    let arguments = [&user[..], &["--tls-ca", cert]].concat();
    let (said, code) = failure(&run(client(&server, &by_name, &arguments), Some(&input)));
    assert!(said.contains("connect by a name that is in it") && code == Some(1), "{said}");
    assert!(server.admin_ok(&["check"], None).contains("4 messages"));
}

#[test]
fn a_line_that_is_not_utf_8_is_not_sent() {
    let server = hall();
    let mut command = client(
        &server,
        &server.address().to_string(),
        &["--user", "anna", "--password-stdin", "--no-keep", "--chat", "hall"],
    );
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(format!("{PASSWORD}\nbefore\n").as_bytes()).expect("somebody reads");
    input.write_all(b"caf\xe9\nafter\n").expect("somebody reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not sent: that line is not UTF-8"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(!shown.contains('\u{fffd}'), "{shown}");
}

#[test]
fn a_script_that_is_stopped_by_a_signal_learns_that_its_input_was_not_all_sent() {
    let server = hall();
    for signal in [Signal::TERM, Signal::INT] {
        let mut anna = Person::come(&server, "anna", "hall");
        anna.say("before");
        anna.say("/whois anna");
        anna.note("anna is user");
        assert_eq!(anna.stopped_by(signal), Some(1));
        anna.note("stopped by a signal: not all input was sent");
    }
}
