//! Files, replies and reactions of API 1.1. Uploads and downloads go on over broken connections.

use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use super::answer::{pack, whole};
use super::{Client, Error, Message, Sent};
use crate::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use crate::wire::extras::{put_attach, put_reply};
use crate::wire::request::Request;

/// Bytes of a file in one PUT_FILE: what fits the shortest bodies that a server may allow is asked
/// of HELLO, and this is the most that is put in one.
const PIECE_BYTES: usize = 60 * 1024;
/// Bytes of a PUT_FILE around those of the file.
const PUT_OVERHEAD_BYTES: usize = 8 + 8;

/// A file to upload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewFile<'a> {
    /// Its name: 1 to 255 bytes, no control characters, `/` and `\`.
    pub name: &'a str,
    /// Its media type, such as `image/png`.
    pub media_type: &'a str,
    /// Its size, in bytes.
    pub size: u64,
    /// Width in pixels of an image or video; 0: neither.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// A message to send. Made of a text by [`From`], so that `"hello".into()` is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NewMessage<'a> {
    /// The text; it may be empty when there is a file.
    pub content: &'a str,
    /// The message of the same chat that it answers (1.1).
    pub reply: Option<MessageId>,
    /// Files of mine that are uploaded whole, at most ten (1.1).
    pub files: &'a [FileId],
}

impl<'a> From<&'a str> for NewMessage<'a> {
    fn from(content: &'a str) -> Self {
        Self { content, ..Self::default() }
    }
}

impl<'a> From<&'a String> for NewMessage<'a> {
    fn from(content: &'a String) -> Self {
        Self { content, ..Self::default() }
    }
}

impl NewMessage<'_> {
    /// The reply and the files as the wire carries them.
    pub(super) fn extras(&self) -> Vec<u8> {
        let mut extras = Vec::new();
        if let Some(reply) = self.reply {
            put_reply(&mut extras, reply);
        }
        self.files.iter().for_each(|file| put_attach(&mut extras, *file));
        extras
    }
}

/// Files, replies and reactions; on older versions they are declined `unknown-purpose`.
///
/// ```no_run
/// # use std::fs::File;
/// # use purpose::client::{Client, Error, NewFile, NewMessage};
/// # use purpose::ids::ChatId;
/// # fn example(client: &mut Client, chat: ChatId) -> Result<(), Error> {
/// let mut photo = File::open("photo.jpg")?;
/// let size = photo.metadata()?.len();
/// let new = NewFile { name: "photo.jpg", media_type: "image/jpeg", size, width: 0, height: 0 };
/// let file = client.upload(chat, &new, &mut photo, |stored| {
///     println!("{} %", stored * 100 / size);
/// })?;
/// let files = [file];
/// let message = NewMessage { content: "look", files: &files, ..NewMessage::default() };
/// let sent = client.send_with(chat, message)?;
/// client.react(chat, sent.id, true, "👍")?;
/// # Ok(())
/// # }
/// ```
#[allow(clippy::missing_errors_doc)] // as all calls: the codes of their rows
impl Client {
    /// Sends a message that answers another one, or has uploaded files, or both. It is safe to
    /// repeat as [`Client::send`] is.
    pub fn send_with(&mut self, chat: ChatId, message: NewMessage<'_>) -> Result<Sent, Error> {
        let nonce = self.next_nonce();
        self.send_with_nonce(chat, message, nonce)
    }

    /// Uploads a file to a chat, to be sent by [`Client::send_with`] within an hour. `progress`
    /// gets the bytes that are stored after each piece. A broken connection is made anew, up to
    /// [`Options::reconnects_max`](super::Options::reconnects_max) times without a piece in
    /// between, and the upload goes on where it was. After any other error the upload is ended, so
    /// that it takes no quota.
    pub fn upload(
        &mut self,
        chat: ChatId,
        new: &NewFile<'_>,
        content: &mut (impl Read + Seek),
        progress: impl FnMut(u64),
    ) -> Result<FileId, Error> {
        let file = self.begin_file(chat, new)?;
        match self.resume_upload(file, new.size, content, progress) {
            Ok(()) => Ok(file),
            Err(error) => {
                if !error.is_broken() {
                    // What cannot be ended now ends by itself after an hour.
                    let _ = self.end_file(file);
                }
                Err(error)
            }
        }
    }

