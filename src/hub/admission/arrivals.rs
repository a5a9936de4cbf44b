//! Where the connections of a shard come from, and how far each is on its way to a place among those of its address.
//!
//! Beside the connections, not in them: who is not counted, and was named by nobody but itself, costs nothing here.

use crate::hub::admission::addresses::{Address, Excess, Verdict};
use crate::hub::mail::Arrival;
use crate::ids::Slot;
use std::collections::HashMap;
use std::net::SocketAddr;

/// How far a connection is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It needs none, or was given it back.
    #[default]
    None,
    /// A trusted proxy's: a PROXY header comes first.
    BehindHeader,
    /// A trusted proxy's, which may say in the request whose connection it is.
    BehindRequest,
    /// The owner of its address was asked.
    Asked,
    /// The owner of its address counts it, until it ends.
    Counted,
    /// Likewise, but only until it has been told why it may not stay.
    Refused(Excess),
}

/// Whose connection it is, where a proxy said so.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The client's address; port 0: the proxy did not say.
    pub address: SocketAddr,
    /// How the proxy said it.
    pub by: Source,
}

/// How the address of a connection was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is the socket's peer.
    Peer,
    /// From a PROXY header.
    ProxyProtocol,
    /// From `X-Forwarded-For`.
    ForwardedFor,
}

impl Source {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Source::Peer => "peer",
            Source::ProxyProtocol => "PROXY header",
            Source::ForwardedFor => "X-Forwarded-For",
        }
    }
}

/// Heap bytes for a connection whose address is counted.
pub const ENTRY_BYTES: usize = size_of::<Stage>() + size_of::<Address>();

/// By slot.
#[derive(Default)]
pub struct Arrivals {
    stages: Vec<Stage>,
    /// Of those that were asked for, placed or refused.
    addresses: Vec<Address>,
    named: HashMap<Slot, Named, ahash::RandomState>,
}

impl Arrivals {
    /// How far a connection is.
    pub fn of(&self, slot: Slot) -> Stage {
        self.stages.get(slot as usize).copied().unwrap_or_default()
    }

    /// Notes how far it is.
    pub fn set(&mut self, slot: Slot, stage: Stage) {
        let at = slot as usize;
        if at >= self.stages.len() {
            if stage == Stage::None {
                return;
            }
            self.stages.resize(at + 1, Stage::None);
        }
        self.stages[at] = stage;
    }

    /// The owner of its address is asked.
    pub fn ask(&mut self, slot: Slot, address: Address) {
        let at = slot as usize;
        if at >= self.addresses.len() {
            self.addresses.resize(at + 1, address);
        }
        self.addresses[at] = address;
        self.set(slot, Stage::Asked);
    }

    /// The owner's verdict is there. Returns whether somebody waited for it; if not, and if the owner counts who asked, it is
    /// to be told that they left. A verdict that was asked for by an earlier connection of the same slot and address is as
    /// good as one's own, which will then find nobody waiting.
    pub fn apply_verdict(&mut self, arrival: Arrival, verdict: Verdict) -> bool {
        let Arrival { address, slot, .. } = arrival;
        let is_awaited = self.of(slot) == Stage::Asked && self.addresses[slot as usize] == address;
        if is_awaited {
            self.stages[slot as usize] = match verdict {
                Verdict::Counted => Stage::Counted,
                Verdict::Refused(excess) => Stage::Refused(excess),
                Verdict::Dropped(_) => Stage::None,
            };
        }
        is_awaited
    }

    /// Notes whose connection it is.
    pub fn name(&mut self, slot: Slot, named: Named) {
        self.named.insert(slot, named);
    }

    /// Whose connection it is, where a proxy said so.
    pub fn named(&self, slot: Slot) -> Option<Named> {
        self.named.get(&slot).copied()
    }

    /// It has ended: what was known of it, and whether its address's owner counts it among those refused. `None`: nobody
    /// counts it, or not yet.
    pub fn leave(&mut self, slot: Slot) -> Option<(Address, bool)> {
        if !self.named.is_empty() {
            self.named.remove(&slot);
        }
        let stage = self.stages.get_mut(slot as usize).map(std::mem::take).unwrap_or_default();
        let was_refused = match stage {
            Stage::Counted => false,
            Stage::Refused(_) => true,
            Stage::None | Stage::BehindHeader | Stage::BehindRequest | Stage::Asked => return None,
        };
        Some((self.addresses[slot as usize], was_refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_once() {
        let (a, b) = (Address::of([192, 0, 2, 7].into()), Address::of([192, 0, 2, 8].into()));
        let arrival = |slot, address| Arrival { address, shard: 0, slot };
        let mut arrivals = Arrivals::default();
        assert_eq!((arrivals.of(7), arrivals.leave(7)), (Stage::None, None));
        arrivals.ask(7, a);
        assert!(
            !arrivals.apply_verdict(arrival(7, b), Verdict::Counted)
                && !arrivals.apply_verdict(arrival(6, a), Verdict::Counted)
        );
        assert!(arrivals.apply_verdict(arrival(7, a), Verdict::Refused(Excess::Upgrades)));
        assert!(!arrivals.apply_verdict(arrival(7, a), Verdict::Counted), "nobody waits any more");
        assert_eq!(arrivals.leave(7), Some((a, true)));
        assert_eq!(arrivals.leave(7), None);
        arrivals.ask(7, b);
        assert_eq!(arrivals.leave(7), None, "the verdict is still on its way, and will find nobody");
        assert!(!arrivals.apply_verdict(arrival(7, b), Verdict::Counted));
        arrivals.ask(3, a);
        arrivals.name(3, Named { address: ([192, 0, 2, 7], 0).into(), by: Source::ForwardedFor });
        assert!(arrivals.apply_verdict(arrival(3, a), Verdict::Counted));
        assert_eq!(arrivals.leave(3), Some((a, false)));
        assert!(arrivals.named(3).is_none());
    }

    #[test]
    fn a_place_is_a_byte() {
        assert_eq!((size_of::<Stage>(), size_of::<Address>()), (1, 8));
    }
}
