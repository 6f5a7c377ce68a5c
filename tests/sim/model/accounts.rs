//! The model of HELLO, sessions and accounts.

use vestnik::ids::ConnId;

use super::{Caller, Checked, Intent, Model, Session, Turn, key};
use crate::wire::{Body, Check, Out};

/// Microseconds between two updates of a session's last use.
const TOUCH_US: i64 = 3_600_000_000;
/// Tokens in a bucket of failures.
pub(super) const BUCKET: u32 = 5;
const ADDRESS_BUCKET: u32 = 100;

/// Whether a text is a valid new password; the model needs to know nothing else about it.
pub(super) fn is_user_password(text: &str) -> bool {
    text.chars().count() >= 8 && text.len() <= 256
}

pub(super) fn is_attempt(text: &str) -> bool {
    (1..=256).contains(&text.len())
}

/// Whether a text is a valid name; those of the clients are ASCII and Cyrillic letters and digits.
pub(super) fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    let is_one = (1..=32).contains(&text.chars().count()) && text.chars().all(is_allowed);
    is_one && text.chars().any(char::is_alphanumeric)
}

impl Model {
    pub(super) fn hello(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        major: u8,
        minor: u8,
    ) -> Check {
        let (modern, is_11) = match (major, minor) {
            (0, 1) => (false, false),
            (1, minor) => (true, minor > 0),
            _ => return self.decline(turn, conn, task, "unsupported-version"),
        };
        let body = self.accepted(turn, conn, task)?;
        let (body_max, content_max) = (self.rules.body_bytes_max, self.rules.content_bytes_max);
        let spoken = [u8::from(modern), u8::from(!modern || is_11)];
        let said = body.get(..2) == Some(&spoken[..]);
        let mut rest = Body::of(body.get(2..).unwrap_or_default());
        if modern {
            let bounds = (rest.u32()? as usize, rest.u32()? as usize);
            if bounds != (body_max, content_max) || !rest.str()?.starts_with("vestnik ") {
                return Err(format!("HELLO was answered with {body:?}"));
            }
        }
        if is_11 {
            let registration = if self.rules.registration_open { 2 } else { 0 };
            rest.i64()?;
            self.note_push_key(rest.str()?)?;
            if rest.u8()? != registration {
                return Err(format!("HELLO was answered with {body:?}"));
            }
        }
        rest.end()?;
        if let Some(state) = self.conns.get_mut(&conn).filter(|_| said) {
            (state.modern, state.is_11) = (Some(modern), is_11);
            return Ok(());
        }
        Err(format!("HELLO {major}.{minor} was answered with {body:?}"))
    }

    pub(super) fn address(&self, conn: ConnId) -> String {
        self.conns.get(&conn).map(|conn| conn.address.clone()).unwrap_or_default()
    }

