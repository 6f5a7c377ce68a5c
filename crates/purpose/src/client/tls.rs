//! The bytes of a connection, in the clear or through TLS, and whom a client trusts.
//!
//! Owns handshakes and certificates. Must not know frames.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring::default_provider, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};

use super::link::now;

/// TLS to one server, and what makes its certificate a good one.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.name).finish()
    }
}

/// Why TLS cannot be spoken like that, in one line.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl Tls {
    /// Trusts the one certificate with this SHA-256 fingerprint, in hex digits with or without
    /// colons, whatever names and dates it holds. `host` is sent to the server alone.
    ///
    /// # Errors
    /// What is no fingerprint, or no host.
    pub fn pinned(fingerprint: &str, host: &str) -> Result<Self, TlsError> {
        let pin = parse_fingerprint(fingerprint).ok_or_else(|| {
            TlsError(format!("{fingerprint:?} is no SHA-256 fingerprint: 64 hex digits are needed"))
        })?;
        let provider = default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { pin, algorithms }))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), name: server_name(host)? })
    }

    /// Trusts what the certificates of this PEM file vouch for, and nothing else.
    ///
    /// # Errors
    /// A file without certificates, or no host.
    pub fn trusting(pem: &Path, host: &str) -> Result<Self, TlsError> {
        let wrong = |why: &dyn fmt::Display| TlsError(format!("{}: {why}", pem.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(pem).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"no certificate: a PEM file with BEGIN CERTIFICATE is needed"));
        }
        Self::with_roots(roots, host)
    }

    /// Trusts what the system's certificates vouch for.
    ///
    /// # Errors
    /// A system that has none, or no host.
    pub fn system(host: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError("this system has no certificates to trust".to_owned()));
        }
        Self::with_roots(roots, host)
    }

    fn with_roots(roots: RootCertStore, host: &str) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), name: server_name(host)? })
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    // A zone (RFC 4007) means something on this machine alone.
    let bare = host.split('%').next().unwrap_or(host);
    let name = match bare.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => idna::domain_to_ascii(host).unwrap_or_else(|_| host.to_owned()),
    };
    ServerName::try_from(name)
        .map_err(|_| TlsError(format!("{host:?} is no name that a certificate can hold")))
}

/// The bytes of a fingerprint as tools write it: hex digits, in pairs or not.
fn parse_fingerprint(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b':').collect();
    let mut pin = [0; SHA256_OUTPUT_LEN];
    if digits.len() != 2 * pin.len() {
        return None;
    }
    for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(pin)
}

/// Takes one certificate and no other. The server still has to prove that it holds the key.
#[derive(Debug)]
struct Pinned {
    pin: [u8; SHA256_OUTPUT_LEN],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = digest(&SHA256, end_entity);
        if found.as_ref() == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let pairs: Vec<String> = found.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let words = format!(
            "the server's certificate is not the pinned one: its fingerprint is {}",
            pairs.join(":")
        );
        Err(rustls::Error::General(words))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a connection reads from and writes to.
pub(super) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Shakes hands until the deadline, if that is asked for.
    pub(super) fn begin(
        socket: TcpStream,
        tls: Option<&Tls>,
        deadline: Instant,
    ) -> io::Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(socket)) };
        let connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        // `complete_io` would go on for as long as anything comes, even if byte by byte.
        while stream.conn.is_handshaking() {
            send(&mut stream)?;
            let wait = deadline.saturating_duration_since(now());
            if wait.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.sock.set_read_timeout(Some(wait))?;
            match stream.conn.read_tls(&mut stream.sock) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
            if let Err(error) = stream.conn.process_new_packets() {
                // The server is sent the alert that says why.
                let _ = send(&mut stream);
                return Err(explain(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
        send(&mut stream)?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// The socket, for its timeouts and to wait for it.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Whether bytes can be read although the socket has none.
    pub(super) fn holds_bytes(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(false),
            Self::Tls(stream) => {
                let state = stream.conn.process_new_packets().map_err(io::Error::other)?;
                Ok(state.plaintext_bytes_to_read() > 0)
            }
        }
    }

    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Ends it. It may have ended on the other side already: nothing is lost then.
    pub(super) fn end(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Both);
    }
}

/// Sends the messages of a handshake that are due.
fn send(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<()> {
    while stream.conn.wants_write() {
        match stream.conn.write_tls(&mut stream.sock) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// An error of TLS in words: a peer that speaks something else says nothing that TLS could read.
fn explain(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::other("it does not speak TLS there: name its TLS port, or leave out --tls")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_hex_digits_with_colons_or_without() {
        let shown = "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:\
                     27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55";
        let pin = parse_fingerprint(shown).unwrap();
        assert_eq!((pin[0], pin[31]), (0xE3, 0x55));
        assert_eq!(parse_fingerprint(&shown.replace(':', "").to_lowercase()), Some(pin));
        for bad in ["", "E3:B0", &"+f".repeat(32), &"zz".repeat(32), &"€".repeat(22)] {
            assert_eq!(parse_fingerprint(bad), None, "{bad}");
        }
        let error = Tls::pinned("12", "chat.lan").unwrap_err().to_string();
        assert!(error.contains("64 hex digits"), "{error}");
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert!(Tls::pinned(&"ab".repeat(32), "192.168.1.5").is_ok());
        assert!(Tls::pinned(&"ab".repeat(32), "::1").is_ok());
        assert!(Tls::pinned(&"ab".repeat(32), "not a host").is_err());
    }
}
