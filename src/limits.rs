//! Every bound of the server, with its unit, in one place, and the relations between them.
//!
//! A bound that an operator may change is a default here and an option of `serve`. Those that the
//! protocol names are in `crates/purpose/src/limits.rs`.

pub use purpose::limits::*;

/// Milliseconds for which the clock must be steady before anything is deleted by age.
pub const CLOCK_DOUBT_MS: u64 = 24 * 3600 * 1000;

/// Uploads of one user that are under way at once.
pub const UPLOADS_PER_USER_MAX: u32 = 16;

/// Microseconds without a byte after which a new upload may end another one,
pub const UPLOAD_IDLE_US: i64 = 60 * 1_000_000;
/// and after which it ends by itself.
pub const UPLOAD_LIFETIME_US: i64 = 3600 * 1_000_000;

/// Default size of the largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 25 * 1024 * 1024;

/// Default sum of the sizes of one user's files, in bytes.
pub const USER_FILES_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Default sum of the sizes of all files, in bytes.
pub const FILES_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// Default number of bytes that files leave free on the disk.
pub const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// Reactions of one user that change something and are let through in a while,
pub const REACTIONS_MAX: usize = 30;
/// in milliseconds.
pub const REACTIONS_MS: u64 = 10_000;

/// Marks that may follow one letter of a name.
pub const NAME_MARKS_MAX: usize = 2;

/// Default bound of the bytes that wait for one peer; past it notifications are left out.
pub const OUTBOUND_BYTES_MAX: usize = 1024 * 1024;

/// Default bound of the bytes that wait for all peers together.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes that wait for all connections of one user; they share it evenly.
pub const USER_OUTBOUND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of incomplete or waiting requests that one user's connections may hold together.
pub const USER_INBOUND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that may wait for any connection, however many there are.
pub const OUTBOUND_BYTES_MIN: usize = 4 * 1024;

/// Soft bound of the body of a frame that the server cuts itself out of what it reads from the file
/// (PART, and MSG_NOTIFY of a slow reader that catches up), in bytes.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;

/// Soft bound of the pack of a MSG_NOTIFY of what one turn has stored, in bytes: the fewer packs,
/// the less they cost, and it is in memory anyway.
pub const NOTIFY_BYTES_MAX: usize = 128 * 1024;

/// Bytes of long answers and catch-ups read from the file for one connection in one turn.
pub const STREAM_BYTES_PER_TURN: usize = 128 * 1024;

/// The same for all connections together.
pub const STREAM_TURN_BYTES: usize = 512 * 1024;

/// Default bound of the bytes of text that one user sends and edits in a day of UTC.
pub const USER_TEXT_BYTES_PER_DAY: u64 = 256 * 1024 * 1024;

/// Most of it that is written as used before it is: what a crash may cost a user.
pub const TEXT_RESERVED_BYTES_MAX: u64 = 1024 * 1024;

/// Groups that one user may make in a day of UTC.
pub const GROUPS_PER_DAY_MAX: u32 = 100;

/// Days that a group without members keeps its name and messages.
pub const EMPTY_GROUP_DAYS: i64 = 30;

/// Bucket of changes by one user other than messages, in changes.
pub const CHANGES_BUCKET: u64 = 200;
/// Changes that come back to it every second.
pub const CHANGES_PER_SECOND: u64 = 20;

/// Users whose use of limits is kept in memory at once.
pub const LEDGER_ENTRIES_MAX: usize = 65_536;

/// Chats that one user may be in; joining or making more is forbidden.
pub const MEMBERSHIPS_MAX: usize = 10_000;

/// Bytes of a word that the search index distinguishes; what lies behind is compared in the
/// messages found.
pub const INDEXED_WORD_BYTES_MAX: usize = 64;

/// Online members of a chat past which presence, typing and markers are not notified there: these
/// ephemeral events grow with the square of the members.
pub const EPHEMERAL_MEMBERS_MAX: usize = 256;

