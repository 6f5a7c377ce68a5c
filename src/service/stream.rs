//! Streamed answers in PARTs, and the order in which connections are refilled (protocol section 2).
//!
//! A connection whose outbound buffer has capacity gets parts of its streamed answer, then of its
//! backlog, read from the database within the budget of a turn.

use crate::ids::{ChatId, ConnId, FileId, MessageId, ServerTime, UserId};
use crate::limits::{PIECE_BYTES_MAX, STREAM_BYTES_PER_TURN, STREAM_TURN_BYTES};
use crate::service::peer::Peer;
use crate::service::search::Search;
use crate::service::{Caller, HandlerError, Service};
use crate::store::StoreResult;
use crate::wire::Version;
use crate::wire::decline::Decline;
use crate::wire::frame;
use crate::wire::purpose::ToClient;

/// The scan budget, in bytes: for one piece of a stream, and for all answers given at once in one
/// turn. About a millisecond of work.
pub(super) const SCAN_BUDGET_BYTES: usize = STREAM_TURN_BYTES / 4;

/// Bytes of the scan budget for a message that is read and not sent.
const SCANNED_MESSAGE_BYTES: usize = 16;

/// A streamed answer in progress.
pub(crate) struct Stream {
    pub(crate) task: u8,
    /// Server time of the request. The answer covers what there was then, so a membership that
    /// began later does not continue it: the chat may have had messages in between.
    pub(crate) asked: ServerTime,
    pub(crate) source: Source,
}

/// The kind of a streamed answer, and how far it has come.
pub(crate) enum Source {
    /// REQUEST_CHAT_MSG on 1.0.
    Range { chat: ChatId, from: ServerTime, to: ServerTime },
    /// REQUEST_CHAT_MSG on 0.1: its single ACCEPTED is assembled here.
    Legacy { chat: ChatId, from: ServerTime, to: ServerTime, pack: Vec<u8> },
    /// REQUEST_CHAT_PAGE.
    Page { chat: ChatId, from: PageStart, to: MessageId },
    /// REQUEST_UPDATES: the chats that are left; the last one is being read.
    Updates { chats: Vec<ChatId>, cursor: ServerTime, from: ServerTime, to: ServerTime },
    /// GET_CHAT, when the turn had no scan budget left to answer at once.
    Chat(ChatId),
    /// GET_MY_CHATS: the chats with a higher id than this.
    MyChats { after: Option<ChatId> },
    /// FIND_CHATS: up to `left` more chats, with names after this one.
    Found { prefix: String, after: Option<String>, left: u16 },
    /// FIND_USERS: up to `left` more users, with names after this one.
    Users { prefix: String, after: Option<String>, left: u16, is_operator: bool },
    /// PUT_FILE that is stored: its ACCEPTED waits for `cost` bytes of the streaming budget.
    Stored { stored: u64, cost: usize },
    /// GET_FILE.
    File { id: FileId, offset: u64, length: usize },
    /// GET_REACTIONS: those given from this time on.
    Reactions { chat: ChatId, message: MessageId, from: ServerTime, to: ServerTime },
    /// GET_MEMBERS.
    Members { chat: ChatId, after: Option<UserId> },
    /// The banned, after the members.
    Banned { chat: ChatId, after: Option<UserId> },
    /// SEARCH_MSG.
    Search(Box<Search>),
}

impl Source {
    /// The chat whose membership the answer depends on; `None` for GET_CHAT and answers about
    /// several chats.
    fn chat(&self) -> Option<ChatId> {
        match self {
            Self::Range { chat, .. }
            | Self::Legacy { chat, .. }
            | Self::Page { chat, .. }
            | Self::Reactions { chat, .. }
            | Self::Members { chat, .. }
            | Self::Banned { chat, .. } => Some(*chat),
            Self::Search(search) => search.chat(),
            Self::Updates { .. }
            | Self::Chat(_)
            | Self::MyChats { .. }
            | Self::Found { .. }
            | Self::Users { .. }
            | Self::Stored { .. }
            | Self::File { .. } => None,
        }
    }

    /// Whether a message that changes leaves the part that is still to be read.
    pub(crate) const fn is_by_time(&self) -> bool {
        matches!(self, Self::Range { .. } | Self::Legacy { .. } | Self::Updates { .. })
    }
}

/// Where a page begins.
#[derive(Clone, Copy)]
pub(crate) enum PageStart {
    /// This many messages before the end of the page; the start is looked up first.
    Back(u16),
    /// The next message after this one, and this many messages; the end is looked up first.
    Ahead(MessageId, u16),
    At(MessageId),
}

/// Whether a streamed answer has ended.
#[derive(PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Ended,
}

/// Writes a streamed answer as PART frames into one connection's queue.
pub(crate) struct Pieces<'a> {
    out: &'a mut Vec<u8>,
    task: u8,
    first: usize,
    start: usize,
    /// Complete frames, before the one that begins at `start`.
    parts: u32,
    pub(crate) version: Version,
}

