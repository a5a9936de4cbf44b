//! The report of a run: numbers by name, a table, and JSON.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::chart::Rate;
use crate::expect::Expect;
use crate::format::{bytes, number, percent, table, time};
use crate::html::Page;
use crate::measure::{Latency, Tally};
use crate::plan::{Plan, Scenario};
use crate::worker::Moment;
use crate::workers::Results;

/// Options of a report.
#[derive(Args, Clone)]
pub struct ReportArgs {
    /// Exit with status 1 unless this holds; repeatable. The metrics are those of --json: p50, p99, p999, max, rate, connected, ...;
    /// of one latency: last.p99. Losses: lost, undelivered, unconnected, disconnected, unanswered, refused, unsent, duplicated,
    /// reordered, invalid. Units: us, ms, s, k, M, %.
    #[arg(long, value_name = "'p99<5ms'")]
    pub expect: Vec<Expect>,
    /// Print the results as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write a page with the results and percentile curves.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

impl ReportArgs {
    /// Refuses a page that cannot be written, before the run.
    pub fn check(&self) -> anyhow::Result<()> {
        self.report.iter().try_for_each(|path| check_writable("--report", path))
    }
}

/// Refuses a file that the run could not write at its end.
pub fn check_writable(option: &str, path: &Path) -> anyhow::Result<()> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map(drop).with_context(|| format!("{option} {}", path.display()))
}

/// Writes a line, or several, to standard output, which may be a pipe that is closed or a file on a full disk.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("the results cannot be written to standard output")
}

/// Writes the page of a run.
pub fn write(path: &Path, page: &Page<'_>) -> anyhow::Result<()> {
    fs::write(path, page.html()).with_context(|| format!("--report {}", path.display()))
}

/// The results of one run.
#[derive(Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// The server.
    pub target: String,
    /// The unit of `rate`.
    pub unit: &'static str,
    /// Every number by the name that `--expect` uses; times in nanoseconds, memory in bytes.
    pub metrics: BTreeMap<String, f64>,
    /// Percentile curves: (share, nanoseconds), by latency.
    pub curves: BTreeMap<String, Vec<(f64, u64)>>,
    /// The run over time.
    pub timeline: Vec<Moment>,
    /// Remarks.
    pub notes: Vec<String>,
    /// Losses, and reasons not to trust the numbers.
    pub warnings: Vec<String>,
    /// The client was the bottleneck, and not the server.
    pub is_client_bound: bool,
    /// Why nothing was measured, if everything was lost.
    pub total_loss: Option<&'static str>,
}

impl Report {
    /// The report of a run's results.
    pub fn new(plan: &Plan, name: &'static str, results: &Results) -> Report {
        let tally = &results.tally;
        let (unit, main) = match &plan.scenario {
            Scenario::Flood(flood) if flood.subscribers == 0 => ("publishes", "last"),
            Scenario::Flood(_) => ("deliveries", "receipt"),
            Scenario::Ping(_) => ("pongs", "ping"),
            Scenario::Idle(_) => ("frames", "connect"),
            Scenario::Connect(_) => ("handshakes", "connect"),
            Scenario::Recover(_) => ("returns", "back"),
            Scenario::Presence(_) => ("changes", "joined"),
            Scenario::Churn(_) => ("operations", "operation"),
        };
        let mut metrics = counters(tally);
        load_metrics(plan, tally, &mut metrics);
        let mut curves = BTreeMap::new();
        // A latency without samples would be 0, and meet every expectation.
        for (name, latency) in tally.latencies.iter().filter(|(_, latency)| latency.count() > 0) {
            for (suffix, value) in percentiles(latency) {
                metrics.insert(format!("{name}.{suffix}"), value);
                if name == main {
                    metrics.insert(suffix.to_owned(), value);
                }
            }
            curves.insert(name.clone(), curve(latency));
        }
        server_metrics(results, &mut metrics);
        let mut report = Report {
            scenario: name,
            target: plan.target.name.clone(),
            unit,
            metrics,
            curves,
            timeline: results.timeline.clone(),
            notes: tally.notes.iter().map(|(note, count)| note_text(note, *count)).collect(),
            warnings: Vec::new(),
            is_client_bound: false,
            total_loss: None,
        };
        report.warn(plan, results);
        report.total_loss = total_loss(plan, tally);
        report.warnings.extend(report.total_loss.map(str::to_owned));
        report
    }

