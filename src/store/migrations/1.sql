-- The schema of version 1, unchanged: the migrations start from it. Used by tests only.
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
    created  INTEGER NOT NULL
) STRICT;

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
    name_key     TEXT UNIQUE,
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
    last_deleted  INTEGER NOT NULL DEFAULT 0  -- the newest message that was deleted
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
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id);

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
    status     INTEGER NOT NULL DEFAULT 0, -- bits of protocol section 1
    content    TEXT NOT NULL,
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
    created   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Changes made by commands while a server may be running. The server deletes the rows when it acts
-- on them, and empties the table when it starts.
CREATE TABLE changes (
    change_id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL,    -- a store::changes::Change
    a         INTEGER NOT NULL, -- ids of the subject; their meaning depends on kind
    b         INTEGER NOT NULL DEFAULT 0
) STRICT;
