-- What brings a data file of version 2 to version 3: new tables and a column.

-- The key pair by which push services know the server (RFC 8292), made once.
CREATE TABLE push_key (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    pkcs8   BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Pushes that wait to be sent: for each chat and subscription the newest. Up to where messages
-- were scanned for pushes: the key push_decided of meta.
CREATE TABLE push_pending (
    session_id INTEGER NOT NULL REFERENCES push_subscriptions ON DELETE CASCADE,
    chat_id    INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0, -- that failed since the last that did not
    due        INTEGER NOT NULL,           -- not to be sent before
    PRIMARY KEY (session_id, chat_id)
) STRICT, WITHOUT ROWID;

-- A checksum for each chunk of a file. Those that are there get theirs behind the requests.
ALTER TABLE file_chunks ADD COLUMN checksum INTEGER;
