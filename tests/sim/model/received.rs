//! Compares the notifications that a connection received with those owed to it.

use std::rc::Rc;

use vestnik::ids::ConnId;

use super::{Conn, Model};
use crate::wire::{
    ACCEPTED, Body, CHAT_GONE, CHAT_NOTIFY, Check, DEAUTH, DECLINED, DISCONNECT, Frame, HEARTBEAT,
    MEMBER_NOTIFY, MSG_NOTIFY, Message, PART, PRESENCE_NOTIFY, REACTION_NOTIFY, SEEN_NOTIFY,
    TYPING_NOTIFY,
};

/// The part of a turn in which something was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// In the turn, about its requests.
    Turn,
    /// After it: streamed answers and backlogs.
    Pump,
}

impl Model {
    /// Checks everything sent to a connection in one phase.
    pub(crate) fn got(&mut self, conn: ConnId, frames: &[Frame], phase: Phase) -> Check {
        for frame in frames {
            self.sent_frame(conn, frame, phase).map_err(|wrong| {
                format!("{conn} was notified {} ({phase:?}): {wrong}", frame.words())
            })?;
        }
        Ok(())
    }

    fn sent_frame(&mut self, id: ConnId, frame: &Frame, phase: Phase) -> Check {
        self.reads(id);
        let Some(conn) = self.conns.get_mut(&id) else { return Err("it is not there".into()) };
        if frame.is_notification() {
            conn.number(frame.task)?;
            let is_known = conn.is_modern() && frame.purpose != REACTION_NOTIFY || conn.is_11;
            if !is_known && frame.purpose != MSG_NOTIFY {
                return Err("its version does not know it".into());
            }
        }
        match (frame.purpose, phase) {
            (ACCEPTED, Phase::Turn) => conn.answered(frame),
            (DECLINED, Phase::Pump) if conn.waiting.is_some() => self.refused(id, frame),
            (PART | ACCEPTED | DECLINED, Phase::Pump) => self.stream_frame(id, frame),
            (DISCONNECT, _) => {
                // Nothing follows it, so what was under way gets no answer.
                (conn.waiting, conn.stream) = (None, None);
                Ok(())
            }
            (DECLINED | DEAUTH, Phase::Turn) | (HEARTBEAT, Phase::Pump) => Ok(()),
            (MSG_NOTIFY, Phase::Turn) => conn.messages_notified(frame),
            (REACTION_NOTIFY, Phase::Turn) => conn.reaction_notified(frame),
            (MSG_NOTIFY, Phase::Pump) => self.messages_retold(id, frame),
            (CHAT_NOTIFY | CHAT_GONE, Phase::Turn) => conn.chat_notified(frame),
            (CHAT_NOTIFY | CHAT_GONE, Phase::Pump) => self.chat_retold(id, frame),
            (MEMBER_NOTIFY | SEEN_NOTIFY | TYPING_NOTIFY | PRESENCE_NOTIFY, Phase::Turn) => {
                conn.ephemeral_notified(frame)
            }
            _ => Err("nothing asked for it".into()),
        }
    }

    /// Checks messages from the backlog, which are read from the database: they have their present
    /// state.
    fn messages_retold(&mut self, id: ConnId, frame: &Frame) -> Check {
        let is_11 = self.conns.get(&id).is_some_and(|conn| conn.is_11);
        let (chat, messages) = pack(frame, is_11)?;
        let user = self.conns.get(&id).and_then(Conn::listener).ok_or("it has no session")?;
        // Until the server takes up that a chat was removed, its members are still notified.
        let removed = self.removed_chat.as_ref().filter(|(removed, _)| {
            self.is_removing && *removed == chat && self.removed_members.contains(&user)
        });
        let present = match removed {
            Some((_, removed)) => Some(removed),
            None => self.chats.get(&chat).filter(|_| self.is_member(user, chat)),
        };
        let there = present.map(|present| present.messages.clone());
        let there = there.ok_or_else(|| format!("user {user} is no member of chat {chat}"))?;
        for message in messages {
            let present = there.get(&message.id);
            if present.map(|present| present.wire_for(message.id, is_11)).as_ref() != Some(&message)
            {
                return Err(format!("{message:?} is not as it is: {present:?}"));
            }
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            if !conn.behind {
                return Err(format!("{message:?} was not left out"));
            }
            conn.in_order(message.updated)?;
            let owed = conn.owed.entry(chat).or_default();
            while let Some(first) = owed.front().filter(|first| first.updated <= message.updated) {
                let now = there.get(&first.id);
                if now.is_some_and(|now| now.updated == first.updated) && **first != message {
                    return Err(format!("{first:?} was skipped"));
                }
                owed.pop_front();
            }
        }
        Ok(())
    }

