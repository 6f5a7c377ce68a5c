//! The model: users, sessions, chats, members, messages and connections, as the protocol defines
//! them, in plain maps.
//!
//! The model gets the server's inputs, in the same order, and the server's answers. Values that
//! only the server can choose (times, ids, secrets) are checked and taken from the answers;
//! everything else is computed. It keeps a list of the notifications owed to each connection, and
//! removes those that were sent.

mod accounts;
mod by_hand;
mod chats;
pub(crate) mod extras;
mod find_users;
mod limits;
mod manage;
mod messages;
mod notify;
mod people;
mod pushes;
mod received;
mod requests;
mod search;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use vestnik::ids::ConnId;

use crate::command::Command;
use crate::wire::{self, ACCEPTED, Check, DECLINED, Frame, Out};

pub(crate) use pushes::{HOSTS as PUSH_HOSTS, Subscription};
pub(crate) use received::Phase;
pub(crate) use streams::Stream;

#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) nickname: String,
    /// Empty: nobody can log in with a password (bots, and users who were removed).
    pub(crate) password: String,
    /// Incremented with every new password, since each gets a new stored form.
    pub(crate) form: u64,
    pub(crate) disabled: bool,
    pub(crate) created: i64,
    pub(crate) is_operator: bool,
    pub(crate) is_bot: bool,
    /// The reset code, and when it expires.
    pub(crate) reset: Option<(String, i64)>,
}

impl User {
    fn new(nickname: String, password: String, created: i64) -> Self {
        let (form, disabled, is_operator, is_bot, reset) = (0, false, false, false, None);
        Self { nickname, password, form, disabled, created, is_operator, is_bot, reset }
    }

    /// Whether the user can act as an admin: bots and disabled users cannot.
    pub(crate) const fn can_act(&self) -> bool {
        !self.disabled && !self.is_bot
    }

    /// The flags of `users` in the database.
    pub(crate) fn stored_flags(&self) -> u8 {
        u8::from(self.is_operator) | if self.is_bot { 8 } else { 0 }
    }
}

/// An invite, by code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Invite {
    pub(crate) registers: bool,
    pub(crate) chat: Option<u32>,
    pub(crate) uses_left: u16,
    /// Days after which it expires: longer than any seed, however its clock jumps.
    pub(crate) days: u16,
    pub(crate) creator: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) user: u32,
    pub(crate) secret: String,
    pub(crate) created: i64,
    /// When its use was last stored; the server may have noted a later one.
    pub(crate) used: i64,
    pub(crate) used_latest: i64,
    pub(crate) address: String,
    /// Where its pushes go.
    pub(crate) push: Option<Subscription>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) admin: bool,
    pub(crate) joined: i64,
    pub(crate) seen: i64,
    /// The push level.
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
    /// Emoji in the order of their first use, each with the users who gave it.
    pub(crate) reactions: Vec<(String, Vec<u32>)>,
}

impl Message {
    /// The message as it is notified.
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
    /// As for users.
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
    /// The longest slow mode that may still be in force for the server.
    pub(crate) slow_before_s: u32,
    /// When the server last took up a change of slow mode, in milliseconds of the monotonic clock.
    pub(crate) slow_since_ms: u64,
    /// The next user who joins or is enabled becomes its admin.
    pub(crate) is_vacant: bool,
    /// When each user last sent since the start, in milliseconds of the monotonic clock.
    pub(crate) last_sent: BTreeMap<u32, u64>,
}

/// The session of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attached {
    pub(crate) session: u32,
    pub(crate) user: u32,
    pub(crate) suspended: bool,
}

/// A request that waits for password work.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Distinguishes the waits of a connection.
    pub(crate) number: u64,
    pub(crate) task: u8,
    pub(crate) intent: Intent,
}

/// A password that is compared with a stored one.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) given: String,
    pub(crate) right: bool,
    /// The version of the stored form.
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

/// A connection as the server should see it, and the notifications owed to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conn {
    pub(crate) address: String,
    /// Whether it speaks 1.0; `None` before HELLO.
    pub(crate) modern: Option<bool>,
    /// Whether it speaks 1.1.
    pub(crate) is_11: bool,
    pub(crate) attached: Option<Attached>,
    /// When its last frame was handled, in milliseconds of the monotonic clock.
    heard_ms: u64,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) stream: Option<Stream>,
    /// Task byte of the last notification, and number of notifications since the session was
    /// attached.
    pub(crate) notify_task: u8,
    pub(crate) notified: u8,
    /// Notifications of the turn in which the session changed: they may belong to either session.
    unsure: u8,
    /// The session was attached, detached, suspended or resumed in this turn.
    pub(crate) unsettled: bool,
    /// Changed messages that are owed, by chat, in order.
    owed: BTreeMap<u32, VecDeque<Rc<wire::Message>>>,
    /// CHAT_NOTIFY and CHAT_GONE that are owed, in order.
    owed_chats: VecDeque<(u32, Frame)>,
    /// Messages owed until the session or membership ended in this turn: they may have been sent.
    disowned: Vec<(u32, Rc<wire::Message>)>,
    /// Those of them that must have been sent, since the user was a member at that time.
    due: Vec<(u32, Rc<wire::Message>)>,
    disowned_chats: Vec<Frame>,
    /// Ephemeral events of this turn, and whether they may have been dropped.
    ephemeral: Vec<Frame>,
    ephemeral_unsure: bool,
    /// Time of the newest message received.
    got: i64,
    /// Sends accepted in this turn: task, chat and time, in the order of the answers.
    accepted_sends: VecDeque<(u8, u32, i64)>,
    /// Messages overtaken by the answer to a later send: allowed only if they went to the backlog.
    overtaken: Vec<(u32, Rc<wire::Message>)>,
    /// Its queue is closed: nothing more is staged.
    pub(crate) is_closing: bool,
    /// A turn was undone after which the backlog may repeat notifications.
    may_hear_again: bool,
    /// It had a backlog at the last look.
    pub(crate) behind: bool,
}

