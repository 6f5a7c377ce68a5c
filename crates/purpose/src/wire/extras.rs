//! Extras of a message on 1.1: the answered message, files, reactions (protocol section 5a).
//!
//! On the wire, an extra is a kind, a length, and that many bytes. Readers skip unknown kinds.

use std::fmt::Write as _;

use crate::ids::{FileId, MessageId, UserId};
use crate::limits::{
    EMOJI_BYTES_MAX, EMOJI_PER_MESSAGE_MAX, FILE_NAME_BYTES_MAX, MEDIA_TYPE_BYTES_MAX,
    MESSAGE_FILES_MAX,
};
use crate::wire::codec::{Malformed, Put, Reader, Text};

/// Kind: the answered message.
const REPLY: u8 = 0x01;
/// Kind: a file, as sent to readers.
const FILE: u8 = 0x02;
/// Kind: the reactions.
const REACTIONS: u8 = 0x03;
/// Kind: a file, as the sender attaches it.
const ATTACH: u8 = 0x04;

/// The description of a file, without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileInfo<'a> {
    /// Its id.
    pub id: FileId,
    /// Its size, in bytes.
    pub size: u64,
    /// Width of an image or video in pixels; 0: unknown or neither.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Its media type, such as `image/png`.
    pub media_type: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl<'a> FileInfo<'a> {
    #[inline]
    fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            id: body.file_id()?,
            size: body.u64()?,
            width: body.u16()?,
            height: body.u16()?,
            media_type: body.str()?,
            name: body.str()?,
        })
    }
}

/// One emoji of a message, with its count and its first users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reaction<'a> {
    /// The emoji.
    pub emoji: &'a str,
    /// Number of users who gave it.
    pub count: u16,
    /// Encoded ids of the first users who gave it.
    shown: &'a [u8],
}

impl<'a> Reaction<'a> {
    #[inline]
    fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (emoji, count) = (body.str()?, body.u16()?);
        let shown = usize::from(body.u8()?);
        Ok(Self { emoji, count, shown: body.bytes(4 * shown)? })
    }

    /// The first users who gave it.
    #[inline]
    pub fn shown(&self) -> impl Iterator<Item = UserId> + 'a {
        let mut ids = Reader::new(self.shown);
        std::iter::from_fn(move || ids.user_id().ok())
    }
}

/// One extra.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra<'a> {
    /// The answered message.
    Reply(MessageId),
    /// A file.
    File(FileInfo<'a>),
    /// The reactions, still to be read by [`Reactions`].
    Reactions(Reactions<'a>),
    /// A file that the sender attaches.
    Attach(FileId),
    /// A kind that this version does not know.
    Unknown(u8),
}

/// Iterator over the reactions of a message, one emoji each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reactions<'a>(&'a [u8]);

impl<'a> Iterator for Reactions<'a> {
    type Item = Reaction<'a>;

    #[inline]
    fn next(&mut self) -> Option<Reaction<'a>> {
        let mut body = Reader::new(self.0);
        let reaction = Reaction::read(&mut body);
        debug_assert!(reaction.is_ok() || self.0.is_empty(), "reactions are checked");
        let reaction = reaction.ok()?;
        let rest = body.take_rest();
        debug_assert!(rest.len() < self.0.len(), "a reaction has bytes");
        self.0 = rest;
        Some(reaction)
    }
}

/// Encoded extras.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extras<'a>(&'a [u8]);

impl<'a> Extras<'a> {
    /// No extras.
    pub const NONE: Extras<'static> = Extras(&[]);

    /// Extras that this program has encoded itself, unchecked.
    #[inline]
    pub const fn trusted(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Checks extras from outside.
    ///
    /// # Errors
    /// The first one that is malformed.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Reader::new(bytes);
        while !body.is_empty() {
            next(&mut body)?;
        }
        Ok(Self(bytes))
    }

    /// Checks the extras of SEND_CHAT_MSG: at most one REPLY and some ATTACH, nothing else.
    ///
    /// # Errors
    /// The first one that is malformed or not allowed.
    #[inline]
    pub fn read_sent(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (mut replies, mut files) = (0, 0);
        let mut body = Reader::new(bytes);
        while !body.is_empty() {
            match next(&mut body)? {
                Extra::Reply(_) => replies += 1,
                Extra::Attach(_) => files += 1,
                _ => return Err(Malformed::BadExtra),
            }
        }
        if replies > 1 || files > MESSAGE_FILES_MAX {
            return Err(Malformed::BadExtra);
        }
        Ok(Self(bytes))
    }

