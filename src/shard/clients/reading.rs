//! When a connection is read, and what a read brings.

use super::Clients;
use crate::hub::{Handled, Hub};
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::READ_BYTES;
use crate::shard::connection::state::Phase;
use crate::shard::rate_limits::RateLimits;
use std::io::{ErrorKind, Read};

impl Clients {
    /// Renews the budget of the connections that the poll reports.
    pub fn begin_reads(&mut self, hub: &Hub) {
        self.full_reads_until = hub.counters.bytes_in + FULL_READS_BYTES_PER_TURN;
    }

    /// Reads again what earlier turns left in sockets, and the connections that were held, up to the turn's budget.
    pub fn read_rest(&mut self, hub: &mut Hub, buffer: &mut [u8]) {
        self.read_queue.release_held();
        let bytes_end = hub.counters.bytes_in + self.bytes_resumed + READ_AGAIN_BYTES_PER_TURN;
        for _ in 0..self.read_queue.len() {
            if hub.counters.bytes_in + self.bytes_resumed >= bytes_end || self.outboxes_exceed(hub) {
                return;
            }
            let Some(slot) = self.read_queue.pop() else { break };
            self.read_again(slot, hub, buffer);
        }
    }

    fn read_again(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        if std::mem::take(&mut connection.state.is_unread) {
            self.read(slot, hub, buffer);
        }
    }

    /// One read. What does not fit is read in the next turn, so that a client that sends much does not keep others waiting.
    pub(super) fn read(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) {
        let are_outboxes_full = self.outboxes_exceed(hub);
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let state = &mut connection.state;
        if state.phase == Phase::Ended || state.is_unread {
            return;
        }
        if are_outboxes_full {
            // Until the turn's end, which closes the largest.
            state.is_unread = true;
            return self.read_queue.push(slot);
        }
        if hub.waiting_replies(slot) > WAITING_REPLIES_MAX {
            state.is_unread = true;
            return self.read_queue.hold(slot);
        }
        if state.phase == Phase::Open && self.output.holds_requests(slot) {
            return self.hold(slot);
        }
        if let Some(text) = connection.take_request_text()
            && connection.state.phase == Phase::Open
            && hub.handle(slot, &text, self) == Handled::Later
        {
            return self.handle_later(slot, text, hub);
        }
        let connection = &mut self.connections[slot];
        let mut frames = connection.take_frames();
        if !frames.is_empty() {
            // The socket may have more, even if these frames are held again.
            connection.state.is_unread = true;
            self.read_queue.push(slot);
            self.frames(slot, &mut frames, hub);
            let left = self.connections.get_mut(slot).map_or(0, |connection| connection.frames_len());
            self.bytes_resumed += (frames.len() - left) as u64;
            return;
        }
        if self.echo_pauses(slot) {
            self.connections[slot].state.is_unread = true;
            hub.counters.echo_pauses += 1;
            return;
        }
        if !self.connections[slot].state.is_newcomer(self.now) {
            self.take(slot, hub, buffer);
        } else if self.may_read(slot, hub, buffer) {
            self.connections[slot].state.is_unread = true;
            self.read_queue.push_newcomer(slot);
        }
    }

    /// Keeps a request until the hub handles it. Nothing is read meanwhile.
    pub(super) fn handle_later(&mut self, slot: Slot, text: String, hub: &mut Hub) {
        let connection = &mut self.connections[slot];
        connection.aside.get_or_insert_default().request_text = Some(text);
        if hub.awaits(slot) {
            connection.state.is_unread = true;
            self.read_queue.hold(slot);
            // Its rate limit may permit more at the next tick.
            self.heartbeats.look_at(slot, self.now.wrapping_add(1));
        } else {
            self.hold(slot);
        }
    }

    /// Stops reading requests until the client has taken replies.
    pub(super) fn hold(&mut self, slot: Slot) {
        let state = &mut self.connections[slot].state;
        state.is_unread = true;
        if !std::mem::replace(&mut state.is_held, true) {
            state.received_at = self.now;
            self.heartbeats.look_at(slot, self.now.wrapping_add(1));
        }
    }

    /// The client has taken this many bytes: its requests are read again if few replies wait. A pending ping gets its full
    /// timeout again.
    pub(super) fn release(&mut self, slot: Slot, taken: usize) {
        let holds_requests = self.output.holds_requests(slot);
        let state = &mut self.connections[slot].state;
        if taken > 0 {
            state.received_at = self.now;
        }
        if state.phase != Phase::Open || !holds_requests {
            state.is_held = false;
            state.ping_at = if state.is_pinged { self.now } else { state.ping_at };
            self.read_queue.push(slot);
        }
    }

