//! Divides a share of all connections among the shards. Pure.

use crate::api::Share;

/// How many of each shard's `counts` make up the share: in proportion, to within one, and exactly the wanted number in all.
/// Fractions are rounded up.
pub fn apportioned(share: Share, counts: &[usize]) -> Vec<usize> {
    let total: usize = counts.iter().sum();
    let wanted = match share {
        Share::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        Share::Count(count) => count,
    }
    .min(total);
    // The share of the shards up to this one, less that of the shards before it.
    let up_to = |count: usize| if total == 0 { 0 } else { (wanted as u128 * count as u128 / total as u128) as usize };
    let mut before = 0;
    counts
        .iter()
        .map(|count| {
            let start = up_to(before);
            before += count;
            up_to(before) - start
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(share: Share, counts: &[usize], expected: &[usize]) {
        assert_eq!(apportioned(share, counts), expected, "{share:?} of {counts:?}");
    }

    #[test]
    fn a_share_is_whole_and_in_proportion() {
        check(Share::Percent(20), &[50, 50], &[10, 10]);
        check(Share::Percent(20), &[10, 30, 60, 0], &[2, 6, 12, 0]);
        check(Share::Percent(1), &[1, 0], &[1, 0]);
        check(Share::Percent(100), &[3, 4], &[3, 4]);
        check(Share::Percent(0), &[3, 4], &[0, 0]);
        check(Share::Count(1), &[2, 2], &[0, 1]);
        check(Share::Count(usize::MAX), &[3, 4], &[3, 4]);
        check(Share::Count(7), &[0, 0], &[0, 0]);
    }

    proptest! {
        #[test]
        fn it_adds_up(wanted in 0_usize..5000, counts in prop::collection::vec(0_usize..1000, 1..9)) {
            let total: usize = counts.iter().sum();
            let shares = apportioned(Share::Count(wanted), &counts);
            prop_assert_eq!(shares.iter().sum::<usize>(), wanted.min(total));
            for (share, count) in shares.iter().zip(&counts) {
                let exact = wanted.min(total) as f64 * *count as f64 / total.max(1) as f64;
                prop_assert!(share <= count && (*share as f64 - exact).abs() < 1.0, "{} of {}, not {}", share, count, exact);
            }
        }
    }
}
