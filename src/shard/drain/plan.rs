//! The plan of a drain or shed: connections are asked to leave a few at a time, in random order, evenly over a time. Each is
//! told how long to wait before it reconnects, so that neither this server nor another has to handle all of them at once.

use crate::ids::Slot;
use crate::shard::heartbeats::wheel::ticks;

/// The connections that are still to leave, and when. Pure: the caller passes in time and random numbers.
pub struct Plan {
    why: Why,
    /// Those that have not been drawn, in no order: 8 bytes for each, until the plan is over.
    waiting: Vec<Leaver>,
    /// How many are drawn in all.
    count: usize,
    /// How many have been drawn.
    drawn: usize,
    begun_at: u32,
    over_ticks: u32,
    /// The point in its share of the time at which each is drawn, in 256ths from 1. So shards do not close in step, and a long
    /// drain does not begin with a close.
    shift: u16,
    /// The largest difference between the waits of connections that leave.
    waits_ms: u32,
}

/// Identifies a connection: a later one in the same slot has a later tick. One that was accepted in the same tick leaves in its
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// Its slot.
    pub slot: Slot,
    /// The tick at which it was accepted.
    pub accepted_at: u32,
}

/// Why connections are asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The server is going down: all connections, also those that are not upgraded.
    Drained,
    /// This server has too many connections.
    Shed,
    /// The server stops: all connections that are left.
    Stopped {
        /// The tick until which they may read what they were sent before.
        deadline: u32,
    },
}

impl Plan {
    /// Plans for `count` of these to leave over this time. `chance` is a random number.
    pub fn new(why: Why, waiting: Vec<Leaver>, count: usize, now: u32, over_ms: u64, chance: u64) -> Plan {
        let count = count.min(waiting.len());
        let rush_ms = (count as u64 * RETURN_MS).saturating_sub(over_ms);
        let waits_ms = rush_ms.clamp(WAITS_MS_MIN, WAITS_MS_MAX) as u32;
        Plan {
            why,
            waiting,
            count,
            drawn: 0,
            begun_at: now,
            over_ticks: ticks(over_ms),
            shift: chance as u16 % 256 + 1,
            waits_ms,
        }
    }

    /// The next connection that is to leave by now. `chance` is a new random number each time.
    pub fn next(&mut self, now: u32, chance: u64) -> Option<Leaver> {
        if self.due_in(now)? > 0 {
            return None;
        }
        self.drawn += 1;
        let at = chance % self.waiting.len() as u64;
        Some(self.waiting.swap_remove(at as usize))
    }

    /// Ticks until the next connection is to leave; `None`: all have been drawn.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        (self.left() > 0).then(|| {
            let share = ((self.drawn as u64) << 8) + u64::from(self.shift);
            let after = u64::from(self.over_ticks) * share / ((self.count as u64) << 8);
            (self.begun_at.wrapping_add(after as u32).wrapping_sub(now) as i32).max(0) as u32
        })
    }

    /// How many are still to leave.
    pub fn left(&self) -> usize {
        self.count - self.drawn
    }

    /// How many have been drawn.
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// Why they leave.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The largest difference between their waits, for [`wait_ms`].
    pub fn waits_ms(&self) -> u32 {
        self.waits_ms
    }
}

/// How long a connection that leaves alone waits before it reconnects.
pub fn lone_wait_ms(chance: u64) -> u32 {
    wait_ms(WAITS_MS_MIN as u32, chance)
}

/// How long a connection that leaves waits before it reconnects: long enough for a proxy to notice that this server is not
/// ready.
pub fn wait_ms(waits_ms: u32, chance: u64) -> u32 {
    WAIT_MS_MIN + (chance % u64::from(waits_ms)) as u32
}

