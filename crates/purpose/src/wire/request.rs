//! Requests to the server: from a body to a [`Request`] that borrows from it, and back.

use crate::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
use crate::limits::HEARTBEAT_BYTES_MAX;
use crate::wire::Version;
use crate::wire::codec::{Malformed, Put, Reader};
use crate::wire::extras::Extras;
use crate::wire::frame;
use crate::wire::purpose::ToServer;

/// A request, decoded but not yet checked. Fields are those of the tables in sections 4 and 5.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each field is named and described by its row of the protocol's tables
pub enum Request<'a> {
    /// ACCEPTED, DECLINED or PART: a sign of life, never answered.
    Answer {
        declined: bool,
    },
    Heartbeat {
        echo: &'a [u8],
    },
    Disconnect,
    Hello {
        major: u8,
        minor: u8,
    },
    Login {
        login: &'a str,
        password: &'a str,
    },
    Logoff,
    RestoreSession {
        session: SessionId,
        hash: &'a str,
    },
    GetUserId {
        nickname: &'a str,
    },
    GetChatId {
        name: &'a str,
    },
    ChatReqPass {
        chat: ChatId,
    },
    JoinChat {
        chat: ChatId,
        password: Option<&'a str>,
    },
    SendChatMsg {
        chat: ChatId,
        content: &'a str,
        nonce: Option<u64>,
        extras: Extras<'a>,
    },
    RequestChatMsg {
        chat: ChatId,
        from: ServerTime,
        to: Option<ServerTime>,
    },
    MarkSeen {
        chat: ChatId,
        time: ServerTime,
    },
    RegisterUser {
        login: &'a str,
        password: &'a str,
        invite: Option<&'a str>,
    },
    ChangePassword {
        old: &'a str,
        new: &'a str,
    },
    GetUser {
        user: UserId,
    },
    GetSessions,
    EndSession {
        session: SessionId,
    },
    SetPassword {
        login: &'a str,
        code: &'a str,
        password: &'a str,
    },
    ResetPassword {
        user: UserId,
    },
    FindUsers {
        prefix: &'a str,
        limit: u16,
    },
    CreateChat {
        name: &'a str,
        password: Option<&'a str>,
    },
    LeaveChat {
        chat: ChatId,
    },
    StartChat {
        user: UserId,
    },
    DeleteChat {
        chat: ChatId,
    },
    RenameChat {
        chat: ChatId,
        name: &'a str,
    },
    SetChatTitle {
        chat: ChatId,
        title: &'a str,
    },
    SetChatPassword {
        chat: ChatId,
        password: Option<&'a str>,
    },
    SetChatAdmin {
        chat: ChatId,
        user: UserId,
        admin: bool,
    },
    SetChatBan {
        chat: ChatId,
        user: UserId,
        banned: bool,
    },
    GetChat {
        chat: ChatId,
    },
    GetMyChats,
    GetMembers {
        chat: ChatId,
    },
    FindChats {
        prefix: &'a str,
        limit: u16,
    },
    SetUserDisabled {
        user: UserId,
        disabled: bool,
    },
    AddMember {
        chat: ChatId,
        user: UserId,
    },
    SetChatClosed {
        chat: ChatId,
        closed: bool,
    },
    EditMsg {
        chat: ChatId,
        message: MessageId,
        content: &'a str,
    },
    DeleteMsg {
        chat: ChatId,
        message: MessageId,
    },
    RequestChatPage {
        chat: ChatId,
        before: Option<MessageId>,
        limit: u16,
        newer: bool,
    },
    SearchMsg {
        chat: Option<ChatId>,
        limit: u16,
        query: &'a str,
    },
    RequestUpdates {
        from: ServerTime,
    },
    Typing {
        chat: ChatId,
    },
    SetChatNotify {
        chat: ChatId,
        notify: u8,
    },
    /// Without keys: no more pushes.
    SubscribePush {
        endpoint: &'a str,
        keys: Option<PushKeys<'a>>,
    },
    CreateInvite {
        registers: bool,
        uses: u16,
        days: u16,
        chat: Option<ChatId>,
    },
    GetInvites {
        chat: Option<ChatId>,
    },
    EndInvite {
        hint: &'a str,
    },
    UseInvite {
        code: &'a str,
    },
    React {
        chat: ChatId,
        message: MessageId,
        on: bool,
        emoji: &'a str,
    },
    GetReactions {
        chat: ChatId,
        message: MessageId,
    },
    BeginFile {
        chat: ChatId,
        size: u64,
        width: u16,
        height: u16,
        media_type: &'a str,
        name: &'a str,
    },
    PutFile {
        file: FileId,
        offset: u64,
        bytes: &'a [u8],
    },
    GetFile {
        file: FileId,
        offset: u64,
        length: u32,
    },
    EndFile {
        file: FileId,
    },
}

