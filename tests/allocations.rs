//! The hot path does not allocate: no call of the allocator per message in a steady stream of
//! SEND_CHAT_MSG to a chat with members online.
//!
//! SQLite has its own allocator and does not count, nor does the search index, which is filled in
//! the background.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::SystemRandom;
use vestnik::auth::token::SessionSecret;
use vestnik::ids::{ChatId, ConnId, ServerTime};
use vestnik::limits::BODY_BYTES_MAX;
use vestnik::outbox::Dirty;
use vestnik::service::{Flow, Service, ServiceConfig, TurnEnd};
use vestnik::store::members::Member;
use vestnik::store::{Database, Store};
use vestnik::wire::extras::Extras;
use vestnik::wire::frame::{self, Parsed};
use vestnik::wire::request::Request;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on as it is; counting touches no memory that is handed out.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BEGIN_US: i64 = 1_700_000_000_000_000;
const MEMBERS: u32 = 20;
const SENDERS: usize = 4;
const SENDS_PER_TURN: u8 = 16;

/// A chat whose members are all connected; the connections, and the frames that a sender sends in
/// a turn.
fn connect(service: &mut Service<'_>, sessions: &[(Vec<u8>, u32)]) -> Vec<ConnId> {
    service.begin_turn(BEGIN_US, 0);
    let mut conns = Vec::new();
    for (index, (hash, session)) in sessions.iter().enumerate() {
        let conn = ConnId { index: index as u32, generation: 0 };
        service.connected(conn, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let hash = std::str::from_utf8(hash).expect("hex digits");
        let session = vestnik::ids::SessionId::new(*session).expect("not 0");
        let mut input = Vec::new();
        Request::Hello { major: 1, minor: 0 }.write(&mut input, 1);
        Request::RestoreSession { session, hash }.write(&mut input, 2);
        feed(service, conn, &input);
        assert!(service.is_authorized(conn));
        conns.push(conn);
    }
    end_turn(service);
    conns
}

fn feed(service: &mut Service<'_>, conn: ConnId, mut input: &[u8]) {
    while let Parsed::Frame(frame) = frame::parse(input, BODY_BYTES_MAX) {
        assert_eq!(service.frame(conn, &frame), Flow::Continue);
        input = &input[frame.bytes()..];
    }
    assert!(input.is_empty());
}

/// Ends the turn as the loop does; the bytes that left.
fn end_turn(service: &mut Service<'_>) -> usize {
    assert_eq!(service.end_turn(), TurnEnd::Committed);
    service.pump();
    let mut sent = 0;
    while let Some(Dirty { index, .. }) = service.outbox.pop_dirty() {
        let bytes = service.outbox.sendable(index).len();
        service.outbox.advance(index, bytes);
        sent += bytes;
    }
    sent
}

#[test]
fn a_steady_stream_of_sends_allocates_nothing() {
    let database = Database::in_memory().expect("memory");
    let mut store = Store::new(&database).expect("tables");
    let now = ServerTime::new(BEGIN_US).expect("positive");
    let chat = store.add_chat("hall", "hall", None, now).expect("stored").expect("free");
    let sessions = (0..MEMBERS).map(|number| add_member(&mut store, chat, number, now)).collect();
    let sessions: Vec<(Vec<u8>, u32)> = sessions;
    store.commit().expect("stored");
    let random = SystemRandom::new();
    let mut service = Service::new(store, ServiceConfig::default(), &random).expect("a service");
    let conns = connect(&mut service, &sessions);
    let mut input = Vec::new();
    let content = "x".repeat(100);
    for task in 0..SENDS_PER_TURN {
        Request::SendChatMsg { chat, content: &content, nonce: None, extras: Extras::NONE }
            .write(&mut input, task);
    }
    let mut turn = |number: i64| {
        service.begin_turn(BEGIN_US + number * 1000, number as u64);
        for conn in &conns[..SENDERS] {
            feed(&mut service, *conn, &input);
        }
        end_turn(&mut service)
    };
    // Nothing is indexed in between: as many messages as the queue of the index holds.
    for number in 0..520 {
        turn(number);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut sent = 0;
    for number in 520..1000 {
        sent += turn(number);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let messages = 480 * SENDERS as u64 * u64::from(SENDS_PER_TURN);
    assert!(sent as u64 > messages * 100 * u64::from(MEMBERS - 1), "everybody was notified");
    // A list may double its room once more.
    assert!(allocations <= 5, "{allocations} allocations for {messages} messages");
    println!("{allocations} allocations for {messages} messages");
}

/// A user, member of the chat, with a session; its secret and its number.
fn add_member(store: &mut Store<'_>, chat: ChatId, number: u32, now: ServerTime) -> (Vec<u8>, u32) {
    let name = format!("user{number}");
    let user = store.add_user(&name, &name, "", now).expect("stored").expect("free");
    let member = Member { chat, user, admin: false, joined: now, seen: now };
    store.add_member(member).expect("stored");
    let secret = SessionSecret::generate(&SystemRandom::new()).expect("randomness");
    let session = store.add_session(user, &secret.digest().0, now, "").expect("stored");
    (secret.expose().to_vec(), session.get())
}
