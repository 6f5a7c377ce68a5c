//! The server side of one TLS connection over a non-blocking socket.
//!
//! Owns the TLS session, incomplete records, and encrypted bytes not sent yet. It does not know
//! frames or timers.
//!
//! rustls is used through its unbuffered API: the buffers are here, so an idle connection holds
//! none (3.2 KB instead of 7.4 KB), and each one is bounded.
//!
//! ```text
//! socket -> incoming -> session -> plaintext -> read()
//! socket <- outgoing <- session <------------ write()
//! ```
//!
//! `incoming` is decrypted as it arrives: between calls it holds at most one incomplete record or
//! handshake message. `plaintext` is returned completely before the socket is read again. Both may
//! contain passwords, so decrypted bytes are wiped once they are returned, and when the stream
//! ends.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{Error, InvalidMessage, ServerConfig};
use zeroize::Zeroize as _;

use super::super::transport::end_of_stream;
use super::ACME_PROTOCOL;
use crate::limits::{
    TLS_BARREN_BYTES_MAX, TLS_INCOMING_BYTES_MAX, TLS_OUTGOING_BYTES_MAX, TLS_READ_BYTES,
    TLS_WRITE_BYTES_MAX,
};

/// Bytes of a record besides its plaintext; if it needs more, encoding is retried once.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Bytes of a record with an alert.
const ALERT_RECORD_BYTES: usize = 64;

/// The state of this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// May write.
    Open,
    /// Everything is encrypted, close_notify included; the end of the stream follows once it is
    /// sent.
    Ending,
    /// The end of the stream is sent.
    Ended,
}

/// One TLS connection.
pub struct TlsStream {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    incoming: Vec<u8>,
    plaintext: Queue,
    outgoing: Queue,
    handshaking: bool,
    /// close_notify or the end of the stream has arrived.
    peer_ended: bool,
    side: Side,
    /// Bytes of records received,
    record_bytes: u64,
    /// and those since the last byte of plaintext.
    barren_bytes: usize,
    failure: Failure,
}

/// Whether the session failed, and whether the caller knows.
enum Failure {
    None,
    Untold(io::Error),
    Reported,
}

