//! The state of one turn: what to notify once it is committed, and what to restore if it is undone.
//!
//! New messages are encoded once, into the turn's batch, which holds messages of one chat. Each
//! member gets it as one MSG_NOTIFY: when the turn is committed, or earlier, when a message to
//! another chat or a change of members follows. So every connection gets messages in the order of
//! server time over all chats, and a client that remembers the time of the last one has missed
//! nothing before it. Only a connection that sends to the chat of the batch gets part of it
//! earlier: the messages before its own, so that its answer does not overtake them (protocol
//! section 2, order).

use std::collections::HashMap;
use std::ops::Range;

use crate::auth::helper::JobId;
use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits::{HEARTBEAT_BYTES_MAX, NOTIFY_BYTES_MAX};
use crate::outbox::{BROADCAST_HEAD_BYTES, Outbox};
use crate::service::backlog::Backlog;
use crate::service::ledger::LedgerEntry;
use crate::service::peer::{Peer, PeerState, Waiting};
use crate::service::send_limiter::LimitedSender;
use crate::store::StoreError;
use crate::wire::Version;
use crate::wire::codec::{
    EXTRAS_LENGTH_BYTES, MESSAGE_OVERHEAD_BYTES, Message, Put, put_extras, put_message,
};
use crate::wire::frame::{self, Frame};
use crate::wire::purpose::{ToClient, ToServer};

/// The batch: the encoded messages of one chat that changed in a row in this turn.
#[derive(Default)]
pub(crate) struct Batch {
    /// The chat; `None` when there is no batch.
    pub(crate) chat: Option<ChatId>,
    pub(crate) slot: u32,
    /// Offset of the batch in the broadcast buffer.
    base: usize,
    /// Bytes of all its messages, per [`layout`].
    bytes: [usize; 2],
    entries: Vec<Entry>,
    /// The extras of all its messages.
    extras: Vec<u8>,
    /// Offset of the layout with extras in the broadcast buffer, once it was needed for the whole
    /// batch.
    extended_base: Option<usize>,
    /// Number of the batch. It wraps around after 2^32 batches, which is harmless: a connection
    /// that last sent to an old batch of the same number finds no mark.
    number: u32,
    /// How many of the messages a connection has already, for connections that sent some.
    marks: HashMap<u32, usize>,
}

/// One message of the batch.
struct Entry {
    updated: ServerTime,
    /// Its offset, per [`layout`].
    start: [usize; 2],
    /// End of its text in the plain layout; lines that stand for files follow.
    text_end: usize,
    /// End of its extras.
    extras_end: usize,
}

/// The layout for a version. The batch is encoded without extras as it grows; the layout with
/// extras is derived from that when a connection on 1.1 has to be notified.
const fn layout(version: Version) -> usize {
    if version.has_extras() { EXTENDED } else { PLAIN }
}

const PLAIN: usize = 0;
const EXTENDED: usize = 1;

impl Batch {
    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn push(&mut self, outbox: &mut Outbox, message: &Message<'_>) {
        let start = self.bytes;
        let broadcast = outbox.broadcast_mut();
        put_message(broadcast, Version::V1_0, message);
        let plain_end = broadcast.len() - self.base;
        let extras = message.extras.bytes();
        let text_end = if extras.is_empty() {
            plain_end - 1
        } else {
            start[PLAIN] + MESSAGE_OVERHEAD_BYTES - 1 + message.content.len()
        };
        let extended_bytes = text_end - start[PLAIN] + 1 + EXTRAS_LENGTH_BYTES + extras.len();
        self.bytes = [plain_end, start[EXTENDED] + extended_bytes];
        self.extras.extend_from_slice(extras);
        let extras_end = self.extras.len();
        self.entries.push(Entry { updated: message.updated, start, text_end, extras_end });
    }

    /// Stages the messages from `from` on for one connection. What does not fit in the queue of a
    /// slow consumer goes to its backlog.
    pub(crate) fn deliver(&self, outbox: &mut Outbox, peer: &mut Peer, from: usize, limit: usize) {
        let Some(chat) = self.chat else { return };
        let layout = layout(peer.version());
        let mut first = from;
        while let Some(entry) = self.entries.get(first) {
            let (start, since) = (entry.start[layout], entry.updated);
            let is_slow = outbox.pending_bytes(peer.conn.index) > limit;
            if peer.backlog.is_some() || is_slow {
                if outbox.is_closed(peer.conn.index) {
                    return;
                }
                Backlog::leave_out(&mut peer.backlog, chat, since).is_slow |= is_slow;
                return;
            }
            let rest = self.entries.get(first..).unwrap_or_default();
            let end_of = |at: usize| {
                self.entries.get(at).map_or(self.bytes[layout], |entry| entry.start[layout])
            };
            let fits = rest.partition_point(|e| e.start[layout] < start + NOTIFY_BYTES_MAX);
            let end = end_of(first + fits);
            let head = msg_notify_head(end - start, peer.next_notify_task(), chat);
            let base = if layout == PLAIN { Some(self.base) } else { self.extended_base };
            match base {
                Some(base) => {
                    let piece = base + start..base + end;
                    outbox.stage_broadcast(peer.conn.index, ToClient::MsgNotify, head, piece);
                }
                None => outbox.stage_from_broadcast(peer.conn.index, |out, broadcast| {
                    out.put_bytes(&head);
                    self.extend(first..first + fits, broadcast, out);
                }),
            }
            first += fits;
        }
    }

