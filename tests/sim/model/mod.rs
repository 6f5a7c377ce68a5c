//! What must be so: users, sessions, chats, members, messages and connections, as the protocol
//! describes them, in plain maps.
//!
//! The model is fed what the server was fed, in the same order, together with what the server
//! answered; what only the server can choose (times, ids, secrets) it takes from the answers after
//! judging them, everything else it knows beforehand. It keeps a list of what each connection has
//! to be notified, and takes from it what the connection was notified.

mod accounts;
mod by_hand;
mod chats;
pub(crate) mod extras;
mod limits;
mod manage;
mod messages;
mod notify;
mod people;
mod received;
mod requests;
mod search;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use vestnik::ids::ConnId;

use crate::command::Command;
use crate::wire::{self, ACCEPTED, Check, DECLINED, Frame, Out};

pub(crate) use received::Phase;
pub(crate) use streams::Stream;

#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) nickname: String,
    pub(crate) password: String,
    /// Grows with every password that is set: each is stored in a form of its own.
    pub(crate) form: u64,
    pub(crate) disabled: bool,
    pub(crate) created: i64,
    pub(crate) is_operator: bool,
    /// The code for a new password, and when it ends.
    pub(crate) reset: Option<(String, i64)>,
}

impl User {
    fn new(nickname: String, password: String, created: i64) -> Self {
        let (form, disabled, is_operator, reset) = (0, false, false, None);
        Self { nickname, password, form, disabled, created, is_operator, reset }
    }
}

/// An invite, by its code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Invite {
    pub(crate) registers: bool,
    pub(crate) chat: Option<u32>,
    pub(crate) uses_left: u16,
    /// After how many it expires: more than any seed lasts, however its clock jumps.
    pub(crate) days: u16,
    pub(crate) creator: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) user: u32,
    pub(crate) secret: String,
    pub(crate) created: i64,
    /// When it was last noted as used. A session in use may have been noted later than is known.
    pub(crate) used: i64,
    pub(crate) used_latest: i64,
    pub(crate) address: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) admin: bool,
    pub(crate) joined: i64,
    pub(crate) seen: i64,
    /// What they want pushes of.
    pub(crate) notify: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) sender: u32,
    pub(crate) updated: i64,
    pub(crate) status: u8,
    pub(crate) content: Rc<str>,
    pub(crate) reply: Option<i64>,
    pub(crate) files: Vec<wire::Attached>,
    /// Emoji in the order in which they came, each with those who gave it.
    pub(crate) reactions: Vec<(String, Vec<u32>)>,
}

impl Message {
    /// As it is notified.
    pub(crate) fn wire(&self, id: i64) -> wire::Message {
        wire::Message {
            id,
            sender: self.sender,
            created: id,
            updated: self.updated,
            status: self.status,
            content: self.content.to_string(),
            extras: wire::Extras::default(),
            change: None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Chat {
    pub(crate) direct: Option<(u32, u32)>,
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) password: Option<String>,
    /// As that of a user.
    pub(crate) form: u64,
    pub(crate) created: i64,
    pub(crate) members: BTreeMap<u32, Member>,
    pub(crate) bans: BTreeSet<u32>,
    pub(crate) messages: BTreeMap<i64, Message>,
    /// The same messages by `updated`.
    pub(crate) by_updated: BTreeMap<i64, i64>,
    pub(crate) nonces: BTreeMap<(u32, u64), i64>,
    pub(crate) is_closed: bool,
    pub(crate) slow_mode_s: u32,
    /// The longest slow mode that the server may not know to be over.
    pub(crate) slow_before_s: u32,
    /// When the server last took up a change of it, by the clock that only runs forward.
    pub(crate) slow_since_ms: u64,
    /// Anyone who joins it, or is enabled first, becomes its admin.
    pub(crate) is_vacant: bool,
    /// When somebody last sent, since the server started, by the clock that only runs forward.
    pub(crate) last_sent: BTreeMap<u32, u64>,
}

/// The session that a connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attached {
    pub(crate) session: u32,
    pub(crate) user: u32,
    pub(crate) suspended: bool,
}

/// A request whose password is being checked or hashed.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Shows this wait from others of the connection.
    pub(crate) number: u64,
    pub(crate) task: u8,
    pub(crate) intent: Intent,
}

