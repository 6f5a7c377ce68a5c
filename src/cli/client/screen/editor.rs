//! The line editor: edits by grapheme clusters, and has a history.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use super::super::text::{harmless, width};
use super::keys::Key;

/// Lines in the history, at most.
const HISTORY_MAX: usize = 200;
/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A text with a cursor.
#[derive(Default)]
pub(super) struct Editor {
    text: String,
    /// The cursor: a byte index between two characters.
    at: usize,
    history: VecDeque<String>,
    /// The shown line of the history, counted from the newest, and the typed text meanwhile.
    recalled: Option<(usize, String)>,
}

impl Editor {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text before the cursor.
    pub(super) fn before(&self) -> &str {
        self.text.get(..self.at).unwrap_or(&self.text)
    }

    fn after(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Inserts a text without control characters.
    pub(super) fn insert(&mut self, text: &str) {
        for c in text.chars() {
            let c = if c == '\t' { ' ' } else { c };
            let is_text = c == '\n' || !c.is_control();
            if is_text && self.text.len() + c.len_utf8() <= TEXT_BYTES_MAX {
                self.text.insert(self.at, c);
                self.at += c.len_utf8();
            }
        }
    }

    /// Replaces the last `bytes` before the cursor.
    pub(super) fn replace_before(&mut self, bytes: usize, text: &str) {
        self.remove_before(bytes);
        self.insert(text);
    }

    fn remove_before(&mut self, bytes: usize) {
        let from = self.at.saturating_sub(bytes);
        if self.text.is_char_boundary(from) {
            self.text.replace_range(from..self.at, "");
            self.at = from;
        }
    }

    fn last_before(&self) -> usize {
        self.before().graphemes(true).next_back().map_or(0, str::len)
    }

    fn first_after(&self) -> usize {
        self.after().graphemes(true).next().map_or(0, str::len)
    }

    /// Bytes from the cursor back to the beginning of a word.
    fn word_before(&self) -> usize {
        let before = self.before();
        let words = before.trim_end();
        let start = words.rfind(char::is_whitespace).map_or(0, |at| {
            at + words.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
        });
        before.len() - start
    }

    fn word_after(&self) -> usize {
        let after = self.after();
        let gap = after.len() - after.trim_start().len();
        let rest = after.trim_start();
        gap + rest.find(char::is_whitespace).unwrap_or(rest.len())
    }

    /// Applies a key, as shells do.
    pub(super) fn press(&mut self, key: Key) {
        match key {
            Key::Char(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            Key::Paste(text) => self.insert(&text),
            Key::Backspace => self.remove_before(self.last_before()),
            Key::Delete | Key::Ctrl('d') => {
                self.text.replace_range(self.at..self.at + self.first_after(), "");
            }
            Key::Left | Key::Ctrl('b') => self.at -= self.last_before(),
            Key::Right | Key::Ctrl('f') => self.at += self.first_after(),
            Key::WordLeft | Key::Alt('b') => self.at -= self.word_before(),
            Key::WordRight | Key::Alt('f') => self.at += self.word_after(),
            Key::Home | Key::Ctrl('a') => self.at = 0,
            Key::End | Key::Ctrl('e') => self.at = self.text.len(),
            Key::Ctrl('u') => self.remove_before(self.at),
            Key::Ctrl('k') => self.text.truncate(self.at),
            Key::Ctrl('w') => self.remove_before(self.word_before()),
            Key::Up => self.recall(false),
            Key::Down => self.recall(true),
            _ => {}
        }
    }

    /// Replaces the text, with the cursor at its end, and leaves the history.
    pub(super) fn set(&mut self, text: String) {
        self.text = text;
        self.at = self.text.len();
        self.recalled = None;
    }

    /// Removes the text and adds it to the history, unless it contains a secret; so too the typed
    /// text from which the history was entered.
    pub(super) fn take(&mut self, is_secret: fn(&str) -> bool) -> String {
        let text = std::mem::take(&mut self.text);
        self.at = 0;
        let draft = self.recalled.take().map(|(_, draft)| draft);
        for line in draft.iter().chain([&text]) {
            if !line.trim().is_empty() && self.history.front() != Some(line) && !is_secret(line) {
                self.history.push_front(line.clone());
                self.history.truncate(HISTORY_MAX);
            }
        }
        text
    }

    /// Removes the text without the history: it is a password.
    pub(super) fn take_secret(&mut self) -> String {
        self.at = 0;
        std::mem::take(&mut self.text)
    }

    /// Shows the previous line of the history, or with `is_newer` the next; the typed text is last.
    fn recall(&mut self, is_newer: bool) {
        let place = self.recalled.as_ref().map(|(place, _)| *place);
        let next = match (place, is_newer) {
            (None, true) => return,
            (None, false) => Some(0),
            (Some(0), true) => None,
            (Some(place), true) => Some(place - 1),
            (Some(place), false) => Some(place + 1),
        };
        match next {
            Some(place) => {
                let Some(line) = self.history.get(place) else { return };
                let draft = match self.recalled.take() {
                    Some((_, draft)) => draft,
                    None => std::mem::take(&mut self.text),
                };
                self.text = line.clone();
                self.recalled = Some((place, draft));
            }
            None => {
                self.text = self.recalled.take().map(|(_, draft)| draft).unwrap_or_default();
            }
        }
        self.at = self.text.len();
    }

    /// The part of the text that fits into `columns`, and the column of the cursor. The text is
    /// scrolled so that the cursor is visible.
    pub(super) fn view(&self, columns: usize) -> (String, usize) {
        let columns = columns.max(2);
        let before = harmless(self.before());
        let graphemes: Vec<&str> = before.graphemes(true).collect();
        let mut from = graphemes.len();
        let mut used = 0;
        while let Some(grapheme) = from.checked_sub(1).and_then(|at| graphemes.get(at)) {
            if used + width(grapheme) > columns - 1 {
                break;
            }
            used += width(grapheme);
            from -= 1;
        }
        let mut seen = graphemes.get(from..).unwrap_or_default().concat();
        let column = used;
        for grapheme in harmless(self.after()).graphemes(true) {
            if used + width(grapheme) > columns {
                break;
            }
            used += width(grapheme);
            seen.push_str(grapheme);
        }
        (seen, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        editor.insert(text);
        editor
    }

    #[test]
    fn what_people_see_as_one_character_is_one() {
        let mut editor = typed("a👩‍👩‍👧e\u{301}");
        editor.press(Key::Backspace);
        assert_eq!(editor.text(), "a👩‍👩‍👧");
        editor.press(Key::Left);
        editor.insert("b");
        editor.press(Key::Delete);
        assert_eq!(editor.text(), "ab");
        editor.press(Key::Delete);
        editor.press(Key::Right);
        editor.press(Key::Home);
        editor.press(Key::Left);
        editor.press(Key::Backspace);
        assert_eq!(editor.text(), "ab");
    }

    #[test]
    fn words_are_passed_and_killed() {
        let mut editor = typed("one  две\u{3000}three ");
        editor.press(Key::Ctrl('w'));
        assert_eq!(editor.text(), "one  две\u{3000}");
        editor.press(Key::WordLeft);
        editor.press(Key::WordLeft);
        assert_eq!(editor.before(), "");
        editor.press(Key::WordRight);
        assert_eq!(editor.before(), "one");
        editor.press(Key::Ctrl('k'));
        editor.insert("!\u{7}\t?\u{1b}");
        assert_eq!(editor.text(), "one! ?");
        editor.press(Key::Ctrl('u'));
        assert!(editor.is_empty());
    }

    #[test]
    fn what_was_typed_before_comes_back_and_the_draft_too() {
        let mut editor = typed("one");
        assert_eq!(editor.take(|_| false), "one");
        editor.insert("two");
        editor.take(|_| false);
        editor.insert("/join cellar tea");
        editor.take(|_| true);
        editor.insert("draft");
        editor.press(Key::Down);
        assert_eq!(editor.text(), "draft");
        for line in ["two", "one", "one"] {
            editor.press(Key::Up);
            assert_eq!(editor.text(), line);
        }
        editor.press(Key::Down);
        editor.press(Key::Down);
        assert_eq!(editor.text(), "draft");
        editor.set(String::new());
        editor.insert("secret");
        assert_eq!(editor.take_secret(), "secret");
        editor.press(Key::Up);
        assert_eq!(editor.text(), "two");
    }

    #[test]
    fn the_draft_is_kept_when_an_older_line_is_taken() {
        let mut editor = typed("one");
        editor.take(|_| false);
        editor.insert("draft");
        editor.press(Key::Up);
        assert_eq!(editor.take(|_| false), "one");
        for line in ["one", "draft", "one"] {
            editor.press(Key::Up);
            assert_eq!(editor.text(), line);
        }
    }

    #[test]
    fn the_place_is_always_seen() {
        let mut editor = typed("one two three 日本語");
        assert_eq!(editor.view(10), ("ee 日本語".to_owned(), 9));
        editor.press(Key::Home);
        assert_eq!(editor.view(10), ("one two th".to_owned(), 0));
        for _ in 0..20 {
            for columns in 2..12 {
                let (seen, column) = editor.view(columns);
                assert!(width(&seen) <= columns && column < columns);
            }
            editor.press(Key::Right);
        }
        assert_eq!(typed("a\nb").view(9).0, "a⏎b");
    }

    #[test]
    fn a_text_has_a_bound() {
        let mut editor = typed(&"x".repeat(2 * TEXT_BYTES_MAX));
        assert_eq!(editor.text().len(), TEXT_BYTES_MAX);
        editor.insert("я");
        assert_eq!(editor.text().len(), TEXT_BYTES_MAX);
    }
}
