//! Who waits to be written to.
//!
//! Three lanes, so that nobody waits for a crowd. What is soon (replies, small channels) does not wait for bulk, nor does either
//! for the replies to thousands who have come back at once: those wait for each other.

use crate::hub::Urgency;
use crate::hub::mail::Slot;
use std::collections::VecDeque;

/// Connections that the flush writes to, each once; in each lane in the order in which they came.
#[derive(Default)]
pub struct Queue {
    soon: VecDeque<Slot>,
    bulk: VecDeque<Slot>,
    /// What is soon for those who have only just come.
    newcomers: VecDeque<Slot>,
    taken: Place,
}

/// So many connections have been written to since the shard began, of two lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Place {
    pub soon: u64,
    pub bulk: u64,
}

impl Place {
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

    /// The next. `write`: its number. Of each four at least two are bulk's and one the newcomers', however much is soon: neither mail
    /// nor publishers are taken while bulk is behind.
    pub fn pop(&mut self, write: u64) -> Option<Slot> {
        let preferred = match write % 4 {
            0 | 2 => self.pop_bulk(),
            1 => self.newcomers.pop_front(),
            _ => None,
        };
        preferred.or_else(|| self.pop_soon()).or_else(|| self.newcomers.pop_front()).or_else(|| self.pop_bulk())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_share_and_what_is_soon_takes_what_others_leave() {
        let mut queue = Queue::default();
        for n in 0..4 {
            queue.push(n, Urgency::Soon, false);
            queue.push(10 + n, Urgency::Bulk, n % 2 == 0);
            queue.push(20 + n, Urgency::Soon, true);
        }
        let order: Vec<Slot> = (0..).map_while(|write| queue.pop(write)).collect();
        assert_eq!(order, [10, 20, 11, 0, 12, 21, 13, 1, 2, 22, 3, 23]);
        assert!(queue.is_empty());
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
        assert_eq!((queue.pop(3), queue.taken().has_passed(end)), (Some(2), false));
        assert_eq!((queue.pop(0), queue.taken().has_passed(end)), (Some(1), true));
        assert!(queue.has_bulk());
        assert_eq!(queue.pop(0), Some(5));
        assert!(!queue.has_bulk() && !queue.is_empty());
        assert_eq!((queue.pop(0), queue.pop(0), queue.pop(0)), (Some(4), Some(3), None));
        assert_eq!(queue.taken(), queue.end());
    }
}
