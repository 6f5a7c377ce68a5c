//! The metrics endpoint: `vestnik stats` by a Unix socket, scrapes of Prometheus by HTTP.
//!
//! Owns their sockets, the little of HTTP that is needed, and how much of it there may be: a few at
//! a time, a short request, a few seconds. One connection gets one answer. Must not know what the
//! metrics are.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::engine::NEVER_MS;
use crate::http::{self, Answer, Http, Setting, Site, Status, Step, Surface};
use crate::limits::{SCRAPE_REQUEST_BYTES_MAX, SCRAPE_TIMEOUT_MS, SCRAPES_MAX};
use crate::net::listener::{Listener, Port};
use crate::net::serve::cannot_listen;

/// Milliseconds after which accepting is tried again when it failed.
const RETRY_MS: u64 = 1000;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 2 * SCRAPES_MAX;

/// Of the tokens' places, the first that is an scrape's.
const FIRST_SCRAPE: u32 = 2;

/// Where metrics are scraped.
#[derive(Debug, Default)]
pub(super) struct Sources {
    unix: Option<(UnixListener, SocketFile)>,
    http: Option<TcpListener>,
    site: Site,
}

impl Sources {
    /// Listens on the Unix socket, which may fail with a word in the log, and on the port, if there
    /// is to be one, which may not. The lock of the data file must be held: what lies in the
    /// socket's place is then of a server that is gone.
    pub(super) fn open(unix: &Path, http: Option<SocketAddr>, site: Site) -> Result<Self, String> {
        let bind = |address| {
            let bound = Listener::bind(address, Port::Plain);
            bound.map_err(|error| cannot_listen(address, &error))
        };
        let http = http.map(bind).transpose()?;
        let unix = match listen_on_file(unix) {
            Ok(listener) => Some(listener),
            Err(error) => {
                log::warn!("`vestnik stats` will not work: {}: {error}", unix.display());
                None
            }
        };
        Ok(Self { unix, http: http.map(|listener| listener.socket), site })
    }

    /// Where HTTP is taken.
    pub(super) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.local_addr().ok()
    }

    /// The next who waits.
    fn accept(&self) -> io::Result<Option<Stream>> {
        if let Some((listener, _)) = &self.unix
            && let Some((socket, _)) = waiting(listener.accept())?
        {
            return Ok(Some(Stream::Unix(socket)));
        }
        if let Some(listener) = &self.http
            && let Some((socket, _)) = waiting(listener.accept())?
        {
            return Ok(Some(Stream::Http(socket)));
        }
        Ok(None)
    }
}

