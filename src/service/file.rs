//! Files: uploading them piece by piece, reading them, and making them parts of messages
//! (protocol section 5a).
//!
//! Each PUT_FILE is stored by the turn that handles it; its ACCEPTED is sent from the budget of
//! streamed answers. Until then the connection is held. So all uploads share what a turn may write,
//! and all downloads what it may read.

use crate::ids::{ChatId, FileId, ServerTime, UserId};
use crate::limits::{FILE_CHUNK_BYTES, UPLOAD_IDLE_US, UPLOAD_LIFETIME_US, UPLOADS_PER_USER_MAX};
use crate::names::{is_file_name, is_media_type};
use crate::service::stream::{Progress, Source};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::files::FileState;
use crate::wire::codec::Put;
use crate::wire::decline::Decline;
use crate::wire::extras::{Extras, FileInfo};

/// Stale uploads removed in one slice of housekeeping.
const STALE_PER_SLICE: u32 = 16;

impl Service<'_> {
    /// BEGIN_FILE.
    pub(super) fn begin_file(
        &mut self,
        caller: Caller,
        chat: ChatId,
        new: &FileInfo<'_>,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        self.may_write()?;
        if new.size > self.config.file_bytes_max {
            return Err(Decline::FileTooLarge(self.config.file_bytes_max).into());
        }
        self.check_file_quotas(caller.user, new.size)?;
        check_file_name(new.name)?;
        check_media_type(new.media_type)?;
        self.evict_stalest_upload(caller.user)?;
        let now = self.clock.wall();
        let id = self.store.begin_file(chat, caller.user, new, now)?;
        self.accept(caller, |body| body.put_u64(id.get()));
        Ok(())
    }

    /// Declines an upload over a quota. Quotas count its announced size from the beginning.
    fn check_file_quotas(&mut self, user: UserId, size: u64) -> HandlerResult {
        let mine = self.store.file_usage(Some(user))?;
        if mine.bytes.saturating_add(size) > self.config.user_files_bytes_max {
            return Err(Decline::QuotaExceeded(
                "your files may not take more space; delete some first",
            )
            .into());
        }
        let all = self.store.file_usage(None)?;
        if all.bytes.saturating_add(size) > self.config.files_bytes_max {
            return Err(
                Decline::QuotaExceeded("the server may not store more bytes of files").into()
            );
        }
        self.check_disk(size)
    }

    /// Declines an upload that would leave less free space than the disk reserve.
    fn check_disk(&self, bytes: u64) -> HandlerResult {
        let free = self.store.disk_free_bytes();
        if free.is_some_and(|free| free < self.config.disk_reserve_bytes.saturating_add(bytes)) {
            return Err(Decline::QuotaExceeded("the server's disk is nearly full").into());
        }
        Ok(())
    }

    /// Ends the caller's stalest upload if one more would exceed the limit.
    fn evict_stalest_upload(&mut self, user: UserId) -> HandlerResult {
        if self.store.file_usage(Some(user))?.uploads < UPLOADS_PER_USER_MAX {
            return Ok(());
        }
        let idlest = self.store.idlest_upload(user)?;
        // By the wall clock, since server time that ran ahead stands still. An upload of the future
        // is of a wall clock that was wrong.
        let now = self.clock.wall().micros();
        let is_idle = |touched: i64| (now - touched).abs() >= UPLOAD_IDLE_US;
        let idlest = idlest.filter(|file| is_idle(file.touched.micros()));
        let why = "you have too many uploads in progress";
        let idlest = idlest.ok_or(Decline::QuotaExceeded(why))?;
        Ok(self.store.remove_file(&idlest)?)
    }

    /// PUT_FILE: stores the bytes in this turn; [`Source::Stored`] sends the ACCEPTED later.
    pub(super) fn put_file(
        &mut self,
        caller: Caller,
        id: FileId,
        offset: u64,
        bytes: &[u8],
    ) -> HandlerResult {
        self.may_write()?;
        let file = self.visible_file(caller, id)?;
        if file.user != caller.user {
            return Err(Decline::NoSuchFile.into());
        }
        if offset != file.stored {
            return Err(Decline::BadOffset(file.stored).into());
        }
        let stored = file.stored + bytes.len() as u64;
        if stored > file.size {
            return Err(Decline::FileTooLarge(file.size).into());
        }
        self.check_disk(bytes.len() as u64)?;
        let now = self.clock.wall();
        let cost = self.store.append_file(id, file.stored, bytes, now)?;
        self.begin_stream(caller, Source::Stored { stored, cost });
        Ok(())
    }

    /// GET_FILE: starts a streamed answer.
    pub(super) fn get_file(
        &mut self,
        caller: Caller,
        id: FileId,
        offset: u64,
        length: u32,
    ) -> HandlerResult {
        self.visible_file(caller, id)?;
        let length = FILE_CHUNK_BYTES.min(length as usize);
        self.begin_stream(caller, Source::File { id, offset, length });
        Ok(())
    }

    /// The answer to PUT_FILE or GET_FILE, when it is this connection's turn in the budget.
    pub(super) fn file_piece(
        &mut self,
        caller: Caller,
        source: &Source,
    ) -> Result<Progress, HandlerError> {
        match *source {
            Source::Stored { stored, cost } => {
                self.streams.scanned_bytes += cost;
                self.accept(caller, |body| body.put_u64(stored));
            }
            Source::File { id, offset, length } => {
                let file = self.visible_file(caller, id)?;
                let mut bytes = std::mem::take(&mut self.streams.scratch);
                bytes.clear();
                let read = self.store.read_file(id, offset, length, &mut bytes);
                // A copy of the database without the bytes of files.
                let end = if file.message.is_some() { file.size } else { file.stored };
                let is_left_out = bytes.is_empty() && offset < end && length > 0;
                if read == Ok(true) && !is_left_out {
                    self.accept(caller, |body| body.put_bytes(&bytes));
                }
                self.streams.scratch = bytes;
                if !read? {
                    return Err(Decline::StorageFailed.into());
                }
                if is_left_out {
                    return Err(Decline::NoSuchFile.into());
                }
            }
            _ => {}
        }
        Ok(Progress::Ended)
    }

    /// END_FILE.
    pub(super) fn end_file(&mut self, caller: Caller, id: FileId) -> HandlerResult {
        self.may_write()?;
        let file = self.visible_file(caller, id)?;
        if file.message.is_none() {
            self.store.remove_file(&file)?;
            self.background.housekeeping.erasing.erase_files_soon();
        }
        self.accept(caller, |_| {});
        Ok(())
    }

    /// A file that the caller may read: one of a message in a chat of theirs, or their own upload.
    fn visible_file(&mut self, caller: Caller, id: FileId) -> Result<FileState, HandlerError> {
        let file = self.store.file(id)?.ok_or(Decline::NoSuchFile)?;
        let is_member = self.presence.roster.membership(caller.user, file.chat).is_some();
        if is_member && (file.message.is_some() || file.user == caller.user) {
            return Ok(file);
        }
        Err(Decline::NoSuchFile.into())
    }

    /// The uploads that a new message attaches; each must be complete and may occur once.
    pub(super) fn attachable(
        &mut self,
        caller: Caller,
        chat: ChatId,
        sent: Extras<'_>,
    ) -> Result<Vec<FileState>, HandlerError> {
        let mut files: Vec<FileState> = Vec::new();
        for id in sent.attached() {
            let file = self.store.file(id)?.ok_or(Decline::NoSuchFile)?;
            let is_mine = file.user == caller.user && file.chat == chat;
            let is_free = file.message.is_none() && files.iter().all(|other| other.id != id);
            if !is_mine || !is_free || !file.is_complete() {
                return Err(Decline::NoSuchFile.into());
            }
            files.push(file);
        }
        Ok(files)
    }

    /// Removes uploads that were abandoned.
    pub(super) fn remove_stale_uploads(&mut self) -> HandlerResult {
        let Some(now) = self.clock.age_clock() else { return Ok(()) };
        let since = ServerTime::new(now.micros() - UPLOAD_LIFETIME_US);
        let until = ServerTime::new(now.micros() + UPLOAD_LIFETIME_US);
        if let (Some(since), Some(until)) = (since, until) {
            self.store.remove_stale_uploads(since, until, STALE_PER_SLICE)?;
        }
        Ok(())
    }
}

fn check_file_name(name: &str) -> HandlerResult {
    let why = "a file name needs 1 to 255 bytes without control characters, '/' and '\\'";
    if is_file_name(name) { Ok(()) } else { Err(Decline::BadText(why).into()) }
}

fn check_media_type(text: &str) -> HandlerResult {
    let why = "a media type must be type/subtype in lower case, at most 127 bytes";
    if is_media_type(text) { Ok(()) } else { Err(Decline::BadText(why).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_the_name_of_a_file() {
        for good in ["a", "отчёт 2026.pdf", "...", ".hidden", &"x".repeat(255)] {
            assert!(check_file_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", "\u{85}", &"x".repeat(256)] {
            assert!(check_file_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_may_be_a_media_type() {
        for good in ["image/png", "application/vnd.ms-excel", "image/svg+xml", "a/b"] {
            assert!(check_media_type(good).is_ok(), "{good}");
        }
        let long = format!("a/{}", "b".repeat(126));
        for bad in ["", "image", "image/", "/png", "Image/png", "a/b/c", "a/b; c=d", "a b/c", &long]
        {
            assert!(check_media_type(bad).is_err(), "{bad:?}");
        }
    }
}
