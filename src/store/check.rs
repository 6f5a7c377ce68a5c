//! The rules of `vestnik check`: what must hold for the rows, beyond what the schema enforces.

use rusqlite::{Row, params_from_iter};

use super::{Store, StoreResult};

/// Checks of contents that the store cannot do itself.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Whether a stored name is valid and has this key.
    pub is_name: fn(name: &str, key: &str) -> bool,
    /// Whether a text is a valid stored password.
    pub is_password: fn(stored: &str) -> bool,
}

/// The result of checking all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
    /// Users, disabled ones included.
    pub users: u64,
    /// Chats of both kinds.
    pub chats: u64,
    /// Messages of these chats.
    pub messages: u64,
    /// Messages and nonces of removed chats, which wait to be swept: not an error.
    pub unswept: u64,
    /// Imports in progress, or interrupted ones: not an error.
    pub unfinished: u64,
}

/// Violations of one rule that are listed; the others are only counted.
const LISTED_MAX: u64 = 10;

/// One rule, with a query for the rows that violate it, each as a text that names the row. For a
/// large table, `{slice}` in the query stands for a range of its rows.
struct Rule {
    wrong: &'static str,
    rows: &'static str,
    slices: Option<Slices>,
}

/// A large table and its key.
#[derive(Clone, Copy)]
struct Slices {
    table: &'static str,
    key: &'static [&'static str],
}

const MESSAGES_BY_ID: Slices = Slices { table: "messages", key: &["chat_id", "message_id"] };
const NONCES: Slices = Slices { table: "nonces", key: &["chat_id", "user_id", "nonce"] };
const INDEXED: Slices = Slices { table: "search_rows", key: &["message_id"] };
const CHUNKS: Slices = Slices { table: "file_chunks", key: &["file_id", "start"] };

/// Rows of such a table read in one transaction: a few milliseconds of work.
const ROWS_PER_SLICE: u32 = 4_096;

const fn rule(wrong: &'static str, rows: &'static str) -> Rule {
    Rule { wrong, rows, slices: None }
}

const fn sliced(slices: Slices, wrong: &'static str, rows: &'static str) -> Rule {
    Rule { wrong, rows, slices: Some(slices) }
}

const USERS: &[Rule] = &[
    rule(
        "a user id out of range",
        "SELECT 'user ' || user_id FROM users WHERE user_id NOT BETWEEN 1 AND 4294967295",
    ),
    rule(
        "a user neither enabled nor disabled, or made before all time",
        "SELECT 'user ' || user_id FROM users WHERE disabled NOT IN (0, 1) OR created < 0",
    ),
    rule(
        "a disabled user with sessions",
        "SELECT 'user ' || user_id FROM users
         WHERE disabled = 1 AND user_id IN (SELECT user_id FROM sessions)",
    ),
    rule(
        "a session of nobody",
        "SELECT 'session ' || session_id || ' of user ' || user_id FROM sessions
         WHERE user_id NOT IN (SELECT user_id FROM users)",
    ),
    rule(
        "a session that cannot be restored",
        "SELECT 'session ' || session_id FROM sessions
         WHERE session_id NOT BETWEEN 1 AND 4294967295 OR length(digest) <> 32
            OR created < 0 OR used < created",
    ),
    rule(
        "an invite that cannot be used",
        "SELECT 'invite ' || hint FROM invites
         WHERE length(digest) <> 32 OR uses_left < 0 OR created < 0 OR expires < created",
    ),
];

