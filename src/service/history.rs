//! Reads of messages: ranges, pagination, and updates by cursor; long ones as streamed answers.

use crate::ids::{ChatId, MessageId, ServerTime};
use crate::limits::{LEGACY_PACK_BYTES_MAX, STREAM_BYTES_PER_TURN};
use crate::service::stream::{PageStart, Pieces, Progress, SCAN_BUDGET_BYTES, Source};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::wire::Version;
use crate::wire::codec::{Put, put_message};
use crate::wire::decline::Decline;

/// Bytes of the scan budget for each message counted to find where a page begins.
const PAGE_MESSAGE_COST: usize = 8;

/// Chats read for one piece of REQUEST_UPDATES: most of them have no changes.
const CHATS_PER_PIECE: usize = 256;

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

    pub(super) fn put_range(
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
                pieces.out().put_u32(chat.get());
            }
            let version = pieces.version;
            put_message(pieces.out(), version, message);
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

    pub(super) fn put_page(
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
            let version = pieces.version;
            put_message(pieces.out(), version, message);
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

    /// The changes of the next chats, the last of `chats` first, from `cursor` on in that one.
    pub(super) fn updates_piece(
        &mut self,
        caller: Caller,
        chats: &mut Vec<ChatId>,
        cursor: &mut ServerTime,
        (from, to): (ServerTime, ServerTime),
    ) -> Result<Progress, HandlerError> {
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
                } else if service.put_range(pieces, chat, cursor, to, true)? == Progress::More {
                    return Ok(Progress::More);
                }
                chats.pop();
                *cursor = from;
            }
            Ok(Progress::More)
        })
    }

    /// The next part of the single ACCEPTED that 0.1 expects.
    pub(super) fn legacy_piece(
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
}
