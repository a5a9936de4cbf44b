//! The load generator of corecast.
//!
//! ```text
//! cli ──► plan ──► workers ──► worker (thread) ──► scenario ──► engine (one epoll loop) ──► server
//!                     │          × threads          flood, ping,   publisher ──────────────┘
//!                     │          × processes        idle, connect, churn …
//!                     └──► tally, server's usage ──► report (table, JSON) ──► html
//! history ──► pairs of such runs ──► findings
//! proof ──► server + several runs beside each other ──► findings (table, JSON) ──► html
//! compare ──► server (starts corecast or a peer on a core) + one run, round after round ──► ratios
//! ```

mod affinity;
mod chart;
mod cli;
mod clock;
mod compare;
#[cfg(test)]
mod end_to_end;
mod engine;
mod expect;
mod floor;
mod format;
mod history;
mod html;
mod machine;
mod measure;
mod members;
mod plan;
mod procfs;
mod progress;
mod proof;
mod publisher;
mod report;
mod rest;
mod ring;
mod scenario;
mod server;
mod single;
mod spread;
mod stamp;
mod stream;
mod svg;
mod syscalls;
mod target;
mod template;
mod track;
mod values;
mod wire;
mod worker;
mod workers;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Parser;

use crate::cli::{Cli, Command, Common, PeerArgs};
use crate::plan::Scenario;
use crate::report::Report;
use crate::server::Starter;
use crate::workers::Controls;

fn main() -> ExitCode {
    affinity::cores();
    raise_descriptor_limit();
    match command(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Raises the limit of open files as far as it goes, for this program and for the servers that it starts.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If that fails, the limit stays what it was.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs a command. Returns whether all expectations were met and not everything was lost.
fn command(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Fanout(args) => match args.history {
            Some(kept) => history::fanout(&args, kept),
            None => run(&args.common, "fanout", Scenario::Flood(args.flood())),
        },
        Command::Ping(args) => run(&args.common, "ping", Scenario::Ping(args.load)),
        Command::Idle(args) => run(&args.common, "idle", Scenario::Idle(args.load)),
        Command::Connect(args) => run(&args.common, "connect", Scenario::Connect(args.load)),
        Command::Churn(args) => run(&args.common, "churn", Scenario::Churn(args.load)),
        Command::Mixed(args) => proof::mixed::mixed(&args),
        Command::Slow(args) => proof::slow::slow(&args),
        Command::Unread(args) => proof::unread::unread(&args),
        Command::Storm(args) => proof::storm::storm(&args),
        Command::Depart(args) => proof::depart::depart(&args),
        Command::Presence(args) => proof::presence::presence(&args),
        Command::Recover(args) => proof::recover::recover(&args),
        Command::Conflate(args) => proof::conflate::conflate(&args),
        Command::Soak(args) => proof::soak::soak(&args),
        Command::Peer(args) => peer(&args).map(|()| true),
        Command::Compare(args) => compare::compare(&args),
        Command::Worker => workers::child().map(|()| true),
    }
}

fn run(common: &Common, name: &'static str, scenario: Scenario) -> anyhow::Result<bool> {
    common.report.check()?;
    let controls = Controls::default();
    stop_on_signal(&controls.stop)?;
    let (plan, results, server) = single::run(common, scenario, "", "", &controls)?;
    drop(server);

    let report = Report::new(&plan, name, &results);
    if let Some(path) = &common.report.report {
        report::write(path, &report.page(&plan))?;
    }
    if common.report.json {
        report::print(serde_json::to_string_pretty(&report)?)?;
        report.warnings.iter().for_each(|warning| eprintln!("! {warning}"));
    } else {
        report::print(report.table().trim_end())?;
    }
    let is_met = expect::all_met(&common.report.expect, &report.metrics);
    let is_complete = report.metric("failed_workers") == 0.0;
    Ok(is_met && is_complete && report.total_loss.is_none())
}

/// Makes Ctrl-C set `stop`, which ends the run with a report. A second Ctrl-C ends the program at once.
fn stop_on_signal(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

fn peer(args: &PeerArgs) -> anyhow::Result<()> {
    if args.name.starts_with("floor") {
        if let Some(core) = args.core {
            affinity::pin_this_thread(core);
        }
        return floor::serve(args.listen, args.admin_socket.as_deref(), args.name == "floor-per-message");
    }
    let stop: Arc<AtomicBool> = Arc::default();
    stop_on_signal(&stop)?;
    let starter =
        Starter { core: args.core, shards: 1, is_foreground: true, stop: Arc::clone(&stop), ..Starter::default() };
    let mut server = starter.start(&args.name, Some(args.listen), args.admin_socket.as_deref())?;
    eprintln!("{} listening on {}, process {}", args.name, server.address, server.pid());
    if let Some(address) = server.publish_to {
        eprintln!("publish to {address}");
    }
    server.wait(|| stop.load(Relaxed))?;
    Ok(())
}
