//! The worker thread, which has the connection: performs jobs in order, reports news, reconnects.
//!
//! A job stays in the queue until the server has answered it, so it is repeated after a break;
//! messages have nonces (idempotency keys) and are stored once. Must not know the screen.

mod introduce;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use purpose::client::{Chat, Client, Cursor, Error, Event, NewMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vestnik::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use vestnik::wire::Version;

use super::handle::{Handle, Outlet};
use super::job::{Job, News};
use super::pause::{longer, pause_after};
use super::perform::{self, Surroundings};
use super::report;
use super::server;
use super::transfers::Transfers;
use super::waker::{self, WakeReceiver};

/// News queued for the controller, at most; then the worker blocks (backpressure).
const NEWS_MAX: usize = 1024;
/// Silence after which the worker sends HEARTBEAT, to detect a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Interval of read markers.
const SEEN_PAUSE: Duration = Duration::from_millis(500);
/// Time limit for the rest of an incomplete frame.
const REST_WAIT: Duration = Duration::from_millis(20);
/// Direct chats whose other user is looked up for presence, at most.
const DIRECT_MAX: usize = 50;
/// Cached names, at most; then the cache is cleared.
const NAMES_MAX: usize = 10_000;
/// Messages remembered as known to the controller, at most; then the set is cleared.
const QUOTED_MAX: usize = 20_000;

/// The present time. The client is not part of the server, so it may read the clock.
#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Starts the worker with a logged-in client.
pub(super) fn start(client: Client, surroundings: Surroundings) -> io::Result<Handle> {
    let (jobs, jobs_in) = channel();
    let (news_out, news) = sync_channel(NEWS_MAX);
    let (waker, worker_receiver) = waker::pair()?;
    let (worker_waker, receiver) = waker::pair()?;
    let worker = Worker {
        client,
        jobs: jobs_in,
        receiver: worker_receiver,
        news: Outlet { news: news_out, waker: worker_waker },
        surroundings,
        transfers: Transfers::default(),
        waiting: VecDeque::new(),
        slowed: BTreeMap::new(),
        seen: BTreeMap::new(),
        seen_sent: now(),
        heard: now(),
        known: HashSet::new(),
        quoted: HashSet::new(),
        open: None,
    };
    thread::Builder::new().name("network".to_owned()).spawn(move || worker.run())?;
    Ok(Handle { jobs, waker, news, receiver })
}

/// The reason why serving jobs stopped.
pub(super) enum Stop {
    /// The connection broke, or the server declined a job temporarily.
    Broken(Error),
    /// The session is over; the words say why.
    Over(String),
    /// It was asked for.
    Quit { logoff: bool },
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let will_pass = match &error {
            Error::Declined(why) => pause_after(why.code(), why.number()).is_some(),
            _ => false,
        };
        if will_pass || error.is_broken() {
            Self::Broken(error)
        } else {
            Self::Over(report::reason(&error.to_string()))
        }
    }
}

struct Worker {
    client: Client,
    jobs: Receiver<Job>,
    receiver: WakeReceiver,
    news: Outlet,
    surroundings: Surroundings,
    /// Files on their way.
    transfers: Transfers,
    /// What is not done yet, the oldest first.
    waiting: VecDeque<Job>,
    /// Chats whose messages have to wait, and until when.
    slowed: BTreeMap<ChatId, Instant>,
    /// Markers to be sent.
    seen: BTreeMap<ChatId, ServerTime>,
    seen_sent: Instant,
    /// When the server was last heard.
    heard: Instant,
    /// Whose names the controller has.
    known: HashSet<UserId>,
    /// The chat that is shown.
    open: Option<ChatId>,
    /// Its messages that the controller has, so that it can show what answers them.
    quoted: HashSet<MessageId>,
}

impl Worker {
    fn run(mut self) {
        let mut stop = self.begin();
        let end = loop {
            match stop {
                Err(Stop::Over(words)) => break Err(words),
                Err(Stop::Quit { logoff }) => break self.say_good_bye(logoff),
                Err(Stop::Broken(error)) => stop = self.come_back(&error),
                Ok(()) => stop = self.serve(),
            }
        };
        self.client.disconnect();
        self.news.report(News::Ended(end));
    }

