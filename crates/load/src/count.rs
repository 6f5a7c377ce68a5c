//! The measurements of a run: counters, latencies, and the ledgers of expected messages.
//!
//! Every message that the server accepts is added to the book of its chat; every message that
//! arrives is added to the tally of its connection and chat. A run passes if each tally equals the
//! book minus the connection's own messages: in count and in the sum of ids, with ids ascending.

use hdrhistogram::Histogram;

use super::payload::Payload;

/// Longest latency recorded, in nanoseconds; longer ones are clamped.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// In closed-loop scenarios, one delivery in this many has its latency recorded.
pub(super) const SAMPLE_EVERY: u64 = 16;

/// Faults that are described; all are counted.
const FAULTS_REPORTED_MAX: usize = 5;

/// The phase of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Connecting, logging in, joining chats.
    Setup,
    /// Load that is not measured.
    Warmup,
    /// Load that is measured.
    Measure,
    /// No more requests: waits for answers and deliveries.
    Drain,
}

/// Events since the start of the run.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counters {
    /// Messages delivered as notifications.
    pub(super) deliveries: u64,
    /// Messages accepted by the server.
    pub(super) sends: u64,
    /// Echoes that came back.
    pub(super) echoes: u64,
    /// Messages delivered in pages and ranges.
    pub(super) stored: u64,
    /// Logins that were accepted.
    pub(super) logins: u64,
    /// Sessions that were restored.
    pub(super) restores: u64,
    /// Other accepted requests.
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

/// The book of one chat: its accepted messages, and the template of a send.
pub(super) struct Book {
    /// Its name.
    pub(super) name: String,
    /// Its id; 0 until it is known.
    pub(super) chat: u32,
    /// A complete send frame with time 0, to be copied and stamped.
    pub(super) template: Vec<u8>,
    /// Offset of the text in the template.
    pub(super) text_at: usize,
    /// Connections that are members.
    pub(super) members: u64,
    /// Messages accepted.
    pub(super) count: u64,
    /// The sum of their ids, wrapping.
    pub(super) sum: u64,
}

impl Book {
    /// A chat that is only known by name.
    pub(super) fn new(name: String) -> Self {
        Self { name, chat: 0, template: Vec::new(), text_at: 0, members: 0, count: 0, sum: 0 }
    }
}

/// What one connection received from one chat, and sent to it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    /// The chat.
    pub(super) chat: u32,
    /// Whether it is compared with the book.
    pub(super) checked: bool,
    /// The last id received.
    pub(super) last: u64,
    /// Messages received.
    pub(super) count: u64,
    /// The sum of their ids, wrapping.
    pub(super) sum: u64,
    /// Own messages that were accepted.
    pub(super) own_count: u64,
    /// The sum of their ids, wrapping.
    pub(super) own_sum: u64,
}

/// The faults of a run: all are counted, the first few described.
#[derive(Default, Debug)]
pub(super) struct Faults {
    /// How many.
    pub(super) count: u64,
    /// The first of them.
    pub(super) reported: Vec<String>,
}

impl Faults {
    /// Counts a fault. `words` is called only if the description is kept.
    #[cold]
    pub(super) fn note(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.reported.len() < FAULTS_REPORTED_MAX {
            self.reported.push(words());
        }
    }
}

/// State shared by all connections of a run.
pub(super) struct Shared {
    /// Nanoseconds since the run began, read once per turn.
    pub(super) now_ns: u64,
    /// The phase of the run.
    pub(super) phase: Phase,
    /// Open loop: start of the measured time, in nanoseconds. Load that was due earlier is not
    /// recorded.
    pub(super) measured_from_ns: u64,
    /// Open loop: end of the measured time, in nanoseconds.
    pub(super) measured_to_ns: u64,
    /// Whether every delivery's latency is recorded, from the time when it was due.
    pub(super) paced: bool,
    /// Requests that a connection keeps in flight.
    pub(super) window: usize,
    /// Whether sends carry a nonce (API 1.0).
    pub(super) nonces: bool,
    /// The text of messages.
    pub(super) payload: Payload,
    /// Whether echoes contain the payload, or nothing.
    pub(super) echoes_text: bool,
    /// Members of a chat that do not receive a message: 1 if senders are members.
    pub(super) own: u64,
    /// The chats of the run.
    pub(super) books: Vec<Book>,
    /// Deliveries expected so far, by the books.
    pub(super) expected: u64,
    /// Deliveries that count towards them.
    pub(super) arrived: u64,
    /// Events.
    pub(super) total: Counters,
    /// Latency from request to answer, in nanoseconds.
    pub(super) answers: Histogram<u64>,
    /// Latency from the time when a send was due to its delivery, in nanoseconds.
    pub(super) deliveries: Histogram<u64>,
    /// The faults of the run.
    pub(super) faults: Faults,
    /// The reason why the run failed.
    pub(super) failed: Option<String>,
    /// The result of the first walk over the history.
    pub(super) history: super::history::Learned,
    /// Sessions that connections take over from each other: id and secret.
    pub(super) sessions: Vec<Option<(u32, String)>>,
    /// Prefix of user names; a number follows.
    pub(super) user_prefix: String,
    /// Password of all users.
    pub(super) password: String,
}

impl Shared {
    /// At the beginning of a run.
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

    /// Whether new requests are to be sent.
    pub(super) fn sends(&self) -> bool {
        matches!(self.phase, Phase::Warmup | Phase::Measure)
    }

    /// Notes the answer to a request of this time.
    pub(super) fn answered(&mut self, at_ns: u64) {
        if self.is_measured(at_ns) {
            self.answers.saturating_record(self.now_ns.saturating_sub(at_ns));
        }
    }

    /// Whether load due at this time is measured.
    fn is_measured(&self, at_ns: u64) -> bool {
        if self.paced {
            (self.measured_from_ns..self.measured_to_ns).contains(&at_ns)
        } else {
            self.phase == Phase::Measure
        }
    }

    /// Notes the delivery of a message of this run; its text contains the time when it was due.
    pub(super) fn delivered(&mut self, text: &[u8]) {
        self.total.deliveries += 1;
        if self.paced || self.total.deliveries.is_multiple_of(SAMPLE_EVERY) {
            let at_ns = super::payload::time_ns(text);
            if self.is_measured(at_ns) {
                self.deliveries.saturating_record(self.now_ns.saturating_sub(at_ns));
            }
        }
    }

    /// Notes that the server accepted a message to the chat at this index.
    pub(super) fn accepted(&mut self, slot: usize, id: u64) {
        self.total.sends += 1;
        if let Some(book) = self.books.get_mut(slot) {
            book.count += 1;
            book.sum = book.sum.wrapping_add(id);
            self.expected += book.members.saturating_sub(self.own);
        }
    }

    /// The body of an echo.
    pub(super) fn echo(&self) -> &[u8] {
        if self.echoes_text { self.payload.text() } else { &[] }
    }

    /// Checks an echo that came back.
    pub(super) fn check_echo(&mut self, connection: usize, text: &[u8]) {
        let is_intact =
            if self.echoes_text { self.payload.is_intact(text) } else { text.is_empty() };
        if !is_intact {
            self.faults.note(|| format!("connection {connection}: an echo is damaged"));
        }
    }

    /// Fails the run; the first reason is kept.
    #[cold]
    pub(super) fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }

    /// Whether all expected deliveries have arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.arrived >= self.expected
    }

    /// Compares a tally with its book. A difference is a fault.
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
