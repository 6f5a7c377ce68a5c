//! One turn of the loop, as the service sees it: who is to be notified of what once it is
//! committed, and what is to be taken back if it cannot be.
//!
//! New messages are encoded once, into the turn's batch, which holds messages of one chat. Each
//! member gets it as one MSG_NOTIFY: when the turn is committed, or before, when somebody writes to
//! another chat or somebody comes or goes. So every connection is notified of messages in the order
//! of server time, over all chats, and a client that notes the time of the last one has missed
//! nothing before it. Only who sends to the chat of the batch gets part of it earlier: what stands
//! before its own message, so that the answer does not overtake it (protocol section 2, order).

use std::collections::HashMap;
use std::ops::Range;

use crate::auth::helper::JobId;
use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits::{HEARTBEAT_BYTES_MAX, NOTIFY_BYTES_MAX};
use crate::outbox::{BLOCK_HEAD_BYTES, Outbox};
use crate::service::history::Backlog;
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

/// Changed messages of one chat, one after the other in one turn, encoded.
#[derive(Default)]
pub(crate) struct Batch {
    /// Of which chat; `None` when there is no batch.
    pub(crate) chat: Option<ChatId>,
    pub(crate) slot: u32,
    /// Where they begin in the block of the turn.
    base: usize,
    /// Bytes of all its messages, by [`layout`].
    bytes: [usize; 2],
    entries: Vec<Entry>,
    /// The extras of its messages.
    extras: Vec<u8>,
    /// Where the layout with extras begins in the block, once somebody was to be notified of all.
    extended_base: Option<usize>,
    /// Grows with each batch, and begins anew after 2^32 of them: who last sent in an older one may
    /// look for a mark then, and finds none.
    number: u32,
    /// How many of its messages a connection has: for those that sent some of them.
    marks: HashMap<u32, usize>,
}

/// A message of the batch.
struct Entry {
    updated: ServerTime,
    /// Where it begins, by [`layout`].
    start: [usize; 2],
    /// Where its text ends in the plain layout: lines that stand for files come after it.
    text_end: usize,
    /// Where its extras end.
    extras_end: usize,
}

/// The layout of messages without extras, which the batch is encoded in as it grows; and the one
/// with extras, which is made of it when a connection on 1.1 is to be notified.
const fn layout(version: Version) -> usize {
    if version.has_extras() { EXTENDED } else { PLAIN }
}

const PLAIN: usize = 0;
const EXTENDED: usize = 1;

impl Batch {
    /// How many messages it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn push(&mut self, outbox: &mut Outbox, message: &Message<'_>) {
        let start = self.bytes;
        let block = outbox.block_mut();
        put_message(block, Version::V1_0, message);
        let plain_end = block.len() - self.base;
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

    /// Notifies a connection of the messages from the given one on; leaves out those for which a
    /// slow consumer has no capacity, which then catches up from the database.
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
                    outbox.stage_block(peer.conn.index, ToClient::MsgNotify, head, piece);
                }
                None => outbox.stage_from_block(peer.conn.index, |out, block| {
                    out.put_bytes(&head);
                    self.extend(first..first + fits, block, out);
                }),
            }
            first += fits;
        }
    }

    /// Where the head and the text of a message are in the block, and its extras.
    fn parts(&self, at: usize) -> Option<(Range<usize>, &[u8])> {
        let entry = self.entries.get(at)?;
        let before = at.checked_sub(1).and_then(|before| self.entries.get(before));
        let extras = before.map_or(0, |before| before.extras_end)..entry.extras_end;
        let text = self.base + entry.start[PLAIN]..self.base + entry.text_end;
        Some((text, self.extras.get(extras).unwrap_or_default()))
    }

    /// Appends some of the messages in the layout with extras.
    fn extend(&self, messages: Range<usize>, block: &[u8], out: &mut Vec<u8>) {
        for (text, extras) in messages.filter_map(|at| self.parts(at)) {
            out.put_bytes(block.get(text).unwrap_or_default());
            out.put_u8(0);
            put_extras(out, extras);
        }
    }

    /// Appends the whole batch to the block once more, in the layout with extras: several
    /// connections are to be notified in it.
    pub(crate) fn extend_block(&mut self, outbox: &mut Outbox) {
        let block = outbox.block_mut();
        let base = block.len();
        for (text, extras) in (0..self.entries.len()).filter_map(|at| self.parts(at)) {
            debug_assert!(text.end <= base);
            block.extend_from_within(text);
            block.put_u8(0);
            put_extras(block, extras);
        }
        debug_assert_eq!(block.len() - base, self.bytes[EXTENDED]);
        self.extended_base = Some(base);
    }

    /// Whether [`Batch::extend_block`] is still to be called before this version is notified of it.
    pub(crate) fn is_to_extend(&self, version: Version) -> bool {
        layout(version) == EXTENDED && self.extended_base.is_none()
    }

    /// Begins the batch of a chat; that before is complete.
    pub(crate) fn begin(&mut self, chat: ChatId, slot: u32, base: usize) {
        self.end();
        self.chat = Some(chat);
        self.slot = slot;
        self.base = base;
    }

    /// There is no batch any more.
    pub(crate) fn end(&mut self) {
        self.chat = None;
        self.bytes = [0; 2];
        self.entries.clear();
        self.extras.clear();
        self.extended_base = None;
        self.marks.clear();
        self.number = self.number.wrapping_add(1);
    }

    /// How many of its messages a connection has.
    pub(crate) fn mark(&self, peer: &Peer) -> usize {
        if peer.sent_in != self.number {
            return 0;
        }
        self.marks.get(&peer.conn.index).copied().unwrap_or(0)
    }

    /// Notes that a connection that sends has all of it so far.
    pub(crate) fn set_mark(&mut self, peer: &mut Peer) {
        peer.sent_in = self.number;
        self.marks.insert(peer.conn.index, self.entries.len());
    }
}

