//! Connections of the echo path: every message is echoed with its opcode. It passes through the codec, the event loop and the
//! outbox that all connections use. A probe for load balancers, and an endpoint for WebSocket conformance suites.
//!
//! They are not members of the hub: they get no `socket:connected`, cannot subscribe, and receive only their own messages. They
//! are not read while output waits for them, so what they can hold is bounded by one message and one read.

use super::Clients;
use crate::config::Limits;
use crate::hub::Hub;
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::READ_BYTES;
use crate::shard::connection::state::Phase;
use crate::shard::rate_limits::RateLimits;
use crate::wire::decoder::Message;
use crate::wire::frame::Opcode;

impl Clients {
    /// The upgrade was for the echo path.
    pub(super) fn open_echo(&mut self, slot: Slot, hub: &mut Hub) {
        if !self.admit(slot, hub) {
            return;
        }
        self.connections.enter_phase(slot, Phase::Echoing { is_paused: false });
        let silent_at = self.silent_at(slot);
        self.look_at(slot, silent_at);
    }

    pub(super) fn echo(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let mut decoder = std::mem::take(&mut self.connections[slot].decoder);
        let mut at = 0;
        let is_limited = RateLimits::are_on(&self.live.limits);
        loop {
            let mut frames = 0;
            let next = decoder.next(bytes, &mut at, self.live.limits.message_bytes_max, &mut frames);
            if is_limited && self.is_too_fast(slot, frames, &next, hub) {
                return;
            }
            match next {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) => {
                    hub.counters.echo_messages += 1;
                    self.send_frame(slot, Opcode::Text, text.as_bytes(), hub);
                }
                Ok(Some(Message::Binary(payload))) => {
                    hub.counters.echo_messages += 1;
                    self.send_frame(slot, Opcode::Binary, payload, hub);
                }
                Ok(Some(Message::Ping(payload))) => self.send_frame(slot, Opcode::Pong, payload, hub),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close(close))) => return self.answer_close(slot, close.map(|(code, _)| code), hub),
                Err(violation) => return self.fail(slot, violation, hub),
            }
        }
        self.connections[slot].decoder = decoder;
    }

    /// A write to an echo connection counts as activity: the connection was not read meanwhile, and its kernel acknowledges
    /// bytes.
    pub(super) fn echo_written(&mut self, slot: Slot, taken: usize) {
        let pending = self.pending(slot);
        if taken > 0 {
            self.connections[slot].state.received_at = self.now;
        }
        if pending == 0 && self.connections.phase(slot) == Some(Phase::Echoing { is_paused: true }) {
            self.connections.enter_phase(slot, Phase::Echoing { is_paused: false });
            self.read_queue.push(slot);
        }
    }

    /// Whether an echo connection must not be read now. If so, it is paused, and read again once its output is written.
    pub(super) fn echo_pauses(&mut self, slot: Slot) -> bool {
        let Some(Phase::Echoing { .. }) = self.connections.phase(slot) else { return false };
        let is_paused = self.pending(slot) > 0;
        self.connections.enter_phase(slot, Phase::Echoing { is_paused });
        is_paused
    }

    /// Handles a due entry of the wheel: closes the connection if nothing was read or written for too long, or arms the entry
    /// again.
    pub(super) fn echo_expired(&mut self, slot: Slot, until: u32, hub: &mut Hub) {
        let silent_at = self.silent_at(slot);
        if until.wrapping_sub(silent_at) as i32 >= 0 {
            let timeout_s = self.heartbeats.silence_s(&self.connections[slot].state, &self.live.limits);
            self.close(slot, CloseReason::Silent { timeout_s, is_reading: true }, hub);
        } else {
            self.look_at(slot, silent_at);
        }
    }

    fn silent_at(&self, slot: Slot) -> u32 {
        self.heartbeats.silent_at(&self.connections[slot].state, &self.live.limits)
    }
}

/// Bytes that may wait for a connection. For an echo connection that is at most a message and what came behind it in the same
/// read: it is not read again before those are written. So it never reaches its limit, however small the outbox limit is,
/// unless a reload lowers the message limit meanwhile.
pub(super) fn outbox_limit(phase: Phase, limits: &Limits) -> usize {
    match phase {
        Phase::Echoing { .. } => waiting_bytes_max(limits),
        _ => limits.outbox_bytes_max,
    }
}

/// The limit of an echo connection.
pub fn waiting_bytes_max(limits: &Limits) -> usize {
    limits.outbox_bytes_max.max(2 * (limits.message_bytes_max + READ_BYTES))
}
