//! Corecast beside its peers: every row of the table in rounds, in each round every server once, in random order, each
//! started afresh on one core while the client uses another. What counts is the ratio within a round: machines drift, and
//! what was measured in the same minute on the same core drifted together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::ensure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::processes_for;
use crate::compare_table::{chart, table};
use crate::crew::Orders;
use crate::plan::{Flood, Plan, Scenario};
use crate::ratio::{Spread, ratios, spread};
use crate::report::Report;
use crate::server::Starter;
use crate::target::{NAMES, Publish, Target};
use crate::{affinity, crew};

/// Options of a comparison.
#[derive(Args)]
pub struct CompareArgs {
    /// The peers, by name; floor is what the kernel leaves to reach.
    #[arg(long, value_delimiter = ',', default_value = "floor,bun,bun-deferred,tokio-tungstenite,node-ws,nchan,nats")]
    pub peers: Vec<String>,
    /// The server that they are compared with.
    #[arg(long, default_value = "corecast", value_name = "NAME")]
    pub subject: String,
    /// Only these rows.
    #[arg(long, value_delimiter = ',', value_name = "ROW", help = format!("Only these rows: {}", row_names().join(", ")))]
    pub only: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 9)]
    pub rounds: usize,
    /// Measured time of one measurement, in seconds.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// The core for the servers.
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// The core for the client.
    #[arg(long, default_value_t = 1)]
    pub client_core: usize,
    /// The corecast binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    pub server_bin: Option<PathBuf>,
    /// Where the numbers go.
    #[arg(long, default_value = "compare.json", value_name = "FILE")]
    pub json_out: PathBuf,
    /// Where the chart goes.
    #[arg(long, default_value = "compare.svg", value_name = "FILE")]
    pub chart_out: PathBuf,
}

/// Everything a comparison has shown; what the JSON file holds.
#[derive(Serialize)]
pub struct Comparison {
    /// Where: processor, kernel, cores.
    pub machine: String,
    /// How: the command line.
    pub command: String,
    /// Who is compared.
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
    /// In what unit.
    pub unit: &'static str,
    /// Whether less is better.
    pub is_less_better: bool,
    /// The servers, the subject first.
    pub servers: Vec<ServerResult>,
}

/// One server in one row.
#[derive(Serialize)]
pub struct ServerResult {
    /// Its name.
    pub name: String,
    /// Its value in each round.
    pub values: Vec<Option<f64>>,
    /// Their spread.
    pub value: Option<Spread>,
    /// The subject's value divided by this one's, round by round.
    pub ratio: Option<Spread>,
    /// Rounds in which the client was the bottleneck: the server could have done more.
    pub client_bound: usize,
    /// Publish to last subscriber, 99th percentile in nanoseconds, in each round.
    pub last_p99_ns: Vec<Option<f64>>,
    /// The subject's divided by this one's, round by round.
    pub last_p99_ratio: Option<Spread>,
    /// Share of the deliveries owed by an open loop that took place within the measured time, in each round.
    pub sustained: Vec<f64>,
    /// Messages lost in all rounds.
    pub lost: u64,
    /// Messages that were still on their way when the drain ended, in all rounds.
    pub undelivered: u64,
    /// Why there is no value.
    pub trouble: Vec<String>,
}

struct Row {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    metric: &'static str,
    is_less_better: bool,
    /// Least measured time, in seconds.
    seconds_min: f64,
    /// Server and client use every core, instead of one each.
    is_spread: bool,
    scenario: Scenario,
}