    fn warn(&mut self, plan: &Plan, results: &Results) {
        let (client, server) = (self.metric("client_busy"), self.metric("server_busy"));
        let tally = &results.tally;
        let is_closed_loop = !matches!(&plan.scenario, Scenario::Idle(_));
        if is_closed_loop && client > 0.95 && (results.server.is_none() || server < 0.93) {
            self.is_client_bound = true;
            self.warnings.push(format!(
                "THE CLIENT WAS THE BOTTLENECK: its busiest thread used {:.0} % of a core, the server {}. These numbers say \
                 how fast the client is. Try --threads, --processes, or cores of their own.",
                client * 100.0,
                if results.server.is_some() { format!("{:.0} %", server * 100.0) } else { "unknown".into() },
            ));
        }
        if tally.connected < tally.wanted {
            let refused: Vec<&str> =
                tally.notes.keys().filter(|note| note.starts_with("not connected")).map(String::as_str).collect();
            self.warnings.push(format!(
                "only {} of {} connections were opened ({})",
                tally.connected,
                tally.wanted,
                if refused.is_empty() { "they were not answered in time".into() } else { refused.join("; ") }
            ));
        }
        if self.metrics.get("sustained").is_some_and(|share| *share < 0.99) {
            self.warnings.push(format!(
                "the open loop was not sustained: {} of {} publishes were sent, {:.1} % of the due deliveries were made in time",
                tally.publishes,
                tally.owed,
                self.metric("sustained") * 100.0
            ));
        }
        let failed = (tally.failed_workers, "workers failed");
        for (count, what) in tally.faults().into_iter().chain([failed]) {
            if count > 0 {
                self.warnings.push(format!("{count} {what}"));
            }
        }
        if results.interrupted {
            self.warnings.push("interrupted: these are the results so far".into());
        }
    }

    /// A number by name; 0 where there is none.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics.get(name).copied().unwrap_or(0.0)
    }

    /// The report as a table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let head = vec![format!("{} · {}", self.scenario, self.target), String::new()];
        let rows = self.lines().into_iter().map(|(name, text)| vec![name, text]).collect();
        let _ = writeln!(out, "{}", table(head, rows, 1));
        if !self.curves.is_empty() {
            let _ = writeln!(out, "{}", table(latency_head(), self.latency_rows(), 1));
        }
        for note in &self.notes {
            let _ = writeln!(out, "  {note}");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "! {warning}");
        }
        out
    }

    fn latency_rows(&self) -> Vec<Vec<String>> {
        let row = |name: &String| {
            let metric = |suffix: &str| self.metric(&format!("{name}.{suffix}"));
            let mut row = vec![latency_name(name).to_owned(), number(metric("count"))];
            row.extend(["mean", "p50", "p90", "p99", "p999", "max"].map(|suffix| time(metric(suffix))));
            row
        };
        self.curves.keys().map(row).collect()
    }

    /// The report as a page.
    pub fn page(&self, plan: &Plan) -> Page<'_> {
        let rate = |pair: &[Moment]| {
            let seconds = (pair[1].seconds - pair[0].seconds).max(1e-3);
            (pair[1].seconds, pair[1].events.saturating_sub(pair[0].events) as f64 / seconds)
        };
        let points = self.timeline.windows(2).map(rate).collect();
        let mut tiles = vec![(format!("{} a second", self.unit), number(self.metric("rate")))];
        // The main latency of the scenario.
        let main = ["last", "ping", "operation", "connect"].into_iter().find(|name| self.curves.contains_key(*name));
        if let Some(name) = main {
            for (suffix, title) in [("p50", "median"), ("p99", "99 %")] {
                let value = time(self.metric(&format!("{name}.{suffix}")));
                tiles.push((format!("{}, {title}", latency_name(name)), value));
            }
        }
        tiles.push(("lost".into(), number(self.metric("lost"))));
        Page {
            title: format!("{} · {}", self.scenario, self.target),
            tiles,
            warnings: &self.warnings,
            latencies: (latency_head(), self.latency_rows()),
            curves: self.curves.iter().map(|(name, curve)| (latency_name(name).to_owned(), &curve[..])).collect(),
            rate: Some(Rate { unit: self.unit, points, count_from_s: plan.warmup_ns as f64 / 1e9 }),
            facts: self.lines(),
            notes: &self.notes,
            metrics: Some(&self.metrics),
        }
    }

    /// Names and texts of the summary.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![(format!("{} / s", self.unit), number(self.metric("rate")))];
        let mut line = |metric: &str, name: &str, text: fn(f64) -> String| {
            if let Some(&value) = self.metrics.get(metric) {
                lines.push((name.into(), text(value)));
            }
        };
        line("publish_rate", "publishes / s", number);
        line("sustained", "deliveries made of those due", percent);
        line("connected", "connections", number);
        line("lost", "lost", number);
        line("undelivered", "of them not delivered at the end", number);
        line("unanswered", "requests without an answer", number);
        line("duplicated", "duplicated", number);
        line("reordered", "reordered", number);
        line("client_busy", "client's busiest thread", percent);
        line("client_cpu_ns_per_event", "client: CPU time per event", time);
        line("bytes_per_read", "client: bytes per read", number);
        line("server_busy", "server's cores busy", percent);
        line("server_user", "server: of it in user mode", percent);
        line("server_cpu_ns_per_event", "server: CPU time per event", time);
        line("server_switches_per_s", "server: context switches / s", number);
        line("server_syscalls_per_s", "server: system calls / s", number);
        line("server_syscalls_per_event", "server: system calls per event", number);
        line("server_rss_bytes", "server: memory at the end", bytes);
        line("server_rss_bytes_per_connection", "server: memory per connection", bytes);
        line("server_rss_start", "server: memory at the start", bytes);
        line("server_rss_peak", "server: memory at its peak", bytes);
        line("server_rss_growth", "server: memory grown while measured", bytes);
        lines
    }
}

