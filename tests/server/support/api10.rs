//! API 1.0 for the tests: the purposes of protocol.md section 5, their entries, and notifications.

use super::wire::*;
use super::{Client, PASSWORD, Server, Session};

/// To the server, API 1.0.
pub(crate) const REGISTER_USER: u8 = 0x30;
pub(crate) const CHANGE_PASSWORD: u8 = 0x31;
pub(crate) const GET_USER: u8 = 0x32;
pub(crate) const GET_SESSIONS: u8 = 0x33;
pub(crate) const END_SESSION: u8 = 0x34;
pub(crate) const CREATE_CHAT: u8 = 0x38;
pub(crate) const LEAVE_CHAT: u8 = 0x39;
pub(crate) const START_CHAT: u8 = 0x3A;
pub(crate) const DELETE_CHAT: u8 = 0x3B;
pub(crate) const RENAME_CHAT: u8 = 0x3C;
pub(crate) const SET_CHAT_TITLE: u8 = 0x3D;
pub(crate) const SET_CHAT_PASSWORD: u8 = 0x3E;
pub(crate) const SET_CHAT_ADMIN: u8 = 0x3F;
pub(crate) const SET_CHAT_BAN: u8 = 0x40;
pub(crate) const GET_CHAT: u8 = 0x41;
pub(crate) const GET_MY_CHATS: u8 = 0x42;
pub(crate) const GET_MEMBERS: u8 = 0x43;
pub(crate) const FIND_CHATS: u8 = 0x44;
pub(crate) const EDIT_MSG: u8 = 0x48;
pub(crate) const DELETE_MSG: u8 = 0x49;
pub(crate) const REQUEST_CHAT_PAGE: u8 = 0x4A;
pub(crate) const SEARCH_MSG: u8 = 0x4B;
pub(crate) const REQUEST_UPDATES: u8 = 0x4C;
pub(crate) const TYPING: u8 = 0x4D;

/// To the client, API 1.0.
pub(crate) const CHAT_NOTIFY: u8 = 0x30;
pub(crate) const CHAT_GONE: u8 = 0x31;
pub(crate) const MEMBER_NOTIFY: u8 = 0x32;
pub(crate) const SEEN_NOTIFY: u8 = 0x33;
pub(crate) const TYPING_NOTIFY: u8 = 0x34;
pub(crate) const PRESENCE_NOTIFY: u8 = 0x35;

/// Events of MEMBER_NOTIFY.
pub(crate) const JOINED: u8 = 1;
pub(crate) const LEFT: u8 = 2;
pub(crate) const MADE_ADMIN: u8 = 3;
pub(crate) const NO_LONGER_ADMIN: u8 = 4;
pub(crate) const BANNED: u8 = 5;

/// Flags of chat_info.
pub(crate) const HAS_PASSWORD: u8 = 0x01;
pub(crate) const I_AM_MEMBER: u8 = 0x02;
pub(crate) const I_AM_ADMIN: u8 = 0x04;

/// Flags of member and of GET_USER.
pub(crate) const MEMBER_ADMIN: u8 = 0x01;
pub(crate) const ONLINE: u8 = 0x02;
pub(crate) const MEMBER_BANNED: u8 = 0x04;

/// Flags of session.
pub(crate) const THIS_SESSION: u8 = 0x01;
pub(crate) const ATTACHED: u8 = 0x02;

/// A chat as one user sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChatInfo {
    pub(crate) id: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) members: u32,
    pub(crate) last_message: i64,
    pub(crate) seen: i64,
    pub(crate) unread: u32,
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) notify: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) user: u32,
    pub(crate) flags: u8,
    pub(crate) seen: i64,
    pub(crate) nickname: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionInfo {
    pub(crate) id: u32,
    pub(crate) flags: u8,
    pub(crate) created: i64,
    pub(crate) used: i64,
    pub(crate) address: String,
}

/// What GET_USER returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UserInfo {
    pub(crate) id: u32,
    pub(crate) flags: u8,
    pub(crate) created: i64,
    pub(crate) nickname: String,
}

