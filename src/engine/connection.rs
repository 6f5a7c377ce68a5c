//! One connection: its state machine, the input that is not handled yet, and its deadlines.

use std::net::IpAddr;

use zeroize::Zeroize as _;

use crate::auth::throttle::Origin;
use crate::engine::Options;
use crate::engine::deadlines::NEVER_MS;
use crate::engine::protocol::{Phase, Protocol};
use crate::http::Surface;
use crate::ids::ConnId;
use crate::limits::WEBSOCKET_IDLE_MS_MAX;

/// The state of a connection. It only ever moves to a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Frames are read and handled.
    Open,
    /// No frame is handled any more. The queued bytes are sent, then this side ends.
    Flushing,
    /// This side has ended. Input is discarded until the peer ends its side, lest a reset destroy
    /// what was sent last. The service has forgotten the connection.
    Draining,
    /// To be dropped before the turn ends.
    Closed,
}

impl State {
    /// Whether a connection may move from this state to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Open => matches!(next, Self::Flushing | Self::Closed),
            Self::Flushing => matches!(next, Self::Draining | Self::Closed),
            Self::Draining => matches!(next, Self::Closed),
            Self::Closed => false,
        }
    }
}

/// The peer's side of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// Nothing to read until the stream reports that there is.
    Drained,
    /// There may be something to read.
    Readable,
    /// The peer has ended its side, or is about to: read until the end is found.
    Ending,
    /// The end was read.
    Ended,
}

/// As what a connection counts against the bound of an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Counted {
    pub(super) origin: Origin,
    /// It is one of a browser.
    pub(super) is_web: bool,
}

/// One connection. An idle one holds no buffer, and there may be very many.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    /// The other end of its stream.
    pub(super) socket: IpAddr,
    /// The address that every limit counts for: that of its socket, or what a proxy names.
    pub(super) address: IpAddr,
    pub(super) surface: Surface,
    pub(super) protocol: Protocol,
    state: State,
    pub(super) input: Input,
    /// Bytes that were read and not handled: the beginning of a frame, or frames that wait.
    pub(super) inbox: Vec<u8>,
    /// The stream may accept bytes.
    pub(super) is_writable: bool,
    /// Is in the list of connections to read from.
    pub(super) is_enqueued: bool,
    /// Counts as unauthenticated for its address.
    pub(super) counted: Option<Counted>,
    /// Bytes at the front of its queue that stand before the first message of a WebSocket.
    pub(super) raw_bytes: usize,
    /// A HEARTBEAT waits for a sign of life.
    pub(super) is_probed: bool,
    /// When the peer was last heard from, or asked for a sign of life.
    pub(super) heard_ms: u64,
    /// When the peer last accepted bytes, or when the present state began.
    pub(super) progress_ms: u64,
    /// The entry among the deadlines that counts.
    pub(super) timer_ms: u64,
}

/// What a deadline asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Send a HEARTBEAT.
    Probe,
    /// Send DISCONNECT behind what is queued, then end.
    Disconnect(&'static str),
    /// A request of HTTP did not come in time.
    Http(Phase),
    /// Drop the connection: its peer does not even accept what it is sent.
    Drop(&'static str),
}

impl Connection {
    pub(super) fn new(id: ConnId, address: IpAddr, surface: Surface, now_ms: u64) -> Self {
        Self {
            id,
            socket: address,
            address,
            surface,
            protocol: Protocol::Undecided,
            state: State::Open,
            input: Input::Readable,
            inbox: Vec::new(),
            is_writable: true,
            is_enqueued: false,
            counted: None,
            raw_bytes: 0,
            is_probed: false,
            heard_ms: now_ms,
            progress_ms: now_ms,
            timer_ms: NEVER_MS,
        }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Moves to a later state. False when it may not go there from where it is: a defect.
    #[must_use]
    pub(super) fn enter(&mut self, next: State, now_ms: u64) -> bool {
        let is_allowed = self.state.may_become(next);
        debug_assert!(is_allowed, "{} goes from {:?} to {next:?}", self.id, self.state);
        self.state = self.state.max(next);
        // Each state has its own time to make progress.
        self.progress_ms = now_ms;
        // The beginning of a password may be there.
        self.inbox.zeroize();
        self.inbox = Vec::new();
        is_allowed
    }

    /// Whether there may be something to read.
    pub(super) const fn is_readable(&self) -> bool {
        matches!(self.input, Input::Readable | Input::Ending)
    }

    /// The next deadline, and what it asks for.
    pub(super) fn deadline(&self, options: &Options, facts: &Facts) -> (u64, Due) {
        let stall_ms = self.progress_ms.saturating_add(options.stall_timeout_ms);
        let stalled = (stall_ms, Due::Drop("it accepts nothing of what it is sent"));
        match self.state {
            State::Open => {}
            State::Flushing => return stalled,
            State::Draining => {
                let end_ms = self.progress_ms.saturating_add(options.drain_timeout_ms);
                return (end_ms, Due::Drop("it does not end its side"));
            }
            State::Closed => return (NEVER_MS, Due::Drop("")),
        }
        let mut next = if facts.is_full { stalled } else { (NEVER_MS, Due::Probe) };
        let idle_timeout_ms = match &self.protocol {
            Protocol::Http(peer) => {
                let (at_ms, phase) = peer.deadline();
                return earlier(next, (at_ms, Due::Http(phase)));
            }
            // Proxies cut an idle WebSocket after a minute.
            Protocol::WebSocket(_) => options.idle_timeout_ms.min(WEBSOCKET_IDLE_MS_MAX),
            Protocol::Undecided | Protocol::Purpose => options.idle_timeout_ms,
        };
        if let Some(since_ms) = facts.unauthorized_since_ms {
            let auth_ms = since_ms.saturating_add(options.auth_timeout_ms);
            next = earlier(next, (auth_ms, Due::Disconnect("nobody logged in")));
        }
        // While its frames wait in the stream, the silence is the server's own.
        if !facts.is_held {
            let life = if self.is_probed {
                let end_ms = self.heard_ms.saturating_add(options.heartbeat_timeout_ms);
                (end_ms, Due::Disconnect("no sign of life"))
            } else {
                (self.heard_ms.saturating_add(idle_timeout_ms), Due::Probe)
            };
            next = earlier(next, life);
        }
        next
    }
}

/// What the deadlines of a connection depend on besides itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Since when it has had no session; `None` when it has one, or a password is being checked.
    pub(super) unauthorized_since_ms: Option<u64>,
    /// Its frames have to wait.
    pub(super) is_held: bool,
    /// Bytes wait for it that its stream does not accept.
    pub(super) is_full: bool,
}

fn earlier(one: (u64, Due), other: (u64, Due)) -> (u64, Due) {
    if other.0 < one.0 { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_never_goes_back() {
        let all = [State::Open, State::Flushing, State::Draining, State::Closed];
        for from in all {
            for to in all {
                assert!(!from.may_become(to) || to > from, "{from:?} {to:?}");
            }
            assert_eq!(from.may_become(State::Closed), from != State::Closed);
        }
        assert!(!State::Open.may_become(State::Draining));
    }
}
