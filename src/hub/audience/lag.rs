//! The messages that are held back for a blocked connection: the newest one of each key of each audience.

use crate::api;
use hashbrown::HashTable;
use slab::Slab;
use std::sync::Arc;

/// The messages that a blocked connection has yet to be sent, oldest first. A message replaces the one with the same key, and
/// moves to the end. So what is sent is in the order of the channel, and a client's position stays valid.
///
/// Every operation takes constant time, except [`Lag::remove_audience`].
pub struct Lag<T> {
    /// A list, linked through its entries.
    entries: Slab<Entry<T>>,
    /// By audience and key.
    index: HashTable<u32>,
    first: u32,
    last: u32,
}

struct Entry<T> {
    place: Place,
    message: T,
    before: u32,
    after: u32,
}

/// What a message is the newest of.
#[derive(Clone)]
pub struct Place {
    /// Index of the audience.
    pub audience: u32,
    /// The key; all messages without one count as one key.
    pub key: Option<Arc<str>>,
    /// Hash of both.
    pub hash: u64,
}

impl Place {
    /// Heap bytes of the key.
    pub fn key_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, |key| ARC_BYTES + key.len())
    }
}

/// The key is new, and the connection already has [`KEYS_MAX`] keys.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<T> Default for Lag<T> {
    fn default() -> Lag<T> {
        Lag { entries: Slab::new(), index: HashTable::new(), first: NONE, last: NONE }
    }
}

impl<T> Lag<T> {
    /// Adds a message at the end. Returns the one that it replaces.
    ///
    /// # Errors
    /// [`Full`]. Then nothing changes.
    pub fn put(&mut self, place: Place, message: T) -> Result<Option<T>, Full> {
        let Place { audience, hash, .. } = place;
        let is_same = |other: &Place| other.audience == audience && other.key == place.key;
        let found = self.index.find(hash, |&at| is_same(&self.entries[at as usize].place)).copied();
        if found.is_none() && self.len() == KEYS_MAX {
            return Err(Full);
        }
        let replaced = found.map(|at| self.remove(at));
        let at = self.entries.insert(Entry { place, message, before: self.last, after: NONE }) as u32;
        match self.entries.get_mut(self.last as usize) {
            Some(last) => last.after = at,
            None => self.first = at,
        }
        self.last = at;
        self.index.insert_unique(hash, at, |&at| self.entries[at as usize].place.hash);
        Ok(replaced)
    }

    /// Takes the first message.
    pub fn pop(&mut self) -> Option<T> {
        (self.first != NONE).then(|| self.remove(self.first))
    }

    /// Removes the messages of an audience, in time that grows with the number of all messages.
    pub fn remove_audience(&mut self, audience: u32) -> Vec<T> {
        let of_audience = |(at, entry): (usize, &Entry<T>)| (entry.place.audience == audience).then_some(at as u32);
        let found: Vec<u32> = self.entries.iter().filter_map(of_audience).collect();
        found.into_iter().map(|at| self.remove(at)).collect()
    }

    /// All messages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, entry)| &entry.message)
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no message is held back.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove(&mut self, at: u32) -> T {
        let Entry { place, message, before, after } = self.entries.remove(at as usize);
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.after = after,
            None => self.first = after,
        }
        match self.entries.get_mut(after as usize) {
            Some(entry) => entry.before = before,
            None => self.last = before,
        }
        if let Ok(found) = self.index.find_entry(place.hash, |&other| other == at) {
            found.remove();
        }
        message
    }
}

/// Most keys, of all channels of a connection.
pub const KEYS_MAX: usize = 1000;
/// Heap bytes of the longest key, which all connections share.
pub const KEY_BYTES_MAX: usize = ARC_BYTES + api::publish::KEY_BYTES_MAX;
/// Of the counts in front of a key.
const ARC_BYTES: usize = 2 * size_of::<usize>();
/// Heap bytes of a message that is held back, besides its frame and its key, which all connections share. Tables may have
/// doubled.
pub const ENTRY_BYTES: usize = 2 * (size_of::<Entry<super::pages::Chunk>>() + size_of::<u32>() + 1);
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(audience: u32, key: Option<usize>) -> Place {
        // Few hashes, so that they collide.
        let hash = u64::from(audience) ^ (key.unwrap_or(9) as u64 % 3);
        Place { audience, key: key.map(|key| key.to_string().into()), hash }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Put(u32, Option<usize>),
        Pop,
        RemoveAudience(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u32..3, prop::option::of(0_usize..6)).prop_map(|(audience, key)| Step::Put(audience, key)),
            3 => Just(Step::Pop),
            1 => (0_u32..3).prop_map(Step::RemoveAudience),
        ]
    }

    proptest! {
        /// Against a list that is searched from its start.
        #[test]
        fn a_lag_behaves_as_a_list(steps in prop::collection::vec(step(), 0..300)) {
            let mut lag = Lag::default();
            let mut model: Vec<(u32, Option<usize>, usize)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(audience, key) => {
                        let found = model.iter().position(|entry| (entry.0, entry.1) == (audience, key));
                        let replaced = found.map(|at| model.remove(at).2);
                        model.push((audience, key, number));
                        prop_assert_eq!(lag.put(place(audience, key), number), Ok(replaced));
                    }
                    Step::Pop => {
                        let first = (!model.is_empty()).then(|| model.remove(0).2);
                        prop_assert_eq!(lag.pop(), first);
                    }
                    Step::RemoveAudience(audience) => {
                        let mut removed = lag.remove_audience(audience);
                        removed.sort_unstable();
                        let gone = model.extract_if(.., |entry| entry.0 == audience);
                        let mut gone: Vec<usize> = gone.map(|entry| entry.2).collect();
                        gone.sort_unstable();
                        prop_assert_eq!(removed, gone);
                    }
                }
                prop_assert_eq!((lag.len(), lag.is_empty()), (model.len(), model.is_empty()));
                let mut held: Vec<usize> = lag.iter().copied().collect();
                held.sort_unstable();
                let mut expected: Vec<usize> = model.iter().map(|entry| entry.2).collect();
                expected.sort_unstable();
                prop_assert_eq!(held, expected);
            }
            let rest: Vec<usize> = std::iter::from_fn(|| lag.pop()).collect();
            prop_assert_eq!(rest, model.into_iter().map(|entry| entry.2).collect::<Vec<_>>());
            prop_assert!(lag.index.is_empty());
        }
    }

    #[test]
    fn a_lag_has_a_limited_number_of_keys() {
        let mut lag = Lag::default();
        (0..KEYS_MAX).for_each(|key| assert_eq!(lag.put(place(key as u32 % 2, Some(key)), key), Ok(None)));
        assert_eq!(lag.put(place(0, None), 7), Err(Full));
        assert_eq!(lag.put(place(0, Some(0)), 7), Ok(Some(0)), "a known key is replaced");
        assert_eq!((lag.len(), lag.pop()), (KEYS_MAX, Some(1)));
        assert_eq!(lag.put(place(0, None), 8), Ok(None));
        assert_eq!(lag.remove_audience(1).len(), KEYS_MAX / 2 - 1);
    }
}
