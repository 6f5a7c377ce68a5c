//! `vestnik export`: writes a chat as lines of JSON. Knows nothing of how they are read.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Serialize as _;
use vestnik::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use vestnik::limits::FILE_CHUNK_BYTES;
use vestnik::store::Store;
use vestnik::store::chats::Chat;
use vestnik::store::users::User;
use vestnik::wire::answer::USER_BOT;
use vestnik::wire::base64;
use vestnik::wire::codec::{Message, STATUS_DELETED, STATUS_EDITED};
use vestnik::wire::extras::{FileInfo, put_file_lines};

use super::line::{
    BannedLine, ChatLine, EndLine, FORMAT, FileLine, Line, MemberLine, MessageLine, ReactionLine,
};
use crate::cli::failure::Failure;
use crate::cli::file::{self, Stop};
use crate::cli::{Context as Command, Outcome, output};

/// Members or banned read from the file at once.
const ROWS: u32 = 256;

/// What `export` takes.
#[derive(clap::Args)]
pub(in crate::cli) struct ExportArguments {
    /// The chat
    #[arg(required_unless_present = "direct")]
    name: Option<String>,
    /// The direct chat of these two users instead
    #[arg(long, num_args = 2, value_names = ["USER", "USER"], conflicts_with = "name")]
    direct: Option<Vec<String>>,
    /// Export the chat's password too: as the salted hash that is stored, at which anyone who has
    /// the export can guess
    #[arg(long)]
    with_password: bool,
    /// Leave out the bytes of files: each is a line behind the text of its message
    #[arg(long)]
    without_files: bool,
    /// Write to this file, which must not exist yet, and which only its owner can read; `-` for
    /// standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(in crate::cli) fn export(arguments: &ExportArguments, context: &mut Command<'_>) -> Outcome {
    // As `import` reads `-`.
    let Some(path) = arguments.output.as_deref().filter(|path| *path != Path::new("-")) else {
        return write_chat(&context.data, arguments, context.out).map(drop);
    };
    let cannot_for = |why: &str| Failure::Failed(format!("cannot write {}: {why}", path.display()));
    let cannot = |e: std::io::Error| cannot_for(&output::reason(&e));
    file::check_folder(path)?;
    let mut options = std::fs::OpenOptions::new();
    let target = options.write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let mut out = BufWriter::new(Target { file: target, failed: None });
    let written = write_chat(&context.data, arguments, &mut out).and_then(|count| {
        out.flush().and_then(|()| out.get_ref().file.sync_all()).map_err(cannot)?;
        Ok(count)
    });
    let count = written.map_err(|failure| {
        let _ = std::fs::remove_file(path);
        // Not a failure of standard output, for which it was taken on its way.
        out.get_ref().failed.as_deref().map_or(failure, cannot_for)
    })?;
    let what = match (&arguments.name, arguments.direct.as_deref()) {
        (_, Some([one, other])) => format!("the direct chat of {one} and {other}"),
        (name, _) => name.clone().unwrap_or_default(),
    };
    writeln!(context.out, "wrote {count} messages of {what} to {}", path.display())?;
    Ok(())
}

/// A file that keeps the reason why it could not be written.
struct Target {
    file: File,
    failed: Option<String>,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes).inspect_err(|e| self.failed = Some(output::reason(e)))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The chat that is asked for, and the names of the two whose direct chat it is.
fn asked_for(
    store: &mut Store<'_>,
    arguments: &ExportArguments,
) -> Result<(Chat, Option<[String; 2]>), Stop> {
    let Some([one, other]) = arguments.direct.as_deref() else {
        return Ok((file::chat(store, arguments.name.as_deref().unwrap_or_default())?, None));
    };
    let (one, other) = (file::user(store, one)?, file::user(store, other)?);
    match store.direct_chat(one.user, other.user)? {
        Some(chat) => Ok((chat, Some([one.nickname, other.nickname]))),
        None => {
            let words = format!("{} and {} have no direct chat", one.nickname, other.nickname);
            Err(Failure::Failed(words).into())
        }
    }
}

