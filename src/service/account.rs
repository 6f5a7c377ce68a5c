//! Registration, the caller's account and sessions, and lookups of users (protocol sections 4, 5
//! and 5a).

use crate::auth::helper::Work;
use crate::auth::password::{self, Kind};
use crate::auth::throttle::Key;
use crate::auth::token::InviteCode;
use crate::config::Registration;
use crate::ids::{ConnId, SessionId, UserId};
use crate::names::{self, Name};
use crate::service::peer::Intent;
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::invites::Invite;
use crate::store::users::User;
use crate::wire::answer::{self, USER_ONLINE, USER_OPERATOR};
use crate::wire::codec::Put;
use crate::wire::decline::Decline;

/// Flag in GET_SESSIONS: the session of the connection that asks.
const SESSION_THIS: u8 = 0x01;
/// Flag in GET_SESSIONS: a session that a connection uses now.
const SESSION_ATTACHED: u8 = 0x02;

/// What may stand behind the name of a removed account, if a user has it already.
pub const REMOVED_ENDINGS: [&str; 5] = ["", "-2", "-3", "-4", "-5"];

/// Whether this is what is left of a removed account: its name holds its own id, and its password
/// is nobody's. A user who chose such a name, when that was possible, has a password.
pub fn is_removed(user: &User) -> bool {
    let is_its_name = |ending| user.nickname == format!("deleted-{}{ending}", user.user);
    user.disabled && password::is_nobodys(&user.password) && REMOVED_ENDINGS.iter().any(is_its_name)
}

/// Normalizes a new password for hashing; declines one that is too short or too long.
pub(super) fn new_password(given: &str, kind: Kind) -> Result<password::Password, Decline> {
    password::prepare(given, kind).map_err(|why| {
        Decline::BadPassword(match why {
            password::BadPassword::TooShort(1) => "a password must not be empty",
            password::BadPassword::TooShort(_) => "a password needs at least 8 characters",
            password::BadPassword::TooLong => "a password may have at most 256 bytes",
        })
    })
}

