//! Checks of what must hold between two turns, for the simulation. They change nothing.

use std::collections::BTreeMap;

use crate::ids::{ChatId, ConnId};
use crate::service::Service;
use crate::store::StoreResult;

impl Service<'_> {
    /// Whether a connection has a backlog.
    #[doc(hidden)]
    pub fn is_behind(&self, conn: ConnId) -> bool {
        self.presence.peers.get(conn).is_some_and(|peer| peer.backlog.is_some())
    }

    /// Whether the session of a connection is suspended.
    #[doc(hidden)]
    pub fn is_suspended(&self, conn: ConnId) -> bool {
        let attached = self.presence.peers.get(conn).and_then(|peer| peer.state.attached);
        attached.is_some_and(|attached| attached.suspended)
    }

    /// How many changes of the command line the server has acted on.
    #[doc(hidden)]
    pub fn changes_acted_on(&self) -> u64 {
        self.background.housekeeping.acted_on
    }

    /// Whether the server has yet to act on changes of the command line that it has taken, because
    /// the database could not be read.
    #[doc(hidden)]
    pub fn has_changes_waiting(&self) -> bool {
        !self.background.housekeeping.taken.is_empty()
    }

    /// Compares the caches in memory with each other and with the database. Skips the database
    /// while it cannot be read.
    ///
    /// # Errors
    /// A description of the first violation.
    #[doc(hidden)]
    pub fn check_invariants(&mut self) -> Result<(), String> {
        self.check_peers()?;
        self.presence.roster.check()?;
        let compared = self.compare_with_file();
        if self.store.commit().is_err() {
            return Ok(());
        }
        compared.unwrap_or(Ok(()))
    }

    fn check_peers(&self) -> Result<(), String> {
        for peer in self.presence.peers.iter() {
            let (conn, index) = (peer.conn, peer.conn.index);
            let attached = peer.state.attached;
            let online = attached.and_then(|attached| self.presence.roster.user(attached.user));
            let listed = online.is_some_and(|online| online.conns().contains(&index));
            let active = online.is_some_and(|online| online.active().contains(&index));
            let is_recipient = attached.is_some_and(|attached| !attached.suspended);
            if listed != attached.is_some() || active != is_recipient {
                return Err(format!("{conn} {attached:?} is listed {listed}, active {active}"));
            }
            let needs_pump = peer.stream.is_some() || peer.backlog.is_some();
            if needs_pump && !self.streams.pumping.contains(&conn) {
                return Err(format!("{conn} has a stream or a backlog, and is not pumped"));
            }
            let waits = peer.waiting.as_ref();
            if waits.is_some_and(|waiting| self.passwords.jobs.get(&waiting.job) != Some(&conn)) {
                return Err(format!("{conn} waits for a job that does not exist"));
            }
        }
        for (user, online) in self.presence.roster.online_users() {
            for &index in online.conns() {
                let holder = self.presence.peers.at(index).and_then(|peer| peer.user());
                if holder != Some(user) {
                    return Err(format!(
                        "#{index} is listed under {user}, and belongs to {holder:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn compare_with_file(&mut self) -> StoreResult<Result<(), String>> {
        let mut slow_modes: BTreeMap<ChatId, u32> = BTreeMap::new();
        for (user, online) in self.presence.roster.online_users() {
            let there = self.store.memberships_with_policy(user)?;
            let known: Vec<ChatId> = online.chats.iter().map(|member| member.chat).collect();
            let kept: Vec<ChatId> = there.iter().map(|(member, _)| member.chat).collect();
            if known != kept {
                return Ok(Err(format!(
                    "user {user} is a member of {kept:?}, and listed in {known:?}"
                )));
            }
            slow_modes
                .extend(there.iter().map(|(member, slow_mode_s)| (member.chat, *slow_mode_s)));
        }
        for (chat, slow_mode_s) in slow_modes {
            let listed =
                self.presence.roster.slot(chat).and_then(|slot| self.presence.roster.chat(slot));
            if listed.is_none_or(|listed| listed.slow_mode_s != slow_mode_s) {
                return Ok(Err(format!("chat {chat} is not listed, or with another slow mode")));
            }
        }
        for peer in self.presence.peers.iter() {
            let Some(attached) = peer.state.attached else { continue };
            let row = self.store.session(attached.session)?;
            if row.is_none_or(|row| row.user != attached.user) {
                return Ok(Err(format!("{} carries {attached:?}, which has ended", peer.conn)));
            }
        }
        Ok(Ok(()))
    }
}
