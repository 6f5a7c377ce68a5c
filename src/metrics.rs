//! Metrics: counters and histograms. They are plain integers, since only the event loop uses them:
//! counting costs an addition, and rendering is done per scrape.
//!
//! Owns the metrics and their text format (Prometheus exposition format, version 0.0.4). The names
//! of purposes and reasons are passed in by the caller.

use std::fmt::{Display, Write as _};

/// Buckets of a histogram of times: up to 1, 2, 4, … microseconds, to 4.2 s, and one for the rest.
pub const TIME_BUCKETS: usize = 24;
/// Buckets of a histogram of counts: up to 1, 2, 4, … 4,096, and one for the rest.
pub const COUNT_BUCKETS: usize = 14;

/// Reasons of declines that have a counter of their own.
pub const REASONS_MAX: usize = 64;

/// A histogram with exponential buckets. Bucket `i` counts values over `2^(i-1)` and up to `2^i`;
/// the last one counts the rest.
#[derive(Clone, Debug)]
pub struct Histogram<const BUCKETS: usize> {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl<const BUCKETS: usize> Default for Histogram<BUCKETS> {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0 }
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    /// Adds a value.
    pub fn observe(&mut self, value: u64) {
        let size = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(size.min(BUCKETS - 1)) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all values.
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

/// The reason why a connection was rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Rejection {
    /// The table of connections is full.
    Full,
    /// The address has too many connections without a session.
    Address,
    /// No file descriptors were left.
    Descriptors,
    /// The socket could not be set up.
    Failed,
    /// It held too many bytes of incomplete requests, and was closed for it.
    Memory,
}

impl Rejection {
    const ALL: [Self; 5] =
        [Self::Full, Self::Address, Self::Descriptors, Self::Failed, Self::Memory];

    const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::Descriptors => "descriptors",
            Self::Failed => "failed",
            Self::Memory => "memory",
        }
    }
}

/// Counters and histograms since the start. Gauges are read when they are scraped.
#[derive(Debug)]
pub struct Metrics {
    /// Connections accepted.
    pub accepted: u64,
    refused: [u64; Rejection::ALL.len()],
    /// Bytes read from clients, after TLS.
    pub received_bytes: u64,
    /// Bytes written to clients, before TLS.
    pub sent_bytes: u64,
    received: [u64; 256],
    sent: [u64; 256],
    declined: [u64; REASONS_MAX],
    /// Rows changed per COMMIT.
    pub commit_rows: Histogram<COUNT_BUCKETS>,
    /// Microseconds per COMMIT, including its fsync.
    pub commit_us: Histogram<TIME_BUCKETS>,
    /// Microseconds per turn of the event loop, without waiting for events.
    pub turn_us: Histogram<TIME_BUCKETS>,
    /// The same without the COMMIT.
    pub turn_rest_us: Histogram<TIME_BUCKETS>,
    /// Turns that could not be committed.
    pub undone: u64,
    /// See [`Metrics::internal_error`].
    pub internal_errors: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            accepted: 0,
            refused: [0; Rejection::ALL.len()],
            received_bytes: 0,
            sent_bytes: 0,
            received: [0; 256],
            sent: [0; 256],
            declined: [0; REASONS_MAX],
            commit_rows: Histogram::default(),
            commit_us: Histogram::default(),
            turn_us: Histogram::default(),
            turn_rest_us: Histogram::default(),
            undone: 0,
            internal_errors: 0,
        }
    }
}

impl Metrics {
    /// Counts a rejected connection.
    pub fn count_rejection(&mut self, why: Rejection) {
        if let Some(count) = self.refused.get_mut(why as usize) {
            *count += 1;
        }
    }

    /// Counts a received frame.
    pub fn frame_received(&mut self, purpose: u8) {
        if let Some(count) = self.received.get_mut(usize::from(purpose)) {
            *count += 1;
        }
    }

