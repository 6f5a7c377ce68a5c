//! What survives a lost connection: the cursor, the catch-up from it, sends that are safe to
//! repeat (protocol sections 3 and 5).

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::event::Event;
use super::link::Link;
use super::{Client, Declined, Error, Message, NewMessage, Sent, answer};
use crate::ids::{ChatId, ServerTime};
use crate::wire::Version;
use crate::wire::codec::Reader;
use crate::wire::extras::Extras;
use crate::wire::request::Request;

/// Longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Up to where the caller has seen everything. Store it with what was seen, and hand it to
/// [`Client::set_cursor`] when another run of the program has logged in or restored its session.
/// The default is the beginning: everything there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// API 1.0 and later: everything of the chats below up to here.
    pub all: ServerTime,
    /// The chats that are known. On API 0.1, which has no list of one's chats, each has a cursor
    /// of its own; on 1.0 the times have no meaning.
    pub chats: BTreeMap<ChatId, ServerTime>,
}

impl Cursor {
    /// An event is handed to the caller; `live` says that it followed on all before it.
    pub(super) fn note(&mut self, event: &Event, live: bool) {
        match event {
            Event::Message { chat, message } if live => {
                self.all = self.all.max(message.updated);
                self.seen(*chat, message.updated);
            }
            Event::Reaction(change) if live => {
                self.all = self.all.max(change.updated);
                self.seen(change.chat, change.updated);
            }
            Event::ChatGone(chat) => drop(self.chats.remove(chat)),
            _ => {}
        }
    }

    /// A message of a chat came on API 0.1, before it waits or is left out. The catch-up, which
    /// only reads chats that it knows, has to bring it if it is lost on the way to the caller.
    pub(super) fn hear_of(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut body = Reader::new(body);
        let chat = body.chat_id()?;
        let updated = body.message(Version::V0_1)?.updated;
        let before = ServerTime::new(updated.micros() - 1).unwrap_or_default();
        self.chats.entry(chat).or_insert(before);
        Ok(())
    }

    fn seen(&mut self, chat: ChatId, updated: ServerTime) {
        let cursor = self.chats.entry(chat).or_default();
        *cursor = (*cursor).max(updated);
    }
}

/// Random bits from the one source of the standard library: nonces only have to differ.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

impl Client {
    /// Up to where everything was handed over.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Goes on from what was seen at another time. [`Event::Missed`] comes next: follow it with
    /// [`Client::catch_up`]. Without a session, it is for the user whose session is next.
    pub fn set_cursor(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.cursor_user = self.session.as_ref().and_then(|session| session.user);
        self.has_cursor = true;
        self.events.detach();
    }

    /// Begins the cursor where the session began: nothing before is news.
    pub(super) fn begin_cursor(&mut self) -> Result<(), Error> {
        self.has_cursor = false;
        if self.version() >= Version::V1_0 {
            let sessions = self.sessions()?;
            let this = sessions.iter().find(|session| session.this);
            let this = this.ok_or(Error::Protocol("GET_SESSIONS leaves out the session"))?;
            self.cursor.all = this.created;
            let chats = self.my_chats()?;
            self.cursor.chats.extend(chats.iter().map(|chat| (chat.id, this.created)));
        }
        self.has_cursor = true;
        Ok(())
    }

    /// Declares that everything of a chat up to `since` is seen, and that the chat is to be caught
    /// up with. Needed on API 0.1 for chats joined at another time.
    pub fn watch(&mut self, chat: ChatId, since: ServerTime) {
        self.cursor.chats.insert(chat, since);
    }

