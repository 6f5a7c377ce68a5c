//! The same load in RESP, to compare with Redis: SUBSCRIBE and PUBLISH, XADD, PING.
//!
//! A stream entry is acknowledged by its id, as a message is.

use super::conn::{Conn, Kind, Role, Stage};
use super::count::{Shared, Tally};
use super::payload;

/// Queues the first command of a new connection.
pub(super) fn begin(conn: &mut Conn, shared: &mut Shared) {
    match (conn.role, conn.slot) {
        (Role::Listen, Some(slot)) => {
            conn.ask(Kind::Join, slot, shared.now_ns);
            command(&mut conn.out, &[b"SUBSCRIBE", shared.books[slot].name.as_bytes()]);
        }
        // The answer shows that the server has accepted the connection.
        (Role::Listen, None) => {
            conn.ask(Kind::Hello, 0, shared.now_ns);
            command(&mut conn.out, &[b"PING"]);
        }
        _ => conn.stage = Stage::Ready,
    }
}

/// Builds the commands that send to the chats: PUBLISH, or XADD if messages are to be durable.
pub(super) fn build_templates(is_durable: bool, shared: &mut Shared) {
    for book in &mut shared.books {
        let (name, text) = (book.name.as_bytes(), shared.payload.text());
        book.template.clear();
        if is_durable {
            command(&mut book.template, &[b"XADD", name, b"*", b"m", text]);
        } else {
            command(&mut book.template, &[b"PUBLISH", name, text]);
        }
        book.text_at = book.template.len() - text.len() - 2;
        // Redis has no ids for channels; their indices are used.
        book.chat = 1;
    }
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Sends as many requests as the role and the window allow.
pub(super) fn fill(conn: &mut Conn, shared: &Shared) {
    while conn.waiting.len() < shared.window {
        match conn.role {
            Role::Send => send(conn, shared, shared.now_ns),
            Role::Echo => {
                conn.ask(Kind::Echo, 0, shared.now_ns);
                if shared.echoes_text {
                    command(&mut conn.out, &[b"PING", shared.echo()]);
                    let start = conn.out.len() - shared.echo().len() - 2;
                    payload::stamp(&mut conn.out[start..], shared.now_ns);
                } else {
                    command(&mut conn.out, &[b"PING"]);
                }
            }
            _ => return,
        }
    }
}

/// Queues one message that was due at this time.
pub(super) fn send(conn: &mut Conn, shared: &Shared, at_ns: u64) {
    let slot = conn.slot.unwrap_or(0);
    let Some(book) = shared.books.get(slot) else { return };
    conn.ask(Kind::Send, slot, at_ns);
    let start = conn.out.len() + book.text_at;
    conn.out.extend_from_slice(&book.template);
    payload::stamp(&mut conn.out[start..], at_ns);
}

/// The parts of a reply that the load needs.
enum Reply<'a> {
    Line(&'a [u8]),
    Error(&'a [u8]),
    Bulk(&'a [u8]),
    /// The last item of an array.
    Array(&'a [u8]),
}

/// Parses the reply at the front of `bytes`, with its length; `None` if it is incomplete.
fn reply(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = bytes.get(1..end - 1)?;
    let number = || line.iter().fold(0_usize, |sum, digit| 10 * sum + usize::from(digit & 15));
    match bytes[0] {
        b'$' => {
            let text = bytes.get(end + 1..end + 1 + number())?;
            let used = end + 1 + text.len() + 2;
            (bytes.len() >= used).then_some((Reply::Bulk(text), used))
        }
        b'*' => {
            let mut used = end + 1;
            let mut last: &[u8] = &[];
            for _ in 0..number() {
                let (part, length) = reply(&bytes[used..])?;
                used += length;
                if let Reply::Bulk(text) = part {
                    last = text;
                }
            }
            Some((Reply::Array(last), used))
        }
        b'-' => Some((Reply::Error(line), end + 1)),
        _ => Some((Reply::Line(line), end + 1)),
    }
}

/// Handles the complete replies at the front of `bytes`. Returns their length.
pub(super) fn handle_bytes(conn: &mut Conn, bytes: &[u8], shared: &mut Shared) -> usize {
    let mut used = 0;
    while let Some((reply, length)) = reply(&bytes[used..]) {
        used += length;
        match reply {
            Reply::Array(_) if conn.stage == Stage::Setup => subscribed(conn, shared),
            Reply::Array(text) => delivered(conn, text, shared),
            Reply::Error(words) => {
                let words = String::from_utf8_lossy(words).into_owned();
                shared.fail(format!("redis says: {words}"));
            }
            Reply::Line(text) | Reply::Bulk(text) => answered(conn, text, shared),
        }
    }
    used
}

/// The connection is subscribed: count its messages from now on.
pub(super) fn subscribed(conn: &mut Conn, shared: &mut Shared) {
    conn.waiting.pop_front();
    conn.stage = Stage::Ready;
    conn.tally = Tally { chat: 1, checked: true, ..Tally::default() };
    if let Some(book) = conn.slot.and_then(|slot| shared.books.get_mut(slot)) {
        book.members += 1;
    }
}

/// Handles a message; its time stands for the id that Redis does not have.
pub(super) fn delivered(conn: &mut Conn, text: &[u8], shared: &mut Shared) {
    if !shared.payload.is_intact(text) {
        let index = conn.index;
        shared.faults.note(|| format!("connection {index}: a message is damaged"));
    }
    shared.delivered(text);
    shared.arrived += 1;
    conn.tally.count += 1;
    conn.tally.sum = conn.tally.sum.wrapping_add(payload::time_ns(text));
}

/// Handles the answer to the oldest request.
pub(super) fn answered(conn: &mut Conn, text: &[u8], shared: &mut Shared) {
    let Some(pending) = conn.waiting.pop_front() else { return };
    shared.answered(pending.at_ns);
    match pending.kind {
        Kind::Send => shared.accepted(pending.slot.into(), pending.at_ns),
        Kind::Echo => {
            shared.total.echoes += 1;
            if shared.echoes_text {
                shared.check_echo(conn.index, text);
            }
        }
        Kind::Hello => conn.stage = Stage::Ready,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found_only_when_whole() {
        let bytes = b"*3\r\n$7\r\nmessage\r\n$4\r\nload\r\n$5\r\nhello\r\n:7\r\n";
        for cut in 0..bytes.len() - 4 {
            assert!(reply(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        let Some((Reply::Array(text), used)) = reply(bytes) else { panic!("an array") };
        assert_eq!((text, used), (&b"hello"[..], bytes.len() - 4));
        assert!(matches!(reply(&bytes[used..]), Some((Reply::Line(b"7"), 4))));
        assert!(matches!(reply(b"-ERR no\r\n"), Some((Reply::Error(b"ERR no"), 9))));
    }
}
