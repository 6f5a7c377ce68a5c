//! HELLO, LOGIN, LOGOFF, RESTORE_SESSION and HEARTBEAT; suspension and takeover
//! (protocol sections 3 and 4).

use crate::auth::password::{self, Password};
use crate::auth::throttle::{Key, Origin};
use crate::auth::token::{self, Digest, SessionSecret};
use crate::config::Registration;
use crate::ids::{ConnId, ServerTime, SessionId, UserId};
use crate::limits::{PASSWORD_ITERATIONS, SESSIONS_PER_USER_MAX};
use crate::names;
use crate::service::peer::{Attached, Checked, Intent, Peer};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::users::User;
use crate::wire::Version;
use crate::wire::answer;
use crate::wire::codec::Put;
use crate::wire::decline::Decline;
use crate::wire::purpose::ToClient;

/// The name of the server in the answer to HELLO.
const SERVER: &str = concat!("vestnik ", env!("CARGO_PKG_VERSION"));

/// Microseconds between two updates of when a session was last used.
pub(super) const TOUCH_US: i64 = 3600 * 1_000_000;

/// Appends the identity of a session's user, as the version encodes it.
fn put_identity(body: &mut Vec<u8>, version: Version, user: UserId, flags: u8) {
    if version >= Version::V1_0 {
        body.put_u32(user.get());
    }
    if version.has_extras() {
        body.put_u8(flags | answer::USER_ONLINE);
    }
}

