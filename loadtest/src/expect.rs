//! Expectations of a run: `p99<5ms`, `lost=0`, `rate>=1000000`, `last.p99<10ms`.

use std::collections::BTreeMap;
use std::str::FromStr;

/// One expectation.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    source: String,
    metric: String,
    relation: Relation,
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// Judges all expectations, and writes those that failed to stderr.
pub fn all_met(expected: &[Expect], metrics: &BTreeMap<String, f64>) -> bool {
    let mut is_met = true;
    for expect in expected {
        if let Verdict::Failed(why) = expect.judge(metrics) {
            eprintln!("✗ expected {why}");
            is_met = false;
        }
    }
    is_met
}

/// The result of an expectation.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It holds.
    Met,
    /// It does not hold, for this reason.
    Failed(String),
}

impl Expect {
    /// Compares with the measured values. Times are in nanoseconds.
    pub fn judge(&self, metrics: &BTreeMap<String, f64>) -> Verdict {
        let Some(&value) = metrics.get(&self.metric) else {
            let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
            return Verdict::Failed(format!("{}: unknown metric; the report has {}", self.source, known.join(", ")));
        };
        let met = match self.relation {
            Relation::Less => value < self.limit,
            Relation::AtMost => value <= self.limit,
            Relation::More => value > self.limit,
            Relation::AtLeast => value >= self.limit,
            Relation::Equal => value == self.limit,
        };
        if met { Verdict::Met } else { Verdict::Failed(format!("{}: measured {value}", self.source)) }
    }
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(source: &str) -> Result<Expect, String> {
        let text: String = source.chars().filter(|c| !c.is_whitespace()).collect();
        let at = text.find(['<', '>', '=']).ok_or("an expectation looks like p99<5ms, lost=0 or rate>=1000000")?;
        let (metric, rest) = text.split_at(at);
        let (relation, value) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Relation::AtMost, &rest[2..]),
            [b'>', b'=', ..] => (Relation::AtLeast, &rest[2..]),
            [b'=', b'=', ..] => (Relation::Equal, &rest[2..]),
            [b'<', ..] => (Relation::Less, &rest[1..]),
            [b'>', ..] => (Relation::More, &rest[1..]),
            _ => (Relation::Equal, &rest[1..]),
        };
        if metric.is_empty() {
            return Err(format!("{source}: the metric is missing"));
        }
        let limit = quantity(value).ok_or_else(|| format!("{source}: {value:?} is not a number"))?;
        Ok(Expect { source: source.into(), metric: metric.into(), relation, limit })
    }
}

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
        let verdict = expect.parse::<Expect>().unwrap().judge(&metrics);
        assert_eq!(verdict == Verdict::Met, met, "{expect}: {verdict:?}");
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
