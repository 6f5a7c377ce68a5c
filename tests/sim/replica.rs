//! A client's replica of its chats, kept up to date as the protocol recommends: a cursor and live
//! notifications; after each start the list of chats, unknown chats from time zero, and changes
//! since the cursor.
//!
//! At rest it must equal the model: a client that was cut off at any point has missed nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Model;
use crate::wire::{
    Body, CHAT_GONE, CHAT_NOTIFY, Check, Extras, Frame, MSG_NOTIFY, Message, REACTION_NOTIFY,
};

const FLAG_MEMBER: u8 = 2;

/// What a request is for, as far as the replica is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asking {
    Other,
    MyChats,
    /// Messages of a chat: those up to the cursor, at a start; or all of them.
    Older(u32),
    Whole(u32),
    Updates,
    Send {
        chat: u32,
        content: String,
        extras: Extras,
    },
    /// An edit; without content, a deletion.
    Edit {
        chat: u32,
        id: i64,
        content: Option<String>,
    },
    React {
        chat: u32,
        id: i64,
        on: bool,
        emoji: String,
    },
    Enter(Option<u32>),
    Leave(u32),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Nothing is known since the session was attached.
    Begin,
    /// The list of chats was requested.
    Listing,
    /// These chats are requested one by one, then the updates.
    Reading {
        unknown: Vec<u32>,
        listed: BTreeSet<u32>,
    },
    Updating {
        listed: BTreeSet<u32>,
    },
    /// Everything is known; notifications continue from here.
    Live,
}

/// The next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    MyChats,
    Range { chat: u32, to: Option<i64> },
    Updates { from: i64 },
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// The client speaks 1.1.
    is_11: bool,
    user: Option<u32>,
    /// Complete for the known chats up to this time.
    cursor: i64,
    known: BTreeSet<u32>,
    /// Chats that appeared while live and were not read yet.
    wanted: BTreeSet<u32>,
    messages: BTreeMap<u32, BTreeMap<i64, Message>>,
    pub(crate) step: Step,
    is_asking: bool,
    /// Number of the start; answers to requests of earlier ones are ignored.
    pub(crate) start: u64,
}

