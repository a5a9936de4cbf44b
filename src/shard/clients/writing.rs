//! Writing: the flush of a turn and its results. Slow consumers are found here.

use super::{Clients, closing, echo, ticks};
use crate::hub::{Hub, Urgency};
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::connection::Connection;
use crate::shard::connection::state::Phase;
use crate::shard::output::{Destination, LOOKS_PER_TURN};
use std::net::Shutdown;

impl Clients {
    /// Queues a connection for the flush.
    pub(super) fn mark(&mut self, slot: Slot) {
        let Clients { output, connections, now, .. } = self;
        output.mark(slot, Urgency::Soon, || connections[slot].state.is_newcomer(*now));
    }

    /// Queues a frame of the shard's own.
    pub(super) fn send(&mut self, slot: Slot, hub: &mut Hub, write: impl FnOnce(&mut Vec<u8>)) {
        let Clients { output, connections, now, .. } = self;
        output.send(hub.pages_mut(), slot, || connections[slot].state.is_newcomer(*now), write);
    }

    /// Bytes that wait for room in the connection's socket.
    pub(super) fn pending(&self, slot: Slot) -> usize {
        self.output.waiting(slot) + self.connections[slot].unsent()
    }

    /// Writes to connections that have something new, once each, up to the turn's budget. A connection that has ended, and so
    /// has nothing to write, does not count against it.
    pub fn flush(&mut self, hub: &mut Hub) {
        let writes_end = hub.counters.writes + WRITES_PER_TURN;
        let bytes_end = hub.counters.bytes_out + BYTES_PER_TURN;
        for _ in 0..LOOKS_PER_TURN {
            let writes = hub.counters.writes;
            if writes >= writes_end || hub.counters.bytes_out >= bytes_end {
                return;
            }
            let Some(slot) = self.output.pop() else {
                return;
            };
            self.write(slot, hub);
            self.output.looked(hub.counters.writes > writes);
        }
    }

    pub(super) fn write(&mut self, slot: Slot, hub: &mut Hub) {
        if !self.output.take_queued(slot) {
            return;
        }
        let connection = &mut self.connections[slot];
        let waiting = self.output.waiting(slot);
        let mut written_bytes = 0;
        if !self.output.is_blocked(slot) || waiting > echo::outbox_limit(connection.state.phase, &self.live.limits) {
            let to = Destination { socket: &mut connection.socket, tls: Connection::tls(&mut connection.aside) };
            match self.output.write(hub.pages_mut(), slot, to) {
                Ok(sent) => {
                    written_bytes = sent.taken;
                    hub.counters.bytes_out += sent.taken as u64;
                    hub.counters.writes += sent.calls as u64;
                    hub.counters.writes_blocked += u64::from(self.output.is_blocked(slot));
                }
                Err(_) => return self.write_failed(slot, waiting, hub),
            }
        } else {
            self.output.unpin(hub.pages_mut(), slot);
        }
        self.wrote(slot, written_bytes, hub);
    }

    /// Handles the result of a write: what the connection took, and what still waits for it.
    fn wrote(&mut self, slot: Slot, bytes: usize, hub: &mut Hub) {
        let pending = self.pending(slot);
        if self.connections[slot].state.is_held {
            self.release(slot, bytes);
        }
        let connection = &mut self.connections[slot];
        let limit = echo::outbox_limit(connection.state.phase, &self.live.limits);
        match connection.state.phase {
            Phase::Open | Phase::Echoing { .. } if pending > limit => {
                self.close(slot, CloseReason::SlowConsumer { limit, pending }, hub);
            }
            Phase::Open if pending == 0 && self.output.is_lagging(slot) => {
                let has_more = hub.catch_up(slot, self);
                self.output.set_lagging(slot, has_more);
            }
            Phase::Echoing { .. } => self.echo_written(slot, bytes),
            Phase::Closing { reads: true, .. } if pending == 0 && connection.state.awaits_answer(self.now) => {}
            Phase::Closing { is_answered, .. } if pending == 0 => {
                if let Some(tls) = Connection::tls(&mut connection.aside)
                    && !tls.send_close_notify(&mut connection.socket)
                {
                    return self.output.set_blocked(slot, true);
                }
                if is_answered {
                    self.finish(slot, hub);
                } else {
                    // The peer reads the close frame and the end of the stream. It replies and closes, which ends the
                    // connection.
                    let _ = connection.socket.shutdown(Shutdown::Write);
                    self.drop_at(slot, self.now.wrapping_add(ticks(closing::CLOSE_TIMEOUT_MS)));
                }
            }
            _ => {}
        }
    }

