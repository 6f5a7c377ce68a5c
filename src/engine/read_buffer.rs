//! The read buffer, which all connections share, one after another.
//!
//! A connection stores bytes of its own only if some are left over: the beginning of a frame, or
//! frames that have to wait. Bytes with secrets are wiped as soon as they are handled.

use zeroize::Zeroize as _;

use crate::limits::HEADER_BYTES;
use crate::wire::purpose::ToServer;

/// The buffer, and how many of its bytes are in use.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    used: usize,
    /// The most bytes in use for the present connection: how much to wipe.
    used_max: usize,
    has_secret: bool,
}

impl ReadBuffer {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], used: 0, used_max: 0, has_secret: false }
    }

    /// Begins with the bytes that a connection kept from earlier reads.
    pub(super) fn begin(&mut self, kept: &[u8]) {
        debug_assert_eq!(self.used, 0, "the last connection's bytes were not ended");
        debug_assert!(kept.len() <= self.bytes.len(), "more is kept than was ever read");
        let count = kept.len().min(self.bytes.len());
        if let (Some(place), Some(kept)) = (self.bytes.get_mut(..count), kept.get(..count)) {
            place.copy_from_slice(kept);
        }
        debug_assert!(!self.has_secret && self.used_max == 0, "the last bytes were not wiped");
        self.used = count;
        self.used_max = count;
    }

    /// Lets a protocol layer decode the bytes from `from` on, in place. `layer` returns how many
    /// are left, at the front.
    pub(super) fn unwrap(&mut self, from: usize, layer: impl FnOnce(&mut [u8]) -> usize) {
        debug_assert!(from <= self.used && self.used <= self.bytes.len());
        let left = self.bytes.get_mut(from..self.used).map_or(0, layer);
        debug_assert!(left <= self.used - from, "a layer adds no bytes");
        self.used = self.used.min(from + left);
    }

    /// The part of the buffer for the next read.
    pub(super) fn free(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    /// Notes that `count` bytes were read.
    pub(super) fn fill(&mut self, count: usize) {
        debug_assert!(count <= self.bytes.len() - self.used, "more was read than there is space");
        self.used = self.bytes.len().min(self.used + count);
        self.used_max = self.used;
    }

    /// All bytes of the connection.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Notes that a frame with a secret was handled.
    pub(super) fn note_secret(&mut self) {
        self.has_secret = true;
    }

    /// Ends with a connection: keeps its bytes from `from` on in `kept`. Wipes both if there may
    /// have been a secret in them.
    pub(super) fn end(&mut self, from: usize, kept: &mut Vec<u8>) {
        debug_assert!(from <= self.used, "more was handled than was read");
        let rest = self.bytes.get(from..self.used).unwrap_or_default();
        self.has_secret |= begins_secret(rest);
        if self.has_secret {
            kept.zeroize();
        }
        kept.clear();
        if rest.is_empty() {
            // An idle connection holds no buffer.
            *kept = Vec::new();
        } else {
            // Not more than needed: whole buffers count under the memory limit.
            kept.reserve_exact(rest.len());
            kept.extend_from_slice(rest);
        }
        debug_assert_eq!(kept.len(), self.used.saturating_sub(from), "what is unhandled is kept");
        debug_assert_eq!(kept.is_empty(), kept.capacity() == 0, "an empty inbox holds no buffer");
        self.wipe();
    }

    /// Drops the bytes of a connection that is lost.
    pub(super) fn abandon(&mut self) {
        self.has_secret |= begins_secret(self.bytes());
        self.wipe();
    }

    fn wipe(&mut self) {
        debug_assert!(self.used <= self.used_max && self.used_max <= self.bytes.len());
        self.used = 0;
        let used_max = std::mem::take(&mut self.used_max);
        if std::mem::take(&mut self.has_secret)
            && let Some(used) = self.bytes.get_mut(..used_max)
        {
            used.zeroize();
        }
    }
}

/// Whether there is a frame with a secret among these, or the beginning of one.
fn begins_secret(mut frames: &[u8]) -> bool {
    while let Some((header, rest)) = frames.split_first_chunk::<HEADER_BYTES>() {
        let [a, b, c, d, purpose, _] = *header;
        if ToServer::from_byte(purpose).is_some_and(ToServer::has_secret) {
            return true;
        }
        frames = rest.get(u32::from_le_bytes([a, b, c, d]) as usize..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::Request;

    #[test]
    fn the_beginning_of_a_password_is_seen_behind_other_frames() {
        let mut frames = Vec::new();
        Request::Hello { major: 1, minor: 0 }.write(&mut frames, 1);
        Request::Heartbeat { echo: b"hi" }.write(&mut frames, 2);
        assert!(!begins_secret(&frames));
        let begins = frames.len();
        Request::Login { login: "anna", password: "correct horse" }.write(&mut frames, 3);
        for end in begins..=frames.len() {
            assert_eq!(begins_secret(&frames[..end]), end >= begins + HEADER_BYTES);
        }
    }

    #[test]
    fn what_is_left_is_kept_and_a_secret_is_wiped() {
        let mut buffer = ReadBuffer::new(100);
        buffer.begin(b"");
        buffer.free()[..3].copy_from_slice(b"abc");
        buffer.fill(3);
        let mut kept = Vec::new();
        buffer.end(1, &mut kept);
        assert_eq!(kept, b"bc");
        buffer.begin(&kept);
        assert_eq!(buffer.bytes(), b"bc");
        buffer.note_secret();
        buffer.end(2, &mut kept);
        assert_eq!(kept.capacity(), 0);
        assert_eq!(buffer.bytes[..3], *b"\0\0c");
    }
}