    /// Reports my chats. What changes from here on is news.
    fn begin(&mut self) -> Result<(), Stop> {
        let chats = self.client.my_chats()?;
        // LOGIN begins the cursor by itself; a session that was restored has none.
        if self.client.cursor().all == ServerTime::ZERO {
            let newest = chats.iter().map(|chat| chat.last_message).max().unwrap_or_default();
            let known = chats.iter().map(|chat| (chat.id, ServerTime::ZERO)).collect();
            self.client.set_cursor(Cursor { all: newest, chats: known });
        }
        self.report_chats(chats)?;
        self.news.report(News::Connected);
        Ok(())
    }

    /// Reports my chats, and who is online of those with whom I have a direct one.
    fn report_chats(&mut self, chats: Vec<Chat>) -> Result<(), Stop> {
        let direct = chats.iter().filter(|chat| chat.direct).map(|chat| chat.id);
        let direct: Vec<ChatId> = direct.take(DIRECT_MAX).collect();
        self.news.report(News::Chats(chats));
        direct.into_iter().try_for_each(|chat| self.report_members(chat))
    }

    /// Does jobs and takes what comes, until something ends it.
    fn serve(&mut self) -> Result<(), Stop> {
        let mut something_came = false;
        loop {
            self.take_jobs();
            let did_something = self.do_next()? | self.transfer()?;
            self.take_events(if something_came { REST_WAIT } else { Duration::ZERO })?;
            self.send_markers()?;
            something_came = if did_something { false } else { self.rest()? };
        }
    }

    fn take_jobs(&mut self) {
        self.receiver.hush();
        for job in self.jobs.try_iter() {
            match job {
                Job::Seen { chat, time } => {
                    let seen = self.seen.entry(chat).or_default();
                    *seen = time.max(*seen);
                }
                job => self.waiting.push_back(job),
            }
        }
    }

    /// Waits for jobs and for the server; true when the server sent something.
    fn rest(&mut self) -> Result<bool, Stop> {
        let begun = now();
        let slowed = self.slowed.values().min().copied();
        let seen = (!self.seen.is_empty()).then(|| self.seen_sent + SEEN_PAUSE);
        let silence = self.heard + SILENCE_MAX;
        let due =
            slowed.into_iter().chain(seen).chain(self.transfers.paused).chain([silence]).min();
        let timeout = due.map_or(SILENCE_MAX, |due| due.saturating_duration_since(begun));
        let something_came = self.client.wait_with(&self.receiver, timeout)?;
        if something_came {
            self.heard = now();
        } else if self.heard.elapsed() >= SILENCE_MAX {
            self.client.heartbeat()?;
            self.heard = now();
        }
        Ok(something_came)
    }

