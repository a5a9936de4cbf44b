//! Remembers the signatures of accepted POST requests, so that a captured request cannot be repeated. Pure.

use super::signature::{REPETITION_S, Stamp, TIMESTAMP_RANGE_S, Unsigned};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Signatures whose timestamps are still valid, oldest timestamp first, and when each was used first.
#[derive(Default)]
pub struct Seen(BTreeMap<Stamp, u64>);

impl Seen {
    /// Remembers a request whose signature is valid. Returns whether an older one had to be forgotten before it expired.
    ///
    /// # Errors
    /// [`Unsigned::Repeated`]: the signature was used before, and its timestamp or its first use is at least
    /// [`REPETITION_S`] old. Before that it may be another request: libraries sign whole seconds, so equal publishes within
    /// a second have the same signature. The first use counts because the backend's clock may be ahead.
    pub fn admit(&mut self, stamp: Stamp, now_s: u64) -> Result<bool, Unsigned> {
        while self.0.first_key_value().is_some_and(|(oldest, _)| oldest.timestamp_s + TIMESTAMP_RANGE_S < now_s) {
            self.0.pop_first();
        }
        match self.0.entry(stamp) {
            Entry::Occupied(first_s) if now_s >= stamp.timestamp_s.min(*first_s.get()) + REPETITION_S => {
                return Err(Unsigned::Repeated);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(now_s);
            }
        }
        let is_full = self.0.len() > SIGNATURES_MAX;
        if is_full {
            self.0.pop_first();
        }
        Ok(is_full)
    }
}

/// Most signatures that are remembered: about 13 MiB, or ten minutes at 430 requests per second.
const SIGNATURES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_353_088_179;

    fn stamp(timestamp_s: u64, signature: u128) -> Stamp {
        Stamp { timestamp_s, signature }
    }

    #[test]
    fn a_repetition_is_refused_once_its_timestamp_is_old() {
        let mut seen = Seen::default();
        for now_s in [NOW_S, NOW_S + 4] {
            assert_eq!(seen.admit(stamp(NOW_S, 1), now_s), Ok(false));
        }
        for now_s in [NOW_S + 5, NOW_S + 600] {
            assert_eq!(seen.admit(stamp(NOW_S, 1), now_s), Err(Unsigned::Repeated));
        }
        assert_eq!(seen.admit(stamp(NOW_S, 2), NOW_S + 5), Ok(false), "another signature");
        assert_eq!(seen.admit(stamp(NOW_S, 2), NOW_S + 5), Err(Unsigned::Repeated));
    }

    #[test]
    fn a_timestamp_in_the_future_does_not_prolong_the_time_for_repetitions() {
        let mut seen = Seen::default();
        for now_s in [NOW_S - 600, NOW_S - 596] {
            assert_eq!(seen.admit(stamp(NOW_S, 1), now_s), Ok(false));
        }
        for now_s in [NOW_S - 595, NOW_S, NOW_S + 600] {
            assert_eq!(seen.admit(stamp(NOW_S, 1), now_s), Err(Unsigned::Repeated));
        }
    }

    #[test]
    fn signatures_are_forgotten_with_their_timestamps() {
        let mut seen = Seen::default();
        for timestamp_s in 0..2000 {
            assert_eq!(seen.admit(stamp(timestamp_s, 1), timestamp_s), Ok(false));
        }
        assert_eq!(seen.0.len(), 601);
    }

    #[test]
    fn the_oldest_is_forgotten_beyond_the_limit() {
        let mut seen = Seen::default();
        assert_eq!(seen.admit(stamp(NOW_S - 6, 0), NOW_S), Ok(false));
        for signature in 1..SIGNATURES_MAX as u128 {
            assert_eq!(seen.admit(stamp(NOW_S, signature), NOW_S), Ok(false));
        }
        assert_eq!(seen.admit(stamp(NOW_S - 6, 0), NOW_S), Err(Unsigned::Repeated));
        assert_eq!(seen.admit(stamp(NOW_S, 0), NOW_S), Ok(true));
        assert_eq!(seen.0.len(), SIGNATURES_MAX);
        assert_eq!(seen.0.first_key_value(), Some((&stamp(NOW_S, 0), &NOW_S)));
    }
}
