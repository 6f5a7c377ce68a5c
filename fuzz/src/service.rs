//! The whole server, driven by bytes: the real engine and service with several clients whose
//! streams stall, break and end, a disk that can be full, and clocks that jump. Answers and
//! notifications are compared with a model of who may know what, and with what is in the database
//! at the end.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use vestnik::config::Registration;
use vestnik::engine::{Engine, Now, Options, Stopped};
use vestnik::http::{Site, Surface};
use vestnik::ids::{ChatId, ServerTime, UserId};
use vestnik::service::{Service, ServiceConfig};
use vestnik::store::Store;
use vestnik::wire::Version;
use vestnik::wire::codec::Reader;
use vestnik::wire::frame;
use vestnik::wire::request::Request;

use super::clients::{Client, Clients};
use super::file::{Counting, FullDisk, Prepared, WALL_US};
use super::input::Input;
use super::model::Model;
use super::requests::{self, About, OPERATOR, PASSWORDS, PUSH_HOST, USERS};

/// Longest body that this server takes, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 32 * 1024;
/// Clients at once; one more reads everything at the end.
const CLIENTS: usize = 6;
/// Turns in which everything must have come to rest at the end.
const TURNS_TO_REST: usize = 4000;
/// Milliseconds that each of them takes.
const REST_TURN_MS: u64 = 5;

/// `data`: two bytes of options, then what happens, one thing after the other.
pub fn service(data: &[u8]) {
    let mut input = Input::new(data);
    let (options, more) = (input.u8(), input.u8());
    let prepared = Prepared::take();
    let random = Counting::default();
    let store = Store::new(&prepared.database).expect("tables");
    store.set_busy_timeout(false);
    let config = ServiceConfig {
        body_bytes_max: BODY_BYTES_MAX,
        outbound_bytes_max: [1 << 20, 64, 2048, 40_000][usize::from(options >> 1 & 3)],
        registration: if more & 8 == 0 { Registration::Open } else { Registration::Invite },
        password_rounds: 1,
        push: true,
        push_hosts: vec![PUSH_HOST.to_owned()],
        disk_reserve_bytes: 0,
        ..ServiceConfig::default()
    };
    let service = Service::new(store, config, &random).expect("a service");
    let mut world = World::new(service, options & 1 == 1, more);
    if options & 8 == 0 {
        world.everybody_logs_in(usize::from(options >> 4));
    }
    while !input.is_empty() && world.is_well {
        world.step(&mut input);
    }
    if world.is_well {
        world.come_to_rest();
        world.compare_with_the_database();
        world.close_all();
    }
    assert_eq!(world.engine.service.metrics.internal_errors, 0);
    let is_well = world.is_well;
    drop(world);
    if is_well {
        prepared.keep();
    }
}

struct World<'db> {
    engine: Engine<'db>,
    clients: Clients,
    is_well: bool,
    wall_us: i64,
    now_ms: u64,
    /// Requests keep coming: writes of notifications alone may be held back.
    is_back_to_back: bool,
}

