//! REACT and GET_REACTIONS, and the notifications of reactions (protocol section 5a).
//!
//! A reaction changes its message: `updated` moves. Connections on 1.1 get only the change; those
//! that are reading a range that the message drops out of get the whole message.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::limits::{EMOJI_BYTES_MAX, REACTIONS_MAX, REACTIONS_MS};
use crate::outbox::BROADCAST_HEAD_BYTES;
use crate::service::backlog::Backlog;
use crate::service::peer::Peer;
use crate::service::stream::{Progress, Source};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::extras::Reacted;
use crate::wire::Version;
use crate::wire::codec::{Put, put_message};
use crate::wire::decline::Decline;
use crate::wire::frame;
use crate::wire::purpose::ToClient;

/// Times of each user's reactions in the last [`REACTIONS_MS`], by the monotonic clock.
#[derive(Default)]
pub(super) struct ReactionLimiter(BTreeMap<UserId, VecDeque<u64>>);

/// Users kept at once; above it, one is forgotten early.
const KEPT_MAX: usize = 16_384;

impl ReactionLimiter {
    /// Milliseconds until a user may react again.
    fn wait_ms(&self, user: UserId, now_ms: u64) -> u64 {
        let Some(times) = self.0.get(&user) else { return 0 };
        let recent = times.iter().filter(|&&at_ms| at_ms + REACTIONS_MS > now_ms).count();
        if recent < REACTIONS_MAX {
            return 0;
        }
        times.get(times.len() - REACTIONS_MAX).map_or(0, |at_ms| at_ms + REACTIONS_MS - now_ms)
    }

    fn note(&mut self, user: UserId, now_ms: u64) {
        if self.0.len() >= KEPT_MAX && !self.0.contains_key(&user) {
            self.0.pop_first();
        }
        let times = self.0.entry(user).or_default();
        if times.len() >= REACTIONS_MAX {
            times.pop_front();
        }
        times.push_back(now_ms);
    }

    /// Uncounts a reaction that was not stored.
    pub(super) fn take_back(&mut self, user: UserId) {
        if let Some(times) = self.0.get_mut(&user) {
            times.pop_back();
        }
    }

    /// Forgets users whose reactions are all too old to count.
    pub(super) fn trim(&mut self, now_ms: u64) {
        let is_over =
            |times: &VecDeque<u64>| times.back().is_none_or(|at| at + REACTIONS_MS <= now_ms);
        self.0.retain(|_, times| !is_over(times));
    }
}

/// A reaction to notify, with its encodings in the broadcast buffer.
struct ReactionNotice<'a> {
    chat: ChatId,
    message: MessageId,
    updated: ServerTime,
    user: UserId,
    is_on: bool,
    emoji: &'a str,
    /// The change alone does not suffice: another emoji becomes visible with it.
    needs_message: bool,
    /// Where the encoded change is in the broadcast buffer, once it was needed,
    change: Option<Range<usize>>,
    whole: [Option<Range<usize>>; 2],
}

/// The form in which one connection is notified.
enum Form {
    Change,
    Message(Version),
}

