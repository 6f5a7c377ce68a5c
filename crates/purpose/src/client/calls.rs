//! The requests by name, each with its typed answer. Every one may fail with the codes that its
//! row of the protocol's tables names, as [`Error::Declined`].

use super::answer::{self, pack, whole};
use super::{Chat, Client, Cursor, Error, Member, Message, Sent, Session, SessionInfo, User};
use crate::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};
use crate::wire::Version;
use crate::wire::codec::Reader;
use crate::wire::extras::Extras;
use crate::wire::request::Request;

/// Whose a session is, as 1.0 says it, and on 1.1 their flags, which [`Client::user`] says as well.
fn identity(body: &mut Reader<'_>) -> Result<Option<UserId>, Error> {
    let user = body.optional(Reader::user_id)?;
    body.optional(Reader::u8)?;
    Ok(user)
}

/// The calls of API 0.1.
#[allow(clippy::missing_errors_doc)] // said once, above
impl Client {
    /// Logs in. From here on messages come as events, and on API 1.0 and later the cursor begins
    /// here: a catch-up brings nothing that was sent before. Where this client has a cursor of the
    /// same user already, since a session of theirs has ended or by [`Client::set_cursor`], it
    /// stays, and [`Event::Missed`](super::Event::Missed) comes next.
    ///
    /// After an error that comes behind the login itself the connection is closed.
    pub fn login(&mut self, login: &str, password: &str) -> Result<Session, Error> {
        let body = self.request(&Request::Login { login, password })?;
        let session = whole(&body, |body| {
            let (id, hash) = (body.session_id()?, body.str()?.to_owned());
            Ok(Session { id, hash, user: identity(body)? })
        })?;
        self.events.start_over();
        let is_other = matches!((self.cursor_user, session.user), (Some(a), Some(b)) if a != b);
        if is_other {
            self.cursor = Cursor::default();
        }
        if is_other || !self.has_cursor {
            // What comes from now on follows on the cursor.
            self.events.forgive();
            self.events.caught_up();
            if let Err(error) = self.begin_cursor() {
                self.link.close();
                return Err(error);
            }
        }
        self.cursor_user = session.user.or(self.cursor_user);
        self.session = Some(session.clone());
        Ok(session)
    }

    /// Attaches a session again. [`Event::Missed`](super::Event::Missed) comes next: follow it
    /// with [`Client::catch_up`], after [`Client::set_cursor`] if one was kept. Without one the
    /// catch-up brings everything there is. A cursor of a session of another user is dropped.
    pub fn restore(&mut self, session: &Session) -> Result<(), Error> {
        let before = self.cursor_user;
        self.attach(session)?;
        if matches!((before, self.cursor_user), (Some(a), Some(b)) if a != b) {
            self.cursor = Cursor::default();
        }
        self.has_cursor = true;
        Ok(())
    }

    pub(super) fn attach(&mut self, session: &Session) -> Result<(), Error> {
        let request = Request::RestoreSession { session: session.id, hash: &session.hash };
        let body = self.request(&request)?;
        let user = whole(&body, identity)?;
        let user = user.or(session.user);
        self.session = Some(Session { user, ..session.clone() });
        self.cursor_user = user.or(self.cursor_user);
        self.events.start_over();
        Ok(())
    }

    /// Ends the session.
    pub fn logoff(&mut self) -> Result<(), Error> {
        self.request(&Request::Logoff)?;
        self.session = None;
        Ok(())
    }

    /// The user of this name.
    pub fn user_id(&mut self, nickname: &str) -> Result<UserId, Error> {
        let body = self.request(&Request::GetUserId { nickname })?;
        whole(&body, |body| Ok(body.user_id()?))
    }

    /// The chat of this name.
    pub fn chat_id(&mut self, name: &str) -> Result<ChatId, Error> {
        let body = self.request(&Request::GetChatId { name })?;
        whole(&body, |body| Ok(body.chat_id()?))
    }

    /// Whether who joins needs a password.
    pub fn has_password(&mut self, chat: ChatId) -> Result<bool, Error> {
        let body = self.request(&Request::ChatReqPass { chat })?;
        whole(&body, |body| Ok(body.bool()?))
    }

