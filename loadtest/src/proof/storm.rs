//! Storms: a crowd drops and comes back at once, from several processes, beside a live fan-out; first on another server, to tell
//! what is the machine's share of what the live fan-out feels.

use super::{Cast, Findings, ProofArgs, Stage, Troupe, bystanders, histogram_growth};
use crate::crew::Harvest;
use crate::format::{number, time};
use crate::plan::Scenario;
use crate::procfs;
use clap::Args;
use std::collections::BTreeMap;
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
    /// Fail if live deliveries during the storm have a p99 of more than so many times that before it, or of 5 ms where that is
    /// more; or if the server takes longer until they are written than so many times what it took before, or 2 ms.
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
    let options = ["--server-ping", "off"];
    let stage = Stage::start(&args.proof, &options, None)?;
    let live = bystanders(args.listeners, 1, args.rate, 20);
    let cast = Cast {
        title: "before",
        first_channel: args.channels,
        is_background: false,
        processes: 1,
        // So that they are no newcomers themselves when the others come.
        warmup_s: 1.5,
        seconds: args.duration,
    };
    let mut p99 = BTreeMap::new();
    let mut stats = stage.stats()?;
    let mut note = |situation: &'static str, harvest: &Harvest, findings: &mut Findings| {
        findings.check_faultless(situation, harvest);
        let now = stage.stats()?;
        let growth = |name| histogram_growth(name, &stats, &now);
        let (written, turn) = (growth("written"), growth("turn"));
        let latencies = &harvest.tally.latencies;
        p99.insert(
            situation,
            // Without samples it is not a number, which is within no bound.
            [latencies.get("last"), Some(&written)].map(|it| it.map_or(f64::NAN, |it| it.quantile(0.99) as f64)),
        );
        findings.latency(situation, "live", "publish → last subscriber", latencies.get("last"));
        findings.latency(situation, "ping", "ping → pong", latencies.get("ping"));
        findings.latency(situation, "written", "in the server: publish → written", Some(&written));
        findings.latency(situation, "turn", "in the server: a turn", Some(&turn));
        stats = now;
        anyhow::Ok(())
    };
    note("before", &stage.run(live.clone(), cast)?, findings)?;

    // What the storm's clients take from those who measure, and from the server, by being on the same machine.
    let other = Stage::start(&args.proof, &options, None)?;
    let crowd = Crowd::gather(args, &other)?;
    let harvest = crowd.drop_beside(args, &stage, live.clone(), Cast { title: "elsewhere", ..cast })?;
    note("elsewhere", &harvest, findings)?;
    crowd.0.finish()?;
    drop(other);

    let crowd = Crowd::gather(args, &stage)?;
    let drops = procfs::listen_drops();
    note("during", &crowd.drop_beside(args, &stage, live.clone(), Cast { title: "during", ..cast })?, findings)?;
    note("after", &stage.run(live, Cast { title: "after", ..cast })?, findings)?;
    let drops = procfs::listen_drops() - drops;

    let harvest = crowd.0.finish()?;
    let tally = &harvest.tally;
    findings.latency("storm", "connect", "connect, greeting included", tally.latencies.get("connect"));
    findings.latency("storm", "back", "dropped → subscribed again", tally.latencies.get("back"));
    let recovery_ns = tally.latencies.get("all back").map_or(0, |latency| latency.max());
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
        stats.get("accept_errors").copied().unwrap_or_default(),
    ));
    let [[live_before, written_before], [live, written]] = ["before", "during"].map(|situation| p99[situation]);
    let allowed = args.slower_max * live_before.max(UNFELT_NS);
    findings.check(
        live <= allowed,
        format!("live deliveries had a p99 of {} during the storm, {} are allowed", time(live), time(allowed)),
    );
    let allowed = args.slower_max * written_before.max(UNFELT_IN_SERVER_NS);
    findings.check(
        written <= allowed,
        format!("the server wrote them with a p99 of {}, {} are allowed", time(written), time(allowed)),
    );
    findings.check(tally.refused == 0, format!("{} connections were refused: {:?}", tally.refused, tally.notes));
    let wanted = args.connections as u64;
    findings.check(tally.events == wanted, format!("{} of {wanted} came back", tally.events));
    findings.check(drops == 0, format!("{drops} connection attempts found the backlog full"));
    Ok(())
}

/// Those who drop and come back.
struct Crowd(Troupe);

impl Crowd {
    /// Waits until all are there.
    fn gather(args: &StormArgs, stage: &Stage) -> anyhow::Result<Crowd> {
        stage.check_interrupted()?;
        let crowd = Scenario::Crowd { connections: args.connections, channels: args.channels };
        let cast = Cast {
            title: "",
            first_channel: 0,
            is_background: true,
            processes: args.processes,
            warmup_s: 0.0,
            seconds: PATIENCE_S,
        };
        let crowd = stage.spawn(crowd, cast)?;
        crowd.wait_until_begun()?;
        Ok(Crowd(crowd))
    }

    /// Lets all drop and come back, and measures others meanwhile.
    fn drop_beside(&self, args: &StormArgs, stage: &Stage, others: Scenario, cast: Cast) -> anyhow::Result<Harvest> {
        let others = stage.spawn(others, Cast { seconds: PATIENCE_S, ..cast })?;
        others.wait_until_begun()?;
        let Crowd(crowd) = self;
        crowd.orders.go.store(true, SeqCst);
        crowd.wait_until("does not come back", || crowd.events.load(SeqCst) >= args.connections as u64)?;
        others.finish()
    }
}

/// What load generator and server take from each other is more than what nobody feels.
const UNFELT_NS: f64 = 5e6;
/// The bound of a bucket of the server's.
const UNFELT_IN_SERVER_NS: f64 = 2.048e6;
/// The storm is over when all are back; this ends it at the latest.
const PATIENCE_S: f64 = 120.0;
