//! The file: storing messages by rows per commit, reading ranges, each next to bare SQLite.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use rusqlite::Statement;
use vestnik::ids::{MessageId, ServerTime};
use vestnik::store::{Database, Store};

use crate::bare;
use crate::files::{
    CHAT_MESSAGES, CONTENT_BYTES, Folder, Seed, chat, filled, is_asked_for, message_time, time,
    user,
};

/// Chats that are written to, at random.
const CHATS: i64 = 10_000;

/// Messages of a range.
pub(crate) const RANGE: i64 = 1_000;

/// What it costs to store rows, by how many share a commit. Needs a disk that syncs.
pub(crate) fn insert(criterion: &mut Criterion) {
    let folder = Folder::new("insert");
    let content = "x".repeat(CONTENT_BYTES);
    let mut group = criterion.benchmark_group("store");
    for rows in [1, 8, 64, 512] {
        group.throughput(Throughput::Elements(rows));
        let database =
            Database::open_server(&folder.file(&format!("store-{rows}.db"))).expect("a file");
        let mut store = Store::new(&database).expect("its tables");
        let (mut seed, mut now) = (Seed::new(), 0);
        group.bench_function(BenchmarkId::new("insert, rows per commit", rows), |bencher| {
            bencher.iter(|| {
                for _ in 0..rows {
                    now += 1;
                    let chat = chat(seed.below(CHATS) as u32);
                    let id = MessageId::at(time(now));
                    store.add_message(chat, id, user(1), black_box(&content)).expect("room for it");
                }
                assert_eq!(store.commit(), Ok(true));
            });
        });

        let db = bare::open(&folder.file(&format!("bare-{rows}.db")));
        let mut insert = db.prepare(bare::INSERT).expect("a statement");
        let mut begin = db.prepare("BEGIN IMMEDIATE").expect("a statement");
        let mut commit = db.prepare("COMMIT").expect("a statement");
        let (mut seed, mut now) = (Seed::new(), 0_i64);
        group.bench_function(BenchmarkId::new("insert by bare SQLite", rows), |bencher| {
            bencher.iter(|| {
                begin.execute([]).expect("nobody else is there");
                for _ in 0..rows {
                    now += 1;
                    let row = (seed.below(CHATS) + 1, now, 2_i64, black_box(&content));
                    insert.execute(row).expect("room for it");
                }
                commit.execute([]).expect("room for it");
            });
        });
    }
    group.finish();
}

/// A chat by its number, and the times of the first and the last message to read.
pub(crate) type Range = (i64, ServerTime, ServerTime);

/// Reads a range as the server does.
pub(crate) fn read_by_store(store: &mut Store<'_>, range: Range, out: &mut Vec<u8>) {
    let (number, from, to) = range;
    out.clear();
    let mut read = 0;
    let walk = store.messages_updated(chat(number as u32), from, to, |message| {
        out.extend_from_slice(message.content.as_bytes());
        read += 1;
        true
    });
    assert!(walk.is_ok() && read == RANGE);
    store.commit().expect("it was only read");
}

/// Reads a range by the statement of the server alone.
pub(crate) fn read_by_bare(select: &mut Statement<'_>, range: Range, out: &mut Vec<u8>) {
    let (number, from, to) = range;
    out.clear();
    let mut rows = select.query((number + 1, from.micros(), to.micros())).expect("a range");
    let mut read = 0;
    while let Some(row) = rows.next().expect("a row") {
        let id: i64 = row.get(0).expect("an id");
        let sender: i64 = row.get(1).expect("a sender");
        let updated: Option<i64> = row.get(2).expect("a time or none");
        let status: u8 = row.get(3).expect("a status");
        black_box((id, sender, updated, status));
        let content = row.get_ref(4).expect("a text").as_str().expect("a text");
        out.extend_from_slice(content.as_bytes());
        read += 1;
    }
    assert_eq!(read, RANGE);
}

/// What it costs to read a thousand messages from the middle of a chat.
pub(crate) fn read_range(criterion: &mut Criterion) {
    if !is_asked_for("store") {
        return;
    }
    let folder = Folder::new("range");
    let path = folder.file("filled.db");
    let chats = filled(&path);
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(RANGE as u64));
    let mut seed = Seed::new();
    let mut pick = move || {
        let (chat, first) = (seed.below(chats), seed.below(CHAT_MESSAGES - RANGE));
        let from = message_time(chat, first, chats);
        (chat, from, message_time(chat, first + RANGE - 1, chats))
    };
    let mut out = Vec::new();
    {
        let database = Database::open_server(&path).expect("the file");
        let mut store = Store::new(&database).expect("its tables");
        group.bench_function("read a range of 1,000", |bencher| {
            bencher.iter_batched(
                &mut pick,
                |range| read_by_store(&mut store, range, &mut out),
                BatchSize::SmallInput,
            );
        });
    }
    let db = bare::open(&path);
    let mut select = db.prepare(bare::RANGE).expect("a statement");
    group.bench_function("read a range of 1,000 by bare SQLite", |bencher| {
        bencher.iter_batched(
            &mut pick,
            |range| read_by_bare(&mut select, range, &mut out),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}
