//! How connections arrive: whose they are, whether their address may have one more, and the upgrade. A few in each turn go on,
//! after everybody who is connected: a crowd that comes at once delays itself.
//!
//! ```text
//! accept ─► trusted proxy? ─ no ──────────────────────────────────► address known ─► its owner is asked ─► 101, 429 or the end
//!                 └ yes ─► PROXY header ─► still a trusted proxy? ─ no ──►┘ ▲
//!                                                  └ yes ─► X-Forwarded-For ┘
//! ```

use super::Clients;
use crate::config::Endpoint;
use crate::hub::Hub;
use crate::hub::addresses::{Address, Excess, Verdict};
use crate::hub::mail::Slot;
use crate::hub::places::{Named, Place, Source};
use crate::protocol::close::CloseReason;
use crate::shard::READ_BYTES;
use crate::shard::connection::Phase;
use crate::shard::wheel::TICK_MS;
use crate::wire::proxy::{self, Header};
use crate::wire::upgrade::{Refusal, TOO_MANY_CONNECTIONS, TOO_MANY_UPGRADES, Upgrade, upgrade};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

impl Clients {
    /// A connection was accepted from `peer`.
    pub(super) fn arrive(&mut self, slot: Slot, peer: SocketAddr, hub: &mut Hub) {
        if !self.live.access.trusts(peer.ip()) {
            self.seek_place(slot, peer.ip(), hub);
        } else if self.live.access.has_proxy_header {
            self.places.set(slot, Place::BehindHeader);
        } else {
            self.places.set(slot, Place::BehindRequest);
        }
    }

    /// Whether the connection may be read now: not while a PROXY header is still to come, and not while its request waits for
    /// the owner of its address.
    pub(super) fn may_read(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        match self.places.of(slot) {
            Place::BehindHeader => self.read_header(slot, hub, buffer),
            Place::Asked => {
                let connection = &mut self.connections[slot as usize];
                let waits = connection.phase == Phase::Upgrading && connection.has_request();
                // Read on once the answer is there.
                connection.is_unread |= waits;
                !waits
            }
            _ => true,
        }
    }

    /// Goes on with upgrades, TLS handshakes and first messages, up to the turn's budget, and writes what they are answered there and
    /// then: thousands who come at once delay each other, and nobody who is there.
    pub fn serve_newcomers(&mut self, hub: &mut Hub, buffer: &mut [u8]) {
        let (mut flights, mut reads) = (0, self.newcomers.len());
        let bytes_end = hub.counters.bytes_in + NEWCOMERS_BYTES_PER_TURN;
        for _ in 0..NEWCOMERS_PER_TURN {
            let slot = if let Some(slot) = self.judged.pop_front() {
                self.upgrade_judged(slot, hub);
                slot
            } else if reads > 0
                && flights < FLIGHTS_PER_TURN
                && hub.counters.bytes_in < bytes_end
                && let Some(slot) = self.newcomers.pop_front()
            {
                reads -= 1;
                flights += usize::from(self.shake(slot, hub, buffer));
                slot
            } else {
                return;
            };
            self.write(slot, hub);
        }
    }

