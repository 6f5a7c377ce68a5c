//! The state of the screen: keys and news in, jobs out. Must not know the terminal.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use purpose::client::Event;
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, ServerTime, UserId};

use super::super::command::{self, Command, EMOJI, TABLE, Typed};
use super::super::controller::{Controller, Effect, Question};
use super::super::job::{Job, News};
use super::super::report;
use super::super::text::width;
use super::complete;
use super::draw::Drawn;
use super::editor::Editor;
use super::keys::Key;

/// Time for which a user is shown as typing after the last TYPING_NOTIFY.
const TYPING_SHOWN: Duration = Duration::from_secs(6);
/// Pause between two TYPING requests.
const TYPING_PAUSE: Duration = Duration::from_secs(4);
/// Notes, at most; the oldest are dropped.
const NOTES_MAX: usize = 500;

/// A note: a line of the client itself, at a position in the conversation.
pub(super) struct Note {
    pub(super) chat: Option<ChatId>,
    /// The newest message at that time.
    pub(super) after: Option<MessageId>,
    pub(super) lines: Vec<String>,
    pub(super) kind: NoteKind,
}

/// The style of a note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoteKind {
    Plain,
    Failure,
    /// The rows of a QR code, black on white.
    Qr,
}

/// The state of the screen.
pub(in super::super) struct Screen {
    pub(in super::super) controller: Controller,
    /// User and server, for the status line.
    pub(super) title: String,
    pub(super) editor: Editor,
    /// Drafts of the chats that are not open.
    pub(super) drafts: BTreeMap<ChatId, String>,
    /// The chat of the line in the editor.
    draft_chat: Option<ChatId>,
    /// The open question, and the typed answer.
    pub(super) question: Option<(Question, Editor)>,
    pub(super) notes: VecDeque<Note>,
    /// Scroll position: rows between the newest row and the last shown one.
    pub(super) scroll: usize,
    /// Columns and rows.
    pub(super) size: (usize, usize),
    typing: BTreeMap<(ChatId, UserId), Instant>,
    typing_sent: Option<Instant>,
    /// The read marker to send once the newest message is shown.
    unseen: Option<(ChatId, ServerTime)>,
    is_warned: bool,
    /// The reason of the end.
    pub(super) end: Option<Result<(), String>>,
    pub(super) logoff: bool,
    /// The rows of the conversation as they were last drawn.
    pub(super) drawn: RefCell<Option<Drawn>>,
}

impl Screen {
    pub(in super::super) fn new(
        controller: Controller,
        title: String,
        size: (usize, usize),
    ) -> Self {
        Self {
            controller,
            title,
            editor: Editor::default(),
            drafts: BTreeMap::new(),
            draft_chat: None,
            question: None,
            notes: VecDeque::new(),
            scroll: 0,
            size,
            typing: BTreeMap::new(),
            typing_sent: None,
            unseen: None,
            is_warned: false,
            end: None,
            logoff: false,
            drawn: RefCell::new(None),
        }
    }

    /// Handles news from the worker.
    pub(super) fn heard(&mut self, news: News, now: Instant) -> Vec<Job> {
        self.forget_rows();
        match &news {
            News::Event(Event::Typing { chat, user }) => {
                self.typing.insert((*chat, *user), now + TYPING_SHOWN);
            }
            News::Message(chat, message) => {
                self.typing.remove(&(*chat, message.sender));
            }
            News::Opened { chat, .. } if self.controller.model.open != Some(chat.id) => {
                self.scroll = 0
            }
            _ => {}
        }
        let effects = self.controller.heard(news);
        let jobs = self.act(effects);
        self.switch_draft();
        jobs
    }

    /// Swaps drafts when another chat was opened, so that Enter sends a line only to the chat for
    /// which it was typed.
    pub(super) fn switch_draft(&mut self) {
        let open = self.controller.model.open;
        if open == self.draft_chat {
            return;
        }
        let left = std::mem::replace(&mut self.draft_chat, open);
        let is_empty = self.editor.is_empty();
        match left {
            Some(chat) if !is_empty => _ = self.drafts.insert(chat, self.editor.text().to_owned()),
            // It was typed before any chat was open, so it belongs to this one.
            None if !is_empty => return,
            _ => {}
        }
        let draft = open.and_then(|chat| self.drafts.remove(&chat));
        self.editor.set(draft.unwrap_or_default());
        self.controller.as_of = None;
        self.note_beginning();
    }

