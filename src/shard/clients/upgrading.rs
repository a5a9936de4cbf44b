//! From the first byte to an open connection: its origin, the place of its address, and the HTTP upgrade.
//!
//! ```text
//! accept ─► trusted proxy? ─ no ──────────────────────────────────► address known ─► its owner is asked ─► 101, 429 or the end
//!                 └ yes ─► PROXY header ─► still a trusted proxy? ─ no ──►┘ ▲
//!                                                  └ yes ─► X-Forwarded-For ┘
//! ```

use super::Clients;
use crate::config::Endpoint;
use crate::hub::Hub;
use crate::hub::admission::addresses::{Address, Verdict};
use crate::hub::admission::arrivals::{Source, Stage};
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::pusher::handshake::{self, Version};
use crate::shard::admission::too_many;
use crate::shard::connection::state::Phase;
use crate::wire::proxy::{self, Header};
use crate::wire::upgrade::{Refusal, Upgrade, upgrade};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

impl Clients {
    /// A connection was accepted from `peer`.
    pub(super) fn arrive(&mut self, slot: Slot, peer: SocketAddr, hub: &mut Hub) {
        if !self.live.access.trusts(peer.ip()) {
            self.seek_place(slot, peer.ip(), hub);
        } else if self.live.access.has_proxy_header {
            self.admission.arrivals.set(slot, Stage::BehindHeader);
        } else {
            self.admission.arrivals.set(slot, Stage::BehindRequest);
        }
    }

    /// Whether the connection may be read now: not before its PROXY header has come, and not while its request waits for the
    /// owner of its address.
    pub(super) fn may_read(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        match self.admission.arrivals.of(slot) {
            Stage::BehindHeader => self.read_header(slot, hub, buffer),
            Stage::Asked => {
                let connection = &mut self.connections[slot];
                let waits = connection.state.phase == Phase::Upgrading && connection.has_request();
                // Read on once the verdict has come.
                connection.state.is_unread |= waits;
                !waits
            }
            _ => true,
        }
    }

