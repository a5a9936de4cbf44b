//! Connections accepted within the last second. Each turn handles a few of their upgrades, TLS handshakes and first messages,
//! after all other connections. A burst of new connections delays only itself.

use super::Clients;
use crate::hub::Hub;
use crate::ids::Slot;
use crate::shard::READ_BYTES;
use crate::shard::connection::state::Phase;

impl Clients {
    /// Serves newcomers, up to the turn's budget, and writes to them at once.
    pub fn serve_newcomers(&mut self, hub: &mut Hub, buffer: &mut [u8]) {
        let (mut flights, mut reads) = (0, self.read_queue.newcomers());
        let bytes_end = hub.counters.bytes_in + NEWCOMERS_BYTES_PER_TURN;
        for _ in 0..NEWCOMERS_PER_TURN {
            let slot = if let Some(slot) = self.admission.judged.pop_front() {
                self.upgrade_judged(slot, hub);
                slot
            } else if reads > 0
                && flights < FLIGHTS_PER_TURN
                && hub.counters.bytes_in < bytes_end
                && let Some(slot) = self.read_queue.pop_newcomer()
            {
                reads -= 1;
                flights += usize::from(self.read_newcomer(slot, hub, buffer));
                slot
            } else {
                return;
            };
            self.write(slot, hub);
        }
    }

    /// Reads from a newcomer. Returns whether a flight of a TLS handshake was made, which is the expensive part.
    fn read_newcomer(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let Some(connection) = self.connections.get_mut(slot) else {
            return false;
        };
        if connection.has_requests() {
            // They come before what the socket holds.
            self.read_queue.push(slot);
            return false;
        }
        let state = &mut connection.state;
        let goes_on = std::mem::take(&mut state.is_unread) && state.phase != Phase::Ended;
        goes_on && self.take(slot, hub, buffer)
    }
}

/// Upgrades, steps of TLS handshakes, and reads of first messages in one turn: about 2 ms, as long as the writes of a turn may
/// take. A client that comes back needs two of them. Meanwhile messages pass that it must recover. Ten thousand clients took more
/// than a second to come back with 24 a turn, and half a second with 192. Other clients' messages were as late as with 48.
const NEWCOMERS_PER_TURN: usize = 192;
/// Bytes read from newcomers in one turn. With the read that exceeds it, 8 ms in the worst case: empty messages, each answered
/// with an error.
const NEWCOMERS_BYTES_PER_TURN: u64 = READ_BYTES as u64;
/// Flights of TLS handshakes among them. A full handshake was measured at 0.23 ms with an ECDSA key and at 1.1 ms with RSA-2048;
/// in TLS 1.3 it takes two flights.
const FLIGHTS_PER_TURN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::trial::House;
    use std::io::Write;

    #[test]
    fn newcomers_that_send_much_do_not_make_a_turn_long() {
        let mut house = House::new(1, |_| ());
        let mut clients = house.connect(0, 12);
        // Pongs, which need no reply.
        let much = [0x8a, 0x80, 0, 0, 0, 0].repeat(10_000);
        clients.iter_mut().for_each(|client| client.write_all(&much).expect("room"));
        let (mut bytes, mut turns) = (0, 0);
        while bytes < (clients.len() * much.len()) as u64 {
            let before = house.shards[0].hub.counters.bytes_in;
            house.turn(0);
            let read = house.shards[0].hub.counters.bytes_in - before;
            assert!(read < 2 * READ_BYTES as u64, "{read} bytes in a turn");
            (bytes, turns) = (bytes + read, turns + 1);
            assert!(turns < 100, "bytes are still unread after {turns} turns");
        }
    }
}
