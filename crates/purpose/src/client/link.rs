//! One connection as a stream of frames, with deadlines. Knows no session and no purpose.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Options;
use super::error::{Declined, Error};
use super::tls::Stream;
use super::websocket::WebSocket;
use crate::limits::{HEADER_BYTES, LEGACY_PACK_BYTES_MAX};
use crate::wire::decline::Decline;
use crate::wire::frame::{self, Parsed};

/// Longest body taken from a server: the greatest that the protocol lets one frame have is the
/// pack of a range on API 0.1.
const BODY_BYTES_MAX: usize = 2 * LEGACY_PACK_BYTES_MAX;

/// Least room offered to one read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Longest wait for the rest of a TLS record whose start has come.
const RECORD_WAIT: Duration = Duration::from_millis(1);

/// Now. The client is a tool outside the server: it may read the clock.
#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// A frame that came; its body is in the link's buffer until the next [`Link::receive`].
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) purpose: u8,
    pub(super) task: u8,
    pub(super) body: Range<usize>,
}

/// A connection. `buffer[start..end]` came and was not yet handed out.
pub(super) struct Link {
    stream: Stream,
    websocket: Option<WebSocket>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    outbound: Vec<u8>,
    closed: bool,
}

impl Link {
    /// Connects to the first of `addresses` that takes the connection.
    pub(super) fn open(addresses: &[SocketAddr], options: &Options) -> Result<Self, Error> {
        let mut failure = Error::Io(io::ErrorKind::AddrNotAvailable.into());
        for address in addresses {
            match TcpStream::connect_timeout(address, options.connect_timeout) {
                Ok(socket) => return Self::over(socket, options),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    fn over(socket: TcpStream, options: &Options) -> Result<Self, Error> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(options.connect_timeout))?;
        socket.set_read_timeout(Some(options.connect_timeout))?;
        let deadline = now() + options.connect_timeout;
        let mut stream = Stream::begin(socket, options.tls.as_ref(), deadline)?;
        let mut buffer = Vec::new();
        let websocket = match &options.websocket {
            Some(url) => Some(WebSocket::open(&mut stream, url, &mut buffer, deadline)?),
            None => None,
        };
        let end = buffer.len();
        let outbound = Vec::new();
        Ok(Self { stream, websocket, buffer, start: 0, end, outbound, closed: false })
    }

    /// Sends the frame that `write` appends.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        self.send_within(usize::MAX, write)
    }

    /// Sends the frame that `write` appends, unless its body is longer than the server takes: that
    /// would end the connection.
    pub(super) fn send_within(
        &mut self,
        body_bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.outbound.clear();
        write(&mut self.outbound);
        if self.outbound.len().saturating_sub(HEADER_BYTES) > body_bytes_max {
            self.outbound.fill(0);
            self.outbound = Vec::new();
            let reason = Decline::FrameTooLarge(body_bytes_max).to_string();
            return Err(Error::Declined(Declined::new(&reason)));
        }
        let sent = match &mut self.websocket {
            Some(websocket) => websocket.send(&mut self.stream, &self.outbound),
            None => self.stream.write_all(&self.outbound),
        };
        // The buffer held a password, perhaps.
        self.outbound.fill(0);
        if sent.is_err() {
            self.closed = true;
        }
        Ok(sent?)
    }

    /// The next frame. [`Error::TimedOut`] leaves the connection as it was: the rest of the frame
    /// may still come.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Received, Error> {
        loop {
            let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
            match frame::parse(waiting, BODY_BYTES_MAX) {
                Parsed::Frame(frame) => {
                    let (purpose, task) = (frame.purpose, frame.task);
                    let body = self.start + HEADER_BYTES..self.start + frame.bytes();
                    self.start = body.end;
                    return Ok(Received { purpose, task, body });
                }
                Parsed::TooLarge { .. } => {
                    self.close();
                    return Err(Error::Protocol("a frame longer than any answer"));
                }
                Parsed::Incomplete => self.fill(deadline)?,
            }
        }
    }

    /// Whether a whole frame has come already.
    pub(super) fn has_frame(&self) -> bool {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        !matches!(frame::parse(waiting, BODY_BYTES_MAX), Parsed::Incomplete)
    }

    /// Reads once, if anything has come; whether it has. Does not wait.
    pub(super) fn read_ready(&mut self) -> Result<bool, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if !self.stream.holds_bytes()? {
            let mut waiting = [PollFd::new(self.stream.socket(), PollFlags::IN)];
            let ready = poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        match self.read(RECORD_WAIT) {
            Ok(()) => Ok(true),
            Err(Error::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until something has come here (then true), or `other` can be read, or
    /// the time is over.
    pub(super) fn wait_with(
        &mut self,
        other: BorrowedFd<'_>,
        timeout: Duration,
    ) -> Result<bool, Error> {
        if self.closed || self.has_frame() || self.stream.holds_bytes()? {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).ok();
        let mut waiting = [
            PollFd::new(self.stream.socket(), PollFlags::IN),
            PollFd::from_borrowed_fd(other, PollFlags::IN),
        ];
        match poll(&mut waiting, timeout.as_ref()) {
            Ok(_) => Ok(!waiting[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// The body of the frame received last.
    pub(super) fn body(&self, received: &Received) -> &[u8] {
        self.buffer.get(received.body.clone()).unwrap_or_default()
    }

    /// Reads once, waiting until the deadline at most.
    fn fill(&mut self, deadline: Instant) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let wait = deadline.saturating_duration_since(now());
        if wait.is_zero() {
            return Err(Error::TimedOut);
        }
        self.read(wait)
    }

    /// Reads once, waiting this long at most; not zero.
    fn read(&mut self, wait: Duration) -> Result<(), Error> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < self.end + READ_BYTES {
            self.buffer.resize((2 * self.end).max(self.end + READ_BYTES), 0);
        }
        self.stream.socket().set_read_timeout(Some(wait))?;
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room) {
            Ok(0) => {
                self.closed = true;
                Err(Error::Closed)
            }
            Ok(bytes) => self.take(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => {
                let error = Error::from(error);
                self.closed = !matches!(error, Error::TimedOut);
                Err(error)
            }
        }
    }

    /// Takes bytes that were read behind the others.
    fn take(&mut self, mut bytes: usize) -> Result<(), Error> {
        if let Some(websocket) = &mut self.websocket {
            let read = self.buffer.get_mut(self.end..self.end + bytes).unwrap_or_default();
            let unwrapped = websocket.unwrap(&mut self.stream, read);
            self.closed |= !matches!(unwrapped, Ok((_, false)));
            (bytes, _) = unwrapped?;
        }
        self.end += bytes;
        Ok(())
    }

    /// Ends the connection.
    pub(super) fn close(&mut self) {
        if let Some(websocket) = &mut self.websocket
            && !self.closed
        {
            websocket.close(&mut self.stream);
        }
        self.closed = true;
        self.stream.end();
    }
}
