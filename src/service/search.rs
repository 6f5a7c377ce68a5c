//! SEARCH_MSG (protocol section 5).
//!
//! The index only proposes messages, newest first; the content of each decides whether it matches,
//! and how well. So a condition that is too expensive for the index can be left to that check.
//! Every search is bounded:
//!
//! - The best are chosen among the newest [`RANKED_MAX`] matches.
//! - If all words are common, they are searched for among the newest [`WINDOWS_MAX`] x
//!   [`WINDOW_MESSAGES`] indexed messages only.
//! - A prefix of more than [`PREFIX_WORDS_MAX`] words is checked by content only. If the query has
//!   nothing else, the newest messages are read one by one, up to [`READS_MAX`].

use crate::ids::{ChatId, MessageId, ServerTime};
use crate::limits::{INDEXED_WORD_BYTES_MAX, SEARCH_RESULTS_MAX};
use crate::service::stream::{Progress, Source};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::search::chat_word;
use crate::tokenizer::{Query, indexed};
use crate::wire::codec::{Put, put_message};
use crate::wire::decline::Decline;

/// Matches that are ranked, at most.
const RANKED_MAX: usize = 500;
/// Messages whose content is read, at most.
const READS_MAX: usize = 20_000;
/// Budget units of one read. A proposal that is dropped unread, because it is in a chat of others,
/// costs one unit.
const READ_COST: usize = 10;
/// Proposals of the index per slice.
const PROPOSALS_PER_SLICE: usize = 128;
/// Bytes of content after which a slice ends.
const BYTES_PER_SLICE: usize = 64 * 1024;
/// Messages above which a word is common.
const COMMON_MESSAGES: usize = 2_000;
/// Words of a query that are checked for being common, at most.
const COUNTED_WORDS_MAX: usize = 8;
/// Indexed messages in the window that common words are searched for in one slice,
const WINDOW_MESSAGES: usize = 20_000;
/// and windows of one search.
const WINDOWS_MAX: usize = 50;
/// Words of the index that a prefix may stand for.
const PREFIX_WORDS_MAX: usize = 64;
/// Prefixes of a query that the index is asked for; the others are checked by content.
const PREFIXES_MAX: usize = 2;
/// Chats of the user that the index filters by; with more, every proposal is checked.
const CHATS_ASKED_MAX: usize = 32;
/// Milliseconds that a search waits for the index of its chats to be up to date.
const INDEX_WAIT_MS_MAX: u64 = 5_000;

/// A search in progress.
pub(crate) struct Search {
    chat: Option<ChatId>,
    query: Query,
    results_max: usize,
    /// Messages after this time came after the request.
    upto: ServerTime,
    waits_until_ms: u64,
    stage: Stage,
    /// Matches so far: score, message, chat.
    found: Vec<(f64, MessageId, ChatId)>,
    budget_left: usize,
}

impl Search {
    /// The chat that is searched; `None`: all chats of the user.
    pub(crate) const fn chat(&self) -> Option<ChatId> {
        self.chat
    }
}

enum Stage {
    /// The index of the chats is not up to date yet.
    Waiting,
    /// Proposals older than `below` are to be checked next.
    Checking { proposer: Proposer, below: MessageId },
    /// The results from this index on are to be sent.
    Sending(usize),
}

/// The source of proposals.
enum Proposer {
    /// The index: messages that have a word of each of the lists.
    Index { all_of: Vec<Vec<String>>, windows_left: Option<usize> },
    /// The newest messages.
    Newest,
}