/// Why nothing was measured, if everything was lost.
fn total_loss(plan: &Plan, tally: &Tally) -> Option<&'static str> {
    let wants_connections = plan.connections() > 0;
    let counts_events = match &plan.scenario {
        // In a short run of a slow open loop no publish may be due.
        Scenario::Flood(flood) => flood.rate.is_none() || tally.owed > 0 || tally.window_ns.is_empty(),
        // Without heartbeats there is nothing to count.
        Scenario::Idle(_) | Scenario::Recover(_) | Scenario::Presence(_) => false,
        Scenario::Ping(_) | Scenario::Connect(_) | Scenario::Churn(_) => true,
    };
    if wants_connections && tally.connected == 0 {
        Some("everything was lost: there was no connection")
    } else if counts_events && tally.events == 0 {
        Some("everything was lost: nothing arrived within the measured time")
    } else if wants_connections && tally.disconnected >= tally.connected && !counts_events {
        Some("everything was lost: the server closed all connections")
    } else {
        None
    }
}

/// The numbers that every scenario has.
fn counters(tally: &Tally) -> BTreeMap<String, f64> {
    let seconds = tally.seconds();
    let rate = if seconds > 0.0 { tally.events as f64 / seconds } else { 0.0 };
    let counts = [
        ("events", tally.events),
        ("wanted", tally.wanted),
        ("connected", tally.connected),
        ("disconnected", tally.disconnected),
        ("unconnected", tally.wanted.saturating_sub(tally.connected)),
        ("lost", tally.lost()),
        ("skipped", tally.skipped),
        ("undelivered", tally.undelivered),
        ("unanswered", tally.unanswered),
        ("failed_workers", tally.failed_workers),
        ("duplicated", tally.duplicated),
        ("reordered", tally.reordered),
        ("invalid", tally.invalid),
        ("refused", tally.refused),
    ];
    let mut metrics: BTreeMap<String, f64> =
        counts.into_iter().map(|(name, count)| (name.to_owned(), count as f64)).collect();
    let mut insert = |name: &str, value| metrics.insert(name.to_owned(), value);
    insert("rate", rate);
    insert("seconds", seconds);
    insert("client_busy", tally.busy());
    insert("bytes_per_read", tally.bytes_read as f64 / tally.reads.max(1) as f64);
    if tally.events > 0 {
        insert("client_cpu_ns_per_event", tally.cpu_ns.iter().sum::<u64>() as f64 / tally.events as f64);
    }
    metrics
}

