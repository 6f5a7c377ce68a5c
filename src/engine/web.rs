//! Connections that speak HTTP: requests, hooks, and the way to a WebSocket.
//!
//! Requests are answered after the turn's COMMIT, in turns of their own: a turn that cannot be
//! stored takes no page away from a browser, and the answer to a hook says how its own COMMIT
//! ended.

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

/// Bytes that may wait for a connection before its next request is handled.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Requests handled for one connection in one turn.
const REQUESTS_PER_TURN: usize = 32;
/// Seconds after which a connection that is turned away may try again.
const RETRY_S: u32 = 10;

const TOO_MANY: &str = "there are too many connections from this address";

/// What follows a request.
enum Next {
    /// The next one, if it is there.
    Request,
    /// Nothing: the rest has to come, or to be sent first.
    Wait,
    /// Nothing more is handled of the connection.
    Close,
    /// Nothing: it was turned away, and is on its way out.
    Refused,
    /// The rest is for a WebSocket.
    Upgraded,
}

/// A hook whose message is stored by the COMMIT that comes next.
struct Stored {
    conn: ConnId,
    exchange: Exchange,
}

impl Engine<'_> {
    /// A connection turns out to speak HTTP.
    pub(super) fn begin_http(&mut self, conn: ConnId) {
        let now_ms = self.now.ms();
        // The service knows connections of Purpose alone.
        self.service.closed(conn);
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        connection.protocol = Protocol::Http(Box::new(HttpPeer::new(now_ms)));
        if !self.options.web {
            let why = "this server has its web part turned off (--web off)";
            return self.refuse_http(conn, Status::Forbidden, why, None);
        }
        let address = connection.address;
        self.uncount(conn);
        if !self.options.site.is_proxy(address) && !self.count_web(conn, address.into()) {
            self.refuse_http(conn, Status::Unavailable, TOO_MANY, Some(RETRY_S));
        }
    }

    /// Counts a connection of a browser for an address; false when it is one too many.
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

    /// Answers a connection for the last time.
    fn refuse_http(&mut self, conn: ConnId, status: Status, why: &str, retry_s: Option<u32>) {
        let wall_us = self.now.wall_us;
        self.service.outbox.stage(conn.index, |out| {
            http::put_last(status, why, retry_s, wall_us, out);
        });
        self.enter(conn, State::Flushing);
    }

    /// The time of a connection is over.
    pub(super) fn expire_http(&mut self, conn: ConnId, phase: Phase) {
        match phase {
            Phase::Idle => self.enter(conn, State::Flushing),
            Phase::Head | Phase::Body => {
                let why = "the request took too long to arrive";
                self.refuse_http(conn, Status::RequestTimeout, why, None);
            }
        }
    }

    /// Handles what connections of HTTP have sent, and ends the turn in which it is answered.
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
            Next::Refused => {}
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
        // The token of a hook may be there.
        bytes.zeroize();
    }

    /// One request at the front of `bytes`; how many of them are done with.
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
            self.refuse_http(conn, Status::Unavailable, TOO_MANY, Some(RETRY_S));
            return (used.bytes, Next::Refused);
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

    /// Counts a connection for the address that its request names; false when it is turned away.
    fn admit_peer(&mut self, conn: ConnId, peer: &Peer) -> bool {
        let Some(connection) = self.connections.get_mut(conn.at()) else { return false };
        if peer.is_distrusted {
            let message = format_args!(
                "{conn} from {} sends X-Forwarded-For and is no --trusted-proxy: its own address \
                 counts",
                connection.socket
            );
            self.log_rate_limit.say(self.now.ms(), message);
        }
        connection.address = peer.address;
        // A proxy that names nobody is not counted.
        if self.options.site.is_proxy(peer.address) {
            return true;
        }
        self.count_web(conn, peer.address.into())
    }

    /// Stores a bot's message; the answer, unless the COMMIT decides.
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

    /// The connection is a WebSocket from here on.
    fn upgrade(&mut self, conn: ConnId, peer: &Peer) {
        let now_ms = self.now.ms();
        let Some(connection) = self.connections.get_mut(conn.at()) else { return };
        connection.protocol = Protocol::WebSocket(Box::new(WebSocket::new()));
        // The bytes of the answer are no message.
        connection.raw_bytes = self.service.outbox.pending_bytes(conn.index);
        connection.heard_ms = now_ms;
        self.service.connected(conn, peer.address);
        log::debug!("{conn} from {} is a WebSocket", peer.address);
        self.arm(conn);
    }

    /// Bytes that came with the request are the WebSocket's first.
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

/// The address that a connection of a browser counts for.
pub(super) struct WebAddress(std::net::IpAddr);

impl From<std::net::IpAddr> for WebAddress {
    fn from(address: std::net::IpAddr) -> Self {
        Self(address)
    }
}