impl Replica {
    pub(crate) fn new(is_11: bool) -> Self {
        Self {
            is_11,
            user: None,
            cursor: 0,
            known: BTreeSet::new(),
            wanted: BTreeSet::new(),
            messages: BTreeMap::new(),
            step: Step::Begin,
            is_asking: false,
            start: 0,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.step == Step::Live && self.wanted.is_empty()
    }

    /// A session of this user was attached; the replica of another user is dropped.
    pub(crate) fn attached(&mut self, user: u32) {
        if self.user != Some(user) {
            *self = Self { user: Some(user), start: self.start, ..Self::new(self.is_11) };
        }
        self.detached();
    }

    /// Notifications stop, and answers do not arrive. A chat that was being read completely becomes
    /// unknown again.
    pub(crate) fn detached(&mut self) {
        self.step = Step::Begin;
        self.is_asking = false;
        self.wanted.clear();
        self.start += 1;
    }

    /// The next request, if none is unanswered.
    pub(crate) fn next(&mut self) -> Next {
        if self.is_asking {
            return Next::Nothing;
        }
        self.is_asking = true;
        match &mut self.step {
            Step::Begin => {
                self.step = Step::Listing;
                Next::MyChats
            }
            Step::Reading { unknown, listed } => match unknown.pop() {
                Some(chat) => Next::Range { chat, to: Some(self.cursor) },
                None => {
                    self.step = Step::Updating { listed: std::mem::take(listed) };
                    Next::Updates { from: self.cursor + 1 }
                }
            },
            Step::Live if !self.wanted.is_empty() => {
                let chat = self.wanted.pop_first().unwrap_or_default();
                Next::Range { chat, to: None }
            }
            Step::Listing | Step::Updating { .. } | Step::Live => {
                self.is_asking = false;
                Next::Nothing
            }
        }
    }

    /// What an answer may still be used for.
    pub(crate) fn purpose<'a>(&self, asking: &'a Asking, start: u64) -> &'a Asking {
        match asking {
            Asking::MyChats | Asking::Older(_) | Asking::Whole(_) | Asking::Updates
                if start != self.start =>
            {
                &Asking::Other
            }
            _ => asking,
        }
    }

    /// A request was declined; one for the replica itself restarts it.
    pub(crate) fn declined(&mut self, asking: &Asking, code: &str) {
        let is_own = matches!(
            asking,
            Asking::MyChats | Asking::Older(_) | Asking::Whole(_) | Asking::Updates
        );
        if !is_own {
            return;
        }
        self.is_asking = false;
        let is_gone = matches!(code, "not-member" | "no-such-chat");
        if !(is_gone && matches!(asking, Asking::Older(_) | Asking::Whole(_))) {
            self.detached();
        }
    }

    /// Handles a piece of an answer, or a whole one.
    pub(crate) fn piece(&mut self, asking: &Asking, body: &[u8]) -> Check {
        let mut body = Body::spoken(body, self.is_11);
        while !body.is_empty() {
            match asking {
                Asking::Older(chat) | Asking::Whole(chat) => {
                    let message = body.message()?;
                    self.keep(*chat, message);
                }
                Asking::Updates => {
                    let (chat, message) = (body.u32()?, body.message()?);
                    // Only the complete answer moves the cursor; see `accepted`.
                    self.keep(chat, message);
                }
                Asking::MyChats => {
                    let (chat, _, flags, _) = (body.u32()?, body.u8()?, body.u8()?, body.u32()?);
                    let _ = (body.i64()?, body.i64()?, body.u32()?, body.str()?, body.str()?);
                    if self.is_11 {
                        body.u8()?;
                    }
                    if let Step::Listing = self.step {
                        let listed = BTreeSet::new();
                        self.step = Step::Reading { unknown: Vec::new(), listed };
                    }
                    if let Step::Reading { listed, .. } = &mut self.step
                        && flags & FLAG_MEMBER != 0
                    {
                        listed.insert(chat);
                    }
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Handles the end of an answer. `newest`: the greatest `updated` in it.
    pub(crate) fn accepted(&mut self, asking: &Asking, body: &[u8], newest: i64) -> Check {
        let mut rest = Body::of(body);
        match asking {
            Asking::MyChats => {
                self.is_asking = false;
                if let Step::Listing = self.step {
                    let listed = BTreeSet::new();
                    self.step = Step::Reading { unknown: Vec::new(), listed };
                }
                if let Step::Reading { unknown, listed } = &mut self.step {
                    // From time zero, the updates contain every chat completely.
                    if self.cursor > 0 {
                        unknown.extend(listed.difference(&self.known));
                    }
                }
            }
            Asking::Older(_) => self.is_asking = false,
            Asking::Whole(chat) => {
                self.is_asking = false;
                self.known.insert(*chat);
            }
            Asking::Updates => {
                self.is_asking = false;
                if let Step::Updating { listed } = std::mem::replace(&mut self.step, Step::Live) {
                    self.cursor = self.cursor.max(newest);
                    self.known = listed;
                }
                let known = &self.known;
                self.messages.retain(|chat, _| known.contains(chat));
            }
            Asking::Send { chat, content, extras } => {
                let (id, created) = (rest.i64()?, rest.i64()?);
                let (sender, content) = (self.user.unwrap_or_default(), content.clone());
                let (updated, status, extras) = (created, 0, extras.clone());
                let message =
                    Message { id, sender, created, updated, status, content, extras, change: None };
                self.keep(*chat, message);
            }
            Asking::Edit { chat, id, content } => {
                self.changed(*chat, *id, rest.i64()?, content.as_deref());
            }
            Asking::React { chat, id, on, emoji } => {
                let (updated, user) = (rest.i64()?, self.user.unwrap_or_default());
                self.reacted(*chat, *id, updated, (user, *on, emoji));
            }
            Asking::Enter(Some(chat)) => self.entered(*chat),
            Asking::Enter(None) => self.entered(rest.u32()?),
            Asking::Leave(chat) => self.gone(*chat),
            Asking::Other => {}
        }
        Ok(())
    }

    /// Handles a notification.
    pub(crate) fn got(&mut self, frame: &Frame) -> Check {
        let mut body = Body::spoken(&frame.body, self.is_11);
        match frame.purpose {
            MSG_NOTIFY => {
                let chat = body.u32()?;
                while !body.is_empty() {
                    let message = body.message()?;
                    if self.step == Step::Live {
                        self.cursor = self.cursor.max(message.updated);
                    }
                    self.keep(chat, message);
                }
            }
            REACTION_NOTIFY => {
                let (chat, id, updated) = (body.u32()?, body.i64()?, body.i64()?);
                let (user, on, emoji) = (body.u32()?, body.u8()? == 1, body.str()?);
                if self.step == Step::Live {
                    self.cursor = self.cursor.max(updated);
                }
                let kept = self.messages.entry(chat).or_default();
                if let Some(message) = kept.get_mut(&id).filter(|old| old.updated < updated) {
                    message.updated = updated;
                    message.extras.react(user, on, emoji);
                }
            }
            CHAT_NOTIFY => self.entered(body.u32()?),
            CHAT_GONE => self.gone(body.u32()?),
            _ => {}
        }
        Ok(())
    }

    fn entered(&mut self, chat: u32) {
        let is_listed = match &self.step {
            Step::Reading { listed, .. } | Step::Updating { listed } => listed.contains(&chat),
            Step::Live => self.known.contains(&chat),
            Step::Begin | Step::Listing => false,
        };
        // Before the list has arrived, the chat may be in it; reading it twice does no harm.
        if !is_listed {
            self.wanted.insert(chat);
        }
    }

    fn gone(&mut self, chat: u32) {
        self.known.remove(&chat);
        self.wanted.remove(&chat);
        self.messages.remove(&chat);
        if let Step::Reading { listed, .. } | Step::Updating { listed } = &mut self.step {
            listed.remove(&chat);
        }
    }

    /// Stores a message unless a newer version is known: a reaction may have been applied to an
    /// older one.
    fn keep(&mut self, chat: u32, message: Message) {
        let kept = self.messages.entry(chat).or_default();
        let is_newer = kept.get(&message.id).is_none_or(|old| old.updated <= message.updated);
        if is_newer {
            kept.insert(message.id, message);
        }
    }

    /// This client has edited or (without content) deleted a message. If its earlier version may be
    /// unknown, the message is dropped: the changes since the cursor contain it.
    fn changed(&mut self, chat: u32, id: i64, updated: i64, content: Option<&str>) {
        let is_known = self.step == Step::Live && self.known.contains(&chat);
        let kept = self.messages.entry(chat).or_default();
        if !is_known {
            kept.remove(&id);
        } else if let Some(message) = kept.get_mut(&id).filter(|old| old.updated < updated) {
            message.updated = updated;
            message.status |= if content.is_none() { 2 } else { 1 };
            let lines = message.content.clone();
            message.content = content.unwrap_or_default().to_owned();
            if content.is_none() {
                message.extras = Extras::default();
            } else if !self.is_11 {
                // The lines that stand for files follow the text.
                let at = lines.find("[file ");
                let lines = at.and_then(|at| lines.get(at..)).unwrap_or_default();
                if !lines.is_empty() && !message.content.is_empty() {
                    message.content.push('\n');
                }
                message.content.push_str(lines);
            }
        }
    }

    /// This client has added or removed a reaction. As in [`Self::changed`], a message that may be
    /// outdated is dropped.
    fn reacted(&mut self, chat: u32, id: i64, updated: i64, what: (u32, bool, &str)) {
        let is_known = self.step == Step::Live && self.known.contains(&chat);
        let kept = self.messages.entry(chat).or_default();
        if !is_known {
            // Otherwise nothing changed, or the changes since the cursor contain it.
            if updated > self.cursor {
                kept.remove(&id);
            }
        } else if let Some(message) = kept.get_mut(&id).filter(|old| old.updated < updated) {
            message.updated = updated;
            message.extras.react(what.0, what.1, what.2);
        }
    }

    /// Compares the replica with the model.
    pub(crate) fn compare(&self, model: &Model) -> Check {
        let user = self.user.ok_or("a copy of nobody's")?;
        let mine: BTreeSet<u32> = model.chats_of(user).into_iter().collect();
        if mine != self.known {
            return Err(format!("the copy knows {:?}, and user {user} is in {mine:?}", self.known));
        }
        for chat in mine {
            let nothing = BTreeMap::new();
            let kept = self.messages.get(&chat).unwrap_or(&nothing);
            let there = &model.chats[&chat].messages;
            for (id, message) in there {
                let mut wanted = message.wire_for(*id, self.is_11);
                let got = kept.get(id);
                if !self.is_11 && got.is_some_and(|got| got.updated < wanted.updated) {
                    // Reactions move `updated`, and clients on 1.0 are not notified of them.
                    wanted.updated = got.map_or(0, |got| got.updated);
                }
                if got != Some(&wanted) {
                    return Err(format!("chat {chat}: the copy has {got:?} for {wanted:?}"));
                }
            }
            if let Some((id, message)) = kept.iter().find(|(id, _)| !there.contains_key(*id)) {
                return Err(format!("chat {chat}: the copy has {id} too much: {message:?}"));
            }
        }
        Ok(())
    }
}
