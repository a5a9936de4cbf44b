//! Taps: what a shard shows to people who watch it live. For each tap a filter, a sample of what passes it, at most so many
//! sightings a second, and a bounded number that wait; what does not fit is counted, and the count is shown.
//!
//! Nothing is looked at while there is no tap: one branch per request, publish and end of a connection, none per delivery.
//! A tap is told when it asks ([`Taps::more`]), so one that does not read costs what may wait for it and nothing else.

use super::sighting::{Filter, Sight, Sighting};
use crate::api::operation::{KINDS, SHOWN_BYTES_MAX};
use crate::hub::mail::Answer;
use crate::ids::{Asker, ShardId};
use crate::protocol::channel::NAME_BYTES_MAX;
use std::net::SocketAddr;
use std::sync::Arc;

/// The taps of a shard.
#[derive(Default)]
pub struct Taps {
    taps: Vec<Tap>,
    /// Sightings given to taps.
    pub shown: u64,
    /// Those that were one too many.
    pub dropped: u64,
}

struct Tap {
    asker: Asker,
    filter: Arc<Filter>,
    waiting: Vec<Sighting>,
    /// It has asked for more.
    is_asking: bool,
    dropped: u64,
    /// What passed the filter since the last that was taken.
    passed: u32,
    /// The second that `taken` is of, and how many were taken in it.
    second: u32,
    taken: u32,
}

impl Taps {
    /// Whether anybody watches.
    pub fn is_open(&self) -> bool {
        !self.taps.is_empty()
    }

    /// How many do.
    pub fn count(&self) -> usize {
        self.taps.len()
    }

    /// Somebody begins to watch, and has asked for the first sightings by that.
    pub fn open(&mut self, asker: Asker, filter: Arc<Filter>) {
        self.taps.push(Tap {
            asker,
            passed: filter.sample - 1,
            filter,
            waiting: Vec::new(),
            is_asking: true,
            dropped: 0,
            second: 0,
            taken: 0,
        });
    }

    /// A tap has room for more.
    pub fn more(&mut self, asker: Asker) {
        self.taps.iter_mut().filter(|tap| tap.asker == asker).for_each(|tap| tap.is_asking = true);
    }

    /// A tap is gone.
    pub fn close(&mut self, asker: Asker) {
        self.taps.retain(|tap| tap.asker != asker);
        if self.taps.is_empty() {
            self.taps = Vec::new();
        }
    }

    /// Something was seen: of this kind, of this channel, by this client's doing. It is put into words for those who take it.
    pub fn see(
        &mut self,
        kind: &'static str,
        channel: Option<&str>,
        address: Option<SocketAddr>,
        (at_us, now): (u64, u32),
        sight: impl Fn(&Filter) -> Sight,
    ) {
        let Some(kind) = KINDS.iter().position(|name| *name == kind) else { return };
        for tap in &mut self.taps {
            if !tap.filter.passes(kind, channel, address) || !tap.samples() {
                continue;
            }
            if tap.has_room(now) {
                self.shown += 1;
                tap.waiting.push(Sighting { at_us, sight: sight(&tap.filter) });
            } else {
                self.dropped += 1;
                tap.dropped += 1;
            }
        }
    }

    /// What is to be shown to whom now. `time_ms`: that of `at_us`.
    pub fn answers(&mut self, shard: ShardId, at_us: u64, time_ms: impl FnOnce() -> u64) -> Vec<(Asker, Answer)> {
        let is_due = |tap: &&mut Tap| tap.is_asking && (!tap.waiting.is_empty() || tap.dropped > 0);
        let mut due = self.taps.iter_mut().filter(is_due).peekable();
        if due.peek().is_none() {
            return Vec::new();
        }
        let time_ms = time_ms();
        due.map(|tap| {
            tap.is_asking = false;
            let (sightings, dropped) = (std::mem::take(&mut tap.waiting), std::mem::take(&mut tap.dropped));
            (tap.asker, Answer::Seen { shard, at_us, time_ms, sightings, dropped })
        })
        .collect()
    }
}

impl Tap {
    /// Whether it is the one in so many.
    fn samples(&mut self) -> bool {
        self.passed += 1;
        let is_taken = self.passed >= self.filter.sample;
        if is_taken {
            self.passed = 0;
        }
        is_taken
    }

    /// Whether one more may be taken.
    fn has_room(&mut self, now: u32) -> bool {
        let second = now / TICKS_PER_SECOND;
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
        self.taken += 1;
        self.taken <= self.filter.rate && self.waiting.len() < WAITING_MAX
    }
}

/// Taps of a server.
pub const TAPS_MAX: usize = 16;
/// Sightings of a shard that may wait for a tap.
const WAITING_MAX: usize = 2048;
/// Heap bytes of them: the name of a channel, that of an event, and data at most.
pub const WAITING_BYTES_MAX: usize =
    WAITING_MAX * (2 * size_of::<Sighting>() + NAME_BYTES_MAX + 2 * SHOWN_BYTES_MAX as usize);
const TICKS_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::operation::RATE_MAX;

    fn filter() -> Filter {
        Filter { kinds: 0x7f, channel: None, network: None, sample: 1, rate: 1000, data_bytes: 0 }
    }

    fn asker() -> Asker {
        Asker { shard: 0, session: 0, generation: 0, request: 0 }
    }

    fn see(taps: &mut Taps, now: u32) {
        taps.see("refuse", None, None, (0, now), |_| Sight::Refuse { address: None, why: "why" });
    }

    /// Sightings and drops of the only answer.
    fn told(taps: &mut Taps) -> Option<(usize, u64)> {
        match taps.answers(0, 0, || 0).pop() {
            Some((_, Answer::Seen { sightings, dropped, .. })) => Some((sightings.len(), dropped)),
            _ => None,
        }
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut taps = Taps::default();
        taps.open(asker(), Arc::new(Filter { rate: 3, ..filter() }));
        (0..5).for_each(|_| see(&mut taps, 9));
        assert_eq!((told(&mut taps), told(&mut taps)), (Some((3, 2)), None));
        (0..2).for_each(|_| see(&mut taps, 10));
        assert_eq!(told(&mut taps), None, "it has not asked");
        taps.more(asker());
        assert_eq!(told(&mut taps), Some((2, 0)), "another second");
        assert_eq!((taps.shown, taps.dropped), (5, 2));
        taps.close(asker());
        assert!(!taps.is_open());
    }

    #[test]
    fn one_that_does_not_ask_holds_a_bounded_number() {
        let mut taps = Taps::default();
        taps.open(asker(), Arc::new(Filter { rate: RATE_MAX, sample: 2, ..filter() }));
        (0..20_000).for_each(|_| see(&mut taps, 0));
        assert_eq!(told(&mut taps), Some((WAITING_MAX, 10_000 - WAITING_MAX as u64)));
    }
}
