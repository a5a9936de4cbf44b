//! The report of a run as a self-contained HTML page, with charts as inline SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::chart::{self, Rate};
use crate::format::escape;
use crate::machine;

/// The contents of a page, in their order.
#[derive(Default)]
pub struct Page<'a> {
    /// The heading.
    pub title: String,
    /// Names and values of the most important numbers.
    pub tiles: Vec<(String, String)>,
    /// Warnings.
    pub warnings: &'a [String],
    /// A table of latencies: the header and the rows.
    pub latencies: (Vec<String>, Vec<Vec<String>>),
    /// Percentile curves by name: (share, nanoseconds).
    pub curves: Vec<(String, &'a [(f64, u64)])>,
    /// A rate over time.
    pub rate: Option<Rate<'a>>,
    /// Names and values of further numbers.
    pub facts: Vec<(String, String)>,
    /// Remarks.
    pub notes: &'a [String],
    /// Every number by its name.
    pub metrics: Option<&'a BTreeMap<String, f64>>,
}

impl Page<'_> {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let made = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let mut out = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
             <body><h1>{title}</h1><p class=\"note\"><code>loadtest {}</code><br>{} · {made}</p>",
            escape(&command),
            escape(&machine::description()),
        );
        for warning in self.warnings {
            let _ = write!(out, "<p class=\"warning\">{}</p>", escape(warning));
        }
        if !self.tiles.is_empty() {
            out.push_str("<div class=\"tiles\">");
            for (name, value) in &self.tiles {
                let _ = write!(out, "<div><b>{}</b>{}</div>", escape(value), escape(name));
            }
            out.push_str("</div>");
        }
        let (head, rows) = &self.latencies;
        if !rows.is_empty() {
            out.push_str("<h2>Latency</h2><div class=\"scroll\"><table><thead>");
            table_row(&mut out, head);
            out.push_str("</thead>");
            rows.iter().for_each(|row| table_row(&mut out, row));
            out.push_str("</table></div>");
        }
        if !self.curves.is_empty() {
            out.push_str(&chart::percentiles(self.curves.iter().cloned()));
        }
        if let Some(rate) = self.rate.as_ref().filter(|rate| rate.points.len() > 1) {
            let _ = write!(out, "<h2>{} per second</h2>", escape(rate.unit));
            out.push_str(&chart::rate(rate));
        }
        if !self.facts.is_empty() {
            out.push_str("<h2>Numbers</h2><dl>");
            for (name, value) in &self.facts {
                let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
            }
            out.push_str("</dl>");
        }
        for note in self.notes {
            let _ = write!(out, "<p class=\"note\">{}</p>", escape(note).replace('\n', "<br>"));
        }
        let metrics = serde_json::to_string_pretty(&self.metrics).unwrap_or_default();
        let all = "<details><summary>All numbers, by the names that --expect uses</summary><pre>";
        let _ = write!(out, "{all}{}</pre></details></body></html>", escape(&metrics));
        out
    }
}

fn table_row(out: &mut String, cells: &[String]) {
    out.push_str("<tr>");
    for cell in cells {
        let _ = write!(out, "<td>{}</td>", escape(cell));
    }
    out.push_str("</tr>");
}

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--card:#f4f6f8;--text:#1b1f24;--soft:#5b6570;--grid:#e3e6ea;--warn:#b3261e;
--c0:#2563eb;--c1:#d9480f;--c2:#2b8a3e;--c3:#862e9c;--c4:#0b7285;--c5:#a8730a}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--card:#1d2228;--text:#e6e8eb;--soft:#9aa3ad;--grid:#2c3137;
--warn:#ff8a80;--c0:#74a9ff;--c1:#ffa066;--c2:#69db7c;--c3:#da77f2;--c4:#66d9e8;--c5:#ffd43b}}
body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.3rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.warning{color:var(--warn);font-weight:600}.note{color:var(--soft);font-size:.9rem}code{overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.7rem;margin-top:1.2rem}
.tiles div{background:var(--card);border-radius:8px;padding:.6rem .8rem;color:var(--soft);font-size:.85rem}
.tiles b{display:block;color:var(--text);font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;margin-bottom:1rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
td{text-align:right;white-space:nowrap;padding:.25rem .5rem;border-bottom:1px solid var(--grid)}td:first-child{text-align:left;padding-left:0}
thead td{color:var(--soft)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:0 2.5rem;margin:0}
dl div{display:flex;justify-content:space-between;border-bottom:1px solid var(--grid);padding:.2rem 0}
dt{color:var(--soft)}dd{margin:0;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto}.grid{stroke:var(--grid)}.shade{fill:var(--card)}.label{fill:var(--soft);font-size:12px}
.line{fill:none;stroke-width:2}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
details{margin-top:1.5rem;color:var(--soft)}pre{overflow-x:auto}";
