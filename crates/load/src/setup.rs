//! Setup of a connection: HELLO and LOGIN in one write, then JOIN_CHAT, which proves membership.
//!
//! The first connection asks for the ids of the chats, for all of them.

use super::conn::{Conn, Kind, Pending, Role, Stage};
use super::count::{Shared, Tally};
use super::{history, native};
use purpose::client::Declined;
use purpose::ids::ChatId;
use purpose::limits::HEADER_BYTES;
use purpose::wire::Version;
use purpose::wire::codec::Reader;
use purpose::wire::extras::Extras;
use purpose::wire::request::Request;

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Sends the first frames of a new connection. The second of two that share a session sends only
/// HELLO.
pub(super) fn begin(conn: &mut Conn, version: Version, shared: &Shared) {
    let (major, minor) = version.numbers();
    native::ask(conn, Kind::Hello, &Request::Hello { major, minor }, shared);
    if logs_in(conn) {
        login(conn, shared);
    }
}

/// Whether this connection logs in itself.
fn logs_in(conn: &Conn) -> bool {
    !matches!(conn.role, Role::Restore(_)) || conn.index.is_multiple_of(2)
}

/// Queues the LOGIN of the connection's user.
pub(super) fn login(conn: &mut Conn, shared: &Shared) {
    let login = format!("{}{}", shared.user_prefix, conn.user);
    let request = Request::Login { login: &login, password: &shared.password };
    native::ask(conn, Kind::Login, &request, shared);
}

/// Handles an ACCEPTED during setup.
pub(super) fn accepted(
    conn: &mut Conn,
    version: Version,
    pending: Pending,
    body: &[u8],
    shared: &mut Shared,
) {
    let mut body = Reader::new(body);
    match pending.kind {
        Kind::Login => {
            conn.authorized = true;
            if let (Role::Restore(place), Ok(id), Ok(hash)) = (conn.role, body.u32(), body.str()) {
                shared.sessions[place] = Some((id, hash.to_owned()));
            }
            chat(conn, shared);
        }
        Kind::ChatId | Kind::CreateChat => {
            let Ok(chat) = body.chat_id() else {
                return shared.fail("an id of a chat does not parse".to_owned());
            };
            set_template(pending.slot.into(), chat, shared);
            self::chat(conn, shared);
        }
        Kind::Join => joined(conn, version, shared),
        Kind::Range => {
            history::piece(conn, pending.kind, body.take_rest(), true, shared);
            history::learned(conn, pending.slot.into(), shared);
        }
        _ => {}
    }
    if conn.waiting.is_empty() && conn.stage == Stage::Setup {
        conn.stage = Stage::Ready;
    }
}

/// Requests what the connection still lacks: the ids of all chats if it is the first one, then its
/// own membership.
fn chat(conn: &mut Conn, shared: &Shared) {
    let unknown = shared.books.iter().position(|book| book.chat == 0);
    if let Some(slot) = unknown {
        let task = conn.ask(Kind::ChatId, slot, shared.now_ns);
        return Request::GetChatId { name: &shared.books[slot].name }.write(&mut conn.out, task);
    }
    let book = conn.slot.and_then(|slot| shared.books.get(slot));
    if let Some(chat) = book.and_then(|book| ChatId::new(book.chat)) {
        native::ask(conn, Kind::Join, &Request::JoinChat { chat, password: None }, shared);
    }
}

/// Stores the id of a chat, and builds the template of a send to it.
fn set_template(slot: usize, chat: ChatId, shared: &mut Shared) {
    let content = std::str::from_utf8(shared.payload.text()).unwrap_or_default();
    let mut template = Vec::new();
    Request::SendChatMsg { chat, content, nonce: None, extras: Extras::NONE }
        .write(&mut template, 0);
    if let Some(book) = shared.books.get_mut(slot) {
        book.chat = chat.get();
        book.template = template;
        book.text_at = HEADER_BYTES + size_of::<u32>();
    }
}

/// The connection is a member: its tally counts from now on.
fn joined(conn: &mut Conn, version: Version, shared: &mut Shared) {
    let Some(slot) = conn.slot else { return };
    let Some(book) = shared.books.get_mut(slot) else { return };
    let checked = conn.role != Role::Login;
    book.members += u64::from(checked);
    conn.tally = Tally { chat: book.chat, checked, ..Tally::default() };
    if version == Version::V0_1 && conn.role == Role::History && shared.history.begin() {
        history::learn(conn, slot, None, shared);
    }
}

/// Handles a DECLINED during setup.
pub(super) fn declined(
    conn: &mut Conn,
    version: Version,
    pending: Pending,
    reason: &str,
    shared: &mut Shared,
) {
    let declined = Declined::new(reason);
    match (pending.kind, declined.code()) {
        (Kind::Login, "rate-limited") => {
            let seconds = declined.number().unwrap_or(1).max(1) as u64;
            conn.stage = Stage::Retry(shared.now_ns + seconds * SECOND_NS);
        }
        (Kind::Join, "already-member") => {
            joined(conn, version, shared);
            if conn.waiting.is_empty() {
                conn.stage = Stage::Ready;
            }
        }
        (Kind::ChatId, "no-such-chat") if version == Version::V1_0 => {
            let slot = usize::from(pending.slot);
            let task = conn.ask(Kind::CreateChat, slot, shared.now_ns);
            Request::CreateChat { name: &shared.books[slot].name, password: None }
                .write(&mut conn.out, task);
        }
        (Kind::Range, "too-large") => {
            history::learn(conn, pending.slot.into(), declined.number(), shared);
        }
        (Kind::Login, "bad-credentials") => {
            let name = format!("{}{}", shared.user_prefix, conn.user);
            shared.fail(format!("{reason} (user {name}: was `vestnik load prepare` run?)"));
        }
        _ => shared.fail(format!("{:?} was declined: {reason}", pending.kind)),
    }
}