    /// Whether the outboxes of this shard keep more memory than their limit.
    pub(super) fn outboxes_exceed(&self, hub: &Hub) -> bool {
        hub.waiting_bytes() > self.live.limits.shard_outboxes_bytes_max
    }

    /// Closes the connections whose outboxes keep the most memory, until the others keep within the limit. Only beyond it are
    /// outboxes looked at.
    pub fn limit_outboxes(&mut self, hub: &mut Hub) {
        if !self.outboxes_exceed(hub) {
            return;
        }
        let limit = self.live.limits.shard_outboxes_bytes_max;
        for (pending, slot) in self.output.largest(hub.pages(), |slot| hub.held_bytes_of(slot)) {
            if !self.outboxes_exceed(hub) {
                return;
            }
            if let Some(Phase::Open | Phase::Echoing { .. }) = self.connections.phase(slot) {
                self.close(slot, CloseReason::OutboxMemory { limit, pending }, hub);
            }
        }
    }

    /// The socket is broken. `waiting`: bytes that waited before the write.
    #[cold]
    fn write_failed(&mut self, slot: Slot, waiting: usize, hub: &mut Hub) {
        // Earlier calls of the same write may have taken some.
        hub.counters.bytes_out += (waiting - self.output.waiting(slot)) as u64;
        self.reset(slot, hub);
    }
}

/// About 1 to 2 ms of system calls.
const WRITES_PER_TURN: u64 = 256;
/// Takes as long, if writes are large.
const BYTES_PER_TURN: u64 = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Port;
    use crate::shard::Shard;
    use crate::shard::trial::House;
    use socket2::SockRef;

    /// Thousands of connections were just accepted and wait for a reply when a message is published to all of them. Publishers
    /// are held back only while the queue counts as behind.
    #[test]
    fn bulk_counts_as_behind_for_connections_that_also_wait_for_a_reply() {
        let mut house = House::new(1, |_| ());
        let peers = house.connect(0, 600);
        let Shard { clients, hub, .. } = &mut house.shards[0];
        for urgency in [Urgency::Soon, Urgency::Bulk] {
            let page = hub.pages_mut().open();
            let chunk = hub.pages_mut().append(page, |out| out.extend_from_slice(&[0; 100]));
            (0..peers.len()).for_each(|slot| clients.append(hub.pages_mut(), slot as Slot, chunk, urgency));
            hub.pages_mut().release(page);
        }
        let mut flushes = 0;
        while (0..peers.len()).any(|slot| clients.output.waiting(slot as Slot) > 0) {
            assert!(clients.output.is_behind());
            clients.flush(hub);
            flushes += 1;
        }
        assert_eq!((flushes, hub.counters.writes_blocked), (3, 0));
        clients.flush(hub);
        assert!(clients.output.is_idle());
    }

    /// A write takes several system calls if one TLS record is too small, or if more chunks wait than one call can gather.
    #[test]
    fn lanes_keep_their_share_if_a_write_takes_several_system_calls() {
        const SOON: usize = 20;
        let mut house = House::new(1, |_| ());
        let peers = house.connect(0, 140 + SOON);
        let Shard { clients, hub, .. } = &mut house.shards[0];
        hub.counters.writes = 0;
        for slot in 0..peers.len() {
            SockRef::from(&clients.connections[slot as Slot].socket)
                .set_send_buffer_size(1 << 20)
                .expect("a socket option");
            let urgency = if slot < SOON { Urgency::Soon } else { Urgency::Bulk };
            let pages = [hub.pages_mut().open(), hub.pages_mut().open()];
            // Alternating, so that no chunk begins where the one before ends: two calls for all of them.
            for page in pages.into_iter().cycle().take(66) {
                let chunk = hub.pages_mut().append(page, |out| out.extend_from_slice(&[0; 260]));
                clients.append(hub.pages_mut(), slot as Slot, chunk, urgency);
            }
            pages.into_iter().for_each(|page| hub.pages_mut().release(page));
        }
        clients.flush(hub);
        let is_written = |slot: &usize| clients.output.waiting(*slot as Slot) == 0;
        let (soon, bulk) = ((0..SOON).filter(is_written).count(), (SOON..peers.len()).filter(is_written).count());
        assert_eq!((hub.counters.writes as usize, hub.counters.writes_blocked), (2 * (soon + bulk), 0));
        assert!(soon == SOON && bulk > 60, "{soon} writes of soon and {bulk} of bulk");
    }
}
