//! The model: chats, users and cached messages. News change it, both user interfaces read it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use purpose::client::{Chat, Member, Message, ReactionChange};
use vestnik::ids::{ChatId, MessageId, ServerTime, UserId};
use vestnik::names::name_key;
use vestnik::wire::answer::MemberEvent;

use super::report;
use super::text::harmless;

/// Cached messages of the open chat, at most; the oldest are dropped first, and can be reloaded.
const OPEN_MESSAGES_MAX: usize = 5_000;
/// Text of the cached messages of a chat, at most, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Cached names, at most; then the cache is cleared, and unknown users are shown as numbers.
const NAMES_MAX: usize = 100_000;
/// Cached messages of a chat that was open before, at most.
const SHUT_MESSAGES_MAX: usize = 100;
/// Cached older messages of a chat that are quoted by replies, at most.
const QUOTES_MAX: usize = 500;

/// How a received message relates to the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// New.
    New,
    /// Edited or deleted.
    Changed,
    /// Its reactions changed.
    Reacted,
    /// Unchanged, or older than the cached messages.
    Known,
    /// Of a chat that was not opened yet: counted, but not cached.
    Counted,
}

/// A chat with its cached messages: the newest ones, without gaps.
pub(super) struct ChatView {
    pub(super) info: Chat,
    pub(super) unread: u32,
    pub(super) messages: BTreeMap<MessageId, Message>,
    /// Older messages that are quoted by replies.
    quotes: BTreeMap<MessageId, Message>,
    /// Whether messages were requested; from then on live messages are cached.
    pub(super) is_loaded: bool,
    /// Whether the oldest cached message is the first of the chat.
    pub(super) is_whole: bool,
    pub(super) members: Vec<Member>,
    bytes: usize,
    /// The newest message that was counted.
    newest: ServerTime,
    /// The newest message when another chat was opened: later ones were not shown.
    left_at: Option<MessageId>,
}

/// The model.
pub(super) struct Model {
    pub(super) me: UserId,
    pub(super) my_name: String,
    pub(super) chats: BTreeMap<ChatId, ChatView>,
    pub(super) open: Option<ChatId>,
    pub(super) online: HashSet<UserId>,
    names: HashMap<UserId, String>,
}

impl ChatView {
    fn new(info: Chat) -> Self {
        Self {
            unread: info.unread,
            newest: info.last_message,
            info,
            messages: BTreeMap::new(),
            quotes: BTreeMap::new(),
            is_loaded: false,
            is_whole: false,
            members: Vec::new(),
            bytes: 0,
            left_at: None,
        }
    }

    fn put(&mut self, message: Message) -> Taken {
        if let Some(quote) = self.quotes.get_mut(&message.id) {
            quote.clone_from(&message);
        }
        let known = self.messages.get(&message.id);
        let taken = match known {
            // With an equal time the received message replaces the cached one: it may be newer.
            Some(known) if known.updated > message.updated || *known == message => {
                return Taken::Known;
            }
            Some(known) if is_same_text(known, &message) => Taken::Reacted,
            Some(_) => Taken::Changed,
            None => Taken::New,
        };
        self.bytes += weight(&message);
        if let Some(old) = self.messages.insert(message.id, message) {
            self.bytes -= weight(&old);
        }
        taken
    }

    /// A cached message, also one that is only quoted.
    pub(super) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id).or_else(|| self.quotes.get(&id))
    }

    /// Applies a reaction; returns the message if that changes it.
    fn react(&mut self, change: &ReactionChange) -> Option<&Message> {
        let message = self.messages.get_mut(&change.message)?;
        let before = weight(message);
        if !message.apply(change) {
            return None;
        }
        self.bytes = (self.bytes + weight(message)).saturating_sub(before);
        Some(message)
    }

    /// Applies a change of a member.
    pub(super) fn change_member(&mut self, user: UserId, event: MemberEvent, nickname: String) {
        let known = self.members.iter_mut().find(|member| member.user == user);
        match event {
            MemberEvent::Left | MemberEvent::Banned => {
                self.members.retain(|member| member.user != user);
                self.info.members = self.info.members.saturating_sub(1);
            }
            MemberEvent::Joined => {
                self.info.members = self.info.members.saturating_add(1);
                if known.is_none() {
                    let seen = ServerTime::ZERO;
                    let (admin, online, banned) = (false, true, false);
                    self.members.push(Member { user, admin, online, banned, seen, nickname });
                }
            }
            MemberEvent::Admin | MemberEvent::NoLongerAdmin => {
                if let Some(known) = known {
                    known.admin = event == MemberEvent::Admin;
                }
            }
        }
    }

    /// The read marker was moved by another client of the user.
    pub(super) fn see(&mut self, time: ServerTime) {
        if time >= self.newest {
            self.unread = 0;
        }
    }

    /// Whether the cache has no capacity for older messages.
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= OPEN_MESSAGES_MAX || self.bytes >= BYTES_MAX
    }

    fn shrink(&mut self, messages_max: usize) {
        while self.messages.len() > messages_max || self.bytes > BYTES_MAX {
            let Some((_, old)) = self.messages.pop_first() else { return };
            self.bytes -= weight(&old);
            self.is_whole = false;
        }
    }
}

