//! THE TABLE: every purpose in both directions, with its byte, first version, required state of the
//! connection, and the fields of a request (protocol sections 3 to 5a).
//!
//! Nothing else names a purpose byte. A row generates the variants of [`ToServer`] and [`Request`],
//! with the decoder and the encoder.

use crate::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
use crate::wire::Version;
use crate::wire::codec::{Malformed, Reader};
use crate::wire::extras::Extras;
use crate::wire::field::{
    Codec, Echo, FileBytes, FileSize, LaterFlag, Nonce, NotifyLevel, OrZero, Plain, PushKeys, Rest,
    SentExtras,
};

/// The state that a connection must have for a request to be handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Any state.
    Nothing,
    /// *new*: HELLO, once.
    New,
    /// *greeted* and not yet authorized.
    Greeted,
    /// *authorized*.
    Session,
    /// It is an answer, and is not answered itself.
    IsAnswer,
}

macro_rules! purposes {
    ($(#[$doc:meta])* $name:ident: $($byte:literal $variant:ident $wire:literal $version:ident $needs:ident;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $wire] $variant = $byte,)*
        }

        impl $name {
            /// All purposes, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The purpose with this byte, in any version.
            #[inline(always)]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in the protocol.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $wire,)* }
            }

            /// The first version that has it.
            #[inline(always)]
            pub const fn since(self) -> Version {
                match self { $(Self::$variant => Version::$version,)* }
            }

            /// The required state.
            #[inline(always)]
            pub const fn needs(self) -> Needs {
                match self { $(Self::$variant => Needs::$needs,)* }
            }

            /// Its byte.
            pub const fn byte(self) -> u8 {
                self as u8
            }
        }
    };
}

