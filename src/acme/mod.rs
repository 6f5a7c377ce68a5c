//! A certificate from an ACME authority, renewed by itself (RFC 8555, TLS-ALPN-01 of RFC 8737).
//!
//! Owns the account, the orders, the files in which they are kept, and when to try again. Must not
//! know the loop or its sockets: it says which certificate a challenge needs, and the loop answers
//! with it.
//!
//! ```text
//! worker ── schedule: when? ── attempt: account, order, challenge, certificate ── storage
//!                                  │ client: what is signed and answered ── http: bounded requests
//! ```
//!
//! Nothing of it runs without `--domain`.

mod attempt;
mod client;
mod failure;
mod http;
mod jose;
pub mod schedule;
mod storage;
mod worker;

#[cfg(test)]
mod tests;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use storage::{Storage, covered_by};
pub use worker::{Event, Now, Worker};

/// The certificate with which the server answers an authority that checks a name.
#[derive(Debug)]
pub struct Challenge {
    /// The name that the authority asks for.
    pub name: String,
    /// What it expects.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}
