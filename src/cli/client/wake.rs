//! Waking a thread that waits for file descriptors: a bell on one side, an ear on the other.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Rings in another thread.
#[derive(Debug)]
pub(super) struct Bell(UnixStream);

/// Can be read once its bell has rung.
#[derive(Debug)]
pub(super) struct Ear(UnixStream);

pub(super) fn pair() -> io::Result<(Bell, Ear)> {
    let (bell, ear) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    ear.set_nonblocking(true)?;
    Ok((Bell(bell), Ear(ear)))
}

impl Bell {
    /// Wakes the other side, which is awake anyway when the pipe is full.
    pub(super) fn ring(&self) {
        let _ = (&self.0).write(&[1]);
    }

    /// For a signal, which rings by itself.
    pub(super) fn into_inner(self) -> UnixStream {
        self.0
    }
}

impl Ear {
    /// Takes all that has rung until now; whether something has.
    pub(super) fn hush(&self) -> bool {
        let mut bytes = [0; 64];
        let mut rang = false;
        while let Ok(1..) = (&self.0).read(&mut bytes) {
            rang = true;
        }
        rang
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_heard_once_however_often_it_rang() {
        let (bell, ear) = pair().unwrap();
        assert!(!ear.hush());
        for _ in 0..100_000 {
            bell.ring();
        }
        assert!(ear.hush());
        assert!(!ear.hush());
    }
}
