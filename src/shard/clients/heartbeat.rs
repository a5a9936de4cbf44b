//! Heartbeats and deadlines: what happens when a connection's entry in the wheel comes due.

use super::{Clients, ticks};
use crate::config::Limits;
use crate::hub::Hub;
use crate::hub::mail::Slot;
use crate::protocol::close::CloseReason;
use crate::protocol::event;
use crate::shard::connection::Phase;

impl Clients {
    pub(super) fn pong(&mut self, slot: Slot) {
        let interval = self.interval_ticks();
        let connection = &mut self.connections[slot as usize];
        if std::mem::take(&mut connection.is_pinged) {
            connection.ping_at = connection.ping_at.wrapping_add(interval);
            let deadline = self.deadline(slot);
            self.wheel.arm(slot, deadline);
        }
    }

    /// Looks after connections whose entry in the wheel came due by tick `until`, up to which everybody was heard. Returns
    /// whether some are left for the next turn.
    pub fn expire(&mut self, until: u32, hub: &mut Hub) -> bool {
        for _ in 0..TIMERS_PER_TURN {
            let Some(slot) = self.wheel.expire(until) else {
                return false;
            };
            hub.counters.timers_fired += 1;
            self.expired(slot, until, hub);
        }
        true
    }

    fn expired(&mut self, slot: Slot, until: u32, hub: &mut Hub) {
        let Some(connection) = self.connections.get(slot as usize) else {
            return;
        };
        let is_due = |at: u32| until.wrapping_sub(at) as i32 >= 0;
        let deadline = match connection.phase {
            Phase::Ended => return,
            Phase::Closing { .. } if is_due(connection.ping_at) => return self.finish(slot),
            Phase::Upgrading => {
                let deadline = connection.accepted_at.wrapping_add(self.handshake_ticks());
                if is_due(deadline) {
                    return self.end(slot, &CloseReason::HandshakeTimeout, hub);
                }
                deadline
            }
            Phase::Closing { .. } => connection.ping_at,
            Phase::Open | Phase::Echoing { .. } if self.is_too_old(slot, until) => return self.retire(slot, hub),
            Phase::Echoing { .. } => return self.echo_expired(slot, until, hub),
            // What it says waits for its turn here: that is no silence.
            Phase::Open if connection.is_unread => until.wrapping_add(1),
            Phase::Open => {
                if is_due(self.deadline(slot)) && !self.beat(slot, until, hub) {
                    return;
                }
                self.deadline(slot)
            }
        };
        self.wheel.arm(slot, deadline);
    }

    /// An open connection's deadline has come: pings it, or closes it. Returns whether it goes on.
    fn beat(&mut self, slot: Slot, until: u32, hub: &mut Hub) -> bool {
        let (timeout_s, silence_s) = (self.live.limits.heart_timeout_s, self.silence_s(slot));
        let silent_at = self.silent_at(slot);
        let connection = &mut self.connections[slot as usize];
        let reason = if connection.is_pinged {
            CloseReason::PongTimeout { timeout_s }
        } else if until.wrapping_sub(silent_at) as i32 >= 0 {
            CloseReason::Silent { timeout_s: silence_s }
        } else {
            connection.is_pinged = true;
            connection.ping_at = self.now;
            hub.counters.pings_sent += 1;
            self.say(slot, hub, event::ping);
            return true;
        };
        self.close(slot, reason, hub);
        false
    }

    /// The tick at which an open connection has to be looked at.
    pub(super) fn deadline(&self, slot: Slot) -> u32 {
        let connection = &self.connections[slot as usize];
        let silent_at = self.silent_at(slot);
        let heart_at = if connection.is_pinged {
            connection.ping_at.wrapping_add(ticks(u64::from(self.live.limits.heart_timeout_s) * 1000))
        } else if self.live.limits.server_ping && (silent_at.wrapping_sub(connection.ping_at) as i32) > 0 {
            connection.ping_at
        } else {
            silent_at
        };
        self.no_later_than_age(slot, heart_at)
    }

    pub(super) fn silent_at(&self, slot: Slot) -> u32 {
        self.connections[slot as usize].heard_at.wrapping_add(ticks(u64::from(self.silence_s(slot)) * 1000))
    }

    /// Seconds of silence after which a connection counts as dead: at least those that it was told of.
    pub(super) fn silence_s(&self, slot: Slot) -> u32 {
        let silence_s = silence_s(&self.live.limits);
        match &self.earlier_heart {
            Some(earlier) if (self.connections[slot as usize].accepted_at.wrapping_sub(earlier.until) as i32) < 0 => {
                silence_s.max(earlier.silence_s)
            }
            _ => silence_s,
        }
    }

    /// `limits` are about to take the place of the present ones.
    pub(super) fn remember_heart(&mut self, limits: &Limits) {
        let present_s = silence_s(&self.live.limits);
        if silence_s(limits) != present_s {
            let silence_s = self.earlier_heart.as_ref().map_or(0, |earlier| earlier.silence_s).max(present_s);
            self.earlier_heart = Some(EarlierHeart { until: self.now.wrapping_add(1), silence_s });
        }
    }

    pub(super) fn interval_ticks(&self) -> u32 {
        ticks(u64::from(self.live.limits.heart_interval_s) * 1000)
    }

    pub(super) fn handshake_ticks(&self) -> u32 {
        ticks(self.live.limits.handshake_timeout_ms)
    }
}

/// A client pings as often as it was told when it came, and is not dead because others are told to ping more often. One
/// for all that came before the last change, so that a connection need not remember what it was told.
pub(super) struct EarlierHeart {
    /// Of connections accepted before this tick.
    until: u32,
    /// The longest silence that any of them was told of.
    silence_s: u32,
}

fn silence_s(limits: &Limits) -> u32 {
    limits.heart_interval_s + limits.heart_timeout_s
}

/// Entries of the wheel that one turn looks after.
const TIMERS_PER_TURN: usize = 1024;
