//! Invites: admins and operators create and end them; users register or join with them (protocol
//! section 5a).

use crate::auth::throttle::Key;
use crate::auth::token::InviteCode;
use crate::config::{InvitesBy, Registration};
use crate::ids::{ChatId, ServerTime};
use crate::limits::{INVITES_MAX, INVITES_PER_USER_MAX};
use crate::service::{Caller, DAY_US, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::invites::Invite;
use crate::wire::codec::Put;
use crate::wire::decline::Decline;

/// Codes tried until one's first characters differ from those of every other invite.
const HINT_TRIES: usize = 16;

/// The digest of a code.
type Digest32 = [u8; 32];

impl Service<'_> {
    pub(super) fn create_invite(
        &mut self,
        caller: Caller,
        registers: bool,
        uses: u16,
        days: u16,
        chat: Option<ChatId>,
    ) -> HandlerResult {
        if let Some(chat) = chat {
            self.administered(caller, chat)?;
        }
        let is_operator = self.is_operator(caller.user)?;
        if registers {
            let by_admins = chat.is_some() && self.config.invites_by == InvitesBy::Admins;
            if !is_operator && !by_admins {
                let why = "only an operator may make invites that register";
                return Err(Decline::Forbidden(why).into());
            }
            if self.config.registration == Registration::Closed {
                return Err(Decline::Forbidden("registration is closed on this server").into());
            }
        }
        let (own, all) = self.store.invite_counts(caller.user)?;
        if !is_operator && (own >= INVITES_PER_USER_MAX || all >= INVITES_MAX) {
            return Err(Decline::Forbidden("there are too many invites: end some first").into());
        }
        self.may_change(caller)?;
        let code = self.fresh_code()?;
        let created = self.clock.wall();
        let expires = created.micros().saturating_add(i64::from(days) * DAY_US);
        let invite = Invite {
            hint: code.hint(),
            uses_left: uses.into(),
            expires: ServerTime::new(expires).unwrap_or(ServerTime::MAX),
            created,
            registers,
            operator: false,
            chat,
            creator: Some(caller.user),
        };
        self.store.add_invite(&code.digest().0, &invite)?;
        let text = code.expose();
        self.accept(caller, |body| body.put_str(&text));
        Ok(())
    }

    /// A new code whose first characters no other invite has.
    fn fresh_code(&mut self) -> Result<InviteCode, HandlerError> {
        for _ in 0..HINT_TRIES {
            let code = InviteCode::generate(self.random).map_err(|why| {
                log::error!("cannot create an invite: no randomness: {why}");
                Decline::StorageFailed
            })?;
            if self.store.invites_with_hint(&code.hint())?.is_empty() {
                return Ok(code);
            }
        }
        log::error!(
            "cannot create an invite: {HINT_TRIES} codes in a row began like existing ones"
        );
        Err(Decline::StorageFailed.into())
    }

    pub(super) fn get_invites(&mut self, caller: Caller, chat: Option<ChatId>) -> HandlerResult {
        let is_admin = match chat {
            Some(chat) => self.require_member(caller, chat)?.admin,
            None => false,
        };
        let is_operator = self.is_operator(caller.user)?;
        if !is_operator && !is_admin {
            let why = "only an admin of the chat or an operator may list invites";
            return Err(Decline::Forbidden(why).into());
        }
        let now = self.clock.wall();
        let sees_all = is_operator || self.config.invites_by == InvitesBy::Admins;
        let mut pack = Vec::new();
        for invite in self.store.good_invites(chat, now)? {
            if !sees_all && invite.registers {
                continue;
            }
            pack.put_str(&invite.hint);
            pack.put_bool(invite.registers);
            pack.put_u16(u16::try_from(invite.uses_left).unwrap_or(u16::MAX));
            pack.put_time(invite.expires);
            pack.put_time(invite.created);
            pack.put_u32(invite.creator.map_or(0, |user| user.get()));
            pack.put_u32(invite.chat.map_or(0, |chat| chat.get()));
        }
        self.accept(caller, |body| body.put_bytes(&pack));
        Ok(())
    }

    pub(super) fn end_invite(&mut self, caller: Caller, hint: &str) -> HandlerResult {
        let is_operator = self.is_operator(caller.user)?;
        if !is_operator && !self.store.is_admin_anywhere(caller.user)? {
            let why = "only an admin of a chat or an operator may end invites";
            return Err(Decline::Forbidden(why).into());
        }
        let now = self.clock.wall();
        let hint = hint.to_ascii_lowercase();
        let mut found = self.store.invites_with_hint(&hint)?;
        found.retain(|(_, invite)| invite.is_good(now));
        if found.is_empty() {
            return Err(Decline::BadInvite.into());
        }
        let mut ended = Vec::new();
        for (digest, invite) in found {
            if is_operator || self.may_end(caller, &invite)? {
                ended.push(digest);
            }
        }
        if ended.is_empty() {
            return Err(Decline::Forbidden("this invite does not belong to your chats").into());
        }
        self.may_change(caller)?;
        for digest in ended {
            self.store.remove_invite(&digest)?;
        }
        self.accept(caller, |_| {});
        Ok(())
    }

    /// Whether an admin of chats may end an invite.
    fn may_end(&mut self, caller: Caller, invite: &Invite) -> StoreResult<bool> {
        let Some(chat) = invite.chat else { return Ok(false) };
        let may_register = !invite.registers || self.config.invites_by == InvitesBy::Admins;
        let member = self.store.member(chat, caller.user)?;
        Ok(may_register && member.is_some_and(|member| member.admin))
    }

    /// The invite of a code, if it can be used now and its chat still exists.
    pub(super) fn good_invite(&mut self, digest: &Digest32) -> StoreResult<Option<Invite>> {
        let now = self.clock.wall();
        let Some(invite) = self.store.invite(digest)?.filter(|invite| invite.is_good(now)) else {
            return Ok(None);
        };
        let is_there = match invite.chat {
            Some(chat) => self.store.chat(chat)?.is_some(),
            None => true,
        };
        Ok(is_there.then_some(invite))
    }

    pub(super) fn use_invite(&mut self, caller: Caller, code: &str) -> HandlerResult {
        let key = Key::UseInvite(caller.user);
        self.check_throttle(&[key])?;
        let digest = InviteCode::parse(code).map(|code| code.digest().0);
        let chat = match &digest {
            Some(digest) => self.joining_invite(digest)?,
            None => None,
        };
        let (Some(digest), Some(chat)) = (digest, chat) else {
            self.spend(&[key]);
            return Err(Decline::BadInvite.into());
        };
        if self.presence.roster.membership(caller.user, chat).is_none() {
            self.may_write()?;
            // Checked again: a command may have ended the invite or removed the chat.
            if self.joining_invite(&digest)? != Some(chat) {
                return Err(Decline::BadInvite.into());
            }
            if self.store.member(chat, caller.user)?.is_none() {
                self.may_become_member(chat, caller.user)?;
                self.spend_change(caller.user)?;
                let now = self.clock.wall();
                self.store.use_invite(&digest, now)?;
                self.become_member(chat, caller.user, Some(caller.conn))?;
            }
        }
        self.accept(caller, |body| body.put_u32(chat.get()));
        Ok(())
    }

    /// The chat of an invite that can be used to join now.
    fn joining_invite(&mut self, digest: &Digest32) -> StoreResult<Option<ChatId>> {
        Ok(self.good_invite(digest)?.and_then(|invite| invite.chat))
    }
}
