//! Connections that arrive and leave, whatever their address's owner has heard of them by then.

use super::Cluster;
use crate::hub::admission::addresses::{Address, Excess, Verdict};
use crate::hub::admission::arrivals::{Arrivals, Stage};
use crate::hub::mail::Arrival;
use crate::ids::{ShardId, Slot};
use std::net::Ipv4Addr;

/// The connections of one shard that are on their way in, or are in.
#[derive(Default)]
pub struct Hall {
    arrivals: Arrivals,
    /// By slot: where the connection that has it comes from.
    guests: [Option<Address>; SLOTS],
}

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// A connection comes, or the one that is there goes.
    pub(super) fn come_or_go(&mut self) {
        let shard = self.choices.below(self.shards.len());
        let slot = self.choices.below(SLOTS);
        self.now += self.choices.below(3) as u32;
        let now = self.now;
        let hall = &mut self.shards[shard].hall;
        match hall.guests[slot].take() {
            Some(_) => self.go(shard, slot),
            None => {
                let address = Address::of(Ipv4Addr::from_bits(self.choices.below(ADDRESSES) as u32).into());
                let hall = &mut self.shards[shard].hall;
                hall.guests[slot] = Some(address);
                hall.arrivals.ask(slot as Slot, address);
                self.on(shard, |hub, port| hub.arrive(address, slot as Slot, now, port));
            }
        }
    }

    fn go(&mut self, shard: usize, slot: usize) {
        let hall = &mut self.shards[shard].hall;
        hall.guests[slot] = None;
        if let Some((address, was_refused)) = hall.arrivals.leave(slot as Slot) {
            self.on(shard, |hub, port| hub.depart(address, was_refused, port));
        }
    }

    /// An owner has decided.
    pub(super) fn admitted(&mut self, shard: usize, arrival: Arrival, verdict: Verdict) {
        assert_eq!(arrival.shard, shard as ShardId, "a verdict went astray");
        let hall = &mut self.shards[shard].hall;
        if !hall.arrivals.apply_verdict(arrival, verdict) {
            if let Some(was_refused) = verdict.counts_as_refused() {
                self.on(shard, |hub, port| hub.depart(arrival.address, was_refused, port));
            }
        } else if let Verdict::Dropped(_) = verdict {
            self.go(shard, arrival.slot as usize);
        }
        let placed = self.guests(|address, stage| address == arrival.address && stage == Stage::Counted);
        assert!(
            placed <= self.limits.address_connections_max() as usize,
            "more connections than the limit are admitted"
        );
    }

    /// At rest everybody has heard, and owners count who is there.
    pub(super) fn check_halls(&self) {
        assert_eq!(self.guests(|_, stage| stage == Stage::Asked), 0, "a verdict is missing");
        let counted: usize = self.shards.iter().map(|shard| shard.hub.addresses.counted()).sum();
        let is_there = |stage| matches!(stage, Stage::Counted | Stage::Refused(_));
        assert_eq!(
            counted,
            self.guests(|_, stage| is_there(stage)),
            "a connection is counted twice, or is not counted"
        );
        if self.limits.upgrades_per_address_max == 0 {
            assert!(self.guests(|_, stage| stage == Stage::Refused(Excess::Upgrades)) == 0);
        }
    }

    /// Everybody goes. Nothing is kept of them.
    pub(super) fn clear_halls(&mut self) {
        for shard in 0..self.shards.len() {
            for slot in 0..SLOTS {
                self.go(shard, slot);
            }
        }
        self.rest();
        for shard in &self.shards {
            assert_eq!(shard.hub.addresses.sizes().0, 0, "an address without connections is kept");
        }
    }

    fn guests(&self, is_meant: impl Fn(Address, Stage) -> bool) -> usize {
        let guests = self.shards.iter().flat_map(|shard| {
            let guests = shard.hall.guests.iter().enumerate();
            guests.filter_map(|(slot, guest)| Some(((*guest)?, shard.hall.arrivals.of(slot as Slot))))
        });
        guests.filter(|&(address, stage)| is_meant(address, stage)).count()
    }
}

/// Few, so that they are used again while verdicts are on their way.
const SLOTS: usize = 4;
const ADDRESSES: usize = 3;
