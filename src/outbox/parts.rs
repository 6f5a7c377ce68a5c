//! Sending a queue without flattening it (zero-copy): its own bytes, and slices of the broadcast
//! buffer from wherever the caller has a copy of it.
//!
//! For a fan-out of 64, sending a slice from shared pages is cheaper than copying it 64 times when
//! it has more than about 10,000 bytes.

use std::io;
use std::ops::Range;

use super::queue::NONE;
use super::{BROADCAST_HEAD_BYTES, Outbox, SPARE_BYTES_MAX};

/// Bytes of slices in one queue above which zero-copy pays off.
const SHARED_BYTES_MIN: usize = 24 * 1024;
/// The same for the average slice, since each costs two system calls.
const PIECE_BYTES_MIN: usize = 12 * 1024;

/// The next part of a queue to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The queue's own bytes, and heads of frames.
    Own(&'a [u8]),
    /// A slice of the broadcast buffer.
    Slice(Range<usize>),
}

impl<'a> Part<'a> {
    /// Bytes of the part.
    pub fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Slice(range) => range.len(),
        }
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its first bytes, at most `bytes_max`.
    #[must_use]
    pub fn first(&self, bytes_max: usize) -> Self {
        let end = bytes_max.min(self.len());
        match self {
            Self::Own(bytes) => Self::Own(bytes.get(..end).unwrap_or_default()),
            Self::Slice(range) => Self::Slice(range.start..range.start + end),
        }
    }

    /// What follows its first `bytes` bytes.
    #[must_use]
    pub fn after(&self, bytes: usize) -> Part<'a> {
        debug_assert!(bytes <= self.len(), "{bytes} of {} bytes were accepted", self.len());
        let start = bytes.min(self.len());
        match self {
            Self::Own(own) => Self::Own(own.get(start..).unwrap_or_default()),
            Self::Slice(range) => Self::Slice(range.start + start..range.end),
        }
    }
}

impl Outbox {
    /// Whether zero-copy pays off for a queue. The queue must have been taken.
    pub fn is_worth_parts(&self, index: u32) -> bool {
        let Some(queue) = self.queues.get(index as usize) else { return false };
        if queue.slice_bytes() < SHARED_BYTES_MIN
            || queue.bytes.len() - queue.sent() > SPARE_BYTES_MAX
        {
            return false;
        }
        let (mut slices, mut bytes) = (0, 0);
        let mut next = queue.first_slice;
        while let Some(slice) = self.slices.get(next as usize) {
            slices += 1;
            bytes += BROADCAST_HEAD_BYTES + slice.range.len();
            next = slice.next;
        }
        debug_assert_eq!(bytes, queue.slice_bytes(), "the bytes of the slices are counted");
        queue.slice_bytes() >= slices * PIECE_BYTES_MIN
    }

    /// Sends a queue in parts; `send` returns how many bytes it accepted. The rest is flattened and
    /// waits. Returns the number of bytes accepted. The queue must have been taken.
    ///
    /// # Errors
    /// Those of `send`, except [`io::ErrorKind::WouldBlock`]; the rest is flattened then, too.
    pub fn send_parts(
        &mut self,
        index: u32,
        send: impl FnMut(Part<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let pending_bytes = self.pending_bytes(index);
        let mut gap = std::mem::take(&mut self.gap);
        let mut sent_bytes = 0;
        let outcome = self.try_parts(index, &mut gap, &mut sent_bytes, send);
        self.gap = gap;
        debug_assert!(sent_bytes <= pending_bytes, "more was sent than waited");
        if matches!(outcome, Ok(true)) {
            debug_assert_eq!(sent_bytes, pending_bytes, "a queue is sent whole");
            self.empty(index);
            return Ok(sent_bytes);
        }
        self.flatten(index);
        self.advance(index, sent_bytes);
        debug_assert_eq!(self.pending_bytes(index), pending_bytes - sent_bytes);
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(sent_bytes),
        }
    }

