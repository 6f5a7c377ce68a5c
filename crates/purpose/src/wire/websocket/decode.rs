//! Decoding: heads in any pieces, payloads in place, control frames as a whole.

use std::ops::Range;

use super::{
    BINARY, CLOSE, CONTINUATION, CONTROL_PAYLOAD_BYTES_MAX, CloseCode, FIN, HEAD_BYTES_MAX, LENGTH,
    LENGTH_16, LENGTH_64, MASKED, OPCODE, PING, PONG, RESERVED, Role, TEXT, apply_mask,
};

/// The payload of a control frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    bytes: [u8; CONTROL_PAYLOAD_BYTES_MAX],
    length: u8,
}

impl Control {
    const EMPTY: Self = Self { bytes: [0; CONTROL_PAYLOAD_BYTES_MAX], length: 0 };

    /// The payload, unmasked.
    pub fn bytes(&self) -> &[u8] {
        debug_assert!(usize::from(self.length) <= CONTROL_PAYLOAD_BYTES_MAX);
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn push(&mut self, part: &[u8]) {
        let start = usize::from(self.length);
        debug_assert!(start + part.len() <= CONTROL_PAYLOAD_BYTES_MAX, "the head was checked");
        if let Some(place) = self.bytes.get_mut(start..start + part.len()) {
            place.copy_from_slice(part);
            self.length += part.len() as u8;
        }
    }
}

/// The result of decoding the front of a buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// All bytes were consumed; more must arrive.
    Incomplete,
    /// Bytes of the Purpose stream, unmasked, at this range of the buffer.
    Payload(Range<usize>),
    /// A Ping, to be answered with its payload.
    Ping(Control),
    /// A Pong, which shows that the peer is alive.
    Pong,
    /// A Close frame, with or without a code; nothing after it is read.
    Closed(Option<CloseCode>),
    /// The peer violated the protocol: close with this code. Nothing more is read.
    Failed(CloseCode),
}

/// The result of [`Decoder::unwrap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unwrapped {
    /// Bytes of the Purpose stream, now at the front of the buffer.
    pub payload_bytes: usize,
    /// How the stream ended, if it did.
    pub end: Option<StreamEnd>,
}

/// How a WebSocket stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// The peer sent Close: answer with the same code.
    Closed(Option<CloseCode>),
    /// The peer violated the protocol: answer with this code.
    Failed(CloseCode),
}

/// What the next bytes are part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// The head of a frame.
    Head,
    /// The payload of a data frame.
    Data,
    /// The payload of a control frame with this opcode.
    Control(u8),
    /// Nothing: the stream has ended.
    Over,
}

/// Decodes one direction of a connection. Its state takes about fifty bytes.
#[derive(Debug)]
pub struct Decoder {
    /// Payload bytes of this frame that have not arrived.
    left: u64,
    /// A control frame whose payload is incomplete.
    control: Option<Box<Control>>,
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    mask: [u8; 4],
    phase: u8,
    part: Part,
    role: Role,
    /// A message has begun, and its last frame has not arrived.
    is_in_message: bool,
}

impl Decoder {
    /// For a stream received by this side.
    pub const fn new(role: Role) -> Self {
        Self {
            left: 0,
            control: None,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            mask: [0; 4],
            phase: 0,
            part: Part::Head,
            role,
            is_in_message: false,
        }
    }

    /// Whether the stream has ended; later bytes are discarded.
    pub fn is_over(&self) -> bool {
        self.part == Part::Over
    }

