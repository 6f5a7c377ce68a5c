//! The types of section 1: zero-copy reading, and appending to a buffer.

use std::fmt;

use crate::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
use crate::limits::MESSAGE_FILES_MAX;
use crate::wire::Version;
use crate::wire::extras::{self, Extras};

/// The reason why a body is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// A field ends past the end of the body.
    Short,
    /// Bytes are left after the last field.
    Trailing,
    /// A str has no NUL.
    Unterminated,
    /// A str is not UTF-8.
    NotUtf8,
    /// An id is 0, or is a message id that no server assigns.
    BadId,
    /// A time is negative.
    BadTime,
    /// A bool is neither 0 nor 1.
    BadBool,
    /// A HEARTBEAT over its 1024 bytes.
    HeartbeatTooLong,
    /// A file, or a chunk of one, has no bytes.
    NoBytes,
    /// An extra that a sender may not send, or more of them than a message may have.
    BadExtra,
    /// A number has no meaning in its field.
    BadValue,
}

impl Malformed {
    /// The message for people.
    #[inline]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Short => "the body ends inside a field",
            Self::Trailing => "bytes are left after the last field",
            Self::Unterminated => "a string has no NUL at its end",
            Self::NotUtf8 => "a string is not UTF-8",
            Self::BadId => "an id is out of range",
            Self::BadTime => "a time is negative",
            Self::BadBool => "a bool is neither 0 nor 1",
            Self::HeartbeatTooLong => "the heartbeat is too long",
            Self::NoBytes => "a file, and each piece of one, has at least one byte",
            Self::BadExtra => "an extra that a sender does not write, or too many of them",
            Self::BadValue => "a number has no meaning in its field",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Reads fields from the front of a body. Borrows from it, never copies.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte of a body.
    #[inline]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Whether everything was read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends reading; bytes left over make the body malformed.
    #[inline]
    pub const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    /// Reads everything that is left.
    #[inline]
    pub const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    /// Reads this many bytes.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = tail;
        Ok(head)
    }

    /// Reads an array of bytes.
    #[inline]
    pub fn bytes_of<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.rest = tail;
        Ok(head)
    }

    /// A u8.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A u16.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// A u32.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// A u64.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A bool: 0 or 1.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::BadBool),
        }
    }

    /// A time, never negative.
    #[inline]
    pub fn time(&mut self) -> Result<ServerTime, Malformed> {
        ServerTime::new(i64::from_le_bytes(self.array()?)).ok_or(Malformed::BadTime)
    }

    /// A user_id, never 0.
    #[inline]
    pub fn user_id(&mut self) -> Result<UserId, Malformed> {
        UserId::new(self.u32()?).ok_or(Malformed::BadId)
    }

    /// A chat_id, never 0.
    #[inline]
    pub fn chat_id(&mut self) -> Result<ChatId, Malformed> {
        ChatId::new(self.u32()?).ok_or(Malformed::BadId)
    }

    /// A session_id, never 0.
    #[inline]
    pub fn session_id(&mut self) -> Result<SessionId, Malformed> {
        SessionId::new(self.u32()?).ok_or(Malformed::BadId)
    }

    /// A message_id, never 0. An id above every server time reads as the highest id; no such
    /// message exists.
    #[inline]
    pub fn message_id(&mut self) -> Result<MessageId, Malformed> {
        match self.u64()? {
            0 => Err(Malformed::BadId),
            raw => Ok(MessageId::new(raw).unwrap_or(MessageId::at(ServerTime::MAX))),
        }
    }

    /// A file_id, never 0. An id that no server assigns reads as the highest id.
    #[inline]
    pub fn file_id(&mut self) -> Result<FileId, Malformed> {
        match self.u64()? {
            0 => Err(Malformed::BadId),
            raw => Ok(FileId::new(raw).unwrap_or(FileId::MAX)),
        }
    }

    /// A str: UTF-8 up to a NUL, which is read too.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let length = memchr::memchr(0, self.rest).ok_or(Malformed::Unterminated)?;
        let (text, tail) = self.rest.split_at_checked(length).ok_or(Malformed::Unterminated)?;
        let text = std::str::from_utf8(text).map_err(|_| Malformed::NotUtf8)?;
        self.rest = tail.get(1..).ok_or(Malformed::Unterminated)?;
        Ok(text)
    }

    /// An optional field at the end: present if bytes are left.
    #[inline]
    pub fn optional<T>(
        &mut self,
        field: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.is_empty() { Ok(None) } else { field(self).map(Some) }
    }

    /// A message, as the version encodes it in packs.
    #[inline]
    pub fn message(&mut self, version: Version) -> Result<Message<'a>, Malformed> {
        Ok(Message {
            id: self.message_id()?,
            sender: self.user_id()?,
            created: self.time()?,
            updated: self.time()?,
            status: self.u8()?,
            content: self.str()?,
            extras: if version.has_extras() {
                let length = usize::from(self.u16()?);
                Extras::read(self.bytes(length)?)?
            } else {
                Extras::NONE
            },
        })
    }
}

