//! Watchlists: a Pusher client that signs in may name users. It is told which of them are online, and each change.
//!
//! A user is online while a connection is signed in as it, and for the grace after the last one has ended. The owner of the
//! user's channel knows this, and which shards have connections that watch the user ([`watched`]). A shard knows the lists of
//! its own connections ([`watchers`]). It asks an owner only about users that none of its connections watches yet.
//!
//! Letters from an owner to a shard arrive in order, so the latest one about a user is right. A connection is told
//! of changes only after its first frame, which is written from what the shard knows once every owner has answered.

pub mod watched;
pub mod watchers;

#[cfg(test)]
mod tests;

use super::mail::Mail;
use super::{Hub, Port};
use crate::ids::{ShardId, Slot};
use crate::protocol::channel::ChannelName;
use crate::protocol::pusher;
use crate::protocol::user;
use std::collections::BTreeMap;
use watchers::Consequence;

/// Users, with the hashes of their channels' names.
pub type Users = Vec<(ChannelName, u64)>;

/// As the shard of the connections that watch.
impl Hub {
    /// A Pusher client has signed in with this `user_data`: notes its watchlist, if it has one.
    pub(super) fn watch(&mut self, slot: Slot, user_data: &str, port: &mut impl Port) {
        if !self.limits.pusher_watchlist || self.audiences.is_muted(slot) {
            return;
        }
        let Some(list) = user::watchlist(user_data, &mut self.reader) else { return };
        let names = list.ids.iter().map(|id| ChannelName::of_user(id));
        let users: Users = names.map(|name| (name.clone(), self.placement.hash(name.as_channel()))).collect();
        let (asked, left_out) = self.watchers.add(slot, users);
        if list.left_out + left_out > 0 {
            self.counters.watches_refused += (list.left_out + left_out) as u64;
            let text = if list.left_out > 0 { TOO_LONG } else { TOO_MANY };
            self.audiences.answer(slot, port, |out| {
                pusher::event::error(out, Some(WATCHLIST_LIMIT), None, text);
            });
        }
        let shard = self.shard();
        for (owner, users) in self.by_owner(asked) {
            self.post(owner, Mail::Watch { shard, users: users.into() }, port);
        }
        if self.watchers.is_ready(slot) {
            self.send_first_frame(slot, port);
        }
    }

    /// A connection has ended, and with it its watches.
    pub(super) fn unwatch(&mut self, slot: Slot, port: &mut impl Port) {
        let users = self.watchers.remove(slot);
        let shard = self.shard();
        for (owner, users) in self.by_owner(users) {
            self.post(owner, Mail::Unwatch { shard, users: users.into() }, port);
        }
    }

    /// Owners have answered (`is_answer`), or a user has come or gone.
    pub(super) fn update_users(&mut self, users: &[(ChannelName, bool)], is_answer: bool, port: &mut impl Port) {
        for (user, is_online) in users {
            match self.watchers.set_online(user, *is_online, is_answer) {
                Consequence::Nothing => {}
                Consequence::Ready(slots) => slots.into_iter().for_each(|slot| self.send_first_frame(slot, port)),
                Consequence::Changed(slots) => {
                    let id = user::id_of(user.as_channel());
                    let id = [&*id];
                    let (online, offline) = if *is_online { (&id[..], &[][..]) } else { (&[][..], &id[..]) };
                    self.send_to_watchers(&slots, online, offline, port);
                }
            }
        }
    }

    fn send_first_frame(&mut self, slot: Slot, port: &mut impl Port) {
        let (online, offline) = self.watchers.state_of(slot);
        let ids = |names: &[ChannelName]| -> Vec<String> {
            names.iter().map(|name| user::id_of(name.as_channel()).into_owned()).collect()
        };
        let (online, offline) = (ids(&online), ids(&offline));
        if online.len() + offline.len() > 0 {
            let [online, offline] = [&online, &offline].map(|ids| ids.iter().map(String::as_str).collect::<Vec<_>>());
            self.send_to_watchers(&[slot], &online, &offline, port);
        }
    }

    fn send_to_watchers(&mut self, slots: &[Slot], online: &[&str], offline: &[&str], port: &mut impl Port) {
        self.counters.watchlist_events += slots.len() as u64;
        let bytes = self.audiences.tell(slots, port, |out| pusher::event::watchlist_events(out, online, offline));
        self.turn_output.fan_out_bytes += bytes;
    }

    fn by_owner(&self, users: Users) -> BTreeMap<ShardId, Users> {
        let mut by_owner = BTreeMap::<ShardId, Users>::new();
        for (name, hash) in users {
            by_owner.entry(self.placement.owner(hash)).or_default().push((name, hash));
        }
        by_owner
    }
}

/// As the owner of users' channels.
impl Hub {
    /// Connections of a shard watch these users, which none of its connections did before.
    pub(super) fn count_watch(&mut self, shard: ShardId, users: &[(ChannelName, u64)], port: &mut impl Port) {
        let Hub { watched, directory, .. } = self;
        let state = |(name, hash): &(ChannelName, u64)| {
            let is_connected = !directory.counts(name.as_channel(), *hash).is_empty();
            (name.clone(), watched.watch(shard, name, is_connected))
        };
        let answer = users.iter().map(state).collect();
        self.post(shard, Mail::Watching(answer), port);
    }

    /// No connection of a shard watches these users any more.
    pub(super) fn count_unwatch(&mut self, shard: ShardId, users: &[(ChannelName, u64)]) {
        users.iter().for_each(|(name, _)| self.watched.unwatch(shard, name));
    }

    /// The first connection has signed in as a user.
    pub(super) fn user_came(&mut self, user: &ChannelName, port: &mut impl Port) {
        let shards = self.watched.came(user);
        self.tell_of_user(user, true, &shards, port);
    }

    /// The last connection of a user has ended.
    pub(super) fn user_left(&mut self, user: &ChannelName, port: &mut impl Port) {
        // At the end of the server, all users leave.
        if !self.is_ending() {
            let shards = self.watched.left(user, self.now);
            self.tell_of_user(user, false, &shards, port);
        }
    }

    /// Tells of a limited number of users whose grace has ended.
    pub(super) fn tell_watchers(&mut self, port: &mut impl Port) {
        let mut left = USERS_PER_TURN;
        while (left > 0 || self.watched.has_too_many_leaving())
            && let Some((user, shards)) = self.watched.next_offline(self.now)
        {
            self.tell_of_user(&user, false, &shards, port);
            left = left.saturating_sub(1);
        }
    }

    fn tell_of_user(&mut self, user: &ChannelName, is_online: bool, shards: &[ShardId], port: &mut impl Port) {
        for &shard in shards {
            self.post(shard, Mail::UserIs(user.clone(), is_online), port);
        }
    }
}

/// The code of `pusher:error` for a watchlist that is too long.
const WATCHLIST_LIMIT: u16 = 4302;
const TOO_LONG: &str = "The watchlist has more than 100 users: only the first 100 are watched";
const TOO_MANY: &str = "The server has reached its limit of watches: some users of the watchlist are not watched";
/// Most users whose grace ends in one turn.
const USERS_PER_TURN: usize = 1024;
/// Most watches of the whole server. Each shard has an equal share.
pub const WATCHES_MAX: usize = 1_000_000;
