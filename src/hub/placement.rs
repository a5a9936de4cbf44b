//! Which shard owns what: channels by the hash of their name, addresses by their own.

use super::admission::addresses::Address;
use super::identity;
use crate::ids::ShardId;
use crate::protocol::channel::Channel;
use ahash::RandomState;

/// The same in all shards of a process, but for the shard that it is in.
pub(super) struct Placement {
    shard: ShardId,
    shards: usize,
    hasher: RandomState,
}

impl Placement {
    /// The placement as shard `shard` of `shards` sees it; all have the same `seed`.
    pub(super) fn new(shard: ShardId, shards: usize, seed: [u64; 4]) -> Placement {
        let [a, b, c, d] = identity::derived(seed, "hash tables");
        Placement { shard, shards, hasher: RandomState::with_seeds(a, b, c, d) }
    }

    /// This shard.
    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    /// How many there are.
    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    /// For tables whose keys come from outside.
    pub(super) fn hasher(&self) -> RandomState {
        self.hasher.clone()
    }

    /// The hash of a channel's name, which places the channel and finds it in every table.
    pub(super) fn hash(&self, channel: Channel<'_>) -> u64 {
        self.hasher.hash_one(channel.as_str())
    }

    /// The shard that owns the channel of this hash.
    pub(super) fn owner(&self, hash: u64) -> ShardId {
        // The high bits place; the low bits and the top seven are the tables'.
        (((hash >> 16 & 0xffff_ffff) * self.shards as u64) >> 32) as ShardId
    }

    /// The shard that owns an address.
    pub(super) fn owner_of_address(&self, address: Address) -> ShardId {
        self.owner(self.hasher.hash_one(address))
    }
}