impl Service<'_> {
    pub(super) fn heartbeat(&mut self, conn: ConnId, task: u8, echo: &[u8]) -> HandlerResult {
        self.accept_to(conn, task, |body| body.put_bytes(echo));
        Ok(())
    }

    pub(super) fn hello(&mut self, conn: ConnId, task: u8, major: u8, minor: u8) -> HandlerResult {
        let version = Version::negotiate(major, minor).ok_or(Decline::UnsupportedVersion)?;
        if let Some(peer) = self.presence.peers.get_mut(conn) {
            peer.state.version = Some(version);
        }
        let body_bytes_max = self.config.body_bytes_max as u32;
        let content_bytes_max = self.config.content_bytes_max as u32;
        let file_bytes_max = self.config.file_bytes_max;
        let registration = match self.config.registration {
            Registration::Closed => 0,
            Registration::Invite => 1,
            Registration::Open => 2,
        };
        let push_key = self.background.pushing.public_key().to_owned();
        self.accept_to(conn, task, |body| {
            let (major, minor) = version.numbers();
            body.put_bytes(&[major, minor]);
            if version >= Version::V1_0 {
                body.put_u32(body_bytes_max);
                body.put_u32(content_bytes_max);
                body.put_str(SERVER);
            }
            if version.has_extras() {
                body.put_u64(file_bytes_max);
                body.put_str(&push_key);
                body.put_u8(registration);
            }
        });
        Ok(())
    }

    /// The remote address, in the form that the throttle counts by.
    pub(super) fn origin(&self, conn: ConnId) -> Option<Origin> {
        self.presence.peers.get(conn).map(|peer| Origin::of(peer.address()))
    }

    /// Declines if a key has no failure left: rate limiting of logins and other guesses.
    pub(super) fn check_throttle(&self, keys: &[Key<'_>]) -> HandlerResult {
        for key in keys {
            self.limits.throttle.check(*key, self.clock.now_ms()).map_err(Decline::RateLimited)?;
        }
        Ok(())
    }

    /// Counts a failure for each key.
    pub(super) fn spend(&mut self, keys: &[Key<'_>]) {
        for key in keys {
            self.limits.throttle.spend(*key, self.clock.now_ms());
        }
    }

    pub(super) fn login(
        &mut self,
        conn: ConnId,
        task: u8,
        login: &str,
        password: &str,
    ) -> HandlerResult {
        let Some(origin) = self.origin(conn) else { return Ok(()) };
        let key = names::name_key(login).unwrap_or_default();
        let keys = [Key::Login(&key, origin), Key::Origin(origin)];
        self.check_throttle(&keys)?;
        self.check_throttle(&[Key::LoggedIn(&key, origin)])?;
        let Some(password) = password::prepare_attempt(password) else {
            self.spend(&keys);
            return Err(Decline::BadCredentials.into());
        };
        self.check_login(conn, task, key, password)
    }

    /// Queues a comparison with the password that is stored now.
    fn check_login(
        &mut self,
        conn: ConnId,
        task: u8,
        login: String,
        password: Password,
    ) -> HandlerResult {
        let user = self.store.user_by_key(&login)?.filter(User::can_log_in);
        let (user, stored) = user.map(|found| (found.user, found.password)).unzip();
        self.queue_comparison(conn, task, Checked { password, stored }, true, |checked| {
            Intent::Login { user, login, checked }
        })
    }

    pub(super) fn login_verified(
        &mut self,
        conn: ConnId,
        task: u8,
        user: Option<UserId>,
        login: String,
        checked: Checked,
        upgraded: Option<&str>,
    ) -> HandlerResult {
        if user.is_some() {
            // Waits for a command that may be disabling the user or setting another password.
            self.may_write()?;
        }
        let found = match user {
            // A user who was disabled meanwhile cannot log in.
            Some(user) => self.store.user(user)?.filter(User::can_log_in),
            None => None,
        };
        let Some(origin) = self.origin(conn) else { return Ok(()) };
        let Some(found) = found else {
            self.spend(&[Key::Login(&login, origin), Key::Origin(origin)]);
            return Err(Decline::BadCredentials.into());
        };
        if checked.stored.as_deref() != Some(&found.password) {
            // The password was changed meanwhile, so the old one must not open a session; or
            // another login has upgraded its hash. Check again with what is stored now.
            return self.check_login(conn, task, login, checked.password);
        }
        self.may_write()?;
        let now = self.clock.next();
        let secret = SessionSecret::generate(self.random).map_err(|why| {
            log::error!("cannot create a session: no randomness: {why}");
            Decline::StorageFailed
        })?;
        let rounds = password::rounds(&found.password).unwrap_or(0);
        let key = Key::LoggedIn(&login, origin);
        self.limits.throttle.spend_part(key, rounds, PASSWORD_ITERATIONS, self.clock.now_ms());
        self.evict_oldest_session(found.user)?;
        let address = self.address(conn);
        let session = self.store.add_session(found.user, &secret.digest().0, now, &address)?;
        if let Some(upgraded) = upgraded {
            self.store.set_password(found.user, upgraded)?;
        }
        let version = self.presence.peers.get(conn).map_or(Version::V0_1, Peer::version);
        self.accept_to(conn, task, |body| {
            body.put_u32(session.get());
            body.put_bytes(secret.expose());
            body.put_u8(0);
            put_identity(body, version, found.user, found.flags);
        });
        self.attach(conn, found.user, session, now)
    }

    /// Ends the user's least recently used session if there would be too many, preferably one that
    /// no connection uses.
    fn evict_oldest_session(&mut self, user: UserId) -> HandlerResult {
        let sessions = self.store.sessions(Some(user))?;
        if sessions.len() < SESSIONS_PER_USER_MAX {
            return Ok(());
        }
        let is_free = |session: &&crate::store::sessions::Session| {
            self.conn_of_session(user, session.session).is_none()
        };
        let oldest = sessions.iter().filter(is_free).min_by_key(|session| session.used);
        let oldest = oldest.or_else(|| sessions.iter().min_by_key(|session| session.used));
        if let Some(oldest) = oldest.map(|session| session.session) {
            self.store.end_session(oldest)?;
            self.deauth_session(user, oldest);
        }
        Ok(())
    }

    fn address(&self, conn: ConnId) -> String {
        self.presence.peers.get(conn).map(|peer| peer.address().to_string()).unwrap_or_default()
    }

    pub(super) fn restore_session(
        &mut self,
        conn: ConnId,
        task: u8,
        session: SessionId,
        hash: &str,
    ) -> HandlerResult {
        let Some(origin) = self.origin(conn) else { return Ok(()) };
        let current = self.presence.peers.get(conn).and_then(|peer| peer.state.attached);
        if current.is_some_and(|attached| attached.session != session) {
            return Err(Decline::AlreadyAuthorized.into());
        }
        let keys = [Key::Session(session, origin), Key::Origin(origin)];
        self.check_throttle(&keys)?;
        let Some(user) = self.session_owner(session, hash)? else {
            self.spend(&keys);
            return Err(Decline::BadSession.into());
        };
        let now = self.clock.now();
        let mut touched = self.store.session(session)?.map_or(now, |session| session.used);
        if now.micros() - touched.micros() > TOUCH_US
            && !self.storage.full_disk.is_full
            && self.may_write_now().is_ok()
        {
            let address = self.address(conn);
            self.store.touch_session(session, now, &address)?;
            touched = now;
        }
        let version = self.presence.peers.get(conn).map_or(Version::V0_1, Peer::version);
        let flags = if version.has_extras() {
            self.store.user(user)?.map_or(0, |user| user.flags)
        } else {
            0
        };
        self.accept_to(conn, task, |body| put_identity(body, version, user, flags));
        if current.is_some() {
            self.resume_suspended(conn, user, touched);
            return Ok(());
        }
        // In this order, so that the user stays online in between.
        let other = self.conn_of_session(user, session);
        self.attach(conn, user, session, touched)?;
        if let Some(other) = other {
            self.deauth(other);
        }
        Ok(())
    }

    /// The user of a session, if the secret is right and the session has not ended.
    fn session_owner(
        &mut self,
        session: SessionId,
        hash: &str,
    ) -> Result<Option<UserId>, HandlerError> {
        let Some(row) = self.store.session(session)? else { return Ok(None) };
        let is_right = token::session_digest(hash)
            .zip(Digest::from_row(&row.digest))
            .is_some_and(|(given, kept)| given == kept);
        let unused_us = self.clock.age_clock().map_or(0, |now| now.micros() - row.used.micros());
        let is_attached = self.conn_of_session(row.user, session).is_some();
        let is_alive = is_attached || unused_us <= self.config.session_lifetime_us;
        Ok((is_right && is_alive).then_some(row.user))
    }

    /// Attaches a session to a connection.
    fn attach(
        &mut self,
        conn: ConnId,
        user: UserId,
        session: SessionId,
        touched: ServerTime,
    ) -> HandlerResult {
        self.notify_so_far();
        self.turn.users.push(user);
        if let Some(origin) = self.origin(conn) {
            self.passwords.queue.note_known(origin);
        }
        let is_first = self.list(conn.index, user, false)?;
        if let Some(peer) = self.presence.peers.get_mut(conn) {
            self.turn.save(peer);
            peer.state.attached = Some(Attached { session, user, suspended: false });
            peer.hear(self.clock.now_ms());
            peer.state.notified = 0;
            peer.state.touched = touched;
        }
        if is_first {
            self.notify_presence(user, true);
        }
        Ok(())
    }

    pub(super) fn logoff(&mut self, caller: Caller) -> HandlerResult {
        self.may_write()?;
        self.store.end_session(caller.session)?;
        self.detach(caller.conn);
        self.accept(caller, |_| {});
        Ok(())
    }

    /// Detaches the session: the connection becomes *greeted*.
    fn detach(&mut self, conn: ConnId) {
        let Some(peer) = self.presence.peers.get(conn) else { return };
        let Some(attached) = peer.state.attached else { return };
        self.notify_so_far();
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        self.turn.save(peer);
        peer.state.attached = None;
        peer.state.since_ms = self.clock.now_ms();
        peer.state.notified = 0;
        self.drop_backlog(conn);
        self.turn.users.push(attached.user);
        if self.presence.roster.detach(conn.index, attached.user) {
            self.notify_presence(attached.user, false);
        }
    }

    /// Detaches the session, which has ended or moved to another connection, and sends DEAUTH.
    pub(super) fn deauth(&mut self, conn: ConnId) {
        self.detach(conn);
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        let cut_off = peer.waiting.take().map(|waiting| waiting.task);
        if peer.stream.is_none() {
            self.streams.resumed.push(conn);
        }
        // A streamed answer notices by itself, at its next piece.
        if let Some(task) = cut_off {
            self.outbox.decline(conn.index, task, Decline::LoginRequired);
        }
        self.outbox.stage_bare(conn.index, ToClient::Deauth);
    }

    /// The connection that uses a session.
    pub(super) fn conn_of_session(&self, user: UserId, session: SessionId) -> Option<ConnId> {
        let conns = self.presence.roster.user(user)?.conns();
        let peers = conns.iter().filter_map(|&index| self.presence.peers.at(index));
        let carries = |peer: &&crate::service::peer::Peer| {
            peer.state.attached.is_some_and(|attached| attached.session == session)
        };
        peers.filter(carries).map(|peer| peer.conn).next()
    }

    /// Sends DEAUTH to the connection of a session that has ended.
    pub(super) fn deauth_session(&mut self, user: UserId, session: SessionId) {
        if let Some(conn) = self.conn_of_session(user, session) {
            self.deauth(conn);
        }
    }

    /// Sends DEAUTH to a user's connections, except the one that keeps its session.
    pub(super) fn deauth_user(&mut self, user: UserId, keep: Option<SessionId>) {
        let conns = self
            .presence
            .roster
            .user(user)
            .map(|online| online.conns().to_vec())
            .unwrap_or_default();
        for index in conns {
            let Some(peer) = self.presence.peers.at(index) else { continue };
            let session = peer.state.attached.map(|attached| attached.session);
            if session != keep || keep.is_none() {
                self.deauth(peer.conn);
            }
        }
    }

    /// Suspends a session after a declined notification (protocol section 3).
    pub(super) fn suspend(&mut self, conn: ConnId) {
        let Some(peer) = self.presence.peers.get(conn) else { return };
        let Some(attached) = peer.state.attached else { return };
        self.notify_so_far();
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        peer.state.attached = Some(Attached { suspended: true, ..attached });
        self.drop_backlog(conn);
        self.turn.users.push(attached.user);
        self.presence.roster.deactivate(conn.index, attached.user);
    }

    /// Drops the backlog: the connection is notified of nothing any more.
    fn drop_backlog(&mut self, conn: ConnId) {
        if let Some(backlog) =
            self.presence.peers.get_mut(conn).and_then(|peer| peer.backlog.take())
        {
            self.turn.dropped.push((conn, backlog));
            self.streams.resumed.push(conn);
        }
    }

    fn resume_suspended(&mut self, conn: ConnId, user: UserId, touched: ServerTime) {
        self.notify_so_far();
        let Some(peer) = self.presence.peers.get_mut(conn) else { return };
        self.turn.save(peer);
        if let Some(attached) = &mut peer.state.attached {
            attached.suspended = false;
            peer.state.notified = 0;
            peer.state.touched = touched;
            self.turn.users.push(user);
            self.presence.roster.activate(conn.index, user);
        }
    }
}
