//! The outside: sockets, TLS, timers, signals, and the loop that owns them.
//!
//! Knows no SQL, no purposes and no passwords; those are behind [`crate::service::Service`].

mod clock;
mod connection;
mod listener;
mod log_rate_limit;
mod metrics_server;
mod reactor;
mod serve;
mod timers;
pub mod tls;
pub mod transport;
mod write_coalescer;
mod zero_copy;

pub use serve::{ServeError, serve};
