//! Notifications of what the command line changed about members and names.

use crate::ids::{ChatId, UserId};
use crate::service::{HandlerResult, Service};
use crate::wire::answer::MemberEvent;

impl Service<'_> {
    /// A membership was ended; by now the user may have joined again.
    pub(super) fn member_left(&mut self, chat: ChatId, user: UserId) -> HandlerResult {
        if self.store.member(chat, user)?.is_some() {
            return Ok(());
        }
        self.exit(user, chat);
        self.notify_user_chat(user, chat, None);
        self.notify_event(chat, user, MemberEvent::Left, None)
    }

    /// A user was banned from a chat.
    pub(super) fn member_banned(&mut self, chat: ChatId, user: UserId) -> HandlerResult {
        if !self.store.is_banned(chat, user)? {
            // The ban is lifted already, but the membership has still ended.
            return self.member_left(chat, user);
        }
        if self.presence.roster.membership(user, chat).is_some() {
            self.exit(user, chat);
            self.notify_user_chat(user, chat, None);
        }
        self.notify_event(chat, user, MemberEvent::Banned, None)
    }

    /// A member was made an admin.
    pub(super) fn made_admin(&mut self, chat: ChatId, user: UserId) -> HandlerResult {
        if self.store.member(chat, user)?.is_some_and(|member| member.admin) {
            self.notify_event(chat, user, MemberEvent::Admin, None)?;
            self.notify_chat(chat, None);
        }
        Ok(())
    }

    /// A user was renamed: the name is the title of their direct chats.
    pub(super) fn user_renamed(&mut self, user: UserId) -> HandlerResult {
        for member in self.store.memberships(user)? {
            let Some((one, other)) = self.store.chat(member.chat)?.and_then(|chat| chat.direct)
            else {
                continue;
            };
            let other = if one == user { other } else { one };
            self.notify_user_chat(other, member.chat, None);
        }
        Ok(())
    }
}
