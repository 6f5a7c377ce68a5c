//! The model of accounts, members and invites of API 1.1, and of registration.

use std::collections::BTreeMap;

use vestnik::ids::ConnId;

use super::accounts::{BUCKET, is_name, is_user_password};
use super::{Caller, Intent, Invite, Member, Model, Turn, User, key};
use crate::command::removed_name;
use crate::wire::{Body, Check};

const REGISTER_BUCKET: u32 = 30;
const DAY_US: i64 = 24 * 3600 * 1_000_000;
/// Length of the prefix of a code in lists.
const HINT_BYTES: usize = 7;

/// Whether a text is a code, as formatted by the server.
fn is_code(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
}

impl Model {
    /// Makes a user an operator, before the server starts.
    pub(crate) fn make_operator(&mut self, user: u32) {
        if let Some(user) = self.users.get_mut(&user) {
            user.is_operator = true;
        }
    }

    pub(super) fn is_operator(&self, user: u32) -> bool {
        self.users.get(&user).is_some_and(|user| user.is_operator)
    }

    /// Whether the next answer of a connection begins with this code.
    fn is_next(turn: &Turn<'_>, conn: ConnId, code: &[u8]) -> bool {
        let next = turn.staged.get(&conn).and_then(|staged| staged.front());
        next.is_some_and(|next| next.body.starts_with(code))
    }

    /// Reads a new code from an answer.
    fn new_code(&self, body: &mut Body<'_>) -> Check<String> {
        let code = body.str()?.to_owned();
        if !is_code(&code) || self.invites.contains_key(&code) {
            return Err(format!("the code {code}"));
        }
        Ok(code)
    }

    /// A user whose account was not removed.
    fn kept_user(&self, user: u32) -> Option<&User> {
        let is_removed = |found: &User| found.disabled && found.nickname == removed_name(user);
        self.users.get(&user).filter(|found| !is_removed(found))
    }

