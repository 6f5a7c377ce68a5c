//! Bytes to and from a peer, in the clear or through TLS.
//!
//! Owns the socket and, for TLS, the records that are not whole yet. Must not know frames,
//! sessions or timers. Another transport joins as another variant.
//!
//! Nothing here blocks. `WouldBlock` means: the next readiness event of the socket shows when to
//! call again; a caller that stops before `WouldBlock` must call again on its own.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::tls::stream::TlsStream;

/// A connection to a peer.
#[derive(Debug)]
pub enum Transport {
    /// The socket as it is.
    Plain(TcpStream),
    /// TLS over the socket.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// Reads what the peer said into `buf`. `Ok(0)`: it has ended its side.
    ///
    /// After an error other than `WouldBlock` and `Interrupted`, and after
    /// [`Transport::shutdown_write`], what comes is to be thrown away: it may not even be
    /// decrypted. It is read so that no reset destroys what the peer was sent last.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }

    /// Takes bytes for the peer, as many as fit, and says how many. TLS may hold on to what it
    /// took: see [`Transport::wants_write`]. During a handshake nobody can be notified anything,
    /// which is an error.
    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    /// [`Transport::write`] of a head and what stands behind it, in one call. TLS takes the head
    /// alone: a caller that wants both in one record copies them together.
    pub fn write_both(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => {
                socket.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(body)])
            }
            Self::Tls(stream) => stream.write(head),
        }
    }

    /// Whether bytes wait in here for the socket to take them: then [`Transport::flush`] is to be
    /// called when it is writable. At most `TLS_OUTGOING_BYTES_MAX` do.
    pub fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.wants_write(),
        }
    }

    /// Gives the socket what waits in here; `WouldBlock` when it does not take it all.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    /// Whether bytes wait in here to be read, which no event of the socket will say.
    pub fn has_buffered_input(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.has_buffered_input(),
        }
    }

    /// Bytes of TLS records that have come; 0 without TLS. Each costs, whatever it holds.
    pub fn record_bytes(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.record_bytes(),
        }
    }

    /// Whether a TLS handshake is not over. Until then the peer can say nothing, and each read
    /// may cost a tenth of a millisecond.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.is_handshaking(),
        }
    }

    /// Ends this side after what was written: close_notify, then the end of the stream. On
    /// `WouldBlock` [`Transport::flush`] goes on with it.
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

    /// The socket below.
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

/// Ends the stream towards the peer. That the peer is gone already is as good.
pub(super) fn end_of_stream(socket: &TcpStream) -> io::Result<()> {
    match socket.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}
