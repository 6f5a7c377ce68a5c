//! Messages sent by hooks (protocol section 9): a bot posts over HTTP, without a session.

use std::collections::BTreeMap;

use crate::auth::token::Digest;
use crate::ids::{ConnId, MessageId, UserId};
use crate::limits::{HOOK_MESSAGES_MAX, HOOK_WINDOW_MS};
use crate::service::{HandlerError, Service};
use crate::wire::codec::Message;
use crate::wire::decline::Decline;
use crate::wire::extras::Extras;

/// Why a message of a hook was not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookError {
    /// The token is not valid, or its bot is not a member of the chat any more.
    Unknown,
    /// The text is longer than the content of a message may be.
    TooLong,
    /// The rate limit is reached; seconds after which the bot may try again.
    TooOften(u32),
    /// Another process is writing: call again when the connection is resumed.
    Busy,
    /// The database cannot be written; nothing of the message was kept.
    StorageFailed,
}

/// How much a bot has sent in the current window.
struct Window {
    begun_ms: u64,
    messages: u32,
}

/// The rate limit that bots have besides those of every user.
#[derive(Default)]
pub(super) struct HookLimiter {
    windows: BTreeMap<UserId, Window>,
}

impl HookLimiter {
    /// Milliseconds until a bot may send.
    fn wait_ms(&self, bot: UserId, now_ms: u64) -> u64 {
        let Some(window) = self.windows.get(&bot) else { return 0 };
        let is_spent = window.messages >= HOOK_MESSAGES_MAX;
        if is_spent { window.end_ms().saturating_sub(now_ms) } else { 0 }
    }

    /// Counts a message.
    fn note(&mut self, bot: UserId, now_ms: u64) {
        let fresh = Window { begun_ms: now_ms, messages: 0 };
        let window = self.windows.entry(bot).or_insert(fresh);
        if now_ms >= window.end_ms() {
            *window = Window { begun_ms: now_ms, messages: 0 };
        }
        window.messages += 1;
    }

    /// Uncounts a message that was not stored.
    pub(super) fn take_back(&mut self, bot: UserId) {
        if let Some(window) = self.windows.get_mut(&bot) {
            window.messages = window.messages.saturating_sub(1);
        }
    }

    /// Forgets windows that have ended.
    pub(super) fn trim(&mut self, now_ms: u64) {
        self.windows.retain(|_, window| now_ms < window.end_ms());
    }
}

impl Window {
    const fn end_ms(&self) -> u64 {
        self.begun_ms + HOOK_WINDOW_MS
    }
}