    /// Received frames of one purpose.
    pub fn frames_received_of(&self, purpose: u8) -> u64 {
        self.received.get(usize::from(purpose)).copied().unwrap_or(0)
    }

    /// Counts frames of one purpose that are released.
    pub fn frames_sent(&mut self, purpose: u8, frames: u32) {
        if let Some(count) = self.sent.get_mut(usize::from(purpose)) {
            *count += u64::from(frames);
        }
    }

    /// Counts released frames of DECLINED by reason; `reason` is the index in the list of reasons.
    pub fn declined(&mut self, reason: usize, frames: u32) {
        if let Some(count) = self.declined.get_mut(reason) {
            *count += u64::from(frames);
        }
    }

    /// Counts and logs a state that only a bug can cause. A debug build panics.
    pub fn internal_error(&mut self, what: std::fmt::Arguments<'_>) {
        self.internal_errors += 1;
        log::error!("internal error, please report it: {what}");
        debug_assert!(false, "{what}");
    }

    /// Adds the times of a turn: in total, and for its COMMIT.
    pub fn turn(&mut self, turn_us: u64, commit_us: u64) {
        self.turn_us.observe(turn_us);
        self.turn_rest_us.observe(turn_us.saturating_sub(commit_us));
    }

    /// Renders all metrics. `received` and `sent`: purposes with their names; `reasons`: the codes
    /// of declines, by index.
    pub fn render(
        &self,
        page: &mut Page,
        received: impl Iterator<Item = (u8, &'static str)>,
        sent: impl Iterator<Item = (u8, &'static str)>,
        reasons: &[&'static str],
    ) {
        page.counter("connections_accepted_total", "Connections taken in.", self.accepted);
        page.begin("connections_refused_total", Kind::Counter, "Connections not taken in.");
        for why in Rejection::ALL {
            let count = self.refused.get(why as usize).copied().unwrap_or(0);
            page.sample("connections_refused_total", Some(("why", why.name())), count);
        }
        page.counter("received_bytes_total", "Bytes read from clients.", self.received_bytes);
        page.counter("sent_bytes_total", "Bytes written to clients.", self.sent_bytes);
        page.begin("frames_received_total", Kind::Counter, "Frames from clients.");
        render_purposes(page, "frames_received_total", &self.received, received);
        page.begin("frames_sent_total", Kind::Counter, "Frames to clients.");
        render_purposes(page, "frames_sent_total", &self.sent, sent);
        page.begin("declines_total", Kind::Counter, "Requests declined.");
        for (code, count) in reasons.iter().zip(self.declined) {
            page.sample("declines_total", Some(("code", *code)), count);
        }
        page.counts("commit_rows", "Rows that a commit changed.", &self.commit_rows);
        page.times("commit_seconds", "Time of a commit, its fsync included.", &self.commit_us);
        page.times("turn_seconds", "Time of a turn of the loop, without waiting.", &self.turn_us);
        let help = "Time of a turn of the loop, without waiting and without its commit.";
        page.times("turn_rest_seconds", help, &self.turn_rest_us);
        page.counter("turns_undone_total", "Turns that could not be committed.", self.undone);
        page.counter(
            "internal_errors_total",
            "Defects of the server that it noticed and logged.",
            self.internal_errors,
        );
    }
}

fn render_purposes(
    page: &mut Page,
    name: &str,
    counts: &[u64; 256],
    purposes: impl Iterator<Item = (u8, &'static str)>,
) {
    let mut unknown: u64 = counts.iter().sum();
    for (byte, purpose) in purposes {
        let count = counts.get(usize::from(byte)).copied().unwrap_or(0);
        unknown -= count;
        page.sample(name, Some(("purpose", purpose)), count);
    }
    page.sample(name, Some(("purpose", "unknown")), unknown);
}

/// The type of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
}

/// Metrics as text. All names get the prefix `vestnik_`.
#[derive(Default, Debug)]
pub struct Page(String);

impl Page {
    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }

    /// Begins a metric; its samples follow.
    pub fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
    }

    /// One sample of a metric, with its label.
    pub fn sample(&mut self, name: &str, label: Option<(&str, &str)>, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = match label {
            None => writeln!(self.0, "vestnik_{name} {value}"),
            Some((key, text)) => writeln!(self.0, "vestnik_{name}{{{key}=\"{text}\"}} {value}"),
        };
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, Kind::Counter, help);
        self.sample(name, None, value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, Kind::Gauge, help);
        self.sample(name, None, value);
    }

