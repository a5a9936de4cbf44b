//! Connections that are counted per address. They arrive and end also while a verdict of the address's owner is under way.

use super::Cluster;
use crate::hub::admission::addresses::{Address, Excess, Verdict};
use crate::hub::admission::arrivals::{Arrivals, Stage};
use crate::hub::mail::Arrival;
use crate::ids::{ShardId, Slot};
use std::net::Ipv4Addr;

/// The connections of one shard that are counted per address, or wait for a verdict.
#[derive(Default)]
pub struct CountedConnections {
    arrivals: Arrivals,
    /// By slot: the address of the connection that has it.
    addresses: [Option<Address>; SLOTS],
}

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// Ends the connection of a random slot, or opens one there.
    pub(super) fn arrive_or_depart(&mut self) {
        let shard = self.choices.below(self.shards.len());
        let slot = self.choices.below(SLOTS);
        self.now += self.choices.below(3) as u32;
        let now = self.now;
        let counted = &mut self.shards[shard].counted;
        match counted.addresses[slot].take() {
            Some(_) => self.depart(shard, slot),
            None => {
                let address = Address::of(Ipv4Addr::from_bits(self.choices.below(ADDRESSES) as u32).into());
                let counted = &mut self.shards[shard].counted;
                counted.addresses[slot] = Some(address);
                counted.arrivals.ask(slot as Slot, address);
                self.on(shard, |hub, port| hub.arrive(address, slot as Slot, now, port));
            }
        }
    }

    fn depart(&mut self, shard: usize, slot: usize) {
        let counted = &mut self.shards[shard].counted;
        counted.addresses[slot] = None;
        if let Some((address, was_refused)) = counted.arrivals.leave(slot as Slot) {
            self.on(shard, |hub, port| hub.depart(address, was_refused, port));
        }
    }

    /// Applies the verdict of an address's owner.
    pub(super) fn admitted(&mut self, shard: usize, arrival: Arrival, verdict: Verdict) {
        assert_eq!(arrival.shard, shard as ShardId, "a verdict reached the wrong shard");
        let counted = &mut self.shards[shard].counted;
        if !counted.arrivals.apply_verdict(arrival, verdict) {
            if let Some(was_refused) = verdict.counts_as_refused() {
                self.on(shard, |hub, port| hub.depart(arrival.address, was_refused, port));
            }
        } else if let Verdict::Dropped(_) = verdict {
            self.depart(shard, arrival.slot as usize);
        }
        let admitted = self.count(|address, stage| address == arrival.address && stage == Stage::Counted);
        assert!(
            admitted <= self.limits.address_connections_max() as usize,
            "more connections than the limit are admitted"
        );
    }

    /// At rest every connection has a verdict, and the owners count exactly the open connections.
    pub(super) fn check_arrivals(&self) {
        assert_eq!(self.count(|_, stage| stage == Stage::Asked), 0, "a verdict is missing");
        let counted: usize = self.shards.iter().map(|shard| shard.hub.addresses.counted()).sum();
        let is_counted = |stage| matches!(stage, Stage::Counted | Stage::Refused(_));
        assert_eq!(
            counted,
            self.count(|_, stage| is_counted(stage)),
            "a connection is counted twice, or is not counted"
        );
        if self.limits.upgrades_per_address_max == 0 {
            assert!(self.count(|_, stage| stage == Stage::Refused(Excess::Upgrades)) == 0);
        }
    }

    /// Ends all connections. Their addresses must be forgotten.
    pub(super) fn clear_arrivals(&mut self) {
        for shard in 0..self.shards.len() {
            for slot in 0..SLOTS {
                self.depart(shard, slot);
            }
        }
        self.rest();
        for shard in &self.shards {
            assert_eq!(shard.hub.addresses.sizes().0, 0, "an address without connections is kept");
        }
    }

    fn count(&self, is_meant: impl Fn(Address, Stage) -> bool) -> usize {
        let addresses = self.shards.iter().flat_map(|shard| {
            let addresses = shard.counted.addresses.iter().enumerate();
            addresses.filter_map(|(slot, address)| Some(((*address)?, shard.counted.arrivals.of(slot as Slot))))
        });
        addresses.filter(|&(address, stage)| is_meant(address, stage)).count()
    }
}

/// Slots per shard. There are few, so that a slot is used again while a verdict is under way.
const SLOTS: usize = 4;
const ADDRESSES: usize = 3;
