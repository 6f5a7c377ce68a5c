//! Output of commands: lists, times and questions.

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use serde::Serialize as _;
use serde_json::{Map, Value};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};
use unicode_width::UnicodeWidthStr;
use vestnik::ids::ServerTime;
pub(super) use vestnik::store::describe_io as reason;

use super::failure::Failure;

/// The replacement of control characters.
const INSTEAD: char = '\u{FFFD}';

/// The option of every command that lists or shows.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct Format {
    /// Print one JSON value
    #[arg(long)]
    pub(super) json: bool,
}

/// The option of every command that asks before it deletes.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct Consent {
    /// Do not ask; required when there is no terminal
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Asks for confirmation on the terminal. `loss` says what cannot be undone.
    pub(super) fn ask(self, loss: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::Usage(format!(
                "this {loss} for good, and there is no terminal to ask on; pass --yes to confirm"
            )));
        }
        let mut terminal = io::stderr();
        let loss: String = loss.chars().map(harmless_char).collect();
        write!(terminal, "This {loss} for good. Continue? [y/N] ")?;
        terminal.flush()?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|e| Failure::Failed(format!("cannot read the answer: {}", reason(&e))))?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new("nothing was changed")),
        }
    }
}

/// One value of a list: a cell of the table, and a typed value in JSON.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Text(String),
    Number(u64),
    Flag(bool),
    Time(ServerTime),
    /// `-` in the table, `null` in JSON.
    Nothing,
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => yes_no(*flag),
            Self::Time(at) => time(*at),
            Self::Nothing => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::Number(number) => Value::from(*number),
            Self::Flag(flag) => Value::from(*flag),
            Self::Time(at) => Value::from(time(*at)),
            Self::Nothing => Value::Null,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<ServerTime> for Cell {
    fn from(at: ServerTime) -> Self {
        Self::Time(at)
    }
}

/// Writes a list: a table, or a JSON array with one object per row, whose members have the names of
/// the columns in lower case.
pub(super) fn list<const N: usize>(
    out: &mut dyn Write,
    format: Format,
    heading: [&str; N],
    rows: &[[Cell; N]],
) -> io::Result<()> {
    if !format.json {
        let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(Cell::text)).collect();
        return table(out, heading, &rows);
    }
    let object = |row: &[Cell; N]| {
        let members = heading.iter().zip(row);
        let members = members.map(|(name, cell)| (member_name(name), cell.json()));
        Value::Object(members.collect::<Map<_, _>>())
    };
    json(out, &Value::Array(rows.iter().map(object).collect()))
}

/// Writes one JSON value on a line of its own.
pub(super) fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, PlainJson))?;
    out.write_all(b"\n")
}

/// Compact JSON in which no character acts on a terminal: those that [`harmless_char`] replaces
/// stand as escapes, which mean the same to every reader of JSON.
pub(super) struct PlainJson;

impl serde_json::ser::Formatter for PlainJson {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| acts_on_terminal(*c)) {
            let (before, after) = rest.split_at(at);
            write!(writer, "{before}")?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.get(c.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn acts_on_terminal(c: char) -> bool {
    /// Below it, most letters of most texts need no table.
    const TABLE_FROM: char = '\u{600}';
    match c {
        '\u{7F}'..='\u{9F}' => true,
        _ if c.is_ascii() => false,
        _ if c < TABLE_FROM => c == '\u{AD}',
        _ => harmless_char(c) != c,
    }
}

/// The JSON member of a column: `KEEP-DAYS` is `keep_days`.
fn member_name(heading: &str) -> String {
    heading.to_lowercase().replace('-', "_")
}

/// Writes rows under a heading, in columns. Only the last column may hold spaces, so that a script
/// can split a line at them. Titles come from users, and stay on their line.
fn table<const N: usize>(
    out: &mut dyn Write,
    heading: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut widths = heading.map(UnicodeWidthStr::width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = harmless(cell).width().max(*width);
        }
    }
    line(out, &heading, &widths)?;
    rows.iter().try_for_each(|row| line(out, &row.each_ref().map(String::as_str), &widths))
}

/// The character, or U+FFFD for one that moves the cursor, changes colours, turns the direction of
/// the text or hides: nothing that a user sends reaches a terminal as a command.
pub(super) fn harmless_char(c: char) -> char {
    match c {
        '\t' => ' ',
        // Joiners, which emoji and some scripts need, and signs that stand before numbers.
        '\u{200C}' | '\u{200D}' | '\u{600}'..='\u{605}' | '\u{6DD}' | '\u{70F}' => c,
        _ => match c.general_category() {
            GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::PrivateUse => INSTEAD,
            _ => c,
        },
    }
}

fn harmless(cell: &str) -> String {
    cell.chars().map(harmless_char).collect()
}

fn line<const N: usize>(
    out: &mut dyn Write,
    cells: &[&str; N],
    widths: &[usize; N],
) -> io::Result<()> {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let cell = harmless(cell);
        line.push_str(&cell);
        // Padding of the standard library counts characters, and some take two columns.
        line.push_str(&" ".repeat(width.saturating_sub(cell.width()) + 2));
    }
    writeln!(out, "{}", line.trim_end())
}

