//! WebSocket frames (RFC 6455): the layer between a transport and the byte stream of Purpose.
//!
//! ```text
//!   0               1               2         4         10            14
//!   +-+-+-+-+-------+-+-------------+---------+---------+-------------+----------+
//!   |F|R|R|R| opcode|M| length (7)  | 16 bits | or 64   | mask, if M  | payload  |
//!   +-+-+-+-+-------+-+-------------+---------+---------+-------------+----------+
//! ```
//!
//! [`Decoder`] accepts a stream cut anywhere and unmasks it in place; [`Sender`] returns the bytes
//! that must precede those of the outbox. Neither buffers a message, and neither allocates, except
//! for a control frame that arrives in parts.
//!
//! It knows neither sockets nor Purpose frames. One message carries all bytes that were waiting
//! when it was begun.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::limits::{WEBSOCKET_CONTROL_BYTES_MAX, WEBSOCKET_MESSAGE_BYTES_MAX};

use crate::wire::base64;

mod decode;
mod send;

pub use decode::{Control, Decoder, Event, StreamEnd, Unwrapped};
pub use send::{Chunk, Sender};

/// Longest payload of a control frame, in bytes.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Longest head of a frame, in bytes: 2, a length of 8, and a mask of 4.
pub const HEAD_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Length values that announce a length of 16 or 64 bits.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

const _: () = {
    assert!(WEBSOCKET_MESSAGE_BYTES_MAX <= u16::MAX as usize, "a server's head has 4 bytes");
    assert!(WEBSOCKET_CONTROL_BYTES_MAX >= 2 + CONTROL_PAYLOAD_BYTES_MAX);
    assert!(CONTROL_PAYLOAD_BYTES_MAX < LENGTH_16 as usize, "a control frame has a short length");
    assert!(CLOSE > BINARY && CLOSE < PING && PING < PONG, "control opcodes are the highest");
};

/// The suffix that RFC 6455 appends to a key.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The Sec-WebSocket-Accept for a Sec-WebSocket-Key. It proves that the server speaks WebSocket; it
/// protects nothing.
pub fn accept(key: &str) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(KEY_SUFFIX.as_bytes());
    let text = base64::encode(context.finish().as_ref());
    debug_assert_eq!(text.len(), 28, "the digest has 20 bytes");
    text
}

/// The side of a connection. A client masks what it sends, a server does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Accepted the connection.
    Server,
    /// Opened the connection.
    Client,
}

/// The status code of a Close frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloseCode(u16);

impl CloseCode {
    /// Normal closure.
    pub const NORMAL: Self = Self(1000);
    /// The peer violated RFC 6455.
    pub const PROTOCOL: Self = Self(1002);
    /// The peer sent text; Purpose is binary.
    pub const UNACCEPTABLE: Self = Self(1003);
    /// The reason of a Close frame is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);

    /// A code, if a Close frame may carry it.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            // Reserved, or never sent on the wire.
            _ => None,
        }
    }

    /// The numeric code.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// XORs bytes with a mask, starting at offset `phase` of the mask. Returns the next offset.
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4], phase: u8) -> u8 {
    debug_assert!(phase < 4, "a mask has 4 bytes");
    let [a, b, c, d] = mask;
    let mask = match phase % 4 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let next = (usize::from(phase) + bytes.len()) % 4;
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    next as u8
}

/// Appends a complete masked frame, as a client sends it.
pub fn put_masked(out: &mut Vec<u8>, kind: ClientFrame, mask: [u8; 4], payload: &[u8]) {
    let length = payload.len();
    debug_assert!(
        kind == ClientFrame::Binary || length <= CONTROL_PAYLOAD_BYTES_MAX,
        "a control frame is short"
    );
    let before = out.len();
    out.push(FIN | kind as u8);
    match length {
        0..=125 => out.push(MASKED | length as u8),
        126..=0xffff => {
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(MASKED | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    debug_assert!(start - before <= HEAD_BYTES_MAX, "the longest head");
    out.extend_from_slice(payload);
    if let Some(sent) = out.get_mut(start..) {
        apply_mask(sent, mask, 0);
    }
}

/// The frames that a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ClientFrame {
    /// A message of Purpose bytes.
    Binary = BINARY,
    /// Close: the end of the client's stream.
    Close = CLOSE,
    /// A keepalive probe.
    Ping = PING,
    /// The answer to the server's Ping.
    Pong = PONG,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_goes_on_where_it_stopped() {
        let plain: Vec<u8> = (0..100).collect();
        let mask = [1, 20, 30, 200];
        let mut whole = plain.clone();
        assert_eq!(apply_mask(&mut whole, mask, 0), 0);
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(*byte, plain[at] ^ mask[at % 4]);
        }
        for cut in 0..plain.len() {
            let mut bytes = plain.clone();
            let (first, second) = bytes.split_at_mut(cut);
            let phase = apply_mask(first, mask, 0);
            assert_eq!(usize::from(phase), cut % 4);
            apply_mask(second, mask, phase);
            assert_eq!(bytes, whole, "at {cut}");
        }
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_code_is_one_that_may_be_sent() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::new(code).map(CloseCode::number), Some(code));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert_eq!(CloseCode::new(code), None, "{code}");
        }
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        for (length, head) in [(125, 6), (126, 8), (0xffff, 8), (0x1_0000, 14)] {
            let mut out = Vec::new();
            put_masked(&mut out, ClientFrame::Binary, [1, 2, 3, 4], &vec![7; length]);
            assert_eq!(out.len(), head + length);
            let mut decoder = Decoder::new(Role::Server);
            let unwrapped = decoder.unwrap(&mut out, |_| panic!("no control frame"));
            assert_eq!(unwrapped, Unwrapped { payload_bytes: length, end: None });
            assert!(out[..length].iter().all(|&byte| byte == 7));
        }
    }
}
