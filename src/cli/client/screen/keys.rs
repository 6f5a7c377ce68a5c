//! Parses a terminal's bytes into keys: UTF-8, control characters, and common escape sequences.
//!
//! Unknown sequences are skipped.

use std::time::{Duration, Instant};

/// Longest escape sequence, in bytes.
const SEQUENCE_BYTES_MAX: usize = 32;
/// Longest answer of a terminal that is skipped as a whole, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// Longest pasted text, in bytes; the rest is dropped.
const PASTE_BYTES_MAX: usize = 64 * 1024;

/// Time limit for the rest of an escape sequence.
const REST_WAIT: Duration = Duration::from_millis(50);

/// Pause after which Ctrl-C ends a paste whose end is missing. At once it may be part of the text.
const PASTE_PAUSE: Duration = Duration::from_millis(500);

const CTRL_C: u8 = 0x03;
const ESC: u8 = 0x1B;
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// A key, or a pasted text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Char(char),
    /// With Ctrl, as a lower-case letter.
    Ctrl(char),
    Alt(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Up,
    Down,
    AltUp,
    AltDown,
    Home,
    End,
    PageUp,
    PageDown,
    Escape,
    Paste(String),
}

/// The parser, with incomplete input.
#[derive(Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    /// When the last bytes came.
    pushed: Option<Instant>,
    /// The text of a paste that has not ended.
    paste: Option<Vec<u8>>,
    /// Whether that paste was ended by Ctrl-C.
    is_paste_broken: bool,
    /// Bytes dropped so far of an answer of the terminal that has not ended (OSC, DCS and the
    /// like). It may come late and in parts, and is nothing that somebody typed.
    answer: Option<usize>,
}

/// The beginning of the input.
enum Found {
    /// This many bytes: a key, or an unknown sequence.
    Key(usize, Option<Key>),
    /// A string sequence begins: `ESC` and `]`, `P`, `X`, `^` or `_` (ECMA-48, 5.6).
    Answer,
    /// An incomplete sequence.
    More,
}

