//! Proofs: what a claim about bad days needs — several crews beside each other against one server, trouble made on purpose,
//! and a table of what it did to those who made none. Each starts its own corecast.

pub mod depart;
mod findings;
pub mod mixed;
pub mod slow;
pub mod soak;
pub mod storm;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;

pub use findings::Findings;

use crate::crew::{self, Harvest, Orders};
use crate::expect::Expect;
use crate::measure::Latency;
use crate::plan::{Flood, Plan, SETUP_S, Scenario};
use crate::procfs;
use crate::progress::Bar;
use crate::server::{Server, Starter};
use crate::target::Target;

/// Options of every proof.
#[derive(Args, Clone)]
pub struct ProofArgs {
    /// Shards of the server.
    #[arg(long, default_value_t = 1)]
    pub shards: usize,
    /// The core for the server [default: its own choice].
    #[arg(long, value_name = "CORE")]
    pub server_core: Option<usize>,
    /// The core for the clients [default: any].
    #[arg(long, value_name = "CORE")]
    pub client_core: Option<usize>,
    /// The corecast binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    pub server_bin: Option<PathBuf>,
    /// Fail (exit status 1) unless this holds; repeatable. The names are those of --json.
    #[arg(long, value_name = "'flood.ping.p99<50ms'")]
    pub expect: Vec<Expect>,
    /// Print the numbers as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write a page with the table and percentile curves.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// Ctrl-C: what has been found until then is told.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// A running server, and what is done to it.
pub struct Stage {
    args: ProofArgs,
    server: Server,
    /// Ctrl-C.
    stop: Arc<AtomicBool>,
}

/// How one run differs from the others on the same stage.
#[derive(Clone, Copy)]
pub struct Cast {
    /// What the progress bar says; nothing, and there is no bar.
    pub title: &'static str,
    /// Number of its first channel.
    pub first_channel: u32,
    /// It makes trouble, and must not take CPU time from those who measure.
    pub is_background: bool,
    /// Processes that share its connections.
    pub processes: usize,
    /// Seconds that do not count.
    pub warmup_s: f64,
    /// Seconds that do.
    pub seconds: f64,
}

impl Stage {
    /// Starts a server with further options of `corecast serve`.
    pub fn start(args: &ProofArgs, options: &[&str], log: Option<PathBuf>) -> anyhow::Result<Stage> {
        let stop = Arc::new(AtomicBool::new(false));
        crate::stop_on_signal(&stop)?;
        let starter = Starter {
            core: args.server_core,
            shards: args.shards,
            corecast: args.server_bin.clone(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            log,
            stop: Arc::clone(&stop),
            ..Starter::default()
        };
        Ok(Stage { args: args.clone(), server: starter.start("corecast", None, None)?, stop })
    }

    /// Fails once Ctrl-C was pressed.
    pub fn check_interrupted(&self) -> anyhow::Result<()> {
        ensure!(!self.stop.load(SeqCst), Interrupted);
        Ok(())
    }

    fn plan(&self, scenario: Scenario, cast: Cast) -> anyhow::Result<Plan> {
        let mut plan = Plan {
            target: Target::named("corecast").context("the target corecast")?,
            address: self.server.address,
            admin_socket: None,
            publish_to: None,
            scenario,
            threads: 1,
            processes: cast.processes,
            duration_ns: (cast.seconds * 1e9) as u64,
            warmup_ns: (cast.warmup_s * 1e9) as u64,
            setup_ns: (SETUP_S * 1e9) as u64,
            verify: false,
            heartbeat_ns: 0,
            client_core: self.args.client_core,
            first_channel: cast.first_channel,
            counts_syscalls: false,
            is_background: cast.is_background,
        };
        self.server.aim(&mut plan);
        Ok(plan)
    }

    /// Runs a crew to its end. Everybody it wanted must have got in.
    pub fn run(&self, scenario: Scenario, cast: Cast) -> anyhow::Result<Harvest> {
        self.spawn(scenario, cast)?.join()
    }

    /// Starts a crew beside what else there is.
    pub fn spawn(&self, scenario: Scenario, cast: Cast) -> anyhow::Result<Troupe> {
        let plan = self.plan(scenario, cast)?;
        let pid = self.server.pid();
        let mut troupe = Troupe {
            orders: Arc::new(Orders::default()),
            events: Arc::default(),
            begun: Arc::default(),
            is_interrupted: Arc::clone(&self.stop),
            thread: None,
        };
        let (orders, events, begun) =
            (Arc::clone(&troupe.orders), Arc::clone(&troupe.events), Arc::clone(&troupe.begun));
        let bar = (!cast.title.is_empty()).then(|| Bar::new(&plan, cast.title, self.args.json));
        let body = move || {
            crew::run(&plan, Some(pid), &orders, |moment| {
                bar.iter().for_each(|bar| bar.show(moment));
                events.store(moment.events, SeqCst);
                begun.store(moment.seconds >= cast.warmup_s, SeqCst);
            })
        };
        troupe.thread = Some(std::thread::spawn(body));
        Ok(troupe)
    }

    /// The server's counters and gauges, by name.
    pub fn stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let path = self.server.admin_socket.as_deref().context("no admin socket")?;
        let mut admin = UnixStream::connect(path)?;
        admin.set_read_timeout(Some(Duration::from_secs(20)))?;
        admin.write_all(b"{\"id\":1,\"command\":\"stats\"}\n")?;
        let mut line = String::new();
        BufReader::new(admin).read_line(&mut line)?;
        let reply: serde_json::Value = serde_json::from_str(&line)?;
        Ok(serde_json::from_value(reply["stats"].clone())?)
    }

