//! One connection: its state machine, its unhandled input, and its deadlines.

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
    /// No more frames are handled. The queued bytes are sent, then this side of the stream is
    /// ended.
    Flushing,
    /// This side has ended. Input is discarded until the peer ends its side, because closing
    /// earlier could reset the connection and destroy the bytes sent last. The service has
    /// forgotten it.
    Draining,
    /// The connection is dropped before the turn ends.
    Closed,
}

impl State {
    /// Whether the state machine allows a transition to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Open => matches!(next, Self::Flushing | Self::Closed),
            Self::Flushing => matches!(next, Self::Draining | Self::Closed),
            Self::Draining => matches!(next, Self::Closed),
            Self::Closed => false,
        }
    }
}

/// The state of the peer's side of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// Nothing to read until the stream reports more.
    Drained,
    /// There may be something to read.
    Readable,
    /// The peer has ended its side, or is about to: read until the end.
    Ending,
    /// The end of the stream was read.
    Ended,
}

/// The key under which a connection counts against the limits per address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Counted {
    pub(super) origin: Origin,
    /// True for HTTP and WebSocket, false for plain Purpose.
    pub(super) is_web: bool,
}

/// One connection. There may be very many; an idle one holds no buffer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    /// The address that all limits count for: that of its socket, or the one that a trusted proxy
    /// names.
    pub(super) address: IpAddr,
    pub(super) surface: Surface,
    pub(super) protocol: Protocol,
    state: State,
    pub(super) input: Input,
    /// Bytes read but not handled: the beginning of a frame, or frames that wait.
    pub(super) inbox: Vec<u8>,
    /// How many bytes count as unhandled: those of the inbox, and those of other layers.
    pub(super) inbound_bytes: usize,
    /// The stream may accept more bytes.
    pub(super) is_writable: bool,
    /// The connection is in the list of connections to read from.
    pub(super) is_enqueued: bool,
    /// Set while it counts as unauthenticated.
    pub(super) counted: Option<Counted>,
    /// Bytes at the front of its queue that precede the first WebSocket message.
    pub(super) raw_bytes: usize,
    /// A HEARTBEAT was sent and is not answered yet.
    pub(super) is_probed: bool,
    /// When the peer last sent something, or was probed; milliseconds.
    pub(super) heard_ms: u64,
    /// When the peer last accepted bytes, or the present state began; milliseconds.
    pub(super) progress_ms: u64,
    /// Its live entry among the deadlines; all others are stale.
    pub(super) timer_ms: u64,
}

/// The action that a deadline requires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Send a HEARTBEAT.
    Probe,
    /// Send DISCONNECT after what is queued, then end.
    Disconnect(&'static str),
    /// Close: an HTTP request did not arrive in time.
    Http(Phase),
    /// Drop the connection: the peer does not accept any bytes.
    Drop(&'static str),
}

impl Connection {
    pub(super) fn new(id: ConnId, address: IpAddr, surface: Surface, now_ms: u64) -> Self {
        Self {
            id,
            address,
            surface,
            protocol: Protocol::Undecided,
            state: State::Open,
            input: Input::Readable,
            inbox: Vec::new(),
            inbound_bytes: 0,
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

    /// Moves to a later state. False when the transition is not allowed, which is a bug.
    #[must_use]
    pub(super) fn enter(&mut self, next: State, now_ms: u64) -> bool {
        let is_allowed = self.state.may_become(next);
        debug_assert!(is_allowed, "{} goes from {:?} to {next:?}", self.id, self.state);
        self.state = self.state.max(next);
        // Each state has its own time limit for progress.
        self.progress_ms = now_ms;
        // The inbox may hold part of a password.
        self.inbox.zeroize();
        self.inbox = Vec::new();
        if let Protocol::Http(peer) = &mut self.protocol {
            peer.waiting = None;
        }
        debug_assert_eq!(self.own_inbound_bytes(), 0, "{} handles no more bytes", self.id);
        is_allowed
    }

    /// Bytes that it holds unhandled, apart from those of its stream.
    pub(super) fn own_inbound_bytes(&self) -> usize {
        self.inbox.capacity() + self.protocol.inbound_bytes()
    }

    /// Whether there may be something to read.
    pub(super) const fn is_readable(&self) -> bool {
        matches!(self.input, Input::Readable | Input::Ending)
    }

    /// The next deadline, and its action.
    pub(super) fn deadline(&self, options: &Options, facts: &Facts) -> (u64, Due) {
        let stall_ms = self.progress_ms.saturating_add(options.stall_timeout_ms);
        let stalled = (stall_ms, Due::Drop("the peer stopped reading"));
        debug_assert!(!self.is_probed || !self.protocol.is_http(), "HTTP has no HEARTBEAT");
        debug_assert!(
            facts.unauthorized_since_ms.is_none() || !self.protocol.is_http(),
            "the service knows no connection of HTTP"
        );
        match self.state {
            State::Open => {}
            State::Flushing => return stalled,
            State::Draining => {
                let end_ms = self.progress_ms.saturating_add(options.drain_timeout_ms);
                return (end_ms, Due::Drop("the peer does not end its side"));
            }
            State::Closed => return (NEVER_MS, Due::Drop("")),
        }
        let mut next = if facts.is_full { stalled } else { (NEVER_MS, Due::Probe) };
        let idle_timeout_ms = match &self.protocol {
            Protocol::Http(peer) => {
                let (at_ms, phase) = peer.deadline();
                return earlier(next, (at_ms, Due::Http(phase)));
            }
            // Proxies cut a WebSocket that is idle for a minute.
            Protocol::WebSocket(_) => options.idle_timeout_ms.min(WEBSOCKET_IDLE_MS_MAX),
            Protocol::Undecided | Protocol::Purpose => options.idle_timeout_ms,
        };
        if let Some(since_ms) = facts.unauthorized_since_ms {
            let auth_ms = since_ms.saturating_add(options.auth_timeout_ms);
            next = earlier(next, (auth_ms, Due::Disconnect("no login in time")));
        }
        // While its frames are held, the server causes the silence.
        if !facts.is_held {
            let life = if self.is_probed {
                let end_ms = self.heard_ms.saturating_add(options.heartbeat_timeout_ms);
                (end_ms, Due::Disconnect("the peer does not answer"))
            } else {
                (self.heard_ms.saturating_add(idle_timeout_ms), Due::Probe)
            };
            next = earlier(next, life);
        }
        next
    }
}

/// Facts outside the connection that its deadlines depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Since when it has had no session, in milliseconds; `None` with a session, or while a
    /// password is being checked.
    pub(super) unauthorized_since_ms: Option<u64>,
    /// Its frames have to wait.
    pub(super) is_held: bool,
    /// The stream does not accept the bytes queued for it.
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
