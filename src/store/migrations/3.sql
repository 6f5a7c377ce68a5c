-- Migration from version 2 to version 3: new tables and a column.

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
    attempts   INTEGER NOT NULL DEFAULT 0, -- that failed since the last that did not
    due        INTEGER NOT NULL,           -- not to be sent before
    PRIMARY KEY (session_id, chat_id)
) STRICT, WITHOUT ROWID;

-- A checksum for each chunk of a file; existing chunks get theirs later, in the background.
ALTER TABLE file_chunks ADD COLUMN checksum INTEGER;
