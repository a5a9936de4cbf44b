//! Storms: many clients drop and reconnect at once, from several processes, beside a live fan-out. The storm first hits another
//! server, which shows how much of its effect on the live fan-out comes from the shared machine.

use super::{BackgroundRun, Findings, ProofArgs, Subject, bystanders, histogram_growth};
use crate::format::{number, time};
use crate::measure::Tally;
use crate::plan::{Departure, Idle, Plan, Scenario};
use crate::procfs;
use crate::values;
use crate::workers::Results;
use clap::Args;
use std::collections::BTreeMap;

/// Options of `storm`.
#[derive(Args)]
pub struct StormArgs {
    /// Clients that drop and reconnect.
    #[arg(long, short = 'n', default_value_t = 15_000, value_parser = values::count())]
    pub connections: usize,
    /// Processes that share them.
    #[arg(long, default_value_t = 4)]
    pub processes: usize,
    /// Channels; each client is subscribed to one.
    #[arg(long, short = 'c', default_value_t = 100, value_parser = values::channels())]
    pub channels: u32,
    /// Subscribers of the live channel.
    #[arg(long, default_value_t = 100, value_parser = values::count())]
    pub listeners: usize,
    /// Publishes per second to the live channel.
    #[arg(long, short = 'r', default_value_t = 200.0, value_parser = values::rate)]
    pub rate: f64,
    /// Measured time before the storm, and again after it, in seconds.
    #[arg(long, short, default_value_t = 5.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Allowed slowdown. The proof fails if the p99 of live deliveries during the storm is more than this many times that before
    /// it (at least 5 ms), or the p99 inside the server, from publish to written, likewise (at least 2 ms).
    #[arg(long, default_value_t = 6.0, value_name = "TIMES", value_parser = values::factor)]
    pub slower_max: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures the live fan-out before, during and after the storm, and the storm itself.
pub fn storm(args: &StormArgs) -> anyhow::Result<bool> {
    Findings::report(&args.proof.report, "Clients drop and reconnect at once beside a live fan-out", |findings| {
        measure(args, findings)
    })
}

fn measure(args: &StormArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let options = ["--server-ping", "off"];
    let subject = Subject::start(&args.proof, &options, "", None)?;
    let live = |seconds| {
        let plan = subject.plan(bystanders(args.listeners, 1, args.rate, 20), seconds);
        // The server treats connections of the last second as newcomers; these must be older.
        Plan { first_channel: args.channels, warmup_ns: 1_500_000_000, ..plan }
    };
    let mut p99 = BTreeMap::new();
    let mut stats = subject.stats()?;
    let mut note = |situation: &'static str, results: &Results, findings: &mut Findings| {
        findings.check_faultless(situation, results);
        let now = subject.stats()?;
        let growth = |name| histogram_growth(name, &stats, &now);
        let (written, turn) = (growth("written"), growth("turn"));
        let latencies = &results.tally.latencies;
        p99.insert(
            situation,
            // Without samples NaN, which is within no bound.
            [latencies.get("last"), Some(&written)].map(|it| it.map_or(f64::NAN, |it| it.quantile(0.99) as f64)),
        );
        findings.latency(situation, "live", "publish → last subscriber", latencies.get("last"));
        findings.latency(situation, "ping", "ping → pong", latencies.get("ping"));
        findings.latency(situation, "written", "in the server: publish → written", Some(&written));
        findings.latency(situation, "turn", "in the server: a turn", Some(&turn));
        stats = now;
        anyhow::Ok(())
    };
    note("before", &subject.run("before", live(args.duration))?, findings)?;

    // What the clients of the storm cost the measurement and the server because they share the machine.
    let other = Subject::start(&args.proof, &options, "", None)?;
    let crowd = gather(args, &other)?;
    note("elsewhere", &drop_beside(&crowd, args, subject.spawn("elsewhere", live(PATIENCE_S))?)?, findings)?;
    crowd.finish()?;
    drop(other);

    let crowd = gather(args, &subject)?;
    let drops = procfs::listen_drops();
    note("during", &drop_beside(&crowd, args, subject.spawn("during", live(PATIENCE_S))?)?, findings)?;
    note("after", &subject.run("after", live(args.duration))?, findings)?;
    let drops = procfs::listen_drops() - drops;

    let results = crowd.finish()?;
    let accept_errors = stats.get("accept_errors").copied().unwrap_or_default();
    judge_slowdown(args, findings, p99["before"], p99["during"]);
    report_storm(args, findings, &results.tally, drops, accept_errors);
    Ok(())
}

/// Reports how the clients of the storm reconnected. All of them must have, and none may have been refused.
fn report_storm(args: &StormArgs, findings: &mut Findings, tally: &Tally, drops: u64, accept_errors: u64) {
    findings.latency("storm", "connect", "connect, greeting included", tally.latencies.get("connect"));
    findings.latency("storm", "back", "dropped → subscribed again", tally.latencies.get("back"));
    let recovery_ns = tally.latencies.get("all back").map_or(0, |latency| latency.max());
    findings.number("recovery", recovery_ns as f64);
    findings.number("refused", tally.refused as f64);
    findings.number("listen_drops", drops as f64);
    findings.lines.push(format!(
        "{} connections, {} processes: all reconnected after {}; {} refused or lost; {} dropped by the kernel's backlog; \
         {} accept errors",
        number(args.connections as f64),
        args.processes,
        time(recovery_ns as f64),
        tally.refused,
        drops,
        accept_errors,
    ));
    findings.check(tally.refused == 0, format!("{} connections were refused: {:?}", tally.refused, tally.notes));
    let wanted = args.connections as u64;
    findings.check(tally.events == wanted, format!("{} of {wanted} reconnected", tally.events));
    findings.check(drops == 0, format!("{drops} connection attempts found the backlog full"));
}

/// Compares the p99 of live deliveries, and of writes inside the server, with those before the storm.
fn judge_slowdown(args: &StormArgs, findings: &mut Findings, before: [f64; 2], during: [f64; 2]) {
    let [[live_before, written_before], [live, written]] = [before, during];
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
}

/// Starts the clients that drop and reconnect, and waits until all are connected.
fn gather(args: &StormArgs, subject: &Subject) -> anyhow::Result<BackgroundRun> {
    subject.check_interrupted()?;
    let (connections, channels) = (args.connections, args.channels);
    let idle = Idle { connections, channels, each: 1, departure: Some(Departure::Reconnect) };
    let plan = subject.plan(Scenario::Idle(idle), PATIENCE_S);
    let crowd = subject.spawn("", Plan { is_background: true, processes: args.processes, ..plan })?;
    crowd.wait_until_begun()?;
    Ok(crowd)
}

/// Lets the crowd drop and reconnect, and measures other connections at the same time.
fn drop_beside(crowd: &BackgroundRun, args: &StormArgs, others: BackgroundRun) -> anyhow::Result<Results> {
    others.wait_until_begun()?;
    crowd.go_until(args.connections, "does not reconnect")?;
    others.finish()
}

/// Below this the load generator and the server disturb each other more than the storm does.
const UNFELT_NS: f64 = 5e6;
/// The bound of a bucket of the server's histogram.
const UNFELT_IN_SERVER_NS: f64 = 2.048e6;
/// Time limit of the storm, which ends when all have reconnected.
const PATIENCE_S: f64 = 120.0;
