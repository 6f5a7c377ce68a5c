//! Sending a queue without putting it together: its own bytes, and the pieces of the block from
//! wherever the caller has them.
//!
//! A piece that goes to sixty-three others costs less to be sent from pages that all of them share
//! than to be copied sixty-three times, from some ten thousand bytes on.

use std::io;
use std::ops::Range;

use super::{NONE, Outbox, SPARE_BYTES_MAX};

/// Bytes of the block in one queue above which it is worth it.
const SHARED_BYTES_MIN: usize = 24 * 1024;
/// The same for one piece on the average: each takes two calls of the system.
const PIECE_BYTES_MIN: usize = 12 * 1024;

/// What is to be sent next of a queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Bytes of the queue's own, and beginnings of frames.
    Own(&'a [u8]),
    /// A piece of the block.
    Block(Range<usize>),
}

impl Outbox {
    /// Whether a queue that was just taken had better be sent in parts.
    pub fn is_worth_parts(&self, index: u32) -> bool {
        let Some(queue) = self.queues.get(index as usize) else { return false };
        if queue.referred_bytes() < SHARED_BYTES_MIN
            || queue.bytes.len() - queue.sent() > SPARE_BYTES_MAX
        {
            return false;
        }
        let mut pieces = 0;
        let mut next = queue.first_reference;
        while let Some(reference) = self.references.get(next as usize) {
            pieces += 1;
            next = reference.next;
        }
        queue.referred_bytes() >= pieces * PIECE_BYTES_MIN
    }

    /// Sends a queue that was just taken part by part; `send` says how many bytes it took. What it
    /// does not take is assembled, and waits. Returns what was taken.
    ///
    /// # Errors
    /// Those of `send` but for [`io::ErrorKind::WouldBlock`]; the queue is assembled then, too.
    pub fn send_parts(
        &mut self,
        index: u32,
        send: impl FnMut(Part<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut between = std::mem::take(&mut self.between);
        let mut sent_bytes = 0;
        let outcome = self.try_parts(index, &mut between, &mut sent_bytes, send);
        self.between = between;
        if matches!(outcome, Ok(true)) {
            self.empty(index);
            return Ok(sent_bytes);
        }
        self.flatten(index);
        self.advance(index, sent_bytes);
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(sent_bytes),
        }
    }

