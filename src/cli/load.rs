//! `vestnik load prepare`: users, chats and messages for load tests (`vestnik-load`).

use clap::{Subcommand, value_parser};
use vestnik::auth::password::{Kind, Secret};
use vestnik::ids::{ChatId, MessageId, ServerTime, UserId};
use vestnik::limits;
use vestnik::names::Name;
use vestnik::store::{Database, Store};

use super::chat::add_member;
use super::failure::Failure;
use super::file::Stop;
use super::{Context, Outcome, file, secret};

/// The password of every load user.
const PASSWORD: &str = "load-password";

/// Rounds of its hash: a load test is not to measure PBKDF2.
const ROUNDS: u32 = 1;

/// Messages stored in one transaction.
const MESSAGES_PER_COMMIT: u64 = 20_000;

/// Longest time between two messages: about what people leave.
const MESSAGE_STEP_US_MAX: i64 = 1_000_000;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Fill a data file: users load0, load1, … with the password `load-password`, in chats
    Prepare(Arguments),
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    let Command::Prepare(arguments) = command;
    prepare(&arguments, context)
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How many users
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    users: u32,
    /// A chat of which all are members; may be repeated
    #[arg(long = "chat", value_name = "NAME", default_value = "load")]
    named: Vec<String>,
    /// Chats NAME, NAME-1, NAME-2, …, as `vestnik-load --chats` uses them, for each that is named
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    chats: u16,
    /// Users are members of one chat each, in turn, as the connections of `vestnik-load --chats`
    #[arg(long)]
    spread: bool,
    /// Messages to store in each chat; no server may be running on the file then
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u64).range(..=1_000_000_000))]
    messages: u64,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = payload)]
    payload: usize,
}

fn payload(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok();
    let bytes = bytes.filter(|bytes| (1..=limits::CONTENT_BYTES_MAX).contains(bytes));
    bytes.ok_or_else(|| format!("it is a number from 1 to {}", limits::CONTENT_BYTES_MAX))
}

fn prepare(arguments: &Arguments, context: &mut Context<'_>) -> Outcome {
    let names = names(arguments)?;
    let data = &context.data;
    let database = if arguments.messages > 0 {
        Database::open_server(data).map_err(Failure::Failed)?
    } else {
        Database::open_command(data, true)?
    };
    let (users, chats) = file::write(data, &database, |store| {
        let users = add_users(store, arguments.users)?;
        let chats = add_chats(store, &names)?;
        add_members(store, &chats, &users, arguments.spread)?;
        Ok((users, chats))
    })?;
    if arguments.messages > 0 {
        let writer = Writer {
            context,
            database: &database,
            users: &users,
            chats: &chats,
            spread: arguments.spread,
        };
        writer.fill(arguments.messages, arguments.payload)?;
    }
    writeln!(
        context.out,
        "prepared {} users in {} chats, with {} messages of {} bytes in each",
        users.len(),
        chats.len(),
        arguments.messages,
        arguments.payload,
    )?;
    Ok(())
}

/// Adds those of load0, load1, … that are not there yet.
fn add_users(store: &mut Store<'_>, count: u32) -> Result<Vec<UserId>, Stop> {
    let password = secret::prepare(&Secret::new(PASSWORD.to_owned()), Kind::User)?;
    let now = file::now();
    let mut users = Vec::new();
    for index in 0..count {
        let name = format!("load{index}");
        if let Some(there) = store.user_by_key(&name)? {
            users.push(there.user);
            continue;
        }
        let hash = secret::hash(&password, ROUNDS)?;
        users.extend(store.add_user(&name, &name, &hash, now)?);
    }
    Ok(users)
}

/// Names of all chats that are asked for.
fn names(arguments: &Arguments) -> Result<Vec<Name>, Failure> {
    let named = arguments.named.iter().flat_map(|given| {
        let name = move |number| match number {
            0 => given.clone(),
            _ => format!("{given}-{number}"),
        };
        (0..arguments.chats).map(name)
    });
    named.map(|name| file::parse_group(&name)).collect()
}

/// Adds those of the chats that are not there yet.
fn add_chats(store: &mut Store<'_>, names: &[Name]) -> Result<Vec<ChatId>, Stop> {
    let now = file::now();
    let mut chats = Vec::new();
    for name in names {
        match store.chat_by_key(name.key())? {
            Some(there) => chats.push(there.chat),
            None => chats.extend(store.add_chat(name.text(), name.key(), None, now)?),
        }
    }
    Ok(chats)
}