impl Keys {
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) {
        let is_late = self.pushed.is_some_and(|pushed| now >= pushed + PASTE_PAUSE);
        if let Some(paste) = self.paste.as_mut().filter(|_| is_late && bytes == [CTRL_C]) {
            let room = PASTE_BYTES_MAX.saturating_sub(paste.len());
            paste.extend(self.bytes.drain(..).take(room));
            self.is_paste_broken = true;
        }
        self.pushed = Some(now);
        self.bytes.extend_from_slice(bytes);
    }

    /// How long an incomplete sequence waits for its rest, which may never come: the key Esc looks
    /// like one.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let is_waiting = !self.bytes.is_empty() && self.paste.is_none() && self.answer.is_none();
        let pushed = self.pushed.filter(|_| is_waiting)?;
        Some((pushed + REST_WAIT).saturating_duration_since(now))
    }

    /// Handles a pause in the input: a lone ESC byte is the key Esc; any other incomplete sequence
    /// is dropped.
    pub(super) fn give_up_waiting(&mut self, now: Instant) -> Option<Key> {
        if self.wait(now) != Some(Duration::ZERO) {
            return None;
        }
        let was_escape = self.bytes.iter().all(|&byte| byte == ESC);
        self.bytes.clear();
        was_escape.then_some(Key::Escape)
    }

    /// The next key.
    pub(super) fn next(&mut self) -> Option<Key> {
        loop {
            if self.paste.is_some() {
                return self.pasted();
            }
            if self.answer.is_some() && !self.skip_answer() {
                return None;
            }
            if self.bytes.starts_with(PASTE_BEGINS) {
                self.bytes.drain(..PASTE_BEGINS.len());
                self.paste = Some(Vec::new());
                continue;
            }
            match find(&self.bytes) {
                Found::Key(bytes, key) => {
                    self.bytes.drain(..bytes);
                    if key.is_some() {
                        return key;
                    }
                }
                Found::Answer => {
                    self.bytes.drain(..2);
                    self.answer = Some(0);
                }
                Found::More if self.bytes.len() > SEQUENCE_BYTES_MAX => self.bytes.clear(),
                Found::More => return None,
            }
        }
    }

    /// Drops the bytes of an answer; true when it has ended. BEL and ST end it, and so does a
    /// control character, which none may hold: somebody is at the keyboard.
    fn skip_answer(&mut self) -> bool {
        let dropped = self.answer.unwrap_or_default();
        let end = self.bytes.iter().position(|&byte| byte < 0x20);
        let room = ANSWER_BYTES_MAX.saturating_sub(dropped);
        match end {
            Some(at) if self.bytes.get(at) == Some(&ESC) => {
                self.bytes.drain(..at);
                // Whether this is ST, or the next sequence, shows the byte behind it.
                match self.bytes.get(1) {
                    None => return false,
                    Some(b'\\') => _ = self.bytes.drain(..2),
                    Some(_) => {}
                }
            }
            Some(at) => _ = self.bytes.drain(..=at),
            None if self.bytes.len() <= room => {
                self.answer = Some(dropped + self.bytes.len());
                self.bytes.clear();
                return false;
            }
            None => {}
        }
        self.answer = None;
        true
    }

    fn pasted(&mut self) -> Option<Key> {
        if std::mem::take(&mut self.is_paste_broken) {
            return self.paste.take().map(|paste| Key::Paste(text_of(&paste)));
        }
        let paste = self.paste.as_mut()?;
        let end = self.bytes.windows(PASTE_ENDS.len()).position(|bytes| bytes == PASTE_ENDS);
        // The end may be cut in two by what was read at once.
        let taken = end.unwrap_or_else(|| self.bytes.len().saturating_sub(PASTE_ENDS.len() - 1));
        let room = PASTE_BYTES_MAX.saturating_sub(paste.len());
        paste.extend(self.bytes.drain(..taken).take(room));
        end?;
        self.bytes.drain(..PASTE_ENDS.len());
        let paste = self.paste.take().unwrap_or_default();
        Some(Key::Paste(text_of(&paste)))
    }
}

/// The text of a paste, with the line ends of a message.
fn text_of(paste: &[u8]) -> String {
    String::from_utf8_lossy(paste).replace("\r\n", "\n").replace('\r', "\n")
}

fn find(bytes: &[u8]) -> Found {
    match bytes {
        [] | [ESC] => Found::More,
        // F1 to F5 of the Linux console.
        [ESC, b'[', b'[', rest @ ..] => match rest {
            [] => Found::More,
            [..] => Found::Key(4, None),
        },
        [ESC, b'[', rest @ ..] => csi(rest),
        [ESC, b'O', rest @ ..] => match rest {
            [] => Found::More,
            // An arrow with Ctrl, as rxvt sends it.
            [last @ b'a'..=b'd', ..] => Found::Key(3, arrow(last.to_ascii_uppercase(), 4)),
            [last, ..] => Found::Key(3, arrow(*last, 0)),
        },
        // Alone it may still be Alt and a key.
        [ESC, b']' | b'P' | b'X' | b'^' | b'_'] => Found::More,
        [ESC, b']' | b'P' | b'X' | b'^' | b'_', ..] => Found::Answer,
        [ESC, ESC] => Found::More,
        // A key with Alt, as some terminals send it.
        [ESC, ESC, b'[' | b'O', ..] => match find(bytes.get(1..).unwrap_or_default()) {
            Found::Key(bytes, Some(key)) => Found::Key(1 + bytes, Some(with_alt(key))),
            Found::More => Found::More,
            Found::Key(..) | Found::Answer => Found::Key(1, Some(Key::Escape)),
        },
        // Esc typed twice, or before something else.
        [ESC, ESC, ..] => Found::Key(1, Some(Key::Escape)),
        [ESC, rest @ ..] => match character(rest) {
            Some((length, c)) => Found::Key(1 + length, alt(c)),
            None => Found::More,
        },
        [first, ..] if *first < 0x20 || *first == 0x7F => Found::Key(1, control(*first)),
        _ => match character(bytes) {
            Some((length, c)) => Found::Key(length, Some(Key::Char(c))),
            None => Found::More,
        },
    }
}

