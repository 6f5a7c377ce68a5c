//! Sources of random bytes.
//!
//! Abstracts the operating system's generator, so that a simulation can use a seeded one.

use std::fmt;

use ring::rand::SystemRandom;

/// A source of unpredictable bytes. The server uses [`SystemRandom`]; other sources are for tests
/// and simulations only.
pub trait RandomSource {
    /// Fills all of `bytes`.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

impl RandomSource for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        ring::rand::SecureRandom::fill(self, bytes).map_err(|_| NoRandomness)
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operating system gave no random bytes")
    }
}

impl std::error::Error for NoRandomness {}

#[cfg(test)]
pub(crate) mod fixed {
    //! Sources for tests.

    use std::cell::Cell;

    use super::{NoRandomness, RandomSource};

    /// Counts up, byte by byte.
    #[derive(Default)]
    pub(crate) struct Counting(Cell<u8>);

    impl RandomSource for Counting {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
            for byte in bytes {
                *byte = self.0.get();
                self.0.set(byte.wrapping_add(1));
            }
            Ok(())
        }
    }

    /// Always fails.
    pub(crate) struct Empty;

    impl RandomSource for Empty {
        fn fill(&self, _bytes: &mut [u8]) -> Result<(), NoRandomness> {
            Err(NoRandomness)
        }
    }
}
