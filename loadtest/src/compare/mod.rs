//! Comparisons: every row of the table in rounds, in each round every server once, started afresh on one core while the
//! client uses another. What counts is the ratio within a round, because the speed of a shared machine drifts from minute
//! to minute.
//!
//! [`peers`] compares corecast with other servers, [`against`] a corecast binary with an older one.

mod against;
mod measure;
mod peers;
mod result;
mod rows;
mod table;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use rows::{Row, rows};

use crate::report::check_writable;

/// Options of a comparison.
#[derive(Args)]
pub struct CompareArgs {
    /// The peers, by name; floor is a server that only makes the system calls.
    #[arg(long, value_delimiter = ',', default_value = "floor,bun,bun-deferred,tokio-tungstenite,node-ws,nchan,nats")]
    pub peers: Vec<String>,
    /// Compare with this older corecast binary instead of peers; exit status 1 if a row is slower in two runs.
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["peers", "subject"])]
    pub against: Option<PathBuf>,
    /// The server that is compared with the peers.
    #[arg(long, default_value = "corecast", value_name = "NAME")]
    pub subject: String,
    /// Only these rows.
    #[arg(long, value_delimiter = ',', value_name = "ROWS", help = format!("Only these rows: {}", row_names().join(", ")))]
    pub only: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Measured time of one measurement, in seconds.
    #[arg(long, default_value_t = 2.0, value_parser = crate::values::seconds)]
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
    /// Write the numbers here [default: compare.json; with --against: nowhere].
    #[arg(long, value_name = "FILE")]
    pub json_out: Option<PathBuf>,
    /// Write the chart here [default: compare.svg].
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    pub chart_out: Option<PathBuf>,
}

impl CompareArgs {
    fn json_out(&self) -> Option<PathBuf> {
        self.json_out.clone().or_else(|| self.against.is_none().then(|| "compare.json".into()))
    }

    /// `--against` draws no chart.
    fn chart_out(&self) -> Option<PathBuf> {
        self.against.is_none().then(|| self.chart_out.clone().unwrap_or_else(|| "compare.svg".into()))
    }
}

/// Compares, and prints the table. Returns whether every row passed; against peers none is judged.
pub fn compare(args: &CompareArgs) -> anyhow::Result<bool> {
    let known = row_names();
    for key in &args.only {
        ensure!(known.contains(&key.as_str()), "no row is called {key}; there are {}", known.join(", "));
    }
    ensure!(args.seconds > 0.0 && args.seconds <= 600.0, "--seconds must be above 0 and at most 600");
    for (option, path) in [("--json-out", args.json_out()), ("--chart-out", args.chart_out())] {
        path.iter().try_for_each(|path| check_writable(option, path))?;
    }
    if crate::affinity::cores().len() < 2 {
        eprintln!("! there is only one core: server and client take it from each other");
    }
    match &args.against {
        Some(binary) => against::against(args, binary),
        None => peers::peers(args).map(|()| true),
    }
}

fn row_names() -> Vec<&'static str> {
    rows().iter().map(|row| row.key).collect()
}

/// The rows that --only names; without it those that `by_default` picks.
fn chosen(args: &CompareArgs, by_default: impl Fn(&Row) -> bool) -> Vec<Row> {
    let is_chosen = |row: &Row| match &args.only[..] {
        [] => by_default(row),
        only => only.iter().any(|key| key == row.key),
    };
    rows().into_iter().filter(is_chosen).collect()
}

fn progress_bar(measurements: usize) -> ProgressBar {
    let bar = ProgressBar::new(measurements as u64);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{wide_bar}] {pos}/{len} {msg} ({eta} left)") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}
