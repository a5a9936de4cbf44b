//! Presence: users of presence channels leave and come back all the time. At rest every user's view of its channel must be
//! what the server lists.

use clap::Args;

use super::{Findings, ProofArgs, Subject};
use crate::format::{number, percent};
use crate::plan::{Plan, Presence, Scenario};
use crate::target::KEY_PAIR;
use crate::values;
use crate::workers::Results;

/// Options of `presence`.
#[derive(Args)]
pub struct PresenceArgs {
    /// The users and their load.
    #[command(flatten)]
    pub presence: Presence,
    /// Processes that share them.
    #[arg(long, default_value_t = 1)]
    pub processes: usize,
    /// Measured time, in seconds.
    #[arg(long, short, default_value_t = 60.0, value_name = "SECONDS", value_parser = values::seconds)]
    pub duration: f64,
    /// Options of every proof.
    #[command(flatten)]
    pub proof: ProofArgs,
}

/// Lets users come and go, and compares their views at rest.
pub fn presence(args: &PresenceArgs) -> anyhow::Result<bool> {
    let title = format!(
        "{} users in presence channels of {}, {} joins and leaves a second",
        number(args.presence.users as f64),
        args.presence.each,
        number(args.presence.rate)
    );
    Findings::report(&args.proof.report, &title, |findings| measure(args, findings))
}

fn measure(args: &PresenceArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let (key, secret) = KEY_PAIR;
    let options = [
        ("--max-connections", (args.presence.users + SPARE).to_string()),
        ("--presence-members", args.presence.each.to_string()),
        ("--presence-grace", args.presence.grace.to_string()),
        ("--key", format!("{key}:{secret}")),
    ];
    let options: Vec<&str> = options.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
    let subject = Subject::start(&args.proof, &options, "", None)?;
    let plan = subject.plan(Scenario::Presence(args.presence.clone()), args.duration);
    let plan = Plan { processes: args.processes, warmup_ns: 1_000_000_000, ..plan };
    let results = subject.run("presence", plan)?;
    findings.check_faultless("presence", &results);
    report(args, &results, findings);
    subject.check_interrupted()
}

fn report(args: &PresenceArgs, results: &Results, findings: &mut Findings) {
    let tally = &results.tally;
    findings.latency("presence", "joined", "subscribe → subscribed", tally.latencies.get("joined"));
    findings.latency("presence", "added", "subscribe → member_added elsewhere", tally.latencies.get("added"));
    let count = |name: &str| tally.counts.get(name).copied().unwrap_or_default();
    let [joins, departures, right, wrong] = ["joins", "departures", "views_right", "views_wrong"].map(count);
    for (name, count) in [("joins", joins), ("departures", departures), ("views_right", right), ("views_wrong", wrong)]
    {
        findings.number(name, count as f64);
    }
    let [_, begin, end] = results.server.unwrap_or_default();
    let busy = end.cpu_ns.saturating_sub(begin.cpu_ns) as f64 / results.server_window_ns.max(1) as f64;
    findings.number("server_busy", busy);
    findings.lines.push(format!(
        "{} joins and {} departures; at rest {} views as the server lists the members, {wrong} not; the server used {} of a core",
        number(joins as f64),
        number(departures as f64),
        number(right as f64),
        percent(busy)
    ));
    let notes: Vec<&str> = tally.notes.keys().map(String::as_str).collect();
    findings.check(wrong == 0, format!("{wrong} views are wrong, {right} are right: {}", notes.join("; ")));
    if !results.interrupted {
        findings.check(right > 0, "no view was compared");
        findings.check(args.presence.rate == 0.0 || joins > 0, "no user came back");
    }
}

/// Connections allowed beside the users.
const SPARE: usize = 16;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_run_without_a_comparison_fails_unless_it_was_interrupted() {
        let Command::Presence(args) = Cli::parse_from(["loadtest", "presence"]).command else { panic!() };
        for (interrupted, violations) in [(false, 2), (true, 0)] {
            let mut findings = Findings::default();
            report(&args, &Results { interrupted, ..Results::default() }, &mut findings);
            assert_eq!(findings.violations.len(), violations, "{:?}", findings.violations);
        }
    }
}
