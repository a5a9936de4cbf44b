//! How fast a connection may send: so many messages and bytes a second, and what becomes of those that send more.
//!
//! Who sends a little too much is told so, message by message; who goes on, until as much again is overdrawn as may come at
//! once, is closed. Where no limit is set nothing is counted and nothing is kept.

use super::Clients;
use crate::config::Limits;
use crate::hub::bucket::{Bucket, Left, Rate};
use crate::hub::mail::Slot;
use crate::hub::{Heard, Hub};
use crate::protocol::close::{CloseReason, Pace};
use crate::shard::connection::Phase;
use crate::wire::frame::Message;

/// What each connection may still send, by slot; as long as the highest slot that was limited.
#[derive(Default)]
pub(super) struct Allowances(Vec<Allowance>);

/// Heap bytes for a connection, where anything is limited.
pub const ALLOWANCE_BYTES: usize = size_of::<Allowance>();

#[derive(Clone, Copy)]
struct Allowance {
    messages: Bucket,
    bytes: Bucket,
}

impl Allowance {
    fn whole(limits: &Limits, now: u32) -> Allowance {
        let full = |rate: Option<Rate>| Bucket::full(rate.unwrap_or_default(), now);
        Allowance { messages: full(message_rate(limits)), bytes: full(byte_rate(limits)) }
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
        let (now, limits) = (self.now, &self.live.limits);
        let (message_rate, byte_rate, per_second) =
            (message_rate(limits), byte_rate(limits), limits.messages_per_second_max);
        let allowance = self.allowance(slot);
        let left = message_rate.map_or(Left::Enough, |rate| allowance.messages.take(1, rate, now));
        // What came with this read is counted once it is heard.
        let is_heavy = byte_rate.is_some_and(|rate| allowance.bytes.take(0, rate, now) != Left::Enough);
        if left == Left::Exhausted {
            self.stop(slot, Pace::Messages { per_second }, hub);
            return true;
        }
        // Who echoes has no words for it, and a binary message ends the connection anyway.
        let can_be_told =
            self.connections[slot as usize].phase == Phase::Open && !matches!(message, Message::Binary(_));
        if !can_be_told || left == Left::Enough && !is_heavy {
            return false;
        }
        hub.counters.messages_rate_limited += 1;
        if let Message::Text(text) = message
            && hub.refuse(slot, text, self) == Heard::Pong
        {
            self.pong(slot);
        }
        true
    }

    /// So many bytes of a connection's frames were heard.
    pub(super) fn weigh(&mut self, slot: Slot, bytes: usize, hub: &mut Hub) {
        let Some(rate) = byte_rate(&self.live.limits) else { return };
        let phase = self.connections.get(slot as usize).map(|connection| connection.phase);
        if !matches!(phase, Some(Phase::Open | Phase::Echoing { .. })) {
            return;
        }
        let (now, per_second) = (self.now, self.live.limits.bytes_per_second_max);
        if self.allowance(slot).bytes.take(bytes as u32, rate, now) == Left::Exhausted {
            self.stop(slot, Pace::Bytes { per_second }, hub);
        }
    }

    fn stop(&mut self, slot: Slot, pace: Pace, hub: &mut Hub) {
        self.close(slot, CloseReason::RateLimited(pace), hub);
        self.go_on(slot, Phase::Closing { reads: false, is_answered: false });
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

fn message_rate(limits: &Limits) -> Option<Rate> {
    (limits.messages_per_second_max > 0).then(|| Rate::new(limits.messages_per_second_max, 0))
}

/// At once at least a message as long as any may be.
fn byte_rate(limits: &Limits) -> Option<Rate> {
    (limits.bytes_per_second_max > 0).then(|| Rate::new(limits.bytes_per_second_max, limits.message_bytes_max))
}
