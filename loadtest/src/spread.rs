//! Median and extremes of repeated measurements. Machines are shared and drift, so ratios are taken within a round.

use serde::Serialize;

/// Median and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value, or the mean of the two middle ones.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The number of values.
    pub count: usize,
}

/// Spread of `values`; `None` if there are none.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (&min, &max) = (sorted.first()?, sorted.last()?);
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    Some(Spread { median, min, max, count })
}

/// Spread of `ours / theirs`, round by round; rounds in which either is missing do not count.
pub fn ratios(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<Spread> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| match (ours, theirs) {
            (Some(ours), Some(theirs)) if *theirs > 0.0 => Some(ours / theirs),
            _ => None,
        })
        .collect();
    spread(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0, count: 3 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as fast in the second round; the ratio was the same.
        let ours = [Some(50.0), Some(100.0), Some(10.0), None];
        let theirs = [Some(100.0), Some(200.0), None, Some(1.0)];
        assert_eq!(ratios(&ours, &theirs), Some(Spread { median: 0.5, min: 0.5, max: 0.5, count: 2 }));
        assert_eq!(ratios(&[Some(1.0)], &[Some(0.0)]), None);
    }
}
