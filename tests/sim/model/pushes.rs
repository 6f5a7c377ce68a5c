//! The model of push subscriptions, and of which pushes may be sent.

use vestnik::push::{Job, Urgency};
use vestnik::wire::request::PushKeys;

use super::{Caller, Message, Model, Turn};
use crate::wire::{Check, DELETED};

/// Hosts that pushes may be sent to: one, and all below another.
pub(crate) const HOSTS: [&str; 2] = ["push.example", ".push.test"];
const ENDPOINT_BYTES_MAX: usize = 1024;
/// Microseconds that a member has to read a message.
const DELAY_US: i64 = 10_000_000;
/// Milliseconds: a session that was heard from within this time gets no push.
const HEARD_WITHIN_MS: u64 = 60_000;
/// Push levels of a member.
const MENTIONS: u8 = 1;
const NOTHING: u8 = 2;

/// Where the pushes of a session go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Subscription {
    pub(crate) endpoint: String,
    /// The keys of the browser: its public key and its secret.
    pub(crate) keys: Vec<u8>,
    pub(crate) created: i64,
}

/// Whether an endpoint is https on port 443 of an allowed host.
fn is_allowed(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("https://") else { return false };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\';
    let Some((authority, _)) = rest.split_once('/') else { return false };
    let host = authority.strip_suffix(":443").unwrap_or(authority).to_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let below = host.strip_suffix(HOSTS[1]);
    endpoint.len() <= ENDPOINT_BYTES_MAX
        && endpoint.bytes().all(is_plain)
        && (host == HOSTS[0] || below.is_some_and(|below| below.split('.').all(is_label)))
}

/// Whether a text mentions a name.
fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), format!("@{}", name.to_lowercase()));
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(&name).any(|(at, _)| {
        !is_word(text[..at].chars().last()) && !is_word(text[at + name.len()..].chars().next())
    })
}

/// The beginning of a text, with an ellipsis if it was cut.
fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars - 1).chain(['…']).collect()
}

impl Model {
    /// The key of HELLO stays the same, since clients have subscribed with it.
    pub(super) fn note_push_key(&mut self, key: &str) -> Check {
        if key.is_empty() == self.is_push_on {
            return Err(format!("the key for pushes is {key:?}, on: {}", self.is_push_on));
        }
        if self.is_push_on {
            let known = self.push_key.get_or_insert_with(|| key.to_owned());
            if known != key {
                return Err(format!("the key for pushes was {known}, and is {key}"));
            }
        }
        Ok(())
    }

    pub(super) fn subscribe_push(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        endpoint: &str,
        keys: Option<PushKeys<'_>>,
    ) -> Check {
        let present = self.sessions.get(&me.session).and_then(|session| session.push.clone());
        let new = match keys {
            None => None,
            Some(_) if !self.is_push_on => {
                return self.decline(turn, me.conn, me.task, "push-off");
            }
            Some(keys) if !is_allowed(endpoint) || keys.p256dh[0] != 4 => {
                return self.decline(turn, me.conn, me.task, "bad-endpoint");
            }
            Some(keys) => Some((endpoint, [&keys.p256dh[..], &keys.auth[..]].concat())),
        };
        let is_so_already = match (&present, &new) {
            (None, None) => true,
            (Some(old), Some((endpoint, keys))) => old.endpoint == *endpoint && old.keys == *keys,
            _ => false,
        };
        if !is_so_already && let Some(code) = self.cannot_change(me) {
            return self.decline(turn, me.conn, me.task, code);
        }
        self.accept(turn, me.conn, me.task, &[])?;
        if is_so_already {
            return Ok(());
        }
        let created = turn.after;
        if new.is_some() {
            self.event(turn, created)?;
        }
        self.note(if new.is_some() { "subscribed" } else { "unsubscribed" });
        if let Some(session) = self.sessions.get_mut(&me.session) {
            session.push = new.map(|(endpoint, keys)| {
                let endpoint = endpoint.to_owned();
                Subscription { endpoint, keys, created }
            });
        }
        Ok(())
    }

    /// The sessions that have this endpoint.
    pub(crate) fn sessions_of_endpoint(&self, endpoint: &str) -> Vec<u32> {
        let has_it = |push: &Subscription| push.endpoint == endpoint;
        let sessions = self.sessions.iter();
        let found = sessions.filter(|(_, session)| session.push.as_ref().is_some_and(has_it));
        found.map(|(id, _)| *id).collect()
    }

