//! Files, replies and reactions of API 1.1. Uploads and downloads go on over broken connections.

use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use super::answer::{pack, whole};
use super::{Client, Error, Message, Sent};
use crate::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use crate::wire::extras::{Extras, put_attach, put_reply};
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

/// The calls that API 1.1 adds; on older versions they are declined `unknown-purpose`.
#[allow(clippy::missing_errors_doc)] // as all calls: the codes of their rows
impl Client {
    /// Sends a message that answers another one, or has uploaded files, or both. It is safe to
    /// repeat as [`Client::send`] is.
    pub fn send_with(
        &mut self,
        chat: ChatId,
        content: &str,
        reply: Option<MessageId>,
        files: &[FileId],
    ) -> Result<Sent, Error> {
        let mut extras = Vec::new();
        if let Some(reply) = reply {
            put_reply(&mut extras, reply);
        }
        files.iter().for_each(|file| put_attach(&mut extras, *file));
        let nonce = self.next_nonce();
        self.send_by_nonce(chat, content, nonce, Extras::trusted(&extras))
    }

    /// Uploads a file to a chat, to be sent by [`Client::send_with`]. `progress` gets the bytes
    /// that are stored after each piece. A broken connection is made anew, and the upload goes on
    /// where it was.
    pub fn upload(
        &mut self,
        chat: ChatId,
        new: &NewFile<'_>,
        content: &mut (impl Read + Seek),
        progress: impl FnMut(u64),
    ) -> Result<FileId, Error> {
        let &NewFile { name, media_type, size, width, height } = new;
        let request = Request::BeginFile { chat, size, width, height, media_type, name };
        let body = self.request(&request)?;
        let file = whole(&body, |body| Ok(body.file_id()?))?;
        self.resume_upload(file, size, content, progress)?;
        Ok(file)
    }

    /// Goes on with an upload, perhaps of another run of the program: the server says where.
    pub fn resume_upload(
        &mut self,
        file: FileId,
        size: u64,
        content: &mut (impl Read + Seek),
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let most = PIECE_BYTES.min(self.body_bytes_max.saturating_sub(PUT_OVERHEAD_BYTES)).max(1);
        let mut buffer = vec![0; most];
        let mut offset = 0;
        let mut reconnects = 0;
        while offset < size {
            content.seek(SeekFrom::Start(offset))?;
            let left = usize::try_from(size - offset).unwrap_or(most).min(most);
            let piece = buffer.get_mut(..left).unwrap_or_default();
            content.read_exact(piece)?;
            match self.request(&Request::PutFile { file, offset, bytes: piece }) {
                Ok(body) => {
                    offset = whole(&body, |body| Ok(body.u64()?))?;
                    progress(offset);
                }
                Err(Error::Declined(declined)) if declined.code() == "bad-offset" => {
                    let stored = declined.number().and_then(|stored| u64::try_from(stored).ok());
                    offset = stored.ok_or(Error::Protocol("bad-offset says no size"))?;
                    progress(offset);
                }
                Err(error) if error.is_broken() => self.come_back(error, &mut reconnects)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a file from `offset` on to `out`; gives the offset of its end. `progress` gets the
    /// offset after each piece. A broken connection is made anew, and the download goes on.
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
            match self.request(&Request::GetFile { file, offset, length: u32::MAX }) {
                Ok(bytes) if bytes.is_empty() => return Ok(offset),
                Ok(bytes) => {
                    out.write_all(&bytes)?;
                    offset += bytes.len() as u64;
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
                Err(again) if again.is_broken() => error = again,
                other => return other,
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
