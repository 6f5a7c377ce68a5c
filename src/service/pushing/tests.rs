//! Tests of pushes with a clock that the tests move and a closure as the push service.

use std::net::Ipv4Addr;

use super::deliver::topic;
use super::*;
use crate::auth::random::fixed::Counting;
use crate::auth::token::SessionSecret;
use crate::ids::{ConnId, SessionId};
use crate::push::Outcome;
use crate::service::push::FOLDED_BYTES;
use crate::service::{ServiceConfig, TurnEnd};
use crate::store::Database;
use crate::store::members::Member;
use crate::store::subscriptions::Subscription;
use crate::wire::extras::Extras;
use crate::wire::frame::{self, Parsed};
use crate::wire::request::Request;

/// Start of the tests, in microseconds since the epoch.
const BEGIN_US: i64 = 1_700_000_000_000_000;
const SECOND_US: i64 = 1_000_000;

fn at(micros: i64) -> ServerTime {
    ServerTime::new(micros).expect("positive")
}

/// Anna, who sends, and others with a subscription each, all members of one chat.
struct Cast {
    chat: ChatId,
    anna: (SessionId, SessionSecret),
    others: Vec<(UserId, SessionId, SessionSecret)>,
}

fn cast(database: &Database, names: &[&str]) -> Cast {
    let mut store = Store::new(database).expect("its tables");
    let now = at(BEGIN_US);
    let chat = store.add_chat("hall", "hall", None, now).expect("room").expect("a new name");
    let random = Counting::default();
    let mut add = |name: &str, subscribes: bool| {
        let user = store.add_user(name, name, "", now).expect("room").expect("a new name");
        let member = Member { chat, user, admin: false, joined: now, seen: now };
        store.add_member(member).expect("room");
        let secret = SessionSecret::generate(&random).expect("randomness");
        let session = store.add_session(user, &secret.digest().0, now, "").expect("room");
        if subscribes {
            let endpoint = format!("https://{name}.push.example/{name}");
            let (p256dh, auth) = (vec![4; 65], vec![user.get() as u8; 16]);
            let new = Subscription { session, endpoint, p256dh, auth };
            store.set_subscription(&new, now).expect("room");
        }
        (user, session, secret)
    };
    let (_, session, secret) = add("anna", false);
    let others = names.iter().map(|name| add(name, true)).collect();
    store.commit().expect("room");
    Cast { chat, anna: (session, secret), others }
}

struct Driven<'db> {
    service: Service<'db>,
    chat: ChatId,
    wall_us: i64,
    now_ms: u64,
}

const ANNA: ConnId = ConnId { index: 0, generation: 0 };

impl<'db> Driven<'db> {
    fn new(database: &'db Database, random: &'db Counting, cast: &Cast, wall_us: i64) -> Self {
        let config = ServiceConfig {
            push: true,
            push_hosts: vec![".push.example".to_owned()],
            ..ServiceConfig::default()
        };
        let store = Store::new(database).expect("its tables");
        let service = Service::new(store, config, random).expect("a service");
        let mut driven = Self { service, chat: cast.chat, wall_us, now_ms: 0 };
        driven.attach(ANNA, cast.anna.0, &cast.anna.1);
        driven
    }

    fn attach(&mut self, conn: ConnId, session: SessionId, secret: &SessionSecret) {
        self.service.begin_turn(self.wall_us, self.now_ms);
        self.service.connected(conn, Ipv4Addr::LOCALHOST.into());
        self.hand(conn, Request::Hello { major: 1, minor: 1 });
        let hash = std::str::from_utf8(secret.expose()).expect("hex digits");
        self.hand(conn, Request::RestoreSession { session, hash });
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
        self.forget_sent();
    }

    fn hand(&mut self, conn: ConnId, request: Request<'_>) {
        let mut input = Vec::new();
        request.write(&mut input, 1);
        let Parsed::Frame(frame) = frame::parse(&input, usize::MAX) else { panic!("no frame") };
        self.service.frame(conn, &frame);
    }

