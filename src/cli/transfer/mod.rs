//! `vestnik export` and `vestnik import`: a chat as lines of JSON. `export` writes them; here they
//! come into a file.

mod export;
mod line;
mod read;

pub(super) use export::{ExportArguments, export};

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vestnik::auth::password::{Kind, nobody};
use vestnik::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use vestnik::limits::PASSWORD_ITERATIONS;
use vestnik::names::Name;
use vestnik::store::changes::Change;
use vestnik::store::extras::OldReaction;
use vestnik::store::files::FileState;
use vestnik::store::members::Member;
use vestnik::store::search::Unindexed;
use vestnik::store::{Database, Store};
use vestnik::wire::answer::USER_BOT;
use vestnik::wire::codec::{Message, STATUS_DELETED};
use vestnik::wire::extras::{Extras, FileInfo};

use super::failure::Failure;
use super::file::{self, Stop};
use super::user::remove::add_removed;
use super::{Context, Outcome, chat, secret};
use line::FileLine;
use read::{Checked, Entry, Source, Summary};

/// Messages stored in one transaction, between which a running server writes.
const MESSAGES_PER_BATCH: usize = 500;
/// Between two looks whether the server has taken removed chats away.
const SWEEP_LOOK: Duration = Duration::from_millis(50);

/// What `import` takes.
#[derive(clap::Args)]
pub(super) struct ImportArguments {
    /// What `export` wrote; `-` for standard input
    file: PathBuf,
    /// Give the chat this name
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Add users that are missing, disabled, so that their messages have senders
    #[arg(long)]
    add_users: bool,
    /// Ask on the terminal for the password that the chat is to have
    #[arg(long, conflicts_with = "password_stdin")]
    ask_password: bool,
    /// Let everybody join, also when the chat had a password
    #[arg(long, conflicts_with_all = ["ask_password", "password_stdin"])]
    no_password: bool,
    #[command(flatten)]
    password: secret::Arguments,
}

pub(super) fn import(arguments: &ImportArguments, context: &mut Context<'_>) -> Outcome {
    // Server time may be ahead of the clock, and so may what it has written.
    let now =
        file::look(&context.data, |store| Ok(file::trusted_now(store)?.max(store.server_time()?)))?;
    let source = Source::open(&arguments.file, &context.data)?;
    let summary = read::check(&source, now)?;
    let name = Called::from(arguments, &summary)?;
    let password = password(arguments, &summary, context)?;
    let mut database = Database::open_command(&context.data, false)?;
    database.checkpoint_often().map_err(Failure::Failed)?;
    let _lock = lock(&context.data)?;
    let place = Place { data: &context.data, database: &database };
    file::look(place.data, |store| name.is_free(store))?;
    place.take_unfinished_away()?;
    wait_for_sweep(context)?;
    // Without holding the file, to which a running server writes.
    file::look(place.data, |store| {
        name.is_free(store)?;
        let known = store.any_of(&summary.ids)?;
        known.map_or(Ok(()), |(chat, message)| {
            let words = format!(
                "chat {chat} has the message {} already: imported before?",
                message.created().micros()
            );
            Err(Failure::Failed(words).into())
        })
    })?;
    let (chat, senders) = place.begin(&summary, arguments.add_users)?;
    let done = place
        .fill(&source, now, chat, &senders)
        .and_then(|()| place.finish(&summary, chat, &senders, &name, password.as_deref()));
    if let Err(failure) = done {
        // What cannot be taken away now, the next import takes away.
        let _ = place.take_unfinished_away().and_then(|()| chat::sweep(context));
        return Err(failure);
    }
    let count = summary.ids.len();
    match &name {
        Called::Group(name) => {
            writeln!(context.out, "added chat {} with id {chat} and {count} messages", name.text())?
        }
        Called::Direct([one, other]) => writeln!(
            context.out,
            "added the direct chat of {} and {} with id {chat} and {count} messages",
            place.name_now(&senders, one)?,
            place.name_now(&senders, other)?
        )?,
    }
    Ok(())
}

