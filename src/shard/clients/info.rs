//! What operators see of the connections.

use super::Clients;
use crate::api::operation::{Disconnect, SubscriberInfo, Subscribers};
use crate::api::refusal::NO_CONNECTION;
use crate::api::value::written;
use crate::api::{ConnectionInfo, Refusal, Reply, Request, Rows};
use crate::hub::Hub;
use crate::hub::admission::arrivals::Source;
use crate::ids::Slot;
use crate::metrics::Gauges;
use crate::protocol::close::CloseReason;
use crate::shard::connection::state::Phase;
use crate::shard::heartbeats::wheel::TICK_MS;
use std::net::SocketAddr;

impl Clients {
    /// One open connection.
    pub fn info(&self, slot: Slot, hub: &Hub) -> Option<ConnectionInfo> {
        let connection = self.connections.get(slot).filter(|connection| connection.state.phase == Phase::Open)?;
        Some(ConnectionInfo {
            socket_id: hub.socket_id(slot),
            address: self.address(slot),
            dialect: connection.state.dialect.name(),
            shard: self.me,
            age_s: u64::from(self.now.wrapping_sub(connection.state.accepted_at)) * TICK_MS / 1000,
            subscriptions: hub.channels_of(slot).count(),
            outbox_bytes: self.output.waiting(slot),
        })
    }

    /// Where a connection comes from, as far as that is known.
    pub(super) fn address(&self, slot: Slot) -> Option<SocketAddr> {
        match self.admission.arrivals.named(slot) {
            Some(named) => Some(named.address),
            None => self.connections.get(slot)?.socket.peer_addr().ok(),
        }
    }

    /// Where a connection comes from and how that is known, for the log.
    pub(super) fn origin(&self, slot: Slot) -> (Option<String>, &'static str) {
        let source = self.admission.arrivals.named(slot).map_or(Source::Peer, |named| named.by);
        (self.address(slot).map(written), source.name())
    }

    /// Answers a request that concerns one connection.
    pub fn answer(&mut self, request: Request, slot: Slot, hub: &mut Hub) -> Result<Reply, Refusal> {
        match request {
            Request::Connection(_) => {
                let connection = self.info(slot, hub).ok_or(NO_CONNECTION)?;
                Ok(Reply::Connection { connection, channels: hub.channels_of(slot).cloned().collect() })
            }
            Request::Disconnect(Disconnect { code, reason, .. }) => {
                self.close(slot, CloseReason::by_operator(code, reason.as_deref()), hub);
                Ok(Reply::Done {})
            }
            _ => Err(NO_CONNECTION),
        }
    }

    /// This shard's part of one page of a list: up to `limit` rows from slot `after` on, and where the next page begins.
    pub fn page(&self, request: &Request, limit: usize, after: Slot, hub: &Hub) -> (Rows, Option<Slot>) {
        match request {
            Request::Subscribers(Subscribers { channel, .. }) => {
                let is_subscriber = |slot, looked_at: &mut usize| {
                    hub.channels_of(slot)
                        .inspect(|_| *looked_at += 1)
                        .any(|name| name.as_channel().as_str() == &**channel)
                };
                let (page, next) = self.scan(limit, after, hub, is_subscriber);
                let row = |ConnectionInfo { socket_id, address, dialect, age_s, .. }| SubscriberInfo {
                    socket_id,
                    address,
                    dialect,
                    age_s,
                };
                (Rows::Subscribers(page.into_iter().map(row).collect()), next)
            }
            _ => {
                let (page, next) = self.scan(limit, after, hub, |_, _| true);
                (Rows::Connections(page), next)
            }
        }
    }

    /// Open connections for which `is_wanted` holds. It adds the number of subscriptions that it looked at.
    fn scan(
        &self,
        limit: usize,
        after: Slot,
        hub: &Hub,
        is_wanted: impl Fn(Slot, &mut usize) -> bool,
    ) -> (Vec<ConnectionInfo>, Option<Slot>) {
        let (mut page, mut looked_at) = (Vec::new(), 0);
        for slot in after..self.connections.slots_end() {
            if looked_at >= SCAN_MAX {
                return (page, Some(slot));
            }
            looked_at += 1;
            if self.connections.phase(slot) != Some(Phase::Open) || !is_wanted(slot, &mut looked_at) {
                continue;
            }
            if page.len() == limit {
                return (page, Some(slot));
            }
            page.extend(self.info(slot, hub));
        }
        (page, None)
    }

    /// Current sums, from running totals: they are read every second, and a walk of a million connections takes time.
    pub fn gauges(&self, hub: &Hub) -> Gauges {
        let census = self.connections.census();
        debug_assert_eq!(census, self.connections.count());
        debug_assert_eq!(
            self.outbox_bytes(hub),
            self.connections.iter().map(|(slot, _)| self.output.waiting(slot) as u64).sum::<u64>()
        );
        Gauges {
            connections_leaving: self.leaving() as u64,
            newcomers_waiting: (self.read_queue.newcomers() + self.admission.judged.len()) as u64,
            mail_waiting: self.mesh.waiting() as u64,
            connections: (census.open + census.echoing) as u64,
            connections_native: (census.open - census.open_pusher) as u64,
            connections_pusher: census.open_pusher as u64,
            connections_echoing: census.echoing as u64,
            connections_upgrading: census.upgrading as u64,
            connections_closing: census.closing as u64,
            outbox_bytes: self.outbox_bytes(hub),
            ..hub.gauges()
        }
    }

    /// Bytes that wait for clients: queued, and neither written nor dropped.
    fn outbox_bytes(&self, hub: &Hub) -> u64 {
        self.output.bytes_encoded().saturating_sub(hub.counters.bytes_out + hub.counters.outbox_bytes_dropped)
    }
}

/// Table entries, of connections and subscriptions, that are checked for one page.
const SCAN_MAX: usize = 65_536;
