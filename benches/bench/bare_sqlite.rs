//! The same work done twice, turn about in one run: by the store and by bare SQLite, and in a small
//! file and in a large one.
//!
//! Criterion measures one thing after the other, and a machine that others use drifts meanwhile.
//! Here slices of both take turns, and the medians of the slices are compared, so that the one that
//! interrupts a few of them does not count.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, Statement};
use vestnik::ids::MessageId;
use vestnik::store::{Database, Store};

use crate::bare;
use crate::files::{
    CONTENT_BYTES, FIRST, Folder, Seed, chat, fill, is_measuring, message_time, stored_rows, time,
    user,
};
use crate::store::{RANGE, read_by_bare, read_by_store};

/// Rows that each of two writes for one line of the table.
const ROWS: i64 = 60_000;
/// Chats of the files that are written to.
pub(crate) const CHATS: i64 = 10_000;
/// Chats of the file that is read.
const READ_CHATS: i64 = 10;
/// Messages of the small file that a large one is compared with.
const FEW: i64 = 10_000;

/// Prints a table of ratios.
pub(crate) fn run() {
    let folder = Folder::new("bare-sqlite");
    println!("| work | rows/s | other | rows/s | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    insert(&folder);
    grow(&folder);
    read(&folder);
}

/// Does both several times, turn about, and prints a line; the ratio is that of their speeds.
pub(crate) fn compare(
    names: [&str; 2],
    slices: i64,
    rows: i64,
    ours: impl FnMut(),
    theirs: impl FnMut(),
) {
    let mut ours: (Box<dyn FnMut()>, Vec<u64>) = (Box::new(ours), Vec::new());
    let mut theirs: (Box<dyn FnMut()>, Vec<u64>) = (Box::new(theirs), Vec::new());
    let time = |(work, times): &mut (Box<dyn FnMut() + '_>, Vec<u64>)| {
        let begun = Instant::now();
        work();
        times.push(begun.elapsed().as_nanos() as u64);
    };
    for slice in 0..slices {
        // The second may find warm what the first has left.
        if slice % 2 == 0 {
            time(&mut ours);
            time(&mut theirs);
        } else {
            time(&mut theirs);
            time(&mut ours);
        }
    }
    let per_second = |mut times: Vec<u64>| {
        times.drain(..times.len() / 10);
        times.sort_unstable();
        rows as f64 * 1e9 / times[times.len() / 2] as f64
    };
    let (ours, theirs) = (per_second(ours.1), per_second(theirs.1));
    let ratio = ours / theirs;
    println!("| {} | {ours:.0} | {} | {theirs:.0} | {ratio:.2} |", names[0], names[1]);
}

/// Who writes rows to chats at random.
pub(crate) struct Writer {
    chats: i64,
    /// Between two of the chats.
    step: i64,
    first: i64,
    seed: Seed,
    now: i64,
    content: String,
}

impl Writer {
    /// Writes to some of the chats of a file, spread over all of them.
    pub(crate) fn new(chats: i64, now: i64) -> Self {
        let (step, content) = (CHATS / chats, "x".repeat(CONTENT_BYTES));
        Self { chats, step, first: step / 2, seed: Seed::new(), now, content }
    }

    fn next(&mut self) -> (i64, i64) {
        self.now += 1;
        (self.first + self.seed.below(self.chats) * self.step, self.now)
    }

    pub(crate) fn store(&mut self, store: &mut Store<'_>, rows: i64) {
        for _ in 0..rows {
            let (number, now) = self.next();
            let id = MessageId::at(time(now));
            let content = black_box(&self.content);
            store.add_message(chat(number as u32), id, user(1), content).expect("room for it");
        }
        assert_eq!(store.commit(), Ok(true));
    }

    pub(crate) fn bare(&mut self, statements: &mut Statements<'_>, rows: i64) {
        statements.begin.execute([]).expect("nobody else is there");
        for _ in 0..rows {
            let (number, now) = self.next();
            let row = (number + 1, now, 2_i64, black_box(&self.content));
            statements.insert.execute(row).expect("room for it");
        }
        statements.commit.execute([]).expect("room for it");
    }
}

/// The statements of a commit by bare SQLite.
pub(crate) struct Statements<'db> {
    begin: Statement<'db>,
    insert: Statement<'db>,
    commit: Statement<'db>,
}

