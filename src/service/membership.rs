//! Joining chats in every way there is, closed chats, and per-chat settings for pushes (protocol
//! sections 4 and 5a).

use crate::ids::{ChatId, ConnId, ServerTime, UserId};
use crate::limits::MEMBERSHIPS_MAX;
use crate::service::{Caller, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::chats::Chat;
use crate::store::members::Member;
use crate::wire::answer::MemberEvent;
use crate::wire::decline::Decline;

impl Service<'_> {
    /// Whether a user may know that a chat exists: a direct chat is visible to its two members, a
    /// closed group to its members.
    pub(super) fn is_visible(&mut self, user: UserId, chat: &Chat) -> StoreResult<bool> {
        Ok(match chat.direct {
            Some((one, other)) => user == one || user == other,
            None => !chat.closed || self.store.member(chat.chat, user)?.is_some(),
        })
    }

    /// Declines if a user who is not a member may not become one.
    pub(super) fn may_become_member(&mut self, chat: ChatId, user: UserId) -> HandlerResult {
        if self.store.is_banned(chat, user)? {
            return Err(Decline::Forbidden("the user is banned from this chat").into());
        }
        if self.storage.lockdown {
            return Err(Decline::Forbidden(
                "the server is locked down: nobody may join a chat now",
            )
            .into());
        }
        if self.store.membership_count(user)? as usize >= MEMBERSHIPS_MAX {
            return Err(
                Decline::Forbidden("the user has reached the limit of chats per user").into()
            );
        }
        Ok(())
    }

    /// Makes a user a member, and notifies the user's connections and the other members, except the
    /// connection that asked.
    pub(super) fn become_member(
        &mut self,
        chat: ChatId,
        user: UserId,
        asker: Option<ConnId>,
    ) -> HandlerResult {
        let (joined, seen) = (self.clock.next(), ServerTime::ZERO);
        self.store.add_member(Member { chat, user, admin: false, joined, seen })?;
        self.enter(user, chat)?;
        self.notify_user_chat(user, chat, asker);
        self.notify_event(chat, user, MemberEvent::Joined, asker)
    }

    pub(super) fn add_member(
        &mut self,
        caller: Caller,
        chat: ChatId,
        user: UserId,
    ) -> HandlerResult {
        self.administered(caller, chat)?;
        self.kept_user(user)?;
        self.may_write()?;
        self.administered(caller, chat)?;
        if self.store.member(chat, user)?.is_some() {
            return Err(Decline::AlreadyMember(chat).into());
        }
        self.may_become_member(chat, user)?;
        self.spend_change(caller.user)?;
        self.become_member(chat, user, Some(caller.conn))?;
        self.accept(caller, |_| {});
        Ok(())
    }

    pub(super) fn set_chat_closed(
        &mut self,
        caller: Caller,
        chat: ChatId,
        closed: bool,
    ) -> HandlerResult {
        let found = self.administered(caller, chat)?;
        if found.closed == closed {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.set_chat_closed(chat, closed)?;
        self.accept(caller, |_| {});
        self.notify_chat_with_extras(chat, Some(caller.conn));
        Ok(())
    }

    pub(super) fn set_chat_notify(
        &mut self,
        caller: Caller,
        chat: ChatId,
        notify: u8,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        if self.store.notify_level(chat, caller.user)? == notify {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.may_change(caller)?;
        self.store.set_notify_level(chat, caller.user, notify)?;
        self.accept(caller, |_| {});
        self.notify_own_with_extras(caller, chat);
        Ok(())
    }
}
