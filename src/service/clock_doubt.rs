//! A wall clock that is not trusted: log lines, and a note in the database, so that a restart does
//! not forget the doubt.

use crate::ids::ServerTime;
use crate::service::clock::ClockEvent;
use crate::service::{HandlerResult, Service};
use crate::store::StoreResult;

/// Milliseconds between two updates of the note.
const NOTE_MS: u64 = 10 * 60 * 1000;

const UNTIL: &str = "nothing is deleted by age until the clock has been steady for a day, or you run \
                     `vestnik clock confirm`";

/// A start within the doubt of an earlier run.
pub(super) fn warn_of_start() {
    log::warn!("the clock jumped less than a day before this start: {UNTIL}");
}

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
                if doubt_ms == 0 {
                    self.store.set_clock_trusted(self.clock.wall())?;
                }
            }
            let held_us = self.clock.held_us();
            if self.store.clock_jump()? != held_us {
                self.store.set_clock_jump(held_us)?;
            }
            self.background.housekeeping.doubt_noted_ms = Some(self.clock.now_ms());
        }
        Ok(())
    }

    /// For a graceful shutdown: the next start continues the doubt, or trusts a clock near this
    /// one.
    pub(super) fn finish_clock(&mut self) -> StoreResult<()> {
        self.store.set_clock_doubt(self.clock.doubt_ms())?;
        self.store.set_clock_jump(0)?;
        if let Some(wall) = self.clock.age_clock().filter(|wall| *wall > ServerTime::ZERO) {
            self.store.set_clock_trusted(wall)?;
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

#[cfg(test)]
mod tests {
    use crate::ids::ServerTime;
    use crate::store::{Database, Store};

    /// A command may store later times while a server runs.
    #[test]
    fn a_server_never_lowers_the_time_of_a_command() {
        let at = |micros| ServerTime::new(micros).expect("positive");
        let database = Database::in_memory().expect("memory");
        let stored = |store: &mut Store<'_>| {
            let time = store.server_time().expect("read");
            store.commit().expect("the end of the read");
            time
        };
        let mut server = Store::new(&database).expect("its tables");
        server.reserve_time(at(1_000)).expect("room");
        server.settle_server_time(at(1_500)).expect("room");
        server.commit().expect("room");
        assert_eq!(stored(&mut server), at(1_500), "its own reservation");
        let mut command = Store::new(&database).expect("its tables");
        command.write_server_time(at(9_000_000)).expect("room");
        command.commit().expect("room");
        for attempt in [Store::reserve_time, Store::settle_server_time] {
            attempt(&mut server, at(2_000)).expect("room");
            server.commit().expect("room");
            assert_eq!(stored(&mut server), at(9_000_000));
        }
    }
}