/// Bytes of lines that are read in one transaction. They are written when it has ended: a reader
/// that stalls must not keep the WAL from being checkpointed.
const SLICE_BYTES: usize = 256 * 1024;

/// Writes all lines, and returns the number of messages. Settings and people are those of the
/// beginning; messages and reactions come as they are when they are read, up to about that time,
/// and only those of users who were there.
fn write_chat(
    data: &Path,
    arguments: &ExportArguments,
    out: &mut dyn Write,
) -> Result<u64, Failure> {
    file::look(data, |store| {
        store.begin_look()?;
        let (chat, direct) = asked_for(store, arguments)?;
        let head = ChatLine {
            format: FORMAT,
            name: chat.name,
            direct,
            title: chat.title,
            password: chat.password.is_some(),
            password_hash: chat.password.filter(|_| arguments.with_password),
            created: chat.created.micros(),
            slow_mode_s: chat.slow_mode_s,
            keep_days: chat.keep_days,
            closed: chat.closed,
        };
        let mut slice = Vec::new();
        write_line(&mut slice, &Line::Chat(head))?;
        write_people(store, chat.chat, &mut slice)?;
        let users = store.users()?;
        let is_bot = |user: &&User| user.flags & USER_BOT != 0;
        let bots = users.iter().filter(is_bot).map(|user| user.user).collect();
        let names = users.into_iter().map(|user| (user.user, user.nickname)).collect();
        let last_user = store.highest_user_id()?;
        let last = MessageId::at(store.server_time()?.max(file::now()));
        let mut export = Export {
            chat: chat.chat,
            last,
            last_user,
            newest: None,
            names,
            bots,
            with_files: !arguments.without_files,
            left_out: store.files_left_out()?,
            count: 0,
            out,
        };
        export.write_messages(store, slice)?;
        export.write_reactions(store)?;
        let Export { count, out, .. } = export;
        write_line(out, &Line::End(EndLine { messages: count }))?;
        Ok(count)
    })
}

/// An export under way.
struct Export<'a> {
    chat: ChatId,
    /// Up to this message.
    last: MessageId,
    /// The last user who was there at the beginning.
    last_user: Option<UserId>,
    /// The last message written.
    newest: Option<MessageId>,
    names: HashMap<UserId, String>,
    bots: HashSet<UserId>,
    with_files: bool,
    /// The last file whose bytes a copy of the database has left out.
    left_out: Option<FileId>,
    /// Messages written.
    count: u64,
    out: &'a mut dyn Write,
}

