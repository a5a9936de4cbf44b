//! Connections that are to be read although the poll will not report them again.

use crate::ids::Slot;
use std::collections::VecDeque;

/// The connections that wait for their turn to be read.
#[derive(Default)]
pub struct ReadQueue {
    /// Their sockets held more than one read takes.
    unread: VecDeque<Slot>,
    /// They were accepted a moment ago: they are read after all others.
    newcomers: VecDeque<Slot>,
    /// Too many of their replies wait for other shards.
    held: Vec<Slot>,
}

impl ReadQueue {
    /// Reads the connection again in the next turn.
    pub fn push(&mut self, slot: Slot) {
        self.unread.push_back(slot);
    }

    /// Reads the connection when it is the turn of newcomers.
    pub fn push_newcomer(&mut self, slot: Slot) {
        self.newcomers.push_back(slot);
    }

    /// Reads the connection once fewer of its replies wait. It is tried again in every turn that [`ReadQueue::release_held`]
    /// begins.
    pub fn hold(&mut self, slot: Slot) {
        self.held.push(slot);
    }

    /// Puts the connections that were held behind those that are unread.
    pub fn release_held(&mut self) {
        self.unread.extend(self.held.drain(..));
    }

    /// The next connection.
    pub fn pop(&mut self) -> Option<Slot> {
        self.unread.pop_front()
    }

    /// The next newcomer.
    pub fn pop_newcomer(&mut self) -> Option<Slot> {
        self.newcomers.pop_front()
    }

    /// How many wait, without newcomers and those that are held.
    pub fn len(&self) -> usize {
        self.unread.len()
    }

    /// How many newcomers wait.
    pub fn newcomers(&self) -> usize {
        self.newcomers.len()
    }

    /// Whether a connection could be read. `may_go_on`: whether one that is held could.
    pub fn has_work(&self, may_go_on: impl Fn(Slot) -> bool) -> bool {
        !self.unread.is_empty() || !self.newcomers.is_empty() || self.held.iter().any(|&slot| may_go_on(slot))
    }
}
