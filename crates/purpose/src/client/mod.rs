//! A blocking client of the protocol, for bots and for other clients.
//!
//! One request at a time, on the standard library, the crate's own [`wire`](crate::wire), and
//! rustls where [`Options::tls`] asks for it. It needs no thread and no async runtime.
//!
//! ```no_run
//! use std::time::Duration;
//! use purpose::client::{Client, Event, Options};
//!
//! # fn main() -> Result<(), purpose::client::Error> {
//! let mut client = Client::connect("127.0.0.1:7420", Options::default())?;
//! client.login("anna", "correct horse")?;
//! let hall = client.chat_id("hall")?;
//! client.send(hall, "hello")?;
//! loop {
//!     match client.next_event(Duration::from_secs(45))? {
//!         Some(Event::Message { message, .. }) => println!("{:?}", message.content),
//!         Some(Event::Missed) => {
//!             client.catch_up(|_, message| println!("{:?}", message.content))?;
//!         }
//!         Some(Event::Deauth) => break,
//!         Some(_) => {}
//!         None => client.heartbeat()?,
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The loop ends when the connection breaks, or when the session ends.
//! `examples/echo_bot.rs` is the whole of a bot: it comes back after a broken connection, answers
//! what it missed once, and leaves other bots alone. A bot that only says things needs no client:
//! `vestnik hook add` makes an address that an HTTP request writes to.
//!
//! **What there is.** Every request of the protocol is a method of [`Client`], and its answer a
//! value that owns its text: chats and messages, [replies and files](Client::send_with),
//! [uploads](Client::upload) and [downloads](Client::download), [reactions](Client::react),
//! [invites](Client::create_invite), [members](Client::add_member) and what operators do. A server
//! of an older version declines what it does not know by the code `unknown-purpose`;
//! [`Client::version`] says what is spoken. Text, names and emoji come as others wrote them: do not
//! print them raw on a terminal, and do not make paths of them.
//!
//! **Where it begins.** [`Client::login`] begins a [`Cursor`] at the present: a catch-up brings
//! what was sent after it, this client's own messages as well, which do not come as events. A
//! program that goes on where another run of it ended stores [`Client::cursor`] and
//! [`Client::session`], and hands them to [`Client::set_cursor`] and [`Client::restore`]; without
//! the cursor the catch-up brings everything there is. On API 0.1 it reads only the chats that
//! messages came from, and those that [`Client::watch`] names.
//!
//! **Reading.** Bytes are read while a call waits: for its answer, or in [`Client::next_event`].
//! What comes unasked meanwhile waits in a queue of at most [`Options::queue_bytes_max`]; past
//! that the newest is left out and [`Event::Missed`] takes its place. HEARTBEAT is answered
//! whenever a call reads, so call [`Client::next_event`] at least once a minute: a server closes
//! connections that show no sign of life for 90 s.
//!
//! **Copies.** A message comes again when it was edited, deleted or reacted to: it replaces the
//! one with its id unless that has a later `updated`. [`Message::apply`] applies an
//! [`Event::Reaction`]. A copy that was kept by API 1.0 knows no reactions: read its chats from
//! time 0 once the server speaks 1.1.
//!
//! **When the connection breaks** a call fails with an error that [`Error::is_broken`].
//! [`Client::reconnect`] makes a new connection and restores the session. It does not wait: pause
//! before you call it again, longer each time, or as long as `rate-limited` says. After
//! `bad-session`, log in. On API 1.0 and later [`Client::send`] reconnects by itself and sends
//! again with the same nonce, so that the message is stored once; uploads and downloads go on.
//! Either way [`Event::Missed`] comes next, and [`Client::catch_up`] reads what was missed.

mod address;
mod answer;
mod calls;
mod error;
mod event;
mod files;
mod link;
mod people;
mod sync;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

pub use address::Address;
pub use answer::{
    Chat, File, Invite, Member, Message, Reaction, Registration, Sent, ServerInfo, Session,
    SessionInfo, User,
};
pub use error::{Declined, Error};
pub use event::{Event, ReactionChange};
pub use files::{NewFile, NewMessage};
pub use people::{NewInvite, Notify, ResetCode};
pub use sync::Cursor;
pub use tls::{Tls, TlsError};
pub use websocket::WebSocketUrl;

use crate::ids::UserId;
use crate::wire::Version;
use crate::wire::codec::{Put, Reader};
use crate::wire::purpose::{ToClient, ToServer};
use crate::wire::request::Request;
use crate::wire::{answer as wire_answer, frame};
use event::Events;
use link::{Link, Received};

