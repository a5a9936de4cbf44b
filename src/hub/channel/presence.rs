//! Presence, as a channel's owner keeps it: the users of a `presence-…` channel ([`members`]), or the count of connections
//! that a rule asks for ([`count`]). The grace of users that have left, and the pauses between counts, are [`timers`] of
//! the shard.
//!
//! # A connection receives no event about its own user
//!
//! No event needs to exclude a connection, because of the order in which the owner sends its letters. Letters to one shard
//! arrive in that order, and a shard delivers an event to the connections that are subscribed when it arrives.
//!
//! * Joining: the owner sends `member_added` first and the newcomer's `Subscribed` second. A user is added only while none of
//!   its connections is subscribed: the newcomer is the first one.
//! * Leaving: the owner sends the connection's `Unsubscribed` first and `member_removed` second, at once or after the grace.
//!   A user is removed only after its last connection has left. A connection that has ended receives nothing anyway.
//!
//! The list that a newcomer receives is the owner's at the moment of its `Subscribed`. Every earlier event precedes that
//! letter and every later one follows it, so the list and the events after it add up to the owner's list at any time.

pub mod count;
pub mod members;
pub mod timers;
pub mod user;

#[cfg(test)]
mod tests;

use crate::config;
use count::Count;
use members::Members;
use std::borrow::Cow;
use std::sync::Arc;
use user::User;

/// What subscribers of a channel are told about each other.
pub enum Presence {
    /// How many connections there are.
    Count(Count),
    /// Which users there are.
    Members(Box<Members>),
}

impl Presence {
    /// Of a channel with this rule; `None`: nothing.
    pub fn of(rule: config::Presence) -> Option<Presence> {
        match rule {
            config::Presence::Off => None,
            config::Presence::Count => Some(Presence::Count(Count::default())),
            config::Presence::Members => Some(Presence::Members(Box::default())),
        }
    }
}

/// A change of a channel's members, which its subscribers are told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A user that was not a member is one now.
    Added(Arc<User>),
    /// A user stopped being a member.
    Removed(Arc<User>),
}

impl Event {
    /// The user that the event is about.
    pub fn user(&self) -> &User {
        match self {
            Event::Added(user) | Event::Removed(user) => user,
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Added(_) => "socket:member_added",
            Event::Removed(_) => "socket:member_removed",
        }
    }

    /// Its data.
    pub fn data(&self) -> Cow<'_, str> {
        match self {
            Event::Added(user) => user.text().into(),
            Event::Removed(user) => user.text_of_id().into(),
        }
    }
}
