//! A page for one run: self-contained, percentile curves and throughput over time as inline SVG, in light and dark.

use std::fmt::Write;

use crate::report::{Report, latency_name, number, time};

/// The page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("{} · {}", report.scenario, report.target);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head><body>\
         <h1>{}</h1>",
        escape(&title),
        escape(&title)
    );
    for warning in &report.warnings {
        let _ = write!(out, "<p class=\"warning\">{}</p>", escape(warning));
    }
    out.push_str("<table>");
    for (name, value) in report.lines() {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(&name), escape(&value));
    }
    out.push_str("</table>");
    if !report.curves.is_empty() {
        out.push_str("<h2>Latency by percentile</h2>");
        out.push_str(&latency_chart(report));
    }
    if report.timeline.len() > 1 {
        let _ = write!(out, "<h2>{} per second, over time</h2>", escape(report.unit));
        out.push_str(&rate_chart(report));
    }
    for note in &report.notes {
        let _ = write!(out, "<p class=\"note\">{}</p>", escape(note));
    }
    let metrics = serde_json::to_string_pretty(&report.metrics).unwrap_or_default();
    let _ =
        write!(out, "<details><summary>All numbers</summary><pre>{}</pre></details></body></html>", escape(&metrics));
    out
}

/// A line of a chart: its name, and its points in chart coordinates (0…1, 0…1).
type Line = (String, Vec<(f64, f64)>);
/// Where a label stands (0…1) and what it says.
type Label = (f64, String);

fn latency_chart(report: &Report) -> String {
    let values = || report.curves.values().flatten().map(|&(_, ns)| ns.max(1) as f64);
    let low = values().fold(f64::MAX, f64::min).log10().floor();
    let high = values().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let decades = report.curves.values().flatten().map(|&(share, _)| -(1.0 - share).log10()).fold(1.0, f64::max);
    let lines: Vec<Line> = report
        .curves
        .iter()
        .map(|(name, points)| {
            let place = |&(share, ns): &(f64, u64)| {
                (-(1.0f64 - share).log10() / decades, ((ns.max(1) as f64).log10() - low) / (high - low))
            };
            (latency_name(name).to_owned(), points.iter().map(place).collect())
        })
        .collect();
    let across: Vec<Label> = ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]
        .iter()
        .enumerate()
        .map(|(decade, text)| (decade as f64 / decades, (*text).to_owned()))
        .filter(|(at, _)| *at <= 1.0)
        .collect();
    let up: Vec<Label> = (low as i32..=high as i32)
        .map(|power| ((f64::from(power) - low) / (high - low), time(10f64.powi(power))))
        .collect();
    chart(&lines, &across, &up)
}

fn rate_chart(report: &Report) -> String {
    let rates: Vec<(f64, f64)> = report
        .timeline
        .windows(2)
        .map(|pair| {
            let seconds = (pair[1].seconds - pair[0].seconds).max(1e-3);
            (pair[1].seconds, pair[1].events.saturating_sub(pair[0].events) as f64 / seconds)
        })
        .collect();
    let top = rates.iter().map(|&(_, rate)| rate).fold(1.0, f64::max) * 1.05;
    let end = rates.last().map_or(1.0, |&(seconds, _)| seconds).max(1e-3);
    let line = rates.iter().map(|&(seconds, rate)| (seconds / end, rate / top)).collect();
    let across: Vec<Label> =
        (0..=5).map(|step| (f64::from(step) / 5.0, format!("{:.1} s", end * f64::from(step) / 5.0))).collect();
    let up: Vec<Label> = (0..=4).map(|step| (f64::from(step) / 4.0, number(top * f64::from(step) / 4.0))).collect();
    chart(&[(report.unit.to_owned(), line)], &across, &up)
}

fn chart(lines: &[Line], across: &[Label], up: &[Label]) -> String {
    let (x, y) = (|at: f64| LEFT + at.clamp(0.0, 1.0) * WIDTH, |at: f64| TOP + (1.0 - at.clamp(0.0, 1.0)) * HEIGHT);
    let mut out = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\">",
        LEFT + WIDTH + 20.0,
        TOP + HEIGHT + 30.0 + 18.0 * lines.len() as f64
    );
    for (at, text) in up {
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\
             <text class=\"label\" text-anchor=\"end\" x=\"{2}\" y=\"{3:.1}\">{text}</text>",
            LEFT + WIDTH,
            y(*at),
            LEFT - 6.0,
            y(*at) + 4.0
        );
    }
    for (at, text) in across {
        let _ = write!(
            out,
            "<text class=\"label\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{}\">{text}</text>",
            x(*at),
            TOP + HEIGHT + 18.0
        );
    }
    for (number, (name, points)) in lines.iter().enumerate() {
        let path: Vec<String> = points.iter().map(|&(px, py)| format!("{:.1},{:.1}", x(px), y(py))).collect();
        let legend = TOP + HEIGHT + 40.0 + 18.0 * number as f64;
        let _ = write!(
            out,
            "<polyline class=\"line c{number}\" points=\"{}\"/><line class=\"line c{number}\" x1=\"{LEFT}\" x2=\"{}\" \
             y1=\"{legend}\" y2=\"{legend}\"/><text class=\"label\" x=\"{}\" y=\"{}\">{}</text>",
            path.join(" "),
            LEFT + 24.0,
            LEFT + 32.0,
            legend + 4.0,
            escape(name)
        );
    }
    out.push_str("</svg>");
    out
}

/// Text as HTML and SVG want it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const LEFT: f64 = 90.0;
const TOP: f64 = 12.0;
const WIDTH: f64 = 680.0;
const HEIGHT: f64 = 260.0;
const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--soft:#667;--grid:#e3e6ea;--warn:#b3261e;
--c0:#2563eb;--c1:#d9480f;--c2:#2b8a3e;--c3:#862e9c}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--text:#e6e8eb;--soft:#9aa3ad;--grid:#2c3137;--warn:#ff8a80;
--c0:#74a9ff;--c1:#ffa066;--c2:#69db7c;--c3:#da77f2}}
body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse}th{text-align:left;font-weight:400;color:var(--soft);padding-right:2rem}
td{text-align:right;font-variant-numeric:tabular-nums}
.warning{color:var(--warn);font-weight:600}.note{color:var(--soft)}
svg{width:100%;height:auto}.grid{stroke:var(--grid)}.label{fill:var(--soft);font-size:12px}
.line{fill:none;stroke-width:2}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
pre{overflow-x:auto}";
