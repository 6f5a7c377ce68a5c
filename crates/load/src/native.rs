//! The load in Purpose: the requests of each role, and the handling of answers.
//!
//! Parses in place and allocates nothing per message.

use super::conn::{Conn, Kind, Pending, Role, Stage};
use super::count::Shared;
use super::payload::{self, Payload};
use super::{history, setup};
use purpose::ids::{ChatId, ServerTime, SessionId};
use purpose::limits::{HEADER_BYTES, LEGACY_PACK_BYTES_MAX};
use purpose::wire::Version;
use purpose::wire::codec::{MESSAGE_OVERHEAD_BYTES, Reader};
use purpose::wire::frame::{self, Frame, Parsed};
use purpose::wire::purpose::{ToClient, ToServer};
use purpose::wire::request::Request;

/// Longest body of any answer, in bytes.
const BODY_BYTES_MAX: usize = 2 * LEGACY_PACK_BYTES_MAX;

/// Bytes of a message before its content.
const MESSAGE_HEAD_BYTES: usize = MESSAGE_OVERHEAD_BYTES - 1;

/// The parts of a message that the load needs.
pub(super) struct Entry<'a> {
    pub(super) id: u64,
    pub(super) updated: u64,
    pub(super) text: &'a [u8],
    /// A text of this run, undamaged.
    pub(super) is_intact: bool,
    /// Looks like a text of this run, but is damaged.
    pub(super) is_damaged: bool,
}

/// A pack of messages. Texts of this run are skipped by length, without a search for the NUL.
pub(super) struct Pack<'a> {
    rest: &'a [u8],
}

impl<'a> Pack<'a> {
    pub(super) fn new(pack: &'a [u8]) -> Self {
        Self { rest: pack }
    }

    /// Whether it was parsed to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next message; `None` at the end, or where the pack is malformed.
    pub(super) fn next(&mut self, payload: &Payload) -> Option<Entry<'a>> {
        let (head, tail) = self.rest.split_first_chunk::<MESSAGE_HEAD_BYTES>()?;
        let expected = payload.text().len();
        let mut length = expected;
        let mut is_intact = tail.get(expected) == Some(&0) && payload.is_intact(&tail[..expected]);
        if !is_intact {
            length = tail.iter().position(|&byte| byte == 0)?;
            is_intact = false;
        }
        let text = &tail[..length];
        self.rest = &tail[length + 1..];
        let mut fields = Reader::new(head);
        let id = fields.u64().ok()?;
        let _sender = fields.u32().ok()?;
        let _created = fields.u64().ok()?;
        let updated = fields.u64().ok()?;
        let is_damaged = !is_intact && length == expected && payload::is_stamped(text);
        Some(Entry { id, updated, text, is_intact, is_damaged })
    }
}

/// Sends as many requests as the role and the window allow.
pub(super) fn fill(conn: &mut Conn, version: Version, shared: &mut Shared) {
    match conn.role {
        Role::Listen | Role::Timed => {}
        Role::Send => {
            while conn.waiting.len() < shared.window {
                send(conn, version, shared, shared.now_ns);
            }
        }
        Role::Echo => {
            while conn.waiting.len() < shared.window {
                let task = conn.ask(Kind::Echo, 0, shared.now_ns);
                let start = conn.out.len() + HEADER_BYTES;
                Request::Heartbeat { echo: shared.echo() }.write(&mut conn.out, task);
                payload::stamp(&mut conn.out[start..], shared.now_ns);
            }
        }
        Role::History => {
            if conn.waiting.is_empty() {
                history::ask(conn, version, conn.slot.unwrap_or(0), shared);
            }
        }
        Role::Login => {
            // Only one pair: the server reads nothing after a LOGIN before the password is checked.
            while conn.waiting.len() < 2 {
                ask(conn, Kind::Logoff, &Request::Logoff, shared);
                setup::login(conn, shared);
            }
        }
        Role::Restore(place) => restore(conn, place, shared),
        Role::Ephemeral => {
            while conn.waiting.len() < shared.window {
                ephemeral(conn, version, shared);
            }
        }
    }
}

/// Queues a request that is timed from now.
pub(super) fn ask(conn: &mut Conn, kind: Kind, request: &Request<'_>, shared: &Shared) {
    let task = conn.ask(kind, conn.slot.unwrap_or(0), shared.now_ns);
    request.write(&mut conn.out, task);
}

/// Queues one message that was due at this time: a stamped copy of the chat's template.
pub(super) fn send(conn: &mut Conn, version: Version, shared: &Shared, at_ns: u64) {
    let slot = conn.slot.unwrap_or(0);
    let Some(book) = shared.books.get(slot) else { return };
    let start = conn.out.len();
    let task = conn.ask(Kind::Send, slot, at_ns);
    conn.out.extend_from_slice(&book.template);
    let frame = &mut conn.out[start..];
    frame[HEADER_BYTES - 1] = task;
    payload::stamp(&mut frame[book.text_at..], at_ns);
    if shared.nonces && version == Version::V1_0 {
        // Time, connection and task make every send of a run unique.
        let nonce = at_ns << 20 ^ (conn.index as u64) << 8 ^ u64::from(task);
        conn.out.extend_from_slice(&nonce.to_le_bytes());
        let bytes = conn.out.len() - start - HEADER_BYTES;
        let header = frame::header(bytes, ToServer::SendChatMsg.byte(), task);
        conn.out[start..start + HEADER_BYTES].copy_from_slice(&header);
    }
}

fn restore(conn: &mut Conn, place: usize, shared: &Shared) {
    if conn.authorized || !conn.waiting.is_empty() {
        return;
    }
    if let Some(Some((id, hash))) = shared.sessions.get(place)
        && let Some(session) = SessionId::new(*id)
    {
        ask(conn, Kind::Restore, &Request::RestoreSession { session, hash }, shared);
    }
}

