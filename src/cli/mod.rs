//! The command line.

pub mod cert;