/// A password that is compared with what is stored, or was when that began.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) given: String,
    pub(crate) right: bool,
    /// Which stored form it is compared with.
    pub(crate) form: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Intent {
    Login { user: Option<u32>, key: String, checked: Checked },
    Join { chat: u32, checked: Checked },
    Register { name: String, password: String, invite: Option<String> },
    SetPassword { key: String, code: String, password: String },
    OldPassword { right: bool, new: String },
    NewPassword(String),
    CreateChat { name: String, password: String },
    SameChatPassword { chat: u32, checked: Checked },
    ChatPassword { chat: u32, password: String },
}

/// A connection as the server has to see it, and what it has to be notified.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conn {
    pub(crate) address: String,
    /// Whether it speaks 1.0; `None` before HELLO.
    pub(crate) modern: Option<bool>,
    /// Whether it speaks 1.1.
    pub(crate) is_11: bool,
    pub(crate) attached: Option<Attached>,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) stream: Option<Stream>,
    /// Task byte of the last notification, and how many the session now attached was sent.
    pub(crate) notify_task: u8,
    pub(crate) notified: u8,
    /// Notifications of the turn in which the session changed: they may belong to either.
    unsure: u8,
    /// Its session was attached, lost, suspended or resumed in this turn.
    pub(crate) unsettled: bool,
    /// Changed messages that it was not notified yet, by chat, in order.
    owed: BTreeMap<u32, VecDeque<Rc<wire::Message>>>,
    /// What became of chats, in order: the CHAT_NOTIFY or CHAT_GONE that it was not notified yet.
    owed_chats: VecDeque<(u32, Frame)>,
    /// What it was owed until its session or membership ended in this turn: it may have been
    /// notified.
    disowned: Vec<(u32, Rc<wire::Message>)>,
    /// What it must have been notified of that: it was a member when that was sent.
    due: Vec<(u32, Rc<wire::Message>)>,
    disowned_chats: Vec<Frame>,
    /// Ephemeral events of this turn, and whether they may have gone elsewhere.
    ephemeral: Vec<Frame>,
    ephemeral_unsure: bool,
    /// The newest message got.
    got: i64,
    /// Sends that were accepted in this turn: task, chat and time, by the order of the answers.
    accepted_sends: VecDeque<(u8, u32, i64)>,
    /// Messages that the answer to a later send has overtaken: they may only have been left out.
    overtaken: Vec<(u32, Rc<wire::Message>)>,
    /// It has its last bytes: nothing more is staged for it.
    pub(crate) is_closing: bool,
    /// A turn was undone, in which it may have been left behind.
    may_hear_again: bool,
    /// Something was left out at the last look.
    pub(crate) behind: bool,
}

impl Conn {
    /// The user, if it is notified things.
    pub(crate) fn listener(&self) -> Option<u32> {
        let attached = self.attached.filter(|attached| !attached.suspended && !self.is_closing);
        attached.map(|attached| attached.user)
    }

    pub(crate) fn user(&self) -> Option<u32> {
        self.attached.map(|attached| attached.user)
    }

    pub(crate) fn is_modern(&self) -> bool {
        self.modern == Some(true)
    }

    /// What it was not notified yet, for a person.
    pub(crate) fn owes(&self) -> Option<String> {
        if let Some((chat, owed)) = self.owed.iter().find(|(_, owed)| !owed.is_empty()) {
            return Some(format!(
                "{} messages of chat {chat}, from {:?}",
                owed.len(),
                owed.front()
            ));
        }
        self.owed_chats.front().map(|(chat, frame)| format!("chat {chat}: {}", frame.words()))
    }

