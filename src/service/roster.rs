//! The roster: who is online in which chats. It caches `members` for users with a session in use,
//! so that sends and their fan-out need no SQL.
//!
//! Invariant 7 depends on it: only connections listed under a chat get its messages, and they are
//! listed exactly while their user is a member and their session is attached and not suspended.

use std::collections::HashMap;

use slab::Slab;
use smallvec::SmallVec;

use crate::ids::{ChatId, UserId};
use crate::store::members::Member;

/// The membership of an online user in one chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Membership {
    pub(crate) chat: ChatId,
    /// Index of the chat in the roster.
    pub(crate) slot: u32,
}

/// A user with at least one session in use. There may be as many as connections, so keep it small:
/// most have one connection and few chats, and the smallest allocation has 32 bytes.
pub(crate) struct OnlineUser {
    user: UserId,
    /// Indices of all connections with one of the user's sessions; active ones first.
    conns: SmallVec<[u32; 4]>,
    /// Number of active connections.
    active: u32,
    /// The user's chats, by id.
    pub(crate) chats: SmallVec<[Membership; 2]>,
}

impl OnlineUser {
    fn new(user: UserId, chats: SmallVec<[Membership; 2]>) -> Self {
        Self { user, conns: SmallVec::new(), active: 0, chats }
    }

    /// Indices of all connections with one of the user's sessions, suspended ones included.
    pub(crate) fn conns(&self) -> &[u32] {
        &self.conns
    }

    /// Indices of the active ones, which are notified.
    pub(crate) fn active(&self) -> &[u32] {
        self.conns.get(..self.active as usize).unwrap_or_default()
    }

    /// False when the connection is active already, or not this user's.
    fn activate(&mut self, conn: u32) -> bool {
        let active = self.active as usize;
        match self.conns.iter().position(|&other| other == conn) {
            Some(at) if at >= active => {
                self.conns.swap(at, active);
                self.active += 1;
                true
            }
            _ => false,
        }
    }

    /// False when the connection is not active.
    fn deactivate(&mut self, conn: u32) -> bool {
        match self.active().iter().position(|&other| other == conn) {
            Some(at) => {
                self.active -= 1;
                self.conns.swap(at, self.active as usize);
                true
            }
            None => false,
        }
    }
}

/// A chat with at least one member online.
pub(crate) struct OnlineChat {
    pub(crate) chat: ChatId,
    /// Indices of the connections that get its messages.
    pub(crate) conns: Vec<u32>,
    /// Number of members online; the entry is removed with the last one.
    users: u32,
    /// Seconds between two messages of one member; 0: no slow mode.
    pub(crate) slow_mode_s: u32,
}

/// All online users. The hash table holds indices only, since up to half of its buckets are empty.
///
/// Invariant: `places` maps each user of `online` to its index, and nothing else.
#[derive(Default)]
struct Users {
    places: HashMap<UserId, u32>,
    online: Vec<OnlineUser>,
}

impl Users {
    fn get(&self, user: UserId) -> Option<&OnlineUser> {
        self.online.get(*self.places.get(&user)? as usize)
    }

    fn get_mut(&mut self, user: UserId) -> Option<&mut OnlineUser> {
        self.online.get_mut(*self.places.get(&user)? as usize)
    }

    fn contains(&self, user: UserId) -> bool {
        self.places.contains_key(&user)
    }

    /// Adds a user who is not there.
    fn insert(&mut self, online: OnlineUser) {
        self.places.insert(online.user, self.online.len() as u32);
        self.online.push(online);
    }

    /// Removes a user; the last one moves to its index.
    fn remove(&mut self, user: UserId) -> Option<OnlineUser> {
        let place = self.places.remove(&user)?;
        let online = self.online.swap_remove(place as usize);
        if let Some(moved) = self.online.get(place as usize) {
            self.places.insert(moved.user, place);
        }
        Some(online)
    }

    fn iter(&self) -> impl Iterator<Item = &OnlineUser> {
        self.online.iter()
    }
}