/// A time for people, in UTC: `2026-11-22T20:15:07Z`.
pub(super) fn time(time: ServerTime) -> String {
    let seconds = time.micros() / 1_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Counts from 0000-03-01, so that the leap day is the last of its year, in eras of 400 years,
/// which all have the same number of days.
fn date(days_since_1970: i64) -> (i64, i64, i64) {
    const DAYS_TO_1970: i64 = 719_468;
    const ERA_DAYS: i64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    // One leap day too many per 4 years, per 100 years one too few, and the era's own last day.
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days again and again.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// `yes` or `no`.
fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table_or_one_json_value() {
        let rows = [[Cell::from("a b"), Cell::Number(7), Cell::Nothing, Cell::from(true)]];
        let heading = ["NAME", "KEEP-DAYS", "BY", "OPEN"];
        let printed = |json| {
            let mut out = Vec::new();
            list(&mut out, Format { json }, heading, &rows).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(false), "NAME  KEEP-DAYS  BY  OPEN\na b   7          -   yes\n");
        let value: Value = serde_json::from_str(&printed(true)).unwrap();
        let expected = serde_json::json!([
            {"name": "a b", "keep_days": 7, "by": null, "open": true}
        ]);
        assert_eq!(value, expected);
    }

    #[test]
    fn columns_stand_below_each_other_in_every_script() {
        let row = |name: &str| [Cell::from(name), Cell::from("x")];
        let rows = [row("日本語"), row("e\u{301}a"), row("anna")];
        let mut out = Vec::new();
        list(&mut out, Format { json: false }, ["NAME", "BY"], &rows).unwrap();
        let shown = "NAME    BY\n日本語  x\ne\u{301}a      x\nanna    x\n";
        assert_eq!(String::from_utf8(out).unwrap(), shown);
    }

    #[test]
    fn nothing_in_json_acts_on_a_terminal() {
        let text =
            "a\u{9b}31mb \u{202e}c\u{2066} é \u{7f} \u{ad}\u{61c}\u{feff}\u{e0001} щ\u{200d}👍";
        let mut out = Vec::new();
        list(&mut out, Format { json: true }, ["TITLE"], &[[Cell::from(text)]]).unwrap();
        let json = String::from_utf8(out).unwrap();
        let escaped = "a\\u009b31mb \\u202ec\\u2066 é \\u007f \\u00ad\\u061c\\ufeff\\udb40\\udc01 щ\u{200d}👍";
        assert_eq!(json, format!("[{{\"title\":\"{escaped}\"}}]\n"));
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, serde_json::json!([{ "title": text }]));
    }

    #[test]
    fn a_reason_of_the_system_has_no_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(2)), "it does not exist");
        assert_eq!(reason(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(reason(&io::Error::other("Full")), "full");
    }

    #[test]
    fn times_are_written_in_utc() {
        let at = |seconds: i64| time(ServerTime::new(seconds * 1_000_000).unwrap());
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_378_507), "2026-11-22T20:15:07Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn days_follow_each_other() {
        let mut last = date(-1);
        assert_eq!(last, (1969, 12, 31));
        for day in 0..200_000 {
            let next = date(day);
            let (year, month, day) = next;
            let new_month = day == 1 && (28..=31).contains(&last.2);
            assert!(new_month || (year, month, day) == (last.0, last.1, last.2 + 1), "{next:?}");
            last = next;
        }
        assert_eq!(last, (2517, 7, 31));
    }

    #[test]
    fn columns_stand_under_each_other() {
        let mut out = Vec::new();
        let row = |name: &str, id: &str| [name.to_owned(), id.to_owned()];
        table(&mut out, ["NAME", "ID"], &[row("Анна-Мария", "1"), row("b", "22")]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME        ID\nАнна-Мария  1\nb           22\n");
    }

    #[test]
    fn nothing_in_a_cell_is_a_command_for_the_terminal() {
        let mut out = Vec::new();
        let row = ["a\u{1b}]0;b\u{7}\nroot\t\u{202e}".to_owned()];
        table(&mut out, ["TITLE"], &[row]).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TITLE\na\u{fffd}]0;b\u{fffd}\u{fffd}root \u{fffd}\n"
        );
    }
}
