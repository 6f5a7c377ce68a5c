//! Streamed answers (ranges, pagination, updates by cursor) and the backlog of slow consumers:
//! messages read from the database piece by piece, as the peer's buffer has room (protocol section
//! 2, PART; section 3, slow readers).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ChatId, ConnId, FileId, MessageId, ServerTime, UserId};
use crate::limits::{
    LEGACY_PACK_BYTES_MAX, PIECE_BYTES_MAX, STREAM_BYTES_PER_TURN, STREAM_TURN_BYTES,
};
use crate::service::peer::Peer;
use crate::service::search::Search;
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::{Fault, StoreResult};
use crate::wire::Version;
use crate::wire::codec::{Message, Put, put_message};
use crate::wire::decline::Decline;
use crate::wire::frame;
use crate::wire::purpose::ToClient;

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

/// The backlog of a slow consumer: notifications that it still has to get from the database.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Per chat: the time of the first change that was left out.
    missed: BTreeMap<ChatId, ServerTime>,
    /// The same, ordered by time: the next message to deliver is at the first entry or later.
    heads: BTreeSet<(ServerTime, ChatId)>,
    /// Chats of which CHAT_NOTIFY or CHAT_GONE was left out.
    chats: BTreeSet<ChatId>,
    /// After a failed read: the time of the next try, in milliseconds. Until then nothing more is
    /// logged. 0 when the last read succeeded.
    retry_ms: u64,
    /// True when the connection does not read fast enough: then ephemeral events are dropped. False
    /// when the turn had no scan budget left.
    pub(crate) is_slow: bool,
}

impl Backlog {
    /// Records that messages of a chat changed at `since` or later were left out. Calls may come
    /// out of order: chat events are notified at once, the messages of a turn at its end.
    pub(crate) fn leave_out(
        backlog: &mut Option<Box<Self>>,
        chat: ChatId,
        since: ServerTime,
    ) -> &mut Self {
        let backlog = backlog.get_or_insert_default();
        match backlog.missed.entry(chat) {
            Entry::Vacant(entry) => _ = entry.insert(since),
            Entry::Occupied(mut entry) if since < *entry.get() => {
                backlog.heads.remove(&(*entry.get(), chat));
                entry.insert(since);
            }
            Entry::Occupied(_) => return backlog,
        }
        backlog.heads.insert((since, chat));
        backlog
    }

    /// Records that a change of a chat's state at `since` was left out. If the user leaves and
    /// joins again meanwhile, only the final state is notified, so the chat's messages from here on
    /// are needed, too.
    pub(crate) fn leave_out_chat(
        backlog: &mut Option<Box<Self>>,
        chat: ChatId,
        since: ServerTime,
    ) -> &mut Self {
        let backlog = Self::leave_out(backlog, chat, since);
        backlog.chats.insert(chat);
        backlog
    }

    /// Removes the chat whose message is next. Returns it, where to start, and until when its
    /// messages come before those of any other chat.
    fn pop(&mut self) -> Option<(ChatId, ServerTime, ServerTime)> {
        let (from, chat) = self.heads.pop_first()?;
        self.missed.remove(&chat);
        Some((chat, from, self.heads.first().map_or(ServerTime::MAX, |&(next, _)| next)))
    }

    /// Puts a chat back: its messages before `next` are delivered.
    fn push(&mut self, chat: ChatId, next: ServerTime) {
        self.missed.insert(chat, next);
        self.heads.insert((next, chat));
    }
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
    /// REQUEST_CHAT_MSG.
    pub(super) fn request_chat_msg(
        &mut self,
        caller: Caller,
        chat: ChatId,
        from: ServerTime,
        to: Option<ServerTime>,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        let now = self.clock.now();
        let to = to.map_or(now, |to| to.min(now));
        let source = if caller.version >= Version::V1_0 {
            Source::Range { chat, from, to }
        } else {
            Source::Legacy { chat, from, to, pack: Vec::new() }
        };
        self.begin_stream(caller, source);
        Ok(())
    }

