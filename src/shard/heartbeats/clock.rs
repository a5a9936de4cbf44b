//! The clock that measures silence.

use super::wheel::ticks;
use std::time::Duration;

/// The monotonic clock, in ticks, without the time in which the shard stood still. While it does not poll it cannot ping
/// clients, so that time does not count as their silence. That covers a stopped process, a suspended machine, and a clock that
/// jumps ahead.
#[derive(Default)]
pub struct ShardClock {
    monotonic: u32,
    now: u32,
}

impl ShardClock {
    /// The monotonic clock stands at tick `monotonic`, after a poll with this timeout. Returns the tick of this clock.
    pub fn advance(&mut self, monotonic: u32, timeout: Option<Duration>) -> u32 {
        let passed = monotonic.wrapping_sub(std::mem::replace(&mut self.monotonic, monotonic));
        // The poll has no timeout only if the shard has no connection whose time counts.
        let counted_max = timeout.map_or(u32::MAX, |timeout| ticks(timeout.as_millis() as u64) + TURN_TICKS_MAX);
        self.now = self.now.wrapping_add(passed.min(counted_max));
        self.now
    }
}

/// A second: what a turn may take beside its poll before it counts as standing still.
const TURN_TICKS_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_beyond_the_poll_and_a_second_does_not_count() {
        let mut clock = ShardClock::default();
        assert_eq!(clock.advance(u32::MAX, None), u32::MAX);
        assert_eq!(clock.advance(4, Some(Duration::ZERO)), 4);
        assert_eq!(clock.advance(14, Some(Duration::ZERO)), 14);
        assert_eq!(clock.advance(36_014, Some(Duration::ZERO)), 24);
        assert_eq!(clock.advance(36_064, Some(Duration::from_secs(5))), 74);
        assert_eq!(clock.advance(72_064, Some(Duration::from_secs(5))), 134);
        assert_eq!(clock.advance(108_064, None), 36_134);
    }
}
