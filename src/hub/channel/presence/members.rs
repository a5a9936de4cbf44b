//! The users of one presence channel, in order of joining. A user with several connections is one member.

use super::Event;
use super::timers::{Place, Timers};
use super::user::User;
use crate::ids::ConnKey;
use crate::protocol::dialect::Dialect;
use crate::protocol::pusher;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hash::Hash;
use std::sync::Arc;

/// The users of one channel.
#[derive(Default)]
pub struct Members {
    /// By their number, which grows from one user that joins to the next.
    users: BTreeMap<u64, Member>,
    by_id: HashMap<Arc<str>, u64, ahash::RandomState>,
    /// The number of each connection's user. So the letter of a connection that leaves need not name the user.
    by_connection: HashMap<ConnKey, u64, ahash::RandomState>,
    /// The users in their grace, in the order in which they left.
    leaving: BTreeMap<Place, u64>,
    /// Number of the next user.
    next: u64,
    /// The list in each dialect, until the next change.
    lists: [Option<Arc<str>>; 2],
}

struct Member {
    user: Arc<User>,
    stay: Stay,
}

/// Why a user is a member.
enum Stay {
    /// It has this many connections, at least one.
    Connected(u32),
    /// It is in its grace.
    Leaving(Place),
}

/// A channel has as many members as allowed, and none of them is leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What the end of a subscription means.
#[derive(Debug)]
pub enum Left {
    /// The connection is not subscribed, because its user was refused.
    NotSubscribed,
    /// The user remains a member: it has other connections, or is in its grace.
    Remains,
    /// The user was removed.
    Removed(Event),
}

impl Members {
    /// Subscribes a connection of `user`. Returns the events for the subscribers, which must precede the newcomer's reply:
    /// none for a user that is a member, also if it is in its grace. If there are `max` users, those that are longest in
    /// their grace make room.
    pub fn join(
        &mut self,
        connection: ConnKey,
        user: Arc<User>,
        max: usize,
        timers: &mut Timers,
    ) -> Result<Vec<Event>, Full> {
        let known = self.by_id.get(user.id()).copied();
        let mut events = Vec::new();
        let number = match known {
            Some(number) => {
                self.connect(number, timers);
                number
            }
            None => {
                events = self.make_room(max, timers)?;
                events.push(Event::Added(user.clone()));
                self.add(user)
            }
        };
        let earlier = self.by_connection.insert(connection, number);
        debug_assert_eq!(earlier, None, "a connection is subscribed once");
        Ok(events)
    }

    /// Ends the subscription of a connection. An event must follow its reply. `channel`: the index by which the timers name
    /// this channel.
    pub fn leave(&mut self, channel: u32, connection: ConnKey, now: u32, timers: &mut Timers) -> Left {
        let Some(number) = self.by_connection.remove(&connection) else {
            return Left::NotSubscribed;
        };
        shrink(&mut self.by_connection);
        let Some(Member { stay, .. }) = self.users.get_mut(&number) else {
            return Left::Remains;
        };
        match stay {
            Stay::Connected(1) => {
                let Some(place) = timers.start_grace(channel, number, now) else {
                    return self.remove(number, timers).map_or(Left::Remains, Left::Removed);
                };
                *stay = Stay::Leaving(place);
                self.leaving.insert(place, number);
            }
            Stay::Connected(connections) => *connections -= 1,
            Stay::Leaving(_) => debug_assert!(false, "a user in its grace has no connections"),
        }
        Left::Remains
    }

    /// Removes a user, whose grace has ended. Returns the event for the subscribers; `None`: it is not a member.
    pub fn remove(&mut self, number: u64, timers: &mut Timers) -> Option<Event> {
        let Member { user, stay } = self.users.remove(&number)?;
        if let Stay::Leaving(place) = stay {
            timers.leaving.remove(place);
            self.leaving.remove(&place);
        }
        self.by_id.remove(user.id());
        shrink(&mut self.by_id);
        self.lists = [None, None];
        Some(Event::Removed(user))
    }

