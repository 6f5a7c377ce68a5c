//! Notifications: who gets which one, and in which order (the fan-out of messages and events).

use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits::EPHEMERAL_MEMBERS_MAX;
use crate::service::backlog::Backlog;
use crate::service::{Caller, Service};
use crate::store::StoreResult;
use crate::wire::answer::MemberEvent;
use crate::wire::codec::{Message, Put};
use crate::wire::purpose::ToClient;

impl Service<'_> {
    /// Adds a new or changed message to the turn's batch. The connection that sent it gets the
    /// batch up to its message right away, so that its answer does not overtake earlier messages.
    pub(super) fn notify_message(&mut self, caller: Caller, chat: ChatId, message: &Message<'_>) {
        if !self.begin_batch(chat) {
            return;
        }
        // No limit: none of these messages may come after the answer.
        self.notify_batch_to(caller.conn.index, usize::MAX, false);
        self.turn.batch.push(&mut self.outbox, message);
        if let Some(peer) = self.presence.peers.get_mut(caller.conn) {
            self.turn.batch.set_mark(peer);
        }
    }

    /// Adds a message that no connection sent to the turn's batch.
    pub(super) fn notify_message_of_nobody(&mut self, chat: ChatId, message: &Message<'_>) {
        if self.begin_batch(chat) {
            self.turn.batch.push(&mut self.outbox, message);
        }
    }

    /// Makes the batch one of this chat, ending that of another. False when nobody is online to
    /// notify.
    fn begin_batch(&mut self, chat: ChatId) -> bool {
        let Some(slot) = self.presence.roster.slot(chat) else { return false };
        if self.turn.batch.chat != Some(chat) {
            self.notify_so_far();
            let base = self.outbox.broadcast_mut().len();
            self.turn.batch.begin(chat, slot, base);
        }
        true
    }

    /// Stages the rest of the batch for one connection. `is_whole`: the batch is complete.
    pub(super) fn notify_batch_to(&mut self, index: u32, limit: usize, is_whole: bool) {
        let Some(peer) = self.presence.peers.at_mut(index) else { return };
        let from = self.turn.batch.mark(peer);
        if from >= self.turn.batch.len() {
            return;
        }
        let was_live = peer.backlog.is_none();
        if is_whole && self.turn.batch.is_to_extend(peer.version()) {
            self.turn.batch.extend_broadcast(&mut self.outbox);
        }
        self.turn.batch.deliver(&mut self.outbox, peer, from, limit);
        if was_live && peer.backlog.is_some() {
            self.streams.pumping.push(peer.conn);
        }
    }

    /// Fan-out: stages the batch for every online member of its chat, and ends it.
    pub(super) fn notify_batch(&mut self) {
        let (chat, slot) = (self.turn.batch.chat, self.turn.batch.slot);
        let online = self.presence.roster.chat(slot).filter(|online| Some(online.chat) == chat);
        let count = online.map_or(0, |online| online.conns.len());
        for place in 0..count {
            let online = self.presence.roster.chat(slot);
            let Some(&index) = online.and_then(|online| online.conns.get(place)) else { break };
            self.notify_batch_to(index, self.outbound_limit(index), true);
        }
        self.turn.batch.end();
    }

    /// The same in the middle of a turn, before messages of another chat or a change of recipients.
    /// The turn is not committed yet, so connections are saved first for an undo.
    pub(super) fn notify_so_far(&mut self) {
        let Some(chat) = self.turn.batch.chat else { return };
        for &index in self.presence.roster.conns(chat) {
            if let Some(peer) = self.presence.peers.at_mut(index) {
                self.turn.save(peer);
            }
        }
        self.notify_batch();
    }

    /// Stages one notification for one connection, unless it speaks 0.1. `is_ephemeral`: dropped
    /// for a slow consumer.
    fn notify(
        &mut self,
        index: u32,
        purpose: ToClient,
        is_ephemeral: bool,
        chat: Option<ChatId>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let limit = self.outbound_limit(index);
        let Some(peer) = self.presence.peers.at_mut(index) else { return };
        if !peer.is_modern() {
            return;
        }
        let pending = self.outbox.pending_bytes(index);
        let is_slow = peer.backlog.as_ref().is_some_and(|backlog| backlog.is_slow);
        if is_ephemeral && (is_slow || pending > limit / 2) {
            return;
        }
        if let Some(chat) = chat
            && (peer.backlog.is_some() || pending > limit)
        {
            return self.leave_out_chat(index, chat, pending > limit);
        }
        self.turn.save(peer);
        let task = peer.next_notify_task();
        self.outbox.stage_frame(index, purpose, task, write);
    }

    /// Puts the state of a chat into a connection's backlog, to be notified later.
    fn leave_out_chat(&mut self, index: u32, chat: ChatId, is_slow: bool) {
        let Some(peer) = self.presence.peers.at_mut(index) else { return };
        if self.outbox.is_closed(index) {
            return;
        }
        if peer.backlog.is_none() {
            self.streams.pumping.push(peer.conn);
        }
        let since = self.clock.last().next();
        Backlog::leave_out_chat(&mut peer.backlog, chat, since).is_slow |= is_slow;
    }

    /// MEMBER_NOTIFY to the other members of a chat.
    pub(super) fn notify_member(
        &mut self,
        chat: ChatId,
        user: UserId,
        event: MemberEvent,
        nickname: &str,
        except: Option<ConnId>,
    ) {
        for index in self.others(chat, Some(user), except) {
            self.notify(index, ToClient::MemberNotify, true, None, |body| {
                body.put_u32(chat.get());
                body.put_u32(user.get());
                body.put_u8(event as u8);
                body.put_str(nickname);
            });
        }
    }

    /// SEEN_NOTIFY to the members, including the caller's other connections.
    pub(super) fn notify_seen(&mut self, caller: Caller, chat: ChatId, seen: ServerTime) {
        let user = caller.user;
        let is_small = self.presence.roster.conns(chat).len() <= EPHEMERAL_MEMBERS_MAX;
        let own = || {
            self.presence
                .roster
                .user(user)
                .map(|online| online.active().to_vec())
                .unwrap_or_default()
        };
        let recipients = if is_small { self.others(chat, None, Some(caller.conn)) } else { own() };
        for index in recipients.into_iter().filter(|&index| index != caller.conn.index) {
            self.notify(index, ToClient::SeenNotify, true, None, |body| {
                body.put_u32(chat.get());
                body.put_u32(user.get());
                body.put_time(seen);
            });
        }
    }

    /// TYPING_NOTIFY to the other members.
    pub(super) fn notify_typing(&mut self, chat: ChatId, user: UserId) {
        if self.presence.roster.conns(chat).len() > EPHEMERAL_MEMBERS_MAX {
            return;
        }
        for index in self.others(chat, Some(user), None) {
            self.notify(index, ToClient::TypingNotify, true, None, |body| {
                body.put_u32(chat.get());
                body.put_u32(user.get());
            });
        }
    }

    /// PRESENCE_NOTIFY to every user who shares a chat with this one.
    pub(super) fn notify_presence(&mut self, user: UserId, is_online: bool) {
        let mut recipients: Vec<u32> = Vec::new();
        // For a user who is offline now, the chats come from the database; otherwise from the
        // roster.
        let chats = match self.presence.roster.user(user) {
            Some(_) => self.chats_of(user),
            None => match self.store.memberships(user) {
                Ok(members) => members.into_iter().map(|member| member.chat).collect(),
                Err(_) => return,
            },
        };
        for chat in chats {
            let conns = self.presence.roster.conns(chat);
            if conns.len() <= EPHEMERAL_MEMBERS_MAX {
                recipients.extend_from_slice(conns);
            }
        }
        recipients.sort_unstable();
        recipients.dedup();
        for index in recipients {
            if self.presence.peers.at(index).and_then(|peer| peer.user()) == Some(user) {
                continue;
            }
            self.notify(index, ToClient::PresenceNotify, true, None, |body| {
                body.put_u32(user.get());
                body.put_bool(is_online);
            });
        }
    }

    /// The connections of a chat that speak 1.0 or later, except those of `user` and `except`.
    fn others(&self, chat: ChatId, user: Option<UserId>, except: Option<ConnId>) -> Vec<u32> {
        let is_recipient = |index: &u32| {
            let peer = self.presence.peers.at(*index);
            peer.is_some_and(|peer| {
                peer.is_modern()
                    && Some(peer.conn) != except
                    && (user.is_none() || peer.user() != user)
            })
        };
        self.presence.roster.conns(chat).iter().copied().filter(is_recipient).collect()
    }

    /// CHAT_NOTIFY or CHAT_GONE, by the present state, to a user's connections except one.
    pub(super) fn notify_user_chat(&mut self, user: UserId, chat: ChatId, except: Option<ConnId>) {
        let conns = self
            .presence
            .roster
            .user(user)
            .map(|online| online.active().to_vec())
            .unwrap_or_default();
        for index in conns {
            let Some(peer) = self.presence.peers.at(index) else { continue };
            if Some(peer.conn) != except {
                self.notify_chat_state(peer.conn, user, chat);
            }
        }
    }

    /// CHAT_NOTIFY to all members of a chat, on every connection except one.
    pub(super) fn notify_chat(&mut self, chat: ChatId, except: Option<ConnId>) {
        for index in self.others(chat, None, except) {
            let Some(peer) = self.presence.peers.at(index) else { continue };
            if let Some(user) = peer.user() {
                self.notify_chat_state(peer.conn, user, chat);
            }
        }
    }

    /// CHAT_NOTIFY of a change that only 1.1 shows, to all members on 1.1 except one connection.
    pub(super) fn notify_chat_with_extras(&mut self, chat: ChatId, except: Option<ConnId>) {
        for index in self.others(chat, None, except) {
            let Some(peer) = self.presence.peers.at(index) else { continue };
            if let Some(user) = peer.user().filter(|_| peer.version().has_extras()) {
                self.notify_chat_state(peer.conn, user, chat);
            }
        }
    }

    /// The same, to the caller's other connections.
    pub(super) fn notify_own_with_extras(&mut self, caller: Caller, chat: ChatId) {
        let conns = self.presence.roster.user(caller.user).map(|online| online.active().to_vec());
        for index in conns.unwrap_or_default() {
            let Some(peer) = self.presence.peers.at(index) else { continue };
            if peer.conn != caller.conn && peer.version().has_extras() {
                self.notify_chat_state(peer.conn, caller.user, chat);
            }
        }
    }

    /// Notifies one connection of a chat's present state; through the backlog if it has one, or if
    /// the scan budget of the turn is spent.
    fn notify_chat_state(&mut self, conn: ConnId, user: UserId, chat: ChatId) {
        let Some(peer) = self.presence.peers.get(conn) else { return };
        if peer.is_modern() && (peer.backlog.is_some() || self.is_scan_budget_spent()) {
            return self.leave_out_chat(conn.index, chat, false);
        }
        let sent = self.try_notify_chat_state(conn, user, chat);
        self.note_failure(sent);
    }

    /// The same, for callers that must not fail the turn.
    ///
    /// # Errors
    /// When the database cannot be read; nothing is staged then.
    pub(super) fn try_notify_chat_state(
        &mut self,
        conn: ConnId,
        user: UserId,
        chat: ChatId,
    ) -> StoreResult<()> {
        let Some(peer) = self.presence.peers.get(conn).filter(|peer| peer.is_modern()) else {
            return Ok(());
        };
        let version = peer.version();
        let is_member = self.presence.roster.membership(user, chat).is_some();
        let mut info = std::mem::take(&mut self.streams.notice);
        info.clear();
        let found =
            if is_member { self.put_my_chat(&mut info, version, user, chat) } else { Ok(false) };
        match &found {
            Ok(true) => self.notify(conn.index, ToClient::ChatNotify, false, Some(chat), |body| {
                body.put_bytes(&info);
            }),
            Ok(false) => self.notify(conn.index, ToClient::ChatGone, false, Some(chat), |body| {
                body.put_u32(chat.get());
            }),
            Err(_) => {}
        }
        self.streams.notice = info;
        found.map(drop)
    }

    /// Stages a frame that answers no request, such as a keepalive probe.
    pub fn stage_bare(&mut self, conn: ConnId, purpose: ToClient) {
        if self.presence.peers.get(conn).is_some() {
            self.outbox.stage_bare(conn.index, purpose);
        }
    }
}
