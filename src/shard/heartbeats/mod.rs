//! The timers of connections: when a check is due, and what it finds due, a ping or a close.
//!
//! The wheel holds one entry for each connection. What an entry means is decided here, from the connection's state alone.

pub mod authorization;
pub mod clock;
pub mod coverage;
pub mod max_age;
pub mod wheel;

use crate::config::Limits;
use crate::ids::Slot;
use crate::shard::connection::state::ConnectionState;
use wheel::{Wheel, ticks};

/// The timers of a shard's connections.
pub struct Heartbeats {
    wheel: Wheel,
    earlier: Option<EarlierSilence>,
}

/// A client pings as often as it was told when it connected, so a shorter interval must not apply to it. This is one promise
/// for all connections accepted before the last change, so that none has to store its own.
struct EarlierSilence {
    /// Of connections accepted before this tick.
    until: u32,
    /// The longest silence that any of them was told is allowed.
    silence_s: u32,
}

/// What an open connection is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// The server's ping.
    Ping,
    /// A close: its pong did not come in time.
    PongTimeout,
    /// A close: nothing arrived in time.
    Silent {
        /// The seconds without input.
        timeout_s: u32,
    },
}

impl Default for Heartbeats {
    fn default() -> Heartbeats {
        Heartbeats { wheel: Wheel::new(0), earlier: None }
    }
}

/// The wheel.
impl Heartbeats {
    /// Arms the timer of a connection for tick `at` at the latest.
    pub fn look_at(&mut self, slot: Slot, at: u32) {
        self.wheel.arm(slot, at);
    }

    /// The connection has ended.
    pub fn forget(&mut self, slot: Slot) {
        self.wheel.cancel(slot);
    }

    /// The next connection whose timer is due by tick `until`.
    pub fn expire(&mut self, until: u32) -> Option<Slot> {
        self.wheel.expire(until)
    }

    /// Ticks until the next check of a connection may be due.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        self.wheel.due_in(now)
    }
}

/// What is due.
impl Heartbeats {
    /// `limits` are about to replace `present`.
    pub fn remember(&mut self, present: &Limits, limits: &Limits, now: u32) {
        let present_s = silence_s(present);
        if silence_s(limits) != present_s {
            let silence_s = self.earlier.as_ref().map_or(0, |earlier| earlier.silence_s).max(present_s);
            self.earlier = Some(EarlierSilence { until: now.wrapping_add(1), silence_s });
        }
    }

    /// Seconds of silence after which a connection counts as dead: not fewer than it was told.
    pub fn silence_s(&self, state: &ConnectionState, limits: &Limits) -> u32 {
        let silence_s = silence_s(limits);
        match &self.earlier {
            Some(earlier) if (state.accepted_at.wrapping_sub(earlier.until) as i32) < 0 => {
                silence_s.max(earlier.silence_s)
            }
            _ => silence_s,
        }
    }

    /// The tick at which a connection has been silent for too long.
    pub fn silent_at(&self, state: &ConnectionState, limits: &Limits) -> u32 {
        state.received_at.wrapping_add(ticks(u64::from(self.silence_s(state, limits)) * 1000))
    }

    /// The tick at which an open connection must be checked.
    pub fn deadline(&self, state: &ConnectionState, limits: &Limits) -> u32 {
        let silent_at = self.silent_at(state, limits);
        if state.is_pinged {
            state.ping_at.wrapping_add(ticks(u64::from(limits.heart_timeout_s) * 1000))
        } else if is_pinging(state, limits) && (silent_at.wrapping_sub(state.ping_at) as i32) > 0 {
            state.ping_at
        } else {
            silent_at
        }
    }

    /// What an open connection is due for at tick `until`, up to which all that had arrived was read.
    pub fn due(&self, state: &ConnectionState, limits: &Limits, until: u32) -> Due {
        let has_come = |at: u32| until.wrapping_sub(at) as i32 >= 0;
        if !has_come(self.deadline(state, limits)) {
            Due::Nothing
        } else if state.is_pinged {
            Due::PongTimeout
        } else if is_pinging(state, limits) && has_come(state.ping_at) {
            // Even if it was silent for too long: the server pings first.
            Due::Ping
        } else {
            Due::Silent { timeout_s: self.silence_s(state, limits) }
        }
    }
}

/// Whether the server pings the connection. Pusher's clients are not told how long they may be silent.
fn is_pinging(state: &ConnectionState, limits: &Limits) -> bool {
    limits.server_ping || state.dialect.is_pusher()
}

fn silence_s(limits: &Limits) -> u32 {
    limits.heart_interval_s + limits.heart_timeout_s
}

#[cfg(test)]
mod tests {
    use crate::shard::trial::House;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    const PING: &[u8] = b"\x81\x17{\"event\":\"socket:ping\"}";
    const PONG: &[u8] = b"\x81\x97\0\0\0\0{\"event\":\"socket:pong\"}";

    fn house(server_ping: bool) -> (House, Vec<TcpStream>) {
        let mut house = House::new(1, |live| live.limits.server_ping = server_ping);
        let clients = house.connect(0, 30);
        house.pass(Duration::from_secs(2));
        house.rest();
        (house, clients)
    }

    /// Timers are handled in the turn after the one that has polled.
    fn settle(house: &mut House) {
        (0..2).for_each(|_| _ = house.turn(0));
        house.rest();
    }

    fn open(house: &House) -> usize {
        house.shards[0].clients.count_open()
    }

    /// How many of the clients have been pinged.
    fn pinged(clients: &mut [TcpStream]) -> usize {
        let is_pinged = |client: &mut TcpStream| {
            let mut bytes = vec![0; 4096];
            client.set_nonblocking(true).expect("a socket option");
            let len = client.read(&mut bytes).unwrap_or(0);
            bytes[..len].windows(PING.len()).any(|part| part == PING)
        };
        clients.iter_mut().map(is_pinged).filter(|is_pinged| *is_pinged).count()
    }

    #[test]
    fn an_hour_in_which_the_server_stood_still_is_not_held_against_clients() {
        for server_ping in [true, false] {
            let (mut house, mut clients) = house(server_ping);
            assert_eq!(pinged(&mut clients), 0);
            house.stall(Duration::from_secs(3600));
            settle(&mut house);
            assert_eq!((open(&house), pinged(&mut clients)), (30, 0), "server_ping: {server_ping}");
            // They are pinged, and have their full time to answer.
            house.pass(Duration::from_secs(30));
            settle(&mut house);
            assert_eq!((open(&house), pinged(&mut clients)), (30, if server_ping { 30 } else { 0 }));
            clients[7..].iter_mut().for_each(|client| client.write_all(PONG).expect("room"));
            settle(&mut house);
            house.pass(Duration::from_secs(26));
            settle(&mut house);
            assert_eq!(open(&house), 23, "those that were silent are closed");
        }
    }

    #[test]
    fn a_ping_that_is_due_is_sent_and_waited_for_before_silence_counts() {
        let (mut house, mut clients) = house(true);
        house.pass(Duration::from_secs(3600));
        settle(&mut house);
        assert_eq!((open(&house), pinged(&mut clients)), (30, 30));
        clients.iter_mut().for_each(|client| client.write_all(PONG).expect("room"));
        settle(&mut house);
        assert_eq!(open(&house), 30);
    }
}
