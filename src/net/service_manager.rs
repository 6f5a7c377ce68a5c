//! Notifications to the service manager (systemd's `sd_notify`): the server is ready, alive, or
//! stopping.
//!
//! The protocol is one datagram to the socket named by NOTIFY_SOCKET. Without that variable,
//! nothing is sent.

use std::env;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::engine::NEVER_MS;
use crate::store::describe_io;

/// The socket of the service manager, and when it expects the next keepalive.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Milliseconds between two keepalives; `None`: none is expected.
    every_ms: Option<u64>,
    next_ms: u64,
}

impl ServiceManager {
    /// Reads the environment variables of the protocol.
    pub(super) fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(name.as_bytes());
        if let Err(error) = &socket {
            let (name, reason) = (name.to_string_lossy(), describe_io(error));
            log::warn!("cannot notify the service manager at {name:?}: {reason}");
        }
        let limit_us = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let is_mine =
            env::var("WATCHDOG_PID").map_or(true, |text| text.parse() == Ok(std::process::id()));
        let every_ms = keepalive_ms(limit_us.filter(|_| is_mine));
        Self { socket: socket.ok(), every_ms, next_ms: 0 }
    }

    /// Notifies that connections are accepted.
    pub(super) fn ready(&self) {
        self.notify("READY=1");
    }

    /// Notifies that the server stops.
    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// Sends a keepalive when one is due.
    pub(super) fn turn(&mut self, now_ms: u64) {
        if let Some(every_ms) = self.every_ms
            && now_ms >= self.next_ms
        {
            self.next_ms = now_ms.saturating_add(every_ms);
            self.notify("WATCHDOG=1");
        }
    }

    /// When the next keepalive is due, in milliseconds.
    pub(super) fn next_ms(&self) -> u64 {
        self.every_ms.map_or(NEVER_MS, |_| self.next_ms)
    }

    fn notify(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            log::debug!("cannot notify the service manager of {state}: {}", describe_io(&error));
        }
    }
}

/// Half of the watchdog's limit, as the manual recommends; a limit of 0 means that there is none.
fn keepalive_ms(limit_us: Option<u64>) -> Option<u64> {
    limit_us.filter(|us| *us > 0).map(|us| (us / 2_000).max(1))
}

/// Connects to a socket: a path, or `@` and an abstract name.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // The event loop must not block.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_without_a_limit_gets_no_keepalives() {
        assert_eq!(keepalive_ms(None), None);
        assert_eq!(keepalive_ms(Some(0)), None);
        assert_eq!(keepalive_ms(Some(1)), Some(1));
        assert_eq!(keepalive_ms(Some(30_000_000)), Some(15_000));
    }

    #[test]
    fn a_socket_that_is_not_there_is_named_in_plain_words() {
        let reason = |name: &[u8]| describe_io(&connect(name).expect_err("no such socket"));
        assert_eq!(reason(b"/nowhere/notify"), "it does not exist");
        assert_eq!(reason(&[b'x'; 200]), "its path is too long for a socket");
    }
}
