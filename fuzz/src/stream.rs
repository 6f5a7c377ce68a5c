//! A client's end of a connection: bytes both ways, which arrive in pieces or not at all, plain or
//! in frames of WebSocket.

use std::collections::VecDeque;
use std::io;

use vestnik::engine::{Ready, Transfer};
use vestnik::wire::websocket::{ClientFrame, Decoder, Role, put_masked};

/// The request that begins a WebSocket.
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: fuzz\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a client of WebSocket masks with.
const MASK: [u8; 4] = [0x12, 0xA5, 0x00, 0xFF];

/// A stream of bytes each way.
pub(crate) struct Stream {
    /// Bytes on the way to the server.
    up: VecDeque<u8>,
    /// The client has ended its side behind them.
    pub(crate) is_ended: bool,
    /// The most that the server reads of them in one turn.
    pub(crate) piece: usize,
    is_read: bool,
    is_news: bool,
    /// How many bytes the client accepts.
    window: usize,
    /// It did not accept everything at some time.
    pub(crate) has_stalled: bool,
    pub(crate) is_broken: bool,
    pub(crate) websocket: Option<WebSocket>,
    /// What the server has released, and not written yet.
    pub(crate) released: VecDeque<u8>,
}

/// The client's side of a WebSocket.
pub(crate) struct WebSocket {
    decoder: Decoder,
    /// The answer to the request that begins it.
    head: Vec<u8>,
    pub(crate) is_upgraded: bool,
    /// Bytes of Purpose that were written, and are not found in a frame yet.
    carried: VecDeque<u8>,
}

impl Stream {
    pub(crate) fn new(is_websocket: bool) -> Self {
        let up = if is_websocket { UPGRADE } else { b"" };
        Self {
            up: up.iter().copied().collect(),
            is_ended: false,
            piece: usize::MAX,
            is_read: false,
            is_news: true,
            window: usize::MAX,
            has_stalled: false,
            is_broken: false,
            websocket: is_websocket.then(|| WebSocket {
                decoder: Decoder::new(Role::Client),
                head: Vec::new(),
                is_upgraded: false,
                carried: VecDeque::new(),
            }),
            released: VecDeque::new(),
        }
    }

    // ---- what the client does ------------------------------------------------------------------

    /// Sends bytes of Purpose; over WebSocket a frame may begin and end anywhere in them.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.is_news = true;
        if self.websocket.is_none() {
            self.up.extend(bytes);
            return;
        }
        let mut framed = Vec::new();
        let (first, rest) = bytes.split_at(bytes.len() / 3);
        put_masked(&mut framed, ClientFrame::Binary, MASK, first);
        if bytes.len().is_multiple_of(4) {
            put_masked(&mut framed, ClientFrame::Ping, MASK, b"ping");
        }
        put_masked(&mut framed, ClientFrame::Binary, MASK, rest);
        self.up.extend(framed);
    }

    /// Ends the client's side.
    pub(crate) fn end(&mut self) {
        if self.is_ended {
            return;
        }
        if self.websocket.is_some() {
            let mut close = Vec::new();
            put_masked(&mut close, ClientFrame::Close, MASK, &1000_u16.to_be_bytes());
            self.up.extend(close);
        }
        self.is_ended = true;
    }

    pub(crate) fn cut(&mut self) {
        self.is_broken = true;
        self.is_news = true;
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.window != usize::MAX
    }

    /// From now on the client accepts this number of bytes, and then nothing.
    pub(crate) fn accept(&mut self, bytes: usize) {
        self.window = bytes;
        self.has_stalled |= bytes != usize::MAX;
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.up.is_empty() && self.released.is_empty()
    }

    // ---- what the server sees ------------------------------------------------------------------

    /// What it reports when a turn begins.
    pub(crate) fn report(&mut self) -> Ready {
        self.is_read = false;
        Ready {
            readable: std::mem::take(&mut self.is_news),
            writable: self.is_broken || self.window > 0,
            ended: self.is_broken || self.is_ended,
        }
    }

    /// Some of what has come, once in a turn.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Transfer> {
        if self.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.up.is_empty() && self.is_ended {
            return Ok(Transfer { bytes: 0, cost: 0, is_exhausted: true });
        }
        if self.up.is_empty() || self.is_read && self.piece < usize::MAX {
            self.is_news = !self.up.is_empty();
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.is_read = true;
        let bytes = self.up.len().min(self.piece).min(buffer.len());
        for (to, byte) in buffer.iter_mut().zip(self.up.drain(..bytes)) {
            *to = byte;
        }
        Ok(Transfer { bytes, cost: bytes, is_exhausted: self.up.is_empty() && !self.is_ended })
    }

    /// Accepts some of what the server writes; how many bytes of `body` that were.
    pub(crate) fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<(Transfer, usize)> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let of_head = head.len().min(self.window);
        let of_body = body.len().min(self.window - of_head);
        if self.window != usize::MAX {
            self.window -= of_head + of_body;
        }
        let (head_part, body_part) = (&head[..of_head], &body[..of_body]);
        let released = self.released.drain(..of_body.min(self.released.len()));
        assert!(released.eq(body_part.iter().copied()), "it is sent what was not released");
        if let Some(websocket) = &mut self.websocket {
            websocket.take(head_part, body_part);
        }
        let bytes = of_head + of_body;
        let is_exhausted = bytes < head.len() + body.len();
        Ok((Transfer { bytes, cost: bytes, is_exhausted }, of_body))
    }
}

impl WebSocket {
    /// What came for the client: frames that carry just what was written.
    fn take(&mut self, head: &[u8], body: &[u8]) {
        if !self.is_upgraded {
            assert!(head.is_empty(), "a frame before the answer to the upgrade");
            self.head.extend_from_slice(body);
            if self.head.ends_with(b"\r\n\r\n") {
                self.is_upgraded = self.head.starts_with(b"HTTP/1.1 101 ");
            }
            return;
        }
        self.carried.extend(body);
        let mut bytes = [head, body].concat();
        let unwrapped = self.decoder.unwrap(&mut bytes, |_| {});
        let carried = self.carried.drain(..unwrapped.payload_bytes);
        assert!(carried.eq(bytes[..unwrapped.payload_bytes].iter().copied()), "other bytes");
        assert!(self.carried.is_empty(), "bytes outside of frames");
    }
}
