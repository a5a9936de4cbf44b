//! Connections that have lasted long enough: closed one after the other, so that their clients spread anew over the servers
//! behind a load balancer.
//!
//! No connection keeps its own time of leaving: it follows from when it was accepted and from chance that can be thrown
//! again. The entry in the wheel that looks after heartbeats looks after age too.

use super::{Clients, ticks};
use crate::config::Limits;
use crate::hub::Hub;
use crate::hub::mail::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::clients::leaving::lone_wait_ms;

impl Clients {
    /// The tick at which an open connection has to be looked at that is to be looked at by `at`.
    pub(super) fn no_later_than_age(&self, slot: Slot, at: u32) -> u32 {
        match self.retires_at(slot) {
            Some(retires_at) if (retires_at.wrapping_sub(at) as i32) < 0 => retires_at,
            _ => at,
        }
    }

    pub(super) fn is_too_old(&self, slot: Slot, until: u32) -> bool {
        self.retires_at(slot).is_some_and(|at| until.wrapping_sub(at) as i32 >= 0)
    }

    /// It has lasted long enough.
    pub(super) fn retire(&mut self, slot: Slot, hub: &mut Hub) {
        let retry_after_ms = lone_wait_ms(self.random.hash_one((slot, self.now)));
        self.close(slot, CloseReason::TooOld { retry_after_ms }, hub);
    }

    /// `limits` are about to take the place of the present ones.
    pub(super) fn remember_age(&mut self, limits: &Limits) {
        if limits.connection_age_max_s != self.live.limits.connection_age_max_s {
            self.aged_since = self.now;
        }
    }

    /// `None`: connections may become as old as they like.
    fn retires_at(&self, slot: Slot) -> Option<u32> {
        let age_max_s = self.live.limits.connection_age_max_s;
        (age_max_s > 0).then(|| {
            let accepted_at = self.connections[slot as usize].accepted_at;
            retires_at(accepted_at, self.aged_since, age_max_s, self.random.hash_one((accepted_at, slot)))
        })
    }
}

/// Somewhere in the last quarter of the time. Those who were older than three quarters when the limit came into force, at tick
/// `since`, have a quarter of the time from then on.
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
    use crate::shard::trial::House;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn nobody_lasts_longer_than_allowed_or_much_shorter(
            accepted_at: u32, age_max_s in 1_u32..=31_536_000, chance: u64,
        ) {
            let age = retires_at(accepted_at, accepted_at, age_max_s, chance).wrapping_sub(accepted_at);
            let age_max = age_max_s * 10;
            prop_assert!((age_max - age_max / 4..=age_max).contains(&age), "{age} of {age_max}");
        }

        #[test]
        fn a_limit_that_comes_later_gives_everybody_some_of_a_quarter(
            accepted_at: u32, age in 0_u32..100_000_000, age_max_s in 1_u32..=31_536_000, chance: u64,
        ) {
            let since = accepted_at.wrapping_add(age);
            let left = retires_at(accepted_at, since, age_max_s, chance).wrapping_sub(since);
            prop_assert!(left as i32 >= 0 && left <= age_max_s * 10);
            prop_assert!(age < age_max_s * 10 || left <= age_max_s * 10 / 4, "{left}");
        }
    }

    #[test]
    fn who_came_together_is_not_closed_together() {
        let mut house = House::new(1, |live| live.limits.connection_age_max_s = 20);
        let clients = house.connect(0, 40);
        let mut steps = 0;
        let mut closed = 0;
        while closed < clients.len() as u64 {
            house.pass(Duration::from_secs(1));
            house.rest();
            let before = closed;
            closed = house.shards[0].clients.closes[CloseReason::TooOld { retry_after_ms: 0 }.kind()];
            steps += usize::from(closed > before);
        }
        assert!(steps > 1, "all at once");
    }

    #[test]
    fn who_came_together_does_not_leave_together() {
        let mut ends: Vec<u32> = (0..1000).map(|chance| retires_at(0, 0, 3600, chance)).collect();
        ends.dedup();
        assert_eq!(ends.len(), 1000);
    }
}
