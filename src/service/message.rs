//! Sending (idempotent by a nonce), changing and marking messages (protocol sections 4 and 5).

use crate::ids::{ChatId, MessageId, ServerTime};
use crate::service::roster::Membership;
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::messages::MessageState;
use crate::wire::codec::{Message, Put, STATUS_DELETED, STATUS_EDITED};
use crate::wire::decline::Decline;
use crate::wire::extras::{Extras, put_file_lines};

impl Service<'_> {
    /// SEND_CHAT_MSG: the hot path. The nonce is an idempotency key: a repeated send gets the
    /// answer of the first. Without a nonce, a send costs one INSERT and no other SQL.
    pub(super) fn send_chat_msg(
        &mut self,
        caller: Caller,
        chat: ChatId,
        content: &str,
        nonce: Option<u64>,
        sent: Extras<'_>,
    ) -> HandlerResult {
        let Some(membership) = self.presence.roster.membership(caller.user, chat) else {
            return Err(self.no_member(chat)?);
        };
        if let Some(nonce) = nonce
            && let Some(first) = self.store.message_by_nonce(chat, caller.user, nonce)?
        {
            self.accept_sent(caller, first);
            return Ok(());
        }
        if !sent.is_empty() {
            return self.send_with_extras(caller, membership, content, nonce, sent);
        }
        self.check_content(content)?;
        self.check_send_limits(caller, membership, content)?;
        self.may_write()?;
        self.note_limited(caller, membership, content)?;
        let created = self.clock.next();
        let id = MessageId::at(created);
        self.store.add_message(chat, id, caller.user, content)?;
        if let Some(nonce) = nonce {
            self.store.add_nonce(chat, caller.user, nonce, id)?;
        }
        let (sender, updated) = (caller.user, created);
        let message =
            Message { id, sender, created, updated, status: 0, content, extras: Extras::NONE };
        self.notify_message(caller, chat, &message);
        self.accept_sent(caller, id);
        self.background.indexing.note_message(caller.user, chat, id);
        self.background.counting.note_sent(chat, caller.user, created);
        self.background.pushing.note_sent(chat, created);
        Ok(())
    }

    /// Sends a message that answers another one, or has files.
    fn send_with_extras(
        &mut self,
        caller: Caller,
        membership: Membership,
        content: &str,
        nonce: Option<u64>,
        sent: Extras<'_>,
    ) -> HandlerResult {
        let chat = membership.chat;
        self.may_write()?;
        if let Some(reply_to) = sent.reply() {
            self.message_to_change(chat, reply_to)?;
        }
        let files = self.attachable(caller, chat, sent)?;
        if files.is_empty() || !content.is_empty() {
            self.check_content(content)?;
        }
        self.check_send_limits(caller, membership, content)?;
        self.note_limited(caller, membership, content)?;
        let created = self.clock.next();
        let id = MessageId::at(created);
        self.store.add_message(chat, id, caller.user, content)?;
        if let Some(nonce) = nonce {
            self.store.add_nonce(chat, caller.user, nonce, id)?;
        }
        if let Some(reply_to) = sent.reply() {
            self.store.add_reply(chat, id, reply_to)?;
        }
        self.store.attach_files(chat, id, &files)?;
        let state = self.message_to_change(chat, id)?;
        let mut extras = Vec::new();
        self.store.put_extras(chat, id, state.row_status, &mut extras)?;
        let message = Message {
            id,
            sender: caller.user,
            created,
            updated: created,
            status: 0,
            content,
            extras: Extras::trusted(&extras),
        };
        self.notify_message(caller, chat, &message);
        self.accept_sent(caller, id);
        self.background.indexing.note_message(caller.user, chat, id);
        self.background.counting.note_sent(chat, caller.user, created);
        self.background.pushing.note_sent(chat, created);
        Ok(())
    }

    fn accept_sent(&mut self, caller: Caller, id: MessageId) {
        self.accept(caller, |body| {
            body.put_u64(id.get());
            body.put_time(id.created());
        });
    }

    fn check_content(&self, content: &str) -> HandlerResult {
        let max = self.config.content_bytes_max;
        if content.is_empty() {
            return Err(Decline::EmptyMessage.into());
        }
        if content.len() > max {
            return Err(Decline::TooLong(max, "bytes in a message").into());
        }
        Ok(())
    }

    /// Declines for the slow mode of the chat, or for the user's limits on sends and edits.
    fn check_send_limits(
        &mut self,
        caller: Caller,
        membership: Membership,
        content: &str,
    ) -> HandlerResult {
        let mut wait_ns = self.send_wait_ns(caller.user, content.len())?;
        if self.slow_mode_s(membership) > 0 {
            let wait_ms =
                self.limits.sends.wait_ms(caller.user, membership.chat, self.clock.now_ms());
            wait_ns = wait_ns.max(wait_ms * 1_000_000);
        }
        Self::check_wait_ns(wait_ns)
    }

    /// Counts a send or an edit against all of these limits.
    fn note_limited(
        &mut self,
        caller: Caller,
        membership: Membership,
        content: &str,
    ) -> HandlerResult {
        self.note_send(caller.user, content.len())?;
        let slow_mode_s = self.slow_mode_s(membership);
        if slow_mode_s > 0 {
            let key = (caller.user, membership.chat);
            let before = self.limits.sends.note(key, slow_mode_s, self.clock.now_ms());
            self.turn.limited_sends.push(before);
        }
        Ok(())
    }

    fn slow_mode_s(&self, membership: Membership) -> u32 {
        self.presence.roster.chat(membership.slot).map_or(0, |chat| chat.slow_mode_s)
    }

    pub(super) fn mark_seen(
        &mut self,
        caller: Caller,
        chat: ChatId,
        time: ServerTime,
    ) -> HandlerResult {
        let member = self.require_member(caller, chat)?;
        let seen = time.min(self.clock.now());
        if seen <= member.seen {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.set_seen(chat, caller.user, seen)?;
        self.note_seen(chat, caller.user, seen)?;
        self.accept(caller, |_| {});
        self.notify_seen(caller, chat, seen);
        Ok(())
    }

    /// A message that exists and is not deleted.
    pub(super) fn message_to_change(
        &mut self,
        chat: ChatId,
        message: MessageId,
    ) -> Result<MessageState, HandlerError> {
        let found = self.store.message_state(chat, message)?;
        let found = found.filter(|found| found.status & STATUS_DELETED == 0);
        Ok(found.ok_or(Decline::NoSuchMessage)?)
    }

    pub(super) fn edit_msg(
        &mut self,
        caller: Caller,
        chat: ChatId,
        id: MessageId,
        content: &str,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        let Some(membership) = self.presence.roster.membership(caller.user, chat) else {
            return Err(self.no_member(chat)?);
        };
        let found = self.message_to_change(chat, id)?;
        if found.sender != caller.user {
            return Err(Decline::Forbidden("only its author may edit a message").into());
        }
        let mut extras = Vec::new();
        self.store.put_extras(chat, id, found.row_status, &mut extras)?;
        let extras = Extras::trusted(&extras);
        let mut content = content;
        if found.has_files() && !caller.version.has_extras() {
            content = without_file_lines(content, extras);
        }
        if !found.has_files() || !content.is_empty() {
            self.check_content(content)?;
        }
        self.check_send_limits(caller, membership, content)?;
        self.may_write()?;
        self.note_limited(caller, membership, content)?;
        let updated = self.clock.next();
        self.store.edit_message(chat, id, updated, content)?;
        self.background.indexing.note_change();
        self.notify_message(
            caller,
            chat,
            &Message {
                id,
                sender: found.sender,
                created: id.created(),
                updated,
                status: found.status | STATUS_EDITED,
                content,
                extras,
            },
        );
        self.accept(caller, |body| body.put_time(updated));
        Ok(())
    }

    pub(super) fn delete_msg(
        &mut self,
        caller: Caller,
        chat: ChatId,
        id: MessageId,
    ) -> HandlerResult {
        let me = self.require_member(caller, chat)?;
        let found = self.message_to_change(chat, id)?;
        if found.sender != caller.user && !me.admin {
            let why = "only its author or an admin of the chat may delete a message";
            return Err(Decline::Forbidden(why).into());
        }
        self.may_write()?;
        let updated = self.clock.next();
        self.store.delete_message(chat, id, updated)?;
        if found.has_files() {
            self.background.housekeeping.erasing.erase_files_soon();
        }
        self.background.indexing.note_change();
        self.notify_message(
            caller,
            chat,
            &Message {
                id,
                sender: found.sender,
                created: id.created(),
                updated,
                status: found.status | STATUS_DELETED,
                content: "",
                extras: Extras::NONE,
            },
        );
        self.accept(caller, |body| body.put_time(updated));
        Ok(())
    }

    pub(super) fn typing(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        self.require_member(caller, chat)?;
        self.spend_change(caller.user)?;
        self.accept(caller, |_| {});
        self.notify_typing(chat, caller.user);
        Ok(())
    }
}

/// Strips the lines that stand for files from an edited content. A connection without extras gets
/// them at the end of the text, and sends them back.
fn without_file_lines<'a>(content: &'a str, extras: Extras<'_>) -> &'a str {
    let mut lines = Vec::new();
    put_file_lines(&mut lines, extras, true);
    let Ok(lines) = std::str::from_utf8(&lines) else { return content };
    if lines.get(1..) == Some(content) {
        return "";
    }
    content.strip_suffix(lines).unwrap_or(content)
}
