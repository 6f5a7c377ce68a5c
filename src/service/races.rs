//! Tests of races while a password is being checked: it changes, or the connection goes away.

use std::net::Ipv4Addr;

use super::*;
use crate::auth::helper::{self, JobDone, Outcome};
use crate::auth::password;
use crate::auth::random::fixed::Counting;
use crate::limits::FAILURE_BUCKET;
use crate::store::Database;
use crate::wire::frame::{self, Parsed};
use crate::wire::request::Request;

const NOW_US: i64 = 1_700_000_000_000_000;
const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

fn stored(text: &str, rounds: u32) -> String {
    let password = password::prepare(text, password::Kind::User).expect("long enough");
    password::hash(&password, rounds, &Counting::default()).expect("randomness")
}

/// A service on a database with the user anna, whose password has few rounds, and a chat with a
/// password.
struct Desk<'db> {
    service: Service<'db>,
    user: UserId,
    chat: ChatId,
    connected: u32,
}

impl<'db> Desk<'db> {
    fn new(database: &'db Database, random: &'db Counting) -> Self {
        let mut store = Store::new(database).expect("its tables");
        let now = ServerTime::new(NOW_US).expect("positive");
        let user = store.add_user("anna", "anna", &stored(OLD, 2), now);
        let user = user.expect("room").expect("a new name");
        let chat = store.add_chat("vault", "vault", Some(&stored(OLD, 1)), now);
        let chat = chat.expect("room").expect("a new name");
        store.commit().expect("room");
        let config = ServiceConfig { password_rounds: 3, ..ServiceConfig::default() };
        let service = Service::new(store, config, random).expect("a service");
        Self { service, user, chat, connected: 0 }
    }

    /// A greeted connection.
    fn connect(&mut self) -> ConnId {
        let conn = ConnId { index: self.connected, generation: self.connected };
        self.connected += 1;
        self.turn(|service| service.connected(conn, Ipv4Addr::LOCALHOST.into()));
        assert!(self.ask(conn, Request::Hello { major: 1, minor: 0 }).is_ok());
        conn
    }

