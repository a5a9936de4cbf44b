//! Clients that come back to a channel in one turn, each with another position, while messages are published.

use super::Cluster;

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// Some clients of one shard subscribe to a channel with a history, with messages in between.
    pub(super) fn come_back(&mut self) {
        let kept: Vec<usize> =
            (0..self.named).filter(|&channel| self.history.channels[channel].rule.history.is_some()).collect();
        if kept.is_empty() {
            return;
        }
        let channel = self.choices.of(&kept);
        let owner = self.history.channels[channel].owner;
        // At the owner all of it happens at once.
        let shard = if self.choices.one_in(3) { self.some_shard() } else { owner };
        for _ in 0..2 + self.choices.below(3) {
            if self.clients.iter().filter(|client| client.is_live).count() >= self.shards.len() + 2 * self.clients_max {
                return;
            }
            for _ in 0..self.choices.below(4) {
                if !self.shards[owner].is_fenced && self.shards[owner].unsettled < self.window {
                    self.publish_to(owner, &[channel], None, None);
                }
            }
            let client = self.connect(shard);
            self.subscribe(client, channel, true);
        }
    }
}