impl fmt::Debug for TlsStream {
    /// Without the session and without any payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .field("handshaking", &self.handshaking)
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Begins the server side of a handshake on an accepted socket.
    pub fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self {
            socket,
            session,
            incoming: Vec::new(),
            plaintext: Queue::default(),
            outgoing: Queue::default(),
            handshaking: true,
            peer_ended: false,
            side: Side::Open,
            record_bytes: 0,
            barren_bytes: 0,
            failure: Failure::None,
        })
    }

    /// See [`Transport::read`](crate::net::transport::Transport::read). An end of the stream
    /// without close_notify is not an error: frames have lengths, so a truncated one is noticed.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.side != Side::Open {
                // A session that sent close_notify must not process another record.
                return self.socket.read(buf);
            }
            if !self.plaintext.is_empty() || buf.is_empty() {
                return Ok(self.plaintext.take_into(buf));
            }
            match std::mem::replace(&mut self.failure, Failure::Reported) {
                Failure::None => self.failure = Failure::None,
                Failure::Untold(error) => return Err(error),
                Failure::Reported => return self.socket.read(buf),
            }
            if self.peer_ended {
                return Ok(0);
            }
            if let Err(error) = self.receive() {
                self.rest();
                return Err(error);
            }
            if let Err(error) = self.advance() {
                self.fail(error);
            }
            self.send_what_the_session_said();
        }
    }

    /// See [`Transport::write`](crate::net::transport::Transport::write). Accepts at most
    /// [`TLS_WRITE_BYTES_MAX`] per call, and nothing while earlier bytes wait for the socket.
    /// Before the end of the handshake it returns an error, not `WouldBlock`, since a peer may
    /// never complete it.
    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.side != Side::Open || !matches!(self.failure, Failure::None) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.handshaking {
            return Err(ErrorKind::NotConnected.into());
        }
        self.flush()?;
        let taken = &buf[..buf.len().min(TLS_WRITE_BYTES_MAX)];
        self.drive(Action::Encrypt(taken)).map_err(|error| self.fail_now(error))?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken.len()),
        }
    }

    /// Whether encrypted bytes, or the end of the stream, wait for the socket.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() || self.side == Side::Ending
    }

    /// Whether decrypted bytes, or an unreported failure, wait for [`TlsStream::read`].
    pub fn has_buffered_input(&self) -> bool {
        !self.plaintext.is_empty() || matches!(self.failure, Failure::Untold(_))
    }

    /// Memory held for incomplete records and plaintext that was not read yet.
    pub fn inbound_bytes(&self) -> usize {
        self.incoming.capacity() + self.plaintext.bytes.capacity()
    }

    /// Bytes of records received.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Whether the handshake is in progress.
    pub fn is_handshaking(&self) -> bool {
        self.handshaking
    }

    /// Writes the buffered bytes; `WouldBlock` if some are left.
    pub fn flush(&mut self) -> io::Result<()> {
        self.outgoing.write_to(&mut self.socket)?;
        if self.side == Side::Ending {
            self.side = Side::Ended;
            end_of_stream(&self.socket)?;
        }
        Ok(())
    }

    /// Ends this side: close_notify after everything written, then the end of the stream. From now
    /// on, bytes of the peer are returned encrypted, to be discarded.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if self.side == Side::Open {
            self.side = Side::Ending;
            self.plaintext.wipe();
            if !self.handshaking
                && matches!(self.failure, Failure::None)
                && let Err(error) = self.drive(Action::CloseNotify)
            {
                self.fail(error);
            }
            // No record is processed any more.
            self.incoming = Vec::new();
        }
        self.flush()
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Reads once from the socket into `incoming`.
    fn receive(&mut self) -> io::Result<()> {
        let filled = self.incoming.len();
        self.incoming.resize(filled + TLS_READ_BYTES, 0);
        let outcome = self.socket.read(&mut self.incoming[filled..]);
        let received = *outcome.as_ref().unwrap_or(&0);
        self.incoming.truncate(filled + received);
        self.record_bytes += received as u64;
        self.barren_bytes += received;
        self.peer_ended |= outcome? == 0;
        Ok(())
    }

    /// Frees the buffers that an idle connection does not need.
    fn rest(&mut self) {
        self.incoming.shrink_to_fit();
    }

    /// Lets the session process `incoming`, within its limits.
    fn advance(&mut self) -> Result<(), Error> {
        self.drive(Action::Nothing)?;
        if !self.handshaking && self.session.alpn_protocol() == Some(ACME_PROTOCOL) {
            // The ACME authority only wanted the certificate (RFC 8737, section 3).
            self.plaintext.wipe();
            self.peer_ended = true;
        }
        if !self.plaintext.is_empty() {
            self.barren_bytes = 0;
        }
        if self.incoming.len() > TLS_INCOMING_BYTES_MAX - TLS_READ_BYTES
            || self.outgoing.len() > TLS_OUTGOING_BYTES_MAX
            || self.barren_bytes > TLS_BARREN_BYTES_MAX
        {
            return Err(Error::General("more TLS overhead than the server bears".to_owned()));
        }
        Ok(())
    }

    /// Runs the session until it needs more input, then applies the action, which is only given
    /// after the handshake.
    fn drive(&mut self, wish: Action<'_>) -> Result<(), Error> {
        let mut used = 0;
        let outcome = loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut self.incoming[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut outcome = Ok(());
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                used += record.discard;
                                self.plaintext.push(record.payload);
                            }
                            Err(error) => {
                                outcome = Err(error);
                                break;
                            }
                        }
                    }
                    if outcome.is_err() {
                        break outcome;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut said)) => {
                    let encode = |room: &mut [u8]| said.encode(room).map_err(encoding);
                    let encoded = self.outgoing.encode(ALERT_RECORD_BYTES, encode);
                    if encoded.is_err() {
                        break encoded;
                    }
                }
                // Encoded bytes are queued in order, so they count as sent.
                Ok(ConnectionState::TransmitTlsData(said)) => said.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    self.handshaking = false;
                    break wish.apply(traffic, &mut self.outgoing);
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => break Ok(()),
                Ok(_) => break Err(Error::General("early data was never offered".to_owned())),
                Err(error) => break Err(error),
            }
        };
        // It was decrypted in place.
        self.incoming[..used].zeroize();
        self.incoming.drain(..used);
        outcome
    }

    /// Records a failure of the session, and queues the alert for the peer.
    fn fail(&mut self, error: Error) {
        self.queue_alert();
        self.incoming = Vec::new();
        self.failure = Failure::Untold(io::Error::new(ErrorKind::InvalidData, Broken(error)));
    }

    /// The same, for a caller that returns the error at once.
    fn fail_now(&mut self, error: Error) -> io::Error {
        self.queue_alert();
        self.incoming = Vec::new();
        self.failure = Failure::Reported;
        io::Error::new(ErrorKind::InvalidData, Broken(error))
    }

    /// Queues what a failed session still has to send, usually one alert. Do not ask it for more:
    /// it would process the same bad record again.
    fn queue_alert(&mut self) {
        while self.session.wants_write() {
            let status = self.session.process_tls_records(&mut self.incoming);
            let Ok(ConnectionState::EncodeTlsData(mut said)) = status.state else { return };
            let encode = |room: &mut [u8]| said.encode(room).map_err(encoding);
            if self.outgoing.encode(ALERT_RECORD_BYTES, encode).is_err() {
                return;
            }
        }
    }

    /// Sends handshake messages and alerts as they are produced; bytes that the socket does not
    /// accept wait. A broken socket is noticed when it is read.
    fn send_what_the_session_said(&mut self) {
        if let Err(error) = self.outgoing.write_to(&mut self.socket)
            && error.kind() != ErrorKind::WouldBlock
        {
            log::debug!("a TLS message was not sent: {error}");
        }
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.plaintext.wipe();
    }
}