    /// Unmasks the Purpose bytes of a buffer and moves them to its front; passes each Ping to
    /// `answer`. All bytes are consumed; incomplete frames are kept in the state.
    pub fn unwrap(&mut self, bytes: &mut [u8], mut answer: impl FnMut(&Control)) -> Unwrapped {
        let (mut used, mut payload_bytes, mut end) = (0, 0, None);
        while let Some(rest) = bytes.get_mut(used..) {
            let rest_bytes = rest.len();
            let (count, event) = self.next(rest);
            debug_assert!(count <= rest_bytes, "more was consumed than there is");
            debug_assert!(
                if event == Event::Incomplete { count == rest_bytes } else { count > 0 },
                "everything is consumed, and each event consumes something"
            );
            match event {
                Event::Incomplete => break,
                Event::Payload(place) => {
                    let (from, to) = (used + place.start, used + place.end);
                    debug_assert!(payload_bytes <= from, "bytes move to the front only");
                    debug_assert_eq!(place.end, count, "a payload is the last that is consumed");
                    bytes.copy_within(from..to, payload_bytes);
                    payload_bytes += place.len();
                }
                Event::Ping(payload) => answer(&payload),
                Event::Pong => {}
                Event::Closed(code) => end = Some(StreamEnd::Closed(code)),
                Event::Failed(code) => end = Some(StreamEnd::Failed(code)),
            }
            used += count;
            if end.is_some() {
                break;
            }
        }
        debug_assert!(payload_bytes <= used, "there are fewer payload bytes than bytes");
        debug_assert!(end.is_none() || self.is_over());
        Unwrapped { payload_bytes, end }
    }

