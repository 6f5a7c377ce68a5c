//! Tests that drive the service as the event loop does, with clocks that jump.

use std::net::Ipv4Addr;

use super::*;
use crate::auth::random::fixed::Counting;
use crate::auth::token::SessionSecret;
use crate::ids::{FileId, MessageId, SessionId};
use crate::outbox::Dirty;
use crate::store::Database;
use crate::wire::extras::Extras;
use crate::wire::frame::{self, Parsed};
use crate::wire::request::Request;

/// Microseconds since the epoch at which the tests begin.
const BEGIN_US: i64 = 1_700_000_000_000_000;

/// A database with one user, a session, and one chat with this slow mode.
fn file(slow_mode_s: u32) -> (Database, ChatId, SessionId, SessionSecret) {
    let database = Database::in_memory().expect("memory");
    let (chat, session, secret) = fill(&database, slow_mode_s);
    (database, chat, session, secret)
}

fn fill(database: &Database, slow_mode_s: u32) -> (ChatId, SessionId, SessionSecret) {
    let mut store = Store::new(database).expect("its tables");
    let now = ServerTime::new(BEGIN_US).expect("positive");
    let chat = store.add_chat("hall", "hall", None, now).expect("room").expect("a new name");
    store.set_chat_policy(chat, slow_mode_s, 0).expect("room");
    let user = store.add_user("anna", "anna", "", now).expect("room").expect("a new name");
    store.add_member(Member { chat, user, admin: false, joined: now, seen: now }).expect("room");
    let secret = SessionSecret::generate(&Counting::default()).expect("randomness");
    let session = store.add_session(user, &secret.digest().0, now, "").expect("room");
    store.commit().expect("room");
    (chat, session, secret)
}

/// A service with one connection, and its clocks.
struct Driven<'db> {
    service: Service<'db>,
    conn: ConnId,
    wall_us: i64,
    now_ms: u64,
}

impl<'db> Driven<'db> {
    fn new(
        database: &'db Database,
        random: &'db Counting,
        session: SessionId,
        secret: &SessionSecret,
    ) -> Self {
        Self::speaking(0, database, random, session, secret)
    }

    /// The same on API 1.`minor`.
    fn speaking(
        minor: u8,
        database: &'db Database,
        random: &'db Counting,
        session: SessionId,
        secret: &SessionSecret,
    ) -> Self {
        let store = Store::new(database).expect("its tables");
        let service = Service::new(store, ServiceConfig::default(), random).expect("a service");
        let conn = ConnId { index: 0, generation: 0 };
        let mut driven = Self { service, conn, wall_us: BEGIN_US, now_ms: 0 };
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        driven.service.connected(conn, Ipv4Addr::LOCALHOST.into());
        assert!(driven.ask(Request::Hello { major: 1, minor }).is_ok());
        let hash = std::str::from_utf8(secret.expose()).expect("hex digits");
        assert!(driven.ask(Request::RestoreSession { session, hash }).is_ok());
        driven
    }

    /// Runs a turn with one request. Returns the body of its ACCEPTED, or of its DECLINED.
    fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, String> {
        self.service.begin_turn(self.wall_us, self.now_ms);
        self.hand(request);
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
        self.answer()
    }

    fn hand(&mut self, request: Request<'_>) {
        let mut input = Vec::new();
        request.write(&mut input, 1);
        let Parsed::Frame(frame) = frame::parse(&input, usize::MAX) else { panic!("no frame") };
        assert_ne!(self.service.frame(self.conn, &frame), Flow::Close);
    }

    /// Sends a message while another process writes, until the server gives up. Returns the reason.
    fn send_in_vain(&mut self, chat: ChatId) -> String {
        let request =
            Request::SendChatMsg { chat, content: "hi", nonce: None, extras: Extras::NONE };
        let refused = self.ask(request);
        assert_eq!(refused, Err("no answer".to_owned()), "it waits");
        self.now_ms += 2_000;
        self.wall_us += 2_000_000;
        self.ask(request).expect_err("declined")
    }

