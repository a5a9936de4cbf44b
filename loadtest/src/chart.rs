//! Line charts as inline SVG. The style of the page sets their colours.

use std::fmt::Write;

use crate::format::{short, time};
use crate::svg::{line, text};

/// A rate over time.
pub struct Rate<'a> {
    /// The unit.
    pub unit: &'a str,
    /// (seconds, rate).
    pub points: Vec<(f64, f64)>,
    /// The start of the measured time.
    pub count_from_s: f64,
}

/// Latencies by percentile, on a logarithmic scale with equal space for every further nine. Each curve has a name and points
/// (share, nanoseconds).
pub fn percentiles<'a>(curves: impl Iterator<Item = (String, &'a [(f64, u64)])> + Clone) -> String {
    let points = || curves.clone().flat_map(|(_, points)| points);
    let low = points().map(|&(_, ns)| ns.max(1) as f64).fold(f64::MAX, f64::min).log10().floor();
    let high = points().map(|&(_, ns)| ns.max(1) as f64).fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let nines = |share: f64| -(1.0 - share).log10();
    let decades = points().map(|&(share, _)| nines(share)).fold(1.0, f64::max);
    let place = |&(share, ns): &(f64, u64)| (nines(share) / decades, ((ns.max(1) as f64).log10() - low) / (high - low));
    let lines: Vec<Line> =
        curves.clone().map(|(name, points)| Line { name, points: points.iter().map(place).collect() }).collect();
    let across = [("50 %", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("99.9 %", 0.999), ("99.99 %", 0.9999)]
        .into_iter()
        .chain([("99.999 %", 0.99999), ("99.9999 %", 0.999999)])
        .map(|(text, share)| Label { at: nines(share) / decades, text: text.into() })
        .filter(|label| label.at <= 1.0)
        .collect::<Vec<_>>();
    let up: Vec<Label> = (low as i32..=high as i32)
        .map(|power| Label { at: (f64::from(power) - low) / (high - low), text: power_of_ten(power) })
        .collect();
    chart(&lines, &across, &up, None)
}

/// A rate over time; the warm-up is shaded.
pub fn rate(rate: &Rate<'_>) -> String {
    let Rate { unit, points, count_from_s } = rate;
    let top = round_up(points.iter().map(|&(_, rate)| rate).fold(1.0, f64::max));
    let end = points.last().map_or(1.0, |&(seconds, _)| seconds).max(1e-3);
    let step = round_up(end / 8.0);
    let lines =
        [Line { name: unit.to_string(), points: points.iter().map(|&(s, rate)| (s / end, rate / top)).collect() }];
    let across: Vec<Label> = (0..)
        .map(|number| f64::from(number) * step)
        .take_while(|&seconds| seconds <= end)
        .map(|seconds| Label { at: seconds / end, text: format!("{} s", (seconds * 10.0).round() / 10.0) })
        .collect();
    let up: Vec<Label> =
        (0..=4).map(|quarter| f64::from(quarter) / 4.0).map(|at| Label { at, text: short(top * at) }).collect();
    chart(&lines, &across, &up, Some(count_from_s / end))
}

/// A line, its points in chart coordinates (0…1, 0…1).
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The position (0…1) and the text of a label.
struct Label {
    at: f64,
    text: String,
}

/// `shaded`: the end (0…1) of the shaded background.
fn chart(lines: &[Line], across: &[Label], up: &[Label], shaded: Option<f64>) -> String {
    let (x, y) = (|at: f64| LEFT + at.clamp(0.0, 1.0) * WIDTH, |at: f64| TOP + (1.0 - at.clamp(0.0, 1.0)) * HEIGHT);
    let names = if lines.len() > 1 { lines } else { &[] };
    let height = BOTTOM + 30.0 + LEGEND * names.len().div_ceil(2) as f64;
    let mut out = format!("<svg viewBox=\"0 0 {} {height}\" role=\"img\">", LEFT + WIDTH + 28.0);
    if let Some(to) = shaded.filter(|to| *to > 0.0) {
        let width = x(to) - LEFT;
        let _ =
            write!(out, "<rect class=\"shade\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>");
        text(&mut out, "label", "start", (LEFT + 6.0, BOTTOM - 8.0), "warm-up");
    }
    for label in up {
        let y = y(label.at);
        line(&mut out, "grid", (LEFT, y), (LEFT + WIDTH, y));
        text(&mut out, "label", "end", (LEFT - 8.0, y + 4.0), &label.text);
    }
    for label in across {
        let x = x(label.at);
        line(&mut out, "grid", (x, TOP), (x, BOTTOM));
        text(&mut out, "label", if label.at > 0.95 { "end" } else { "middle" }, (x, BOTTOM + 18.0), &label.text);
    }
    let class = |number: usize| format!("line c{}", number % COLOURS);
    for (number, line) in lines.iter().enumerate() {
        let path: Vec<String> = line.points.iter().map(|&(px, py)| format!("{:.1},{:.1}", x(px), y(py))).collect();
        let _ = write!(out, "<polyline class=\"{}\" points=\"{}\"/>", class(number), path.join(" "));
    }
    for (number, Line { name, .. }) in names.iter().enumerate() {
        let x = LEFT + WIDTH / 2.0 * (number % 2) as f64;
        let y = BOTTOM + 42.0 + LEGEND * (number / 2) as f64;
        line(&mut out, &class(number), (x, y), (x + 24.0, y));
        text(&mut out, "label", "start", (x + 32.0, y + 4.0), name);
    }
    out.push_str("</svg>");
    out
}

/// 10 to the power, in nanoseconds, as a short text.
fn power_of_ten(power: i32) -> String {
    time(10f64.powi(power)).replace(".00", "").replace(".0", "")
}

/// The next of 1, 2, 5, 10, 20 …
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&round| round >= value * 0.9999).unwrap_or(value)
}

/// Colours of lines, as classes `c0` and so on.
pub const COLOURS: usize = 6;
const LEFT: f64 = 74.0;
const TOP: f64 = 8.0;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 250.0;
const BOTTOM: f64 = TOP + HEIGHT;
const LEGEND: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_round() {
        assert_eq!([1.0, 1.3, 4.2, 7.0, 0.6, 1_044_190.0].map(round_up), [1.0, 2.0, 5.0, 10.0, 1.0, 2e6]);
        assert_eq!([3, 4, 6, 9].map(power_of_ten), ["1 µs", "10 µs", "1 ms", "1 s"]);
    }

    #[test]
    fn everything_said_is_in_the_chart() {
        let curve = [(0.0, 1_000), (0.5, 20_000), (0.999, 3_000_000)];
        let both = [("a < b".to_owned(), &curve[..]), ("c".to_owned(), &curve[..])];
        let svg = percentiles(both.into_iter());
        for text in ["a &lt; b", ">c<", ">99.9 %<", ">1 µs<", ">10 ms<", "class=\"line c1\""] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("99.99 %"));
        assert!(
            rate(&Rate { unit: "pongs", points: vec![(0.5, 10.0), (2.0, 90.0)], count_from_s: 1.0 })
                .contains("warm-up")
        );
    }
}