/// How a client behaves. The default is API 1.1 and times for a network that works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version asked for in HELLO; an older server gives an older one.
    pub version: Version,
    /// Time to connect, and for one write.
    pub connect_timeout: Duration,
    /// Time from a request to its answer, or to the first PART of it, and from each PART to the
    /// next. Nothing else that the server sends makes it longer.
    pub answer_timeout: Duration,
    /// Bytes of events that wait for [`Client::next_event`].
    pub queue_bytes_max: usize,
    /// Longest answer that is assembled in memory, in bytes.
    pub answer_bytes_max: usize,
    /// TLS, and whom to trust; plain TCP without.
    pub tls: Option<Tls>,
    /// The address of a WebSocket to go through; the bytes of Purpose alone without. Whether it is
    /// over TLS depends on [`Options::tls`].
    pub websocket: Option<WebSocketUrl>,
    /// How often [`Client::send`], and a transfer of a file between two pieces, makes the
    /// connection anew before it gives up; 0: never.
    pub reconnects_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Version::V1_1,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            queue_bytes_max: 8 * 1024 * 1024,
            answer_bytes_max: 64 * 1024 * 1024,
            tls: None,
            websocket: None,
            reconnects_max: 5,
        }
    }
}

/// Longest answer that is handed over piece by piece, in bytes: more than a server stores.
const ANSWER_BYTES_MAX: u64 = 1 << 40;

/// A connection to a server, and the session that outlives it.
pub struct Client {
    link: Link,
    address: Address,
    /// What it resolved to last.
    addresses: Vec<SocketAddr>,
    options: Options,
    task: u8,
    session: Option<Session>,
    events: Events,
    cursor: Cursor,
    /// Whether the cursor says what was seen; without, LOGIN begins one.
    has_cursor: bool,
    /// Whose chats the cursor is about.
    cursor_user: Option<UserId>,
    nonce: u64,
    /// What HELLO agreed on.
    version: Version,
    /// What HELLO said of the server.
    server: ServerInfo,
}

impl Client {
    /// Connects and says HELLO. A name is resolved now, and again by each [`Client::reconnect`].
    ///
    /// # Errors
    /// The network's, [`Error::TimedOut`], or `unsupported-version`.
    pub fn connect(address: impl Into<Address>, options: Options) -> Result<Self, Error> {
        let address = address.into();
        let addresses = address.resolve()?;
        let link = Link::open(&addresses, &options)?;
        let mut client = Self {
            link,
            address,
            addresses,
            events: Events::new(options.queue_bytes_max),
            options,
            task: 0,
            session: None,
            cursor: Cursor::default(),
            has_cursor: false,
            cursor_user: None,
            nonce: sync::random(),
            version: Version::V0_1,
            server: ServerInfo::default(),
        };
        client.hello()?;
        Ok(client)
    }

    fn hello(&mut self) -> Result<(), Error> {
        let (major, minor) = self.options.version.numbers();
        let body = self.request(&Request::Hello { major, minor })?;
        let mut body = Reader::new(&body);
        let spoken = Version::negotiate(body.u8()?, body.u8()?);
        let is_asked_for = |version: &Version| version.numbers().0 == major;
        self.version = spoken
            .filter(is_asked_for)
            .filter(|version| *version <= self.options.version)
            .ok_or(Error::Protocol("HELLO was answered with another version"))?;
        self.server = answer::server(&mut body)?;
        Ok(())
    }

    /// What the server said of itself when the connection was made.
    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// The largest file that the server stores, in bytes; 0: no files, or an older version.
    pub fn file_bytes_max(&self) -> u64 {
        self.server.file_bytes_max
    }

    /// The version that is spoken.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The session that is attached, to be kept for [`Client::restore`].
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Asks for something and waits for the answer; gives the body of the ACCEPTED, those of the
    /// PARTs before it in front. The calls by name are easier to use.
    ///
    /// # Errors
    /// [`Error::Declined`], [`Error::TooLong`], or the end of the connection.
    pub fn request(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let bytes_max = self.options.answer_bytes_max;
        let mut whole = Vec::new();
        self.request_parts(request, |part| {
            if whole.len() + part.len() > bytes_max {
                return Err(Error::TooLong);
            }
            whole.extend_from_slice(part);
            Ok(())
        })?;
        Ok(whole)
    }