    /// Drops the bytes that the first connections would get.
    fn forget_sent(&mut self, connections: u32) {
        while self.service.outbox.pop_dirty().is_some() {}
        for index in 0..connections {
            let bytes = self.service.outbox.sendable(index).len();
            self.service.outbox.advance(index, bytes);
        }
    }

    fn answer(&mut self) -> Result<Vec<u8>, String> {
        let mut answer = Err("no answer".to_owned());
        while let Some(Dirty { index, .. }) = self.service.outbox.pop_dirty() {
            let bytes = self.service.outbox.sendable(index).to_vec();
            self.service.outbox.advance(index, bytes.len());
            if let Parsed::Frame(frame) = frame::parse(&bytes, usize::MAX) {
                let text = || String::from_utf8_lossy(frame.body).into_owned();
                let is_accepted = frame.purpose == ToClient::Accepted.byte();
                answer = if is_accepted { Ok(frame.body.to_vec()) } else { Err(text()) };
            }
        }
        answer
    }

    /// Connects the user once more, with a session of its own, and drives that connection from now
    /// on.
    fn connect_again(&mut self, index: u32, user: UserId) {
        let now = ServerTime::new(BEGIN_US).expect("positive");
        let secret = SessionSecret::generate(self.service.random).expect("randomness");
        let session = self.service.store.add_session(user, &secret.digest().0, now, "");
        let session = session.expect("room");
        self.conn = ConnId { index, generation: 0 };
        self.service.connected(self.conn, Ipv4Addr::LOCALHOST.into());
        self.hand(Request::Hello { major: 1, minor: 0 });
        let hash = std::str::from_utf8(secret.expose()).expect("hex digits");
        self.hand(Request::RestoreSession { session, hash });
    }

    /// Advances the clocks, then runs a turn with a slow round of housekeeping.
    fn wait(&mut self, step_us: i64) {
        self.wall_us += step_us;
        self.now_ms += (step_us / 1000).max(10_000) as u64;
        self.service.begin_turn(self.wall_us, self.now_ms);
        self.service.housekeeping();
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
    }

    /// Sends a message. Returns its time.
    fn send(&mut self, chat: ChatId) -> Result<i64, String> {
        let body = self.ask(Request::SendChatMsg {
            chat,
            content: "hi",
            nonce: None,
            extras: Extras::NONE,
        })?;
        let created = body.last_chunk().map(|bytes| i64::from_le_bytes(*bytes));
        created.ok_or_else(|| "no time".to_owned())
    }
}

