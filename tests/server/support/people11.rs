//! API 1.1 for the tests: accounts, invites, closed chats and pushes (protocol.md section 5a).

use super::wire::*;
use super::{Client, Server};

/// To the server.
pub(crate) const SET_PASSWORD: u8 = 0x35;
pub(crate) const RESET_PASSWORD: u8 = 0x36;
pub(crate) const FIND_USERS: u8 = 0x37;
pub(crate) const SET_USER_DISABLED: u8 = 0x45;
pub(crate) const ADD_MEMBER: u8 = 0x46;
pub(crate) const SET_CHAT_CLOSED: u8 = 0x47;
pub(crate) const SET_CHAT_NOTIFY: u8 = 0x50;
pub(crate) const SUBSCRIBE_PUSH: u8 = 0x51;
pub(crate) const CREATE_INVITE: u8 = 0x52;
pub(crate) const GET_INVITES: u8 = 0x53;
pub(crate) const END_INVITE: u8 = 0x54;
pub(crate) const USE_INVITE: u8 = 0x55;

/// Every purpose above, with a body that parses and names nothing that exists.
pub(crate) fn requests() -> Vec<(u8, Body)> {
    vec![
        (SET_PASSWORD, body().text("nobody").text("code").text("correct horse")),
        (RESET_PASSWORD, body().id(999)),
        (FIND_USERS, body().text("").u16(5)),
        (SET_USER_DISABLED, body().id(999).u8(1)),
        (ADD_MEMBER, body().id(999).id(999)),
        (SET_CHAT_CLOSED, body().id(999).u8(1)),
        (SET_CHAT_NOTIFY, body().id(999).u8(1)),
        (SUBSCRIBE_PUSH, body().text("https://a/").bytes(&[4; 81])),
        (CREATE_INVITE, body().u8(1).u16(1).u16(1).id(0)),
        (GET_INVITES, body().id(0)),
        (END_INVITE, body().text("0000-00")),
        (USE_INVITE, body().text("0000-0000-0000-0000-0000")),
    ]
}

/// Flags of user.
pub(crate) const OPERATOR: u8 = 0x01;
pub(crate) const DISABLED: u8 = 0x04;
/// Flag of chat_info.
pub(crate) const CLOSED: u8 = 0x08;

/// A user as FIND_USERS and GET_USER show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Person {
    pub(crate) id: u32,
    pub(crate) flags: u8,
    pub(crate) created: i64,
    pub(crate) nickname: String,
}

/// An entry of GET_INVITES.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InviteInfo {
    pub(crate) hint: String,
    pub(crate) registers: bool,
    pub(crate) uses_left: u16,
    pub(crate) expires: i64,
    pub(crate) created: i64,
    pub(crate) creator: u32,
    pub(crate) chat: u32,
}

impl Reader<'_> {
    #[track_caller]
    fn person(&mut self) -> Person {
        let person =
            Person { id: self.id(), flags: self.u8(), created: self.time(), nickname: self.text() };
        assert_eq!(person.flags & !0x0f, 0, "an unknown flag: {person:?}");
        person
    }

    #[track_caller]
    fn invite_info(&mut self) -> InviteInfo {
        InviteInfo {
            hint: self.text(),
            registers: self.bool(),
            uses_left: self.u16(),
            expires: self.time(),
            created: self.time(),
            creator: self.u32(),
            chat: self.u32(),
        }
    }
}

impl Server {
    /// Makes a user an operator.
    #[track_caller]
    pub(crate) fn make_operator(&self, name: &str) {
        self.admin_ok(&["user", "set", name, "--operator", "on"], None);
    }

    /// Makes an invite by the command line.
    #[track_caller]
    pub(crate) fn invite(&self, options: &[&str]) -> String {
        let arguments = [&["invite", "add"], options].concat();
        self.admin_ok(&arguments, None).trim_end().to_owned()
    }
}

