//! The model of notifications and of sessions on connections: what is owed to whom.

use std::rc::Rc;

use vestnik::ids::ConnId;

use super::{Attached, Caller, Model, Turn};
use crate::wire::{
    CHAT_GONE, CHAT_NOTIFY, Check, DEAUTH, DECLINED, Frame, MEMBER_NOTIFY, Out, PRESENCE_NOTIFY,
    SEEN_NOTIFY, TYPING_NOTIFY,
};

fn notice(purpose: u8, body: Vec<u8>) -> Frame {
    Frame { purpose, task: 0, body }
}

impl Model {
    /// The connections of a chat's members that get notifications.
    pub(super) fn listeners(&self, chat: u32) -> Vec<ConnId> {
        let is_in = |user: Option<u32>| user.is_some_and(|user| self.is_member(user, chat));
        let conns = self.conns.iter().filter(|(_, conn)| is_in(conn.listener()));
        conns.map(|(id, _)| *id).collect()
    }

    /// Owes a new or changed message.
    pub(super) fn owe_message(&mut self, me: Caller, chat: u32, id: i64) {
        let message = self.chats.get(&chat).and_then(|chat| chat.messages.get(&id));
        let Some(message) = message else { return };
        let forms = [false, true].map(|is_11| Rc::new(message.wire_for(id, is_11)));
        for conn in self.listeners(chat) {
            if conn != me.conn
                && let Some(conn) = self.conns.get_mut(&conn)
            {
                let form = &forms[usize::from(conn.is_11)];
                conn.owed.entry(chat).or_default().push_back(Rc::clone(form));
            }
        }
    }

    /// Owes the present state of a chat to one connection.
    fn owe_chat(&mut self, conn: ConnId, user: u32, chat: u32) {
        let is_11 = self.conns.get(&conn).is_some_and(|conn| conn.is_11);
        let info = self.chat_info(user, chat, is_11).filter(|_| self.is_member(user, chat));
        let frame = match info {
            Some(info) => notice(CHAT_NOTIFY, info),
            None => notice(CHAT_GONE, Out::default().u32(chat).0),
        };
        if let Some(state) = self.conns.get_mut(&conn)
            && state.is_modern()
        {
            state.owed_chats.push_back((chat, frame));
        }
    }

