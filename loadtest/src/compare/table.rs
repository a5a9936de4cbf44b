//! A comparison with peers as a table, and as a chart in SVG.

use std::fmt::Write;

use super::result::{Comparison, RowResult, ServerResult};
use crate::format::{number, table as grid, time};
use crate::spread::{Spread, spread};
use crate::svg::{line, text};

/// The table: the subject's values, and their ratios to those of each peer.
pub fn table(comparison: &Comparison) -> String {
    let mut out = format!("{}\n{} rounds; loadtest {}\n", comparison.machine, comparison.rounds, comparison.command);
    let mut head = vec![String::new(), comparison.subject.clone(), "unit".into()];
    let peers = comparison.rows.first().map_or(&[][..], |row| &row.servers[1..]);
    head.extend(peers.iter().map(|server| server.name.clone()));
    let (mut ratios, mut values) = (Vec::new(), Vec::new());
    for row in &comparison.rows {
        let subject = row.servers[0].value.map_or("–".into(), |value| number(value.median));
        let unit = if row.is_less_better { format!("{} (less is better)", row.unit) } else { row.unit.into() };
        let own = [row.title.to_owned(), mark(subject, &row.servers[0]), unit];
        let mut cells = own.to_vec();
        cells.extend(row.servers[1..].iter().map(|server| mark(server.ratio.map_or("–".into(), ratio_text), server)));
        ratios.push(cells);
        let mut cells = own.to_vec();
        let value = |server: &ServerResult| server.value.map_or("–".into(), |value| number(value.median));
        cells.extend(row.servers[1..].iter().map(|server| mark(value(server), server)));
        values.push(cells);
    }
    let (ratios, values) = (grid(head.clone(), ratios, 1), grid(head, values, 1));
    let _ = writeln!(out, "\n{} ÷ peer, within a round: median (least–most)\n{ratios}", comparison.subject);
    let _ = writeln!(out, "\nMedians\n{values}");
    for row in &comparison.rows {
        details(&mut out, row);
    }
    out
}

/// Adds a star if the client was the bottleneck in half of the rounds, so that the server could have done more.
fn mark(text: String, server: &ServerResult) -> String {
    if server.client_bound * 2 > server.values.len() { format!("{text} *") } else { text }
}

fn ratio_text(ratio: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
}

/// Lines about a row: the open loop, losses, remarks.
fn details(out: &mut String, row: &RowResult) {
    for server in &row.servers {
        let mut facts = Vec::new();
        let subject = &row.servers[0].name;
        let own = |ratio: Option<Spread>| {
            let ratio = ratio.filter(|_| server.name != *subject);
            ratio.map_or(String::new(), |ratio| format!(", {subject} ÷ it {}", ratio_text(ratio)))
        };
        if let Some(sustained) = spread(&server.sustained) {
            facts
                .push(format!("{:.1} % of the due deliveries made within the measured time", sustained.median * 100.0));
            let p99: Vec<f64> = server.last_p99_ns.iter().flatten().copied().collect();
            if let Some(p99) = spread(&p99) {
                let ratio = own(server.last_p99_ratio);
                facts.push(format!("p99 to the last subscriber {}{ratio}", time(p99.median)));
            }
            facts.push(format!("lost {}", number(server.lost as f64)));
        } else if server.lost > 0 {
            facts.push(format!("lost {}", number(server.lost as f64)));
        }
        let cpu: Vec<f64> = server.cpu_ns.iter().flatten().copied().collect();
        if let Some(cpu) = spread(&cpu).filter(|_| !row.is_less_better) {
            facts.push(format!("CPU time of each {}{}", time(cpu.median), own(server.cpu_ratio)));
        }
        if server.undelivered > 0 {
            facts.push(format!("of them not delivered 10 s after the end {}", number(server.undelivered as f64)));
        }
        facts.extend(server.trouble.iter().cloned());
        if !facts.is_empty() {
            let _ = writeln!(out, "  {} · {}: {}", row.key, server.name, facts.join("; "));
        }
    }
    if row.servers.iter().any(|server| server.client_bound * 2 > server.values.len()) {
        let _ = writeln!(out, "  {} *: the client was the bottleneck; the server could have done more", row.key);
    }
}

