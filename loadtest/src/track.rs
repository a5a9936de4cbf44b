//! Checks that a subscriber gets every message, once and in order. A message in order costs one comparison.

/// Faults, summed over subscribers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// Messages that never arrived, although later ones did.
    pub lost: u64,
    /// Messages that arrived again.
    pub duplicated: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
}

/// The place of a message in the sequence of its subscriber.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is the expected message.
    Next,
    /// It is later than expected. These are missing until they arrive: first, count, one every stride.
    Ahead(u32, u32),
    /// It was missing.
    Late,
    /// It arrived before.
    Again,
}

/// The sequence of one subscriber: `first`, then one every `stride`, because publishes go round the channels of a run.
pub struct Track {
    next: u32,
    /// First number and count of each hole. Almost all subscribers have none.
    holes: Vec<(u32, u32)>,
}

impl Track {
    /// A subscriber that expects `first`.
    pub fn new(first: u32) -> Track {
        Track { next: first, holes: Vec::new() }
    }

    /// The number expected next.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Records that `sequence` has arrived.
    #[inline]
    pub fn see(&mut self, sequence: u32, stride: u32, faults: &mut Faults) -> Seen {
        if sequence == self.next {
            self.next = sequence + stride;
            return Seen::Next;
        }
        self.see_odd(sequence, stride, faults)
    }

    #[cold]
    fn see_odd(&mut self, sequence: u32, stride: u32, faults: &mut Faults) -> Seen {
        if sequence > self.next {
            let (first, count) = (self.next, (sequence - self.next) / stride);
            self.holes.push((first, count));
            faults.lost += u64::from(count);
            self.next = sequence + stride;
            return Seen::Ahead(first, count);
        }
        let hole = self.holes.iter().position(|&(first, count)| {
            sequence >= first && (sequence - first) / stride < count && (sequence - first).is_multiple_of(stride)
        });
        let Some(hole) = hole else {
            faults.duplicated += 1;
            return Seen::Again;
        };
        faults.lost -= 1;
        faults.reordered += 1;
        let (first, count) = self.holes.swap_remove(hole);
        let before = (sequence - first) / stride;
        if before > 0 {
            self.holes.push((first, before));
        }
        if count - before > 1 {
            self.holes.push((sequence + stride, count - before - 1));
        }
        Seen::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stride: u32, sequence: &[u32], lost: u64, duplicated: u64, reordered: u64) {
        let (mut track, mut faults) = (Track::new(sequence[0]), Faults::default());
        for &number in sequence {
            track.see(number, stride, &mut faults);
        }
        assert_eq!(faults, Faults { lost, duplicated, reordered }, "{sequence:?}");
    }

    #[test]
    fn in_order_is_faultless() {
        check(1, &[0, 1, 2, 3], 0, 0, 0);
        check(10, &[3, 13, 23], 0, 0, 0);
    }

    #[test]
    fn a_gap_is_lost_until_it_turns_up() {
        check(1, &[0, 4, 5], 3, 0, 0);
        check(1, &[0, 4, 2, 5], 2, 0, 1);
        check(1, &[0, 4, 2, 1, 3, 5], 0, 0, 3);
        check(10, &[5, 45, 25, 15], 1, 0, 2);
    }

    #[test]
    fn the_same_again_is_a_duplicate() {
        check(1, &[0, 1, 1, 0, 2], 0, 2, 0);
        check(1, &[0, 3, 2, 2], 1, 1, 1);
    }

    #[test]
    fn what_a_gap_skipped_is_named() {
        let (mut track, mut faults) = (Track::new(2), Faults::default());
        assert_eq!(track.see(2, 10, &mut faults), Seen::Next);
        assert_eq!(track.see(42, 10, &mut faults), Seen::Ahead(12, 3));
        assert_eq!(track.see(22, 10, &mut faults), Seen::Late);
        assert_eq!(track.see(22, 10, &mut faults), Seen::Again);
    }
}
