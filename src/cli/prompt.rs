//! Reads passwords from the terminal without echo.
//!
//! The terminal delivers Ctrl-C as a byte while it asks, so that the echo is on again before the
//! process ends: a signal would end it with the echo still off, and leave a shell that shows
//! nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use vestnik::auth::password::Secret;
use zeroize::{Zeroize, Zeroizing};

/// Longest password that is read, in bytes: more than any may have, so that one that is too long
/// gets the message for that.
const PASSWORD_BYTES_MAX: usize = 4096;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_U: u8 = 0x15;

/// What a byte did to the password.
#[derive(PartialEq, Eq, Debug)]
enum Typed {
    Continue,
    Done,
    /// Ctrl-D with nothing typed.
    Nothing,
    Interrupt,
}

/// A terminal without echo, as it was before when this is dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn open() -> io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Now, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that has gone needs no echo.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Asks on the controlling terminal and reads one line without showing it.
///
/// Backspace and Ctrl-U edit it. Ctrl-C ends the process as SIGINT does.
///
/// # Errors
/// There is no terminal, nothing was typed before its end, or what was typed is not UTF-8.
pub(super) fn read_secret(prompt: &str) -> io::Result<Secret> {
    let mut quiet = Quiet::open()?;
    quiet.terminal.write_all(prompt.as_bytes())?;
    let mut typed = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX));
    let ended = loop {
        let mut byte = [0];
        match rustix::io::read(&quiet.terminal, &mut byte) {
            Ok(0) => break Typed::Nothing,
            Ok(_) => match take(&mut typed, byte[0]) {
                Typed::Continue => {}
                ended => break ended,
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        byte.zeroize();
    };
    quiet.terminal.write_all(b"\n")?;
    drop(quiet);
    match ended {
        Typed::Interrupt => {
            kill_process(getpid(), Signal::INT)?;
            Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"))
        }
        Typed::Nothing => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the input ended before a password"))
        }
        Typed::Continue | Typed::Done => match str::from_utf8(&typed) {
            Ok(text) => Ok(Secret::new(text.to_owned())),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")),
        },
    }
}

fn take(typed: &mut Vec<u8>, byte: u8) -> Typed {
    match byte {
        b'\n' | b'\r' => return Typed::Done,
        CTRL_C => return Typed::Interrupt,
        CTRL_D if typed.is_empty() => return Typed::Nothing,
        CTRL_U => {
            typed.zeroize();
        }
        // A character goes as a whole: its continuation bytes begin with the bits 10.
        0x08 | 0x7F => while typed.pop().is_some_and(|last| last & 0xC0 == 0x80) {},
        byte if byte < 0x20 => {}
        byte if typed.len() < PASSWORD_BYTES_MAX => typed.push(byte),
        _ => {}
    }
    Typed::Continue
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> (Vec<u8>, Typed) {
        let mut text = Vec::new();
        let ended = bytes.iter().map(|&byte| take(&mut text, byte)).last();
        (text, ended.unwrap_or(Typed::Continue))
    }

    #[test]
    fn a_line_is_edited_and_ended() {
        assert_eq!(typed(b"tea\r"), (b"tea".to_vec(), Typed::Done));
        assert_eq!(typed("чай\u{7f}\u{7f}\n".as_bytes()), ("ч".as_bytes().to_vec(), Typed::Done));
        assert_eq!(typed(b"wrong\x15right\n"), (b"right".to_vec(), Typed::Done));
        assert_eq!(typed(b"\x04"), (Vec::new(), Typed::Nothing));
        assert_eq!(typed(b"half\x03").1, Typed::Interrupt);
        assert_eq!(typed(&[b'x'; 2 * PASSWORD_BYTES_MAX]).0.len(), PASSWORD_BYTES_MAX);
    }
}
