//! Scheduling of Web Push notifications: from a sent message to a job for a worker thread.
//!
//! A send only notes its chat. Ten seconds later the housekeeping decides for each subscription of
//! each member ([`super::push::decide`]), a slice at a time. A push that is to be sent is stored
//! in the database and in a queue in memory ([`super::push_queue`]). Right before it is passed to
//! a thread the decision is made again, because the member may have read the message meanwhile.
//! Results come back to the housekeeping as well, so pushes are written in turns of their own.
//!
//! Invariant: every message up to `push_decided` in the database was scanned, and its pushes are
//! stored. After a crash, a scan of all chats finds the later messages.

mod deliver;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::limits::{PUSH_CHATS_MAX, PUSH_MESSAGES_SCANNED_MAX, PUSHES_PENDING_MAX};
use crate::metrics::{Kind, Page};
use crate::push::vapid::VapidKey;
use crate::push::{Done, Job};
use crate::service::push::{
    Decision, MENTION_ALL, NOTIFY_ALL, NOTIFY_MENTIONS, PUSH_DELAY_US, Recipient, Sent, decide,
    endpoint_host, fold_text, mention_key, mentions, was_heard,
};
use crate::service::push_queue::{PushKey, PushQueue, Waiting};
use crate::service::{DAY_US, HandlerError, Service};
use crate::store::pushes::{PendingPush, PushMember, PushMessage};
use crate::store::{Store, StoreResult};

/// Members and subscriptions scanned in one slice, approximately.
const MEMBERS_PER_SLICE: u32 = 64;
/// Bytes of texts with an `@` folded in one slice, approximately: a few milliseconds.
const FOLDED_BYTES_PER_SLICE: usize = 32 * 1024;
/// Messages scanned in the time of one member.
const MESSAGES_PER_MEMBER: u32 = 4;
/// Chats scanned in one slice, for new messages and for members.
const CHATS_PER_SLICE: usize = 64;
/// Milliseconds after the start in which nothing is decided, so that clients can reconnect first.
const START_DELAY_MS: u64 = 10_000;
/// Milliseconds after which `push_decided` is written even if the turn writes nothing else.
const NOTE_MS: u64 = 60_000;

/// Outcomes of pushes since the start.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    delivered: u64,
    declined: u64,
    failed: u64,
    gone: u64,
    /// Not sent: the member has read the message or is connected.
    obsolete: u64,
    /// Not delivered within a day.
    expired: u64,
    /// Not queued: the queue was full.
    dropped: u64,
}

/// A chat with messages that were not scanned yet.
#[derive(Clone, Copy, Debug)]
struct Noted {
    /// Creation time of the first of these messages.
    first: ServerTime,
    due_us: i64,
}

/// A chat whose messages and members are scanned, a slice at a time: all members for the newest
/// slice of messages, and then again for older ones, until nobody wants them.
#[derive(Debug)]
struct Deciding {
    chat: ChatId,
    first: ServerTime,
    upto: ServerTime,
    /// The newest message that was not read yet.
    below: ServerTime,
    /// The slice of messages that members are scanned for.
    read: Option<Read>,
    next: Option<UserId>,
    /// Members who were served by a newer slice.
    served: HashSet<UserId>,
    /// Some member may want any older message.
    wants_any: bool,
    /// Some member may want an older message that mentions or answers.
    wants_marked: bool,
}

impl Deciding {
    fn new(chat: ChatId, first: ServerTime, upto: ServerTime) -> Self {
        Self {
            chat,
            first,
            upto,
            below: upto,
            read: None,
            next: None,
            served: HashSet::new(),
            wants_any: true,
            wants_marked: true,
        }
    }
}

/// A slice of messages, each folded once for all members.
#[derive(Debug)]
struct Read {
    messages: Vec<Folded>,
    /// The time up to which older messages go on.
    rest: Option<ServerTime>,
}

