//! `vestnik stats`: the metrics of a running server.
//!
//! The server gives them in the text format of Prometheus; here they become lines for people, or
//! JSON.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use vestnik::config::Options;
use vestnik::ids::ServerTime;
use vestnik::service::DAY_US;

use super::failure::Failure;
use super::output::{self, Format};
use super::{Context, Outcome, file};

/// How long the server may take to answer.
const WAIT: Duration = Duration::from_secs(10);

/// More than all metrics together.
const BYTES_MAX: u64 = 1024 * 1024;

/// What every name begins with.
const PREFIX: &str = "vestnik_";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The Unix socket of the server [default: the data file's name and .sock]
    #[arg(long, value_name = "FILE", env = "VESTNIK_STATS_SOCKET", hide_env = true)]
    stats_socket: Option<PathBuf>,

    /// Print the metrics in the text format of Prometheus
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    #[command(flatten)]
    format: Format,
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> Outcome {
    let own = Options { stats_socket: arguments.stats_socket, ..Options::default() };
    let options = Options { data: Some(context.data.clone()), ..own };
    let socket = options.or(context.options.clone()).stats_socket();
    let text = ask(&socket).map_err(|error| {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let socket = socket.display();
        Failure::Failed(match error.kind() {
            NotFound | ConnectionRefused => {
                format!("no server answers on {socket}: start one, or name its database by --data")
            }
            _ => format!("no server answers on {socket}: {}", output::reason(&error)),
        })
    })?;
    if arguments.format.json {
        return Ok(output::json(context.out, &as_json(&text))?);
    }
    let text = if arguments.raw { text } else { readable(&text, file::now()) };
    Ok(context.out.write_all(text.as_bytes())?)
}

fn ask(socket: &PathBuf) -> std::io::Result<String> {
    let server = UnixStream::connect(socket)?;
    server.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    server.take(BYTES_MAX).read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(std::io::Error::other(
            "too many requests at once, or it is stopping; try again",
        ));
    }
    Ok(text)
}

/// One object: a metric is a number, one with labels an object of numbers, and a histogram an
/// object of its sum, its count and its buckets by their upper bounds.
fn as_json(text: &str) -> Value {
    let mut metrics = Map::new();
    let mut histogram = "";
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let name = head.strip_suffix(" histogram").and_then(|name| name.strip_prefix(PREFIX));
            histogram = name.unwrap_or_default();
        }
        let Some((series, value)) =
            line.strip_prefix(PREFIX).and_then(|line| line.rsplit_once(' '))
        else {
            continue;
        };
        let number = value.parse::<u64>().map(Value::from);
        let number = number.or_else(|_| value.parse::<f64>().map(Value::from));
        let value = number.unwrap_or(Value::Null);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let label = labels.split('"').nth(1);
        let part = name.strip_prefix(histogram).and_then(|part| part.strip_prefix('_'));
        let (name, part) = match part {
            Some(part) if !histogram.is_empty() => (histogram, Some(part)),
            _ => (name, None),
        };
        let path =
            [Some(name), part.map(|part| if part == "bucket" { "buckets" } else { part }), label];
        insert(&mut metrics, path.into_iter().flatten(), value);
    }
    Value::Object(metrics)
}

/// Sets a value under names, one within the other.
fn insert<'a>(
    object: &mut Map<String, Value>,
    mut path: impl Iterator<Item = &'a str>,
    value: Value,
) {
    let Some(name) = path.next() else { return };
    let rest: Vec<_> = path.collect();
    if rest.is_empty() {
        object.insert(name.to_owned(), value);
        return;
    }
    let below = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(below) = below {
        let mut rest = rest.into_iter();
        insert(below, &mut rest as &mut dyn Iterator<Item = &str>, value);
    }
}

/// A time in seconds since the epoch as a date, and how far off it is.
fn moment(value: &str, now: ServerTime) -> String {
    let micros = value.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    let Some(at) = micros.and_then(ServerTime::new) else { return value.to_owned() };
    let days = (at.micros() - now.micros()).div_euclid(DAY_US);
    let date = output::time(at);
    match days {
        0.. => format!("{date}, in {days} days"),
        _ => format!("{date}, {} days ago", -days - 1),
    }
}

/// A line for each metric; those with labels only where the number is not 0.
fn readable(text: &str, now: ServerTime) -> String {
    let mut lines = String::new();
    let mut histogram = None;
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let name = head.strip_suffix(" histogram").and_then(|name| name.strip_prefix(PREFIX));
            histogram = name.map(Spread::new);
        }
        let Some((series, value)) =
            line.strip_prefix(PREFIX).and_then(|line| line.rsplit_once(' '))
        else {
            continue;
        };
        if let Some(spread) = &mut histogram {
            spread.take_up(series, value);
            if let Some(words) = spread.words() {
                put_line(&mut lines, spread.name.trim_end_matches("_seconds"), &words);
            }
            continue;
        }
        let (name, label) = series.split_once('{').unwrap_or((series, ""));
        let name = name.trim_end_matches("_total");
        if let Some(name) = name.strip_suffix("_timestamp_seconds") {
            put_line(&mut lines, name, &moment(value, now));
            continue;
        }
        match label.split('"').nth(1) {
            None => put_line(&mut lines, name, value),
            Some(_) if value == "0" => {}
            Some(label) => put_line(&mut lines, &format!("{name} {label}"), value),
        }
    }
    lines
}

