//! What a server answers, as values that own their text.

use std::fmt;

use super::error::Error;
use super::event::ReactionChange;
use super::people::Notify;
use crate::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
use crate::limits::{BODY_BYTES_MAX, CONTENT_BYTES_MAX, REACTION_USERS_SHOWN};
use crate::wire::Version;
use crate::wire::answer as flags;
use crate::wire::codec::{self, Reader};
use crate::wire::extras;

/// A session: what RESTORE_SESSION needs. Keep the hash as you would keep a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its secret, 64 hex digits.
    pub hash: String,
    /// Whose it is; API 0.1 does not say.
    pub user: Option<UserId>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("user", &self.user).finish()
    }
}

/// What HELLO says of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerInfo {
    /// Its software (1.0); empty before.
    pub name: String,
    /// The longest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// The longest text of a message, in bytes.
    pub content_bytes_max: usize,
    /// The largest file, in bytes; 0: no files (1.1).
    pub file_bytes_max: u64,
    /// The key by which it signs pushes (1.1); empty: it sends none.
    pub push_key: String,
    /// Who can register (1.1); `None` where it is not said.
    pub registration: Option<Registration>,
}

/// Who can become a user of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registration {
    /// Nobody, by the protocol.
    Closed,
    /// Who has an invite.
    Invite,
    /// Anyone.
    Open,
}

impl Default for ServerInfo {
    fn default() -> Self {
        Self {
            name: String::new(),
            body_bytes_max: BODY_BYTES_MAX,
            content_bytes_max: CONTENT_BYTES_MAX,
            file_bytes_max: 0,
            push_key: String::new(),
            registration: None,
        }
    }
}

/// Reads what follows the version in the answer to HELLO.
pub(super) fn server(body: &mut Reader<'_>) -> Result<ServerInfo, Error> {
    let mut server = ServerInfo::default();
    if !body.is_empty() {
        server.body_bytes_max = body.u32()? as usize;
        server.content_bytes_max = body.u32()? as usize;
        body.str()?.clone_into(&mut server.name);
    }
    server.file_bytes_max = body.optional(Reader::u64)?.unwrap_or(0);
    if let Some(key) = body.optional(Reader::str)? {
        key.clone_into(&mut server.push_key);
    }
    server.registration = body.optional(Reader::u8)?.and_then(|byte| match byte {
        0 => Some(Registration::Closed),
        1 => Some(Registration::Invite),
        2 => Some(Registration::Open),
        _ => None,
    });
    Ok(server)
}

/// A message that the server took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// When it was created.
    pub created: ServerTime,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// When it was sent.
    pub created: ServerTime,
    /// When it was last changed: sent, edited or deleted.
    pub updated: ServerTime,
    /// Whether it was edited.
    pub edited: bool,
    /// Whether it was deleted; then the content is empty.
    pub deleted: bool,
    /// The text. Before API 1.1 a line for each file stands behind it.
    pub content: String,
    /// The message that it answers (1.1).
    pub reply: Option<MessageId>,
    /// Its files (1.1).
    pub files: Vec<File>,
    /// Its reactions, in the order in which the emoji came to it (1.1).
    pub reactions: Vec<Reaction>,
}

impl Message {
    /// The bytes of text that it holds.
    pub(super) fn text_bytes(&self) -> usize {
        let files = self
            .files
            .iter()
            .map(|file| size_of::<File>() + file.name.len() + file.media_type.len());
        let reactions = self.reactions.iter().map(|reaction| {
            size_of::<Reaction>() + reaction.emoji.len() + size_of_val(reaction.shown.as_slice())
        });
        self.content.len() + files.sum::<usize>() + reactions.sum::<usize>()
    }

