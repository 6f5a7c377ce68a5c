//! The outside: sockets, TLS.

pub mod tls;
pub mod transport;
