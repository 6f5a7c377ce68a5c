//! What a message costs, step by step, without sockets: `cargo bench`, or `cargo bench -- store`
//! for one part. `cargo test` runs every body once on a small file.
//!
//! `VESTNIK_BENCH_ROWS` is the number of stored messages that reads are measured on (1,000,000).
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "benches stand outside of the server, and criterion's macros write no docs"
)]

mod bare;
mod chats;
mod files;
mod outbox;
mod search;
mod service;
mod store;
mod wire;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    wire::parse_frames,
    wire::decode_requests,
    wire::write_answers,
    outbox::fan_out,
    store::insert,
    store::read_range,
    service::send_turns,
    service::restore,
    search::search,
    chats::my_chats,
);
criterion_main!(benches);
