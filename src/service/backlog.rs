//! The backlog of a slow consumer: notifications that its outbound buffer had no capacity for.
//!
//! They are delivered later from the database, in order of server time (protocol section 3, "Slow
//! consumers").

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ChatId, ConnId, ServerTime};
use crate::limits::{PIECE_BYTES_MAX, STREAM_BYTES_PER_TURN};
use crate::service::Service;
use crate::service::peer::Peer;
use crate::store::{Fault, StoreResult};
use crate::wire::Version;
use crate::wire::codec::{Message, Put, put_message};
use crate::wire::purpose::ToClient;

/// Milliseconds until a failed read for a backlog is retried.
const BACKLOG_RETRY_MS: u64 = 1_000;

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
    pub(super) retry_ms: u64,
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

impl Service<'_> {
    /// Delivers the backlog of a slow consumer, in order of server time over all chats, as far as
    /// its queue has capacity. True when nothing is left and notifications are live again.
    pub(super) fn deliver_backlog(&mut self, conn: ConnId, backlog: &mut Backlog) -> bool {
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

    /// Sends CHAT_GONE from the backlog at once, before the end of an answer that skips this chat.
    /// Otherwise a client could take the answer as complete and be cut off before CHAT_GONE. If its
    /// user then joined again, it would never read the messages in between.
    pub(super) fn notify_gone_first(&mut self, conn: ConnId, chat: ChatId) {
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        let Some(backlog) = &mut peer.backlog else { return };
        if backlog.chats.remove(&chat) {
            let task = peer.next_notify_task();
            self.outbox.stage_frame(conn.index, ToClient::ChatGone, task, |body| {
                body.put_u32(chat.get());
            });
        }
    }
}