fn control(byte: u8) -> Option<Key> {
    Some(match byte {
        b'\r' => Key::Enter,
        b'\t' => Key::Tab,
        0x08 | 0x7F => Key::Backspace,
        1..=26 => Key::Ctrl(char::from(byte - 1 + b'a')),
        _ => return None,
    })
}

fn alt(c: char) -> Option<Key> {
    Some(match c {
        '\r' => Key::Ctrl('j'),
        '\u{7F}' => Key::Ctrl('w'),
        c if c.is_control() => return None,
        c => Key::Alt(c.to_ascii_lowercase()),
    })
}

fn with_alt(key: Key) -> Key {
    match key {
        Key::Up => Key::AltUp,
        Key::Down => Key::AltDown,
        Key::Left => Key::WordLeft,
        Key::Right => Key::WordRight,
        key => key,
    }
}

/// The first character, whole; bytes that are none count as one.
fn character(bytes: &[u8]) -> Option<(usize, char)> {
    let longest = bytes.get(..4.min(bytes.len()))?;
    let (valid, error) = match str::from_utf8(longest) {
        Ok(text) => (text, None),
        Err(error) => {
            let valid = longest.get(..error.valid_up_to())?;
            (str::from_utf8(valid).ok()?, Some(error))
        }
    };
    match (valid.chars().next(), error.map(|error| error.error_len())) {
        (Some(c), _) => Some((c.len_utf8(), c)),
        (None, Some(Some(bad))) => Some((bad, char::REPLACEMENT_CHARACTER)),
        (None, _) => None,
    }
}

/// A sequence behind `ESC [`: numbers with semicolons, and a last byte that identifies it.
fn csi(rest: &[u8]) -> Found {
    let Some(end) = rest.iter().position(|byte| (0x40..=0x7E).contains(byte)) else {
        return Found::More;
    };
    let (parameters, last) = (rest.get(..end).unwrap_or_default(), rest.get(end).copied());
    let mut numbers = str::from_utf8(parameters).unwrap_or_default().split(';');
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok());
    let (first, modifiers) = (number(), number().unwrap_or(1).saturating_sub(1));
    let third = number();
    let key = match (last, first) {
        (Some(b'~'), Some(1 | 7)) => Some(Key::Home),
        (Some(b'~'), Some(4 | 8)) => Some(Key::End),
        (Some(b'~'), Some(3)) => Some(Key::Delete),
        (Some(b'~'), Some(5)) => Some(Key::PageUp),
        (Some(b'~'), Some(6)) => Some(Key::PageDown),
        // Enter, where a terminal reports Shift with it: by itself, or set up by its user.
        (Some(b'~'), Some(27)) if third == Some(13) => Some(enter(modifiers)),
        (Some(b'u'), Some(13)) => Some(enter(modifiers)),
        (Some(last), _) => arrow(last, modifiers),
        (None, _) => None,
    };
    Found::Key(2 + end + 1, key)
}

/// Enter; with Shift, Alt or Ctrl it begins another line.
fn enter(modifiers: u32) -> Key {
    if modifiers & (1 | 2 | 4) == 0 { Key::Enter } else { Key::Ctrl('j') }
}

