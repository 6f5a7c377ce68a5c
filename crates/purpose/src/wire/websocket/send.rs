//! Sending: heads before the bytes of the outbox, and control frames between messages.

use super::{BINARY, CLOSE, CONTROL_PAYLOAD_BYTES_MAX, CloseCode, FIN, LENGTH_16, PONG};
use crate::limits::{WEBSOCKET_CONTROL_BYTES_MAX, WEBSOCKET_MESSAGE_BYTES_MAX};

/// Longest head, and longest Close frame, that a server sends, in bytes.
const HEAD_BYTES: usize = 4;

/// What to write next: the head, then this many bytes of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// Bytes of the WebSocket layer.
    pub head: &'a [u8],
    /// Bytes of the stream that follow the head.
    pub body_bytes: usize,
}

/// The progress of closing this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    Open,
    /// Close is sent after everything that waits.
    Asked(Option<CloseCode>),
    /// Close is being sent, or was.
    Begun,
}

/// Encodes a server's side of a connection: complete messages, unmasked.
///
/// [`Sender::chunk`] returns what to write; report to [`Sender::sent`] how much the transport
/// accepted. The length of a message is sent first, so its bytes must stay in the outbox until they
/// are sent.
#[derive(Debug)]
pub struct Sender {
    /// Complete Pong frames, to be sent between messages.
    control: Vec<u8>,
    /// How much of the first of them is sent.
    control_sent: u16,
    /// Payload bytes of the present message not sent yet.
    left: u16,
    head: [u8; HEAD_BYTES],
    head_sent: u8,
    head_bytes: u8,
    closing: Closing,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    /// For a connection to which nothing was sent yet.
    pub const fn new() -> Self {
        Self {
            control: Vec::new(),
            control_sent: 0,
            left: 0,
            head: [0; HEAD_BYTES],
            head_sent: 0,
            head_bytes: 0,
            closing: Closing::Open,
        }
    }

    /// Queues a Pong. Above a limit, the newest replaces the others, as RFC 6455 allows.
    pub fn pong(&mut self, payload: &[u8]) {
        debug_assert!(payload.len() <= CONTROL_PAYLOAD_BYTES_MAX, "a Ping was longer");
        if self.closing != Closing::Open {
            return;
        }
        if self.control.len() + 2 + payload.len() > WEBSOCKET_CONTROL_BYTES_MAX {
            // A frame that is partly sent must be completed.
            let kept = if self.control_sent > 0 { self.first_frame_bytes() } else { 0 };
            self.control.truncate(kept);
        }
        self.control.extend_from_slice(&[FIN | PONG, payload.len() as u8]);
        self.control.extend_from_slice(payload);
        debug_assert!(self.control.len() <= WEBSOCKET_CONTROL_BYTES_MAX);
    }

    /// Bytes of the first control frame.
    fn first_frame_bytes(&self) -> usize {
        debug_assert!(
            self.control.first().is_none_or(|&first| first == FIN | PONG),
            "the queue begins with the head of a frame"
        );
        2 + self.control.get(1).map_or(0, |&length| usize::from(length))
    }

    /// Closes this side after everything that waits is sent. Later calls do not change the code.
    pub fn close(&mut self, code: Option<CloseCode>) {
        if self.closing == Closing::Open {
            self.closing = Closing::Asked(code);
        }
    }

    /// Whether the Close frame was sent completely.
    pub fn is_closed(&self) -> bool {
        self.closing == Closing::Begun && self.head_sent == self.head_bytes
    }

    /// Whether there is something to write even if the outbox is empty.
    pub fn wants_write(&self) -> bool {
        self.head_sent < self.head_bytes
            || !self.control.is_empty()
            || matches!(self.closing, Closing::Asked(_))
    }

