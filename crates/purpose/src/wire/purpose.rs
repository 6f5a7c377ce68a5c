//! THE TABLE: every purpose, by direction, with its byte, the version that brought it and the
//! state a connection must be in (protocol sections 3 to 5). Nothing else names a purpose byte.

use crate::wire::Version;

/// What a connection must be for a request to be handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing: taken in every state.
    Nothing,
    /// *new*: HELLO, once.
    New,
    /// *greeted* and not yet authorized.
    Greeted,
    /// *authorized*.
    Session,
    /// An answer, never answered itself.
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
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The purpose of this byte, in any version.
            #[inline(always)]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// As the protocol writes it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $wire,)* }
            }

            /// The first version that has it.
            #[inline(always)]
            pub const fn since(self) -> Version {
                match self { $(Self::$variant => Version::$version,)* }
            }

            /// The state it needs.
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

purposes! {
    /// From a client to the server.
    ToServer:
    0x00 Accepted        "ACCEPTED"          V0_1 IsAnswer;
    0x01 Declined        "DECLINED"          V0_1 IsAnswer;
    0x02 Heartbeat       "HEARTBEAT"         V0_1 Nothing;
    0x03 Disconnect      "DISCONNECT"        V0_1 Nothing;
    0x04 Part            "PART"              V0_1 IsAnswer;
    0x20 Hello           "HELLO"             V0_1 New;
    0x21 Login           "LOGIN"             V0_1 Greeted;
    0x22 Logoff          "LOGOFF"            V0_1 Session;
    0x23 RestoreSession  "RESTORE_SESSION"   V0_1 Greeted;
    0x24 GetUserId       "GET_USER_ID"       V0_1 Session;
    0x25 GetChatId       "GET_CHAT_ID"       V0_1 Session;
    0x26 ChatReqPass     "CHAT_REQ_PASS"     V0_1 Session;
    0x27 JoinChat        "JOIN_CHAT"         V0_1 Session;
    0x28 SendChatMsg     "SEND_CHAT_MSG"     V0_1 Session;
    0x29 RequestChatMsg  "REQUEST_CHAT_MSG"  V0_1 Session;
    0x2A MarkSeen        "MARK_SEEN"         V0_1 Session;
    0x30 RegisterUser    "REGISTER_USER"     V1_0 Greeted;
    0x31 ChangePassword  "CHANGE_PASSWORD"   V1_0 Session;
    0x32 GetUser         "GET_USER"          V1_0 Session;
    0x33 GetSessions     "GET_SESSIONS"      V1_0 Session;
    0x34 EndSession      "END_SESSION"       V1_0 Session;
    0x35 SetPassword     "SET_PASSWORD"      V1_1 Greeted;
    0x36 ResetPassword   "RESET_PASSWORD"    V1_1 Session;
    0x37 FindUsers       "FIND_USERS"        V1_1 Session;
    0x38 CreateChat      "CREATE_CHAT"       V1_0 Session;
    0x39 LeaveChat       "LEAVE_CHAT"        V1_0 Session;
    0x3A StartChat       "START_CHAT"        V1_0 Session;
    0x3B DeleteChat      "DELETE_CHAT"       V1_0 Session;
    0x3C RenameChat      "RENAME_CHAT"       V1_0 Session;
    0x3D SetChatTitle    "SET_CHAT_TITLE"    V1_0 Session;
    0x3E SetChatPassword "SET_CHAT_PASSWORD" V1_0 Session;
    0x3F SetChatAdmin    "SET_CHAT_ADMIN"    V1_0 Session;
    0x40 SetChatBan      "SET_CHAT_BAN"      V1_0 Session;
    0x41 GetChat         "GET_CHAT"          V1_0 Session;
    0x42 GetMyChats      "GET_MY_CHATS"      V1_0 Session;
    0x43 GetMembers      "GET_MEMBERS"       V1_0 Session;
    0x44 FindChats       "FIND_CHATS"        V1_0 Session;
    0x45 SetUserDisabled "SET_USER_DISABLED" V1_1 Session;
    0x46 AddMember       "ADD_MEMBER"        V1_1 Session;
    0x47 SetChatClosed   "SET_CHAT_CLOSED"   V1_1 Session;
    0x48 EditMsg         "EDIT_MSG"          V1_0 Session;
    0x49 DeleteMsg       "DELETE_MSG"        V1_0 Session;
    0x4A RequestChatPage "REQUEST_CHAT_PAGE" V1_0 Session;
    0x4B SearchMsg       "SEARCH_MSG"        V1_0 Session;
    0x4C RequestUpdates  "REQUEST_UPDATES"   V1_0 Session;
    0x4D Typing          "TYPING"            V1_0 Session;
    0x4E React           "REACT"             V1_1 Session;
    0x4F GetReactions    "GET_REACTIONS"     V1_1 Session;
    0x50 SetChatNotify   "SET_CHAT_NOTIFY"   V1_1 Session;
    0x51 SubscribePush   "SUBSCRIBE_PUSH"    V1_1 Session;
    0x52 CreateInvite    "CREATE_INVITE"     V1_1 Session;
    0x53 GetInvites      "GET_INVITES"       V1_1 Session;
    0x54 EndInvite       "END_INVITE"        V1_1 Session;
    0x55 UseInvite       "USE_INVITE"        V1_1 Session;
    0x58 BeginFile       "BEGIN_FILE"        V1_1 Session;
    0x59 PutFile         "PUT_FILE"          V1_1 Session;
    0x5A GetFile         "GET_FILE"          V1_1 Session;
    0x5B EndFile         "END_FILE"          V1_1 Session;
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

impl ToServer {
    /// Whether a body of this purpose may hold a password, or something as good as one: the buffer
    /// that it was read into is wiped then.
    pub const fn has_secret(self) -> bool {
        matches!(
            self,
            Self::Login
                | Self::RestoreSession
                | Self::RegisterUser
                | Self::SetPassword
                | Self::UseInvite
                | Self::SubscribePush
                | Self::JoinChat
                | Self::ChangePassword
                | Self::CreateChat
                | Self::SetChatPassword
        )
    }
}

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
