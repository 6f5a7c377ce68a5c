//! The rules of RFC 6455, in the order of Autobahn's cases, each cut anywhere.

use super::super::{ClientFrame, put_masked};
use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The decoded content of a stream.
#[derive(PartialEq, Debug, Default)]
struct Got {
    payload: Vec<u8>,
    pings: Vec<Vec<u8>>,
    end: Option<StreamEnd>,
}

fn read(stream: &[u8], cuts: impl Iterator<Item = usize>) -> Got {
    let mut decoder = Decoder::new(Role::Server);
    let mut got = Got::default();
    let mut rest = stream;
    for cut in cuts {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        rest = after;
        let mut piece = piece.to_vec();
        let unwrapped = decoder.unwrap(&mut piece, |ping| got.pings.push(ping.bytes().to_vec()));
        got.payload.extend_from_slice(&piece[..unwrapped.payload_bytes]);
        got.end = got.end.or(unwrapped.end);
    }
    got
}

/// Decodes a stream in one piece and cut anywhere; the results must be equal.
#[track_caller]
fn check(stream: &[u8]) -> Got {
    let whole = read(stream, std::iter::once(usize::MAX));
    let step = 1 + stream.len() / 500;
    for cut in (0..stream.len()).step_by(step) {
        assert_eq!(read(stream, [cut, usize::MAX].into_iter()), whole, "cut at {cut}");
    }
    if stream.len() < 20_000 {
        assert_eq!(read(stream, std::iter::repeat(1)), whole, "byte by byte");
    }
    whole
}

/// A frame with this first byte, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_masked(&mut bytes, ClientFrame::Binary, MASK, payload);
    bytes[0] = first;
    bytes
}

fn frames(all: &[(u8, &[u8])]) -> Vec<u8> {
    all.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
}

#[track_caller]
fn failed(stream: &[u8], code: CloseCode) -> Got {
    let got = check(stream);
    assert_eq!(got.end, Some(StreamEnd::Failed(code)), "{stream:02x?}");
    got
}

#[track_caller]
fn closed(payload: &[u8]) -> Option<StreamEnd> {
    check(&frame(0x88, payload)).end
}

#[test]
fn case_1_messages_of_every_length() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let got = check(&frame(0x82, &payload));
        assert_eq!(got, Got { payload, ..Got::default() });
        // 1.1: text.
        if length < 200 {
            failed(&frame(0x81, &vec![b'a'; length]), CloseCode::UNACCEPTABLE);
        }
    }
    let long = vec![3; 1_000_000];
    let stream = frame(0x82, &long);
    assert_eq!(read(&stream, std::iter::repeat(997)).payload, long);
}

#[test]
fn case_2_pings_and_pongs() {
    let all: Vec<u8> = (0..125).collect();
    for payload in [&b""[..], b"Hello", &[0, 0xff, 0xfe], &all] {
        let got = check(&frame(0x89, payload));
        assert_eq!((got.pings, got.end), (vec![payload.to_vec()], None));
        assert_eq!(check(&frame(0x8a, payload)), Got::default(), "an unasked Pong");
    }
    // 2.5: one byte too long.
    failed(&frame(0x89, &[0; 126]), CloseCode::PROTOCOL);
    failed(&frame(0x8a, &[0; 126]), CloseCode::PROTOCOL);
    // 2.10: many at once, each answered.
    let many: Vec<_> = (0..10u8).map(|n| [n]).collect();
    let stream: Vec<u8> = many.iter().flat_map(|payload| frame(0x89, payload)).collect();
    let pings = check(&stream).pings;
    assert_eq!(pings, many.iter().map(|payload| payload.to_vec()).collect::<Vec<_>>());
}

#[test]
fn case_3_reserved_bits() {
    for bits in 1..8u8 {
        for opcode in [0x82, 0x81, 0x88, 0x89, 0x8a, 0x02] {
            let stream = [frame(0x82, b"before"), frame(opcode | bits << 4, b"")].concat();
            assert_eq!(failed(&stream, CloseCode::PROTOCOL).payload, b"before");
        }
    }
}

#[test]
fn case_4_reserved_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"payload"] {
            failed(&frame(0x80 | opcode, payload), CloseCode::PROTOCOL);
            failed(&frame(opcode, payload), CloseCode::PROTOCOL);
        }
    }
}

#[test]
fn case_5_fragments() {
    // 5.1, 5.2: control frames are never fragments.
    for opcode in [0x08, 0x09, 0x0a] {
        failed(&frames(&[(opcode, b"a"), (0x80, b"b")]), CloseCode::PROTOCOL);
    }
    // 5.3 to 5.8: a message of two, three, many fragments, with Pings between them.
    let got = check(&frames(&[(0x02, b"one"), (0x80, b"two")]));
    assert_eq!(got.payload, b"onetwo");
    let stream = frames(&[(0x02, b"1"), (0x89, b"p"), (0x00, b"2"), (0x89, b"q"), (0x80, b"3")]);
    let got = check(&stream);
    assert_eq!(got.payload, b"123");
    assert_eq!(got.pings, [b"p", b"q"]);
    assert_eq!(got.end, None);
    // 5.9 to 5.14: a continuation of nothing.
    for first in [0x00, 0x80] {
        failed(&frames(&[(first, b"x"), (0x82, b"y")]), CloseCode::PROTOCOL);
        let stream = frames(&[(0x82, b"done"), (first, b"x")]);
        assert_eq!(failed(&stream, CloseCode::PROTOCOL).payload, b"done");
    }
    // 5.15: after a fragmented message.
    failed(&frames(&[(0x02, b"1"), (0x80, b"2"), (0x00, b"3")]), CloseCode::PROTOCOL);
    // 5.18: a new message within one; text within a message is as wrong.
    for first in [0x82, 0x02, 0x81, 0x01] {
        let got = failed(&frames(&[(0x02, b"1"), (first, b"2")]), CloseCode::PROTOCOL);
        assert_eq!(got.payload, b"1");
    }
    // 5.19, 5.20: empty fragments are no end.
    let stream = frames(&[(0x02, b""), (0x00, b""), (0x00, b"x"), (0x80, b""), (0x82, b"y")]);
    assert_eq!(check(&stream), Got { payload: b"xy".to_vec(), ..Got::default() });
}