    /// Makes a new connection, to what the server's name resolves to now, and restores the session.
    /// [`Event::Missed`] comes next.
    ///
    /// # Errors
    /// The network's; `bad-session` when the session has ended, where [`Client::login`] may follow;
    /// or a code that passes, such as `rate-limited`: wait, and call this again.
    pub fn reconnect(&mut self) -> Result<(), Error> {
        self.link.close();
        // A name that does not resolve now may still be where it was.
        if let Ok(addresses) = self.address.resolve()
            && !addresses.is_empty()
        {
            self.addresses = addresses;
        }
        self.link = Link::open(&self.addresses, &self.options)?;
        self.events.start_over();
        let outcome = self.hello().and_then(|()| match self.session.clone() {
            Some(session) => self.attach(&session),
            None => Ok(()),
        });
        // Without its session a connection declines everything `login-required`. Only LOGIN helps
        // when the session has ended, and it may follow on this connection.
        if outcome.as_ref().is_err_and(|error| error.code() != Some("bad-session")) {
            self.link.close();
        }
        outcome
    }

    /// Sends a message. On API 1.0, when the connection breaks before the answer, it is made anew
    /// up to [`Options::reconnects_max`](super::Options::reconnects_max) times and the message
    /// sent again under the same nonce: it is stored once. When that fails, and always on 0.1, the
    /// error [is of a broken connection](Error::is_broken) and nobody knows; the catch-up after
    /// [`Client::reconnect`] shows the message if it was stored.
    ///
    /// # Errors
    /// Those of SEND_CHAT_MSG, `too-large` for what is longer than the server reads, or the end of
    /// the connection.
    pub fn send(&mut self, chat: ChatId, content: &str) -> Result<Sent, Error> {
        let nonce = self.next_nonce();
        self.send_with_nonce(chat, content, nonce)
    }