    /// Applies a reaction that was notified of. False when the message knows of it, or is another.
    pub fn apply(&mut self, change: &ReactionChange) -> bool {
        if change.message != self.id || change.updated <= self.updated {
            return false;
        }
        self.updated = change.updated;
        let at = self.reactions.iter().position(|reaction| reaction.emoji == change.emoji);
        match (at.and_then(|at| self.reactions.get_mut(at)), change.on) {
            (None, true) => self.reactions.push(Reaction {
                emoji: change.emoji.clone(),
                count: 1,
                shown: vec![change.user],
            }),
            (Some(reaction), true) => {
                reaction.count = reaction.count.saturating_add(1);
                if reaction.shown.len() < REACTION_USERS_SHOWN {
                    reaction.shown.push(change.user);
                }
            }
            (Some(reaction), false) => {
                reaction.count = reaction.count.saturating_sub(1);
                reaction.shown.retain(|user| *user != change.user);
                self.reactions.retain(|reaction| reaction.count > 0);
            }
            (None, false) => {}
        }
        true
    }
}

/// A file of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its id, for [`Client::download`](super::Client::download).
    pub id: FileId,
    /// Its size, in bytes.
    pub size: u64,
    /// Width in pixels of an image or video; 0: neither.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Its media type.
    pub media_type: String,
    /// Its name, as the sender gave it: no path, but not yet a name to store it under.
    pub name: String,
}

/// One emoji of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// How many users gave it.
    pub count: u16,
    /// Those of them who gave it first, at most 20.
    pub shown: Vec<UserId>,
}

impl From<codec::Message<'_>> for Message {
    fn from(message: codec::Message<'_>) -> Self {
        Self {
            id: message.id,
            sender: message.sender,
            created: message.created,
            updated: message.updated,
            edited: message.status & codec::STATUS_EDITED != 0,
            deleted: message.status & codec::STATUS_DELETED != 0,
            content: message.content.to_owned(),
            reply: message.extras.reply(),
            files: message.extras.files().map(File::from).collect(),
            reactions: message.extras.reactions().map(Reaction::from).collect(),
        }
    }
}

impl From<extras::FileInfo<'_>> for File {
    fn from(file: extras::FileInfo<'_>) -> Self {
        Self {
            id: file.id,
            size: file.size,
            width: file.width,
            height: file.height,
            media_type: file.media_type.to_owned(),
            name: file.name.to_owned(),
        }
    }
}

impl From<extras::Reaction<'_>> for Reaction {
    fn from(reaction: extras::Reaction<'_>) -> Self {
        let (emoji, shown) = (reaction.emoji.to_owned(), reaction.shown().collect());
        Self { emoji, count: reaction.count, shown }
    }
}

/// A chat as this user sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chat {
    /// Its id.
    pub id: ChatId,
    /// Whether it is the chat of two people.
    pub direct: bool,
    /// Whether who joins needs a password.
    pub has_password: bool,
    /// Whether I am a member.
    pub member: bool,
    /// Whether I am an admin.
    pub admin: bool,
    /// How many members it has.
    pub members: u32,
    /// When its newest message was created; zero when it has none.
    pub last_message: ServerTime,
    /// My marker.
    pub seen: ServerTime,
    /// Messages of others after it, counted up to 1000.
    pub unread: u32,
    /// Its name; empty for a direct chat.
    pub name: String,
    /// Its title; the other's nickname for a direct chat.
    pub title: String,
    /// Whether it is closed: who is no member comes in by an invite, or is added (1.1).
    pub closed: bool,
    /// What I want pushes of (1.1); everything before.
    pub notify: Notify,
}

/// Somebody in a chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Whether they are an admin.
    pub admin: bool,
    /// Whether they are online.
    pub online: bool,
    /// Whether they are banned, and so no member.
    pub banned: bool,
    /// Their marker.
    pub seen: ServerTime,
    /// Their name.
    pub nickname: String,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Whether they are online.
    pub online: bool,
    /// Whether they are an operator of the server; said on 1.1.
    pub operator: bool,
    /// Whether they are locked out; said on 1.1.
    pub disabled: bool,
    /// Whether they are a program; said on 1.1.
    pub bot: bool,
    /// When the account was made.
    pub created: ServerTime,
    /// Their name.
    pub nickname: String,
}

/// An invite that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invite {
    /// How the code begins.
    pub hint: String,
    /// Whether users who use it can register.
    pub registers: bool,
    /// How often it can still be used.
    pub uses_left: u16,
    /// When it expires.
    pub expires: ServerTime,
    /// When it was made.
    pub created: ServerTime,
    /// Who made it; `None`: the command line.
    pub creator: Option<UserId>,
    /// The chat whose member it makes.
    pub chat: Option<ChatId>,
}

