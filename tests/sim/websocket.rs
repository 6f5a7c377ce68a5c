//! The client side of a WebSocket, by a codec of the simulation's own: masked frames, cut anywhere,
//! with control frames in between.

use crate::rng::Rng;
use crate::wire::Check;

const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// The upgrade request.
const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The progress of reading from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Head,
    Frames,
    /// Close has arrived: only the end of the stream may follow.
    Closed,
    /// The server answered something other than 101: the request had timed out.
    Refused,
}

/// The layer between a client's Purpose frames and its link.
pub(crate) struct WebSocket {
    /// Bytes to be sent.
    pub(crate) out: Vec<u8>,
    raw: Vec<u8>,
    reading: Reading,
    /// A fragmented message has begun.
    is_in_message: bool,
    has_closed: bool,
    pings: u64,
    pongs: u64,
}

impl WebSocket {
    pub(crate) fn new() -> Self {
        Self {
            out: REQUEST.to_vec(),
            raw: Vec::new(),
            reading: Reading::Head,
            is_in_message: false,
            has_closed: false,
            pings: 0,
            pongs: 0,
        }
    }

    /// Whether the server has rejected or closed it.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.reading, Reading::Closed | Reading::Refused)
    }

    /// Frames bytes of Purpose.
    pub(crate) fn wrap(&mut self, mut bytes: &[u8], rng: &mut Rng) {
        while !bytes.is_empty() && !self.has_closed {
            if rng.one_in(20) {
                self.pings += 1;
                let pings = self.pings.to_le_bytes();
                self.put(PING, true, &pings, rng);
            }
            let count = match rng.below(3) {
                0 => bytes.len(),
                _ => rng.index(bytes.len()) + 1,
            };
            let (part, rest) = bytes.split_at(count);
            let opcode = if self.is_in_message { CONTINUATION } else { BINARY };
            let is_last = !rng.one_in(3);
            self.is_in_message = !is_last;
            self.put(opcode, is_last, part, rng);
            bytes = rest;
        }
    }

    /// Ends this side with a Close.
    pub(crate) fn close(&mut self, rng: &mut Rng) {
        if !std::mem::replace(&mut self.has_closed, true) {
            self.put(CLOSE, true, &1000_u16.to_be_bytes(), rng);
        }
    }

    fn put(&mut self, opcode: u8, is_last: bool, payload: &[u8], rng: &mut Rng) {
        self.out.push(if is_last { 0x80 } else { 0 } | opcode);
        match payload.len() {
            length @ 0..=125 => self.out.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                self.out.push(0x80 | 126);
                self.out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                self.out.push(0x80 | 127);
                self.out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = (rng.below(1 << 32) as u32).to_le_bytes();
        self.out.extend_from_slice(&mask);
        self.out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// Extracts the bytes of Purpose from received ones.
    pub(crate) fn unwrap(&mut self, bytes: &[u8]) -> Check<Vec<u8>> {
        self.raw.extend_from_slice(bytes);
        let mut payload = Vec::new();
        if self.reading == Reading::Head {
            let end = self.raw.windows(4).position(|window| window == b"\r\n\r\n");
            let is_http = b"HTTP/1.1 ".starts_with(&self.raw[..self.raw.len().min(9)]);
            match end {
                _ if !is_http => self.reading = Reading::Refused,
                None => return Ok(payload),
                Some(end) if self.raw.starts_with(b"HTTP/1.1 101 ") => {
                    self.raw.drain(..end + 4);
                    self.reading = Reading::Frames;
                }
                Some(_) => self.reading = Reading::Refused,
            }
        }
        while self.reading == Reading::Frames {
            let Some((opcode, frame, bytes)) = frame(&self.raw)? else { break };
            match opcode {
                BINARY => payload.extend_from_slice(&frame),
                PONG => {
                    let number = frame.try_into().map_or(0, u64::from_le_bytes);
                    if number <= self.pongs || number > self.pings {
                        return Err(format!("pong {number} after {}", self.pongs));
                    }
                    self.pongs = number;
                }
                CLOSE => self.reading = Reading::Closed,
                other => return Err(format!("a frame with opcode {other}")),
            }
            self.raw.drain(..bytes);
        }
        if self.reading == Reading::Closed && !self.raw.is_empty() {
            return Err(format!("{} bytes after a Close", self.raw.len()));
        }
        Ok(payload)
    }
}

/// The first complete frame of a server: opcode, payload, length.
fn frame(bytes: &[u8]) -> Check<Option<(u8, Vec<u8>, usize)>> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 || second == 127 {
        return Err(format!("a server's frame begins with {first:#x} {second:#x}"));
    }
    let (length, head) = match second {
        126 => match rest.split_first_chunk() {
            Some((length, _)) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        length => (usize::from(length), 2),
    };
    let payload = bytes.get(head..head + length);
    Ok(payload.map(|payload| (first & 0x0f, payload.to_vec(), head + length)))
}
