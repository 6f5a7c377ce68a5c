//! A slow walk over all messages that finds damage before somebody asks for it.

use crate::service::{HandlerError, Service};
use crate::store::verify::Cursor;

/// Messages verified in one slice.
const MESSAGES_PER_SLICE: u32 = 128;
/// Milliseconds from the end of one walk to the beginning of the next.
const REST_MS: u64 = 24 * 3600 * 1000;
/// Milliseconds between two slices.
const SLICE_MS: u64 = 200;

/// How far the walk has come.
pub(super) struct Verifying {
    next: Option<Cursor>,
    not_before_ms: u64,
    /// Damaged messages of this walk.
    found: u64,
    /// Damaged messages met by requests that are logged.
    reported: u64,
}

impl Default for Verifying {
    fn default() -> Self {
        Self { next: Some(Cursor::default()), not_before_ms: 0, found: 0, reported: 0 }
    }
}

impl Service<'_> {
    /// Verifies some messages, and computes the checksums that are missing.
    pub(super) fn verify_slice(&mut self) -> Result<(), HandlerError> {
        let now_ms = self.clock.now_ms();
        let verifying = &mut self.background.housekeeping.verifying;
        if now_ms < verifying.not_before_ms {
            return Ok(());
        }
        verifying.not_before_ms = now_ms + SLICE_MS;
        let Some(from) = verifying.next else {
            *verifying = Verifying { reported: verifying.reported, ..Verifying::default() };
            return Ok(());
        };
        let slice = self.store.verify_messages(from, MESSAGES_PER_SLICE)?;
        if !self.storage.full_disk.is_full {
            self.store.add_checksums(&slice)?;
        }
        let verifying = &mut self.background.housekeeping.verifying;
        if let Some((chat, message)) = slice.damaged.first().filter(|_| verifying.found == 0) {
            log::error!(
                "message {message} of chat {chat} is damaged: run `vestnik check`, keep a copy, and \
                 look at the disk"
            );
        }
        verifying.found += slice.damaged.len() as u64;
        verifying.next = slice.next;
        if slice.next.is_none() {
            verifying.not_before_ms = now_ms + REST_MS;
            if verifying.found > 0 {
                log::error!("{} messages are damaged", verifying.found);
            }
        }
        Ok(())
    }

    /// Says that requests have met damaged messages, in one line for however many.
    pub(super) fn report_damage(&mut self) {
        let (count, chat, message) = self.store.damage_met();
        let reported =
            std::mem::replace(&mut self.background.housekeeping.verifying.reported, count);
        if count > reported {
            log::error!(
                "damaged messages were read {} times, the last was {message} of chat {chat}: run \
                 `vestnik check`",
                count - reported
            );
        }
    }
}
