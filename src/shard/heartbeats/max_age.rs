//! The maximum age of connections. They are closed one after the other, so that a load balancer distributes their clients anew.
//!
//! A connection does not store the tick at which it is closed: that follows from the tick of its accept and from a hash.

use super::wheel::ticks;

/// The limit of age.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxAge {
    /// Seconds; 0: without limit.
    max_s: u32,
    /// Tick at which this limit came into force.
    since: u32,
}

impl MaxAge {
    /// A limit that is in force from the beginning.
    pub fn new(max_s: u32) -> MaxAge {
        MaxAge { max_s, since: 0 }
    }

    /// Applies another limit from tick `now` on.
    pub fn apply(&mut self, max_s: u32, now: u32) {
        if max_s != self.max_s {
            *self = MaxAge { max_s, since: now };
        }
    }

    /// The tick at which a connection is closed for its age. `chance`: a random number, always the same for a connection.
    /// `None`: never.
    pub fn retires_at(self, accepted_at: u32, chance: impl FnOnce() -> u64) -> Option<u32> {
        (self.max_s > 0).then(|| retires_at(accepted_at, self.since, self.max_s, chance()))
    }
}

/// Somewhere in the last quarter of the time. Connections that were older than three quarters when the limit came into force, at
/// tick `since`, have a quarter of the time from then on.
fn retires_at(accepted_at: u32, since: u32, age_max_s: u32, chance: u64) -> u32 {
    let age_max = ticks(u64::from(age_max_s) * 1000);
    let window = age_max / 4;
    let begins_at = accepted_at.wrapping_add(age_max - window);
    let begins_at = if (since.wrapping_sub(begins_at) as i32) > 0 { since } else { begins_at };
    begins_at.wrapping_add((chance % u64::from(window)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::CloseReason;
    use crate::shard::trial::House;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn a_connection_ends_in_the_last_quarter_of_its_time(
            accepted_at: u32, age_max_s in 1_u32..=31_536_000, chance: u64,
        ) {
            let age = retires_at(accepted_at, accepted_at, age_max_s, chance).wrapping_sub(accepted_at);
            let age_max = age_max_s * 10;
            prop_assert!((age_max - age_max / 4..=age_max).contains(&age), "{age} of {age_max}");
        }

        #[test]
        fn a_limit_that_comes_later_leaves_every_connection_some_of_a_quarter(
            accepted_at: u32, age in 0_u32..100_000_000, age_max_s in 1_u32..=31_536_000, chance: u64,
        ) {
            let since = accepted_at.wrapping_add(age);
            let left = retires_at(accepted_at, since, age_max_s, chance).wrapping_sub(since);
            prop_assert!(left as i32 >= 0 && left <= age_max_s * 10);
            prop_assert!(age < age_max_s * 10 || left <= age_max_s * 10 / 4, "{left}");
        }
    }

    #[test]
    fn connections_that_came_together_are_not_closed_together() {
        let mut house = House::new(1, |live| live.limits.connection_age_max_s = 20);
        let clients = house.connect(0, 40);
        let mut steps = 0;
        let mut closed = 0;
        while closed < clients.len() as u64 {
            house.pass(Duration::from_secs(1));
            house.rest();
            let before = closed;
            closed = house.shards[0].clients.closes()[CloseReason::TooOld { retry_after_ms: 0 }.kind()];
            steps += usize::from(closed > before);
        }
        assert!(steps > 1, "all are closed at once");
    }

    #[test]
    fn chance_spreads_the_ends() {
        let mut ends: Vec<u32> = (0..1000).map(|chance| retires_at(0, 0, 3600, chance)).collect();
        ends.dedup();
        assert_eq!(ends.len(), 1000);
    }
}