/// Compares, prints the table, and writes the files.
pub fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let mut names = vec![args.subject.clone()];
    names.extend(args.peers.iter().filter(|peer| **peer != args.subject).cloned());
    for name in &names {
        ensure!(NAMES.contains(&name.as_str()), "no server is called {name}; there are {}", NAMES.join(", "));
    }
    let known = row_names();
    for key in &args.only {
        ensure!(known.contains(&key.as_str()), "no row is called {key}; there are {}", known.join(", "));
    }
    let rows: Vec<Row> =
        rows().into_iter().filter(|row| args.only.is_empty() || args.only.iter().any(|key| key == row.key)).collect();
    let starter =
        Starter { core: Some(args.server_core), shards: 1, corecast: args.server_bin.clone(), ..Starter::default() };
    if names.iter().any(|name| name == "corecast") {
        starter.corecast()?;
    }
    if affinity::cores().len() < 2 {
        eprintln!("! there is only one core: server and client take it from each other");
    }
    let orders = Orders::default();
    let stop = Arc::clone(&orders.stop);
    signal_hook::flag::register_conditional_shutdown(signal_hook::consts::SIGINT, 130, Arc::clone(&stop))?;
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;

    let mut results: Vec<RowResult> = rows.iter().map(|row| RowResult::new(row, &names)).collect();
    let bar = ProgressBar::new((args.rounds * rows.len() * names.len()) as u64);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{wide_bar}] {pos}/{len} {msg} ({eta} left)") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    let mut rounds = 0;
    'rounds: for round in 0..args.rounds {
        rounds = round + 1;
        for (row, result) in rows.iter().zip(&mut results) {
            let mut order: Vec<usize> = (0..names.len()).collect();
            fastrand::shuffle(&mut order);
            for at in order {
                bar.set_message(format!("round {rounds}: {} · {}", row.key, names[at]));
                let measured = measure(args, &starter, row, &names[at], &orders);
                if stop.load(Relaxed) {
                    break 'rounds;
                }
                result.servers[at].take(row, round, measured);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    for row in &mut results {
        row.summarize();
    }
    let comparison = Comparison {
        machine: machine(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        subject: args.subject.clone(),
        rounds,
        rows: results,
    };
    print!("{}", table(&comparison));
    std::fs::write(&args.json_out, serde_json::to_string_pretty(&comparison)?)?;
    std::fs::write(&args.chart_out, chart(&comparison))?;
    println!("numbers in {}, chart in {}", args.json_out.display(), args.chart_out.display());
    Ok(())
}

fn measure(args: &CompareArgs, starter: &Starter, row: &Row, name: &str, orders: &Orders) -> anyhow::Result<Report> {
    let Some(target) = Target::named(name) else { anyhow::bail!("unknown") };
    let is_silent = matches!(target.publish, Publish::WebSocket { .. });
    match &row.scenario {
        Scenario::Ping { .. } => ensure!(target.ping.is_some(), "answers no pings"),
        Scenario::Flood(flood) if flood.subscribers == 0 => ensure!(!is_silent, "does not answer publishes"),
        _ => {}
    }
    let mut starter = starter.clone();
    if row.is_spread {
        starter.core = None;
        affinity::unpin_this_thread();
    } else {
        // The watcher shares the client's core: the server's is the server's alone.
        affinity::pin_this_thread(args.client_core);
    }
    let server = starter.start(name, None, None)?;
    // In idle rows connections keep themselves alive.
    let heartbeat_ns = if matches!(row.scenario, Scenario::Idle { .. }) { HEARTBEAT_NS } else { 0 };
    let mut plan = Plan {
        target,
        address: server.address,
        admin_socket: None,
        publish_to: None,
        scenario: row.scenario.clone(),
        threads: 1,
        processes: 1,
        duration_ns: (args.seconds.max(row.seconds_min) * 1e9) as u64,
        warmup_ns: 500_000_000,
        verify: false,
        heartbeat_ns,
        client_core: (!row.is_spread).then_some(args.client_core),
        first_channel: 0,
        counts_syscalls: false,
        is_background: false,
    };
    plan.processes = processes_for(plan.connections());
    server.aim(&mut plan);
    let harvest = crew::run(&plan, Some(server.pid()), orders, |_| {})?;
    let report = Report::new(&plan, row.key, &harvest);
    let nobody = plan.connections() > 0 && report.metric("connected") == 0.0;
    ensure!(!nobody, "{}", report.warnings.join("; "));
    Ok(report)
}

impl RowResult {
    fn new(row: &Row, names: &[String]) -> RowResult {
        let server = |name: &String| ServerResult {
            name: name.clone(),
            values: Vec::new(),
            value: None,
            ratio: None,
            client_bound: 0,
            last_p99_ns: Vec::new(),
            last_p99_ratio: None,
            sustained: Vec::new(),
            lost: 0,
            undelivered: 0,
            trouble: Vec::new(),
        };
        RowResult {
            key: row.key,
            title: row.title,
            unit: row.unit,
            is_less_better: row.is_less_better,
            servers: names.iter().map(server).collect(),
        }
    }

    fn summarize(&mut self) {
        let (subject, p99) = (self.servers[0].values.clone(), self.servers[0].last_p99_ns.clone());
        for server in &mut self.servers {
            let values: Vec<f64> = server.values.iter().flatten().copied().collect();
            server.value = spread(&values);
            server.ratio = ratios(&subject, &server.values);
            server.last_p99_ratio = ratios(&p99, &server.last_p99_ns);
        }
    }
}

impl ServerResult {
    fn take(&mut self, row: &Row, round: usize, measured: anyhow::Result<Report>) {
        self.values.resize(round, None);
        self.last_p99_ns.resize(round, None);
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
        self.sustained.extend(report.metrics.get("sustained"));
        let missing = report.metric("connected") < report.metric("wanted");
        let warning =
            report.warnings.into_iter().find(|warning| missing && warning.contains("connections could be had"));
        for note in report.notes.into_iter().chain(warning) {
            // The numbers in them differ from round to round; the first few say enough.
            if self.trouble.len() < 3 && !self.trouble.contains(&note) {
                self.trouble.push(note);
            }
        }
    }
}

fn row_names() -> Vec<&'static str> {
    rows().iter().map(|row| row.key).collect()
}

fn rows() -> Vec<Row> {
    let flood = |subscribers, channels, window, rate| {
        Scenario::Flood(Flood {
            subscribers,
            channels,
            channels_each: 1,
            window,
            rate,
            size: 128,
            pingers: 0,
            ping_every_ns: 0,
        })
    };
    let connect = || Scenario::Connect { in_flight: 64, hold: 0 };
    let idle = |channels| Scenario::Idle { connections: 15_000, channels };
    let row = |key, title, unit, scenario| Row {
        key,
        title,
        unit,
        metric: "rate",
        is_less_better: false,
        seconds_min: 0.0,
        is_spread: false,
        scenario,
    };
    let cost = |metric, row| Row { metric, is_less_better: true, ..row };
    let memory =
        |key, title, channels| cost("server_rss_bytes_per_connection", row(key, title, "B each", idle(channels)));
    let cores = |key, title, scenario| Row {
        is_spread: true,
        ..cost("server_cpu_ns_per_event", row(key, title, "ns of CPU each", scenario))
    };
    vec![
        row("w1", "1 000 subscribers, W=1", "deliveries/s", flood(1000, 1, 1, None)),
        row("w16", "1 000 subscribers, W=16", "deliveries/s", flood(1000, 1, 16, None)),
        row("w256", "1 000 subscribers, W=256", "deliveries/s", flood(1000, 1, 256, None)),
        row("open20k", "20 000 publishes/s × 1 000", "deliveries/s", flood(1000, 1, 1, Some(20_000.0))),
        row("open30k", "30 000 publishes/s × 1 000", "deliveries/s", flood(1000, 1, 1, Some(30_000.0))),
        row("subs10k", "10 000 subscribers, W=16", "deliveries/s", flood(10_000, 1, 16, None)),
        row("chan10k", "10 000 channels × 1 subscriber, W=256", "deliveries/s", flood(10_000, 10_000, 256, None)),
        row(
            "ping1",
            "ping → pong, 1 000 connections, depth 1",
            "pongs/s",
            Scenario::Ping { connections: 1000, depth: 1 },
        ),
        row(
            "ping16",
            "ping → pong, 1 000 connections, depth 16",
            "pongs/s",
            Scenario::Ping { connections: 1000, depth: 16 },
        ),
        memory("idle", "15 000 idle connections, no channel", 0),
        memory("idle-shared", "15 000 idle connections on one channel", 1),
        memory("idle-own", "15 000 idle connections, a channel each", 15_000),
        Row {
            // A rhythm of 25 and 30 s is only seen in a good part of it.
            seconds_min: 15.0,
            ..cost(
                "server_cpu_ns_per_connection_s",
                row("idle-cpu", "15 000 idle connections, heartbeats", "ns of CPU/s each", idle(1)),
            )
        },
        row("connect", "handshakes", "handshakes/s", connect()),
        // A client that takes longer for one than the server does keeps the rate down, whoever serves.
        cost("server_cpu_ns_per_event", row("connect-cpu", "a handshake and its end", "ns of CPU each", connect())),
        row("admin", "publishes, pipelined, nobody subscribed", "publishes/s", flood(0, 1, 1024, None)),
        cores("cores16", "all cores: a delivery at W=16", flood(1000, 1, 16, None)),
        cores("cores2k", "all cores: a delivery at 2 000 publishes/s", flood(1000, 1, 1, Some(2_000.0))),
    ]
}

/// What machine this is: processor, cores, kernel.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel: Vec<&str> = kernel.trim().split('.').take(2).collect();
    format!("{model}, {} cores, Linux {}", affinity::cores().len(), kernel.join("."))
}

/// As `idle` has it: less than the 30 s that the server tells its clients.
const HEARTBEAT_NS: u64 = 25_000_000_000;
