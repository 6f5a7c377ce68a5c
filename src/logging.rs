//! Log lines on their way to standard error: a rate limit, a bounded queue, and a thread that
//! writes.
//!
//! A log line never waits for its reader: when standard error is a pipe that nobody empties, lines
//! are dropped and counted, and the next line that is written says how many. Each place of the
//! source that logs has a rate limit of its own, so that no peer and no damaged row can fill a
//! disk.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use log::{Level, Log, Metadata, Record};

use crate::limits::{
    LOG_LINE_BYTES_MAX, LOG_LINES_QUEUED_MAX, LOG_SITES_MAX, UNAUTHENTICATED_LOG_LINES_MAX,
    UNAUTHENTICATED_LOG_LINES_MS,
};

/// How long the end of the process waits for lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Libraries whose own lines never reach the log, whatever RUST_LOG says: they quote what peers
/// sent, and addresses of subscriptions, which are secrets. Their errors are logged by their
/// callers.
const QUIET_LIBRARIES: [&str; 3] = ["rustls", "ureq", "ureq_proto"];

/// The variable that says which lines are logged,
const FILTER_VARIABLE: &str = "RUST_LOG";
/// and what counts without it.
const FILTER_DEFAULT: &str = "info";

/// The crates whose lines this program logs.
const OWN_CRATES: [&str; 2] = ["vestnik", "purpose"];

/// Whether a filter has a level for all lines, or one for those of this program. env_logger takes a
/// misspelt level for the name of a module, and then logs nothing.
fn shows_own_lines(filter: &str) -> bool {
    let mut parts = filter.split('/');
    let directives = parts.next().unwrap_or_default();
    // After the first slash stands a pattern; with a second one, env_logger ignores everything.
    let is_valid = parts.nth(1).is_none();
    let is_level = |text: &str| text.trim().parse::<log::LevelFilter>().is_ok();
    let is_own = |module: &str| {
        let module = module.trim();
        let name = module.split("::").next().unwrap_or_default();
        OWN_CRATES.iter().any(|own| name == *own || (module == name && own.starts_with(name)))
    };
    let useful = |directive: &str| match directive.split_once('=') {
        Some((module, level)) => is_own(module) && (is_level(level) || level.trim().is_empty()),
        None => is_level(directive) || is_own(directive),
    };
    is_valid && directives.split(',').filter(|one| !one.trim().is_empty()).any(useful)
}

/// The end of the log that its owner keeps: dropping it waits a moment for the last lines.
#[derive(Clone, Debug, Default)]
pub struct Logging {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines in the queue, and the one that is being written.
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

impl Logging {
    /// Begins to log to standard error what RUST_LOG asks for (by default from `info` on). A value
    /// that would hide all of this program's lines does not count.
    ///
    /// # Errors
    /// When there is no room for a thread, or somebody else logs already.
    pub fn start() -> io::Result<Self> {
        let logging = Self::default();
        let queue = logging.queue(io::stderr())?;
        let asked = std::env::var_os(FILTER_VARIABLE).unwrap_or_default();
        let asked = asked.to_string_lossy();
        let is_useful = shows_own_lines(&asked);
        let mut builder = env_logger::Builder::new();
        builder.parse_filters(if is_useful { &asked } else { FILTER_DEFAULT });
        if let Ok(style) = std::env::var("RUST_LOG_STYLE") {
            builder.parse_write_style(&style);
        }
        for library in QUIET_LIBRARIES {
            builder.filter_module(library, log::LevelFilter::Off);
        }
        if io::stderr().is_terminal() && std::env::var_os("RUST_LOG_STYLE").is_none() {
            builder.write_style(env_logger::WriteStyle::Always);
        }
        let inner = builder.target(env_logger::Target::Pipe(Box::new(queue))).build();
        log::set_max_level(inner.filter());
        log::set_boxed_logger(Box::new(Limited { inner, sites: Mutex::default() }))
            .map_err(io::Error::other)?;
        if !is_useful && !asked.trim().is_empty() {
            log::warn!(
                "{FILTER_VARIABLE}={asked:?} names no level (error, warn, info, debug, trace, off) \
                 for this program: `{FILTER_DEFAULT}` is used"
            );
        }
        Ok(logging)
    }

