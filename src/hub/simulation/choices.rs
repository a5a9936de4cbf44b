//! The source of a run's decisions.

/// Decisions: from bytes while there are any, then from a generator that those bytes have seeded. So equal bytes make equal
/// runs, and the end of a run, when everything drains, is as random as the rest.
pub struct Choices<I> {
    bytes: I,
    state: u64,
}

impl<I: Iterator<Item = u8>> Choices<I> {
    pub fn new(bytes: I) -> Choices<I> {
        Choices { bytes, state: 0 }
    }

    /// The byte of the next step; `None` after the last byte.
    pub fn step(&mut self) -> Option<u8> {
        let byte = self.bytes.next()?;
        self.state = mix(self.state ^ u64::from(byte));
        Some(byte)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let mut drawn = self.byte();
        if bound > 256 {
            drawn = drawn << 16 | self.byte() << 8 | self.byte();
        }
        drawn % bound.max(1)
    }

    /// True with a probability of 1/`n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn byte(&mut self) -> usize {
        match self.step() {
            Some(byte) => usize::from(byte),
            None => {
                self.state = self.state.wrapping_add(GOLDEN);
                (mix(self.state) >> 56) as usize
            }
        }
    }
}

/// `len` bytes from a seed (splitmix64).
#[cfg(test)]
pub fn bytes(seed: u64, len: usize) -> impl Iterator<Item = u8> {
    (1..=len as u64).map(move |n| (mix(seed.wrapping_add(n.wrapping_mul(GOLDEN))) >> 56) as u8)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
