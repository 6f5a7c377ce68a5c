//! The model of streamed answers: what each piece must contain, when everything may change in
//! between.

use std::collections::{BTreeMap, BTreeSet};

use vestnik::ids::ConnId;

use super::find_users::UserSearch;
use super::search::Search;
use super::{Caller, Member, Model, Turn};
use crate::wire::{ACCEPTED, Body, Check, DECLINED, Frame, Message};

/// Bytes of an answer of 0.1, at most.
const LEGACY_BYTES_MAX: usize = 1024 * 1024;

/// A streamed answer in progress.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) task: u8,
    kind: Kind,
    /// The user has left its chat meanwhile, even if they are back: nothing more of it may be sent.
    is_broken: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Range {
        chat: u32,
        from: i64,
        to: i64,
    },
    Legacy {
        chat: u32,
        from: i64,
        to: i64,
    },
    Page {
        chat: u32,
        from: i64,
        to: i64,
    },
    Updates {
        rest: BTreeSet<u32>,
        /// Chats left meanwhile, and from which time on: they may be sent, but need not be, since
        /// the user may have come back.
        left: BTreeMap<u32, i64>,
        at: Option<(u32, i64)>,
        from: i64,
        to: i64,
    },
    MyChats {
        rest: Vec<u32>,
    },
    Found {
        prefix: String,
        after: String,
        left: u16,
    },
    Users(UserSearch),
    Members {
        chat: u32,
        asked: i64,
        after: u32,
        banned_after: Option<u32>,
    },
    Search(Box<Search>),
    Stored {
        stored: u64,
    },
    File {
        id: u64,
        offset: u64,
        length: usize,
    },
    Reactions {
        chat: u32,
        id: i64,
    },
    /// The answer involves a chat that was removed by a command not taken up yet.
    Unchecked,
}

impl Stream {
    /// Whether a message that changes leaves the part that is still to be read.
    pub(super) fn is_by_time(&self) -> bool {
        matches!(self.kind, Kind::Range { .. } | Kind::Legacy { .. } | Kind::Updates { .. })
    }
}

impl Kind {
    /// The chat whose membership the answer depends on.
    fn chat(&self) -> Option<u32> {
        match self {
            Self::Range { chat, .. }
            | Self::Legacy { chat, .. }
            | Self::Page { chat, .. }
            | Self::Reactions { chat, .. }
            | Self::Members { chat, .. } => Some(*chat),
            Self::Search(search) => search.chat,
            _ => None,
        }
    }
}

impl Model {
    pub(super) fn stream(&mut self, me: Caller, kind: Kind) -> Check {
        if let Some(conn) = self.conns.get_mut(&me.conn) {
            conn.stream = Some(Stream { task: me.task, kind, is_broken: false });
        }
        Ok(())
    }

    pub(super) fn range(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        from: i64,
        to: Option<i64>,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let to = to.map_or(turn.after, |to| to.min(turn.after));
        let kind = match me.modern {
            true => Kind::Range { chat, from, to },
            false => Kind::Legacy { chat, from, to },
        };
        self.stream(me, kind)
    }

    pub(super) fn page(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        before: Option<i64>,
        (limit, is_newer): (u16, bool),
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        if is_newer {
            let from = before.unwrap_or(0).saturating_add(1);
            let rest = self.chats[&chat].messages.range(from..);
            let page = rest.take_while(|(id, _)| **id <= turn.after).take(usize::from(limit));
            let kind = match page.last() {
                Some((&to, _)) => Kind::Page { chat, from, to },
                None => Kind::Page { chat, from: 0, to: 0 },
            };
            return self.stream(me, kind);
        }
        let to = before.map_or(turn.after, |before| (before - 1).min(turn.after));
        let newest_first = self.chats[&chat].messages.range(..=to).rev();
        match newest_first.take(usize::from(limit)).last() {
            Some((&from, _)) => self.stream(me, Kind::Page { chat, from, to }),
            // A page before every message is empty.
            None => self.stream(me, Kind::Page { chat, from: 0, to: 0 }),
        }
    }

