//! Connections of the echo path: every message comes back, with its opcode, through the codec, the event loop and the outbox
//! that all connections go through. A probe for load balancers, and a face for WebSocket conformance suites.
//!
//! They are no members of the hub: nothing greets them, they subscribe to nothing and hear nothing but themselves. They are
//! not read while output waits for them, so what they can hold is bounded by one message and one read.

use super::Clients;
use crate::config::Limits;
use crate::hub::Hub;
use crate::hub::mail::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::READ_BYTES;
use crate::shard::connection::Phase;
use crate::wire::frame::{self, Message, Opcode};

impl Clients {
    /// The upgrade was for the echo path.
    pub(super) fn open_echo(&mut self, slot: Slot) {
        self.go_on(slot, Phase::Echoing { is_paused: false });
        let deadline = self.no_later_than_age(slot, self.silent_at(slot));
        self.wheel.arm(slot, deadline);
    }

    pub(super) fn echo(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let mut decoder = std::mem::take(&mut self.connections[slot as usize].decoder);
        let mut at = 0;
        let is_paced = self.is_paced();
        loop {
            let next = decoder.next(bytes, &mut at, self.live.limits.message_bytes_max);
            if is_paced
                && let Ok(Some(message)) = &next
                && self.is_too_fast(slot, message, hub)
            {
                return;
            }
            match next {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) => {
                    hub.counters.echo_messages += 1;
                    self.say_frame(slot, Opcode::Text, text.as_bytes(), hub);
                }
                Ok(Some(Message::Binary(payload))) => {
                    hub.counters.echo_messages += 1;
                    self.say_frame(slot, Opcode::Binary, payload, hub);
                }
                Ok(Some(Message::Ping(payload))) => self.say_frame(slot, Opcode::Pong, payload, hub),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close(close))) => return self.answer_close(slot, close.map(|(code, _)| code), hub),
                Err(violation) => return self.fail(slot, violation, hub),
            }
        }
        self.connections[slot as usize].decoder = decoder;
    }

    /// A frame of the connection's own, in this turn.
    pub(super) fn say_frame(&mut self, slot: Slot, opcode: Opcode, payload: &[u8], hub: &mut Hub) {
        self.say(slot, hub, |out| {
            frame::encode_header(out, opcode, payload.len());
            out.extend_from_slice(payload);
        });
    }

    /// What was written for an echo connection is a sign of life: it was not read meanwhile, and its kernel acknowledges.
    pub(super) fn echo_written(&mut self, slot: Slot, taken: usize) {
        let pending = self.pending(slot);
        let connection = &mut self.connections[slot as usize];
        if taken > 0 {
            connection.heard_at = self.now;
        }
        if pending == 0 && connection.phase == (Phase::Echoing { is_paused: true }) {
            connection.phase = Phase::Echoing { is_paused: false };
            self.unread.push_back(slot);
        }
    }

    /// Whether an echo connection must not be read now, which is noted: it is read again once its output is written.
    pub(super) fn echo_pauses(&mut self, slot: Slot) -> bool {
        let pending = self.pending(slot);
        let connection = &mut self.connections[slot as usize];
        if let Phase::Echoing { is_paused } = &mut connection.phase {
            *is_paused = pending > 0;
            return pending > 0;
        }
        false
    }

    /// Nothing has moved either way for too long, or it has and the wheel is to be armed again.
    pub(super) fn echo_expired(&mut self, slot: Slot, until: u32, hub: &mut Hub) {
        let silent_at = self.silent_at(slot);
        if until.wrapping_sub(silent_at) as i32 >= 0 {
            self.close(slot, CloseReason::Silent { timeout_s: self.silence_s(slot) }, hub);
        } else {
            self.wheel.arm(slot, self.no_later_than_age(slot, silent_at));
        }
    }
}

/// Bytes that may wait for a connection. For an echo connection that is at most a message and what came behind it in the
/// same read: it is not read again before those are written. So it never gets here, however small the limit of
/// the others; unless a reload lowers that of messages meanwhile.
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
