//! The whole service, driven by bytes as the loop drives it: several connections, a file that can
//! be full, clocks that jump, readers that stall. Its answers and notifications are held against a
//! model of who may know what, and against what is in the file at the end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use vestnik::auth::helper::{self, Job, JobDone};
use vestnik::config::Registration;
use vestnik::ids::{ChatId, ConnId, ServerTime};
use vestnik::outbox::Outbox;
use vestnik::service::{Flow, Service, ServiceConfig, TurnEnd};
use vestnik::store::Store;
use vestnik::wire::Version;
use vestnik::wire::codec::Reader;
use vestnik::wire::frame::{self, Parsed};
use vestnik::wire::request::Request;

use super::file::{Counting, FullDisk, Prepared, WALL_US};
use super::input::Input;
use super::received::{self, Answer, Asked, News, Received};
use super::requests::{self, About, Known, PASSWORDS, USERS};

/// Longest body that this server takes, in bytes.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// Connections at once.
const SLOTS: usize = 6;
/// Turns in which everything must have come to rest at the end.
const TURNS_TO_REST: usize = 5000;
/// `data`: options, then what happens, one thing after the other.
pub fn service(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.u8();
    let prepared = Prepared::take();
    let random = Counting::default();
    let store = Store::new(&prepared.database).expect("tables");
    store.set_busy_timeout(false);
    let config = ServiceConfig {
        body_bytes_max: BODY_BYTES_MAX,
        outbound_bytes_max: [1 << 20, 64, 2048, 40_000][usize::from(options >> 1 & 3)],
        registration: Registration::Open,
        password_rounds: 1,
        ..ServiceConfig::default()
    };
    let service = Service::new(store, config, &random).expect("a service");
    let mut world = World::new(service, options & 1 == 1);
    if options & 8 == 0 {
        world.everybody_logs_in();
    }
    while !input.is_empty() && world.is_well {
        world.step(&mut input);
    }
    if world.is_well {
        world.come_to_rest();
        world.compare_with_the_file();
    }
    world.close_all();
    let is_well = world.is_well;
    drop(world);
    if is_well {
        prepared.keep();
    }
}

/// A client and its connection.
struct Slot {
    conn: ConnId,
    /// Frames sent and not handled, with what they are about.
    inbox: VecDeque<(Vec<u8>, Option<About>)>,
    received: Received,
    /// Bytes of its queue that were parsed and not taken from it.
    looked: usize,
    /// Takes nothing of what it is sent.
    stalls: bool,
    /// Is on its way out.
    is_closing: bool,
    user: Option<u32>,
    /// The present when the session was attached, at the latest.
    since: i64,
    /// It declined something: it may be suspended.
    may_be_suspended: bool,
    task: u8,
}

struct World<'db> {
    service: Service<'db>,
    slots: Vec<Option<Slot>>,
    known: Known,
    may_fail: bool,
    is_well: bool,
    wall_us: i64,
    now_ms: u64,
    generation: u32,
    order: u64,
    jobs: VecDeque<Job>,
    done: VecDeque<JobDone>,
    /// Who is in which chat since when, by chat and user; and who was at some time in this turn.
    members: HashMap<(u32, u32), i64>,
    were_members: HashSet<(u32, u32)>,
    passwords: HashMap<u32, usize>,
    /// Texts that are in the file, and such that must never be.
    sent: Vec<(u32, u64, String)>,
    refused: Vec<String>,
    /// Whose the sessions are.
    sessions: HashMap<u32, u32>,
}

impl<'db> World<'db> {
    fn new(service: Service<'db>, may_fail: bool) -> Self {
        let members = [(1, 1), (1, 2), (1, 3), (2, 1)].map(|key| (key, 0)).into();
        Self {
            service,
            slots: (0..SLOTS).map(|_| None).collect(),
            known: Known::default(),
            may_fail,
            is_well: true,
            wall_us: WALL_US,
            now_ms: 1000,
            generation: 0,
            order: 0,
            jobs: VecDeque::new(),
            done: VecDeque::new(),
            members,
            were_members: HashSet::new(),
            passwords: HashMap::new(),
            sent: Vec::new(),
            refused: Vec::new(),
            sessions: HashMap::new(),
        }
    }

