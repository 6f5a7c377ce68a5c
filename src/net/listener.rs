//! Listening sockets, and accepting connections.

use std::fs::File;
use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::LISTEN_BACKLOG;

/// Milliseconds to wait before accepting again after file descriptors ran out.
pub(super) const RETRY_MS: u64 = 100;

/// The protocol of a port.
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
    /// Connections may be waiting: the last accept did not return `WouldBlock`.
    pub(super) is_ready: bool,
}

impl Listener {
    /// Listens with a backlog large enough for many clients reconnecting at once.
    pub(super) fn bind(address: SocketAddr, port: Port) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // [::] and 0.0.0.0 on one port must be two separate listeners.
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

/// Selects a congestion control without pacing timers on loopback, where no network queue needs
/// protection: with BBR, the timers take a sixth of the server's CPU time. Accepted connections
/// inherit this; all other addresses use the system's setting.
#[cfg(target_os = "linux")]
fn spare_pacing(socket: &Socket) {
    if let Err(error) = socket.set_tcp_congestion(b"reno") {
        log::debug!("cannot set congestion control on loopback: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn spare_pacing(_: &Socket) {}

/// The result of accepting one connection.
pub(super) enum Accepted {
    Stream(TcpStream, SocketAddr),
    /// No connection is waiting.
    NoneWaiting,
    /// The connection was closed before it was accepted, or another transient error: try the next.
    Lost,
    /// No file descriptors are left: try again later.
    NoDescriptors,
}

/// A spare file descriptor. When all others are in use, it makes it possible to accept and close a
/// connection; otherwise the peer would wait in the backlog without another event.
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
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Accepted::NoneWaiting,
            Err(e) if is_out_of_descriptors(&e) => {
                log::warn!("no file descriptors are left, a connection is rejected: {e}");
                if self.0.take().is_some() {
                    drop(listener.accept());
                }
                *self = Self::new();
                Accepted::NoDescriptors
            }
            Err(e) => {
                log::debug!("a connection was closed before it was accepted: {e}");
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