    /// Lines that were dropped, since nobody read those before them.
    pub fn lines_dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits a moment for the last lines to be written.
    #[allow(clippy::disallowed_methods)] // the end of the process has no turn, and so no clock
    pub fn finish(&self) {
        let begun = Instant::now();
        while self.counts.waiting.load(Ordering::Acquire) > 0 && begun.elapsed() < LAST_LINES {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// A queue that a thread of its own writes to `out`.
    fn queue(&self, out: impl Write + Send + 'static) -> io::Result<Queue> {
        let (lines, lines_in) = sync_channel(LOG_LINES_QUEUED_MAX);
        let counts = Arc::clone(&self.counts);
        Builder::new()
            .name("vestnik-log".to_owned())
            .spawn(move || write_lines(&lines_in, out, &counts))?;
        Ok(Queue { lines, counts: Arc::clone(&self.counts) })
    }
}

/// Writes the last line of a process to standard error, and waits only a moment for who reads it.
pub fn last_line(line: &str) {
    let (written, is_written) = sync_channel(1);
    let line = line.to_owned();
    let thread = Builder::new().name("vestnik-last-line".to_owned()).spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = written.send(());
    });
    if thread.is_ok() {
        let _ = is_written.recv_timeout(LAST_LINES);
    }
}

/// Where lines are put. Never waits, never fails.
struct Queue {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line.get(..LOG_LINE_BYTES_MAX).unwrap_or(line).to_vec();
        if kept.len() < line.len() {
            kept.push(b'\n');
        }
        self.counts.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(kept).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::AcqRel);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: &Receiver<Vec<u8>>, mut out: impl Write, counts: &Counts) {
    let mut said = 0;
    for line in lines {
        let dropped = counts.dropped.load(Ordering::Relaxed);
        if dropped > said {
            let missing = dropped - said;
            // A log that cannot be written has nowhere to say so.
            let _ = writeln!(out, "[{missing} log lines were dropped: nobody read standard error]");
            said = dropped;
        }
        let _ = out.write_all(&line).and_then(|()| out.flush());
        counts.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place in the source.
type Site = (Option<&'static str>, Option<u32>);

/// What one place may still log in its present interval.
#[derive(Clone, Copy)]
struct Interval {
    begun: Instant,
    left: u32,
    withheld: u64,
}

/// A logger that lets each place of the source write a number of lines in a period.
struct Limited {
    inner: env_logger::Logger,
    sites: Mutex<HashMap<Site, Interval>>,
}

impl Limited {
    /// Whether a place may log one line more now, and how many lines were withheld before it.
    fn take(&self, site: Site, now: Instant) -> Option<u64> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= LOG_SITES_MAX && !sites.contains_key(&site) {
            sites.clear();
        }
        let fresh = Interval { begun: now, left: UNAUTHENTICATED_LOG_LINES_MAX, withheld: 0 };
        let interval = sites.entry(site).or_insert(fresh);
        let length = Duration::from_millis(UNAUTHENTICATED_LOG_LINES_MS);
        if now.saturating_duration_since(interval.begun) >= length {
            *interval = Interval { withheld: interval.withheld, ..fresh };
        }
        if interval.left == 0 {
            interval.withheld += 1;
            return None;
        }
        interval.left -= 1;
        Some(std::mem::take(&mut interval.withheld))
    }
}

impl Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    #[allow(clippy::disallowed_methods)] // a log line has the time of the log, not of the turn
    fn log(&self, record: &Record<'_>) {
        if !self.inner.matches(record) {
            return;
        }
        if record.level() <= Level::Info {
            match self.take((record.file_static(), record.line()), Instant::now()) {
                None => return,
                Some(0) => {}
                Some(withheld) => self.inner.log(
                    &Record::builder()
                        .metadata(record.metadata().clone())
                        .module_path(record.module_path())
                        .args(format_args!("{withheld} lines like the next one were left out"))
                        .build(),
                ),
            }
        }
        self.inner.log(record);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Takes a line only when it is let.
    struct Stuck {
        may_write: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.may_write.recv().map_err(io::Error::other)?;
            self.written.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_dropped_is_counted() {
        let logging = Logging::default();
        let ((go, may_write), (written, lines)) = (channel(), channel());
        let mut queue = logging.queue(Stuck { may_write, written }).unwrap();
        for _ in 0..LOG_LINES_QUEUED_MAX + 100 {
            queue.write_all(b"a line\n").unwrap();
        }
        let dropped = logging.lines_dropped();
        assert!((99..=100).contains(&dropped), "{dropped}");
        for _ in 0..LOG_LINES_QUEUED_MAX + 10 {
            go.send(()).unwrap();
        }
        logging.finish();
        queue.write_all(b"after it\n").unwrap();
        logging.finish();
        let text: Vec<u8> = lines.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(&format!("[{dropped} log lines were dropped")), "{text}");
        assert!(text.ends_with("after it\n"));
    }

    #[test]
    fn long_lines_are_cut() {
        let logging = Logging::default();
        let ((go, may_write), (written, lines)) = (channel(), channel());
        let mut queue = logging.queue(Stuck { may_write, written }).unwrap();
        queue.write_all(&vec![b'x'; 100 * LOG_LINE_BYTES_MAX]).unwrap();
        go.send(()).unwrap();
        assert_eq!(lines.recv().unwrap().len(), LOG_LINE_BYTES_MAX + 1);
    }

    #[test]
    fn a_filter_that_hides_everything_is_recognized() {
        let useful = [
            "warn",
            "DEBUG",
            "off",
            " info ",
            "vestnik",
            "vestnik=debug",
            "vestnik::net=trace",
            "rustls=warn,vestnik=info",
            "wran,error",
            "info/pattern",
            "purpose=debug",
            "vestnik=",
        ];
        for filter in useful {
            assert!(shows_own_lines(filter), "{filter}");
        }
        for filter in ["", ",", "wran", "rustls=debug", "vestnik=wran", "info/a/b", "vestnikx"] {
            assert!(!shows_own_lines(filter), "{filter}");
        }
    }

    #[test]
    fn each_place_has_a_rate_limit() {
        let inner = env_logger::Builder::new().build();
        let limited = Limited { inner, sites: Mutex::default() };
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let (one, other) = ((Some("a.rs"), Some(1)), (Some("a.rs"), Some(2)));
        for _ in 0..UNAUTHENTICATED_LOG_LINES_MAX {
            assert_eq!(limited.take(one, now), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limited.take(one, now), None);
        }
        assert_eq!(limited.take(other, now), Some(0));
        let later = now + Duration::from_millis(UNAUTHENTICATED_LOG_LINES_MS);
        assert_eq!(limited.take(one, later), Some(7));
        assert_eq!(limited.take(one, later), Some(0));
    }
}