    pub(super) fn next_nonce(&mut self) -> u64 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    /// As [`Client::send`], with an idempotency key of the caller's: the same nonce sent to
    /// the same chat again, by another run of the program too, stores nothing and gives the first
    /// message. On API 0.1 the nonce is left out.
    ///
    /// # Errors
    /// As [`Client::send`], and with a reply or files those of [`Client::send_with`].
    pub fn send_with_nonce<'a>(
        &mut self,
        chat: ChatId,
        message: impl Into<NewMessage<'a>>,
        nonce: u64,
    ) -> Result<Sent, Error> {
        let message = message.into();
        let content = message.content;
        let extras = message.extras();
        if !extras.is_empty() && self.version() < Version::V1_1 {
            let reason = "unknown-purpose: replies and files need API 1.1";
            return Err(Error::Declined(Declined::new(reason)));
        }
        let extras = Extras::trusted(&extras);
        let mut outcome = self.send_once(chat, content, Some(nonce), extras);
        let mut pause = Duration::from_millis(50);
        for _ in 0..self.options.reconnects_max {
            match &outcome {
                Err(error) if error.is_broken() => {}
                _ => break,
            }
            if self.version() == Version::V0_1 || self.session.is_none() {
                break;
            }
            match self.reconnect() {
                Ok(()) => outcome = self.send_once(chat, content, Some(nonce), extras),
                Err(error) if error.is_broken() => outcome = Err(error),
                // It says no to the session. Of the message nobody knows: the caller reconnects.
                Err(_) => break,
            }
            if outcome.is_err() {
                std::thread::sleep(pause);
                pause = (2 * pause).min(PAUSE_MAX);
            }
        }
        outcome
    }

    /// Hands over every message sent, edited or deleted since the cursor, chat after chat, and
    /// moves the cursor. Answers an [`Event::Missed`] that still waits. Live events go on from
    /// there, those that came meanwhile included; a message may come both ways (its id and
    /// `updated` identify it). After an error the cursor of what was not read to its end is where
    /// it was, and [`Event::Missed`] comes again.
    ///
    /// # Errors
    /// The end of the connection, or `login-required`.
    pub fn catch_up(&mut self, mut each: impl FnMut(ChatId, Message)) -> Result<(), Error> {
        self.events.forgive();
        let read = match self.version() {
            Version::V1_0 | Version::V1_1 => self.catch_up_all(&mut each),
            Version::V0_1 => self.catch_up_chats(&mut each),
        };
        match read {
            Ok(newest) => {
                self.cursor.all = self.cursor.all.max(newest);
                self.events.caught_up();
                Ok(())
            }
            Err(error) => {
                self.events.miss();
                Err(error)
            }
        }
    }

    fn catch_up_all(
        &mut self,
        each: &mut impl FnMut(ChatId, Message),
    ) -> Result<ServerTime, Error> {
        let all = self.cursor.all;
        let mut chats: Vec<ChatId> = self.my_chats()?.into_iter().map(|chat| chat.id).collect();
        let mut gone = Vec::new();
        for &chat in &chats {
            // From zero the updates hold the whole of a chat, known or not.
            if all > ServerTime::ZERO && !self.cursor.chats.contains_key(&chat) {
                match self.range(chat, ServerTime::ZERO, Some(all), |message| each(chat, message)) {
                    Err(error) if is_gone(&error) => gone.push(chat),
                    other => other?,
                }
            }
        }
        chats.retain(|chat| !gone.contains(chat));
        let mut newest = all;
        let version = self.version();
        self.request_parts(&Request::RequestUpdates { from: all.next() }, |piece| {
            let mut body = Reader::new(piece);
            while !body.is_empty() {
                let (chat, message) = answer::chat_message(&mut body, version)?;
                newest = newest.max(message.updated);
                each(chat, message);
            }
            Ok(())
        })?;
        self.cursor.chats.retain(|chat, _| chats.contains(chat));
        for chat in chats {
            self.cursor.chats.entry(chat).or_default();
        }
        Ok(newest)
    }

    fn catch_up_chats(
        &mut self,
        each: &mut impl FnMut(ChatId, Message),
    ) -> Result<ServerTime, Error> {
        let known: Vec<_> = self.cursor.chats.iter().map(|(chat, time)| (*chat, *time)).collect();
        let mut newest = self.cursor.all;
        for (chat, seen) in known {
            let mut last = seen;
            let read = self.range(chat, seen.next(), None, |message| {
                last = last.max(message.updated);
                each(chat, message);
            });
            match read {
                Err(error) if is_gone(&error) => {
                    self.cursor.chats.remove(&chat);
                }
                other => {
                    other?;
                    self.cursor.seen(chat, last);
                    newest = newest.max(last);
                }
            }
        }
        Ok(newest)
    }

    /// Hands over every message of a chat with `from <= updated <= to`, ascending by `updated`, in
    /// as many requests as the version needs; up to now without `to`.
    ///
    /// # Errors
    /// Those of REQUEST_CHAT_MSG, or the end of the connection.
    pub fn range(
        &mut self,
        chat: ChatId,
        mut from: ServerTime,
        to: Option<ServerTime>,
        mut each: impl FnMut(Message),
    ) -> Result<(), Error> {
        loop {
            let whole = self.range_once(chat, from, to, &mut each);
            let Some(fits) = whole.as_ref().err().and_then(fits_up_to) else { return whole };
            if fits < from {
                return Err(Error::Protocol("a range that fits ends before it begins"));
            }
            self.range_once(chat, from, Some(fits), &mut each)?;
            from = fits.next();
        }
    }

    fn range_once(
        &mut self,
        chat: ChatId,
        from: ServerTime,
        to: Option<ServerTime>,
        each: &mut impl FnMut(Message),
    ) -> Result<(), Error> {
        let version = self.version();
        self.request_parts(&Request::RequestChatMsg { chat, from, to }, |piece| {
            let mut body = Reader::new(piece);
            while !body.is_empty() {
                each(answer::message(&mut body, version)?);
            }
            Ok(())
        })
    }
}

/// Whether a chat is not the caller's any more.
fn is_gone(error: &Error) -> bool {
    matches!(error.code(), Some("not-member" | "no-such-chat"))
}

/// Up to where a range that is `too-large` for one answer fits.
fn fits_up_to(error: &Error) -> Option<ServerTime> {
    match error {
        Error::Declined(declined) if declined.code() == "too-large" => {
            declined.number().and_then(ServerTime::new)
        }
        _ => None,
    }
}