    fn forget_sent(&mut self) {
        while let Some(dirty) = self.service.outbox.pop_dirty() {
            let bytes = self.service.outbox.sendable(dirty.index).len();
            self.service.outbox.advance(dirty.index, bytes);
        }
    }

    /// Anna sends a message.
    fn send(&mut self, content: &str) {
        self.service.begin_turn(self.wall_us, self.now_ms);
        let nonce = Some(self.now_ms * 1000 + content.len() as u64);
        let (chat, extras) = (self.chat, Extras::NONE);
        self.hand(ANNA, Request::SendChatMsg { chat, content, nonce, extras });
        assert_eq!(self.service.end_turn(), TurnEnd::Committed);
        self.forget_sent();
    }

    /// Advances the clock second by second with a push service. Returns what reached it: the names
    /// in the endpoints, and the bodies.
    fn run(
        &mut self,
        seconds: u32,
        mut answer: impl FnMut(&Job) -> Outcome,
    ) -> Vec<(String, String)> {
        let mut reached = Vec::new();
        for _ in 0..seconds {
            self.wall_us += SECOND_US;
            self.now_ms += 1_000;
            // Run slices while there is more to do.
            for _ in 0..20 {
                self.service.begin_turn(self.wall_us, self.now_ms);
                self.service.housekeeping();
                while let Some(job) = self.service.pop_push() {
                    let name = job.endpoint.rsplit('/').next().unwrap_or_default().to_owned();
                    let text: serde_json::Value = serde_json::from_str(&job.text).expect("JSON");
                    let body = text["notification"]["body"].as_str().unwrap_or_default();
                    reached.push((name, body.to_owned()));
                    let outcome = answer(&job);
                    self.service.push_done(Done { id: job.id, outcome });
                }
            }
        }
        reached
    }

    fn pending(&mut self) -> Vec<(u32, u32)> {
        let rows = self.service.store.pending_pushes(100).expect("rows");
        rows.iter().map(|(row, _)| (row.session.get(), row.attempts)).collect()
    }
}

fn delivered(_: &Job) -> Outcome {
    Outcome::Delivered { status: 201 }
}

fn no_answer() -> Outcome {
    Outcome::Failed { why: "no answer".to_owned(), is_unreachable: true }
}

fn nobody(job: &Job) -> Outcome {
    panic!("nobody pushes to {}", job.endpoint)
}

fn names(reached: &[(String, String)]) -> Vec<&str> {
    let mut names: Vec<_> = reached.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn ten_seconds_later_the_newest_message_goes_to_those_who_are_away() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris", "clara", "dmitri", "elena"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    // Dmitri wants no pushes, and Elena is connected.
    let (dmitri, chat) = (cast.others[2].0, cast.chat);
    driven.service.store.set_notify_level(chat, dmitri, 2).expect("room");
    driven.attach(ConnId { index: 1, generation: 0 }, cast.others[3].1, &cast.others[3].2);
    driven.send("one");
    driven.run(5, nobody);
    driven.send("two");
    driven.run(4, nobody);
    let first = driven.run(2, delivered);
    assert_eq!(names(&first), ["boris", "clara"]);
    driven.send("three");
    // A busy chat is scanned every ten seconds, and the newest message is pushed.
    let second = driven.run(30, delivered);
    let mut bodies: Vec<_> = second.iter().map(|(_, body)| body.as_str()).collect();
    bodies.dedup();
    assert_eq!(bodies, ["anna: two", "anna: three"], "{second:?}");
    assert_eq!(names(&second), ["boris", "boris", "clara", "clara"]);
    assert_eq!(driven.pending(), []);
    driven.run(100, nobody);
}