/// Status bit of a message that was edited.
pub const STATUS_EDITED: u8 = 0x01;
/// Status bit of a message that was deleted; its content is empty.
pub const STATUS_DELETED: u8 = 0x02;

/// A message on the wire (section 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its id.
    pub id: MessageId,
    /// The sender.
    pub sender: UserId,
    /// When it was created.
    pub created: ServerTime,
    /// When it last changed: created, edited, deleted, or a reaction.
    pub updated: ServerTime,
    /// [`STATUS_EDITED`], [`STATUS_DELETED`].
    pub status: u8,
    /// The text.
    pub content: &'a str,
    /// Its extras.
    pub extras: Extras<'a>,
}

impl Message<'_> {
    /// Size in a pack of this version, in bytes; may be a few less for files.
    #[inline]
    pub fn bytes(&self, version: Version) -> usize {
        let mut bytes = MESSAGE_OVERHEAD_BYTES + self.content.len();
        if version.has_extras() {
            bytes += EXTRAS_LENGTH_BYTES + self.extras.bytes().len();
        } else if !self.extras.is_empty() {
            let mut lines = Vec::new();
            extras::put_file_lines(&mut lines, self.extras, !self.content.is_empty());
            bytes += lines.len();
        }
        bytes
    }
}

/// Bytes of a message around its content: ids, times, status and the NUL.
pub const MESSAGE_OVERHEAD_BYTES: usize = 8 + 4 + 8 + 8 + 1 + 1;

/// Size of the length field before a message's extras, in bytes.
pub const EXTRAS_LENGTH_BYTES: usize = 2;

/// Appends the types of section 1 to a buffer.
pub trait Put {
    /// Raw bytes.
    fn put_bytes(&mut self, bytes: &[u8]);