    /// Nothing more is owed; what was notified until now is not wrong for that.
    fn disown_all(&mut self) {
        self.unsettled = true;
        for (chat, owed) in std::mem::take(&mut self.owed) {
            self.disowned.extend(owed.into_iter().map(|message| (chat, message)));
        }
        let chats = std::mem::take(&mut self.owed_chats);
        self.disowned_chats.extend(chats.into_iter().map(|(_, frame)| frame));
    }
}

/// What the operator has set, as far as the model needs it.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) body_bytes_max: usize,
    pub(crate) content_bytes_max: usize,
    pub(crate) outbound_bytes_max: usize,
    pub(crate) session_lifetime_us: i64,
    pub(crate) registration_open: bool,
    /// 0: any number.
    pub(crate) user_bytes_per_day: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) rules: Rules,
    pub(crate) users: BTreeMap<u32, User>,
    pub(crate) sessions: BTreeMap<u32, Session>,
    pub(crate) chats: BTreeMap<u32, Chat>,
    /// By their codes.
    pub(crate) invites: BTreeMap<String, Invite>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) lockdown: bool,
    /// What the file says of it by now, which the server has not taken up.
    lockdown_by_hand: Option<bool>,
    /// Somebody was made a member by hand, and the server does not know it yet.
    is_adding: bool,
    /// A chat was removed by hand, and the server does not know it yet.
    is_removing: bool,
    /// Who was in a chat that was removed by hand and is not taken up.
    removed_members: Vec<u32>,
    /// The chat that it was, until the server takes that up.
    removed_chat: Option<(u32, Chat)>,
    /// Who became admin of which chat by hand, which the server does not know yet.
    pub(crate) made_admins: Vec<(u32, u32)>,
    /// Who was added to which chat by hand: at a time of the wall, which the order of the server
    /// does not know.
    pub(crate) added_by_hand: BTreeSet<(u32, u32)>,
    /// The disk could not be read in the phase that is read.
    pub(crate) unreadable: bool,
    /// The highest time of any event so far.
    pub(crate) high: i64,
    /// The clock that only runs forward, in milliseconds.
    pub(crate) now_ms: u64,
    /// The latest that the wall clock ever was, in microseconds.
    pub(crate) highest_wall: i64,
    /// The server's clock, as far as it was seen.
    pub(crate) latest_now: i64,
    /// The highest ids ever given.
    last_user: u32,
    last_session: u32,
    last_chat: u32,
    next_wait: u64,
    /// Failures counted against somebody, without those that have come back since.
    failures: BTreeMap<String, u32>,
    failures_unsure: u32,
    /// Wrong guesses under way: they count when the work is done, though nobody hears of it.
    guesses: BTreeMap<u64, Vec<(String, u32)>>,
    /// What users have used of their limits.
    pub(super) used: BTreeMap<u32, limits::Used>,
    /// Files, by id.
    pub(crate) files: BTreeMap<u64, extras::File>,
    /// When users reacted.
    reacted_ms: BTreeMap<u32, Vec<u64>>,
    /// The connection whose frames are read speaks 1.1.
    reads_11: bool,
    /// When a turn was last undone, by the clock that only runs forward.
    undone_ms: Option<u64>,
    /// How often each purpose was accepted, and each reason given.
    pub(crate) seen: BTreeMap<String, u64>,
}

/// What the server was fed in a turn.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Frame {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    Oversized {
        conn: ConnId,
        task: u8,
    },
    Done {
        conn: ConnId,
        wait: u64,
    },
    Command(Command),
    /// Nothing more is staged for a connection.
    Closing {
        conn: ConnId,
    },
}

