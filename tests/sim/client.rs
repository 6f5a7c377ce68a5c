//! A client at the far end of a connection: says what it likes, in any order, and keeps track of
//! what is answered. What it says is chosen with the model in view, so that much of it is to the
//! point; what it hears it judges for itself.

use std::collections::VecDeque;

use crate::model::Model;
use crate::pipe::Link;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::wire::take_frame;
use crate::wire::{ACCEPTED, Body, Check, DEAUTH, DECLINED, DISCONNECT, Frame, HEARTBEAT, PART};

/// A session as a client keeps it.
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

/// A request under way.
#[derive(Clone, Debug)]
struct Asked {
    task: u8,
    purpose: u8,
    /// The session that a RESTORE_SESSION names.
    session: Option<Kept>,
}

pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) modern: bool,
    pub(crate) link: Option<u64>,
    pub(crate) state: State,
    pub(crate) session: Option<Kept>,
    pub(crate) is_suspended: bool,
    /// Bytes that the network has not taken yet, and bytes that are no whole frame yet.
    pub(crate) unsent: Vec<u8>,
    inbox: Vec<u8>,
    asked: VecDeque<Asked>,
    next_task: u8,
    /// Steps for which it does not read.
    pub(crate) stalls: u64,
    pub(crate) has_ended: bool,
    /// The last notification, to decline it.
    pub(crate) last_notification: u8,
    /// Nonces given, each with its chat.
    pub(crate) nonces: Vec<(u32, u64)>,
    pub(crate) sent: u64,
}

impl Client {
    pub(crate) fn new(number: usize, mut rng: Rng) -> Self {
        let modern = !rng.one_in(4);
        Self {
            number,
            rng,
            modern,
            link: None,
            state: State::New,
            session: None,
            is_suspended: false,
            unsent: Vec::new(),
            inbox: Vec::new(),
            asked: VecDeque::new(),
            next_task: 0,
            stalls: 0,
            has_ended: false,
            last_notification: 0,
            nonces: Vec::new(),
            sent: 0,
        }
    }

    /// The user that its session is of.
    pub(crate) fn user(&self, model: &Model) -> Option<u32> {
        let session = self.session.as_ref()?;
        model.sessions.get(&session.id).map(|session| session.user)
    }

    pub(crate) fn connected(&mut self, link: u64) {
        self.link = Some(link);
        self.state = State::New;
        self.is_suspended = false;
        self.unsent.clear();
        self.inbox.clear();
        self.asked.clear();
        self.stalls = 0;
        self.has_ended = false;
        self.last_notification = 0;
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
    }

    pub(crate) fn waits(&self) -> usize {
        self.asked.len()
    }

    /// What it still waits for, for a person.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let first = self.asked.front()?;
        Some(format!("0x{:02x} task {}", first.purpose, first.task))
    }

    /// Sends a frame; `session` is the one that a RESTORE_SESSION names.
    pub(crate) fn say(&mut self, purpose: u8, body: &[u8], session: Option<Kept>) {
        self.next_task = self.next_task % 255 + 1;
        let task = self.next_task;
        self.say_raw(purpose, task, body);
        let is_parting = purpose == DISCONNECT && body.is_empty();
        if !is_parting && !matches!(purpose, ACCEPTED | DECLINED | PART) {
            self.asked.push_back(Asked { task, purpose, session });
        }
    }

    pub(crate) fn say_raw(&mut self, purpose: u8, task: u8, body: &[u8]) {
        self.unsent.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.unsent.extend_from_slice(&[purpose, task]);
        self.unsent.extend_from_slice(body);
    }

    /// Gives the network what it takes, and reads what it has.
    pub(crate) fn exchange(&mut self, link: &mut Link, is_patient: bool) -> Check {
        let count = link.up.write(&self.unsent);
        self.unsent.drain(..count);
        if self.has_ended && self.unsent.is_empty() {
            link.up.is_ended = true;
        }
        if self.stalls > 0 && !is_patient {
            self.stalls -= 1;
            return Ok(());
        }
        self.inbox.extend(link.down.read(usize::MAX));
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while let Some((frame, left)) = take_frame(rest) {
            self.hear(&frame).map_err(|wrong| {
                format!("client {} heard {}: {wrong}", self.number, frame.words())
            })?;
            rest = left;
        }
        self.inbox = rest.to_vec();
        Ok(())
    }

    fn hear(&mut self, frame: &Frame) -> Check {
        match frame.purpose {
            ACCEPTED | DECLINED => self.answered(frame),
            PART => match self.asked.front() {
                Some(asked) if asked.task == frame.task => Ok(()),
                _ => Err(format!("and waits for {:?}", self.waits_for())),
            },
            HEARTBEAT => {
                self.say_raw(ACCEPTED, frame.task, &frame.body);
                Ok(())
            }
            DISCONNECT => {
                // What is queued is sent, and no more.
                self.has_ended = true;
                Ok(())
            }
            DEAUTH => {
                self.state = State::Greeted;
                self.is_suspended = false;
                Ok(())
            }
            _ => {
                self.last_notification = frame.task;
                Ok(())
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
            let reason = Body(&frame.body).str()?;
            if asked.session.is_some() && reason.starts_with("bad-session:") {
                self.session = None;
            }
            return Ok(());
        }
        match asked.purpose {
            0x20 => self.state = State::Greeted,
            0x21 => {
                let mut body = Body(&frame.body);
                let (id, secret) = (body.u32()?, body.str()?.to_owned());
                self.session = Some(Kept { id, secret });
                self.state = State::Authorized;
                self.is_suspended = false;
            }
            0x22 => {
                self.session = None;
                self.state = State::Greeted;
                self.is_suspended = false;
            }
            0x23 => {
                self.session = asked.session;
                self.state = State::Authorized;
                self.is_suspended = false;
            }
            _ => {}
        }
        Ok(())
    }

    /// Perhaps does something.
    pub(crate) fn act(&mut self, plan: &Plan, model: &Model) {
        if self.has_ended || self.waits() as u64 >= plan.pipeline || self.unsent.len() > 60_000 {
            return;
        }
        crate::choose::choose(self, plan, model);
    }
}
