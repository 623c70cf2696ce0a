//! A seeded bijection of 0..n that needs no memory.

/// A permutation of `0..n`: a Feistel network over the next even number of bits, walked until it lands below n.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 6;

impl Permutation {
    /// The permutation of `0..n` that belongs to a key.
    pub(crate) fn new(n: u64, key: &[u8; 32]) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let mut state = key.chunks_exact(8).fold(0, |state, chunk| {
            let word = chunk.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            mix(state ^ word)
        });
        let keys = std::array::from_fn(|_| {
            state = mix(state);
            state
        });
        Self { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where `position` goes.
    ///
    /// # Panics
    /// When `position` is not below n.
    pub(crate) fn apply(&self, position: u64) -> u64 {
        assert!(position < self.n, "position {position} of a permutation of {}", self.n);
        // The network permutes fewer than 4n values, so the walk along its cycle comes back below n, in four steps on average.
        let mut at = position;
        loop {
            at = self.network(at);
            if at < self.n {
                return at;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right ^ key) & mask);
        }
        left << self.half_bits | right
    }
}

/// SplitMix64: a bijection of 64 bits that scatters well.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_is_hit_once(n in 1_u64..3000, key: [u8; 32]) {
            let permutation = Permutation::new(n, &key);
            let mut hit = vec![false; n as usize];
            for position in 0..n {
                let to = permutation.apply(position) as usize;
                prop_assert!(!std::mem::replace(&mut hit[to], true), "{to} is hit twice");
            }
        }
    }

    #[test]
    fn works_at_the_extremes() {
        let all = Permutation::new(u64::from(u32::MAX) << 20, &[7; 32]);
        assert_ne!(all.apply(0), all.apply(1));
        assert_eq!(Permutation::new(1, &[0; 32]).apply(0), 0);
    }

    /// Neighbours land far apart, and each place of a small permutation is as likely as any other over keys.
    #[test]
    fn scatters() {
        let n = 10;
        let mut counts = vec![0_u32; 100];
        for seed in 0..20_000_u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            let permutation = Permutation::new(n, &key);
            for position in 0..n {
                counts[(position * n + permutation.apply(position)) as usize] += 1;
            }
        }
        // Each cell is binomial with mean 2000 and standard deviation 42.
        assert!(counts.iter().all(|&count| (1770..2230).contains(&count)), "{counts:?}");
    }
}