const CHATS: &[Rule] = &[
    rule(
        "a chat id out of range",
        "SELECT 'chat ' || chat_id FROM chats WHERE chat_id NOT BETWEEN 1 AND 4294967295",
    ),
    rule(
        "a group with half of a name, or with the two users of a direct chat",
        "SELECT 'chat ' || chat_id FROM chats WHERE kind = 0
            AND ((name IS NULL) <> (name_key IS NULL)
                 OR user_low IS NOT NULL OR user_high IS NOT NULL)",
    ),
    rule(
        "a direct chat with a name or a password, or without two users in order",
        "SELECT 'chat ' || chat_id FROM chats WHERE kind = 1
            AND (name IS NOT NULL OR name_key IS NOT NULL OR password IS NOT NULL
                 OR user_low IS NULL OR user_high IS NULL OR user_low >= user_high
                 OR user_low NOT IN (SELECT user_id FROM users)
                 OR user_high NOT IN (SELECT user_id FROM users))",
    ),
    rule(
        "a direct chat with others than its two as members",
        "SELECT 'chat ' || c.chat_id || ', user ' || m.user_id
         FROM chats c JOIN members m USING (chat_id)
         WHERE c.kind = 1 AND m.user_id NOT IN (c.user_low, c.user_high)",
    ),
    rule(
        "a chat with a policy out of range, a title too long, or made before all time",
        "SELECT 'chat ' || chat_id FROM chats
         WHERE slow_mode_s NOT BETWEEN 0 AND 4294967295 OR keep_days NOT BETWEEN 0 AND 4294967295
            OR length(title) > 128 OR created < 0",
    ),
    rule(
        "a chat that counts its members wrong",
        "SELECT 'chat ' || chat_id || ' counts ' || member_count || ', has ' || there FROM
            (SELECT chat_id, member_count,
                    (SELECT count(*) FROM members m WHERE m.chat_id = c.chat_id) AS there
             FROM chats c)
         WHERE member_count <> there",
    ),
    // Deleted messages keep their rows, expired ones do not, so there may be fewer than were
    // counted.
    rule(
        "a chat that counts its messages wrong",
        "SELECT 'chat ' || chat_id FROM chats c
         WHERE message_count < (SELECT count(*) FROM messages m
                                WHERE m.chat_id = c.chat_id AND m.message_id <= c.last_message)
            OR (last_message <> 0 AND NOT EXISTS
                (SELECT 1 FROM messages m
                 WHERE m.chat_id = c.chat_id AND m.message_id = c.last_message))",
    ),
    rule(
        "a member whose unread messages are counted wrong",
        "WITH counted AS (
             SELECT m.chat_id, m.user_id, m.seen, c.last_message,
                    min(c.message_count - m.known_count, 1000) AS unread
             FROM members m JOIN chats c USING (chat_id)
             WHERE m.known_count IS NOT NULL
               AND (m.deletions = c.deletions OR m.seen >= c.last_deleted))
         SELECT 'chat ' || chat_id || ', user ' || user_id FROM counted t
         WHERE unread <> (SELECT count(*) FROM
            (SELECT 1 FROM messages m WHERE m.chat_id = t.chat_id AND m.message_id > t.seen
                AND m.message_id <= t.last_message AND m.sender_id <> t.user_id
                AND m.status & 2 = 0 LIMIT 1000))",
    ),
    rule(
        "a member of a chat that is not there, or who is not there",
        "SELECT 'chat ' || chat_id || ', user ' || user_id FROM members
         WHERE chat_id NOT IN (SELECT chat_id FROM chats)
            OR user_id NOT IN (SELECT user_id FROM users)",
    ),
    rule(
        "a member neither admin nor none, or with a time before all time",
        "SELECT 'chat ' || chat_id || ', user ' || user_id FROM members
         WHERE admin NOT IN (0, 1) OR joined < 0 OR seen < 0",
    ),
    rule(
        "a ban from a chat that is not there, or of a user who is not there",
        "SELECT 'chat ' || chat_id || ', user ' || user_id FROM bans
         WHERE chat_id NOT IN (SELECT chat_id FROM chats)
            OR user_id NOT IN (SELECT user_id FROM users)",
    ),
    rule(
        "a member who is banned",
        "SELECT 'chat ' || chat_id || ', user ' || user_id
         FROM members JOIN bans USING (chat_id, user_id)",
    ),
];

/// Rules for messages, except those of removed chats, which nobody can read and which will be
/// swept.
const MESSAGES: &[Rule] = &[
    sliced(
        MESSAGES_BY_ID,
        "a message id that no message can have, or after all times given",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice}
         WHERE (message_id <= 0
                OR message_id > (SELECT value FROM meta WHERE key = 'server_time'))
           AND chat_id IN (SELECT chat_id FROM chats)",
    ),
    sliced(
        MESSAGES_BY_ID,
        "an edit or deletion before its message, or after all times given",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice}
         WHERE (updated < message_id
                OR updated > (SELECT value FROM meta WHERE key = 'server_time'))
           AND chat_id IN (SELECT chat_id FROM chats)",
    ),
    sliced(
        MESSAGES_BY_ID,
        "a message with a status that does not fit",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice}
         WHERE status & ~0x73 <> 0 OR (status & 3 <> 0 AND updated IS NULL)
            OR (status & 2 <> 0 AND status & 0x70 <> 0)",
    ),
    sliced(
        MESSAGES_BY_ID,
        "a deleted message with content",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice}
         WHERE status & 2 <> 0 AND content <> ''",
    ),
    sliced(
        MESSAGES_BY_ID,
        "a message by nobody",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice}
         WHERE sender_id NOT IN (SELECT user_id FROM users)
            AND chat_id IN (SELECT chat_id FROM chats)",
    ),
    sliced(
        NONCES,
        "a nonce of nobody, or of a message by somebody else",
        "SELECT 'chat ' || n.chat_id || ', user ' || n.user_id || ', message ' || n.message_id
         FROM {slice} n LEFT JOIN messages m USING (chat_id, message_id)
         WHERE n.chat_id IN (SELECT chat_id FROM chats)
           AND (n.user_id NOT IN (SELECT user_id FROM users) OR m.sender_id <> n.user_id)",
    ),
    rule(
        "a purge of nobody",
        "SELECT 'user ' || user_id FROM purges
         WHERE user_id NOT IN (SELECT user_id FROM users)",
    ),
    sliced(
        INDEXED,
        "an indexed message that is not there",
        "SELECT 'chat ' || r.chat_id || ', message ' || r.message_id
         FROM {slice} r LEFT JOIN messages m USING (chat_id, message_id)
         WHERE m.message_id IS NULL OR m.status & 2 <> 0",
    ),
    sliced(
        INDEXED,
        "a message both indexed and about to leave the index",
        "SELECT 'chat ' || chat_id || ', message ' || message_id
         FROM {slice} JOIN search_pending USING (chat_id, message_id)",
    ),
    rule(
        "no record of the times given",
        "SELECT 'meta' WHERE NOT EXISTS
            (SELECT 1 FROM meta WHERE key = 'server_time' AND value >= 0)",
    ),
];