/// Everybody online, and their chats.
#[derive(Default)]
pub(crate) struct Roster {
    users: Users,
    slots: HashMap<ChatId, u32>,
    chats: Slab<OnlineChat>,
}

impl Roster {
    pub(crate) fn user(&self, user: UserId) -> Option<&OnlineUser> {
        self.users.get(user)
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.users.contains(user)
    }

    /// How many users are online.
    pub(crate) fn online_count(&self) -> usize {
        self.users.places.len()
    }

    pub(crate) fn chat(&self, slot: u32) -> Option<&OnlineChat> {
        self.chats.get(slot as usize)
    }

    pub(crate) fn slot(&self, chat: ChatId) -> Option<u32> {
        self.slots.get(&chat).copied()
    }

    /// Indices of the connections that get a chat's messages.
    pub(crate) fn conns(&self, chat: ChatId) -> &[u32] {
        self.slot(chat).and_then(|slot| self.chat(slot)).map_or(&[], |chat| &chat.conns)
    }

    /// The membership of a user in a chat, if online and a member.
    pub(crate) fn membership(&self, user: UserId, chat: ChatId) -> Option<Membership> {
        let chats = &self.users.get(user)?.chats;
        let at = chats.binary_search_by_key(&chat, |membership| membership.chat).ok()?;
        chats.get(at).copied()
    }

    /// Sets the slow mode of a chat.
    pub(crate) fn set_slow_mode(&mut self, chat: ChatId, slow_mode_s: u32) {
        if let Some(slot) = self.slot(chat)
            && let Some(online) = self.chats.get_mut(slot as usize)
        {
            online.slow_mode_s = slow_mode_s;
        }
    }

    /// Adds a connection of a user; it is active. `memberships` is called only if the user was
    /// offline. True when the user was offline.
    pub(crate) fn attach<E>(
        &mut self,
        conn: u32,
        user: UserId,
        memberships: impl FnOnce() -> Result<Vec<(Member, u32)>, E>,
    ) -> Result<bool, E> {
        let is_first = !self.users.contains(user);
        if is_first {
            let members = memberships()?;
            let mut chats = SmallVec::with_capacity(members.len());
            for (member, slow_mode_s) in members {
                let slot = self.enter(member.chat, slow_mode_s);
                chats.push(Membership { chat: member.chat, slot });
            }
            self.users.insert(OnlineUser::new(user, chats));
        }
        if let Some(online) = self.users.get_mut(user) {
            online.conns.push(conn);
        }
        self.activate(conn, user);
        Ok(is_first)
    }

    /// Makes a connection active: it gets the messages of its user's chats.
    pub(crate) fn activate(&mut self, conn: u32, user: UserId) {
        let Some(online) = self.users.get_mut(user) else { return };
        if !online.activate(conn) {
            return;
        }
        for membership in &online.chats {
            if let Some(chat) = self.chats.get_mut(membership.slot as usize) {
                chat.conns.push(conn);
            }
        }
    }

    /// Makes a connection inactive: its session is suspended.
    pub(crate) fn deactivate(&mut self, conn: u32, user: UserId) {
        let Some(online) = self.users.get_mut(user) else { return };
        if !online.deactivate(conn) {
            return;
        }
        for membership in &online.chats {
            if let Some(chat) = self.chats.get_mut(membership.slot as usize) {
                remove(&mut chat.conns, conn);
            }
        }
    }

    /// Removes a connection. True when it was the last of its user.
    pub(crate) fn detach(&mut self, conn: u32, user: UserId) -> bool {
        self.deactivate(conn, user);
        let Some(online) = self.users.get_mut(user) else { return false };
        online.conns.retain(|other| *other != conn);
        if !online.conns.is_empty() {
            return false;
        }
        self.forget(user);
        true
    }

    /// Removes a user with all connections, and returns their indices.
    pub(crate) fn forget(&mut self, user: UserId) -> Vec<u32> {
        let Some(online) = self.users.remove(user) else { return Vec::new() };
        for membership in &online.chats {
            self.leave(membership.slot, online.active());
        }
        online.conns.into_vec()
    }