    /// REQUEST_CHAT_PAGE.
    pub(super) fn request_chat_page(
        &mut self,
        caller: Caller,
        chat: ChatId,
        before: Option<MessageId>,
        limit: u16,
        is_newer: bool,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        // Messages after this request are not part of the answer, whatever end it asks for.
        let now = self.clock.now();
        if is_newer {
            let after = before.unwrap_or(MessageId::at(ServerTime::ZERO));
            let (from, to) = (PageStart::Ahead(after, limit), MessageId::at(now));
            self.begin_stream(caller, Source::Page { chat, from, to });
            return Ok(());
        }
        let last = before.map_or(now, |before| before.created().previous().min(now));
        let to = MessageId::at(last);
        let from = PageStart::Back(limit);
        self.begin_stream(caller, Source::Page { chat, from, to });
        Ok(())
    }

    /// REQUEST_UPDATES.
    pub(super) fn request_updates(&mut self, caller: Caller, from: ServerTime) -> HandlerResult {
        let chats = self.chats_of(caller.user);
        let to = self.clock.now();
        self.begin_stream(caller, Source::Updates { chats, cursor: from, from, to });
        Ok(())
    }

    /// GET_MY_CHATS.
    pub(super) fn get_my_chats(&mut self, caller: Caller) -> HandlerResult {
        self.begin_stream(caller, Source::MyChats { after: None });
        Ok(())
    }