/// Approximate memory of a message, in bytes.
fn weight(message: &Message) -> usize {
    let files = message.files.iter().map(|file| 64 + file.name.len() + file.media_type.len());
    let reactions = message.reactions.iter().map(|reaction| 64 + 4 * reaction.shown.len());
    message.content.len() + files.sum::<usize>() + reactions.sum::<usize>()
}

/// Whether two states of a message differ in reactions only.
fn is_same_text(one: &Message, other: &Message) -> bool {
    one.content == other.content
        && (one.edited, one.deleted) == (other.edited, other.deleted)
        && one.files == other.files
}

impl Model {
    pub(super) fn new(me: UserId, my_name: String) -> Self {
        let names = HashMap::from([(me, my_name.clone())]);
        Self { me, my_name, chats: BTreeMap::new(), open: None, online: HashSet::new(), names }
    }

    /// The open chat.
    pub(super) fn open_view(&self) -> Option<&ChatView> {
        self.chats.get(&self.open?)
    }

    /// Somebody's name.
    pub(super) fn name(&self, user: UserId) -> String {
        self.names.get(&user).cloned().unwrap_or_else(|| report::nameless(user))
    }

    pub(super) fn learn_name(&mut self, user: UserId, name: String) {
        if self.names.len() >= NAMES_MAX {
            self.names.retain(|&user, _| user == self.me);
        }
        self.names.insert(user, name);
    }

    /// The user's chats in the order of lists: groups by name, then direct chats.
    pub(super) fn listed(&self) -> Vec<&ChatView> {
        let mut listed: Vec<&ChatView> = self.chats.values().collect();
        listed.sort_by_cached_key(|view| {
            let name = if view.info.direct { &view.info.title } else { &view.info.name };
            (view.info.direct, name.to_lowercase(), view.info.id)
        });
        listed
    }

    /// The user's chat with this name; `@NAME` is a direct chat.
    pub(super) fn find(&self, name: &str) -> Option<ChatId> {
        let (name, only_direct) = match name.strip_prefix('@') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let key = name_key(name)?;
        let is_it = |view: &&&ChatView| {
            let info = &view.info;
            let called = if info.direct { &info.title } else { &info.name };
            (info.direct || !only_direct) && name_key(called).as_ref() == Some(&key)
        };
        self.listed().iter().find(is_it).map(|view| view.info.id)
    }

    /// The other user of a direct chat, if known.
    pub(super) fn other_side(&self, view: &ChatView) -> Option<UserId> {
        view.members.iter().map(|member| member.user).find(|&user| user != self.me)
    }

    /// Replaces the list of the user's chats.
    pub(super) fn take_chats(&mut self, chats: Vec<Chat>) {
        let ids: BTreeSet<ChatId> = chats.iter().map(|chat| chat.id).collect();
        self.chats.retain(|id, _| ids.contains(id));
        for chat in chats {
            self.take_chat(chat);
        }
        if self.open.is_some_and(|open| !self.chats.contains_key(&open)) {
            self.open = None;
        }
    }

    /// Adds or updates a chat of the user.
    pub(super) fn take_chat(&mut self, chat: Chat) {
        let is_open = self.open == Some(chat.id);
        let view = self.chats.entry(chat.id).or_insert_with(|| ChatView::new(chat.clone()));
        view.unread = if is_open { 0 } else { chat.unread };
        view.newest = view.newest.max(chat.last_message);
        view.info = chat;
    }

    pub(super) fn take_members(&mut self, chat: ChatId, members: Vec<Member>) {
        for member in &members {
            self.learn_name(member.user, member.nickname.clone());
            self.take_presence(member.user, member.online);
        }
        if let Some(view) = self.chats.get_mut(&chat) {
            view.members = members;
        }
    }

    pub(super) fn take_presence(&mut self, user: UserId, online: bool) {
        if online {
            self.online.insert(user);
        } else {
            self.online.remove(&user);
        }
    }

    /// Removes a chat.
    pub(super) fn drop_chat(&mut self, chat: ChatId) -> Option<ChatView> {
        if self.open == Some(chat) {
            self.open = None;
        }
        self.chats.remove(&chat)
    }

    /// Opens another chat with its cached messages.
    pub(super) fn switch(&mut self, chat: ChatId) {
        if self.open == Some(chat) || !self.chats.contains_key(&chat) {
            return;
        }
        if let Some(view) = self.open.and_then(|open| self.chats.get_mut(&open)) {
            view.left_at = view.messages.keys().next_back().copied();
            view.shrink(SHUT_MESSAGES_MAX);
        }
        self.open = Some(chat);
        if let Some(view) = self.chats.get_mut(&chat) {
            view.unread = 0;
        }
    }

