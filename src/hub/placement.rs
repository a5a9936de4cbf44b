//! Which shard owns a channel or an address: the hash of the name or of the address decides.

use super::admission::addresses::Address;
use super::identity;
use crate::ids::ShardId;
use crate::protocol::channel::Channel;
use ahash::RandomState;

/// The placement of channels and addresses. Equal in all shards of a process, except for the number of this shard.
pub struct Placement {
    shard: ShardId,
    shards: usize,
    hasher: RandomState,
}

impl Placement {
    /// The placement in shard `shard` of `shards`. All shards use the same `seed`.
    pub fn new(shard: ShardId, shards: usize, seed: [u64; 4]) -> Placement {
        let [a, b, c, d] = identity::derived(seed, "hash tables");
        Placement { shard, shards, hasher: RandomState::with_seeds(a, b, c, d) }
    }

    /// This shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// A keyed hasher, for tables whose keys clients can choose.
    pub fn hasher(&self) -> RandomState {
        self.hasher.clone()
    }

    /// The hash of a channel's name. It decides the owner, and is the hash in every table of channels.
    pub fn hash(&self, channel: Channel<'_>) -> u64 {
        self.hasher.hash_one(channel.as_str())
    }

    /// The shard that owns the channel of this hash.
    pub fn owner(&self, hash: u64) -> ShardId {
        // Bits 16 to 47 decide the owner. The hash tables use the low bits and the top seven.
        (((hash >> 16 & 0xffff_ffff) * self.shards as u64) >> 32) as ShardId
    }

    /// The shard that owns an address.
    pub fn owner_of_address(&self, address: Address) -> ShardId {
        self.owner(self.hasher.hash_one(address))
    }
}
