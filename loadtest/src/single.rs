//! One run as the command line describes it, with the server that it starts for it.

use crate::cli::Common;
use crate::plan::{Plan, Scenario};
use crate::progress::Bar;
use crate::server::{Server, Starter};
use crate::workers::{self, Controls, Results};

/// Starts the server if the command line says so, with these rules for channels, and runs the scenario. Returns the server,
/// too, if it has started one.
pub fn run(
    common: &Common,
    scenario: Scenario,
    rules: &str,
    title: &'static str,
    controls: &Controls,
) -> anyhow::Result<(Plan, Results, Option<Server>)> {
    let mut plan = common.plan(scenario)?;
    let mut pid = common.server_pid;
    let mut server = None;
    if common.start {
        let starter = Starter { rules: rules.into(), ..common.server.starter(&controls.stop) };
        let started = starter.start(&common.target, None, None)?;
        started.aim(&mut plan);
        pid = Some(started.pid());
        server = Some(started);
    }
    let bar = Bar::new(&plan, title, common.report.json);
    let results = workers::run(&plan, pid, controls, |moment| bar.show(moment))?;
    Ok((plan, results, server))
}