    pub(super) fn found(&mut self, me: Caller, prefix: String, limit: u16) -> Check {
        let left = limit.min(1000);
        self.stream(me, Kind::Found { prefix, after: String::new(), left })
    }

    pub(super) fn updates(&mut self, turn: &mut Turn<'_>, me: Caller, from: i64) -> Check {
        // A member added by a command may not be known to the server yet.
        let is_sure =
            |chat: &u32| !self.is_adding || !self.added_by_hand.contains(&(*chat, me.user));
        let chats = self.chats_of(me.user).into_iter();
        let (rest, unsure): (BTreeSet<u32>, BTreeSet<u32>) = chats.partition(is_sure);
        let left = unsure.into_iter().map(|chat| (chat, from)).collect();
        self.stream(me, Kind::Updates { rest, left, at: None, from, to: turn.after })
    }

    pub(super) fn my_chats(&mut self, me: Caller) -> Check {
        let rest = self.chats_of(me.user);
        self.stream(me, Kind::MyChats { rest })
    }

    pub(super) fn members(&mut self, turn: &mut Turn<'_>, me: Caller, chat: u32) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let asked = turn.after;
        self.stream(me, Kind::Members { chat, asked, after: 0, banned_after: None })
    }

    /// A user has left a chat: no streamed answer may send more of it.
    pub(super) fn left_while_streaming(&mut self, user: u32, chat: u32) {
        for conn in self.conns.values_mut().filter(|conn| conn.user() == Some(user)) {
            if let Some(stream) = &mut conn.stream {
                stream.is_broken |= stream.kind.chat() == Some(chat);
            }
            match conn.stream.as_mut().map(|stream| &mut stream.kind) {
                Some(Kind::Updates { rest, left, at, from, .. }) => {
                    rest.remove(&chat);
                    let begun = at.take_if(|(of, _)| *of == chat);
                    let before = left.get(&chat).copied();
                    left.insert(chat, begun.map(|(_, next)| next).or(before).unwrap_or(*from));
                }
                Some(Kind::Search(search)) => search.left(chat),
                _ => {}
            }
        }
    }

    /// Checks a PART, or the end of a streamed answer.
    pub(super) fn stream_frame(&mut self, id: ConnId, frame: &Frame) -> Check {
        let Some(conn) = self.conns.get_mut(&id) else { return Err("it is not there".into()) };
        let (user, is_11) = (conn.user(), conn.is_11);
        let Some(mut stream) = conn.stream.take() else { return Err("nothing is asked".into()) };
        if stream.task != frame.task {
            return Err(format!("task {} is asked for", stream.task));
        }
        if frame.purpose == DECLINED {
            return self.stream_declined(user, &stream, frame);
        }
        let user = user.ok_or("its session has ended")?;
        if stream.is_broken && !matches!(stream.kind, Kind::Unchecked) {
            return Err("its chat was left meanwhile: the answer has to break off".into());
        }
        if self.is_removing {
            stream.kind = Kind::Unchecked;
        }
        let is_last = frame.purpose == ACCEPTED;
        self.piece(user, &mut stream.kind, Body::spoken(&frame.body, is_11), is_last)?;
        if is_last {
            self.note("long answers");
        } else if let Some(conn) = self.conns.get_mut(&id) {
            self.seen.entry("parts".to_owned()).and_modify(|count| *count += 1).or_insert(1);
            conn.stream = Some(stream);
        }
        Ok(())
    }

