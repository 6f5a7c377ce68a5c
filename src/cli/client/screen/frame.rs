//! Frames: the content of the screen as values, and the bytes that update a terminal to the next.

use std::fmt::Write as _;

use super::super::text::{cut, width};

/// The style of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    Plain,
    Dim,
    Bold,
    /// Inverted.
    Bar,
    /// In one of six colours, bold.
    Colour(u8),
    /// An error.
    Alarm,
    /// Black on white, whatever the colours of the terminal.
    Paper,
}

/// A text at a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) at: usize,
    pub(super) style: Style,
    pub(super) text: String,
}

/// A frame: `columns` wide, with a row for each line. No text exceeds the width.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    columns: usize,
    rows: Vec<Vec<Span>>,
    /// The cursor: column and row.
    pub(super) cursor: (usize, usize),
}

impl Frame {
    pub(super) fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows: vec![Vec::new(); rows], cursor: (0, 0) }
    }

    /// Puts a text at a position, up to the column `end`; returns the column after it.
    pub(super) fn put(
        &mut self,
        (at, row): (usize, usize),
        end: usize,
        style: Style,
        text: &str,
    ) -> usize {
        let end = end.min(self.columns);
        let text = cut(text, end.saturating_sub(at));
        if let Some(row) = self.rows.get_mut(row).filter(|_| !text.is_empty() && at < end) {
            row.push(Span { at, style, text: text.to_owned() });
        }
        at + width(text)
    }

    /// A row filled with a style from a column on.
    pub(super) fn fill(&mut self, (at, row): (usize, usize), end: usize, style: Style) {
        let end = end.min(self.columns);
        self.put((at, row), end, style, &" ".repeat(end.saturating_sub(at)));
    }

    /// The rows as plain text, later texts over earlier ones.
    #[cfg(test)]
    pub(super) fn text(&self) -> Vec<String> {
        use unicode_segmentation::UnicodeSegmentation;
        let row = |spans: &Vec<Span>| {
            let mut cells = vec![" ".to_owned(); self.columns];
            for span in spans {
                let mut at = span.at;
                for grapheme in span.text.graphemes(true).filter(|shown| width(shown) > 0) {
                    cells[at] = grapheme.to_owned();
                    for covered in 1..width(grapheme) {
                        cells[at + covered] = String::new();
                    }
                    at += width(grapheme);
                }
            }
            cells.concat().trim_end().to_owned()
        };
        self.rows.iter().map(row).collect()
    }
}

/// The bytes that change a terminal from `shown` to `next`. Equal rows are not sent again.
pub(super) fn paint(shown: Option<&Frame>, next: &Frame, has_colours: bool) -> String {
    // As one synchronised update if the terminal supports it, with the cursor hidden.
    let mut out = "\x1b[?2026h\x1b[?25l".to_owned();
    let shown =
        shown.filter(|shown| shown.columns == next.columns && shown.rows.len() == next.rows.len());
    if shown.is_none() {
        out.push_str("\x1b[0m\x1b[2J");
    }
    for (row, spans) in next.rows.iter().enumerate() {
        if shown.and_then(|shown| shown.rows.get(row)) == Some(spans) {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "\x1b[{};1H\x1b[0m\x1b[2K", row + 1);
        for span in spans {
            let (row, column) = (row + 1, span.at + 1);
            let _ = write!(out, "\x1b[{row};{column}H{}", code(span.style, has_colours));
            out.push_str(&span.text);
        }
    }
    let (column, row) = next.cursor;
    let _ = write!(out, "\x1b[0m\x1b[{};{}H\x1b[?25h\x1b[?2026l", row + 1, column + 1);
    out
}

fn code(style: Style, has_colours: bool) -> String {
    match style {
        Style::Plain => "\x1b[0m".to_owned(),
        Style::Dim => "\x1b[0;2m".to_owned(),
        Style::Bold => "\x1b[0;1m".to_owned(),
        Style::Bar => "\x1b[0;7m".to_owned(),
        Style::Paper => "\x1b[0;30;107m".to_owned(),
        Style::Colour(colour) if has_colours => format!("\x1b[0;1;{}m", 31 + colour % 6),
        Style::Alarm if has_colours => "\x1b[0;31m".to_owned(),
        Style::Colour(_) | Style::Alarm => "\x1b[0;1m".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_over_the_edge() {
        let mut frame = Frame::new(6, 2);
        assert_eq!(frame.put((0, 0), 99, Style::Plain, "日本語です"), 6);
        assert_eq!(frame.put((4, 1), 5, Style::Bold, "xyz"), 5);
        frame.put((9, 1), 99, Style::Bold, "off");
        frame.put((0, 7), 99, Style::Bold, "off");
        assert_eq!(frame.text(), ["日本語", "    x"]);
    }

    #[test]
    fn only_rows_that_changed_are_painted() {
        let mut first = Frame::new(10, 3);
        first.put((0, 0), 10, Style::Bar, "head");
        first.put((0, 2), 10, Style::Plain, "old");
        let all = paint(None, &first, true);
        assert!(all.contains("\x1b[2J") && all.contains("head") && all.contains("old"));
        let mut next = first.clone();
        next.put((4, 2), 10, Style::Colour(1), "new");
        let some = paint(Some(&first), &next, true);
        assert!(!some.contains("\x1b[2J") && !some.contains("head"), "{some:?}");
        assert!(some.contains("\x1b[3;5H\x1b[0;1;32mnew"), "{some:?}");
        assert!(!paint(Some(&first), &next, false).contains("32m"));
        assert!(paint(Some(&next), &Frame::new(9, 3), true).contains("\x1b[2J"));
    }
}