    /// The user of a connection; `None`: the connection is not subscribed.
    pub fn user_of(&self, connection: ConnKey) -> Option<&User> {
        let number = self.by_connection.get(&connection)?;
        self.users.get(number).map(|member| &*member.user)
    }

    /// The list as JSON, for a newcomer's reply: `{"count":1,"members":[{"user_id":"11"}]}`, or as Pusher's clients read it. It
    /// is shared until it changes.
    pub fn list(&mut self, dialect: Dialect) -> Arc<str> {
        let Members { lists: [native, of_pusher], users, .. } = self;
        match dialect {
            Dialect::Native => native.get_or_insert_with(|| write_list(users)).clone(),
            Dialect::Pusher(_) => {
                let users = users.values().map(|Member { user, .. }| (user.escaped_id(), user.info()));
                of_pusher.get_or_insert_with(|| pusher::event::presence(users).into()).clone()
            }
        }
    }

    /// The users, and how many connections each has.
    pub fn iter(&self) -> impl Iterator<Item = (&User, u32)> {
        self.users.values().map(|member| {
            let connections = match member.stay {
                Stay::Connected(connections) => connections,
                Stay::Leaving(_) => 0,
            };
            (&*member.user, connections)
        })
    }

    /// Number of users, including those in their grace.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether the channel has no users. Then it needs no timer, and may be forgotten.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Entries that its maps have room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.by_id.capacity().max(self.by_connection.capacity())
    }

    fn connect(&mut self, number: u64, timers: &mut Timers) {
        let Some(Member { stay, .. }) = self.users.get_mut(&number) else {
            return debug_assert!(false, "a user that is named has an entry");
        };
        match stay {
            Stay::Connected(connections) => *connections += 1,
            &mut Stay::Leaving(place) => {
                *stay = Stay::Connected(1);
                timers.leaving.remove(place);
                self.leaving.remove(&place);
            }
        }
    }

    fn add(&mut self, user: Arc<User>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_id.insert(user.shared_id(), number);
        self.users.insert(number, Member { user, stay: Stay::Connected(1) });
        self.lists = [None, None];
        number
    }

    /// Removes users in their grace until there is room for one more. Removes none if that is not enough, which a lower
    /// limit can cause.
    fn make_room(&mut self, max: usize, timers: &mut Timers) -> Result<Vec<Event>, Full> {
        let surplus = (self.users.len() + 1).saturating_sub(max);
        if self.leaving.len() < surplus {
            return Err(Full);
        }
        let oldest: Vec<u64> = self.leaving.values().take(surplus).copied().collect();
        Ok(oldest.into_iter().filter_map(|number| self.remove(number, timers)).collect())
    }
}

fn write_list(users: &BTreeMap<u64, Member>) -> Arc<str> {
    let len: usize = users.values().map(|member| member.user.text().len() + 1).sum();
    let mut list = String::with_capacity(len + LIST_BYTES);
    let _ = write!(list, r#"{{"count":{},"members":["#, users.len());
    for (at, member) in users.values().enumerate() {
        list.push_str(if at > 0 { "," } else { "" });
        list.push_str(member.user.text());
    }
    list.push_str("]}");
    list.into()
}

/// Gives memory back after many entries were removed.
fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V, ahash::RandomState>) {
    if map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

/// Bytes of a user with one connection in the tables, without its texts.
pub const USER_BYTES: usize = size_of::<(u64, Member)>()
    + size_of::<(Arc<str>, u64)>()
    + size_of::<(ConnKey, u64)>()
    + size_of::<(Place, u64)>()
    + size_of::<User>();

/// Bytes of a list that are not members, with a count of ten digits.
const LIST_BYTES: usize = r#"{"count":0123456789,"members":[]}"#.len();
