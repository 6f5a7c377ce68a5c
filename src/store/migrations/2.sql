-- What brings a data file of version 1 to version 2: columns with a default, which SQLite adds
-- without
-- writing the rows that are there, and new tables. The rows of messages are left as they are:
-- each gets its checksum when the server comes by.

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

-- Codes for one new password each, made by an operator; at most one a user.
CREATE TABLE reset_codes (
    user_id INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    digest  BLOB NOT NULL,    -- SHA-256 of the code
    expires INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Where the pushes of a session go (RFC 8030 and 8291).
CREATE TABLE push_subscriptions (
    session_id INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    endpoint   TEXT NOT NULL,
    p256dh     BLOB NOT NULL,    -- the browser's public key, 65 bytes
    auth       BLOB NOT NULL,    -- and its secret, 16 bytes
    created    INTEGER NOT NULL
) STRICT;

-- Tokens by which a bot writes to a chat over HTTP.
CREATE TABLE hooks (
    digest  BLOB PRIMARY KEY,    -- SHA-256 of the token
    user_id INTEGER NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE, -- the bot
    chat_id INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hooks_by_chat ON hooks (chat_id);

-- What logins look like (UTS 39), so that no two look alike. Made anew when the tables of Unicode
-- change: the key skeletons_version of meta.
CREATE TABLE skeletons (
    user_id INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    stored  TEXT NOT NULL, -- the skeleton of nickname
    lower   TEXT NOT NULL  -- and that of name_key
) STRICT;
CREATE INDEX skeletons_stored ON skeletons (stored);
CREATE INDEX skeletons_lower ON skeletons (lower);

-- What users have used of their limits of a day. What is reserved counts as used until the end of
-- the day, or a graceful end of the server.
CREATE TABLE ledger (
    user_id     INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    day         INTEGER NOT NULL, -- of UTC, since the Unix epoch
    text_bytes  INTEGER NOT NULL, -- sent and edited
    groups_made INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_by_day ON ledger (day);

-- Groups that wait for an admin: the first to join or to be enabled.
CREATE TABLE vacancies (
    chat_id INTEGER PRIMARY KEY,
    emptied INTEGER -- when the last member left; NULL while there are members, all of them disabled
) STRICT;
CREATE INDEX vacancies_by_time ON vacancies (emptied) WHERE emptied IS NOT NULL;

-- Which message a message answers.
CREATE TABLE replies (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    reply_to   INTEGER NOT NULL, -- a message_id of the same chat; it may be deleted since
    PRIMARY KEY (chat_id, message_id)
) STRICT, WITHOUT ROWID;

-- The emoji that a message has, and how many users gave each.
CREATE TABLE emoji (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    emoji_at   INTEGER NOT NULL, -- the server time at which its count went from 0 to 1
    emoji      TEXT NOT NULL,
    users      INTEGER NOT NULL, -- rows of `reactions`
    PRIMARY KEY (chat_id, message_id, emoji_at)
) STRICT, WITHOUT ROWID;

-- Who gave which of them, in the order in which they were given.
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
    file_id    INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice
    chat_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,           -- the uploader
    message_id INTEGER,
    place      INTEGER NOT NULL DEFAULT 0, -- among the files of its message
    size       INTEGER NOT NULL,           -- as announced
    stored     INTEGER NOT NULL DEFAULT 0, -- bytes in `file_chunks`
    width      INTEGER NOT NULL,           -- pixels of an image or video; 0: neither
    height     INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    name       TEXT NOT NULL,
    touched    INTEGER NOT NULL            -- when it was begun, or its last byte came
) STRICT;
CREATE INDEX files_by_message ON files (chat_id, message_id, place) WHERE message_id IS NOT NULL;
CREATE INDEX files_by_user ON files (user_id);
CREATE INDEX files_under_way ON files (touched) WHERE message_id IS NULL;

-- Their bytes, at most 65536 in a row. A row and the next hold more than that together.
CREATE TABLE file_chunks (
    file_id INTEGER NOT NULL,
    start   INTEGER NOT NULL,    -- offset in the file
    bytes   BLOB NOT NULL,
    PRIMARY KEY (file_id, start)
) STRICT;

-- Files that are gone and whose chunks wait to be overwritten, in slices.
CREATE TABLE files_erased (
    file_id INTEGER PRIMARY KEY
) STRICT;

-- Sums over `files`, so that quotas are checked without a walk; user 0 is everybody.
CREATE TABLE file_usage (
    user_id INTEGER PRIMARY KEY,
    bytes   INTEGER NOT NULL,    -- announced sizes
    uploads INTEGER NOT NULL     -- files that are in no message yet
) STRICT;
