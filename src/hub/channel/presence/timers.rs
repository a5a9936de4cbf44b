//! What the channels of a shard wait for: the end of users' graces, and the next message with a count.

use crate::hub::admission::bucket::{TICKS_PER_S, ticks_between};
use std::collections::BTreeMap;

/// The timers of all channels that a shard owns. A channel is named by its index in the directory.
pub struct Timers {
    /// Users without connections, in the order in which they left: channel, and number of the user in it.
    pub(super) leaving: Queue<(u32, u64)>,
    /// Channels whose subscribers must be told the count.
    pub(super) counts: Queue<u32>,
    /// Channels whose subscription count was told a short time ago.
    pub(in crate::hub::channel) subscription_counts: Queue<u32>,
    /// Ticks between the end of a user's last connection and its removal; 0: it is removed at once.
    grace: u32,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The grace of a user has ended: [`Members::remove`](super::members::Members::remove).
    Removal {
        /// Index of the channel.
        channel: u32,
        /// Number of the user in it.
        user: u64,
        /// Whether its grace was cut short, because too many users were in theirs.
        is_early: bool,
    },
    /// Subscribers may be told the count: [`Count::told`](super::count::Count::told).
    Count {
        /// Index of the channel.
        channel: u32,
    },
    /// The subscription count may be told again:
    /// [`SubscriptionCounts::fired`](crate::hub::channel::subscription_count::SubscriptionCounts::fired).
    SubscriptionCount {
        /// Index of the channel.
        channel: u32,
    },
}

/// Names an entry of a queue. Later entries have greater places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Timers {
    /// No timers. Users are removed `grace_ms` after their last connection.
    pub fn new(grace_ms: u32) -> Timers {
        Timers {
            leaving: Queue::default(),
            counts: Queue::default(),
            subscription_counts: Queue::default(),
            grace: grace_ticks(grace_ms),
        }
    }

    /// Changes the grace, also of the users that are in it.
    pub fn set_grace(&mut self, grace_ms: u32) {
        self.grace = grace_ticks(grace_ms);
    }

    /// Something that is due at tick `now`, taken off the timers. To be called until it returns `None`.
    pub fn next(&mut self, now: u32) -> Option<Due> {
        let is_early = self.leaving.entries.len() > LEAVING_MAX && self.leaving.due_in(now, self.grace) != Some(0);
        let after = if is_early { 0 } else { self.grace };
        if let Some((channel, user)) = self.leaving.pop(now, after) {
            return Some(Due::Removal { channel, user, is_early });
        }
        if let Some(channel) = self.counts.pop(now, COUNT_TICKS) {
            return Some(Due::Count { channel });
        }
        let channel = self.subscription_counts.pop(now, SUBSCRIPTION_COUNT_TICKS)?;
        Some(Due::SubscriptionCount { channel })
    }

    /// Ticks until something is due.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        let dues = [
            self.leaving.due_in(now, self.grace),
            self.counts.due_in(now, COUNT_TICKS),
            self.subscription_counts.due_in(now, SUBSCRIPTION_COUNT_TICKS),
        ];
        dues.into_iter().flatten().min()
    }

    /// Users in their grace.
    pub fn leaving(&self) -> usize {
        self.leaving.entries.len()
    }

    /// Starts the grace of a user; `None`: there is none, and the user is to be removed at once.
    pub(super) fn start_grace(&mut self, channel: u32, user: u64, now: u32) -> Option<Place> {
        (self.grace > 0).then(|| self.leaving.push(now, (channel, user)))
    }
}

/// Entries that all wait equally long. So they are due in the order in which they were added, also after the time changes.
pub(in crate::hub) struct Queue<T> {
    /// Each with the tick since when it waits.
    entries: BTreeMap<Place, (u32, T)>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { entries: BTreeMap::new(), next: 0 }
    }
}

impl<T> Queue<T> {
    pub(in crate::hub) fn push(&mut self, now: u32, what: T) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.entries.insert(place, (now, what));
        place
    }

    pub(in crate::hub) fn remove(&mut self, place: Place) {
        self.entries.remove(&place);
    }

    pub(in crate::hub) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes the first entry, if it has waited for `after` ticks.
    pub(in crate::hub) fn pop(&mut self, now: u32, after: u32) -> Option<T> {
        let first = self.entries.first_entry()?;
        (ticks_between(first.get().0, now) >= after).then(|| first.remove().1)
    }

    pub(in crate::hub) fn due_in(&self, now: u32, after: u32) -> Option<u32> {
        let (since, _) = self.entries.first_key_value()?.1;
        Some(after.saturating_sub(ticks_between(*since, now)))
    }
}

/// A tick more than the time: a connection can end at any moment of a tick, and the grace is a promise.
pub(in crate::hub) fn grace_ticks(grace_ms: u32) -> u32 {
    if grace_ms == 0 { 0 } else { grace_ms.div_ceil(1000 / TICKS_PER_S) + 1 }
}

/// The same for the pause between two counts of a channel.
const COUNT_TICKS: u32 = TICKS_PER_S + 1;
/// The pause between two subscription counts of a channel, likewise.
const SUBSCRIPTION_COUNT_TICKS: u32 = 5 * TICKS_PER_S + 1;
/// Most users of a shard that are in their grace. Beyond it the oldest are removed early.
pub const LEAVING_MAX: usize = 65_536;
