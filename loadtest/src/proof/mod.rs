//! Proofs: experiments on how well the server isolates connections from each other. Each starts a corecast of its own and
//! several runs beside each other: some cause a fault or an overload, the others measure its effect.

pub mod conflate;
pub mod depart;
mod findings;
mod frame_reader;
mod keyed_reader;
mod memory_limits;
mod memory_peak;
pub mod mixed;
pub mod presence;
pub mod recover;
pub mod slow;
pub mod soak;
pub mod storm;
pub mod unread;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;

pub use findings::Findings;

use crate::measure::Latency;
use crate::plan::{Flood, Plan, Scenario, nanoseconds};
use crate::procfs;
use crate::progress::Bar;
use crate::report::ReportArgs;
use crate::server::{Server, ServerArgs, Starter};
use crate::target::Target;
use crate::workers::{self, Controls, Results};

/// Options of every proof.
#[derive(Args, Clone)]
pub struct ProofArgs {
    /// The dialect of the clients: corecast's own, Pusher's, or half of them each.
    #[arg(long, default_value = "corecast", value_name = "NAME", value_parser = ["corecast", "corecast-pusher", "corecast-both"])]
    pub target: String,
    /// Options of the server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// The core for the clients [default: any].
    #[arg(long, value_name = "CORE")]
    pub client_core: Option<usize>,
    /// Options of the report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// The error of a proof that was interrupted by Ctrl-C. The report shows what was measured until then.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// The server under test.
pub struct Subject {
    args: ProofArgs,
    target: Target,
    /// Options of `corecast serve`.
    options: Vec<String>,
    server: Server,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
}

impl Subject {
    /// Starts the server with further options of `corecast serve`, and with rules for channels, as its configuration file has
    /// them. The log goes to a temporary file unless another is given.
    pub fn start(args: &ProofArgs, options: &[&str], rules: &str, log: Option<PathBuf>) -> anyhow::Result<Subject> {
        let stop = Arc::new(AtomicBool::new(false));
        crate::stop_on_signal(&stop)?;
        let target = Target::named(&args.target).context("an unknown target")?;
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let starter = Starter { options: options.clone(), rules: rules.into(), log, ..args.server.starter(&stop) };
        let server = starter.start(&args.target, None, None)?;
        Ok(Subject { args: args.clone(), target, options, server, stop })
    }

    /// Fails after Ctrl-C.
    pub fn check_interrupted(&self) -> anyhow::Result<()> {
        ensure!(!self.stop.load(SeqCst), Interrupted);
        Ok(())
    }

    /// A run against this server.
    pub fn plan(&self, scenario: Scenario, seconds: f64) -> Plan {
        let mut plan = Plan::new(self.target.clone(), self.server.address, scenario, nanoseconds(seconds));
        plan.client_core = self.args.client_core;
        self.server.aim(&mut plan);
        plan
    }

    /// Runs a plan to its end. All of its connections must have been opened.
    pub fn run(&self, title: &'static str, plan: Plan) -> anyhow::Result<Results> {
        self.spawn(title, plan)?.join()
    }

    /// Starts a run beside others. The title is that of the progress bar; without one the run has no bar.
    pub fn spawn(&self, title: &'static str, plan: Plan) -> anyhow::Result<BackgroundRun> {
        let is_native = matches!(plan.scenario, Scenario::Recover(_) | Scenario::Presence(_));
        ensure!(!is_native || self.args.target == "corecast", "these clients speak corecast's own dialect only");
        plan.check()?;
        let pid = self.server.pid();
        let bar = (!title.is_empty()).then(|| Bar::new(&plan, title, self.args.report.json));
        let state = Arc::new(RunState::default());
        let shown = Arc::clone(&state);
        let body = move || {
            let results = workers::run(&plan, Some(pid), &shown.controls, |moment| {
                bar.iter().for_each(|bar| bar.show(moment));
                shown.events.store(moment.events, SeqCst);
                shown.begun.store(moment.seconds >= plan.warmup_ns as f64 / 1e9, SeqCst);
            });
            let text = match &results {
                Ok(results) => format!("{:?}", results.tally.notes),
                Err(error) => format!("{error:#}"),
            };
            // It is set once.
            let _ = shown.end.set(text);
            results
        };
        let thread = Some(std::thread::spawn(body));
        Ok(BackgroundRun { state, is_interrupted: Arc::clone(&self.stop), thread })
    }

    /// The server's counters and gauges, by name.
    pub fn stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        self.server.stats()
    }

    /// CPU time and memory of the server.
    pub fn usage(&self) -> procfs::Usage {
        procfs::usage(self.server.pid()).unwrap_or_default()
    }
}

/// The growth of a histogram of the server between two readings of its counters. Each duration counts as the upper bound of
/// its bucket.
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

/// A run beside others.
pub struct BackgroundRun {
    state: Arc<RunState>,
    is_interrupted: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Results>>>,
}

/// What a run shares with the thread that it runs on.
#[derive(Default)]
struct RunState {
    controls: Controls,
    /// Events so far.
    events: AtomicU64,
    begun: AtomicBool,
    /// What is known of its end, once it has ended.
    end: OnceLock<String>,
}

impl BackgroundRun {
    /// Waits until its measured time has begun.
    pub fn wait_until_begun(&self) -> anyhow::Result<()> {
        self.wait_until("does not begin", || self.state.begun.load(SeqCst))
    }

    /// Starts what its scenario waits for, and waits until it has counted so many events.
    pub fn go_until(&self, events: usize, or: &str) -> anyhow::Result<()> {
        self.go();
        self.wait_until(or, || self.state.events.load(SeqCst) >= events as u64)
    }

    /// Starts what its scenario waits for.
    pub fn go(&self) {
        self.state.controls.go.store(true, SeqCst);
    }

    /// Waits for a condition that this run brings about.
    pub fn wait_until(&self, or: &str, mut is_done: impl FnMut() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_done() {
            ensure!(!self.is_interrupted.load(SeqCst), Interrupted);
            ensure!(start.elapsed() < PATIENCE, "a run {or} within {PATIENCE:?}");
            ensure!(!self.is_finished(), "a run has ended too early: {}", self.end());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What is known of its end.
    pub fn end(&self) -> &str {
        self.state.end.get().map_or("nothing is known", String::as_str)
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it.
    pub fn finish(self) -> anyhow::Result<Results> {
        self.state.controls.stop.store(true, SeqCst);
        self.join()
    }

    /// Waits for its end.
    pub fn join(mut self) -> anyhow::Result<Results> {
        let thread = self.thread.take().context("joined twice")?;
        while !thread.is_finished() {
            if self.is_interrupted.load(SeqCst) {
                self.state.controls.stop.store(true, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let results = thread.join().map_err(|_| anyhow!("a run panicked"))??;
        let (wanted, connected) = (results.tally.wanted, results.tally.connected);
        ensure!(connected >= wanted || !results.interrupted, Interrupted);
        ensure!(connected >= wanted, "only {connected} of {wanted} connections were opened: {:?}", results.tally.notes);
        Ok(results)
    }
}

impl Drop for BackgroundRun {
    fn drop(&mut self) {
        self.state.controls.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The load that is measured beside another: small channels with a few subscribers and a steady rate, and connections that
/// send pings.
pub fn bystanders(subscribers: usize, channels: u32, rate: f64, pingers: usize) -> Scenario {
    Scenario::Flood(Flood {
        subscribers,
        channels,
        rate: Some(rate),
        pingers,
        ping_every_ns: 20_000_000,
        ..Flood::default()
    })
}

/// Time limit of a step.
const PATIENCE: Duration = Duration::from_secs(60);