/// An arrow and its like; `modifiers` are 1 Shift, 2 Alt, 4 Ctrl.
fn arrow(last: u8, modifiers: u32) -> Option<Key> {
    let key = match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'M' => Key::Enter,
        _ => return None,
    };
    Some(if modifiers & (2 | 4) == 0 { key } else { with_alt(key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a moment to count from")]
    fn now() -> Instant {
        Instant::now()
    }

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        keys.push(bytes, now());
        std::iter::from_fn(|| keys.next()).collect()
    }

    #[test]
    fn what_is_typed_comes_as_keys() {
        assert_eq!(keys("aя日".as_bytes()), [Key::Char('a'), Key::Char('я'), Key::Char('日')]);
        assert_eq!(
            keys(b"\r\n\t\x7f\x03"),
            [Key::Enter, Key::Ctrl('j'), Key::Tab, Key::Backspace, Key::Ctrl('c')]
        );
        assert_eq!(
            keys(b"\x1b[A\x1b[1;3B\x1b[5~\x1bOH\x1b[3~\x1b[1;5C"),
            [Key::Up, Key::AltDown, Key::PageUp, Key::Home, Key::Delete, Key::WordRight]
        );
        assert_eq!(
            keys(b"\x1bb\x1b[99;99Xz\xff!"),
            [Key::Alt('b'), Key::Char('z'), Key::Char(char::REPLACEMENT_CHARACTER), Key::Char('!')]
        );
    }

    #[test]
    fn keys_come_as_different_terminals_send_them() {
        // Alt-Up of xterm; of rxvt and of Terminal on macOS.
        assert_eq!(keys(b"\x1b[1;3A\x1b\x1b[A\x1b\x1bOA"), [Key::AltUp, Key::AltUp, Key::AltUp]);
        assert_eq!(keys(b"\x1b\x1b[5~\x1b\x1b[D"), [Key::PageUp, Key::WordLeft]);
        assert_eq!(keys(b"\x1b\x1bx"), [Key::Escape, Key::Alt('x')]);
        // Ctrl-Left of xterm and of rxvt.
        assert_eq!(keys(b"\x1b[1;5D\x1bOd"), [Key::WordLeft, Key::WordLeft]);
        // Esc before a paste stays one key.
        let paste = Key::Paste("a\n".to_owned());
        assert_eq!(keys(b"\x1b\x1b[200~a\r\x1b[201~"), [Key::Escape, paste]);
        // F1 and F5 of the Linux console.
        assert_eq!(keys(b"\x1b[[A\x1b[[Ea"), [Key::Char('a')]);
        // Alt-Enter everywhere, Shift-Enter of some, and Enter of those.
        assert_eq!(keys(b"\x1b\r\x1b[27;2;13~\x1b[13;2u"), vec![Key::Ctrl('j'); 3]);
        assert_eq!(keys(b"\x1b[13u\x1bOM"), [Key::Enter, Key::Enter]);
        assert_eq!(keys(b"\x1b[27;5;9~\x1b[97;5u"), []);
    }

    #[test]
    fn a_paste_is_one_text_whatever_is_in_it() {
        let pasted = b"x\x1b[200~one\r\ntwo\x1b[A\rthree\x1b[201~y";
        let text = Key::Paste("one\ntwo\u{1b}[A\nthree".to_owned());
        assert_eq!(keys(pasted), [Key::Char('x'), text, Key::Char('y')]);
        let mut long = PASTE_BEGINS.to_vec();
        long.extend(vec![b'x'; 2 * PASTE_BYTES_MAX]);
        long.extend(PASTE_ENDS);
        assert_eq!(keys(&long), [Key::Paste("x".repeat(PASTE_BYTES_MAX))]);
    }

    /// A hostile text holds no Ctrl-C that ends its paste.
    #[test]
    fn ctrl_c_after_a_pause_ends_a_paste_without_end() {
        let begun = now();
        let mut keys = Keys::default();
        keys.push(b"\x1b[200~one\rtw", begun);
        assert_eq!(keys.next(), None);
        keys.push(b"\x03", begun);
        assert_eq!(keys.next(), None);
        keys.push(b"o\x03/quit\r", begun + PASTE_PAUSE);
        assert_eq!(keys.next(), None);
        keys.push(b"\x03", begun + 2 * PASTE_PAUSE);
        let text = "one\ntw\u{3}o\u{3}/quit\n";
        assert_eq!(keys.next(), Some(Key::Paste(text.to_owned())));
        assert_eq!(keys.next(), Some(Key::Ctrl('c')));
        keys.push(b"x", begun + 2 * PASTE_PAUSE);
        assert_eq!(keys.next(), Some(Key::Char('x')));
    }

    #[test]
    fn answers_of_the_terminal_are_not_typed() {
        assert_eq!(keys(b"a\x1b]11;rgb:0000/1111/2222\x1b\\b"), [Key::Char('a'), Key::Char('b')]);
        assert_eq!(keys(b"\x1bP>|XTerm(380)\x1b\\c"), [Key::Char('c')]);
        assert_eq!(keys(b"\x1b]0;title\x07d\x1b[A"), [Key::Char('d'), Key::Up]);
        // It comes in parts, however long the pauses are.
        let mut late = Keys::default();
        for part in [&b"\x1b]11;rgb:00"[..], b"00/1111", b"/2222\x1b", b"\\"] {
            late.push(part, now());
            assert_eq!(late.next(), None, "{part:?}");
            assert_eq!(late.give_up_waiting(now() + REST_WAIT), None);
        }
        late.push(b"e", now());
        assert_eq!(late.next(), Some(Key::Char('e')));
        // One that never ends takes neither the keyboard nor memory.
        let mut endless = Keys::default();
        endless.push(b"\x1b]52;", now());
        endless.push(&vec![b'x'; ANSWER_BYTES_MAX], now());
        while endless.next().is_some() {}
        endless.push(b"\x03f", now());
        assert_eq!(endless.next(), Some(Key::Ctrl('c')));
        assert_eq!(endless.next(), Some(Key::Char('f')));
    }

    #[test]
    fn bytes_may_come_one_by_one() {
        let typed = "日\x1b[1;3A\x1b[200~a\x1b[201~\x1bb".as_bytes();
        let mut keys = Keys::default();
        let mut found = Vec::new();
        for byte in typed {
            keys.push(&[*byte], now());
            found.extend(std::iter::from_fn(|| keys.next()));
        }
        let paste = Key::Paste("a".to_owned());
        assert_eq!(found, [Key::Char('日'), Key::AltUp, paste, Key::Alt('b')]);
        assert!(keys.wait(now()).is_none());
    }

    #[test]
    fn esc_alone_is_a_key_when_nothing_follows() {
        let mut keys = Keys::default();
        keys.push(b"\x1b", now());
        assert_eq!(keys.next(), None);
        assert!(keys.wait(now()).is_some());
        assert_eq!(keys.give_up_waiting(now() + REST_WAIT), Some(Key::Escape));
        keys.push(b"\x1b\x1b", now());
        assert_eq!(keys.next(), None);
        assert_eq!(keys.give_up_waiting(now() + REST_WAIT), Some(Key::Escape));
        keys.push(b"\x1b[1", now());
        assert_eq!(keys.next(), None);
        assert_eq!(keys.give_up_waiting(now() + REST_WAIT), None);
        keys.push(b"\x1b[", now());
        keys.push(&[b'1'; 100], now());
        keys.push(b"a", now());
        assert_eq!(keys.next(), None);
    }

    /// Something else that happens meanwhile does not end the wait.
    #[test]
    fn the_rest_of_a_key_has_its_time() {
        let begun = now();
        let mut keys = Keys::default();
        assert_eq!(keys.wait(begun), None);
        keys.push(b"\x1b", begun);
        assert_eq!(keys.next(), None);
        let soon = begun + REST_WAIT / 2;
        assert_eq!(keys.wait(soon), Some(REST_WAIT / 2));
        assert_eq!(keys.give_up_waiting(soon), None);
        keys.push(b"[D", soon);
        assert_eq!(keys.next(), Some(Key::Left));
        assert_eq!(keys.give_up_waiting(begun + 2 * REST_WAIT), None);
    }

    #[test]
    fn no_bytes_make_it_stumble() {
        let mut seed = 1_u64;
        for _ in 0..2_000 {
            let mut keys = Keys::default();
            for _ in 0..20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let byte = (seed >> 33) as u8;
                keys.push(&[if byte > 200 { ESC } else { byte }], now());
                while keys.next().is_some() {}
            }
            assert!(keys.bytes.len() <= SEQUENCE_BYTES_MAX + 1);
        }
    }
}