impl<'a> Pieces<'a> {
    fn begin(out: &'a mut Vec<u8>, caller: Caller) -> Self {
        let (start, task) = (out.len(), caller.task);
        frame::write(out, ToClient::Part.byte(), task, |_| {});
        Self { out, task, first: start, start, parts: 0, version: caller.version }
    }

    /// The buffer for the entries of the answer.
    pub(crate) const fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Begins the next frame when this one is long enough. False when the budget of the turn is
    /// spent.
    pub(crate) fn has_budget(&mut self) -> bool {
        if self.out.len() - self.first >= STREAM_BYTES_PER_TURN {
            return false;
        }
        if self.out.len() - self.start >= PIECE_BYTES_MAX {
            self.fill_in(ToClient::Part);
            self.parts += 1;
            self.start = self.out.len();
            frame::write(self.out, ToClient::Part.byte(), self.task, |_| {});
        }
        true
    }

    fn fill_in(&mut self, purpose: ToClient) {
        let body_bytes = self.out.len() - self.start - crate::limits::HEADER_BYTES;
        let header = frame::header(body_bytes, purpose.byte(), self.task);
        if let Some(place) = self.out.get_mut(self.start..self.start + header.len()) {
            place.copy_from_slice(&header);
        }
    }

    /// Ends the last frame. Returns how many PART frames there are; `None` if there is nothing to
    /// send, because no entry came and more may follow.
    fn finish(mut self, progress: &Progress) -> Option<u32> {
        let is_whole = *progress == Progress::Ended;
        self.fill_in(if is_whole { ToClient::Accepted } else { ToClient::Part });
        let has_entries = self.out.len() > self.first + crate::limits::HEADER_BYTES;
        (is_whole || has_entries).then_some(self.parts + u32::from(!is_whole))
    }
}

