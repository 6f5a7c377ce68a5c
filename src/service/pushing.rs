//! Pushes between message and push service: which chats are scanned, what waits, what is sent.
//!
//! A send only notes its chat. Ten seconds later the housekeeping decides for each subscription of
//! each member ([`super::push::decide`]), a slice at a time; what is to be sent waits in the
//! database, and in a queue in memory ([`super::push_queue`]). It is decided anew right before a
//! push is handed to a thread, since it may have been read meanwhile. Outcomes come back to the
//! housekeeping, too: all that is written here is written in turns of its own.
//!
//! Invariant: each message up to `push_decided` in the database was scanned, and what is to be
//! sent of it waits there. Later ones are found after a crash by a scan of all chats.

mod deliver;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::limits::{PUSH_CHATS_MAX, PUSH_MESSAGES_SCANNED_MAX, PUSHES_PENDING_MAX};
use crate::metrics::{Kind, Page};
use crate::push::vapid::VapidKey;
use crate::push::{Done, Job};
use crate::service::push::{Decision, PUSH_DELAY_US, Recipient, Sent, decide, endpoint_host};
use crate::service::push_queue::{PushKey, PushQueue, Waiting};
use crate::service::{DAY_US, HandlerError, Service};
use crate::store::pushes::{PendingPush, PushMember, PushMessage};
use crate::store::{Store, StoreResult};

/// Members scanned in one slice.
const MEMBERS_PER_SLICE: u32 = 64;
/// Chats scanned in one slice, for new messages and for members.
const CHATS_PER_SLICE: usize = 64;
/// Nothing is decided for so long after the start: clients come back first.
const START_DELAY_MS: u64 = 10_000;
/// Milliseconds after which it is noted how far messages were scanned, though nothing waits.
const NOTE_MS: u64 = 60_000;

/// What became of pushes since the start.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    delivered: u64,
    declined: u64,
    failed: u64,
    gone: u64,
    /// Read, or heard of in another way, before it was sent.
    obsolete: u64,
    /// Given up after a day.
    expired: u64,
    /// There were too many.
    dropped: u64,
}

/// A chat with messages to look at.
#[derive(Clone, Copy, Debug)]
struct Noted {
    /// The first of them.
    first: ServerTime,
    due_us: i64,
}

/// A chat whose members are scanned, a slice at a time.
#[derive(Clone, Copy, Debug)]
struct Deciding {
    chat: ChatId,
    first: ServerTime,
    upto: ServerTime,
    next: Option<UserId>,
}

/// A look at all chats for messages after a time.
#[derive(Clone, Copy, Debug)]
struct Scan {
    since: ServerTime,
    next: Option<ChatId>,
}

/// The state of pushes.
pub(super) struct Pushing {
    /// `None`: there are no pushes.
    key: Option<Arc<VapidKey>>,
    /// As clients are given it.
    public_key: String,
    has_subscriptions: bool,
    /// Chats with messages to look at, and when each is due.
    noted: HashMap<ChatId, Noted>,
    noted_by_due: BTreeSet<(i64, ChatId)>,
    deciding: Option<Deciding>,
    scan: Option<Scan>,
    /// What waits is to be read from the database again.
    reload: bool,
    queue: PushQueue,
    /// Jobs for the threads, and outcomes of theirs.
    jobs: VecDeque<Job>,
    done: VecDeque<Done>,
    /// As the database has it.
    decided: ServerTime,
    /// More was scanned since.
    is_unnoted: bool,
    noted_ms: u64,
    started_ms: Option<u64>,
    counts: Counts,
    /// The last push got no answer: one line in the log is enough.
    is_failing: bool,
}

impl Pushing {
    /// Goes on where the database stands. Makes the key at the first start with pushes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) fn start(store: &mut Store<'_>, is_on: bool) -> Result<Self, String> {
        let key = if is_on { load_key(store) } else { None };
        let describe = |error: crate::store::StoreError| error.to_string();
        let has_subscriptions = key.is_some() && store.count_subscriptions().map_err(describe)? > 0;
        let now = store.server_time().map_err(describe)?;
        // Before there was a subscription there was nothing to decide.
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

