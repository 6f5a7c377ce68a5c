//! A bot that repeats the messages it gets: the whole of a bot, to begin another one with.
//!
//! ```sh
//! vestnik user add echo
//! echo PASSWORD | cargo run --example echo_bot -- 127.0.0.1:7420 echo
//! ```
//!
//! In a group it answers messages that begin with `@echo`, in a direct chat all of them. Four
//! things in it are worth keeping in any bot:
//!
//! - **It goes on when the connection breaks**, and then reads what it missed from its cursor on.
//!   The cursor is past a message as soon as the bot has it, so the message waits until it is
//!   answered.
//! - **It answers once.** The id of a message is the nonce of the answer, so that a message that
//!   comes twice (live and by the catch-up, or since it was edited or reacted to) is answered by
//!   one message.
//! - **It never answers itself, other bots, or a reply.** Its own messages come back by the
//!   catch-up, and two bots that answer each other never end. A bot may log in as an ordinary user
//!   without the flag: since answers are replies, those are left alone, too.
//! - **It waits when it is asked to**: `rate-limited` says for how many seconds.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::stdin;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use purpose::client::{Client, Error, Event, Message, NewMessage, Options};
use purpose::ids::{ChatId, ServerTime, UserId};

/// How long it waits for an event before it asks the server for a sign of life.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Users of whom it is remembered whether they are bots.
const USERS_MAX: usize = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name] = arguments.as_slice() else {
        eprintln!("usage: echo_bot ADDRESS:PORT NAME, with the password on standard input");
        return ExitCode::from(2);
    };
    let mut password = String::new();
    if let Err(error) = stdin().read_line(&mut password) {
        eprintln!("echo_bot: cannot read the password: {error}");
        return ExitCode::FAILURE;
    }
    let error = run(address, name, password.trim_end());
    eprintln!("echo_bot: {error}");
    ExitCode::FAILURE
}

/// Runs until it cannot go on, such as for a wrong password; says why.
pub(crate) fn run(address: &str, name: &str, password: &str) -> Error {
    let mut pause = Duration::ZERO;
    let mut bot: Option<Bot> = None;
    loop {
        let outcome = match bot.as_mut() {
            None => Bot::start(address, name, password).map(|started| bot = Some(started)),
            Some(bot) => bot.come_back(password),
        };
        let outcome = match (outcome, bot.as_mut()) {
            (Ok(()), Some(bot)) => {
                pause = Duration::ZERO;
                bot.serve()
            }
            (outcome, _) => outcome,
        };
        let Err(error) = outcome else { continue };
        let Some(wait) = pause_after(&error, pause) else { return error };
        eprintln!("echo_bot: {error}: trying again");
        sleep(wait);
        pause = wait;
    }
}

/// How long to wait before the next attempt, longer each time; `None` when none would help.
fn pause_after(error: &Error, last: Duration) -> Option<Duration> {
    match error {
        Error::Declined(declined) if declined.code() == "rate-limited" => {
            let seconds = declined.number().and_then(|seconds| u64::try_from(seconds).ok());
            Some(Duration::from_secs(seconds.unwrap_or(1)))
        }
        Error::Declined(declined) => match declined.code() {
            "storage-failed" | "shutting-down" => Some(PAUSE_MAX),
            // The session has ended: another follows.
            "login-required" => Some(Duration::from_secs(1)),
            _ => None,
        },
        _ => Some((2 * last).clamp(Duration::from_millis(100), PAUSE_MAX)),
    }
}

struct Bot {
    client: Client,
    name: String,
    me: Option<UserId>,
    /// Only what was said since the start is answered.
    since: ServerTime,
    direct: HashSet<ChatId>,
    /// Messages that are not answered yet, the oldest first.
    waiting: VecDeque<(ChatId, Message)>,
    /// Whether a user is a bot.
    bots: HashMap<UserId, bool>,
}