    fn turn<T>(&mut self, what: impl FnOnce(&mut Service<'db>) -> T) -> T {
        self.service.begin_turn(NOW_US, 1000);
        let came = what(&mut self.service);
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
        came
    }

    fn hand(&mut self, conn: ConnId, request: Request<'_>) {
        let mut input = Vec::new();
        request.write(&mut input, 1);
        let Parsed::Frame(frame) = frame::parse(&input, usize::MAX) else { panic!("no frame") };
        self.turn(|service| service.frame(conn, &frame));
    }

    fn log_in(&mut self, conn: ConnId, password: &str) {
        self.hand(conn, Request::Login { login: "anna", password });
    }

    /// Lets the helper do one job, without handing back the result.
    fn check_one(&mut self) -> JobDone {
        let (job, _) = self.service.pop_job().expect("a password to check");
        helper::run(job, &Counting::default())
    }

    fn hand_over(&mut self, done: &JobDone) {
        self.turn(|service| service.job_done(done));
    }

    fn ask(&mut self, conn: ConnId, request: Request<'_>) -> Result<(), String> {
        self.hand(conn, request);
        self.answer(conn)
    }

    /// The next answer of a connection; an error as its message.
    fn answer(&mut self, conn: ConnId) -> Result<(), String> {
        let bytes = self.service.outbox.sendable(conn.index).to_vec();
        self.service.outbox.advance(conn.index, bytes.len());
        let Parsed::Frame(frame) = frame::parse(&bytes, usize::MAX) else { panic!("no answer") };
        let is_accepted = frame.purpose == ToClient::Accepted.byte();
        let words = || String::from_utf8_lossy(frame.body).into_owned();
        if is_accepted { Ok(()) } else { Err(words()) }
    }

    fn kept(&mut self) -> String {
        let user = self.user;
        self.turn(|service| service.store.user(user)).expect("read").expect("anna").password
    }
}

/// The old password was right when it was looked up, and has been replaced by the time it is
/// verified: nobody logs in with it, and its hash with more rounds does not replace the new one.
#[test]
fn a_password_that_changes_while_it_is_checked_lets_nobody_in() {
    let (database, random) = (Database::in_memory().expect("memory"), Counting::default());
    let mut desk = Desk::new(&database, &random);
    let conn = desk.connect();
    desk.log_in(conn, OLD);
    let done = desk.check_one();
    assert!(matches!(&done.outcome, Outcome::Verified { ok: true, upgraded: Some(_) }));
    let (user, new) = (desk.user, stored(NEW, 3));
    desk.turn(|service| service.store.set_password(user, &new)).expect("room");
    desk.hand_over(&done);
    let again = desk.check_one();
    desk.hand_over(&again);
    assert!(desk.answer(conn).expect_err("the old password").starts_with("bad-credentials: "));
    assert_eq!(desk.kept(), new);

    for (password, is_right) in [(OLD, false), (NEW, true)] {
        desk.log_in(conn, password);
        let done = desk.check_one();
        desk.hand_over(&done);
        assert_eq!(desk.answer(conn).is_ok(), is_right);
    }
}

/// A login waits for a command that is writing, and then sees its effect: a user disabled by then
/// does not log in, nor does one whose password was replaced.
#[test]
fn a_command_that_writes_meanwhile_is_seen() {
    let folder = std::env::temp_dir().join(format!("vestnik-races-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let new = stored(NEW, 3);
    let passwd = format!("UPDATE users SET password = '{new}'; DELETE FROM sessions");
    for (number, command) in ["UPDATE users SET disabled = 1", &passwd].into_iter().enumerate() {
        let path = folder.join(format!("{number}.db"));
        let role = crate::store::open::Role::Server;
        let database = Database::open_with_vfs(&path, "unix", role, None).expect("a new file");
        let random = Counting::default();
        let mut desk = Desk::new(&database, &random);
        let conn = desk.connect();
        desk.log_in(conn, OLD);
        let done = desk.check_one();
        let other = rusqlite::Connection::open(&path).expect("the same file");
        other.execute_batch("BEGIN IMMEDIATE").expect("held");
        desk.hand_over(&done);
        assert!(desk.service.waits_for_lock() && desk.service.is_waiting(conn));
        other.execute_batch(command).expect("written");
        other.execute_batch("COMMIT").expect("stored");
        desk.turn(|service| {
            let done = service.pop_deferred_job().expect("what was put aside");
            service.job_done(&done);
        });
        if desk.service.is_waiting(conn) {
            let again = desk.check_one();
            desk.hand_over(&again);
        }
        let words = desk.answer(conn).expect_err("out of date");
        assert!(words.starts_with("bad-credentials: "), "{words}");
        let user = desk.user;
        assert!(desk.turn(|service| service.store.sessions(Some(user))).expect("read").is_empty());
        assert!(number == 0 || desk.kept() == new);
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// Two logins at once, after the number of rounds was raised: one upgrades the hash, the other is
/// checked again and then succeeds.
#[test]
fn of_two_logins_at_once_none_is_declined() {
    let (database, random) = (Database::in_memory().expect("memory"), Counting::default());
    let mut desk = Desk::new(&database, &random);
    let (one, other) = (desk.connect(), desk.connect());
    desk.log_in(one, OLD);
    desk.log_in(other, OLD);
    let done = [desk.check_one(), desk.check_one()];
    desk.hand_over(&done[0]);
    desk.hand_over(&done[1]);
    assert_eq!(desk.answer(one), Ok(()));
    assert_eq!(password::rounds(&desk.kept()), Some(3), "hashed anew");
    let again = desk.check_one();
    desk.hand_over(&again);
    assert_eq!(desk.answer(other), Ok(()));
}

/// The same for the password of a chat.
#[test]
fn a_chat_password_that_changes_while_it_is_checked_lets_nobody_in() {
    let (database, random) = (Database::in_memory().expect("memory"), Counting::default());
    let mut desk = Desk::new(&database, &random);
    let (conn, chat) = (desk.connect(), desk.chat);
    desk.log_in(conn, OLD);
    let done = desk.check_one();
    desk.hand_over(&done);
    desk.answer(conn).expect("logged in");
    desk.hand(conn, Request::JoinChat { chat, password: Some(OLD) });
    let done = desk.check_one();
    let new = stored(NEW, 1);
    desk.turn(|service| service.store.set_chat_password(chat, Some(&new))).expect("room");
    desk.hand_over(&done);
    let again = desk.check_one();
    desk.hand_over(&again);
    assert!(desk.answer(conn).expect_err("the old password").starts_with("bad-password: "));
    let user = desk.user;
    let member = desk.turn(|service| service.store.member(chat, user)).expect("read");
    assert!(member.is_none());
}

/// A wrong guess counts even if the peer closes before it gets the answer.
#[test]
fn a_guess_that_nobody_waits_for_counts() {
    let (database, random) = (Database::in_memory().expect("memory"), Counting::default());
    let mut desk = Desk::new(&database, &random);
    for _ in 0..FAILURE_BUCKET {
        let conn = desk.connect();
        desk.log_in(conn, "no such password");
        let done = desk.check_one();
        desk.turn(|service| service.closed(conn));
        desk.hand_over(&done);
    }
    let conn = desk.connect();
    desk.log_in(conn, OLD);
    let words = desk.answer(conn).expect_err("no more for now");
    assert!(words.starts_with("rate-limited: "), "{words}");
}

/// A guess counts as well if another connection of the session aborts it. An aborted job leaves
/// nothing behind, whether it waited or the helper had it, and whatever aborted it.
#[test]
fn a_guess_that_is_cut_off_counts_and_is_forgotten() {
    let (database, random) = (Database::in_memory().expect("memory"), Counting::default());
    let mut desk = Desk::new(&database, &random);
    let (user, chat) = (desk.user, desk.chat);
    let mut conn = desk.connect();
    for round in 0..FAILURE_BUCKET {
        desk.log_in(conn, OLD);
        let done = desk.check_one();
        desk.hand_over(&done);
        desk.answer(conn).expect("logged in");
        desk.hand(conn, Request::JoinChat { chat, password: Some("no such password") });
        let done = desk.check_one();
        if round % 2 == 0 {
            let session =
                desk.service.presence.peers.get(conn).and_then(|peer| peer.state.attached);
            let session = session.expect("attached").session;
            desk.turn(|service| {
                assert!(service.store.end_session(session).expect("room"));
                service.deauth_session(user, session);
            });
        } else {
            // By hand, as the command line does it in the database.
            desk.turn(|service| service.store.end_sessions(user, None)).expect("room");
            let change = crate::store::changes::Change::SessionsEnded(user);
            desk.turn(|service| service.store.note_change(change)).expect("room");
            desk.service.background.housekeeping.start_again();
            desk.turn(|service| service.take_up_changes());
        }
        desk.hand_over(&done);
        conn = desk.connect();
    }
    assert!(desk.service.passwords.jobs.is_empty());
    desk.log_in(conn, OLD);
    let done = desk.check_one();
    desk.hand_over(&done);
    desk.answer(conn).expect("logged in");
    desk.hand(conn, Request::JoinChat { chat, password: Some(OLD) });
    let words = desk.answer(conn).expect_err("no more for now");
    assert!(words.starts_with("rate-limited: "), "{words}");
    // A waiting job is forgotten as well.
    let other = desk.connect();
    desk.log_in(other, OLD);
    desk.turn(|service| service.closed(other));
    assert!(desk.service.pop_job().is_none());
    assert!(desk.service.passwords.jobs.is_empty());
}

/// A right password costs nothing, even if its connection is gone.
#[test]
fn a_right_password_that_nobody_waits_for_counts_as_nothing() {
    let (database, random) = (Database::in_memory().expect("memory"), Counting::default());
    let mut desk = Desk::new(&database, &random);
    for _ in 0..=FAILURE_BUCKET {
        let conn = desk.connect();
        desk.log_in(conn, OLD);
        let done = desk.check_one();
        desk.turn(|service| service.closed(conn));
        desk.hand_over(&done);
    }
    let conn = desk.connect();
    desk.log_in(conn, OLD);
    let done = desk.check_one();
    desk.hand_over(&done);
    assert_eq!(desk.answer(conn), Ok(()));
}
