//! What the controller asks of the server, and what it receives. Each job is one or a few requests;
//! knows no screen and no thread.

use std::time::Duration;

use purpose::client::{Chat, Event, File, Member, Message, Notify, Sent};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};

/// Messages asked for at once.
pub(super) const PAGE_MESSAGES: u16 = 50;

/// Something to be done, in the order given.
pub(super) enum Job {
    /// Sends a message; its nonce makes that safe to repeat.
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
    /// Stores files of a message in the folder for them.
    Save(Vec<File>),
    /// Gives up all files that are on their way.
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
    /// Brings all that is needed to show a chat, with its newest `messages`.
    Show {
        chat: ChatId,
        messages: u16,
    },
    /// Becomes a member by name, and shows the chat.
    Join {
        name: String,
        password: Option<Secret>,
    },
    /// Messages older than one.
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
    /// Everything of the chat up to this time was shown.
    Seen {
        chat: ChatId,
        time: ServerTime,
    },
    /// I am typing.
    Typing(ChatId),
    /// Ends the connection, and the session, too, if that is asked for.
    Quit {
        logoff: bool,
    },
}

/// What the front hears.
pub(super) enum News {
    /// The connection stands, and everything missed was reported.
    Connected,
    /// It is lost, and is tried again.
    Lost { why: String },
    /// All my chats.
    Chats(Vec<Chat>),
    /// Somebody's name.
    Name(UserId, String),
    /// Who is in a chat.
    Members(ChatId, Vec<Member>),
    /// A chat was joined or asked for: its members and its newest messages, ascending.
    Opened { chat: Box<Chat>, members: Vec<Member>, messages: Vec<Message>, is_whole: bool },
    /// Older messages, ascending; fewer than asked for when the beginning is among them.
    Page { chat: ChatId, messages: Vec<Message>, is_first: bool },
    /// A message that was missed, sent, edited or deleted.
    Message(ChatId, Message),
    /// An older message that another one answers.
    Quoted(ChatId, Message),
    /// Anything else that the server says.
    Event(Event),
    /// A message of mine is stored.
    Sent { chat: ChatId, nonce: u64, sent: Sent, files: Vec<File> },
    /// A message of mine is refused for good.
    NotSent { nonce: u64, why: String },
    /// A message of mine has to wait.
    Slowed { why: String, pause: Duration },
    /// How far a file has come.
    Progress(Progress),
    /// The transfer with this key is over, or none was begun.
    TransferEnded(u64),
    /// The rows of a QR code.
    Qr(Vec<String>),
    /// The chat asks for a password.
    PasswordNeeded { name: String },
    /// A job that is no message, marker or typing notice has been dealt with.
    Done,
    /// The outcome of a command, for a person.
    Lines(Vec<String>),
    /// A command failed.
    Failed(String),
    /// The session is over, and nothing more will come.
    Ended(Result<(), String>),
}

/// How far a file has come.
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
    /// In hundredths of the whole.
    pub(super) fn percent(&self) -> u64 {
        u64::try_from(u128::from(self.done) * 100 / u128::from(self.size.max(1))).unwrap_or(100)
    }
}

impl Job {
    /// Whether it may be done again when nobody knows whether it was done.
    pub(super) fn is_safe_to_repeat(&self) -> bool {
        !matches!(
            self,
            Self::Password { .. } | Self::Create(_) | Self::Invite { .. } | Self::Reset(_)
        )
    }

    /// What API 1.1 has and an older server lacks, if the job needs it.
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
