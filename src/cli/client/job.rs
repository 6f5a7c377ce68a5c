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
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Job {
    /// Sends a message; its nonce makes that idempotent.
    Send { chat: ChatId, nonce: u64, content: String, reply: Option<MessageId>, files: Vec<File> },
    /// Uploads a file, and sends it in a message with this nonce.
    Upload { chat: ChatId, nonce: u64, path: String, content: String },
    /// Saves the files of a message.
    Save(Vec<File>),
    /// Cancels all transfers.
    Cancel,
    /// Loads a chat with its newest `messages`.
    Show { chat: ChatId, messages: u16 },
    /// Joins a chat by name, and loads it.
    Join { name: String, password: Option<Secret> },
    /// Loads messages older than one.
    Page { chat: ChatId, before: Option<MessageId>, messages: u16 },
    /// Does something with a chat.
    InChat(ChatId, ChatJob),
    /// Changes the text of a message.
    Edit { chat: ChatId, message: MessageId, content: String },
    /// Deletes a message.
    Delete { chat: ChatId, message: MessageId },
    /// Adds or removes a reaction.
    React { chat: ChatId, message: MessageId, on: bool, emoji: String },
    /// Lists who reacted to a message.
    Reactions { chat: ChatId, message: MessageId },
    /// Deletes a chat.
    DeleteChat(ChatId),
    /// Lists chats by a prefix.
    Find(String),
    /// Opens the direct chat with a user.
    Direct(String),
    /// Searches all chats.
    SearchAll(String),
    /// Shows a user.
    Whois(String),
    /// Lists users by a prefix.
    Users(String),
    /// Ends an invite.
    EndInvite(String),
    /// Joins a chat by the code of an invite.
    Accept(String),
    /// Makes a code for a user's new password.
    Reset(String),
    /// Disables or enables a user.
    Disable { user: String, on: bool },
    /// Creates a chat.
    Create(String),
    /// Changes the user's password.
    Password { old: Secret, new: Secret },
    /// Lists the user's sessions.
    Sessions,
    /// Ends a session.
    End(SessionId),
    /// Moves the read marker: everything of the chat up to this time was shown.
    Seen { chat: ChatId, time: ServerTime },
    /// Notifies others that the user is typing.
    Typing(ChatId),
    /// Closes the connection; optionally ends the session.
    Quit { logoff: bool },
}

/// What a job does with a chat.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum ChatJob {
    Leave,
    Members,
    Search(String),
    Add(String),
    Invite { with_qr: bool, uses: u16, days: u16 },
    Invites,
    Closed(bool),
    Notify(Notify),
    Title(String),
    Rename(String),
    Lock(Option<Secret>),
    Admin { user: String, on: bool },
    Ban { user: String, on: bool },
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
            Self::Password { .. }
                | Self::Create(_)
                | Self::InChat(_, ChatJob::Invite { .. })
                | Self::Reset(_)
        )
    }

    /// The feature of API 1.1 that the job needs, if any.
    pub(super) fn newer_feature(&self) -> Option<&'static str> {
        Some(match self {
            Self::Send { reply: Some(_), .. } => "replies",
            Self::Upload { .. } | Self::Save(_) => "files",
            Self::React { .. } | Self::Reactions { .. } => "reactions",
            Self::Users(_) => "a list of its users",
            Self::EndInvite(_) | Self::Accept(_) => "invites into chats",
            Self::InChat(_, job) => match job {
                ChatJob::Add(_) => "a way to add members",
                ChatJob::Invite { .. } | ChatJob::Invites => "invites into chats",
                ChatJob::Closed(_) => "closed chats",
                ChatJob::Notify(_) => "pushes",
                _ => return None,
            },
            Self::Reset(_) | Self::Disable { .. } => "operators",
            _ => return None,
        })
    }
}