impl Service<'_> {
    /// SEARCH_MSG.
    pub(super) fn search_msg(
        &mut self,
        caller: Caller,
        chat: Option<ChatId>,
        limit: u16,
        query: &str,
    ) -> HandlerResult {
        if let Some(chat) = chat {
            self.require_member(caller, chat)?;
        }
        let query = Query::parse(query).ok_or(Decline::BadQuery)?;
        let search = Search {
            chat,
            query,
            results_max: SEARCH_RESULTS_MAX.min(limit.into()),
            upto: self.clock.now(),
            waits_until_ms: self.clock.now_ms() + INDEX_WAIT_MS_MAX,
            stage: Stage::Waiting,
            found: Vec::new(),
            budget_left: READS_MAX * READ_COST,
        };
        self.begin_stream(caller, Source::Search(Box::new(search)));
        Ok(())
    }

    /// One slice of a search.
    pub(super) fn search_piece(
        &mut self,
        caller: Caller,
        search: &mut Search,
    ) -> Result<Progress, HandlerError> {
        match &search.stage {
            Stage::Waiting => {
                let chats = self.chats_to_search(caller, search);
                if !self.is_index_behind(&chats, search.upto)? {
                    search.stage = self.first_stage(search, chats)?;
                } else if self.clock.now_ms() >= search.waits_until_ms {
                    return Err(Decline::NotReady(self.background.indexing.wait_s()).into());
                }
                Ok(Progress::More)
            }
            Stage::Checking { .. } => {
                self.streams.scanned_bytes += SLICE_COST;
                self.check_proposals(caller, search)?;
                Ok(Progress::More)
            }
            Stage::Sending(_) => self.send_found(caller, search),
        }
    }

    fn chats_to_search(&self, caller: Caller, search: &Search) -> Vec<ChatId> {
        search.chat.map_or_else(|| self.chats_of(caller.user), |chat| vec![chat])
    }

    /// Decides what to ask the index for.
    fn first_stage(&mut self, search: &Search, chats: Vec<ChatId>) -> StoreResult<Stage> {
        self.streams.scanned_bytes += SLICE_COST;
        if search.results_max == 0 || chats.is_empty() {
            return Ok(Stage::Sending(0));
        }
        let below = MessageId::at(search.upto.next());
        let Some(mut all_of) = self.index_terms(&search.query)? else {
            return Ok(Stage::Sending(0));
        };
        if all_of.is_empty() {
            return Ok(Stage::Checking { proposer: Proposer::Newest, below });
        }
        if chats.len() <= CHATS_ASKED_MAX {
            all_of.push(chats.into_iter().map(chat_word).collect());
        }
        let are_common = all_of.len() > 1 && self.are_all_common(&all_of, below)?;
        let windows_left = are_common.then_some(WINDOWS_MAX);
        Ok(Stage::Checking { proposer: Proposer::Index { all_of, windows_left }, below })
    }

    /// Lists of words: a match has, in the index, at least one word of each list. `None` when
    /// nothing can match.
    fn index_terms(&mut self, query: &Query) -> StoreResult<Option<Vec<Vec<String>>>> {
        let mut all_of: Vec<Vec<String>> = Vec::new();
        let mut prefixes = Vec::new();
        for group in query.groups() {
            let Some((last, before)) = group.words.split_last() else { continue };
            all_of.extend(before.iter().map(|word| vec![indexed(word).to_owned()]));
            if group.is_prefix && last.len() < INDEXED_WORD_BYTES_MAX {
                prefixes.push(last);
            } else {
                all_of.push(vec![indexed(last).to_owned()]);
            }
        }
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        for prefix in prefixes.into_iter().take(PREFIXES_MAX) {
            let expansions = self.store.indexed_words(prefix, PREFIX_WORDS_MAX + 1)?;
            if expansions.is_empty() {
                return Ok(None);
            }
            if expansions.len() <= PREFIX_WORDS_MAX {
                all_of.push(expansions);
            }
        }
        // Longer words are rarer, so they come first.
        all_of.sort_by_key(|words| std::cmp::Reverse(words.first().map_or(0, String::len)));
        all_of.dedup();
        Ok(Some(all_of))
    }

    /// Whether intersecting the lists takes long, because every one has many messages.
    fn are_all_common(&mut self, all_of: &[Vec<String>], below: MessageId) -> StoreResult<bool> {
        // The list of chats is the last one, and often the rarest.
        for words in all_of.iter().rev().take(COUNTED_WORDS_MAX) {
            let one = std::slice::from_ref(words);
            let newest = self.store.search(one, below, ServerTime::ZERO, COMMON_MESSAGES)?;
            if newest.len() < COMMON_MESSAGES {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Checks the next proposals and keeps the matches.
    fn check_proposals(&mut self, caller: Caller, search: &mut Search) -> StoreResult<()> {
        let Stage::Checking { proposer, below } = &mut search.stage else { return Ok(()) };
        let (proposals, mut next) = match proposer {
            Proposer::Index { all_of, windows_left } => {
                self.propose(all_of, windows_left, search.chat, *below)?
            }
            Proposer::Newest => {
                self.propose_newest(search.chat, *below, &mut search.budget_left)?
            }
        };
        let mut bytes = 0;
        for (id, chat) in proposals {
            let chat = match chat {
                Some(chat) => Some(chat),
                None => self.store.chat_of_indexed(id)?,
            };
            let mine =
                chat.filter(|&chat| self.presence.roster.membership(caller.user, chat).is_some());
            let Some(chat) = mine else {
                search.budget_left = search.budget_left.saturating_sub(1);
                continue;
            };
            search.budget_left = search.budget_left.saturating_sub(READ_COST);
            let query = &search.query;
            let score = self.store.with_message(chat, id, |message| {
                bytes += message.content.len();
                query.score(message.content)
            })?;
            if let Some(score) = score.flatten() {
                search.found.push((score, id, chat));
            }
            if search.found.len() >= RANKED_MAX {
                next = None;
                break;
            }
            if bytes >= BYTES_PER_SLICE {
                next = Some(id);
                break;
            }
        }
        match next.filter(|_| search.budget_left > 0) {
            Some(next) => *below = next,
            None => search.rank(),
        }
        Ok(())
    }

    /// Proposals of the index, with their chat if it is known, and the upper bound of the next
    /// ones; `None` at the end.
    #[allow(clippy::type_complexity)]
    fn propose(
        &mut self,
        all_of: &[Vec<String>],
        windows_left: &mut Option<usize>,
        chat: Option<ChatId>,
        below: MessageId,
    ) -> StoreResult<(Vec<(MessageId, Option<ChatId>)>, Option<MessageId>)> {
        let above = match windows_left {
            None => ServerTime::ZERO,
            Some(_) => self.store.indexed_window(below, WINDOW_MESSAGES)?,
        };
        let ids = self.store.search(all_of, below, above, PROPOSALS_PER_SLICE)?;
        let last = ids.last().copied();
        let next = if ids.len() == PROPOSALS_PER_SLICE {
            last
        } else if above > ServerTime::ZERO {
            *windows_left = windows_left.and_then(|left| left.checked_sub(1));
            windows_left.map(|_| MessageId::at(above.next()))
        } else {
            None
        };
        Ok((ids.into_iter().map(|id| (id, chat)).collect(), next))
    }

    #[allow(clippy::type_complexity)]
    fn propose_newest(
        &mut self,
        chat: Option<ChatId>,
        below: MessageId,
        budget_left: &mut usize,
    ) -> StoreResult<(Vec<(MessageId, Option<ChatId>)>, Option<MessageId>)> {
        if let Some(chat) = chat {
            let (newest, passed_over, next) =
                self.store.messages_before(chat, below, PROPOSALS_PER_SLICE)?;
            *budget_left = budget_left.saturating_sub(passed_over);
            return Ok((newest.into_iter().map(|id| (id, Some(chat))).collect(), next));
        }
        let newest = self.store.indexed_before(below, PROPOSALS_PER_SLICE)?;
        let is_end = newest.len() < PROPOSALS_PER_SLICE;
        let next = newest.last().map(|(id, _)| *id).filter(|_| !is_end);
        Ok((newest.into_iter().map(|(id, chat)| (id, Some(chat))).collect(), next))
    }

    /// Sends the results, best first, with their present content.
    fn send_found(
        &mut self,
        caller: Caller,
        search: &mut Search,
    ) -> Result<Progress, HandlerError> {
        let Stage::Sending(next) = &mut search.stage else { return Ok(Progress::Ended) };
        let found = &search.found;
        self.pieces(caller, |service, pieces| {
            while let Some(&(_, id, chat)) = found.get(*next) {
                if !pieces.has_budget() {
                    return Ok(Progress::More);
                }
                // Not a result any more: deleted, or the user has left its chat.
                if service.presence.roster.membership(caller.user, chat).is_some() {
                    service.store.with_message(chat, id, |message| {
                        pieces.out().put_u32(chat.get());
                        let version = pieces.version;
                        put_message(pieces.out(), version, message);
                    })?;
                }
                *next += 1;
            }
            Ok(Progress::Ended)
        })
    }
}

impl Search {
    /// Sorts by score; among equals, the newest first.
    fn rank(&mut self) {
        self.found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        self.found.truncate(self.results_max);
        self.stage = Stage::Sending(0);
    }
}

/// Cost of a slice of a search, in bytes of the budget of [`Service::pump`] per turn.
const SLICE_COST: usize = crate::limits::STREAM_TURN_BYTES / 4;