    /// The server has acted on answers of push services. `there`: the sessions and endpoints in
    /// the database, where it is not sure that this was stored.
    pub(crate) fn settle_gone(&mut self, there: Option<&[(u32, String)]>) {
        for gone in std::mem::take(&mut self.gone) {
            if there.is_some_and(|there| there.contains(&gone)) {
                continue;
            }
            let session = self.sessions.get_mut(&gone.0);
            let ended =
                session.and_then(|session| session.push.take_if(|push| push.endpoint == gone.1));
            if ended.is_some() {
                self.note("a subscription is over");
            }
        }
    }

    /// Checks that a push may be sent at this server time.
    pub(crate) fn pushed(&mut self, job: &Job, now: i64) -> Check {
        let keys = [&job.p256dh[..], &job.auth[..]].concat();
        let is_it = |push: &Subscription| push.endpoint == job.endpoint && push.keys == keys;
        let sessions = self.sessions.iter();
        let mut found = sessions.filter(|(_, session)| session.push.as_ref().is_some_and(is_it));
        let Some((&id, session)) = found.next() else {
            return Err(format!("a push to {}, where nobody has subscribed", job.endpoint));
        };
        let user = session.user;
        let heard = self.conn_of_session(id).and_then(|conn| self.conns.get(&conn));
        if heard.is_some_and(|conn| self.now_ms - conn.heard_ms < HEARD_WITHIN_MS) {
            return Err(format!("a push for session {id}, which is connected and was heard from"));
        }
        let notice: serde_json::Value =
            serde_json::from_str(&job.text).map_err(|e| e.to_string())?;
        let tag = notice["notification"]["tag"].as_str().unwrap_or_default();
        let chat = tag.strip_prefix("chat-").and_then(|chat| chat.parse().ok());
        let chat: u32 = chat.ok_or_else(|| format!("a push without a chat: {}", job.text))?;
        let Some(found) = self.chats.get(&chat).filter(|_| self.is_member(user, chat)) else {
            return Err(format!("a push for user {user} of chat {chat}"));
        };
        let may_be = |(id, message): (&i64, &Message)| {
            let concerns = self.concerns(user, chat, message);
            self.is_worth_a_push(user, chat, (*id, message), now)
                && self.notice(user, chat, (*id, message)) == notice
                && (job.urgency == Urgency::High) == (found.direct.is_some() || concerns)
        };
        if !found.messages.iter().rev().any(may_be) {
            return Err(format!(
                "a push for user {user} of no message in chat {chat}: {}",
                job.text
            ));
        }
        self.note("pushed");
        Ok(())
    }

    /// Whether a message mentions or answers a member.
    fn concerns(&self, user: u32, chat: u32, message: &Message) -> bool {
        let found = &self.chats[&chat];
        let by_admin = found.members.get(&message.sender).is_some_and(|member| member.admin);
        let answered = message.reply.and_then(|id| found.messages.get(&id));
        answered.is_some_and(|answered| answered.sender == user)
            || mentions(&message.content, self.nickname(user))
            || by_admin && mentions(&message.content, "all")
    }

    fn is_worth_a_push(
        &self,
        user: u32,
        chat: u32,
        (id, message): (i64, &Message),
        now: i64,
    ) -> bool {
        let member = &self.chats[&chat].members[&user];
        let wants_it = match member.notify {
            NOTHING => false,
            MENTIONS => self.concerns(user, chat, message),
            _ => true,
        };
        let is_news = message.sender != user && message.status & DELETED == 0 && member.seen < id;
        is_news && wants_it && id + DELAY_US <= now
    }

    /// What a push of a message says.
    fn notice(&self, user: u32, chat: u32, (id, message): (i64, &Message)) -> serde_json::Value {
        let found = &self.chats[&chat];
        let sender = self.nickname(message.sender);
        let text = match message.content.is_empty() {
            true => message.wire_for(id, false).content,
            false => message.content.to_string(),
        };
        let name = if found.title.is_empty() { &found.name } else { &found.title };
        let (title, body) = match found.direct {
            Some(_) => (sender, cut(&text, 200)),
            None => (&name[..], format!("{}: {}", cut(sender, 40), cut(&text, 200))),
        };
        let is_news = |chat: &u32| {
            let found = &self.chats[chat];
            let seen = found.members[&user].seen;
            found.messages.iter().any(|(id, message)| {
                *id > seen && message.sender != user && message.status & DELETED == 0
            })
        };
        let badge = self.chats_of(user).iter().filter(|chat| is_news(chat)).count();
        serde_json::json!({
            "web_push": 8030,
            "notification": {
                "title": cut(title, 100),
                "body": body,
                "navigate": format!("/#chat={chat}"),
                "tag": format!("chat-{chat}"),
                "app_badge": badge,
            },
            "app_badge": badge,
        })
    }
}
