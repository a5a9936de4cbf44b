//! Two corecast binaries side by side. The old one runs twice in each round: its second run against its first is the
//! control, which shows how far two runs of the same program differ on this machine at this time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::ensure;
use serde::Serialize;

use super::measure::measure;
use super::rows::{GATED, Row};
use super::{CompareArgs, chosen, progress_bar};
use crate::format::{number, table as grid};
use crate::machine;
use crate::report::print;
use crate::server::Starter;
use crate::spread::{Spread, ratios, spread};
use crate::workers::Controls;

/// Compares the binary under test with `old`. Rows that fail are measured a second time. Returns whether no row failed in
/// both runs.
pub fn against(args: &CompareArgs, old: &Path) -> anyhow::Result<bool> {
    let rows = chosen(args, |row| GATED.contains(&row.key));
    let new = Starter { corecast: args.server_bin.clone(), ..Starter::default() }.corecast()?;
    ensure!(old.is_file(), "the binary to compare with, {}, does not exist", old.display());
    let binaries = [new, old.to_path_buf(), old.to_path_buf()];
    let controls = Controls::default();
    crate::stop_on_signal(&controls.stop)?;

    print(format!("{}\nnew {}, old {}", machine::description(), binaries[0].display(), old.display()))?;
    let mut runs = Vec::new();
    let mut left: Vec<&Row> = rows.iter().collect();
    for title in ["First run", "Second run, of the rows that failed"] {
        if left.is_empty() {
            break;
        }
        let results = run(args, &left, &binaries, &controls);
        let is_interrupted = controls.stop.load(Relaxed);
        print(format!("\n{title}: median (least–most) of {} rounds\n{}", args.rounds, table(&results).trim_end()))?;
        left = left.into_iter().zip(&results).filter(|(_, result)| result.has_failed()).map(|(row, _)| row).collect();
        runs.push(results);
        if is_interrupted {
            print("interrupted: these are the results so far, and no row is judged")?;
            return write(args, &runs).map(|()| false);
        }
    }
    write(args, &runs)?;
    for row in &left {
        eprintln!("✗ {}: slower than the old binary in two runs", row.key);
    }
    Ok(left.is_empty())
}

/// The results of one row.
#[derive(Serialize)]
struct Measured {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    is_less_better: bool,
    /// The values of new, old, and old again in each round.
    values: [Vec<Option<f64>>; 3],
    /// Reasons for missing values, and warnings.
    trouble: Vec<String>,
}