/// The beginning of a MSG_NOTIFY: its header, and the chat before the pack.
fn msg_notify_head(pack_bytes: usize, task: u8, chat: ChatId) -> [u8; BLOCK_HEAD_BYTES] {
    let [a, b, c, d, purpose, task] =
        frame::header(4 + pack_bytes, ToClient::MsgNotify.byte(), task);
    let [e, f, g, h] = chat.get().to_le_bytes();
    [a, b, c, d, purpose, task, e, f, g, h]
}

/// How a connection was before the turn changed it.
pub(crate) struct Saved {
    pub(crate) conn: ConnId,
    pub(crate) state: PeerState,
    pub(crate) waiting: Option<Box<Waiting>>,
    pub(crate) was_streaming: bool,
}

/// What the answer to a request becomes if its turn is undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IfUndone {
    /// DECLINED `storage-failed`.
    Decline,
    /// HEARTBEAT: ACCEPTED with the same bytes, for no storage is needed.
    Echo(Echo),
    /// DECLINED to a notification: it is never answered, and suspends the session all the same.
    Suspend,
    /// DECLINED `too-large` and DISCONNECT.
    TooLarge,
    /// None: nothing is staged for the connection any more.
    Close,
}

/// Where the bytes of a HEARTBEAT stand among those that the turn keeps.
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

/// A request that was handled in the turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) conn: ConnId,
    pub(crate) task: u8,
    pub(crate) answer: IfUndone,
}

/// The turn under way. Its lists keep their room from turn to turn.
#[derive(Default)]
pub(crate) struct Turn {
    /// Grows with each turn.
    pub(crate) number: u64,
    /// What is not notified yet.
    pub(crate) batch: Batch,
    /// Its requests, in order, for the case that it is undone.
    pub(crate) requests: Vec<Asked>,
    /// The bytes of its HEARTBEATs.
    pub(crate) echoes: Vec<u8>,
    /// Connections as they were, each once.
    pub(crate) saved: Vec<Saved>,
    /// Users whose place in the roster has changed.
    pub(crate) users: Vec<UserId>,
    /// Messages that were counted against a slow mode.
    pub(crate) paced: Vec<LimitedSender>,
    /// What users had used before the turn, each once.
    pub(crate) ledger: Vec<(UserId, LedgerEntry)>,
    /// Users whose reactions were counted.
    pub(crate) reacted: Vec<UserId>,
    /// The backlog of slow consumers who need it no more unless the turn is undone.
    pub(crate) dropped: Vec<(ConnId, Box<Backlog>)>,
    /// Why the turn cannot be committed.
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
        self.paced.clear();
        self.ledger.clear();
        self.reacted.clear();
        self.dropped.clear();
        self.failed = None;
    }

    /// Notes a request, and what its answer becomes if the turn is undone.
    #[inline(always)]
    pub(crate) fn note_request(&mut self, conn: ConnId, task: u8, answer: IfUndone) {
        self.requests.push(Asked { conn, task, answer });
    }

    /// The last request was put back, and is none of this turn.
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

    /// Forgets that a connection waited for a job, which has come back in this turn; the task of
    /// the request if it did.
    pub(crate) fn forget_saved_job(&mut self, peer: &Peer, job: JobId) -> Option<u8> {
        let saved = self.saved.get_mut(peer.saved_at as usize)?;
        debug_assert_eq!(saved.conn, peer.conn, "a connection is changed before it is saved");
        let waiting = saved.waiting.take_if(|waiting| waiting.job == job)?;
        Some(waiting.task)
    }

    /// Remembers how a connection was, once a turn, before it is changed.
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