/// Keeps other imports away: each takes away what earlier ones have left. The lock is a file of its
/// own next to the data file, as that of the server is.
fn lock(data: &Path) -> Result<File, Failure> {
    let lock = vestnik::store::open::lock(data, ".import").map_err(Failure::Failed)?;
    lock.ok_or_else(|| Failure::Failed(format!("{}: another import goes on", data.display())))
}

/// Until nothing is left of removed chats, whose messages may be those that come back, nor of their
/// words in the index. The server takes them away; when none runs, this does.
fn wait_for_sweep(context: &Context<'_>) -> Outcome {
    while file::look(&context.data, |store| Ok(store.has_unswept()?))? {
        chat::sweep(context)?;
        std::thread::sleep(SWEEP_LOOK);
    }
    Ok(())
}

/// What the chat is found by.
enum Called {
    Group(Name),
    Direct([Name; 2]),
}

impl Called {
    fn from(arguments: &ImportArguments, summary: &Summary) -> Result<Self, Failure> {
        let Some([one, other]) = &summary.chat.direct else {
            let name = arguments.name.as_deref().unwrap_or(&summary.chat.name);
            return Ok(Self::Group(file::parse_group(name)?));
        };
        if arguments.name.is_some() {
            return Err(Failure::new("a direct chat has no name: leave out --as"));
        }
        Ok(Self::Direct([file::parse_stored(one)?, file::parse_stored(other)?]))
    }

    fn is_free(&self, store: &mut Store<'_>) -> Result<(), Stop> {
        match self {
            Self::Group(name) => name_is_free(store, name),
            // The removed account will be a new one.
            Self::Direct(two) if two.iter().any(Name::is_of_removed) => Ok(()),
            Self::Direct([one, other]) => {
                let one = store.user_id_by_key(one.key())?;
                let other = store.user_id_by_key(other.key())?;
                let (Some(one), Some(other)) = (one, other) else { return Ok(()) };
                match store.direct_chat(one, other)? {
                    None => Ok(()),
                    Some(_) => Err(Failure::new("the two have a direct chat already").into()),
                }
            }
        }
    }
}

/// The stored form of the password that the chat is to have.
fn password(
    arguments: &ImportArguments,
    summary: &Summary,
    context: &Context<'_>,
) -> Result<Option<String>, Failure> {
    if let Some(stored) = &summary.chat.password_hash
        && !arguments.no_password
        && !arguments.ask_password
        && !arguments.password.password_stdin
    {
        return Ok(Some(stored.clone()));
    }
    if arguments.ask_password || arguments.password.password_stdin {
        return arguments.password.ask_and_hash(Kind::Chat, &context.options).map(Some);
    }
    if summary.chat.password && !arguments.no_password {
        let words = "the chat had a password, which was not exported (--with-password does that): \
                     give it one with --ask-password or --password-stdin, or let everybody join \
                     with --no-password";
        return Err(Failure::new(words));
    }
    Ok(None)
}

fn name_is_free(store: &mut Store<'_>, name: &Name) -> Result<(), Stop> {
    match store.chat_by_key(name.key())? {
        None => Ok(()),
        Some(chat) => {
            let words = format!("there is a chat {:?} already: name another by --as", chat.name);
            Err(Failure::Failed(words).into())
        }
    }
}

/// The file that is imported into.
struct Place<'a> {
    data: &'a Path,
    database: &'a Database,
}

