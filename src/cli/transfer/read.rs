//! Reading an exported chat: each line is checked before any of it enters the data file.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use vestnik::auth::password;
use vestnik::config::CONTENT_LIMIT_BYTES_MAX;
use vestnik::ids::{MessageId, ServerTime};
use vestnik::limits::{
    EMOJI_BYTES_MAX, FILE_CHUNK_BYTES, FILE_NAME_BYTES_MAX, MESSAGE_FILES_MAX, TITLE_CHARS_MAX,
};
use vestnik::names::{Name, is_file_name, is_media_type};
use vestnik::wire::base64;
use vestnik::wire::codec::{STATUS_DELETED, STATUS_EDITED};

use super::super::failure::Failure;
use super::super::output;
use super::export::hex;
use super::line::{
    ChatLine, FORMAT, FORMAT_MIN, FileLine, Line, MemberLine, MessageLine, ReactionLine,
};

/// Longer than any line that is written: a content of escapes alone, and what is around it.
const LINE_BYTES_MAX: u64 = 6 * CONTENT_LIMIT_BYTES_MAX as u64 + 4096;

/// Lines that stand for the files of one message: names, sizes and what is around them.
const FILE_LINES_BYTES_MAX: usize = MESSAGE_FILES_MAX * (FILE_NAME_BYTES_MAX + 32);

/// The highest level of `notify`: no pushes.
const NOTIFY_MAX: u8 = 2;

/// What is known of an export once all of it was read.
pub(super) struct Summary {
    pub(super) chat: ChatLine,
    pub(super) members: Vec<MemberLine>,
    pub(super) banned: Vec<String>,
    /// All senders, each with the first line that names them.
    pub(super) senders: HashMap<String, u64>,
    /// Those of them that are bots.
    pub(super) bots: HashSet<String>,
    /// Of all messages, ascending.
    pub(super) ids: Vec<MessageId>,
    /// Those that are deleted, ascending.
    deleted: Vec<MessageId>,
    /// The latest time in the file.
    pub(super) latest: ServerTime,
    files: Files,
}

/// The files that came before the message that they belong to.
#[derive(Default)]
struct Files {
    message: i64,
    complete: usize,
    /// The one whose bytes come.
    current: Option<Current>,
}

struct Current {
    size: u64,
    bytes: u64,
    digest: Context,
}

impl Files {
    fn begin(&mut self, line: &FileLine<'_>, last: Option<MessageId>) -> Result<(), String> {
        if last.is_some_and(|last| last.created().micros() >= line.message) {
            return Err("is a file of a message that came before it".to_owned());
        }
        if line.message != self.message {
            *self = Self { message: line.message, ..Self::default() };
        }
        if self.complete == MESSAGE_FILES_MAX {
            return Err(format!("is one file more than the {MESSAGE_FILES_MAX} of a message"));
        }
        if !is_file_name(&line.name) || !is_media_type(&line.media_type) {
            return Err("has a name or a media type that cannot be one".to_owned());
        }
        if line.size == 0 || i64::try_from(line.size).is_err() {
            return Err(format!("has a size of {} bytes", line.size));
        }
        let digest = Context::new(&SHA256);
        self.current = Some(Current { size: line.size, bytes: 0, digest });
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let current = self.current.as_mut().ok_or("has bytes of no file")?;
        let bytes = decode(text)?;
        current.bytes += bytes.len() as u64;
        if current.bytes > current.size {
            return Err(format!("has more bytes than the {} of its file", current.size));
        }
        current.digest.update(&bytes);
        Ok(())
    }

    fn end(&mut self, sha256: &str) -> Result<(), String> {
        let current = self.current.take().ok_or("is a digest of no file")?;
        if current.bytes != current.size {
            let (size, bytes) = (current.size, current.bytes);
            return Err(format!("ends a file of {size} bytes, of which {bytes} came"));
        }
        if hex(current.digest.finish().as_ref()) != sha256 {
            return Err("is not the digest of the bytes that came".to_owned());
        }
        self.complete += 1;
        Ok(())
    }

