//! The order in which connections are written to.
//!
//! Three lanes. Replies and small channels ("soon") do not wait for bulk. Neither of them waits for the replies to thousands of
//! connections that come back at once: those wait for each other.

use crate::hub::Urgency;
use crate::ids::Slot;
use std::collections::VecDeque;

/// Connections that wait for a write, in each lane first come, first served. A connection that waits in the lane "soon" and is
/// then sent bulk is in both lanes, and is written to from whichever comes first. Only bulk that is in its lane holds
/// publishers back.
#[derive(Default)]
pub struct WriteQueue {
    soon: VecDeque<Slot>,
    bulk: VecDeque<Slot>,
    /// Soon, for connections that were accepted a moment ago.
    newcomers: VecDeque<Slot>,
    taken: Progress,
    /// Which lane is served next: four turns of [`A_WRITE`] looks each.
    turn: u8,
}

/// How many connections were taken from the lanes "soon" and bulk since the shard began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Progress {
    pub soon: u64,
    pub bulk: u64,
}

impl Progress {
    /// The larger of both, lane by lane.
    #[must_use]
    pub fn max(self, other: Progress) -> Progress {
        Progress { soon: self.soon.max(other.soon), bulk: self.bulk.max(other.bulk) }
    }

    /// Whether it is at least as far as `other` in both lanes.
    pub fn has_passed(self, other: Progress) -> bool {
        self.soon >= other.soon && self.bulk >= other.bulk
    }
}

impl WriteQueue {
    /// Puts a connection behind the others of its lane.
    pub fn push(&mut self, slot: Slot, urgency: Urgency, is_newcomer: impl FnOnce() -> bool) {
        match urgency {
            // Newcomers too: only the bulk lane holds publishers back.
            Urgency::Bulk => self.bulk.push_back(slot),
            Urgency::Soon if is_newcomer() => self.newcomers.push_back(slot),
            Urgency::Soon => self.soon.push_back(slot),
        }
    }

    /// The next connection. Of each four writes at least two are bulk and one is for a newcomer, however much is soon. Bulk
    /// must go on, because neither mail nor publishers are taken while it is behind.
    pub fn pop(&mut self) -> Option<Slot> {
        let preferred = match self.turn / A_WRITE {
            0 | 2 => self.pop_bulk(),
            1 => self.newcomers.pop_front(),
            _ => None,
        };
        preferred.or_else(|| self.pop_soon()).or_else(|| self.newcomers.pop_front()).or_else(|| self.pop_bulk())
    }

    /// The popped connection was looked at. A write ends the lane's turn, however many system calls it took. A connection with
    /// nothing to write, or whose socket is full, costs its lane little, but not nothing, because there may be thousands.
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

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.soon.is_empty() && self.bulk.is_empty() && self.newcomers.is_empty()
    }

    /// Whether bulk waits.
    pub fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// How far it has come.
    pub fn taken(&self) -> Progress {
        self.taken
    }

    /// How far it will have come once all connections that wait now are taken, newcomers aside.
    pub fn end(&self) -> Progress {
        let Progress { soon, bulk } = self.taken;
        Progress { soon: soon + self.soon.len() as u64, bulk: bulk + self.bulk.len() as u64 }
    }
}

/// This many looks without a write take about as long as a write. A `u8` counts four of them.
const A_WRITE: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::output::LOOKS_PER_TURN;

    #[test]
    fn every_lane_has_its_share_and_soon_takes_what_others_leave() {
        let mut queue = WriteQueue::default();
        for n in 0..4 {
            queue.push(n, Urgency::Soon, || false);
            queue.push(10 + n, Urgency::Bulk, || n % 2 == 0);
            queue.push(20 + n, Urgency::Soon, || true);
        }
        let order: Vec<Slot> = std::iter::from_fn(|| queue.pop().inspect(|_| queue.looked(true))).collect();
        assert_eq!(order, [10, 20, 11, 0, 12, 21, 13, 1, 2, 22, 3, 23]);
        assert!(queue.is_empty());
    }

    /// Thousands of connections without a network do not delay what is published to others, turn by turn.
    #[test]
    fn blocked_connections_do_not_hold_up_what_is_soon() {
        const BLOCKED: Slot = 10_000;
        let mut queue = WriteQueue::default();
        (0..BLOCKED).for_each(|slot| queue.push(slot, Urgency::Bulk, || false));
        (BLOCKED..BLOCKED + 20).for_each(|slot| queue.push(slot, Urgency::Soon, || slot % 2 == 0));
        for _ in 0..LOOKS_PER_TURN {
            let slot = queue.pop().expect("connections wait");
            queue.looked(slot >= BLOCKED);
        }
        assert!(queue.soon.is_empty() && queue.newcomers.is_empty());
    }

    #[test]
    fn progress_is_compared_lane_by_lane() {
        let mut queue = WriteQueue::default();
        queue.push(1, Urgency::Bulk, || false);
        queue.push(2, Urgency::Soon, || false);
        queue.push(3, Urgency::Soon, || true);
        let end = queue.end();
        queue.push(4, Urgency::Soon, || false);
        queue.push(5, Urgency::Bulk, || false);
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
}