/// What MEMBER_NOTIFY returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MemberEvent {
    pub(crate) chat: u32,
    pub(crate) user: u32,
    pub(crate) event: u8,
    pub(crate) nickname: String,
}

impl Reader<'_> {
    #[track_caller]
    pub(crate) fn chat_info(&mut self) -> ChatInfo {
        let info = ChatInfo {
            id: self.id(),
            kind: self.u8(),
            flags: self.u8(),
            members: self.u32(),
            last_message: self.time(),
            seen: self.time(),
            unread: self.u32(),
            name: self.text(),
            title: self.text(),
            notify: if self.is_11() { self.u8() } else { 0 },
        };
        assert!(info.kind <= 1, "an unknown kind: {info:?}");
        let known = if self.is_11() { 0x0f } else { 0x07 };
        assert_eq!(info.flags & !known, 0, "an unknown flag: {info:?}");
        assert!(info.unread <= 1000, "counted too far: {info:?}");
        assert_eq!(info.name.is_empty(), info.kind == 1, "{info:?}");
        info
    }

    #[track_caller]
    pub(crate) fn chat_infos(&mut self) -> Vec<ChatInfo> {
        let mut pack = Vec::new();
        while !self.is_empty() {
            pack.push(self.chat_info());
        }
        pack
    }

    #[track_caller]
    fn member(&mut self) -> Member {
        let member =
            Member { user: self.id(), flags: self.u8(), seen: self.time(), nickname: self.text() };
        assert_eq!(member.flags & !0x07, 0, "an unknown flag: {member:?}");
        member
    }

    #[track_caller]
    fn session_info(&mut self) -> SessionInfo {
        let session = SessionInfo {
            id: self.id(),
            flags: self.u8(),
            created: self.time(),
            used: self.time(),
            address: self.text(),
        };
        assert_eq!(session.flags & !0x03, 0, "an unknown flag: {session:?}");
        session
    }

    /// Pairs of a chat and one of its messages up to the end of the body.
    #[track_caller]
    fn chat_messages(&mut self) -> Vec<(u32, Message)> {
        let mut pack = Vec::new();
        while !self.is_empty() {
            pack.push((self.id(), self.message()));
        }
        pack
    }
}

impl Server {
    /// A connection that said HELLO 1.0.
    #[track_caller]
    pub(crate) fn greeted10(&self) -> Client {
        let mut client = self.connect();
        client.hello(1, 0);
        client
    }

    /// A connection of a user on 1.0. It does not hear PRESENCE_NOTIFY, of which every test is
    /// full, unless it says `hear_everything`.
    #[track_caller]
    pub(crate) fn login10(&self, name: &str) -> Client {
        let mut client = self.greeted10();
        client.ignore(PRESENCE_NOTIFY);
        client.login10(name);
        client
    }

    /// Users with connections on 1.0, each with its id.
    #[track_caller]
    pub(crate) fn users10<const N: usize>(&self, names: [&str; N]) -> [(Client, u32); N] {
        for name in names {
            self.add_user(name);
        }
        names.map(|name| {
            let mut client = self.login10(name);
            let id = client.user_id(name);
            (client, id)
        })
    }
}

impl Client {
    // Accounts.

    /// LOGIN on 1.0: the session and the user's id.
    #[track_caller]
    pub(crate) fn login10(&mut self, name: &str) -> (Session, u32) {
        self.login10_with(name, PASSWORD)
    }

    #[track_caller]
    pub(crate) fn login10_with(&mut self, name: &str, password: &str) -> (Session, u32) {
        let answer = self.ask(LOGIN, body().text(name).text(password)).accepted();
        let mut reader = Reader::new(&answer);
        let session = Session { id: reader.id(), hash: reader.text() };
        let user = reader.id();
        if self.is_11() {
            assert_eq!(reader.u8() & !0x0b, 0, "an unknown flag");
        }
        reader.finish();
        (session, user)
    }

    /// RESTORE_SESSION on 1.0: the user's id.
    #[track_caller]
    pub(crate) fn restore10(&mut self, session: &Session) -> u32 {
        let answer = self.try_restore(session).accepted();
        super::client::read_id(&answer)
    }

