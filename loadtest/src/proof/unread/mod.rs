//! Replies that are not read: many clients send small requests and read nothing. The server must stop reading from them, so that
//! their replies do not fill its memory. When they read, every reply must arrive.

mod client;
mod flood;
mod judgement;

use anyhow::ensure;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use self::flood::{Flood, SETTLED, connect, flood};
use super::memory_peak::{Memory, Release};
use super::{Findings, ProofArgs, Subject, bystanders};
use crate::format::number;
use crate::measure::Latency;
use crate::plan::{Plan, connections_per_process};

/// Options of `unread`.
#[derive(Args)]
pub struct UnreadArgs {
    /// Connections that send requests and read no reply.
    #[arg(long, short = 'n', default_value_t = 1_500, value_parser = count(1, 100_000))]
    pub connections: usize,
    /// Bytes of requests that each of them sends in the first case. In the second it sends what the kernel takes.
    #[arg(long, default_value_t = 52_000, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(6..=1 << 30))]
    pub requests: u64,
    /// Time in which they send in the second case, and of the pings alone, in seconds. The server closes connections that read
    /// nothing for 55 s.
    #[arg(long, short, default_value_t = 5.0, value_name = "SECONDS", value_parser = duration)]
    pub duration: f64,
    /// How many of them read at the end, at most all; the others stay as they are.
    #[arg(long, default_value_t = 50, value_name = "CONNECTIONS", value_parser = count(1, 10_000))]
    pub resumed: usize,
    /// Other connections that send pings, each 50 per second.
    #[arg(long, default_value_t = 20, value_parser = count(1, 10_000))]
    pub pingers: usize,
    /// Rounds of both cases, each with a new server.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

fn count(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

fn duration(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.1..=20.0).contains(&seconds) { Ok(seconds) } else { Err(format!("{text} is not from 0.1 to 20")) }
}

/// Measures both cases, in rounds.
pub fn unread(args: &UnreadArgs) -> anyhow::Result<bool> {
    let title = format!("{} connections send requests and read no reply", number(args.connections as f64));
    Findings::report(&args.proof.report, &title, |findings| {
        let most = connections_per_process().saturating_sub(args.pingers + SPARE);
        ensure!(args.connections <= most, "{} connections: the limit is {most} (ulimit -Hn)", args.connections);
        let mut cases =
            [("limited", Some(args.requests)), ("unlimited", None)].map(|(name, limit)| (name, limit, Vec::new()));
        let outcome = (1..=args.rounds).try_for_each(|round| {
            cases.iter_mut().try_for_each(|(name, limit, outcomes)| {
                outcomes.push(measure(args, name, *limit, round, findings)?);
                Ok(())
            })
        });
        cases.iter().for_each(|(name, _, outcomes)| judgement::summarize(name, outcomes, findings));
        outcome
    })
}

/// What a case found in a round.
struct Outcome {
    before: Memory,
    peak: Memory,
    release: Release,
    flood: Flood,
    connections: usize,
    /// Pings alone, and beside the clients.
    pings: [Option<Latency>; 2],
}

fn measure(
    args: &UnreadArgs,
    case: &'static str,
    limit: Option<u64>,
    round: u16,
    findings: &mut Findings,
) -> anyhow::Result<Outcome> {
    let places = (args.connections + args.pingers + SPARE).to_string();
    let subject = Subject::start(&args.proof, &["--server-ping", "off", "--max-connections", &places], "", None)?;
    let warmup_ns = SETTLED.as_nanos() as u64;
    let plan = |seconds| Plan { warmup_ns, ..subject.plan(bystanders(1, 1, 10.0, args.pingers), seconds) };
    let alone = subject.run(case, plan(args.duration))?;
    // A first few, so that memory that is allocated once is not counted.
    drop(connect(&subject, SPARE / 2)?);
    let before = subject.memory();
    let others = subject.spawn(case, plan(BESIDE_S))?;
    others.wait_until_begun()?;
    let ((clients, flood), peak) = subject.peak_during(|| flood(args, &subject, limit))?;
    let beside = others.finish()?;
    drop(clients);
    let release = subject.wait_until_released(before, peak);

    let mut pings = [None, None];
    for ((situation, results), ping) in [("alone", alone), ("beside", beside)].into_iter().zip(&mut pings) {
        let title = format!("{case} {situation} {round}");
        findings.check_faultless(&title, &results);
        *ping = results.tally.latencies.get("ping").cloned();
        findings.latency(&title, "ping", "ping → pong", ping.as_ref());
    }
    let outcome = Outcome { before, peak, release, flood, connections: args.connections, pings };
    judgement::check(args, &format!("{case} {round}"), &subject, &outcome, findings)?;
    Ok(outcome)
}

/// Time limit of the pings beside the clients. They end with the clients.
const BESIDE_S: f64 = 600.0;
/// Connections allowed beside these: the subscriber, those of the warm-up, and those that have just ended.
const SPARE: usize = 64;
