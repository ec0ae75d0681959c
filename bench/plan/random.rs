//! SplitMix64 (Steele, Lea, Flood 2014): a small generator whose sequence is the same everywhere and for ever, which a
//! library does not promise. Used for arrival times and resampling.

/// State of the generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins the sequence of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// 0 to `bound - 1`; the bias of 2^-64 per value does not matter here.
    #[expect(clippy::cast_possible_truncation, reason = "the product of 64 and 64 bits, shifted by 64")]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Above 0, at most 1, in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let high = ((self.bits() >> 11) + 1) as f64;
        high / 9_007_199_254_740_992.0
    }
}
