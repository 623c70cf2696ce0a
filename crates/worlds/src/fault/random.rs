//! The seeded stream that every choice of a simulation is drawn from (SplitMix64).

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream named by `seed` and `name`.
    pub(super) fn new(seed: u64, name: u64) -> Self {
        let mut random = Self(seed ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.0 = random.next();
        random
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low + ((u128::from(self.next()) * u128::from(span)) >> 64) as u64
    }

    /// A number from `low` to `high`, every order of magnitude equally likely.
    pub(super) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let doublings = (high as f64 / low as f64).log2();
        (low as f64 * (self.fraction() * doublings).exp2()) as u64
    }

    /// A number in 0..1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// One of `items`, if there are any.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let last = items.len().checked_sub(1)?;
        items.get(self.between(0, last as u64) as usize)
    }
}
