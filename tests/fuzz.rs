//! Runs the fuzz targets of `fuzz/` briefly: over the seeds and deterministic mutations of them.
//!
//! The long form is `scripts/fuzz.sh`. `VESTNIK_FUZZ_RUNS` sets the number of inputs per target,
//! `VESTNIK_FUZZ_SEED` the first seed, and `VESTNIK_FUZZ_INPUT` a file that is the only input.

#[allow(unreachable_pub, reason = "the crate of the targets, compiled in here")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A small generator of numbers.
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// Bytes from nothing.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.below(most);
        (0..count).map(|_| self.number() as u8).collect()
    }

    /// A seed, changed in a few places.
    fn changed(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..1 + self.below(6) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_slice(&other[self.below(other.len())..]),
                2 => bytes.insert(at, self.number() as u8),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.number() as u8;
                    }
                }
            }
        }
        bytes
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The files of a seed corpus, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("seeds")
        .map(|entry| entry.expect("a seed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds for {target}");
    files.into_iter().map(|file| std::fs::read(file).expect("readable")).collect()
}

/// Gives a target its seeds and `runs` inputs more. The input that made it panic is kept.
fn run(target: &str, body: fn(&[u8]), runs: u64, bytes_max: usize) {
    if let Ok(file) = std::env::var("VESTNIK_FUZZ_INPUT") {
        return body(&std::fs::read(file).expect("the input"));
    }
    let seeds = seeds(target);
    for seed in &seeds {
        one(target, body, seed);
    }
    let runs = setting("VESTNIK_FUZZ_RUNS").unwrap_or(runs);
    let begin = setting("VESTNIK_FUZZ_SEED").unwrap_or(1);
    for number in begin..begin + runs {
        let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let input = if number % 2 == 0 {
            dice.bytes(bytes_max)
        } else {
            let seed = &seeds[dice.below(seeds.len())];
            let other = &seeds[dice.below(seeds.len())];
            dice.changed(seed, other)
        };
        one(target, body, &input);
    }
}

#[allow(clippy::print_stderr, reason = "next to the panic that the harness shows")]
fn say(file: &Path) {
    eprintln!("the input is in {}", file.display());
}

/// One input at a time: some of them are notified that the disk is full, and that is so for the
/// whole process.
static DISK: Mutex<()> = Mutex::new(());

fn one(target: &str, body: fn(&[u8]), input: &[u8]) {
    let _alone = DISK.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = std::panic::catch_unwind(|| body(input));
    if let Err(panic) = outcome {
        let name = format!("vestnik-fuzz-input-{target}-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, input).expect("room for the input");
        say(&file);
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn frames() {
    run("frames", targets::frames, 3000, 400);
}

#[test]
fn bodies() {
    run("bodies", targets::bodies, 20_000, 300);
}

#[test]
fn service() {
    run("service", targets::service, 300, 1200);
}

#[test]
fn websocket() {
    run("websocket", targets::websocket, 1500, 400);
}

#[test]
fn http_head() {
    run("http_head", targets::http_head, 1500, 400);
}

#[test]
fn tls() {
    run("tls", targets::tls, 100, 400);
}
