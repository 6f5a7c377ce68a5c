//! The main scenario with the Python example client: two users in two terminals and a chat with a
//! password.
//!
//! One is disconnected and fetches exactly the missed messages; the server is killed in between,
//! and nothing is lost.

// Tests stand outside of the server: they start threads.
#![allow(clippy::disallowed_methods)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::{PASSWORD, Server};

/// How long a line may take to arrive, coming back included.
const WAIT: Duration = Duration::from_secs(30);

/// A wire that can be cut: it takes connections and passes their bytes on.
struct Wire {
    address: SocketAddr,
    state: Arc<Mutex<WireState>>,
}

#[derive(Default)]
struct WireState {
    /// Where it leads; `None` while it is cut.
    server: Option<SocketAddr>,
    ends: Vec<TcpStream>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let state =
            Arc::new(Mutex::new(WireState { server: Some(server), ..WireState::default() }));
        let shared = Arc::clone(&state);
        // Ends with the process of the test.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = pass_on(&client, &shared);
            }
        });
        Self { address, state }
    }

    /// Ends what passes, and refuses more.
    fn cut(&self) {
        let mut state = self.state.lock().expect("no panic elsewhere");
        state.server = None;
        for end in state.ends.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self, server: SocketAddr) {
        self.state.lock().expect("no panic elsewhere").server = Some(server);
    }
}

fn pass_on(client: &TcpStream, state: &Mutex<WireState>) -> io::Result<()> {
    let mut state = state.lock().expect("no panic elsewhere");
    let Some(server) = state.server else { return client.shutdown(Shutdown::Both) };
    let server = TcpStream::connect(server)?;
    for (from, to) in [(client, &server), (&server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        state.ends.push(from.try_clone()?);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

/// Somebody in front of `clients/python/examples/chat.py`.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Terminal {
    fn open(user: &str, password: &str, server: SocketAddr) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/examples/chat.py");
        let mut child = Command::new("python3")
            .args([script, "--user", user, "--chat", "kitchen", "--join-password", "tea"])
            .args(["--password-stdin", "--server", &server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let keys = child.stdin.take();
        let out = child.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut terminal = Self { child, keys, lines };
        terminal.say(password);
        terminal
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        let keys = self.keys.as_mut().expect("input that has not ended");
        writeln!(keys, "{line}").expect("somebody reads");
    }

    /// The next line shown, without its time.
    #[track_caller]
    fn next(&self) -> String {
        let line = self.lines.recv_timeout(WAIT).expect("a line");
        line.split_once("] ").map(|(_, said)| said.to_owned()).expect("a line with a time")
    }

    /// Ends the input; what the script said on standard error, and how it ended.
    fn leave(mut self) -> (Vec<String>, String, Option<i32>) {
        drop(self.keys.take());
        let rest = self.lines.iter().collect();
        let mut words = String::new();
        let mut err = self.child.stderr.take().expect("a pipe");
        err.read_to_string(&mut words).expect("UTF-8");
        (rest, words, self.child.wait().expect("its end").code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kitchen() -> Option<Server> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3");
        return None;
    }
    let server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    server.add_locked_chat("kitchen", "tea");
    Some(server)
}

#[test]
fn two_people_talk_through_a_cut_and_a_crash() {
    let Some(mut server) = kitchen() else { return };
    let wires = [Wire::to(server.address()), Wire::to(server.address())];
    let mut anna = Terminal::open("anna", PASSWORD, wires[0].address);
    anna.say("is anybody here?");
    let mut boris = Terminal::open("boris", PASSWORD, wires[1].address);
    boris.say("hello");
    assert_eq!(anna.next(), "boris: hello");
    anna.say("hello, boris");
    while boris.next() != "anna: hello, boris" {}
    // What she is notified next comes after the answer to her own line. Without that answer the
    // line would be news to her after the cut.
    boris.say("there you are");
    assert_eq!(anna.next(), "boris: there you are");

    wires[0].cut();
    for line in ["one", "two", "three"] {
        boris.say(line);
    }
    anna.say("said in the dark");
    // Boris is answered before the wire is whole: his lines are stored, and Anna has none.
    thread::sleep(Duration::from_millis(300));
    wires[0].mend(server.address());
    assert_eq!(
        [anna.next(), anna.next(), anna.next()],
        ["boris: one", "boris: two", "boris: three"]
    );
    assert_eq!(boris.next(), "anna: said in the dark");
    boris.say("and again");
    assert_eq!(anna.next(), "boris: and again");

    server.kill();
    boris.say("to nobody");
    server.restart();
    for wire in &wires {
        wire.cut();
        wire.mend(server.address());
    }
    assert_eq!(anna.next(), "boris: to nobody");
    anna.say("good night");
    assert_eq!(boris.next(), "anna: good night");

    for terminal in [anna, boris] {
        let (rest, words, code) = terminal.leave();
        assert_eq!((rest, code), (Vec::new(), Some(0)), "{words}");
        assert!(words.contains("back again"), "{words}");
    }
    assert!(server.admin_ok(&["check"], None).contains("11 messages"));
    let sessions = server.admin_ok(&["session", "list"], None);
    assert_eq!(sessions.lines().count(), 1, "who leaves ends the session: {sessions}");
}

#[test]
fn a_failed_login_is_one_line() {
    let Some(server) = kitchen() else { return };
    let (rest, words, code) = Terminal::open("anna", "wrong horse", server.address()).leave();
    assert_eq!((rest, code), (Vec::new(), Some(1)));
    assert!(words.starts_with("chat.py: bad-credentials: "), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
}