/// A message, prepared for decisions about many members.
#[derive(Debug)]
struct Folded {
    id: MessageId,
    sender: UserId,
    answers: Option<UserId>,
    is_deleted: bool,
    /// By [`fold_text`].
    text: String,
    to_all: bool,
}

impl Folded {
    fn new(message: &PushMessage) -> Self {
        let text = fold_text(&message.text);
        Self {
            id: message.id,
            sender: message.sender,
            answers: message.answers,
            is_deleted: message.is_deleted,
            to_all: message.by_admin && mentions(&text, MENTION_ALL),
            text,
        }
    }

    /// Whether it may mention or answer a member.
    fn is_marked(&self) -> bool {
        self.answers.is_some() || !self.text.is_empty()
    }

    fn decide(
        &self,
        member: &PushMember,
        mention: &str,
        heard_ms_ago: Option<u64>,
        now_us: i64,
    ) -> Decision {
        let message = Sent {
            folded: &self.text,
            created_us: self.id.created().micros(),
            is_deleted: self.is_deleted,
            to_all: self.to_all,
        };
        let to = Recipient {
            is_sender: self.sender == member.user,
            mention,
            is_answered: self.answers == Some(member.user),
            notify: member.notify,
            seen_us: member.seen.micros(),
            heard_ms_ago,
        };
        decide(&message, &to, now_us)
    }
}

/// The work that a slice may do or has done.
#[derive(Clone, Copy, Debug)]
struct Work {
    members: u32,
    folded_bytes: usize,
}

impl Work {
    /// What is left; `None`: nothing.
    fn minus(self, done: Self) -> Option<Self> {
        let members = self.members.checked_sub(done.members).filter(|left| *left > 0)?;
        let folded_bytes =
            self.folded_bytes.checked_sub(done.folded_bytes).filter(|left| *left > 0)?;
        Some(Self { members, folded_bytes })
    }
}

/// A scan of all chats for messages after a time.
#[derive(Clone, Copy, Debug)]
struct Scan {
    since: ServerTime,
    next: Option<ChatId>,
}

/// The state of pushes.
pub(super) struct Pushing {
    /// The server's key pair; `None` when pushes are off.
    key: Option<Arc<VapidKey>>,
    /// The public key for clients, base64url.
    public_key: String,
    has_subscriptions: bool,
    /// Chats with messages that were not scanned yet, and when each is due.
    noted: HashMap<ChatId, Noted>,
    noted_by_due: BTreeSet<(i64, ChatId)>,
    deciding: Option<Deciding>,
    scan: Option<Scan>,
    /// The queue has to be read from the database again.
    reload: bool,
    queue: PushQueue,
    /// Jobs for the worker threads.
    jobs: VecDeque<Job>,
    /// Results of the worker threads that were not processed yet.
    done: VecDeque<Done>,
    /// `push_decided` as it stands in the database.
    decided: ServerTime,
    /// Messages were sent or scanned since `decided` was written.
    is_unnoted: bool,
    noted_ms: u64,
    started_ms: Option<u64>,
    counts: Counts,
    /// The last push failed; further failures are not logged until one is delivered.
    is_failing: bool,
}

