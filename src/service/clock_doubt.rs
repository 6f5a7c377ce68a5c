//! What follows from a wall clock that cannot be believed: lines in the log, and a note in the
//! database, so that a restart does not make it believable.

use crate::service::clock::ClockEvent;
use crate::service::{HandlerResult, Service};

/// The note is renewed this often.
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
                    "the clock is {days} d {hours} h {minutes} min {seconds} s {way} what it should \
                     be by all that is known: {UNTIL}"
                );
            }
            ClockEvent::Returned => log::info!("the clock is back from its jump: {UNTIL}"),
            ClockEvent::Followed => {
                log::warn!("the clock stays where it jumped to, and is followed: {UNTIL}");
            }
            ClockEvent::Steady => log::info!("the clock is steady: messages go by age again"),
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

    /// The command line has changed what is true of the server as a whole: perhaps it has confirmed
    /// the clock.
    pub(super) fn look_for_confirmation(&mut self) -> HandlerResult {
        if self.clock.doubt_ms() > 0
            && self.background.housekeeping.doubt_noted_ms.is_some()
            && self.store.clock_doubt()? == 0
        {
            self.clock.confirm();
            log::info!("the clock is confirmed: messages go by age again");
        }
        Ok(())
    }
}
