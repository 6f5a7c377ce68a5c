//! One connection of the load: its bytes in and out, and its unanswered requests.
//!
//! Must not know a protocol: those are the dialects (`native`, `resp`, `mqtt`, `nats`).

use std::collections::VecDeque;
use std::io;

use super::count::{Shared, Tally};
use super::history::Walk;
use super::stream::Stream;
use super::{mqtt, native, nats, resp};
use purpose::wire::Version;

/// Smallest free space offered to a read, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Reads per connection and turn; the rest waits for the next turn.
const READS_PER_TURN: usize = 8;

/// The work that a connection does once it is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Receives only.
    Listen,
    /// Sends, with a window of unanswered requests.
    Send,
    /// Sends at a fixed rate.
    Timed,
    /// Sends HEARTBEATs, with a window.
    Echo,
    /// Reads the history, page after page.
    History,
    /// Logs off and in again.
    Login,
    /// Restores the session at this index, whenever another connection took it over.
    Restore(usize),
    /// Marks messages as seen, and on API 1.0 alternates that with typing.
    Ephemeral,
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Hello,
    Login,
    Logoff,
    Restore,
    ChatId,
    CreateChat,
    Join,
    Send,
    Echo,
    Page,
    Range,
    Other,
}

/// A request without an answer yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) kind: Kind,
    pub(super) task: u8,
    /// The index of the chat.
    pub(super) slot: u16,
    /// When it was due to be sent, in nanoseconds since the run began.
    pub(super) at_ns: u64,
}

/// The progress of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Connecting and logging in.
    Setup,
    /// Rejected for now: retries at this time, in nanoseconds since the run began.
    Retry(u64),
    /// Does the work of its role.
    Ready,
    /// Closed.
    Closed,
}

/// The protocol of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// Purpose, of vestnik.
    Purpose(Version),
    /// RESP, of Redis.
    Resp,
    /// MQTT 3.1.1, of mosquitto.
    Mqtt,
    /// The protocol of nats-server.
    Nats,
}

/// A connection.
pub(super) struct Conn {
    pub(super) stream: Stream,
    pub(super) index: usize,
    pub(super) dialect: Dialect,
    pub(super) role: Role,
    pub(super) stage: Stage,
    /// Whether it has a session.
    pub(super) authorized: bool,
    /// The index of its user.
    pub(super) user: usize,
    /// The index of its chat, if any.
    pub(super) slot: Option<usize>,
    pub(super) tally: Tally,
    pub(super) walk: Walk,
    pub(super) waiting: VecDeque<Pending>,
    task: u8,
    /// An incomplete frame.
    carry: Vec<u8>,
    pub(super) out: Vec<u8>,
    written: usize,
    /// The reason why it was closed.
    pub(super) why: String,
    /// Whether the connection was refused.
    pub(super) is_refused: bool,
}

/// Whether a connection may have more to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drained {
    Yes,
    No,
}

impl Conn {
    /// A connection that is being made.
    pub(super) fn new(stream: Stream, index: usize, dialect: Dialect, role: Role) -> Self {
        Self {
            stream,
            index,
            dialect,
            role,
            stage: Stage::Setup,
            authorized: false,
            user: index,
            slot: None,
            tally: Tally::default(),
            walk: Walk::default(),
            waiting: VecDeque::new(),
            task: 0,
            carry: Vec::new(),
            out: Vec::new(),
            written: 0,
            why: String::new(),
            is_refused: false,
        }
    }

    /// Notes a request that is written next. Returns its task byte.
    pub(super) fn ask(&mut self, kind: Kind, slot: usize, at_ns: u64) -> u8 {
        self.task = self.task % u8::MAX + 1;
        self.waiting.push_back(Pending { kind, task: self.task, slot: slot as u16, at_ns });
        self.task
    }

    /// Sends as many requests as the role and the window allow.
    pub(super) fn fill(&mut self, shared: &mut Shared) {
        if self.stage != Stage::Ready || !shared.sends() {
            return;
        }
        match self.dialect {
            Dialect::Purpose(version) => native::fill(self, version, shared),
            Dialect::Resp => resp::fill(self, shared),
            Dialect::Mqtt => mqtt::fill(self, shared),
            Dialect::Nats => nats::fill(self, shared),
        }
    }

