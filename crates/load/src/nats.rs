//! The same load in the protocol of NATS, to compare with nats-server: SUB, PUB, PING.
//!
//! `verbose` makes the server acknowledge each of them, as the other servers do; it stores nothing.

use super::conn::{Conn, Kind, Role, Stage};
use super::count::Shared;
use super::resp;

/// Queues the first command of a new connection.
pub(super) fn begin(conn: &mut Conn, shared: &mut Shared) {
    conn.ask(Kind::Hello, 0, shared.now_ns);
    conn.out.extend_from_slice(b"CONNECT {\"verbose\":true,\"pedantic\":false}\r\n");
    if let (Role::Listen, Some(slot)) = (conn.role, conn.slot) {
        conn.ask(Kind::Join, slot, shared.now_ns);
        let line = format!("SUB {} 1\r\n", shared.books[slot].name);
        conn.out.extend_from_slice(line.as_bytes());
    }
}

/// Builds the commands that send to the chats.
pub(super) fn build_templates(shared: &mut Shared) {
    // PING has no text.
    shared.echoes_text = false;
    for book in &mut shared.books {
        let text = shared.payload.text();
        book.template = format!("PUB {} {}\r\n", book.name, text.len()).into_bytes();
        book.text_at = book.template.len();
        book.template.extend_from_slice(text);
        book.template.extend_from_slice(b"\r\n");
        book.chat = 1;
    }
}

/// Sends as many requests as the role and the window allow.
pub(super) fn fill(conn: &mut Conn, shared: &Shared) {
    while conn.waiting.len() < shared.window {
        match conn.role {
            Role::Send => resp::send(conn, shared, shared.now_ns),
            Role::Echo => {
                conn.ask(Kind::Echo, 0, shared.now_ns);
                conn.out.extend_from_slice(b"PING\r\n");
            }
            _ => return,
        }
    }
}

/// A line of the server, with the text of a MSG.
enum Line<'a> {
    Message(&'a [u8]),
    Ok,
    Pong,
    Ping,
    Error(&'a [u8]),
    /// INFO, which is ignored.
    Other,
}

/// Parses the line at the front of `bytes`, with its length; `None` if it is incomplete.
fn line(bytes: &[u8]) -> Option<(Line<'_>, usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    let words = bytes.get(..end)?.trim_ascii_end();
    let used = end + 1;
    Some(match words {
        [b'M', b'S', b'G', b' ', rest @ ..] => {
            let digits = rest.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let length = digits.iter().fold(0, |sum, digit| 10 * sum + usize::from(digit & 15));
            let text = bytes.get(used..used + length)?;
            let used = used + length + 2;
            return (bytes.len() >= used).then_some((Line::Message(text), used));
        }
        b"+OK" => (Line::Ok, used),
        b"PONG" => (Line::Pong, used),
        b"PING" => (Line::Ping, used),
        [b'-', rest @ ..] => (Line::Error(rest), used),
        _ => (Line::Other, used),
    })
}

/// Handles the complete lines at the front of `bytes`. Returns their length.
pub(super) fn handle_bytes(conn: &mut Conn, bytes: &[u8], shared: &mut Shared) -> usize {
    let mut used = 0;
    while let Some((line, length)) = line(&bytes[used..]) {
        used += length;
        match line {
            Line::Message(text) => resp::delivered(conn, text, shared),
            Line::Ok if conn.stage == Stage::Setup => acknowledged(conn, shared),
            Line::Ok | Line::Pong => resp::answered(conn, &[], shared),
            Line::Ping => conn.out.extend_from_slice(b"PONG\r\n"),
            Line::Error(words) => {
                let words = String::from_utf8_lossy(words).into_owned();
                shared.fail(format!("nats says: {words}"));
            }
            Line::Other => {}
        }
    }
    used
}

/// Handles the acknowledgement of CONNECT, or of the SUB after it.
fn acknowledged(conn: &mut Conn, shared: &mut Shared) {
    match conn.waiting.front().map(|pending| pending.kind) {
        Some(Kind::Join) => resp::subscribed(conn, shared),
        _ => {
            conn.waiting.pop_front();
            if conn.waiting.is_empty() {
                conn.stage = Stage::Ready;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_only_when_whole() {
        let bytes = b"MSG load 1 5\r\nhello\r\n+OK\r\n";
        for cut in 0..bytes.len() - 5 {
            assert!(line(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        let Some((Line::Message(text), used)) = line(bytes) else { panic!("a message") };
        assert_eq!((text, used), (&b"hello"[..], bytes.len() - 5));
        assert!(matches!(line(&bytes[used..]), Some((Line::Ok, 5))));
        assert!(matches!(line(b"-ERR 'no'\r\n"), Some((Line::Error(b"ERR 'no'"), 11))));
        assert!(matches!(line(b"INFO {}\r\n"), Some((Line::Other, 9))));
    }
}
