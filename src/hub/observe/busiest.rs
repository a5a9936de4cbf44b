//! The busiest channels and addresses that a shard owns. A survey walks both tables, a bounded number of entries in each
//! turn: a shard can own millions of entries, and one long walk would delay everything else.
//!
//! The tables change during the walk, so the result is approximate. An entry that is added behind the walk is missed. A
//! channel that was vacated and occupied again, or an address in a table that grew, can be found twice; [`Best::ranked`]
//! removes such duplicates.

use super::best::{Best, BusyAddress, BusyChannel};
use crate::api::By;
use crate::hub::admission::addresses::Addresses;
use crate::hub::channel::directory::Directory;
use crate::ids::Asker;

/// A walk through both tables, and its position.
pub struct Survey {
    pub(super) asker: Asker,
    by: By,
    next_channel: usize,
    next_address: usize,
    pub(super) channels: Best<BusyChannel>,
    pub(super) addresses: Best<BusyAddress>,
}

impl Survey {
    pub(super) fn new(asker: Asker, by: By, limit: usize) -> Survey {
        let (channels, addresses) = (Best::new(limit), Best::new(limit));
        Survey { asker, by, next_channel: 0, next_address: 0, channels, addresses }
    }

    /// Whether the session of this asker requested it.
    pub(super) fn is_for(&self, asker: Asker) -> bool {
        Asker { request: asker.request, ..self.asker } == asker
    }

    /// Looks at up to `entries` entries of the tables. Returns how many of them are left: 0 while the walk is incomplete.
    pub(super) fn go_on(&mut self, directory: &Directory, addresses: &Addresses, entries: usize) -> usize {
        let end = directory.end().min(self.next_channel.saturating_add(entries));
        let left = entries - end.saturating_sub(self.next_channel);
        for index in self.next_channel..end {
            let Some(activity) = directory.activity(index) else { continue };
            let rank = match self.by {
                By::Subscribers => (activity.subscribers, activity.recent),
                By::Messages => (activity.recent, activity.subscribers),
            };
            self.channels.offer(rank, || BusyChannel {
                channel: activity.name.clone(),
                subscribers: activity.subscribers,
                messages: activity.messages,
            });
        }
        self.next_channel = self.next_channel.max(end);
        let end = addresses.end().min(self.next_address.saturating_add(left));
        let left = left - end.saturating_sub(self.next_address);
        for index in self.next_address..end {
            if let Some((address, connections)) = addresses.at(index) {
                self.addresses.offer((u64::from(connections), 0), || BusyAddress { address, connections });
            }
        }
        self.next_address = self.next_address.max(end);
        left
    }
}