/// Bytes read from one connection in one turn.
pub const TURN_READ_BYTES_PER_CONNECTION: usize = 64 * 1024;

/// Bytes read from all connections in one turn; the rest wait for the next.
pub const TURN_READ_BYTES: usize = 1024 * 1024;

/// Connections in a TLS handshake that are read from in one turn: each may cost 0.15 ms, and
/// nobody else is served meanwhile.
pub const TURN_HANDSHAKES: usize = 16;

/// Requests handled for one connection in one turn.
pub const TURN_REQUESTS_PER_CONNECTION: usize = 256;

/// Password jobs that may wait for the helper thread; more are declined `rate-limited`.
pub const PASSWORD_QUEUE_MAX: usize = 1024;

/// PBKDF2 rounds of all that wait: some 20 seconds of one core. More are declined `rate-limited`.
pub const PASSWORD_QUEUE_ROUNDS_MAX: u64 = 128 * PASSWORD_ITERATIONS as u64;

/// The same of those of one user, who is logged in: no user makes others wait for longer than this.
pub const PASSWORD_QUEUE_USER_ROUNDS_MAX: u64 = 8 * PASSWORD_ITERATIONS as u64;

/// The same of unauthenticated peers from one address, which may be that of a whole company.
pub const PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX: u64 = 64 * PASSWORD_ITERATIONS as u64;

/// Password jobs handed to the helper at once, so that cheap ones do not each wait for a turn,
pub const PASSWORDS_UNDER_WAY_MAX: usize = 32;
/// and the PBKDF2 rounds of those: some 10 ms, for which who comes next has to wait. A more
/// expensive one is handed over alone.
pub const PASSWORD_ROUNDS_UNDER_WAY_MAX: u64 = 60_000;

/// Origins that have had a session and take turns with the others at the helper.
pub const KNOWN_ORIGINS_MAX: usize = 65_536;
/// Users, origins and networks whose use of the helper is remembered at once.
pub const PASSWORD_COSTS_MAX: usize = 16_384;

/// PBKDF2-HMAC-SHA256 rounds for new passwords: OWASP's Password Storage Cheat Sheet.
pub const PASSWORD_ITERATIONS: u32 = 600_000;

/// Most rounds that a stored or configured password may ask for; bounds the helper's time.
pub const PASSWORD_ITERATIONS_MAX: u32 = 10_000_000;

/// Bucket of failures per (login, address), (session, address), (user, chat), in failures.
pub const FAILURE_BUCKET: u32 = 5;
/// One failure comes back to such a bucket every this many milliseconds.
pub const FAILURE_REFILL_MS: u64 = 10_000;
/// Bucket of failures per address alone.
pub const ADDRESS_FAILURE_BUCKET: u32 = 100;
/// One failure comes back to an address every this many milliseconds.
pub const ADDRESS_FAILURE_REFILL_MS: u64 = 1_000;
/// Bucket of successful logins per (login, address), at the configured default of rounds; one with
/// fewer rounds costs as much less.
pub const LOGIN_BUCKET: u32 = 30;
/// One login comes back to such a bucket every this many milliseconds.
pub const LOGIN_REFILL_MS: u64 = 5_000;
/// Bucket of registrations per address.
pub const REGISTER_BUCKET: u32 = 30;
/// One registration comes back every this many milliseconds.
pub const REGISTER_REFILL_MS: u64 = 60_000;
/// Buckets remembered at once over all keys of one kind; the oldest goes.
pub const BUCKETS_MAX: usize = 16_384;

