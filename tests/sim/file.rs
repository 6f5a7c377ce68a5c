//! Compares the database with the model, by SQL of the simulation's own.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};
use vestnik::auth::password;
use vestnik::auth::token::{self, InviteCode, ResetCode};
use vestnik::ids::ChatId;
use vestnik::store::checksum::DAMAGED;
use vestnik::store::open::Role;
use vestnik::store::{Database, Store};

use crate::model::{Message, Model, Subscription};
use crate::vfs;
use crate::wire::Check;

/// Path of the database on the simulated disk.
pub(crate) const PATH: &str = "/vestnik.db";

/// The simulation's own connection to the database while the server runs. It is opened when first
/// needed, and must be closed before the server closes the database.
#[derive(Default)]
pub(crate) struct Look(OnceCell<Connection>);

impl Look {
    /// Checks that the database contains exactly the model.
    pub(crate) fn compare(&self, model: &Model) -> Check {
        if self.0.get().is_none() {
            let _ = self.0.set(open()?);
        }
        self.0.get().map_or(Ok(()), |file| compare_by(file, model))
    }
}

/// Checks that the database is intact and contains exactly the model.
pub(crate) fn compare(model: &Model) -> Check {
    // SQLite's check of a search index is correct only on a new connection, since it caches what it
    // has read of the index.
    let file = open()?;
    compare_by(&file, model)?;
    whole(&file)
}

/// Checks that every message reads as in the model, or is damaged and found by a check.
pub(crate) fn compare_damaged(model: &Model) -> Check {
    let path = Path::new(PATH);
    let database = Database::open_with_vfs(path, vfs::NAME, Role::Reader, None)?;
    let mut store = Store::new(&database).map_err(|e| e.to_string())?;
    let mut damaged = BTreeSet::new();
    let verified = store.verify_all_messages(|chat, message| _ = damaged.insert((chat, message)));
    verified.map_err(|e| e.to_string())?;
    for (chat, found) in &model.chats {
        let chat = ChatId::new(*chat).ok_or("a chat id of 0")?;
        let mut wrong = None;
        let read = store.all_messages(chat, |message| {
            let expected = found.messages.get(&message.created.micros());
            let expected = expected.map(|message| &*message.content);
            let is_damaged = damaged.contains(&(chat.row(), message.created.micros()));
            let is_right = match is_damaged {
                true => message.content == DAMAGED,
                false => expected == Some(message.content),
            };
            if !is_right {
                wrong = Some(format!("{expected:?} is read as {:?}", message.content));
            }
            wrong.is_none()
        });
        read.map_err(|e| e.to_string())?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
    }
    Ok(())
}

/// A long read transaction, as of a backup: the WAL cannot restart meanwhile, so it grows.
pub(crate) struct Reader(
    #[expect(dead_code, reason = "its transaction is what counts")] Connection,
);

impl Reader {
    pub(crate) fn begin() -> Check<Self> {
        let file = open()?;
        let begun = file.execute_batch("BEGIN; SELECT count(*) FROM meta;");
        begun.map(|()| Self(file)).map_err(|e| format!("the file cannot be read: {e}"))
    }
}

fn open() -> Check<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = Connection::open_with_flags_and_vfs(PATH, flags, vfs::NAME);
    file.map_err(|e| format!("the file cannot be opened: {e}"))
}

fn compare_by(file: &Connection, model: &Model) -> Check {
    let look = || {
        times(model, file)?;
        users(model, file)?;
        passwords(model, file)?;
        codes(model, file)?;
        invites(model, file)?;
        sessions(model, file)?;
        subscriptions(model, file)?;
        chats(model, file)?;
        members(model, file)?;
        messages(model, file)?;
        reactions(model, file)?;
        files(model, file)?;
        nonces(model, file)
    };
    look().map_err(|wrong| format!("the file: {wrong}"))
}

