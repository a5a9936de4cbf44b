//! The channels that this shard owns: which shards care, and how many subscribers each has.

use crate::hub::mail::ShardId;
use crate::protocol::channel::{Channel, ChannelName};
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

/// Entries exist for channels with a subscriber anywhere (a subscription under way included).
#[derive(Default)]
pub struct Directory {
    channels: Slab<Entry>,
    by_name: HashTable<u32>,
}

struct Entry {
    name: ChannelName,
    hash: u64,
    counts: Counts,
}

/// Heap bytes of a channel, without its name.
pub const ENTRY_BYTES: usize = size_of::<Entry>();

/// Subscribers per shard; no zeros.
pub type Counts = SmallVec<[(ShardId, u32); 2]>;

impl Directory {
    /// Counts a subscriber of `shard` in.
    pub fn join(&mut self, name: &ChannelName, hash: u64, shard: ShardId) {
        let Directory { channels, by_name } = self;
        let found = by_name.find(hash, |&index| channels[index as usize].name == *name);
        let index = found.copied().unwrap_or_else(|| {
            let index = channels.insert(Entry { name: name.clone(), hash, counts: Counts::new() }) as u32;
            by_name.insert_unique(hash, index, |&index| channels[index as usize].hash);
            index
        });
        let counts = &mut channels[index as usize].counts;
        match counts.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, count)) => *count += 1,
            None => counts.push((shard, 1)),
        }
    }

    /// Counts a subscriber of `shard` out. The last one takes the entry along.
    pub fn leave(&mut self, name: &ChannelName, hash: u64, shard: ShardId) {
        let Directory { channels, by_name } = self;
        let Ok(found) = by_name.find_entry(hash, |&index| channels[index as usize].name == *name) else {
            debug_assert!(false, "a member left a channel that has none");
            return;
        };
        let index = *found.get() as usize;
        let counts = &mut channels[index].counts;
        if let Some(at) = counts.iter().position(|(of, _)| *of == shard) {
            counts[at].1 -= 1;
            if counts[at].1 == 0 {
                counts.swap_remove(at);
            }
        }
        if counts.is_empty() {
            found.remove();
            channels.remove(index);
        }
    }

    /// Subscribers per shard; empty where nobody hears the channel.
    pub fn counts(&self, channel: Channel<'_>, hash: u64) -> &[(ShardId, u32)] {
        match self.by_name.find(hash, |&index| self.channels[index as usize].name.as_channel() == channel) {
            Some(&index) => &self.channels[index as usize].counts,
            None => &[],
        }
    }

    /// Up to `limit` channels whose name starts with `prefix`, from index `after` on, and where to go on. A channel that
    /// lives from the first page to the last is told once; a page looks at a bounded number of entries, so it can be short.
    pub fn page(&self, prefix: &str, limit: usize, after: u32) -> (Vec<(ChannelName, u64)>, Option<u32>) {
        let mut page = Vec::new();
        let end = self.channels.capacity().min(u32::MAX as usize) as u32;
        let stop = end.min(after.saturating_add(SCAN_MAX));
        for index in after..stop {
            let Some(entry) = self.channels.get(index as usize) else {
                continue;
            };
            if !entry.name.as_channel().as_str().starts_with(prefix) {
                continue;
            }
            if page.len() == limit {
                return (page, Some(index));
            }
            page.push((entry.name.clone(), total(&entry.counts)));
        }
        (page, (stop < end).then_some(stop))
    }

    /// Channels with a subscriber anywhere.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether nobody hears anything that this shard owns.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

/// Subscribers of all shards.
pub fn total(counts: &[(ShardId, u32)]) -> u64 {
    counts.iter().map(|&(_, count)| u64::from(count)).sum()
}

/// Entries that one page looks at: about a millisecond.
const SCAN_MAX: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        Channel::parse(text).unwrap().into()
    }

    #[track_caller]
    fn check_counts(directory: &Directory, channel: &str, expected: &[(ShardId, u32)]) {
        let mut counts = directory.counts(Channel::parse(channel).unwrap(), HASH).to_vec();
        counts.sort_unstable();
        assert_eq!(counts, expected, "{channel}");
    }

    #[test]
    fn counts_are_per_shard_and_hold_no_zeros() {
        let mut directory = Directory::default();
        let (a, b) = (name("a"), name("b"));
        for (channel, shard) in [(&a, 0), (&a, 3), (&a, 3), (&b, 3)] {
            directory.join(channel, HASH, shard);
        }
        check_counts(&directory, "a", &[(0, 1), (3, 2)]);
        check_counts(&directory, "b", &[(3, 1)]);
        check_counts(&directory, "c", &[]);
        directory.leave(&a, HASH, 0);
        directory.leave(&a, HASH, 3);
        check_counts(&directory, "a", &[(3, 1)]);
        directory.leave(&a, HASH, 3);
        check_counts(&directory, "a", &[]);
        assert_eq!(directory.len(), 1, "the last to leave takes the entry along");
        directory.leave(&b, HASH, 3);
        assert!(directory.is_empty());
    }

    #[test]
    fn pages_tell_each_channel_once_though_others_come_and_go() {
        let mut directory = Directory::default();
        let stay: Vec<String> = (0..20).map(|n| format!("stay:{n}")).collect();
        for (n, channel) in stay.iter().enumerate() {
            directory.join(&name(channel), HASH, 0);
            directory.join(&name(&format!("go:{n}")), HASH, 1);
        }
        let (mut told, mut after, mut n) = (Vec::new(), Some(0), 0);
        while let Some(from) = after {
            let (page, next) = directory.page("stay:", 3, from);
            assert!(page.len() <= 3);
            told.extend(page.into_iter().map(|(name, count)| (name.as_channel().as_str().to_owned(), count)));
            after = next;
            directory.leave(&name(&format!("go:{n}")), HASH, 1);
            directory.join(&name(&format!("late:{n}")), HASH, 1);
            n += 1;
        }
        let mut expected: Vec<_> = stay.into_iter().map(|name| (name, 1)).collect();
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told, expected);
    }

    /// Of all channels here: a table must tell names apart, not hashes.
    const HASH: u64 = 7;
}
