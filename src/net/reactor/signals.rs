//! Signals, as bytes in a pipe that wakes the loop.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::connection::Phase;

use super::Reactor;

/// Signals that came, and the pipe that wakes the loop for them.
pub(super) struct Signals {
    pub(super) pipe: mio::net::UnixStream,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) reload: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stop, reload) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        for (signal, flag) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
        }
        // A file that may not grow fails its write; the signal must not end the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { pipe: mio::net::UnixStream::from_std(ours), stop, reload })
    }

    pub(super) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(io::Read::read(&mut self.pipe, &mut bytes), Ok(count) if count > 0) {}
    }
}

impl Reactor<'_, '_> {
    pub(super) fn handle_signals(&mut self) {
        if self.signals.reload.swap(false, Ordering::Relaxed)
            && let Some(identity) = &mut self.identity
        {
            match identity.reload() {
                Ok(()) => log::info!("certificate and key are loaded again"),
                Err(error) => log::error!("certificate and key stay as they were: {error}"),
            }
        }
        if self.signals.stop.load(Ordering::Relaxed) && self.stopping_until_ms.is_none() {
            log::info!("stopping");
            let now_ms = self.clock.now_ms();
            self.stopping_until_ms = Some(now_ms + self.config.shutdown_timeout_ms);
            self.listeners.clear();
            self.metrics_server.close();
            self.service.dismiss_all();
            for (_, connection) in &mut self.connections {
                if connection.phase == Phase::Open {
                    connection.enter(Phase::Flushing, now_ms);
                }
            }
        }
    }
}