/// The shortest wait that a connection is told.
const WAIT_MS_MIN: u32 = 500;
/// Clients reconnect to a server like this one. A core does 14 000 handshakes a second, 3 000 with TLS; with one in this many
/// milliseconds it is mostly free. If a plan is faster, longer waits make up for it.
const RETURN_MS: u64 = 1;
const WAITS_MS_MIN: u64 = 2_000;
const WAITS_MS_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::heartbeats::wheel::TICK_MS;
    use crate::shard::orders::Order;
    use crate::shard::trial::House;
    use proptest::prelude::*;
    use std::net::TcpStream;
    use std::time::Duration;

    fn leavers(count: usize) -> Vec<Leaver> {
        (0..count as u32).map(|slot| Leaver { slot, accepted_at: 7 }).collect()
    }

    /// Random numbers from a seed.
    fn dice(seed: u64) -> impl FnMut() -> u64 {
        let random = ahash::RandomState::with_seeds(seed, 2, 3, 4);
        let mut throws = 0_u64;
        move || {
            throws += 1;
            random.hash_one(throws)
        }
    }

    /// The slots in the order of leaving, with the tick after the beginning. The plan is asked only when it says that one is
    /// due.
    fn run(mut plan: Plan, mut now: u32, dice: &mut impl FnMut() -> u64) -> Vec<(u32, Slot)> {
        let begun_at = now;
        let mut left = Vec::new();
        while let Some(due_in) = plan.due_in(now) {
            now = now.wrapping_add(due_in);
            let leaver = plan.next(now, dice()).expect("it is due");
            left.push((now.wrapping_sub(begun_at), leaver.slot));
        }
        assert_eq!(plan.left(), 0);
        left
    }

    proptest! {
        #[test]
        fn every_connection_leaves_once_and_evenly_over_the_time(
            count in 1_usize..400, over_ms in 0_u64..100_000, begun_at: u32, seed: u64,
        ) {
            let mut dice = dice(seed);
            let plan = Plan::new(Why::Shed, leavers(count), count, begun_at, over_ms, dice());
            let left = run(plan, begun_at, &mut dice);
            let mut slots: Vec<Slot> = left.iter().map(|&(_, slot)| slot).collect();
            slots.sort_unstable();
            prop_assert!(slots.into_iter().eq(0..count as u32));
            let over = ticks(over_ms);
            for parts in [2, 3, 10] {
                for part in 0..parts {
                    let (start, end) = (over * part / parts, over * (part + 1) / parts);
                    let here = left.iter().filter(|(at, _)| (start..end.max(start + 1)).contains(at)).count();
                    let share = count as f64 * f64::from(end - start) / f64::from(over.max(1));
                    // A tick is drawn at once, so shares are exact up to one tick's.
                    let slack = 1.0 + count as f64 / f64::from(over.max(1));
                    prop_assert!(over < parts || (here as f64 - share).abs() <= slack, "{here} of {share} in {start}..{end}");
                }
            }
        }

        #[test]
        fn a_plan_is_over_in_its_time(count in 1_usize..100, over_ms in 0_u64..=3_600_000, shift: u64) {
            let mut plan = Plan::new(Why::Shed, leavers(count), count, 0, over_ms, shift);
            plan.drawn = count - 1;
            prop_assert!(plan.due_in(0).is_some_and(|last| u64::from(last) * TICK_MS <= over_ms.next_multiple_of(TICK_MS)));
        }
    }

    #[test]
    fn a_connection_that_is_not_upgraded_is_not_shed_in_place_of_another() {
        let mut house = House::new(1, |_| ());
        loop {
            let leaver = house.connect(0, 1);
            let came_at = house.shards[0].clients.now;
            let (begun, _) = crossbeam_channel::bounded(1);
            house.order(0, Order::Shed { count: 1, over_ms: 5000, begun });
            house.rest();
            drop(leaver);
            house.rest();
            let newcomer = TcpStream::connect(house.addresses[0]).expect("the shard listens");
            house.rest();
            if house.shards[0].clients.now == came_at {
                house.pass(Duration::from_secs(5));
                house.rest();
                assert!(house.shards[0].clients.is_upgrading() && house.shards[0].clients.leaving() == 0);
                return;
            }
            // The clock has ticked in between: tries again.
            drop(newcomer);
            house.rest();
        }
    }

    #[test]
    fn no_more_leave_than_the_count() {
        let mut dice = dice(1);
        assert_eq!(run(Plan::new(Why::Shed, leavers(100), 17, 0, 1000, dice()), 0, &mut dice).len(), 17);
        assert_eq!(run(Plan::new(Why::Shed, leavers(3), 17, 0, 1000, dice()), 0, &mut dice).len(), 3);
        assert_eq!(run(Plan::new(Why::Shed, Vec::new(), 17, 0, 1000, dice()), 0, &mut dice).len(), 0);
    }

    #[test]
    fn the_order_differs_each_time() {
        let order = |seed| {
            let mut dice = dice(seed);
            run(Plan::new(Why::Shed, leavers(100), 100, 0, 1000, dice()), 0, &mut dice)
        };
        assert_ne!(order(1), order(2));
        assert!(!order(1).is_sorted_by_key(|&(_, slot)| slot));
    }

    #[test]
    fn a_long_drain_does_not_begin_with_a_close() {
        for chance in 0..512 {
            let plan = Plan::new(Why::Drained, leavers(1), 1, 0, 3_600_000, chance);
            assert!(plan.due_in(0).is_some_and(|first| u64::from(first) * TICK_MS >= 14_000));
        }
    }

    #[test]
    fn a_plan_for_a_hundred_million_over_an_hour_does_not_overflow() {
        let plan = Plan { drawn: 99_999_999, ..Plan::new(Why::Shed, Vec::new(), 0, 0, 3_600_000, 255) };
        let plan = Plan { count: 100_000_000, ..plan };
        assert_eq!(plan.due_in(0), Some(36_000));
    }

    #[test]
    fn waits_differ_and_are_longer_for_a_fast_plan() {
        let mut dice = dice(1);
        let mut waits = |count, over_ms| {
            let plan = Plan::new(Why::Shed, leavers(count), count, 0, over_ms, dice());
            let waits: Vec<u32> = (0..10_000).map(|_| wait_ms(plan.waits_ms, dice())).collect();
            let (least, most) = (waits.iter().min().copied(), waits.iter().max().copied());
            (least.expect("waits") / 100, most.expect("waits").div_ceil(100))
        };
        assert_eq!(waits(1000, 60_000), (5, 25));
        assert_eq!(waits(30_000, 10_000), (5, 205));
        assert_eq!(waits(200_000, 0), (5, 605));
    }
}
