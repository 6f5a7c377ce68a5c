//! The model of searches: a search must find all matches in the user's chats, and nothing else. The
//! order is not checked.

use std::collections::BTreeSet;

use vestnik::limits::{QUERY_WORDS_MAX, SEARCH_RESULTS_MAX};

use super::streams::Kind;
use super::{Caller, Model, Turn};
use crate::wire::{Body, Check, DELETED};

/// Milliseconds that a search waits for the index, and that the index may lag after a failed turn.
const INDEX_WAIT_MS_MAX: u64 = 5_000;

/// Words that must be adjacent; the last one may be a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    words: Vec<String>,
    is_prefix: bool,
}

/// A search in progress.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) chat: Option<u32>,
    /// `None`: it has characters that the model does not know; then the words are not checked.
    query: Option<Vec<Group>>,
    limit: usize,
    asked: i64,
    asked_ms: u64,
    /// The chats that the user is a member of all the time, and whether any was left.
    chats: BTreeSet<u32>,
    has_left: bool,
    found: BTreeSet<i64>,
}

impl Search {
    pub(super) fn left(&mut self, chat: u32) {
        self.has_left |= self.chats.remove(&chat);
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase)
}

/// Parses a query as the protocol defines; empty if it has no words, or too many.
fn parse(query: &str) -> Vec<Group> {
    let (mut groups, mut count) = (Vec::new(), 0);
    let parts: Vec<&str> = query.split('"').collect();
    for (place, part) in parts.iter().enumerate() {
        let is_quoted = place % 2 == 1;
        let mut phrase = Group { words: Vec::new(), is_prefix: false };
        let mut rest = *part;
        while let Some(start) = rest.find(char::is_alphanumeric) {
            rest = &rest[start..];
            let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            (rest, count) = (after, count + 1);
            phrase.words.push(word.to_lowercase());
            phrase.is_prefix = rest.starts_with('*');
            if !is_quoted {
                groups.push(phrase.clone());
                phrase.words.clear();
            }
        }
        if !phrase.words.is_empty() {
            phrase.is_prefix |= parts.get(place + 1).is_some_and(|next| next.starts_with('*'));
            groups.push(phrase);
        }
    }
    if count > QUERY_WORDS_MAX { Vec::new() } else { groups }
}

fn fits(query: &[Group], content: &str) -> bool {
    let words: Vec<String> = words(content).collect();
    query.iter().all(|group| {
        words.windows(group.words.len()).any(|window| {
            let (Some((last, before)), Some((wanted, others))) =
                (window.split_last(), group.words.split_last())
            else {
                return false;
            };
            let is_last = if group.is_prefix { last.starts_with(wanted) } else { last == wanted };
            is_last && before == others
        })
    })
}

/// Whether the model knows all characters.
fn is_plain(query: &str) -> bool {
    query.chars().all(|c| c.is_ascii() || matches!(c, 'а'..='я' | 'А'..='Я' | 'ё' | 'Ё'))
}

impl Model {
    pub(super) fn search(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: Option<u32>,
        limit: u16,
        query: &str,
    ) -> Check {
        if let Some(code) = chat.and_then(|chat| self.not_member(me.user, chat)) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let groups = parse(query);
        let next = turn.staged.get(&me.conn).and_then(|staged| staged.front());
        let was_bad = next.is_some_and(|next| next.body.starts_with(b"bad-query:"));
        if is_plain(query) && groups.is_empty() || !is_plain(query) && was_bad {
            return self.decline(turn, me.conn, me.task, "bad-query");
        }
        let search = Search {
            chat,
            query: is_plain(query).then_some(groups),
            limit: SEARCH_RESULTS_MAX.min(limit.into()),
            asked: turn.after,
            asked_ms: self.now_ms,
            chats: self.chats_of(me.user).into_iter().collect(),
            has_left: false,
            found: BTreeSet::new(),
        };
        self.stream(me, Kind::Search(Box::new(search)))
    }

    pub(super) fn search_piece(
        &self,
        user: u32,
        search: &mut Search,
        mut body: Body<'_>,
        is_last: bool,
    ) -> Check {
        while !body.is_empty() {
            let (chat, message) = (body.u32()?, body.message()?);
            self.require(user, chat)?;
            let present = self.chats[&chat].messages.get(&message.id);
            let is_so = present.map(|now| now.wire_for(message.id, self.reads_11)).as_ref()
                == Some(&message);
            let is_asked_for = search.chat.is_none_or(|only| only == chat);
            if !is_so || !is_asked_for || message.status & DELETED != 0 {
                return Err(format!("found in chat {chat}: {message:?}, and there is {present:?}"));
            }
            // A message changed since the request may have matched before.
            let was_changed = message.updated > search.asked;
            let is_wrong = search
                .query
                .as_ref()
                .is_some_and(|q| !present.is_some_and(|now| fits(q, &now.content)));
            if message.id > search.asked || is_wrong && !was_changed {
                return Err(format!("{search:?} does not ask for {message:?} of chat {chat}"));
            }
            if !search.found.insert(message.id) || search.found.len() > search.limit {
                return Err(format!("{search:?}: {message:?} comes twice, or too much"));
            }
        }
        if is_last { self.search_is_over(user, search) } else { Ok(()) }
    }

    fn search_is_over(&self, user: u32, search: &Search) -> Check {
        let Some(query) = &search.query else { return Ok(()) };
        let chats = self.chats_of(user).into_iter();
        let (mut sure, mut unsure) = (Vec::new(), 0);
        for chat in chats.filter(|chat| search.chat.is_none_or(|only| only == *chat)) {
            for (id, message) in self.chats[&chat].messages.range(..=search.asked) {
                if message.updated > search.asked || !search.chats.contains(&chat) {
                    unsure += 1;
                } else if message.status & DELETED == 0 && fits(query, &message.content) {
                    sure.push(*id);
                }
            }
        }
        if search.has_left {
            return Ok(());
        }
        let missing = sure.iter().find(|id| !search.found.contains(*id));
        let is_short = search.found.len() < search.limit.min(sure.len());
        match missing {
            Some(missing) if is_short && (unsure == 0 || sure.len() + unsure <= search.limit) => {
                Err(format!("{search:?}: {missing} is missing, of {sure:?}"))
            }
            _ => Ok(()),
        }
    }
}

impl Search {
    /// Whether it has waited for the index as long as allowed.
    pub(super) fn may_be_late(&self, now_ms: u64) -> bool {
        now_ms >= self.asked_ms + INDEX_WAIT_MS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_prefixes_and_phrases() {
        let is_found = |query: &str, text: &str| {
            let groups = parse(query);
            !groups.is_empty() && fits(&groups, text)
        };
        assert!(is_found("apple RED", "a red, Apple"));
        assert!(!is_found("appl", "a red apple") && is_found("appl*", "a red apple"));
        assert!(is_found("\"red app\"*", "a red apple") && is_found("\"red app*\"", "red apple"));
        assert!(!is_found("\"apple red\"", "a red apple"));
        assert!(is_found("3.17", "3.17 x"));
        assert!(!is_found("", "a") && !is_found("*\"\" -", "a"));
        assert_eq!(parse(&"x ".repeat(QUERY_WORDS_MAX + 1)), []);
    }
}
