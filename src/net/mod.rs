//! The network side: sockets, TLS, timers, signals, and the event loop that owns them.
//!
//! It knows no SQL, purposes or passwords; those are behind [`crate::service::Service`].

mod clock;
mod first_run;
mod keeper;
mod listener;
pub mod push_client;
mod push_sender;
mod reactor;
mod serve;
mod service_manager;
mod signals;
mod sockets;
mod stats_socket;
pub mod tls;
pub mod transport;
mod zero_copy;

pub use serve::{ServeError, serve};
