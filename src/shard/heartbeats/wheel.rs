//! The timer wheel: one entry per connection, hashed by tick.
//!
//! An entry says "check this connection by that tick". It may fire early, because the wheel has one turn of 1 024 ticks. The
//! handler computes the true deadline and arms again for what remains. So reading a frame costs the wheel nothing.

use crate::ids::SLOTS_RESERVED;

/// Milliseconds of a tick: how late a heartbeat can be.
pub const TICK_MS: u64 = 100;
/// Milliseconds in ticks, rounded up.
pub fn ticks(ms: u64) -> u32 {
    ms.div_ceil(TICK_MS).min(u64::from(u32::MAX / 4)) as u32
}

/// Ticks of one turn of the wheel.
const BUCKETS: u32 = 1024;

/// Doubly linked lists through two arrays, indexed by connection slot: 8 bytes per connection.
pub struct Wheel {
    heads: Box<[u32]>,
    /// Buckets that may hold an entry, one bit each.
    occupied: [u64; BUCKETS as usize / 64],
    links: Vec<Link>,
    /// The last tick that has been handled.
    hand: u32,
}

#[derive(Clone, Copy)]
struct Link {
    next: u32,
    /// The entry before, or [`FIRST`] plus the bucket, or [`NONE`] for an entry that is not armed.
    previous: u32,
}

/// Heap bytes for a connection.
pub const ENTRY_BYTES: usize = size_of::<Link>();
const NONE: u32 = u32::MAX;
const FIRST: u32 = 1 << 31;

impl Wheel {
    /// An empty wheel whose hand stands at `now`.
    pub fn new(now: u32) -> Wheel {
        Wheel {
            heads: vec![NONE; BUCKETS as usize].into(),
            occupied: [0; BUCKETS as usize / 64],
            links: Vec::with_capacity(SLOTS_RESERVED),
            hand: now,
        }
    }

    /// Arms `key` for tick `at`, in place of what it was armed for. Ticks that are past fire at the next one; ticks too far
    /// away fire early.
    pub fn arm(&mut self, key: u32, at: u32) {
        self.cancel(key);
        let ahead = at.wrapping_sub(self.hand) as i32;
        let bucket = self.hand.wrapping_add(ahead.clamp(1, BUCKETS as i32 - 1) as u32) % BUCKETS;
        if key as usize >= self.links.len() {
            self.links.resize(key as usize + 1, Link { next: NONE, previous: NONE });
        }
        let next = std::mem::replace(&mut self.heads[bucket as usize], key);
        self.links[key as usize] = Link { next, previous: FIRST + bucket };
        if next != NONE {
            self.links[next as usize].previous = key;
        }
        self.occupied[bucket as usize / 64] |= 1 << (bucket % 64);
    }

    /// Takes `key` off the wheel, if it is on it.
    pub fn cancel(&mut self, key: u32) {
        let Some(link) = self.links.get_mut(key as usize) else {
            return;
        };
        let Link { next, previous } = std::mem::replace(link, Link { next: NONE, previous: NONE });
        match previous {
            NONE => return,
            FIRST.. => self.heads[(previous - FIRST) as usize] = next,
            _ => self.links[previous as usize].next = next,
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
    }

    /// Takes one entry that is due at `now` off the wheel and moves the hand on. `None`: nothing is due.
    pub fn expire(&mut self, now: u32) -> Option<u32> {
        loop {
            let bucket = self.hand % BUCKETS;
            let key = self.heads[bucket as usize];
            if key != NONE {
                self.cancel(key);
                return Some(key);
            }
            self.occupied[bucket as usize / 64] &= !(1 << (bucket % 64));
            let behind = now.wrapping_sub(self.hand) as i32;
            if behind <= 0 {
                return None;
            }
            self.hand = self.hand.wrapping_add(self.next_ahead().min(behind as u32));
        }
    }

    /// Ticks from `now` until something may be due; `None`: the wheel is empty.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        if self.heads[(self.hand % BUCKETS) as usize] != NONE {
            return Some(0);
        }
        let ahead = self.next_ahead();
        let behind = now.wrapping_sub(self.hand) as i32;
        (ahead < BUCKETS).then(|| (ahead as i32 - behind).max(0) as u32)
    }

    /// Ticks from the hand to the next bucket that may hold an entry; [`BUCKETS`] where none does.
    fn next_ahead(&self) -> u32 {
        let mut ahead = 1;
        while ahead < BUCKETS {
            let bucket = self.hand.wrapping_add(ahead) % BUCKETS;
            let rest = self.occupied[bucket as usize / 64] >> (bucket % 64);
            if rest != 0 {
                return (ahead + rest.trailing_zeros()).min(BUCKETS);
            }
            ahead += 64 - bucket % 64;
        }
        BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new(0);
        wheel.arm(7, 30);
        assert_eq!(wheel.due_in(0), Some(30));
        assert_eq!(wheel.expire(29), None);
        assert_eq!(wheel.due_in(29), Some(1));
        assert_eq!(wheel.expire(30), Some(7));
        assert_eq!(wheel.expire(30), None);
        assert_eq!(wheel.due_in(30), None);
    }

    #[test]
    fn survives_the_wrap_of_the_tick_counter() {
        let mut wheel = Wheel::new(u32::MAX - 3);
        wheel.arm(1, 5);
        assert_eq!(wheel.expire(4), None);
        assert_eq!(wheel.expire(5), Some(1));
    }

    proptest! {
        /// Against a map from key to tick: nothing fires before its tick (unless that is beyond the wheel), everything
        /// fires once its tick has come, and `due_in` never sleeps past it.
        #[test]
        fn behaves_as_a_map(start: u32, steps in prop::collection::vec((0u32..20, 0u32..3000, 0u32..40, 0u8..4), 1..200)) {
            let mut wheel = Wheel::new(start);
            let mut model = BTreeMap::new();
            let mut now = 0u32;
            for (key, ahead, advance, what) in steps {
                match what {
                    0 => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    1 | 2 => {
                        wheel.arm(key, start.wrapping_add(now + ahead));
                        model.insert(key, (now + ahead.clamp(1, BUCKETS - 1), now + ahead));
                    }
                    _ => now += advance,
                }
                if let Some(&(earliest, _)) = model.values().min() {
                    let due = wheel.due_in(start.wrapping_add(now));
                    prop_assert!(due.is_some_and(|due| due <= earliest.saturating_sub(now)), "due {due:?}, earliest {earliest}, now {now}");
                }
                while let Some(key) = wheel.expire(start.wrapping_add(now)) {
                    let (at, _) = model.remove(&key).expect("armed");
                    prop_assert!(at <= now);
                }
                prop_assert!(model.values().all(|&(at, _)| at > now));
            }
        }
    }
}
