//! HTTP connections: requests, hooks, and the upgrade to a WebSocket.
//!
//! Requests are answered after the turn's COMMIT, in turns of their own: pages in one, messages of
//! hooks in the next. So a turn that cannot be stored does not affect pages, and the answer to a
//! hook reports the result of its own COMMIT. A connection's next request is handled after that.

use zeroize::Zeroize as _;

use crate::auth::throttle::Origin;
use crate::engine::connection::{Counted, Input, State};
use crate::engine::io::{Event, Io};
use crate::engine::protocol::{HttpPeer, Phase, Protocol, WaitingHook, WebSocket};
use crate::engine::{Engine, Stopped, enqueue, is_counted};
use crate::http::{self, Answer, Exchange, Peer, Setting, Status, Step};
use crate::ids::ConnId;
use crate::limits::HTTP_CONNECTIONS_FACTOR;
use crate::service::TurnEnd;
use crate::service::hook::HookError;

/// Bytes queued for a connection above which its next request waits (backpressure).
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Requests handled per connection and turn.
const REQUESTS_PER_TURN: usize = 32;
/// Seconds after which a rejected connection may retry.
const RETRY_S: u32 = 10;

const TOO_MANY: &str = "there are too many connections from this address";

/// What to do after a request.
enum Next {
    /// Handle the next one, if it has arrived.
    Request,
    /// Wait: for the rest to arrive, or for queued bytes to be sent.
    Wait,
    /// Close: handle nothing more.
    Close,
    /// Store the message of a hook; then go on.
    Hook(WaitingHook),
    /// Nothing: the connection was rejected, and is closing.
    Rejected,
    /// Pass the rest to the WebSocket layer.
    Upgraded,
}

/// A hook's request and its answer; `None`: the COMMIT decides it.
struct Called {
    conn: ConnId,
    exchange: Exchange,
    answer: Option<Answer<'static>>,
}

