//! HTTP and WebSocket as tests speak them, by a codec of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::Server;
use super::wire::Frame;

/// How long a test waits for bytes that must come.
const READ_WAIT: Duration = Duration::from_secs(20);

/// The mask of every frame that a test sends.
const MASK: [u8; 4] = [0x12, 0xfe, 0x34, 0x56];

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// An answer of HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that speaks HTTP.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(READ_WAIT)).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, buffer: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("written bytes");
    }

    /// Reads an answer; that to HEAD has no body.
    #[track_caller]
    pub(crate) fn answer(&mut self, is_head: bool) -> Answer {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill(), "the stream ended: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).expect("a head");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|line| line.get(..3)).expect("a status line");
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer =
            Answer { status: status.parse().expect("a number"), headers, body: Vec::new() };
        if let Some(length) = answer.header("content-length")
            && !is_head
        {
            let length: usize = length.parse().expect("a length");
            while self.buffer.len() < length {
                assert!(self.fill(), "the stream ended inside a body");
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        answer
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        let is_head = request.as_ref().starts_with(b"HEAD");
        self.send(request);
        self.answer(is_head)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str, lines: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: chat.example\r\n{lines}\r\n"))
    }

    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, media_type: &str, body: &str) -> Answer {
        self.ask(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// The server ends the stream without another byte.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let is_ended = self.buffer.is_empty() && !self.fill();
        assert!(is_ended, "more came: {:?}", String::from_utf8_lossy(&self.buffer));
    }
}

/// The head of an upgrade, with more lines.
pub(crate) fn upgrade(lines: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// A frame of a client with every part as it is given.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A frame of the server: its opcode, and its payload.
pub(crate) type WebFrame = (u8, Vec<u8>);

/// A connection that speaks WebSocket.
pub(crate) struct WebSocket {
    pub(crate) http: Http,
    /// Purpose bytes of messages that came.
    stream: Vec<u8>,
}

impl WebSocket {
    #[track_caller]
    pub(crate) fn open(server: &Server) -> Self {
        Self::open_at(server.address(), "Sec-WebSocket-Protocol: purpose\r\n")
    }

    #[track_caller]
    pub(crate) fn open_at(address: SocketAddr, lines: &str) -> Self {
        let mut http = Http::connect(address);
        let answer = http.ask(upgrade(lines));
        assert_eq!(answer.status, 101, "{answer:?}");
        let accept = answer.header("sec-websocket-accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Self::behind(http)
    }

    /// Goes on behind the answer to a handshake.
    pub(crate) fn behind(http: Http) -> Self {
        Self { http, stream: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        self.http.send(masked(first, payload.as_ref()));
    }

    /// Sends frames of Purpose as one message.
    #[track_caller]
    pub(crate) fn send_frames(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        self.send(0x80 | BINARY, bytes);
    }

    /// The next frame of the WebSocket; `None` at the end of the stream.
    #[track_caller]
    pub(crate) fn web_frame(&mut self) -> Option<WebFrame> {
        loop {
            if let Some((frame, used)) = parse(&self.http.buffer) {
                self.http.buffer.drain(..used);
                return Some(frame);
            }
            if !self.http.fill() {
                assert!(self.http.buffer.is_empty(), "the stream ended inside a frame");
                return None;
            }
        }
    }

    /// The next frame of Purpose.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = Frame::take(&mut self.stream) {
                return frame;
            }
            match self.web_frame() {
                Some((BINARY, payload)) => self.stream.extend_from_slice(&payload),
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// Close with this code, then the end of the stream.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: Option<u16>) {
        let payload = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
        assert_eq!(self.web_frame(), Some((CLOSE, payload)));
        let code = code.unwrap_or(1000).to_be_bytes();
        // The server may have ended the stream already.
        let _ = self.http.stream.write_all(&masked(0x80 | CLOSE, &code));
        assert_eq!(self.web_frame(), None);
    }
}

/// A whole frame at the front of what came, and its length.
fn parse(bytes: &[u8]) -> Option<(WebFrame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0xf0, 0x80, "a fragment, or reserved bits");
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (length, start) = match second {
        126 => {
            let length = u16::from_be_bytes(bytes.get(2..4)?.try_into().expect("two"));
            assert!(length > 125, "a length in no shortest form");
            (usize::from(length), 4)
        }
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().expect("eight")) as usize, 10),
        length => (usize::from(length), 2),
    };
    assert!(length <= 64 * 1024, "a message of {length} bytes");
    let payload = bytes.get(start..start + length)?.to_vec();
    Some(((first & 0x0f, payload), start + length))
}

/// The layer by which every test of the protocol goes through a WebSocket: with
/// `VESTNIK_TEST_TRANSPORT=ws` or `wss` all connections of [`super::Client`] do.
#[derive(Default)]
pub(crate) struct Layer {
    raw: Vec<u8>,
    is_over: bool,
}

impl Layer {
    /// Shakes hands, when the tests are to go through WebSockets.
    pub(crate) fn begin(stream: &mut TcpStream) -> Option<Self> {
        if !std::env::var("VESTNIK_TEST_TRANSPORT").is_ok_and(|value| value.starts_with("ws")) {
            return None;
        }
        let mut layer = Self::default();
        stream.write_all(upgrade("").as_bytes()).ok()?;
        let mut chunk = [0; 4096];
        while !layer.raw.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match stream.read(&mut chunk) {
                Ok(count) if count > 0 => layer.raw.extend_from_slice(&chunk[..count]),
                // It is turned away: the test sees the end of the stream.
                _ => return Some(layer),
            }
        }
        let end = layer.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an end");
        let head: Vec<u8> = layer.raw.drain(..end + 4).collect();
        if !head.starts_with(b"HTTP/1.1 101 ") {
            layer.is_over = true;
        }
        Some(layer)
    }

    /// Bytes as one message.
    pub(crate) fn wrap(&self, bytes: &[u8]) -> Vec<u8> {
        masked(0x80 | BINARY, bytes)
    }

    /// The Purpose bytes of what came; a Close is the end of the stream.
    pub(crate) fn unwrap(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.raw.extend_from_slice(bytes);
        while let Some(((opcode, payload), used)) = parse(&self.raw) {
            self.raw.drain(..used);
            match opcode {
                BINARY => out.extend_from_slice(&payload),
                CLOSE => self.is_over = true,
                _ => {}
            }
        }
    }
}

/// Ends the client's side.
pub(crate) fn end(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("a shutdown");
}