    fn modern(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.is_modern())
    }

    pub(super) fn speaks_11(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.is_11)
    }

    /// The flags of a user with a session in use.
    fn own_flags(&self, user: u32) -> u8 {
        2 | u8::from(self.users.get(&user).is_some_and(|user| user.is_operator))
    }

    pub(super) fn entry_keys(&self, conn: ConnId, what: &str) -> [(String, u32); 2] {
        let address = self.address(conn);
        [(format!("{what} from {address}"), BUCKET), (format!("from {address}"), ADDRESS_BUCKET)]
    }

    pub(super) fn login(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        login: &str,
        password: &str,
    ) -> Check {
        let key = key(login);
        let keys = self.entry_keys(conn, &format!("login {key}"));
        if self.was_limited(turn, conn, task, &keys) {
            return Ok(());
        }
        if !is_attempt(password) {
            self.spend(&keys);
            return self.decline(turn, conn, task, "bad-credentials");
        }
        self.check_login(turn, conn, task, key, password.to_owned());
        Ok(())
    }

    fn check_login(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        key: String,
        given: String,
    ) {
        let user = self.user_by_key(&key).filter(|user| !self.users[user].disabled);
        let found = user.map(|user| &self.users[&user]);
        let right = found.is_some_and(|user| user.password == given);
        let checked = Checked { given, right, form: found.map_or(0, |user| user.form) };
        self.wait(turn, conn, task, Intent::Login { user, key, checked });
    }

    pub(super) fn login_checked(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        user: Option<u32>,
        key: String,
        checked: Checked,
    ) -> Check {
        let user = user.filter(|_| checked.right);
        let user = user.filter(|user| self.users.get(user).is_some_and(|user| !user.disabled));
        let Some(user) = user else {
            let keys = self.entry_keys(conn, &format!("login {key}"));
            self.spend(&keys);
            return self.decline(turn, conn, task, "bad-credentials");
        };
        if self.users[&user].form != checked.form {
            self.note("checked a login once more");
            self.check_login(turn, conn, task, key, checked.given);
            return Ok(());
        }
        let body = self.accepted(turn, conn, task)?;
        let mut rest = Body::of(&body);
        let (session, secret) = (rest.u32()?, rest.str()?.to_owned());
        if self.modern(conn) && rest.u32()? != user {
            return Err(format!("LOGIN of user {user} was answered with {body:?}"));
        }
        if self.speaks_11(conn) && rest.u8()? != self.own_flags(user) {
            return Err(format!("LOGIN of user {user} was answered with {body:?}"));
        }
        rest.end()?;
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_secret = secret.len() == 64 && secret.chars().all(is_hex);
        let is_known = self.sessions.values().any(|session| session.secret == secret);
        if session <= self.last_session || !is_secret || is_known {
            return Err(format!("session {session} {secret} after {}", self.last_session));
        }
        self.last_session = session;
        let created = turn.after;
        self.event(turn, created)?;
        let address = self.address(conn);
        let (used, used_latest, push) = (created, created, None);
        let row = Session { user, secret, created, used, used_latest, address, push };
        self.sessions.insert(session, row);
        self.note("logged in");
        self.attach(conn, user, session);
        Ok(())
    }

    pub(super) fn restore(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        session: u32,
        secret: &str,
    ) -> Check {
        let current = self.conns.get(&conn).and_then(|state| state.attached);
        if current.is_some_and(|attached| attached.session != session) {
            return self.decline(turn, conn, task, "already-authorized");
        }
        let keys = self.entry_keys(conn, &format!("session {session}"));
        if self.was_limited(turn, conn, task, &keys) {
            return Ok(());
        }
        let holder = self.conn_of_session(session);
        let found = self.sessions.get(&session).filter(|row| row.secret == secret);
        // However far the wall clock jumps, no session ends by age before the clock was steady for
        // a day, which no seed lasts.
        if found.is_none() {
            self.spend(&keys);
            return self.decline(turn, conn, task, "bad-session");
        }
        let user = found.map_or(0, |row| row.user);
        let body = Out::default();
        let body = if self.modern(conn) { body.u32(user) } else { body };
        let body = if self.speaks_11(conn) { body.u8(self.own_flags(user)).0 } else { body.0 };
        self.accept(turn, conn, task, &body)?;
        self.touch(turn, conn, session);
        self.note("restored");
        if current.is_some() {
            if let Some(state) = self.conns.get_mut(&conn) {
                state.unsettled = true;
                state.notified = 0;
                if let Some(attached) = &mut state.attached {
                    attached.suspended = false;
                }
            }
            return Ok(());
        }
        // The new connection first, so that the user stays online in between.
        self.attach(conn, user, session);
        if let Some(holder) = holder {
            self.note("taken over");
            self.deauth(turn, holder)?;
        }
        Ok(())
    }

    fn touch(&mut self, turn: &Turn<'_>, conn: ConnId, session: u32) {
        let address = self.address(conn);
        let Some(row) = self.sessions.get_mut(&session) else { return };
        if turn.after - row.used > TOUCH_US {
            if row.used == row.used_latest {
                row.used = turn.after;
                row.address = address;
            }
            row.used_latest = turn.after;
        }
    }

    /// The server has looked for unused sessions, and may have noted that others are in use.
    pub(crate) fn kept_house(&mut self, now: i64) {
        let oldest = now.saturating_sub(self.rules.session_lifetime_us);
        let carried: Vec<u32> =
            self.conns.values().filter_map(|conn| Some(conn.attached?.session)).collect();
        for (id, row) in &mut self.sessions {
            if carried.contains(id) && (row.used < oldest || now - row.used > TOUCH_US) {
                row.used_latest = now;
            }
        }
    }

    pub(super) fn logoff(&mut self, turn: &mut Turn<'_>, me: Caller) -> Check {
        self.accept(turn, me.conn, me.task, &[])?;
        self.sessions.remove(&me.session);
        self.detach(me.conn);
        Ok(())
    }

    pub(super) fn change_password(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        old: &str,
        new: &str,
    ) -> Check {
        let keys = [(format!("password of {}", me.user), BUCKET)];
        if self.was_limited(turn, me.conn, me.task, &keys) {
            return Ok(());
        }
        if !is_user_password(new) {
            return self.decline(turn, me.conn, me.task, "bad-password");
        }
        if !is_attempt(old) {
            self.spend(&keys);
            return self.decline(turn, me.conn, me.task, "bad-credentials");
        }
        let right = self.users[&me.user].password == old;
        let new = new.to_owned();
        self.wait(turn, me.conn, me.task, Intent::OldPassword { right, new });
        Ok(())
    }

    pub(super) fn old_password_checked(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        right: bool,
        new: String,
    ) -> Check {
        let Some(me) = self.caller(conn, task) else {
            return self.decline(turn, conn, task, "login-required");
        };
        if !right {
            self.spend(&[(format!("password of {}", me.user), BUCKET)]);
            return self.decline(turn, conn, task, "bad-credentials");
        }
        self.wait(turn, conn, task, Intent::NewPassword(new));
        Ok(())
    }

    pub(super) fn new_password_hashed(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        new: String,
    ) -> Check {
        let Some(me) = self.caller(conn, task) else {
            return self.decline(turn, conn, task, "login-required");
        };
        if let Some(code) = self.cannot_change(me) {
            return self.decline(turn, conn, task, code);
        }
        self.accept(turn, conn, task, &[])?;
        if let Some(user) = self.users.get_mut(&me.user) {
            user.password = new;
            user.form += 1;
            user.reset = None;
        }
        let is_mine =
            |attached: super::Attached| attached.user == me.user && attached.session != me.session;
        self.sessions.retain(|id, row| row.user != me.user || *id == me.session);
        let ended = self.conns.iter().filter(|(_, conn)| conn.attached.is_some_and(is_mine));
        let ended: Vec<ConnId> = ended.map(|(id, _)| *id).collect();
        for conn in ended {
            self.deauth(turn, conn)?;
        }
        self.note("password changed");
        Ok(())
    }

    pub(super) fn get_user_id(&mut self, turn: &mut Turn<'_>, me: Caller, name: &str) -> Check {
        match self.user_by_key(&key(name)) {
            Some(user) => self.accept(turn, me.conn, me.task, &user.to_le_bytes()),
            None => self.decline(turn, me.conn, me.task, "no-such-user"),
        }
    }

    pub(super) fn get_user(&mut self, turn: &mut Turn<'_>, me: Caller, user: u32) -> Check {
        let Some(found) = self.users.get(&user) else {
            return self.decline(turn, me.conn, me.task, "no-such-user");
        };
        let flags = if self.is_online(user) { 2 } else { 0 };
        let body = match me.is_11 {
            true => self.user_entry(user),
            false => Out::default().u32(user).u8(flags).i64(found.created).str(&found.nickname).0,
        };
        self.accept(turn, me.conn, me.task, &body)
    }

    pub(super) fn get_sessions(&mut self, turn: &mut Turn<'_>, me: Caller) -> Check {
        let body = self.accepted(turn, me.conn, me.task)?;
        let mut rest = Body::of(&body);
        let mut listed = Vec::new();
        while !rest.is_empty() {
            let (session, flags, created) = (rest.u32()?, rest.u8()?, rest.i64()?);
            let (used, address) = (rest.i64()?, rest.str()?);
            let row = self.sessions.get(&session).filter(|row| row.user == me.user);
            let row = row.ok_or_else(|| format!("session {session} is not of user {}", me.user))?;
            let attached = if self.conn_of_session(session).is_some() { 2 } else { 0 };
            let this = u8::from(session == me.session);
            let is_used = match attached {
                0 => (row.used..=row.used_latest).contains(&used),
                _ => used == turn.after,
            };
            let is_right = flags == attached | this && created == row.created && is_used;
            let is_address = address == row.address || row.used != row.used_latest;
            if !is_right || !is_address {
                return Err(format!(
                    "session {session} is listed {flags} {used} {address}: {row:?}"
                ));
            }
            listed.push(session);
        }
        let mine = self.sessions.iter().filter(|(_, row)| row.user == me.user);
        for (session, row) in mine {
            let is_there = listed.contains(session);
            if !is_there {
                return Err(format!("session {session} is not listed: {row:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn end_session(&mut self, turn: &mut Turn<'_>, me: Caller, id: u32) -> Check {
        let row = self.sessions.get(&id).filter(|row| row.user == me.user);
        let holder = self.conn_of_session(id);
        if row.is_none() {
            return self.decline(turn, me.conn, me.task, "bad-session");
        }
        self.accept(turn, me.conn, me.task, &[])?;
        self.sessions.remove(&id);
        match holder {
            Some(holder) => self.deauth(turn, holder),
            None => Ok(()),
        }
    }
}