    /// Notes that a user, if online, has become a member.
    pub(crate) fn join(&mut self, user: UserId, chat: ChatId, slow_mode_s: u32) {
        if !self.users.contains(user) || self.membership(user, chat).is_some() {
            return;
        }
        let slot = self.enter(chat, slow_mode_s);
        let Some(online) = self.users.get_mut(user) else { return };
        let at = online.chats.partition_point(|membership| membership.chat < chat);
        online.chats.insert(at, Membership { chat, slot });
        if let Some(online_chat) = self.chats.get_mut(slot as usize) {
            online_chat.conns.extend_from_slice(online.active());
        }
    }

    /// Notes that a user is no longer a member.
    pub(crate) fn part(&mut self, user: UserId, chat: ChatId) {
        let Some(online) = self.users.get_mut(user) else { return };
        let Ok(at) = online.chats.binary_search_by_key(&chat, |membership| membership.chat) else {
            return;
        };
        let membership = online.chats.remove(at);
        let active = online.active().to_vec();
        self.leave(membership.slot, &active);
    }

    /// The online members of a chat.
    pub(crate) fn users_of(&self, chat: ChatId) -> Vec<UserId> {
        let is_in = |online: &OnlineUser| {
            online.chats.binary_search_by_key(&chat, |membership| membership.chat).is_ok()
        };
        let users = self.users.iter().filter(|online| is_in(online));
        let mut users: Vec<UserId> = users.map(|online| online.user).collect();
        // Sorted: the same input must have the same effect, in whatever order users came online.
        users.sort_unstable();
        users
    }

    fn enter(&mut self, chat: ChatId, slow_mode_s: u32) -> u32 {
        let slot = *self.slots.entry(chat).or_insert_with(|| {
            self.chats.insert(OnlineChat { chat, conns: Vec::new(), users: 0, slow_mode_s }) as u32
        });
        if let Some(chat) = self.chats.get_mut(slot as usize) {
            chat.users += 1;
        }
        slot
    }

    fn leave(&mut self, slot: u32, conns: &[u32]) {
        let Some(chat) = self.chats.get_mut(slot as usize) else { return };
        for &conn in conns {
            remove(&mut chat.conns, conn);
        }
        chat.users -= 1;
        if chat.users == 0 {
            let chat = self.chats.remove(slot as usize);
            debug_assert!(chat.conns.is_empty());
            self.slots.remove(&chat.chat);
        }
    }

    /// Checks that users and chats agree with each other.
    ///
    /// # Errors
    /// A description of the first disagreement.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (chat, &slot) in &self.slots {
            let Some(online) = self.chat(slot).filter(|online| online.chat == *chat) else {
                return Err(format!("chat {chat} is not at its index"));
            };
            let mut expected: Vec<u32> = Vec::new();
            let mut users = 0;
            for user in self.users.iter() {
                if user.chats.iter().any(|member| member.chat == *chat && member.slot == slot) {
                    users += 1;
                    expected.extend(user.active());
                }
            }
            let mut listed = online.conns.clone();
            listed.sort_unstable();
            expected.sort_unstable();
            if listed != expected || users != online.users || users == 0 {
                return Err(format!("chat {chat} lists {listed:?} instead of {expected:?}"));
            }
        }
        let is_at = |(at, online): (usize, &OnlineUser)| {
            self.users.places.get(&online.user) == Some(&(at as u32))
        };
        let (online, places) = (self.users.online.len(), self.users.places.len());
        if online != places || !self.users.online.iter().enumerate().all(is_at) {
            return Err(format!("{online} users online, but {places} valid indices"));
        }
        if self.chats.len() != self.slots.len() {
            return Err(format!("{} chats at {} indices", self.slots.len(), self.chats.len()));
        }
        Ok(())
    }

    /// All online users, for metrics and checks.
    pub(crate) fn online_users(&self) -> impl Iterator<Item = (UserId, &OnlineUser)> {
        self.users.iter().map(|online| (online.user, online))
    }
}

