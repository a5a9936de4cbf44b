//! Recovery: many subscribers of one channel are cut off at once and come back while messages are published. They come back
//! without a position, and then, to a new server, with the position of their last message. With it nothing may be missing.

use std::time::Instant;

use clap::Args;

use super::memory_limits::MemoryLimits;
use super::{Findings, ProofArgs, Subject};
use crate::format::{bytes, number, time};
use crate::plan::{Plan, Recover, Scenario};
use crate::values;
use crate::workers::Results;

/// Options of `recover`.
#[derive(Args)]
pub struct RecoverArgs {
    /// The clients and their load.
    #[command(flatten)]
    pub recover: Recover,
    /// Processes that share them.
    #[arg(long, default_value_t = 2)]
    pub processes: usize,
    /// Measured time before the cut, and again after all are back, in seconds.
    #[arg(long, short, default_value_t = 1.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Rounds; each is a return without and one with a position.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Measures both kinds of return, in rounds.
pub fn recover(args: &RecoverArgs) -> anyhow::Result<bool> {
    let title = format!(
        "{} subscribers of one channel are cut off and come back, {} publishes/s",
        number(args.recover.connections as f64),
        number(args.recover.rate)
    );
    Findings::report(&args.proof.report, &title, |findings| {
        let mut rounds: Vec<[Return; 2]> = Vec::new();
        let outcome = (1..=args.rounds).try_for_each(|round| measure_round(args, round, findings, &mut rounds));
        for (name, title, value, text) in FIGURES {
            let values: Vec<[Option<f64>; 2]> =
                rounds.iter().map(|round| round.each_ref().map(|it| Some(value(it)))).collect();
            findings.comparison(["plain", "since"], name, title, &values, text);
        }
        outcome
    })
}

/// A return: times until all clients were subscribed, and until all had what they missed, in nanoseconds.
struct Return {
    back_ns: f64,
    caught_up_ns: f64,
    rss_peak: f64,
}

fn measure_round(
    args: &RecoverArgs,
    round: u16,
    findings: &mut Findings,
    rounds: &mut Vec<[Return; 2]>,
) -> anyhow::Result<()> {
    let plain = measure_return(args, false, &format!("plain {round}"), findings)?;
    let since = measure_return(args, true, &format!("since {round}"), findings)?;
    rounds.push([plain, since]);
    Ok(())
}

fn measure_return(args: &RecoverArgs, since: bool, title: &str, findings: &mut Findings) -> anyhow::Result<Return> {
    // Connections that were cut off count until the server has noticed.
    let places = (2 * args.recover.connections + SPARE).to_string();
    // What is published from the cut until the last client is back must be kept.
    let kept = (args.recover.rate * (args.recover.away + KEPT_S)).clamp(1_000.0, 100_000.0) as u32;
    let rules = format!("[[channel]]\nmatch = \"*\"\nhistory = {kept}\nhistory-bytes = \"16MiB\"\n");
    let subject = Subject::start(&args.proof, &["--server-ping", "off", "--max-connections", &places], &rules, None)?;
    let limits = subject.memory_limits()?;
    let scenario = Scenario::Recover(Recover { since, ..args.recover.clone() });
    let plan = Plan { processes: args.processes, ..subject.plan(scenario, PATIENCE_S) };
    let clients = subject.spawn(if since { "since" } else { "plain" }, plan)?;
    let pause = |what| {
        let begun = Instant::now();
        clients.wait_until(what, || begun.elapsed().as_secs_f64() >= args.duration)
    };
    clients.wait_until_begun()?;
    pause("does not go on")?;
    clients.go_until(args.recover.connections, "is not back")?;
    pause("does not go on")?;
    let results = clients.finish()?;
    findings.check_faultless(title, &results);
    let stats = subject.stats()?;
    let recovered = if since { args.recover.connections as u64 } else { 0 };
    for (name, expected) in [("recoveries", recovered), ("recoveries_failed", 0)] {
        let count = stats.get(name).copied().unwrap_or_default();
        findings.check(count == expected, format!("{title}: the server counts {count} {name} instead of {expected}"));
    }
    Ok(report(args, since, title, &results, &limits, findings))
}

/// Reports a return. With positions, all clients must have recovered.
fn report(
    args: &RecoverArgs,
    since: bool,
    title: &str,
    results: &Results,
    limits: &MemoryLimits,
    findings: &mut Findings,
) -> Return {
    let tally = &results.tally;
    let latency = |name: &str| tally.latencies.get(name);
    findings.latency(title, "back", "return → subscribed", latency("back"));
    findings.latency(title, "caught_up", "return → everything missed", latency("caught up"));
    let count = |name: &str| tally.counts.get(name).copied().unwrap_or_default();
    let rss_peak = results.timeline.iter().map(|moment| moment.rss_bytes).max().unwrap_or_default();
    let bound = limits.clients + limits.kept;
    let recovered = count("recovered");
    let rate = f64::from(tally.published) / results.timeline.last().map_or(1.0, |moment| moment.seconds.max(1e-3));
    findings.number(&format!("{title}.publish_rate").replace(' ', "_"), rate);
    findings.lines.push(format!(
        "{title}: {} publishes/s; {} recovered, {} messages each; {} attempts failed; memory {} at its peak, at most {} by \
         --check-config",
        number(rate),
        number(recovered as f64),
        number(count("replayed") as f64 / args.recover.connections.max(1) as f64),
        count("attempts_failed"),
        bytes(rss_peak as f64),
        bytes(bound as f64)
    ));
    for (note, times) in &tally.notes {
        findings.lines.push(format!("{title}: {note} ({times} ×)"));
    }
    if since {
        let wanted = args.recover.connections as u64;
        findings.check(recovered == wanted, format!("{title}: {recovered} of {wanted} recovered"));
    }
    findings.number("memory.bound", bound as f64);
    findings.check(rss_peak <= bound, format!("{title}: the peak of {rss_peak} bytes is beyond the printed {bound}"));
    let all = |name: &str| latency(name).map_or(f64::NAN, |latency| latency.max() as f64);
    Return { back_ns: all("back"), caught_up_ns: all("caught up"), rss_peak: rss_peak as f64 }
}

/// How a value of a return is read and written.
type Figure = (&'static str, &'static str, fn(&Return) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 3] = [
    ("back", "all clients subscribed again", |it| it.back_ns, time),
    ("caught_up", "all clients have what they missed", |it| it.caught_up_ns, time),
    ("memory", "memory at its peak", |it| it.rss_peak, bytes),
];
/// Connections allowed beside the clients.
const SPARE: usize = 16;
/// Seconds of publishes that the channel keeps, beside those of the absence.
const KEPT_S: f64 = 10.0;
/// Time limit of a return; a run ends when all are back.
const PATIENCE_S: f64 = 120.0;
