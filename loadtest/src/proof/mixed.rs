//! Fairness: what a flood of one large channel does to the pings and the small channels of others.

use super::{Cast, Findings, ProofArgs, Stage, bystanders};
use crate::format::{bytes, number};
use crate::plan::{Flood, Scenario};
use clap::Args;

/// Options of `mixed`.
#[derive(Args)]
pub struct MixedArgs {
    /// Subscribers of the channel that is flooded.
    #[arg(long, short = 'n', default_value_t = 10_000)]
    pub subscribers: usize,
    /// Publishes outstanding in the first flood; the second one is as fast as the server takes it.
    #[arg(long, short = 'w', default_value_t = 16)]
    pub window: u32,
    /// Others that ping, each 50 times a second.
    #[arg(long, default_value_t = 50)]
    pub pingers: usize,
    /// Others that listen to a small channel of their own.
    #[arg(long, default_value_t = 20)]
    pub listeners: usize,
    /// Publishes to the small channels, a second.
    #[arg(long, short = 'r', default_value_t = 500.0)]
    pub rate: f64,
    /// Seconds of each of the three situations.
    #[arg(long, short, default_value_t = 8.0, value_name = "SECONDS")]
    pub duration: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures the others without a flood, beside a flood that waits for its deliveries, and beside one that does not.
pub fn mixed(args: &MixedArgs) -> anyhow::Result<bool> {
    let mut findings = Findings::default();
    let played = play(args, &mut findings);
    let title = format!(
        "Fairness: {} pingers and {} small channels beside a channel with {} subscribers, {}",
        args.pingers,
        args.listeners,
        args.subscribers,
        if args.proof.shards == 1 { "1 shard".to_owned() } else { format!("{} shards", args.proof.shards) }
    );
    findings.conclude(played, &args.proof, &title)
}

fn play(args: &MixedArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let flood = |window| {
        Scenario::Flood(Flood {
            subscribers: args.subscribers,
            channels: 1,
            channels_each: 1,
            window,
            rate: None,
            size: 128,
            pingers: 0,
            ping_every_ns: 0,
        })
    };
    for (situation, window) in [("calm", None), ("flood", Some(args.window)), ("flat out", Some(FLAT_OUT))] {
        let stage = Stage::start(&args.proof, &["--server-ping", "off"], None)?;
        let background =
            Cast { title: "", first_channel: 0, is_background: true, processes: 1, warmup_s: 0.0, seconds: PATIENCE_S };
        let trouble = window.map(|window| stage.spawn(flood(window), background)).transpose()?;
        if let Some(trouble) = &trouble {
            trouble.wait_until_begun()?;
        }
        let others = bystanders(args.listeners, args.listeners as u32, args.rate, args.pingers);
        let cast = Cast {
            title: situation,
            first_channel: 1,
            is_background: false,
            processes: 1,
            warmup_s: 1.0,
            seconds: args.duration,
        };
        let before = stage.stats()?;
        let begun = std::time::Instant::now();
        let harvest = stage.run(others, cast)?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = stage.stats()?;
        findings.check_faultless(situation, &harvest);
        findings.latency(situation, "ping", "ping → pong", harvest.tally.latencies.get("ping"));
        findings.latency(situation, "small", "publish → receipt, small channel", harvest.tally.latencies.get("last"));
        if trouble.is_some() {
            let delta = |name: &str| (after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0)) as f64 / seconds;
            findings.number(&format!("{situation}.deliveries_per_s").replace(' ', "_"), delta("deliveries"));
            findings.lines.push(format!(
                "{situation}: {} deliveries/s meanwhile, {} turns/s, memory {}",
                number(delta("deliveries")),
                number(delta("turns")),
                bytes(stage.usage().rss_bytes as f64)
            ));
        }
        let is_interrupted = stage.check_interrupted();
        // The server first: without it the flood has nothing to wait for.
        drop(stage);
        drop(trouble);
        is_interrupted?;
    }
    Ok(())
}

/// More than any server takes before it has delivered.
const FLAT_OUT: u32 = 1 << 17;
/// The flood lasts as long as it is measured beside; this ends it at the latest.
const PATIENCE_S: f64 = 300.0;
