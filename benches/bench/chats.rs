//! GET_MY_CHATS of a user in many chats of a file with many messages.

use criterion::{Criterion, Throughput};
use ring::rand::SystemRandom;
use vestnik::ids::{MessageId, UserId};
use vestnik::store::members::Member;
use vestnik::store::search::Progress;
use vestnik::store::{Database, Store};
use vestnik::wire::request::Request;

use crate::files::{
    FIRST, Folder, chat, is_asked_for, is_measuring, message_time, stored_rows, time, user,
};
use crate::service::{Bench, prepare};

/// Chats of the user.
const MY_CHATS: i64 = 1_000;

/// Fills all chats alike; everybody else has written. Gives the time of the last message.
fn fill(store: &mut Store<'_>) -> i64 {
    let me = UserId::new(1).expect("not 0");
    let now = time(FIRST);
    for number in 0..MY_CHATS {
        let name = format!("chat{number}");
        let chat = store.add_chat(&name, &name, None, now).expect("room").expect("a new name");
        let member = Member { chat, user: me, admin: false, joined: now, seen: time(0) };
        store.add_member(member).expect("room for it");
    }
    let messages = (stored_rows() / MY_CHATS).max(2);
    let content = "x".repeat(100);
    for number in 0..MY_CHATS {
        for message in 1..=messages {
            let id = MessageId::at(message_time(number, message, MY_CHATS));
            let sender = user(1 + (message % 7) as u32);
            store.add_message(chat(1 + number as u32), id, sender, &content).expect("room");
        }
        store.commit().expect("room for it");
    }
    // The index is not what is measured here.
    let done = Progress { done: message_time(0, messages + 1, MY_CHATS), scan: None };
    store.set_search_progress(Progress::default(), done).expect("room for it");
    store.write_server_time(done.done).expect("room for it");
    store.commit().expect("room for it");
    messages
}

/// Sets how many of the newest messages of each chat the user has not seen.
fn leave_unread(store: &mut Store<'_>, messages: i64, unread: i64) {
    let me = UserId::new(1).expect("not 0");
    for number in 0..MY_CHATS {
        let seen = message_time(number, (messages - unread).max(0), MY_CHATS);
        store.set_seen(chat(1 + number as u32), me, seen).expect("room for it");
    }
    store.commit().expect("room for it");
}

/// What GET_MY_CHATS costs, by how much was not read; and right after the start, when nothing is
/// known of any chat.
pub(crate) fn my_chats(criterion: &mut Criterion) {
    if !is_asked_for("chats") {
        return;
    }
    let folder = Folder::new("chats");
    let random = SystemRandom::new();
    let database = Database::open_server(&folder.file("chats.db")).expect("a file");
    let sessions = prepare(&database);
    let mut store = Store::new(&database).expect("its tables");
    let messages = fill(&mut store);
    let mut group = criterion.benchmark_group("chats");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, unread) in [("nothing", 0), ("5", 5), ("50", 50), ("500", 500), ("all", messages)] {
        leave_unread(&mut store, messages, unread);
        let mut bench = Bench::new(&database, &random);
        let conn = bench.connect_users(&sessions[..1])[0];
        group.bench_function(format!("1,000 chats after the start, unread: {name}"), |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut bench = Bench::new(&database, &random);
                    let conn = bench.connect_users(&sessions[..1])[0];
                    (bench, conn)
                },
                |(bench, conn)| bench.ask(*conn, &Request::GetMyChats),
                criterion::BatchSize::PerIteration,
            );
        });
        let slices = if is_measuring() { MY_CHATS } else { 2 };
        for _ in 0..slices {
            bench.begin();
            bench.service.housekeeping();
            bench.end();
        }
        group.bench_function(format!("1,000 chats, unread: {name}"), |bencher| {
            bencher.iter(|| bench.ask(conn, &Request::GetMyChats));
        });
    }
    group.finish();
}