/// What a browser encrypts pushes by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PushKeys<'a> {
    /// Its public key, an uncompressed point of P-256.
    pub p256dh: &'a [u8; 65],
    /// Its secret.
    pub auth: &'a [u8; 16],
}

/// Highest value of SET_CHAT_NOTIFY: nothing is to be pushed.
const NOTIFY_MAX: u8 = 2;

impl<'a> Request<'a> {
    /// Decodes the body of a purpose that the version has.
    ///
    /// # Errors
    /// The first thing that is wrong with the body.
    // What every frame goes through is inlined, here and elsewhere: left to itself the compiler
    // makes calls and moves the request through memory, for a quarter of the instructions of a
    // HEARTBEAT.
    #[inline(always)]
    pub fn decode(purpose: ToServer, version: Version, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Reader::new(body);
        let request = Self::fields(purpose, version, &mut body)?;
        body.finish()?;
        Ok(request)
    }

    #[inline(always)]
    #[allow(clippy::too_many_lines)] // one arm per purpose, in the order of the table
    fn fields(
        purpose: ToServer,
        version: Version,
        body: &mut Reader<'a>,
    ) -> Result<Self, Malformed> {
        Ok(match purpose {
            ToServer::Accepted | ToServer::Declined | ToServer::Part => {
                body.take_rest();
                Self::Answer { declined: purpose == ToServer::Declined }
            }
            ToServer::Heartbeat => {
                let echo = body.take_rest();
                if echo.len() > HEARTBEAT_BYTES_MAX {
                    return Err(Malformed::HeartbeatTooLong);
                }
                Self::Heartbeat { echo }
            }
            ToServer::Disconnect => Self::Disconnect,
            ToServer::Hello => Self::Hello { major: body.u8()?, minor: body.u8()? },
            ToServer::Login => Self::Login { login: body.str()?, password: body.str()? },
            ToServer::Logoff => Self::Logoff,
            ToServer::RestoreSession => {
                Self::RestoreSession { session: body.session_id()?, hash: body.str()? }
            }
            ToServer::GetUserId => Self::GetUserId { nickname: body.str()? },
            ToServer::GetChatId => Self::GetChatId { name: body.str()? },
            ToServer::ChatReqPass => Self::ChatReqPass { chat: body.chat_id()? },
            ToServer::JoinChat => {
                Self::JoinChat { chat: body.chat_id()?, password: body.optional(Reader::str)? }
            }
            ToServer::SendChatMsg => Self::SendChatMsg {
                chat: body.chat_id()?,
                content: body.str()?,
                nonce: match version {
                    Version::V0_1 => None,
                    Version::V1_0 => body.optional(Reader::u64)?,
                    Version::V1_1 => Some(body.u64()?),
                },
                extras: match version {
                    Version::V0_1 | Version::V1_0 => Extras::NONE,
                    Version::V1_1 => Extras::read_sent(body.take_rest())?,
                },
            },
            ToServer::RequestChatMsg => Self::RequestChatMsg {
                chat: body.chat_id()?,
                from: body.time()?,
                to: body.optional(Reader::time)?,
            },
            ToServer::MarkSeen => Self::MarkSeen { chat: body.chat_id()?, time: body.time()? },
            ToServer::RegisterUser => Self::RegisterUser {
                login: body.str()?,
                password: body.str()?,
                invite: body.optional(Reader::str)?,
            },
            ToServer::ChangePassword => Self::ChangePassword { old: body.str()?, new: body.str()? },
            ToServer::GetUser => Self::GetUser { user: body.user_id()? },
            ToServer::GetSessions => Self::GetSessions,
            ToServer::EndSession => Self::EndSession { session: body.session_id()? },
            ToServer::SetPassword => {
                Self::SetPassword { login: body.str()?, code: body.str()?, password: body.str()? }
            }
            ToServer::ResetPassword => Self::ResetPassword { user: body.user_id()? },
            ToServer::FindUsers => Self::FindUsers { prefix: body.str()?, limit: body.u16()? },
            ToServer::CreateChat => {
                Self::CreateChat { name: body.str()?, password: body.optional(Reader::str)? }
            }
            ToServer::LeaveChat => Self::LeaveChat { chat: body.chat_id()? },
            ToServer::StartChat => Self::StartChat { user: body.user_id()? },
            ToServer::DeleteChat => Self::DeleteChat { chat: body.chat_id()? },
            ToServer::RenameChat => Self::RenameChat { chat: body.chat_id()?, name: body.str()? },
            ToServer::SetChatTitle => {
                Self::SetChatTitle { chat: body.chat_id()?, title: body.str()? }
            }
            ToServer::SetChatPassword => Self::SetChatPassword {
                chat: body.chat_id()?,
                password: body.optional(Reader::str)?,
            },
            ToServer::SetChatAdmin => Self::SetChatAdmin {
                chat: body.chat_id()?,
                user: body.user_id()?,
                admin: body.bool()?,
            },
            ToServer::SetChatBan => Self::SetChatBan {
                chat: body.chat_id()?,
                user: body.user_id()?,
                banned: body.bool()?,
            },
            ToServer::GetChat => Self::GetChat { chat: body.chat_id()? },
            ToServer::GetMyChats => Self::GetMyChats,
            ToServer::GetMembers => Self::GetMembers { chat: body.chat_id()? },
            ToServer::FindChats => Self::FindChats { prefix: body.str()?, limit: body.u16()? },
            ToServer::SetUserDisabled => {
                Self::SetUserDisabled { user: body.user_id()?, disabled: body.bool()? }
            }
            ToServer::AddMember => Self::AddMember { chat: body.chat_id()?, user: body.user_id()? },
            ToServer::SetChatClosed => {
                Self::SetChatClosed { chat: body.chat_id()?, closed: body.bool()? }
            }
            ToServer::EditMsg => Self::EditMsg {
                chat: body.chat_id()?,
                message: body.message_id()?,
                content: body.str()?,
            },
            ToServer::DeleteMsg => {
                Self::DeleteMsg { chat: body.chat_id()?, message: body.message_id()? }
            }
            ToServer::RequestChatPage => Self::RequestChatPage {
                chat: body.chat_id()?,
                before: match body.u64()? {
                    0 => None,
                    raw => Some(MessageId::new(raw).unwrap_or(MessageId::at(ServerTime::MAX))),
                },
                limit: body.u16()?,
                newer: version.has_extras() && body.optional(Reader::bool)?.unwrap_or(false),
            },
            ToServer::SearchMsg => Self::SearchMsg {
                chat: ChatId::new(body.u32()?),
                limit: body.u16()?,
                query: body.str()?,
            },
            ToServer::RequestUpdates => Self::RequestUpdates { from: body.time()? },
            ToServer::Typing => Self::Typing { chat: body.chat_id()? },
            ToServer::SetChatNotify => Self::SetChatNotify {
                chat: body.chat_id()?,
                notify: match body.u8()? {
                    notify if notify <= NOTIFY_MAX => notify,
                    _ => return Err(Malformed::BadValue),
                },
            },
            ToServer::SubscribePush => {
                let endpoint = body.str()?;
                let keys = match endpoint {
                    "" => None,
                    _ => Some(PushKeys { p256dh: body.bytes_of()?, auth: body.bytes_of()? }),
                };
                Self::SubscribePush { endpoint, keys }
            }
            ToServer::CreateInvite => {
                let (registers, uses, days) = (body.bool()?, body.u16()?, body.u16()?);
                let chat = ChatId::new(body.u32()?);
                if uses == 0 || days == 0 || !registers && chat.is_none() {
                    return Err(Malformed::BadValue);
                }
                Self::CreateInvite { registers, uses, days, chat }
            }
            ToServer::GetInvites => Self::GetInvites { chat: ChatId::new(body.u32()?) },
            ToServer::EndInvite => Self::EndInvite { hint: body.str()? },
            ToServer::UseInvite => Self::UseInvite { code: body.str()? },
            ToServer::React => Self::React {
                chat: body.chat_id()?,
                message: body.message_id()?,
                on: body.bool()?,
                emoji: body.str()?,
            },
            ToServer::GetReactions => {
                Self::GetReactions { chat: body.chat_id()?, message: body.message_id()? }
            }
            ToServer::BeginFile => Self::BeginFile {
                chat: body.chat_id()?,
                size: match body.u64()? {
                    0 => return Err(Malformed::NoBytes),
                    size => size,
                },
                width: body.u16()?,
                height: body.u16()?,
                media_type: body.str()?,
                name: body.str()?,
            },
            ToServer::PutFile => Self::PutFile {
                file: body.file_id()?,
                offset: body.u64()?,
                bytes: match body.take_rest() {
                    [] => return Err(Malformed::NoBytes),
                    bytes => bytes,
                },
            },
            ToServer::GetFile => {
                Self::GetFile { file: body.file_id()?, offset: body.u64()?, length: body.u32()? }
            }
            ToServer::EndFile => Self::EndFile { file: body.file_id()? },
        })
    }

