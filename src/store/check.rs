//! What must be true of the rows and the schema cannot say: for `vestnik check`.

use rusqlite::Row;

use super::{Store, StoreResult};

/// What of the contents only others can judge.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Whether a name, as it is stored, may be one, and has this key.
    pub is_name: fn(name: &str, key: &str) -> bool,
    /// Whether a text is the stored form of a password.
    pub is_password: fn(stored: &str) -> bool,
}

/// What a look over the rows has found.
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
    /// Messages and nonces of chats that were removed, which wait to be swept: nothing wrong.
    pub unswept: u64,
}

/// Rows of one kind of wrong that are listed; the others are counted.
const LISTED_MAX: u64 = 10;

/// One kind of wrong, and the rows that have it, each as a text that names the row.
struct Rule {
    wrong: &'static str,
    rows: &'static str,
}

const fn rule(wrong: &'static str, rows: &'static str) -> Rule {
    Rule { wrong, rows }
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
        "a group without a name, or with the two users of a direct chat",
        "SELECT 'chat ' || chat_id FROM chats WHERE kind = 0
            AND (name IS NULL OR name_key IS NULL OR user_low IS NOT NULL OR user_high IS NOT NULL)",
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

/// Without the messages of removed chats, which nobody can read and which are about to go.
const MESSAGES: &[Rule] = &[
    rule(
        "a message id that no message can have, or after all times given",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM messages
         WHERE message_id <= 0
            OR message_id > (SELECT value FROM meta WHERE key = 'server_time')",
    ),
    rule(
        "an edit or deletion before its message, or after all times given",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM messages
         WHERE updated < message_id
            OR updated > (SELECT value FROM meta WHERE key = 'server_time')",
    ),
    rule(
        "a message with a status that does not fit",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM messages
         WHERE status NOT IN (0, 1, 2, 3) OR (status = 0) <> (updated IS NULL)",
    ),
    rule(
        "a deleted message with content",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM messages
         WHERE status & 2 <> 0 AND content <> ''",
    ),
    rule(
        "a message by nobody",
        "SELECT 'chat ' || chat_id || ', message ' || message_id FROM messages
         WHERE sender_id NOT IN (SELECT user_id FROM users)
            AND chat_id IN (SELECT chat_id FROM chats)",
    ),
    rule(
        "a message id given twice",
        "SELECT 'message ' || message_id FROM messages GROUP BY message_id HAVING count(*) > 1",
    ),
    rule(
        "a nonce of nobody, or of a message by somebody else",
        "SELECT 'chat ' || n.chat_id || ', user ' || n.user_id || ', message ' || n.message_id
         FROM nonces n LEFT JOIN messages m USING (chat_id, message_id)
         WHERE n.chat_id IN (SELECT chat_id FROM chats)
           AND (n.user_id NOT IN (SELECT user_id FROM users) OR m.sender_id <> n.user_id)",
    ),
    rule(
        "no record of the times given",
        "SELECT 'meta' WHERE NOT EXISTS
            (SELECT 1 FROM meta WHERE key = 'server_time' AND value >= 0)",
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

impl Store<'_> {
    /// Looks at all rows, as they are at one moment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn check(&mut self, rules: Rules) -> StoreResult<Report> {
        let mut report = Report {
            users: self.count("SELECT count(*) FROM users")?,
            chats: self.count("SELECT count(*) FROM chats")?,
            messages: self.count(
                "SELECT count(*) FROM messages WHERE chat_id IN (SELECT chat_id FROM chats)",
            )?,
            ..Report::default()
        };
        for table in ["messages", "nonces"] {
            report.unswept += self.count(&format!(
                "SELECT count(*) FROM {table} WHERE chat_id NOT IN (SELECT chat_id FROM chats)"
            ))?;
        }
        let wrong = &mut report.wrong;
        for rule in [USERS, CHATS, MESSAGES].into_iter().flatten() {
            self.list(rule, |_| Ok(true), wrong)?;
        }
        let is_no_name = |row: &Row<'_>| {
            let (name, key): (String, String) = (row.get(1)?, row.get(2)?);
            Ok(!(rules.is_name)(&name, &key))
        };
        self.list(&NAMES, is_no_name, wrong)?;
        let is_no_password = |row: &Row<'_>| {
            let stored: String = row.get(1)?;
            Ok(!(rules.is_password)(&stored))
        };
        self.list(&PASSWORDS, is_no_password, wrong)?;
        Ok(report)
    }

    fn count(&mut self, sql: &str) -> StoreResult<u64> {
        let rows: Option<i64> = self.get(sql, [], |row| row.get(0))?;
        Ok(rows.map_or(0, i64::unsigned_abs))
    }

    /// Adds a line for each row of the rule that is wrong, up to some.
    fn list(
        &mut self,
        rule: &Rule,
        is_wrong: impl Fn(&Row<'_>) -> rusqlite::Result<bool>,
        wrong: &mut Vec<String>,
    ) -> StoreResult<()> {
        let mut rows = 0;
        self.each(rule.rows, [], |row| {
            if is_wrong(row)? {
                rows += 1;
                if rows <= LISTED_MAX {
                    wrong.push(format!("{}: {}", rule.wrong, row.get::<_, String>(0)?));
                }
            }
            Ok(true)
        })?;
        if rows > LISTED_MAX {
            wrong.push(format!("{}: {} more", rule.wrong, rows - LISTED_MAX));
        }
        Ok(())
    }
}