    /// Opens a chat with its newest messages. Cached ones stay if they overlap; otherwise there
    /// would be a gap. Returns the messages that were not shown yet, ascending.
    pub(super) fn open(
        &mut self,
        chat: Chat,
        messages: Vec<Message>,
        is_whole: bool,
    ) -> Vec<Message> {
        let id = chat.id;
        let is_shown = self.open == Some(id);
        self.take_chat(chat);
        self.switch(id);
        let Some(view) = self.chats.get_mut(&id) else { return Vec::new() };
        let meets = messages.first().is_none_or(|first| view.messages.contains_key(&first.id));
        if !view.is_loaded || !meets {
            view.messages.clear();
            view.bytes = 0;
            view.is_whole = is_whole;
        }
        view.is_loaded = true;
        let left_at = view.left_at;
        let is_news = |message: &Message| {
            let came_meanwhile = !is_shown && Some(message.id) > left_at;
            (view.put(message.clone()) == Taken::New) | came_meanwhile
        };
        messages.into_iter().filter(is_news).collect()
    }

    /// Adds older messages of a chat; returns the new ones, ascending.
    pub(super) fn take_page(
        &mut self,
        chat: ChatId,
        messages: Vec<Message>,
        is_first: bool,
    ) -> Vec<Message> {
        let Some(view) = self.chats.get_mut(&chat) else { return Vec::new() };
        view.is_whole |= is_first;
        messages.into_iter().filter(|message| view.put(message.clone()) == Taken::New).collect()
    }

    /// Applies a live message.
    pub(super) fn take(&mut self, chat: ChatId, message: Message) -> Taken {
        let is_open = self.open == Some(chat);
        let is_mine = message.sender == self.me;
        let Some(view) = self.chats.get_mut(&chat) else { return Taken::Counted };
        if message.created > view.newest {
            view.newest = message.created;
            if !is_open && !is_mine {
                view.unread = view.unread.saturating_add(1);
            }
        }
        if !view.is_loaded {
            return Taken::Counted;
        }
        let oldest = view.messages.keys().next();
        if !view.is_whole && oldest.is_some_and(|&oldest| message.id < oldest) {
            if let Some(quote) = view.quotes.get_mut(&message.id) {
                *quote = message;
            }
            return Taken::Known;
        }
        let taken = view.put(message);
        view.shrink(if is_open { OPEN_MESSAGES_MAX } else { SHUT_MESSAGES_MAX });
        taken
    }

    /// Adds an older message that is quoted by a reply.
    pub(super) fn quote(&mut self, chat: ChatId, message: Message) {
        let Some(view) = self.chats.get_mut(&chat) else { return };
        view.quotes.insert(message.id, message);
        if view.quotes.len() > QUOTES_MAX {
            view.quotes.pop_first();
        }
    }

    /// The quote of a reply in the open chat, in one line without control characters.
    pub(super) fn answered(&self, message: MessageId) -> String {
        match self.open_view().and_then(|view| view.message(message)) {
            Some(found) => {
                let name = harmless(&self.name(found.sender));
                format!("{name}: {}", report::quote(found))
            }
            None => "an earlier message".to_owned(),
        }
    }

    /// Applies a reaction; returns the message if it is cached and that changes it.
    pub(super) fn react(&mut self, change: &ReactionChange) -> Option<&Message> {
        self.chats.get_mut(&change.chat)?.react(change)
    }

    /// The newest cached message of the open chat.
    pub(super) fn newest(&self) -> Option<MessageId> {
        self.open_view()?.messages.keys().next_back().copied()
    }

    /// The nth message from the end of the open chat, of those that match and are not deleted.
    /// Messages of others newer than `as_of` do not count: they came while the line was typed.
    pub(super) fn nth_last(
        &self,
        back: usize,
        as_of: Option<MessageId>,
        fits: impl Fn(&Message) -> bool,
    ) -> Option<&Message> {
        let messages = self.open_view()?.messages.values().rev();
        let was_there = |message: &&Message| {
            message.sender == self.me || as_of.is_none_or(|as_of| message.id <= as_of)
        };
        let found = messages.filter(|message| !message.deleted).filter(was_there);
        found.filter(|message| fits(message)).nth(back.checked_sub(1)?)
    }

    /// A member of the open chat by name.
    pub(super) fn member(&self, name: &str) -> Option<UserId> {
        let key = name_key(name)?;
        let mut users = self.open_view()?.messages.values().map(|message| message.sender);
        let by_message = users.find(|&user| name_key(&self.name(user)).as_ref() == Some(&key));
        by_message.or_else(|| {
            let mut members = self.open_view()?.members.iter();
            members.find(|m| name_key(&m.nickname).as_ref() == Some(&key)).map(|m| m.user)
        })
    }
}