    /// The purpose that asks for this.
    pub const fn purpose(&self) -> ToServer {
        match self {
            Self::Answer { declined: false } => ToServer::Accepted,
            Self::Answer { declined: true } => ToServer::Declined,
            Self::Heartbeat { .. } => ToServer::Heartbeat,
            Self::Disconnect => ToServer::Disconnect,
            Self::Hello { .. } => ToServer::Hello,
            Self::Login { .. } => ToServer::Login,
            Self::Logoff => ToServer::Logoff,
            Self::RestoreSession { .. } => ToServer::RestoreSession,
            Self::GetUserId { .. } => ToServer::GetUserId,
            Self::GetChatId { .. } => ToServer::GetChatId,
            Self::ChatReqPass { .. } => ToServer::ChatReqPass,
            Self::JoinChat { .. } => ToServer::JoinChat,
            Self::SendChatMsg { .. } => ToServer::SendChatMsg,
            Self::RequestChatMsg { .. } => ToServer::RequestChatMsg,
            Self::MarkSeen { .. } => ToServer::MarkSeen,
            Self::RegisterUser { .. } => ToServer::RegisterUser,
            Self::ChangePassword { .. } => ToServer::ChangePassword,
            Self::GetUser { .. } => ToServer::GetUser,
            Self::GetSessions => ToServer::GetSessions,
            Self::EndSession { .. } => ToServer::EndSession,
            Self::SetPassword { .. } => ToServer::SetPassword,
            Self::ResetPassword { .. } => ToServer::ResetPassword,
            Self::FindUsers { .. } => ToServer::FindUsers,
            Self::CreateChat { .. } => ToServer::CreateChat,
            Self::LeaveChat { .. } => ToServer::LeaveChat,
            Self::StartChat { .. } => ToServer::StartChat,
            Self::DeleteChat { .. } => ToServer::DeleteChat,
            Self::RenameChat { .. } => ToServer::RenameChat,
            Self::SetChatTitle { .. } => ToServer::SetChatTitle,
            Self::SetChatPassword { .. } => ToServer::SetChatPassword,
            Self::SetChatAdmin { .. } => ToServer::SetChatAdmin,
            Self::SetChatBan { .. } => ToServer::SetChatBan,
            Self::GetChat { .. } => ToServer::GetChat,
            Self::GetMyChats => ToServer::GetMyChats,
            Self::GetMembers { .. } => ToServer::GetMembers,
            Self::FindChats { .. } => ToServer::FindChats,
            Self::SetUserDisabled { .. } => ToServer::SetUserDisabled,
            Self::AddMember { .. } => ToServer::AddMember,
            Self::SetChatClosed { .. } => ToServer::SetChatClosed,
            Self::EditMsg { .. } => ToServer::EditMsg,
            Self::DeleteMsg { .. } => ToServer::DeleteMsg,
            Self::RequestChatPage { .. } => ToServer::RequestChatPage,
            Self::SearchMsg { .. } => ToServer::SearchMsg,
            Self::RequestUpdates { .. } => ToServer::RequestUpdates,
            Self::Typing { .. } => ToServer::Typing,
            Self::SetChatNotify { .. } => ToServer::SetChatNotify,
            Self::SubscribePush { .. } => ToServer::SubscribePush,
            Self::CreateInvite { .. } => ToServer::CreateInvite,
            Self::GetInvites { .. } => ToServer::GetInvites,
            Self::EndInvite { .. } => ToServer::EndInvite,
            Self::UseInvite { .. } => ToServer::UseInvite,
            Self::React { .. } => ToServer::React,
            Self::GetReactions { .. } => ToServer::GetReactions,
            Self::BeginFile { .. } => ToServer::BeginFile,
            Self::PutFile { .. } => ToServer::PutFile,
            Self::GetFile { .. } => ToServer::GetFile,
            Self::EndFile { .. } => ToServer::EndFile,
        }
    }

