//! Chats: joining, making and leaving them, and what their admins do (protocol sections 4 and 5).

use crate::auth::helper::Work;
use crate::auth::password::{self, Kind, Password};
use crate::auth::throttle::Key;
use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits::{MEMBERSHIPS_MAX, TITLE_CHARS_MAX};
use crate::names::Name;
use crate::service::account::new_password;
use crate::service::peer::{Checked, Intent};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::chats::Chat;
use crate::store::members::Member;
use crate::store::users::User;
use crate::store::vacancies::Succession;
use crate::wire::answer::{MemberEvent, USER_BOT};
use crate::wire::codec::Put;
use crate::wire::decline::Decline;

impl Service<'_> {
    pub(super) fn join_chat(
        &mut self,
        caller: Caller,
        chat: ChatId,
        password: Option<&str>,
    ) -> HandlerResult {
        let found = self.joinable(caller, chat)?;
        let Some(stored) = found.password else { return self.join(caller, chat) };
        let given = password.ok_or(Decline::PasswordRequired(chat))?;
        let key = Key::Join(caller.user, chat);
        self.check_throttle(&[key])?;
        let Some(given) = password::prepare_attempt(given) else {
            self.spend(&[key]);
            return Err(WRONG_CHAT_PASSWORD.into());
        };
        self.check_join(caller, chat, given, stored)
    }

    /// Queues a comparison of a password with that of the chat.
    fn check_join(
        &mut self,
        caller: Caller,
        chat: ChatId,
        password: Password,
        stored: String,
    ) -> HandlerResult {
        let checked = Checked { password, stored: Some(stored) };
        self.queue_comparison(caller.conn, caller.task, checked, false, |checked| {
            Intent::JoinChat { chat, checked }
        })
    }

    /// The chat, if the caller may join it, apart from its password.
    fn joinable(&mut self, caller: Caller, chat: ChatId) -> Result<Chat, HandlerError> {
        let found = self.visible_chat(caller, chat)?;
        if self.presence.roster.membership(caller.user, chat).is_some() {
            return Err(Decline::AlreadyMember(chat).into());
        }
        if found.direct.is_some() {
            return Err(Decline::NoSuchChat.into());
        }
        self.may_become_member(chat, caller.user)?;
        Ok(found)
    }

    /// Declines when the user is in as many chats as allowed.
    fn check_memberships(&self, user: UserId) -> HandlerResult {
        let count = self.presence.roster.user(user).map_or(0, |online| online.chats.len());
        if count >= MEMBERSHIPS_MAX {
            return Err(Decline::Forbidden(
                "you have reached the limit of chats per user; leave one first",
            )
            .into());
        }
        Ok(())
    }

    pub(super) fn join_verified(
        &mut self,
        conn: ConnId,
        task: u8,
        chat: ChatId,
        checked: Checked,
        ok: bool,
    ) -> HandlerResult {
        let Some(caller) = self.caller(conn, task) else {
            return Err(Decline::LoginRequired.into());
        };
        if !ok {
            self.spend(&[Key::Join(caller.user, chat)]);
            return Err(WRONG_CHAT_PASSWORD.into());
        }
        match self.joinable(caller, chat)?.password {
            // The password was changed meanwhile: compare again, with the new one.
            Some(now) if checked.stored.as_deref() != Some(&now) => {
                self.check_join(caller, chat, checked.password, now)
            }
            _ => self.join(caller, chat),
        }
    }

    fn join(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        self.may_write()?;
        // Checked again: a command may have removed the chat, or made the caller a member.
        self.joinable(caller, chat)?;
        if self.store.member(chat, caller.user)?.is_some() {
            return Err(Decline::AlreadyMember(chat).into());
        }
        self.may_change(caller)?;
        self.become_member(chat, caller.user, Some(caller.conn))?;
        self.accept(caller, |_| {});
        Ok(())
    }

    /// Adds a new member to the roster: their connections get the chat's messages from now on.
    pub(super) fn enter(&mut self, user: UserId, chat: ChatId) -> HandlerResult {
        self.notify_so_far();
        self.turn.users.push(user);
        let slow_mode_s = self.store.chat(chat)?.map_or(0, |chat| chat.slow_mode_s);
        self.presence.roster.join(user, chat, slow_mode_s);
        Ok(())
    }

    /// Removes a former member from the roster: their connections get no more of its messages.
    pub(super) fn exit(&mut self, user: UserId, chat: ChatId) {
        self.notify_so_far();
        self.turn.users.push(user);
        self.presence.roster.part(user, chat);
    }

    /// MEMBER_NOTIFY to the other members.
    pub(super) fn notify_event(
        &mut self,
        chat: ChatId,
        user: UserId,
        event: MemberEvent,
        except: Option<ConnId>,
    ) -> HandlerResult {
        let nickname = self.store.user(user)?.map(|user| user.nickname).unwrap_or_default();
        self.notify_member(chat, user, event, &nickname, except);
        Ok(())
    }

    pub(super) fn create_chat(
        &mut self,
        caller: Caller,
        name: &str,
        password: Option<&str>,
    ) -> HandlerResult {
        let name = Name::parse_group(name).map_err(|_| Decline::BadName)?;
        if self.store.chat_by_key(name.key())?.is_some() {
            return Err(Decline::NameTaken.into());
        }
        self.check_memberships(caller.user)?;
        let Some(password) = password else {
            return self.create(caller, name.text(), name.key(), None);
        };
        let password = new_password(password, Kind::Chat)?;
        self.check_groups(caller.user)?;
        let work = Work::Hash { password, rounds: self.config.password_rounds };
        let (name, key) = name.into_parts();
        self.queue_password_work(caller.conn, caller.task, work, Intent::CreateChat { name, key })
    }

    pub(super) fn create_chat_hashed(
        &mut self,
        conn: ConnId,
        task: u8,
        name: &str,
        key: &str,
        stored: &str,
    ) -> HandlerResult {
        match self.caller(conn, task) {
            Some(caller) => self.create(caller, name, key, Some(stored)),
            None => Err(Decline::LoginRequired.into()),
        }
    }

    fn create(
        &mut self,
        caller: Caller,
        name: &str,
        key: &str,
        password: Option<&str>,
    ) -> HandlerResult {
        if self.store.chat_by_key(key)?.is_some() {
            return Err(Decline::NameTaken.into());
        }
        self.check_groups(caller.user)?;
        self.may_change(caller)?;
        self.note_group(caller.user)?;
        let now = self.clock.next();
        let chat = self.store.add_chat(name, key, password, now)?.ok_or(Decline::NameTaken)?;
        let (user, seen) = (caller.user, ServerTime::ZERO);
        self.store.add_member(Member { chat, user, admin: true, joined: now, seen })?;
        self.enter(user, chat)?;
        self.accept(caller, |body| body.put_u32(chat.get()));
        self.notify_user_chat(user, chat, Some(caller.conn));
        Ok(())
    }

    pub(super) fn start_chat(&mut self, caller: Caller, other: UserId) -> HandlerResult {
        let found = self.store.user(other)?.filter(|_| other != caller.user);
        let partner = found.ok_or(Decline::NoSuchUser)?;
        if let Some(found) = self.store.direct_chat(caller.user, other)? {
            self.accept(caller, |body| body.put_u32(found.chat.get()));
            return Ok(());
        }
        if partner.disabled {
            return Err(Decline::NoSuchUser.into());
        }
        self.check_memberships(caller.user)?;
        self.may_write()?;
        if let Some(imported) = self.store.direct_chat(caller.user, other)? {
            self.accept(caller, |body| body.put_u32(imported.chat.get()));
            return Ok(());
        }
        self.may_change(caller)?;
        let joined = self.clock.next();
        let chat = self.store.add_direct_chat(caller.user, other, joined)?;
        for user in [caller.user, other] {
            let seen = ServerTime::ZERO;
            self.store.add_member(Member { chat, user, admin: false, joined, seen })?;
            self.enter(user, chat)?;
        }
        self.accept(caller, |body| body.put_u32(chat.get()));
        self.notify_user_chat(caller.user, chat, Some(caller.conn));
        self.notify_user_chat(other, chat, None);
        Ok(())
    }

    pub(super) fn leave_chat(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        let me = self.require_member(caller, chat)?;
        if self.store.chat(chat)?.is_some_and(|chat| chat.direct.is_some()) {
            return Err(Decline::Forbidden("a direct chat cannot be left").into());
        }
        self.may_change(caller)?;
        self.store.remove_member(chat, caller.user)?;
        self.exit(caller.user, chat);
        self.accept(caller, |_| {});
        self.notify_user_chat(caller.user, chat, Some(caller.conn));
        self.notify_event(chat, caller.user, MemberEvent::Left, None)?;
        self.settle_departure(chat, me.admin)
    }

    /// After a member left a group: makes another one an admin if none is left, and notes that a
    /// chat is gone if it became empty.
    pub(super) fn settle_departure(&mut self, chat: ChatId, was_admin: bool) -> HandlerResult {
        match self.store.settle_departure(chat, was_admin, self.clock.now())? {
            Succession::Unchanged => {}
            Succession::Heir(heir) => self.made_admin(chat, heir)?,
            Succession::Gone => self.background.counting.forget(chat),
        }
        Ok(())
    }

    /// The group, if the caller is an admin of it.
    pub(super) fn administered(
        &mut self,
        caller: Caller,
        chat: ChatId,
    ) -> Result<Chat, HandlerError> {
        self.require_admin(caller, chat)?;
        self.visible_chat(caller, chat)
    }

    pub(super) fn delete_chat(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        self.administered(caller, chat)?;
        self.may_change(caller)?;
        self.store.remove_chat(chat)?;
        self.background.housekeeping.erasing.sweep_soon();
        self.accept(caller, |_| {});
        self.chat_is_gone(chat, Some(caller.conn));
        Ok(())
    }

    /// Notifies the members of a chat that was removed, and takes it out of the roster.
    pub(super) fn chat_is_gone(&mut self, chat: ChatId, except: Option<ConnId>) {
        self.background.counting.forget(chat);
        for user in self.presence.roster.users_of(chat) {
            self.exit(user, chat);
            self.notify_user_chat(user, chat, except);
        }
    }

    pub(super) fn rename_chat(
        &mut self,
        caller: Caller,
        chat: ChatId,
        name: &str,
    ) -> HandlerResult {
        let found = self.administered(caller, chat)?;
        let name = Name::parse_group(name).map_err(|_| Decline::BadName)?;
        self.may_write()?;
        let holder = self.store.chat_by_key(name.key())?;
        if holder.is_some_and(|holder| holder.chat != chat) {
            return Err(Decline::NameTaken.into());
        }
        if found.name == name.text() {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.rename_chat(chat, name.text(), name.key())?;
        self.chat_has_changed(caller, chat);
        Ok(())
    }

    pub(super) fn set_chat_title(
        &mut self,
        caller: Caller,
        chat: ChatId,
        title: &str,
    ) -> HandlerResult {
        let found = self.administered(caller, chat)?;
        if title.chars().count() > TITLE_CHARS_MAX {
            return Err(Decline::TooLong(TITLE_CHARS_MAX, "characters in a title").into());
        }
        if found.title == title {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.set_chat_title(chat, title)?;
        self.chat_has_changed(caller, chat);
        Ok(())
    }

    pub(super) fn set_chat_password(
        &mut self,
        caller: Caller,
        chat: ChatId,
        password: Option<&str>,
    ) -> HandlerResult {
        let found = self.administered(caller, chat)?;
        if let Some(password) = password {
            let password = new_password(password, Kind::Chat)?;
            let Caller { conn, task, .. } = caller;
            return match found.password {
                // If the password stays the same, nobody is notified.
                Some(stored) => {
                    let checked = Checked { password, stored: Some(stored) };
                    self.queue_comparison(conn, task, checked, false, |checked| {
                        Intent::CompareChatPassword { chat, checked }
                    })
                }
                None => self.hash_chat_password(conn, task, chat, password),
            };
        }
        if found.password.is_none() {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.set_chat_password(chat, None)?;
        self.chat_has_changed(caller, chat);
        Ok(())
    }

    fn hash_chat_password(
        &mut self,
        conn: ConnId,
        task: u8,
        chat: ChatId,
        password: Password,
    ) -> HandlerResult {
        let work = Work::Hash { password, rounds: self.config.password_rounds };
        self.queue_password_work(conn, task, work, Intent::SetChatPassword { chat })
    }

    pub(super) fn chat_password_compared(
        &mut self,
        conn: ConnId,
        task: u8,
        chat: ChatId,
        checked: Checked,
        same: bool,
    ) -> HandlerResult {
        let Some(caller) = self.caller(conn, task) else {
            return Err(Decline::LoginRequired.into());
        };
        let found = self.administered(caller, chat)?;
        if same && found.password == checked.stored {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.hash_chat_password(conn, task, chat, checked.password)
    }

    pub(super) fn chat_password_hashed(
        &mut self,
        conn: ConnId,
        task: u8,
        chat: ChatId,
        stored: &str,
    ) -> HandlerResult {
        let Some(caller) = self.caller(conn, task) else {
            return Err(Decline::LoginRequired.into());
        };
        self.administered(caller, chat)?;
        self.may_change(caller)?;
        self.store.set_chat_password(chat, Some(stored))?;
        self.chat_has_changed(caller, chat);
        Ok(())
    }

    fn chat_has_changed(&mut self, caller: Caller, chat: ChatId) {
        self.accept(caller, |_| {});
        self.notify_chat(chat, Some(caller.conn));
    }

    pub(super) fn set_chat_admin(
        &mut self,
        caller: Caller,
        chat: ChatId,
        user: UserId,
        admin: bool,
    ) -> HandlerResult {
        self.administered(caller, chat)?;
        let member = self.store.member(chat, user)?.ok_or(Decline::NotMember(chat))?;
        if member.admin == admin {
            self.accept(caller, |_| {});
            return Ok(());
        }
        // Neither a disabled user nor a bot can act as an admin.
        let target = self.store.user(user)?;
        let can_act = target.as_ref().is_some_and(User::can_log_in);
        if admin && target.is_some_and(|user| user.flags & USER_BOT != 0) {
            return Err(Decline::Forbidden("a bot cannot be an admin").into());
        }
        if !admin && can_act && self.store.admin_count(chat)? <= 1 {
            return Err(Decline::LastAdmin.into());
        }
        self.may_change(caller)?;
        self.store.set_admin(chat, user, admin)?;
        self.accept(caller, |_| {});
        let event = if admin { MemberEvent::Admin } else { MemberEvent::NoLongerAdmin };
        self.notify_event(chat, user, event, Some(caller.conn))?;
        self.notify_chat(chat, Some(caller.conn));
        Ok(())
    }

    pub(super) fn set_chat_ban(
        &mut self,
        caller: Caller,
        chat: ChatId,
        user: UserId,
        banned: bool,
    ) -> HandlerResult {
        self.administered(caller, chat)?;
        if user == caller.user {
            return Err(Decline::Forbidden("you cannot ban yourself").into());
        }
        if self.store.user(user)?.is_none() {
            return Err(Decline::NoSuchUser.into());
        }
        self.may_write()?;
        self.administered(caller, chat)?;
        if self.store.is_banned(chat, user)? == banned {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.set_banned(chat, user, banned)?;
        let was_member = banned && self.store.remove_member(chat, user)?;
        self.accept(caller, |_| {});
        if was_member {
            self.exit(user, chat);
            self.notify_user_chat(user, chat, None);
        }
        if banned {
            self.notify_event(chat, user, MemberEvent::Banned, Some(caller.conn))?;
        }
        Ok(())
    }
}

const WRONG_CHAT_PASSWORD: Decline = Decline::BadPassword("wrong password for this chat");
