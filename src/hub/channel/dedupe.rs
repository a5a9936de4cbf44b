//! Publishes that must not be repeated: the keys of the last minutes, and the answers to the publishes that had them first.

use crate::protocol::channel::{Channel, ChannelName};
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::num::NonZeroU64;

/// The answer to a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Subscribers that it went to.
    pub subscribers: i64,
    /// Its offset, if the channel keeps a history.
    pub offset: Option<NonZeroU64>,
}

/// The keys of the channels that a shard owns.
pub struct Dedupe {
    hasher: RandomState,
    /// Indices into `entries`, counted from its first entry ever.
    by_key: HashTable<u64>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Number of entries that were removed.
    removed: u64,
    entries_max: usize,
    /// Heap bytes of names and keys.
    text_bytes: usize,
    /// Number of keys that were forgotten early, because there were too many.
    pub forgotten: u64,
}

struct Entry {
    hash: u64,
    channel: ChannelName,
    key: Box<str>,
    first: First,
    added_at: u32,
}

impl Dedupe {
    /// The table of one of `shards` shards.
    pub fn new(hasher: RandomState, shards: usize) -> Dedupe {
        Dedupe {
            hasher,
            by_key: HashTable::new(),
            entries: VecDeque::new(),
            removed: 0,
            entries_max: (KEYS_MAX / shards).max(1),
            text_bytes: 0,
            forgotten: 0,
        }
    }

    /// The answer to the publish that had this key first, if it is remembered.
    pub fn first(&mut self, channel: Channel<'_>, key: &str, now: u32) -> Option<First> {
        self.expire(now);
        let hash = self.hash(channel, key);
        let Dedupe { by_key, entries, removed, .. } = self;
        let entry = |number: u64| &entries[(number - *removed) as usize];
        let is_meant = |&number: &u64| entry(number).channel.as_channel() == channel && *entry(number).key == *key;
        by_key.find(hash, is_meant).map(|&number| entry(number).first)
    }

    /// The number of the key that is added next, for [`Dedupe::exclude`].
    pub fn next(&self) -> u64 {
        self.removed + self.entries.len() as u64
    }

    /// The first publish with the key of this number went to one subscriber less.
    pub fn exclude(&mut self, number: u64) {
        let index = number.checked_sub(self.removed);
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index as usize)) {
            entry.first.subscribers -= 1;
        }
    }

    /// Remembers the answer to a publish.
    pub fn add(&mut self, channel: Channel<'_>, key: &str, first: First, now: u32) {
        if self.entries.len() >= self.entries_max {
            self.remove_oldest();
            self.forgotten += 1;
        }
        let (hash, number) = (self.hash(channel, key), self.next());
        let entry = Entry { hash, channel: channel.into(), key: key.into(), first, added_at: now };
        self.text_bytes += entry.text_bytes();
        self.entries.push_back(entry);
        let Dedupe { by_key, entries, removed, .. } = self;
        by_key.insert_unique(hash, number, |&number| entries[(number - *removed) as usize].hash);
    }

    /// Removes keys that are too old.
    pub fn expire(&mut self, now: u32) {
        while self.entries.front().is_some_and(|oldest| now.wrapping_sub(oldest.added_at) >= KEPT_TICKS) {
            self.remove_oldest();
        }
        if self.entries.is_empty() && self.entries.capacity() > 0 {
            (self.entries, self.by_key) = (VecDeque::new(), HashTable::new());
        }
    }

    /// Heap bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.by_key.allocation_size() + self.text_bytes
    }

    fn remove_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        self.text_bytes -= oldest.text_bytes();
        if let Ok(found) = self.by_key.find_entry(oldest.hash, |&number| number == self.removed) {
            found.remove();
        }
        self.removed += 1;
    }

    fn hash(&self, channel: Channel<'_>, key: &str) -> u64 {
        self.hasher.hash_one((channel.as_str(), key))
    }
}

impl Entry {
    fn text_bytes(&self) -> usize {
        NAME_COUNT_BYTES + self.channel.as_channel().as_str().len() + self.key.len()
    }
}