impl Service<'_> {
    pub(super) fn get_user_id(&mut self, caller: Caller, nickname: &str) -> HandlerResult {
        let found = match names::name_key(nickname) {
            Some(key) => self.store.user_by_key(&key)?,
            None => None,
        };
        let user = found.ok_or(Decline::NoSuchUser)?.user;
        self.accept(caller, |body| body.put_u32(user.get()));
        Ok(())
    }

    pub(super) fn get_user(&mut self, caller: Caller, user: UserId) -> HandlerResult {
        let found = self.store.user(user)?.ok_or(Decline::NoSuchUser)?;
        let mut flags = self.user_flags(&found);
        if !caller.version.has_extras() {
            flags &= USER_ONLINE;
        }
        self.accept(caller, |body| {
            answer::put_user(body, user, flags, found.created, &found.nickname);
        });
        Ok(())
    }

    pub(super) fn get_sessions(&mut self, caller: Caller) -> HandlerResult {
        let now = self.clock.now();
        let sessions = self.store.sessions(Some(caller.user))?;
        let mut pack = Vec::new();
        for row in sessions {
            let is_attached = self.conn_of_session(caller.user, row.session).is_some();
            let mut flags = if row.session == caller.session { SESSION_THIS } else { 0 };
            if is_attached {
                flags |= SESSION_ATTACHED;
            }
            pack.put_u32(row.session.get());
            pack.put_u8(flags);
            pack.put_time(row.created);
            pack.put_time(if is_attached { now } else { row.used });
            pack.put_str(&row.address);
        }
        self.accept(caller, |body| body.put_bytes(&pack));
        Ok(())
    }

    pub(super) fn end_session(&mut self, caller: Caller, session: SessionId) -> HandlerResult {
        let row = self.store.session(session)?.filter(|row| row.user == caller.user);
        if row.is_none() {
            return Err(Decline::BadSession.into());
        }
        self.may_write()?;
        self.store.end_session(session)?;
        self.accept(caller, |_| {});
        self.deauth_session(caller.user, session);
        Ok(())
    }

    pub(super) fn register_user(
        &mut self,
        conn: ConnId,
        task: u8,
        login: &str,
        password: &str,
        invite: Option<&str>,
    ) -> HandlerResult {
        let Some(origin) = self.origin(conn) else { return Ok(()) };
        if self.storage.lockdown {
            return Err(Decline::RegistrationClosed.into());
        }
        let code_key = Key::RegisterInvite(origin);
        if invite.is_some() {
            self.check_throttle(&[code_key])?;
        }
        let found = match invite.and_then(InviteCode::parse) {
            Some(code) => self.registering_invite(code.digest().0)?,
            None => None,
        };
        let is_first = found.as_ref().is_some_and(|(_, invite)| invite.operator);
        if self.config.registration == Registration::Closed && !is_first {
            if invite.is_some() {
                self.spend(&[code_key]);
            }
            return Err(Decline::RegistrationClosed.into());
        }
        let key = Key::Register(origin);
        self.check_throttle(&[key])?;
        self.spend(&[key]);
        // On 1.0, an invalid invite is ignored where registration needs none.
        let is_latest =
            self.presence.peers.get(conn).is_some_and(|peer| peer.version().has_extras());
        let is_needed =
            self.config.registration != Registration::Open || invite.is_some() && is_latest;
        if found.is_none() && is_needed {
            if invite.is_some() {
                self.spend(&[code_key]);
            }
            return Err(Decline::BadInvite.into());
        }
        let name = Name::parse(login).map_err(|_| Decline::BadName)?;
        if self.store.is_login_taken(name.text(), name.key(), None)? {
            return Err(Decline::NameTaken.into());
        }
        let password = new_password(password, Kind::User)?;
        let work = Work::Hash { password, rounds: self.config.password_rounds };
        let (nickname, key) = name.into_parts();
        let invite = found.map(|(digest, _)| digest);
        self.queue_password_work(conn, task, work, Intent::Register { nickname, key, invite })
    }

    /// The invite with this digest, if it can be used to register now.
    fn registering_invite(
        &mut self,
        digest: Digest32,
    ) -> Result<Option<(Digest32, Invite)>, HandlerError> {
        let found = self.good_invite(&digest)?;
        Ok(found.filter(|invite| invite.registers).map(|invite| (digest, invite)))
    }

    pub(super) fn register_hashed(
        &mut self,
        conn: ConnId,
        task: u8,
        nickname: &str,
        key: &str,
        invite: Option<Digest32>,
        stored: &str,
    ) -> HandlerResult {
        if self.storage.lockdown {
            return Err(Decline::RegistrationClosed.into());
        }
        self.may_write()?;
        let invite = match invite {
            // Checked again: others may have used the invite up meanwhile, or removed its chat.
            Some(digest) => Some(self.registering_invite(digest)?.ok_or(Decline::BadInvite)?),
            None => None,
        };
        if self.store.is_login_taken(nickname, key, None)? {
            return Err(Decline::NameTaken.into());
        }
        let now = self.clock.next();
        let user = self.store.add_user(nickname, key, stored, now)?.ok_or(Decline::NameTaken)?;
        if let Some((digest, invite)) = invite {
            if !self.store.use_invite(&digest, self.clock.wall())? {
                return Err(Decline::BadInvite.into());
            }
            if invite.operator {
                self.store.set_user_flag(user, USER_OPERATOR, true)?;
            }
            if let Some(chat) = invite.chat {
                self.become_member(chat, user, None)?;
            }
        }
        self.accept_to(conn, task, |body| body.put_u32(user.get()));
        Ok(())
    }

    pub(super) fn change_password(
        &mut self,
        caller: Caller,
        old: &str,
        new: &str,
    ) -> HandlerResult {
        let key = Key::ChangePassword(caller.user);
        self.check_throttle(&[key])?;
        let new = new_password(new, Kind::User)?;
        let Some(old) = password::prepare_attempt(old) else {
            self.spend(&[key]);
            return Err(Decline::BadCredentials.into());
        };
        let user = self.store.user(caller.user)?.ok_or(Decline::BadCredentials)?;
        let work = Work::Verify {
            stored: Some(user.password),
            password: old,
            rounds: self.config.password_rounds,
            upgrade: false,
        };
        let intent = Intent::CheckOldPassword { new };
        self.queue_password_work(caller.conn, caller.task, work, intent)
    }

    pub(super) fn old_password_verified(
        &mut self,
        conn: ConnId,
        task: u8,
        ok: bool,
        new: password::Password,
    ) -> HandlerResult {
        let Some(caller) = self.caller(conn, task) else {
            return Err(Decline::LoginRequired.into());
        };
        if !ok {
            self.spend(&[Key::ChangePassword(caller.user)]);
            return Err(Decline::BadCredentials.into());
        }
        let work = Work::Hash { password: new, rounds: self.config.password_rounds };
        self.queue_password_work(conn, task, work, Intent::HashNewPassword)
    }

    pub(super) fn new_password_hashed(
        &mut self,
        conn: ConnId,
        task: u8,
        stored: &str,
    ) -> HandlerResult {
        let Some(caller) = self.caller(conn, task) else {
            return Err(Decline::LoginRequired.into());
        };
        self.may_write()?;
        if self.store.session(caller.session)?.is_none() {
            // The command line has ended this session meanwhile, perhaps by setting another
            // password.
            return Err(Decline::LoginRequired.into());
        }
        self.store.change_password(caller.user, stored)?;
        self.store.end_sessions(caller.user, Some(caller.session))?;
        self.accept(caller, |_| {});
        self.deauth_user(caller.user, Some(caller.session));
        Ok(())
    }
}

/// The digest of an invite code, as the request keeps it while its password is hashed.
type Digest32 = [u8; 32];
