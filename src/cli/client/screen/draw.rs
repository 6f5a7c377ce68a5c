//! Draws the state of the screen to a frame. Pure functions: time zone and size are arguments.

use purpose::client::Message;
use vestnik::ids::{MessageId, UserId};

use super::super::controller::{Link, Unsent};
use super::super::model::ChatView;
use super::super::report::{self, shortened};
use super::super::text::{Clock, harmless, harmless_lines, width, wrap};
use super::frame::{Frame, Style};
use super::state::{Note, NoteKind, Screen};

/// Columns below which there is no list of chats.
const LIST_FROM_COLUMNS: usize = 60;
/// Columns of the list, at most.
const LIST_COLUMNS_MAX: usize = 24;
/// Columns that the name of the chat needs before the number of members is shown, at most.
const NAME_COLUMNS_MIN: usize = 12;
/// Columns of the time before a message.
const TIME_COLUMNS: usize = 6;

/// Columns of a file name in the status line, at most.
const NAME_COLUMNS_MAX: usize = 24;

/// A row of the conversation: texts with their styles, and its first column.
type Line = Vec<(Style, String)>;

/// Rows of the conversation, kept while nothing of it changes: wrapping thousands of rows at every
/// key is slow.
pub(super) struct Drawn {
    size: (usize, usize),
    /// The rows that were asked for.
    rows_min: usize,
    lines: Vec<Line>,
}

/// A message to draw, sent or not. Only its content is not sanitised yet.
struct Said<'a> {
    /// The time before it.
    mark: String,
    name: String,
    style: Style,
    answered: Option<MessageId>,
    content: &'a str,
    files: Vec<String>,
}

/// A row below the first of a message.
fn indented(style: Style, text: String) -> Line {
    vec![(Style::Plain, " ".repeat(TIME_COLUMNS)), (style, text)]
}

impl Screen {
    /// Columns of the list of chats, including its border.
    fn list_columns(&self) -> usize {
        let columns = self.size.0;
        if columns < LIST_FROM_COLUMNS { 0 } else { (columns / 4).min(LIST_COLUMNS_MAX) }
    }

    /// Rows for messages: all but the head, the status line and the input.
    pub(super) fn message_rows(&self) -> usize {
        self.size.1.saturating_sub(3)
    }

    pub(super) fn text_columns(&self) -> usize {
        self.size.0.saturating_sub(self.list_columns() + TIME_COLUMNS).max(8)
    }

    /// Rows that a message takes.
    pub(super) fn rows_of(&self, message: &Message) -> usize {
        self.message_lines(message, &Clock::local()).len()
    }

    /// Rows of all cached messages of the open chat.
    pub(super) fn rows_in_all(&self) -> usize {
        self.conversation(&Clock::local(), usize::MAX).len()
    }

    /// The whole screen.
    pub(super) fn draw(&self, clock: &Clock) -> Frame {
        let (columns, rows) = self.size;
        let mut frame = Frame::new(columns, rows);
        let left = self.list_columns();
        if rows >= 4 {
            if left > 0 {
                self.draw_list(&mut frame, left);
            }
            self.draw_head(&mut frame, left);
            self.draw_messages(&mut frame, left, clock);
            self.draw_status(&mut frame, rows - 2);
        }
        self.draw_input(&mut frame, rows.saturating_sub(1));
        frame
    }

