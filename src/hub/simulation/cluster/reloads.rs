//! Settings that change in a running cluster: how much channels keep, and for how long users remain members.

use super::{Cluster, rules};

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// Applies other settings to all shards, one after the other, while letters arrive.
    pub(super) fn reload(&mut self) {
        let messages_max = self.choices.of(&[2, 5, 1000]);
        self.rules = rules(messages_max);
        self.limits.history_bytes_max = self.choices.of(&[1000, 5000, 1 << 20]);
        self.limits.presence_grace_ms = self.choices.of(&[0, 1000, 3000]);
        self.history.forgets = true;
        for topic in &mut self.history.channels {
            // A channel may still keep as much as before.
            topic.rule.history.iter_mut().for_each(|history| history.messages_max = history.messages_max.max(1000));
        }
        for shard in 0..self.shards.len() {
            let hub = &mut self.shards[shard].hub;
            hub.limits = self.limits.clone();
            hub.directory.set_grace(self.limits.presence_grace_ms);
            hub.watched.set(self.limits.presence_grace_ms, self.limits.pusher_watchlist);
            hub.set_rules(&self.rules);
            (0..self.choices.below(4)).for_each(|_| self.deliver_one());
            if self.choices.one_in(2) {
                self.shards[shard].hub.begin_turn(self.now_us);
            }
        }
    }
}
