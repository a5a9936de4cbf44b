//! Presence at rest: what subscribers know, what the owners know, and who is subscribed.

use super::Cluster;
use crate::config::Presence;
use std::collections::BTreeMap;

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// Time passes without a turn, except that timers of presence are served.
    pub(super) fn pass(&mut self, ticks: u32) {
        for shard in 0..self.shards.len() {
            self.shards[shard].hub.now += ticks;
            self.on(shard, |hub, port| hub.tell_presence(port));
        }
        self.rest();
    }

    /// At rest, a second after the last change: each subscriber knows the members or the count of the channel.
    pub(super) fn check_presence(&mut self) {
        if self.shards.iter().any(|shard| shard.is_fenced) {
            // The end of the server is near, and subscribers are told nothing more.
            return;
        }
        self.pass(12);
        self.check_watchers();
        for (channel, topic) in self.history.channels.iter().enumerate() {
            let name = topic.channel();
            let (count, members) = self.shards[topic.owner].hub.directory.members(name, topic.hash);
            let ids: Vec<&str> = members.iter().map(|member| &*member.user_id).collect();
            let subscribed = self.clients.iter().filter(|client| client.is_live && client.wanted[channel]);
            let views: Vec<_> =
                subscribed.map(|client| client.views[channel].as_ref().expect("a subscription")).collect();
            if topic.rule.presence == Presence::Count {
                let mut counting = views.iter().filter(|view| view.is_counting());
                assert!(counting.all(|view| view.count == views.len() as u64), "{views:?}");
            }
            let expected = match topic.rule.presence {
                Presence::Off => 0,
                Presence::Count => views.len(),
                Presence::Members => members.len(),
            };
            assert_eq!(count, expected as u64, "the count that operators see");
            if topic.rule.presence != Presence::Members {
                assert!(ids.is_empty());
                continue;
            }
            let mut connections: BTreeMap<&str, u64> = BTreeMap::new();
            for view in &views {
                assert_eq!(view.members, ids, "a subscriber knows other members than the owner");
                *connections.entry(view.own()).or_default() += 1;
            }
            for member in &members {
                let expected = connections.remove(&*member.user_id).unwrap_or(0);
                assert_eq!(member.connections, expected, "connections of {member:?}");
                assert!(expected > 0 || self.limits.presence_grace_ms > 0, "{member:?} has no grace");
            }
            assert!(connections.is_empty(), "{connections:?} are not members");
            // Users that were members keep their place until they are removed.
            let full = self.limits.presence_members_max;
            assert!(members.len() <= full);
        }
    }

    /// All clients have disconnected, and all graces have ended.
    pub(super) fn check_no_members(&self) {
        for shard in &self.shards {
            let counters = &shard.hub.counters;
            assert_eq!(counters.presence_joins, counters.presence_leaves, "a member is never removed");
            assert_eq!(shard.hub.presence_due_in(), None, "a timer is kept");
        }
    }
}
