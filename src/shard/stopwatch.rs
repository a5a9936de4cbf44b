//! How long turns take, and messages until they are written: two reads of the clock a turn, whatever happens in it.

use crate::metrics::Times;

/// The stopwatch of a shard. Times are microseconds since the server started.
#[derive(Default)]
pub struct Stopwatch {
    began_us: u64,
    /// When the oldest message that is not yet written was read from its publisher.
    unwritten_since_us: Option<u64>,
    /// What it has measured.
    pub times: Times,
}

impl Stopwatch {
    /// The poll is over.
    pub fn begin(&mut self, now_us: u64) {
        self.began_us = now_us;
    }

    /// The turn laid messages out. The oldest was read from its publisher so long before this turn began.
    pub fn laid(&mut self, age_us: u32) {
        let since = self.began_us.saturating_sub(u64::from(age_us));
        self.unwritten_since_us = Some(self.unwritten_since_us.map_or(since, |other| other.min(since)));
    }

    /// The flush is over. `is_all_written`: the kernel was offered everything. What it did not take waits for its reader, and
    /// is no delay of ours.
    pub fn end(&mut self, now_us: u64, is_all_written: bool) {
        self.times.turn.observe(now_us.saturating_sub(self.began_us));
        if is_all_written && let Some(since) = self.unwritten_since_us.take() {
            self.times.written.observe(now_us.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_message_counts_once_all_is_written() {
        let mut watch = Stopwatch::default();
        watch.begin(1000);
        watch.laid(0);
        watch.end(1100, false);
        watch.begin(1200);
        watch.laid(500);
        watch.laid(100);
        watch.end(1400, true);
        watch.begin(2000);
        watch.end(2010, true);
        assert_eq!((watch.times.turn.sum_us, watch.times.turn.counts.iter().sum::<u64>()), (310, 3));
        assert_eq!((watch.times.written.sum_us, watch.times.written.counts.iter().sum::<u64>()), (700, 1));
    }
}