impl Place<'_> {
    /// Takes away what imports that failed or were killed have left.
    fn take_unfinished_away(&self) -> Outcome {
        file::write(self.data, self.database, |store| {
            for unfinished in store.unnamed_chats()? {
                store.remove_chat(unfinished)?;
                // A running server sweeps when it sees the change.
                store.note_change(Change::ChatRemoved(unfinished))?;
            }
            Ok(())
        })
    }

    /// Makes the chat, still without a name, and finds its senders.
    fn begin(
        &self,
        summary: &Summary,
        add_users: bool,
    ) -> Result<(ChatId, HashMap<String, UserId>), Failure> {
        file::write(self.data, self.database, |store| {
            let mut senders = HashMap::new();
            let two = summary.chat.direct.iter().flatten().map(|name| (name, &1));
            for (name, line) in two.chain(&summary.senders) {
                if senders.contains_key(name) {
                    continue;
                }
                let on_line = |failure| match failure {
                    Failure::Failed(message) => Failure::Failed(format!("line {line}: {message}")),
                    other => other,
                };
                let parsed = file::parse_stored(name).map_err(on_line)?;
                let user = match store.user_id_by_key(parsed.key())? {
                    // The account with this name is another, or even a user's.
                    _ if parsed.is_of_removed() => add_removed(store)?,
                    Some(user) => user,
                    None if add_users => {
                        let is_bot = summary.bots.contains(name);
                        add_user(store, &file::parse_login(name).map_err(on_line)?, is_bot)?
                    }
                    None => {
                        let words = format!(
                            "there is no user {name:?} of line {line}: add them, or have all who \
                             are missing added, disabled, by --add-users"
                        );
                        return Err(Failure::Failed(words).into());
                    }
                };
                senders.insert(name.clone(), user);
            }
            if store.server_time()? < summary.latest {
                file::move_server_time(store, summary.latest)?;
            }
            let created = ServerTime::new(summary.chat.created).unwrap_or_default();
            let chat = store.add_unnamed_chat(&nobody(PASSWORD_ITERATIONS), created)?;
            Ok((chat, senders))
        })
    }

    /// The name that somebody of a direct chat has here.
    fn name_now(&self, senders: &HashMap<String, UserId>, name: &Name) -> Result<String, Failure> {
        file::look(self.data, |store| {
            let user = match known(store, senders, name.text())? {
                Some(user) => store.user(user)?,
                None => None,
            };
            Ok(user.map_or_else(|| name.text().to_owned(), |user| user.nickname))
        })
    }

    /// Stores the messages, in batches that leave a running server half of the time.
    #[allow(clippy::disallowed_methods, reason = "how long a batch takes, no time of the server")]
    fn fill(
        &self,
        source: &Source,
        now: ServerTime,
        chat: ChatId,
        senders: &HashMap<String, UserId>,
    ) -> Outcome {
        let mut batch = Vec::with_capacity(MESSAGES_PER_BATCH);
        let mut files = Arrived::default();
        read::messages(source, now, |entry| {
            let begun = Instant::now();
            match entry {
                Entry::File(line) => files.begin(self, chat, line, senders)?,
                Entry::Bytes(bytes) => files.append(self, bytes)?,
                Entry::Message(message) => {
                    let of_it = files.take(self, message)?;
                    batch.push(Held::from(message, senders, of_it)?);
                    if batch.len() < MESSAGES_PER_BATCH {
                        return Ok(());
                    }
                    self.store(chat, &mut batch)?;
                }
            }
            std::thread::sleep(begun.elapsed());
            Ok(())
        })?;
        self.store(chat, &mut batch)?;
        files.remove(self)?;
        self.fill_reactions(source, chat, senders)
    }

    /// Stores the reactions, in batches as well.
    #[allow(clippy::disallowed_methods, reason = "how long a batch takes, no time of the server")]
    fn fill_reactions(
        &self,
        source: &Source,
        chat: ChatId,
        senders: &HashMap<String, UserId>,
    ) -> Outcome {
        let time = |micros| ServerTime::new(micros).ok_or_else(changed);
        let mut batch = Vec::new();
        let store = |batch: &mut Vec<OldReaction>| {
            let begun = Instant::now();
            file::write(self.data, self.database, |store| {
                is_there(store, chat)?;
                batch.drain(..).try_for_each(|old| Ok(store.add_old_reaction(chat, &old)?))
            })?;
            std::thread::sleep(begun.elapsed());
            Ok(())
        };
        read::reactions(source, |line| {
            batch.push(OldReaction {
                message: MessageId::at(time(line.message)?),
                user: *senders.get(&*line.user).ok_or_else(changed)?,
                emoji: line.emoji.clone().into_owned(),
                since: time(line.since)?,
                given: time(line.given)?,
            });
            if batch.len() < MESSAGES_PER_BATCH { Ok(()) } else { store(&mut batch) }
        })?;
        store(&mut batch)
    }

    fn store(&self, chat: ChatId, batch: &mut Vec<Held>) -> Outcome {
        file::write(self.data, self.database, |store| {
            is_there(store, chat)?;
            let mut unindexed = Vec::with_capacity(batch.len());
            for held in batch.drain(..) {
                store.add_old_message(chat, &held.message())?;
                let mut files = Vec::new();
                for id in &held.files {
                    let lost = || Failure::new("a file was taken away while it was imported");
                    files.push(store.file(*id)?.filter(FileState::is_complete).ok_or_else(lost)?);
                }
                store.attach_files(chat, held.id, &files)?;
                if let Some(reply) = held.reply {
                    store.add_reply(chat, held.id, reply)?;
                }
                if held.status & STATUS_DELETED == 0 {
                    unindexed.push(Unindexed { chat, message: held.id, content: held.content });
                }
            }
            // The server looks for new messages only where it has not been.
            Ok(store.index(&mut unindexed)?)
        })
    }

    /// Opens the chat to its members: all that are known here.
    fn finish(
        &self,
        summary: &Summary,
        chat: ChatId,
        senders: &HashMap<String, UserId>,
        name: &Called,
        password: Option<&str>,
    ) -> Outcome {
        file::write(self.data, self.database, |store| {
            name.is_free(store)?;
            is_there(store, chat)?;
            // Before the chat can be found by a name.
            store.set_chat_closed(chat, summary.chat.closed)?;
            match name {
                Called::Group(name) => store.rename_chat(chat, name.text(), name.key())?,
                Called::Direct(two) => make_direct(store, chat, senders, two)?,
            }
            store.set_chat_title(chat, &summary.chat.title)?;
            store.set_chat_password(chat, password)?;
            store.set_chat_policy(chat, summary.chat.slow_mode_s, summary.chat.keep_days)?;
            let mut has_admin_bot = false;
            for line in &summary.members {
                let Some(user) = known(store, senders, &line.name)? else { continue };
                if store.member(chat, user)?.is_some() {
                    continue;
                }
                let time = |micros| ServerTime::new(micros).unwrap_or_default();
                let (joined, seen) = (time(line.joined), time(line.seen));
                // A bot cannot log in: it would be an admin who can do nothing.
                let is_bot = store.is_bot(user)?;
                has_admin_bot |= line.admin && is_bot;
                let admin = line.admin && !is_bot;
                store.add_member(Member { chat, user, admin, joined, seen })?;
                store.set_notify_level(chat, user, line.notify)?;
                store.note_change(Change::MemberJoined(chat, user))?;
            }
            if has_admin_bot {
                // As when the bot had left: another member may have to become the admin.
                let now = file::at_least_server_time(store)?;
                store.settle_departure(chat, true, now)?;
            }
            for name in summary.chat.direct.iter().flatten() {
                let Some(user) = known(store, senders, name)? else { continue };
                if store.member(chat, user)?.is_none() {
                    let joined = ServerTime::new(summary.chat.created).unwrap_or_default();
                    let seen = ServerTime::ZERO;
                    store.add_member(Member { chat, user, admin: false, joined, seen })?;
                    store.note_change(Change::MemberJoined(chat, user))?;
                }
            }
            for name in &summary.banned {
                if let Some(user) = known(store, senders, name)? {
                    store.set_banned(chat, user, true)?;
                }
            }
            Ok(())
        })
    }
}