    /// Reads what came. Returns whether a flight of a TLS handshake was made, which is what costs.
    fn shake(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return false;
        };
        let goes_on = std::mem::take(&mut connection.is_unread) && connection.phase != Phase::Ended;
        goes_on && self.take(slot, hub, buffer)
    }

    /// Takes a PROXY header off the socket, once it is whole: whatever comes next finds the socket as if there had been none.
    /// Returns whether that is done.
    fn read_header(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let connection = &mut self.connections[slot as usize];
        let peeked = match connection.socket.peek(&mut buffer[..proxy::HEADER_BYTES_MAX]) {
            Ok(peeked) => peeked,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                connection.is_unread = true;
                self.unread.push_back(slot);
                return false;
            }
            Err(_) => 0,
        };
        match proxy::read(&buffer[..peeked]) {
            Header::Partial if peeked == 0 || connection.is_eof_near => self.end(slot, &CloseReason::ClientGone, hub),
            Header::Partial => {}
            Header::Malformed(why) => {
                tracing::debug!(shard = self.me, slot, why, "malformed PROXY header");
                self.end(slot, &CloseReason::ProxyHeaderMalformed, hub);
            }
            Header::Whole { len, source } => {
                if connection.socket.read_exact(&mut buffer[..len]).is_err() {
                    self.end(slot, &CloseReason::ClientGone, hub);
                    return false;
                }
                hub.counters.bytes_in += len as u64;
                self.places.set(slot, Place::BehindRequest);
                if let Some(address) = source {
                    self.name(slot, address, Source::ProxyProtocol);
                    if !self.live.access.trusts(address.ip()) {
                        self.seek_place(slot, address.ip(), hub);
                    }
                }
                return true;
            }
        }
        false
    }

    /// Bytes of a connection that is not upgraded yet.
    pub(super) fn upgrade(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let connection = &mut self.connections[slot as usize];
        let mut request = connection.take_request();
        let earlier = request.len();
        if earlier > 0 {
            request.extend_from_slice(bytes);
        }
        let input = if earlier > 0 { &request } else { &*bytes };
        let mut response = std::mem::take(&mut self.response);
        response.clear();
        let place = self.places.of(slot);
        let upgrade = match place {
            // Read as soon as the answer is there.
            Place::Asked => Upgrade::Partial,
            _ => upgrade(input, &self.live.access, place == Place::BehindRequest, &mut response),
        };
        if let (Upgrade::Accepted { forwarded_for, .. }, Place::BehindRequest) = (&upgrade, place) {
            self.forwarded(slot, *forwarded_for, hub);
        }
        match (upgrade, self.places.of(slot)) {
            (Upgrade::Partial, _) | (Upgrade::Accepted { .. }, Place::Asked) => {
                let request = if earlier > 0 { request } else { bytes.to_vec() };
                self.connections[slot as usize].aside.get_or_insert_default().request = request;
            }
            (Upgrade::Accepted { .. }, Place::Refused(excess)) => {
                let (refusal, reason) = self.too_many(excess);
                response.clear();
                refusal.respond(&mut response, &self.live.access, true);
                self.refuse(slot, refusal, &response, reason, hub);
            }
            (Upgrade::Accepted { request_len, endpoint, .. }, _) => {
                hub.counters.upgrades += 1;
                self.output.respond(&mut hub.pages, slot, &response);
                self.open(slot, endpoint, hub);
                // The rest belongs to the first frames. It cannot start before what came now: the request was not whole.
                let rest = &mut bytes[request_len - earlier..];
                if !rest.is_empty() {
                    self.heard(slot, rest, hub);
                }
            }
            (Upgrade::Refused(refusal), _) => {
                self.refuse(slot, refusal, &response, CloseReason::UpgradeRefused, hub);
            }
        }
        self.response = response;
    }

    fn refuse(&mut self, slot: Slot, refusal: &Refusal, response: &[u8], reason: CloseReason, hub: &mut Hub) {
        hub.counters.upgrades_refused += 1;
        self.refusals[refusal.kind()] += 1;
        if hub.is_watched() {
            hub.see_refuse(self.address(slot), refusal.why);
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (address, source) = self.origin(slot);
            tracing::debug!(shard = self.me, slot, why = refusal.why, address, source, "upgrade refused");
        }
        self.output.respond(&mut hub.pages, slot, response);
        self.close(slot, reason, hub);
    }

    fn open(&mut self, slot: Slot, endpoint: Endpoint, hub: &mut Hub) {
        let limit = self.live.limits.connections_max;
        if self.admitted.fetch_add(1, Relaxed) >= limit {
            self.admitted.fetch_sub(1, Relaxed);
            return self.close(slot, CloseReason::OverCapacity { limit }, hub);
        }
        self.connections[slot as usize].is_admitted = true;
        self.pace_anew(slot);
        if endpoint == Endpoint::Echo {
            return self.open_echo(slot);
        }
        let interval = self.interval_ticks();
        // Somewhere in the second half of the interval, so that clients that came together are not pinged together.
        let jitter = self.random.hash_one((slot, self.now)) as u32 % (interval / 2 + 1);
        self.go_on(slot, Phase::Open);
        self.connections[slot as usize].ping_at = self.now.wrapping_add(interval - jitter);
        let deadline = self.deadline(slot);
        self.wheel.arm(slot, deadline);
        let address = (hub.is_listened_to() || hub.is_watched()).then(|| self.address(slot)).flatten();
        hub.connect(slot, address, self);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (address, source) = self.origin(slot);
            tracing::debug!(shard = self.me, slot, socket_id = %hub.socket_id(slot), address, source, "open");
        }
    }

    /// A good request came from a trusted proxy, which says whose it is, or does not.
    fn forwarded(&mut self, slot: Slot, forwarded_for: Option<SocketAddr>, hub: &mut Hub) {
        self.places.set(slot, Place::None);
        if let Some(address) = forwarded_for {
            self.name(slot, address, Source::ForwardedFor);
            self.seek_place(slot, address.ip(), hub);
        }
    }

    fn name(&mut self, slot: Slot, address: SocketAddr, by: Source) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.places.name(slot, Named { address, by });
    }

    /// The address is known: asks its owner for a place, where it needs one.
    fn seek_place(&mut self, slot: Slot, address: IpAddr, hub: &mut Hub) {
        if self.live.access.trusts(address) || !self.live.limits.counts_address(address) {
            return self.places.set(slot, Place::None);
        }
        let address = Address::of(address);
        self.places.ask(slot, address);
        hub.arrive(address, slot, self.now, self);
    }

    /// Hears the owners' verdicts.
    pub fn hear_verdicts(&mut self, hub: &mut Hub) {
        while let Some((arrival, verdict)) = self.verdicts.pop() {
            if self.places.hear(arrival, verdict) {
                self.judged(arrival.slot, arrival.address, verdict, hub);
            } else if let Some(was_refused) = verdict.counts_as_refused() {
                // Who asked has ended.
                hub.depart(arrival.address, was_refused, self);
            }
        }
    }

    fn judged(&mut self, slot: Slot, address: Address, verdict: Verdict, hub: &mut Hub) {
        match verdict {
            Verdict::Placed => {}
            Verdict::Refused(excess) => self.warn_of(address, excess),
            Verdict::Dropped(excess) => {
                self.warn_of(address, excess);
                hub.counters.address_drops += 1;
                return self.end(slot, &self.too_many(excess).1, hub);
            }
        }
        let connection = &self.connections[slot as usize];
        if connection.phase == Phase::Upgrading && connection.has_request() {
            self.judged.push_back(slot);
        }
    }

    /// Goes on with a request that waited for the verdict.
    fn upgrade_judged(&mut self, slot: Slot, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.phase != Phase::Upgrading || !connection.has_request() {
            return;
        }
        if connection.is_unread {
            self.unread.push_back(slot);
        }
        let mut request = connection.take_request();
        self.upgrade(slot, &mut request, hub);
    }

    /// How a connection of an address that has too much is told so, and why it ends.
    fn too_many(&self, excess: Excess) -> (&'static Refusal, CloseReason) {
        match excess {
            Excess::Connections => {
                let limit = self.live.limits.address_connections_max();
                (&TOO_MANY_CONNECTIONS, CloseReason::AddressConnections { limit })
            }
            Excess::Upgrades => {
                let limit = self.live.limits.upgrades_per_address_max;
                (&TOO_MANY_UPGRADES, CloseReason::AddressUpgrades { limit })
            }
        }
    }

    /// Once a minute and shard: a flood of refusals is none of log lines.
    fn warn_of(&mut self, address: Address, excess: Excess) {
        let is_quiet = self.warned_at.is_some_and(|at| self.now.wrapping_sub(at) < WARNING_PAUSE_TICKS);
        if is_quiet {
            return tracing::debug!(shard = self.me, %address, ?excess, "an address is over its limit");
        }
        self.warned_at = Some(self.now);
        let (_, reason) = self.too_many(excess);
        tracing::warn!(
            shard = self.me,
            %address,
            %reason,
            "refusing connections of an address; if it is a proxy of yours, --trust-proxy it, else see \
             --max-connections-per-address and --max-upgrades-per-address"
        );
    }
}