    #[track_caller]
    pub(crate) fn register(&mut self, name: &str, password: &str) -> Frame {
        self.ask(REGISTER_USER, body().text(name).text(password))
    }

    #[track_caller]
    pub(crate) fn user(&mut self, id: u32) -> UserInfo {
        let answer = self.ask(GET_USER, body().id(id)).accepted();
        let mut reader = Reader::new(&answer);
        let user = UserInfo {
            id: reader.id(),
            flags: reader.u8(),
            created: reader.time(),
            nickname: reader.text(),
        };
        reader.finish();
        assert_eq!(user.flags & !ONLINE, 0, "an unknown flag: {user:?}");
        user
    }

    #[track_caller]
    pub(crate) fn sessions(&mut self) -> Vec<SessionInfo> {
        let answer = self.ask_whole(GET_SESSIONS, body()).accepted();
        let mut reader = Reader::new(&answer);
        let mut pack = Vec::new();
        while !reader.is_empty() {
            pack.push(reader.session_info());
        }
        pack
    }

    // Chats.

    #[track_caller]
    pub(crate) fn create_chat(&mut self, name: &str) -> u32 {
        let answer = self.ask(CREATE_CHAT, body().text(name)).accepted();
        super::client::read_id(&answer)
    }

    #[track_caller]
    pub(crate) fn start_chat(&mut self, user: u32) -> u32 {
        let answer = self.ask(START_CHAT, body().id(user)).accepted();
        super::client::read_id(&answer)
    }

    #[track_caller]
    pub(crate) fn leave(&mut self, chat: u32) {
        self.ask(LEAVE_CHAT, body().id(chat)).accepted_empty();
    }

    #[track_caller]
    pub(crate) fn set_admin(&mut self, chat: u32, user: u32, on: bool) -> Frame {
        self.ask(SET_CHAT_ADMIN, body().id(chat).id(user).u8(on.into()))
    }

    #[track_caller]
    pub(crate) fn set_ban(&mut self, chat: u32, user: u32, on: bool) -> Frame {
        self.ask(SET_CHAT_BAN, body().id(chat).id(user).u8(on.into()))
    }

    #[track_caller]
    pub(crate) fn chat(&mut self, chat: u32) -> ChatInfo {
        let answer = self.ask(GET_CHAT, body().id(chat)).accepted();
        let mut reader = self.reader(&answer);
        let info = reader.chat_info();
        reader.finish();
        info
    }

    #[track_caller]
    pub(crate) fn my_chats(&mut self) -> Vec<ChatInfo> {
        let answer = self.ask_whole(GET_MY_CHATS, body()).accepted();
        self.reader(&answer).chat_infos()
    }

    #[track_caller]
    pub(crate) fn find_chats(&mut self, prefix: &str, limit: u16) -> Vec<ChatInfo> {
        let answer = self.ask_whole(FIND_CHATS, body().text(prefix).u16(limit));
        self.reader(&answer.accepted()).chat_infos()
    }

    #[track_caller]
    pub(crate) fn members(&mut self, chat: u32) -> Vec<Member> {
        let answer = self.ask_whole(GET_MEMBERS, body().id(chat)).accepted();
        let mut reader = Reader::new(&answer);
        let mut pack = Vec::new();
        while !reader.is_empty() {
            pack.push(reader.member());
        }
        pack
    }

    // Messages.

    #[track_caller]
    pub(crate) fn send_with_nonce(&mut self, chat: u32, content: &str, nonce: u64) -> Sent {
        let request = body().id(chat).text(content).u64(nonce);
        Sent::read(&self.ask(SEND_CHAT_MSG, request).accepted())
    }

    /// EDIT_MSG: the time of the edit.
    #[track_caller]
    pub(crate) fn edit(&mut self, chat: u32, message: u64, content: &str) -> i64 {
        let request = body().id(chat).u64(message).text(content);
        read_time(&self.ask(EDIT_MSG, request).accepted())
    }