fn rows<T>(
    file: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Check<Vec<T>> {
    let all = || -> rusqlite::Result<Vec<T>> {
        let mut statement = file.prepare_cached(sql)?;
        statement.query_map([], read)?.collect()
    };
    all().map_err(|e| format!("{sql}: {e}"))
}

fn whole(file: &Connection) -> Check {
    let found: Vec<String> = rows(file, "PRAGMA integrity_check", |row| row.get(0))?;
    if found == ["ok"] { Ok(()) } else { Err(format!("the file is damaged: {found:?}")) }
}

fn times(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT value FROM meta WHERE key = 'server_time'";
    let reserved: Vec<i64> = rows(file, sql, |row| row.get(0))?;
    if reserved.len() == 1 && reserved[0] >= model.high {
        return Ok(());
    }
    Err(format!("it knows of times up to {reserved:?}, and {} was given", model.high))
}

/// Compares two maps, and reports the first difference.
fn same<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    there: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Check {
    for (key, value) in expected {
        if there.get(key) != Some(value) {
            let found = there.get(key);
            return Err(format!("{what} {key:?} is {found:?}, and should be {value:?}"));
        }
    }
    match there.iter().find(|(key, _)| !expected.contains_key(key)) {
        Some((key, value)) => Err(format!("{what} {key:?} should not be there: {value:?}")),
        None => Ok(()),
    }
}

fn users(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT user_id, nickname, disabled, created, flags FROM users";
    let there = rows(file, sql, |row| {
        let numbers: (bool, i64, u8) = (row.get(2)?, row.get(3)?, row.get(4)?);
        Ok((row.get::<_, u32>(0)?, (row.get::<_, String>(1)?, numbers)))
    })?;
    let expected = model.users.iter().map(|(id, user)| {
        (*id, (user.nickname.clone(), (user.disabled, user.created, user.stored_flags())))
    });
    same("user", &there.into_iter().collect(), &expected.collect())
}

/// A password may be all that a turn changed.
fn passwords(model: &Model, file: &Connection) -> Check {
    let opens = |stored: &str, text: &str| {
        password::prepare_attempt(text).is_some_and(|text| password::verify(stored, &text))
    };
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let users: Vec<(u32, String)> = rows(file, "SELECT user_id, password FROM users", read)?;
    for (id, stored) in &users {
        let user = model.users.get(id).ok_or("a user that nobody made")?;
        if user.password.is_empty() && *stored == password::nobody(1) {
            continue;
        }
        if !opens(stored, &user.password) {
            return Err(format!("the password of user {id} is not {:?}", user.password));
        }
    }
    let sql = "SELECT chat_id, password FROM chats WHERE password IS NOT NULL";
    let chats: Vec<(u32, String)> = rows(file, sql, read)?;
    for (id, stored) in &chats {
        let text = model.chats.get(id).and_then(|chat| chat.password.as_deref());
        if !text.is_some_and(|text| opens(stored, text)) {
            return Err(format!("the password of chat {id} is not {text:?}"));
        }
    }
    Ok(())
}

/// A code for a password may be all that a turn changed.
fn codes(model: &Model, file: &Connection) -> Check {
    let there = rows(file, "SELECT user_id, digest, expires FROM reset_codes", |row| {
        Ok((row.get::<_, u32>(0)?, (row.get(1)?, row.get(2)?)))
    })?;
    let mut expected = BTreeMap::new();
    for (id, user) in &model.users {
        let Some((code, expires)) = &user.reset else { continue };
        let digest = ResetCode::parse(code).ok_or("a code that is none")?.digest();
        expected.insert(*id, (digest.0.to_vec(), *expires));
    }
    same::<u32, (Vec<u8>, i64)>("the code of user", &there.into_iter().collect(), &expected)
}

/// So may an invite, or a use of it. Those that are used up stay.
fn invites(model: &Model, file: &Connection) -> Check {
    const DAY_US: i64 = 24 * 3600 * 1_000_000;
    let sql = "SELECT digest, hint, registers, chat_id, uses_left, expires - created, creator,
                      operator FROM invites";
    let there: BTreeMap<Vec<u8>, InviteRow> = rows(file, sql, |row| {
        let numbers: (bool, Option<u32>, u16, i64) =
            (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        Ok((row.get(0)?, (row.get(1)?, numbers, (row.get(6)?, row.get(7)?))))
    })?
    .into_iter()
    .collect();
    let mut expected = BTreeMap::new();
    for (code, invite) in &model.invites {
        let code = InviteCode::parse(code).ok_or("a code that is none")?;
        let lasts_us = i64::from(invite.days) * DAY_US;
        let numbers = (invite.registers, invite.chat, invite.uses_left, lasts_us);
        let row = (code.hint(), numbers, (invite.creator, false));
        expected.insert(code.digest().0.to_vec(), row);
    }
    same("the invite", &there, &expected)
}

/// Hint; whether it registers, chat, uses, duration; creator, and whether it makes operators.
type InviteRow = (String, (bool, Option<u32>, u16, i64), (u32, bool));

fn sessions(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT session_id, user_id, digest, created, used FROM sessions";
    let there: BTreeMap<u32, (u32, Vec<u8>, i64, i64)> = rows(file, sql, |row| {
        Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
    })?
    .into_iter()
    .collect();
    for (id, session) in &model.sessions {
        let Some((user, digest, created, used)) = there.get(id) else {
            return Err(format!("session {id} is missing: {session:?}"));
        };
        let secret = token::session_digest(&session.secret).ok_or("a secret that is none")?;
        let is_right = *user == session.user && secret.0[..] == digest[..];
        let is_used = (session.used..=session.used_latest).contains(used);
        if !is_right || *created != session.created || !is_used {
            return Err(format!("session {id} is used {used}: {session:?}"));
        }
    }
    match there.keys().find(|id| !model.sessions.contains_key(id)) {
        Some(id) => Err(format!("session {id} should be over")),
        None => Ok(()),
    }
}

/// Each session has its endpoint, and pushes wait for those alone.
fn subscriptions(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT session_id, endpoint, p256dh, auth, created FROM push_subscriptions";
    let there = rows(file, sql, |row| {
        let (p256dh, auth): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        let (endpoint, created) = (row.get(1)?, row.get(4)?);
        let keys = [p256dh, auth].concat();
        Ok((row.get::<_, u32>(0)?, Subscription { endpoint, keys, created }))
    })?;
    let expected = model.sessions.iter().filter_map(|(id, session)| {
        let push = session.push.clone()?;
        Some((*id, push))
    });
    same("subscription", &there.into_iter().collect(), &expected.collect())?;
    let sql = "SELECT session_id, chat_id, message_id FROM push_pending";
    let pending: Vec<(u32, u32, i64)> =
        rows(file, sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (session, chat, message) in pending {
        let owner = model.sessions.get(&session).filter(|session| session.push.is_some());
        let owner = owner.ok_or_else(|| format!("a push waits for session {session}"))?;
        let found = model.chats.get(&chat).and_then(|chat| chat.messages.get(&message));
        if found.is_some_and(|found| found.sender == owner.user) {
            return Err(format!("a push of message {message} waits for its sender"));
        }
    }
    Ok(())
}

/// The endpoints in the database, by session.
pub(crate) fn endpoints() -> Check<Vec<(u32, String)>> {
    let sql = "SELECT session_id, endpoint FROM push_subscriptions";
    rows(&open()?, sql, |row| Ok((row.get(0)?, row.get(1)?)))
}

fn chats(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT chat_id, name, title, user_low, user_high, password IS NOT NULL,
                      member_count, created, closed FROM chats";
    let there = rows(file, sql, |row| {
        let direct = (row.get::<_, Option<u32>>(3)?, row.get::<_, Option<u32>>(4)?);
        let name: Option<String> = row.get(1)?;
        let texts: (String, String) = (name.unwrap_or_default(), row.get(2)?);
        let numbers: (bool, u32, i64, bool) = (row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?);
        Ok((row.get::<_, u32>(0)?, (texts, direct.0.zip(direct.1), numbers)))
    })?;
    let expected = model.chats.iter().map(|(id, chat)| {
        let members = chat.members.len() as u32;
        let numbers = (chat.password.is_some(), members, chat.created, chat.is_closed);
        (*id, ((chat.name.clone(), chat.title.clone()), chat.direct, numbers))
    });
    same("chat", &there.into_iter().collect(), &expected.collect())
}

fn members(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT chat_id, user_id, admin, joined, seen, notify FROM members";
    let there = rows(file, sql, |row| {
        let key: (u32, u32) = (row.get(0)?, row.get(1)?);
        let member: (bool, i64, i64, u8) = (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        Ok((key, member))
    })?;
    let expected = model.chats.iter().flat_map(|(chat, found)| {
        let members = found.members.iter();
        members.map(|(id, member)| {
            ((*chat, *id), (member.admin, member.joined, member.seen, member.notify))
        })
    });
    same("member", &there.into_iter().collect(), &expected.collect())?;
    let there: Vec<(u32, u32)> =
        rows(file, "SELECT chat_id, user_id FROM bans ORDER BY 1, 2", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let bans = |(chat, found): (&u32, &crate::model::Chat)| {
        let chat = *chat;
        found.bans.iter().map(move |user| (chat, *user)).collect::<Vec<_>>()
    };
    let expected: Vec<(u32, u32)> = model.chats.iter().flat_map(bans).collect();
    if there == expected { Ok(()) } else { Err(format!("bans {there:?}, expected {expected:?}")) }
}

fn messages(model: &Model, file: &Connection) -> Check {
    let sql =
        "SELECT chat_id, message_id, sender_id, coalesce(updated, message_id), status, content
               FROM messages WHERE chat_id IN (SELECT chat_id FROM chats)";
    let there = rows(file, sql, |row| {
        let key: (u32, i64) = (row.get(0)?, row.get(1)?);
        let message: (u32, i64, u8, String) = (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        Ok((key, message))
    })?;
    let expected = model.chats.iter().flat_map(|(chat, found)| {
        found
            .messages
            .iter()
            .map(|(id, m)| ((*chat, *id), (m.sender, m.updated, status(m), m.content.to_string())))
    });
    same("message", &there.into_iter().collect(), &expected.collect())
}

/// The status in a message's row, including the bits for rows in other tables.
fn status(message: &Message) -> u8 {
    let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    message.status
        | bit(message.reply.is_some(), 0x10)
        | bit(!message.files.is_empty(), 0x20)
        | bit(!message.reactions.is_empty(), 0x40)
}

fn reactions(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT chat_id, message_id, emoji, user_id, 0 FROM reactions
               JOIN emoji USING (chat_id, message_id, emoji_at)
               WHERE chat_id IN (SELECT chat_id FROM chats)
               UNION ALL
               SELECT chat_id, message_id, '', 0, reply_to FROM replies
               WHERE chat_id IN (SELECT chat_id FROM chats)";
    let there = rows(file, sql, |row| {
        let key: (u32, i64, String, u32) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok((key, row.get::<_, i64>(4)?))
    })?;
    let mut expected = BTreeMap::new();
    for (chat, found) in &model.chats {
        for (id, message) in &found.messages {
            for (emoji, users) in &message.reactions {
                let keys = users.iter().map(|user| ((*chat, *id, emoji.clone(), *user), 0));
                expected.extend(keys);
            }
            if let Some(reply) = message.reply {
                expected.insert((*chat, *id, String::new(), 0), reply);
            }
        }
    }
    same("reaction or reply", &there.into_iter().collect(), &expected)
}

/// Files, and how much of each is stored. Removed ones wait to be erased, and old uploads may be
/// gone.
fn files(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT file_id, chat_id, user_id, message_id, size, stored,
                      (SELECT coalesce(sum(length(bytes)), 0) FROM file_chunks c
                       WHERE c.file_id = f.file_id)
               FROM files f WHERE chat_id IN (SELECT chat_id FROM chats)";
    let there: BTreeMap<u64, FileRow> = rows(file, sql, |row| {
        let numbers: (u32, u32, Option<i64>) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let bytes: [i64; 3] = [row.get(4)?, row.get(5)?, row.get(6)?];
        Ok((row.get::<_, i64>(0)? as u64, (numbers, bytes)))
    })?
    .into_iter()
    .collect();
    let mut expected = BTreeMap::new();
    for (id, file) in &model.files {
        let is_old = model.may_be_swept(file);
        if !model.chats.contains_key(&file.chat) || is_old && !there.contains_key(id) {
            continue;
        }
        let stored = file.bytes.len() as i64;
        let numbers = (file.chat, file.user, file.message);
        expected.insert(*id, (numbers, [file.size as i64, stored, stored]));
    }
    same("file", &there, &expected)
}

type FileRow = ((u32, u32, Option<i64>), [i64; 3]);

fn nonces(model: &Model, file: &Connection) -> Check {
    let sql = "SELECT chat_id, user_id, nonce, message_id FROM nonces
               WHERE chat_id IN (SELECT chat_id FROM chats)";
    let there = rows(file, sql, |row| {
        let nonce: i64 = row.get(2)?;
        let key: (u32, u32, u64) = (row.get(0)?, row.get(1)?, nonce as u64);
        Ok((key, row.get::<_, i64>(3)?))
    })?;
    let expected = model.chats.iter().flat_map(|(chat, found)| {
        let chat = *chat;
        found.nonces.iter().map(move |((user, nonce), id)| ((chat, *user, *nonce), *id))
    });
    same("nonce", &there.into_iter().collect(), &expected.collect())
}