    fn everybody_logs_in(&mut self) {
        self.begin(0);
        for (place, login) in USERS.iter().enumerate() {
            self.connect(place, 1);
            self.ask(place, &Request::Hello { major: 1, minor: 0 }, About::Hello);
            let request = Request::Login { login, password: PASSWORDS[0] };
            self.ask(place, &request, About::Login { user: place });
        }
        for _ in 0..5 {
            self.end(false);
            self.work(usize::MAX);
            self.begin(1);
        }
        self.end(false);
    }

    fn ask(&mut self, place: usize, request: &Request<'_>, about: About) {
        let Some(slot) = &mut self.slots[place] else { return };
        let mut bytes = Vec::new();
        slot.task = slot.task.wrapping_add(1);
        request.write(&mut bytes, slot.task);
        slot.inbox.push_back((bytes, Some(about)));
    }

    /// One turn: what has come, then what the turn does with it.
    fn step(&mut self, input: &mut Input<'_>) {
        self.begin(0);
        loop {
            let what = input.u8();
            let place = usize::from(what >> 4) % SLOTS;
            match what & 15 {
                0..=7 => self.send(place, input),
                8 => self.connect(place, u8::from(input.u8() & 1 == 1)),
                9 if input.u8() & 7 == 0 => self.cut_off(place),
                10 => self.answer(place, input),
                11 => {
                    if let Some(slot) = &mut self.slots[place] {
                        slot.stalls = !slot.stalls;
                    }
                }
                12 => self.take_some(place, usize::from(input.u8()) * 16),
                9 => {}
                13 => {
                    self.now_ms += u64::from(input.u8()) * 100;
                    self.wall_us += (i64::from(input.u8()) - 100) * 1_000_000;
                    break;
                }
                14 => {
                    self.service.housekeeping();
                    break;
                }
                _ => break,
            }
            if input.is_empty() {
                break;
            }
        }
        let ending = input.u8();
        self.end(ending & 1 == 1 && self.may_fail);
        let jobs = usize::from(ending >> 1 & 3);
        self.work(jobs);
    }

    fn send(&mut self, place: usize, input: &mut Input<'_>) {
        let Some(slot) = &mut self.slots[place] else { return self.come(place, input) };
        slot.task = slot.task.wrapping_add(1);
        let (bytes, about) = if input.u8() % 16 == 15 {
            let mut bytes = Vec::new();
            let about = requests::write_raw(input, slot.task, &mut bytes);
            (bytes, about)
        } else {
            requests::any(input, &mut self.known, slot.task)
        };
        slot.inbox.push_back((bytes, Some(about)));
    }

    /// A connection, as a rule one that logs in.
    fn come(&mut self, place: usize, input: &mut Input<'_>) {
        let how = usize::from(input.u8());
        self.connect(place, 1 + (how & 1) as u8);
        if how & 6 != 0 {
            let minor = u8::from(how & 8 != 0 && how & 16 != 0);
            let request = Request::Hello { major: 1 - minor, minor };
            self.ask(place, &request, About::Hello);
            let user = (how >> 5) % USERS.len();
            let password = PASSWORDS[self.passwords.get(&(user as u32 + 1)).copied().unwrap_or(0)];
            let request = Request::Login { login: USERS[user], password };
            self.ask(place, &request, About::Login { user });
        }
    }

    /// Something that is not answered: an answer, the end, or a frame that is too large.
    fn answer(&mut self, place: usize, input: &mut Input<'_>) {
        let Some(slot) = &mut self.slots[place] else { return };
        let mut bytes = Vec::new();
        match input.below(16) {
            0 => Request::Disconnect.write(&mut bytes, 1),
            1 => {
                slot.task = slot.task.wrapping_add(1);
                bytes = frame::header(BODY_BYTES_MAX + 1, 0x28, slot.task).to_vec();
                slot.inbox.push_back((bytes, Some(About::Other)));
                return;
            }
            2..=4 => {
                slot.may_be_suspended = true;
                let back = input.below(4) as u8;
                Request::Declined { rest: b"" }
                    .write(&mut bytes, slot.received.last_task.wrapping_sub(back));
            }
            _ => Request::Accepted { rest: b"" }.write(&mut bytes, input.u8()),
        }
        slot.inbox.push_back((bytes, None));
    }

