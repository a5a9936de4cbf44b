//! Departures: many connections with many subscriptions each are reset at once. The pings of a few other connections show how
//! long that blocks a shard.

use super::{Findings, ProofArgs, Subject, histogram_growth};
use crate::format::number;
use crate::measure::Latency;
use crate::plan::{Departure, Flood, Idle, Plan, Scenario};
use crate::spread::spread;
use crate::values;
use clap::Args;
use std::time::{Duration, Instant};

/// Options of `depart`.
#[derive(Args)]
pub struct DepartArgs {
    /// Connections that are reset.
    #[arg(long, short = 'n', default_value_t = 4_000, value_parser = values::count())]
    pub connections: usize,
    /// Channels that each of them is subscribed to; 128 is the server's default limit.
    #[arg(long, short = 'm', default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub subscriptions: u32,
    /// Channels of all of them together, at least those of one connection.
    #[arg(long, short = 'c', default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(128..=100_000_000))]
    pub channels: u32,
    /// Processes that share them.
    #[arg(long, default_value_t = 2)]
    pub processes: usize,
    /// Other connections that send pings, each 100 per second.
    #[arg(long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub pingers: usize,
    /// Departures, one after the other.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Measured time before each departure, in seconds.
    #[arg(long, short, default_value_t = 1.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures the pings before and during each departure.
pub fn depart(args: &DepartArgs) -> anyhow::Result<bool> {
    let title = format!(
        "{} connections with {} subscriptions each are reset at once",
        number(args.connections as f64),
        args.subscriptions
    );
    Findings::report(&args.proof.report, &title, |findings| measure(args, findings))
}

fn measure(args: &DepartArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let subject = Subject::start(&args.proof, &["--server-ping", "off"], "", None)?;
    // The values of all rounds, by situation.
    let mut rounds: [Vec<Latency>; 2] = Default::default();
    let mut gone_s = Vec::new();
    let outcome = (1..=args.rounds)
        .try_for_each(|round| measure_round(args, &subject, round, findings, &mut rounds, &mut gone_s));
    for (situation, latencies) in ["quiet", "departure"].into_iter().zip(&rounds) {
        findings.latency_spread(situation, "ping", "ping → pong", latencies);
    }
    if let Some(gone) = spread(&gone_s) {
        findings.number("gone", gone.median * 1e9);
        findings.lines.push(format!(
            "the server had removed all of them after {:.2} s ({:.2}–{:.2})",
            gone.median, gone.min, gone.max
        ));
    }
    outcome
}

fn measure_round(
    args: &DepartArgs,
    subject: &Subject,
    round: u16,
    findings: &mut Findings,
    rounds: &mut [Vec<Latency>; 2],
    gone_s: &mut Vec<f64>,
) -> anyhow::Result<()> {
    subject.check_interrupted()?;
    let DepartArgs { connections, subscriptions: each, channels, .. } = *args;
    let idle = Idle { connections, channels, each, departure: Some(Departure::Reset) };
    let crowd = subject.plan(Scenario::Idle(idle), PATIENCE_S);
    let crowd = subject.spawn("", Plan { is_background: true, processes: args.processes, ..crowd })?;
    crowd.wait_until_begun()?;

    let beside = |seconds| {
        let plan = subject.plan(bystanders(args), seconds);
        Plan { first_channel: channels, warmup_ns: 200_000_000, ..plan }
    };
    let quiet = subject.run("quiet", beside(args.duration))?;
    let before = subject.stats()?;
    let others = subject.spawn("departure", beside(PATIENCE_S))?;
    others.wait_until_begun()?;
    crowd.go();
    let begun = Instant::now();
    let mut after = subject.stats()?;
    while after["subscriptions"] > LISTENERS as u64 || after["connections"] > (LISTENERS + args.pingers) as u64 {
        subject.check_interrupted()?;
        anyhow::ensure!(begun.elapsed().as_secs_f64() < PATIENCE_S, "connections that were reset are still counted");
        std::thread::sleep(Duration::from_millis(20));
        after = subject.stats()?;
    }
    gone_s.push(begun.elapsed().as_secs_f64());
    let departure = others.finish()?;
    crowd.finish()?;
    for ((situation, results), values) in [("quiet", quiet), ("departure", departure)].into_iter().zip(rounds) {
        let title = format!("{situation} {round}");
        findings.check_faultless(&title, &results);
        let ping = results.tally.latencies.get("ping");
        findings.latency(&title, "ping", "ping → pong", ping);
        values.extend(ping.cloned());
    }
    let turn = histogram_growth("turn", &before, &after);
    findings.latency(&format!("departure {round}"), "turn", "in the server: a turn", Some(&turn));
    Ok(())
}

/// Connections that send pings, and one subscriber, because a flood needs one.
fn bystanders(args: &DepartArgs) -> Scenario {
    Scenario::Flood(Flood {
        subscribers: LISTENERS,
        rate: Some(10.0),
        pingers: args.pingers,
        ping_every_ns: 10_000_000,
        ..Flood::default()
    })
}

const LISTENERS: usize = 1;
/// Time limit of a step.
const PATIENCE_S: f64 = 60.0;
