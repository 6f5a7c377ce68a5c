-- Migration from version 1 to version 2: columns with a default, and new tables.
-- SQLite adds such columns without writing the existing rows. Messages get their checksums later,
-- in the background.

ALTER TABLE messages ADD COLUMN checksum INTEGER;
ALTER TABLE users ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chats ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN notify INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invites ADD COLUMN registers INTEGER NOT NULL DEFAULT 1;
ALTER TABLE invites ADD COLUMN operator INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invites ADD COLUMN chat_id INTEGER;
ALTER TABLE invites ADD COLUMN creator INTEGER NOT NULL DEFAULT 0;
CREATE INDEX invites_by_chat ON invites (chat_id) WHERE chat_id IS NOT NULL;
CREATE INDEX search_pending_by_chat ON search_pending (chat_id);

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

-- Tokens with which bots send to chats over HTTP.
CREATE TABLE hooks (
    digest  BLOB PRIMARY KEY,    -- SHA-256 of the token
    user_id INTEGER NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE, -- the bot
    chat_id INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hooks_by_chat ON hooks (chat_id);

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

-- Groups without an admin: the next user who joins, or is enabled, becomes one.
CREATE TABLE vacancies (
    chat_id INTEGER PRIMARY KEY,
    emptied INTEGER -- when the last member left; NULL while members remain, all of them disabled
) STRICT;
CREATE INDEX vacancies_by_time ON vacancies (emptied) WHERE emptied IS NOT NULL;

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
