//! The bytes of one connection, in the clear or through TLS. Nothing here waits.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What a connection reads from and writes to.
pub(super) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(TcpStream, Box<ClientConnection>),
}

impl Stream {
    /// The socket, for the poll.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) => socket,
        }
    }

    /// Whether a read that gave less than there was room for has taken all that came.
    pub(super) fn reports_end(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Reads what has come; 0 at the end.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let (socket, tls) = match self {
            Self::Plain(socket) => return socket.read(room),
            Self::Tls(socket, tls) => (socket, tls),
        };
        loop {
            match tls.reader().read(room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            if tls.read_tls(socket)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Takes some of the bytes, and writes what can be written.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(_, tls) => {
                let taken = tls.writer().write(bytes)?;
                self.push()?;
                if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    /// Writes what was taken and is not out yet, the handshake's bytes too.
    pub(super) fn push(&mut self) -> io::Result<()> {
        if let Self::Tls(socket, tls) = self {
            while tls.wants_write() {
                match tls.write_tls(socket) {
                    Ok(_) => {}
                    // What was taken goes out when the socket has room.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// How connections are made secure: whom they trust.
pub(super) struct Security(Arc<ClientConfig>);

impl Security {
    /// Trusts the certificates of this PEM file and no others.
    pub(super) fn trusting(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("--tls {}: {why}", path.display());
        let pem = fs::read(path).map_err(|error| wrong(&error))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Begins a handshake with the server at this address, which its certificate must name.
    pub(super) fn begin(&self, socket: TcpStream, address: SocketAddr) -> Result<Stream, String> {
        let name = ServerName::IpAddress(address.ip().into());
        let tls =
            ClientConnection::new(Arc::clone(&self.0), name).map_err(|error| error.to_string())?;
        Ok(Stream::Tls(socket, Box::new(tls)))
    }
}
