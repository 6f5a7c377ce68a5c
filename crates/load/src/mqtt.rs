//! The same load in MQTT 3.1.1, to compare with mosquitto.
//!
//! SUBSCRIBE at QoS 0, PUBLISH at QoS 1 so that each send is acknowledged, and PINGREQ.

use super::conn::{Conn, Kind, Role, Stage};
use super::count::Shared;
use super::{payload, resp};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xC0;
const PINGRESP: u8 = 0xD0;

/// Queues the first packet of a new connection.
pub(super) fn begin(conn: &mut Conn, shared: &mut Shared) {
    conn.ask(Kind::Hello, 0, shared.now_ns);
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
    put_text(&mut body, format!("load{}", conn.index).as_bytes());
    packet(&mut conn.out, CONNECT, &body);
    if let (Role::Listen, Some(slot)) = (conn.role, conn.slot) {
        conn.ask(Kind::Join, slot, shared.now_ns);
        let mut body = vec![0, 1];
        put_text(&mut body, shared.books[slot].name.as_bytes());
        body.push(0);
        packet(&mut conn.out, SUBSCRIBE, &body);
    }
}

/// Builds the packets that send to the chats.
pub(super) fn build_templates(shared: &mut Shared) {
    // PINGREQ has no body.
    shared.echoes_text = false;
    for book in &mut shared.books {
        let mut body = Vec::new();
        put_text(&mut body, book.name.as_bytes());
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(shared.payload.text());
        book.template.clear();
        packet(&mut book.template, PUBLISH_QOS_1, &body);
        book.text_at = book.template.len() - shared.payload.text().len();
        book.chat = 1;
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn packet(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let mut length = body.len();
    while length > 127 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
}

/// Sends as many requests as the role and the window allow.
pub(super) fn fill(conn: &mut Conn, shared: &Shared) {
    while conn.waiting.len() < shared.window {
        match conn.role {
            Role::Send => send(conn, shared, shared.now_ns),
            Role::Echo => {
                conn.ask(Kind::Echo, 0, shared.now_ns);
                packet(&mut conn.out, PINGREQ, &[]);
            }
            _ => return,
        }
    }
}

/// Queues one message that was due at this time. The packet id is the task byte: never 0, and
/// reused only after 254 others.
pub(super) fn send(conn: &mut Conn, shared: &Shared, at_ns: u64) {
    let slot = conn.slot.unwrap_or(0);
    let Some(book) = shared.books.get(slot) else { return };
    let task = conn.ask(Kind::Send, slot, at_ns);
    let text = conn.out.len() + book.text_at;
    conn.out.extend_from_slice(&book.template);
    conn.out[text - 1] = task;
    payload::stamp(&mut conn.out[text..], at_ns);
}

/// Parses the packet at the front of `bytes`: kind, body, length.
fn parse(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let kind = *bytes.first()?;
    let mut length = 0;
    for (place, &byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let start = place + 2;
            return bytes.get(start..start + length).map(|body| (kind, body, start + length));
        }
    }
    None
}

/// Handles the complete packets at the front of `bytes`. Returns their length.
pub(super) fn handle_bytes(conn: &mut Conn, bytes: &[u8], shared: &mut Shared) -> usize {
    let mut used = 0;
    while let Some((kind, body, length)) = parse(&bytes[used..]) {
        used += length;
        match kind & 0xf0 {
            CONNACK => {
                conn.waiting.pop_front();
                if body != [0, 0] {
                    shared.fail(format!("the broker refused: {body:?}"));
                }
                if conn.waiting.is_empty() {
                    conn.stage = Stage::Ready;
                }
            }
            SUBACK => resp::subscribed(conn, shared),
            PUBLISH => {
                let topic = body.first_chunk().map_or(0, |&bytes| u16::from_be_bytes(bytes));
                let text = body.get(2 + usize::from(topic)..).unwrap_or_default();
                resp::delivered(conn, text, shared);
            }
            PUBACK | PINGRESP => resp::answered(conn, &[], shared),
            _ => {}
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_only_when_whole() {
        let mut bytes = Vec::new();
        packet(&mut bytes, PUBLISH, &[7; 200]);
        assert_eq!(bytes[..3], [PUBLISH, 0x80 | 72, 1]);
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        assert_eq!(parse(&bytes), Some((PUBLISH, &[7; 200][..], 203)));
    }
}
