//! One connection as the loop sees it: its socket, what is read and not handled, its deadlines.

use zeroize::Zeroize as _;

use crate::config::Config;
use crate::ids::ConnId;
use crate::net::timers::NEVER_MS;
use crate::net::transport::Transport;

/// How far a connection is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Frames are read and handled.
    Open,
    /// No frame is handled any more, and nothing is queued behind what is; that is sent, then this
    /// side ends.
    Flushing,
    /// This side has ended; what comes is thrown away until the peer ends too.
    Draining,
    /// To be forgotten before the next turn.
    Gone,
}

/// One connection. An idle one holds no buffer, and there may be very many: what is not needed at
/// every look, such as the peer's address, is with the service.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) transport: Transport,
    pub(super) phase: Phase,
    /// Bytes read and not handled: the beginning of a frame, or frames that have to wait.
    pub(super) inbox: Vec<u8>,
    /// The socket may have bytes: it has not said WouldBlock since it last said readable.
    pub(super) is_readable: bool,
    /// The socket may take bytes.
    pub(super) is_writable: bool,
    /// The peer has ended its side, or is about to: read to the very end.
    pub(super) is_ending: bool,
    /// The end of the peer's stream was read.
    pub(super) is_ended: bool,
    /// The peer has said DISCONNECT: it is gone once it is sent what is queued, though it may take a
    /// while to end its side.
    pub(super) is_farewell: bool,
    /// For the service it is gone.
    pub(super) is_parted: bool,
    /// Stands in the list of connections to read from.
    pub(super) is_listed: bool,
    /// Counts as unauthorized for its address.
    pub(super) is_counted: bool,
    /// A HEARTBEAT waits for a sign of life.
    pub(super) is_asked: bool,
    /// When the peer was last heard from, or asked for a sign of life.
    pub(super) heard_ms: u64,
    /// When the peer last took bytes; on its way out, when that phase began.
    pub(super) taken_ms: u64,
    /// The entry among the timers that counts.
    pub(super) timer_ms: u64,
}

/// What a deadline asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Send a HEARTBEAT.
    Ask,
    /// Say DISCONNECT, send what is queued and close.
    Close(&'static str),
    /// Forget the connection: its peer does not even take what it is sent.
    Forget(&'static str),
}

impl Connection {
    pub(super) fn new(id: ConnId, transport: Transport, now_ms: u64) -> Self {
        Self {
            id,
            transport,
            phase: Phase::Open,
            inbox: Vec::new(),
            is_readable: false,
            is_writable: true,
            is_ending: false,
            is_ended: false,
            is_farewell: false,
            is_parted: false,
            is_listed: false,
            is_counted: false,
            is_asked: false,
            heard_ms: now_ms,
            taken_ms: now_ms,
            timer_ms: NEVER_MS,
        }
    }

    /// Goes on to a later phase.
    pub(super) fn enter(&mut self, phase: Phase, now_ms: u64) {
        self.phase = phase;
        // Its last words get their own time to be taken, and its end as well.
        self.taken_ms = now_ms;
        if phase != Phase::Open {
            // The beginning of a password may be there.
            self.inbox.zeroize();
            self.inbox = Vec::new();
        }
    }

    /// The next deadline, and what it asks for.
    pub(super) fn deadline(&self, config: &Config, state: &PeerState) -> (u64, Due) {
        let stall = self.taken_ms.saturating_add(config.stall_timeout_ms);
        let stalled = (stall, Due::Forget("it takes nothing of what it is sent"));
        match self.phase {
            Phase::Open => {}
            Phase::Flushing => return stalled,
            Phase::Draining => {
                let end = self.taken_ms.saturating_add(config.drain_timeout_ms);
                return (end, Due::Forget("it does not end its side"));
            }
            Phase::Gone => return (NEVER_MS, Due::Forget("")),
        }
        let mut next = if state.is_full { stalled } else { (NEVER_MS, Due::Ask) };
        if let Some(since) = state.unauthorized_since_ms {
            let auth = since.saturating_add(config.auth_timeout_ms);
            next = earlier(next, (auth, Due::Close("nobody logged in")));
        }
        // While its frames wait in the socket, the silence is the server's own.
        if !state.is_held {
            let life = if self.is_asked {
                let end = self.heard_ms.saturating_add(config.heartbeat_timeout_ms);
                (end, Due::Close("no sign of life"))
            } else {
                (self.heard_ms.saturating_add(config.idle_timeout_ms), Due::Ask)
            };
            next = earlier(next, life);
        }
        next
    }
}

/// What the deadlines of a connection depend on beside itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerState {
    /// Since when it has had no session; `None` when it has one, or a password is being checked.
    pub(super) unauthorized_since_ms: Option<u64>,
    /// Its frames have to wait.
    pub(super) is_held: bool,
    /// Bytes wait for it that its socket does not take.
    pub(super) is_full: bool,
}

fn earlier(one: (u64, Due), other: (u64, Due)) -> (u64, Due) {
    if other.0 < one.0 { other } else { one }
}