    fn stream_declined(&mut self, user: Option<u32>, stream: &Stream, frame: &Frame) -> Check {
        let text = Body::of(&frame.body).str()?.to_owned();
        let given = text.split(':').next().unwrap_or_default();
        let expected = match (&stream.kind, user) {
            (Kind::Unchecked, Some(_)) => return Ok(()),
            (Kind::Search(search), Some(_)) if given == "not-ready" => {
                return match search.may_be_late(self.now_ms) {
                    true => Ok(()),
                    false => Err("a search is declined not-ready at once".into()),
                };
            }
            _ if self.unreadable && given == "storage-failed" => return Ok(()),
            (_, None) => Some("login-required"),
            (kind, Some(user)) if stream.is_broken => {
                let is_closed =
                    |chat: u32| self.chats.get(&chat).is_some_and(|chat| chat.is_closed);
                let back = |chat: u32| if is_closed(chat) { "no-such-chat" } else { "not-member" };
                kind.chat().map(|chat| self.not_member(user, chat).unwrap_or(back(chat)))
            }
            (Kind::File { id, .. }, Some(user)) => {
                let file = self.files.get(id).filter(|file| self.is_member(user, file.chat));
                if file.is_some() { None } else { Some("no-such-file") }
            }
            (Kind::Reactions { chat, .. }, Some(user)) => self.not_member(user, *chat),
            (
                Kind::Updates { .. }
                | Kind::MyChats { .. }
                | Kind::Found { .. }
                | Kind::Users(_)
                | Kind::Stored { .. },
                _,
            ) => None,
            (Kind::Members { chat, .. }, Some(user)) => {
                self.not_member(user, *chat).or_else(|| {
                    let is_admin = self.chats[chat].members.get(&user).is_some_and(|me| me.admin);
                    if is_admin { None } else { Some("forbidden") }
                })
            }
            (Kind::Legacy { chat, from, to }, Some(user)) => {
                self.not_member(user, *chat).or_else(|| {
                    let range = self.chats[chat].by_updated.range(*from..=*to);
                    let content = |id: &i64| {
                        30 + self.chats[chat].messages[id].wire_for(*id, false).content.len()
                    };
                    let bytes: usize = range.map(|(_, id)| content(id)).sum();
                    if bytes > LEGACY_BYTES_MAX / 2 { Some("too-large") } else { None }
                })
            }
            (Kind::Range { chat, .. } | Kind::Page { chat, .. }, Some(user)) => {
                self.not_member(user, *chat)
            }
            (Kind::Search(search), Some(user)) => {
                search.chat.and_then(|chat| self.not_member(user, chat))
            }
        };
        self.note("long answers cut off");
        if expected == Some(given) { Ok(()) } else { Err(format!("{text}, and not {expected:?}")) }
    }

    fn piece(&self, user: u32, kind: &mut Kind, mut body: Body<'_>, is_last: bool) -> Check {
        match kind {
            Kind::Range { chat, from, to } => {
                self.require(user, *chat)?;
                while !body.is_empty() {
                    let message = body.message()?;
                    *from = self.next_in_range(*chat, *from, *to, &message)?;
                }
                if is_last { self.range_is_over(*chat, *from, *to) } else { Ok(()) }
            }
            Kind::Legacy { chat, from, to } if is_last => {
                self.require(user, *chat)?;
                self.legacy_pack(*chat, *from, *to, body)
            }
            Kind::Legacy { .. } => Err("0.1 knows no PART".into()),
            Kind::Page { chat, from, to } => {
                self.require(user, *chat)?;
                let messages = &self.chats[chat].messages;
                while !body.is_empty() {
                    let message = body.message()?;
                    let next = messages.range(*from..=*to).next();
                    if next.map(|(id, next)| next.wire_for(*id, self.reads_11)).as_ref()
                        != Some(&message)
                    {
                        return Err(format!("{message:?} comes when {next:?} is next"));
                    }
                    *from = message.id + 1;
                }
                match messages.range(*from..).next().filter(|(id, _)| is_last && **id <= *to) {
                    Some(missing) => Err(format!("{missing:?} is missing")),
                    None => Ok(()),
                }
            }
            Kind::Updates { .. } => self.updates_piece(user, kind, body, is_last),
            Kind::MyChats { rest } => self.chats_piece(user, rest, body, is_last),
            Kind::Found { prefix, after, left } => {
                self.found_piece(user, prefix, (after, left), body, is_last)
            }
            Kind::Users(search) => self.users_piece(search, body, is_last),
            Kind::Members { .. } => self.members_piece(user, kind, body, is_last),
            Kind::Search(search) => self.search_piece(user, search, body, is_last),
            Kind::Stored { stored } if is_last && body.u64()? == *stored => body.end(),
            Kind::Stored { stored } => Err(format!("{stored} bytes are stored")),
            Kind::File { id, offset, length } => {
                self.file_piece(user, (*id, *offset, *length), body)
            }
            Kind::Reactions { chat, id } => {
                self.require(user, *chat)?;
                self.reactions_piece(*chat, *id, body)
            }
            Kind::Unchecked => Ok(()),
        }
    }

