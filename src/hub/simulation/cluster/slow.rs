//! Slow readers of channels that conflate: messages are held back for them while output waits, and sent later.

use super::Cluster;
use crate::config::Slow;
use crate::ids::{ConnKey, Slot};

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// Messages are held back for a connection from now on, for which this many bytes wait. It must be blocked.
    pub(super) fn held_back(&mut self, shard: usize, slot: Slot, waiting: usize) {
        assert!(waiting >= BLOCKED_BYTES.min(self.limits.outbox_bytes_max / 2), "only {waiting} bytes wait");
        let wire = &mut self.shards[shard].wires[slot as usize];
        wire.is_lagging = true;
        if let Some(client) = wire.client {
            self.clients[client].is_lagging = true;
        }
    }

    /// Messages of a channel that conflates are published while its subscribers read little of them.
    pub(super) fn fall_behind(&mut self) {
        let is_meant = |channel: &usize| self.history.channels[*channel].rule.slow != Slow::Disconnect;
        let conflating: Vec<usize> = (0..self.named).filter(is_meant).collect();
        if conflating.is_empty() {
            return;
        }
        let channel = self.choices.of(&conflating);
        let owner = self.history.channels[channel].owner;
        for _ in 0..4 + self.choices.below(12) {
            if !self.shards[owner].is_fenced && self.shards[owner].unsettled < self.window {
                self.publish_to(owner, &[channel], None, None);
            }
            match self.choices.below(4) {
                0 | 1 => self.on(owner, |hub, port| hub.end_turn(port)),
                2 => self.write_something(owner),
                _ => self.deliver_one(),
            }
        }
    }

    /// The kernel takes the output of some connection, often only a part of it.
    pub(super) fn write_something(&mut self, shard: usize) {
        let wires = &self.shards[shard].wires;
        let lagging: Vec<usize> = (0..wires.len()).filter(|&slot| wires[slot].is_lagging).collect();
        let slots = wires.len();
        // Messages are held back for few.
        let slot = if lagging.is_empty() { self.choices.below(slots) } else { self.choices.of(&lagging) };
        let chunks = self.choices.of(&[1, 2, 5, usize::MAX, usize::MAX]);
        self.write_some(shard, slot, chunks);
    }

    /// Nothing waits for a connection: it is sent some of what was held back.
    pub(super) fn catch_up(&mut self, shard: usize, slot: usize) {
        if !self.shards[shard].wires[slot].is_lagging {
            return;
        }
        assert!(self.shards[shard].wires[slot].queue.is_empty());
        let has_more = self.on(shard, |hub, port| hub.catch_up(slot as Slot, port));
        let wire = &mut self.shards[shard].wires[slot];
        wire.is_lagging = has_more;
        if let Some(client) = wire.client {
            let client = &mut self.clients[client];
            client.is_lagging = has_more;
            client.caught_up_at = self.history.messages.len();
        }
    }

    /// All connections read until nothing is held back.
    pub(super) fn catch_up_all(&mut self) {
        for shard in 0..self.shards.len() {
            for slot in 0..self.shards[shard].wires.len() {
                while self.shards[shard].wires[slot].is_lagging {
                    self.write(shard, slot);
                }
            }
        }
        for client in self.clients.iter().filter(|client| client.is_live) {
            let ConnKey { shard, slot, .. } = client.key;
            assert_eq!(self.shards[usize::from(shard)].hub.audiences.held_of(slot), 0, "messages are never sent");
        }
    }
}

/// From this many on, or from half of the outbox limit on, a connection counts as blocked.
const BLOCKED_BYTES: usize = 64 * 1024;
