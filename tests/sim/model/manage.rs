//! The model of what the admins of a chat do.

use vestnik::ids::ConnId;

use super::accounts::{is_attempt, is_name};
use super::{Caller, Chat, Checked, Intent, Model, Turn, User, key};
use crate::wire::Check;

const TITLE_CHARS_MAX: usize = 128;

impl Model {
    /// The reason why a user cannot administer a chat.
    pub(super) fn not_admin(&self, user: u32, chat: u32) -> Option<&'static str> {
        if let Some(code) = self.not_member(user, chat) {
            return Some(code);
        }
        let is_admin = self.chats[&chat].members.get(&user).is_some_and(|member| member.admin);
        if is_admin { None } else { Some("forbidden") }
    }

    pub(super) fn delete_chat(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        self.note("deleted a chat");
        self.remove_chat(chat, Some(me.conn));
        Ok(())
    }

    /// Removes a chat, and owes a notification to its members.
    pub(crate) fn remove_chat(&mut self, chat: u32, except: Option<ConnId>) {
        let Some(found) = self.chats.remove(&chat) else { return };
        self.invites.retain(|_, invite| invite.chat != Some(chat));
        for user in found.members.keys() {
            self.disown(*user, chat);
            self.owe_user_chat(*user, chat, except);
        }
    }

    /// A change that is notified to all members, unless it changes nothing.
    fn change(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        is_so_already: impl FnOnce(&Chat) -> bool,
        change: impl FnOnce(&mut Chat),
    ) -> Check {
        if self.chats.get(&chat).is_some_and(is_so_already) {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        if let Some(chat) = self.chats.get_mut(&chat) {
            change(chat);
        }
        self.note("changed a chat");
        self.owe_members_chat(chat, Some(me.conn));
        Ok(())
    }

    pub(super) fn rename_chat(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        name: &str,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if !is_name(name) {
            return self.decline(turn, me.conn, me.task, "bad-name");
        }
        if self.chat_by_key(&key(name)).is_some_and(|holder| holder != chat) {
            return self.decline(turn, me.conn, me.task, "name-taken");
        }
        let rename = |chat: &mut Chat| chat.name = name.to_owned();
        self.change(turn, me, chat, |chat| chat.name == name, rename)
    }

    pub(super) fn set_chat_title(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        title: &str,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if title.chars().count() > TITLE_CHARS_MAX {
            return self.decline(turn, me.conn, me.task, "too-long");
        }
        let retitle = |chat: &mut Chat| chat.title = title.to_owned();
        self.change(turn, me, chat, |chat| chat.title == title, retitle)
    }

    pub(super) fn set_chat_password(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        password: Option<&str>,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let Some(password) = password else {
            let is_open = |chat: &Chat| chat.password.is_none();
            return self.change(turn, me, chat, is_open, |chat| {
                chat.password = None;
                chat.form += 1;
            });
        };
        if !is_attempt(password) {
            return self.decline(turn, me.conn, me.task, "bad-password");
        }
        let given = password.to_owned();
        let intent = match self.chats.get(&chat) {
            Some(Chat { password: Some(stored), form, .. }) => {
                let (right, form) = (*stored == given, *form);
                Intent::SameChatPassword { chat, checked: Checked { given, right, form } }
            }
            _ => Intent::ChatPassword { chat, password: given },
        };
        self.wait(turn, me.conn, me.task, intent);
        Ok(())
    }

    pub(super) fn chat_password_compared(
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
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, conn, task, code);
        }
        if checked.right && self.chats.get(&chat).is_some_and(|chat| chat.form == checked.form) {
            self.note("set the same chat password");
            return self.accept(turn, conn, task, &[]);
        }
        self.wait(turn, conn, task, Intent::ChatPassword { chat, password: checked.given });
        Ok(())
    }

    pub(super) fn chat_password_hashed(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        chat: u32,
        password: String,
    ) -> Check {
        let Some(me) = self.caller(conn, task) else {
            return self.decline(turn, conn, task, "login-required");
        };
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, conn, task, code);
        }
        self.change(
            turn,
            me,
            chat,
            |_| false,
            |chat| {
                chat.password = Some(password);
                chat.form += 1;
            },
        )
    }

    pub(super) fn set_chat_admin(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        user: u32,
        admin: bool,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let members = &self.chats[&chat].members;
        let Some(member) = members.get(&user) else {
            return self.decline(turn, me.conn, me.task, "not-member");
        };
        let is_so_already = member.admin == admin;
        let can_act = |user: &u32| self.users.get(user).is_some_and(User::can_act);
        let admins = members.iter().filter(|(user, member)| member.admin && can_act(user));
        let admins = admins.count();
        if !is_so_already && admin && self.users.get(&user).is_some_and(|user| user.is_bot) {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if !is_so_already && !admin && can_act(&user) && admins <= 1 {
            return self.decline(turn, me.conn, me.task, "last-admin");
        }
        if is_so_already {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        if let Some(member) = self.chats.get_mut(&chat).and_then(|c| c.members.get_mut(&user)) {
            member.admin = admin;
        }
        if admin && let Some(chat) = self.chats.get_mut(&chat) {
            chat.is_vacant = false;
        }
        self.note("set an admin");
        self.notify_member(chat, user, if admin { 3 } else { 4 }, Some(me.conn));
        self.owe_members_chat(chat, Some(me.conn));
        Ok(())
    }

    pub(super) fn set_chat_ban(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        user: u32,
        banned: bool,
    ) -> Check {
        if let Some(code) = self.not_admin(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if user == me.user {
            return self.decline(turn, me.conn, me.task, "forbidden");
        }
        if !self.users.contains_key(&user) {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        }
        if self.chats[&chat].bans.contains(&user) == banned {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        let Some(found) = self.chats.get_mut(&chat) else { return Ok(()) };
        if banned {
            found.bans.insert(user);
        } else {
            found.bans.remove(&user);
        }
        let was_member = banned && found.members.remove(&user).is_some();
        self.note("set a ban");
        if was_member {
            self.disown(user, chat);
            self.owe_user_chat(user, chat, None);
        }
        if banned {
            self.notify_member(chat, user, 5, Some(me.conn));
        }
        Ok(())
    }
}
