//! The connections of a shard that watch users, and what the shard knows of these users.
//!
//! A watch takes 4 bytes in the connection's list and about 8 in the set of the user's watchers. A user that is watched on this
//! shard takes about 150 bytes besides.

use super::Users;
use crate::ids::Slot;
use crate::protocol::channel::ChannelName;
use ahash::{AHasher, RandomState};
use slab::Slab;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

/// The connections of a shard that watch users.
pub struct Watchers {
    by_slot: HashMap<Slot, Watcher, RandomState>,
    users: Slab<User>,
    by_name: HashMap<ChannelName, u32, RandomState>,
    watches: usize,
    watches_max: usize,
}

/// A connection that watches users.
struct Watcher {
    /// Indexes of the users, in the order of its list.
    users: Box<[u32]>,
    /// Users whose owners have not answered yet.
    unanswered: u32,
}

/// A user that is watched.
struct User {
    name: ChannelName,
    hash: u64,
    /// The hasher is not seeded, so that simulations can be replayed.
    watchers: HashSet<Slot, BuildHasherDefault<AHasher>>,
    /// Whether it is online; `None`: its owner has not answered.
    is_online: Option<bool>,
}

/// Heap bytes of a watch at most: the only one of its connection, and the only one of its user on the shard. Without the name
/// and the spare room of tables.
pub const WATCH_BYTES: usize = size_of::<(Slot, Watcher)>()
    + size_of::<u32>()
    + size_of::<User>()
    + size_of::<(ChannelName, u32)>()
    + size_of::<Slot>();

/// The consequence of a letter about a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing has to be sent.
    Nothing,
    /// These connections can be sent their first frame.
    Ready(Vec<Slot>),
    /// These connections must be told.
    Changed(Vec<Slot>),
}

impl Watchers {
    /// No watches, and at most this many.
    pub fn new(watches_max: usize) -> Watchers {
        let (by_slot, by_name) = (HashMap::default(), HashMap::default());
        Watchers { by_slot, users: Slab::new(), by_name, watches: 0, watches_max }
    }

    /// A connection watches these users, each once. Returns those that the owners must be asked about, and how many are left out
    /// because there are too many watches.
    pub fn add(&mut self, slot: Slot, users: Users) -> (Users, usize) {
        let (mut asked, mut list, mut unanswered, mut left_out) = (Users::new(), Vec::new(), 0, 0);
        for (name, hash) in users {
            let known = self.by_name.get(&name).copied();
            if known.is_some_and(|index| self.users[index as usize].watchers.contains(&slot)) {
                continue;
            }
            if self.watches >= self.watches_max {
                left_out += 1;
                continue;
            }
            let index = known.unwrap_or_else(|| {
                asked.push((name.clone(), hash));
                let user = User { name: name.clone(), hash, watchers: HashSet::default(), is_online: None };
                let index = self.users.insert(user) as u32;
                self.by_name.insert(name, index);
                index
            });
            let user = &mut self.users[index as usize];
            user.watchers.insert(slot);
            unanswered += u32::from(user.is_online.is_none());
            list.push(index);
            self.watches += 1;
        }
        if !list.is_empty() {
            self.by_slot.insert(slot, Watcher { users: list.into(), unanswered });
        }
        (asked, left_out)
    }

    /// Whether a connection watches users, and the owners of all of them have answered.
    pub fn is_ready(&self, slot: Slot) -> bool {
        self.by_slot.get(&slot).is_some_and(|watcher| watcher.unanswered == 0)
    }

    /// The users of a connection that are online, and the others.
    pub fn state_of(&self, slot: Slot) -> (Vec<ChannelName>, Vec<ChannelName>) {
        let users = self.by_slot.get(&slot).map(|watcher| &*watcher.users).unwrap_or_default();
        let users = users.iter().map(|&index| &self.users[index as usize]);
        let (online, offline): (Vec<&User>, Vec<&User>) = users.partition(|user| user.is_online == Some(true));
        let names = |users: Vec<&User>| users.into_iter().map(|user| user.name.clone()).collect();
        (names(online), names(offline))
    }

    /// The owner of a user tells whether it is online: it was asked (`is_answer`), or this has changed.
    pub fn set_online(&mut self, user: &ChannelName, is_online: bool, is_answer: bool) -> Consequence {
        let Watchers { by_slot, users, by_name, .. } = self;
        let Some(&index) = by_name.get(user) else { return Consequence::Nothing };
        let User { watchers, is_online: known, .. } = &mut users[index as usize];
        match *known {
            // The answer is on its way, and is newer.
            None if !is_answer => Consequence::Nothing,
            None => {
                *known = Some(is_online);
                let mut ready = Vec::new();
                for &slot in &*watchers {
                    let Some(watcher) = by_slot.get_mut(&slot) else { continue };
                    watcher.unanswered -= 1;
                    if watcher.unanswered == 0 {
                        ready.push(slot);
                    }
                }
                Consequence::Ready(ready)
            }
            Some(known) if known == is_online => Consequence::Nothing,
            Some(_) => {
                *known = Some(is_online);
                let was_told = |slot: &&Slot| by_slot.get(*slot).is_some_and(|watcher| watcher.unanswered == 0);
                Consequence::Changed(watchers.iter().filter(was_told).copied().collect())
            }
        }
    }

    /// How many users a connection watches.
    pub fn watches_of(&self, slot: Slot) -> usize {
        self.by_slot.get(&slot).map_or(0, |watcher| watcher.users.len())
    }

    /// A connection has ended. Returns the users that it was the last one to watch.
    pub fn remove(&mut self, slot: Slot) -> Users {
        let Some(watcher) = self.by_slot.remove(&slot) else { return Users::new() };
        let mut unwatched = Users::new();
        for index in watcher.users {
            self.watches -= 1;
            let watchers = &mut self.users[index as usize].watchers;
            watchers.remove(&slot);
            if watchers.len() < watchers.capacity() / 4 {
                watchers.shrink_to(watchers.len() * 2);
            }
            if watchers.is_empty() {
                let User { name, hash, .. } = self.users.remove(index as usize);
                self.by_name.remove(&name);
                unwatched.push((name, hash));
            }
        }
        if self.by_slot.is_empty() {
            // Frees the memory after a burst.
            *self = Watchers::new(self.watches_max);
        }
        unwatched
    }

    /// Watches of all connections.
    pub fn watches(&self) -> usize {
        self.watches
    }
}
