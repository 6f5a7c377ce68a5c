//! The report of a measurement, as a table or as JSON.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::engine::Outcome;
use super::scenario::Unit;

/// Share of a core above which the client itself may be the bottleneck.
const CLIENT_FULL: f64 = 0.9;

/// The quantiles in reports, with their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The values in both forms of the report.
struct Metrics {
    count: u64,
    per_second: f64,
    per_server_cpu_second: Option<f64>,
    sends_per_second: f64,
    server_share: Option<f64>,
    client_share: f64,
    bytes_per_connection: Option<f64>,
}

fn metrics(outcome: &Outcome) -> Metrics {
    let connections = outcome.plan.roles.len();
    let is_idle = outcome.plan.unit == Unit::Connections;
    let count = match outcome.plan.unit {
        Unit::Connections => connections as u64,
        unit => unit.count(&outcome.counters),
    };
    // Connections per second of the setup, not of the measured time.
    let seconds = if is_idle { outcome.setup_seconds } else { outcome.seconds };
    let memory = outcome.memory.zip(outcome.memory_before);
    Metrics {
        count,
        per_second: count as f64 / seconds,
        per_server_cpu_second: outcome
            .server_cpu
            .filter(|cpu| *cpu > 0.0 && !is_idle)
            .map(|cpu| count as f64 / cpu),
        sends_per_second: outcome.counters.sends as f64 / outcome.seconds,
        server_share: outcome.server_cpu.map(|cpu| cpu / outcome.seconds),
        client_share: outcome.client_cpu / outcome.seconds,
        bytes_per_connection: memory
            .map(|(after, before)| (after.rss as f64 - before.rss as f64) / connections as f64),
    }
}

/// Whether the client was the bottleneck, instead of the server.
fn client_was_limit(metrics: &Metrics) -> bool {
    metrics.client_share > CLIENT_FULL
        && metrics.server_share.is_none_or(|share| share < CLIENT_FULL)
}

/// A table with one value per line.
pub(super) fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut text, outcome);
    text
}

fn write_table(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let metrics = metrics(outcome);
    let unit = outcome.plan.unit.name();
    writeln!(out, "{}: {}", outcome.plan.name, outcome.plan.words)?;
    line(out, &format!("{unit}/s"), &grouped(metrics.per_second))?;
    if let Some(per_cpu) = metrics.per_server_cpu_second {
        line(out, &format!("{unit}/server-CPU-s"), &grouped(per_cpu))?;
    }
    if outcome.plan.unit != Unit::Sends && outcome.counters.sends > 0 {
        line(out, "sends/s", &grouped(metrics.sends_per_second))?;
    }
    if outcome.plan.unit != Unit::Deliveries && outcome.counters.deliveries > 0 {
        let per_second = outcome.counters.deliveries as f64 / outcome.seconds;
        line(out, "deliveries/s", &grouped(per_second))?;
    }
    for (name, histogram) in [("answer", &outcome.answers), ("delivery", &outcome.deliveries)] {
        if !histogram.is_empty() {
            let quantiles: Vec<String> = QUANTILES
                .iter()
                .map(|(name, quantile)| format!("{name} {}", time(at(histogram, *quantile))))
                .collect();
            line(out, name, &quantiles.join("  "))?;
        }
    }
    if let (Some(share), Some(memory)) = (metrics.server_share, outcome.memory) {
        let (rss, pss) = (memory.rss as f64 / 1048576.0, memory.pss as f64 / 1048576.0);
        let percent = 100.0 * share;
        line(out, "server", &format!("CPU {percent:.1} %, RSS {rss:.1} MiB, PSS {pss:.1} MiB"))?;
    }
    if let Some(bytes) =
        metrics.bytes_per_connection.filter(|_| outcome.plan.unit == Unit::Connections)
    {
        line(out, "RSS/connection", &format!("{bytes:.0} bytes"))?;
    }
    let verdict =
        if client_was_limit(&metrics) { "it WAS the limit" } else { "it was not the limit" };
    line(
        out,
        "client",
        &format!("CPU {:.1} % of a core: {verdict}", 100.0 * metrics.client_share),
    )?;
    let checked = grouped(outcome.checked as f64);
    match outcome.faults.count {
        0 if outcome.checked == 0 => line(out, "verified", "every request was answered, in order"),
        0 => line(out, "verified", &format!("{checked} deliveries: all there, in order, intact")),
        faults => line(out, "FAULTS", &format!("{faults} (standard error names the first)")),
    }
}

fn line(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "  {name:<26} {value}")
}

/// One line with one JSON object.
pub(super) fn json(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_json(&mut text, outcome);
    text
}

fn write_json(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let metrics = metrics(outcome);
    let number =
        |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{value:.3}"));
    write!(out, "{{\"scenario\":\"{}\",", outcome.plan.name)?;
    write!(out, "\"words\":\"{}\",", outcome.plan.words)?;
    write!(out, "\"unit\":\"{}\",\"count\":{},", outcome.plan.unit.name(), metrics.count)?;
    write!(out, "\"seconds\":{:.3},\"per_second\":{:.1},", outcome.seconds, metrics.per_second)?;
    write!(out, "\"per_server_cpu_second\":{},", number(metrics.per_server_cpu_second))?;
    write!(
        out,
        "\"sends\":{},\"deliveries\":{},",
        outcome.counters.sends, outcome.counters.deliveries
    )?;
    write!(out, "\"connections\":{},", outcome.plan.roles.len())?;
    write!(out, "\"setup_seconds\":{:.3},", outcome.setup_seconds)?;
    for (name, histogram) in [("answer_us", &outcome.answers), ("delivery_us", &outcome.deliveries)]
    {
        write!(out, "\"{name}\":{},", json_quantiles(histogram))?;
    }
    write!(out, "\"server_cpu_seconds\":{},", number(outcome.server_cpu))?;
    write!(
        out,
        "\"server_rss_bytes\":{},",
        number(outcome.memory.map(|memory| memory.rss as f64))
    )?;
    write!(
        out,
        "\"server_pss_bytes\":{},",
        number(outcome.memory.map(|memory| memory.pss as f64))
    )?;
    write!(out, "\"rss_bytes_per_connection\":{},", number(metrics.bytes_per_connection))?;
    write!(out, "\"client_cpu_share\":{:.3},", metrics.client_share)?;
    write!(out, "\"client_was_limit\":{},", client_was_limit(&metrics))?;
    writeln!(out, "\"checked\":{},\"faults\":{}}}", outcome.checked, outcome.faults.count)
}

fn json_quantiles(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "null".to_owned();
    }
    let quantiles: Vec<String> = QUANTILES
        .iter()
        .map(|(name, quantile)| format!("\"{name}\":{:.1}", at(histogram, *quantile) as f64 / 1e3))
        .collect();
    format!("{{{}}}", quantiles.join(","))
}

/// The latency at a quantile, in nanoseconds.
fn at(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    histogram.value_at_quantile(quantile)
}

/// A time in a readable unit.
fn time(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{} us", ns / 1000),
        10_000_000..10_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

/// A whole number with thousands separators.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(time(1_500), "1 us");
        assert_eq!(time(9_999_999), "9999 us");
        assert_eq!(time(12_000_000), "12 ms");
    }
}