    pub(super) fn reset_password(&mut self, turn: &mut Turn<'_>, me: Caller, user: u32) -> Check {
        if !self.is_operator(me.user) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        let Some(found) = self.kept_user(user) else {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        };
        if found.is_bot {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let answer = self.accepted(turn, me.conn, me.task)?;
        let mut body = Body::of(&answer);
        let code = self.new_code(&mut body)?;
        let expires = body.i64()?;
        body.end()?;
        // It expires by the trusted wall clock, which the model does not know.
        if let Some(user) = self.users.get_mut(&user) {
            user.reset = Some((code, expires));
        }
        self.note("made a code");
        Ok(())
    }

    /// The user whose password a code resets. If the wall clock may have jumped past its expiry,
    /// the server's answer decides.
    fn reset_by(&self, turn: &Turn<'_>, conn: ConnId, key: &str, code: &str) -> Option<u32> {
        let id = self.user_by_key(key)?;
        let user = self.users.get(&id).filter(|user| !user.disabled)?;
        let (_, expires) = user.reset.as_ref().filter(|(kept, _)| kept == code)?;
        let was_bad = Self::is_next(turn, conn, b"bad-code:");
        (*expires > self.highest_wall || !was_bad).then_some(id)
    }

    pub(super) fn set_password(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        login: &str,
        code: &str,
        password: &str,
    ) -> Check {
        let key = key(login);
        let keys = self.entry_keys(conn, &format!("reset {key}"));
        if self.was_limited(turn, conn, task, &keys) {
            return Ok(());
        }
        if self.reset_by(turn, conn, &key, code).is_none() {
            self.spend(&keys);
            return self.decline(turn, conn, task, "bad-code");
        }
        if !is_user_password(password) {
            return self.decline(turn, conn, task, "bad-password");
        }
        let (code, password) = (code.to_owned(), password.to_owned());
        self.wait(turn, conn, task, Intent::SetPassword { key, code, password });
        Ok(())
    }

    pub(super) fn set_password_hashed(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        key: &str,
        code: &str,
        password: String,
    ) -> Check {
        let Some(user) = self.reset_by(turn, conn, key, code) else {
            let keys = self.entry_keys(conn, &format!("reset {key}"));
            self.spend(&keys);
            self.note("raced for a code");
            return self.decline(turn, conn, task, "bad-code");
        };
        self.accept(turn, conn, task, &user.to_le_bytes())?;
        if let Some(found) = self.users.get_mut(&user) {
            (found.password, found.reset) = (password, None);
            found.form += 1;
        }
        self.note("password reset");
        self.end_all_sessions(turn, user)
    }

    fn end_all_sessions(&mut self, turn: &mut Turn<'_>, user: u32) -> Check {
        self.sessions.retain(|_, row| row.user != user);
        let ended = self.conns.iter().filter(|(_, conn)| conn.user() == Some(user));
        let ended: Vec<ConnId> = ended.map(|(id, _)| *id).collect();
        ended.into_iter().try_for_each(|conn| self.deauth(turn, conn))
    }

    pub(super) fn set_user_disabled(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        user: u32,
        disabled: bool,
    ) -> Check {
        if !self.is_operator(me.user) || user == me.user {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        let Some(found) = self.kept_user(user) else {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        };
        if found.disabled == disabled {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        if let Some(found) = self.users.get_mut(&user) {
            found.disabled = disabled;
        }
        if disabled {
            self.end_all_sessions(turn, user)?;
        }
        self.note("disabled or enabled");
        for (chat, admin) in self.settle_disabled(user, disabled) {
            self.notify_member(chat, admin, 3, None);
            self.owe_members_chat(chat, None);
        }
        Ok(())
    }

    /// Whether a user who is not a member cannot become one, in any way.
    fn cannot_enter(&self, user: u32, chat: u32) -> bool {
        self.lockdown || self.chats.get(&chat).is_some_and(|chat| chat.bans.contains(&user))
    }

    fn become_member(&mut self, chat: u32, user: u32, joined: i64, asker: Option<ConnId>) {
        let can_act = self.users[&user].can_act();
        if let Some(chat) = self.chats.get_mut(&chat) {
            let admin = can_act && std::mem::take(&mut chat.is_vacant);
            chat.members.insert(user, Member { admin, joined, seen: 0, notify: 0 });
        }
        self.owe_user_chat(user, chat, asker);
        self.notify_member(chat, user, 1, asker);
    }

    pub(super) fn add_member(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        user: u32,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if self.kept_user(user).is_none() {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        }
        if self.is_member(user, chat) {
            return self.decline(turn, me.conn, me.task, "already-member");
        }
        if self.cannot_enter(user, chat) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        self.event(turn, turn.after)?;
        self.note("added a member");
        self.become_member(chat, user, turn.after, Some(me.conn));
        Ok(())
    }

    pub(super) fn set_chat_closed(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        closed: bool,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if self.chats[&chat].is_closed == closed {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        if let Some(chat) = self.chats.get_mut(&chat) {
            chat.is_closed = closed;
        }
        self.note("closed or opened");
        self.owe_members_chat_11(chat, Some(me.conn));
        Ok(())
    }

    pub(super) fn set_chat_notify(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        notify: u8,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if self.chats[&chat].members[&me.user].notify == notify {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        if let Some(member) = self.chats.get_mut(&chat).and_then(|c| c.members.get_mut(&me.user)) {
            member.notify = notify;
        }
        self.owe_own_chat_11(me, chat);
        Ok(())
    }

    pub(super) fn create_invite(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        registers: bool,
        (uses, days): (u16, u16),
        chat: Option<u32>,
    ) -> Check {
        if let Some(code) = chat.and_then(|chat| self.not_admin(me.user, chat)) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if registers && !(self.is_operator(me.user) && self.rules.registration_open) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let answer = self.accepted(turn, me.conn, me.task)?;
        let mut body = Body::of(&answer);
        let code = self.new_code(&mut body)?;
        body.end()?;
        let creator = me.user;
        let invite = Invite { registers, chat, uses_left: uses, days, creator };
        self.invites.insert(code, invite);
        self.note("made an invite");
        Ok(())
    }

    /// An invite that can be used; none is old enough to expire.
    fn good_invite(&self, code: &str) -> Option<&Invite> {
        self.invites.get(code).filter(|invite| invite.uses_left > 0)
    }

    pub(super) fn get_invites(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: Option<u32>,
    ) -> Check {
        if let Some(code) = chat.and_then(|chat| self.not_member(me.user, chat)) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let is_operator = self.is_operator(me.user);
        let is_admin = chat.is_some_and(|chat| self.not_admin(me.user, chat).is_none());
        if !is_operator && !is_admin {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        let listed = self.invites.iter().filter(|(_, invite)| {
            let is_of_chat = chat.is_none() || invite.chat == chat;
            invite.uses_left > 0 && is_of_chat && (is_operator || !invite.registers)
        });
        let mut missing: BTreeMap<String, Invite> =
            listed.map(|(code, invite)| (code[..HINT_BYTES].to_owned(), invite.clone())).collect();
        let answer = self.accepted(turn, me.conn, me.task)?;
        let mut body = Body::of(&answer);
        let mut last = 0;
        while !body.is_empty() {
            let (hint, registers, uses_left) = (body.str()?, body.u8()? == 1, body.u16()?);
            let (expires, created) = (body.i64()?, body.i64()?);
            let (creator, chat) = (body.u32()?, Some(body.u32()?).filter(|chat| *chat != 0));
            let days = u16::try_from((expires - created) / DAY_US).unwrap_or_default();
            let invite = Invite { registers, chat, uses_left, days, creator };
            if missing.remove(hint).as_ref() != Some(&invite) || created < last {
                return Err(format!("the invite {hint} is listed as {invite:?} after {last}"));
            }
            last = created;
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("not listed: {missing:?}")) }
    }

    pub(super) fn end_invite(&mut self, turn: &mut Turn<'_>, me: Caller, hint: &str) -> Check {
        let is_operator = self.is_operator(me.user);
        let is_admin =
            |chat: &super::Chat| chat.members.get(&me.user).is_some_and(|member| member.admin);
        if !is_operator && !self.chats.values().any(is_admin) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        let found = self
            .invites
            .iter()
            .find(|(code, invite)| invite.uses_left > 0 && &code[..HINT_BYTES] == hint);
        let Some((code, invite)) = found else {
            return self.decline(turn, me.conn, me.task, "bad-invite");
        };
        let is_own = invite.chat.is_some_and(|chat| self.not_admin(me.user, chat).is_none());
        if !is_operator && (invite.registers || !is_own) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        let code = code.clone();
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.invites.remove(&code);
        self.note("ended an invite");
        self.accept(turn, me.conn, me.task, &[])
    }

    pub(super) fn use_invite(&mut self, turn: &mut Turn<'_>, me: Caller, code: &str) -> Check {
        let keys = [(format!("invite of {}", me.user), BUCKET)];
        if self.was_limited(turn, me.conn, me.task, &keys) {
            return Ok(());
        }
        let Some(chat) = self.good_invite(code).and_then(|invite| invite.chat) else {
            self.spend(&keys);
            return self.decline(turn, me.conn, me.task, "bad-invite");
        };
        if self.is_member(me.user, chat) {
            return self.accept(turn, me.conn, me.task, &chat.to_le_bytes());
        }
        if self.cannot_enter(me.user, chat) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &chat.to_le_bytes())?;
        self.event(turn, turn.after)?;
        self.spend_invite(code);
        self.note("joined by an invite");
        self.become_member(chat, me.user, turn.after, Some(me.conn));
        Ok(())
    }

    /// An invite whose last use a registration needs that waits for its password.
    pub(crate) fn invite_in_use(&self) -> Option<&str> {
        let waiting = self.conns.values().filter_map(|conn| conn.waiting.as_ref());
        let mut codes = waiting.filter_map(|waiting| match &waiting.intent {
            Intent::Register { invite: Some(code), .. } => Some(code),
            _ => None,
        });
        let is_last = |code: &&String| self.good_invite(code).is_some_and(|it| it.uses_left == 1);
        codes.find(is_last).map(|code| &code[..])
    }

    fn spend_invite(&mut self, code: &str) {
        if let Some(invite) = self.invites.get_mut(code) {
            invite.uses_left -= 1;
        }
    }

    pub(super) fn register(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        login: &str,
        password: &str,
        invite: Option<&str>,
    ) -> Check {
        if self.lockdown {
            return self.decline(turn, conn, task, "registration-closed");
        }
        let address = self.address(conn);
        let code_keys = [(format!("invite from {address}"), BUCKET)];
        if invite.is_some() && self.was_limited(turn, conn, task, &code_keys) {
            return Ok(());
        }
        if !self.rules.registration_open {
            if invite.is_some() {
                self.spend(&code_keys);
            }
            return self.decline(turn, conn, task, "registration-closed");
        }
        let keys = [(format!("register from {address}"), REGISTER_BUCKET)];
        if self.was_limited(turn, conn, task, &keys) {
            return Ok(());
        }
        self.spend(&keys);
        let registers = |code: &&str| self.good_invite(code).is_some_and(|invite| invite.registers);
        let found = invite.filter(registers);
        if invite.is_some() && found.is_none() && self.speaks_11(conn) {
            self.spend(&code_keys);
            return self.decline(turn, conn, task, "bad-invite");
        }
        let invite = found.map(str::to_owned);
        if !is_name(login) {
            return self.decline(turn, conn, task, "bad-name");
        }
        if self.user_by_key(&key(login)).is_some() {
            return self.decline(turn, conn, task, "name-taken");
        }
        if !is_user_password(password) {
            return self.decline(turn, conn, task, "bad-password");
        }
        let (name, password) = (login.to_owned(), password.to_owned());
        self.wait(turn, conn, task, Intent::Register { name, password, invite });
        Ok(())
    }

    pub(super) fn register_hashed(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        name: &str,
        password: String,
        invite: Option<String>,
    ) -> Check {
        if self.lockdown {
            return self.decline(turn, conn, task, "registration-closed");
        }
        let found = invite.as_ref().map(|code| self.good_invite(code).cloned());
        if found == Some(None) {
            self.note("raced for an invite");
            return self.decline(turn, conn, task, "bad-invite");
        }
        if self.user_by_key(&key(name)).is_some() {
            return self.decline(turn, conn, task, "name-taken");
        }
        let body = self.accepted(turn, conn, task)?;
        let mut rest = Body::of(&body);
        let user = rest.u32()?;
        rest.end()?;
        if user <= self.last_user {
            return Err(format!("user {user} after {}", self.last_user));
        }
        let chat = found.flatten().and_then(|invite| invite.chat);
        // The time of joining is the next one.
        let created = turn.after - i64::from(chat.is_some());
        self.event(turn, created)?;
        self.last_user = user;
        self.users.insert(user, User::new(name.to_owned(), password, created));
        self.note("registered");
        if let Some(code) = &invite {
            self.spend_invite(code);
            self.note("registered by an invite");
        }
        if let Some(chat) = chat {
            self.event(turn, turn.after)?;
            self.become_member(chat, user, turn.after, None);
        }
        Ok(())
    }
}
