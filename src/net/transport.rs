//! The byte stream of a connection: plain TCP or TLS.
//!
//! Owns the socket and, for TLS, incomplete records. It does not know frames, sessions or timers.
//! Another transport can be added as another variant.
//!
//! Nothing here blocks. After `WouldBlock`, the socket's next readiness event shows when to call
//! again; a caller that stops earlier must call again without an event.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::tls::stream::TlsStream;

/// A byte stream to a peer.
#[derive(Debug)]
pub enum Transport {
    /// The bare socket.
    Plain(TcpStream),
    /// TLS over the socket.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// Reads into `buf`. `Ok(0)`: the peer has ended its side.
    ///
    /// After an error other than `WouldBlock` and `Interrupted`, and after
    /// [`Transport::shutdown_write`], the bytes must be discarded: they may be encrypted. Reading
    /// on is still useful, since unread input would cause a reset that destroys the bytes sent
    /// last.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }

    /// Writes as many bytes as fit, and returns how many. TLS may buffer them: see
    /// [`Transport::wants_write`]. During a handshake, writing is an error.
    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    /// [`Transport::write`] of a head and a body in one call. TLS writes only the head: to get both
    /// in one record, copy them together.
    pub fn write_both(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => {
                socket.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(body)])
            }
            Self::Tls(stream) => stream.write(head),
        }
    }

    /// Whether bytes are buffered, at most `TLS_OUTGOING_BYTES_MAX`: then call [`Transport::flush`]
    /// when the socket is writable.
    pub fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.wants_write(),
        }
    }

    /// Writes the buffered bytes; `WouldBlock` if some are left.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    /// Whether decrypted bytes wait to be read, for which the socket causes no event.
    pub fn has_buffered_input(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.has_buffered_input(),
        }
    }

    /// Memory held for bytes that were received and not read yet; 0 without TLS.
    pub fn inbound_bytes(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.inbound_bytes(),
        }
    }

    /// Bytes of TLS records received; 0 without TLS. They cost CPU time whatever they contain.
    pub fn record_bytes(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.record_bytes(),
        }
    }

    /// Whether a TLS handshake is in progress. Until it is complete the peer cannot send anything,
    /// and each read may take a tenth of a millisecond.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.is_handshaking(),
        }
    }

    /// Ends this side after everything written: close_notify, then the end of the stream. After
    /// `WouldBlock`, [`Transport::flush`] continues.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => end_of_stream(socket),
            Self::Tls(stream) => stream.shutdown_write(),
        }
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// The underlying socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket_mut(),
        }
    }
}

impl Source for Transport {
    fn register(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.socket_mut().register(to, token, interest)
    }

    fn reregister(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.socket_mut().reregister(to, token, interest)
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        self.socket_mut().deregister(from)
    }
}

/// Ends this side of the stream. An error that the peer is gone already is ignored.
pub(super) fn end_of_stream(socket: &TcpStream) -> io::Result<()> {
    match socket.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}
