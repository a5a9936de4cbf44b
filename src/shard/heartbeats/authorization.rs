//! The time within which a connection must be authorized: the deadlines of connections that are not known to be yet. Without
//! such a limit, connections have no deadline.

use super::wheel::ticks;
use crate::ids::Slot;
use ahash::RandomState;
use std::collections::HashMap;

/// The ticks by which connections must be authorized.
#[derive(Default)]
pub struct Authorization {
    deadlines: HashMap<Slot, u32, RandomState>,
}

impl Authorization {
    /// A connection opens at tick `now`, and must be authorized within `within_s` seconds; 0: without a limit.
    pub fn open(&mut self, slot: Slot, within_s: u32, now: u32) {
        if within_s > 0 {
            self.deadlines.insert(slot, now.wrapping_add(ticks(u64::from(within_s) * 1000)));
        }
    }

    /// The connection's deadline, if it has one.
    #[inline]
    pub fn deadline(&self, slot: Slot) -> Option<u32> {
        if self.deadlines.is_empty() { None } else { self.deadlines.get(&slot).copied() }
    }

    /// The connection is authorized, or has ended.
    #[inline]
    pub fn forget(&mut self, slot: Slot) {
        if !self.deadlines.is_empty() {
            self.deadlines.remove(&slot);
        }
    }

    /// The option was turned off: removes all deadlines.
    pub fn lift(&mut self) {
        self.deadlines = HashMap::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::CloseReason;
    use crate::shard::trial::House;
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;

    const KEY: &str = "key";

    /// A shard that gives Pusher's clients five seconds.
    fn house() -> House {
        House::new(1, |live| {
            live.keys = vec![crate::config::Key { id: KEY.into(), secret: "secret".into() }];
            live.limits.pusher_authorize_within_s = 5;
        })
    }

    fn connect(house: &mut House, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(house.addresses[0]).expect("the shard listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        client.write_all(request.as_bytes()).expect("room for a request");
        house.rest();
        client
    }

    fn pass(house: &mut House, ms: u64) {
        house.pass(Duration::from_millis(ms));
        (0..2).for_each(|_| _ = house.turn(0));
        house.rest();
    }

    fn closed(house: &House) -> u64 {
        house.shards[0].clients.closes()[CloseReason::NotAuthorized.kind()]
    }

    #[test]
    fn a_connection_that_stays_anonymous_is_closed_in_time() {
        let mut house = house();
        let _clients = [connect(&mut house, "/app/key"), connect(&mut house, "/app/key"), connect(&mut house, "/")];
        pass(&mut house, 4800);
        assert_eq!(closed(&house), 0);
        pass(&mut house, 400);
        assert_eq!((closed(&house), house.shards[0].clients.count_open()), (2, 1), "the native client stays");
        let _late = connect(&mut house, "/app/key");
        house.apply(|live| live.limits.pusher_authorize_within_s = 0);
        house.rest();
        pass(&mut house, 6000);
        assert_eq!(closed(&house), 2, "the limit was lifted");
    }

    #[test]
    fn time_in_which_the_server_stood_still_does_not_count() {
        let mut house = house();
        let _client = connect(&mut house, "/app/key");
        house.stall(Duration::from_secs(3600));
        (0..2).for_each(|_| _ = house.turn(0));
        house.rest();
        assert_eq!(closed(&house), 0);
        pass(&mut house, 5200);
        assert_eq!(closed(&house), 1);
    }

    #[test]
    fn a_deadline_ends_with_its_connection() {
        let mut authorization = Authorization::default();
        authorization.open(7, 0, 10);
        assert_eq!(authorization.deadline(7), None);
        authorization.open(7, 2, u32::MAX);
        assert_eq!((authorization.deadline(7), authorization.deadline(8)), (Some(19), None));
        authorization.forget(7);
        assert_eq!(authorization.deadline(7), None);
    }
}
