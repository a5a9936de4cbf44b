//! Who waits to be written to.
//!
//! Three lanes, so that nobody waits for a crowd. What is soon (replies, small channels) does not wait for bulk, nor does either
//! for the replies to thousands who have come back at once: those wait for each other.

use crate::hub::Urgency;
use crate::hub::mail::Slot;
use std::collections::VecDeque;

/// Connections that the flush writes to, in each lane in the order in which they came. Whoever waits for what is soon and has bulk
/// besides is in both lanes, and written to in the one that comes first: bulk that nobody saw would hold no publisher back.
#[derive(Default)]
pub struct Queue {
    soon: VecDeque<Slot>,
    bulk: VecDeque<Slot>,
    /// What is soon for those who have only just come.
    newcomers: VecDeque<Slot>,
    taken: Place,
    /// Whose turn it is: four turns of [`A_WRITE`] looks each.
    turn: u8,
}

/// So many connections have been written to since the shard began, of two lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Place {
    pub soon: u64,
    pub bulk: u64,
}

impl Place {
    /// The further of both, in each lane.
    #[must_use]
    pub fn max(self, other: Place) -> Place {
        Place { soon: self.soon.max(other.soon), bulk: self.bulk.max(other.bulk) }
    }

    /// Whether everybody before `other` has been written to.
    pub fn has_passed(self, other: Place) -> bool {
        self.soon >= other.soon && self.bulk >= other.bulk
    }
}

impl Queue {
    /// Puts a connection behind the others of its lane.
    pub fn push(&mut self, slot: Slot, urgency: Urgency, is_newcomer: bool) {
        match urgency {
            // Whatever is bulk holds publishers back.
            Urgency::Bulk => self.bulk.push_back(slot),
            Urgency::Soon if is_newcomer => self.newcomers.push_back(slot),
            Urgency::Soon => self.soon.push_back(slot),
        }
    }

    /// The next. Of each four that are written to at least two are bulk's and one the newcomers', however much is soon: neither mail
    /// nor publishers are taken while bulk is behind.
    pub fn pop(&mut self) -> Option<Slot> {
        let preferred = match self.turn / A_WRITE {
            0 | 2 => self.pop_bulk(),
            1 => self.newcomers.pop_front(),
            _ => None,
        };
        preferred.or_else(|| self.pop_soon()).or_else(|| self.newcomers.pop_front()).or_else(|| self.pop_bulk())
    }

    /// Whoever was popped has been looked at. Where they were written to a turn is over, however many system calls it took. Who
    /// has nothing to write, or takes nothing, costs its lane little: but thousands of them would otherwise be one turn.
    pub fn looked(&mut self, was_written_to: bool) {
        self.turn = self.turn.wrapping_add(if was_written_to { A_WRITE } else { 1 });
    }

    fn pop_soon(&mut self) -> Option<Slot> {
        let slot = self.soon.pop_front()?;
        self.taken.soon += 1;
        Some(slot)
    }

    fn pop_bulk(&mut self) -> Option<Slot> {
        let slot = self.bulk.pop_front()?;
        self.taken.bulk += 1;
        Some(slot)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.soon.is_empty() && self.bulk.is_empty() && self.newcomers.is_empty()
    }

    /// Whether bulk waits.
    pub fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// How far it has come.
    pub fn taken(&self) -> Place {
        self.taken
    }

    /// Behind everybody who waits now, newcomers aside.
    pub fn end(&self) -> Place {
        let Place { soon, bulk } = self.taken;
        Place { soon: soon + self.soon.len() as u64, bulk: bulk + self.bulk.len() as u64 }
    }
}

