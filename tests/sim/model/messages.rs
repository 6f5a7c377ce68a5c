//! The model of sending, changing, marking and reading messages.

use super::{Caller, Message, Model, Turn};
use crate::wire::{Body, Check, DELETED, EDITED};

impl Model {
    fn content_wrong(&self, content: &str) -> Option<&'static str> {
        if content.is_empty() {
            return Some("empty-message");
        }
        (content.len() > self.rules.content_bytes_max).then_some("too-long")
    }

    pub(super) fn send(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        content: &str,
        (nonce, reply, files): (Option<u64>, Option<i64>, &[u64]),
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let known = nonce.and_then(|nonce| self.chats[&chat].nonces.get(&(me.user, nonce)));
        if let Some(&id) = known {
            self.note("repeated");
            let body = [id.to_le_bytes(), id.to_le_bytes()].concat();
            return self.accept(turn, me.conn, me.task, &body);
        }
        if let Some(code) = self.extras_wrong(turn, me, chat, reply, files) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let is_wrong =
            self.content_wrong(content).filter(|_| files.is_empty() || !content.is_empty());
        if let Some(code) = is_wrong {
            return self.decline(turn, me.conn, me.task, code);
        }
        if self.is_too_soon(turn, me, chat) || self.is_text_spent(turn, me, content.len()) {
            return self.decline(turn, me.conn, me.task, "rate-limited");
        }
        let body = self.accepted(turn, me.conn, me.task)?;
        let mut rest = Body::of(&body);
        let (id, created) = (rest.i64()?, rest.i64()?);
        rest.end()?;
        if id != created {
            return Err(format!("message {id} of {created}"));
        }
        self.event(turn, created)?;
        self.note_text(me, turn.wall, content.len())?;
        let files = self.attach_files(id, files);
        if let Some(found) = self.chats.get_mut(&chat) {
            let content = content.into();
            let (sender, updated, status, reactions) = (me.user, created, 0, Vec::new());
            let new = Message { sender, updated, status, content, reply, files, reactions };
            found.messages.insert(id, new);
            found.by_updated.insert(created, id);
            found.last_sent.insert(me.user, self.now_ms);
            if let Some(nonce) = nonce {
                found.nonces.insert((me.user, nonce), id);
            }
        }
        if let Some(conn) = self.conns.get_mut(&me.conn) {
            conn.accepted_sends.push_back((me.task, chat, created));
        }
        self.note("sent");
        self.owe_message(me, chat, id);
        Ok(())
    }

    /// Whether slow mode may decline a user who has sent or edited recently. (The server forgets
    /// the last send when a user's last connection ends.)
    fn is_too_soon(&self, turn: &Turn<'_>, me: Caller, chat: u32) -> bool {
        let found = &self.chats[&chat];
        let next = turn.staged.get(&me.conn).and_then(|staged| staged.front());
        let was_limited = next.is_some_and(|next| next.body.starts_with(b"rate-limited:"));
        // A change of slow mode counts from when the server takes it up; the wait may begin again
        // then.
        let wait_ms = u64::from(found.slow_mode_s.max(found.slow_before_s)) * 1000;
        let last_ms =
            found.last_sent.get(&me.user).map(|last_ms| found.slow_since_ms.max(*last_ms));
        was_limited && last_ms.is_some_and(|last_ms| self.now_ms - last_ms <= wait_ms)
    }

    /// Reads the time of a change from the answer, and applies the change.
    fn change_message(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        id: i64,
        change: impl FnOnce(&mut Message),
    ) -> Check {
        let body = self.accepted(turn, me.conn, me.task)?;
        let mut rest = Body::of(&body);
        let updated = rest.i64()?;
        rest.end()?;
        self.event(turn, updated)?;
        if let Some(chat) = self.chats.get_mut(&chat)
            && let Some(message) = chat.messages.get_mut(&id)
        {
            chat.by_updated.remove(&message.updated);
            chat.by_updated.insert(updated, id);
            message.updated = updated;
            change(message);
        }
        self.owe_message(me, chat, id);
        Ok(())
    }

    pub(super) fn edit(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        id: i64,
        content: &str,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let found = self.chats[&chat].messages.get(&id).filter(|m| m.status & DELETED == 0);
        let Some(found) = found else {
            return self.decline(turn, me.conn, me.task, "no-such-message");
        };
        if found.sender != me.user {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        let has_files = !found.files.is_empty();
        let is_wrong = self.content_wrong(content).filter(|_| !has_files || !content.is_empty());
        if let Some(code) = is_wrong {
            return self.decline(turn, me.conn, me.task, code);
        }
        if self.is_too_soon(turn, me, chat) || self.is_text_spent(turn, me, content.len()) {
            return self.decline(turn, me.conn, me.task, "rate-limited");
        }
        self.note("edited");
        self.change_message(turn, me, chat, id, |message| {
            message.status |= EDITED;
            message.content = content.into();
        })?;
        self.note_text(me, turn.wall, content.len())?;
        let now_ms = self.now_ms;
        self.chats.get_mut(&chat).map(|chat| chat.last_sent.insert(me.user, now_ms));
        Ok(())
    }

    pub(super) fn delete(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32, id: i64) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let is_admin = self.chats[&chat].members.get(&me.user).is_some_and(|member| member.admin);
        let found = self.chats[&chat].messages.get(&id).filter(|m| m.status & DELETED == 0);
        let Some(found) = found else {
            return self.decline(turn, me.conn, me.task, "no-such-message");
        };
        if found.sender != me.user && !is_admin {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        self.note("deleted");
        self.change_message(turn, me, chat, id, |message| {
            message.status |= DELETED;
            message.content = "".into();
            message.reply = None;
            message.files.clear();
            message.reactions.clear();
        })?;
        self.drop_files(chat, id);
        Ok(())
    }

    pub(super) fn mark_seen(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        time: i64,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let now = turn.after;
        let Some(member) = self.chats.get_mut(&chat).and_then(|c| c.members.get_mut(&me.user))
        else {
            return Ok(());
        };
        let seen = time.min(now);
        if seen <= member.seen {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let member = self.chats.get_mut(&chat).and_then(|c| c.members.get_mut(&me.user));
        let Some(member) = member else { return Ok(()) };
        member.seen = seen;
        self.note("marked");
        self.accept(turn, me.conn, me.task, &[])?;
        self.notify_seen(me, chat, seen);
        Ok(())
    }

    pub(super) fn typing(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if !self.take_change(me) {
            return self.decline(turn, me.conn, me.task, "rate-limited");
        }
        self.accept(turn, me.conn, me.task, &[])?;
        self.notify_typing(me, chat);
        Ok(())
    }
}
