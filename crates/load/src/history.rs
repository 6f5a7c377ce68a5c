//! Walks over the stored messages: pages backwards on API 1.0, ranges of time on 0.1.
//!
//! Both read 1,000 messages at a time. All walks over the same messages must give the same result.

use super::conn::{Conn, Kind};
use super::count::Shared;
use super::native::Pack;
use purpose::ids::{ChatId, MessageId, ServerTime};
use purpose::wire::Version;
use purpose::wire::request::Request;

/// Messages per page or range.
const PAGE_MESSAGES: u16 = 1000;

/// The result of the first walk, which all others must match.
#[derive(Default, Debug)]
pub(super) struct Learned {
    /// Whether nobody sends meanwhile, so that all walks must agree.
    pub(super) is_still: bool,
    /// Count and sum of ids of a complete walk over pages.
    whole: Option<(u64, u64)>,
    /// Whether a connection is learning the ranges.
    begun: bool,
    /// The ranges of API 0.1.
    ranges: Vec<Stretch>,
}

impl Learned {
    /// Whether the caller should learn the ranges of API 0.1; true once.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }
}

/// A range of time, and what it contains.
#[derive(Clone, Copy, Default, Debug)]
struct Stretch {
    from: i64,
    to: i64,
    count: u64,
    sum: u64,
}

/// The progress of a connection's walk.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Walk {
    /// The next page ends before this message; 0: at the newest.
    before: u64,
    /// The first message of the present answer.
    first: u64,
    /// The last message so far, by id or by time.
    last: u64,
    count: u64,
    sum: u64,
    whole_count: u64,
    whole_sum: u64,
    /// Index of the next range.
    next: usize,
    /// Start of the range that is being learned.
    learning_from: i64,
    /// It ends at the time that the server named as fitting; otherwise it ends now.
    learning_fits: bool,
    /// The range that is being learned.
    stretch: Stretch,
}

/// Requests the next page or range of the chat at this index.
pub(super) fn ask(conn: &mut Conn, version: Version, slot: usize, shared: &Shared) {
    let Some(chat) = shared.books.get(slot).and_then(|book| ChatId::new(book.chat)) else { return };
    let at_ns = shared.now_ns;
    let walk = &conn.walk;
    match version {
        Version::V1_0 | Version::V1_1 => {
            let before = MessageId::new(walk.before);
            let task = conn.ask(Kind::Page, slot, at_ns);
            Request::RequestChatPage { chat, before, limit: PAGE_MESSAGES, newer: false }
                .write(&mut conn.out, task);
        }
        Version::V0_1 => {
            let ranges = &shared.history.ranges;
            if ranges.is_empty() {
                return;
            }
            let range = ranges[(walk.next + conn.index) % ranges.len()];
            let to = ServerTime::new(range.to);
            let from = ServerTime::new(range.from).unwrap_or_default();
            let task = conn.ask(Kind::Range, slot, at_ns);
            Request::RequestChatMsg { chat, from, to }.write(&mut conn.out, task);
        }
    }
}

/// Requests everything from where learning stands, up to a time that is known to fit, if any.
pub(super) fn learn(conn: &mut Conn, slot: usize, to: Option<i64>, shared: &Shared) {
    let Some(chat) = shared.books.get(slot).and_then(|book| ChatId::new(book.chat)) else { return };
    let from = ServerTime::new(conn.walk.learning_from).unwrap_or_default();
    let to = to.and_then(ServerTime::new);
    conn.walk.learning_fits = to.is_some();
    if let Some(to) = to {
        conn.walk.learning_from = to.next().micros();
    }
    let task = conn.ask(Kind::Range, slot, shared.now_ns);
    Request::RequestChatMsg { chat, from, to }.write(&mut conn.out, task);
}

/// Handles a piece of the present answer.
pub(super) fn piece(conn: &mut Conn, kind: Kind, body: &[u8], learns: bool, shared: &mut Shared) {
    let mut pack = Pack::new(body);
    while let Some(entry) = pack.next(&shared.payload) {
        let walk = &mut conn.walk;
        let order = if kind == Kind::Page { entry.id } else { entry.updated };
        let is_ordered = order > walk.last && (walk.before == 0 || entry.id < walk.before);
        if !is_ordered || entry.is_damaged {
            let index = conn.index;
            shared.faults.note(|| {
                format!(
                    "connection {index}: stored message {} is damaged or out of order",
                    entry.id
                )
            });
        }
        if walk.count == 0 {
            walk.first = entry.id;
        }
        walk.last = order;
        walk.count += 1;
        walk.sum = walk.sum.wrapping_add(entry.id);
        shared.total.stored += 1;
        if learns {
            walk.stretch.count += 1;
            walk.stretch.sum = walk.stretch.sum.wrapping_add(entry.id);
            walk.stretch.to = entry.updated as i64;
            if walk.stretch.count == u64::from(PAGE_MESSAGES) {
                end_stretch(walk, &mut shared.history);
            }
        }
    }
    if !pack.is_whole() {
        let index = conn.index;
        shared.faults.note(|| format!("connection {index}: a pack does not parse"));
    }
}

fn end_stretch(walk: &mut Walk, learned: &mut Learned) {
    if walk.stretch.count > 0 {
        learned.ranges.push(walk.stretch);
        walk.stretch = Stretch { from: walk.stretch.to + 1, ..Stretch::default() };
    }
}

/// A range was learned: request the next one, unless it reached the present.
pub(super) fn learned(conn: &mut Conn, slot: usize, shared: &mut Shared) {
    let walk = &mut conn.walk;
    (walk.count, walk.sum, walk.last) = (0, 0, 0);
    if walk.learning_fits {
        return learn(conn, slot, None, shared);
    }
    end_stretch(walk, &mut shared.history);
    if shared.history.is_still && shared.history.ranges.is_empty() {
        shared.fail("nothing is stored in the chat: send something first".to_owned());
    }
}

/// The answer is complete: compares it with what was learned, and continues.
pub(super) fn ended(conn: &mut Conn, kind: Kind, shared: &mut Shared) {
    let index = conn.index;
    let walk = &mut conn.walk;
    let learned = &mut shared.history;
    let mut agrees = true;
    if kind == Kind::Page {
        walk.whole_count += walk.count;
        walk.whole_sum = walk.whole_sum.wrapping_add(walk.sum);
        walk.before = walk.first;
        if walk.count < u64::from(PAGE_MESSAGES) {
            let whole = (walk.whole_count, walk.whole_sum);
            agrees = *learned.whole.get_or_insert(whole) == whole;
            (walk.before, walk.whole_count, walk.whole_sum) = (0, 0, 0);
        }
    } else if let Some(range) =
        learned.ranges.get((walk.next + index) % learned.ranges.len().max(1))
    {
        agrees = (range.count, range.sum) == (walk.count, walk.sum);
        walk.next += 1;
    }
    if walk.count > u64::from(PAGE_MESSAGES) || (learned.is_still && !agrees) {
        let got = walk.count;
        shared.faults.note(|| {
            format!("connection {index}: {got} messages make a walk that differs from the first")
        });
    }
    (walk.count, walk.sum, walk.first, walk.last) = (0, 0, 0, 0);
}
