//! What the integration tests share: the real binary in a folder of its own, and a client that
//! speaks protocol.md by a codec written for the tests alone.
//!
//! Nothing here may use the crate's own codec: a mistake in it would then pass on both sides.
#![allow(
    dead_code,
    reason = "every test crate compiles all of this and uses a part"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the server: they read the clock and start threads"
)]

pub(crate) mod client;
pub(crate) mod server;
pub(crate) mod wire;

pub(crate) use client::{Client, Session};
pub(crate) use server::{Server, TempDir};

/// The password of every user that [`Server::add_user`] makes.
pub(crate) const PASSWORD: &str = "correct horse";
