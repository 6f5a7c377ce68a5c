//! The interface between the engine and the outside: byte streams and worker threads.

use std::io;
use std::ops::ControlFlow;

use crate::auth::helper::{Job, JobDone};
use crate::engine::shared_write::SharedWrite;
use crate::ids::ConnId;
use crate::metrics::Page;
use crate::push;
use crate::service::{Flow, Service, TurnEnd};

/// The result of one read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes read or written; 0 from a read is the end of the stream.
    pub bytes: usize,
    /// Cost in bytes of the budget: the same, or the size of the TLS records that carried them.
    pub cost: usize,
    /// The stream has no more, or accepts no more, until [`super::Engine::on_ready`] is called.
    pub is_exhausted: bool,
}

/// Non-blocking byte streams, one per connection.
///
/// `WouldBlock` means: [`super::Engine::on_ready`] is called when it is worth trying again.
pub trait Io {
    /// Reads into `buffer`. `InvalidData`: the peer violated the transport's protocol; the
    /// transport's alert is sent when this side ends.
    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Transfer>;

    /// Writes `head`, which may be empty, and then `body`, in one call. May write only part of
    /// them.
    fn write(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Transfer>;

    /// Whether the transport buffers bytes that were written: then [`Io::flush`] is due.
    fn wants_write(&self, _conn: ConnId) -> bool {
        false
    }

    /// Sends the transport's buffered bytes; `WouldBlock` if some are left.
    fn flush(&mut self, _conn: ConnId) -> io::Result<()> {
        Ok(())
    }

    /// Ends this side of the stream, after everything written.
    fn end(&mut self, conn: ConnId) -> io::Result<()>;

    /// Drops the stream.
    fn close(&mut self, conn: ConnId);

    /// Bytes received that [`Io::read`] has not returned: incomplete TLS records.
    fn inbound_bytes(&self, _conn: ConnId) -> usize {
        0
    }

    /// Whether a TLS handshake is in progress: no request can arrive yet, and reads are expensive.
    fn is_handshaking(&self, _conn: ConnId) -> bool {
        false
    }

    /// Sends a queue without flattening it, from a copy of the broadcast buffer that `peers`
    /// connections share (zero-copy). `None` when that is impossible or does not pay off.
    fn write_shared(
        &mut self,
        _conn: ConnId,
        _queue: &mut SharedWrite<'_>,
        _peers: usize,
    ) -> Option<io::Result<usize>> {
        None
    }

    /// All writes of the turn are done: the shared copy is not needed any more.
    fn end_flush(&mut self) {}

    /// The next result of the password helper.
    fn next_done(&mut self) -> Option<JobDone>;

    /// Whether the helper has work to do.
    fn is_helper_busy(&self) -> bool;

    /// Passes a job to the password helper.
    fn submit(&mut self, job: Job, conn: ConnId) -> io::Result<()>;

    /// A push that a thread has sent, or could not send.
    fn next_pushed(&mut self) -> Option<push::Done> {
        None
    }

    /// Gives a push to a thread; false where there is none for it.
    fn submit_push(&mut self, _push: push::Job) -> bool {
        false
    }

    /// Adds the metrics of sockets and workers to a page.
    fn describe(&self, _page: &mut Page) {}

    /// Microseconds since the turn began; used for metrics only.
    fn elapsed_us(&self) -> u64 {
        0
    }

    /// Called at each step of a turn. The simulation compares the service with its model here, and
    /// stops the engine where it lets the process crash.
    fn observe(&mut self, _event: Event<'_>, _service: &mut Service<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A step of a turn.
#[derive(Debug)]
pub enum Event<'a> {
    /// Changes by the command line were applied.
    ChangesTaken,
    /// A frame was handled.
    Frame {
        /// The connection.
        conn: ConnId,
        /// The frame, header included.
        bytes: &'a [u8],
        /// What happens to the connection next.
        flow: Flow,
    },
    /// The header of an oversized frame was answered.
    Oversized {
        /// The connection.
        conn: ConnId,
        /// The task byte.
        task: u8,
    },
    /// A result of the password helper was handled.
    JobDone,
    /// All requests of the turn are handled; COMMIT is next.
    Committing,
    /// The turn is committed or declined, and its frames are released.
    Ended(TurnEnd),
    /// HTTP requests are answered.
    Served,
    /// The service has forgotten a connection.
    ConnectionForgotten(ConnId),
    /// All connections that ended are forgotten.
    ConnectionsForgotten,
    /// Streamed answers, backlogs and timeouts are released.
    Pumped,
    /// A slice of housekeeping is done.
    Housekept,
}
