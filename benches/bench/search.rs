//! Searching a file with many messages, and putting messages into the index.

use std::time::Instant;

use criterion::{Criterion, Throughput};
use ring::rand::SystemRandom;
use vestnik::ids::{ChatId, MessageId, UserId};
use vestnik::store::members::Member;
use vestnik::store::search::{Progress, Unindexed};
use vestnik::store::{Database, Store};
use vestnik::wire::request::Request;

use crate::files::{
    FIRST, Folder, Seed, chat, is_asked_for, is_measuring, stored_rows, time, user,
};
use crate::service::{Bench, prepare};

/// Different words.
const WORDS: f64 = 100_000.0;
/// Chats besides the one that everybody is in.
const CHATS: u32 = 200;
/// Chats of the one who searches.
const MY_CHATS: u32 = 100;
/// Messages indexed in one transaction.
const BATCH: usize = 128;

/// A word, by how common it is: half of all are among the first 300.
fn word(rank: u64) -> String {
    let mut rest = rank.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let letters = 2 + rank.max(1).ilog2() / 2;
    let letter = |_| {
        let letter = b'a' + (rest % 26) as u8;
        rest /= 26;
        char::from(letter)
    };
    (0..letters).map(letter).collect()
}

fn text(seed: &mut Seed) -> String {
    let count = 3 + seed.below(11);
    let words = (0..count).map(|_| {
        let share = seed.below(1 << 30) as f64 / f64::from(1 << 30);
        word(WORDS.powf(share) as u64)
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Fills a file with messages in turn over the chats, and indexes them; says what that took.
fn fill(store: &mut Store<'_>) -> i64 {
    let rows = stored_rows();
    let mut seed = Seed::new();
    let (mut index_us, mut longest_us) = (0, 0);
    let mut number = 0;
    while number < rows {
        let mut batch = Vec::new();
        while batch.len() < BATCH && number < rows {
            number += 1;
            let chat = chat(1 + number as u32 % CHATS);
            let message = MessageId::at(time(FIRST + number * 10));
            let content = text(&mut seed);
            store.add_message(chat, message, user(1), &content).expect("room for it");
            batch.push(Unindexed { chat, message, content });
        }
        store.commit().expect("room for it");
        let begun = Instant::now();
        store.index(&mut batch).expect("room for it");
        store.commit().expect("room for it");
        let mut more = true;
        let mut step = begun;
        while more {
            longest_us = longest_us.max(step.elapsed().as_micros());
            step = Instant::now();
            more = store.merge_search().expect("room for it");
            store.commit().expect("room for it");
        }
        index_us += begun.elapsed().as_micros();
    }
    if is_measuring() {
        let each = index_us as f64 / rows as f64;
        eprintln!("indexed {rows} messages, {each:.1} us each, longest slice {longest_us} us");
    }
    rows
}

/// What answering a search costs, over all the turns that it takes.
pub(crate) fn search(criterion: &mut Criterion) {
    if !is_asked_for("search") {
        return;
    }
    let folder = Folder::new("search");
    let random = SystemRandom::new();
    let database = Database::open_server(&folder.file("search.db")).expect("a file");
    let sessions = prepare(&database);
    let mut store = Store::new(&database).expect("its tables");
    let now = time(FIRST);
    let me = UserId::new(1).expect("not 0");
    for number in 0..CHATS {
        let name = format!("chat{number}");
        let chat = store.add_chat(&name, &name, None, now).expect("room").expect("a new name");
        if number < MY_CHATS {
            let member = Member { chat, user: me, admin: false, joined: now, seen: now };
            store.add_member(member).expect("room for it");
        }
    }
    let rows = fill(&mut store);
    let done = Progress { done: time(FIRST + rows * 10), scan: None };
    store.set_search_progress(Progress::default(), done).expect("room for it");
    store.write_server_time(done.done).expect("room for it");
    store.commit().expect("room for it");
    drop(store);

    let mut bench = Bench::new(&database, &random);
    let conn = bench.connect_users(&sessions[..1])[0];
    let mut group = criterion.benchmark_group("search");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let two_common = format!("{} {}", word(1), word(2));
    let two_apart = format!("{} {}", word(40), word(41));
    let phrase = format!("\"{} {}\"", word(5), word(6));
    let cases: [(&str, Option<ChatId>, &str); 9] = [
        ("a rare word", None, &word(60_000)),
        ("a rare word in one chat", Some(chat(2)), &word(60_000)),
        ("no word of any message", None, "zzzzzzzz"),
        ("the most common word", None, &word(1)),
        ("the most common word in one chat", Some(chat(2)), &word(1)),
        ("two common words", None, &two_common),
        ("two common words that are seldom together", None, &two_apart),
        ("a phrase", None, &phrase),
        ("a common beginning", None, "a*"),
    ];
    for (name, chat, query) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter(|| bench.ask(conn, &Request::SearchMsg { chat, limit: 50, query }));
        });
    }
    group.finish();
}
