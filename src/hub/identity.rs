//! Socket ids: a connection's key, disguised as a random UUID.
//!
//! Any shard can read from a socket id which connection it names, so `exclude` and `disconnect` need no table of ids,
//! and an idle connection keeps none. Both halves are keyed with the process's seed: ids tell nothing about how many
//! connections there are, and one from an earlier process names nobody.

use crate::hub::mail::{ConnKey, ShardId};
use crate::protocol::socket_id::SocketId;
use ahash::RandomState;

/// Turns keys into socket ids and back.
#[derive(Clone)]
pub struct Identities {
    high: RandomState,
    low: RandomState,
}

impl Identities {
    /// The same `seed` in every shard of a process.
    pub fn new(seed: [u64; 4]) -> Identities {
        let [a, b, c, d] = seed;
        Identities { high: RandomState::with_seeds(a, b, c, d), low: RandomState::with_seeds(d, c, b, a) }
    }

    /// The id of a connection: a version 4 UUID (RFC 9562 §5.4) that no other connection of this process has.
    pub fn socket_id(&self, key: ConnKey) -> SocketId {
        let plain = u64::from(key.shard) << 54
            | u64::from(key.slot) << GENERATION_BITS
            | u64::from(key.generation & ((1 << GENERATION_BITS) - 1));
        let high = self.high.hash_one(plain) & !VERSION_MASK | VERSION_4;
        let low = (plain ^ self.low.hash_one(high)) & !VARIANT_MASK | VARIANT_RFC;
        SocketId { high, low }
    }

    /// The connection that an id names, dead or alive; `None` for an id that this process never gave.
    pub fn key(&self, id: SocketId) -> Option<ConnKey> {
        let plain = (id.low ^ self.low.hash_one(id.high)) & !VARIANT_MASK;
        let key = ConnKey {
            shard: (plain >> 54) as ShardId,
            slot: (plain >> GENERATION_BITS) as u32 & ((1 << SLOT_BITS) - 1),
            generation: plain as u32 & ((1 << GENERATION_BITS) - 1),
        };
        (self.socket_id(key) == id).then_some(key)
    }
}

// 8 + 24 + 30 bits: what a UUID's second half leaves free.
const SLOT_BITS: u32 = 24;
/// Generations wrap at this many bits.
pub const GENERATION_BITS: u32 = 30;
/// Connections of one shard, at most.
pub const SLOTS_MAX: usize = 1 << SLOT_BITS;
const VERSION_MASK: u64 = 0xf000;
const VERSION_4: u64 = 0x4000;
const VARIANT_MASK: u64 = 0b11 << 62;
const VARIANT_RFC: u64 = 0b10 << 62;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_names_its_key_and_no_other(shard in 0u16..256, slot in 0u32..1 << 24, generation in 0u32..1 << 30, bit in 0u32..128) {
            let identities = Identities::new([1, 2, 3, 4]);
            let key = ConnKey { shard, slot, generation };
            let id = identities.socket_id(key);
            prop_assert_eq!(identities.key(id), Some(key));
            prop_assert_eq!(id.high >> 12 & 0xf, 4);
            let flipped = if bit < 64 {
                SocketId { high: id.high ^ 1 << bit, ..id }
            } else {
                SocketId { low: id.low ^ 1 << (bit - 64), ..id }
            };
            prop_assert_eq!(identities.key(flipped), None);
            prop_assert_eq!(Identities::new([5, 6, 7, 8]).key(id), None);
        }
    }
}