/// A message that does not match its checksum.
const DAMAGED: &str = "a message that does not match its checksum, or is no text";
/// A chunk of a file that does not match its checksum.
const DAMAGED_CHUNK: &str = "a part of a file that does not match its checksum";

/// Rules for extras: the status of a message must match the rows in other tables.
const EXTRAS: &[Rule] = &[
    sliced(
        MESSAGES_BY_ID,
        "a reply that its message does not know of, or the other way round",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice} m
         WHERE status & 0x10 <> 0 AND NOT EXISTS (SELECT 1 FROM replies r
            WHERE r.chat_id = m.chat_id AND r.message_id = m.message_id)",
    ),
    rule(
        "a reply that its message does not know of, or the other way round",
        "SELECT 'chat ' || r.chat_id || ', message ' || r.message_id
         FROM replies r LEFT JOIN messages m USING (chat_id, message_id)
         WHERE coalesce(m.status, 0) & 0x10 = 0",
    ),
    sliced(
        MESSAGES_BY_ID,
        "a message whose files are not there, or that does not know of them",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice} m
         WHERE status & 0x20 <> 0 AND NOT EXISTS (SELECT 1 FROM files f
            WHERE f.chat_id = m.chat_id AND f.message_id = m.message_id)",
    ),
    rule(
        "a message whose files are not there, or that does not know of them",
        "SELECT 'chat ' || f.chat_id || ', message ' || f.message_id
         FROM files f LEFT JOIN messages m USING (chat_id, message_id)
         WHERE f.message_id IS NOT NULL AND coalesce(m.status, 0) & 0x20 = 0",
    ),
    sliced(
        MESSAGES_BY_ID,
        "a message whose reactions are not there, or that does not know of them",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM {slice} m
         WHERE status & 0x40 <> 0 AND NOT EXISTS (SELECT 1 FROM emoji e
            WHERE e.chat_id = m.chat_id AND e.message_id = m.message_id)",
    ),
    rule(
        "a message whose reactions are not there, or that does not know of them",
        "SELECT 'chat ' || e.chat_id || ', message ' || e.message_id
         FROM emoji e LEFT JOIN messages m USING (chat_id, message_id)
         WHERE coalesce(m.status, 0) & 0x40 = 0",
    ),
    rule(
        "an emoji that counts its users wrong",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM emoji e
         WHERE users < 1 OR users <> (SELECT count(*) FROM reactions r
            WHERE r.chat_id = e.chat_id AND r.message_id = e.message_id
              AND r.emoji_at = e.emoji_at)",
    ),
    rule(
        "a reaction with an emoji that is not there",
        "SELECT 'chat ' || r.chat_id || ', message ' || r.message_id
         FROM reactions r LEFT JOIN emoji e USING (chat_id, message_id, emoji_at)
         WHERE e.emoji IS NULL",
    ),
    rule(
        "a file whose bytes are not all there",
        "SELECT 'file ' || file_id FROM files f
         WHERE file_id > (SELECT coalesce(max(value), 0) FROM meta WHERE key = 'files_left_out')
           AND (stored > size OR stored < 0 OR (message_id IS NOT NULL AND stored <> size)
                OR stored <> (SELECT coalesce(sum(length(bytes)), 0) FROM file_chunks c
                              WHERE c.file_id = f.file_id)
                OR stored <> (SELECT coalesce(max(start + length(bytes)), 0) FROM file_chunks c
                              WHERE c.file_id = f.file_id))",
    ),
    sliced(
        CHUNKS,
        "bytes of a file that is not there",
        "SELECT DISTINCT 'file ' || file_id FROM {slice}
         WHERE file_id NOT IN (SELECT file_id FROM files)
           AND file_id NOT IN (SELECT file_id FROM files_erased)",
    ),
    rule(
        "an upload of a user who is not a member of its chat",
        "SELECT 'file ' || file_id FROM files f WHERE message_id IS NULL AND NOT EXISTS
            (SELECT 1 FROM members m WHERE m.chat_id = f.chat_id AND m.user_id = f.user_id)",
    ),
    rule(
        "files that are counted wrong",
        "SELECT 'user ' || user_id FROM file_usage u
         WHERE bytes <> (SELECT coalesce(sum(size), 0) FROM files f
                         WHERE u.user_id IN (0, f.user_id)
                           AND (message_id IS NULL OR stored = size))
            OR uploads <> (SELECT count(*) FROM files f
                           WHERE message_id IS NULL AND u.user_id IN (0, f.user_id))",
    ),
];

