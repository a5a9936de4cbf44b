//! The results of a proof: numbers by name, a table of latencies, remarks, and violations.

use std::collections::BTreeMap;
use std::io;

use super::Interrupted;
use crate::expect::all_met;
use crate::format::{table, time};
use crate::html::Page;
use crate::measure::Latency;
use crate::report::{ReportArgs, curve, print};
use crate::spread::{ratios, spread};
use crate::workers::Results;

/// The results, which grow as the proof goes on.
#[derive(Default)]
pub struct Findings {
    metrics: BTreeMap<String, f64>,
    rows: Vec<Vec<String>>,
    curves: Vec<(String, Vec<(f64, u64)>)>,
    /// Remarks below the table.
    pub lines: Vec<String>,
    /// Violations: each makes the proof fail.
    pub violations: Vec<String>,
}

impl Findings {
    /// Adds a latency: the numbers `situation.name.p99` and so on, and a row of the table.
    pub fn latency(&mut self, situation: &str, name: &str, title: &str, latency: Option<&Latency>) {
        // A latency without samples would be 0, and meet every expectation.
        let Some(latency) = latency.filter(|latency| latency.count() > 0) else { return };
        let values = [
            ("p50", latency.quantile(0.5) as f64),
            ("p99", latency.quantile(0.99) as f64),
            ("p999", latency.quantile(0.999) as f64),
            ("max", latency.max() as f64),
        ];
        let mut row = vec![title.to_owned(), situation.to_owned(), latency.count().to_string()];
        for (suffix, value) in values {
            self.metrics.insert(format!("{situation}.{name}.{suffix}").replace(' ', "_"), value);
            row.push(time(value));
        }
        self.rows.push(row);
        self.curves.push((format!("{situation}: {title}"), curve(latency)));
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.into(), value);
    }

    /// Adds a value of all rounds: its median as the number, and a line. Without values it adds nothing.
    pub fn spread(&mut self, name: &str, title: &str, values: &[f64], text: fn(f64) -> String) {
        let Some(values) = spread(values) else { return };
        self.number(name, values.median);
        let of_rounds = match values.count {
            1 => String::new(),
            count => format!(" ({}–{}), median of {count} rounds", text(values.min), text(values.max)),
        };
        self.lines.push(format!("{title}: {}{of_rounds}", text(values.median)));
    }

    /// Adds the latencies of all rounds: the medians of their percentiles.
    pub fn latency_spread(&mut self, situation: &str, name: &str, title: &str, rounds: &[Latency]) {
        for (suffix, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            let values: Vec<f64> = rounds.iter().map(|latency| latency.quantile(share) as f64).collect();
            let number = format!("{situation}.{name}.{suffix}").replace(' ', "_");
            self.spread(&number, &format!("{situation}: {title} {suffix}"), &values, time);
        }
    }

    /// Adds a comparison of two situations: the median of each, the median of the ratios within a round (the second value
    /// divided by the first), that of the differences, and a line.
    pub fn comparison(
        &mut self,
        situations: [&str; 2],
        name: &str,
        title: &str,
        rounds: &[[Option<f64>; 2]],
        text: fn(f64) -> String,
    ) {
        let [first, second] = [0, 1].map(|at| rounds.iter().map(|round| round[at]).collect::<Vec<_>>());
        let median = |values: &[Option<f64>]| spread(&values.iter().flatten().copied().collect::<Vec<f64>>());
        let added: Vec<Option<f64>> = rounds.iter().map(|round| Some(round[1]? - round[0]?)).collect();
        let (Some(of_first), Some(of_second), Some(added)) = (median(&first), median(&second), median(&added)) else {
            return;
        };
        let Some(ratio) = ratios(&second, &first) else { return };
        self.number(&format!("{}.{name}", situations[0]), of_first.median);
        self.number(&format!("{}.{name}", situations[1]), of_second.median);
        self.number(&format!("ratio.{name}"), ratio.median);
        self.number(&format!("added.{name}"), added.median);
        self.lines.push(format!(
            "{title}: {} {}, {} {}; ratio {:.3} ({:.3}–{:.3}), {} rounds",
            situations[0],
            text(of_first.median),
            situations[1],
            text(of_second.median),
            ratio.median,
            ratio.min,
            ratio.max,
            ratio.count
        ));
    }

    /// Adds a violation unless `holds`.
    pub fn check(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.violations.push(what.into());
        }
    }

    /// Adds a violation for each kind of fault or loss in a run.
    pub fn check_faultless(&mut self, run: &str, results: &Results) {
        for (count, what) in results.tally.faults() {
            let name = format!("{run} {what}").replace(' ', "_");
            self.number(&name, count as f64);
            self.check(count == 0, format!("{run}: {count} {what}"));
        }
    }

    /// Reports what a proof finds, whatever its outcome. Returns whether the proof has no violation and meets all
    /// expectations.
    pub fn report(
        args: &ReportArgs,
        title: &str,
        proof: impl FnOnce(&mut Findings) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        args.check()?;
        let mut findings = Findings::default();
        match proof(&mut findings) {
            Ok(()) => {}
            Err(error) if is_interrupted(&error) => {
                findings.lines.push("interrupted: these are the results so far".into());
            }
            // The results so far are still reported.
            Err(error) if !findings.metrics.is_empty() => findings.violations.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
        findings.write(args, title)?;
        Ok(all_met(&args.expect, &findings.metrics) && findings.violations.is_empty())
    }

    fn write(&self, args: &ReportArgs, title: &str) -> anyhow::Result<()> {
        if let Some(path) = &args.report {
            crate::report::write(path, &self.page(title))?;
        }
        if args.json {
            print(serde_json::to_string_pretty(&self.metrics)?)?;
        } else {
            print(self.text(title))?;
        }
        self.violations.iter().for_each(|violation| eprintln!("✗ {violation}"));
        Ok(())
    }

    fn text(&self, title: &str) -> String {
        let rows = (!self.rows.is_empty()).then(|| table(head(), self.rows.clone(), 2).to_string());
        let lines = self.lines.iter().map(|line| format!("  {line}"));
        let parts: Vec<String> = [title.to_owned()].into_iter().chain(rows).chain(lines).collect();
        parts.join("\n")
    }

    fn page(&self, title: &str) -> Page<'_> {
        Page {
            title: title.into(),
            warnings: &self.violations,
            latencies: (head(), self.rows.clone()),
            curves: self.curves.iter().map(|(name, curve)| (name.clone(), &curve[..])).collect(),
            notes: &self.lines,
            metrics: Some(&self.metrics),
            ..Page::default()
        }
    }
}

/// Whether Ctrl-C is the cause: the proof has noticed it, or the signal has ended one of its system calls.
fn is_interrupted(error: &anyhow::Error) -> bool {
    let by_signal = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
    error.is::<Interrupted>() || error.chain().any(|cause| cause.downcast_ref().is_some_and(by_signal))
}

fn head() -> Vec<String> {
    ["latency", "situation", "count", "p50", "p99", "p99.9", "max"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_call_that_ctrl_c_ends_is_not_a_failure() {
        let signal = || anyhow::Error::from(io::Error::from(io::ErrorKind::Interrupted));
        assert!(is_interrupted(&signal()) && is_interrupted(&signal().context("reading")));
        assert!(is_interrupted(&Interrupted.into()));
        assert!(!is_interrupted(&io::Error::from(io::ErrorKind::ConnectionReset).into()));
    }
}
