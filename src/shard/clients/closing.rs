//! How connections end: the close handshake, shutdown, and the return of the slot.

use super::{Clients, ticks};
use crate::hub::Hub;
use crate::hub::admission::arrivals::Stage;
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::protocol::pusher;
use crate::shard::connection::Connection;
use crate::shard::connection::state::Phase;
use crate::wire::decoder::Violation;
use crate::wire::frame::{self, Opcode};

impl Clients {
    /// Begins the close handshake. Output that already waits, and replies to earlier requests, go out before the close frame.
    pub fn close(&mut self, slot: Slot, reason: CloseReason, hub: &mut Hub) {
        let Some(phase) = self.connections.phase(slot) else {
            return;
        };
        match phase {
            Phase::Answering { .. } | Phase::Closing { .. } | Phase::Ended => return,
            // The peer's close frame may follow bytes that are not read yet.
            Phase::Echoing { is_paused: true } => self.read_queue.push(slot),
            _ => {}
        }
        self.begin_end(slot, &reason, hub);
        if std::mem::take(&mut self.connections[slot].state.is_held) {
            // Here too, the close frame may follow unread bytes.
            self.read_queue.push(slot);
        }
        self.drop_at(slot, self.now.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
        if phase == Phase::Open {
            tracing::debug!(shard = self.me, slot, socket_id = %hub.socket_id(slot), ?reason, "closing");
            if awaits_replies(slot, &reason, hub) {
                hub.mute(slot, &reason, self);
                self.connections.enter_phase(slot, Phase::Answering { is_answered: false });
                return self.departures.push_answering(slot, reason);
            }
            hub.disconnect(slot, &reason, self);
        }
        self.connections.enter_phase(slot, Phase::Closing { reads: true, is_answered: false });
        self.send_reason(slot, &reason, phase == Phase::Open, hub);
    }

    /// Sends the close frame. `was_open`: whether the connection was sent its first message.
    fn send_reason(&mut self, slot: Slot, reason: &CloseReason, was_open: bool, hub: &mut Hub) {
        if reason.is_slow() {
            let (dropped, can_follow) = self.output.cut_to_frame(hub.pages_mut(), slot);
            hub.counters.outbox_bytes_dropped += dropped as u64;
            if !can_follow {
                return self.finish(slot, hub);
            }
        }
        if let CloseReason::ClientClosed { code: None } = reason {
            self.send(slot, hub, |out| frame::encode_header(out, Opcode::Close, 0));
        } else if let dialect = self.connections[slot].state.dialect
            && let Some((code, text)) = reason.frame(dialect)
        {
            let is_echo = matches!(reason, CloseReason::ClientClosed { .. });
            if !is_echo && dialect.announces_close(code, was_open) {
                self.send(slot, hub, |out| pusher::event::error(out, Some(code), None, &text));
            }
            self.send(slot, hub, |out| frame::encode_close(out, code, &text));
        }
        self.mark(slot);
    }

    /// Sends the close frames of connections whose last replies have come.
    pub fn close_answered(&mut self, hub: &mut Hub) {
        while let Some((slot, reason)) = self.departures.pop_answered(|slot| hub.waiting_replies(slot) == 0) {
            let Some(Phase::Answering { is_answered }) = self.connections.phase(slot) else { continue };
            hub.disconnect(slot, &reason, self);
            self.connections.enter_phase(slot, Phase::Closing { reads: false, is_answered });
            self.send_reason(slot, &reason, true, hub);
        }
    }

    /// The peer's close frame has come. Pending output is sent, then the reply, then the end of the stream.
    pub(super) fn answer_close(&mut self, slot: Slot, code: Option<u16>, hub: &mut Hub) {
        self.close(slot, CloseReason::ClientClosed { code }, hub);
        self.peer_has_ended(slot);
    }

    /// Nothing more will come from the peer: the socket is shut once all is written.
    fn peer_has_ended(&mut self, slot: Slot) {
        let phase = match self.connections.phase(slot) {
            None | Some(Phase::Ended) => return,
            Some(Phase::Answering { .. }) => Phase::Answering { is_answered: true },
            _ => Phase::Closing { reads: false, is_answered: true },
        };
        self.connections.enter_phase(slot, phase);
        self.mark(slot);
    }

    /// The peer broke the protocol: its further bytes cannot be parsed.
    pub(super) fn fail(&mut self, slot: Slot, violation: Violation, hub: &mut Hub) {
        let reason = match violation {
            Violation::Protocol(what) => CloseReason::ProtocolError(what),
            Violation::InvalidUtf8 => CloseReason::InvalidUtf8,
            Violation::TooBig => CloseReason::MessageTooBig { limit: self.live.limits.message_bytes_max },
        };
        self.close(slot, reason, hub);
        self.stop_reading(slot);
    }

    /// Discards what arrives from now on at a connection that is closing.
    pub(super) fn stop_reading(&mut self, slot: Slot) {
        if let Some(Phase::Closing { is_answered, .. }) = self.connections.phase(slot) {
            self.connections.enter_phase(slot, Phase::Closing { reads: false, is_answered });
        }
    }

    /// The peer sends no more, or is treated as if it did not. Pending output of an upgraded connection, and replies that have
    /// yet to come, are still offered to the socket.
    pub(super) fn end(&mut self, slot: Slot, reason: &CloseReason, hub: &mut Hub) {
        match self.connections.phase(slot) {
            None => return,
            Some(Phase::Upgrading | Phase::Ended) => {
                self.begin_end(slot, reason, hub);
                return self.finish(slot, hub);
            }
            // No frame is sent for this reason.
            Some(Phase::Open | Phase::Echoing { .. }) => self.close(slot, reason.clone(), hub),
            Some(Phase::Answering { .. } | Phase::Closing { .. }) => {}
        }
        self.peer_has_ended(slot);
    }

    /// The socket is broken: nothing can be sent any more.
    pub(super) fn reset(&mut self, slot: Slot, hub: &mut Hub) {
        self.begin_end(slot, &CloseReason::ClientGone, hub);
        self.finish(slot, hub);
    }

    /// Counts the reason for which a connection ends, once: open connections and closes add up to the accepts. Gives back its
    /// place and its address's place before the client sees the end, because it may reconnect at once.
    pub(super) fn begin_end(&mut self, slot: Slot, reason: &CloseReason, hub: &mut Hub) {
        if self.connections[slot].state.is_ending() {
            return;
        }
        self.departures.count(reason);
        if hub.is_watched() {
            let dialect = self.connections[slot].state.dialect;
            hub.see_close(slot, dialect, self.address(slot), reason);
        }
        if std::mem::take(&mut self.connections[slot].state.is_admitted) {
            self.admission.give_back();
        }
        // A refused connection counts until it is gone, because refused connections of an address are limited too.
        if !matches!(self.admission.arrivals.of(slot), Stage::Refused(_)) {
            self.leave_address(slot, hub);
        }
    }

    fn leave_address(&mut self, slot: Slot, hub: &mut Hub) {
        if let Some((address, was_refused)) = self.admission.arrivals.leave(slot) {
            hub.depart(address, was_refused, self);
        }
    }

    /// Sets the tick at which a closing connection is dropped, even if output still waits for it.
    pub(super) fn drop_at(&mut self, slot: Slot, at: u32) {
        self.connections[slot].state.ping_at = at;
        self.heartbeats.look_at(slot, at);
    }

    /// Ends a connection. Its slot is freed later.
    pub(super) fn finish(&mut self, slot: Slot, hub: &mut Hub) {
        match self.connections.phase(slot) {
            None | Some(Phase::Ended) => return,
            Some(Phase::Open) => hub.disconnect(slot, &CloseReason::ClientGone, self),
            Some(Phase::Answering { .. }) => {
                if let Some(reason) = self.departures.remove_answering(slot) {
                    hub.disconnect(slot, &reason, self);
                }
            }
            Some(_) => {}
        }
        self.connections.enter_phase(slot, Phase::Ended);
        self.output.shut(slot);
        self.departures.push_ended(slot);
    }

    /// Closes the connections that the hub wants closed.
    pub fn close_broken(&mut self, hub: &mut Hub) {
        while let Some((slot, reason)) = self.departures.pop_asked() {
            self.close(slot, reason, hub);
        }
    }

    /// Ends all connections at once. Returns how many had pending output, or had not been sent a close frame.
    pub fn cut_off(&mut self, hub: &mut Hub) -> usize {
        let is_late = |(slot, connection): &(Slot, &Connection)| {
            let is_told =
                !matches!(connection.state.phase, Phase::Open | Phase::Echoing { .. } | Phase::Answering { .. });
            self.output.waiting(*slot) > 0 || !is_told
        };
        let late = self.connections.iter().filter(is_late).count();
        let slots: Vec<Slot> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.begin_end(slot, &CloseReason::ServerRestarting, hub);
            self.finish(slot, hub);
        }
        while let Some(slot) = self.departures.pop_ended(|_| true) {
            self.free(slot, hub);
        }
        late
    }

