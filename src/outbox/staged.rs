//! Counts of staged frames, which join the metrics when the frames are released.

use crate::metrics::Metrics;
use crate::wire::decline::{CODES, Decline};
use crate::wire::purpose::ToClient;

/// Counts of staged frames that are not released: by purpose, and by reason for DECLINED.
pub(super) struct StagedFrames {
    by_purpose: [u32; 256],
    by_reason: [u32; CODES.len()],
    /// A state that only a bug can cause, until it is counted and logged.
    defect: Option<&'static str>,
}

impl Default for StagedFrames {
    fn default() -> Self {
        Self { by_purpose: [0; 256], by_reason: [0; CODES.len()], defect: None }
    }
}

impl StagedFrames {
    pub(super) fn note(&mut self, purpose: ToClient, frames: u32) {
        self.by_purpose[usize::from(purpose.byte())] += frames;
    }

    pub(super) fn note_reason(&mut self, reason: Decline) {
        debug_assert!(reason.index() < self.by_reason.len());
        if let Some(count) = self.by_reason.get_mut(reason.index()) {
            *count += 1;
        }
        debug_assert!(
            self.by_reason.iter().sum::<u32>()
                == self.by_purpose[usize::from(ToClient::Declined.byte())],
            "every DECLINED has one reason"
        );
    }

    /// Forgets the counts of a turn that is undone.
    pub(super) fn discard(&mut self) {
        *self = Self { defect: self.defect, ..Self::default() };
    }

    /// Notes a state that only a bug can cause. A debug build panics.
    pub(super) fn note_defect(&mut self, what: &'static str) {
        debug_assert!(false, "outbox: {what}");
        self.defect = Some(what);
    }

    /// Moves all counts into the metrics.
    pub(super) fn release(&mut self, metrics: &mut Metrics) {
        if let Some(what) = self.defect.take() {
            metrics.internal_error(format_args!("outbox: {what}"));
        }
        for purpose in ToClient::ALL {
            let byte = purpose.byte();
            metrics.frames_sent(byte, std::mem::take(&mut self.by_purpose[usize::from(byte)]));
        }
        for (index, count) in self.by_reason.iter_mut().enumerate() {
            metrics.declined(index, std::mem::take(count));
        }
        debug_assert!(self.by_purpose.iter().all(|count| *count == 0), "a purpose is not listed");
    }
}