impl Engine<'_> {
    /// Switches a connection to HTTP.
    pub(super) fn begin_http(&mut self, conn: ConnId) {
        let now_ms = self.now.ms();
        // The service knows only connections of Purpose.
        self.service.closed(conn);
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert!(matches!(connection.protocol, Protocol::Undecided), "{conn} has a protocol");
        debug_assert_eq!(self.service.outbox.pending_bytes(conn.index), 0, "{conn} got an answer");
        connection.protocol = Protocol::Http(Box::new(HttpPeer::new(connection.address, now_ms)));
        if !self.options.web {
            let why = "HTTP is turned off on this server (--web off)";
            return self.reject_http(conn, Status::Forbidden, why, None);
        }
        let address = connection.address;
        self.uncount(conn);
        if !self.options.site.is_proxy(address) && !self.count_web(conn, address.into()) {
            self.reject_http(conn, Status::Unavailable, TOO_MANY, Some(RETRY_S));
        }
    }

    /// Counts a browser's connection for its address. False when there are too many.
    fn count_web(&mut self, conn: ConnId, address: WebAddress) -> bool {
        let counted = Counted { origin: Origin::of(address.0), is_web: true };
        let present = self.connections.get(conn.at()).map(|connection| connection.counted);
        if present.is_none_or(|present| present == Some(counted)) {
            return true;
        }
        self.uncount(conn);
        debug_assert!(!is_counted(&self.connections, conn), "{conn} counts once");
        let most = self.options.unauthorized_per_address_max * HTTP_CONNECTIONS_FACTOR;
        if most > 0 && self.admission.unauthenticated.of(counted) >= most {
            return false;
        }
        if let Some(connection) = self.connections.get_mut(conn.at()) {
            connection.counted = Some(counted);
        }
        self.admission.unauthenticated.add(conn, counted);
        true
    }

    /// Answers a connection with an error, and closes it.
    fn reject_http(&mut self, conn: ConnId, status: Status, why: &str, retry_s: Option<u32>) {
        let wall_us = self.now.wall_us;
        debug_assert_eq!(self.state(conn), Some(State::Open), "{conn} is closed already");
        self.service.outbox.stage(conn.index, |out| {
            http::put_last(status, why, retry_s, wall_us, out);
        });
        self.enter(conn, State::Flushing);
    }

    /// Rejects a connection for the unhandled bytes that it holds.
    pub(super) fn reject_for_memory(&mut self, conn: ConnId) {
        let why = "too many requests are incomplete";
        self.reject_http(conn, Status::Unavailable, why, Some(RETRY_S));
    }

    /// The present phase has timed out.
    pub(super) fn expire_http(&mut self, conn: ConnId, phase: Phase) {
        match phase {
            Phase::Idle => self.enter(conn, State::Flushing),
            Phase::Head | Phase::Body => {
                let why = "the request took too long to arrive";
                self.reject_http(conn, Status::RequestTimeout, why, None);
            }
        }
    }

    /// Handles what HTTP connections have sent, in turns of its own. Returns whether it wrote.
    pub(super) fn serve_http(&mut self, io: &mut impl Io) -> Result<bool, Stopped> {
        if self.queues.http.is_empty() {
            return Ok(false);
        }
        let mut calls = Vec::new();
        for conn in std::mem::take(&mut self.queues.http) {
            match self.serve_one(io, conn) {
                Some(call) => calls.push((conn, call)),
                None => self.count_inbound(io, conn),
            }
        }
        debug_assert!(!self.service.has_written(), "pages write nothing");
        // Whatever happens to the messages of hooks, the pages are sent.
        self.service.end_turn();
        let has_written = !calls.is_empty() && self.call_hooks(io, calls);
        self.observe(io, Event::Served)?;
        self.check_storage()?;
        Ok(has_written)
    }

    /// Handles what one connection has sent, up to a message of a hook, which it returns.
    fn serve_one(&mut self, io: &mut impl Io, conn: ConnId) -> Option<WaitingHook> {
        let connection = self.connections.get_mut(conn.at())?;
        if connection.id != conn || connection.state() != State::Open {
            return None;
        }
        if let Protocol::Http(peer) = &mut connection.protocol
            && let Some(call) = peer.waiting.take()
        {
            return Some(*call);
        }
        let mut bytes = std::mem::take(&mut connection.inbox);
        let (mut at, mut requests) = (0, 0);
        let next = loop {
            let is_full = self.service.outbox.pending_bytes(conn.index) >= QUEUE_BYTES_MAX;
            if at == bytes.len() || is_full || requests == REQUESTS_PER_TURN {
                break Next::Wait;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let (used, next) = self.request(io, conn, rest);
            debug_assert!(used <= rest.len(), "a request takes what has arrived");
            at += used;
            requests += 1;
            if !matches!(next, Next::Request) {
                break next;
            }
        };
        let left = bytes.get(at..).unwrap_or_default();
        let call = self.after_requests(conn, next, left, at > 0, requests);
        // The bytes may contain the token of a hook.
        bytes.zeroize();
        call
    }

    /// Keeps the bytes that are `left` of a connection, and decides what it waits for.
    fn after_requests(
        &mut self,
        conn: ConnId,
        next: Next,
        left: &[u8],
        has_answered: bool,
        requests: usize,
    ) -> Option<WaitingHook> {
        let now_ms = self.now.ms();
        let connection = self.connections.get_mut(conn.at())?;
        debug_assert!(connection.inbox.is_empty(), "the bytes left over replace other ones");
        debug_assert_eq!(
            matches!(next, Next::Rejected),
            connection.state() > State::Open,
            "{conn} is closed here, unless it was rejected"
        );
        match next {
            Next::Rejected => {}
            Next::Close => self.enter(conn, State::Flushing),
            Next::Hook(call) => {
                connection.inbox = left.to_vec();
                return Some(call);
            }
            Next::Upgraded => {
                connection.inbox = left.to_vec();
                self.begin_websocket_input(conn);
            }
            Next::Request | Next::Wait => {
                connection.inbox = left.to_vec();
                if let Protocol::Http(peer) = &mut connection.protocol {
                    peer.note(left.len(), has_answered && requests > 0, now_ms);
                }
                let is_full = self.service.outbox.pending_bytes(conn.index) >= QUEUE_BYTES_MAX;
                let may_go_on = !left.is_empty() && requests == REQUESTS_PER_TURN;
                if may_go_on || connection.is_readable() {
                    enqueue(&mut self.queues.ready, connection);
                } else if connection.input == Input::Ended && !is_full {
                    self.enter(conn, State::Flushing);
                }
                self.arm(conn);
            }
        }
        None
    }

    /// Handles one request at the front of `bytes`. Returns how many bytes it took.
    fn request(&mut self, io: &mut impl Io, conn: ConnId, bytes: &[u8]) -> (usize, Next) {
        debug_assert!(!bytes.is_empty(), "a request has bytes");
        let Self { connections, service, options, now, .. } = self;
        let Some(connection) = connections.get_mut(conn.at()) else { return (0, Next::Close) };
        let Protocol::Http(peer) = &mut connection.protocol else {
            service.metrics.internal_error(format_args!("a request of {conn}, which has no HTTP"));
            return (0, Next::Close);
        };
        let setting = Setting {
            site: &options.site,
            surface: connection.surface,
            socket: peer.socket,
            is_empty: service.has_no_users(),
            wall_us: now.wall_us,
        };
        let mut out = Vec::new();
        let step = peer.http.next(bytes, &setting, &mut out);
        let mut used = match &step {
            Step::Wait(done) => {
                let done = *done;
                self.stage_bytes(conn, &out);
                return (done, Next::Wait);
            }
            Step::Answered(used)
            | Step::Upgrade(used)
            | Step::Hook(used, _)
            | Step::Health(used)
            | Step::Metrics(used) => *used,
        };
        let is_scrape = connection.is_scrape();
        if !is_scrape && !self.admit_peer(conn, &used.peer) {
            self.reject_http(conn, Status::Unavailable, TOO_MANY, Some(RETRY_S));
            return (used.bytes, Next::Rejected);
        }
        self.stage_bytes(conn, &out);
        let answer = match step {
            Step::Wait(_) | Step::Answered(_) => None,
            Step::Upgrade(_) => {
                self.upgrade(conn, &used.peer);
                return (used.bytes, Next::Upgraded);
            }
            Step::Hook(_, call) => {
                let call = WaitingHook { call, exchange: used.exchange, is_held: false };
                return (used.bytes, Next::Hook(call));
            }
            Step::Health(_) => {
                let is_healthy = self.service.is_storage_healthy();
                let answer = match is_healthy {
                    true => Answer::text(Status::Ok, "ok"),
                    false => Answer::text(Status::Unavailable, "the database cannot be written"),
                };
                Some(answer)
            }
            Step::Metrics(_) => {
                let page = self.metrics_page(io);
                Some(metrics_answer(page))
            }
        };
        if let Some(answer) = answer {
            used.exchange.is_last |= answer.status.closes() || is_scrape;
            self.answer(conn, used.exchange, &answer);
        }
        (used.bytes, if used.exchange.is_last || is_scrape { Next::Close } else { Next::Request })
    }

    fn stage_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.service.outbox.stage(conn.index, |out| out.extend_from_slice(bytes));
        }
    }

    fn answer(&mut self, conn: ConnId, exchange: Exchange, answer: &Answer<'_>) {
        self.service.outbox.stage(conn.index, |out| exchange.answer(answer, out));
    }

    /// Counts a connection for the address that its request names. False when it is rejected.
    fn admit_peer(&mut self, conn: ConnId, peer: &Peer) -> bool {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return false };
        if peer.is_distrusted {
            let message = format_args!(
                "{conn} from {} sends X-Forwarded-For but is not a --trusted-proxy: its own address \
                 counts",
                peer.address
            );
            self.log_rate_limit.say(self.now.ms(), message);
        }
        connection.address = peer.address;
        // A proxy that names no client is not counted.
        if self.options.site.is_proxy(peer.address) {
            return true;
        }
        self.count_web(conn, peer.address.into())
    }

    // ---- hooks ---------------------------------------------------------------------------------

    /// Stores the messages of hooks in one turn, and answers in the next. Those that have to wait
    /// for the write lock stay with their connections. Returns whether it wrote.
    fn call_hooks(&mut self, io: &impl Io, calls: Vec<(ConnId, WaitingHook)>) -> bool {
        debug_assert!(!self.service.has_written(), "hooks have a COMMIT of their own");
        let conns: Vec<ConnId> = calls.iter().map(|(conn, _)| *conn).collect();
        let mut called = Vec::with_capacity(calls.len());
        for (conn, call) in calls {
            let exchange = call.exchange;
            match self.service.hook_message(conn, &call.call.token, &call.call.text) {
                Ok(()) => called.push(Called { conn, exchange, answer: None }),
                Err(HookError::Busy) => self.hold_hook(conn, call),
                Err(error) => {
                    called.push(Called { conn, exchange, answer: Some(hook_answer(error)) });
                }
            }
        }
        let has_written = self.service.has_written();
        let end = self.service.end_turn();
        debug_assert!(!self.service.has_written(), "an answer reports its own COMMIT");
        for Called { conn, mut exchange, answer } in called {
            let answer = answer.unwrap_or_else(|| match end {
                TurnEnd::Committed => Answer::status(Status::NoContent),
                TurnEnd::Declined => storage_failed(),
            });
            exchange.is_last |= answer.status.closes();
            self.answer(conn, exchange, &answer);
            self.after_hook(conn, exchange.is_last);
        }
        self.service.end_turn();
        for conn in conns {
            self.count_inbound(io, conn);
        }
        has_written
    }

    /// Keeps a hook's message until the service resumes its connection.
    fn hold_hook(&mut self, conn: ConnId, call: WaitingHook) {
        let now_ms = self.now.ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let Protocol::Http(peer) = &mut connection.protocol else {
            let what = format_args!("the message of a hook is lost: {conn} does not speak HTTP");
            return self.service.metrics.internal_error(what);
        };
        debug_assert!(peer.waiting.is_none(), "{conn} waits for one message at a time");
        peer.waiting = Some(Box::new(WaitingHook { is_held: true, ..call }));
        // The server causes the wait, not the peer.
        peer.note(0, true, now_ms);
        self.arm(conn);
    }

    /// Lets a hook's message that waited for the write lock be tried again.
    pub(super) fn resume_hook(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn.at())
            && connection.id == conn
            && let Protocol::Http(peer) = &mut connection.protocol
            && let Some(waiting) = &mut peer.waiting
        {
            waiting.is_held = false;
        }
    }

    /// Answers a hook whose message still waits when the server stops.
    pub(super) fn give_up_hook(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn.at())
            && let Protocol::Http(peer) = &mut connection.protocol
            && let Some(waiting) = peer.waiting.take()
        {
            self.answer(conn, waiting.exchange, &storage_failed());
        }
    }

    /// Goes on with a connection after the answer to a hook.
    fn after_hook(&mut self, conn: ConnId, is_last: bool) {
        let now_ms = self.now.ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert_eq!((connection.id, connection.state()), (conn, State::Open), "it waits");
        let left = connection.inbox.len();
        if let Protocol::Http(peer) = &mut connection.protocol {
            peer.note(left, true, now_ms);
        }
        if is_last {
            self.enter(conn, State::Flushing);
        } else if left > 0 || connection.is_readable() {
            enqueue(&mut self.queues.ready, connection);
        } else if connection.input == Input::Ended {
            self.enter(conn, State::Flushing);
        }
        self.arm(conn);
    }

    // ---- WebSocket -----------------------------------------------------------------------------

    /// Switches the connection to a WebSocket.
    fn upgrade(&mut self, conn: ConnId, peer: &Peer) {
        let now_ms = self.now.ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        debug_assert!(matches!(connection.protocol, Protocol::Http(_)), "{conn} asked by HTTP");
        connection.protocol = Protocol::WebSocket(Box::new(WebSocket::new()));
        // The answer to the upgrade is sent raw, not as a message.
        connection.raw_bytes = self.service.outbox.pending_bytes(conn.index);
        debug_assert!(connection.raw_bytes > 0, "an upgrade is answered");
        debug_assert!(!self.service.is_authorized(conn), "HTTP has no session");
        connection.heard_ms = now_ms;
        self.service.connected(conn, peer.address);
        log::debug!("{conn} from {} is a WebSocket", peer.address);
        self.arm(conn);
    }

    /// Handles bytes that arrived with the request as the first ones of the WebSocket.
    fn begin_websocket_input(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let mut inbox = std::mem::take(&mut connection.inbox);
        if let Protocol::WebSocket(websocket) = &mut connection.protocol {
            let (payload_bytes, has_ended) = websocket.unwrap(&mut inbox);
            debug_assert!(payload_bytes <= inbox.len(), "a layer adds no bytes");
            inbox.truncate(payload_bytes);
            if has_ended {
                connection.input = Input::Ended;
            }
        }
        connection.inbox = inbox;
        enqueue(&mut self.queues.ready, connection);
    }
}

/// The answer to a hook whose message was not stored.
fn hook_answer(error: HookError) -> Answer<'static> {
    match error {
        HookError::Unknown => Answer::status(Status::NotFound),
        HookError::TooLong => Answer::status(Status::ContentTooLarge),
        HookError::TooOften(seconds) => {
            Answer { retry_s: Some(seconds), ..Answer::status(Status::TooManyRequests) }
        }
        HookError::Busy | HookError::StorageFailed => storage_failed(),
    }
}

fn storage_failed() -> Answer<'static> {
    let answer = Answer::text(Status::Unavailable, "storage-failed: nothing was kept");
    Answer { retry_s: Some(1), ..answer }
}

fn metrics_answer(page: String) -> Answer<'static> {
    let answer = Answer::status(Status::Ok);
    Answer {
        media_type: "text/plain; version=0.0.4; charset=utf-8",
        body: page.into_bytes().into(),
        ..answer
    }
}

/// The address that a browser's connection counts for.
pub(super) struct WebAddress(std::net::IpAddr);

impl From<std::net::IpAddr> for WebAddress {
    fn from(address: std::net::IpAddr) -> Self {
        Self(address)
    }
}
