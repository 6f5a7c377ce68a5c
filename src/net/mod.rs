//! The outside: sockets, TLS, timers, signals, and the loop that owns them.
//!
//! Knows no SQL, no purposes and no passwords; those are behind [`crate::service::Service`].

mod clock;
mod connection;
mod gather;
mod listener;
mod pages;
mod ration;
mod reactor;
mod serve;
mod stats;
mod timers;
pub mod tls;
pub mod transport;

pub use serve::{ServeError, serve};
