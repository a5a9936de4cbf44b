//! Connections that end. They receive no more messages, but the replies to their requests. Their subscriptions are removed
//! later, a limited number in each turn.
//!
//! Until its subscriptions are removed, a connection that has ended is still counted as a subscriber, but receives nothing.
//! Its slot must not be used again before [`Hub::has_departed`].

use super::mail::Mail;
use super::{Hub, Port};
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use std::collections::VecDeque;

/// The ended connections whose subscriptions have yet to be removed, and the turn's budget for that.
pub(super) struct Departures {
    /// Oldest first.
    queue: VecDeque<Slot>,
    /// Subscriptions that this turn may still remove.
    left: usize,
    per_turn: usize,
}

impl Default for Departures {
    fn default() -> Departures {
        Departures { queue: VecDeque::new(), left: SUBSCRIPTIONS_PER_TURN, per_turn: SUBSCRIPTIONS_PER_TURN }
    }
}

impl Departures {
    /// Renews the budget.
    pub(super) fn begin_turn(&mut self) {
        self.left = self.per_turn;
    }
}

impl Hub {
    /// The connection ends: it receives no more messages. Replies to its requests still follow. Once none is waiting
    /// ([`Hub::waiting_replies`]), the caller must call [`Hub::disconnect`].
    pub fn mute(&mut self, slot: Slot, reason: &CloseReason, port: &mut impl Port) {
        if self.audiences.live_key(slot).is_none() || self.audiences.is_muted(slot) {
            return;
        }
        self.observers.disconnected(self.socket_id(slot), self.audiences.dialect(slot), reason);
        if !reason.is_of_client() {
            // Messages that were published before still reach it.
            self.audiences.send_parts(slot, port);
            self.audiences.send_held(slot, port);
        }
        self.audiences.mute(slot);
    }

    /// The connection has ended, or must not be sent anything more.
    pub fn disconnect(&mut self, slot: Slot, reason: &CloseReason, port: &mut impl Port) {
        if self.audiences.live_key(slot).is_none() {
            return;
        }
        self.mute(slot, reason, port);
        self.audiences.disconnect(slot);
        self.users.remove(&slot);
        self.senders.remove(&slot);
        self.departures.queue.push_back(slot);
        self.remove_departed(port);
    }

    /// Removes subscriptions of ended connections, up to the turn's budget.
    pub fn remove_departed(&mut self, port: &mut impl Port) {
        while let Some(&slot) = self.departures.queue.front() {
            while self.departures.left > 0 && self.audiences.has_subscriptions(slot) {
                self.departures.left -= 1;
                if let Some(change) = self.audiences.remove_subscription(slot, port) {
                    self.post(self.owner(change.hash), Mail::Unsubscribe(change), port);
                }
            }
            if self.audiences.has_subscriptions(slot) {
                break;
            }
            let watches = self.watchers.watches_of(slot);
            if watches > 0 {
                if self.departures.left == 0 {
                    break;
                }
                self.departures.left = self.departures.left.saturating_sub(watches);
                self.unwatch(slot, port);
            }
            self.audiences.forget(slot);
            self.departures.queue.pop_front();
        }
        self.settle_own(port);
    }

    /// Whether ended connections still have subscriptions to remove.
    pub fn has_departures(&self) -> bool {
        !self.departures.queue.is_empty()
    }

    /// Whether the slot may be used again.
    pub fn has_departed(&self, slot: Slot) -> bool {
        !self.audiences.is_muted(slot)
    }

    /// Sets the turn's budget, for simulations.
    #[cfg(any(test, fuzzing))]
    pub fn set_departures_per_turn(&mut self, subscriptions: usize) {
        (self.departures.per_turn, self.departures.left) = (subscriptions, subscriptions);
    }
}

/// Most subscriptions that a turn removes: 1 to 2 ms of work.
pub const SUBSCRIPTIONS_PER_TURN: usize = 4096;
