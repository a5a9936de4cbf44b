//! What a proof has found: numbers by name, a table, sentences, and what must not be.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use super::{Interrupted, ProofArgs};
use crate::crew::Harvest;
use crate::expect::all_met;
use crate::format::time;
use crate::html::Page;
use crate::measure::Latency;
use crate::report::curve;

/// Numbers by name, and a table whose rows are latencies in several situations.
#[derive(Default)]
pub struct Findings {
    metrics: BTreeMap<String, f64>,
    rows: Vec<Vec<String>>,
    curves: Vec<(String, Vec<(f64, u64)>)>,
    /// Sentences below the table.
    pub lines: Vec<String>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Findings {
    /// Adds a latency: `situation.name.p99` and so on, and a row.
    pub fn latency(&mut self, situation: &str, name: &str, title: &str, latency: Option<&Latency>) {
        // Without samples there is no latency: 0 would meet every expectation.
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

    /// Notes a violation unless `holds`.
    pub fn check(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.violations.push(what.into());
        }
    }

    /// Notes what must never be in any run.
    pub fn check_faultless(&mut self, who: &str, harvest: &Harvest) {
        let tally = &harvest.tally;
        for (count, what) in [
            (tally.skipped, "messages lost"),
            (tally.undelivered, "messages not delivered at the end"),
            (tally.unanswered, "requests without an answer"),
            (tally.duplicated, "messages came twice"),
            (tally.reordered, "messages out of order"),
            (tally.invalid, "messages were not what they should be"),
            (tally.disconnected, "connections closed by the server"),
            (tally.refused, "publishes refused"),
        ] {
            let name = format!("{} {}", who, what).replace(' ', "_");
            self.number(&name, count as f64);
            self.check(count == 0, format!("{who}: {count} {what}"));
        }
    }

    /// Reports everything, once all has been `played`, or failed, or Ctrl-C was pressed. Returns whether nothing is violated
    /// and all expectations are met.
    pub fn conclude(mut self, played: anyhow::Result<()>, args: &ProofArgs, title: &str) -> anyhow::Result<bool> {
        match played {
            Ok(()) => {}
            Err(error) if error.is::<Interrupted>() => {
                self.lines.push("interrupted: these are the results so far".into());
            }
            // What was found before is worth a report.
            Err(error) if !self.metrics.is_empty() => self.violations.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
        if let Some(path) = &args.report {
            std::fs::write(path, self.page(title).html())?;
        }
        if args.json {
            println!("{}", serde_json::to_string_pretty(&self.metrics)?);
        } else {
            println!("{title}");
            if !self.rows.is_empty() {
                let mut table = Table::new();
                table.load_style(presets::UTF8_BORDERS_ONLY);
                table.set_header(HEAD);
                table.add_rows(&self.rows);
                for column in table.column_iter_mut().skip(2) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
                println!("{table}");
            }
            self.lines.iter().for_each(|line| println!("  {line}"));
        }
        self.violations.iter().for_each(|violation| eprintln!("✗ {violation}"));
        Ok(all_met(&args.expect, &self.metrics) && self.violations.is_empty())
    }

    fn page(&self, title: &str) -> Page<'_> {
        Page {
            title: title.into(),
            warnings: &self.violations,
            latencies: (HEAD.map(str::to_owned).to_vec(), self.rows.clone()),
            curves: self.curves.iter().map(|(name, curve)| (name.clone(), &curve[..])).collect(),
            notes: &self.lines,
            metrics: Some(&self.metrics),
            ..Page::default()
        }
    }
}

const HEAD: [&str; 7] = ["latency", "situation", "count", "p50", "p99", "p99.9", "max"];