fn remove(list: &mut Vec<u32>, item: u32) -> bool {
    let found = list.iter().position(|&other| other == item);
    found.map(|at| list.swap_remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerTime;

    fn user(id: u32) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn chat(id: u32) -> ChatId {
        ChatId::new(id).expect("not 0")
    }

    fn attach(roster: &mut Roster, conn: u32, who: UserId, chats: &[u32]) -> bool {
        let member = |&id: &u32| {
            let member = Member {
                chat: chat(id),
                user: who,
                admin: false,
                joined: ServerTime::ZERO,
                seen: ServerTime::ZERO,
            };
            (member, 0)
        };
        let list = chats.iter().map(member).collect();
        roster.attach(conn, who, || Ok::<_, ()>(list)).expect("given")
    }

    #[test]
    fn a_user_online_is_small() {
        assert!(size_of::<OnlineUser>() <= 64);
    }

    #[test]
    fn a_chat_lists_the_active_connections_of_its_members() {
        let mut roster = Roster::default();
        assert!(attach(&mut roster, 1, user(10), &[5, 7]));
        assert!(!attach(&mut roster, 2, user(10), &[]));
        assert!(attach(&mut roster, 3, user(11), &[7]));
        assert_eq!(roster.conns(chat(7)), [1, 2, 3]);
        assert_eq!(roster.conns(chat(5)), [1, 2]);
        roster.deactivate(2, user(10));
        assert_eq!(roster.conns(chat(7)), [1, 3]);
        roster.activate(2, user(10));
        roster.activate(2, user(10));
        assert_eq!(roster.conns(chat(7)), [1, 3, 2]);
        assert!(!roster.detach(1, user(10)));
        assert!(roster.detach(2, user(10)));
        assert_eq!(roster.conns(chat(7)), [3]);
        assert_eq!(roster.conns(chat(5)), [0_u32; 0]);
        assert!(roster.slot(chat(5)).is_none(), "a chat with nobody online is forgotten");
        assert!(roster.detach(3, user(11)));
        assert!(roster.chats.is_empty() && roster.slots.is_empty());
    }

    #[test]
    fn active_connections_stand_before_suspended_ones() {
        let mut roster = Roster::default();
        for conn in 1..=4 {
            attach(&mut roster, conn, user(10), &[5]);
        }
        let listed = |roster: &Roster| {
            let online = roster.user(user(10)).expect("online");
            let (mut active, mut conns) = (online.active().to_vec(), online.conns().to_vec());
            active.sort_unstable();
            conns.sort_unstable();
            (active, conns)
        };
        roster.deactivate(2, user(10));
        roster.deactivate(1, user(10));
        roster.deactivate(1, user(10));
        assert_eq!(listed(&roster), (vec![3, 4], vec![1, 2, 3, 4]));
        roster.activate(1, user(10));
        roster.activate(99, user(10));
        assert_eq!(listed(&roster), (vec![1, 3, 4], vec![1, 2, 3, 4]));
        assert!(!roster.detach(2, user(10)) && !roster.detach(3, user(10)));
        assert_eq!(listed(&roster), (vec![1, 4], vec![1, 4]));
        assert!(!roster.detach(1, user(10)) && roster.detach(4, user(10)));
    }

    #[test]
    fn joining_and_leaving_reach_every_connection_of_the_user() {
        let mut roster = Roster::default();
        attach(&mut roster, 1, user(10), &[5]);
        attach(&mut roster, 2, user(10), &[]);
        roster.join(user(10), chat(3), 0);
        roster.join(user(10), chat(3), 0);
        assert_eq!(roster.conns(chat(3)), [1, 2]);
        assert!(roster.membership(user(10), chat(3)).is_some());
        roster.part(user(10), chat(3));
        assert!(roster.membership(user(10), chat(3)).is_none());
        assert_eq!(roster.conns(chat(3)), [0_u32; 0]);
        assert!(roster.slot(chat(3)).is_none());
        roster.join(user(99), chat(3), 0);
        assert!(roster.slot(chat(3)).is_none(), "nobody offline is listed");
    }
}