impl Pushing {
    /// Restores the state from the database. Generates the key at the first start with pushes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) fn start(store: &mut Store<'_>, is_on: bool) -> Result<Self, String> {
        let key = if is_on { load_key(store) } else { None };
        let describe = |error: crate::store::StoreError| error.to_string();
        let has_subscriptions = key.is_some() && store.count_subscriptions().map_err(describe)? > 0;
        let now = store.server_time().map_err(describe)?;
        // Without a stored time there was no subscription yet, so older messages need no push.
        let decided = store.push_decided().map_err(describe)?.unwrap_or(now);
        let day_ago = ServerTime::new(now.micros() - DAY_US).unwrap_or_default();
        let scan = Scan { since: decided.max(day_ago), next: None };
        Ok(Self {
            public_key: key.as_ref().map(|key| key.public()).unwrap_or_default(),
            key,
            has_subscriptions,
            noted: HashMap::new(),
            noted_by_due: BTreeSet::new(),
            deciding: None,
            scan: has_subscriptions.then_some(scan),
            reload: has_subscriptions,
            queue: PushQueue::default(),
            jobs: VecDeque::new(),
            done: VecDeque::new(),
            decided,
            is_unnoted: has_subscriptions,
            noted_ms: 0,
            started_ms: None,
            counts: Counts::default(),
            is_failing: false,
        })
    }

    /// Whether clients may subscribe.
    pub(super) fn is_on(&self) -> bool {
        self.key.is_some()
    }

    /// The server's public key; empty when pushes are off.
    pub(super) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Notes that a client has subscribed.
    pub(super) fn note_subscription(&mut self, now: ServerTime) {
        if !std::mem::replace(&mut self.has_subscriptions, true) {
            // Messages before the first subscription need no push.
            self.decided = now;
            self.is_unnoted = true;
        }
    }

    /// Notes that a message was sent: its chat is scanned after the delay.
    pub(super) fn note_sent(&mut self, chat: ChatId, created: ServerTime) {
        if !self.has_subscriptions || self.noted.contains_key(&chat) {
            return;
        }
        self.is_unnoted = true;
        if self.noted.len() >= PUSH_CHATS_MAX {
            // Too many chats are noted: a scan of all chats finds this one. A scan in progress
            // starts again, since it may have passed it.
            let since = created.previous().min(self.scan.map_or(created, |scan| scan.since));
            self.scan = Some(Scan { since, next: None });
            return;
        }
        self.note(chat, created, 0);
    }

    /// Schedules the scan of a chat: ten seconds after `first`, and not before `not_before_us`.
    fn note(&mut self, chat: ChatId, first: ServerTime, not_before_us: i64) {
        self.forget(chat);
        let due_us = first.micros().saturating_add(PUSH_DELAY_US).max(not_before_us);
        self.noted.insert(chat, Noted { first, due_us });
        self.noted_by_due.insert((due_us, chat));
    }

    /// Starts again from the database after a turn was undone with the decisions made in it.
    pub(super) fn start_again(&mut self) {
        if !self.has_subscriptions {
            return;
        }
        self.reload = true;
        self.deciding = None;
        let since = self.decided.min(self.scan.map_or(self.decided, |scan| scan.since));
        self.scan = Some(Scan { since, next: None });
    }

    /// The time up to which all messages were scanned.
    fn decided_upto(&self, last: ServerTime) -> ServerTime {
        if self.scan.is_some() {
            return self.decided;
        }
        self.noted.values().map(|noted| noted.first.previous()).min().unwrap_or(last)
    }

    fn forget(&mut self, chat: ChatId) {
        if let Some(noted) = self.noted.remove(&chat) {
            self.noted_by_due.remove(&(noted.due_us, chat));
        }
    }
}

/// Loads the server's key pair, or generates it.
///
/// On failure pushes are off until the next start, and the rest of the server works.
fn load_key(store: &mut Store<'_>) -> Option<Arc<VapidKey>> {
    let loaded = load_or_make_key(store);
    if let Err(error) = &loaded {
        log::error!("there are no pushes until the next start: {error}");
        store.roll_back();
    }
    loaded.ok().map(Arc::new)
}

fn load_or_make_key(store: &mut Store<'_>) -> Result<VapidKey, String> {
    let stored = match store.push_key().map_err(|e| e.to_string())? {
        Some(stored) => stored,
        None => {
            let made = VapidKey::generate().map_err(|e| e.to_string())?;
            let now = store.server_time().map_err(|e| e.to_string())?;
            store.add_push_key(&made, now).map_err(|e| e.to_string())?;
            // At once: where it cannot be stored, as on a full disk, the server starts without it.
            store.commit().map_err(|e| e.to_string())?;
            made
        }
    };
    VapidKey::from_stored(&stored).map_err(|e| e.to_string())
}

