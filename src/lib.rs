//! vestnik: a chat server that speaks the Purpose protocol, from one thread and one SQLite file.

pub mod cli;
pub mod client;
pub mod ids;
pub mod limits;
pub mod wire;