    /// What the server's process uses.
    pub fn usage(&self) -> procfs::Usage {
        procfs::usage(self.server.pid()).unwrap_or_default()
    }
}

/// What a histogram of the server has counted between two looks at its numbers, each duration as long as its bucket allows.
fn histogram_growth(name: &str, before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Latency {
    let mut latency = Latency::new();
    let prefix = format!("{name}_us_");
    for (bucket, count) in now {
        let bound_us = match bucket.strip_prefix(&prefix) {
            Some("above") => u64::MAX / 1000,
            Some(suffix) => match suffix.strip_prefix("to_").and_then(|bound| bound.parse().ok()) {
                Some(bound_us) => bound_us,
                None => continue,
            },
            None => continue,
        };
        let count = count - before.get(bucket).unwrap_or(&0);
        if count > 0 {
            latency.record(bound_us * 1000, count);
        }
    }
    latency
}

/// A crew that runs beside others.
pub struct Troupe {
    /// What it can be told.
    pub orders: Arc<Orders>,
    /// What it has counted so far.
    pub events: Arc<AtomicU64>,
    begun: Arc<AtomicBool>,
    is_interrupted: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Harvest>>>,
}

impl Troupe {
    /// Waits until its measured time has begun.
    pub fn wait_until_begun(&self) -> anyhow::Result<()> {
        self.wait_until("does not begin", || self.begun.load(SeqCst))
    }

    /// Waits for something that this crew brings about.
    pub fn wait_until(&self, or: &str, mut is_done: impl FnMut() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_done() {
            ensure!(!self.is_interrupted.load(SeqCst), Interrupted);
            ensure!(start.elapsed() < PATIENCE, "a crew {or} within {PATIENCE:?}");
            ensure!(!self.is_finished(), "a crew has ended too early");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it has come to its end.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it now.
    pub fn finish(self) -> anyhow::Result<Harvest> {
        self.orders.stop.store(true, SeqCst);
        self.join()
    }

    /// Waits for its end.
    pub fn join(mut self) -> anyhow::Result<Harvest> {
        let thread = self.thread.take().context("joined twice")?;
        while !thread.is_finished() {
            if self.is_interrupted.load(SeqCst) {
                self.orders.stop.store(true, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let harvest = thread.join().map_err(|_| anyhow!("a crew panicked"))??;
        let (wanted, connected) = (harvest.tally.wanted, harvest.tally.connected);
        ensure!(connected >= wanted || !harvest.interrupted, Interrupted);
        ensure!(
            connected >= wanted,
            "only {connected} of {wanted} connections could be had: {:?}",
            harvest.tally.notes
        );
        Ok(harvest)
    }
}

impl Drop for Troupe {
    fn drop(&mut self) {
        self.orders.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Those who make no trouble and are measured: small channels with a few subscribers, published to at a steady rate, and
/// connections that ping.
pub fn bystanders(subscribers: usize, channels: u32, rate: f64, pingers: usize) -> Scenario {
    Scenario::Flood(Flood {
        subscribers,
        channels,
        channels_each: 1,
        window: 1,
        rate: Some(rate),
        size: 128,
        pingers,
        ping_every_ns: 20_000_000,
    })
}

/// No step of a proof takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