/// A file whose bytes are to be written, as a line.
type ToWrite = (FileId, FileLine<'static>);

impl Export<'_> {
    /// Writes the messages behind what stands in `slice`, a slice in each transaction; the files of
    /// a message before it.
    fn write_messages(&mut self, store: &mut Store<'_>, mut slice: Vec<u8>) -> Result<(), Stop> {
        let mut next = Some(MessageId::at(ServerTime::ZERO));
        while let Some(from) = next {
            let (mut has_messages, mut files, mut written) = (false, Vec::new(), Ok(()));
            let mut is_past = false;
            next = store.messages_by_id(self.chat, from, self.last, |message| {
                if slice.len() >= SLICE_BYTES || written.is_err() {
                    return false;
                }
                // A user who came after the beginning: so did this message, and all behind it.
                is_past = self.name_of(message.sender).is_none();
                if is_past {
                    return false;
                }
                if self.has_bytes(message) {
                    if !has_messages {
                        files = self.files_of(message);
                    }
                    return false;
                }
                (has_messages, self.count) = (true, self.count + 1);
                self.newest = Some(message.id);
                written = write_line(&mut slice, &Line::Message(self.message_line(message, false)));
                true
            })?;
            if is_past {
                next = None;
            }
            let is_there = store.chat(self.chat)?.is_some();
            store.commit()?;
            written?;
            self.out.write_all(&slice).map_err(Failure::from)?;
            slice.clear();
            if !is_there {
                return Err(chat_removed().into());
            }
            if let Some(message) = next.filter(|_| !files.is_empty()) {
                self.write_files(store, &files)?;
                next = self.write_with_files(store, message)?;
            }
        }
        Ok(())
    }

    /// Whether files of the message are written before it.
    fn has_bytes(&self, message: &Message<'_>) -> bool {
        self.with_files && message.extras.files().any(|file| Some(file.id) > self.left_out)
    }

    fn files_of(&self, message: &Message<'_>) -> Vec<ToWrite> {
        let user = self.name_of(message.sender).unwrap_or(Cow::Borrowed("")).into_owned();
        let line = |file: FileInfo<'_>| FileLine {
            message: message.created.micros(),
            user: user.clone().into(),
            size: file.size,
            width: file.width,
            height: file.height,
            media_type: file.media_type.to_owned().into(),
            name: file.name.to_owned().into(),
        };
        message.extras.files().map(|file| (file.id, line(file))).collect()
    }

    /// Writes files, a part in each transaction. One that goes meanwhile has no last line.
    fn write_files(&mut self, store: &mut Store<'_>, files: &[ToWrite]) -> Result<(), Stop> {
        for (id, line) in files {
            let line = &Line::File(FileLine { ..line.clone() });
            write_line(self.out, line)?;
            let Line::File(FileLine { size, name, .. }) = line else { continue };
            let (mut offset, mut digest) = (0, Context::new(&SHA256));
            let mut bytes = Vec::new();
            while offset < *size {
                bytes.clear();
                let is_sound = store.read_file(*id, offset, FILE_CHUNK_BYTES, &mut bytes)?;
                store.commit()?;
                if !is_sound {
                    return Err(damaged(name).into());
                }
                if bytes.is_empty() {
                    // Its message was deleted meanwhile, or bytes are missing.
                    let is_there = store.file(*id)?.is_some();
                    store.commit()?;
                    if is_there {
                        return Err(damaged(name).into());
                    }
                    break;
                }
                digest.update(&bytes);
                offset += bytes.len() as u64;
                write_line(self.out, &Line::Bytes(base64::encode(&bytes).into()))?;
            }
            if offset == *size {
                write_line(self.out, &Line::Sha256(hex(digest.finish().as_ref()).into()))?;
            }
        }
        Ok(())
    }

    /// Writes a message whose files were written, as it is now; where to go on.
    fn write_with_files(
        &mut self,
        store: &mut Store<'_>,
        id: MessageId,
    ) -> Result<Option<MessageId>, Stop> {
        let mut line = Vec::new();
        let mut written = Ok(());
        store.messages_by_id(self.chat, id, id, |message| {
            written = write_line(&mut line, &Line::Message(self.message_line(message, true)));
            true
        })?;
        store.commit()?;
        written?;
        if !line.is_empty() {
            (self.count, self.newest) = (self.count + 1, Some(id));
        }
        self.out.write_all(&line).map_err(Failure::from)?;
        Ok(Some(MessageId::at(id.created().next())).filter(|next| *next <= self.last))
    }

    /// The name of a user; `None` if they came after the beginning. The row of another one may be
    /// lost: what they wrote is then that of a removed account.
    fn name_of(&self, user: UserId) -> Option<Cow<'_, str>> {
        match self.names.get(&user) {
            Some(name) => Some(name.into()),
            None if Some(user) > self.last_user => None,
            None => Some(format!("deleted-{user}").into()),
        }
    }

    fn message_line<'a>(&'a self, message: &'a Message<'_>, has_files: bool) -> MessageLine<'a> {
        MessageLine {
            id: message.created.micros(),
            sender: self.name_of(message.sender).unwrap_or(Cow::Borrowed("")),
            bot: self.bots.contains(&message.sender),
            updated: (message.updated != message.created).then(|| message.updated.micros()),
            edited: message.status & STATUS_EDITED != 0,
            deleted: message.status & STATUS_DELETED != 0,
            content: if has_files { message.content.into() } else { content_with_files(message) },
            reply: message.extras.reply().map(|id| id.created().micros()),
        }
    }

    /// Writes the reactions to the messages that were written, in slices.
    fn write_reactions(&mut self, store: &mut Store<'_>) -> Result<(), Stop> {
        let Some(newest) = self.newest else { return Ok(()) };
        let mut next = Some((MessageId::at(ServerTime::ZERO), ServerTime::ZERO));
        while let Some(from) = next.take() {
            let (mut slice, mut written) = (Vec::new(), Ok(()));
            store.all_reactions(self.chat, from, |reaction| {
                if reaction.message > newest || written.is_err() {
                    return false;
                }
                if slice.len() >= SLICE_BYTES {
                    next = Some((reaction.message, reaction.given));
                    return false;
                }
                // The user may have come after the beginning.
                let is_past = reaction.given > self.last.created();
                let Some(user) = self.name_of(reaction.user).filter(|_| !is_past) else {
                    return true;
                };
                let line = ReactionLine {
                    message: reaction.message.created().micros(),
                    user,
                    emoji: reaction.emoji.into(),
                    since: reaction.since.micros(),
                    given: reaction.given.micros(),
                };
                written = write_line(&mut slice, &Line::Reaction(line));
                true
            })?;
            let is_there = store.chat(self.chat)?.is_some();
            store.commit()?;
            written?;
            self.out.write_all(&slice).map_err(Failure::from)?;
            if !is_there {
                return Err(chat_removed().into());
            }
        }
        Ok(())
    }
}

