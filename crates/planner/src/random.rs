//! A small seeded generator (SplitMix64): the same numbers on every machine.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream named by `words`.
    pub(crate) fn new(words: &[u64]) -> Self {
        let mut random = Self(0x243f_6a88_85a3_08d3);
        for word in words {
            random.0 ^= *word;
            random.0 = random.next();
        }
        random
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number drawn from the exponential distribution of mean 1, with the same bits on every machine: only sums,
    /// products and quotients.
    pub(crate) fn exponential(&mut self) -> f64 {
        let drawn = self.next() | 1;
        let halvings = drawn.leading_zeros();
        // mantissa in [1, 2); ln by the series of the inverse hyperbolic tangent.
        let mantissa = (drawn << halvings) as f64 / (1_u64 << 63) as f64;
        let t = (mantissa - 1.0) / (mantissa + 1.0);
        let t2 = t * t;
        let ln = 2.0 * t * (1.0 + t2 * (1.0 / 3.0 + t2 * (1.0 / 5.0 + t2 * (1.0 / 7.0 + t2 / 9.0))));
        (f64::from(halvings + 1) * std::f64::consts::LN_2 - ln).max(0.0)
    }

    /// Puts `items` into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn exponential_has_its_mean_and_median() {
        let mut random = Random::new(&[1]);
        let drawn: Vec<f64> = (0..100_000).map(|_| random.exponential()).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let below = drawn.iter().filter(|x| **x < std::f64::consts::LN_2).count() as f64 / drawn.len() as f64;
        assert!((mean - 1.0).abs() < 0.02 && (below - 0.5).abs() < 0.01, "{mean} {below}");
    }
}
