//! The addresses that this shard owns: how many connections each has in the whole server, and how often it connects.
//!
//! Limits for an address apply to all shards together. So an address has an owner, chosen by its hash, like a channel.
//! The shard that accepts a connection asks the owner to count it ([`crate::hub::mail::Mail::Arrive`]), waits for the
//! verdict, and reports the end of the connection to the owner.
//!
//! A verdict applies to the connection that it was requested for. If that connection has ended, the verdict applies to
//! another connection of the same address in the same slot, if one waits for a verdict. Otherwise the shard reports to
//! the owner at once that the connection has ended. So every connection is counted exactly once.

use crate::config::Limits;
use crate::hub::admission::bucket::{Bucket, Rate};
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The unit of limits: an IPv4 address, or the first 64 bits of an IPv6 address, because one customer has at least that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// The unit of an IP address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn of(ip: IpAddr) -> Address {
        match ip.to_canonical() {
            // An IPv6 prefix of this form is multicast, so it cannot be the source of a connection.
            IpAddr::V4(ip) => Address(V4 | u64::from(ip.to_bits())),
            IpAddr::V6(ip) => Address((ip.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits & V4 == V4 => Ipv4Addr::from_bits(bits as u32).fmt(f),
            bits => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(bits) << 64)),
        }
    }
}

/// The owner's decision about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay, and is counted until it ends.
    Counted,
    /// It is over a limit. It is sent the reason, and is counted as refused until it ends.
    Refused(Excess),
    /// It is over a limit and not counted: too many connections of its address are being refused already.
    Dropped(Excess),
}

impl Verdict {
    /// Whether the owner counts the connection as refused; `None` if it does not count it.
    pub fn counts_as_refused(self) -> Option<bool> {
        match self {
            Verdict::Counted => Some(false),
            Verdict::Refused(_) => Some(true),
            Verdict::Dropped(_) => None,
        }
    }
}

/// The limit that an address is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Connections at the same time.
    Connections,
    /// Rate of new connections.
    Upgrades,
}

/// The addresses with a connection on any shard, and, if the rate of connections is limited, those that connected recently.
pub struct Addresses {
    hasher: RandomState,
    counts: HashTable<Count>,
    buckets: HashTable<Rated>,
    /// Addresses that have a bucket, in the order in which they are checked.
    filling: VecDeque<Address>,
    /// Buckets dropped before they were full, because there were too many.
    pub forgotten: u64,
}

struct Count {
    address: Address,
    admitted: u32,
    refused: u32,
}

struct Rated {
    address: Address,
    bucket: Bucket,
}