/// Upgrades, steps of TLS handshakes, and reads of first messages, of one turn. The dearest plain one, an upgrade, is about 10 us
/// with its write.
const NEWCOMERS_PER_TURN: usize = 24;
/// Where they say much. With the read that goes beyond it 8 ms in the worst case, which is empty messages, each answered with an
/// error.
const NEWCOMERS_BYTES_PER_TURN: u64 = READ_BYTES as u64;
/// Flights of TLS handshakes among them. A full handshake was measured at 0.23 ms with an ECDSA key and at 1.1 ms with RSA-2048;
/// in TLS 1.3 it takes two flights.
const FLIGHTS_PER_TURN: usize = 8;
const WARNING_PAUSE_TICKS: u32 = (60_000 / TICK_MS) as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::trial::House;
    use std::io::Write;

    #[test]
    fn newcomers_who_say_much_do_not_make_a_turn_long() {
        let mut house = House::new(1, |_| ());
        let mut clients = house.connect(0, 12);
        let much = [0x81, 0x80, 0, 0, 0, 0].repeat(10_000);
        clients.iter_mut().for_each(|client| client.write_all(&much).expect("room"));
        let (mut bytes, mut turns) = (0, 0);
        while bytes < (clients.len() * much.len()) as u64 {
            let before = house.shards[0].hub.counters.bytes_in;
            house.turn(0);
            let read = house.shards[0].hub.counters.bytes_in - before;
            assert!(read < 2 * READ_BYTES as u64, "{read} bytes in a turn");
            (bytes, turns) = (bytes + read, turns + 1);
            assert!(turns < 100, "they are forgotten");
        }
    }
}
