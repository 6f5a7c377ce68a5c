//! What a message costs, step by step, without sockets: `cargo bench`, or `cargo bench -- store`
//! for one part. `cargo test` runs every body once on a small file.
//!
//! `cargo bench -- bare-sqlite` does the same work by the store and by bare SQLite in turn, and
//! prints the ratios; `layout` does it in two layouts of the table of messages; `bare-sockets`
//! measures what the system takes for an echo; `times BODY N` does one body N times and nothing
//! else, for a tool that counts instructions (`scripts/instructions.sh`).
//!
//! `VESTNIK_BENCH_ROWS` is the number of stored messages that reads are measured on (1,000,000);
//! `VESTNIK_BENCH_FOLDER` is where files are made: where memory is a disk, a sync costs nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "benches stand outside of the server and print what they find, and criterion's macros write no docs"
)]

mod bare;
mod bare_sockets;
mod bare_sqlite;
mod chats;
mod files;
mod layout;
mod outbox;
mod search;
mod service;
mod store;
mod times;
mod wire;

use criterion::{Criterion, criterion_group};

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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words = arguments.iter().filter(|word| !word.starts_with('-')).map(String::as_str);
    match words.collect::<Vec<_>>()[..] {
        ["bare-sqlite"] => return bare_sqlite::run(),
        ["bare-sockets"] => return bare_sockets::run(),
        ["layout"] => return layout::run(),
        ["times", body, times] => return times::run(body, times.parse().expect("a number")),
        _ => {}
    }
    if !files::is_measuring() {
        bare_sqlite::run();
        bare_sockets::run();
        layout::run();
        times::BODIES.iter().for_each(|body| times::run(body, 1));
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