    /// How many the message has, which comes now. That of a deleted one are of no use.
    fn of_message(&mut self, line: &MessageLine<'_>) -> Result<usize, String> {
        let files = std::mem::take(self);
        if files.message != line.id || line.deleted {
            return Ok(0);
        }
        match files.current {
            Some(_) => Err("has a file that was cut off".to_owned()),
            None => Ok(files.complete),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    base64::decode(text)
        .filter(|bytes| (1..=FILE_CHUNK_BYTES).contains(&bytes.len()))
        .ok_or_else(|| "has bytes that are not in base64, or too many or none".to_owned())
}

/// What some editors put before a text.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// An exported chat, which is read twice.
pub(super) struct Source {
    name: PathBuf,
    file: File,
}

impl Source {
    /// Opens a file, or standard input for `-`. What can be read only once, such as a pipe, is
    /// copied to a file without a name next to the database.
    pub(super) fn open(name: &Path, data: &Path) -> Result<Self, Failure> {
        let failed =
            |e| Failure::Failed(format!("cannot read {}: {}", name.display(), output::reason(&e)));
        let file = match name.to_str() {
            Some("-") => copy(&mut io::stdin().lock(), data).map_err(failed)?,
            _ => {
                let mut file = File::open(name).map_err(failed)?;
                let is_regular = file.metadata().map_err(failed)?.is_file();
                if is_regular { file } else { copy(&mut file, data).map_err(failed)? }
            }
        };
        Ok(Self { name: name.to_owned(), file })
    }
}

/// Copies all of a stream to a file that only this process has.
fn copy(stream: &mut dyn Read, data: &Path) -> io::Result<File> {
    let mut name = data.as_os_str().to_owned();
    name.push(format!(".import-{}", std::process::id()));
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true);
    let mut file = std::os::unix::fs::OpenOptionsExt::mode(options, 0o600).open(&name)?;
    std::fs::remove_file(&name)?;
    io::copy(stream, &mut file)?;
    Ok(file)
}

/// Calls `each` with each line and its number, until it fails.
fn lines(
    source: &Source,
    mut each: impl FnMut(u64, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let cannot = |e: io::Error| {
        Failure::Failed(format!("cannot read {}: {}", source.name.display(), output::reason(&e)))
    };
    let mut file = &source.file;
    file.rewind().map_err(cannot)?;
    let mut file = BufReader::new(file);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        (&mut file).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(cannot)?;
        if bytes.is_empty() {
            break;
        }
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 == LINE_BYTES_MAX {
            return Err(wrong(source, number, "is too long for any line of an exported chat"));
        }
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| wrong(source, number, "is not UTF-8"))?;
        let text = if number == 1 { text.trim_start_matches(BYTE_ORDER_MARK) } else { text };
        each(number, text.trim_end())?;
    }
    Ok(())
}

fn wrong(source: &Source, line: u64, words: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: line {line} {words}", source.name.display()))
}

/// Checks all lines. `now` is the latest time that a message can be of.
pub(super) fn check(source: &Source, now: ServerTime) -> Result<Summary, Failure> {
    let mut found: Option<Summary> = None;
    let mut ended = false;
    lines(source, |number, text| {
        let line = parse(text).map_err(|words| wrong(source, number, words))?;
        let checked = if ended {
            Err("comes after the end".to_owned())
        } else {
            match (&mut found, line) {
                (None, Line::Chat(chat)) => begin(chat, now).map(|summary| found = Some(summary)),
                (None, _) => Err("is not the chat, which comes first".to_owned()),
                (Some(summary), line) => add(summary, number, line, now).map(|end| ended = end),
            }
        };
        checked.map_err(|words| wrong(source, number, words))
    })?;
    match found {
        Some(summary) if ended => Ok(summary),
        Some(_) => Err(Failure::Failed(format!("{}: its end is missing", source.name.display()))),
        None => Err(Failure::Failed(format!("{}: it is empty", source.name.display()))),
    }
}

fn parse(text: &str) -> Result<Line<'_>, String> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let what = error.to_string();
            // The line that serde counts is always the first.
            let what = what.split(" at line ").next().unwrap_or_default().replace('`', "\"");
            format!("is not one of an exported chat: {what}")
        }
        _ if serde_json::from_str::<serde_json::Value>(text).is_ok() => {
            "is not one of an exported chat: name a file that 'vestnik export' wrote".to_owned()
        }
        _ => "is not JSON: name a file that 'vestnik export' wrote".to_owned(),
    })
}

