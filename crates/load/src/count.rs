//! What a run has seen so far: counters, latencies, and the books that say what must arrive.
//!
//! Every message that a server accepts is entered in the book of its chat, every one that arrives
//! in the tally of its connection and chat. A run is sound when each tally equals the book less
//! what the connection sent itself: by number and by the sum of the ids, in ascending order.

use hdrhistogram::Histogram;

use super::payload::Payload;

/// Longest latency recorded, in nanoseconds; anything longer counts as this.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// One in this many deliveries has its latency recorded, where deliveries are not paced.
pub(super) const SAMPLE_EVERY: u64 = 16;

/// Faults described; the rest are only counted.
const FAULTS_REPORTED_MAX: usize = 5;

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Connections are made, users log in, chats are joined.
    Setup,
    /// Load without measuring.
    Warmup,
    /// Load that is measured.
    Measure,
    /// No more requests: what is under way arrives.
    Drain,
}

/// Events since the start of the run.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counters {
    /// Messages that arrived as notifications.
    pub(super) deliveries: u64,
    /// Messages that the server accepted.
    pub(super) sends: u64,
    /// Echoes that came back.
    pub(super) echoes: u64,
    /// Messages of pages and ranges that arrived.
    pub(super) stored: u64,
    /// Logins that were accepted.
    pub(super) logins: u64,
    /// Sessions that were restored.
    pub(super) restores: u64,
    /// Other requests that were accepted.
    pub(super) others: u64,
    /// Bytes that arrived.
    pub(super) bytes_in: u64,
}

impl Counters {
    /// Answers of every kind.
    pub(super) fn answers(&self) -> u64 {
        self.sends + self.echoes + self.logins + self.restores + self.others
    }
}

/// The book of one chat: what was accepted, and the frame that sends to it.
pub(super) struct Book {
    /// Its name.
    pub(super) name: String,
    /// Its id; 0 until it is known.
    pub(super) chat: u32,
    /// The whole bytes of one send, with time 0, to be copied and stamped.
    pub(super) template: Vec<u8>,
    /// Where in it the text begins.
    pub(super) text_at: usize,
    /// Connections that are members.
    pub(super) members: u64,
    /// Messages accepted.
    pub(super) count: u64,
    /// The sum of their ids, wrapping.
    pub(super) sum: u64,
}

impl Book {
    /// A chat of which only the name is known.
    pub(super) fn new(name: String) -> Self {
        Self { name, chat: 0, template: Vec::new(), text_at: 0, members: 0, count: 0, sum: 0 }
    }
}

/// What one connection got of one chat, and sent to it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    /// The chat.
    pub(super) chat: u32,
    /// Whether what arrives is held against the book.
    pub(super) checked: bool,
    /// The id that came last.
    pub(super) last: u64,
    /// Messages that came.
    pub(super) count: u64,
    /// The sum of their ids, wrapping.
    pub(super) sum: u64,
    /// Messages of its own that were accepted.
    pub(super) own_count: u64,
    /// The sum of their ids, wrapping.
    pub(super) own_sum: u64,
}

/// What went wrong: the first few in words, all by number.
#[derive(Default, Debug)]
pub(super) struct Faults {
    /// How many.
    pub(super) count: u64,
    /// The first of them.
    pub(super) reported: Vec<String>,
}

impl Faults {
    /// Notes one; `words` are made only when they are kept.
    #[cold]
    pub(super) fn note(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.reported.len() < FAULTS_REPORTED_MAX {
            self.reported.push(words());
        }
    }
}

/// Everything that the connections of a run share.
pub(super) struct Shared {
    /// Nanoseconds since the run began, read once per turn.
    pub(super) now_ns: u64,
    /// Where the run is.
    pub(super) phase: Phase,
    /// Latencies of load meant to be sent from here on are kept (open loop), in ns.
    pub(super) measured_from_ns: u64,
    /// Likewise, up to here.
    pub(super) measured_to_ns: u64,
    /// Whether every delivery's latency is kept, by its intended time.
    pub(super) paced: bool,
    /// Requests that a connection keeps in flight.
    pub(super) window: usize,
    /// Whether sends carry a nonce (API 1.0).
    pub(super) nonces: bool,
    /// The text of messages.
    pub(super) payload: Payload,
    /// Whether echoes carry it, or nothing.
    pub(super) echoes_text: bool,
    /// Deliveries that a message has less than its chat has members: 1 if senders are members.
    pub(super) own: u64,
    /// The chats of the run.
    pub(super) books: Vec<Book>,
    /// Deliveries that the books promise so far.
    pub(super) expected: u64,
    /// Deliveries that count towards them.
    pub(super) arrived: u64,
    /// Events.
    pub(super) total: Counters,
    /// From request to answer, in ns.
    pub(super) answers: Histogram<u64>,
    /// From the intended time of sending to delivery, in ns.
    pub(super) deliveries: Histogram<u64>,
    /// What went wrong.
    pub(super) faults: Faults,
    /// Why the run cannot begin, or go on.
    pub(super) failed: Option<String>,
    /// What history walks have learned.
    pub(super) history: super::history::Learned,
    /// Sessions of the connections that hand them to and fro: id and hash.
    pub(super) sessions: Vec<Option<(u32, String)>>,
    /// Names the users: this and a number.
    pub(super) user_prefix: String,
    /// The password of them all.
    pub(super) password: String,
}