    /// The server's public key; empty: no pushes.
    pub(super) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// A client has subscribed.
    pub(super) fn note_subscription(&mut self, now: ServerTime) {
        if !std::mem::replace(&mut self.has_subscriptions, true) {
            // Nobody is notified of what came before.
            self.decided = now;
            self.is_unnoted = true;
        }
    }

    /// A message was sent.
    pub(super) fn note_sent(&mut self, chat: ChatId, created: ServerTime) {
        if !self.has_subscriptions || self.noted.contains_key(&chat) {
            return;
        }
        self.is_unnoted = true;
        if self.noted.len() >= PUSH_CHATS_MAX {
            // A scan of all chats finds it; one under way may have passed it.
            let since = created.previous().min(self.scan.map_or(created, |scan| scan.since));
            self.scan = Some(Scan { since, next: None });
            return;
        }
        self.note(chat, created, 0);
    }

    /// Has a chat scanned ten seconds after its first new message, and not before another time.
    fn note(&mut self, chat: ChatId, first: ServerTime, not_before_us: i64) {
        self.forget(chat);
        let due_us = first.micros().saturating_add(PUSH_DELAY_US).max(not_before_us);
        self.noted.insert(chat, Noted { first, due_us });
        self.noted_by_due.insert((due_us, chat));
    }

    /// A turn was undone: what was decided in it is not in the database.
    pub(super) fn start_again(&mut self) {
        if !self.has_subscriptions {
            return;
        }
        self.reload = true;
        self.deciding = None;
        let since = self.decided.min(self.scan.map_or(self.decided, |scan| scan.since));
        self.scan = Some(Scan { since, next: None });
    }

    /// All messages up to here were scanned.
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

/// The server's key pair, made when there is none. Without one there are no pushes; everything else
/// goes on.
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
            made
        }
    };
    VapidKey::from_stored(&stored).map_err(|e| e.to_string())
}

fn as_sent(message: &PushMessage) -> Sent<'_> {
    Sent {
        text: &message.text,
        created_us: message.id.created().micros(),
        is_deleted: message.is_deleted,
        by_admin: message.by_admin,
    }
}

