//! `vestnik client` in full-screen mode: sending, receiving, and restoring the terminal.

// Tests stand outside of the server: they start threads and read the clock.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::server::{run, vestnik};
use crate::support::{PASSWORD, Server, TempDir};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// How long something may take to be shown.
const WAIT: Duration = Duration::from_secs(30);

/// A client in a terminal of 80 columns and 24 rows.
struct Terminal {
    child: Child,
    /// Where a person sits.
    keyboard: File,
    /// The same terminal, held open so that it can be read when the client has gone.
    side: File,
    shown: Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    /// A client of the server; `None` where the system has no such terminals.
    fn open(server: &Server, arguments: &[&str]) -> Option<Self> {
        let mut command = vestnik(server.dir().path());
        command.env("XDG_STATE_HOME", server.dir().join("state")).env("TZ", "UTC");
        command.args(["client", &server.address().to_string()]).args(arguments);
        Self::start(command)
    }

    fn start(mut command: Command) -> Option<Self> {
        let Ok(person) = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY) else {
            eprintln!("skipped: there are no pseudo terminals");
            return None;
        };
        grantpt(&person).expect("it is ours");
        unlockpt(&person).expect("it is ours");
        let name = ptsname(&person, Vec::new()).expect("a name");
        let name = OsStr::from_bytes(name.to_bytes());
        let side = File::options().read(true).write(true).open(name).expect("the other side");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&person, size).expect("a terminal");
        let end = || Stdio::from(side.try_clone().expect("a descriptor"));
        command.env("TERM", "xterm-256color");
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the binary starts");
        let keyboard = File::from(person);
        let shown = bytes_of(keyboard.try_clone().expect("a descriptor"));
        Some(Self { child, keyboard, side, shown, screen: String::new() })
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("somebody reads");
    }

    /// Waits until something is shown, and forgets what was shown until then.
    #[track_caller]
    fn until(&mut self, words: &str) {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(at) = self.screen.find(words) {
                self.screen.drain(..at + words.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.shown.recv_timeout(left) else {
                panic!("{words:?} is not shown, but:\n{:?}", self.screen);
            };
            self.screen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Waits for the end.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes_of(mut terminal: File) -> Receiver<Vec<u8>> {
    let (sender, shown) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = terminal.read(&mut bytes) {
            let _ = sender.send(bytes[..count].to_vec());
        }
    });
    shown
}

fn hall() -> Server {
    let server = Server::start();
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna", "boris"]);
    server
}

/// Somebody says something by lines.
fn says(server: &Server, user: &str, line: &str) {
    let mut command = vestnik(server.dir().path());
    command.env("XDG_STATE_HOME", server.dir().join("other-state"));
    command.args(["client", &server.address().to_string(), "--user", user]);
    command.args(["--password-stdin", "--chat", "hall", "--no-keep", "--history", "0"]);
    let output = run(command, Some(&format!("{PASSWORD}\n{line}\n")));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_person_talks_on_the_whole_screen_and_gets_the_terminal_back() {
    let server = hall();
    says(&server, "boris", "is anybody here?");
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin"];
    let Some(mut anna) = Terminal::open(&server, &arguments) else { return };
    let before = tcgetattr(&anna.side).expect("a terminal");
    assert!(before.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    anna.press(&format!("{PASSWORD}\n"));
    anna.until("\x1b[?1049h");
    anna.until("is anybody here?");
    assert!(!tcgetattr(&anna.side).expect("a terminal").local_modes.contains(LocalModes::ECHO));
    anna.press("hello, borix\x7fs\r");
    anna.until("hello, boris");
    // What one sends shows as stored once it is.
    anna.until(": hello, boris");
    says(&server, "boris", "a line with \u{1b}[2J in it");
    anna.until("a line with \u{fffd}[2J in it");
    anna.press("/members\r");
    anna.until("anna, admin, online");
    anna.press("/lo\t\x15/nonsense\r");
    anna.until("there is no /nonsense");
    anna.press("\x03");
    anna.until("\x1b[?1049l");
    assert_eq!(anna.end(), Some(0));
    let after = tcgetattr(&anna.side).expect("a terminal");
    assert_eq!(after.local_modes, before.local_modes);
    assert!(server.admin_ok(&["check"], None).contains("3 messages"));
}

/// What was typed just before the end is sent, and is not said to be unsent.
#[test]
fn what_is_typed_before_the_end_is_sent() {
    let server = hall();
    says(&server, "boris", "are you leaving?");
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin"];
    let Some(mut anna) = Terminal::open(&server, &arguments) else { return };
    anna.press(&format!("{PASSWORD}\n"));
    anna.until("are you leaving?");
    anna.press("good bye\r/quit\r");
    anna.until("\x1b[?1049l");
    assert_eq!(anna.end(), Some(0));
    assert!(server.admin_ok(&["export", "hall"], None).contains("good bye"));
}

/// Files, reactions and their progress as two people see them; Tab completes the name.
#[test]
fn a_file_is_sent_from_the_screen_and_reactions_change_its_line() {
    let server = hall();
    std::fs::create_dir(server.dir().join("saved")).expect("a new folder");
    std::fs::write(server.dir().join("a picture.png"), vec![7; 300_000]).expect("a file");
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin"];
    let Some(mut anna) = Terminal::open(&server, &arguments) else { return };
    anna.press(&format!("{PASSWORD}\n"));
    anna.until("2 members");
    anna.press("/send a pi\x15/send a\tlook\r");
    anna.until("[a picture.png, 300.0 kB]");
    let arguments = ["--user", "boris", "--chat", "hall", "--save-to", "saved"];
    let Some(mut boris) =
        Terminal::open(&server, &[&arguments[..], &["--password-stdin"]].concat())
    else {
        return;
    };
    boris.press(&format!("{PASSWORD}\n"));
    boris.until("[a picture.png, 300.0 kB]");
    boris.press("/save\r");
    boris.until("saved saved/a picture.png, 300.0 kB");
    boris.press("/react hea\t\r");
    boris.until("[❤\u{fe0f} 1]");
    anna.until("❤\u{fe0f} 1");
    anna.press("/react @anna heart\r");
    anna.until("[❤\u{fe0f} 2]");
    boris.until("[❤\u{fe0f} 2]");
    anna.press("/invite qr\r");
    // The code stands below the link, of which the window has no room for the beginning.
    anna.until("the link works on this machine alone");
    anna.until("█▀▀▀▀▀█");
    let saved = std::fs::read(server.dir().join("saved/a picture.png")).expect("a file");
    assert!(saved == vec![7; 300_000]);
}

/// By lines, a person at a terminal goes on while a file is on its way, and can give it up.
#[test]
fn a_file_on_its_way_is_given_up() {
    let server = hall();
    std::fs::write(server.dir().join("large"), vec![7; 20_000_000]).expect("a file");
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin", "--plain"];
    let Some(mut anna) = Terminal::open(&server, &arguments) else { return };
    anna.press(&format!("{PASSWORD}\n"));
    anna.press("/whois anna\n/send large\nmeanwhile\n/cancel\n");
    anna.until("not sent: it was cancelled: [large]");
    anna.press("/quit\n");
    assert_eq!(anna.end(), Some(0));
    let said = server.admin_ok(&["export", "hall"], None);
    assert!(said.contains("meanwhile") && !said.contains("large"), "{said}");
}

/// A shell has the terminal while the client is stopped, and sets its modes.
#[test]
fn the_screen_is_back_after_a_stop_by_a_signal() {
    let server = hall();
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin"];
    let Some(mut anna) = Terminal::open(&server, &arguments) else { return };
    let before = tcgetattr(&anna.side).expect("a terminal");
    anna.press(&format!("{PASSWORD}\n"));
    // The wheel does not recall earlier input.
    anna.until("\x1b[?1007l");
    anna.until("2 members");
    let pid = Pid::from_child(&anna.child);
    kill_process(pid, Signal::STOP).expect("it runs");
    tcsetattr(&anna.side, OptionalActions::Now, &before).expect("a terminal");
    kill_process(pid, Signal::CONT).expect("it is stopped");
    anna.until("\x1b[2J");
    anna.until("2 members");
    let modes = tcgetattr(&anna.side).expect("a terminal").local_modes;
    assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
    anna.press("\x03");
    assert_eq!(anna.end(), Some(0));
    assert_eq!(tcgetattr(&anna.side).expect("a terminal").local_modes, before.local_modes);
}

#[test]
fn the_terminal_is_given_back_when_the_session_is_ended_elsewhere() {
    let server = hall();
    let arguments = ["--user", "anna", "--chat", "hall", "--password-stdin"];
    let Some(mut anna) = Terminal::open(&server, &arguments) else { return };
    anna.press(&format!("{PASSWORD}\n"));
    anna.until("connected");
    anna.press("half a line");
    anna.until("half a line");
    server.admin_ok(&["user", "disable", "anna"], None);
    anna.until("\x1b[?1049l");
    anna.until("not sent: half a line");
    anna.until("the session was ended");
    assert_eq!(anna.end(), Some(1));
    let modes = tcgetattr(&anna.side).expect("a terminal").local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
}

#[test]
fn ctrl_c_at_a_password_prompt_gives_the_echo_back() {
    let dir = TempDir::new();
    // The prompt is on the controlling terminal, which a new session takes.
    let mut command = Command::new("setsid");
    command.args(["-cw", env!("CARGO_BIN_EXE_vestnik"), "user", "add", "anna"]);
    command.current_dir(dir.path());
    let Some(mut terminal) = Terminal::start(command) else { return };
    terminal.until("Password: ");
    let has_echo = |terminal: &Terminal| {
        let modes = tcgetattr(&terminal.side).expect("a terminal").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    };
    assert!(!has_echo(&terminal));
    terminal.press("half a pass\x03");
    assert_ne!(terminal.end(), Some(0));
    assert!(has_echo(&terminal));
}
