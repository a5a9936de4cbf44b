//! Connections with TLS: their beginning, and reading. `newcomers.rs` decides when a handshake continues.

use super::Clients;
use crate::hub::Hub;
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::connection::state::Phase;
use crate::shard::connection::{Aside, Connection};
use crate::shard::tls::{Arrival, Progress, Session};
use std::io::ErrorKind;

impl Clients {
    /// Begins a session on a connection that was just accepted.
    pub(super) fn begin_tls(&mut self, slot: Slot, hub: &mut Hub) {
        let Some(certificate) = self.certificate() else { return };
        match Session::new(&certificate.server) {
            Ok(session) => {
                let aside = Aside { tls: Some(Box::new(session)), ..Aside::default() };
                self.connections[slot].aside = Some(Box::new(aside));
            }
            // Rare: the configuration works for other connections. Never falls back to plain text.
            Err(error) => {
                tracing::error!(shard = self.me, slot, %error, "cannot begin a TLS session");
                self.begin_end(slot, &CloseReason::TlsFailed, hub);
                self.finish(slot, hub);
            }
        }
    }

    /// One read of a connection that speaks TLS. Returns whether a flight of its handshake was made, which is the expensive
    /// part.
    pub(super) fn read_tls(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let mut plain = std::mem::take(&mut self.decrypted);
        plain.clear();
        let made_flight = self.decrypt(slot, hub, buffer, &mut plain);
        self.decrypted = plain;
        made_flight
    }

    fn decrypt(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8], plain: &mut Vec<u8>) -> bool {
        let connection = &mut self.connections[slot];
        let Some(tls) = Connection::tls(&mut connection.aside) else {
            return false;
        };
        let (was_handshaking, unsent) = (tls.is_handshaking(), tls.unsent());
        let is_eof_near = connection.state.is_eof_near;
        let Arrival { bytes, is_full, progress } = match tls.read(&mut connection.socket, buffer, plain) {
            Ok(arrival) => arrival,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.read_later(slot);
                return false;
            }
            Err(_) => {
                self.reset(slot, hub);
                return false;
            }
        };
        if bytes == 0 {
            self.end(slot, &CloseReason::ClientGone, hub);
            return false;
        }
        let has_output = tls.unsent() > unsent;
        if was_handshaking && tls.is_established() {
            hub.counters.tls_handshakes += 1;
            hub.counters.tls_handshakes_resumed += u64::from(tls.is_resumed());
        }
        hub.counters.bytes_in += plain.len() as u64;
        connection.state.received_at = self.now;
        if has_output {
            self.mark(slot);
        }
        if is_full || is_eof_near {
            self.read_later(slot);
        }
        if !plain.is_empty() {
            self.received(slot, plain, hub);
        }
        match progress {
            Progress::Going => {}
            Progress::Ended => self.end(slot, &CloseReason::ClientGone, hub),
            Progress::Failed(why) => self.fail_tls(slot, was_handshaking, &why, hub),
        }
        was_handshaking && has_output
    }

    /// The socket may have more, and the poll will not report it again.
    fn read_later(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.state.is_unread = true;
        match Connection::tls(&mut connection.aside) {
            Some(tls) if tls.is_handshaking() => self.read_queue.push_newcomer(slot),
            _ => self.read_queue.push(slot),
        }
    }

    /// The session failed. Only the alert that says why can still be sent.
    fn fail_tls(&mut self, slot: Slot, was_handshaking: bool, why: &str, hub: &mut Hub) {
        hub.counters.tls_handshakes_failed += u64::from(was_handshaking);
        let (address, source) = self.origin(slot);
        tracing::debug!(shard = self.me, slot, address, source, was_handshaking, why, "TLS failed");
        self.close(slot, CloseReason::TlsFailed, hub);
        if self.connections.phase(slot) != Some(Phase::Ended) {
            hub.counters.outbox_bytes_dropped += self.output.clear(hub.pages_mut(), slot) as u64;
            self.stop_reading(slot);
            self.mark(slot);
        }
    }
}
