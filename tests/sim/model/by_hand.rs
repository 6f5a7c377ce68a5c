//! The model of commands: they change the database at once, and connected clients when the server
//! takes them up.

use super::{Chat, Member, Model, Turn, User};
use crate::command::{Command, removed_name};
use crate::wire::Check;

impl Model {
    /// Applies a command to the database.
    pub(crate) fn command(&mut self, command: &Command) {
        match command {
            Command::EndSession { session } => drop(self.sessions.remove(session)),
            Command::Password { user, password } => {
                if let Some(found) = self.users.get_mut(user) {
                    found.password.clone_from(password);
                    found.form += 1;
                    found.reset = None;
                }
                self.sessions.retain(|_, session| session.user != *user);
            }
            Command::Disable { user, disabled } => {
                if let Some(found) = self.users.get_mut(user) {
                    found.disabled = *disabled;
                }
                self.sessions.retain(|_, session| session.user != *user || !disabled);
                self.made_admins = self.settle_disabled(*user, *disabled);
            }
            Command::AddMember { chat, user, admin, joined } => {
                self.add_member_by_hand(*chat, *user, *admin, *joined);
            }
            Command::RemoveChat { chat } => {
                self.is_removing = true;
                self.removed_chat = self.chats.remove(chat).map(|removed| (*chat, removed));
                self.invites.retain(|_, invite| invite.chat != Some(*chat));
                let members = self.removed_chat.iter().flat_map(|(_, chat)| chat.members.keys());
                self.removed_members = members.copied().collect();
            }
            Command::SlowMode { chat, seconds } => {
                if let Some(chat) = self.chats.get_mut(chat) {
                    chat.slow_before_s = chat.slow_mode_s;
                    chat.slow_mode_s = *seconds;
                }
            }
            Command::Lockdown { is_on } => self.lockdown_by_hand = Some(*is_on),
            Command::AddBot { chat, user, name, joined } => {
                self.last_user = self.last_user.max(*user);
                let bot = User::new(name.clone(), String::new(), *joined);
                self.users.insert(*user, User { is_bot: true, ..bot });
                self.add_member_by_hand(*chat, *user, false, *joined);
            }
            Command::RemoveUser { user } => self.remove_user(*user),
            Command::Operator { user, is_on } => {
                if let Some(user) = self.users.get_mut(user) {
                    user.is_operator = *is_on;
                }
            }
            Command::Reset { user, code, expires } => {
                if let Some(user) = self.users.get_mut(user) {
                    user.reset = Some((code.clone(), *expires));
                }
            }
            Command::AddInvite { code, invite, .. } => {
                self.invites.insert(code.clone(), invite.clone());
            }
            Command::RemoveInvite { code, .. } => drop(self.invites.remove(code)),
        }
    }

    fn add_member_by_hand(&mut self, chat: u32, user: u32, admin: bool, joined: i64) {
        self.added_by_hand.insert((chat, user));
        self.is_adding = true;
        let can_act = self.users[&user].can_act();
        if let Some(chat) = self.chats.get_mut(&chat) {
            let admin = can_act && std::mem::take(&mut chat.is_vacant) || admin;
            chat.members.insert(user, Member { admin, joined, seen: 0, notify: 0 });
        }
    }

    /// Whether a command may remove a user: one who is not connected, and not the last member of
    /// a group.
    pub(crate) fn may_be_removed(&self, user: u32) -> bool {
        let is_alone = |chat: &Chat| {
            let is_group = chat.direct.is_none() && chat.members.contains_key(&user);
            is_group && chat.members.len() == 1
        };
        !self.is_online(user) && !self.chats.values().any(is_alone)
    }