/// Bytes of TLS records taken from a socket at once: the longest record that may come, and some.
pub const TLS_READ_BYTES: usize = 18 * 1024;
/// Bytes of TLS records of one connection that wait to be whole. The longest handshake message
/// that rustls accepts is 64 KiB, and it must lie in one piece.
pub const TLS_INCOMING_BYTES_MAX: usize = 64 * 1024 + 2 * TLS_READ_BYTES;
/// Bytes of plaintext encrypted at once for one connection: two records.
pub const TLS_WRITE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of TLS records of one connection that wait for its socket.
pub const TLS_OUTGOING_BYTES_MAX: usize = 2 * TLS_WRITE_BYTES_MAX;
/// Bytes of TLS records that may come without bringing a byte of plaintext.
pub const TLS_BARREN_BYTES_MAX: usize = 2 * TLS_INCOMING_BYTES_MAX;
/// Domains of one certificate from an ACME authority.
pub const DOMAINS_MAX: usize = 10;
/// Bytes of the body of an authority's answer that are read, the chain of a certificate among them,
pub const ACME_BODY_BYTES_MAX: u64 = 256 * 1024;
/// and of its head.
pub const ACME_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest URL, nonce or other value of a header of an authority.
pub const ACME_URL_BYTES_MAX: usize = 1024;
/// Seconds within which an authority has to be connected to,
pub const ACME_CONNECT_TIMEOUT_S: u64 = 10;
/// and within which it has to have answered a request.
pub const ACME_TIMEOUT_S: u64 = 30;
/// How often a request is sent whose nonce the authority does not know.
pub const ACME_NONCE_TRIES_MAX: usize = 20;
/// Longest file that is read as a certificate or key, in bytes.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Longest head of an HTTP request, in bytes (protocol section 9).
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines of an HTTP request.
pub const HTTP_HEAD_LINES_MAX: usize = 64;
/// Longest body of an HTTP request, which only a hook may have, in bytes.
pub const HTTP_BODY_BYTES_MAX: usize = 64 * 1024;
/// Seconds for the head of an HTTP request, from its first byte on.
pub const HTTP_HEAD_TIMEOUT_S: u64 = 10;
/// Seconds for the body of an HTTP request.
pub const HTTP_BODY_TIMEOUT_S: u64 = 30;
/// Seconds between two HTTP requests of a connection.
pub const HTTP_IDLE_TIMEOUT_S: u64 = 60;
/// HTTP connections of an address for each connection of Purpose without a session that it may
/// have.
pub const HTTP_CONNECTIONS_FACTOR: usize = 6;
/// Messages that a hook may send in [`HOOK_WINDOW_MS`].
pub const HOOK_MESSAGES_MAX: u32 = 30;
/// Milliseconds over which they are counted.
pub const HOOK_WINDOW_MS: u64 = 10_000;
/// The beginnings of requests by which a connection is one of HTTP.
pub const HTTP_METHODS_FIRST_BYTES: [[u8; 4]; 3] = [*b"GET ", *b"HEAD", *b"POST"];

/// Milliseconds without a byte after which a WebSocket gets a HEARTBEAT at the latest.
pub const WEBSOCKET_IDLE_MS_MAX: u64 = 45_000;
/// Connections at once, by default.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Unauthorized connections of one address at once, by default.
pub const UNAUTHORIZED_PER_ADDRESS_MAX: usize = 64;
/// File descriptors kept back from connections: the file, its WAL, listeners, helpers, a spare.
pub const DESCRIPTORS_RESERVED: usize = 64;
/// Invites that one user may have made at once, operators excepted.
pub const INVITES_PER_USER_MAX: u32 = 200;
/// Invites in all, above which operators alone make more.
pub const INVITES_MAX: u32 = 10_000;

/// Threads that send pushes, and so pushes under way at once,
pub const PUSH_THREADS: usize = 8;
/// and those of them to one host, so that a slow one leaves threads to the others.
pub const PUSHES_PER_HOST_MAX: usize = 4;
/// Pushes that wait; more are dropped and counted.
pub const PUSHES_PENDING_MAX: usize = 50_000;
/// Chats whose new messages wait to be scanned for pushes; more are found by a scan of all chats.
pub const PUSH_CHATS_MAX: usize = 4_096;
/// Messages of a chat that one slice of the decisions about pushes scans.
pub const PUSH_MESSAGES_SCANNED_MAX: u32 = 64;
/// Bytes of a push service's answer that are read.
pub const PUSH_ANSWER_BYTES_MAX: u64 = 4 * 1024;