impl Conn {
    /// The user, if the connection gets notifications.
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

    /// The first notification that is owed, for error messages.
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

    /// Drops everything owed; what was sent so far is not wrong.
    fn disown_all(&mut self) {
        self.unsettled = true;
        for (chat, owed) in std::mem::take(&mut self.owed) {
            self.disowned.extend(owed.into_iter().map(|message| (chat, message)));
        }
        let chats = std::mem::take(&mut self.owed_chats);
        self.disowned_chats.extend(chats.into_iter().map(|(_, frame)| frame));
    }
}

/// The configuration, as far as the model needs it.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) body_bytes_max: usize,
    pub(crate) content_bytes_max: usize,
    pub(crate) outbound_bytes_max: usize,
    pub(crate) session_lifetime_us: i64,
    pub(crate) registration_open: bool,
    /// Only operators find users by name.
    pub(crate) user_list_of_operators: bool,
    /// Clients may subscribe to pushes.
    pub(crate) push: bool,
    /// 0: no limit.
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
    /// The lockdown in the database, if the server has not taken it up.
    lockdown_by_hand: Option<bool>,
    /// A member was added by a command that the server has not taken up.
    is_adding: bool,
    /// A chat was removed by a command that the server has not taken up.
    is_removing: bool,
    /// Whether the server has acted on some changes of the last command, and not on all, because
    /// the database could not be read: what they owe comes later.
    pub(crate) changes_wait: bool,
    /// Members of a chat that was removed by a command not taken up yet.
    removed_members: Vec<u32>,
    /// That chat.
    removed_chat: Option<(u32, Chat)>,
    /// Groups that a removed user was in, and their new admins, if the server has not taken that
    /// up.
    left_by_hand: Vec<(u32, Option<u32>)>,
    /// Admins made by commands that the server has not taken up.
    pub(crate) made_admins: Vec<(u32, u32)>,
    /// Members added by commands: their time of joining is of the wall clock, outside the order of
    /// server time.
    pub(crate) added_by_hand: BTreeSet<(u32, u32)>,
    /// The disk had read faults in the phase being checked.
    pub(crate) unreadable: bool,
    /// The highest time of any event so far.
    pub(crate) high: i64,
    /// The monotonic clock, in milliseconds.
    pub(crate) now_ms: u64,
    /// The highest wall clock so far, in microseconds.
    pub(crate) highest_wall: i64,
    /// The lowest.
    pub(crate) lowest_wall: i64,
    /// The highest ids assigned so far.
    last_user: u32,
    last_session: u32,
    last_chat: u32,
    next_wait: u64,
    /// Failures counted per key, without the tokens that have come back.
    failures: BTreeMap<String, u32>,
    failures_unsure: u32,
    /// Wrong guesses in progress: they count when the work is done, even if the connection is gone.
    guesses: BTreeMap<u64, Vec<(String, u32)>>,
    /// What users have used of their limits.
    pub(super) used: BTreeMap<u32, limits::Used>,
    /// Files, by id.
    pub(crate) files: BTreeMap<u64, extras::File>,
    /// When users reacted.
    reacted_ms: BTreeMap<u32, Vec<u64>>,
    /// The connection whose frames are being checked speaks 1.1.
    reads_11: bool,
    /// The server has its key for pushes, so there are some.
    pub(crate) is_push_on: bool,
    /// That key, as HELLO returned it.
    push_key: Option<String>,
    /// Subscriptions that a push service has ended, by session and endpoint, if it is not known
    /// whether the server has stored that.
    pub(crate) gone: Vec<(u32, String)>,
    /// When a turn was last undone, in milliseconds of the monotonic clock.
    undone_ms: Option<u64>,
    /// How often each purpose was accepted, and each reason given.
    pub(crate) seen: BTreeMap<String, u64>,
}

/// An input of the server.
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
    /// A queue was closed.
    Closing {
        conn: ConnId,
    },
}

