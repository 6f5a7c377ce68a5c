//! The requests that API 1.1 adds about accounts, members, invites and pushes, by name. Every one
//! may fail with the codes that its row of the protocol's tables names, as [`Error::Declined`]; on
//! older versions they are declined `unknown-purpose`.

use super::answer::{self, pack, whole};
use super::{Client, Error, Invite, User};
use crate::ids::{ChatId, ServerTime, UserId};
use crate::wire::request::{PushKeys, Request};

/// What a member wants pushes of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// Every message.
    All,
    /// What mentions or answers them.
    Mentions,
    /// Nothing.
    Nothing,
}

impl Notify {
    /// What a byte of a chat_info means; a level that is not known counts as everything.
    pub(super) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Mentions,
            2 => Self::Nothing,
            _ => Self::All,
        }
    }
}

/// A one-time code for a new password.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetCode {
    /// The code; hand it to the user alone.
    pub code: String,
    /// When it ends, if it is not used before.
    pub expires: ServerTime,
}

/// What a new invite can do: register, make a member of a chat, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewInvite {
    /// Users who use it can register.
    pub registers: bool,
    /// Users who use it become members of this chat.
    pub chat: Option<ChatId>,
    /// How often it can be used: at least once.
    pub uses: u16,
    /// Days until it expires: at least one.
    pub days: u16,
}

#[allow(clippy::missing_errors_doc)] // said once, above
impl Client {
    /// Sets a new password by a code from [`Client::reset_password`] or `vestnik user reset`; all
    /// sessions of the user end. Before [`Client::login`], which it does not replace.
    pub fn set_password(
        &mut self,
        login: &str,
        code: &str,
        password: &str,
    ) -> Result<UserId, Error> {
        let body = self.request(&Request::SetPassword { login, code, password })?;
        whole(&body, |body| Ok(body.user_id()?))
    }

    /// Makes a code by which a user sets a new password; for operators. An earlier one ends.
    pub fn reset_password(&mut self, user: UserId) -> Result<ResetCode, Error> {
        let body = self.request(&Request::ResetPassword { user })?;
        whole(&body, |body| Ok(ResetCode { code: body.str()?.to_owned(), expires: body.time()? }))
    }

    /// Up to `limit` users whose name begins so, by name; at most 200.
    pub fn find_users(&mut self, prefix: &str, limit: u16) -> Result<Vec<User>, Error> {
        let body = self.request(&Request::FindUsers { prefix, limit })?;
        pack(&body, answer::user)
    }

    /// Locks a user out, or lets them in again; for operators.
    pub fn set_user_disabled(&mut self, user: UserId, disabled: bool) -> Result<(), Error> {
        self.request(&Request::SetUserDisabled { user, disabled }).map(drop)
    }

    /// Makes a user a member of a chat that I am an admin of.
    pub fn add_member(&mut self, chat: ChatId, user: UserId) -> Result<(), Error> {
        self.request(&Request::AddMember { chat, user }).map(drop)
    }

    /// Closes a chat to all but its members, or opens it again; for its admins.
    pub fn set_chat_closed(&mut self, chat: ChatId, closed: bool) -> Result<(), Error> {
        self.request(&Request::SetChatClosed { chat, closed }).map(drop)
    }

    /// Sets what I want pushes of in a chat.
    pub fn set_chat_notify(&mut self, chat: ChatId, notify: Notify) -> Result<(), Error> {
        let notify = notify as u8;
        self.request(&Request::SetChatNotify { chat, notify }).map(drop)
    }

    /// Has pushes for this session sent to an endpoint of a push service, encrypted by the keys of
    /// the browser. Replaces what the session had.
    pub fn subscribe_push(
        &mut self,
        endpoint: &str,
        p256dh: &[u8; 65],
        auth: &[u8; 16],
    ) -> Result<(), Error> {
        let keys = Some(PushKeys { p256dh, auth });
        self.request(&Request::SubscribePush { endpoint, keys }).map(drop)
    }

    /// Ends the pushes of this session.
    pub fn unsubscribe_push(&mut self) -> Result<(), Error> {
        self.request(&Request::SubscribePush { endpoint: "", keys: None }).map(drop)
    }

    /// Makes an invite, and returns its code.
    pub fn create_invite(&mut self, new: NewInvite) -> Result<String, Error> {
        let NewInvite { registers, chat, uses, days } = new;
        let body = self.request(&Request::CreateInvite { registers, uses, days, chat })?;
        whole(&body, |body| Ok(body.str()?.to_owned()))
    }

    /// The invites to a chat that can be used, the oldest first; without a chat all of the server,
    /// for operators.
    pub fn invites(&mut self, chat: Option<ChatId>) -> Result<Vec<Invite>, Error> {
        let body = self.request(&Request::GetInvites { chat })?;
        pack(&body, answer::invite)
    }

    /// Ends an invite by the hint that [`Client::invites`] shows of it.
    pub fn end_invite(&mut self, hint: &str) -> Result<(), Error> {
        self.request(&Request::EndInvite { hint }).map(drop)
    }

    /// Becomes a member of the chat that an invite names.
    pub fn use_invite(&mut self, code: &str) -> Result<ChatId, Error> {
        let body = self.request(&Request::UseInvite { code })?;
        let chat = whole(&body, |body| Ok(body.chat_id()?))?;
        self.cursor.chats.entry(chat).or_default();
        Ok(chat)
    }
}