    /// Appends the whole frame to `out`, as a client sends it.
    pub fn write(&self, out: &mut Vec<u8>, task: u8) {
        frame::write(out, self.purpose().byte(), task, |body| self.write_body(body));
    }

    #[allow(clippy::too_many_lines)] // one arm per shape of a body
    fn write_body(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Answer { .. }
            | Self::Disconnect
            | Self::Logoff
            | Self::GetSessions
            | Self::GetMyChats => {}
            Self::Heartbeat { echo } => out.put_bytes(echo),
            Self::Hello { major, minor } => out.put_bytes(&[major, minor]),
            Self::Login { login, password } => put_strs(out, [Some(login), Some(password)]),
            Self::RestoreSession { session, hash } => {
                out.put_u32(session.get());
                out.put_str(hash);
            }
            Self::GetUserId { nickname: name } | Self::GetChatId { name } => out.put_str(name),
            Self::ChatReqPass { chat }
            | Self::LeaveChat { chat }
            | Self::DeleteChat { chat }
            | Self::GetChat { chat }
            | Self::GetMembers { chat }
            | Self::Typing { chat } => out.put_u32(chat.get()),
            Self::JoinChat { chat, password } | Self::SetChatPassword { chat, password } => {
                out.put_u32(chat.get());
                put_strs(out, [password]);
            }
            Self::SendChatMsg { chat, content, nonce, extras } => {
                out.put_u32(chat.get());
                out.put_str(content);
                if let Some(nonce) = nonce {
                    out.put_u64(nonce);
                }
                out.put_bytes(extras.bytes());
            }
            Self::RequestChatMsg { chat, from, to } => {
                out.put_u32(chat.get());
                out.put_time(from);
                if let Some(to) = to {
                    out.put_time(to);
                }
            }
            Self::MarkSeen { chat, time } => {
                out.put_u32(chat.get());
                out.put_time(time);
            }
            Self::RegisterUser { login, password, invite } => {
                put_strs(out, [Some(login), Some(password), invite]);
            }
            Self::SetPassword { login, code, password } => {
                put_strs(out, [Some(login), Some(code), Some(password)]);
            }
            Self::SetUserDisabled { user, disabled } => {
                out.put_u32(user.get());
                out.put_bool(disabled);
            }
            Self::AddMember { chat, user } => {
                out.put_u32(chat.get());
                out.put_u32(user.get());
            }
            Self::SetChatClosed { chat, closed } => {
                out.put_u32(chat.get());
                out.put_bool(closed);
            }
            Self::SetChatNotify { chat, notify } => {
                out.put_u32(chat.get());
                out.put_u8(notify);
            }
            Self::SubscribePush { endpoint, keys } => {
                out.put_str(endpoint);
                if let Some(keys) = keys {
                    out.put_bytes(keys.p256dh);
                    out.put_bytes(keys.auth);
                }
            }
            Self::CreateInvite { registers, uses, days, chat } => {
                out.put_bool(registers);
                out.put_u16(uses);
                out.put_u16(days);
                out.put_u32(chat.map_or(0, ChatId::get));
            }
            Self::GetInvites { chat } => out.put_u32(chat.map_or(0, ChatId::get)),
            Self::EndInvite { hint: text } | Self::UseInvite { code: text } => out.put_str(text),
            Self::ChangePassword { old, new } => put_strs(out, [Some(old), Some(new)]),
            Self::GetUser { user } | Self::StartChat { user } | Self::ResetPassword { user } => {
                out.put_u32(user.get());
            }
            Self::EndSession { session } => out.put_u32(session.get()),
            Self::CreateChat { name, password } => put_strs(out, [Some(name), password]),
            Self::RenameChat { chat, name: text } | Self::SetChatTitle { chat, title: text } => {
                out.put_u32(chat.get());
                out.put_str(text);
            }
            Self::SetChatAdmin { chat, user, admin: flag }
            | Self::SetChatBan { chat, user, banned: flag } => {
                out.put_u32(chat.get());
                out.put_u32(user.get());
                out.put_bool(flag);
            }
            Self::FindChats { prefix, limit } | Self::FindUsers { prefix, limit } => {
                out.put_str(prefix);
                out.put_u16(limit);
            }
            Self::EditMsg { chat, message, content } => {
                out.put_u32(chat.get());
                out.put_u64(message.get());
                out.put_str(content);
            }
            Self::DeleteMsg { chat, message } | Self::GetReactions { chat, message } => {
                out.put_u32(chat.get());
                out.put_u64(message.get());
            }
            Self::BeginFile { chat, size, width, height, media_type, name } => {
                out.put_u32(chat.get());
                out.put_u64(size);
                out.put_u16(width);
                out.put_u16(height);
                put_strs(out, [Some(media_type), Some(name)]);
            }
            Self::PutFile { file, offset, bytes } => {
                out.put_u64(file.get());
                out.put_u64(offset);
                out.put_bytes(bytes);
            }
            Self::GetFile { file, offset, length } => {
                out.put_u64(file.get());
                out.put_u64(offset);
                out.put_u32(length);
            }
            Self::EndFile { file } => out.put_u64(file.get()),
            Self::React { chat, message, on, emoji } => {
                out.put_u32(chat.get());
                out.put_u64(message.get());
                out.put_bool(on);
                out.put_str(emoji);
            }
            Self::RequestChatPage { chat, before, limit, newer } => {
                out.put_u32(chat.get());
                out.put_u64(before.map_or(0, MessageId::get));
                out.put_u16(limit);
                if newer {
                    out.put_bool(true);
                }
            }
            Self::SearchMsg { chat, limit, query } => {
                out.put_u32(chat.map_or(0, ChatId::get));
                out.put_u16(limit);
                out.put_str(query);
            }
            Self::RequestUpdates { from } => out.put_time(from),
        }
    }
}

