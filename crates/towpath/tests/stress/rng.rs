//! Random numbers from a seed, and the bytes that streams are made of.
//!
//! Everything that a scenario chooses comes from here and thus from the run's seed. What the scheduler makes of it does
//! not.

/// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good one.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Another generator, whose numbers have nothing to do with this one's.
    pub(crate) fn fork(&mut self) -> Rng {
        Rng(mix(self.next()))
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The endless bytes of one direction of one connection: each depends on the seed and its position alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern(pub(crate) u64);

impl Pattern {
    pub(crate) fn byte(self, position: u64) -> u8 {
        (mix(self.0.wrapping_add(position / 8)) >> (position % 8 * 8)) as u8
    }

    pub(crate) fn bytes(self, from: u64, count: usize) -> Vec<u8> {
        (from..from + count as u64).map(|position| self.byte(position)).collect()
    }

    /// # Panics
    /// If `bytes` is not what stands at `from`.
    pub(crate) fn check(self, from: u64, bytes: &[u8]) {
        for (position, &byte) in (from..).zip(bytes) {
            let wanted = self.byte(position);
            assert_eq!(byte, wanted, "byte {position} of stream {:x}: read {byte:02x}, written {wanted:02x}", self.0);
        }
    }
}
