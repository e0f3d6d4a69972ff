//! Numbers that follow from a seed alone.

/// SplitMix64.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// For one decision that must not depend on how many others were made before it.
    pub fn of(seed: u64, words: &[u64]) -> Self {
        let mut chance = Self(seed);
        for word in words {
            chance.0 ^= word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chance.0 = chance.next();
        }
        chance
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}
