//! The terminal: raw mode and the alternate screen, and restoring both.

use std::io::{self, Write};

use rustix::io::retry_on_intr;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Saves whether the wheel of the mouse sends arrows, which would recall earlier input.
const SAVE: &str = "\x1b[?1007s";
/// Enters the alternate screen, with bracketed paste, without line wrapping and wheel arrows.
const ENTER: &str = "\x1b[?1049h\x1b[?2004h\x1b[?7l\x1b[?1007l\x1b[2J";
/// Terminals that cannot restore a saved mode mostly have the arrows of the wheel by default.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?2004l\x1b[?1007h\x1b[?1007r\x1b[?25h\x1b[?1049l";

/// A terminal in raw mode; dropping it restores the terminal.
pub(super) struct Terminal<'a> {
    out: &'a mut dyn Write,
    before: Termios,
}

impl<'a> Terminal<'a> {
    pub(super) fn take(out: &'a mut dyn Write) -> io::Result<Self> {
        let mut terminal = Self { out, before: tcgetattr(io::stdin())? };
        terminal.write(SAVE)?;
        terminal.enter()?;
        Ok(terminal)
    }

    /// Enters raw mode and the alternate screen; again after the process was stopped by a signal,
    /// as a shell has the terminal meanwhile.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        retry_on_intr(|| tcsetattr(io::stdin(), OptionalActions::Now, &raw))?;
        self.write(ENTER)
    }

    fn leave(&mut self) -> io::Result<()> {
        self.write(LEAVE)?;
        Ok(tcsetattr(io::stdin(), OptionalActions::Now, &self.before)?)
    }

    /// Suspends the process (Ctrl-Z), and takes the terminal back after `fg`.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.leave()?;
        kill_process(getpid(), Signal::TSTP)?;
        self.write(SAVE)?;
        self.enter()
    }

    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Columns and rows, as the terminal reports them.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => (80, 24),
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // An error is ignored: a closed terminal needs no restoring.
        let _ = self.leave();
    }
}
