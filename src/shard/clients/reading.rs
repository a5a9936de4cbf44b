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
    /// Reads again what earlier turns left in sockets, and the connections that were held, up to the turn's budget.
    pub fn read_rest(&mut self, hub: &mut Hub, buffer: &mut [u8]) {
        self.read_queue.release_held();
        let bytes_end = hub.counters.bytes_in + READ_AGAIN_BYTES_PER_TURN;
        for _ in 0..self.read_queue.len() {
            if hub.counters.bytes_in >= bytes_end || self.outboxes_exceed(hub) {
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
            return self.frames(slot, &mut frames, hub);
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
/// Bytes read in one turn from connections that send more than one read takes. 16 to 20 ms in the worst case: empty messages,
/// each answered with an error.
pub const READ_AGAIN_BYTES_PER_TURN: u64 = 4 * READ_BYTES as u64;