fn begin(chat: ChatLine, now: ServerTime) -> Result<Summary, String> {
    if !(FORMAT_MIN..=FORMAT).contains(&chat.format) {
        let words = format!("this vestnik reads {FORMAT_MIN} to {FORMAT}");
        return Err(format!("has format {}, and {words}", chat.format));
    }
    if chat.title.chars().count() > TITLE_CHARS_MAX || chat.title.contains('\0') {
        return Err("has a title that cannot be one".to_owned());
    }
    if chat.slow_mode_s > 86_400 || chat.keep_days > 36_500 {
        return Err("has a slow mode or days to keep that are out of bounds".to_owned());
    }
    let is_stored = |stored: &String| password::rounds(stored).is_some();
    if chat.password_hash.as_ref().is_some_and(|stored| !chat.password || !is_stored(stored)) {
        return Err("has the hash of a password that none can match".to_owned());
    }
    if let Some([one, other]) = &chat.direct {
        let keys = (Name::parse_stored(one), Name::parse_stored(other));
        let are_two = matches!(&keys, (Ok(a), Ok(b)) if a.key() != b.key());
        if !are_two || !chat.name.is_empty() || chat.password || chat.closed {
            return Err("is a direct chat, and not one of two users alone".to_owned());
        }
    }
    let latest = past(chat.created, now)?;
    Ok(Summary {
        chat,
        members: Vec::new(),
        banned: Vec::new(),
        senders: HashMap::new(),
        bots: HashSet::new(),
        ids: Vec::new(),
        deleted: Vec::new(),
        latest,
        files: Files::default(),
    })
}

/// One more line; true at the end.
fn add(
    summary: &mut Summary,
    number: u64,
    line: Line<'_>,
    now: ServerTime,
) -> Result<bool, String> {
    match line {
        Line::Chat(_) => return Err("is a second chat".to_owned()),
        Line::Member(member) => {
            past(member.joined, now)?;
            if member.seen < 0 {
                return Err("has a marker before all time".to_owned());
            }
            if member.notify > NOTIFY_MAX {
                return Err(format!("has a notify above {NOTIFY_MAX}"));
            }
            if let Some(two) = &summary.chat.direct
                && (member.admin || !two.contains(&member.name))
            {
                return Err("is a member that a direct chat cannot have".to_owned());
            }
            summary.members.push(member);
        }
        Line::Banned(_) if summary.chat.direct.is_some() => {
            return Err("keeps somebody out of a direct chat".to_owned());
        }
        Line::Banned(banned) => summary.banned.push(banned.name),
        Line::File(line) => {
            past(line.message, now)?;
            summary.files.begin(&line, summary.ids.last().copied())?;
            add_sender(summary, number, line.user, "user")?;
        }
        Line::Bytes(text) => summary.files.add(&text)?,
        Line::Sha256(text) => summary.files.end(&text)?,
        Line::Message(line) => {
            let files = summary.files.of_message(&line)?;
            let (id, updated) = check_line(&line, files, now)?;
            if summary.ids.last().is_some_and(|&last| last >= id) {
                return Err("does not come after the message before it".to_owned());
            }
            summary.ids.push(id);
            if line.deleted {
                summary.deleted.push(id);
            }
            summary.latest = summary.latest.max(updated);
            if line.bot && !summary.bots.contains(&*line.sender) {
                summary.bots.insert(line.sender.clone().into_owned());
            }
            add_sender(summary, number, line.sender, "sender")?;
        }
        Line::Reaction(line) => {
            check_reaction(summary, &line, now)?;
            add_sender(summary, number, line.user, "user")?;
        }
        Line::End(end) if end.messages == summary.ids.len() as u64 => return Ok(true),
        Line::End(end) => {
            return Err(format!("says {} messages, and {} came", end.messages, summary.ids.len()));
        }
    }
    Ok(false)
}

/// Notes a user whom a line names.
fn add_sender(
    summary: &mut Summary,
    number: u64,
    name: Cow<'_, str>,
    what: &str,
) -> Result<(), String> {
    if !summary.senders.contains_key(&*name) {
        Name::parse_stored(&name)
            .map_err(|bad| format!("has a {what} {name:?}, which is no name: {bad}"))?;
        summary.senders.insert(name.into_owned(), number);
    }
    Ok(())
}

/// A reaction to a message that came before.
fn check_reaction(
    summary: &mut Summary,
    line: &ReactionLine<'_>,
    now: ServerTime,
) -> Result<(), String> {
    let message = MessageId::at(past(line.message, now)?);
    if summary.ids.binary_search(&message).is_err() {
        return Err("is a reaction to no message that came before it".to_owned());
    }
    if summary.deleted.binary_search(&message).is_ok() {
        return Err("is a reaction to a message that is deleted".to_owned());
    }
    let (since, given) = (past(line.since, now)?, past(line.given, now)?);
    if since < message.created() || given < since {
        return Err("is a reaction from before its message or its emoji".to_owned());
    }
    let is_good = (1..=EMOJI_BYTES_MAX).contains(&line.emoji.len());
    if !is_good || line.emoji.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("has an emoji that cannot be one".to_owned());
    }
    summary.latest = summary.latest.max(given);
    Ok(())
}