    /// A histogram of counts.
    pub fn counts<const N: usize>(&mut self, name: &str, help: &str, values: &Histogram<N>) {
        self.histogram(name, help, values, |value| value.to_string());
    }

    /// A histogram of times: values in microseconds, rendered in seconds.
    pub fn times<const N: usize>(&mut self, name: &str, help: &str, values: &Histogram<N>) {
        self.histogram(name, help, values, |us| {
            format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
        });
    }

    fn histogram<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &Histogram<N>,
        number: impl Fn(u64) -> String,
    ) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut upto = 0;
        for (size, count) in values.counts.iter().enumerate() {
            upto += count;
            let bound = if size == N - 1 { "+Inf".to_owned() } else { number(1 << size) };
            self.sample(&bucket, Some(("le", &bound)), upto);
        }
        self.sample(&format!("{name}_sum"), None, number(values.sum));
        self.sample(&format!("{name}_count"), None, upto);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP vestnik_{name} {help}\n# TYPE vestnik_{name} {kind}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_of_the_next_power_of_two() {
        for (value, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (4096, 12)] {
            let mut histogram = Histogram::<COUNT_BUCKETS>::default();
            histogram.observe(value);
            assert_eq!(histogram.counts.iter().position(|&n| n == 1), Some(bucket), "{value}");
        }
        let mut histogram = Histogram::<COUNT_BUCKETS>::default();
        histogram.observe(4097);
        histogram.observe(u64::MAX);
        assert_eq!(histogram.counts[COUNT_BUCKETS - 1], 2);
        assert_eq!((histogram.count(), histogram.sum()), (2, u64::MAX));
    }

    #[test]
    fn a_histogram_is_growing_sums_in_seconds() {
        let mut histogram = Histogram::<3>::default();
        for us in [1, 2, 2, 1_500_000] {
            histogram.observe(us);
        }
        let mut page = Page::default();
        page.times("turn_seconds", "Why.", &histogram);
        assert_eq!(
            page.into_text(),
            "# HELP vestnik_turn_seconds Why.\n\
             # TYPE vestnik_turn_seconds histogram\n\
             vestnik_turn_seconds_bucket{le=\"0.000001\"} 1\n\
             vestnik_turn_seconds_bucket{le=\"0.000002\"} 3\n\
             vestnik_turn_seconds_bucket{le=\"+Inf\"} 4\n\
             vestnik_turn_seconds_sum 1.500005\n\
             vestnik_turn_seconds_count 4\n"
        );
    }

    #[test]
    fn purposes_without_a_name_are_counted_together() {
        let mut metrics = Metrics::default();
        for purpose in [7, 7, 8, 200] {
            metrics.frame_received(purpose);
        }
        metrics.declined(1, 1);
        metrics.declined(REASONS_MAX, 1);
        metrics.count_rejection(Rejection::Address);
        let mut page = Page::default();
        metrics.render(&mut page, [(7, "SEVEN")].into_iter(), std::iter::empty(), &["a", "b"]);
        let text = page.into_text();
        for line in [
            "vestnik_frames_received_total{purpose=\"SEVEN\"} 2",
            "vestnik_frames_received_total{purpose=\"unknown\"} 2",
            "vestnik_frames_sent_total{purpose=\"unknown\"} 0",
            "vestnik_declines_total{code=\"a\"} 0",
            "vestnik_declines_total{code=\"b\"} 1",
            "vestnik_connections_refused_total{why=\"address\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }
}