/// Keys of the server, in equal shares for its shards.
pub const KEYS_MAX: usize = 65_536;
/// Bytes of a key in the list of all, without its texts.
pub const ENTRY_BYTES: usize = size_of::<Entry>();
/// Bytes before a shared name.
const NAME_COUNT_BYTES: usize = 2 * size_of::<usize>();
/// Five minutes.
const KEPT_TICKS: u32 = 3000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dedupe(shards: usize) -> Dedupe {
        Dedupe::new(RandomState::with_seeds(1, 2, 3, 4), shards)
    }

    #[test]
    fn a_key_is_of_one_channel_and_lasts_five_minutes() {
        let mut dedupe = dedupe(1);
        let [a, b] = ["a", "b"].map(|name| Channel::parse(name).unwrap());
        let first = First { subscribers: 3, offset: None };
        dedupe.add(a, "k", first, u32::MAX - 10);
        assert_eq!(dedupe.first(a, "k", u32::MAX), Some(first));
        assert_eq!((dedupe.first(b, "k", 0), dedupe.first(a, "K", 0)), (None, None));
        assert_eq!(dedupe.first(a, "k", KEPT_TICKS - 12), Some(first));
        assert_eq!(dedupe.first(a, "k", KEPT_TICKS - 11), None);
        assert_eq!(dedupe.entries.len(), 0);
    }

    #[test]
    fn the_oldest_key_is_forgotten_beyond_the_limit() {
        let mut dedupe = dedupe(KEYS_MAX / 4);
        let channel = Channel::parse("a").unwrap();
        let first = |subscribers| First { subscribers, offset: None };
        for n in 0..10 {
            dedupe.add(channel, &n.to_string(), first(n), 0);
        }
        let known: Vec<i64> = (0..10).filter(|n| dedupe.first(channel, &n.to_string(), 0) == Some(first(*n))).collect();
        assert_eq!((known, dedupe.entries.len(), dedupe.forgotten), (vec![6, 7, 8, 9], 4, 6));
        // Their numbers remain. One that was forgotten, or is not given out yet, names no key.
        [0, 5, 7, 7, 9, 10].into_iter().for_each(|number| dedupe.exclude(number));
        let counts: Vec<i64> = dedupe.entries.iter().map(|entry| entry.first.subscribers).collect();
        assert_eq!((counts, dedupe.next()), (vec![6, 5, 8, 8], 10));
    }

    #[test]
    fn memory_grows_with_the_keys_and_is_freed_with_them() {
        let mut dedupe = dedupe(1);
        let channel = Channel::parse("a").unwrap();
        let first = First { subscribers: 0, offset: None };
        assert_eq!(dedupe.bytes(), 0);
        (0..100).for_each(|n| dedupe.add(channel, &format!("{n:064}"), first, n));
        let tables = dedupe.entries.capacity() * ENTRY_BYTES + dedupe.by_key.allocation_size();
        assert_eq!(dedupe.bytes(), tables + 100 * (16 + 1 + 64));
        dedupe.expire(KEPT_TICKS + 49);
        assert_eq!((dedupe.entries.len(), dedupe.bytes()), (50, tables + 50 * (16 + 1 + 64)));
        dedupe.expire(KEPT_TICKS + 99);
        assert_eq!(dedupe.bytes(), 0);
    }

    proptest! {
        #[test]
        fn keys_behave_as_a_list(steps in prop::collection::vec((0_u8..4, 0_u32..900), 0..300)) {
            let (mut dedupe, mut model, mut now) = (dedupe(KEYS_MAX / 3), Vec::<(u8, u32)>::new(), 0);
            let channel = Channel::parse("a").unwrap();
            for (n, (key, ticks)) in steps.into_iter().enumerate() {
                now += ticks;
                model.retain(|(_, at)| now - at < KEPT_TICKS);
                let first = dedupe.first(channel, &key.to_string(), now);
                prop_assert_eq!(first.is_some(), model.iter().any(|(known, _)| *known == key));
                if first.is_none() {
                    dedupe.add(channel, &key.to_string(), First { subscribers: n as i64, offset: None }, now);
                    model.push((key, now));
                    if model.len() > 3 {
                        model.remove(0);
                    }
                }
            }
        }
    }
}