impl Bot {
    fn start(address: &str, name: &str, password: &str) -> Result<Self, Error> {
        let mut client = Client::connect(address, Options::default())?;
        let me = client.login(name, password)?.user;
        // The login began the cursor: nothing before it is answered.
        let since = client.cursor().all;
        let (direct, waiting, bots) = (HashSet::new(), VecDeque::new(), HashMap::new());
        Ok(Self { client, name: name.to_owned(), me, since, direct, waiting, bots })
    }

    /// Makes the connection anew; the session too, if it has ended.
    fn come_back(&mut self, password: &str) -> Result<(), Error> {
        match self.client.reconnect() {
            Err(error) if error.code() == Some("bad-session") => {
                self.client.login(&self.name, password).map(drop)
            }
            other => other,
        }
    }

    /// Answers what was missed, then what comes, until the connection breaks or the session ends.
    fn serve(&mut self) -> Result<(), Error> {
        self.catch_up()?;
        loop {
            while let Some((chat, message)) = self.waiting.pop_front() {
                if let Err(error) = self.answer(chat, &message) {
                    self.waiting.push_front((chat, message));
                    return Err(error);
                }
            }
            match self.client.next_event(SILENCE_MAX)? {
                Some(Event::Message { chat, message }) => self.waiting.push_back((chat, message)),
                Some(Event::Chat(chat)) if chat.direct => drop(self.direct.insert(chat.id)),
                Some(Event::Missed) => self.catch_up()?,
                Some(Event::Deauth) => return Ok(()),
                Some(_) => {}
                // A connection that is dead says nothing; a request fails on it.
                None => self.client.heartbeat()?,
            }
        }
    }

    fn catch_up(&mut self) -> Result<(), Error> {
        let chats = self.client.my_chats()?;
        self.direct = chats.iter().filter(|chat| chat.direct).map(|chat| chat.id).collect();
        let waiting = &mut self.waiting;
        self.client.catch_up(|chat, message| waiting.push_back((chat, message)))
    }

    fn answer(&mut self, chat: ChatId, message: &Message) -> Result<(), Error> {
        let Some(words) = self.said_to_me(chat, message) else { return Ok(()) };
        if self.is_bot(message.sender)? {
            return Ok(());
        }
        let answer = NewMessage { content: words, reply: Some(message.id), files: &[] };
        loop {
            match self.client.send_with_nonce(chat, answer, message.id.get()) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_broken() || error.code() == Some("login-required") => {
                    return Err(error);
                }
                Err(error) => match pause_after(&error, Duration::ZERO) {
                    Some(wait) => sleep(wait),
                    // Such as a message that was deleted meanwhile, or a chat that is not mine now.
                    None => {
                        eprintln!("echo_bot: not answered: {error}");
                        return Ok(());
                    }
                },
            }
        }
    }

    /// What a message says to this bot, if it is to be answered.
    fn said_to_me<'a>(&self, chat: ChatId, message: &'a Message) -> Option<&'a str> {
        let is_old = message.created <= self.since;
        let is_mine = self.me.is_none_or(|me| me == message.sender);
        if is_old || is_mine || message.deleted || message.reply.is_some() {
            return None;
        }
        let content = message.content.trim();
        let called = content.strip_prefix('@').and_then(|rest| rest.strip_prefix(&*self.name));
        let called = called.filter(|rest| !rest.starts_with(char::is_alphanumeric));
        let words = called.or_else(|| self.direct.contains(&chat).then_some(content))?;
        Some(words.trim()).filter(|words| !words.is_empty())
    }

    fn is_bot(&mut self, user: UserId) -> Result<bool, Error> {
        if let Some(known) = self.bots.get(&user) {
            return Ok(*known);
        }
        let is_bot = match self.client.user(user) {
            Ok(user) => user.bot,
            // A user who is gone needs no answer.
            Err(error) if error.code() == Some("no-such-user") => true,
            Err(error) => return Err(error),
        };
        if self.bots.len() >= USERS_MAX {
            self.bots.clear();
        }
        self.bots.insert(user, is_bot);
        Ok(is_bot)
    }
}
