//! Signals, delivered as bytes in a pipe that wakes the event loop.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals received, and the pipe that wakes the loop.
pub(super) struct Signals {
    pub(super) pipe: mio::net::UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
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
        // Ignored: a write beyond the file size limit must fail, not end the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { pipe: mio::net::UnixStream::from_std(ours), stop, reload })
    }

    pub(super) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(io::Read::read(&mut self.pipe, &mut bytes), Ok(count) if count > 0) {}
    }

    /// Whether SIGTERM or SIGINT has come.
    pub(super) fn is_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether SIGHUP has come since the last call.
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
