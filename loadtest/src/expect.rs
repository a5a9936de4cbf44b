//! Expectations of a run: `p99<5ms`, `lost=0`, `rate>=1000000`, `last.p99<10ms`.

use std::collections::BTreeMap;
use std::str::FromStr;

/// One expectation.
#[derive(Debug, Clone)]
pub struct Expect {
    source: String,
    metric: String,
    relation: Relation,
    limit: f64,
}

type Relation = fn(&f64, &f64) -> bool;

/// Judges all expectations, and writes those that failed to stderr.
pub fn all_met(expected: &[Expect], metrics: &BTreeMap<String, f64>) -> bool {
    let failures: Vec<String> = expected.iter().filter_map(|expect| expect.failure(metrics)).collect();
    failures.iter().for_each(|why| eprintln!("✗ expected {why}"));
    failures.is_empty()
}

impl Expect {
    /// Compares with the measured values. Returns why it does not hold. Times are in nanoseconds.
    fn failure(&self, metrics: &BTreeMap<String, f64>) -> Option<String> {
        let Some(value) = metrics.get(&self.metric) else {
            let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
            return Some(format!("{}: unknown metric; the report has {}", self.source, known.join(", ")));
        };
        (!(self.relation)(value, &self.limit)).then(|| format!("{}: measured {value}", self.source))
    }
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(source: &str) -> Result<Expect, String> {
        let text: String = source.chars().filter(|c| !c.is_whitespace()).collect();
        let split = RELATIONS.iter().find_map(|&(sign, relation)| Some((text.split_once(sign)?, relation)));
        let ((metric, value), relation) = split.ok_or("an expectation looks like p99<5ms, lost=0 or rate>=1000000")?;
        if metric.is_empty() {
            return Err(format!("{source}: the metric is missing"));
        }
        let limit = quantity(value).ok_or_else(|| format!("{source}: {value:?} is not a number"))?;
        Ok(Expect { source: source.into(), metric: metric.into(), relation, limit })
    }
}

/// The relations; of two that begin alike the longer comes first.
const RELATIONS: [(&str, Relation); 6] =
    [("<=", f64::le), (">=", f64::ge), ("==", f64::eq), ("<", f64::lt), (">", f64::gt), ("=", f64::eq)];

/// A number with an optional unit: ns, us, ms, s (to nanoseconds), k, M, G, %.
fn quantity(text: &str) -> Option<f64> {
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("%", 0.01),
    ];
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = unit.map_or((text, 1.0), |(unit, factor)| (&text[..text.len() - unit.len()], *factor));
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expect: &str, met: bool) {
        let metrics = BTreeMap::from([("p99".into(), 4e6), ("lost".into(), 0.0), ("rate".into(), 2e6)]);
        let failure = expect.parse::<Expect>().unwrap().failure(&metrics);
        assert_eq!(failure.is_none(), met, "{expect}: {failure:?}");
    }

    #[test]
    fn expectations_are_judged() {
        check("p99<5ms", true);
        check("p99 < 4ms", false);
        check("p99<=4ms", true);
        check("p99>3999us", true);
        check("lost=0", true);
        check("lost==0", true);
        check("rate>=2M", true);
        check("rate>2000k", false);
        check("p98<5ms", false);
    }

    #[test]
    fn nonsense_is_refused_early() {
        for text in ["", "p99", "<5ms", "p99<fast", "p99<5 parsecs"] {
            assert!(text.parse::<Expect>().is_err(), "{text}");
        }
    }
}