    /// Becomes a member.
    pub fn join(&mut self, chat: ChatId, password: Option<&str>) -> Result<(), Error> {
        self.request(&Request::JoinChat { chat, password })?;
        self.cursor.chats.entry(chat).or_default();
        Ok(())
    }

    /// Every message with `from <= updated <= to`, ascending by `updated`; up to now without `to`.
    /// On API 0.1 a long range is declined `too-large`: [`Client::range`] reads it in pieces.
    pub fn messages(
        &mut self,
        chat: ChatId,
        from: ServerTime,
        to: Option<ServerTime>,
    ) -> Result<Vec<Message>, Error> {
        let body = self.request(&Request::RequestChatMsg { chat, from, to })?;
        let version = self.version();
        pack(&body, |body| answer::message(body, version))
    }

    /// Moves my marker forward to `time`.
    pub fn mark_seen(&mut self, chat: ChatId, time: ServerTime) -> Result<(), Error> {
        self.request(&Request::MarkSeen { chat, time }).map(drop)
    }

    pub(super) fn send_once(
        &mut self,
        chat: ChatId,
        content: &str,
        nonce: Option<u64>,
        extras: Extras<'_>,
    ) -> Result<Sent, Error> {
        let nonce = nonce.filter(|_| self.version() >= Version::V1_0);
        let body = self.request(&Request::SendChatMsg { chat, content, nonce, extras })?;
        whole(&body, |body| Ok(Sent { id: body.message_id()?, created: body.time()? }))
    }
}

/// The calls that API 1.0 adds; on 0.1 they are declined `unknown-purpose`.
#[allow(clippy::missing_errors_doc)] // said once, above
impl Client {
    /// Makes a user, without logging in.
    pub fn register(
        &mut self,
        login: &str,
        password: &str,
        invite: Option<&str>,
    ) -> Result<UserId, Error> {
        let body = self.request(&Request::RegisterUser { login, password, invite })?;
        whole(&body, |body| Ok(body.user_id()?))
    }

    /// Changes the password; the user's other sessions end.
    pub fn change_password(&mut self, old: &str, new: &str) -> Result<(), Error> {
        self.request(&Request::ChangePassword { old, new }).map(drop)
    }

    /// Looks a user up.
    pub fn user(&mut self, user: UserId) -> Result<User, Error> {
        let body = self.request(&Request::GetUser { user })?;
        whole(&body, answer::user)
    }

    /// My sessions.
    pub fn sessions(&mut self) -> Result<Vec<SessionInfo>, Error> {
        let body = self.request(&Request::GetSessions)?;
        pack(&body, answer::session)
    }

    /// Ends one of my sessions.
    pub fn end_session(&mut self, session: SessionId) -> Result<(), Error> {
        self.request(&Request::EndSession { session }).map(drop)
    }

    /// Makes a group chat, with me as member and admin.
    pub fn create_chat(&mut self, name: &str, password: Option<&str>) -> Result<ChatId, Error> {
        let body = self.request(&Request::CreateChat { name, password })?;
        let chat = whole(&body, |body| Ok(body.chat_id()?))?;
        self.cursor.chats.entry(chat).or_default();
        Ok(chat)
    }

    /// Stops being a member.
    pub fn leave(&mut self, chat: ChatId) -> Result<(), Error> {
        self.request(&Request::LeaveChat { chat })?;
        self.cursor.chats.remove(&chat);
        Ok(())
    }

    /// The chat of me and somebody else, made if there is none.
    pub fn start_chat(&mut self, user: UserId) -> Result<ChatId, Error> {
        let body = self.request(&Request::StartChat { user })?;
        let chat = whole(&body, |body| Ok(body.chat_id()?))?;
        self.cursor.chats.entry(chat).or_default();
        Ok(chat)
    }

    /// Deletes a chat with all its messages.
    pub fn delete_chat(&mut self, chat: ChatId) -> Result<(), Error> {
        self.request(&Request::DeleteChat { chat })?;
        self.cursor.chats.remove(&chat);
        Ok(())
    }

