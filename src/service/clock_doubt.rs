//! A wall clock that is not trusted: log lines, and a note in the database, so that a restart does
//! not forget the doubt.

use crate::service::clock::ClockEvent;
use crate::service::{HandlerResult, Service};

/// Milliseconds between two updates of the note.
const NOTE_MS: u64 = 10 * 60 * 1000;

const UNTIL: &str = "nothing is deleted by age until the clock has been steady for a day, or you run \
                     `vestnik clock confirm`";

impl Service<'_> {
    pub(super) fn note_clock(&mut self, event: ClockEvent) {
        // Stored by the next slice of housekeeping.
        self.background.housekeeping.doubt_noted_ms = None;
        match event {
            ClockEvent::Jumped(ahead_us) => {
                let seconds = ahead_us.unsigned_abs() / 1_000_000;
                let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
                let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
                let way = if ahead_us > 0 { "ahead of" } else { "behind" };
                log::warn!(
                    "the clock is {days} d {hours} h {minutes} min {seconds} s {way} what it should be: \
                     {UNTIL}"
                );
            }
            ClockEvent::Returned => log::info!("the clock is back from its jump: {UNTIL}"),
            ClockEvent::Followed => {
                log::warn!("the clock has stayed where it jumped to and is followed now: {UNTIL}");
            }
            ClockEvent::Steady => log::info!("the clock is steady: deletion by age resumes"),
        }
    }

    /// Notes in the database how long the clock is still doubted.
    pub(super) fn note_doubt(&mut self) -> HandlerResult {
        let doubt_ms = self.clock.doubt_ms();
        let noted_ms = self.background.housekeeping.doubt_noted_ms;
        let is_due =
            noted_ms.is_none_or(|noted| doubt_ms > 0 && self.clock.now_ms() >= noted + NOTE_MS);
        if is_due {
            if self.store.clock_doubt()? != doubt_ms {
                self.store.set_clock_doubt(doubt_ms)?;
            }
            self.background.housekeeping.doubt_noted_ms = Some(self.clock.now_ms());
        }
        Ok(())
    }

    /// After a command changed something about the whole server: checks whether it confirmed the
    /// clock.
    pub(super) fn poll_clock_confirmation(&mut self) -> HandlerResult {
        if self.clock.doubt_ms() > 0
            && self.background.housekeeping.doubt_noted_ms.is_some()
            && self.store.clock_doubt()? == 0
        {
            self.clock.confirm();
            log::info!("the clock is confirmed: deletion by age resumes");
        }
        Ok(())
    }
}
