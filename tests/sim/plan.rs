//! The parameters of a seed: number of clients, and how bad the network, disk and clock are.

use crate::disk::Faults;
use crate::model::Rules;
use crate::rng::Rng;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) users: usize,
    pub(crate) turns: u64,
    /// The process ends once per this many turns; 0: never.
    pub(crate) dies_one_in: u64,
    /// After a turn that was undone, or that crashed before anyone was notified, the process ends
    /// again soon, once per this many turns; 0: never.
    pub(crate) dies_uneasy_one_in: u64,
    /// The disk is full for a whole turn, once per this many turns.
    pub(crate) full_one_in: u64,
    /// It is full when the server starts, once per this many starts.
    pub(crate) full_start_one_in: u64,
    /// The database is moved away while the server runs, once per this many turns.
    pub(crate) moves_one_in: u64,
    /// Everything comes to rest once per this many turns.
    pub(crate) rests_one_in: u64,
    /// Percentage of ends that are power cuts.
    pub(crate) cut_percent: u64,
    pub(crate) faults: Faults,
    /// A command changes something once per this many turns.
    pub(crate) by_hand_one_in: u64,
    /// The checkpointer thread runs at one in this many points of a turn, and during one in this
    /// many writes and syncs; 0: there is none.
    pub(crate) copies_one_in: u64,
    pub(crate) copies_within_one_in: u64,
    /// A long read of the database begins once per this many turns.
    pub(crate) reads_one_in: u64,
    pub(crate) requests_per_turn: usize,
    /// Released bytes are read in the middle of a turn, after one in this many frames.
    pub(crate) early_look_one_in: u64,
    /// Writes of notifications are delayed, once per this many.
    pub(crate) holds_one_in: u64,
    /// Broadcasts are sent without flattening.
    pub(crate) sends_parts: bool,
    pub(crate) invariants_one_in: u64,
    pub(crate) compare_one_in: u64,
    /// Milliseconds that a connection may go without a session; the other timeouts scale with it.
    pub(crate) timeout_ms: u64,
    /// Bytes on their way in one direction of a connection.
    pub(crate) capacity: usize,
    /// A client's connection breaks once per this many steps.
    pub(crate) cut_one_in: u64,
    /// A client stops reading once per this many steps.
    pub(crate) stall_one_in: u64,
    /// One in this many messages has long content,
    pub(crate) long_one_in: u64,
    /// of this many bytes.
    pub(crate) long_bytes: u64,
    /// Unanswered requests that a client may have.
    pub(crate) pipeline: u64,
    pub(crate) rules: Rules,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        // One kind of seed never ends the process; in others everything goes wrong.
        let kind = rng.below(8);
        let (ends, has_faults) = (kind != 0, kind >= 4);
        let clients = rng.between(2, 8) as usize;
        let content_bytes_max = rng.weighted(&[(1, 200), (2, 2000), (1, 16 * 1024)]);
        let outbound_bytes_max = rng.weighted(&[(1, 700), (3, 4096), (2, 20_000), (1, 200_000)]);
        Self {
            clients,
            users: rng.between(1, clients as u64) as usize,
            turns: rng.between(100, 700),
            dies_one_in: if ends { rng.between(30, 300) } else { 0 },
            dies_uneasy_one_in: if ends { rng.weighted(&[(1, 0), (2, 2), (1, 10)]) } else { 0 },
            full_one_in: if has_faults {
                rng.weighted(&[(2, 0), (1, 100), (2, 10), (1, 3)])
            } else {
                0
            },
            full_start_one_in: if has_faults { 3 } else { 0 },
            moves_one_in: if ends { rng.weighted(&[(2, 0), (1, 400)]) } else { 0 },
            rests_one_in: 400,
            cut_percent: if kind >= 2 { rng.weighted(&[(1, 30), (2, 80), (1, 100)]) } else { 0 },
            faults: if has_faults { faults(rng) } else { Faults::default() },
            by_hand_one_in: rng.weighted(&[(1, 0), (2, 100), (1, 20)]),
            copies_one_in: rng.weighted(&[(1, 0), (2, 4), (2, 40)]),
            copies_within_one_in: rng.weighted(&[(1, 0), (2, 20), (1, 200)]),
            reads_one_in: rng.weighted(&[(2, 0), (1, 20), (1, 200)]),
            requests_per_turn: rng.weighted(&[(2, 256), (1, 3), (1, 1)]),
            early_look_one_in: rng.weighted(&[(2, 0), (1, 4)]),
            holds_one_in: rng.weighted(&[(1, 0), (1, 4), (1, 2)]),
            sends_parts: rng.one_in(2),
            invariants_one_in: 4,
            compare_one_in: 60,
            timeout_ms: rng.weighted(&[(2, 30_000), (1, 4_000)]),
            capacity: rng.weighted(&[(1, 64), (2, 1000), (2, 10_000), (1, 300_000)]),
            cut_one_in: rng.weighted(&[(1, 0), (2, 300), (1, 60)]),
            stall_one_in: rng.weighted(&[(1, 0), (2, 100), (1, 20)]),
            long_one_in: rng.weighted(&[(1, 0), (2, 20), (1, 3)]),
            long_bytes: content_bytes_max as u64,
            pipeline: rng.weighted(&[(1, 1), (2, 4), (2, 20)]),
            rules: Rules {
                body_bytes_max: 20_000,
                content_bytes_max,
                outbound_bytes_max,
                session_lifetime_us: 30 * 86_400 * 1_000_000,
                registration_open: rng.one_in(2),
                user_bytes_per_day: rng.weighted(&[
                    (2, 0),
                    (2, 256 * 1024 * 1024),
                    (1, 10 * content_bytes_max as u64),
                ]),
                user_list_of_operators: rng.one_in(4),
                push: !rng.one_in(4),
            },
        }
    }
}

/// A few kinds of faults, each rare or frequent.
fn faults(rng: &mut Rng) -> Faults {
    let mut pick = |often: u64| {
        if rng.one_in(3) { rng.between(often, often * 8) } else { 0 }
    };
    Faults {
        read: pick(300),
        short_read: pick(100),
        write: pick(300),
        full: pick(30),
        sync: pick(30),
        truncate: pick(5),
        delete: pick(2),
        open: pick(3),
    }
}