/// Backlog asked of the kernel for a listener.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Connections that scrape metrics at once by HTTP, and as many by the socket of `vestnik stats`.
pub const SCRAPES_MAX: usize = 8;
/// Milliseconds for a peer of the socket of `vestnik stats` to read its page.
pub const STATS_TIMEOUT_MS: u64 = 5_000;

/// Lines of the log that connections which make no sense may cause in a while.
pub const UNAUTHENTICATED_LOG_LINES_MAX: u32 = 20;
/// How long a while is, in milliseconds.
pub const UNAUTHENTICATED_LOG_LINES_MS: u64 = 10_000;

/// Log lines that wait to be written; more are dropped and counted.
pub const LOG_LINES_QUEUED_MAX: usize = 1_024;
/// Longest log line, in bytes; the rest is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 2 * 1024;
/// Places of the source that have a rate limit of their own at once.
pub const LOG_SITES_MAX: usize = 1_024;

/// Seconds a connection may stay without a session.
pub const AUTH_TIMEOUT_S: u64 = 30;
/// Seconds without a byte from the client after which the server asks with HEARTBEAT.
pub const IDLE_TIMEOUT_S: u64 = 60;
/// Seconds the client has to show life after that.
pub const HEARTBEAT_TIMEOUT_S: u64 = 30;
/// Seconds a peer may take nothing while bytes wait for it.
pub const STALL_TIMEOUT_S: u64 = 300;
/// Milliseconds the server reads on after it ended its side of a connection.
pub const DRAIN_TIMEOUT_MS: u64 = 2_000;
/// Seconds that peers get to take their last bytes when the server stops.
pub const SHUTDOWN_TIMEOUT_S: u64 = 5;

/// Days after which an unused session ends.
pub const SESSION_DAYS: u32 = 30;
/// Sessions of one user; the one unused for longest goes when another is made.
pub const SESSIONS_PER_USER_MAX: usize = 100;

const _: () = {
    assert!(PUSHES_PER_HOST_MAX < PUSH_THREADS);
    assert!(HEADER_BYTES + BODY_BYTES_MAX <= 2 * TURN_READ_BYTES_PER_CONNECTION);
    assert!(TURN_READ_BYTES_PER_CONNECTION <= TURN_READ_BYTES);
    assert!(PIECE_BYTES_MAX + CONTENT_BYTES_MAX <= OUTBOUND_BYTES_MAX);
    assert!(NOTIFY_BYTES_MAX + CONTENT_BYTES_MAX <= OUTBOUND_BYTES_MAX);
    assert!(PIECE_BYTES_MAX <= STREAM_BYTES_PER_TURN);
    assert!(PASSWORD_ITERATIONS <= PASSWORD_ITERATIONS_MAX);
    assert!(PASSWORDS_UNDER_WAY_MAX <= PASSWORD_QUEUE_MAX);
    assert!(HTTP_BODY_BYTES_MAX <= TURN_READ_BYTES_PER_CONNECTION);
    assert!(HTTP_HEAD_BYTES_MAX <= TURN_READ_BYTES_PER_CONNECTION);
    assert!(u32::from_le_bytes(HTTP_METHODS_FIRST_BYTES[0]) as usize > 1024 * 1024);
    assert!(u32::from_le_bytes(HTTP_METHODS_FIRST_BYTES[1]) as usize > 1024 * 1024);
    assert!(u32::from_le_bytes(HTTP_METHODS_FIRST_BYTES[2]) as usize > 1024 * 1024);
    assert!(PASSWORD_QUEUE_USER_ROUNDS_MAX < PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX);
    assert!(PASSWORD_QUEUE_ORIGIN_ROUNDS_MAX < PASSWORD_QUEUE_ROUNDS_MAX);
};