    fn draw_list(&self, frame: &mut Frame, columns: usize) {
        let rows = self.size.1.saturating_sub(2);
        let listed = self.controller.model.listed();
        let open = listed.iter().position(|view| Some(view.info.id) == self.controller.model.open);
        // Scroll so that the open chat is visible.
        let first = open.unwrap_or(0).saturating_sub(rows.saturating_sub(1));
        for row in 0..rows {
            frame.put((columns - 1, row), columns, Style::Dim, "│");
            let Some(view) = listed.get(first + row) else { continue };
            let is_open = Some(view.info.id) == self.controller.model.open;
            let style = match (is_open, view.unread) {
                (true, _) => Style::Bar,
                (false, 0) => Style::Plain,
                (false, _) => Style::Bold,
            };
            if is_open {
                frame.fill((0, row), columns - 1, Style::Bar);
            }
            let unread = match view.unread {
                0 => String::new(),
                1000.. => "1000+".to_owned(),
                unread => unread.to_string(),
            };
            let here = self.controller.model.other_side(view).filter(|_| view.info.direct);
            let is_here = here.is_some_and(|user| self.controller.model.online.contains(&user));
            let end = columns.saturating_sub(2 + width(&unread));
            let name = report::chat_name(&view.info);
            let end_of_name = frame.put((0, row), end.saturating_sub(2), style, &name);
            if is_here {
                frame.put((end_of_name, row), end, style, " •");
            }
            frame.put((columns - 1 - width(&unread), row), columns - 1, style, &unread);
        }
    }

    fn draw_head(&self, frame: &mut Frame, left: usize) {
        let columns = self.size.0;
        frame.fill((left, 0), columns, Style::Bar);
        let Some(view) = self.controller.model.open_view() else {
            frame.put((left + 1, 0), columns, Style::Bar, "no chat is open");
            return;
        };
        let mut head = report::chat_name(&view.info);
        if !view.info.direct && !view.info.title.is_empty() {
            head.push_str(&format!(" — {}", harmless(&view.info.title)));
        }
        let mut people = self.people(view);
        // In a narrow window the name comes first.
        let name = width(&head).min(NAME_COLUMNS_MIN);
        if left + name + width(&people) + 3 > columns {
            people.clear();
        }
        let end = columns.saturating_sub(width(&people) + 2);
        frame.put((left + 1, 0), end, Style::Bar, &head);
        frame.put((end + 1, 0), columns, Style::Bar, &people);
    }

    fn people(&self, view: &ChatView) -> String {
        let online = &self.controller.model.online;
        if view.info.direct {
            let other = self.controller.model.other_side(view);
            let is_here = other.is_some_and(|other| online.contains(&other));
            return if is_here { "online" } else { "away" }.to_owned();
        }
        let members = view.members.iter().filter(|member| !member.banned);
        let here = members.filter(|member| online.contains(&member.user)).count();
        let people = if view.info.members == 1 { "member" } else { "members" };
        format!("{} {people}, {here} online", view.info.members)
    }

    fn draw_messages(&self, frame: &mut Frame, left: usize, clock: &Clock) {
        let rows = self.message_rows();
        let rows_min = rows + self.scroll;
        let mut drawn = self.drawn.borrow_mut();
        let drawn = match drawn
            .take()
            .filter(|drawn| drawn.size == self.size && drawn.rows_min >= rows_min)
        {
            Some(known) => drawn.insert(known),
            None => {
                let (size, lines) = (self.size, self.conversation(clock, rows_min));
                drawn.insert(Drawn { size, rows_min, lines })
            }
        };
        let lines = &drawn.lines;
        let end = lines.len().saturating_sub(self.scroll.min(lines.len().saturating_sub(rows)));
        let begin = end.saturating_sub(rows);
        let shown = lines.get(begin..end).unwrap_or_default();
        let hint = match self.controller.model.open_view() {
            None => "Ctrl-N opens a chat, /help lists commands",
            Some(view) if !view.is_loaded => "reading…",
            Some(_) => "",
        };
        frame.put((left + 1, 1), self.size.0, Style::Dim, hint);
        // The newest messages are at the bottom.
        let first = 1 + rows - shown.len();
        for (row, line) in shown.iter().enumerate() {
            let mut at = left;
            for (style, text) in line {
                at = frame.put((at, first + row), self.size.0, *style, text);
            }
        }
    }

