//! The server's certificate and key: loading them, swapping them while it runs.
//!
//! Owns the pair and what is offered in a handshake. Must not know connections: each keeps the
//! configuration it began with, so a swap drops nobody.
//!
//! Offered are TLS 1.3 and 1.2 with rustls's choice of suites, all with forward secrecy. There is
//! no resumption: a resumed handshake costs the server 125 us against 144 for a full one, tickets
//! cost more than that saves, and without them a stolen ticket key decrypts nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

use self::stream::TlsStream;
use super::transport::Transport;
use crate::limits::PEM_BYTES_MAX;

pub mod expiry;
pub mod self_signed;
pub mod stream;

/// Who the server is to TLS clients, by files that can be loaded anew.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ServerConfig>,
    /// When the server's certificate ends, since the Unix epoch; `None` when it cannot be read.
    not_after: Option<Duration>,
}

/// Days before its end within which a certificate causes a warning.
const EXPIRY_WARNING_DAYS: u64 = 14;

impl Identity {
    /// Loads a PEM file of certificates, the server's first, and one with its private key. They
    /// may be the same file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, BadIdentity> {
        let (config, not_after) = server_config(certificate, key)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self { certificate, key, config: Arc::new(config), not_after })
    }

    /// Loads the files again, for connections that are accepted from now on. A pair that cannot
    /// be used leaves the old one in place.
    pub fn reload(&mut self) -> Result<(), BadIdentity> {
        let (config, not_after) = server_config(&self.certificate, &self.key)?;
        (self.config, self.not_after) = (Arc::new(config), not_after);
        Ok(())
    }

    /// One line when the certificate has expired at `now` (since the Unix epoch) or is about to.
    pub fn expiry_warning(&self, now: Duration) -> Option<String> {
        let not_after = self.not_after?;
        let file = self.certificate.display();
        if not_after <= now {
            return Some(format!(
                "the certificate in {file} has expired, clients will refuse it: \
                 renew it and send SIGHUP"
            ));
        }
        let days = (not_after - now).as_secs() / (24 * 60 * 60);
        (days < EXPIRY_WARNING_DAYS).then(|| {
            format!("the certificate in {file} expires in {days} days: renew it and send SIGHUP")
        })
    }

    /// Begins TLS on an accepted socket.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Transport> {
        let stream = TlsStream::accept(socket, Arc::clone(&self.config))?;
        Ok(Transport::Tls(Box::new(stream)))
    }
}

/// Why a certificate and key cannot be used, in one line that names the file.
#[derive(Debug)]
pub struct BadIdentity(String);

impl fmt::Display for BadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadIdentity {}

fn server_config(
    certificate: &Path,
    key: &Path,
) -> Result<(ServerConfig, Option<Duration>), BadIdentity> {
    let chain = read_certificates(certificate)?;
    let not_after = chain.first().and_then(|first| expiry::not_after(first));
    let private = read_key(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| mismatch(certificate, key, &error))?;
    config.send_tls13_tickets = 0;
    // A client that offers neither is not one of this server; most offer nothing.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"purpose".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((config, not_after))
}

fn mismatch(certificate: &Path, key: &Path, error: &rustls::Error) -> BadIdentity {
    let (certificate, key) = (certificate.display(), key.display());
    BadIdentity(match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key in {key} is not that of the certificate in {certificate}")
        }
        error => format!("the certificate in {certificate} with the key in {key}: {error}"),
    })
}

/// The certificates of a PEM file, in its order; at least one.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadIdentity> {
    let pem = read_pem(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(BadIdentity(format!(
            "no certificate in {}: a PEM file with BEGIN CERTIFICATE is needed",
            file.display()
        ))),
        Err(_) => Err(BadIdentity(format!("{} is damaged: it is no PEM file", file.display()))),
    }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, BadIdentity> {
    let pem = zeroize::Zeroizing::new(read_pem(file)?);
    // What is wrong with a key file is not quoted: the quote might be of the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        BadIdentity(format!(
            "no private key in {}: a PEM file with BEGIN PRIVATE KEY, not encrypted, is needed",
            file.display()
        ))
    })
}

fn read_pem(file: &Path) -> Result<Vec<u8>, BadIdentity> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| BadIdentity(format!("cannot read {}: {error}", file.display())))?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(BadIdentity(format!("{} is too long to be a PEM file", file.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
