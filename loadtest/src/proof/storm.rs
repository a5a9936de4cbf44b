//! Storms: a crowd drops and comes back at once, from several processes, beside a live fan-out.

use super::{Cast, Findings, ProofArgs, Stage, bystanders};
use crate::plan::Scenario;
use crate::procfs;
use crate::report::{number, time};
use clap::Args;
use std::sync::atomic::Ordering::SeqCst;

/// Options of `storm`.
#[derive(Args)]
pub struct StormArgs {
    /// Clients that drop and come back.
    #[arg(long, short = 'n', default_value_t = 15_000)]
    pub connections: usize,
    /// Processes that share them.
    #[arg(long, default_value_t = 4)]
    pub processes: usize,
    /// Channels they are subscribed to, taking turns.
    #[arg(long, short = 'c', default_value_t = 100)]
    pub channels: u32,
    /// Subscribers of the live channel.
    #[arg(long, default_value_t = 100)]
    pub listeners: usize,
    /// Publishes to the live channel, a second.
    #[arg(long, short = 'r', default_value_t = 200.0)]
    pub rate: f64,
    /// Seconds of the live fan-out before the storm, and again after it.
    #[arg(long, short, default_value_t = 5.0, value_name = "SECONDS")]
    pub duration: f64,
    /// Fail if live deliveries during the storm have a p99 of more than so many times that before it, or of 5 ms where that
    /// is more.
    #[arg(long, default_value_t = 6.0, value_name = "TIMES")]
    pub slower_max: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures the live fan-out before, during and after the storm, and the storm itself.
pub fn storm(args: &StormArgs) -> anyhow::Result<bool> {
    let mut findings = Findings::default();
    let played = play(args, &mut findings);
    findings.conclude(played, &args.proof, "A crowd drops and comes back beside a live fan-out")
}

fn play(args: &StormArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let stage = Stage::start(&args.proof, &["--server-ping", "off"], None)?;
    let crowd = Scenario::Crowd { connections: args.connections, channels: args.channels };
    let background = Cast {
        title: "",
        first_channel: 0,
        is_background: true,
        processes: args.processes,
        warmup_s: 0.0,
        seconds: PATIENCE_S,
    };
    let crowd = stage.spawn(crowd, background)?;
    crowd.wait_until_begun()?;
    let live = || bystanders(args.listeners, 1, args.rate, 20);
    let cast = Cast {
        title: "before",
        first_channel: args.channels,
        is_background: false,
        processes: 1,
        warmup_s: 0.5,
        seconds: args.duration,
    };
    let mut p99 = Vec::new();
    let mut note = |situation: &str, harvest: &crate::crew::Harvest| {
        let tally = &harvest.tally;
        p99.push(tally.latencies.get("last").map_or(0, |latency| latency.quantile(0.99)) as f64);
        findings.check_faultless(situation, harvest);
        findings.latency(situation, "live", "publish → last subscriber", tally.latencies.get("last"));
        findings.latency(situation, "ping", "ping → pong", tally.latencies.get("ping"));
    };
    note("before", &stage.run(live(), cast)?);
    stage.check_interrupted()?;

    let drops = procfs::listen_drops();
    let during = stage.spawn(live(), Cast { title: "during", seconds: PATIENCE_S, ..cast })?;
    during.wait_until_begun()?;
    crowd.orders.go.store(true, SeqCst);
    let wanted = args.connections as u64;
    crowd.wait_until("does not come back", || crowd.events.load(SeqCst) >= wanted)?;
    note("during", &during.finish()?);
    note("after", &stage.run(live(), Cast { title: "after", ..cast })?);
    let drops = procfs::listen_drops() - drops;

    let stats = stage.stats()?;
    let harvest = crowd.finish()?;
    let tally = &harvest.tally;
    findings.latency("storm", "connect", "connect, greeting included", tally.latencies.get("connect"));
    findings.latency("storm", "back", "dropped → subscribed again", tally.latencies.get("back"));
    let recovery_ns = tally.latencies.get("all back").map_or(0, |latency| latency.max());
    let stat = |name: &str| stats.get(name).copied().unwrap_or_default();
    findings.number("recovery", recovery_ns as f64);
    findings.number("refused", tally.refused as f64);
    findings.number("listen_drops", drops as f64);
    findings.lines.push(format!(
        "{} connections, {} processes: all back after {}; {} refused or lost; the kernel's backlog turned {} away; \
         {} accept errors",
        number(args.connections as f64),
        args.processes,
        time(recovery_ns as f64),
        tally.refused,
        drops,
        stat("accept_errors"),
    ));
    let allowed = args.slower_max * p99[0].max(UNFELT_NS);
    findings.check(
        p99[1] <= allowed,
        format!("live deliveries had a p99 of {} during the storm, {} are allowed", time(p99[1]), time(allowed)),
    );
    findings.check(tally.refused == 0, format!("{} connections were refused: {:?}", tally.refused, tally.notes));
    findings.check(tally.events == wanted, format!("{} of {wanted} came back", tally.events));
    findings.check(drops == 0, format!("{drops} connection attempts found the backlog full"));
    Ok(())
}

/// What load generator and server take from each other is more than what nobody feels.
const UNFELT_NS: f64 = 5e6;
/// The storm is over when all are back; this ends it at the latest.
const PATIENCE_S: f64 = 120.0;