/// The chart: for each row and peer the ratio's median and extremes, on a logarithmic scale around 1.
pub fn chart(comparison: &Comparison) -> String {
    let peers = comparison.rows.first().map_or(0, |row| row.servers.len().saturating_sub(1));
    let spreads = || comparison.rows.iter().flat_map(|row| &row.servers[1..]).filter_map(|server| server.ratio);
    let low = spreads().map(|ratio| ratio.min).fold(0.5, f64::min).log2().floor();
    let high = spreads().map(|ratio| ratio.max).fold(2.0, f64::max).log2().ceil();
    let x = |ratio: f64| LEFT + (ratio.max(1e-9).log2() - low) / (high - low) * WIDTH;
    let group = 26.0 + peers as f64 * STEP;
    let height = TOP + comparison.rows.len() as f64 * group + 30.0;
    let total = LEFT + WIDTH + 130.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} {height}\" font-family=\"system-ui,sans-serif\">\
         <style>{STYLE}</style><rect class=\"back\" width=\"100%\" height=\"100%\"/>"
    );
    let title =
        format!("{} ÷ peer: median and range of {} rounds, one core each", comparison.subject, comparison.rounds);
    text(&mut out, "title", "start", (16.0, 26.0), &title);
    text(&mut out, "soft", "start", (16.0, 44.0), &comparison.machine);
    for power in low as i32..=high as i32 {
        let ratio = 2f64.powi(power);
        let label = if power < 0 { format!("1/{}", 2f64.powi(-power)) } else { format!("{ratio}×") };
        let class = if power == 0 { "one" } else { "grid" };
        line(&mut out, class, (x(ratio), TOP), (x(ratio), height - 24.0));
        text(&mut out, "soft", "middle", (x(ratio), height - 8.0), &label);
    }
    let mut y = TOP;
    for row in &comparison.rows {
        let less = if row.is_less_better { " (less is better)" } else { "" };
        let subject =
            row.servers[0].value.map_or(String::new(), |value| format!(": {} {}", number(value.median), row.unit));
        let title = format!("{}{subject}{less}", row.title);
        text(&mut out, "row", "start", (16.0, y + 14.0), &title);
        y += 20.0;
        for (number, server) in row.servers[1..].iter().enumerate() {
            let middle = y + STEP / 2.0;
            text(&mut out, "soft", "end", (LEFT - 10.0, middle + 4.0), &server.name);
            let (at, label) = match server.ratio {
                Some(ratio) => {
                    let colour = number % 7;
                    line(&mut out, &format!("range c{colour}"), (x(ratio.min), middle), (x(ratio.max), middle));
                    let dot = x(ratio.median);
                    let _ = write!(out, "<circle class=\"dot c{colour}\" cx=\"{dot:.1}\" cy=\"{middle}\" r=\"4.5\"/>");
                    (x(ratio.max) + 9.0, format!("{:.2}", ratio.median))
                }
                None => (LEFT, "–".into()),
            };
            text(&mut out, "soft", "start", (at, middle + 4.0), &label);
            y += STEP;
        }
        y += 6.0;
    }
    out.push_str("</svg>\n");
    out
}

const LEFT: f64 = 170.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 620.0;
const STEP: f64 = 16.0;
const STYLE: &str = "
.back{fill:#fff}.title{fill:#1b1f24;font-size:16px;font-weight:600}.row{fill:#1b1f24;font-size:13px;font-weight:600}
.soft{fill:#667;font-size:11px}.grid{stroke:#e3e6ea}.one{stroke:#667;stroke-dasharray:4 3}.range{stroke-width:3;opacity:.45}
.c0{stroke:#868e96;fill:#868e96}.c1{stroke:#d9480f;fill:#d9480f}.c2{stroke:#e67700;fill:#e67700}.c3{stroke:#2563eb;fill:#2563eb}
.c4{stroke:#2b8a3e;fill:#2b8a3e}.c5{stroke:#862e9c;fill:#862e9c}.c6{stroke:#0b7285;fill:#0b7285}
@media(prefers-color-scheme:dark){.back{fill:#14171b}.title,.row{fill:#e6e8eb}.soft{fill:#9aa3ad}.grid{stroke:#2c3137}
.one{stroke:#9aa3ad}}";