impl Service<'_> {
    /// The server's key for pushes; `None` when pushes are off.
    pub fn push_key(&self) -> Option<Arc<VapidKey>> {
        self.background.pushing.key.clone()
    }

    /// Whether results of worker threads wait to be processed.
    pub fn has_sent_pushes(&self) -> bool {
        !self.background.pushing.done.is_empty()
    }

    /// Takes the next job for a worker thread.
    pub fn pop_push(&mut self) -> Option<Job> {
        self.background.pushing.jobs.pop_front()
    }

    /// Queues the result of a worker thread.
    pub fn push_done(&mut self, done: Done) {
        self.background.pushing.done.push_back(done);
    }

    /// Runs one slice of the work on pushes. True when there is more to do now.
    pub(super) fn push_slice(&mut self) -> Result<bool, HandlerError> {
        self.background.pushing.started_ms.get_or_insert(self.clock.now_ms());
        if !self.background.pushing.has_subscriptions || self.background.pushing.key.is_none() {
            return Ok(false);
        }
        let now = self.clock.now();
        if std::mem::take(&mut self.background.pushing.reload) {
            self.reload_pushes()?;
        }
        let mut more = self.settle_pushes(now)?;
        if self.may_decide_pushes() {
            more |= self.scan_for_pushes()?;
            more |= self.decide_pushes(now)?;
        }
        more |= self.hand_out_pushes(now)?;
        self.note_decided()?;
        Ok(more)
    }

    fn may_decide_pushes(&self) -> bool {
        let started_ms = self.background.pushing.started_ms.unwrap_or(self.clock.now_ms());
        self.clock.now_ms().saturating_sub(started_ms) >= START_DELAY_MS
    }

    /// Reads the queue of pushes from the database.
    fn reload_pushes(&mut self) -> StoreResult<()> {
        self.background.pushing.queue.clear();
        for (pending, endpoint) in self.store.pending_pushes(PUSHES_PENDING_MAX)? {
            let PendingPush { session, chat, message, attempts, due } = pending;
            let (due_us, host) = (due.micros(), endpoint_host(&endpoint));
            let waiting = Waiting { message, attempts, due_us, host };
            self.background.pushing.queue.add((session, chat), waiting);
        }
        Ok(())
    }

    /// Continues the scan of all chats: notes those with messages that were not scanned yet.
    fn scan_for_pushes(&mut self) -> StoreResult<bool> {
        let Some(scan) = self.background.pushing.scan else { return Ok(false) };
        if self.background.pushing.noted.len() + CHATS_PER_SLICE > PUSH_CHATS_MAX {
            // No capacity: chats that are noted already come first.
            return Ok(true);
        }
        let chats = self.store.chat_ids(scan.next, CHATS_PER_SLICE)?;
        for &chat in &chats {
            // It may be earlier than the one that is noted.
            if let Some(first) = self.store.first_message_after(chat, scan.since)? {
                self.background.pushing.note(chat, first, 0);
            }
        }
        let is_over = chats.len() < CHATS_PER_SLICE;
        self.background.pushing.scan = match chats.last() {
            Some(&last) if !is_over => Some(Scan { next: Some(last), ..scan }),
            _ => None,
        };
        Ok(!is_over)
    }

    /// Runs a slice of the decisions about chats that are due.
    fn decide_pushes(&mut self, now: ServerTime) -> StoreResult<bool> {
        let mut left = Work { members: MEMBERS_PER_SLICE, folded_bytes: FOLDED_BYTES_PER_SLICE };
        for _ in 0..CHATS_PER_SLICE {
            let Some(deciding) = self.next_to_decide(now) else { return Ok(false) };
            let done = self.decide_chat(deciding, left.members, now)?;
            match left.minus(done) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        Ok(true)
    }

    /// The chat in progress, or the next one that is due.
    fn next_to_decide(&mut self, now: ServerTime) -> Option<Deciding> {
        let pushing = &mut self.background.pushing;
        if let Some(deciding) = pushing.deciding.take() {
            return Some(deciding);
        }
        let (due_us, chat) = pushing.noted_by_due.first().copied()?;
        let upto = ServerTime::new(now.micros() - PUSH_DELAY_US)?;
        let noted = pushing.noted.get(&chat).filter(|_| due_us <= now.micros())?;
        Some(Deciding::new(chat, noted.first, upto))
    }

    /// Decides about one slice of messages for up to `limit` members of a chat.
    fn decide_chat(
        &mut self,
        mut deciding: Deciding,
        limit: u32,
        now: ServerTime,
    ) -> StoreResult<Work> {
        let mut done = Work { members: 0, folded_bytes: 0 };
        let read = match deciding.read.take() {
            Some(read) => read,
            None => self.read_messages(&mut deciding, &mut done)?,
        };
        if read.messages.is_empty() {
            self.decide_older(deciding, read.rest, now)?;
            return Ok(done);
        }
        let members = self.store.push_members(deciding.chat, deciding.next, limit)?;
        done.members += members.scanned;
        self.decide_members(&mut deciding, &read, &members.found, now)?;
        if members.next.is_some() {
            deciding.next = members.next;
            deciding.read = Some(read);
            self.background.pushing.deciding = Some(deciding);
        } else if deciding.wants_any || deciding.wants_marked {
            self.decide_older(deciding, read.rest, now)?;
        } else {
            self.end_deciding(&deciding, now)?;
        }
        Ok(done)
    }

    /// Reads the next slice of messages, without those that no member wants.
    fn read_messages(&mut self, deciding: &mut Deciding, done: &mut Work) -> StoreResult<Read> {
        let (after, upto) = (deciding.first.previous(), deciding.below);
        let newest = PUSH_MESSAGES_SCANNED_MAX;
        let read = self.store.push_messages(deciding.chat, after, upto, newest)?;
        done.members += read.found.len() as u32 / MESSAGES_PER_MEMBER;
        done.folded_bytes += read.marked_bytes;
        let mut messages: Vec<_> = read.found.iter().map(Folded::new).collect();
        if !deciding.wants_any {
            messages.retain(Folded::is_marked);
        }
        if !messages.is_empty() {
            (deciding.wants_any, deciding.wants_marked) = (false, false);
        }
        Ok(Read { messages, rest: read.rest })
    }

    /// Goes on with the messages up to `rest`, if there are any.
    fn decide_older(
        &mut self,
        mut deciding: Deciding,
        rest: Option<ServerTime>,
        now: ServerTime,
    ) -> StoreResult<()> {
        let Some(rest) = rest.filter(|rest| *rest >= deciding.first) else {
            return self.end_deciding(&deciding, now);
        };
        (deciding.below, deciding.next) = (rest, None);
        self.background.pushing.deciding = Some(deciding);
        Ok(())
    }

    /// Decides about a slice of messages for these members: once for all sessions of a member.
    fn decide_members(
        &mut self,
        deciding: &mut Deciding,
        read: &Read,
        members: &[PushMember],
        now: ServerTime,
    ) -> StoreResult<()> {
        for sessions in members.chunk_by(|one, other| one.user == other.user) {
            let Some(member) = sessions.first() else { continue };
            if deciding.served.contains(&member.user) {
                continue;
            }
            let mention = mention_key(&member.nickname);
            let is_due = |message: &&Folded| {
                message.decide(member, &mention, None, now.micros()) == Decision::Push
            };
            if let Some(message) = read.messages.iter().find(is_due) {
                if read.rest.is_some() {
                    deciding.served.insert(member.user);
                }
                for session in sessions {
                    if !was_heard(self.heard_ms_ago(session)) {
                        let key = (session.session, deciding.chat);
                        self.add_push(key, message.id, &session.endpoint, now)?;
                    }
                }
            } else if read.rest.is_some_and(|rest| rest > member.seen) {
                deciding.wants_any |= member.notify == NOTIFY_ALL;
                deciding.wants_marked |= member.notify == NOTIFY_MENTIONS;
            }
        }
        Ok(())
    }

    /// Ends the scan of a chat. Messages that came later are scanned ten seconds from now, so a
    /// busy chat causes at most one push per member in ten seconds.
    fn end_deciding(&mut self, deciding: &Deciding, now: ServerTime) -> StoreResult<()> {
        let Deciding { chat, first, upto, .. } = *deciding;
        if self.background.pushing.noted.get(&chat).is_some_and(|noted| noted.first < first) {
            // A scan of all chats has found earlier messages meanwhile.
            return Ok(());
        }
        self.background.pushing.forget(chat);
        if let Some(first) = self.store.first_message_after(chat, upto)? {
            self.background.pushing.note(chat, first, now.micros().saturating_add(PUSH_DELAY_US));
        }
        Ok(())
    }

    /// Milliseconds since the session's connection was heard; `None`: not connected.
    fn heard_ms_ago(&self, member: &PushMember) -> Option<u64> {
        let conn = self.conn_of_session(member.user, member.session)?;
        let heard_ms = self.presence.peers.get(conn)?.state.since_ms;
        Some(self.clock.now_ms().saturating_sub(heard_ms))
    }

    fn add_push(
        &mut self,
        key: PushKey,
        message: MessageId,
        endpoint: &str,
        now: ServerTime,
    ) -> StoreResult<()> {
        let (host, due_us) = (endpoint_host(endpoint), now.micros());
        let waiting = Waiting { message, attempts: 0, due_us, host };
        if !self.background.pushing.queue.add(key, waiting) {
            self.background.pushing.counts.dropped += 1;
            return Ok(());
        }
        let (session, chat) = key;
        self.store.add_push(&PendingPush { session, chat, message, attempts: 0, due: now })
    }

    /// Writes `push_decided` when the turn writes anyway, or once a minute.
    fn note_decided(&mut self) -> StoreResult<()> {
        let upto = self.background.pushing.decided_upto(self.clock.last());
        let is_due =
            self.clock.now_ms().saturating_sub(self.background.pushing.noted_ms) >= NOTE_MS;
        let is_more = self.background.pushing.is_unnoted && upto > self.background.pushing.decided;
        if is_more && (is_due || self.store.has_written()) {
            self.background.pushing.noted_ms = self.clock.now_ms();
            self.background.pushing.is_unnoted = !self.background.pushing.noted.is_empty();
            self.store.set_push_decided(upto)?;
            self.background.pushing.decided = upto;
        }
        Ok(())
    }

    /// Writes `push_decided` at shutdown.
    pub(super) fn finish_pushing(&mut self) -> StoreResult<()> {
        let upto = self.background.pushing.decided_upto(self.clock.last());
        if self.background.pushing.has_subscriptions && upto != self.background.pushing.decided {
            self.store.set_push_decided(upto)?;
        }
        Ok(())
    }

    /// Writes the metrics of pushes.
    pub(super) fn describe_pushing(&self, page: &mut Page) {
        let Pushing { counts, queue, .. } = &self.background.pushing;
        page.begin("push_sent_total", Kind::Counter, "Pushes sent, by outcome.");
        for (outcome, count) in [
            ("delivered", counts.delivered),
            ("declined", counts.declined),
            ("failed", counts.failed),
            ("gone", counts.gone),
        ] {
            page.sample("push_sent_total", Some(("outcome", outcome)), count);
        }
        page.begin("push_dropped_total", Kind::Counter, "Pushes not sent, by reason.");
        for (why, count) in [
            ("obsolete", counts.obsolete),
            ("expired", counts.expired),
            ("queue_full", counts.dropped),
        ] {
            page.sample("push_dropped_total", Some(("why", why)), count);
        }
        page.gauge("push_pending", "Pushes queued.", queue.len());
        page.gauge("push_under_way", "Pushes being sent.", queue.under_way());
        page.gauge(
            "push_chats_pending",
            "Chats with messages that were not scanned for pushes yet.",
            self.background.pushing.noted.len(),
        );
    }
}
