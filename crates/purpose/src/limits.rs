//! The bounds that the protocol names, with their units (protocol section 7).

/// Bytes of a frame's header: body length, purpose, task.
pub const HEADER_BYTES: usize = 6;

/// Longest body of a frame to the server, in bytes (protocol section 7).
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest content of a message, in bytes of UTF-8 (protocol section 7).
pub const CONTENT_BYTES_MAX: usize = 16 * 1024;

/// Files of one message (protocol section 5a).
pub const MESSAGE_FILES_MAX: usize = 10;

/// Most bytes of a file in one row, and in one answer to GET_FILE.
pub const FILE_CHUNK_BYTES: usize = 64 * 1024;

/// Longest name of a file, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Longest media type of a file, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;

/// Different emoji that one message can have.
pub const EMOJI_PER_MESSAGE_MAX: usize = 20;

/// Users who are shown with each emoji of a message: those who gave it first.
pub const REACTION_USERS_SHOWN: usize = 20;

/// Longest emoji, in bytes.
pub const EMOJI_BYTES_MAX: usize = 32;

/// Longest body of a HEARTBEAT, in bytes (protocol section 4).
pub const HEARTBEAT_BYTES_MAX: usize = 1024;

/// Longest name of a user or chat, in Unicode scalar values after NFC.
pub const NAME_CHARS_MAX: usize = 32;

/// Longest title of a chat, in Unicode scalar values.
pub const TITLE_CHARS_MAX: usize = 128;

/// Shortest password of a user, in Unicode scalar values.
pub const USER_PASSWORD_CHARS_MIN: usize = 8;

/// Longest password of a user or chat, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// Longest pack of messages in the one ACCEPTED of REQUEST_CHAT_MSG on API 0.1, in bytes.
pub const LEGACY_PACK_BYTES_MAX: usize = 1024 * 1024;

/// Words that a query may have.
pub const QUERY_WORDS_MAX: usize = 64;

/// Longest payload of a WebSocket message that the server sends, in bytes: the longest whose length
/// has 16 bits.
pub const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 64 * 1024 - 1;

/// Bytes of answers to Pings that may wait for one peer; past it the newest stands for all.
pub const WEBSOCKET_CONTROL_BYTES_MAX: usize = 2 * 1024;

/// Chats that FIND_CHATS gives at most, whatever limit it names.
pub const FOUND_CHATS_MAX: u16 = 1000;

/// Users that FIND_USERS gives at most.
pub const FOUND_USERS_MAX: u16 = 200;

/// Messages that SEARCH_MSG gives at most, whatever limit it names.
pub const SEARCH_RESULTS_MAX: usize = 200;

const _: () = {
    assert!(CONTENT_BYTES_MAX + 64 <= BODY_BYTES_MAX);
    assert!(LEGACY_PACK_BYTES_MAX <= u32::MAX as usize);
};