#[cfg(test)]
impl TlsStream {
    /// Bytes that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// Memory held in buffers, in bytes.
    pub(crate) fn room(&self) -> usize {
        self.incoming.capacity() + self.plaintext.bytes.capacity() + self.outgoing.bytes.capacity()
    }
}

/// An action on an open session.
enum Action<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    CloseNotify,
}

impl Action<'_> {
    fn apply(
        self,
        mut traffic: WriteTraffic<'_, ServerConnectionData>,
        outgoing: &mut Queue,
    ) -> Result<(), Error> {
        match self {
            Self::Nothing => Ok(()),
            Self::Encrypt(bytes) => {
                let records = bytes.len() / (16 * 1024) + 1;
                let room = bytes.len() + records * RECORD_OVERHEAD_BYTES;
                outgoing.encode(room, |room| traffic.encrypt(bytes, room).map_err(encrypting))
            }
            Self::CloseNotify => outgoing.encode(ALERT_RECORD_BYTES, |room| {
                traffic.queue_close_notify(room).map_err(encrypting)
            }),
        }
    }
}

/// The reason why nothing was encoded.
enum Unwritten {
    NeedsRoom(usize),
    Never(Error),
}

fn encoding(error: EncodeError) -> Unwritten {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
            Unwritten::NeedsRoom(required_size)
        }
        EncodeError::AlreadyEncoded => Unwritten::Never(Error::General(error.to_string())),
    }
}

fn encrypting(error: EncryptError) -> Unwritten {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
            Unwritten::NeedsRoom(required_size)
        }
        EncryptError::EncryptExhausted => Unwritten::Never(Error::EncryptError),
    }
}

/// The error of a failed session, as a log message.
#[derive(Debug)]
struct Broken(Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                write!(f, "the peer does not speak TLS (a plaintext client on the TLS port?)")
            }
            error => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for Broken {}

/// A queue of bytes; holds no memory when empty.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Bytes taken from the front.
    taken: usize,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes. If the buffer has to grow, the old one is wiped.
    fn push(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let mut moved = Vec::with_capacity(needed.next_power_of_two());
            moved.extend_from_slice(&self.bytes);
            self.bytes.zeroize();
            self.bytes = moved;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops and wipes all bytes.
    fn wipe(&mut self) {
        self.bytes.zeroize();
        *self = Self::default();
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        debug_assert!(self.taken <= self.bytes.len());
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Moves bytes out of the queue.
    fn take_into(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.len());
        let given = &mut self.bytes[self.taken..][..count];
        buf[..count].copy_from_slice(given);
        given.zeroize();
        self.take(count);
        count
    }

    /// Lets `write` encode into the queue; if the buffer was too small, once more with the size
    /// that it asked for.
    fn encode(
        &mut self,
        room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, Unwritten>,
    ) -> Result<(), Error> {
        match self.append(room, &mut write) {
            Err(Unwritten::NeedsRoom(room)) => self.append(room, &mut write),
            outcome => outcome,
        }
        .map_err(|why| match why {
            Unwritten::NeedsRoom(_) => Error::General("no room is enough".to_owned()),
            Unwritten::Never(error) => error,
        })
    }

    fn append(
        &mut self,
        room: usize,
        write: &mut impl FnMut(&mut [u8]) -> Result<usize, Unwritten>,
    ) -> Result<(), Unwritten> {
        let filled = self.bytes.len();
        self.bytes.resize(filled + room, 0);
        let outcome = write(&mut self.bytes[filled..]);
        self.bytes.truncate(filled + *outcome.as_ref().unwrap_or(&0));
        outcome.map(|_| ())
    }

    fn write_to(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while !self.is_empty() {
            match socket.write(&self.bytes[self.taken..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.take(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