/// The numbers of scenarios that publish.
fn load_metrics(plan: &Plan, tally: &Tally, metrics: &mut BTreeMap<String, f64>) {
    if let Scenario::Flood(_) | Scenario::Churn(_) = &plan.scenario {
        let seconds = tally.window_ns.first().map_or(1.0, |&ns| ns as f64 / 1e9);
        metrics.insert("publish_rate".into(), tally.publishes as f64 / seconds);
    }
    let Scenario::Flood(flood) = &plan.scenario else { return };
    if flood.rate.is_some() {
        metrics.insert("unsent".into(), tally.owed.saturating_sub(tally.publishes) as f64);
    }
    if tally.owed > 0 && flood.subscribers > 0 {
        let each = flood.subscribers as f64 * f64::from(flood.channels_each) / f64::from(flood.channels);
        metrics.insert("sustained".into(), tally.events as f64 / (tally.owed as f64 * each));
    }
}

fn server_metrics(results: &Results, metrics: &mut BTreeMap<String, f64>) {
    let Some([before, begin, end]) = results.server else {
        return;
    };
    let seconds = (results.server_window_ns as f64 / 1e9).max(1e-9);
    let since = |now: u64, then: u64| now.saturating_sub(then) as f64;
    let cpu = since(end.cpu_ns, begin.cpu_ns);
    let in_modes = since(end.user_ns + end.system_ns, begin.user_ns + begin.system_ns);
    let switches =
        since(end.switches_voluntary + end.switches_involuntary, begin.switches_voluntary + begin.switches_involuntary);
    let mut insert = |name: &str, value: f64| {
        metrics.insert(name.into(), value);
    };
    insert("server_busy", cpu / 1e9 / seconds);
    if in_modes > 0.0 {
        insert("server_user", since(end.user_ns, begin.user_ns) / in_modes);
    }
    if results.tally.events > 0 {
        let measured = results.tally.seconds().max(1e-9);
        insert("server_cpu_ns_per_event", cpu / seconds * measured / results.tally.events as f64);
    }
    insert("server_switches_per_s", switches / seconds);
    if let Some(calls) = results.syscalls_per_s {
        insert("server_syscalls_per_s", calls);
        let events = results.tally.events as f64 / results.tally.seconds().max(1e-9);
        if events > 0.0 {
            insert("server_syscalls_per_event", calls / events);
        }
    }
    insert("server_rss_bytes", end.rss_bytes as f64);
    insert("server_rss_growth", end.rss_bytes as f64 - begin.rss_bytes as f64);
    let measured = results.timeline.iter().map(|moment| moment.rss_bytes).chain([begin.rss_bytes, end.rss_bytes]);
    insert("server_rss_start", begin.rss_bytes as f64);
    insert("server_rss_peak", measured.max().unwrap_or_default() as f64);
    let connected = results.tally.connected;
    if connected > 0 && before.rss_bytes > 0 {
        // Anonymous memory: pages of the program file do not belong to connections.
        insert("server_rss_bytes_per_connection", since(begin.anon_bytes, before.anon_bytes) / connected as f64);
        insert("server_cpu_ns_per_connection_s", cpu / seconds / connected as f64);
    }
}

fn percentiles(latency: &Latency) -> [(&'static str, f64); 7] {
    let at = |share| latency.quantile(share) as f64;
    [
        ("count", latency.count() as f64),
        ("mean", latency.mean()),
        ("p50", at(0.5)),
        ("p90", at(0.9)),
        ("p99", at(0.99)),
        ("p999", at(0.999)),
        ("max", latency.max() as f64),
    ]
}

/// Points of the percentile curve, denser towards the tail, as far as samples reach.
pub fn curve(latency: &Latency) -> Vec<(f64, u64)> {
    let decades = (latency.count().max(10) as f64).log10().min(6.0);
    (0..=60)
        .map(|step| 1.0 - 10f64.powf(-decades * f64::from(step) / 60.0))
        .map(|share| (share, latency.quantile(share)))
        .collect()
}

/// The name of a latency in reports.
pub fn latency_name(name: &str) -> &str {
    match name {
        "receipt" => "publish → receipt",
        "last" => "publish → last subscriber",
        "ping" => "ping → pong",
        "late" => "publish due → sent",
        other => other,
    }
}

fn note_text(note: &str, count: u64) -> String {
    if count == 1 { note.into() } else { format!("{note} ({count} ×)") }
}

fn latency_head() -> Vec<String> {
    ["latency", "count", "mean", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned).to_vec()
}