/// All names, with their keys.
const NAMES: Rule = rule(
    "a name that is none, or with another's key",
    "SELECT 'user ' || user_id, nickname, name_key FROM users
     UNION ALL
     SELECT 'chat ' || chat_id, name, name_key FROM chats
     WHERE name IS NOT NULL AND name_key IS NOT NULL",
);

/// All stored passwords.
const PASSWORDS: Rule = rule(
    "a password that nobody can match",
    "SELECT 'user ' || user_id, password FROM users
     UNION ALL
     SELECT 'chat ' || chat_id, password FROM chats WHERE password IS NOT NULL",
);

/// An id of two messages.
const GIVEN_TWICE: Rule = rule(
    "a message id given twice",
    "SELECT 'message ' || message_id FROM temp.ids GROUP BY message_id HAVING count(*) > 1",
);

impl Store<'_> {
    /// Checks all rows. Large tables are read in slices, so that the WAL can be truncated in
    /// between; `pause` is called between slices, to yield to a server. Do not call it within a
    /// transaction.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn check(&mut self, rules: Rules, pause: &mut dyn FnMut()) -> StoreResult<Report> {
        let mut report = Report {
            users: self.count("SELECT count(*) FROM users")?,
            chats: self.count("SELECT count(*) FROM chats")?,
            ..Report::default()
        };
        report.unfinished = self.unnamed_chats()?.len() as u64;
        self.end_look()?;
        let chats = "chat_id IN (SELECT chat_id FROM chats)";
        let of = |sign| {
            format!(
                "SELECT count(*) FROM {{slice}} WHERE chat_id {sign} (SELECT chat_id FROM chats)"
            )
        };
        let (mut kept, mut unswept) = (0, 0);
        self.sum_slices(MESSAGES_BY_ID, &of("IN"), &mut kept, pause)?;
        self.sum_slices(MESSAGES_BY_ID, &of("NOT IN"), &mut unswept, pause)?;
        self.sum_slices(NONCES, &of("NOT IN"), &mut unswept, pause)?;
        (report.messages, report.unswept) = (kept, unswept);
        let wrong = &mut report.wrong;
        for rule in [USERS, CHATS, MESSAGES, EXTRAS].into_iter().flatten() {
            self.list(rule, |_| Ok(true), wrong, pause)?;
        }
        self.check_ids(chats, wrong, pause)?;
        let is_no_name = |row: &Row<'_>| {
            let (name, key): (String, String) = (row.get(1)?, row.get(2)?);
            Ok(!(rules.is_name)(&name, &key))
        };
        self.list(&NAMES, is_no_name, wrong, pause)?;
        let is_no_password = |row: &Row<'_>| {
            let stored: String = row.get(1)?;
            Ok(!(rules.is_password)(&stored))
        };
        self.list(&PASSWORDS, is_no_password, wrong, pause)?;
        let mut damaged = 0;
        self.verify_all_messages(|chat, message| {
            damaged += 1;
            if damaged <= LISTED_MAX {
                wrong.push(format!("{DAMAGED}: chat {chat}, message {message}"));
            }
        })?;
        if damaged > LISTED_MAX {
            wrong.push(format!("{DAMAGED}: {} more", damaged - LISTED_MAX));
        }
        self.check_chunks(&mut report.wrong)?;
        Ok(report)
    }

    /// Whether a message id occurs twice: sorts the ids outside of the database.
    fn check_ids(
        &mut self,
        chats: &str,
        wrong: &mut Vec<String>,
        pause: &mut dyn FnMut(),
    ) -> StoreResult<()> {
        self.db
            .execute_batch("DROP TABLE IF EXISTS temp.ids; CREATE TEMP TABLE ids (message_id)")?;
        let sql = format!("INSERT INTO temp.ids SELECT message_id FROM {{slice}} WHERE {chats}");
        self.slices(Some(MESSAGES_BY_ID), &sql, pause, |store, sql, bounds| {
            // In a table of this connection's own, which needs no write lock.
            store.begin_read()?;
            store.db.prepare_cached(sql)?.execute(params_from_iter(bounds))?;
            Ok(())
        })?;
        self.list(&GIVEN_TWICE, |_| Ok(true), wrong, pause)?;
        Ok(self.db.execute_batch("DROP TABLE temp.ids")?)
    }

    fn sum_slices(
        &mut self,
        slices: Slices,
        sql: &str,
        sum: &mut u64,
        pause: &mut dyn FnMut(),
    ) -> StoreResult<()> {
        self.slices(Some(slices), sql, pause, |store, sql, bounds| {
            let count = store.get(sql, params_from_iter(bounds), |row| row.get::<_, i64>(0))?;
            *sum += count.map_or(0, i64::unsigned_abs);
            Ok(())
        })
    }

    /// Calls `each` for each slice of a table, in a transaction of its own, with the condition for
    /// `{slice}` and its bounds; or once, without a table.
    fn slices(
        &mut self,
        slices: Option<Slices>,
        sql: &str,
        pause: &mut dyn FnMut(),
        mut each: impl FnMut(&mut Self, &str, &[i64]) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let Some(Slices { table, key }) = slices else {
            each(self, sql, &[])?;
            self.end_look()?;
            pause();
            return Ok(());
        };
        let list = key.join(", ");
        let marks = |from: usize| -> String {
            (1..=key.len()).map(|n| format!("?{}", from + n)).collect::<Vec<_>>().join(", ")
        };
        let after = format!("({list}) > ({})", marks(0));
        let last = format!(
            "SELECT {list} FROM {table} WHERE {after} ORDER BY {list} LIMIT 1 OFFSET {ROWS_PER_SLICE}"
        );
        let upto = format!("({list}) <= ({})", marks(key.len()));
        // Without a LIMIT the statement around it could make SQLite read the table by other terms.
        let inner = format!("(SELECT * FROM {table} WHERE {after} AND {upto} LIMIT -1)");
        let outer = format!("(SELECT * FROM {table} WHERE {after} LIMIT -1)");
        let mut bounds = vec![i64::MIN; key.len()];
        loop {
            let end = self.get(&last, params_from_iter(&bounds), |row| {
                (0..key.len()).map(|column| row.get(column)).collect::<Result<Vec<i64>, _>>()
            })?;
            let Some(end) = end else { break };
            let both = [&bounds[..], &end[..]].concat();
            each(self, &sql.replace("{slice}", &inner), &both)?;
            self.end_look()?;
            pause();
            bounds = end;
        }
        each(self, &sql.replace("{slice}", &outer), &bounds)?;
        self.end_look()?;
        pause();
        Ok(())
    }

    fn check_chunks(&mut self, wrong: &mut Vec<String>) -> StoreResult<()> {
        let mut damaged = 0;
        self.verify_all_chunks(|file, start| {
            damaged += 1;
            if damaged <= LISTED_MAX {
                wrong.push(format!("{DAMAGED_CHUNK}: file {file}, from byte {start} on"));
            }
        })?;
        if damaged > LISTED_MAX {
            wrong.push(format!("{DAMAGED_CHUNK}: {} more", damaged - LISTED_MAX));
        }
        Ok(())
    }

    pub(super) fn count(&mut self, sql: &str) -> StoreResult<u64> {
        let rows: Option<i64> = self.get(sql, [], |row| row.get(0))?;
        Ok(rows.map_or(0, i64::unsigned_abs))
    }

    /// Adds a line for each row that violates a rule, up to a limit.
    fn list(
        &mut self,
        rule: &Rule,
        is_wrong: impl Fn(&Row<'_>) -> rusqlite::Result<bool>,
        wrong: &mut Vec<String>,
        pause: &mut dyn FnMut(),
    ) -> StoreResult<()> {
        let mut rows = 0;
        self.slices(rule.slices, rule.rows, pause, |store, sql, bounds| {
            store.each(sql, params_from_iter(bounds), |row| {
                if is_wrong(row)? {
                    rows += 1;
                    if rows <= LISTED_MAX {
                        wrong.push(format!("{}: {}", rule.wrong, row.get::<_, String>(0)?));
                    }
                }
                Ok(true)
            })
        })?;
        if rows > LISTED_MAX {
            wrong.push(format!("{}: {} more", rule.wrong, rows - LISTED_MAX));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    const RULES: Rules = Rules {
        is_name: |name, key| name.to_lowercase() == key,
        is_password: |text| text == "hash",
    };

    /// Valid rows: two users, one with a session, a group, a direct chat, a ban, and messages of
    /// each status.
    const GOOD: &str = "
        UPDATE meta SET value = 1000 WHERE key = 'server_time';
        INSERT INTO users (user_id, nickname, name_key, password, created) VALUES
            (1, 'Anna', 'anna', 'hash', 1), (2, 'boris', 'boris', 'hash', 2),
            (3, 'clara', 'clara', 'hash', 3);
        INSERT INTO sessions VALUES (1, 1, zeroblob(32), 10, 20, '');
        INSERT INTO chats (chat_id, kind, name, name_key, password, member_count, created) VALUES
            (1, 0, 'Hall', 'hall', 'hash', 2, 5);
        INSERT INTO chats (chat_id, kind, user_low, user_high, member_count, created) VALUES
            (2, 1, 1, 2, 2, 6);
        UPDATE chats SET message_count = 4, last_message = 101, deletions = 2, last_deleted = 102
            WHERE chat_id = 1;
        INSERT INTO members VALUES (1, 1, 1, 5, 0, 3, 2, 0), (1, 2, 0, 5, 102, 4, 1, 0),
            (2, 1, 0, 6, 0, NULL, 0, 0), (2, 2, 0, 6, 0, 9, 0, 2);
        UPDATE chats SET deletions = 1, last_deleted = 103 WHERE chat_id = 2;
        INSERT INTO bans VALUES (1, 3);
        INSERT INTO messages (chat_id, message_id, sender_id, updated, status, content) VALUES (1, 100, 1, NULL, 0, 'hi'), (1, 101, 2, 200, 1, 'ho'),
            (1, 102, 2, 201, 2, ''), (2, 103, 1, 1000, 3, '');
        INSERT INTO nonces VALUES (1, 1, -7, 100), (1, 2, 7, 90);
        -- A message with a file and reactions, an upload of an admin, and a file to be erased.
        INSERT INTO messages (chat_id, message_id, sender_id, updated, status, content) VALUES (1, 104, 1, 1000, 0x60, '');
        INSERT INTO files VALUES (1, 1, 1, 104, 0, 5, 5, 0, 0, 'a/b', 'c', 103),
            (2, 1, 1, NULL, 0, 9, 0, 0, 0, 'a/b', 'd', 103);
        INSERT INTO file_chunks (file_id, start, bytes) VALUES (1, 0, x'000102'), (1, 3, x'0304'),
            (3, 0, x'00');
        INSERT INTO files_erased VALUES (3);
        INSERT INTO file_usage VALUES (0, 14, 1), (1, 14, 1), (2, 0, 0);
        INSERT INTO emoji VALUES (1, 104, 500, '+', 2);
        INSERT INTO reactions VALUES (1, 104, 500, 500, 1), (1, 104, 501, 500, 2);
        INSERT INTO purges (user_id, upto) VALUES (3, 100);
        INSERT INTO search_rows VALUES (100, 1);
        INSERT INTO search_pending VALUES (101, 1, 0, 'hi there');
        INSERT INTO invites VALUES (zeroblob(32), 'abcd', 0, 9, 3, 1, 0, NULL, 0);
        -- A chat that was removed and is not swept yet, its author gone as well.
        INSERT INTO messages (chat_id, message_id, sender_id, updated, status, content) VALUES (9, 50, 77, NULL, 0, 'old');
        INSERT INTO nonces VALUES (9, 77, 1, 50);";

    fn check_after(change: &str) -> Report {
        let database = Database::in_memory().expect("memory");
        let db = database.connection();
        db.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON")
            .expect("pragmas");
        db.execute_batch(GOOD).expect("good rows");
        db.execute_batch(change).expect(change);
        let mut store = Store::new(&database).expect("a store");
        store.check(RULES, &mut || ()).expect("readable rows")
    }

    #[test]
    fn nothing_is_wrong_with_what_the_server_writes() {
        let report = check_after("");
        let counts = Report {
            users: 3,
            chats: 2,
            messages: 5,
            unswept: 2,
            unfinished: 0,
            wrong: Vec::new(),
        };
        assert_eq!(report, counts);
        let report = check_after(
            "INSERT INTO chats (chat_id, kind, created) VALUES (7, 0, 5);
             INSERT INTO messages (chat_id, message_id, sender_id, updated, status, content) VALUES (9, 2000, 77, NULL, 0, 'removed, and after all times')",
        );
        assert_eq!(report, Report { chats: 3, unswept: 3, unfinished: 1, ..counts });
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn each_rule_finds_what_breaks_it() {
        for (change, wrong, row) in [
            ("INSERT INTO users VALUES (5000000000, 'x', 'x', 'hash', 0, 1, 0)", "a user id out", "user 5000000000"),
            ("UPDATE users SET disabled = 2 WHERE user_id = 2", "a user neither", "user 2"),
            ("UPDATE users SET created = -1 WHERE user_id = 2", "a user neither", "user 2"),
            ("UPDATE users SET disabled = 1 WHERE user_id = 1", "a disabled user with", "user 1"),
            ("UPDATE sessions SET user_id = 8", "a session of nobody", "session 1 of user 8"),
            ("UPDATE sessions SET digest = x'00'", "a session that cannot", "session 1"),
            ("UPDATE sessions SET used = 9", "a session that cannot", "session 1"),
            ("UPDATE invites SET uses_left = -1", "an invite that", "invite abcd"),
            ("UPDATE invites SET expires = 2", "an invite that", "invite abcd"),
            ("UPDATE chats SET chat_id = -1 WHERE chat_id = 2; UPDATE members SET chat_id = -1 WHERE chat_id = 2;
              DELETE FROM messages WHERE chat_id = 2", "a chat id out", "chat -1"),
            ("UPDATE chats SET name = NULL WHERE chat_id = 1", "a group with half", "chat 1"),
            ("UPDATE chats SET user_low = 1 WHERE chat_id = 1", "a group with half", "chat 1"),
            ("UPDATE chats SET user_low = 2, user_high = 1 WHERE chat_id = 2", "a direct chat with a", "chat 2"),
            ("UPDATE chats SET password = 'hash' WHERE chat_id = 2", "a direct chat with a", "chat 2"),
            ("UPDATE members SET user_id = 3 WHERE chat_id = 2 AND user_id = 2", "a direct chat with others", "chat 2, user 3"),
            ("UPDATE chats SET slow_mode_s = -1 WHERE chat_id = 1", "a chat with a policy", "chat 1"),
            ("UPDATE chats SET title = printf('%.200c', 'x') WHERE chat_id = 1", "a chat with a policy", "chat 1"),
            ("UPDATE chats SET member_count = 7 WHERE chat_id = 1", "a chat that counts", "chat 1 counts 7, has 2"),
            ("UPDATE chats SET message_count = 1 WHERE chat_id = 1; UPDATE members SET known_count = NULL", "a chat that counts its messages", "chat 1"),
            ("UPDATE chats SET last_message = 99 WHERE chat_id = 1; UPDATE members SET known_count = NULL", "a chat that counts its messages", "chat 1"),
            ("UPDATE members SET known_count = 2 WHERE chat_id = 1 AND user_id = 1", "a member whose unread", "chat 1, user 1"),
            ("UPDATE members SET known_count = 3 WHERE chat_id = 1 AND user_id = 2", "a member whose unread", "chat 1, user 2"),
            ("INSERT INTO members VALUES (8, 1, 0, 0, 0, NULL, 0, 0)", "a member of a chat that", "chat 8, user 1"),
            ("UPDATE members SET user_id = 8 WHERE chat_id = 1 AND user_id = 2", "a member of a chat that", "chat 1, user 8"),
            ("UPDATE members SET admin = 2 WHERE chat_id = 1 AND user_id = 2", "a member neither", "chat 1, user 2"),
            ("UPDATE members SET seen = -2 WHERE chat_id = 1 AND user_id = 2", "a member neither", "chat 1, user 2"),
            ("UPDATE bans SET chat_id = 8", "a ban from", "chat 8, user 3"),
            ("UPDATE bans SET user_id = 8", "a ban from", "chat 1, user 8"),
            ("UPDATE bans SET user_id = 2", "a member who is banned", "chat 1, user 2"),
            ("UPDATE messages SET message_id = 0 WHERE message_id = 100; DELETE FROM search_rows", "a message id that no", "chat 1, message 0"),
            ("UPDATE messages SET message_id = 1001 WHERE message_id = 100; DELETE FROM search_rows", "a message id that no", "chat 1, message 1001"),
            ("UPDATE messages SET updated = 99 WHERE message_id = 101", "an edit or deletion", "chat 1, message 101"),
            ("UPDATE messages SET updated = 1001 WHERE message_id = 101", "an edit or deletion", "chat 1, message 101"),
            ("UPDATE messages SET status = 4 WHERE message_id = 101", "a message with a status", "chat 1, message 101"),
            ("UPDATE messages SET status = 1 WHERE message_id = 100", "a message with a status", "chat 1, message 100"),
            ("UPDATE messages SET checksum = 7 WHERE message_id = 100", "a message that does not match", "chat 1, message 100"),
            ("UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE message_id = 100", "a message that does not match", "chat 1, message 100"),
            ("UPDATE messages SET status = 0x10 WHERE message_id = 100", "a reply that", "chat 1, message 100"),
            ("INSERT INTO replies VALUES (1, 100, 99)", "a reply that", "chat 1, message 100"),
            ("DELETE FROM files WHERE file_id = 1; DELETE FROM file_chunks WHERE file_id = 1; UPDATE file_usage SET bytes = bytes - 5 WHERE user_id < 2", "a message whose files", "chat 1, message 104"),
            ("UPDATE messages SET status = 0x40 WHERE message_id = 104", "a message whose files", "chat 1, message 104"),
            ("UPDATE messages SET status = 0x20 WHERE message_id = 104", "a message whose reactions", "chat 1, message 104"),
            ("UPDATE emoji SET users = 1", "an emoji that", "chat 1, message 104"),
            ("UPDATE reactions SET emoji_at = 7 WHERE user_id = 2; UPDATE emoji SET users = 1", "a reaction with", "chat 1, message 104"),
            ("DELETE FROM file_chunks WHERE file_id = 1 AND start = 3", "a file whose bytes", "file 1"),
            ("UPDATE file_chunks SET start = 4 WHERE file_id = 1 AND start = 3", "a file whose bytes", "file 1"),
            ("INSERT INTO file_chunks (file_id, start, bytes) VALUES (9, 0, x'00')", "bytes of a file", "file 9"),
            ("UPDATE file_chunks SET checksum = 7 WHERE file_id = 1 AND start = 3", "a part of a file", "file 1, from byte 3 on"),
            ("DELETE FROM file_chunks WHERE file_id = 1", "a file whose bytes", "file 1"),
            ("UPDATE files SET chat_id = 9 WHERE file_id = 2", "an upload of", "file 2"),
            ("UPDATE file_usage SET bytes = 6 WHERE user_id = 1", "files that are counted", "user 1"),
            ("UPDATE file_usage SET uploads = 3 WHERE user_id = 0", "files that are counted", "user 0"),
            ("UPDATE messages SET content = 'x' WHERE message_id = 102", "a deleted message", "chat 1, message 102"),
            ("UPDATE messages SET sender_id = 8 WHERE message_id = 101", "a message by nobody", "chat 1, message 101"),
            ("UPDATE messages SET message_id = 100 WHERE chat_id = 2", "a message id given twice", "message 100"),
            ("UPDATE nonces SET user_id = 8 WHERE nonce = 7", "a nonce of nobody", "chat 1, user 8, message 90"),
            ("UPDATE nonces SET message_id = 101 WHERE nonce = -7", "a nonce of nobody", "chat 1, user 1, message 101"),
            ("UPDATE purges SET user_id = 8", "a purge of nobody", "user 8"),
            ("INSERT INTO search_rows VALUES (102, 1)", "an indexed message", "chat 1, message 102"),
            ("INSERT INTO search_rows VALUES (99, 1)", "an indexed message", "chat 1, message 99"),
            ("INSERT INTO search_rows VALUES (101, 1)", "a message both", "chat 1, message 101"),
            ("DELETE FROM meta", "no record of the times", "meta"),
            ("UPDATE users SET name_key = 'x' WHERE user_id = 1", "a name that is none", "user 1"),
            ("UPDATE chats SET name = 'x' WHERE chat_id = 1", "a name that is none", "chat 1"),
            ("UPDATE users SET password = '' WHERE user_id = 1", "a password that", "user 1"),
            ("UPDATE chats SET password = '' WHERE chat_id = 1", "a password that", "chat 1"),
        ] {
            let found = check_after(change).wrong;
            let is_it = |line: &&String| line.starts_with(wrong) && line.ends_with(row);
            assert_eq!(found.iter().filter(is_it).count(), 1, "{change}: {found:?}");
            assert_eq!(found.len(), 1, "{change}: {found:?}");
        }
    }

    #[test]
    fn many_rows_with_one_wrong_are_counted() {
        let rows = "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
                    INSERT INTO bans SELECT 1, i FROM n";
        let found = check_after(rows).wrong;
        assert_eq!(found.len(), 11);
        assert!(found[10].ends_with(": 80 more"), "{}", found[10]);
    }
}