    fn connect(&mut self, place: usize, network: u8) {
        if self.slots[place].is_some() {
            return;
        }
        self.generation += 1;
        let conn = ConnId { index: place as u32, generation: self.generation };
        self.service.connected(conn, IpAddr::from(Ipv4Addr::new(10, 0, network, 1)));
        self.slots[place] = Some(Slot {
            conn,
            inbox: VecDeque::new(),
            received: Received::default(),
            looked: 0,
            stalls: false,
            is_closing: false,
            user: None,
            since: 0,
            may_be_suspended: false,
            task: 0,
        });
    }

    /// The connection is reset.
    fn cut_off(&mut self, place: usize) {
        if let Some(slot) = self.slots[place].take() {
            self.service.closed(slot.conn);
        }
    }

    /// The password helper does some jobs.
    fn work(&mut self, count: usize) {
        for job in self.jobs.drain(..count.min(self.jobs.len())) {
            self.done.push_back(helper::run(job, &Counting::default()));
        }
    }

    // ---- a turn, as the loop makes it ----------------------------------------------------------

    fn begin(&mut self, passed_ms: u64) {
        self.now_ms += passed_ms;
        self.wall_us += passed_ms as i64 * 1000;
        self.service.begin_turn(self.wall_us, self.now_ms);
        self.were_members = self.members.keys().copied().collect();
        for place in 0..self.slots.len() {
            let is_over = self.slots[place].as_ref().is_some_and(|slot| {
                slot.is_closing && self.service.outbox.pending_bytes(place as u32) == 0
            });
            if is_over {
                self.cut_off(place);
            }
        }
    }

    fn end(&mut self, is_disk_full: bool) {
        let full = is_disk_full.then(FullDisk::begin);
        self.service.take_up_changes();
        while let Some(done) = self.done.pop_front() {
            self.service.job_done(&done);
        }
        for place in 0..self.slots.len() {
            self.feed(place);
        }
        if self.service.end_turn() == TurnEnd::Declined {
            assert!(is_disk_full, "declined for no reason");
            if self.service.lost().is_some() {
                // The process would end here.
                self.is_well = false;
                return;
            }
        }
        self.rest_of_turn();
        drop(full);
        if self.service.lost().is_some() {
            assert!(is_disk_full, "the file is lost for no reason");
            self.is_well = false;
            return;
        }
        if let Err(error) = self.service.check_invariants() {
            panic!("{error}");
        }
        self.look();
        for place in 0..self.slots.len() {
            if self.slots[place].as_ref().is_some_and(|slot| !slot.stalls || slot.is_closing) {
                self.take_some(place, usize::MAX);
            }
        }
    }

    /// What the loop does after the COMMIT.
    fn rest_of_turn(&mut self) {
        while let Some((job, _)) = self.service.pop_job() {
            self.jobs.push_back(job);
        }
        self.service.pump();
        while self.service.pop_resumed().is_some() {}
        while self.service.outbox.pop_dirty().is_some() {}
    }

    fn feed(&mut self, place: usize) {
        loop {
            let Some(slot) = &mut self.slots[place] else { return };
            if slot.is_closing || self.service.is_held(slot.conn) {
                return;
            }
            let Some((bytes, about)) = slot.inbox.pop_front() else { return };
            Self::ask_for(slot, &bytes, about, &mut self.order);
            if Self::handle(&mut self.service, slot, &bytes) == Flow::Close {
                slot.is_closing = true;
            }
        }
    }

    fn ask_for(slot: &mut Slot, bytes: &[u8], about: Option<About>, order: &mut u64) {
        let Some(about) = about else { return };
        *order += 1;
        let asked = Asked { task: bytes[5], about, order: *order, pack: Vec::new() };
        slot.received.asked.push_back(asked);
    }

