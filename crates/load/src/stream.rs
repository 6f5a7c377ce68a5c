//! The byte stream of a connection: plain or TLS, raw or in WebSocket messages, without blocking.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use purpose::wire::websocket::{ClientFrame, Decoder, Role, put_masked};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A non-blocking byte stream over TCP, with optional TLS and WebSocket layers.
pub(super) struct Stream {
    transport: Transport,
    layer: Option<Box<Layer>>,
    /// The last read returned less than it could have.
    was_short: bool,
}

impl Stream {
    /// The plain socket.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self::over(Transport::Plain(socket))
    }

    fn over(transport: Transport) -> Self {
        Self { transport, layer: None, was_short: false }
    }

    /// Adds a WebSocket layer; its handshake is sent first.
    #[must_use]
    pub(super) fn with_websocket(mut self, address: SocketAddr, protocol: &str) -> Self {
        self.layer = Some(Box::new(Layer::new(address, protocol)));
        self
    }

    /// The socket, to register in poll.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        self.transport.socket()
    }

    /// Whether a short read means that everything was read.
    pub(super) fn reports_end(&self) -> bool {
        matches!(self.transport, Transport::Plain(_)) && self.was_short
    }

    /// Reads; 0 at the end of the stream.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.transport.read(room)?;
            self.was_short = count < room.len();
            let Some(layer) = &mut self.layer else { return Ok(count) };
            if count == 0 {
                return Ok(0);
            }
            let payload = layer.unwrap(room, count)?;
            // Write a Pong, or frames that waited for the end of the handshake.
            self.push()?;
            if let Some(payload_bytes) = payload {
                return Ok(payload_bytes);
            }
        }
    }

    /// Queues some of the bytes, and writes as much as the socket accepts.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(layer) = &mut self.layer else { return self.transport.write(bytes) };
        layer.put(ClientFrame::Binary, bytes);
        self.push()?;
        Ok(bytes.len())
    }

    /// Writes buffered bytes, the handshake included.
    pub(super) fn push(&mut self) -> io::Result<()> {
        if let Some(layer) = &mut self.layer {
            while layer.sent < layer.out.len() {
                match self.transport.write(&layer.out[layer.sent..]) {
                    Ok(count) => layer.sent += count,
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::NotConnected
                        ) =>
                    {
                        return Ok(());
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            layer.out.clear();
            layer.sent = 0;
        }
        self.transport.push()
    }
}

/// The WebSocket layer of a connection.
struct Layer {
    decoder: Decoder,
    /// The server's answer to the handshake, until it is complete.
    head: Vec<u8>,
    is_open: bool,
    out: Vec<u8>,
    /// Frames that wait for the end of the handshake: some servers accept none before it.
    early: Vec<u8>,
    sent: usize,
    mask: u32,
}

impl Layer {
    fn new(address: SocketAddr, protocol: &str) -> Self {
        let out = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        Self {
            decoder: Decoder::new(Role::Client),
            head: Vec::new(),
            is_open: false,
            out: out.into_bytes(),
            early: Vec::new(),
            sent: 0,
            mask: u32::from(address.port()) | 1,
        }
    }

    fn put(&mut self, kind: ClientFrame, payload: &[u8]) {
        // Masks only protect old proxies, so a weak generator is enough.
        self.mask = self.mask.wrapping_mul(747_796_405).wrapping_add(1);
        let out = if self.is_open { &mut self.out } else { &mut self.early };
        put_masked(out, kind, self.mask.to_le_bytes(), payload);
    }

    /// Moves the payload among `count` bytes to the front. `None`: no payload yet; 0: the end.
    fn unwrap(&mut self, room: &mut [u8], mut count: usize) -> io::Result<Option<usize>> {
        if !self.is_open {
            self.head.extend_from_slice(&room[..count]);
            let Some(end) = self.head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Ok(None);
            };
            if !self.head.starts_with(b"HTTP/1.1 101 ") {
                let line = self.head.split(|&byte| byte == b'\r').next().unwrap_or_default();
                let line = String::from_utf8_lossy(line);
                return Err(io::Error::other(format!("no WebSocket: {line}")));
            }
            let rest = self.head.split_off(end + 4);
            room[..rest.len()].copy_from_slice(&rest);
            count = rest.len();
            self.head = Vec::new();
            self.is_open = true;
            self.out.append(&mut self.early);
        }
        let mut pings = Vec::new();
        let unwrapped =
            self.decoder.unwrap(&mut room[..count], |ping| pings.push(ping.bytes().to_vec()));
        for ping in pings {
            self.put(ClientFrame::Pong, &ping);
        }
        let is_over = unwrapped.end.is_some() || self.decoder.is_over();
        Ok((unwrapped.payload_bytes > 0 || is_over).then_some(unwrapped.payload_bytes))
    }
}

/// The underlying stream.
enum Transport {
    /// The plain socket.
    Plain(TcpStream),
    /// TLS.
    Tls(TcpStream, Box<ClientConnection>),
}

impl Transport {
    /// The socket, to register in poll.
    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) => socket,
        }
    }

    /// Reads; 0 at the end of the stream.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
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

    /// Queues some of the bytes, and writes as much as the socket accepts.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(_, tls) => {
                let taken = tls.writer().write(bytes)?;
                self.push()?;
                if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    /// Writes buffered bytes, the handshake included.
    fn push(&mut self) -> io::Result<()> {
        if let Self::Tls(socket, tls) = self {
            while tls.wants_write() {
                match tls.write_tls(socket) {
                    Ok(_) => {}
                    // The rest is sent when the socket is writable.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The TLS configuration of a client.
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

    /// Begins a handshake. The server's certificate must contain this address.
    pub(super) fn begin(&self, socket: TcpStream, address: SocketAddr) -> Result<Stream, String> {
        let name = ServerName::IpAddress(address.ip().into());
        let tls =
            ClientConnection::new(Arc::clone(&self.0), name).map_err(|error| error.to_string())?;
        Ok(Stream::over(Transport::Tls(socket, Box::new(tls))))
    }
}
