//! The protocol of a connection: the layer between its stream and frames of Purpose.

use std::net::IpAddr;

use crate::http::{self, Exchange, HookCall, Http};
use crate::limits::{HTTP_BODY_TIMEOUT_S, HTTP_HEAD_TIMEOUT_S, HTTP_IDLE_TIMEOUT_S};
use crate::wire::websocket::{CloseCode, Decoder, Role, Sender, StreamEnd};

/// The protocol of a connection.
#[derive(Debug)]
pub(super) enum Protocol {
    /// Too few bytes have arrived to decide.
    Undecided,
    /// Plain frames of Purpose.
    Purpose,
    /// Frames of Purpose in WebSocket messages.
    WebSocket(Box<WebSocket>),
    /// HTTP requests; may be upgraded to a WebSocket.
    Http(Box<HttpPeer>),
}

/// The WebSocket layer of a connection.
#[derive(Debug)]
pub(super) struct WebSocket {
    decoder: Decoder,
    pub(super) sender: Sender,
    /// The code of this side's Close frame, once the peer's side has ended.
    close_code: Option<Option<CloseCode>>,
    /// The peer's Close has arrived, or it violated the protocol: the stream below may end at once.
    pub(super) is_peer_closed: bool,
    /// This side of the underlying stream has ended.
    pub(super) has_ended: bool,
}

impl WebSocket {
    pub(super) const fn new() -> Self {
        Self {
            decoder: Decoder::new(Role::Server),
            sender: Sender::new(),
            close_code: None,
            is_peer_closed: false,
            has_ended: false,
        }
    }

    /// Unmasks the Purpose bytes in place and moves them to the front of the buffer. Returns their
    /// number, and whether the peer's side has ended.
    pub(super) fn unwrap(&mut self, bytes: &mut [u8]) -> (usize, bool) {
        let Self { decoder, sender, .. } = self;
        debug_assert!(!self.is_peer_closed || bytes.is_empty(), "bytes after the end are handled");
        let unwrapped = decoder.unwrap(bytes, |ping| sender.pong(ping.bytes()));
        debug_assert!(unwrapped.payload_bytes <= bytes.len(), "a payload is part of its frame");
        match unwrapped.end {
            None => return (unwrapped.payload_bytes, false),
            Some(StreamEnd::Closed(code)) => self.close_code = Some(code),
            Some(StreamEnd::Failed(code)) => self.close_code = Some(Some(code)),
        }
        self.is_peer_closed = true;
        (unwrapped.payload_bytes, true)
    }

    /// Queues a Close frame after everything that waits.
    pub(super) fn close(&mut self) {
        debug_assert_eq!(self.close_code.is_some(), self.is_peer_closed, "an end has a code");
        self.sender.close(self.close_code.unwrap_or(Some(CloseCode::NORMAL)));
    }
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct HttpPeer {
    pub(super) http: Http,
    /// The remote address of its socket, which is that of a proxy if there is one.
    pub(super) socket: IpAddr,
    /// It waits for the next step of `phase` since then.
    since_ms: u64,
    phase: Phase,
    /// A hook's message that was put back. No more requests are handled before it.
    pub(super) waiting: Option<Box<WaitingHook>>,
}

/// A message of a hook, and how to answer it.
#[derive(Debug)]
pub(super) struct WaitingHook {
    pub(super) call: HookCall,
    pub(super) exchange: Exchange,
    /// It waits for the write lock.
    pub(super) is_held: bool,
}

/// The part of a request that an HTTP connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The next request.
    Idle,
    /// The rest of a request head.
    Head,
    /// The rest of a request body.
    Body,
}

impl HttpPeer {
    pub(super) fn new(socket: IpAddr, now_ms: u64) -> Self {
        let http = Http::default();
        Self { http, socket, since_ms: now_ms, phase: Phase::Idle, waiting: None }
    }

    /// Updates the phase; `left`: unhandled bytes.
    pub(super) fn note(&mut self, left: usize, has_answered: bool, now_ms: u64) {
        let phase = match left {
            _ if self.http.expects_body() => Phase::Body,
            0 => Phase::Idle,
            _ => Phase::Head,
        };
        debug_assert!(now_ms >= self.since_ms, "a phase begins in the future");
        if phase != self.phase || has_answered {
            self.phase = phase;
            self.since_ms = now_ms;
        }
    }

    /// When the present phase times out.
    pub(super) fn deadline(&self) -> (u64, Phase) {
        let seconds = match self.phase {
            Phase::Idle => HTTP_IDLE_TIMEOUT_S,
            Phase::Head => HTTP_HEAD_TIMEOUT_S,
            Phase::Body => HTTP_BODY_TIMEOUT_S,
        };
        debug_assert!(
            self.waiting.is_none() || self.phase != Phase::Body,
            "a hook's message has arrived before it waits"
        );
        (self.since_ms.saturating_add(seconds * 1000), self.phase)
    }
}

impl Protocol {
    /// Decides between HTTP (true) and Purpose (false) by the first bytes; `None`: too few bytes.
    pub(super) fn decide(first: &[u8]) -> Option<bool> {
        if first.is_empty() { None } else { http::is_http(first) }
    }

    /// Whether it has bytes of its own to write, apart from the outbox.
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Self::WebSocket(websocket) if websocket.sender.wants_write())
    }

    /// Bytes of a hook's message that waits.
    pub(super) fn inbound_bytes(&self) -> usize {
        let Self::Http(peer) = self else { return 0 };
        peer.waiting.as_ref().map_or(0, |waiting| waiting.call.text.capacity())
    }

    /// Whether a hook's message waits for the write lock.
    pub(super) fn is_held(&self) -> bool {
        let Self::Http(peer) = self else { return false };
        peer.waiting.as_ref().is_some_and(|waiting| waiting.is_held)
    }

    /// Whether it speaks HTTP.
    pub(super) const fn is_http(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    /// Whether it counts as a browser's connection for its address.
    pub(super) const fn is_web(&self) -> bool {
        matches!(self, Self::WebSocket(_) | Self::Http(_))
    }
}
