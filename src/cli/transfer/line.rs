//! The lines of an exported chat: JSON objects of one key that says what a line is.
//!
//! ```text
//! {"chat":{"format":1,"name":"kitchen",…}}       first
//! {"member":{"name":"anna","admin":true,…}}      then members
//! {"banned":{"name":"boris"}}                    and who is banned,
//! {"message":{"id":1700000000000000,…}}          then messages by id,
//! {"reaction":{"message":1700000000000000,…}}    then reactions by message and time,
//! {"end":{"messages":1}}                         and last how many there are
//! ```

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The format of the lines that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Chat(ChatLine),
    Member(MemberLine),
    Banned(BannedLine),
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
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberLine {
    pub(super) name: String,
    pub(super) admin: bool,
    pub(super) joined: i64,
    /// The member's marker; 0 when nothing was read.
    pub(super) seen: i64,
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
    /// When it was edited, deleted, or last reacted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) updated: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) edited: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) deleted: bool,
    #[serde(borrow)]
    /// A line for each file stands behind the text.
    pub(super) content: Cow<'a, str>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<i64>,
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
