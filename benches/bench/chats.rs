//! GET_MY_CHATS of a user in many chats of a file with many messages.

use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use ring::rand::SystemRandom;
use vestnik::ids::{ConnId, MessageId, SessionId, UserId};
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

/// A service in a file that was just opened: nothing of it is in SQLite's cache.
fn with_fresh_service<T>(
    path: &Path,
    session: &[(SessionId, String)],
    random: &SystemRandom,
    use_it: impl FnOnce(&mut Bench<'_>, ConnId) -> T,
) -> T {
    let database = Database::open_server(path).expect("the file");
    let mut bench = Bench::new(&database, random);
    let conn = bench.connect_users(session)[0];
    use_it(&mut bench, conn)
}

/// Has a server count what it will, as it does between requests, and end gracefully.
fn settle(bench: &mut Bench<'_>, conn: ConnId) {
    for _ in 0..if is_measuring() { 3 } else { 1 } {
        bench.ask(conn, &Request::GetMyChats);
        let mut slices = 0;
        loop {
            bench.begin();
            let goes_on = bench.service.housekeeping();
            bench.end();
            slices += 1;
            if !goes_on || !is_measuring() && slices > 4 {
                break;
            }
        }
    }
    bench.service.finish().expect("room for it");
}

/// What this thread has taken of a processor so far. An answer takes a file that is in the system's
/// cache and no sync, so that is what it costs the server, whatever else runs on the machine.
fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(spent).expect("not negative")
}

/// What GET_MY_CHATS costs, by how much was not read: right after the start, with nothing in
/// SQLite's cache, and later.
pub(crate) fn my_chats(criterion: &mut Criterion) {
    if !is_asked_for("chats") {
        return;
    }
    let folder = Folder::new("chats");
    let path = folder.file("chats.db");
    let random = SystemRandom::new();
    let database = Database::open_server(&path).expect("a file");
    let sessions = prepare(&database);
    let messages = fill(&mut Store::new(&database).expect("its tables"));
    drop(database);
    let mut group = criterion.benchmark_group("chats");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, unread) in
        [("nothing", 0), ("5", 5), ("50", 50), ("500", 500), ("900", 900), ("all", messages)]
    {
        let database = Database::open_server(&path).expect("the file");
        leave_unread(&mut Store::new(&database).expect("its tables"), messages, unread);
        drop(database);
        with_fresh_service(&path, &sessions[..1], &random, settle);
        group.bench_function(format!("1,000 chats after the start, unread: {name}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    taken += with_fresh_service(&path, &sessions[..1], &random, |bench, conn| {
                        let begun = cpu_time();
                        bench.ask(conn, &Request::GetMyChats);
                        cpu_time() - begun
                    });
                }
                taken
            });
        });
        with_fresh_service(&path, &sessions[..1], &random, |bench, conn| {
            group.bench_function(format!("1,000 chats, unread: {name}"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let begun = cpu_time();
                    for _ in 0..rounds {
                        bench.ask(conn, &Request::GetMyChats);
                    }
                    cpu_time() - begun
                });
            });
        });
    }
    group.finish();
}
