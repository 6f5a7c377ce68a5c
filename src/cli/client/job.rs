//! Jobs for the worker, each one or a few requests, and news for the controller.
//!
//! Must not know the screen or threads.

use std::time::Duration;

use purpose::client::{Chat, Event, File, Member, Message, Notify, Sent};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};

/// Messages per page.
pub(super) const PAGE_MESSAGES: u16 = 50;

/// A job. The worker does jobs in order.
pub(super) enum Job {
    /// Sends a message; its nonce makes that idempotent.
    Send {
        chat: ChatId,
        nonce: u64,
        content: String,
        reply: Option<MessageId>,
        files: Vec<File>,
    },
    /// Uploads a file, and sends it in a message with this nonce.
    Upload {
        chat: ChatId,
        nonce: u64,
        path: String,
        content: String,
    },
    /// Saves the files of a message.
    Save(Vec<File>),
    /// Cancels all transfers.
    Cancel,
    React {
        chat: ChatId,
        message: MessageId,
        on: bool,
        emoji: String,
    },
    Reactions {
        chat: ChatId,
        message: MessageId,
    },
    /// Loads a chat with its newest `messages`.
    Show {
        chat: ChatId,
        messages: u16,
    },
    /// Joins a chat by name, and loads it.
    Join {
        name: String,
        password: Option<Secret>,
    },
    /// Loads messages older than one.
    Page {
        chat: ChatId,
        before: Option<MessageId>,
        messages: u16,
    },
    Leave(ChatId),
    Find(String),
    Direct(String),
    Members(ChatId),
    Search {
        chat: Option<ChatId>,
        words: String,
    },
    Edit {
        chat: ChatId,
        message: MessageId,
        content: String,
    },
    Delete {
        chat: ChatId,
        message: MessageId,
    },
    Whois(String),
    Users(String),
    Add {
        chat: ChatId,
        user: String,
    },
    Invite {
        chat: ChatId,
        with_qr: bool,
        uses: u16,
        days: u16,
    },
    Invites(ChatId),
    EndInvite(String),
    Accept(String),
    Closed {
        chat: ChatId,
        on: bool,
    },
    Notify {
        chat: ChatId,
        notify: Notify,
    },
    Reset(String),
    Disable {
        user: String,
        on: bool,
    },
    Create(String),
    Title {
        chat: ChatId,
        title: String,
    },
    Rename {
        chat: ChatId,
        name: String,
    },
    Lock {
        chat: ChatId,
        password: Option<Secret>,
    },
    Admin {
        chat: ChatId,
        user: String,
        on: bool,
    },
    Ban {
        chat: ChatId,
        user: String,
        on: bool,
    },
    DeleteChat(ChatId),
    Password {
        old: Secret,
        new: Secret,
    },
    Sessions,
    End(SessionId),
    /// Moves the read marker: everything of the chat up to this time was shown.
    Seen {
        chat: ChatId,
        time: ServerTime,
    },
    /// Notifies others that the user is typing.
    Typing(ChatId),
    /// Closes the connection; optionally ends the session.
    Quit {
        logoff: bool,
    },
}

/// News for the controller.
pub(super) enum News {
    /// The connection is up, and the catch-up is complete.
    Connected,
    /// The connection is lost; the worker reconnects.
    Lost { why: String },
    /// The list of the user's chats.
    Chats(Vec<Chat>),
    /// The name of a user.
    Name(UserId, String),
    /// The members of a chat.
    Members(ChatId, Vec<Member>),
    /// A chat was joined or loaded: its members and its newest messages, ascending.
    Opened { chat: Box<Chat>, members: Vec<Member>, messages: Vec<Message>, is_whole: bool },
    /// Older messages, ascending; fewer than requested if they include the beginning.
    Page { chat: ChatId, messages: Vec<Message>, is_first: bool },
    /// A message that was missed, sent, edited or deleted.
    Message(ChatId, Message),
    /// An older message that is quoted by a reply.
    Quoted(ChatId, Message),
    /// Any other event.
    Event(Event),
    /// An own message is stored.
    Sent { chat: ChatId, nonce: u64, sent: Sent, files: Vec<File> },
    /// An own message was declined for good.
    NotSent { nonce: u64, why: String },
    /// An own message has to wait.
    Slowed { why: String, pause: Duration },
    /// Progress of a transfer.
    Progress(Progress),
    /// The transfer with this key has ended, or was not begun.
    TransferEnded(u64),
    /// The rows of a QR code.
    Qr(Vec<String>),
    /// Joining the chat needs a password.
    PasswordNeeded { name: String },
    /// A job other than a message, a marker or typing is done.
    Done,
    /// The result of a command, as text.
    Lines(Vec<String>),
    /// A command failed.
    Failed(String),
    /// The session has ended; these are the last news.
    Ended(Result<(), String>),
}

/// The progress of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    /// Names the transfer: the nonce of the message for an upload.
    pub(super) key: u64,
    pub(super) name: String,
    pub(super) is_upload: bool,
    pub(super) done: u64,
    pub(super) size: u64,
}

impl Progress {
    /// In percent.
    pub(super) fn percent(&self) -> u64 {
        u64::try_from(u128::from(self.done) * 100 / u128::from(self.size.max(1))).unwrap_or(100)
    }
}

impl Job {
    /// Whether the job is idempotent, and can be repeated after a lost answer.
    pub(super) fn is_safe_to_repeat(&self) -> bool {
        !matches!(
            self,
            Self::Password { .. } | Self::Create(_) | Self::Invite { .. } | Self::Reset(_)
        )
    }

    /// The feature of API 1.1 that the job needs, if any.
    pub(super) fn newer_feature(&self) -> Option<&'static str> {
        Some(match self {
            Self::Send { reply: Some(_), .. } => "replies",
            Self::Upload { .. } | Self::Save(_) => "files",
            Self::React { .. } | Self::Reactions { .. } => "reactions",
            Self::Users(_) => "a list of its users",
            Self::Add { .. } => "a way to add members",
            Self::Invite { .. } | Self::Invites(_) | Self::EndInvite(_) | Self::Accept(_) => {
                "invites into chats"
            }
            Self::Closed { .. } => "closed chats",
            Self::Notify { .. } => "pushes",
            Self::Reset(_) | Self::Disable { .. } => "operators",
            _ => return None,
        })
    }
}
