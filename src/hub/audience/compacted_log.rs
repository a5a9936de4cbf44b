//! A compacted log: the newest message of each key, in order.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Messages by number, one of each key.
pub struct CompactedLog<T> {
    messages: BTreeMap<u64, (Arc<str>, T)>,
    /// By key: the number of its message.
    numbers: HashMap<Arc<str>, u64, ahash::RandomState>,
}

impl<T> Default for CompactedLog<T> {
    fn default() -> CompactedLog<T> {
        CompactedLog { messages: BTreeMap::new(), numbers: HashMap::default() }
    }
}

impl<T> CompactedLog<T> {
    /// Adds a message. All messages without a key have the empty one. If the log has one with the same key, it keeps the one
    /// with the higher number, and returns the other.
    pub fn push(&mut self, number: u64, key: &str, message: T) -> Option<T> {
        let Some(newest) = self.numbers.get_mut(key) else {
            let key: Arc<str> = key.into();
            self.numbers.insert(Arc::clone(&key), number);
            self.messages.insert(number, (key, message));
            return None;
        };
        if number < *newest {
            return Some(message);
        }
        let (key, older) = self.messages.remove(newest)?;
        *newest = number;
        self.messages.insert(number, (key, message));
        Some(older)
    }

    /// The message with this number.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.messages.get_mut(&number).map(|(_, message)| message)
    }

    /// Removes the message with this number.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let (key, message) = self.messages.remove(&number)?;
        self.numbers.remove(&key);
        Some(message)
    }

    /// The messages with these numbers, in order.
    pub fn range(&self, numbers: &Range<u64>) -> impl Iterator<Item = (u64, &T)> {
        self.messages.range(numbers.clone()).map(|(&number, (_, message))| (number, message))
    }

    /// The number of the message that is followed by this many.
    pub fn number_from_end(&self, followers: usize) -> Option<u64> {
        let is_long = self.messages.len() > followers;
        is_long.then(|| self.messages.keys().rev().nth(followers).copied())?
    }
}

/// Heap bytes of a message besides those that it owns, with a key of this length. Tables may have doubled.
pub const fn entry_bytes<T>(key_bytes: usize) -> usize {
    let in_tables = size_of::<(u64, Arc<str>, T)>() + size_of::<(Arc<str>, u64)>() + 1;
    2 * in_tables + 2 * size_of::<usize>() + key_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list that is searched from its start.
        #[test]
        fn a_log_behaves_as_a_list(steps in prop::collection::vec((0_u64..40, prop::option::of(0_usize..6)), 0..200)) {
            let mut log = CompactedLog::default();
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (number, key) in steps {
                let same = model.iter().position(|entry| entry.0 == number);
                match (key, same) {
                    (Some(key), None) => {
                        model.push((number, key));
                        let older = model.iter().filter(|entry| entry.1 == key).min().copied();
                        let older = older.filter(|_| model.iter().filter(|entry| entry.1 == key).count() == 2);
                        model.retain(|entry| Some(*entry) != older);
                        prop_assert_eq!(log.push(number, &"k".repeat(key), number), older.map(|entry| entry.0));
                    }
                    (Some(_), Some(_)) => prop_assert_eq!(log.get_mut(number), Some(&mut number.clone())),
                    (None, same) => {
                        same.map(|at| model.remove(at));
                        prop_assert_eq!(log.remove(number), same.map(|_| number));
                        prop_assert_eq!(log.get_mut(number), None);
                    }
                }
                model.sort_unstable();
                for range in [0..u64::MAX, number.min(7)..number] {
                    let expected = model.iter().map(|entry| entry.0).filter(|at| range.contains(at));
                    prop_assert!(log.range(&range).map(|entry| entry.0).eq(expected));
                }
                prop_assert_eq!(log.number_from_end(2), model.iter().rev().nth(2).map(|entry| entry.0));
                prop_assert_eq!((log.messages.len(), log.numbers.len()), (model.len(), model.len()));
            }
        }
    }
}
