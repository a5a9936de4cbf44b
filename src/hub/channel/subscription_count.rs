//! Decides when the number of a channel's subscribers is told, to backends and to subscribers whose protocol has such an event:
//! at each change up to [`EACH_MAX`] subscribers, above that at most every few seconds.

use super::presence::timers::{Place, Timers};
use ahash::RandomState;
use std::collections::HashMap;

/// The channels of a shard. A channel is named by its index in the directory.
#[derive(Default)]
pub struct SubscriptionCounts {
    is_on: bool,
    /// Channels whose count was told a short time ago, when it was above [`EACH_MAX`].
    paused: HashMap<u32, Pause, RandomState>,
}

struct Pause {
    timer: Place,
    /// Whether the count has changed since it was told.
    has_changed: bool,
}

impl SubscriptionCounts {
    /// Turns counts on or off.
    pub fn set(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    /// Whether counts are told.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// The count has changed. Returns whether it is told now.
    pub fn changed(&mut self, channel: u32, count: u64, now: u32, timers: &mut Timers) -> bool {
        match self.paused.get_mut(&channel) {
            Some(pause) => {
                pause.has_changed = count > EACH_MAX;
                !pause.has_changed
            }
            None => {
                self.pause(channel, count, now, timers);
                true
            }
        }
    }

    /// The timer of a channel has fired. Returns whether its count is told now.
    pub fn fired(&mut self, channel: u32, count: u64, now: u32, timers: &mut Timers) -> bool {
        let has_changed = self.paused.remove(&channel).is_some_and(|pause| pause.has_changed) && self.is_on;
        if has_changed {
            self.pause(channel, count, now, timers);
        }
        has_changed
    }

    /// The channel is removed.
    pub fn end(&mut self, channel: u32, timers: &mut Timers) {
        if let Some(pause) = self.paused.remove(&channel) {
            timers.subscription_counts.remove(pause.timer);
        }
    }

    fn pause(&mut self, channel: u32, count: u64, now: u32, timers: &mut Timers) {
        if count > EACH_MAX {
            let timer = timers.subscription_counts.push(now, channel);
            self.paused.insert(channel, Pause { timer, has_changed: false });
        }
    }
}

/// Most subscribers of a channel whose every change is told.
pub const EACH_MAX: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::presence::timers::Due;

    /// A channel, and what was told: at which tick, and how many.
    struct Room {
        counts: SubscriptionCounts,
        timers: Timers,
        subscribers: u64,
        told: Vec<(u32, u64)>,
    }

    impl Room {
        fn new() -> Room {
            let mut counts = SubscriptionCounts::default();
            counts.set(true);
            Room { counts, timers: Timers::new(0), subscribers: 0, told: Vec::new() }
        }

        fn becomes(&mut self, subscribers: u64, now: u32) {
            self.subscribers = subscribers;
            if self.counts.changed(7, subscribers, now, &mut self.timers) {
                self.told.push((now, subscribers));
            }
        }

        fn pass(&mut self, now: u32) {
            while let Some(due) = self.timers.next(now) {
                assert_eq!(due, Due::SubscriptionCount { channel: 7 });
                if self.counts.fired(7, self.subscribers, now, &mut self.timers) {
                    self.told.push((now, self.subscribers));
                }
            }
        }
    }

    #[test]
    fn up_to_a_hundred_every_change_is_told() {
        let mut room = Room::new();
        (1..=100).chain([99, 100, 0]).for_each(|subscribers| room.becomes(subscribers, 1));
        assert_eq!(room.told.len(), 103);
        assert_eq!(room.timers.due_in(1), None);
    }

    #[test]
    fn beyond_a_hundred_a_change_is_told_every_five_seconds() {
        let mut room = Room::new();
        for now in 0..200 {
            room.pass(now);
            room.becomes(101 + u64::from(now), now);
        }
        room.pass(300);
        assert_eq!(room.told, [(0, 101), (51, 151), (102, 202), (153, 253), (300, 300)]);
        room.pass(400);
        assert_eq!(room.told.len(), 5, "nothing has changed");
        assert_eq!(room.timers.due_in(400), None);
        room.becomes(299, 401);
        assert_eq!(room.told[5..], [(401, 299)]);
    }

    #[test]
    fn a_channel_that_shrinks_is_told_at_once() {
        let mut room = Room::new();
        room.becomes(101, 0);
        room.becomes(102, 1);
        room.becomes(100, 2);
        room.becomes(101, 3);
        room.becomes(99, 4);
        room.pass(100);
        assert_eq!(room.told, [(0, 101), (2, 100), (4, 99)]);
    }

    #[test]
    fn a_removed_channel_leaves_no_timer() {
        let mut room = Room::new();
        room.becomes(101, 0);
        room.counts.end(7, &mut room.timers);
        assert_eq!(room.timers.due_in(0), None);
    }
}
