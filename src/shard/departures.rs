//! Connections on their way out: those that are to be closed, those whose slot is to be freed, and why connections ended.

use crate::ids::Slot;
use crate::protocol::close::CloseReason;

/// The departures of a shard.
pub struct Departures {
    /// Connections that the hub wants closed.
    broken: Vec<(Slot, CloseReason)>,
    /// Connections that have ended, whose slots are not freed yet.
    ended: Vec<Slot>,
    /// Connections that ended or are ending, by [`CloseReason::kind`].
    closes: [u64; CloseReason::KINDS],
}

impl Default for Departures {
    fn default() -> Departures {
        Departures { broken: Vec::new(), ended: Vec::new(), closes: [0; CloseReason::KINDS] }
    }
}

impl Departures {
    /// The hub wants a connection closed.
    pub fn ask(&mut self, slot: Slot, reason: CloseReason) {
        self.broken.push((slot, reason));
    }

    /// A connection that the hub wants closed.
    pub fn pop_asked(&mut self) -> Option<(Slot, CloseReason)> {
        self.broken.pop()
    }

    /// A connection has ended: its slot is to be freed.
    pub fn push_ended(&mut self, slot: Slot) {
        self.ended.push(slot);
    }

    /// A connection whose slot is to be freed.
    pub fn pop_ended(&mut self) -> Option<Slot> {
        self.ended.pop()
    }

    /// Counts why a connection ends.
    pub fn count(&mut self, reason: &CloseReason) {
        self.closes[reason.kind()] += 1;
    }

    /// How many connections ended or are ending, by [`CloseReason::kind`].
    pub fn closes(&self) -> [u64; CloseReason::KINDS] {
        self.closes
    }

    /// Whether a connection is to be closed or a slot to be freed.
    pub fn has_work(&self) -> bool {
        !self.broken.is_empty() || !self.ended.is_empty()
    }
}
