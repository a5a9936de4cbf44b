//! The messages in flight: a ring with a counter for each, of the subscribers that it has not reached.
//!
//! The counter of a message is set before it is published, when its slot becomes free, from the number of subscribers of its
//! channel. So a worker that does not publish needs no word of publishes.

/// The messages in flight to the subscribers of one worker.
pub struct Ring {
    /// Subscribers of this worker that the message has not reached.
    missing: Vec<u32>,
    /// When it was due.
    sent_ns: Vec<u64>,
    /// Subscribers of this worker, by channel.
    subscribers: Vec<u32>,
    total: u32,
    mask: u32,
    /// Every message below has reached all subscribers of this worker.
    front: u32,
    front_moved: bool,
    /// Messages that have reached all subscribers of this worker, in any order.
    completed: u32,
    published: u32,
    /// With several workers: every message below has reached all subscribers of all of them.
    reported: u32,
    is_shared: bool,
}

impl Ring {
    /// A ring for at least `room` messages in flight on `channels` channels.
    pub fn new(channels: u32, room: u32) -> Ring {
        let capacity = room.max(channels.saturating_mul(2)).next_power_of_two();
        Ring {
            missing: vec![0; capacity as usize],
            sent_ns: vec![0; capacity as usize],
            subscribers: vec![0; channels as usize],
            total: 0,
            mask: capacity - 1,
            front: 0,
            front_moved: false,
            completed: 0,
            published: 0,
            reported: 0,
            is_shared: false,
        }
    }

    /// The number of slots.
    pub fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// Adds a subscriber, before [`Ring::begin`].
    pub fn subscribe(&mut self, channel: u32) {
        self.subscribers[channel as usize] += 1;
        self.total += 1;
    }

    /// Sets the counters, once all subscribers are added.
    pub fn begin(&mut self) {
        for number in 0..self.capacity() {
            self.missing[number as usize] = self.subscribers_of(number);
        }
        self.advance();
    }

    /// Removes a subscriber that expected `next`: no message waits for it from now on.
    pub fn unsubscribe(&mut self, channel: u32, next: u32) {
        let channels = self.subscribers.len() as u32;
        self.subscribers[channel as usize] -= 1;
        self.total -= 1;
        let end = self.front.saturating_add(self.capacity());
        let mut number = next;
        if number < self.front {
            number += (self.front - number).div_ceil(channels) * channels;
        }
        while number < end {
            self.deliver(number);
            number += channels;
        }
        self.advance();
    }

    /// Records a message before it is published.
    pub fn publish(&mut self, number: u32, due_ns: u64) {
        self.sent_ns[(number & self.mask) as usize] = due_ns;
        self.published = number + 1;
        self.completed += u32::from(self.subscribers_of(number) == 0);
    }

    /// Records that a message has reached a subscriber. If that was the last one, returns when the message was due.
    #[inline]
    pub fn deliver(&mut self, number: u32) -> Option<u64> {
        let slot = (number & self.mask) as usize;
        if number.wrapping_sub(self.front) > self.mask {
            // Its slot belongs to another message.
            return None;
        }
        self.missing[slot] = self.missing[slot].checked_sub(1)?;
        if self.missing[slot] > 0 {
            return None;
        }
        let sent_ns = self.sent_ns[slot];
        self.completed += u32::from(number < self.published);
        if number == self.front {
            self.advance();
        }
        (number < self.published && !self.is_shared).then_some(sent_ns)
    }

    /// Every message below has reached all subscribers of this worker.
    pub fn front(&self) -> u32 {
        self.front
    }

    /// Whether the front has moved since the last call.
    pub fn take_front_moved(&mut self) -> bool {
        std::mem::take(&mut self.front_moved)
    }

    /// Messages that have reached all subscribers of this worker, in any order.
    pub fn completed(&self) -> u32 {
        self.completed
    }

    /// The oldest message that still needs its slot.
    pub fn oldest(&self) -> u32 {
        if self.is_shared { self.reported.min(self.front) } else { self.front }
    }

    /// With several workers: records that every message below `front` has reached all subscribers of all workers. Calls
    /// `each` with the due time of each that is new. Returns how many are complete.
    pub fn complete_below(&mut self, front: u32, mut each: impl FnMut(u64)) -> u32 {
        self.is_shared = true;
        while self.reported < front {
            each(self.sent_ns[(self.reported & self.mask) as usize]);
            self.reported += 1;
        }
        self.reported
    }

    fn subscribers_of(&self, number: u32) -> u32 {
        self.subscribers[number as usize % self.subscribers.len()]
    }

    fn advance(&mut self) {
        self.front_moved = true;
        if self.total == 0 {
            self.front = u32::MAX;
            return;
        }
        while self.missing[(self.front & self.mask) as usize] == 0 {
            let again = self.front.wrapping_add(self.capacity());
            self.missing[(self.front & self.mask) as usize] = self.subscribers_of(again);
            self.front += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_complete_with_its_last_subscriber() {
        let mut ring = Ring::new(1, 4);
        ring.subscribe(0);
        ring.subscribe(0);
        ring.begin();
        ring.publish(0, 100);
        ring.publish(1, 200);
        assert_eq!(ring.deliver(0), None);
        assert_eq!(ring.deliver(1), None);
        assert_eq!(ring.deliver(1), Some(200), "complete, though an older one is not");
        assert_eq!((ring.front(), ring.completed()), (0, 1));
        assert_eq!(ring.deliver(0), Some(100));
        assert_eq!((ring.front(), ring.completed()), (2, 2));
    }

    #[test]
    fn slots_come_around() {
        let mut ring = Ring::new(3, 4);
        for channel in 0..3 {
            ring.subscribe(channel);
        }
        ring.begin();
        for number in 0..100 {
            ring.publish(number, u64::from(number));
            assert_eq!(ring.deliver(number), Some(u64::from(number)));
        }
        assert_eq!((ring.front(), ring.completed()), (100, 100));
    }

    #[test]
    fn channels_without_subscribers_delay_nothing() {
        let mut ring = Ring::new(4, 8);
        ring.subscribe(2);
        ring.begin();
        for number in 0..8 {
            ring.publish(number, 1);
        }
        assert_eq!(ring.completed(), 6);
        assert_eq!(ring.deliver(2), Some(1));
        assert_eq!(ring.deliver(6), Some(1));
        assert_eq!(ring.completed(), 8);
        assert!(ring.front() >= 8);
    }

    #[test]
    fn nothing_waits_for_a_subscriber_that_left() {
        let mut ring = Ring::new(1, 4);
        ring.subscribe(0);
        ring.subscribe(0);
        ring.begin();
        ring.publish(0, 1);
        ring.publish(1, 1);
        ring.deliver(0);
        ring.deliver(1);
        ring.unsubscribe(0, 0);
        assert_eq!((ring.front(), ring.completed()), (2, 2));
        ring.publish(2, 7);
        assert_eq!(ring.deliver(2), Some(7));
    }
}
