//! The server's certificate and key: loading, and replacing them at run time.
//!
//! Owns the pair and the TLS configuration. Every connection keeps the configuration that it began
//! with, so a reload closes none.
//!
//! It offers TLS 1.3 and 1.2 with rustls's default cipher suites, all with forward secrecy. There
//! is no session resumption: it would save 19 of 144 us per handshake, but tickets cost more than
//! that, and a stolen ticket key would decrypt traffic.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use self::stream::TlsStream;
use super::transport::Transport;
use crate::acme;
use crate::certificate::x509::{self, Validity};
use crate::certificate::{CertificateError, read_certificates, read_key};

pub mod stream;

/// The protocol by which an ACME authority asks for a challenge's certificate (RFC 8737).
pub(super) const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// Who the server is to TLS clients, by files that can be loaded anew.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    pair: Option<Arc<CertifiedKey>>,
    /// When the server's certificate is good; `None` when that cannot be read.
    validity: Option<Validity>,
    challenge: Option<Challenge>,
    config: Arc<ServerConfig>,
}

/// A certificate that an ACME authority expects for a name.
#[derive(Clone, Debug)]
pub struct Challenge {
    name: String,
    pair: Arc<CertifiedKey>,
}

/// Days before its end within which a certificate causes a warning.
pub const EXPIRY_WARNING_DAYS: u64 = 14;

impl Identity {
    /// Loads a PEM file of certificates, the server's first, and one with its private key. They
    /// may be the same file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let mut identity = Self::without_pair(certificate, key)?;
        identity.reload()?;
        Ok(identity)
    }

    /// An identity whose files need not be there yet: until they are loaded, handshakes fail.
    pub fn without_pair(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let config = Arc::new(server_config(None, None)?);
        Ok(Self { certificate, key, pair: None, validity: None, challenge: None, config })
    }

    /// Loads the files again, for connections that are accepted from now on. A pair that cannot
    /// be used leaves the old one in place.
    pub fn reload(&mut self) -> Result<(), CertificateError> {
        let chain = read_certificates(&self.certificate)?;
        let validity = chain.first().and_then(|first| x509::validity(first));
        let private = read_key(&self.key)?;
        let pair = CertifiedKey::from_der(chain, private, &default_provider())
            .map_err(|error| mismatch(&self.certificate, &self.key, &error))?;
        let pair = Some(Arc::new(pair));
        self.config = Arc::new(server_config(pair.clone(), self.challenge.clone())?);
        (self.pair, self.validity) = (pair, validity);
        Ok(())
    }

    /// Answers an ACME authority that checks a name, from now on; `None` ends that.
    pub(super) fn answer_challenge(
        &mut self,
        challenge: Option<acme::Challenge>,
    ) -> Result<(), CertificateError> {
        self.challenge = match challenge {
            Some(challenge) => {
                let key = default_provider().key_provider.load_private_key(challenge.key);
                let key = key.map_err(|_| CertificateError("the key cannot be used".to_owned()))?;
                // Not from_der, which refuses the critical extension of a challenge's certificate.
                let pair = Arc::new(CertifiedKey::new(vec![challenge.certificate], key));
                Some(Challenge { name: challenge.name, pair })
            }
            None => None,
        };
        self.config = Arc::new(server_config(self.pair.clone(), self.challenge.clone())?);
        Ok(())
    }

    /// When the server's certificate ends, since the Unix epoch.
    pub fn not_after(&self) -> Option<Duration> {
        self.validity.map(|validity| validity.not_after)
    }

    /// Whether a pair is loaded.
    pub(super) const fn is_there(&self) -> bool {
        self.pair.is_some()
    }

    /// Whether a certificate that is renewed by itself should have been long ago.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        let overdue = |validity: Validity| {
            validity.not_after.saturating_sub(now) < acme::schedule::overdue(validity)
        };
        self.validity.is_some_and(overdue)
    }

    /// One line when the certificate has expired at `now` (since the Unix epoch) or is about to.
    pub fn expiry_warning(&self, now: Duration) -> Option<String> {
        let not_after = self.not_after()?;
        let file = self.certificate.display();
        if not_after <= now {
            return Some(format!("the certificate in {file} has expired, clients will refuse it"));
        }
        let days = (not_after - now).as_secs() / (24 * 60 * 60);
        (days < EXPIRY_WARNING_DAYS)
            .then(|| format!("the certificate in {file} expires in {days} days"))
    }

    /// Begins TLS on an accepted socket.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Transport> {
        let stream = TlsStream::accept(socket, Arc::clone(&self.config))?;
        Ok(Transport::Tls(Box::new(stream)))
    }
}

/// Chooses the certificate of a handshake.
#[derive(Debug)]
struct Resolver {
    pair: Option<Arc<CertifiedKey>>,
    challenge: Option<Challenge>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        let is_challenge = protocols.next() == Some(ACME_PROTOCOL) && protocols.next().is_none();
        if !is_challenge {
            return self.pair.clone();
        }
        let challenge = self.challenge.as_ref()?;
        let is_named =
            hello.server_name().is_some_and(|name| name.eq_ignore_ascii_case(&challenge.name));
        is_named.then(|| Arc::clone(&challenge.pair))
    }
}

fn server_config(
    pair: Option<Arc<CertifiedKey>>,
    challenge: Option<Challenge>,
) -> Result<ServerConfig, CertificateError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CertificateError(format!("cannot set up TLS: {error}")))?;
    // A client that offers neither is not one of this server; most offer nothing.
    let mut protocols = vec![b"http/1.1".to_vec(), b"purpose".to_vec()];
    if challenge.is_some() {
        protocols.push(ACME_PROTOCOL.to_vec());
    }
    let mut config =
        builder.with_no_client_auth().with_cert_resolver(Arc::new(Resolver { pair, challenge }));
    config.send_tls13_tickets = 0;
    config.alpn_protocols = protocols;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn mismatch(certificate: &Path, key: &Path, error: &rustls::Error) -> CertificateError {
    let (certificate, key) = (certificate.display(), key.display());
    CertificateError(match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key in {key} is not that of the certificate in {certificate}")
        }
        error => format!("the certificate in {certificate} with the key in {key}: {error}"),
    })
}

#[cfg(test)]
mod tests;
