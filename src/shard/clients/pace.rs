//! How fast a connection may send: so many messages and bytes a second, and what becomes of those that send more.
//!
//! Who sends a little too much is told so, message by message; who goes on, until as much again is overdrawn as may come at
//! once, is closed. Where no limit is set nothing is counted and nothing is kept.

use super::Clients;
use crate::config::Limits;
use crate::hub::Hub;
use crate::hub::bucket::{Bucket, Left, Rate};
use crate::hub::mail::Slot;
use crate::protocol::close::{CloseReason, Pace};
use crate::shard::connection::Phase;
use crate::wire::frame::Message;

/// What each connection may still send, by slot; as long as the highest slot that was limited.
#[derive(Default)]
pub(super) struct Allowances(Vec<Allowance>);

#[derive(Clone, Copy)]
struct Allowance {
    messages: Bucket,
    bytes: Bucket,
}

impl Allowance {
    fn whole(limits: &Limits, now: u32) -> Allowance {
        Allowance { messages: Bucket::full(message_rate(limits), now), bytes: Bucket::full(byte_rate(limits), now) }
    }
}

impl Clients {
    /// Whether anything is limited here.
    pub(super) fn is_paced(&self) -> bool {
        self.live.limits.messages_per_second_max | self.live.limits.bytes_per_second_max > 0
    }

    /// A connection opens: it may send all that may come at once.
    pub(super) fn pace_anew(&mut self, slot: Slot) {
        if self.is_paced() {
            *self.allowance(slot) = Allowance::whole(&self.live.limits, self.now);
        }
    }

    /// A message or a control frame of a connection that is open or echoing: whether it was one too many, and is dealt with.
    pub(super) fn is_too_fast(&mut self, slot: Slot, message: &Message<'_>, hub: &mut Hub) -> bool {
        if matches!(message, Message::Close(_)) {
            return false;
        }
        let now = self.now;
        let (messages, bytes) = (message_rate(&self.live.limits), byte_rate(&self.live.limits));
        let has_message_rate = self.live.limits.messages_per_second_max > 0;
        let has_byte_rate = self.live.limits.bytes_per_second_max > 0;
        let allowance = self.allowance(slot);
        let left = if has_message_rate { allowance.messages.take(1, messages, now) } else { Left::Enough };
        if left == Left::Exhausted {
            let per_second = self.live.limits.messages_per_second_max;
            self.stop(slot, Pace::Messages { per_second }, hub);
            return true;
        }
        if self.connections[slot as usize].phase != Phase::Open {
            // Whoever echoes has no words to say it with.
            return false;
        }
        let allowance = self.allowance(slot);
        // What came with this read is counted once it is heard.
        let is_heavy = has_byte_rate && allowance.bytes.take(0, bytes, now) != Left::Enough;
        if left == Left::Enough && !is_heavy {
            return false;
        }
        hub.counters.messages_rate_limited += 1;
        if let Message::Text(text) = message
            && hub.refuse(slot, text, self) == crate::hub::Heard::Pong
        {
            self.pong(slot);
        }
        true
    }

    /// So many bytes of a connection's frames were heard.
    pub(super) fn weigh(&mut self, slot: Slot, bytes: usize, hub: &mut Hub) {
        let per_second = self.live.limits.bytes_per_second_max;
        let phase = self.connections.get(slot as usize).map(|connection| connection.phase);
        if per_second == 0 || !matches!(phase, Some(Phase::Open | Phase::Echoing { .. })) {
            return;
        }
        let (rate, now) = (byte_rate(&self.live.limits), self.now);
        if self.allowance(slot).bytes.take(bytes as u32, rate, now) == Left::Exhausted {
            self.stop(slot, Pace::Bytes { per_second }, hub);
        }
    }

    fn stop(&mut self, slot: Slot, pace: Pace, hub: &mut Hub) {
        self.close(slot, CloseReason::RateLimited(pace), hub);
        self.connections[slot as usize].phase = Phase::Closing { reads: false, is_answered: false };
    }

    fn allowance(&mut self, slot: Slot) -> &mut Allowance {
        let Allowances(allowances) = &mut self.allowances;
        let at = slot as usize;
        if at >= allowances.len() {
            allowances.resize(at + 1, Allowance::whole(&self.live.limits, self.now));
        }
        &mut allowances[at]
    }
}

fn message_rate(limits: &Limits) -> Rate {
    Rate::new(limits.messages_per_second_max, 0)
}

/// At once at least a message as long as any may be.
fn byte_rate(limits: &Limits) -> Rate {
    Rate::new(limits.bytes_per_second_max, limits.message_bytes_max)
}
