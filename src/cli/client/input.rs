//! Lines of standard input, read without blocking and in bounded memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{read, retry_on_intr};
use vestnik::auth::password::Secret;
use zeroize::Zeroize;

use super::super::failure::Failure;

/// Longest line, in bytes; the rest of a longer one is skipped.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A line, or the reason why it is not valid.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Line {
    Text(String),
    TooLong,
    /// Not UTF-8.
    NotText,
}

/// Standard input.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    has_ended: bool,
    /// Whether the rest of a line that is too long is being skipped.
    is_skipping: bool,
}

impl Lines {
    /// Whether the input has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Reads once; blocks if there is no input.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        self.read_from(stdin.as_fd())
    }

    fn read_from(&mut self, from: BorrowedFd<'_>) -> io::Result<()> {
        let mut chunk = [0; 4096];
        let count = retry_on_intr(|| read(from, &mut chunk))?;
        self.has_ended = count == 0;
        self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        chunk.zeroize();
        Ok(())
    }

    /// The beginning of the next line, if one is complete.
    pub(super) fn next_begins(&self) -> Option<u8> {
        let is_whole = self.bytes.contains(&b'\n')
            || self.bytes.len() > LINE_BYTES_MAX
            || (self.has_ended && !self.bytes.is_empty());
        self.bytes.first().copied().filter(|_| is_whole)
    }

    /// The next complete line; at the end of the input also a last line without a newline.
    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let end = self.bytes.iter().position(|&byte| byte == b'\n');
            let was_skipping = self.is_skipping;
            let line: Vec<u8> = match end {
                Some(end) => {
                    self.is_skipping = false;
                    self.bytes.drain(..=end).take(end).collect()
                }
                None if self.bytes.len() > LINE_BYTES_MAX => {
                    self.is_skipping = true;
                    std::mem::take(&mut self.bytes)
                }
                None if self.has_ended && !self.bytes.is_empty() => std::mem::take(&mut self.bytes),
                None => return None,
            };
            if was_skipping {
                continue;
            }
            if self.is_skipping || line.len() > LINE_BYTES_MAX {
                return Some(Line::TooLong);
            }
            let Ok(text) = str::from_utf8(&line) else { return Some(Line::NotText) };
            return Some(Line::Text(text.replace('\0', "").trim_end_matches('\r').to_owned()));
        }
    }

    /// Waits for one line: a password.
    pub(super) fn password(&mut self) -> Result<Secret, Failure> {
        loop {
            match self.next() {
                Some(Line::Text(text)) if !text.is_empty() => return Ok(Secret::new(text)),
                Some(Line::TooLong) => return Err(Failure::new("that is too long for a password")),
                Some(Line::NotText) => return Err(Failure::new("the password is not UTF-8")),
                Some(Line::Text(_)) => {
                    return Err(Failure::new("the line for the password is empty"));
                }
                None if self.has_ended => {
                    let words = "no password came on standard input: give it as the first line";
                    return Err(Failure::new(words));
                }
                None => self.read().map_err(|error| {
                    Failure::Failed(format!("cannot read standard input: {error}"))
                })?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What lines come of these pieces.
    fn lines(pieces: &[&[u8]]) -> Vec<Line> {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in pieces {
            here.write_all(piece).unwrap();
            lines.read_from(there.as_fd()).unwrap();
            all.extend(std::iter::from_fn(|| lines.next()));
        }
        drop(here);
        while !lines.has_ended() {
            lines.read_from(there.as_fd()).unwrap();
            all.extend(std::iter::from_fn(|| lines.next()));
        }
        all
    }

    fn text(text: &str) -> Line {
        Line::Text(text.to_owned())
    }

    #[test]
    fn lines_come_whole_however_their_bytes_came() {
        let pieces: [&[u8]; 3] = [b"one\ntw", b"o\r\n\nth", "r\0ее".as_bytes()];
        assert_eq!(lines(&pieces), [text("one"), text("two"), text(""), text("thrее")]);
        assert_eq!(lines(&[b"\xff\n"]), [Line::NotText]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_whole() {
        let long = vec![b'x'; 1000];
        let mut pieces: Vec<&[u8]> = vec![&long; 200];
        pieces.push(b"\nnext\n");
        assert_eq!(lines(&pieces), [Line::TooLong, text("next")]);
        assert_eq!(lines(&[b"\xff\n", b"ok\n"]), [Line::NotText, text("ok")]);
    }
}