    /// Asks for something and hands over the answer piece by piece, as it comes. Each piece holds
    /// whole entries; the last may be empty.
    ///
    /// # Errors
    /// [`Error::Declined`] (also after some pieces, and by this client for a body that is longer
    /// than the server reads), the end of the connection, or the first error of `piece`, which does
    /// not see the rest.
    pub fn request_parts(
        &mut self,
        request: &Request<'_>,
        mut piece: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.task = self.task % u8::MAX + 1;
        let task = self.task;
        let body_bytes_max = match request {
            Request::Hello { .. } => usize::MAX,
            // The server did not say.
            _ if self.version < Version::V1_0 => usize::MAX,
            _ => self.server.body_bytes_max,
        };
        self.link.send_within(body_bytes_max, |out| request.write(out, task))?;
        let comes_in_parts = self.version >= Version::V1_0 && request.purpose().has_parts();
        let mut bytes_left = if comes_in_parts { ANSWER_BYTES_MAX } else { 0 };
        let mut deadline = link::now() + self.options.answer_timeout;
        let mut outcome = Ok(());
        loop {
            let frame = self.link.receive(deadline)?;
            let purpose = ToClient::from_byte(frame.purpose);
            match purpose {
                Some(ToClient::Accepted) if frame.task == task => {
                    return outcome.and_then(|()| piece(self.link.body(&frame)));
                }
                Some(ToClient::Part) if frame.task == task => {
                    let part = self.link.body(&frame);
                    if !comes_in_parts || part.len() as u64 > bytes_left {
                        self.link.close();
                        return Err(Error::Protocol("an answer longer than it can be"));
                    }
                    bytes_left -= part.len() as u64;
                    // What brings nothing is no reason to wait longer.
                    if !part.is_empty() {
                        deadline = link::now() + self.options.answer_timeout;
                    }
                    if outcome.is_ok() {
                        outcome = piece(part);
                        // The rest is of no use; where it is long the connection is not, either.
                        if outcome.is_err() {
                            bytes_left = self.options.answer_bytes_max as u64;
                        }
                    }
                }
                Some(ToClient::Declined) if frame.task == task => {
                    let reason = Reader::new(self.link.body(&frame)).str()?;
                    return Err(Error::Declined(Declined::new(reason)));
                }
                Some(purpose) => self.unasked(purpose, &frame)?,
                None => {}
            }
        }
    }

    /// What is next: from the queue, or from the network within `wait`. `None` when nothing came.
    /// With no `wait` at all it takes what is here already.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn next_event(&mut self, wait: Duration) -> Result<Option<Event>, Error> {
        let deadline = link::now() + wait;
        let mut may_read = wait.is_zero();
        loop {
            if let Some((event, live)) = self.events.pop() {
                self.cursor.note(&event, live);
                return Ok(Some(event));
            }
            if wait.is_zero() && !self.link.has_frame() {
                // Once: a server that does not stop sending does not keep the caller here.
                if !std::mem::take(&mut may_read) || !self.link.read_ready()? {
                    return Ok(None);
                }
            }
            match self.link.receive(deadline) {
                Ok(frame) => {
                    if let Some(purpose) = ToClient::from_byte(frame.purpose) {
                        self.unasked(purpose, &frame)?;
                    }
                }
                Err(Error::TimedOut) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until something may be here for [`Client::next_event`] (then true), or
    /// `other` can be read, or the time is over: for a caller that has more than one thing to
    /// wait for.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn wait_with(&mut self, other: impl AsFd, timeout: Duration) -> Result<bool, Error> {
        if self.events.is_empty() { self.link.wait_with(other.as_fd(), timeout) } else { Ok(true) }
    }

    /// Deals with a frame that is no answer to the request that waits: a request of the server's,
    /// or an answer that came too late and is passed over.
    fn unasked(&mut self, purpose: ToClient, frame: &Received) -> Result<(), Error> {
        match purpose {
            ToClient::Heartbeat => {
                let echo = self.link.body(frame).to_vec();
                let task = frame.task;
                self.link.send(|out| {
                    wire_answer::accepted(out, task, |body| body.put_bytes(&echo));
                })
            }
            ToClient::Disconnect => {
                self.link.close();
                Err(Error::Closed)
            }
            _ => {
                let body = self.link.body(frame);
                if purpose == ToClient::MsgNotify && self.version == Version::V0_1 {
                    self.cursor.hear_of(body)?;
                }
                self.events.take(purpose, self.version, body)
            }
        }
    }

    /// Says good-bye and ends the connection; the session lives on.
    pub fn disconnect(mut self) {
        // A server that cannot be reached notices by itself.
        let _ = self.link.send(|out| frame::write(out, ToServer::Disconnect.byte(), 0, |_| {}));
        self.link.close();
    }
}
