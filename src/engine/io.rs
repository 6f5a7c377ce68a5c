//! What the engine needs from outside: streams of bytes, and the password helper.

use std::io;
use std::ops::ControlFlow;

use crate::auth::helper::{Job, JobDone};
use crate::ids::ConnId;
use crate::metrics::Page;
use crate::outbox::Outbox;
use crate::push;
use crate::service::{Flow, Service, TurnEnd};

/// What one read or write has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes that were read or written; 0 of a read is the end of the peer's stream.
    pub bytes: usize,
    /// What it cost, in bytes: as many, or those of the TLS records that carried them.
    pub cost: usize,
    /// The stream has no more, or accepts no more, until [`super::Engine::on_ready`] is called.
    pub is_exhausted: bool,
}

/// Streams of bytes, one for each connection, none of which ever blocks.
///
/// `WouldBlock` means: [`super::Engine::on_ready`] is called when it is worth another try.
pub trait Io {
    /// Reads into `buffer`. `InvalidData`: the peer broke the rules of the transport, and what the
    /// transport has to say about it leaves with the end of this side.
    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Transfer>;

    /// Writes some of `head`, which may be empty, and of the `body` behind it, in one call.
    fn write(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Transfer>;

    /// Whether the transport itself holds bytes that were written: then [`Io::flush`] is due.
    fn wants_write(&self, _conn: ConnId) -> bool {
        false
    }

    /// Sends what the transport holds; `WouldBlock` when not all of it could be sent.
    fn flush(&mut self, _conn: ConnId) -> io::Result<()> {
        Ok(())
    }

    /// Ends this side after what was written.
    fn end(&mut self, conn: ConnId) -> io::Result<()>;

    /// Drops the stream.
    fn close(&mut self, conn: ConnId);

    /// Whether a TLS handshake is under way: the peer can send no request yet, and each read is
    /// expensive.
    fn is_handshaking(&self, _conn: ConnId) -> bool {
        false
    }

    /// Sends a queue without flattening it, from a copy of the broadcast buffer that `peers`
    /// connections share; `None` when that is not worth it or not possible.
    fn write_shared(
        &mut self,
        _conn: ConnId,
        _outbox: &mut Outbox,
        _peers: usize,
    ) -> Option<io::Result<usize>> {
        None
    }

    /// All connections have been written to: a shared copy is of no use any more.
    fn end_flush(&mut self) {}

    /// Password work that the helper has finished.
    fn next_done(&mut self) -> Option<JobDone>;

    /// Whether the helper has work.
    fn is_helper_busy(&self) -> bool;

    /// Gives the helper password work that a connection waits for.
    fn submit(&mut self, job: Job, conn: ConnId) -> io::Result<()>;

    /// A push that a thread has sent, or could not send.
    fn next_pushed(&mut self) -> Option<push::Done> {
        None
    }

    /// Gives a push to a thread; it comes back where there is none.
    fn submit_push(&mut self, push: push::Job) -> Result<(), push::Job> {
        Err(push)
    }

    /// Adds to a page of metrics what the outside knows.
    fn describe(&self, _page: &mut Page) {}

    /// Microseconds since the turn began; for metrics alone.
    fn elapsed_us(&self) -> u64 {
        0
    }

    /// Called at the steps of a turn. The simulation compares the service with its model here, and
    /// stops the engine where its process dies.
    fn observe(&mut self, _event: Event<'_>, _service: &mut Service<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A step of a turn.
#[derive(Debug)]
pub enum Event<'a> {
    /// What the command line changed is taken up.
    ChangesTaken,
    /// A frame was handled.
    Frame {
        /// Whose.
        conn: ConnId,
        /// All of it, header included.
        bytes: &'a [u8],
        /// What becomes of the connection.
        flow: Flow,
    },
    /// The header of a frame that is too long was answered.
    Oversized {
        /// Whose.
        conn: ConnId,
        /// Its task byte.
        task: u8,
    },
    /// The result of password work was handled.
    JobDone,
    /// Every request of the turn is handled; its COMMIT is next.
    Committing,
    /// The turn is committed or declined, and released.
    Ended(TurnEnd),
    /// Requests of HTTP are answered.
    Served,
    /// The service has forgotten a connection.
    Parted(ConnId),
    /// Connections that ended are forgotten.
    PartedAll,
    /// What the server sends on its own account is released.
    Pumped,
    /// A slice of housekeeping is done.
    Housekept,
}