    /// Sends one message that was due at this time.
    pub(super) fn send(&mut self, shared: &Shared, at_ns: u64) {
        match self.dialect {
            Dialect::Purpose(version) => native::send(self, version, shared, at_ns),
            Dialect::Resp | Dialect::Nats => resp::send(self, shared, at_ns),
            Dialect::Mqtt => mqtt::send(self, shared, at_ns),
        }
    }

    /// Reads and handles what has arrived, through a buffer that all connections share. `ending`:
    /// the peer has ended its stream, so read to the end.
    pub(super) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        shared: &mut Shared,
        ending: bool,
    ) -> Drained {
        for _ in 0..READS_PER_TURN {
            let carried = self.carry.len();
            if buffer.len() < carried + READ_BYTES {
                buffer.resize(carried + READ_BYTES, 0);
            }
            buffer[..carried].copy_from_slice(&self.carry);
            let room = buffer.len() - carried;
            match self.stream.read(&mut buffer[carried..]) {
                Ok(0) => {
                    self.close(shared, "the server closed it");
                    return Drained::Yes;
                }
                Ok(bytes) => {
                    shared.total.bytes_in += bytes as u64;
                    let end = carried + bytes;
                    let used = self.handle_bytes(&buffer[..end], shared);
                    self.carry.clear();
                    self.carry.extend_from_slice(&buffer[used..end]);
                    // A short read has drained the stream: more bytes cause another event.
                    if self.stage == Stage::Closed
                        || (self.stream.reports_end() && bytes < room && !ending)
                    {
                        return Drained::Yes;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Yes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(shared, &error);
                    return Drained::Yes;
                }
            }
        }
        Drained::No
    }

    /// Handles the complete frames at the front of `bytes`. Returns their length.
    fn handle_bytes(&mut self, bytes: &[u8], shared: &mut Shared) -> usize {
        match self.dialect {
            Dialect::Purpose(version) => native::handle_bytes(self, version, bytes, shared),
            Dialect::Resp => resp::handle_bytes(self, bytes, shared),
            Dialect::Mqtt => mqtt::handle_bytes(self, bytes, shared),
            Dialect::Nats => nats::handle_bytes(self, bytes, shared),
        }
    }

    /// Writes queued bytes, as far as the socket accepts them.
    pub(super) fn flush(&mut self, shared: &mut Shared) {
        while self.written < self.out.len() && self.stage != Stage::Closed {
            match self.stream.write(&self.out[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Not connected yet: the event of the connection calls this again.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.fail(shared, &error),
            }
        }
        self.out.clear();
        self.written = 0;
        if self.stage != Stage::Closed
            && let Err(error) = self.stream.push()
        {
            self.fail(shared, &error);
        }
    }

    fn fail(&mut self, shared: &mut Shared, error: &io::Error) {
        self.is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
        self.close(shared, &error.to_string());
    }

    /// Closes the connection. During setup the cause may be the server's limit on unauthenticated
    /// connections, so the connection is retried; later a close is a fault.
    pub(super) fn close(&mut self, shared: &mut Shared, why: &str) {
        if self.stage == Stage::Ready {
            let index = self.index;
            shared.faults.note(|| format!("connection {index} was lost: {why}"));
        }
        self.stage = Stage::Closed;
        self.why = why.to_owned();
        self.authorized = false;
        self.carry = Vec::new();
    }

    /// Removes the oldest unanswered request, if the answer belongs to it.
    pub(super) fn answered(&mut self, task: u8, shared: &mut Shared) -> Option<Pending> {
        match self.waiting.pop_front() {
            Some(pending) if pending.task == task => Some(pending),
            other => {
                let index = self.index;
                shared.faults.note(|| {
                    format!("connection {index}: an answer to task {task} where {other:?} waits")
                });
                None
            }
        }
    }
}