    /// All that waits for a connection, as it will be sent, and without putting it together: for
    /// the simulation, which looks at it before.
    #[doc(hidden)]
    pub fn copy_of(&self, index: u32) -> Vec<u8> {
        let (mut all, mut between, mut count) = (Vec::new(), Vec::new(), 0);
        let copied = self.try_parts(index, &mut between, &mut count, |part| {
            let bytes = match part {
                Part::Own(bytes) => bytes,
                Part::Block(piece) => self.block.get(piece).unwrap_or_default(),
            };
            all.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        debug_assert!(matches!(copied, Ok(true)));
        all
    }

    /// Goes through the parts of a queue until one is not taken. True when all were.
    fn try_parts(
        &self,
        index: u32,
        between: &mut Vec<u8>,
        sent_bytes: &mut usize,
        mut send: impl FnMut(Part<'_>) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let Some(queue) = self.queues.get(index as usize) else { return Ok(true) };
        let mut from = queue.sent();
        let mut next = queue.first_reference;
        loop {
            let reference = (next != NONE).then(|| self.references.get(next as usize)).flatten();
            let upto = reference.map_or(queue.bytes.len(), |reference| reference.at);
            between.clear();
            between.extend_from_slice(queue.bytes.get(from..upto).unwrap_or_default());
            if let Some(reference) = reference {
                between.extend_from_slice(&reference.head);
            }
            if !between.is_empty() {
                let count = send(Part::Own(between))?;
                *sent_bytes += count;
                if count < between.len() {
                    return Ok(false);
                }
            }
            let Some(reference) = reference else { return Ok(true) };
            let mut piece = reference.piece.clone();
            while !piece.is_empty() {
                let count = send(Part::Block(piece.clone()))?;
                if count == 0 {
                    return Ok(false);
                }
                *sent_bytes += count;
                piece.start += count;
            }
            from = upto;
            next = reference.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BLOCK_HEAD_BYTES;
    use super::*;
    use crate::metrics::Metrics;
    use crate::wire::purpose::ToClient;

    const PIECE: usize = SHARED_BYTES_MIN;

    /// A queue of some own bytes, a piece, more of its own, and another piece.
    fn outbox() -> (Outbox, Vec<u8>) {
        let mut outbox = Outbox::default();
        outbox.begin_turn();
        let block: Vec<u8> = (0..2 * PIECE).map(|place| (place % 251) as u8).collect();
        outbox.block_mut().extend_from_slice(&block);
        outbox.stage(4, |out| out.extend_from_slice(b"first"));
        outbox.stage_block(4, ToClient::MsgNotify, [1; BLOCK_HEAD_BYTES], 0..PIECE);
        outbox.stage(4, |out| out.extend_from_slice(b"second"));
        outbox.stage_block(4, ToClient::MsgNotify, [2; BLOCK_HEAD_BYTES], PIECE..2 * PIECE);
        outbox.stage(4, |out| out.extend_from_slice(b"last"));
        outbox.release(&mut Metrics::default());
        let whole = [
            &b"first"[..],
            &[1; BLOCK_HEAD_BYTES],
            &block[..PIECE],
            b"second",
            &[2; BLOCK_HEAD_BYTES],
            &block[PIECE..],
            b"last",
        ];
        (outbox, whole.concat())
    }

    /// What comes out when the socket takes `most` bytes in all, and pieces `step` by `step`.
    fn taken(most: usize, step: usize) -> (Vec<u8>, Vec<u8>, usize) {
        let (mut outbox, _) = outbox();
        let block = outbox.block().to_vec();
        assert_eq!(outbox.take_dirty().map(|dirty| dirty.index), Some(4));
        assert!(outbox.is_worth_parts(4));
        let mut sent = Vec::new();
        let took = outbox.send_parts(4, |part| {
            let bytes = match &part {
                Part::Own(bytes) => bytes,
                Part::Block(piece) => &block[piece.start..piece.end.min(piece.start + step)],
            };
            let bytes = &bytes[..bytes.len().min(most - sent.len())];
            if bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            sent.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        assert_eq!(took.ok(), Some(sent.len()));
        assert_eq!(outbox.take_dirty(), None);
        outbox.begin_turn();
        assert_eq!(outbox.buffered_bytes(), outbox.pending_bytes(4));
        (sent, outbox.sendable(4).to_vec(), outbox.buffered_bytes())
    }

    #[test]
    fn what_is_not_taken_waits_whole_wherever_it_was_cut() {
        let (_, whole) = outbox();
        let places = [0, 3, 5, 9, 15, 16, PIECE, PIECE + 15, PIECE + 17, PIECE + 31, PIECE + 40];
        for most in places.into_iter().chain([whole.len() - 2, whole.len()]) {
            for step in [1000, PIECE] {
                let (sent, rest, buffered_bytes) = taken(most, step);
                assert_eq!(sent, whole[..most]);
                assert_eq!(rest, whole[most..]);
                assert_eq!(buffered_bytes, whole.len() - most);
            }
        }
    }

    #[test]
    fn a_failed_send_loses_nothing_of_the_account() {
        let (mut outbox, whole) = outbox();
        outbox.take_dirty();
        let failed = outbox.send_parts(4, |part| match part {
            Part::Own(bytes) => Ok(bytes.len()),
            Part::Block(_) => Err(io::ErrorKind::BrokenPipe.into()),
        });
        assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        assert_eq!(outbox.sendable(4), &whole[5 + BLOCK_HEAD_BYTES..]);
        outbox.remove(4);
        assert_eq!(outbox.buffered_bytes(), 0);
    }

    #[test]
    fn small_pieces_are_copied() {
        let mut outbox = Outbox::default();
        outbox.block_mut().extend_from_slice(&[7; 1000]);
        outbox.stage_block(1, ToClient::MsgNotify, [0; BLOCK_HEAD_BYTES], 0..1000);
        for _ in 0..100 {
            outbox.stage_block(2, ToClient::MsgNotify, [0; BLOCK_HEAD_BYTES], 0..1000);
        }
        outbox.release(&mut Metrics::default());
        assert!(!outbox.is_worth_parts(1));
        assert!(!outbox.is_worth_parts(2));
        assert!(!outbox.is_worth_parts(3));
    }
}
