//! The results of a comparison with peers.

use serde::Serialize;

use super::rows::Row;
use crate::report::Report;
use crate::spread::{Spread, ratios, spread};

/// All results of a comparison; the contents of the JSON file.
#[derive(Serialize)]
pub struct Comparison {
    /// Processor, number of cores, kernel.
    pub machine: String,
    /// The command line.
    pub command: String,
    /// The server that is compared with the peers.
    pub subject: String,
    /// Rounds that were begun.
    pub rounds: usize,
    /// The rows.
    pub rows: Vec<RowResult>,
}

/// One row of the table.
#[derive(Serialize)]
pub struct RowResult {
    /// Its short name.
    pub key: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// The unit of the values.
    pub unit: &'static str,
    /// Whether less is better.
    pub is_less_better: bool,
    /// The servers, the subject first.
    pub servers: Vec<ServerResult>,
}

/// One server in one row.
#[derive(Clone, Default, Serialize)]
pub struct ServerResult {
    /// Its name.
    pub name: String,
    /// Its value in each round.
    pub values: Vec<Option<f64>>,
    /// Their spread.
    pub value: Option<Spread>,
    /// The subject's value divided by this one's, round by round.
    pub ratio: Option<Spread>,
    /// Rounds in which the client was the bottleneck, so that the server could have done more.
    pub client_bound: usize,
    /// Publish to last subscriber, 99th percentile in nanoseconds, in each round.
    pub last_p99_ns: Vec<Option<f64>>,
    /// The subject's divided by this one's, round by round.
    pub last_p99_ratio: Option<Spread>,
    /// CPU time of an event in the server, in nanoseconds, in each round.
    pub cpu_ns: Vec<Option<f64>>,
    /// The subject's divided by this one's, round by round.
    pub cpu_ratio: Option<Spread>,
    /// Share of the deliveries due in an open loop that were made within the measured time, in each round.
    pub sustained: Vec<f64>,
    /// Messages lost in all rounds.
    pub lost: u64,
    /// Messages among them that had not arrived when the drain ended.
    pub undelivered: u64,
    /// Reasons for missing values, and remarks.
    pub trouble: Vec<String>,
}

impl RowResult {
    /// No values yet.
    pub fn new(row: &Row, names: &[String]) -> RowResult {
        let server = |name: &String| ServerResult { name: name.clone(), ..ServerResult::default() };
        RowResult {
            key: row.key,
            title: row.title,
            unit: row.unit,
            is_less_better: row.is_less_better,
            servers: names.iter().map(server).collect(),
        }
    }

    /// Computes medians and ratios, once all rounds are over.
    pub fn summarize(&mut self) {
        let ServerResult { values: subject, last_p99_ns: p99, cpu_ns: cpu, .. } = self.servers[0].clone();
        for server in &mut self.servers {
            let values: Vec<f64> = server.values.iter().flatten().copied().collect();
            server.value = spread(&values);
            server.ratio = ratios(&subject, &server.values);
            server.last_p99_ratio = ratios(&p99, &server.last_p99_ns);
            server.cpu_ratio = ratios(&cpu, &server.cpu_ns);
        }
    }
}

impl ServerResult {
    /// Takes what was measured in a round, counted from 0.
    pub fn take(&mut self, row: &Row, round: usize, measured: anyhow::Result<Report>) {
        self.values.resize(round, None);
        self.last_p99_ns.resize(round, None);
        self.cpu_ns.resize(round, None);
        let report = match measured {
            Ok(report) => report,
            Err(error) => {
                let trouble = format!("{error:#}");
                if !self.trouble.contains(&trouble) {
                    self.trouble.push(trouble);
                }
                return self.values.push(None);
            }
        };
        let value = report.metric(row.metric);
        self.values.push((value > 0.0).then_some(value));
        self.client_bound += usize::from(report.is_client_bound);
        self.lost += report.metric("lost") as u64;
        self.undelivered += report.metric("undelivered") as u64;
        self.last_p99_ns.push(report.metrics.get("last.p99").copied());
        self.cpu_ns.push(report.metrics.get("server_cpu_ns_per_event").copied());
        self.sustained.extend(report.metrics.get("sustained"));
        let missing = report.metric("connected") < report.metric("wanted");
        let warning =
            report.warnings.into_iter().find(|warning| missing && warning.contains("connections were opened"));
        for note in report.notes.into_iter().chain(warning) {
            // The numbers in them differ from round to round; a few are enough.
            if self.trouble.len() < 3 && !self.trouble.contains(&note) {
                self.trouble.push(note);
            }
        }
    }
}
