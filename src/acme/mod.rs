//! ACME: gets and renews a certificate from an authority such as Let's Encrypt (RFC 8555, with the
//! challenge TLS-ALPN-01 of RFC 8737).
//!
//! Owns the account, the orders, their files, and the schedule of attempts. Must not know the event
//! loop or its sockets: it emits the certificate of a challenge, and the loop answers with it.
//!
//! ```text
//! worker ── schedule: when? ── attempt: account, order, challenge, certificate ── storage
//!                                  │ client: what is signed and answered ── http: bounded requests
//! ```
//!
//! It runs with `--domain` only.

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

/// The certificate that answers a TLS-ALPN-01 challenge.
#[derive(Debug)]
pub struct Challenge {
    /// The name that the authority checks.
    pub name: String,
    /// The certificate with the key authorization.
    pub certificate: CertificateDer<'static>,
    /// The key of the certificate.
    pub key: PrivateKeyDer<'static>,
}
