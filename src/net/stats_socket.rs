//! The Unix socket of `vestnik stats`: every connection gets the metrics as text.
//!
//! Owns the socket's path, and bounds the connections and their time. It does not know the metrics.
//! The metrics endpoint for scrapes over HTTP is in the engine.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::engine::NEVER_MS;
use crate::limits::{SCRAPES_MAX, STATS_TIMEOUT_MS};
use crate::store::describe_io;

/// Milliseconds to wait before accepting again after an error.
const RETRY_MS: u64 = 1000;

/// Connections accepted per turn.
const ACCEPTS_PER_TURN: usize = 2 * SCRAPES_MAX;

/// Token index of the listener; those of connections follow.
const LISTENER: u32 = 0;
const FIRST_PEER: u32 = 1;

/// Most bytes read from a peer, which need not send any.
const READ_BYTES_MAX: usize = 4 * 1024;

/// The path of a Unix socket; removed on drop.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Unless something else has taken its path by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen_on_file(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Ok(file) = fs::symlink_metadata(path) {
        if !file.file_type().is_socket() {
            return Err(io::Error::other("there is a file that is not a socket"));
        }
        // A server of another database may have been given the same path.
        let is_stale = UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !is_stale {
            return Err(io::Error::other("another server uses it"));
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file inherits the mode of the socket. chmod by path could follow a symlink that someone
    // has put there.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    socket.listen(SCRAPES_MAX as i32)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into()), file))
}

/// The state of a connection.
#[derive(Debug)]
enum Stage {
    /// The page is not sent completely.
    Sending { page: Vec<u8>, sent: usize },
    /// Everything is sent: reads until the peer ends its side, because a reset would destroy the
    /// page.
    Ending { read: usize },
}

#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    stage: Stage,
    until_ms: u64,
}

impl Peer {
    /// Continues as far as possible. False when it is over.
    fn go_on(&mut self) -> bool {
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Does one read or write. False at the end.
    fn step(&mut self) -> io::Result<bool> {
        match &mut self.stage {
            Stage::Sending { page, sent } => {
                *sent += self.stream.write(page.get(*sent..).unwrap_or_default())?;
                if *sent == page.len() {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.stage = Stage::Ending { read: 0 };
                }
                Ok(true)
            }
            Stage::Ending { read } => {
                let count = self.stream.read(&mut [0; 1024])?;
                *read += count;
                Ok(count > 0 && *read <= READ_BYTES_MAX)
            }
        }
    }
}

/// The socket and its connections.
#[derive(Debug)]
pub(super) struct StatsSocket {
    listener: Option<(UnixListener, SocketFile)>,
    peers: Slab<Peer>,
    token: fn(u32) -> Token,
    /// An event came since the last call.
    is_awake: bool,
    /// Connections may be waiting to be accepted.
    is_called: bool,
    next_ms: u64,
}

impl StatsSocket {
    /// Listens. An error is only logged, since the server can run without. The lock of the data
    /// file must be held, so a socket found at the path belongs to a server that has ended.
    pub(super) fn open(path: &Path) -> Self {
        let listener = match listen_on_file(path) {
            Ok(listener) => Some(listener),
            Err(error) => {
                let reason = describe_io(&error);
                log::warn!("`vestnik stats` will not work: {}: {reason}", path.display());
                None
            }
        };
        Self {
            listener,
            peers: Slab::new(),
            token: |index| Token(index as usize),
            is_awake: false,
            is_called: false,
            next_ms: NEVER_MS,
        }
    }

    /// Registers the socket. `token` makes a token of an index.
    pub(super) fn register(
        &mut self,
        registry: &Registry,
        token: fn(u32) -> Token,
    ) -> io::Result<()> {
        self.token = token;
        match &mut self.listener {
            Some((listener, _)) => registry.register(listener, token(LISTENER), Interest::READABLE),
            None => Ok(()),
        }
    }

    /// When [`StatsSocket::serve`] has to be called without any event, in milliseconds.
    pub(super) const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Notes an event of the token with this index.
    pub(super) const fn note_event(&mut self, index: u32) {
        self.is_awake = true;
        self.is_called |= index == LISTENER;
    }

    /// Closes the listener, and drops all connections.
    pub(super) fn close(&mut self) {
        self.listener = None;
        self.peers.clear();
        self.next_ms = NEVER_MS;
    }

    /// Continues all connections as far as possible. `page` renders the metrics, at most once.
    pub(super) fn serve(&mut self, registry: &Registry, now_ms: u64, page: impl Fn() -> String) {
        if !self.is_awake && now_ms < self.next_ms {
            return;
        }
        self.is_awake = false;
        self.peers.retain(|_, peer| now_ms < peer.until_ms && peer.go_on());
        let mut next_ms = NEVER_MS;
        if self.is_called {
            match self.accept(registry, now_ms, page) {
                Ok(is_all) => {
                    self.is_called = !is_all;
                    self.is_awake = !is_all;
                    next_ms = if is_all { NEVER_MS } else { now_ms };
                }
                Err(error) => {
                    let reason = describe_io(&error);
                    log::debug!("cannot accept a connection of `vestnik stats`: {reason}");
                    next_ms = now_ms + RETRY_MS;
                }
            }
        }
        let ends = self.peers.iter().map(|(_, peer)| peer.until_ms);
        self.next_ms = ends.fold(next_ms, u64::min);
    }

    /// Accepts waiting connections, up to the bound of a turn; those above [`SCRAPES_MAX`] are
    /// closed. True when none is waiting any more.
    fn accept(
        &mut self,
        registry: &Registry,
        now_ms: u64,
        page: impl Fn() -> String,
    ) -> io::Result<bool> {
        let Some((listener, _)) = &self.listener else { return Ok(true) };
        let mut rendered = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            if self.peers.len() >= SCRAPES_MAX {
                continue;
            }
            let page: &String = rendered.get_or_insert_with(&page);
            let stage = Stage::Sending { page: page.as_bytes().into(), sent: 0 };
            let mut peer = Peer { stream, stage, until_ms: now_ms + STATS_TIMEOUT_MS };
            if !peer.go_on() {
                continue;
            }
            let entry = self.peers.vacant_entry();
            let token = (self.token)(FIRST_PEER + entry.key() as u32);
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut peer.stream, token, interest)?;
            entry.insert(peer);
        }
        Ok(false)
    }
}
