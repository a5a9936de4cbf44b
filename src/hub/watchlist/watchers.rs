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

/// A connection.
struct Watcher {
    /// Indexes of the users, in the order of its list.
    users: Box<[u32]>,
    /// How many of them no owner has answered for.
    unanswered: u32,
}

/// A user that is watched.
struct User {
    name: ChannelName,
    hash: u64,
    /// In an order that depends on nothing but what happened before.
    watchers: HashSet<Slot, BuildHasherDefault<AHasher>>,
    /// Whether it is online; `None`: its owner has not answered.
    is_online: Option<bool>,
}

/// Heap bytes of a connection's only watch, of a user that no other connection of the shard watches: without the name and
/// the room that tables keep.
pub const WATCH_BYTES: usize = size_of::<(Slot, Watcher)>()
    + size_of::<u32>()
    + size_of::<User>()
    + size_of::<(ChannelName, u32)>()
    + size_of::<Slot>();

/// The consequence of a letter about a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// None.
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

    /// Whether all owners have answered for the users of a connection, which has some.
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

    /// The owner of a user says whether it is online: because it was asked (`is_answer`), or because that has changed.
    pub fn hear(&mut self, user: &ChannelName, is_online: bool, is_answer: bool) -> Heard {
        let Watchers { by_slot, users, by_name, .. } = self;
        let Some(&index) = by_name.get(user) else { return Heard::Nothing };
        let User { watchers, is_online: known, .. } = &mut users[index as usize];
        match *known {
            // The answer is on its way, and knows better.
            None if !is_answer => Heard::Nothing,
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
                Heard::Ready(ready)
            }
            Some(known) if known == is_online => Heard::Nothing,
            Some(_) => {
                *known = Some(is_online);
                let was_told = |slot: &&Slot| by_slot.get(*slot).is_some_and(|watcher| watcher.unanswered == 0);
                Heard::Changed(watchers.iter().filter(was_told).copied().collect())
            }
        }
    }

    /// How many users a connection watches.
    pub fn watches_of(&self, slot: Slot) -> usize {
        self.by_slot.get(&slot).map_or(0, |watcher| watcher.users.len())
    }

    /// A connection has ended. Returns the users that no connection watches any more.
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
            // A burst leaves no memory behind.
            *self = Watchers::new(self.watches_max);
        }
        unwatched
    }

    /// Watches of all connections.
    pub fn watches(&self) -> usize {
        self.watches
    }
}
