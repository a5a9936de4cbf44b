//! Writes numbers in the text format of Prometheus (exposition format 0.0.4). Pure.
//!
//! Every number of a shard has the label `shard`, so that a busy shard is visible. Counts by reason are summed over the
//! shards. Channels and addresses are not labels, because their number is not bounded.

use super::process::Process;
use super::snapshot::Numbers;
use crate::metrics::{
    Counters, Entry, Gauges, HISTOGRAMS, Histogram, HistogramEntry, HttpCounters, LABELLED, Labelled, WEBHOOK_LOSSES,
    WebhookCounters, WebhookGauges, WebhookStats,
};
use std::collections::HashMap;
use std::fmt::Write;

/// `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text.
pub fn text(numbers: &Numbers, http: &HttpCounters, webhooks: &WebhookStats, process: &Process) -> String {
    let mut text = Text(String::with_capacity(TEXT_BYTES));
    for (table, kind) in [(Gauges::ENTRIES, "gauge"), (Counters::ENTRIES, "counter")] {
        let mut before = "";
        for entry in table {
            if std::mem::replace(&mut before, entry.metric) != entry.metric {
                text.head(entry.metric, kind, entry.help);
            }
            let dialect = entry.dialect.map(|dialect| format!(",dialect=\"{dialect}\"")).unwrap_or_default();
            for (shard, values) in numbers.shards.iter().enumerate() {
                let value = values.get(entry.name).copied().unwrap_or_default() * entry.scale;
                text.line(format_args!("{}{{shard=\"{shard}\"{dialect}}} {value}", entry.metric));
            }
        }
    }
    for table in &LABELLED {
        let sums = numbers.stats.iter();
        text.labelled(table, sums.filter_map(|(name, value)| Some((name.strip_prefix(table.prefix)?, *value))));
    }
    for entry in &HISTOGRAMS {
        text.histogram(entry, &numbers.shards);
    }
    text.plain("counter", HttpCounters::ENTRIES, http.values());
    text.plain("counter", WebhookCounters::ENTRIES, webhooks.counters.values());
    text.plain("gauge", WebhookGauges::ENTRIES, webhooks.gauges.values());
    text.labelled(&WEBHOOK_LOSSES, webhooks.losses.iter().copied());
    text.process(process);
    text.0
}

struct Text(String);

