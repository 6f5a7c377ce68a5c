//! A simulated client: sends requests in any order and tracks the answers. Requests are chosen with
//! a view of the model, so that many make sense; what it receives it checks by itself.

use std::collections::VecDeque;

use crate::model::Model;
use crate::pipe::Link;
use crate::plan::Plan;
use crate::replica::{Asking, Replica};
use crate::rng::Rng;
use crate::websocket::WebSocket;
use crate::wire::take_frame;
use crate::wire::{ACCEPTED, Body, Check, DEAUTH, DECLINED, DISCONNECT, Frame, HEARTBEAT, PART};

/// A session that the client remembers.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) id: u32,
    pub(crate) secret: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    New,
    Greeted,
    Authorized,
}

/// A request without an answer yet.
#[derive(Clone, Debug)]
struct Asked {
    task: u8,
    purpose: u8,
    /// The session of a RESTORE_SESSION.
    session: Option<Kept>,
    asking: Asking,
    /// The start of the replica in which it was sent.
    start: u64,
    /// The greatest `updated` in the pieces of its answer.
    newest: i64,
}

pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) modern: bool,
    /// Speaks 1.1.
    pub(crate) is_11: bool,
    pub(crate) link: Option<u64>,
    /// The WebSocket layer, if the connection has one.
    websocket: Option<WebSocket>,
    pub(crate) state: State,
    pub(crate) session: Option<Kept>,
    pub(crate) is_suspended: bool,
    /// Bytes that the network has not accepted, and an incomplete frame.
    pub(crate) unsent: Vec<u8>,
    inbox: Vec<u8>,
    asked: VecDeque<Asked>,
    next_task: u8,
    /// Steps for which it does not read.
    pub(crate) stalls: u64,
    pub(crate) has_ended: bool,
    /// It has ended its side of the stream, and nothing else.
    pub(crate) hung_up: bool,
    /// The task byte of the last notification, to decline it.
    pub(crate) last_notification: u8,
    /// Nonces sent, each with its chat and content: a repeated nonce must have the same ones.
    pub(crate) nonces: Vec<(u32, u64, String)>,
    pub(crate) sent: u64,
    pub(crate) replica: Replica,
}

impl Client {
    pub(crate) fn new(number: usize, mut rng: Rng) -> Self {
        let modern = !rng.one_in(4);
        let is_11 = modern && rng.one_in(2);
        Self {
            number,
            rng,
            modern,
            is_11,
            link: None,
            websocket: None,
            state: State::New,
            session: None,
            is_suspended: false,
            unsent: Vec::new(),
            inbox: Vec::new(),
            asked: VecDeque::new(),
            next_task: 0,
            stalls: 0,
            has_ended: false,
            hung_up: false,
            last_notification: 0,
            nonces: Vec::new(),
            sent: 0,
            replica: Replica::new(is_11),
        }
    }

    /// The user of its session.
    pub(crate) fn user(&self, model: &Model) -> Option<u32> {
        let session = self.session.as_ref()?;
        model.sessions.get(&session.id).map(|session| session.user)
    }

    pub(crate) fn connected(&mut self, link: u64) {
        self.link = Some(link);
        self.websocket = self.rng.one_in(3).then(WebSocket::new);
        self.state = State::New;
        self.is_suspended = false;
        self.unsent.clear();
        self.inbox.clear();
        self.asked.clear();
        self.stalls = 0;
        (self.has_ended, self.hung_up) = (false, false);
        self.last_notification = 0;
        self.replica.detached();
    }

    /// Whether a request with this purpose is unanswered.
    pub(crate) fn asks(&self, purpose: u8) -> bool {
        self.asked.iter().any(|asked| asked.purpose == purpose)
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
    }

    pub(crate) fn waits(&self) -> usize {
        self.asked.len()
    }

