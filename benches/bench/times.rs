//! One body many times and nothing else, for tools that count what a program does.
//!
//! What comes before and after the body is the same for any number of times, so the difference of
//! two runs is the body's alone.

use ring::rand::SystemRandom;
use vestnik::ids::ConnId;
use vestnik::store::{Database, Store};

use crate::bare;
use crate::bare_sqlite::{Statements, Writer};
use crate::files::{CONTENT_BYTES, Folder};
use crate::outbox::FanOut;
use crate::service::{Bench, SENDS, echo_turn, prepare, send_turn};
use crate::wire::{self, FRAMES, decode_all, parse_all};

/// Names of bodies.
pub(crate) const BODIES: [&str; 8] =
    ["frame", "request", "echo", "delivery", "row", "bare-row", "send-2", "send-200"];

/// Peers that a frame goes to.
const PEERS: u32 = 1_000;
/// Rows of one commit.
const ROWS: i64 = 64;

/// Does a body several times, and prints how many of its units that is.
pub(crate) fn run(body: &str, times: u64) {
    let each = match body {
        "frame" => on_wire(times, parse_all),
        "request" => on_wire(times, decode_all),
        "delivery" => {
            let mut queues = FanOut::new();
            (0..times).for_each(|_| queues.turn(PEERS));
            PEERS.into()
        }
        "row" => rows(times),
        "bare-row" => bare_rows(times),
        "echo" => echoes(times),
        "send-2" => sends(times, 2),
        "send-200" => sends(times, 200),
        _ => panic!("no body {body:?}: there are {BODIES:?}"),
    };
    println!("{body}: {} units", times * each);
}

fn on_wire(times: u64, work: fn(&[u8])) -> u64 {
    let bytes = wire::sends();
    (0..times).for_each(|_| work(&bytes));
    FRAMES as u64
}

fn rows(times: u64) -> u64 {
    let folder = Folder::new("rows");
    let database = Database::open_server(&folder.file("rows.db")).expect("a file");
    let mut store = Store::new(&database).expect("its tables");
    let mut writer = Writer::new(1, 0);
    (0..times).for_each(|_| writer.store(&mut store, ROWS));
    ROWS as u64
}

fn bare_rows(times: u64) -> u64 {
    let folder = Folder::new("bare-rows");
    let db = bare::open(&folder.file("rows.db"));
    let mut statements = Statements::new(&db);
    let mut writer = Writer::new(1, 0);
    (0..times).for_each(|_| writer.bare(&mut statements, ROWS));
    ROWS as u64
}

fn sends(times: u64, members: usize) -> u64 {
    let content = "x".repeat(CONTENT_BYTES);
    turns(times, members, |bench, conns| send_turn(bench, conns, &content));
    SENDS
}

fn echoes(times: u64) -> u64 {
    turns(times, 2, echo_turn);
    2 * SENDS
}

fn turns(times: u64, members: usize, turn: impl Fn(&mut Bench<'_>, &[ConnId])) {
    let folder = Folder::new("turns");
    let random = SystemRandom::new();
    let database = Database::open_server(&folder.file("turns.db")).expect("a file");
    let sessions = prepare(&database);
    let mut bench = Bench::new(&database, &random);
    let conns = bench.connect_users(&sessions[..members]);
    (0..times).for_each(|_| turn(&mut bench, &conns));
}
