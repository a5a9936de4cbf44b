//! Ranking of channels and addresses: the items of highest rank among many.

use crate::hub::admission::addresses::Address;
use crate::protocol::channel::ChannelName;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A channel among the busiest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyChannel {
    /// Its name.
    pub channel: ChannelName,
    /// Subscribers of all shards.
    pub subscribers: u64,
    /// Messages since the channel became occupied.
    pub messages: u64,
}

/// An address among the busiest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyAddress {
    /// The address.
    pub address: Address,
    /// Its connections in all shards.
    pub connections: u32,
}

/// The value that decides the order, and a second value for items that are equal in the first.
pub type Rank = (u64, u64);

/// The items of highest rank among those that were offered.
#[derive(Clone, Debug)]
pub struct Best<T> {
    limit: usize,
    /// The item of lowest rank is on top.
    heap: BinaryHeap<Reverse<Ranked<T>>>,
}

#[derive(Clone, Debug)]
struct Ranked<T> {
    rank: Rank,
    item: T,
}

impl<T> Best<T> {
    /// Empty; keeps at most `limit` items.
    pub fn new(limit: usize) -> Best<T> {
        Best { limit, heap: BinaryHeap::new() }
    }

    /// Offers an item, which is made only if its rank is high enough.
    pub fn offer(&mut self, rank: Rank, item: impl FnOnce() -> T) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(Ranked { rank, item: item() }));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && rank > worst.0.rank
        {
            *worst = Reverse(Ranked { rank, item: item() });
        }
    }

    /// Adds the items of another.
    pub fn add(&mut self, other: Best<T>) {
        for Reverse(Ranked { rank, item }) in other.heap {
            self.offer(rank, || item);
        }
    }

    /// The items, highest rank first, and by name between equals. Of several items with one name only the best is kept.
    pub fn ranked<K: Ord + ?Sized>(self, name: impl Fn(&T) -> &K) -> impl Iterator<Item = T> {
        let mut all: Vec<Ranked<T>> = self.heap.into_iter().map(|Reverse(ranked)| ranked).collect();
        all.sort_by(|a, b| name(&a.item).cmp(name(&b.item)).then(b.rank.cmp(&a.rank)));
        all.dedup_by(|a, b| name(&a.item) == name(&b.item));
        all.sort_by_key(|ranked| Reverse(ranked.rank));
        all.into_iter().map(|ranked| ranked.item)
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<T> Eq for Ranked<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_and_equals_are_ordered_by_name() {
        let mut best = Best::new(3);
        for (rank, item) in [(1, "f"), (5, "e"), (3, "d"), (5, "c"), (2, "b"), (4, "a")] {
            best.offer((rank, 0), || item);
        }
        best.offer((4, 0), || panic!("an item that is not better than the worst was made"));
        assert!(best.ranked(|item| *item).eq(["c", "e", "a"]));
    }

    #[test]
    fn an_item_found_twice_is_returned_once_with_the_better_rank() {
        let [mut best, mut other] = [3, 3].map(Best::new);
        best.offer((1, 0), || ("a", 1));
        best.offer((3, 0), || ("b", 3));
        other.offer((2, 0), || ("a", 2));
        best.add(other);
        assert!(best.ranked(|(name, _)| *name).eq([("b", 3), ("a", 2)]));
        assert_eq!(Best::<&str>::new(0).ranked(|item| *item).count(), 0);
    }
}