fn ephemeral(conn: &mut Conn, version: Version, shared: &Shared) {
    let Some(chat) = ChatId::new(conn.tally.chat) else { return };
    let time = ServerTime::new(conn.tally.last as i64).unwrap_or_default();
    let request = match version {
        Version::V1_0 | Version::V1_1 if conn.waiting.len() % 2 == 1 => Request::Typing { chat },
        _ => Request::MarkSeen { chat, time },
    };
    ask(conn, Kind::Other, &request, shared);
}

/// Handles the complete frames at the front of `bytes`. Returns their length.
pub(super) fn handle_bytes(
    conn: &mut Conn,
    version: Version,
    bytes: &[u8],
    shared: &mut Shared,
) -> usize {
    let mut used = 0;
    loop {
        match frame::parse(&bytes[used..], BODY_BYTES_MAX) {
            Parsed::Incomplete => return used,
            Parsed::TooLarge { .. } => {
                conn.close(shared, "it sent a frame longer than any answer");
                return bytes.len();
            }
            Parsed::Frame(frame) => {
                used += frame.bytes();
                take(conn, version, &frame, shared);
            }
        }
        if conn.stage == Stage::Closed {
            return bytes.len();
        }
    }
}

fn take(conn: &mut Conn, version: Version, frame: &Frame<'_>, shared: &mut Shared) {
    match ToClient::from_byte(frame.purpose) {
        Some(ToClient::MsgNotify) => notified(conn, frame.body, shared),
        Some(ToClient::Accepted) => {
            if let Some(pending) = conn.answered(frame.task, shared) {
                accepted(conn, version, pending, frame.body, shared);
            }
        }
        Some(ToClient::Part) => {
            if let Some(&pending) = conn.waiting.front() {
                history::piece(conn, pending.kind, frame.body, false, shared);
            }
        }
        Some(ToClient::Declined) => {
            if let Some(pending) = conn.answered(frame.task, shared) {
                let reason = Reader::new(frame.body).str().unwrap_or("?");
                declined(conn, version, pending, reason, shared);
            }
        }
        Some(ToClient::Heartbeat) => {
            frame::write(&mut conn.out, ToServer::Accepted.byte(), frame.task, |body| {
                body.extend_from_slice(frame.body);
            });
        }
        Some(ToClient::Disconnect) => conn.close(shared, "the server said DISCONNECT"),
        Some(ToClient::Deauth) => {
            conn.authorized = false;
            if !matches!(conn.role, Role::Restore(_)) {
                let index = conn.index;
                shared.faults.note(|| format!("connection {index} got DEAUTH"));
            }
        }
        // Ephemeral events are expected, and not counted.
        Some(_) | None => {}
    }
}

/// Adds the messages of a notification to the tally.
fn notified(conn: &mut Conn, body: &[u8], shared: &mut Shared) {
    let Some((chat, pack)) = body.split_first_chunk::<4>() else { return };
    let mut tally = conn.tally;
    let is_mine = tally.chat == u32::from_le_bytes(*chat);
    let mut pack = Pack::new(pack);
    while let Some(entry) = pack.next(&shared.payload) {
        shared.delivered(entry.text);
        if !is_mine {
            continue;
        }
        if entry.id <= tally.last || !entry.is_intact {
            let index = conn.index;
            shared.faults.note(|| {
                format!("connection {index}: message {} is damaged or out of order", entry.id)
            });
        }
        tally.last = entry.id;
        tally.count += 1;
        tally.sum = tally.sum.wrapping_add(entry.id);
        shared.arrived += u64::from(tally.checked);
    }
    conn.tally = tally;
    if !pack.is_whole() {
        let index = conn.index;
        shared.faults.note(|| format!("connection {index}: a notification does not parse"));
    }
}

fn accepted(conn: &mut Conn, version: Version, pending: Pending, body: &[u8], shared: &mut Shared) {
    if conn.stage != Stage::Ready {
        return setup::accepted(conn, version, pending, body, shared);
    }
    shared.answered(pending.at_ns);
    match pending.kind {
        Kind::Send => {
            let id = Reader::new(body).u64().unwrap_or(0);
            shared.accepted(pending.slot.into(), id);
            conn.tally.own_count += 1;
            conn.tally.own_sum = conn.tally.own_sum.wrapping_add(id);
        }
        Kind::Echo => {
            shared.total.echoes += 1;
            shared.check_echo(conn.index, body);
        }
        Kind::Page | Kind::Range => {
            shared.total.others += 1;
            history::piece(conn, pending.kind, body, false, shared);
            history::ended(conn, pending.kind, shared);
        }
        Kind::Login => {
            conn.authorized = true;
            shared.total.logins += 1;
        }
        Kind::Restore => {
            conn.authorized = true;
            shared.total.restores += 1;
        }
        Kind::Logoff | Kind::Other => shared.total.others += 1,
        Kind::Hello | Kind::ChatId | Kind::CreateChat | Kind::Join => {}
    }
}

fn declined(
    conn: &mut Conn,
    version: Version,
    pending: Pending,
    reason: &str,
    shared: &mut Shared,
) {
    if conn.stage != Stage::Ready {
        return setup::declined(conn, version, pending, reason, shared);
    }
    // A user's typing and markers are limited to 20 per second; the declines count as answers.
    if pending.kind == Kind::Other && reason.starts_with("rate-limited:") {
        shared.total.others += 1;
        return;
    }
    let index = conn.index;
    shared.faults.note(|| format!("connection {index}: {:?} was declined: {reason}", pending.kind));
}