/// An input, and the server's state around it.
#[derive(Clone, Debug)]
pub(crate) struct Fed {
    pub(crate) input: Input,
    /// The highest server time given after it was handled.
    pub(crate) after: i64,
    pub(crate) suspended: bool,
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) accepted: bool,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        if self.accepted { "ACCEPTED" } else { text.split(':').next().unwrap_or_default() }
    }
}

/// A turn as the model goes through it.
pub(crate) struct Turn<'a> {
    /// What was staged for each connection, notifications left out.
    pub(crate) staged: &'a mut BTreeMap<ConnId, VecDeque<Frame>>,
    /// How many notifications were.
    pub(crate) notices: BTreeMap<ConnId, u32>,
    /// It could not be stored, and every request of it is declined.
    pub(crate) is_declined: bool,
    /// The disk could not be read meanwhile: a change may be declined alone.
    pub(crate) unreadable: bool,
    /// Waits that began, in order.
    pub(crate) began: Vec<(ConnId, u64)>,
    after: i64,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(
        staged: &'a mut BTreeMap<ConnId, VecDeque<Frame>>,
        is_declined: bool,
    ) -> Self {
        Self {
            staged,
            notices: BTreeMap::new(),
            is_declined,
            unreadable: false,
            began: Vec::new(),
            after: 0,
        }
    }

    fn next(&mut self, conn: ConnId) -> Check<Frame> {
        let next = self.staged.get_mut(&conn).and_then(VecDeque::pop_front);
        next.ok_or_else(|| format!("{conn} got no answer"))
    }

    fn answer(&mut self, conn: ConnId, task: u8) -> Check<Answer> {
        let frame = self.next(conn)?;
        if frame.task != task || frame.purpose != ACCEPTED && frame.purpose != DECLINED {
            return Err(format!("{conn} got {} for task {task}", frame.words()));
        }
        Ok(Answer { accepted: frame.purpose == ACCEPTED, body: frame.body })
    }

    /// Whether the next answer says that the storage failed, and may.
    fn is_excused(&mut self, conn: ConnId, task: u8) -> bool {
        let Some(staged) = self.staged.get_mut(&conn).filter(|_| self.unreadable) else {
            return false;
        };
        let is_it = staged.front().is_some_and(|frame| {
            frame.purpose == DECLINED
                && frame.task == task
                && frame.body.starts_with(b"storage-failed:")
        });
        if is_it {
            staged.pop_front();
        }
        is_it
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) conn: ConnId,
    pub(crate) task: u8,
    pub(crate) user: u32,
    pub(crate) session: u32,
    pub(crate) modern: bool,
    pub(crate) is_11: bool,
}

pub(crate) fn key(name: &str) -> String {
    name.to_lowercase()
}