#[test]
fn what_was_read_meanwhile_is_not_sent() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    driven.run(8, nobody);
    let now = at(driven.wall_us);
    driven.service.store.set_seen(cast.chat, cast.others[0].0, now).expect("room");
    driven.run(60, nobody);
    // A message that was read between two attempts is not pushed again either.
    driven.send("again");
    let failing = |_: &Job| no_answer();
    assert_eq!(driven.run(12, failing).len(), 1);
    assert_eq!(driven.pending(), [(cast.others[0].1.get(), 1)]);
    let now = at(driven.wall_us);
    driven.service.store.set_seen(cast.chat, cast.others[0].0, now).expect("room");
    driven.run(60, nobody);
    assert_eq!(driven.pending(), []);
}

#[test]
fn attempts_go_on_for_a_day_ever_more_rarely() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    let mut times = Vec::new();
    for second in 0..90_000 {
        // Housekeeping once a second would be slow; steps of ten seconds are enough here.
        let step = if second % 10 == 0 { 10 } else { continue };
        driven.wall_us += (step - 1) * SECOND_US;
        driven.now_ms += (step as u64 - 1) * 1_000;
        let declined =
            Outcome::Declined { status: 503, retry_after_s: None, excerpt: String::new() };
        if !driven.run(1, |_| declined.clone()).is_empty() {
            times.push(second);
        }
    }
    assert!((10..30).contains(&times.len()), "{times:?}");
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    assert_eq!(driven.pending(), [], "given up");
}

#[test]
fn a_service_is_asked_again_when_it_wants() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    let busy = |_: &Job| Outcome::Declined {
        status: 429,
        retry_after_s: Some(600),
        excerpt: "slow down".to_owned(),
    };
    assert_eq!(driven.run(12, busy).len(), 1);
    driven.run(580, nobody);
    assert_eq!(driven.run(30, delivered).len(), 1);
}

#[test]
fn a_subscription_that_is_gone_ends() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris", "clara"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    let gone_for_boris = |job: &Job| match job.endpoint.ends_with("boris") {
        true => Outcome::Gone { status: 410 },
        false => Outcome::Delivered { status: 201 },
    };
    assert_eq!(names(&driven.run(12, gone_for_boris)), ["boris", "clara"]);
    let boris = cast.others[0].1;
    assert!(driven.service.store.subscription(boris).expect("rows").is_none());
    driven.send("again");
    assert_eq!(names(&driven.run(12, delivered)), ["clara"]);
}

#[test]
fn a_push_that_cannot_be_sent_is_dropped() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    let impossible = |_: &Job| Outcome::Impossible("no key".to_owned());
    assert_eq!(driven.run(12, impossible).len(), 1);
    assert_eq!(driven.pending(), []);
    driven.run(100, nobody);
}

#[test]
fn many_chats_are_decided_about_in_one_slice() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    for raw in 0..1_000_u32 {
        let chat = ChatId::new(1_000_000 + raw).expect("an id");
        driven.service.background.pushing.note_sent(chat, at(driven.wall_us + i64::from(raw)));
    }
    driven.run(12, nobody);
    assert!(driven.service.background.pushing.noted.is_empty(), "within two seconds");
}

#[test]
fn what_waits_survives_a_crash_and_comes_once() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris", "clara"]);
    let mut wall_us = BEGIN_US;
    {
        let mut driven = Driven::new(&database, &random, &cast, wall_us);
        driven.run(11, nobody);
        driven.send("hello");
        let fails_for_boris = |job: &Job| match job.endpoint.ends_with("boris") {
            true => no_answer(),
            false => Outcome::Delivered { status: 201 },
        };
        assert_eq!(driven.run(12, fails_for_boris).len(), 2);
        // And one that was not scanned.
        driven.send("second");
        wall_us += 30 * SECOND_US;
    }
    let mut driven = Driven::new(&database, &random, &cast, wall_us);
    let reached = driven.run(60, delivered);
    assert_eq!(names(&reached), ["boris", "clara"]);
    assert!(reached.iter().all(|(_, body)| body == "anna: second"), "{reached:?}");
    driven.run(100, nobody);
}