    /// Handles the bytes of one read. Returns whether a flight of a TLS handshake was made.
    pub(super) fn take(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let connection = &mut self.connections[slot];
        if connection.aside.as_ref().is_some_and(|aside| aside.tls.is_some()) {
            return self.read_tls(slot, hub, buffer);
        }
        match connection.socket.read(buffer) {
            Ok(0) => self.end(slot, &CloseReason::ClientGone, hub),
            Ok(n) => {
                hub.counters.bytes_in += n as u64;
                connection.state.received_at = self.now;
                if n == buffer.len() || connection.state.is_eof_near {
                    connection.state.is_unread = true;
                    self.read_queue.push(slot);
                }
                self.received(slot, &mut buffer[..n], hub);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                connection.state.is_unread = true;
                self.read_queue.push(slot);
            }
            Err(_) => self.reset(slot, hub),
        }
        false
    }

    /// Bytes have arrived.
    pub(super) fn received(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let state = &self.connections[slot].state;
        if state.is_pinged && state.dialect.is_pusher() && state.phase == Phase::Open {
            // Any bytes from a Pusher client count as a pong, because some of these clients answer with no message.
            self.pong(slot);
        }
        match self.connections[slot].state.phase {
            Phase::Upgrading => return self.upgrade(slot, bytes, hub),
            Phase::Open | Phase::Closing { reads: true, .. } => self.frames(slot, bytes, hub),
            Phase::Echoing { .. } => self.echo(slot, bytes, hub),
            Phase::Answering { .. } | Phase::Closing { reads: false, .. } | Phase::Ended => return,
        }
        if RateLimits::are_on(&self.live.limits) {
            self.count_bytes(slot, bytes.len(), hub);
        }
    }
}

/// Replies of a connection that may wait for owners before the shard stops reading from it.
pub const WAITING_REPLIES_MAX: usize = 256;
/// Bytes read in one turn in full from connections that the poll reports.
const FULL_READS_BYTES_PER_TURN: u64 = READ_AGAIN_BYTES_PER_TURN;
/// Bytes read from each of the others, which is enough for most messages. A thousand connections that send as much as they can then
/// make a turn of about 20 ms, not of several hundred.
pub const SHORT_READ_BYTES: usize = 1024;
/// Bytes read in one turn from connections that send more than one read takes. 16 to 20 ms in the worst case: empty messages,
/// each answered with an error.
pub const READ_AGAIN_BYTES_PER_TURN: u64 = 4 * READ_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Shard;
    use crate::shard::output::UNREAD_REPLIES_MAX;
    use crate::shard::trial::House;
    use socket2::SockRef;
    use std::io::Write;
    use std::time::Duration;

    /// They hold thousands of requests each, which were read before, and take all of their replies at once.
    #[test]
    fn connections_that_go_on_share_the_budget_of_a_turn() {
        const CLIENTS: Slot = 120;
        let mut house = House::new(1, |_| ());
        let mut peers = house.connect(0, CLIENTS as usize);
        house.pass(Duration::from_secs(2));
        // Empty messages: the reply is 17 times as long.
        let requests = [0x81, 0x80, 0, 0, 0, 0].repeat(3_000);
        for (slot, peer) in (0..).zip(&mut peers) {
            let socket = &house.shards[0].clients.connections[slot].socket;
            SockRef::from(socket).set_send_buffer_size(4096).expect("a socket option");
            SockRef::from(&*peer).set_recv_buffer_size(4096).expect("a socket option");
            peer.write_all(&requests).expect("room");
        }
        house.rest();
        let Shard { clients, hub, buffer, .. } = &mut house.shards[0];
        let mut handled = 0;
        while (0..CLIENTS).any(|slot| clients.connections[slot].frames_len() > 0) {
            for slot in 0..CLIENTS {
                clients.output.clear(hub.pages_mut(), slot);
                if clients.connections[slot].state.is_held {
                    clients.release(slot, 1);
                }
            }
            let before = hub.counters.requests_refused;
            clients.read_rest(hub, buffer);
            let now = hub.counters.requests_refused - before;
            assert!(now * 6 <= READ_AGAIN_BYTES_PER_TURN + UNREAD_REPLIES_MAX as u64, "{now} requests in a turn");
            assert!(now > 0, "no request is handled");
            handled += now;
        }
        assert!(handled > u64::from(CLIENTS) * 1_000, "only {handled} requests waited");
    }
}
