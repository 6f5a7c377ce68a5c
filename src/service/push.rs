//! Decides which messages cause a push, to which sessions and when (protocol section 5a).
//!
//! Pure functions. `service::pushing` schedules pushes; `net::push_sender` sends them.

use crate::names;
use crate::service::{Caller, HandlerResult, Service};
use crate::store::subscriptions::Subscription;
use crate::wire::decline::Decline;
use crate::wire::request::PushKeys;

/// Microseconds between a message and its push: a member who reads it meanwhile gets none.
pub const PUSH_DELAY_US: i64 = 10_000_000;

/// Milliseconds: a session whose connection sent something within this time needs no push.
pub const HEARD_WITHIN_MS: u64 = 60_000;

/// Push level of a member, set by SET_CHAT_NOTIFY: every message.
pub const NOTIFY_ALL: u8 = 0;
/// Only messages that mention or answer the member.
pub const NOTIFY_MENTIONS: u8 = 1;
/// Nothing.
pub const NOTIFY_NOTHING: u8 = 2;

/// The message, as far as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The text, normalized as names are; may be empty where it has no `@`.
    pub folded: &'a str,
    /// When it was created, in microseconds of server time.
    pub created_us: i64,
    /// It was deleted meanwhile.
    pub is_deleted: bool,
    /// It mentions `@all`, and the sender is an admin of the chat.
    pub to_all: bool,
}

/// A member and one of their sessions, as far as the decision needs them.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// The member sent the message.
    pub is_sender: bool,
    /// `@` and the present nickname, by [`mention_key`].
    pub mention: &'a str,
    /// The message answers one that the member wrote.
    pub is_answered: bool,
    /// [`NOTIFY_ALL`], [`NOTIFY_MENTIONS`] or [`NOTIFY_NOTHING`].
    pub notify: u8,
    /// The member's read marker, in microseconds of server time.
    pub seen_us: i64,
    /// Milliseconds since the session's connection last sent something; `None`: not connected.
    pub heard_ms_ago: Option<u64>,
}

/// Whether a push of a message goes to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send it now.
    Push,
    /// Decide again at this server time, in microseconds.
    Wait(i64),
    /// Do not send it.
    No,
}

/// Decides about a push at a server time in microseconds.
pub fn decide(message: &Sent<'_>, to: &Recipient<'_>, now_us: i64) -> Decision {
    if to.is_sender || message.is_deleted || to.seen_us >= message.created_us {
        return Decision::No;
    }
    let concerns_them = || to.is_answered || message.to_all || mentions(message.folded, to.mention);
    let wants_it = match to.notify {
        NOTIFY_ALL => true,
        NOTIFY_MENTIONS => concerns_them(),
        _ => false,
    };
    if !wants_it {
        return Decision::No;
    }
    let due_us = message.created_us.saturating_add(PUSH_DELAY_US);
    if now_us < due_us {
        return Decision::Wait(due_us);
    }
    if was_heard(to.heard_ms_ago) { Decision::No } else { Decision::Push }
}

/// Whether a session was heard lately enough to need no push.
pub fn was_heard(ms_ago: Option<u64>) -> bool {
    ms_ago.is_some_and(|ms| ms < HEARD_WITHIN_MS)
}

/// The mention of everybody.
pub const MENTION_ALL: &str = "@all";

/// What mentions a member: `@` and the nickname, normalized as names are.
pub fn mention_key(nickname: &str) -> String {
    format!("@{}", names::text_key(nickname))
}

/// A text as [`mentions`] reads it: normalized as names are, and empty where it has no `@`. This
/// costs 100 times as much as reading the result, so callers do it once for many members.
pub fn fold_text(text: &str) -> String {
    if !text.contains('@') {
        return String::new();
    }
    #[cfg(test)]
    FOLDED_BYTES.set(FOLDED_BYTES.get() + text.len());
    names::text_key(text)
}

#[cfg(test)]
thread_local! {
    /// Bytes of text folded by the tests of this thread.
    pub(super) static FOLDED_BYTES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether a folded text contains a mention. Neither a letter nor a digit may stand right before
/// the `@` or right after the name.
pub fn mentions(text: &str, mention: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(mention).any(|(at, found)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + found.len()..).and_then(|after| after.chars().next());
        !is_word(before) && !is_word(after)
    })
}

/// Longest endpoint, in bytes.
const ENDPOINT_BYTES_MAX: usize = 1024;

