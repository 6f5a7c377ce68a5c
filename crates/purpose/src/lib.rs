//! The Purpose chat protocol: its bytes, and a blocking client library.
//!
//! - [`client`] is for somebody who makes a bot or a client: log in, send, receive, files, and a
//!   copy of the chats that stays exact over broken connections. `examples/echo_bot.rs` shows it.
//! - [`wire`] is the protocol to the byte, for somebody who makes a server or another kind of
//!   client: frames, requests, answers, and WebSocket below them. It allocates only where a
//!   message owns text, knows no socket and no clock.
//! - [`ids`] and [`limits`] are the numbers that both speak of.
//!
//! Nothing here depends on the server.

#![forbid(unsafe_code)]

pub mod client;
pub mod ids;
pub mod limits;
pub mod wire;