fn put_line(lines: &mut String, name: &str, value: &str) {
    lines.push_str(&format!("{:<36} {value}\n", name.replace('_', " ")));
}

/// A histogram on its way to one line.
struct Spread<'a> {
    name: &'a str,
    /// Upper bounds, and how many values are not over them.
    buckets: Vec<(&'a str, u64)>,
    sum: f64,
    count: Option<u64>,
}

impl<'a> Spread<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, buckets: Vec::new(), sum: 0.0, count: None }
    }

    fn take_up(&mut self, series: &'a str, value: &str) {
        let part = series.strip_prefix(self.name).unwrap_or_default();
        let (part, label) = part.split_once('{').unwrap_or((part, ""));
        match part {
            "_bucket" => {
                let bound = label.split('"').nth(1).unwrap_or_default();
                self.buckets.push((bound, value.parse().unwrap_or(0)));
            }
            "_sum" => self.sum = value.parse().unwrap_or(0.0),
            _ => self.count = value.parse().ok(),
        }
    }

    /// The line, once all is known.
    fn words(&self) -> Option<String> {
        let count = self.count?;
        if count == 0 {
            return Some("0".to_owned());
        }
        let mean = self.in_unit(self.sum / count as f64);
        let last = self.buckets.iter().rev().nth(1);
        let upto = |share: f64| {
            let wanted = (count as f64 * share).ceil() as u64;
            let bucket = self.buckets.iter().find(|(_, count)| *count >= wanted);
            match (bucket, last) {
                (Some((bound, _)), _) if *bound != "+Inf" => self.text_in_unit(bound),
                (_, Some((bound, _))) => format!("over {}", self.text_in_unit(bound)),
                _ => "unknown".to_owned(),
            }
        };
        let (half, most, nearly_all) = (upto(0.5), upto(0.99), upto(0.999));
        Some(format!("{count}, mean {mean}, p50 {half}, p99 {most}, p99.9 {nearly_all}"))
    }

    fn text_in_unit(&self, number: &str) -> String {
        number.parse().map_or(number.to_owned(), |number| self.in_unit(number))
    }

    fn in_unit(&self, value: f64) -> String {
        if !self.name.ends_with("seconds") {
            return format!("{value:.1}").trim_end_matches(".0").to_owned();
        }
        match value * 1e6 {
            us if us < 10_000.0 => format!("{us:.0} us"),
            us => format!("{:.0} ms", us / 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestnik::metrics::{Histogram, Kind, Page};

    #[test]
    fn metrics_become_one_json_value() {
        let mut histogram = Histogram::<4>::default();
        histogram.observe(1);
        let mut page = Page::default();
        page.counter("turns_undone_total", "Why.", 3);
        page.counts("commit_rows", "Why.", &histogram);
        page.begin("declines_total", Kind::Counter, "Why.");
        page.sample("declines_total", Some(("code", "bad-name")), 2);
        let value = as_json(&page.into_text());
        assert_eq!(value["turns_undone_total"], 3);
        assert_eq!(value["declines_total"]["bad-name"], 2);
        assert_eq!(value["commit_rows"]["count"], 1);
        assert_eq!(value["commit_rows"]["buckets"]["+Inf"], 1);
    }

    #[test]
    fn metrics_become_lines() {
        let mut histogram = Histogram::<20>::default();
        for us in (0..98).map(|_| 100).chain([3000, 500_000]) {
            histogram.observe(us);
        }
        let mut page = Page::default();
        page.counter("turns_undone_total", "Why.", 3);
        page.times("turn_seconds", "Why.", &histogram);
        page.counts("commit_rows", "Why.", &Histogram::<4>::default());
        page.begin("declines_total", Kind::Counter, "Why.");
        page.sample("declines_total", Some(("code", "bad-name")), 2);
        page.sample("declines_total", Some(("code", "malformed")), 0);
        page.gauge("certificate_expiry_timestamp_seconds", "Why.", 3 * 86_400 + 3600);
        let text = readable(&page.into_text(), ServerTime::ZERO);
        let lines: Vec<_> = text.lines().map(|line| line.split_once("  ").unwrap()).collect();
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.trim())).collect();
        assert_eq!(
            lines,
            [
                ("turns undone", "3"),
                ("turn", "100, mean 5128 us, p50 128 us, p99 4096 us, p99.9 over 262 ms"),
                ("commit rows", "0"),
                ("declines bad-name", "2"),
                ("certificate expiry", "1970-01-04T01:00:00Z, in 3 days"),
            ]
        );
    }
}