impl<'db> Statements<'db> {
    pub(crate) fn new(db: &'db Connection) -> Self {
        let prepare = |sql| db.prepare(sql).expect("a statement");
        Self {
            begin: prepare("BEGIN IMMEDIATE"),
            insert: prepare(bare::INSERT),
            commit: prepare("COMMIT"),
        }
    }
}

pub(crate) fn slices(rows: i64) -> i64 {
    if is_measuring() { (ROWS / rows).min(5_000) } else { 2 }
}

/// Storing rows into new files, next to bare SQLite, by rows per commit and by chats.
fn insert(folder: &Folder) {
    for chats in [1, 64, CHATS] {
        for rows in [1, 8, 64, 512] {
            let file = |who| folder.file(&format!("{who}-{chats}-{rows}.db"));
            let database = Database::open_server(&file("store")).expect("a file");
            let mut store = Store::new(&database).expect("its tables");
            let db = bare::open(&file("bare"));
            let mut statements = Statements::new(&db);
            let (mut ours, mut theirs) = (Writer::new(chats, 0), Writer::new(chats, 0));
            let name = format!("insert, {rows} a commit, into {chats} chats");
            compare(
                [&name, "bare SQLite"],
                slices(rows),
                rows,
                || ours.store(&mut store, rows),
                || theirs.bare(&mut statements, rows),
            );
        }
    }
}

/// Storing rows into a large file, next to a small one.
fn grow(folder: &Folder) {
    let (large, small) = (folder.file("large.db"), folder.file("small.db"));
    let many = stored_rows();
    fill(&large, CHATS, (many / CHATS).max(1));
    fill(&small, CHATS, FEW / CHATS);
    let open = |path: &Path| Database::open_server(path).expect("a file");
    let (large, small) = (open(&large), open(&small));
    let mut large = Store::new(&large).expect("its tables");
    let mut small = Store::new(&small).expect("its tables");
    let mut now = FIRST + many + CHATS;
    for chats in [1, 64, CHATS] {
        for rows in [1, 64, 512] {
            let (mut ours, mut theirs) = (Writer::new(chats, now), Writer::new(chats, now));
            let name = format!("insert, {rows} a commit, into {chats} chats of {many} messages");
            compare(
                [&name, &format!("of {FEW}")],
                // Few, so that the small file stays small.
                slices(rows).min(8_000 / rows),
                rows,
                || ours.store(&mut large, rows),
                || theirs.store(&mut small, rows),
            );
            now = now.max(ours.now).max(theirs.now);
        }
    }
}

/// Reading a thousand messages from somewhere in a large chat, next to bare SQLite.
fn read(folder: &Folder) {
    let path = folder.file("read.db");
    let messages = (stored_rows() / READ_CHATS).max(RANGE + 1);
    fill(&path, READ_CHATS, messages);
    let database = Database::open_server(&path).expect("the file");
    let mut store = Store::new(&database).expect("its tables");
    let db = bare::open(&path);
    let mut select = db.prepare(bare::RANGE).expect("a statement");
    let pick = |seed: &mut Seed| {
        let (chat, first) = (seed.below(READ_CHATS), seed.below(messages - RANGE));
        let from = message_time(chat, first, READ_CHATS);
        (chat, from, message_time(chat, first + RANGE - 1, READ_CHATS))
    };
    let (mut ours, mut theirs) = (Seed::new(), Seed::new());
    let (mut our_out, mut their_out) = (Vec::new(), Vec::new());
    let name = format!("read {RANGE} from the middle of a chat of {messages}");
    compare(
        [&name, "bare SQLite"],
        if is_measuring() { 2_000 } else { 2 },
        RANGE,
        || read_by_store(&mut store, pick(&mut ours), &mut our_out),
        || read_by_bare(&mut select, pick(&mut theirs), &mut their_out),
    );
}
