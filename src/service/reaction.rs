//! REACT and GET_REACTIONS, and who is notified how of a reaction (protocol section 5a).
//!
//! A reaction is a change of its message: its `updated` moves. Connections on 1.1 get the change
//! alone; those that read a range from which the message leaves get the message.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::limits::{EMOJI_BYTES_MAX, REACTIONS_MAX, REACTIONS_MS};
use crate::outbox::BLOCK_HEAD_BYTES;
use crate::service::history::{Backlog, Progress, Source};
use crate::service::peer::Peer;
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::extras::Reacted;
use crate::wire::Version;
use crate::wire::codec::{Put, put_message};
use crate::wire::decline::Decline;
use crate::wire::frame;
use crate::wire::purpose::ToClient;

/// Reactions of users in the last [`REACTIONS_MS`], by the clock that never jumps.
#[derive(Default)]
pub(super) struct ReactionLimiter(BTreeMap<UserId, VecDeque<u64>>);

/// Users that are kept at once; past it one is let go early.
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

    /// A reaction was not stored.
    pub(super) fn take_back(&mut self, user: UserId) {
        if let Some(times) = self.0.get_mut(&user) {
            times.pop_back();
        }
    }

    /// Forgets what is over.
    pub(super) fn trim(&mut self, now_ms: u64) {
        let is_over =
            |times: &VecDeque<u64>| times.back().is_none_or(|at| at + REACTIONS_MS <= now_ms);
        self.0.retain(|_, times| !is_over(times));
    }
}

/// A change to be sent to the members of a chat, encoded as each of them needs it.
struct ReactionNotice<'a> {
    chat: ChatId,
    message: MessageId,
    updated: ServerTime,
    user: UserId,
    is_on: bool,
    emoji: &'a str,
    /// Those who have the message cannot apply the change alone.
    needs_message: bool,
    /// Where the parts of frames behind their heads are in the block, once they were needed.
    change: Option<Range<usize>>,
    whole: [Option<Range<usize>>; 2],
}

/// How one connection is notified of a reaction.
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
        // Before the answer, without a limit: it must not overtake earlier changes of the chat.
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

    /// REACTION_NOTIFY, or MSG_NOTIFY in its place, to every connection of the chat but the
    /// caller's that needs it.
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
        let Some(peer) = self.presence.peers.at_mut(index) else { return Ok(()) };
        let form = form(peer, notice.needs_message);
        let is_slow = self.outbox.pending_bytes(index) > self.config.outbound_bytes_max;
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
        let head: [u8; BLOCK_HEAD_BYTES] = [a, b, c, d, purpose_byte, task, e, f, g, h];
        self.outbox.stage_block(index, purpose, head, piece);
        Ok(())
    }

    /// Where the change alone is in the block.
    fn reaction_change(&mut self, notice: &mut ReactionNotice<'_>) -> Range<usize> {
        if let Some(piece) = &notice.change {
            return piece.clone();
        }
        let block = self.outbox.block_mut();
        let start = block.len();
        block.put_u64(notice.message.get());
        block.put_time(notice.updated);
        block.put_u32(notice.user.get());
        block.put_bool(notice.is_on);
        block.put_str(notice.emoji);
        notice.change.insert(start..block.len()).clone()
    }

    /// Where the message is in the block, as this version has it.
    fn reacted_message(
        &mut self,
        notice: &mut ReactionNotice<'_>,
        version: Version,
    ) -> StoreResult<Range<usize>> {
        let whole = &mut notice.whole[usize::from(version.has_extras())];
        if let Some(piece) = whole {
            return Ok(piece.clone());
        }
        let block = self.outbox.block_mut();
        let start = block.len();
        self.store.with_message(notice.chat, notice.message, |message| {
            put_message(block, version, message);
        })?;
        Ok(whole.insert(start..block.len()).clone())
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

    /// The next of the reactions of a message.
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
                    if !pieces.has_room() {
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

/// How a connection is notified of a reaction; `None` for one on 0.1 or 1.0, which sees no
/// reactions and loses nothing.
fn form(peer: &Peer, needs_message: bool) -> Option<Form> {
    let version = peer.version();
    // The message has left the range that is being read.
    let is_reading = peer.stream.as_ref().is_some_and(|stream| stream.source.is_by_time());
    if is_reading || (version.has_extras() && needs_message) {
        return Some(Form::Message(version));
    }
    version.has_extras().then_some(Form::Change)
}

/// Whether a text may be given as a reaction.
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
