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
pub(crate) mod client;
pub(crate) mod server;
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
