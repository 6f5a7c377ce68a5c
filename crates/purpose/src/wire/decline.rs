//! THE REASONS: every code of a DECLINED, with its message (protocol section 6).
//!
//! One row per code. Variants of [`Decline`] that share a code differ in the message.

use std::fmt;

use crate::ids::{ChatId, ServerTime};
use crate::limits::{EMOJI_PER_MESSAGE_MAX, QUERY_WORDS_MAX};
use crate::wire::codec::Malformed;

macro_rules! reasons {
    ($($code:literal:
        $($(#[$doc:meta])* $variant:ident $(($($value:ident: $type:ty),*))? $words:literal),+;
    )*) => {
        /// The reason why a request is declined. `Display` gives the text on the wire: `code:
        /// message`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs)] // each is its code of section 6; the words say what it means
        pub enum Decline {
            $($($(#[$doc])* $variant $(($($type),*))?,)+)*
        }

        /// Every code, in the order of protocol section 6.
        pub const CODES: &[&str] = &[$($code),*];

        impl Decline {
            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $($(Self::$variant { .. } => $code,)+)* }
            }
        }

        impl fmt::Display for Decline {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}: ", self.code())?;
                match *self {
                    $($(Self::$variant $(($($value),*))? => write!(f, $words),)+)*
                }
            }
        }
    };
}

reasons! {
    "malformed": Malformed(why: Malformed) "{why}";
    "unknown-purpose":
        UnknownPurpose(byte: u8) "there is no purpose 0x{byte:02x} in the version spoken here";
    "hello-required": HelloRequired "say HELLO first";
    "login-required": LoginRequired "log in or restore a session first";
    "session-suspended":
        SessionSuspended "a notification was declined; RESTORE_SESSION makes it active again";
    "rate-limited":
        /// Seconds to wait.
        RateLimited(seconds: u64) "try again in {seconds} seconds";
    "storage-failed": StorageFailed "the server cannot store this now; nothing was kept";
    "shutting-down": ShuttingDown "the server is stopping";
    "unsupported-version": UnsupportedVersion "this server speaks 0.1, 1.0 and 1.1";
    "already-greeted": AlreadyGreeted "HELLO was said already";
    "already-authorized": AlreadyAuthorized "a session is attached already";
    "bad-credentials": BadCredentials "wrong name or password";
    "bad-session": BadSession "no such session, or it has ended";
    "no-such-user": NoSuchUser "no user has that name or id";
    "no-such-chat": NoSuchChat "no chat has that name or id";
    "no-such-message": NoSuchMessage "no such message in this chat";
    "not-member": NotMember(chat: ChatId) "you are not a member of chat {chat}";
    "already-member": AlreadyMember(chat: ChatId) "you are a member of chat {chat} already";
    "password-required": PasswordRequired(chat: ChatId) "chat {chat} asks for a password";
    "bad-password":
        /// What is wrong with it.
        BadPassword(why: &'static str) "{why}";
    "bad-name":
        BadName "a name has 1 to 32 letters, digits, marks after a letter, '_', '-' and '.'",
        /// A name that is none: what it has to be.
        BadText(why: &'static str) "{why}";
    "name-taken": NameTaken "somebody has that name";
    "registration-closed": RegistrationClosed "this server takes no registrations";
    "bad-invite": BadInvite "no such invite, or it is used up or too old";
    "forbidden":
        /// What is not allowed.
        Forbidden(why: &'static str) "{why}";
    "last-admin": LastAdmin "a chat keeps at least one admin";
    "too-long":
        /// The bound, and its unit.
        TooLong(bound: usize, unit: &'static str) "at most {bound} {unit}";
    "too-large":
        /// A frame over this many bytes of body.
        FrameTooLarge(bound: usize) "a body has at most {bound} bytes",
        /// A range that does not fit one answer: the time up to which it does.
        RangeTooLarge(until: ServerTime) "it fits up to {until}",
        /// How many bytes a file may have.
        FileTooLarge(bound: u64) "the file has at most {bound} bytes";
    "empty-message": EmptyMessage "a message has some text";
    "bad-query": BadQuery "name 1 to {QUERY_WORDS_MAX} words to look for";
    "not-ready":
        /// Seconds to wait.
        NotReady(seconds: u64)
            "the newest messages are being indexed; try again in {seconds} seconds";
    "bad-code": BadCode "wrong name or code, or the code was used or is too old";
    "push-off": PushOff "this server sends no pushes";
    "bad-endpoint": BadEndpoint "the server does not push to this address";
    "too-many": TooMany "a message has at most {EMOJI_PER_MESSAGE_MAX} different emoji";
    "no-such-file": NoSuchFile "no such file, or it cannot be used here";
    "bad-offset":
        /// How many bytes of the file are stored.
        BadOffset(stored: u64) "{stored} bytes are stored: go on from there";
    "quota-exceeded":
        /// What would be passed.
        QuotaExceeded(why: &'static str) "{why}";
}

const _: () = {
    // A client finds the end of the code at the first colon.
    let mut index = 0;
    while index < CODES.len() {
        let code = CODES[index].as_bytes();
        assert!(!code.is_empty(), "a code has letters");
        let mut at = 0;
        while at < code.len() {
            assert!(code[at].is_ascii_lowercase() || code[at] == b'-', "letters and hyphens");
            at += 1;
        }
        index += 1;
    }
};

impl Decline {
    /// The index of its code in [`CODES`].
    pub fn index(self) -> usize {
        let code = self.code();
        let index = CODES.iter().position(|known| *known == code);
        debug_assert!(index.is_some(), "{code} is in the list of codes");
        index.unwrap_or(CODES.len())
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
