//! Connections on their way out: to be closed, waiting for their last replies, or ended with a slot to be freed. Also counts
//! why connections ended.

use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use std::collections::VecDeque;

/// The departures of a shard.
pub struct Departures {
    /// Connections that the hub wants closed.
    broken: Vec<(Slot, CloseReason)>,
    /// Connections whose last replies have not come, and why they end.
    answering: Vec<(Slot, CloseReason)>,
    /// Connections that have ended, whose slots are not freed yet.
    ended: VecDeque<Slot>,
    /// Connections that ended or are ending, by [`CloseReason::kind`].
    closes: [u64; CloseReason::KINDS],
}

impl Default for Departures {
    fn default() -> Departures {
        Departures {
            broken: Vec::new(),
            answering: Vec::new(),
            ended: VecDeque::new(),
            closes: [0; CloseReason::KINDS],
        }
    }
}

impl Departures {
    /// The hub wants a connection closed.
    pub fn ask(&mut self, slot: Slot, reason: CloseReason) {
        self.broken.push((slot, reason));
    }

    /// The next connection that the hub wants closed.
    pub fn pop_asked(&mut self) -> Option<(Slot, CloseReason)> {
        self.broken.pop()
    }

    /// A connection ends once its last replies have come.
    pub fn push_answering(&mut self, slot: Slot, reason: CloseReason) {
        self.answering.push((slot, reason));
    }

    /// The next connection for which `is_answered` reports that its replies have come.
    pub fn pop_answered(&mut self, is_answered: impl Fn(Slot) -> bool) -> Option<(Slot, CloseReason)> {
        let at = self.answering.iter().position(|(slot, _)| is_answered(*slot))?;
        Some(self.answering.swap_remove(at))
    }

    /// Removes a connection from those that wait for replies, because it has ended.
    pub fn remove_answering(&mut self, slot: Slot) -> Option<CloseReason> {
        self.pop_answered(|answering| answering == slot).map(|(_, reason)| reason)
    }

    /// A connection has ended: its slot is to be freed.
    pub fn push_ended(&mut self, slot: Slot) {
        self.ended.push_back(slot);
    }

    /// The oldest connection whose slot is to be freed, if `may_be` allows it.
    pub fn pop_ended(&mut self, may_be: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.ended.pop_front_if(|slot| may_be(*slot))
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
