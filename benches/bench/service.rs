//! Whole turns without sockets: frames in, bytes for the peers out, one commit between.

use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, Throughput};
use ring::rand::SystemRandom;
use vestnik::auth::random::RandomSource;
use vestnik::auth::token::SessionSecret;
use vestnik::ids::{ConnId, SessionId};
use vestnik::limits::{BODY_BYTES_MAX, HEADER_BYTES};
use vestnik::outbox::Dirty;
use vestnik::service::{Flow, Service, ServiceConfig, TurnEnd};
use vestnik::store::members::Member;
use vestnik::store::{Database, Store};
use vestnik::wire::extras::Extras;
use vestnik::wire::frame::{self, Parsed};
use vestnik::wire::request::Request;

use crate::files::{CONTENT_BYTES, Folder, time};

/// Users, all of whom are members of the one chat.
const USERS: u32 = 1_000;

/// When the bench begins, in microseconds: the file's sessions are fresh then.
const BEGIN_US: i64 = 1_700_000_000_000_000;

/// Sends in one turn.
pub(crate) const SENDS: u64 = 64;

/// A file with users, a chat, and a session for each user; gives the sessions.
pub(crate) fn prepare(database: &Database) -> Vec<(SessionId, String)> {
    let mut store = Store::new(database).expect("its tables");
    let now = time(BEGIN_US);
    let chat = store.add_chat("hall", "hall", None, now).expect("room").expect("a new name");
    let mut sessions = Vec::new();
    for number in 0..USERS {
        let name = format!("user{number}");
        let user = store.add_user(&name, &name, "", now).expect("room").expect("a new name");
        let member = Member { chat, user, admin: false, joined: now, seen: now };
        store.add_member(member).expect("room for it");
        let secret = SessionSecret::generate(&SystemRandom::new()).expect("randomness");
        let session = store.add_session(user, &secret.digest().0, now, "").expect("room for it");
        let hash = String::from_utf8(secret.expose().to_vec()).expect("hex digits");
        sessions.push((session, hash));
    }
    store.commit().expect("room for it");
    sessions
}

/// A service with connections, and a clock for it.
pub(crate) struct Bench<'db> {
    pub(crate) service: Service<'db>,
    now_us: i64,
    input: Vec<u8>,
}

impl<'db> Bench<'db> {
    pub(crate) fn new(database: &'db Database, random: &'db dyn RandomSource) -> Self {
        let store = Store::new(database).expect("its tables");
        let service = Service::new(store, ServiceConfig::default(), random).expect("a service");
        Self { service, now_us: BEGIN_US, input: Vec::new() }
    }

    pub(crate) fn begin(&mut self) {
        self.now_us += 1_000;
        self.service.begin_turn(self.now_us, self.now_us as u64 / 1_000);
    }

    /// Hands over what a connection wrote.
    fn feed(&mut self, conn: ConnId) {
        let mut used = 0;
        while let Parsed::Frame(frame) = frame::parse(&self.input[used..], BODY_BYTES_MAX) {
            used += frame.bytes();
            assert_eq!(self.service.frame(conn, &frame), Flow::Continue);
        }
        assert_eq!(used, self.input.len());
        self.input.clear();
    }

    /// One request and the turns until its long answer has ended: how many bytes it has.
    pub(crate) fn ask(&mut self, conn: ConnId, request: &Request<'_>) -> usize {
        self.begin();
        request.write(&mut self.input, 1);
        let parsed = frame::parse(&self.input, BODY_BYTES_MAX);
        let Parsed::Frame(frame) = parsed else { panic!("a whole frame") };
        self.service.frame(conn, &frame);
        let (_, mut bytes) = self.end();
        self.input.clear();
        while self.service.is_held(conn) {
            self.begin();
            if self.service.wants_housekeeping() {
                self.service.housekeeping();
            }
            bytes += self.end().1;
            self.service.pump();
            bytes += self.take();
        }
        bytes
    }

    fn take(&mut self) -> usize {
        let mut bytes = 0;
        while let Some(Dirty { index, .. }) = self.service.outbox.pop_dirty() {
            let sendable = self.service.outbox.sendable(index).len();
            self.service.outbox.advance(index, sendable);
            bytes += sendable;
        }
        bytes
    }