    /// The next bytes to write, given the `waiting` bytes of the stream. Both parts are empty if
    /// there is nothing.
    pub fn chunk(&mut self, waiting: usize) -> Chunk<'_> {
        if self.is_between_frames() {
            if !self.control.is_empty() {
                let head = self.control.get(usize::from(self.control_sent)..).unwrap_or_default();
                return Chunk { head, body_bytes: 0 };
            }
            self.begin_frame(waiting);
        }
        debug_assert!(waiting >= usize::from(self.left), "what was promised is gone");
        debug_assert!(self.closing != Closing::Begun || self.left == 0, "nothing follows a Close");
        let head = self.head.get(usize::from(self.head_sent)..usize::from(self.head_bytes));
        Chunk { head: head.unwrap_or_default(), body_bytes: usize::from(self.left) }
    }

    /// Notes that the transport accepted `count` bytes of the last chunk. Returns how many of them
    /// belong to the stream.
    pub fn sent(&mut self, count: usize) -> usize {
        if self.is_between_frames() {
            self.note_control_sent(count);
            return 0;
        }
        debug_assert!(self.head_sent <= self.head_bytes, "more of the head was sent than it has");
        let of_head = count.min(usize::from(self.head_bytes - self.head_sent));
        self.head_sent += of_head as u8;
        debug_assert!(count - of_head <= usize::from(self.left), "more was sent than offered");
        let of_body = (count - of_head).min(usize::from(self.left));
        self.left -= of_body as u16;
        debug_assert!(of_body == 0 || self.head_sent == self.head_bytes, "the head is sent first");
        of_body
    }

    /// Drops the control frames that are sent completely, so the queue stays within its limit
    /// however slowly the transport accepts it.
    fn note_control_sent(&mut self, count: usize) {
        let mut sent = usize::from(self.control_sent) + count;
        debug_assert!(sent <= self.control.len(), "more was sent than offered");
        while sent > 0 && sent >= self.first_frame_bytes() {
            let frame_bytes = self.first_frame_bytes().min(self.control.len());
            self.control.drain(..frame_bytes);
            sent = sent.saturating_sub(frame_bytes);
        }
        debug_assert!(sent == 0 || sent < self.first_frame_bytes(), "a part of the first frame");
        debug_assert!(sent <= self.control.len(), "a frame that is partly sent is still there");
        self.control_sent = sent as u16;
        if self.control.is_empty() {
            // An idle connection holds no buffer.
            self.control = Vec::new();
        }
    }

    const fn is_between_frames(&self) -> bool {
        self.head_sent == self.head_bytes && self.left == 0
    }

    fn begin_frame(&mut self, waiting: usize) {
        debug_assert!(self.is_between_frames() && self.control.is_empty());
        match self.closing {
            Closing::Begun => return,
            _ if waiting > 0 => {
                let length = waiting.min(WEBSOCKET_MESSAGE_BYTES_MAX) as u16;
                self.left = length;
                let [high, low] = length.to_be_bytes();
                let is_short = length < u16::from(LENGTH_16);
                self.head_bytes = if is_short { 2 } else { 4 };
                self.head = [FIN | BINARY, if is_short { low } else { LENGTH_16 }, high, low];
            }
            Closing::Open => return,
            Closing::Asked(code) => {
                let [high, low] = code.map_or(0, CloseCode::number).to_be_bytes();
                self.head_bytes = if code.is_some() { 4 } else { 2 };
                self.head = [FIN | CLOSE, self.head_bytes - 2, high, low];
                self.closing = Closing::Begun;
                debug_assert_eq!(self.left, 0, "a Close follows everything that waits");
            }
        }
        self.head_sent = 0;
        debug_assert!(usize::from(self.head_bytes) <= HEAD_BYTES && !self.is_between_frames());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Event, Role, StreamEnd};
    use super::*;

    /// Writes all that waits, `most` bytes at a time.
    fn drain(sender: &mut Sender, stream: &[u8], most: usize) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        loop {
            let chunk = sender.chunk(stream.len() - at);
            let mut bytes = chunk.head.to_vec();
            bytes.extend_from_slice(&stream[at..at + chunk.body_bytes]);
            if bytes.is_empty() {
                return out;
            }
            bytes.truncate(most);
            at += sender.sent(bytes.len());
            out.extend_from_slice(&bytes);
        }
    }

    #[test]
    fn what_waits_is_one_message() {
        let mut sender = Sender::new();
        assert_eq!(drain(&mut sender, b"hello", usize::MAX), b"\x82\x05hello");
        assert_eq!(drain(&mut sender, &[7; 126], usize::MAX)[..5], [0x82, 126, 0, 126, 7]);
        assert!(!sender.wants_write());
        let long = vec![1; WEBSOCKET_MESSAGE_BYTES_MAX + 1];
        let out = drain(&mut sender, &long, usize::MAX);
        assert_eq!(out.len(), long.len() + 4 + 2, "two messages");
    }

    #[test]
    fn a_message_cut_anywhere_is_the_same_bytes() {
        let stream: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = drain(&mut Sender::new(), &stream, usize::MAX);
        for most in [1, 2, 3, 5, 7, 100, 1003] {
            assert_eq!(drain(&mut Sender::new(), &stream, most), whole);
        }
    }

    #[test]
    fn pongs_go_out_between_messages() {
        let mut sender = Sender::new();
        let chunk = sender.chunk(3);
        assert_eq!((chunk.head, chunk.body_bytes), (&b"\x82\x03"[..], 3));
        assert_eq!(sender.sent(3), 1);
        sender.pong(b"life");
        assert_eq!(sender.chunk(10).body_bytes, 2, "the message first, and no more than it said");
        assert_eq!(sender.sent(2), 2);
        assert_eq!(sender.chunk(8).head, b"\x8a\x04life");
        assert_eq!(sender.sent(2), 0);
        assert_eq!(sender.chunk(8).head, b"life");
        assert_eq!(sender.sent(4), 0);
        assert_eq!(sender.chunk(8).body_bytes, 8);
    }

    #[test]
    fn pongs_are_bounded_and_stay_whole() {
        let mut sender = Sender::new();
        let payload = [9; CONTROL_PAYLOAD_BYTES_MAX];
        for _ in 0..10 {
            sender.pong(&payload);
        }
        sender.chunk(0);
        sender.sent(1);
        for _ in 0..1000 {
            sender.pong(&payload);
            assert!(sender.control.len() <= WEBSOCKET_CONTROL_BYTES_MAX);
        }
        sender.pong(b"newest");
        let mut out = vec![FIN | PONG];
        out.extend(drain(&mut sender, b"", 100));
        let mut decoder = Decoder::new(Role::Client);
        let mut at = 0;
        while at < out.len() {
            let (used, event) = decoder.next(&mut out[at..]);
            assert_eq!(event, Event::Pong);
            at += used;
        }
        assert!(out.ends_with(b"newest"));
        assert!(!sender.wants_write());
    }

    /// A transport that never takes all of them: what is sent does not count.
    #[test]
    fn pongs_that_are_taken_slowly_stay_bounded() {
        let mut sender = Sender::new();
        let payload = [9; CONTROL_PAYLOAD_BYTES_MAX];
        for round in 0..5_000 {
            sender.pong(&payload);
            sender.pong(&payload);
            let waiting = sender.chunk(0).head.len();
            sender.sent((1 + round % 200).min(waiting - 1));
            assert!(sender.control.len() <= WEBSOCKET_CONTROL_BYTES_MAX);
            assert!(usize::from(sender.control_sent) < 2 + payload.len());
        }
    }

    #[test]
    fn a_close_follows_what_waits_and_is_the_last() {
        for (code, bytes) in [
            (Some(CloseCode::NORMAL), &b"\x88\x02\x03\xe8"[..]),
            (Some(CloseCode::PROTOCOL), b"\x88\x02\x03\xea"),
            (None, b"\x88\x00"),
        ] {
            let mut sender = Sender::new();
            sender.pong(b"");
            sender.close(code);
            sender.close(Some(CloseCode::UNACCEPTABLE));
            sender.pong(b"too late");
            assert!(sender.wants_write() && !sender.is_closed());
            let mut out = drain(&mut sender, b"bye", 2);
            assert_eq!(out, [b"\x8a\x00\x82\x03bye", bytes].concat());
            assert!(sender.is_closed() && !sender.wants_write());
            assert_eq!(sender.chunk(5).body_bytes, 0, "nothing follows a Close");
            let mut decoder = Decoder::new(Role::Client);
            let unwrapped = decoder.unwrap(&mut out, |_| panic!("no Ping"));
            assert_eq!(unwrapped.end, Some(StreamEnd::Closed(code)));
            assert_eq!(&out[..unwrapped.payload_bytes], b"bye");
        }
    }
}