/// Makes users members where they are not yet: all of them of each chat, or spread over the chats.
fn add_members(
    store: &mut Store<'_>,
    chats: &[ChatId],
    users: &[UserId],
    spread: bool,
) -> Result<(), Stop> {
    let now = file::now();
    for (place, &chat) in chats.iter().enumerate() {
        let (first, step) = if spread { (place, chats.len()) } else { (0, 1) };
        for &user in users.iter().skip(first).step_by(step) {
            if store.member(chat, user)?.is_none() {
                add_member(store, chat, user, false, now)?;
            }
        }
    }
    Ok(())
}

/// Stores messages, chat after chat, so that each lands next to the one before it.
struct Writer<'a, 'b> {
    context: &'a Context<'b>,
    database: &'a Database,
    users: &'a [UserId],
    chats: &'a [ChatId],
    spread: bool,
}

impl Writer<'_, '_> {
    /// Who wrote this message of the chat in this place: its members in turn.
    fn sender(&self, chat: usize, number: u64) -> UserId {
        let (first, step) = if self.spread { (chat, self.chats.len()) } else { (0, 1) };
        let members = self.users.len().saturating_sub(first).div_ceil(step).max(1);
        let place = first + number as usize % members * step;
        // With fewer users than chats some chats have no members.
        self.users[place % self.users.len()]
    }

    /// Stores `count` messages in each chat, with times as if the chats had been used in turn.
    fn fill(&self, per_chat: u64, payload: usize) -> Outcome {
        let total = per_chat.saturating_mul(self.chats.len() as u64);
        let times = file::look(&self.context.data, |store| Ok(store.server_time()?))
            .and_then(|last| Times::between(last, file::now(), total))?;
        for (index, &chat) in self.chats.iter().enumerate() {
            let mut done = 0;
            while done < per_chat {
                let end = (done + MESSAGES_PER_COMMIT).min(per_chat);
                file::write(&self.context.data, self.database, |store| {
                    // No time given later may be one of these; all of them are spoken for at once.
                    file::move_server_time(store, times.last)?;
                    for number in done..end {
                        let place = number * self.chats.len() as u64 + index as u64;
                        let sender = self.sender(index, number);
                        let id = MessageId::at(times.at(place));
                        store.add_message(chat, id, sender, &content(place, payload))?;
                    }
                    Ok(())
                })?;
                done = end;
            }
        }
        Ok(())
    }
}

/// Times for messages: evenly spread, after all that the file has given, before now.
#[derive(Debug, PartialEq, Eq)]
struct Times {
    first: i64,
    step: i64,
    last: ServerTime,
}

impl Times {
    fn between(given: ServerTime, now: ServerTime, total: u64) -> Result<Self, Failure> {
        let total = i64::try_from(total.max(1)).unwrap_or(i64::MAX);
        let room = now.micros().saturating_sub(given.micros());
        let step = (room / total.saturating_add(1)).min(MESSAGE_STEP_US_MAX);
        if step < 1 {
            return Err(Failure::Failed(format!(
                "there is no room for {total} messages between the last time that the file gave \
                 and the clock: try again later, or with a new file"
            )));
        }
        let first = now.micros() - step * total;
        let last = ServerTime::new(first + step * (total - 1)).unwrap_or_default();
        Ok(Self { first, step, last })
    }

    fn at(&self, place: u64) -> ServerTime {
        ServerTime::new(self.first + self.step * place as i64).unwrap_or_default()
    }
}

/// Words of exactly `bytes` bytes; the first is this message's alone, for searches.
fn content(place: u64, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "tea", "window", "tomorrow", "yes", "the", "train", "late", "again", "bring", "bread",
        "and", "we", "call", "evening", "good", "perhaps",
    ];
    let mut text = format!("m{place}");
    let mut seed = place;
    while text.len() < bytes {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(' ');
        text.push_str(WORDS[(seed >> 60) as usize]);
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_have_their_size() {
        for bytes in [1, 2, 7, 100, 16_384] {
            assert_eq!(content(123_456, bytes).len(), bytes);
        }
        assert!(content(5, 100).starts_with("m5 "));
    }

    #[test]
    fn times_lie_between_what_was_given_and_now() {
        let at = |micros| ServerTime::new(micros).unwrap();
        for (given, now, total) in [(0, 10_000_000_000, 100), (990, 1000, 9), (0, 1_000_000, 7)] {
            let times = Times::between(at(given), at(now), total).unwrap();
            assert!(times.at(0) > at(given), "{times:?}");
            assert!(times.last < at(now), "{times:?}");
            assert_eq!(times.at(total - 1), times.last);
        }
        assert!(Times::between(at(990), at(1000), 10).is_err());
        assert!(Times::between(at(1000), at(990), 1).is_err());
    }
}