/// A row: byte, variant, name, first version, state, fields. After the state, `secret`: the body
/// contains one; `parts`: the answer may come in PARTs. A field names its type, and a codec if the
/// type has several.
macro_rules! requests {
    (@codec) => { Plain };
    (@codec $codec:ident) => { $codec };
    (@has_secret secret) => { true };
    (@has_secret $($mark:ident)?) => { false };
    (@has_parts parts) => { true };
    (@has_parts $($mark:ident)?) => { false };
    ($(
        $byte:literal $variant:ident $wire:literal $version:ident $needs:ident $($mark:ident)?
        $({ $($field:ident: $type:ty $(as $codec:ident)?),* })?;
    )*) => {
        purposes! {
            /// From a client to the server.
            ToServer:
            $($byte $variant $wire $version $needs;)*
        }

        impl ToServer {
            /// Whether a body may contain a password or an equivalent secret: the read buffer is
            /// wiped then.
            pub const fn has_secret(self) -> bool {
                match self { $(Self::$variant => requests!(@has_secret $($mark)?),)* }
            }

            /// Whether its answer may come in PARTs (protocol section 2).
            pub const fn has_parts(self) -> bool {
                match self { $(Self::$variant => requests!(@has_parts $($mark)?),)* }
            }
        }

        /// A request, decoded but not checked; borrows from the body. The fields are those of the
        /// tables in sections 4 to 5a.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // each field is named and described by its row of those tables
        pub enum Request<'a> {
            $(#[doc = $wire] $variant $({ $($field: $type),* })?,)*
        }

        impl<'a> Request<'a> {
            /// The purpose of this request.
            pub const fn purpose(&self) -> ToServer {
                match self { $(Self::$variant { .. } => ToServer::$variant,)* }
            }

            // The path of every frame is inlined, here and elsewhere. Otherwise the compiler
            // generates calls and moves the request through memory, which is a quarter of the
            // instructions of a HEARTBEAT.
            #[inline(always)]
            pub(super) fn read_fields(
                purpose: ToServer,
                version: Version,
                body: &mut Reader<'a>,
            ) -> Result<Self, Malformed> {
                Ok(match purpose {
                    $(ToServer::$variant => Self::$variant $({
                        $($field: <requests!(@codec $($codec)?) as Codec<'a, $type>>::read(
                            body, version,
                        )?),*
                    })?,)*
                })
            }

            pub(super) fn put_fields(&self, out: &mut Vec<u8>) {
                match *self {
                    $(Self::$variant $({ $($field),* })? => {
                        $($(<requests!(@codec $($codec)?) as Codec<'a, $type>>::put($field, out);)*)?
                    })*
                }
            }
        }
    };
}

requests! {
    0x00 Accepted        "ACCEPTED"          V0_1 IsAnswer { rest: &'a [u8] as Rest };
    0x01 Declined        "DECLINED"          V0_1 IsAnswer { rest: &'a [u8] as Rest };
    0x02 Heartbeat       "HEARTBEAT"         V0_1 Nothing { echo: &'a [u8] as Echo };
    0x03 Disconnect      "DISCONNECT"        V0_1 Nothing;
    0x04 Part            "PART"              V0_1 IsAnswer { rest: &'a [u8] as Rest };
    0x20 Hello           "HELLO"             V0_1 New { major: u8, minor: u8 };
    0x21 Login           "LOGIN"             V0_1 Greeted secret {
        login: &'a str, password: &'a str
    };
    0x22 Logoff          "LOGOFF"            V0_1 Session;
    0x23 RestoreSession  "RESTORE_SESSION"   V0_1 Greeted secret {
        session: SessionId, hash: &'a str
    };
    0x24 GetUserId       "GET_USER_ID"       V0_1 Session { nickname: &'a str };
    0x25 GetChatId       "GET_CHAT_ID"       V0_1 Session { name: &'a str };
    0x26 ChatReqPass     "CHAT_REQ_PASS"     V0_1 Session { chat: ChatId };
    0x27 JoinChat        "JOIN_CHAT"         V0_1 Session secret {
        chat: ChatId, password: Option<&'a str>
    };
    0x28 SendChatMsg     "SEND_CHAT_MSG"     V0_1 Session {
        chat: ChatId, content: &'a str, nonce: Option<u64> as Nonce,
        extras: Extras<'a> as SentExtras
    };
    0x29 RequestChatMsg  "REQUEST_CHAT_MSG"  V0_1 Session parts {
        chat: ChatId, from: ServerTime, to: Option<ServerTime>
    };
    0x2A MarkSeen        "MARK_SEEN"         V0_1 Session { chat: ChatId, time: ServerTime };
    0x30 RegisterUser    "REGISTER_USER"     V1_0 Greeted secret {
        login: &'a str, password: &'a str, invite: Option<&'a str>
    };
    0x31 ChangePassword  "CHANGE_PASSWORD"   V1_0 Session secret { old: &'a str, new: &'a str };
    0x32 GetUser         "GET_USER"          V1_0 Session { user: UserId };
    0x33 GetSessions     "GET_SESSIONS"      V1_0 Session parts;
    0x34 EndSession      "END_SESSION"       V1_0 Session { session: SessionId };
    0x35 SetPassword     "SET_PASSWORD"      V1_1 Greeted secret {
        login: &'a str, code: &'a str, password: &'a str
    };
    0x36 ResetPassword   "RESET_PASSWORD"    V1_1 Session { user: UserId };
    0x37 FindUsers       "FIND_USERS"        V1_1 Session parts { prefix: &'a str, limit: u16 };
    0x38 CreateChat      "CREATE_CHAT"       V1_0 Session secret {
        name: &'a str, password: Option<&'a str>
    };
    0x39 LeaveChat       "LEAVE_CHAT"        V1_0 Session { chat: ChatId };
    0x3A StartChat       "START_CHAT"        V1_0 Session { user: UserId };
    0x3B DeleteChat      "DELETE_CHAT"       V1_0 Session { chat: ChatId };
    0x3C RenameChat      "RENAME_CHAT"       V1_0 Session { chat: ChatId, name: &'a str };
    0x3D SetChatTitle    "SET_CHAT_TITLE"    V1_0 Session { chat: ChatId, title: &'a str };
    0x3E SetChatPassword "SET_CHAT_PASSWORD" V1_0 Session secret {
        chat: ChatId, password: Option<&'a str>
    };
    0x3F SetChatAdmin    "SET_CHAT_ADMIN"    V1_0 Session {
        chat: ChatId, user: UserId, admin: bool
    };
    0x40 SetChatBan      "SET_CHAT_BAN"      V1_0 Session {
        chat: ChatId, user: UserId, banned: bool
    };
    0x41 GetChat         "GET_CHAT"          V1_0 Session { chat: ChatId };
    0x42 GetMyChats      "GET_MY_CHATS"      V1_0 Session parts;
    0x43 GetMembers      "GET_MEMBERS"       V1_0 Session parts { chat: ChatId };
    0x44 FindChats       "FIND_CHATS"        V1_0 Session parts { prefix: &'a str, limit: u16 };
    0x45 SetUserDisabled "SET_USER_DISABLED" V1_1 Session { user: UserId, disabled: bool };
    0x46 AddMember       "ADD_MEMBER"        V1_1 Session { chat: ChatId, user: UserId };
    0x47 SetChatClosed   "SET_CHAT_CLOSED"   V1_1 Session { chat: ChatId, closed: bool };
    0x48 EditMsg         "EDIT_MSG"          V1_0 Session {
        chat: ChatId, message: MessageId, content: &'a str
    };
    0x49 DeleteMsg       "DELETE_MSG"        V1_0 Session { chat: ChatId, message: MessageId };
    0x4A RequestChatPage "REQUEST_CHAT_PAGE" V1_0 Session parts {
        chat: ChatId, before: Option<MessageId> as OrZero, limit: u16, newer: bool as LaterFlag
    };
    0x4B SearchMsg       "SEARCH_MSG"        V1_0 Session parts {
        chat: Option<ChatId> as OrZero, limit: u16, query: &'a str
    };
    0x4C RequestUpdates  "REQUEST_UPDATES"   V1_0 Session parts { from: ServerTime };
    0x4D Typing          "TYPING"            V1_0 Session { chat: ChatId };
    0x4E React           "REACT"             V1_1 Session {
        chat: ChatId, message: MessageId, on: bool, emoji: &'a str
    };
    0x4F GetReactions    "GET_REACTIONS"     V1_1 Session parts {
        chat: ChatId, message: MessageId
    };
    0x50 SetChatNotify   "SET_CHAT_NOTIFY"   V1_1 Session {
        chat: ChatId, notify: u8 as NotifyLevel
    };
    0x51 SubscribePush   "SUBSCRIBE_PUSH"    V1_1 Session secret {
        endpoint: &'a str, keys: Option<PushKeys<'a>>
    };
    0x52 CreateInvite    "CREATE_INVITE"     V1_1 Session {
        registers: bool, uses: u16, days: u16, chat: Option<ChatId> as OrZero
    };
    0x53 GetInvites      "GET_INVITES"       V1_1 Session parts { chat: Option<ChatId> as OrZero };
    0x54 EndInvite       "END_INVITE"        V1_1 Session { hint: &'a str };
    0x55 UseInvite       "USE_INVITE"        V1_1 Session secret { code: &'a str };
    0x58 BeginFile       "BEGIN_FILE"        V1_1 Session {
        chat: ChatId, size: u64 as FileSize, width: u16, height: u16,
        media_type: &'a str, name: &'a str
    };
    0x59 PutFile         "PUT_FILE"          V1_1 Session {
        file: FileId, offset: u64, bytes: &'a [u8] as FileBytes
    };
    0x5A GetFile         "GET_FILE"          V1_1 Session {
        file: FileId, offset: u64, length: u32
    };
    0x5B EndFile         "END_FILE"          V1_1 Session { file: FileId };
}

purposes! {
    /// From the server to a client.
    ToClient:
    0x00 Accepted        "ACCEPTED"          V0_1 IsAnswer;
    0x01 Declined        "DECLINED"          V0_1 IsAnswer;
    0x02 Heartbeat       "HEARTBEAT"         V0_1 Nothing;
    0x03 Disconnect      "DISCONNECT"        V0_1 Nothing;
    0x04 Part            "PART"              V1_0 IsAnswer;
    0x20 MsgNotify       "MSG_NOTIFY"        V0_1 Session;
    0x22 Deauth          "DEAUTH"            V0_1 Session;
    0x30 ChatNotify      "CHAT_NOTIFY"       V1_0 Session;
    0x31 ChatGone        "CHAT_GONE"         V1_0 Session;
    0x32 MemberNotify    "MEMBER_NOTIFY"     V1_0 Session;
    0x33 SeenNotify      "SEEN_NOTIFY"       V1_0 Session;
    0x34 TypingNotify    "TYPING_NOTIFY"     V1_0 Session;
    0x35 PresenceNotify  "PRESENCE_NOTIFY"   V1_0 Session;
    0x36 ReactionNotify  "REACTION_NOTIFY"   V1_1 Session;
}

const _: () = {
    // Rows are sorted, so no byte is used twice.
    let mut at = 1;
    while at < ToServer::ALL.len() {
        assert!(ToServer::ALL[at - 1].byte() < ToServer::ALL[at].byte(), "requests by their bytes");
        at += 1;
    }
    at = 1;
    while at < ToClient::ALL.len() {
        assert!(ToClient::ALL[at - 1].byte() < ToClient::ALL[at].byte(), "frames by their bytes");
        at += 1;
    }
    // Both sides answer with the same bytes.
    at = 0;
    while at < ToClient::ALL.len() {
        let purpose = ToClient::ALL[at];
        if matches!(purpose.needs(), Needs::IsAnswer) {
            let other = ToServer::from_byte(purpose.byte());
            assert!(matches!(other, Some(p) if matches!(p.needs(), Needs::IsAnswer)), "an answer");
        }
        at += 1;
    }
    // An answer is not answered, and a secret comes only from a client that has said HELLO.
    at = 0;
    while at < ToServer::ALL.len() {
        let purpose = ToServer::ALL[at];
        let is_request = matches!(purpose.needs(), Needs::Greeted | Needs::Session);
        assert!(is_request || !purpose.has_parts(), "what has no answer has no parts");
        assert!(is_request || !purpose.has_secret(), "no secret before HELLO");
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_grow_and_read_back() {
        for table in [
            ToServer::ALL.iter().map(|p| p.byte()).collect::<Vec<_>>(),
            ToClient::ALL.iter().map(|p| p.byte()).collect(),
        ] {
            assert!(table.windows(2).all(|pair| pair[0] < pair[1]));
        }
        for purpose in ToServer::ALL {
            assert_eq!(ToServer::from_byte(purpose.byte()), Some(*purpose));
        }
        for purpose in ToClient::ALL {
            assert_eq!(ToClient::from_byte(purpose.byte()), Some(*purpose));
        }
        assert_eq!(ToServer::from_byte(0x05), None);
    }
}
