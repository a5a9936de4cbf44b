//! `/metrics` has what the dashboard, the alert rules and the documentation name.

use crate::harness::Server;
use crate::http::{Http, start};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics of a server, each with its type.
fn metrics(server: &Server) -> HashMap<String, String> {
    let body = Http::connect(server).get("/metrics").body;
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The type of a metric or of a part of a histogram. `None`: the name is not a metric.
fn kind<'a>(metrics: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    let whole = || metrics.get(name).map(String::as_str);
    let part = |suffix| metrics.get(name.strip_suffix(suffix)?).map(String::as_str).filter(|kind| *kind == "histogram");
    whole().or_else(|| ["_bucket", "_sum", "_count"].into_iter().find_map(part))
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    let is_name = |word: &&str| !word.ends_with('_') && (word.starts_with("corecast_") || word.starts_with("process_"));
    words.filter(is_name).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("ops/grafana-dashboard.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

/// The expression of each graph of the dashboard.
fn expressions(dashboard: &Value) -> Vec<&str> {
    let targets = panels(dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("an expression")).collect()
}

#[test]
fn metrics_that_are_named_exist() {
    let metrics = metrics(&start());
    let dashboard = dashboard();
    let pages = ["docs/operating.md", "docs/presence.md", "docs/publishing.md", "docs/webhooks.md", "ops/alerts.yml"];
    let texts: String = pages.iter().map(|page| read(page)).collect();
    let texts = texts + &expressions(&dashboard).join("\n");
    let names = names(&texts);
    let unknown: Vec<_> = names.iter().filter(|name| kind(&metrics, name).is_none()).collect();
    assert!(unknown.is_empty(), "no metrics: {unknown:?}");
    assert!(names.len() > 60, "only {names:?}");
}

#[test]
fn the_dashboard_takes_rates_of_counters_only() {
    let metrics = metrics(&start());
    for expression in expressions(&dashboard()) {
        for name in names(expression) {
            let is_gauge = kind(&metrics, name) == Some("gauge");
            let has_rate = expression.contains(&format!("rate({name}{{"));
            assert!(is_gauge != has_rate, "{expression}: {name} is a {:?}", kind(&metrics, name));
        }
    }
}

#[test]
fn the_dashboard_shows_what_operators_of_histories_and_presence_look_for() {
    let dashboard = dashboard();
    let expressions = expressions(&dashboard).join("\n");
    let shown = names(&expressions);
    for name in [
        "held_back_messages",
        "conflated_messages_total",
        "presence_joins_total",
        "presence_leaves_total",
        "publishes_repeated_total",
        "dedupe_bytes",
        "recoveries_total",
        "recoveries_failed_total",
    ] {
        assert!(shown.contains(format!("corecast_{name}").as_str()), "the dashboard does not show {name}");
    }
}

#[test]
fn panels_of_the_dashboard_have_ids_and_places_of_their_own() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut cells = HashMap::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64()), "the id of {} is taken", panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect("a number"));
        assert!(x + w <= 24, "{} is too wide", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = cells.insert(cell, &panel["title"]);
            assert!(other.is_none(), "{} lies on {other:?}", panel["title"]);
        }
    }
}