/// When the wall clock steps back by a day and forward again, server time goes on growing, and
/// follows the clock again once that has caught up.
#[test]
fn times_grow_while_the_clock_steps_back() {
    let (database, chat, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    let mut last = driven.send(chat).expect("sent");
    for step_us in [-DAY_US, 1, 1_000_000, -1, DAY_US, DAY_US, -3 * DAY_US, 4 * DAY_US] {
        driven.wall_us += step_us;
        // Right after the step, and after it has lasted.
        for wait_ms in [0, 1, 400_000] {
            driven.now_ms += wait_ms;
            driven.wall_us += wait_ms as i64 * 1000;
            let sent = driven.send(chat).expect("sent");
            assert!(sent > last, "{sent} after {last}");
            last = sent;
        }
        assert!(last >= driven.wall_us, "{last} is behind the clock");
    }
    assert!(last < driven.wall_us + 10, "time ran away");
}

/// The wait of slow mode does not depend on the wall clock, which may step.
#[test]
fn slow_mode_waits_by_the_clock_that_never_steps() {
    let (database, chat, session, secret) = file(5);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    for step_us in [0, -DAY_US, 3 * DAY_US] {
        driven.wall_us += step_us;
        driven.send(chat).expect("the first after a pause");
        driven.now_ms += 1_000;
        let words = driven.send(chat).expect_err("too soon");
        assert_eq!(words, "rate-limited: try again in 4 seconds\0");
        driven.now_ms += 3_999;
        let words = driven.send(chat).expect_err("still too soon");
        assert_eq!(words, "rate-limited: try again in 1 seconds\0");
        driven.now_ms += 1;
    }
}

/// A message that could not be stored does not count for slow mode, and is declined for the storage
/// error.
#[test]
fn a_message_that_was_not_stored_does_not_count_for_slow_mode() {
    let folder = std::env::temp_dir().join(format!("vestnik-service-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("slow-mode.db");
    let role = crate::store::open::Role::Server;
    let database = Database::open_with_vfs(&path, "unix", role, None).expect("a new file");
    let (chat, session, secret) = fill(&database, 5);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    let other = rusqlite::Connection::open(&path).expect("the same file");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    let words = driven.send_in_vain(chat);
    assert!(words.starts_with("storage-failed: "), "{words}");
    other.execute_batch("ROLLBACK").expect("let go");
    driven.send(chat).expect("the first that is stored");
    driven.send(chat).expect_err("the second comes too soon");
    drop((driven, other));
    drop(database);
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// The use of a long-lived session is stored, so it does not end as unused when its connection
/// does.
#[test]
fn a_session_that_is_carried_is_in_use() {
    const HOUR_US: i64 = 3_600_000_000;
    let (database, _, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    let used = |driven: &mut Driven<'_>| {
        let row = driven.service.store.session(session).expect("read").expect("alive");
        (row.used.micros() - BEGIN_US, row.address)
    };
    for (step_us, noted_us) in [(HOUR_US, 0), (1_000_000, HOUR_US + 1_000_000)] {
        driven.wait(step_us);
        assert!((0..1_000).contains(&(used(&mut driven).0 - noted_us)));
    }
    assert_eq!(used(&mut driven).1, "127.0.0.1");
    for _ in 0..40 * 24 {
        driven.wait(HOUR_US + 1);
    }
    driven.service.closed(driven.conn);
    driven.wait(29 * DAY_US);
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.service.connected(driven.conn, Ipv4Addr::LOCALHOST.into());
    assert!(driven.ask(Request::Hello { major: 1, minor: 0 }).is_ok());
    let hash = std::str::from_utf8(secret.expose()).expect("hex digits");
    assert!(driven.ask(Request::RestoreSession { session, hash }).is_ok());
}

/// A session's use that was noted in an undone turn is noted again.
#[test]
fn a_use_that_was_not_stored_is_noted_again() {
    let (database, _, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    driven.wall_us += DAY_US;
    driven.now_ms += (DAY_US / 1000) as u64;
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.service.turn.failed = Some(StoreError::unavailable("a full disk"));
    driven.service.housekeeping();
    driven.wait(0);
    let row = driven.service.store.session(session).expect("read").expect("alive");
    assert!(row.used.micros() >= driven.wall_us - 1_000_000, "{} is not noted", row.used.micros());
}

/// Runs a test where the newest 10,000 messages are the user's own: counting unread ones reads them
/// all.
fn with_many_own_messages(test: impl FnOnce(&mut Driven<'_>, ChatId, UserId)) {
    let (database, chat, session, secret) = file(0);
    let mut store = Store::new(&database).expect("its tables");
    let user = store.user_by_key("anna").expect("read").expect("anna").user;
    let other = store.add_user("boris", "boris", "", ServerTime::ZERO).expect("room");
    let other = other.expect("a new name");
    for n in 1..=10_000 {
        let created = ServerTime::new(BEGIN_US + n).expect("positive");
        let sender = if n <= 3 { other } else { user };
        store.add_message(chat, MessageId::at(created), sender, "hi").expect("room");
        store.reserve_time(created).expect("room");
    }
    store.commit().expect("room");
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    driven.wall_us += 1_000_000;
    test(&mut driven, chat, user);
}

/// Of many requests that need expensive counting, a few are answered per turn.
#[test]
fn counting_for_those_who_ask_is_bounded_in_one_turn() {
    with_many_own_messages(|driven, chat, _| {
        let (mut turns, mut answered) = (0, 0);
        while answered < 20 {
            driven.service.begin_turn(driven.wall_us, driven.now_ms);
            let mut asked = 0;
            while !driven.service.is_held(driven.conn) {
                driven.hand(Request::GetChat { chat });
                asked += 1;
            }
            assert!(asked <= 3, "{asked} in one turn");
            assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
            driven.service.pump();
            answered += asked;
            turns += 1;
            let info = driven.answer().expect("accepted");
            let unread = info.get(26..30).expect("a chat_info");
            assert_eq!(unread, 3_u32.to_le_bytes(), "{info:?}");
        }
        assert!(turns >= 7);
    });
}

/// The same for notifications: the others follow in later turns.
#[test]
fn counting_for_recipients_is_bounded_in_one_turn() {
    const CONNECTIONS: u32 = 20;
    with_many_own_messages(|driven, chat, user| {
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        for index in 1..CONNECTIONS {
            driven.connect_again(index, user);
        }
        assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
        let got = |driven: &mut Driven<'_>| {
            let mut got = 0;
            while let Some(Dirty { index, .. }) = driven.service.outbox.pop_dirty() {
                let bytes = driven.service.outbox.sendable(index).to_vec();
                driven.service.outbox.advance(index, bytes.len());
                let Parsed::Frame(notice) = frame::parse(&bytes, usize::MAX) else { panic!() };
                assert_eq!(notice.purpose, ToClient::ChatNotify.byte());
                assert_eq!(notice.bytes(), bytes.len(), "one notice each");
                got += 1;
            }
            got
        };
        driven.forget_sent(CONNECTIONS);
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        driven.service.notify_chat(chat, None);
        assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
        let mut by_turn = vec![got(driven)];
        while driven.service.may_pump() {
            driven.service.begin_turn(driven.wall_us, driven.now_ms);
            driven.service.pump();
            by_turn.push(got(driven));
        }
        assert_eq!(by_turn.iter().sum::<u32>(), CONNECTIONS, "{by_turn:?}");
        assert!(by_turn.iter().all(|got| *got <= 5), "{by_turn:?}");
    });
}

/// A chat is left during REQUEST_UPDATES of a slow consumer: CHAT_GONE comes before the end of the
/// answer, which skips the chat. Otherwise a client cut off in between would believe that it is up
/// to date after its user joined again.
#[test]
fn what_an_answer_leaves_out_is_gone_before_it_ends() {
    let (database, chat, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    let (slow, user) = (driven.conn, driven.service.caller(driven.conn, 0).expect("in").user);
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.connect_again(1, user);
    let other = std::mem::replace(&mut driven.conn, slow);
    driven.hand(Request::RequestUpdates { from: ServerTime::ZERO });
    driven.service.outbox.stage(slow.index, |out| out.resize(2 * 1024 * 1024, 0));
    driven.conn = other;
    driven.hand(Request::LeaveChat { chat });
    assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
    let waiting = driven.service.outbox.sendable(slow.index).len();
    driven.service.outbox.advance(slow.index, waiting);
    driven.service.pump();
    let bytes = driven.service.outbox.sendable(slow.index);
    let mut purposes = Vec::new();
    let mut rest = bytes;
    while let Parsed::Frame(frame) = frame::parse(rest, usize::MAX) {
        purposes.push(frame.purpose);
        rest = &rest[frame.bytes()..];
    }
    assert_eq!(purposes, [ToClient::ChatGone, ToClient::Accepted].map(ToClient::byte));
}

/// The sender gets everything before their own message, even beyond the limit of its queue: the
/// answer must not overtake it.
#[test]
fn an_answer_overtakes_nothing() {
    let (database, chat, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    let (first, user) = (driven.conn, driven.service.caller(driven.conn, 0).expect("in").user);
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.connect_again(1, user);
    driven.service.end_turn();
    let waiting = driven.service.outbox.sendable(first.index).len();
    driven.service.outbox.advance(first.index, waiting);
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.service.outbox.stage(first.index, |out| {
        // A frame almost as large as the limit.
        let body_bytes = crate::limits::OUTBOUND_BYTES_MAX - 100_000;
        frame::write(out, ToClient::Part.byte(), 1, |body| body.resize(body.len() + body_bytes, 0));
    });
    let content = "x".repeat(16_000);
    for _ in 0..20 {
        driven.hand(Request::SendChatMsg {
            chat,
            content: &content,
            nonce: None,
            extras: Extras::NONE,
        });
    }
    driven.conn = first;
    driven.hand(Request::SendChatMsg { chat, content: "mine", nonce: None, extras: Extras::NONE });
    assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
    driven.service.outbox.flatten(first.index);
    let (mut got, mut rest) = (Vec::new(), driven.service.outbox.sendable(first.index));
    while let Parsed::Frame(frame) = frame::parse(rest, usize::MAX) {
        got.push((frame.purpose, frame.body.len()));
        rest = &rest[frame.bytes()..];
    }
    let notified: usize =
        got.iter().filter(|(p, _)| *p == ToClient::MsgNotify.byte()).map(|t| t.1).sum();
    assert!(notified > 20 * content.len(), "{got:?}");
    assert_eq!(got.last().map(|got| got.0), Some(ToClient::Accepted.byte()), "{got:?}");
}

/// A connection that reads fast enough gets every ephemeral event, even after the server had to
/// delay notifications for lack of scan budget.
#[test]
fn who_is_notified_later_is_no_slow_reader() {
    with_many_own_messages(|driven, chat, user| {
        let first = driven.conn;
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        driven.connect_again(1, user);
        driven.service.end_turn();
        driven.forget_sent(2);
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        driven.service.note_scanned(1_000_000);
        driven.service.notify_chat(chat, Some(driven.conn));
        assert!(driven.service.is_held(first), "notified later");
        let time = ServerTime::new(BEGIN_US + 1).expect("positive");
        driven.hand(Request::MarkSeen { chat, time });
        assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
        let bytes = driven.service.outbox.sendable(first.index);
        let Parsed::Frame(notice) = frame::parse(bytes, usize::MAX) else { panic!("not notified") };
        assert_eq!(notice.purpose, ToClient::SeenNotify.byte());
    });
}

/// A backlog that cannot be read is retried after a delay, not in every turn.
#[test]
fn a_slow_reader_whose_chats_cannot_be_read_is_tried_again_later() {
    let (database, chat, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::new(&database, &random, session, &secret);
    let pump = |driven: &mut Driven<'_>| {
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
        driven.service.pump();
    };
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.service.note_scanned(1_000_000);
    driven.service.notify_chat(chat, None);
    assert_eq!(driven.service.end_turn(), TurnEnd::Committed);
    let name = |sql: &str| database.connection().execute_batch(sql).expect("another name");
    name("ALTER TABLE members RENAME TO away");
    pump(&mut driven);
    assert!(driven.service.is_held(driven.conn), "nothing can be read");
    assert!(!driven.service.may_pump(), "it is tried at once");
    name("ALTER TABLE away RENAME TO members");
    pump(&mut driven);
    assert!(driven.service.is_held(driven.conn), "it is tried too soon");
    driven.now_ms += 1_000;
    pump(&mut driven);
    assert!(!driven.service.is_held(driven.conn), "it is never notified");
}

impl Driven<'_> {
    /// Begins an upload of ten bytes.
    fn begin_file(&mut self, chat: ChatId, name: &str) -> Result<FileId, String> {
        let body = self.ask(Request::BeginFile {
            chat,
            size: 10,
            width: 0,
            height: 0,
            media_type: "text/plain",
            name,
        })?;
        let id = body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Ok(id.and_then(FileId::new).expect("an id"))
    }

    /// Sends bytes of a file. Returns the reason when it is declined.
    fn put_file(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), String> {
        self.service.begin_turn(self.wall_us, self.now_ms);
        self.hand(Request::PutFile { file, offset, bytes });
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
        // It is answered from the budget of streamed answers.
        self.service.pump();
        self.answer().map(drop)
    }
}

const MINUTE_US: i64 = 60_000_000;

/// An unfinished upload is gone one hour after its last byte, also one that was complete and never
/// sent. One that is in a message stays.
#[test]
fn an_unfinished_upload_is_gone_an_hour_after_its_last_byte() {
    let (database, chat, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::speaking(1, &database, &random, session, &secret);
    let begun = driven.begin_file(chat, "begun").expect("room");
    let sent = driven.begin_file(chat, "sent").expect("room");
    let complete = driven.begin_file(chat, "complete").expect("room");
    driven.put_file(sent, 0, b"0123456789").expect("stored");
    driven.put_file(complete, 0, b"0123456789").expect("stored");
    let attach = [&[0x04, 8, 0][..], &sent.get().to_le_bytes()].concat();
    let extras = Extras::trusted(&attach);
    let request = Request::SendChatMsg { chat, content: "", nonce: Some(1), extras };
    driven.ask(request).expect("sent");
    driven.wait(59 * MINUTE_US);
    driven.put_file(begun, 0, b"012").expect("an hour begins again");
    driven.wait(2 * MINUTE_US);
    assert!(driven.service.store.file(complete).expect("read").is_none(), "it stays for ever");
    assert!(driven.service.store.file(begun).expect("read").is_some(), "it is gone too early");
    driven.wait(57 * MINUTE_US);
    driven.put_file(begun, 3, b"345").expect("not an hour since its last byte");
    driven.wait(59 * MINUTE_US);
    assert!(driven.service.store.file(begun).expect("read").is_some(), "it is gone too early");
    driven.wait(2 * MINUTE_US);
    let gone = driven.put_file(begun, 6, b"6789").expect_err("it is gone");
    assert!(gone.starts_with("no-such-file"), "{gone}");
    assert!(driven.service.store.file(sent).expect("read").is_some(), "it is in a message");
    let usage = driven.service.store.file_usage(None).expect("read");
    assert_eq!((usage.bytes, usage.uploads), (10, 0), "only the one in a message counts");
}

/// The seventeenth upload is declined, until the one that has waited longest for a byte has done so
/// for a minute: then that one ends.
#[test]
fn an_upload_too_many_ends_the_idlest_after_a_minute() {
    let (database, chat, session, secret) = file(0);
    let random = Counting::default();
    let mut driven = Driven::speaking(1, &database, &random, session, &secret);
    let files: Vec<FileId> =
        (0..16).map(|n| driven.begin_file(chat, &n.to_string()).expect("room")).collect();
    let full = driven.begin_file(chat, "more").expect_err("sixteen are under way");
    assert!(full.starts_with("quota-exceeded"), "{full}");
    driven.wait(MINUTE_US - 1_000_000);
    driven.put_file(files[0], 0, b"0").expect("stored");
    assert!(driven.begin_file(chat, "more").is_err(), "none was idle for a minute");
    driven.wait(10_000_000);
    let more = driven.begin_file(chat, "more").expect("the idlest ends");
    let there = |file: &FileId| driven.service.store.file(*file).expect("read").is_some();
    let left: Vec<FileId> = files.iter().copied().filter(there).collect();
    assert_eq!(left, [&files[..1], &files[2..]].concat());
    driven.put_file(more, 0, b"0123456789").expect("it is under way");
}

/// Server time that ran ahead stands still. Uploads end by the wall clock all the same, also one
/// that got a byte while the clock was wrong.
#[test]
fn uploads_end_while_server_time_is_ahead() {
    let (database, chat, session, secret) = file(0);
    let at = |micros| ServerTime::new(micros).expect("positive");
    let mut store = Store::new(&database).expect("its tables");
    store.write_server_time(at(BEGIN_US + 31 * DAY_US)).expect("room");
    store.set_clock_trusted(at(BEGIN_US)).expect("room");
    store.commit().expect("room");
    let random = Counting::default();
    let mut driven = Driven::speaking(1, &database, &random, session, &secret);
    let files: Vec<FileId> =
        (0..16).map(|n| driven.begin_file(chat, &n.to_string()).expect("room")).collect();
    driven.wait(MINUTE_US + 1);
    driven.begin_file(chat, "more").expect("the idlest ends");
    let late = at(BEGIN_US + 31 * DAY_US);
    driven.service.store.append_file(files[15], 0, b"0", late).expect("room");
    driven.wait(61 * MINUTE_US);
    assert_eq!(driven.service.store.file_usage(None).expect("read").uploads, 0);
}