    pub(super) fn require(&self, user: u32, chat: u32) -> Check {
        match self.not_member(user, chat) {
            Some(code) => Err(format!("user {user} in chat {chat}: {code}")),
            None => Ok(()),
        }
    }

    /// Where the range continues after this message, which must be its next one.
    fn next_in_range(&self, chat: u32, from: i64, to: i64, message: &Message) -> Check<i64> {
        let found = &self.chats[&chat];
        let mut range = found.by_updated.range(from..).take_while(|(at, _)| **at <= to);
        let next = range.next().map(|(_, id)| found.messages[id].wire_for(*id, self.reads_11));
        if next.as_ref() != Some(message) {
            return Err(format!("chat {chat}: {message:?} comes when {next:?} is next"));
        }
        Ok(message.updated + 1)
    }

    fn range_is_over(&self, chat: u32, from: i64, to: i64) -> Check {
        let mut rest = self.chats[&chat].by_updated.range(from..).take_while(|(at, _)| **at <= to);
        match rest.next() {
            Some(missing) => Err(format!("chat {chat}: {missing:?} is missing")),
            None => Ok(()),
        }
    }

    /// Messages read early may have changed since; then they have left the range.
    fn legacy_pack(&self, chat: u32, from: i64, to: i64, mut body: Body<'_>) -> Check {
        let found = &self.chats[&chat];
        let (mut last, mut ids) = (from - 1, BTreeSet::new());
        while !body.is_empty() {
            let message = body.message()?;
            let present =
                found.messages.get(&message.id).map(|now| now.wire_for(message.id, false));
            let has_left = present.as_ref().is_some_and(|now| now.updated > to);
            if message.updated <= last || message.updated > to {
                return Err(format!("{message:?} after {last}, up to {to}"));
            }
            if !has_left && present.as_ref() != Some(&message) {
                return Err(format!("{message:?} is {present:?}"));
            }
            last = message.updated;
            ids.insert(message.id);
        }
        let mut range = found.by_updated.range(from..).take_while(|(at, _)| **at <= to);
        match range.find(|(_, id)| !ids.contains(id)) {
            Some(missing) => Err(format!("{missing:?} is missing")),
            None => Ok(()),
        }
    }

    fn updates_piece(
        &self,
        user: u32,
        kind: &mut Kind,
        mut body: Body<'_>,
        is_last: bool,
    ) -> Check {
        let Kind::Updates { rest, left, at, from, to } = kind else { return Ok(()) };
        while !body.is_empty() {
            let (chat, message) = (body.u32()?, body.message()?);
            self.require(user, chat)?;
            let cursor = match *at {
                Some((current, cursor)) if current == chat => cursor,
                other => {
                    if let Some((current, cursor)) = other {
                        self.range_is_over(current, cursor, *to)?;
                    }
                    let is_asked = rest.remove(&chat).then_some(*from);
                    is_asked
                        .or_else(|| left.remove(&chat))
                        .ok_or_else(|| format!("chat {chat} comes again, or was not asked for"))?
                }
            };
            *at = Some((chat, self.next_in_range(chat, cursor, *to, &message)?));
        }
        if is_last {
            let unread = rest.iter().map(|chat| (*chat, *from)).chain(*at);
            for (chat, cursor) in unread {
                self.range_is_over(chat, cursor, *to)?;
            }
        }
        Ok(())
    }