    /// Gives a chat another name.
    pub fn rename_chat(&mut self, chat: ChatId, name: &str) -> Result<(), Error> {
        self.request(&Request::RenameChat { chat, name }).map(drop)
    }

    /// Gives a chat another title.
    pub fn set_title(&mut self, chat: ChatId, title: &str) -> Result<(), Error> {
        self.request(&Request::SetChatTitle { chat, title }).map(drop)
    }

    /// Sets the password of a chat, or takes it away.
    pub fn set_chat_password(&mut self, chat: ChatId, password: Option<&str>) -> Result<(), Error> {
        self.request(&Request::SetChatPassword { chat, password }).map(drop)
    }

    /// Makes a member an admin, or takes that back.
    pub fn set_admin(&mut self, chat: ChatId, user: UserId, admin: bool) -> Result<(), Error> {
        self.request(&Request::SetChatAdmin { chat, user, admin }).map(drop)
    }

    /// Bans a user from a chat, or takes that back.
    pub fn set_ban(&mut self, chat: ChatId, user: UserId, banned: bool) -> Result<(), Error> {
        self.request(&Request::SetChatBan { chat, user, banned }).map(drop)
    }

    /// Looks a chat up.
    pub fn chat(&mut self, chat: ChatId) -> Result<Chat, Error> {
        let body = self.request(&Request::GetChat { chat })?;
        let version = self.version();
        whole(&body, |body| answer::chat(body, version))
    }

    /// My chats.
    pub fn my_chats(&mut self) -> Result<Vec<Chat>, Error> {
        let body = self.request(&Request::GetMyChats)?;
        let version = self.version();
        pack(&body, |body| answer::chat(body, version))
    }

    /// Who is in a chat; for its admins the banned follow.
    pub fn members(&mut self, chat: ChatId) -> Result<Vec<Member>, Error> {
        let body = self.request(&Request::GetMembers { chat })?;
        pack(&body, answer::member)
    }

    /// Group chats whose names begin so.
    pub fn find_chats(&mut self, prefix: &str, limit: u16) -> Result<Vec<Chat>, Error> {
        let body = self.request(&Request::FindChats { prefix, limit })?;
        let version = self.version();
        pack(&body, |body| answer::chat(body, version))
    }

    /// Changes the text of a message of mine.
    pub fn edit(
        &mut self,
        chat: ChatId,
        message: MessageId,
        content: &str,
    ) -> Result<ServerTime, Error> {
        let body = self.request(&Request::EditMsg { chat, message, content })?;
        whole(&body, |body| Ok(body.time()?))
    }

    /// Deletes a message.
    pub fn delete(&mut self, chat: ChatId, message: MessageId) -> Result<ServerTime, Error> {
        let body = self.request(&Request::DeleteMsg { chat, message })?;
        whole(&body, |body| Ok(body.time()?))
    }

    /// The newest `limit` messages before `before` (the newest of all without), ascending.
    pub fn page(
        &mut self,
        chat: ChatId,
        before: Option<MessageId>,
        limit: u16,
    ) -> Result<Vec<Message>, Error> {
        let body = self.request(&Request::RequestChatPage { chat, before, limit, newer: false })?;
        let version = self.version();
        pack(&body, |body| answer::message(body, version))
    }

    /// Looks for words in a chat, or in all of mine; best first.
    pub fn search(
        &mut self,
        chat: Option<ChatId>,
        query: &str,
        limit: u16,
    ) -> Result<Vec<(ChatId, Message)>, Error> {
        let body = self.request(&Request::SearchMsg { chat, limit, query })?;
        let version = self.version();
        pack(&body, |body| answer::chat_message(body, version))
    }

    /// Asks for a sign of life.
    pub fn heartbeat(&mut self) -> Result<(), Error> {
        self.request(&Request::Heartbeat { echo: &[] }).map(drop)
    }

    /// Notifies the others that I am typing.
    pub fn typing(&mut self, chat: ChatId) -> Result<(), Error> {
        self.request(&Request::Typing { chat }).map(drop)
    }
}