    /// The request that was not answered although the client has ended only its own side, when the
    /// server has ended the stream.
    pub(crate) fn unanswered(&self) -> Check {
        match self.waits_for().filter(|_| self.hung_up) {
            Some(asked) => {
                Err(format!("client {} ended its side, and got no answer to {asked}", self.number))
            }
            None => Ok(()),
        }
    }

    /// Whether it is in the state that a client at rest should be in.
    pub(crate) fn is_calm(&self) -> bool {
        match (self.link, self.state) {
            (None, _) => self.session.is_none(),
            (Some(_), _) if self.has_ended => false,
            (Some(_), State::New) => false,
            (Some(_), State::Greeted) => self.session.is_none(),
            (Some(_), State::Authorized) => {
                !self.is_suspended && (self.replica.is_live() || !self.modern)
            }
        }
    }

    /// Its state, for error messages.
    pub(crate) fn describe(&self) -> String {
        let (number, link, state) = (self.number, self.link, self.state);
        let (has_ended, is_suspended) = (self.has_ended, self.is_suspended);
        let (waits, unsent, replica) = (self.waits_for(), self.unsent.len(), &self.replica.step);
        format!(
            "client {number} on {link:?} {state:?}, ended {has_ended}, suspended {is_suspended}, \
             waits for {waits:?}, {unsent} unsent, {replica:?}"
        )
    }

