//! The frame parser: bytes that come cut anywhere are the same frames as the whole.

use vestnik::wire::frame::{self, Parsed};

use super::input::Input;

/// A frame: purpose, task, body.
type Owned = (u8, u8, Vec<u8>);

/// How a stream of frames ends.
#[derive(PartialEq, Debug)]
enum End {
    /// With this many bytes of an unfinished frame.
    Rest(usize),
    /// With a frame that is too large, and its task.
    TooLarge(u8),
}

/// `data`: the longest body, how to cut, and the stream.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let body_bytes_max = input.pick(&[0, 1, 16, 255, 1024, 64 * 1024]);
    let cuts = input.bytes(8);
    let stream = input.rest();
    let whole = read(&[stream], body_bytes_max);
    assert_eq!(read(&cut(stream, cuts), body_bytes_max), whole, "cut otherwise");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&bytes, body_bytes_max), whole, "byte by byte");

    // What was parsed is what is written.
    let mut written = Vec::new();
    for (purpose, task, body) in &whole.0 {
        frame::write(&mut written, *purpose, *task, |out| out.extend_from_slice(body));
        assert!(body.len() <= body_bytes_max);
    }
    assert_eq!(written, stream[..written.len()]);
    match whole.1 {
        End::Rest(bytes) => {
            assert_eq!(written.len() + bytes, stream.len());
            assert!(bytes < body_bytes_max + 6);
        }
        End::TooLarge(task) => assert_eq!(stream[written.len() + 5], task),
    }
}

pub(super) fn cut<'a>(mut stream: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if stream.is_empty() || sizes.iter().all(|&size| size == 0) {
            break;
        }
        let (piece, rest) = stream.split_at(usize::from(size).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}

/// Reads as the loop does: what came is appended to what was left over, whole frames are taken.
fn read(pieces: &[&[u8]], body_bytes_max: usize) -> (Vec<Owned>, End) {
    let (mut inbox, mut frames) = (Vec::new(), Vec::new());
    for piece in pieces {
        inbox.extend_from_slice(piece);
        let mut used = 0;
        loop {
            match frame::parse(&inbox[used..], body_bytes_max) {
                Parsed::Incomplete => break,
                Parsed::TooLarge { task } => return (frames, End::TooLarge(task)),
                Parsed::Frame(frame) => {
                    used += frame.bytes();
                    frames.push((frame.purpose, frame.task, frame.body.to_vec()));
                }
            }
        }
        inbox.drain(..used);
    }
    (frames, End::Rest(inbox.len()))
}