    /// Does the first job that need not wait; whether there was one.
    fn do_next(&mut self) -> Result<bool, Stop> {
        let now = now();
        self.slowed.retain(|_, until| *until > now);
        let slowed = &self.slowed;
        let may_run = |job: &Job| match job {
            Job::Send { chat, .. } => !slowed.contains_key(chat),
            _ => true,
        };
        let Some(at) = self.waiting.iter().position(may_run) else { return Ok(false) };
        let Some(job) = self.waiting.remove(at) else { return Ok(false) };
        match self.do_one(&job) {
            Err(Stop::Broken(error)) if job.is_safe_to_repeat() => {
                self.waiting.insert(at, job);
                Err(Stop::Broken(error))
            }
            Err(Stop::Broken(error)) => {
                let words = "the connection broke: nobody knows whether that was done";
                self.news.report(News::Failed(words.to_owned()));
                self.news.report(News::Done);
                Err(Stop::Broken(error))
            }
            Ok(is_done) => {
                if !is_done {
                    self.waiting.insert(at, job);
                }
                Ok(true)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Does a job; `false` when it has to wait.
    fn do_one(&mut self, job: &Job) -> Result<bool, Stop> {
        if let Some(feature) = job.newer_feature()
            && self.client.version() < Version::V1_1
        {
            self.refuse(job, feature);
            return Ok(true);
        }
        match job {
            Job::Send { .. } => return self.send(job),
            Job::Upload { .. } | Job::Save(_) => {
                let size_max = self.client.file_bytes_max();
                self.transfers.begin(job, &self.surroundings, size_max, &self.news);
                return Ok(true);
            }
            Job::Cancel => self.transfers.cancel(&mut self.client, &self.news),
            Job::Quit { logoff } => return Err(Stop::Quit { logoff: *logoff }),
            Job::Typing(chat) => match self.client.typing(*chat) {
                Err(error) if error.is_broken() => return Err(error.into()),
                // Typing is ephemeral: a failure concerns nobody.
                Ok(()) | Err(_) => return Ok(true),
            },
            _ => {}
        }
        match perform::perform(&mut self.client, job, &self.surroundings) {
            Ok(news) => news.into_iter().try_for_each(|news| self.report(news))?,
            Err(Error::Declined(why)) => {
                self.news.report(News::Failed(report::reason(why.words())));
            }
            Err(error) if error.is_broken() => return Err(Stop::Broken(error)),
            Err(error) => self.news.report(News::Failed(report::reason(&error.to_string()))),
        }
        self.news.report(News::Done);
        Ok(true)
    }

    /// What a job needs is newer than the server.
    fn refuse(&self, job: &Job, feature: &str) {
        let (major, minor) = self.client.version().numbers();
        let why = format!("this server does not know {feature}: it speaks API {major}.{minor}");
        let nonce = match job {
            Job::Send { nonce, .. } | Job::Upload { nonce, .. } => Some(*nonce),
            _ => None,
        };
        self.news.report(match nonce {
            Some(nonce) => News::NotSent { nonce, why },
            None => News::Failed(why),
        });
        match job {
            Job::Send { .. } => {}
            Job::Upload { .. } | Job::Save(_) => {
                self.news.report(News::TransferEnded(nonce.unwrap_or_default()));
            }
            _ => self.news.report(News::Done),
        }
    }

    /// Brings the files that are on their way a little further; whether there was something to do.
    fn transfer(&mut self) -> Result<bool, Stop> {
        let worked = self.transfers.step(&mut self.client, &self.news)?;
        // A file that is uploaded is sent like any message.
        self.waiting.extend(self.transfers.uploaded.drain(..));
        Ok(worked)
    }

    fn send(&mut self, job: &Job) -> Result<bool, Stop> {
        let Job::Send { chat, nonce, content, reply, files } = job else { return Ok(true) };
        let (chat, nonce) = (*chat, *nonce);
        let ids: Vec<FileId> = files.iter().map(|file| file.id).collect();
        let message = NewMessage { content, reply: *reply, files: &ids };
        let why = match self.client.send_with_nonce(chat, message, nonce) {
            Ok(sent) => {
                self.quoted.insert(sent.id);
                self.news.report(News::Sent { chat, nonce, sent, files: files.clone() });
                return Ok(true);
            }
            Err(Error::Declined(why)) => why,
            Err(error) => return Err(error.into()),
        };
        let words = report::reason(why.words());
        match pause_after(why.code(), why.number()) {
            Some(pause) => {
                self.slowed.insert(chat, now() + pause);
                self.news.report(News::Slowed { why: words, pause });
                Ok(false)
            }
            None => {
                self.news.report(News::NotSent { nonce, why: words });
                Ok(true)
            }
        }
    }

    /// Reports news to the controller, after the names that it needs for them.
    fn report(&mut self, news: News) -> Result<(), Stop> {
        match &news {
            News::Opened { chat, members, messages, .. } => {
                self.open = Some(chat.id);
                self.quoted.clear();
                self.known.extend(members.iter().map(|member| member.user));
                self.introduce(chat.id, messages)?;
            }
            News::Page { chat, messages, .. } => self.introduce(*chat, messages)?,
            News::Message(chat, message) => {
                // It does not come again: the next start continues after it, named or not.
                let introduced = self.introduce(*chat, std::slice::from_ref(message));
                self.news.report(news);
                return introduced;
            }
            News::Event(Event::Reaction(change)) if self.open == Some(change.chat) => {
                let introduced = self.introduce_user(change.user);
                self.news.report(news);
                return introduced;
            }
            News::Members(_, members) => {
                self.known.extend(members.iter().map(|member| member.user));
            }
            News::Event(Event::ChatGone(chat)) if self.open == Some(*chat) => self.open = None,
            _ => {}
        }
        self.news.report(news);
        Ok(())
    }

    fn take_events(&mut self, mut wait: Duration) -> Result<(), Stop> {
        while let Some(event) = self.client.next_event(wait)? {
            wait = Duration::ZERO;
            match event {
                Event::Missed => self.catch_up()?,
                Event::Deauth => {
                    let words = "the session was ended, or another client took it over";
                    return Err(Stop::Over(words.to_owned()));
                }
                Event::Message { chat, message } => self.report(News::Message(chat, message))?,
                event => {
                    let joined = self.joined_here(&event);
                    self.report(News::Event(event))?;
                    joined.map_or(Ok(()), |user| self.look_up_presence(user))?;
                }
            }
        }
        Ok(())
    }

    /// Reports what was missed. Of a chat that is new meanwhile only what is sent from now on comes
    /// by itself: the rest is read when it is opened.
    fn catch_up(&mut self) -> Result<(), Stop> {
        for chat in self.client.my_chats()? {
            if !self.client.cursor().chats.contains_key(&chat.id) {
                self.client.watch(chat.id, ServerTime::ZERO);
            }
        }
        if let Some(chat) = self.open {
            self.report_members(chat)?;
        }
        let mut unknown = HashSet::new();
        let mut answered = Vec::new();
        let open = self.open;
        let (news, known, quoted) = (&self.news, &self.known, &mut self.quoted);
        self.client.catch_up(|chat, message| {
            if !known.contains(&message.sender) {
                unknown.insert(message.sender);
            }
            if open == Some(chat) {
                quoted.insert(message.id);
                answered.extend(message.reply.map(|reply| (chat, reply)));
            }
            news.report(News::Message(chat, message));
        })?;
        for user in unknown {
            self.introduce_user(user)?;
        }
        for (chat, reply) in answered {
            self.quote(chat, reply)?;
        }
        let chats = self.client.my_chats()?;
        self.report_chats(chats)?;
        self.news.report(News::Connected);
        Ok(())
    }

    fn report_members(&mut self, chat: ChatId) -> Result<(), Stop> {
        match self.client.members(chat) {
            Ok(members) => self.report(News::Members(chat, members)),
            Err(error) if error.is_broken() => Err(error.into()),
            // It is gone, and a notification will say so.
            Err(_) => Ok(()),
        }
    }

    /// Moves my markers to what was seen, now and then.
    fn send_markers(&mut self) -> Result<(), Stop> {
        let now = now();
        if self.seen.is_empty() || now < self.seen_sent + SEEN_PAUSE {
            return Ok(());
        }
        self.seen_sent = now;
        self.mark_all()
    }

    fn mark_all(&mut self) -> Result<(), Stop> {
        while let Some((chat, time)) = self.seen.pop_first() {
            match self.client.mark_seen(chat, time) {
                Err(error) if error.is_broken() => {
                    self.seen.insert(chat, time);
                    return Err(error.into());
                }
                // The chat is gone; or nothing can be written, and the next marker says more.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Makes a new connection, however long it takes.
    fn come_back(&mut self, error: &Error) -> Result<(), Stop> {
        let mut why = server::described(error);
        let mut pause = match error {
            Error::Declined(declined) => pause_after(declined.code(), declined.number()),
            _ => None,
        }
        .unwrap_or_default();
        loop {
            self.news.report(News::Lost { why: report::reason(&why) });
            self.sleep(pause)?;
            match self.client.reconnect() {
                Ok(()) => return Ok(()),
                Err(Error::Declined(declined)) => {
                    let Some(wait) = pause_after(declined.code(), declined.number()) else {
                        return Err(Stop::Over(session_over(declined.code(), declined.words())));
                    };
                    why = declined.words().to_owned();
                    pause = wait;
                }
                Err(error) => {
                    why = server::described(&error);
                    pause = longer(pause);
                }
            }
        }
    }

    /// Sleeps, unless it is time to quit.
    fn sleep(&mut self, pause: Duration) -> Result<(), Stop> {
        let until = now() + pause;
        loop {
            self.take_jobs();
            let quit = self.waiting.iter().find_map(|job| match job {
                Job::Quit { logoff } => Some(*logoff),
                _ => None,
            });
            if let Some(logoff) = quit {
                return Err(Stop::Quit { logoff });
            }
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(());
            }
            let timeout = Timespec::try_from(left).ok();
            let _ = poll(&mut [PollFd::new(&self.receiver, PollFlags::IN)], timeout.as_ref());
        }
    }

    /// Sends what can be sent at once; does not wait for the rest.
    fn say_good_bye(&mut self, logoff: bool) -> Result<(), String> {
        // A marker that is lost costs nothing: the next one says more.
        let _ = self.mark_all();
        self.transfers.cancel(&mut self.client, &self.news);
        if logoff {
            let words = |error: Error| {
                let why = report::reason(&error.to_string());
                format!("the session is forgotten here, but not ended: {why}")
            };
            self.client.logoff().map_err(words)?;
        }
        Ok(())
    }
}

fn session_over(code: &str, words: &str) -> String {
    match code {
        "bad-session" => "the session has ended: log in again".to_owned(),
        _ => report::reason(words),
    }
}
