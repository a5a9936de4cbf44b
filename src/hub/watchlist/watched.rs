//! Users as the owner of their channels sees them: whether they are online, and which shards have connections that watch them.
//! A user that is neither watched nor in its grace has no entry.

use crate::hub::channel::presence::timers::{LEAVING_MAX, Place, Queue, grace_ticks};
use crate::ids::ShardId;
use crate::protocol::channel::ChannelName;
use ahash::RandomState;
use smallvec::SmallVec;
use std::collections::HashMap;

/// The users of the channels that a shard owns.
pub struct Watched {
    users: HashMap<ChannelName, User, RandomState>,
    /// Users in their grace, in the order in which they left.
    leaving: Queue<ChannelName>,
    /// In ticks.
    grace: u32,
    /// Whether watchlists are served. Then users that are not watched have a grace, too: a connection may begin to watch them.
    is_on: bool,
}

/// Heap bytes of a user that is watched, without the name and the room that a table keeps.
pub const USER_BYTES: usize = size_of::<(ChannelName, User)>();

/// The shards that watch a user.
pub type Shards = SmallVec<[ShardId; 8]>;

#[derive(Default)]
struct User {
    shards: Shards,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A connection is signed in as the user.
    Online,
    /// The last connection has ended a short time ago: the user still counts as online.
    Leaving(Place),
    #[default]
    Offline,
}

impl Watched {
    /// No users yet. `is_on`: whether watchlists are served.
    pub fn new(grace_ms: u32, is_on: bool) -> Watched {
        Watched { users: HashMap::default(), leaving: Queue::default(), grace: grace_ticks(grace_ms), is_on }
    }

    /// Changes the grace, also of the users that are in it, and whether watchlists are served.
    pub fn set(&mut self, grace_ms: u32, is_on: bool) {
        (self.grace, self.is_on) = (grace_ticks(grace_ms), is_on);
    }

    /// A shard watches a user. Returns whether the user is online.
    pub fn watch(&mut self, shard: ShardId, user: &ChannelName, is_connected: bool) -> bool {
        let state = if is_connected { State::Online } else { State::Offline };
        let user = self.users.entry(user.clone()).or_insert_with(|| User { state, ..User::default() });
        if !user.shards.contains(&shard) {
            user.shards.push(shard);
        }
        user.state != State::Offline
    }

    /// A shard stops watching a user.
    pub fn unwatch(&mut self, shard: ShardId, user: &ChannelName) {
        let Some(entry) = self.users.get_mut(user) else { return };
        entry.shards.retain(|watching| *watching != shard);
        self.forget_if_idle(user);
    }

    /// The first connection has signed in as a user. Returns the shards that must be told.
    pub fn came(&mut self, user: &ChannelName) -> Shards {
        let Some(entry) = self.users.get_mut(user) else { return Shards::new() };
        match std::mem::replace(&mut entry.state, State::Online) {
            State::Offline => entry.shards.clone(),
            State::Online => Shards::new(),
            State::Leaving(place) => {
                self.leaving.remove(place);
                self.forget_if_idle(user);
                Shards::new()
            }
        }
    }

    /// The last connection of a user has ended. Returns the shards that must be told: none, if the user has a grace.
    pub fn left(&mut self, user: &ChannelName, now: u32) -> Shards {
        if self.grace == 0 || !self.is_on && !self.users.contains_key(user) {
            let Some(entry) = self.users.get_mut(user) else { return Shards::new() };
            entry.state = State::Offline;
            return entry.shards.clone();
        }
        let entry = self.users.entry(user.clone()).or_default();
        debug_assert!(!matches!(entry.state, State::Leaving(_)), "a user leaves once");
        entry.state = State::Leaving(self.leaving.push(now, user.clone()));
        Shards::new()
    }

    /// A user whose grace has ended, and the shards that must be told.
    pub fn next_offline(&mut self, now: u32) -> Option<(ChannelName, Shards)> {
        let after = if self.has_too_many_leaving() { 0 } else { self.grace };
        let user = self.leaving.pop(now, after)?;
        let shards = self.users.get_mut(&user).map(|entry| {
            entry.state = State::Offline;
            entry.shards.clone()
        });
        self.forget_if_idle(&user);
        Some((user, shards.unwrap_or_default()))
    }

    /// Ticks until [`Watched::next_offline`] has a user.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        self.leaving.due_in(now, self.grace)
    }

    /// Whether more users are in their grace than allowed, so that [`Watched::next_offline`] has one at once.
    pub fn has_too_many_leaving(&self) -> bool {
        self.leaving.len() > LEAVING_MAX
    }

    /// Whether no user is watched or in its grace.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.leaving.len() == 0
    }

    /// Whether a connection is signed in as a user follows from its channel, so that an entry is not needed for it.
    fn forget_if_idle(&mut self, user: &ChannelName) {
        let is_idle = |entry: &User| entry.shards.is_empty() && !matches!(entry.state, State::Leaving(_));
        if self.users.get(user).is_some_and(is_idle) {
            self.users.remove(user);
            if self.users.len() < self.users.capacity() / 4 {
                self.users.shrink_to(self.users.len() * 2);
            }
        }
    }
}