    fn handle(service: &mut Service<'db>, slot: &mut Slot, bytes: &[u8]) -> Flow {
        match frame::parse(bytes, BODY_BYTES_MAX) {
            Parsed::Frame(frame) => service.frame(slot.conn, &frame),
            Parsed::TooLarge { task } => service.oversized(slot.conn, task),
            Parsed::Incomplete => panic!("a frame that is not whole was made"),
        }
    }

    // ---- what the clients see
    // --------------------------------------------------------------------

    /// Looks at what was released to whom, taken or not.
    fn look(&mut self) {
        self.known.time = self.service.last_time().micros();
        let (mut effects, mut named) = (Vec::new(), Vec::new());
        for place in 0..self.slots.len() {
            let Some(slot) = &mut self.slots[place] else { continue };
            let outbox: &Outbox = &self.service.outbox;
            let bytes = outbox.sendable(place as u32);
            assert_eq!(bytes.len(), outbox.pending_bytes(place as u32), "staged after the turn");
            let fresh = bytes.get(slot.looked..).unwrap_or_default().to_vec();
            slot.looked = bytes.len();
            let mut chats = Vec::new();
            let mut users: Vec<u32> = slot.user.into_iter().collect();
            for news in slot.received.take(&fresh) {
                match news {
                    News::Answer(answer) => self.note_answer(place, answer, &mut effects),
                    News::Deauth => self.set_user(place, None),
                    News::OfChat { chat } => chats.push(chat),
                }
                users.extend(self.slots[place].as_ref().and_then(|slot| slot.user));
            }
            named.push((place, chats, users));
        }
        effects.sort_by_key(|effect: &Effect| effect.order);
        for effect in effects {
            self.apply(&effect);
        }
        for (place, chats, users) in named {
            for chat in chats {
                let is_known = users.iter().any(|user| self.were_members.contains(&(chat, *user)));
                assert!(
                    is_known,
                    "connection {place} was notified of chat {chat}, of which it is no member"
                );
            }
        }
    }

    fn set_user(&mut self, place: usize, user: Option<u32>) {
        let now = self.known.time;
        let Some(slot) = &mut self.slots[place] else { return };
        slot.user = user;
        slot.since = now;
        slot.may_be_suspended = false;
    }

    /// What an answer says about who is who, and what it does to memberships.
    fn note_answer(&mut self, place: usize, answer: Answer, effects: &mut Vec<Effect>) {
        let slot = self.slots[place].as_ref();
        let user = slot.and_then(|slot| slot.user);
        let version = slot.and_then(|slot| slot.received.version).unwrap_or(Version::V1_0);
        let order = answer.order;
        let mut effect = |chat, user, kind| effects.push(Effect { order, chat, user, kind });
        let body = match &answer.outcome {
            Ok(body) => Reader::new(body),
            Err(code) => {
                if let About::Send { text, .. } = answer.about
                    && !text.is_empty()
                {
                    self.refused.push(text);
                }
                assert!(code != "storage-failed" || self.may_fail, "nothing failed");
                return;
            }
        };
        let mut body = body;
        match (answer.about, user) {
            (About::Login { user }, _) => {
                let session = body.u32().expect("a session");
                self.known.sessions.push((session, body.str().expect("its secret").to_owned()));
                self.sessions.insert(session, user as u32 + 1);
                self.set_user(place, Some(user as u32 + 1));
            }
            (About::Restore { session }, _) => {
                self.set_user(place, self.sessions.get(&session).copied());
            }
            (About::Logoff, _) => self.set_user(place, None),
            (About::Password { new }, Some(user)) => drop(self.passwords.insert(user, new)),
            (About::Join { chat }, Some(user)) => effect(chat, user, Kind::Enters),
            (About::Create, Some(user)) => {
                effect(body.chat_id().expect("a chat").get(), user, Kind::Enters);
            }
            (About::Start { user: other }, Some(user)) => {
                let chat = body.chat_id().expect("a chat").get();
                effect(chat, user, Kind::Enters);
                effect(chat, other, Kind::Enters);
            }
            (About::Leave { chat }, Some(user)) => effect(chat, user, Kind::Leaves),
            (About::Ban { chat, user }, Some(_)) => effect(chat, user, Kind::Leaves),
            (About::Delete { chat }, Some(_)) => effect(chat, 0, Kind::IsGone),
            (About::Send { chat, text }, Some(_)) => {
                let id = body.message_id().expect("an id").get();
                let created = body.time().expect("a time").micros();
                assert_eq!(id, created as u64);
                // A nonce that came again stands for the first text.
                if !self.sent.iter().any(|sent| sent.1 == id) {
                    self.sent.push((chat, id, text));
                    self.known.messages.push((chat, id));
                }
                self.note_own(place, created);
            }
            (About::Change { .. }, Some(_)) => {
                let updated = body.time().expect("a time").micros();
                self.note_own(place, updated);
            }
            (About::Range, _) => {
                let mut last = -1;
                while !body.is_empty() {
                    let message = body.message(version).expect("a message");
                    received::check(&message);
                    assert!(message.updated.micros() > last, "a range ascends");
                    last = message.updated.micros();
                }
            }
            _ => {}
        }
    }