    /// A u8.
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put_bytes(&[value]);
    }

    /// A u16.
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// A u32.
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// A u64.
    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_le_bytes());
    }

    /// A bool.
    #[inline]
    fn put_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    /// A time.
    #[inline]
    fn put_time(&mut self, value: ServerTime) {
        self.put_bytes(&value.micros().to_le_bytes());
    }

    /// A str. The text comes from the database or a parsed request, so it contains no NUL. If it
    /// did, it would be cut there, so that the following fields stay in place.
    #[inline]
    fn put_str(&mut self, text: &str) {
        let text = text.as_bytes();
        let end = memchr::memchr(0, text).unwrap_or(text.len());
        self.put_bytes(text.get(..end).unwrap_or_default());
        self.put_u8(0);
    }

    /// The ids, times and status of a message.
    #[inline]
    fn put_message_head(&mut self, message: &Message<'_>) {
        let mut head = [0; MESSAGE_OVERHEAD_BYTES - 1];
        head[0..8].copy_from_slice(&message.id.get().to_le_bytes());
        head[8..12].copy_from_slice(&message.sender.get().to_le_bytes());
        head[12..20].copy_from_slice(&message.created.micros().to_le_bytes());
        head[20..28].copy_from_slice(&message.updated.micros().to_le_bytes());
        head[28] = message.status;
        self.put_bytes(&head);
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends a message, as the version encodes it in packs.
#[inline]
pub fn put_message(out: &mut Vec<u8>, version: Version, message: &Message<'_>) {
    let start = out.len();
    out.put_message_head(message);
    debug_assert_eq!(out.len() - start + 1, MESSAGE_OVERHEAD_BYTES, "all but the NUL");
    if version.has_extras() {
        out.put_str(message.content);
        put_extras(out, message.extras.bytes());
    } else if message.extras.is_empty() {
        out.put_str(message.content);
    } else {
        put_content_with_files(out, message.content, message.extras);
    }
    debug_assert!(out.len() - start <= message.bytes(version), "limits rely on this size");
    debug_assert!(reads_back(out.get(start..), version, message), "a client reads another message");
}

/// Whether an encoded message decodes to the same. Older versions show files as text.
fn reads_back(bytes: Option<&[u8]>, version: Version, message: &Message<'_>) -> bool {
    let mut body = Reader::new(bytes.unwrap_or_default());
    let read = body.message(version);
    let is_shown_as_text = !version.has_extras() && !message.extras.is_empty();
    body.is_empty() && (read == Ok(*message) || is_shown_as_text && read.is_ok())
}

/// Appends the extras of a message, after its content.
#[inline]
pub fn put_extras(out: &mut Vec<u8>, extras: &[u8]) {
    debug_assert!(extras.len() <= usize::from(u16::MAX), "the length has 16 bits");
    out.put_u16(extras.len() as u16);
    out.put_bytes(extras);
}

/// Appends the content for versions without extras: the text, and a line for each file.
#[cold]
fn put_content_with_files(out: &mut Vec<u8>, content: &str, extras: Extras<'_>) {
    debug_assert!(extras.files().count() <= MESSAGE_FILES_MAX, "a message has few files");
    out.put_bytes(content.as_bytes());
    extras::put_file_lines(out, extras, !content.is_empty());
    out.put_u8(0);
}

/// Lets `write!` append to a byte buffer.
pub(crate) struct Text<'a>(pub(crate) &'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.put_bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_str_ends_at_its_nul_and_needs_one() {
        let mut body = Reader::new(b"hi\0x");
        assert_eq!(body.str(), Ok("hi"));
        assert_eq!(body.finish(), Err(Malformed::Trailing));
        assert_eq!(Reader::new(b"hi").str(), Err(Malformed::Unterminated));
        assert_eq!(Reader::new(b"\xff\0").str(), Err(Malformed::NotUtf8));
        assert_eq!(Reader::new(b"\0").str(), Ok(""));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        assert_eq!(Reader::new(&[0; 4]).chat_id(), Err(Malformed::BadId));
        assert_eq!(Reader::new(&[0xff; 8]).time(), Err(Malformed::BadTime));
        assert_eq!(Reader::new(&[2]).bool(), Err(Malformed::BadBool));
        assert_eq!(Reader::new(&[1, 2, 3]).u32(), Err(Malformed::Short));
    }

    #[test]
    fn an_optional_field_is_there_when_bytes_are_left() {
        assert_eq!(Reader::new(&[]).optional(Reader::u8), Ok(None));
        assert_eq!(Reader::new(&[7]).optional(Reader::u8), Ok(Some(7)));
        assert_eq!(Reader::new(&[7]).optional(Reader::u16), Err(Malformed::Short));
    }

    #[test]
    fn a_message_reads_back_as_written() {
        let time = ServerTime::new(5).expect("positive");
        let message = Message {
            id: MessageId::at(time),
            sender: UserId::new(9).expect("not 0"),
            created: time,
            updated: time.next(),
            status: STATUS_EDITED,
            content: "привет",
            extras: Extras::NONE,
        };
        for version in [Version::V0_1, Version::V1_0, Version::V1_1] {
            let mut bytes = Vec::new();
            put_message(&mut bytes, version, &message);
            assert_eq!(bytes.len(), message.bytes(version));
            let mut body = Reader::new(&bytes);
            assert_eq!(body.message(version), Ok(message));
            assert_eq!(body.finish(), Ok(()));
        }
    }
}
