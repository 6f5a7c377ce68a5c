//! HTTP/1.1 (protocol section 9): requests from bytes, answers to bytes, and what each route is.
//!
//! Owns heads and their bounds, routes, the embedded browser client, the handshake of a WebSocket,
//! origins and forwarded addresses. Knows no socket, no clock and no database: what needs one
//! leaves as a [`Step`] and is answered by [`Exchange::answer`].
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

/// Whether the first bytes of a connection are those of HTTP; `None` while that is open.
///
/// As the length of a Purpose frame each of the methods would be over every limit.
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

/// The settings that requests depend on.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Origins that may open a WebSocket besides the one of the Host header.
    pub origins: Vec<WebOrigin>,
    /// Proxies whose X-Forwarded-For counts.
    pub trusted: Vec<Network>,
    /// The host of the server's links, which may ask for metrics on loopback.
    pub public_host: Option<String>,
}

impl Site {
    /// That of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            origins: config.web_origin.clone(),
            trusted: config.trusted_proxy.clone(),
            public_host: config.public_url.as_ref().map(|url| url.authority().to_owned()),
        }
    }

    /// Whether connections from an address count only for the address that it names.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// What a request depends on besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The settings of the server.
    pub site: &'a Site,
    /// What the listener serves.
    pub surface: Surface,
    /// The address of the connection's other end.
    pub socket: IpAddr,
    /// The server has no user, and its first link is good.
    pub is_empty: bool,
    /// The time, in microseconds since the Unix epoch.
    pub wall_us: i64,
}

/// What became of the bytes at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// That many bytes are done with, and more have to come.
    Wait(usize),
    /// A request was answered.
    Answered(Used),
    /// The answer is that the connection is a WebSocket from here on.
    Upgrade(Used),
    /// A message by a bot, to be stored and then answered by [`Exchange::answer`].
    Hook(Used, HookCall),
    /// Whether the server is healthy, to be answered by [`Exchange::answer`].
    Health(Used),
    /// The metrics, to be answered by [`Exchange::answer`].
    Metrics(Used),
}

/// The bytes of a request, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// How many bytes of the buffer are done with.
    pub bytes: usize,
    /// Who asked.
    pub peer: Peer,
    /// How it is answered, where it is not yet.
    pub exchange: Exchange,
}

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// It was HEAD: the answer has no body.
    is_head: bool,
    /// Nothing more is read of the connection, which is closed once the answer is sent.
    pub is_last: bool,
    /// When it came, in seconds since the Unix epoch.
    wall_s: i64,
}

impl Exchange {
    /// Appends an answer.
    pub fn answer(&self, answer: &Answer<'_>, out: &mut Vec<u8>) {
        answer.put(out, self);
    }
}

/// A message that came by a hook.
#[derive(Debug, PartialEq, Eq)]
pub struct HookCall {
    /// The digest of the token in the path.
    pub token: Digest,
    /// The text, which may be longer than a content.
    pub text: Zeroizing<String>,
}

/// A hook whose body is on its way.
#[derive(Debug)]
struct Expected {
    token: Digest,
    format: Format,
    body_bytes: usize,
    peer: Peer,
    exchange: Exchange,
}

/// One connection that speaks HTTP: a few bytes, and more while a body is on its way.
#[derive(Debug, Default)]
pub struct Http {
    scanner: HeadScanner,
    expected: Option<Box<Expected>>,
}

impl Http {
    /// Whether a body is on its way, which has a time-out of its own.
    pub const fn expects_body(&self) -> bool {
        self.expected.is_some()
    }

    /// Handles what is at the front of `bytes`, which begin with those that a [`Step::Wait`] left.
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
                // A body that came with it is not read.
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

    /// Goes on with the body of a hook, which begins at `start`.
    fn body(&mut self, bytes: &[u8], start: usize, out: &mut Vec<u8>) -> Step {
        let Some(expected) = self.expected.take() else { return Step::Wait(start) };
        let Some(body) = bytes.get(start..start + expected.body_bytes) else {
            // The head is done with: only the body has to fit into a buffer.
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

/// Answers what is no request; nothing behind it can be trusted.
fn refuse(status: Status, bytes: &[u8], setting: &Setting<'_>, out: &mut Vec<u8>) -> Step {
    let exchange = Exchange { is_head: false, is_last: true, wall_s: setting.wall_us / 1_000_000 };
    exchange.answer(&Answer::text(status, status.why()), out);
    let peer = Peer { address: setting.socket, is_distrusted: false };
    Step::Answered(Used { bytes: bytes.len(), peer, exchange })
}

/// Appends the answer to a connection that gets none else: `--web off`, a time-out, too many.
pub fn put_last(status: Status, why: &str, retry_s: Option<u32>, wall_us: i64, out: &mut Vec<u8>) {
    let exchange = Exchange { is_head: false, is_last: true, wall_s: wall_us / 1_000_000 };
    exchange.answer(&Answer { retry_s, ..Answer::text(status, why) }, out);
}

#[cfg(test)]
mod tests;
