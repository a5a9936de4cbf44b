//! Measures how long turns take, and how long messages take until they are written. It reads the clock twice in each turn.

use crate::metrics::Times;
use crate::shard::output::write_queue::Progress;
use std::collections::VecDeque;

/// The stopwatch of a shard. Times are microseconds since the server started.
#[derive(Default)]
pub struct Stopwatch {
    began_us: u64,
    /// Messages that turns have fanned out and that are not written yet, oldest first.
    unwritten: VecDeque<Batch>,
    /// What it has measured.
    pub times: Times,
}

/// The messages of a turn.
struct Batch {
    /// When the oldest of them was read from its publisher.
    since_us: u64,
    /// They are written once the queue has come this far.
    until: Progress,
}

impl Stopwatch {
    /// The poll is over.
    pub fn begin(&mut self, now_us: u64) {
        self.began_us = now_us;
    }

    /// The turn fanned out messages to connections that are written to before `until`. `age_us`: how long before this turn the
    /// oldest message was read from its publisher.
    pub fn add(&mut self, age_us: u32, until: Progress) {
        let since_us = self.began_us.saturating_sub(u64::from(age_us));
        if self.unwritten.len() < BATCHES_MAX {
            return self.unwritten.push_back(Batch { since_us, until });
        }
        if let Some(last) = self.unwritten.back_mut() {
            *last = Batch { since_us: last.since_us.min(since_us), until: last.until.max(until) };
        }
    }

    /// The flush is over, and has come to `written`: everything before was offered to the kernel. What the kernel did not take
    /// waits for its reader, which is not a delay of the server.
    pub fn end(&mut self, now_us: u64, written: Progress) {
        self.times.turn.observe(now_us.saturating_sub(self.began_us));
        // Looks at every batch, because output that is soon does not wait for the bulk of an earlier turn.
        let Stopwatch { unwritten, times, .. } = self;
        unwritten.retain(|batch| {
            let has_passed = written.has_passed(batch.until);
            if has_passed {
                times.written.observe(now_us.saturating_sub(batch.since_us));
            }
            !has_passed
        });
    }
}

/// Turns that are timed separately; the messages of later turns count as one batch.
const BATCHES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(watch: &Stopwatch) -> (u64, u64) {
        (watch.times.written.counts.iter().sum(), watch.times.written.sum_us)
    }

    #[test]
    fn the_messages_of_a_turn_count_once_when_the_last_of_them_is_written() {
        let progress = |soon, bulk| Progress { soon, bulk };
        let mut watch = Stopwatch::default();
        watch.begin(1000);
        watch.add(0, progress(3, 100));
        watch.end(1100, progress(3, 99));
        assert_eq!(written(&watch), (0, 0));
        watch.begin(1200);
        watch.add(500, progress(9, 100));
        watch.end(1300, progress(8, 100));
        assert_eq!(written(&watch), (1, 300), "the second turn's do not hold the first turn's up");
        watch.begin(1400);
        watch.end(1500, progress(9, 100));
        assert_eq!(written(&watch), (2, 300 + 800));
        watch.begin(2000);
        watch.end(2010, progress(9, 100));
        assert_eq!(written(&watch), (2, 300 + 800));
        assert_eq!((watch.times.turn.sum_us, watch.times.turn.counts.iter().sum::<u64>()), (310, 4));
    }

    #[test]
    fn soon_output_is_timed_without_the_bulk_before_it() {
        let mut watch = Stopwatch::default();
        watch.begin(1000);
        watch.add(0, Progress { soon: 0, bulk: 100 });
        watch.add(0, Progress { soon: 7, bulk: 0 });
        watch.end(1200, Progress { soon: 7, bulk: 50 });
        assert_eq!(written(&watch), (1, 200));
        watch.end(1900, Progress { soon: 7, bulk: 100 });
        assert_eq!(written(&watch), (2, 200 + 900));
    }

    #[test]
    fn turns_that_count_as_one_wait_for_all_their_lanes() {
        let mut watch = Stopwatch::default();
        for turn in 1..BATCHES_MAX as u64 {
            watch.add(0, Progress { soon: 0, bulk: turn });
        }
        watch.add(0, Progress { soon: 7, bulk: 0 });
        watch.add(0, Progress { soon: 0, bulk: 1000 });
        watch.end(1, Progress { soon: 6, bulk: 1000 });
        assert_eq!(watch.unwritten.len(), 1);
        watch.end(1, Progress { soon: 7, bulk: 1000 });
        assert_eq!(watch.unwritten.len(), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_counts() {
        let mut watch = Stopwatch::default();
        for turn in 1..=2 * BATCHES_MAX as u64 {
            watch.begin(turn);
            watch.add(0, Progress { soon: 0, bulk: turn });
        }
        assert_eq!(watch.unwritten.len(), BATCHES_MAX);
        watch.begin(10_000);
        watch.end(10_000, Progress { soon: 0, bulk: 2 * BATCHES_MAX as u64 - 1 });
        assert_eq!(watch.unwritten.len(), 1);
        watch.end(10_000, Progress { soon: 0, bulk: 2 * BATCHES_MAX as u64 });
        let ages = (1..=BATCHES_MAX as u64).map(|since| 10_000 - since).sum();
        assert_eq!(written(&watch), (BATCHES_MAX as u64, ages));
    }
}