impl Service<'_> {
    /// The server's key for pushes; `None`: there are none.
    pub fn push_key(&self) -> Option<Arc<VapidKey>> {
        self.background.pushing.key.clone()
    }

    /// Whether threads have sent pushes whose outcomes nobody has acted on.
    pub fn has_sent_pushes(&self) -> bool {
        !self.background.pushing.done.is_empty()
    }

    /// A push for a thread.
    pub fn pop_push(&mut self) -> Option<Job> {
        self.background.pushing.jobs.pop_front()
    }

    /// A thread has sent a push, or could not.
    pub fn push_done(&mut self, done: Done) {
        self.background.pushing.done.push_back(done);
    }

    /// A slice of what there is to do about pushes. True when there is more to do soon.
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

    /// Reads what waits from the database.
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

    /// Notes the chats that got messages which nobody has scanned.
    fn scan_for_pushes(&mut self) -> StoreResult<bool> {
        let Some(scan) = self.background.pushing.scan else { return Ok(false) };
        if self.background.pushing.noted.len() + CHATS_PER_SLICE > PUSH_CHATS_MAX {
            // Those that are noted come first.
            return Ok(true);
        }
        let chats = self.store.chat_ids(scan.next, CHATS_PER_SLICE)?;
        for &chat in &chats {
            // An earlier message than the one that is noted, perhaps.
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

    /// Decides for some members of chats that are due.
    fn decide_pushes(&mut self, now: ServerTime) -> StoreResult<bool> {
        let mut left = MEMBERS_PER_SLICE;
        for _ in 0..CHATS_PER_SLICE {
            let Some(deciding) = self.next_to_decide(now) else { return Ok(false) };
            left = left.saturating_sub(self.decide_chat(deciding, left, now)?);
            if left == 0 {
                break;
            }
        }
        Ok(true)
    }

    /// The chat under way, or the next that is due.
    fn next_to_decide(&mut self, now: ServerTime) -> Option<Deciding> {
        let pushing = &mut self.background.pushing;
        if let Some(deciding) = pushing.deciding.take() {
            return Some(deciding);
        }
        let (due_us, chat) = pushing.noted_by_due.first().copied()?;
        let upto = ServerTime::new(now.micros() - PUSH_DELAY_US)?;
        let noted = pushing.noted.get(&chat).filter(|_| due_us <= now.micros())?;
        Some(Deciding { chat, first: noted.first, upto, next: None })
    }

    /// Decides for up to `limit` members of a chat; how many were scanned.
    fn decide_chat(&mut self, deciding: Deciding, limit: u32, now: ServerTime) -> StoreResult<u32> {
        let Deciding { chat, first, upto, next } = deciding;
        let newest = PUSH_MESSAGES_SCANNED_MAX;
        let messages = self.store.push_messages(chat, first.previous(), upto, newest)?;
        if messages.is_empty() {
            self.end_deciding(chat, first, upto, now)?;
            return Ok(0);
        }
        let members = self.store.push_members(chat, next, limit)?;
        for member in &members.found {
            let found = messages
                .iter()
                .find(|message| self.decide_push(message, member, now.micros()) == Decision::Push);
            if let Some(message) = found {
                self.add_push((member.session, chat), message.id, &member.endpoint, now)?;
            }
        }
        match members.next {
            Some(_) => {
                let rest = Deciding { next: members.next, ..deciding };
                self.background.pushing.deciding = Some(rest);
            }
            None => self.end_deciding(chat, first, upto, now)?,
        }
        Ok(members.scanned)
    }

    /// All members were scanned. Messages that came later are scanned ten seconds on, so that a
    /// busy chat makes no more pushes than that.
    fn end_deciding(
        &mut self,
        chat: ChatId,
        first: ServerTime,
        upto: ServerTime,
        now: ServerTime,
    ) -> StoreResult<()> {
        if self.background.pushing.noted.get(&chat).is_some_and(|noted| noted.first < first) {
            // A scan has found earlier ones meanwhile.
            return Ok(());
        }
        self.background.pushing.forget(chat);
        if let Some(first) = self.store.first_message_after(chat, upto)? {
            self.background.pushing.note(chat, first, now.micros().saturating_add(PUSH_DELAY_US));
        }
        Ok(())
    }

    fn decide_push(&self, message: &PushMessage, member: &PushMember, now_us: i64) -> Decision {
        let carrier = self.conn_of_session(member.user, member.session);
        let heard_ms =
            carrier.and_then(|conn| self.presence.peers.get(conn)).map(|peer| peer.state.since_ms);
        let to = Recipient {
            is_sender: message.sender == member.user,
            nickname: &member.nickname,
            is_answered: message.answers == Some(member.user),
            notify: member.notify,
            seen_us: member.seen.micros(),
            heard_ms_ago: heard_ms.map(|heard_ms| self.clock.now_ms().saturating_sub(heard_ms)),
        };
        decide(&as_sent(message), &to, now_us)
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

    /// Notes how far messages were scanned, with something else that is written, or once a
    /// minute.
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

    /// The last note of how far messages were scanned.
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
        page.begin("push_sent_total", Kind::Counter, "Pushes sent, by what came of them.");
        for (outcome, count) in [
            ("delivered", counts.delivered),
            ("declined", counts.declined),
            ("failed", counts.failed),
            ("gone", counts.gone),
        ] {
            page.sample("push_sent_total", Some(("outcome", outcome)), count);
        }
        page.begin("push_dropped_total", Kind::Counter, "Pushes not sent, by why.");
        for (why, count) in [
            ("obsolete", counts.obsolete),
            ("expired", counts.expired),
            ("queue_full", counts.dropped),
        ] {
            page.sample("push_dropped_total", Some(("why", why)), count);
        }
        page.gauge("push_pending", "Pushes that wait.", queue.len());
        page.gauge("push_under_way", "Pushes that are being sent.", queue.under_way());
        page.gauge(
            "push_chats_pending",
            "Chats to look at for pushes.",
            self.background.pushing.noted.len(),
        );
    }
}
