//! One turn of the loop, as the service sees it: what is to be told to whom once it is committed,
//! and what is to be taken back if it cannot be.
//!
//! New messages of a chat are encoded once, into the chat's batch of this turn. When the turn is
//! committed each member gets the batch as one MSG_NOTIFY. Only who sends to the chat in the same
//! turn gets part of it earlier: what stands before its own message, so that the answer does not
//! overtake it (protocol section 2, order).

use std::collections::HashMap;

use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits::{HEADER_BYTES, PIECE_BYTES_MAX};
use crate::outbox::Outbox;
use crate::service::history::Behind;
use crate::service::peer::{Peer, PeerState, Waiting};
use crate::store::StoreError;
use crate::wire::codec::{Message, Put};
use crate::wire::frame;
use crate::wire::purpose::ToClient;

/// The changed messages of one chat in one turn, encoded.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) chat: Option<ChatId>,
    pub(crate) slot: u32,
    bytes: Vec<u8>,
    /// Where each message begins, and its `updated`.
    entries: Vec<(usize, ServerTime)>,
    /// Nothing more is added: the members have changed since.
    pub(crate) is_closed: bool,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push(&mut self, message: &Message<'_>) {
        self.entries.push((self.bytes.len(), message.updated));
        self.bytes.put_message(message);
    }

    /// Tells a connection the messages from the byte `from` on; leaves them out when it is a slow
    /// reader, which then catches up from the file.
    pub(crate) fn deliver(&self, outbox: &mut Outbox, peer: &mut Peer, from: usize, limit: usize) {
        let Some(chat) = self.chat else { return };
        let first = self.entries.partition_point(|&(at, _)| at < from);
        let Some(entries) = self.entries.get(first..) else { return };
        let Some(&(_, since)) = entries.first() else { return };
        if peer.behind.is_some() || outbox.pending_bytes(peer.conn.index) > limit {
            Behind::leave_out(&mut peer.behind, since);
            return;
        }
        let mut rest = entries;
        while let Some((&(start, _), _)) = rest.split_first() {
            let fits = rest.partition_point(|&(at, _)| at < start + PIECE_BYTES_MAX);
            let end = rest.get(fits).map_or(self.bytes.len(), |&(at, _)| at);
            let task = peer.next_notify_task();
            let pack = self.bytes.get(start..end).unwrap_or_default();
            outbox.stage(peer.conn.index, |out| put_msg_notify(out, task, chat, pack));
            rest = rest.get(fits..).unwrap_or_default();
        }
    }

    fn reset(&mut self, chat: ChatId, slot: u32) {
        self.chat = Some(chat);
        self.slot = slot;
        self.bytes.clear();
        self.entries.clear();
        self.is_closed = false;
    }
}

/// Appends a MSG_NOTIFY whose pack of messages is encoded already.
pub(crate) fn put_msg_notify(out: &mut Vec<u8>, task: u8, chat: ChatId, pack: &[u8]) {
    let header = frame::header(4 + pack.len(), ToClient::MsgNotify.byte(), task);
    out.reserve(HEADER_BYTES + 4 + pack.len());
    out.put_bytes(&header);
    out.put_u32(chat.get());
    out.put_bytes(pack);
}

/// How a connection was before the turn changed it.
pub(crate) struct Saved {
    pub(crate) conn: ConnId,
    pub(crate) state: PeerState,
    pub(crate) waiting: Option<Box<Waiting>>,
    pub(crate) was_streaming: bool,
}

/// The turn under way. Its lists keep their room from turn to turn.
#[derive(Default)]
pub(crate) struct Turn {
    /// Grows with each turn.
    pub(crate) number: u64,
    batches: Vec<Batch>,
    batches_used: usize,
    /// Up to which byte of a batch a connection has it: for those that sent in this turn.
    marks: HashMap<(u32, u32), usize>,
    /// Connections as they were, each once.
    pub(crate) saved: Vec<Saved>,
    /// Users whose place in the roster has changed.
    pub(crate) users: Vec<UserId>,
    /// Why the turn cannot be committed.
    pub(crate) failed: Option<StoreError>,
}

impl Turn {
    /// Begins the next turn.
    pub(crate) fn begin(&mut self) {
        self.number += 1;
        self.batches_used = 0;
        self.marks.clear();
        self.saved.clear();
        self.users.clear();
        self.failed = None;
    }

    /// Remembers how a connection was, once a turn, before it is changed.
    pub(crate) fn save(&mut self, peer: &mut Peer) {
        if peer.saved_in != self.number {
            peer.saved_in = self.number;
            self.saved.push(Saved {
                conn: peer.conn,
                state: peer.state,
                waiting: peer.waiting.clone(),
                was_streaming: peer.stream.is_some(),
            });
        }
    }

    /// A new batch, and its number.
    pub(crate) fn add_batch(&mut self, chat: ChatId, slot: u32) -> u32 {
        let number = self.batches_used;
        self.batches_used += 1;
        if number == self.batches.len() {
            self.batches.push(Batch::default());
        }
        if let Some(batch) = self.batches.get_mut(number) {
            batch.reset(chat, slot);
        }
        number as u32
    }

    pub(crate) fn batch(&self, number: u32) -> Option<&Batch> {
        self.batches.get(..self.batches_used)?.get(number as usize)
    }

    pub(crate) fn batch_mut(&mut self, number: u32) -> Option<&mut Batch> {
        self.batches.get_mut(..self.batches_used)?.get_mut(number as usize)
    }

    pub(crate) const fn batch_count(&self) -> u32 {
        self.batches_used as u32
    }

    /// Up to where a connection has a batch.
    pub(crate) fn mark(&self, peer: &Peer, batch: u32) -> usize {
        if peer.sent_in != self.number {
            return 0;
        }
        self.marks.get(&(peer.conn.index, batch)).copied().unwrap_or(0)
    }

    /// Notes that a connection that sends has a batch up to this byte.
    pub(crate) fn set_mark(&mut self, peer: &mut Peer, batch: u32, upto: usize) {
        peer.sent_in = self.number;
        self.marks.insert((peer.conn.index, batch), upto);
    }
}
