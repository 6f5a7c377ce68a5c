//! Frames: parsing them in a buffer, and appending them to one.
//!
//! ```text
//!   0           4         5      6                    6 + body_length
//!   +-----------+---------+------+--------------------+
//!   | body len  | purpose | task | body               |
//!   | u32 LE    | u8      | u8   |                    |
//!   +-----------+---------+------+--------------------+
//! ```
//!
//! Parsing works in place on any part of the stream: one call per frame, no copy, no state.

use crate::limits::HEADER_BYTES;
use crate::wire::codec::Put;

/// A complete frame, borrowed from its buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The purpose byte.
    pub purpose: u8,
    /// The task byte, which ties an answer to its request.
    pub task: u8,
    /// The body.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole frame, header included.
    #[inline]
    pub const fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// The result of parsing the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// An incomplete frame, or no bytes: wait for more.
    Incomplete,
    /// A complete frame.
    Frame(Frame<'a>),
    /// A frame with a body over the limit; known from the header alone.
    TooLarge {
        /// The task byte to answer.
        task: u8,
    },
}

/// Parses the front of `bytes`.
#[inline]
pub fn parse(bytes: &[u8], body_bytes_max: usize) -> Parsed<'_> {
    let Some((&[a, b, c, d, purpose, task], rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
    else {
        return Parsed::Incomplete;
    };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > body_bytes_max {
        return Parsed::TooLarge { task };
    }
    match rest.get(..length) {
        Some(body) => Parsed::Frame(Frame { purpose, task, body }),
        None => Parsed::Incomplete,
    }
}

/// Appends a frame; `write` appends its body, and the length is filled in afterwards.
#[inline]
pub fn write(out: &mut Vec<u8>, purpose: u8, task: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_bytes(&[0, 0, 0, 0, purpose, task]);
    write(out);
    debug_assert!(out.len() >= start + HEADER_BYTES, "a body only appends");
    debug_assert!(out.len() - start - HEADER_BYTES <= u32::MAX as usize);
    let length = (out.len() - start - HEADER_BYTES) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    debug_assert_eq!(
        out.get(start..).map(|frame| parse(frame, length as usize)),
        out.get(start + HEADER_BYTES..).map(|body| Parsed::Frame(Frame { purpose, task, body })),
        "the header and its body read back"
    );
}

/// The header of a frame with a body of `body_bytes`.
#[inline]
pub fn header(body_bytes: usize, purpose: u8, task: u8) -> [u8; HEADER_BYTES] {
    debug_assert!(body_bytes <= u32::MAX as usize, "the length has 32 bits");
    let [a, b, c, d] = (body_bytes as u32).to_le_bytes();
    [a, b, c, d, purpose, task]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_only_when_it_is_whole() {
        let mut bytes = Vec::new();
        write(&mut bytes, 0x28, 3, |body| body.put_str("hi"));
        assert_eq!(bytes, [3, 0, 0, 0, 0x28, 3, b'h', b'i', 0]);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], 100), Parsed::Incomplete, "at {cut}");
        }
        bytes.push(0xff);
        let frame = Frame { purpose: 0x28, task: 3, body: b"hi\0" };
        assert_eq!(parse(&bytes, 100), Parsed::Frame(frame));
        assert_eq!(frame.bytes(), 9);
    }

    #[test]
    fn a_body_over_the_limit_is_known_from_the_header() {
        assert_eq!(parse(&[5, 0, 0, 0, 0x28, 9], 4), Parsed::TooLarge { task: 9 });
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff, 0, 1], 4), Parsed::TooLarge { task: 1 });
        assert_eq!(parse(&[4, 0, 0, 0, 0x28, 9], 4), Parsed::Incomplete);
    }
}
