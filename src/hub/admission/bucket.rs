//! Token buckets: a rate per second, with a burst of [`BURST_S`] seconds' worth.

/// How fast a bucket fills, and how much it holds. All buckets of one limit have the same rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    per_second: i64,
    burst: i64,
}

impl Rate {
    /// `per_second` tokens a second, and as many at once.
    pub fn without_burst(per_second: u32) -> Rate {
        Rate { per_second: i64::from(per_second), burst: i64::from(per_second) }
    }

    /// `per_second` tokens a second. The burst is [`BURST_S`] seconds' worth, but at least `burst_min`.
    pub fn new(per_second: u32, burst_min: usize) -> Rate {
        let per_second = i64::from(per_second);
        Rate { per_second, burst: (per_second * i64::from(BURST_S)).max(burst_min as i64) }
    }
}

/// One token bucket. It starts full.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// The content in parts of a token. A rate of one token a second adds one part per tick. Below zero: overdrawn.
    parts: i64,
    /// Tick at which `parts` was computed.
    at: u32,
}

/// The state of a bucket after tokens were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It held enough tokens.
    Enough,
    /// It did not hold enough, and is overdrawn.
    Overdrawn,
    /// It is overdrawn by a whole burst, the most possible.
    Exhausted,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: u32) -> Bucket {
        Bucket { parts: rate.burst * PARTS, at: now }
    }

    /// Takes tokens, and overdraws the bucket if there are not enough.
    pub fn take(&mut self, tokens: u32, rate: Rate, now: u32) -> Left {
        self.fill(rate, now);
        let floor = -rate.burst * PARTS;
        self.parts = (self.parts - i64::from(tokens) * PARTS).max(floor);
        match self.parts {
            0.. => Left::Enough,
            parts if parts > floor => Left::Overdrawn,
            _ => Left::Exhausted,
        }
    }

    /// Takes a token if there is one. Returns whether there was.
    pub fn take_one(&mut self, rate: Rate, now: u32) -> bool {
        self.fill(rate, now);
        let has_one = self.parts >= PARTS;
        self.parts -= if has_one { PARTS } else { 0 };
        has_one
    }

    /// Whether a bucket that cannot be overdrawn is certainly full, because it was last used long enough ago.
    pub fn is_full(&self, now: u32) -> bool {
        ticks_between(self.at, now) >= FILL_TICKS
    }

    fn fill(&mut self, rate: Rate, now: u32) {
        let ticks = i64::from(ticks_between(self.at, now));
        self.parts = (self.parts + ticks * rate.per_second).min(rate.burst * PARTS);
        self.at = self.at.wrapping_add(ticks as u32);
    }
}

/// A token bucket in six bytes, for a limit that every connection has. It cannot be overdrawn.
///
/// It holds the time at which it is full again, in parts of a tick. All arithmetic wraps, as ticks do.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmallBucket([u8; 6]);

impl SmallBucket {
    /// A full bucket.
    pub fn full(now: u32) -> SmallBucket {
        SmallBucket::full_at(i64::from(now) * TICK_PARTS)
    }

    /// Takes a token if there is one. Returns whether there was. The rate is not 0.
    pub fn take_one(&mut self, rate: Rate, now: u32) -> bool {
        let token = i64::from(TICKS_PER_S) * TICK_PARTS / rate.per_second;
        let now = i64::from(now) * TICK_PARTS;
        let [a, b, c, d, e, f] = self.0;
        let full_at = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        // The shifts extend the sign of the 48 bits.
        let missing = ((full_at.wrapping_sub(now) << 16) >> 16).max(0) + token;
        let has_one = missing <= rate.burst * token;
        if has_one {
            *self = SmallBucket::full_at(now + missing);
        }
        has_one
    }

    fn full_at(parts: i64) -> SmallBucket {
        let [a, b, c, d, e, f, ..] = parts.to_le_bytes();
        SmallBucket([a, b, c, d, e, f])
    }
}

/// Ticks from `earlier` to `later`; 0 if `later` is before `earlier`, because the clocks of two shards can differ by a turn.
pub fn ticks_between(earlier: u32, later: u32) -> u32 {
    (later.wrapping_sub(earlier) as i32).max(0) as u32
}