    /// A message's head and text, as a range of the broadcast buffer, and its extras.
    fn parts(&self, at: usize) -> Option<(Range<usize>, &[u8])> {
        let entry = self.entries.get(at)?;
        let before = at.checked_sub(1).and_then(|before| self.entries.get(before));
        let extras = before.map_or(0, |before| before.extras_end)..entry.extras_end;
        let text = self.base + entry.start[PLAIN]..self.base + entry.text_end;
        Some((text, self.extras.get(extras).unwrap_or_default()))
    }

    /// Appends messages in the layout with extras.
    fn extend(&self, messages: Range<usize>, broadcast: &[u8], out: &mut Vec<u8>) {
        for (text, extras) in messages.filter_map(|at| self.parts(at)) {
            out.put_bytes(broadcast.get(text).unwrap_or_default());
            out.put_u8(0);
            put_extras(out, extras);
        }
    }

    /// Appends the whole batch to the broadcast buffer in the layout with extras, for all
    /// connections that need it.
    pub(crate) fn extend_broadcast(&mut self, outbox: &mut Outbox) {
        let broadcast = outbox.broadcast_mut();
        let base = broadcast.len();
        for (text, extras) in (0..self.entries.len()).filter_map(|at| self.parts(at)) {
            debug_assert!(text.end <= base);
            broadcast.extend_from_within(text);
            broadcast.put_u8(0);
            put_extras(broadcast, extras);
        }
        debug_assert_eq!(broadcast.len() - base, self.bytes[EXTENDED]);
        self.extended_base = Some(base);
    }

    /// Whether [`Batch::extend_broadcast`] has to be called before this version is notified.
    pub(crate) fn is_to_extend(&self, version: Version) -> bool {
        layout(version) == EXTENDED && self.extended_base.is_none()
    }

    /// Begins the batch of a chat.
    pub(crate) fn begin(&mut self, chat: ChatId, slot: u32, base: usize) {
        self.end();
        self.chat = Some(chat);
        self.slot = slot;
        self.base = base;
    }

    /// Ends the batch.
    pub(crate) fn end(&mut self) {
        self.chat = None;
        self.bytes = [0; 2];
        self.entries.clear();
        self.extras.clear();
        self.extended_base = None;
        self.marks.clear();
        self.number = self.number.wrapping_add(1);
    }

    /// How many of the messages a connection has already.
    pub(crate) fn mark(&self, peer: &Peer) -> usize {
        if peer.sent_in != self.number {
            return 0;
        }
        self.marks.get(&peer.conn.index).copied().unwrap_or(0)
    }

    /// Notes that a connection, which sends, has all messages so far.
    pub(crate) fn set_mark(&mut self, peer: &mut Peer) {
        peer.sent_in = self.number;
        self.marks.insert(peer.conn.index, self.entries.len());
    }
}

/// The start of a MSG_NOTIFY: the frame header and the chat, before the pack.
fn msg_notify_head(pack_bytes: usize, task: u8, chat: ChatId) -> [u8; BROADCAST_HEAD_BYTES] {
    let [a, b, c, d, purpose, task] =
        frame::header(4 + pack_bytes, ToClient::MsgNotify.byte(), task);
    let [e, f, g, h] = chat.get().to_le_bytes();
    [a, b, c, d, purpose, task, e, f, g, h]
}

/// A connection's state before the turn changed it.
pub(crate) struct Saved {
    pub(crate) conn: ConnId,
    pub(crate) state: PeerState,
    pub(crate) waiting: Option<Box<Waiting>>,
    pub(crate) was_streaming: bool,
}

/// The answer to a request if its turn is undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IfUndone {
    /// DECLINED `storage-failed`.
    Decline,
    /// HEARTBEAT: ACCEPTED with the same bytes, for no storage is needed.
    Echo(Echo),
    /// DECLINED of a notification: there is no answer, but the session is suspended as well.
    Suspend,
    /// DECLINED `too-large` and DISCONNECT.
    TooLarge,
    /// No answer: nothing more is staged for the connection.
    Close,
}

/// Range of a HEARTBEAT's bytes in [`Turn::echoes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Echo {
    from: u32,
    bytes: u32,
}