/// Who removes chats by hand may have removed this one.
fn is_there(store: &mut Store<'_>, chat: ChatId) -> Result<(), Stop> {
    match store.chat(chat)? {
        Some(_) => Ok(()),
        None => Err(Failure::new("the chat was taken away while it was filled").into()),
    }
}

/// Makes the chat that of two users; both are members of it, whatever members the export names.
fn make_direct(
    store: &mut Store<'_>,
    chat: ChatId,
    senders: &HashMap<String, UserId>,
    two: &[Name; 2],
) -> Result<(), Stop> {
    let mut users = Vec::new();
    for name in two {
        let user = known(store, senders, name.text())?;
        let gone = || Failure::Failed(format!("there is no user {:?} any more", name.text()));
        users.push(user.ok_or_else(gone)?);
    }
    if let [one, other] = users[..] {
        store.make_direct(chat, one, other)?;
    }
    Ok(())
}

/// The user of this name, if there is one; of a removed account, what the import has made of it.
fn known(
    store: &mut Store<'_>,
    senders: &HashMap<String, UserId>,
    name: &str,
) -> Result<Option<UserId>, Stop> {
    match Name::parse_stored(name) {
        Ok(parsed) if parsed.is_of_removed() => Ok(senders.get(name).copied()),
        Ok(name) => Ok(store.user_id_by_key(name.key())?),
        Err(_) => Ok(None),
    }
}