impl Service<'_> {
    /// Stores a message of the bot with this token, and notifies the members of its chat. It is on
    /// disk when the turn ends with [`crate::service::TurnEnd::Committed`].
    ///
    /// # Errors
    /// [`HookError`]. After [`HookError::Busy`] the connection is resumed when to call again.
    pub fn hook_message(
        &mut self,
        conn: ConnId,
        token: &Digest,
        text: &str,
    ) -> Result<(), HookError> {
        match self.send_by_hook(token, text) {
            Ok(outcome) => outcome,
            Err(HandlerError::Busy) => {
                self.put_back(conn);
                Err(HookError::Busy)
            }
            Err(error) => {
                self.reason(error);
                Err(HookError::StorageFailed)
            }
        }
    }

    fn send_by_hook(
        &mut self,
        token: &Digest,
        text: &str,
    ) -> Result<Result<(), HookError>, HandlerError> {
        let Some((bot, chat)) = self.store.hook(&token.0)? else {
            return Ok(Err(HookError::Unknown));
        };
        if self.store.member(chat, bot)?.is_none() {
            return Ok(Err(HookError::Unknown));
        }
        if text.len() > self.config.content_bytes_max {
            return Ok(Err(HookError::TooLong));
        }
        let now_ms = self.clock.now_ms();
        let slow_mode_s = self.store.chat(chat)?.map_or(0, |chat| chat.slow_mode_s);
        let mut wait_ns = self.send_wait_ns(bot, text.len())?;
        wait_ns = wait_ns.max(self.limits.hooks.wait_ms(bot, now_ms) * 1_000_000);
        if slow_mode_s > 0 {
            wait_ns = wait_ns.max(self.limits.sends.wait_ms(bot, chat, now_ms) * 1_000_000);
        }
        if wait_ns > 0 {
            let seconds = u32::try_from(wait_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
            return Ok(Err(HookError::TooOften(seconds)));
        }
        match self.may_write() {
            Err(HandlerError::Decline(Decline::StorageFailed)) => {
                return Ok(Err(HookError::StorageFailed));
            }
            other => other?,
        }
        self.limits.hooks.note(bot, now_ms);
        self.turn.hooked.push(bot);
        self.note_send(bot, text.len())?;
        if slow_mode_s > 0 {
            let before = self.limits.sends.note((bot, chat), slow_mode_s, now_ms);
            self.turn.limited_sends.push(before);
        }
        let created = self.clock.next();
        let id = MessageId::at(created);
        if let Err(error) = self.store.add_message(chat, id, bot, text) {
            // If storing failed, the whole turn fails with it.
            self.note_failure::<()>(Err(error));
            return Ok(Err(HookError::StorageFailed));
        }
        let message = Message {
            id,
            sender: bot,
            created,
            updated: created,
            status: 0,
            content: text,
            extras: Extras::NONE,
        };
        self.notify_message_of_nobody(chat, &message);
        self.background.indexing.note_message(bot, chat, id);
        self.background.counting.note_sent(chat, bot, created);
        self.background.pushing.note_sent(chat, created);
        Ok(Ok(()))
    }

    /// Whether the last turn that wrote was stored: what `/healthz` reports.
    pub const fn is_storage_healthy(&self) -> bool {
        !self.storage.is_failing && !self.storage.full_disk.is_full && self.storage.lost.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::random::fixed::Counting;
    use crate::auth::token::{HookToken, hook_digest};
    use crate::ids::ServerTime;
    use crate::service::{ServiceConfig, TurnEnd};
    use crate::store::members::Member;
    use crate::store::{Database, Store};

    const CONN: ConnId = ConnId { index: 0, generation: 0 };

    #[test]
    fn a_bot_sends_thirty_in_ten_seconds() {
        let mut limiter = HookLimiter::default();
        let (bot, other) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
        for n in 0..u64::from(HOOK_MESSAGES_MAX) {
            assert_eq!(limiter.wait_ms(bot, 5_000 + n), 0);
            limiter.note(bot, 5_000 + n);
        }
        assert_eq!(limiter.wait_ms(bot, 5_100), 9_900);
        assert_eq!(limiter.wait_ms(bot, 14_999), 1);
        assert_eq!(limiter.wait_ms(other, 5_100), 0);
        limiter.note(other, 5_100);
        assert_eq!(limiter.wait_ms(bot, 15_000), 0);
        limiter.note(bot, 15_000);
        assert_eq!(limiter.wait_ms(bot, 15_000), 0);
        for n in 1..u64::from(HOOK_MESSAGES_MAX) {
            limiter.note(bot, 15_000 + n);
        }
        assert_eq!(limiter.wait_ms(bot, 16_000), 9_000);
        limiter.take_back(bot);
        assert_eq!(limiter.wait_ms(bot, 16_000), 0, "a message of an undone turn does not count");
        limiter.trim(20_000);
        assert_eq!(limiter.windows.len(), 1);
    }

    #[test]
    fn a_message_of_a_hook_is_one_like_any_other() {
        let database = Database::in_memory().unwrap();
        let mut store = Store::new(&database).unwrap();
        let now = ServerTime::new(1_700_000_000_000_000).unwrap();
        let chat = store.add_chat("ops", "ops", None, now).unwrap().unwrap();
        let bot = store.add_user("monitor", "monitor", "", now).unwrap().unwrap();
        let member = Member { chat, user: bot, admin: false, joined: now, seen: now };
        store.add_member(member).unwrap();
        let token = HookToken::generate(&Counting::default()).unwrap();
        store.add_hook(&token.digest().0, bot, chat, now).unwrap();
        assert!(store.is_bot(bot).unwrap());
        store.commit().unwrap();
        let random = Counting::default();
        let config = ServiceConfig { content_bytes_max: 10, ..ServiceConfig::default() };
        let store = Store::new(&database).unwrap();
        let mut service = Service::new(store, config, &random).unwrap();
        let mut turn = |digest: &Digest, text: &str| {
            service.begin_turn(1_700_000_000_000_000, 0);
            let outcome = service.hook_message(CONN, digest, text);
            assert_eq!(service.end_turn(), TurnEnd::Committed);
            outcome
        };
        assert_eq!(turn(&token.digest(), "it is up"), Ok(()));
        assert_eq!(turn(&token.digest(), "12345678901"), Err(HookError::TooLong));
        assert_eq!(turn(&hook_digest(""), "no"), Err(HookError::Unknown));
        assert!(service.is_storage_healthy());
        let id = MessageId::at(service.clock.last());
        assert!(service.store.message_state(chat, id).unwrap().is_some());
        // The token of a bot that is disabled, or no longer a member, is unknown.
        service.store.begin_write().unwrap();
        service.store.set_disabled(bot, true).unwrap();
        assert_eq!(service.hook_message(CONN, &token.digest(), "no"), Err(HookError::Unknown));
        service.store.set_disabled(bot, false).unwrap();
        service.store.remove_member(chat, bot).unwrap();
        assert_eq!(service.hook_message(CONN, &token.digest(), "no"), Err(HookError::Unknown));
    }
}