/// An input, with the server's state around it.
#[derive(Clone, Debug)]
pub(crate) struct Fed {
    pub(crate) input: Input,
    /// The highest server time after it was handled.
    pub(crate) after: i64,
    /// The wall clock as far as the server trusts it.
    pub(crate) wall: i64,
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

/// A turn, as the model checks it.
pub(crate) struct Turn<'a> {
    /// The staged frames of each connection, without notifications.
    pub(crate) staged: &'a mut BTreeMap<ConnId, VecDeque<Frame>>,
    /// The number of notifications.
    pub(crate) notices: BTreeMap<ConnId, u32>,
    /// It could not be stored, and all requests are declined.
    pub(crate) is_declined: bool,
    /// The disk had read faults: a single change may be declined.
    pub(crate) unreadable: bool,
    /// Password waits that began, in order.
    pub(crate) began: Vec<(ConnId, u64)>,
    after: i64,
    wall: i64,
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
            wall: 0,
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

    /// Whether the next answer is `storage-failed`, and may be.
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

/// The origin of a request.
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
    /// The texts of all messages.
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
            changes_wait: false,
            removed_members: Vec::new(),
            removed_chat: None,
            left_by_hand: Vec::new(),
            made_admins: Vec::new(),
            added_by_hand: BTreeSet::new(),
            unreadable: false,
            high: 0,
            now_ms: 0,
            highest_wall: 0,
            lowest_wall: i64::MAX,
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
            is_push_on: false,
            push_key: None,
            gone: Vec::new(),
            undone_ms: None,
            seen: BTreeMap::new(),
        }
    }

    /// Adds a user that existed before the server started.
    pub(crate) fn add_user(&mut self, id: u32, nickname: &str, password: &str, created: i64) {
        self.last_user = self.last_user.max(id);
        self.high = self.high.max(created);
        let user = User::new(nickname.to_owned(), password.to_owned(), created);
        self.users.insert(id, user);
    }

    /// The process has ended, and with it all connections and counters.
    pub(crate) fn restarted(&mut self) {
        self.conns.clear();
        self.failures.clear();
        self.failures_unsure = 0;
        self.guesses.clear();
        self.used.values_mut().for_each(limits::Used::restart);
        self.undone_ms = None;
        self.removed_members.clear();
        self.removed_chat = None;
        self.left_by_hand.clear();
        self.made_admins.clear();
        self.changes_wait = false;
        self.lockdown = self.lockdown_by_hand.take().unwrap_or(self.lockdown);
        (self.is_adding, self.is_removing) = (false, false);
        for chat in self.chats.values_mut() {
            chat.last_sent.clear();
            (chat.slow_before_s, chat.slow_since_ms) = (0, 0);
        }
    }

    /// A turn was undone: failures counted in it may remain.
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

    /// A connection is closing.
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

    /// Notes the time of an event; it must be later than all before.
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

    /// The answer to a request that must be accepted.
    fn accepted(&mut self, turn: &mut Turn<'_>, conn: ConnId, task: u8) -> Check<Vec<u8>> {
        let answer = turn.answer(conn, task)?;
        if !answer.accepted {
            let got = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(format!("{conn} task {task}: expected ACCEPTED, got {got}"));
        }
        Ok(answer.body)
    }

    /// Applies one input of a turn.
    pub(crate) fn apply(&mut self, turn: &mut Turn<'_>, fed: &Fed) -> Check {
        turn.after = fed.after;
        turn.wall = fed.wall;
        if let Input::Frame { conn, .. } = &fed.input
            && let Some(conn) = self.conns.get_mut(conn)
        {
            conn.heard_ms = self.now_ms;
        }
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
                if turn.is_declined {
                    self.refuse_waiting(turn, *conn)?;
                }
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
            wire::DISCONNECT if frame.body.is_empty() => {
                self.closing(conn);
                Ok(())
            }
            wire::HEARTBEAT if frame.body.len() <= 1024 => {
                self.refuse_waiting(turn, conn)?;
                self.accept(turn, conn, frame.task, &frame.body)
            }
            _ => {
                self.refuse_waiting(turn, conn)?;
                self.decline(turn, conn, frame.task, "storage-failed")
            }
        }
    }

    /// An earlier request still waits for password work: the session had ended in the undone turn,
    /// so later requests were handled. Its answer comes before theirs.
    fn refuse_waiting(&mut self, turn: &mut Turn<'_>, conn: ConnId) -> Check {
        let waiting = self.conns.get_mut(&conn).and_then(|state| state.waiting.take());
        match waiting {
            Some(waiting) => self.decline(turn, conn, waiting.task, "storage-failed"),
            None => Ok(()),
        }
    }

    fn user_by_key(&self, wanted: &str) -> Option<u32> {
        self.users.iter().find(|(_, user)| key(&user.nickname) == wanted).map(|(id, _)| *id)
    }

    fn chat_by_key(&self, wanted: &str) -> Option<u32> {
        let is_it = |chat: &Chat| chat.direct.is_none() && key(&chat.name) == wanted;
        self.chats.iter().find(|(_, chat)| is_it(chat)).map(|(id, _)| *id)
    }

    pub(crate) fn is_member(&self, user: u32, chat: u32) -> bool {
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

    /// The chat_info of section 5 or 5a, as a user sees it now.
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