    /// DELETE_MSG: the time of the deletion.
    #[track_caller]
    pub(crate) fn delete(&mut self, chat: u32, message: u64) -> i64 {
        let answer = self.ask(DELETE_MSG, body().id(chat).u64(message));
        read_time(&answer.accepted())
    }

    #[track_caller]
    pub(crate) fn page(&mut self, chat: u32, before: u64, limit: u16) -> Vec<Message> {
        let request = body().id(chat).u64(before).u16(limit);
        let answer = self.ask_whole(REQUEST_CHAT_PAGE, request).accepted();
        self.reader(&answer).messages()
    }

    /// SEARCH_MSG; chat 0 is all my chats.
    #[track_caller]
    pub(crate) fn search(&mut self, chat: u32, limit: u16, query: &str) -> Vec<(u32, Message)> {
        let begun = std::time::Instant::now();
        loop {
            let request = body().id(chat).u16(limit).text(query);
            let answer = self.ask_whole(SEARCH_MSG, request);
            // On a busy machine the index may be behind for longer than a search waits.
            let is_behind = answer.purpose == DECLINED && answer.body.starts_with(b"not-ready");
            if is_behind && begun.elapsed() < std::time::Duration::from_secs(60) {
                std::thread::sleep(std::time::Duration::from_millis(200));
                continue;
            }
            return self.reader(&answer.accepted()).chat_messages();
        }
    }

    #[track_caller]
    pub(crate) fn updates(&mut self, from: i64) -> Vec<(u32, Message)> {
        let answer = self.ask_whole(REQUEST_UPDATES, body().time(from));
        self.reader(&answer.accepted()).chat_messages()
    }

    // Notifications.

    #[track_caller]
    pub(crate) fn chat_notify(&mut self) -> ChatInfo {
        let frame = self.expect(CHAT_NOTIFY);
        let mut reader = self.reader(&frame.body);
        let info = reader.chat_info();
        reader.finish();
        info
    }

    #[track_caller]
    pub(crate) fn expect_chat_gone(&mut self, chat: u32) {
        let frame = self.expect(CHAT_GONE);
        assert_eq!(super::client::read_id(&frame.body), chat);
    }

    /// The next MEMBER_NOTIFY; CHAT_NOTIFY about the same change may stand before it.
    #[track_caller]
    pub(crate) fn member_event(&mut self) -> MemberEvent {
        let frame = self.expect(MEMBER_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        let event = MemberEvent {
            chat: reader.id(),
            user: reader.id(),
            event: reader.u8(),
            nickname: reader.text(),
        };
        reader.finish();
        assert!((1..=5).contains(&event.event), "an unknown event");
        event
    }

    #[track_caller]
    pub(crate) fn expect_member_event(&mut self, chat: u32, user: u32, event: u8, nickname: &str) {
        let expected = MemberEvent { chat, user, event, nickname: nickname.to_owned() };
        assert_eq!(self.member_event(), expected);
    }

    #[track_caller]
    pub(crate) fn expect_seen(&mut self, chat: u32, user: u32, time: i64) {
        let frame = self.expect(SEEN_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        let got = (reader.id(), reader.id(), reader.time());
        reader.finish();
        assert_eq!(got, (chat, user, time));
    }

    #[track_caller]
    pub(crate) fn expect_typing(&mut self, chat: u32, user: u32) {
        let frame = self.expect(TYPING_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        let got = (reader.id(), reader.id());
        reader.finish();
        assert_eq!(got, (chat, user));
    }

    #[track_caller]
    pub(crate) fn expect_presence(&mut self, user: u32, online: bool) {
        let frame = self.expect(PRESENCE_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        let got = (reader.id(), reader.bool());
        reader.finish();
        assert_eq!(got, (user, online));
    }
}

#[track_caller]
pub(crate) fn read_chat_notify(frame: &Frame) -> ChatInfo {
    let mut reader = Reader::new(&frame.body);
    let info = reader.chat_info();
    reader.finish();
    info
}

#[track_caller]
fn read_time(bytes: &[u8]) -> i64 {
    let mut reader = Reader::new(bytes);
    let time = reader.time();
    reader.finish();
    time
}
