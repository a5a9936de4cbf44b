//! Taps: the live view of what a shard does. Each tap has a filter, a sampling ratio, a limit of sightings per second, and
//! a limit of sightings that wait. Sightings beyond a limit are dropped and counted, and the tap is sent the count.
//!
//! Without taps the cost is one branch per request, per publish and per end of a connection, and none per delivery. A tap
//! is sent sightings when it asks for them ([`Taps::more`]), so a tap that does not read costs only its waiting sightings.

use super::sighting::{Filter, Sight, Sighting};
use crate::api::operation::{KINDS, SHOWN_BYTES_MAX};
use crate::hub::admission::bucket::TICKS_PER_S;
use crate::hub::mail::Answer;
use crate::ids::{Asker, ShardId};
use crate::protocol::channel::NAME_BYTES_MAX;
use std::net::SocketAddr;
use std::sync::Arc;

/// The taps of a shard.
#[derive(Default)]
pub struct Taps {
    taps: Vec<Tap>,
    /// Sightings queued for taps.
    pub shown: u64,
    /// Sightings dropped at a limit.
    pub dropped: u64,
}

struct Tap {
    asker: Asker,
    filter: Arc<Filter>,
    waiting: Vec<Sighting>,
    /// Whether it has asked for more.
    is_asking: bool,
    /// Sightings dropped since the last answer.
    dropped: u64,
    /// Sightings that passed the filter since the last one taken.
    passed: u32,
    /// The current second of the rate limit.
    second: u32,
    /// Sightings taken in that second.
    taken: u32,
}

impl Taps {
    /// Whether there is a tap.
    pub fn is_open(&self) -> bool {
        !self.taps.is_empty()
    }

    /// Number of taps.
    pub fn count(&self) -> usize {
        self.taps.len()
    }

    /// Opens a tap, which is also its first request for sightings.
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

    /// A tap asks for more sightings.
    pub fn more(&mut self, asker: Asker) {
        self.taps.iter_mut().filter(|tap| tap.asker == asker).for_each(|tap| tap.is_asking = true);
    }

    /// Closes a tap.
    pub fn close(&mut self, asker: Asker) {
        self.taps.retain(|tap| tap.asker != asker);
        if self.taps.is_empty() {
            self.taps = Vec::new();
        }
    }

    /// Offers a sighting of this kind, channel and client address to every tap. `sight` makes it for the taps that take it.
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

    /// The answers that are ready, with the tap that each is for. `time_ms` is the wall-clock time of `at_us`.
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
    /// Whether sampling takes this sighting.
    fn samples(&mut self) -> bool {
        self.passed += 1;
        let is_taken = self.passed >= self.filter.sample;
        if is_taken {
            self.passed = 0;
        }
        is_taken
    }

    /// Whether the limits allow one more sighting.
    fn has_room(&mut self, now: u32) -> bool {
        let second = now / TICKS_PER_S;
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
        self.taken += 1;
        self.taken <= self.filter.rate && self.waiting.len() < WAITING_MAX
    }
}

/// Most taps of a server.
pub const TAPS_MAX: usize = 16;
/// Most sightings that may wait for a tap in each shard.
const WAITING_MAX: usize = 2048;
/// Most heap bytes of them: each has a channel's name, an event's name, and data.
pub const WAITING_BYTES_MAX: usize =
    WAITING_MAX * (2 * size_of::<Sighting>() + NAME_BYTES_MAX + 2 * SHOWN_BYTES_MAX as usize);

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
    fn answered(taps: &mut Taps) -> Option<(usize, u64)> {
        match taps.answers(0, 0, || 0).pop() {
            Some((_, Answer::Seen { sightings, dropped, .. })) => Some((sightings.len(), dropped)),
            _ => None,
        }
    }

    #[test]
    fn sightings_beyond_the_rate_are_dropped_and_counted() {
        let mut taps = Taps::default();
        taps.open(asker(), Arc::new(Filter { rate: 3, ..filter() }));
        (0..5).for_each(|_| see(&mut taps, 9));
        assert_eq!((answered(&mut taps), answered(&mut taps)), (Some((3, 2)), None));
        (0..2).for_each(|_| see(&mut taps, 10));
        assert_eq!(answered(&mut taps), None, "the tap has not asked");
        taps.more(asker());
        assert_eq!(answered(&mut taps), Some((2, 0)), "another second");
        assert_eq!((taps.shown, taps.dropped), (5, 2));
        taps.close(asker());
        assert!(!taps.is_open());
    }

    #[test]
    fn a_tap_that_does_not_ask_holds_a_bounded_number_of_sightings() {
        let mut taps = Taps::default();
        taps.open(asker(), Arc::new(Filter { rate: RATE_MAX, sample: 2, ..filter() }));
        (0..20_000).for_each(|_| see(&mut taps, 0));
        assert_eq!(answered(&mut taps), Some((WAITING_MAX, 10_000 - WAITING_MAX as u64)));
    }
}