impl Echo {
    pub(crate) fn of(self, echoes: &[u8]) -> &[u8] {
        let from = self.from as usize;
        echoes.get(from..from + self.bytes as usize).unwrap_or_default()
    }
}

/// A request handled in the turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandledRequest {
    pub(crate) conn: ConnId,
    pub(crate) task: u8,
    pub(crate) answer: IfUndone,
}

/// The turn in progress. Its lists keep their capacity from turn to turn.
#[derive(Default)]
pub(crate) struct Turn {
    /// Grows with each turn.
    pub(crate) number: u64,
    /// The messages not notified yet.
    pub(crate) batch: Batch,
    /// The requests, in order, to be declined if the turn is undone.
    pub(crate) requests: Vec<HandledRequest>,
    /// The bytes of all HEARTBEATs.
    pub(crate) echoes: Vec<u8>,
    /// Connections as they were before the turn, each once.
    pub(crate) saved: Vec<Saved>,
    /// Users whose entry in the roster has changed.
    pub(crate) users: Vec<UserId>,
    /// Sends counted against slow modes.
    pub(crate) limited_sends: Vec<LimitedSender>,
    /// Entries of the ledger before the turn, each once.
    pub(crate) ledger: Vec<(UserId, LedgerEntry)>,
    /// Users whose reactions were counted, once per reaction.
    pub(crate) reacted: Vec<UserId>,
    /// Bots whose messages were counted, once per message.
    pub(crate) hooked: Vec<UserId>,
    /// Backlogs dropped in this turn, to be restored if it is undone.
    pub(crate) dropped: Vec<(ConnId, Box<Backlog>)>,
    /// The error for which the turn cannot be committed.
    pub(crate) failed: Option<StoreError>,
}

impl Turn {
    /// Begins the next turn.
    pub(crate) fn begin(&mut self) {
        self.number += 1;
        self.batch.end();
        self.requests.clear();
        self.echoes.clear();
        self.saved.clear();
        self.users.clear();
        self.limited_sends.clear();
        self.ledger.clear();
        self.reacted.clear();
        self.hooked.clear();
        self.dropped.clear();
        self.failed = None;
    }

    /// Notes a request, and what its answer becomes if the turn is undone.
    #[inline(always)]
    pub(crate) fn note_request(&mut self, conn: ConnId, task: u8, answer: IfUndone) {
        self.requests.push(HandledRequest { conn, task, answer });
    }

    /// Forgets the last request: it was put back and does not belong to this turn.
    pub(crate) fn forget_request(&mut self) {
        self.requests.pop();
    }

    /// Notes a frame, and what its answer becomes if the turn is undone.
    #[inline(always)]
    pub(crate) fn note_frame(&mut self, conn: ConnId, frame: &Frame<'_>) {
        match ToServer::from_byte(frame.purpose) {
            Some(ToServer::Accepted | ToServer::Part) => {}
            Some(ToServer::Declined) => self.note_request(conn, frame.task, IfUndone::Suspend),
            Some(ToServer::Heartbeat) if frame.body.len() <= HEARTBEAT_BYTES_MAX => {
                self.note_echo(conn, frame.task, frame.body);
            }
            _ => self.note_request(conn, frame.task, IfUndone::Decline),
        }
    }

    /// Notes a HEARTBEAT.
    pub(crate) fn note_echo(&mut self, conn: ConnId, task: u8, echo: &[u8]) {
        let (from, bytes) = (self.echoes.len() as u32, echo.len() as u32);
        self.echoes.extend_from_slice(echo);
        self.note_request(conn, task, IfUndone::Echo(Echo { from, bytes }));
    }

    /// Forgets, in the saved state, the job that has come back in this turn. Returns the task of
    /// its request.
    pub(crate) fn forget_saved_job(&mut self, peer: &Peer, job: JobId) -> Option<u8> {
        let saved = self.saved.get_mut(peer.saved_at as usize)?;
        debug_assert_eq!(saved.conn, peer.conn, "a connection is changed before it is saved");
        let waiting = saved.waiting.take_if(|waiting| waiting.job == job)?;
        Some(waiting.task)
    }

    /// Saves a connection's state, once per turn. Call it before each change.
    #[inline(always)]
    pub(crate) fn save(&mut self, peer: &mut Peer) {
        let saved = self.saved.get(peer.saved_at as usize);
        if saved.is_none_or(|saved| saved.conn != peer.conn) {
            self.save_first(peer);
        }
    }

    fn save_first(&mut self, peer: &mut Peer) {
        peer.saved_at = self.saved.len() as u32;
        self.saved.push(Saved {
            conn: peer.conn,
            state: peer.state,
            waiting: peer.waiting.clone(),
            was_streaming: peer.stream.is_some(),
        });
    }
}