    fn remove_user(&mut self, user: u32) {
        self.note("removed a user");
        self.sessions.retain(|_, session| session.user != user);
        for chat in self.chats_of(user) {
            let found = self.chats.get_mut(&chat).filter(|chat| chat.direct.is_none());
            let Some(member) = found.and_then(|chat| chat.members.remove(&user)) else { continue };
            self.disown(user, chat);
            let heir = self.settle_departure(chat, member.admin);
            self.left_by_hand.push((chat, heir));
        }
        self.chats.values_mut().for_each(|chat| _ = chat.bans.remove(&user));
        if let Some(found) = self.users.get_mut(&user) {
            let (created, form) = (found.created, found.form + 1);
            let gone = User::new(removed_name(user), String::new(), created);
            *found = User { disabled: true, form, ..gone };
        }
    }

    /// Which users become admins of which chats because a user was disabled or enabled.
    pub(super) fn settle_disabled(&mut self, user: u32, disabled: bool) -> Vec<(u32, u32)> {
        let mut made = Vec::new();
        let is_bot = self.users[&user].is_bot;
        for chat in self.chats_of(user) {
            let Some(found) = self.chats.get_mut(&chat).filter(|chat| chat.direct.is_none()) else {
                continue;
            };
            let Some(member) = found.members.get_mut(&user) else { continue };
            if disabled {
                let was_admin = member.admin;
                made.extend(self.settle_departure(chat, was_admin).map(|heir| (chat, heir)));
            } else if !is_bot && std::mem::take(&mut found.is_vacant) && !member.admin {
                member.admin = true;
                made.push((chat, user));
            }
        }
        made
    }

    /// The server takes up the command.
    pub(super) fn take_up(&mut self, turn: &mut Turn<'_>, command: &Command) -> Check {
        self.note("by hand");
        (self.is_adding, self.is_removing) = (false, false);
        match command {
            Command::EndSession { .. } | Command::Password { .. } | Command::Disable { .. } => {
                let conns: Vec<_> =
                    self.conns.iter().map(|(id, conn)| (*id, conn.attached)).collect();
                for (conn, attached) in conns {
                    if attached.is_some_and(|at| !self.sessions.contains_key(&at.session)) {
                        self.deauth(turn, conn)?;
                    }
                }
                for (chat, admin) in std::mem::take(&mut self.made_admins) {
                    self.notify_member(chat, admin, 3, None);
                    self.owe_members_chat(chat, None);
                }
            }
            Command::AddMember { chat, user, .. } | Command::AddBot { chat, user, .. } => {
                let member = self.chats.get(chat).and_then(|chat| chat.members.get(user));
                let Some(member) = member else { return Ok(()) };
                let is_admin = member.admin;
                self.notify_member(*chat, *user, 1, None);
                if is_admin {
                    self.notify_member(*chat, *user, 3, None);
                    self.owe_members_chat(*chat, None);
                } else {
                    self.owe_user_chat(*user, *chat, None);
                }
            }
            Command::RemoveChat { chat } => {
                self.removed_chat = None;
                for user in std::mem::take(&mut self.removed_members) {
                    self.disown(user, *chat);
                    self.owe_user_chat(user, *chat, None);
                }
            }
            Command::SlowMode { chat, .. } => {
                let now_ms = self.now_ms;
                if let Some(chat) = self.chats.get_mut(chat) {
                    (chat.slow_before_s, chat.slow_since_ms) = (0, now_ms);
                }
                self.owe_members_chat(*chat, None);
            }
            Command::Lockdown { is_on } => {
                (self.lockdown, self.lockdown_by_hand) = (*is_on, None);
            }
            // The server reads these from the database each time.
            Command::Operator { .. }
            | Command::Reset { .. }
            | Command::AddInvite { .. }
            | Command::RemoveInvite { .. } => {}
            Command::RemoveUser { user } => {
                for (chat, heir) in std::mem::take(&mut self.left_by_hand) {
                    self.notify_member(chat, *user, 2, None);
                    if let Some(heir) = heir {
                        self.notify_member(chat, heir, 3, None);
                        self.owe_members_chat(chat, None);
                    }
                }
                // The name is the title of direct chats.
                for chat in self.chats_of(*user) {
                    if let Some((one, other)) = self.chats[&chat].direct {
                        let other = if one == *user { other } else { one };
                        self.owe_user_chat(other, chat, None);
                    }
                }
            }
        }
        Ok(())
    }
}