/// One of this user's sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Whether it is the one that asks.
    pub this: bool,
    /// Whether a connection holds it.
    pub attached: bool,
    /// When it was made.
    pub created: ServerTime,
    /// When it was last used.
    pub used: ServerTime,
    /// From where.
    pub address: String,
}

/// Reads the whole body with `read`; bytes left over are an error.
pub(super) fn whole<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut reader = Reader::new(body);
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Reads entries up to the end of the body.
pub(super) fn pack<'a, T>(
    body: &'a [u8],
    entry: impl Fn(&mut Reader<'a>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut reader = Reader::new(body);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(entry(&mut reader)?);
    }
    Ok(entries)
}

pub(super) fn message(body: &mut Reader<'_>, version: Version) -> Result<Message, Error> {
    Ok(body.message(version)?.into())
}

pub(super) fn chat_message(
    body: &mut Reader<'_>,
    version: Version,
) -> Result<(ChatId, Message), Error> {
    Ok((body.chat_id()?, message(body, version)?))
}

pub(super) fn chat(body: &mut Reader<'_>, version: Version) -> Result<Chat, Error> {
    let id = body.chat_id()?;
    let kind = body.u8()?;
    let bits = body.u8()?;
    let mut chat = Chat {
        id,
        direct: kind == flags::CHAT_KIND_DIRECT,
        has_password: bits & flags::CHAT_HAS_PASSWORD != 0,
        member: bits & flags::CHAT_MEMBER != 0,
        admin: bits & flags::CHAT_ADMIN != 0,
        members: body.u32()?,
        last_message: body.time()?,
        seen: body.time()?,
        unread: body.u32()?,
        name: body.str()?.to_owned(),
        title: body.str()?.to_owned(),
        closed: bits & flags::CHAT_CLOSED != 0,
        notify: Notify::All,
    };
    if version.has_extras() {
        chat.notify = Notify::from_byte(body.u8()?);
    }
    Ok(chat)
}

pub(super) fn member(body: &mut Reader<'_>) -> Result<Member, Error> {
    let user = body.user_id()?;
    let bits = body.u8()?;
    Ok(Member {
        user,
        admin: bits & flags::MEMBER_ADMIN != 0,
        online: bits & flags::MEMBER_ONLINE != 0,
        banned: bits & flags::MEMBER_BANNED != 0,
        seen: body.time()?,
        nickname: body.str()?.to_owned(),
    })
}

pub(super) fn user(body: &mut Reader<'_>) -> Result<User, Error> {
    let id = body.user_id()?;
    let bits = body.u8()?;
    Ok(User {
        id,
        online: bits & flags::USER_ONLINE != 0,
        operator: bits & flags::USER_OPERATOR != 0,
        disabled: bits & flags::USER_DISABLED != 0,
        bot: bits & flags::USER_BOT != 0,
        created: body.time()?,
        nickname: body.str()?.to_owned(),
    })
}

pub(super) fn invite(body: &mut Reader<'_>) -> Result<Invite, Error> {
    Ok(Invite {
        hint: body.str()?.to_owned(),
        registers: body.bool()?,
        uses_left: body.u16()?,
        expires: body.time()?,
        created: body.time()?,
        creator: UserId::new(body.u32()?),
        chat: ChatId::new(body.u32()?),
    })
}

/// Flag of a session that is the asker's own.
const SESSION_THIS: u8 = 0x01;
/// Flag of a session that a connection holds.
const SESSION_ATTACHED: u8 = 0x02;

pub(super) fn session(body: &mut Reader<'_>) -> Result<SessionInfo, Error> {
    let id = body.session_id()?;
    let bits = body.u8()?;
    Ok(SessionInfo {
        id,
        this: bits & SESSION_THIS != 0,
        attached: bits & SESSION_ATTACHED != 0,
        created: body.time()?,
        used: body.time()?,
        address: body.str()?.to_owned(),
    })
}
