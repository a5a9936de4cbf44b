//! From frames to requests.

use super::Clients;
use crate::hub::{Handled, Hub};
use crate::ids::Slot;
use crate::protocol::close::{CloseReason, Pace};
use crate::protocol::dialect::Dialect;
use crate::protocol::native::heartbeat::Heartbeat;
use crate::shard::connection::state::Phase;
use crate::shard::rate_limits::{Judgement, RateLimits};
use crate::wire::decoder::{Decoder, Message, Violation};
use crate::wire::frame::{self, Opcode};

/// What the decoder returns.
pub(super) type Decoded<'a> = Result<Option<Message<'a>>, Violation>;

impl Clients {
    /// Frames of a connection that is open, or that is closing and may still send its close frame.
    pub(super) fn frames(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let mut decoder = std::mem::take(&mut self.connections[slot].decoder);
        let mut at = 0;
        let mut later = None;
        let is_limited = RateLimits::are_on(&self.live.limits);
        let is_native = self.connections[slot].state.dialect == Dialect::Native;
        loop {
            let is_open = self.connections[slot].state.phase == Phase::Open;
            if is_open && at < bytes.len() && self.output.holds_requests(slot) {
                break;
            }
            if is_open
                && is_native
                && decoder.is_between_messages()
                && let Some(frame_len) = self.heartbeat(slot, &mut bytes[at..], is_limited, hub)
            {
                at += frame_len;
                continue;
            }
            let mut frames = 0;
            let next = decoder.next(bytes, &mut at, self.live.limits.message_bytes_max, &mut frames);
            if is_limited && is_open && self.is_too_fast(slot, frames, &next, hub) {
                continue;
            }
            match next {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) if is_open => {
                    hub.counters.count_message(is_native);
                    match hub.handle(slot, text, self) {
                        Handled::Other => {}
                        Handled::Pong => self.pong(slot),
                        Handled::Later => break later = Some(text.to_owned()),
                    }
                }
                Ok(Some(Message::Binary(_))) if is_open => self.close(slot, CloseReason::BinaryMessage, hub),
                Ok(Some(Message::Ping(payload))) if is_open => self.send_frame(slot, Opcode::Pong, payload, hub),
                Ok(Some(Message::Close(close))) => return self.answer_close(slot, close.map(|(code, _)| code), hub),
                Ok(Some(_)) => {}
                Err(violation) => return self.fail(slot, violation, hub),
            }
        }
        self.keep_rest(slot, decoder, &bytes[at..], later, hub);
    }

    /// Handles a heartbeat of the native dialect at the start of `bytes`. Returns the length of its frame; `None`: there is none.
    #[inline]
    fn heartbeat(&mut self, slot: Slot, bytes: &mut [u8], is_limited: bool, hub: &mut Hub) -> Option<usize> {
        let (heartbeat, frame_len) = Heartbeat::read(bytes)?;
        if !is_limited || !self.is_too_fast(slot, 1, &Ok(Some(Message::Text(heartbeat.text()))), hub) {
            hub.counters.messages_in += 1;
            match heartbeat.ping_id() {
                Some(id) => hub.answer_ping(slot, id, self),
                None => self.pong(slot),
            }
        }
        Some(frame_len)
    }

    /// Keeps what was not decoded: a part of a message, the frames of `rest`, and the request that the hub handles `later`.
    #[inline]
    fn keep_rest(&mut self, slot: Slot, decoder: Decoder, rest: &[u8], later: Option<String>, hub: &mut Hub) {
        let connection = &mut self.connections[slot];
        if matches!(connection.state.phase, Phase::Open | Phase::Closing { reads: true, .. }) {
            connection.decoder = decoder;
        }
        if !rest.is_empty() && connection.state.phase == Phase::Open {
            connection.aside.get_or_insert_default().frames = rest.to_vec();
            if later.is_none() {
                self.hold(slot);
            }
        }
        if let Some(text) = later {
            self.handle_later(slot, text, hub);
        }
    }

    /// Sends a frame.
    pub(super) fn send_frame(&mut self, slot: Slot, opcode: Opcode, payload: &[u8], hub: &mut Hub) {
        self.send(slot, hub, |out| {
            frame::encode_header(out, opcode, payload.len());
            out.extend_from_slice(payload);
        });
    }

    // ---- rate limits

    /// Counts the data frames of a connection that is open or echoing, and judges the message or control frame that they came
    /// with. Returns whether it is over a limit, and handled.
    pub(super) fn is_too_fast(&mut self, slot: Slot, frames: u32, next: &Decoded<'_>, hub: &mut Hub) -> bool {
        let message = match next {
            Ok(Some(Message::Close(_))) | Err(_) => return false,
            Ok(message) => message,
        };
        match self.rate_limits.count_frames(slot, frames, &self.live.limits, self.now) {
            Judgement::Within => return false,
            Judgement::Over => {}
            Judgement::Exhausted(pace) => {
                self.stop(slot, pace, hub);
                return true;
            }
        }
        // A message is refused at its last frame. The echo path has no such reply, and a binary message ends the connection in
        // any case.
        let can_be_told = self.connections[slot].state.phase == Phase::Open
            && matches!(message, Some(Message::Text(_) | Message::Ping(_) | Message::Pong(_)));
        if !can_be_told {
            return false;
        }
        hub.counters.messages_rate_limited += 1;
        if let Some(Message::Text(text)) = message
            && hub.refuse(slot, text, self) == Handled::Pong
        {
            self.pong(slot);
        }
        true
    }

    /// Counts handled bytes of a connection's frames against its rate limit.
    pub(super) fn count_bytes(&mut self, slot: Slot, bytes: usize, hub: &mut Hub) {
        let phase = self.connections.phase(slot);
        if matches!(phase, Some(Phase::Open | Phase::Echoing { .. }))
            && let Judgement::Exhausted(pace) = self.rate_limits.count_bytes(slot, bytes, &self.live.limits, self.now)
        {
            self.stop(slot, pace, hub);
        }
    }

    fn stop(&mut self, slot: Slot, pace: Pace, hub: &mut Hub) {
        self.close(slot, CloseReason::RateLimited(pace), hub);
        self.stop_reading(slot);
    }
}
