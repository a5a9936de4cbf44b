//! The count of connections that subscribers of a channel with `presence = "count"` are told.

use super::timers::{Place, Timers};

/// What the subscribers of one channel know about its count. The count itself is the directory's.
#[derive(Default)]
pub struct Count {
    /// The count that every subscriber was told last; `None`: not all were told the same.
    known: Option<u64>,
    /// The timer of the next message.
    timer: Option<Place>,
}

impl Count {
    /// A connection has joined, and its reply says that there are `count`, itself included.
    pub fn joined(&mut self, channel: u32, count: u64, now: u32, timers: &mut Timers) {
        if count == 1 {
            self.known = Some(1);
        } else if self.known != Some(count) {
            self.known = None;
        }
        self.changed(channel, count, now, timers);
    }

    /// There are now `count` connections, because one has left or because the subscribers are told from now on.
    pub fn changed(&mut self, channel: u32, count: u64, now: u32, timers: &mut Timers) {
        if self.known != Some(count) && count > 0 && self.timer.is_none() {
            self.timer = Some(timers.counts.push(now, channel));
        }
    }

    /// The timer has fired. Returns whether the subscribers must be told that there are `count`.
    pub fn told(&mut self, count: u64) -> bool {
        self.timer = None;
        count > 0 && self.known.replace(count) != Some(count)
    }

    /// The channel ends, or its subscribers stop being told.
    pub fn end(self, timers: &mut Timers) {
        if let Some(timer) = self.timer {
            timers.counts.remove(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::presence::timers::Due;
    use proptest::prelude::*;

    /// A channel whose subscribers are told the count when a timer fires.
    struct Room {
        count: Count,
        connections: u64,
        timers: Timers,
        told: Vec<(u32, u64)>,
    }

    impl Room {
        fn new(connections: u64) -> Room {
            let (mut count, mut timers) = (Count::default(), Timers::new(3000));
            (1..=connections).for_each(|now| count.joined(7, now, 0, &mut timers));
            let mut room = Room { count, connections, timers, told: Vec::new() };
            room.pass(100);
            room.told.clear();
            room
        }

        fn join(&mut self, now: u32) {
            self.connections += 1;
            self.count.joined(7, self.connections, now, &mut self.timers);
        }

        fn leave(&mut self, now: u32) {
            self.connections -= 1;
            self.count.changed(7, self.connections, now, &mut self.timers);
        }

        fn pass(&mut self, now: u32) {
            while let Some(due) = self.timers.next(now) {
                assert_eq!(due, Due::Count { channel: 7 });
                if self.count.told(self.connections) {
                    self.told.push((now, self.connections));
                }
            }
        }
    }

    #[test]
    fn many_changes_in_a_second_make_one_message() {
        let mut room = Room::new(2);
        for now in 100..150 {
            room.join(now);
            room.pass(now);
        }
        room.pass(200);
        assert_eq!(room.told, [(111, 14), (123, 26), (135, 38), (147, 50), (200, 52)]);
        assert_eq!(room.timers.due_in(200), None);
    }

    #[test]
    fn a_count_that_has_not_changed_is_not_told() {
        let mut room = Room::new(2);
        room.leave(100);
        room.join(101);
        room.pass(200);
        assert_eq!(room.told, [], "the reply of the newcomer had the count that the others knew");
    }

    #[test]
    fn a_newcomer_that_was_told_another_count_is_told_the_count() {
        let mut room = Room::new(2);
        room.join(100);
        room.leave(101);
        room.pass(200);
        assert_eq!(room.told, [(200, 2)], "the newcomer was told 3");
    }

    #[test]
    fn a_channel_without_subscribers_is_told_nothing() {
        let mut room = Room::new(1);
        assert_eq!(room.timers.due_in(100), None, "its only subscriber knows the count by its reply");
        room.leave(100);
        assert_eq!(room.timers.due_in(100), None);
        room.join(100);
        assert_eq!(room.timers.due_in(100), None);
        room.join(100);
        room.leave(100);
        room.leave(100);
        room.pass(200);
        assert_eq!(room.told, []);
    }

    #[test]
    fn an_ended_channel_leaves_no_timer() {
        let mut room = Room::new(1);
        room.join(100);
        assert_eq!(room.timers.due_in(100), Some(11));
        std::mem::take(&mut room.count).end(&mut room.timers);
        assert_eq!(room.timers.due_in(100), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Messages of a channel are more than a second apart. Soon after the last change, each subscriber was told the
        /// count, by its reply or by a message.
        #[test]
        fn each_subscriber_learns_the_count(steps in prop::collection::vec((0_u32..3, 0_usize..9, 0_u32..15), 1..100)) {
            let mut room = Room::new(0);
            let (mut known, mut now) = (Vec::new(), 100);
            for (what, which, ticks) in steps.into_iter().chain([(2, 0, 11)]) {
                match what {
                    0 => {
                        room.join(now);
                        known.push(room.connections);
                    }
                    1 if !known.is_empty() => {
                        known.swap_remove(which % known.len());
                        room.leave(now);
                    }
                    _ => {
                        now += ticks;
                        let earlier = room.told.len();
                        room.pass(now);
                        if let Some(&(_, count)) = room.told.get(earlier) {
                            known.fill(count);
                        }
                    }
                }
            }
            prop_assert!(known.iter().all(|&count| count == room.connections), "{known:?} of {}", room.connections);
            prop_assert!(room.told.windows(2).all(|pair| pair[1].0 - pair[0].0 > 10), "{:?}", room.told);
            prop_assert_eq!(room.timers.due_in(now), None);
        }
    }
}
