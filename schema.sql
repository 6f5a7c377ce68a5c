-- The schema of a new database, version 3. Migrations of older ones are in `src/store/migrations/`.
-- Times are server times: microseconds since the Unix epoch (protocol section 3), unless a name
-- ends in another unit. Secrets are stored as hashes only.

-- Settings of the whole database.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- No server time up to this is ever given again. It is stored separately, because the rows with
-- times can be deleted.
INSERT INTO meta VALUES ('server_time', 0);

CREATE TABLE users (
    user_id  INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused
    nickname TEXT NOT NULL,                     -- as given, in NFC
    name_key TEXT NOT NULL UNIQUE,              -- lower-cased, then NFC: what names are compared by
    password TEXT NOT NULL,                     -- algorithm, rounds, salt and hash in one string
    disabled INTEGER NOT NULL DEFAULT 0,        -- 1: cannot log in and has no sessions
    created  INTEGER NOT NULL,
    flags    INTEGER NOT NULL DEFAULT 0         -- bits of protocol section 5a: 1 operator, 8 bot
) STRICT;

-- Skeletons of logins (UTS 39), so that no two look alike. They are computed again when the Unicode
-- tables change: see the key skeletons_version of meta.
CREATE TABLE skeletons (
    user_id INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    stored  TEXT NOT NULL, -- the skeleton of nickname
    lower   TEXT NOT NULL  -- and that of name_key
) STRICT;
CREATE INDEX skeletons_stored ON skeletons (stored);
CREATE INDEX skeletons_lower ON skeletons (lower);