    /// Applies an effect; returns the jobs for the worker.
    pub(super) fn act(&mut self, effects: Vec<Effect>) -> Vec<Job> {
        self.forget_rows();
        let mut jobs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Ask(Job::Quit { logoff }) => {
                    self.logoff = logoff;
                    self.end = Some(Ok(()));
                }
                Effect::Ask(Job::Seen { chat, time }) if self.scroll > 0 => {
                    self.unseen = Some((chat, time));
                }
                Effect::Ask(job) => jobs.push(job),
                // It is in the model and will be drawn; the scroll position stays.
                Effect::Message(message) => {
                    let is_newest =
                        self.controller.model.open_view().is_some_and(|view| {
                            view.messages.keys().next_back() == Some(&message.id)
                        });
                    if self.scroll > 0 && is_newest {
                        self.scroll += self.rows_of(&message);
                    }
                }
                // The frame shows it already.
                Effect::Changed(_) | Effect::Progress(_) => {}
                Effect::Qr(rows) => self.show_qr(rows),
                Effect::Note(lines) => self.note(lines, NoteKind::Plain),
                Effect::Failure(words) => self.note(vec![words], NoteKind::Failure),
                Effect::Question(question) => self.question = Some((question, Editor::default())),
                Effect::End(end) => self.end = self.end.take().or(Some(end)),
            }
        }
        jobs
    }

    /// Forgets the drawn conversation: something of it has changed.
    fn forget_rows(&mut self) {
        *self.drawn.get_mut() = None;
    }

    fn note(&mut self, lines: Vec<String>, kind: NoteKind) {
        self.forget_rows();
        let chat = self.controller.model.open;
        let after = self.controller.model.newest();
        self.notes.push_back(Note { chat, after, lines, kind });
        if self.notes.len() > NOTES_MAX {
            self.notes.pop_front();
        }
        self.scroll = 0;
    }

    /// Shows a QR code, if it fits.
    fn show_qr(&mut self, rows: Vec<String>) {
        let columns = rows.first().map_or(0, |row| width(row));
        // The lines with the link are below it.
        if rows.len() <= self.message_rows() && columns <= self.text_columns() {
            self.note(rows, NoteKind::Qr);
        } else {
            let words = "a QR code needs a larger window: make it larger, and ask again";
            self.note(vec![words.to_owned()], NoteKind::Failure);
        }
    }

    /// Handles a key.
    pub(super) fn pressed(&mut self, key: Key, now: Instant) -> Vec<Job> {
        // Enter and keys that change the chat may change anything; typing does not.
        if !matches!(key, Key::Char(_) | Key::Paste(_) | Key::PageUp | Key::PageDown) {
            self.forget_rows();
        }
        let jobs = if key == Key::Ctrl('c') {
            self.interrupt();
            Vec::new()
        } else {
            self.is_warned = false;
            if self.question.is_some() { self.answering(key) } else { self.typed(key, now) }
        };
        self.switch_draft();
        self.note_beginning();
        jobs
    }

    /// Notes the newest message when a line is begun: `/reply` does not refer to later ones.
    fn note_beginning(&mut self) {
        if self.editor.is_empty() {
            self.controller.as_of = None;
        } else if self.controller.as_of.is_none() {
            self.controller.as_of = self.controller.model.newest();
        }
    }

    /// The target message of the typed command, for the status line.
    pub(super) fn aim(&self) -> Option<String> {
        let target = command::aim(self.editor.text())?;
        let message = self.controller.target(&target).ok()?;
        Some(format!("to {}", self.controller.model.answered(message)))
    }

    fn typed(&mut self, key: Key, now: Instant) -> Vec<Job> {
        match key {
            Key::Enter => return self.enter(),
            Key::Ctrl('d') if self.editor.is_empty() => self.leave(),
            Key::Tab => return self.tab(),
            Key::PageUp => return self.scroll_up(),
            Key::PageDown => return self.scroll_down(),
            Key::Ctrl('n') | Key::AltDown => return self.step(true),
            Key::Ctrl('p') | Key::AltUp => return self.step(false),
            Key::Escape => _ = self.editor.take(holds_password),
            Key::Ctrl('j') => self.editor.insert("\n"),
            Key::Char(_) | Key::Paste(_) => {
                self.editor.press(key);
                return self.send_typing(now);
            }
            key => self.editor.press(key),
        }
        Vec::new()
    }

    /// Ctrl-C: cancels the question, or clears the typed line, which the history keeps; with
    /// neither, quits.
    fn interrupt(&mut self) {
        if self.question.take().is_some() {
            return;
        }
        if self.editor.is_empty() {
            self.leave();
        } else {
            self.editor.take(holds_password);
        }
    }

    /// Quits; with unsent messages or transfers only at a second Ctrl-C.
    fn leave(&mut self) {
        let unsent = self.controller.unsent.len();
        let is_saving = self.controller.transfers.iter().any(|transfer| !transfer.is_upload);
        let words = match unsent {
            0 if is_saving => "a file is not saved".to_owned(),
            0 => String::new(),
            1 => "1 message is not sent".to_owned(),
            _ => format!("{unsent} messages are not sent"),
        };
        if words.is_empty() || std::mem::replace(&mut self.is_warned, true) {
            self.end = Some(Ok(()));
        } else {
            self.note(vec![format!("{words}: press Ctrl-C again to leave")], NoteKind::Failure);
        }
    }

    fn answering(&mut self, key: Key) -> Vec<Job> {
        let Some((question, mut editor)) = self.question.take() else { return Vec::new() };
        match key {
            Key::Escape => {}
            Key::Enter => {
                let effect = self.controller.answered(question, Secret::new(editor.take_secret()));
                return self.act(vec![effect]);
            }
            key => {
                editor.press(key);
                self.question = Some((question, editor));
            }
        }
        Vec::new()
    }

    fn enter(&mut self) -> Vec<Job> {
        let line = self.editor.take(holds_password);
        self.typing_sent = None;
        self.scroll = 0;
        let effects = self.controller.typed(&line);
        let mut jobs = self.act(effects);
        jobs.extend(self.seen_now());
        jobs
    }

    /// What has been waiting to be seen is seen.
    fn seen_now(&mut self) -> Option<Job> {
        self.unseen.take().map(|(chat, time)| Job::Seen { chat, time })
    }

    fn send_typing(&mut self, now: Instant) -> Vec<Job> {
        let Some(chat) = self.controller.model.open else { return Vec::new() };
        let is_due = self.typing_sent.is_none_or(|sent| now >= sent + TYPING_PAUSE);
        if !is_due || self.editor.text().starts_with('/') || self.editor.is_empty() {
            return Vec::new();
        }
        self.typing_sent = Some(now);
        vec![Job::Typing(chat)]
    }

    fn scroll_up(&mut self) -> Vec<Job> {
        let page = self.message_rows().saturating_sub(2).max(1);
        let top = self.rows_in_all().saturating_sub(self.message_rows());
        self.scroll = (self.scroll + page).min(top);
        // Older messages are requested before the oldest loaded row is reached.
        if self.scroll + page >= top {
            let effects = self.controller.older().into_iter().collect();
            return self.act(effects);
        }
        Vec::new()
    }

    fn scroll_down(&mut self) -> Vec<Job> {
        let page = self.message_rows().saturating_sub(2).max(1);
        self.scroll_to(self.scroll.saturating_sub(page))
    }

    fn scroll_to(&mut self, scroll: usize) -> Vec<Job> {
        self.scroll = scroll;
        if scroll == 0 { self.seen_now().into_iter().collect() } else { Vec::new() }
    }

    /// Takes a new size of the screen, which may show all that was below it.
    pub(super) fn resize(&mut self, size: (usize, usize)) -> Vec<Job> {
        self.size = size;
        self.forget_rows();
        let top = self.rows_in_all().saturating_sub(self.message_rows());
        self.scroll_to(self.scroll.min(top))
    }

    /// Opens the next or previous chat of the list.
    fn step(&mut self, is_forward: bool) -> Vec<Job> {
        let listed: Vec<ChatId> =
            self.controller.model.listed().iter().map(|view| view.info.id).collect();
        let open = listed.iter().position(|&id| Some(id) == self.controller.model.open);
        let count = listed.len();
        let next = match (open, is_forward) {
            (Some(at), true) => (at + 1) % count,
            (Some(at), false) => (at + count - 1) % count,
            (None, _) => 0,
        };
        self.open(listed.get(next).copied())
    }

    fn open(&mut self, chat: Option<ChatId>) -> Vec<Job> {
        match chat.filter(|_| chat != self.controller.model.open) {
            Some(chat) => {
                self.unseen = None;
                self.scroll = 0;
                let effect = self.controller.show(chat);
                self.act(vec![effect])
            }
            None => Vec::new(),
        }
    }

    /// Opens a chat with unread messages, or completes the word before the cursor.
    fn tab(&mut self) -> Vec<Job> {
        if self.editor.is_empty() {
            let listed = self.controller.model.listed();
            let unread = listed.iter().find(|view| view.unread > 0).map(|view| view.info.id);
            return self.open(unread);
        }
        let before = self.editor.before();
        if let Some(typed) = before.strip_prefix("/send ") {
            if let Some(completed) = complete::path(typed) {
                self.editor.replace_before(typed.len(), &completed);
            }
            return Vec::new();
        }
        let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let Some(word) = before.get(start..).filter(|word| !word.is_empty()) else {
            return Vec::new();
        };
        let candidates = self.candidates(word, start == 0, before);
        if let Some(completed) = complete::common_beginning(&candidates) {
            let is_only = candidates.len() == 1;
            let end = match (is_only, start == 0 && !word.starts_with('/')) {
                (true, true) => ": ",
                (true, false) => " ",
                (false, _) => "",
            };
            self.editor.replace_before(word.len(), &format!("{completed}{end}"));
        }
        Vec::new()
    }

    /// Completions of a word: commands at the beginning, chats after some commands, members,
    /// senders of messages after `@`, and short names of emoji.
    fn candidates(&self, word: &str, is_first: bool, before: &str) -> Vec<String> {
        let beginning = word.to_lowercase();
        let fits = |name: &String| name.to_lowercase().starts_with(&beginning);
        let is_command = before.starts_with('/');
        if is_first && is_command {
            return TABLE.iter().map(|(name, ..)| format!("/{name}")).filter(fits).collect();
        }
        let model = &self.controller.model;
        let members = model.open_view().map(|view| view.members.as_slice()).unwrap_or_default();
        let others = members.iter().filter(|member| member.user != model.me);
        let mut names: Vec<String> = others.map(|member| member.nickname.clone()).collect();
        if before.starts_with("/react ") {
            names = EMOJI.iter().map(|(word, _)| (*word).to_owned()).collect();
        } else if is_command {
            names.extend(model.chats.values().map(|view| report::chat_name(&view.info)));
        }
        if is_command && word.starts_with('@') {
            names.extend(members.iter().map(|member| format!("@{}", member.nickname)));
        }
        names.retain(fits);
        names.sort();
        names.dedup();
        names
    }

    /// The users who are typing in the open chat.
    pub(super) fn typists(&self) -> Vec<String> {
        let Some(open) = self.controller.model.open else { return Vec::new() };
        let here = self.typing.keys().filter(|(chat, _)| *chat == open);
        here.map(|(_, user)| self.controller.model.name(*user)).collect()
    }

    /// Removes users who have stopped typing; returns when to check again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Duration> {
        self.typing.retain(|_, until| *until > now);
        let next = self.typing.values().min()?;
        Some(next.saturating_duration_since(now))
    }
}

/// Whether a line holds a password, which the history must not keep.
fn holds_password(line: &str) -> bool {
    command::parse(line).is_ok_and(|typed| {
        matches!(typed, Typed::Command(Command::Job(Job::Join { password: Some(_), .. })))
    })
}
