//! Corecast beside its peers, in random order in each round.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::ensure;

use super::measure::measure;
use super::result::{Comparison, RowResult};
use super::table::{chart, table};
use super::{CompareArgs, chosen, progress_bar};
use crate::machine;
use crate::report::print;
use crate::server::Starter;
use crate::target::NAMES;
use crate::workers::Controls;

/// Compares, prints the table, and writes the files.
pub fn peers(args: &CompareArgs) -> anyhow::Result<()> {
    let mut names = vec![args.subject.clone()];
    names.extend(args.peers.iter().filter(|peer| **peer != args.subject).cloned());
    for name in &names {
        ensure!(NAMES.contains(&name.as_str()), "no server is called {name}; there are {}", NAMES.join(", "));
    }
    let rows = chosen(args, |row| row.variant.is_none());
    if let Some(row) = rows.iter().find(|row| row.variant.is_some()) {
        let variant = row.variant.unwrap_or_default();
        anyhow::bail!("the row {} is for --against; here, use --subject {variant} with another row", row.key);
    }
    let controls = Controls::default();
    let stop = Arc::clone(&controls.stop);
    crate::stop_on_signal(&stop)?;
    let starter = Starter {
        core: Some(args.server_core),
        shards: 1,
        corecast: args.server_bin.clone(),
        stop: Arc::clone(&stop),
        ..Starter::default()
    };
    if names.iter().any(|name| name.starts_with("corecast")) {
        starter.corecast()?;
    }

    let mut results: Vec<RowResult> = rows.iter().map(|row| RowResult::new(row, &names)).collect();
    let bar = progress_bar(usize::from(args.rounds) * rows.len() * names.len());
    let mut rounds = 0;
    'rounds: for round in 0..usize::from(args.rounds) {
        rounds = round + 1;
        for (row, result) in rows.iter().zip(&mut results) {
            let mut order: Vec<usize> = (0..names.len()).collect();
            fastrand::shuffle(&mut order);
            for at in order {
                bar.set_message(format!("round {rounds}: {} · {}", row.key, names[at]));
                let measured = measure(args, &starter, row, &names[at], &controls);
                if stop.load(Relaxed) {
                    break 'rounds;
                }
                result.servers[at].take(row, round, measured);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    results.iter_mut().for_each(RowResult::summarize);
    let comparison = Comparison {
        machine: machine::description(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        subject: args.subject.clone(),
        rounds,
        rows: results,
    };
    print(table(&comparison).trim_end())?;
    if stop.load(Relaxed) {
        print(format!("interrupted in round {rounds}: these are the results so far"))?;
    }
    write_files(args, &comparison)
}

fn write_files(args: &CompareArgs, comparison: &Comparison) -> anyhow::Result<()> {
    let (Some(json_out), Some(chart_out)) = (args.json_out(), args.chart_out()) else { return Ok(()) };
    std::fs::write(&json_out, serde_json::to_string_pretty(comparison)?)?;
    std::fs::write(&chart_out, chart(comparison))?;
    print(format!("numbers in {}, chart in {}", json_out.display(), chart_out.display()))
}