/// Bytes as digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(name: &str) -> Failure {
    Failure::Failed(format!(
        "the file {name:?} is damaged, see `vestnik check`: delete its message, or export \
         --without-files"
    ))
}

fn chat_removed() -> Failure {
    Failure::new("the chat was removed while it was exported")
}

fn write_people(store: &mut Store<'_>, chat: ChatId, out: &mut dyn Write) -> Result<(), Stop> {
    let mut after = None;
    loop {
        let members = store.members(chat, after, ROWS)?;
        for (member, name) in &members {
            let line = MemberLine {
                name: name.clone(),
                admin: member.admin,
                joined: member.joined.micros(),
                seen: member.seen.micros(),
                notify: store.notify_level(chat, member.user)?,
            };
            write_line(out, &Line::Member(line))?;
        }
        after = members.last().map(|(member, _)| member.user);
        if members.len() < ROWS as usize {
            break;
        }
    }
    let mut after = None;
    loop {
        let banned = store.banned(chat, after, ROWS)?;
        for (_, name) in &banned {
            write_line(out, &Line::Banned(BannedLine { name: name.clone() }))?;
        }
        after = banned.last().map(|(user, _)| *user);
        if banned.len() < ROWS as usize {
            return Ok(());
        }
    }
}

/// The text, and a line for each file: their bytes stay where they are.
fn content_with_files<'a>(message: &'a Message<'_>) -> Cow<'a, str> {
    if message.extras.files().next().is_none() {
        return message.content.into();
    }
    let mut content = message.content.as_bytes().to_vec();
    put_file_lines(&mut content, message.extras, !message.content.is_empty());
    String::from_utf8_lossy(&content).into_owned().into()
}

fn write_line(out: &mut dyn Write, line: &Line<'_>) -> Result<(), Failure> {
    line.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, output::PlainJson))
        .map_err(|e| Failure::from(std::io::Error::from(e)))?;
    out.write_all(b"\n")?;
    Ok(())
}