impl Shared {
    /// Nothing seen yet.
    pub(super) fn new(payload: Payload, window: usize) -> Result<Self, String> {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|error| error.to_string());
        Ok(Self {
            now_ns: 0,
            phase: Phase::Setup,
            measured_from_ns: u64::MAX,
            measured_to_ns: u64::MAX,
            paced: false,
            window,
            nonces: false,
            payload,
            echoes_text: true,
            own: 1,
            books: Vec::new(),
            expected: 0,
            arrived: 0,
            total: Counters::default(),
            answers: histogram()?,
            deliveries: histogram()?,
            faults: Faults::default(),
            failed: None,
            history: super::history::Learned::default(),
            sessions: Vec::new(),
            user_prefix: String::new(),
            password: String::new(),
        })
    }

    /// Whether new requests are to be made.
    pub(super) fn sends(&self) -> bool {
        matches!(self.phase, Phase::Warmup | Phase::Measure)
    }

    /// An answer to what was asked at this time.
    pub(super) fn answered(&mut self, at_ns: u64) {
        if self.is_measured(at_ns) {
            self.answers.saturating_record(self.now_ns.saturating_sub(at_ns));
        }
    }

    /// Whether load meant for this time is measured.
    fn is_measured(&self, at_ns: u64) -> bool {
        if self.paced {
            (self.measured_from_ns..self.measured_to_ns).contains(&at_ns)
        } else {
            self.phase == Phase::Measure
        }
    }

    /// A message of this run arrived, meant to be sent at the time in its text.
    pub(super) fn delivered(&mut self, text: &[u8]) {
        self.total.deliveries += 1;
        if self.paced || self.total.deliveries.is_multiple_of(SAMPLE_EVERY) {
            let at_ns = super::payload::time_ns(text);
            if self.is_measured(at_ns) {
                self.deliveries.saturating_record(self.now_ns.saturating_sub(at_ns));
            }
        }
    }

    /// The server accepted a message of a member's to the chat in this place.
    pub(super) fn accepted(&mut self, slot: usize, id: u64) {
        self.total.sends += 1;
        if let Some(book) = self.books.get_mut(slot) {
            book.count += 1;
            book.sum = book.sum.wrapping_add(id);
            self.expected += book.members.saturating_sub(self.own);
        }
    }

    /// The text of an echo.
    pub(super) fn echo(&self) -> &[u8] {
        if self.echoes_text { self.payload.text() } else { &[] }
    }

    /// An echo came back.
    pub(super) fn check_echo(&mut self, connection: usize, text: &[u8]) {
        let is_intact =
            if self.echoes_text { self.payload.is_intact(text) } else { text.is_empty() };
        if !is_intact {
            self.faults.note(|| format!("connection {connection}: an echo is damaged"));
        }
    }

    /// The run cannot go on; the first reason counts.
    #[cold]
    pub(super) fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }

    /// Whether everything that was promised has come.
    pub(super) fn is_complete(&self) -> bool {
        self.arrived >= self.expected
    }

    /// Holds a tally against its book; says what does not agree.
    pub(super) fn check(&mut self, connection: usize, tally: &Tally) {
        let Some(book) = self.books.iter().find(|book| book.chat == tally.chat) else { return };
        let count = book.count - tally.own_count;
        let sum = book.sum.wrapping_sub(tally.own_sum);
        if tally.checked && (tally.count, tally.sum) != (count, sum) {
            let name = &book.name;
            let got = tally.count;
            self.faults.note(|| {
                format!("connection {connection} got {got} of the {count} messages of chat {name}")
            });
        }
    }
}
