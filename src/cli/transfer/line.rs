//! The lines of an exported chat: JSON objects of one key that says what a line is.
//!
//! ```text
//! {"chat":{"format":2,"name":"kitchen",…}}       first
//! {"member":{"name":"anna","admin":true,…}}      then members
//! {"banned":{"name":"boris"}}                    and who is banned,
//! {"file":{"message":1700000000000000,…}}        before a message each of its files:
//! {"bytes":"aGVsbG8="}                           its bytes, in base64, a part a line,
//! {"sha256":"2cf24dba…"}                         and what they amount to;
//! {"message":{"id":1700000000000000,…}}          then messages by id,
//! {"reaction":{"message":1700000000000000,…}}    then reactions by message and time,
//! {"end":{"messages":1}}                         and last how many there are
//! ```
//!
//! A file without its last line was cut off, for its message was deleted while it was written: the
//! message that follows says so, or is left out. Format 1 had no files: each was a line behind the
//! text of its message, as it still is where they are left out.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The format of the lines that this version writes,
pub(super) const FORMAT: u32 = 2;
/// and the oldest that it reads.
pub(super) const FORMAT_MIN: u32 = 1;

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Chat(ChatLine),
    Member(MemberLine),
    Banned(BannedLine),
    #[serde(borrow)]
    File(FileLine<'a>),
    #[serde(borrow)]
    Bytes(Cow<'a, str>),
    #[serde(borrow)]
    Sha256(Cow<'a, str>),
    #[serde(borrow)]
    Message(MessageLine<'a>),
    #[serde(borrow)]
    Reaction(ReactionLine<'a>),
    End(EndLine),
}

/// What a chat is.
#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatLine {
    pub(super) format: u32,
    /// Empty for a direct chat.
    pub(super) name: String,
    /// The two of a direct chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) direct: Option<[String; 2]>,
    pub(super) title: String,
    /// Whether who joins needs a password.
    pub(super) password: bool,
    /// Its stored form, a salted hash, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password_hash: Option<String>,
    /// Server time, in microseconds, as all times here.
    pub(super) created: i64,
    pub(super) slow_mode_s: u32,
    pub(super) keep_days: u32,
    /// Hidden from users who are not members. Older versions reject the field, and with it the
    /// chat, instead of opening it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) closed: bool,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberLine {
    pub(super) name: String,
    pub(super) admin: bool,
    pub(super) joined: i64,
    /// The member's marker; 0 when nothing was read.
    pub(super) seen: i64,
    /// Pushes: 0 all, 1 mentions and replies, 2 none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) notify: u8,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct BannedLine {
    pub(super) name: String,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageLine<'a> {
    /// The time of its creation, too.
    pub(super) id: i64,
    #[serde(borrow)]
    pub(super) sender: Cow<'a, str>,
    /// Whether the sender is a bot.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) bot: bool,
    /// When it was edited, deleted, or last reacted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) updated: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) edited: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) deleted: bool,
    #[serde(borrow)]
    /// Where files are left out, a line for each stands behind the text.
    pub(super) content: Cow<'a, str>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<i64>,
}

/// A file of the message that follows.
#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLine<'a> {
    pub(super) message: i64,
    /// Who uploaded it.
    #[serde(borrow)]
    pub(super) user: Cow<'a, str>,
    pub(super) size: u64,
    /// Pixels of an image or video; 0: neither.
    pub(super) width: u16,
    pub(super) height: u16,
    #[serde(borrow)]
    pub(super) media_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct ReactionLine<'a> {
    pub(super) message: i64,
    #[serde(borrow)]
    pub(super) user: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) emoji: Cow<'a, str>,
    /// When this emoji came to the message,
    pub(super) since: i64,
    /// and when the user gave it.
    pub(super) given: i64,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) messages: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}