impl Text {
    fn head(&mut self, metric: &str, kind: &str, help: &str) {
        // The help texts contain no backslash and no newline, the two characters that must be escaped.
        self.line(format_args!("# HELP {metric} {help}"));
        self.line(format_args!("# TYPE {metric} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// The numbers of the whole process.
    fn plain(&mut self, kind: &str, entries: &[Entry], values: impl Iterator<Item = (&'static str, u64)>) {
        for (Entry { metric, help, .. }, (_, value)) in entries.iter().zip(values) {
            self.head(metric, kind, help);
            self.line(format_args!("{metric} {value}"));
        }
    }

    /// Label values come from our own tables: letters, digits and `_`.
    fn labelled<'a>(&mut self, table: &Labelled, sums: impl Iterator<Item = (&'a str, u64)>) {
        let Labelled { metric, help, .. } = table;
        let mut labels: Vec<(&str, u64)> = sums.collect();
        labels.sort_unstable();
        if labels.is_empty() {
            return;
        }
        self.head(metric, "counter", help);
        for (label, value) in labels {
            self.line(format_args!("{metric}{{reason=\"{label}\"}} {value}"));
        }
    }

    fn histogram(&mut self, entry: &HistogramEntry, shards: &[HashMap<String, u64>]) {
        let metric = entry.metric;
        self.head(metric, "histogram", entry.help);
        let buckets: Vec<String> = (0..Histogram::BUCKETS).map(|bucket| entry.bucket_name(bucket)).collect();
        for (shard, values) in shards.iter().enumerate() {
            let value = |name: &str| values.get(name).copied().unwrap_or_default();
            let mut count = 0;
            for (bucket, name) in buckets.iter().enumerate() {
                count += value(name);
                match Histogram::bound_us(bucket) {
                    Some(us) => {
                        let bound = us as f64 / 1e6;
                        self.line(format_args!("{metric}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {count}"));
                    }
                    None => self.line(format_args!("{metric}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {count}")),
                }
            }
            let sum = value(&entry.sum_name()) as f64 / 1e6;
            self.line(format_args!("{metric}_sum{{shard=\"{shard}\"}} {sum}"));
            self.line(format_args!("{metric}_count{{shard=\"{shard}\"}} {count}"));
        }
    }

    /// The metrics of the process, under the names that Prometheus client libraries use.
    fn process(&mut self, process: &Process) {
        self.head("corecast_build_info", "gauge", "1, labelled with the version.");
        self.line(format_args!("corecast_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        let Process { start_time_s, resident_bytes, cpu_s, open_fds, max_fds } = *process;
        let mut number = |metric: &str, kind: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                self.head(metric, kind, help);
                self.line(format_args!("{metric} {value}"));
            }
        };
        let start = "Start time of the process since the Unix epoch, in seconds.";
        number("process_start_time_seconds", "gauge", start, Some(start_time_s));
        let memory = resident_bytes.map(|bytes| bytes as f64);
        number("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", memory);
        let cpu = "CPU time of the process, user and system, in seconds.";
        number("process_cpu_seconds_total", "counter", cpu, Some(cpu_s));
        number("process_open_fds", "gauge", "Open file descriptors.", open_fds.map(|count| count as f64));
        number("process_max_fds", "gauge", "The limit of open file descriptors.", max_fds.map(|count| count as f64));
    }
}

/// Initial capacity, so that the text does not grow byte by byte.
const TEXT_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(pairs: &[(&str, u64)]) -> HashMap<String, u64> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn each_kind_of_number_is_written_by_the_format() {
        let shards = vec![numbers(&[
            ("connections", 2),
            ("connections_pusher", 1),
            ("turn_us_to_4", 1),
            ("turn_us_to_16", 2),
            ("turn_us_above", 1),
        ])];
        let stats = numbers(&[("closes_silent", 7), ("closes_client_gone", 1)]);
        let process = Process { start_time_s: 1.5, ..Process::default() };
        let http = HttpCounters { http_requests: 3, ..HttpCounters::default() };
        let webhooks = WebhookStats { losses: vec![("queue_full", 0), ("expired", 5)], ..WebhookStats::default() };
        let numbers = Numbers { taken: std::time::Instant::now(), stats, shards };
        let text = text(&numbers, &http, &webhooks, &process);
        for line in [
            "# TYPE corecast_connections gauge",
            "corecast_connections{shard=\"0\"} 2",
            "# TYPE corecast_dialect_connections gauge",
            "corecast_dialect_connections{shard=\"0\",dialect=\"native\"} 0\ncorecast_dialect_connections{shard=\"0\",dialect=\"pusher\"} 1",
            "# TYPE corecast_accepts_total counter",
            "corecast_accepts_total{shard=\"0\"} 0",
            "corecast_closes_total{reason=\"client_gone\"} 1\ncorecast_closes_total{reason=\"silent\"} 7",
            "# TYPE corecast_turn_duration_seconds histogram",
            "corecast_turn_duration_seconds_bucket{shard=\"0\",le=\"0.000004\"} 1",
            "corecast_turn_duration_seconds_bucket{shard=\"0\",le=\"0.000008\"} 1",
            "corecast_turn_duration_seconds_bucket{shard=\"0\",le=\"0.000016\"} 3",
            "corecast_turn_duration_seconds_bucket{shard=\"0\",le=\"+Inf\"} 4",
            "corecast_turn_duration_seconds_count{shard=\"0\"} 4",
            "corecast_http_requests_total 3",
            "corecast_webhook_events_total 0",
            "# TYPE corecast_webhook_waiting_bytes gauge",
            "corecast_webhook_dropped_events_total{reason=\"expired\"} 5",
            "process_start_time_seconds 1.5",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line:?} is not in\n{text}");
        }
        let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).count();
        let mut names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), heads, "each metric must have exactly one head");
    }
}
