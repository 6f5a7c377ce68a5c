//! One write of a queue in parts (zero-copy), with the heads of WebSocket messages between them.

use std::io;

use crate::outbox::Outbox;
use crate::outbox::parts::Part;
use crate::wire::websocket::Sender;

/// The queue of one connection, to be sent without flattening it; see [`super::Io::write_shared`].
pub struct SharedWrite<'a> {
    outbox: &'a mut Outbox,
    index: u32,
    /// Writes the heads of messages; `None`: the stream has none.
    framing: Option<&'a mut Sender>,
    /// Bytes of heads that the stream accepted.
    head_bytes: usize,
}

impl<'a> SharedWrite<'a> {
    pub(super) const fn new(
        outbox: &'a mut Outbox,
        index: u32,
        framing: Option<&'a mut Sender>,
    ) -> Self {
        Self { outbox, index, framing, head_bytes: 0 }
    }

    /// The turn's broadcast buffer, which the slices are ranges of.
    pub fn broadcast(&self) -> &[u8] {
        self.outbox.broadcast()
    }

    /// Bytes of slices in the queue.
    pub fn slice_bytes(&self) -> usize {
        self.outbox.slice_bytes(self.index)
    }

    /// Sends the queue; `write` returns how many bytes of a part the stream accepted. What is not
    /// accepted is flattened and waits. Returns the bytes of the queue that were accepted, heads
    /// not included.
    ///
    /// # Errors
    /// Those of `write`, except [`io::ErrorKind::WouldBlock`].
    pub fn send(
        &mut self,
        mut write: impl FnMut(Part<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Self { outbox, index, framing, head_bytes } = self;
        let Some(sender) = framing else { return outbox.send_parts(*index, write) };
        let mut waiting = outbox.pending_bytes(*index);
        let sent = outbox.send_parts(*index, |part| {
            send_framed(sender, &mut waiting, head_bytes, part, &mut write)
        });
        debug_assert!(
            sent.is_err() || waiting == outbox.pending_bytes(*index),
            "both count the same bytes"
        );
        sent
    }

    /// Bytes of heads that the stream accepted.
    pub(super) const fn head_bytes(&self) -> usize {
        self.head_bytes
    }
}

/// Sends one part, and before it and within it the heads of the messages that its bytes belong to.
/// Returns the accepted bytes of the part.
fn send_framed(
    sender: &mut Sender,
    waiting: &mut usize,
    head_bytes: &mut usize,
    mut part: Part<'_>,
    write: &mut impl FnMut(Part<'_>) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut accepted_bytes = 0;
    let part_bytes = part.len();
    debug_assert!(part_bytes <= *waiting, "a part is among the bytes that wait");
    while !part.is_empty() {
        let chunk = sender.chunk(*waiting);
        let (is_head, length) = match chunk.head.len() {
            0 => (false, chunk.body_bytes.min(part.len())),
            length => (true, length),
        };
        debug_assert!(length > 0, "nothing follows a Close frame");
        let next = if is_head { Part::Own(chunk.head) } else { part.first(length) };
        let count = match write(next) {
            // The parts before this one are accepted all the same.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            result => result?,
        };
        debug_assert!(count <= length, "more was accepted than offered");
        sender.sent(count);
        if is_head {
            *head_bytes += count;
        } else {
            *waiting -= count;
            accepted_bytes += count;
            part = part.after(count);
        }
        if count < length {
            break;
        }
    }
    debug_assert_eq!(accepted_bytes + part.len(), part_bytes, "each byte is accepted, or waits");
    Ok(accepted_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_stand_before_each_message_wherever_a_write_is_cut() {
        let bytes: Vec<u8> = (0..150_000_u32).map(|place| (place % 251) as u8).collect();
        for most in [1, 2, 3, 100, 65_535, 65_539, 100_000, 200_000] {
            let (mut sender, mut waiting, mut head_bytes) = (Sender::new(), bytes.len(), 0);
            sender.pong(b"ping");
            let mut sent = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                let mut room = most;
                let end = bytes.len().min(at + 70_000);
                let part = Part::Own(&bytes[at..end]);
                let write = &mut |part: Part<'_>| {
                    let Part::Own(bytes) = part else { panic!("own bytes only") };
                    if room == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let count = bytes.len().min(room);
                    room -= count;
                    sent.extend_from_slice(&bytes[..count]);
                    Ok(count)
                };
                let accepted = send_framed(&mut sender, &mut waiting, &mut head_bytes, part, write);
                at += accepted.expect("WouldBlock is no error");
            }
            let mut expected = b"\x8a\x04ping".to_vec();
            for message in bytes.chunks(65_535) {
                expected.extend_from_slice(&[0x82, 126]);
                expected.extend_from_slice(&(message.len() as u16).to_be_bytes());
                expected.extend_from_slice(message);
            }
            assert!(sent == expected, "{most} bytes at a time");
            assert_eq!((waiting, head_bytes), (0, 6 + 3 * 4));
        }
    }
}
