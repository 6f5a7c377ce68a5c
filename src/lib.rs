//! vestnik: a chat server that speaks the Purpose protocol, from one thread and one SQLite file.

pub mod acme;
pub mod auth;
pub mod certificate;
pub mod config;
pub mod engine;
pub mod http;
pub mod ids;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod net;
pub mod outbox;
pub mod push;
pub mod service;
pub mod store;
pub mod tokenizer;

pub use purpose::wire;
