//! Deterministic simulation: the whole server in one thread with simulated clients, network, clock
//! and disk, all from one seed; compared continuously with a plain model of the protocol.
//!
//! ```text
//!   cargo test --test sim                              200 seeds
//!   VESTNIK_SIM_SEED=7 cargo test --test sim           one seed, with its trace when it fails
//!   VESTNIK_SIM_SEEDS=1000..5000 cargo test --test sim these
//! ```
//!
//! `VESTNIK_SIM_KEEP_GOING=1` reports all seeds that fail, `VESTNIK_SIM_COUNTS=1` shows how often
//! each event occurred. docs/testing.md describes what is simulated and which bugs it has found.
#![allow(clippy::disallowed_methods, reason = "the sweep measures its own time")]

mod choose;
mod client;
mod clock;
mod command;
mod disk;
mod file;
mod host;
mod model;
mod pipe;
mod plan;
mod push_sender;
mod replica;
mod rng;
mod vfs;
mod websocket;
mod wire;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use world::{Report, World};

/// Seeds of a plain `cargo test`.
const SEEDS: Range<u64> = 0..200;

/// Runs a seed. An error comes with the trace, if requested.
fn run(seed: u64, is_traced: bool) -> Result<Report, (String, Vec<String>)> {
    let mut world = World::new(seed, is_traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let outcome = outcome.unwrap_or_else(|_| Err("something panicked (see above)".into()));
    outcome.map_err(|wrong| (wrong, world.lines().cloned().collect()))
}

/// Seeds with power cuts, with disk faults, and with either.
#[derive(Default)]
struct BadDays {
    power_cuts: u64,
    faults: u64,
    either: u64,
}

impl BadDays {
    fn add(&mut self, report: &Report) {
        self.power_cuts += u64::from(report.power_cuts > 0);
        self.faults += u64::from(report.failed_calls > 0);
        self.either += u64::from(report.power_cuts + report.failed_calls > 0);
    }
}

fn seeds() -> Range<u64> {
    if let Ok(seed) = std::env::var("VESTNIK_SIM_SEED") {
        let seed = seed.parse().expect("VESTNIK_SIM_SEED is a number");
        return seed..seed + 1;
    }
    let Ok(seeds) = std::env::var("VESTNIK_SIM_SEEDS") else { return SEEDS };
    let (from, to) = seeds.split_once("..").expect("VESTNIK_SIM_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn fail(seed: u64, wrong: &str) -> ! {
    // Run it again: the same seed fails again, and this time with a trace.
    let (again, lines) = match run(seed, true) {
        Ok(_) => (
            "nothing is wrong the second time: the simulation is not deterministic".into(),
            Vec::new(),
        ),
        Err(failed) => failed,
    };
    let trace_lines =
        std::env::var("VESTNIK_SIM_TRACE").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let last = lines.len().saturating_sub(trace_lines);
    let short: Vec<&str> = lines[last..].iter().map(String::as_str).collect();
    eprintln!("{}", short.join("\n"));
    if again != wrong {
        eprintln!("the second time: {again}");
    }
    panic!("seed {seed}: {wrong}\nagain: VESTNIK_SIM_SEED={seed} cargo test --test sim");
}

#[test]
fn every_seed_keeps_the_promises() {
    let seeds = seeds();
    let started = Instant::now();
    let mut sum = Report::default();
    let mut bad_days = BadDays::default();
    let mut failed = 0;
    let keeps_going = std::env::var("VESTNIK_SIM_KEEP_GOING").is_ok();
    for seed in seeds.clone() {
        let report = match run(seed, false) {
            Ok(report) => report,
            Err((wrong, _)) if keeps_going => {
                println!("seed {seed}: {wrong}");
                failed += 1;
                continue;
            }
            Err((wrong, _)) => fail(seed, &wrong),
        };
        bad_days.add(&report);
        sum.add(report);
        let done = seed - seeds.start + 1;
        if done.is_multiple_of(1000) {
            println!("{done} seeds, {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    let count = seeds.end - seeds.start;
    let seconds = started.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s: {:.1} seeds/s", count as f64 / seconds);
    println!("at most {} bytes waited for one connection", sum.most_pending);
    // For scripts/sim.sh, which labels these numbers.
    println!(
        "COUNTS {count} {failed} {} {} {} {} {} {} {} {} {} {} {} {}",
        bad_days.either,
        bad_days.power_cuts,
        bad_days.faults,
        sum.turns,
        sum.lives,
        sum.power_cuts,
        sum.failed_calls,
        sum.undone,
        sum.lost,
        sum.either,
        sum.copies,
        sum.simulated_ms
    );
    if std::env::var("VESTNIK_SIM_COUNTS").is_ok() {
        for (what, times) in &sum.seen {
            println!("{times:>9} {what}");
        }
    }
    assert_eq!(failed, 0, "seeds failed");
    if seeds == SEEDS {
        assert!(2 * bad_days.either >= count, "too few seeds with power cuts or faults");
        sum.is_broad();
    }
}
