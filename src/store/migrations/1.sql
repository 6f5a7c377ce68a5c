-- vestnik's data file, version 1, as it was: what the migrations begin with. Only tests read it.
-- Times are server times: microseconds since the Unix epoch (protocol section 3), unless a name
-- ends in another unit. Secrets are kept as hashes only.

-- Numbers that belong to the file as a whole.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- No server time at or below this is ever given again; kept apart from the rows that carry times,
-- since those can be deleted.
INSERT INTO meta VALUES ('server_time', 0);

CREATE TABLE users (
    user_id  INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice
    nickname TEXT NOT NULL,                     -- as given, in NFC
    name_key TEXT NOT NULL UNIQUE,              -- lower-cased, then NFC: what names are compared by
    password TEXT NOT NULL,                     -- algorithm, rounds, salt and hash in one string
    disabled INTEGER NOT NULL DEFAULT 0,        -- 1: cannot log in and has no sessions
    created  INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    session_id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    digest     BLOB NOT NULL,    -- SHA-256 of session_hash
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL, -- to the hour or so; a session unused for its lifetime ends
    address    TEXT NOT NULL     -- where it was last restored from
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_use ON sessions (used);

CREATE TABLE chats (
    chat_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         INTEGER NOT NULL CHECK (kind IN (0, 1)), -- 0 group, 1 direct
    name         TEXT,                                    -- NULL for a direct chat
    name_key     TEXT UNIQUE,
    title        TEXT NOT NULL DEFAULT '',
    password     TEXT,                                    -- NULL: none is needed
    user_low     INTEGER,                                 -- the two of a direct chat, in order
    user_high    INTEGER,
    member_count INTEGER NOT NULL DEFAULT 0,              -- rows of members, kept by each statement that changes them
    created      INTEGER NOT NULL,
    slow_mode_s  INTEGER NOT NULL DEFAULT 0,              -- seconds between two sends of one member; 0: any
    keep_days    INTEGER NOT NULL DEFAULT 0,              -- days after which messages go; 0: never
    -- Messages are counted behind the requests: `last_message` is the newest one counted (0: it is
    -- gone, as are all before it), and `message_count` says how many came up to there, ever.
    message_count INTEGER NOT NULL DEFAULT 0,
    last_message  INTEGER NOT NULL DEFAULT 0,
    deletions     INTEGER NOT NULL DEFAULT 0,             -- how often messages were deleted or went
    last_deleted  INTEGER NOT NULL DEFAULT 0              -- the newest message that did
) STRICT;
CREATE UNIQUE INDEX chats_direct ON chats (user_low, user_high) WHERE kind = 1;
CREATE INDEX chats_kept ON chats (keep_days) WHERE keep_days > 0;

CREATE TABLE members (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    admin   INTEGER NOT NULL DEFAULT 0,
    joined  INTEGER NOT NULL,
    seen    INTEGER NOT NULL DEFAULT 0, -- the member's marker
    -- The chat's message_count less what this member has not read; NULL: to be counted. True while
    -- the chat's `deletions` are these, or the last of them was not after the marker.
    known_count INTEGER,
    deletions   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE bans (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;

-- A message is named by the server time of its creation, so this one tree, in which the messages
-- of a chat lie side by side in order, serves sending, ranges and pages alike.
CREATE TABLE messages (
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,           -- unique over all chats
    sender_id  INTEGER NOT NULL,
    updated    INTEGER,                    -- of the last edit or the deletion; NULL: as created
    status     INTEGER NOT NULL DEFAULT 0, -- bits of protocol section 1
    content    TEXT NOT NULL,
    PRIMARY KEY (chat_id, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX messages_updated ON messages (chat_id, updated) WHERE updated IS NOT NULL;

-- The numbers that make a send safe to repeat, kept as long as the chat.
CREATE TABLE nonces (
    chat_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    nonce      INTEGER NOT NULL, -- the u64's bits as an i64
    message_id INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id, nonce)
) STRICT, WITHOUT ROWID;

-- Searching. Each indexed message stands in `search` with its different words and a word for its
-- chat. The words are taken out by naming them again, since nothing of the text is kept here twice;
-- 'secure-delete' takes them out of the file itself. Merging is asked for in small steps, and never
-- done at the cost of an insert.
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

-- Messages that were indexed and have changed since: the old words have to leave the index, and
-- the new ones, if there are any, to come in. Indexed up to where: the keys search_... of meta.
CREATE TABLE search_pending (
    message_id INTEGER PRIMARY KEY,
    chat_id    INTEGER NOT NULL,
    words_out  INTEGER NOT NULL DEFAULT 0, -- how many of the old words have left, in their order
    content    TEXT NOT NULL               -- as it was indexed
) STRICT;

-- Users whose messages are to be deleted, in slices, and how far that has come.
CREATE TABLE purges (
    purge_id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id  INTEGER NOT NULL,
    upto     INTEGER NOT NULL,           -- messages created up to here
    chat_id  INTEGER NOT NULL DEFAULT 0, -- chats before this one are done,
    at       INTEGER NOT NULL DEFAULT 0  -- and its messages up to this one
) STRICT;

CREATE TABLE invites (
    digest    BLOB PRIMARY KEY,  -- SHA-256 of the code
    hint      TEXT NOT NULL,     -- its first characters, for lists
    uses_left INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    created   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the command line changed while a server may be running; the server takes the rows away as
-- it acts on them, and empties the table when it starts.
CREATE TABLE changes (
    change_id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL,    -- a store::changes::Change
    a         INTEGER NOT NULL, -- the ids that it is about
    b         INTEGER NOT NULL DEFAULT 0
) STRICT;