    /// Decodes the next part of `bytes`. Returns how many bytes it consumed.
    pub fn next(&mut self, bytes: &mut [u8]) -> (usize, Event) {
        let mut used = 0;
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            match self.part {
                Part::Over => return (used + rest.len(), Event::Incomplete),
                Part::Head => {
                    let Some(byte) = rest.first() else { return (used, Event::Incomplete) };
                    used += 1;
                    if let Err(code) = self.head_byte(*byte) {
                        return (used, self.fail(code));
                    }
                }
                Part::Data if self.left == 0 => self.end_frame(),
                Part::Data => {
                    let count = self.take(rest);
                    if count == 0 {
                        return (used, Event::Incomplete);
                    }
                    if self.left == 0 {
                        self.end_frame();
                    }
                    return (used + count, Event::Payload(used..used + count));
                }
                Part::Control(opcode) => {
                    debug_assert!(self.left <= CONTROL_PAYLOAD_BYTES_MAX as u64);
                    debug_assert!(opcode >= CLOSE, "data is not collected");
                    let length = self.left as usize;
                    let count = self.take(rest);
                    let part = rest.get(..count).unwrap_or_default();
                    used += count;
                    if count < length {
                        self.control.get_or_insert_with(|| Box::new(Control::EMPTY)).push(part);
                        return (used, Event::Incomplete);
                    }
                    let mut control = self.control.take().map_or(Control::EMPTY, |begun| *begun);
                    control.push(part);
                    self.end_frame();
                    return (used, self.control_event(opcode, control));
                }
            }
        }
    }

    /// Unmasks the payload that has arrived. Returns its length.
    fn take(&mut self, bytes: &mut [u8]) -> usize {
        debug_assert!(matches!(self.part, Part::Data | Part::Control(_)), "{:?}", self.part);
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let taken = bytes.get_mut(..count).unwrap_or_default();
        if self.role == Role::Server {
            self.phase = apply_mask(taken, self.mask, self.phase);
        }
        self.left -= count as u64;
        count
    }

    fn end_frame(&mut self) {
        debug_assert_eq!(self.left, 0, "the payload is not complete");
        debug_assert!(self.control.is_none(), "a control frame ends when its payload is taken");
        self.part = Part::Head;
        self.head_bytes = 0;
    }

    fn fail(&mut self, code: CloseCode) -> Event {
        debug_assert!(!self.is_over(), "a stream fails once");
        self.part = Part::Over;
        self.control = None;
        Event::Failed(code)
    }

    fn control_event(&mut self, opcode: u8, control: Control) -> Event {
        debug_assert!(matches!(opcode, CLOSE | PING | PONG), "{opcode} is not a control frame");
        debug_assert!(self.left == 0 && self.part == Part::Head, "the frame is complete");
        match opcode {
            PING => Event::Ping(control),
            PONG => Event::Pong,
            _ => match close_code(control.bytes()) {
                Ok(code) => {
                    self.part = Part::Over;
                    Event::Closed(code)
                }
                Err(code) => self.fail(code),
            },
        }
    }

    /// Handles one byte of a head. An error is noticed at the first byte that shows it.
    fn head_byte(&mut self, byte: u8) -> Result<(), CloseCode> {
        let at = usize::from(self.head_bytes);
        debug_assert!(at < HEAD_BYTES_MAX, "a head has no more bytes");
        debug_assert!(at > 0 || self.left == 0, "the last payload is not complete");
        if let Some(place) = self.head.get_mut(at) {
            *place = byte;
        }
        self.head_bytes += 1;
        match at {
            0 => return self.check_first(byte),
            1 => self.check_second(byte)?,
            _ => {}
        }
        let [first, second, lengths @ ..] = self.head;
        let length_bytes = match second & LENGTH {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ => 0,
        };
        if length_bytes == 8 && at == 2 && byte & 0x80 != 0 {
            return Err(CloseCode::PROTOCOL);
        }
        let mask_bytes = if second & MASKED != 0 { 4 } else { 0 };
        if at == 1 + length_bytes {
            self.left = length(second & LENGTH, &lengths).ok_or(CloseCode::PROTOCOL)?;
        }
        if at < 1 + length_bytes + mask_bytes {
            return Ok(());
        }
        if let Some(mask) = lengths.get(length_bytes..).and_then(<[u8]>::first_chunk) {
            self.mask = *mask;
        }
        self.phase = 0;
        self.part = match first & OPCODE {
            CONTINUATION | BINARY => Part::Data,
            opcode => Part::Control(opcode),
        };
        debug_assert_eq!(at + 1, 2 + length_bytes + mask_bytes, "the head is complete");
        debug_assert!(
            self.part == Part::Data || self.left <= CONTROL_PAYLOAD_BYTES_MAX as u64,
            "the length of a control frame was checked"
        );
        Ok(())
    }

    /// Checks the reserved bits, the opcode, and whether it is allowed now.
    fn check_first(&mut self, first: u8) -> Result<(), CloseCode> {
        debug_assert!(self.left == 0 && self.control.is_none(), "the last frame is complete");
        let is_final = first & FIN != 0;
        let opcode = first & OPCODE;
        let is_known = match opcode {
            CONTINUATION => self.is_in_message,
            TEXT | BINARY => !self.is_in_message,
            CLOSE | PING | PONG => is_final,
            _ => false,
        };
        if first & RESERVED != 0 || !is_known {
            return Err(CloseCode::PROTOCOL);
        }
        if opcode < CLOSE {
            self.is_in_message = !is_final;
        }
        Ok(())
    }

    /// Checks the mask, and the length of a control frame. Text is rejected only here, because a
    /// missing mask is the first error.
    fn check_second(&self, second: u8) -> Result<(), CloseCode> {
        debug_assert_eq!(self.head_bytes, 2, "the second byte is checked");
        let [first, ..] = self.head;
        let is_control = first & OPCODE >= CLOSE;
        let is_masked = second & MASKED != 0;
        let is_too_long = is_control && usize::from(second & LENGTH) > CONTROL_PAYLOAD_BYTES_MAX;
        if is_masked != (self.role == Role::Server) || is_too_long {
            return Err(CloseCode::PROTOCOL);
        }
        if first & OPCODE == TEXT {
            return Err(CloseCode::UNACCEPTABLE);
        }
        Ok(())
    }
}

/// The length of a payload; `None` if a shorter encoding exists.
fn length(short: u8, bytes: &[u8; HEAD_BYTES_MAX - 2]) -> Option<u64> {
    debug_assert!(short <= LENGTH, "seven bits");
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    match short {
        LENGTH_16 => {
            let length = u64::from(u16::from_be_bytes([a, b]));
            (length >= u64::from(LENGTH_16)).then_some(length)
        }
        LENGTH_64 => {
            let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (length > u64::from(u16::MAX)).then_some(length)
        }
        _ => Some(u64::from(short)),
    }
}

/// The code of a Close payload, which may be empty.
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, CloseCode> {
    debug_assert!(payload.len() <= CONTROL_PAYLOAD_BYTES_MAX, "a Close frame is short");
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseCode::PROTOCOL) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(CloseCode::PROTOCOL)?;
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(CloseCode::INVALID_DATA),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
