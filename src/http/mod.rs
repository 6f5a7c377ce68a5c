//! HTTP/1.1 (protocol section 9): parses requests, routes them, and encodes answers.
//!
//! Owns request heads and their limits, routes, the embedded browser client, the WebSocket
//! handshake, origins and forwarded addresses. It knows no socket, clock or database: a request
//! that needs one becomes a [`Step`], and is answered by [`Exchange::answer`].
//!
//! ```text
//!   bytes ─► request (head in one pass) ─► router ─┬─► page, part, error: the answer is written
//!                                                  ├─► Step::Upgrade     the rest is WebSocket
//!                                                  ├─► Step::Hook        when its body is there
//!                                                  └─► Step::Health, Step::Metrics
//! ```

use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::auth::token::{Digest, hook_digest};
use crate::config::{Config, Network, WebOrigin};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_METHODS_FIRST_BYTES};

mod assets;
mod forwarded;
mod hook;
mod origin;
mod request;
mod response;
mod router;
mod upgrade;

pub use forwarded::Peer;
pub use hook::Format;
pub use response::{Answer, Cache, Status};
pub use router::Surface;

use request::{Head, HeadScanner, Method};
use router::Route;

/// Whether the first bytes of a connection are HTTP; `None`: too few bytes.
///
/// Read as the length of a Purpose frame, every HTTP method exceeds the limit.
pub fn is_http(bytes: &[u8]) -> Option<bool> {
    match bytes.first_chunk() {
        Some(first) => Some(HTTP_METHODS_FIRST_BYTES.contains(first)),
        None => {
            let may_become =
                HTTP_METHODS_FIRST_BYTES.iter().any(|method| method.starts_with(bytes));
            if may_become { None } else { Some(false) }
        }
    }
}

/// The configuration that requests depend on.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Origins that may open a WebSocket, besides the one of the Host header.
    pub origins: Vec<WebOrigin>,
    /// Proxies whose X-Forwarded-For is trusted.
    pub trusted: Vec<Network>,
    /// Where the server's links begin. Its host may also request metrics on loopback.
    pub public_url: Option<WebOrigin>,
}

impl Site {
    /// The part of a configuration for HTTP.
    pub fn new(config: &Config) -> Self {
        Self {
            origins: config.web_origin.clone(),
            trusted: config.trusted_proxy.clone(),
            public_url: config.public_url.clone(),
        }
    }

    /// Whether an address is a trusted proxy, whose connections count for the clients that it
    /// names.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// The context of a request.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The configuration.
    pub site: &'a Site,
    /// The kind of listener.
    pub surface: Surface,
    /// The remote address of the connection.
    pub socket: IpAddr,
    /// The server has no users yet, and the link for the first one is valid.
    pub is_empty: bool,
    /// The present time, in microseconds since the Unix epoch.
    pub wall_us: i64,
}

/// The outcome of parsing the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Incomplete: this many bytes were consumed, and more must arrive.
    Wait(usize),
    /// A request was answered.
    Answered(Used),
    /// The answer upgrades the connection to a WebSocket.
    Upgrade(Used),
    /// A bot's message: store it, then call [`Exchange::answer`].
    Hook(Used, HookCall),
    /// A health check: call [`Exchange::answer`].
    Health(Used),
    /// A scrape of the metrics: call [`Exchange::answer`].
    Metrics(Used),
}

/// The bytes of a request that were consumed, and how to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Bytes of the buffer that were consumed.
    pub bytes: usize,
    /// The client.
    pub peer: Peer,
    /// How to answer, unless it was answered.
    pub exchange: Exchange,
}

/// The parts of a request that its answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The method was HEAD: the answer has no body.
    is_head: bool,
    /// Read nothing more, and close the connection after the answer.
    pub is_last: bool,
    /// When the request arrived, in seconds since the Unix epoch.
    wall_s: i64,
}

impl Exchange {
    /// Appends an answer.
    pub fn answer(&self, answer: &Answer<'_>, out: &mut Vec<u8>) {
        answer.put(out, self);
    }
}

/// A message sent by a hook.
#[derive(Debug, PartialEq, Eq)]
pub struct HookCall {
    /// The digest of the token in the path.
    pub token: Digest,
    /// The text, which may be longer than a message allows.
    pub text: Zeroizing<String>,
}

/// A hook whose body is still arriving.
#[derive(Debug)]
struct Expected {
    token: Digest,
    format: Format,
    body_bytes: usize,
    peer: Peer,
    exchange: Exchange,
}

/// The HTTP state of one connection: a few bytes, and a body while it arrives.
#[derive(Debug, Default)]
pub struct Http {
    scanner: HeadScanner,
    expected: Option<Box<Expected>>,
}