/// A time that was given already.
fn past(micros: i64, now: ServerTime) -> Result<ServerTime, String> {
    ServerTime::new(micros)
        .filter(|time| *time <= now)
        .ok_or_else(|| format!("has the time {micros}, which is none or is yet to come"))
}

/// The id of a message with this many files, and when it was last changed.
fn check_line(
    line: &MessageLine<'_>,
    files: usize,
    now: ServerTime,
) -> Result<(MessageId, ServerTime), String> {
    let id = past(line.id, now)?;
    let updated = past(line.updated.unwrap_or(line.id), now)?;
    if id == ServerTime::ZERO || updated < id {
        return Err("has an id of 0, or was changed before it was made".to_owned());
    }
    if updated == id && (line.edited || line.deleted) {
        return Err("is edited or deleted, and has no time of that".to_owned());
    }
    if line.deleted != line.content.is_empty() && (line.deleted || files == 0) {
        return Err("has a content and is deleted, or has none and is not".to_owned());
    }
    if line.deleted && line.reply.is_some() {
        return Err("is deleted, and answers a message".to_owned());
    }
    if line.reply.is_some_and(|reply| reply <= 0 || reply >= line.id) {
        return Err("answers no message that came before it".to_owned());
    }
    let has_files = line.content.ends_with(" bytes]");
    let lines_bytes_max = if has_files { FILE_LINES_BYTES_MAX } else { 0 };
    if line.content.len() > CONTENT_LIMIT_BYTES_MAX + lines_bytes_max {
        return Err(format!("has a content of more than {CONTENT_LIMIT_BYTES_MAX} bytes"));
    }
    if line.content.contains('\0') {
        return Err("has a content with the character NUL, which ends a text".to_owned());
    }
    Ok((MessageId::at(id), updated))
}

/// A message of a file that was checked.
pub(super) struct Checked<'a> {
    pub(super) id: MessageId,
    pub(super) sender: &'a str,
    pub(super) updated: ServerTime,
    pub(super) status: u8,
    pub(super) content: &'a str,
    pub(super) reply: Option<MessageId>,
}

/// What messages and their files consist of.
pub(super) enum Entry<'a> {
    /// A file of the message that follows.
    File(&'a FileLine<'a>),
    /// The next bytes of it.
    Bytes(Vec<u8>),
    Message(&'a Checked<'a>),
}

/// Calls `each` with each message and each part of a file, until it fails. Checks again: the file
/// may have changed.
pub(super) fn messages(
    source: &Source,
    now: ServerTime,
    mut each: impl FnMut(&Entry<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut files = Files::default();
    lines(source, |number, text| {
        let wrong = |words| wrong(source, number, words);
        let line = match parse(text).map_err(wrong)? {
            Line::File(line) => {
                files.begin(&line, None).map_err(wrong)?;
                return each(&Entry::File(&line));
            }
            Line::Bytes(text) => {
                files.add(&text).map_err(wrong)?;
                return each(&Entry::Bytes(decode(&text).map_err(wrong)?));
            }
            Line::Sha256(text) => return files.end(&text).map_err(wrong),
            Line::Message(line) => line,
            _ => return Ok(()),
        };
        let files = files.of_message(&line).map_err(wrong)?;
        let checked = check_line(&line, files, now).map_err(wrong)?;
        let edited = if line.edited { STATUS_EDITED } else { 0 };
        let deleted = if line.deleted { STATUS_DELETED } else { 0 };
        each(&Entry::Message(&Checked {
            id: checked.0,
            sender: &line.sender,
            updated: checked.1,
            status: edited | deleted,
            content: &line.content,
            reply: line.reply.and_then(ServerTime::new).map(MessageId::at),
        }))
    })
}

/// Calls `each` with each reaction, until it fails.
pub(super) fn reactions(
    source: &Source,
    mut each: impl FnMut(&ReactionLine<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    lines(source, |number, text| {
        match parse(text).map_err(|words| wrong(source, number, words))? {
            Line::Reaction(line) => each(&line),
            _ => Ok(()),
        }
    })
}