fn waiting<T>(accepted: io::Result<T>) -> io::Result<Option<T>> {
    match accepted {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file of a Unix socket, removed in the end.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Unless something else lies there by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen_on_file(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Ok(file) = fs::symlink_metadata(path) {
        if !file.file_type().is_socket() {
            return Err(io::Error::other("something that is not a socket is in its place"));
        }
        // Another server with another data file may have been given the same name.
        let is_stale = UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !is_stale {
            return Err(io::Error::other("another server has it"));
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode that the socket has. Changing it by its path could follow a link that
    // somebody has put there meanwhile.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    socket.listen(SCRAPES_MAX as i32)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into()), file))
}

/// An scrape's socket.
#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Http(TcpStream),
}

impl Stream {
    /// On loopback a page of another site must not get here by a name of its own.
    fn surface(&self) -> Surface {
        match self {
            Self::Http(socket)
                if socket.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback()) =>
            {
                Surface::LocalMetrics
            }
            _ => Surface::Metrics,
        }
    }

    const fn is_http(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(room),
            Self::Http(socket) => socket.read(room),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Http(socket) => socket.write(bytes),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
            Self::Http(socket) => socket.shutdown(Shutdown::Write),
        }
    }
}

/// How far an scrape has come.
#[derive(Debug)]
enum Stage {
    /// Its request is not whole.
    Asking { request: Vec<u8>, http: Box<Http> },
    /// Its answer is not all sent.
    Answering { answer: Vec<u8>, sent: usize },
    /// All is sent; it is read from until it ends its side, lest a reset destroy the answer.
    Ending { read: usize },
    /// To be forgotten.
    Over,
}

/// LazyPage that are made when the first of a turn asks.
struct LazyPage<F> {
    make: Option<F>,
    text: String,
}

impl<F: FnOnce() -> String> LazyPage<F> {
    fn text(&mut self) -> &str {
        if let Some(make) = self.make.take() {
            self.text = make();
        }
        &self.text
    }
}

/// The answer to a request, once its head is whole. One connection gets one.
fn answer(
    http: &mut Http,
    request: &[u8],
    surface: Surface,
    page: &mut LazyPage<impl FnOnce() -> String>,
    site: &Site,
) -> Option<Vec<u8>> {
    let socket = Ipv4Addr::UNSPECIFIED.into();
    let setting = Setting { site, surface, socket, is_empty: false, wall_us: 0 };
    let mut out = Vec::new();
    match http.next(request, &setting, &mut out) {
        Step::Wait(_) if request.len() < SCRAPE_REQUEST_BYTES_MAX => return None,
        Step::Wait(_) => {
            let why = "the head of the request is too long";
            http::put_last(Status::HeadTooLarge, why, None, 0, &mut out);
        }
        Step::Metrics(mut used) => {
            used.exchange.is_last = true;
            let page = Answer {
                media_type: "text/plain; version=0.0.4; charset=utf-8",
                body: page.text().as_bytes().into(),
                ..Answer::status(Status::Ok)
            };
            used.exchange.answer(&page, &mut out);
        }
        _ => {}
    }
    Some(out)
}

#[derive(Debug)]
struct Scrape {
    stream: Stream,
    stage: Stage,
    until_ms: u64,
}

impl Scrape {
    /// Goes on as far as possible. False when it is over.
    fn go_on(&mut self, page: &mut LazyPage<impl FnOnce() -> String>, site: &Site) -> bool {
        loop {
            match self.step(page, site) {
                Ok(Some(next)) => self.stage = next,
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if matches!(self.stage, Stage::Over) {
                return false;
            }
        }
    }

    /// One read or write, and the stage that it leads to, if that is another.
    fn step(
        &mut self,
        page: &mut LazyPage<impl FnOnce() -> String>,
        site: &Site,
    ) -> io::Result<Option<Stage>> {
        let mut room = [0; 1024];
        Ok(match &mut self.stage {
            Stage::Asking { request, http } => {
                let count = self.stream.read(&mut room)?;
                if count == 0 {
                    return Ok(Some(Stage::Over));
                }
                request.extend_from_slice(room.get(..count).unwrap_or_default());
                let answer = answer(http, request, self.stream.surface(), page, site);
                answer.map(|answer| Stage::Answering { answer, sent: 0 })
            }
            Stage::Answering { answer, sent } => {
                *sent += self.stream.write(answer.get(*sent..).unwrap_or_default())?;
                if *sent < answer.len() {
                    return Ok(None);
                }
                self.stream.end()?;
                Some(Stage::Ending { read: 0 })
            }
            Stage::Ending { read } => {
                let count = self.stream.read(&mut room)?;
                *read += count;
                (count == 0 || *read > SCRAPE_REQUEST_BYTES_MAX).then_some(Stage::Over)
            }
            Stage::Over => None,
        })
    }
}

/// All who ask.
#[derive(Debug)]
pub(super) struct MetricsServer {
    sources: Sources,
    metrics_server: Slab<Scrape>,
    tokens: fn(u32) -> Token,
    /// Something came that has to be read.
    is_awake: bool,
    /// The sources may have somebody waiting.
    is_called: bool,
    next_ms: u64,
}

impl MetricsServer {
    /// Registers the sources; `tokens` gives the tokens of this module by their places.
    pub(super) fn new(
        mut sources: Sources,
        registry: &Registry,
        tokens: fn(u32) -> Token,
    ) -> io::Result<Self> {
        if let Some((listener, _)) = &mut sources.unix {
            registry.register(listener, tokens(0), Interest::READABLE)?;
        }
        if let Some(listener) = &mut sources.http {
            registry.register(listener, tokens(1), Interest::READABLE)?;
        }
        let (is_awake, is_called) = (false, false);
        Ok(Self {
            sources,
            metrics_server: Slab::new(),
            tokens,
            is_awake,
            is_called,
            next_ms: NEVER_MS,
        })
    }

    /// When [`MetricsServer::serve`] has to be called though nothing came.
    pub(super) const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Notes an event of the token with this place.
    pub(super) fn note_event(&mut self, place: u32) {
        self.is_awake = true;
        self.is_called |= place < FIRST_SCRAPE;
    }

    /// Takes no more, and forgets who is there.
    pub(super) fn close(&mut self) {
        self.sources = Sources::default();
        self.metrics_server.clear();
        self.next_ms = NEVER_MS;
    }

    /// Goes on with everybody as far as possible. `page` is rendered at most once.
    pub(super) fn serve(
        &mut self,
        registry: &Registry,
        now_ms: u64,
        page: impl FnOnce() -> String,
    ) {
        if !self.is_awake && now_ms < self.next_ms {
            return;
        }
        self.is_awake = false;
        let mut page = LazyPage { make: Some(page), text: String::new() };
        let site = &self.sources.site;
        self.metrics_server
            .retain(|_, scrape| now_ms < scrape.until_ms && scrape.go_on(&mut page, site));
        let mut next_ms = NEVER_MS;
        if self.is_called {
            match self.accept(registry, now_ms, &mut page) {
                Ok(is_all) => {
                    self.is_called = !is_all;
                    self.is_awake = !is_all;
                    next_ms = if is_all { NEVER_MS } else { now_ms };
                }
                Err(error) => {
                    log::debug!("a scrape cannot be read: {error}");
                    next_ms = now_ms + RETRY_MS;
                }
            }
        }
        let ends = self.metrics_server.iter().map(|(_, scrape)| scrape.until_ms);
        self.next_ms = ends.fold(next_ms, u64::min);
    }

    /// Takes in who waits, within a turn's share; those for whom there is no room are closed. True
    /// when nobody waits any more.
    fn accept(
        &mut self,
        registry: &Registry,
        now_ms: u64,
        page: &mut LazyPage<impl FnOnce() -> String>,
    ) -> io::Result<bool> {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(stream) = self.sources.accept()? else { return Ok(true) };
            // Those who come by the one way take no room from those who come by the other.
            let is_alike = |scrape: &Scrape| scrape.stream.is_http() == stream.is_http();
            let alike = self.metrics_server.iter().filter(|(_, scrape)| is_alike(scrape)).count();
            let is_full = alike >= SCRAPES_MAX;
            let stage = match stream {
                Stream::Http(_) => Stage::Asking { request: Vec::new(), http: Box::default() },
                // Who may open the socket need not say what it wants.
                Stream::Unix(_) if !is_full => {
                    Stage::Answering { answer: page.text().into(), sent: 0 }
                }
                Stream::Unix(_) => Stage::Over,
            };
            let mut scrape = Scrape { stream, stage, until_ms: now_ms + SCRAPE_TIMEOUT_MS };
            if is_full || !scrape.go_on(page, &self.sources.site) {
                continue;
            }
            let entry = self.metrics_server.vacant_entry();
            let token = (self.tokens)(FIRST_SCRAPE + entry.key() as u32);
            let interest = Interest::READABLE | Interest::WRITABLE;
            match &mut scrape.stream {
                Stream::Unix(socket) => registry.register(socket, token, interest)?,
                Stream::Http(socket) => registry.register(socket, token, interest)?,
            }
            entry.insert(scrape);
        }
        Ok(false)
    }
}
