//! Where connections come in.

use std::fs::File;
use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::LISTEN_BACKLOG;

/// Milliseconds after which accepting is tried again when there were no descriptors.
pub(super) const RETRY_MS: u64 = 100;

/// What is spoken on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    Plain,
    Tls,
    /// HTTP, for metrics alone.
    Metrics,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) port: Port,
    /// Connections may wait: the last accept did not say that there are none.
    pub(super) is_ready: bool,
}

impl Listener {
    /// Listens, with a backlog that a rush of reconnecting clients does not overflow.
    pub(super) fn bind(address: SocketAddr, port: Port) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // [::] and 0.0.0.0 on one port are two listeners.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        if address.ip().is_loopback() {
            spare_pacing(&socket);
        }
        socket.listen(LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket.into());
        Ok(Self { socket, port, is_ready: false })
    }
}

/// Some systems pace what TCP sends by timers (BBR). Between two processes of one machine there is
/// no queue to spare, and the timers would take a sixth of the server's time. Connections inherit
/// this from their listener; to the world the system's own choice is spoken.
#[cfg(target_os = "linux")]
fn spare_pacing(socket: &Socket) {
    if let Err(error) = socket.set_tcp_congestion(b"reno") {
        log::debug!("congestion control on loopback stays the system's: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn spare_pacing(_: &Socket) {}

/// What accepting one connection gives.
pub(super) enum Accepted {
    Stream(TcpStream, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// It was gone before it was accepted, or another passing fault: try the next.
    Lost,
    /// No descriptors are left: try again after a while.
    NoRoom,
}

/// A descriptor kept back, so that there is one to accept and close with when all are used up:
/// else the peer would wait in the backlog and the loop would not be notified of it again.
#[derive(Debug)]
pub(super) struct Spare(Option<File>);

impl Spare {
    pub(super) fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Accepts one connection from the listener.
    pub(super) fn accept(&mut self, listener: &TcpListener) -> Accepted {
        match listener.accept() {
            Ok((stream, address)) => Accepted::Stream(stream, address),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
            Err(e) if is_out_of_descriptors(&e) => {
                log::warn!("no descriptors are left, a connection is turned away: {e}");
                if self.0.take().is_some() {
                    drop(listener.accept());
                }
                *self = Self::new();
                Accepted::NoRoom
            }
            Err(e) => {
                log::debug!("a connection was gone before it was accepted: {e}");
                Accepted::Lost
            }
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOMEM: i32 = 12;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOMEM | ENOBUFS))
}