    /// The first unanswered request, for error messages.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let first = self.asked.front()?;
        Some(format!("0x{:02x} task {}", first.purpose, first.task))
    }

    /// Sends a frame; `session`: that of a RESTORE_SESSION.
    pub(crate) fn say(&mut self, purpose: u8, body: &[u8], session: Option<Kept>, asking: Asking) {
        if self.hung_up {
            return;
        }
        self.next_task = self.next_task % 255 + 1;
        let task = self.next_task;
        self.say_raw(purpose, task, body);
        let is_parting = purpose == DISCONNECT && body.is_empty();
        if !is_parting && !matches!(purpose, ACCEPTED | DECLINED | PART) {
            let start = self.replica.start;
            self.asked.push_back(Asked { task, purpose, session, asking, start, newest: 0 });
        }
    }

    pub(crate) fn say_raw(&mut self, purpose: u8, task: u8, body: &[u8]) {
        if self.hung_up {
            return;
        }
        self.unsent.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.unsent.extend_from_slice(&[purpose, task]);
        self.unsent.extend_from_slice(body);
    }

    /// Writes what the network accepts, and reads what has arrived.
    pub(crate) fn exchange(&mut self, link: &mut Link, waits: bool) -> Check {
        self.send(link);
        if self.stalls > 0 && !waits {
            self.stalls -= 1;
            return Ok(());
        }
        let bytes = link.down.read(usize::MAX);
        match &mut self.websocket {
            None => self.inbox.extend(bytes),
            Some(websocket) => {
                let payload = websocket
                    .unwrap(&bytes)
                    .map_err(|wrong| format!("client {} got {wrong}", self.number))?;
                self.has_ended |= websocket.is_over();
                self.inbox.extend(payload);
            }
        }
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while let Some((frame, left)) = take_frame(rest) {
            self.hear(&frame, waits).map_err(|wrong| {
                format!("client {} heard {}: {wrong}", self.number, frame.words())
            })?;
            rest = left;
        }
        self.inbox = rest.to_vec();
        Ok(())
    }

    /// Writes what the network accepts of the queue, and then the end of the stream.
    fn send(&mut self, link: &mut Link) {
        let queue = match &mut self.websocket {
            None => &mut self.unsent,
            Some(websocket) => {
                // Do not frame more while the network is full.
                if websocket.out.len() < 1000 {
                    websocket.wrap(&self.unsent, &mut self.rng);
                    self.unsent.clear();
                }
                if self.has_ended && self.unsent.is_empty() {
                    websocket.close(&mut self.rng);
                }
                &mut websocket.out
            }
        };
        let count = link.up.write(queue);
        queue.drain(..count);
        if self.has_ended && queue.is_empty() && self.unsent.is_empty() {
            link.up.is_ended = true;
        }
    }

    fn hear(&mut self, frame: &Frame, is_resting: bool) -> Check {
        match frame.purpose {
            ACCEPTED | DECLINED => self.answered(frame),
            PART => match self.asked.front_mut() {
                Some(asked) if asked.task == frame.task => {
                    asked.newest =
                        asked.newest.max(newest(&asked.asking, &frame.body, self.is_11)?);
                    self.replica
                        .piece(self.replica.purpose(&asked.asking, asked.start), &frame.body)
                }
                _ => Err(format!("and waits for {:?}", self.waits_for())),
            },
            HEARTBEAT => {
                self.say_raw(ACCEPTED, frame.task, &frame.body);
                Ok(())
            }
            DISCONNECT => {
                // Sends only what is queued.
                (self.has_ended, self.hung_up) = (true, false);
                Ok(())
            }
            DEAUTH => {
                self.state = State::Greeted;
                self.is_suspended = false;
                self.replica.detached();
                if is_resting {
                    // Two clients with one session would take it over from each other forever.
                    self.session = None;
                }
                Ok(())
            }
            _ => {
                self.last_notification = frame.task;
                self.replica.got(frame)
            }
        }
    }

    /// Answers come in the order of the requests.
    fn answered(&mut self, frame: &Frame) -> Check {
        let asked = self.asked.pop_front().ok_or("and waits for nothing")?;
        if asked.task != frame.task {
            return Err(format!("and waits for {asked:?}"));
        }
        if frame.purpose == DECLINED {
            let reason = Body::of(&frame.body).str()?;
            if asked.session.is_some() && reason.starts_with("bad-session:") {
                self.session = None;
            }
            let code = reason.split(':').next().unwrap_or_default();
            if code == "already-authorized" {
                self.is_suspended = false;
            }
            if code == "session-suspended" {
                self.is_suspended = true;
                self.replica.detached();
            }
            self.replica.declined(self.replica.purpose(&asked.asking, asked.start), code);
            return Ok(());
        }
        match asked.purpose {
            0x20 => self.state = State::Greeted,
            0x21 => {
                let mut body = Body::of(&frame.body);
                let (id, secret) = (body.u32()?, body.str()?.to_owned());
                self.session = Some(Kept { id, secret });
                self.attached(if self.modern { body.u32()? } else { 0 });
            }
            0x22 => {
                self.session = None;
                self.state = State::Greeted;
                self.is_suspended = false;
                self.replica.detached();
            }
            0x23 => {
                self.session = asked.session;
                self.attached(if self.modern { Body::of(&frame.body).u32()? } else { 0 });
            }
            _ => {
                let newest = asked.newest.max(newest(&asked.asking, &frame.body, self.is_11)?);
                let asking = self.replica.purpose(&asked.asking, asked.start);
                self.replica.piece(asking, &frame.body)?;
                self.replica.accepted(asking, &frame.body, newest)?;
            }
        }
        Ok(())
    }

    fn attached(&mut self, user: u32) {
        self.state = State::Authorized;
        self.is_suspended = false;
        self.replica.attached(user);
    }

    /// Perhaps sends something.
    pub(crate) fn act(&mut self, plan: &Plan, model: &Model) {
        if self.has_ended || self.waits() as u64 >= plan.pipeline || self.unsent.len() > 60_000 {
            return;
        }
        crate::choose::choose(self, plan, model);
    }
}

/// The greatest `updated` in a piece of the answer to REQUEST_UPDATES.
fn newest(asking: &Asking, body: &[u8], is_11: bool) -> Check<i64> {
    let (mut body, mut newest) = (Body::spoken(body, is_11), 0);
    while *asking == Asking::Updates && !body.is_empty() {
        body.u32()?;
        newest = newest.max(body.message()?.updated);
    }
    Ok(newest)
}