    fn chats_piece(
        &self,
        user: u32,
        rest: &mut Vec<u32>,
        mut body: Body<'_>,
        is_last: bool,
    ) -> Check {
        // A chat that was left meanwhile is not listed; one that was joined may be.
        while !body.is_empty() {
            let chat = Body::of(body.rest).u32()?;
            let info = self.chat_info(user, chat, body.is_11);
            let info = info.filter(|_| self.is_member(user, chat));
            let Some(left) = info.as_ref().and_then(|info| body.rest.strip_prefix(&info[..]))
            else {
                return Err(format!("chat {chat} is {info:?} and not {:?}", body.rest));
            };
            body.rest = left;
            rest.retain(|other| *other != chat);
        }
        match rest.iter().find(|chat| is_last && self.is_member(user, **chat)) {
            None => Ok(()),
            Some(chat) => Err(format!("chat {chat} is not listed")),
        }
    }

    fn found_piece(
        &self,
        user: u32,
        prefix: &str,
        (after, left): (&mut String, &mut u16),
        mut body: Body<'_>,
        is_last: bool,
    ) -> Check {
        while *left > 0
            && let Some((key, chat)) = self.next_group(user, prefix, after)
        {
            if body.is_empty() && !is_last {
                return Ok(());
            }
            let info = self.chat_info(user, chat, body.is_11).unwrap_or_default();
            let Some(rest) = body.rest.strip_prefix(&info[..]) else {
                return Err(format!("chat {chat} is {info:?} and not {:?}", body.rest));
            };
            body.rest = rest;
            *after = key;
            *left -= 1;
        }
        body.end()
    }

    fn members_piece(
        &self,
        user: u32,
        kind: &mut Kind,
        mut body: Body<'_>,
        is_last: bool,
    ) -> Check {
        let Kind::Members { chat, asked, after, banned_after } = kind else { return Ok(()) };
        self.require(user, *chat)?;
        let found = &self.chats[chat];
        let is_admin = found.members[&user].admin;
        // A user who joined after the request may be missing.
        let is_sure = |(user, member): &(&u32, &Member)| {
            member.joined <= *asked && !self.added_by_hand.contains(&(*chat, **user))
        };
        while !body.is_empty() {
            let (id, flags, seen) = (body.u32()?, body.u8()?, body.i64()?);
            let nickname = body.str()?;
            let online = if self.is_online(id) { 2 } else { 0 };
            let is_right = nickname == self.nickname(id) && flags & 2 == online;
            let next = found.members.range(*after + 1..).next();
            let is_member = next.is_some_and(|(next, member)| {
                *next == id && flags & 5 == u8::from(member.admin) && seen == member.seen
            });
            let bans = found.bans.range(banned_after.unwrap_or(0) + 1..);
            let is_banned = is_admin && flags & 5 == 4 && seen == 0 && bans.min() == Some(&id);
            let are_all_notified =
                !found.members.range(*after + 1..).any(|member| is_sure(&member));
            match (is_right && is_member, is_right && is_banned && are_all_notified) {
                (true, _) if banned_after.is_none() => *after = id,
                (_, true) => *banned_after = Some(id),
                _ => return Err(format!("{id} {flags} {seen} {nickname} when {next:?} is next")),
            }
        }
        let mut missing = found.members.range(*after + 1..).filter(is_sure);
        if is_last && banned_after.is_none() && missing.next().is_some() {
            return Err(format!("members after {after} are missing"));
        }
        let rest = found.bans.range(banned_after.unwrap_or(0) + 1..).next();
        match rest.filter(|_| is_last && is_admin) {
            Some(rest) => Err(format!("{rest} is banned and not listed")),
            None => Ok(()),
        }
    }
}