    /// Takes a PROXY header off the socket, once it is whole. The next read finds the socket as if there had been none.
    /// Returns whether that is done.
    fn read_header(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let connection = &mut self.connections[slot];
        let peeked = match connection.socket.peek(&mut buffer[..proxy::HEADER_BYTES_MAX]) {
            Ok(peeked) => peeked,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                connection.state.is_unread = true;
                self.read_queue.push(slot);
                return false;
            }
            Err(_) => 0,
        };
        match proxy::read(&buffer[..peeked]) {
            Header::Partial if peeked == 0 || connection.state.is_eof_near => {
                self.end(slot, &CloseReason::ClientGone, hub);
            }
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
                // X-Forwarded-For is trusted only if the header names a trusted proxy. Behind a header without an address, the
                // client itself may have sent it.
                self.admission.arrivals.set(slot, Stage::None);
                if let Some(address) = source {
                    self.admission.name(slot, address, Source::ProxyProtocol);
                    match self.live.access.trusts(address.ip()) {
                        true => self.admission.arrivals.set(slot, Stage::BehindRequest),
                        false => self.seek_place(slot, address.ip(), hub),
                    }
                }
                return true;
            }
        }
        false
    }

    /// Bytes of a connection that is not upgraded yet.
    pub(super) fn upgrade(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let connection = &mut self.connections[slot];
        let mut request = connection.take_request();
        let earlier = request.len();
        if earlier > 0 {
            request.extend_from_slice(bytes);
        }
        let input = if earlier > 0 { &request } else { &*bytes };
        let mut response = std::mem::take(&mut self.response);
        response.clear();
        let stage = self.admission.arrivals.of(slot);
        let upgrade = match stage {
            // Read as soon as the verdict has come.
            Stage::Asked => Upgrade::Partial,
            _ => upgrade(
                input,
                &self.live.access,
                stage == Stage::BehindRequest,
                SystemTime::now().into(),
                &mut response,
            ),
        };
        if let Upgrade::Accepted { forwarded_for, .. } | Upgrade::Refused { forwarded_for, .. } = &upgrade
            && stage == Stage::BehindRequest
        {
            self.forwarded(slot, *forwarded_for, hub);
        }
        match (upgrade, self.admission.arrivals.of(slot)) {
            (Upgrade::Partial, _) | (_, Stage::Asked) => {
                let request = if earlier > 0 { request } else { bytes.to_vec() };
                self.connections[slot].aside.get_or_insert_default().request = request;
            }
            (_, Stage::Refused(excess)) => {
                let (refusal, reason) = too_many(excess, &self.live.limits);
                response.clear();
                refusal.respond(input, &mut response, &self.live.access, SystemTime::now().into());
                self.refuse(slot, refusal, &response, reason, hub);
            }
            (Upgrade::Accepted { request_len, endpoint, target, .. }, _) => {
                hub.counters.upgrades += 1;
                if endpoint == Endpoint::Channels {
                    self.note_native(slot, input);
                }
                self.output.respond(hub.pages_mut(), slot, &response);
                self.enter_endpoint(slot, endpoint, &target, hub);
                // The rest belongs to the first frames. It starts within the bytes of this read, because the request was
                // incomplete before.
                let rest = &mut bytes[request_len - earlier..];
                if !rest.is_empty() {
                    self.received(slot, rest, hub);
                }
            }
            (Upgrade::Refused { refusal, .. }, _) => {
                self.note_refusal(slot, refusal, input);
                self.refuse(slot, refusal, &response, CloseReason::UpgradeRefused, hub);
            }
        }
        self.response = response;
    }

    fn refuse(&mut self, slot: Slot, refusal: &Refusal, response: &[u8], reason: CloseReason, hub: &mut Hub) {
        hub.counters.upgrades_refused += 1;
        self.admission.count_refusal(refusal);
        if hub.is_watched() {
            hub.see_refuse(self.address(slot), refusal.why);
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (address, source) = self.origin(slot);
            tracing::debug!(shard = self.me, slot, why = refusal.why, address, source, "upgrade refused");
        }
        self.output.respond(hub.pages_mut(), slot, response);
        self.close(slot, reason, hub);
    }

    /// Opens an upgraded connection at the endpoint that its request names.
    fn enter_endpoint(&mut self, slot: Slot, endpoint: Endpoint, target: &str, hub: &mut Hub) {
        match endpoint {
            Endpoint::Channels => {
                hub.counters.upgrades_native += 1;
                self.open(slot, hub);
            }
            Endpoint::Echo => self.open_echo(slot, hub),
            Endpoint::Pusher => {
                hub.counters.upgrades_pusher += 1;
                self.open_pusher(slot, target, hub);
            }
        }
    }

    /// Gives an upgraded connection a place below the limit of connections, or closes it.
    pub(super) fn admit(&mut self, slot: Slot, hub: &mut Hub) -> bool {
        let limit = self.live.limits.connections_max;
        if !self.admission.admit(limit) {
            self.close(slot, CloseReason::OverCapacity { limit }, hub);
            return false;
        }
        self.connections[slot].state.is_admitted = true;
        self.rate_limits.renew(slot, &self.live.limits, self.now);
        true
    }

    /// Opens a connection of a Pusher client, whose request has this path and query.
    fn open_pusher(&mut self, slot: Slot, target: &str, hub: &mut Hub) {
        let judged = handshake::version(self.live.access.pusher_target(target), |id| hub.has_key(id));
        // A refusal is also sent in this dialect.
        let version = judged.as_ref().copied().unwrap_or(Version::V7);
        self.connections[slot].state.dialect = Dialect::Pusher(version);
        match judged {
            Ok(_) => self.open(slot, hub),
            Err(refusal) => {
                self.note_pusher_refusal(slot, &refusal, target);
                self.close(slot, CloseReason::PusherRefused(refusal), hub);
            }
        }
    }

    fn open(&mut self, slot: Slot, hub: &mut Hub) {
        if !self.admit(slot, hub) {
            return;
        }
        let interval = self.interval_ticks();
        // Somewhere in the second half of the interval, so that clients that connected together are not pinged together.
        let jitter = self.random.hash_one((slot, self.now)) as u32 % (interval / 2 + 1);
        self.connections.enter_phase(slot, Phase::Open);
        self.connections[slot].state.ping_at = self.now.wrapping_add(interval - jitter);
        if self.connections[slot].state.dialect.is_pusher() {
            self.authorization.open(slot, self.live.limits.pusher_authorize_within_s, self.now);
        }
        self.look_at_deadline(slot);
        let address = (hub.is_listened_to() || hub.is_watched()).then(|| self.address(slot)).flatten();
        hub.connect(slot, self.connections[slot].state.dialect, address, self);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (address, source) = self.origin(slot);
            tracing::debug!(shard = self.me, slot, socket_id = %hub.socket_id(slot), address, source, "open");
        }
    }

    /// A request came from a trusted proxy, with or without the address of its client.
    fn forwarded(&mut self, slot: Slot, forwarded_for: Option<SocketAddr>, hub: &mut Hub) {
        self.admission.arrivals.set(slot, Stage::None);
        if let Some(address) = forwarded_for {
            self.admission.name(slot, address, Source::ForwardedFor);
            self.seek_place(slot, address.ip(), hub);
        }
    }

    /// The address is known: asks its owner for a place, if the address needs one.
    fn seek_place(&mut self, slot: Slot, address: IpAddr, hub: &mut Hub) {
        let is_forwarded = self.admission.arrivals.named(slot).is_some();
        if self.live.access.trusts(address) || !self.live.limits.counts_address(address, is_forwarded) {
            return self.admission.arrivals.set(slot, Stage::None);
        }
        let address = Address::of(address);
        self.admission.arrivals.ask(slot, address);
        hub.arrive(address, slot, hub.now, self);
    }

    /// Goes on with connections whose owners have decided.
    pub fn apply_verdicts(&mut self, hub: &mut Hub) {
        while let Some((arrival, verdict, is_awaited)) = self.admission.pop_verdict() {
            if is_awaited {
                self.apply_verdict(arrival.slot, arrival.address, verdict, hub);
            } else if let Some(was_refused) = verdict.counts_as_refused() {
                // The connection has ended.
                hub.depart(arrival.address, was_refused, self);
            }
        }
    }

    fn apply_verdict(&mut self, slot: Slot, address: Address, verdict: Verdict, hub: &mut Hub) {
        match verdict {
            Verdict::Counted => {}
            Verdict::Refused(excess) => self.admission.warn_of(address, excess, &self.live.limits, self.now),
            Verdict::Dropped(excess) => {
                self.admission.warn_of(address, excess, &self.live.limits, self.now);
                hub.counters.address_drops += 1;
                return self.end(slot, &too_many(excess, &self.live.limits).1, hub);
            }
        }
        let connection = &self.connections[slot];
        if connection.state.phase == Phase::Upgrading && connection.has_request() {
            self.admission.judged.push_back(slot);
        }
    }

    /// Goes on with a request that waited for the verdict.
    pub(super) fn upgrade_judged(&mut self, slot: Slot, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        if connection.state.phase != Phase::Upgrading || !connection.has_request() {
            return;
        }
        if connection.state.is_unread {
            self.read_queue.push(slot);
        }
        let mut request = connection.take_request();
        self.upgrade(slot, &mut request, hub);
    }
}