    /// The encoded bytes.
    #[inline]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over all extras.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Extra<'a>> {
        let mut body = Reader::new(self.0);
        std::iter::from_fn(move || {
            let found = (!body.is_empty()).then(|| next(&mut body))?;
            debug_assert!(found.is_ok(), "extras are checked, or encoded here");
            found.ok()
        })
    }

    /// The answered message.
    #[inline]
    pub fn reply(self) -> Option<MessageId> {
        self.iter().find_map(|extra| match extra {
            Extra::Reply(id) => Some(id),
            _ => None,
        })
    }

    /// The files, as sent to readers.
    #[inline]
    pub fn files(self) -> impl Iterator<Item = FileInfo<'a>> {
        self.iter().filter_map(|extra| match extra {
            Extra::File(file) => Some(file),
            _ => None,
        })
    }

    /// The files, as the sender attaches them.
    #[inline]
    pub fn attached(self) -> impl Iterator<Item = FileId> {
        self.iter().filter_map(|extra| match extra {
            Extra::Attach(file) => Some(file),
            _ => None,
        })
    }

    /// The reactions.
    #[inline]
    pub fn reactions(self) -> Reactions<'a> {
        let found = self.iter().find_map(|extra| match extra {
            Extra::Reactions(reactions) => Some(reactions),
            _ => None,
        });
        found.unwrap_or(Reactions(&[]))
    }
}

/// Reads one extra.
#[inline]
fn next<'a>(body: &mut Reader<'a>) -> Result<Extra<'a>, Malformed> {
    let kind = body.u8()?;
    let length = usize::from(body.u16()?);
    let mut inner = Reader::new(body.bytes(length)?);
    let extra = match kind {
        REPLY => Extra::Reply(inner.message_id()?),
        FILE => Extra::File(FileInfo::read(&mut inner)?),
        REACTIONS => {
            let bytes = inner.take_rest();
            let mut rest = Reader::new(bytes);
            while !rest.is_empty() {
                Reaction::read(&mut rest)?;
            }
            Extra::Reactions(Reactions(bytes))
        }
        ATTACH => Extra::Attach(inner.file_id()?),
        other => {
            inner.take_rest();
            Extra::Unknown(other)
        }
    };
    inner.finish()?;
    Ok(extra)
}

/// Appends an extra: kind, length, and the bytes that `write` appends.
#[inline]
fn put(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.put_u8(kind);
    let length_at = out.len();
    out.put_u16(0);
    write(out);
    debug_assert!(out.len() - length_at - 2 <= usize::from(u16::MAX), "an extra is short");
    let length = (out.len() - length_at - 2) as u16;
    if let Some(place) = out.get_mut(length_at..length_at + 2) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads the extra from `start` to the end of `out`; `None` if it is not exactly one.
fn read_last(out: &[u8], start: usize) -> Option<Extra<'_>> {
    let mut body = Reader::new(out.get(start..)?);
    let extra = next(&mut body).ok()?;
    body.is_empty().then_some(extra)
}

/// Appends the answered message.
#[inline]
pub fn put_reply(out: &mut Vec<u8>, id: MessageId) {
    let start = out.len();
    put(out, REPLY, |out| out.put_u64(id.get()));
    debug_assert_eq!(read_last(out, start), Some(Extra::Reply(id)), "a reader finds the same");
}

/// Appends a file, as sent to readers.
#[inline]
pub fn put_file(out: &mut Vec<u8>, file: &FileInfo<'_>) {
    let start = out.len();
    debug_assert!(file.name.len() <= FILE_NAME_BYTES_MAX, "names are checked");
    debug_assert!(file.media_type.len() <= MEDIA_TYPE_BYTES_MAX, "media types are checked");
    put(out, FILE, |out| {
        out.put_u64(file.id.get());
        out.put_u64(file.size);
        out.put_u16(file.width);
        out.put_u16(file.height);
        out.put_str(file.media_type);
        out.put_str(file.name);
    });
    debug_assert_eq!(read_last(out, start), Some(Extra::File(*file)), "a reader finds the same");
}

/// Appends a file, as the sender attaches it.
#[inline]
pub fn put_attach(out: &mut Vec<u8>, id: FileId) {
    let start = out.len();
    put(out, ATTACH, |out| out.put_u64(id.get()));
    debug_assert_eq!(read_last(out, start), Some(Extra::Attach(id)), "a reader finds the same");
}