impl Model {
    /// The texts of all messages that have one.
    pub(crate) fn contents(&self) -> Vec<Rc<str>> {
        let messages = self.chats.values().flat_map(|chat| chat.messages.values());
        messages
            .map(|message| Rc::clone(&message.content))
            .filter(|text| !text.is_empty())
            .collect()
    }

    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            users: BTreeMap::new(),
            sessions: BTreeMap::new(),
            chats: BTreeMap::new(),
            invites: BTreeMap::new(),
            conns: BTreeMap::new(),
            lockdown: false,
            lockdown_by_hand: None,
            is_adding: false,
            is_removing: false,
            removed_members: Vec::new(),
            removed_chat: None,
            made_admins: Vec::new(),
            added_by_hand: BTreeSet::new(),
            unreadable: false,
            high: 0,
            now_ms: 0,
            highest_wall: 0,
            latest_now: 0,
            last_user: 0,
            last_session: 0,
            last_chat: 0,
            next_wait: 0,
            failures: BTreeMap::new(),
            failures_unsure: 0,
            guesses: BTreeMap::new(),
            used: BTreeMap::new(),
            files: BTreeMap::new(),
            reacted_ms: BTreeMap::new(),
            reads_11: false,
            undone_ms: None,
            seen: BTreeMap::new(),
        }
    }

    /// A user that was there before the server started.
    pub(crate) fn add_user(&mut self, id: u32, nickname: &str, password: &str, created: i64) {
        self.last_user = self.last_user.max(id);
        self.high = self.high.max(created);
        let user = User::new(nickname.to_owned(), password.to_owned(), created);
        self.users.insert(id, user);
    }

    /// The process is gone, and with it all connections and counts.
    pub(crate) fn restarted(&mut self) {
        self.conns.clear();
        self.failures.clear();
        self.failures_unsure = 0;
        self.guesses.clear();
        self.used.values_mut().for_each(limits::Used::restart);
        self.undone_ms = None;
        self.removed_members.clear();
        self.removed_chat = None;
        self.made_admins.clear();
        self.lockdown = self.lockdown_by_hand.take().unwrap_or(self.lockdown);
        (self.is_adding, self.is_removing) = (false, false);
        for chat in self.chats.values_mut() {
            chat.last_sent.clear();
            (chat.slow_before_s, chat.slow_since_ms) = (0, 0);
        }
    }

    /// A turn was undone: what it counted against somebody may stand.
    pub(crate) fn undone(&mut self, inputs: usize) {
        self.failures_unsure += inputs as u32;
        self.undone_ms = Some(self.now_ms);
        for conn in self.conns.values_mut() {
            conn.may_hear_again = true;
        }
    }

    pub(crate) fn connected(&mut self, conn: ConnId, address: String) {
        self.conns.insert(conn, Conn { address, ..Conn::default() });
    }

    /// A connection is on its way out.
    pub(crate) fn closing(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.is_closing = true;
        }
    }

    pub(crate) fn closed(&mut self, conn: ConnId) {
        self.detach(conn);
        self.conns.remove(&conn);
    }

    fn note(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    /// An event took place at this time: later than all before it.
    fn event(&mut self, turn: &Turn<'_>, at: i64) -> Check {
        if at <= self.high || at > turn.after {
            return Err(format!("time {at} after {} (the clock says {})", self.high, turn.after));
        }
        self.high = at;
        Ok(())
    }

    fn accept(&mut self, turn: &mut Turn<'_>, conn: ConnId, task: u8, body: &[u8]) -> Check {
        let answer = turn.answer(conn, task)?;
        if !answer.accepted || answer.body != body {
            let got = (answer.code(), &answer.body);
            return Err(format!("{conn} task {task}: expected ACCEPTED {body:?}, got {got:?}"));
        }
        Ok(())
    }

    fn decline(&mut self, turn: &mut Turn<'_>, conn: ConnId, task: u8, code: &str) -> Check {
        let answer = turn.answer(conn, task)?;
        self.note(code);
        if answer.code() != code {
            let got = String::from_utf8_lossy(&answer.body).into_owned();
            let got = if answer.accepted { "ACCEPTED" } else { &got };
            return Err(format!("{conn} task {task}: expected DECLINED {code}, got {got}"));
        }
        Ok(())
    }

    /// The answer to what can only be accepted.
    fn accepted(&mut self, turn: &mut Turn<'_>, conn: ConnId, task: u8) -> Check<Vec<u8>> {
        let answer = turn.answer(conn, task)?;
        if !answer.accepted {
            let got = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(format!("{conn} task {task}: expected ACCEPTED, got {got}"));
        }
        Ok(answer.body)
    }

    /// One step of a turn.
    pub(crate) fn apply(&mut self, turn: &mut Turn<'_>, fed: &Fed) -> Check {
        turn.after = fed.after;
        match &fed.input {
            Input::Frame { conn, bytes } if turn.is_declined => {
                self.refused_frame(turn, *conn, bytes, fed.suspended)
            }
            Input::Done { conn, wait } if turn.is_declined => self.refused_job(turn, *conn, *wait),
            Input::Frame { conn, bytes } => self.frame(turn, *conn, bytes, fed.suspended),
            Input::Done { conn, wait } => self.done(turn, *conn, *wait),
            Input::Command(command) => self.take_up(turn, command),
            Input::Closing { conn } => {
                self.closing(*conn);
                Ok(())
            }
            Input::Oversized { conn, task } => {
                self.decline(turn, *conn, *task, "too-large")?;
                let bye = turn.next(*conn)?;
                let is_bye = bye.purpose == wire::DISCONNECT;
                if is_bye { Ok(()) } else { Err(format!("{conn} got {} last", bye.words())) }
            }
        }
    }

    /// A frame of a turn that could not be stored: nothing of it happened.
    fn refused_frame(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        bytes: &[u8],
        suspended: bool,
    ) -> Check {
        let (frame, _) = wire::take_frame(bytes).ok_or("an input is no frame")?;
        match frame.purpose {
            wire::ACCEPTED | wire::PART => Ok(()),
            DECLINED => self.declined(turn, conn, frame.task, suspended),
            wire::DISCONNECT if frame.body.is_empty() => Ok(()),
            wire::HEARTBEAT if frame.body.len() <= 1024 => {
                self.accept(turn, conn, frame.task, &frame.body)
            }
            _ => self.decline(turn, conn, frame.task, "storage-failed"),
        }
    }

    fn user_by_key(&self, wanted: &str) -> Option<u32> {
        self.users.iter().find(|(_, user)| key(&user.nickname) == wanted).map(|(id, _)| *id)
    }

    fn chat_by_key(&self, wanted: &str) -> Option<u32> {
        let is_it = |chat: &Chat| chat.direct.is_none() && key(&chat.name) == wanted;
        self.chats.iter().find(|(_, chat)| is_it(chat)).map(|(id, _)| *id)
    }

    fn is_member(&self, user: u32, chat: u32) -> bool {
        self.chats.get(&chat).is_some_and(|chat| chat.members.contains_key(&user))
    }

    pub(crate) fn chats_of(&self, user: u32) -> Vec<u32> {
        let mine = self.chats.iter().filter(|(_, chat)| chat.members.contains_key(&user));
        mine.map(|(id, _)| *id).collect()
    }

    fn is_online(&self, user: u32) -> bool {
        self.conns.values().any(|conn| conn.user() == Some(user))
    }

    fn nickname(&self, user: u32) -> &str {
        self.users.get(&user).map_or("", |user| &user.nickname)
    }

    /// chat_info of section 5, or of 5a, as a user sees it now.
    pub(crate) fn chat_info(&self, user: u32, id: u32, is_11: bool) -> Option<Vec<u8>> {
        let chat = self.chats.get(&id)?;
        let mut flags = u8::from(chat.password.is_some());
        flags |= if chat.is_closed && is_11 { 8 } else { 0 };
        let (mut last, mut seen, mut unread, mut notify) = (0, 0, 0, 0);
        if let Some(member) = chat.members.get(&user) {
            flags |= 2 | if member.admin { 4 } else { 0 };
            (seen, notify) = (member.seen, member.notify);
            last = chat.messages.last_key_value().map_or(0, |(id, _)| *id);
            let after = chat.messages.range(seen + 1..);
            let counts = |m: &Message| m.sender != user && m.status & wire::DELETED == 0;
            unread = after.filter(|(_, message)| counts(message)).count().min(1000) as u32;
        }
        let title = match chat.direct {
            None => &chat.title,
            Some((low, high)) => self.nickname(if low == user { high } else { low }),
        };
        let out = Out::default().u32(id).u8(u8::from(chat.direct.is_some())).u8(flags);
        let out = out.u32(chat.members.len() as u32).i64(last).i64(seen).u32(unread);
        let out = out.str(&chat.name).str(title);
        Some(if is_11 { out.u8(notify).0 } else { out.0 })
    }
}
