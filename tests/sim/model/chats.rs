//! The model of finding, creating, joining and leaving chats.

use super::accounts::{is_attempt, is_name};
use super::{Caller, Chat, Checked, Intent, Member, Model, Turn, User, key};
use crate::wire::{Body, Check};
use vestnik::ids::ConnId;

const BUCKET: u32 = 5;

impl Model {
    /// A direct chat is visible to its two members, a closed one to its members.
    fn is_visible(&self, user: u32, chat: u32) -> bool {
        let found = self.chats.get(&chat);
        found.is_some_and(|chat| match chat.direct {
            Some(two) => user == two.0 || user == two.1,
            None => !chat.is_closed || chat.members.contains_key(&user),
        })
    }

    /// The reason why a user who is not a member cannot use a chat.
    pub(super) fn not_member(&self, user: u32, chat: u32) -> Option<&'static str> {
        match self.chats.get(&chat) {
            Some(found) if found.members.contains_key(&user) => None,
            Some(found) if found.direct.is_none() && !found.is_closed => Some("not-member"),
            _ => Some("no-such-chat"),
        }
    }

    pub(super) fn get_chat_id(&mut self, turn: &mut Turn<'_>, me: Caller, name: &str) -> Check {
        match self.chat_by_key(&key(name)).filter(|chat| self.is_visible(me.user, *chat)) {
            Some(chat) => self.accept(turn, me.conn, me.task, &chat.to_le_bytes()),
            None => self.decline(turn, me.conn, me.task, "no-such-chat"),
        }
    }

    pub(super) fn chat_req_pass(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if !self.is_visible(me.user, chat) {
            return self.decline(turn, me.conn, me.task, "no-such-chat");
        }
        let has_password = self.chats[&chat].password.is_some();
        self.accept(turn, me.conn, me.task, &[u8::from(has_password)])
    }

    pub(super) fn get_chat(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if !self.is_visible(me.user, chat) {
            return self.decline(turn, me.conn, me.task, "no-such-chat");
        }
        let info = self.chat_info(me.user, chat, me.is_11).unwrap_or_default();
        self.accept(turn, me.conn, me.task, &info)
    }

    pub(super) fn find_chats(&mut self, me: Caller, prefix: &str, limit: u16) -> Check {
        self.found(me, key(prefix), limit)
    }

    /// The first group with this prefix whose name comes after another: its key and id.
    pub(super) fn next_group(&self, user: u32, prefix: &str, after: &str) -> Option<(String, u32)> {
        let is_shown = |chat: &Chat| !chat.is_vacant || !chat.members.is_empty();
        let groups = self.chats.iter().filter(|(_, chat)| chat.direct.is_none() && is_shown(chat));
        groups
            .filter(|(id, _)| self.is_visible(user, **id))
            .map(|(id, chat)| (key(&chat.name), *id))
            .filter(|(key, _)| key.starts_with(prefix) && &key[..] > after)
            .min()
    }

    /// The reason why a user cannot join, whatever the password.
    fn not_joinable(&self, user: u32, chat: u32) -> Option<&'static str> {
        if !self.is_visible(user, chat) {
            return Some("no-such-chat");
        }
        let found = &self.chats[&chat];
        if found.members.contains_key(&user) {
            return Some("already-member");
        }
        if found.bans.contains(&user) || self.lockdown {
            return Some("forbidden");
        }
        None
    }

    pub(super) fn join_chat(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        password: Option<&str>,
    ) -> Check {
        if let Some(code) = self.not_joinable(me.user, chat) {
            // A user who was added by a command, which the server has not taken up, may be asked
            // for the password.
            let is_unsure = self.is_adding && self.added_by_hand.contains(&(chat, me.user));
            let is_answered = turn.staged.get(&me.conn).is_some_and(|staged| !staged.is_empty());
            if !is_unsure || is_answered {
                return self.decline(turn, me.conn, me.task, code);
            }
        }
        let Some(needed) = self.chats[&chat].password.clone() else {
            return self.join(turn, me, chat);
        };
        let Some(given) = password else {
            return self.decline(turn, me.conn, me.task, "password-required");
        };
        let keys = [(format!("join {} {chat}", me.user), BUCKET)];
        if self.was_limited(turn, me.conn, me.task, &keys) {
            return Ok(());
        }
        if !is_attempt(given) {
            self.spend(&keys);
            return self.decline(turn, me.conn, me.task, "bad-password");
        }
        self.check_join(turn, me, chat, &needed, given.to_owned());
        Ok(())
    }

    fn check_join(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        needed: &str,
        given: String,
    ) {
        let right = needed == given;
        let checked = Checked { given, right, form: self.chats[&chat].form };
        self.wait(turn, me.conn, me.task, Intent::Join { chat, checked });
    }

    pub(super) fn join_checked(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        chat: u32,
        checked: Checked,
    ) -> Check {
        let Some(me) = self.caller(conn, task) else {
            return self.decline(turn, conn, task, "login-required");
        };
        if !checked.right {
            self.spend(&[(format!("join {} {chat}", me.user), BUCKET)]);
            return self.decline(turn, conn, task, "bad-password");
        }
        if let Some(code) = self.not_joinable(me.user, chat) {
            return self.decline(turn, conn, task, code);
        }
        let found = &self.chats[&chat];
        if let Some(needed) = found.password.clone()
            && found.form != checked.form
        {
            self.note("checked a join once more");
            self.check_join(turn, me, chat, &needed, checked.given);
            return Ok(());
        }
        self.note("joined by password");
        self.join(turn, me, chat)
    }

    fn join(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        let joined = turn.after;
        self.event(turn, joined)?;
        if let Some(chat) = self.chats.get_mut(&chat) {
            let admin = std::mem::take(&mut chat.is_vacant);
            chat.members.insert(me.user, Member { admin, joined, seen: 0, notify: 0 });
        }
        self.note("joined");
        self.owe_user_chat(me.user, chat, Some(me.conn));
        self.notify_member(chat, me.user, 1, Some(me.conn));
        Ok(())
    }

    pub(super) fn create_chat(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        name: &str,
        password: Option<&str>,
    ) -> Check {
        if !is_name(name) {
            return self.decline(turn, me.conn, me.task, "bad-name");
        }
        if self.chat_by_key(&key(name)).is_some() {
            return self.decline(turn, me.conn, me.task, "name-taken");
        }
        let Some(password) = password else { return self.create(turn, me, name, None) };
        if !is_attempt(password) {
            return self.decline(turn, me.conn, me.task, "bad-password");
        }
        if self.are_groups_spent(turn, me) {
            return self.decline(turn, me.conn, me.task, "rate-limited");
        }
        let (name, password) = (name.to_owned(), password.to_owned());
        self.wait(turn, me.conn, me.task, Intent::CreateChat { name, password });
        Ok(())
    }

    pub(super) fn create_chat_hashed(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        name: &str,
        password: String,
    ) -> Check {
        match self.caller(conn, task) {
            Some(me) => self.create(turn, me, name, Some(password)),
            None => self.decline(turn, conn, task, "login-required"),
        }
    }

    /// Reads the id of a new chat from the answer.
    fn new_chat(&mut self, turn: &mut Turn<'_>, me: Caller, new: Chat) -> Check<u32> {
        let body = self.accepted(turn, me.conn, me.task)?;
        let mut rest = Body::of(&body);
        let chat = rest.u32()?;
        rest.end()?;
        if chat <= self.last_chat {
            return Err(format!("chat {chat} after {}", self.last_chat));
        }
        self.event(turn, new.created)?;
        self.last_chat = chat;
        self.chats.insert(chat, new);
        Ok(chat)
    }

    fn create(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        name: &str,
        password: Option<String>,
    ) -> Check {
        if self.chat_by_key(&key(name)).is_some() {
            return self.decline(turn, me.conn, me.task, "name-taken");
        }
        if self.are_groups_spent(turn, me) {
            return self.decline(turn, me.conn, me.task, "rate-limited");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let created = turn.after;
        let members =
            [(me.user, Member { admin: true, joined: created, seen: 0, notify: 0 })].into();
        let new = Chat { name: name.to_owned(), password, created, members, ..Chat::default() };
        let chat = self.new_chat(turn, me, new)?;
        self.note_group(me, turn.wall);
        self.note("created");
        self.owe_user_chat(me.user, chat, Some(me.conn));
        Ok(())
    }

    pub(super) fn start_chat(&mut self, turn: &mut Turn<'_>, me: Caller, other: u32) -> Check {
        if other == me.user || !self.users.contains_key(&other) {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        }
        let two = (other.min(me.user), other.max(me.user));
        let found = self.chats.iter().find(|(_, chat)| chat.direct == Some(two));
        if let Some(chat) = found.map(|(id, _)| *id) {
            return self.accept(turn, me.conn, me.task, &chat.to_le_bytes());
        }
        if self.users[&other].disabled {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let created = turn.after;
        let member = Member { admin: false, joined: created, seen: 0, notify: 0 };
        let members = [(me.user, member.clone()), (other, member)].into();
        let new = Chat { direct: Some(two), created, members, ..Chat::default() };
        let chat = self.new_chat(turn, me, new)?;
        self.note("started");
        self.owe_user_chat(me.user, chat, Some(me.conn));
        self.owe_user_chat(other, chat, None);
        Ok(())
    }

    pub(super) fn leave_chat(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if self.chats[&chat].direct.is_some() {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        let Some(found) = self.chats.get_mut(&chat) else { return Ok(()) };
        let was_admin = found.members.remove(&me.user).is_some_and(|member| member.admin);
        self.disown(me.user, chat);
        self.note("left");
        self.owe_user_chat(me.user, chat, Some(me.conn));
        self.notify_member(chat, me.user, 2, None);
        if let Some(heir) = self.settle_departure(chat, was_admin) {
            self.notify_member(chat, heir, 3, None);
            self.owe_members_chat(chat, None);
        }
        Ok(())
    }

    /// After a member left a group, or an admin was disabled: the new admin, if any.
    pub(super) fn settle_departure(&mut self, chat: u32, was_admin: bool) -> Option<u32> {
        let users = &self.users;
        let is_enabled = |user: &u32| users.get(user).is_some_and(User::can_act);
        let found = self.chats.get_mut(&chat).filter(|chat| chat.direct.is_none())?;
        if found.members.is_empty() {
            found.is_vacant = true;
            if found.messages.is_empty() {
                self.chats.remove(&chat);
                self.invites.retain(|_, invite| invite.chat != Some(chat));
                self.note("gone with its last member");
            }
            return None;
        }
        let mut enabled = found.members.iter_mut().filter(|(user, _)| is_enabled(user));
        if !was_admin || enabled.any(|(_, member)| member.admin) {
            return None;
        }
        // The member of longest standing becomes admin.
        let enabled = found.members.iter_mut().filter(|(user, _)| is_enabled(user));
        let Some((&heir, member)) = enabled.min_by_key(|(id, member)| (member.joined, **id)) else {
            found.is_vacant = true;
            return None;
        };
        member.admin = true;
        found.is_vacant = false;
        self.note("inherited");
        Some(heir)
    }
}
