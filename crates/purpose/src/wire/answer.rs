//! Frames from the server, appended to an outbound buffer.

use std::fmt::Write as _;

use crate::ids::{ChatId, ServerTime, UserId};
use crate::wire::Version;
use crate::wire::codec::{Put, Text};
use crate::wire::decline::Decline;
use crate::wire::frame;
use crate::wire::purpose::ToClient;

/// Appends ACCEPTED; `write` appends its body.
#[inline]
pub fn accepted(out: &mut Vec<u8>, task: u8, write: impl FnOnce(&mut Vec<u8>)) {
    frame::write(out, ToClient::Accepted.byte(), task, write);
}

/// Appends a PART of a streamed answer; `write` appends its body.
#[inline]
pub fn part(out: &mut Vec<u8>, task: u8, write: impl FnOnce(&mut Vec<u8>)) {
    frame::write(out, ToClient::Part.byte(), task, write);
}

/// Appends DECLINED with the code and the message of a reason.
#[inline]
pub fn declined(out: &mut Vec<u8>, task: u8, reason: Decline) {
    frame::write(out, ToClient::Declined.byte(), task, |body| {
        let start = body.len();
        // Writing to a Vec cannot fail.
        let _ = write!(Text(body), "{reason}");
        debug_assert!(
            body.len() > start + reason.code().len() + 2,
            "a reason has code and message"
        );
        debug_assert!(!body.iter().skip(start).any(|&byte| byte == 0), "it is one str");
        body.put_u8(0);
    });
}

/// Appends a frame without a request: HEARTBEAT, DISCONNECT or DEAUTH (task 0, no body).
#[inline]
pub fn bare(out: &mut Vec<u8>, purpose: ToClient) {
    debug_assert!(matches!(purpose, ToClient::Heartbeat | ToClient::Disconnect | ToClient::Deauth));
    frame::write(out, purpose.byte(), 0, |_| {});
}

/// A change of a membership, in MEMBER_NOTIFY (section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MemberEvent {
    /// Became a member.
    Joined = 1,
    /// Left.
    Left = 2,
    /// Became an admin.
    Admin = 3,
    /// Is no longer an admin.
    NoLongerAdmin = 4,
    /// Was banned, and so is no longer a member.
    Banned = 5,
}

/// Kind of a chat: a group, which users find by name and join.
pub const CHAT_KIND_GROUP: u8 = 0;
/// Kind of a chat: direct, between two users.
pub const CHAT_KIND_DIRECT: u8 = 1;

/// Flag of a chat that has a password.
pub const CHAT_HAS_PASSWORD: u8 = 0x01;
/// Flag of a chat that the asking user is a member of.
pub const CHAT_MEMBER: u8 = 0x02;
/// Flag of a chat that the asking user is an admin of.
pub const CHAT_ADMIN: u8 = 0x04;
/// Flag of a chat that is hidden from users who are not members; sent on 1.1.
pub const CHAT_CLOSED: u8 = 0x08;

/// The chat_info of section 5, as one user sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatInfo<'a> {
    /// Its id.
    pub chat: ChatId,
    /// [`CHAT_KIND_GROUP`] or [`CHAT_KIND_DIRECT`].
    pub kind: u8,
    /// [`CHAT_HAS_PASSWORD`], [`CHAT_MEMBER`], [`CHAT_ADMIN`], [`CHAT_CLOSED`].
    pub flags: u8,
    /// Number of members.
    pub members: u32,
    /// When its newest message was created; zero: it has none.
    pub last_message: ServerTime,
    /// The user's read marker; zero: it was never set.
    pub seen: ServerTime,
    /// Messages of other users after the marker, counted up to 1000.
    pub unread: u32,
    /// Its name; empty for a direct chat.
    pub name: &'a str,
    /// Its title; the other's nickname for a direct chat.
    pub title: &'a str,
    /// Which messages the user gets pushes for: 0 all, 1 those that mention or answer the user, 2
    /// none.
    pub notify: u8,
}

/// Appends a chat_info, as the version encodes it.
#[inline]
pub fn put_chat_info(out: &mut Vec<u8>, version: Version, info: &ChatInfo<'_>) {
    debug_assert!(info.kind == CHAT_KIND_GROUP || info.kind == CHAT_KIND_DIRECT);
    debug_assert!(info.flags & !(CHAT_HAS_PASSWORD | CHAT_MEMBER | CHAT_ADMIN | CHAT_CLOSED) == 0);
    debug_assert!(info.flags & (CHAT_ADMIN | CHAT_MEMBER) != CHAT_ADMIN, "an admin is a member");
    debug_assert!(
        info.kind == CHAT_KIND_GROUP || info.name.is_empty(),
        "a direct chat has no name"
    );
    let is_longer = version.has_extras();
    out.put_u32(info.chat.get());
    out.put_u8(info.kind);
    out.put_u8(if is_longer { info.flags } else { info.flags & !CHAT_CLOSED });
    out.put_u32(info.members);
    out.put_time(info.last_message);
    out.put_time(info.seen);
    out.put_u32(info.unread);
    out.put_str(info.name);
    out.put_str(info.title);
    if is_longer {
        out.put_u8(info.notify);
    }
}

/// Flag of a user who is an operator of the server (1.1).
pub const USER_OPERATOR: u8 = 0x01;
/// Flag of a user with an attached session.
pub const USER_ONLINE: u8 = 0x02;
/// Flag of a user who is disabled (1.1).
pub const USER_DISABLED: u8 = 0x04;
/// Flag of a user that is a bot (1.1).
pub const USER_BOT: u8 = 0x08;

/// Flag of a member who is an admin.
pub const MEMBER_ADMIN: u8 = 0x01;
/// Flag of a member (or user) with an attached session.
pub const MEMBER_ONLINE: u8 = 0x02;
/// Flag of a user who is banned from the chat.
pub const MEMBER_BANNED: u8 = 0x04;

/// Appends a user of section 5a.
#[inline]
pub fn put_user(out: &mut Vec<u8>, user: UserId, flags: u8, created: ServerTime, nickname: &str) {
    debug_assert!(flags & !(USER_OPERATOR | USER_ONLINE | USER_DISABLED | USER_BOT) == 0);
    out.put_u32(user.get());
    out.put_u8(flags);
    out.put_time(created);
    out.put_str(nickname);
}

/// Appends a member of section 5.
#[inline]
pub fn put_member(out: &mut Vec<u8>, user: UserId, flags: u8, seen: ServerTime, nickname: &str) {
    debug_assert!(flags & !(MEMBER_ADMIN | MEMBER_ONLINE | MEMBER_BANNED) == 0);
    debug_assert!(flags & MEMBER_BANNED == 0 || flags & MEMBER_ADMIN == 0, "no admin is banned");
    out.put_u32(user.get());
    out.put_u8(flags);
    out.put_time(seen);
    out.put_str(nickname);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decline_is_code_words_and_a_nul() {
        let mut out = Vec::new();
        declined(&mut out, 4, Decline::HelloRequired);
        let text = b"hello-required: say HELLO first\0";
        assert_eq!(&out[..6], &[text.len() as u8, 0, 0, 0, 1, 4]);
        assert_eq!(&out[6..], text);
    }

    #[test]
    fn frames_of_the_servers_own_have_task_0() {
        let mut out = Vec::new();
        bare(&mut out, ToClient::Deauth);
        assert_eq!(out, [0, 0, 0, 0, 0x22, 0]);
    }
}