    fn chat_retold(&mut self, id: ConnId, frame: &Frame) -> Check {
        let chat = Body::of(&frame.body).u32()?;
        let user = self.conns.get(&id).and_then(Conn::listener).ok_or("it has no session")?;
        let is_11 = self.conns.get(&id).is_some_and(|conn| conn.is_11);
        let present = self.chat_info(user, chat, is_11).filter(|_| self.is_member(user, chat));
        let is_so = match (&present, frame.purpose) {
            (Some(info), CHAT_NOTIFY) => *info == frame.body,
            (None, CHAT_GONE) => frame.body.len() == 4,
            _ => false,
        };
        if !is_so {
            return Err(format!("chat {chat} is {present:?}, and not {:?}", frame.body));
        }
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let before = conn.owed_chats.len();
        conn.owed_chats.retain(|(owed, _)| *owed != chat);
        // After an undone turn, the backlog may repeat a chat in its present state.
        let is_news = conn.owed_chats.len() < before || conn.may_hear_again;
        if is_news { Ok(()) } else { Err("it knew that".into()) }
    }

    /// The notifications of the turn are all sent. Missing ones must be in the backlog, and only
    /// for a slow consumer with this many bytes queued, if that is known.
    pub(crate) fn settle(&mut self, id: ConnId, behind: bool, pending: Option<usize>) -> Check {
        let limit = self.rules.outbound_bytes_max;
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if conn.is_closing {
            conn.disown_all();
            conn.ephemeral.clear();
            conn.due.clear();
        }
        if behind && !conn.behind && pending.is_some_and(|pending| pending <= limit) {
            return Err(format!("{id} is behind with {pending:?} bytes waiting"));
        }
        if !behind
            && !self.changes_wait
            && let Some(owes) = conn.owes()
        {
            return Err(format!("{id} was not notified of {owes}"));
        }
        let has_room = pending.is_some_and(|pending| pending <= limit / 2);
        if has_room
            && !behind
            && !conn.unsettled
            && !std::mem::take(&mut conn.ephemeral_unsure)
            && let Some(first) = conn.ephemeral.first()
        {
            return Err(format!("{id} was not notified of {}", first.words()));
        }
        if !behind
            && !conn.unsettled
            && let Some((chat, due)) = conn.due.first()
        {
            return Err(format!("{id} was not notified of {due:?} before it left chat {chat}"));
        }
        if conn.unsettled {
            conn.unsure = conn.unsure.saturating_add(conn.notified);
            conn.notified = 0;
        }
        conn.unsettled = false;
        conn.behind = behind;
        conn.ephemeral.clear();
        conn.ephemeral_unsure = false;
        conn.disowned.clear();
        conn.due.clear();
        conn.disowned_chats.clear();
        conn.accepted_sends.clear();
        conn.overtaken.clear();
        Ok(())
    }

    /// After delivering a backlog: a connection that has none any more has missed nothing.
    pub(crate) fn caught_up(&mut self, id: ConnId, behind: bool) -> Check {
        let chats = &self.chats;
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        conn.behind = behind;
        if behind || conn.is_closing {
            return Ok(());
        }
        conn.may_hear_again = false;
        for (chat, owed) in &mut conn.owed {
            // A message that this connection has changed again itself was not left out.
            owed.retain(|message| {
                let now = chats.get(chat).and_then(|chat| chat.messages.get(&message.id));
                now.is_some_and(|now| now.updated == message.updated)
            });
        }
        match conn.owes().filter(|_| !self.changes_wait) {
            Some(owes) => Err(format!("{id} is live again and was not notified of {owes}")),
            None => Ok(()),
        }
    }
}

impl Conn {
    /// Notifications are numbered 1 to 255, cyclically.
    fn number(&mut self, task: u8) -> Check {
        let next = self.notify_task % 255 + 1;
        if task != next {
            return Err(format!("its number is not {next}"));
        }
        self.notify_task = next;
        self.notified = self.notified.saturating_add(1);
        Ok(())
    }

