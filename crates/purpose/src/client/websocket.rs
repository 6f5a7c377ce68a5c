//! A connection through HTTP: the handshake of a client, and its layer over the bytes.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Instant;

use super::error::Error;
use super::link::now;
use super::sync::random;
use super::tls::Stream;
use crate::wire::base64;
use crate::wire::websocket::{
    ClientFrame, CloseCode, Decoder, Role, StreamEnd, accept, put_masked,
};

/// Longest head of the server's answer, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The address of a WebSocket: `ws://HOST[:PORT][/PATH]`, or `wss:` over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketUrl {
    /// Whether it is over TLS.
    pub is_tls: bool,
    /// Name or address of the server, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path, `/ws` where none is given.
    pub path: String,
}

impl WebSocketUrl {
    /// Whether a text has the form of one, right or wrong.
    pub fn is_like(text: &str) -> bool {
        ["ws://", "wss://"].iter().any(|scheme| {
            text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
    }

    /// Host and port, as a Host header carries them.
    fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.is_tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for WebSocketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text} is not the address of a WebSocket, such as wss://chat.example.org/ws")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(wrong()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/ws"),
        };
        let path = if path == "/" { "/ws" } else { path };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                (host, after)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?,
            None if !port.is_empty() => return Err(wrong()),
            None => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_plain(host) || !is_plain(path) || host.contains(['@', '?', '#']) {
            return Err(wrong());
        }
        Ok(Self { is_tls, host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// The layer between frames of Purpose and a stream.
pub(super) struct WebSocket {
    decoder: Decoder,
    /// Bytes on their way out.
    out: Vec<u8>,
}

impl WebSocket {
    /// Shakes hands until the deadline. What came behind the server's head is appended to `early`.
    pub(super) fn open(
        stream: &mut Stream,
        url: &WebSocketUrl,
        early: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let mut bits = [0; 16];
        for half in bits.chunks_exact_mut(8) {
            half.copy_from_slice(&random().to_le_bytes());
        }
        let key = base64::encode(&bits);
        let (path, authority) = (&url.path, url.authority());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: purpose\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let head_bytes = read_head(stream, early, deadline)?;
        let head = early.get(..head_bytes).unwrap_or_default();
        check_head(&String::from_utf8_lossy(head), &key)?;
        early.drain(..head_bytes);
        let mut websocket = Self { decoder: Decoder::new(Role::Client), out: Vec::new() };
        let (payload_bytes, _) = websocket.unwrap(stream, early)?;
        early.truncate(payload_bytes);
        Ok(websocket)
    }

    /// Sends bytes as one message.
    pub(super) fn send(&mut self, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        self.put(ClientFrame::Binary, bytes);
        self.flush(stream)
    }

    fn put(&mut self, kind: ClientFrame, payload: &[u8]) {
        put_masked(&mut self.out, kind, (random() as u32).to_le_bytes(), payload);
    }

    fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        let sent = stream.write_all(&self.out);
        // A mask is no cover: there was a password in it, perhaps.
        self.out.fill(0);
        self.out.clear();
        sent
    }

    /// Moves the Purpose bytes among those read to the front, and answers what has to be answered.
    /// How many there are, and whether the stream ends behind them.
    pub(super) fn unwrap(
        &mut self,
        stream: &mut Stream,
        bytes: &mut [u8],
    ) -> Result<(usize, bool), Error> {
        let mut pings = Vec::new();
        let unwrapped = self.decoder.unwrap(bytes, |ping| pings.push(ping.clone()));
        for ping in &pings {
            self.put(ClientFrame::Pong, ping.bytes());
        }
        let code = match unwrapped.end {
            None => None,
            Some(StreamEnd::Closed(code)) => Some(code),
            Some(StreamEnd::Failed(code)) => Some(Some(code)),
        };
        if let Some(code) = code {
            self.close_with(code);
        }
        if !self.out.is_empty() {
            // Who has closed may read no more.
            let sent = self.flush(stream);
            if code.is_none() {
                sent?;
            }
        }
        match unwrapped.end {
            Some(StreamEnd::Failed(_)) => Err(Error::Protocol("a WebSocket frame that is none")),
            end => Ok((unwrapped.payload_bytes, end.is_some())),
        }
    }

    fn close_with(&mut self, code: Option<CloseCode>) {
        let payload = code.map(|code| code.number().to_be_bytes());
        let payload = payload.as_ref().map_or(&[][..], |bytes| bytes.as_slice());
        self.put(ClientFrame::Close, payload);
    }

    /// Ends the client's stream.
    pub(super) fn close(&mut self, stream: &mut Stream) {
        if !self.decoder.is_over() {
            self.close_with(Some(CloseCode::NORMAL));
            let _ = self.flush(stream);
        }
    }
}

/// Reads until the head of an answer is whole, and says how long it is.
fn read_head(stream: &mut Stream, bytes: &mut Vec<u8>, deadline: Instant) -> Result<usize, Error> {
    let mut chunk = [0; 2048];
    loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            return Ok(at + 4);
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Error::Protocol("a head of HTTP without end"));
        }
        let wait = deadline.saturating_duration_since(now());
        if wait.is_zero() {
            return Err(Error::TimedOut);
        }
        stream.socket().set_read_timeout(Some(wait))?;
        match stream.read(&mut chunk)? {
            0 => return Err(Error::Closed),
            count => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}

fn check_head(head: &str, key: &str) -> Result<(), Error> {
    let mut lines = head.split("\r\n");
    let mut status = lines.next().unwrap_or_default().split(' ');
    let version = status.next().unwrap_or_default();
    let code = status.next().and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(101) if version == "HTTP/1.1" => {}
        Some(code) if version.starts_with("HTTP/1.") => return Err(Error::NoWebSocket(code)),
        _ => return Err(Error::Protocol("an answer that is not HTTP")),
    }
    let value = |wanted: &str| {
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    if value("sec-websocket-accept") != Some(accept(key).as_str()) {
        return Err(Error::Protocol("a handshake that is none of WebSocket"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_port_and_path() {
        for (text, is_tls, host, port, path) in [
            ("ws://127.0.0.1:7420/ws", false, "127.0.0.1", 7420, "/ws"),
            ("wss://chat.example.org", true, "chat.example.org", 443, "/ws"),
            ("WS://chat.lan/", false, "chat.lan", 80, "/ws"),
            ("ws://[::1]:7420", false, "::1", 7420, "/ws"),
            ("wss://a.example/chat/ws", true, "a.example", 443, "/chat/ws"),
        ] {
            let url: WebSocketUrl = text.parse().expect(text);
            assert_eq!(
                (url.is_tls, url.host.as_str(), url.port, url.path.as_str()),
                (is_tls, host, port, path)
            );
            assert!(WebSocketUrl::is_like(text));
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
        for wrong in [
            "",
            "chat.lan:7420",
            "http://a",
            "ws://",
            "ws:///ws",
            "ws://a:0",
            "ws://a:x",
            "ws://[::1",
            "ws://[a]:1",
            "ws://u@a",
            "ws://a b",
            "ws://a/b c",
            "ws://a\r\nX: y",
        ] {
            wrong.parse::<WebSocketUrl>().expect_err(wrong);
        }
    }

    #[test]
    fn only_the_answer_to_the_key_is_a_handshake() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let good = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert!(check_head(good, key).is_ok());
        assert!(check_head(&good.replace("s3p", "S3p"), key).is_err());
        let refused = check_head("HTTP/1.1 403 Forbidden\r\n\r\n", key).unwrap_err();
        assert!(refused.to_string().contains("403"), "{refused}");
        assert!(check_head("SSH-2.0\r\n\r\n", key).is_err());
    }
}