    /// Goes on with an upload, perhaps of another run of the program: the server says where.
    pub fn resume_upload(
        &mut self,
        file: FileId,
        size: u64,
        content: &mut (impl Read + Seek),
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut buffer = vec![0; self.piece_bytes_max()];
        let mut offset = 0;
        let mut reconnects = 0;
        while offset < size {
            let most = self.piece_bytes_max().min(buffer.len());
            let left = usize::try_from(size - offset).unwrap_or(most).min(most);
            let piece = buffer.get_mut(..left).unwrap_or_default();
            content.seek(SeekFrom::Start(offset)).map_err(Error::File)?;
            content.read_exact(piece).map_err(Error::File)?;
            match self.put_file(file, offset, piece) {
                Ok(stored) if stored <= offset => {
                    return Err(Error::Protocol("an upload does not go on"));
                }
                Ok(stored) => {
                    (offset, reconnects) = (stored, 0);
                    progress(offset);
                }
                Err(error) if error.is_broken() => self.come_back(error, &mut reconnects)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Announces a file of a chat: the first step of an upload, for callers that make the others by
    /// themselves with [`Client::put_file`].
    pub fn begin_file(&mut self, chat: ChatId, new: &NewFile<'_>) -> Result<FileId, Error> {
        let &NewFile { name, media_type, size, width, height } = new;
        let request = Request::BeginFile { chat, size, width, height, media_type, name };
        let body = self.request(&request)?;
        whole(&body, |body| Ok(body.file_id()?))
    }

    /// Bytes of a file that one [`Client::put_file`] may carry on this server.
    pub fn piece_bytes_max(&self) -> usize {
        PIECE_BYTES.min(self.server.body_bytes_max.saturating_sub(PUT_OVERHEAD_BYTES)).max(1)
    }

    /// Stores the next bytes of an upload; gives how many bytes the server has then, which is where
    /// to go on. Where it has more or fewer than `offset`, nothing is stored.
    pub fn put_file(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<u64, Error> {
        match self.request(&Request::PutFile { file, offset, bytes }) {
            Ok(body) => whole(&body, |body| Ok(body.u64()?)),
            Err(Error::Declined(declined)) if declined.code() == "bad-offset" => declined
                .number()
                .and_then(|stored| u64::try_from(stored).ok())
                .ok_or(Error::Protocol("bad-offset says no size")),
            Err(error) => Err(error),
        }
    }

    /// Up to `length` bytes of a file from `offset` on, at most 64 KiB at once; none at its end.
    pub fn get_file(&mut self, file: FileId, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        self.request(&Request::GetFile { file, offset, length })
    }

    /// Writes a file from `offset` on to `out`; gives the offset of its end. `progress` gets the
    /// offset after each piece. A broken connection is made anew, and the download goes on.
    ///
    /// [`File::size`](super::File::size) is what the server says: a caller that must not store more
    /// hands over an `out` that fails beyond it.
    pub fn download(
        &mut self,
        file: FileId,
        offset: u64,
        out: &mut impl Write,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, Error> {
        let mut offset = offset;
        let mut reconnects = 0;
        loop {
            match self.get_file(file, offset, u32::MAX) {
                Ok(bytes) if bytes.is_empty() => return Ok(offset),
                Ok(bytes) => {
                    out.write_all(&bytes).map_err(Error::File)?;
                    offset += bytes.len() as u64;
                    reconnects = 0;
                    progress(offset);
                }
                Err(error) if error.is_broken() => self.come_back(error, &mut reconnects)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a broken connection anew, unless that was done often enough.
    fn come_back(&mut self, error: Error, reconnects: &mut u32) -> Result<(), Error> {
        let mut error = error;
        while *reconnects < self.options.reconnects_max && self.session.is_some() {
            *reconnects += 1;
            match self.reconnect() {
                Ok(()) => return Ok(()),
                Err(again) if again.is_broken() => error = again,
                // It says no to the session, and nothing of the file: the caller reconnects.
                Err(_) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(50) * *reconnects);
        }
        Err(error)
    }

    /// Gives up an upload. A file that is in a message stays.
    pub fn end_file(&mut self, file: FileId) -> Result<(), Error> {
        self.request(&Request::EndFile { file }).map(drop)
    }

    /// Gives a reaction, or takes it back; the message's `updated` from now on.
    pub fn react(
        &mut self,
        chat: ChatId,
        message: MessageId,
        on: bool,
        emoji: &str,
    ) -> Result<ServerTime, Error> {
        let body = self.request(&Request::React { chat, message, on, emoji })?;
        whole(&body, |body| Ok(body.time()?))
    }

    /// Who gave which reaction, the first given first.
    pub fn reactions(
        &mut self,
        chat: ChatId,
        message: MessageId,
    ) -> Result<Vec<(UserId, String)>, Error> {
        let body = self.request(&Request::GetReactions { chat, message })?;
        pack(&body, |body| Ok((body.user_id()?, body.str()?.to_owned())))
    }

    /// The oldest `limit` messages after `after` (the oldest of all without), ascending.
    pub fn page_after(
        &mut self,
        chat: ChatId,
        after: Option<MessageId>,
        limit: u16,
    ) -> Result<Vec<Message>, Error> {
        let request = Request::RequestChatPage { chat, before: after, limit, newer: true };
        let body = self.request(&request)?;
        let version = self.version();
        pack(&body, |body| super::answer::message(body, version))
    }
}
