//! Socket ids: a connection's key, encrypted into a version 4 UUID.
//!
//! Any shard can decrypt the connection from a socket id. So `exclude` and `disconnect` need no table of ids, and an idle
//! connection stores none. The key is encrypted as in SIV mode (RFC 5297): the first half of the id is a MAC of the key, and
//! the second half is the key under a mask that depends on the first. So ids do not reveal the number of connections. An id
//! cannot be guessed or altered into another, and an id of an earlier process does not name a connection.

use crate::ids::{ConnKey, ShardId};
use crate::protocol::socket_id::SocketId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Converts keys to socket ids and back. Two HMACs make an id and three read one; `benches/auth.rs` times one.
#[derive(Clone)]
pub struct Identities {
    high: Hmac<Sha256>,
    low: Hmac<Sha256>,
}

impl Identities {
    /// All shards of a process use the same `seed`.
    pub fn new(seed: [u64; 4]) -> Identities {
        let keyed = |purpose| keyed(derived(seed, purpose));
        Identities { high: keyed("socket ids, first half"), low: keyed("socket ids, second half") }
    }

    /// The id of a connection: a version 4 UUID (RFC 9562 §5.4) that no other connection of this process has.
    pub fn socket_id(&self, key: ConnKey) -> SocketId {
        let plain = u64::from(key.shard) << 54
            | u64::from(key.slot) << GENERATION_BITS
            | u64::from(key.generation & ((1 << GENERATION_BITS) - 1));
        let high = mac(&self.high, plain) & !VERSION_MASK | VERSION_4;
        let low = (plain ^ mac(&self.low, high)) & !VARIANT_MASK | VARIANT_RFC;
        SocketId { high, low }
    }

    /// The connection that an id names, open or closed; `None` for an id that this process has not assigned.
    pub fn key(&self, id: SocketId) -> Option<ConnKey> {
        let plain = (id.low ^ mac(&self.low, id.high)) & !VARIANT_MASK;
        let key = ConnKey {
            shard: (plain >> 54) as ShardId,
            slot: (plain >> GENERATION_BITS) as u32 & ((1 << SLOT_BITS) - 1),
            generation: plain as u32 & ((1 << GENERATION_BITS) - 1),
        };
        (self.socket_id(key) == id).then_some(key)
    }
}

/// A secret for one purpose, derived from the process's seed. It does not reveal the seed or other secrets, so it may be
/// used by a hash function that is not cryptographic.
pub fn derived(seed: [u64; 4], purpose: &str) -> [u64; 4] {
    let bytes: [u8; 32] = keyed(seed).chain_update(purpose).finalize().into_bytes().into();
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
}

fn keyed(key: [u64; 4]) -> Hmac<Sha256> {
    let bytes = key.map(u64::to_le_bytes);
    Hmac::new_from_slice(bytes.as_flattened()).expect("HMAC takes keys of every length (RFC 2104)")
}

fn mac(keyed: &Hmac<Sha256>, text: u64) -> u64 {
    let bytes = keyed.clone().chain_update(text.to_le_bytes()).finalize().into_bytes();
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

// The key has 8 + 24 + 30 bits: all that are free in the second half of a UUID.
const SLOT_BITS: u32 = 24;
/// Generations wrap at this many bits.
pub const GENERATION_BITS: u32 = 30;
/// Limit of connections per shard.
pub const SLOTS_MAX: usize = 1 << SLOT_BITS;
const VERSION_MASK: u64 = 0xf000;
const VERSION_4: u64 = 0x4000;
const VARIANT_MASK: u64 = 0b11 << 62;
const VARIANT_RFC: u64 = 0b10 << 62;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_neighbouring_connections_differ_in_about_half_of_their_bits() {
        let identities = Identities::new([1, 2, 3, 4]);
        let id = |slot, generation| identities.socket_id(ConnKey { shard: 0, slot, generation });
        let distance = |a: SocketId, b: SocketId| [(a.high, b.high), (a.low, b.low)].map(|(a, b)| (a ^ b).count_ones());
        // 60 and 62 bits are free. Fewer than 10 equal or different bits have a probability below 2^-24 per id.
        for slot in 0..100 {
            for other in [id(slot + 1, 0), id(slot, 1)] {
                let halves = distance(id(slot, 0), other);
                assert!(halves.iter().all(|bits| (10..=50).contains(bits)), "slot {slot}: {halves:?}");
            }
        }
    }

    #[test]
    fn a_derived_secret_depends_on_seed_and_purpose() {
        let secret = derived([1, 2, 3, 4], "a");
        assert_eq!(secret, derived([1, 2, 3, 4], "a"));
        assert_ne!(secret, derived([1, 2, 3, 4], "b"));
        assert_ne!(secret, derived([1, 2, 3, 5], "a"));
    }

    proptest! {
        #[test]
        fn an_id_names_exactly_its_key(shard in 0u16..256, slot in 0u32..1 << 24, generation in 0u32..1 << 30, bit in 0u32..128) {
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