#[test]
fn a_server_without_subscriptions_does_nothing() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &[]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.send("hello");
    driven.run(60, nobody);
    assert!(driven.service.background.pushing.noted.is_empty());
    assert_eq!(driven.service.store.push_decided().expect("a row"), None);
}

#[test]
fn a_turn_that_is_undone_loses_no_push() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    driven.run(5, nobody);
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    let error = crate::store::StoreError::unavailable("a test");
    driven.service.note_failure::<()>(Err(error));
    assert_eq!(driven.service.end_turn(), TurnEnd::Declined);
    assert_eq!(driven.run(20, delivered).len(), 1);
}

#[test]
fn more_chats_than_are_noted_are_found_by_a_scan() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    // Fill the table with chats that are gone.
    for raw in 0..PUSH_CHATS_MAX as u32 {
        let chat = ChatId::new(1_000_000 + raw).expect("an id");
        driven.service.background.pushing.note_sent(chat, at(driven.wall_us + i64::from(raw)));
    }
    driven.send("hello");
    assert!(driven.service.background.pushing.scan.is_some());
    let reached = driven.run(300, delivered);
    assert_eq!(names(&reached), ["boris"]);
}

#[test]
fn a_push_of_an_endpoint_that_was_replaced_goes_to_the_new_one() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    driven.run(11, nobody);
    driven.send("hello");
    driven.run(9, nobody);
    driven.wall_us += 2 * SECOND_US;
    driven.now_ms += 2_000;
    driven.service.begin_turn(driven.wall_us, driven.now_ms);
    driven.service.housekeeping();
    let job = driven.service.pop_push().expect("a push under way");
    let session = cast.others[0].1;
    let old = driven.service.store.subscription(session).expect("rows").expect("a row");
    let new = Subscription { endpoint: "https://new.push.example/new".to_owned(), ..old };
    driven.service.store.set_subscription(&new, at(driven.wall_us)).expect("room");
    driven.service.push_done(Done { id: job.id, outcome: Outcome::Gone { status: 410 } });
    assert_eq!(names(&driven.run(5, delivered)), ["new"]);
    assert_eq!(driven.pending(), []);
    driven.run(100, nobody);
}

#[test]
fn a_mention_is_found_behind_many_newer_messages() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris", "clara"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    let chat = cast.chat;
    driven.service.store.set_notify_level(chat, cast.others[0].0, 1).expect("room");
    driven.run(11, nobody);
    let long = "y".repeat(16_000);
    for newer in ["plain", &long, "@nobody", "@boris"] {
        driven.send("first");
        driven.run(1, nobody);
        driven.send("@boris please come");
        for _ in 0..200 {
            driven.now_ms += 1;
            driven.send(newer);
        }
        let mut reached = driven.run(30, delivered);
        reached.retain(|(name, _)| name == "boris");
        let expected = if newer == "@boris" { newer } else { "@boris please come" };
        let expected = [("boris".to_owned(), format!("anna: {expected}"))];
        assert_eq!(reached, expected, "behind {newer:.9}");
    }
}

