//! Requests: decoding a body to a [`Request`] that borrows from it, and encoding.
//!
//! The requests are defined by the rows of [`super::purpose`].

use crate::wire::Version;
use crate::wire::codec::{Malformed, Reader};
use crate::wire::frame;
use crate::wire::purpose::ToServer;

pub use crate::wire::field::PushKeys;
pub use crate::wire::purpose::Request;

impl<'a> Request<'a> {
    /// Decodes the body of a request.
    ///
    /// # Errors
    /// The first field that is malformed.
    #[inline(always)]
    pub fn decode(purpose: ToServer, version: Version, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Reader::new(body);
        let request = Self::read_fields(purpose, version, &mut body)?;
        body.finish()?;
        request.check()?;
        Ok(request)
    }

    /// Checks rules that involve several fields.
    const fn check(&self) -> Result<(), Malformed> {
        match *self {
            Self::CreateInvite { registers, uses, days, chat }
                if uses == 0 || days == 0 || !registers && chat.is_none() =>
            {
                Err(Malformed::BadValue)
            }
            // Without an endpoint there must be no keys, and with one there must be.
            Self::SubscribePush { endpoint, keys } => match (endpoint.is_empty(), keys.is_some()) {
                (true, true) => Err(Malformed::Trailing),
                (false, false) => Err(Malformed::Short),
                (true, false) | (false, true) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Appends the whole frame, as a client sends it.
    pub fn write(&self, out: &mut Vec<u8>, task: u8) {
        frame::write(out, self.purpose().byte(), task, |body| self.put_fields(body));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
    use crate::wire::codec::Put;
    use crate::wire::extras::Extras;
    use crate::wire::frame::{Frame, Parsed, parse};

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn samples() -> Vec<Request<'static>> {
        let chat = ChatId::new(7).expect("not 0");
        let user = UserId::new(8).expect("not 0");
        let session = SessionId::new(9).expect("not 0");
        let time = ServerTime::new(10).expect("positive");
        let message = MessageId::at(time);
        vec![
            Request::Accepted { rest: b"" },
            Request::Declined { rest: b"bad-name: x\0" },
            Request::Part { rest: b"" },
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
                Request::Accepted { .. }
                    | Request::Declined { .. }
                    | Request::Part { .. }
                    | Request::Heartbeat { .. }
                    | Request::PutFile { .. }
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
