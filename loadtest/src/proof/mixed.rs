//! Fairness: the effect of a flood of one large channel on the pings and small channels of other connections.

use super::{Findings, ProofArgs, Subject, bystanders};
use crate::format::{bytes, number};
use crate::plan::{Flood, Plan, Scenario};
use crate::values;
use clap::Args;

/// Options of `mixed`.
#[derive(Args)]
pub struct MixedArgs {
    /// Subscribers of the channel that is flooded.
    #[arg(long, short = 'n', default_value_t = 10_000, value_parser = values::count())]
    pub subscribers: usize,
    /// Publishes in flight in the first flood. The second is limited only by backpressure.
    #[arg(long, short = 'w', default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub window: u32,
    /// Other connections that send pings, each 50 per second.
    #[arg(long, default_value_t = 50, value_parser = values::count())]
    pub pingers: usize,
    /// Other connections, each subscribed to a small channel of its own.
    #[arg(long, default_value_t = 20, value_parser = values::count())]
    pub listeners: usize,
    /// Publishes per second to the small channels together.
    #[arg(long, short = 'r', default_value_t = 500.0, value_parser = values::rate)]
    pub rate: f64,
    /// Measured time of each of the three situations, in seconds.
    #[arg(long, short, default_value_t = 8.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures the other connections without a flood, beside a flood that waits for its deliveries, and beside one that does
/// not.
pub fn mixed(args: &MixedArgs) -> anyhow::Result<bool> {
    let title = format!(
        "Fairness: {} pingers and {} small channels beside a channel with {} subscribers, {}",
        args.pingers,
        args.listeners,
        args.subscribers,
        if args.proof.server.shards == 1 {
            "1 shard".to_owned()
        } else {
            format!("{} shards", args.proof.server.shards)
        }
    );
    Findings::report(&args.proof.report, &title, |findings| measure(args, findings))
}

fn measure(args: &MixedArgs, findings: &mut Findings) -> anyhow::Result<()> {
    for (situation, window) in [("calm", None), ("flood", Some(args.window)), ("flat out", Some(FLAT_OUT))] {
        let subject = Subject::start(&args.proof, &["--server-ping", "off"], "", None)?;
        let flooding = window.map(|window| {
            let flood = Flood { subscribers: args.subscribers, window, ..Flood::default() };
            let plan = subject.plan(Scenario::Flood(flood), PATIENCE_S);
            subject.spawn("", Plan { is_background: true, ..plan })
        });
        let flooding = flooding.transpose()?;
        if let Some(flooding) = &flooding {
            flooding.wait_until_begun()?;
        }
        let others = bystanders(args.listeners, args.listeners as u32, args.rate, args.pingers);
        let others = subject.plan(others, args.duration);
        let others = Plan { first_channel: 1, warmup_ns: 1_000_000_000, ..others };
        let before = subject.stats()?;
        let begun = std::time::Instant::now();
        let results = subject.run(situation, others)?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = subject.stats()?;
        findings.check_faultless(situation, &results);
        findings.latency(situation, "ping", "ping → pong", results.tally.latencies.get("ping"));
        findings.latency(situation, "small", "publish → receipt, small channel", results.tally.latencies.get("last"));
        if flooding.is_some() {
            let delta = |name: &str| (after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0)) as f64 / seconds;
            findings.number(&format!("{situation}.deliveries_per_s").replace(' ', "_"), delta("deliveries"));
            findings.lines.push(format!(
                "{situation}: {} deliveries/s, {} turns/s, memory {}",
                number(delta("deliveries")),
                number(delta("turns")),
                bytes(subject.usage().rss_bytes as f64)
            ));
        }
        let is_interrupted = subject.check_interrupted();
        // The server ends first, so that the flood does not drain.
        drop(subject);
        drop(flooding);
        is_interrupted?;
    }
    Ok(())
}

/// More publishes than any server accepts before it has delivered them.
const FLAT_OUT: u32 = 1 << 17;
/// Time limit of the flood, which ends with the measurement beside it.
const PATIENCE_S: f64 = 300.0;