#[test]
fn a_slice_folds_each_text_once_and_not_for_each_session() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    let (chat, boris) = (cast.chat, cast.others[0].0);
    let store = &mut driven.service.store;
    store.set_notify_level(chat, boris, 1).expect("room");
    for count in 0..90_u8 {
        let session = store.add_session(boris, &[count; 32], at(BEGIN_US), "").expect("room");
        let endpoint = format!("https://{count}.push.example/{count}");
        let (p256dh, auth) = (vec![4; 65], vec![count; 16]);
        let new = Subscription { session, endpoint, p256dh, auth };
        store.set_subscription(&new, at(BEGIN_US)).expect("room");
    }
    driven.run(11, nobody);
    let text = format!("@{}", "Ж".repeat(8_000));
    for _ in 0..17 {
        driven.now_ms += 1;
        driven.send(&text);
    }
    driven.run(9, nobody);
    driven.wall_us += 2 * SECOND_US;
    driven.now_ms += 2_000;
    let before = FOLDED_BYTES.get();
    let mut slices = Vec::new();
    while slices.len() < 100 {
        let begun = FOLDED_BYTES.get();
        driven.service.begin_turn(driven.wall_us, driven.now_ms);
        driven.service.housekeeping();
        slices.push(FOLDED_BYTES.get() - begun);
    }
    assert_eq!(FOLDED_BYTES.get() - before, 17 * text.len(), "{slices:?}");
    let most = slices.iter().max().expect("slices");
    assert!(*most <= FOLDED_BYTES_PER_SLICE + text.len(), "{slices:?}");
}

#[test]
fn a_slice_ends_behind_a_member_with_many_subscriptions() {
    let database = Database::in_memory().expect("memory");
    let cast = cast(&database, &["boris", "clara"]);
    let mut store = Store::new(&database).expect("its tables");
    let first = store.push_members(cast.chat, None, 3).expect("rows");
    // Anna has no subscription, Boris has one.
    assert_eq!((first.found.len(), first.scanned), (1, 3));
    assert_eq!(first.next, Some(cast.others[0].0));
    let second = store.push_members(cast.chat, first.next, 3).expect("rows");
    assert_eq!((second.found.len(), second.next), (1, None));
}

#[test]
fn bytes_that_are_no_frame_are_a_sign_of_life() {
    let database = Database::in_memory().expect("memory");
    let random = Counting::default();
    let cast = cast(&database, &["boris", "clara"]);
    let mut driven = Driven::new(&database, &random, &cast, BEGIN_US);
    let conns = [1, 2].map(|index| ConnId { index, generation: 0 });
    for (conn, (_, session, secret)) in conns.into_iter().zip(&cast.others) {
        driven.attach(conn, *session, secret);
    }
    for _ in 0..7 {
        driven.run(10, nobody);
        driven.service.heard(conns[0]);
    }
    driven.send("hello");
    assert_eq!(names(&driven.run(12, delivered)), ["clara"]);
}

#[test]
fn the_badge_counts_chats_with_unread_messages() {
    let database = Database::in_memory().expect("memory");
    let cast = cast(&database, &["boris"]);
    let boris = cast.others[0].0;
    let mut store = Store::new(&database).expect("its tables");
    let mut badges = Vec::new();
    let send = |store: &mut Store<'_>, sender: UserId, second: i64| {
        let id = MessageId::at(at(BEGIN_US + second * SECOND_US));
        store.add_message(cast.chat, id, sender, "x").expect("room");
        id
    };
    let anna = UserId::new(1).expect("an id");
    assert_ne!(anna, boris);
    badges.push(store.count_new_chats(boris, 10).expect("rows"));
    let first = send(&mut store, anna, 1);
    badges.push(store.count_new_chats(boris, 10).expect("rows"));
    // Unread messages stay unread behind one's own.
    send(&mut store, boris, 2);
    badges.push(store.count_new_chats(boris, 10).expect("rows"));
    let now = at(BEGIN_US + 3 * SECOND_US);
    store.delete_message(cast.chat, first, now).expect("room");
    badges.push(store.count_new_chats(boris, 10).expect("rows"));
    assert_eq!(badges, [0, 1, 1, 0]);
}

#[test]
fn topics_say_nothing_of_the_chat() {
    let chat = ChatId::new(7).expect("an id");
    let (one, other) = (topic(&[1; 16], chat), topic(&[2; 16], chat));
    assert_eq!(one, topic(&[1; 16], chat));
    assert_ne!(one, other);
    assert_eq!(one.len(), 32, "as long as RFC 8030 allows");
}
