//! Limits of the messages and bytes that a connection may send in a second. Messages are counted as data frames, so that
//! fragments are not free.
//!
//! Messages over a limit are refused one by one. A connection that goes on is closed once it has exceeded the burst by another
//! burst. Without a limit nothing is counted and nothing is kept.

use crate::config::Limits;
use crate::hub::admission::bucket::{Bucket, Left, Rate};
use crate::ids::Slot;
use crate::protocol::close::Pace;

/// What each connection may still send, by slot; as long as the highest slot that was limited.
#[derive(Default)]
pub struct RateLimits(Vec<Allowance>);

/// Heap bytes for a connection, if anything is limited.
pub const ALLOWANCE_BYTES: usize = size_of::<Allowance>();

/// The result of counting against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is within the limits.
    Within,
    /// It is over a limit: the message is refused.
    Over,
    /// It has exceeded the burst by another burst: the connection is closed.
    Exhausted(Pace),
}

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

impl RateLimits {
    /// Whether anything is limited.
    pub fn are_on(limits: &Limits) -> bool {
        limits.messages_per_second_max | limits.bytes_per_second_max > 0
    }

    /// The limits have changed: every connection may send a full burst again.
    pub fn reset(&mut self) {
        self.0 = Vec::new();
    }

    /// A connection opens: it may send a full burst.
    pub fn renew(&mut self, slot: Slot, limits: &Limits, now: u32) {
        if RateLimits::are_on(limits) {
            *self.allowance(slot, limits, now) = Allowance::whole(limits, now);
        }
    }

    /// Counts data frames: those of one message, or of a part of it. Judges the message that they complete.
    pub fn count_frames(&mut self, slot: Slot, frames: u32, limits: &Limits, now: u32) -> Judgement {
        let allowance = self.allowance(slot, limits, now);
        // Without a data frame it is a control frame, which counts in bytes only.
        let rate = message_rate(limits).filter(|_| frames > 0);
        let left = rate.map_or(Left::Enough, |rate| allowance.messages.take(frames, rate, now));
        // The bytes of a read are counted once its messages are handled.
        let is_heavy = byte_rate(limits).is_some_and(|rate| allowance.bytes.take(0, rate, now) != Left::Enough);
        match left {
            Left::Exhausted => Judgement::Exhausted(Pace::Messages { per_second: limits.messages_per_second_max }),
            Left::Enough if !is_heavy => Judgement::Within,
            _ => Judgement::Over,
        }
    }

    /// Counts the bytes of a read.
    pub fn count_bytes(&mut self, slot: Slot, bytes: usize, limits: &Limits, now: u32) -> Judgement {
        let Some(rate) = byte_rate(limits) else { return Judgement::Within };
        match self.allowance(slot, limits, now).bytes.take(bytes as u32, rate, now) {
            Left::Enough => Judgement::Within,
            Left::Overdrawn => Judgement::Over,
            Left::Exhausted => Judgement::Exhausted(Pace::Bytes { per_second: limits.bytes_per_second_max }),
        }
    }

    fn allowance(&mut self, slot: Slot, limits: &Limits, now: u32) -> &mut Allowance {
        let at = slot as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, Allowance::whole(limits, now));
        }
        &mut self.0[at]
    }
}

fn message_rate(limits: &Limits) -> Option<Rate> {
    (limits.messages_per_second_max > 0).then(|| Rate::new(limits.messages_per_second_max, 0))
}

/// The burst always has room for a message of the maximum length.
fn byte_rate(limits: &Limits) -> Option<Rate> {
    (limits.bytes_per_second_max > 0).then(|| Rate::new(limits.bytes_per_second_max, limits.message_bytes_max))
}