fn run(args: &CompareArgs, rows: &[&Row], binaries: &[PathBuf; 3], controls: &Controls) -> Vec<Measured> {
    let mut results: Vec<Measured> = rows.iter().map(|row| Measured::new(row)).collect();
    let bar = progress_bar(usize::from(args.rounds) * rows.len() * binaries.len());
    let stop = Arc::clone(&controls.stop);
    'rounds: for round in 0..usize::from(args.rounds) {
        for (row, result) in rows.iter().zip(&mut results) {
            for at in ORDERS[round % ORDERS.len()] {
                bar.set_message(format!("round {}: {} · {}", round + 1, row.key, NAMES[at]));
                let starter = Starter {
                    core: Some(args.server_core),
                    shards: 1,
                    corecast: Some(binaries[at].clone()),
                    stop: Arc::clone(&stop),
                    ..Starter::default()
                };
                let measured = measure(args, &starter, row, row.variant.unwrap_or("corecast"), controls);
                if stop.load(Relaxed) {
                    break 'rounds;
                }
                let value = match measured {
                    Ok(report) => {
                        for warning in &report.warnings {
                            result.note(at, warning);
                        }
                        Some(report.metric(row.metric)).filter(|value| *value > 0.0)
                    }
                    Err(error) => {
                        result.note(at, &format!("{error:#}"));
                        None
                    }
                };
                result.values[at].resize(round, None);
                result.values[at].push(value);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    results
}

impl Measured {
    fn new(row: &Row) -> Measured {
        Measured {
            key: row.key,
            title: row.title,
            unit: row.unit,
            is_less_better: row.is_less_better,
            values: Default::default(),
            trouble: Vec::new(),
        }
    }

    /// The numbers in warnings differ from round to round: a few are enough.
    fn note(&mut self, at: usize, text: &str) {
        let text = format!("{}: {text}", NAMES[at]);
        if self.trouble.len() < 4 && !self.trouble.contains(&text) {
            self.trouble.push(text);
        }
    }

    /// How many times as fast as the old binary a contestant is, round by round.
    fn speed(&self, at: usize) -> Option<Spread> {
        let (own, old) = (&self.values[at], &self.values[OLD]);
        if self.is_less_better { ratios(old, own) } else { ratios(own, old) }
    }

    fn has_failed(&self) -> bool {
        match (self.speed(NEW), self.speed(OLD_AGAIN)) {
            (Some(new), Some(control)) => new.median < TOLERATED * control.median,
            // Without a value of the old binary there is nothing to judge by.
            _ => self.values[NEW].iter().all(Option::is_none) && self.values[OLD].iter().any(Option::is_some),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.has_failed(), self.speed(NEW), self.speed(OLD_AGAIN)) {
            (true, ..) => "SLOWER",
            (_, Some(_), Some(_)) => "ok",
            _ => "not judged",
        }
    }
}

fn table(results: &[Measured]) -> String {
    let row = |result: &Measured| {
        let value = |at: usize| {
            let values: Vec<f64> = result.values[at].iter().flatten().copied().collect();
            cell(spread(&values), number)
        };
        let unit = if result.is_less_better { format!("{} (less is better)", result.unit) } else { result.unit.into() };
        let speed = |at| cell(result.speed(at), |ratio| format!("{ratio:.3}"));
        vec![
            format!("{}: {}", result.key, result.title),
            unit,
            value(NEW),
            value(OLD),
            value(OLD_AGAIN),
            speed(NEW),
            speed(OLD_AGAIN),
            result.verdict().into(),
        ]
    };
    let head = ["", "unit", "new", "old", "old again", "new : old", "old again : old", ""].map(str::to_owned);
    let rows = results.iter().map(row).collect();
    let mut out = format!(
        "{}\nThe ratios are speeds within a round, above 1 is faster. A row fails below {TOLERATED} of the control, old again : old.\n",
        grid(head.to_vec(), rows, 2)
    );
    if let [Some(rest), Some(admin)] =
        ["rest16", "w16"].map(|key| results.iter().find(|result| result.key == key).map(|result| &result.values[NEW]))
    {
        let ratio = cell(ratios(rest, admin), |ratio| format!("{ratio:.2}"));
        out.push_str(&format!("rest16 ÷ w16, new: signed REST reaches {ratio} of the admin socket\n"));
    }
    for result in results {
        result.trouble.iter().for_each(|text| out.push_str(&format!("  {} · {text}\n", result.key)));
    }
    out
}

fn cell(spread: Option<Spread>, text: impl Fn(f64) -> String) -> String {
    spread.map_or("–".into(), |it| format!("{} ({}–{})", text(it.median), text(it.min), text(it.max)))
}

fn write(args: &CompareArgs, runs: &[Vec<Measured>]) -> anyhow::Result<()> {
    if let Some(path) = args.json_out() {
        std::fs::write(path, serde_json::to_string_pretty(runs)?)?;
    }
    Ok(())
}

const NAMES: [&str; 3] = ["new", "old", "old again"];
const NEW: usize = 0;
const OLD: usize = 1;
const OLD_AGAIN: usize = 2;
/// Every contestant comes first, second and last equally often, and each order is followed by its reverse.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];
/// The share of the control's speed that a row must reach.
const TOLERATED: f64 = 0.98;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::rows::rows;

    fn check(new: &[f64], old: &[f64], again: &[f64], is_less_better: bool, verdict: &str) {
        let values = [new, old, again].map(|values| values.iter().map(|&value| Some(value)).collect());
        let result = Measured { values, is_less_better, ..Measured::new(&rows()[0]) };
        assert_eq!(result.verdict(), verdict, "{new:?} {old:?} {again:?}");
    }

    #[test]
    fn a_row_is_judged_by_the_control_of_the_same_run() {
        check(&[100.0, 100.0, 100.0], &[100.0, 100.0, 100.0], &[100.0, 100.0, 100.0], false, "ok");
        check(&[97.0, 97.0, 97.0], &[100.0, 100.0, 100.0], &[100.0, 100.0, 100.0], false, "SLOWER");
        // The machine was slow whenever the first run of the old binary was not on it.
        check(&[97.0, 97.0, 97.0], &[100.0, 100.0, 100.0], &[98.0, 98.0, 98.0], false, "ok");
        // It was twice as fast in the second round.
        check(&[100.0, 200.0], &[100.0, 200.0], &[100.0, 200.0], false, "ok");
        // One low round is not the median.
        check(&[50.0, 100.0, 100.0], &[100.0; 3], &[100.0; 3], false, "ok");
        check(&[103.0; 3], &[100.0; 3], &[100.0; 3], true, "SLOWER");
        check(&[97.0; 3], &[100.0; 3], &[100.0; 3], true, "ok");
        check(&[], &[100.0], &[100.0], false, "SLOWER");
        check(&[100.0], &[], &[], false, "not judged");
    }

    #[test]
    fn the_order_alternates() {
        for at in 0..3 {
            let places = |place: usize| ORDERS.iter().filter(|order| order[place] == at).count();
            assert_eq!([0, 1, 2].map(places), [2, 2, 2]);
        }
        for pair in ORDERS.chunks(2) {
            assert!(pair[0].iter().eq(pair[1].iter().rev()));
        }
    }
}
