//! What the fuzz targets do with bytes: plain functions that panic when something is wrong.
//!
//! The targets of cargo-fuzz call them with what libFuzzer finds, `tests/fuzz.rs` with what a
//! generator makes, so that a short run needs neither nightly nor sanitizers.

mod bodies;
mod clients;
mod extended;
mod file;
mod frames;
mod http_head;
mod input;
mod model;
mod received;
mod requests;
mod service;
mod stream;
mod tls;
mod websocket;

pub use bodies::bodies;
pub use frames::frames;
pub use http_head::http_head;
pub use service::service;
pub use tls::tls;
pub use websocket::websocket;