impl Addresses {
    /// Without connections. `hasher` hashes addresses for the tables.
    pub fn new(hasher: RandomState) -> Addresses {
        Addresses {
            hasher,
            counts: HashTable::new(),
            buckets: HashTable::new(),
            filling: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Decides about a new connection of this address.
    pub fn arrive(&mut self, address: Address, now: u32, limits: &Limits) -> Verdict {
        let is_too_fast = limits.upgrades_per_address_max > 0
            && !self.take(address, now, Rate::new(limits.upgrades_per_address_max, 0));
        let Addresses { hasher, counts, .. } = self;
        let is_meant = |count: &Count| count.address == address;
        let found = counts.entry(hasher.hash_one(address), is_meant, |count| hasher.hash_one(count.address));
        let mut entry = found.or_insert_with(|| Count { address, admitted: 0, refused: 0 });
        let count = entry.get_mut();
        let excess = match count.admitted >= limits.address_connections_max() {
            true => Excess::Connections,
            false if is_too_fast => Excess::Upgrades,
            false => {
                count.admitted += 1;
                return Verdict::Counted;
            }
        };
        if count.refused < REFUSALS_MAX {
            count.refused += 1;
            return Verdict::Refused(excess);
        }
        Verdict::Dropped(excess)
    }

    /// A counted connection of this address has ended.
    pub fn depart(&mut self, address: Address, was_refused: bool) {
        let Addresses { hasher, counts, .. } = self;
        let Ok(mut entry) = counts.find_entry(hasher.hash_one(address), |count| count.address == address) else {
            debug_assert!(false, "a connection left an address without connections");
            return;
        };
        let count = entry.get_mut();
        match was_refused {
            true => count.refused -= 1,
            false => count.admitted -= 1,
        }
        if count.admitted == 0 && count.refused == 0 {
            entry.remove();
            if counts.len() < counts.capacity() / 4 {
                counts.shrink_to(counts.len() * 2, |count| hasher.hash_one(count.address));
            }
        }
    }

    /// Drops a few buckets that are full again: such an address has the same allowance as a new one.
    pub fn forget(&mut self, now: u32) {
        for _ in 0..FORGOTTEN_PER_TURN.min(self.filling.len()) {
            let Some(&address) = self.filling.front() else { return };
            let hash = self.hasher.hash_one(address);
            let Ok(entry) = self.buckets.find_entry(hash, |rated| rated.address == address) else { return };
            if entry.get().bucket.is_full(now) {
                entry.remove();
                self.filling.pop_front();
            } else {
                // It has connected again since; the buckets behind it may be full.
                self.filling.rotate_left(1);
            }
        }
        let Addresses { hasher, buckets, filling, .. } = self;
        if buckets.len() < buckets.capacity() / 4 {
            buckets.shrink_to(buckets.len() * 2, |rated| hasher.hash_one(rated.address));
            filling.shrink_to(buckets.len() * 2);
        }
    }

    /// Numbers of addresses with a connection, and of addresses with a bucket.
    pub fn sizes(&self) -> (usize, usize) {
        (self.counts.len(), self.buckets.len())
    }

    /// The address at an index below [`Addresses::end`], and its connections without those that are being refused. Indexes
    /// change when the table does.
    pub fn at(&self, index: usize) -> Option<(Address, u32)> {
        self.counts.get_bucket(index).filter(|count| count.admitted > 0).map(|count| (count.address, count.admitted))
    }

    /// One past the last index.
    pub fn end(&self) -> usize {
        self.counts.num_buckets()
    }

    /// Connections that are counted, refused ones included. Walks the table.
    #[cfg(any(test, fuzzing))]
    pub(in crate::hub) fn counted(&self) -> usize {
        self.counts.iter().map(|count| (count.admitted + count.refused) as usize).sum()
    }

    fn take(&mut self, address: Address, now: u32, rate: Rate) -> bool {
        let Addresses { hasher, buckets, filling, forgotten, .. } = self;
        let hash = hasher.hash_one(address);
        if let Some(rated) = buckets.find_mut(hash, |rated| rated.address == address) {
            return rated.bucket.take_one(rate, now);
        }
        if filling.len() >= BUCKETS_MAX
            && let Some(other) = filling.pop_front()
            && let Ok(entry) = buckets.find_entry(hasher.hash_one(other), |rated| rated.address == other)
        {
            entry.remove();
            *forgotten += 1;
        }
        let mut bucket = Bucket::full(rate, now);
        let has_one = bucket.take_one(rate, now);
        buckets.insert_unique(hash, Rated { address, bucket }, |rated| hasher.hash_one(rated.address));
        filling.push_back(address);
        has_one
    }
}

/// Heap bytes of an address with a connection.
pub const COUNT_BYTES: usize = size_of::<Count>();
/// Heap bytes of an address with a bucket.
pub const RATED_BYTES: usize = size_of::<Rated>() + size_of::<Address>();
const V4: u64 = 0xffff_ffff << 32;
/// Most connections of one address that are being refused at the same time; more are dropped without a reason.
const REFUSALS_MAX: u32 = 16;
/// Most buckets of a shard: at most 4 MiB.
pub const BUCKETS_MAX: usize = 65_536;
/// Buckets checked per turn.
const FORGOTTEN_PER_TURN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::admission::bucket::FILL_TICKS;

    fn address(text: &str) -> Address {
        Address::of(text.parse().expect("an address"))
    }

    fn addresses() -> Addresses {
        Addresses::new(RandomState::with_seeds(1, 2, 3, 4))
    }

    fn limits(connections: u32, upgrades: u32) -> Limits {
        Limits {
            connections_per_address_max: Some(connections),
            upgrades_per_address_max: upgrades,
            ..Limits::default()
        }
    }

    #[test]
    fn an_address_is_an_ipv4_host_or_an_ipv6_prefix_of_64_bits() {
        assert_eq!(address("192.0.2.7"), address("::ffff:192.0.2.7"));
        assert_eq!(address("2001:db8:1:2::7"), address("2001:db8:1:2:ffff::"));
        assert_ne!(address("2001:db8:1:2::7"), address("2001:db8:1:3::7"));
        assert_ne!(address("192.0.2.7"), address("192.0.2.8"));
        assert_ne!(address("0.0.0.0"), address("::1"));
        assert_ne!(address("192.0.2.7"), address("0:0:c000:207::"));
        assert_eq!(address("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(address("2001:db8:1:2::7").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn beyond_the_limit_some_connections_are_refused_and_the_rest_dropped() {
        let (mut addresses, limits) = (addresses(), limits(3, 0));
        let (a, b) = (address("192.0.2.7"), address("192.0.2.8"));
        let verdicts: Vec<_> = (0..30).map(|_| addresses.arrive(a, 0, &limits)).collect();
        assert!(verdicts[..3].iter().all(|&verdict| verdict == Verdict::Counted));
        assert!(verdicts[3..19].iter().all(|&verdict| verdict == Verdict::Refused(Excess::Connections)));
        assert!(verdicts[19..].iter().all(|&verdict| verdict == Verdict::Dropped(Excess::Connections)));
        assert_eq!(addresses.arrive(b, 0, &limits), Verdict::Counted, "the limit is per address");
        addresses.depart(a, false);
        assert_eq!(addresses.arrive(a, 0, &limits), Verdict::Counted, "refused connections do not take from the limit");
        (0..3).for_each(|_| addresses.depart(a, false));
        (0..16).for_each(|_| addresses.depart(a, true));
        addresses.depart(b, false);
        assert_eq!(addresses.sizes(), (0, 0));
    }

    #[test]
    fn full_buckets_are_dropped() {
        let (mut addresses, limits) = (addresses(), limits(0, 1));
        let (a, b) = (address("192.0.2.7"), address("2001:db8::"));
        assert!((0..10).all(|_| addresses.arrive(a, 0, &limits) == Verdict::Counted));
        assert_eq!(addresses.arrive(a, 0, &limits), Verdict::Refused(Excess::Upgrades));
        assert_eq!(addresses.arrive(b, 5, &limits), Verdict::Counted);
        assert_eq!(addresses.arrive(a, 10, &limits), Verdict::Counted, "one more connection a second later");
        addresses.forget(FILL_TICKS + 5);
        assert_eq!(addresses.sizes(), (2, 1), "the bucket of b is full, that of a is not");
        addresses.forget(FILL_TICKS + 10);
        assert_eq!(addresses.sizes(), (2, 0));
    }

    #[test]
    fn tables_are_bounded_and_shrink() {
        let (mut addresses, limits) = (addresses(), limits(0, 1));
        let many: Vec<_> = (0..BUCKETS_MAX as u32 + 100).map(|n| Address::of(Ipv4Addr::from_bits(n).into())).collect();
        for &address in &many {
            addresses.arrive(address, 0, &limits);
        }
        assert_eq!((addresses.sizes(), addresses.forgotten), ((many.len(), BUCKETS_MAX), 100));
        for &address in &many {
            addresses.depart(address, false);
            addresses.forget(FILL_TICKS);
        }
        assert_eq!(addresses.sizes(), (0, 0));
        assert!(addresses.counts.capacity() < 100 && addresses.buckets.capacity() < 100);
        assert!(addresses.filling.capacity() < 100);
        assert_eq!(size_of::<Count>(), 16);
    }
}