/// Somebody who wrote, and cannot log in until the operator lets them.
fn add_user(store: &mut Store<'_>, name: &Name, is_bot: bool) -> Result<UserId, Stop> {
    let stored = nobody(PASSWORD_ITERATIONS);
    let added = store.add_user(name.text(), name.key(), &stored, file::now())?;
    let taken = || Failure::Failed(format!("there is a user {:?} already", name.text()));
    let user = added.ok_or_else(taken)?;
    store.set_disabled(user, true)?;
    if is_bot {
        store.set_user_flag(user, USER_BOT, true)?;
    }
    Ok(user)
}

/// Files that came before the message that they belong to: uploads as yet, so that they are gone
/// with a chat that is not completed.
#[derive(Default)]
struct Arrived {
    message: i64,
    files: Vec<FileId>,
    stored: u64,
}

impl Arrived {
    fn begin(
        &mut self,
        place: &Place<'_>,
        chat: ChatId,
        line: &FileLine<'_>,
        senders: &HashMap<String, UserId>,
    ) -> Outcome {
        if self.message != line.message {
            self.remove(place)?;
        }
        let user = *senders.get(&*line.user).ok_or_else(changed)?;
        let new = FileInfo {
            id: FileId::MAX,
            size: line.size,
            width: line.width,
            height: line.height,
            media_type: &line.media_type,
            name: &line.name,
        };
        let id = file::write(place.data, place.database, |store| {
            is_there(store, chat)?;
            Ok(store.begin_file(chat, user, &new, file::now())?)
        })?;
        (self.message, self.stored) = (line.message, 0);
        self.files.push(id);
        Ok(())
    }

    fn append(&mut self, place: &Place<'_>, bytes: &[u8]) -> Outcome {
        let id = *self.files.last().ok_or_else(changed)?;
        file::write(place.data, place.database, |store| {
            Ok(store.append_file(id, self.stored, bytes, file::now())?)
        })?;
        self.stored += bytes.len() as u64;
        Ok(())
    }

    /// The files of this message; those of another, or of a deleted one, are taken away.
    fn take(&mut self, place: &Place<'_>, message: &Checked<'_>) -> Result<Vec<FileId>, Failure> {
        if self.message != message.id.created().micros() || message.status & STATUS_DELETED != 0 {
            self.remove(place)?;
        }
        Ok(std::mem::take(&mut self.files))
    }

    fn remove(&mut self, place: &Place<'_>) -> Outcome {
        if self.files.is_empty() {
            return Ok(());
        }
        file::write(place.data, place.database, |store| {
            for id in self.files.drain(..) {
                if let Some(file) = store.file(id)? {
                    store.remove_file(&file)?;
                }
            }
            Ok(())
        })
    }
}

fn changed() -> Failure {
    Failure::new("the file has changed while it was imported")
}

/// A message that waits for its batch.
struct Held {
    id: MessageId,
    sender: UserId,
    updated: ServerTime,
    status: u8,
    content: String,
    reply: Option<MessageId>,
    files: Vec<FileId>,
}

impl Held {
    fn from(
        message: &Checked<'_>,
        senders: &HashMap<String, UserId>,
        files: Vec<FileId>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            id: message.id,
            sender: *senders.get(message.sender).ok_or_else(changed)?,
            updated: message.updated,
            status: message.status,
            content: message.content.to_owned(),
            reply: message.reply,
            files,
        })
    }

    fn message(&self) -> Message<'_> {
        Message {
            id: self.id,
            sender: self.sender,
            created: self.id.created(),
            updated: self.updated,
            status: self.status,
            content: &self.content,
            extras: Extras::NONE,
        }
    }
}
