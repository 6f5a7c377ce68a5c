//! WebSocket frames: a stream cut anywhere is the same Purpose bytes as the whole, what a sender
//! writes is what a decoder reads, and a broken rule ends the stream for good.

use vestnik::wire::websocket::{
    ClientFrame, CloseCode, Control, Decoder, Event, Role, Sender, StreamEnd, put_masked,
};

use super::input::Input;

/// What a stream gave.
#[derive(PartialEq, Debug, Default)]
struct Got {
    payload: Vec<u8>,
    pings: Vec<Vec<u8>>,
    end: Option<StreamEnd>,
}

/// `data`: what to do, how to cut, and the stream.
pub fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => decode(&mut input, Role::Server),
        1 => decode(&mut input, Role::Client),
        _ => send(&mut input),
    }
}

fn decode(input: &mut Input<'_>, role: Role) {
    let is_framed = input.below(2) == 1;
    let cuts = input.bytes(8);
    // Random bytes seldom have the mask bit; these frames are nearly right.
    let stream = if is_framed { frames(input) } else { input.rest().to_vec() };
    let whole = read(role, &[&stream]);
    assert_eq!(read(role, &super::frames::cut(&stream, cuts)), whole, "cut otherwise");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(role, &bytes), whole, "byte by byte");
    assert!(whole.payload.len() <= stream.len());
    step(role, stream, &whole);
}

/// The same stream by single steps, which give the same.
fn step(role: Role, mut stream: Vec<u8>, whole: &Got) {
    let (mut decoder, mut used, mut got) = (Decoder::new(role), 0, Got::default());
    while used < stream.len() {
        let rest = &mut stream[used..];
        let (count, event) = decoder.next(rest);
        assert!(count > 0 && count <= rest.len(), "it makes no progress");
        match event {
            Event::Incomplete => assert_eq!(count, rest.len()),
            Event::Payload(place) => got.payload.extend_from_slice(&rest[place]),
            Event::Ping(payload) => got.pings.push(payload.bytes().to_vec()),
            Event::Pong => {}
            Event::Closed(code) => got.end = Some(StreamEnd::Closed(code)),
            Event::Failed(code) => got.end = Some(StreamEnd::Failed(code)),
        }
        used += count;
    }
    assert_eq!(got, *whole, "step by step");
}

fn frames(input: &mut Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() {
        let first = input.pick(&[0x82, 0x82, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88, 0x81, 0x83, 0xc2]);
        let length = usize::from(input.u8()) << input.below(4);
        let mask = input.u64().to_le_bytes();
        let mut payload = input.bytes(length.min(8)).to_vec();
        payload.resize(length, mask[5]);
        let start = stream.len();
        put_masked(
            &mut stream,
            ClientFrame::Binary,
            [mask[0], mask[1], mask[2], mask[3]],
            &payload,
        );
        stream[start] = first;
    }
    stream
}

fn read(role: Role, pieces: &[&[u8]]) -> Got {
    let (mut decoder, mut got) = (Decoder::new(role), Got::default());
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let was_over = decoder.is_over();
        let note = |ping: &Control| got.pings.push(ping.bytes().to_vec());
        let unwrapped = decoder.unwrap(&mut bytes, note);
        assert!(unwrapped.payload_bytes <= bytes.len());
        assert_eq!(decoder.is_over(), was_over || unwrapped.end.is_some());
        assert!(!was_over || unwrapped.payload_bytes == 0 && unwrapped.end.is_none());
        got.payload.extend_from_slice(&bytes[..unwrapped.payload_bytes]);
        got.end = got.end.or(unwrapped.end);
    }
    got
}

/// A server sends while Pings come and its transport accepts what it likes.
fn send(input: &mut Input<'_>) {
    let (mut sender, mut out) = (Sender::new(), Vec::new());
    let (mut stream, mut sent) = (Vec::new(), 0);
    let mut pings = 0;
    while !input.is_empty() {
        match input.below(4) {
            0 => {
                let count = usize::from(input.u8()) << input.below(10);
                let start = stream.len();
                stream.extend((start..start + count).map(|at| at as u8));
            }
            1 => {
                sender.pong(&vec![1; input.below(126)]);
                pings += 1;
            }
            2 => write(&mut sender, &stream, &mut sent, &mut out, usize::from(input.u8())),
            _ => write(&mut sender, &stream, &mut sent, &mut out, usize::MAX),
        }
    }
    sender.close(Some(CloseCode::NORMAL));
    while sender.wants_write() || sent < stream.len() {
        write(&mut sender, &stream, &mut sent, &mut out, usize::MAX);
    }
    assert!(sender.is_closed());
    let mut decoder = Decoder::new(Role::Client);
    assert!(out.len() <= stream.len() + 4 * (stream.len() + 1) + pings * 127 + 4);
    let unwrapped = decoder.unwrap(&mut out, |_| panic!("a Ping that nobody sent"));
    assert_eq!(unwrapped.end, Some(StreamEnd::Closed(Some(CloseCode::NORMAL))));
    assert!(out[..unwrapped.payload_bytes] == stream, "other bytes");
}

fn write(sender: &mut Sender, stream: &[u8], sent: &mut usize, out: &mut Vec<u8>, most: usize) {
    let chunk = sender.chunk(stream.len() - *sent);
    let mut bytes = chunk.head.to_vec();
    bytes.extend_from_slice(&stream[*sent..*sent + chunk.body_bytes]);
    bytes.truncate(most);
    *sent += sender.sent(bytes.len());
    out.extend_from_slice(&bytes);
}