    /// The same to all connections of a user except one.
    pub(super) fn owe_user_chat(&mut self, user: u32, chat: u32, except: Option<ConnId>) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            if Some(conn) != except && self.conns[&conn].listener() == Some(user) {
                self.owe_chat(conn, user, chat);
            }
        }
    }

    /// The same to all members.
    pub(super) fn owe_members_chat(&mut self, chat: u32, except: Option<ConnId>) {
        for conn in self.listeners(chat) {
            if Some(conn) != except
                && let Some(user) = self.conns[&conn].user()
            {
                self.owe_chat(conn, user, chat);
            }
        }
    }

    /// The same to all members on 1.1, whose chat_info alone shows the change.
    pub(super) fn owe_members_chat_11(&mut self, chat: u32, except: Option<ConnId>) {
        for conn in self.listeners(chat) {
            if Some(conn) != except
                && self.conns[&conn].is_11
                && let Some(user) = self.conns[&conn].user()
            {
                self.owe_chat(conn, user, chat);
            }
        }
    }

    /// The same to the user's other connections on 1.1.
    pub(super) fn owe_own_chat_11(&mut self, me: Caller, chat: u32) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            let state = &self.conns[&conn];
            if conn != me.conn && state.is_11 && state.listener() == Some(me.user) {
                self.owe_chat(conn, me.user, chat);
            }
        }
    }

    /// Drops the owed messages of a chat that the user has left.
    pub(super) fn disown(&mut self, user: u32, chat: u32) {
        self.drop_uploads(user, chat);
        for conn in self.conns.values_mut().filter(|conn| conn.user() == Some(user)) {
            let owed = conn.owed.remove(&chat).unwrap_or_default();
            let owed = owed.into_iter().map(|message| (chat, message));
            if conn.behind { conn.disowned.extend(owed) } else { conn.due.extend(owed) }
        }
        self.left_while_streaming(user, chat);
    }

    fn ephemeral(&mut self, chat: u32, but: Option<u32>, except: Option<ConnId>, frame: &Frame) {
        for conn in self.listeners(chat) {
            if Some(conn) == except {
                continue;
            }
            if let Some(state) = self.conns.get_mut(&conn)
                && state.is_modern()
                && (but.is_none() || state.user() != but)
            {
                state.ephemeral.push(frame.clone());
            }
        }
    }

    pub(super) fn notify_member(
        &mut self,
        chat: u32,
        user: u32,
        event: u8,
        except: Option<ConnId>,
    ) {
        let body = Out::default().u32(chat).u32(user).u8(event).str(self.nickname(user)).0;
        self.ephemeral(chat, Some(user), except, &notice(MEMBER_NOTIFY, body));
    }

    pub(super) fn notify_seen(&mut self, me: Caller, chat: u32, seen: i64) {
        let body = Out::default().u32(chat).u32(me.user).i64(seen).0;
        self.ephemeral(chat, None, Some(me.conn), &notice(SEEN_NOTIFY, body));
    }

    pub(super) fn notify_typing(&mut self, me: Caller, chat: u32) {
        let body = Out::default().u32(chat).u32(me.user).0;
        self.ephemeral(chat, Some(me.user), None, &notice(TYPING_NOTIFY, body));
    }

    fn notify_presence(&mut self, user: u32, online: bool) {
        let frame = notice(PRESENCE_NOTIFY, Out::default().u32(user).u8(u8::from(online)).0);
        let chats = self.chats_of(user);
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            let Some(listener) = self.conns[&conn].listener() else { continue };
            let shares = chats.iter().any(|chat| self.is_member(listener, *chat));
            if let Some(state) = self.conns.get_mut(&conn)
                && listener != user
                && shares
                && state.is_modern()
            {
                state.ephemeral.push(frame.clone());
                state.ephemeral_unsure |= self.is_adding;
            }
        }
    }

    pub(super) fn attach(&mut self, conn: ConnId, user: u32, session: u32) {
        let is_first = !self.is_online(user);
        if let Some(state) = self.conns.get_mut(&conn) {
            state.attached = Some(Attached { session, user, suspended: false });
            state.notified = 0;
            state.unsettled = true;
        }
        if is_first {
            // The server does not find a chat that was removed in the database.
            self.removed_members.retain(|&member| member != user);
            self.notify_presence(user, true);
        }
    }

    /// Detaches the session: the connection becomes *greeted*.
    pub(super) fn detach(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let Some(attached) = state.attached.take() else { return };
        state.notified = 0;
        state.disown_all();
        if !self.is_online(attached.user) {
            self.notify_presence(attached.user, false);
        }
    }

    /// The session of another connection has ended, or was taken over.
    pub(super) fn deauth(&mut self, turn: &mut Turn<'_>, conn: ConnId) -> Check {
        self.detach(conn);
        if self.conns.get(&conn).is_some_and(|state| state.is_closing) {
            return Ok(());
        }
        let waiting = self.conns.get_mut(&conn).and_then(|state| state.waiting.take());
        if let Some(waiting) = waiting {
            let frame = turn.next(conn)?;
            let is_it = frame.purpose == DECLINED
                && frame.task == waiting.task
                && frame.body.starts_with(b"login-required:");
            if !is_it {
                return Err(format!("{conn} lost its session and got {}", frame.words()));
            }
        }
        let frame = turn.next(conn)?;
        self.note("deauth");
        if (frame.purpose, frame.task, frame.body.len()) != (DEAUTH, 0, 0) {
            return Err(format!("{conn} lost its session and got {}", frame.words()));
        }
        Ok(())
    }

    pub(super) fn conn_of_session(&self, session: u32) -> Option<ConnId> {
        let carries = |attached: Attached| attached.session == session;
        let mut conns = self.conns.iter();
        conns.find(|(_, conn)| conn.attached.is_some_and(carries)).map(|(id, _)| *id)
    }
}