    /// Frees the slots of connections that ended and whose subscriptions are removed, up to the turn's budget. Closing a socket
    /// is the most expensive part of an end, and thousands can come at once.
    pub fn reap(&mut self, hub: &mut Hub) {
        for _ in 0..REAPS_PER_TURN {
            let Some(slot) = self.departures.pop_ended(|slot| hub.has_departed(slot)) else { return };
            self.free(slot, hub);
        }
    }

    fn free(&mut self, slot: Slot, hub: &mut Hub) {
        if self.connections.remove(slot).is_none() {
            return;
        }
        hub.counters.outbox_bytes_dropped += self.output.clear(hub.pages_mut(), slot) as u64;
        self.heartbeats.forget(slot);
        self.authorization.forget(slot);
        self.leave_address(slot, hub);
        self.admission.release();
    }
}

/// Whether a connection that ends for this reason must get replies that have yet to come from other shards. A slow consumer gets
/// none.
fn awaits_replies(slot: Slot, reason: &CloseReason, hub: &Hub) -> bool {
    !reason.is_slow() && *reason != CloseReason::TlsFailed && hub.waiting_replies(slot) > 0
}

/// About 0.2 ms of system calls.
const REAPS_PER_TURN: usize = 24;
/// How long a peer may take to answer a close frame. Longer than Chrome waits for the end of the handshake (2 s).
pub(super) const CLOSE_TIMEOUT_MS: u64 = 3000;
