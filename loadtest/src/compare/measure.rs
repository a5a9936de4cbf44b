//! One measurement of a comparison: a row with a freshly started server.

use anyhow::{bail, ensure};

use super::CompareArgs;
use super::rows::Row;
use crate::plan::{Plan, Scenario, nanoseconds, processes_for};
use crate::report::Report;
use crate::server::Starter;
use crate::target::{Publish, Target};
use crate::workers::Controls;
use crate::{affinity, workers};

/// Measures `row` with the server `name`, started by `starter`.
pub fn measure(
    args: &CompareArgs,
    starter: &Starter,
    row: &Row,
    name: &str,
    controls: &Controls,
) -> anyhow::Result<Report> {
    let Some(target) = Target::named(name) else { bail!("no server is called {name}") };
    let is_unanswered = matches!(target.publish, Publish::WebSocket { .. });
    match &row.scenario {
        Scenario::Ping(_) => ensure!(target.dialect.ping.is_some(), "answers no pings"),
        Scenario::Flood(flood) if flood.subscribers == 0 => ensure!(!is_unanswered, "does not answer publishes"),
        _ => {}
    }
    let mut starter = starter.clone();
    if row.is_spread {
        starter.core = None;
        affinity::unpin_this_thread();
    } else {
        // This thread only watches; it must not use the server's core.
        affinity::pin_this_thread(args.client_core);
    }
    let server = starter.start(name, None, None)?;
    // Idle connections keep themselves alive.
    let heartbeat_ns = if matches!(row.scenario, Scenario::Idle(_)) { HEARTBEAT_NS } else { 0 };
    let mut plan = Plan {
        warmup_ns: 500_000_000,
        heartbeat_ns,
        client_core: (!row.is_spread).then_some(args.client_core),
        ..Plan::new(target, server.address, row.scenario.clone(), nanoseconds(args.seconds.max(row.seconds_min)))
    };
    plan.processes = processes_for(plan.connections());
    server.aim(&mut plan);
    let results = workers::run(&plan, Some(server.pid()), controls, |_| {})?;
    let report = Report::new(&plan, row.key, &results);
    let is_unconnected = plan.connections() > 0 && report.metric("connected") == 0.0;
    ensure!(!is_unconnected, "{}", report.warnings.join("; "));
    Ok(report)
}

/// As in the scenario `idle`: less than the 30 s that the server announces to its clients.
const HEARTBEAT_NS: u64 = 25_000_000_000;
