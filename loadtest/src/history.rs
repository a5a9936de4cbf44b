//! A fan-out to channels that keep messages, beside the same run without: round by round, because a shared machine drifts.

use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Context, ensure};

use crate::cli::FanoutArgs;
use crate::format::{bytes, number, time};
use crate::plan::Scenario;
use crate::proof::{Findings, Interrupted};
use crate::report::Report;
use crate::single;
use crate::workers::Controls;

/// Runs the fan-out without and with `kept` messages in the history of each channel. Returns whether nothing was lost and all
/// expectations are met.
pub fn fanout(args: &FanoutArgs, kept: u32) -> anyhow::Result<bool> {
    ensure!(
        args.common.target.starts_with("corecast"),
        "{} has no histories: --history needs corecast",
        args.common.target
    );
    let title = format!("Fan-out to channels that keep {kept} messages, beside channels without history");
    Findings::report(&args.common.report, &title, |findings| {
        let mut reports = Rounds::new();
        let outcome = measure(args, kept, findings, &mut reports);
        for (metric, title, text) in METRICS {
            let values: Vec<[Option<f64>; 2]> =
                reports.iter().map(|pair| pair.each_ref().map(|report| report.metrics.get(metric).copied())).collect();
            findings.comparison(SITUATIONS, metric, title, &values, text);
        }
        outcome
    })
}

/// The report without history and the one with it, of each complete round.
type Rounds = Vec<[Report; 2]>;

fn measure(args: &FanoutArgs, kept: u32, findings: &mut Findings, rounds: &mut Rounds) -> anyhow::Result<()> {
    let controls = Controls::default();
    crate::stop_on_signal(&controls.stop)?;
    let rules = format!("[[channel]]\nmatch = \"*\"\nhistory = {kept}\n");
    for round in 0..args.rounds {
        let mut run = |situation, rules| {
            let (plan, results, server) =
                single::run(&args.common, Scenario::Flood(args.flood()), rules, situation, &controls)?;
            ensure!(!results.interrupted, Interrupted);
            let report = Report::new(&plan, "fanout", &results);
            ensure!(report.total_loss.is_none(), "{situation}: {}", report.warnings.join("; "));
            findings.check_faultless(situation, &results);
            let stats = server.context("no server was started")?.stats()?;
            let kept = stats.get("history_bytes").copied().unwrap_or_default();
            findings.check((kept > 0) != rules.is_empty(), format!("{situation}: the channels keep {kept} bytes"));
            findings.number(&format!("{situation}.kept_bytes"), kept as f64);
            Ok(report)
        };
        // In alternating order, so that a drift of the machine favours neither.
        let pair = if round % 2 == 0 {
            [run(SITUATIONS[0], "")?, run(SITUATIONS[1], &rules)?]
        } else {
            let with = run(SITUATIONS[1], &rules)?;
            [run(SITUATIONS[0], "")?, with]
        };
        rounds.push(pair);
    }
    ensure!(!controls.stop.load(SeqCst), Interrupted);
    Ok(())
}

/// How a value is written.
type Text = fn(f64) -> String;

const SITUATIONS: [&str; 2] = ["plain", "history"];
/// What is compared. An event is a delivery; without subscribers it is a publish.
const METRICS: [(&str, &str, Text); 5] = [
    ("rate", "events / s", number),
    ("server_cpu_ns_per_event", "server: CPU time per event", time),
    ("last.p50", "publish → last subscriber, p50", time),
    ("last.p99", "publish → last subscriber, p99", time),
    ("server_rss_peak", "server: memory at its peak", bytes),
];