/// `more`: how much a turn handles, and how it sends.
fn engine(service: Service<'_>, more: u8) -> Engine<'_> {
    let options = Options {
        body_bytes_max: BODY_BYTES_MAX,
        auth_timeout_ms: 30_000,
        idle_timeout_ms: 60_000,
        heartbeat_timeout_ms: 30_000,
        stall_timeout_ms: 60_000,
        drain_timeout_ms: 2_000,
        connections_max: 1000,
        unauthorized_per_address_max: 0,
        web: true,
        site: Site::default(),
        coalesced_connections_min: 1,
        requests_per_turn_max: [256, 256, 3, 1][usize::from(more & 3)],
    };
    Engine::new(service, options)
}

impl<'db> World<'db> {
    fn new(service: Service<'db>, may_fail: bool, more: u8) -> Self {
        Self {
            engine: engine(service, more),
            clients: Clients::new(CLIENTS + 1, Model::new(may_fail), more & 16 != 0),
            is_well: true,
            wall_us: WALL_US,
            now_ms: 1000,
            is_back_to_back: more & 32 != 0,
        }
    }

    /// Bits of `newer`: who speaks 1.0 and not 1.1, and whether the last one comes by WebSocket.
    fn everybody_logs_in(&mut self, newer: usize) {
        self.begin(0);
        for (at, login) in USERS.iter().enumerate() {
            self.connect(at, 1, newer & 8 != 0 && at == 2);
            let minor = u8::from(newer >> at & 1 == 0);
            self.ask(at, &Request::Hello { major: 1, minor }, About::Hello);
            let request = Request::Login { login, password: PASSWORDS[0] };
            self.ask(at, &request, About::Login { user: at });
        }
        self.end(false);
        for _ in 0..5 {
            self.turn(1);
        }
    }

    fn client(&mut self, at: usize) -> Option<&mut Client> {
        self.clients.all[at].as_mut()
    }

    fn ask(&mut self, at: usize, request: &Request<'_>, about: About) {
        let Some(client) = self.client(at) else { return };
        let mut bytes = Vec::new();
        client.task = client.task.wrapping_add(1);
        request.write(&mut bytes, client.task);
        client.send(bytes, Some(about));
    }

    /// One turn: what happens before it, then what the turn does with it.
    fn step(&mut self, input: &mut Input<'_>) {
        self.begin(0);
        loop {
            let what = input.u8();
            let at = usize::from(what >> 4) % CLIENTS;
            match what & 15 {
                0..=7 => self.send(at, input),
                8 => {
                    let how = input.u8();
                    if how < 64 {
                        self.connect(at, how & 1, how & 6 == 6);
                    } else {
                        self.come(at, input);
                    }
                }
                9 => self.disturb(at, input),
                10 => self.answer(at, input),
                11 | 12 => {
                    let bytes = usize::from(input.u8()) * 16;
                    if let Some(client) = self.client(at) {
                        let is_over = what & 15 == 11 && client.stream.is_stalled();
                        client.stream.accept(if is_over { usize::MAX } else { bytes });
                    }
                }
                13 => {
                    self.now_ms += u64::from(input.u8()) * 100;
                    self.wall_us += (i64::from(input.u8()) - 100) * 1_000_000;
                    break;
                }
                14 => {
                    // Time for housekeeping.
                    self.now_ms += 300;
                    break;
                }
                _ => break,
            }
            if input.is_empty() {
                break;
            }
        }
        let ending = input.u8();
        self.end(ending & 1 == 1 && self.clients.model.may_fail);
        self.clients.workable = usize::from(ending >> 1 & 3);
        self.now_ms += u64::from(ending >> 3);
    }

    fn send(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(client) = &mut self.clients.all[at] else { return self.come(at, input) };
        client.task = client.task.wrapping_add(1);
        let (bytes, about) = if input.u8() % 16 == 15 {
            let mut bytes = Vec::new();
            let about = requests::write_raw(input, client.task, &mut bytes);
            (bytes, about)
        } else {
            let version = client.received.version.unwrap_or(Version::V1_0);
            requests::any(input, &mut self.clients.model.known, version, client.task)
        };
        client.send(bytes, Some(about));
    }

    /// A connection, as a rule one that logs in; perhaps with a password that it sets by a code.
    fn come(&mut self, at: usize, input: &mut Input<'_>) {
        if self.clients.all[at].is_some() {
            return;
        }
        let how = usize::from(input.u8());
        self.connect(at, 1 + (how & 1) as u8, how & 3 == 3);
        if how & 6 == 0 {
            return;
        }
        let (major, minor) = [(1, 1), (1, 1), (1, 0), (0, 1)][how >> 3 & 3];
        self.ask(at, &Request::Hello { major, minor }, About::Hello);
        let mut user = (how >> 5) % USERS.len();
        let model = &self.clients.model;
        let mut password = PASSWORDS[model.password_of(user as u32 + 1)];
        if how & 0x38 == 0
            && let Some((of, code)) = model.known.codes.last().cloned()
            && let Some(login) = USERS.get(of as usize - 1)
        {
            user = of as usize - 1;
            password = PASSWORDS[1];
            let request = Request::SetPassword { login, code: &code, password };
            self.ask(at, &request, About::SetPassword { new: 1 });
        }
        let request = Request::Login { login: USERS[user], password };
        self.ask(at, &request, About::Login { user });
    }

    /// The stream of a client is cut, ends, or delivers what was sent in small pieces.
    fn disturb(&mut self, at: usize, input: &mut Input<'_>) {
        let how = input.u8();
        let Some(client) = self.client(at) else { return };
        match how & 15 {
            0 => client.stream.cut(),
            1 => client.stream.end(),
            _ => client.stream.piece = [usize::MAX, 1, 3, 7, 64, 1000][usize::from(how >> 4) % 6],
        }
    }

    /// Something that is not answered: an answer, the end, or a frame that is too large.
    fn answer(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(client) = self.client(at) else { return };
        let mut bytes = Vec::new();
        match input.below(16) {
            0 => {
                client.has_parted = true;
                Request::Disconnect.write(&mut bytes, 1);
            }
            1 => {
                client.has_parted = true;
                client.task = client.task.wrapping_add(1);
                bytes = frame::header(BODY_BYTES_MAX + 1, 0x28, client.task).to_vec();
                return client.send(bytes, Some(About::Other));
            }
            2..=4 => {
                client.may_be_suspended = true;
                let task = client.received.last_task.wrapping_sub(input.below(4) as u8);
                Request::Declined { rest: b"" }.write(&mut bytes, task);
            }
            _ => Request::Accepted { rest: b"" }.write(&mut bytes, input.u8()),
        }
        client.send(bytes, None);
    }

    fn connect(&mut self, at: usize, network: u8, is_websocket: bool) {
        if self.clients.all[at].is_some() {
            return;
        }
        let address = IpAddr::from(Ipv4Addr::new(10, 0, network, 1));
        let connected = self.engine.connect(address, Surface::Public, |_| Ok(()));
        let conn = connected.expect("not too many connections");
        self.clients.all[at] = Some(Client::new(at, conn, is_websocket));
    }

    // ---- turns ---------------------------------------------------------------------------------

    fn begin(&mut self, passed_ms: u64) {
        self.now_ms += passed_ms;
        self.wall_us += passed_ms as i64 * 1000;
        self.engine.set_back_to_back(self.is_back_to_back);
        let us = self.now_ms * 1000;
        let now = Now { wall_us: self.wall_us, us, idle_us: passed_ms * 1000 };
        let begun = self.engine.begin_turn(&mut self.clients, now);
        self.note(begun, false);
    }

    fn end(&mut self, is_disk_full: bool) {
        if !self.is_well {
            return;
        }
        self.clients.is_disk_full = is_disk_full;
        let full = is_disk_full.then(FullDisk::begin);
        self.clients.report(&mut self.engine);
        let ended = self.engine.turn(&mut self.clients);
        drop(full);
        self.note(ended, is_disk_full);
        if self.is_well
            && let Err(error) = self.engine.service.check_invariants()
        {
            panic!("{error}");
        }
    }

    /// The process ends where nobody knows what is on the disk.
    fn note(&mut self, outcome: Result<(), Stopped>, is_disk_full: bool) {
        match outcome {
            Ok(()) => {}
            Err(Stopped::StorageLost(error)) => {
                assert!(is_disk_full, "the database is lost for no reason: {error}");
                self.is_well = false;
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// A turn in which nothing new is asked.
    fn turn(&mut self, passed_ms: u64) {
        self.clients.workable = usize::MAX;
        self.begin(passed_ms);
        self.end(false);
    }

    // ---- the end -------------------------------------------------------------------------------

    /// Nobody stalls any more, and nothing new is asked: everything is answered and notified.
    fn come_to_rest(&mut self) {
        self.is_back_to_back = false;
        for client in self.clients.all.iter_mut().flatten() {
            client.stream.accept(usize::MAX);
            client.stream.piece = usize::MAX;
        }
        for _ in 0..TURNS_TO_REST {
            self.turn(REST_TURN_MS);
            let service = &self.engine.service;
            let rests = |client: &Client| {
                client.is_closing
                    || client.is_answered()
                        && client.stream.is_idle()
                        && !service.is_behind(client.conn)
            };
            if !self.engine.is_busy() && self.clients.all.iter().flatten().all(rests) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Reads every chat as each of the three users, by new connections.
    fn compare_with_the_database(&mut self) {
        let mut kept: HashMap<(u32, u64), (i64, u8, String)> = HashMap::new();
        for (at, login) in USERS.iter().enumerate() {
            let user = at as u32 + 1;
            let members = self.clients.model.members.keys();
            let chats: Vec<u32> = members.filter(|key| key.1 == user).map(|key| key.0).collect();
            self.observer_comes(login, user);
            for chat in chats {
                let chat_id = ChatId::new(chat).expect("not 0");
                let from = ServerTime::ZERO;
                let pack = self.probe(&Request::RequestChatMsg { chat: chat_id, from, to: None });
                let mut reader = Reader::new(&pack);
                while !reader.is_empty() {
                    let found = reader.message(Version::V1_1).expect("a message");
                    let row = (found.updated.micros(), found.status, found.content.to_owned());
                    kept.insert((chat, found.id.get()), row);
                }
            }
            self.cut_observer();
        }
        self.check_texts(&kept);
        for client in self.clients.all.iter().flatten() {
            self.check_notified(client, &kept);
        }
    }

    fn check_texts(&self, kept: &HashMap<(u32, u64), (i64, u8, String)>) {
        let model = &self.clients.model;
        let is_read = |user: u32| user as usize <= USERS.len();
        let readable: HashSet<u32> =
            model.members.keys().filter(|key| is_read(key.1)).map(|key| key.0).collect();
        for (chat, id, text, _) in model.sent.iter().filter(|sent| readable.contains(&sent.0)) {
            let found = kept.get(&(*chat, *id)).expect("what was accepted is kept");
            assert!(found.1 != 0 || found.2 == *text, "another text is kept");
        }
        for text in &model.refused {
            let is_kept = kept.values().any(|(_, status, kept)| *status == 0 && kept == text);
            let is_sent = model.sent.iter().any(|sent| sent.2 == *text);
            assert!(!is_kept || is_sent, "what was declined is kept: {text}");
        }
    }

    /// A client that was there was notified of the last change of each message.
    fn check_notified(&self, client: &Client, kept: &HashMap<(u32, u64), (i64, u8, String)>) {
        let is_there = !client.is_closing && !client.may_be_suspended;
        let Some(user) = client.user.filter(|_| is_there) else { return };
        let model = &self.clients.model;
        let shows_reactions = client.received.version.is_some_and(Version::has_extras);
        for (&(chat, id), &(updated, ..)) in kept {
            let Some(&since) = model.members.get(&(chat, user)) else { continue };
            let is_notified = client.received.messages.contains(&(chat, id, updated))
                || client.received.own.contains(&updated)
                || !shows_reactions && model.reactions.contains(&updated)
                || updated <= since.max(client.since);
            let at = client.at;
            assert!(is_notified, "client {at} was never notified of {id} in chat {chat}");
        }
    }

    /// Everybody goes, and nothing is left of them.
    fn close_all(&mut self) {
        for client in self.clients.all.iter_mut().flatten() {
            client.stream.cut();
        }
        for _ in 0..TURNS_TO_REST {
            if self.engine.connections() == 0 {
                break;
            }
            self.turn(REST_TURN_MS);
        }
        assert_eq!(self.engine.connections(), 0, "connections of nobody");
        assert_eq!(self.engine.service.outbox.buffered_bytes(), 0, "bytes for nobody");
    }

    // ---- a client of the end, which only reads -------------------------------------------------

    /// It logs in; an operator enables everybody first.
    fn observer_comes(&mut self, login: &str, user: u32) {
        self.begin(1);
        self.connect(CLIENTS, 100 + user as u8, false);
        self.end(false);
        self.ask(CLIENTS, &Request::Hello { major: 1, minor: 1 }, About::Hello);
        let password = PASSWORDS[self.clients.model.password_of(user)];
        let about = About::Login { user: user as usize - 1 };
        self.ask(CLIENTS, &Request::Login { login, password }, about);
        self.wait_for_observer();
        assert_eq!(self.client(CLIENTS).and_then(|client| client.user), Some(user), "not let in");
        if user == OPERATOR {
            for user in std::mem::take(&mut self.clients.model.disabled) {
                let user = UserId::new(user).expect("not 0");
                self.probe(&Request::SetUserDisabled { user, disabled: false });
            }
        }
    }

    fn probe(&mut self, request: &Request<'_>) -> Vec<u8> {
        self.ask(CLIENTS, request, About::Probe);
        self.wait_for_observer();
        self.clients.model.probed.take().expect("an answer").expect("accepted")
    }

    fn wait_for_observer(&mut self) {
        for _ in 0..TURNS_TO_REST {
            self.turn(REST_TURN_MS);
            if self.client(CLIENTS).is_none_or(|client| client.is_answered()) {
                return;
            }
        }
        panic!("no answer");
    }

    fn cut_observer(&mut self) {
        if let Some(client) = self.client(CLIENTS) {
            client.stream.cut();
        }
        while self.client(CLIENTS).is_some() {
            self.turn(REST_TURN_MS);
        }
    }
}
