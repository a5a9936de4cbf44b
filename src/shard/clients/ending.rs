//! How connections end: the close handshake, shutdown, and the slot's return.

use super::{Clients, ticks};
use crate::hub::Hub;
use crate::hub::mail::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::connection::{Connection, Phase};
use crate::wire::frame::{self, Opcode, Violation};
use std::sync::atomic::Ordering::Relaxed;

impl Clients {
    /// Says why, and waits for the peer to close. What the connection was sent before goes first.
    pub fn close(&mut self, slot: Slot, reason: CloseReason, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        match connection.phase {
            Phase::Closing { .. } | Phase::Ended => return,
            // Its close frame may be behind what was not read.
            Phase::Echoing { is_paused: true } => self.unread.push_back(slot),
            _ => {}
        }
        let was_member = connection.phase == Phase::Open;
        self.count_end(slot, &reason, hub);
        if was_member {
            tracing::debug!(shard = self.me, slot, socket_id = %hub.socket_id(slot), ?reason, "closing");
            hub.disconnect(slot, &reason, self);
        }
        self.go_on(slot, Phase::Closing { reads: true, is_answered: false });
        self.drop_at(slot, self.now.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
        if let CloseReason::SlowConsumer { .. } = reason {
            let (dropped, can_follow) = self.output.cut_to_frame(&mut hub.pages, slot);
            hub.counters.outbox_bytes_dropped += dropped as u64;
            if !can_follow {
                return self.finish(slot);
            }
        }
        if let CloseReason::ClientClosed { code: None } = reason {
            self.say(slot, hub, |out| frame::encode_header(out, Opcode::Close, 0));
        } else if let Some((code, text)) = reason.frame() {
            self.say(slot, hub, |out| frame::encode_close(out, code, &text));
        }
        self.mark(slot);
    }

    /// The peer's close frame has come. What waits for it goes out, then the answer, then the end.
    pub(super) fn answer_close(&mut self, slot: Slot, code: Option<u16>, hub: &mut Hub) {
        self.close(slot, CloseReason::ClientClosed { code }, hub);
        self.go_on(slot, Phase::Closing { reads: false, is_answered: true });
        self.mark(slot);
    }

    /// The peer broke the protocol: nothing more that it says is understood.
    pub(super) fn fail(&mut self, slot: Slot, violation: Violation, hub: &mut Hub) {
        let reason = match violation {
            Violation::Protocol(what) => CloseReason::ProtocolError(what),
            Violation::InvalidUtf8 => CloseReason::InvalidUtf8,
            Violation::TooBig => CloseReason::MessageTooBig { limit: self.live.limits.message_bytes_max },
        };
        self.close(slot, reason, hub);
        self.go_on(slot, Phase::Closing { reads: false, is_answered: false });
    }

    /// The peer is gone, or is treated as if. What already waits for an upgraded connection is still offered to the socket: it
    /// may only have said that it sends no more.
    pub(super) fn end(&mut self, slot: Slot, reason: &CloseReason, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let phase = connection.phase;
        self.count_end(slot, reason, hub);
        match phase {
            Phase::Upgrading | Phase::Ended => return self.finish(slot),
            Phase::Open | Phase::Echoing { .. } => {
                if phase == Phase::Open {
                    hub.disconnect(slot, reason, self);
                }
                self.drop_at(slot, self.now.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
            }
            Phase::Closing { .. } => {}
        }
        self.go_on(slot, Phase::Closing { reads: false, is_answered: true });
        self.mark(slot);
    }

    /// Counts why a connection ends, once: accepts are the connections that are open and those that ended, by reason.
    pub(super) fn count_end(&mut self, slot: Slot, reason: &CloseReason, hub: &mut Hub) {
        if !self.connections[slot as usize].is_ending() {
            self.closes[reason.kind()] += 1;
            if hub.is_watched() {
                hub.see_close(slot, self.address(slot), reason);
            }
        }
    }

    /// A connection that is closing is dropped at this tick, whatever still waits for it.
    pub(super) fn drop_at(&mut self, slot: Slot, at: u32) {
        self.connections[slot as usize].ping_at = at;
        self.wheel.arm(slot, at);
    }

    /// Nothing more is to be done for it.
    pub(super) fn finish(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.phase != Phase::Ended {
            self.go_on(slot, Phase::Ended);
            self.output.shut(slot);
            self.ended.push(slot);
        }
    }

    /// Closes whom the hub wants closed.
    pub fn close_broken(&mut self, hub: &mut Hub) {
        while let Some((slot, reason)) = self.broken.pop() {
            self.close(slot, reason, hub);
        }
    }

    /// Ends everybody without another word. Returns how many were still to be told why, or had something to be written.
    pub fn cut_off(&mut self, hub: &mut Hub) -> usize {
        let is_late = |(slot, connection): &(usize, &Connection)| {
            self.output.waiting(*slot as Slot) > 0 || matches!(connection.phase, Phase::Open | Phase::Echoing { .. })
        };
        let late = self.connections.iter().filter(is_late).count();
        let slots: Vec<Slot> = self.connections.iter().map(|(slot, _)| slot as Slot).collect();
        for slot in slots {
            self.count_end(slot, &CloseReason::ServerRestarting, hub);
            self.finish(slot);
        }
        while !self.ended.is_empty() {
            self.reap(hub);
        }
        late
    }

    /// Frees the slots of connections that ended, up to the turn's budget: closing a socket is the dearest part of an end, and
    /// thousands can come at once.
    pub fn reap(&mut self, hub: &mut Hub) {
        for _ in 0..REAPS_PER_TURN {
            let Some(slot) = self.ended.pop() else { return };
            let Some(connection) = self.connections.try_remove(slot as usize) else {
                continue;
            };
            self.census.leave(connection.phase);
            hub.counters.outbox_bytes_dropped += self.output.clear(&mut hub.pages, slot) as u64;
            self.wheel.cancel(slot);
            if let Some((address, was_refused)) = self.places.leave(slot) {
                hub.depart(address, was_refused, self);
            }
            self.accepted.fetch_sub(1, Relaxed);
            self.admitted.fetch_sub(usize::from(connection.is_admitted), Relaxed);
        }
    }
}

/// About 0.2 ms of system calls.
const REAPS_PER_TURN: usize = 24;
/// How long a peer may take to answer a close frame.
pub(super) const CLOSE_TIMEOUT_MS: u64 = 3000;