    /// GET_MEMBERS.
    pub(super) fn get_members(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        self.require_member(caller, chat)?;
        self.begin_stream(caller, Source::Members { chat, after: None });
        Ok(())
    }

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
                let (from, to) = (*from, *to);
                self.pieces(caller, |service, pieces| {
                    for _ in 0..CHATS_PER_PIECE {
                        if service.is_scan_budget_spent() {
                            break;
                        }
                        service.streams.scanned_bytes += SCAN_BUDGET_BYTES / CHATS_PER_PIECE;
                        let Some(&chat) = chats.last() else { return Ok(Progress::Ended) };
                        if service.presence.roster.membership(caller.user, chat).is_none() {
                            // The user has left the chat meanwhile, so it is skipped.
                            service.notify_gone_first(caller.conn, chat);
                        } else if service.put_range(pieces, chat, cursor, to, true)?
                            == Progress::More
                        {
                            return Ok(Progress::More);
                        }
                        chats.pop();
                        *cursor = from;
                    }
                    Ok(Progress::More)
                })
            }
            Source::Chat(chat) => {
                let chat = self.visible_chat(caller, *chat)?;
                self.pieces(caller, |service, pieces| {
                    service.put_chat(pieces.out, caller.version, &chat, caller.user)?;
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

    /// Sends CHAT_GONE from the backlog at once, before the end of an answer that skips this chat.
    /// Otherwise a client could take the answer as complete and be cut off before CHAT_GONE. If its
    /// user then joined again, it would never read the messages in between.
    fn notify_gone_first(&mut self, conn: ConnId, chat: ChatId) {
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        let Some(backlog) = &mut peer.backlog else { return };
        if backlog.chats.remove(&chat) {
            let task = peer.next_notify_task();
            self.outbox.stage_frame(conn.index, ToClient::ChatGone, task, |body| {
                body.put_u32(chat.get());
            });
        }
    }

    fn my_chats_piece(
        &mut self,
        caller: Caller,
        after: &mut Option<ChatId>,
    ) -> Result<Progress, HandlerError> {
        /// Chats read from the database at once.
        const CHATS: usize = 256;
        self.pieces(caller, |service, pieces| {
            loop {
                let chats = service.store.my_chats(caller.user, *after, CHATS)?;
                for mine in &chats {
                    if service.is_scan_budget_spent() || !pieces.has_budget() {
                        return Ok(Progress::More);
                    }
                    service.put_mine(pieces.out, caller.version, caller.user, mine)?;
                    *after = Some(mine.chat);
                }
                if chats.len() < CHATS {
                    return Ok(Progress::Ended);
                }
            }
        })
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

    fn put_range(
        &mut self,
        pieces: &mut Pieces<'_>,
        chat: ChatId,
        from: &mut ServerTime,
        to: ServerTime,
        with_chat: bool,
    ) -> StoreResult<Progress> {
        let walk = self.store.messages_updated(chat, *from, to, |message| {
            if !pieces.has_budget() {
                return false;
            }
            if with_chat {
                pieces.out.put_u32(chat.get());
            }
            put_message(pieces.out, pieces.version, message);
            true
        })?;
        self.note_scanned(walk.passed_over);
        Ok(match walk.stopped_at {
            None => Progress::Ended,
            Some(at) => {
                *from = at;
                Progress::More
            }
        })
    }

    fn put_page(
        &mut self,
        pieces: &mut Pieces<'_>,
        chat: ChatId,
        from: &mut PageStart,
        to: &mut MessageId,
    ) -> StoreResult<Progress> {
        let begin = match *from {
            PageStart::At(begin) => begin,
            PageStart::Back(limit) => {
                self.streams.scanned_bytes += usize::from(limit) * PAGE_MESSAGE_COST;
                let Some(begin) = self.store.page_start(chat, *to, limit)? else {
                    return Ok(Progress::Ended);
                };
                begin
            }
            PageStart::Ahead(after, limit) => {
                self.streams.scanned_bytes += usize::from(limit) * PAGE_MESSAGE_COST;
                let end = self.store.page_end(chat, after, limit)?;
                let Some(end) = end.filter(|_| after < *to) else {
                    return Ok(Progress::Ended);
                };
                *to = end.min(*to);
                MessageId::at(after.created().next())
            }
        };
        let stopped = self.store.messages_by_id(chat, begin, *to, |message| {
            if !pieces.has_budget() {
                return false;
            }
            put_message(pieces.out, pieces.version, message);
            true
        })?;
        Ok(match stopped {
            None => Progress::Ended,
            Some(at) => {
                *from = PageStart::At(at);
                Progress::More
            }
        })
    }

    /// The next part of the single ACCEPTED that 0.1 expects.
    fn legacy_piece(
        &mut self,
        caller: Caller,
        chat: ChatId,
        from: &mut ServerTime,
        to: ServerTime,
        pack: &mut Vec<u8>,
    ) -> Result<Progress, HandlerError> {
        let upto = pack.len() + STREAM_BYTES_PER_TURN;
        let mut is_full = false;
        let walk = self.store.messages_updated(chat, *from, to, |message| {
            let bytes = message.bytes(caller.version);
            is_full = pack.len() + bytes > LEGACY_PACK_BYTES_MAX;
            if is_full || pack.len() >= upto {
                return false;
            }
            put_message(pack, caller.version, message);
            true
        })?;
        // The queue does not show these bytes before the end, so count them here.
        self.streams.scanned_bytes += pack.len() + STREAM_BYTES_PER_TURN - upto;
        self.note_scanned(walk.passed_over);
        match walk.stopped_at {
            Some(at) if is_full => Err(Decline::RangeTooLarge(at.previous()).into()),
            Some(at) => {
                *from = at;
                Ok(Progress::More)
            }
            None => {
                self.accept(caller, |body| body.put_bytes(pack));
                Ok(Progress::Ended)
            }
        }
    }

    fn member_pieces(
        &mut self,
        caller: Caller,
        source: &mut Source,
    ) -> Result<Progress, HandlerError> {
        const ROWS: u32 = 256;
        let mut next = None;
        let progress = match source {
            Source::Members { chat, after } => {
                let chat = *chat;
                let me = self.require_member(caller, chat)?;
                self.pieces(caller, |service, pieces| {
                    let members = service.store.members(chat, *after, ROWS)?;
                    for (member, nickname) in &members {
                        service.put_member(pieces.out, member, nickname);
                        *after = Some(member.user);
                    }
                    let is_last = members.len() < ROWS as usize;
                    if is_last && me.admin {
                        next = Some(Source::Banned { chat, after: None });
                    }
                    Ok(if is_last && !me.admin { Progress::Ended } else { Progress::More })
                })?
            }
            Source::Banned { chat, after } => {
                let chat = *chat;
                let is_admin = self.require_member(caller, chat)?.admin;
                self.pieces(caller, |service, pieces| {
                    if !is_admin {
                        // No longer an admin: the banned users are left out from here on.
                        return Ok(Progress::Ended);
                    }
                    let banned = service.store.banned(chat, *after, ROWS)?;
                    for (user, nickname) in &banned {
                        service.put_banned(pieces.out, *user, nickname);
                        *after = Some(*user);
                    }
                    let is_last = banned.len() < ROWS as usize;
                    Ok(if is_last { Progress::Ended } else { Progress::More })
                })?
            }
            _ => Progress::Ended,
        };
        if let Some(next) = next {
            *source = next;
        }
        Ok(progress)
    }

    /// Delivers the backlog of a slow consumer, in order of server time over all chats, as far as
    /// its queue has capacity. True when nothing is left and notifications are live again.
    fn deliver_backlog(&mut self, conn: ConnId, backlog: &mut Backlog) -> bool {
        let Some(user) = self.presence.peers.get(conn).and_then(|peer| peer.user()) else {
            return true;
        };
        let most = self.outbound_budget(conn.index).min(STREAM_BYTES_PER_TURN);
        while self.outbox.pending_bytes(conn.index) <= most && !self.is_scan_budget_spent() {
            let got = if let Some(&chat) = backlog.chats.first() {
                self.try_notify_chat_state(conn, user, chat).map(|()| {
                    backlog.chats.remove(&chat);
                })
            } else if let Some((chat, from, until)) = backlog.pop() {
                let is_member = self.presence.roster.membership(user, chat).is_some();
                let delivered = is_member.then(|| self.deliver_missed(conn, chat, from, until));
                match delivered.transpose() {
                    Ok(stopped_at) => {
                        if let Some(next) = stopped_at.flatten() {
                            backlog.push(chat, next);
                        }
                        Ok(())
                    }
                    Err(error) => {
                        backlog.push(chat, from);
                        Err(error)
                    }
                }
            } else {
                return true;
            };
            if let Err(error) = got {
                // The database cannot be read now: the rest waits.
                if backlog.retry_ms == 0 || error.fault == Fault::Lost {
                    self.reason(error.into());
                }
                backlog.retry_ms = self.clock.now_ms() + BACKLOG_RETRY_MS;
                return false;
            }
            backlog.retry_ms = 0;
        }
        false
    }

    /// Sends one MSG_NOTIFY of messages changed from `from` up to `until`, read from the database.
    /// Returns where to continue, if there is more. Every call makes progress: it stops at a
    /// message after `until`, at a full piece, or after many messages that come at a later time.
    fn deliver_missed(
        &mut self,
        conn: ConnId,
        chat: ChatId,
        from: ServerTime,
        until: ServerTime,
    ) -> StoreResult<Option<ServerTime>> {
        let mut pack = std::mem::take(&mut self.streams.scratch);
        pack.clear();
        let now = self.clock.now();
        let version = self.presence.peers.get(conn).map_or(Version::V0_1, Peer::version);
        let walk = self.store.messages_updated(chat, from, now, |message: &Message<'_>| {
            // No two messages share a time, so a message at `until` comes before the other chat's.
            if message.updated > until || pack.len() >= PIECE_BYTES_MAX {
                return false;
            }
            put_message(&mut pack, version, message);
            true
        });
        if walk.is_ok()
            && !pack.is_empty()
            && let Some(peer) = self.presence.peers.get_mut(conn)
        {
            let task = peer.next_notify_task();
            self.outbox.stage_frame(conn.index, ToClient::MsgNotify, task, |body| {
                body.put_u32(chat.get());
                body.put_bytes(&pack);
            });
        }
        self.streams.scratch = pack;
        let walk = walk?;
        self.note_scanned(walk.passed_over);
        Ok(walk.stopped_at)
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

/// The scan budget, in bytes: for one piece of a stream, and for all answers given at once in one
/// turn. About a millisecond of work.
pub(super) const SCAN_BUDGET_BYTES: usize = STREAM_TURN_BYTES / 4;

/// Milliseconds until a failed read for a backlog is retried.
const BACKLOG_RETRY_MS: u64 = 1_000;

/// Bytes of the scan budget for a message that is read and not sent.
const SCANNED_MESSAGE_BYTES: usize = 16;

/// Bytes of the scan budget for each message counted to find where a page begins.
const PAGE_MESSAGE_COST: usize = 8;

/// Chats read for one piece of REQUEST_UPDATES: most of them have no changes.
const CHATS_PER_PIECE: usize = 256;