    /// The last rows of the open chat, at least `rows_min` if there are as many: messages, notes in
    /// their places, and unsent messages.
    fn conversation(&self, clock: &Clock, rows_min: usize) -> Vec<Line> {
        let model = &self.controller.model;
        let mut blocks: Vec<Vec<Line>> = Vec::new();
        let mut rows = 0;
        let mut push = |block: Vec<Line>, rows: &mut usize| {
            *rows += block.len();
            blocks.push(block);
        };
        for unsent in self.controller.unsent.iter().rev().filter(|u| Some(u.chat) == model.open) {
            push(self.unsent_lines(unsent), &mut rows);
        }
        let mut notes = self.notes.iter().rev().filter(|note| note.chat == model.open).peekable();
        let messages = model.open_view().map(|view| &view.messages);
        let mut messages = messages.into_iter().flat_map(|m| m.values().rev()).peekable();
        while let Some(message) = messages.next() {
            while let Some(note) = notes.next_if(|note| note.after >= Some(message.id)) {
                push(self.note_lines(note), &mut rows);
            }
            push(self.message_lines(message, clock), &mut rows);
            let day = clock.day(message.created);
            if messages.peek().is_none_or(|older| clock.day(older.created) != day) {
                push(vec![vec![(Style::Dim, format!("── {day} ──"))]], &mut rows);
            }
            if rows >= rows_min {
                break;
            }
        }
        if messages.peek().is_none() {
            for note in notes {
                push(self.note_lines(note), &mut rows);
            }
        }
        blocks.into_iter().rev().flatten().collect()
    }

    fn message_lines(&self, message: &Message, clock: &Clock) -> Vec<Line> {
        let content = if message.deleted { "(deleted)" } else { message.content.as_str() };
        let said = Said {
            mark: clock.short(message.created),
            name: harmless(&self.controller.model.name(message.sender)),
            style: self.style_of(message.sender),
            answered: message.reply.filter(|_| !message.deleted),
            content,
            files: message.files.iter().map(report::file).collect(),
        };
        let mut rows = self.said_lines(&said);
        if let Some(last) = rows.last_mut().filter(|_| message.edited && !message.deleted) {
            last.push((Style::Dim, " (edited)".to_owned()));
        }
        if !message.reactions.is_empty() {
            let reactions = report::reactions(&message.reactions, self.controller.model.me);
            for row in wrap(&reactions, self.text_columns()) {
                rows.push(indented(Style::Plain, row));
            }
        }
        rows
    }

    /// What somebody said, or will have said: the name and the text behind it; where it answers
    /// another message, that stands behind the name and the text below; files below the text.
    fn said_lines(&self, said: &Said<'_>) -> Vec<Line> {
        let columns = self.text_columns();
        let mark = |text: &str| (Style::Dim, format!("{text:TIME_COLUMNS$}"));
        let mut rows: Vec<Line> = Vec::new();
        if let Some(message) = said.answered {
            let words = format!(" ↩ {}", self.controller.model.answered(message));
            let words = shortened(&words, columns.saturating_sub(width(&said.name)));
            let name = (said.style, said.name.clone());
            rows.push(vec![mark(&said.mark), name, (Style::Dim, words)]);
        }
        let texts = harmless_lines(said.content).map(|text| (Style::Plain, text));
        let texts = texts.filter(|(_, text)| !text.is_empty() || said.files.is_empty());
        let files = said.files.iter().map(|file| (Style::Bold, file.clone()));
        for (style, text) in texts.chain(files) {
            let is_first = rows.is_empty();
            let text = if is_first { format!("{}: {text}", said.name) } else { text };
            for row in wrap(&text, columns) {
                let name = row.strip_prefix(said.name.as_str()).filter(|_| rows.is_empty());
                rows.push(match name {
                    Some(rest) => vec![
                        mark(&said.mark),
                        (said.style, said.name.clone()),
                        (style, rest.to_owned()),
                    ],
                    None => vec![mark(if rows.is_empty() { &said.mark } else { "" }), (style, row)],
                });
            }
        }
        rows
    }

    fn style_of(&self, user: UserId) -> Style {
        if user == self.controller.model.me {
            Style::Bold
        } else {
            Style::Colour((user.get() % 6) as u8)
        }
    }