fn put_strs<const N: usize>(out: &mut Vec<u8>, strs: [Option<&str>; N]) {
    for text in strs.into_iter().flatten() {
        out.put_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Frame, Parsed, parse};

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn samples() -> Vec<Request<'static>> {
        let chat = ChatId::new(7).expect("not 0");
        let user = UserId::new(8).expect("not 0");
        let session = SessionId::new(9).expect("not 0");
        let time = ServerTime::new(10).expect("positive");
        let message = MessageId::at(time);
        vec![
            Request::Answer { declined: false },
            Request::Heartbeat { echo: b"\0abc" },
            Request::Disconnect,
            Request::Hello { major: 1, minor: 0 },
            Request::Login { login: "anna", password: "correct horse" },
            Request::Logoff,
            Request::RestoreSession { session, hash: "00ff" },
            Request::GetUserId { nickname: "анна" },
            Request::GetChatId { name: "зал" },
            Request::ChatReqPass { chat },
            Request::JoinChat { chat, password: None },
            Request::JoinChat { chat, password: Some("") },
            Request::SendChatMsg { chat, content: "hi", nonce: None, extras: Extras::NONE },
            Request::SendChatMsg { chat, content: "hi", nonce: Some(9), extras: Extras::NONE },
            Request::RequestChatMsg { chat, from: time, to: None },
            Request::RequestChatMsg { chat, from: time, to: Some(time) },
            Request::MarkSeen { chat, time },
            Request::RegisterUser { login: "a", password: "b", invite: Some("c") },
            Request::ChangePassword { old: "a", new: "b" },
            Request::GetUser { user },
            Request::GetSessions,
            Request::EndSession { session },
            Request::SetPassword { login: "a", code: "b", password: "c" },
            Request::ResetPassword { user },
            Request::FindUsers { prefix: "a", limit: 3 },
            Request::SetUserDisabled { user, disabled: true },
            Request::AddMember { chat, user },
            Request::SetChatClosed { chat, closed: true },
            Request::SetChatNotify { chat, notify: 2 },
            Request::SubscribePush { endpoint: "", keys: None },
            Request::SubscribePush {
                endpoint: "https://a/",
                keys: Some(PushKeys { p256dh: &[4; 65], auth: &[5; 16] }),
            },
            Request::CreateInvite { registers: true, uses: 1, days: 2, chat: None },
            Request::CreateInvite { registers: false, uses: 1, days: 2, chat: Some(chat) },
            Request::GetInvites { chat: None },
            Request::EndInvite { hint: "0123-45" },
            Request::UseInvite { code: "a" },
            Request::CreateChat { name: "a", password: None },
            Request::LeaveChat { chat },
            Request::StartChat { user },
            Request::DeleteChat { chat },
            Request::RenameChat { chat, name: "b" },
            Request::SetChatTitle { chat, title: "" },
            Request::SetChatPassword { chat, password: Some("p") },
            Request::SetChatAdmin { chat, user, admin: true },
            Request::SetChatBan { chat, user, banned: false },
            Request::GetChat { chat },
            Request::GetMyChats,
            Request::GetMembers { chat },
            Request::FindChats { prefix: "", limit: 3 },
            Request::EditMsg { chat, message, content: "x" },
            Request::DeleteMsg { chat, message },
            Request::RequestChatPage { chat, before: None, limit: 50, newer: false },
            Request::RequestChatPage { chat, before: Some(message), limit: 50, newer: false },
            Request::SearchMsg { chat: None, limit: 5, query: "q" },
            Request::RequestUpdates { from: time },
            Request::Typing { chat },
            Request::React { chat, message, on: true, emoji: "👍" },
            Request::GetReactions { chat, message },
            Request::BeginFile { chat, size: 9, width: 1, height: 2, media_type: "a/b", name: "c" },
            Request::PutFile { file: FileId::MAX, offset: 7, bytes: b"x" },
            Request::GetFile { file: FileId::MAX, offset: 7, length: 8 },
            Request::EndFile { file: FileId::MAX },
        ]
    }

    #[test]
    fn every_request_reads_back_as_written_and_not_when_cut_or_stretched() {
        for request in samples() {
            let mut bytes = Vec::new();
            request.write(&mut bytes, 5);
            let Parsed::Frame(Frame { purpose, task: 5, body }) = parse(&bytes, 1 << 16) else {
                panic!("no frame in {bytes:?}");
            };
            let purpose = ToServer::from_byte(purpose).expect("in the table");
            assert_eq!(purpose, request.purpose());
            let version = Version::V1_0.max(purpose.since());
            assert!(Request::decode(purpose, version, body) == Ok(request));
            if matches!(
                request,
                Request::Answer { .. } | Request::Heartbeat { .. } | Request::PutFile { .. }
            ) {
                continue;
            }
            for cut in 0..body.len() {
                if let Ok(other) = Request::decode(purpose, version, &body[..cut]) {
                    assert!(other != request, "{} cut at {cut}", purpose.name());
                }
            }
            let longer = [body, b"\0\0\0\0\0\0\0\0\0"].concat();
            assert!(Request::decode(purpose, version, &longer).is_err());
        }
    }

    #[test]
    fn values_without_a_meaning_are_malformed() {
        let refused = |purpose, body: &[u8]| {
            assert!(Request::decode(purpose, Version::V1_1, body) == Err(Malformed::BadValue));
        };
        refused(ToServer::SetChatNotify, &[1, 0, 0, 0, 3]);
        refused(ToServer::CreateInvite, &[1, 0, 0, 1, 0, 0, 0, 0, 0]);
        refused(ToServer::CreateInvite, &[1, 1, 0, 0, 0, 0, 0, 0, 0]);
        refused(ToServer::CreateInvite, &[0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_nonce_belongs_to_1_0() {
        let mut body = Vec::new();
        body.put_u32(7);
        body.put_str("hi");
        body.put_u64(3);
        let decode = |version| Request::decode(ToServer::SendChatMsg, version, &body);
        assert!(decode(Version::V1_0).is_ok());
        assert!(decode(Version::V0_1) == Err(Malformed::Trailing));
    }
}
