//! The model of FIND_USERS: which users are found, and in which order.

use super::streams::Kind;
use super::{Caller, Model, Turn, key};
use crate::wire::{Body, Check, Out};

/// Users in an answer, at most.
const USERS_MAX: u16 = 200;
/// A prefix with more characters is that of no name.
const PREFIX_CHARS_MAX: usize = 128;
/// Comes after every key.
const END: &str = "\u{10FFFF}";

/// A search by name in progress.
#[derive(Clone, Debug)]
pub(super) struct UserSearch {
    prefix: String,
    /// The caller was an operator when it asked.
    is_operator: bool,
    left: u16,
    /// The key of the last user in the answer.
    after: String,
    /// The server may have passed users with lower keys when they were not to be found.
    passed: String,
}

impl Model {
    pub(super) fn find_users(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        prefix: &str,
        limit: u16,
    ) -> Check {
        let is_operator = self.is_operator(me.user);
        let may_look = is_operator || !self.rules.user_list_of_operators;
        if !may_look || prefix.chars().count() > PREFIX_CHARS_MAX {
            return self.accept(turn, me.conn, me.task, &[]);
        }
        self.note("looked for users");
        let (prefix, left) = (key(prefix), limit.min(USERS_MAX));
        let (after, passed) = (String::new(), String::new());
        self.stream(me, Kind::Users(UserSearch { prefix, is_operator, left, after, passed }))
    }

    /// The key and the entry of the first user to be found after another.
    fn next_user(&self, search: &UserSearch, after: &str) -> Option<(String, Vec<u8>)> {
        let is_shown = |user: &super::User| search.is_operator || !user.disabled;
        let shown = self.users.iter().filter(|(_, user)| is_shown(user));
        let keys = shown.map(|(id, user)| (key(&user.nickname), *id));
        let found = keys.filter(|(key, _)| key.starts_with(&search.prefix) && &key[..] > after);
        let (key, id) = found.min()?;
        Some((key, self.user_entry(id)))
    }

    /// A user, as 1.1 shows it.
    pub(super) fn user_entry(&self, id: u32) -> Vec<u8> {
        let Some(user) = self.users.get(&id) else { return Vec::new() };
        let online = if self.is_online(id) { 2 } else { 0 };
        let disabled = if user.disabled { 4 } else { 0 };
        let flags = user.stored_flags() | online | disabled;
        Out::default().u32(id).u8(flags).i64(user.created).str(&user.nickname).0
    }

    pub(super) fn users_piece(
        &self,
        search: &mut UserSearch,
        mut body: Body<'_>,
        is_last: bool,
    ) -> Check {
        let mut after = search.after.clone();
        while search.left > 0
            && let Some((key, entry)) = self.next_user(search, &after)
        {
            if let Some(rest) = body.rest.strip_prefix(&entry[..]) {
                body.rest = rest;
                search.left -= 1;
                search.after.clone_from(&key);
            } else if body.is_empty() && !is_last {
                search.passed = search.passed.clone().max(key);
                return Ok(());
            } else if key >= search.passed {
                return Err(format!("{key} is next, as {entry:?}, and not {:?}", body.rest));
            }
            after = key;
        }
        search.passed = END.to_owned();
        body.end()
    }
}