    /// A flattened copy of a queue, for the simulation. The queue stays as it is.
    #[doc(hidden)]
    pub fn copy_of(&self, index: u32) -> Vec<u8> {
        let (mut all, mut gap, mut count) = (Vec::new(), Vec::new(), 0);
        let copied = self.try_parts(index, &mut gap, &mut count, |part| {
            let bytes = match part {
                Part::Own(bytes) => bytes,
                Part::Slice(range) => self.broadcast.get(range).unwrap_or_default(),
            };
            all.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        debug_assert!(matches!(copied, Ok(true)));
        debug_assert_eq!(all.len(), self.pending_bytes(index), "a copy is whole");
        all
    }

    /// Sends part after part until one is not fully accepted. True when all were.
    fn try_parts(
        &self,
        index: u32,
        gap: &mut Vec<u8>,
        sent_bytes: &mut usize,
        mut send: impl FnMut(Part<'_>) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let Some(queue) = self.queues.get(index as usize) else { return Ok(true) };
        let mut from = queue.sent();
        let mut next = queue.first_slice;
        loop {
            let slice = (next != NONE).then(|| self.slices.get(next as usize)).flatten();
            let upto = slice.map_or(queue.bytes.len(), |slice| slice.at);
            debug_assert!(queue.bytes.get(from..upto).is_some(), "a slice is out of its place");
            gap.clear();
            gap.extend_from_slice(queue.bytes.get(from..upto).unwrap_or_default());
            if let Some(slice) = slice {
                gap.extend_from_slice(&slice.head);
            }
            if !gap.is_empty() {
                let count = send(Part::Own(gap))?;
                debug_assert!(count <= gap.len(), "more was accepted than offered");
                *sent_bytes += count;
                if count < gap.len() {
                    return Ok(false);
                }
            }
            let Some(slice) = slice else { return Ok(true) };
            let mut range = slice.range.clone();
            debug_assert!(range.end <= self.broadcast.len(), "a slice outlives its broadcast");
            while !range.is_empty() {
                let count = send(Part::Slice(range.clone()))?;
                debug_assert!(count <= range.len(), "more was accepted than offered");
                if count == 0 {
                    return Ok(false);
                }
                *sent_bytes += count;
                range.start += count;
            }
            from = upto;
            next = slice.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::wire::purpose::ToClient;

    const PIECE: usize = SHARED_BYTES_MIN;

    /// A queue of own bytes, a slice, more own bytes, another slice, and own bytes.
    fn outbox() -> (Outbox, Vec<u8>) {
        let mut outbox = Outbox::default();
        outbox.begin_turn();
        let broadcast: Vec<u8> = (0..2 * PIECE).map(|place| (place % 251) as u8).collect();
        outbox.broadcast_mut().extend_from_slice(&broadcast);
        outbox.stage(4, |out| out.extend_from_slice(b"first"));
        outbox.stage_broadcast(4, ToClient::MsgNotify, [1; BROADCAST_HEAD_BYTES], 0..PIECE);
        outbox.stage(4, |out| out.extend_from_slice(b"second"));
        outbox.stage_broadcast(4, ToClient::MsgNotify, [2; BROADCAST_HEAD_BYTES], PIECE..2 * PIECE);
        outbox.stage(4, |out| out.extend_from_slice(b"last"));
        outbox.release(&mut Metrics::default());
        let whole = [
            &b"first"[..],
            &[1; BROADCAST_HEAD_BYTES],
            &broadcast[..PIECE],
            b"second",
            &[2; BROADCAST_HEAD_BYTES],
            &broadcast[PIECE..],
            b"last",
        ];
        (outbox, whole.concat())
    }

    /// Sends to a socket that accepts `most` bytes in total, and slices `step` bytes at a time.
    fn taken(most: usize, step: usize) -> (Vec<u8>, Vec<u8>, usize) {
        let (mut outbox, _) = outbox();
        let broadcast = outbox.broadcast().to_vec();
        assert_eq!(outbox.take_dirty().map(|dirty| dirty.index), Some(4));
        assert!(outbox.is_worth_parts(4));
        let mut sent = Vec::new();
        let took = outbox.send_parts(4, |part| {
            let bytes = match &part {
                Part::Own(bytes) => bytes,
                Part::Slice(range) => &broadcast[range.start..range.end.min(range.start + step)],
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
            Part::Slice(_) => Err(io::ErrorKind::BrokenPipe.into()),
        });
        assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        assert_eq!(outbox.sendable(4), &whole[5 + BROADCAST_HEAD_BYTES..]);
        outbox.remove(4);
        assert_eq!(outbox.buffered_bytes(), 0);
    }

    #[test]
    fn small_pieces_are_copied() {
        let mut outbox = Outbox::default();
        outbox.broadcast_mut().extend_from_slice(&[7; 1000]);
        outbox.stage_broadcast(1, ToClient::MsgNotify, [0; BROADCAST_HEAD_BYTES], 0..1000);
        for _ in 0..100 {
            outbox.stage_broadcast(2, ToClient::MsgNotify, [0; BROADCAST_HEAD_BYTES], 0..1000);
        }
        outbox.release(&mut Metrics::default());
        assert!(!outbox.is_worth_parts(1));
        assert!(!outbox.is_worth_parts(2));
        assert!(!outbox.is_worth_parts(3));
    }
}