impl Http {
    /// Whether a body is arriving, which has a timeout of its own.
    pub const fn expects_body(&self) -> bool {
        self.expected.is_some()
    }

    /// Handles the front of `bytes`, which must begin with those that the last [`Step::Wait`] left.
    /// Answers are appended to `out`.
    pub fn next(&mut self, bytes: &[u8], setting: &Setting<'_>, out: &mut Vec<u8>) -> Step {
        if self.expected.is_some() {
            return self.body(bytes, 0, out);
        }
        let head_bytes = match self.scanner.scan(bytes) {
            Ok(None) => return Step::Wait(0),
            Ok(Some(head_bytes)) => head_bytes,
            Err(status) => return refuse(status, bytes, setting, out),
        };
        let (head, _) = bytes.split_at_checked(head_bytes).unwrap_or_default();
        let mut lines = request::LINES;
        match request::parse(head, &mut lines) {
            Ok(head) => self.route(&head, bytes, head_bytes, setting, out),
            Err(status) => refuse(status, bytes, setting, out),
        }
    }

    fn route(
        &mut self,
        head: &Head<'_>,
        bytes: &[u8],
        head_bytes: usize,
        setting: &Setting<'_>,
        out: &mut Vec<u8>,
    ) -> Step {
        let request = &head.request;
        let exchange = Exchange {
            is_head: request.method == Method::Head,
            is_last: head.is_last,
            wall_s: setting.wall_us / 1_000_000,
        };
        let peer = forwarded::peer(setting.socket, request, &setting.site.trusted);
        let mut used = Used { bytes: head_bytes, peer, exchange };
        match router::route(request, setting) {
            Route::Health => Step::Health(used),
            Route::Metrics => Step::Metrics(used),
            Route::Upgrade { accept, has_protocol } => {
                upgrade::put(accept, has_protocol, out);
                Step::Upgrade(used)
            }
            Route::Hook { token, format } => match head.body_bytes {
                None => refuse(Status::LengthRequired, bytes, setting, out),
                Some(body_bytes) if body_bytes > HTTP_BODY_BYTES_MAX => {
                    refuse(Status::ContentTooLarge, bytes, setting, out)
                }
                Some(body_bytes) => {
                    let token = hook_digest(token);
                    let expected = Expected { token, format, body_bytes, peer, exchange };
                    self.expected = Some(Box::new(expected));
                    if head.expects_continue && bytes.len() - head_bytes < body_bytes {
                        out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    self.body(bytes, head_bytes, out)
                }
            },
            Route::Answer(answer) => {
                // A body that arrived with it is not read.
                let has_body = head.body_bytes.is_some_and(|bytes| bytes > 0);
                used.exchange.is_last |= has_body || answer.status.closes();
                if used.exchange.is_last {
                    used.bytes = bytes.len();
                }
                used.exchange.answer(&answer, out);
                Step::Answered(used)
            }
        }
    }

    /// Continues the body of a hook, which begins at `start`.
    fn body(&mut self, bytes: &[u8], start: usize, out: &mut Vec<u8>) -> Step {
        let Some(expected) = self.expected.take() else { return Step::Wait(start) };
        let Some(body) = bytes.get(start..start + expected.body_bytes) else {
            // The head was handled: only the body has to fit in the buffer.
            self.expected = Some(expected);
            return Step::Wait(start);
        };
        let Expected { token, format, body_bytes, peer, mut exchange } = *expected;
        match hook::text(format, body) {
            Ok(text) => {
                let used = Used { bytes: start + body_bytes, peer, exchange };
                Step::Hook(used, HookCall { token, text })
            }
            Err(why) => {
                exchange.is_last = true;
                exchange.answer(&Answer::text(Status::BadRequest, why), out);
                Step::Answered(Used { bytes: bytes.len(), peer, exchange })
            }
        }
    }
}

/// Answers an invalid request. Bytes after it cannot be trusted.
fn refuse(status: Status, bytes: &[u8], setting: &Setting<'_>, out: &mut Vec<u8>) -> Step {
    let exchange = Exchange { is_head: false, is_last: true, wall_s: setting.wall_us / 1_000_000 };
    exchange.answer(&Answer::text(status, status.why()), out);
    let peer = Peer { address: setting.socket, is_distrusted: false };
    Step::Answered(Used { bytes: bytes.len(), peer, exchange })
}

/// Appends a final error answer, after which the connection is closed: `--web off`, a timeout, too
/// many connections.
pub fn put_last(status: Status, why: &str, retry_s: Option<u32>, wall_us: i64, out: &mut Vec<u8>) {
    let exchange = Exchange { is_head: false, is_last: true, wall_s: wall_us / 1_000_000 };
    exchange.answer(&Answer { retry_s, ..Answer::text(status, why) }, out);
}

#[cfg(test)]
mod tests;