impl Service<'_> {
    /// REACT.
    pub(super) fn react(
        &mut self,
        caller: Caller,
        chat: ChatId,
        id: MessageId,
        is_on: bool,
        emoji: &str,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        self.may_write()?;
        let found = self.message_to_change(chat, id)?;
        if !is_emoji(emoji) {
            let why = "an emoji is 1 to 32 bytes without white space and control characters";
            return Err(Decline::BadText(why).into());
        }
        let shows_another = match self.store.reaction(chat, id, caller.user, is_on, emoji)? {
            Reacted::Unchanged => {
                self.accept(caller, |body| body.put_time(found.updated));
                return Ok(());
            }
            Reacted::TooMany => return Err(Decline::TooMany.into()),
            Reacted::Changed { shows_another } => shows_another,
        };
        let wait_ms = self.limits.reactions.wait_ms(caller.user, self.clock.now_ms());
        if wait_ms > 0 {
            return Err(Decline::RateLimited(wait_ms.div_ceil(1000)).into());
        }
        self.limits.reactions.note(caller.user, self.clock.now_ms());
        self.turn.reacted.push(caller.user);
        let updated = self.clock.next();
        self.store.react(chat, id, caller.user, is_on, emoji, updated)?;
        // Before the answer, and without a limit, so that it does not overtake earlier messages.
        if self.turn.batch.chat == Some(chat) {
            self.notify_batch_to(caller.conn.index, usize::MAX, false);
            if let Some(peer) = self.presence.peers.get_mut(caller.conn) {
                self.turn.batch.set_mark(peer);
            }
        }
        self.notify_so_far();
        self.notify_reaction(
            caller,
            &mut ReactionNotice {
                chat,
                message: id,
                updated,
                user: caller.user,
                is_on,
                emoji,
                needs_message: shows_another,
                change: None,
                whole: [None, None],
            },
        )?;
        self.accept(caller, |body| body.put_time(updated));
        Ok(())
    }

    /// Stages REACTION_NOTIFY, or MSG_NOTIFY in its place, for every connection of the chat that
    /// needs it, except the caller's.
    fn notify_reaction(
        &mut self,
        caller: Caller,
        notice: &mut ReactionNotice<'_>,
    ) -> StoreResult<()> {
        let count = self.presence.roster.conns(notice.chat).len();
        for place in 0..count {
            let Some(&index) = self.presence.roster.conns(notice.chat).get(place) else { break };
            if index != caller.conn.index {
                self.notify_reaction_to(index, notice)?;
            }
        }
        Ok(())
    }

    fn notify_reaction_to(
        &mut self,
        index: u32,
        notice: &mut ReactionNotice<'_>,
    ) -> StoreResult<()> {
        let is_slow = self.outbox.pending_bytes(index) > self.outbound_limit(index);
        let Some(peer) = self.presence.peers.at_mut(index) else { return Ok(()) };
        let form = form(peer, notice.needs_message);
        let Some(form) = form else { return Ok(()) };
        if peer.backlog.is_some() || is_slow {
            if !self.outbox.is_closed(index) {
                if peer.backlog.is_none() {
                    self.streams.pumping.push(peer.conn);
                }
                Backlog::leave_out(&mut peer.backlog, notice.chat, notice.updated).is_slow |=
                    is_slow;
            }
            return Ok(());
        }
        self.turn.save(peer);
        let task = peer.next_notify_task();
        let (purpose, piece) = match form {
            Form::Change => (ToClient::ReactionNotify, self.reaction_change(notice)),
            Form::Message(version) => (ToClient::MsgNotify, self.reacted_message(notice, version)?),
        };
        let [a, b, c, d, purpose_byte, task] = frame::header(4 + piece.len(), purpose.byte(), task);
        let [e, f, g, h] = notice.chat.get().to_le_bytes();
        let head: [u8; BROADCAST_HEAD_BYTES] = [a, b, c, d, purpose_byte, task, e, f, g, h];
        self.outbox.stage_broadcast(index, purpose, head, piece);
        Ok(())
    }

    /// Encodes the change once. Returns where it is in the broadcast buffer.
    fn reaction_change(&mut self, notice: &mut ReactionNotice<'_>) -> Range<usize> {
        if let Some(piece) = &notice.change {
            return piece.clone();
        }
        let broadcast = self.outbox.broadcast_mut();
        let start = broadcast.len();
        broadcast.put_u64(notice.message.get());
        broadcast.put_time(notice.updated);
        broadcast.put_u32(notice.user.get());
        broadcast.put_bool(notice.is_on);
        broadcast.put_str(notice.emoji);
        notice.change.insert(start..broadcast.len()).clone()
    }

    /// Encodes the message once per layout. Returns where it is in the broadcast buffer.
    fn reacted_message(
        &mut self,
        notice: &mut ReactionNotice<'_>,
        version: Version,
    ) -> StoreResult<Range<usize>> {
        let whole = &mut notice.whole[usize::from(version.has_extras())];
        if let Some(piece) = whole {
            return Ok(piece.clone());
        }
        let broadcast = self.outbox.broadcast_mut();
        let start = broadcast.len();
        self.store.with_message(notice.chat, notice.message, |message| {
            put_message(broadcast, version, message);
        })?;
        Ok(whole.insert(start..broadcast.len()).clone())
    }

    /// GET_REACTIONS.
    pub(super) fn get_reactions(
        &mut self,
        caller: Caller,
        chat: ChatId,
        message: MessageId,
    ) -> HandlerResult {
        self.require_member(caller, chat)?;
        self.message_to_change(chat, message)?;
        let (from, to) = (ServerTime::ZERO, self.clock.now());
        self.begin_stream(caller, Source::Reactions { chat, message, from, to });
        Ok(())
    }

    /// The next piece of the answer to GET_REACTIONS.
    pub(super) fn reactions_piece(
        &mut self,
        caller: Caller,
        chat: ChatId,
        message: MessageId,
        from: &mut ServerTime,
        to: ServerTime,
    ) -> Result<Progress, HandlerError> {
        const ROWS: u32 = 256;
        self.require_member(caller, chat)?;
        self.pieces(caller, |service, pieces| {
            loop {
                let rows = service.store.reactions(chat, message, *from, to, ROWS)?;
                for row in &rows {
                    if !pieces.has_budget() {
                        return Ok(Progress::More);
                    }
                    pieces.out().put_u32(row.user.get());
                    pieces.out().put_str(&row.emoji);
                    *from = row.given.next();
                }
                if rows.len() < ROWS as usize {
                    return Ok(Progress::Ended);
                }
            }
        })
    }
}

/// The form for one connection; `None` on 0.1 and 1.0, which have no reactions, unless a message
/// drops out of the range that is being read.
fn form(peer: &Peer, needs_message: bool) -> Option<Form> {
    let version = peer.version();
    // The message drops out of the range that the connection is reading.
    let is_reading = peer.stream.as_ref().is_some_and(|stream| stream.source.is_by_time());
    if is_reading || (version.has_extras() && needs_message) {
        return Some(Form::Message(version));
    }
    version.has_extras().then_some(Form::Change)
}

/// Whether a text is allowed as a reaction.
fn is_emoji(text: &str) -> bool {
    (1..=EMOJI_BYTES_MAX).contains(&text.len())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_reactions_are_let_through_in_ten_seconds() {
        let mut limiter = ReactionLimiter::default();
        let user = UserId::new(1).expect("not 0");
        for at_ms in 1000..1030 {
            assert_eq!(limiter.wait_ms(user, at_ms), 0);
            limiter.note(user, at_ms);
        }
        assert_eq!(limiter.wait_ms(user, 1030), 9_970);
        assert_eq!(limiter.wait_ms(user, 10_999), 1);
        assert_eq!(limiter.wait_ms(user, 11_000), 0);
        limiter.note(user, 11_000);
        assert_eq!(limiter.wait_ms(user, 11_000), 1);
        limiter.take_back(user);
        assert_eq!(limiter.wait_ms(user, 11_000), 0);
        limiter.trim(21_030);
        assert!(limiter.0.is_empty());
    }

    #[test]
    fn what_may_be_a_reaction() {
        for good in ["👍", "a", "👨‍👩‍👧‍👦", "+1", &"x".repeat(32)] {
            assert!(is_emoji(good), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "\u{7f}", "\u{a0}", &"x".repeat(33)] {
            assert!(!is_emoji(bad), "{bad:?}");
        }
    }
}
