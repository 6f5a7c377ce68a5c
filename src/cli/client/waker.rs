//! Wakes a thread that polls file descriptors: a waker at one end, a receiver at the other.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The end that wakes.
#[derive(Debug)]
pub(super) struct Waker(UnixStream);

/// The end that becomes readable.
#[derive(Debug)]
pub(super) struct WakeReceiver(UnixStream);

pub(super) fn pair() -> io::Result<(Waker, WakeReceiver)> {
    let (waker, receiver) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    Ok((Waker(waker), WakeReceiver(receiver)))
}

impl Waker {
    /// Wakes the other end. If the pipe is full, it was woken already.
    pub(super) fn ring(&self) {
        let _ = (&self.0).write(&[1]);
    }

    /// The file descriptor, for a signal handler to write to.
    pub(super) fn into_inner(self) -> UnixStream {
        self.0
    }
}

impl WakeReceiver {
    /// Consumes all wake-ups; returns whether there was one.
    pub(super) fn hush(&self) -> bool {
        let mut bytes = [0; 64];
        let mut rang = false;
        while let Ok(1..) = (&self.0).read(&mut bytes) {
            rang = true;
        }
        rang
    }
}

impl AsFd for WakeReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_that_rang_often_is_received_once() {
        let (waker, receiver) = pair().unwrap();
        assert!(!receiver.hush());
        for _ in 0..100_000 {
            waker.ring();
        }
        assert!(receiver.hush());
        assert!(!receiver.hush());
    }
}