    fn note_own(&mut self, place: usize, at: i64) {
        if let Some(slot) = &mut self.slots[place] {
            slot.received.own.insert(at);
        }
    }

    fn apply(&mut self, effect: &Effect) {
        let key = (effect.chat, effect.user);
        match effect.kind {
            Kind::Enters => {
                self.were_members.insert(key);
                self.members.entry(key).or_insert(self.known.time);
            }
            Kind::Leaves => drop(self.members.remove(&key)),
            Kind::IsGone => self.members.retain(|&(chat, _), _| chat != effect.chat),
        }
    }

    /// A client reads some bytes of what waits for it.
    fn take_some(&mut self, place: usize, most: usize) {
        let Some(slot) = &mut self.slots[place] else { return };
        let count = self.service.outbox.sendable(place as u32).len().min(most);
        self.service.outbox.advance(place as u32, count);
        slot.looked -= count;
    }

    // ---- the end
    // -------------------------------------------------------------------------------------

    /// Nobody stalls any more, and nothing new is asked: everything is answered and notified.
    fn come_to_rest(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.stalls = false;
        }
        for _ in 0..TURNS_TO_REST {
            self.begin(1);
            self.end(false);
            self.work(usize::MAX);
            let rests = |slot: &Slot| slot.inbox.is_empty() && slot.received.asked.is_empty();
            let is_at_rest = self.done.is_empty()
                && !self.service.may_pump()
                && self.slots.iter().flatten().all(|slot| slot.is_closing || rests(slot));
            if is_at_rest {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Reads every chat as each of the three users, by new connections.
    fn compare_with_the_file(&mut self) {
        let mut kept: HashMap<(u32, u64), (i64, u8, String)> = HashMap::new();
        for (place, login) in USERS.iter().enumerate() {
            let user = place as u32 + 1;
            let chats: Vec<u32> =
                self.members.keys().filter(|key| key.1 == user).map(|key| key.0).collect();
            let mut observer = Observer::begin(self, login, place as u8);
            for chat in chats {
                for (id, updated, status, text) in observer.read(self, chat) {
                    kept.insert((chat, id), (updated, status, text));
                }
            }
            observer.end(self);
        }
        let readable: HashSet<u32> = self
            .members
            .keys()
            .filter(|key| key.1 as usize <= USERS.len())
            .map(|key| key.0)
            .collect();
        for (chat, id, text) in self.sent.iter().filter(|sent| readable.contains(&sent.0)) {
            let found = kept.get(&(*chat, *id)).expect("what was accepted is kept");
            assert!(found.1 != 0 || found.2 == *text, "another text is kept");
        }
        for text in &self.refused {
            let is_kept = kept.values().any(|(_, status, kept)| *status == 0 && kept == text);
            let is_sent = self.sent.iter().any(|sent| sent.2 == *text);
            assert!(!is_kept || is_sent, "what was declined is kept: {text}");
        }
        for (place, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let Some(user) = slot.user.filter(|_| !slot.is_closing && !slot.may_be_suspended)
            else {
                continue;
            };
            for (&(chat, id), &(updated, ..)) in &kept {
                let Some(&since) = self.members.get(&(chat, user)) else { continue };
                let is_recipient = slot.received.messages.contains(&(chat, id, updated))
                    || slot.received.own.contains(&updated)
                    || updated <= since.max(slot.since);
                assert!(
                    is_recipient,
                    "connection {place} was never notified of {id} in chat {chat}"
                );
            }
        }
    }

    fn close_all(&mut self) {
        self.service.begin_turn(self.wall_us, self.now_ms);
        for place in 0..self.slots.len() {
            self.cut_off(place);
        }
        if self.is_well {
            assert_eq!(self.service.end_turn(), TurnEnd::Committed);
            self.rest_of_turn();
        }
        assert_eq!(self.service.outbox.buffered_bytes(), 0, "bytes for nobody");
    }
}

/// What an accepted request does to who is in which chat.
struct Effect {
    order: u64,
    chat: u32,
    user: u32,
    kind: Kind,
}

enum Kind {
    Enters,
    Leaves,
    IsGone,
}

/// A client of the end, in a place of its own, that only reads.
struct Observer {
    conn: ConnId,
}

impl Observer {
    fn begin(world: &mut World<'_>, login: &str, number: u8) -> Self {
        world.generation += 1;
        let conn = ConnId { index: SLOTS as u32, generation: world.generation };
        let observer = Self { conn };
        world.service.begin_turn(world.wall_us, world.now_ms);
        world.service.connected(conn, IpAddr::from(Ipv4Addr::new(10, 1, number, 1)));
        world.service.end_turn();
        observer.ask(world, &Request::Hello { major: 1, minor: 0 }).expect("greeted");
        let new = world.passwords.get(&(u32::from(number) + 1)).copied().unwrap_or(0);
        let request = Request::Login { login, password: PASSWORDS[new] };
        observer.ask(world, &request).expect("logged in");
        observer
    }

    fn read(&mut self, world: &mut World<'_>, chat: u32) -> Vec<(u64, i64, u8, String)> {
        let chat = ChatId::new(chat).expect("not 0");
        let request = Request::RequestChatMsg { chat, from: ServerTime::ZERO, to: None };
        let pack = self.ask(world, &request).expect("a member reads");
        let mut reader = Reader::new(&pack);
        let mut messages = Vec::new();
        while !reader.is_empty() {
            let message = reader.message(Version::V1_0).expect("a message");
            let text = message.content.to_owned();
            messages.push((message.id.get(), message.updated.micros(), message.status, text));
        }
        messages
    }

    fn end(self, world: &mut World<'_>) {
        world.service.begin_turn(world.wall_us, world.now_ms);
        world.service.closed(self.conn);
        world.service.end_turn();
        world.rest_of_turn();
    }

    /// Asks and takes turns until there is an answer; everything else is passed over.
    fn ask(&self, world: &mut World<'_>, request: &Request<'_>) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        request.write(&mut bytes, 77);
        let Parsed::Frame(frame) = frame::parse(&bytes, BODY_BYTES_MAX) else {
            panic!("a whole frame")
        };
        let mut pack = Vec::new();
        let mut is_asked = false;
        for _ in 0..TURNS_TO_REST {
            world.now_ms += 1;
            world.service.begin_turn(world.wall_us, world.now_ms);
            for done in std::mem::take(&mut world.done) {
                world.service.job_done(&done);
            }
            if !is_asked && !world.service.is_held(self.conn) {
                is_asked = true;
                world.service.frame(self.conn, &frame);
            }
            assert_eq!(world.service.end_turn(), TurnEnd::Committed);
            world.rest_of_turn();
            world.work(usize::MAX);
            let index = self.conn.index;
            let got = world.service.outbox.sendable(index).to_vec();
            world.service.outbox.advance(index, got.len());
            let mut at = 0;
            while let Parsed::Frame(frame) = frame::parse(&got[at..], 2 << 20) {
                at += frame.bytes();
                if frame.purpose <= 0x04 && frame.task == 77 {
                    pack.extend_from_slice(frame.body);
                    match frame.purpose {
                        0x00 => return Ok(pack),
                        0x01 => return Err(String::from_utf8_lossy(&pack).into_owned()),
                        _ => {}
                    }
                }
            }
        }
        panic!("no answer");
    }
}