-- What users have used of their daily limits. Reservations count as used until the end of the day,
-- or a graceful shutdown of the server.
CREATE TABLE ledger (
    user_id     INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    day         INTEGER NOT NULL, -- of UTC, since the Unix epoch
    text_bytes  INTEGER NOT NULL, -- sent and edited
    groups_made INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_by_day ON ledger (day);

CREATE TABLE sessions (
    session_id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    digest     BLOB NOT NULL,    -- SHA-256 of session_hash
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL, -- accurate to about an hour; see --session-days
    address    TEXT NOT NULL     -- the address that last used it
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_use ON sessions (used);

CREATE TABLE chats (
    chat_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         INTEGER NOT NULL CHECK (kind IN (0, 1)), -- 0 group, 1 direct
    name         TEXT,                                    -- NULL for a direct chat
    name_key     TEXT UNIQUE,                             -- as in users
    title        TEXT NOT NULL DEFAULT '',
    password     TEXT,                                    -- NULL: none is needed
    user_low     INTEGER,                                 -- the users of a direct chat, in order
    user_high    INTEGER,
    member_count INTEGER NOT NULL DEFAULT 0,              -- rows of members, updated with them
    created      INTEGER NOT NULL,
    slow_mode_s  INTEGER NOT NULL DEFAULT 0, -- seconds between two sends of a member; 0: no limit
    keep_days    INTEGER NOT NULL DEFAULT 0, -- days after which messages are deleted; 0: never
    -- Messages are counted later, in the background. `last_message` is the newest one counted
    -- (0: it and all before it are gone); `message_count` is the number of messages up to it, ever.
    message_count INTEGER NOT NULL DEFAULT 0,
    last_message  INTEGER NOT NULL DEFAULT 0,
    deletions     INTEGER NOT NULL DEFAULT 0, -- number of deletions, also those by age
    last_deleted  INTEGER NOT NULL DEFAULT 0, -- the newest message that was deleted
    closed        INTEGER NOT NULL DEFAULT 0  -- 1: hidden from users who are not members
) STRICT;
CREATE UNIQUE INDEX chats_direct ON chats (user_low, user_high) WHERE kind = 1;
CREATE INDEX chats_kept ON chats (keep_days) WHERE keep_days > 0;

CREATE TABLE members (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    admin   INTEGER NOT NULL DEFAULT 0,
    joined  INTEGER NOT NULL,
    seen    INTEGER NOT NULL DEFAULT 0, -- the member's marker
    -- The chat's message_count less the member's unread messages; NULL: to be counted. It is valid
    -- while the chat's `deletions` equals this row's, or its last_deleted is not after the marker.
    known_count INTEGER,
    deletions   INTEGER NOT NULL DEFAULT 0,
    notify      INTEGER NOT NULL DEFAULT 0, -- pushes: 0 all, 1 mentions and replies, 2 none
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id);

-- Groups without an admin: the next user who joins, or is enabled, becomes one.
CREATE TABLE vacancies (
    chat_id INTEGER PRIMARY KEY,
    emptied INTEGER -- when the last member left; NULL while members remain, all of them disabled
) STRICT;
CREATE INDEX vacancies_by_time ON vacancies (emptied) WHERE emptied IS NOT NULL;

CREATE TABLE bans (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;

-- The id of a message is the server time of its creation. So this one tree, in which the messages
-- of a chat are adjacent and sorted, serves sends, ranges and pages.
CREATE TABLE messages (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,           -- unique over all chats
    sender_id  INTEGER NOT NULL,
    updated    INTEGER,                    -- of the last edit or the deletion; NULL: as created
    -- Bits of protocol section 1, and which tables have rows for the message: 0x10 `replies`,
    -- 0x20 `files`, 0x40 `reactions`.
    status     INTEGER NOT NULL DEFAULT 0,
    content    TEXT NOT NULL,
    checksum   INTEGER,                    -- of the message's fields; NULL: not computed yet
    PRIMARY KEY (chat_id, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX messages_updated ON messages (chat_id, updated) WHERE updated IS NOT NULL;

-- Idempotency keys of sends, kept as long as the chat.
CREATE TABLE nonces (
    chat_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    nonce      INTEGER NOT NULL, -- the u64's bits as an i64
    message_id INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id, nonce)
) STRICT, WITHOUT ROWID;

-- The search index. Each indexed message has its distinct words in `search`, and a word for its
-- chat. To remove words, they must be given again, since the index does not store the text;
-- 'secure-delete' then overwrites them on disk. Merging is done in small steps, never during an
-- insert.
CREATE VIRTUAL TABLE search USING fts5 (
    words, content = '', columnsize = 0, detail = none, tokenize = 'ascii'
);
INSERT INTO search (search, rank) VALUES
    ('secure-delete', 1), ('automerge', 0), ('usermerge', 4), ('crisismerge', 1000);
CREATE VIRTUAL TABLE search_terms USING fts5vocab (search, instance);

-- Which messages are indexed.
CREATE TABLE search_rows (
    message_id INTEGER PRIMARY KEY,
    chat_id    INTEGER NOT NULL
) STRICT;

-- Indexed messages that have changed since: their old words have to be removed from the index, and
-- the new ones, if any, added. The progress of indexing is in the keys search_... of meta.
CREATE TABLE search_pending (
    message_id INTEGER PRIMARY KEY,
    chat_id    INTEGER NOT NULL,
    words_out  INTEGER NOT NULL DEFAULT 0, -- number of old words removed so far, in their order
    content    TEXT NOT NULL               -- as it was indexed
) STRICT;
CREATE INDEX search_pending_by_chat ON search_pending (chat_id);

-- Users whose messages are to be deleted, in slices, and the progress of that.
CREATE TABLE purges (
    purge_id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id  INTEGER NOT NULL,
    upto     INTEGER NOT NULL,           -- only messages created up to this time
    chat_id  INTEGER NOT NULL DEFAULT 0, -- progress: chats before this one are done
    at       INTEGER NOT NULL DEFAULT 0  -- progress: messages of chat_id up to this one are done
) STRICT;

CREATE TABLE invites (
    digest    BLOB PRIMARY KEY,  -- SHA-256 of the code
    hint      TEXT NOT NULL,     -- its first characters, for lists
    uses_left INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    registers INTEGER NOT NULL DEFAULT 1, -- 1: it lets its holder register
    operator  INTEGER NOT NULL DEFAULT 0, -- 1: a user who registers with it becomes an operator
    chat_id   INTEGER,                    -- a user of it becomes a member of this chat; NULL: none
    creator   INTEGER NOT NULL DEFAULT 0  -- the user who created it; 0: the command line
) STRICT, WITHOUT ROWID;
CREATE INDEX invites_by_chat ON invites (chat_id) WHERE chat_id IS NOT NULL;

-- Reset codes for one new password, created by an operator; at most one per user.
CREATE TABLE reset_codes (
    user_id INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    digest  BLOB NOT NULL,    -- SHA-256 of the code
    expires INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Push subscriptions of sessions (RFC 8030 and 8291).
CREATE TABLE push_subscriptions (
    session_id INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    endpoint   TEXT NOT NULL,
    p256dh     BLOB NOT NULL,    -- the browser's public key, 65 bytes
    auth       BLOB NOT NULL,    -- and its secret, 16 bytes
    created    INTEGER NOT NULL
) STRICT;

-- The key pair that identifies the server to push services (RFC 8292), created once.
CREATE TABLE push_key (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    pkcs8   BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Pushes to be sent: only the newest for each chat and subscription. The time up to which messages
-- were scanned for pushes is in the key push_decided of meta.
CREATE TABLE push_pending (
    session_id INTEGER NOT NULL REFERENCES push_subscriptions ON DELETE CASCADE,
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0, -- failed attempts so far
    due        INTEGER NOT NULL,           -- not sent before this time
    PRIMARY KEY (session_id, chat_id)
) STRICT, WITHOUT ROWID;

-- Tokens with which bots send to chats over HTTP.
CREATE TABLE hooks (
    digest  BLOB PRIMARY KEY,    -- SHA-256 of the token
    user_id INTEGER NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE, -- the bot
    chat_id INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hooks_by_chat ON hooks (chat_id);

-- Replies: the message that a message answers.
CREATE TABLE replies (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    reply_to   INTEGER NOT NULL, -- a message_id of the same chat; it may be deleted since
    PRIMARY KEY (chat_id, message_id)
) STRICT, WITHOUT ROWID;

-- The emoji of a message, and how many users gave each.
CREATE TABLE emoji (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    emoji_at   INTEGER NOT NULL, -- the server time at which its count went from 0 to 1
    emoji      TEXT NOT NULL,
    users      INTEGER NOT NULL, -- rows of `reactions`
    PRIMARY KEY (chat_id, message_id, emoji_at)
) STRICT, WITHOUT ROWID;

-- Reactions: which user gave which emoji, in order.
CREATE TABLE reactions (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    given      INTEGER NOT NULL, -- a server time
    emoji_at   INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    PRIMARY KEY (chat_id, message_id, given)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX reactions_by_user ON reactions (chat_id, message_id, user_id, emoji_at);
CREATE INDEX reactions_by_emoji ON reactions (chat_id, message_id, emoji_at, given, user_id);

-- Files: uploads while `message_id` is NULL, then parts of a message.
CREATE TABLE files (
    file_id    INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused
    chat_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,           -- the uploader
    message_id INTEGER,
    place      INTEGER NOT NULL DEFAULT 0, -- index among the files of its message
    size       INTEGER NOT NULL,           -- as announced
    stored     INTEGER NOT NULL DEFAULT 0, -- bytes in `file_chunks`
    width      INTEGER NOT NULL,           -- pixels of an image or video; 0: neither
    height     INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    name       TEXT NOT NULL,
    touched    INTEGER NOT NULL            -- time of BEGIN_FILE, or of the last byte
) STRICT;
CREATE INDEX files_by_message ON files (chat_id, message_id, place) WHERE message_id IS NOT NULL;
CREATE INDEX files_by_user ON files (user_id);
CREATE INDEX files_under_way ON files (touched) WHERE message_id IS NULL;

-- The bytes of files, at most 65536 in a row. Two adjacent rows together have more than that.
CREATE TABLE file_chunks (
    file_id INTEGER NOT NULL,
    start   INTEGER NOT NULL,    -- offset in the file
    bytes   BLOB NOT NULL,
    checksum INTEGER,            -- of file_id, start and bytes; NULL: not computed yet
    PRIMARY KEY (file_id, start)
) STRICT;

-- Removed files whose chunks wait to be erased, in slices.
CREATE TABLE files_erased (
    file_id INTEGER PRIMARY KEY
) STRICT;

-- Sums over `files`, so that quotas are checked without a scan; user 0 stands for all users.
CREATE TABLE file_usage (
    user_id INTEGER PRIMARY KEY,
    bytes   INTEGER NOT NULL,    -- announced sizes
    uploads INTEGER NOT NULL     -- files that are in no message yet
) STRICT;

-- Changes made by commands while a server may be running. The server deletes the rows when it acts
-- on them, and empties the table when it starts.
CREATE TABLE changes (
    change_id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL,    -- a store::changes::Change
    a         INTEGER NOT NULL, -- ids of the subject; their meaning depends on kind
    b         INTEGER NOT NULL DEFAULT 0
) STRICT;