#[test]
fn case_7_closing() {
    let code = |code| Some(StreamEnd::Closed(CloseCode::new(code)));
    // 7.1: nothing behind a Close is read, be it data, a Ping or a second Close.
    let stream = frames(&[(0x82, b"in"), (0x88, b"\x03\xe8"), (0x82, b"out"), (0x89, b"p")]);
    let got = check(&stream);
    assert_eq!(got, Got { payload: b"in".to_vec(), pings: vec![], end: code(1000) });
    let stream = frames(&[(0x02, b"half"), (0x88, b""), (0x80, b"out")]);
    assert_eq!(check(&stream).payload, b"half");
    // 7.3: payloads of every length.
    assert_eq!(closed(b""), Some(StreamEnd::Closed(None)));
    assert_eq!(closed(b"\x03"), Some(StreamEnd::Failed(CloseCode::PROTOCOL)));
    assert_eq!(closed(b"\x03\xe8"), code(1000));
    assert_eq!(closed(b"\x03\xe8Hello"), code(1000));
    let longest = [&b"\x03\xe8"[..], &[b'a'; 123]].concat();
    assert_eq!(closed(&longest), code(1000));
    failed(&frame(0x88, &[longest, vec![b'a']].concat()), CloseCode::PROTOCOL);
    // 7.5: a reason that is no UTF-8.
    let wrong = b"\x03\xe8\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited";
    assert_eq!(closed(wrong), Some(StreamEnd::Failed(CloseCode::INVALID_DATA)));
    // 7.7, 7.9, 7.13: codes.
    for number in 0..=5001u16 {
        let expected = match CloseCode::new(number) {
            Some(_) => code(number),
            None => Some(StreamEnd::Failed(CloseCode::PROTOCOL)),
        };
        let got = read(&frame(0x88, &number.to_be_bytes()), std::iter::once(usize::MAX));
        assert_eq!(got.end, expected, "{number}");
    }
}

#[test]
fn a_client_masks_and_a_server_does_not() {
    for first in [0x82, 0x81, 0x88, 0x89, 0x8a] {
        failed(&[first, 0], CloseCode::PROTOCOL);
        let mut decoder = Decoder::new(Role::Client);
        let mut masked = frame(first, b"");
        let (_, event) = decoder.next(&mut masked);
        assert_eq!(event, Event::Failed(CloseCode::PROTOCOL));
    }
    let mut decoder = Decoder::new(Role::Client);
    let mut bytes = *b"\x82\x05hello";
    assert_eq!(decoder.next(&mut bytes), (7, Event::Payload(2..7)));
    assert_eq!(bytes[2..], *b"hello");
    let (used, event) = Decoder::new(Role::Client).next(&mut [0x81, 0]);
    assert_eq!((used, event), (2, Event::Failed(CloseCode::UNACCEPTABLE)));
}

#[test]
fn a_length_has_its_shortest_form_and_no_top_bit() {
    let long = |first: u8, length: &[u8]| [&[0x82, 0x80 | first][..], length, &MASK].concat();
    for length in [0u16, 1, 125] {
        failed(&long(126, &length.to_be_bytes()), CloseCode::PROTOCOL);
    }
    for length in [0u64, 125, 126, 65_535, 1 << 63, u64::MAX] {
        failed(&long(127, &length.to_be_bytes()), CloseCode::PROTOCOL);
    }
    // A huge announced length reserves no memory; its bytes are passed on as they arrive.
    let mut stream = long(127, &(u64::MAX >> 1).to_be_bytes());
    stream.extend_from_slice(&[b'h' ^ MASK[0], b'i' ^ MASK[1]]);
    assert_eq!(check(&stream), Got { payload: b"hi".to_vec(), ..Got::default() });
}

#[test]
fn a_stream_that_is_over_says_nothing_more() {
    let mut decoder = Decoder::new(Role::Server);
    let mut bytes = frame(0x83, b"");
    decoder.unwrap(&mut bytes, |_| {});
    assert!(decoder.is_over());
    let mut bytes = frames(&[(0x82, b"late"), (0x89, b"late")]);
    let unwrapped = decoder.unwrap(&mut bytes, |_| panic!("a Ping"));
    assert_eq!(unwrapped, Unwrapped { payload_bytes: 0, end: None });
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<Decoder>() <= 56, "{}", size_of::<Decoder>());
    assert!(size_of::<super::super::Sender>() <= 48);
}
