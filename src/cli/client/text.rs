//! Sanitising untrusted text for a terminal, text widths, and times.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;
use vestnik::ids::ServerTime;

use crate::cli::output::harmless_char;

/// The sign for a line break within one line.
const LINE_END: &str = "⏎";
/// The flags of England, Scotland and Wales: a black flag and invisible tags. No other tags pass,
/// since they could hide a text.
const TAGGED_FLAGS: [&str; 3] = [
    "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "🏴\u{e0067}\u{e0062}\u{e0077}\u{e006c}\u{e0073}\u{e007f}",
];

/// Sanitises text to one line, without characters that move the cursor, change colours or the text
/// direction, or are invisible.
pub(super) fn harmless(text: &str) -> String {
    without_commands(&text.replace('\n', LINE_END))
}

/// Sanitises text line by line.
pub(super) fn harmless_lines(text: &str) -> impl Iterator<Item = String> {
    text.split('\n').map(without_commands)
}

fn without_commands(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let flag = TAGGED_FLAGS.iter().find(|flag| c == '🏴' && rest.starts_with(**flag));
        match flag {
            Some(flag) => shown.push_str(flag),
            None => shown.push(harmless_char(c)),
        }
        rest = rest.get(flag.map_or(c.len_utf8(), |flag| flag.len())..).unwrap_or_default();
    }
    shown
}

/// The width of a text, in columns.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The longest prefix that fits into `columns`.
pub(super) fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        used += grapheme.width();
        if used > columns {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// Wraps one line into rows of at most `columns`, at spaces if possible. A word that is longer than
/// a row begins where it stands.
pub(super) fn wrap(line: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut rows = Vec::new();
    let mut row = String::new();
    for word in words(line) {
        let fits_a_row = width(word) <= columns;
        if fits_a_row && width(&row) + width(word) > columns && !row.is_empty() {
            rows.push(std::mem::take(&mut row));
        }
        if row.is_empty() && word == " " && !rows.is_empty() {
            continue;
        }
        for grapheme in word.graphemes(true) {
            if width(&row) + width(grapheme) > columns {
                rows.push(std::mem::take(&mut row));
            }
            row.push_str(grapheme);
        }
    }
    rows.push(row);
    rows
}

/// The words of a line and the separators; punctuation at the end of a word, and an opening sign
/// before it, stay with it.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let ends_word = |sign: &str| matches!(sign, "." | "," | ";" | ":" | "!" | "?" | ")" | "…");
    let mut rest = line;
    std::iter::from_fn(move || {
        let before_end = if rest.starts_with(['(', '[', '«', '„', '“']) { 2 } else { 1 };
        let mut bounds = rest.split_word_bound_indices().skip(before_end);
        let is_space = rest.starts_with(char::is_whitespace);
        let end = bounds.find(|(_, next)| is_space || !ends_word(next));
        let (word, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Formats times in a time zone.
pub(super) struct Clock(TimeZone);

impl Clock {
    /// The system's time zone, or UTC if it is unknown.
    pub(super) fn local() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    #[cfg(test)]
    pub(super) fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Hour, minute and second.
    pub(super) fn time(&self, time: ServerTime) -> String {
        self.format("%H:%M:%S", time)
    }

    /// Hour and minute.
    pub(super) fn short(&self, time: ServerTime) -> String {
        self.format("%H:%M", time)
    }

    /// The day.
    pub(super) fn day(&self, time: ServerTime) -> String {
        self.format("%Y-%m-%d", time)
    }

    /// The day, hour and minute.
    pub(super) fn minute(&self, time: ServerTime) -> String {
        self.format("%Y-%m-%d %H:%M", time)
    }

    /// The time, and the day unless it is that of `now`.
    pub(super) fn full(&self, time: ServerTime, now: ServerTime) -> String {
        let day = self.day(time);
        if day == self.day(now) { self.time(time) } else { format!("{day} {}", self.time(time)) }
    }

    fn format(&self, format: &str, time: ServerTime) -> String {
        // Times out of range come only from a hostile server.
        let stamp = Timestamp::from_microsecond(time.micros()).unwrap_or(Timestamp::MAX);
        stamp.to_zoned(self.0.clone()).strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let evil = "a\x1b[2J\x07\u{9b}31m\r\x7f\u{202e}b\u{2066}\u{2028}\u{feff}\u{e000}\u{200b}c";
        let shown = harmless(evil);
        assert_eq!(
            shown,
            "a\u{fffd}[2J\u{fffd}\u{fffd}31m".to_owned()
                + &"\u{fffd}".repeat(3)
                + "b"
                + &"\u{fffd}".repeat(5)
                + "c"
        );
        assert_eq!(harmless("one\ntwo\tthree"), "one⏎two three");
        assert_eq!(harmless_lines("one\ntwo\r").collect::<Vec<_>>(), ["one", "two\u{fffd}"]);
        assert_eq!(harmless("🏴\u{e0067}\u{e007f}"), "🏴\u{fffd}\u{fffd}");
        for flag in TAGGED_FLAGS {
            assert_eq!(harmless(&format!("a{flag}\u{e0067}")), format!("a{flag}\u{fffd}"));
            assert_eq!(width(flag), 2);
        }
        for good in ["Привет, мир!", "👩‍👩‍👧", "می‌خواهم", "日本語", "e\u{301}"]
        {
            assert_eq!(harmless(good), good);
        }
    }

    #[test]
    fn lines_break_at_spaces_and_by_what_they_take() {
        assert_eq!(wrap("one two three", 8), ["one two ", "three"]);
        assert_eq!(wrap("a: onetwothree", 6), ["a: one", "twothr", "ee"]);
        assert_eq!(wrap("x [onetwo, 3]", 8), ["x ", "[onetwo,", "3]"]);
        assert_eq!(wrap("onetwothree", 4), ["onet", "woth", "ree"]);
        assert_eq!(wrap("日本語です", 5), ["日本", "語で", "す"]);
        assert_eq!(wrap("one, two.", 8), ["one, ", "two."]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("x", 0), ["x"]);
        for columns in 2..20 {
            for row in wrap("Ein Satz, 日本語 und 👩‍👩‍👧 e\u{301}tc., longlonglonglong", columns)
            {
                assert!(width(&row) <= columns, "{row:?} in {columns}");
            }
        }
    }

    #[test]
    fn a_text_is_cut_between_what_people_see_as_characters() {
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!(cut("e\u{301}x", 1), "e\u{301}");
        assert_eq!(cut("abc", 9), "abc");
    }

    #[test]
    fn the_day_is_shown_when_it_is_not_today() {
        let clock = Clock::utc();
        let time = |seconds: i64| ServerTime::new(seconds * 1_000_000).unwrap();
        let then = time(1_795_378_507);
        assert_eq!(clock.full(then, then), "20:15:07");
        assert_eq!(clock.full(then, time(1_795_478_507)), "2026-11-22 20:15:07");
        assert_eq!(clock.short(then), "20:15");
        assert_eq!(clock.day(ServerTime::MAX), "9999-12-30");
    }
}