    /// Messages are notified in the order of server time, over all chats. So a client's cursor
    /// promises that nothing older follows.
    fn in_order(&mut self, updated: i64) -> Check {
        if updated <= self.got {
            return Err(format!("a message of {updated} after one of {}", self.got));
        }
        self.got = updated;
        Ok(())
    }

    /// The answer to a send must come after the messages sent before it.
    fn answered(&mut self, frame: &Frame) -> Check {
        let is_it = |send: &(u8, u32, i64)| send.0 == frame.task && frame.body.len() == 16;
        let Some((_, chat, at)) = self.accepted_sends.front().copied().filter(is_it) else {
            return Ok(());
        };
        self.accepted_sends.pop_front();
        let first = self.owed.get(&chat).and_then(|owed| owed.front());
        if !self.behind
            && let Some(first) = first.filter(|first| first.updated < at)
        {
            self.overtaken.push((chat, Rc::clone(first)));
        }
        Ok(())
    }

    fn messages_notified(&mut self, frame: &Frame) -> Check {
        let (chat, messages) = pack(frame, self.is_11)?;
        for message in messages {
            self.in_order(message.updated)?;
            let owed = self.owed.entry(chat).or_default();
            if owed.front().is_some_and(|first| **first == message && first.change.is_none()) {
                if self.overtaken.iter().any(|(of, first)| *of == chat && **first == message) {
                    return Err(format!("{message:?} was overtaken by the answer to a later send"));
                }
                owed.pop_front();
                continue;
            }
            let is_it = |(of, owed): &(u32, Rc<Message>)| *of == chat && **owed == message;
            if let Some(place) = self.due.iter().position(is_it) {
                self.due.remove(place);
                continue;
            }
            match self.disowned.iter().position(is_it) {
                Some(place) => drop(self.disowned.remove(place)),
                None => return Err(format!("{message:?} comes when {:?} is next", owed.front())),
            }
        }
        Ok(())
    }

    /// A reaction must come in its place among the messages.
    fn reaction_notified(&mut self, frame: &Frame) -> Check {
        let mut body = Body::of(&frame.body);
        let (chat, _id, updated) = (body.u32()?, body.i64()?, body.i64()?);
        self.in_order(updated)?;
        let is_it = |owed: &Message| owed.change.as_ref() == Some(&frame.body);
        let owed = self.owed.entry(chat).or_default();
        if owed.front().is_some_and(|first| is_it(first)) {
            owed.pop_front();
            return Ok(());
        }
        for list in [&mut self.due, &mut self.disowned] {
            if let Some(place) = list.iter().position(|(_, owed)| is_it(owed)) {
                list.remove(place);
                return Ok(());
            }
        }
        Err(format!("the reaction comes when {:?} is next", owed.front()))
    }

    fn chat_notified(&mut self, frame: &Frame) -> Check {
        let is_it = |owed: &Frame| owed.purpose == frame.purpose && owed.body == frame.body;
        if self.owed_chats.front().is_some_and(|(_, owed)| is_it(owed)) {
            self.owed_chats.pop_front();
            return Ok(());
        }
        match self.disowned_chats.iter().position(is_it) {
            Some(place) => drop(self.disowned_chats.remove(place)),
            None => {
                return Err(format!("{frame:?} comes when {:?} is next", self.owed_chats.front()));
            }
        }
        Ok(())
    }

    fn ephemeral_notified(&mut self, frame: &Frame) -> Check {
        let is_it = |owed: &Frame| owed.purpose == frame.purpose && owed.body == frame.body;
        match self.ephemeral.iter().position(is_it) {
            Some(place) => drop(self.ephemeral.remove(place)),
            None => return Err(format!("it did not happen: {:?}", frame.body)),
        }
        Ok(())
    }
}

/// Decodes a MSG_NOTIFY.
fn pack(frame: &Frame, is_11: bool) -> Check<(u32, Vec<Message>)> {
    let mut body = Body::spoken(&frame.body, is_11);
    let chat = body.u32()?;
    let mut messages = vec![body.message()?];
    while !body.is_empty() {
        messages.push(body.message()?);
    }
    Ok((chat, messages))
}