/// As many looks in vain take about as long as a write. Four of them are all that a `u8` counts.
const A_WRITE: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Port;
    use crate::shard::Shard;
    use crate::shard::clients::LOOKS_PER_TURN;
    use crate::shard::trial::House;
    use socket2::SockRef;

    #[test]
    fn every_lane_has_its_share_and_what_is_soon_takes_what_others_leave() {
        let mut queue = Queue::default();
        for n in 0..4 {
            queue.push(n, Urgency::Soon, false);
            queue.push(10 + n, Urgency::Bulk, n % 2 == 0);
            queue.push(20 + n, Urgency::Soon, true);
        }
        let order: Vec<Slot> = std::iter::from_fn(|| queue.pop().inspect(|_| queue.looked(true))).collect();
        assert_eq!(order, [10, 20, 11, 0, 12, 21, 13, 1, 2, 22, 3, 23]);
        assert!(queue.is_empty());
    }

    /// Thousands whose network is gone hear what is published all the same, turn by turn.
    #[test]
    fn who_takes_nothing_does_not_hold_up_what_is_soon() {
        const BLOCKED: Slot = 10_000;
        let mut queue = Queue::default();
        (0..BLOCKED).for_each(|slot| queue.push(slot, Urgency::Bulk, false));
        (BLOCKED..BLOCKED + 20).for_each(|slot| queue.push(slot, Urgency::Soon, slot % 2 == 0));
        for _ in 0..LOOKS_PER_TURN {
            let slot = queue.pop().expect("somebody waits");
            queue.looked(slot >= BLOCKED);
        }
        assert!(queue.soon.is_empty() && queue.newcomers.is_empty());
    }

    #[test]
    fn places_are_passed_lane_by_lane() {
        let mut queue = Queue::default();
        queue.push(1, Urgency::Bulk, false);
        queue.push(2, Urgency::Soon, false);
        queue.push(3, Urgency::Soon, true);
        let end = queue.end();
        queue.push(4, Urgency::Soon, false);
        queue.push(5, Urgency::Bulk, false);
        queue.turn = 3 * A_WRITE;
        assert_eq!((queue.pop(), queue.taken().has_passed(end)), (Some(2), false));
        queue.looked(true);
        assert_eq!((queue.pop(), queue.taken().has_passed(end)), (Some(1), true));
        assert!(queue.has_bulk());
        assert_eq!(queue.pop(), Some(5));
        assert!(!queue.has_bulk() && !queue.is_empty());
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(4), Some(3), None));
        assert_eq!(queue.taken(), queue.end());
    }

    /// Thousands have only just come and wait for what they are answered, and somebody publishes to all of them. Whatever is not
    /// seen to be behind holds no publisher back.
    #[test]
    fn bulk_is_behind_also_for_those_who_wait_for_a_reply() {
        let mut house = House::new(1, |_| ());
        let peers = house.connect(0, 600);
        let Shard { clients, hub, .. } = &mut house.shards[0];
        for urgency in [Urgency::Soon, Urgency::Bulk] {
            let page = hub.pages.open();
            let chunk = hub.pages.append(page, |out| out.extend_from_slice(&[0; 100]));
            (0..peers.len()).for_each(|slot| clients.lay(&mut hub.pages, slot as Slot, chunk, urgency));
            hub.pages.release(page);
        }
        let mut flushes = 0;
        while clients.connections.iter().any(|(_, connection)| !connection.outbox.is_empty()) {
            assert!(clients.is_behind());
            clients.flush(hub);
            flushes += 1;
        }
        assert_eq!((flushes, hub.counters.writes_blocked), (3, 0));
        clients.flush(hub);
        assert!(clients.queue.is_empty());
    }

    /// As where a record of TLS is not enough, or more waits than a call can gather.
    #[test]
    fn lanes_have_their_share_also_where_a_write_is_several_system_calls() {
        const SOON: usize = 20;
        let mut house = House::new(1, |_| ());
        let peers = house.connect(0, 140 + SOON);
        let Shard { clients, hub, .. } = &mut house.shards[0];
        hub.counters.writes = 0;
        for slot in 0..peers.len() {
            SockRef::from(&clients.connections[slot].socket).set_send_buffer_size(1 << 20).expect("a socket option");
            let urgency = if slot < SOON { Urgency::Soon } else { Urgency::Bulk };
            let pages = [hub.pages.open(), hub.pages.open()];
            // By turns, so that no chunk goes on where the one before ends: two calls for all of them.
            for page in pages.into_iter().cycle().take(66) {
                let chunk = hub.pages.append(page, |out| out.extend_from_slice(&[0; 260]));
                clients.lay(&mut hub.pages, slot as Slot, chunk, urgency);
            }
            pages.into_iter().for_each(|page| hub.pages.release(page));
        }
        clients.flush(hub);
        let is_written = |slot: &usize| clients.connections[*slot].queued.is_none();
        let (soon, bulk) = ((0..SOON).filter(is_written).count(), (SOON..peers.len()).filter(is_written).count());
        assert_eq!((hub.counters.writes as usize, hub.counters.writes_blocked), (2 * (soon + bulk), 0));
        assert!(soon == SOON && bulk > 60, "{soon} that are soon and {bulk} of bulk");
    }
}
