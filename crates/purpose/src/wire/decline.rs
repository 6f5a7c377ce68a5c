//! THE REASONS: every code that a DECLINED may carry, with its words (protocol section 6).

use std::fmt;

use crate::ids::{ChatId, ServerTime};
use crate::limits::{EMOJI_PER_MESSAGE_MAX, QUERY_WORDS_MAX};
use crate::wire::codec::Malformed;

/// Why a request was declined. `Display` gives what the wire carries: `code: words`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each is its code of section 6; the words below say what it means
pub enum Decline {
    Malformed(Malformed),
    UnknownPurpose(u8),
    HelloRequired,
    LoginRequired,
    SessionSuspended,
    /// Seconds to wait.
    RateLimited(u64),
    StorageFailed,
    ShuttingDown,
    UnsupportedVersion,
    AlreadyGreeted,
    AlreadyAuthorized,
    BadCredentials,
    BadSession,
    NoSuchUser,
    NoSuchChat,
    NoSuchMessage,
    NotMember(ChatId),
    AlreadyMember(ChatId),
    PasswordRequired(ChatId),
    /// What is wrong with it.
    BadPassword(&'static str),
    BadName,
    NameTaken,
    RegistrationClosed,
    BadInvite,
    /// What is not allowed.
    Forbidden(&'static str),
    LastAdmin,
    /// The bound, and its unit.
    TooLong(usize, &'static str),
    /// A frame over this many bytes of body.
    FrameTooLarge(usize),
    /// A range that does not fit one answer: the time up to which it does.
    RangeTooLarge(ServerTime),
    EmptyMessage,
    BadQuery,
    /// Seconds to wait.
    NotReady(u64),
    BadCode,
    PushOff,
    BadEndpoint,
    /// A name that is none: what it has to be.
    BadText(&'static str),
    TooMany,
    NoSuchFile,
    /// How many bytes of the file are stored.
    BadOffset(u64),
    /// How many bytes it may have.
    FileTooLarge(u64),
    /// What would be passed.
    QuotaExceeded(&'static str),
}

/// Every code, in the order of protocol section 6.
pub const CODES: [&str; 38] = [
    "malformed",
    "unknown-purpose",
    "hello-required",
    "login-required",
    "session-suspended",
    "rate-limited",
    "storage-failed",
    "shutting-down",
    "unsupported-version",
    "already-greeted",
    "already-authorized",
    "bad-credentials",
    "bad-session",
    "no-such-user",
    "no-such-chat",
    "no-such-message",
    "not-member",
    "already-member",
    "password-required",
    "bad-password",
    "bad-name",
    "name-taken",
    "registration-closed",
    "bad-invite",
    "forbidden",
    "last-admin",
    "too-long",
    "too-large",
    "empty-message",
    "bad-query",
    "not-ready",
    "bad-code",
    "push-off",
    "bad-endpoint",
    "too-many",
    "no-such-file",
    "bad-offset",
    "quota-exceeded",
];

impl Decline {
    /// The index of its code in [`CODES`].
    pub fn index(self) -> usize {
        let code = self.code();
        CODES.iter().position(|known| *known == code).unwrap_or(CODES.len())
    }

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownPurpose(_) => "unknown-purpose",
            Self::HelloRequired => "hello-required",
            Self::LoginRequired => "login-required",
            Self::SessionSuspended => "session-suspended",
            Self::RateLimited(_) => "rate-limited",
            Self::StorageFailed => "storage-failed",
            Self::ShuttingDown => "shutting-down",
            Self::UnsupportedVersion => "unsupported-version",
            Self::AlreadyGreeted => "already-greeted",
            Self::AlreadyAuthorized => "already-authorized",
            Self::BadCredentials => "bad-credentials",
            Self::BadSession => "bad-session",
            Self::NoSuchUser => "no-such-user",
            Self::NoSuchChat => "no-such-chat",
            Self::NoSuchMessage => "no-such-message",
            Self::NotMember(_) => "not-member",
            Self::AlreadyMember(_) => "already-member",
            Self::PasswordRequired(_) => "password-required",
            Self::BadPassword(_) => "bad-password",
            Self::BadName | Self::BadText(_) => "bad-name",
            Self::NameTaken => "name-taken",
            Self::RegistrationClosed => "registration-closed",
            Self::BadInvite => "bad-invite",
            Self::Forbidden(_) => "forbidden",
            Self::LastAdmin => "last-admin",
            Self::TooLong(..) => "too-long",
            Self::FrameTooLarge(_) | Self::RangeTooLarge(_) | Self::FileTooLarge(_) => "too-large",
            Self::EmptyMessage => "empty-message",
            Self::BadQuery => "bad-query",
            Self::NotReady(_) => "not-ready",
            Self::BadCode => "bad-code",
            Self::PushOff => "push-off",
            Self::BadEndpoint => "bad-endpoint",
            Self::TooMany => "too-many",
            Self::NoSuchFile => "no-such-file",
            Self::BadOffset(_) => "bad-offset",
            Self::QuotaExceeded(_) => "quota-exceeded",
        }
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code())?;
        match *self {
            Self::Malformed(why) => f.write_str(why.words()),
            Self::UnknownPurpose(byte) => {
                write!(f, "there is no purpose 0x{byte:02x} in the version spoken here")
            }
            Self::HelloRequired => f.write_str("say HELLO first"),
            Self::LoginRequired => f.write_str("log in or restore a session first"),
            Self::SessionSuspended => {
                f.write_str("a notification was declined; RESTORE_SESSION makes it active again")
            }
            Self::RateLimited(seconds) => write!(f, "try again in {seconds} seconds"),
            Self::StorageFailed => {
                f.write_str("the server cannot store this now; nothing was kept")
            }
            Self::ShuttingDown => f.write_str("the server is stopping"),
            Self::UnsupportedVersion => f.write_str("this server speaks 0.1, 1.0 and 1.1"),
            Self::AlreadyGreeted => f.write_str("HELLO was said already"),
            Self::AlreadyAuthorized => f.write_str("a session is attached already"),
            Self::BadCredentials => f.write_str("wrong name or password"),
            Self::BadSession => f.write_str("no such session, or it has ended"),
            Self::NoSuchUser => f.write_str("no user has that name or id"),
            Self::NoSuchChat => f.write_str("no chat has that name or id"),
            Self::NoSuchMessage => f.write_str("no such message in this chat"),
            Self::NotMember(chat) => write!(f, "you are not a member of chat {chat}"),
            Self::AlreadyMember(chat) => write!(f, "you are a member of chat {chat} already"),
            Self::PasswordRequired(chat) => write!(f, "chat {chat} asks for a password"),
            Self::BadPassword(why) | Self::BadText(why) | Self::QuotaExceeded(why) => {
                f.write_str(why)
            }
            Self::BadName => f.write_str(
                "a name has 1 to 32 letters, digits, marks after a letter, '_', '-' and '.'",
            ),
            Self::NameTaken => f.write_str("somebody has that name"),
            Self::RegistrationClosed => f.write_str("this server takes no registrations"),
            Self::BadInvite => f.write_str("no such invite, or it is used up or too old"),
            Self::Forbidden(why) => f.write_str(why),
            Self::LastAdmin => f.write_str("a chat keeps at least one admin"),
            Self::TooLong(bound, unit) => write!(f, "at most {bound} {unit}"),
            Self::FrameTooLarge(bound) => write!(f, "a body has at most {bound} bytes"),
            Self::RangeTooLarge(until) => write!(f, "it fits up to {until}"),
            Self::EmptyMessage => f.write_str("a message has some text"),
            Self::NotReady(seconds) => {
                write!(f, "the newest messages are being indexed; try again in {seconds} seconds")
            }
            Self::BadCode => f.write_str("wrong name or code, or the code was used or is too old"),
            Self::PushOff => f.write_str("this server sends no pushes"),
            Self::BadEndpoint => f.write_str("the server does not push to this address"),
            Self::BadQuery => write!(f, "name 1 to {QUERY_WORDS_MAX} words to look for"),
            Self::TooMany => {
                write!(f, "a message has at most {EMOJI_PER_MESSAGE_MAX} different emoji")
            }
            Self::NoSuchFile => f.write_str("no such file, or it cannot be used here"),
            Self::BadOffset(stored) => write!(f, "{stored} bytes are stored: go on from there"),
            Self::FileTooLarge(bound) => write!(f, "the file has at most {bound} bytes"),
        }
    }
}

impl From<Malformed> for Decline {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_index_of_its_code() {
        let chat = ChatId::new(7).expect("not 0");
        for reason in [Decline::HelloRequired, Decline::NotMember(chat), Decline::BadQuery] {
            assert_eq!(CODES.get(reason.index()), Some(&reason.code()));
        }
    }

    #[test]
    fn words_that_carry_a_number_carry_exactly_one() {
        let time = ServerTime::new(1_700_000_000_000_001).expect("positive");
        for decline in
            [Decline::RateLimited(7), Decline::RangeTooLarge(time), Decline::BadOffset(9)]
        {
            let text = decline.to_string();
            let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
            assert_eq!(numbers.count(), 1, "{text}");
        }
        assert_eq!(Decline::HelloRequired.to_string(), "hello-required: say HELLO first");
    }
}
