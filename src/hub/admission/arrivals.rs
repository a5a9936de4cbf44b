//! The addresses of a shard's connections, and how far each connection is on its way to being counted for its address.
//!
//! This is stored outside of the connections, so connections that are not counted and not named by a proxy cost nothing.

use crate::hub::admission::addresses::{Address, Excess, Verdict};
use crate::hub::mail::Arrival;
use crate::ids::Slot;
use std::collections::HashMap;
use std::net::SocketAddr;

/// How far a connection is on its way to being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It is not counted, or no longer.
    #[default]
    None,
    /// It comes from a trusted proxy, and a PROXY header is expected first.
    BehindHeader,
    /// It comes from a trusted proxy, which may name the client's address in the request.
    BehindRequest,
    /// The owner of its address was asked, and has not decided.
    Asked,
    /// The owner of its address counts it until it ends.
    Counted,
    /// Its address is over a limit. The owner counts it as refused until it ends, which is once the refusal is sent.
    Refused(Excess),
}

/// The client's address, as a trusted proxy named it.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The client's address; port 0: the proxy named no port.
    pub address: SocketAddr,
    /// How the proxy named it.
    pub by: Source,
}

/// Where the address of a connection was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The socket's peer.
    Peer,
    /// A PROXY header.
    ProxyProtocol,
    /// The header `X-Forwarded-For`.
    ForwardedFor,
}

impl Source {
    /// The name for the log.
    pub fn name(self) -> &'static str {
        match self {
            Source::Peer => "peer",
            Source::ProxyProtocol => "PROXY header",
            Source::ForwardedFor => "X-Forwarded-For",
        }
    }
}

/// Heap bytes of a connection that is counted.
pub const ENTRY_BYTES: usize = size_of::<Stage>() + size_of::<Address>();

/// How far each connection of a shard is on its way to being counted, by slot.
#[derive(Default)]
pub struct Arrivals {
    stages: Vec<Stage>,
    /// Valid for connections whose stage is `Asked`, `Counted` or `Refused`.
    addresses: Vec<Address>,
    named: HashMap<Slot, Named, ahash::RandomState>,
}

impl Arrivals {
    /// The stage of a connection.
    pub fn of(&self, slot: Slot) -> Stage {
        self.stages.get(slot as usize).copied().unwrap_or_default()
    }

    /// Sets the stage of a connection.
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

    /// Notes that the owner of the connection's address is asked.
    pub fn ask(&mut self, slot: Slot, address: Address) {
        let at = slot as usize;
        if at >= self.addresses.len() {
            self.addresses.resize(at + 1, address);
        }
        self.addresses[at] = address;
        self.set(slot, Stage::Asked);
    }

    /// Applies the owner's verdict. Returns whether a connection waited for it. If not, and the owner counts the
    /// connection, the caller must report to the owner that it has left. A verdict for an earlier connection of the
    /// same slot and address serves equally well; the later verdict then finds no connection waiting.
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

    /// Notes the client's address, as a trusted proxy named it.
    pub fn name(&mut self, slot: Slot, named: Named) {
        self.named.insert(slot, named);
    }

    /// The client's address, if a trusted proxy named it.
    pub fn named(&self, slot: Slot) -> Option<Named> {
        self.named.get(&slot).copied()
    }

    /// Forgets a connection that has ended. Returns its address, and whether the owner counts it as refused; `None` if the
    /// owner does not count it, or has not decided.
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
    fn a_counted_connection_leaves_once() {
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
        assert!(!arrivals.apply_verdict(arrival(7, a), Verdict::Counted), "the connection no longer waits");
        assert_eq!(arrivals.leave(7), Some((a, true)));
        assert_eq!(arrivals.leave(7), None);
        arrivals.ask(7, b);
        assert_eq!(arrivals.leave(7), None, "the verdict is still under way, and will find no connection");
        assert!(!arrivals.apply_verdict(arrival(7, b), Verdict::Counted));
        arrivals.ask(3, a);
        arrivals.name(3, Named { address: ([192, 0, 2, 7], 0).into(), by: Source::ForwardedFor });
        assert!(arrivals.apply_verdict(arrival(3, a), Verdict::Counted));
        assert_eq!(arrivals.leave(3), Some((a, false)));
        assert!(arrivals.named(3).is_none());
    }

    #[test]
    fn a_stage_takes_one_byte_and_an_address_eight() {
        assert_eq!((size_of::<Stage>(), size_of::<Address>()), (1, 8));
    }
}