/// The host of an endpoint, in lower case.
pub fn endpoint_host(endpoint: &str) -> String {
    let rest = endpoint.strip_prefix("https://").unwrap_or(endpoint);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase()
}

/// Whether an endpoint is https on port 443 of an allowed host. An entry with a leading dot stands
/// for all hosts below it.
pub fn is_endpoint(endpoint: &str, hosts: &[String]) -> bool {
    let Some(rest) = endpoint.strip_prefix("https://") else { return false };
    let is_plain = endpoint.len() <= ENDPOINT_BYTES_MAX
        && endpoint.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#');
    let path = rest.get(rest.find(['/', '?']).unwrap_or(rest.len())..).unwrap_or_default();
    let host = endpoint_host(endpoint);
    let is_allowed = hosts.iter().any(|allowed| match allowed.strip_prefix('.') {
        Some(parent) => host
            .strip_suffix(parent)
            .and_then(|below| below.strip_suffix('.'))
            .is_some_and(|below| !below.is_empty() && below.bytes().all(is_host_byte)),
        None => host == *allowed,
    });
    is_plain && path.starts_with('/') && is_allowed
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

impl Service<'_> {
    pub(super) fn subscribe_push(
        &mut self,
        caller: Caller,
        endpoint: &str,
        keys: Option<PushKeys<'_>>,
    ) -> HandlerResult {
        let Some(keys) = keys else {
            if self.store.subscription(caller.session)?.is_some() {
                self.may_change(caller)?;
                self.store.remove_subscription(caller.session)?;
            }
            self.accept(caller, |_| {});
            return Ok(());
        };
        if !self.background.pushing.is_on() {
            return Err(Decline::PushOff.into());
        }
        /// First byte of an uncompressed point of the curve.
        const UNCOMPRESSED: u8 = 4;
        if !is_endpoint(endpoint, &self.config.push_hosts) || keys.p256dh[0] != UNCOMPRESSED {
            return Err(Decline::BadEndpoint.into());
        }
        let new = Subscription {
            session: caller.session,
            endpoint: endpoint.to_owned(),
            p256dh: keys.p256dh.to_vec(),
            auth: keys.auth.to_vec(),
        };
        if self.store.subscription(caller.session)?.is_none_or(|old| old != new) {
            self.may_change(caller)?;
            let now = self.clock.next();
            self.store.set_subscription(&new, now)?;
            self.background.pushing.note_subscription(now);
        }
        self.accept(caller, |_| {});
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Server time at which the message of the table is created.
    const SENT: i64 = 1_000_000_000;
    /// Server time of the decision, unless a row of the table has another.
    const DUE: i64 = SENT + PUSH_DELAY_US;

    const MESSAGE: Sent<'_> =
        Sent { folded: "", created_us: SENT, is_deleted: false, to_all: false };
    const MEMBER: Recipient<'_> = Recipient {
        is_sender: false,
        mention: "@anna",
        is_answered: false,
        notify: NOTIFY_ALL,
        seen_us: 0,
        heard_ms_ago: None,
    };

    fn text(text: &str) -> Sent<'_> {
        Sent { folded: text, ..MESSAGE }
    }

    fn wants(notify: u8) -> Recipient<'static> {
        Recipient { notify, ..MEMBER }
    }

    #[test]
    fn who_gets_a_push_and_when() {
        use Decision::{No, Push, Wait};
        let all = Sent { to_all: true, ..self::text("@all") };
        let answered = |notify| Recipient { is_answered: true, ..wants(notify) };
        let seen = |seen_us| Recipient { seen_us, ..MEMBER };
        let heard = |ms| Recipient { heard_ms_ago: Some(ms), ..MEMBER };
        let sender = Recipient { is_sender: true, ..MEMBER };
        let gone = Sent { is_deleted: true, ..MESSAGE };
        let table = [
            ("everything, away", MESSAGE, MEMBER, DUE, Push),
            ("the sender", MESSAGE, sender, DUE, No),
            ("the sender, mentioning themselves", text("@anna"), sender, DUE, No),
            ("right after it was sent", MESSAGE, MEMBER, SENT, Wait(DUE)),
            ("a moment before ten seconds", MESSAGE, MEMBER, DUE - 1, Wait(DUE)),
            ("long after", MESSAGE, MEMBER, DUE + 3_600_000_000, Push),
            ("read before", MESSAGE, seen(SENT - 1), DUE, Push),
            ("read up to it", MESSAGE, seen(SENT), DUE, No),
            ("read past it", MESSAGE, seen(SENT + 9), DUE, No),
            ("read within ten seconds", MESSAGE, seen(SENT), SENT + 1, No),
            ("deleted meanwhile", gone, MEMBER, DUE, No),
            ("connected and heard just now", MESSAGE, heard(0), DUE, No),
            ("heard within the minute", MESSAGE, heard(59_999), DUE, No),
            ("heard a minute ago", MESSAGE, heard(60_000), DUE, Push),
            ("not yet due, though heard", MESSAGE, heard(0), SENT, Wait(DUE)),
            ("mentions only, none", MESSAGE, wants(NOTIFY_MENTIONS), DUE, No),
            ("mentions only, not even later", MESSAGE, wants(NOTIFY_MENTIONS), SENT, No),
            ("mentions only, mentioned", text("hi @anna"), wants(NOTIFY_MENTIONS), DUE, Push),
            ("mentions only, another", text("hi @annabel"), wants(NOTIFY_MENTIONS), DUE, No),
            ("mentions only, an address", text("x@anna.org"), wants(NOTIFY_MENTIONS), DUE, No),
            ("mentions only, answered", MESSAGE, answered(NOTIFY_MENTIONS), DUE, Push),
            ("mentions only, all by an admin", all, wants(NOTIFY_MENTIONS), DUE, Push),
            ("mentions only, all by a member", text("@all"), wants(NOTIFY_MENTIONS), DUE, No),
            ("nothing, mentioned", text("@anna"), wants(NOTIFY_NOTHING), DUE, No),
            ("nothing, answered", MESSAGE, answered(NOTIFY_NOTHING), DUE, No),
            ("nothing, all by an admin", all, wants(NOTIFY_NOTHING), DUE, No),
        ];
        for (what, message, member, now_us, expected) in table {
            assert_eq!(decide(&message, &member, now_us), expected, "{what}");
        }
    }

    #[test]
    fn a_mention_is_a_whole_name() {
        let mentions = |text, name| mentions(&fold_text(text), &mention_key(name));
        for (text, name) in [
            ("@anna", "Anna"),
            ("hi, @ANNA!", "anna"),
            ("(@anna)", "anna"),
            ("@anna-b", "anna"),
            ("@anna_", "anna"),
            ("@@anna", "anna"),
            ("@annabel @anna", "anna"),
            ("привет @АННА,", "анна"),
            ("@Cafe\u{301}", "café"),
            ("@a.b-c", "a.b-c"),
            ("@ΣΟΦΟΣ", "σοφος"),
        ] {
            assert!(mentions(text, name), "{text:?} mentions {name}");
        }
        for (text, name) in [
            ("anna", "anna"),
            ("@ anna", "anna"),
            ("@annab", "anna"),
            ("@anna1", "anna"),
            ("me@anna", "anna"),
            ("1@anna", "anna"),
            ("ж@anna", "anna"),
            ("@аннаж", "анна"),
            ("", "anna"),
        ] {
            assert!(!mentions(text, name), "{text:?} does not mention {name}");
        }
    }

    #[test]
    fn an_endpoint_is_https_at_a_known_host() {
        let hosts: Vec<_> =
            ["push.example", ".services.example"].iter().map(ToString::to_string).collect();
        for endpoint in [
            "https://push.example/",
            "https://PUSH.example/x?y=z",
            "https://push.example:443/a",
            "https://a.services.example/1",
            "https://a.services.example/upQ1w2E3r4?up=1",
            "https://a.b-c.services.example/1",
        ] {
            assert!(is_endpoint(endpoint, &hosts), "{endpoint}");
        }
        let long = format!("https://push.example/{}", "x".repeat(1024));
        for endpoint in [
            "",
            "push.example",
            "http://push.example/",
            "https://push.example",
            "https://push.example:80/",
            "https://push.example:443:443/",
            "https://push.example.evil.org/",
            "https://x@push.example/",
            "https://evil.org/push.example",
            "https://evil.org#push.example/",
            "https://evil.org\\@push.example/",
            "https://services.example/",
            "https://.services.example/",
            "https://xservices.example/",
            "https://a@b.services.example/",
            "https://127.0.0.1/",
            "https://push.example/a b",
            "https://push.example/\u{e9}",
            &long,
        ] {
            assert!(!is_endpoint(endpoint, &hosts), "{endpoint}");
        }
    }
}