/// The burst, in seconds' worth of the rate.
pub const BURST_S: u32 = 10;
/// Ticks per second (see `TICK_MS`).
pub const TICKS_PER_S: u32 = 10;
/// Ticks in which an empty bucket fills up.
pub const FILL_TICKS: u32 = BURST_S * TICKS_PER_S;
const PARTS: i64 = TICKS_PER_S as i64;
/// Parts of a tick in which a [`SmallBucket`] counts: 65 to 655 360 for a token, at 10 000 to one a second.
const TICK_PARTS: i64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// At rates whose tokens are whole parts, both kinds of buckets judge alike.
        #[test]
        fn a_small_bucket_behaves_as_a_bucket(
            (per_second, burst_min) in (prop::sample::select(vec![1, 2, 5, 10, 64, 8192]), 0_usize..1000),
            start in any::<u32>(),
            steps in prop::collection::vec((0_u32..300, 1_usize..200), 0..50),
        ) {
            let (rate, mut now) = (Rate::new(per_second, burst_min), start);
            let (mut small, mut bucket) = (SmallBucket::full(now), Bucket::full(rate, now));
            for (ticks, tokens) in steps {
                now = now.wrapping_add(ticks);
                for _ in 0..tokens {
                    prop_assert_eq!(small.take_one(rate, now), bucket.take_one(rate, now));
                }
            }
        }
    }

    #[test]
    fn a_small_bucket_holds_a_burst_and_fills_at_the_rate() {
        let taken = |bucket: &mut SmallBucket, rate, now| (0..2000).filter(|_| bucket.take_one(rate, now)).count();
        let mut bucket = SmallBucket::full(7);
        assert_eq!(taken(&mut bucket, Rate::new(50, 128), 7), 500);
        assert_eq!(taken(&mut bucket, Rate::new(50, 128), 17), 50);
        assert_eq!(taken(&mut bucket, Rate::new(50, 1000), 17), 500, "a larger burst");
        assert_eq!(taken(&mut bucket, Rate::new(50, 128), 107), 0, "a smaller burst");
        assert_eq!(taken(&mut bucket, Rate::new(50, 128), 1 << 30), 500, "a bucket holds no more than its burst");
        assert_eq!(taken(&mut SmallBucket::full(0), Rate::new(1, 1000), 0), 1000);
        let mut fast = SmallBucket::full(0);
        assert!((0..100_000).all(|_| fast.take_one(Rate::new(10_000, 0), 0)));
        assert!((99_000..101_000).contains(&(0..200_000).filter(|_| fast.take_one(Rate::new(10_000, 0), 100)).count()));
    }

    #[test]
    fn a_burst_passes_then_the_rate_applies() {
        let rate = Rate::new(5, 0);
        let mut bucket = Bucket::full(rate, 0);
        let taken = |bucket: &mut Bucket, now| (0..1000).filter(|_| bucket.take_one(rate, now)).count();
        assert_eq!(taken(&mut bucket, 0), 50);
        assert_eq!(taken(&mut bucket, 1), 0, "half a token");
        assert_eq!(taken(&mut bucket, 2), 1);
        assert_eq!(taken(&mut bucket, 12), 5);
        assert!(!bucket.is_full(12 + FILL_TICKS - 1) && bucket.is_full(12 + FILL_TICKS));
        assert_eq!(taken(&mut bucket, 1_000_000), 50, "a bucket holds no more than its burst");
        assert_eq!(taken(&mut bucket, 999_990), 0, "another shard's clock can be a little behind");
    }

    #[test]
    fn taking_more_than_the_bucket_holds_overdraws_it() {
        let rate = Rate::new(1, 0);
        let mut bucket = Bucket::full(rate, 0);
        let mut left = |now| bucket.take(1, rate, now);
        assert!((0..10).all(|_| left(0) == Left::Enough));
        assert!((0..9).all(|_| left(0) == Left::Overdrawn));
        assert_eq!(left(0), Left::Exhausted);
        assert_eq!(left(0), Left::Exhausted, "the debt is limited");
        assert_eq!(left(10), Left::Exhausted);
        assert_eq!(left(210), Left::Enough);
    }

    #[test]
    fn the_largest_message_fits_into_a_burst() {
        let rate = Rate::new(10, 65_536);
        let mut bucket = Bucket::full(rate, u32::MAX);
        assert_eq!(bucket.take(65_536, rate, u32::MAX), Left::Enough);
        assert_eq!(bucket.take(1, rate, 0), Left::Enough, "ticks wrap");
        assert_eq!(bucket.take(u32::MAX, rate, 1), Left::Exhausted);
    }
}
