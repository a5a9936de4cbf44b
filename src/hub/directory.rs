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
