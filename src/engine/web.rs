//! HTTP connections: requests, hooks, and the upgrade to a WebSocket.
//!
//! Requests are answered after the turn's COMMIT, in turns of their own. So a turn that cannot be
//! stored does not affect pages, and the answer to a hook reports the result of its own COMMIT.

use zeroize::Zeroize as _;

use crate::auth::throttle::Origin;
use crate::engine::connection::{Counted, Input, State};
use crate::engine::io::{Event, Io};
use crate::engine::protocol::{HttpPeer, Phase, Protocol, WebSocket};
use crate::engine::{Engine, Stopped, enqueue};
use crate::http::{self, Answer, Exchange, HookCall, Peer, Setting, Status, Step, Used};
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
    /// Nothing: the connection was rejected, and is closing.
    Rejected,
    /// Pass the rest to the WebSocket layer.
    Upgraded,
}

/// A hook's message that the next COMMIT stores.
struct Stored {
    conn: ConnId,
    exchange: Exchange,
}

impl Engine<'_> {
    /// Switches a connection to HTTP.
    pub(super) fn begin_http(&mut self, conn: ConnId) {
        let now_ms = self.now.ms();
        // The service knows only connections of Purpose.
        self.service.closed(conn);
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        connection.protocol = Protocol::Http(Box::new(HttpPeer::new(now_ms)));
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
        let most = self.options.unauthorized_per_address_max * HTTP_CONNECTIONS_FACTOR;
        if most > 0 && self.unauthenticated.of(counted) >= most {
            return false;
        }
        if let Some(connection) = self.connections.get_mut(conn.at()) {
            connection.counted = Some(counted);
        }
        self.unauthenticated.add(conn, counted);
        true
    }

    /// Answers a connection with an error, and closes it.
    fn reject_http(&mut self, conn: ConnId, status: Status, why: &str, retry_s: Option<u32>) {
        let wall_us = self.now.wall_us;
        self.service.outbox.stage(conn.index, |out| {
            http::put_last(status, why, retry_s, wall_us, out);
        });
        self.enter(conn, State::Flushing);
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

    /// Handles what HTTP connections have sent, in a turn of its own.
    pub(super) fn serve_http(&mut self, io: &mut impl Io) -> Result<(), Stopped> {
        if self.http.is_empty() {
            return Ok(());
        }
        let mut stored = Vec::new();
        for conn in std::mem::take(&mut self.http) {
            self.serve_one(io, conn, &mut stored);
        }
        let end = self.service.end_turn();
        if !stored.is_empty() {
            for Stored { conn, exchange } in stored {
                let answer = match end {
                    TurnEnd::Committed => Answer::status(Status::NoContent),
                    TurnEnd::Declined => storage_failed(),
                };
                self.answer(conn, exchange, &answer);
            }
            self.service.end_turn();
        }
        self.observe(io, Event::Served)?;
        self.check_storage()
    }

    fn serve_one(&mut self, io: &mut impl Io, conn: ConnId, stored: &mut Vec<Stored>) {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        if connection.id != conn || connection.state() != State::Open {
            return;
        }
        let mut bytes = std::mem::take(&mut connection.inbox);
        let (mut at, mut requests) = (0, 0);
        let next = loop {
            let is_full = self.service.outbox.pending_bytes(conn.index) >= QUEUE_BYTES_MAX;
            if at == bytes.len() || is_full || requests == REQUESTS_PER_TURN {
                break Next::Wait;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let (used, next) = self.request(io, conn, rest, stored);
            at += used;
            requests += 1;
            if !matches!(next, Next::Request) {
                break next;
            }
        };
        let now_ms = self.now.ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        let left = bytes.get(at..).unwrap_or_default();
        let is_full = self.service.outbox.pending_bytes(conn.index) >= QUEUE_BYTES_MAX;
        match next {
            Next::Rejected => {}
            Next::Close => self.enter(conn, State::Flushing),
            Next::Upgraded => {
                connection.inbox = left.to_vec();
                self.begin_websocket_input(conn);
            }
            Next::Request | Next::Wait => {
                connection.inbox = left.to_vec();
                if let Protocol::Http(peer) = &mut connection.protocol {
                    peer.note(left.len(), at > 0 && requests > 0, now_ms);
                }
                let may_go_on = !left.is_empty() && requests == REQUESTS_PER_TURN;
                if may_go_on || connection.is_readable() {
                    enqueue(&mut self.ready, connection);
                } else if connection.input == Input::Ended && !is_full {
                    self.enter(conn, State::Flushing);
                }
                self.arm(conn);
            }
        }
        // The bytes may contain the token of a hook.
        bytes.zeroize();
    }

    /// Handles one request at the front of `bytes`. Returns how many bytes it took.
    fn request(
        &mut self,
        io: &mut impl Io,
        conn: ConnId,
        bytes: &[u8],
        stored: &mut Vec<Stored>,
    ) -> (usize, Next) {
        let Self { connections, service, options, now, .. } = self;
        let Some(connection) = connections.get_mut(conn.at()) else { return (0, Next::Close) };
        let Protocol::Http(peer) = &mut connection.protocol else { return (0, Next::Close) };
        let setting = Setting {
            site: &options.site,
            surface: connection.surface,
            socket: connection.socket,
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
            Step::Hook(_, call) => self.hook(conn, &used, &call, stored),
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
                connection.socket
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

    /// Stores a bot's message. Returns the answer unless the COMMIT decides it.
    fn hook(
        &mut self,
        conn: ConnId,
        used: &Used,
        call: &HookCall,
        stored: &mut Vec<Stored>,
    ) -> Option<Answer<'static>> {
        match self.service.hook_message(&call.token, &call.text) {
            Ok(()) => {
                stored.push(Stored { conn, exchange: used.exchange });
                None
            }
            Err(HookError::Unknown) => Some(Answer::status(Status::NotFound)),
            Err(HookError::TooLong) => Some(Answer::status(Status::ContentTooLarge)),
            Err(HookError::TooOften(seconds)) => {
                let answer = Answer::status(Status::TooManyRequests);
                Some(Answer { retry_s: Some(seconds), ..answer })
            }
            Err(HookError::StorageFailed) => Some(storage_failed()),
        }
    }

    // ---- WebSocket -----------------------------------------------------------------------------

    /// Switches the connection to a WebSocket.
    fn upgrade(&mut self, conn: ConnId, peer: &Peer) {
        let now_ms = self.now.ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        connection.protocol = Protocol::WebSocket(Box::new(WebSocket::new()));
        // The answer to the upgrade is sent raw, not as a message.
        connection.raw_bytes = self.service.outbox.pending_bytes(conn.index);
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
            inbox.truncate(payload_bytes);
            if has_ended {
                connection.input = Input::Ended;
            }
        }
        connection.inbox = inbox;
        enqueue(&mut self.ready, connection);
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