impl Service<'_> {
    pub(super) fn begin_stream(&mut self, caller: Caller, source: Source) {
        let asked = self.clock.now();
        if let Some(peer) = self.presence.peers.get_mut(caller.conn) {
            peer.stream = Some(Box::new(Stream { task: caller.task, asked, source }));
            self.streams.pumping.push(caller.conn);
        }
    }

    /// Produces the next pieces of streamed answers and backlogs for connections with capacity.
    /// Call it after the turn is committed and its notifications are staged.
    pub fn pump(&mut self) {
        let mut budget =
            STREAM_TURN_BYTES.saturating_sub(std::mem::take(&mut self.streams.scanned_bytes));
        let mut waiting = std::mem::take(&mut self.streams.pumping);
        let (mut kept, mut first_passed_over) = (0, None);
        for place in 0..waiting.len() {
            let Some(&conn) = waiting.get(place) else { break };
            let before = self.outbox.pending_bytes(conn.index);
            let has_capacity = self.can_get_more(conn);
            let stays = if has_capacity && budget > 0 {
                let stays = self.pump_one(conn);
                let produced = self.outbox.pending_bytes(conn.index).saturating_sub(before);
                let cost = produced + std::mem::take(&mut self.streams.scanned_bytes);
                budget = budget.saturating_sub(cost.max(1024));
                stays
            } else {
                if has_capacity {
                    first_passed_over.get_or_insert(kept);
                }
                true
            };
            if stays && let Some(slot) = waiting.get_mut(kept) {
                *slot = conn;
                kept += 1;
            }
        }
        waiting.truncate(kept);
        // Connections that found the budget spent come first the next time.
        waiting.rotate_left(first_passed_over.unwrap_or(0));
        waiting.append(&mut self.streams.pumping);
        self.streams.pumping = waiting;
        self.end_turn();
    }

    /// Whether a connection with capacity has more pieces to get. Ask after writing: a socket that
    /// accepts everything causes no further event.
    pub fn may_pump(&self) -> bool {
        self.streams.pumping.iter().any(|&conn| self.can_get_more(conn))
    }

    /// Whether to read more for a connection: little is queued for it, and it is not waiting to
    /// retry.
    fn can_get_more(&self, conn: ConnId) -> bool {
        let retry_ms = |peer: &Peer| peer.backlog.as_ref().map_or(0, |backlog| backlog.retry_ms);
        self.outbox.pending_bytes(conn.index) <= self.outbound_limit(conn.index) / 4
            && self.presence.peers.get(conn).map_or(0, retry_ms) <= self.clock.now_ms()
    }

    /// Produces one budget's worth for one connection. False when it needs no more.
    fn pump_one(&mut self, conn: ConnId) -> bool {
        let Some(peer) = self.presence.peers.get_mut(conn) else { return false };
        if let Some(mut stream) = peer.stream.take() {
            let ended = self.pump_stream(conn, &mut stream);
            let Some(peer) = self.presence.peers.get_mut(conn) else { return false };
            if !ended {
                peer.stream = Some(stream);
                return true;
            }
            if peer.backlog.is_none() {
                self.streams.resumed.push(conn);
                return false;
            }
            return true;
        }
        if let Some(mut backlog) = peer.backlog.take() {
            let is_live = self.deliver_backlog(conn, &mut backlog);
            let Some(peer) = self.presence.peers.get_mut(conn) else { return false };
            if !is_live {
                peer.backlog = Some(backlog);
                return true;
            }
            self.streams.resumed.push(conn);
        }
        false
    }

    /// Produces the next piece. True when the answer has ended, successfully or not.
    fn pump_stream(&mut self, conn: ConnId, stream: &mut Stream) -> bool {
        let progress = match self.caller(conn, stream.task) {
            None => Err(Decline::LoginRequired.into()),
            Some(caller) => self
                .require_same_membership(caller, stream)
                .and_then(|()| self.stream_piece(caller, &mut stream.source)),
        };
        match progress {
            Ok(progress) => progress == Progress::Ended,
            Err(error) => {
                let reason = self.reason(error);
                self.outbox.decline(conn.index, stream.task, reason);
                true
            }
        }
    }

    /// Ends the answer early if the membership that the request relied on has ended, even if the
    /// user has joined again since.
    fn require_same_membership(
        &mut self,
        caller: Caller,
        stream: &Stream,
    ) -> Result<(), HandlerError> {
        let Some(chat) = stream.source.chat() else { return Ok(()) };
        // A join time in the future was set by a command whose clock had jumped: ignore it.
        let now = self.clock.now();
        let joined = self.require_member(caller, chat)?.joined;
        if joined > stream.asked && joined <= now {
            return Err(self.no_member(chat)?);
        }
        Ok(())
    }

    fn stream_piece(
        &mut self,
        caller: Caller,
        source: &mut Source,
    ) -> Result<Progress, HandlerError> {
        match source {
            Source::Range { chat, from, to } => {
                let (chat, range) = (*chat, (from, *to));
                self.pieces(caller, |service, pieces| {
                    service.put_range(pieces, chat, range.0, range.1, false)
                })
            }
            Source::Legacy { chat, from, to, pack } => {
                self.legacy_piece(caller, *chat, from, *to, pack)
            }
            Source::Page { chat, from, to } => {
                let chat = *chat;
                self.pieces(caller, |service, pieces| service.put_page(pieces, chat, from, to))
            }
            Source::Updates { chats, cursor, from, to } => {
                self.updates_piece(caller, chats, cursor, (*from, *to))
            }
            Source::Chat(chat) => {
                let chat = self.visible_chat(caller, *chat)?;
                self.pieces(caller, |service, pieces| {
                    service.put_chat(pieces.out(), caller.version, &chat, caller.user)?;
                    Ok(Progress::Ended)
                })
            }
            Source::MyChats { after } => self.my_chats_piece(caller, after),
            Source::Found { prefix, after, left } => self.found_piece(caller, prefix, after, left),
            Source::Users { prefix, after, left, is_operator } => {
                self.users_piece(caller, prefix, after, left, *is_operator)
            }
            Source::Reactions { chat, message, from, to } => {
                let (chat, message, to) = (*chat, *message, *to);
                self.reactions_piece(caller, chat, message, from, to)
            }
            Source::Stored { .. } | Source::File { .. } => self.file_piece(caller, source),
            Source::Members { .. } | Source::Banned { .. } => self.member_pieces(caller, source),
            Source::Search(search) => self.search_piece(caller, search),
        }
    }

    /// Passes `write` the caller's queue as PART frames of this answer.
    pub(super) fn pieces(
        &mut self,
        caller: Caller,
        write: impl FnOnce(&mut Self, &mut Pieces<'_>) -> StoreResult<Progress>,
    ) -> Result<Progress, HandlerError> {
        let mut out = std::mem::take(&mut self.streams.scratch);
        out.clear();
        let mut pieces = Pieces::begin(&mut out, caller);
        let progress = write(self, &mut pieces);
        if let Ok(progress) = &progress
            && let Some(parts) = pieces.finish(progress)
        {
            let is_whole = *progress == Progress::Ended;
            self.outbox.stage_answer(caller.conn.index, &out, parts, is_whole);
        }
        self.streams.scratch = out;
        Ok(progress?)
    }

    /// Counts messages that were read and not sent against the scan budget.
    pub(super) fn note_scanned(&mut self, messages: u32) {
        self.streams.scanned_bytes += messages as usize * SCANNED_MESSAGE_BYTES;
    }

    /// Whether the scan budget of the turn is spent: requests that scan are then answered later, as
    /// a stream.
    pub(super) fn is_scan_budget_spent(&self) -> bool {
        self.streams.scanned_bytes >= SCAN_BUDGET_BYTES
    }
}
