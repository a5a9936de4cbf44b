//! Admission: the limit of connections, and the places that the owners of addresses grant.

use crate::config::Limits;
use crate::hub::admission::addresses::{Address, Excess, Verdict};
use crate::hub::admission::arrivals::{Arrivals, Named, Source};
use crate::hub::mail::Arrival;
use crate::ids::{ShardId, Slot};
use crate::protocol::close::CloseReason;
use crate::shard::heartbeats::wheel::TICK_MS;
use crate::wire::upgrade::{REFUSALS, Refusal, TOO_MANY_CONNECTIONS, TOO_MANY_UPGRADES};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A shard's part in admitting connections.
pub struct Admission {
    shard: ShardId,
    /// Client connections of all shards, those included that are not upgraded or are being refused.
    accepted: Arc<AtomicUsize>,
    /// Client connections of all shards that have a place below the limit.
    admitted: Arc<AtomicUsize>,
    /// Where connections come from, and the places of their addresses.
    pub arrivals: Arrivals,
    /// What the owners of addresses decided about connections that arrived.
    verdicts: Vec<(Arrival, Verdict)>,
    /// Upgrades whose request waited for a verdict that has come.
    pub judged: VecDeque<Slot>,
    /// Upgrade requests refused, by [`Refusal::kind`].
    refusals: [u64; REFUSALS.len()],
    /// When the last log line about an address over a limit was written.
    warned_at: Option<u32>,
}

impl Admission {
    /// `accepted` and `admitted` are shared by all shards.
    pub fn new(shard: ShardId, accepted: Arc<AtomicUsize>, admitted: Arc<AtomicUsize>) -> Admission {
        Admission {
            shard,
            accepted,
            admitted,
            arrivals: Arrivals::default(),
            verdicts: Vec::new(),
            judged: VecDeque::new(),
            refusals: [0; REFUSALS.len()],
            warned_at: None,
        }
    }
}

/// The limit of connections.
impl Admission {
    /// Counts a connection that was accepted. Returns whether it is so far beyond the limit that it gets no reply.
    pub fn accept(&self, limit: usize) -> bool {
        self.accepted.fetch_add(1, Relaxed) >= limit.saturating_add(REFUSALS_MAX)
    }

    /// Gives back what [`Admission::accept`] counted.
    pub fn release(&self) {
        self.accepted.fetch_sub(1, Relaxed);
    }

    /// Takes a place below the limit. Returns whether there was one.
    pub fn admit(&self, limit: usize) -> bool {
        let has_room = self.admitted.fetch_add(1, Relaxed) < limit;
        if !has_room {
            self.give_back();
        }
        has_room
    }

    /// Gives a place below the limit back.
    pub fn give_back(&self) {
        self.admitted.fetch_sub(1, Relaxed);
    }
}

/// Where connections come from, and the places of their addresses.
impl Admission {
    /// Adds the verdict of an owner.
    pub fn push_verdict(&mut self, arrival: Arrival, verdict: Verdict) {
        self.verdicts.push((arrival, verdict));
    }

    /// The next verdict, and whether a connection waits for it.
    pub fn pop_verdict(&mut self) -> Option<(Arrival, Verdict, bool)> {
        let (arrival, verdict) = self.verdicts.pop()?;
        let is_awaited = self.arrivals.apply_verdict(arrival, verdict);
        Some((arrival, verdict, is_awaited))
    }

    /// Notes the address that a trusted proxy reports for the connection.
    pub fn name(&mut self, slot: Slot, address: SocketAddr, by: Source) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.arrivals.name(slot, Named { address, by });
    }

    /// Whether the next turn has work that the poll does not report.
    pub fn has_work(&self) -> bool {
        !self.judged.is_empty() || !self.verdicts.is_empty()
    }
}

/// Refusals.
impl Admission {
    /// Counts a refused upgrade request.
    pub fn count_refusal(&mut self, refusal: &Refusal) {
        self.refusals[refusal.kind()] += 1;
    }

    /// How many upgrade requests were refused, by [`Refusal::kind`].
    pub fn refusals(&self) -> [u64; REFUSALS.len()] {
        self.refusals
    }

    /// Logs that an address is over a limit: as a warning once a minute, so that many refusals do not fill the log.
    pub fn warn_of(&mut self, address: Address, excess: Excess, limits: &Limits, now: u32) {
        let is_quiet = self.warned_at.is_some_and(|at| now.wrapping_sub(at) < WARNING_PAUSE_TICKS);
        if is_quiet {
            return tracing::debug!(shard = self.shard, %address, ?excess, "an address is over its limit");
        }
        self.warned_at = Some(now);
        let (_, reason) = too_many(excess, limits);
        tracing::warn!(
            shard = self.shard,
            %address,
            %reason,
            "refusing connections of an address; if it is a proxy of yours, --trust-proxy it, else see \
             --max-connections-per-address and --max-upgrades-per-address"
        );
    }
}

/// How a connection of an address over its limit is refused, and why it ends.
pub fn too_many(excess: Excess, limits: &Limits) -> (&'static Refusal, CloseReason) {
    match excess {
        Excess::Connections => {
            let limit = limits.address_connections_max();
            (&TOO_MANY_CONNECTIONS, CloseReason::AddressConnections { limit })
        }
        Excess::Upgrades => {
            let limit = limits.upgrades_per_address_max;
            (&TOO_MANY_UPGRADES, CloseReason::AddressUpgrades { limit })
        }
    }
}

/// Connections beyond the limit that still get a reply.
pub const REFUSALS_MAX: usize = 256;
const WARNING_PAUSE_TICKS: u32 = (60_000 / TICK_MS) as u32;
