//! Heartbeats, deadlines and age: what happens when a connection's entry in the wheel comes due.

use super::{Clients, ticks};
use crate::hub::Hub;
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::native;
use crate::shard::connection::state::Phase;
use crate::shard::drain::plan::lone_wait_ms;
use crate::shard::heartbeats::Due;
use crate::wire::frame::Opcode;

impl Clients {
    /// A connection answered the server's ping.
    pub(super) fn pong(&mut self, slot: Slot) {
        let interval = self.interval_ticks();
        let state = &mut self.connections[slot].state;
        if std::mem::take(&mut state.is_pinged) {
            state.ping_at = state.ping_at.wrapping_add(interval);
            self.look_at_deadline(slot);
        }
    }

    /// Handles connections whose entry in the wheel came due by tick `until`, up to which all that had arrived was read.
    /// Returns whether some are left for the next turn.
    pub fn expire(&mut self, until: u32, hub: &mut Hub) -> bool {
        for _ in 0..TIMERS_PER_TURN {
            let Some(slot) = self.heartbeats.expire(until) else {
                return false;
            };
            hub.counters.timers_fired += 1;
            self.expired(slot, until, hub);
        }
        true
    }

    fn expired(&mut self, slot: Slot, until: u32, hub: &mut Hub) {
        let Some(connection) = self.connections.get(slot) else {
            return;
        };
        let state = &connection.state;
        let has_come = |at: u32| until.wrapping_sub(at) as i32 >= 0;
        let deadline = match state.phase {
            Phase::Ended => return,
            Phase::Answering { .. } | Phase::Closing { .. } if has_come(state.ping_at) => {
                return self.finish(slot, hub);
            }
            Phase::Upgrading => {
                let deadline = state.accepted_at.wrapping_add(self.handshake_ticks());
                if has_come(deadline) {
                    return self.end(slot, &CloseReason::HandshakeTimeout, hub);
                }
                deadline
            }
            Phase::Answering { .. } | Phase::Closing { .. } => state.ping_at,
            Phase::Open | Phase::Echoing { .. } if self.retires_at(slot).is_some_and(has_come) => {
                return self.retire(slot, hub);
            }
            Phase::Echoing { .. } => return self.echo_expired(slot, until, hub),
            Phase::Open
                if (state.is_held || !state.is_unread) && self.authorization.deadline(slot).is_some_and(has_come) =>
            {
                self.authorization.forget(slot);
                if !hub.is_authorized(slot) {
                    return self.close(slot, CloseReason::NotAuthorized, hub);
                }
                until.wrapping_add(1)
            }
            Phase::Open if state.is_held => return self.held_expired(slot, until, hub),
            // Its bytes wait to be read by this shard, so it is not silent.
            Phase::Open if state.is_unread => until.wrapping_add(1),
            Phase::Open => {
                if self.beat(slot, until, hub) {
                    self.look_at_deadline(slot);
                }
                return;
            }
        };
        self.heartbeats.look_at(slot, deadline);
    }

    /// Pings or closes an open connection if that is due. Returns whether it stays open.
    fn beat(&mut self, slot: Slot, until: u32, hub: &mut Hub) -> bool {
        let limits = &self.live.limits;
        let reason = match self.heartbeats.due(&self.connections[slot].state, limits, until) {
            Due::Nothing => return true,
            Due::Ping => {
                let state = &mut self.connections[slot].state;
                state.is_pinged = true;
                state.ping_at = self.now;
                let dialect = state.dialect;
                hub.counters.pings_sent += 1;
                match dialect {
                    Dialect::Native => self.send(slot, hub, native::event::ping),
                    // A ping frame, because some clients do not answer `pusher:ping`.
                    Dialect::Pusher(_) => self.send_frame(slot, Opcode::Ping, b"", hub),
                }
                return true;
            }
            Due::PongTimeout => CloseReason::PongTimeout { timeout_s: limits.heart_timeout_s },
            Due::Silent { timeout_s } => CloseReason::Silent { timeout_s, is_reading: true },
        };
        self.close(slot, reason, hub);
        false
    }

    /// Handles a due entry of a connection that is not read because it does not read its replies. It is closed only if its
    /// socket takes no bytes, not because nothing arrives.
    fn held_expired(&mut self, slot: Slot, until: u32, hub: &mut Hub) {
        let state = &self.connections[slot].state;
        let blocked_at = self.heartbeats.silent_at(state, &self.live.limits);
        if until.wrapping_sub(blocked_at) as i32 >= 0 {
            let timeout_s = self.heartbeats.silence_s(state, &self.live.limits);
            self.close(slot, CloseReason::Silent { timeout_s, is_reading: false }, hub);
        } else {
            self.look_at(slot, blocked_at);
        }
    }

    /// Closes a connection that has reached its maximum age.
    fn retire(&mut self, slot: Slot, hub: &mut Hub) {
        let retry_after_ms = lone_wait_ms(self.random.hash_one((slot, self.now)));
        self.close(slot, CloseReason::TooOld { retry_after_ms }, hub);
    }

    /// Arms the entry of an open connection for its next heartbeat or its maximum age.
    pub(super) fn look_at_deadline(&mut self, slot: Slot) {
        let deadline = self.heartbeats.deadline(&self.connections[slot].state, &self.live.limits);
        self.look_at(slot, deadline);
    }

    /// Arms the entry of a connection for tick `at`, or for an earlier tick at which it reaches its maximum age or must be
    /// authorized.
    pub(super) fn look_at(&mut self, slot: Slot, at: u32) {
        let earlier = |at: u32, other: u32| if (other.wrapping_sub(at) as i32) < 0 { other } else { at };
        let at = self.retires_at(slot).map_or(at, |retires_at| earlier(at, retires_at));
        let at = self.authorization.deadline(slot).map_or(at, |deadline| earlier(at, deadline));
        self.heartbeats.look_at(slot, at);
    }

    fn retires_at(&self, slot: Slot) -> Option<u32> {
        let accepted_at = self.connections[slot].state.accepted_at;
        self.max_age.retires_at(accepted_at, || self.random.hash_one((accepted_at, slot)))
    }

    pub(super) fn interval_ticks(&self) -> u32 {
        ticks(u64::from(self.live.limits.heart_interval_s) * 1000)
    }

    pub(super) fn handshake_ticks(&self) -> u32 {
        ticks(self.live.limits.handshake_timeout_ms)
    }
}

/// Entries of the wheel that one turn handles.
const TIMERS_PER_TURN: usize = 1024;