/// Appends the reactions; `write` appends each by [`put_reaction`].
#[inline]
pub fn put_reactions(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out, REACTIONS, write);
    debug_assert!(
        matches!(
            read_last(out, start),
            Some(Extra::Reactions(all)) if all.count() <= EMOJI_PER_MESSAGE_MAX
        ),
        "they are whole, and no more than a message has"
    );
}

/// Appends one emoji.
#[inline]
pub fn put_reaction(out: &mut Vec<u8>, emoji: &str, count: u16, shown: &[UserId]) {
    debug_assert!(!emoji.is_empty() && emoji.len() <= EMOJI_BYTES_MAX, "emoji are checked");
    out.put_str(emoji);
    out.put_u16(count);
    debug_assert!(shown.len() <= usize::from(u8::MAX) && shown.len() <= usize::from(count));
    out.put_u8(shown.len() as u8);
    for user in shown {
        out.put_u32(user.get());
    }
}

/// Appends the lines that represent files on 0.1 and 1.0: `[NAME, SIZE bytes]`, each after a line
/// break unless it is the first line of the content.
#[inline]
pub fn put_file_lines(out: &mut Vec<u8>, extras: Extras<'_>, has_text: bool) {
    let mut is_first = !has_text;
    for file in extras.files() {
        if !std::mem::take(&mut is_first) {
            out.put_u8(b'\n');
        }
        // Writing to a Vec cannot fail.
        let _ = write!(Text(out), "[{}, {} bytes]", file.name, file.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_id(raw: u64) -> FileId {
        FileId::new(raw).expect("an id")
    }

    const PHOTO: FileInfo<'static> = FileInfo {
        id: FileId::MAX,
        size: 1234,
        width: 640,
        height: 480,
        media_type: "image/png",
        name: "photo.png",
    };

    fn message(raw: u64) -> MessageId {
        MessageId::new(raw).expect("an id")
    }

    #[test]
    fn extras_read_back_as_written() {
        let users = [UserId::new(3).expect("not 0"), UserId::new(9).expect("not 0")];
        let mut out = Vec::new();
        put_reply(&mut out, message(7));
        put_file(&mut out, &PHOTO);
        put(&mut out, 0x77, |out| out.put_bytes(b"later"));
        put_reactions(&mut out, |out| put_reaction(out, "👍", 300, &users));
        let extras = Extras::read(&out).expect("well formed");
        assert_eq!(extras.reply(), Some(message(7)));
        assert_eq!(extras.files().collect::<Vec<_>>(), [PHOTO]);
        assert_eq!(extras.iter().nth(2), Some(Extra::Unknown(0x77)));
        let reaction = extras.reactions().next().expect("one");
        assert_eq!((reaction.emoji, reaction.count), ("👍", 300));
        assert_eq!(reaction.shown().collect::<Vec<_>>(), users);
        for cut in 1..out.len() {
            let _ = Extras::read(&out[..cut]);
        }
    }

    #[test]
    fn a_sender_writes_one_reply_and_ten_files() {
        let mut out = Vec::new();
        put_reply(&mut out, message(7));
        for id in 1..=10 {
            put_attach(&mut out, file_id(id));
        }
        let sent = Extras::read_sent(&out).expect("what a sender may write");
        assert_eq!(sent.attached().count(), 10);
        let with = |write: fn(&mut Vec<u8>)| {
            let mut more = out.clone();
            write(&mut more);
            Extras::read_sent(&more).err()
        };
        assert_eq!(with(|out| put_reply(out, message(1))), Some(Malformed::BadExtra));
        assert_eq!(with(|out| put_attach(out, file_id(11))), Some(Malformed::BadExtra));
        assert_eq!(with(|out| put_file(out, &PHOTO)), Some(Malformed::BadExtra));
        assert_eq!(with(|out| out.put_u8(1)), Some(Malformed::Short));
        assert_eq!(with(|out| put(out, REPLY, |out| out.put_u64(0))), Some(Malformed::BadId));
    }

    #[test]
    fn files_are_lines_for_older_versions() {
        let mut extras = Vec::new();
        put_file(&mut extras, &PHOTO);
        put_file(&mut extras, &PHOTO);
        for (text, expected) in [
            ("", "[photo.png, 1234 bytes]\n[photo.png, 1234 bytes]"),
            ("hi", "hi\n[photo.png, 1234 bytes]\n[photo.png, 1234 bytes]"),
        ] {
            let mut out = text.as_bytes().to_vec();
            put_file_lines(&mut out, Extras::trusted(&extras), !text.is_empty());
            assert_eq!(out, expected.as_bytes());
        }
    }
}