    fn unsent_lines(&self, unsent: &Unsent) -> Vec<Line> {
        let transfers = &self.controller.transfers;
        let progress = transfers.iter().find(|transfer| transfer.key == unsent.nonce);
        let file = match (&unsent.file, progress) {
            (Some(_), Some(progress)) => {
                Some(format!("[{}, {} %]", progress.name, progress.percent()))
            }
            (Some(path), None) => Some(format!("[{}]", harmless(path))),
            (None, _) => None,
        };
        let said = Said {
            mark: "…".to_owned(),
            name: harmless(&self.controller.model.my_name),
            style: Style::Dim,
            answered: unsent.reply,
            content: &unsent.content,
            files: file.into_iter().collect(),
        };
        let mut rows = self.said_lines(&said);
        rows.iter_mut().flatten().for_each(|(style, _)| *style = Style::Dim);
        rows
    }

    fn note_lines(&self, note: &Note) -> Vec<Line> {
        let style = match note.kind {
            NoteKind::Plain => Style::Dim,
            NoteKind::Failure => Style::Alarm,
            NoteKind::Qr => {
                return note.lines.iter().map(|row| indented(Style::Paper, row.clone())).collect();
            }
        };
        let mut rows = Vec::new();
        for line in &note.lines {
            for (number, row) in wrap(line, self.text_columns()).into_iter().enumerate() {
                let mark = if number == 0 { "--" } else { "" };
                rows.push(vec![(style, format!("{mark:TIME_COLUMNS$}{row}"))]);
            }
        }
        rows
    }

    fn draw_status(&self, frame: &mut Frame, row: usize) {
        let columns = self.size.0;
        frame.fill((0, row), columns, Style::Bar);
        let link = match &self.controller.link {
            Link::Connected => self.doing(),
            Link::Lost(why) => format!("not connected ({why}): trying again"),
        };
        let mut right = match self.typists().as_slice() {
            [] => String::new(),
            [one] => format!("{} is typing", harmless(one)),
            [one, two] => format!("{} and {} are typing", harmless(one), harmless(two)),
            _ => "several people are typing".to_owned(),
        };
        if let Some(aim) = self.aim() {
            right = shortened(&aim, columns / 2);
        } else if self.scroll > 0 {
            right = "more below: Page Down".to_owned();
        }
        let end = columns.saturating_sub(width(&right) + 2);
        frame.put((1, row), end, Style::Bar, &format!("{link}  {}", harmless(&self.title)));
        frame.put((end + 1, row), columns, Style::Bar, &right);
    }

    /// The status line while connected.
    fn doing(&self) -> String {
        match self.controller.transfers.as_slice() {
            [] if self.controller.unsent.is_empty() => "connected".to_owned(),
            [] => "sending".to_owned(),
            [one] => {
                let does = if one.is_upload { "sending" } else { "saving" };
                format!("{does} {} {} %", shortened(&one.name, NAME_COLUMNS_MAX), one.percent())
            }
            [first, rest @ ..] => {
                format!("{} files on their way, {} %", rest.len() + 1, first.percent())
            }
        }
    }

    fn draw_input(&self, frame: &mut Frame, row: usize) {
        let columns = self.size.0;
        if let Some((question, answer)) = &self.question {
            // The length of a password is not shown either.
            let typed = if answer.is_empty() { "" } else { "(not shown)" };
            let at = frame.put((0, row), columns, Style::Bold, &question.prompt());
            let at = frame.put((at, row), columns, Style::Dim, typed);
            frame.cursor = (at.min(columns.saturating_sub(1)), row);
            return;
        }
        let at = frame.put((0, row), columns, Style::Bold, "> ");
        let (text, column) = self.editor.view(columns.saturating_sub(at));
        frame.put((at, row), columns, Style::Plain, &text);
        frame.cursor = ((at + column).min(columns.saturating_sub(1)), row);
    }
}
