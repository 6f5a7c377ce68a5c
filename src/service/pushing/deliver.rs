//! Delivery of pushes: from the queue to the worker threads, and their results back.

use crate::ids::{ChatId, MessageId, ServerTime};
use crate::limits::PUSH_THREADS;
use crate::push::{Job, Outcome, Urgency};
use crate::service::push::{Decision, NOTIFY_MENTIONS, endpoint_host, mention_key};
use crate::service::push_queue::{PushKey, UnderWay, Waiting, retry_delay_us};
use crate::service::push_text::{Notice, text};
use crate::service::pushing::{FOLDED_BYTES_PER_SLICE, Folded};
use crate::service::{DAY_US, Service};
use crate::store::StoreResult;
use crate::store::pushes::{PushContext, PushMember};
use crate::wire::extras::{Extras, put_file_lines};

/// Pushes taken from the queue in one slice, at most. A push that is dropped costs one read.
const PUSHES_PER_SLICE: usize = 32;
/// Chats of a user scanned for the number on the app's icon, at most.
const BADGE_CHATS_MAX: u32 = 200;
/// Seconds for which a push service keeps a push.
const TTL_S: u32 = 24 * 3600;

impl Service<'_> {
    /// Passes pushes that are due to idle threads. True when more may be due.
    pub(super) fn hand_out_pushes(&mut self, now: ServerTime) -> StoreResult<bool> {
        let mut folded_bytes = 0;
        for _ in 0..PUSHES_PER_SLICE {
            if folded_bytes >= FOLDED_BYTES_PER_SLICE {
                return Ok(true);
            }
            if self.background.pushing.queue.under_way() >= PUSH_THREADS {
                return Ok(false);
            }
            let Some((key, waiting)) = self.background.pushing.queue.next(now.micros()) else {
                return Ok(false);
            };
            folded_bytes += self.hand_out_push(key, waiting, now)?;
        }
        Ok(true)
    }

    /// Returns how many bytes of text were folded.
    fn hand_out_push(
        &mut self,
        key: PushKey,
        push: Waiting,
        now: ServerTime,
    ) -> StoreResult<usize> {
        let (session, chat) = key;
        let is_late = push.attempts > 0 && now.micros() > last_attempt_us(push.message);
        let context = self.store.push_context(session, chat, push.message)?;
        let folded = context.as_ref().map(|context| Folded::new(&context.message));
        let folded_bytes = folded.as_ref().map_or(0, |folded| folded.text.len());
        let found = context.zip(folded).filter(|(context, message)| {
            let (member, heard_ms_ago) = (&context.member, self.heard_ms_ago(&context.member));
            let mention = mention_key(&member.nickname);
            let decision = message.decide(member, &mention, heard_ms_ago, now.micros());
            !is_late && decision == Decision::Push
        });
        let Some((context, message)) = found else {
            let counts = &mut self.background.pushing.counts;
            *(if is_late { &mut counts.expired } else { &mut counts.obsolete }) += 1;
            self.store.remove_push(session, chat, push.message)?;
            return Ok(folded_bytes);
        };
        let endpoint = context.subscription.endpoint.clone();
        // The session may have subscribed anew, with an endpoint at another host.
        let push = Waiting { host: endpoint_host(&endpoint), ..push };
        let mut job = self.push_job(chat, context, &message)?;
        job.id = self.background.pushing.queue.begin(key, push, endpoint);
        self.background.pushing.jobs.push_back(job);
        Ok(folded_bytes)
    }

    fn push_job(
        &mut self,
        chat: ChatId,
        context: PushContext,
        folded: &Folded,
    ) -> StoreResult<Job> {
        let PushContext { subscription, member, message, sender_name, chat_title, row_status } =
            context;
        let mut files = Vec::new();
        if message.text.is_empty() {
            let mut extras = Vec::new();
            self.store.put_extras(chat, message.id, row_status, &mut extras)?;
            put_file_lines(&mut files, Extras::trusted(&extras), false);
        }
        let notice = Notice {
            chat,
            chat_title: chat_title.as_deref(),
            sender: &sender_name,
            text: std::str::from_utf8(&files)
                .ok()
                .filter(|f| !f.is_empty())
                .unwrap_or(&message.text),
            new_chats: self.store.count_new_chats(member.user, BADGE_CHATS_MAX)?,
        };
        let is_personal = chat_title.is_none() || concerns(folded, &member);
        let site = self.config.push_site.as_deref();
        Ok(Job {
            id: 0,
            text: text(&notice, self.config.push_content, site),
            topic: topic(&subscription.auth, chat),
            endpoint: subscription.endpoint,
            p256dh: subscription.p256dh,
            auth: subscription.auth,
            ttl_s: TTL_S,
            urgency: if is_personal { Urgency::High } else { Urgency::Normal },
            now_s: self.clock.wall().micros().unsigned_abs() / 1_000_000,
        })
    }

    /// Processes the results of the worker threads. True when more may wait.
    pub(super) fn settle_pushes(&mut self, now: ServerTime) -> StoreResult<bool> {
        for _ in 0..PUSHES_PER_SLICE {
            let Some(done) = self.background.pushing.done.pop_front() else { return Ok(false) };
            let has_answered =
                !matches!(done.outcome, Outcome::Failed { is_unreachable: true, .. });
            let ended = self.background.pushing.queue.end(done.id, has_answered, now.micros());
            if let Some(ended) = ended {
                self.settle_push(ended, done.outcome, now)?;
            }
        }
        Ok(true)
    }

    fn settle_push(
        &mut self,
        push: UnderWay,
        outcome: Outcome,
        now: ServerTime,
    ) -> StoreResult<()> {
        let (session, chat) = push.key;
        let host = endpoint_host(&push.endpoint);
        let counts = &mut self.background.pushing.counts;
        match outcome {
            Outcome::Delivered { .. } => {
                counts.delivered += 1;
                if std::mem::take(&mut self.background.pushing.is_failing) {
                    log::info!("pushes are delivered again");
                }
                self.store.remove_push(session, chat, push.message)
            }
            Outcome::Gone { status } => {
                counts.gone += 1;
                log::debug!("a subscription at {host} is over ({status})");
                if !self.store.end_subscription(session, &push.endpoint)? {
                    // The session may have another endpoint now, which gets this push.
                    let attempts = push.attempts;
                    self.background.pushing.queue.retry(push, attempts, now.micros());
                    return Ok(());
                }
                self.store.remove_push(session, chat, push.message)
            }
            Outcome::Declined { status, retry_after_s, excerpt } => {
                counts.declined += 1;
                log::warn!("{host} declined a push ({status} {excerpt}); it is tried again");
                self.delay_push(push, retry_after_s, now)
            }
            Outcome::Impossible(why) => {
                counts.failed += 1;
                log::debug!("a push to {host} cannot be sent: {why}");
                self.store.remove_push(session, chat, push.message)
            }
            Outcome::Failed { why, .. } => {
                counts.failed += 1;
                if !std::mem::replace(&mut self.background.pushing.is_failing, true) {
                    log::warn!("a push to {host} failed: {why}; it is tried again");
                }
                self.delay_push(push, None, now)
            }
        }
    }

    fn delay_push(
        &mut self,
        push: UnderWay,
        retry_after_s: Option<u64>,
        now: ServerTime,
    ) -> StoreResult<()> {
        let (session, chat) = push.key;
        let attempts = push.attempts.saturating_add(1);
        let delay_us = retry_delay_us(attempts, push.key, retry_after_s);
        let due_us = now.micros().saturating_add(delay_us);
        if due_us > last_attempt_us(push.message) {
            self.background.pushing.counts.expired += 1;
            return self.store.remove_push(session, chat, push.message);
        }
        self.store.delay_push(session, chat, attempts, ServerTime::new(due_us).unwrap_or(now))?;
        self.background.pushing.queue.retry(push, attempts, due_us);
        Ok(())
    }
}

/// Whether a message mentions or answers a member: such pushes are urgent.
fn concerns(message: &Folded, member: &PushMember) -> bool {
    let member = PushMember { notify: NOTIFY_MENTIONS, ..member.clone() };
    let mention = mention_key(&member.nickname);
    message.decide(&member, &mention, None, i64::MAX) == Decision::Push
}

/// The time after which a push of a message is not retried, in microseconds of server time.
const fn last_attempt_us(message: MessageId) -> i64 {
    message.created().micros().saturating_add(DAY_US)
}

/// The topic of a push: one for each chat and subscription. It is a keyed hash, so the push service
/// learns neither the chat nor whether two subscriptions are in the same chat.
pub(super) fn topic(auth: &[u8], chat: ChatId) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, auth);
    let tag = ring::hmac::sign(&key, &chat.get().to_be_bytes());
    crate::wire::base64::encode_url(tag.as_ref().get(..24).unwrap_or_default())
}