    /// Ends the turn, and takes what leaves: how many peers, and how many bytes.
    pub(crate) fn end(&mut self) -> (u64, usize) {
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
        let (mut peers, mut bytes) = (0, 0);
        while let Some(Dirty { index, .. }) = self.service.outbox.pop_dirty() {
            let sendable = self.service.outbox.sendable(index).len();
            self.service.outbox.advance(index, sendable);
            peers += 1;
            bytes += sendable;
        }
        (peers, bytes)
    }

    fn connect(&mut self, index: u32) -> ConnId {
        let conn = ConnId { index, generation: 1 };
        self.service.connected(conn, IpAddr::V4(Ipv4Addr::LOCALHOST));
        Request::Hello { major: 1, minor: 0 }.write(&mut self.input, 1);
        self.feed(conn);
        conn
    }

    /// Makes connections and restores the sessions of as many users.
    pub(crate) fn connect_users(&mut self, sessions: &[(SessionId, String)]) -> Vec<ConnId> {
        self.begin();
        let mut conns = Vec::new();
        for (index, (session, hash)) in sessions.iter().enumerate() {
            let conn = self.connect(index as u32);
            Request::RestoreSession { session: *session, hash }.write(&mut self.input, 2);
            self.feed(conn);
            assert!(self.service.is_authorized(conn));
            conns.push(conn);
        }
        self.end();
        conns
    }
}

/// A turn of sends from two to the chat that all are members of.
pub(crate) fn send_turn(bench: &mut Bench<'_>, conns: &[ConnId], content: &str) {
    bench.begin();
    let chat = crate::files::chat(0);
    for conn in &conns[..2] {
        for task in 0..SENDS / 2 {
            Request::SendChatMsg { chat, content, nonce: None, extras: Extras::NONE }
                .write(&mut bench.input, task as u8);
        }
        bench.feed(*conn);
    }
    let (peers, bytes) = bench.end();
    assert_eq!(peers, conns.len() as u64);
    // Each of the others has every text; the two have each other's.
    assert!(bytes > (conns.len() - 1) * SENDS as usize * CONTENT_BYTES);
}

/// A turn of HEARTBEATs, as many from each of the connections.
pub(crate) fn echo_turn(bench: &mut Bench<'_>, conns: &[ConnId]) {
    bench.begin();
    for conn in conns {
        for task in 0..SENDS {
            Request::Heartbeat { echo: b"" }.write(&mut bench.input, task as u8);
        }
        bench.feed(*conn);
    }
    let (peers, bytes) = bench.end();
    assert_eq!(peers, conns.len() as u64);
    assert_eq!(bytes as u64, peers * SENDS * HEADER_BYTES as u64);
}

/// A turn of sends to a chat, by how many of its members are there. Needs a disk that syncs.
pub(crate) fn send_turns(criterion: &mut Criterion) {
    let folder = Folder::new("service");
    let random = SystemRandom::new();
    let database = Database::open_server(&folder.file("send.db")).expect("a file");
    let sessions = prepare(&database);
    let content = "x".repeat(CONTENT_BYTES);
    let mut group = criterion.benchmark_group("service");
    group.throughput(Throughput::Elements(SENDS));
    for members in [2, 200, USERS as usize] {
        let mut bench = Bench::new(&database, &random);
        let conns = bench.connect_users(&sessions[..members]);
        let id = BenchmarkId::new("turn of 64 sends from two, members online", members);
        group.bench_function(id, |bencher| {
            bencher.iter(|| send_turn(&mut bench, &conns, &content));
        });
    }
    group.finish();
}

/// A session that goes to and fro between two connections.
pub(crate) fn restore(criterion: &mut Criterion) {
    let folder = Folder::new("restore");
    let random = SystemRandom::new();
    let database = Database::open_server(&folder.file("restore.db")).expect("a file");
    let sessions = prepare(&database);
    let mut bench = Bench::new(&database, &random);
    bench.begin();
    let conns = [bench.connect(0), bench.connect(1)];
    bench.end();
    let mut next = 0;
    let mut group = criterion.benchmark_group("service");
    group.throughput(Throughput::Elements(1));
    group.bench_function("turn of one RESTORE_SESSION", |bencher| {
        bencher.iter(|| {
            let conn = conns[next % 2];
            let (session, hash) = &sessions[0];
            bench.begin();
            Request::RestoreSession { session: *session, hash }.write(&mut bench.input, 2);
            bench.feed(conn);
            assert!(bench.service.is_authorized(conn));
            bench.end();
            next += 1;
        });
    });
    group.finish();
}
