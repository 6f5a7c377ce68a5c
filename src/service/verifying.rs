//! A slow background walk over all messages and files, which finds damage before anyone reads it.

use crate::service::{HandlerError, Service};
use crate::store::verify::{ChunkCursor, Cursor};

/// Messages verified in one slice.
const MESSAGES_PER_SLICE: u32 = 128;
/// Milliseconds from the end of one walk to the beginning of the next.
const REST_MS: u64 = 24 * 3600 * 1000;
/// Milliseconds between two slices of a walk.
const SLICE_MS: u64 = 200;

/// The progress of the walk.
pub(super) struct Verifying {
    next: Option<Next>,
    not_before_ms: u64,
    /// Damaged messages and chunks of files found by this walk.
    found: u64,
    /// Damaged messages and files read by requests, as far as reported in the log.
    reported: (u64, u64),
}

/// The next thing to verify.
#[derive(Clone, Copy)]
enum Next {
    Messages(Cursor),
    Chunks(ChunkCursor),
}

impl Default for Verifying {
    fn default() -> Self {
        let next = Some(Next::Messages(Cursor::default()));
        Self { next, not_before_ms: 0, found: 0, reported: (0, 0) }
    }
}

impl Service<'_> {
    /// Verifies the next messages or chunks of files, and adds checksums that are missing.
    pub(super) fn verify_slice(&mut self) -> Result<(), HandlerError> {
        let now_ms = self.clock.now_ms();
        let verifying = &mut self.background.housekeeping.verifying;
        if now_ms < verifying.not_before_ms {
            return Ok(());
        }
        verifying.not_before_ms = now_ms + SLICE_MS;
        let next = match verifying.next {
            None => {
                *verifying = Verifying { reported: verifying.reported, ..Verifying::default() };
                return Ok(());
            }
            Some(Next::Messages(from)) => self.verify_message_slice(from)?,
            Some(Next::Chunks(from)) => self.verify_chunk_slice(from)?,
        };
        let verifying = &mut self.background.housekeeping.verifying;
        verifying.next = next;
        if next.is_none() {
            verifying.not_before_ms = now_ms + REST_MS;
            if verifying.found > 0 {
                log::error!("{} messages and parts of files are damaged", verifying.found);
            }
        }
        Ok(())
    }

    fn verify_message_slice(&mut self, from: Cursor) -> Result<Option<Next>, HandlerError> {
        let slice = self.store.verify_messages(from, MESSAGES_PER_SLICE)?;
        if !self.storage.full_disk.is_full {
            self.store.add_checksums(&slice)?;
        }
        if let Some((chat, message)) = slice.damaged.first() {
            self.note_found(slice.damaged.len(), &format!("message {message} of chat {chat}"));
        }
        let next = slice.next.map(Next::Messages);
        Ok(Some(next.unwrap_or(Next::Chunks(ChunkCursor::FIRST))))
    }

    fn verify_chunk_slice(&mut self, from: ChunkCursor) -> Result<Option<Next>, HandlerError> {
        let slice = self.store.verify_chunks(from)?;
        if !self.storage.full_disk.is_full {
            self.store.add_chunk_checksums(&slice)?;
        }
        if let Some((file, start)) = slice.damaged.first() {
            self.note_found(slice.damaged.len(), &format!("file {file}, from byte {start} on,"));
        }
        Ok(slice.next.map(Next::Chunks))
    }

    /// Counts damage; of one walk the first is named.
    fn note_found(&mut self, count: usize, first: &str) {
        let verifying = &mut self.background.housekeeping.verifying;
        if verifying.found == 0 {
            log::error!(
                "{first} is damaged: run `vestnik check`, keep a copy, and look at the disk"
            );
        }
        verifying.found += count as u64;
    }

    /// Says that requests have met damaged messages or files, in one line each.
    pub(super) fn report_damage(&mut self) {
        let (count, chat, message) = self.store.damage_met();
        let (files, file) = self.store.damaged_files_met();
        let verifying = &mut self.background.housekeeping.verifying;
        let reported = std::mem::replace(&mut verifying.reported, (count, files));
        if count > reported.0 {
            log::error!(
                "damaged messages were read {} times, the last was {message} of chat {chat}: run \
                 `vestnik check`",
                count - reported.0
            );
        }
        if files > reported.1 {
            log::error!(
                "damaged files were read {} times, the last was {file}: run `vestnik check`",
                files - reported.1
            );
        }
    }
}