impl Client {
    #[track_caller]
    pub(crate) fn person(&mut self, id: u32) -> Person {
        let answer = self.ask(super::api10::GET_USER, body().id(id)).accepted();
        let mut reader = Reader::new(&answer);
        let person = reader.person();
        reader.finish();
        person
    }

    #[track_caller]
    pub(crate) fn find_users(&mut self, prefix: &str, limit: u16) -> Vec<Person> {
        let answer = self.ask_whole(FIND_USERS, body().text(prefix).u16(limit)).accepted();
        let mut reader = Reader::new(&answer);
        let mut pack = Vec::new();
        while !reader.is_empty() {
            pack.push(reader.person());
        }
        pack
    }

    /// RESET_PASSWORD: the code and when it expires.
    #[track_caller]
    pub(crate) fn reset_password(&mut self, user: u32) -> (String, i64) {
        let answer = self.ask(RESET_PASSWORD, body().id(user)).accepted();
        let mut reader = Reader::new(&answer);
        let reset = (reader.text(), reader.time());
        reader.finish();
        reset
    }

    #[track_caller]
    pub(crate) fn set_password(&mut self, name: &str, code: &str, password: &str) -> Frame {
        self.ask(SET_PASSWORD, body().text(name).text(code).text(password))
    }

    #[track_caller]
    pub(crate) fn disable(&mut self, user: u32, disabled: bool) -> Frame {
        self.ask(SET_USER_DISABLED, body().id(user).u8(disabled.into()))
    }

    #[track_caller]
    pub(crate) fn add_member(&mut self, chat: u32, user: u32) -> Frame {
        self.ask(ADD_MEMBER, body().id(chat).id(user))
    }

    #[track_caller]
    pub(crate) fn close_chat(&mut self, chat: u32, closed: bool) -> Frame {
        self.ask(SET_CHAT_CLOSED, body().id(chat).u8(closed.into()))
    }

    #[track_caller]
    pub(crate) fn set_notify(&mut self, chat: u32, notify: u8) -> Frame {
        self.ask(SET_CHAT_NOTIFY, body().id(chat).u8(notify))
    }

    #[track_caller]
    pub(crate) fn try_invite(&mut self, registers: bool, uses: u16, days: u16, chat: u32) -> Frame {
        let request = body().u8(registers.into()).u16(uses).u16(days).id(chat);
        self.ask(CREATE_INVITE, request)
    }

    #[track_caller]
    pub(crate) fn create_invite(&mut self, registers: bool, uses: u16, chat: u32) -> String {
        let answer = self.try_invite(registers, uses, 7, chat).accepted();
        let mut reader = Reader::new(&answer);
        let code = reader.text();
        reader.finish();
        code
    }

    #[track_caller]
    pub(crate) fn invites(&mut self, chat: u32) -> Vec<InviteInfo> {
        let answer = self.ask_whole(GET_INVITES, body().id(chat)).accepted();
        let mut reader = Reader::new(&answer);
        let mut pack = Vec::new();
        while !reader.is_empty() {
            pack.push(reader.invite_info());
        }
        pack
    }

    /// All invites but the one that a new server makes for its first user.
    #[track_caller]
    pub(crate) fn later_invites(&mut self) -> Vec<InviteInfo> {
        let mut all = self.invites(0);
        all.retain(|invite| (invite.creator, invite.chat) != (0, 0));
        all
    }

    #[track_caller]
    pub(crate) fn end_invite(&mut self, hint: &str) -> Frame {
        self.ask(END_INVITE, body().text(hint))
    }

    #[track_caller]
    pub(crate) fn use_invite(&mut self, code: &str) -> Frame {
        self.ask(USE_INVITE, body().text(code))
    }

    /// REGISTER_USER with an invite.
    #[track_caller]
    pub(crate) fn register_with(&mut self, name: &str, code: &str) -> Frame {
        let request = body().text(name).text(super::PASSWORD).text(code);
        self.ask(super::api10::REGISTER_USER, request)
    }
}
