//! What the service manager is notified of (systemd's `sd_notify`): that the server is ready, that
//! its loop goes round, and that it stops.
//!
//! A datagram to the socket that NOTIFY_SOCKET names is all that there is to the protocol. Nothing
//! is sent, and nothing fails, where there is no such socket.

use std::env;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::engine::NEVER_MS;

/// The way to the service manager, and when it next wants to hear of the loop.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Milliseconds between two signs of life; `None`: none is asked for.
    every_ms: Option<u64>,
    next_ms: u64,
}

impl ServiceManager {
    /// As the environment says.
    pub(super) fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(name.as_bytes());
        if let Err(error) = &socket {
            log::warn!("the service manager cannot be notified: {error}");
        }
        let limit_us = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let is_mine =
            env::var("WATCHDOG_PID").map_or(true, |text| text.parse() == Ok(std::process::id()));
        // Half of the limit, as its manual asks.
        let every_ms = limit_us.filter(|_| is_mine).map(|us| (us / 2_000).max(1));
        Self { socket: socket.ok(), every_ms, next_ms: 0 }
    }

    /// Connections are accepted.
    pub(super) fn ready(&self) {
        self.notify("READY=1");
    }

    /// The server stops.
    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// The loop goes round.
    pub(super) fn turn(&mut self, now_ms: u64) {
        if let Some(every_ms) = self.every_ms
            && now_ms >= self.next_ms
        {
            self.next_ms = now_ms.saturating_add(every_ms);
            self.notify("WATCHDOG=1");
        }
    }

    /// When the loop has to go round again, at the latest.
    pub(super) fn next_ms(&self) -> u64 {
        self.every_ms.map_or(NEVER_MS, |_| self.next_ms)
    }

    fn notify(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            log::debug!("the service manager was not notified of {state}: {error}");
        }
    }
}

/// A socket to one with this name: a path, or `@` and an abstract name.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // The loop waits for nobody.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(name)?)?;
    Ok(socket)
}

fn address(name: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(rest) = name.strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(rest);
    }
    SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(name)))
}
