//! What the integration tests share: the real binary in a folder of its own, and a client that
//! speaks protocol.md by a codec written for the tests alone.
//!
//! Nothing here may use the crate's own codec: a mistake in it would then pass on both sides.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test crate compiles all of this and uses a part"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the server: they read the clock and start threads"
)]

use std::time::{Duration, Instant};

pub(crate) mod api10;
pub(crate) mod api11;
pub(crate) mod client;
pub(crate) mod folder;
pub(crate) mod people11;
pub(crate) mod push_service;
pub(crate) mod server;
pub(crate) mod tunnel;
pub(crate) mod web;
pub(crate) mod wire;

pub(crate) use client::{Client, Session};
pub(crate) use server::{Server, TempDir};

/// The password of every user that [`Server::add_user`] makes.
pub(crate) const PASSWORD: &str = "correct horse";

/// Tries until it is so. What the server does by itself it does within a second; half a second
/// more is for a busy machine.
#[track_caller]
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(1500), "not within a second");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tries until it is so, for what the server does in its own time: a few seconds on a quiet
/// machine.
#[track_caller]
pub(crate) fn in_time(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "not in two minutes");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A small generator of numbers: the same seed gives the same numbers in every run.
pub(crate) struct Dice(u64);

impl Dice {
    /// The seed must not be 0.
    pub(crate) fn new(seed: u64) -> Self {
        assert_ne!(seed, 0, "0 gives nothing but 0");
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
