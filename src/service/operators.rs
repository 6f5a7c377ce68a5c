//! Requests of operators about users, and setting a new password with a reset code (protocol
//! section 5a).

use crate::auth::helper::Work;
use crate::auth::password::Kind;
use crate::auth::throttle::Key;
use crate::auth::token::{Digest, ResetCode};
use crate::config::UserList;
use crate::ids::{ConnId, ServerTime, UserId};
use crate::limits::FOUND_USERS_MAX;
use crate::names;
use crate::service::account::{is_removed, new_password};
use crate::service::peer::Intent;
use crate::service::stream::{Progress, SCAN_BUDGET_BYTES, Source};
use crate::service::{Caller, DAY_US, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::users::User;
use crate::wire::answer::{self, USER_BOT, USER_DISABLED, USER_ONLINE, USER_OPERATOR};
use crate::wire::codec::Put;
use crate::wire::decline::Decline;

/// Microseconds for which a reset code is valid.
const RESET_CODE_US: i64 = DAY_US;

impl Service<'_> {
    pub(super) fn is_operator(&mut self, user: UserId) -> StoreResult<bool> {
        Ok(self.store.user(user)?.is_some_and(|user| user.flags & USER_OPERATOR != 0))
    }

    pub(super) fn require_operator(&mut self, caller: Caller) -> HandlerResult {
        match self.is_operator(caller.user)? {
            true => Ok(()),
            false => Err(Decline::Forbidden("only an operator of the server may do this").into()),
        }
    }

    /// A user whose account was not removed.
    pub(super) fn kept_user(&mut self, user: UserId) -> Result<User, HandlerError> {
        let found = self.store.user(user)?.filter(|found| !is_removed(found));
        found.ok_or(Decline::NoSuchUser.into())
    }

    /// The flags of a user as 1.1 shows them.
    pub(super) fn user_flags(&self, user: &User) -> u8 {
        let online = if self.presence.roster.is_online(user.user) { USER_ONLINE } else { 0 };
        let disabled = if user.disabled { USER_DISABLED } else { 0 };
        user.flags & (USER_OPERATOR | USER_BOT) | online | disabled
    }

    pub(super) fn reset_password(&mut self, caller: Caller, user: UserId) -> HandlerResult {
        self.require_operator(caller)?;
        let found = self.kept_user(user)?;
        if found.flags & USER_BOT != 0 {
            return Err(Decline::Forbidden("a bot has no password").into());
        }
        self.may_change(caller)?;
        let code = ResetCode::generate(self.random).map_err(|why| {
            log::error!("cannot create a reset code: no randomness: {why}");
            Decline::StorageFailed
        })?;
        let now = self.clock.wall();
        let expires = now.micros().saturating_add(RESET_CODE_US);
        let expires = ServerTime::new(expires).unwrap_or(ServerTime::MAX);
        self.store.set_reset_code(user, &code.digest().0, expires, now)?;
        let text = code.expose();
        self.accept(caller, |body| {
            body.put_str(&text);
            body.put_time(expires);
        });
        Ok(())
    }

    /// SET_PASSWORD, on a connection without a session.
    pub(super) fn set_password(
        &mut self,
        conn: ConnId,
        task: u8,
        login: &str,
        code: &str,
        password: &str,
    ) -> HandlerResult {
        let Some(origin) = self.origin(conn) else { return Ok(()) };
        let key = names::name_key(login).unwrap_or_default();
        let keys = [Key::Reset(&key, origin), Key::Origin(origin)];
        self.check_throttle(&keys)?;
        let digest = ResetCode::parse(code).map(|code| code.digest());
        let found = match digest {
            Some(digest) => self.reset_by(&key, digest)?,
            None => None,
        };
        let (Some(digest), Some(_)) = (digest, found) else {
            self.spend(&keys);
            return Err(Decline::BadCode.into());
        };
        let password = new_password(password, Kind::User)?;
        let work = Work::Hash { password, rounds: self.config.password_rounds };
        self.queue_password_work(conn, task, work, Intent::SetPassword { login: key, digest })
    }

    /// The user with this name, if the code with this digest is the latest one.
    fn reset_by(&mut self, key: &str, given: Digest) -> Result<Option<UserId>, HandlerError> {
        let user = self.store.user_by_key(key)?.filter(|user| !user.disabled);
        let Some(user) = user.map(|user| user.user) else { return Ok(None) };
        let now = self.clock.wall();
        let kept = self.store.reset_code(user, now)?;
        let is_right = kept.and_then(|kept| Digest::from_row(&kept)) == Some(given);
        Ok(is_right.then_some(user))
    }

    pub(super) fn reset_password_hashed(
        &mut self,
        conn: ConnId,
        task: u8,
        login: &str,
        digest: Digest,
        stored: &str,
    ) -> HandlerResult {
        self.may_write()?;
        // Checked again: another connection may have used the code, or a command disabled the user.
        let Some(user) = self.reset_by(login, digest)? else {
            if let Some(origin) = self.origin(conn) {
                self.spend(&[Key::Reset(login, origin), Key::Origin(origin)]);
            }
            return Err(Decline::BadCode.into());
        };
        self.store.change_password(user, stored)?;
        self.store.end_sessions(user, None)?;
        self.accept_to(conn, task, |body| body.put_u32(user.get()));
        self.deauth_user(user, None);
        Ok(())
    }

    pub(super) fn set_user_disabled(
        &mut self,
        caller: Caller,
        user: UserId,
        disabled: bool,
    ) -> HandlerResult {
        self.require_operator(caller)?;
        if user == caller.user {
            return Err(Decline::Forbidden("operators cannot disable themselves").into());
        }
        self.may_write()?;
        let found = self.kept_user(user)?;
        if found.disabled == disabled {
            self.accept(caller, |_| {});
            return Ok(());
        }
        self.spend_change(caller.user)?;
        self.store.set_disabled(user, disabled)?;
        self.accept(caller, |_| {});
        let made = if disabled {
            self.store.end_sessions(user, None)?;
            self.deauth_user(user, None);
            self.store.settle_disabled(user, self.clock.now())?
        } else {
            let chats = self.store.settle_enabled(user)?;
            chats.into_iter().map(|chat| (chat, user)).collect()
        };
        made.into_iter().try_for_each(|(chat, admin)| self.made_admin(chat, admin))
    }

    pub(super) fn find_users(&mut self, caller: Caller, prefix: &str, limit: u16) -> HandlerResult {
        let is_operator = self.is_operator(caller.user)?;
        let may_look = is_operator || self.config.user_list == UserList::All;
        match names::prefix_key(prefix).filter(|_| may_look) {
            Some(prefix) => {
                let left = limit.min(FOUND_USERS_MAX);
                let after = None;
                self.begin_stream(caller, Source::Users { prefix, after, left, is_operator });
            }
            None => self.accept(caller, |_| {}),
        }
        Ok(())
    }

    /// The next piece of the answer to FIND_USERS. Only operators see disabled users.
    pub(super) fn users_piece(
        &mut self,
        caller: Caller,
        prefix: &str,
        after: &mut Option<String>,
        left: &mut u16,
        is_operator: bool,
    ) -> Result<Progress, HandlerError> {
        /// Rows in one piece: less than a millisecond of work.
        const ROWS: u16 = 64;
        self.pieces(caller, |service, pieces| {
            let users = service.store.users_by_prefix(prefix, after.as_deref(), ROWS)?;
            for user in &users {
                if *left == 0 {
                    return Ok(Progress::Ended);
                }
                if service.is_scan_budget_spent() {
                    return Ok(Progress::More);
                }
                service.streams.scanned_bytes += SCAN_BUDGET_BYTES / usize::from(4 * ROWS);
                *after = names::name_key(&user.nickname);
                if is_operator || !user.disabled {
                    let flags = service.user_flags(user);
                    answer::put_user(pieces.out(), user.user, flags, user.created, &user.nickname);
                    *left -= 1;
                }
            }
            let is_last = users.len() < usize::from(ROWS) || *left == 0;
            Ok(if is_last { Progress::Ended } else { Progress::More })
        })
    }
}
